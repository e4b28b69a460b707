//! Memory that a connection needs only while a request is in progress. Each worker keeps some and lends it to one request after another, so
//! an idle connection holds none and a busy one allocates nothing.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::ops::Range;

use fairway_model::{ConfiguredName, decision};

use crate::buffer::Buffer;
use crate::http::{RequestHead, ResponseHead};
use crate::ledger::OpenRequest;
pub(crate) use crate::limit::{BUFFER as ORDINARY, LARGE_BUFFER as LARGE, RESPONSE_BUFFER as RESPONSE};
use crate::limit::{KEPT_LARGE, KEPT_OUTPUT, KEPT_SETS};
use crate::message::Evaluated;
use crate::outgoing::Outgoing;
use crate::record::Try;

/// The least room for a read, unless less than that is still to come, so that enough bytes share the cost of a read whatever else the
/// buffer holds. A quarter of an ordinary buffer.
// No limit: less may be left to come.
pub(crate) const LEAST_READ: usize = 8 << 10;

/// Memory for one request.
#[derive(Debug, Default)]
pub(crate) struct Work {
    /// Received from the client: the head of the request (held), its body, the next request.
    pub(crate) inbound: Buffer,
    /// The parsed head.
    pub(crate) head: RequestHead,
    /// Received from the endpoint. Without memory until something arrives.
    pub(crate) from_upstream: Buffer,
    /// Its parsed head.
    pub(crate) response: ResponseHead,
    /// The compressed body of the response. Without memory until there is one.
    pub(crate) compressed: Buffer,
    /// Output for the endpoint.
    pub(crate) to_upstream: Outgoing,
    /// Output for the client.
    pub(crate) to_client: Outgoing,
    /// For an endpoint that speaks HTTP/2, in place of `from_upstream`, `response` and `to_upstream`; created on first use.
    pub(crate) http2: Option<Box<Http2Memory>>,
    /// Fields of a response over HTTP/2.
    pub(crate) lines: Vec<(::http::HeaderName, Range<usize>)>,
    /// Small memory for special cases and for the pipeline.
    pub(crate) scratch: Scratch,
}

/// Memory for an exchange with an endpoint over HTTP/2.
#[derive(Debug, Default)]
pub(crate) struct Http2Memory {
    /// Received from the endpoint, in the form of HTTP/1. Without memory until it is needed.
    pub(crate) received: Buffer,
    /// Its parsed head.
    pub(crate) head: ResponseHead,
    /// Text of fields.
    pub(crate) text: Vec<u8>,
    /// Fields of a request.
    pub(crate) lines: Vec<(::http::HeaderName, Range<usize>)>,
}

/// Text produced for a request where it differs from what the client sent.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    /// Scratch memory of the decision.
    pub(crate) decision: decision::Scratch,
    /// Values of templates.
    pub(crate) value: Vec<u8>,
    /// The target of the request to an authentication service.
    pub(crate) asked: Vec<u8>,
    /// Values of templates for fields of the response, evaluated before it is written.
    pub(crate) response_values: Evaluated,
    /// The cookies to set, separated by line feeds; empty if there are none.
    pub(crate) cookie: Vec<u8>,
    /// The field that gives the client its new session; `None` if there is none.
    pub(crate) session: Option<(ConfiguredName, Box<str>)>,
    /// The cookies of an authentication service, in the same form.
    pub(crate) auth_cookies: Vec<u8>,
    /// Its challenge: the fields of a 401 answer.
    pub(crate) challenge: Vec<(ConfiguredName, Box<str>)>,
    /// The head of the response as sent to the client, if the log shows fields of it.
    pub(crate) sent_head: Vec<u8>,
    /// The tries so far.
    pub(crate) tries: Vec<Try>,
    /// The endpoints of these tries.
    pub(crate) tried: Vec<SocketAddr>,
    /// Where the request counts as in progress, if its route limits them.
    pub(crate) open: Option<OpenRequest>,
}

