//! The routes of Ingresses by what is asked about them, so that a path costs the same however many Ingresses there are.

use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap};

use fairway_model::{Host, HostPattern, Origin, PathMatch, Route, Snapshot};

use super::whole::is_app_root;
use crate::pattern;

/// The hosts of Ingresses, by name.
pub(super) struct ServedHosts<'a>(BTreeMap<&'a HostPattern, ServedHost<'a>>);

/// One host.
pub(super) struct ServedHost<'a> {
    pub(super) host: &'a Host,
    /// The places of the routes of each part of an object, in order.
    by_origin: HashMap<&'a Origin, Vec<usize>>,
    /// The same by path.
    by_path: HashMap<String, Vec<usize>>,
    /// What the paths of each route begin with.
    beginnings: OnceCell<Vec<pattern::Beginnings>>,
}

impl<'a> ServedHosts<'a> {
    pub(super) fn new(snapshot: &'a Snapshot) -> Self {
        let own = snapshot.hosts().into_iter().filter(|host| host.table().as_str() == "ingress");
        Self(own.map(|host| (host.pattern(), ServedHost::new(host))).collect())
    }

    pub(super) fn get(&self, pattern: &HostPattern) -> Option<&ServedHost<'a>> {
        self.0.get(pattern)
    }

    /// Whether a Gateway would give what no path of this host takes to a wider one. With Ingresses, nobody gets it.
    pub(super) fn ends_before_a_wider_one(&self, pattern: &HostPattern) -> bool {
        let (HostPattern::Exact(name) | HostPattern::Label(name)) = pattern else { return false };
        let takes_all = |route: &&Route| is_written(route) && route.path.to_string() == "Prefix /";
        if self.get(pattern).is_none_or(|own| own.host.routes().iter().any(|route| takes_all(&route))) {
            return false;
        }
        let is_used = |wider: &HostPattern| self.get(wider).is_some_and(|own| own.host.routes().iter().any(is_written));
        let parents = std::iter::successors(name.parent(), |name| name.split_once('.').map(|(_, parent)| parent));
        // `*.NAME` of a Gateway takes names of more labels too.
        let wildcards = parents.filter_map(|parent| parent.parse().ok().map(HostPattern::Label));
        wildcards.chain([HostPattern::Any]).any(|wider| is_used(&wider))
    }
}

/// Whether a path or a default backend of an Ingress is behind a route.
pub(super) fn is_written(route: &Route) -> bool {
    ["rules[", "defaultBackend"].iter().any(|part| route.origin.section.starts_with(part))
}

impl<'a> ServedHost<'a> {
    fn new(host: &'a Host) -> Self {
        let (mut by_origin, mut by_path) = (HashMap::<_, Vec<_>>::new(), HashMap::<_, Vec<_>>::new());
        for (place, route) in host.routes().iter().enumerate() {
            by_origin.entry(&route.origin).or_default().push(place);
            by_path.entry(route.path.to_string()).or_default().push(place);
        }
        Self { host, by_origin, by_path, beginnings: OnceCell::new() }
    }

    /// The places of the routes of a part of an Ingress. On a host with patterns a prefix is two of them.
    pub(super) fn places(&self, part: &Origin) -> Vec<usize> {
        let routes = self.host.routes();
        let own = || self.by_origin.get(part).into_iter().flatten().copied().filter(|at| !is_app_root(&routes[*at]));
        // Beside that of a path with a slash at its end there is one that adds the slash.
        let is_whole = |route: &Route| matches!(route.path, PathMatch::Regex(_)) || route.path.text() == &*route.rule;
        let whole: Vec<_> = own().filter(|at| is_whole(&routes[*at])).collect();
        if whole.is_empty() { own().next().into_iter().collect() } else { whole }
    }

    /// Whether patterns that come later on the host may take some of the paths of a route, in any case of letters.
    pub(super) fn is_before_a_pattern(&self, place: usize) -> bool {
        let routes = self.host.routes();
        let all = self.beginnings.get_or_init(|| routes.iter().map(|route| beginnings(&route.path)).collect());
        let counts = |route: &Route| matches!(route.path, PathMatch::Regex(_)) && is_written(route);
        let later = routes.iter().zip(all).skip(place + 1).filter(|(route, _)| counts(route));
        all.get(place).is_some_and(|own| later.into_iter().any(|(_, other)| pattern::overlap(own, other)))
    }

    /// The route of another object that has this path of the host already; it comes before.
    pub(super) fn winner(&self, place: usize) -> Option<&'a Route> {
        let routes = self.host.routes();
        let beaten = routes.get(place)?;
        let of = |route: &'a Route| (&route.origin.kind, &route.origin.namespace, &route.origin.name);
        let same = self.by_path.get(&beaten.path.to_string()).into_iter().flatten();
        let before =
            same.take_while(|at| **at < place).map(|at| &routes[*at]).filter(|route| route.conditions.is_none());
        before.filter(|route| of(route) != of(beaten)).find(|route| !is_app_root(route))
    }
}

/// What the paths of a match begin with, see [`pattern::beginnings`].
pub(super) fn beginnings(path: &PathMatch) -> pattern::Beginnings {
    match path {
        PathMatch::Regex(regex) => pattern::beginnings(&super::route::whole(regex.text())),
        PathMatch::Exact(text) | PathMatch::Prefix(text) => pattern::of_segments(text.as_bytes()),
        PathMatch::Start(text) => vec![text.to_ascii_lowercase().into_bytes()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairway_model::{Action, Delta, Respond};

    #[test]
    fn a_path_is_held_against_those_of_the_same_host_and_path_only() {
        let part = |name: usize| Origin::new("Ingress", "ns", format!("i{name}")).section("rules[0].paths[0]");
        let route = |name: usize, path: &str| {
            Route::new(part(name), PathMatch::prefix(path).unwrap(), Action::Respond(Respond::page(200)))
        };
        let host = |name: &str, routes| Host::new("ingress".into(), HostPattern::parse(name).unwrap(), routes);
        let shared: Vec<_> = (0..50).map(|name| route(name, &format!("/{name}"))).chain([route(50, "/7")]).collect();
        let own = (100..150).map(|name| host(&format!("h{name}.example"), vec![route(name, "/")]));
        let all = own.chain([host("shared.example", shared)]);
        let snapshot = Snapshot::default().apply(Delta::upsert(all.map(Into::into)));
        let hosts = ServedHosts::new(&snapshot);
        let shared = hosts.get(&HostPattern::parse("shared.example").unwrap()).unwrap();
        let most = |lists: &mut dyn Iterator<Item = usize>| lists.max();
        assert_eq!(most(&mut shared.by_origin.values().map(Vec::len)), Some(1));
        assert_eq!(most(&mut shared.by_path.values().map(Vec::len)), Some(2));
        let winner = |name| shared.winner(shared.places(&part(name))[0]).map(|route| route.origin.clone());
        assert_eq!((winner(50), winner(7), winner(8)), (Some(part(7)), None, None));
        assert!(hosts.get(&HostPattern::parse("other.example").unwrap()).is_none());
    }
}
