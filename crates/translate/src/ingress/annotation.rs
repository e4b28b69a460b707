//! The annotations of an Ingress: one table with the meaning, syntax, risk and verdict of each name, and the effect of a bad value.
//!
//! [`read`] reads all annotations of an Ingress in one pass. It reports every bad value, not just the first; a known name that isn't built,
//! with the effect meanwhile; and an unknown name, with the nearest known one. Restrictions fail closed: if one can't be read or built,
//! [`IngressAnnotations::denial`] says so, and the routes must answer 503.

mod doc;
mod read;
mod table;
mod unbuilt;

#[cfg(test)]
mod examples;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::LazyLock;

use fairway_model::Origin;

pub use doc::annotations_markdown;
pub use read::{IngressAnnotations, Rejected, Rules, read, screen};
pub(crate) use read::{denying, forbidden_word};
pub use table::{
    Access, Affinity, BackendTls, Balancing, CanaryRelease, ClientCertificates, CrossOrigin, ExternalAuthentication,
    HealthChecks, HostLevel, Logging, Observation, Proxying, Redirects, RequestLimits, Rewriting, Snippets, Traces,
    UserAuthentication,
};

use crate::limit;
use crate::snippet;
use crate::value::{
    AnyCiphers, AuthType, BackendProtocol, ConnectionHeader, CookieRewrite, HostAlias, HostAliases, RedirectPart,
    RiskLevel, Size, Switch, Value,
};
use crate::verdict::{Verdict, looks_like, same_words};

/// The prefix unless `--annotations-prefix` sets another.
pub const DEFAULT_PREFIX: &str = "nginx.ingress.kubernetes.io";

/// The prefix of Fairway's own annotations, whatever `--annotations-prefix` says. In the table it is part of their names.
pub const OWN_PREFIX: &str = "fairway.dev/";

/// Prefixes of other controllers for nginx: names of ours under them are probably meant for us.
const RELATED_PREFIXES: [&str; 2] = ["ingress.kubernetes.io", "nginx.org"];

/// The annotation that asks for a report on which generation of an Ingress, or of a route of the Gateway API, is in force.
pub const OBSERVE: &str = "fairway.dev/observe";

/// The annotation that has the report.
pub const OBSERVED: &str = "fairway.dev/observed";

/// The one annotation outside these prefixes: the class, as written before `spec.ingressClassName` existed.
pub const CLASS: &str = "kubernetes.io/ingress.class";

/// The description of one annotation.
#[derive(Debug)]
pub struct Spec {
    /// Its name, without the prefix.
    pub name: &'static str,
    /// Older names. One of them counts only if the name itself is absent or empty.
    pub aliases: &'static [&'static str],
    /// The expected value, which completes the sentence "expected …".
    pub syntax: &'static str,
    /// Its scope.
    pub scope: Scope,
    /// How much harm it can do; compared with the ConfigMap key `annotations-risk-level`.
    pub risk: RiskLevel,
    /// The effect of an invalid value.
    pub on_invalid: OnInvalid,
    /// Its meaning, in a sentence.
    pub doc: &'static str,
    /// Its verdict.
    pub verdict: Verdict,
    /// The effect on an Ingress that sets the annotation while it isn't built.
    pub meanwhile: Meanwhile,
    /// Values that ask for what Fairway does anyway, so that nothing is lost while the annotation isn't built.
    pub neutral: &'static [&'static str],
}

impl Spec {
    /// Whether a value asks for what Fairway does anyway, so that nothing is lost while the annotation isn't built.
    pub fn is_neutral(&self, value: &str) -> bool {
        let switch = bool::parse(value).map(|on| if on { "true" } else { "false" });
        self.neutral.iter().any(|neutral| same_words(neutral, value) || switch == Some(*neutral))
    }

