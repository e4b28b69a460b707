//! Services that give Gateways an address of their own, as data: the objects that the leader has to write, and those that it finds.
//!
//! Such a Service is in the Gateway's namespace and is deleted with the Gateway. It selects no pods: the proxy's pods may be in another
//! namespace, so EndpointSlices are written with the endpoints of the proxy's own Service. Each port of the Gateway leads to a port of the
//! process that no other Gateway has. The number is kept in the Service, where every replica reads it: all of them open the same port, and
//! none is moved when Gateways come and go. The slices get a port only once it is in the Service.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{LoadBalancerIngress, Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::api::{GROUP, Gateway, GatewayAddress};
use super::listener::GatewayPart;
use super::parameters::{self, ServiceFields};
use super::place::Port;
use super::status::{Shortcoming, StatusAddress};
use crate::engine::service_of;
use crate::objects::{Kind, Object, ObjectKey, Objects};
use crate::options::{GatewayAddressing, Options};
use crate::resource::backend::Layer;

/// The label of all objects that are created for Gateways and XBackends, and its value.
pub(super) const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "fairway");
const CLASS_NAME: &str = "gateway.networking.k8s.io/gateway-class-name";

/// How a Service names the object that it was created for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    /// The label with the name of the object, shortened if it is longer than labels may be.
    pub(super) label: &'static str,
    /// The annotation with the full name.
    pub(super) annotation: &'static str,
}

/// The mark of Services that are created for Gateways. The Gateway API requires this label.
pub(super) const GATEWAY: Mark =
    Mark { label: "gateway.networking.k8s.io/gateway-name", annotation: "fairway.dev/gateway" };
/// The mark of Services that are created for XBackends.
pub(crate) const XBACKEND: Mark = Mark { label: "fairway.dev/xbackend-name", annotation: "fairway.dev/xbackend" };

/// The annotation that shows whether a Service has the wanted state: labels and annotations that others add don't matter.
pub(super) const APPLIED: &str = "fairway.dev/applied";
/// The manager of a slice. Without it the endpoints controller of Kubernetes would manage the slice.
const SLICE_MANAGER: (&str, &str) = ("endpointslice.kubernetes.io/managed-by", "fairway.dev");
/// The address types of slices.
const FAMILIES: [&str; 2] = ["IPv4", "IPv6"];
/// Maximum length of the name of a Service, and of the value of a label.
pub(super) const NAME: usize = 63;

/// What a Gateway with an address of its own asks for.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct OwnAddress {
    uid: String,
    class: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    /// The addresses that it names; no others are acceptable.
    requested: Vec<IpAddr>,
    /// The fields that its parameters set in the Service.
    pub(super) fields: ServiceFields,
}

/// The state of a Gateway's own Service.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct OwnService {
    /// The addresses that the Service shows.
    pub(super) addresses: Vec<StatusAddress>,
    /// Why the Gateway can't be reached there.
    pub(super) fault: Option<Shortcoming>,
    /// The port of the process for each port of the Gateway.
    pub(super) ports: BTreeMap<Port, u16>,
}

/// The pending work on an object that is created for a Gateway or an XBackend.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Make {
    /// Write it, by server-side apply.
    Apply(Arc<Value>),
    /// Delete it.
    Delete,
}

