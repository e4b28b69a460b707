//! What is to happen to a request, decided from its head without I/O: canonical form, client, host, route, filters, action.
//!
//! [`decide`] is the one function that says so. The proxy does what its [`Plan`] says; `explain` and the tests of translation print
//! it. One canonical path is matched and authorised, and what is forwarded means the same.
//!
//! A filter that has to wait for something (an answer of another service, a limit that others share) ends the decision with
//! [`Step::Wait`]: the exchange does the I/O, keeps what came out of it where [`Facts`] finds it, and calls [`decide`] again from
//! the plan.

mod message;
mod target;

use std::sync::Arc;

use crate::client::{Arrival, ClientView};
use crate::path::{self, InvalidPath};
use crate::{
    Action, Backend, BackendName, FieldEdit, FieldRules, Fields, Filter, Forward, Host, Protocol, Refusal, RequestView,
    Respond, Route, Scheme, Snapshot, TableName, Target, TooLong, UpstreamTls, canonical_host,
};

pub use self::message::{Expand, RequestEdits, ResponseEdits};

static NO_CONTENT: Respond = Respond::empty(204);
static FORBIDDEN: Respond = Respond::page(403);
static NOT_FOUND: Respond = Respond::not_found();
static UNAVAILABLE: Respond = Respond::page(503);

/// A request, and what is known about its connection.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a, F> {
    /// The head.
    pub head: RequestView<'a, F>,
    /// Where it came from and where it came in.
    pub arrival: &'a Arrival,
    /// The hosts that are served there.
    pub table: &'a TableName,
}

/// What the snapshot doesn't know and a decision depends on.
pub trait Facts {
    /// Whether a backend has an endpoint that takes new requests.
    fn is_open(&mut self, backend: &BackendName) -> bool;

    /// 64 random bits.
    fn random(&mut self) -> u64;
}

/// The facts as the snapshot has them, for whoever sends nothing: every endpoint that is ready takes requests, and every name leads
/// to one. Nothing is random.
#[derive(Clone, Copy, Debug)]
pub struct SnapshotFacts<'s>(pub &'s Snapshot);

impl Facts for SnapshotFacts<'_> {
    fn is_open(&mut self, backend: &BackendName) -> bool {
        self.0.backend(backend).is_some() && self.0.endpoint_set(backend).is_some_and(|set| set.endpoints.is_open())
    }

    fn random(&mut self) -> u64 {
        0
    }
}

/// Texts that a decision makes. Reused from request to request, so that nothing is allocated.
#[derive(Debug, Default)]
pub struct Scratch {
    /// Who the client is.
    pub client: ClientView,
    /// The path that was matched, or the rewritten one.
    pub matched: Vec<u8>,
    /// The target that the endpoint gets.
    pub target: Vec<u8>,
    /// X-Forwarded-Prefix; empty for none.
    pub prefix: Vec<u8>,
    /// Where a redirect leads.
    pub location: Vec<u8>,
    path: path::Scratch,
    host: Vec<u8>,
    expanded: Vec<u8>,
    separated: Vec<u8>,
}

/// What is to happen to a request.
#[derive(Clone, Copy, Debug)]
pub struct Plan<'s> {
    /// The host that was chosen.
    pub host: Option<&'s Host>,
    /// The route that was chosen.
    pub route: Option<&'s Route>,
    /// What answers the request.
    pub step: Step<'s>,
    /// How many filters of the route the request passed. If there is another one, that one gave the answer, or waits.
    pub passed: usize,
    scheme: Scheme,
    chosen: Option<Chosen<'s>>,
}

