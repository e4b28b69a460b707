//! XTelemetryPolicies (experimental channel): how the requests to a Gateway are traced, and which receiver gets their spans.
//!
//! A policy is carried out in full or not at all, and its status says which; whatever is wrong with it, requests are served as without it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fairway_model::{
    ConfiguredName, ForwardPolicy, Origin, ParentRule, Resource, ResourceName, Sampler, SecretText, SpanAttribute,
    SpanReceiver, SpanValue, StandardAttribute, Telemetry, TelemetryName, TraceRule,
};

use super::api::{
    Fraction, GROUP, ParentBasedSampling, SpanAttributeSpec, TracingProvider, TracingSpec, XTelemetryPolicy,
};
use super::backend_tls::{ANCESTORS, BackendPolicies, ancestor, note, remove};
use super::host::RouteAge;
use super::rule::{BuiltRule, RuleReader, ValidBackend};
use super::status::{AncestorStatus, Condition, FieldFault, Shortcoming};
use super::xbackend::XBackends;
use crate::diagnostic::{Diagnostic, Reason, Severity};
use crate::engine::dirty::{Dirty, Output};
use crate::engine::shared::Shared;
use crate::limit::{TELEMETRY_ATTRIBUTES, TELEMETRY_FIELDS};
use crate::objects::{Kind, ObjectKey, Objects};
use crate::options::Options;
use crate::resource::backend::{BackendKey, Layer, find_port};
use crate::resource::{Backends, Owner};

/// Fields of requests that the exporter writes itself, or that belong to the connection.
const RESERVED: [&str; 11] = [
    "connection",
    "content-length",
    "content-type",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "user-agent",
];

/// The port of OTLP over HTTP; gRPC is assumed on others unless the Service names their protocol.
const HTTP_PORT: i32 = 4318;

/// All policies, by the Gateways that they are for.
#[derive(Debug, Default)]
pub(super) struct TelemetryPolicies {
    policies: BTreeMap<ObjectKey, TelemetryPart>,
    /// The policies of each Gateway, oldest first.
    targets: BTreeMap<ObjectKey, BTreeSet<RouteAge>>,
    /// The policies that depend on a Service.
    services: BTreeMap<ObjectKey, BTreeSet<ObjectKey>>,
    /// How the routes of each Gateway with a policy about it are traced.
    rules: BTreeMap<ObjectKey, Arc<TraceRule>>,
    /// The published telemetry of policies, each with its backend.
    published: BTreeMap<ObjectKey, Published>,
}

/// The published telemetry of a policy.
#[derive(Debug)]
struct Published {
    telemetry: Arc<Telemetry>,
    backend: Option<(BackendKey, Arc<Owner>)>,
}

/// One policy.
#[derive(Debug)]
struct TelemetryPart {
    owner: Arc<Owner>,
    turn: RouteAge,
    /// Each with its place in the list.
    targets: Vec<(usize, ObjectKey)>,
    /// Targets of other kinds.
    others: Vec<(usize, String)>,
    /// Its telemetry, if it traces requests.
    telemetry: Option<Arc<Telemetry>>,
    backend: Option<BackendKey>,
    /// The Services that its result depends on.
    services: Vec<ObjectKey>,
    /// Why it is not accepted, judging by the policy alone.
    fault: Option<FieldFault>,
    /// Why its receiver can't be found.
    unresolved: Option<Shortcoming>,
}

/// The inputs for reading a policy.
pub(super) struct TelemetryReader<'a> {
    pub(super) objects: &'a Objects,
    pub(super) options: &'a Options,
    /// TLS to Services, by policy.
    pub(super) tls: &'a BackendPolicies,
    pub(super) xbackends: &'a XBackends,
    pub(super) policies: &'a mut Shared<ForwardPolicy>,
}

/// The tracing of a policy, built.
struct Traced {
    telemetry: Telemetry,
    backend: Option<BackendKey>,
    services: Vec<ObjectKey>,
    unresolved: Option<Shortcoming>,
}

impl TelemetryPolicies {
    /// How the routes of a Gateway are traced, if a policy says so.
    pub(super) fn rule(&self, gateway: &ObjectKey) -> Option<&Arc<TraceRule>> {
        self.rules.get(gateway)
    }