impl OwnAddress {
    /// What the Gateway asks for, `None` if it has the shared address; and why a request for its own address can't be met.
    pub(super) fn of(gateway: &Gateway, options: &Options) -> (Option<Self>, Option<Shortcoming>) {
        let infrastructure = gateway.spec.infrastructure.clone().unwrap_or_default();
        let asks = !gateway.spec.addresses.is_empty()
            || !infrastructure.labels.is_empty()
            || !infrastructure.annotations.is_empty()
            || infrastructure.parameters_ref.is_some();
        match options.gateway_address {
            GatewayAddressing::Own => {}
            GatewayAddressing::Asked if asks => {}
            GatewayAddressing::Asked => return (None, None),
            GatewayAddressing::Shared => {
                let why = "with --gateway-address=shared no Gateway has an address of its own";
                let fault = gateway.spec.addresses.iter().find_map(|address| address.value.as_deref());
                let fault = fault
                    .map(|value| Shortcoming::new("UnsupportedAddress", format!("spec.addresses: {value}: {why}")));
                // On a developer's machine there are no Services in any case.
                let has_parameters = infrastructure.parameters_ref.is_some() && options.lacks_own_services();
                let no_service = || {
                    let message = format!("spec.infrastructure.parametersRef: {why}");
                    has_parameters.then(|| Shortcoming::new("InvalidParameters", message))
                };
                return (None, fault.or_else(no_service));
            }
        }
        let (mut requested, mut fault) = (Vec::new(), None);
        for (at, GatewayAddress { r#type, value }) in gateway.spec.addresses.iter().enumerate() {
            let kind = r#type.as_deref().unwrap_or("IPAddress");
            let value = value.as_deref().unwrap_or_default();
            if kind != "IPAddress" {
                let message = format!("spec.addresses[{at}]: expected an IPAddress, found {kind} {value}");
                fault.get_or_insert(Shortcoming::new("UnsupportedAddress", message));
            } else if let Ok(address) = value.parse() {
                requested.push(address);
            } else if !value.is_empty() {
                let message = format!("spec.addresses[{at}]: {value:?} is no IP address");
                fault.get_or_insert(Shortcoming::new("UnsupportedAddress", message));
            }
        }
        let own = Self {
            uid: gateway.metadata.uid.clone().unwrap_or_default(),
            class: gateway.spec.gateway_class_name.clone(),
            labels: infrastructure.labels,
            annotations: infrastructure.annotations,
            requested,
            fields: ServiceFields::new(),
        };
        (Some(own), fault)
    }

    /// The Gateway's class, which is part of the Service's name.
    pub(super) fn class(&self) -> &str {
        &self.class
    }
}

/// The name of the Gateway or XBackend that a Service was created for.
pub(crate) fn made_for(service: &Service, mark: Mark) -> Option<&str> {
    let labels = service.metadata.labels.as_ref()?;
    let is_ours = labels.get(MANAGED_BY.0).is_some_and(|value| value == MANAGED_BY.1);
    let name = service.metadata.annotations.as_ref()?.get(mark.annotation)?;
    (is_ours && labels.contains_key(mark.label)).then_some(name)
}

/// Whether a Service was created for a Gateway. Its addresses are those of the Gateway.
pub fn is_for_gateway(service: &Service) -> bool {
    made_for(service, GATEWAY).is_some()
}

/// Whether a Service was created for a Gateway or an XBackend.
fn is_made(service: &Service) -> bool {
    is_for_gateway(service) || made_for(service, XBACKEND).is_some()
}

/// Whether two versions of a Service are the same here.
pub(crate) fn alike(before: &Service, after: &Service) -> bool {
    match (is_made(before), is_made(after)) {
        (false, false) => true,
        (true, true) => {
            before.metadata.labels == after.metadata.labels
                && before.metadata.annotations == after.metadata.annotations
                && before.status == after.status
        }
        _ => false,
    }
}

/// The key of a Gateway's Service.
pub(super) fn key(gateway: &ObjectKey, class: &str) -> ObjectKey {
    let wanted = format!("{}-{class}", gateway.name);
    let name: String = wanted.chars().map(|c| if c == '.' { '-' } else { c }).collect();
    let begins_well = name.starts_with(|c: char| c.is_ascii_lowercase());
    let name = if begins_well { name } else { format!("gateway-{name}") };
    let name = if name == wanted && name.len() <= NAME { name } else { shortened(&name, &wanted) };
    ObjectKey::new(Kind::Service, &*gateway.namespace, name)
}

/// A text with a checksum of `whole` at its end, short enough for a name.
pub(super) fn shortened(text: &str, whole: &str) -> String {
    let sum = format!("{:08x}", sum(whole) as u32);
    let kept: String = text.chars().take(NAME - sum.len() - 1).collect();
    format!("{}-{sum}", kept.trim_end_matches(['-', '.', '_']))
}

pub(super) fn sum(value: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// The endpoints of the proxy, by address type.
pub(super) fn proxy_endpoints(objects: &Objects, options: &Options) -> Option<BTreeMap<String, Vec<Endpoint>>> {
    let (namespace, name) = options.publish_service.as_ref()?;
    let service = ObjectKey::new(Kind::Service, namespace.as_str(), name.as_str());
    let mut found: BTreeMap<String, Vec<Endpoint>> = BTreeMap::new();
    for (key, object) in objects.of_kind(Kind::EndpointSlice) {
        let Object::EndpointSlice(slice) = object else { continue };
        if service_of(key, slice).as_ref() == Some(&service) {
            let endpoints = slice.endpoints.iter().flatten().cloned();
            // Hints concern the zones of the slices of the proxy's Service.
            let endpoints = endpoints.map(|endpoint| Endpoint { hints: None, deprecated_topology: None, ..endpoint });
            found.entry(slice.address_type.clone()).or_default().extend(endpoints);
        }
    }
    for endpoints in found.values_mut() {
        endpoints.sort_by(|one, other| one.addresses.cmp(&other.addresses));
        endpoints.dedup_by(|one, other| one.addresses == other.addresses);
    }
    Some(found)
}

/// The ports of the process that a Gateway's Service leads to, by port of the Gateway.
pub(super) fn held(service: Option<&Service>) -> BTreeMap<Port, u16> {
    let ports = service.and_then(|service| service.spec.as_ref()).and_then(|spec| spec.ports.as_ref());
    let pair = |port: &ServicePort| match &port.target_port {
        Some(IntOrString::Int(target)) => {
            let layer = if Layer::Udp.takes(port.protocol.as_deref()) { Layer::Udp } else { Layer::Tcp };
            Some((Port { layer, number: u16::try_from(port.port).ok()? }, u16::try_from(*target).ok()?))
        }
        _ => None,
    };
    ports.into_iter().flatten().filter_map(pair).collect()
}

/// The objects to create for a Gateway, and the state of its Service. `ports` are the ports of the process for its listeners, of which the
/// Service has `held`.
pub(super) fn settle(
    part: &GatewayPart,
    own: &OwnAddress,
    ports: &BTreeMap<Port, u16>,
    proxy: Option<&BTreeMap<String, Vec<Endpoint>>>,
    objects: &Objects,
) -> (OwnService, BTreeMap<ObjectKey, Make>) {
    let key = key(&part.key, &own.class);
    let mut made = BTreeMap::new();
    let fault = |reason, message: String| OwnService {
        fault: Some(Shortcoming::new(reason, message)),
        ..OwnService::default()
    };
    let Some(proxy) = proxy else {
        let message = "an address of its own leads to the endpoints of the Service that --publish-service names, which is not set";
        return (fault("NoResources", message.to_owned()), made);
    };
    let current = objects.service(&key);
    if current.is_some_and(|service| made_for(service, GATEWAY) != Some(&part.key.name)) {
        let message = format!("Service {}/{} exists, and was not made for this Gateway", key.namespace, key.name);
        return (fault("Invalid", message), made);
    }
    if ports.is_empty() {
        return (fault("Invalid", "no listener has a port".to_owned()), made);
    }
    let wanted = service(part, own, &key, ports);
    if !current.is_some_and(|current| is_satisfied(current, &wanted)) {
        made.insert(key.clone(), Make::Apply(Arc::new(wanted)));
    }
    let mut ports = ports.clone();
    let held = held(current);
    ports.retain(|port, target| held.get(port) == Some(target));
    if let Some(current) = current {
        let gone = FAMILIES.into_iter().filter(|kind| !proxy.contains_key(*kind)).map(|kind| slice_key(&key, kind));
        made.extend(gone.filter(|slice| objects.get(slice).is_some()).map(|slice| (slice, Make::Delete)));
        for (kind, endpoints) in proxy.iter().filter(|(kind, _)| FAMILIES.contains(&kind.as_str())) {
            let (slice, wanted) = slice(part, own, &key, kind, endpoints, &ports);
            let is_there = matches!(objects.get(&slice), Some(Object::EndpointSlice(found)) if is_same(found, &wanted));
            if !is_there {
                let value = serde_json::to_value(&wanted).unwrap_or_default();
                made.insert(slice, Make::Apply(Arc::new(value)));
            }
        }
        let addresses = addresses(current);
        let has = |wanted: &IpAddr| addresses.iter().any(|address| address.value.parse() == Ok(*wanted));
        let missing = own.requested.iter().find(|wanted| !has(wanted));
        let fault = match missing {
            Some(address) => {
                let message = format!("Service {}/{} has not got the address {address}", key.namespace, key.name);
                Some(Shortcoming::new("AddressNotUsable", message))
            }
            None if addresses.is_empty() => {
                let message = format!("Service {}/{} has no address yet", key.namespace, key.name);
                Some(Shortcoming::new("AddressNotAssigned", message))
            }
            None => None,
        };
        return (OwnService { addresses, fault, ports }, made);
    }
    let message = format!("Service {}/{} is not there yet", key.namespace, key.name);
    let reason = if own.requested.is_empty() { "AddressNotAssigned" } else { "AddressNotUsable" };
    (OwnService { fault: Some(Shortcoming::new(reason, message)), ..OwnService::default() }, made)
}

/// The pending work on the Service and slices of a Gateway that no longer has an address of its own.
pub(super) fn leftovers(service: &ObjectKey, objects: &Objects) -> BTreeMap<ObjectKey, Make> {
    let slices = FAMILIES.map(|kind| slice_key(service, kind));
    let there = [service.clone()].into_iter().chain(slices).filter(|key| objects.get(key).is_some());
    there.map(|key| (key, Make::Delete)).collect()
}

/// A name as the value of a label.
pub(super) fn label_value(text: &str) -> String {
    if text.len() <= NAME { text.to_owned() } else { shortened(text, text) }
}

fn labels(part: &GatewayPart, own: &OwnAddress) -> BTreeMap<String, String> {
    let mut labels = own.labels.clone();
    labels.insert(MANAGED_BY.0.to_owned(), MANAGED_BY.1.to_owned());
    labels.insert(GATEWAY.label.to_owned(), label_value(&part.key.name));
    labels.insert(CLASS_NAME.to_owned(), label_value(&own.class));
    labels
}

/// All objects that are created for a Gateway are deleted with it.
fn owner(part: &GatewayPart, own: &OwnAddress) -> Value {
    let version = format!("{GROUP}/v1");
    json!([{"apiVersion": version, "kind": "Gateway", "name": &*part.key.name, "uid": own.uid, "controller": true}])
}

fn service(part: &GatewayPart, own: &OwnAddress, key: &ObjectKey, ports: &BTreeMap<Port, u16>) -> Value {
    let entry = |(port, target): (&Port, &u16)| {
        let protocol = port.layer.protocol();
        json!({"name": port_name(*port), "port": port.number, "protocol": protocol, "targetPort": target})
    };
    let ports: Vec<Value> = ports.iter().map(entry).collect();
    let mut annotations = own.annotations.clone();
    annotations.insert(GATEWAY.annotation.to_owned(), part.key.name.to_string());
    let mut service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": &*key.name, "namespace": &*key.namespace, "labels": labels(part, own),
            "annotations": annotations, "ownerReferences": owner(part, own),
        },
        "spec": {"type": "LoadBalancer", "ports": ports},
    });
    if let Some(address) = own.requested.first() {
        service["spec"]["loadBalancerIP"] = json!(address);
    }
    for (name, value) in &own.fields {
        service["spec"][name] = value.clone();
    }
    service["metadata"]["annotations"][APPLIED] = json!(format!("{:016x}", sum(service.to_string())));
    service
}

