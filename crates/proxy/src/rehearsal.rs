//! What the proxy would do with a request, computed by the code of the proxy without sending anything: for `fairway explain`.
//!
//! The head is parsed, decided about and edited as in a worker, so an explanation can't differ from what happens. What depends on
//! the network is left out: whether an endpoint can be reached, and its response.

use std::cell::RefCell;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fairway_model::client::{Arrival, ClientView};
use fairway_model::decision::{
    self, Expand, Facts, Forwarding, Plan, Received, ResponseEdits, Scratch, Start, Step, Wait, decide,
};
use fairway_model::field::is_same_field;
use fairway_model::{
    AuthAnswer, BackendName, Change, ClientAuth, ClientIdentity, Compressing, Endpoints, ErrorResponse, Forward,
    Respond, Route, Session, Snapshot, TableName, Target, Template, TooLong, path,
};

use crate::access_log::{Format, LogClock};
use crate::balance::{Ask, cookie, rule};
use crate::digest::{self, Proof};
use crate::error::Failure;
use crate::exchange::{refused, write_answer, write_request};
use crate::http::{Method, Parsed, RequestHead, Spanned};
use crate::live::Live;
use crate::message::{Evaluated, ResponseContext, UpstreamRequest};
use crate::net::resolve::AddressPolicy;
use crate::password::{challenge, credentials, verify};
use crate::random::Rng;
use crate::reason::Cause;
use crate::record::RequestRecord;
use crate::respond::{Answer, DateClock};
use crate::upstream::{Service, Upstreams};

/// A snapshot to rehearse requests with.
#[derive(Debug)]
pub struct Rehearsal {
    live: Arc<Live>,
    upstreams: Upstreams,
    rng: RefCell<Rng>,
    /// Backends whose endpoints are not known.
    supposed: HashSet<BackendName>,
}

/// What the proxy would do with one request.
#[derive(Debug)]
pub struct Rehearsed<'r> {
    /// The plan; `None` when the head was refused.
    pub plan: Option<Plan<'r>>,
    /// What the decision derived from the request: the client, the target, the location.
    pub scratch: Scratch,
    /// The path that is matched against routes; `None` if it has no canonical form.
    pub path: Option<Vec<u8>>,
    /// Other routes that match the request, by precedence.
    pub beaten: Vec<&'r Route>,
    /// The message that would be sent.
    pub outcome: Outcome,
}

/// The message sent because of a request.
#[derive(Debug)]
pub enum Outcome {
    /// The proxy answers the request itself.
    Answer {
        /// The status.
        status: u16,
        /// The whole response.
        response: Vec<u8>,
        /// The cause, if this is a failure.
        cause: Option<Cause>,
    },
    /// The request goes to a backend.
    Forward {
        /// The head of the request as sent to the endpoint.
        request: Vec<u8>,
        /// The endpoint, if the request determines it (a session, a hash), otherwise one of the possible ones. `None` if finding one takes
        /// DNS.
        endpoint: Option<SocketAddr>,
        /// Edits of the response, whatever it is.
        response: Vec<ResponseChange>,
    },
}

/// A response field that differs from what the backend sends.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ResponseChange {
    /// Its name.
    pub name: String,
    /// How it differs.
    pub effect: Effect,
}

/// The edit of a field. Variables that depend on the response are empty in its values.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Effect {
    /// It is set to this value, whatever the backend sends.
    Set(String),
    /// A line with this value is added.
    Add(String),
    /// It is removed.
    Remove,
}

impl Rehearsal {
    /// A rehearsal of a snapshot. Endpoints may have the addresses that `addresses` allows.
    pub fn new(snapshot: Snapshot, addresses: AddressPolicy) -> Self {
        let live = Live::first(snapshot, None, addresses);
        Self { live, upstreams: Upstreams::default(), rng: RefCell::new(Rng::from_seed(0)), supposed: HashSet::new() }
    }

