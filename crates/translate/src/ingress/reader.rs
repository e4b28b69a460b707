//! The Ingresses that are ours and in effect, and the version that is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fairway_model::packing::{MANY, pack};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};

use super::annotation::{self, Annotations, IngressAnnotations, Rules};
use super::class::Classes;
use super::hosts::Hosts;
use super::part::{Denying, Part, Unloadable, parse};
use crate::diagnostic::{Diagnostic, Reason, Severity};
use crate::engine::dirty::{Dirty, Output};
use crate::engine::part::{Extent, portion};
use crate::engine::shared::Shared;
use crate::objects::{Kind, Object, ObjectKey, Objects, StoredIngress};
use crate::options::Options;
use crate::resource::{Age, Backends, ConfigMaps, Secrets};
use crate::standing::{Instead, LeftOut, NotOurs, Standing};
use crate::verdict::Verdict;

/// All Ingresses.
#[derive(Debug, Default)]
pub(crate) struct Ingresses {
    classes: Classes,
    states: BTreeMap<ObjectKey, IngressState>,
    served: BTreeSet<ObjectKey>,
    /// Ingresses without a version in effect, or with only an older one.
    left_out: BTreeSet<ObjectKey>,
    waiting: BTreeSet<ObjectKey>,
    /// Shared, since most Ingresses of a cluster have the same annotations as many others.
    annotations: Shared<IngressAnnotations>,
}

/// An Ingress that is ours, or about which there is a finding.
#[derive(Debug, Default)]
struct IngressState {
    /// The version in effect.
    part: Option<Arc<Part>>,
    /// The newest version that was acceptable on arrival.
    good: Option<StoredIngress>,
    /// Why the newest version is not in effect.
    rejection: Vec<Diagnostic>,
    /// Whether the version in effect only denies, because the newest one must not be loaded and there is no good one.
    only_denies: bool,
}

impl IngressState {
    fn is_served(&self) -> bool {
        self.part.is_some() && !self.only_denies
    }
}

/// The inputs for reading Ingresses, and the rules.
#[derive(Clone, Copy)]
pub(crate) struct IngressInputs<'a> {
    pub(crate) objects: &'a Objects,
    pub(crate) rules: &'a Rules,
    pub(crate) options: &'a Options,
}

/// The resources that Ingresses own.
pub(crate) struct Owned<'a> {
    pub(crate) hosts: &'a mut Hosts,
    pub(crate) backends: &'a mut Backends,
    pub(crate) secrets: &'a mut Secrets,
    pub(crate) config_maps: &'a mut ConfigMaps,
}

impl Ingresses {
    /// Applies a new or changed IngressClass, or its removal.
    pub(crate) fn update_class(
        &mut self,
        name: &str,
        class: Option<&IngressClass>,
        options: &Options,
        dirty: &mut Dirty,
    ) {
        dirty.all_ingresses |= self.classes.update_class(name, class, options);
    }

    /// Applies a new or changed Namespace, or its removal.
    pub(crate) fn update_namespace(
        &mut self,
        name: &Arc<str>,
        namespace: Option<&Namespace>,
        options: &Options,
        dirty: &mut Dirty,
    ) {
        if self.classes.update_namespace(name, namespace, options) {
            dirty.namespaces.insert(name.clone());
        }
    }

    /// Reads the Ingresses that are due, and updates the owners of hosts, backends and Secrets.
    pub(crate) fn settle(
        &mut self,
        inputs: IngressInputs<'_>,
        mut owned: Owned<'_>,
        dirty: &mut Dirty,
        out: &mut Output,
        extent: Extent,
    ) {
        let mut keys = std::mem::take(&mut dirty.ingresses);
        if std::mem::take(&mut dirty.all_ingresses) {
            keys.extend(inputs.objects.of_kind(Kind::Ingress).map(|(key, _)| key.clone()));
        }
        for namespace in std::mem::take(&mut dirty.namespaces) {
            keys.extend(inputs.objects.in_namespace(Kind::Ingress, &namespace).map(|(key, _)| key.clone()));
        }
        let keys = portion(keys, &mut self.waiting, extent.changes, extent);
        // Packing takes too long for a part of a large change.
        let many = keys.len() >= MANY && extent.is_whole();
        for key in keys {
            self.update(key, inputs, &mut owned, dirty, out);
        }
        if many {
            pack(&mut self.states);
            owned.hosts.compact();
            owned.backends.compact();
            self.served = std::mem::take(&mut self.served).into_iter().collect();
        }
    }

    /// Whether any Ingresses wait for their turn.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Marks the hosts of Ingresses whose Secrets or ConfigMaps have changed.
    pub(crate) fn follow_references(&self, dirty: &mut Dirty) {
        for (owner, secret) in std::mem::take(&mut dirty.secret_owners) {
            let Some(part) = self.part(&owner) else { continue };
            dirty.certificates.extend(part.patterns());
            let own = [&part.backend_secret, &part.client_secret, &part.user_secret];
            if own.into_iter().any(|own| own.as_deref() == Some(&secret)) {
                dirty.hosts.extend(part.patterns());
            }
        }
        for owner in std::mem::take(&mut dirty.config_map_owners) {
            dirty.hosts.extend(self.part(&owner).into_iter().flat_map(|part| part.patterns()));
        }
    }

