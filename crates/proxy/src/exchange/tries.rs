//! Sends a request to a backend: chooses an endpoint, and tries again. [`reach`](super::reach) makes the connections.

use std::future::poll_fn;
use std::hint::cold_path;
use std::rc::Rc;
use std::time::{Duration, Instant};

use fairway_model::decision::{Expand, Forwarding};
use fairway_model::{AuthProtocol, ExternalAuth, Forward, Template, TooLong, append_within};

use super::grpc;
use super::mirror::MirrorSet;
use super::progress::RequestProgress;
use super::retry::AfterTry;
use super::transfer::Gaps;
use super::{Allowance, Exchange};
use crate::access_log::Format;
use crate::balance::{Ask, InProgress, Pick, TryOutcome, cookie, rule};
use crate::error::{Failure, Side};
use crate::http::{BodyForm, Framing};
use crate::limit::TRIES;
use crate::message::UpstreamRequest;
use crate::reason::{Cause, Reason};
use crate::record::{RequestRecord, Try};
use crate::timer::NEVER;
use crate::upstream::{Service, Target, Way};

/// A try in progress.
#[derive(Debug)]
pub(super) struct Attempt {
    pub(super) pick: Pick,
    begun: Instant,
    /// Whether the connection existed before.
    pub(super) kept: bool,
    connect: Option<Duration>,
    header: Option<Duration>,
    /// Counts it at its endpoint.
    _counted: Option<InProgress>,
}

impl Attempt {
    pub(super) fn new(service: &Service, pick: Pick, begun: Instant) -> Self {
        Self { pick, begun, kept: false, connect: None, header: None, _counted: service.begin(&pick) }
    }

    /// Notes that it uses a connection which existed before.
    pub(super) fn note_kept(&mut self) {
        self.kept = true;
        self.connect = Some(Duration::ZERO);
    }

    /// Notes that the answer has begun.
    pub(super) fn note_answered(&mut self) {
        self.header = Some(self.begun.elapsed());
    }

    /// Notes that its connection is made.
    pub(super) fn note_connected(&mut self) {
        self.connect = Some(self.begun.elapsed());
    }
}

/// What a try serves.
#[derive(Clone, Copy, Debug)]
pub(super) enum Serves<'a> {
    /// The client's request.
    Request,
    /// A question to an authentication service, with the body that it gets: nothing of the answer is for the client.
    Authentication(&'a ExternalAuth, &'a [u8]),
    /// A request to the service that replaces an error response.
    ErrorPage,
}

impl Serves<'_> {
    /// Whether the endpoint gets a request of the proxy's own about the client's: without its body, unless it is part of what is written,
    /// and without the wish for another protocol.
    pub(super) fn is_bodiless(self) -> bool {
        !matches!(self, Self::Request)
    }
}

