//! A route: the path it matches, the checks and edits on the way, and the one action at its end.

use std::cmp::{Ordering, Reverse};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use regex::bytes::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use crate::capture::with_groups;
use crate::path::{InvalidPath, canonicalize_configured};
use crate::{
    BackendName, Canary, CaptureTemplate, Conditions, ConfiguredName, Fields, Filter, ForwardPolicy, Hostname, Origin,
    PathReplacement, RequestView, Scheme, TooLong, TraceRule, UpstreamTls,
};

/// One path of an Ingress rule, or a route derived from it (the answer for a missing slash, the implicit `/` of a
/// host).
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// The object, and the part of it, that asked for this route.
    pub origin: Origin,
    /// The path as the user wrote it, for metrics, logs and cookies.
    pub rule: Box<str>,
    /// The paths it matches.
    pub path: PathMatch,
    /// Further conditions. Boxed, since few of many thousand routes have any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Box<Conditions>>,
    /// The steps before the action, in this order. Any of them may answer the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
    /// The final answer to the request.
    pub action: Action,
    /// Whether requests are written to the access log.
    pub access_log: bool,
    /// How requests are traced, if they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracing: Option<Arc<TraceRule>>,
}

impl Route {
    /// A logged route without filters, whose rule is the text of its match.
    pub fn new(origin: Origin, path: PathMatch, action: Action) -> Self {
        let rule = path.text().into();
        Self { origin, rule, path, conditions: None, filters: Vec::new(), action, access_log: true, tracing: None }
    }

    /// Whether a request meets the conditions other than the path.
    #[inline]
    pub fn admits<'a, F: Fields<'a>>(&self, head: &RequestView<'a, F>, client: IpAddr) -> bool {
        self.conditions.as_ref().is_none_or(|conditions| conditions.admit(head, client))
    }

    /// The order among routes of one path: conditions before none, more specific ones first. Equally specific ones keep
    /// the order given, which is that of the age of their objects (Gateway API, HTTPRouteRule).
    pub(crate) fn by_conditions(&self, other: &Self) -> Ordering {
        match (&self.conditions, &other.conditions) {
            (Some(own), Some(other)) => own.by_precedence(other),
            (own, other) => own.is_none().cmp(&other.is_none()),
        }
    }

    /// The first of the backends that it leads to.
    pub fn first_backend(&self) -> Option<&BackendName> {
        match &self.action {
            Action::Forward(forward) => forward.backends.names().next(),
            Action::Redirect(_) | Action::Respond(_) => None,
        }
    }

    /// Whether the two take the same requests.
    pub(crate) fn takes_the_same(&self, other: &Self) -> bool {
        self.path == other.path && self.conditions == other.conditions
    }
}

/// How a route selects requests by canonical path. Exact paths take precedence over regular expressions, which are
/// tried in the order of the host's routes; among prefixes and starts the longest wins, of the same length the prefix.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum PathMatch {
    /// Exactly this path.
    Exact(Box<str>),
    /// The path and everything below it, by whole segments: `/foo` matches `/foo` and `/foo/x`; `/foo/` matches only
    /// paths below it (Kubernetes documentation, "Path types"; ingress-nginx for the trailing slash).
    Prefix(Box<str>),
    /// A case-insensitive regular expression, anchored only at the start (ingress-nginx `use-regex`).
    Regex(Box<PathRegex>),
    /// Every path that starts with this text, whole segment or not (`location` of nginx).
    Start(Box<str>),
}

/// Why a configured path can't be matched.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InvalidPathMatch {
    /// The path has no canonical form.
    #[error(transparent)]
    Path(#[from] InvalidPath),
    /// The regular expression does not compile within the limits.
    #[error("{0}")]
    Regex(String),
}

impl PathMatch {
    /// An exact match, on the canonical form of the text.
    pub fn exact(text: &str) -> Result<Self, InvalidPathMatch> {
        Ok(Self::Exact(canonicalize_configured(text)?.into()))
    }