    fn update(
        &mut self,
        key: ObjectKey,
        inputs: IngressInputs<'_>,
        owned: &mut Owned<'_>,
        dirty: &mut Dirty,
        out: &mut Output,
    ) {
        let before = self.states.remove(&key).unwrap_or_default();
        let after = self.read(&key, before.good, inputs);
        if let Some(part) = &before.part {
            detach(part, owned, dirty, out);
        }
        if let Some(part) = &after.part {
            attach(part, owned, dirty, out);
        }
        let was_served =
            if after.is_served() { self.served.replace(key.clone()).is_some() } else { self.served.remove(&key) };
        out.served.entry(key.clone()).or_insert(was_served);
        let there = inputs.objects.get(&key).is_some();
        if there && (after.part.is_none() || !after.rejection.is_empty()) {
            self.left_out.insert(key.clone());
        } else {
            self.left_out.remove(&key);
        }
        dirty.reports.insert(key.clone());
        if after.part.is_some() || !after.rejection.is_empty() {
            self.states.insert(key, after);
        }
    }

    fn read(&mut self, key: &ObjectKey, good: Option<StoredIngress>, inputs: IngressInputs<'_>) -> IngressState {
        let IngressInputs { objects, rules, options } = inputs;
        let Some(Object::Ingress(stored)) = objects.get(key) else { return IngressState::default() };
        let ingress = stored.read();
        if let Err(why) = self.classes.judge(&key.namespace, &ingress, options) {
            return IngressState {
                rejection: notice(key, &why, options).into_iter().collect(),
                ..IngressState::default()
            };
        }
        let sequence = objects.sequence(key).unwrap_or(u64::MAX);
        // This holds for the last good version too.
        let leaving = stored.is_leaving() || self.classes.is_leaving(&key.namespace);
        let mut read = |stored: &StoredIngress, ingress| {
            let age = Age::of(key, stored.created(), sequence, leaving);
            let part = parse(&ingress, key, age, rules, options)?;
            Ok(Arc::new(Part { annotations: self.annotations.of(part.annotations), ..part }))
        };
        match read(stored, ingress) {
            Ok(part) => IngressState { part: Some(part), good: Some(stored.clone()), ..IngressState::default() },
            Err(Unloadable { diagnostics: mut rejection, denying }) => {
                let part = good.as_ref().and_then(|good| read(good, good.read()).ok());
                let denying = denying.filter(|_| part.is_none());
                let only_denies = denying.is_some();
                let part = part.or_else(|| {
                    let Denying { part, finding } = *denying?;
                    rejection.push(finding);
                    Some(Arc::new(part))
                });
                IngressState { part, good, rejection, only_denies }
            }
        }
    }

    /// Whether an Ingress is in effect only as far as its paths are denied.
    pub(crate) fn only_denies(&self, key: &ObjectKey) -> bool {
        self.states.get(key).is_some_and(|state| state.only_denies)
    }

    /// Reads a version that is not stored yet as if it were.
    ///
    /// # Errors
    /// It isn't ours.
    pub(crate) fn read_submitted(
        &self,
        key: &ObjectKey,
        ingress: &Ingress,
        inputs: IngressInputs<'_>,
    ) -> Result<Result<Part, Unloadable>, NotOurs> {
        let IngressInputs { objects, rules, options } = inputs;
        self.classes.judge(&key.namespace, ingress, options)?;
        let created = ingress.metadata.creation_timestamp.as_ref().map(|time| time.0);
        let age = Age::of(key, created, objects.sequence(key).unwrap_or(u64::MAX), false);
        Ok(parse(ingress, key, age, rules, options))
    }

    /// Has the next reading of each Ingress make its annotations anew, in memory of their own.
    pub(crate) fn renew_shared(&mut self) {
        self.annotations.renew();
    }

    /// The version of an Ingress that is in effect.
    pub(crate) fn part(&self, key: &ObjectKey) -> Option<&Arc<Part>> {
        self.states.get(key)?.part.as_ref()
    }

    /// Why the newest version of an Ingress is not in effect.
    pub(crate) fn rejection(&self, key: &ObjectKey) -> &[Diagnostic] {
        self.states.get(key).map_or(&[], |state| &state.rejection)
    }

    /// The Ingresses that are ours and in effect.
    pub(crate) fn served(&self) -> &BTreeSet<ObjectKey> {
        &self.served
    }

