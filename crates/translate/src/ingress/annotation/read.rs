//! Reads the annotations of one Ingress in one pass.

use super::{
    Access, Affinity, Annotations, BackendTls, Balancing, CanaryRelease, ClientCertificates, CrossOrigin, Denial,
    ExternalAuthentication, HealthChecks, HostLevel, Known, Logging, Meanwhile, Observation, OnInvalid, Proxying,
    Redirects, RequestLimits, Snippets, Traces, UserAuthentication,
};
use super::{Rewriting, known, names};
use crate::diagnostic::{Diagnostic, Reason, Severity};
use crate::limit;
use crate::report::external_dns;
use crate::snippet::{self, LocationSnippet};
use crate::value::{AuthUrl, BackendProtocol, HostAliases, ObjectRef, RiskLevel, Switch, Value};
use crate::verdict::{Verdict, nearest};

/// The annotations of one Ingress, parsed.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
pub struct IngressAnnotations {
    /// How paths are matched and rewritten.
    pub rewriting: Rewriting,
    /// Redirects.
    pub redirects: Redirects,
    /// Settings of whole hosts.
    pub hosts: HostLevel,
    /// Client access.
    pub access: Access,
    /// Limits for clients.
    pub limits: RequestLimits,
    /// The access log.
    pub logging: Logging,
    /// Traces.
    pub traces: Traces,
    /// Basic authentication.
    pub user_auth: UserAuthentication,
    /// The Secret with its users, if there may be one.
    pub user_secret: Option<ObjectRef>,
    /// External authentication.
    pub external_auth: ExternalAuthentication,
    /// Cross-origin resource sharing.
    pub cross_origin: CrossOrigin,
    /// Client certificates.
    pub client_certificates: ClientCertificates,
    /// The Secret for client certificates, if there may be one.
    pub client_secret: Option<ObjectRef>,
    /// Snippets, read as data.
    pub snippets: Snippets,
    /// Forwarding.
    pub proxying: Proxying,
    /// TLS to backends.
    pub backend_tls: BackendTls,
    /// The Secret for TLS to backends, if there may be one.
    pub backend_secret: Option<ObjectRef>,
    /// How an endpoint is chosen.
    pub balancing: Balancing,
    /// How the health of endpoints is checked.
    pub health: HealthChecks,
    /// Reports about its changes.
    pub observation: Observation,
    /// Session affinity.
    pub affinity: Affinity,
    /// Canaries.
    pub canary: CanaryRelease,
    /// What must answer 503, whatever else the annotations say.
    pub denial: Denial,
    /// The annotation that demands it, with its value.
    pub denied_by: Option<Box<str>>,
}

impl IngressAnnotations {
    /// Whether the Ingress is a canary.
    pub(crate) fn is_canary(&self) -> bool {
        self.canary.enabled == Some(true)
    }

    /// Whether they restrict who has access.
    pub(crate) fn restricts_access(&self) -> bool {
        self.access.allow.is_some()
            || self.access.deny.is_some()
            || self.client_secret.is_some()
            || self.user_auth.kind.is_some()
            || self.external_auth.url.is_some()
            || self.snippets.configuration.as_ref().is_some_and(LocationSnippet::restricts)
            || self.denial != Denial::None
    }
}

/// This version of the Ingress must not be loaded; the diagnostics have the reasons.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, thiserror::Error)]
#[error("the annotations of the Ingress are not acceptable")]
pub struct Rejected;

/// The operator's rules for annotations.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Rules {
    /// ConfigMap `annotations-risk-level`: annotations above it are not accepted.
    pub risk_level: RiskLevel,
    /// ConfigMap `annotation-value-word-blocklist`: words that values must not contain.
    pub word_blocklist: Vec<String>,
    /// `--enable-ssl-passthrough`.
    pub ssl_passthrough: bool,
    /// ConfigMap `allow-snippet-annotations`. Snippets are never run. If true, an Ingress with an unreadable one is denied, since the
    /// snippet may contain a restriction; if false, they are dropped, as in ingress-nginx.
    pub snippets: bool,
    /// ConfigMap `allow-cross-namespace-resources`: annotations may name Secrets of other namespaces.
    pub other_namespaces: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            risk_level: RiskLevel::High,
            word_blocklist: Vec::new(),
            ssl_passthrough: false,
            snippets: false,
            other_namespaces: false,
        }
    }
}

