//! The client's side of an exchange over HTTP/2: one stream of a connection.

use std::io::{self, IoSlice};
use std::task::{Context, Poll, Waker, ready};

use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};

use super::block::Block;
use super::body::{BodyReceiving, BodySending, Filled, ReceiveError, gone, poll_room};
use super::compose::{self, FieldGatherer, GatheredField, Head};
use super::link::Link;
use crate::body::{BodySource, ReceivedRequest};
use crate::buffer::Buffer;
use crate::direction::Direction;
use crate::error::Failure;
use crate::http::{After, BodyError, BodyForm, Framing, Method, RequestHead, ResponseHead, Spanned};
use crate::limit::HTTP2_BLOCK;
use crate::message::ResponseContext;
use crate::outgoing::Outgoing;
use crate::record::TlsView;
use crate::respond::Answer;
use crate::stream::{ReadInto, WriteFrom};
use crate::timer::{Millis, NEVER, Timers};
use crate::work::{LARGE, Store};

/// A stream of a connection, in both directions, and the data that waits on it.
#[derive(Debug)]
pub(crate) struct Http2Stream {
    received: BodyReceiving,
    respond: SendResponse<Block>,
    /// Present once the head of the response has been sent.
    send: Option<SendStream<Block>>,
    /// The head of the response, until it is sent.
    response: Option<Head>,
    body: BodySending,
    sent: u64,
    sent_head: u64,
    answered: bool,
}

impl Http2Stream {
    /// A stream with a request.
    pub(crate) fn new(received: RecvStream, respond: SendResponse<Block>) -> Self {
        Self {
            received: BodyReceiving::new(received),
            respond,
            send: None,
            response: None,
            body: BodySending::default(),
            sent: 0,
            sent_head: 0,
            answered: false,
        }
    }

    /// Whether the client has sent all of its request.
    pub(crate) fn has_all(&self) -> bool {
        self.received.has_all()
    }

    /// Whether the client, or `h2` because of the client's fault, has reset the stream before the end of the response.
    pub(crate) fn was_cut(&mut self) -> bool {
        !self.body.is_finished() && self.poll_reset(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    /// Whether the client is still sending although it has the whole response. Some clients (httpx, Java's HttpClient) lose the response if
    /// their stream is then reset, even with NO_ERROR, so their data is read for a while.
    pub(crate) fn lingers(&self) -> bool {
        self.body.is_finished() && !self.has_all()
    }

    /// Discards data; `None` at the end of the body.
    pub(crate) fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<Option<u64>> {
        self.received.poll_discard(cx)
    }

    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.send {
            None => self.respond.poll_reset(cx).map(drop),
            Some(send) => send.poll_reset(cx).map(drop),
        }
    }

    fn reset(&mut self, reason: Reason) {
        if !self.body.is_finished() {
            match &mut self.send {
                None => self.respond.send_reset(reason),
                Some(send) => send.send_reset(reason),
            }
        }
    }
}

/// A client that has sent a request on a stream.
#[derive(Debug)]
pub(crate) struct Http2Client<'a> {
    link: &'a Link,
    stream: &'a mut Http2Stream,
    pub(crate) request: ReceivedRequest<'a>,
    /// Memory for the text of fields.
    out: &'a mut Outgoing,
    lines: &'a mut Vec<GatheredField>,
}

impl<'a> Http2Client<'a> {
    /// Starts with a head that was written to the front of `received`. The head is valid once [`begin`](Self::begin) reports that it was
    /// accepted.
    pub(crate) fn new(
        link: &'a Link,
        stream: &'a mut Http2Stream,
        received: &'a mut Buffer,
        head: &'a RequestHead,
        out: &'a mut Outgoing,
        lines: &'a mut Vec<GatheredField>,
    ) -> Self {
        Self { link, stream, request: ReceivedRequest::new(received, head), out, lines }
    }

    /// Reports that the head was accepted and is held. `may_keep` says whether the connection may carry another request.
    pub(crate) fn begin(&mut self, may_keep: bool) {
        self.request.begin();
        if !may_keep {
            self.link.leave();
        }
    }

    /// Whether a final response with this status would pass for an agreement to switch: a client that asked for a protocol takes any 2xx
    /// for one (RFC 8441 5).
    pub(crate) fn would_switch_at(&self, status: u16) -> bool {
        (200..300).contains(&status) && self.request.asked_protocols().is_some()
    }

    /// The status that the client gets for an endpoint's status.
    pub(crate) fn status_for(&self, status: u16) -> u16 {
        if status == 101 { 200 } else { status }
    }

