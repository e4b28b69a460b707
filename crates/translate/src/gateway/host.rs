//! Hosts of Gateways: the routes of one name on one port, in order of precedence, and what lies beneath.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fairway_model::{
    Action, Backends, CertificateName, Filter, Forward, ForwardPolicy, Host, HostPattern, Location, Onward, Origin,
    Passthrough, PathMatch, Route, Scheme, StreamBackends, TableName,
};
use jiff::Timestamp;

use super::attach::{ListenerId, NameRank, text};
use super::backend_tls::showing;
use super::open::{OpenListener, OpenListeners};
use super::route::{Carried, RuleRoute};
use super::route_policy::{RoutePolicies, Site};
use super::stream::{Passage, Protocol};
use super::telemetry_policy::TelemetryPolicies;
use crate::objects::ObjectKey;

/// Which of two routes with equal matches is served: the older one, then the first of the alphabet (Gateway API, HTTPRouteRule).
/// Objects without a creation time come after all others, in the order of reading; those being deleted come last.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct RouteAge {
    leaving: bool,
    unknown: bool,
    created: Option<Timestamp>,
    sequence: u64,
    namespace: Arc<str>,
    name: Arc<str>,
    key: ObjectKey,
}

impl RouteAge {
    pub(super) fn of(key: &ObjectKey, created: Option<Timestamp>, sequence: u64, leaving: bool) -> Self {
        Self {
            leaving,
            unknown: created.is_none(),
            created,
            sequence: if created.is_some() { 0 } else { sequence },
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            key: key.clone(),
        }
    }

    /// Whose it is.
    pub(super) fn key(&self) -> &ObjectKey {
        &self.key
    }
}

/// The hosts on one port.
#[derive(Debug, Default)]
pub(super) struct PortTable {
    /// The open listeners.
    pub(super) listeners: OpenListeners,
    /// Whether Ingresses are served on the port too.
    pub(super) shared: bool,
    /// Whether TLS is spoken there.
    pub(super) secure: bool,
    /// The port that redirects name; `None` if the client's own is right.
    pub(super) named_port: Option<u16>,
    /// The port that redirects to https name if none is written, in place of 443: only on a developer's machine.
    pub(super) https_port: Option<u16>,
    /// Which routes each host has, in order. Most hosts have one, and a map has room for eleven.
    routes: BTreeMap<HostPattern, BTreeMap<Box<RouteTurn>, Carried>>,
    published: BTreeMap<HostPattern, Arc<Host>>,
}

/// The place of a route's rules in a host, by the listener that takes the route.
type RouteTurn = (NameRank, RouteAge, ListenerId);

/// The host of the Ingresses for the same name, with the age of each of its objects.
pub(super) struct Beneath<'a> {
    pub(super) host: Option<&'a Arc<Host>>,
    pub(super) table: &'a TableName,
    pub(super) age: &'a dyn Fn(&Origin) -> Option<RouteAge>,
}

impl PortTable {
    pub(super) fn insert(
        &mut self,
        pattern: &HostPattern,
        rank: NameRank,
        age: &RouteAge,
        listener: &ListenerId,
        carried: &Carried,
    ) {
        let turn = Box::new((rank, age.clone(), listener.clone()));
        self.routes.entry(pattern.clone()).or_default().insert(turn, carried.clone());
    }

    pub(super) fn remove(&mut self, pattern: &HostPattern, rank: NameRank, age: &RouteAge, listener: &ListenerId) {
        if let Some(routes) = self.routes.get_mut(pattern) {
            routes.remove(&(rank, age.clone(), listener.clone()));
            if routes.is_empty() {
                self.routes.remove(pattern);
            }
        }
    }

    /// The routes that a host has, in order.
    fn turns(&self, pattern: &HostPattern) -> impl Iterator<Item = (&RouteTurn, &Carried)> {
        self.routes.get(pattern).into_iter().flatten().map(|(turn, carried)| (&**turn, carried))
    }

    /// All names that have a host, or had one.
    pub(super) fn names(&self) -> BTreeSet<HostPattern> {
        let named = self.routes.keys().chain(self.published.keys());
        let own = self.listeners.iter().map(|listener| &listener.hostname);
        named.chain(own).cloned().chain((self.shared || self.only_passes()).then_some(HostPattern::Any)).collect()
    }