/// Annotations that restrict access to a host or path.
const RESTRICTIONS: [&str; 8] = [
    "allowlist-source-range",
    "denylist-source-range",
    "auth-tls-secret",
    "auth-type",
    "auth-url",
    "limit-connections",
    "limit-rps",
    "limit-rpm",
];

/// Whether an annotation counts. An empty value is the same as none, except for a URL, which a template may have lost: it was meant to restrict
/// access.
fn is_present(known: &Known, value: &str) -> bool {
    !value.is_empty() || known.spec.name == "auth-url"
}

/// Whether an annotation restricts who has access, or may do so if it is read in full.
fn may_restrict(known: &Known, value: &str) -> bool {
    let spec = known.spec;
    let limits = matches!(spec.name, "limit-rps" | "limit-rpm" | "limit-connections");
    let unlimited = limits && i64::parse(value).is_some_and(|limit| limit <= 0);
    let restricts = RESTRICTIONS.contains(&spec.name)
        || spec.name.starts_with("auth-")
        || spec.on_invalid == OnInvalid::Deny
        || matches!(spec.meanwhile, Meanwhile::Deny(_) | Meanwhile::DenySnippet(_));
    restricts && !unlimited && !spec.is_neutral(value)
}

/// The annotations to serve in place of those of an Ingress that must not be loaded, if any of these may restrict access; with its name.
/// They deny its paths, so that no wider route takes their requests, and keep whatever they demand for its hosts as a whole. If that can't be
/// known, they deny the hosts.
pub(crate) fn denying(annotations: &Annotations<'_>, rules: &Rules) -> Option<(IngressAnnotations, &'static str)> {
    let all = || {
        let known = annotations.iter().filter_map(|(name, value)| Some((known(name)?, value)));
        known.filter(|(known, value)| is_present(known, value))
    };
    let (restricting, its_value) = all().find(|(known, value)| may_restrict(known, value))?;
    let mut diagnostics = Vec::new();
    let mut reading = Reading::new(annotations, rules, &mut diagnostics);
    reading.all();
    reading.between_fields();
    let refused: Vec<(&Known, &str)> = all()
        .filter(|(known, value)| {
            known.spec.risk > rules.risk_level
                || forbidden_word(value, rules).is_some()
                || reading.refused.contains(&known.name)
        })
        .collect();
    let is_refused = |name: &str| refused.iter().any(|(known, _)| known.spec.name == name);
    let mut out = reading.out;
    // A canary serves no path of its own.
    if out.is_canary() {
        return None;
    }
    let is_set = |name: &str| all().any(|(known, _)| known.spec.name == name);
    let certificates = refused.iter().any(|(known, _)| known.spec.name.starts_with("auth-tls-"));
    let snippet = is_refused("server-snippet");
    let of_hosts = is_set("auth-tls-secret") && certificates || rules.snippets && snippet;
    let (cause, value) = refused.first().copied().unwrap_or((restricting, its_value));
    // What the paths match must stay what was meant.
    let target =
        || all().find(|(known, _)| known.spec.name == "rewrite-target").and_then(|(_, value)| Value::parse(value));
    let aliases = |value: &str| {
        let names = value.split(',').filter_map(HostAliases::parse);
        HostAliases(names.flat_map(|HostAliases(names)| names).collect())
    };
    let named = || all().find(|(known, _)| known.spec.name == "server-alias");
    let allowed =
        named().filter(|(known, value)| known.spec.risk <= rules.risk_level && forbidden_word(value, rules).is_none());
    let denial = if of_hosts { Denial::Hosts } else { Denial::Locations };
    let told = || {
        let text =
            format!("{}: {}", super::full_name(annotations.prefix, cause.name), crate::diagnostic::bounded(value));
        text.into()
    };
    let kept = IngressAnnotations {
        rewriting: Rewriting {
            rewrite_target: out.rewriting.rewrite_target.take().or_else(target),
            use_regex: out.rewriting.use_regex,
            forwarded_prefix: None,
        },
        redirects: Redirects {
            ssl_redirect: out.redirects.ssl_redirect,
            force_ssl_redirect: out.redirects.force_ssl_redirect,
            preserve_trailing_slash: out.redirects.preserve_trailing_slash,
            ..Redirects::default()
        },
        hosts: HostLevel {
            aliases: allowed.map(|(_, value)| aliases(value)),
            www_redirect: out.hosts.www_redirect,
            ciphers: out.hosts.ciphers.take(),
            server_order: out.hosts.server_order,
            ..HostLevel::default()
        },
        client_secret: out.client_secret.take().filter(|_| !certificates),
        client_certificates: if certificates { ClientCertificates::default() } else { out.client_certificates },
        snippets: Snippets { server: out.snippets.server.take().filter(|_| !snippet), configuration: None },
        denial: denial.max(out.denial),
        denied_by: out.denied_by.take().or_else(|| Some(told())),
        ..IngressAnnotations::default()
    };
    Some((kept, restricting.name))
}

