//! The translation itself: changes of objects in, changes of the model out.
//!
//! [`translate`] defines the result: it turns all objects into all resources. [`Translator`] gives the same result at a cost proportional
//! to the change. It keeps the translation of each object and redoes only the hosts, backends and certificates that a changed object names.
//!
//! It differs from [`translate`] in two ways. While an object exists, an unacceptable version leaves the last good one in effect. A
//! deleted Secret or ConfigMap stays in effect as long as something refers to it, except for the ConfigMaps of TCP and UDP services,
//! whose deletion closes their ports. ingress-nginx serves the default certificate until a deleted Secret is back; here a Secret
//! deleted by mistake takes no site down, and the Ingresses that refer to it get a finding.

pub(crate) mod dirty;
pub mod objects;
pub(crate) mod part;
pub(crate) mod shared;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fairway_model::packing::MANY;
use fairway_model::{BackendName, Delta, HostPattern, Snapshot, TableName};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use self::dirty::{Dirty, Output};
use self::objects::{Change, Kind, Object, ObjectKey, Objects};
use self::part::{Extent, WaitingChanges};
use crate::config::global::{self, Global};
use crate::config::streams::{self, Streams};
use crate::diagnostic::Diagnostic;
use crate::gateway::status::ObjectStatus;
use crate::gateway::{self, AppliedPolicy, Claims, GatewayInputs, GatewayOwned, Gateways, Make};
use crate::ingress::reader::Owned;
use crate::ingress::review::{self, Review};
use crate::ingress::{Hosts, Ingresses, RedirectPorts, hosts, reader};
use crate::options::Options;
use crate::report::{Reports, external_dns, reports};
use crate::resource::backend::{BackendKey, BackendPort};
use crate::resource::{Backends, ConfigMaps, Secrets, backends};
use crate::standing::{LeftOut, Standing};
use crate::verdict::Verdict;

/// The label of an EndpointSlice that names its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// The translation of all objects.
#[derive(Clone, Debug)]
pub struct Translation {
    /// The model.
    pub snapshot: Snapshot,
    /// Findings, by object.
    pub diagnostics: Vec<Diagnostic>,
    /// The Ingresses that are ours and in effect, and therefore get a status.
    pub served: BTreeSet<ObjectKey>,
    /// The Ingresses without a version in effect, or with only an older one, and the reason.
    pub left_out: Vec<LeftOut>,
    /// The status of each object of the Gateway API that is ours.
    pub statuses: BTreeMap<ObjectKey, Arc<ObjectStatus>>,
    /// The pending work on objects that are created for Gateways and XBackends.
    pub made: BTreeMap<ObjectKey, Make>,
    /// The RoutePolicies that decide about routes.
    pub policies: Vec<AppliedPolicy>,
    /// Which listener each host belongs to.
    pub claims: Claims,
}

/// Translates all objects. Total: bad objects yield diagnostics, never a failure. `now`, in seconds since 1970, is used only for
/// the validity of certificates.
pub fn translate(objects: &Objects, options: &Options, now: i64) -> Translation {
    let mut translator = Translator::new(options.clone());
    translator.apply(objects.in_order().into_iter().cloned().map(Change::Upsert), now);
    Translation {
        left_out: translator.left_out().collect(),
        served: translator.ingresses.served().clone(),
        statuses: translator.gateways.statuses().clone(),
        made: translator.gateways.made().clone(),
        policies: translator.gateways.applied_policies(),
        claims: translator.gateways.claims(),
        diagnostics: translator.reports.into_all().into_values().flatten().collect(),
        snapshot: translator.snapshot,
    }
}

/// A change of the translation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Update {
    /// The change of the model; empty if there is none.
    pub delta: Delta,
    /// The objects whose findings have changed, each with all of its findings; an empty list means that the object is fine.
    pub diagnostics: Vec<(ObjectKey, Vec<Diagnostic>)>,
    /// Ingresses that are now ours and in effect.
    pub served: Vec<ObjectKey>,
    /// Ingresses that are no longer ours and in effect, or no longer exist.
    pub unserved: Vec<ObjectKey>,
    /// Objects of the Gateway API whose status has changed; `None` if an object is no longer ours.
    pub statuses: Vec<(ObjectKey, Option<Arc<ObjectStatus>>)>,
    /// Objects that are created for Gateways and XBackends, each with its pending work; `None` if nothing is left to do.
    pub made: Vec<(ObjectKey, Option<Make>)>,
    /// Secrets and ConfigMaps that are now needed.
    pub wanted: Vec<ObjectKey>,
    /// Secrets and ConfigMaps that are no longer needed.
    pub unwanted: Vec<ObjectKey>,
}

