//! One request, from its head to the last byte of its response.
//!
//! An [`Exchange`] owns everything known about the request and records it exactly once, when it is dropped: after the response,
//! after a failure, when the client has gone, or when the task is cancelled.
//!
//! System calls evict most of this code from the instruction cache, so the cost of a request depends on how many cache lines it touches.
//! [`cold_path`] marks what few requests do: the compiler moves that code to the end of its function, so the rest lies together.

mod ahead;
mod authenticate;
mod buffered;
mod compressed;
mod cookie;
mod error_page;
mod facts;
mod grpc;
mod mirror;
mod patience;
mod progress;
mod response;
mod retry;
mod side;
mod transfer;
mod tries;
mod tunnel;

use std::future::poll_fn;
use std::hint::cold_path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use fairway_model::decision::{self, Plan, Start, Step};
use fairway_model::{
    Action, Backend, Bandwidth, Body, ByteLimit, Compressing, ErrorResponse, Excess, Filter, GivenField, HostPattern,
    Respond, Route,
};

use self::buffered::BufferedBody;
use self::compressed::CompressedBody;
pub(crate) use self::facts::ConnectionFacts;
use self::patience::Patience;
use self::progress::RequestProgress;
use self::side::{ClientSide, EndpointSide};
pub(crate) use self::side::{Sides, parse_head, write_answer, write_request};
use self::transfer::Gaps;
use self::tries::Serves;
use crate::buffer::Buffer;
use crate::error::{CLIENT_CLOSED, Failure, Side, Uncertified};
use crate::http::{After, Spanned};
use crate::limit::CLIENT_SEND_TIMEOUT;
use crate::live::Live;
use crate::message::ResponseContext;
use crate::pipeline;
use crate::reason::{Cause, Reason};
use crate::record::RequestRecord;
use crate::respond::{Answer, BAD_CERTIFICATE, NO_CERTIFICATE, PLAIN_ON_TLS, WRONG_SUBJECT};
use crate::timer::{Deadline, Millis};
use crate::upstream::Service;
use crate::work::Scratch;
use fairway_model::client::ClientView;

/// One request in progress. It exclusively borrows nothing that another request on the same connection needs.
#[derive(Debug)]
pub(crate) struct Exchange<'a> {
    facts: &'a ConnectionFacts,
    /// The task's only deadline.
    deadline: &'a Deadline,
    client: ClientSide<'a>,
    endpoint: EndpointSide<'a>,
    /// Memory for a compressed body, until a body uses it.
    spare: Option<&'a mut Buffer>,
    /// The body of the response, if it is compressed.
    compressed: Option<CompressedBody<'a>>,
    compressing: Compressing,
    /// Whether text in the body of the response is replaced.
    substituting: bool,
    scratch: &'a mut Scratch,
    live: &'a Live,
    /// The decision about the request; `None` before it is made, or if the request could not be read.
    plan: Option<Plan<'a>>,
    service: Option<Rc<Service>>,
    /// How much of the request the current try has sent.
    request: RequestProgress,
    /// Number of the request on its connection, from 1.
    number: u64,
    pipelined: bool,
    begun: Instant,
    /// When the head was complete, plus the time that the client took to send a body that is read before the request is sent.
    dispatched: Instant,
    /// When the last byte of a response was written.
    ended: Option<Instant>,
    /// Why the request failed, if it did.
    cause: Option<Cause>,
    /// Whether the exchange ended normally, successful or not.
    complete: bool,
    status: u16,
    allowance: Allowance,
    limits: Gaps,
    /// Bounds the wait for the request body.
    patience: Patience,
    /// Bytes held of a body that is read before the request is sent.
    ahead: usize,
    /// The body of the response, if it is read ahead of the client.
    buffered: Option<Box<BufferedBody>>,
    /// How fast the body of the response may be sent; boxed, because few routes limit it.
    pace: Option<Box<Pace>>,
}

/// A limited bandwidth, and when the body began.
#[derive(Debug)]
struct Pace {
    bandwidth: Bandwidth,
    begun: Millis,
}

/// The limits set by the route.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    send: Duration,
    read: Duration,
    max_body: ByteLimit,
    /// Maximum size of a response head in bytes, if not the default.
    max_head: Option<u32>,
    /// Whether `read` bounds the time until a response head is complete, and not only each gap between reads.
    whole_head: bool,
}