/// Whether the operator accepts these annotations at all, whatever their meaning.
///
/// # Errors
/// The first annotation above the risk level or with a word of the blocklist. The Ingress must not be loaded.
pub fn screen(annotations: &Annotations<'_>, rules: &Rules) -> Result<(), Box<Diagnostic>> {
    let refused = |reason, name, value, message: String| {
        let field = annotations.field(name);
        Err(Box::new(Diagnostic::new(Severity::Error, reason, annotations.origin(), field, value, message)))
    };
    for (name, value) in annotations.iter() {
        let known = known(name).filter(|known| is_present(known, value));
        if let Some(known) = known.filter(|known| known.spec.risk > rules.risk_level) {
            let (risk, level) = (known.spec.risk.as_str(), rules.risk_level.as_str());
            let message = format!(
                "its risk is {risk}, annotations-risk-level allows {level}; this version of the Ingress is not loaded"
            );
            return refused(Reason::AnnotationTooRisky, name, "", message);
        }
        if let Some(word) = forbidden_word(value, rules) {
            let message = format!(
                "holds \"{}\", which annotation-value-word-blocklist forbids; this version of the Ingress is not loaded",
                crate::diagnostic::bounded(word)
            );
            return refused(Reason::ForbiddenWord, name, value, message);
        }
    }
    Ok(())
}

/// The first word of the blocklist that a value contains.
pub(crate) fn forbidden_word<'r>(value: &str, rules: &'r Rules) -> Option<&'r str> {
    let is_word = |word: &&String| !word.is_empty() && value.contains(word.as_str());
    rules.word_blocklist.iter().find(is_word).map(String::as_str)
}

/// Reads all annotations of an Ingress, and reports everything that is wrong.
///
/// # Errors
/// The Ingress must not be loaded in this version; the diagnostics of severity `Error` have the reasons.
pub fn read(
    annotations: &Annotations<'_>,
    rules: &Rules,
    diagnostics: &mut Vec<Diagnostic>,
) -> Result<IngressAnnotations, Rejected> {
    let screened = screen(annotations, rules).map_err(|refused| diagnostics.push(*refused));
    let rejected = screened.is_err();
    let mut reading = Reading::new(annotations, rules, diagnostics);
    reading.all();
    for (prefix, name) in annotations.misspelt() {
        let message = format!("the prefix {prefix} is not read; did you mean {}/{name}?", annotations.prefix);
        let field = format!(
            "metadata.annotations[\"{}/{}\"]",
            crate::diagnostic::bounded(prefix),
            crate::diagnostic::bounded(name)
        );
        let (severity, reason) = (Severity::Warning, Reason::UnknownAnnotation);
        reading.diagnostics.push(Diagnostic::new(severity, reason, annotations.origin, field, "", message));
    }
    reading.diagnostics.extend(external_dns::finding(annotations.origin, annotations.all));
    reading.between_fields();
    if rejected || !reading.refused.is_empty() { Err(Rejected) } else { Ok(reading.out) }
}

struct Reading<'a> {
    annotations: &'a Annotations<'a>,
    rules: &'a Rules,
    diagnostics: &'a mut Vec<Diagnostic>,
    out: IngressAnnotations,
    /// The annotations because of which the Ingress must not be loaded, besides those that the operator doesn't accept.
    refused: Vec<&'static str>,
    unknown: usize,
}