impl Update {
    /// Whether nothing has changed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A translation that is kept up to date.
///
/// Each stage owns its state and receives what it reads from others. It marks the work of later stages in the dirty set.
#[derive(Debug)]
pub struct Translator {
    options: Options,
    objects: Objects,
    table: TableName,
    default_backend: Option<BackendName>,
    global: Global,
    streams: Streams,
    ingresses: Ingresses,
    secrets: Secrets,
    config_maps: ConfigMaps,
    backends: Backends,
    hosts: Hosts,
    gateways: Gateways,
    reports: Reports,
    snapshot: Snapshot,
    /// The state for the next call.
    pending: (Dirty, Output),
    waiting: WaitingChanges,
    /// Whether everything is being made anew, whatever is the same as before.
    renewing: bool,
    /// Number of changes in one part.
    part: usize,
}

impl Translator {
    /// A translation without objects. The first [`apply`](Self::apply) returns what exists without any: settings, listeners and the
    /// catch-all host.
    pub fn new(options: Options) -> Self {
        let mut dirty = Dirty { config: true, streams: true, ..Dirty::default() };
        let mut out = Output::default();
        dirty.hosts.insert(HostPattern::Any);
        let (global, streams) = (Global::new(&options), Streams::new(&options));
        let (mut backends, mut secrets) = (Backends::default(), Secrets::default());
        let default_backend = options.default_backend_service.as_ref().map(|(namespace, service)| {
            let key = BackendKey::new(namespace.as_str(), service, BackendPort::First);
            backends.pin(&key, Some(key.service()), &mut dirty);
            key.name()
        });
        if let Some((namespace, name)) = &options.default_ssl_certificate {
            secrets.pin(&ObjectKey::new(Kind::Secret, namespace, name), &mut dirty, &mut out);
        }
        out.wants.extend(global.key().into_iter().chain(streams.config_maps()).map(|key| (key.clone(), false)));
        Self {
            objects: Objects::default(),
            table: TableName::from("ingress"),
            default_backend,
            global,
            streams,
            ingresses: Ingresses::default(),
            secrets,
            config_maps: ConfigMaps::default(),
            backends,
            hosts: Hosts::default(),
            gateways: Gateways::default(),
            reports: Reports::default(),
            snapshot: Snapshot::default(),
            pending: (dirty, out),
            waiting: WaitingChanges::default(),
            renewing: false,
            part: part::CHANGES,
            options,
        }
    }

    /// Sets the number of changes per part of a large change, at least one.
    #[must_use]
    pub fn with_part(self, changes: usize) -> Self {
        Self { part: changes.max(1), ..self }
    }

    /// Applies changes, together with those still waiting from [`apply_part`](Self::apply_part), and returns the update. `now` is
    /// in seconds since 1970.
    ///
    /// Call it without changes from time to time: certificates become valid and expire.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change>, now: i64) -> Update {
        let (mut dirty, out) = std::mem::take(&mut self.pending);
        while let Some((change, anew)) = self.waiting.pop() {
            self.take_after(change, anew, &mut dirty);
        }
        let mut taken = 0;
        for change in changes {
            self.take(change, &mut dirty);
            taken += 1;
        }
        if taken >= MANY {
            self.objects.compact();
        }
        self.settle(dirty, out, Extent::whole(), now)
    }

    /// Applies changes with a bounded amount of work, so that the next change needn't wait long. A few changes are in effect when
    /// this returns, before anything that waits; of many, only the first part is, and the rest waits. While there [is
    /// more](Self::has_more), [`proceed`](Self::proceed) continues with it.
    ///
    /// Once nothing waits, the result is that of [`apply`](Self::apply), with two inherent exceptions: a version that was
    /// superseded while it waited leaves no trace, and among objects without a creation time the one that had its turn first is the
    /// older.
    pub fn apply_part(&mut self, changes: impl IntoIterator<Item = Change>, now: i64) -> Update {
        let changes: Vec<Change> = changes.into_iter().collect();
        if self.is_large(changes.len()) {
            self.postpone(changes);
            return self.proceed(now);
        }
        let (mut dirty, out) = std::mem::take(&mut self.pending);
        for change in changes {
            let anew = self.waiting.supersede(&change);
            self.take_after(change, anew, &mut dirty);
        }
        self.settle(dirty, out, Extent::fresh(self.part), now)
    }

