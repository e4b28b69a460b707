//! Bytes that pass from one side to the other as they are: tunnels, and TCP services.

use std::io::IoSlice;
use std::task::{Context, Poll, ready};

use crate::buffer::Buffer;
use crate::stream::{ReadInto, WriteFrom};
use crate::work::Store;

/// One direction. While nothing comes it holds no more memory than what its buffer holds: most tunnels are silent most of the
/// time.
#[derive(Debug, Default)]
pub(crate) struct Direction {
    /// The reader has ended.
    ended: bool,
    /// The writer was told.
    over: bool,
    /// Whether a reader that fails breaks the whole connection. Otherwise it ends this direction, as its end would.
    strict: bool,
    /// What the buffer has while it is idle; then the memory of the buffer is with the worker.
    idle: Vec<u8>,
    parked: bool,
}

impl Direction {
    /// A direction whose buffer has no memory yet, and in which every failure breaks the connection.
    pub(crate) fn strict() -> Self {
        Self { strict: true, parked: true, ..Self::default() }
    }

    /// Gives the buffer its memory.
    pub(crate) fn unpark(&mut self, store: &Store, buffer: &mut Buffer) {
        if std::mem::take(&mut self.parked) {
            store.unpark(buffer, &mut self.idle);
        }
    }

    /// Gives the memory back, whatever is in it.
    pub(crate) fn release(&mut self, store: &Store, buffer: &mut Buffer) {
        if !std::mem::replace(&mut self.parked, true) {
            buffer.clear();
            store.park(buffer, &mut self.idle);
        }
    }

    /// Passes bytes on; ready when the reader has ended and the writer knows.
    pub(crate) fn poll<R: ReadInto, W: WriteFrom>(
        &mut self,
        cx: &mut Context<'_>,
        store: &Store,
        buffer: &mut Buffer,
        from: &mut R,
        to: &mut W,
        count: &mut u64,
    ) -> Poll<Result<(), ()>> {
        if self.over {
            return Poll::Ready(Ok(()));
        }
        self.unpark(store, buffer);
        let passed = self.pass(cx, buffer, from, to, count);
        // The other direction may go on for hours.
        let silent = passed.is_pending() || (self.strict && self.over);
        if silent && buffer.is_empty() {
            store.park(buffer, &mut self.idle);
            self.parked = true;
        }
        passed
    }

    fn pass<R: ReadInto, W: WriteFrom>(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut Buffer,
        from: &mut R,
        to: &mut W,
        count: &mut u64,
    ) -> Poll<Result<(), ()>> {
        while !self.over {
            while !buffer.is_empty() {
                let written = ready!(to.poll_write_from(cx, &[IoSlice::new(buffer.filled())])).map_err(|_| ())?;
                *count += written as u64;
                buffer.consume(written);
            }
            ready!(to.poll_flush_all(cx)).map_err(|_| ())?;
            if self.ended {
                ready!(to.poll_finish(cx)).map_err(|_| ())?;
                self.over = true;
                break;
            }
            buffer.make_room(0);
            match ready!(buffer.poll_fill(from, cx)) {
                Err(_) if self.strict => return Poll::Ready(Err(())),
                Ok(0) | Err(_) => self.ended = true,
                Ok(_) => {}
            }
        }
        Poll::Ready(Ok(()))
    }
}
