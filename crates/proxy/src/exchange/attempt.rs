//! Sending a request to a backend: the choice of an endpoint, the tries, and the response.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::task::Poll;
use std::time::{Duration, Instant};

use fairway_model::{Forward, Retry, RetryOn};
use tokio::net::TcpStream;

use super::transfer::Sending;
use super::{After, Allowance, Exchange, Gaps};
use crate::access_log::Format;
use crate::balance::{Ask, Outcome, Pick};
use crate::connection::Connection;
use crate::error::{Errno, Failure, Side};
use crate::http1::{Framing, KnownField, Method, Upgrade, Version};
use crate::message::{ClientResponse, UpstreamRequest};
use crate::reason::Reason;
use crate::record::Try;
use crate::relay::Body;
use crate::timer::NEVER;
use crate::upstream::connect::{self, ConnectError};
use crate::upstream::{self, Service};
use crate::work::{ORDINARY, Work};

/// Tries of a request whose policy sets no limit: enough to get past any rollout, and an end if nothing answers.
const MOST_TRIES: u32 = 32;

/// A try under way.
#[derive(Debug)]
struct Attempt {
    pick: Pick,
    begun: Instant,
    /// Whether the connection was taken from the pool.
    kept: bool,
    connect: Option<Duration>,
    header: Option<Duration>,
    sending: Sending,
}

impl Attempt {
    fn new(pick: Pick, begun: Instant) -> Self {
        Self { pick, begun, kept: false, connect: None, header: None, sending: Sending::new() }
    }
}