impl<'a> Exchange<'a> {
    /// Starts a request whose first bytes arrived at `begun`.
    pub(crate) fn new(
        facts: &'a ConnectionFacts,
        deadline: &'a Deadline,
        sides: Sides<'a>,
        live: &'a Live,
        begun: Instant,
        pipelined: bool,
    ) -> Self {
        let Sides { client, endpoint, compressed, scratch } = sides;
        scratch.tries.clear();
        scratch.tried.clear();
        scratch.sent_head.clear();
        scratch.auth_cookies.clear();
        scratch.challenge.clear();
        Self {
            facts,
            deadline,
            client,
            endpoint,
            spare: Some(compressed),
            compressed: None,
            compressing: Compressing::Never,
            substituting: false,
            scratch,
            live,
            plan: None,
            service: None,
            request: RequestProgress::default(),
            number: facts.next_request(),
            pipelined,
            begun,
            dispatched: begun,
            ended: None,
            cause: None,
            complete: false,
            status: 0,
            allowance: Allowance {
                send: Duration::MAX,
                read: Duration::MAX,
                max_body: ByteLimit::NONE,
                max_head: None,
                whole_head: false,
            },
            limits: Gaps::NONE,
            patience: Patience::default(),
            pace: None,
            ahead: 0,
            buffered: None,
        }
    }

    /// Serves a request whose head has been parsed.
    pub(crate) async fn serve(&mut self, dispatched: Instant) -> After {
        self.dispatched = dispatched;
        self.client.begin(self.facts.may_keep(self.live));
        let (live, scratch) = (self.live, &mut *self.scratch);
        let ConnectionFacts { shard, arrival, asked, chosen, .. } = self.facts;
        let Some(head) = self.client.head() else { return self.client.after() };
        let (plan, service) = self.facts.listener.with_resource(|listener| {
            let (table, asked) = (&listener.table, asked.as_deref());
            let origin = pipeline::Origin { arrival, table, asked, listener: chosen.as_deref() };
            pipeline::decide(shard, live, head, origin, Start::Head, &mut scratch.decision, &mut scratch.open)
        });
        self.plan = Some(plan);
        let step = match plan.step {
            Step::Wait(_) => {
                cold_path();
                match self.recall(plan) {
                    Some((plan, service)) if !matches!(plan.step, Step::Wait(_)) => Ok((plan.step, service)),
                    // Boxed: it is rarely needed and would otherwise take room in every connection.
                    recalled => Box::pin(self.wait(recalled.map_or(plan, |(plan, _)| plan))).await,
                }
            }
            step => Ok((step, service)),
        };
        match step {
            Ok((Step::Forward(forwarding), service)) => {
                match self.forward(Serves::Request, forwarding, service).await {
                    Ok(None) => {}
                    Ok(Some(status)) => {
                        cold_path();
                        let error = ErrorResponse { status, of_endpoint: true };
                        // Boxed here and below: it is rarely needed and would otherwise take room in every connection.
                        if !Box::pin(self.replace_error(error)).await {
                            self.answer(&Respond::page(status), false, "").await;
                        }
                    }
                    Err(failure) => {
                        cold_path();
                        self.fail(failure).await;
                    }
                }
            }
            Ok((Step::Redirect(status), _)) => self.answer(&Respond::page(status), true, "").await,
            Ok((Step::Respond(respond), _)) => self.answer_as_decided(respond).await,
            Ok((Step::Deny, _)) => {
                cold_path();
                let denied = self.scratch.decision.denied.take().unwrap_or_else(|| Box::new(Respond::page(403)));
                Box::pin(self.answer_as_decided(&denied)).await;
            }
            Ok((Step::Fail(decision::Failure::NoEndpoint), _)) => {
                cold_path();
                let backend = self.route().and_then(Route::first_backend);
                let failure =
                    backend.map_or(Failure::NoEndpoint, |backend| Failure::without_endpoint(self.live, backend));
                self.fail(failure).await;
            }
            Ok((Step::Fail(failure), _)) => self.fail(failure.into()).await,
            Ok((Step::Wait(_), _)) => self.fail(Failure::Authentication(None)).await,
            Err(failure) => self.fail(failure).await,
        }
        self.complete = true;
        self.client.after()
    }

    /// Answers a request whose head is refused or has not arrived.
    pub(crate) async fn refuse(&mut self, failure: Failure) -> After {
        self.scratch.decision.client = ClientView::of_connection(&self.facts.arrival);
        self.scratch.decision.identity = None;
        self.scratch.decision.trace = None;
        self.scratch.decision.variables = None;
        self.scratch.decision.given = None;
        self.scratch.decision.denied = None;
        self.scratch.decision.query = None;
        self.fail(failure).await;
        self.complete = true;
        self.client.after()
    }