    /// Takes the endpoints of these backends as unknown, as in files: an authentication service is assumed to have one.
    #[must_use]
    pub fn supposing(self, supposed: HashSet<BackendName>) -> Self {
        Self { supposed, ..self }
    }

    /// The snapshot.
    pub fn snapshot(&self) -> &Snapshot {
        &self.live.snapshot
    }

    /// What would happen to a request of an HTTP/1 client, with `head` as its whole head, on a listener that serves the hosts of
    /// `table`.
    pub fn of(&self, head: &[u8], arrival: &Arrival, table: &TableName) -> Rehearsed<'_> {
        let live = &*self.live;
        let mut parsed = RequestHead::default();
        let failure = match parsed.parse(head, &live.prepared.request) {
            Ok(Parsed::Complete { len }) => {
                return self.decided(Spanned { parsed: &parsed, bytes: &head[..len] }, arrival, table);
            }
            Ok(Parsed::Partial { .. }) => Failure::HeadTimeout,
            Err(error) => Failure::RequestHead(error),
        };
        let mut scratch = Scratch::default();
        scratch.client = ClientView::of_connection(arrival);
        let own =
            OwnAnswer { respond: &Respond::page(failure.status()), cause: Some(failure.cause()), redirects: false };
        let outcome = Rehearsing { rehearsal: self, arrival, head: None, plan: None, scratch: &scratch }.answer(own);
        Rehearsed { plan: None, scratch, path: None, beaten: Vec::new(), outcome }
    }

    fn decided(&self, head: Spanned<'_, RequestHead>, arrival: &Arrival, table: &TableName) -> Rehearsed<'_> {
        let snapshot = &*self.live.snapshot;
        let mut scratch = Scratch::default();
        let received = Received { head: head.parsed.view(head.bytes), arrival, table };
        let facts = || RehearsalFacts { rehearsal: self, head };
        let mut plan = decide(snapshot, &received, &mut facts(), Start::Head, &mut scratch);
        // An authentication service that has an endpoint is assumed to allow the request.
        let mut fields = Vec::new();
        while let Step::Wait(wait) = plan.step {
            let answer = match wait {
                Wait::ExternalAuth(auth) => {
                    let mut backends = auth.forward.backends.names();
                    let is_open = |backend| self.supposed.contains(backend) || facts().is_open(backend);
                    let open = backends.next().is_some_and(is_open);
                    if open { AuthAnswer::Allowed } else { AuthAnswer::Failed }
                }
                Wait::Password(auth) if auth.digest => {
                    let head = &received.head;
                    let proof = digest::check(auth, head.fields, head.method, head.raw_target);
                    fields = digest::challenge(auth, proof == Proof::Stale);
                    if proof == Proof::Right { AuthAnswer::Allowed } else { AuthAnswer::Unauthorized }
                }
                Wait::Password(auth) => {
                    let given = credentials(received.head.fields);
                    let right = given.and_then(|(user, password)| Some(verify(auth.users.hash_of(&user)?, &password)));
                    fields = challenge(auth);
                    if right == Some(true) { AuthAnswer::Allowed } else { AuthAnswer::Unauthorized }
                }
            };
            plan = decide(snapshot, &received, &mut facts(), Start::Wait(plan, answer), &mut scratch);
        }
        let asked = Rehearsing { rehearsal: self, arrival, head: Some(head), plan: Some(&plan), scratch: &scratch };
        let own = |respond: &Respond, cause, redirects| asked.answer(OwnAnswer { respond, cause, redirects });
        let failed = |failure: Failure| own(&Respond::page(failure.status()), Some(failure.cause()), false);
        let mut outcome = match plan.step {
            Step::Forward(forwarding) => asked.forward(&plan, &forwarding).unwrap_or_else(failed),
            Step::Redirect(status) => own(&Respond::page(status), None, true),
            Step::Respond(respond) if respond.status == 401 => {
                let cause = refused(&plan, respond.status).map(Cause::from);
                own(&Respond { fields, ..respond.clone() }, cause, false)
            }
            Step::Respond(respond) => own(respond, refused(&plan, respond.status).map(Cause::from), false),
            // No service is asked, so none denies.
            Step::Deny => own(&Respond::page(403), refused(&plan, 403).map(Cause::from), false),
            Step::Fail(failure) => failed(failure.into()),
            Step::Wait(_) => unreachable!("it has waited"),
        };
        if let Outcome::Answer { status, .. } = outcome
            && !matches!(plan.step, Step::Redirect(_))
            && let error = (ErrorResponse { status, of_endpoint: false })
            && let Some(other) = decision::replace_error(&plan, error, &received.head, &mut facts(), &mut scratch)
            && let Step::Forward(forwarding) = other.step
        {
            let asked =
                Rehearsing { rehearsal: self, arrival, head: Some(head), plan: Some(&other), scratch: &scratch };
            if let Ok(replaced) = asked.forward(&other, &forwarding) {
                (outcome, plan) = (replaced, other);
            }
        }
        let path = match received.head.target {
            Target::Server => None,
            Target::Path(raw, _) => {
                let mut scratch = path::PathScratch::default();
                let raw = if raw.is_empty() { b"/" } else { raw };
                path::canonicalize(raw, &mut scratch).ok().map(|path| path.matched.to_vec())
            }
        };
        let matched = path.as_deref().unwrap_or_default();
        let beaten = match plan.route {
            Some(_) => plan.beaten(&received, &scratch.client, matched).collect(),
            None => Vec::new(),
        };
        Rehearsed { plan: Some(plan), scratch, path, beaten, outcome }
    }

    fn service(&self, backend: &BackendName) -> Option<Rc<Service>> {
        self.upstreams.service(&self.live, backend, &self.rng)
    }
}

