//! The translation itself: changes of objects in, changes of the model out.
//!
//! [`translate`] is the function that is meant: all objects to all resources. [`Translator`] gives the same result at a cost that
//! follows the change. It keeps what each object means on its own and redoes only the hosts, backends and certificates that a
//! changed object names. What differs from [`translate`]: a version of an object that can't be accepted leaves the last good one in
//! force, as long as the object is there; and a Secret or ConfigMap leaves its last good version in force even when it is gone, as
//! long as something refers to it, except for the ConfigMaps of TCP and UDP services, whose deletion closes their ports. For
//! Secrets that is another behaviour than that of ingress-nginx, which serves the default
//! certificate until the Secret is back: a certificate that was deleted by mistake takes nobody's site down. The Ingresses that
//! refer to it are told.

mod backends;
mod certificates;
mod global;
mod ingresses;
mod names;
mod part;
mod report;
mod streams;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use fairway_model::{BackendName, Delta, HostPattern, Resource, ResourceName, Snapshot, TableName};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::discovery::v1::EndpointSlice;

use self::backends::BackendState;
use self::certificates::SecretState;
use self::global::Global;
use self::ingresses::IngressState;
use self::names::NameState;
use self::part::{Extent, Waiting};
use self::streams::Streams;
use crate::annotation::{self, Annotations};
use crate::class::Classes;
use crate::diagnostic::Diagnostic;
use crate::external_dns;
use crate::ingress::Policies;
use crate::objects::{Change, Kind, Object, ObjectKey, Objects};
use crate::options::Options;
use crate::service::{BackendKey, BackendPort};
use crate::standing::LeftOut;
use crate::verdict::Verdict;

/// The label of an EndpointSlice that names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// After so many changes at once it is worth the time to pack what is kept: trees that were filled in order are half empty.
const MANY: usize = 1000;

/// What all objects mean together.
#[derive(Clone, Debug)]
pub struct Translation {
    /// The model.
    pub snapshot: Snapshot,
    /// What there is to tell, by object.
    pub diagnostics: Vec<Diagnostic>,
    /// The Ingresses that are ours and in force: these get a status.
    pub served: BTreeSet<ObjectKey>,
    /// The Ingresses of which no version is in force, or not the newest one, with the reason.
    pub left_out: Vec<LeftOut>,
}

/// Translates all objects. Total: bad objects yield diagnostics, never a failure. `now` is in seconds since 1970; the validity of
/// certificates is judged by it, nothing else.
pub fn translate(objects: &Objects, options: &Options, now: i64) -> Translation {
    let mut translator = Translator::new(options.clone());
    translator.apply(objects.in_order().into_iter().cloned().map(Change::Upsert), now);
    Translation {
        left_out: translator.left_out().collect(),
        diagnostics: translator.reported.into_values().flatten().collect(),
        snapshot: translator.snapshot,
        served: translator.served,
    }
}

/// What changed in the meaning.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Update {
    /// Of the model. Empty when nothing did.
    pub delta: Delta,
    /// The objects about which something else is to be told than before, with all there is to tell now; nothing means that all is
    /// well.
    pub diagnostics: Vec<(ObjectKey, Vec<Diagnostic>)>,
    /// Ingresses that are ours and in force from now on.
    pub served: Vec<ObjectKey>,
    /// Ingresses that were and are not any more, or are gone.
    pub unserved: Vec<ObjectKey>,
    /// Secrets and ConfigMaps that are needed from now on.
    pub wanted: Vec<ObjectKey>,
    /// Secrets and ConfigMaps that are not needed any more.
    pub unwanted: Vec<ObjectKey>,
}

