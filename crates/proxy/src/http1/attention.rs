//! Whether the client still waits for its response.
//!
//! A client that ends its side after its request has only said that no other request follows: it gets its response, as RFC 9112
//! 9.6 wants it. A client that closed the connection looks the same until something is sent to it, and then its kernel answers
//! with a reset. So an end is no reason to give up; a reset, a failed write, or a probe without an answer is.

use std::io;
use std::task::{Context, Poll, ready};

use super::relay::Source;
use crate::error::Failure;
use crate::limit::CLIENT_LOOK;
use crate::stream::Downstream;
use crate::timer::{Millis, NEVER, Timers};

/// What is known of a client that waits.
#[derive(Debug)]
pub(super) struct Attention {
    /// It sends nothing more.
    ended: bool,
    /// When it is looked at next, [`NEVER`] while reading tells when it is gone.
    pub(super) look: Millis,
}

impl Attention {
    pub(super) fn new() -> Self {
        Self { ended: false, look: NEVER }
    }

    /// Whether nothing more comes from the client.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Notices that the client is gone. What it sends meanwhile is kept for later.
    pub(super) fn poll_gone(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut Source<'_>,
        stream: &mut Downstream,
        timers: &Timers,
    ) -> Poll<Failure> {
        if !source.body.has_ended() {
            // The body is being read anyway.
            return Poll::Pending;
        }
        while !self.ended && source.buffer.room() > 0 {
            match ready!(source.buffer.poll_fill(stream, cx)) {
                Ok(1..) => {}
                Ok(0) => self.end(stream),
                // An end without a farewell of TLS: the request was complete, nothing of it can be missing.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => self.end(stream),
                Err(_) => return Poll::Ready(Failure::ClientGone),
            }
        }
        // Nothing can be read any more: a reset shows only as the error of the socket.
        if stream.has_failed() {
            return Poll::Ready(Failure::ClientGone);
        }
        self.look = timers.after(CLIENT_LOOK);
        Poll::Pending
    }

    fn end(&mut self, stream: &Downstream) {
        self.ended = true;
        stream.probe();
    }
}
