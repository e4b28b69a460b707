//! Sends a request to a backend: chooses an endpoint, and tries again.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::{Duration, Instant};

use fairway_model::decision::{self, Expand, Forwarding};
use fairway_model::{Backend, Forward, Template, TooLong};

use super::grpc;
use super::side::Connected;
use super::transfer::Gaps;
use super::{Allowance, Exchange};
use crate::access_log::Format;
use crate::balance::{Ask, Pick, TryOutcome, cookie};
use crate::error::{Errno, Failure, Side};
use crate::http::{BodyForm, Framing};
use crate::http2::{self, NewConnection, StreamChoice, StreamPlace};
use crate::limit::TRIES;
use crate::message::UpstreamRequest;
use crate::reason::{Cause, Reason};
use crate::record::Try;
use crate::shard::connect::{self, ConnectError};
use crate::stream::Upstream;
use crate::timer::NEVER;
use crate::upstream::{Service, Target, UpstreamConnection, UpstreamVersion, Way};

/// A try in progress.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) pick: Pick,
    begun: Instant,
    /// Whether the connection came from the pool.
    pub(super) kept: bool,
    connect: Option<Duration>,
    header: Option<Duration>,
}

impl Attempt {
    pub(super) fn new(pick: Pick, begun: Instant) -> Self {
        Self { pick, begun, kept: false, connect: None, header: None }
    }

    /// When it began.
    pub(super) fn begun(&self) -> Instant {
        self.begun
    }
}

/// The source of values for templates: the request of an exchange.
struct OfExchange<'e, 'a>(&'e Exchange<'a>);

impl Expand for OfExchange<'_, '_> {
    fn expand(&mut self, template: &Template, out: &mut Vec<u8>) -> Result<(), TooLong> {
        self.0.expand_template(template, out)
    }
}

