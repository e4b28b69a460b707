//! One HTTPRoute or GRPCRoute by itself: its rules as routes of the model, and its parents.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use fairway_model::{
    ArgumentMatch, Conditions, FieldMatch, ForwardPolicy, HostPattern, Origin, PathMatch, Route, ValueMatch,
};

use super::api::{
    GRPCRoute, GRPCRouteMatch, HTTPRoute, HTTPRouteMatch, ParentReference, StreamRouteSpec, TLSRoute, ValueMatcher,
};
use super::attach::Attachment;
use super::backend_tls::BackendPolicies;
use super::listener;
use super::rule::{BuiltRule, RuleMatch, RuleReader, RuleText};
use super::status::{ParentStatus, Shortcoming};
use super::stream::Passage;
use super::xbackend::XBackends;
use crate::diagnostic::{Diagnostic, Reason, Severity};
use crate::engine::shared::Shared;
use crate::objects::{Kind, Object, ObjectKey, Objects};
use crate::options::Options;
use crate::resource::backend::BackendKey;
use crate::resource::{BackendWishes, Owner};

/// A route with at least one parent that is ours. There may be many thousands, so nothing has room for more than it holds.
#[derive(Debug)]
pub(super) struct RoutePart {
    pub(super) owner: Arc<Owner>,
    /// What it does with what it takes.
    pub(super) carried: Carried,
    /// Where they are served, in order.
    pub(super) attachments: Box<[Attachment]>,
    pub(super) parents: Box<[ParentStatus]>,
    pub(super) backends: Box<[(BackendKey, String)]>,
    /// What policies wish for backends.
    pub(super) wishes: BTreeMap<BackendKey, Arc<BackendWishes>>,
    pub(super) services: Box<[ObjectKey]>,
    pub(super) findings: Vec<Diagnostic>,
}

