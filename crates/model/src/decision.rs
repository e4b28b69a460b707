//! Decides from a request's head, without I/O, what happens to it: canonical form, client, host, route, filters,
//! action.
//!
//! [`decide`] is the only function that does so. The proxy carries out its [`Plan`]; `explain` and the translation
//! tests print it. Matching and authorisation use one canonical path, and the forwarded path means the same.
//!
//! A filter that must wait for the response of another service ends the decision with [`Step::Wait`]: the exchange does
//! the I/O, and calls [`decide`] again with the plan and the answer.
//!
//! [`cold_path`] marks code that few requests run, so that the code that all of them run lies together in the instruction cache.

mod auth_request;
mod certificate;
mod message;
mod plan;
mod snippet;
mod target;

use std::hint::cold_path;
use std::net::IpAddr;
use std::sync::Arc;

use crate::client::{Arrival, ClientView};
use crate::path;
use crate::{
    Action, AuthAnswer, AuthGiven, BackendName, Backends, ClientAuth, ClientIdentity, ClientLimits, ErrorResponse,
    Excess, Fields, Filter, Forward, GeoVariable, RequestView, Respond, Route, Scheme, Session, Snapshot, TableName,
    Target, TooLong, TraceContext, canonical_host,
};

pub use self::message::{Expand, RequestEdits, ResponseEdits};
pub use self::plan::{Failure, Forwarding, Plan, Step, Wait};
use self::snippet::Outcome;
pub use self::snippet::{Variables, is_early};

static NO_CONTENT: Respond = Respond::empty(204);
static UNAUTHORIZED: Respond = Respond::page(401);
static FORBIDDEN: Respond = Respond::page(403);
static NOT_FOUND: Respond = Respond::not_found();
static UNAVAILABLE: Respond = Respond::page(503);

/// A request and the facts about its connection.
#[derive(Clone, Copy, Debug)]
pub struct Received<'a, F> {
    /// The head.
    pub head: RequestView<'a, F>,
    /// Where the connection came from and where it arrived.
    pub arrival: &'a Arrival,
    /// The hosts served there.
    pub table: &'a TableName,
}

/// Facts that a decision depends on but the snapshot doesn't hold.
pub trait Facts {
    /// Whether a backend has an endpoint that accepts new requests.
    fn is_open(&mut self, backend: &BackendName) -> bool;

    /// 64 random bits.
    fn random(&mut self) -> u64;

    /// Whether the request belongs to a session with an endpoint of `backend`, by the session cookie of backend `main`.
    fn has_session(&mut self, main: &BackendName, backend: &BackendName) -> bool;

    /// Whether the request belongs to a session of its rule with an endpoint of `backend`; false by default.
    fn keeps(&mut self, session: &Session, backend: &BackendName) -> bool {
        let _ = (session, backend);
        false
    }

    /// The client's certificate, verified as `wanted`. Asked only over TLS, if the host wants one or the connection was
    /// made for a host that does. `None` if the connection was made for a host that wants something else.
    fn client_identity(&mut self, wanted: Option<&Arc<ClientAuth>>) -> Option<Arc<ClientIdentity>>;

    /// Appends what the geographic databases say about a client; nothing by default.
    fn geo(&self, variable: GeoVariable, client: IpAddr, out: &mut Vec<u8>) {
        let _ = (variable, client, out);
    }

    /// Whether the client's TLS connection was made for another listener of the port than this one.
    fn is_for_another(&self, listener: &str) -> bool {
        let _ = listener;
        false
    }

    /// Counts a request of a client, and returns the limit that it exceeds. Nothing is counted by default.
    fn count(&mut self, limits: &ClientLimits, client: IpAddr) -> Option<Excess> {
        let _ = (limits, client);
        None
    }
}

/// Facts taken from the snapshot alone, for callers that send nothing: every ready endpoint accepts requests, and every
/// DNS name resolves to one. Nothing is random, and no client has a certificate.
#[derive(Clone, Copy, Debug)]
pub struct SnapshotFacts<'s>(pub &'s Snapshot);