impl Scratch {
    /// Frees the memory that nothing needs once the response has begun.
    pub(crate) fn release(&mut self) {
        self.decision.release();
        (self.value, self.asked, self.tried, self.response_values) = Default::default();
        self.tries.shrink_to_fit();
    }
}

/// A worker's memory for requests.
#[derive(Debug, Default)]
pub(crate) struct Store {
    #[expect(clippy::vec_box, reason = "a set is lent out as a pointer")]
    sets: RefCell<Vec<Box<Work>>>,
    large: RefCell<Vec<Vec<u8>>>,
    /// Memory for large responses.
    response: RefCell<Vec<Vec<u8>>>,
    /// Memory that buffers have given back, for larger memory or while they wait.
    ordinary: RefCell<Vec<Vec<u8>>>,
}

impl Store {
    /// An empty set.
    pub(crate) fn lend(&self) -> Box<Work> {
        let kept = self.sets.borrow_mut().pop();
        kept.unwrap_or_else(|| {
            let mut work = Box::<Work>::default();
            self.supply(&mut work.inbound);
            work
        })
    }

    /// Takes a set back.
    pub(crate) fn give_back(&self, mut work: Box<Work>) {
        let mut sets = self.sets.borrow_mut();
        if sets.len() >= KEPT_SETS {
            return;
        }
        work.inbound.clear();
        work.to_upstream.clear();
        work.to_client.clear();
        let mut http2 = work.http2.as_deref_mut();
        for buffer in
            [Some(&mut work.from_upstream), Some(&mut work.compressed), http2.as_mut().map(|http2| &mut http2.received)]
                .into_iter()
                .flatten()
        {
            if buffer.size() > 0 {
                self.reclaim(buffer);
            }
        }
        self.shrink(&mut work.inbound);
        let texts =
            [Some(&mut work.to_upstream.lead), Some(&mut work.to_client.lead), http2.map(|http2| &mut http2.text)];
        for output in texts.into_iter().flatten() {
            if output.capacity() > KEPT_OUTPUT {
                *output = Vec::new();
            }
        }
        sets.push(work);
    }

    /// Takes back an unused set.
    pub(crate) fn put_back(&self, work: Box<Work>) {
        let mut sets = self.sets.borrow_mut();
        if sets.len() < KEPT_SETS {
            sets.push(work);
        }
    }

    /// Makes room for the next read when `more` bytes, or an unknown number, are still to come. Afterwards there is room for all of them or
    /// for [`LEAST_READ`] bytes, however much of the buffer the head takes.
    ///
    /// Consumed bytes stay in the buffer as long as possible, so that they can be sent again. Only a head can make the buffer exceed
    /// `largest`, which is [`LARGE`] or [`RESPONSE`].
    pub(crate) fn make_room(&self, buffer: &mut Buffer, more: Option<u64>, largest: usize) {
        let more = more.map_or(usize::MAX, |more| usize::try_from(more).unwrap_or(usize::MAX)).max(1);
        let least = more.min(LEAST_READ);
        if buffer.size() > largest && buffer.is_empty() && !buffer.can_rewind() {
            buffer.compact();
            if buffer.used() + least <= largest {
                self.keep(buffer.replace_memory(self.sized(largest)));
            }
        }
        // The last read filled the buffer: the sender is faster than the proxy, so fewer and larger reads pay off.
        let brimful = buffer.room() == 0;
        if buffer.room() < least {
            let keeps_all = buffer.can_rewind() && buffer.used().saturating_add(more) <= largest;
            if !keeps_all {
                buffer.compact();
            }
        } else if buffer.is_empty() && !buffer.can_rewind() {
            buffer.compact();
        }
        if buffer.room() < least || (brimful && more > buffer.size() && buffer.size() < largest) {
            let needed = buffer.used() + least;
            let memory = if needed <= largest {
                self.sized(largest)
            } else {
                // Only heads that the configuration allows to be this large get here. The size doubles, so that a growing head is not
                // copied at each read.
                vec![0; (2 * buffer.size()).clamp(needed, buffer.used().saturating_add(more))]
            };
            self.keep(buffer.replace_memory(memory));
        }
    }

