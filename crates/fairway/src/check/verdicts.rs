//! The verdict on each annotation and each key of the global ConfigMap that the objects use.

use std::collections::BTreeMap;

use fairway_model::Origin;
use fairway_translate::annotation::Annotations;
use fairway_translate::objects::{Kind, Object, ObjectKey};
use fairway_translate::verdict::{Verdict, nearest};
use fairway_translate::{annotation, configmap};

use crate::manifest::Place;
use crate::reading::Reading;

/// The verdict on a name of ingress-nginx, and where it is used.
pub(super) struct Met {
    /// `None` if the name is unknown.
    pub(super) verdict: Option<Verdict>,
    /// The name that was probably meant.
    near: Option<&'static str>,
    /// Number of objects that use it.
    pub(super) users: usize,
    /// Number of these that are not served, because they have another class.
    pub(super) foreign: usize,
    /// The first object that uses it.
    pub(super) origin: Origin,
    field: String,
    pub(super) place: Option<Place>,
}

/// Annotations and keys of the global ConfigMap, by the name that the user writes.
#[derive(Default)]
pub(super) struct Verdicts {
    pub(super) annotations: BTreeMap<String, Met>,
    pub(super) keys: BTreeMap<String, Met>,
}

pub(super) fn verdicts(reading: &Reading) -> Verdicts {
    let mut found = Verdicts::default();
    let prefix = &reading.options.annotations_prefix;
    let rules = reading.annotation_rules();
    for (key, object) in reading.objects.iter() {
        let origin = key.origin();
        match object {
            // Objects that are not served count as well: a chart may set their class, or they may be meant to move.
            Object::Ingress(ingress) => {
                let foreign = usize::from(reading.foreign.contains(&origin));
                let Some(all) = ingress.read().metadata.annotations else { continue };
                let annotations = Annotations::new(&origin, prefix, &all);
                for (name, value) in &all {
                    let Some(short) = annotation::short_name(prefix, name) else { continue };
                    let verdict = annotation::spec(short).map(|spec| spec.verdict_of(value, &annotations, &rules));
                    let met = || {
                        Met::new(
                            verdict,
                            short,
                            annotation::names(),
                            &origin,
                            format!("metadata.annotations[\"{name}\"]"),
                        )
                    };
                    found.annotations.entry(name.clone()).or_insert_with(met).add(verdict, foreign);
                }
            }
            Object::ConfigMap(configmap)
                if reading
                    .options
                    .configmap
                    .as_ref()
                    .is_some_and(|(namespace, name)| **namespace == *key.namespace && **name == *key.name) =>
            {
                for (name, value) in configmap.data.iter().flatten() {
                    let verdict = configmap::spec(name).map(|spec| spec.verdict_of(value));
                    let met = || Met::new(verdict, name, configmap::names(), &origin, format!("data[\"{name}\"]"));
                    found.keys.entry(name.clone()).or_insert_with(met).add(verdict, 0);
                }
            }
            _ => {}
        }
    }
    for met in found.annotations.values_mut().chain(found.keys.values_mut()) {
        met.place = reading.manifests.place_of(&met.origin, &met.field);
    }
    found
}

impl Met {
    fn new(
        verdict: Option<Verdict>,
        name: &str,
        known: impl Iterator<Item = &'static str>,
        origin: &Origin,
        field: String,
    ) -> Self {
        let near = if verdict.is_none() { nearest(name, known) } else { None };
        Self { verdict, near, users: 0, foreign: 0, origin: origin.clone(), field, place: None }
    }

    /// Adds a use. The verdict shown is the worst of all values.
    fn add(&mut self, verdict: Option<Verdict>, foreign: usize) {
        if verdict.map(Verdict::loss) > self.verdict.map(Verdict::loss) {
            self.verdict = verdict;
        }
        self.users += 1;
        self.foreign += foreign;
    }

    /// The verdict in one word.
    pub(super) fn label(&self) -> &'static str {
        self.verdict.map_or("unknown", Verdict::label)
    }

    /// What users should know about it; empty if it works as in ingress-nginx.
    pub(super) fn note(&self) -> String {
        match (self.verdict, self.near) {
            (Some(verdict), _) => verdict.note(),
            (None, Some(near)) => format!("ingress-nginx has no such name either; did you mean {near}?"),
            (None, None) => "ingress-nginx has no such name either".to_owned(),
        }
    }
}

/// The verdicts on one Ingress.
pub(super) struct Ingress<'a> {
    pub(super) key: &'a ObjectKey,
    pub(super) served: bool,
    /// Its annotations of ingress-nginx, without the prefix, each with its verdict.
    pub(super) annotations: Vec<(String, &'static str)>,
}

/// Verdicts by namespace and name of the Ingress.
pub(super) fn by_ingress(reading: &Reading) -> Vec<Ingress<'_>> {
    let prefix = &reading.options.annotations_prefix;
    let rules = reading.annotation_rules();
    let ingresses = reading.objects.of_kind(Kind::Ingress).filter_map(|(key, object)| {
        let Object::Ingress(ingress) = object else { return None };
        let (origin, all) = (key.origin(), ingress.read().metadata.annotations.unwrap_or_default());
        let annotations = Annotations::new(&origin, prefix, &all);
        let verdict = |(name, value): (&String, &String)| {
            let short = annotation::short_name(prefix, name)?;
            let verdict = annotation::spec(short).map(|spec| spec.verdict_of(value, &annotations, &rules));
            Some((short.to_owned(), verdict.map_or("unknown", Verdict::label)))
        };
        let annotations = all.iter().filter_map(verdict).collect();
        Some(Ingress { key, served: !reading.foreign.contains(&origin), annotations })
    });
    ingresses.collect()
}
