//! Reads the body of a response as fast as its endpoint sends it, however slowly the client reads (`proxy-buffering`).
//!
//! What waits for the client is bounded for each response and for each worker; beyond that, the endpoint is read at the speed of the
//! client. Once all of the body has arrived, the endpoint's connection is free for other requests.

use std::task::{Context, Poll, ready};

use fairway_model::Forward;

use super::Exchange;
use super::progress::RequestProgress;
use crate::body::{BodyDecoder, ChunkLimits, Event};
use crate::error::Failure;
use crate::http::{BodyError, KnownField, NameRules};
use crate::limit::{RESPONSE_BUFFERED, RESPONSES_BUFFERED};
use crate::timer::NEVER;

/// How much of a body has been received.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Intake {
    /// More is to come.
    Open,
    /// All of it has been received, as its framing shows.
    Whole,
    /// The endpoint has closed its side.
    Closed,
    /// No more will come.
    Failed(Failure),
    /// It is malformed or could not be decoded. The code that forwards it will report that.
    Unclear,
}

/// The body of a response that is read faster than its client takes it.
#[derive(Debug)]
pub(super) struct BufferedBody {
    /// Maximum number of bytes that wait for the client.
    most: usize,
    /// Memory added to the buffer.
    added: usize,
    decoder: BodyDecoder,
    /// Received bytes, at the end of the buffer, that the decoder has not seen.
    unseen: usize,
    intake: Intake,
    /// Whether the endpoint is no longer needed.
    released: bool,
    /// Whether its connection ends with the request.
    close: bool,
}

impl BufferedBody {
    /// Decodes the newly received bytes, which are at the end of `filled`.
    fn look(&mut self, filled: &[u8]) {
        while self.intake == Intake::Open {
            if self.decoder.is_done() {
                self.intake = Intake::Whole;
                return;
            }
            let decoded = filled.len().checked_sub(self.unseen).map(|from| self.decoder.decode(&filled[from..]));
            match decoded {
                Some(Ok(piece)) if piece.event == Event::NeedMore && piece.consumed == 0 => return,
                Some(Ok(piece)) => self.unseen -= piece.consumed,
                Some(Err(_)) | None => self.intake = Intake::Unclear,
            }
        }
    }
}

impl Exchange<'_> {
    /// Begins to read the body of the response ahead of the client, if the route asks for that. An endpoint can refuse it for its response
    /// (`X-Accel-Buffering: no`). gRPC calls are excluded, because their messages may answer each other.
    pub(super) fn begin_buffering(&mut self, forward: &Forward) {
        self.release_buffered();
        let Some(most) = forward.policy.response_buffer else { return };
        let response = self.endpoint.response();
        let refused = response
            .parsed
            .fields()
            .get(KnownField::XAccelBuffering, response.bytes)
            .is_some_and(|value| value.eq_ignore_ascii_case(b"no"));
        if refused || self.client.is_call() {
            return;
        }
        // This decoder only has to find the end; which trailers are passed on is decided elsewhere.
        let limits = ChunkLimits { names: NameRules::Tokens, ..ChunkLimits::default() };
        let mut body = BufferedBody {
            most: (most as usize).min(RESPONSE_BUFFERED),
            added: 0,
            decoder: BodyDecoder::new(self.endpoint.framing().received, limits),
            unseen: self.endpoint.source().buffer.filled().len(),
            intake: Intake::Open,
            released: false,
            close: forward.policy.close,
        };
        body.look(self.endpoint.source().buffer.filled());
        // Boxed: it is rarely needed and would otherwise take room in every connection.
        self.buffered = Some(Box::new(body));
    }

    /// Receives more of the body of the response; `false` once the endpoint has closed its side.
    pub(super) fn poll_response(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, Failure>> {
        let (store, largest) = (&self.facts.shard.store, self.facts.response_buffer());
        let Some(body) = &mut self.buffered else { return self.endpoint.poll_receive(cx, store, largest) };
        match body.intake {
            Intake::Open | Intake::Unclear => {}
            Intake::Closed => return Poll::Ready(Ok(false)),
            Intake::Failed(failure) => return Poll::Ready(Err(failure)),
            // The code that forwards the body must have found its end at the same place.
            Intake::Whole => return Poll::Ready(Err(Failure::ResponseBody(BodyError::Incomplete))),
        }
        let before = self.endpoint.source().buffer.filled().len();
        let received = ready!(self.endpoint.poll_receive(cx, store, largest));
        match received {
            Ok(true) => {
                let filled = self.endpoint.source().buffer.filled();
                body.unseen += filled.len() - before;
                body.look(filled);
            }
            Ok(false) => body.intake = Intake::Closed,
            Err(failure) => body.intake = Intake::Failed(failure),
        }
        Poll::Ready(received)
    }

    /// Keeps reading while the proxy waits for the client, as far as memory allows.
    pub(super) fn read_on(&mut self, cx: &mut Context<'_>) {
        if self.buffered.is_none() {
            return;
        }
        loop {
            if !self.may_read_on() {
                self.limits.read = NEVER;
                break;
            }
            match self.poll_response(cx) {
                Poll::Ready(_) => self.limits.read = NEVER,
                Poll::Pending if self.limits.read == NEVER => {
                    self.limits.read = self.after_gap(self.allowance.read);
                    break;
                }
                Poll::Pending => {
                    if self.limits.read <= self.facts.shard.timers.now() {
                        // The client first gets what has been received.
                        self.note_intake(Intake::Failed(Failure::ReadTimeout));
                        self.limits.read = NEVER;
                    }
                    break;
                }
            }
        }
        self.release_endpoint();
    }

    fn note_intake(&mut self, intake: Intake) {
        if let Some(body) = &mut self.buffered {
            body.intake = intake;
        }
    }

    /// Whether more is to come and there is room for it.
    fn may_read_on(&mut self) -> bool {
        let Some(body) = self.buffered.as_mut().filter(|body| body.intake == Intake::Open) else { return false };
        let shard = &self.facts.shard;
        let source = self.endpoint.source();
        let (more, before) = (source.to_come(), source.buffer.size());
        let spare = RESPONSES_BUFFERED.saturating_sub(shard.buffered.get());
        let room = shard.store.extend(source.buffer, more, body.most, spare);
        let added = source.buffer.size() - before;
        body.added += added;
        shard.buffered.set(shard.buffered.get() + added);
        room
    }

    /// Releases the endpoint once all of the body has arrived.
    fn release_endpoint(&mut self) {
        let method = self.client.method();
        let Some(body) = &mut self.buffered else { return };
        if body.intake != Intake::Whole || body.released || self.request != RequestProgress::Sent {
            return;
        }
        body.released = true;
        let shard = &self.facts.shard;
        // Bytes after the body belong to no request.
        let kept = !shard.is_draining() && !body.close && body.unseen == 0;
        if let Some(connection) = self.endpoint.release(method).filter(|_| kept) {
            shard.upstreams.pool.borrow_mut().put(connection, shard.timers.now(), &self.live.prepared.pool);
        }
    }

    /// Gives back the memory that was added to the buffer.
    pub(super) fn release_buffered(&mut self) {
        if let Some(body) = self.buffered.take() {
            let total = &self.facts.shard.buffered;
            total.set(total.get() - body.added);
        }
    }
}
