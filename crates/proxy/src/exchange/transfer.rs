//! The bytes of one exchange, both ways at the same time, polled by the one task of the connection.
//!
//! In each direction there is one step after the other: write what is pending, take more of the body from the buffer, read.
//! So a side that does not take anything makes the other side wait, and no more than one buffer is held.

use std::task::{Context, Poll, ready};

use super::{CLIENT_SEND_TIMEOUT, Exchange};
use crate::connection::Connection;
use crate::error::{Errno, Failure};
use crate::http1::{BodyError, CONTINUE, Parsed};
use crate::message;
use crate::relay::Body;
use crate::stream::WriteFrom;
use crate::timer::NEVER;
use crate::upstream;
use crate::work::Work;

/// Interim responses that are passed on for one request. More than a few are no hints but a flood.
const INTERIM_RESPONSES: u32 = 32;

/// A try as far as its bytes go.
#[derive(Debug)]
pub(super) struct Sending {
    /// Nothing more is sent: all was, or the endpoint takes no more.
    pub(super) over: bool,
    /// The endpoint stopped taking the request before its end.
    pub(super) broken: bool,
    /// Bytes sent in this try.
    pub(super) sent: u64,
    /// Bytes received in this try.
    pub(super) received: u64,
    /// Interim responses so far.
    interim: u32,
}

impl Sending {
    pub(super) fn new() -> Self {
        Self { over: false, broken: false, sent: 0, received: 0, interim: 0 }
    }

    /// Whether the endpoint was sent the whole request.
    pub(super) fn is_complete(&self) -> bool {
        self.over && !self.broken
    }
}