/// The name of a port, which must be the same in the slice and the Service.
fn port_name(Port { layer, number }: Port) -> String {
    if layer == Layer::Udp { format!("port-{number}-udp") } else { format!("port-{number}") }
}

/// Whether a Service has the wanted state.
fn is_satisfied(current: &Service, wanted: &Value) -> bool {
    let applied = current.metadata.annotations.as_ref().and_then(|annotations| annotations.get(APPLIED));
    let spec = current.spec.clone().unwrap_or_default();
    let found = serde_json::to_value(&spec).unwrap_or_default();
    let wants = |name: &&str| wanted["spec"].get(name).is_some();
    let asked: BTreeMap<Port, u16> = entries(&wanted["spec"]["ports"])
        .filter_map(|port| {
            let layer = if Layer::Udp.takes(port["protocol"].as_str()) { Layer::Udp } else { Layer::Tcp };
            Some((Port { layer, number: number(&port["port"])? }, number(&port["targetPort"])?))
        })
        .collect();
    applied.map(String::as_str) == wanted["metadata"]["annotations"][APPLIED].as_str()
        && spec.type_.as_deref() == wanted["spec"]["type"].as_str()
        && spec.load_balancer_ip.as_deref() == wanted["spec"]["loadBalancerIP"].as_str()
        && parameters::names().filter(wants).all(|name| found[name] == wanted["spec"][name])
        && held(Some(current)) == asked
}