    /// A prefix match, on the canonical form of the text.
    pub fn prefix(text: &str) -> Result<Self, InvalidPathMatch> {
        Ok(Self::Prefix(canonicalize_configured(text)?.into()))
    }

    /// A match by the start of the path, on the canonical form of the text.
    pub fn start(text: &str) -> Result<Self, InvalidPathMatch> {
        Ok(Self::Start(canonicalize_configured(text)?.into()))
    }

    /// A match by regular expression.
    pub fn regex(text: &str) -> Result<Self, InvalidPathMatch> {
        Ok(Self::Regex(Box::new(text.parse()?)))
    }

    /// The path or pattern as text.
    pub fn text(&self) -> &str {
        match self {
            Self::Exact(text) | Self::Prefix(text) | Self::Start(text) => text,
            Self::Regex(regex) => &regex.text,
        }
    }

    /// Whether a canonical path matches.
    pub fn matches(&self, path: &[u8]) -> bool {
        match self {
            Self::Exact(text) => text.as_bytes() == path,
            Self::Prefix(prefix) => {
                let prefix = prefix.as_bytes();
                path.starts_with(prefix) && ends_at_segment(path, prefix.len())
            }
            Self::Regex(regex) => regex.is_match(path),
            Self::Start(text) => path.starts_with(text.as_bytes()),
        }
    }
}

/// By precedence: exact paths, then patterns (longest first, as ingress-nginx orders them), then prefixes, longest
/// first.
impl Ord for PathMatch {
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |path: &Self| match path {
            Self::Exact(_) => (0, Reverse(0)),
            Self::Regex(regex) => (1, Reverse(regex.text.len())),
            Self::Prefix(text) => (2, Reverse(text.len())),
            Self::Start(text) => (3, Reverse(text.len())),
        };
        let text = || match (self, other) {
            (Self::Regex(own), Self::Regex(other)) => other.text.cmp(&own.text),
            _ => self.text().cmp(other.text()),
        };
        key(self).cmp(&key(other)).then_with(text)
    }
}

impl PartialOrd for PathMatch {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for PathMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Exact(_) => "Exact",
            Self::Prefix(_) => "Prefix",
            Self::Regex(_) => "Regex",
            Self::Start(_) => "Start",
        };
        write!(f, "{kind} {}", self.text())
    }
}

/// Whether the first `len` bytes of a path are whole segments.
pub(crate) fn ends_at_segment(path: &[u8], len: usize) -> bool {
    len == path.len() || path[len] == b'/' || (len > 0 && path[len - 1] == b'/')
}

/// A compiled path pattern; two are equal if their text is.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "Box<str>", into = "Box<str>")]
pub struct PathRegex {
    text: Box<str>,
    /// Lower-case text that every match starts with; rules out most requests without running the expression.
    literal: Box<[u8]>,
    /// Whether every path that starts with that text matches.
    literal_decides: bool,
    regex: Regex,
}

impl PathRegex {
    /// Largest compiled size in bytes. A larger pattern is refused; what users write needs a hundredth of this.
    pub const SIZE_LIMIT: usize = 256 << 10;
    /// Longest pattern in bytes; Kubernetes itself has no limit for a path.
    pub const LENGTH_LIMIT: usize = 4096;

    /// The pattern as the user wrote it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// A pattern for this text alone, within a pattern.
    pub fn escaped(text: &str) -> String {
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "/-_~".contains(c) || !c.is_ascii();
        text.chars().flat_map(|c| (!is_plain(c)).then_some('\\').into_iter().chain([c])).collect()
    }

    /// How many groups a [rewrite](Self::rewrite) can fill in.
    pub fn groups(&self) -> usize {
        self.regex.captures_len() - 1
    }

    /// Whether the canonical path matches from its start.
    pub fn is_match(&self, path: &[u8]) -> bool {
        self.may_match(path) && (self.literal_decides || self.regex.is_match(path))
    }