impl<'a> Reading<'a> {
    fn new(annotations: &'a Annotations<'a>, rules: &'a Rules, diagnostics: &'a mut Vec<Diagnostic>) -> Self {
        Self { annotations, rules, diagnostics, out: IngressAnnotations::default(), refused: Vec::new(), unknown: 0 }
    }

    fn all(&mut self) {
        for (name, value) in self.annotations.iter() {
            match known(name) {
                Some(known) if known.spec.risk > self.rules.risk_level => {}
                Some(known) if is_present(known, value) => self.known(known, value),
                Some(_) => {}
                None => self.unknown(name),
            }
        }
    }

    fn known(&mut self, known: &Known, value: &str) {
        let spec = known.spec;
        if let Some(effective) = self.overruling(known) {
            let message = format!("an older name for {}; ignored, because {effective} is set", spec.name);
            self.report(Severity::Info, Reason::IneffectiveAnnotation, known.name, value, message);
            return;
        }
        let is_snippet = super::is_snippet(spec.name);
        if is_snippet && !self.rules.snippets {
            let mut message =
                "ignored, as in ingress-nginx: allow-snippet-annotations of the ConfigMap is false".to_owned();
            let mut severity = Severity::Warning;
            if snippet::may_have_restricted(spec.name, value) {
                severity = Severity::Error;
                message.push_str("; if it restricts access, what it closes is open");
            }
            self.report(severity, Reason::RefusedAnnotation, known.name, value, message);
            return;
        }
        match spec.verdict {
            Verdict::Same | Verdict::Differs(_) => {
                if !(known.set)(&mut self.out, spec.name, value) {
                    self.invalid(known, value);
                } else if is_snippet {
                    let message = format!("read as: {}", snippet::words(spec.name, value).join("; "));
                    self.report(Severity::Info, Reason::SnippetRead, known.name, "", message);
                }
            }
            Verdict::Harmless(text) => {
                self.report(
                    Severity::Info,
                    Reason::IneffectiveAnnotation,
                    known.name,
                    value,
                    format!("has no effect: {text}"),
                );
            }
            Verdict::NotYet(_) | Verdict::Refused { .. } => self.unbuilt(known, value),
        }
    }