    /// The verdict on a value, given the other annotations of its Ingress.
    pub fn verdict_of(&self, value: &str, others: &Annotations<'_>, rules: &Rules) -> Verdict {
        match self.verdict {
            _ if self.risk > rules.risk_level && !value.is_empty() => Verdict::Refused {
                reason: "its risk is above annotations-risk-level, so the Ingress is not loaded, as in ingress-nginx",
                instead: "annotations-risk-level: Critical in the ConfigMap, if all who write Ingresses may use it",
            },
            Verdict::NotYet(_) | Verdict::Refused { .. } if value.is_empty() || self.is_neutral(value) => Verdict::Same,
            Verdict::Differs(_)
                if is_snippet(self.name) && !rules.snippets && snippet::may_have_restricted(self.name, value) =>
            {
                Verdict::Refused {
                    reason: "without allow-snippet-annotations it is dropped, as in ingress-nginx, and what it closes is open",
                    instead: "allow-snippet-annotations: \"true\" in the ConfigMap, if all who write Ingresses may use it",
                }
            }
            Verdict::Differs(_) if rules.snippets && snippet::fault(self.name, value).is_some() => Verdict::Refused {
                reason: "something in it is outside the set of directives that are read",
                instead: "what its finding names",
            },
            verdict if is_same(self.name, value) => {
                debug_assert!(matches!(verdict, Verdict::Differs(_)), "{}: nothing to take back", self.name);
                Verdict::Same
            }
            verdict => match without_effect(self.name, others, rules) {
                Some(without) => without,
                None if self.name == "auth-snippet" && snippet::is_read(self.name, value) => Verdict::Same,
                None => verdict,
            },
        }
    }
}

/// Whether an annotation holds a snippet.
pub(crate) fn is_snippet(name: &str) -> bool {
    matches!(name, "auth-snippet" | "configuration-snippet" | "server-snippet")
}

/// Whether an annotation that differs for some values works in the same way for this one.
fn is_same(name: &str, value: &str) -> bool {
    match name {
        "backend-protocol" => {
            use BackendProtocol::{AutoHttp, Http, Https};
            matches!(BackendProtocol::parse(value), Some(Http | Https | AutoHttp))
        }
        "auth-method" => !matches!(value, "CONNECT" | "TRACE"),
        "auth-request-redirect" => !value.contains('$'),
        "server-alias" => HostAliases::parse(value)
            .is_some_and(|HostAliases(names)| names.iter().all(|name| matches!(name, HostAlias::Exact(_)))),
        "auth-type" => AuthType::parse(value) == Some(AuthType::Basic),
        "canary" | "ssl-passthrough" => bool::parse(value) == Some(false),
        "connection-proxy-header" => ConnectionHeader::parse(value) == Some(ConnectionHeader::KeepAlive),
        "ssl-ciphers" | "proxy-ssl-ciphers" => AnyCiphers::parse(value).is_some_and(|named| named.is_whole()),
        "proxy-redirect-from" | "proxy-redirect-to" => RedirectPart::parse(value).is_some(),
        "proxy-cookie-domain" | "proxy-cookie-path" => CookieRewrite::parse(value).is_some(),
        "limit-rps" | "limit-rpm" | "limit-connections" => i64::parse(value).is_some_and(|limit| limit <= 0),
        "proxy-buffering" | "proxy-request-buffering" => Switch::parse(value) == Some(Switch::Off),
        "proxy-buffer-size" => Size::parse(value).is_some_and(|size| (1..=limit::RESPONSE_HEAD).contains(&size.0)),
        _ => false,
    }
}

