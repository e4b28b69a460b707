//! A route: which path it takes, what is checked and edited on the way, and the one action at its end.

use std::cmp::Reverse;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use regex::bytes::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

use crate::capture::with_groups;
use crate::path::{InvalidPath, canonicalize_configured};
use crate::{
    BackendName, CaptureTemplate, Conditions, ConfiguredName, Filter, ForwardPolicy, Hostname, Origin, TooLong,
};

/// One path of an Ingress rule, or what follows from it (the answer for a missing slash, the implicit `/` of a host).
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Route {
    /// The object and the part of it that asked for this route.
    pub origin: Origin,
    /// The path as the user wrote it, for metrics, logs and cookies.
    pub rule: Box<str>,
    /// Which paths it takes.
    pub path: PathMatch,
    /// What else a request has to have.
    #[serde(default, skip_serializing_if = "Conditions::is_empty")]
    pub conditions: Conditions,
    /// What happens before the action, in this order. Any of them may answer the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filters: Vec<Filter>,
    /// What answers the request in the end.
    pub action: Action,
    /// Whether requests are written to the access log.
    pub access_log: bool,
}

impl Route {
    /// A route without filters, logged, whose rule is the text of its match.
    pub fn new(origin: Origin, path: PathMatch, action: Action) -> Self {
        let rule = path.text().into();
        Self { origin, rule, path, conditions: Conditions::default(), filters: Vec::new(), action, access_log: true }
    }
}

/// How a route selects requests by the canonical path. Exact beats regular expressions, these are tried in the order
/// of the host's routes, and among prefixes the longest wins.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum PathMatch {
    /// This path and no other.
    Exact(Box<str>),
    /// The path and all below it, by whole segments: `/foo` takes `/foo` and `/foo/x`; `/foo/` takes only what is below
    /// (Kubernetes documentation, "Path types"; ingress-nginx for the trailing slash).
    Prefix(Box<str>),
    /// A case-insensitive regular expression, anchored at the start only (ingress-nginx `use-regex`).
    Regex(PathRegex),
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

    /// A match by regular expression.
    pub fn regex(text: &str) -> Result<Self, InvalidPathMatch> {
        Ok(Self::Regex(text.parse()?))
    }

    /// The path or pattern as text.
    pub fn text(&self) -> &str {
        match self {
            Self::Exact(text) | Self::Prefix(text) => text,
            Self::Regex(regex) => &regex.text,
        }
    }

    /// Whether a canonical path is taken.
    pub fn matches(&self, path: &[u8]) -> bool {
        match self {
            Self::Exact(text) => text.as_bytes() == path,
            Self::Prefix(prefix) => {
                let prefix = prefix.as_bytes();
                path.starts_with(prefix) && ends_at_segment(path, prefix.len())
            }
            Self::Regex(regex) => regex.is_match(path),
        }
    }
}

/// By precedence: what comes first is asked first. Exact paths, then patterns (the longest first, as ingress-nginx orders them), then
/// prefixes, the longest first.
impl Ord for PathMatch {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        let key = |path: &Self| match path {
            Self::Exact(_) => (0, Reverse(0)),
            Self::Regex(regex) => (1, Reverse(regex.text.len())),
            Self::Prefix(text) => (2, Reverse(text.len())),
        };
        let text = || match (self, other) {
            (Self::Regex(own), Self::Regex(other)) => other.text.cmp(&own.text),
            _ => self.text().cmp(other.text()),
        };
        key(self).cmp(&key(other)).then_with(text)
    }
}

impl PartialOrd for PathMatch {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for PathMatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self {
            Self::Exact(_) => "Exact",
            Self::Prefix(_) => "Prefix",
            Self::Regex(_) => "Regex",
        };
        write!(f, "{kind} {}", self.text())
    }
}

/// Whether the first `len` bytes of a path are whole segments.
pub(crate) fn ends_at_segment(path: &[u8], len: usize) -> bool {
    len == path.len() || path[len] == b'/' || (len > 0 && path[len - 1] == b'/')
}

/// A compiled path pattern; two are equal when their text is.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "Box<str>", into = "Box<str>")]
pub struct PathRegex {
    text: Box<str>,
    /// Text that every match starts with, in lower case: most requests are told apart by it without running the expression.
    literal: Box<[u8]>,
    regex: Regex,
}

impl PathRegex {
    /// Largest compiled size in bytes. A pattern that needs more is refused; what users write needs a hundredth of it.
    pub const SIZE_LIMIT: usize = 256 << 10;
    /// Longest pattern in bytes; Kubernetes itself has no limit for a path.
    pub const LENGTH_LIMIT: usize = 4096;

    /// The pattern as the user wrote it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the canonical path matches from its start.
    pub fn is_match(&self, path: &[u8]) -> bool {
        self.may_match(path) && self.regex.is_match(path)
    }

    /// Appends the target with the groups of the match put in; `Ok(false)` when the pattern doesn't match the path.
    ///
    /// # Errors
    /// If that is longer than `limit`.
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
        // `^` goes in front of the text as ingress-nginx puts it, so that `/a|/b` means what it means there.
        let regex = RegexBuilder::new(&format!("^{text}"))
            .case_insensitive(true)
            .unicode(false)
            .size_limit(Self::SIZE_LIMIT)
            .dfa_size_limit(Self::SIZE_LIMIT)
            .nest_limit(50)
            .build()
            .map_err(|error| InvalidPathMatch::Regex(one_line(&error)))?;
        Ok(Self { text: text.into(), literal: literal_start(text).into(), regex })
    }
}