    /// Appends the target with the groups of the match filled in; `Ok(false)` if the pattern doesn't match the path.
    ///
    /// # Errors
    ///
    /// If the result is longer than `limit`.
    pub fn rewrite(
        &self,
        path: &[u8],
        target: &CaptureTemplate,
        limit: usize,
        out: &mut Vec<u8>,
    ) -> Result<bool, TooLong> {
        let expanded = with_groups(&self.text, &self.regex, path, |groups| {
            target.expand(|group| groups.get(group).map_or(&[], |(start, end)| &path[start..end]), limit, out)
        });
        expanded.transpose().map(|expanded| expanded.is_some())
    }

    fn may_match(&self, path: &[u8]) -> bool {
        path.get(..self.literal.len()).is_some_and(|start| start.eq_ignore_ascii_case(&self.literal))
    }
}

impl FromStr for PathRegex {
    type Err = InvalidPathMatch;

    fn from_str(text: &str) -> Result<Self, InvalidPathMatch> {
        if text.len() > Self::LENGTH_LIMIT {
            return Err(InvalidPathMatch::Regex(format!("the pattern is longer than {} bytes", Self::LENGTH_LIMIT)));
        }
        // `^` goes in front of the text, as in ingress-nginx, so that `/a|/b` means the same as there.
        let regex = RegexBuilder::new(&format!("^{text}"))
            .case_insensitive(true)
            .unicode(false)
            .size_limit(Self::SIZE_LIMIT)
            .dfa_size_limit(Self::SIZE_LIMIT)
            .nest_limit(50)
            .build()
            .map_err(|error| InvalidPathMatch::Regex(one_line(&error)))?;
        let literal = literal_start(text);
        // The rest can match the empty text. This is common: in a host with one pattern, all plain paths are patterns.
        let literal_decides = matches!(&text[literal.len()..], "" | ".*" | "(.*)");
        Ok(Self { text: text.into(), literal: literal.into(), literal_decides, regex })
    }
}

known_by_text!(PathRegex, InvalidPathMatch);

/// Returns the last line of a syntax error, which states the problem; the lines before it draw its position.
fn one_line(error: &regex::Error) -> String {
    let text = error.to_string();
    text.lines()
        .rev()
        .find_map(|line| line.strip_prefix("error: "))
        .unwrap_or(text.lines().next().unwrap_or_default())
        .to_owned()
}

fn literal_start(pattern: &str) -> Vec<u8> {
    // An alternation may start differently; searching for one outside groups is not worth the code.
    if pattern.contains('|') {
        let first_group = pattern.find('(').unwrap_or(pattern.len());
        if pattern[..first_group].contains('|') || !only_grouped_alternation(pattern) {
            return Vec::new();
        }
    }
    let end =
        pattern.find(|c: char| !(c.is_ascii_alphanumeric() || "/-_~,;:@%=&".contains(c))).unwrap_or(pattern.len());
    let mut literal = pattern[..end].to_ascii_lowercase().into_bytes();
    // The next character may make the last one optional or repeat it.
    if matches!(pattern.as_bytes().get(end), Some(b'?' | b'*' | b'{')) {
        literal.pop();
    }
    literal
}

/// Whether every `|` is within parentheses. Returns false for any brackets or escapes.
fn only_grouped_alternation(pattern: &str) -> bool {
    let mut depth = 0usize;
    for byte in pattern.bytes() {
        match byte {
            b'\\' | b'[' => return false,
            b'(' => depth += 1,
            b')' => match depth.checked_sub(1) {
                Some(less) => depth = less,
                None => return false,
            },
            b'|' if depth == 0 => return false,
            _ => {}
        }
    }
    true
}

/// The answer to a request that passed all filters.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Action {
    /// Send it to a backend.
    Forward(Forward),
    /// Answer with a redirect.
    Redirect(Redirect),
    /// Answer from the proxy itself.
    Respond(Respond),
}