    /// The policies that depend on a Service.
    pub(super) fn for_service(&self, service: &ObjectKey) -> impl Iterator<Item = &ObjectKey> {
        self.services.get(service).into_iter().flatten()
    }

    /// The backend of a policy that is applied, with the field that names it.
    pub(super) fn backend(&self, key: &ObjectKey) -> Option<(BackendKey, String)> {
        let (backend, _) = self.published.get(key)?.backend.as_ref()?;
        Some((backend.clone(), "spec.tracing.provider.backendRef".to_owned()))
    }

    /// The Gateways whose spans a Service receives.
    pub(super) fn gateways_of<'a>(&'a self, service: &'a ObjectKey) -> impl Iterator<Item = &'a ObjectKey> {
        let receives = |gateway: &&ObjectKey| {
            let key = self.winner(gateway).map(|winner| winner.turn.key());
            let backend = key.and_then(|key| self.published.get(key)?.backend.as_ref());
            backend.is_some_and(|(backend, _)| backend.service() == *service)
        };
        self.rules.keys().filter(move |gateway| receives(gateway))
    }

    /// The Services that policies name.
    pub(super) fn services(&self) -> impl Iterator<Item = &ObjectKey> {
        self.services.keys()
    }

    fn for_gateway(&self, gateway: &ObjectKey) -> impl Iterator<Item = &ObjectKey> {
        self.targets.get(gateway).into_iter().flatten().map(RouteAge::key)
    }

    fn winner(&self, gateway: &ObjectKey) -> Option<&TelemetryPart> {
        self.for_gateway(gateway).find_map(|key| self.policies.get(key))
    }

    /// Reads a policy again, and marks the policies whose status depends on it.
    pub(super) fn read(
        &mut self,
        key: &ObjectKey,
        found: Option<(Arc<Owner>, RouteAge, &XTelemetryPolicy)>,
        reader: TelemetryReader<'_>,
        dirty: &mut Dirty,
    ) {
        let (mut gateways, tls) = (BTreeSet::new(), reader.tls);
        if let Some(before) = self.policies.remove(key) {
            for service in &before.services {
                dirty.gateway_statuses.extend(tls.for_service(service).cloned());
                remove(&mut self.services, service, key);
            }
            for (_, gateway) in before.targets {
                remove(&mut self.targets, &gateway, &before.turn);
                gateways.insert(gateway);
            }
        }
        if let Some((owner, turn, policy)) = found {
            let part = part(key, owner, turn, policy, reader);
            for service in &part.services {
                self.services.entry(service.clone()).or_default().insert(key.clone());
            }
            for (_, gateway) in &part.targets {
                self.targets.entry(gateway.clone()).or_default().insert(part.turn.clone());
                gateways.insert(gateway.clone());
            }
            self.policies.insert(key.clone(), part);
        }
        // Another policy for the same Gateway may apply now.
        dirty.gateway_statuses.extend(gateways.iter().flat_map(|gateway| self.for_gateway(gateway)).cloned());
        dirty.gateway_statuses.insert(key.clone());
        dirty.reports.insert(key.clone());
    }

