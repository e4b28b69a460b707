//! The response of an endpoint on its way to the client.

use std::future::poll_fn;
use std::hint::cold_path;
use std::time::Duration;

use fairway_model::decision::ResponseEdits;
use fairway_model::{Compressing, Fields, Forward, Substitution, Uncompressed};

use super::compressed::CompressedBody;
use super::progress::RequestProgress;
use super::tries::{Attempt, Serves};
use super::{Exchange, Pace, given_by};
use crate::encode::Encoder;
use crate::error::{Failure, Side};
use crate::http::{BodyForm, FieldsView, Framing, KnownField, Method};
use crate::message::ResponseContext;
use crate::reason::Reason;
use crate::substitute::Substituter;
use crate::timer::NEVER;
use crate::upstream::Service;
use crate::work::{ORDINARY, Scratch};

impl Exchange<'_> {
    /// Forwards the response to the client.
    pub(super) async fn respond(
        &mut self,
        serves: Serves<'_>,
        forward: &Forward,
        service: &Service,
        attempt: &Attempt,
    ) -> Result<(), Failure> {
        let status = self.endpoint.status();
        let method = self.client.method();
        let fields = self.endpoint.response().parsed.fields();
        if fields.present().contains(KnownField::XAccelRedirect) && service.begins_accel_redirect() {
            cold_path();
            service.with_backend(|backend| self.facts.shard.common.remarks.accel_redirect(backend));
        }
        self.compressing = self.compressing(method);
        // A body to be compressed is decoded first.
        let form = if self.compressed.is_some() { BodyForm::Frames } else { self.client.body_form() };
        self.endpoint.begin_body(method, form);
        self.begin_buffering(forward);
        if self.facts.shard.is_leaving() {
            cold_path();
            self.client.close();
        }
        self.start_session(forward, service, &attempt.pick);
        self.status = self.client.status_for(status);
        self.add_auth_cookies();
        if status == 101 {
            cold_path();
            // Boxed: it would otherwise take room in every request in progress.
            let tunnelled = Box::pin(self.tunnel()).await;
            self.end_try(serves, service, attempt, status, tunnelled.err().map(Failure::reason));
            return tunnelled;
        }
        self.write_response();
        let begun = self.facts.shard.timers.now();
        self.pace = forward.policy.bandwidth.map(|bandwidth| Box::new(Pace { bandwidth, begun }));
        // If the response replaces an error, that error remains the cause.
        if self.plan.is_none_or(|plan| plan.replaces_error().is_none()) {
            self.cause = (status >= 500).then_some(Reason::Upstream5xx.into());
        }
        self.limits.hold = match self.endpoint.source().body.remaining() {
            _ if self.compressed.is_some() => NEVER,
            Some(left) if left > 0 && left <= ORDINARY as u64 => self.after_gap(Duration::ZERO),
            _ => NEVER,
        };
        let relayed = poll_fn(|cx| self.poll_response_body(cx, serves)).await;
        let reason = relayed.err().map(Failure::reason).or((status >= 500).then_some(Reason::Upstream5xx));
        self.ended = Some(self.end_try(serves, service, attempt, status, reason));
        if let Err(failure) = relayed {
            cold_path();
            if failure.side() == Side::Upstream && self.client.take_back() {
                // No byte of it has been written, so the client gets an answer that names the failure.
                self.status = 0;
            }
            return Err(failure);
        }
        if self.client.body_has_ended() && !self.endpoint.has_unsent() {
            self.client.forgo_linger();
            let shard = &self.facts.shard;
            let kept = self.request == RequestProgress::Sent && !shard.is_draining() && !forward.policy.close;
            if let Some(up) = self.endpoint.take_reusable(method).filter(|_| kept) {
                shard.upstreams.pool.borrow_mut().put(up, shard.timers.now(), &self.live.prepared.pool);
            }
        } else {
            cold_path();
            // The endpoint responded before it had the whole request.
            self.skip_body();
        }
        Ok(())
    }

    /// Decides whether the response is compressed and whether text in it is replaced, and prepares both.
    fn compressing(&mut self, method: Method) -> Compressing {
        let rules = &self.live.snapshot.settings().compression;
        let edits = self.plan.and_then(|plan| plan.snippet());
        let off = rules.is_off() || edits.is_some_and(|edits| edits.uncompressed);
        if off && edits.is_none_or(|edits| edits.substitution.is_none()) {
            return Compressing::Never;
        }
        let Some(request) = self.client.head() else { return Compressing::Never };
        let response = self.endpoint.response();
        let framing = response.parsed.framing(method);
        if framing.is_empty() {
            return Compressing::Never;
        }
        let length = if let Framing::Length(length) = framing { Some(length) } else { None };
        let fields = FieldsView { fields: response.parsed.fields(), bytes: response.bytes };
        let request = FieldsView { fields: request.parsed.fields(), bytes: request.bytes };
        let status = response.parsed.status();
        let compressing =
            if off { Compressing::Never } else { rules.of(request, Uncompressed { status, fields, length }) };
        let substitution = edits.and_then(|edits| edits.substitution.as_deref()).filter(|found| {
            // An encoded body is not searched; partial content and protocol switches stay unchanged.
            let plain = fields.get(KnownField::ContentEncoding).is_none_or(|coding| coding == b"identity");
            plain && !matches!(status, 101 | 206) && found.covers(fields.get(KnownField::ContentType))
        });
        let substituter = substitution.map(|found| self.substituter(found));
        // As in nginx, HTTP/1.0 gets no compressed response (`gzip_http_version`).
        let form = self.client.body_form();
        let lent = match compressing {
            Compressing::With(coding) if form != BodyForm::Close => self.facts.shard.encoders.lend(coding, rules),
            _ => None,
        };
        let compressing = match compressing {
            Compressing::With(_) if lent.is_none() => Compressing::NotForClient,
            compressing => compressing,
        };
        let substitutes = substituter.is_some();
        let encoder = match (lent, substituter) {
            (Some(encoder), Some(substituter)) => encoder.substituting(substituter),
            (Some(encoder), None) => encoder,
            (None, Some(substituter)) => Encoder::plain(substituter),
            (None, None) => return compressing,
        };
        let Some(buffer) = self.spare.take() else { return Compressing::NotForClient };
        self.substituting = substitutes;
        self.compressed = Some(CompressedBody::new(encoder, buffer, &self.facts.shard.store, form));
        compressing
    }

    /// The replacements of a snippet, with values of this request.
    fn substituter(&self, found: &Substitution) -> Substituter {
        let pairs = found.pairs.iter().map(|(from, to)| {
            let mut text = Vec::new();
            // A value that is too long is omitted.
            let _ = self.expand_template(Serves::Request, to, &mut text);
            (from.as_bytes().to_vec(), text)
        });
        Substituter::new(pairs.collect(), found.once)
    }

    /// Writes the head of the response with all edits applied.
    pub(super) fn write_response(&mut self) {
        self.evaluate_response();
        let replaces_error = self.plan.is_some_and(|plan| plan.replaces_error().is_some());
        let Scratch { decision, cookie, session, challenge, value, response_values, sent_head, .. } =
            &mut *self.scratch;
        let context = ResponseContext {
            live: self.live,
            clock: &self.facts.shard.clock,
            plan: self.plan.as_ref(),
            cookies: cookie,
            compressing: self.compressing,
            status: self.status,
            substituting: self.substituting,
            values: response_values,
            added: if replaces_error && self.status == 401 { challenge } else { session.as_slice() },
            given: given_by(self.plan.as_ref(), decision),
            sent_head,
        };
        let sent = self.compressed.as_mut().map(|body| body.framing());
        self.client.write_response(&self.endpoint, sent, context, value);
    }

    /// Evaluates templates in response fields while the whole request is still available.
    pub(super) fn evaluate_response(&mut self) {
        let rules = &self.live.prepared.fields;
        let edits = ResponseEdits::unconditional(self.plan.as_ref(), rules);
        if !edits.has_variables() {
            self.scratch.response_values.clear();
            return;
        }
        let mut values = std::mem::take(&mut self.scratch.response_values);
        let (shard, limit) = (&self.facts.shard, self.live.prepared.request.total);
        let clock = &mut *shard.log_clock.borrow_mut();
        self.with_record(|record| {
            values.fill(&edits, |template, out| shard.format(template).append(record, clock, limit, out));
        });
        self.scratch.response_values = values;
    }

    /// Drops the received part of the request body.
    pub(super) fn skip_body(&mut self) {
        let unsent = self.endpoint.has_unsent();
        self.endpoint.drop_unsent();
        self.client.skip_body(unsent);
    }
}
