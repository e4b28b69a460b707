//! One Ingress by itself, with every value parsed. [`merge`](super::merge) decides what it means on a host that it shares with others.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock, OnceLock};

use fairway_model::{CaptureTemplate, HostPattern, Hostname, InvalidPathMatch, Origin, PathRegex, Template};
use k8s_openapi::api::networking::v1::{HTTPIngressPath, Ingress, IngressBackend, IngressSpec, IngressTLS};

use super::backend_tls::{self, TlsPolicy};
use super::client_auth::{self, ClientAuth};
use super::headers::HeaderMaps;
use super::inspect::inspect;
use crate::annotation::{self, Annotations, Denial, IngressAnnotations, Rules};
use crate::config::variable::without_value;
use crate::diagnostic::{Diagnostic, Reason, Severity};
use crate::limit;
use crate::objects::{Kind, ObjectKey};
use crate::options::Options;
use crate::policy::user_auth::{self, UserAuth};
use crate::policy::wishes::wishes;
use crate::policy::{NOT_CANONICAL, external_auth, is_never_sent};
use crate::resource::backend::{BackendKey, BackendPort};
use crate::resource::{Age, Aged, Owner, Secrets};
use crate::value::{HostAlias, ObjectRef, RewriteTarget};

/// The contents of one Ingress.
#[derive(Debug)]
pub(crate) struct Part {
    /// The Ingress as an owner of its backends and Secrets.
    pub(crate) owner: Arc<Owner>,
    pub(crate) origin: Origin,
    pub(crate) annotations: Arc<IngressAnnotations>,
    /// Each host once, in the order of the rules.
    pub(crate) hosts: Vec<HostRules>,
    /// `spec.defaultBackend`, if it is a Service.
    pub(crate) default_backend: Option<Box<BackendKey>>,
    /// Whether there are no rules at all, so that the default backend serves the catch-all.
    pub(crate) catch_all: bool,
    /// The Service of the `default-backend` annotation.
    pub(crate) fallback: Option<Box<BackendKey>>,
    /// The services of `auth-url`, each with the host whose requests it decides about.
    pub(crate) auth_backends: Box<[(HostPattern, BackendKey)]>,
    /// The backend that requests are mirrored to.
    pub(crate) mirror: Option<Box<BackendKey>>,
    pub(crate) tls: Vec<Tls>,
    /// The Secret for TLS to backends.
    pub(crate) backend_secret: Option<Box<ObjectKey>>,
    /// The Secret for client certificates.
    pub(crate) client_secret: Option<Box<ObjectKey>>,
    /// The Secret with the users of basic authentication.
    pub(crate) user_secret: Option<Box<ObjectKey>>,
    /// The ConfigMaps with its headers.
    pub(crate) header_maps: Option<Box<HeaderMaps>>,
    /// Names of `server-alias`.
    pub(crate) aliases: Vec<HostPattern>,
    /// All referenced backends, each with the first field that refers to it.
    pub(crate) backends: Vec<(BackendKey, Referrer)>,
    pub(crate) diagnostics: Vec<Diagnostic>,
}

impl Aged for Part {
    fn age(&self) -> &Age {
        &self.owner.age
    }
}

/// The part of an Ingress about one host.
#[derive(Debug)]
pub(crate) struct HostRules {
    pub(crate) pattern: HostPattern,
    pub(crate) paths: Vec<PathRule>,
}

/// One path of a rule.
#[derive(Debug)]
pub(crate) struct PathRule {
    /// Its position: rule and path.
    pub(crate) place: (u32, u32),
    /// The path as written; `/` if it is empty.
    pub(crate) text: Box<str>,
    pub(crate) kind: PathKind,
    pub(crate) target: Target,
    /// The text as a pattern, for regex mode: compiled when first needed, and only once.
    regex: OnceLock<Box<Result<PathRegex, InvalidPathMatch>>>,
}

/// The three path types; `ImplementationSpecific` and an absent one count as `Prefix`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum PathKind {
    Exact,
    Prefix,
    Any,
}

