//! The endpoint's side of an exchange over HTTP/1: sends the request, receives the response, and decides whether the connection
//! may be reused.

use std::hint::cold_path;
use std::io;
use std::task::{Context, Poll, ready};

use fairway_model::decision::Expand;

use super::compose;
use crate::body::{BodySource, RelayedBody};
use crate::buffer::Buffer;
use crate::direction::Direction;
use crate::error::{Errno, Failure};
use crate::http::{
    BodyError, BodyForm, Framing, HeadLimits, KnownField, Method, Parsed, PreparedField, Reframed, RequestHead,
    ResponseHead, ResponsePart, Spanned, Upgrade, websocket,
};
use crate::limit::INTERIM_RESPONSES;
use crate::message::UpstreamRequest;
use crate::outgoing::Outgoing;
use crate::stream::{Upstream, WriteFrom};
use crate::upstream::UpstreamConnection;
use crate::work::{RESPONSE, Store};

/// An endpoint that gets one request.
#[derive(Debug)]
pub(crate) struct Http1Endpoint<'a> {
    /// Present from connecting until the end of the try.
    connection: Option<Box<UpstreamConnection>>,
    out: &'a mut Outgoing,
    head: &'a mut ResponseHead,
    /// The head (held) and the body.
    source: BodySource<'a>,
    /// The framing of the response body.
    declared: Framing,
    /// Bytes sent and received in this try.
    sent: u64,
    received: u64,
    /// Interim responses so far.
    interim: u32,
    /// The received bytes have been parsed and are not enough.
    starved: bool,
}

impl<'a> Http1Endpoint<'a> {
    /// Creates the side before an endpoint is chosen.
    pub(crate) fn new(received: &'a mut Buffer, head: &'a mut ResponseHead, out: &'a mut Outgoing) -> Self {
        Self {
            connection: None,
            out,
            head,
            source: BodySource::new(received),
            declared: Framing::None,
            sent: 0,
            received: 0,
            interim: 0,
            starved: true,
        }
    }

    /// Begins another try.
    pub(crate) fn begin(&mut self) {
        self.connection = None;
        self.out.clear();
        self.head.clear();
        self.source.buffer.clear();
        self.starved = true;
        (self.sent, self.received, self.interim) = (0, 0, 0);
    }

    /// Uses this connection for the try.
    pub(crate) fn connect(&mut self, mut connection: Box<UpstreamConnection>) {
        connection.requests += 1;
        self.connection = Some(connection);
    }

    /// Ends the try and drops its connection.
    pub(crate) fn disconnect(&mut self) {
        self.connection = None;
    }

    /// The connection, if it can carry another request after the complete response to a complete request with `method`.
    pub(crate) fn take_reusable(&mut self, method: Method) -> Option<Box<UpstreamConnection>> {
        let reusable = self.head.allows_reuse(method) && self.source.buffer.is_empty();
        self.connection.take().filter(|_| reusable)
    }

    /// The same for a response that is still in the buffer.
    pub(crate) fn release(&mut self, method: Method) -> Option<Box<UpstreamConnection>> {
        self.connection.take().filter(|_| self.head.allows_reuse(method))
    }

