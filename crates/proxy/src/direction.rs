//! Bytes passed from one side to the other unchanged: tunnels, and TCP services.

use std::io::IoSlice;
use std::task::{Context, Poll, ready};

use crate::buffer::Buffer;
use crate::stream::{ReadInto, WriteFrom};
use crate::work::Store;

/// The progress of a direction.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Passage {
    /// More may arrive.
    #[default]
    Open,
    /// The reader has reached its end.
    Ended,
    /// The writer has been ended too.
    Over,
}

/// One direction. While it is idle it holds no memory: most tunnels are silent most of the time.
#[derive(Debug, Default)]
pub(crate) struct Direction {
    /// Bytes read but not yet written. Without memory while the direction is idle.
    buffer: Buffer,
    progress: Passage,
    /// Whether a read error breaks the whole connection. Otherwise it counts as the end of this direction.
    strict: bool,
}

impl Direction {
    /// A direction that begins with data received earlier.
    pub(crate) fn with_buffer(buffer: Buffer) -> Self {
        Self { buffer, ..Self::default() }
    }

    /// A direction in which every error breaks the connection.
    pub(crate) fn strict() -> Self {
        Self { strict: true, ..Self::default() }
    }

    /// Its buffer, with memory.
    pub(crate) fn buffer(&mut self, store: &Store) -> &mut Buffer {
        store.supply(&mut self.buffer);
        &mut self.buffer
    }

    /// Gives the memory back, whatever it contains.
    pub(crate) fn release(&mut self, store: &Store) {
        store.reclaim(&mut self.buffer);
    }

    /// Passes bytes on; ready once both the reader and the writer have ended.
    pub(crate) fn poll<R: ReadInto, W: WriteFrom>(
        &mut self,
        cx: &mut Context<'_>,
        store: &Store,
        from: &mut R,
        to: &mut W,
        count: &mut u64,
    ) -> Poll<Result<(), ()>> {
        if self.progress == Passage::Over {
            return Poll::Ready(Ok(()));
        }
        store.supply(&mut self.buffer);
        let passed = self.pass(cx, from, to, count);
        // The other direction may continue for hours.
        if self.buffer.is_empty() && (passed.is_pending() || self.progress == Passage::Over) {
            store.reclaim(&mut self.buffer);
        }
        passed
    }

    fn pass<R: ReadInto, W: WriteFrom>(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut R,
        to: &mut W,
        count: &mut u64,
    ) -> Poll<Result<(), ()>> {
        let Self { buffer, progress, strict } = self;
        while *progress != Passage::Over {
            while !buffer.is_empty() {
                let written = ready!(to.poll_write_from(cx, &[IoSlice::new(buffer.filled())])).map_err(|_| ())?;
                *count += written as u64;
                buffer.consume(written);
            }
            ready!(to.poll_flush_all(cx)).map_err(|_| ())?;
            if *progress == Passage::Ended {
                ready!(to.poll_finish(cx)).map_err(|_| ())?;
                *progress = Passage::Over;
                break;
            }
            // Nothing is held or filled, so all of the memory becomes room.
            buffer.clear();
            match ready!(buffer.poll_fill(from, cx)) {
                Err(_) if *strict => return Poll::Ready(Err(())),
                Ok(0) | Err(_) => *progress = Passage::Ended,
                Ok(_) => {}
            }
        }
        Poll::Ready(Ok(()))
    }
}
