//! Reads the body of a request before an endpoint is chosen, within bounds. A body that exceeds them is streamed from there on. If a
//! directory for bodies is configured, memory holds only a little of each body and a file takes the rest.
//!
//! Many servers assume that a request without a Content-Length has no body, so a body of unknown length is measured this way.

use std::future::poll_fn;
use std::num::NonZeroU32;
use std::task::{Context, Poll};
use std::time::Instant;

use fairway_model::{ByteLimit, RequestBuffering};

use super::Exchange;
use super::transfer::Gaps;
use super::tries::Serves;
use crate::body::Ahead;
use crate::error::Failure;
use crate::http::{Framing, RequestHead, Spanned};
use crate::limit::{BODIES_AHEAD, BODY_AHEAD};
use crate::spool::PIECE;
use crate::work::{LARGE, LEAST_READ};

impl Exchange<'_> {
    /// Whether the body is read first.
    pub(super) fn reads_ahead(&self, serves: Serves<'_>, buffering: RequestBuffering) -> bool {
        let wanted = !serves.is_bodiless()
            && match (buffering, self.client.framing()) {
                (RequestBuffering::Off, _) | (_, Framing::None | Framing::Length(0) | Framing::UntilClose) => false,
                (RequestBuffering::All, Framing::Length(length)) => {
                    let space = self.facts.shard.common.spools.as_ref().map_or(0, |spools| spools.space());
                    length <= space.max(BODY_AHEAD as u64)
                }
                (RequestBuffering::All, Framing::Chunked) => true,
                (RequestBuffering::Unmeasured, Framing::Chunked) => !self.endpoint.shows_end(),
                (RequestBuffering::Unmeasured, Framing::Length(_)) => false,
            };
        // What a gRPC call sends may depend on the answer so far; so may what follows a request to switch protocols.
        let waits = |head: Spanned<'_, RequestHead>| head.parsed.asked_protocols(head.bytes).is_none();
        wanted && !self.client.is_call() && self.client.head().is_some_and(waits)
    }

    /// Reads the body.
    ///
    /// # Errors
    /// The client did not send the whole body, or the body is malformed or too large.
    pub(super) async fn read_ahead(&mut self) -> Result<(), Failure> {
        self.wait_for_body(true).await
    }

    /// Reads the whole body into memory, for a service that inspects it.
    ///
    /// # Errors
    /// The client did not send the whole body, the body is malformed or longer than `most`, or there is no memory for it now.
    pub(super) async fn read_whole(&mut self, most: NonZeroU32) -> Result<Vec<u8>, Failure> {
        let most = ByteLimit::of(most.get().into());
        match self.client.framing() {
            Framing::None | Framing::Length(0) | Framing::UntilClose => return Ok(Vec::new()),
            // The announced length alone is too large.
            Framing::Length(length) if !most.admits(length) => return Err(Failure::BodyTooLarge),
            Framing::Length(_) | Framing::Chunked => {}
        }
        self.allowance.max_body = most;
        self.wait_for_body(false).await?;
        self.client.whole_data().ok_or(Failure::Authentication(None))
    }

    /// Reads the body. The time that the client takes to send it doesn't count towards the request's time limits; the time before it does.
    async fn wait_for_body(&mut self, spools: bool) -> Result<(), Failure> {
        let begun = Instant::now();
        poll_fn(|cx| self.poll_ahead(cx, spools)).await?;
        self.limits = Gaps::NONE;
        self.dispatched += begun.elapsed();
        Ok(())
    }

    fn poll_ahead(&mut self, cx: &mut Context<'_>, spools: bool) -> Poll<Result<(), Failure>> {
        loop {
            match self.client.poll_spooled(cx) {
                Poll::Ready(Ok(())) => {}
                // The writing thread has logged the error.
                Poll::Ready(Err(_)) => return Poll::Ready(self.end_ahead(spools)),
                // Nothing more is received until the file has been written.
                Poll::Pending => return self.poll_limits().map(Err),
            }
            let ahead = self.client.look_ahead().map_err(Failure::RequestBody)?;
            if !self.allowance.max_body.admits(self.client.data_ahead()) {
                return Poll::Ready(Err(Failure::BodyTooLarge));
            }
            let (room, seen) = (self.may_read_ahead(spools), self.client.seen_ahead());
            let writes = if self.client.is_spooled() {
                seen >= PIECE || (seen > 0 && (ahead == Ahead::Whole || !room))
            } else {
                ahead == Ahead::Partial && !room && spools && self.begin_spooling()
            };
            if writes {
                if self.client.spool() {
                    continue;
                }
                return Poll::Ready(self.end_ahead(spools));
            }
            if ahead == Ahead::Whole {
                self.client.measure();
            }
            if ahead == Ahead::Whole || !(room || self.client.is_spooled()) {
                return Poll::Ready(self.end_ahead(spools));
            }
            // The `100 Continue` may not be written yet.
            if let Poll::Ready(Err(failure)) = self.poll_write_client(cx) {
                return Poll::Ready(Err(failure));
            }
            match self.poll_receive(cx) {
                Poll::Ready(received) => received?,
                Poll::Pending => return self.poll_limits().map(Err),
            }
        }
    }

    /// Starts to write the body to a file; `false` if no directory is configured.
    fn begin_spooling(&mut self) -> bool {
        let Some(spools) = &self.facts.shard.common.spools else { return false };
        self.client.begin_spooling(spools.file());
        true
    }

    fn end_ahead(&mut self, spools: bool) -> Result<(), Failure> {
        self.client.end_spooling();
        self.may_read_ahead(spools);
        Ok(())
    }

    /// Counts the bytes held of the body. Returns whether memory is left for more. A body that may be spooled to a file gets less memory.
    fn may_read_ahead(&mut self, spools: bool) -> bool {
        let held = self.client.held_ahead();
        let total = &self.facts.shard.ahead;
        total.set(total.get() - self.ahead + held);
        self.ahead = held;
        let most = if spools && self.facts.shard.common.spools.is_some() { LARGE } else { BODY_AHEAD };
        held + LEAST_READ <= most && total.get() + LEAST_READ <= BODIES_AHEAD
    }

    /// Subtracts what is no longer held.
    pub(super) fn release_ahead(&mut self) {
        if self.ahead > 0 {
            let total = &self.facts.shard.ahead;
            total.set(total.get() - std::mem::take(&mut self.ahead));
        }
    }
}
