//! A worker: one thread with its own event loop, the listeners that it opens and closes, and a [`Shard`] of all else. Workers
//! share nothing that is written while requests are served.
//!
//! The rest of the process sends messages to a worker. A message is acknowledged by dropping its contents, so that a sender never
//! waits for a worker that has ended.

mod accept;
mod listening;

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::connection::Runners;
use crate::l4::OpenStream;
use crate::l4::udp::Datagrams;
use crate::limit::LAST_LINES;
use crate::live::Live;
use crate::metrics::{LiveRoutes, WorkerReport};
use crate::net::listener::{AnyListener, Bound, OpenListener};
use crate::net::tls::Certificates;
use crate::shard::{Common, Shard};
use crate::timer::Beat;

/// A message to a worker.
#[derive(Debug)]
pub(crate) enum Order {
    /// Serve requests with this snapshot from now on; open and close some listeners.
    Publish {
        /// The snapshot.
        live: Arc<Live>,
        /// Sockets of this worker, bound and listening.
        open: Vec<(AnyListener, Bound)>,
        /// Listeners with a new resource at the same address.
        change: Vec<AnyListener>,
        /// Listeners that are removed.
        close: Vec<AnyListener>,
        /// Dropped once it is in effect.
        done: mpsc::Sender<()>,
    },
    /// Another process has the sockets too, and accepts from now on: accept the connections that wait, and close the sockets. UDP sessions
    /// go on, but the datagrams of clients are left to that process.
    HandOver {
        /// Dropped once it is in effect.
        done: mpsc::Sender<()>,
    },
    /// That process is gone: receive datagrams again.
    TakeBack,
    /// End every client connection with its next response; all else continues.
    Leave,
    /// Accept nothing more, close idle connections, let the rest finish.
    Drain {
        /// Dropped when the last connection and UDP session have ended.
        done: mpsc::Sender<()>,
    },
    /// Report the number of client connections.
    Connections(oneshot::Sender<usize>),
    /// Report the number of client connections and UDP sessions.
    Open(oneshot::Sender<usize>),
    /// Show that the worker's loop still runs.
    Ping(oneshot::Sender<()>),
    /// Report the counts so far.
    Report(u64, Arc<LiveRoutes>, oneshot::Sender<WorkerReport>),
    /// End at once.
    Stop,
}

/// One worker: its shard, and the sockets that it listens on.
#[derive(Debug)]
pub(crate) struct Worker {
    shard: Rc<Shard>,
    runners: Rc<Runners>,
    certificates: Arc<Certificates>,
    listeners: RefCell<Vec<(Rc<OpenListener>, JoinHandle<()>)>>,
    streams: RefCell<Vec<(Rc<OpenStream>, JoinHandle<()>)>>,
    datagrams: Rc<Datagrams>,
}

/// Starts a worker thread.
///
/// # Errors
/// If the operating system can't create a thread.
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
    // Without timers of the event loop, see `Beat`: tasks of a worker wait with its `Timers`.
    let started = Builder::new_current_thread().enable_io().build_local(LocalOptions::default());
    let started = started.and_then(|runtime| runtime.block_on(async { Beat::new() }).map(|beat| (runtime, beat)));
    let (runtime, beat) = match started {
        Ok(started) => started,
        Err(error) => {
            tracing::error!(%error, "a worker cannot start");
            return;
        }
    };
    let worker = Worker::new(common, certificates, live);
    runtime.block_on(worker.clone().serve(beat, messages));
    // The remaining tasks hold the worker, and the runtime holds them.
    drop(runtime);
    // So do UDP sessions. Each is logged now.
    worker.datagrams.clear();
}

impl Worker {
    fn new(common: Arc<Common>, certificates: Arc<Certificates>, live: Arc<Live>) -> Rc<Self> {
        let shard = Shard::new(common, live);
        Rc::new(Self {
            datagrams: Datagrams::new(shard.clone()),
            shard,
            runners: Rc::default(),
            certificates,
            listeners: RefCell::default(),
            streams: RefCell::default(),
        })
    }

    async fn serve(self: Rc<Self>, beat: Beat, mut messages: mpsc::UnboundedReceiver<Order>) {
        self.shard.start(beat);
        // The channel closes when the proxy is dropped.
        while let Some(message) = messages.recv().await {
            match message {
                Order::Publish { live, open, change, close, done } => {
                    self.close_listeners(|name| close.iter().any(|gone| gone.name() == name)).await;
                    self.shard.publish(live);
                    change.into_iter().for_each(|changed| self.change_listener(changed));
                    // A draining worker accepts nothing more.
                    for (listener, socket) in open.into_iter().filter(|_| !self.shard.is_draining()) {
                        if let Err(error) = self.open_listener(listener, socket) {
                            tracing::error!(%error, "a listener cannot be used");
                        }
                    }
                    drop(done);
                }
                Order::HandOver { done } => {
                    self.set_quiet(true);
                    let datagrams = self.datagram_ports();
                    self.close_listeners(|name| !datagrams.contains(name)).await;
                    drop(done);
                }
                Order::TakeBack => self.set_quiet(false),
                Order::Leave => self.shard.leave(),
                Order::Drain { done } => {
                    self.shard.drain();
                    // Datagrams still arrive: sessions that wait for responses get them.
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
                    report.streams.extend(self.streams.borrow().iter().map(|(open, _)| open.report()));
                    let _ = reply.send(report);
                }
                Order::Stop => return self.stop().await,
            }
        }
    }

    /// Ends requests in progress, so that each logs how far it got: if their tasks were simply dropped, the endpoint that they wait for
    /// would not be logged.
    async fn stop(&self) {
        self.shard.stop();
        let ended = async {
            while self.shard.under_way() > 0 {
                self.shard.ended().await;
            }
        };
        self.shard.timers.timeout(LAST_LINES, ended).await;
    }

    /// Number of client connections and UDP sessions.
    fn open(&self) -> usize {
        self.shard.connections() + self.datagrams.sessions()
    }
}

#[cfg(test)]
mod tests;