fn entries(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

fn number(value: &Value) -> Option<u16> {
    value.as_u64().and_then(|number| u16::try_from(number).ok())
}

fn slice_key(service: &ObjectKey, kind: &str) -> ObjectKey {
    let name = format!("{}-{}", service.name, kind.to_ascii_lowercase());
    ObjectKey::new(Kind::EndpointSlice, &*service.namespace, name)
}

fn slice(
    part: &GatewayPart,
    own: &OwnAddress,
    service: &ObjectKey,
    kind: &str,
    endpoints: &[Endpoint],
    ports: &BTreeMap<Port, u16>,
) -> (ObjectKey, EndpointSlice) {
    let key = slice_key(service, kind);
    let mut labels = labels(part, own);
    labels.insert("kubernetes.io/service-name".to_owned(), service.name.to_string());
    labels.insert(SLICE_MANAGER.0.to_owned(), SLICE_MANAGER.1.to_owned());
    let ports: Vec<Value> = ports
        .iter()
        .map(|(port, target)| json!({"name": port_name(*port), "port": target, "protocol": port.layer.protocol()}))
        .collect();
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": &*key.name, "namespace": &*key.namespace, "labels": labels, "ownerReferences": owner(part, own),
        },
        "addressType": kind,
        "endpoints": endpoints,
        "ports": ports,
    });
    (key, serde_json::from_value(slice).unwrap_or_default())
}

