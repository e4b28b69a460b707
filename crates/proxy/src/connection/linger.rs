//! The end of a connection on which the client is still sending.
//!
//! If such a connection were closed at once, the kernel would answer the client's next bytes with a reset, which may overtake the response
//! (RFC 9112 9.6). So the proxy first shuts down writing and discards input for a while.

use std::future::poll_fn;
use std::task::{Context, Poll};

use super::ClientConnection;
use crate::limit::{LINGER_BYTES, LINGER_GAP, LINGER_TIME};
use crate::stream::WriteFrom;
use crate::timer::{Millis, NEVER, within};
use crate::work::Work;

impl ClientConnection {
    /// Shuts down writing and reads until the client has ended its side, or for a limited time.
    pub(super) async fn linger(&mut self, work: &mut Work) {
        let end = self.facts.shard.timers.after(LINGER_TIME);
        self.admission.give_way();
        self.deadline.set_after(LINGER_GAP);
        if within(&self.deadline, poll_fn(|cx| self.stream.poll_finish(cx))).await.is_none() {
            return;
        }
        let mut left = LINGER_BYTES;
        work.inbound.clear();
        poll_fn(|cx| self.poll_discard(cx, work, &mut left, end)).await;
        self.deadline.set(NEVER);
    }

    fn poll_discard(&mut self, cx: &mut Context<'_>, work: &mut Work, left: &mut u64, end: Millis) -> Poll<()> {
        loop {
            match work.inbound.poll_fill(&mut self.stream, cx) {
                Poll::Ready(Ok(0) | Err(_)) => return Poll::Ready(()),
                Poll::Ready(Ok(count)) => {
                    work.inbound.clear();
                    *left = left.saturating_sub(count as u64);
                    self.deadline.set(self.facts.shard.timers.after(LINGER_GAP).min(end));
                    if *left == 0 || self.facts.shard.timers.now() >= end {
                        return Poll::Ready(());
                    }
                }
                Poll::Pending if self.deadline.expired() || self.admission.is_called() => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}
