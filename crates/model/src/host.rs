//! One host name and its routes, indexed so that finding one among ten thousand routes costs the same as among ten.

use std::collections::HashMap;
use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashTable;
use serde::{Deserialize, Serialize};

use crate::map::HASHER;
use crate::path::separated;
use crate::route::ends_at_segment;
use crate::{CertificateName, ClientAuth, HostCiphers, HostPattern, Passthrough, PathMatch, Route, TableName};

/// One host of a table: the names it answers for, its certificate and its routes.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(from = "HostData", into = "HostData")]
pub struct Host {
    table: TableName,
    pattern: HostPattern,
    certificate: Option<CertificateName>,
    alternative_certificate: Option<CertificateName>,
    client_auth: Option<Arc<ClientAuth>>,
    ciphers: Option<Arc<HostCiphers>>,
    passthrough: Option<Arc<Passthrough>>,
    onward: Option<Box<Onward>>,
    listener: Option<Arc<str>>,
    routes: Arc<Routes>,
}

/// Where to look further for a request that no route of its host takes. Without this, the answer is 404.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub struct Onward {
    /// Routes for the same names that come after all routes of this host, whatever their paths.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<Arc<Host>>,
    /// Whether the less specific hosts of the table follow.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub wider: bool,
    /// On the host for any name: another table whose hosts are served alongside those of this one. Of all hosts that match, the most
    /// specific takes the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub beneath: Option<TableName>,
}

/// The name of a [`Host`] resource.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub struct HostKey {
    /// The table that holds the host.
    pub table: TableName,
    /// The names it answers for.
    pub pattern: HostPattern,
}

/// Why a path in canonical form gets 400: it belongs to different routes, depending on how it is decoded.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("an encoded slash or backslash makes the path belong to another route for a backend that decodes it")]
pub struct AmbiguousPath;

impl fmt::Display for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.pattern, self.table)
    }
}

impl Host {
    /// Creates a host and sorts its routes by precedence; regular expressions are tried in the order given, and of
    /// routes with the same match the first comes first.
    pub fn new(table: TableName, pattern: HostPattern, routes: Vec<Route>) -> Self {
        let routes = Arc::new(Routes::new(routes));
        Self {
            table,
            pattern,
            certificate: None,
            alternative_certificate: None,
            client_auth: None,
            ciphers: None,
            passthrough: None,
            onward: None,
            listener: None,
            routes,
        }
    }

    /// Adds the Gateway listener that it belongs to. If several share a port, the server name in the hello decides which one a TLS
    /// connection is for; requests on it to hosts of another listener are misdirected.
    #[must_use]
    pub fn with_listener(self, listener: Option<Arc<str>>) -> Self {
        Self { listener, ..self }
    }

    /// The listener that it belongs to, if it has to be told from others on the port.
    pub fn listener(&self) -> Option<&Arc<str>> {
        self.listener.as_ref()
    }

    /// Adds where to look further for requests that no route takes.
    #[must_use]
    pub fn with_onward(self, onward: Option<Onward>) -> Self {
        Self { onward: onward.map(Box::new), ..self }
    }

    /// Where to look further for requests that no route takes.
    pub fn onward(&self) -> Option<&Onward> {
        self.onward.as_deref()
    }

