//! Moves the bytes of one exchange both ways at the same time, polled by the one task that serves it.
//!
//! Each direction repeats three steps: write pending bytes, take more of the body from the buffer, read. So a side that doesn't read makes
//! the other wait, and at most one buffer is held, unless the response is [`buffered`](super::buffered).

use std::hint::cold_path;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use super::Exchange;
use super::compressed::CompressedBody;
use super::progress::RequestProgress;
use super::side::EndpointSide;
use super::tries::Serves;
use crate::body::BodySource;
use crate::error::Failure;
use crate::http::{BodyError, ResponsePart};
use crate::limit::{CLIENT_SEND_TIMEOUT, CLIENT_SLOW};
use crate::prepared::response_limits;
use crate::timer::{Millis, NEVER};

/// Room for what a slow client sends after its request; reading it shows whether the client is still there.
// No limit: the rest waits in the kernel.
const AFTER_REQUEST: usize = 256;

/// The times at which waiting ends; each is [`NEVER`] while nothing waits for that event.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gaps {
    /// The endpoint must read more.
    pub(super) send: Millis,
    /// The endpoint must send more.
    pub(super) read: Millis,
    /// The latest end of `read` before the head of the response is complete.
    pub(super) head: Millis,
    /// The client must send more of its body.
    pub(super) body: Millis,
    /// The client must read more.
    pub(super) client: Millis,
    /// The rest of a response must arrive if it is to be written at once with the withheld head.
    pub(super) hold: Millis,
    /// More may be sent to the client.
    pub(super) pace: Millis,
    /// A client that has still read nothing by then loses its spare memory.
    pub(super) slow: Millis,
}

impl Gaps {
    pub(super) const NONE: Self = Self {
        send: NEVER,
        read: NEVER,
        head: NEVER,
        body: NEVER,
        client: NEVER,
        hold: NEVER,
        pace: NEVER,
        slow: NEVER,
    };

    fn first(&self) -> Millis {
        self.send.min(self.read).min(self.body).min(self.client).min(self.hold).min(self.pace).min(self.slow)
    }
}

