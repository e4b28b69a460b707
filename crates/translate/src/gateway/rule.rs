//! One rule of a route: its matches, filters and backends, as routes of the model.
//!
//! A rule that can't be carried out in full answers 500 (503 to gRPC clients, which read it as "unavailable") instead of being served
//! without a part of it.

mod external_auth;

use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use fairway_model::{
    Action, Backends, ByteLimit, Conditions, Cors, CorsRules, ExternalAuth, FieldEdit, Filter, Forward, ForwardPolicy,
    Fraction, Location, Mirror, Origin, Origins, PathMatch, PathReplacement, Redirect, Respond, Retry, RetryOn, Route,
    Scheme, Session, SessionCarrier, Template, UpstreamProtocol, UpstreamTls, UrlParts, WeightedBackend,
};
use k8s_openapi::api::core::v1::ServicePort;

use super::api::{
    BackendReference, CorsFilter, HTTPRouteFilter, HeaderModifier, PathModifier, RequestMirror, RequestRedirect,
    RouteRetry, SessionPersistence, Timeouts, UrlRewrite,
};
use super::backend_tls::BackendPolicies;
use super::grant;
use super::session;
use super::status::Shortcoming;
use super::stream;
use super::xbackend::{Spoken, XBackends};
use crate::diagnostic::{Diagnostic, Reason, Severity, bounded};
use crate::engine::shared::Shared;
use crate::limit;
use crate::objects::{Kind, ObjectKey, Objects};
use crate::options::{Development, Options};
use crate::policy::NOT_CANONICAL;
use crate::resource::backend::{BackendKey, Layer, is_external, ports};

/// Stands for "no time limit". No user needs more, and a deadline can hold it.
const ENDLESS: Duration = Duration::from_secs(365 * 86_400);

/// The inputs for reading a rule.
pub(super) struct RuleReader<'a> {
    pub(super) key: &'a ObjectKey,
    pub(super) origin: &'a Origin,
    pub(super) objects: &'a Objects,
    pub(super) options: &'a Options,
    /// TLS to Services, by policy.
    pub(super) tls: &'a BackendPolicies,
    pub(super) xbackends: &'a XBackends,
    /// Shared, since most rules have the same policy.
    pub(super) policies: &'a mut Shared<ForwardPolicy>,
}

/// A rule, whatever its kind of route.
pub(super) struct RuleText<'a> {
    pub(super) at: usize,
    pub(super) name: Option<&'a str>,
    /// Each match with its index; a rule without matches has one without an index.
    pub(super) matches: Vec<RuleMatch>,
    pub(super) filters: &'a [HTTPRouteFilter],
    pub(super) backends: &'a [BackendReference],
    pub(super) timeouts: Option<&'a Timeouts>,
    pub(super) retry: Option<&'a RouteRetry>,
    pub(super) session: Option<&'a SessionPersistence>,
}

/// A match, ready for the model.
pub(super) struct RuleMatch {
    pub(super) at: Option<usize>,
    pub(super) path: PathMatch,
    pub(super) conditions: Option<Box<Conditions>>,
    /// Whether all parts of the rule's match are usable. A match with a replaced part takes more requests and answers them.
    pub(super) is_usable: bool,
}

/// A rule as it is served.
#[derive(Debug, Default)]
pub(super) struct BuiltRule {
    pub(super) routes: Vec<Route>,
    /// The backends in use, each with the field that names it.
    pub(super) backends: Vec<(BackendKey, String)>,
    /// The Services that its result depends on.
    pub(super) services: Vec<ObjectKey>,
    /// The first reference that can't be followed.
    pub(super) unresolved: Option<Shortcoming>,
    /// Why the rule is not carried out.
    pub(super) refused: Option<Shortcoming>,
    pub(super) findings: Vec<Diagnostic>,
}

/// The combined effect of the filters of a rule or of one of its backends.
#[derive(Default)]
struct Effects {
    cors: Option<Cors>,
    auth: Option<Box<ExternalAuth>>,
    /// Whether an authentication service is configured that can't be reached.
    cannot_ask: bool,
    mirrors: Vec<Mirror>,
    request: Vec<FieldEdit>,
    response: Vec<FieldEdit>,
    path: Option<PathReplacement>,
    host: Option<Template>,
    redirect: Option<Redirect>,
}

/// A valid reference to a backend.
pub(super) struct ValidBackend {
    pub(super) key: BackendKey,
    weight: u32,
    http2: bool,
    /// TLS to it, or why it is impossible, which makes the backend as good as invalid.
    pub(super) tls: Result<Option<Arc<UpstreamTls>>, String>,
    /// The sessions with its endpoints, if it has its own.
    session: Option<Arc<Session>>,
    /// The effect of its filters on the requests that go there, if the rule has other backends too.
    effects: Effects,
}