impl Exchange<'_> {
    /// Sends the request to a backend and the response to the client.
    ///
    /// # Errors
    /// If there is no response from any endpoint, or the one that was begun could not be finished.
    pub(super) async fn forward(&mut self, forward: &Forward) -> Result<(), Failure> {
        let policy = &*forward.policy;
        self.allowance = Allowance { send: policy.send_timeout, read: policy.read_timeout, max_body: policy.max_body };
        if let Framing::Length(length) = self.work.head.framing()
            && !policy.max_body.admits(length)
        {
            return Err(Failure::BodyTooLarge);
        }
        let worker = self.connection.worker.clone();
        let service = worker.upstreams.choose(self.live, forward, &worker.rng).ok_or(Failure::NoService)?;
        self.service = Some(service.clone());
        self.upgrade = self.work.head.connection().upgrade == Upgrade::Protocol;
        let mut tries = 0;
        // Set when a kept connection turned out to be closed: its endpoint gets the request again, on a new one.
        let mut again = None;
        // What the client is told if the endpoints are gone when the next one is chosen.
        let mut last = Failure::NoEndpoint;
        loop {
            let fresh = again.is_some();
            let pick = match again.take() {
                Some(pick) => pick,
                None => {
                    if tries > 0 {
                        // The endpoints may be others by now: most likely that is why it failed.
                        service.refresh(&worker.running());
                    }
                    tries += 1;
                    self.pick(&service).ok_or(last)?
                }
            };
            let begun = if tries == 1 && !fresh { self.dispatched } else { Instant::now() };
            let mut attempt = Attempt::new(pick, begun);
            let failure = match self.attempt(forward, &service, &mut attempt, fresh).await {
                Ok(up) => {
                    let status = self.work.response.status();
                    if policy.retry.on.statuses.contains(&status) && self.may_retry(&policy.retry, &attempt, tries) {
                        let reason = (status >= 500).then_some(Reason::Upstream5xx);
                        self.end_try(&service, &attempt, status, reason);
                        continue;
                    }
                    return self.respond(forward, &service, attempt, up).await;
                }
                Err(failure) => failure,
            };
            if failure == Failure::NoFile {
                // Nobody was asked.
                return Err(failure);
            }
            // Nothing came back on a kept connection: most likely the endpoint had closed it before.
            let stale = attempt.kept && failure.is_closed() && attempt.sending.received == 0;
            if stale && self.may_send_again(&policy.retry, &attempt) {
                again = Some(attempt.pick);
                continue;
            }
            self.end_try(&service, &attempt, failure.status(), Some(failure.reason()));
            let retry = failure.side() == Side::Upstream
                && covers(&policy.retry.on, failure)
                && self.may_retry(&policy.retry, &attempt, tries);
            if !retry {
                return Err(failure);
            }
            last = failure;
        }
    }

    fn pick(&mut self, service: &Service) -> Option<Pick> {
        let mut key = std::mem::take(&mut self.work.scratch.value);
        key.clear();
        if let Some(format) = &service.hash_key() {
            self.expand(format, &mut key);
        }
        let Work { inbound, head, scratch, .. } = &*self.work;
        let pick = service.pick(|cookie| Ask {
            session: cookie
                .and_then(|name| crate::balance::cookie::find(head.fields(), inbound.held(), name.as_bytes())),
            hash_key: &key,
            tried: &scratch.tried,
            now: self.dispatched,
        });
        self.work.scratch.value = key;
        pick
    }

    /// One try, up to the head of the response, which is held then.
    async fn attempt(
        &mut self,
        forward: &Forward,
        service: &Service,
        attempt: &mut Attempt,
        fresh: bool,
    ) -> Result<upstream::Connection, Failure> {
        let worker = self.connection.worker.clone();
        self.begin_try();
        let endpoint = attempt.pick.endpoint;
        let certain = !self.is_idempotent();
        let kept = if fresh { None } else { worker.upstreams.take(endpoint, certain) };
        let mut up = match kept {
            Some(up) => {
                attempt.kept = true;
                worker.metrics.borrow_mut().upstream.reused += 1;
                attempt.connect = Some(Duration::ZERO);
                up
            }
            None => {
                let connected = self.connect(forward, service, endpoint).await;
                let counts = &mut worker.metrics.borrow_mut().upstream;
                let asked = |failure: &Failure| *failure != Failure::NoFile;
                let stream = connected.inspect_err(|failure| counts.failed += u64::from(asked(failure)))?;
                counts.connected += 1;
                attempt.connect = Some(attempt.begun.elapsed());
                upstream::Connection { stream, endpoint, opened: worker.timers.now(), requests: 0 }
            }
        };
        up.requests += 1;
        self.write_request(service, forward)?;
        poll_fn(|cx| self.poll_response_head(cx, &mut up, &mut attempt.sending)).await?;
        attempt.header = Some(attempt.begun.elapsed());
        if self.work.response.status() == 101 && !(attempt.sending.is_complete() && self.agrees_to_switch()) {
            return Err(Failure::Upgrade);
        }
        Ok(up)
    }

    /// A new connection, for as long as the client waits for it.
    async fn connect(
        &mut self,
        forward: &Forward,
        service: &Service,
        endpoint: SocketAddr,
    ) -> Result<TcpStream, Failure> {
        let Connection { worker, deadline, stream, .. } = &mut *self.connection;
        let (attention, body, inbound) = (&mut self.attention, &self.body, &mut self.work.inbound);
        // In a box: it is rarely needed, and would be room in every connection.
        let mut opening = Box::pin(connect::open(worker, deadline, service, endpoint, forward.policy.connect_timeout));
        let opened = poll_fn(|cx| match opening.as_mut().poll(cx) {
            Poll::Ready(opened) => Poll::Ready(Ok(opened)),
            Poll::Pending if worker.is_stopping() => Poll::Ready(Err(Failure::Shutdown)),
            Poll::Pending => attention.poll_gone(cx, body, inbound, stream, &worker.timers).map(Err),
        });
        opened.await?.map_err(|error| match error {
            ConnectError::Refused(error) => Failure::Connect(Errno::from(&error)),
            ConnectError::Gone => Failure::EndpointGone,
            ConnectError::TimedOut => Failure::ConnectTimeout,
            ConnectError::NoFile => Failure::NoFile,
        })
    }

    /// Brings everything back to where it was before the first byte was sent.
    fn begin_try(&mut self) {
        let Work { inbound, head, from_upstream, response, to_upstream, .. } = &mut *self.work;
        let rewound = inbound.rewind();
        debug_assert!(rewound, "a try begins with the whole request");
        from_upstream.clear();
        response.clear();
        to_upstream.clear();
        self.body = Body::new(head.framing(), true);
        self.limits = Gaps::NONE;
    }

    fn write_request(&mut self, service: &Service, forward: &Forward) -> Result<(), Failure> {
        let mut out = std::mem::take(&mut self.work.to_upstream.lead);
        let mut value = std::mem::take(&mut self.work.scratch.value);
        if self.connection.family.is_none() {
            self.connection.family = self.work.scratch.client.of_every_request();
        }
        let upstream_host = forward.policy.upstream_host.as_ref();
        let with_variables = upstream_host.filter(|template| template.literal().is_none());
        let host_format = with_variables.map(|template| self.connection.worker.format(template));
        let written = service.with_backend(|backend| {
            let request = UpstreamRequest {
                head: &self.work.head,
                bytes: self.work.inbound.held(),
                scratch: &self.work.scratch,
                live: self.live,
                upstream_host,
                host_format: host_format.as_deref(),
                family: self.connection.family.as_ref(),
                backend,
                in_place_of: self
                    .route
                    .filter(|_| backend.name != forward.backend)
                    .map(|route| (route, self.live.snapshot.backend(&forward.backend).map(|backend| &**backend))),
                upgrade: self.asked_protocols(),
                close: self.live.prepared.pool.connections == 0,
            };
            request.write(&mut out, &mut value, |format, value| self.expand(format, value))
        });
        self.work.to_upstream.lead = out;
        self.work.scratch.value = value;
        written
    }

    /// Appends what a template makes of this request.
    fn expand(&self, format: &Format, out: &mut Vec<u8>) {
        self.with_record(|record| format.append(record, &mut self.connection.worker.log_clock.borrow_mut(), out));
    }

    /// Whether a method may be sent twice without being asked to (nginx `ngx_http_upstream_test_next`).
    fn is_idempotent(&self) -> bool {
        let head = &self.work.head;
        match head.method() {
            Method::Post | Method::Patch => false,
            Method::Other => head.method_bytes(self.work.inbound.held()) != b"LOCK",
            _ => true,
        }
    }

    /// Whether the same request may go out once more, as far as the request itself is concerned.
    fn may_send_again(&self, retry: &Retry, attempt: &Attempt) -> bool {
        let safe = attempt.sending.sent == 0 || self.is_idempotent() || retry.on.non_idempotent;
        safe && !self.answered && self.work.inbound.can_rewind()
    }

    /// Whether the policy leaves room for another try.
    fn may_retry(&self, retry: &Retry, attempt: &Attempt, tries: u32) -> bool {
        tries < retry.tries.unwrap_or(MOST_TRIES).min(MOST_TRIES)
            && retry.within.is_none_or(|within| self.dispatched.elapsed() < within)
            && self.may_send_again(retry, attempt)
    }

    /// Notes how a try ended.
    fn end_try(&mut self, service: &Service, attempt: &Attempt, status: u16, reason: Option<Reason>) -> Instant {
        let now = Instant::now();
        let response = now - attempt.begun;
        let head = self.work.from_upstream.held().len() as u64;
        let failed = attempt.header.is_none();
        let outcome = if failed { Outcome::Failed } else { Outcome::Answered(response) };
        service.done(&attempt.pick, outcome, now);
        let scratch = &mut self.work.scratch;
        if scratch.tries.len() < MOST_TRIES as usize {
            scratch.tried.push(attempt.pick.endpoint);
            scratch.tries.push(Try {
                endpoint: attempt.pick.endpoint,
                status,
                reason,
                connect: attempt.connect,
                header: attempt.header,
                response,
                body_received: attempt.sending.received.saturating_sub(head),
                received: attempt.sending.received,
                sent: attempt.sending.sent,
            });
        }
        now
    }

    /// Passes the response on to the client.
    async fn respond(
        &mut self,
        forward: &Forward,
        service: &Service,
        mut attempt: Attempt,
        mut up: upstream::Connection,
    ) -> Result<(), Failure> {
        let status = self.work.response.status();
        if status == 101 {
            self.start_session(forward, service, &attempt.pick);
            let tunnelled = self.tunnel(&mut up, &mut attempt.sending).await;
            self.end_try(service, &attempt, status, tunnelled.err().map(Failure::reason));
            return tunnelled;
        }
        if self.upgrade {
            // The client may have sent bytes of the other protocol already.
            self.after = After::Close;
        }
        let method = self.work.head.method();
        let version = self.work.head.version();
        let framing = self.work.response.framing(method);
        let mut body = Body::new(framing, version == Version::Http11);
        let announced = body.announced(framing);
        if !self.body.has_ended() {
            // The client still sends, and it is not certain that all of it will be read.
            self.keep_no_longer(After::Linger);
        }
        if announced == Framing::UntilClose {
            self.keep_no_longer(After::Close);
        }
        if self.connection.worker.is_leaving() {
            self.keep_no_longer(After::Close);
        }
        self.close_behind_last();
        self.start_session(forward, service, &attempt.pick);
        let ahead = self.work.to_client.lead.len();
        let before = self.sent + self.work.to_client.pending() as u64;
        self.write_response(announced, announced == framing && status != 204);
        self.status = status;
        self.cause = (status >= 500).then_some(Reason::Upstream5xx.into());
        self.answered = true;
        self.limits.hold = match body.remaining() {
            Some(left) if left > 0 && left <= ORDINARY as u64 => self.after_gap(Duration::ZERO),
            _ => NEVER,
        };
        let relayed = poll_fn(|cx| self.poll_response_body(cx, &mut up, &mut attempt.sending, &mut body)).await;
        let reason = relayed.err().map(Failure::reason).or((status >= 500).then_some(Reason::Upstream5xx));
        self.ended = Some(self.end_try(service, &attempt, status, reason));
        self.ends_with_connection = announced == Framing::UntilClose;
        if let Err(failure) = relayed {
            if self.sent <= before && failure.side() == Side::Upstream {
                // Not a byte of it was written: the client gets an answer that says what happened.
                self.work.to_client.cut(ahead);
                self.status = 0;
            }
            return Err(failure);
        }
        if self.body.has_ended() && self.work.to_upstream.is_empty() {
            if self.after == After::Linger {
                self.after = After::Close;
            }
            let reusable = self.work.response.allows_reuse(method)
                && !attempt.sending.broken
                && self.work.from_upstream.is_empty();
            let worker = &self.connection.worker;
            if reusable && !worker.is_draining() {
                let limits = &self.live.prepared.pool;
                worker.upstreams.pool.borrow_mut().put(up, worker.timers.now(), limits);
            }
        } else if !self.skip_body() {
            // The endpoint answered before it had the whole request.
            self.after = After::Linger;
        }
        Ok(())
    }

    fn keep_no_longer(&mut self, after: After) {
        if self.after == After::Keep || after == After::Linger {
            self.after = after;
        }
    }

    /// Writes the head of the response, with all edits.
    pub(super) fn write_response(&mut self, framing: Framing, framing_kept: bool) {
        let persistence = self.persistence();
        let Work { from_upstream, response, to_client, scratch, .. } = &mut *self.work;
        let before = to_client.lead.len();
        ClientResponse {
            head: response,
            bytes: from_upstream.held(),
            live: self.live,
            framing,
            framing_kept,
            strict_transport_security: self.strict_transport_security,
            session_cookie: &scratch.cookie,
            persistence,
            switched_to: (response.status() == 101)
                .then(|| response.fields().get(KnownField::Upgrade, from_upstream.held()))
                .flatten(),
        }
        .write(&mut to_client.lead, &self.connection.worker.clock);
        self.sent_head = self.sent + to_client.pending() as u64;
        if self.live.prepared.log_tells_response {
            scratch.sent_head.extend_from_slice(&to_client.lead[before..]);
        }
    }
}

/// Whether a failure is among the conditions for another try. A failure to connect always is, unless there are none.
fn covers(on: &RetryOn, failure: Failure) -> bool {
    if failure.is_connect() && *on != RetryOn::default() {
        return true;
    }
    match failure {
        Failure::ResponseHead(_) | Failure::InterimResponses | Failure::Upgrade => on.invalid_header,
        failure if failure.is_timeout() => on.timeout,
        _ => on.error,
    }
}