impl Update {
    /// Whether nothing changed at all.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A translation that is kept up to date.
#[derive(Debug)]
pub struct Translator {
    options: Options,
    objects: Objects,
    table: TableName,
    classes: Classes,
    global: Global,
    streams: Streams,
    ingresses: BTreeMap<ObjectKey, IngressState>,
    names: BTreeMap<HostPattern, NameState>,
    backends: BTreeMap<BackendKey, BackendState>,
    /// The EndpointSlices of each Service, sorted.
    slices: HashMap<ObjectKey, Vec<ObjectKey>>,
    secrets: BTreeMap<ObjectKey, SecretState>,
    /// When certificates begin or end to be valid.
    validity: BTreeSet<(i64, ObjectKey)>,
    default_backend: Option<BackendName>,
    policies: Policies,
    snapshot: Snapshot,
    reported: BTreeMap<ObjectKey, Vec<Diagnostic>>,
    served: BTreeSet<ObjectKey>,
    /// The Ingresses of which no version is in force, or not the newest one.
    left_out: BTreeSet<ObjectKey>,
    now: i64,
    pending: Work,
    waiting: Waiting,
    /// How many changes are one part.
    part: usize,
}

/// What has to be done again.
#[derive(Debug, Default)]
struct Work {
    config: bool,
    /// The ports of TCP and UDP services.
    streams: bool,
    all_ingresses: bool,
    namespaces: BTreeSet<Arc<str>>,
    ingresses: BTreeSet<ObjectKey>,
    secrets: BTreeSet<ObjectKey>,
    backends: BTreeSet<BackendKey>,
    /// Hosts whose choice of a certificate has to be looked at.
    certificates: BTreeSet<HostPattern>,
    /// Hosts that have to be merged.
    names: BTreeSet<HostPattern>,
    /// Objects about which there may be something else to tell.
    reports: BTreeSet<ObjectKey>,
    /// Secrets and ConfigMaps, and whether they were wanted before.
    wants: BTreeMap<ObjectKey, bool>,
    /// Ingresses, and whether they were served before.
    served: BTreeMap<ObjectKey, bool>,
    upserts: Vec<Resource>,
    removals: Vec<ResourceName>,
}

impl Translator {
    /// A translation of no objects. The first [`apply`](Self::apply) gives what holds without any: settings, listeners and the
    /// catch-all host.
    pub fn new(options: Options) -> Self {
        let mut pending = Work { config: true, streams: true, ..Work::default() };
        pending.names.insert(HostPattern::Any);
        let mut translator = Self {
            objects: Objects::default(),
            table: TableName::from("ingress"),
            classes: Classes::default(),
            global: Global::new(&options),
            streams: Streams::new(&options),
            ingresses: BTreeMap::new(),
            names: BTreeMap::new(),
            backends: BTreeMap::new(),
            slices: HashMap::new(),
            secrets: BTreeMap::new(),
            validity: BTreeSet::new(),
            default_backend: None,
            policies: Policies::default(),
            snapshot: Snapshot::default(),
            reported: BTreeMap::new(),
            served: BTreeSet::new(),
            left_out: BTreeSet::new(),
            now: i64::MIN,
            pending: Work::default(),
            waiting: Waiting::default(),
            part: part::CHANGES,
            options,
        };
        translator.names.insert(HostPattern::Any, NameState::default());
        if let Some((namespace, service)) = &translator.options.default_backend_service {
            let key = BackendKey::new(namespace.as_str(), service, BackendPort::First);
            translator.default_backend = Some(key.name());
            pending.backends.insert(key.clone());
            translator.backends.insert(key, BackendState::pinned());
        }
        if let Some((namespace, name)) = &translator.options.default_ssl_certificate {
            let key = ObjectKey::new(Kind::Secret, namespace, name);
            pending.secrets.insert(key.clone());
            pending.wants.insert(key.clone(), false);
            translator.secrets.insert(key, SecretState::pinned());
        }
        for key in translator.global.key().into_iter().chain(translator.streams.config_maps()) {
            pending.wants.insert(key.clone(), false);
        }
        translator.pending = pending;
        translator
    }

    /// The same with this many changes in one part of a large change. At least one.
    #[must_use]
    pub fn with_part(self, changes: usize) -> Self {
        Self { part: changes.max(1), ..self }
    }

    /// Takes changes and says what they change, and what waited from [`apply_part`](Self::apply_part). `now` is in seconds since 1970.
    ///
    /// Applying no changes at all is worth it as time goes by: certificates begin and end to be valid.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change>, now: i64) -> Update {
        let mut work = std::mem::take(&mut self.pending);
        while let Some((change, anew)) = self.waiting.changes.pop() {
            self.take_after(change, anew, &mut work);
        }
        let mut taken = 0;
        for change in changes {
            self.take(change, &mut work);
            taken += 1;
        }
        if taken >= MANY {
            self.objects.compact();
        }
        self.settle(work, Extent::whole(), now)
    }

