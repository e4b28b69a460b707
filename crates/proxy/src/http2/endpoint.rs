//! The endpoint's side of an exchange over HTTP/2: one stream of a shared connection.
//!
//! The head of a response is written in the form of HTTP/1 into the buffer of the response and parsed there, so that it passes the same
//! checks and limits. Dropping the side before its end resets the stream.

use std::cell::RefCell;
use std::io;
use std::task::{Context, Poll, ready};

use ::http::response::Parts;
use fairway_model::decimal;
use fairway_model::decision::Expand;
use h2::client::ResponseFuture;
use h2::{Reason, RecvStream, SendStream};

use super::block::Block;
use super::body::{BodyReceiving, BodySending, Filled, ReceiveError, gone};
use super::compose::{self, GatheredField, RequestTo};
use super::pool::StreamPlace;
use crate::body::{BodySource, RelayedBody};
use crate::error::{Errno, Failure};
use crate::http::{
    BodyError, BodyForm, Framing, HeadError, HeadLimits, Method, Parsed, Reframed, ResponseHead, ResponsePart, Spanned,
    reason,
};
use crate::limit::INTERIM_RESPONSES;
use crate::message::UpstreamRequest;
use crate::timer::{Millis, NEVER};
use crate::work::{Http2Memory, Store};

/// One stream.
#[derive(Debug)]
struct Call {
    /// Declared before the place, so that the stream ends first.
    stream: CallStream,
    body: BodySending,
    /// Bytes that the connection had read when the try began.
    read_before: u64,
    place: StreamPlace,
}

#[derive(Debug)]
enum CallStream {
    /// The request has not been sent.
    None,
    /// The response has not arrived.
    Asked(ResponseFuture, SendStream<Block>),
    /// It has begun.
    Answered(BodyReceiving, SendStream<Block>),
    /// There is no response.
    Failed(Failure),
}

/// An endpoint that gets one request.
#[derive(Debug)]
pub(crate) struct Http2Endpoint<'a> {
    /// Present from connecting until the end of the try.
    call: Option<Call>,
    /// The head of the request, until it is sent.
    request: Option<Box<RequestTo>>,
    head: &'a mut ResponseHead,
    text: &'a mut Vec<u8>,
    lines: RefCell<&'a mut Vec<GatheredField>>,
    /// The head (held) and the body of the response.
    source: BodySource<'a>,
    declared: Framing,
    sent: u64,
    received: u64,
    interim: u32,
    /// When the client's timeout for the request expires.
    pub(crate) until: Millis,
}

impl<'a> Http2Endpoint<'a> {
    /// Creates the side before an endpoint is chosen.
    pub(crate) fn new(memory: &'a mut Http2Memory, store: &Store) -> Self {
        let Http2Memory { received, head, text, lines } = memory;
        store.supply(received);
        Self {
            call: None,
            request: None,
            head,
            text,
            lines: RefCell::new(lines),
            source: BodySource::new(received),
            declared: Framing::None,
            sent: 0,
            received: 0,
            interim: 0,
            until: NEVER,
        }
    }

    /// Begins another try.
    pub(crate) fn begin(&mut self) {
        self.disconnect();
        self.head.clear();
        self.source.buffer.clear();
        (self.sent, self.received, self.interim) = (0, 0, 0);
    }

    /// Uses a place on a connection for the try.
    pub(crate) fn connect(&mut self, place: StreamPlace) {
        let read_before = place.connection.link.read();
        self.call = Some(Call { stream: CallStream::None, body: BodySending::default(), read_before, place });
    }

    /// Ends the try. An unfinished stream is reset.
    pub(crate) fn disconnect(&mut self) {
        self.request = None;
        if let Some(Call { mut body, place, stream, .. }) = self.call.take() {
            body.release(&place.connection.link);
            drop(stream);
        }
    }

    /// Notes that the endpoint took too long. If it has sent nothing at all meanwhile, its connection gets no more requests: it may be
    /// dead.
    pub(crate) fn suspect(&self) {
        if let Some(call) = &self.call
            && call.place.connection.link.read() == call.read_before
        {
            call.place.connection.retire();
        }
    }