impl Exchange<'_> {
    /// Sends the request to a backend and the response to the client, unless that is an error to be replaced, whose status is returned.
    /// `known` is a service that was looked up for the decision, most
    /// likely the one needed.
    ///
    /// # Errors
    /// If no endpoint responded, or a response was started but not finished.
    pub(super) async fn forward(
        &mut self,
        forwarding: Forwarding<'_>,
        known: Option<Rc<Service>>,
    ) -> Result<Option<u16>, Failure> {
        let forward = forwarding.rule;
        let policy = &*forward.policy;
        self.allowance = Allowance {
            send: policy.send_timeout,
            read: policy.read_timeout,
            max_body: policy.max_body,
            max_head: policy.max_response_head,
        };
        let shard = &self.facts.shard;
        let known = known.filter(|service| service.with_backend(|backend| backend.name == *forwarding.backend));
        let find = || shard.upstreams.service(self.live, forwarding.backend, &shard.rng);
        let service = known.or_else(find).ok_or(Failure::NoService)?;
        if self.plan.is_some_and(|plan| plan.alternative_of().is_some()) {
            self.adopt_affinity(&service);
        }
        service.budget.note_request(shard.timers.now());
        self.service = Some(service.clone());
        let way = |backend: &Backend| (UpstreamVersion::of(&forwarding, backend), forwarding.tls(backend));
        let (version, tls) = service.with_backend(way);
        let way = shard.upstreams.ways.find(self.live, version, tls).map_err(Failure::InvalidTls)?;
        if version == UpstreamVersion::Http2
            && let Some(memory) = self.http2.take()
        {
            let time = self.client.head().filter(|head| grpc::is_call(*head)).and_then(grpc::timeout);
            self.endpoint.speak_http2(memory, &shard.store, time.map_or(NEVER, |time| shard.timers.after(time)));
            self.client.set_form(BodyForm::Frames);
        }
        if !self.bodiless && self.reads_ahead(policy.request_buffering) {
            // Boxed: it is rarely needed and would otherwise take room in every connection.
            Box::pin(self.read_ahead()).await?;
            service.refresh(&shard.running());
        }
        let mut tries = 0;
        // Set when an idle connection turned out to be closed: its endpoint gets the request again, on a new connection.
        let mut again = None;
        // The failure of the last try: the client's answer if the endpoints are gone when the next one is chosen.
        let mut last = None;
        loop {
            let fresh = again.is_some();
            let pick = match again.take() {
                Some(pick) => pick,
                None => {
                    if tries > 0 {
                        // The endpoints may have changed by now, which is most likely why the try failed.
                        service.refresh(&shard.running());
                    }
                    tries += 1;
                    self.pick(&service).ok_or_else(|| last.unwrap_or_else(|| self.no_endpoint(&forwarding)))?
                }
            };
            let begun = if tries == 1 && !fresh { self.dispatched } else { Instant::now() };
            let mut attempt = Attempt::new(pick, begun);
            let failure = match self.attempt(&forwarding, &service, &way, &mut attempt, fresh).await {
                Ok(()) => {
                    let status = self.endpoint.status();
                    if self.retries_status(&policy.retry, tries, status) {
                        let reason = (status >= 500).then_some(Reason::Upstream5xx);
                        self.end_try(&service, &attempt, status, reason);
                        continue;
                    }
                    if self.intercepts(status) {
                        let discarded = Box::pin(self.discard_response(self.client.method())).await;
                        let reason = (status >= 500).then_some(Reason::Upstream5xx);
                        self.end_try(&service, &attempt, status, reason);
                        self.cause = reason.map(Cause::from);
                        return discarded.map(|()| Some(status));
                    }
                    return self.respond(forward, &service, &attempt).await.map(|()| None);
                }
                Err(failure) => failure,
            };
            if failure.is_timeout() {
                self.endpoint.suspect();
            }
            self.endpoint.disconnect();
            if failure == Failure::NoFile {
                // No endpoint was tried.
                return Err(failure);
            }
            if self.was_stale(&policy.retry, &attempt, failure) {
                again = Some(attempt.pick);
                continue;
            }
            self.end_try(&service, &attempt, failure.status(), Some(failure.reason()));
            if !self.retries_failure(&policy.retry, tries, failure) {
                return Err(failure);
            }
            last = Some(failure);
        }
    }

    /// Lets the alternative of a canary tie clients to its endpoints as the main backend does.
    fn adopt_affinity(&self, service: &Service) {
        let choice = self.plan.and_then(|plan| plan.canary()).filter(|choice| choice.canary.sticky);
        let main = choice.and_then(|choice| self.live.snapshot.backend(&choice.canary.main));
        if let Some(affinity) = main.and_then(|main| main.affinity.as_ref()) {
            service.adopt(affinity, self.live);
        }
    }

    fn no_endpoint(&self, forwarding: &Forwarding<'_>) -> Failure {
        decision::Failure::without_endpoint(&self.live.snapshot, forwarding.backend).into()
    }

    fn pick(&mut self, service: &Service) -> Option<Pick> {
        let mut key = std::mem::take(&mut self.scratch.value);
        key.clear();
        if let Some(format) = &service.hash_key() {
            // A key that would be too long is cut: equal requests still have equal keys.
            let _ = self.expand(format, &mut key);
        }
        let head = self.client.head();
        let pick = service.pick(|name| Ask {
            session: name
                .zip(head)
                .and_then(|(name, head)| cookie::find(head.parsed.fields(), head.bytes, name.as_bytes())),
            hash_key: &key,
            tried: &self.scratch.tried,
            ejected: &[],
            now: self.dispatched,
        });
        self.scratch.value = key;
        pick
    }

    /// One try, up to the head of the response.
    pub(super) async fn attempt(
        &mut self,
        forwarding: &Forwarding<'_>,
        service: &Service,
        way: &Way,
        attempt: &mut Attempt,
        fresh: bool,
    ) -> Result<(), Failure> {
        let shard = &self.facts.shard;
        self.begin_try();
        let target = Target { address: attempt.pick.endpoint, way: way.number() };
        let connected = match way.version() {
            UpstreamVersion::Http1 => {
                let certain = !self.is_idempotent();
                let kept = if fresh { None } else { shard.upstreams.take(&target, certain) };
                Connected::Http1(match kept {
                    Some(up) => {
                        self.note_kept(attempt);
                        up
                    }
                    None => {
                        let stream = self.connect(forwarding.rule, service, way, target.address).await;
                        let stream = self.count_connect(stream)?;
                        attempt.connect = Some(attempt.begun.elapsed());
                        UpstreamConnection { stream, target, opened: shard.timers.now(), requests: 0 }
                    }
                })
            }
            // Boxed: it would otherwise take room in every connection of HTTP/1.
            UpstreamVersion::Http2 => {
                Connected::Http2(Box::pin(self.place(forwarding, service, way, attempt, target, fresh)).await?)
            }
        };
        self.endpoint.connect(connected);
        self.write_request(service, forwarding)?;
        poll_fn(|cx| self.poll_response_head(cx)).await?;
        attempt.header = Some(attempt.begun.elapsed());
        let switches = self.endpoint.status() == 101;
        if self.asks.is_none() && self.client.would_switch_at(self.endpoint.status()) {
            return Err(Failure::Upgrade);
        }
        // Only the client's own request asks for another protocol.
        if switches
            && (self.bodiless || !(self.endpoint.has_sent_all() && self.endpoint.agrees_to_switch(&self.client)))
        {
            return Err(Failure::Upgrade);
        }
        Ok(())
    }

    fn note_kept(&self, attempt: &mut Attempt) {
        attempt.kept = true;
        self.facts.shard.metrics.borrow_mut().upstream.reused += 1;
        attempt.connect = Some(Duration::ZERO);
    }

    fn count_connect(&self, connected: Result<Upstream, Failure>) -> Result<Upstream, Failure> {
        let counts = &mut self.facts.shard.metrics.borrow_mut().upstream;
        let asked = |failure: &Failure| *failure != Failure::NoFile;
        let connected = connected.inspect_err(|failure| counts.failed += u64::from(asked(failure)))?;
        counts.connected += 1;
        Ok(connected)
    }

    /// A place on a connection of HTTP/2, which exists or is made.
    async fn place(
        &mut self,
        forwarding: &Forwarding<'_>,
        service: &Service,
        way: &Way,
        attempt: &mut Attempt,
        target: Target,
        fresh: bool,
    ) -> Result<StreamPlace, Failure> {
        let (facts, limits) = (self.facts, self.live.prepared.pool);
        let (shard, timeout) = (&facts.shard, forwarding.rule.policy.connect_timeout);
        let end = shard.timers.after(timeout);
        let mut waited = false;
        loop {
            let opening = match shard.http2.place(&target, shard.timers.now(), fresh, &limits) {
                StreamChoice::Stream(place) => {
                    if waited {
                        attempt.connect = Some(attempt.begun.elapsed());
                    } else {
                        self.note_kept(attempt);
                    }
                    return Ok(place);
                }
                StreamChoice::Wait(opening) => opening,
                StreamChoice::Open(duty) => {
                    let opening = duty.wait();
                    let stream = self.connect(forwarding.rule, service, way, target.address).await;
                    match self.count_connect(stream) {
                        Ok(stream) => {
                            let new = NewConnection { target, stream, timeout, limits };
                            http2::start(new, duty, shard.timers.clone(), shard.blocks.clone());
                        }
                        // Others who wait are not to blame for a client that leaves.
                        Err(failure) if failure.side() == Side::Downstream || failure == Failure::Shutdown => {
                            return Err(failure);
                        }
                        Err(failure) => {
                            duty.fail(failure);
                            return Err(failure);
                        }
                    }
                    opening
                }
            };
            waited = true;
            let (deadline, client) = (self.deadline, &mut self.client);
            deadline.set(end);
            let made = poll_fn(|cx| match opening.poll(cx) {
                Poll::Ready(Err(Some(failure))) => Poll::Ready(Err(failure)),
                Poll::Ready(Ok(connection)) => Poll::Ready(Ok(Some(connection))),
                Poll::Ready(Err(None)) => Poll::Ready(Ok(None)),
                Poll::Pending if shard.is_stopping() => Poll::Ready(Err(Failure::Shutdown)),
                Poll::Pending if shard.timers.now() >= end => Poll::Ready(Err(Failure::ConnectTimeout)),
                Poll::Pending => client.poll_gone(cx, &shard.timers).map(Err),
            })
            .await?;
            if let Some(place) = made.and_then(|connection| shard.http2.take(&connection, shard.timers.now())) {
                attempt.connect = Some(attempt.begun.elapsed());
                return Ok(place);
            }
            if shard.timers.now() >= end {
                return Err(Failure::ConnectTimeout);
            }
        }
    }

    /// Makes a new connection, while the client waits for it.
    async fn connect(
        &mut self,
        forward: &Forward,
        service: &Service,
        way: &Way,
        endpoint: SocketAddr,
    ) -> Result<Upstream, Failure> {
        let (shard, deadline, client) = (&self.facts.shard, self.deadline, &mut self.client);
        // Boxed: it is rarely needed and would otherwise take room in every connection.
        let timeout = forward.policy.connect_timeout;
        let mut opening = Box::pin(connect::open_way(shard, deadline, service, way, endpoint, timeout));
        let opened = poll_fn(|cx| match opening.as_mut().poll(cx) {
            Poll::Ready(opened) => Poll::Ready(Ok(opened)),
            Poll::Pending if shard.is_stopping() => Poll::Ready(Err(Failure::Shutdown)),
            Poll::Pending => client.poll_gone(cx, &shard.timers).map(Err),
        });
        opened.await?.map_err(|error| match error {
            ConnectError::Refused(error) => Failure::Connect(Errno::from(&error)),
            ConnectError::Gone => Failure::EndpointGone,
            ConnectError::TimedOut => Failure::ConnectTimeout,
            ConnectError::Handshake => Failure::Handshake,
            ConnectError::NoFile => Failure::NoFile,
        })
    }

    /// Returns everything to its state before the first byte was sent.
    fn begin_try(&mut self) {
        if !self.bodiless {
            self.client.rewind();
        }
        self.endpoint.begin();
        self.limits = Gaps::NONE;
    }

    fn write_request(&mut self, service: &Service, forwarding: &Forwarding<'_>) -> Result<(), Failure> {
        let Some(head) = self.client.head() else { return Err(Failure::Unwritable) };
        let mut out = self.endpoint.take_output();
        let mut value = std::mem::take(&mut self.scratch.value);
        let decision = &self.scratch.decision;
        self.endpoint.prepare_family(&decision.client, &self.facts.family);
        let Some(plan) = &self.plan else { return Err(Failure::Unwritable) };
        let mut target = Vec::new();
        if let Some(auth) = self.asks {
            self.expand_template(&auth.target, &mut target)?;
        }
        let written = service.with_backend(|backend| {
            let request = UpstreamRequest::new(self.live, head, plan, forwarding, backend, decision);
            let request = match self.asks {
                Some(auth) => request.asking(auth, &target),
                None if request.framing == Framing::Chunked => {
                    UpstreamRequest { measured: self.client.measured(), ..request }
                }
                None => request,
            };
            self.endpoint.write_request(&request, &self.facts.family, &mut out, &mut value, &mut OfExchange(self))
        });
        self.scratch.value = value;
        match written {
            Ok(written) => {
                self.endpoint.set_request(out, written);
                Ok(())
            }
            Err(failure) => {
                self.endpoint.set_request(out, None);
                Err(failure)
            }
        }
    }

    /// Appends the expansion of a template for this request.
    pub(super) fn expand_template(&self, template: &Template, out: &mut Vec<u8>) -> Result<(), TooLong> {
        self.expand(&self.facts.shard.format(template), out)
    }

    /// The same for a compiled template.
    fn expand(&self, format: &Format, out: &mut Vec<u8>) -> Result<(), TooLong> {
        let limit = self.live.prepared.request.total;
        self.with_record(|record| format.append(record, &mut self.facts.shard.log_clock.borrow_mut(), limit, out))
    }

    /// Records how a try ended.
    pub(super) fn end_try(
        &mut self,
        service: &Service,
        attempt: &Attempt,
        status: u16,
        reason: Option<Reason>,
    ) -> Instant {
        let now = Instant::now();
        let response = now - attempt.begun;
        let outcome = match reason {
            _ if attempt.header.is_some() => TryOutcome::Answered(response),
            Some(reason) if reason.side() != Side::Upstream => TryOutcome::Abandoned,
            _ => TryOutcome::Failed,
        };
        if service.done(&attempt.pick, outcome, now) {
            self.facts.shard.metrics.borrow_mut().upstream.ejected += 1;
        }
        let scratch = &mut *self.scratch;
        if scratch.tries.len() < TRIES as usize {
            scratch.tried.push(attempt.pick.endpoint);
            scratch.tries.push(Try {
                endpoint: attempt.pick.endpoint,
                status,
                reason,
                connect: attempt.connect,
                header: attempt.header,
                response,
                body_received: self.endpoint.body_received(),
                received: self.endpoint.received(),
                sent: self.endpoint.sent(),
            });
        }
        now
    }
}
