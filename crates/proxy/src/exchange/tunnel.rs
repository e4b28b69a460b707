//! Tunnels: after a valid 101 the bytes of both sides pass, until both have ended or neither has sent anything for too long.

use std::future::poll_fn;
use std::task::{Context, Poll};

use super::transfer::Sending;
use super::{After, Exchange, Gaps};
use crate::direction::Direction;
use crate::error::Failure;
use crate::http1::{Framing, KnownField, Upgrade};
use crate::timer::NEVER;
use crate::upstream;
use crate::websocket;
use crate::work::Work;

impl Exchange<'_> {
    /// The protocols that the client asks for, if it may.
    pub(super) fn asked_protocols(&self) -> Option<&[u8]> {
        let Work { inbound, head, .. } = &*self.work;
        self.upgrade.then(|| head.fields().get(KnownField::Upgrade, inbound.held())).flatten()
    }

    /// Whether a 101 switches to a protocol that was asked for. Without that, what looks like a tunnel may be an endpoint that
    /// understood nothing, and whose next bytes belong to somebody else.
    pub(super) fn agrees_to_switch(&self) -> bool {
        let Work { from_upstream, response, .. } = &*self.work;
        let agreed = response.fields().get(KnownField::Upgrade, from_upstream.held());
        let (Some(asked), Some(agreed)) = (self.asked_protocols(), agreed) else {
            return false;
        };
        response.connection().upgrade == Upgrade::Protocol
            && Upgrade::is_among(agreed, asked)
            && (!agreed.eq_ignore_ascii_case(b"websocket") || self.accepts_websocket())
    }

    /// Whether the answer for a WebSocket has the proof that RFC 6455 4.2.2 demands.
    fn accepts_websocket(&self) -> bool {
        let Work { inbound, head, from_upstream, response, .. } = &*self.work;
        let key = head.fields().get(KnownField::SecWebSocketKey, inbound.held());
        let fields = response.fields();
        let accept = fields.get(KnownField::SecWebSocketAccept, from_upstream.held());
        !head.fields().repeated().contains(KnownField::SecWebSocketKey)
            && !fields.repeated().contains(KnownField::SecWebSocketAccept)
            && key.zip(accept).is_some_and(|(key, accept)| websocket::accept(key) == *accept)
    }

    /// Tells the client, and passes bytes until the tunnel ends.
    pub(super) async fn tunnel(&mut self, up: &mut upstream::Connection, sending: &mut Sending) -> Result<(), Failure> {
        self.after = After::Close;
        self.write_response(Framing::None, false);
        self.status = 101;
        self.answered = true;
        self.limits = Gaps::NONE;
        // The heads stay for the log, and out of the way of what passes.
        let mut to_up = Direction::with_buffer(self.work.inbound.split_rest());
        let mut to_down = Direction::with_buffer(self.work.from_upstream.split_rest());
        let passed = poll_fn(|cx| self.poll_tunnel(cx, up, sending, &mut to_up, &mut to_down)).await;
        to_up.release(&self.connection.worker.store);
        to_down.release(&self.connection.worker.store);
        passed
    }

    fn poll_tunnel(
        &mut self,
        cx: &mut Context<'_>,
        up: &mut upstream::Connection,
        sending: &mut Sending,
        to_up: &mut Direction,
        to_down: &mut Direction,
    ) -> Poll<Result<(), Failure>> {
        if let Poll::Ready(Err(failure)) = self.poll_write_client(cx) {
            return Poll::Ready(Err(failure));
        }
        let before = (self.sent, sending.sent);
        let Work { to_client, .. } = &mut *self.work;
        let stream = &mut self.connection.stream;
        let store = &self.connection.worker.store;
        let up_result = to_up.poll(cx, store, stream, &mut up.stream, &mut sending.sent);
        let down_result = if to_client.is_empty() {
            to_down.poll(cx, store, &mut up.stream, stream, &mut self.sent)
        } else {
            Poll::Pending
        };
        match (up_result, down_result) {
            (Poll::Ready(Err(())), _) => Poll::Ready(Err(Failure::UpstreamClosed)),
            (_, Poll::Ready(Err(()))) => Poll::Ready(Err(Failure::ClientGone)),
            (Poll::Ready(Ok(())), Poll::Ready(Ok(()))) => Poll::Ready(Ok(())),
            _ => {
                if self.limits.read == NEVER || before != (self.sent, sending.sent) {
                    self.limits = Gaps { read: self.after_gap(self.allowance.read), ..Gaps::NONE };
                }
                self.poll_limits().map(Err)
            }
        }
    }
}