/// The field that refers to a backend.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Referrer {
    /// A path, by rule and path.
    Path(u32, u32),
    /// `spec.defaultBackend`.
    DefaultBackend,
    /// The `default-backend` annotation.
    Annotation,
    /// The `auth-url` annotation.
    ExternalAuth,
    /// The `mirror-target` annotation.
    Mirror,
}

impl Referrer {
    /// The field, as diagnostics spell it.
    pub(crate) fn field(self, annotations_prefix: &str) -> String {
        match self {
            Self::Path(rule, path) => format!("spec.rules[{rule}].http.paths[{path}].backend.service"),
            Self::DefaultBackend => "spec.defaultBackend.service".to_owned(),
            Self::Annotation => format!("metadata.annotations[\"{annotations_prefix}/default-backend\"]"),
            Self::Mirror => format!("metadata.annotations[\"{annotations_prefix}/mirror-target\"]"),
            Self::ExternalAuth => format!("metadata.annotations[\"{annotations_prefix}/auth-url\"]"),
        }
    }
}

/// The destination of a path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum Target {
    Service(BackendKey),
    /// A Service that is described too incompletely to have a name: 503.
    Invalid,
}

/// One entry of `spec.tls`.
#[derive(Debug)]
pub(crate) struct Tls {
    /// Lower case.
    pub(crate) hosts: Vec<Box<str>>,
    /// Name of the Secret in the namespace of the Ingress.
    pub(crate) secret: Option<Arc<str>>,
}

impl PathRule {
    pub(crate) fn regex(&self) -> &Result<PathRegex, InvalidPathMatch> {
        self.regex.get_or_init(|| Box::new(self.text.parse()))
    }

    /// The part of the Ingress, as origins spell it.
    pub(crate) fn section(&self) -> String {
        format!("rules[{}].paths[{}]", self.place.0, self.place.1)
    }

    /// The field of the Ingress, as diagnostics spell it.
    pub(crate) fn field(&self, field: &str) -> String {
        format!("spec.rules[{}].http.paths[{}].{field}", self.place.0, self.place.1)
    }
}

impl Part {
    /// Whether the annotations of this Ingress put the location of this path into regex mode, and with it the whole host.
    pub(crate) fn is_regex(&self, path: &str) -> bool {
        self.annotations.rewriting.use_regex == Some(true) || self.rewrites(path)
    }

    /// Whether `rewrite-target` applies to this path.
    pub(crate) fn rewrites(&self, path: &str) -> bool {
        self.annotations.rewriting.rewrite_target.as_ref().is_some_and(|target| target.as_str() != path)
    }

    /// The object.
    pub(crate) fn key(&self) -> &ObjectKey {
        &self.owner.key
    }

    /// The Secrets of its `spec.tls`, with their positions.
    pub(crate) fn tls_secrets(&self) -> impl Iterator<Item = (usize, ObjectKey)> {
        self.tls.iter().enumerate().filter_map(|(at, tls)| Some((at, self.secret_key(tls.secret.as_ref()?))))
    }

    /// The key of a Secret in the namespace of the Ingress.
    pub(crate) fn secret_key(&self, name: &Arc<str>) -> ObjectKey {
        ObjectKey { kind: Kind::Secret, namespace: self.owner.key.namespace.clone(), name: name.clone() }
    }

