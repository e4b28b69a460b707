//! One request, from its head to the last byte of its response.
//!
//! An [`Exchange`] owns all that is known about the request and records it exactly once, when it is dropped: after the response,
//! after a failure, when the client went away, or when the task was ended in the middle.

mod cookie;
mod patience;
mod response;
mod retry;
mod side;
mod transfer;
mod tries;
mod tunnel;

use std::future::poll_fn;
use std::rc::Rc;
use std::time::{Duration, Instant};

use fairway_model::{Action, Backend, ByteLimit, Host, HostPattern, Route};

use self::patience::Patience;
pub(crate) use self::side::Sides;
use self::side::{After, ClientSide, EndpointSide};
use self::transfer::Gaps;
use crate::client::ClientView;
use crate::connection::ConnectionFacts;
use crate::error::{CLIENT_CLOSED, Failure, Side};
use crate::limit::CLIENT_SEND_TIMEOUT;
use crate::live::Live;
use crate::pipeline::{self, Received, Step};
use crate::reason::{Cause, Reason};
use crate::record::{Message, RequestRecord};
use crate::respond::{Answer, PLAIN_ON_TLS, Persistence};
use crate::timer::Deadline;
use crate::upstream::Service;
use crate::work::Scratch;

/// One request under way. It borrows nothing that another request of the same connection needs, but for what never changes.
#[derive(Debug)]
pub(crate) struct Exchange<'a> {
    facts: &'a ConnectionFacts,
    /// The one deadline of the task.
    deadline: &'a Deadline,
    client: ClientSide<'a>,
    endpoint: EndpointSide<'a>,
    scratch: &'a mut Scratch,
    live: &'a Live,
    host: Option<&'a Host>,
    route: Option<&'a Route>,
    service: Option<Rc<Service>>,
    strict_transport_security: bool,
    /// Number of the request on its connection, from 1.
    number: u64,
    pipelined: bool,
    begun: Instant,
    /// When the head was complete.
    dispatched: Instant,
    /// When the last byte of a response was written.
    ended: Option<Instant>,
    /// Why the request failed, if it did.
    cause: Option<Cause>,
    /// Whether the request was served to its end, good or bad.
    complete: bool,
    status: u16,
    allowance: Allowance,
    limits: Gaps,
    /// For the body of the request.
    patience: Patience,
}

/// What the route allows.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    send: Duration,
    read: Duration,
    max_body: ByteLimit,
}

impl<'a> Exchange<'a> {
    /// A request whose first bytes came at `begun`.
    pub(crate) fn new(
        facts: &'a ConnectionFacts,
        deadline: &'a Deadline,
        sides: Sides<'a>,
        live: &'a Live,
        begun: Instant,
        pipelined: bool,
    ) -> Self {
        let Sides { client, endpoint, scratch } = sides;
        scratch.tries.clear();
        scratch.tried.clear();
        scratch.sent_head.clear();
        Self {
            facts,
            deadline,
            client,
            endpoint,
            scratch,
            live,
            host: None,
            route: None,
            service: None,
            strict_transport_security: false,
            number: facts.next_request(),
            pipelined,
            begun,
            dispatched: begun,
            ended: None,
            cause: None,
            complete: false,
            status: 0,
            allowance: Allowance { send: Duration::MAX, read: Duration::MAX, max_body: ByteLimit::NONE },
            limits: Gaps::NONE,
            patience: Patience::default(),
        }
    }

    /// Serves a request whose head was parsed and is held.
    pub(crate) async fn serve(&mut self, dispatched: Instant) -> After {
        self.dispatched = dispatched;
        self.client.begin(self.facts.may_keep(self.live));
        let (live, scratch) = (self.live, &mut *self.scratch);
        let ConnectionFacts { worker, arrival, .. } = self.facts;
        let Some(head) = self.client.head() else { return self.client.after() };
        let plan = self.facts.listener.with_resource(|listener| {
            let received = Received { head: head.parsed, bytes: head.bytes, arrival, table: &listener.table };
            pipeline::decide(worker, live, received, scratch)
        });
        self.host = plan.host;
        self.route = plan.route;
        self.strict_transport_security = plan.strict_transport_security;
        match plan.step {
            Step::Forward(forward) => {
                if let Err(failure) = self.forward(forward).await {
                    self.fail(failure).await;
                }
            }
            Step::Redirect(status) => self.answer(status, true, true, "").await,
            Step::Respond(status, page) => {
                self.cause = refused(self.host, self.route, status).map(Cause::from);
                self.answer(status, page, false, "").await;
            }
            Step::Fail(failure) => self.fail(failure).await,
        }
        self.complete = true;
        self.client.after()
    }