impl Facts for SnapshotFacts<'_> {
    fn is_open(&mut self, backend: &BackendName) -> bool {
        self.0.backend(backend).is_some() && self.0.endpoint_set(backend).is_some_and(|set| set.endpoints.is_open())
    }

    fn random(&mut self) -> u64 {
        0
    }

    fn has_session(&mut self, _: &BackendName, _: &BackendName) -> bool {
        false
    }

    fn client_identity(&mut self, _: Option<&Arc<ClientAuth>>) -> Option<Arc<ClientIdentity>> {
        Some(Arc::default())
    }
}

/// Texts that a decision produces. Reused across requests to avoid allocation.
#[derive(Debug, Default)]
pub struct Scratch {
    /// The client.
    pub client: ClientView,
    /// The client's certificate, if the host asks for one.
    pub identity: Option<Arc<ClientIdentity>>,
    /// The matched path, or the rewritten one.
    pub matched: Vec<u8>,
    /// The target to send to the endpoint.
    pub target: Vec<u8>,
    /// X-Forwarded-Prefix; empty for none.
    pub prefix: Vec<u8>,
    /// The target of a redirect.
    pub location: Vec<u8>,
    /// What the answer of an authentication service contributes to the request; shared with the answers that are kept.
    pub given: Option<Arc<AuthGiven>>,
    /// The response to a request that such a service has denied with an answer of its own.
    pub denied: Option<Box<Respond>>,
    /// Variables that snippets have set; boxed because most requests have none.
    pub variables: Option<Box<Variables>>,
    /// The place of the request in a trace; boxed because most requests have none.
    pub trace: Option<Box<TraceContext>>,
    /// The query that replaces the received one, after a snippet has changed it.
    pub query: Option<Box<[u8]>>,
    path: path::PathScratch,
    host: Vec<u8>,
    expanded: Vec<u8>,
    separated: Vec<u8>,
}

impl Scratch {
    /// Appends the path that is matched and forwarded, and the query.
    pub fn append_target(&self, received: Option<&[u8]>, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.target);
        if let Some(query) = query_in_force(self.query.as_deref(), received) {
            out.push(b'?');
            out.extend_from_slice(query);
        }
    }

    /// Releases the memory that is not needed once the response has begun.
    pub fn release(&mut self) {
        for text in [&mut self.target, &mut self.prefix, &mut self.location, &mut self.host] {
            *text = Vec::new();
        }
        (self.expanded, self.separated, self.path) = Default::default();
    }
}

/// The point at which a decision starts.
#[derive(Clone, Copy, Debug)]
#[allow(clippy::large_enum_variant, reason = "passed once for each step of a decision; a box would be an allocation")]
pub enum Start<'s> {
    /// At the request head.
    Head,
    /// At the filter that waited, with the answer. A client that has to sign in is redirected to [`Scratch::location`].
    Wait(Plan<'s>, AuthAnswer),
}

