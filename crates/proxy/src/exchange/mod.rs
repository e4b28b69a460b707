//! One request, from its head to the last byte of its response.
//!
//! An [`Exchange`] owns all that is known about the request and records it exactly once, when it is dropped: after the response,
//! after a failure, when the client went away, or when the task was ended in the middle.

mod attempt;
mod attention;
mod cookie;
mod transfer;
mod tunnel;

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use fairway_model::{Action, Backend, ByteLimit, Host, HostPattern, Route};

use self::attention::Attention;
use crate::client::ClientView;
use crate::connection::Connection;
use crate::error::{CLIENT_CLOSED, Failure, Side};
use crate::http1::{BodyDecoder, ChunkLimits, Event, Method, Version};
use crate::live::Live;
use crate::pipeline::{self, Received, Step};
use crate::reason::{Cause, Reason};
use crate::record::{Message, RequestRecord};
use crate::relay::Body;
use crate::respond::{Answer, PLAIN_ON_TLS, Persistence};
use crate::timer::{Millis, NEVER};
use crate::upstream::Service;
use crate::work::Work;

/// Longest gap between two writes to a client (nginx `send_timeout`, for which ingress-nginx has no setting).
const CLIENT_SEND_TIMEOUT: Duration = Duration::from_secs(60);

/// What becomes of the client's connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum After {
    /// It is read for the next request.
    Keep,
    /// It is closed.
    Close,
    /// It is closed for writing, and read for a while: to close it while the client still sends would make the kernel reset it,
    /// and the client might never see the response.
    Linger,
    /// It is closed with a reset, so that a response that ends with its connection is not taken for complete.
    Reset,
}

/// One request under way.
#[derive(Debug)]
pub(crate) struct Exchange<'a> {
    connection: &'a mut Connection,
    work: &'a mut Work,
    live: &'a Live,
    host: Option<&'a Host>,
    route: Option<&'a Route>,
    service: Option<Rc<Service>>,
    strict_transport_security: bool,
    /// Whether the head was understood.
    parsed: bool,
    pipelined: bool,
    begun: Instant,
    /// When the head was complete.
    dispatched: Instant,
    /// When the last byte of a response was written.
    ended: Option<Instant>,
    /// Length of the head.
    head_len: usize,
    /// The request body on its way to the endpoint.
    body: Body,
    /// Whether the client waits for `100 Continue`.
    expects_continue: bool,
    attention: Attention,
    after: After,
    /// Why the request failed, if it did.
    cause: Option<Cause>,
    /// Whether the request was served to its end, good or bad.
    complete: bool,
    status: u16,
    /// Bytes sent to the client, and how many of them were the head.
    sent: u64,
    sent_head: u64,
    /// Whether any byte of a response (an interim one too) was given to the client's connection.
    answered: bool,
    /// Whether the request asks for another protocol, and may.
    upgrade: bool,
    /// Whether only the end of the connection can tell the client that the response was cut.
    ends_with_connection: bool,
    allowance: Allowance,
    limits: Gaps,
}

/// What the route allows.
#[derive(Clone, Copy, Debug)]
struct Allowance {
    send: Duration,
    read: Duration,
    max_body: ByteLimit,
}

/// The moments at which waiting ends, each of them [`NEVER`] while nobody waits for that.
#[derive(Clone, Copy, Debug)]
struct Gaps {
    /// For the endpoint to take more.
    send: Millis,
    /// For the endpoint to send more.
    read: Millis,
    /// For the client to send more of its body.
    body: Millis,
    /// For the client to take more.
    client: Millis,
    /// For the rest of a response that is held back to be written at once.
    hold: Millis,
}

impl Gaps {
    const NONE: Self = Self { send: NEVER, read: NEVER, body: NEVER, client: NEVER, hold: NEVER };

    fn first(&self) -> Millis {
        self.send.min(self.read).min(self.body).min(self.client).min(self.hold)
    }
}

