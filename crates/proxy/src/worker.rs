//! A worker: one thread with its own event loop, listeners, connections, pools and memory. Workers share nothing that is
//! written while requests are served.
//!
//! The rest of the process talks to a worker by messages. A message is acknowledged by dropping what it carries, so that a
//! worker that is gone never leaves anybody waiting.

mod admission;
mod client_count;
mod listening;
mod place;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fairway_model::Template;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;

pub(crate) use self::admission::Admission;
pub(crate) use self::client_count::ClientCounts;
use self::place::Places;
use crate::access_log::{self, Format, LogHandle, LogWriter, StreamRecord};
use crate::l4::{OpenStream, Sessions};
use crate::limit::LAST_LINES;
use crate::live::{InForce, Live};
use crate::metrics::{LiveRoutes, MetricOptions, WorkerMetrics, WorkerReport};
use crate::net::listener::{AnyListener, Bound, OpenListener};
use crate::net::tls::Certificates;
use crate::random::Rng;
use crate::record::RequestRecord;
use crate::respond::Clock;
use crate::timer::Timers;
use crate::upstream::Upstreams;
use crate::work::Store;

/// What a worker is told.
#[derive(Debug)]
pub(crate) enum Message {
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

/// What all workers of the process have in common; nothing in it is written by a request.
#[derive(Debug)]
pub(crate) struct Common {
    /// Certificates and TLS configurations.
    pub(crate) certificates: Arc<Certificates>,
    /// Client connections that one worker holds at most.
    pub(crate) connections: usize,
    /// Connections of each client, where there is a limit of them.
    pub(crate) clients: ClientCounts,
    /// Sessions of datagrams that one worker holds at most.
    pub(crate) datagram_sessions: usize,
    /// Gives each connection its number; written once a connection.
    pub(crate) numbers: AtomicU64,
    /// The access log, if there is one.
    pub(crate) log: Option<LogHandle>,
    /// What is counted and how.
    pub(crate) metrics: Arc<MetricOptions>,
}

/// The state of one worker, shared by its tasks.
#[derive(Debug)]
pub(crate) struct Worker {
    /// What all workers have in common.
    pub(crate) common: Arc<Common>,
    /// The clock and the deadlines.
    pub(crate) timers: Rc<Timers>,
    /// Memory for requests.
    pub(crate) store: Store,
    /// Connections to endpoints, and how they are chosen.
    pub(crate) upstreams: Upstreams,
    /// The value of Date.
    pub(crate) clock: Clock,
    /// The access log, if there is one.
    log: Option<LogWriter>,
    /// The counters.
    pub(crate) metrics: RefCell<WorkerMetrics>,
    /// For templates with the time in them.
    pub(crate) log_clock: RefCell<access_log::Clock>,
    /// Templates of policies that have variables, compiled, by their text. Forgotten with every change, so that there are no more
    /// than one configuration has.
    formats: RefCell<HashMap<Box<str>, Rc<Format>>>,
    /// Random numbers.
    pub(crate) rng: RefCell<Rng>,
    running: RefCell<Rc<InForce>>,
    connections: Cell<usize>,
    /// Signalled when a connection ends, or sessions of datagrams do.
    ended: Notify,
    leaving: Cell<bool>,
    draining: Cell<bool>,
    stopping: Cell<bool>,
    /// Which connections make room when others wait for their places or files.
    places: RefCell<Places>,
    listeners: RefCell<Vec<(Rc<OpenListener>, JoinHandle<()>)>>,
    streams: RefCell<Vec<(Rc<OpenStream>, JoinHandle<()>)>>,
    /// Sessions of datagrams.
    pub(crate) sessions: RefCell<Sessions>,
}

/// Starts a worker thread.
///
/// # Errors
/// If the operating system gives no thread.
pub(crate) fn start(
    index: usize,
    common: Arc<Common>,
    live: Arc<Live>,
) -> io::Result<(mpsc::UnboundedSender<Message>, thread::JoinHandle<()>)> {
    let (sender, messages) = mpsc::unbounded_channel();
    let thread = thread::Builder::new().name(format!("worker-{index}")).spawn(move || run(common, live, messages))?;
    Ok((sender, thread))
}

fn run(common: Arc<Common>, live: Arc<Live>, messages: mpsc::UnboundedReceiver<Message>) {
    // Each turn of the loop asks the kernel for events after so many tasks. The default of 61 suits compute tasks; ours are
    // short, and the answer of a fast endpoint is often there within that time.
    let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "a worker cannot start");
            return;
        }
    };
    let worker = Worker::new(common, live);
    runtime.block_on(worker.clone().serve(messages));
    // The tasks that are left hold the worker, and the runtime holds them.
    drop(runtime);
    // So do the sessions of datagrams, which the worker holds. Each is logged now.
    drop(worker.sessions.take());
}

impl Worker {
    fn new(common: Arc<Common>, live: Arc<Live>) -> Rc<Self> {
        Rc::new(Self {
            log: common.log.as_ref().map(LogHandle::writer),
            metrics: RefCell::new(WorkerMetrics::new(common.metrics.clone())),
            log_clock: RefCell::new(access_log::Clock::new()),
            common,
            timers: Timers::new(),
            store: Store::default(),
            upstreams: Upstreams::default(),
            clock: Clock::default(),
            formats: RefCell::default(),
            rng: RefCell::new(Rng::from_os()),
            running: RefCell::new(Rc::new(InForce(live))),
            connections: Cell::new(0),
            ended: Notify::new(),
            leaving: Cell::new(false),
            draining: Cell::new(false),
            stopping: Cell::new(false),
            places: RefCell::default(),
            listeners: RefCell::default(),
            streams: RefCell::default(),
            sessions: RefCell::default(),
        })
    }

