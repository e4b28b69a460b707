//! The response of an endpoint on its way to the client.

use std::future::poll_fn;
use std::time::Duration;

use fairway_model::Forward;
use fairway_model::decision::ResponseEdits;

use super::Exchange;
use super::tries::Attempt;
use crate::error::{Failure, Side};
use crate::http::KnownField;
use crate::message::ResponseContext;
use crate::reason::Reason;
use crate::timer::NEVER;
use crate::upstream::Service;
use crate::work::{ORDINARY, Scratch};

impl Exchange<'_> {
    /// Forwards the response to the client.
    pub(super) async fn respond(
        &mut self,
        forward: &Forward,
        service: &Service,
        attempt: &Attempt,
    ) -> Result<(), Failure> {
        let status = self.endpoint.status();
        let method = self.client.method();
        let fields = self.endpoint.response().parsed.fields();
        if fields.present().contains(KnownField::XAccelRedirect) && service.begins_accel_redirect() {
            service.with_backend(|backend| self.facts.shard.common.remarks.accel_redirect(backend));
        }
        self.endpoint.begin_body(method, self.client.takes_chunks());
        if self.facts.shard.is_leaving() {
            self.client.close();
        }
        self.start_session(forward, service, &attempt.pick);
        self.status = status;
        if status == 101 {
            let tunnelled = self.tunnel().await;
            self.end_try(service, attempt, status, tunnelled.err().map(Failure::reason));
            return tunnelled;
        }
        self.write_response();
        self.cause = (status >= 500).then_some(Reason::Upstream5xx.into());
        self.limits.hold = match self.endpoint.source().body.remaining() {
            Some(left) if left > 0 && left <= ORDINARY as u64 => self.after_gap(Duration::ZERO),
            _ => NEVER,
        };
        let relayed = poll_fn(|cx| self.poll_response_body(cx)).await;
        let reason = relayed.err().map(Failure::reason).or((status >= 500).then_some(Reason::Upstream5xx));
        self.ended = Some(self.end_try(service, attempt, status, reason));
        if let Err(failure) = relayed {
            if failure.side() == Side::Upstream && self.client.take_back() {
                // Not a byte of it was written: the client gets an answer that names the failure.
                self.status = 0;
            }
            return Err(failure);
        }
        if self.client.body_has_ended() && !self.endpoint.has_unsent() {
            self.client.forgo_linger();
            let shard = &self.facts.shard;
            if let Some(up) = self.endpoint.take_reusable(method)
                && !shard.is_draining()
            {
                let limits = &self.live.prepared.pool;
                shard.upstreams.pool.borrow_mut().put(up, shard.timers.now(), limits);
            }
        } else {
            // The endpoint responded before it had the whole request.
            self.skip_body();
        }
        Ok(())
    }

    /// Writes the head of the response with all edits applied.
    pub(super) fn write_response(&mut self) {
        self.evaluate_response();
        let Scratch { cookie, value, response_values, sent_head, .. } = &mut *self.scratch;
        let context = ResponseContext {
            live: self.live,
            clock: &self.facts.shard.clock,
            plan: self.plan.as_ref(),
            session_cookie: cookie,
            values: response_values,
            sent_head,
        };
        self.client.write_response(&self.endpoint, context, value);
    }

    /// Evaluates templates in fields of the response, while the whole request is still available.
    pub(super) fn evaluate_response(&mut self) {
        let mut values = std::mem::take(&mut self.scratch.response_values);
        let rules = &self.live.prepared.fields;
        let edits = ResponseEdits { plan: self.plan.as_ref(), rules, session_cookie: b"" };
        values.fill(&edits, |template, out| self.expand_template(template, out));
        self.scratch.response_values = values;
    }

    /// Drops the received part of the request body.
    pub(super) fn skip_body(&mut self) {
        let unsent = self.endpoint.has_unsent();
        self.endpoint.drop_unsent();
        self.client.skip_body(unsent);
    }
}
