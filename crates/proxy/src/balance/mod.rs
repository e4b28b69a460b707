//! Chooses an endpoint for a request: session affinity first, then round robin, EWMA, least requests or a consistent hash.
//!
//! A [`Balancer`] belongs to one backend in one worker and is updated on every change of the endpoints. Workers and replicas share no
//! state, so everything that must map the same way everywhere (session keys, hash rings) depends only on names and addresses. A draining
//! endpoint is chosen only for its existing sessions. In steady state nothing is allocated.

pub mod cookie;
mod ewma;
mod least_request;
mod ring;
mod round_robin;
pub(crate) mod rule;
mod session;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fairway_model::{Backend, Balance, Endpoint, EndpointState};

use self::ewma::Ewma;
use self::least_request::LeastRequest;
use self::ring::{Ring, Subsets};
use self::round_robin::RoundRobin;
use self::session::Sessions;
use crate::random::Rng;

pub use self::least_request::InProgress;
pub use self::session::{SessionKey, backend_key};

/// Chooses among the endpoints of one backend, in one worker.
#[derive(Debug)]
pub struct Balancer {
    nodes: Vec<Node>,
    /// Nodes that accept new requests, by index.
    open: Vec<u32>,
    choice: Choice,
    sessions: Option<Sessions>,
    /// The sessions of rules, once a rule needs them.
    of_rules: Option<Sessions>,
    upstream_name: Arc<str>,
    rng: Rng,
}

/// What a choice may depend on.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// Value of the session cookie, see [`cookie::find`]; `None` without affinity or without a cookie.
    pub session: Option<&'a [u8]>,
    /// The evaluated key of `upstream-hash-by`; empty if not configured.
    pub hash_key: &'a [u8],
    /// Endpoints that failed this request. They are avoided as long as there is another.
    pub tried: &'a [SocketAddr],
    /// Endpoints that fail at present, sorted. New requests and sessions avoid them as long as there is another.
    pub ejected: &'a [SocketAddr],
    /// Those among them that health checks call unhealthy, sorted. Sessions leave them too, if there is another.
    pub unhealthy: &'a [SocketAddr],
    /// The current time.
    pub now: Instant,
}

/// A chosen endpoint.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Pick {
    /// Where to send the request.
    pub endpoint: SocketAddr,
    /// The new session key, if the client needs one (and its route sets cookies).
    pub session: Option<SessionKey>,
    node: u32,
}

/// How a try ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TryOutcome {
    /// With a response; time to connect plus time to the end of the response.
    Answered(Duration),
    /// With an error or a timeout that is the endpoint's fault.
    Failed,
    /// By something else, such as a client that has gone.
    Abandoned,
}

impl TryOutcome {
    /// The response time that it counts as, if it says anything about the endpoint.
    fn time(self) -> Option<Duration> {
        match self {
            Self::Answered(took) => Some(took),
            Self::Failed => Some(ewma::FAILURE),
            Self::Abandoned => None,
        }
    }
}

/// Endpoints that a choice avoids.
#[derive(Clone, Copy, Debug)]
struct Avoided<'a> {
    tried: &'a [SocketAddr],
    ejected: &'a [SocketAddr],
}

impl Avoided<'_> {
    fn allows(&self, address: &SocketAddr) -> bool {
        // A request has few tries, but many endpoints may be failing at a time.
        !self.tried.contains(address) && self.ejected.binary_search(address).is_err()
    }
}

/// An endpoint as the balancer stores it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Node {
    address: SocketAddr,
    weight: u16,
    draining: bool,
}

#[derive(Debug)]
enum Choice {
    RoundRobin(RoundRobin),
    Ewma(Ewma),
    LeastRequest(LeastRequest),
    Hash(Ring),
    Subsets(Subsets),
}