    /// All Secrets that it refers to.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = ObjectKey> {
        let others = self.backend_secret.iter().chain(&self.client_secret).chain(&self.user_secret);
        self.tls_secrets().map(|(_, key)| key).chain(others.map(|key| (**key).clone()))
    }

    /// What it demands of clients, if it names a Secret for it.
    pub(crate) fn client_auth(&self, secrets: &Secrets) -> Option<ClientAuth> {
        let key = self.client_secret.as_deref()?;
        client_auth::build(&self.annotations.client_certificates, key, secrets.for_backends(key))
    }

    /// The users of basic authentication, if it is required.
    pub(crate) fn user_auth(&self, secrets: &Secrets) -> Option<UserAuth> {
        let key = self.user_secret.as_deref()?;
        Some(user_auth::build(&self.annotations.user_auth, key, secrets.newest(key)))
    }

    /// How many of its users have no hash that can be checked.
    pub(crate) fn users_left_out(&self, secrets: &Secrets) -> usize {
        let secret = self.user_secret.as_deref().and_then(|key| secrets.newest(key));
        user_auth::left_out(&self.annotations.user_auth, secret)
    }

    /// TLS to its backends, if it names a Secret for it.
    pub(crate) fn backend_tls(&self, secrets: &Secrets) -> Option<TlsPolicy> {
        let key = self.backend_secret.as_deref()?;
        Some(match secrets.for_backends(key) {
            Ok(secret) => backend_tls::build(&self.annotations.backend_tls, key, secret),
            Err(why) => Err(why.into()),
        })
    }

    /// The hosts that it affects.
    pub(crate) fn patterns(&self) -> impl Iterator<Item = HostPattern> {
        let catch_all = self.catch_all && self.default_backend.is_some();
        let hosts = self.hosts.iter().map(|rules| rules.pattern.clone());
        hosts.chain(catch_all.then_some(HostPattern::Any))
    }
}

/// The shared value of the many Ingresses that have no annotation under our prefix.
static NO_ANNOTATIONS: LazyLock<Arc<IngressAnnotations>> = LazyLock::new(Arc::default);

/// Why a version of an Ingress must not be loaded.
#[derive(Debug)]
pub(crate) struct Unloadable {
    /// The reasons.
    pub(crate) diagnostics: Vec<Diagnostic>,
    /// What to serve if no earlier version can be: if the Ingress may restrict access, its hosts and paths, which answer 503.
    pub(crate) denying: Option<Box<Denying>>,
}

/// An Ingress that only denies.
#[derive(Debug)]
pub(crate) struct Denying {
    pub(crate) part: Part,
    /// What its author must know.
    pub(crate) finding: Diagnostic,
}

impl Unloadable {
    fn new(
        diagnostics: Vec<Diagnostic>,
        ingress: &Ingress,
        key: &ObjectKey,
        age: Age,
        inputs: (&Rules, &Options),
    ) -> Self {
        Self { diagnostics, denying: Denying::new(ingress, key, age, inputs).map(Box::new) }
    }
}

impl Denying {
    fn new(ingress: &Ingress, key: &ObjectKey, age: Age, (rules, options): (&Rules, &Options)) -> Option<Self> {
        let origin = key.origin();
        let all = Annotations::new(&origin, &options.annotations_prefix, ingress.metadata.annotations.as_ref()?);
        let (annotations, by) = annotation::denying(&all, rules)?;
        let then = match annotations.denial {
            Denial::Hosts => "the hosts of this Ingress answer 503",
            _ => "all paths of this Ingress answer 503",
        };
        let message =
            format!("it may restrict access and can't be applied while this version is not loaded, so {then}");
        let (severity, reason) = (Severity::Error, Reason::AccessDenied);
        let finding = Diagnostic::new(severity, reason, &origin, all.field(by), "", message).unserved();
        let empty = IngressSpec::default();
        let spec = ingress.spec.as_ref().unwrap_or(&empty);
        // Its faults are told with the reasons.
        let mut reading = PartReading::new(key, &origin, Vec::new());
        reading.rules(spec);
        // No request gets to a Service, so this Ingress decides nothing about those that it shares with others.
        reading.hosts.iter_mut().flat_map(|rules| &mut rules.paths).for_each(|rule| rule.target = Target::Invalid);
        reading.backends.clear();
        reading.seen.clear();
        let aliases = reading.aliases(&annotations, &options.annotations_prefix);
        let catch_all = spec.rules.as_ref().is_none_or(Vec::is_empty);
        let default_backend = spec.default_backend.as_ref().filter(|_| catch_all);
        let default_backend = default_backend.and_then(|backend| reading.default_backend(backend));
        let (backends, hosts) = (reading.backends, reading.hosts);
        let secret = |secret: &ObjectRef| {
            Box::new(ObjectKey::new(Kind::Secret, secret.namespace.as_str(), secret.name.as_str()))
        };
        let part = Part {
            owner: Owner { key: key.clone(), age, wishes: wishes(&annotations) }.into(),
            header_maps: None,
            hosts,
            default_backend: default_backend.map(Box::new),
            catch_all,
            fallback: None,
            auth_backends: Box::default(),
            mirror: None,
            tls: spec.tls.iter().flatten().map(Tls::read).collect(),
            backend_secret: None,
            client_secret: annotations.client_secret.as_ref().map(secret),
            user_secret: None,
            aliases,
            backends,
            diagnostics: Vec::new(),
            annotations: annotations.into(),
            origin,
        };
        Some(Self { part, finding })
    }
}

