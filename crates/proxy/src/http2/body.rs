//! Bodies in frames, the same for both sides. [`BodySending`] hands data to `h2` as far as the peer's window allows. [`BodyReceiving`] puts
//! it into a buffer in the form of HTTP/1, and reopens the peer's window only for what was passed on.

use std::io;
use std::task::{Context, Poll, ready};

use ::http::{HeaderMap, HeaderValue};
use bytes::{Buf, Bytes};
use h2::{RecvStream, SendStream};

use super::block::Block;
use super::link::Link;
use super::name::name_of;
use crate::body::{BodySource, ChunkEncoder, Event};
use crate::buffer::Buffer;
use crate::http::BodyError;
use crate::limit::{HTTP2_BLOCK, TRAILERS};

/// What the chunked coding adds to a piece of data: its length in hexadecimal digits and two line ends.
// No limit: part of the coding.
const CHUNK_OVERHEAD: usize = 12;

/// A body that is being sent.
#[derive(Debug, Default)]
pub(super) struct BodySending {
    /// Data to send, from `at` on.
    data: Vec<u8>,
    at: usize,
    trailers: HeaderMap,
    /// The gRPC status in the trailers.
    grpc_status: Option<u16>,
    /// Whether only the trailers follow the data.
    ends: bool,
    /// Whether the end was handed over.
    finished: bool,
}

impl BodySending {
    /// Takes as much of a body as can be handed over at once.
    ///
    /// # Errors
    /// The body is malformed.
    pub(super) fn take_body(&mut self, from: &mut BodySource<'_>, link: &Link) -> Result<(), BodyError> {
        if self.at == self.data.len() {
            self.data.clear();
            self.at = 0;
        }
        while !from.body.has_ended() && self.data.len() < HTTP2_BLOCK {
            let filled = from.buffer.filled();
            let input = &filled[..filled.len().min(HTTP2_BLOCK)];
            let piece = from.body.decode(input)?;
            match piece.event {
                Event::Data(range) => {
                    self.room(link).extend_from_slice(&input[range]);
                }
                Event::Trailer { name, value } => {
                    if let (Some(name), Ok(value)) = (name_of(&input[name]), HeaderValue::from_bytes(&input[value])) {
                        if name == "grpc-status" {
                            self.grpc_status = value.to_str().ok().and_then(|text| text.parse().ok());
                        }
                        // Their number is bounded by the size of a trailer section.
                        self.trailers.append(name, value);
                    }
                }
                Event::NeedMore if piece.consumed == 0 => break,
                Event::NeedMore | Event::End => {}
            }
            from.buffer.consume(piece.consumed);
        }
        self.ends |= from.body.has_ended();
        Ok(())
    }

    /// The gRPC status in the trailers that have arrived.
    pub(super) fn grpc_status(&self) -> Option<u16> {
        self.grpc_status
    }

    /// Memory for more data.
    pub(super) fn room(&mut self, link: &Link) -> &mut Vec<u8> {
        if self.data.capacity() == 0 {
            self.data = link.blocks.take();
        }
        &mut self.data
    }

    /// Ends the body after the data that it has.
    pub(super) fn end(&mut self) {
        self.ends = true;
    }

    /// Whether there is nothing to send after the head.
    pub(super) fn is_void(&self) -> bool {
        self.ends && self.at == self.data.len() && self.trailers.is_empty()
    }

    /// Reports that the end was handed over with whatever was sent last.
    pub(super) fn finish(&mut self) {
        self.finished = true;
    }

    /// Whether the end was handed over.
    pub(super) fn is_finished(&self) -> bool {
        self.finished
    }

    /// Whether everything was handed over.
    pub(super) fn is_empty(&self) -> bool {
        self.at == self.data.len() && (!self.ends || self.finished)
    }

    /// Drops what was not handed over.
    pub(super) fn clear(&mut self) {
        self.data.clear();
        self.at = 0;
        self.trailers.clear();
        self.ends = false;
    }

    /// Gives the memory back.
    pub(super) fn release(&mut self, link: &Link) {
        self.at = 0;
        link.blocks.keep(std::mem::take(&mut self.data));
    }

    /// Hands everything over, as far as the peer's window allows.
    pub(super) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        send: &mut SendStream<Block>,
        link: &Link,
        sent: &mut u64,
    ) -> Poll<io::Result<()>> {
        while self.at < self.data.len() {
            let left = self.data.len() - self.at;
            let count = ready!(poll_room(send, cx, left))?.min(left);
            let last = self.ends && count == left && self.trailers.is_empty();
            let block = if count == left {
                let (memory, at) = (std::mem::take(&mut self.data), std::mem::take(&mut self.at));
                Block::new(memory, at, link.blocks.clone())
            } else {
                let mut memory = link.blocks.take();
                memory.extend_from_slice(&self.data[self.at..self.at + count]);
                self.at += count;
                Block::new(memory, 0, link.blocks.clone())
            };
            send.send_data(block, last).map_err(|_| gone())?;
            self.finished = last;
            *sent += count as u64;
            link.credit(count);
        }
        if self.ends && !self.finished {
            if self.trailers.is_empty() {
                send.send_data(Block::new(Vec::new(), 0, link.blocks.clone()), true).map_err(|_| gone())?;
            } else {
                send.send_trailers(std::mem::take(&mut self.trailers)).map_err(|_| gone())?;
            }
            self.finished = true;
            link.credit(0);
        }
        Poll::Ready(Ok(()))
    }
}

/// What was put into a buffer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Filled {
    /// Data.
    Data,
    /// The end, with the trailers if the body is chunked in the buffer.
    End,
}

