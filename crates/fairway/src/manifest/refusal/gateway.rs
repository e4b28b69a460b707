//! What objects of the Gateway API are refused for: the rules of the CRDs of version 1.7, standard channel.

use std::collections::BTreeSet;
use std::fmt::Arguments;

use fairway_translate::gateway::api::{
    BackendReference, BackendTLSPolicy, GRPCRoute, GRPCRouteMatch, Gateway, GatewayClass, GatewayListener, HTTPRoute,
    HTTPRouteFilter, HTTPRouteMatch, HTTPRouteRule, HeaderModifier, ListenerSet, ParentReference, PathModifier,
    ReferenceGrant, StreamRule, TCPRoute, TLSRoute, UDPRoute, ValueMatcher,
};
use fairway_translate::gateway::{duration, is_shorter};

use super::{Names, Refusals, Validate, syntax};

const PATH_TYPES: &[&str] = &["Exact", "PathPrefix", "RegularExpression"];
const VALUE_TYPES: &[&str] = &["Exact", "RegularExpression"];
const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
const FROM: &[&str] = &["All", "Selector", "Same"];
const HTTP_FILTERS: &[&str] = &[
    "CORS",
    "ExtensionRef",
    "RequestHeaderModifier",
    "RequestMirror",
    "RequestRedirect",
    "ResponseHeaderModifier",
    "URLRewrite",
];
const GRPC_FILTERS: &[&str] = &["ExtensionRef", "RequestHeaderModifier", "RequestMirror", "ResponseHeaderModifier"];
/// What no path of type `Exact` or `PathPrefix` may contain.
const SEQUENCES: [&str; 6] = ["//", "/./", "/../", "%2f", "%2F", "#"];
/// How none of them may end.
const ENDINGS: [&str; 2] = ["/..", "/."];

impl Validate for GatewayClass {
    const NAMES: Names = Names::Subdomain;

    fn validate(&self, found: &mut Refusals) {
        match &*self.spec.controller_name {
            "" => found.required(format_args!("spec.controllerName"), ""),
            name => found.check(format_args!("spec.controllerName"), name, syntax::domain_prefixed_path(name)),
        }
    }
}

impl Validate for ReferenceGrant {
    const NAMES: Names = Names::Subdomain;

    fn validate(&self, found: &mut Refusals) {
        for (field, number) in [("from", self.spec.from.len()), ("to", self.spec.to.len())] {
            match number {
                0 => found.required(format_args!("spec.{field}"), "at least one"),
                1..=16 => {}
                _ => found.too_many(format_args!("spec.{field}"), number, 16),
            }
        }
        for (at, from) in self.spec.from.iter().enumerate() {
            for (field, value) in [("kind", &from.kind), ("namespace", &from.namespace)] {
                if value.is_empty() {
                    found.required(format_args!("spec.from[{at}].{field}"), "");
                }
            }
        }
        for (at, to) in self.spec.to.iter().enumerate().filter(|(_, to)| to.kind.is_empty()) {
            let _ = to;
            found.required(format_args!("spec.to[{at}].kind"), "");
        }
    }
}

impl Validate for Gateway {
    const NAMES: Names = Names::Subdomain;

    fn validate(&self, found: &mut Refusals) {
        if self.spec.gateway_class_name.is_empty() {
            found.required(format_args!("spec.gatewayClassName"), "");
        }
        match self.spec.listeners.len() {
            0 => found.required(format_args!("spec.listeners"), "at least one listener"),
            1..=64 => {}
            number => found.too_many(format_args!("spec.listeners"), number, 64),
        }
        listeners(&self.spec.listeners, found);
    }
}

impl Validate for BackendTLSPolicy {
    const NAMES: Names = Names::Subdomain;

