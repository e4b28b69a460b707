//! One Ingress as HTTPRoutes: its paths as the proxy matches them, and the filters that the Gateway API has.

use std::collections::BTreeMap;
use std::fmt;

use fairway_model::{HostPattern, PathMatch, PathRegex, Route};
use fairway_translate::annotation::IngressAnnotations;
use fairway_translate::gateway::api::{
    BackendReference, CorsFilter, HTTPRouteFilter, HTTPRouteMatch, HTTPRouteRule, HeaderModifier, HeaderValue,
    PathMatcher, PathModifier, RequestRedirect, UrlRewrite,
};
use fairway_translate::value::RewriteTarget;

use super::policy::Obstacle;
use crate::pattern;

/// Most rules of a route, and most matches of a rule, that the API server takes.
pub(super) const RULES: usize = 16;
const MATCHES: usize = 64;

/// A path of an Ingress, and where it leads.
#[derive(Clone, Debug)]
pub(super) struct ServedPath {
    pub(super) matched: Matched,
    /// The Service and its port; `None` for all other paths of a host that has no path `/`, to which redirects apply too.
    pub(super) backend: Option<(String, i32)>,
    /// Its place among the routes of the host.
    pub(super) place: usize,
}

impl ServedPath {
    fn is_like(&self, other: &Self) -> bool {
        (&self.matched, &self.backend) == (&other.matched, &other.backend)
    }
}

/// A path as a route matches it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Matched {
    kind: &'static str,
    value: String,
    /// In place of the prefix that matches.
    replaced: Option<String>,
    /// The captures of the pattern are used.
    pub(super) captures: bool,
}

impl Matched {
    /// Whether it comes before all prefixes, and among its like by the order of routes and rules.
    pub(super) fn is_pattern(&self) -> bool {
        self.kind == "RegularExpression"
    }

    pub(super) fn is_exact(&self) -> bool {
        self.kind == "Exact"
    }

    /// What the paths begin with that it takes, see [`pattern::beginnings`].
    pub(super) fn beginnings(&self) -> pattern::Beginnings {
        match self.is_pattern() {
            true => beginnings(&self.value),
            false => pattern::of_segments(self.value.as_bytes()),
        }
    }

    /// Whether it is a prefix in place of a pattern, for which letters may be of any case.
    pub(super) fn is_replaced(&self) -> bool {
        self.replaced.is_some()
    }

    /// The same as a pattern, if it is a plain prefix.
    fn as_pattern(&self) -> Option<Self> {
        let is_plain = self.kind == "PathPrefix" && self.replaced.is_none() && self.value != "/";
        is_plain.then(|| Self {
            kind: "RegularExpression",
            value: format!("{}(/.*)?", PathRegex::escaped(&self.value)),
            ..self.clone()
        })
    }
}

/// As it is written in an Ingress, or nearly so.
impl fmt::Display for Matched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.value.strip_prefix("(?i)").unwrap_or(&self.value);
        f.write_str(text.strip_suffix(".*").filter(|_| self.is_pattern()).unwrap_or(text))
    }
}

/// What the paths begin with that a pattern of a route takes. Letters are of any case.
fn beginnings(pattern: &str) -> pattern::Beginnings {
    pattern::beginnings(pattern.strip_prefix("(?i)").unwrap_or(pattern))
}

/// On a host with patterns a prefix is two, `/a/` and `/a`. Where nothing comes between, the second is enough.
pub(super) fn drop_what_follows_takes(paths: &mut Vec<ServedPath>) {
    let takes = |one: &ServedPath, next: &ServedPath| {
        let shorter = one.matched.value.strip_suffix("/.*").map(|bare| format!("{bare}.*"));
        one.matched.is_pattern()
            && shorter.is_some_and(|shorter| shorter == next.matched.value)
            && one.place + 1 == next.place
            && (one.matched.captures, &one.backend) == (next.matched.captures, &next.backend)
    };
    let is_needed: Vec<_> =
        (0..paths.len()).map(|at| paths.get(at + 1).is_none_or(|next| !takes(&paths[at], next))).collect();
    let mut is_needed = is_needed.into_iter();
    paths.retain(|_| is_needed.next().unwrap_or(true));
}

