//! One HTTPRoute or GRPCRoute by itself: its rules as routes of the model, and its parents.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fairway_model::{Conditions, ForwardPolicy, HostPattern, Origin, Route};

use super::api::{GRPCRoute, GRPCRouteMatch, HTTPRoute, HTTPRouteMatch, ParentReference, StreamRouteSpec, TLSRoute};
use super::attach::Attachment;
use super::backend_tls::BackendPolicies;
use super::listener;
use super::read_match::{ReadMatch, grpc_match, http_match};
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

/// The kinds of object that are read here.
pub(super) fn kinds() -> impl Iterator<Item = Kind> {
    Kind::ALL.iter().copied().filter(|kind| kind.is_route())
}
