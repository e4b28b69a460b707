//! Listeners of Gateways: what each one asks for, and which ones can be told apart on the shared address.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fairway_model::{ClientAuth, HostPattern};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::api::{GROUP, Gateway, GatewayListener, RouteNamespaces};
use super::frontend::{self, Frontend};
use super::grant;
use super::host::RouteAge;
use super::parameters;
use super::place::{self, Place, Port, StreamPorts};
use super::service::OwnAddress;
use super::status::Shortcoming;
use super::stream::{Door, Protocol};
use crate::limit;
use crate::objects::{Kind, Object, ObjectKey, Objects};
use crate::options::Options;
use crate::resource::Age;
use crate::resource::backend::Layer;

/// A Gateway of ours.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct GatewayPart {
    pub(super) key: ObjectKey,
    pub(super) age: Age,
    /// Its turn among all that have listeners.
    pub(super) turn: RouteAge,
    /// The Gateway's own listeners, then those of the ListenerSets that it admits.
    pub(super) listeners: Vec<ListenerPart>,
    /// The ConfigMaps of the authorities of client certificates, and of its parameters.
    pub(super) config_maps: BTreeSet<ObjectKey>,
    /// Whether it requests client certificates but also admits clients without a valid one.
    pub(super) is_insecure: bool,
    /// The Secret with the certificate to present to backends.
    pub(super) client_certificate: Option<Result<ObjectKey, Shortcoming>>,
    /// What it asks for if it doesn't use the shared address.
    pub(super) own: Option<OwnAddress>,
    /// Why the Gateway as a whole is not accepted.
    pub(super) fault: Option<Shortcoming>,
}

impl GatewayPart {
    /// The place of one of its ports.
    pub(super) fn place(&self, port: Port) -> Place {
        Place { gateway: self.own.as_ref().map(|_| self.key.clone()), port }
    }

    /// The listeners of the Gateway itself, or of one of its ListenerSets, in the order of the spec.
    pub(super) fn listeners_of<'a>(&'a self, holder: &'a ObjectKey) -> impl Iterator<Item = &'a ListenerPart> {
        self.listeners.iter().filter(move |listener| listener.holder == *holder)
    }
}

/// The order in which listeners get what they ask for: the age of the younger of Gateway and ListenerSet counts, and within a Gateway its
/// own come first, then those of its sets by age. So no new object takes anything from an older one.
pub(super) type ListenerTurn = (RouteAge, Option<RouteAge>);

/// One listener.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ListenerPart {
    /// The Gateway or ListenerSet that has it.
    pub(super) holder: ObjectKey,
    pub(super) turn: ListenerTurn,
    pub(super) name: Arc<str>,
    pub(super) port: u16,
    /// `None` if it is not served.
    pub(super) protocol: Option<Protocol>,
    pub(super) hostname: HostPattern,
    /// The kinds of route that it takes.
    pub(super) kinds: Vec<Kind>,
    pub(super) namespaces: Namespaces,
    /// The Secrets of its certificates that it may refer to.
    pub(super) secrets: Vec<ObjectKey>,
    /// The client certificates that it demands.
    pub(super) client_auth: Option<Arc<ClientAuth>>,
    /// Whether it keeps its port and name but refuses all clients, because their certificates can't be verified.
    pub(super) refuses_all: bool,
    /// Why it is not accepted.
    pub(super) fault: Option<Shortcoming>,
    /// Whether that is a conflict with another listener.
    pub(super) conflicted: bool,
    /// The first reference that can't be followed; references to Secrets are judged later.
    pub(super) unresolved: Option<Shortcoming>,
}

impl ListenerPart {
    /// Its port; `None` if its protocol is not served.
    pub(super) fn at(&self) -> Option<Port> {
        Some(self.protocol?.port(self.port))
    }

    /// Whether it takes a port and a name, so that no other listener gets them.
    pub(super) fn takes_part(&self) -> bool {
        self.fault.is_none() || self.refuses_all
    }

    fn refuse(&mut self, fault: Shortcoming, conflicted: bool) {
        self.fault = Some(fault);
        self.conflicted = conflicted;
        self.refuses_all = false;
    }
}

/// The namespaces whose routes may attach.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Namespaces {
    Same,
    All,
    Selector(Box<LabelSelector>),
    None,
}

impl Namespaces {
    /// The namespaces that a rule admits: none if the rule is not understood.
    pub(super) fn of(rule: Option<&RouteNamespaces>, default: &str) -> Self {
        match rule.and_then(|rule| rule.from.as_deref()).unwrap_or(default) {
            "Same" => Self::Same,
            "All" => Self::All,
            "Selector" => {
                let selector = rule.and_then(|rule| rule.selector.clone());
                selector.map_or(Self::None, |selector| Self::Selector(Box::new(selector)))
            }
            _ => Self::None,
        }
    }
}

