//! Error responses that another service replaces. That service gets a separate request without the client's body, and the client gets its
//! response. If the service fails, the client gets the proxy's own page for the error.

use std::future::poll_fn;
use std::task::{Context, Poll};
use std::time::Duration;

use fairway_model::ErrorResponse;
use fairway_model::decision::{Plan, Step};

use super::Exchange;
use super::authenticate::challenges;
use super::progress::RequestProgress;
use super::tries::Serves;
use crate::error::{CLIENT_CLOSED, Failure, Side};
use crate::http::{BodyForm, FieldsView, Method};
use crate::limit::{DISCARDED_BODY, DISCARDED_BODY_WAIT};
use crate::outgoing::Outgoing;
use crate::pipeline;
use crate::work::RESPONSE;

impl<'a> Exchange<'a> {
    /// Whether the route lets another service replace one of the proxy's own errors.
    pub(super) fn may_replace(&self, status: u16) -> bool {
        self.plan.is_some_and(|plan| plan.may_replace(ErrorResponse { status, of_endpoint: false }))
    }

    /// Asks the service that replaces an error response, and sends its response. Returns `false` if the client must get the proxy's own
    /// page.
    pub(super) async fn replace_error(&mut self, error: ErrorResponse) -> bool {
        let Some(plan) = self.plan_in_place_of(error) else { return false };
        let Step::Forward(forwarding) = plan.step else { return false };
        let (before, service) = (self.plan.replace(plan), self.service.take());
        self.scratch.tried.clear();
        self.client.leave_body(true);
        let answered = self.forward(Serves::ErrorPage, forwarding, None).await;
        self.client.leave_body(false);
        let Err(failure) = answered else { return true };
        tracing::debug!(failure_reason = failure.reason().as_str(), "the service for error pages failed");
        self.endpoint.disconnect();
        if self.status != 0 {
            self.client.cut_response(failure.side() == Side::Downstream);
            return true;
        }
        if failure.status() == CLIENT_CLOSED {
            self.cause = Some(failure.cause());
            self.status = CLIENT_CLOSED;
            self.client.give_up();
            return true;
        }
        (self.plan, self.service) = (before, service);
        false
    }

    /// Whether a service is available to replace the endpoint's response. Keeps the challenges of a 401.
    pub(super) fn intercepts(&mut self, status: u16) -> bool {
        let error = ErrorResponse { status, of_endpoint: true };
        if !self.plan.is_some_and(|plan| plan.may_replace(error)) || self.plan_in_place_of(error).is_none() {
            return false;
        }
        if status == 401 {
            let response = self.endpoint.response();
            let fields = FieldsView { fields: response.parsed.fields(), bytes: response.bytes };
            self.scratch.challenge = challenges(fields).collect();
        }
        true
    }

    /// The plan to replace an error response, if a service is available for that.
    fn plan_in_place_of(&mut self, error: ErrorResponse) -> Option<Plan<'a>> {
        let plan = self.plan.filter(|plan| plan.may_replace(error))?;
        let head = self.client.head()?;
        // gRPC clients don't read error pages.
        if self.client.is_call() || !self.endpoint.can_turn() {
            return None;
        }
        pipeline::replace_error(&self.facts.shard, self.live, head, &plan, error, &mut self.scratch.decision)
    }

    /// Discards the body of a response to a request with `method`, so that its connection can be reused. A body that is too long or doesn't
    /// arrive costs only the connection.
    ///
    /// # Errors
    /// If the client has gone meanwhile.
    pub(super) async fn discard_response(&mut self, method: Method) -> Result<(), Failure> {
        // The wait is too short for the client to notice.
        self.drain_response(method, DISCARDED_BODY_WAIT, |_| {}).await.map(|_| ())
    }

    /// The body of a response that may go to the client in the end. All of it must arrive within the time that the endpoint may be silent.
    /// `None` for a body that is too long or doesn't arrive.
    ///
    /// # Errors
    /// If the client has gone meanwhile.
    pub(super) async fn keep_response(&mut self, method: Method) -> Result<Option<Vec<u8>>, Failure> {
        let mut body = Vec::new();
        let wait = self.allowance.read.min(self.time_left().unwrap_or(Duration::MAX));
        let whole = self.drain_response(method, wait, |data| body.extend_from_slice(data)).await?;
        Ok(whole.then_some(body))
    }

    /// Receives the body of a response, and returns whether it is complete.
    async fn drain_response(
        &mut self,
        method: Method,
        wait: Duration,
        mut take: impl FnMut(&[u8]),
    ) -> Result<bool, Failure> {
        self.endpoint.begin_body(method, BodyForm::Frames);
        self.limits.read = self.after_gap(wait);
        // An announced length that is too long settles it without reading.
        let fits = self.endpoint.source().body.remaining().is_none_or(|length| length <= DISCARDED_BODY);
        let whole = fits && poll_fn(|cx| self.poll_drain(cx, &mut take)).await?;
        let shard = &self.facts.shard;
        let kept = whole && self.request == RequestProgress::Sent && !shard.is_draining();
        if let Some(up) = self.endpoint.take_reusable(method).filter(|_| kept) {
            shard.upstreams.pool.borrow_mut().put(up, shard.timers.now(), &self.live.prepared.pool);
        }
        Ok(whole)
    }

    /// Receives the body. The result says whether its end was reached within the limit for data.
    fn poll_drain(&mut self, cx: &mut Context<'_>, take: &mut impl FnMut(&[u8])) -> Poll<Result<bool, Failure>> {
        loop {
            let source = self.endpoint.source();
            loop {
                match source.take_data(usize::MAX, &mut *take) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(_) => return Poll::Ready(Ok(false)),
                }
            }
            if source.body.data_len() > DISCARDED_BODY {
                return Poll::Ready(Ok(false));
            }
            if source.body.has_ended() {
                return Poll::Ready(Ok(true));
            }
            match self.endpoint.poll_receive(cx, &self.facts.shard.store, RESPONSE) {
                Poll::Ready(Ok(true)) => {}
                // The end of the connection may be the end of the body.
                Poll::Ready(Ok(false)) => {
                    let ended = self.endpoint.source().body.close(&mut Outgoing::default());
                    return Poll::Ready(Ok(ended.is_ok()));
                }
                Poll::Ready(Err(_)) => return Poll::Ready(Ok(false)),
                Poll::Pending => {
                    return self.poll_waiting(cx).map(|failure| match failure.side() {
                        Side::Upstream => Ok(false),
                        _ => Err(failure),
                    });
                }
            }
        }
    }
}