    /// Tells a client that expects `100 Continue` to send its body.
    pub(crate) fn write_continue(&mut self) -> bool {
        if self.request.takes_permission() && self.stream.received.is_drained() && !self.stream.answered {
            let mut interim = ::http::Response::new(());
            *interim.status_mut() = ::http::StatusCode::CONTINUE;
            // Reading the body will show if the client has reset the stream.
            let _ = self.stream.respond.send_informational(interim);
        }
        // `h2` writes it, so there is nothing to write here.
        false
    }

    /// Receives more of the body.
    pub(crate) fn poll_receive(&mut self, cx: &mut Context<'_>, store: &Store) -> Poll<Result<(), Failure>> {
        if let Some(read) = self.request.poll_read_again(cx, store) {
            // The file is broken.
            return read.map_err(|_| Failure::Unwritable);
        }
        self.release();
        let chunked = self.request.head.framing() == Framing::Chunked;
        store.make_room(self.request.source.buffer, self.request.source.to_come(), LARGE);
        let filled = self.stream.received.poll_fill(cx, self.request.source.buffer, chunked, &mut self.out.lead);
        Poll::Ready(match ready!(filled) {
            // `h2` compares the length of the body with the announced one.
            Ok(Filled::End) if !chunked => Err(Failure::RequestBody(BodyError::InvalidFrames)),
            Ok(_) => Ok(()),
            Err(ReceiveError::Gone(error)) => Err(failure(&error)),
            Err(ReceiveError::Trailers) => Err(Failure::RequestBody(BodyError::TrailersTooLong)),
        })
    }

    fn release(&mut self) {
        self.stream.received.release();
    }

    /// Completes when the client has reset the stream or is gone.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>, _: &Timers) -> Poll<Failure> {
        if self.request.source.body.has_ended() {
            self.release();
        }
        self.stream.poll_reset(cx).map(|()| Failure::ClientGone)
    }

    /// The latest time for the next call of [`poll_gone`](Self::poll_gone): never, because its task is woken.
    pub(crate) fn next_look(&self) -> Millis {
        NEVER
    }

    /// Takes as much of the response body as can be handed over at once. Returns `true` if there is something to write.
    ///
    /// # Errors
    /// The body is malformed.
    pub(crate) fn take_body(&mut self, from: &mut BodySource<'_>) -> Result<bool, BodyError> {
        self.stream.body.take_body(from, self.link)?;
        Ok(!self.has_written())
    }

    /// Reports that the endpoint closed its side and that all its bytes were taken.
    ///
    /// # Errors
    /// The body had not ended.
    pub(crate) fn end_body(&mut self, from: &mut BodySource<'_>) -> Result<(), BodyError> {
        from.body.close(self.out)?;
        self.stream.body.end();
        Ok(())
    }

    /// Hands everything over to the connection, as far as the client's window allows.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, _: &mut BodySource<'_>) -> Poll<io::Result<()>> {
        if let Some((head, size)) = self.stream.response.take() {
            let alone = self.stream.body.is_void();
            self.stream.send = Some(self.stream.respond.send_response(head, alone).map_err(|_| gone())?);
            if alone {
                self.stream.body.finish();
            }
            self.stream.sent += size;
            self.stream.sent_head = self.stream.sent;
            self.link.credit(size as usize);
        }
        let Http2Stream { send, body, sent, .. } = &mut *self.stream;
        let Some(send) = send else { return Poll::Ready(Ok(())) };
        body.poll_write(cx, send, self.link, sent)
    }

    /// Bytes of the response that were handed over, counting its head uncompressed.
    pub(crate) fn sent(&self) -> u64 {
        self.stream.sent
    }

    /// The gRPC status in the trailers of the response.
    pub(crate) fn grpc_status(&self) -> Option<u16> {
        self.stream.body.grpc_status()
    }

    /// Bytes sent after the head of the response.
    pub(crate) fn body_sent(&self) -> u64 {
        self.stream.sent.saturating_sub(self.stream.sent_head)
    }

    /// Whether the client may have seen a part of a response.
    pub(crate) fn is_answered(&self) -> bool {
        self.stream.answered
    }

    /// How the client learns where a body ends.
    pub(crate) fn body_form(&self) -> BodyForm {
        BodyForm::Frames
    }

    /// Forwards an interim response.
    pub(crate) fn write_interim(&mut self, response: Spanned<'_, ResponseHead>) {
        // Only the proxy sends 100: the expectation was not forwarded.
        if response.parsed.status() != 100 {
            let (head, size) = compose::interim(response, FieldGatherer::new(&mut self.out.lead, self.lines));
            self.out.lead.clear();
            if self.stream.respond.send_informational(head).is_ok() {
                self.stream.sent += size;
                self.stream.answered = true;
            }
        }
    }

    /// Writes the head of the response with all edits applied. `whole` says that the body has the announced length.
    pub(crate) fn write_response(
        &mut self,
        response: Spanned<'_, ResponseHead>,
        whole: bool,
        mut context: ResponseContext<'_>,
        value: &mut Vec<u8>,
    ) {
        let status = self.status_for(response.parsed.status());
        let gathered = FieldGatherer::new(&mut self.out.lead, self.lines);
        self.stream.response = Some(compose::response(response, status, whole, gathered, &mut context, value));
        self.out.lead.clear();
        self.stream.answered = true;
    }

    /// Takes back a response of which nothing was sent; `false` if part of it was.
    pub(crate) fn take_back(&mut self) -> bool {
        let whole = self.stream.response.is_some();
        if whole {
            self.forget_response();
        }
        whole
    }

    fn forget_response(&mut self) {
        self.stream.response = None;
        self.stream.body.clear();
    }

    /// Writes one of the proxy's own answers and returns its status.
    pub(crate) fn write_answer(
        &mut self,
        answer: Answer<'_>,
        mut context: ResponseContext<'_>,
        value: &mut Vec<u8>,
    ) -> u16 {
        self.forget_response();
        let head_only = self.request.method() == Method::Head;
        let gathered = FieldGatherer::new(&mut self.out.lead, self.lines);
        let body = self.stream.body.room(self.link);
        let head = compose::answer(&answer, head_only, gathered, &mut context, value, body);
        self.out.lead.clear();
        let status = head.0.status().as_u16();
        self.stream.response = Some(head);
        self.stream.body.end();
        self.stream.answered = true;
        status
    }

    /// Ends the connection after its present streams.
    pub(crate) fn close(&self) {
        self.link.leave();
    }

    /// Gives up: there is no client to answer.
    pub(crate) fn give_up(&mut self) {
        self.stream.reset(Reason::CANCEL);
    }

    /// Cuts the response. A client that is not to blame learns that it isn't complete.
    pub(crate) fn cut_response(&mut self, to_blame: bool) {
        self.stream.reset(if to_blame { Reason::CANCEL } else { Reason::INTERNAL_ERROR });
    }

    /// How the connection continues, which one stream does not decide.
    pub(crate) fn after(&self) -> After {
        After::Keep
    }

    /// Splits off the bytes of a tunnel that have already arrived.
    pub(crate) fn split_tunnel(&mut self) -> Direction {
        Direction::with_buffer(self.request.source.buffer.split_rest())
    }

    /// Whether everything was handed over.
    pub(crate) fn has_written(&self) -> bool {
        self.stream.response.is_none() && self.stream.body.is_empty()
    }

    /// Frees the memory for output, if everything was written.
    pub(crate) fn release_output(&mut self) {
        self.out.release();
    }

    /// Counts bytes sent by a tunnel.
    pub(crate) fn count_sent(&mut self, count: u64) {
        self.stream.sent += count;
    }

    /// The log's view of the TLS session.
    pub(crate) fn tls_view(&self) -> Option<TlsView<'_>> {
        self.link.tls_view()
    }
}