/// Forwards a request to a backend. A backend missing in the snapshot has no endpoints, so the answer is 503.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Forward {
    /// The backends.
    #[serde(rename = "backend")]
    pub backends: Backends,
    /// The backend to use if the chosen one has no endpoint for the request (ingress-nginx `default-backend`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<BackendName>,
    /// Path attribute of the session cookie; `None` if this route sets no cookie, though it honours one it receives.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_cookie_path: Option<Box<str>>,
    /// Limits, timeouts and retries, shared by all routes with the same ones.
    #[serde(deserialize_with = "crate::policy::read_shared")]
    pub policy: Arc<ForwardPolicy>,
}

/// A redirect as the final answer.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Redirect {
    /// Status, 300 to 308.
    pub status: u16,
    /// The target.
    pub location: Location,
    /// What precedes a target that is only a path.
    #[serde(default, skip_serializing_if = "RedirectBase::is_default")]
    pub base: RedirectBase,
}

/// What precedes the target of a redirect that is only a path: scheme and host of the request, with or without a port.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub enum RedirectBase {
    /// No port, as in ingress-nginx by default: behind a Service, the port of the listener is not the client's.
    #[default]
    Host,
    /// The port that the client itself named, if it did: correct where nothing is in front of the proxy, as in `fairway dev`.
    HostAndPort,
    /// The port of the listener, unless it is the usual one of the scheme (`use-port-in-redirects`).
    Listener,
    /// Nothing at all: the client completes the target (`relative-redirects`).
    Nothing,
}

impl RedirectBase {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Redirect {
    /// A redirect whose own URLs name no port.
    pub fn new(status: u16, location: Location) -> Self {
        Self { status, location, base: RedirectBase::default() }
    }
}

/// The value of a Location field.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Location {
    /// Fixed text; if it starts with `/`, the redirect's base is prepended.
    Fixed(Box<str>),
    /// Text with captures of the route's pattern filled in.
    Captures(CaptureTemplate),
    /// `scheme://host` of the request and this path (`app-root`). The scheme is that of the connection itself.
    AppRoot(Box<str>),
    /// The request's own path with a slash after it, query kept, and the redirect's base before it.
    AppendSlash,
    /// `scheme://NAME:port` and the request target without one trailing slash (`from-to-www-redirect`).
    OtherHost(Hostname),
    /// A URL of these parts; those that are missing are the request's, and the query stays (Gateway API,
    /// HTTPRequestRedirectFilter).
    Parts(Box<UrlParts>),
}

/// The parts of a URL to redirect to.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct UrlParts {
    /// The scheme; `None` for that of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scheme: Option<Scheme>,
    /// The host; `None` for that of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<Hostname>,
    /// The port; `None` for the usual one of [`scheme`](Self::scheme), or else the one that the client named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// The path; `None` for that of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path: Option<PathReplacement>,
}

/// The backends of a rule.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Backends {
    /// One backend receives all requests.
    One(BackendName),
    /// Each backend gets its share.
    Weighted(Vec<WeightedBackend>),
    /// One backend, or its alternative.
    Canary(Box<Canary>),
    /// As [`Weighted`](Self::Weighted), but a share of the requests gets 500, because the references to its backends are invalid.
    Partial {
        /// The backends.
        valid: Vec<WeightedBackend>,
        /// The share that gets 500.
        invalid: u32,
    },
}

/// A backend that gets a share of the requests of a rule.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct WeightedBackend {
    /// The backend.
    pub backend: BackendName,
    /// Its share in proportion to the others; 0 for none.
    pub weight: u32,
    /// Filters for the requests to this backend and their responses, applied after those of the route: edits of fields, and another path.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
    /// TLS to its endpoints, where the policy's doesn't apply to all backends of the rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Arc<UpstreamTls>>,
}