/// Keeps the order of paths, the first of which comes first: a prefix before a pattern that takes the same becomes one too.
pub(super) fn keep_order(paths: &mut [ServedPath]) {
    for at in (0..paths.len()).rev() {
        let (before, after) = paths.split_at_mut(at + 1);
        let own = &mut before[at].matched;
        let beginnings = own.beginnings();
        let is_before = after
            .iter()
            .any(|other| other.matched.is_pattern() && pattern::overlap(&beginnings, &other.matched.beginnings()));
        if let (true, Some(pattern)) = (is_before, own.as_pattern()) {
            *own = pattern;
        }
    }
}

/// Whether the order of rules counts that are in different routes, of which each has this many.
pub(super) fn order_is_split(rules: &[HTTPRouteRule]) -> bool {
    let patterns = |rules: &[HTTPRouteRule]| -> pattern::Beginnings {
        let paths = rules.iter().flat_map(|rule| &rule.matches).filter_map(|one| one.path.as_ref());
        let patterns = paths.filter(|path| path.r#type.as_deref() == Some("RegularExpression"));
        let texts = patterns.filter_map(|path| path.value.as_deref());
        texts.flat_map(beginnings).collect()
    };
    let chunks: Vec<_> = rules.chunks(RULES).map(patterns).collect();
    chunks.iter().enumerate().any(|(at, one)| chunks[at + 1..].iter().any(|other| pattern::overlap(one, other)))
}

/// All paths.
pub(super) fn root() -> Matched {
    Matched { kind: "PathPrefix", value: "/".to_owned(), replaced: None, captures: false }
}

/// A path, from the route that it has become.
/// `plainly`: patterns that stand for a prefix become one.
pub(super) fn matched(route: &Route, annotations: &IngressAnnotations, plainly: bool) -> Matched {
    let target = match &annotations.rewriting.rewrite_target {
        Some(RewriteTarget::Path(target)) if target.as_str() != &*route.rule => Some(target.as_str()),
        _ => None,
    };
    let plain =
        |kind, value: &str| Matched { kind, value: value.to_owned(), replaced: None, captures: target.is_some() };
    match &route.path {
        PathMatch::Exact(path) => plain("Exact", path),
        // With a slash at its end it would take the path without it too.
        PathMatch::Prefix(path) if path.len() > 1 && path.ends_with('/') => {
            plain("RegularExpression", &format!("{}.*", PathRegex::escaped(path)))
        }
        PathMatch::Prefix(path) => plain("PathPrefix", path),
        PathMatch::Start(path) => plain("RegularExpression", &format!("{}.*", PathRegex::escaped(path))),
        // What stands in X-Forwarded-Prefix has no place beside a prefix.
        PathMatch::Regex(regex) => match target
            .filter(|_| plainly && annotations.rewriting.forwarded_prefix.is_none())
            .and_then(|target| prefix_of(&route.rule, target))
        {
            Some((prefix, replaced)) => {
                Matched { kind: "PathPrefix", value: prefix, replaced: Some(replaced), captures: false }
            }
            None if target.is_none() && regex.text() == "/" => root(),
            None => plain("RegularExpression", &whole(regex.text())),
        },
    }
}

/// A pattern of an Ingress as one for the whole path. It is anchored at the start only, whatever the case of letters; and if it has
/// alternatives, only the first of them is.
pub(super) fn whole(pattern: &str) -> String {
    match &pattern::alternatives(pattern)[..] {
        [first, others @ ..] if !others.is_empty() => format!("(?i)(?:{first}|.*?(?:{})).*", others.join("|")),
        _ => format!("(?i){pattern}.*"),
    }
}

/// The prefix that `/PREFIX(/|$)(.*)` stands for, and what `/NEW/$2` puts in its place.
fn prefix_of(rule: &str, target: &str) -> Option<(String, String)> {
    let prefix = rule.strip_suffix("(/|$)(.*)").filter(|prefix| is_literal(prefix))?;
    let new = target.strip_suffix("$2").filter(|new| new.ends_with('/') && !new.contains('$'))?;
    // `/$2` of `/a` leads to `/`, and so does the replacement by nothing.
    let new = new.trim_end_matches('/');
    Some((prefix.to_owned(), if new.is_empty() { "/".to_owned() } else { new.to_owned() }))
}

fn is_literal(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_~".contains(&byte);
    text.len() > 1 && text.starts_with('/') && !text.ends_with('/') && text.bytes().all(allowed)
}

/// The rules for paths, in their order. Those that differ in nothing but the match are one, unless the order of patterns counts.
pub(super) fn rules(paths: &[ServedPath], filters: &[HTTPRouteFilter]) -> Vec<HTTPRouteRule> {
    let ordered = paths.iter().any(|path| path.matched.kind == "RegularExpression");
    let mut rules: Vec<(HTTPRouteRule, &ServedPath)> = Vec::new();
    for path in paths {
        let one = HTTPRouteMatch {
            path: Some(PathMatcher {
                r#type: Some(path.matched.kind.to_owned()),
                value: Some(path.matched.value.clone()),
            }),
            ..HTTPRouteMatch::default()
        };
        let same = |(rule, first): &&mut (HTTPRouteRule, &ServedPath)| {
            first.backend == path.backend
                && first.matched.replaced == path.matched.replaced
                && rule.matches.len() < MATCHES
        };
        let known = if ordered { rules.last_mut().filter(same) } else { rules.iter_mut().find(same) };
        match known {
            Some((rule, _)) => rule.matches.push(one),
            None => {
                let mut filters = filters.to_vec();
                if let Some(with) = &path.matched.replaced {
                    let modifier = PathModifier {
                        r#type: "ReplacePrefixMatch".to_owned(),
                        replace_prefix_match: Some(with.clone()),
                        ..PathModifier::default()
                    };
                    rewrite(&mut filters).path = Some(modifier);
                }
                let backend = path.backend.as_ref().map(|(service, port)| BackendReference {
                    name: service.clone(),
                    port: Some(*port),
                    ..BackendReference::default()
                });
                let rule = HTTPRouteRule {
                    matches: vec![one],
                    filters,
                    backend_refs: backend.into_iter().collect(),
                    ..HTTPRouteRule::default()
                };
                rules.push((rule, path));
            }
        }
    }
    rules.into_iter().map(|(rule, _)| rule).collect()
}

/// The one filter that rewrites.
fn rewrite(filters: &mut Vec<HTTPRouteFilter>) -> &mut UrlRewrite {
    let at = filters.iter().position(|filter| filter.r#type == "URLRewrite").unwrap_or_else(|| {
        filters.push(HTTPRouteFilter { r#type: "URLRewrite".to_owned(), ..HTTPRouteFilter::default() });
        filters.len() - 1
    });
    filters[at].url_rewrite.get_or_insert_default()
}

/// The rules that send plain HTTP to https, for the same matches.
pub(super) fn to_https(rules: &[HTTPRouteRule], status: u16) -> Vec<HTTPRouteRule> {
    let redirect = HTTPRouteFilter {
        r#type: "RequestRedirect".to_owned(),
        request_redirect: Some(Box::new(RequestRedirect {
            scheme: Some("https".to_owned()),
            status_code: Some(status.into()),
            ..RequestRedirect::default()
        })),
        ..HTTPRouteFilter::default()
    };
    let matches: Vec<_> = rules.iter().flat_map(|rule| rule.matches.iter().cloned()).collect();
    let chunks = matches.chunks(MATCHES);
    chunks
        .map(|matches| HTTPRouteRule {
            matches: matches.to_vec(),
            filters: vec![redirect.clone()],
            ..HTTPRouteRule::default()
        })
        .collect()
}

/// The filters that all rules of an Ingress have. `secure` is the value of Strict-Transport-Security, where only https is served.
pub(super) fn filters(
    annotations: &IngressAnnotations,
    text: &dyn Fn(&str) -> Option<String>,
    secure: Option<&str>,
) -> Result<Vec<HTTPRouteFilter>, Obstacle> {
    let mut filters = Vec::new();
    if let Some(value) = secure {
        let set = vec![HeaderValue { name: "Strict-Transport-Security".to_owned(), value: value.to_owned() }];
        filters.push(HTTPRouteFilter {
            r#type: "ResponseHeaderModifier".to_owned(),
            response_header_modifier: Some(Box::new(HeaderModifier { set, ..HeaderModifier::default() })),
            ..HTTPRouteFilter::default()
        });
    }
    let cors = &annotations.cross_origin;
    if cors.enabled == Some(true) {
        let list = |name: &str, usual: &str| -> Vec<String> {
            let text = text(name).unwrap_or_else(|| usual.to_owned());
            text.split(',').map(|entry| entry.trim().to_owned()).filter(|entry| !entry.is_empty()).collect()
        };
        let headers = "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Range,Authorization";
        let origins = list("cors-allow-origin", "*");
        // Browsers refuse `*` for requests with credentials, and a Gateway would name the origin instead: any site could use them.
        let credentials = cors.credentials.unwrap_or(true) && !origins.iter().any(|origin| origin == "*");
        filters.push(HTTPRouteFilter {
            r#type: "CORS".to_owned(),
            cors: Some(Box::new(CorsFilter {
                allow_origins: origins,
                allow_credentials: Some(credentials),
                allow_methods: list("cors-allow-methods", "GET, PUT, POST, DELETE, PATCH, OPTIONS"),
                allow_headers: list("cors-allow-headers", headers),
                expose_headers: list("cors-expose-headers", ""),
                max_age: Some(cors.max_age.and_then(|age| age.try_into().ok()).unwrap_or(1_728_000)),
            })),
            ..HTTPRouteFilter::default()
        });
    }
    if let Some(host) = &annotations.proxying.vhost {
        if host.as_str().contains('$') {
            let why = "a host with variables has no place in an HTTPRoute".to_owned();
            return Err(Obstacle { annotation: "upstream-vhost", why });
        }
        rewrite(&mut filters).hostname = Some(host.as_str().to_owned());
    }
    Ok(filters)
}

/// The answer in place of a backend, from `permanent-redirect` and `temporal-redirect`.
pub(super) fn redirect(annotations: &IngressAnnotations) -> Result<Option<HTTPRouteFilter>, Obstacle> {
    let redirects = &annotations.redirects;
    let (annotation, url, code, usual) = match (&redirects.temporal, &redirects.permanent) {
        (Some(url), _) => ("temporal-redirect", url, redirects.temporal_code, 302),
        (None, Some(url)) => ("permanent-redirect", url, redirects.permanent_code, 301),
        (None, None) => return Ok(None),
    };
    let obstacle = |why: &str| Obstacle { annotation, why: why.to_owned() };
    let code = code.unwrap_or(usual);
    if !matches!(code, 301 | 302 | 303 | 307 | 308) {
        return Err(obstacle("an HTTPRoute redirects with 301, 302, 303, 307 or 308 only"));
    }
    let (scheme, rest) = url.as_str().split_once("://").ok_or_else(|| obstacle("it is no URL with a host"))?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    if !matches!(scheme, "http" | "https") || path.contains(['?', '$']) || authority.contains(['?', '$', '@']) {
        return Err(obstacle("an HTTPRoute redirects to a host and path, without query and variables"));
    }
    let (host, port) = match authority.split_once(':') {
        Some((host, port)) => (host, Some(port.parse::<i32>().map_err(|_| obstacle("the port is no number"))?)),
        None => (authority, None),
    };
    let path = PathModifier {
        r#type: "ReplaceFullPath".to_owned(),
        replace_full_path: Some(if path.is_empty() { "/".to_owned() } else { path.to_owned() }),
        ..PathModifier::default()
    };
    Ok(Some(HTTPRouteFilter {
        r#type: "RequestRedirect".to_owned(),
        request_redirect: Some(Box::new(RequestRedirect {
            scheme: Some(scheme.to_owned()),
            hostname: Some(host.to_owned()),
            path: Some(path),
            port,
            status_code: i32::try_from(code).ok(),
        })),
        ..HTTPRouteFilter::default()
    }))
}

/// Hosts that have the same paths, in the order of their names.
pub(super) fn groups(hosts: BTreeMap<HostPattern, Vec<ServedPath>>) -> Vec<(Vec<HostPattern>, Vec<ServedPath>)> {
    let mut groups: Vec<(Vec<HostPattern>, Vec<ServedPath>)> = Vec::new();
    for (host, paths) in hosts {
        // Without a host name a route serves all; with others beside it that could not be said.
        let known = groups.iter_mut().find(|(hosts, known)| {
            let alike = |known: &[ServedPath]| known.iter().zip(&paths).all(|(one, other)| one.is_like(other));
            (known.len() == paths.len() && alike(known))
                && host != HostPattern::Any
                && hosts.len() < RULES
                && !hosts.contains(&HostPattern::Any)
        });
        match known {
            Some((hosts, _)) => hosts.push(host),
            None => groups.push((vec![host], paths)),
        }
    }
    groups
}