/// A route as written.
#[derive(Clone, Copy)]
pub(super) enum RouteText<'a> {
    Http(&'a HTTPRoute),
    Grpc(&'a GRPCRoute),
    Tls(&'a TLSRoute),
    /// A TCPRoute or UDPRoute.
    Stream(&'a StreamRouteSpec),
}

/// A match of a rule.
#[derive(Clone, Debug)]
pub(super) struct RuleRoute {
    pub(super) route: Route,
    /// The name of the rule.
    pub(super) rule: Option<Arc<str>>,
}

/// What a route does with what it takes.
#[derive(Clone, Debug)]
pub(super) enum Carried {
    /// Requests: its rules, in order.
    Requests(Arc<[RuleRoute]>),
    /// Connections or datagrams.
    Stream(Arc<Passage>),
    /// Nothing: it has no rule.
    Nothing,
}

/// The rules of a route, ready for the model.
#[derive(Debug, Default)]
pub(super) struct RouteRules {
    pub(super) routes: Vec<RuleRoute>,
    /// The backends of each rule, with its name.
    pub(super) shares: Vec<(Option<Arc<str>>, Vec<BackendKey>)>,
    /// Where connections or datagrams go, in place of routes.
    pub(super) passage: Option<Passage>,
    pub(super) backends: Vec<(BackendKey, String)>,
    pub(super) services: BTreeSet<ObjectKey>,
    pub(super) unresolved: Option<Shortcoming>,
    /// The faults of rules that are not carried out.
    pub(super) refused: Vec<Shortcoming>,
    pub(super) count: usize,
    pub(super) findings: Vec<Diagnostic>,
}

impl<'a> RouteText<'a> {
    pub(super) fn of(object: &'a Object) -> Option<Self> {
        match object {
            Object::HTTPRoute(route) => Some(Self::Http(route)),
            Object::GRPCRoute(route) => Some(Self::Grpc(route)),
            Object::TLSRoute(route) => Some(Self::Tls(route)),
            Object::TCPRoute(route) => Some(Self::Stream(&route.spec)),
            Object::UDPRoute(route) => Some(Self::Stream(&route.spec)),
            _ => None,
        }
    }

    pub(super) fn parents(self) -> &'a [ParentReference] {
        match self {
            Self::Http(route) => &route.spec.parent_refs,
            Self::Grpc(route) => &route.spec.parent_refs,
            Self::Tls(route) => &route.spec.parent_refs,
            Self::Stream(route) => &route.parent_refs,
        }
    }

    fn hostnames(self) -> &'a [String] {
        match self {
            Self::Http(route) => &route.spec.hostnames,
            Self::Grpc(route) => &route.spec.hostnames,
            Self::Tls(route) => &route.spec.hostnames,
            Self::Stream(_) => &[],
        }
    }

    /// Its host names; `None` if it has none. Invalid ones are reported and left out.
    pub(super) fn patterns(self, origin: &Origin, findings: &mut Vec<Diagnostic>) -> Option<Vec<HostPattern>> {
        let names = self.hostnames();
        let mut patterns = Vec::new();
        for (at, name) in names.iter().enumerate() {
            match listener::pattern(name) {
                Some(pattern) => patterns.push(pattern),
                None => {
                    let message = "expected a host name, or *. and a host name; it is ignored";
                    let (severity, reason) = (Severity::Error, Reason::InvalidHost);
                    let field = format!("spec.hostnames[{at}]");
                    findings.push(Diagnostic::new(severity, reason, origin, field, name, message));
                }
            }
        }
        (!names.is_empty()).then_some(patterns)
    }
}

/// Reads the rules of a route.
pub(super) fn rules(
    key: &ObjectKey,
    text: RouteText<'_>,
    objects: &Objects,
    options: &Options,
    (tls, xbackends): (&BackendPolicies, &XBackends),
    policies: &mut Shared<ForwardPolicy>,
) -> RouteRules {
    let origin = key.origin();
    let mut reader = RuleReader { key, origin: &origin, objects, options, tls, xbackends, policies };
    let mut rules = RouteRules::default();
    match text {
        RouteText::Http(route) => {
            for (at, rule) in route.spec.all_rules().iter().enumerate() {
                let text = RuleText {
                    at,
                    name: rule.name.as_deref(),
                    matches: Vec::new(),
                    filters: &rule.filters,
                    backends: &rule.backend_refs,
                    timeouts: rule.timeouts.as_deref(),
                    retry: rule.retry.as_deref(),
                    session: rule.session_persistence.as_deref(),
                };
                rules.add(&mut reader, text, &rule.matches, http_match, HTTPRouteMatch::default());
            }
        }
        RouteText::Grpc(route) => {
            for (at, rule) in route.spec.all_rules().iter().enumerate() {
                let text = RuleText {
                    at,
                    name: rule.name.as_deref(),
                    matches: Vec::new(),
                    filters: &rule.filters,
                    backends: &rule.backend_refs,
                    timeouts: None,
                    retry: None,
                    session: rule.session_persistence.as_deref(),
                };
                rules.add(&mut reader, text, &rule.matches, grpc_match, GRPCRouteMatch::default());
            }
        }
        RouteText::Tls(TLSRoute { spec: super::api::TLSRouteSpec { rules: all, .. }, .. })
        | RouteText::Stream(StreamRouteSpec { rules: all, .. }) => {
            if let Some(rule) = all.first() {
                let (passage, built) = reader.passage(0, rule);
                rules.passage = Some(passage);
                rules.gather(built, None);
            }
        }
    }
    rules
}

/// The part of a match that can't be used, and why.
type BadPart = (&'static str, String);

/// What a match takes, as far as it can be used. A part that can't be used is replaced by one that takes at least as much, and the rule
/// answers these requests itself: they fall to no rule that may restrict less. Where nothing is known of the path, it is the prefix `/`:
/// the longer prefixes of other rules keep what is theirs.
#[derive(Debug)]
struct ReadMatch {
    path: PathMatch,
    conditions: Conditions,
    /// The first part that can't be used.
    bad: Option<BadPart>,
}

impl RouteRules {
    fn add<M>(
        &mut self,
        reader: &mut RuleReader<'_>,
        mut text: RuleText<'_>,
        matches: &[M],
        read: impl Fn(&M) -> ReadMatch,
        default: M,
    ) {
        let mut bad = Vec::new();
        let default = [default];
        let all = if matches.is_empty() { &default[..] } else { matches };
        for (at, one) in all.iter().enumerate() {
            let index = (!matches.is_empty()).then_some(at);
            let ReadMatch { path, conditions, bad: part } = read(one);
            let conditions = (conditions != Conditions::default()).then(|| Box::new(conditions));
            text.matches.push(RuleMatch { at: index, path, conditions, is_usable: part.is_none() });
            bad.extend(part.map(|(part, message)| (format!("spec.rules[{}].matches[{at}].{part}", text.at), message)));
        }
        let mut built = reader.build(&text);
        for (field, message) in bad {
            let finding = format!("{message}; requests that it may take answer {}", reader.failure());
            let (severity, reason) = (Severity::Error, Reason::InvalidPath);
            built.findings.push(Diagnostic::new(severity, reason, reader.origin, &*field, "", finding));
            built
                .refused
                .get_or_insert(Shortcoming::new("UnsupportedValue", format!("Dropped Rule: {field}: {message}")));
        }
        self.gather(built, text.name.map(Into::into));
    }

    fn gather(&mut self, built: BuiltRule, name: Option<Arc<str>>) {
        let BuiltRule { routes, backends, services, unresolved, refused, findings } = built;
        self.routes.extend(routes.into_iter().map(|route| RuleRoute { route, rule: name.clone() }));
        self.shares.push((name, backends.iter().map(|(backend, _)| backend.clone()).collect()));
        self.backends.extend(backends);
        self.services.extend(services);
        self.unresolved = self.unresolved.take().or(unresolved);
        self.refused.extend(refused);
        self.findings.extend(findings);
        self.count += 1;
    }

    /// What the route does.
    pub(super) fn carried(&mut self) -> Carried {
        match (self.passage.take(), std::mem::take(&mut self.routes)) {
            (Some(passage), _) => Carried::Stream(passage.into()),
            (None, routes) if routes.is_empty() => Carried::Nothing,
            (None, routes) => Carried::Requests(routes.into()),
        }
    }
}

fn http_match(one: &HTTPRouteMatch) -> ReadMatch {
    let mut read = ReadMatch::everything();
    let path = one.path.as_ref();
    let text = path.and_then(|path| path.value.as_deref()).unwrap_or("/");
    read.path = match path.and_then(|path| path.r#type.as_deref()).unwrap_or("PathPrefix") {
        "Exact" => read.path_or_more("path.value", PathMatch::exact(text), text),
        // A slash at the end says nothing: `/abc/` takes `/abc` too.
        "PathPrefix" => {
            let prefix = Some(text.trim_end_matches('/')).filter(|it| !it.is_empty()).unwrap_or("/");
            read.path_or_more("path.value", PathMatch::prefix(prefix), prefix)
        }
        // The whole path, in the case that it has.
        "RegularExpression" => {
            let pattern = PathMatch::regex(&format!("(?-i:(?:{text})$)"));
            read.path_or_more("path.value", pattern, literal_start(text))
        }
        other => {
            read.bad("path.type", format!("expected Exact, PathPrefix or RegularExpression, found {other}"));
            every_path()
        }
    };
    let arguments = read.values(&one.query_params, "queryParams", str::to_owned);
    read.conditions = Conditions {
        method: one.method.as_deref().map(Into::into),
        arguments: arguments
            .into_iter()
            .map(|(name, value)| ArgumentMatch { name: name.as_str().into(), value })
            .collect(),
        fields: read.fields(&one.headers),
        ..Conditions::default()
    };
    read
}

fn grpc_match(one: &GRPCRouteMatch) -> ReadMatch {
    let mut read = ReadMatch::everything();
    let method = one.method.as_ref();
    let service = method.and_then(|method| method.service.as_deref()).filter(|text| !text.is_empty());
    let name = method.and_then(|method| method.method.as_deref()).filter(|text| !text.is_empty());
    let (path, start) = match (method.and_then(|method| method.r#type.as_deref()).unwrap_or("Exact"), service, name) {
        (_, None, None) => (Ok(every_path()), String::new()),
        ("Exact", Some(service), Some(name)) => (PathMatch::exact(&format!("/{service}/{name}")), String::new()),
        ("Exact", Some(service), None) => (PathMatch::prefix(&format!("/{service}")), String::new()),
        ("Exact", None, Some(name)) => (PathMatch::regex(&format!("(?-i:/[^/]+/{}$)", escaped(name))), String::new()),
        ("RegularExpression", service, name) => {
            let (service, name) = (service.unwrap_or("[^/]+"), name.unwrap_or("[^/]+"));
            (PathMatch::regex(&format!("(?-i:/(?:{service})/(?:{name})$)")), format!("/{}", literal_start(service)))
        }
        (other, ..) => {
            read.bad("method.type", format!("expected Exact or RegularExpression, found {other}"));
            (Ok(every_path()), String::new())
        }
    };
    read.path = read.path_or_more("method", path, &start);
    read.conditions.fields = read.fields(&one.headers);
    read
}

fn escaped(text: &str) -> String {
    text.chars().flat_map(|c| (!c.is_ascii_alphanumeric()).then_some('\\').into_iter().chain([c])).collect()
}

/// What every text begins with that a regular expression matches, as far as that is seen without reading the expression, which may be
/// one for another engine.
fn literal_start(pattern: &str) -> &str {
    let pattern = pattern.strip_prefix('^').unwrap_or(pattern);
    let is_literal = |c: char| c.is_ascii_alphanumeric() || "/-_~%!@,;:=&".contains(c);
    let end = pattern.find(|c| !is_literal(c)).unwrap_or(pattern.len());
    // The last character may be optional, and another branch may begin differently.
    let start = &pattern[..end];
    match pattern[end..].chars().next() {
        None => start,
        Some(_) if may_branch(pattern) => "",
        Some('?' | '*' | '{') => start.char_indices().next_back().map_or("", |(last, _)| &start[..last]),
        Some(_) => start,
    }
}

/// Whether there may be branches outside of groups.
fn may_branch(pattern: &str) -> bool {
    // What looks like the end of a class or the begin of a group need not be one.
    if ["[]", "[^]", "(?#"].iter().any(|unclear| pattern.contains(unclear)) {
        return true;
    }
    let (mut depth, mut in_class, mut quoted) = (0u32, false, false);
    pattern.chars().any(|c| {
        if std::mem::take(&mut quoted) {
            // What stands between `\Q` and `\E` is text.
            return c == 'Q';
        }
        match c {
            '\\' => quoted = true,
            '[' => in_class = true,
            ']' => in_class = false,
            '(' if !in_class => depth += 1,
            ')' if !in_class => depth = depth.saturating_sub(1),
            '|' => return depth == 0 && !in_class,
            _ => {}
        }
        false
    })
}

fn every_path() -> PathMatch {
    PathMatch::Prefix("/".into())
}

impl ReadMatch {
    fn everything() -> Self {
        Self { path: every_path(), conditions: Conditions::default(), bad: None }
    }

    fn bad(&mut self, part: &'static str, message: String) {
        self.bad.get_or_insert((part, message));
    }

    /// The path, or where it can't be used all paths with this start.
    fn path_or_more<E: fmt::Display>(
        &mut self,
        part: &'static str,
        path: Result<PathMatch, E>,
        start: &str,
    ) -> PathMatch {
        path.unwrap_or_else(|error| {
            self.bad(part, error.to_string());
            // Patterns come before prefixes: one for every path would take the paths of all other routes of the host.
            match start {
                "" | "/" => every_path(),
                start => PathMatch::regex(&format!("(?-i:{})", escaped(start))).unwrap_or_else(|_| every_path()),
            }
        })
    }

    fn fields(&mut self, headers: &[ValueMatcher]) -> Vec<FieldMatch> {
        let mut fields = Vec::new();
        for (name, value) in self.values(headers, "headers", str::to_ascii_lowercase) {
            match name.as_str().try_into() {
                Ok(name) => fields.push(FieldMatch { name, value }),
                Err(_) => self.bad("headers", format!("{name:?} is no name of a field")),
            }
        }
        fields
    }

    /// Conditions on values; of several for one name the first counts. In the order of names: the order in which a user lists them says
    /// nothing.
    fn values(
        &mut self,
        all: &[ValueMatcher],
        field: &'static str,
        identity: impl Fn(&str) -> String,
    ) -> Vec<(String, ValueMatch)> {
        let (mut known, mut found) = (Vec::<String>::new(), Vec::new());
        for one in all {
            let name = identity(&one.name);
            if known.contains(&name) {
                continue;
            }
            known.push(name.clone());
            match one.r#type.as_deref().unwrap_or("Exact") {
                "Exact" => found.push((name, ValueMatch::Exact(one.value.as_str().into()))),
                "RegularExpression" => match one.value.parse() {
                    Ok(regex) => found.push((name, ValueMatch::Regex(regex))),
                    Err(_) => {
                        let message = format!("{:?} is no regular expression that runs in linear time", one.value);
                        self.bad(field, message);
                        // What it would match has at least the field or parameter.
                        found.extend("(?s).*".parse().ok().map(|any| (name, ValueMatch::Regex(any))));
                    }
                },
                other => self.bad(field, format!("type: expected Exact or RegularExpression, found {other}")),
            }
        }
        found.sort_by(|(one, _): &(String, _), (other, _)| one.cmp(other));
        found
    }
}

/// The kinds of object that are read here.
pub(super) fn kinds() -> impl Iterator<Item = Kind> {
    Kind::ALL.iter().copied().filter(|kind| kind.is_route())
}

#[cfg(test)]
mod tests {
    use super::literal_start;

    #[test]
    fn the_start_of_a_pattern_ends_where_it_may_vary() {
        for (pattern, start) in [
            ("/admin(?=/|$).*", "/admin"),
            ("/admin", "/admin"),
            ("/a(?!b)|/c", ""),
            ("/a[|](?=c)", "/a"),
            ("/a\\|b(?=c)", "/a"),
            ("/a\\Q(\\E|/b", ""),
            ("/a[](]|/b(?=c)", ""),
            ("^/admin(?=/)", "/admin"),
            ("/ab*(?=c)", "/a"),
            ("/ab?(?=c)", "/a"),
            ("/ab{0}(?=c)", "/a"),
            ("/ab+(?=c)", "/ab"),
            ("(?=a)", ""),
            ("*", ""),
            ("", ""),
        ] {
            assert_eq!(literal_start(pattern), start, "{pattern}");
        }
    }
}