    /// Whether nothing is served there, and nothing is left of it.
    pub(super) fn is_idle(&self) -> bool {
        self.listeners.is_empty() && self.routes.is_empty() && self.published.is_empty()
    }

    /// Whether the name has a host, or would have one without the Ingresses beneath it, so that a change of these matters.
    pub(super) fn has(&self, pattern: &HostPattern) -> bool {
        self.published.contains_key(pattern) || self.routes.contains_key(pattern)
    }

    /// Builds a host anew. Returns it if it has changed, or nothing if it is gone.
    pub(super) fn settle(
        &mut self,
        table: &TableName,
        pattern: &HostPattern,
        beneath: &Beneath<'_>,
        (policies, telemetry): (&mut RoutePolicies, &TelemetryPolicies),
    ) -> Settled {
        let before = self.published.remove(pattern);
        let host = self.build(table, pattern, beneath, (policies, telemetry));
        match (before, host) {
            (None, None) => Settled::Same,
            (Some(_), None) => Settled::Gone,
            (Some(before), Some(host)) if *before == host => {
                self.published.insert(pattern.clone(), before);
                Settled::Same
            }
            (_, Some(host)) => {
                let host = Arc::new(host);
                self.published.insert(pattern.clone(), host.clone());
                Settled::Changed(host)
            }
        }
    }

    /// Whether no connection is read, so that one for a name that no listener has leads nowhere.
    fn only_passes(&self) -> bool {
        let passes = |listener: &OpenListener| matches!(listener.protocol, Protocol::Tls { .. });
        !self.shared && !self.listeners.is_empty() && self.listeners.iter().all(passes)
    }

    /// The passage of the first route that a listener has under a name, and the route's age.
    fn passage(&self, owner: &OpenListener, pattern: &HostPattern) -> Option<(&RouteAge, &Passage)> {
        let own = self.turns(pattern).filter(|((_, _, listener), _)| owner.id == *listener);
        own.filter(|_| owner.serves).find_map(|((_, age, _), carried)| match carried {
            Carried::Stream(passage) => Some((age, &**passage)),
            Carried::Requests(_) | Carried::Nothing => None,
        })
    }

    /// The only listener of a port that is passed on whatever it carries, and where its oldest route leads.
    pub(super) fn stream(&self) -> Option<(Origin, StreamBackends)> {
        let listener = self.listeners.iter().next()?;
        let passage = self.passage(listener, &HostPattern::Any);
        let content = |(_, passage): (_, &Passage)| passage.content(listener.shown.as_ref());
        Some((listener.origin(), passage.map_or_else(StreamBackends::none, content)))
    }