/// Reads an Ingress that is ours.
///
/// # Errors
/// This version must not be loaded.
pub(crate) fn parse(
    ingress: &Ingress,
    key: &ObjectKey,
    age: Age,
    rules: &Rules,
    options: &Options,
) -> Result<Part, Unloadable> {
    let origin = key.origin();
    let mut diagnostics = Vec::new();
    let empty = IngressSpec::default();
    let spec = ingress.spec.as_ref().unwrap_or(&empty);
    if options.deep_inspect
        && let Some((field, value, what)) = inspect(spec)
    {
        let message = format!("looks like {what}; this version of the Ingress is not loaded (--deep-inspect)");
        diagnostics.push(Diagnostic::new(Severity::Error, Reason::SuspiciousText, &origin, field, value, message));
        return Err(Unloadable::new(diagnostics, ingress, key, age, (rules, options)));
    }
    // The other faults of a version that is not loaded are reported all the same.
    let mut rejected = false;
    let annotations = match &ingress.metadata.annotations {
        Some(all) => {
            let all = Annotations::new(&origin, &options.annotations_prefix, all);
            let read = annotation::read(&all, rules, &mut diagnostics);
            rejected |= read.is_err();
            match read {
                Ok(read) if read != IngressAnnotations::default() => read.into(),
                _ => NO_ANNOTATIONS.clone(),
            }
        }
        None => NO_ANNOTATIONS.clone(),
    };
    let mut reading = PartReading::new(key, &origin, diagnostics);
    reading.rules(spec);
    let default_backend = spec.default_backend.as_ref().and_then(|backend| reading.default_backend(backend));
    let fallback = annotations.proxying.default_backend.as_ref().map(|name| {
        let fallback = BackendKey::new(key.namespace.clone(), name.as_str(), BackendPort::First);
        reading.refer(&fallback, Referrer::Annotation);
        fallback
    });
    let catch_all = spec.rules.as_ref().is_none_or(Vec::is_empty);
    if catch_all && spec.default_backend.is_none() {
        let message = "expected rules or a default backend; the Ingress serves nothing";
        reading.report(Severity::Warning, Reason::InvalidBackend, "spec".into(), "", message);
    }
    if annotations.proxying.http_errors.is_some() && fallback.is_none() && options.default_backend_service.is_none() {
        let field = format!("metadata.annotations[\"{}/custom-http-errors\"]", options.annotations_prefix);
        let message = "expected a default backend as well, by the annotation default-backend or --default-backend-service: there is none to \
                       replace the errors, so they stay what they are";
        reading.report(Severity::Warning, Reason::IneffectiveAnnotation, field, "", message);
    }
    let auth_backends = reading.external_auth(&annotations, catch_all, options);
    let mirror = annotations.proxying.mirror_target.as_deref();
    let mirror = mirror.and_then(|target| external_auth::backend(&target.0, &HostPattern::Any, options));
    if let Some(mirror) = &mirror {
        reading.refer(mirror, Referrer::Mirror);
    }
    let aliases = reading.aliases(&annotations, &options.annotations_prefix);
    reading.rewrite_variables(&annotations, &options.annotations_prefix);
    reading.rewrite_form(&annotations, &options.annotations_prefix);
    reading.rewrite_groups(&annotations, &options.annotations_prefix);
    reading.variables(&annotations, &options.annotations_prefix);
    let PartReading { mut diagnostics, mut backends, mut hosts, .. } = reading;
    if rejected {
        return Err(Unloadable::new(diagnostics, ingress, key, age, (rules, options)));
    }
    // There may be tens of thousands of these.
    diagnostics.shrink_to_fit();
    backends.shrink_to_fit();
    hosts.iter_mut().for_each(|rules| rules.paths.shrink_to_fit());
    hosts.shrink_to_fit();
    let secret =
        |secret: &ObjectRef| Box::new(ObjectKey::new(Kind::Secret, secret.namespace.as_str(), secret.name.as_str()));
    let backend_secret = annotations.backend_secret.as_ref().map(secret);
    let user_secret = annotations.user_secret.as_ref().map(secret);
    let client_secret = annotations.client_secret.as_ref().map(secret);
    Ok(Part {
        owner: Owner { key: key.clone(), age, wishes: wishes(&annotations) }.into(),
        header_maps: HeaderMaps::of(&annotations),
        annotations,
        hosts,
        default_backend: default_backend.map(Box::new),
        catch_all,
        fallback: fallback.map(Box::new),
        auth_backends,
        mirror: mirror.map(Box::new),
        tls: spec.tls.iter().flatten().map(Tls::read).collect(),
        backend_secret,
        client_secret,
        user_secret,
        aliases,
        backends,
        diagnostics,
        origin,
    })
}