/// The source of values for templates: the request of an exchange.
pub(super) struct OfExchange<'e, 'a>(pub(super) &'e Exchange<'a>, pub(super) Serves<'e>);

impl Expand for OfExchange<'_, '_> {
    fn expand(&mut self, template: &Template, out: &mut Vec<u8>) -> Result<(), TooLong> {
        self.0.expand_template(self.1, template, out)
    }
}

impl Exchange<'_> {
    /// Sends the request to a backend and the response to the client, unless that is an error to be replaced, whose status is returned.
    /// `known` is a service that was looked up for the decision, most likely the one needed.
    ///
    /// # Errors
    /// If no endpoint responded, or a response was started but not finished.
    pub(super) async fn forward(
        &mut self,
        serves: Serves<'_>,
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
            whole_head: policy.whole_head,
        };
        let shard = &self.facts.shard;
        let known = known.filter(|service| service.with_backend(|backend| backend.name == *forwarding.backend));
        let find = || shard.upstreams.service(self.live, forwarding.backend, &shard.rng);
        let service = known.or_else(find).ok_or(Failure::NoService)?;
        if self.plan.is_some_and(|plan| plan.alternative_of().is_some()) {
            cold_path();
            self.adopt_affinity(&service);
        }
        service.budget.note_request(shard.timers.now());
        self.service = Some(service.clone());
        let way = shard.upstreams.ways.for_request(self.live, &forwarding, &service).map_err(Failure::InvalidTls)?;
        if self.endpoint.follow(&way, &shard.store) {
            cold_path();
            let time = self.client.head().filter(|_| self.client.is_call()).and_then(grpc::timeout);
            self.endpoint.set_until(time.map_or(NEVER, |time| shard.timers.after(time)));
            self.client.set_form(BodyForm::Frames);
        }
        let copies = if serves.is_bodiless() { MirrorSet::NONE } else { self.choose_copies() };
        let buffering = self.buffering_for(copies, policy.request_buffering);
        let mut dispatched = Some(self.dispatched);
        if self.reads_ahead(serves, buffering) {
            cold_path();
            // Boxed: it is rarely needed and would otherwise take room in every connection.
            Box::pin(self.read_ahead()).await?;
            service.refresh(&shard.running());
            // Times of tries include nothing that came before.
            dispatched = None;
        }
        self.send(copies);
        let mut tries = 0;
        // Set when an idle connection turned out to be closed: its endpoint gets the request again, on a new connection.
        let mut again = None;
        // The failure of the last try: the client's answer if the endpoints are gone when the next one is chosen.
        let mut last = None;
        loop {
            let fresh = again.is_some();
            let pick = match again.take() {
                Some(pick) => {
                    cold_path();
                    pick
                }
                None => {
                    if tries > 0 {
                        cold_path();
                        // The endpoints may have changed by now, which is most likely why the try failed.
                        service.refresh(&shard.running());
                    }
                    tries += 1;
                    match self.pick(&service, forward) {
                        Some(pick) => pick,
                        None => {
                            cold_path();
                            return Err(last.unwrap_or_else(|| self.no_endpoint(&forwarding)));
                        }
                    }
                }
            };
            let begun = dispatched.take().unwrap_or_else(Instant::now);
            let mut attempt = Attempt::new(&service, pick, begun);
            if let Some(whole) = policy.response_within {
                cold_path();
                let left = whole.saturating_sub(self.dispatched.elapsed());
                (self.allowance.read, self.allowance.send) =
                    (policy.read_timeout.min(left), policy.send_timeout.min(left));
            }
            let failure = match self.attempt(serves, &forwarding, &service, &way, &mut attempt, fresh).await {
                Ok(()) => {
                    (self.allowance.read, self.allowance.send) = (policy.read_timeout, policy.send_timeout);
                    let status = self.endpoint.status();
                    let next = self.after_status(serves, &policy.retry, tries, status);
                    if next != AfterTry::Ends {
                        cold_path();
                        let reason = (status >= 500).then_some(Reason::Upstream5xx);
                        self.end_try(serves, &service, &attempt, status, reason);
                        if next == AfterTry::Again {
                            continue;
                        }
                        self.endpoint.disconnect();
                        return Err(Failure::NoRetryLeft);
                    }
                    if self.intercepts(status) {
                        cold_path();
                        let discarded = Box::pin(self.discard_response(self.client.method())).await;
                        let reason = (status >= 500).then_some(Reason::Upstream5xx);
                        self.end_try(serves, &service, &attempt, status, reason);
                        self.cause = reason.map(Cause::from);
                        return discarded.map(|()| Some(status));
                    }
                    return self.respond(serves, forward, &service, &attempt).await.map(|()| None);
                }
                Err(failure) => {
                    cold_path();
                    failure
                }
            };
            if failure.is_timeout() {
                self.endpoint.suspect();
            }
            self.endpoint.disconnect();
            if failure == Failure::NoFile {
                // No endpoint was tried.
                return Err(failure);
            }
            // Looked up now: an endpoint that leaves closes its connections.
            let left = service.has_lost(&shard.running(), attempt.pick.endpoint);
            if self.was_stale(serves, &policy.retry, &attempt, failure) {
                last = Some(failure);
                match left {
                    true => tries -= 1,
                    false => again = Some(attempt.pick),
                }
                continue;
            }
            self.end_try(serves, &service, &attempt, failure.status(), Some(failure.reason()));
            // A try that reached nobody at an endpoint that has left says nothing of those that are there, and does not count.
            tries -= u32::from(left && failure.is_connect());
            match self.after_failure(serves, &policy.retry, tries, failure) {
                AfterTry::Again => last = Some(failure),
                AfterTry::Ends => return Err(failure),
                AfterTry::Refused => return Err(Failure::NoRetryLeft),
            }
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
        Failure::without_endpoint(self.live, forwarding.backend)
    }

    fn pick(&mut self, service: &Service, forward: &Forward) -> Option<Pick> {
        let mut key = std::mem::take(&mut self.scratch.value);
        key.clear();
        if let Some(format) = &service.hash_key() {
            cold_path();
            // A key that would be too long is cut: equal requests still have equal keys.
            let _ = self.expand(Serves::Request, format, &mut key);
        }
        let head = self.client.head();
        let ask = |session| Ask {
            session,
            hash_key: &key,
            tried: &self.scratch.tried,
            ejected: &[],
            unhealthy: &[],
            now: self.dispatched,
        };
        let pick = match &forward.policy.session {
            Some(session) => {
                cold_path();
                service
                    .pick_in_rule(ask(head.and_then(|head| rule::carried(session, head.parsed.fields(), head.bytes))))
            }
            None => service.pick(|name| {
                ask(name
                    .zip(head)
                    .and_then(|(name, head)| cookie::find(head.parsed.fields(), head.bytes, name.as_bytes())))
            }),
        };
        self.scratch.value = key;
        pick
    }

    /// One try, up to the head of the response.
    pub(super) async fn attempt(
        &mut self,
        serves: Serves<'_>,
        forwarding: &Forwarding<'_>,
        service: &Service,
        way: &Way,
        attempt: &mut Attempt,
        fresh: bool,
    ) -> Result<(), Failure> {
        self.begin_try(serves);
        let target = Target { address: attempt.pick.endpoint, way: way.number() };
        let poolable = !fresh && way.is_exclusive();
        let idle = if poolable { self.take_idle(&target, attempt) } else { None };
        let connected = match idle {
            Some(connected) => connected,
            // Boxed: it is rarely needed and would otherwise take room in every connection.
            None => {
                cold_path();
                Box::pin(self.reach(forwarding, service, way, attempt, target, fresh)).await?
            }
        };
        self.endpoint.connect(connected);
        self.write_request(serves, service, forwarding)?;
        poll_fn(|cx| self.poll_response_head(cx, serves)).await?;
        attempt.note_answered();
        let status = self.endpoint.status();
        let refused = match serves {
            Serves::Request => self.client.would_switch_at(status) || (status == 101 && !self.may_switch()),
            Serves::ErrorPage => self.client.would_switch_at(status) || status == 101,
            Serves::Authentication(..) => status == 101,
        };
        if refused { Err(Failure::Upgrade) } else { Ok(()) }
    }

    /// Whether a 101 answers the whole request, and agrees to a protocol that it asks for.
    fn may_switch(&self) -> bool {
        self.request == RequestProgress::Sent && self.endpoint.agrees_to_switch(&self.client)
    }

    /// Returns everything to its state before the first byte was sent.
    fn begin_try(&mut self, serves: Serves<'_>) {
        if !serves.is_bodiless() {
            self.client.rewind();
        }
        self.endpoint.begin();
        self.request = RequestProgress::Sending;
        self.limits = Gaps::NONE;
    }

    fn write_request(
        &mut self,
        serves: Serves<'_>,
        service: &Service,
        forwarding: &Forwarding<'_>,
    ) -> Result<(), Failure> {
        let Some(head) = self.client.head() else { return Err(Failure::Unwritable) };
        let mut out = self.endpoint.take_output();
        let mut value = std::mem::take(&mut self.scratch.value);
        let decision = &self.scratch.decision;
        self.endpoint.prepare_family(&decision.client, &self.facts.family);
        let Some(plan) = &self.plan else { return Err(Failure::Unwritable) };
        let mut target = std::mem::take(&mut self.scratch.asked);
        target.clear();
        if let Serves::Authentication(auth, _) = serves {
            cold_path();
            match &auth.protocol {
                AuthProtocol::Subrequest(asks) => self.expand_template(serves, &asks.target, &mut target)?,
                AuthProtocol::Http(asks) => {
                    target.extend_from_slice(asks.path.as_bytes());
                    decision.append_target(head.parsed.view(head.bytes).query(), &mut target);
                }
                // It is called, see `authenticate`.
                AuthProtocol::Grpc(_) => return Err(Failure::Unwritable),
            }
        }
        let written = service.with_backend(|backend| {
            let mut request = UpstreamRequest::new(self.live, head, plan, forwarding, backend, decision);
            match serves {
                Serves::Authentication(auth, body) => request.turn_to(auth, &target, body.len() as u64),
                Serves::Request | Serves::ErrorPage if request.framing == Framing::Chunked => {
                    request.measured = self.client.measured();
                }
                Serves::Request | Serves::ErrorPage => {}
            }
            let mut expand = OfExchange(self, serves);
            self.endpoint.write_request(&request, &self.facts.family, &mut out, &mut value, &mut expand)
        });
        (self.scratch.value, self.scratch.asked) = (value, target);
        match written {
            Ok(written) => {
                if let Serves::Authentication(_, body) = serves {
                    out.extend_from_slice(body);
                }
                self.endpoint.set_request(out, written);
                Ok(())
            }
            Err(failure) => {
                cold_path();
                self.endpoint.set_request(out, None);
                Err(failure)
            }
        }
    }

    /// Appends the expansion of a template for this request.
    pub(super) fn expand_template(
        &self,
        serves: Serves<'_>,
        template: &Template,
        out: &mut Vec<u8>,
    ) -> Result<(), TooLong> {
        // Most say the same for every request, so that nothing known about this one has to be gathered.
        match template.literal() {
            Some(text) => {
                append_within(out, text.as_bytes(), out.len().saturating_add(self.live.prepared.request.total))
            }
            None => self.expand(serves, &self.facts.shard.format(template), out),
        }
    }

    /// The same for a compiled template.
    fn expand(&self, serves: Serves<'_>, format: &Format, out: &mut Vec<u8>) -> Result<(), TooLong> {
        let limit = self.live.prepared.request.total;
        let clock = &mut *self.facts.shard.log_clock.borrow_mut();
        self.with_record(|record| match serves {
            Serves::Request | Serves::ErrorPage => format.append(record, clock, limit, out),
            Serves::Authentication(..) => {
                let judged_path = Some(&*self.scratch.decision.target);
                format.append(&RequestRecord { judged_path, ..*record }, clock, limit, out)
            }
        })
    }

    /// Records how a try ended.
    pub(super) fn end_try(
        &mut self,
        serves: Serves<'_>,
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
        if scratch.tried.len() < TRIES as usize {
            scratch.tried.push(attempt.pick.endpoint);
        }
        // The log tells of the response that the client gets.
        if !matches!(serves, Serves::Authentication(..)) && scratch.tries.len() < TRIES as usize {
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
