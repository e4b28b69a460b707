//! A worker: one thread with its own event loop, the listeners that it opens and closes, and a [`Shard`] of all else. Workers share
//! nothing that is written while requests are served.
//!
//! The rest of the process talks to a worker by messages. A message is acknowledged by dropping what it carries, so that a
//! worker that is gone never leaves anybody waiting.

mod accept;
mod listening;

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::l4::OpenStream;
use crate::l4::udp::Datagrams;
use crate::limit::LAST_LINES;
use crate::live::Live;
use crate::metrics::{LiveRoutes, WorkerReport};
use crate::net::listener::{AnyListener, Bound, OpenListener};
use crate::net::tls::Certificates;
use crate::shard::{Common, Shard};

/// What a worker is told.
#[derive(Debug)]
pub(crate) enum Order {
    /// From now on requests are served by this snapshot; some listeners are opened, some closed.
    Publish {
        /// The snapshot.
        live: Arc<Live>,
        /// Sockets of this worker, bound and listening.
        open: Vec<(AnyListener, Bound)>,
        /// Listeners whose resource changed without a change of address.
        change: Vec<AnyListener>,
        /// Listeners that are no more.
        close: Vec<AnyListener>,
        /// Dropped once it is in force.
        done: mpsc::Sender<()>,
    },
    /// Every client connection ends with its next response; everything else goes on.
    Leave,
    /// Accept nothing more, close what is idle, let the rest finish.
    Drain {
        /// Dropped when the last connection and the last session of datagrams have ended.
        done: mpsc::Sender<()>,
    },
    /// How many client connections there are.
    Connections(oneshot::Sender<usize>),
    /// How many client connections and sessions of datagrams there are.
    Open(oneshot::Sender<usize>),
    /// Whether the worker still turns.
    Ping(oneshot::Sender<()>),
    /// What was counted so far.
    Report(u64, Arc<LiveRoutes>, oneshot::Sender<WorkerReport>),
    /// End at once.
    Stop,
}

/// One worker: its shard, and the sockets that it listens on.
#[derive(Debug)]
pub(crate) struct Worker {
    shard: Rc<Shard>,
    certificates: Arc<Certificates>,
    listeners: RefCell<Vec<(Rc<OpenListener>, JoinHandle<()>)>>,
    streams: RefCell<Vec<(Rc<OpenStream>, JoinHandle<()>)>>,
    datagrams: Rc<Datagrams>,
}

/// Starts a worker thread.
///
/// # Errors
/// If the operating system gives no thread.
pub(crate) fn start(
    index: usize,
    common: Arc<Common>,
    certificates: Arc<Certificates>,
    live: Arc<Live>,
) -> io::Result<(mpsc::UnboundedSender<Order>, thread::JoinHandle<()>)> {
    let (sender, messages) = mpsc::unbounded_channel();
    let thread = thread::Builder::new()
        .name(format!("worker-{index}"))
        .spawn(move || run(common, certificates, live, messages))?;
    Ok((sender, thread))
}

fn run(
    common: Arc<Common>,
    certificates: Arc<Certificates>,
    live: Arc<Live>,
    messages: mpsc::UnboundedReceiver<Order>,
) {
    // Each turn of the loop asks the kernel for events after so many tasks. The default of 61 suits compute tasks; ours are
    // short, and the answer of a fast endpoint is often there within that time.
    let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "a worker cannot start");
            return;
        }
    };
    let worker = Worker::new(common, certificates, live);
    runtime.block_on(worker.clone().serve(messages));
    // The tasks that are left hold the worker, and the runtime holds them.
    drop(runtime);
    // So do the sessions of datagrams. Each is logged now.
    worker.datagrams.clear();
}

impl Worker {
    fn new(common: Arc<Common>, certificates: Arc<Certificates>, live: Arc<Live>) -> Rc<Self> {
        let shard = Shard::new(common, live);
        Rc::new(Self {
            datagrams: Datagrams::new(shard.clone()),
            shard,
            certificates,
            listeners: RefCell::default(),
            streams: RefCell::default(),
        })
    }

    async fn serve(self: Rc<Self>, mut messages: mpsc::UnboundedReceiver<Order>) {
        self.shard.start();
        // The other end is gone when the proxy was dropped.
        while let Some(message) = messages.recv().await {
            match message {
                Order::Publish { live, open, change, close, done } => {
                    self.close_listeners(|name| close.iter().any(|gone| gone.name() == name)).await;
                    self.shard.publish(live);
                    change.into_iter().for_each(|changed| self.change_listener(changed));
                    // A worker that drains accepts nothing more.
                    for (listener, socket) in open.into_iter().filter(|_| !self.shard.is_draining()) {
                        if let Err(error) = self.open_listener(listener, socket) {
                            tracing::error!(%error, "a listener cannot be used");
                        }
                    }
                    drop(done);
                }
                Order::Leave => self.shard.leave(),
                Order::Drain { done } => {
                    self.shard.drain();
                    // Datagrams come on: sessions that wait for answers get them.
                    let datagrams = self.datagram_ports();
                    self.close_listeners(|name| !datagrams.contains(name)).await;
                    let this = self.clone();
                    tokio::task::spawn_local(async move {
                        while this.open() > 0 {
                            this.shard.ended().await;
                        }
                        drop(done);
                    });
                }
                Order::Connections(reply) => {
                    let _ = reply.send(self.shard.connections());
                }
                Order::Open(reply) => {
                    let _ = reply.send(self.open());
                }
                Order::Ping(reply) => {
                    let _ = reply.send(());
                }
                Order::Report(version, live, reply) => {
                    let mut report = self.shard.report(version, &live);
                    report.streams = self.streams.borrow().iter().map(|(open, _)| open.report()).collect();
                    let _ = reply.send(report);
                }
                Order::Stop => return self.stop().await,
            }
        }
    }

    /// Ends requests that are under way, so that each logs how far it came: when their tasks are just dropped, it is not known any more
    /// which endpoint they were waiting for.
    async fn stop(&self) {
        self.shard.stop();
        let end = Instant::now() + LAST_LINES;
        while self.shard.under_way() > 0 && Instant::now() < end {
            // No limit: a pause between two looks.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    /// Client connections and sessions of datagrams.
    fn open(&self) -> usize {
        self.shard.connections() + self.datagrams.sessions()
    }
}

#[cfg(test)]
mod tests;