/// Reads a Gateway.
pub(super) fn read(
    key: &ObjectKey,
    gateway: &Gateway,
    (age, turn): (Age, RouteAge),
    objects: &Objects,
    options: &Options,
) -> GatewayPart {
    let (mut own, mut fault) = OwnAddress::of(gateway, options);
    match parameters::read(gateway, objects) {
        Ok(fields) => own.iter_mut().for_each(|own| own.fields.clone_from(&fields)),
        Err(invalid) => fault = fault.or(Some(invalid)),
    }
    let config_maps = frontend::config_maps(gateway, objects);
    let own_turn = (turn.clone(), None);
    let listeners = gateway.spec.listeners.iter().map(|one| read_listener(key, &own_turn, gateway, one, objects));
    GatewayPart {
        key: key.clone(),
        age,
        listeners: listeners.collect(),
        turn,
        config_maps: config_maps.into_iter().chain(parameters::config_map(gateway)).collect(),
        is_insecure: frontend::is_insecure(gateway),
        client_certificate: frontend::client_certificate(gateway, objects),
        own,
        fault,
    }
}

/// Reads a listener of the Gateway or of a ListenerSet.
pub(super) fn read_listener(
    key: &ObjectKey,
    turn: &ListenerTurn,
    gateway: &Gateway,
    listener: &GatewayListener,
    objects: &Objects,
) -> ListenerPart {
    let protocol = Protocol::of(listener);
    let mut fault = protocol.is_none().then(|| {
        let message = format!("protocol: expected HTTP, HTTPS, TLS, TCP or UDP, found {}", listener.protocol);
        Shortcoming::new("UnsupportedProtocol", message)
    });
    if listener.passes_through() && matches!(protocol, Some(Protocol::Http | Protocol::Https)) {
        fault = Some(Shortcoming::new("UnsupportedValue", "tls.mode: Passthrough needs the protocol TLS"));
    }
    if listener.filters.is_some() {
        // These may ask a service whether a request is allowed.
        fault = Some(Shortcoming::new(
            "UnsupportedValue",
            "filters: a listener has none; filters of routes are carried out",
        ));
    }
    let Frontend { auth, unresolved, fault: uncertified } = match protocol {
        Some(Protocol::Https) => frontend::frontend(gateway, listener.port, objects),
        _ => Frontend::default(),
    };
    let is_sound = fault.is_none();
    let refuses_all = uncertified.is_some();
    fault = fault.or(uncertified);
    let port = u16::try_from(listener.port).unwrap_or_default();
    if port == 0 {
        fault =
            Some(Shortcoming::new("PortUnavailable", format!("port: expected 1 to 65535, found {}", listener.port)));
    }
    let hostname = match listener.hostname.as_deref().filter(|name| !name.is_empty()) {
        None => Some(HostPattern::Any),
        Some(name) => pattern(name),
    };
    if hostname.is_none() {
        let message = format!("hostname: {} is no host name", listener.hostname.as_deref().unwrap_or_default());
        fault = Some(Shortcoming::new("UnsupportedValue", message));
    }
    let named = hostname.is_some();
    let mut unresolved = unresolved;
    let asked = listener.allowed_routes.as_ref().map(|allowed| &allowed.kinds[..]).unwrap_or_default();
    let taken = protocol.map(Protocol::kinds).unwrap_or_default();
    let mut kinds = taken.to_vec();
    if !asked.is_empty() {
        let known = |one: &super::api::RouteGroupKind| {
            let group = one.group.as_deref().unwrap_or(GROUP);
            taken.iter().copied().find(|kind| group == GROUP && kind.as_str() == one.kind)
        };
        if let Some(unknown) = asked.iter().find(|one| known(one).is_none()) {
            let message =
                format!("allowedRoutes.kinds: {} can't attach to a listener for {}", unknown.kind, listener.protocol);
            unresolved.get_or_insert(Shortcoming::new("InvalidRouteKinds", message));
        }
        kinds.retain(|kind| asked.iter().filter_map(known).any(|one| one == *kind));
    }
    let rule = listener.allowed_routes.as_ref().and_then(|allowed| allowed.namespaces.as_ref());
    let namespaces = Namespaces::of(rule, "Same");
    let mut secrets = Vec::new();
    if protocol.is_some_and(Protocol::ends_tls) {
        let references = listener.tls.as_ref().map(|tls| &tls.certificate_refs[..]).unwrap_or_default();
        if references.is_empty() {
            let fault =
                Shortcoming::new("InvalidCertificateRef", "tls.certificateRefs: expected a Secret with a certificate");
            unresolved.get_or_insert(fault);
        }
        for (at, one) in references.iter().enumerate() {
            let (group, kind) = (one.group.as_deref().unwrap_or_default(), one.kind.as_deref().unwrap_or("Secret"));
            let namespace = one.namespace.as_deref().unwrap_or(&key.namespace);
            if !group.is_empty() || kind != "Secret" {
                let message = format!("tls.certificateRefs[{at}]: expected a Secret, found {kind} {}", one.name);
                unresolved.get_or_insert(Shortcoming::new("InvalidCertificateRef", message));
            } else if !grant::permits(
                objects,
                (key.kind, &key.namespace),
                &ObjectKey::new(Kind::Secret, namespace, &*one.name),
            ) {
                let message = format!(
                    "tls.certificateRefs[{at}]: no ReferenceGrant in namespace {namespace} lets {}s of {} refer to Secret {}",
                    key.kind, key.namespace, one.name
                );
                unresolved.get_or_insert(Shortcoming::new("RefNotPermitted", message));
            } else {
                secrets.push(ObjectKey::new(Kind::Secret, namespace, &*one.name));
            }
        }
    }
    ListenerPart {
        holder: key.clone(),
        turn: turn.clone(),
        name: listener.name.as_str().into(),
        port,
        protocol,
        hostname: hostname.unwrap_or(HostPattern::Any),
        kinds,
        namespaces,
        secrets,
        client_auth: auth,
        refuses_all: refuses_all && is_sound && port != 0 && named,
        fault,
        conflicted: false,
        unresolved,
    }
}