impl RuleReader<'_> {
    pub(super) fn build(&mut self, rule: &RuleText<'_>) -> BuiltRule {
        let mut built = BuiltRule::default();
        let mut effects = Effects::default();
        let field = format!("spec.rules[{}]", rule.at);
        self.filters(rule.filters, &format!("{field}.filters"), &mut effects, &mut built);
        if effects.redirect.is_some() && (effects.path.is_some() || effects.host.is_some()) {
            let fault = Shortcoming::new("IncompatibleFilters", "a rule redirects or rewrites, not both");
            self.refuse(&format!("{field}.filters"), fault, &mut built);
        }
        let action = match effects.redirect.take() {
            Some(redirect) => Action::Redirect(redirect),
            None => self.forward(rule, &field, &mut effects, &mut built),
        };
        let replaces_prefix = match (&effects.path, &action) {
            (Some(PathReplacement::Prefix(_)), _) => true,
            (_, Action::Redirect(redirect)) => {
                matches!(&redirect.location, Location::Parts(parts) if matches!(parts.path, Some(PathReplacement::Prefix(_))))
            }
            _ => false,
        };
        if replaces_prefix {
            self.check_prefixes(rule, &format!("{field}.filters"), &mut built);
        }
        let failure = Action::Respond(Respond::page(self.failure()));
        let (filters, action) = if built.refused.is_some() || effects.cannot_ask {
            (Vec::new(), failure.clone())
        } else {
            (effects.into_filters(), action)
        };
        for one in &rule.matches {
            let section = match one.at {
                Some(at) => format!("rules[{}].matches[{at}]", rule.at),
                None => format!("rules[{}]", rule.at),
            };
            let (filters, action) = if one.is_usable { (filters.clone(), &action) } else { (Vec::new(), &failure) };
            let route = Route::new(self.origin.section(section), one.path.clone(), action.clone());
            built.routes.push(Route { conditions: one.conditions.clone(), filters, ..route });
        }
        built
    }

    /// A prefix can be replaced only if all matches have one.
    fn check_prefixes(&self, rule: &RuleText<'_>, field: &str, built: &mut BuiltRule) {
        if !rule.matches.iter().all(|one| matches!(one.path, PathMatch::Prefix(_))) {
            let fault = Shortcoming::new("UnsupportedValue", "ReplacePrefixMatch needs matches of the type PathPrefix");
            self.refuse(field, fault, built);
        }
    }

    /// The status of rules that can't be served.
    pub(super) fn failure(&self) -> u16 {
        if self.key.kind == Kind::GRPCRoute { 503 } else { 500 }
    }

    /// Records why the rule is not carried out.
    pub(super) fn refuse(&self, field: &str, fault: Shortcoming, built: &mut BuiltRule) {
        let message = format!("{}; requests to the rule answer {}", fault.message, self.failure());
        let found = self.finding(Severity::Error, Reason::UnsupportedValue, field, "", message).unserved();
        built.findings.push(found);
        let fault = Shortcoming::new(fault.reason, format!("Dropped Rule: {field}: {}", fault.message));
        built.refused.get_or_insert(fault);
    }

    fn finding(&self, severity: Severity, reason: Reason, field: &str, value: &str, message: String) -> Diagnostic {
        Diagnostic::new(severity, reason, self.origin, field, value, message)
    }

    fn filters(&mut self, filters: &[HTTPRouteFilter], field: &str, effects: &mut Effects, built: &mut BuiltRule) {
        for (at, filter) in filters.iter().enumerate() {
            let field = format!("{field}[{at}]");
            let result = match (&*filter.r#type, filter) {
                ("RequestHeaderModifier", HTTPRouteFilter { request_header_modifier: Some(edits), .. }) => {
                    self.edits(edits, &format!("{field}.requestHeaderModifier"), &mut effects.request, built);
                    Ok(())
                }
                ("ResponseHeaderModifier", HTTPRouteFilter { response_header_modifier: Some(edits), .. }) => {
                    self.edits(edits, &format!("{field}.responseHeaderModifier"), &mut effects.response, built);
                    Ok(())
                }
                ("RequestRedirect", HTTPRouteFilter { request_redirect: Some(redirect), .. }) => {
                    redirect_of(redirect).map(|redirect| effects.redirect = Some(redirect))
                }
                ("URLRewrite", HTTPRouteFilter { url_rewrite: Some(rewrite), .. }) => effects.rewrite(rewrite),
                ("CORS", HTTPRouteFilter { cors: Some(cors), .. }) => {
                    effects.cors = Some(cors_of(cors));
                    if (cors.allow_credentials == Some(true) || !admits_any(cors))
                        && let Ok(vary) = "Vary".try_into()
                    {
                        // A cache must not reuse an answer for another origin, not even one to a request without an origin (Fetch, "CORS
                        // protocol and HTTP caches").
                        let origin = Template::of_literal("Origin");
                        effects.response.push(FieldEdit::new(vary, fairway_model::Change::Add(origin)));
                    }
                    Ok(())
                }
                ("RequestMirror", HTTPRouteFilter { request_mirror: Some(mirror), .. }) => {
                    self.mirror(mirror, &format!("{field}.requestMirror"), effects, built);
                    Ok(())
                }
                ("ExternalAuth", HTTPRouteFilter { external_auth: Some(auth), .. }) => {
                    self.external_auth(auth, &format!("{field}.externalAuth"), effects, built);
                    Ok(())
                }
                (kind, _) => Err(format!(
                    "expected RequestHeaderModifier, ResponseHeaderModifier, RequestRedirect, URLRewrite, RequestMirror, CORS or \
                     ExternalAuth with its settings, found {kind}"
                )),
            };
            if let Err(message) = result {
                self.refuse(&field, Shortcoming::new("UnsupportedValue", message), built);
            }
        }
    }

    /// A mirror without a valid backend gets no copies; the requests are served all the same.
    fn mirror(&mut self, mirror: &RequestMirror, field: &str, effects: &mut Effects, built: &mut BuiltRule) {
        if effects.mirrors.len() == limit::RULE_MIRRORS {
            let message = format!("a rule copies requests to at most {} backends", limit::RULE_MIRRORS);
            return self.refuse(field, Shortcoming::new("UnsupportedValue", message), built);
        }
        let found = self.backend(&mirror.backend_ref, built).and_then(|backend| match backend.http2 {
            true => Err((
                Reason::UnsupportedBackend,
                Shortcoming::new("UnsupportedProtocol", "copies of requests are sent over HTTP/1.1 only"),
            )),
            false => Ok((backend.key, backend.tls)),
        });
        let field = format!("{field}.backendRef");
        let (key, tls) = match found {
            Ok((key, Ok(tls))) => (key, tls),
            Ok((_, Err(why))) => {
                let (message, reason) = (format!("{why}; it gets no copies of requests"), Reason::BackendPolicyRefused);
                built.findings.push(self.finding(Severity::Warning, reason, &field, &mirror.backend_ref.name, message));
                return;
            }
            Err((reason, fault)) => {
                let message = format!("{}; it gets no copies of requests", fault.message);
                let name = &mirror.backend_ref.name;
                built.findings.push(self.finding(Severity::Warning, reason, &field, name, message));
                let fault = Shortcoming::new(fault.reason, format!("{field}: {}", fault.message));
                built.unresolved.get_or_insert(fault);
                return;
            }
        };
        let number = |number: i32| u32::try_from(number).unwrap_or_default();
        let fraction = match (&mirror.fraction, mirror.percent) {
            (Some(part), _) => Some((number(part.numerator), number(part.denominator.unwrap_or(100)))),
            (None, Some(percent)) => Some((number(percent), 100)),
            (None, None) => None,
        };
        let policy = ForwardPolicy { max_body: ByteLimit::NONE, tls, ..ForwardPolicy::default() };
        let forward = Forward::to(key.name(), self.policies.of(policy));
        built.backends.push((key, field));
        effects.mirrors.push(Mirror {
            forward,
            target: None,
            body: true,
            fraction: fraction.map(|(numerator, denominator)| Fraction { numerator, denominator }),
        });
    }

    fn edits(&self, modifier: &HeaderModifier, field: &str, edits: &mut Vec<FieldEdit>, built: &mut BuiltRule) {
        let set = modifier.set.iter().enumerate().map(|(at, one)| {
            (format!("set[{at}]"), &one.name, Some(fairway_model::Change::Set(Template::of_literal(&one.value))))
        });
        let add = modifier.add.iter().enumerate().map(|(at, one)| {
            (format!("add[{at}]"), &one.name, Some(fairway_model::Change::Add(Template::of_literal(&one.value))))
        });
        let remove = modifier.remove.iter().enumerate().map(|(at, name)| (format!("remove[{at}]"), name, None));
        for (part, name, change) in set.chain(add).chain(remove) {
            let field = format!("{field}.{part}");
            if let Some(fairway_model::Change::Set(value) | fairway_model::Change::Add(value)) = &change
                && value
                    .literal()
                    .is_some_and(|text| text.trim_ascii().contains(|c: char| c.is_ascii_control() && c != '\t'))
            {
                let message = "a value has no line breaks and no other control characters (RFC 9110, section 5.5)";
                let field = format!("{field}.value");
                self.refuse(&field, Shortcoming::new("UnsupportedValue", message), built);
                continue;
            }
            match name.as_str().try_into() {
                Ok(valid) => {
                    let edit = FieldEdit::new(valid, change.unwrap_or(fairway_model::Change::Remove));
                    if edit.is_allowed() {
                        edits.push(edit);
                    } else {
                        let message = "this field belongs to the connection; the edit is ignored".to_owned();
                        let reason = Reason::UnsupportedValue;
                        built.findings.push(self.finding(Severity::Warning, reason, &field, name, message));
                    }
                }
                Err(fairway_model::InvalidName) => {
                    let message = format!("{name:?} is no name of a field");
                    self.refuse(&field, Shortcoming::new("UnsupportedValue", message), built);
                }
            }
        }
    }

    /// The backends of a rule, and how requests are sent there.
    fn forward(&mut self, rule: &RuleText<'_>, field: &str, effects: &mut Effects, built: &mut BuiltRule) -> Action {
        let (mut valid, mut invalid) = (Vec::<ValidBackend>::new(), 0u32);
        // The filters of an only backend apply to all requests.
        let only = rule.backends.len() == 1;
        for (at, reference) in rule.backends.iter().enumerate() {
            let field = format!("{field}.backendRefs[{at}]");
            let weight = u32::try_from(reference.weight.unwrap_or(1)).unwrap_or(0);
            let found = self.backend(reference, built).and_then(|backend| match valid.first() {
                Some(first) if first.http2 != backend.http2 => Err((
                    Reason::UnsupportedBackend,
                    Shortcoming::new("UnsupportedProtocol", "the backends of a rule need the same protocol"),
                )),
                _ => Ok(backend),
            });
            match found {
                Ok(ValidBackend { tls: Err(why), .. }) => {
                    invalid = invalid.saturating_add(weight);
                    let message = format!("{why}; its share of the requests answers {}", self.failure());
                    let reason = Reason::BackendPolicyRefused;
                    let finding = self.finding(Severity::Error, reason, &field, &reference.name, message);
                    built.findings.push(finding.unserved());
                }
                Ok(mut backend) => {
                    let filters = format!("{field}.filters");
                    if only {
                        self.filters(&reference.filters, &filters, effects, built);
                    } else {
                        self.filters(&reference.filters, &filters, &mut backend.effects, built);
                        if let Some(what) = backend.effects.unsupported_for_one() {
                            let message = format!("{what} of one backend among several is not built yet");
                            self.refuse(&filters, Shortcoming::new("UnsupportedValue", message), built);
                        }
                    }
                    built.backends.push((backend.key.clone(), field));
                    valid.push(ValidBackend { weight, ..backend });
                }
                Err((reason, fault)) => {
                    invalid = invalid.saturating_add(weight);
                    let message = format!("{}; its share of the requests answers {}", fault.message, self.failure());
                    built
                        .findings
                        .push(self.finding(Severity::Error, reason, &field, &reference.name, message).unserved());
                    let fault = Shortcoming::new(fault.reason, format!("{field}: {}", fault.message));
                    built.unresolved.get_or_insert(fault);
                }
            }
        }
        if effects.redirect.is_some() {
            let fault = Shortcoming::new("UnsupportedValue", "a backend can't redirect");
            self.refuse(&format!("{field}.backendRefs"), fault, built);
        }
        if rule.backends.is_empty() {
            let message = format!("no backend; requests to the rule answer {}", self.failure());
            built.findings.push(self.finding(
                Severity::Warning,
                Reason::InvalidBackend,
                &format!("{field}.backendRefs"),
                "",
                message,
            ));
        }
        if valid.is_empty() {
            return Action::Respond(Respond::page(self.failure()));
        }
        if valid.iter().any(|one| one.effects.path.is_some()) {
            // The path of a backend replaces that of the rule, since both refer to the prefix that the rule matches.
            let path = effects.path.take();
            valid.iter_mut().filter(|one| one.effects.path.is_none()).for_each(|one| one.effects.path = path.clone());
        }
        let replaces_prefix = |one: &ValidBackend| matches!(one.effects.path, Some(PathReplacement::Prefix(_)));
        if valid.iter().any(replaces_prefix) {
            self.check_prefixes(rule, &format!("{field}.backendRefs"), built);
        }
        let tls = |one: &ValidBackend| one.tls.clone().ok().flatten();
        let common = tls(&valid[0]);
        let differ = valid.iter().any(|one| tls(one) != common);
        let session = valid[0].session.clone();
        if rule.session.is_none() && valid.iter().any(|one| one.session != session) {
            let message =
                "the backends of a rule need the same sessions: a rule for each, or sessionPersistence of the rule";
            self.refuse(&format!("{field}.backendRefs"), Shortcoming::new("UnsupportedValue", message), built);
        }
        let policy = match self.policy(rule, valid[0].http2, session, effects) {
            Ok(policy) => ForwardPolicy { tls: common.filter(|_| !differ), ..policy },
            Err((part, message)) => {
                self.refuse(&format!("{field}.{part}"), Shortcoming::new("UnsupportedValue", message), built);
                ForwardPolicy::default()
            }
        };
        let backends = if only && valid[0].weight > 0 {
            Backends::One(valid[0].key.name())
        } else {
            let share = |one: ValidBackend| WeightedBackend {
                backend: one.key.name(),
                weight: one.weight,
                tls: tls(&one).filter(|_| differ),
                filters: one.effects.into_filters(),
            };
            let mut list: Vec<_> = valid.into_iter().map(share).collect();
            match invalid {
                0 => Backends::Weighted(list),
                // A backend that does not exist answers 503.
                _ if self.key.kind == Kind::GRPCRoute => {
                    let invalid =
                        WeightedBackend { backend: "invalid".into(), weight: invalid, filters: Vec::new(), tls: None };
                    list.push(invalid);
                    Backends::Weighted(list)
                }
                _ => Backends::Partial { valid: list, invalid },
            }
        };
        Action::Forward(Forward {
            backends,
            fallback: None,
            session_cookie_path: None,
            policy: self.policies.of(policy),
        })
    }

    /// Follows a reference to a backend: first its kind, then permission, then existence.
    pub(super) fn backend(
        &self,
        one: &BackendReference,
        built: &mut BuiltRule,
    ) -> Result<ValidBackend, (Reason, Shortcoming)> {
        let (group, kind) = (one.group.as_deref().unwrap_or_default(), one.kind.as_deref().unwrap_or("Service"));
        if self.options.has_xbackends && group == Kind::XBackend.group() && kind == Kind::XBackend.as_str() {
            return self.xbackend(one, built);
        }
        if !group.is_empty() || kind != "Service" {
            let expected = match (group == Kind::XBackend.group(), kind) {
                _ if !self.options.has_xbackends => String::new(),
                (true, _) => format!(" or kind: {}", Kind::XBackend),
                (false, "XBackend") => format!(" or an XBackend with group: {}", Kind::XBackend.group()),
                (false, _) => String::new(),
            };
            let found = if group.is_empty() { " without a group".to_owned() } else { format!(" of {group}") };
            let message = format!("expected a Service{expected}, found {kind}{found}");
            return Err((Reason::UnsupportedBackend, Shortcoming::new("InvalidKind", message)));
        }
        let namespace = one.namespace.as_deref().unwrap_or(&self.key.namespace);
        let service = ObjectKey::new(Kind::Service, namespace, &*one.name);
        self.permitted(&service)?;
        built.services.push(service.clone());
        let Some(port) = one.port else {
            return Err((Reason::InvalidBackend, Shortcoming::new("InvalidKind", "port: a Service needs a port")));
        };
        let key = BackendKey::of_gateway(namespace, &one.name, stream::layer(self.key.kind), port);
        let (weight, session, effects) = (0, None, Effects::default());
        let Some(object) = self.objects.service(&service) else {
            let stands_in = self.options.development.as_ref().is_some_and(|development| {
                let replaced = || development.backends.keys().any(|(replaced, _)| *replaced == service);
                (development.echo.is_some() && development.echo_for_missing) || replaced()
            });
            let http2 = self.key.kind == Kind::GRPCRoute;
            let message = format!("there is no Service {namespace}/{}", one.name);
            return if stands_in {
                Ok(ValidBackend { key, weight, http2, tls: Ok(None), session, effects })
            } else {
                Err((Reason::ServiceNotFound, Shortcoming::new("BackendNotFound", message)))
            };
        };
        let spec = object.spec.as_ref();
        if is_external(object) {
            let message = format!("Service {namespace}/{} is an ExternalName", one.name);
            return Err((Reason::UnsupportedBackend, Shortcoming::new("InvalidKind", message)));
        }
        let of_service = spec.and_then(|spec| spec.ports.as_deref()).unwrap_or_default();
        // A target port is never meant.
        let is_meant = |it: &&ServicePort| it.port == port && key.layer.takes(it.protocol.as_deref());
        let found = of_service.iter().find(is_meant);
        let replaced =
            |development: &Development| development.backends.contains_key(&(service.clone(), port.to_string()));
        if found.is_none() && !self.options.development.as_ref().is_some_and(replaced) {
            let message = format!("there is no port {port}: {}", ports(&key, object));
            return Err((Reason::PortNotFound, Shortcoming::new("BackendNotFound", message)));
        }
        let tls = self.tls.tls(&service, found.and_then(|port| port.name.as_deref())).cloned().transpose();
        let http2 = match found.and_then(|port| port.app_protocol.as_deref()) {
            Some("kubernetes.io/wss") if tls == Ok(None) && key.layer == Layer::Gateway => {
                let message = format!("port {port} of Service {namespace}/{}: kubernetes.io/wss needs TLS", one.name);
                return Err((Reason::UnsupportedBackend, Shortcoming::new("UnsupportedProtocol", message)));
            }
            Some("kubernetes.io/h2c") => true,
            _ => self.key.kind == Kind::GRPCRoute,
        };
        Ok(ValidBackend { key, weight, http2, tls, session, effects })
    }

    /// Whether the route may refer to an object.
    fn permitted(&self, to: &ObjectKey) -> Result<(), (Reason, Shortcoming)> {
        if grant::permits(self.objects, (self.key.kind, &self.key.namespace), to) {
            return Ok(());
        }
        let message = format!(
            "no ReferenceGrant in namespace {} lets {} of {} refer to {} {}",
            to.namespace,
            self.key.kind.plural(),
            self.key.namespace,
            to.kind,
            to.name
        );
        Err((Reason::ForbiddenReference, Shortcoming::new("RefNotPermitted", message)))
    }

    /// Follows a reference to an XBackend, in the same order.
    fn xbackend(&self, one: &BackendReference, built: &mut BuiltRule) -> Result<ValidBackend, (Reason, Shortcoming)> {
        let namespace = one.namespace.as_deref().unwrap_or(&self.key.namespace);
        let key = ObjectKey::new(Kind::XBackend, namespace, &*one.name);
        self.permitted(&key)?;
        built.services.push(key.clone());
        if let Some(port) = one.port {
            let message = format!("port: expected none for an XBackend, which has its own, found {port}");
            return Err((Reason::InvalidBackend, Shortcoming::new("UnsupportedValue", message)));
        }
        let Some(part) = self.xbackends.get(&key) else {
            let message = format!("there is no XBackend {namespace}/{}", one.name);
            return Err((Reason::InvalidBackend, Shortcoming::new("BackendNotFound", message)));
        };
        if let Some(fault) = &part.fault {
            let message = format!("XBackend {namespace}/{} is not accepted: {}", one.name, fault.shortcoming().message);
            return Err((fault.reason, Shortcoming::new("UnsupportedValue", message)));
        }
        let layer = match stream::layer(self.key.kind) {
            Layer::Gateway => Layer::XBackendHttp,
            Layer::Tcp => Layer::XBackendTcp,
            _ => Layer::Udp,
        };
        let is_grpc = self.key.kind == Kind::GRPCRoute;
        let http2 = match (layer, part.protocol) {
            (Layer::XBackendHttp, None | Some(Spoken::Http)) => is_grpc,
            (Layer::XBackendHttp, Some(Spoken::Http2)) => true,
            (Layer::XBackendHttp, Some(Spoken::Http1)) if !is_grpc => false,
            (Layer::XBackendTcp, None | Some(Spoken::Tcp)) => false,
            _ => {
                let needs = match self.key.kind {
                    Kind::HTTPRoute => "HTTP, HTTP11, HTTP2, H2C, GRPC or WSS",
                    Kind::GRPCRoute => "HTTP, HTTP2, H2C or GRPC",
                    Kind::UDPRoute => "a Service: XBackends get no datagrams",
                    _ => "TCP, or none",
                };
                let message = format!(
                    "the protocol of XBackend {namespace}/{} does not suit a {}: expected {needs}",
                    one.name, self.key.kind
                );
                return Err((Reason::UnsupportedBackend, Shortcoming::new("UnsupportedProtocol", message)));
            }
        };
        if layer == Layer::XBackendTcp && part.session.is_some() {
            let message =
                format!("XBackend {namespace}/{} has sessions, which a {} can't keep", one.name, self.key.kind);
            return Err((Reason::UnsupportedBackend, Shortcoming::new("UnsupportedValue", message)));
        }
        Ok(ValidBackend {
            key: BackendKey::of_gateway(namespace, &one.name, layer, part.port),
            weight: 0,
            http2,
            tls: self.tls.refuses(&key).map_or_else(|| Ok(part.tls.clone()), Err),
            session: part.session.clone(),
            effects: Effects::default(),
        })
    }

    /// Time limits and retries.
    fn policy(
        &self,
        rule: &RuleText<'_>,
        http2: bool,
        session: Option<Arc<Session>>,
        effects: &mut Effects,
    ) -> Result<ForwardPolicy, (String, String)> {
        let mut policy = ForwardPolicy {
            max_body: ByteLimit::NONE,
            upstream_host: effects.host.take(),
            protocol: if http2 { UpstreamProtocol::Http2 } else { UpstreamProtocol::Http1 },
            ..ForwardPolicy::default()
        };
        let limit = |text: &Option<String>| -> Result<Option<Duration>, String> {
            let Some(text) = text else { return Ok(None) };
            let time = duration(text).ok_or_else(|| {
                format!("{text:?} is no time: expected up to four numbers with h, m, s or ms, such as 1m30s")
            })?;
            Ok(Some(if time.is_zero() { ENDLESS } else { time }))
        };
        if let Some(timeouts) = rule.timeouts {
            let request = limit(&timeouts.request).map_err(|why| ("timeouts.request".to_owned(), why))?;
            let backend =
                limit(&timeouts.backend_request).map_err(|why| ("timeouts.backendRequest".to_owned(), why))?;
            if let Some(time) = [request, backend].into_iter().flatten().min() {
                (policy.read_timeout, policy.send_timeout) = (time, time);
                policy.connect_timeout = policy.connect_timeout.min(time);
            }
            policy.response_within = request.filter(|time| *time < ENDLESS);
            policy.whole_head = true;
            if let Some(request) = request {
                policy.retry.within = Some(request);
                // A second try after a whole period of waiting would end long after the limit.
                policy.retry.on.timeout = backend.is_some_and(|backend| backend < request);
            }
        }
        if let Some(retry) = rule.retry {
            if retry.backoff.is_some() {
                let message = "retries don't wait; expected no backoff".to_owned();
                return Err(("retry.backoff".to_owned(), message));
            }
            let statuses: Vec<u16> = retry.codes.iter().filter_map(|code| u16::try_from(*code).ok()).collect();
            let attempts = u32::try_from(retry.attempts.unwrap_or(1)).unwrap_or_default();
            policy.retry = Retry {
                on: RetryOn {
                    // A status that the user lists is retried for any method.
                    non_idempotent: !statuses.is_empty(),
                    // This holds without codes too.
                    connect: attempts > 0,
                    timeout: policy.retry.on.timeout && rule.timeouts.is_some_and(|it| it.backend_request.is_some()),
                    statuses,
                    ..RetryOn::default()
                },
                tries: Some(attempts.saturating_add(1)),
                within: policy.retry.within,
            };
        }
        policy.session = session;
        if let Some(asked) = rule.session {
            let named = format!("{}#{}", self.key, rule.name.map_or_else(|| rule.at.to_string(), str::to_owned));
            let session = session::session(asked, &named);
            let session = session.map_err(|(part, why)| (format!("sessionPersistence.{part}"), why))?;
            policy.session = Some(session.into());
        }
        if let Some(SessionCarrier::Header(name)) = policy.session.as_ref().map(|session| &session.carrier) {
            // Only the proxy starts sessions with clients, never an endpoint.
            effects.response.push(FieldEdit::new(name.clone(), fairway_model::Change::Remove));
        }
        Ok(policy)
    }
}