    /// Queues changes behind the waiting ones without applying any; [`proceed`](Self::proceed) applies them in parts.
    pub fn postpone(&mut self, changes: impl IntoIterator<Item = Change>) {
        for change in changes {
            let known = matches!(&change, Change::Upsert(object) if self.objects.get(&object.key()).is_some());
            self.waiting.push(change, known);
        }
    }

    /// Whether this many changes exceed one part.
    pub fn is_large(&self, changes: usize) -> bool {
        changes > self.part
    }

    /// Whether work still waits after [`apply_part`](Self::apply_part).
    pub fn has_more(&self) -> bool {
        !self.waiting.is_empty()
            || self.ingresses.is_waiting()
            || self.backends.is_waiting()
            || self.hosts.is_waiting()
            || self.reports.is_waiting()
    }

    /// The waiting changes.
    pub fn waiting_changes(&self) -> impl Iterator<Item = &Change> {
        self.waiting.iter()
    }

    /// Applies the next part of the waiting changes.
    pub fn proceed(&mut self, now: i64) -> Update {
        let (mut dirty, out) = std::mem::take(&mut self.pending);
        for _ in 0..self.part {
            let Some((change, anew)) = self.waiting.pop() else { break };
            self.take_after(change, anew, &mut dirty);
        }
        self.settle(dirty, out, Extent::part(self.part), now)
    }

    /// Whether a few objects are left of many. What is kept of them lies scattered over the memory of the others, and keeps most of it, until
    /// [`renew`](Self::renew).
    pub fn has_remnants(&self) -> bool {
        self.objects.are_remnants()
    }

    /// Rebuilds Ingresses, hosts and backends from copies of the objects, to the same effect, in parts: while there [is more](Self::has_more),
    /// [`proceed`](Self::proceed) continues. The update has again what is not changed.
    pub fn renew(&mut self, now: i64) -> Update {
        let (mut dirty, out) = std::mem::take(&mut self.pending);
        self.objects.renew();
        self.backends.renew_index(&self.objects);
        self.ingresses.renew_shared();
        self.hosts.renew_shared();
        self.renewing = true;
        (dirty.all_ingresses, dirty.all_hosts, dirty.all_backends) = (true, true, true);
        self.settle(dirty, out, Extent::part(self.part), now)
    }

    /// Brings all stages up to date, each before the stages that read it.
    fn settle(&mut self, mut dirty: Dirty, mut out: Output, extent: Extent, now: i64) -> Update {
        let Self { options, objects, table, global, streams, ingresses, secrets, backends, .. } = self;
        let Self { config_maps, hosts, gateways, reports, .. } = self;
        let (dirty, out) = (&mut dirty, &mut out);
        dirty.renews = self.renewing;
        secrets.pass_time(now, dirty);
        global.settle(global::GlobalInputs { objects, options, table }, dirty, out);
        global.settle_auth(options, backends, dirty);
        let config = &global.config;
        streams.settle(streams::StreamInputs { objects, config, options }, backends, dirty, out);
        let inputs = reader::IngressInputs { objects, rules: &global.rules, options };
        ingresses.settle(inputs, Owned { hosts, backends, secrets, config_maps }, dirty, out, extent);
        let stream_ports = streams.ports();
        let of_gateways = GatewayInputs { objects, options, streams: &stream_ports };
        gateways.read(of_gateways, GatewayOwned { backends, secrets, config_maps }, dirty, out);
        secrets.settle(objects, dirty, out);
        dirty.gateway_certificates |= dirty.secret_owners.iter().any(|(owner, _)| owner.kind == Kind::Gateway);
        let of_policies = dirty.secret_owners.iter().map(|(owner, _)| owner).filter(|it| it.kind == Kind::RoutePolicy);
        dirty.route_policy_users.extend(of_policies.cloned());
        let of_xbackends = dirty.secret_owners.iter().map(|(owner, _)| owner).filter(|it| it.kind == Kind::XBackend);
        dirty.gateway_statuses.extend(of_xbackends.cloned());
        config_maps.settle(objects, dirty);
        ingresses.follow_references(dirty);
        backends.settle(
            backends::BackendInputs { objects, config, options, traffic: gateways.traffic_policies() },
            dirty,
            out,
            extent,
        );
        let inputs = hosts::HostInputs {
            config,
            secrets,
            config_maps,
            default_backend: self.default_backend.as_ref(),
            global_auth: global.auth_backend.as_ref(),
            table,
            annotations_prefix: &options.annotations_prefix,
            ports: RedirectPorts::new(options),
        };
        hosts.settle(inputs, dirty, out, extent);
        gateways.publish(of_gateways, (hosts, table), secrets, dirty, out);
        let inputs = global::GlobalInputs { objects, options, table };
        global.settle_listeners(inputs, gateways.ports(), dirty, out);
        let inputs =
            reports::ReportInputs { objects, global, streams, ingresses, hosts, gateways, backends, secrets, options };
        let diagnostics = reports.settle(inputs, dirty, extent);
        self.renewing = self.renewing && self.has_more();
        self.finish(std::mem::take(out), diagnostics)
    }