impl Drop for Http2Client<'_> {
    fn drop(&mut self) {
        self.stream.body.release(self.link);
    }
}

/// A tunnel's bytes from the client.
impl ReadInto for Http2Client<'_> {
    fn poll_read_into(&mut self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        self.release();
        self.stream.received.poll_copy(cx, room).map_err(|_| gone())
    }
}

/// A tunnel's bytes to the client.
impl WriteFrom for Http2Client<'_> {
    fn poll_write_from(&mut self, cx: &mut Context<'_>, pieces: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let Some(send) = &mut self.stream.send else { return Poll::Ready(Err(gone())) };
        let wanted = pieces.iter().map(|piece| piece.len()).sum::<usize>().min(HTTP2_BLOCK);
        let count = ready!(poll_room(send, cx, wanted))?.min(wanted);
        let mut memory = self.link.blocks.take();
        for piece in pieces {
            let left = count - memory.len();
            memory.extend_from_slice(&piece[..left.min(piece.len())]);
        }
        send.send_data(Block::new(memory, 0, self.link.blocks.clone()), false).map_err(|_| gone())?;
        self.link.credit(count);
        Poll::Ready(Ok(count))
    }

    fn poll_flush_all(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(if self.stream.poll_reset(cx).is_ready() { Err(gone()) } else { Ok(()) })
    }

    fn poll_finish(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Some(send) = &mut self.stream.send
            && !self.stream.body.is_finished()
        {
            self.stream.body.finish();
            send.send_data(Block::new(Vec::new(), 0, self.link.blocks.clone()), true).map_err(|_| gone())?;
        }
        Poll::Ready(Ok(()))
    }
}

/// Why a request body ended early: `h2` found a fault in it, or the client has gone or cancelled it.
fn failure(error: &h2::Error) -> Failure {
    let faulty = error.is_library() && error.reason() == Some(Reason::PROTOCOL_ERROR);
    if faulty { Failure::RequestBody(BodyError::InvalidFrames) } else { Failure::ClientGone }
}