/// Annotations that have no effect in ingress-nginx either, because of other annotations or flags.
fn without_effect(name: &str, others: &Annotations<'_>, rules: &Rules) -> Option<Verdict> {
    let authenticates = || ["auth-url", "auth-type", "auth-tls-secret"].iter().any(|name| others.value(name).is_some());
    let is_canary = others.value("canary").and_then(bool::parse) == Some(true);
    let of_canary = name.starts_with("canary") || name == "affinity-canary-behavior";
    let of_endpoints = ["load-balance", "service-upstream"].contains(&name)
        || name.starts_with("upstream-hash-by")
        || name.starts_with(OWN_PREFIX);
    let limited = |names: &[&str]| {
        names.iter().any(|name| others.value(name).and_then(i64::parse).is_some_and(|limit| limit > 0))
    };
    match name {
        _ if is_canary && !of_canary && !of_endpoints => {
            Some(Verdict::Harmless("a canary follows the Ingress whose alternative it is, as in ingress-nginx"))
        }
        _ if !is_canary && of_canary && name != "canary" => {
            Some(Verdict::Harmless("without canary it has no effect, as in ingress-nginx"))
        }
        "canary-by-header-value" | "canary-by-header-pattern" if others.value("canary-by-header").is_none() => {
            Some(Verdict::Harmless("without canary-by-header it has no effect, as in ingress-nginx"))
        }
        "satisfy" if !authenticates() => {
            Some(Verdict::Harmless("without authentication the address list alone decides, as in ingress-nginx"))
        }
        "auth-method"
        | "auth-signin"
        | "auth-signin-redirect-param"
        | "auth-response-headers"
        | "auth-request-redirect"
        | "auth-always-set-cookie"
        | "auth-snippet"
        | "auth-cache-key"
        | "auth-cache-duration"
        | "auth-proxy-set-headers"
            if others.value("auth-url").is_none() =>
        {
            Some(Verdict::Harmless("without auth-url it has no effect, as in ingress-nginx"))
        }
        "fairway.dev/health-check-interval"
        | "fairway.dev/health-check-timeout"
        | "fairway.dev/health-check-statuses"
        | "fairway.dev/health-check-unhealthy-after"
        | "fairway.dev/health-check-healthy-after"
            if others.value("fairway.dev/health-check").is_none() =>
        {
            Some(Verdict::Harmless("without fairway.dev/health-check it has no effect"))
        }
        "mirror-host" | "mirror-request-body" if others.value("mirror-target").is_none() => {
            Some(Verdict::Harmless("without mirror-target it has no effect, as in ingress-nginx"))
        }
        "auth-cache-duration" if others.value("auth-cache-key").is_none() => {
            Some(Verdict::Harmless("without auth-cache-key it has no effect, as in ingress-nginx"))
        }
        "auth-secret" | "auth-secret-type" | "auth-realm" if others.value("auth-type").is_none() => {
            Some(Verdict::Harmless("without auth-type it has no effect, as in ingress-nginx"))
        }
        "auth-snippet" | "configuration-snippet" | "server-snippet" if !rules.snippets => {
            Some(Verdict::Harmless("without allow-snippet-annotations it is dropped, as in ingress-nginx"))
        }
        "ssl-passthrough" if !rules.ssl_passthrough => {
            Some(Verdict::Harmless("without --enable-ssl-passthrough TLS ends at the proxy, as in ingress-nginx"))
        }
        "limit-burst-multiplier" if !limited(&["limit-rps", "limit-rpm"]) => {
            Some(Verdict::Harmless("without a rate it has no effect, as in ingress-nginx"))
        }
        "limit-allowlist" if !limited(&["limit-rps", "limit-rpm", "limit-connections"]) => {
            Some(Verdict::Harmless("without a limit it has no effect, as in ingress-nginx"))
        }
        _ if name.starts_with("cors-") && others.value("enable-cors").and_then(bool::parse) != Some(true) => {
            Some(Verdict::Harmless("without enable-cors it has no effect, as in ingress-nginx"))
        }
        _ if name.starts_with("auth-tls-") && others.value("auth-tls-secret").is_none() => {
            Some(Verdict::Harmless("without auth-tls-secret it has no effect, as in ingress-nginx"))
        }
        _ if name.starts_with("proxy-ssl-") && others.value("proxy-ssl-secret").is_none() => {
            Some(Verdict::Harmless("without proxy-ssl-secret it has no effect, as in ingress-nginx"))
        }
        _ => None,
    }
}

/// The scope of an annotation, in ingress-nginx's terms.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Scope {
    /// The Ingress as a whole: its hosts, or the Services it refers to.
    Ingress,
    /// Each of its paths.
    Location,
}

/// The effect of an invalid value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OnInvalid {
    /// The same as without the annotation: the ConfigMap's value or the default applies.
    Default,
    /// The annotation is ignored.
    Drop,
    /// All paths of the Ingress answer 503.
    Deny,
    /// This version of the Ingress isn't loaded; the last good one stays.
    Reject,
}

impl OnInvalid {
    /// The effect, as the second half of a sentence.
    pub const fn consequence(self) -> &'static str {
        match self {
            Self::Default => "the ConfigMap's value or the default holds instead",
            Self::Drop => "it is ignored",
            Self::Deny => "all paths of this Ingress answer 503",
            Self::Reject => "this version of the Ingress is not loaded",
        }
    }
}

/// The effect on an Ingress with an annotation that isn't built.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Meanwhile {
    /// It is served as if the annotation were absent.
    Serve,
    /// Its paths, or all of its hosts, answer 503: a restriction is never ignored.
    Deny(Denial),
    /// The same as `Deny`, if the ConfigMap has `allow-snippet-annotations`. If not, ingress-nginx drops the annotation as well.
    DenySnippet(Denial),
    /// It isn't loaded.
    Reject,
}

/// What must answer 503 because a restriction can't be read or isn't built. In ascending order.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Denial {
    /// Nothing.
    #[default]
    None,
    /// The paths of the Ingress.
    Locations,
    /// The hosts of the Ingress, even if other Ingresses have paths on them.
    Hosts,
}