    /// Decides which policy applies to each Gateway of ours, and publishes its telemetry. Returns the Gateways whose tracing has changed.
    pub(super) fn settle(
        &mut self,
        is_ours: impl Fn(&ObjectKey) -> bool,
        backends: &mut Backends,
        dirty: &mut Dirty,
        out: &mut Output,
    ) -> BTreeSet<ObjectKey> {
        let (mut rules, mut published) = (BTreeMap::new(), BTreeMap::new());
        for gateway in self.targets.keys().filter(|gateway| is_ours(gateway)) {
            let Some(part) = self.winner(gateway) else { continue };
            let Some(telemetry) = &part.telemetry else { continue };
            let rule = TraceRule { trusts: true, operation: None, telemetry: Some(telemetry.name.clone()) };
            rules.insert(gateway.clone(), Arc::new(rule));
            published.entry(part.turn.key().clone()).or_insert_with(|| Published {
                telemetry: telemetry.clone(),
                backend: part.backend.clone().map(|backend| (backend, part.owner.clone())),
            });
        }
        let before = std::mem::replace(&mut self.published, published);
        for (key, now) in &self.published {
            let known = before.get(key);
            if known.is_none_or(|known| known.telemetry != now.telemetry) {
                out.upserts.push(Resource::Telemetry(now.telemetry.clone()));
            }
            let backend = known.and_then(|known| known.backend.as_ref());
            if backend.map(same) != now.backend.as_ref().map(same)
                && let Some((backend, owner)) = &now.backend
            {
                backends.attach(backend, owner, dirty);
                dirty.reports.insert(key.clone());
            }
        }
        for (key, known) in &before {
            let now = self.published.get(key);
            if now.is_none() {
                out.removals.push(ResourceName::Telemetry(known.telemetry.name.clone()));
            }
            let backend = now.and_then(|now| now.backend.as_ref());
            if backend.map(same) != known.backend.as_ref().map(same)
                && let Some((backend, owner)) = &known.backend
            {
                backends.detach(backend, &owner.age, dirty);
                dirty.reports.insert(key.clone());
            }
        }
        let before = std::mem::replace(&mut self.rules, rules);
        let both = before.keys().chain(self.rules.keys());
        both.filter(|gateway| before.get(*gateway) != self.rules.get(*gateway)).cloned().collect()
    }

    /// The status of a policy at the Gateways that it is for, and the findings about it.
    pub(super) fn status(
        &self,
        key: &ObjectKey,
        objects: &Objects,
        is_ours: impl Fn(&ObjectKey) -> bool,
    ) -> Option<(Vec<AncestorStatus>, Vec<Diagnostic>)> {
        let part = self.policies.get(key)?;
        let ours = |(_, gateway): &&(usize, ObjectKey)| is_ours(gateway);
        let (origin, mut findings) = (key.origin(), Vec::new());
        let mut complain = |severity, field: String, value: &str, message: String| {
            let reason = Reason::TelemetryPolicyRefused;
            findings.push(Diagnostic::new(severity, reason, &origin, field, value, message));
        };
        let own = part.fault.as_ref().map(FieldFault::shortcoming);
        // A policy for no Gateway of ours is not judged.
        let is_asked = part.targets.iter().any(|one| ours(&one));
        if let Some(FieldFault { field, why }) = part.fault.as_ref().filter(|_| is_asked) {
            let message = format!("{}; the policy is not applied", why.message);
            complain(Severity::Error, field.clone(), "", message);
        }
        if let Some(why) = part.unresolved.as_ref().filter(|_| is_asked) {
            let message = format!("{}; no spans are sent", why.message);
            complain(Severity::Error, "spec.tracing.provider.backendRef".to_owned(), "", message);
        }
        for (at, what) in part.others.iter().filter(|_| is_asked || part.targets.is_empty()) {
            let message = "expected a Gateway; the policy is not applied there".to_owned();
            complain(Severity::Error, format!("spec.targetRefs[{at}]"), what, message);
        }
        let mut found: BTreeMap<ObjectKey, Option<Shortcoming>> = BTreeMap::new();
        for (at, gateway) in &part.targets {
            let field = format!("spec.targetRefs[{at}]");
            if objects.get(gateway).is_none() {
                let message = format!("there is no {gateway}; the policy is not applied there");
                complain(Severity::Warning, field, &gateway.name, message);
            }
            if !is_ours(gateway) {
                continue;
            }
            let winner = self.winner(gateway).filter(|winner| winner.turn != part.turn);
            let beaten = winner.map(|winner| Shortcoming::conflict_with(winner.turn.key()));
            if let Some(fault) = &beaten {
                let message = format!("{}; the policy is not applied there", fault.message);
                complain(Severity::Error, format!("spec.targetRefs[{at}]"), &gateway.name, message);
            }
            let fault = own.clone().or(beaten);
            note(&mut found, BTreeSet::from([gateway.clone()]), fault.as_ref());
        }
        let ancestors = found.into_iter().take(ANCESTORS).map(|(gateway, fault)| AncestorStatus {
            ancestor_ref: ancestor(&gateway),
            conditions: vec![
                Condition::of("Accepted", fault.as_ref()),
                Condition::of("ResolvedRefs", part.unresolved.as_ref()),
            ],
        });
        Some((ancestors.collect(), findings))
    }
}