    fn validate(&self, found: &mut Refusals) {
        match self.spec.target_refs.len() {
            0 => found.required(format_args!("spec.targetRefs"), "at least one"),
            1..=16 => {}
            number => found.too_many(format_args!("spec.targetRefs"), number, 16),
        }
        let validation = &self.spec.validation;
        match &*validation.hostname {
            "" => found.required(format_args!("spec.validation.hostname"), ""),
            name => hostname(format_args!("spec.validation.hostname"), name, found),
        }
        let (refs, known) = (validation.ca_certificate_refs.len(), validation.well_known_ca_certificates.as_deref());
        if (refs > 0) == known.is_some_and(|known| !known.is_empty()) {
            let message = "must have exactly one of caCertificateRefs and wellKnownCACertificates";
            found.invalid(format_args!("spec.validation"), "", message);
        }
        if refs > 16 {
            found.too_many(format_args!("spec.validation.caCertificateRefs"), refs, 16);
        }
        let names = validation.subject_alt_names.len();
        if names > 5 {
            found.too_many(format_args!("spec.validation.subjectAltNames"), names, 5);
        }
    }
}

impl Validate for ListenerSet {
    const NAMES: Names = Names::Subdomain;

    fn validate(&self, found: &mut Refusals) {
        if self.spec.parent_ref.name.is_empty() {
            found.required(format_args!("spec.parentRef.name"), "");
        }
        match self.spec.listeners.len() {
            0 => found.required(format_args!("spec.listeners"), "at least one listener"),
            1..=64 => {}
            number => found.too_many(format_args!("spec.listeners"), number, 64),
        }
        listeners(&self.spec.listeners, found);
    }
}

fn listeners(all: &[GatewayListener], found: &mut Refusals) {
    let (mut names, mut places) = (BTreeSet::new(), BTreeSet::new());
    for (at, one) in all.iter().enumerate() {
        if !names.insert(&one.name) {
            found.duplicate(format_args!("spec.listeners[{at}].name"), &one.name);
        }
        if !places.insert((one.port, &one.protocol, one.hostname.as_deref().unwrap_or_default())) {
            let message = "combination of port, protocol and hostname must be unique for each listener";
            found.invalid(format_args!("spec.listeners[{at}]"), &one.name, message);
        }
        listener(one, format_args!("spec.listeners[{at}]"), found);
    }
}

fn listener(one: &GatewayListener, at: Arguments<'_>, found: &mut Refusals) {
    match &*one.name {
        "" => found.required(format_args!("{at}.name"), ""),
        name => found.check(format_args!("{at}.name"), name, syntax::subdomain(name)),
    }
    found.check(format_args!("{at}.port"), &one.port.to_string(), syntax::port_number(one.port));
    if one.protocol.is_empty() {
        found.required(format_args!("{at}.protocol"), "");
    }
    let plain = matches!(&*one.protocol, "HTTP" | "TCP" | "UDP");
    if let Some(name) = one.hostname.as_deref() {
        hostname(format_args!("{at}.hostname"), name, found);
        if matches!(&*one.protocol, "TCP" | "UDP") && !name.is_empty() {
            found.invalid(format_args!("{at}.hostname"), name, "must not be specified for protocols TCP and UDP");
        }
    }
    match &one.tls {
        Some(_) if plain => {
            found.invalid(format_args!("{at}.tls"), "", "must not be specified for protocols HTTP, TCP and UDP");
        }
        None if one.protocol == "HTTPS" => {
            found.required(format_args!("{at}.tls"), "tls mode must be Terminate for protocol HTTPS");
        }
        Some(tls) => {
            let mode = tls.mode.as_deref().unwrap_or("Terminate");
            match mode {
                "Terminate" if tls.certificate_refs.is_empty() && tls.options.is_empty() => {
                    let message = "certificateRefs or options must be specified when mode is Terminate";
                    found.invalid(format_args!("{at}.tls"), "", message);
                }
                "Terminate" => {}
                "Passthrough" if one.protocol == "HTTPS" => {
                    found.invalid(format_args!("{at}.tls.mode"), mode, "must be Terminate for protocol HTTPS");
                }
                "Passthrough" => {}
                other => found.unsupported(format_args!("{at}.tls.mode"), other, &["Passthrough", "Terminate"]),
            }
        }
        None => {}
    }
    let allowed = one.allowed_routes.as_ref();
    if let Some(from) =
        allowed.and_then(|allowed| allowed.namespaces.as_ref()).and_then(|namespaces| namespaces.from.as_deref())
        && !FROM.contains(&from)
    {
        found.unsupported(format_args!("{at}.allowedRoutes.namespaces.from"), from, FROM);
    }
}

