//! All objects of the Gateway API, kept up to date: which ones are ours, what they own, and the status and findings of each.
//!
//! Changes of classes, Gateways, grants and namespaces are rare, and after one everything is judged again; a changed route or Service costs
//! only the routes concerned.

mod made;
mod policy;
mod route_policy;
mod status;
mod xbackend;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fairway_model::{ForwardPolicy, HostPattern, Origin, Resource, ResourceName, Scheme, StreamBackends, TableName};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::api::{GROUP, ParentReference};
use super::attach::{self, Attaching, ListenerId, judge};
use super::backend_tls::BackendPolicies;
use super::claim::Claims;
use super::host::{Beneath, PortTable, RouteAge, Settled};
use super::listener::{self, GatewayPart};
use super::listener_set::{self, Parents, SetPart};
use super::open::OpenListener;
use super::place::{Place, PortInUse, StreamPorts, Traffic};
use super::route::{self, RoutePart, RouteRules, RouteText};
use super::route_policy::RoutePolicies;
use super::selection;
use super::service::{Make, OwnService};
use super::status::{Condition, FEATURES, ObjectStatus, ParentStatus, Shortcoming};
use super::stream::Door;
use super::telemetry_policy::TelemetryPolicies;
use super::traffic_policy::TrafficPolicies;
use super::xbackend::XBackends;
use crate::diagnostic::{Diagnostic, Reason, Severity};
use crate::engine::dirty::{Dirty, Output};
use crate::engine::shared::Shared;
use crate::ingress::Hosts;
use crate::objects::{Kind, Object, ObjectKey, Objects};
use crate::options::Options;
use crate::resource::backend::BackendKey;
use crate::resource::certificate::certificate_name;
use crate::resource::{Age, BackendWishes, Backends, ConfigMaps, Owner, Secrets};

/// All objects of the Gateway API.
#[derive(Debug, Default)]
pub(crate) struct Gateways {
    gateways: BTreeMap<ObjectKey, GatewayPart>,
    sets: BTreeMap<ObjectKey, SetPart>,
    owners: BTreeMap<ObjectKey, Arc<Owner>>,
    routes: BTreeMap<ObjectKey, RoutePart>,
    ages: BTreeMap<ObjectKey, RouteAge>,
    /// The routes whose result depends on a Service or an XBackend.
    services: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
    policies_of_backends: BackendPolicies,
    policies_of_traffic: TrafficPolicies,
    policies_of_telemetry: TelemetryPolicies,
    policies_of_routes: RoutePolicies,
    xbackends: XBackends,
    /// Why the Services that XBackends need can't be created.
    unmade: BTreeMap<ObjectKey, Shortcoming>,
    /// How many routes each listener has taken.
    attached: BTreeMap<ListenerId, usize>,
    /// The places of listeners, and which of them are open.
    places: BTreeMap<Place, Door>,
    ports: Vec<PortInUse>,
    /// The own Services of Gateways.
    own: BTreeMap<ObjectKey, OwnService>,
    /// Services that were or will be created for Gateways.
    services_made: BTreeSet<ObjectKey>,
    /// The pending work on objects that are created for Gateways and XBackends.
    made: BTreeMap<ObjectKey, Make>,
    tables: BTreeMap<Place, PortTable>,
    policies: Shared<ForwardPolicy>,
    /// Names whose hosts have to be built.
    hosts: BTreeSet<(Place, HostPattern)>,
    /// Whether listeners or their certificates have to be judged again.
    judge: bool,
    statuses: BTreeMap<ObjectKey, Arc<ObjectStatus>>,
    findings: BTreeMap<ObjectKey, Vec<Diagnostic>>,
}

/// The inputs of the Gateway API.
#[derive(Clone, Copy)]
pub(crate) struct GatewayInputs<'a> {
    pub(crate) objects: &'a Objects,
    pub(crate) options: &'a Options,
    /// Ports that TCP and UDP services use.
    pub(crate) streams: &'a StreamPorts,
}

/// What the objects of the Gateway API own.
pub(crate) struct GatewayOwned<'a> {
    pub(crate) backends: &'a mut Backends,
    pub(crate) secrets: &'a mut Secrets,
    pub(crate) config_maps: &'a mut ConfigMaps,
}

