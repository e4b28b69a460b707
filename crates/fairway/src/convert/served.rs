//! The routes of Ingresses by what is asked about them, so that a path costs the same however many Ingresses there are.

use std::collections::{BTreeMap, HashMap};

use fairway_model::{Host, HostPattern, Origin, PathMatch, Route, Snapshot};

use super::whole::is_app_root;

/// The hosts of Ingresses, by name.
pub(super) struct ServedHosts<'a>(BTreeMap<&'a HostPattern, ServedHost<'a>>);

/// One host.
pub(super) struct ServedHost<'a> {
    pub(super) host: &'a Host,
    /// The places of the routes of each part of an object, in order.
    by_origin: HashMap<&'a Origin, Vec<usize>>,
    /// The same by path.
    by_path: HashMap<String, Vec<usize>>,
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
fn is_written(route: &Route) -> bool {
    ["rules[", "defaultBackend"].iter().any(|part| route.origin.section.starts_with(part))
}

impl<'a> ServedHost<'a> {
    fn new(host: &'a Host) -> Self {
        let (mut by_origin, mut by_path) = (HashMap::<_, Vec<_>>::new(), HashMap::<_, Vec<_>>::new());
        for (place, route) in host.routes().iter().enumerate() {
            by_origin.entry(&route.origin).or_default().push(place);
            by_path.entry(route.path.to_string()).or_default().push(place);
        }
        Self { host, by_origin, by_path }
    }

    /// The place of the route of a part of an Ingress.
    pub(super) fn place(&self, part: &Origin) -> Option<usize> {
        let routes = self.host.routes();
        let own = || self.by_origin.get(part).into_iter().flatten().copied().filter(|at| !is_app_root(&routes[*at]));
        // Beside that of a path with a slash at its end there is one that adds the slash.
        let is_whole = |route: &Route| matches!(route.path, PathMatch::Regex(_)) || route.path.text() == &*route.rule;
        own().find(|at| is_whole(&routes[*at])).or_else(|| own().next())
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
        let winner = |name| shared.winner(shared.place(&part(name)).unwrap()).map(|route| route.origin.clone());
        assert_eq!((winner(50), winner(7), winner(8)), (Some(part(7)), None, None));
        assert!(hosts.get(&HostPattern::parse("other.example").unwrap()).is_none());
    }
}