/// Decides what is to happen to a request.
pub fn decide<'s, 'a, F: Fields<'a>>(
    snapshot: &'s Snapshot,
    received: &Received<'a, F>,
    facts: &mut impl Facts,
    from: Start<'s>,
    scratch: &mut Scratch,
) -> Plan<'s> {
    let mut plan = match from {
        Start::Wait(mut plan, answer) => {
            cold_path();
            if let Some(step) = answered(answer, &mut plan) {
                plan.step = step;
                return plan;
            }
            set_variables(&plan, scratch);
            plan.passed += 1;
            plan
        }
        Start::Head => {
            let mut plan = Plan {
                host: None,
                route: None,
                step: Step::Respond(&NOT_FOUND),
                passed: 0,
                scheme: received.arrival.scheme,
                wider_than: None,
                chosen: None,
                canary: None,
                replaced: false,
                errors: None,
                error: None,
                edits_request: false,
                edits_response: false,
                cors: None,
                snippet: None,
                allowed_by: None,
                guarded_by: None,
                copies: false,
                exempt: false,
                lacks_password: false,
                hides_credentials: false,
            };
            match find(snapshot, received, facts, scratch, &mut plan) {
                Ok(()) if plan.route.is_some() => plan,
                Ok(()) => return plan,
                Err(failure) => {
                    cold_path();
                    plan.step = Step::Fail(failure);
                    return plan;
                }
            }
        }
    };
    let Some(mut route) = plan.route else { return plan };
    begin_trace(route, snapshot, received, facts, scratch);
    while let Some(filter) = route.filters.get(plan.passed) {
        let ended = match filter {
            Filter::Snippet(snippet) => {
                cold_path();
                let limit = snapshot.settings().head_buffers.total as usize;
                let geo = |variable, client, out: &mut Vec<u8>| facts.geo(variable, client, out);
                match snippet::run(snippet, received, limit, &geo, scratch, &mut plan) {
                    Outcome::Next => None,
                    Outcome::Done(step) => Some(step),
                    Outcome::Choose => match choose_again(received, scratch, &mut plan) {
                        Ok(Some(chosen)) => {
                            route = chosen;
                            begin_trace(route, snapshot, received, facts, scratch);
                            continue;
                        }
                        Ok(None) => Some(Step::Respond(&NOT_FOUND)),
                        Err(failure) => Some(Step::Fail(failure)),
                    },
                }
            }
            _ => apply(filter, snapshot, route, received, facts, scratch, &mut plan),
        };
        if let Some(step) = ended {
            plan.step = step;
            return plan;
        }
        plan.passed += 1;
    }
    plan.step = match &route.action {
        Action::Forward(forward) => match send((route, forward), snapshot, received, facts, scratch, &mut plan) {
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

/// The plan for an error response that another service replaces: to ask that service for `/`, with the fields that describe the error.
/// `None` if the error is sent unchanged. The plan replaces no further errors, so the request always ends.
pub fn replace_error<'s, 'a, F: Fields<'a>>(
    plan: &Plan<'s>,
    error: ErrorResponse,
    head: &RequestView<'a, F>,
    facts: &mut impl Facts,
    scratch: &mut Scratch,
) -> Option<Plan<'s>> {
    let pages = plan.errors.filter(|pages| pages.replaces(error))?;
    let first = || match &plan.route?.action {
        Action::Forward(forward) => forward.backends.names().next(),
        Action::Redirect(_) | Action::Respond(_) => None,
    };
    let main = |chosen: Forwarding<'s>| match plan.alternative_of() {
        Some(main) => main,
        None => chosen.in_place_of.unwrap_or(chosen.backend),
    };
    let asked = plan.chosen.map(main).or_else(first);
    // As in ingress-nginx, what the route does to its responses doesn't apply to error pages.
    let mut other = Plan {
        errors: None,
        error: Some(error.status),
        chosen: None,
        canary: None,
        edits_request: false,
        edits_response: false,
        cors: None,
        allowed_by: None,
        // The proxy itself checks the password, so no service gets it, even if an earlier filter refused the request.
        hides_credentials: plan.hides_credentials || plan.route.is_some_and(checks_password),
        ..*plan
    };
    let chosen = choose(&pages.forward, head, facts, &mut other).ok().filter(|chosen| chosen.open)?;
    other.step = Step::Forward(Forwarding { in_place_of: asked, ..chosen });
    scratch.target.clear();
    scratch.target.push(b'/');
    if let Some(query) = head.query() {
        scratch.target.push(b'?');
        scratch.target.extend_from_slice(query);
    }
    scratch.prefix.clear();
    Some(other)
}

/// Whether the proxy itself checks the passwords of a route's clients.
fn checks_password(route: &Route) -> bool {
    route.filters.iter().any(|filter| matches!(filter, Filter::BasicAuth(_)))
}