impl Validate for HTTPRoute {
    const NAMES: Names = Names::Subdomain;

    fn validate(&self, found: &mut Refusals) {
        parents(&self.spec.parent_refs, found);
        hostnames(&self.spec.hostnames, found);
        let rules = self.spec.rules.as_deref().unwrap_or_default();
        route_limits(rules.len(), rules.iter().map(|rule| rule.matches.len()), found);
        names(rules.iter().map(|rule| rule.name.as_deref()), found);
        for (at, one) in rules.iter().enumerate() {
            rule(one, format_args!("spec.rules[{at}]"), found);
        }
    }
}

impl Validate for GRPCRoute {
    const NAMES: Names = Names::Subdomain;

    fn validate(&self, found: &mut Refusals) {
        parents(&self.spec.parent_refs, found);
        hostnames(&self.spec.hostnames, found);
        let rules = self.spec.rules.as_deref().unwrap_or_default();
        route_limits(rules.len(), rules.iter().map(|rule| rule.matches.len()), found);
        names(rules.iter().map(|rule| rule.name.as_deref()), found);
        for (at, one) in rules.iter().enumerate() {
            for (index, one) in one.matches.iter().enumerate() {
                grpc_match(one, format_args!("spec.rules[{at}].matches[{index}]"), found);
            }
            filters(&one.filters, GRPC_FILTERS, format_args!("spec.rules[{at}].filters"), found);
            backends(&one.backend_refs, GRPC_FILTERS, format_args!("spec.rules[{at}].backendRefs"), found);
        }
    }
}

impl Validate for TLSRoute {
    const NAMES: Names = Names::Subdomain;

    fn validate(&self, found: &mut Refusals) {
        parents(&self.spec.parent_refs, found);
        hostnames(&self.spec.hostnames, found);
        if self.spec.hostnames.is_empty() {
            found.required(format_args!("spec.hostnames"), "at least one");
        }
        stream_rules(&self.spec.rules, found);
    }
}

impl Validate for TCPRoute {
    const NAMES: Names = Names::Subdomain;

    fn validate(&self, found: &mut Refusals) {
        parents(&self.spec.parent_refs, found);
        stream_rules(&self.spec.rules, found);
    }
}

impl Validate for UDPRoute {
    const NAMES: Names = Names::Subdomain;

    fn validate(&self, found: &mut Refusals) {
        parents(&self.spec.parent_refs, found);
        stream_rules(&self.spec.rules, found);
    }
}

/// The rules of a TLSRoute, TCPRoute or UDPRoute: one, with backends.
fn stream_rules(rules: &[StreamRule], found: &mut Refusals) {
    match rules.len() {
        0 => found.required(format_args!("spec.rules"), "one rule"),
        1 => {}
        number => found.too_many(format_args!("spec.rules"), number, 1),
    }
    names(rules.iter().map(|rule| rule.name.as_deref()), found);
    for (at, rule) in rules.iter().enumerate() {
        if rule.backend_refs.is_empty() {
            found.required(format_args!("spec.rules[{at}].backendRefs"), "at least one");
        }
        backends(&rule.backend_refs, &[], format_args!("spec.rules[{at}].backendRefs"), found);
    }
}

fn route_limits(rules: usize, matches: impl Iterator<Item = usize>, found: &mut Refusals) {
    if rules > 16 {
        found.too_many(format_args!("spec.rules"), rules, 16);
    }
    let mut total = 0;
    for (at, number) in matches.enumerate() {
        total += number;
        if number > 64 {
            found.too_many(format_args!("spec.rules[{at}].matches"), number, 64);
        }
    }
    if total > 128 {
        found.invalid(format_args!("spec.rules"), "", "while 16 rules and 64 matches per rule are allowed, the total number of matches across all rules must be at most 128");
    }
}

fn names<'a>(all: impl Iterator<Item = Option<&'a str>>, found: &mut Refusals) {
    let mut seen = BTreeSet::new();
    for (at, name) in all.enumerate() {
        let Some(name) = name else { continue };
        found.check(format_args!("spec.rules[{at}].name"), name, syntax::subdomain(name));
        if !seen.insert(name) {
            found.duplicate(format_args!("spec.rules[{at}].name"), name);
        }
    }
}

