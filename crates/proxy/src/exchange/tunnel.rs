//! Tunnels: after a valid 101, bytes are relayed both ways until both sides have ended or neither has sent anything for too long.

use std::future::poll_fn;
use std::task::{Context, Poll};

use super::Exchange;
use super::side::{poll_down, poll_up};
use super::transfer::Gaps;
use crate::direction::Direction;
use crate::error::Failure;
use crate::timer::NEVER;

/// The two directions of a tunnel.
#[derive(Debug)]
struct Tunnel {
    up: Direction,
    down: Direction,
    /// Whether the memory for heads has been freed.
    lean: bool,
}

impl Exchange<'_> {
    /// Sends the 101 to the client and relays bytes until the tunnel ends.
    pub(super) async fn tunnel(&mut self) -> Result<(), Failure> {
        self.write_response();
        self.limits = Gaps::NONE;
        let mut tunnel = Tunnel { up: self.client.split_tunnel(), down: self.endpoint.split_tunnel(), lean: false };
        let passed = poll_fn(|cx| self.poll_tunnel(cx, &mut tunnel)).await;
        let store = &self.facts.shard.store;
        tunnel.up.release(store);
        tunnel.down.release(store);
        passed
    }

    fn poll_tunnel(&mut self, cx: &mut Context<'_>, tunnel: &mut Tunnel) -> Poll<Result<(), Failure>> {
        if let Poll::Ready(Err(failure)) = self.poll_write_client(cx) {
            return Poll::Ready(Err(failure));
        }
        if !tunnel.lean && self.client.has_written() {
            // A tunnel may last for hours, and there are no more heads.
            tunnel.lean = true;
            self.client.release_output();
            self.endpoint.release_output();
            self.scratch.release();
        }
        let store = &self.facts.shard.store;
        let (mut sent_up, mut sent_down) = (0, 0);
        let sides = (&mut self.client, &mut self.endpoint);
        let up = poll_up(&mut tunnel.up, sides, cx, store, &mut sent_up);
        let down = if self.client.has_written() {
            poll_down(&mut tunnel.down, (&mut self.client, &mut self.endpoint), cx, store, &mut sent_down)
        } else {
            Poll::Pending
        };
        self.endpoint.count_sent(sent_up);
        self.client.count_sent(sent_down);
        match (up, down) {
            (Poll::Ready(Err(())), _) => Poll::Ready(Err(Failure::UpstreamClosed)),
            (_, Poll::Ready(Err(()))) => Poll::Ready(Err(Failure::ClientGone)),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ok(())),
            _ => {
                if self.limits.read == NEVER || sent_up + sent_down > 0 {
                    self.limits = Gaps { read: self.after_gap(self.allowance.read), ..Gaps::NONE };
                }
                self.poll_limits().map(Err)
            }
        }
    }
}