    /// The snapshot in force. A request keeps what it got to its end, but for the endpoints, see [`Upstreams::service`].
    pub(crate) fn running(&self) -> Rc<InForce> {
        self.running.borrow().clone()
    }

    /// Whether connections are to end with their next response.
    pub(crate) fn is_leaving(&self) -> bool {
        self.leaving.get()
    }

    /// Whether connections are to end as soon as they are idle.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.get()
    }

    /// Whether requests are to end at once.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.get()
    }

    /// A template of a policy in the form that is evaluated.
    pub(crate) fn format(&self, template: &Template) -> Rc<Format> {
        let mut formats = self.formats.borrow_mut();
        if let Some(format) = formats.get(template.text()) {
            return format.clone();
        }
        let format = Rc::new(Format::plain(template));
        formats.insert(template.text().into(), format.clone());
        format
    }

    /// The number of a new connection.
    pub(crate) fn next_number(&self) -> u64 {
        self.common.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Records a request that has ended.
    pub(crate) fn observe(&self, live: &Live, record: &RequestRecord<'_>) {
        let mut metrics = self.metrics.borrow_mut();
        metrics.record(record);
        if live.version < self.running.borrow().version {
            // What was learnt about a snapshot that is about to go would be wrong for whatever takes its place in memory.
            metrics.snapshot_changed();
        }
        drop(metrics);
        if let Some(log) = &self.log
            && live.prepared.log.admits(record)
        {
            // Escaping makes up to four bytes of one.
            log.log(live.prepared.log.format(), record, 4 * live.prepared.request.total);
        }
    }

    async fn serve(self: Rc<Self>, mut messages: mpsc::UnboundedReceiver<Message>) {
        let this = self.clone();
        tokio::task::spawn_local(async move {
            this.timers.run(|| this.keep_house()).await;
        });
        if let Some(log) = self.log.clone() {
            // Without it a line would wait for those that fill the buffer.
            tokio::task::spawn_local(log.run());
        }
        // The other end is gone when the proxy was dropped.
        while let Some(message) = messages.recv().await {
            match message {
                Message::Publish { live, open, change, close, done } => {
                    self.close_listeners(|name| close.iter().any(|gone| gone.name() == name)).await;
                    *self.running.borrow_mut() = Rc::new(InForce(live));
                    self.metrics.borrow_mut().snapshot_changed();
                    self.formats.borrow_mut().clear();
                    change.into_iter().for_each(|changed| self.change_listener(changed));
                    // A worker that drains accepts nothing more.
                    for (listener, socket) in open.into_iter().filter(|_| !self.draining.get()) {
                        if let Err(error) = self.open_listener(listener, socket) {
                            tracing::error!(%error, "a listener cannot be used");
                        }
                    }
                    drop(done);
                }
                Message::Leave => self.leaving.set(true),
                Message::Drain { done } => {
                    self.leaving.set(true);
                    self.draining.set(true);
                    // Datagrams come on: sessions that wait for answers get them.
                    let datagrams = self.datagram_ports();
                    self.close_listeners(|name| !datagrams.contains(name)).await;
                    self.upstreams.pool.borrow_mut().clear();
                    self.timers.wake_all();
                    let this = self.clone();
                    tokio::task::spawn_local(async move {
                        while this.open() > 0 {
                            this.ended.notified().await;
                        }
                        drop(done);
                    });
                }
                Message::Connections(reply) => {
                    let _ = reply.send(self.connections.get());
                }
                Message::Open(reply) => {
                    let _ = reply.send(self.open());
                }
                Message::Ping(reply) => {
                    let _ = reply.send(());
                }
                Message::Report(version, live, reply) => {
                    let mut metrics = self.metrics.borrow_mut();
                    metrics.upstream.idle = self.upstreams.pool.borrow().len() as u64;
                    let mut report = metrics.report(version, &live);
                    report.streams = self.streams.borrow().iter().map(|(open, _)| open.report()).collect();
                    let _ = reply.send(report);
                }
                Message::Stop => return self.stop().await,
            }
        }
    }

    /// Ends requests that are under way, so that each logs how far it came: when their tasks are just dropped, it is not known any more
    /// which endpoint they were waiting for.
    async fn stop(&self) {
        self.stopping.set(true);
        self.timers.wake_all();
        let end = Instant::now() + LAST_LINES;
        while self.metrics.borrow().connections.writing > 0 && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(1)).await; // No limit: a pause between two looks.
        }
    }

    /// Client connections and sessions of datagrams.
    fn open(&self) -> usize {
        self.connections.get() + self.sessions.borrow().len()
    }

    /// Writes a line about a stream that has ended.
    pub(crate) fn log_stream(&self, record: &StreamRecord) {
        if let Some(log) = &self.log {
            let running = self.running.borrow();
            if let Some(format) = &running.prepared.stream_log {
                log.line(|clock, out| format.append(record, clock, out));
            }
        }
    }

    /// Whether there is something that will need it again.
    fn keep_house(&self) -> bool {
        let running = self.running();
        self.upstreams.keep_house(self.timers.now(), &running);
        self.upstreams.pool.borrow().len() > 0
    }
}

#[cfg(test)]
mod tests;