/// What answers a request.
#[derive(Clone, Copy, Debug)]
pub enum Step<'s> {
    /// A backend, which gets [`Scratch::target`].
    Forward(Forwarding<'s>),
    /// A redirect with this status to [`Scratch::location`].
    Redirect(u16),
    /// The proxy itself.
    Respond(&'s Respond),
    /// The proxy itself, because something is wrong.
    Fail(Failure),
    /// Nothing yet.
    Wait(Wait),
}

/// What has to be waited for before a decision can go on. No filter waits today, so there is no value of it.
#[derive(Clone, Copy, Debug)]
pub enum Wait {}

/// Where a request is sent.
#[derive(Clone, Copy, Debug)]
pub struct Forwarding<'s> {
    /// The rule.
    pub rule: &'s Forward,
    /// The backend that takes it.
    pub backend: &'s BackendName,
    /// The backend in whose place that one does, because it has no endpoint.
    pub in_place_of: Option<&'s BackendName>,
    /// Whether it had an endpoint for new requests. If not, only an endpoint that is about to end can have it, for a session.
    pub open: bool,
}

type Chosen<'s> = Forwarding<'s>;

impl<'s> Forwarding<'s> {
    /// TLS to the endpoints of the backend. The policy is about the rule's own backend: one that stands in for it is spoken to in the
    /// clear.
    pub fn tls(&self, backend: &Backend) -> Option<&'s Arc<UpstreamTls>> {
        let clear = self.in_place_of.is_some() || backend.protocol == Protocol::ClearHttp1;
        self.rule.policy.tls.as_ref().filter(|_| !clear)
    }
}

/// Why the proxy refuses a request, or can't send it anywhere.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Failure {
    /// The path has no canonical form.
    #[error(transparent)]
    Path(#[from] InvalidPath),
    /// The path belongs to different routes, depending on who reads it.
    #[error(transparent)]
    Ambiguous(#[from] crate::AmbiguousPath),
    /// The host is no host name.
    #[error("the host is no host name")]
    Host,
    /// The rewritten path has no canonical form, or another one.
    #[error("the rewritten path is not in canonical form, so the backend could read another one than was matched")]
    Rewritten,
    /// A template makes too much of the request.
    #[error(transparent)]
    TooLong(#[from] TooLong),
    /// The body is larger than the route allows.
    #[error("the body is larger than the route allows")]
    BodyTooLarge,
    /// The backend is that of a Service or port that doesn't exist, and its fallback has no endpoint.
    #[error("the Service or its port does not exist")]
    NoService,
    /// The backend has no endpoint, nor has its fallback.
    #[error("no endpoint is ready")]
    NoEndpoint,
    /// All backends of the rule have weight 0.
    #[error("all backends of the rule have weight 0")]
    NoBackend,
}

impl Failure {
    /// Why nothing is sent to a backend that has no endpoint: one that is known, and whose endpoints aren't, is of a Service or port that
    /// doesn't exist.
    pub fn without_endpoint(snapshot: &Snapshot, backend: &BackendName) -> Self {
        if snapshot.endpoint_set(backend).is_none() { Self::NoService } else { Self::NoEndpoint }
    }

    /// The status of the answer.
    pub const fn status(self) -> u16 {
        match self {
            Self::Path(_) | Self::Ambiguous(_) | Self::Host | Self::Rewritten => 400,
            Self::TooLong(_) => 414,
            Self::BodyTooLarge => 413,
            Self::NoService | Self::NoEndpoint => 503,
            Self::NoBackend => 500,
        }
    }
}

/// Where a decision begins.
#[derive(Clone, Copy, Debug)]
pub enum From<'s> {
    /// At the head of the request.
    Head,
    /// At the filter that waited.
    Wait(Plan<'s>),
}

/// Decides what is to happen to a request.
pub fn decide<'s, 'a, F: Fields<'a>>(
    snapshot: &'s Snapshot,
    received: &Received<'a, F>,
    facts: &mut impl Facts,
    from: From<'s>,
    scratch: &mut Scratch,
) -> Plan<'s> {
    let mut plan = match from {
        From::Wait(plan) => plan,
        From::Head => {
            let mut plan = Plan {
                host: None,
                route: None,
                step: Step::Respond(&NOT_FOUND),
                passed: 0,
                scheme: received.arrival.scheme,
                chosen: None,
            };
            match find(snapshot, received, facts, scratch, &mut plan) {
                Ok(()) if plan.route.is_some() => plan,
                Ok(()) => return plan,
                Err(failure) => {
                    plan.step = Step::Fail(failure);
                    return plan;
                }
            }
        }
    };
    let Some(route) = plan.route else { return plan };
    while let Some(filter) = route.filters.get(plan.passed) {
        if let Some(step) = apply(filter, snapshot, route, received, facts, scratch, &mut plan) {
            plan.step = step;
            return plan;
        }
        plan.passed += 1;
    }
    plan.step = match &route.action {
        Action::Forward(forward) => match send(forward, received, facts, scratch, &mut plan) {
            Ok(forwarding) => Step::Forward(forwarding),
            Err(failure) => Step::Fail(failure),
        },
        Action::Redirect(redirect) => {
            match target::locate(redirect, route, snapshot.settings().head_buffers.total as usize, received, scratch) {
                Ok(()) => Step::Redirect(redirect.status),
                Err(TooLong) => Step::Fail(TooLong.into()),
            }
        }
        Action::Respond(respond) => Step::Respond(respond),
    };
    plan
}