fn parents(all: &[ParentReference], found: &mut Refusals) {
    if all.len() > 32 {
        found.too_many(format_args!("spec.parentRefs"), all.len(), 32);
    }
    let mut seen: Vec<&ParentReference> = Vec::new();
    for (at, one) in all.iter().enumerate() {
        if one.name.is_empty() {
            found.required(format_args!("spec.parentRefs[{at}].name"), "");
        }
        if let Some(port) = one.port {
            found.check(format_args!("spec.parentRefs[{at}].port"), &port.to_string(), syntax::port_number(port));
        }
        let same = |other: &&&ParentReference| {
            (&other.group, &other.kind, &other.namespace, &other.name)
                == (&one.group, &one.kind, &one.namespace, &one.name)
        };
        for other in seen.iter().filter(same) {
            let text = |name: &Option<String>| name.clone().unwrap_or_default();
            let (own, theirs) = (text(&one.section_name), text(&other.section_name));
            if own.is_empty() != theirs.is_empty() || (one.port.is_some() != other.port.is_some()) {
                let message = "sectionName or port must be specified when parentRefs includes 2 or more references to the same parent";
                found.invalid(format_args!("spec.parentRefs[{at}]"), &one.name, message);
            } else if own == theirs && one.port == other.port {
                let message = "sectionName or port must be unique when parentRefs includes 2 or more references to the same parent";
                found.invalid(format_args!("spec.parentRefs[{at}]"), &one.name, message);
            }
        }
        seen.push(one);
    }
}

fn hostnames(all: &[String], found: &mut Refusals) {
    if all.len() > 16 {
        found.too_many(format_args!("spec.hostnames"), all.len(), 16);
    }
    for (at, name) in all.iter().enumerate() {
        hostname(format_args!("spec.hostnames[{at}]"), name, found);
    }
}

fn hostname(field: Arguments<'_>, name: &str, found: &mut Refusals) {
    if !name.is_empty() {
        found.host(field, name, syntax::rule_host);
    }
}

