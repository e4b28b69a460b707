//! Validation of Services and EndpointSlices.

use std::collections::HashSet;
use std::fmt::Arguments;

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::{Names, Refusals, Validate, labels, syntax};

const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const ADDRESS_TYPES: &[&str] = &["FQDN", "IPv4", "IPv6"];
/// Most endpoints of an EndpointSlice, and most addresses of an endpoint.
const ENDPOINTS: usize = 1000;
const ADDRESSES: usize = 100;

impl Validate for Service {
    /// Kubernetes before 1.36 requires a letter at the beginning.
    const NAMES: Names = Names::Label;

    fn validate(&self, found: &mut Refusals) {
        let none = ServiceSpec::default();
        let spec = self.spec.as_ref().unwrap_or(&none);
        let kind = spec.type_.as_deref().filter(|kind| !kind.is_empty()).unwrap_or("ClusterIP");
        let ports = spec.ports.as_deref().unwrap_or_default();
        let address = spec.cluster_ip.as_deref().unwrap_or_default();
        if !TYPES.contains(&kind) {
            found.unsupported(format_args!("spec.type"), kind, TYPES);
        }
        if ports.is_empty() && address != "None" && kind != "ExternalName" {
            found.required(format_args!("spec.ports"), "");
        }
        match kind {
            "LoadBalancer" | "NodePort" if address == "None" => {
                let message = format!("may not be set to 'None' for {kind} services");
                found.invalid(format_args!("spec.clusterIPs[0]"), address, &message);
            }
            "ExternalName" => external_name(spec, found),
            _ => {}
        }
        service_ports(ports, kind, found);
        if let Some(selector) = &spec.selector {
            labels(selector, format_args!("spec.selector"), found);
        }
        match spec.session_affinity.as_deref().unwrap_or_default() {
            "" | "None" | "ClientIP" => {}
            other => found.unsupported(format_args!("spec.sessionAffinity"), other, &["ClientIP", "None"]),
        }
    }
}

fn external_name(spec: &ServiceSpec, found: &mut Refusals) {
    if spec.cluster_ip.as_ref().is_some_and(|address| !address.is_empty()) {
        found.forbidden(format_args!("spec.clusterIPs"), "may not be set for ExternalName services");
    }
    let name = spec.external_name.as_deref().unwrap_or_default();
    match name.strip_suffix('.').unwrap_or(name) {
        "" => found.required(format_args!("spec.externalName"), ""),
        name => found.check(format_args!("spec.externalName"), name, syntax::subdomain(name)),
    }
}

fn service_ports(ports: &[ServicePort], kind: &str, found: &mut Refusals) {
    let (mut names, mut numbers) = (HashSet::new(), HashSet::new());
    for (at, port) in ports.iter().enumerate() {
        let field = format_args!("spec.ports[{at}]");
        match port.name.as_deref().unwrap_or_default() {
            "" if ports.len() > 1 => found.required(format_args!("{field}.name"), ""),
            "" => {}
            name => {
                found.check(format_args!("{field}.name"), name, syntax::label(name));
                if !names.insert(name) {
                    found.duplicate(format_args!("{field}.name"), name);
                }
            }
        }
        service_port(port, field, found);
        if kind == "ClusterIP" && port.node_port.is_some_and(|port| port != 0) {
            found.forbidden(format_args!("{field}.nodePort"), "may not be used when `type` is 'ClusterIP'");
        }
        if !numbers.insert((protocol(port.protocol.as_deref()), port.port)) {
            found.duplicate(field, &format!("{} {}", protocol(port.protocol.as_deref()), port.port));
        }
    }
}

fn service_port(port: &ServicePort, field: Arguments<'_>, found: &mut Refusals) {
    found.check(format_args!("{field}.port"), &port.port.to_string(), syntax::port_number(port.port));
    if !PROTOCOLS.contains(&protocol(port.protocol.as_deref())) {
        found.unsupported(format_args!("{field}.protocol"), protocol(port.protocol.as_deref()), PROTOCOLS);
    }
    // Zero or a missing value means the port itself.
    match &port.target_port {
        Some(IntOrString::Int(number)) if *number != 0 => {
            found.check(format_args!("{field}.targetPort"), &number.to_string(), syntax::port_number(*number));
        }
        Some(IntOrString::String(name)) if !name.is_empty() => {
            found.check(format_args!("{field}.targetPort"), name, syntax::port_name(name));
        }
        _ => {}
    }
    if let Some(name) = &port.app_protocol {
        found.check(format_args!("{field}.appProtocol"), name, syntax::qualified_name(name));
    }
}

fn protocol(written: Option<&str>) -> &str {
    written.filter(|protocol| !protocol.is_empty()).unwrap_or("TCP")
}

impl Validate for EndpointSlice {
    const NAMES: Names = Names::Subdomain;

    /// Addresses are left to the translation: `fairway dev` accepts those of this machine, which the API server refuses.
    fn validate(&self, found: &mut Refusals) {
        match self.address_type.as_str() {
            "" => found.required(format_args!("addressType"), ""),
            kind if ADDRESS_TYPES.contains(&kind) => {}
            other => found.unsupported(format_args!("addressType"), other, ADDRESS_TYPES),
        }
        let endpoints = self.endpoints.as_deref().unwrap_or_default();
        if endpoints.len() > ENDPOINTS {
            found.too_many(format_args!("endpoints"), endpoints.len(), ENDPOINTS);
        }
        for (at, endpoint) in endpoints.iter().enumerate().take(ENDPOINTS) {
            let field = format_args!("endpoints[{at}].addresses");
            match endpoint.addresses.len() {
                0 => found.required(field, "must contain at least 1 address"),
                number if number > ADDRESSES => found.too_many(field, number, ADDRESSES),
                _ => {}
            }
        }
        let mut names = HashSet::new();
        for (at, port) in self.ports.iter().flatten().enumerate() {
            let name = port.name.as_deref().unwrap_or_default();
            if !name.is_empty() {
                found.check(format_args!("ports[{at}].name"), name, syntax::label(name));
            }
            if !names.insert(name) {
                found.duplicate(format_args!("ports[{at}].name"), name);
            }
            if !PROTOCOLS.contains(&protocol(port.protocol.as_deref())) {
                found.unsupported(format_args!("ports[{at}].protocol"), protocol(port.protocol.as_deref()), PROTOCOLS);
            }
        }
    }
}