struct PartReading<'a> {
    key: &'a ObjectKey,
    origin: &'a Origin,
    diagnostics: Vec<Diagnostic>,
    backends: Vec<(BackendKey, Referrer)>,
    seen: HashSet<BackendKey>,
    hosts: Vec<HostRules>,
}

impl<'a> PartReading<'a> {
    fn new(key: &'a ObjectKey, origin: &'a Origin, diagnostics: Vec<Diagnostic>) -> Self {
        Self { key, origin, diagnostics, backends: Vec::new(), seen: HashSet::new(), hosts: Vec::new() }
    }

    fn rules(&mut self, spec: &IngressSpec) {
        let mut by_pattern: HashMap<HostPattern, usize> = HashMap::new();
        for (at, rule) in spec.rules.iter().flatten().enumerate() {
            let text = rule.host.as_deref().unwrap_or_default();
            let Some(pattern) = host(text) else {
                let field = format!("spec.rules[{at}].host");
                let message = "expected a DNS name, or `*.` and a DNS name; the rule is ignored";
                self.report(Severity::Error, Reason::InvalidHost, field, text, message);
                continue;
            };
            let slot = *by_pattern.entry(pattern.clone()).or_insert_with(|| {
                self.hosts.push(HostRules { pattern, paths: Vec::new() });
                self.hosts.len() - 1
            });
            for (path_at, path) in rule.http.iter().flat_map(|http| &http.paths).enumerate() {
                let place = (u32::try_from(at).unwrap_or(u32::MAX), u32::try_from(path_at).unwrap_or(u32::MAX));
                if let Some(path) = self.path(place, path) {
                    self.hosts[slot].paths.push(path);
                }
            }
        }
    }