/// A host name of the Gateway API: `*.` stands for one or more labels.
pub(super) fn pattern(name: &str) -> Option<HostPattern> {
    match name.strip_prefix("*.") {
        Some(parent) => parent.parse().ok().map(HostPattern::Subdomains),
        None => name.parse().ok().map(HostPattern::Exact),
    }
}

/// Decides conflicts, and returns the places of listeners.
///
/// Within a Gateway no listener wins a conflict, but those that ListenerSets add yield to existing ones. Between Gateways that share an
/// address the older one wins, so that a new Gateway doesn't change the traffic of others. The same holds when there are too many ports.
pub(super) fn arrange(gateways: &mut [GatewayPart], options: &Options, streams: &StreamPorts) -> BTreeMap<Place, Door> {
    for gateway in gateways.iter_mut() {
        conflicts_within(gateway);
    }
    let mut turns = Vec::new();
    for (at, gateway) in gateways.iter().enumerate().filter(|(_, gateway)| gateway.fault.is_none()) {
        let good = gateway.listeners.iter().enumerate().filter(|(_, listener)| listener.takes_part());
        turns.extend(good.map(|(index, listener)| (listener.turn.clone(), at, index)));
    }
    turns.sort();
    let most_own = |layer| place::pool(layer, options, streams).count();
    let mut counts: BTreeMap<Option<Layer>, usize> = BTreeMap::new();
    let mut listeners_of: BTreeMap<Arc<str>, usize> = BTreeMap::new();
    let mut of_namespace: BTreeMap<Arc<str>, usize> = BTreeMap::new();
    let mut taken: BTreeMap<Place, (Door, ObjectKey, BTreeMap<HostPattern, ObjectKey>)> = BTreeMap::new();
    for (_, at, index) in turns {
        let Some(protocol) = gateways[at].listeners[index].protocol else { continue };
        let place = gateways[at].place(protocol.port(gateways[at].listeners[index].port));
        let listener = &mut gateways[at].listeners[index];
        let door = protocol.door();
        let count = listeners_of.entry(listener.holder.namespace.clone()).or_default();
        *count += 1;
        if *count > limit::NAMESPACE_LISTENERS {
            let message = format!(
                "Gateways and ListenerSets of namespace {} have {} listeners before it, the maximum of a namespace",
                listener.holder.namespace,
                limit::NAMESPACE_LISTENERS
            );
            listener.refuse(Shortcoming::new("TooManyListeners", message), false);
            continue;
        }
        if let Some(fault) = place.unavailable(door, options, streams) {
            listener.refuse(fault, false);
            continue;
        }
        if !taken.contains_key(&place) {
            let layer = place.port.layer;
            let (pool, most, whose) = match place.gateway {
                Some(_) => (Some(layer), most_own(layer), "of their own (--gateway-ports)"),
                None => (None, limit::GATEWAY_PORTS, "of the shared address"),
            };
            let count = counts.entry(pool).or_default();
            let in_namespace = of_namespace.entry(listener.holder.namespace.clone()).or_default();
            let port = listener.port;
            let message = if *in_namespace >= limit::NAMESPACE_PORTS {
                let most = limit::NAMESPACE_PORTS;
                Some(format!(
                    "port {port}: Gateways and ListenerSets of namespace {} have opened {most} ports, the maximum of a namespace",
                    listener.holder.namespace
                ))
            } else if *count >= most {
                Some(format!("port {port}: Gateways have opened all {most} ports {whose}"))
            } else {
                None
            };
            if let Some(message) = message {
                listener.refuse(Shortcoming::new("PortUnavailable", message), false);
                continue;
            }
            *count += 1;
            *in_namespace += 1;
        }
        let (theirs, first, hosts) =
            taken.entry(place).or_insert_with(|| (door, listener.holder.clone(), BTreeMap::new()));
        if *theirs != door {
            let message =
                format!("port {}: {first}, which takes precedence, has another protocol there", listener.port);
            listener.refuse(Shortcoming::new("ProtocolConflict", message), true);
            continue;
        }
        if let (Some(other), Door::Stream) = (hosts.get(&listener.hostname), door) {
            let message = format!("port {}: {other}, which takes precedence, uses it", listener.port);
            listener.refuse(Shortcoming::new("PortUnavailable", message), false);
            continue;
        }
        if let Some(other) = hosts.get(&listener.hostname) {
            let message = format!(
                "port {}, hostname {}: {other}, which takes precedence, has the same",
                listener.port, listener.hostname
            );
            listener.refuse(Shortcoming::new("HostnameConflict", message), true);
            continue;
        }
        hosts.insert(listener.hostname.clone(), listener.holder.clone());
    }
    taken.into_iter().map(|(place, (door, ..))| (place, door)).collect()
}