    /// What becomes of TLS connections for a name that belongs to this listener, if they are passed on, and the age of the route that
    /// says so.
    fn passes<'a>(
        &'a self,
        owner: Option<&OpenListener>,
        pattern: &HostPattern,
    ) -> Option<(Option<&'a RouteAge>, Passthrough)> {
        let nowhere = |age, origin| (age, Passthrough { origin, backend: None, send_proxy: false, terminate: false });
        let owner = match owner {
            Some(owner) => owner,
            None if *pattern == HostPattern::Any && self.only_passes() => {
                return Some(nowhere(None, self.listeners.iter().next()?.origin()));
            }
            None => return None,
        };
        let Protocol::Tls { terminate } = owner.protocol else { return None };
        let (age, passage) = match self.passage(owner, pattern) {
            Some(found) => found,
            // Under other names the routes for wider ones follow.
            None if owner.hostname == *pattern => return Some(nowhere(None, owner.origin())),
            None => return None,
        };
        let backend = Some(if terminate { passage.content(owner.shown.as_ref()) } else { passage.backends.clone() });
        Some((Some(age), Passthrough { origin: passage.origin.clone(), backend, send_proxy: false, terminate }))
    }

    fn build(
        &self,
        table: &TableName,
        pattern: &HostPattern,
        beneath: &Beneath<'_>,
        (policies, telemetry): (&mut RoutePolicies, &TelemetryPolicies),
    ) -> Option<Host> {
        if self.listeners.iter().any(|listener| matches!(listener.protocol, Protocol::Tcp | Protocol::Udp)) {
            return None;
        }
        let owner = self.listeners.owner(pattern);
        let is_ground = self.shared && *pattern == HostPattern::Any;
        let below = beneath.host.filter(|_| self.shared);
        // The age of the Ingresses that have the name: `None` if none has, what no user wrote aside.
        let written = below.into_iter().flat_map(|host| host.routes()).filter(|route| !is_implied(route));
        let age_below =
            written.map(|route| (beneath.age)(&route.origin)).min_by_key(|age| (age.is_none(), age.clone()));
        let is_before = |age: Option<&RouteAge>| match &age_below {
            None => below.is_none(),
            Some(below) => age.is_some_and(|age| below.as_ref().is_none_or(|below| age < below)),
        };
        // Ingresses that have the name for longer keep it, and all of its paths. Of names that nobody has, none is theirs.
        let is_free = is_ground && age_below.is_none();
        let passes =
            self.passes(owner, pattern).filter(|(age, _)| is_free || is_before(*age)).map(|(_, passes)| passes);
        if let Some(passes) = passes.clone().filter(|_| !is_ground) {
            let host = Host::new(table.clone(), pattern.clone(), Vec::new()).with_passthrough(Some(passes.into()));
            let certificate = owner.and_then(|owner| owner.certificate.clone());
            let alternative = owner.and_then(|owner| owner.alternative.clone());
            return Some(host.with_certificate(certificate).with_alternative_certificate(alternative));
        }
        let own = || {
            let is_own = |listener: &ListenerId| owner.is_some_and(|owner| owner.id == *listener);
            self.turns(pattern).filter(move |((_, _, listener), _)| is_own(listener))
        };
        let demanded = below.and_then(|below| below.client_auth());
        let asked = owner.and_then(|owner| owner.client_auth.as_ref());
        // What a listener asks clients for concerns the Ingresses of the name too, unless they had it before. If these demand
        // something else, both demands can't be met: who came first keeps the host.
        let is_torn = asked.is_some() && demanded != asked && age_below.is_some();
        let is_first = is_before(own().map(|((_, age, _), _)| age).min());
        let asked = asked.filter(|_| !is_torn || is_first);
        let below = below.filter(|_| !(is_torn && is_first && demanded.is_some()));
        let demanded = demanded.filter(|_| below.is_some());
        let serves = owner.is_some_and(|owner| owner.serves) && (!is_torn || is_first);
        let own = own().filter(|_| serves);
        let mut tiers: BTreeMap<NameRank, Vec<(Option<RouteAge>, Route)>> = BTreeMap::new();
        for ((rank, age, _), carried) in own {
            let Carried::Requests(routes) = carried else { continue };
            let routes = routes.iter().map(|RuleRoute { route, rule }| {
                let mut route = self.on_this_port(route, owner);
                route.tracing = owner.and_then(|owner| telemetry.rule(&owner.gateway)).cloned();
                if let Some(owner) = owner.filter(|_| !policies.is_empty()) {
                    let (listener, gateway) = (&owner.id, &owner.gateway);
                    let site = Site { route: age.key(), rule: rule.as_ref(), listener, gateway };
                    policies.apply(&site, pattern, &mut route);
                }
                (Some(age.clone()), route)
            });
            tiers.entry(*rank).or_default().extend(routes);
        }
        let is_barrier = owner.is_some_and(|owner| owner.hostname == *pattern);
        if tiers.is_empty() && !is_barrier && !is_ground {
            return None;
        }
        let mut tiers: Vec<_> = tiers.into_values().collect();
        if tiers.is_empty() {
            tiers.push(Vec::new());
        }
        let last = tiers.len() - 1;
        for route in below.into_iter().flat_map(|host| host.routes()) {
            // What no user wrote comes last, whatever its age.
            if is_implied(route) {
                tiers[last].push((None, after_prefixes(route)));
            } else {
                tiers[0].push(((beneath.age)(&route.origin), after_prefixes(route)));
            }
        }
        let wider = !is_barrier && !is_ground;
        let mut next: Option<Host> = None;
        for (at, mut tier) in tiers.into_iter().enumerate().rev() {
            tier.sort_by(|(one, _), (other, _)| (one.is_none(), one).cmp(&(other.is_none(), other)));
            let routes = tier.into_iter().map(|(_, route)| route).collect();
            let then = next.take().map(Arc::new);
            let onward = Onward {
                wider: wider && then.is_none(),
                then,
                beneath: (is_ground && at == 0).then(|| beneath.table.clone()),
            };
            let onward = (onward != Onward::default()).then_some(onward);
            next = Some(Host::new(table.clone(), pattern.clone(), routes).with_onward(onward));
        }
        // A listener whose connections are passed on has no certificate for those that aren't.
        let reads = |owner: &&OpenListener| passes.is_some() || !matches!(owner.protocol, Protocol::Tls { .. });
        let ends = owner.filter(reads);
        let certificate = ends.and_then(|owner| owner.certificate.clone());
        let alternative = ends.and_then(|owner| owner.alternative.clone());
        // A host that an Ingress gives a certificate keeps it: no Gateway may replace it.
        let (certificate, alternative) = match below {
            Some(below) if certificate.is_none() || below.certificate().is_some() => {
                (below.certificate().cloned(), below.alternative_certificate().cloned())
            }
            _ => (certificate, alternative),
        };
        let host = next?.with_certificate(certificate).with_alternative_certificate(alternative);
        // What restricts the host holds for all of its routes.
        let host = host.with_client_auth(demanded.or(asked).cloned());
        let host = host.with_listener(owner.filter(|_| self.secure).map(|owner| text(&owner.hostname).into()));
        let passes = passes.filter(|passes| !passes.terminate || host.client_auth().is_none()).map(Arc::new);
        Some(host.with_passthrough(passes.or_else(|| below.and_then(|below| below.passthrough().cloned()))))
    }

    /// A redirect that keeps scheme and port of the request names the port of the listener; one to https that of the listener for it.
    fn on_this_port(&self, route: &Route, owner: Option<&OpenListener>) -> Route {
        let mut route = route.clone();
        if let Some(certificate) = owner.and_then(|owner| owner.shown.as_ref()) {
            show(&mut route, certificate);
        }
        if let Action::Redirect(redirect) = &mut route.action
            && let Location::Parts(parts) = &mut redirect.location
        {
            let usual = match parts.scheme {
                None => self.named_port,
                Some(Scheme::Https) if parts.host.is_none() => self.https_port,
                Some(_) => None,
            };
            parts.port = parts.port.or(usual);
        }
        route
    }
}