impl Balancer {
    /// Creates a balancer for a backend. `rng` only seeds its own generator.
    pub fn new(backend: &Backend, endpoints: &[Endpoint], rng: &mut Rng, now: Instant) -> Self {
        let mut balancer = Self {
            nodes: Vec::new(),
            open: Vec::new(),
            choice: Choice::RoundRobin(RoundRobin::default()),
            sessions: None,
            of_rules: None,
            upstream_name: backend.upstream_name.clone(),
            rng: rng.fork(),
        };
        balancer.update(backend, endpoints, now);
        balancer
    }

    /// Applies a change of the backend or its endpoints, keeping the state of endpoints that stay.
    pub fn update(&mut self, backend: &Backend, endpoints: &[Endpoint], now: Instant) {
        let nodes: Vec<_> = endpoints.iter().map(Node::from).collect();
        let previous = std::mem::replace(&mut self.nodes, nodes);
        self.open = (0..).zip(&self.nodes).filter(|(_, node)| node.is_open()).map(|(at, _)| at).collect();
        self.sessions = backend.affinity.as_ref().map(|affinity| {
            Sessions::new(affinity, &backend.upstream_name, self.sessions.take(), &previous, &self.nodes)
        });
        self.upstream_name = backend.upstream_name.clone();
        self.of_rules = None;
        // Session affinity beats the hash, which would apply only to the first request of a session.
        let hash = if self.sessions.is_some() { None } else { Some(()) };
        let before = std::mem::replace(&mut self.choice, Choice::RoundRobin(RoundRobin::default()));
        self.choice = match (&backend.balance, hash) {
            (Balance::Ewma, _) => {
                let known = if let Choice::Ewma(ewma) = before { Some(ewma) } else { None };
                Choice::Ewma(Ewma::new(known, &previous, &self.nodes, now))
            }
            (Balance::LeastRequest, _) => {
                let known = if let Choice::LeastRequest(loads) = before { Some(loads) } else { None };
                Choice::LeastRequest(LeastRequest::new(known, &self.nodes, now))
            }
            (Balance::Hash(hash), Some(())) => match hash.subset {
                Some(size) => Choice::Subsets(Subsets::new(self.open.len(), size)),
                None => {
                    let known = if let Choice::Hash(ring) = before { Some(ring) } else { None };
                    Choice::Hash(Ring::new(known, &previous, &self.nodes, Node::is_open))
                }
            },
            (Balance::RoundRobin | Balance::Hash(_), _) => {
                let known = if let Choice::RoundRobin(turns) = before { Some(turns) } else { None };
                Choice::RoundRobin(RoundRobin::new(known, &self.nodes, &self.open, &mut self.rng))
            }
        };
    }

    /// Whether any endpoint accepts new requests.
    pub fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Chooses an endpoint; `None` if there is none for this request. If all were already tried, one is chosen again; the retry policy
    /// limits how often.
    pub fn pick(&mut self, ask: &Ask<'_>) -> Option<Pick> {
        let Some(sessions) = &mut self.sessions else {
            return self.choose(ask).map(|node| self.picked(node, None));
        };
        if let Some(node) = kept(sessions, ask, &self.nodes, &self.open) {
            return Some(self.picked(node, None));
        }
        let avoided = avoided(ask, &self.nodes, &self.open);
        if let Some((node, key)) = sessions.open(&self.nodes, |address| avoided.allows(address), &mut self.rng) {
            return Some(self.picked(node, Some(key)));
        }
        let node = self.choose(ask)?;
        let key = self.sessions.as_ref().and_then(|sessions| sessions.key_of(node));
        Some(self.picked(node, key))
    }

    /// The same for a rule with sessions: the endpoint of the request's session, or one with a new session.
    pub fn pick_in_rule(&mut self, ask: &Ask<'_>) -> Option<Pick> {
        let sessions = of_rules(&mut self.of_rules, &self.upstream_name, &self.nodes);
        if let Some(node) = kept(sessions, ask, &self.nodes, &self.open) {
            return Some(self.picked(node, None));
        }
        let node = self.choose(ask)?;
        let key = self.of_rules.as_ref().and_then(|sessions| sessions.key_of(node));
        Some(self.picked(node, key))
    }