/// Assumptions in place of a worker's knowledge: every ready endpoint accepts requests, and every name resolves.
struct RehearsalFacts<'r> {
    rehearsal: &'r Rehearsal,
    head: Spanned<'r, RequestHead>,
}

impl Facts for RehearsalFacts<'_> {
    fn is_open(&mut self, backend: &BackendName) -> bool {
        let live = &self.rehearsal.live;
        match live.snapshot.endpoint_set(backend).map(|set| &set.endpoints) {
            // A name may resolve to anything; an address in its place may be refused.
            Some(Endpoints::Name { host, port }) => {
                host.parse().map_or(true, |address| live.addresses.admits(SocketAddr::new(address, *port)))
            }
            _ => self.rehearsal.service(backend).is_some_and(|service| service.is_open()),
        }
    }

    fn random(&mut self) -> u64 {
        self.rehearsal.rng.borrow_mut().bits()
    }

    fn has_session(&mut self, main: &BackendName, backend: &BackendName) -> bool {
        let Self { rehearsal, head } = self;
        rehearsal.upstreams.has_session(&rehearsal.live, *head, (main, backend), &rehearsal.rng)
    }

    fn keeps(&mut self, session: &Session, backend: &BackendName) -> bool {
        let Self { rehearsal, head } = self;
        rehearsal.upstreams.keeps(&rehearsal.live, *head, (session, backend), &rehearsal.rng)
    }

    fn geo(&self, variable: fairway_model::GeoVariable, client: std::net::IpAddr, out: &mut Vec<u8>) {
        if let Some(geo) = &self.rehearsal.live.geo {
            geo.append(variable, client, out);
        }
    }

    /// The client of a rehearsal has no certificate.
    fn client_identity(&mut self, _: Option<&Arc<ClientAuth>>) -> Option<Arc<ClientIdentity>> {
        Some(Arc::default())
    }
}