    fn finish(&mut self, mut out: Output, diagnostics: Vec<(ObjectKey, Vec<Diagnostic>)>) -> Update {
        out.removals.sort_unstable();
        let delta = Delta { upserts: out.upserts, removals: out.removals };
        if !delta.is_empty() {
            self.snapshot = self.snapshot.apply(delta.clone());
        }
        let mut update = Update { delta, diagnostics, ..Update::default() };
        for (key, before) in out.served {
            match (before, self.served().contains(&key)) {
                (false, true) => update.served.push(key),
                (true, false) => update.unserved.push(key),
                _ => {}
            }
        }
        update.statuses =
            out.statuses.into_iter().map(|key| (key.clone(), self.gateways.statuses().get(&key).cloned())).collect();
        update.made = out.made.into_iter().map(|key| (key.clone(), self.gateways.made().get(&key).cloned())).collect();
        for (key, before) in out.wants {
            match (before, self.wants(&key)) {
                (false, true) => update.wanted.push(key),
                (true, false) => update.unwanted.push(key),
                _ => {}
            }
        }
        update
    }

    /// The current model.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// All findings, by object.
    pub fn diagnostics(&self) -> &BTreeMap<ObjectKey, Vec<Diagnostic>> {
        self.reports.all()
    }

    /// The Ingresses that are ours and in effect, and therefore get a status.
    pub fn served(&self) -> &BTreeSet<ObjectKey> {
        self.ingresses.served()
    }

    /// The status of each object of the Gateway API that is ours.
    pub fn statuses(&self) -> &BTreeMap<ObjectKey, Arc<ObjectStatus>> {
        self.gateways.statuses()
    }

    /// The RoutePolicies that decide about routes.
    pub fn policies(&self) -> Vec<AppliedPolicy> {
        self.gateways.applied_policies()
    }

    /// Which listener each host belongs to, and the routes at all listeners.
    pub fn claims(&self) -> Claims {
        self.gateways.claims()
    }

    /// The pending work on objects that are created for Gateways and XBackends.
    pub fn made(&self) -> &BTreeMap<ObjectKey, Make> {
        self.gateways.made()
    }

    /// The current objects.
    pub fn objects(&self) -> &Objects {
        &self.objects
    }

    /// Whether an object is needed. Secrets and ConfigMaps are needed only if something refers to them, all others always.
    pub fn wants(&self, key: &ObjectKey) -> bool {
        match key.kind {
            Kind::Secret => self.secrets.contains(key),
            Kind::ConfigMap => self.global.wants(key) || self.streams.wants(key) || self.config_maps.contains(key),
            _ => true,
        }
    }

    /// The standing of an Ingress; `None` if it does not exist.
    pub fn standing(&self, key: &ObjectKey) -> Option<Standing> {
        self.ingresses.standing(key, &self.objects, &self.options)
    }

    /// Every Ingress without a version in effect, or with only an older one, with its hosts and the reason.
    pub fn left_out(&self) -> impl Iterator<Item = LeftOut> {
        self.ingresses.left_out(&self.objects, &self.options)
    }