impl Gateways {
    /// Marks the routes that depend on a Service.
    pub(crate) fn touch_service(&self, service: &ObjectKey, dirty: &mut Dirty) {
        dirty.gateway_routes.extend(self.services.get(service).into_iter().flatten().cloned());
        dirty.gateway_statuses.extend(self.policies_of_backends.for_service(service).cloned());
        dirty.gateway_statuses.extend(self.policies_of_traffic.for_service(service).cloned());
        dirty.gateway_statuses.extend(self.policies_of_routes.for_service(service).cloned());
        dirty.telemetry_policies.extend(self.policies_of_telemetry.for_service(service).cloned());
    }

    /// Marks what depends on a ConfigMap.
    pub(crate) fn touch_config_map(&self, key: &ObjectKey, dirty: &mut Dirty) {
        self.policies_of_backends.touch_config_map(key, dirty);
        self.xbackends.touch_config_map(key, dirty);
        dirty.gateways |= self.gateways.values().any(|part| part.config_maps.contains(key));
    }

    /// Which listener each host belongs to, and the routes at all listeners.
    pub(crate) fn claims(&self) -> Claims {
        let mut claims = Claims::default();
        for (place, table) in &self.tables {
            table.listeners.iter().for_each(|listener| claims.add_listener(place.table(), listener));
        }
        for (key, part) in &self.routes {
            part.attachments.iter().for_each(|one| claims.add_route(key, one));
        }
        claims
    }

    /// The limits on retries that policies set for Services.
    pub(crate) fn traffic_policies(&self) -> &TrafficPolicies {
        &self.policies_of_traffic
    }

    /// The ports that are open for Gateways.
    pub(crate) fn ports(&self) -> &[PortInUse] {
        &self.ports
    }

    /// The status of each object of ours.
    pub(crate) fn statuses(&self) -> &BTreeMap<ObjectKey, Arc<ObjectStatus>> {
        &self.statuses
    }

    /// The findings about an object, without those about its backends.
    pub(crate) fn findings(&self, key: &ObjectKey) -> &[Diagnostic] {
        self.findings.get(key).map(Vec::as_slice).unwrap_or_default()
    }