impl Backends {
    /// The names of all backends.
    pub fn names(&self) -> impl Iterator<Item = &BackendName> {
        let (one, list) = match self {
            Self::One(name) => (Some(name), &[][..]),
            Self::Canary(canary) => (Some(&canary.main), &[][..]),
            Self::Weighted(list) | Self::Partial { valid: list, .. } => (None, &list[..]),
        };
        let alternative = if let Self::Canary(canary) = self { Some(&canary.alternative) } else { None };
        one.into_iter().chain(list.iter().map(|share| &share.backend)).chain(alternative)
    }

    /// Chooses a backend by weight, the main one of a canary, with what is particular to it; calls `random` only if there is a choice.
    /// `None` if all weights are 0, or for the share without a valid backend.
    pub fn choose(&self, random: impl FnOnce() -> u64) -> Option<(&BackendName, Option<&WeightedBackend>)> {
        let (list, invalid) = match self {
            Self::One(name) => return Some((name, None)),
            Self::Canary(canary) => return Some((&canary.main, None)),
            Self::Weighted(list) => (list, 0),
            Self::Partial { valid, invalid } => (valid, *invalid),
        };
        let total = list.iter().map(|share| u64::from(share.weight)).sum::<u64>() + u64::from(invalid);
        let wide = u128::from(random()) * u128::from(total);
        let mut at = (wide >> 64) as u64;
        list.iter().find_map(|share| match at.checked_sub(u64::from(share.weight)) {
            None => Some((&share.backend, Some(share))),
            Some(rest) => {
                at = rest;
                None
            }
        })
    }
}

impl From<BackendName> for Backends {
    fn from(name: BackendName) -> Self {
        Self::One(name)
    }
}

impl From<&str> for Backends {
    fn from(name: &str) -> Self {
        Self::One(name.into())
    }
}

impl fmt::Display for Backends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(name) => name.fmt(f),
            Self::Canary(canary) => write!(f, "{}, or {}", canary.main, canary.alternative),
            Self::Weighted(list) | Self::Partial { valid: list, .. } => {
                for (at, share) in list.iter().enumerate() {
                    write!(f, "{}{} {}", if at > 0 { ", " } else { "" }, share.weight, share.backend)?;
                }
                match self {
                    Self::Partial { invalid, valid } => {
                        write!(f, "{}{invalid} 500", if valid.is_empty() { "" } else { ", " })
                    }
                    _ => Ok(()),
                }
            }
        }
    }
}

impl Forward {
    /// Forwards to one backend, without a fallback.
    pub fn to(backend: BackendName, policy: Arc<ForwardPolicy>) -> Self {
        Self { backends: backend.into(), fallback: None, session_cookie_path: None, policy }
    }

    /// All backends that may receive the requests, the fallback last.
    pub fn all_backends(&self) -> impl Iterator<Item = &BackendName> {
        self.backends.names().chain(&self.fallback)
    }
}

/// A response from the proxy itself.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Respond {
    /// Status code.
    pub status: u16,
    /// Its body.
    pub body: Body,
    /// Its fields besides those in every response.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<(ConfiguredName, Box<str>)>,
}

/// The body of a response from the proxy itself.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Body {
    /// No body.
    Empty,
    /// The error page of the status.
    Page,
    /// A text.
    Text {
        /// Its Content-Type.
        content_type: Box<str>,
        /// The text.
        text: Arc<str>,
    },
}

impl Respond {
    /// A response with the page of a status.
    pub const fn page(status: u16) -> Self {
        Self { status, body: Body::Page, fields: Vec::new() }
    }

    /// A response without a body.
    pub const fn empty(status: u16) -> Self {
        Self { status, body: Body::Empty, fields: Vec::new() }
    }