fn conflicts_within(gateway: &mut GatewayPart) {
    let listeners = &gateway.listeners;
    let conflict = |one: &ListenerPart| {
        let others =
            || gateway.listeners_of(&gateway.key).filter(|other| other.at() == one.at() && other.name != one.name);
        let door = |listener: &ListenerPart| listener.protocol.map(Protocol::door);
        let others = || others().filter(|other| other.protocol.is_some());
        if let Some(other) = others().find(|other| door(other) != door(one)) {
            let message = format!("port {}: listener {} has another protocol", one.port, other.name);
            return Some(Shortcoming::new("ProtocolConflict", message));
        }
        let other = others().find(|other| other.hostname == one.hostname)?;
        let message = format!("port {}, hostname {}: listener {} has the same", one.port, one.hostname, other.name);
        Some(Shortcoming::new("HostnameConflict", message))
    };
    let judged = |one: &ListenerPart| one.protocol.filter(|_| one.holder == gateway.key).and_then(|_| conflict(one));
    let found: Vec<_> = listeners.iter().map(judged).collect();
    for (listener, fault) in gateway.listeners.iter_mut().zip(found) {
        if let Some(fault) = fault.filter(|_| listener.takes_part()) {
            listener.refuse(fault, true);
        }
    }
}

/// Whether a namespace has these labels. Every namespace has its name as a label.
pub(super) fn selects(selector: &LabelSelector, namespace: &str, objects: &Objects) -> bool {
    let found = match objects.get(&ObjectKey::new(Kind::Namespace, "", namespace)) {
        Some(Object::Namespace(object)) => Some(&object.metadata),
        _ => None,
    };
    let labels = found.and_then(|metadata| metadata.labels.as_ref());
    // If a namespace can't be read, only its name is known, and no other label is certain to be missing.
    let is_known = |key: &str| found.is_some() || key == "kubernetes.io/metadata.name";
    let value = |key: &str| {
        let own = labels.and_then(|labels| labels.get(key)).map(String::as_str);
        own.or((key == "kubernetes.io/metadata.name").then_some(namespace))
    };
    let named = selector.match_labels.iter().flatten().all(|(key, wanted)| value(key) == Some(wanted));
    named
        && selector.match_expressions.iter().flatten().all(|wanted| {
            let values = wanted.values.as_deref().unwrap_or_default();
            let found = value(&wanted.key);
            let is_among = || found.is_some_and(|found| values.iter().any(|value| value == found));
            match &*wanted.operator {
                "In" => is_among(),
                "NotIn" => is_known(&wanted.key) && !is_among(),
                "Exists" => found.is_some(),
                "DoesNotExist" => is_known(&wanted.key) && found.is_none(),
                _ => false,
            }
        })
}
