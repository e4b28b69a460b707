//! Receive buffers. Their memory is initialised once and then reused, for the life of the worker.

use std::io;
use std::task::{Context, Poll};

use crate::stream::ReadInto;

/// A flat buffer in three parts: a held prefix (the head of the message that is being served, which its ranges point into),
/// bytes received and not yet consumed, and room.
///
/// Reading never moves what is there: only [`make_room`](Self::make_room) does. So a body that was consumed can be sent once
/// more ([`rewind`](Self::rewind)) as long as no room had to be made.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    data: Vec<u8>,
    held: usize,
    start: usize,
    end: usize,
    /// Bytes behind the held prefix were consumed and overwritten.
    recycled: bool,
}

impl Buffer {
    /// A buffer of that size, all of it usable.
    pub(crate) fn with_size(size: usize) -> Self {
        Self { data: vec![0; size], ..Self::default() }
    }

    /// What was received and not consumed.
    pub(crate) fn filled(&self) -> &[u8] {
        &self.data[self.start..self.end]
    }

    /// Whether nothing is left to consume.
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// The held prefix.
    pub(crate) fn held(&self) -> &[u8] {
        &self.data[..self.held]
    }

    /// Bytes it can hold.
    pub(crate) fn size(&self) -> usize {
        self.data.len()
    }

    /// Holds the next `len` bytes, which must be at the very front.
    pub(crate) fn hold(&mut self, len: usize) {
        debug_assert!(self.start == 0 && len <= self.end, "a head is held where it was parsed");
        self.held = len;
        self.start = len;
        self.recycled = false;
    }

    /// Lets go of the prefix and moves what is left to the front.
    pub(crate) fn release(&mut self) {
        self.held = 0;
        self.compact();
    }

    /// Forgets `count` bytes at the front of what is filled.
    pub(crate) fn consume(&mut self, count: usize) {
        debug_assert!(count <= self.end - self.start, "only what was received can be consumed");
        self.start += count;
    }

    /// Whether [`rewind`](Self::rewind) would succeed.
    pub(crate) fn can_rewind(&self) -> bool {
        !self.recycled
    }

    /// Takes back all that was consumed behind the held prefix; `false` if it is no longer there.
    pub(crate) fn rewind(&mut self) -> bool {
        if !self.recycled {
            self.start = self.held;
        }
        !self.recycled
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        (self.held, self.start, self.end, self.recycled) = (0, 0, 0, false);
    }

    /// Whether there is room for another byte without moving or growing.
    pub(crate) fn has_room(&self) -> bool {
        self.end < self.data.len()
    }

    /// Makes room by dropping what was consumed, and by growing up to `limit` bytes; `false` if that was not enough.
    pub(crate) fn make_room(&mut self, limit: usize) -> bool {
        if self.start == self.end || !self.has_room() {
            self.compact();
        }
        if !self.has_room() && self.data.len() < limit {
            let size = (self.data.len() * 2).clamp(1, limit);
            self.data.resize(size, 0);
        }
        self.has_room()
    }

    /// Exchanges the memory for that of `other`, which must be larger, and keeps the content.
    pub(crate) fn exchange(&mut self, other: &mut Vec<u8>) {
        other[..self.end].copy_from_slice(&self.data[..self.end]);
        std::mem::swap(&mut self.data, other);
    }

    /// Reads once into the room behind what is there; 0 at the end of the stream.
    pub(crate) fn poll_fill<S: ReadInto>(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        debug_assert!(self.has_room(), "a read without room would look like the end of the stream");
        let read = stream.poll_read_into(cx, &mut self.data[self.end..]);
        if let Poll::Ready(Ok(count)) = read {
            self.end += count;
        }
        read
    }

    fn compact(&mut self) {
        if self.start > self.held {
            self.data.copy_within(self.start..self.end, self.held);
            self.end -= self.start - self.held;
            self.start = self.held;
            self.recycled = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Bytes(&'static [u8]);

    impl ReadInto for Bytes {
        fn poll_read_into(&mut self, _: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
            let count = room.len().min(self.0.len());
            room[..count].copy_from_slice(&self.0[..count]);
            self.0 = &self.0[count..];
            Poll::Ready(Ok(count))
        }
    }

    fn fill(buffer: &mut Buffer, bytes: &'static [u8]) {
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(matches!(buffer.poll_fill(&mut Bytes(bytes), &mut context), Poll::Ready(Ok(_))));
    }

    #[test]
    fn a_head_stays_while_its_body_goes_through() {
        let mut buffer = Buffer::with_size(8);
        fill(&mut buffer, b"headbody");
        buffer.hold(4);
        assert_eq!(buffer.filled(), b"body");
        buffer.consume(4);
        assert!(buffer.is_empty() && !buffer.has_room());
        assert!(buffer.rewind(), "nothing was overwritten");
        assert_eq!(buffer.filled(), b"body");
        buffer.consume(4);
        assert!(buffer.make_room(8));
        assert!(!buffer.rewind());
        fill(&mut buffer, b"more");
        assert_eq!((buffer.held(), buffer.filled()), (&b"head"[..], &b"more"[..]));
        buffer.consume(1);
        buffer.release();
        assert_eq!(buffer.filled(), b"ore");
    }

    #[test]
    fn growth_has_a_limit() {
        let mut buffer = Buffer::with_size(2);
        fill(&mut buffer, b"ab");
        assert!(buffer.make_room(3));
        fill(&mut buffer, b"c");
        assert!(!buffer.make_room(3));
        assert_eq!(buffer.filled(), b"abc");
        let mut larger = vec![0; 16];
        buffer.exchange(&mut larger);
        assert_eq!((buffer.filled(), buffer.size(), larger.len()), (&b"abc"[..], 16, 3));
    }
}