    /// Ends a failed request, with an answer if no response was started.
    async fn fail(&mut self, failure: Failure) {
        let (status, cause) = (failure.status(), failure.cause());
        self.cause = Some(cause);
        let (failure_reason, failure_side) = (cause.reason.as_str(), cause.reason.side().as_str());
        let (failure_detail, remote_addr) = (cause.detail, self.facts.arrival.peer);
        tracing::debug!(failure_reason, failure_side, %failure_detail, %remote_addr, "request failed");
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
            Failure::RequestBody(_)
                | Failure::BodyTooLarge
                | Failure::BodyTimeout
                | Failure::RequestPath
                // The client needs another connection and must not reuse this one.
                | Failure::Misdirected
        ) {
            self.client.distrust();
        }
        // The input of a client that fails to send its body can't be trusted to end.
        let sends = matches!(failure, Failure::RequestBody(_) | Failure::BodyTimeout);
        let error = ErrorResponse { status, of_endpoint: false };
        if !sends && self.may_replace(status) && Box::pin(self.replace_error(error)).await {
            return;
        }
        let message = match failure {
            Failure::PlainOnTls => PLAIN_ON_TLS,
            Failure::ClientCertificate(Uncertified::Missing) => NO_CERTIFICATE,
            Failure::ClientCertificate(Uncertified::Refused) => BAD_CERTIFICATE,
            Failure::ClientCertificate(Uncertified::Subject) => WRONG_SUBJECT,
            _ => "",
        };
        self.answer(&Respond::page(status), false, message).await;
    }

    /// Sends the answer that the decision calls for.
    async fn answer_as_decided(&mut self, respond: &Respond) {
        self.cause = self.plan.and_then(|plan| refused(&plan, respond.status)).map(Cause::from);
        let error = ErrorResponse { status: respond.status, of_endpoint: false };
        if !(self.may_replace(respond.status) && Box::pin(self.replace_error(error)).await) {
            self.answer(respond, false, "").await;
        }
    }

    /// Sends one of the proxy's own answers.
    async fn answer(&mut self, respond: &Respond, redirect: bool, message: &str) {
        self.skip_body();
        self.status = respond.status;
        self.scratch.cookie.clear();
        self.add_auth_cookies();
        self.evaluate_response();
        let error = (respond.status >= 400).then(|| grpc::status(respond.status, self.cause.map(|cause| cause.reason)));
        let Scratch { decision, cookie, challenge, value, response_values, sent_head, .. } = &mut *self.scratch;
        let answer = Answer {
            status: respond.status,
            body: &respond.body,
            message,
            // A 401 without fields of its own takes its challenge from the service.
            fields: if respond.status == 401 && respond.fields.is_empty() { challenge } else { &respond.fields },
            location: redirect.then_some(&decision.location[..]),
            grpc: error.filter(|_| self.client.is_call()),
        };
        let context = ResponseContext {
            live: self.live,
            clock: &self.facts.shard.clock,
            plan: self.plan.as_ref(),
            cookies: cookie,
            compressing: Compressing::Never,
            status: respond.status,
            substituting: false,
            values: response_values,
            added: &[],
            given: given_by(self.plan.as_ref(), decision),
            sent_head,
        };
        let written = self.client.write_answer(answer, context, value);
        // Log and metrics show the status of the error even if the client gets it as `grpc-status`.
        self.status = if answer.grpc.is_some() { respond.status } else { written };
        self.limits = Gaps { client: self.after_gap(CLIENT_SEND_TIMEOUT), ..Gaps::NONE };
        if let Err(failure) = poll_fn(|cx| self.poll_client_output(cx)).await {
            self.cause.get_or_insert(failure.cause());
            self.client.give_up();
        }
    }

    /// The chosen route.
    fn route(&self) -> Option<&'a Route> {
        self.plan.and_then(|plan| plan.route)
    }

    /// Calls `look` with everything known so far.
    fn with_record<T>(&self, look: impl FnOnce(&RequestRecord<'_>) -> T) -> T {
        let scratch = &*self.scratch;
        let response = self.endpoint.response();
        let with_backends = |backend: Option<&Backend>, alternative: Option<&Backend>| {
            look(&RequestRecord {
                peer: self.facts.peer(),
                proxied: self.facts.proxied(),
                local: self.facts.arrival.local,
                tls: self.client.tls_view(),
                connection: self.facts.number,
                connection_requests: self.number,
                pipelined: self.pipelined,
                head: self.client.head(),
                broken_line: self.client.broken_line(),
                client: &scratch.decision.client,
                identity: scratch.decision.identity.as_deref(),
                variables: scratch.decision.variables.as_deref(),
                trace: scratch.decision.trace.as_deref(),
                geo: self.live.geo.as_deref(),
                path: &scratch.decision.matched,
                judged_path: None,
                user: &[],
                host: self.plan.and_then(|plan| plan.host),
                route: self.route(),
                backend,
                alternative,
                cause: self.cause,
                status: self.status,
                body_sent: self.client.body_sent(),
                sent: self.client.sent(),
                received: self.client.received(),
                duration: self.ended.unwrap_or_else(Instant::now) - self.begun,
                tries: &scratch.tries,
                upstream_fields: (!response.bytes.is_empty())
                    .then(|| Spanned { parsed: response.parsed.fields(), bytes: response.bytes }),
                sent_head: &scratch.sent_head,
                grpc_status: self.client.grpc_status(),
            })
        };
        let plan = self.plan.as_ref();
        // Metrics and log attribute a replaced error to the backend that caused it.
        let service = self.service.as_ref().filter(|_| plan.is_none_or(|plan| plan.replaces_error().is_none()));
        match (service, plan.and_then(Plan::alternative_of)) {
            (Some(service), None) => service.with_backend(|backend| with_backends(Some(backend), None)),
            (Some(service), Some(main)) => service.with_backend(|alternative| {
                with_backends(self.live.snapshot.backend(main).map(|main| &**main), Some(alternative))
            }),
            // The proxy itself answered: the log names the backend that would have been used.
            (None, _) => with_backends(
                self.route().and_then(|route| match &route.action {
                    Action::Forward(forward) => {
                        let first = forward.backends.names().next()?;
                        self.live.snapshot.backend(first).map(|backend| &**backend)
                    }
                    Action::Redirect(_) | Action::Respond(_) => None,
                }),
                None,
            ),
        }
    }
}