    /// Answers a request whose head was refused or did not come.
    pub(crate) async fn refuse(&mut self, failure: Failure) -> After {
        self.scratch.client = ClientView::of_connection(&self.facts.arrival);
        self.fail(failure).await;
        self.complete = true;
        self.client.after()
    }

    /// Ends a request that went wrong, with an answer if none was started.
    async fn fail(&mut self, failure: Failure) {
        let (status, cause) = (failure.status(), failure.cause());
        self.cause = Some(cause);
        let (reason, side) = (cause.reason.as_str(), cause.reason.side().as_str());
        tracing::debug!(reason, side, detail = %cause.detail, downstream.addr = %self.facts.arrival.peer, "request failed");
        self.endpoint.disconnect();
        if self.status != 0 {
            self.client.cut_response(failure.side() == Side::Downstream);
            return;
        }
        if status == CLIENT_CLOSED {
            self.status = CLIENT_CLOSED;
            self.client.give_up();
            return;
        }
        if matches!(
            failure,
            Failure::RequestBody(_) | Failure::BodyTooLarge | Failure::BodyTimeout | Failure::RequestPath
        ) {
            self.client.distrust();
        }
        let message = if failure == Failure::PlainOnTls { PLAIN_ON_TLS } else { "" };
        self.answer(status, true, false, message).await;
    }

    /// Sends an answer of our own.
    async fn answer(&mut self, status: u16, page: bool, redirect: bool, message: &str) {
        self.skip_body();
        let Scratch { value, sent_head, .. } = &mut *self.scratch;
        let answer = Answer {
            status,
            page,
            message,
            location: redirect.then_some(&value[..]),
            head_only: false,
            strict_transport_security: self.strict_transport_security,
            persistence: Persistence::Closed,
        };
        let clock = &self.facts.worker.clock;
        self.status = self.client.write_answer(answer, &self.live.prepared, clock, sent_head);
        self.limits = Gaps { client: self.after_gap(CLIENT_SEND_TIMEOUT), ..Gaps::NONE };
        if let Err(failure) = poll_fn(|cx| self.poll_client_output(cx)).await {
            self.cause.get_or_insert(failure.cause());
            self.client.give_up();
        }
    }

    /// Looks at all that is known by now.
    fn with_record<T>(&self, look: impl FnOnce(&RequestRecord<'_>) -> T) -> T {
        let scratch = &*self.scratch;
        let response = self.endpoint.response();
        let with_backend = |backend: Option<&Backend>| {
            look(&RequestRecord {
                peer: self.facts.arrival.peer,
                local: self.facts.arrival.local,
                tls: self.client.tls_view(),
                connection: self.facts.number,
                connection_requests: self.number,
                pipelined: self.pipelined,
                head: self.client.head(),
                broken_line: self.client.broken_line(),
                client: &scratch.client,
                path: &scratch.matched,
                user: &[],
                host: self.host,
                route: self.route,
                backend,
                cause: self.cause,
                status: self.status,
                body_sent: self.client.body_sent(),
                sent: self.client.sent(),
                received: self.client.received(),
                duration: self.ended.unwrap_or_else(Instant::now) - self.begun,
                tries: &scratch.tries,
                upstream_fields: (!response.bytes.is_empty())
                    .then(|| Message { parsed: response.parsed.fields(), bytes: response.bytes }),
                sent_head: &scratch.sent_head,
            })
        };
        match &self.service {
            Some(service) => service.with_backend(|backend| with_backend(Some(backend))),
            // Answered here: the log names the backend that would have been asked.
            None => with_backend(self.route.and_then(|route| match &route.action {
                Action::Forward(forward) => self.live.snapshot.backend(&forward.backend).map(|backend| &**backend),
                Action::Redirect(_) | Action::Respond(_) => None,
            })),
        }
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        if self.status == 0 {
            self.status = CLIENT_CLOSED;
        }
        if !self.complete {
            self.cause.get_or_insert(Reason::Shutdown.into());
        }
        self.with_record(|record| self.facts.worker.observe(self.live, record));
    }
}

/// Why an answer of the proxy's own is an error, unless the route asks for just that.
fn refused(host: Option<&Host>, route: Option<&Route>, status: u16) -> Option<Reason> {
    match (host, route, status) {
        (_, _, ..400) => None,
        (None, _, _) => Some(Reason::NoHost),
        (_, None, _) => Some(Reason::NoRoute),
        (_, Some(_), 403) => Some(Reason::AccessDenied),
        // The default backend, which answers unknown hosts and paths, has no endpoint or is not configured.
        (Some(host), Some(_), 404) if *host.pattern() == HostPattern::Any => Some(Reason::NoHost),
        (_, Some(_), 404) => Some(Reason::NoRoute),
        (_, Some(_), 503) => Some(Reason::Misconfigured),
        (_, Some(_), _) => None,
    }
}