/// Gives the request its place in a trace, if its route is traced and it has none yet.
fn begin_trace<'a, F: Fields<'a>>(
    route: &Route,
    snapshot: &Snapshot,
    received: &Received<'a, F>,
    facts: &mut impl Facts,
    scratch: &mut Scratch,
) {
    if let (Some(rule), None) = (&route.tracing, &scratch.trace) {
        cold_path();
        let telemetry = match &rule.telemetry {
            None => None,
            Some(name) => match snapshot.telemetry(name) {
                None => return,
                Some(telemetry) => Some(&**telemetry),
            },
        };
        let rules = (&snapshot.settings().tracing, telemetry);
        let context = TraceContext::begin(rule, rules, received.head.fields, || facts.random());
        scratch.trace = Some(Box::new(context));
    }
}

/// Sets the variables that come from the answer of an authentication service.
fn set_variables(plan: &Plan<'_>, scratch: &mut Scratch) {
    let (Some(auth), Some(given)) = (plan.allowed_by, &mut scratch.given) else { return };
    if auth.sets().is_empty() || given.variables.is_empty() {
        return;
    }
    let variables = scratch.variables.get_or_insert_default();
    // Taken, so that asking another service doesn't reset what was set since.
    for (variable, value) in auth.sets().iter().zip(std::mem::take(&mut Arc::make_mut(given).variables)) {
        variables.set(&variable.name, value);
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
    scratch.identity = None;
    scratch.given = None;
    scratch.denied = None;
    scratch.variables = None;
    scratch.trace = None;
    scratch.query = None;
    scratch.matched.clear();
    scratch.target.clear();
    scratch.prefix.clear();
    let raw = match head.target {
        Target::Server => {
            cold_path();
            // About the server as a whole (RFC 9110 9.3.7), which serves nothing by itself.
            plan.step = Step::Respond(&NO_CONTENT);
            return Ok(());
        }
        Target::Path([], _) => b"/",
        Target::Path(raw, _) => raw,
    };
    let path = path::canonicalize(raw, &mut scratch.path)?;
    scratch.matched.extend_from_slice(path.matched);
    scratch.target.extend_from_slice(path.forwarded);
    let name = requested_name(head, &mut scratch.host).ok_or(Failure::Host)?;
    let Some(mut host) = snapshot.host(table, name).map(|host| &**host) else { return Ok(()) };
    if host.listener().is_some_and(|listener| facts.is_for_another(listener)) {
        cold_path();
        plan.host = Some(host);
        return Err(Failure::Misdirected);
    }
    let client = scratch.client.address();
    loop {
        plan.host = Some(host);
        if (host.client_auth().is_some() || arrival.asked_for_certificate)
            && certificate::check(host, received, facts, scratch, plan)?.is_break()
        {
            return Ok(());
        }
        plan.route =
            host.unambiguous_route(&scratch.matched, &mut scratch.separated, |route| route.admits(head, client))?;
        // For hosts of Ingresses the search ends here: each takes every path.
        if plan.route.is_some() || host.onward().is_none() {
            return Ok(());
        }
        let name = requested_name(head, &mut scratch.host).ok_or(Failure::Host)?;
        match snapshot.host_after(table, name, host) {
            Some(next) => {
                cold_path();
                plan.wider_than.get_or_insert(host);
                host = next;
            }
            None => return Ok(()),
        }
    }
}

/// The requested host in canonical form, empty if there is none; `None` if it is no host name.
fn requested_name<'r, 'a: 'r, F: Fields<'a>>(head: &RequestView<'a, F>, scratch: &'r mut Vec<u8>) -> Option<&'r [u8]> {
    match head.authority {
        None => Some(&b""[..]),
        Some(authority) => match authority.canonical {
            Some(name) => Some(name),
            None => {
                cold_path();
                canonical_host(authority.text, scratch)
            }
        },
    }
}

/// Chooses the route of a path that a snippet has changed; its filters start over.
fn choose_again<'s, 'a, F: Fields<'a>>(
    received: &Received<'a, F>,
    scratch: &mut Scratch,
    plan: &mut Plan<'s>,
) -> Result<Option<&'s Route>, Failure> {
    let client = scratch.client.address();
    let admits = |route: &Route| route.admits(&received.head, client);
    plan.route = match plan.host {
        Some(host) => host.unambiguous_route(&scratch.matched, &mut scratch.separated, admits)?,
        None => None,
    };
    (plan.passed, plan.cors, plan.snippet, plan.chosen) = (0, None, None, None);
    (plan.edits_request, plan.edits_response, plan.errors, plan.copies) = (false, false, None, false);
    Ok(plan.route)
}

