//! The running proxy: its workers, and the only way to change what they serve.

mod control;
mod fingerprint;
mod handover;
mod listening;
mod receiver;
mod shared;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fairway_model::{Delta, ListenerName, Origin, Snapshot};
use tokio::sync::{mpsc, oneshot, watch};

use self::control::Control;
pub use self::handover::{HandoverError, HandoverPlace, Predecessor, Taking};
pub use self::listening::RefusedListener;
use self::listening::{Listening, Relisten};
use self::shared::{Shared, locked};
use crate::access_log::{LogSink, LogThread};
use crate::admin::{AdminSource, Finding, Lifecycle};
use crate::config::ProxyConfig;
use crate::health_check::Prober;
use crate::ledger::{ChangedLimits, ClientLedger};
use crate::limit::{GEO_PAUSE, GEO_SETTINGS, LAST_WRITE, WORKER_SESSIONS};
use crate::live::Live;
use crate::metrics::{ConfigStatus, MetricOptions};
use crate::net::descriptors;
use crate::net::inherited::Spare;
use crate::net::listener;
use crate::net::resolve::Resolved;
use crate::net::stapling::Stapling;
use crate::net::tls::Certificates;
use crate::remark::{ACCEL_REDIRECT, ACCEL_REDIRECT_TEXT, Remarks};
use crate::shard::{ClientCounts, Common};
use crate::span::{NoDestination, Spans};
use crate::spool::{SpoolOptions, Spools};
use crate::upstream::HealthBoard;
use crate::worker::{self, Order};

/// Why the proxy did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address could not be bound, most likely because another process listens there.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The error from the operating system.
        source: io::Error,
    },
    /// The admin listener or the control thread's event loop could not be set up.
    #[error("cannot listen for administration{}", .address.map(|address| format!(" on {address}")).unwrap_or_default())]
    Admin {
        /// The address; `None` without an admin listener.
        address: Option<SocketAddr>,
        /// The error from the operating system.
        source: io::Error,
    },
    /// Files for request bodies could not be created.
    #[error("cannot keep bodies of requests in {}", .directory.display())]
    Spool {
        /// Where.
        directory: PathBuf,
        /// The error from the operating system.
        source: io::Error,
    },
    /// A thread could not be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

/// The running proxy. Dropping it stops it at once.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    threads: Vec<std::thread::JoinHandle<()>>,
    log: Option<Arc<LogThread>>,
    lifecycle: Lifecycle,
    admin: Option<SocketAddr>,
    control: Option<Control>,
    ledger: Arc<ClientLedger>,
}

/// Publishes changes of the configuration. Clones share the same publisher.
#[derive(Clone, Debug)]
pub struct Publisher(Arc<Shared>);

/// A change that is in effect.
#[derive(Debug)]
pub struct Published {
    /// Number of the version, from 1 for the one that the proxy started with.
    pub version: u64,
    /// Hosts that are served now.
    pub hosts: usize,
    /// From the call until every worker served it.
    pub took: Duration,
    /// Listeners that are not open as configured, including those that were refused before. The rest of the change is in effect.
    pub refused: Vec<RefusedListener>,
    /// Listeners that are now open after being refused, with their addresses.
    pub opened: BTreeMap<ListenerName, SocketAddr>,
}

/// How draining ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Drained {
    /// Client connections and UDP sessions cut at the deadline.
    pub cut: usize,
}