    /// The memory for the head of the request; [`set_request`](Self::set_request) takes it back.
    pub(crate) fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(self.text)
    }

    /// Composes the head of a request.
    ///
    /// # Errors
    /// If a configured value makes the head invalid.
    pub(crate) fn write_request(
        &self,
        request: &UpstreamRequest<'_>,
        text: &mut Vec<u8>,
        value: &mut Vec<u8>,
        expand: &mut impl Expand,
    ) -> Result<Box<RequestTo>, Failure> {
        let secure = self.call.as_ref().is_some_and(|call| call.place.connection.secure);
        compose::request(request, secure, text, &mut self.lines.borrow_mut(), value, expand).map(Box::new)
    }

    /// Sets the head of the request.
    pub(crate) fn set_request(&mut self, text: Vec<u8>, request: Option<Box<RequestTo>>) {
        *self.text = text;
        self.request = request;
    }

    /// Makes the request a gRPC call by the proxy itself, with a body that is already complete.
    ///
    /// # Errors
    /// If there is no connection, or the host is invalid.
    pub(crate) fn begin_call(&mut self, authority: &str, path: &'static str, body: &[u8]) -> Result<(), Failure> {
        let Some(Call { body: sending, place, .. }) = &mut self.call else { return Err(Failure::UpstreamClosed) };
        self.request = Some(Box::new(compose::call(authority, path, place.connection.secure)?));
        sending.room(&place.connection.link).extend_from_slice(body);
        sending.end();
        Ok(())
    }

    /// Takes as much of the request body as can be handed over at once. Returns `true` if there is something to write.
    ///
    /// # Errors
    /// The body is malformed.
    pub(crate) fn take_body(&mut self, from: &mut BodySource<'_>) -> Result<bool, BodyError> {
        let Some(call) = &mut self.call else { return Ok(false) };
        call.body.take_body(from, &call.place.connection.link)?;
        Ok(self.has_unsent())
    }

    /// Hands pending data over to the connection, as far as the endpoint's window allows.
    pub(crate) fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(call) = &mut self.call else { return Poll::Ready(Err(gone())) };
        let connection = &*call.place.connection;
        if let Some(request) = self.request.take() {
            let (request, size) = *request;
            let alone = call.body.is_void();
            match connection.requests.clone().send_request(request, alone) {
                Ok((response, send)) => call.stream = CallStream::Asked(response, send),
                Err(error) => {
                    call.stream = CallStream::Failed(failure(&error));
                    return Poll::Ready(Err(gone()));
                }
            }
            if alone {
                call.body.finish();
            }
            self.sent += size;
            connection.link.credit(size as usize);
        }
        let (CallStream::Asked(_, send) | CallStream::Answered(_, send)) = &mut call.stream else {
            return Poll::Ready(Err(gone()));
        };
        call.body.poll_write(cx, send, &connection.link, &mut self.sent)
    }

    /// Whether part of the request waits to be written.
    pub(crate) fn has_unsent(&self) -> bool {
        self.request.is_some() || self.call.as_ref().is_some_and(|call| !call.body.is_empty())
    }

    /// Drops the unwritten part of the request.
    pub(crate) fn drop_unsent(&mut self) {
        if let Some(call) = &mut self.call {
            call.body.clear();
        }
    }

    /// Bytes sent in this try, counting the head uncompressed.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }

    /// Bytes received in this try, counting heads uncompressed.
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// Bytes received in this try after the head of the response.
    pub(crate) fn body_received(&self) -> u64 {
        self.received.saturating_sub(self.source.buffer.held().len() as u64)
    }

    /// Receives the head of a response.
    pub(crate) fn poll_head(
        &mut self,
        cx: &mut Context<'_>,
        store: &Store,
        limits: &HeadLimits,
    ) -> Poll<Result<ResponsePart, Failure>> {
        let Some(call) = &mut self.call else { return Poll::Ready(Err(Failure::UpstreamClosed)) };
        let future = match &mut call.stream {
            CallStream::Asked(future, _) => future,
            CallStream::Failed(failure) => return Poll::Ready(Err(*failure)),
            CallStream::None | CallStream::Answered(..) => return Poll::Ready(Err(Failure::UpstreamClosed)),
        };
        if let Some(interim) = ready!(future.poll_informational(cx)) {
            let (parts, ()) = interim.map_err(|error| failure(&error))?.into_parts();
            self.interim += 1;
            if self.interim > INTERIM_RESPONSES {
                return Poll::Ready(Err(Failure::InterimResponses));
            }
            self.hold(&parts, store, limits)?;
            // HTTP/2 has no 101 (RFC 9113 8.6); to an HTTP/1.1 client it would look like a protocol switch.
            let part = if self.head.is_interim() { Ok(ResponsePart::Interim) } else { Err(Failure::InvalidFrames) };
            return Poll::Ready(part);
        }
        let (parts, received) =
            ready!(std::pin::Pin::new(future).poll(cx)).map_err(|error| failure(&error))?.into_parts();
        call.answer(received);
        self.hold(&parts, store, limits)?;
        // No response is sent twice, so the front of the buffer can be reused while it is in the cache.
        self.source.buffer.forgo_rewind();
        Poll::Ready(Ok(ResponsePart::Head))
    }

    /// Writes a head in the form of HTTP/1 and holds it.
    fn hold(&mut self, parts: &Parts, store: &Store, limits: &HeadLimits) -> Result<(), Failure> {
        let text = &mut *self.text;
        text.clear();
        text.extend_from_slice(b"HTTP/1.1 ");
        decimal::number(parts.status.as_u16().into(), text);
        for part in [b" ", reason(parts.status.as_u16()).as_bytes(), b"\r\n"] {
            text.extend_from_slice(part);
        }
        for (name, value) in &parts.headers {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                text.extend_from_slice(part);
            }
            if text.len() > limits.total {
                return Err(Failure::ResponseHead(HeadError::HeadTooLong));
            }
        }
        text.extend_from_slice(b"\r\n");
        let buffer = &mut *self.source.buffer;
        buffer.clear();
        store.fit(buffer, text.len());
        buffer.append(text);
        self.received += text.len() as u64;
        match self.head.parse(buffer.filled(), limits).map_err(Failure::ResponseHead)? {
            Parsed::Complete { len } => buffer.hold(len),
            // Can't happen: the text ends with an empty line.
            Parsed::Partial { .. } => return Err(Failure::ResponseHead(HeadError::HeadTooLong)),
        }
        Ok(())
    }

    /// Drops an interim response.
    pub(crate) fn drop_interim(&mut self) {
        self.source.buffer.release();
    }

    /// The head of the response.
    pub(crate) fn response(&self) -> Spanned<'_, ResponseHead> {
        Spanned { parsed: self.head, bytes: self.source.buffer.held() }
    }

    /// The status of the response.
    pub(crate) fn status(&self) -> u16 {
        self.head.status()
    }

    /// Starts the body after the head of the response. For a recipient whose protocol has frames, the body is chunked here even if its
    /// length is known, because trailers may follow.
    pub(crate) fn begin_body(&mut self, method: Method, form: BodyForm) {
        let over =
            matches!(&self.call, Some(Call { stream: CallStream::Answered(received, _), .. }) if received.has_all());
        self.declared = match self.head.framing(method) {
            Framing::None => Framing::None,
            _ if over && form == BodyForm::Frames => Framing::None,
            Framing::Length(length) if form != BodyForm::Frames => Framing::Length(length),
            _ => Framing::Chunked,
        };
        self.source.body = RelayedBody::of_response(self.declared, form);
    }

    /// The framing of the body, as received and as sent to the client.
    pub(crate) fn framing(&self) -> Reframed {
        Reframed { received: self.declared, sent: self.source.body.announced(self.declared) }
    }

    /// The source of the response body.
    pub(crate) fn source(&mut self) -> &mut BodySource<'a> {
        &mut self.source
    }

    /// Receives more of the body; `false` if it has ended without a length or coding that shows it.
    pub(crate) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        store: &Store,
        largest: usize,
    ) -> Poll<Result<bool, Failure>> {
        let Some(Call { stream: CallStream::Answered(received, _), .. }) = &mut self.call else {
            return Poll::Ready(Err(Failure::UpstreamClosed));
        };
        received.release();
        let chunked = self.declared == Framing::Chunked;
        store.make_room(self.source.buffer, self.source.to_come(), largest);
        let before = self.source.buffer.filled().len();
        let filled = ready!(received.poll_fill(cx, self.source.buffer, chunked, self.text));
        self.received += (self.source.buffer.filled().len() - before) as u64;
        Poll::Ready(match filled {
            Ok(Filled::Data) => Ok(true),
            Ok(Filled::End) => Ok(chunked),
            Err(ReceiveError::Gone(error)) => Err(failure(&error)),
            Err(ReceiveError::Trailers) => Err(Failure::ResponseBody(BodyError::TrailersTooLong)),
        })
    }
}

impl Call {
    /// Continues with a response.
    fn answer(&mut self, received: RecvStream) {
        self.stream = match std::mem::replace(&mut self.stream, CallStream::None) {
            CallStream::Asked(_, send) => CallStream::Answered(BodyReceiving::new(received), send),
            other => other,
        };
    }
}

impl Drop for Http2Endpoint<'_> {
    fn drop(&mut self) {
        self.disconnect();
    }
}

/// Why a stream has ended early.
fn failure(error: &h2::Error) -> Failure {
    // GOAWAY ends only streams that the endpoint has not processed (RFC 9113 6.8).
    if error.is_remote() && (error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM)) {
        return Failure::Unprocessed;
    }
    match (error.reason(), error.get_io()) {
        (Some(reason), _) if error.is_remote() => Failure::StreamReset(reason),
        (Some(_), _) => Failure::InvalidFrames,
        (None, Some(error)) if error.kind() != io::ErrorKind::BrokenPipe => Failure::UpstreamReset(Errno::from(error)),
        _ => Failure::UpstreamClosed,
    }
}