/// The annotations of one object under our prefix.
#[derive(Clone, Copy, Debug)]
pub struct Annotations<'a> {
    origin: &'a Origin,
    prefix: &'a str,
    all: &'a BTreeMap<String, String>,
}

impl<'a> Annotations<'a> {
    /// The annotations of `all` under `prefix` and `/`. `origin` is their object.
    pub const fn new(origin: &'a Origin, prefix: &'a str, all: &'a BTreeMap<String, String>) -> Self {
        Self { origin, prefix, all }
    }

    /// Their object.
    pub const fn origin(&self) -> &'a Origin {
        self.origin
    }

    /// Names, without the prefix except for Fairway's own, and values as written. Annotations under other prefixes cost nothing.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let (all, prefix) = (self.all, self.prefix);
        let from = move |start| all.range::<str, _>((Bound::Included(start), Bound::Unbounded));
        let own = from(OWN_PREFIX).take_while(|(key, _)| key.starts_with(OWN_PREFIX));
        from(prefix)
            .take_while(move |(key, _)| key.starts_with(prefix))
            .filter_map(move |(key, value)| Some((short_name(prefix, key)?, value.as_str())))
            .chain(own.map(|(key, value)| (key.as_str(), value.as_str())))
    }

    /// Annotations with a known name under a prefix that is almost ours, or that of another controller for nginx, unless they are there under
    /// ours as well: prefix and name.
    fn misspelt(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let ours = self.prefix;
        let others = self.all.keys().filter_map(|key| key.split_once('/')).filter(move |(prefix, _)| *prefix != ours);
        let annotations = *self;
        let meant = move |prefix: &str, name: &str| {
            looks_like(prefix, ours) || RELATED_PREFIXES.contains(&prefix) && annotations.value(name).is_none()
        };
        others.filter(move |(prefix, name)| spec(name).is_some() && meant(prefix, name)).take(limit::UNKNOWN_NAMES)
    }

    /// The value of a name without the prefix; an empty one counts as absent.
    pub fn value(&self, name: &str) -> Option<&'a str> {
        let value = self.all.get(&full_name(self.prefix, name))?;
        (!value.is_empty()).then_some(value)
    }

    /// The path of an annotation within the object, for diagnostics.
    pub fn field(&self, name: &str) -> String {
        format!("metadata.annotations[\"{}\"]", full_name(self.prefix, &crate::diagnostic::bounded(name)))
    }
}

/// The key of an annotation in an object, from its name in the table.
pub fn full_name(prefix: &str, name: &str) -> String {
    if name.starts_with(OWN_PREFIX) { name.to_owned() } else { format!("{prefix}/{name}") }
}

/// The name in the table of the annotation with this key; `None` if it has another prefix.
pub fn short_name<'k>(prefix: &str, key: &'k str) -> Option<&'k str> {
    if key == OBSERVED {
        return None;
    }
    if key.starts_with(OWN_PREFIX) {
        return Some(key);
    }
    // The key of an object has at most one slash, so no name can pass for one of Fairway's own.
    key.strip_prefix(prefix)?.strip_prefix('/').filter(|name| !name.starts_with(OWN_PREFIX))
}

/// A group of annotations in the reference.
#[derive(Debug)]
pub struct Group {
    /// Heading.
    pub title: &'static str,
    /// Its members.
    pub specs: &'static [Spec],
}

/// The whole table.
pub static GROUPS: [Group; 20] = [
    Group { title: "Matching and rewriting", specs: Rewriting::SPECS },
    Group { title: "Redirects", specs: Redirects::SPECS },
    Group { title: "Hosts", specs: HostLevel::SPECS },
    Group { title: "Access", specs: Access::SPECS },
    Group { title: "Limits for clients", specs: RequestLimits::SPECS },
    Group { title: "Logs", specs: Logging::SPECS },
    Group { title: "Traces", specs: Traces::SPECS },
    Group { title: "Basic authentication", specs: UserAuthentication::SPECS },
    Group { title: "External authentication", specs: ExternalAuthentication::SPECS },
    Group { title: "Cross-origin requests", specs: CrossOrigin::SPECS },
    Group { title: "Client certificates", specs: ClientCertificates::SPECS },
    Group { title: "Snippets", specs: Snippets::SPECS },
    Group { title: "Talking to the backend", specs: Proxying::SPECS },
    Group { title: "TLS to the backend", specs: BackendTls::SPECS },
    Group { title: "Balancing", specs: Balancing::SPECS },
    Group { title: "Health checks", specs: HealthChecks::SPECS },
    Group { title: "Changes", specs: Observation::SPECS },
    Group { title: "Session affinity", specs: Affinity::SPECS },
    Group { title: "Canaries", specs: CanaryRelease::SPECS },
    Group { title: "Not built, refused, without effect", specs: unbuilt::SPECS },
];