    /// The memory for the head of the request; [`set_request`](Self::set_request) takes it back.
    pub(crate) fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.out.lead)
    }

    /// Appends the head of a request to that memory.
    ///
    /// # Errors
    /// If a configured value makes the head invalid.
    pub(crate) fn write_request(
        &self,
        request: &UpstreamRequest<'_>,
        family: Option<&PreparedField>,
        out: &mut Vec<u8>,
        value: &mut Vec<u8>,
        expand: &mut impl Expand,
    ) -> Result<(), Failure> {
        compose::write_request(request, family, out, value, expand)
    }

    /// Sets the head of the request.
    pub(crate) fn set_request(&mut self, head: Vec<u8>) {
        self.out.lead = head;
    }

    /// Takes as much of the request body as can be written at once. Returns `true` if there is something to write.
    ///
    /// # Errors
    /// The body is malformed.
    pub(crate) fn take_body(&mut self, from: &mut BodySource<'_>) -> Result<bool, BodyError> {
        self.out.fill(&mut from.body, from.buffer)
    }

    /// Writes pending bytes.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, from: &mut BodySource<'_>) -> Poll<io::Result<()>> {
        let connection = self.connection.as_mut().expect("a try that is under way has a connection");
        match self.out.poll_write(cx, &mut connection.stream, from.buffer, &mut self.sent) {
            Poll::Ready(Ok(())) => connection.stream.poll_flush_all(cx),
            other => other,
        }
    }

    /// Whether part of the request waits to be written.
    pub(crate) fn has_unsent(&self) -> bool {
        !self.out.is_empty()
    }

    /// Drops the unwritten part of the request.
    pub(crate) fn drop_unsent(&mut self) {
        self.out.clear();
    }

    /// Bytes sent in this try.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// Bytes received in this try.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Bytes received in this try after the head of the response.
    pub(crate) fn body_received(&self) -> u64 {
        self.received.saturating_sub(self.source.buffer.held().len() as u64)
    }

    /// Receives more of the head of a response.
    pub(crate) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        store: &Store,
        limits: &HeadLimits,
    ) -> Poll<Result<ResponsePart, Failure>> {
        let read = if self.starved {
            store.supply(self.source.buffer);
            self.poll_read(cx, store, None, RESPONSE)
        } else {
            Poll::Ready(Ok(true))
        };
        if read.is_pending() && self.source.buffer.used() == 0 {
            // Other requests use the memory until there is something to put into it.
            store.reclaim(self.source.buffer);
        }
        if !ready!(read)? {
            cold_path();
            return Poll::Ready(Err(Failure::UpstreamClosed));
        }
        let buffer = &mut *self.source.buffer;
        Poll::Ready(match self.head.parse(buffer.filled(), limits) {
            Ok(Parsed::Complete { len }) => {
                buffer.hold(len);
                if self.head.is_interim() {
                    cold_path();
                    self.interim += 1;
                    let few = self.interim <= INTERIM_RESPONSES;
                    return Poll::Ready(if few { Ok(ResponsePart::Interim) } else { Err(Failure::InterimResponses) });
                }
                // No response is sent twice, so the front of the buffer can be reused while it is in the cache.
                buffer.forgo_rewind();
                Ok(ResponsePart::Head)
            }
            Ok(Parsed::Partial { .. }) => {
                cold_path();
                self.starved = true;
                Ok(ResponsePart::Partial)
            }
            Err(error) => Err(Failure::ResponseHead(error)),
        })
    }

    /// Drops an interim response.
    pub(crate) fn drop_interim(&mut self) {
        self.source.buffer.release();
        self.starved = self.source.buffer.is_empty();
    }

    fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        store: &Store,
        more: Option<u64>,
        largest: usize,
    ) -> Poll<Result<bool, Failure>> {
        store.make_room(self.source.buffer, more, largest);
        let connection = self.connection.as_mut().expect("a try that is under way has a connection");
        match ready!(self.source.buffer.poll_fill(&mut connection.stream, cx)) {
            Ok(count) => {
                self.received += count as u64;
                Poll::Ready(Ok(count > 0))
            }
            Err(error) => Poll::Ready(Err(Failure::UpstreamReset(Errno::from(&error)))),
        }
    }

    /// The head of the response.
    pub(crate) fn response(&self) -> Spanned<'_, ResponseHead> {
        Spanned { parsed: self.head, bytes: self.source.buffer.held() }
    }

    /// The status of the response.
    pub(crate) fn status(&self) -> u16 {
        self.head.status()
    }

    /// Starts the body after the head of the response.
    pub(crate) fn begin_body(&mut self, method: Method, form: BodyForm) {
        self.declared = self.head.framing(method);
        self.source.body = RelayedBody::new(self.declared, form);
    }

    /// The framing of the body, as received and as sent to the client.
    pub(crate) fn framing(&self) -> Reframed {
        Reframed { received: self.declared, sent: self.source.body.announced(self.declared) }
    }

    /// The source of the response body.
    pub(crate) fn source(&mut self) -> &mut BodySource<'a> {
        &mut self.source
    }

    /// Receives more of the body; `false` once the endpoint has closed its side.
    pub(crate) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        store: &Store,
        largest: usize,
    ) -> Poll<Result<bool, Failure>> {
        self.poll_read(cx, store, self.source.to_come(), largest)
    }

    /// Whether a 101 switches to a protocol that the client asked for. Otherwise an endpoint that did not understand the upgrade could pass
    /// for a tunnel, and its next bytes would belong to another request.
    pub(crate) fn agrees_to_switch(&self, request: Spanned<'_, RequestHead>) -> bool {
        let Spanned { parsed: response, bytes } = self.response();
        let agreed = response.fields().get(KnownField::Upgrade, bytes);
        let (Some(asked), Some(agreed)) = (request.parsed.asked_protocols(request.bytes), agreed) else {
            return false;
        };
        if !agreed.eq_ignore_ascii_case(b"websocket") {
            return response.connection().upgrade == Upgrade::Protocol && Upgrade::is_among(agreed, asked);
        }
        // The proof required by RFC 6455 4.2.2.
        let fields = request.parsed.fields();
        let key = fields.get(KnownField::SecWebSocketKey, request.bytes);
        let accept = response.fields().get(KnownField::SecWebSocketAccept, bytes);
        response.connection().upgrade == Upgrade::Protocol
            && Upgrade::is_among(agreed, asked)
            && !fields.repeated().contains(KnownField::SecWebSocketKey)
            && !response.fields().repeated().contains(KnownField::SecWebSocketAccept)
            && key.zip(accept).is_some_and(|(key, accept)| websocket::accept(key) == *accept)
    }

    /// The underlying connection.
    pub(crate) fn stream(&mut self) -> &mut Upstream {
        &mut self.connection.as_mut().expect("a try that is under way has a connection").stream
    }

    /// Splits off the bytes of a tunnel that have already arrived. The head is kept for the log, apart from the tunnel's bytes.
    pub(crate) fn split_tunnel(&mut self) -> Direction {
        Direction::with_buffer(self.source.buffer.split_rest())
    }

    /// Frees the memory for output, if everything was written.
    pub(crate) fn release_output(&mut self) {
        self.out.release();
    }

    /// Counts bytes sent by a tunnel.
    pub(crate) fn count_sent(&mut self, count: u64) {
        self.sent += count;
    }
}