/// A request and its plan.
#[derive(Clone, Copy)]
struct Rehearsing<'a, 'r> {
    rehearsal: &'r Rehearsal,
    arrival: &'a Arrival,
    head: Option<Spanned<'a, RequestHead>>,
    plan: Option<&'a Plan<'r>>,
    scratch: &'a Scratch,
}

/// A response of the proxy itself.
struct OwnAnswer<'a> {
    respond: &'a Respond,
    cause: Option<Cause>,
    redirects: bool,
}

impl<'a> Rehearsing<'a, '_> {
    /// Serialises a response of the proxy itself.
    fn answer(self, own: OwnAnswer<'_>) -> Outcome {
        let OwnAnswer { respond, cause, redirects } = own;
        let live = &*self.rehearsal.live;
        let mut values = Evaluated::default();
        let edits = ResponseEdits::unconditional(self.plan, &live.prepared.fields);
        values.fill(&edits, |template, out| self.append(template, respond.status, out));
        let (clock, mut sent_head, mut response) = (DateClock::default(), Vec::new(), Vec::new());
        let answer = Answer {
            status: respond.status,
            body: &respond.body,
            message: "",
            fields: &respond.fields,
            location: redirects.then_some(&self.scratch.location[..]),
            grpc: None,
        };
        let head_only = self.head.is_some_and(|head| head.parsed.method() == Method::Head);
        let context = ResponseContext {
            live,
            clock: &clock,
            plan: self.plan,
            cookies: b"",
            compressing: Compressing::Never,
            status: respond.status,
            substituting: false,
            values: &values,
            added: &[],
            given: &[],
            sent_head: &mut sent_head,
        };
        let status = write_answer(&answer, head_only, &context, &mut response);
        Outcome::Answer { status, response, cause }
    }

    /// The request as sent to the endpoint.
    fn forward(self, plan: &'a Plan<'a>, forwarding: &Forwarding<'a>) -> Result<Outcome, Failure> {
        let live = &*self.rehearsal.live;
        let head = self.head.ok_or(Failure::Unwritable)?;
        let service = self.rehearsal.service(forwarding.backend).ok_or(Failure::NoService)?;
        let main = plan.alternative_of().filter(|_| plan.canary().is_some_and(|choice| choice.canary.sticky));
        if let Some(affinity) = main.and_then(|main| live.snapshot.backend(main)?.affinity.as_ref()) {
            service.adopt(affinity, live);
        }
        self.rehearsal.upstreams.ways.for_request(live, forwarding, &service).map_err(Failure::InvalidTls)?;
        let endpoint = match live.is_name(forwarding.backend) {
            true => None,
            false => Some(
                self.pick(&service, forwarding.rule, head)
                    .ok_or_else(|| decision::Failure::without_endpoint(&live.snapshot, forwarding.backend))?,
            ),
        };
        let mut request = Vec::new();
        service.with_backend(|backend| {
            let upstream = UpstreamRequest::new(live, head, plan, forwarding, backend, self.scratch);
            write_request(&upstream, &mut request, &mut OfRequest(self))
        })?;
        Ok(Outcome::Forward { request, endpoint, response: self.changes(plan) })
    }

    fn pick(self, service: &Service, forward: &Forward, head: Spanned<'_, RequestHead>) -> Option<SocketAddr> {
        let mut key = Vec::new();
        if let Some(format) = &service.hash_key() {
            let _ = self.append_format(format, 0, &mut key);
        }
        let ask =
            |session| Ask { session, hash_key: &key, tried: &[], ejected: &[], unhealthy: &[], now: Instant::now() };
        let (fields, bytes) = (head.parsed.fields(), head.bytes);
        let pick = match &forward.policy.session {
            Some(session) => service.pick_in_rule(ask(rule::carried(session, fields, bytes))),
            None => service.pick(|name| ask(name.and_then(|name| cookie::find(fields, bytes, name.as_bytes())))),
        };
        pick.map(|pick| pick.endpoint)
    }

    /// The edits of a response.
    fn changes(self, plan: &Plan<'_>) -> Vec<ResponseChange> {
        let live = &*self.rehearsal.live;
        let rules = &live.prepared.fields;
        let mut changes = Vec::<ResponseChange>::new();
        // Setting or removing a field replaces earlier effects on it.
        let mut put = |name: &str, effect: Effect| {
            if !matches!(effect, Effect::Add(_)) {
                changes.retain(|other| !is_same_field(other.name.as_bytes(), name.as_bytes()));
            }
            changes.push(ResponseChange { name: name.to_owned(), effect });
        };
        live.snapshot.settings().hidden_response_fields.iter().for_each(|name| put(name, Effect::Remove));
        if !rules.server_passes {
            let text = rules.server.map(|server| String::from_utf8_lossy(server).into_owned());
            put("Server", text.map_or(Effect::Remove, Effect::Set));
        }
        for edit in ResponseEdits::unconditional(Some(plan), rules).edits() {
            let value = |template: &Template| {
                let mut value = Vec::new();
                let _ = self.append(template, 0, &mut value);
                String::from_utf8_lossy(&value).into_owned()
            };
            let effect = match edit.change() {
                _ if !edit.is_allowed() => continue,
                Change::Set(template) => match value(template) {
                    // Empty values are left out.
                    empty if empty.is_empty() => Effect::Remove,
                    value => Effect::Set(value),
                },
                Change::Add(template) => Effect::Add(value(template)),
                Change::Remove => Effect::Remove,
            };
            put(edit.name().as_str(), effect);
        }
        changes
    }

    fn append(self, template: &Template, status: u16, out: &mut Vec<u8>) -> Result<(), TooLong> {
        self.append_format(&Format::plain(template), status, out)
    }

    /// Appends the value of a format, evaluated with what is known before the response.
    fn append_format(self, format: &Format, status: u16, out: &mut Vec<u8>) -> Result<(), TooLong> {
        let live = &*self.rehearsal.live;
        let forwarding = self.plan.and_then(|plan| match plan.step {
            Step::Forward(forwarding) => live.snapshot.backend(forwarding.backend),
            _ => None,
        });
        let main = self
            .plan
            .and_then(Plan::alternative_of)
            .and_then(|main| live.snapshot.backend(main))
            .filter(|_| forwarding.is_some());
        let record = RequestRecord {
            peer: self.arrival.peer,
            proxied: None,
            local: self.arrival.local,
            tls: None,
            connection: 1,
            connection_requests: 1,
            pipelined: false,
            head: self.head,
            broken_line: b"",
            client: &self.scratch.client,
            identity: self.scratch.identity.as_deref(),
            variables: self.scratch.variables.as_deref(),
            trace: self.scratch.trace.as_deref(),
            geo: live.geo.as_deref(),
            path: &self.scratch.matched,
            judged_path: None,
            grpc_status: None,
            user: b"",
            host: self.plan.and_then(|plan| plan.host),
            route: self.plan.and_then(|plan| plan.route),
            backend: main.or(forwarding).map(|backend| &**backend),
            alternative: forwarding.filter(|_| main.is_some()).map(|backend| &**backend),
            cause: None,
            status,
            body_sent: 0,
            sent: 0,
            received: self.head.map_or(0, |head| head.bytes.len() as u64),
            duration: Duration::ZERO,
            tries: &[],
            upstream_fields: None,
            sent_head: b"",
        };
        format.append(&record, &mut LogClock::default(), live.prepared.request.total, out)
    }
}

/// Templates are evaluated with what is known before the response.
struct OfRequest<'a, 'r>(Rehearsing<'a, 'r>);

impl Expand for OfRequest<'_, '_> {
    fn expand(&mut self, template: &Template, out: &mut Vec<u8>) -> Result<(), TooLong> {
        self.0.append(template, 0, out)
    }
}