fn rule(rule: &HTTPRouteRule, at: Arguments<'_>, found: &mut Refusals) {
    for (index, one) in rule.matches.iter().enumerate() {
        http_match(one, format_args!("{at}.matches[{index}]"), found);
    }
    filters(&rule.filters, HTTP_FILTERS, format_args!("{at}.filters"), found);
    backends(&rule.backend_refs, HTTP_FILTERS, format_args!("{at}.backendRefs"), found);
    let has = |kind: &str| rule.filters.iter().any(|filter| filter.r#type == kind);
    if has("RequestRedirect") && !rule.backend_refs.is_empty() {
        let message = "RequestRedirect filter must not be used together with backendRefs";
        found.invalid(format_args!("{at}"), "", message);
    }
    if has("RequestRedirect") && has("URLRewrite") {
        let message =
            "May specify either httpRouteFilterRequestRedirect or httpRouteFilterRequestRewrite, but not both";
        found.invalid(format_args!("{at}.filters"), "", message);
    }
    let replaces = |modifier: Option<&PathModifier>| modifier.is_some_and(|it| it.r#type == "ReplacePrefixMatch");
    let prefix = rule.filters.iter().any(|filter| {
        replaces(filter.request_redirect.as_ref().and_then(|redirect| redirect.path.as_ref()))
            || replaces(filter.url_rewrite.as_ref().and_then(|rewrite| rewrite.path.as_ref()))
    });
    let by_prefix = |one: &HTTPRouteMatch| {
        one.path.as_ref().is_none_or(|path| path.r#type.as_deref().unwrap_or("PathPrefix") == "PathPrefix")
    };
    if prefix && (rule.matches.len() > 1 || !rule.matches.iter().all(by_prefix)) {
        let message =
            "When using a filter with path.replacePrefixMatch, exactly one PathPrefix match must be specified";
        found.invalid(format_args!("{at}"), "", message);
    }
    if let Some(timeouts) = &rule.timeouts {
        for (field, time) in [("request", &timeouts.request), ("backendRequest", &timeouts.backend_request)] {
            if let Some(text) = time.as_deref().filter(|text| duration(text).is_none()) {
                let message = "expected up to four numbers with h, m, s or ms, such as 1m30s";
                found.invalid(format_args!("{at}.timeouts.{field}"), text, message);
            }
        }
        if let (Some(request), Some(backend)) = (&timeouts.request, &timeouts.backend_request)
            && is_shorter(request, backend)
        {
            let message = "backendRequest timeout cannot be longer than request timeout";
            found.invalid(format_args!("{at}.timeouts.backendRequest"), backend, message);
        }
    }
    for (index, code) in rule.retry.iter().flat_map(|retry| &retry.codes).enumerate() {
        if !(400..=599).contains(code) {
            found.invalid(format_args!("{at}.retry.codes[{index}]"), &code.to_string(), "must be 400 to 599");
        }
    }
}

fn http_match(one: &HTTPRouteMatch, at: Arguments<'_>, found: &mut Refusals) {
    if let Some(path) = &one.path {
        let kind = path.r#type.as_deref().unwrap_or("PathPrefix");
        if !PATH_TYPES.contains(&kind) {
            found.unsupported(format_args!("{at}.path.type"), kind, PATH_TYPES);
        }
        let text = path.value.as_deref().unwrap_or("/");
        if text.len() > 1024 {
            found.too_long(format_args!("{at}.path.value"), 1024);
        }
        if matches!(kind, "Exact" | "PathPrefix") {
            let mut wrong = |message: &str| found.invalid(format_args!("{at}.path.value"), text, message);
            if !text.starts_with('/') {
                wrong("value must be an absolute path and start with '/' when type one of ['Exact', 'PathPrefix']");
            }
            for part in SEQUENCES.iter().filter(|part| text.contains(**part)) {
                wrong(&format!("must not contain '{part}' when type one of ['Exact', 'PathPrefix']"));
            }
            for part in ENDINGS.iter().filter(|part| text.ends_with(**part)) {
                wrong(&format!("must not end with '{part}' when type one of ['Exact', 'PathPrefix']"));
            }
        }
    }
    values(&one.headers, format_args!("{at}.headers"), found);
    values(&one.query_params, format_args!("{at}.queryParams"), found);
    if let Some(method) = one.method.as_deref().filter(|method| !METHODS.contains(method)) {
        found.unsupported(format_args!("{at}.method"), method, METHODS);
    }
}

fn grpc_match(one: &GRPCRouteMatch, at: Arguments<'_>, found: &mut Refusals) {
    values(&one.headers, format_args!("{at}.headers"), found);
    let Some(method) = &one.method else { return };
    let kind = method.r#type.as_deref().unwrap_or("Exact");
    if !VALUE_TYPES.contains(&kind) {
        found.unsupported(format_args!("{at}.method.type"), kind, VALUE_TYPES);
    }
    let there = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
    if !there(&method.service) && !there(&method.method) {
        found.invalid(format_args!("{at}.method"), "", "One or both of 'service' or 'method' must be specified");
    }
    for (field, text) in [("service", &method.service), ("method", &method.method)] {
        let Some(text) = text.as_deref().filter(|text| kind == "Exact" && !text.is_empty()) else { continue };
        let dots = field == "service";
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || (dots && b == b'.')) {
            let message = "must only contain valid characters: letters, digits and _, and dots in a service";
            found.invalid(format_args!("{at}.method.{field}"), text, message);
        }
    }
}

fn values(all: &[ValueMatcher], at: Arguments<'_>, found: &mut Refusals) {
    if all.len() > 16 {
        found.too_many(at, all.len(), 16);
    }
    for (index, one) in all.iter().enumerate() {
        if one.name.is_empty() {
            found.required(format_args!("{at}[{index}].name"), "");
        }
        if let Some(kind) = one.r#type.as_deref().filter(|kind| !VALUE_TYPES.contains(kind)) {
            found.unsupported(format_args!("{at}[{index}].type"), kind, VALUE_TYPES);
        }
        if one.value.is_empty() {
            found.required(format_args!("{at}[{index}].value"), "");
        }
    }
}

fn filters(all: &[HTTPRouteFilter], known: &[&str], at: Arguments<'_>, found: &mut Refusals) {
    if all.len() > 16 {
        found.too_many(at, all.len(), 16);
    }
    let mut seen = BTreeSet::new();
    for (index, one) in all.iter().enumerate() {
        let kind = &*one.r#type;
        if !known.contains(&kind) {
            found.unsupported(format_args!("{at}[{index}].type"), kind, known);
            continue;
        }
        if !seen.insert(kind) && !matches!(kind, "ExtensionRef" | "RequestMirror") {
            found.invalid(at, kind, &format!("{kind} filter cannot be repeated"));
        }
        for (field, owner, there) in [
            ("requestHeaderModifier", "RequestHeaderModifier", one.request_header_modifier.is_some()),
            ("responseHeaderModifier", "ResponseHeaderModifier", one.response_header_modifier.is_some()),
            ("requestMirror", "RequestMirror", one.request_mirror.is_some()),
            ("requestRedirect", "RequestRedirect", one.request_redirect.is_some()),
            ("urlRewrite", "URLRewrite", one.url_rewrite.is_some()),
            ("cors", "CORS", one.cors.is_some()),
            ("extensionRef", "ExtensionRef", one.extension_ref.is_some()),
        ] {
            match (owner == kind, there) {
                (true, false) => found.required(
                    format_args!("{at}[{index}].{field}"),
                    &format!("filter.{field} must be specified for {kind} filter.type"),
                ),
                (false, true) => found.invalid(
                    format_args!("{at}[{index}].{field}"),
                    "",
                    &format!("filter.{field} must be nil if the filter.type is not {owner}"),
                ),
                _ => {}
            }
        }
        for (field, edits) in [
            ("requestHeaderModifier", &one.request_header_modifier),
            ("responseHeaderModifier", &one.response_header_modifier),
        ] {
            if let Some(edits) = edits {
                modifier(edits, format_args!("{at}[{index}].{field}"), found);
            }
        }
        if let Some(redirect) = &one.request_redirect {
            let code = redirect.status_code.unwrap_or(302);
            if ![301, 302, 303, 307, 308].contains(&code) {
                let supported = &["301", "302", "303", "307", "308"];
                found.unsupported(
                    format_args!("{at}[{index}].requestRedirect.statusCode"),
                    &code.to_string(),
                    supported,
                );
            }
            if let Some(scheme) = redirect.scheme.as_deref().filter(|scheme| !["http", "https"].contains(scheme)) {
                found.unsupported(format_args!("{at}[{index}].requestRedirect.scheme"), scheme, &["http", "https"]);
            }
        }
    }
}

fn modifier(edits: &HeaderModifier, at: Arguments<'_>, found: &mut Refusals) {
    for (field, all) in [("set", &edits.set), ("add", &edits.add)] {
        let mut seen = BTreeSet::new();
        for (index, one) in all.iter().enumerate() {
            if one.name.is_empty() {
                found.required(format_args!("{at}.{field}[{index}].name"), "");
            }
            if !seen.insert(&one.name) {
                found.duplicate(format_args!("{at}.{field}[{index}].name"), &one.name);
            }
            if one.value.is_empty() {
                found.required(format_args!("{at}.{field}[{index}].value"), "");
            }
        }
    }
}

fn backends(all: &[BackendReference], known: &[&str], at: Arguments<'_>, found: &mut Refusals) {
    if all.len() > 16 {
        found.too_many(at, all.len(), 16);
    }
    for (index, one) in all.iter().enumerate() {
        if one.name.is_empty() {
            found.required(format_args!("{at}[{index}].name"), "");
        }
        let is_service = one.group.as_deref().unwrap_or_default().is_empty()
            && one.kind.as_deref().unwrap_or("Service") == "Service";
        match one.port {
            None if is_service => {
                found.required(format_args!("{at}[{index}].port"), "Must have port for Service reference");
            }
            Some(port) => {
                found.check(format_args!("{at}[{index}].port"), &port.to_string(), syntax::port_number(port));
            }
            None => {}
        }
        if let Some(weight) = one.weight.filter(|weight| !(0..=1_000_000).contains(weight)) {
            found.invalid(format_args!("{at}[{index}].weight"), &weight.to_string(), "must be 0 to 1000000");
        }
        filters(&one.filters, known, format_args!("{at}[{index}].filters"), found);
    }
}