    /// Makes room for more of a body whose recipient is slow: the buffer holds at most `most` bytes besides the held ones, and grows by
    /// at most `spare`. Returns whether there is room as after [`make_room`](Self::make_room).
    pub(crate) fn extend(&self, buffer: &mut Buffer, more: Option<u64>, most: usize, spare: usize) -> bool {
        let more = more.map_or(usize::MAX, |more| usize::try_from(more).unwrap_or(usize::MAX)).max(1);
        let least = more.min(LEAST_READ);
        if buffer.room() >= least {
            return true;
        }
        let (size, used, filled) = (buffer.size(), buffer.used(), buffer.filled().len());
        let consumed = used - buffer.held().len() - filled;
        // Moves at most as many bytes as were consumed since the last move.
        if consumed >= filled.max(least) {
            buffer.compact();
            return true;
        }
        let largest = (buffer.held().len() + most).min(size.saturating_add(spare));
        let next = (2 * size).min(used.saturating_add(more)).min(largest);
        if next >= used + least {
            let memory = self.sized(next);
            self.keep(buffer.replace_memory(memory));
            return true;
        }
        let worth = consumed >= least.max(size / 4);
        if worth {
            buffer.compact();
        }
        worth
    }

    /// Makes room for a complete head of this many bytes.
    pub(crate) fn fit(&self, buffer: &mut Buffer, bytes: usize) {
        if buffer.room() < bytes {
            let needed = buffer.used() + bytes;
            let memory = self.sized(if needed <= RESPONSE { RESPONSE } else { needed });
            self.keep(buffer.replace_memory(memory));
        }
    }

    /// Takes back the memory that a message needed when the set stays with its connection for requests that have already arrived, so that
    /// they don't inherit memory that nothing counts. Returns whether at most [`LARGE`] bytes are left.
    pub(crate) fn recede(&self, work: &mut Work) -> bool {
        self.reclaim(&mut work.from_upstream);
        let left = work.inbound.used();
        if left <= ORDINARY {
            self.shrink(&mut work.inbound);
        } else if left <= LARGE && work.inbound.size() > LARGE {
            self.keep(work.inbound.replace_memory(self.sized(LARGE)));
        }
        left <= LARGE
    }

    /// Gives memory to a buffer that has none.
    pub(crate) fn supply(&self, buffer: &mut Buffer) {
        if buffer.size() == 0 {
            buffer.replace_memory(self.sized(ORDINARY));
        }
    }

    /// Takes the memory of a buffer, whatever it contains.
    pub(crate) fn reclaim(&self, buffer: &mut Buffer) {
        buffer.clear();
        self.keep(buffer.replace_memory(Vec::new()));
    }

    /// Shrinks a buffer to its contents plus `room`.
    pub(crate) fn trim(&self, buffer: &mut Buffer, room: usize) {
        if !buffer.can_rewind() {
            buffer.compact();
        }
        let size = buffer.used() + room;
        if size < buffer.size() {
            self.keep(buffer.replace_memory(vec![0; size]));
        }
    }

    /// Memory of a size, reused if possible.
    fn sized(&self, size: usize) -> Vec<u8> {
        self.list(size).and_then(|list| list.borrow_mut().pop()).unwrap_or_else(|| vec![0; size])
    }

    fn shrink(&self, buffer: &mut Buffer) {
        if buffer.size() != ORDINARY {
            self.keep(buffer.replace_memory(self.sized(ORDINARY)));
        }
    }

    fn keep(&self, memory: Vec<u8>) {
        if let Some(list) = self.list(memory.len()) {
            let mut list = list.borrow_mut();
            // One for each request that waits for its response.
            if list.len() < (if memory.len() == ORDINARY { KEPT_SETS } else { KEPT_LARGE }) {
                list.push(memory);
            }
        }
    }

