//! Validation of Ingresses and IngressClasses.

use std::fmt::Arguments;

use k8s_openapi::api::core::v1::TypedLocalObjectReference;
use k8s_openapi::api::networking::v1::{
    HTTPIngressPath, Ingress, IngressBackend, IngressClass, IngressClassParametersReference, IngressTLS,
};

use super::{Names, Refusals, Validate, syntax};

const PATH_TYPES: &[&str] = &["Exact", "ImplementationSpecific", "Prefix"];
/// Sequences that are forbidden in a path of type `Exact` or `Prefix`.
const SEQUENCES: [&str; 5] = ["//", "/./", "/../", "%2f", "%2F"];
/// Endings that are forbidden.
const ENDINGS: [&str; 2] = ["/..", "/."];

impl Validate for Ingress {
    const NAMES: Names = Names::Subdomain;

    fn validate(&self, found: &mut Refusals) {
        let Some(spec) = self
            .spec
            .as_ref()
            .filter(|spec| spec.rules.iter().any(|rules| !rules.is_empty()) || spec.default_backend.is_some())
        else {
            return found.invalid(format_args!("spec"), "", "either `defaultBackend` or `rules` must be specified");
        };
        if let Some(default) = &spec.default_backend {
            backend(default, format_args!("spec.defaultBackend"), found);
        }
        for (at, rule) in spec.rules.iter().flatten().enumerate() {
            if let Some(host) = rule.host.as_deref().filter(|host| !host.is_empty()) {
                found.host(format_args!("spec.rules[{at}].host"), host, syntax::rule_host);
            }
            let Some(http) = &rule.http else { continue };
            if http.paths.is_empty() {
                found.required(format_args!("spec.rules[{at}].http.paths"), "");
            }
            for (index, one) in http.paths.iter().enumerate() {
                path(one, format_args!("spec.rules[{at}].http.paths[{index}]"), found);
            }
        }
        for (at, one) in spec.tls.iter().flatten().enumerate() {
            tls(one, format_args!("spec.tls[{at}]"), found);
        }
        if let Some(class) = &spec.ingress_class_name {
            found.check(format_args!("spec.ingressClassName"), class, syntax::subdomain(class));
        }
    }
}

fn path(path: &HTTPIngressPath, at: Arguments<'_>, found: &mut Refusals) {
    let text = path.path.as_deref().unwrap_or_default();
    let strict = match path.path_type.as_str() {
        "" => return found.required(format_args!("{at}.pathType"), "pathType must be specified"),
        "Exact" | "Prefix" => true,
        "ImplementationSpecific" => false,
        other => {
            found.unsupported(format_args!("{at}.pathType"), other, PATH_TYPES);
            return backend(&path.backend, format_args!("{at}.backend"), found);
        }
    };
    let mut wrong = |message: &str| found.invalid(format_args!("{at}.path"), text, message);
    if !text.starts_with('/') && (strict || !text.is_empty()) {
        wrong("must be an absolute path");
    }
    if strict {
        SEQUENCES
            .iter()
            .filter(|part| text.contains(**part))
            .for_each(|part| wrong(&format!("must not contain '{part}'")));
        ENDINGS.iter().filter(|end| text.ends_with(**end)).for_each(|end| wrong(&format!("cannot end with '{end}'")));
    }
    backend(&path.backend, format_args!("{at}.backend"), found);
}

fn backend(backend: &IngressBackend, at: Arguments<'_>, found: &mut Refusals) {
    let service = match (&backend.service, &backend.resource) {
        (Some(_), Some(_)) => return found.invalid(at, "", "cannot set both resource and service backends"),
        (None, Some(reference)) => return resource(reference, format_args!("{at}.resource"), found),
        (None, None) => return found.invalid(at, "", "resource or service backend is required"),
        (Some(service), None) => service,
    };
    match service.name.as_str() {
        "" => found.required(format_args!("{at}.service.name"), ""),
        name => found.check(format_args!("{at}.service.name"), name, syntax::label(name)),
    }
    let port = service.port.as_ref();
    let name = port.and_then(|port| port.name.as_deref()).filter(|name| !name.is_empty());
    let number = port.and_then(|port| port.number).filter(|number| *number != 0);
    match (name, number) {
        (Some(_), Some(_)) => found.invalid(at, "", "cannot set both port name & port number"),
        (Some(name), None) => found.check(format_args!("{at}.service.port.name"), name, syntax::port_name(name)),
        (None, Some(number)) => {
            found.check(format_args!("{at}.service.port.number"), &number.to_string(), syntax::port_number(number));
        }
        (None, None) => found.required(at, "port name or number is required"),
    }
}

fn resource(reference: &TypedLocalObjectReference, at: Arguments<'_>, found: &mut Refusals) {
    reference_parts(reference.api_group.as_deref(), &reference.kind, &reference.name, at, found);
}

fn reference_parts(group: Option<&str>, kind: &str, name: &str, at: Arguments<'_>, found: &mut Refusals) {
    if let Some(group) = group {
        found.check(format_args!("{at}.apiGroup"), group, syntax::subdomain(group));
    }
    for (field, text) in [("kind", kind), ("name", name)] {
        match text {
            "" => found.required(format_args!("{at}.{field}"), ""),
            text => found.check(format_args!("{at}.{field}"), text, syntax::path_segment(text)),
        }
    }
}

fn tls(tls: &IngressTLS, at: Arguments<'_>, found: &mut Refusals) {
    for (index, host) in tls.hosts.iter().flatten().enumerate() {
        found.host(format_args!("{at}.hosts[{index}]"), host, syntax::host);
    }
    if let Some(secret) = tls.secret_name.as_deref().filter(|name| !name.is_empty()) {
        found.check(format_args!("{at}.secretName"), secret, syntax::subdomain(secret));
    }
}

impl Validate for IngressClass {
    const NAMES: Names = Names::Subdomain;

    fn validate(&self, found: &mut Refusals) {
        let spec = self.spec.as_ref();
        match spec.and_then(|spec| spec.controller.as_deref()).unwrap_or_default() {
            "" => found.required(format_args!("spec.controller"), ""),
            long if long.len() > 250 => found.too_long(format_args!("spec.controller"), 250),
            name => found.check(format_args!("spec.controller"), name, syntax::domain_prefixed_path(name)),
        }
        if let Some(reference) = spec.and_then(|spec| spec.parameters.as_ref()) {
            parameters(reference, found);
        }
    }
}

fn parameters(reference: &IngressClassParametersReference, found: &mut Refusals) {
    let at = "spec.parameters";
    reference_parts(reference.api_group.as_deref(), &reference.kind, &reference.name, format_args!("{at}"), found);
    match (reference.scope.as_deref().unwrap_or("Cluster"), &reference.namespace) {
        ("Namespace", None) => {
            found.required(format_args!("{at}.namespace"), "`parameters.scope` is set to 'Namespace'");
        }
        ("Namespace", Some(namespace)) => {
            found.check(format_args!("{at}.namespace"), namespace, syntax::label(namespace));
        }
        ("Cluster", Some(_)) => {
            found.forbidden(format_args!("{at}.namespace"), "`parameters.scope` is set to 'Cluster'");
        }
        ("Cluster", None) => {}
        (other, _) => found.unsupported(format_args!("{at}.scope"), other, &["Cluster", "Namespace"]),
    }
}