impl Exchange<'_> {
    /// Sends the request until the head of the response is complete, and holds it.
    pub(super) fn poll_response_head(
        &mut self,
        cx: &mut Context<'_>,
        up: &mut upstream::Connection,
        sending: &mut Sending,
    ) -> Poll<Result<(), Failure>> {
        loop {
            // A `100 Continue` or an interim response. That it cannot be written now does not hold up the rest.
            if let Poll::Ready(Err(failure)) = self.poll_write_client(cx) {
                return Poll::Ready(Err(failure));
            }
            if let Poll::Ready(sent) = self.poll_send(cx, up, sending) {
                sent?;
                if self.limits.read == NEVER {
                    self.limits.read = self.after_gap(self.allowance.read);
                }
            }
            let from_upstream = &mut self.work.from_upstream;
            self.connection.worker.store.make_room(from_upstream, None);
            match from_upstream.poll_fill(&mut up.stream, cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(Failure::UpstreamClosed)),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Failure::UpstreamReset(Errno::from(&error)))),
                Poll::Ready(Ok(count)) => sending.received += count as u64,
                Poll::Pending => {
                    if let Poll::Ready(failure) = self.poll_client_gone(cx) {
                        return Poll::Ready(Err(failure));
                    }
                    return self.poll_limits().map(Err);
                }
            }
            if self.limits.read != NEVER {
                self.limits.read = self.after_gap(self.allowance.read);
            }
            let Work { head, from_upstream, response, to_client, .. } = &mut *self.work;
            while !from_upstream.is_empty() {
                match response.parse(from_upstream.filled(), &self.live.prepared.response) {
                    Ok(Parsed::Complete { len }) if response.is_interim() => {
                        sending.interim += 1;
                        if sending.interim > INTERIM_RESPONSES {
                            return Poll::Ready(Err(Failure::InterimResponses));
                        }
                        // A 100 was ours to send: the expectation was not passed on.
                        if response.status() != 100 {
                            let bytes = from_upstream.filled();
                            let written = message::write_interim(response, bytes, head.version(), &mut to_client.lead);
                            self.answered |= written;
                        }
                        from_upstream.consume(len);
                        from_upstream.release();
                    }
                    Ok(Parsed::Complete { len }) => {
                        from_upstream.hold(len);
                        // No response is sent twice: the front of the buffer is used again, it is in the cache.
                        from_upstream.forgo_rewind();
                        self.limits.read = NEVER;
                        return Poll::Ready(Ok(()));
                    }
                    Ok(Parsed::Partial { .. }) => break,
                    Err(error) => return Poll::Ready(Err(Failure::ResponseHead(error))),
                }
            }
        }
    }

    /// Passes the response on until all of it is with the client's kernel, while what is left of the request is still sent.
    pub(super) fn poll_response_body(
        &mut self,
        cx: &mut Context<'_>,
        up: &mut upstream::Connection,
        sending: &mut Sending,
        body: &mut Body,
    ) -> Poll<Result<(), Failure>> {
        loop {
            if let Poll::Ready(sent) = self.poll_send(cx, up, sending) {
                sent?;
            }
            if !self.waits_for_rest(body) {
                // Head and body go out in one write when both are there.
                let Work { from_upstream, to_client, .. } = &mut *self.work;
                let filled = to_client.fill(body, from_upstream).map_err(Failure::ResponseBody)?;
                match self.poll_write_client(cx) {
                    Poll::Ready(written) => written?,
                    Poll::Pending => return self.poll_limits().map(Err),
                }
                if body.has_ended() {
                    return Poll::Ready(Ok(()));
                }
                if filled {
                    continue;
                }
            }
            let Work { from_upstream, to_client, .. } = &mut *self.work;
            let there = from_upstream.filled().len() as u64;
            let more = body.remaining().map(|left| left.saturating_sub(there));
            self.connection.worker.store.make_room(from_upstream, more);
            match from_upstream.poll_fill(&mut up.stream, cx) {
                Poll::Ready(Ok(0)) => body.close(to_client).map_err(Failure::ResponseBody)?,
                Poll::Ready(Ok(count)) => {
                    sending.received += count as u64;
                    self.limits.read = NEVER;
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Failure::UpstreamReset(Errno::from(&error)))),
                Poll::Pending => {
                    if self.limits.read == NEVER {
                        self.limits.read = self.after_gap(self.allowance.read);
                    }
                    if let Poll::Ready(failure) = self.poll_client_gone(cx) {
                        return Poll::Ready(Err(failure));
                    }
                    return self.poll_limits().map(Err);
                }
            }
        }
    }

    /// Whether the head is held back for a moment, because all of a small body will most likely follow at once: endpoints often
    /// send the two apart, and each write to a client costs more than all that we do ourselves.
    fn waits_for_rest(&mut self, body: &Body) -> bool {
        if self.limits.hold == NEVER {
            return false;
        }
        let from_upstream = &self.work.from_upstream;
        let (there, room) = (from_upstream.filled().len() as u64, from_upstream.room() as u64);
        let waits = body.remaining().is_some_and(|left| left > there && left - there <= room)
            && self.connection.worker.timers.now() < self.limits.hold;
        if !waits {
            self.limits.hold = NEVER;
        }
        waits
    }

    /// Sends the request: what is written already, then the body as it comes. Ready when nothing more is to be sent.
    fn poll_send(
        &mut self,
        cx: &mut Context<'_>,
        up: &mut upstream::Connection,
        sending: &mut Sending,
    ) -> Poll<Result<(), Failure>> {
        while !sending.over {
            let Work { inbound, to_upstream, .. } = &mut *self.work;
            let filled = to_upstream.fill(&mut self.body, inbound).map_err(Failure::RequestBody)?;
            if !self.allowance.max_body.admits(self.body.data_len()) {
                return Poll::Ready(Err(Failure::BodyTooLarge));
            }
            let before = sending.sent;
            match to_upstream.poll_write(cx, &mut up.stream, inbound, &mut sending.sent) {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => {
                    // The endpoint may have answered before it closed: whether it did is seen by reading.
                    (sending.over, sending.broken) = (true, true);
                    break;
                }
                Poll::Pending => {
                    if self.limits.send == NEVER || sending.sent > before {
                        self.limits.send = self.after_gap(self.allowance.send);
                    }
                    return Poll::Pending;
                }
            }
            self.limits.send = NEVER;
            if self.body.has_ended() {
                sending.over = true;
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
    fn poll_receive(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let Work { inbound, to_client, .. } = &mut *self.work;
        if self.expects_continue {
            self.expects_continue = false;
            if inbound.is_empty() && !self.answered {
                to_client.lead.extend_from_slice(CONTINUE);
                // It is an interim response, but not one of the endpoint: the request may still be tried elsewhere.
                if let Poll::Ready(Err(failure)) = self.poll_write_client(cx) {
                    return Poll::Ready(Err(failure));
                }
            }
        }
        let Work { inbound, .. } = &mut *self.work;
        self.connection.worker.store.make_room(inbound, self.body.remaining());
        match inbound.poll_fill(&mut self.connection.stream, cx) {
            Poll::Ready(Ok(0)) => Poll::Ready(Err(Failure::RequestBody(BodyError::Incomplete))),
            Poll::Ready(Err(_)) => Poll::Ready(Err(Failure::ClientGone)),
            Poll::Ready(Ok(_)) => {
                self.limits.body = NEVER;
                Poll::Ready(Ok(()))
            }
            Poll::Pending => {
                if self.limits.body == NEVER {
                    self.limits.body = self.after_gap(self.live.snapshot.settings().body_timeout);
                }
                Poll::Pending
            }
        }
    }

    /// Writes what is pending for the client, and makes sure that the kernel has it.
    pub(super) fn poll_write_client(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let Work { to_client, from_upstream, .. } = &mut *self.work;
        let before = self.sent;
        let stream = &mut self.connection.stream;
        let written = match to_client.poll_write(cx, stream, from_upstream, &mut self.sent) {
            Poll::Ready(Ok(())) => stream.poll_flush_all(cx),
            other => other,
        };
        match written {
            Poll::Ready(Ok(())) => {
                self.limits.client = NEVER;
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(_)) => Poll::Ready(Err(Failure::ClientGone)),
            Poll::Pending => {
                if self.limits.client == NEVER || self.sent > before {
                    self.limits.client = self.after_gap(CLIENT_SEND_TIMEOUT);
                }
                Poll::Pending
            }
        }
    }

    /// Whether the client is gone. What it sends meanwhile is kept for later.
    fn poll_client_gone(&mut self, cx: &mut Context<'_>) -> Poll<Failure> {
        let Connection { stream, worker, .. } = &mut *self.connection;
        self.attention.poll_gone(cx, &self.body, &mut self.work.inbound, stream, &worker.timers)
    }

    /// Whether anybody was waited for too long. Call it last, before the task waits.
    pub(super) fn poll_limits(&self) -> Poll<Failure> {
        if self.connection.worker.is_stopping() {
            return Poll::Ready(Failure::Shutdown);
        }
        let first = self.limits.first().min(self.attention.look);
        self.connection.deadline.set(first);
        let now = self.connection.worker.timers.now();
        if first > now {
            return Poll::Pending;
        }
        let limits = self.limits;
        if limits.first() > now {
            return Poll::Pending;
        }
        Poll::Ready(if limits.client <= now {
            Failure::ClientStalled
        } else if limits.body <= now {
            Failure::BodyTimeout
        } else if limits.send <= now {
            Failure::SendTimeout
        } else {
            Failure::ReadTimeout
        })
    }
}