/// Parses a text into the field of the name; `false` if it is invalid.
type Setter = fn(&mut IngressAnnotations, &str, &str) -> bool;

/// In the order of [`GROUPS`].
const SETTERS: [Setter; 20] = [
    |all, name, text| all.rewriting.set(name, text),
    |all, name, text| all.redirects.set(name, text),
    |all, name, text| all.hosts.set(name, text),
    |all, name, text| all.access.set(name, text),
    |all, name, text| all.limits.set(name, text),
    |all, name, text| all.logging.set(name, text),
    |all, name, text| all.traces.set(name, text),
    |all, name, text| all.user_auth.set(name, text),
    |all, name, text| all.external_auth.set(name, text),
    |all, name, text| all.cross_origin.set(name, text),
    |all, name, text| all.client_certificates.set(name, text),
    |all, name, text| all.snippets.set(name, text),
    |all, name, text| all.proxying.set(name, text),
    |all, name, text| all.backend_tls.set(name, text),
    |all, name, text| all.balancing.set(name, text),
    |all, name, text| all.health.set(name, text),
    |all, name, text| all.observation.set(name, text),
    |all, name, text| all.affinity.set(name, text),
    |all, name, text| all.canary.set(name, text),
    |_, _, _| true,
];

struct Known {
    name: &'static str,
    spec: &'static Spec,
    set: Setter,
}

/// All names and aliases, sorted.
static KNOWN: LazyLock<Vec<Known>> = LazyLock::new(|| {
    let mut known: Vec<Known> = GROUPS
        .iter()
        .zip(SETTERS)
        .flat_map(|(group, set)| group.specs.iter().map(move |spec| (spec, set)))
        .flat_map(|(spec, set)| {
            let names = std::iter::once(&spec.name).chain(spec.aliases);
            names.map(move |name| Known { name, spec, set })
        })
        .collect();
    known.sort_unstable_by_key(|known| known.name);
    known
});

fn known(name: &str) -> Option<&'static Known> {
    KNOWN.binary_search_by_key(&name, |known| known.name).ok().map(|index| &KNOWN[index])
}

/// The description of a name or alias without prefix; `None` if it is unknown.
pub fn spec(name: &str) -> Option<&'static Spec> {
    known(name).map(|known| known.spec)
}

/// All names and aliases, sorted.
pub fn names() -> impl Iterator<Item = &'static str> {
    KNOWN.iter().map(|known| known.name)
}

/// Declares a struct with one optional field per annotation, and their table entries.
///
/// A row is `"name" | "alias" => field: Type [Scope, Risk, OnInvalid]`, and `= Differs("…")` if the verdict isn't `Same`.
macro_rules! annotations {
    ($(#[doc = $about:literal])+ $vis:vis struct $table:ident {$(
        $(#[doc = $doc:literal])+
        $name:literal $(| $alias:literal)* => $field:ident: $type:ty [$scope:ident, $risk:ident, $invalid:ident]
            $(= $verdict:expr)?;
    )+}) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug, Default, Eq, Hash, PartialEq)]
        $vis struct $table {$(
            $(#[doc = $doc])+
            pub $field: Option<$type>,
        )+}

        impl $table {
            /// The descriptions of the fields' annotations.
            pub const SPECS: &'static [Spec] = &[$(Spec {
                name: $name,
                aliases: &[$($alias),*],
                syntax: <$type as Value>::SYNTAX,
                scope: Scope::$scope,
                risk: RiskLevel::$risk,
                on_invalid: OnInvalid::$invalid,
                doc: concat!($($doc),+),
                verdict: [$($verdict,)? Verdict::Same][0],
                meanwhile: Meanwhile::Serve,
                neutral: &[],
            },)+];

            /// Parses a text into the field of the name; `false` if it is invalid.
            pub(super) fn set(&mut self, name: &str, text: &str) -> bool {
                match name {
                    $($name => {
                        self.$field = Value::parse(text);
                        self.$field.is_some()
                    })+
                    _ => false,
                }
            }
        }
    };
}
use annotations;

/// The denied paths or hosts, in words.
const fn denied(denial: Denial) -> &'static str {
    match denial {
        Denial::None => "none of its paths",
        Denial::Locations => "all paths of the Ingress",
        Denial::Hosts => "the hosts of the Ingress",
    }
}