/// Makes a route show a certificate to the backends that it reaches over TLS.
fn show(route: &mut Route, certificate: &CertificateName) {
    let show = |forward: &mut Forward| {
        if let Some(tls) = &forward.policy.tls {
            forward.policy =
                Arc::new(ForwardPolicy { tls: Some(showing(tls, certificate)), ..(*forward.policy).clone() });
        }
        if let Backends::Weighted(list) | Backends::Partial { valid: list, .. } = &mut forward.backends {
            list.iter_mut().filter_map(|share| share.tls.as_mut()).for_each(|tls| *tls = showing(tls, certificate));
        }
    };
    if let Action::Forward(forward) = &mut route.action {
        show(forward);
    }
    for filter in &mut route.filters {
        if let Filter::Mirror(mirror) = filter {
            show(&mut mirror.forward);
        }
    }
}

/// What became of a host.
pub(super) enum Settled {
    Same,
    Changed(Arc<Host>),
    Gone,
}

/// Whether a route of an Ingress's host stands for nothing that a user wrote: the answers for everything else.
fn is_implied(route: &Route) -> bool {
    &*route.origin.kind == "Fairway" || (route.origin.section.is_empty() && takes_the_rest(route))
}

/// Whether a route answers for all paths that no other of its host takes.
fn takes_the_rest(route: &Route) -> bool {
    let everything = match &route.path {
        PathMatch::Prefix(path) => **path == *"/",
        // On a host with patterns it is one too.
        PathMatch::Regex(pattern) => pattern.text() == "/",
        PathMatch::Exact(_) | PathMatch::Start(_) => false,
    };
    everything && matches!(&*route.origin.section, "" | "defaultBackend")
}

/// The route of an Ingress as it is beside others. Patterns come before all prefixes, but what takes the rest is more specific than none.
fn after_prefixes(route: &Route) -> Route {
    let mut route = route.clone();
    if takes_the_rest(&route) {
        route.path = PathMatch::Prefix("/".into());
    }
    route
}