    fn path(&mut self, place: (u32, u32), path: &HTTPIngressPath) -> Option<PathRule> {
        let field = |name: &str| format!("spec.rules[{}].http.paths[{}].{name}", place.0, place.1);
        let kind = match path.path_type.as_str() {
            "Exact" => PathKind::Exact,
            "Prefix" => PathKind::Prefix,
            "ImplementationSpecific" | "" => PathKind::Any,
            other => {
                let message = "expected Exact, Prefix or ImplementationSpecific; Prefix holds instead";
                self.report(Severity::Warning, Reason::InvalidPath, field("pathType"), other, message);
                PathKind::Prefix
            }
        };
        let text = path.path.as_deref().filter(|text| !text.is_empty()).unwrap_or("/");
        if !text.starts_with('/') {
            let message = "expected a path that starts with /; no request has another, so the path is ignored";
            self.report(Severity::Error, Reason::InvalidPath, field("path"), text, message);
            return None;
        }
        let target = match &path.backend {
            IngressBackend { service: Some(_), .. } => {
                self.service(&path.backend, Referrer::Path(place.0, place.1)).map_or(Target::Invalid, Target::Service)
            }
            IngressBackend { resource: Some(resource), .. } => {
                let message = "expected a Service: backends of other kinds are not served; the path is ignored, and what the host \
                               has for all other paths answers";
                let value = format!("{} {}", resource.kind, resource.name);
                self.report(Severity::Error, Reason::UnsupportedBackend, field("backend.resource"), &value, message);
                return None;
            }
            _ => {
                let message =
                    "expected a Service; the path is ignored, and its requests go where the host's other paths lead";
                self.report(Severity::Error, Reason::InvalidBackend, field("backend"), "", message);
                return None;
            }
        };
        Some(PathRule { place, text: text.into(), kind, target, regex: OnceLock::new() })
    }

    fn default_backend(&mut self, backend: &IngressBackend) -> Option<BackendKey> {
        if backend.service.is_some() {
            return self.service(backend, Referrer::DefaultBackend);
        }
        let message = "expected a Service: backends of other kinds are not served; it is ignored";
        let value = backend.resource.as_ref().map(|resource| format!("{} {}", resource.kind, resource.name));
        let field = "spec.defaultBackend".to_owned();
        self.report(Severity::Error, Reason::UnsupportedBackend, field, value.as_deref().unwrap_or_default(), message);
        None
    }

    fn service(&mut self, backend: &IngressBackend, referrer: Referrer) -> Option<BackendKey> {
        let service = backend.service.as_ref()?;
        if !is_name(&service.name) || !is_name(&self.key.namespace) {
            let field = referrer.field("") + ".name";
            let message = "expected the name of a Service; the path answers 503";
            self.report(Severity::Error, Reason::InvalidBackend, field, &service.name, message).unserved = true;
            return None;
        }
        let port = service.port.as_ref();
        let name = port.and_then(|port| port.name.as_deref()).filter(|name| !name.is_empty());
        let number = port.and_then(|port| port.number).filter(|number| *number != 0);
        let port = match (name, number) {
            (Some(name), _) if is_name(name) => BackendPort::named(name),
            (None, Some(number)) => BackendPort::Number(number),
            _ => {
                let field = referrer.field("") + ".port";
                let message = "expected the name or the number of a port; the path answers 503";
                let value = name.unwrap_or_default();
                self.report(Severity::Error, Reason::InvalidBackend, field, value, message).unserved = true;
                return None;
            }
        };
        let backend = BackendKey::new(self.key.namespace.clone(), &service.name, port);
        self.refer(&backend, referrer);
        Some(backend)
    }

    fn refer(&mut self, backend: &BackendKey, referrer: Referrer) {
        if self.seen.insert(backend.clone()) {
            self.backends.push((backend.clone(), referrer));
        }
    }

