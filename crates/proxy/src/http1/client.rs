//! The client's side of an exchange over HTTP/1: receives the request body, sends the response, and decides how the connection
//! continues.

use std::io;
use std::task::{Context, Poll};

use super::attention::Attention;
use super::compose::{self, AnswerTo, ClientResponse, Persistence};
use crate::body::{BodyDecoder, BodySource, ChunkLimits, Event, ReceivedRequest};
use crate::buffer::Buffer;
use crate::direction::Direction;
use crate::error::Failure;
use crate::http::{
    After, BodyError, BodyForm, CONTINUE, Framing, KnownField, Method, Reframed, RequestHead, ResponseHead, Spanned,
    Version,
};
use crate::message::ResponseContext;
use crate::outgoing::Outgoing;
use crate::respond::Answer;
use crate::stream::{Downstream, WriteFrom};
use crate::timer::{Millis, Timers};
use crate::work::{LARGE, Store};

/// A client that has sent a request, or the beginning of one.
#[derive(Debug)]
pub(crate) struct Http1Client<'a> {
    stream: &'a mut Downstream,
    pub(crate) request: ReceivedRequest<'a>,
    out: &'a mut Outgoing,
    attention: Attention,
    after: After,
    /// Bytes sent, and how many of them belong to the head.
    sent: u64,
    sent_head: u64,
    /// Whether any byte of a response, even an interim one, was handed to the connection.
    answered: bool,
    /// Where the response begins: in the output, and counted over all bytes sent.
    begins: (usize, u64),
    /// Whether closing the connection is the only way to show the client that the response was cut.
    ends_with_connection: bool,
}

impl<'a> Http1Client<'a> {
    /// Starts with what the client has sent so far. The head is valid once [`begin`](Self::begin) reports that it was parsed.
    pub(crate) fn new(
        stream: &'a mut Downstream,
        received: &'a mut Buffer,
        head: &'a RequestHead,
        out: &'a mut Outgoing,
    ) -> Self {
        Self {
            stream,
            request: ReceivedRequest::new(received, head),
            out,
            attention: Attention::new(),
            after: After::Linger,
            sent: 0,
            sent_head: 0,
            answered: false,
            begins: (0, 0),
            ends_with_connection: false,
        }
    }

    /// Reports that the head was parsed and is held. `may_keep` says whether the connection may carry another request.
    pub(crate) fn begin(&mut self, may_keep: bool) {
        self.request.begin();
        self.after = if may_keep && self.request.head.connection().keep_alive { After::Keep } else { After::Close };
    }

    /// Tells a client that expects `100 Continue` to send its body. Returns `true` if there is something to write.
    pub(crate) fn write_continue(&mut self) -> bool {
        let waits = self.request.takes_permission() && !self.answered;
        if waits {
            // It is an interim response, but not from the endpoint: the request may still be tried elsewhere.
            self.out.lead.extend_from_slice(CONTINUE);
        }
        waits
    }

    /// Receives more of the body.
    pub(crate) fn poll_receive(&mut self, cx: &mut Context<'_>, store: &Store) -> Poll<Result<(), Failure>> {
        if let Some(read) = self.request.poll_read_again(cx, store) {
            // The file is broken.
            return read.map_err(|_| Failure::Unwritable);
        }
        store.make_room(self.request.source.buffer, self.request.source.to_come(), LARGE);
        self.request.source.buffer.poll_fill(self.stream, cx).map(|read| match read {
            Ok(0) => Err(Failure::RequestBody(BodyError::Incomplete)),
            Err(_) => Err(Failure::ClientGone),
            Ok(_) => Ok(()),
        })
    }

    /// Completes when the client is gone. Bytes that it sends meanwhile are kept for later.
    pub(crate) fn poll_gone(&mut self, cx: &mut Context<'_>, timers: &Timers) -> Poll<Failure> {
        if self.request.is_spooled() {
            // The body is being read from a file, and what the client sends now comes after it.
            return self.attention.poll_reset(self.stream, timers);
        }
        self.attention.poll_gone(cx, &mut self.request.source, self.stream, timers)
    }

    /// Says whether the body is left unread for now.
    pub(crate) fn leave_body(&mut self, leaves: bool) {
        self.attention.leaves_body = leaves;
    }

    /// The latest time for the next call of [`poll_gone`](Self::poll_gone).
    pub(crate) fn next_look(&self) -> Millis {
        self.attention.look
    }