    /// The known annotations of an Ingress, without the prefix, with their verdicts. Empty if it isn't ours.
    pub fn verdicts(&self, key: &ObjectKey) -> Vec<(&'static str, Verdict)> {
        let inputs =
            reader::IngressInputs { objects: &self.objects, rules: &self.global.rules, options: &self.options };
        self.ingresses.verdicts(key, inputs)
    }

    /// Whether an Ingress that is being stored is acceptable as things stand.
    pub fn review(&self, ingress: &Ingress) -> Review {
        let reading =
            reader::IngressInputs { objects: &self.objects, rules: &self.global.rules, options: &self.options };
        let (ingresses, hosts, config) = (&self.ingresses, &self.hosts, &self.global.config);
        review::review(ingress, review::ReviewInputs { ingresses, reading, hosts, config })
    }

    /// Applies one change. If the object was removed in between, this is a new object of the same name.
    fn take_after(&mut self, change: Change, removed: bool, dirty: &mut Dirty) {
        if let (Change::Upsert(object), true) = (&change, removed) {
            self.take(Change::Remove(object.key()), dirty);
        }
        self.take(change, dirty);
    }

    /// Applies one change to the store, and marks what it affects. A version with the same meaning affects nothing.
    fn take(&mut self, change: Change, dirty: &mut Dirty) {
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
                dirty.ingresses.insert(key);
            }
            Kind::IngressClass => {
                let class = match &after {
                    Some(Object::IngressClass(class)) => Some(&**class),
                    _ => None,
                };
                self.ingresses.update_class(&key.name, class, &self.options, dirty);
            }
            Kind::Namespace => {
                let namespace = match &after {
                    Some(Object::Namespace(namespace)) => Some(&**namespace),
                    _ => None,
                };
                self.ingresses.update_namespace(&key.name, namespace, &self.options, dirty);
                dirty.gateways |= self.objects.of_kind(Kind::Gateway).next().is_some();
            }
            Kind::Service => {
                self.backends.touch_service(&key, dirty);
                self.gateways.touch_service(&key, dirty);
                let made =
                    |object: &Object| matches!(object, Object::Service(service) if gateway::is_for_gateway(service));
                self.gateways.touch_made(&key, before.iter().chain(&after).any(made), dirty);
                let concerns =
                    |object: &Object| matches!(object, Object::Service(service) if external_dns::concerns(service));
                if before.iter().chain(&after).any(concerns) {
                    dirty.reports.insert(key);
                }
            }
            Kind::EndpointSlice => {
                for (object, there) in [(before, false), (after, true)] {
                    if let Some(Object::EndpointSlice(slice)) = object
                        && let Some(service) = service_of(&key, &slice)
                    {
                        // The number of our own replicas is a setting.
                        dirty.config |= self.options.publish_service.as_ref().is_some_and(|(namespace, name)| {
                            *service.namespace == **namespace && *service.name == **name
                        });
                        self.gateways.touch_slice(&service, &self.options, dirty);
                        self.backends.index_slice(&key, service, there, dirty);
                    }
                }
            }
            Kind::GatewayClass | Kind::Gateway | Kind::ListenerSet | Kind::ReferenceGrant | Kind::GatewayParameters => {
                dirty.gateways = true;
            }
            Kind::HTTPRoute | Kind::GRPCRoute | Kind::TLSRoute | Kind::TCPRoute | Kind::UDPRoute => {
                dirty.gateway_routes.insert(key);
            }
            Kind::BackendTLSPolicy => {
                dirty.backend_policies.insert(key);
            }
            Kind::XBackendTrafficPolicy => {
                dirty.traffic_policies.insert(key);
            }
            Kind::XBackend => {
                dirty.xbackends.insert(key);
            }
            Kind::XTelemetryPolicy => {
                dirty.telemetry_policies.insert(key);
            }
            Kind::RoutePolicy => {
                dirty.route_policies.insert(key);
            }
            Kind::Secret => {
                if self.secrets.contains(&key) {
                    dirty.secrets.insert(key);
                }
            }
            Kind::ConfigMap => {
                dirty.streams |= self.streams.wants(&key);
                dirty.config |= self.global.update(&key, after.as_ref());
                self.gateways.touch_config_map(&key, dirty);
                if self.config_maps.contains(&key) {
                    dirty.config_maps.insert(key);
                }
            }
        }
    }
}

