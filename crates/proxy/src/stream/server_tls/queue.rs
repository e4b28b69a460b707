//! TLS bytes in transit, in memory that is lent as long as there are any.

use std::cell::RefCell;
use std::io;

use tokio::io::ReadBuf;

use crate::limit::{KEPT_LARGE, TLS_HANDSHAKE, TLS_LARGE_RECORDS, TLS_RECORDS};

/// Bytes that have arrived or wait to be sent.
#[derive(Default)]
pub(super) struct RecordQueue {
    pub(super) memory: Vec<u8>,
    start: usize,
    pub(super) end: usize,
}

impl RecordQueue {
    /// Bytes that have already arrived, in memory of their own.
    pub(super) fn with_bytes(memory: Vec<u8>) -> Self {
        Self { end: memory.len(), memory, start: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub(super) fn filled(&self) -> &[u8] {
        &self.memory[self.start..self.end]
    }

    pub(super) fn filled_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.start..self.end]
    }

    pub(super) fn room_mut(&mut self) -> &mut [u8] {
        &mut self.memory[self.end..]
    }

    pub(super) fn consume(&mut self, count: usize) {
        self.start += count;
        if self.is_empty() {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Makes room for a read.
    pub(super) fn make_room(&mut self) -> io::Result<()> {
        self.supply(TLS_RECORDS);
        self.compact();
        if self.end == self.memory.len() {
            // A record would have fitted, so this is part of a long handshake message.
            let size = (2 * self.memory.len()).clamp(TLS_RECORDS, TLS_HANDSHAKE);
            if self.end >= size {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "a handshake message is too long"));
            }
            self.memory.resize(size, 0);
        }
        Ok(())
    }

    /// Makes room for this many bytes.
    pub(super) fn reserve(&mut self, bytes: usize) {
        self.compact();
        if self.memory.len() - self.end < bytes {
            self.memory.resize(self.end + bytes, 0);
        }
    }

    fn compact(&mut self) {
        if self.start > 0 {
            self.memory.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
    }

    pub(super) fn append(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.supply(TLS_RECORDS);
            self.reserve(bytes.len());
            self.memory[self.end..self.end + bytes.len()].copy_from_slice(bytes);
            self.end += bytes.len();
        }
    }

    pub(super) fn move_to(&mut self, room: &mut ReadBuf<'_>) {
        if !self.is_empty() {
            let count = room.remaining().min(self.end - self.start);
            room.put_slice(&self.filled()[..count]);
            self.consume(count);
            self.settle();
        }
    }

    /// Borrows memory, unless it has some.
    pub(super) fn supply(&mut self, size: usize) {
        if self.memory.is_empty() {
            self.memory = lend(size);
        }
    }

    /// Gives the memory back if it is empty.
    pub(super) fn settle(&mut self) {
        if self.is_empty() {
            give_back(std::mem::take(&mut self.memory));
        }
    }

    /// Moves the contents to memory of exactly their size.
    pub(super) fn trim(&mut self) {
        if self.end - self.start < self.memory.len() {
            let rest = self.filled().to_vec();
            give_back(std::mem::replace(&mut self.memory, rest));
            (self.start, self.end) = (0, self.memory.len());
        }
    }
}

thread_local! {
    /// Memory that no connection of the thread uses at the moment.
    static FREE: RefCell<[Vec<Vec<u8>>; 2]> = const { RefCell::new([Vec::new(), Vec::new()]) };
}

/// The place in [`FREE`] for memory of a size.
fn place(size: usize) -> Option<usize> {
    [TLS_RECORDS, TLS_LARGE_RECORDS].iter().position(|&known| known == size)
}

/// Memory of a size, reused if possible.
pub(super) fn lend(size: usize) -> Vec<u8> {
    let free = place(size).and_then(|place| FREE.with_borrow_mut(|free| free[place].pop()));
    free.unwrap_or_else(|| vec![0; size])
}

/// Takes memory back.
pub(super) fn give_back(memory: Vec<u8>) {
    if let Some(place) = place(memory.len()) {
        FREE.with_borrow_mut(|free| {
            if free[place].len() < KEPT_LARGE {
                free[place].push(memory);
            }
        });
    }
}