impl Proxy {
    /// Binds every listener of the snapshot and starts the workers. When it returns, connections are accepted.
    ///
    /// # Errors
    /// If an address is in use, or the operating system can't create a thread.
    pub fn start(snapshot: Snapshot, config: ProxyConfig) -> Result<Self, StartError> {
        let ProxyConfig {
            workers,
            connections,
            log,
            log_format,
            admin,
            health_path,
            patience,
            metrics,
            findings,
            unreachable,
            spool,
            addresses,
            channel,
            handover,
        } = config;
        let control = control::PreparedControl::new(admin, addresses, handover)
            .map_err(|source| StartError::Admin { address: admin, source })?;
        let count = worker_count(workers, &snapshot);
        let undefined_host_limit = metrics.undefined_host_limit.div_ceil(count);
        let metrics = Arc::new(MetricOptions { undefined_host_limit, ..metrics });
        let configured = snapshot.settings().worker_connections.map_or(0, |most| most.get() as usize);
        let connections = descriptors::most_connections(count, configured.min(connections)).min(connections);
        let live = Live::first(snapshot, log_format.as_ref(), control.policy());
        let certificates = Certificates::new(live.snapshot.clone());
        let mut sockets: Vec<Vec<_>> = (0..count).map(|_| Vec::new()).collect();
        let mut local = BTreeMap::new();
        let mut listening = Listening::default();
        if handover {
            listening.spare = Spare::enabled();
        }
        for listener in listening::listeners(&live.snapshot) {
            let bound = listener::bind(&listener, count)
                .map_err(|source| StartError::Listen { address: listener.address(), source })?;
            if let Some(address) = bound.first().and_then(|socket| socket.local_addr().ok()) {
                local.insert(listener.name().clone(), address);
            }
            listening.spare.keep(listener.name(), &bound);
            for (own, socket) in sockets.iter_mut().zip(bound) {
                own.push((listener.clone(), socket));
            }
            listening.open.insert(listener.name().clone(), listener);
        }
        let log = match log {
            LogSink::Off => None,
            sink => Some(Arc::new(LogThread::start(sink).map_err(StartError::Thread)?)),
        };
        if let Some(log) = &log {
            log.set_syslog(live.snapshot.settings().access_log.syslog.as_ref());
        }
        let spans = Spans::new(count);
        let remarks = Remarks::default();
        let spools = spool.map(start_spools).transpose()?;
        let health = Arc::<HealthBoard>::default();
        let (prober, probing) = Prober::new(health.clone());
        let (stapling, staples) = Stapling::new(&certificates, control.policy());
        let ledger = Arc::<ClientLedger>::default();
        let common = Arc::new(Common {
            clients: ClientCounts::default(),
            ledger: ledger.clone(),
            connections,
            datagram_sessions: descriptors::most_sessions(count, connections.min(WORKER_SESSIONS)),
            numbers: AtomicU64::new(1),
            log: log.as_ref().map(|log| log.handle()),
            spans: spans.clone(),
            metrics: metrics.clone(),
            spools,
            remarks: remarks.clone(),
            health,
            unreachable,
        });
        let mut senders = Vec::with_capacity(count);
        let mut threads = Vec::with_capacity(count);
        let (done, mut all_done) = mpsc::channel(1);
        for (index, open) in sockets.into_iter().enumerate() {
            let (sender, thread) =
                worker::start(index, common.clone(), certificates.clone(), live.clone()).map_err(StartError::Thread)?;
            let first =
                Order::Publish { live: live.clone(), open, change: Vec::new(), close: Vec::new(), done: done.clone() };
            // A worker that has ended has dropped its end of `done` as well.
            let _ = sender.send(first);
            senders.push(sender);
            threads.push(thread);
        }
        drop(done);
        wait_blocking(&mut all_done);
        let shared = Shared {
            change: tokio::sync::Mutex::new(listening),
            live: Mutex::new(live),
            workers: senders,
            local: Mutex::new(local),
            certificates,
            log_format,
            log: log.clone(),
            spans,
            resolver: control.resolver(),
            prober,
            ledger: ledger.clone(),
            staples,
            status: Mutex::new(ConfigStatus::default()),
            refused_endpoints: AtomicU64::new(0),
            away: watch::Sender::default(),
        };
        let shared = Arc::new(shared);
        shared.spans.find_receivers({
            let (shared, turns) = (Arc::downgrade(&shared), AtomicUsize::new(0));
            Box::new(move |policy| {
                let live = shared.upgrade().map(|shared| shared.live()).ok_or(NoDestination::Nobody)?;
                receiver::find(&live, policy, turns.fetch_add(1, Ordering::Relaxed))
            })
        });
        shared.configure_spans(None);
        shared.note(fingerprint::whole(&shared.live().snapshot), &[]);
        let everything = Snapshot::diff(&Snapshot::default(), &shared.live().snapshot);
        shared.announce(&everything, &Snapshot::default());
        shared.prober.look_at(shared.prober.concerned(&everything));
        let lifecycle = Lifecycle::default();
        let source = AdminSource {
            lifecycle: lifecycle.clone(),
            health_path,
            patience,
            metrics,
            findings: {
                let shared = Arc::downgrade(&shared);
                findings.and(move || {
                    let snapshot = shared.upgrade().map(|shared| shared.live().snapshot.clone());
                    let services = snapshot.map(|snapshot| remarks.accel_redirects(&snapshot)).unwrap_or_default();
                    services.into_iter().map(accel_redirect).collect()
                })
            },
            ping: asking(&shared, |shared| shared.ask(Order::Ping)),
            workers: count,
            report: {
                let shared = Arc::downgrade(&shared);
                Box::new(move |worker, version, live| {
                    let (reply, answer) = oneshot::channel();
                    // If the proxy is gone, `reply` is dropped and the caller notices.
                    if let Some(shared) = shared.upgrade() {
                        shared.tell_one(worker, Order::Report(version, live, reply));
                    }
                    answer
                })
            },
            running: {
                let shared = Arc::downgrade(&shared);
                Box::new(move || {
                    let running = shared.upgrade().map(|it| (locked(&it.status).clone(), it.live().snapshot.clone()));
                    let (status, snapshot) = running.unwrap_or_default();
                    (status, Box::new(|| snapshot))
                })
            },
            figures: {
                let log = log.clone();
                asking(&shared, move |shared| shared.figures(log.as_deref()))
            },
            channel,
        };
        let address = control.admin_address();
        let publisher = Publisher(shared.clone());
        let newest = {
            let shared = Arc::downgrade(&shared);
            move || shared.upgrade().map(|shared| shared.live())
        };
        let geo = publisher.clone().follow_geo();
        let control = control
            .run(
                source,
                shared.away.subscribe(),
                |changes| publisher.follow(changes),
                move || {
                    // Each in its own task: a panic in one must not end the others.
                    tokio::spawn(probing.run(newest));
                    tokio::spawn(stapling.run());
                    tokio::spawn(geo);
                },
            )
            .map_err(StartError::Thread)?;
        Ok(Self { shared, threads, log, lifecycle, admin: address, control: Some(control), ledger })
    }