    /// Takes as much of the response body as can be written at once. Returns `true` if there is something to write.
    ///
    /// # Errors
    /// The body is malformed.
    pub(crate) fn take_body(&mut self, from: &mut BodySource<'_>) -> Result<bool, BodyError> {
        self.out.fill(&mut from.body, from.buffer)
    }

    /// Reports that the endpoint closed its side and that all its bytes were taken.
    ///
    /// # Errors
    /// The body had not ended.
    pub(crate) fn end_body(&mut self, from: &mut BodySource<'_>) -> Result<(), BodyError> {
        from.body.close(self.out)
    }

    /// Writes pending bytes, and makes sure that the kernel has them.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>, from: &mut BodySource<'_>) -> Poll<io::Result<()>> {
        match self.out.poll_write(cx, self.stream, from.buffer, &mut self.sent) {
            Poll::Ready(Ok(())) => self.stream.poll_flush_all(cx),
            other => other,
        }
    }

    /// Bytes sent.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// Bytes sent after the head of the response.
    pub(crate) fn body_sent(&self) -> u64 {
        self.sent.saturating_sub(self.sent_head)
    }

    /// Whether the client may have seen a byte of a response.
    pub(crate) fn is_answered(&self) -> bool {
        self.answered
    }

    /// How the client learns where a body ends.
    pub(crate) fn body_form(&self) -> BodyForm {
        if self.request.head.version() == Version::Http11 { BodyForm::Chunks } else { BodyForm::Close }
    }

    /// Forwards an interim response, if the client's version has them.
    pub(crate) fn write_interim(&mut self, response: Spanned<'_, ResponseHead>) {
        let Spanned { parsed, bytes } = response;
        // Only the proxy sends 100: the expectation was not forwarded.
        if parsed.status() == 100 || (parsed.status() == 103 && !self.navigates()) {
            return;
        }
        self.answered |= compose::write_interim(parsed, bytes, self.request.head.version(), &mut self.out.lead);
    }

    /// Whether a browser asks for a page. Only browsers act on early hints, and other programs may take them for the response, as Python's
    /// http.client does (RFC 8297 2 and 3 allow leaving them out for such clients).
    fn navigates(&self) -> bool {
        let asked = |head: Spanned<'_, RequestHead>| {
            head.parsed.fields().named(b"sec-fetch-mode", head.bytes).any(|mode| mode == b"navigate")
        };
        self.request.head().is_some_and(asked)
    }

    /// Writes the head of the response with all edits applied.
    pub(crate) fn write_response(
        &mut self,
        response: Spanned<'_, ResponseHead>,
        framing: Reframed,
        context: ResponseContext<'_>,
        value: &mut Vec<u8>,
    ) {
        let Spanned { parsed: response, bytes } = response;
        let switches = response.status() == 101;
        let Reframed { received: declared, sent: announced } = framing;
        if switches || self.request.asked_protocols().is_some() || announced == Framing::UntilClose {
            // A client that asked for another protocol may already have sent bytes of it.
            self.keep_no_longer(After::Close);
        }
        if !self.request.source.body.has_ended() {
            // The client is still sending, and the rest may never be read.
            self.keep_no_longer(After::Linger);
        }
        self.close_behind_last();
        self.begins = (self.out.lead.len(), self.sent + self.out.pending() as u64);
        ClientResponse {
            head: response,
            bytes,
            framing: if switches { Framing::None } else { announced },
            framing_kept: !switches && announced == declared && response.status() != 204,
            persistence: self.persistence(),
            switched_to: switches.then(|| response.fields().get(KnownField::Upgrade, bytes)).flatten(),
        }
        .write(&context, &mut self.out.lead, value);
        self.sent_head = self.sent + self.out.pending() as u64;
        if context.live.prepared.log_tells_response {
            context.sent_head.extend_from_slice(&self.out.lead[self.begins.0..]);
        }
        self.answered = true;
        self.ends_with_connection = announced == Framing::UntilClose;
    }

    /// Takes back a response of which nothing was written; `false` if part of it was.
    pub(crate) fn take_back(&mut self) -> bool {
        let (ahead, before) = self.begins;
        let whole = self.sent <= before;
        if whole {
            self.out.cut(ahead);
        }
        whole
    }

    /// Writes one of the proxy's own answers and returns its status.
    pub(crate) fn write_answer(
        &mut self,
        answer: Answer<'_>,
        context: ResponseContext<'_>,
        value: &mut Vec<u8>,
    ) -> u16 {
        self.close_behind_last();
        let to = AnswerTo { head_only: self.request.method() == Method::Head, persistence: self.persistence() };
        // The rest of an interim response has to go first.
        self.out.clear_unless_begun();
        let before = self.out.lead.len();
        let (status, body) = compose::write_answer(&answer, to, &context, &mut self.out.lead, value);
        self.sent_head = self.sent + (self.out.pending() - body) as u64;
        if context.live.prepared.log_tells_response {
            context.sent_head.extend_from_slice(&self.out.lead[before..self.out.lead.len() - body]);
        }
        self.answered = true;
        status
    }

    /// Drops the received part of the request body. `unsent` says whether some of it waits to be sent to the endpoint. If the body has not
    /// ended, the connection can't carry another request.
    pub(crate) fn skip_body(&mut self, unsent: bool) {
        if !self.skipped_body(unsent) {
            self.after = After::Linger;
        }
    }

    fn skipped_body(&mut self, unsent: bool) -> bool {
        if !self.request.is_parsed() {
            return true;
        }
        let framing = self.request.framing();
        let BodySource { buffer, body } = &mut self.request.source;
        if !buffer.rewind() {
            return body.has_ended() && !unsent;
        }
        let mut decoder = BodyDecoder::new(framing, ChunkLimits::default());
        while !decoder.is_done() {
            match decoder.decode(buffer.filled()) {
                Ok(decoded) if decoded.event != Event::NeedMore => buffer.consume(decoded.consumed),
                _ => return false,
            }
        }
        true
    }

    /// Closes the connection after this exchange.
    pub(crate) fn close(&mut self) {
        self.keep_no_longer(After::Close);
    }

    /// Notes that the whole request was read, so that closing needs no lingering.
    pub(crate) fn forgo_linger(&mut self) {
        if self.after == After::Linger {
            self.after = After::Close;
        }
    }

    /// Stops trusting the rest of the input: it is uncertain or unwanted.
    pub(crate) fn distrust(&mut self) {
        self.after = After::Linger;
    }

    /// Gives up: there is no client to answer.
    pub(crate) fn give_up(&mut self) {
        self.after = After::Close;
    }

    /// Cuts the response. If its framing doesn't show that to the client, a reset does, unless the client is `to_blame`.
    pub(crate) fn cut_response(&mut self, to_blame: bool) {
        self.after = if to_blame || !self.ends_with_connection { After::Close } else { After::Reset };
    }

    /// How the connection continues.
    pub(crate) fn after(&self) -> After {
        self.after
    }

    /// The underlying connection.
    pub(crate) fn stream(&mut self) -> &mut Downstream {
        self.stream
    }

    /// The underlying connection, read-only.
    pub(crate) fn stream_ref(&self) -> &Downstream {
        self.stream
    }

    /// Splits off the bytes of a tunnel that have already arrived. The head is kept for the log, apart from the tunnel's bytes.
    pub(crate) fn split_tunnel(&mut self) -> Direction {
        Direction::with_buffer(self.request.source.buffer.split_rest())
    }

    /// Whether everything was written.
    pub(crate) fn has_written(&self) -> bool {
        self.out.is_empty()
    }

    /// Frees the memory for output, if everything was written.
    pub(crate) fn release_output(&mut self) {
        self.out.release();
    }

    /// Counts bytes sent by a tunnel.
    pub(crate) fn count_sent(&mut self, count: u64) {
        self.sent += count;
    }

    fn keep_no_longer(&mut self, after: After) {
        if self.after == After::Keep || after == After::Linger {
            self.after = after;
        }
    }

    /// Closes the connection if the client has sent its last request.
    fn close_behind_last(&mut self) {
        if self.attention.has_ended() && self.request.source.buffer.is_empty() {
            self.keep_no_longer(After::Close);
        }
    }

    /// The connection fields for the client.
    fn persistence(&self) -> Persistence {
        match (self.after, self.request.head.version()) {
            (After::Keep, Version::Http11) => Persistence::Kept,
            (After::Keep, Version::Http10) => Persistence::KeptExplicitly,
            _ => Persistence::Closed,
        }
    }
}