/// Whether a slice has the wanted state. Of its labels only the owner counts.
fn is_same(found: &EndpointSlice, wanted: &EndpointSlice) -> bool {
    let label = |slice: &EndpointSlice| {
        slice.metadata.labels.as_ref().and_then(|labels| labels.get("kubernetes.io/service-name").cloned())
    };
    let ports = |slice: &EndpointSlice| -> BTreeSet<_> {
        slice.ports.iter().flatten().map(|port| (port.name.clone(), port.port, port.protocol.clone())).collect()
    };
    found.endpoints.iter().flatten().eq(wanted.endpoints.iter().flatten())
        && ports(found) == ports(wanted)
        && found.address_type == wanted.address_type
        && label(found) == label(wanted)
}

/// The addresses of a Service: those of its load balancer.
fn addresses(service: &Service) -> Vec<StatusAddress> {
    let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let ingresses = balancer.and_then(|balancer| balancer.ingress.as_ref());
    let address = |one: &LoadBalancerIngress| match (&one.ip, &one.hostname) {
        (Some(ip), _) => Some(StatusAddress { kind: "IPAddress", value: ip.clone() }),
        (None, Some(name)) => Some(StatusAddress { kind: "Hostname", value: name.clone() }),
        (None, None) => None,
    };
    ingresses.into_iter().flatten().filter_map(address).take(ADDRESSES).collect()
}

/// The most addresses that a Gateway's status may show.
const ADDRESSES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_services_are_valid_and_differ_as_those_of_gateways_do() {
        let name = |gateway: &str| key(&ObjectKey::new(Kind::Gateway, "n", gateway), "fairway").name.to_string();
        assert_eq!(name("edge"), "edge-fairway");
        let long = "a".repeat(253);
        let others = [name("a.b"), name("a-b"), name("1a"), name(&long), name(&long[..252])];
        for (at, one) in others.iter().enumerate() {
            assert!(one.len() <= NAME && one.starts_with(|c: char| c.is_ascii_lowercase()), "{one}");
            assert!(one.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'), "{one}");
            assert!(!others[..at].contains(one), "{one}");
        }
    }
}