    /// Whether the endpoint of a rule's session is among this backend's.
    pub fn keeps(&mut self, session: &[u8]) -> bool {
        of_rules(&mut self.of_rules, &self.upstream_name, &self.nodes).find(session).is_some()
    }

    /// Counts a request to a chosen endpoint for as long as the result lives; `None` if no choice depends on it.
    pub fn begin(&self, pick: &Pick) -> Option<InProgress> {
        match &self.choice {
            Choice::LeastRequest(loads) => loads.begin(pick.node),
            _ => None,
        }
    }

    /// Reports how a try ended.
    pub fn done(&mut self, pick: &Pick, outcome: TryOutcome, now: Instant) {
        if let (Choice::Ewma(ewma), Some(took)) = (&mut self.choice, outcome.time()) {
            let stays = |node: &Node| node.address == pick.endpoint;
            let at = match self.nodes.get(pick.node as usize) {
                Some(node) if stays(node) => Some(pick.node as usize),
                _ => self.nodes.iter().position(stays),
            };
            if let Some(at) = at {
                ewma.observe(at, took, now);
            }
        }
    }

    fn choose(&mut self, ask: &Ask<'_>) -> Option<u32> {
        let (nodes, open) = (self.nodes.as_slice(), self.open.as_slice());
        let avoided = avoided(ask, nodes, open);
        let may = |node: u32| avoided.allows(&nodes[node as usize].address);
        match &mut self.choice {
            Choice::RoundRobin(turns) => turns.next(open, may),
            Choice::Ewma(ewma) => ewma.best(open, may, &mut self.rng, ask.now),
            Choice::LeastRequest(loads) => loads.best(open, may, &mut self.rng, ask.now),
            Choice::Hash(ring) => ring.find_where(ask.hash_key, may),
            Choice::Subsets(subsets) => subsets.find(ask.hash_key, open, may, &mut self.rng),
        }
    }

    fn picked(&self, node: u32, session: Option<SessionKey>) -> Pick {
        Pick { endpoint: self.nodes[node as usize].address, session, node }
    }
}

fn of_rules<'s>(known: &'s mut Option<Sessions>, upstream_name: &str, nodes: &[Node]) -> &'s mut Sessions {
    known.get_or_insert_with(|| Sessions::of_rules(upstream_name, nodes))
}

/// The node of the request's session, unless the session leaves it.
fn kept(sessions: &Sessions, ask: &Ask<'_>, nodes: &[Node], open: &[u32]) -> Option<u32> {
    let node = ask.session.and_then(|value| sessions.find(value))?;
    let address = &nodes[node as usize].address;
    let is_unhealthy = |address: &SocketAddr| ask.unhealthy.binary_search(address).is_ok();
    let sound = |at: &u32| !is_unhealthy(&nodes[*at as usize].address);
    let left =
        is_unhealthy(address) && open.iter().any(sound) || ask.tried.contains(address) && sessions.change_on_failure();
    (!left).then_some(node)
}

/// The endpoints that a choice avoids as long as others remain. An endpoint that fails at present is still better than one that has failed
/// this very request.
fn avoided<'a>(ask: &Ask<'a>, nodes: &[Node], open: &[u32]) -> Avoided<'a> {
    let Ask { tried, ejected, .. } = *ask;
    let leaves_some = |avoided: &Avoided<'_>| open.iter().any(|&node| avoided.allows(&nodes[node as usize].address));
    let nothing = Avoided { tried: &[], ejected: &[] };
    if tried.is_empty() && ejected.is_empty() {
        return nothing;
    }
    [Avoided { tried, ejected }, Avoided { tried, ejected: &[] }].into_iter().find(leaves_some).unwrap_or(nothing)
}

impl Node {
    fn is_open(&self) -> bool {
        !self.draining && self.weight > 0
    }
}

impl From<&Endpoint> for Node {
    fn from(endpoint: &Endpoint) -> Self {
        Self { address: endpoint.address, weight: endpoint.weight, draining: endpoint.state == EndpointState::Draining }
    }
}

#[cfg(test)]
mod tests;
