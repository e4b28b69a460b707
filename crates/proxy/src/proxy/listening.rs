//! Which listeners are open, and what becomes of them with a change.
//!
//! What the operating system refuses is tried again and again. Each attempt knows how the one before it ended, so that nobody is
//! told the same thing twice.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;

use fairway_model::{ListenerName, Snapshot};

use crate::net::listener::{self, AnyListener, Bound};

/// The listeners as the last attempt left them. One whose new address is refused is in both maps: the old one is still open.
#[derive(Debug, Default)]
pub(super) struct Listening {
    /// The resources whose sockets are open.
    pub(super) open: HashMap<ListenerName, AnyListener>,
    /// Those that could not be opened.
    pub(super) refused: HashMap<ListenerName, Refusal>,
}

/// How an attempt to open a listener failed.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Refusal {
    address: SocketAddr,
    error: io::ErrorKind,
}

/// For each worker the sockets that it opens.
pub(super) type Open = Vec<Vec<(AnyListener, Bound)>>;

/// The listeners of a snapshot, for HTTP and for streams.
pub(super) fn listeners(snapshot: &Snapshot) -> impl Iterator<Item = AnyListener> {
    let http = snapshot.listeners().cloned().map(AnyListener::Http);
    http.chain(snapshot.stream_listeners().cloned().map(AnyListener::Stream))
}

/// What becomes of listeners with a change.
#[derive(Debug, Default)]
pub(super) struct Relisten {
    /// Sockets of new ones.
    pub(super) open: Open,
    /// Those that stay open and serve something else.
    pub(super) change: Vec<AnyListener>,
    /// Those that are no more.
    pub(super) close: Vec<AnyListener>,
    /// Those that could not be opened.
    pub(super) refused: Vec<RefusedListener>,
    /// New ones that were refused until now, and where they are.
    pub(super) opened: BTreeMap<ListenerName, SocketAddr>,
}

/// A listener that could not be opened. It is tried again with every change, and by [`Publisher::listen_again`](super::Publisher::listen_again).
#[derive(Debug)]
pub struct RefusedListener {
    /// Its name.
    pub listener: ListenerName,
    /// Its address.
    pub address: SocketAddr,
    /// What the operating system said.
    pub error: io::Error,
    /// Whether the attempt before this one ended in the same way: name, address and kind of the error.
    pub known: bool,
}

impl Listening {
    /// Binds what is new. A listener with another address is a new one, and the old one stays in force until that is bound;
    /// with something else behind it it stays open. What could not be bound is tried again. `local` is where listeners are open.
    pub(super) fn follow(
        &mut self,
        snapshot: &Snapshot,
        workers: usize,
        local: &mut BTreeMap<ListenerName, SocketAddr>,
    ) -> Relisten {
        let mut relisten = Relisten { open: (0..workers).map(|_| Vec::new()).collect(), ..Relisten::default() };
        let Relisten { open, change, close, refused, opened } = &mut relisten;
        let before = std::mem::take(&mut self.refused);
        let wanted: HashMap<ListenerName, AnyListener> =
            listeners(snapshot).map(|listener| (listener.name().clone(), listener)).collect();
        if wanted.len() == self.open.len()
            && wanted.iter().all(|(name, listener)| self.open.get(name).is_some_and(|known| known.is(listener)))
        {
            return Relisten::default();
        }
        let stays =
            |listener: &AnyListener| wanted.get(listener.name()).is_some_and(|new| new.shares_sockets(listener));
        // Where we listen now, with the ports that the kernel chose, and whether we go on there.
        let ours: Vec<_> = self
            .open
            .values()
            .filter_map(|listener| {
                local.get(listener.name()).map(|address| Ours {
                    address: *address,
                    udp: listener.is_udp(),
                    stays: stays(listener),
                })
            })
            .collect();
        self.open.retain(|name, listener| {
            let kept = wanted.contains_key(name);
            if !kept {
                close.push(listener.clone());
                local.remove(name);
            }
            kept
        });
        for listener in listeners(snapshot) {
            let old = self.open.get(listener.name());
            match old {
                Some(known) if known.is(&listener) => continue,
                Some(known) if known.shares_sockets(&listener) => {
                    change.push(listener.clone());
                    self.open.insert(listener.name().clone(), listener);
                    continue;
                }
                Some(_) | None => {}
            }
            match bind(&listener, &ours, workers) {
                Ok(sockets) => {
                    close.extend(old.cloned());
                    if let Some(address) = sockets.first().and_then(|socket| socket.local_addr().ok()) {
                        local.insert(listener.name().clone(), address);
                        if before.get(listener.name()).is_some_and(|refusal| refusal.address == listener.address()) {
                            opened.insert(listener.name().clone(), address);
                        }
                    }
                    for (own, socket) in open.iter_mut().zip(sockets) {
                        own.push((listener.clone(), socket));
                    }
                    self.open.insert(listener.name().clone(), listener);
                }
                Err(error) => {
                    let (name, address) = (listener.name().clone(), listener.address());
                    let refusal = Refusal { address, error: error.kind() };
                    let known = before.get(&name) == Some(&refusal);
                    self.refused.insert(name.clone(), refusal);
                    refused.push(RefusedListener { listener: name, address, error, known });
                }
            }
        }
        relisten
    }
}

/// A socket of our own.
struct Ours {
    address: SocketAddr,
    udp: bool,
    /// Whether it stays open.
    stays: bool,
}

/// Binds an address. A socket of our own that is about to close is not in the way; one that stays is, as anybody's would be.
fn bind(listener: &AnyListener, ours: &[Ours], workers: usize) -> io::Result<Vec<Bound>> {
    let address = listener.address();
    let overlaps = |own: &&Ours| {
        let ip = own.address.ip();
        let either = ip.is_unspecified() || address.ip().is_unspecified() || ip == address.ip();
        let same = own.address.port() == address.port() && own.address.is_ipv4() == address.is_ipv4();
        own.udp == listener.is_udp() && same && either
    };
    let mut beside = ours.iter().filter(overlaps).peekable();
    if beside.peek().is_none() || beside.any(|own| own.stays) {
        return listener::bind(listener, workers);
    }
    listener::bind_beside(listener, workers)
}