/// Whether two versions of an object have the same meaning here: status, managed fields and the like don't count.
fn means_the_same(before: &Object, after: &Object) -> bool {
    match (before, after) {
        (Object::Ingress(a), Object::Ingress(b)) => a == b,
        (Object::IngressClass(a), Object::IngressClass(b)) => {
            a.spec == b.spec && a.metadata.annotations == b.metadata.annotations
        }
        (Object::Service(a), Object::Service(b)) => {
            Arc::ptr_eq(a, b) || (a.spec == b.spec && external_dns::alike(a, b) && gateway::alike(a, b))
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
        (Object::GatewayClass(a), Object::GatewayClass(b)) => Arc::ptr_eq(a, b) || a.spec == b.spec,
        (Object::Gateway(a), Object::Gateway(b)) => {
            Arc::ptr_eq(a, b) || a.spec == b.spec && same_life(&a.metadata, &b.metadata)
        }
        (Object::BackendTLSPolicy(a), Object::BackendTLSPolicy(b)) => {
            Arc::ptr_eq(a, b) || a.spec == b.spec && same_life(&a.metadata, &b.metadata)
        }
        (Object::GatewayParameters(a), Object::GatewayParameters(b)) => Arc::ptr_eq(a, b) || a.spec == b.spec,
        (Object::XBackendTrafficPolicy(a), Object::XBackendTrafficPolicy(b)) => {
            Arc::ptr_eq(a, b) || a.spec == b.spec && same_life(&a.metadata, &b.metadata)
        }
        (Object::XBackend(a), Object::XBackend(b)) => {
            Arc::ptr_eq(a, b)
                || a.spec == b.spec && a.metadata.uid == b.metadata.uid && same_life(&a.metadata, &b.metadata)
        }
        (Object::XTelemetryPolicy(a), Object::XTelemetryPolicy(b)) => {
            Arc::ptr_eq(a, b) || a.spec == b.spec && same_life(&a.metadata, &b.metadata)
        }
        (Object::RoutePolicy(a), Object::RoutePolicy(b)) => {
            Arc::ptr_eq(a, b) || a.spec == b.spec && same_life(&a.metadata, &b.metadata)
        }
        (Object::ListenerSet(a), Object::ListenerSet(b)) => {
            Arc::ptr_eq(a, b) || a.spec == b.spec && same_life(&a.metadata, &b.metadata)
        }
        (Object::HTTPRoute(a), Object::HTTPRoute(b)) => {
            Arc::ptr_eq(a, b) || a.spec == b.spec && same_life(&a.metadata, &b.metadata)
        }
        (Object::GRPCRoute(a), Object::GRPCRoute(b)) => {
            Arc::ptr_eq(a, b) || a.spec == b.spec && same_life(&a.metadata, &b.metadata)
        }
        (Object::TLSRoute(a), Object::TLSRoute(b)) => {
            Arc::ptr_eq(a, b) || a.spec == b.spec && same_life(&a.metadata, &b.metadata)
        }
        (Object::TCPRoute(a), Object::TCPRoute(b)) => {
            Arc::ptr_eq(a, b) || a.spec == b.spec && same_life(&a.metadata, &b.metadata)
        }
        (Object::UDPRoute(a), Object::UDPRoute(b)) => {
            Arc::ptr_eq(a, b) || a.spec == b.spec && same_life(&a.metadata, &b.metadata)
        }
        (Object::ReferenceGrant(a), Object::ReferenceGrant(b)) => Arc::ptr_eq(a, b) || a.spec == b.spec,
        _ => false,
    }
}

/// Whether two versions have the same creation and deletion times.
fn same_life(a: &ObjectMeta, b: &ObjectMeta) -> bool {
    a.creation_timestamp == b.creation_timestamp && a.deletion_timestamp == b.deletion_timestamp
}

pub(crate) fn service_of(key: &ObjectKey, slice: &EndpointSlice) -> Option<ObjectKey> {
    let name = slice.metadata.labels.as_ref()?.get(SERVICE_NAME)?;
    Some(ObjectKey { kind: Kind::Service, namespace: key.namespace.clone(), name: name.as_str().into() })
}

#[cfg(test)]
mod tests;