/// Why nothing more comes.
#[derive(Debug)]
pub(super) enum ReceiveError {
    /// The stream or its connection is gone.
    Gone(h2::Error),
    /// The trailers are too long.
    Trailers,
}

/// A body that is being received.
#[derive(Debug)]
pub(super) struct BodyReceiving {
    stream: RecvStream,
    /// Received data that does not fit in the buffer.
    rest: Bytes,
    /// Bytes in the buffer for which the peer's window has not been reopened.
    unreleased: usize,
}

impl BodyReceiving {
    /// A body of which nothing has been read.
    pub(super) fn new(stream: RecvStream) -> Self {
        Self { stream, rest: Bytes::new(), unreleased: 0 }
    }

    /// Whether the peer has sent all of it.
    pub(super) fn has_all(&self) -> bool {
        self.stream.is_end_stream()
    }

    /// Whether no data waits for room.
    pub(super) fn is_drained(&self) -> bool {
        self.rest.is_empty()
    }

    /// Discards data; `None` at the end of the body.
    pub(super) fn poll_discard(&mut self, cx: &mut Context<'_>) -> Poll<Option<u64>> {
        self.rest = Bytes::new();
        let held = self.stream.flow_control().used_capacity();
        let _ = self.stream.flow_control().release_capacity(held);
        let data = ready!(self.stream.poll_data(cx));
        Poll::Ready(data.and_then(Result::ok).map(|data| data.len() as u64))
    }

    /// Puts more of the body into a buffer that has room, in the chunked coding if `chunked`. `memory` is for the trailers.
    pub(super) fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut Buffer,
        chunked: bool,
        memory: &mut Vec<u8>,
    ) -> Poll<Result<Filled, ReceiveError>> {
        if !ready!(self.poll_data(cx)).map_err(ReceiveError::Gone)? {
            return self.poll_end(cx, buffer, chunked, memory);
        }
        let overhead = if chunked { CHUNK_OVERHEAD } else { 0 };
        let count = self.rest.len().min(buffer.room().saturating_sub(overhead));
        if chunked {
            buffer.append(size_line(count, &mut [0; CHUNK_OVERHEAD]));
        }
        buffer.append(&self.rest[..count]);
        if chunked {
            buffer.append(ChunkEncoder::CHUNK_END);
        }
        self.rest.advance(count);
        self.unreleased += count;
        Poll::Ready(Ok(Filled::Data))
    }

    /// Copies data into `room`; 0 at the end of the body.
    pub(super) fn poll_copy(&mut self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<Result<usize, h2::Error>> {
        if !ready!(self.poll_data(cx))? {
            return Poll::Ready(Ok(0));
        }
        let count = self.rest.len().min(room.len());
        self.rest.copy_to_slice(&mut room[..count]);
        self.unreleased = count;
        Poll::Ready(Ok(count))
    }

    /// Receives data if none is left; `false` at the end of the body. Empty frames are skipped.
    fn poll_data(&mut self, cx: &mut Context<'_>) -> Poll<Result<bool, h2::Error>> {
        while self.rest.is_empty() {
            match ready!(self.stream.poll_data(cx)) {
                Some(Ok(data)) => self.rest = data,
                Some(Err(error)) => return Poll::Ready(Err(error)),
                None => return Poll::Ready(Ok(false)),
            }
        }
        Poll::Ready(Ok(true))
    }

    fn poll_end(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut Buffer,
        chunked: bool,
        memory: &mut Vec<u8>,
    ) -> Poll<Result<Filled, ReceiveError>> {
        let trailers = ready!(self.stream.poll_trailers(cx)).map_err(ReceiveError::Gone)?.unwrap_or_default();
        if chunked {
            let fields = || trailers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes()));
            let size: usize = fields().map(|(name, value)| name.len() + value.len() + 4).sum();
            if size + ChunkEncoder::END.len() > TRAILERS.min(buffer.room()) {
                return Poll::Ready(Err(ReceiveError::Trailers));
            }
            memory.clear();
            // The relay drops trailers that may not be forwarded, as it does for HTTP/1.
            ChunkEncoder::end(fields(), memory);
            buffer.append(memory);
            memory.clear();
        }
        Poll::Ready(Ok(Filled::End))
    }

    /// Reopens the peer's window for what was passed on. More is received only once all of it has been.
    pub(super) fn release(&mut self) {
        if self.unreleased > 0 {
            // An error means that the stream is gone, which the next read reports too.
            let _ = self.stream.flow_control().release_capacity(self.unreleased);
            self.unreleased = 0;
        }
    }
}

/// Room for data in the peer's windows; `wanted` bytes are enough.
pub(super) fn poll_room(send: &mut SendStream<Block>, cx: &mut Context<'_>, wanted: usize) -> Poll<io::Result<usize>> {
    send.reserve_capacity(wanted);
    let room = send.capacity();
    if room > 0 {
        return Poll::Ready(Ok(room));
    }
    match ready!(send.poll_capacity(cx)) {
        Some(Ok(room)) => Poll::Ready(Ok(room)),
        Some(Err(_)) | None => Poll::Ready(Err(gone())),
    }
}

/// The stream or its connection is gone.
pub(super) fn gone() -> io::Error {
    io::ErrorKind::BrokenPipe.into()
}

/// The size line of a chunk of `count` bytes.
fn size_line(count: usize, memory: &mut [u8; CHUNK_OVERHEAD]) -> &[u8] {
    use std::io::Write;
    let mut rest = &mut memory[..];
    // Eight digits and a line end fit: no frame is larger than 16 MiB.
    let _ = write!(rest, "{count:x}\r\n");
    let left = rest.len();
    &memory[..CHUNK_OVERHEAD - left]
}