impl<'s> Plan<'s> {
    /// The filter that gave the answer, if one did.
    pub fn ended_by(&self) -> Option<&'s Filter> {
        self.route?.filters.get(self.passed)
    }

    /// Routes that take the request as well and that the chosen one beat, in order.
    pub fn beaten<'a, F: Fields<'a>>(
        &self,
        received: &Received<'a, F>,
        client: &ClientView,
        path: &[u8],
    ) -> impl Iterator<Item = &'s Route> {
        let chosen = self.route.map(std::ptr::from_ref);
        self.host.into_iter().flat_map(Host::routes).filter(move |route| {
            Some(std::ptr::from_ref(*route)) != chosen
                && route.path.matches(path)
                && route.conditions.admit(&received.head, client.address())
        })
    }

    /// Why everyone is refused, if that is the answer.
    pub fn refusal(&self) -> Option<&'s Refusal> {
        match self.ended_by() {
            Some(Filter::Refuse(refusal)) => Some(refusal),
            _ => None,
        }
    }

    /// The edits that filters of the route make in the response, in order.
    pub fn response_edits<'r>(&self, rules: &'r FieldRules) -> impl Iterator<Item = &'r FieldEdit>
    where
        's: 'r,
    {
        let encrypted = self.scheme == Scheme::Https;
        self.passed_filters().iter().flat_map(move |filter| match filter {
            Filter::StrictTransportSecurity if encrypted => rules.strict_transport_security.as_slice(),
            Filter::EditResponse(edits) => edits,
            _ => &[],
        })
    }

    /// The edits that filters of the route make in the request, in order.
    pub fn request_edits(&self) -> impl Iterator<Item = &'s FieldEdit> {
        self.passed_filters().iter().flat_map(|filter| match filter {
            Filter::EditRequest(edits) => edits,
            _ => &[][..],
        })
    }

    fn passed_filters(&self) -> &'s [Filter] {
        self.route.map_or(&[], |route| &route.filters[..self.passed.min(route.filters.len())])
    }
}

/// Finds client, path, host and route.
fn find<'s, 'a, F: Fields<'a>>(
    snapshot: &'s Snapshot,
    received: &Received<'a, F>,
    facts: &mut impl Facts,
    scratch: &mut Scratch,
    plan: &mut Plan<'s>,
) -> Result<(), Failure> {
    let Received { head, arrival, table } = received;
    scratch.client.decide(arrival, head, snapshot.settings(), || facts.random());
    scratch.matched.clear();
    scratch.target.clear();
    scratch.prefix.clear();
    let raw = match head.target {
        Target::Server => {
            // RFC 9110 9.3.7: about the server as a whole. It serves nothing by itself.
            plan.step = Step::Respond(&NO_CONTENT);
            return Ok(());
        }
        Target::Path([], _) => b"/",
        Target::Path(raw, _) => raw,
    };
    let path = path::canonicalize(raw, &mut scratch.path)?;
    scratch.matched.extend_from_slice(path.matched);
    scratch.target.extend_from_slice(path.forwarded);
    let name = match head.authority {
        None => Some(&b""[..]),
        Some(authority) => match authority.canonical {
            Some(name) => Some(name),
            None => canonical_host(authority.text, &mut scratch.host),
        },
    };
    let Some(host) = snapshot.host(table, name.ok_or(Failure::Host)?) else { return Ok(()) };
    plan.host = Some(host);
    let client = scratch.client.address();
    plan.route =
        host.unambiguous_route(&scratch.matched, &mut scratch.separated, |route| route.conditions.admit(head, client))?;
    Ok(())
}