/// Applies one filter; a returned step ends the decision.
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
        Filter::ErrorPages(pages) => {
            plan.errors = Some(pages);
            None
        }
        // Edits are applied when the heads are written.
        Filter::EditRequest(_) => {
            plan.edits_request = true;
            None
        }
        Filter::StrictTransportSecurity => {
            // Nearly every route has it, and over plain HTTP it is not sent (RFC 6797 7.2).
            plan.edits_response |= plan.scheme == Scheme::Https;
            None
        }
        Filter::EditResponse(_) | Filter::RewriteResponse(_) => {
            plan.edits_response = true;
            None
        }
        Filter::Block(block) => block.refuses(&received.head).then_some(Step::Respond(&FORBIDDEN)),
        Filter::Cors(cors) => {
            plan.cors = cors.admits(&received.head).then_some(cors);
            cors.is_preflight(&received.head, plan.cors.is_some()).then_some(Step::Respond(&NO_CONTENT))
        }
        Filter::HttpsRedirect(redirect) => scratch.client.is_plain().then(|| {
            target::to_https(redirect, received, scratch);
            Step::Redirect(redirect.status)
        }),
        Filter::RequireEndpoints | Filter::NotFoundWithoutEndpoints => match &route.action {
            Action::Forward(forward) => match choose(forward, &received.head, facts, plan) {
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
        Filter::ClientLimits(limits) => {
            let client = scratch.client.address();
            let excess = if limits.exempt.contains(client) { None } else { facts.count(limits, client) };
            excess.map(|excess| match excess {
                Excess::Rate => Step::Respond(&limits.over_rate),
                Excess::Requests => Step::Respond(&limits.over_requests),
            })
        }
        Filter::AccessList(list) => (!list.admits(scratch.client.address())).then_some(Step::Respond(&FORBIDDEN)),
        Filter::AccessListOrAuth(list) => {
            plan.exempt = list.exempts(scratch.client.address());
            None
        }
        Filter::AccessRules(rules) => {
            let verdict = rules.verdict(scratch.client.address(), received.head.method);
            if rules.or_auth {
                plan.exempt = verdict == Some(true);
                return None;
            }
            (verdict == Some(false)).then_some(Step::Respond(&FORBIDDEN))
        }
        // It may choose another route, so the caller runs it.
        Filter::Snippet(_) => None,
        Filter::BasicAuth(auth) => {
            plan.hides_credentials = true;
            (!plan.exempt).then_some(Step::Wait(Wait::Password(auth)))
        }
        Filter::ExternalAuth(auth) => {
            plan.guarded_by = Some(auth);
            (!plan.exempt).then_some(Step::Wait(Wait::ExternalAuth(auth)))
        }
        Filter::Mirror(_) => {
            plan.copies = true;
            None
        }
        Filter::ReplacePath { with: replacement } => {
            let limit = snapshot.settings().head_buffers.total as usize;
            target::replace(replacement, route, limit, scratch).err().map(Step::Fail)
        }
        Filter::Rewrite(rewrite) => {
            let limit = snapshot.settings().head_buffers.total as usize;
            target::rewrite(rewrite, route, limit, scratch).err().map(Step::Fail)
        }
    }
}