    /// Takes changes and does a bounded amount of work, so that whoever has another change needn't wait long. A few changes are in
    /// force when this returns, before anything that waits; of many the first part is, and the rest waits. As long as there
    /// [is more](Self::has_more), [`proceed`](Self::proceed) goes on with it.
    ///
    /// When nothing waits any more, the result is that of [`apply`](Self::apply), with the exceptions that are in its nature: of a
    /// version that was superseded while it waited nothing is known, and among objects without a creation time the one that had
    /// its turn first is the older.
    pub fn apply_part(&mut self, changes: impl IntoIterator<Item = Change>, now: i64) -> Update {
        let changes: Vec<Change> = changes.into_iter().collect();
        if self.is_large(changes.len()) {
            changes.into_iter().for_each(|change| self.waiting.changes.push(change));
            return self.proceed(now);
        }
        let mut work = std::mem::take(&mut self.pending);
        for change in changes {
            let anew = self.waiting.changes.supersede(&change);
            self.take_after(change, anew, &mut work);
        }
        self.settle(work, Extent::fresh(self.part), now)
    }

    /// Whether so many changes are more than one part.
    pub fn is_large(&self, changes: usize) -> bool {
        changes > self.part
    }

    /// Whether something waits since [`apply_part`](Self::apply_part).
    pub fn has_more(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The changes that wait.
    pub fn waiting_changes(&self) -> impl Iterator<Item = &Change> {
        self.waiting.changes.iter()
    }

    /// Does the next part of what waits.
    pub fn proceed(&mut self, now: i64) -> Update {
        let mut work = std::mem::take(&mut self.pending);
        for _ in 0..self.part {
            let Some((change, anew)) = self.waiting.changes.pop() else { break };
            self.take_after(change, anew, &mut work);
        }
        self.settle(work, Extent::part(self.part), now)
    }

    fn settle(&mut self, mut work: Work, extent: Extent, now: i64) -> Update {
        self.pass_time(now, &mut work);
        self.settle_config(&mut work);
        self.settle_streams(&mut work);
        self.settle_ingresses(&mut work, extent);
        self.settle_secrets(&mut work);
        self.settle_backends(&mut work, extent);
        self.settle_names(&mut work, extent);
        let diagnostics = self.settle_reports(&mut work, extent);
        self.finish(work, diagnostics)
    }

    fn finish(&mut self, mut work: Work, diagnostics: Vec<(ObjectKey, Vec<Diagnostic>)>) -> Update {
        work.removals.sort_unstable();
        let delta = Delta { upserts: work.upserts, removals: work.removals };
        if !delta.is_empty() {
            self.snapshot = self.snapshot.apply(delta.clone());
        }
        let mut update = Update { delta, diagnostics, ..Update::default() };
        for (key, before) in work.served {
            match (before, self.served.contains(&key)) {
                (false, true) => update.served.push(key),
                (true, false) => update.unserved.push(key),
                _ => {}
            }
        }
        for (key, before) in work.wants {
            match (before, self.wants(&key)) {
                (false, true) => update.wanted.push(key),
                (true, false) => update.unwanted.push(key),
                _ => {}
            }
        }
        update
    }

    /// The model as it is now.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// All there is to tell, by object.
    pub fn diagnostics(&self) -> &BTreeMap<ObjectKey, Vec<Diagnostic>> {
        &self.reported
    }

    /// The Ingresses that are ours and in force: these get a status.
    pub fn served(&self) -> &BTreeSet<ObjectKey> {
        &self.served
    }

    /// The objects as they are now.
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// Whether an object is needed. Secrets and ConfigMaps are only when something refers to them; all else always is.
    pub fn wants(&self, key: &ObjectKey) -> bool {
        match key.kind {
            Kind::Secret => self.secrets.contains_key(key),
            Kind::ConfigMap => self.global.wants(key) || self.streams.wants(key),
            Kind::Ingress | Kind::IngressClass | Kind::Service | Kind::EndpointSlice | Kind::Namespace => true,
        }
    }

    /// Each annotation of an Ingress that is known, without the prefix, and how far it works. Empty for one that isn't ours.
    pub fn verdicts(&self, key: &ObjectKey) -> Vec<(&'static str, Verdict)> {
        let Some(Object::Ingress(ingress)) = self.objects.get(key) else { return Vec::new() };
        if !self.ingresses.contains_key(key) {
            return Vec::new();
        }
        let Some(all) = ingress.read().metadata.annotations else { return Vec::new() };
        let origin = key.origin();
        let annotations = Annotations::new(&origin, &self.options.annotations_prefix, &all);
        annotations
            .iter()
            .filter_map(|(name, value)| Some((annotation::spec(name)?, value)))
            .map(|(spec, value)| (spec.name, spec.verdict_of(value, &annotations, &self.global.rules)))
            .collect()
    }

    /// Takes one change. If the object was removed in between, it is another one of the same name.
    fn take_after(&mut self, change: Change, removed: bool, work: &mut Work) {
        if let (Change::Upsert(object), true) = (&change, removed) {
            self.take(Change::Remove(object.key()), work);
        }
        self.take(change, work);
    }

    /// Takes one change into the store, and notes what it concerns. What means the same as before concerns nothing.
    fn take(&mut self, change: Change, work: &mut Work) {
        let (key, after) = match &change {
            Change::Upsert(object) => (object.key(), Some(object.clone())),
            Change::Remove(key) => (key.clone(), None),
        };
        let before = self.objects.apply(change);
        let unchanged = match (&before, &after) {
            (Some(before), Some(after)) => means_the_same(before, after),
            (None, None) => true,
            _ => false,
        };
        if unchanged {
            return;
        }
        match key.kind {
            Kind::Ingress => {
                work.ingresses.insert(key);
            }
            Kind::IngressClass => {
                let class = match &after {
                    Some(Object::IngressClass(class)) => Some(&**class),
                    _ => None,
                };
                work.all_ingresses |= self.classes.update_class(&key.name, class, &self.options);
            }
            Kind::Namespace => {
                let namespace = match &after {
                    Some(Object::Namespace(namespace)) => Some(&**namespace),
                    _ => None,
                };
                if self.classes.update_namespace(&key.name, namespace, &self.options) {
                    work.namespaces.insert(key.name);
                }
            }
            Kind::Service => {
                self.touch_service(&key, work);
                let concerns =
                    |object: &Object| matches!(object, Object::Service(service) if external_dns::concerns(service));
                if before.iter().chain(&after).any(concerns) {
                    work.reports.insert(key);
                }
            }
            Kind::EndpointSlice => {
                for (object, there) in [(before, false), (after, true)] {
                    if let Some(Object::EndpointSlice(slice)) = object
                        && let Some(service) = service_of(&key, &slice)
                    {
                        self.index_slice(&key, service, there, work);
                    }
                }
            }
            Kind::Secret => {
                if self.secrets.contains_key(&key) {
                    work.secrets.insert(key);
                }
            }
            Kind::ConfigMap => {
                work.streams |= self.streams.wants(&key);
                work.config |= self.global.update(&key, after.as_ref());
            }
        }
    }
}

/// Whether two versions of an object mean the same here: status, managed fields and the like mean nothing.
fn means_the_same(before: &Object, after: &Object) -> bool {
    match (before, after) {
        (Object::Ingress(a), Object::Ingress(b)) => a == b,
        (Object::IngressClass(a), Object::IngressClass(b)) => {
            a.spec == b.spec && a.metadata.annotations == b.metadata.annotations
        }
        (Object::Service(a), Object::Service(b)) => {
            Arc::ptr_eq(a, b) || (a.spec == b.spec && external_dns::alike(a, b))
        }
        (Object::EndpointSlice(a), Object::EndpointSlice(b)) => {
            let label = |slice: &EndpointSlice| {
                slice.metadata.labels.as_ref().and_then(|labels| labels.get(SERVICE_NAME)).cloned()
            };
            Arc::ptr_eq(a, b)
                || (a.endpoints == b.endpoints
                    && a.ports == b.ports
                    && a.address_type == b.address_type
                    && label(a) == label(b))
        }
        (Object::Secret(a), Object::Secret(b)) => Arc::ptr_eq(a, b) || a.data == b.data,
        (Object::ConfigMap(a), Object::ConfigMap(b)) => Arc::ptr_eq(a, b) || a.data == b.data,
        (Object::Namespace(a), Object::Namespace(b)) => {
            let phase = |namespace: &Namespace| namespace.status.as_ref().and_then(|status| status.phase.clone());
            a.metadata.labels == b.metadata.labels
                && a.metadata.deletion_timestamp == b.metadata.deletion_timestamp
                && phase(a) == phase(b)
        }
        _ => false,
    }
}

fn service_of(key: &ObjectKey, slice: &EndpointSlice) -> Option<ObjectKey> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    Some(ObjectKey { kind: Kind::Service, namespace: key.namespace.clone(), name: name.as_str().into() })
}

#[cfg(test)]
mod tests;
