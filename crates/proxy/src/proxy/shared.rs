//! What the proxy, its publishers and its control thread have in common: the workers, and the configuration in effect.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use fairway_model::{Delta, ListenerName, Snapshot};
use tokio::sync::{mpsc, oneshot, watch};

use super::listening::{Listening, RefusedListener, Relisten};
use crate::access_log::LogThread;
use crate::health_check::Prober;
use crate::ledger::ClientLedger;
use crate::live::Live;
use crate::metrics::{ConfigStatus, ProxyFigures};
use crate::net::resolve::Resolver;
use crate::net::stapling::StapleCounts;
use crate::net::tls::Certificates;
use crate::prepared::LogFormat;
use crate::span::Spans;
use crate::worker::Order;

#[derive(Debug)]
pub(super) struct Shared {
    /// Held during a change: changes are applied one at a time.
    pub(super) change: tokio::sync::Mutex<Listening>,
    pub(super) live: Mutex<Arc<Live>>,
    pub(super) workers: Vec<mpsc::UnboundedSender<Order>>,
    pub(super) local: Mutex<BTreeMap<ListenerName, SocketAddr>>,
    pub(super) certificates: Arc<Certificates>,
    pub(super) log_format: Option<LogFormat>,
    pub(super) log: Option<Arc<LogThread>>,
    pub(super) spans: Arc<Spans>,
    pub(super) resolver: Option<Arc<Resolver>>,
    pub(super) prober: Prober,
    pub(super) ledger: Arc<ClientLedger>,
    pub(super) staples: Arc<StapleCounts>,
    pub(super) status: Mutex<ConfigStatus>,
    /// Number of endpoints refused so far because of their addresses.
    pub(super) refused_endpoints: AtomicU64,
    /// Whether another process serves in place of this one.
    pub(super) away: watch::Sender<bool>,
}

impl Shared {
    pub(super) fn live(&self) -> Arc<Live> {
        locked(&self.live).clone()
    }

    /// Binds the new listeners of a snapshot.
    pub(super) fn relisten(&self, listening: &mut Listening, snapshot: &Snapshot) -> Relisten {
        listening.follow(snapshot, self.workers.len(), &mut locked(&self.local))
    }

    pub(super) fn tell(&self, message: impl Fn() -> Order) {
        for worker in &self.workers {
            let _ = worker.send(message());
        }
    }

    /// Puts a version into effect, and waits until every worker serves it.
    pub(super) async fn distribute(&self, live: &Arc<Live>, listeners: Relisten) {
        let Relisten { mut open, change, close, .. } = listeners;
        open.resize_with(self.workers.len(), Vec::new);
        *locked(&self.live) = live.clone();
        let (done, mut all_done) = mpsc::channel(1);
        for (worker, open) in self.workers.iter().zip(open) {
            let message = Order::Publish {
                live: live.clone(),
                open,
                change: change.clone(),
                close: close.clone(),
                done: done.clone(),
            };
            // A worker that has ended serves nothing.
            let _ = worker.send(message);
        }
        drop(done);
        // Ends with `None` once every worker has dropped its end.
        while all_done.recv().await.is_some() {}
    }

    /// Passes the settings to the span thread if the change concerns it.
    pub(super) fn configure_spans<'a>(&self, change: Option<(&'a Live, &'a Live)>) {
        let current = self.live();
        let live = match change {
            None => &*current,
            Some((before, after)) => {
                let rules = |live: &'a Live| (live.snapshot.telemetries().len() > 0, &live.snapshot.settings().tracing);
                if rules(before) == rules(after) {
                    return;
                }
                after
            }
        };
        let snapshot = &live.snapshot;
        self.spans.configure(&snapshot.settings().tracing, snapshot.telemetries().len() > 0);
    }

    /// Passes a change to the parts that watch the addresses of endpoints.
    pub(super) fn announce(&self, delta: &Delta, before: &Snapshot) {
        if let Some(resolver) = &self.resolver {
            resolver.apply(delta);
        }
        let refused = self.live().addresses.report(delta, before);
        self.refused_endpoints.fetch_add(refused, Ordering::Relaxed);
    }

    /// Records a change for the metrics. It counts as a success if nothing is refused that was not refused before.
    pub(super) fn note(&self, hash: u64, refused: &[RefusedListener]) {
        let version = self.live().version;
        let mut status = locked(&self.status);
        status.version = version;
        status.hash = hash;
        if !note_refused(&mut status, refused) {
            status.successes += 1;
            status.last_success = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
        }
    }

    /// Records an attempt to open listeners without any other change.
    pub(super) fn note_attempt(&self, refused: &[RefusedListener]) {
        note_refused(&mut locked(&self.status), refused);
    }

    pub(super) fn figures(&self, log: Option<&LogThread>) -> ProxyFigures {
        let health = self.prober.counts();
        let (spans_sent, spans_dropped) = self.spans.counts();
        let names = self.resolver.as_ref().map(|resolver| resolver.counts()).unwrap_or_default();
        ProxyFigures {
            workers: self.workers.len() as u64,
            log_lines_dropped: log.map_or(0, LogThread::dropped),
            spans_sent,
            spans_dropped,
            resolver_names: names.names,
            resolver_queries: names.queries,
            resolver_failures: names.failures,
            ocsp_stapled: self.staples.stapled.load(Ordering::Relaxed),
            ocsp_fetches: self.staples.fetches.load(Ordering::Relaxed),
            ocsp_failures: self.staples.failures.load(Ordering::Relaxed),
            health_checked: health.checked,
            health_unhealthy: health.unhealthy,
            health_checks: health.checks,
            health_check_failures: health.failures,
            refused_endpoints: self.refused_endpoints.load(Ordering::Relaxed),
            channel: None,
        }
    }

    /// Asks each worker. A worker that has ended drops the question, and its receiver returns an error.
    pub(super) fn ask<T>(&self, question: impl Fn(oneshot::Sender<T>) -> Order) -> Vec<oneshot::Receiver<T>> {
        let ask = |worker: &mpsc::UnboundedSender<Order>| {
            let (reply, answer) = oneshot::channel();
            let _ = worker.send(question(reply));
            answer
        };
        self.workers.iter().map(ask).collect()
    }

    /// Sends a message to one worker, if it still runs.
    pub(super) fn tell_one(&self, worker: usize, message: Order) {
        if let Some(worker) = self.workers.get(worker) {
            let _ = worker.send(message);
        }
    }

    pub(super) async fn connections(&self) -> usize {
        let mut sum = 0;
        for answer in self.ask(Order::Connections) {
            sum += answer.await.unwrap_or(0);
        }
        sum
    }
}

/// Records which listeners are refused. Returns whether any refusal is new.
fn note_refused(status: &mut ConfigStatus, refused: &[RefusedListener]) -> bool {
    let news = refused.iter().any(|refused| !refused.known);
    status.whole = refused.is_empty();
    status.errors += u64::from(news);
    news
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
