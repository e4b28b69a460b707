//! One host name and its routes, with an index so that finding a route costs the same among ten and among ten thousand.

use std::fmt;
use std::hash::BuildHasher;
use std::sync::Arc;

use hashbrown::HashTable;
use serde::{Deserialize, Serialize};

use crate::map::HASHER;
use crate::path::separated;
use crate::route::ends_at_segment;
use crate::{CertificateName, HostPattern, PathMatch, Route, TableName};

/// One host of a table: which names it answers for, its certificate and its routes.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(from = "HostData", into = "HostData")]
pub struct Host {
    table: TableName,
    pattern: HostPattern,
    certificate: Option<CertificateName>,
    routes: Arc<Routes>,
}

/// The name of a [`Host`] resource.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub struct HostKey {
    /// The table that the host is in.
    pub table: TableName,
    /// The names that it answers for.
    pub pattern: HostPattern,
}

/// Why a path is answered with 400 though it has a canonical form: it belongs to different routes, depending on who reads it.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("an encoded slash or backslash makes the path belong to another route for a backend that decodes it")]
pub struct AmbiguousPath;

impl fmt::Display for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.pattern, self.table)
    }
}

impl Host {
    /// A host with its routes. Among routes with the same match the first one counts; regular expressions are tried in the
    /// order given.
    pub fn new(table: TableName, pattern: HostPattern, routes: Vec<Route>) -> Self {
        Self { table, pattern, certificate: None, routes: Arc::new(Routes::new(routes)) }
    }

    /// The same host with a certificate of its own.
    #[must_use]
    pub fn with_certificate(self, certificate: Option<CertificateName>) -> Self {
        Self { certificate, ..self }
    }

    /// Another name for the same routes, which are shared.
    #[must_use]
    pub fn alias(&self, pattern: HostPattern) -> Self {
        Self { pattern, ..self.clone() }
    }

    /// The name of this resource.
    pub fn key(&self) -> HostKey {
        HostKey { table: self.table.clone(), pattern: self.pattern.clone() }
    }

    /// The table that it is in.
    pub fn table(&self) -> &TableName {
        &self.table
    }

    /// The names that it answers for.
    pub fn pattern(&self) -> &HostPattern {
        &self.pattern
    }

    /// Its certificate, when it has one of its own.
    pub fn certificate(&self) -> Option<&CertificateName> {
        self.certificate.as_ref()
    }

    /// All routes in order of precedence.
    pub fn routes(&self) -> &[Route] {
        &self.routes.list
    }

    /// The route of a canonical path.
    pub fn route(&self, path: &[u8]) -> Option<&Route> {
        self.routes.find(path)
    }

    /// The route of a canonical path, if every backend reads the path as it was matched.
    ///
    /// # Errors
    /// If a backend that decodes `%2F` or `%5C` would read a path that another route takes: what that route asks for could be
    /// got around (`/admin%2Fusers`, where `/admin` is restricted and `/` is not).
    pub fn unambiguous_route(&self, path: &[u8]) -> Result<Option<&Route>, AmbiguousPath> {
        let route = self.route(path);
        match separated(path) {
            Some(read) if self.route(&read).map(std::ptr::from_ref) != route.map(std::ptr::from_ref) => {
                Err(AmbiguousPath)
            }
            _ => Ok(route),
        }
    }

    /// All routes that take a canonical path, in order of precedence: the first is [`route`](Self::route), it beat the others.
    pub fn candidates(&self, path: &[u8]) -> impl Iterator<Item = &Route> {
        self.routes.list.iter().filter(move |route| route.path.matches(path))
    }
}

/// Routes in order of precedence, and the index over them.
#[derive(Clone)]
struct Routes {
    list: Vec<Route>,
    exact: HashTable<u32>,
    prefix: HashTable<u32>,
    /// Lengths that prefixes have, longest first: only these are looked up.
    prefix_lengths: Vec<u32>,
    regex: std::ops::Range<u32>,
}

