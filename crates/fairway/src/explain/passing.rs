//! The account of a request over TLS that passes through: it reaches an endpoint undecrypted, so no route or filter applies to it.

use fairway_model::{Backend, Balance, Endpoints, Passthrough, Scheme, canonical_host};

use super::account::{Account, Answer, By, PassedThrough};
use super::tell::{Teller, owner, place};

impl Teller<'_> {
    /// Where the request passes to, if its TLS does not end at the proxy.
    pub(super) fn passthrough(&self) -> Option<&Passthrough> {
        let mut scratch = Vec::new();
        let name = canonical_host(self.request.authority.as_bytes(), &mut scratch)?;
        let found = self.reading.snapshot.passthrough(self.table, name).map(|passthrough| &**passthrough);
        found.filter(|_| self.request.scheme == Scheme::Https)
    }

    /// Turns the account of a request that is decrypted into that of one that passes through.
    pub(super) fn passing(&self, passthrough: &Passthrough, account: Account) -> Account {
        // Of several by weight, the first stands for all.
        let name = passthrough.backend.as_ref().and_then(|backends| backends.names().next());
        let backend = name.and_then(|name| self.reading.snapshot.backend(name));
        let endpoints = name.map(|name| self.endpoints(name)).unwrap_or_default();
        let by = owner(&passthrough.origin);
        let (status, why) = match backend {
            Some(backend) if !self.has_endpoint(passthrough) => (
                By::Nothing,
                format!(
                    "TLS {} by {by}, but {} has no endpoint; the connection is closed",
                    if passthrough.terminate { "ends at the proxy" } else { "is passed through" },
                    backend.origin
                ),
            ),
            Some(backend) => (
                By::Backend,
                match (passthrough.terminate, &*passthrough.origin.kind) {
                    (true, _) => format!(
                        "TLS ends at the proxy, and what it carries goes to {}, port {}, by {by}",
                        backend.origin, backend.port
                    ),
                    (false, "Ingress") => format!(
                        "TLS passes undecrypted to {}, port {}, by ssl-passthrough of {by}",
                        backend.origin, backend.port
                    ),
                    (false, _) => {
                        format!("TLS passes undecrypted to {}, port {}, by {by}", backend.origin, backend.port)
                    }
                },
            ),
            None => (
                By::Nothing,
                match &*passthrough.origin.kind {
                    "Ingress" => format!(
                        "TLS is passed through by {by}, but the host has no path / with a Service; the connection is closed"
                    ),
                    _ => format!("{by} has no TLSRoute for the name that leads to a Service; the connection is closed"),
                },
            ),
        };
        let (file, line) = place(backend.and_then(|backend| self.reading.manifests.place(&backend.origin)));
        Account {
            answer: Answer { status: None, location: None, by: status, reason: None, why },
            passthrough: Some(PassedThrough {
                object: by,
                backend: name.map(ToString::to_string),
                service: backend.map(|backend| backend.origin.to_string()).unwrap_or_default(),
                port: backend.map(|backend| backend.port.to_string()).unwrap_or_default(),
                file,
                line,
                choice: backend.map(|backend| choice(backend)).unwrap_or_default().to_owned(),
                proxy_header: passthrough.send_proxy,
                terminated: passthrough.terminate,
                endpoints,
            }),
            certificate: None,
            path: None,
            route: None,
            filters: Vec::new(),
            forward: None,
            response: Vec::new(),
            ..account
        }
    }

    fn has_endpoint(&self, passthrough: &Passthrough) -> bool {
        let mut sets = passthrough.backend.iter().flat_map(|backends| backends.names());
        sets.any(|name| {
            self.reading.snapshot.endpoint_set(name).is_some_and(|set| match &set.endpoints {
                Endpoints::Addresses(list) => !list.is_empty(),
                Endpoints::Name { .. } => true,
            })
        })
    }
}

/// How the endpoint is chosen: cookies and the parts of a request are encrypted.
fn choice(backend: &Backend) -> &'static str {
    match backend.balance {
        Balance::RoundRobin => "round robin",
        Balance::Ewma => "the faster of two at random (EWMA)",
        Balance::LeastRequest => "the one with fewer connections, of two at random",
        Balance::Hash(_) => "by a consistent hash of the client's address",
    }
}