/// The properties by which two backends of a policy are the same.
fn same((backend, owner): &(BackendKey, Arc<Owner>)) -> (&BackendKey, &crate::resource::Age) {
    (backend, &owner.age)
}

fn part(
    key: &ObjectKey,
    owner: Arc<Owner>,
    turn: RouteAge,
    policy: &XTelemetryPolicy,
    mut reader: TelemetryReader<'_>,
) -> TelemetryPart {
    let (mut targets, mut others) = (Vec::new(), Vec::new());
    for (at, one) in policy.spec.target_refs.iter().enumerate() {
        if one.group == GROUP && one.kind == Kind::Gateway.as_str() {
            targets.push((at, ObjectKey::new(Kind::Gateway, &*key.namespace, &*one.name)));
        } else {
            others.push((at, format!("{} {}", one.kind, one.name)));
        }
    }
    let mut part = TelemetryPart {
        owner,
        turn,
        targets,
        others,
        telemetry: None,
        backend: None,
        services: Vec::new(),
        fault: None,
        unresolved: None,
    };
    match traced(key, policy.spec.tracing.as_ref(), &mut reader) {
        Ok(None) => {}
        Ok(Some(Traced { telemetry, backend, services, unresolved })) => {
            part.telemetry = Some(Arc::new(telemetry));
            (part.backend, part.services, part.unresolved) = (backend, services, unresolved);
        }
        Err(fault) => part.fault = Some(fault),
    }
    part
}

fn invalid(part: &str, why: impl Into<String>) -> FieldFault {
    FieldFault::new(format!("spec.tracing{part}"), "Invalid", why)
}

fn unsupported(part: &str, why: impl Into<String>) -> FieldFault {
    FieldFault::new(format!("spec.tracing{part}"), "UnsupportedValue", why)
}

/// The tracing of a policy, built; `None` if it leaves requests untraced.
fn traced(
    key: &ObjectKey,
    spec: Option<&TracingSpec>,
    reader: &mut TelemetryReader<'_>,
) -> Result<Option<Traced>, FieldFault> {
    let spec = spec.ok_or_else(|| invalid("", "expected what is to be done"))?;
    match spec.mode.as_deref().unwrap_or("ImplementationDefault") {
        "Enabled" => {}
        // Routes of Gateways are not traced unless a policy says so.
        "Disabled" | "ImplementationDefault" => {
            let rest = TracingSpec { mode: None, ..spec.clone() };
            let is_alone = rest == TracingSpec::default();
            return if is_alone { Ok(None) } else { Err(invalid(".mode", "expected Enabled with the other fields")) };
        }
        other => {
            let why = format!("expected Enabled, Disabled or ImplementationDefault, found {other}");
            return Err(unsupported(".mode", why));
        }
    }
    let provider = spec.provider.as_ref().ok_or_else(|| invalid(".provider", "expected one with mode Enabled"))?;
    let sampler = spec.sampling_rate.as_ref().map(|rate| sampler(rate, ".samplingRate")).transpose()?;
    let parent = spec.parent_based_sampling.as_ref().map(parent).transpose()?.flatten();
    let service = spec.service_name.as_deref().map(|name| text(name, 253, ".serviceName")).transpose()?;
    let span = spec.span_name.as_deref().map(|name| text(name, 256, ".spanName")).transpose()?;
    if spec.attributes.len() > TELEMETRY_ATTRIBUTES {
        return Err(unsupported(".attributes", format!("expected at most {TELEMETRY_ATTRIBUTES}")));
    }
    let attributes = spec.attributes.iter().enumerate();
    let attributes = attributes.map(|(at, one)| attribute(one, &format!(".attributes[{at}]")));
    let attributes = attributes.collect::<Result<_, _>>()?;
    let fields = fields(provider)?;
    let found = receiver(key, provider, fields, reader);
    let (receiver, backend, services, unresolved) = found;
    let telemetry = Telemetry {
        name: TelemetryName::from(format!("{}/{}", key.namespace, key.name)),
        origin: key.origin(),
        sampler,
        parent,
        service,
        span,
        attributes,
        receiver,
    };
    Ok(Some(Traced { telemetry, backend, services, unresolved }))
}

