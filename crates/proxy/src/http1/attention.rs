//! Detects a client that is gone while it waits for its response.
//!
//! A client that shuts down its sending side after a request only announces that no other request follows: it gets its response, as RFC
//! 9112 9.6 requires. A client that closed the connection looks the same until something is sent to it; its kernel then answers with a
//! reset. So the end of input is no reason to give up, but a reset, a failed write or an unanswered probe is.

use std::io;
use std::task::{Context, Poll, ready};

use crate::body::BodySource;
use crate::error::Failure;
use crate::limit::CLIENT_LOOK;
use crate::stream::Downstream;
use crate::timer::{Millis, NEVER, Timers};

/// What is known about a waiting client.
#[derive(Debug)]
pub(super) struct Attention {
    /// The client sends nothing more.
    ended: bool,
    /// The body is left unread for now, so no read shows that the client is gone.
    pub(super) leaves_body: bool,
    /// When to check again; [`NEVER`] while a read would show that the client is gone.
    pub(super) look: Millis,
}

impl Attention {
    pub(super) fn new() -> Self {
        Self { ended: false, leaves_body: false, look: NEVER }
    }

    /// Whether the client has ended its sending side.
    pub(super) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Completes when the client is gone. Bytes that it sends meanwhile are kept for later.
    pub(super) fn poll_gone(
        &mut self,
        cx: &mut Context<'_>,
        source: &mut BodySource<'_>,
        stream: &mut Downstream,
        timers: &Timers,
    ) -> Poll<Failure> {
        if !source.body.has_ended() && !self.leaves_body {
            // Reading the body would notice it anyway.
            return Poll::Pending;
        }
        while !self.ended && source.buffer.room() > 0 {
            match ready!(source.buffer.poll_fill(stream, cx)) {
                Ok(1..) => {}
                Ok(0) => self.end(stream),
                // An end without TLS `close_notify`: the request was already complete, so nothing is missing.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => self.end(stream),
                Err(_) => return Poll::Ready(Failure::ClientGone),
            }
        }
        // Nothing more can be read, so only the socket's error shows a reset.
        if stream.has_failed() {
            return Poll::Ready(Failure::ClientGone);
        }
        self.look = timers.after(CLIENT_LOOK);
        Poll::Pending
    }

    /// The same without reading: only the client's kernel can show that it is gone.
    pub(super) fn poll_reset(&mut self, stream: &Downstream, timers: &Timers) -> Poll<Failure> {
        if self.look == NEVER {
            stream.probe();
        }
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