    /// The standing of an Ingress; `None` if it does not exist.
    pub(crate) fn standing(&self, key: &ObjectKey, objects: &Objects, options: &Options) -> Option<Standing> {
        let Some(Object::Ingress(stored)) = objects.get(key) else { return None };
        if let Err(why) = self.classes.judge(&key.namespace, &stored.read(), options) {
            return Some(Standing::NotOurs(why));
        }
        Some(match self.states.get(key) {
            Some(IngressState { rejection, .. }) if rejection.is_empty() => Standing::Accepted,
            Some(state) => {
                let instead = match &state.part {
                    _ if state.only_denies => Instead::Denial,
                    Some(_) => Instead::LastGood,
                    None => Instead::Nothing,
                };
                Standing::Refused { because: state.rejection.clone(), instead }
            }
            None => Standing::Waiting,
        })
    }

    /// Every Ingress without a version in effect, or with only an older one, with its hosts and the reason.
    pub(crate) fn left_out<'a>(
        &'a self,
        objects: &'a Objects,
        options: &'a Options,
    ) -> impl Iterator<Item = LeftOut> + use<'a> {
        self.left_out.iter().filter_map(move |key| {
            let Some(Object::Ingress(stored)) = objects.get(key) else { return None };
            Some(LeftOut::new(key, &stored.read(), self.standing(key, objects, options)?))
        })
    }

    /// The known annotations of an Ingress, without the prefix, with their verdicts. Empty if it isn't ours.
    pub(crate) fn verdicts(&self, key: &ObjectKey, inputs: IngressInputs<'_>) -> Vec<(&'static str, Verdict)> {
        let Some(Object::Ingress(ingress)) = inputs.objects.get(key) else { return Vec::new() };
        if !self.states.contains_key(key) {
            return Vec::new();
        }
        let Some(all) = ingress.read().metadata.annotations else { return Vec::new() };
        let origin = key.origin();
        let annotations = Annotations::new(&origin, &inputs.options.annotations_prefix, &all);
        annotations
            .iter()
            .filter_map(|(name, value)| Some((annotation::spec(name)?, value)))
            .map(|(spec, value)| (spec.name, spec.verdict_of(value, &annotations, inputs.rules)))
            .collect()
    }
}

/// Removes a part from everything that it owns.
fn detach(part: &Part, owned: &mut Owned<'_>, dirty: &mut Dirty, out: &mut Output) {
    let age = &part.owner.age;
    part.patterns().for_each(|pattern| owned.hosts.detach(pattern, age, dirty));
    part.backends.iter().for_each(|(backend, _)| owned.backends.detach(backend, age, dirty));
    part.secrets().for_each(|secret| owned.secrets.detach(&secret, age, dirty, out));
    part.config_maps().for_each(|map| owned.config_maps.detach(map, age, dirty, out));
}

fn attach(part: &Arc<Part>, owned: &mut Owned<'_>, dirty: &mut Dirty, out: &mut Output) {
    part.patterns().for_each(|pattern| owned.hosts.attach(pattern, part, dirty));
    part.backends.iter().for_each(|(backend, _)| owned.backends.attach(backend, &part.owner, dirty));
    part.secrets().for_each(|secret| owned.secrets.attach(&secret, &part.owner, dirty, out));
    part.config_maps().for_each(|map| owned.config_maps.attach(map, &part.owner, dirty, out));
}

/// The findings about an Ingress that isn't ours. There are none if another controller serves its class.
fn notice(key: &ObjectKey, why: &NotOurs, options: &Options) -> Option<Diagnostic> {
    let ours = &options.ingress_class;
    let missing = Reason::IngressClassNotFound;
    let (severity, reason, message) = match why {
        NotOurs::CatchAll => {
            let message = "Ingresses with a default backend are not served (--disable-catch-all)".to_owned();
            (Severity::Warning, Reason::CatchAllDisabled, message)
        }
        // Files rarely contain all the classes of a cluster: the commands for files report this in their own way.
        _ if options.development.is_some() => return None,
        NotOurs::ClassMissing { class } if class == ours => {
            let message = "there is no IngressClass of this name, so no controller serves the Ingress".to_owned();
            (Severity::Warning, missing, message)
        }
        NotOurs::ClassMissing { .. } => {
            let message =
                format!("there is no IngressClass of this name, so no controller serves the Ingress; ours is {ours}");
            (Severity::Warning, missing, message)
        }
        NotOurs::OtherAnnotation { class, exists: false } if !class.is_empty() => {
            let message = format!(
                "there is no IngressClass of this name, so only a controller that reads this annotation serves the Ingress; ours is {ours}"
            );
            (Severity::Info, missing, message)
        }
        NotOurs::NoClass | NotOurs::OtherAnnotation { exists: false, .. } => {
            let message = format!("it names no class, so it is not served; ours is {ours} (spec.ingressClassName)");
            (Severity::Info, missing, message)
        }
        _ => return None,
    };
    Some(Diagnostic::new(severity, reason, &key.origin(), why.field(), why.class(), message))
}