impl Routes {
    fn new(mut list: Vec<Route>) -> Self {
        // A stable sort: regular expressions stay in the order given, and the first of equal matches stays first.
        list.sort_by(|a, b| precedence(&a.path).cmp(&precedence(&b.path)));
        list.dedup_by(|later, earlier| later.path == earlier.path);
        let (mut exact, mut prefix, mut prefix_lengths) = (HashTable::new(), HashTable::new(), Vec::new());
        let mut regex = 0..0;
        for (at, route) in (0u32..).zip(&list) {
            let rehash = |&at: &u32| hash(list[at as usize].path.text().as_bytes());
            match &route.path {
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
            }
        }
        prefix_lengths.shrink_to_fit();
        list.shrink_to_fit();
        Self { list, exact, prefix, prefix_lengths, regex }
    }

    fn find(&self, path: &[u8]) -> Option<&Route> {
        if !self.exact.is_empty()
            && let Some(route) = self.lookup(&self.exact, path)
        {
            return Some(route);
        }
        let patterns = &self.list[self.regex.start as usize..self.regex.end as usize];
        if let Some(route) = patterns.iter().find(|route| route.path.matches(path)) {
            return Some(route);
        }
        self.prefix_lengths.iter().find_map(|&length| {
            let length = length as usize;
            if length > path.len() || !ends_at_segment(path, length) {
                return None;
            }
            self.lookup(&self.prefix, &path[..length])
        })
    }

    fn lookup(&self, table: &HashTable<u32>, text: &[u8]) -> Option<&Route> {
        let at = table.find(hash(text), |&at| self.list[at as usize].path.text().as_bytes() == text)?;
        Some(&self.list[*at as usize])
    }
}

/// Exact first, regular expressions as given, then prefixes by descending length.
fn precedence(path: &PathMatch) -> (u8, std::cmp::Reverse<usize>, &str) {
    match path {
        PathMatch::Exact(text) => (0, std::cmp::Reverse(0), text),
        PathMatch::Regex(_) => (1, std::cmp::Reverse(0), ""),
        PathMatch::Prefix(text) => (2, std::cmp::Reverse(text.len()), text),
    }
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
    routes: Vec<Route>,
}

impl From<HostData> for Host {
    fn from(data: HostData) -> Self {
        Self::new(data.table, data.host, data.routes).with_certificate(data.certificate)
    }
}

impl From<Host> for HostData {
    fn from(host: Host) -> Self {
        Self { table: host.table, host: host.pattern, certificate: host.certificate, routes: host.routes.list.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Action, Origin, Respond};
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
    fn an_encoded_slash_leads_to_no_other_route() {
        let host = host(&[PathMatch::prefix("/").unwrap(), PathMatch::prefix("/admin").unwrap()]);
        assert_eq!(host.unambiguous_route(b"/admin%2Fusers"), Err(AmbiguousPath));
        for path in [&b"/files/a%2Fb"[..], b"/admin/a%2Fb", b"/admin", b"/x"] {
            assert_eq!(host.unambiguous_route(path), Ok(host.route(path)));
        }
    }

    #[test]
    fn the_first_of_equal_matches_counts() {
        let mut routes = host(&[PathMatch::prefix("/a").unwrap(), PathMatch::prefix("/a").unwrap()]).routes().to_vec();
        assert_eq!(routes.len(), 1);
        let mut second = routes[0].clone();
        second.rule = "second".into();
        routes.push(second);
        assert_eq!(&*Host::new("t".into(), HostPattern::Any, routes).route(b"/a").unwrap().rule, "/a");
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
            prop_assert_eq!(host.route(path.as_bytes()), host.candidates(path.as_bytes()).next());
            let copy: Host = serde_json::from_str(&serde_json::to_string(&host).unwrap()).unwrap();
            prop_assert_eq!(copy, host);
        }
    }
}