impl Effects {
    fn rewrite(&mut self, rewrite: &UrlRewrite) -> Result<(), String> {
        if let Some(host) = &rewrite.hostname {
            let name: fairway_model::Hostname = host.parse().map_err(|_| format!("{host:?} is no host name"))?;
            self.host = Some(Template::of_literal(name.as_str()));
        }
        if let Some(path) = &rewrite.path {
            let replacement = replacement(path)?;
            if replacement.refuses_all() {
                let text = path.replace_full_path.as_ref().or(path.replace_prefix_match.as_ref());
                let text = text.map(|text| bounded(text)).unwrap_or_default();
                return Err(format!("path: {text:?}: {NOT_CANONICAL}"));
            }
            self.path = Some(replacement);
        }
        Ok(())
    }

    /// The filters in the order in which they act. Edits of the response come first, so that they apply to every answer.
    fn into_filters(self) -> Vec<Filter> {
        let Self { cors, auth, mirrors, request, response, path, .. } = self;
        let response = (!response.is_empty()).then_some(Filter::EditResponse(response));
        let request = (!request.is_empty()).then_some(Filter::EditRequest(request));
        let cors = cors.map(|cors| Filter::Cors(cors.into()));
        let auth = auth.map(Filter::ExternalAuth);
        let path = path.map(|with| Filter::ReplacePath { with });
        let mirrors = mirrors.into_iter().map(|mirror| Filter::Mirror(mirror.into()));
        response.into_iter().chain(cors).chain(auth).chain(mirrors).chain(path).chain(request).collect()
    }