impl Exchange<'_> {
    /// Sends the request until the head of the response is complete.
    pub(super) fn poll_response_head(&mut self, cx: &mut Context<'_>, serves: Serves<'_>) -> Poll<Result<(), Failure>> {
        let asks = matches!(serves, Serves::Authentication(..));
        loop {
            // A `100 Continue` or an interim response. If it can't be written now, the rest continues.
            if let Poll::Ready(Err(failure)) = self.poll_write_client(cx) {
                cold_path();
                return Poll::Ready(Err(failure));
            }
            if let Poll::Ready(sent) = self.poll_send(cx, serves.is_bodiless()) {
                sent?;
                if self.limits.read == NEVER {
                    self.limits.read = self.after_gap(self.allowance.read);
                    if self.allowance.whole_head {
                        self.limits.head = self.limits.read;
                    }
                }
            }
            let store = &self.facts.shard.store;
            let larger;
            let limits = match self.allowance.max_head {
                None => &self.live.prepared.response,
                Some(bytes) => {
                    cold_path();
                    larger = response_limits(bytes as usize);
                    &larger
                }
            };
            match self.endpoint.poll_head(cx, store, limits) {
                Poll::Ready(Ok(ResponsePart::Head)) => {
                    (self.limits.read, self.limits.head) = (NEVER, NEVER);
                    return Poll::Ready(Ok(()));
                }
                Poll::Ready(Ok(part)) => {
                    cold_path();
                    if self.limits.read != NEVER {
                        self.limits.read = self.after_gap(self.allowance.read).min(self.limits.head);
                    }
                    if part == ResponsePart::Interim {
                        if !asks {
                            self.client.write_interim(&self.endpoint);
                        }
                        self.endpoint.drop_interim();
                    }
                }
                Poll::Ready(Err(failure)) => return Poll::Ready(Err(failure)),
                Poll::Pending => return self.poll_waiting(cx).map(Err),
            }
        }
    }

    /// Forwards the response until the kernel has taken all of it, while the rest of the request is still being sent.
    pub(super) fn poll_response_body(&mut self, cx: &mut Context<'_>, serves: Serves<'_>) -> Poll<Result<(), Failure>> {
        loop {
            if let Poll::Ready(sent) = self.poll_send(cx, serves.is_bodiless()) {
                sent?;
            }
            if self.is_ahead() {
                cold_path();
                let written = self.poll_write_client(cx)?;
                self.read_on(cx);
                return if written.is_ready() { self.poll_waiting(cx) } else { self.poll_limits() }.map(Err);
            }
            if !self.waits_for_rest() {
                // Head and body go out in one write if both are there.
                let filled = self.take_response_body().map_err(Failure::ResponseBody)?;
                match self.poll_write_client(cx) {
                    Poll::Ready(written) => written?,
                    Poll::Pending => {
                        self.read_on(cx);
                        return self.poll_limits().map(Err);
                    }
                }
                if response_source(&mut self.endpoint, &mut self.compressed).body.has_ended() {
                    return Poll::Ready(Ok(()));
                }
                if filled {
                    continue;
                }
            }
            match self.poll_response(cx) {
                Poll::Ready(Ok(true)) => self.limits.read = NEVER,
                Poll::Ready(Ok(false)) => {
                    self.client.end_body(self.endpoint.source()).map_err(Failure::ResponseBody)?;
                }
                Poll::Ready(Err(failure)) => return Poll::Ready(Err(failure)),
                Poll::Pending if self.compressed.as_mut().is_some_and(CompressedBody::flush) => {}
                Poll::Pending => {
                    if self.limits.read == NEVER {
                        self.limits.read = self.after_gap(self.allowance.read);
                    }
                    return self.poll_waiting(cx).map(Err);
                }
            }
        }
    }

    /// Whether the client has received as much of the body as the bandwidth allows so far. The rest of the body waits at the endpoint.
    fn is_ahead(&mut self) -> bool {
        let Some(pace) = &self.pace else { return false };
        cold_path();
        let due = pace.begun.saturating_add(pace.bandwidth.due(self.client.body_sent()));
        let ahead = due > self.facts.shard.timers.now();
        self.limits.pace = if ahead { due } else { NEVER };
        ahead
    }

    /// Takes as much of the response body as can be written at once. Returns `true` if there is something to write.
    fn take_response_body(&mut self) -> Result<bool, BodyError> {
        let Some(compressed) = &mut self.compressed else { return self.client.take_body(self.endpoint.source()) };
        let whole = compressed.fill(self.endpoint.source())?;
        let filled = self.client.take_body(compressed.source())?;
        if whole && compressed.source().buffer.is_empty() && !compressed.source().body.has_ended() {
            self.client.end_body(compressed.source())?;
            return Ok(true);
        }
        Ok(filled)
    }

    /// Whether the head is withheld briefly because all of a small body will most likely follow at once. Endpoints often send the two
    /// separately, and each write to a client costs more than all of the proxy's own work.
    fn waits_for_rest(&mut self) -> bool {
        if self.limits.hold == NEVER {
            return false;
        }
        let source = self.endpoint.source();
        let room = source.buffer.room() as u64;
        let fits = source.to_come().is_some_and(|more| more > 0 && more <= room);
        let waits = fits && self.facts.shard.timers.now() < self.limits.hold;
        if !waits {
            self.limits.hold = NEVER;
        }
        waits
    }

    /// Sends the request: bytes already written first, then the body as it arrives. Ready when there is nothing more to send.
    ///
    /// Some services get the request without its body (`bodiless`).
    fn poll_send(&mut self, cx: &mut Context<'_>, bodiless: bool) -> Poll<Result<(), Failure>> {
        while self.request == RequestProgress::Sending {
            let source = self.client.source();
            let filled = bodiless || self.endpoint.take_body(source).map_err(Failure::RequestBody)?;
            if !bodiless && !self.allowance.max_body.admits(source.body.data_len()) {
                return Poll::Ready(Err(Failure::BodyTooLarge));
            }
            let before = self.endpoint.sent();
            match self.endpoint.poll_write(cx, source) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => {
                    cold_path();
                    self.request = RequestProgress::Broken;
                    break;
                }
                Poll::Pending => {
                    if self.limits.send == NEVER || self.endpoint.sent() > before {
                        self.limits.send = self.after_gap(self.allowance.send);
                    }
                    return Poll::Pending;
                }
            }
            self.limits.send = NEVER;
            if bodiless || source.body.has_ended() {
                self.request = RequestProgress::Sent;
                break;
            }
            if !filled {
                ready!(self.poll_receive(cx))?;
            }
        }
        self.limits.send = NEVER;
        self.limits.body = NEVER;
        Poll::Ready(Ok(()))
    }

    /// Receives more of the request body.
    pub(super) fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        if self.client.write_continue()
            && let Poll::Ready(Err(failure)) = self.poll_write_client(cx)
        {
            return Poll::Ready(Err(failure));
        }
        let received = self.client.poll_receive(cx, &self.facts.shard.store);
        if received.is_ready() {
            self.patience.received(self.facts.shard.timers.now());
            self.limits.body = NEVER;
        } else if self.limits.body == NEVER {
            let settings = self.live.snapshot.settings();
            let mut gap = settings.body_timeout;
            // Once there is a response, client and endpoint talk to each other, and the pace is up to them.
            if settings.body_rate > 0 && self.status == 0 && !self.endpoint.may_converse() {
                let now = self.facts.shard.timers.now();
                gap = gap.min(self.patience.waits(now, self.client.received(), settings.body_rate));
            }
            self.limits.body = self.after_gap(gap);
        }
        received
    }

    /// Writes pending bytes to the client, and makes sure that the kernel has them.
    pub(super) fn poll_write_client(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let before = self.client.sent();
        match self.client.poll_write(cx, response_source(&mut self.endpoint, &mut self.compressed)) {
            Poll::Ready(Ok(())) => {
                self.limits.client = NEVER;
                self.limits.slow = NEVER;
                self.facts.note_smooth(self.client.sent() - before);
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(_)) => Poll::Ready(Err(Failure::ClientGone)),
            Poll::Pending => {
                if self.limits.client == NEVER || self.client.sent() > before {
                    self.limits.client = self.after_gap(CLIENT_SEND_TIMEOUT);
                    self.limits.slow = self.after_gap(CLIENT_SLOW);
                }
                self.facts.note_slow();
                Poll::Pending
            }
        }
    }

    /// Frees the spare memory of a client that has read nothing for a while. A buffer that reads ahead keeps its own, from which it grows.
    fn spare_memory(&mut self) {
        self.limits.slow = NEVER;
        let store = &self.facts.shard.store;
        if self.buffered.is_none() {
            store.trim(self.endpoint.source().buffer, 0);
        }
        if self.client.body_has_ended() {
            store.trim(self.client.source().buffer, AFTER_REQUEST);
        }
        self.client.trim_stream();
    }

    /// The same, within the limits.
    pub(super) fn poll_client_output(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        match self.poll_write_client(cx) {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => self.poll_limits().map(Err),
        }
    }

    /// Waits for the endpoint as long as the client is connected.
    pub(super) fn poll_waiting(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        match self.client.poll_gone(cx, &self.facts.shard.timers) {
            Poll::Ready(failure) => Poll::Ready(failure),
            Poll::Pending => self.poll_limits(),
        }
    }

    /// Whether any wait has lasted too long. Call this last, before the task waits.
    pub(super) fn poll_limits(&mut self) -> Poll<Failure> {
        if self.facts.shard.is_stopping() {
            cold_path();
            return Poll::Ready(Failure::Shutdown);
        }
        if self.limits.slow <= self.facts.shard.timers.now() {
            cold_path();
            self.spare_memory();
        }
        let limits = self.limits;
        let until = self.endpoint.until();
        let first = limits.first().min(until);
        self.deadline.set(first.min(self.client.next_look()));
        let now = self.facts.shard.timers.now();
        if first > now {
            return Poll::Pending;
        }
        cold_path();
        Poll::Ready(if until <= now {
            Failure::CallTimeout
        } else if limits.client <= now {
            Failure::ClientStalled
        } else if limits.body <= now {
            Failure::BodyTimeout
        } else if limits.send <= now {
            Failure::SendTimeout
        } else {
            Failure::ReadTimeout
        })
    }

    /// The time at least `gap` from now.
    pub(super) fn after_gap(&self, gap: Duration) -> Millis {
        self.facts.shard.timers.after(gap)
    }
}

/// The source of the body that the client gets.
fn response_source<'s, 'a>(
    endpoint: &'s mut EndpointSide<'a>,
    compressed: &'s mut Option<CompressedBody<'a>>,
) -> &'s mut BodySource<'a> {
    match compressed {
        Some(compressed) => compressed.source(),
        None => endpoint.source(),
    }
}
