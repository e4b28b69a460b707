//! Receive buffers. Their memory is initialised once and then reused, for the life of the worker.

use std::io;
use std::ops::Range;
use std::task::{Context, Poll};

use crate::stream::ReadInto;

/// A flat buffer in three parts: a held prefix (the head of the message that is being served, which its ranges point into), bytes
/// received and not yet consumed, and room.
///
/// Reading never moves existing bytes: only [`compact`](Self::compact) does. So a consumed body can be sent again
/// ([`rewind`](Self::rewind)) as long as nothing was moved. [`Store::make_room`](crate::work::Store::make_room) decides how much
/// room a read needs.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    data: Vec<u8>,
    held: usize,
    start: usize,
    end: usize,
    /// Bytes after the held prefix were consumed and dropped, or may be.
    recycled: bool,
}

impl Buffer {
    /// Creates a buffer of `size` bytes, all of them usable.
    #[cfg(test)]
    pub(crate) fn with_size(size: usize) -> Self {
        Self { data: vec![0; size], ..Self::default() }
    }

    /// The bytes that were received and not consumed.
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

    /// Bytes before the room: held, consumed and filled.
    pub(crate) fn used(&self) -> usize {
        self.end
    }

    /// Bytes that a read can add without moving or growing the buffer.
    pub(crate) fn room(&self) -> usize {
        self.data.len() - self.end
    }

    /// Holds the next `len` bytes, which must be at the very front.
    pub(crate) fn hold(&mut self, len: usize) {
        debug_assert!(self.start == 0 && len <= self.end, "a head is held where it was parsed");
        self.held = len;
        self.start = len;
        self.recycled = false;
    }

    /// Releases the prefix and moves the rest to the front.
    pub(crate) fn release(&mut self) {
        self.held = 0;
        self.compact();
    }

    /// Keeps the held prefix, in memory of just its size. All the rest moves to the result: filled bytes, room, memory.
    pub(crate) fn split_rest(&mut self) -> Self {
        let head =
            Self { data: self.held().to_vec(), held: self.held, start: self.held, end: self.held, recycled: true };
        let mut rest = std::mem::replace(self, head);
        rest.held = 0;
        rest
    }

    /// Drops `count` filled bytes at the front.
    pub(crate) fn consume(&mut self, count: usize) {
        debug_assert!(count <= self.end - self.start, "only what was received can be consumed");
        self.start += count;
    }

    /// Drops everything but the held prefix.
    pub(crate) fn drop_filled(&mut self) {
        (self.start, self.end, self.recycled) = (self.held, self.held, true);
    }

    /// Drops parts of the filled bytes. `next` looks at the rest of them and says how many it has seen, and which of these stay; `None`
    /// keeps all of the rest.
    pub(crate) fn squeeze(&mut self, mut next: impl FnMut(&[u8]) -> Option<(usize, Range<usize>)>) {
        let (mut from, mut to) = (self.start, self.start);
        while let Some((seen, kept)) = next(&self.data[from..self.end]) {
            let length = kept.len();
            self.data.copy_within(from + kept.start..from + kept.end, to);
            from += seen;
            to += length;
        }
        self.data.copy_within(from..self.end, to);
        self.end -= from - to;
    }

    /// Whether [`rewind`](Self::rewind) would succeed.
    pub(crate) fn can_rewind(&self) -> bool {
        !self.recycled
    }

    /// Restores everything consumed after the held prefix; `false` if it is no longer there.
    pub(crate) fn rewind(&mut self) -> bool {
        if !self.recycled {
            self.start = self.held;
        }
        !self.recycled
    }

    /// Gives up rewinding: bytes consumed from now on are never sent again.
    pub(crate) fn forgo_rewind(&mut self) {
        self.recycled = true;
    }

    /// Clears the buffer.
    pub(crate) fn clear(&mut self) {
        (self.held, self.start, self.end, self.recycled) = (0, 0, 0, false);
    }

    /// Makes room by dropping consumed bytes. Filled bytes move up to the held prefix.
    pub(crate) fn compact(&mut self) {
        if self.start > self.held {
            self.data.copy_within(self.start..self.end, self.held);
            self.end -= self.start - self.held;
            self.start = self.held;
            self.recycled = true;
        }
    }

    /// Moves to other memory with the same content; returns the previous memory.
    ///
    /// # Panics
    /// If `memory` has no space for the [`used`](Self::used) bytes.
    pub(crate) fn replace_memory(&mut self, mut memory: Vec<u8>) -> Vec<u8> {
        memory[..self.end].copy_from_slice(&self.data[..self.end]);
        std::mem::replace(&mut self.data, memory)
    }

    /// Receives bytes that are already in memory, for which there must be [`room`](Self::room).
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        self.data[self.end..self.end + bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }

    /// Reads once into the room after the filled bytes; 0 at the end of the stream.
    pub(crate) fn poll_fill<S: ReadInto>(&mut self, stream: &mut S, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        debug_assert!(self.room() > 0, "a read without room would look like the end of the stream");
        let read = stream.poll_read_into(cx, &mut self.data[self.end..]);
        if let Poll::Ready(Ok(count)) = read {
            self.end += count;
        }
        read
    }

    /// Receives `byte`, `count` times.
    #[cfg(test)]
    pub(crate) fn fill_with(&mut self, byte: u8, count: usize) {
        self.data[self.end..self.end + count].fill(byte);
        self.end += count;
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
        assert!(buffer.is_empty() && buffer.room() == 0);
        assert!(buffer.rewind(), "nothing was overwritten");
        assert_eq!(buffer.filled(), b"body");
        buffer.consume(4);
        buffer.compact();
        assert_eq!(buffer.room(), 4);
        assert!(!buffer.rewind());
        fill(&mut buffer, b"more");
        assert_eq!((buffer.held(), buffer.filled()), (&b"head"[..], &b"more"[..]));
        buffer.consume(1);
        buffer.release();
        assert_eq!(buffer.filled(), b"ore");
    }

    #[test]
    fn memory_is_replaced_with_all_that_is_in_it() {
        let mut buffer = Buffer::with_size(4);
        fill(&mut buffer, b"abcd");
        buffer.hold(1);
        buffer.consume(1);
        let old = buffer.replace_memory(vec![0; 16]);
        assert_eq!((old.len(), buffer.size(), buffer.room()), (4, 16, 12));
        assert!(buffer.rewind());
        assert_eq!((buffer.held(), buffer.filled()), (&b"a"[..], &b"bcd"[..]));
    }

    #[test]
    fn a_head_stays_when_the_rest_goes_its_own_way() {
        let mut buffer = Buffer::with_size(8);
        fill(&mut buffer, b"headrest");
        buffer.hold(4);
        let mut rest = buffer.split_rest();
        assert_eq!((buffer.held(), buffer.size(), buffer.can_rewind()), (&b"head"[..], 4, false));
        assert_eq!((rest.held(), rest.filled()), (&b""[..], &b"rest"[..]));
        rest.consume(4);
        rest.compact();
        assert_eq!(rest.room(), 8);
    }
}
