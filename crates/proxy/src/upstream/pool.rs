//! One worker's idle HTTP/1 connections to endpoints, by [`Target`].
//!
//! The most recently used one is taken first, so that the others can age out. Invariant: a connection from the pool has, as far
//! as the worker's event loop knows, neither been closed nor received a byte since its last response.

use std::hint::cold_path;
use std::io;
use std::mem::MaybeUninit;
use std::task::{Context, Waker};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use socket2::SockRef;

use super::Target;
use crate::prepared::PoolLimits;
use crate::stream::{ReadInto, Upstream};
use crate::timer::Millis;

/// A connection to an endpoint. Boxed in use, because each request takes one from the pool and gives it back.
#[derive(Debug)]
pub(crate) struct UpstreamConnection {
    pub(crate) stream: Upstream,
    /// The address that it connects to, and how it was opened.
    pub(crate) target: Target,
    /// When it was opened.
    pub(crate) opened: Millis,
    /// Requests sent on it.
    pub(crate) requests: u64,
}

impl UpstreamConnection {
    /// Asks the kernel whether the connection is still open and silent: neither closed by the peer nor with unsolicited data.
    pub(crate) fn is_open(&self) -> bool {
        let mut byte = [MaybeUninit::uninit(); 1];
        let peeked = SockRef::from(self.stream.tcp()).peek(&mut byte);
        matches!(peeked, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    /// Whether the peer has closed it or sent unsolicited data. Costs a system call only if something has happened.
    fn is_stale(&mut self) -> bool {
        let mut byte = [0; 1];
        match &mut self.stream {
            // Asks the kernel only if the event loop has seen an event, which may be left over from the last response.
            Upstream::Plain(tcp) => {
                !matches!(tcp.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            }
            // This consumes TLS's own messages, such as tickets, and reveals any data byte or the end.
            tls @ Upstream::Tls(_) => tls.poll_read_into(&mut Context::from_waker(Waker::noop()), &mut byte).is_ready(),
        }
    }
}

const NONE: u32 = u32::MAX;

/// A slab of idle connections in two kinds of list: one of all connections by last use, and one for each target.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    slots: Vec<PoolSlot>,
    free: Vec<u32>,
    heads: HashMap<Target, u32, RandomState>,
    newest: Option<u32>,
    oldest: Option<u32>,
    len: usize,
}

#[derive(Debug)]
struct PoolSlot {
    connection: Option<Box<UpstreamConnection>>,
    since: Millis,
    older: u32,
    newer: u32,
    /// The next one to the same target, used less recently.
    below: u32,
    /// The one to the same target used more recently.
    above: u32,
}

impl Pool {
    /// Takes the most recently used connection to a target that still works, if any.
    pub(crate) fn take(&mut self, target: &Target) -> Option<Box<UpstreamConnection>> {
        loop {
            let head = self.heads.get_mut(target).filter(|head| **head != NONE)?;
            let slot = *head;
            // A list that is now empty is kept because it will be needed again; `sweep` removes it.
            *head = self.slots[slot as usize].below;
            let mut connection = self.unlink(slot)?;
            if !connection.is_stale() {
                return Some(connection);
            }
            cold_path();
        }
    }

    /// Keeps a connection whose response was read completely, within the limits.
    pub(crate) fn put(&mut self, connection: Box<UpstreamConnection>, now: Millis, limits: &PoolLimits) {
        if limits.connections == 0
            || connection.requests >= limits.requests
            || now.saturating_sub(connection.opened) >= limits.age
        {
            cold_path();
            return;
        }
        while self.len >= limits.connections {
            cold_path();
            let Some(oldest) = self.oldest else { return };
            self.remove(oldest);
        }
        self.insert(connection, now);
    }

    /// Closes connections that have been idle too long, are too old, or were closed by the endpoint.
    pub(crate) fn sweep(&mut self, now: Millis, limits: &PoolLimits) {
        for slot in 0..self.slots.len() as u32 {
            let PoolSlot { connection, since, .. } = &mut self.slots[slot as usize];
            let expired = connection.as_mut().is_some_and(|connection| {
                now.saturating_sub(*since) >= limits.idle
                    || now.saturating_sub(connection.opened) >= limits.age
                    || connection.is_stale()
            });
            if expired {
                self.remove(slot);
            }
        }
        self.heads.retain(|_, head| *head != NONE);
    }

    /// Closes the least recently used connection; `false` if there is none.
    pub(crate) fn close_oldest(&mut self) -> bool {
        self.oldest.is_some_and(|oldest| self.remove(oldest).is_some())
    }

    /// Closes all connections.
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Number of idle connections.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    fn insert(&mut self, connection: Box<UpstreamConnection>, now: Millis) {
        let target = connection.target;
        let slot = self.free.pop().unwrap_or_else(|| {
            cold_path();
            self.slots.push(PoolSlot {
                connection: None,
                since: 0,
                older: NONE,
                newer: NONE,
                below: NONE,
                above: NONE,
            });
            (self.slots.len() - 1) as u32
        });
        let below = self.heads.insert(target, slot).unwrap_or(NONE);
        let older = self.newest.replace(slot).unwrap_or(NONE);
        if let Some(next) = self.slots.get_mut(below as usize) {
            next.above = slot;
        }
        match self.slots.get_mut(older as usize) {
            Some(next) => next.newer = slot,
            None => self.oldest = Some(slot),
        }
        self.slots[slot as usize] =
            PoolSlot { connection: Some(connection), since: now, older, newer: NONE, below, above: NONE };
        self.len += 1;
    }

    fn remove(&mut self, slot: u32) -> Option<Box<UpstreamConnection>> {
        let PoolSlot { connection, above, below, .. } = &self.slots[slot as usize];
        if *above == NONE
            && let Some(connection) = connection
            && let Some(head) = self.heads.get_mut(&connection.target)
        {
            *head = *below;
        }
        self.unlink(slot)
    }

    /// Takes a connection out of both lists. The caller has to make sure that its target's list no longer begins with it.
    fn unlink(&mut self, slot: u32) -> Option<Box<UpstreamConnection>> {
        let entry = &mut self.slots[slot as usize];
        let connection = entry.connection.take()?;
        let (older, newer, below, above) = (entry.older, entry.newer, entry.below, entry.above);
        match self.slots.get_mut(older as usize) {
            Some(next) => next.newer = newer,
            None => self.oldest = (newer != NONE).then_some(newer),
        }
        match self.slots.get_mut(newer as usize) {
            Some(next) => next.older = older,
            None => self.newest = (older != NONE).then_some(older),
        }
        if let Some(next) = self.slots.get_mut(below as usize) {
            next.above = above;
        }
        if let Some(next) = self.slots.get_mut(above as usize) {
            next.below = below;
        }
        self.free.push(slot);
        self.len -= 1;
        Some(connection)
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use std::net::SocketAddr;

    use super::super::{UpstreamVersion, Way};
    use super::*;

    const LIMITS: PoolLimits = PoolLimits { connections: 3, requests: 10, idle: 100, age: 1000 };

    async fn connection(listener: &TcpListener) -> (Box<UpstreamConnection>, TcpStream) {
        let address = listener.local_addr().unwrap();
        let stream = Upstream::Plain(TcpStream::connect(address).await.unwrap());
        (
            Box::new(UpstreamConnection { stream, target: plain(address), opened: 0, requests: 1 }),
            listener.accept().await.unwrap().0,
        )
    }

    fn plain(address: SocketAddr) -> Target {
        Target { address, way: Way::Plain(UpstreamVersion::Http1).number() }
    }

    #[tokio::test]
    async fn the_last_one_used_is_taken_first_and_the_oldest_is_dropped() {
        let (a, b) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), TcpListener::bind("127.0.0.1:0").await.unwrap());
        let (at_a, at_b) = (a.local_addr().unwrap(), b.local_addr().unwrap());
        let mut pool = Pool::default();
        let mut peers = Vec::new();
        let mut ports = Vec::new();
        for listener in [&a, &b, &a, &a] {
            let (connection, peer) = connection(listener).await;
            peers.push(peer);
            ports.push(connection.stream.tcp().local_addr().unwrap());
            pool.put(connection, 0, &LIMITS);
        }
        assert_eq!(pool.len(), 3);
        let mut taken = |address| pool.take(&plain(address)).map(|up| up.stream.tcp().local_addr().unwrap());
        assert_eq!(taken(at_a), Some(ports[3]));
        assert_eq!(taken(at_a), Some(ports[2]));
        assert_eq!(taken(at_a), None, "the first one made room for the fourth");
        assert_eq!(taken(at_b), Some(ports[1]));
        assert_eq!(taken(at_b), None);
        assert_eq!(pool.len(), 0);
    }

    #[tokio::test]
    async fn closed_stray_idle_and_worn_out_connections_are_not_handed_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = plain(listener.local_addr().unwrap());
        let mut pool = Pool::default();
        let (closed, peer) = connection(&listener).await;
        drop(peer);
        closed.stream.tcp().readable().await.unwrap();
        pool.put(closed, 0, &LIMITS);
        assert!(pool.take(&target).is_none());

        let (stray, peer) = connection(&listener).await;
        peer.try_write(b"HTTP/1.1 200 OK\r\n").unwrap();
        stray.stream.tcp().readable().await.unwrap();
        pool.put(stray, 0, &LIMITS);
        assert!(pool.take(&target).is_none());

        let (idle, _peer) = connection(&listener).await;
        pool.put(idle, 0, &LIMITS);
        pool.sweep(99, &LIMITS);
        assert_eq!(pool.len(), 1);
        pool.sweep(100, &LIMITS);
        assert_eq!((pool.len(), pool.heads.len()), (0, 0));

        let (mut worn, _peer) = connection(&listener).await;
        worn.requests = LIMITS.requests;
        pool.put(worn, 0, &LIMITS);
        assert_eq!(pool.len(), 0);
    }
}