    /// The backends that `auth-url` names, one for each host if it names the host of the request.
    fn external_auth(
        &mut self,
        annotations: &IngressAnnotations,
        catch_all: bool,
        options: &Options,
    ) -> Box<[(HostPattern, BackendKey)]> {
        let (external, prefix) = (&annotations.external_auth, &options.annotations_prefix);
        let mut backends = Vec::new();
        let Some(url) = &external.url else { return Box::default() };
        let hosts: Vec<_> = self.hosts.iter().map(|rules| rules.pattern.clone()).collect();
        for pattern in hosts.into_iter().chain(catch_all.then_some(HostPattern::Any)) {
            match external_auth::backend(url, &pattern, options) {
                Some(backend) => {
                    self.refer(&backend, Referrer::ExternalAuth);
                    backends.push((pattern, backend));
                }
                None => {
                    let field = format!("metadata.annotations[\"{prefix}/auth-url\"]");
                    let message = format!(
                        "$host works only for hosts with a single name, and {pattern} is not one; its paths answer 503"
                    );
                    let (severity, reason) = (Severity::Error, Reason::AnnotationParsingFailed);
                    self.report(severity, reason, field, &url.host, &message).unserved = true;
                }
            }
        }
        let texts = [
            ("auth-url", Some(url.target.clone())),
            ("auth-signin", external.sign_in.as_ref().map(|url| Template::parse(url.as_str()))),
            ("auth-request-redirect", external.request_redirect.as_ref().map(|url| Template::parse(url.as_str()))),
        ];
        for (name, template) in texts.into_iter().filter_map(|(name, template)| Some((name, template?))) {
            let field = format!("metadata.annotations[\"{prefix}/{name}\"]");
            // The service would decide about something else than the author meant. The sign-in page restricts nothing.
            let denies = name != "auth-signin";
            let then = if denies { "; all paths of this Ingress answer 503" } else { "; it is empty" };
            for (variable, severity, message) in without_value(template.unknown(), then) {
                let severity = if denies { Severity::Error } else { severity };
                let reason = Reason::AnnotationParsingFailed;
                self.report(severity, reason, field.clone(), variable, &message).unserved = denies;
            }
        }
        backends.into()
    }

    fn aliases(&mut self, annotations: &IngressAnnotations, prefix: &str) -> Vec<HostPattern> {
        let mut patterns = Vec::new();
        let mut seen = HashSet::new();
        let field = || format!("metadata.annotations[\"{}/server-alias\"]", prefix);
        for alias in annotations.hosts.aliases.iter().flat_map(|aliases| &aliases.0) {
            if seen.len() == limit::ALIASES {
                let message = format!("expected at most {} names; the others are ignored", limit::ALIASES);
                self.report(Severity::Error, Reason::InvalidHost, field(), "", &message);
                break;
            }
            let text = match alias {
                HostAlias::Exact(name) => name.clone(),
                HostAlias::Below(name) => format!("**.{name}"),
                HostAlias::Before(name) => format!("{name}.*"),
                HostAlias::Regex(pattern) => format!("~{pattern}"),
            };
            match HostPattern::parse(&text) {
                Ok(pattern) => {
                    if seen.insert(pattern.clone()) {
                        patterns.push(pattern);
                    }
                }
                Err(_) => {
                    let message = "expected a host name, or a regex that runs in linear time and is not too large; \
                                   this alias is ignored";
                    self.report(Severity::Error, Reason::InvalidHost, field(), &text, message);
                }
            }
        }
        patterns
    }