    /// The backends of a route or policy, each with the field that names it.
    pub(crate) fn backends(&self, key: &ObjectKey) -> Cow<'_, [(BackendKey, String)]> {
        match self.routes.get(key) {
            Some(part) => Cow::Borrowed(&*part.backends),
            None if key.kind == Kind::XTelemetryPolicy => {
                Cow::Owned(self.policies_of_telemetry.backend(key).into_iter().collect())
            }
            None => Cow::Owned(self.policies_of_routes.backends(key)),
        }
    }

    /// Reads the objects that are due, and updates the owners of backends and Secrets.
    pub(crate) fn read(
        &mut self,
        inputs: GatewayInputs<'_>,
        mut owned: GatewayOwned<'_>,
        dirty: &mut Dirty,
        out: &mut Output,
    ) {
        let mut routes = std::mem::take(&mut dirty.gateway_routes);
        let mut traced_anew = dirty.gateways;
        if std::mem::take(&mut dirty.gateways) {
            self.read_gateways(inputs, &mut owned, dirty, out);
            self.judge = true;
            routes.extend(self.routes.keys().cloned());
            for kind in route::kinds() {
                routes.extend(inputs.objects.of_kind(kind).map(|(key, _)| key.clone()));
            }
            // Namespaces may have become served, or may no longer be.
            let policies = inputs.objects.of_kind(Kind::BackendTLSPolicy);
            dirty.backend_policies.extend(policies.map(|(key, _)| key.clone()));
            dirty.route_policies.extend(inputs.objects.of_kind(Kind::RoutePolicy).map(|(key, _)| key.clone()));
            // XBackends may refer to Secrets by grants.
            dirty.xbackends.extend(inputs.objects.of_kind(Kind::XBackend).map(|(key, _)| key.clone()));
            let policies = inputs.objects.of_kind(Kind::XTelemetryPolicy);
            dirty.telemetry_policies.extend(policies.map(|(key, _)| key.clone()));
        }
        for key in std::mem::take(&mut dirty.xbackends) {
            routes.extend(self.read_xbackend(&key, inputs, &mut owned, dirty, out));
        }
        for key in std::mem::take(&mut dirty.backend_policies) {
            routes.extend(self.read_policy(&key, inputs, &mut owned, dirty, out));
        }
        for key in std::mem::take(&mut dirty.traffic_policies) {
            self.read_traffic_policy(&key, inputs.objects, owned.backends, dirty);
        }
        for key in std::mem::take(&mut dirty.telemetry_policies) {
            self.read_telemetry_policy(&key, inputs, dirty);
            traced_anew = true;
        }
        if traced_anew {
            self.settle_telemetry(owned.backends, dirty, out);
        }
        for key in std::mem::take(&mut dirty.route_policies) {
            routes.extend(self.read_route_policy(&key, inputs, &mut owned, dirty, out));
        }
        for key in routes {
            self.read_route(key, inputs, &mut owned, dirty);
        }
        if std::mem::take(&mut dirty.gateway_services) {
            self.settle_services(inputs, dirty, out);
        }
    }

    fn read_gateways(
        &mut self,
        inputs: GatewayInputs<'_>,
        owned: &mut GatewayOwned<'_>,
        dirty: &mut Dirty,
        out: &mut Output,
    ) {
        let GatewayInputs { objects, options, streams } = inputs;
        let mut parts = Vec::new();
        for (key, object) in objects.of_kind(Kind::Gateway) {
            let Object::Gateway(gateway) = object else { continue };
            if !is_ours(&gateway.spec.gateway_class_name, objects, options) || !is_in_scope(key, objects, options) {
                continue;
            }
            let age = (age(key, &gateway.metadata, objects), turn(key, object, objects));
            parts.push(listener::read(key, gateway, age, objects, options));
        }
        parts.sort_by(|one, other| one.age.cmp(&other.age));
        dirty.reports.extend(self.sets.keys().cloned());
        let age =
            |key: &ObjectKey, object: &Object| is_in_scope(key, objects, options).then(|| turn(key, object, objects));
        self.sets = listener_set::join(&mut parts, objects, age);
        dirty.reports.extend(self.sets.keys().cloned());
        self.places = listener::arrange(&mut parts, options, streams);
        dirty.gateway_services = true;
        for (key, owner) in std::mem::take(&mut self.owners) {
            let secrets = self.gateways.get(&key).into_iter().flat_map(secrets_of).collect::<BTreeSet<_>>();
            secrets.into_iter().for_each(|secret| owned.secrets.detach(secret, &owner.age, dirty, out));
            let maps = self.gateways.get(&key).into_iter().flat_map(|part| &part.config_maps);
            maps.for_each(|map| owned.config_maps.detach(map, &owner.age, dirty, out));
        }
        dirty.reports.extend(self.gateways.keys().cloned());
        self.gateways = parts.into_iter().map(|part| (part.key.clone(), part)).collect();
        for (key, part) in &self.gateways {
            let owner = Arc::new(Owner { key: key.clone(), age: part.age.clone(), wishes: Arc::default() });
            let secrets: BTreeSet<_> = secrets_of(part).collect();
            secrets.into_iter().for_each(|secret| owned.secrets.attach(secret, &owner, dirty, out));
            part.config_maps.iter().for_each(|map| owned.config_maps.attach(map, &owner, dirty, out));
            self.owners.insert(key.clone(), owner);
        }
        dirty.reports.extend(self.gateways.keys().cloned());
        let classes = objects.of_kind(Kind::GatewayClass).filter_map(|(key, object)| match object {
            Object::GatewayClass(class) if class.spec.controller_name == options.gateway_controller => {
                Some((key, class))
            }
            _ => None,
        });
        let statuses: Vec<_> = classes.map(|(key, class)| (key.clone(), class_status(class))).collect();
        let gone: Vec<ObjectKey> = self
            .statuses
            .keys()
            .filter(|key| match key.kind {
                Kind::GatewayClass => statuses.iter().all(|(other, _)| other != *key),
                Kind::Gateway => !self.gateways.contains_key(*key),
                Kind::ListenerSet => !self.sets.contains_key(*key),
                _ => false,
            })
            .cloned()
            .collect();
        for key in gone {
            self.show(&key, None, out);
            self.findings.remove(&key);
        }
        for (key, status) in statuses {
            self.show(&key, Some(status), out);
        }
    }

    fn read_route(
        &mut self,
        key: ObjectKey,
        inputs: GatewayInputs<'_>,
        owned: &mut GatewayOwned<'_>,
        dirty: &mut Dirty,
    ) {
        if let Some(before) = self.routes.remove(&key) {
            self.detach(&key, &before, owned, dirty);
        }
        self.ages.remove(&key);
        self.forget(&key, dirty);
        // These policies report whether their target exists.
        dirty.gateway_statuses.extend(self.policies_of_routes.for_object(&key).cloned());
        let Some((part, age)) = self.judged(&key, inputs) else { return };
        for backend in unique(&part.backends) {
            match part.wishes.get(backend) {
                None => owned.backends.attach(backend, &part.owner, dirty),
                Some(wishes) => {
                    let (key, age, wishes) = (part.owner.key.clone(), part.owner.age.clone(), wishes.clone());
                    owned.backends.attach(backend, &Arc::new(Owner { key, age, wishes }), dirty);
                }
            }
        }
        for service in &part.services {
            self.services.entry(service.clone()).or_default().insert(key.clone());
            dirty.gateway_statuses.extend(self.policies_of_backends.for_service(service).cloned());
            dirty.gateway_statuses.extend(self.policies_of_traffic.for_service(service).cloned());
            self.reached(service, dirty);
        }
        let mut listeners = BTreeSet::new();
        for one in &part.attachments {
            let table = self.tables.entry(one.place.clone()).or_default();
            table.insert(&one.pattern, one.rank, &age, &one.listener, &part.carried);
            self.hosts.insert((one.place.clone(), one.pattern.clone()));
            listeners.insert(&one.listener);
        }
        for listener in listeners {
            *self.attached.entry(listener.clone()).or_default() += 1;
            dirty.gateway_statuses.insert(listener.holder.clone());
        }
        self.findings.insert(key.clone(), part.findings.clone());
        self.ages.insert(key.clone(), age);
        self.routes.insert(key, part);
    }

    fn detach(&mut self, key: &ObjectKey, part: &RoutePart, owned: &mut GatewayOwned<'_>, dirty: &mut Dirty) {
        for backend in unique(&part.backends) {
            owned.backends.detach(backend, &part.owner.age, dirty);
        }
        for service in &part.services {
            dirty.gateway_statuses.extend(self.policies_of_backends.for_service(service).cloned());
            dirty.gateway_statuses.extend(self.policies_of_traffic.for_service(service).cloned());
            self.reached(service, dirty);
            if let Some(routes) = self.services.get_mut(service) {
                routes.remove(key);
                if routes.is_empty() {
                    self.services.remove(service);
                }
            }
        }
        let mut listeners = BTreeSet::new();
        for one in &part.attachments {
            if let (Some(table), Some(age)) = (self.tables.get_mut(&one.place), self.ages.get(key)) {
                table.remove(&one.pattern, one.rank, age, &one.listener);
            }
            self.hosts.insert((one.place.clone(), one.pattern.clone()));
            listeners.insert(&one.listener);
        }
        for listener in listeners {
            if let Some(count) = self.attached.get_mut(listener) {
                *count -= 1;
                if *count == 0 {
                    self.attached.remove(listener);
                }
            }
            dirty.gateway_statuses.insert(listener.holder.clone());
        }
    }

    /// A route as its parents take it. `None` if none of them is ours and there is nothing to report.
    fn judged(&mut self, key: &ObjectKey, inputs: GatewayInputs<'_>) -> Option<(RoutePart, RouteAge)> {
        let GatewayInputs { objects, options, .. } = inputs;
        let object = objects.get(key)?;
        let text = RouteText::of(object)?;
        if !is_in_scope(key, objects, options) {
            return None;
        }
        let (origin, mut findings) = (key.origin(), Vec::new());
        let ours = |parent: &ParentReference| {
            attach::holder_of(parent, &key.namespace)
                .is_some_and(|holder| self.parents_of_routes().gateway_of(&holder).is_some())
        };
        for (at, parent) in text.parents().iter().enumerate() {
            let missing = attach::holder_of(parent, &key.namespace).filter(|holder| objects.get(holder).is_none());
            if let Some(holder) = missing {
                let message = format!("there is no {holder}, so the route is not served there");
                let (severity, reason) = (Severity::Warning, Reason::RouteNotAttached);
                let field = format!("spec.parentRefs[{at}]");
                findings.push(Diagnostic::new(severity, reason, &origin, field, &parent.name, message));
            }
        }
        let is_ours = text.parents().iter().any(ours);
        let mut rules = match is_ours {
            true => {
                let read_with = (&self.policies_of_backends, &self.xbackends);
                route::rules(key, text, objects, options, read_with, &mut self.policies)
            }
            false if findings.is_empty() => return None,
            false => RouteRules::default(),
        };
        let patterns = text.patterns(&origin, &mut findings);
        let attaching = Attaching { kind: key.kind, namespace: &key.namespace, hostnames: patterns.as_deref() };
        let mut torn = BTreeMap::new();
        let (mut attachments, mut parents) = (BTreeSet::new(), Vec::new());
        for (at, parent) in text.parents().iter().enumerate() {
            let Some(attached) = judge(parent, attaching, self.parents_of_routes(), objects) else { continue };
            // The attachment is refused but keeps its place: its requests must not fall through to another route.
            attachments.extend(attached.iter().flatten().cloned());
            let torn_here = self.torn(key, &rules, attached.iter().flatten());
            let of_policies = torn_here
                .iter()
                .map(|(field, why)| Shortcoming::new("IncompatibleFilters", format!("Dropped Rule: {field}: {why}")));
            let faults: Vec<_> = rules.refused.iter().cloned().chain(of_policies).collect();
            torn.extend(torn_here);
            // None of its rules can be carried out.
            let refused = faults.first().filter(|_| faults.len() >= rules.count);
            let judgement = match refused {
                Some(fault) if attached.is_ok() => Err(fault.clone()),
                _ => attached.map(drop),
            };
            if let Err(fault) = &judgement
                && refused != Some(fault)
            {
                let message = format!("{}; the route is not served there", fault.message);
                let field = format!("spec.parentRefs[{at}]");
                let (severity, reason) = (Severity::Error, Reason::RouteNotAttached);
                findings.push(Diagnostic::new(severity, reason, &origin, field, &parent.name, message));
            }
            let mut conditions = vec![
                Condition::of("Accepted", judgement.as_ref().err()),
                Condition::of("ResolvedRefs", rules.unresolved.as_ref()),
            ];
            if let (Ok(_), Some(fault)) = (&judgement, faults.first()) {
                conditions.push(Condition::new("PartiallyInvalid", true, fault));
            }
            parents.push(ParentStatus { parent_ref: with_defaults(parent), conditions });
        }
        findings.extend(torn.into_iter().map(|(field, why)| {
            let (severity, reason) = (Severity::Error, Reason::RoutePolicyRefused);
            let message = format!("{why}; requests to the rule answer 503");
            Diagnostic::new(severity, reason, &origin, field, "", message).unserved()
        }));
        findings.extend(
            self.unfilled(key, &rules, attachments.iter())
                .into_iter()
                .map(|(field, why)| Diagnostic::new(Severity::Warning, Reason::InvalidPath, &origin, field, "", why)),
        );
        findings.extend(self.overruled(key, &rules, attachments.iter()).into_iter().map(|(field, why)| {
            Diagnostic::new(Severity::Warning, Reason::RoutePolicyRefused, &origin, field, "", why)
        }));
        let wishes = self.wishes(key, &rules, attachments.first());
        let carried = rules.carried();
        findings.extend(rules.findings);
        let metadata = metadata(object);
        let part = RoutePart {
            owner: plain_owner(key, metadata, objects),
            carried,
            attachments: attachments.into_iter().collect(),
            parents: parents.into(),
            backends: rules.backends.into(),
            wishes,
            services: rules.services.into_iter().collect(),
            findings,
        };
        Some((part, turn(key, object, objects)))
    }

    /// Judges listeners by the available certificates, and builds the hosts that are due. `table` is that of the Ingresses.
    pub(crate) fn publish(
        &mut self,
        inputs: GatewayInputs<'_>,
        ingresses: (&Hosts, &TableName),
        secrets: &Secrets,
        dirty: &mut Dirty,
        out: &mut Output,
    ) {
        let (below, table) = ingresses;
        self.judge |= std::mem::take(&mut dirty.gateway_certificates);
        if std::mem::take(&mut self.judge) {
            self.open_listeners(inputs.options, secrets);
            dirty.gateway_statuses.extend(self.gateways.keys().chain(self.sets.keys()).cloned());
        }
        if self.tables.values().any(|table| table.shared) {
            let changed = out.upserts.iter().filter_map(|resource| match resource {
                Resource::Host(host) if host.table() == table => Some(host.pattern()),
                _ => None,
            });
            let gone = out.removals.iter().filter_map(|name| match name {
                ResourceName::Host(key) if key.table == *table => Some(&key.pattern),
                _ => None,
            });
            for pattern in changed.chain(gone) {
                let above = self.tables.iter().filter(|(_, table)| table.shared && table.has(pattern));
                self.hosts.extend(above.map(|(place, _)| (place.clone(), pattern.clone())));
            }
        }
        let age = |origin: &Origin| {
            let key = ObjectKey { kind: Kind::Ingress, namespace: origin.namespace.clone(), name: origin.name.clone() };
            let object = inputs.objects.get(&key)?;
            let sequence = inputs.objects.sequence(&key).unwrap_or(u64::MAX);
            Some(RouteAge::of(&key, object.created(), sequence, false))
        };
        self.settle_users(secrets, dirty);
        let due = std::mem::take(&mut self.hosts);
        if self.places.iter().any(|(place, door)| *door == Door::Stream && due.iter().any(|(due, _)| due == place)) {
            self.direct(dirty);
        }
        for (place, pattern) in due {
            let Some(own) = self.tables.get_mut(&place) else { continue };
            let policies = (&mut self.policies_of_routes, &self.policies_of_telemetry);
            let beneath = Beneath { host: below.published(&pattern), table, age: &age };
            match own.settle(&place.table(), &pattern, &beneath, policies) {
                Settled::Same => {}
                Settled::Changed(host) => out.upserts.push(Resource::Host(host)),
                Settled::Gone => {
                    out.removals.push(ResourceName::Host(fairway_model::HostKey { table: place.table(), pattern }));
                }
            }
        }
        self.tables.retain(|place, table| self.places.contains_key(place) || !table.is_idle());
        for key in std::mem::take(&mut dirty.gateway_statuses) {
            dirty.reports.insert(key.clone());
            let told = match key.kind {
                Kind::Gateway => self.gateways.get(&key).map(|part| self.gateway_status(part, secrets)),
                Kind::ListenerSet => self.sets.get(&key).map(|part| self.set_status(&key, part, secrets)),
                Kind::BackendTLSPolicy => self.policy_status(&key, inputs.objects),
                Kind::XBackend => self.xbackend_status(&key, secrets),
                Kind::XBackendTrafficPolicy => self.traffic_policy_status(&key, inputs.objects),
                Kind::XTelemetryPolicy => self.telemetry_policy_status(&key, inputs.objects),
                Kind::RoutePolicy => self.route_policy_status(&key, inputs.objects, secrets),
                _ => {
                    // The findings about a route were made when it was read.
                    let part = self.routes.get(&key).filter(|part| !part.parents.is_empty());
                    let status = part.map(|part| ObjectStatus::Route { parents: part.parents.to_vec() });
                    self.show(&key, status, out);
                    continue;
                }
            };
            let status = told.map(|(status, findings)| {
                self.findings.insert(key.clone(), findings);
                status
            });
            self.show(&key, status, out);
        }
    }

    /// The traffic of a port.
    fn traffic(&self, place: &Place, door: Door) -> Traffic {
        match door {
            Door::Named(scheme) => Traffic::Named(scheme),
            Door::Stream => {
                let found = self.tables.get(place).and_then(PortTable::stream);
                let nowhere = || (Origin::built_in("gateway"), StreamBackends::none());
                let (origin, backends) = found.unwrap_or_else(nowhere);
                Traffic::Stream { origin, backends }
            }
        }
    }

    /// Directs the traffic of ports to where routes lead now.
    fn direct(&mut self, dirty: &mut Dirty) {
        let mut ports = std::mem::take(&mut self.ports);
        for port in &mut ports {
            let Some(door) = self.places.get(&port.place) else { continue };
            let traffic = self.traffic(&port.place, *door);
            if port.traffic != traffic {
                port.traffic = traffic;
                dirty.listeners = true;
            }
        }
        self.ports = ports;
    }

    /// The listeners that may be the one for a request, place by place.
    fn open_listeners(&mut self, options: &Options, secrets: &Secrets) {
        let mut open: BTreeMap<Place, Vec<OpenListener>> = BTreeMap::new();
        let accepted = self.gateways.values().filter(|gateway| gateway.fault.is_none());
        for (gateway, listener) in accepted.flat_map(|gateway| gateway.listeners.iter().map(move |one| (gateway, one)))
        {
            let Some(protocol) = listener.protocol.filter(|_| listener.takes_part()) else { continue };
            let good: Vec<_> = listener.secrets.iter().filter_map(|secret| secrets.good(secret)).collect();
            let other = good.first().and_then(|first| good.iter().find(|other| other.key_kind != first.key_kind));
            open.entry(gateway.place(protocol.port(listener.port))).or_default().push(OpenListener {
                id: ListenerId { holder: listener.holder.clone(), name: listener.name.clone() },
                gateway: gateway.key.clone(),
                hostname: listener.hostname.clone(),
                protocol,
                serves: !listener.refuses_all && (!protocol.ends_tls() || !good.is_empty()),
                certificate: good.first().map(|good| good.certificate.name.clone()),
                alternative: other.map(|good| good.certificate.name.clone()),
                client_auth: listener.client_auth.clone(),
                // If the certificate is unavailable, backends that demand one are not reached: no certificate has this name.
                shown: gateway.client_certificate.as_ref().map(|found| match found {
                    Ok(secret) => certificate_name(secret),
                    Err(_) => "refused".into(),
                }),
            });
        }
        for place in self.places.keys() {
            self.tables.entry(place.clone()).or_default();
        }
        for (place, table) in &mut self.tables {
            let own = self.places.get(place);
            table.shared = own.is_some() && place.is_of_ingresses();
            table.secure = own == Some(&Door::Named(Scheme::Https));
            let door = match own {
                Some(Door::Named(Scheme::Https)) => options.https.first(),
                _ => options.http.first(),
            };
            let local = || self.ports.iter().find(|open| open.place == *place).and_then(|open| open.addresses.first());
            let number = match options.development {
                None => Some(place.port.number),
                Some(_) => local().or(door).map(std::net::SocketAddr::port),
            };
            table.named_port = number.filter(|number| *number != 0);
            table.https_port = options.development.as_ref().and_then(|development| development.https_port);
            table.listeners = open.remove(place).unwrap_or_default().into_iter().collect();
            self.hosts.extend(table.names().into_iter().map(|name| (place.clone(), name)));
        }
    }

    fn parents_of_routes(&self) -> Parents<'_> {
        Parents { gateways: &self.gateways, sets: &self.sets }
    }

    /// Forgets the findings about an object, because it is read again.
    fn forget(&mut self, key: &ObjectKey, dirty: &mut Dirty) {
        self.findings.remove(key);
        dirty.reports.insert(key.clone());
        dirty.gateway_statuses.insert(key.clone());
    }

    fn show(&mut self, key: &ObjectKey, status: Option<ObjectStatus>, out: &mut Output) {
        let before = self.statuses.get(key);
        if before.map(|before| &**before) == status.as_ref() {
            return;
        }
        out.statuses.insert(key.clone());
        match status {
            Some(status) => self.statuses.insert(key.clone(), Arc::new(status)),
            None => self.statuses.remove(key),
        };
    }
}

