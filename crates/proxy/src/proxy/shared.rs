//! What the proxy, its publishers and its control thread have in common: the workers, and the configuration in force.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use fairway_model::{Delta, ListenerName, Snapshot};
use tokio::sync::{mpsc, oneshot};

use super::RefusedListener;
use crate::access_log::LogThread;
use crate::listener::{self, AnyListener, Bound};
use crate::live::Live;
use crate::metrics::{ConfigStatus, ProxyFigures};
use crate::prepared::LogFormat;
use crate::resolve::Resolver;
use crate::tls::Certificates;
use crate::worker::Message;

#[derive(Debug)]
pub(super) struct Shared {
    /// One change after the other.
    pub(super) change: tokio::sync::Mutex<Listening>,
    pub(super) live: Mutex<Arc<Live>>,
    pub(super) workers: Vec<mpsc::UnboundedSender<Message>>,
    pub(super) local: Mutex<BTreeMap<ListenerName, SocketAddr>>,
    pub(super) certificates: Arc<Certificates>,
    pub(super) log_format: Option<LogFormat>,
    pub(super) resolver: Option<Arc<Resolver>>,
    pub(super) status: Mutex<ConfigStatus>,
    /// Endpoints so far whose addresses were refused.
    pub(super) refused_endpoints: AtomicU64,
}

/// The listener resources whose sockets are open.
pub(super) type Listening = HashMap<ListenerName, AnyListener>;

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
}

impl Shared {
    pub(super) fn live(&self) -> Arc<Live> {
        locked(&self.live).clone()
    }

    pub(super) fn tell(&self, message: impl Fn() -> Message) {
        for worker in &self.workers {
            let _ = worker.send(message());
        }
    }

    /// Makes a version the one in force, and waits until every worker serves it.
    pub(super) async fn distribute(&self, live: &Arc<Live>, listeners: Relisten) {
        let Relisten { mut open, change, close, .. } = listeners;
        open.resize_with(self.workers.len(), Vec::new);
        *locked(&self.live) = live.clone();
        let (done, mut all_done) = mpsc::channel(1);
        for (worker, open) in self.workers.iter().zip(open) {
            let message = Message::Publish {
                live: live.clone(),
                open,
                change: change.clone(),
                close: close.clone(),
                done: done.clone(),
            };
            // A worker that is gone has nothing to serve.
            let _ = worker.send(message);
        }
        drop(done);
        // Ends with `None` once every worker has dropped its end.
        while all_done.recv().await.is_some() {}
    }

    /// Tells those of a change who look after the addresses of endpoints.
    pub(super) fn announce(&self, delta: &Delta, before: &Snapshot) {
        if let Some(resolver) = &self.resolver {
            resolver.apply(delta);
        }
        let refused = self.live().addresses.report(delta, before);
        self.refused_endpoints.fetch_add(refused, Ordering::Relaxed);
    }

    /// Notes a change for the metrics.
    pub(super) fn note(&self, whole: bool, hash: u64) {
        let version = self.live().version;
        let mut status = locked(&self.status);
        status.version = version;
        status.hash = hash;
        status.last_succeeded = whole;
        if whole {
            status.successes += 1;
            status.last_success = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        } else {
            status.errors += 1;
        }
    }

    pub(super) fn figures(&self, log: Option<&LogThread>) -> ProxyFigures {
        let names = self.resolver.as_ref().map(|resolver| resolver.counts()).unwrap_or_default();
        ProxyFigures {
            workers: self.workers.len() as u64,
            log_lines_dropped: log.map_or(0, LogThread::dropped),
            resolver_names: names.names,
            resolver_queries: names.queries,
            resolver_failures: names.failures,
            refused_endpoints: self.refused_endpoints.load(Ordering::Relaxed),
        }
    }

    /// Asks each worker. One that is gone drops the question, which its answer tells.
    pub(super) fn ask<T>(&self, question: impl Fn(oneshot::Sender<T>) -> Message) -> Vec<oneshot::Receiver<T>> {
        let ask = |worker: &mpsc::UnboundedSender<Message>| {
            let (reply, answer) = oneshot::channel();
            let _ = worker.send(question(reply));
            answer
        };
        self.workers.iter().map(ask).collect()
    }

    /// Tells one worker, if it is still there.
    pub(super) fn tell_one(&self, worker: usize, message: Message) {
        if let Some(worker) = self.workers.get(worker) {
            let _ = worker.send(message);
        }
    }

    pub(super) async fn connections(&self) -> usize {
        let mut sum = 0;
        for answer in self.ask(Message::Connections) {
            sum += answer.await.unwrap_or(0);
        }
        sum
    }

    /// Binds what is new. A listener with another address is a new one, and the old one stays in force until that is bound;
    /// with something else behind it it stays open. What could not be bound is tried again with every change.
    pub(super) fn relisten(&self, listening: &mut Listening, snapshot: &Snapshot) -> Relisten {
        let mut open: Open = self.workers.iter().map(|_| Vec::new()).collect();
        let (mut change, mut close, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        let wanted: HashMap<ListenerName, AnyListener> =
            listeners(snapshot).map(|listener| (listener.name().clone(), listener)).collect();
        if wanted.len() == listening.len()
            && wanted.iter().all(|(name, listener)| listening.get(name).is_some_and(|known| known.is(listener)))
        {
            return Relisten::default();
        }
        let mut local = locked(&self.local);
        let stays =
            |listener: &AnyListener| wanted.get(listener.name()).is_some_and(|new| new.shares_sockets(listener));
        // Where we listen now, with the ports that the kernel chose, and whether we go on there.
        let ours: Vec<_> = listening
            .values()
            .filter_map(|listener| {
                local.get(listener.name()).map(|address| Ours {
                    address: *address,
                    udp: listener.is_udp(),
                    stays: stays(listener),
                })
            })
            .collect();
        listening.retain(|name, listener| {
            let kept = wanted.contains_key(name);
            if !kept {
                close.push(listener.clone());
                local.remove(name);
            }
            kept
        });
        for listener in listeners(snapshot) {
            let old = listening.get(listener.name());
            match old {
                Some(known) if known.is(&listener) => continue,
                Some(known) if known.shares_sockets(&listener) => {
                    change.push(listener.clone());
                    listening.insert(listener.name().clone(), listener);
                    continue;
                }
                Some(_) | None => {}
            }
            match bind(&listener, &ours, self.workers.len()) {
                Ok(sockets) => {
                    close.extend(old.cloned());
                    if let Some(address) = sockets.first().and_then(|socket| socket.local_addr().ok()) {
                        local.insert(listener.name().clone(), address);
                    }
                    for (own, socket) in open.iter_mut().zip(sockets) {
                        own.push((listener.clone(), socket));
                    }
                    listening.insert(listener.name().clone(), listener);
                }
                Err(error) => {
                    refused.push(RefusedListener {
                        listener: listener.name().clone(),
                        address: listener.address(),
                        error,
                    });
                }
            }
        }
        Relisten { open, change, close, refused }
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

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