    /// The address of the admin listener, with the port that the kernel chose.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// The stage in the life of the process, as seen by probes. The proxy itself changes it only when it drains: the publisher of
    /// the first complete configuration reports that it is live.
    pub fn readiness(&self) -> Lifecycle {
        self.lifecycle.clone()
    }

    /// The ledger of clients' requests, whose limits a controller may divide.
    pub fn client_ledger(&self) -> Arc<ClientLedger> {
        self.ledger.clone()
    }

    /// The publisher of changes.
    pub fn publisher(&self) -> Publisher {
        Publisher(self.shared.clone())
    }

    /// The addresses that the listeners are open on, including those of TCP and UDP services, with the ports that the kernel
    /// chose.
    pub fn local_addresses(&self) -> BTreeMap<ListenerName, SocketAddr> {
        locked(&self.shared.local).clone()
    }

    /// Number of worker threads.
    pub fn workers(&self) -> usize {
        self.shared.workers.len()
    }

    /// Number of client connections of all workers.
    pub async fn connections(&self) -> usize {
        self.shared.connections().await
    }

    /// Stops accepting, closes idle connections, lets the rest finish, and stops at the deadline. The grace period before that is
    /// for clients that still open connections here. In its second half, when they should have noticed, every response announces
    /// that its connection ends: clients with persistent connections then go elsewhere, and none is closed just as a request
    /// arrives.
    pub async fn drain(&mut self, grace: Duration, deadline: Duration) -> Drained {
        self.lifecycle.stopping();
        if !grace.is_zero() {
            tokio::time::sleep(grace / 2).await;
            self.shared.tell(|| Order::Leave);
            tokio::time::sleep(grace / 2).await;
        }
        self.lifecycle.draining();
        // First: the last descriptor must be the worker's, which accepts what waits there before it closes it.
        self.shared.change.lock().await.spare.clear(true);
        let (done, mut all_done) = mpsc::channel(1);
        self.shared.tell(|| Order::Drain { done: done.clone() });
        drop(done);
        let finished = tokio::time::timeout(deadline, all_done.recv()).await.is_ok();
        let open = if finished { Vec::new() } else { self.shared.ask(Order::Open) };
        let mut cut = 0;
        for of_worker in open {
            cut += of_worker.await.unwrap_or(0);
        }
        self.stop();
        Drained { cut }
    }

    /// Ends all connections and the workers.
    pub fn stop_now(mut self) {
        self.stop();
    }