fn class_status(class: &super::api::GatewayClass) -> ObjectStatus {
    let fault = class.spec.parameters_ref.as_ref().map(|parameters| {
        let message = format!("spec.parametersRef: {} {} is not known", parameters.kind, parameters.name);
        Shortcoming::new("InvalidParameters", message)
    });
    ObjectStatus::Class {
        conditions: vec![Condition::of("Accepted", fault.as_ref())],
        supported_features: FEATURES.to_vec(),
    }
}

fn secrets_of(part: &GatewayPart) -> impl Iterator<Item = &ObjectKey> {
    let shown = part.client_certificate.iter().flatten();
    part.listeners.iter().flat_map(|listener| &listener.secrets).chain(shown)
}

/// Each backend once, since an owner is attached once.
fn unique(backends: &[(BackendKey, String)]) -> BTreeSet<&BackendKey> {
    backends.iter().map(|(key, _)| key).collect()
}

fn with_defaults(parent: &ParentReference) -> ParentReference {
    ParentReference {
        group: Some(parent.group.clone().unwrap_or_else(|| GROUP.to_owned())),
        kind: Some(parent.kind.clone().unwrap_or_else(|| Kind::Gateway.as_str().to_owned())),
        ..parent.clone()
    }
}

/// Whether Gateways of a class are ours. Files rarely contain the classes of a cluster, so there a missing class is ours.
fn is_ours(class: &str, objects: &Objects, options: &Options) -> bool {
    match objects.get(&ObjectKey::new(Kind::GatewayClass, "", class)) {
        Some(Object::GatewayClass(class)) => {
            class.spec.controller_name == options.gateway_controller && class.spec.parameters_ref.is_none()
        }
        _ => options.development.is_some(),
    }
}

