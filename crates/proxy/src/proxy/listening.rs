//! The open listeners, and how a change affects them.
//!
//! Listeners that the operating system refuses are retried repeatedly. Each attempt knows how the previous one ended, so that
//! nothing is reported twice.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;

use fairway_model::{ListenerName, Snapshot};

use crate::net::inherited::{Inherited, Spare};
use crate::net::listener::{self, AnyListener, Bound};

/// The listeners as the last attempt left them. A listener whose new address is refused is in both maps: the old one is still
/// open.
#[derive(Debug, Default)]
pub(super) struct Listening {
    /// The resources whose sockets are open.
    pub(super) open: HashMap<ListenerName, AnyListener>,
    /// Listeners that could not be opened.
    pub(super) refused: HashMap<ListenerName, Refusal>,
    /// Further descriptors of the open sockets, for a process that takes them over.
    pub(super) spare: Spare,
    /// Sockets of the previous process, for listeners with their addresses.
    pub(super) inherited: Inherited,
    /// Whether another process listens in place of this one.
    pub(super) handed_over: bool,
}

/// How an attempt to open a listener failed.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Refusal {
    address: SocketAddr,
    error: io::ErrorKind,
}

/// For each worker, the sockets that it opens.
pub(super) type OpenedListeners = Vec<Vec<(AnyListener, Bound)>>;

/// The listeners of a snapshot, for HTTP and for streams.
pub(super) fn listeners(snapshot: &Snapshot) -> impl Iterator<Item = AnyListener> {
    let http = snapshot.listeners().cloned().map(AnyListener::Http);
    http.chain(snapshot.stream_listeners().cloned().map(AnyListener::Stream))
}

/// How listeners are affected by a change.
#[derive(Debug, Default)]
pub(super) struct Relisten {
    /// Sockets of new listeners.
    pub(super) open: OpenedListeners,
    /// Listeners that stay open with another resource.
    pub(super) change: Vec<AnyListener>,
    /// Listeners that are removed.
    pub(super) close: Vec<AnyListener>,
    /// Listeners that could not be opened.
    pub(super) refused: Vec<RefusedListener>,
    /// Newly opened listeners that were refused before, with their addresses.
    pub(super) opened: BTreeMap<ListenerName, SocketAddr>,
}

/// A listener that could not be opened. It is tried again with every change, and by [`Publisher::listen_again`](super::Publisher::listen_again).
#[derive(Debug)]
pub struct RefusedListener {
    /// Its name.
    pub listener: ListenerName,
    /// Its address.
    pub address: SocketAddr,
    /// The error from the operating system.
    pub error: io::Error,
    /// Whether the attempt before this one ended in the same way: name, address and kind of the error.
    pub known: bool,
}

impl Listening {
    /// Binds new listeners. A listener with another address is a new one, and the old one stays open until the new one is bound;
    /// with another resource it stays open. Listeners that could not be bound are retried. `local` gives the addresses of open
    /// listeners.
    pub(super) fn follow(
        &mut self,
        snapshot: &Snapshot,
        workers: usize,
        local: &mut BTreeMap<ListenerName, SocketAddr>,
    ) -> Relisten {
        if self.handed_over {
            return Relisten::default();
        }
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
        // The addresses that the proxy listens on now, with the ports that the kernel chose, and whether it keeps them.
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
        let spare = &mut self.spare;
        self.open.retain(|name, listener| {
            let kept = wanted.contains_key(name);
            if !kept {
                // First: the last descriptor must be the worker's, which accepts what waits there before it closes it.
                spare.remove(name);
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
            let bound = match self.inherited.take(&listener, workers) {
                Ok(None) => bind(&listener, &ours, workers),
                Ok(Some(sockets)) => Ok(sockets),
                Err(error) => Err(error),
            };
            match bound {
                Ok(sockets) => {
                    close.extend(old.cloned());
                    if let Some(address) = sockets.first().and_then(|socket| socket.local_addr().ok()) {
                        local.insert(listener.name().clone(), address);
                        if before.get(listener.name()).is_some_and(|refusal| refusal.address == listener.address()) {
                            opened.insert(listener.name().clone(), address);
                        }
                    }
                    self.spare.keep(listener.name(), &sockets);
                    // A process with more workers leaves several for each of ours.
                    for (at, socket) in sockets.into_iter().enumerate() {
                        open[at % workers].push((listener.clone(), socket));
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

    /// Forgets the listeners that another process serves from now on. UDP ports stay open until their sessions have ended.
    pub(super) fn hand_over(&mut self, local: &mut BTreeMap<ListenerName, SocketAddr>) {
        self.handed_over = true;
        self.refused.clear();
        self.spare.clear(false);
        self.open.retain(|name, listener| {
            let stays = listener.is_udp();
            if !stays {
                local.remove(name);
            }
            stays
        });
    }
}

/// One of the proxy's own sockets.
struct Ours {
    address: SocketAddr,
    udp: bool,
    /// Whether it stays open.
    stays: bool,
}

/// Binds an address. One of the proxy's own sockets that is about to close doesn't block it; one that stays does, like any other
/// process's.
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