    fn stop(&mut self) {
        self.lifecycle.draining();
        drop(self.control.take());
        self.shared.tell(|| Order::Stop);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
        if let Some(log) = self.log.take() {
            log.synchronize(LAST_WRITE);
        }
        self.shared.spans.stop(LAST_WRITE);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Publisher {
    /// Applies a change. Resolves when every worker serves it; requests in progress keep the configuration that they began with.
    pub async fn publish(&self, delta: Delta) -> Published {
        let begun = Instant::now();
        let shared = &*self.0;
        let mut listening = shared.change.lock().await;
        let current = shared.live();
        shared.announce(&delta, &current.snapshot);
        let (touched, checked) = (fingerprint::touched(&delta), shared.prober.concerned(&delta));
        let limits = ChangedLimits::of(&delta, &current.snapshot);
        let live = current.next(current.snapshot.apply(delta), shared.log_format.as_ref());
        if let Some(log) = &shared.log {
            log.set_syslog(live.snapshot.settings().access_log.syslog.as_ref());
        }
        shared.configure_spans(Some((&current, &live)));
        let mut listeners = shared.relisten(&mut listening, &live.snapshot);
        let (refused, opened) = (std::mem::take(&mut listeners.refused), std::mem::take(&mut listeners.opened));
        // Handshakes may see it a moment before the requests do.
        shared.certificates.publish(live.snapshot.clone());
        shared.distribute(&live, listeners).await;
        shared.ledger.follow(limits);
        shared.prober.look_at(checked);
        let before = locked(&shared.status).hash;
        shared.note(fingerprint::next(before, &touched, &current.snapshot, &live.snapshot), &refused);
        Published { version: live.version, hosts: live.snapshot.host_count(), took: begun.elapsed(), refused, opened }
    }

    /// Tries again to open the refused listeners, and changes nothing else. `None` if there are none.
    pub async fn listen_again(&self) -> Option<Published> {
        let begun = Instant::now();
        let shared = &*self.0;
        let mut listening = shared.change.lock().await;
        if listening.refused.is_empty() {
            return None;
        }
        let live = shared.live();
        let mut listeners = shared.relisten(&mut listening, &live.snapshot);
        let (refused, opened) = (std::mem::take(&mut listeners.refused), std::mem::take(&mut listeners.opened));
        if !opened.is_empty() {
            shared.distribute(&live, listeners).await;
        }
        shared.note_attempt(&refused);
        Some(Published {
            version: live.version,
            hosts: live.snapshot.host_count(),
            took: begun.elapsed(),
            refused,
            opened,
        })
    }

    /// Applies resolved addresses as they arrive.
    async fn follow(self, mut changes: mpsc::Receiver<Resolved>) {
        while let Some(change) = changes.recv().await {
            self.resolved(change).await;
        }
    }

    async fn resolved(&self, change: Resolved) {
        let shared = &*self.0;
        let _order = shared.change.lock().await;
        let current = shared.live();
        if current.snapshot.endpoint_set(&change.backend).is_some_and(|set| change.is_of(set)) {
            let checked = shared.prober.checks(&change.backend).then(|| change.backend.clone());
            let live = current.resolved(change);
            shared.distribute(&live, Relisten::default()).await;
            shared.prober.look_at(checked);
        }
    }

    /// Rereads geographic databases whose files were replaced. Never ends.
    async fn follow_geo(self) {
        loop {
            let reload = self.0.live().geo.as_ref().and_then(|geo| geo.settings().reload);
            // Without databases, or if they are not to be reloaded, the settings are checked now and then.
            tokio::time::sleep(reload.unwrap_or(GEO_SETTINGS).max(GEO_PAUSE)).await;
            if reload.is_none() {
                continue;
            }
            let geo = self.0.live().geo.clone();
            let read = move || geo.filter(|geo| geo.is_outdated()).map(|geo| geo.read_again());
            let Ok(Some(geo)) = tokio::task::spawn_blocking(read).await else { continue };
            let geo = Some(geo);
            let shared = &*self.0;
            let _order = shared.change.lock().await;
            let current = shared.live();
            // The settings may have changed meanwhile.
            if current.snapshot.settings().geo.as_ref() == geo.as_ref().map(|geo| geo.settings()) {
                shared.distribute(&current.with_geo(geo), Relisten::default()).await;
            }
        }
    }

    /// The current snapshot.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.0.live().snapshot.clone()
    }

    /// Number of the current version.
    pub fn version(&self) -> u64 {
        self.0.live().version
    }
}

/// The files for bodies of requests.
fn start_spools(options: SpoolOptions) -> Result<Arc<Spools>, StartError> {
    let directory = options.directory.clone();
    Spools::start(options).map_err(|source| StartError::Spool { directory, source })
}

/// The finding about a Service whose pods have sent X-Accel-Redirect.
fn accel_redirect(service: Origin) -> Finding {
    Finding {
        origin: service,
        severity: "warning",
        reason: ACCEL_REDIRECT,
        field: String::new(),
        message: ACCEL_REDIRECT_TEXT.to_owned(),
    }
}

/// Answers a query of the admin listener, which must not keep the proxy alive.
fn asking<T: Default>(
    shared: &Arc<Shared>,
    ask: impl Fn(&Shared) -> T + Send + Sync + 'static,
) -> Box<dyn Fn() -> T + Send + Sync> {
    let shared = Arc::downgrade(shared);
    Box::new(move || shared.upgrade().map(|shared| ask(&shared)).unwrap_or_default())
}

/// Waits before there is a runtime to await on: the channel closes when every worker has taken its first message.
fn wait_blocking(done: &mut mpsc::Receiver<()>) {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    // Workers take microseconds; polling is simpler than a second kind of channel in the message.
    while done.poll_recv(&mut context).is_pending() {
        std::thread::sleep(Duration::from_micros(200)); // No limit: a pause between two looks.
    }
}

fn worker_count(configured: Option<NonZeroUsize>, snapshot: &Snapshot) -> usize {
    let from_settings = snapshot.settings().workers.map(usize::from).and_then(NonZeroUsize::new);
    // Respects CPU affinity and the quotas of both cgroup versions.
    let available = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    configured.or(from_settings).unwrap_or_else(available).get()
}