/// Whether the flags let objects of a namespace be served.
fn is_in_scope(key: &ObjectKey, objects: &Objects, options: &Options) -> bool {
    if let Some(namespace) = &options.watch_namespace
        && **namespace != *key.namespace
    {
        return false;
    }
    let Some(selector) = &options.namespace_selector else { return true };
    match objects.get(&ObjectKey::new(Kind::Namespace, "", &*key.namespace)) {
        Some(Object::Namespace(namespace)) => selector.selects(namespace.metadata.labels.as_ref()),
        _ => false,
    }
}

fn metadata(object: &Object) -> &ObjectMeta {
    static NOTHING: std::sync::LazyLock<ObjectMeta> = std::sync::LazyLock::new(ObjectMeta::default);
    match object {
        Object::HTTPRoute(route) => &route.metadata,
        Object::GRPCRoute(route) => &route.metadata,
        Object::TLSRoute(route) => &route.metadata,
        Object::TCPRoute(route) => &route.metadata,
        Object::UDPRoute(route) => &route.metadata,
        Object::Gateway(gateway) => &gateway.metadata,
        Object::ListenerSet(set) => &set.metadata,
        Object::BackendTLSPolicy(policy) => &policy.metadata,
        Object::RoutePolicy(policy) => &policy.metadata,
        Object::XBackendTrafficPolicy(policy) => &policy.metadata,
        Object::XBackend(xbackend) => &xbackend.metadata,
        Object::XTelemetryPolicy(policy) => &policy.metadata,
        _ => &NOTHING,
    }
}

/// An object as an owner without wishes for its backends.
fn plain_owner(key: &ObjectKey, metadata: &ObjectMeta, objects: &Objects) -> Arc<Owner> {
    Arc::new(Owner { key: key.clone(), age: age(key, metadata, objects), wishes: Arc::new(BackendWishes::default()) })
}

fn age(key: &ObjectKey, metadata: &ObjectMeta, objects: &Objects) -> Age {
    let created = metadata.creation_timestamp.as_ref().map(|time| time.0);
    let sequence = objects.sequence(key).unwrap_or(u64::MAX);
    Age::of(key, created, sequence, metadata.deletion_timestamp.is_some())
}

/// The age of an object among those of the Gateway API.
fn turn(key: &ObjectKey, object: &Object, objects: &Objects) -> RouteAge {
    let sequence = objects.sequence(key).unwrap_or(u64::MAX);
    RouteAge::of(key, object.created(), sequence, metadata(object).deletion_timestamp.is_some())
}