impl Drop for Exchange<'_> {
    fn drop(&mut self) {
        self.release_ahead();
        self.release_buffered();
        if self.status == 0 {
            cold_path();
            self.status = CLIENT_CLOSED;
        }
        if !self.complete {
            cold_path();
            self.cause.get_or_insert(Reason::Shutdown.into());
        }
        self.with_record(|record| self.facts.shard.observe(self.live, record));
        self.scratch.open = None;
    }
}

/// Response fields from the service that has allowed the request.
fn given_by<'s>(plan: Option<&Plan<'_>>, decision: &'s decision::Scratch) -> &'s [GivenField] {
    let allowed = plan.is_some_and(|plan| plan.allowed_by().is_some());
    decision.given.as_ref().filter(|_| allowed).map_or(&[], |given| &given.response)
}

/// The reason why one of the proxy's own answers counts as an error; `None` if the route asks for that answer.
pub(crate) fn refused(plan: &Plan<'_>, status: u16) -> Option<Reason> {
    match (plan.host, plan.route, status) {
        (_, _, ..400) => None,
        _ if matches!(plan.ended_by(), Some(Filter::ExternalAuth(_) | Filter::BasicAuth(_))) => {
            Some(Reason::Unauthenticated)
        }
        _ if plan.excess().is_some() => Some(match plan.excess() {
            Some(Excess::Requests) => Reason::ConnectionLimit,
            _ => Reason::RateLimit,
        }),
        (None, _, _) => Some(Reason::NoHost),
        (_, None, _) => Some(Reason::NoRoute),
        (_, Some(_), 403) => Some(Reason::AccessDenied),
        // The default backend, which answers unknown hosts and paths, has no endpoint or is not configured.
        (Some(host), Some(route), 404) if *host.pattern() == HostPattern::Any && plan.unmatched_host().is_none() => {
            Some(if route.origin.is_built_in() { Reason::NoHost } else { Reason::NoRoute })
        }
        (_, Some(_), 404) => Some(Reason::NoRoute),
        (_, Some(_), 503) => Some(Reason::Misconfigured),
        // A rule of the Gateway API that can't be carried out or has no valid backend.
        (_, Some(Route { action: Action::Respond(Respond { body: Body::Page, .. }), .. }), 500)
            if plan.ended_by().is_none() =>
        {
            Some(Reason::Misconfigured)
        }
        (_, Some(_), _) => None,
    }
}
