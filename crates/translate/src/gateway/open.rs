//! The listeners of a port, found by host name: the cost of a search depends on the labels of the name, not on the number of listeners.

use std::collections::HashMap;
use std::sync::Arc;

use fairway_model::{CertificateName, ClientAuth, HostPattern, Hostname, Origin};

use super::attach::ListenerId;
use super::stream::Protocol;
use crate::objects::ObjectKey;

/// A listener that may be the one for a request.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct OpenListener {
    pub(super) id: ListenerId,
    /// Its Gateway.
    pub(super) gateway: ObjectKey,
    pub(super) hostname: HostPattern,
    pub(super) protocol: Protocol,
    /// Whether its routes are served. If not, its requests get 404 and don't go to another listener.
    pub(super) serves: bool,
    pub(super) certificate: Option<CertificateName>,
    pub(super) alternative: Option<CertificateName>,
    /// The client certificates that it demands.
    pub(super) client_auth: Option<Arc<ClientAuth>>,
    /// The certificate that it presents to backends.
    pub(super) shown: Option<CertificateName>,
}

impl OpenListener {
    pub(super) fn origin(&self) -> Origin {
        self.id.origin()
    }
}

/// The open listeners of a port. No two have the same host name.
#[derive(Debug, Default)]
pub(super) struct OpenListeners {
    all: Vec<OpenListener>,
    exact: HashMap<Box<str>, usize>,
    /// Those for `*.` and this name.
    wild: HashMap<Box<str>, usize>,
    any: Option<usize>,
}

impl OpenListeners {
    pub(super) fn iter(&self) -> std::slice::Iter<'_, OpenListener> {
        self.all.iter()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// The listener that a request or connection for a name belongs to: the most specific.
    pub(super) fn owner(&self, pattern: &HostPattern) -> Option<&OpenListener> {
        let (own, first): (_, Option<&Hostname>) = match pattern {
            HostPattern::Exact(name) => (self.exact.get(name.as_str()), Some(name)),
            HostPattern::Subdomains(name) => (self.wild.get(name.as_str()), Some(name)),
            _ => (None, None),
        };
        let parents = std::iter::successors(first.and_then(Hostname::parent), |name| Some(name.split_once('.')?.1));
        let found = own.or_else(|| parents.into_iter().find_map(|name| self.wild.get(name)));
        found.copied().or(self.any).map(|at| &self.all[at])
    }
}

impl FromIterator<OpenListener> for OpenListeners {
    fn from_iter<I: IntoIterator<Item = OpenListener>>(listeners: I) -> Self {
        let mut found = Self { all: listeners.into_iter().collect(), ..Self::default() };
        for (at, listener) in found.all.iter().enumerate() {
            match &listener.hostname {
                HostPattern::Exact(name) => _ = found.exact.entry(name.as_str().into()).or_insert(at),
                HostPattern::Subdomains(name) => _ = found.wild.entry(name.as_str().into()).or_insert(at),
                _ => _ = found.any.get_or_insert(at),
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::attach::{is_within, text};
    use crate::gateway::listener::pattern;
    use crate::objects::Kind;

    fn listener(hostname: HostPattern) -> OpenListener {
        let gateway = ObjectKey::new(Kind::Gateway, "shop", "edge");
        OpenListener {
            id: ListenerId { holder: gateway.clone(), name: text(&hostname).into() },
            gateway,
            hostname,
            protocol: Protocol::Https,
            serves: true,
            certificate: None,
            alternative: None,
            client_auth: None,
            shown: None,
        }
    }

    #[test]
    fn the_most_specific_listener_owns_a_name_as_a_search_of_all_says() {
        let names = ["a.example.com", "*.example.com", "*.com", "b.a.example.com", "*.b.example.com", "example.com"];
        let names: Vec<HostPattern> = names.into_iter().map(|name| pattern(name).unwrap()).collect();
        let asked = ["x.a.example.com", "*.a.example.com", "x.example.com", "*.org", "org", "x.b.example.com", "com"];
        let asked = asked.into_iter().map(|name| pattern(name).unwrap()).chain(names.clone()).chain([HostPattern::Any]);
        let asked: Vec<HostPattern> = asked.collect();
        // Each subset of the listeners, with and without one for any name.
        for chosen in 0..1 << (names.len() + 1) {
            let all = names.iter().cloned().chain([HostPattern::Any]);
            let all = all.enumerate().filter(|(at, _)| chosen >> at & 1 == 1).map(|(_, name)| listener(name));
            let listeners: OpenListeners = all.collect();
            for name in &asked {
                let holds = listeners.iter().filter(|listener| is_within(name, &listener.hostname));
                let expected = holds.min_by_key(|listener| listener.hostname.by_precision());
                assert_eq!(listeners.owner(name), expected, "{name}");
            }
        }
    }
}