    /// The answer for unknown hosts and paths.
    pub const fn not_found() -> Self {
        Self::page(404)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rewritten(pattern: &str, path: &str, target: &str) -> Option<String> {
        let regex: PathRegex = pattern.parse().unwrap();
        let mut out = Vec::new();
        let matched = regex.rewrite(path.as_bytes(), &target.into(), 1 << 10, &mut out).unwrap();
        matched.then(|| String::from_utf8(out).unwrap())
    }

    #[test]
    fn prefixes_match_whole_segments() {
        let prefix = PathMatch::prefix("/foo").unwrap();
        assert!(prefix.matches(b"/foo") && prefix.matches(b"/foo/") && prefix.matches(b"/foo/bar"));
        assert!(!prefix.matches(b"/foobar") && !prefix.matches(b"/FOO"));
        let below = PathMatch::prefix("/foo/").unwrap();
        assert!(below.matches(b"/foo/") && below.matches(b"/foo/bar") && !below.matches(b"/foo"));
        assert!(PathMatch::prefix("/").unwrap().matches(b"/anything"));
    }

    #[test]
    fn patterns_are_anchored_at_the_start_only_and_ignore_case() {
        let regex: PathRegex = "/foo".parse().unwrap();
        assert!(regex.is_match(b"/foobar") && regex.is_match(b"/FOO") && !regex.is_match(b"/a/foo"));
        let either: PathRegex = "/foo|/bar".parse().unwrap();
        assert!(either.is_match(b"/foo") && either.is_match(b"/x/bar"), "as nginx reads ^/foo|/bar");
    }

    #[test]
    fn rewrites_replace_the_whole_path() {
        assert_eq!(rewritten("/api(/|$)(.*)", "/api/v1/x", "/$2").as_deref(), Some("/v1/x"));
        assert_eq!(rewritten("/api(/|$)(.*)", "/api", "/$2").as_deref(), Some("/"));
        assert_eq!(rewritten("/strip", "/strip/me", "/new").as_deref(), Some("/new"));
        assert_eq!(rewritten("/a(b)?", "/a", "/x${1}y$9$").as_deref(), Some("/xy$"));
        assert_eq!(rewritten("/a", "/b", "/x"), None);
    }

    #[test]
    fn patterns_that_cost_too_much_are_refused() {
        for pattern in ["(", "/(?!x)", "/a{100000}", "/(a{1000}){1000}", &"a".repeat(5000), &"(".repeat(400)] {
            let error = PathMatch::regex(pattern).unwrap_err().to_string();
            assert!(!error.contains('\n') && error.len() < 200, "{error}");
        }
    }

    #[test]
    fn a_literal_start_decides_only_where_anything_may_follow() {
        let cases =
            [("/a", true), ("/a.*", true), ("/a(.*)", true), ("(.*)", true), ("/a(.*)b", false), ("/a?", false)];
        for (pattern, decides) in cases {
            let regex: PathRegex = pattern.parse().unwrap();
            assert_eq!(regex.literal_decides, decides, "{pattern}");
            for path in ["/", "/a", "/A/b", "/ab", "/b", "/aa", "/a\nb"] {
                let (found, expected) = (regex.is_match(path.as_bytes()), regex.regex.is_match(path.as_bytes()));
                assert_eq!(found, expected, "{pattern} {path}");
            }
        }
    }

    #[test]
    fn policies_that_are_read_one_after_the_other_share_memory_while_they_are_equal() {
        let other = ForwardPolicy { close: true, ..ForwardPolicy::default() };
        let read = |policy: &ForwardPolicy| {
            let written = serde_json::to_string(&Forward::to("web".into(), Arc::new(policy.clone()))).unwrap();
            let forward: Forward = serde_json::from_str(&written).unwrap();
            assert_eq!(*forward.policy, *policy);
            forward.policy
        };
        let [first, second, third] = [&ForwardPolicy::default(), &ForwardPolicy::default(), &other].map(read);
        assert!(Arc::ptr_eq(&first, &second) && !Arc::ptr_eq(&second, &third));
    }

    proptest! {
        #[test]
        fn the_literal_start_never_hides_a_match(
            pattern in "/[ab(|).*?]{0,8}", path in "/[abAB/]{0,8}",
        ) {
            if let Ok(regex) = pattern.parse::<PathRegex>() {
                prop_assert_eq!(regex.is_match(path.as_bytes()), regex.regex.is_match(path.as_bytes()));
            }
        }
    }
}