    /// The host, and those that follow for the same names.
    pub fn tiers(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |host| host.onward()?.then.as_deref())
    }

    /// Adds a certificate of its own.
    #[must_use]
    pub fn with_certificate(self, certificate: Option<CertificateName>) -> Self {
        Self { certificate, ..self }
    }

    /// Adds a certificate with another kind of key, for clients that can't verify the first one.
    #[must_use]
    pub fn with_alternative_certificate(self, alternative_certificate: Option<CertificateName>) -> Self {
        Self { alternative_certificate, ..self }
    }

    /// Makes it ask for client certificates.
    #[must_use]
    pub fn with_client_auth(self, client_auth: Option<Arc<ClientAuth>>) -> Self {
        Self { client_auth, ..self }
    }

    /// Gives it cipher suites of its own.
    #[must_use]
    pub fn with_ciphers(self, ciphers: Option<Arc<HostCiphers>>) -> Self {
        Self { ciphers, ..self }
    }

    /// Makes TLS connections for it pass to a backend.
    #[must_use]
    pub fn with_passthrough(self, passthrough: Option<Arc<Passthrough>>) -> Self {
        Self { passthrough, ..self }
    }

    /// Returns a host with another name that shares the same routes. TLS for that name ends at the proxy.
    #[must_use]
    pub fn alias(&self, pattern: HostPattern) -> Self {
        Self { pattern, passthrough: None, ..self.clone() }
    }

    /// The name of this resource.
    pub fn key(&self) -> HostKey {
        HostKey { table: self.table.clone(), pattern: self.pattern.clone() }
    }

    /// The table that holds it.
    pub fn table(&self) -> &TableName {
        &self.table
    }

    /// The names it answers for.
    pub fn pattern(&self) -> &HostPattern {
        &self.pattern
    }

    /// Its own certificate, if it has one.
    pub fn certificate(&self) -> Option<&CertificateName> {
        self.certificate.as_ref()
    }

    /// Its certificate with another kind of key, if it has one.
    pub fn alternative_certificate(&self) -> Option<&CertificateName> {
        self.alternative_certificate.as_ref()
    }

    /// The client certificates that it asks for.
    pub fn client_auth(&self) -> Option<&Arc<ClientAuth>> {
        self.client_auth.as_ref()
    }

    /// Its own cipher suites, if it has any.
    pub fn ciphers(&self) -> Option<&Arc<HostCiphers>> {
        self.ciphers.as_ref()
    }

    /// Where TLS connections for it pass to, if they pass to a backend.
    pub fn passthrough(&self) -> Option<&Arc<Passthrough>> {
        self.passthrough.as_ref()
    }

    /// All routes in order of precedence.
    pub fn routes(&self) -> &[Route] {
        &self.routes.list
    }

    /// Whether it equals another host except for the routes.
    pub(crate) fn is_equal_but_for_routes(&self, other: &Self) -> bool {
        Self { routes: other.routes.clone(), ..self.clone() } == *other
    }

    /// The routes that a request can reach, in order of precedence: only the first of those with the same match.
    pub fn reachable_routes(&self) -> impl Iterator<Item = &Route> {
        let list = &self.routes.list;
        // Those with the same path are neighbours.
        let is_new = move |at: usize, route: &Route| {
            let before = list[..at].iter().rev().take_while(|other| other.path == route.path);
            before.into_iter().all(|other| !other.takes_the_same(route))
        };
        list.iter().enumerate().filter(move |(at, route)| is_new(*at, route)).map(|(_, route)| route)
    }

    /// The route for a canonical path, for a request that meets no further conditions.
    pub fn route(&self, path: &[u8]) -> Option<&Route> {
        self.routes.find(path, &|route| route.conditions.is_none())
    }

    /// The route for a canonical path, provided that every backend reads the path as it was matched. `admits` says
    /// whether the request meets a route's other conditions.
    ///
    /// # Errors
    ///
    /// If a backend that decodes `%2F` or `%5C` would read a path that belongs to another route, whose restrictions
    /// could then be bypassed (`/admin%2Fusers`, where `/admin` is restricted and `/` is not).
    pub fn unambiguous_route(
        &self,
        path: &[u8],
        scratch: &mut Vec<u8>,
        admits: impl Fn(&Route) -> bool,
    ) -> Result<Option<&Route>, AmbiguousPath> {
        let route = self.routes.find(path, &admits);
        match separated(path, scratch) {
            Some(read) if self.routes.find(read, &admits).map(std::ptr::from_ref) != route.map(std::ptr::from_ref) => {
                Err(AmbiguousPath)
            }
            _ => Ok(route),
        }
    }
}

/// Routes in order of precedence, and the index over them.
#[derive(Clone)]
struct Routes {
    list: Vec<Route>,
    exact: HashTable<u32>,
    prefix: HashTable<u32>,
    /// Distinct prefix lengths, longest first: only these are looked up.
    prefix_lengths: Vec<u32>,
    regex: std::ops::Range<u32>,
    /// Routes by the start of the path, longest first: hosts have few of them.
    starts: std::ops::Range<u32>,
}

impl Routes {
    fn new(list: Vec<Route>) -> Self {
        let mut list = sorted(list);
        let (mut exact, mut prefix, mut prefix_lengths) = (HashTable::new(), HashTable::new(), Vec::new());
        let (mut regex, mut starts) = (0..0, 0..0);
        for (at, route) in (0u32..).zip(&list) {
            let rehash = |&at: &u32| hash(list[at as usize].path.text().as_bytes());
            // The first route with this path; the others follow it.
            let again = at > 0 && list[at as usize - 1].path == route.path;
            match &route.path {
                PathMatch::Exact(_) | PathMatch::Prefix(_) if again => {}
                PathMatch::Exact(text) => {
                    exact.insert_unique(hash(text.as_bytes()), at, rehash);
                }
                PathMatch::Prefix(text) => {
                    prefix.insert_unique(hash(text.as_bytes()), at, rehash);
                    let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
                    if prefix_lengths.last() != Some(&length) {
                        prefix_lengths.push(length);
                    }
                }
                PathMatch::Regex(_) => {
                    if regex.is_empty() {
                        regex.start = at;
                    }
                    regex.end = at + 1;
                }
                PathMatch::Start(_) => {
                    if starts.is_empty() {
                        starts.start = at;
                    }
                    starts.end = at + 1;
                }
            }
        }
        prefix_lengths.shrink_to_fit();
        list.shrink_to_fit();
        Self { list, exact, prefix, prefix_lengths, regex, starts }
    }