    /// nginx would expand variables in the target, and the annotation's alphabet allows them.
    fn rewrite_variables(&mut self, annotations: &IngressAnnotations, prefix: &str) {
        let Some(target) = &annotations.rewriting.rewrite_target else { return };
        let text = target.as_str();
        let variable =
            text.split('$').skip(1).any(|rest| rest.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_'));
        if !variable {
            return;
        }
        let field = format!("metadata.annotations[\"{prefix}/rewrite-target\"]");
        let (severity, message) = match target {
            RewriteTarget::Path(_) => {
                (Severity::Warning, "expected captures $1 to $9 only; nginx variables are sent as they are written")
            }
            RewriteTarget::Url(_) => (
                Severity::Error,
                "expected captures $1 to $9 only: redirects with nginx variables aren't built; the paths answer 503",
            ),
        };
        self.report(severity, Reason::InvalidPath, field, text, message).unserved = severity == Severity::Error;
    }

    /// Paths that a backend could read as others are not sent.
    fn rewrite_form(&mut self, annotations: &IngressAnnotations, prefix: &str) {
        let Some(target) = &annotations.rewriting.rewrite_target else { return };
        if is_never_sent(target) {
            let field = format!("metadata.annotations[\"{prefix}/rewrite-target\"]");
            let message = format!("{NOT_CANONICAL}; the paths answer 400");
            self.report(Severity::Error, Reason::InvalidPath, field, target.as_str(), &message);
        }
    }

    /// Reports groups that a path doesn't have: they are empty, so that all of its requests get the same path.
    fn rewrite_groups(&mut self, annotations: &IngressAnnotations, prefix: &str) {
        let Some(target) = annotations.rewriting.rewrite_target.as_ref().filter(|_| !annotations.is_canary()) else {
            return;
        };
        let text = target.as_str();
        let most = CaptureTemplate::from(text).groups();
        if most == 0 {
            return;
        }
        let lacks = |rule: &&PathRule| {
            let groups = rule.regex().as_ref().map(PathRegex::groups);
            &*rule.text != text && groups.is_ok_and(|groups| groups < most)
        };
        let paths: Vec<_> = self.hosts.iter().flat_map(|rules| &rules.paths).filter(lacks).collect();
        let Some(first) = paths.first() else { return };
        let path = crate::diagnostic::bounded(&first.text);
        let others = match paths.len() - 1 {
            0 => String::new(),
            1 => " and another path".to_owned(),
            others => format!(" and {others} other paths"),
        };
        let bare = path.trim_end_matches('/');
        let example = match most {
            1 => format!(", such as {bare}/(.*)"),
            2 => format!(", such as {bare}(/|$)(.*)"),
            _ => String::new(),
        };
        let is_literal = path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-_~".contains(&byte));
        let example = if is_literal { example } else { String::new() };
        let groups = if most == 1 { "a group".to_owned() } else { format!("{most} groups") };
        let message = format!(
            "expected paths with {groups} in parentheses{example}: at {path}{others} ${most} is empty, whatever the rest of the path is"
        );
        let field = format!("metadata.annotations[\"{prefix}/rewrite-target\"]");
        self.report(Severity::Warning, Reason::InvalidPath, field, text, &message);
    }

    /// Reports variables without a value, with which nginx would not start.
    fn variables(&mut self, annotations: &IngressAnnotations, prefix: &str) {
        let hash_by = annotations.balancing.hash_by.as_ref().map(|key| key.as_str());
        let vhost = annotations.proxying.vhost.as_ref().map(|vhost| vhost.as_str());
        for (name, text) in [("upstream-hash-by", hash_by), ("upstream-vhost", vhost)] {
            let Some(text) = text.filter(|text| text.contains('$')) else { continue };
            let field = format!("metadata.annotations[\"{prefix}/{name}\"]");
            let template = Template::parse(text);
            for (variable, severity, message) in without_value(template.unknown(), "; it is empty") {
                self.report(severity, Reason::AnnotationParsingFailed, field.clone(), variable, &message);
            }
        }
    }

    fn report(
        &mut self,
        severity: Severity,
        reason: Reason,
        field: String,
        value: &str,
        message: &str,
    ) -> &mut Diagnostic {
        self.diagnostics.push_mut(Diagnostic::new(severity, reason, self.origin, field, value, message))
    }
}

impl Tls {
    fn read(tls: &IngressTLS) -> Self {
        Self {
            hosts: tls.hosts.iter().flatten().map(|host| host.to_ascii_lowercase().into()).collect(),
            secret: tls.secret_name.as_deref().filter(|name| !name.is_empty()).map(Into::into),
        }
    }
}

/// The pattern of a rule's host: a name, `*.` and a name, or nothing for all names.
fn host(text: &str) -> Option<HostPattern> {
    if text.is_empty() {
        return Some(HostPattern::Any);
    }
    match text.strip_prefix("*.") {
        Some(parent) => parent.parse().ok().map(HostPattern::Label),
        None => text.parse::<Hostname>().ok().map(HostPattern::Exact),
    }
}

/// Whether the text is a valid name of a Kubernetes object or port, so that joined names stay distinct.
fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    !text.is_empty() && text.len() <= 253 && text.bytes().all(allowed)
}
