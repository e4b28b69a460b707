//! What a connection needs only while a request is under way. Kept per worker and lent to one request after the other, so that
//! an idle connection holds none of it and a busy one allocates nothing.

use std::cell::RefCell;
use std::net::SocketAddr;

use fairway_model::path;

use crate::buffer::Buffer;
use crate::client::ClientView;
use crate::http1::{RequestHead, ResponseHead};
use crate::record::Try;
use crate::relay::Outgoing;

/// First size of each receive buffer: a head and 16 KiB of body come in one read.
pub(crate) const ORDINARY: usize = 32 << 10;

/// Size of the buffers that take over when a body is large: the fewer calls the better, and still within a second-level cache.
pub(crate) const LARGE: usize = 256 << 10;

/// Sets and large buffers that a worker keeps for later. More are made when needed and dropped afterwards.
const KEPT_SETS: usize = 1024;
const KEPT_LARGE: usize = 32;

/// Output that is larger after a request than this is not kept.
const KEPT_OUTPUT: usize = 64 << 10;

/// Memory for one request.
#[derive(Debug, Default)]
pub(crate) struct Work {
    /// What the client sent: the head of the request (held), its body, the next request.
    pub(crate) inbound: Buffer,
    /// The parsed head.
    pub(crate) head: RequestHead,
    /// What the endpoint sent.
    pub(crate) from_upstream: Buffer,
    /// Its parsed head.
    pub(crate) response: ResponseHead,
    /// What goes to the endpoint.
    pub(crate) to_upstream: Outgoing,
    /// What goes to the client.
    pub(crate) to_client: Outgoing,
    /// The small memory of the exceptions and of the pipeline.
    pub(crate) scratch: Scratch,
}

/// Texts that are made for a request when they differ from what the client sent.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// For the canonical path.
    pub(crate) path: path::Scratch,
    /// The canonical host, if it has upper case letters.
    pub(crate) host: Vec<u8>,
    /// Who the client is.
    pub(crate) client: ClientView,
    /// The path that was matched, or the rewritten one.
    pub(crate) matched: Vec<u8>,
    /// The target that the endpoint gets.
    pub(crate) target: Vec<u8>,
    /// X-Forwarded-Prefix; empty for none.
    pub(crate) prefix: Vec<u8>,
    /// Where a redirect leads, and values that templates made.
    pub(crate) value: Vec<u8>,
    /// The cookie that starts a session; empty for none.
    pub(crate) cookie: Vec<u8>,
    /// The head of the response as the client got it, if the log tells something of it.
    pub(crate) sent_head: Vec<u8>,
    /// The tries so far.
    pub(crate) tries: Vec<Try>,
    /// Where they went.
    pub(crate) tried: Vec<SocketAddr>,
}

impl Work {
    fn with_buffers() -> Box<Self> {
        Box::new(Self {
            inbound: Buffer::with_size(ORDINARY),
            from_upstream: Buffer::with_size(ORDINARY),
            ..Self::default()
        })
    }
}

/// The memory that a worker has for requests.
#[derive(Debug, Default)]
pub(crate) struct Store {
    #[expect(clippy::vec_box, reason = "a set is lent out as a pointer")]
    sets: RefCell<Vec<Box<Work>>>,
    large: RefCell<Vec<Vec<u8>>>,
    /// What large buffers took the place of.
    ordinary: RefCell<Vec<Vec<u8>>>,
}

impl Store {
    /// A set, as empty as a new one.
    pub(crate) fn lend(&self) -> Box<Work> {
        self.sets.borrow_mut().pop().unwrap_or_else(Work::with_buffers)
    }

    /// Takes a set back.
    pub(crate) fn give_back(&self, mut work: Box<Work>) {
        let mut sets = self.sets.borrow_mut();
        if sets.len() >= KEPT_SETS {
            return;
        }
        work.inbound.clear();
        work.from_upstream.clear();
        work.to_upstream.clear();
        work.to_client.clear();
        self.shrink(&mut work.inbound);
        self.shrink(&mut work.from_upstream);
        for output in [&mut work.to_upstream.lead, &mut work.to_client.lead] {
            if output.capacity() > KEPT_OUTPUT {
                *output = Vec::new();
            }
        }
        sets.push(work);
    }

    /// Gives a buffer the memory for a large body.
    pub(crate) fn enlarge(&self, buffer: &mut Buffer) {
        if buffer.size() < LARGE {
            let mut memory = self.large.borrow_mut().pop().unwrap_or_else(|| vec![0; LARGE]);
            buffer.exchange(&mut memory);
            self.keep(memory);
        }
    }

    /// Takes the memory of a buffer in which nothing but the held prefix is left; that moves to `idle`.
    pub(crate) fn park(&self, buffer: &mut Buffer, idle: &mut Vec<u8>) {
        buffer.make_room(0);
        if idle.len() < buffer.held().len() {
            *idle = vec![0; buffer.held().len()];
        }
        buffer.exchange(idle);
        self.keep(std::mem::take(idle));
    }

    /// Gives a buffer memory again.
    pub(crate) fn unpark(&self, buffer: &mut Buffer, idle: &mut Vec<u8>) {
        let mut memory = self.ordinary.borrow_mut().pop().unwrap_or_else(|| vec![0; ORDINARY]);
        buffer.exchange(&mut memory);
        *idle = memory;
    }

    fn shrink(&self, buffer: &mut Buffer) {
        if buffer.size() != ORDINARY {
            let mut memory = self.ordinary.borrow_mut().pop().unwrap_or_else(|| vec![0; ORDINARY]);
            buffer.exchange(&mut memory);
            self.keep(memory);
        }
    }

    fn keep(&self, memory: Vec<u8>) {
        let list = match memory.len() {
            ORDINARY => &self.ordinary,
            LARGE => &self.large,
            _ => return,
        };
        let mut list = list.borrow_mut();
        if list.len() < KEPT_LARGE {
            list.push(memory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_come_back_at_their_first_size_and_nothing_is_allocated_twice() {
        let store = Store::default();
        let mut work = store.lend();
        store.enlarge(&mut work.from_upstream);
        assert_eq!(work.from_upstream.size(), LARGE);
        store.give_back(work);
        let work = store.lend();
        assert_eq!(work.from_upstream.size(), ORDINARY);
        assert_eq!((store.large.borrow().len(), store.ordinary.borrow().len()), (1, 0));
        store.give_back(work);
    }
}