    fn find(&self, path: &[u8], admits: &impl Fn(&Route) -> bool) -> Option<&Route> {
        if !self.exact.is_empty()
            && let Some(route) = self.lookup(&self.exact, path, admits)
        {
            return Some(route);
        }
        let patterns = &self.list[self.regex.start as usize..self.regex.end as usize];
        if let Some(route) = patterns.iter().find(|route| route.path.matches(path) && admits(route)) {
            return Some(route);
        }
        let prefix = self.prefix_lengths.iter().find_map(|&length| {
            let length = length as usize;
            if length > path.len() || !ends_at_segment(path, length) {
                return None;
            }
            self.lookup(&self.prefix, &path[..length], admits)
        });
        if self.starts.is_empty() {
            return prefix;
        }
        let starts = &self.list[self.starts.start as usize..self.starts.end as usize];
        let start = starts.iter().find(|route| route.path.matches(path) && admits(route));
        let length = |route: &Route| route.path.text().len();
        match (prefix, start) {
            (Some(prefix), Some(start)) if length(start) > length(prefix) => Some(start),
            (prefix, start) => prefix.or(start),
        }
    }

    /// The first route with a path whose other conditions are met.
    fn lookup(&self, table: &HashTable<u32>, text: &[u8], admits: &impl Fn(&Route) -> bool) -> Option<&Route> {
        let at = table.find(hash(text), |&at| self.list[at as usize].path.text().as_bytes() == text)?;
        let (first, later) = self.list[*at as usize..].split_first()?;
        if admits(first) {
            return Some(first);
        }
        later.iter().take_while(|route| route.path == first.path).find(|route| admits(route))
    }
}

/// Sorts routes by precedence. Patterns keep the order given, which is more precise than their text; the same pattern
/// with other conditions is placed with its first occurrence.
fn sorted(mut list: Vec<Route>) -> Vec<Route> {
    let mut first = HashMap::new();
    for (at, route) in list.iter().enumerate() {
        if let PathMatch::Regex(regex) = &route.path {
            first.entry(Box::<str>::from(regex.text())).or_insert(at);
        }
    }
    // A stable sort: the first of equal matches stays first.
    list.sort_by(|a, b| {
        let by_path = match (&a.path, &b.path) {
            (PathMatch::Regex(a), PathMatch::Regex(b)) => first.get(a.text()).cmp(&first.get(b.text())),
            (a, b) => a.cmp(b),
        };
        by_path.then_with(|| a.by_conditions(b))
    });
    list
}

fn hash(text: &[u8]) -> u64 {
    HASHER.hash_one(text)
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.list.fmt(f)
    }
}

impl PartialEq for Routes {
    fn eq(&self, other: &Self) -> bool {
        self.list == other.list
    }
}

impl Eq for Routes {}

#[derive(Serialize, Deserialize)]
struct HostData {
    table: TableName,
    host: HostPattern,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certificate: Option<CertificateName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    alternative_certificate: Option<CertificateName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_auth: Option<Arc<ClientAuth>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ciphers: Option<Arc<HostCiphers>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    passthrough: Option<Arc<Passthrough>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    onward: Option<Box<Onward>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    listener: Option<Arc<str>>,
    routes: Vec<Route>,
}

impl From<HostData> for Host {
    fn from(data: HostData) -> Self {
        let host = Self::new(data.table, data.host, data.routes);
        let host = host.with_certificate(data.certificate).with_client_auth(data.client_auth);
        let host = host
            .with_alternative_certificate(data.alternative_certificate)
            .with_passthrough(data.passthrough)
            .with_ciphers(data.ciphers);
        Self { onward: data.onward, listener: data.listener, ..host }
    }
}

