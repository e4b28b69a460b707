//! Output for a connection, gathered from several places in memory: received data is written directly from its receive buffer.

use std::hint::cold_path;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::task::{Context, Poll, ready};

use crate::buffer::Buffer;
use crate::stream::WriteFrom;

const LINE_END: &[u8] = b"\r\n";

/// Pending output: the proxy's own bytes, then part of the source buffer, then perhaps a line end.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    /// The proxy's own bytes: append to them, then write.
    pub(crate) lead: Vec<u8>,
    written: usize,
    /// A part of the filled bytes of the source buffer.
    body: Range<usize>,
    /// Bytes to consume from the source buffer once `body` is written.
    taken: usize,
    /// Whether a line end follows, as after a chunk.
    tail: bool,
}

impl Outgoing {
    /// Whether everything was written.
    pub(crate) fn is_empty(&self) -> bool {
        self.written == self.lead.len() && self.taken == 0 && !self.tail
    }

    /// Discards what has not been written.
    pub(crate) fn clear(&mut self) {
        self.lead.clear();
        self.written = 0;
        self.body = 0..0;
        self.taken = 0;
        self.tail = false;
    }

    /// Frees the memory if everything was written.
    pub(crate) fn release(&mut self) {
        if self.is_empty() {
            *self = Self::default();
        }
    }

    /// The proxy's own bytes that are not written yet.
    pub(crate) fn pending(&self) -> usize {
        self.lead.len() - self.written
    }

    /// Discards what has not been written, unless a message was written in part, which must be finished before the next one.
    pub(crate) fn clear_unless_begun(&mut self) {
        if self.written == 0 || self.written == self.lead.len() {
            self.clear();
        }
    }

    /// Discards the proxy's own bytes after the first `len`, none of which has been written yet.
    pub(crate) fn cut(&mut self, len: usize) {
        debug_assert!(self.written <= len, "what is cut was not written");
        self.lead.truncate(len);
        self.body = 0..0;
        self.taken = 0;
        self.tail = false;
    }

    /// Whether nothing can be appended, because the output ends in the source buffer.
    pub(crate) fn is_closed(&self) -> bool {
        self.taken > 0 || self.tail
    }

    /// Reuses the memory of written bytes.
    pub(crate) fn drop_written(&mut self) {
        if self.written > 0 && self.written == self.lead.len() {
            self.lead.clear();
            self.written = 0;
        }
    }

    /// Appends a part of the source buffer. Once it is written, the first `taken` bytes of the source are consumed.
    pub(crate) fn put(&mut self, body: Range<usize>, taken: usize, tail: bool) {
        self.body = body;
        self.taken = taken;
        self.tail = tail;
    }

    /// Writes until everything is written. `count` is correct even after an interrupted call.
    pub(crate) fn poll_write<W: WriteFrom>(
        &mut self,
        cx: &mut Context<'_>,
        to: &mut W,
        source: &mut Buffer,
        count: &mut u64,
    ) -> Poll<io::Result<()>> {
        while !self.is_empty() {
            let lead = &self.lead[self.written..];
            let body = &source.filled()[self.body.clone()];
            let tail = if self.tail { LINE_END } else { &[] };
            let written = match (lead.is_empty(), body.is_empty() && tail.is_empty()) {
                (false, true) => ready!(to.poll_write_from(cx, &[IoSlice::new(lead)]))?,
                (true, false) if tail.is_empty() => ready!(to.poll_write_from(cx, &[IoSlice::new(body)]))?,
                (true, _) => ready!(to.poll_write_from(cx, &[IoSlice::new(body), IoSlice::new(tail)]))?,
                (false, _) if tail.is_empty() => {
                    ready!(to.poll_write_from(cx, &[IoSlice::new(lead), IoSlice::new(body)]))?
                }
                (false, _) => {
                    let pieces = [IoSlice::new(lead), IoSlice::new(body), IoSlice::new(tail)];
                    ready!(to.poll_write_from(cx, &pieces))?
                }
            };
            *count += written as u64;
            self.advance(written, source);
        }
        Poll::Ready(Ok(()))
    }

    fn advance(&mut self, written: usize, source: &mut Buffer) {
        let lead = written.min(self.lead.len() - self.written);
        self.written += lead;
        let body = (written - lead).min(self.body.len());
        self.body.start += body;
        let tail = written - lead - body;
        if tail == 1 {
            cold_path();
            // Half of CRLF was written: the other half becomes the lead.
            self.lead.clear();
            self.lead.push(b'\n');
            self.written = 0;
        }
        if tail > 0 {
            self.tail = false;
        }
        if self.body.is_empty() && self.taken > 0 {
            source.consume(self.taken);
            self.taken = 0;
            self.body = 0..0;
        }
    }
}
