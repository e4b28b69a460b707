//! Upstream servers on loopback, built by chaining: their responses, their misbehaviour, and a record of what they
//! received.

use std::any::Any;
use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard};

use rustls::ServerConfig;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::message::{Request, show};
use crate::{Ca, Ended, Leaf};

mod echo;
mod listen;
mod reply;
mod serve;

pub use echo::Echo;
pub use reply::Reply;

/// A server under test control. Dropping it closes its port and its connections.
pub struct Origin {
    name: String,
    address: SocketAddr,
    record: Arc<Record>,
    orders: watch::Sender<Orders>,
    accepting: Option<AbortHandle>,
    /// Sockets held for as long as the origin lives: a port that refuses, connections that fill a backlog.
    _held: Vec<Held>,
    /// How many requests, heads and connections the `next_` methods have returned.
    cursors: Mutex<Cursors>,
}

/// Options for an origin; [`OriginBuilder::start`] starts it.
#[must_use]
pub struct OriginBuilder {
    name: String,
    bind: SocketAddr,
    fault: Option<Fault>,
    when: When,
    reply: ReplyFn,
    tls: Option<ServerConfig>,
}

type ReplyFn = Arc<dyn Fn(&Request) -> Reply + Send + Sync>;

/// How an origin misbehaves before it reads a request. Misbehaviour after that is a [`Reply`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing listens on the port.
    Refuse,
    /// A connection attempt gets no answer, as from a host that drops packets.
    Unreachable,
    /// Accepts and reads, but never responds.
    Silent,
    /// Accepts but never reads.
    Deaf,
    /// Closes at once with a FIN.
    CloseOnAccept,
    /// Closes at once with a RST.
    ResetOnAccept,
    /// Not HTTP: echoes every byte, and half-closes after its peer does.
    EchoBytes,
}

/// When an origin starts to respond to a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum When {
    /// After the whole request.
    #[default]
    Complete,
    /// After the head; the body is read after the response if the connection is kept.
    Head,
    /// Like `Complete`, but without a `100 Continue` to a client that expects one.
    NoContinue,
}

impl Origin {
    /// An origin with this name that responds with what it received ([`Echo`]).
    #[expect(clippy::new_ret_no_self, reason = "reads as a sentence: Origin::new(..).reply(..).start()")]
    pub fn new(name: &str) -> OriginBuilder {
        let echoed = name.to_owned();
        OriginBuilder {
            name: name.to_owned(),
            bind: (Ipv4Addr::LOCALHOST, 0).into(),
            fault: None,
            when: When::default(),
            reply: Arc::new(move |request| Reply::echo(&echoed, request)),
            tls: None,
        }
    }

    /// Starts an echoing origin.
    pub fn start(name: &str) -> Self {
        Self::new(name).start()
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port it listens on.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// The number of connections it has accepted.
    pub fn connections(&self) -> u64 {
        self.record.lock().connections.len() as u64
    }

    /// The number of its open connections.
    pub fn open_connections(&self) -> u64 {
        self.record.lock().connections.iter().filter(|connection| connection.ended.is_none()).count() as u64
    }

    /// The number of requests it has received completely.
    pub fn requests(&self) -> u64 {
        self.record.lock().requests.len() as u64
    }

    /// Every completely received request, in the order in which they ended.
    pub fn seen(&self) -> Vec<Request> {
        self.record.lock().requests.clone()
    }

    /// The raw bytes received on each connection, decrypted.
    pub fn received(&self) -> Vec<Vec<u8>> {
        self.record.lock().connections.iter().map(|connection| connection.received.clone()).collect()
    }

    /// Waits for the next completely received request. Each is returned once.
    pub async fn next_request(&self) -> Request {
        let at = self.advance(|cursors| &mut cursors.requests);
        self.until("a request", |seen| seen.requests.get(at).cloned()).await
    }

    /// Waits for the next request head; the body may not have arrived. Each is returned once.
    pub async fn next_head(&self) -> Request {
        let at = self.advance(|cursors| &mut cursors.heads);
        self.until("a request head", |seen| seen.heads.get(at).cloned()).await
    }

    /// Waits for the next connection and returns its number, from 1. Each is returned once.
    pub async fn next_connection(&self) -> u64 {
        let at = self.advance(|cursors| &mut cursors.connections);
        self.until("a connection", |seen| (seen.connections.len() > at).then_some(at as u64 + 1)).await
    }

    /// Waits until the peer ends connection `number` (from 1), and returns how.
    pub async fn ended(&self, number: u64) -> Ended {
        let at = number as usize - 1;
        let what = format!("the peer to end connection {number}");
        self.until(&what, |seen| match seen.connections.get(at)?.ended? {
            End::Peer(ended) => Some(ended),
            End::Origin => panic!("origin {} ended connection {number} itself", self.name),
        })
        .await
    }

    /// Waits until no connection is open.
    pub async fn idle(&self) {
        self.until("its connections to end", |seen| {
            seen.connections.iter().all(|one| one.ended.is_some()).then_some(())
        })
        .await;
    }

    /// Waits until the raw bytes on connection `number` (from 1) contain `needle`.
    pub async fn has_received(&self, number: u64, needle: impl AsRef<[u8]>) {
        let needle = needle.as_ref();
        let what = format!("{} on connection {number}", show(needle));
        self.until(&what, |seen| {
            let received = &seen.connections.get(number as usize - 1)?.received;
            crate::message::find(received, needle).map(|_| ())
        })
        .await;
    }

    /// Closes every open connection with a FIN, whatever its state, and continues to accept.
    pub fn close_connections(&self) {
        self.orders.send_modify(|orders| orders.closed = self.connections());
    }

    /// Closes every open connection with a RST, and continues to accept.
    pub fn reset_connections(&self) {
        self.orders.send_modify(|orders| orders.reset = self.connections());
    }

    /// Stops accepting: new connections are refused. Open ones continue.
    pub fn stop_listening(&self) {
        self.orders.send_modify(|orders| orders.stopped = true);
    }

    /// Replaces the replies from now on.
    pub fn set_reply(&self, reply: impl Into<Reply>) {
        let reply = reply.into();
        self.orders.send_modify(|orders| orders.reply = Some(Arc::new(move |_: &Request| reply.clone())));
    }

    fn advance(&self, cursor: impl FnOnce(&mut Cursors) -> &mut usize) -> usize {
        let mut cursors = self.cursors.lock().expect("no holder of this lock panics");
        let cursor = cursor(&mut cursors);
        *cursor += 1;
        *cursor - 1
    }

    async fn until<T>(&self, what: &str, mut look: impl FnMut(&Seen) -> Option<T>) -> T {
        let mut changes = self.record.changed.subscribe();
        let wait = async {
            loop {
                changes.borrow_and_update();
                if let Some(value) = look(&self.record.lock()) {
                    return value;
                }
                // The sender lives as long as `self.record`.
                let _ = changes.changed().await;
            }
        };
        match tokio::time::timeout(crate::DEADLINE, wait).await {
            Ok(value) => value,
            Err(_) => panic!("waited {:?} for {what} at {self:?}", crate::DEADLINE),
        }
    }
}

impl fmt::Debug for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "origin {} ({}): {:?}", self.name, self.address, *self.record.lock())
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        if let Some(accepting) = &self.accepting {
            accepting.abort();
        }
    }
}