impl From<Host> for HostData {
    fn from(host: Host) -> Self {
        let Host {
            table,
            pattern,
            certificate,
            alternative_certificate,
            client_auth,
            ciphers,
            passthrough,
            onward,
            listener,
            routes,
        } = host;
        let routes = routes.list.clone();
        let host = pattern;
        Self {
            table,
            host,
            certificate,
            alternative_certificate,
            client_auth,
            ciphers,
            passthrough,
            onward,
            listener,
            routes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Action, Conditions, Origin, Respond};
    use proptest::prelude::*;

    fn host(paths: &[PathMatch]) -> Host {
        let route = |path: &PathMatch| {
            Route::new(Origin::new("Ingress", "a", "b"), path.clone(), Action::Respond(Respond::not_found()))
        };
        Host::new("t".into(), HostPattern::Any, paths.iter().map(route).collect())
    }

    fn chosen(host: &Host, path: &str) -> Option<String> {
        host.route(path.as_bytes()).map(|route| route.path.to_string())
    }

    #[test]
    fn exact_beats_prefix_and_the_longest_prefix_wins() {
        let host = host(&[
            PathMatch::prefix("/").unwrap(),
            PathMatch::prefix("/foo").unwrap(),
            PathMatch::exact("/foo").unwrap(),
            PathMatch::prefix("/foo/bar/").unwrap(),
        ]);
        assert_eq!(chosen(&host, "/foo").as_deref(), Some("Exact /foo"));
        assert_eq!(chosen(&host, "/foo/").as_deref(), Some("Prefix /foo"));
        assert_eq!(chosen(&host, "/foo/bar").as_deref(), Some("Prefix /foo"));
        assert_eq!(chosen(&host, "/foo/bar/x").as_deref(), Some("Prefix /foo/bar/"));
        assert_eq!(chosen(&host, "/foobar").as_deref(), Some("Prefix /"));
    }

    #[test]
    fn patterns_are_tried_in_the_order_given() {
        let host = host(&[
            PathMatch::regex("/foo/.*").unwrap(),
            PathMatch::regex("/foo").unwrap(),
            PathMatch::regex("/").unwrap(),
        ]);
        assert_eq!(chosen(&host, "/foo/x").as_deref(), Some("Regex /foo/.*"));
        assert_eq!(chosen(&host, "/FOOBAR").as_deref(), Some("Regex /foo"));
        assert_eq!(chosen(&host, "/x").as_deref(), Some("Regex /"));
    }

    #[test]
    fn an_encoded_slash_never_reaches_another_route() {
        let host = host(&[PathMatch::prefix("/").unwrap(), PathMatch::prefix("/admin").unwrap()]);
        let route = |path| host.unambiguous_route(path, &mut Vec::new(), |_| true);
        assert_eq!(route(b"/admin%2Fusers"), Err(AmbiguousPath));
        for path in [&b"/files/a%2Fb"[..], b"/admin/a%2Fb", b"/admin", b"/x"] {
            assert_eq!(route(path), Ok(host.route(path)));
        }
    }

    #[test]
    fn the_first_of_equal_matches_counts_and_the_others_stay() {
        let mut routes = host(&[PathMatch::prefix("/a").unwrap()]).routes().to_vec();
        let second = Route { rule: "second".into(), ..routes[0].clone() };
        let with_method = Conditions { method: Some("POST".into()), ..Conditions::default() };
        let posted = Route { rule: "posted".into(), conditions: Some(Box::new(with_method)), ..routes[0].clone() };
        routes.extend([second, posted]);
        let host = Host::new("t".into(), HostPattern::Any, routes);
        let rules: Vec<_> = host.routes().iter().map(|route| &*route.rule).collect();
        assert_eq!(rules, ["posted", "/a", "second"]);
        assert_eq!(&*host.route(b"/a").unwrap().rule, "/a");
        let route = host.unambiguous_route(b"/a/b", &mut Vec::new(), |_| true);
        assert_eq!(&*route.unwrap().unwrap().rule, "posted");
    }

    proptest! {
        #[test]
        fn the_index_agrees_with_trying_every_route(
            paths in proptest::collection::vec((0u8..3, "(/[ab]{0,2}){1,4}"), 0..30),
            path in "(/[ab]{0,2}){1,5}",
        ) {
            let paths: Vec<_> = paths.iter().map(|(kind, text)| match kind {
                0 => PathMatch::exact(text).unwrap(),
                1 => PathMatch::prefix(text).unwrap(),
                _ => PathMatch::regex(text).unwrap(),
            }).collect();
            let host = host(&paths);
            let tried = host.routes().iter().find(|route| route.path.matches(path.as_bytes()));
            prop_assert_eq!(host.route(path.as_bytes()).map(std::ptr::from_ref), tried.map(std::ptr::from_ref));
            let copy: Host = serde_json::from_str(&serde_json::to_string(&host).unwrap()).unwrap();
            prop_assert_eq!(copy, host);
        }
    }
}
