//! The endpoints of a backend.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use fairway_model::{Endpoint, EndpointState, Endpoints};
use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::api::discovery::v1::{Endpoint as SliceEndpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{BackendKey, BackendPort, Layer, Problem, Sources, external, port_missing, port_number};
use crate::diagnostic::{Reason, Severity};
use crate::options::Options;

/// The endpoints of a backend, in a stable order.
pub(super) fn find(
    key: &BackendKey,
    sources: &Sources<'_>,
    port: Option<&ServicePort>,
    by_cluster_address: bool,
    options: &Options,
) -> Result<Endpoints, Problem> {
    let Some(service) = sources.service else {
        let message = format!("there is no Service {}/{}", key.namespace, key.target);
        return Err(Problem::new(Severity::Warning, Reason::ServiceNotFound, message));
    };
    if super::is_external(service) {
        return external::find(key, service, port, options);
    }
    if by_cluster_address && let Some(address) = cluster_address(service) {
        // ingress-nginx uses the number in the Ingress unchanged; a target port that leads to the Service's own port is better.
        let number = match (&key.port, port) {
            (_, Some(port)) => port_number(port.port),
            (BackendPort::Number(number), None) => port_number(*number),
            _ => None,
        };
        return match number {
            Some(number) => Ok(super::one(SocketAddr::new(address, number))),
            None => Err(port_missing(key, service)),
        };
    }
    let Some(port) = port else { return Err(port_missing(key, service)) };
    let endpoints = from_slices(&sources.slices, port, key.layer, zone(service, options));
    // Manifest files have no endpoints. In a cluster, pods that aren't ready are listed too.
    if endpoints.is_empty() && options.development.is_none() {
        let message = format!(
            "Service {}/{} has no endpoints: it is scaled to zero, or its selector matches no pod",
            key.namespace, key.target
        );
        return Err(Problem::new(Severity::Warning, Reason::NoEndpoints, message));
    }
    Ok(Endpoints::Addresses(endpoints))
}

/// The cluster address, which headless Services lack.
fn cluster_address(service: &Service) -> Option<IpAddr> {
    service.spec.as_ref()?.cluster_ip.as_deref()?.parse().ok()
}

/// The zone to choose endpoints for, if the Service asks for it.
fn zone<'o>(service: &Service, options: &'o Options) -> Option<&'o str> {
    let zone = options.zone.as_deref()?;
    let mode = service.metadata.annotations.as_ref().and_then(|all| all.get("service.kubernetes.io/topology-mode"));
    let distribution = service.spec.as_ref().and_then(|spec| spec.traffic_distribution.as_deref());
    (mode.is_some_and(|mode| mode.eq_ignore_ascii_case("auto")) || distribution.is_some()).then_some(zone)
}

/// Whether an endpoint is meant for a zone; `None` if its hints name none.
fn is_for(endpoint: &SliceEndpoint, zone: &str) -> Option<bool> {
    let zones = endpoint.hints.as_ref()?.for_zones.as_ref().filter(|zones| !zones.is_empty())?;
    Some(zones.iter().any(|hint| hint.name == zone))
}

pub(super) fn from_slices(
    slices: &[&EndpointSlice],
    port: &ServicePort,
    layer: Layer,
    zone: Option<&str>,
) -> Vec<Endpoint> {
    // An address may be in several slices; if it is ready in one of them, it is ready.
    let mut found: BTreeMap<SocketAddr, EndpointState> = BTreeMap::new();
    // The ready endpoints for the zone. If one has no hint, the hints are incomplete and don't count (as in kube-proxy).
    let mut near = zone.map(|zone| (zone, BTreeSet::new()));
    for slice in slices {
        let Some(number) = slice_port(slice, port, layer) else { continue };
        for endpoint in slice.endpoints.iter().flatten() {
            let Some(state) = state(endpoint) else { continue };
            let addresses = || endpoint.addresses.iter().filter_map(|text| address(&slice.address_type, text));
            if state == EndpointState::Ready
                && let Some((zone, chosen)) = &mut near
            {
                match is_for(endpoint, zone) {
                    Some(true) => chosen.extend(addresses().map(|address| SocketAddr::new(address, number))),
                    Some(false) => {}
                    None => near = None,
                }
            }
            for address in addresses() {
                let known = found.entry(SocketAddr::new(address, number)).or_insert(state);
                if state == EndpointState::Ready {
                    *known = state;
                }
            }
        }
    }
    if let Some((_, chosen)) = near.filter(|(_, chosen)| !chosen.is_empty()) {
        // Draining endpoints keep their sessions.
        found.retain(|address, state| *state == EndpointState::Draining || chosen.contains(address));
    }
    // Pods that are ending but still serve are better than none, as in kube-proxy (KEP-1669): draining a node may end all of a backend's
    // pods at once.
    if found.values().all(|state| *state == EndpointState::Draining) {
        found.values_mut().for_each(|state| *state = EndpointState::Ready);
    }
    found.into_iter().map(|(address, state)| Endpoint { state, ..Endpoint::ready(address) }).collect()
}

/// The number of a Service port in one slice: pods may differ if the target port has a name.
fn slice_port(slice: &EndpointSlice, port: &ServicePort, layer: Layer) -> Option<u16> {
    let ports = slice.ports.as_deref().unwrap_or_default();
    let right: Vec<(&EndpointPort, u16)> = ports
        .iter()
        .filter(|port| layer.takes(port.protocol.as_deref()))
        .filter_map(|port| Some((port, port_number(port.port?)?)))
        .collect();
    let wanted = port.name.as_deref().unwrap_or_default();
    let name = |port: &EndpointPort| port.name.clone().unwrap_or_default();
    if let Some((_, number)) = right.iter().find(|(port, _)| name(port) == wanted) {
        return Some(*number);
    }
    // Slices made by hand often omit names.
    let unnamed: Vec<u16> = right
        .iter()
        .filter(|(port, _)| wanted.is_empty() || name(port).is_empty())
        .map(|(_, number)| *number)
        .collect();
    let target = match port.target_port {
        Some(IntOrString::Int(target)) => port_number(target),
        _ => port_number(port.port),
    };
    match unnamed[..] {
        [only] => Some(only),
        _ => target.filter(|target| unnamed.contains(target)),
    }
}

/// The traffic that an endpoint still accepts; `None` for none. An absent `ready` means ready.
fn state(endpoint: &SliceEndpoint) -> Option<EndpointState> {
    let Some(conditions) = &endpoint.conditions else { return Some(EndpointState::Ready) };
    if conditions.ready.unwrap_or(true) {
        return Some(EndpointState::Ready);
    }
    let draining = conditions.terminating == Some(true) && conditions.serving == Some(true);
    draining.then_some(EndpointState::Draining)
}

/// An address of a slice. FQDN slices are deprecated and were never served.
fn address(address_type: &str, text: &str) -> Option<IpAddr> {
    match address_type {
        "IPv4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        "IPv6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        _ => None,
    }
}