fn sampler(rate: &Fraction, part: &str) -> Result<Sampler, FieldFault> {
    let (numerator, denominator) = (rate.numerator, rate.denominator.unwrap_or(100));
    match (numerator, denominator) {
        (0, 1..) => Ok(Sampler::Never),
        (_, 1..) if numerator == denominator => Ok(Sampler::Always),
        (1.., _) if numerator < denominator => Ok(Sampler::share(f64::from(numerator) / f64::from(denominator))),
        _ => Err(invalid(part, format!("expected a fraction from 0 to 1, found {numerator}/{denominator}"))),
    }
}

fn parent(spec: &ParentBasedSampling) -> Result<Option<ParentRule>, FieldFault> {
    const PART: &str = ".parentBasedSampling";
    let rate = spec.sampling_rate.as_ref();
    match (spec.mode.as_deref().unwrap_or("ImplementationDefault"), rate) {
        ("Enabled", rate) => {
            let rate = rate.map(|rate| sampler(rate, &format!("{PART}.samplingRate"))).transpose()?;
            Ok(Some(ParentRule::Followed(rate.unwrap_or(Sampler::Always))))
        }
        ("Disabled", None) => Ok(Some(ParentRule::Ignored)),
        ("ImplementationDefault", None) => Ok(None),
        ("Disabled" | "ImplementationDefault", Some(_)) => {
            Err(invalid(&format!("{PART}.samplingRate"), "expected none unless mode is Enabled"))
        }
        (other, _) => {
            let why = format!("expected Enabled, Disabled or ImplementationDefault, found {other}");
            Err(unsupported(&format!("{PART}.mode"), why))
        }
    }
}

fn text(value: &str, longest: usize, part: &str) -> Result<Box<str>, FieldFault> {
    let is_good = (1..=longest).contains(&value.len());
    is_good.then(|| value.into()).ok_or_else(|| invalid(part, format!("expected 1 to {longest} bytes")))
}

fn attribute(one: &SpanAttributeSpec, part: &str) -> Result<SpanAttribute, FieldFault> {
    let name = text(&one.name, 256, &format!("{part}.name"))?;
    let value = match (&*one.source_type, &one.header_name, &one.literal_value, &one.attribute_key) {
        ("Header", Some(field), None, None) => {
            let field = ConfiguredName::try_from(&**field);
            SpanValue::Field(field.map_err(|error| invalid(&format!("{part}.headerName"), error.to_string()))?)
        }
        ("Literal", None, Some(value), None) => {
            // 1024 characters of up to four bytes.
            SpanValue::Literal(text(value, 4096, &format!("{part}.literalValue"))?)
        }
        ("Attribute", None, None, Some(key)) => match StandardAttribute::of_key(key) {
            Some(known) => SpanValue::Standard(known),
            None => {
                let why = format!("expected a stable attribute of OpenTelemetry that a proxy knows, found {key}");
                return Err(unsupported(&format!("{part}.attributeKey"), why));
            }
        },
        ("Header" | "Literal" | "Attribute", ..) => {
            return Err(invalid(part, "expected exactly the value that sourceType names"));
        }
        (other, ..) => {
            let why = format!("expected Header, Literal or Attribute, found {other}");
            return Err(unsupported(&format!("{part}.sourceType"), why));
        }
    };
    Ok(SpanAttribute { name, value })
}

/// Fields of the requests to a receiver. Their values may be secrets, so no message has them.
fn fields(provider: &TracingProvider) -> Result<Vec<(ConfiguredName, SecretText)>, FieldFault> {
    if provider.headers.len() > TELEMETRY_FIELDS {
        return Err(unsupported(".provider.headers", format!("expected at most {TELEMETRY_FIELDS}")));
    }
    let mut all = Vec::new();
    for (at, one) in provider.headers.iter().enumerate() {
        let part = |member: &str| format!(".provider.headers[{at}].{member}");
        let name = ConfiguredName::try_from(&*one.name).map_err(|error| invalid(&part("name"), error.to_string()))?;
        let lower = one.name.to_ascii_lowercase();
        if RESERVED.contains(&&*lower) || lower.starts_with("grpc-") {
            return Err(unsupported(&part("name"), format!("{lower} is written by Fairway itself")));
        }
        let value = one.value.reveal();
        let is_visible = |byte: u8| byte == b'\t' || (b' '..=b'~').contains(&byte);
        if value.len() > 4096 || !value.bytes().all(is_visible) {
            return Err(unsupported(&part("value"), "expected at most 4096 characters of visible ASCII"));
        }
        all.push((name, SecretText::from(value)));
    }
    Ok(all)
}