    /// The name of a filter that works only for all backends together.
    fn unsupported_for_one(&self) -> Option<&'static str> {
        [
            (self.cors.is_some(), "CORS"),
            (self.auth.is_some() || self.cannot_ask, "ExternalAuth"),
            (!self.mirrors.is_empty(), "RequestMirror"),
            (self.host.is_some(), "urlRewrite.hostname"),
            (self.redirect.is_some(), "RequestRedirect"),
        ]
        .into_iter()
        .find_map(|(is_there, what)| is_there.then_some(what))
    }
}

fn admits_any(cors: &CorsFilter) -> bool {
    cors.allow_origins.iter().any(|origin| origin == "*")
}

fn cors_of(cors: &CorsFilter) -> Cors {
    let origins = if admits_any(cors) {
        Origins::Any
    } else {
        // Here a star stands for any number of labels.
        Origins::Listed(cors.allow_origins.iter().map(|origin| (&*origin.replace('*', "**")).into()).collect())
    };
    let rules = CorsRules {
        credentials: cors.allow_credentials.unwrap_or_default(),
        methods: &cors.allow_methods,
        headers: &cors.allow_headers,
        exposed: &cors.expose_headers,
        max_age: cors.max_age.unwrap_or(5),
    };
    Cors::of_gateway(origins, &rules)
}