    /// Where memory of a size is kept.
    fn list(&self, size: usize) -> Option<&RefCell<Vec<Vec<u8>>>> {
        match size {
            ORDINARY => Some(&self.ordinary),
            RESPONSE => Some(&self.response),
            LARGE => Some(&self.large),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_that_are_already_received_inherit_no_large_memory() {
        let store = Store::default();
        for (left, size, fits) in [
            (1, ORDINARY, true),
            (ORDINARY, ORDINARY, true),
            (ORDINARY + 1, LARGE, true),
            (LARGE, LARGE, true),
            (LARGE + 1, 4 << 20, false),
        ] {
            let mut work = store.lend();
            work.from_upstream.replace_memory(vec![0; 4 << 20]);
            work.inbound.replace_memory(vec![0; 4 << 20]);
            work.inbound.append(&vec![b'x'; left]);
            assert_eq!(store.recede(&mut work), fits, "{left}");
            assert_eq!((work.from_upstream.size(), work.inbound.size()), (0, size), "{left}");
            assert_eq!(work.inbound.filled().len(), left);
        }
    }

    #[test]
    fn sets_come_back_at_their_first_size_and_nothing_is_allocated_twice() {
        let store = Store::default();
        let mut work = store.lend();
        store.supply(&mut work.from_upstream);
        work.from_upstream.fill_with(b'x', ORDINARY);
        store.make_room(&mut work.from_upstream, None, RESPONSE);
        assert_eq!(work.from_upstream.size(), RESPONSE);
        store.give_back(work);
        let work = store.lend();
        assert_eq!((work.inbound.size(), work.from_upstream.size()), (ORDINARY, 0));
        assert_eq!((store.response.borrow().len(), store.ordinary.borrow().len()), (1, 1));
        store.give_back(work);
    }

    #[test]
    fn a_buffer_keeps_only_its_content_while_its_client_is_slow() {
        let store = Store::default();
        for (consumed, left) in [(0, 0), (0, 5000), (5000, 0), (4000, 3000)] {
            for rewinds in [false, true] {
                let mut buffer = Buffer::with_size(ORDINARY);
                buffer.fill_with(b'h', 300);
                buffer.hold(300);
                buffer.fill_with(b'c', consumed);
                buffer.consume(consumed);
                buffer.fill_with(b'f', left);
                if !rewinds {
                    buffer.forgo_rewind();
                }
                store.trim(&mut buffer, 10);
                let kept = if rewinds { consumed } else { 0 };
                assert_eq!(buffer.size(), 300 + kept + left + 10, "{consumed} {left} {rewinds}");
                assert!(buffer.held() == [b'h'; 300] && buffer.filled() == vec![b'f'; left]);
                assert_eq!(buffer.can_rewind(), rewinds);
                store.make_room(&mut buffer, None, RESPONSE);
                assert!(buffer.room() >= LEAST_READ && buffer.size() <= RESPONSE);
                assert!(buffer.held() == [b'h'; 300] && buffer.filled() == vec![b'f'; left]);
                store.reclaim(&mut buffer);
            }
        }
        assert!(store.ordinary.borrow().len() > 1, "its memory serves others");
    }

    #[test]
    fn a_client_that_is_slow_again_loses_its_large_buffer_once_it_is_empty() {
        let store = Store::default();
        let mut buffer = Buffer::with_size(LARGE);
        buffer.fill_with(b'h', 300);
        buffer.hold(300);
        buffer.fill_with(b'x', LARGE - 300);
        buffer.forgo_rewind();
        buffer.consume(10_000);
        store.make_room(&mut buffer, None, RESPONSE);
        assert_eq!((buffer.size(), buffer.filled().len()), (LARGE, LARGE - 10_300));
        buffer.consume(LARGE - 10_300);
        store.make_room(&mut buffer, None, RESPONSE);
        assert_eq!((buffer.size(), buffer.held()), (RESPONSE, &[b'h'; 300][..]));
        buffer.fill_with(b'x', RESPONSE - 300);
        buffer.consume(RESPONSE - 300);
        store.make_room(&mut buffer, None, LARGE);
        assert_eq!(buffer.size(), LARGE, "it keeps up");
    }

    #[test]
    fn a_buffer_for_a_slow_client_grows_within_its_bounds() {
        let store = Store::default();
        for (most, spare, at_most) in
            [(1 << 20, 1 << 30, 1 << 20), (1 << 20, 100_000, ORDINARY + 100_000), (0, 0, ORDINARY)]
        {
            let mut buffer = Buffer::with_size(ORDINARY);
            buffer.fill_with(b'h', 100);
            buffer.hold(100);
            buffer.forgo_rewind();
            let mut left = spare;
            let mut extend = |buffer: &mut Buffer| {
                let before = buffer.size();
                let room = store.extend(buffer, None, most, left);
                left -= buffer.size() - before;
                room
            };
            while extend(&mut buffer) {
                let room = buffer.room();
                buffer.fill_with(b'x', room);
            }
            assert!(buffer.size() <= at_most + 100 && buffer.size() + LEAST_READ > at_most, "{}", buffer.size());
            // What the client has taken makes room again.
            buffer.consume(buffer.filled().len() / 2);
            assert!(extend(&mut buffer) && buffer.size() <= at_most + 100);
            assert!(buffer.held().len() == 100 && buffer.filled().iter().all(|byte| *byte == b'x'));
        }
        let mut short = Buffer::with_size(ORDINARY);
        short.fill_with(b'x', ORDINARY);
        assert!(store.extend(&mut short, Some(10), 1 << 20, 1 << 20));
        assert_eq!(short.size(), ORDINARY + 10);
    }

    /// Heads and bodies of all sizes around the edges.
    #[test]
    fn a_read_always_has_room_and_nothing_that_is_kept_is_lost() {
        for largest in [RESPONSE, LARGE] {
            a_read_has_room(largest);
        }
    }

    fn a_read_has_room(largest: usize) {
        let edges = [1, LEAST_READ, ORDINARY - LEAST_READ, ORDINARY, largest - LEAST_READ, largest, 2 * largest];
        let around = |edge: usize| edge.saturating_sub(2).max(1)..=edge + 2;
        let store = Store::default();
        for held in edges.into_iter().flat_map(around) {
            for more in edges.into_iter().flat_map(around).map(|more| Some(more as u64)).chain([None]) {
                for consumed in [0, 1, 100, LEAST_READ, ORDINARY] {
                    let mut buffer = Buffer::with_size(ORDINARY.max(held));
                    buffer.fill_with(b'h', held);
                    buffer.hold(held);
                    let consumed = consumed.min(buffer.room());
                    buffer.fill_with(b'c', consumed);
                    buffer.consume(consumed);
                    let filled = buffer.room().min(100);
                    buffer.fill_with(b'f', filled);
                    let what = format!("{held} held, {consumed} consumed, {filled} filled, {more:?} to come");
                    store.make_room(&mut buffer, more, largest);
                    let least = more.map_or(LEAST_READ, |more| (more as usize).min(LEAST_READ));
                    assert!(buffer.room() >= least, "{what}");
                    assert!(buffer.size() <= largest.max(2 * held + LEAST_READ), "{what}: {}", buffer.size());
                    assert!(buffer.held().len() == held && buffer.held().iter().all(|&byte| byte == b'h'), "{what}");
                    assert!(
                        buffer.filled().len() == filled && buffer.filled().iter().all(|&byte| byte == b'f'),
                        "{what}"
                    );
                    let all = (held + consumed + filled) as u64 + more.unwrap_or(u64::MAX / 2);
                    assert!(buffer.can_rewind() || consumed > 0 && all > largest as u64, "{what}");
                    store.reclaim(&mut buffer);
                }
            }
        }
    }
}