/// The receiver of a policy, its backend, the Services that this depends on, and why there is no receiver.
fn receiver(
    key: &ObjectKey,
    provider: &TracingProvider,
    fields: Vec<(ConfiguredName, SecretText)>,
    reader: &mut TelemetryReader<'_>,
) -> (Option<SpanReceiver>, Option<BackendKey>, Vec<ObjectKey>, Option<Shortcoming>) {
    let TelemetryReader { objects, options, tls, xbackends, policies } = reader;
    let kind = provider.backend_ref.kind.as_deref().unwrap_or(Kind::Service.as_str());
    if kind != Kind::Service.as_str() {
        let message = format!("expected a Service, found {kind}");
        return (None, None, Vec::new(), Some(Shortcoming::new("InvalidKind", message)));
    }
    let (origin, mut built): (Origin, _) = (key.origin(), BuiltRule::default());
    let rules = RuleReader { key, origin: &origin, objects, options, tls, xbackends, policies };
    let found = rules.backend(&provider.backend_ref, &mut built);
    let services = built.services;
    match found {
        Ok(ValidBackend { key: backend, tls: Ok(tls), .. }) => {
            // A substitute for a backend must not become the receiver.
            let backend = BackendKey { layer: Layer::Auth, ..backend };
            let receiver = SpanReceiver {
                backend: backend.name(),
                authority: format!("{}.{}.svc:{}", backend.target, backend.namespace, backend.port).into(),
                http: is_http(objects, &backend),
                tls,
                fields,
            };
            (Some(receiver), Some(backend), services, None)
        }
        Ok(ValidBackend { tls: Err(why), .. }) => {
            (None, None, services, Some(Shortcoming::new("UnsupportedValue", why)))
        }
        Err((_, fault)) => (None, None, services, Some(fault)),
    }
}

/// Whether a port takes OTLP over HTTP, by the Service's declaration or by the number reserved for it.
fn is_http(objects: &Objects, backend: &BackendKey) -> bool {
    let port = objects.service(&backend.service()).and_then(|service| find_port(service, backend));
    match port.and_then(|port| port.app_protocol.as_deref()) {
        Some("http" | "https") => true,
        Some("grpc" | "h2c" | "kubernetes.io/h2c") => false,
        _ => port.map_or_else(|| backend.port.to_string() == HTTP_PORT.to_string(), |port| port.port == HTTP_PORT),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fractions_are_read_as_specified() {
        let read = |rate: serde_json::Value| sampler(&serde_json::from_value(rate).unwrap(), "").ok();
        assert_eq!(read(json!({"numerator": 5})), Some(Sampler::share(0.05)));
        assert_eq!(read(json!({"numerator": 0, "denominator": 1})), Some(Sampler::Never));
        assert_eq!(read(json!({"numerator": 7, "denominator": 7})), Some(Sampler::Always));
        for (numerator, denominator) in [(101, 100), (-1, 100), (1, 0), (0, 0), (1, -1), (-2, -1), (-1, -1)] {
            assert_eq!(read(json!({"numerator": numerator, "denominator": denominator})), None);
        }
    }

    #[test]
    fn what_a_field_holds_is_in_no_message() {
        for (name, value) in [("X-Key", "se\ncret"), ("Host", "secret"), ("x y", "secret"), ("grpc-timeout", "secret")]
        {
            let provider = json!({"backendRef": {"name": "a"}, "headers": [{"name": name, "value": value}]});
            let provider: TracingProvider = serde_json::from_value(provider).unwrap();
            let fault = fields(&provider).unwrap_err();
            assert!(!format!("{fault:?} {provider:?}").contains("cret"), "{name}");
        }
    }
}
