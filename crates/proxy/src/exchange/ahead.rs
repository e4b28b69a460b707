//! Reads the body of a request before an endpoint is chosen, within bounds. A body that exceeds them is streamed from there on, as if
//! it had not been waited for. With a directory for such bodies, memory holds little of them, and a file takes the rest.
//!
//! Many servers take a request without a Content-Length for one without a body, so a body of unknown length is measured in this way.

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
        // What a call sends may depend on the answer so far, and so does what follows a request for another protocol.
        let waits = |head: Spanned<'_, RequestHead>| head.parsed.asked_protocols(head.bytes).is_none();
        wanted && !self.client.is_call() && self.client.head().is_some_and(waits)
    }

    /// Reads the body.
    ///
    /// # Errors
    /// The client sent no whole body, or one that is malformed or too large.
    pub(super) async fn read_ahead(&mut self) -> Result<(), Failure> {
        self.wait_for_body(true).await
    }

    /// Reads the body for a service that judges it, into memory.
    ///
    /// # Errors
    /// The client sent no whole body, or one that is malformed or longer than `most`, or there is no memory for it now.
    pub(super) async fn read_whole(&mut self, most: NonZeroU32) -> Result<Vec<u8>, Failure> {
        let most = ByteLimit::of(most.get().into());
        match self.client.framing() {
            Framing::None | Framing::Length(0) | Framing::UntilClose => return Ok(Vec::new()),
            // Nothing of it need be read to know.
            Framing::Length(length) if !most.admits(length) => return Err(Failure::BodyTooLarge),
            Framing::Length(_) | Framing::Chunked => {}
        }
        self.allowance.max_body = most;
        self.wait_for_body(false).await?;
        self.client.whole_data().ok_or(Failure::Authentication(None))
    }

    /// Reads the body. The time that the client takes for it doesn't count for what bounds the request, what was used before does.
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
                // The thread that writes it has logged why it can't.
                Poll::Ready(Err(_)) => return Poll::Ready(self.end_ahead(spools)),
                // Nothing is received meanwhile.
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
            // Permission to send may not be written yet.
            if let Poll::Ready(Err(failure)) = self.poll_write_client(cx) {
                return Poll::Ready(Err(failure));
            }
            match self.poll_receive(cx) {
                Poll::Ready(received) => received?,
                Poll::Pending => return self.poll_limits().map(Err),
            }
        }
    }

    /// Lets a file take the body; `false` if there is no directory for it.
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

    /// Counts what is held of the body. Whether there is memory for more of it, of which a body needs less that a file may take.
    fn may_read_ahead(&mut self, spools: bool) -> bool {
        let held = self.client.held_ahead();
        let total = &self.facts.shard.ahead;
        total.set(total.get() - self.ahead + held);
        self.ahead = held;
        let most = if spools && self.facts.shard.common.spools.is_some() { LARGE } else { BODY_AHEAD };
        held + LEAST_READ <= most && total.get() + LEAST_READ <= BODIES_AHEAD
    }

    /// Counts what is held no more.
    pub(super) fn release_ahead(&mut self) {
        if self.ahead > 0 {
            let total = &self.facts.shard.ahead;
            total.set(total.get() - std::mem::take(&mut self.ahead));
        }
    }
}