impl TryFrom<Box<str>> for PathRegex {
    type Error = InvalidPathMatch;

    fn try_from(text: Box<str>) -> Result<Self, InvalidPathMatch> {
        text.parse()
    }
}

impl From<PathRegex> for Box<str> {
    fn from(regex: PathRegex) -> Self {
        regex.text
    }
}

impl fmt::Debug for PathRegex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, f)
    }
}

impl PartialEq for PathRegex {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for PathRegex {}

/// The last line of a syntax error says what is wrong; those before it draw the place.
fn one_line(error: &regex::Error) -> String {
    let text = error.to_string();
    text.lines()
        .rev()
        .find_map(|line| line.strip_prefix("error: "))
        .unwrap_or(text.lines().next().unwrap_or_default())
        .to_owned()
}

fn literal_start(pattern: &str) -> Vec<u8> {
    // An alternation may start otherwise; to look for one outside of groups is not worth the code.
    if pattern.contains('|') {
        let first_group = pattern.find('(').unwrap_or(pattern.len());
        if pattern[..first_group].contains('|') || !only_grouped_alternation(pattern) {
            return Vec::new();
        }
    }
    let end =
        pattern.find(|c: char| !(c.is_ascii_alphanumeric() || "/-_~,;:@%=&".contains(c))).unwrap_or(pattern.len());
    let mut literal = pattern[..end].to_ascii_lowercase().into_bytes();
    // What follows may make the last character optional or repeat it.
    if matches!(pattern.as_bytes().get(end), Some(b'?' | b'*' | b'{')) {
        literal.pop();
    }
    literal
}

/// Whether every `|` lies within parentheses; brackets and escapes make it say no.
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

/// What answers a request that passed all filters.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Action {
    /// Send it to a backend.
    Forward(Forward),
    /// Answer with a redirect.
    Redirect(Redirect),
    /// Answer from the proxy itself.
    Respond(Respond),
}

/// Sending a request to a backend. A backend that the snapshot does not hold has no endpoints: the answer is 503.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Forward {
    /// Where requests go.
    #[serde(rename = "backend")]
    pub backends: Backends,
    /// Where they go instead when the backend has no endpoint that can take them (ingress-nginx `default-backend`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<BackendName>,
    /// Path attribute of the session cookie; `None` when this route sets none, though it follows one that it is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_cookie_path: Option<Box<str>>,
    /// Limits, timeouts and retries. Shared by all routes that have the same.
    pub policy: Arc<ForwardPolicy>,
}

/// A redirect that is the whole answer.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Redirect {
    /// Status, 300 to 308.
    pub status: u16,
    /// Where to.
    pub location: Location,
}

/// The value of a Location field.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Location {
    /// The text as it is; one that starts with `/` is completed with scheme and host of the request.
    Fixed(Box<str>),
    /// The text with captures of the route's pattern filled in.
    Captures(CaptureTemplate),
    /// `scheme://host` of the request and this path (`app-root`). The scheme is that of the connection itself.
    AppRoot(Box<str>),
    /// The request's own URL with a slash after the path, query kept.
    AppendSlash,
    /// `scheme://NAME:port` and the request target without one trailing slash (`from-to-www-redirect`).
    OtherHost(Hostname),
}

/// The backends of a rule.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Backends {
    /// All requests go to one.
    One(BackendName),
    /// Each gets its share.
    Weighted(Vec<WeightedBackend>),
}

/// A backend that gets a share of the requests of a rule.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct WeightedBackend {
    /// The backend.
    pub backend: BackendName,
    /// Its share in proportion to the others; none for 0.
    pub weight: u32,
}

impl Backends {
    /// All of them.
    pub fn names(&self) -> impl Iterator<Item = &BackendName> {
        let (one, list) = match self {
            Self::One(name) => (Some(name), &[][..]),
            Self::Weighted(list) => (None, &list[..]),
        };
        one.into_iter().chain(list.iter().map(|share| &share.backend))
    }

    /// One of the backends, by weight; `random` is only asked when there is a choice. `None` when all weights are 0.
    pub fn choose(&self, random: impl FnOnce() -> u64) -> Option<&BackendName> {
        match self {
            Self::One(name) => Some(name),
            Self::Weighted(list) => {
                let total: u64 = list.iter().map(|share| u64::from(share.weight)).sum();
                let wide = u128::from(random()) * u128::from(total);
                let mut at = (wide >> 64) as u64;
                list.iter().find_map(|share| match at.checked_sub(u64::from(share.weight)) {
                    None => Some(&share.backend),
                    Some(rest) => {
                        at = rest;
                        None
                    }
                })
            }
        }
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
            Self::Weighted(list) => {
                for (at, share) in list.iter().enumerate() {
                    write!(f, "{}{} {}", if at > 0 { ", " } else { "" }, share.weight, share.backend)?;
                }
                Ok(())
            }
        }
    }
}

impl Forward {
    /// All backends that may get the requests, the fallback last.
    pub fn all_backends(&self) -> impl Iterator<Item = &BackendName> {
        self.backends.names().chain(&self.fallback)
    }
}

/// An answer from the proxy itself.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Respond {
    /// Status code.
    pub status: u16,
    /// What it says.
    pub body: Body,
    /// Fields that it has besides those that every answer has.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<(ConfiguredName, Box<str>)>,
}

/// The body of an answer from the proxy itself.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Body {
    /// None.
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
    /// The page of a status.
    pub const fn page(status: u16) -> Self {
        Self { status, body: Body::Page, fields: Vec::new() }
    }

    /// A status without a body.
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