fn redirect_of(redirect: &RequestRedirect) -> Result<Redirect, String> {
    let scheme = match redirect.scheme.as_deref() {
        None => None,
        Some("http") => Some(Scheme::Http),
        Some("https") => Some(Scheme::Https),
        Some(other) => return Err(format!("scheme: expected http or https, found {other:?}")),
    };
    let host = match &redirect.hostname {
        Some(name) => Some(name.parse().map_err(|_| format!("hostname: {name:?} is no host name"))?),
        None => None,
    };
    let status = match redirect.status_code.unwrap_or(302) {
        code @ (301 | 302 | 303 | 307 | 308) => code as u16,
        other => return Err(format!("statusCode: expected 301, 302, 303, 307 or 308, found {other}")),
    };
    let port = match redirect.port {
        Some(port) => Some(u16::try_from(port).map_err(|_| format!("port: expected 1 to 65535, found {port}"))?),
        None => None,
    };
    let path = redirect.path.as_ref().map(replacement).transpose()?;
    Ok(Redirect::new(status, Location::Parts(Box::new(UrlParts { scheme, host, port, path }))))
}

fn replacement(path: &PathModifier) -> Result<PathReplacement, String> {
    match (&*path.r#type, &path.replace_full_path, &path.replace_prefix_match) {
        ("ReplaceFullPath", Some(text), _) => Ok(PathReplacement::Full(text.as_str().into())),
        ("ReplacePrefixMatch", _, Some(text)) => Ok(PathReplacement::Prefix(text.as_str().into())),
        (other, ..) => {
            Err(format!("path: expected ReplaceFullPath or ReplacePrefixMatch with its text, found {other}"))
        }
    }
}

/// A duration of the Gateway API (GEP-2257); `None` if it is invalid.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let (mut rest, mut total, mut groups) = (text, Duration::ZERO, 0);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number = u64::from_str(&rest[..digits]).ok().filter(|_| digits <= 5)?;
        rest = &rest[digits..];
        let (unit, length) = match rest.as_bytes() {
            [b'm', b's', ..] => (1, 2),
            [b'h', ..] => (3_600_000, 1),
            [b'm', ..] => (60_000, 1),
            [b's', ..] => (1000, 1),
            _ => return None,
        };
        rest = &rest[length..];
        total += Duration::from_millis(number * unit);
        groups += 1;
    }
    (1..=4).contains(&groups).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_specified() {
        for (text, expected) in [
            ("500ms", Some(500)),
            ("0s", Some(0)),
            ("1m30s", Some(90_000)),
            ("1h1m1s1ms", Some(3_661_001)),
            ("", None),
            ("5", None),
            ("1.5s", None),
            ("100000s", None),
            ("1s1s1s1s1s", None),
        ] {
            assert_eq!(duration(text), expected.map(Duration::from_millis), "{text}");
        }
    }
}