    /// The name that is set and takes precedence over this one: an alias yields to the name and to earlier aliases.
    fn overruling(&self, known: &Known) -> Option<&'static str> {
        if known.spec.aliases.is_empty() {
            return None;
        }
        let by_rank = std::iter::once(known.spec.name).chain(known.spec.aliases.iter().copied());
        by_rank.take_while(|name| *name != known.name).find(|name| self.annotations.value(name).is_some())
    }

    fn invalid(&mut self, known: &Known, value: &str) {
        // A check that was requested but isn't understood must not be left out. `false` doesn't request one.
        let unchecked = || known.name == "proxy-ssl-verify" && bool::parse(value) != Some(false);
        let on_invalid = match known.spec.on_invalid {
            OnInvalid::Drop if unchecked() && self.annotations.value("proxy-ssl-secret").is_some() => OnInvalid::Deny,
            on_invalid => on_invalid,
        };
        let severity = match on_invalid {
            OnInvalid::Default | OnInvalid::Drop => Severity::Warning,
            OnInvalid::Deny => {
                self.deny(Denial::Locations, known.name, value);
                Severity::Error
            }
            OnInvalid::Reject => {
                self.refused.push(known.name);
                Severity::Error
            }
        };
        let (mut reason, mut value) = (Reason::AnnotationParsingFailed, value);
        // The syntax is long, so the message names the fault.
        let wrong = match known.name {
            "auth-url" => AuthUrl::read(value).err().map(|wrong| format!("{wrong}: ")),
            _ => None,
        };
        let mut message =
            format!("{}expected {}; {}", wrong.unwrap_or_default(), known.spec.syntax, on_invalid.consequence());
        if let Some(fault) = snippet::fault(known.spec.name, value) {
            let then = if known.spec.name == "server-snippet" {
                self.deny(Denial::Hosts, known.name, value);
                "the hosts of this Ingress answer 503"
            } else {
                on_invalid.consequence()
            };
            (reason, value) = (Reason::RefusedAnnotation, "");
            message = format!("refused as a whole: {fault}; {then}");
        }
        let found = self.report(severity, reason, known.name, value, message);
        found.unserved = on_invalid == OnInvalid::Deny;
    }

    fn unbuilt(&mut self, known: &Known, value: &str) {
        let spec = known.spec;
        let is_switch = spec.neutral.iter().any(|neutral| matches!(*neutral, "true" | "false"));
        match bool::parse(value) {
            None if is_switch => {
                let message = format!("expected {}; {}", bool::SYNTAX, spec.on_invalid.consequence());
                self.report(Severity::Warning, Reason::AnnotationParsingFailed, known.name, value, message);
                return;
            }
            _ if spec.is_neutral(value) => return,
            _ => {}
        }
        if let Some(Verdict::Harmless(text)) = super::without_effect(spec.name, self.annotations, self.rules) {
            let message = format!("has no effect: {text}");
            self.report(Severity::Info, Reason::IneffectiveAnnotation, known.name, value, message);
            return;
        }
        let denial = match spec.meanwhile {
            Meanwhile::Deny(denial) => denial,
            Meanwhile::DenySnippet(denial) if self.rules.snippets => denial,
            Meanwhile::Serve | Meanwhile::DenySnippet(_) | Meanwhile::Reject => Denial::None,
        };
        self.deny(denial, known.name, value);
        let (severity, then) = match (spec.meanwhile, denial) {
            (_, Denial::Locations) => (Severity::Error, "; all paths of this Ingress answer 503"),
            (_, Denial::Hosts) => (Severity::Error, "; the hosts of this Ingress answer 503"),
            (Meanwhile::Reject, _) => {
                self.refused.push(known.name);
                (Severity::Error, "; this Ingress is not loaded")
            }
            (_, Denial::None) => (Severity::Warning, ""),
        };
        let (reason, what) = match spec.verdict {
            Verdict::Refused { .. } => (Reason::RefusedAnnotation, "refused"),
            _ => (Reason::UnsupportedAnnotation, "not supported yet"),
        };
        let message = format!("{what}: {}{then}", spec.verdict.note());
        self.report(severity, reason, known.name, value, message).unserved = denial != Denial::None;
    }

    fn unknown(&mut self, name: &str) {
        self.unknown += 1;
        let message = match self.unknown {
            ..=limit::UNKNOWN_NAMES => match nearest(name, names()) {
                Some(near) => format!("no annotation of this name exists; did you mean {near}?"),
                None => "no annotation of this name exists".to_owned(),
            },
            _ => return,
        };
        self.report(Severity::Warning, Reason::UnknownAnnotation, name, "", message);
    }

    /// Rules between fields, or between a valid value and what is built.
    fn between_fields(&mut self) {
        if self.unknown > limit::UNKNOWN_NAMES {
            let message = format!("{} more annotations of unknown names", self.unknown - limit::UNKNOWN_NAMES);
            let origin = self.annotations.origin();
            let found = Diagnostic::new(
                Severity::Warning,
                Reason::UnknownAnnotation,
                origin,
                "metadata.annotations",
                "",
                message,
            );
            self.diagnostics.push(found);
        }

        let redirects = &mut self.out.redirects;
        let (permanent, temporal) = (redirects.permanent_code, redirects.temporal_code);
        redirects.permanent_code = permanent.filter(|code| (300..=308).contains(code));
        redirects.temporal_code = temporal.filter(|code| (300..=307).contains(code));
        self.out.balancing.hash_by_subset_size.take_if(|size| *size == 0);
        let is_web = |url: &str| {
            let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
            scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
        };
        let elsewhere = redirects.temporal.take_if(|url| !is_web(url.as_str()));
        if let Some(code) = permanent.filter(|code| !(300..=308).contains(code)) {
            let message = "expected a status from 300 to 308; 301 is used";
            self.warn("permanent-redirect-code", &code.to_string(), message);
        }
        if let Some(code) = temporal.filter(|code| !(300..=307).contains(code)) {
            let message = "expected a status from 300 to 307; 302 is used";
            self.warn("temporal-redirect-code", &code.to_string(), message);
        }
        if let Some(url) = elsewhere {
            self.warn("temporal-redirect", url.as_str(), "expected an http or https URL; it is ignored");
        }

        if self.out.proxying.protocol == Some(BackendProtocol::Fcgi) {
            let value = self.annotations.value("backend-protocol").unwrap_or_default();
            self.deny(Denial::Locations, "backend-protocol", value);
            let message = "FastCGI is not spoken to backends: put a web server in front of them, and name HTTP; all paths of this \
                           Ingress answer 503";
            let reason = Reason::UnsupportedAnnotation;
            self.report(Severity::Error, reason, "backend-protocol", value, message.to_owned()).unserved = true;
        }
        if self.out.cross_origin.origins.is_none() && self.annotations.value("cors-allow-origin").is_some() {
            // Nothing says that all origins were meant, so none is admitted.
            self.out.cross_origin.enabled = None;
        }
        if let Some(origins) = self.out.cross_origin.origins.as_ref().filter(|origins| !origins.left_out().is_empty()) {
            let origins = origins.left_out().join(", ");
            self.warn("cors-allow-origin", &origins, "expected scheme and host of an origin; these are left out");
        }
        self.switched_off();
        self.headers_for_service();
        self.backend_tls();
        self.client_certificates();
        self.user_authentication();
        self.passthrough();
    }

    /// Protections without effect.
    fn switched_off(&mut self) {
        if let Some(secret) = &self.out.user_auth.secret
            && self.annotations.value("auth-type").is_none()
        {
            let secret = secret.as_str().to_owned();
            let message = "without auth-type it has no effect, as in ingress-nginx: nobody is asked for a password";
            let (severity, reason) = (Severity::Warning, Reason::IneffectiveAnnotation);
            self.report(severity, reason, "auth-secret", &secret, message.to_owned());
        }
        for name in ["limit-rps", "limit-rpm", "limit-connections"] {
            let value = self.annotations.value(name).unwrap_or_default();
            if i64::parse(value).is_some_and(|limit| limit <= 0) {
                let message = "limits nothing, as in ingress-nginx: only numbers above 0 do".to_owned();
                self.report(Severity::Warning, Reason::IneffectiveAnnotation, name, value, message);
            }
        }
    }

    /// Without the flag, TLS is not passed through. With it, restrictions don't apply to what passes.
    fn passthrough(&mut self) {
        if self.out.hosts.passthrough != Some(true) {
            return;
        }
        if let Some(Verdict::Harmless(text)) = super::without_effect("ssl-passthrough", self.annotations, self.rules) {
            self.out.hosts.passthrough = None;
            let (severity, reason) = (Severity::Info, Reason::IneffectiveAnnotation);
            self.report(severity, reason, "ssl-passthrough", "true", format!("has no effect: {text}"));
            return;
        }
        for (name, value) in self.annotations.iter() {
            if let Some(known) =
                known(name).filter(|known| RESTRICTIONS.contains(&known.spec.name) && !value.is_empty())
            {
                let message = "ssl-passthrough passes TLS connections on without it, as in ingress-nginx; it applies to plain HTTP only";
                let (severity, reason) = (Severity::Warning, Reason::IneffectiveAnnotation);
                self.report(severity, reason, known.name, value, message.to_owned());
            }
        }
    }

    /// Finds the Secret with the users. Without one, all users are refused.
    fn user_authentication(&mut self) {
        let users = &self.out.user_auth;
        let Some(kind) = users.kind else { return };
        let secret = users.secret.as_ref().map(|secret| secret.as_str().to_owned());
        let namespace = &self.annotations.origin().namespace;
        let text =
            secret.as_ref().map(|name| if name.contains('/') { name.clone() } else { format!("{namespace}/{name}") });
        let (name, value, (reason, expected)) = match &text {
            None => ("auth-type", kind.as_str(), (Reason::AnnotationParsingFailed, "expected auth-secret beside it")),
            Some(text) => match self.reference(text) {
                Ok(object) => {
                    self.out.user_secret = Some(object);
                    return;
                }
                Err(problem) => ("auth-secret", secret.as_deref().unwrap_or_default(), problem),
            },
        };
        let message = format!("{expected}; all paths of this Ingress answer 503");
        self.deny(Denial::Locations, name, value);
        self.report(Severity::Error, reason, name, value, message).unserved = true;
    }

    /// The ConfigMap of headers for the authentication service has to be in the same namespace.
    fn headers_for_service(&mut self) {
        let external = &mut self.out.external_auth;
        let (own, others) = (&self.annotations.origin().namespace, self.rules.other_namespaces);
        let Some(map) = external.set_headers.take_if(|map| !others && *map.namespace != **own) else { return };
        if external.url.is_some() {
            let (name, value) = ("auth-proxy-set-headers", map.to_string());
            self.deny(Denial::Locations, name, &value);
            let message = "expected a ConfigMap of this namespace, as long as allow-cross-namespace-resources is false; all paths of this \
                           Ingress answer 503";
            self.report(Severity::Error, Reason::ForbiddenReference, name, &value, message.to_owned()).unserved = true;
        }
    }

    /// Finds the Secret. If it is unavailable, the hosts are closed, since they were meant to be closed to most clients.
    fn client_certificates(&mut self) {
        let Some(secret) = &self.out.client_certificates.secret else { return };
        let secret = secret.as_str().to_owned();
        match self.reference(&secret) {
            Ok(object) => self.out.client_secret = Some(object),
            Err((reason, expected)) => {
                self.deny(Denial::Hosts, "auth-tls-secret", &secret);
                let message = format!("{expected}; the hosts of this Ingress answer 503");
                self.report(Severity::Error, reason, "auth-tls-secret", &secret, message).unserved = true;
            }
        }
    }

    /// The Secret that an annotation names.
    fn reference(&self, secret: &str) -> Result<ObjectRef, (Reason, &'static str)> {
        match ObjectRef::parse(secret) {
            Some(object)
                if self.rules.other_namespaces || *object.namespace == *self.annotations.origin().namespace =>
            {
                Ok(object)
            }
            Some(_) => Err((
                Reason::ForbiddenReference,
                "expected a Secret of this namespace, as long as allow-cross-namespace-resources is false",
            )),
            None => Err((Reason::AnnotationParsingFailed, "expected namespace/name")),
        }
    }

    /// Finds the Secret, and reports combinations that can't work.
    fn backend_tls(&mut self) {
        let tls = &self.out.backend_tls;
        let verify = tls.verify == Some(Switch::On);
        let Some(secret) = tls.secret.as_ref().map(|secret| secret.as_str().to_owned()) else {
            if verify && self.out.proxying.protocol.is_some_and(BackendProtocol::may_encrypt) {
                let message =
                    "without proxy-ssl-secret it has no effect, as in ingress-nginx: no certificate is checked";
                self.report(
                    Severity::Warning,
                    Reason::IneffectiveAnnotation,
                    "proxy-ssl-verify",
                    "on",
                    message.to_owned(),
                );
            }
            return;
        };
        if verify && tls.name.is_none() {
            let message = "there is no proxy-ssl-name that a certificate could have, so requests answer 502";
            self.report(Severity::Error, Reason::AnnotationParsingFailed, "proxy-ssl-verify", "on", message.to_owned());
        }
        let (reason, expected) = match self.reference(&secret) {
            Ok(object) => {
                self.out.backend_secret = Some(object);
                return;
            }
            Err(problem) => problem,
        };
        self.deny(Denial::Locations, "proxy-ssl-secret", &secret);
        let message = format!("{expected}; all paths of this Ingress answer 503");
        self.report(Severity::Error, reason, "proxy-ssl-secret", &secret, message).unserved = true;
    }

    fn deny(&mut self, denial: Denial, name: &str, value: &str) {
        if denial > self.out.denial {
            self.out.denial = denial;
            let name = super::full_name(self.annotations.prefix, name);
            // A snippet is too long to be told here.
            let value = if name.ends_with("-snippet") { "" } else { value };
            let value =
                if value.is_empty() { String::new() } else { format!(": {}", crate::diagnostic::bounded(value)) };
            self.out.denied_by = Some(format!("{name}{value}").into());
        }
    }

    fn warn(&mut self, name: &str, value: &str, message: &str) {
        self.report(Severity::Warning, Reason::AnnotationParsingFailed, name, value, message.to_owned());
    }

    fn report(
        &mut self,
        severity: Severity,
        reason: Reason,
        name: &str,
        value: &str,
        message: String,
    ) -> &mut Diagnostic {
        let field = self.annotations.field(name);
        self.diagnostics.push_mut(Diagnostic::new(severity, reason, self.annotations.origin(), field, value, message))
    }
}