impl OriginBuilder {
    /// Sends this reply to every request.
    pub fn reply(self, reply: Reply) -> Self {
        self.reply_with(move |_| reply.clone())
    }

    /// Chooses the reply by the request.
    pub fn reply_with(mut self, reply: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        self.reply = Arc::new(reply);
        self
    }

    /// Sends the first of these to the first request, and so on; the last is repeated. Counts across all connections.
    pub fn replies(self, replies: impl IntoIterator<Item = Reply>) -> Self {
        let replies: Vec<_> = replies.into_iter().collect();
        assert!(!replies.is_empty(), "an origin needs at least one reply");
        let next = std::sync::atomic::AtomicUsize::new(0);
        self.reply_with(move |_| {
            let at = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            replies[at.min(replies.len() - 1)].clone()
        })
    }

    /// Sets when to respond.
    pub fn when(mut self, when: When) -> Self {
        self.when = when;
        self
    }

    /// Misbehaves from the start.
    pub fn fault(mut self, fault: Fault) -> Self {
        self.fault = Some(fault);
        self
    }

    /// Listens on this address instead of a free port of 127.0.0.1.
    pub fn bind(mut self, address: impl Into<SocketAddr>) -> Self {
        self.bind = address.into();
        self
    }

    /// Speaks TLS with this certificate.
    pub fn tls(mut self, leaf: &Leaf) -> Self {
        self.tls = Some(serve::tls_config(leaf, None));
        self
    }

    /// Speaks TLS with this certificate and demands a client certificate issued by `clients`.
    pub fn mutual_tls(mut self, leaf: &Leaf, clients: &Ca) -> Self {
        self.tls = Some(serve::tls_config(leaf, Some(clients)));
        self
    }

    /// Listens and serves until dropped. Must be called inside a tokio runtime.
    ///
    /// # Panics
    /// If the address is in use.
    pub fn start(self) -> Origin {
        listen::start(self)
    }
}

/// What an origin has received, and a signal for each change.
struct Record {
    seen: Mutex<Seen>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct Seen {
    connections: Vec<Connection>,
    heads: Vec<Request>,
    requests: Vec<Request>,
}

#[derive(Default)]
struct Connection {
    received: Vec<u8>,
    ended: Option<End>,
}

/// The side that ended a connection.
#[derive(Clone, Copy, Debug)]
enum End {
    Peer(Ended),
    Origin,
}

#[derive(Default)]
struct Cursors {
    requests: usize,
    heads: usize,
    connections: usize,
}

/// The test's orders to the running tasks.
#[derive(Clone, Default)]
struct Orders {
    stopped: bool,
    /// Connections up to this number must close.
    closed: u64,
    /// Connections up to this number must reset.
    reset: u64,
    reply: Option<ReplyFn>,
}

/// A socket that is kept open and never used.
type Held = Box<dyn Any + Send + Sync>;

impl Record {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().expect("no holder of this lock panics")
    }

    fn edit<T>(&self, edit: impl FnOnce(&mut Seen) -> T) -> T {
        let value = edit(&mut self.lock());
        self.changed.send_replace(());
        value
    }
}

impl fmt::Debug for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} connections, {} heads, {} requests",
            self.connections.len(),
            self.heads.len(),
            self.requests.len()
        )?;
        for (at, connection) in self.connections.iter().enumerate() {
            write!(f, "; connection {} received {}", at + 1, show(&connection.received))?;
            if let Some(end) = connection.ended {
                write!(f, " and was ended: {end:?}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