/// Continues after the answer of an authentication service; a returned step ends the decision. Anything but an approval ends it.
fn answered<'s>(answer: AuthAnswer, plan: &mut Plan<'s>) -> Option<Step<'s>> {
    let auth = match plan.ended_by() {
        Some(Filter::ExternalAuth(auth)) => Some(auth),
        Some(Filter::BasicAuth(auth)) if auth.or_service => {
            plan.exempt = answer == AuthAnswer::Allowed;
            plan.lacks_password = !plan.exempt;
            return None;
        }
        Some(Filter::BasicAuth(_)) => None,
        _ => return Some(Step::Fail(Failure::Authentication)),
    };
    match answer {
        AuthAnswer::Allowed => {
            plan.allowed_by = auth.map(|auth| &**auth).or(plan.allowed_by);
            None
        }
        AuthAnswer::Unauthorized if auth.is_some_and(|auth| auth.sign_in().is_some()) => Some(Step::Redirect(302)),
        AuthAnswer::Unauthorized => Some(Step::Respond(&UNAUTHORIZED)),
        // As in nginx, where one of two checks is enough, asking for a password takes precedence over a refusal.
        AuthAnswer::Forbidden if plan.lacks_password => Some(Step::Respond(&UNAUTHORIZED)),
        AuthAnswer::Forbidden => Some(Step::Respond(&FORBIDDEN)),
        AuthAnswer::Denied => Some(Step::Deny),
        AuthAnswer::Failed => Some(Step::Fail(Failure::Authentication)),
    }
}

/// The query that goes with the path: the one that a snippet has set (none if that is empty), or else the received one.
fn query_in_force<'q>(changed: Option<&'q [u8]>, received: Option<&'q [u8]>) -> Option<&'q [u8]> {
    match changed {
        Some(query) => Some(query).filter(|query| !query.is_empty()),
        None => received,
    }
}

/// The last step before a request is forwarded.
fn send<'s, 'a, F: Fields<'a>>(
    (route, forward): (&'s Route, &'s Forward),
    snapshot: &Snapshot,
    received: &Received<'a, F>,
    facts: &mut impl Facts,
    scratch: &mut Scratch,
    plan: &mut Plan<'s>,
) -> Result<Forwarding<'s>, Failure> {
    if received.head.length.is_some_and(|length| !forward.policy.max_body.admits(length)) {
        cold_path();
        return Err(Failure::BodyTooLarge);
    }
    let chosen = choose(forward, &received.head, facts, plan)?;
    for filter in chosen.filters() {
        match filter {
            Filter::ReplacePath { with } => {
                target::replace(with, route, snapshot.settings().head_buffers.total as usize, scratch)?;
            }
            Filter::EditRequest(_) => plan.edits_request = true,
            Filter::EditResponse(_) => plan.edits_response = true,
            _ => {}
        }
    }
    let received_query = received.head.query().filter(|_| !plan.replaced);
    if let Some(query) = query_in_force(scratch.query.as_deref(), received_query) {
        scratch.target.push(b'?');
        scratch.target.extend_from_slice(query);
    }
    Ok(chosen)
}

/// Chooses the backend once: one of the rule by weight or as its canary says, or the fallback if that one has no endpoint. If neither has
/// one, it is the first, so that the log can name it.
fn choose<'s, 'a, F: Fields<'a>>(
    forward: &'s Forward,
    head: &RequestView<'a, F>,
    facts: &mut impl Facts,
    plan: &mut Plan<'s>,
) -> Result<Forwarding<'s>, Failure> {
    if let Some(chosen) = plan.chosen {
        return Ok(chosen);
    }
    let kept = match (&forward.policy.session, &forward.backends) {
        (Some(session), Backends::Weighted(list) | Backends::Partial { valid: list, .. }) => {
            cold_path();
            session.share(list, facts)
        }
        _ => None,
    };
    let (first, share) = kept.or_else(|| forward.backends.choose(|| facts.random())).ok_or(Failure::NoBackend)?;
    let scheme = plan.scheme;
    let chosen = |backend, in_place_of, open| Forwarding { rule: forward, backend, in_place_of, open, share, scheme };
    let found = if facts.is_open(first) {
        if let Backends::Canary(canary) = &forward.backends {
            cold_path();
            plan.canary = Some(canary.choose(head, facts));
        }
        let alternative = plan.canary.filter(|choice| choice.alternative).map(|choice| &choice.canary.alternative);
        chosen(alternative.unwrap_or(first), None, true)
    } else {
        cold_path();
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