impl<'a> Exchange<'a> {
    /// A request whose first bytes came at `begun`.
    pub(crate) fn new(
        connection: &'a mut Connection,
        work: &'a mut Work,
        live: &'a Live,
        begun: Instant,
        pipelined: bool,
    ) -> Self {
        work.scratch.tries.clear();
        work.scratch.tried.clear();
        work.scratch.sent_head.clear();
        connection.requests += 1;
        Self {
            connection,
            work,
            live,
            host: None,
            route: None,
            service: None,
            strict_transport_security: false,
            parsed: false,
            pipelined,
            begun,
            dispatched: begun,
            ended: None,
            head_len: 0,
            body: Body::new(crate::http1::Framing::None, true),
            expects_continue: false,
            attention: Attention::new(),
            after: After::Close,
            cause: None,
            complete: false,
            status: 0,
            sent: 0,
            sent_head: 0,
            answered: false,
            upgrade: false,
            ends_with_connection: false,
            allowance: Allowance { send: Duration::MAX, read: Duration::MAX, max_body: ByteLimit::NONE },
            limits: Gaps::NONE,
        }
    }

    /// Serves a request whose head was parsed and is held.
    pub(crate) async fn serve(&mut self, dispatched: Instant) -> After {
        self.parsed = true;
        self.dispatched = dispatched;
        self.head_len = self.work.inbound.held().len();
        let head = &self.work.head;
        self.body = Body::new(head.framing(), true);
        self.expects_continue = head.expects_continue();
        self.after = if self.connection.may_keep(self.live) && head.connection().keep_alive {
            After::Keep
        } else {
            After::Close
        };
        let Work { inbound, head, scratch, .. } = &mut *self.work;
        let worker = self.connection.worker.clone();
        let live = self.live;
        let arrival = &self.connection.arrival;
        let plan = self.connection.listener.with_resource(|listener| {
            let received = Received { head, bytes: inbound.held(), arrival, table: &listener.table };
            pipeline::decide(&worker, live, received, scratch)
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
        self.after
    }

    /// Answers a request whose head was refused or did not come.
    pub(crate) async fn refuse(&mut self, failure: Failure) -> After {
        self.work.scratch.client = ClientView::of_connection(&self.connection.arrival);
        self.after = After::Linger;
        self.fail(failure).await;
        self.complete = true;
        self.after
    }

    /// Ends a request that went wrong, with an answer if none was started.
    async fn fail(&mut self, failure: Failure) {
        let (status, cause) = (failure.status(), failure.cause());
        self.cause = Some(cause);
        let (reason, side) = (cause.reason.as_str(), cause.reason.side().as_str());
        tracing::debug!(reason, side, detail = %cause.detail, downstream.addr = %self.connection.arrival.peer, "request failed");
        if self.status != 0 {
            // The response is cut. A client that cannot tell by its framing is told by a reset.
            let told = failure.side() == Side::Downstream || !self.ends_with_connection;
            self.after = if told { After::Close } else { After::Reset };
            return;
        }
        if status == CLIENT_CLOSED {
            self.status = CLIENT_CLOSED;
            self.after = After::Close;
            return;
        }
        if matches!(
            failure,
            Failure::RequestBody(_) | Failure::BodyTooLarge | Failure::BodyTimeout | Failure::RequestPath
        ) {
            // What follows on the connection is not certain, or not wanted.
            self.after = After::Linger;
        }
        let message = if failure == Failure::PlainOnTls { PLAIN_ON_TLS } else { "" };
        self.answer(status, true, false, message).await;
    }

    /// Sends an answer of our own.
    async fn answer(&mut self, status: u16, page: bool, redirect: bool, message: &str) {
        if !self.skip_body() {
            self.after = After::Linger;
        }
        self.close_behind_last();
        self.status = status;
        let persistence = self.persistence();
        let Work { scratch, to_client, head, .. } = &mut *self.work;
        let answer = Answer {
            status,
            page,
            message,
            location: redirect.then_some(&scratch.value[..]),
            head_only: self.parsed && head.method() == Method::Head,
            strict_transport_security: self.strict_transport_security,
            persistence,
        };
        // What is left of an interim response has to go first.
        to_client.clear_unless_begun();
        let before = to_client.lead.len();
        let clock = &self.connection.worker.clock;
        let body = match answer.write(&mut to_client.lead, &self.live.prepared, clock) {
            Ok(body) => body,
            Err(_) => {
                self.status = 500;
                let plain = Answer { status: 500, page: true, location: None, ..answer };
                plain.write(&mut to_client.lead, &self.live.prepared, clock).unwrap_or_default()
            }
        };
        let head = before..to_client.lead.len() - body;
        self.sent_head = self.sent + (to_client.pending() - body) as u64;
        if self.live.prepared.log_tells_response {
            scratch.sent_head.extend_from_slice(&to_client.lead[head]);
        }
        self.answered = true;
        self.limits = Gaps { client: self.after_gap(CLIENT_SEND_TIMEOUT), ..Gaps::NONE };
        if let Err(failure) = poll_fn(|cx| self.poll_client_output(cx)).await {
            self.cause.get_or_insert(failure.cause());
            self.after = After::Close;
        }
    }

    /// Drops the request body as far as it has come. `true` if that was all of it.
    fn skip_body(&mut self) -> bool {
        if !self.parsed {
            return true;
        }
        let Work { inbound, head, to_upstream, .. } = &mut *self.work;
        if !inbound.rewind() {
            return self.body.has_ended() && to_upstream.is_empty();
        }
        to_upstream.clear();
        let mut decoder = BodyDecoder::new(head.framing(), ChunkLimits::default());
        while !decoder.is_done() {
            match decoder.decode(inbound.filled()) {
                Ok(decoded) if decoded.event != Event::NeedMore => inbound.consume(decoded.consumed),
                _ => return false,
            }
        }
        true
    }

    /// What the client is told about its connection.
    fn persistence(&self) -> Persistence {
        match (self.after, self.work.head.version()) {
            (After::Keep, Version::Http11) => Persistence::Kept,
            (After::Keep, Version::Http10) => Persistence::KeptExplicitly,
            _ => Persistence::Closed,
        }
    }

    /// After the last request of a client there is nothing to keep the connection for.
    fn close_behind_last(&mut self) {
        if self.attention.has_ended() && self.work.inbound.is_empty() && self.after == After::Keep {
            self.after = After::Close;
        }
    }

    fn after_gap(&self, gap: Duration) -> Millis {
        self.connection.worker.timers.after(gap)
    }

    /// Writes what is to be written to the client.
    fn poll_client_output(&mut self, cx: &mut std::task::Context<'_>) -> Poll<Result<(), Failure>> {
        match self.poll_write_client(cx) {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => self.poll_limits().map(Err),
        }
    }

    /// Looks at all that is known by now.
    fn with_record<T>(&self, look: impl FnOnce(&RequestRecord<'_>) -> T) -> T {
        let Work { inbound, head, from_upstream, response, scratch, .. } = &*self.work;
        let with_backend = |backend: Option<&Backend>| {
            look(&RequestRecord {
                peer: self.connection.arrival.peer,
                local: self.connection.arrival.local,
                tls: self.connection.tls_view(),
                connection: self.connection.number,
                connection_requests: self.connection.requests,
                pipelined: self.pipelined,
                head: self.parsed.then(|| Message { parsed: head, bytes: inbound.held() }),
                broken_line: if self.parsed { &[] } else { first_line(inbound.filled()) },
                client: &scratch.client,
                path: &scratch.matched,
                user: &[],
                host: self.host,
                route: self.route,
                backend,
                cause: self.cause,
                status: self.status,
                body_sent: self.sent.saturating_sub(self.sent_head),
                sent: self.sent,
                received: self.head_len as u64 + self.body.data_len(),
                duration: self.ended.unwrap_or_else(Instant::now) - self.begun,
                tries: &scratch.tries,
                upstream_fields: (!from_upstream.held().is_empty())
                    .then(|| Message { parsed: response.fields(), bytes: from_upstream.held() }),
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
        self.with_record(|record| self.connection.worker.observe(self.live, record));
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

fn first_line(bytes: &[u8]) -> &[u8] {
    bytes.split(|&byte| byte == b'\r' || byte == b'\n').next().unwrap_or_default()
}