/// One filter; a step ends the decision.
fn apply<'s, 'a, F: Fields<'a>>(
    filter: &'s Filter,
    snapshot: &Snapshot,
    route: &'s Route,
    received: &Received<'a, F>,
    facts: &mut impl Facts,
    scratch: &mut Scratch,
    plan: &mut Plan<'s>,
) -> Option<Step<'s>> {
    match filter {
        // Applied when the heads are written.
        Filter::StrictTransportSecurity | Filter::EditRequest(_) | Filter::EditResponse(_) => None,
        Filter::HttpsRedirect(redirect) => scratch.client.is_plain().then(|| {
            target::to_https(redirect, received, scratch);
            Step::Redirect(redirect.status)
        }),
        Filter::RequireEndpoints | Filter::NotFoundWithoutEndpoints => match &route.action {
            Action::Forward(forward) => match choose(forward, facts, plan) {
                Ok(chosen) if chosen.open => None,
                Err(failure) if failure != Failure::NoEndpoint => Some(Step::Fail(failure)),
                chosen => Some(match (filter, chosen) {
                    (Filter::NotFoundWithoutEndpoints, _) => Step::Respond(&NOT_FOUND),
                    (_, Ok(chosen)) => Step::Fail(Failure::without_endpoint(snapshot, chosen.backend)),
                    (_, Err(failure)) => Step::Fail(failure),
                }),
            },
            Action::Redirect(_) | Action::Respond(_) => None,
        },
        Filter::Refuse(_) => Some(Step::Respond(&UNAVAILABLE)),
        Filter::AccessList(list) => (!list.admits(scratch.client.address())).then_some(Step::Respond(&FORBIDDEN)),
        Filter::Rewrite(rewrite) => {
            let limit = snapshot.settings().head_buffers.total as usize;
            target::rewrite(rewrite, route, limit, scratch).err().map(Step::Fail)
        }
    }
}

/// The last step before a request is sent.
fn send<'s, 'a, F: Fields<'a>>(
    forward: &'s Forward,
    received: &Received<'a, F>,
    facts: &mut impl Facts,
    scratch: &mut Scratch,
    plan: &mut Plan<'s>,
) -> Result<Forwarding<'s>, Failure> {
    if received.head.length.is_some_and(|length| !forward.policy.max_body.admits(length)) {
        return Err(Failure::BodyTooLarge);
    }
    if let Some(query) = received.head.query() {
        scratch.target.push(b'?');
        scratch.target.extend_from_slice(query);
    }
    choose(forward, facts, plan)
}

/// The backend that a request is sent to, chosen once: one of the rule by weight, or the fallback when that one has no endpoint. The
/// first when neither has one, so that the log can name it.
fn choose<'s>(forward: &'s Forward, facts: &mut impl Facts, plan: &mut Plan<'s>) -> Result<Chosen<'s>, Failure> {
    if let Some(chosen) = plan.chosen {
        return Ok(chosen);
    }
    let first = forward.backends.choose(|| facts.random()).ok_or(Failure::NoBackend)?;
    let chosen = |backend, in_place_of, open| Forwarding { rule: forward, backend, in_place_of, open };
    let found = if facts.is_open(first) {
        chosen(first, None, true)
    } else {
        match &forward.fallback {
            Some(fallback) if facts.is_open(fallback) => chosen(fallback, Some(first), true),
            _ => chosen(first, None, false),
        }
    };
    plan.chosen = Some(found);
    Ok(found)
}

#[cfg(test)]
mod tests;
