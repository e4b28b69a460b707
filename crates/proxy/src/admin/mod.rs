//! The admin listener: health, readiness, metrics and what runs, for operators and probes. It runs beside the data path, on
//! the control runtime, and everything about it is bounded, because whoever reaches the port may speak to it.
//!
//! | path | answer |
//! | --- | --- |
//! | `/healthz` (or as configured) | 200 while traffic is served: workers answer, the first configuration is live, no shutdown has begun; else 500, as ingress-nginx |
//! | `/readyz` | 200 as long as new connections are taken: the same, but also in the grace period of a shutdown; else 503 |
//! | `/metrics` | counters in the text format of Prometheus, written as they are read |
//! | `/debug/findings` | what there is to say about users' objects, as JSON, by object |
//! | `/debug/snapshot` | the configuration that runs, as JSON; keys never show |
//!
//! The last three may be asked for by a few at a time, until they have read the answer: that bounds what slow readers cost.

mod connections;
mod finding;
mod lifecycle;
mod server;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fairway_model::Snapshot;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout, timeout_at};

use crate::limit::SCRAPES;
use crate::metrics::{
    ConfigStatus, Exposition, LiveRoutes, MetricOptions, Pages, ProcessFigures, ProxyFigures, Totals, WorkerReport,
};

pub use self::finding::{Finding, FindingSource};
pub use self::lifecycle::{Lifecycle, Stage};
pub use self::server::AdminServer;

/// What the admin listener asks the proxy for.
pub struct AdminSource {
    /// Where in its life the process is.
    pub lifecycle: Lifecycle,
    /// Path of the health endpoint (`--health-check-path`).
    pub health_path: String,
    /// Time for the workers to answer a probe (`--health-check-timeout`) or a scrape.
    pub patience: Duration,
    /// What is counted and how it is labelled.
    pub metrics: Arc<MetricOptions>,
    /// What there is to say about users' objects.
    pub findings: FindingSource,
    /// Asks each worker for a sign of life.
    pub ping: Box<dyn Fn() -> Vec<oneshot::Receiver<()>> + Send + Sync>,
    /// How many workers there are.
    pub workers: usize,
    /// Asks the worker of this number, from 0, for what it counted; see
    /// [`WorkerMetrics::report`](crate::metrics::WorkerMetrics::report).
    pub report: Box<dyn Fn(usize, u64, Arc<LiveRoutes>) -> oneshot::Receiver<WorkerReport> + Send + Sync>,
    /// The snapshot that runs, and what is known about it.
    pub running: Box<dyn Fn() -> (Arc<Snapshot>, ConfigStatus) + Send + Sync>,
    /// Figures of the proxy that no worker counts.
    pub figures: Box<dyn Fn() -> ProxyFigures + Send + Sync>,
}

impl fmt::Debug for AdminSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdminSource").field("health_path", &self.health_path).finish_non_exhaustive()
    }
}

/// An answer of the admin listener.
#[derive(Debug)]
struct AdminAnswer {
    status: u16,
    content_type: &'static str,
    body: AdminBody,
    /// Kept until the answer is read.
    _place: Option<OwnedSemaphorePermit>,
}

#[derive(Debug)]
enum AdminBody {
    Whole(Vec<u8>),
    Pages(Box<Pages>),
}

/// Answers that only few may ask for at a time, because they keep numbers or text for the whole configuration until they are read.
#[derive(Debug)]
struct AdminPlaces {
    metrics: Arc<Semaphore>,
    snapshot: Arc<Semaphore>,
}

impl Default for AdminPlaces {
    fn default() -> Self {
        Self { metrics: Arc::new(Semaphore::new(SCRAPES)), snapshot: Arc::new(Semaphore::new(1)) }
    }
}

/// What the probes say before anything is served.
const STARTING: &str = "no complete configuration yet, or an address that can't be listened on: see the log";

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

impl AdminAnswer {
    fn new(status: u16, content_type: &'static str, body: AdminBody) -> Self {
        Self { status, content_type, body, _place: None }
    }

    fn text(status: u16, text: &str) -> Self {
        Self::new(status, TEXT, AdminBody::Whole(format!("{text}\n").into_bytes()))
    }
}

impl AdminSource {
    async fn answer(&self, path: &[u8], places: &AdminPlaces) -> AdminAnswer {
        match path {
            // Asked first, so that a configured path can be any.
            path if path == self.health_path.as_bytes() => self.health().await,
            b"/readyz" => self.readiness().await,
            b"/metrics" => self.placed(&places.metrics, self.metrics()).await,
            b"/debug/findings" => self.placed(&places.snapshot, self.findings()).await,
            b"/debug/snapshot" => self.placed(&places.snapshot, self.snapshot()).await,
            _ => AdminAnswer::text(404, "not found"),
        }
    }

    /// An answer that goes through the whole configuration: by few at a time, the others wait as long as workers may take.
    async fn placed(&self, places: &Arc<Semaphore>, answer: impl Future<Output = AdminAnswer>) -> AdminAnswer {
        match timeout(self.patience, places.clone().acquire_owned()).await {
            Ok(Ok(place)) => AdminAnswer { _place: Some(place), ..answer.await },
            Ok(Err(_)) | Err(_) => AdminAnswer::text(503, "others are asking"),
        }
    }

    /// Load balancers that ask for this send elsewhere as soon as a shutdown begins.
    async fn health(&self) -> AdminAnswer {
        match self.lifecycle.stage() {
            Stage::Starting => AdminAnswer::text(500, STARTING),
            Stage::Serving => self.pinged(500).await,
            Stage::Stopping | Stage::Draining => AdminAnswer::text(500, "stopping"),
        }
    }

    /// The kubelet goes on asking for this while a pod ends, and kube-proxy sends to such a pod, when there is no other one (on the
    /// node, with `externalTrafficPolicy: Local`), only as long as it is ready. That the pod ends Kubernetes knows without it.
    async fn readiness(&self) -> AdminAnswer {
        match self.lifecycle.stage() {
            Stage::Starting => AdminAnswer::text(503, STARTING),
            Stage::Serving | Stage::Stopping => self.pinged(503).await,
            Stage::Draining => AdminAnswer::text(503, "no more connections"),
        }
    }

    /// Whether all workers answer.
    async fn pinged(&self, failure: u16) -> AdminAnswer {
        let deadline = Instant::now() + self.patience;
        for worker in (self.ping)() {
            if !matches!(timeout_at(deadline, worker).await, Ok(Ok(()))) {
                return AdminAnswer::text(failure, "a worker does not answer");
            }
        }
        AdminAnswer::text(200, "ok")
    }

    async fn metrics(&self) -> AdminAnswer {
        let (snapshot, config) = (self.running)();
        // This, the sums and the order go through the whole configuration, which may be large.
        let (known, per_host) = (snapshot.clone(), self.metrics.per_host);
        let Ok(live) = spawn_blocking(move || Arc::new(LiveRoutes::of(&known, per_host))).await else {
            return AdminAnswer::text(500, "cannot read the configuration");
        };
        let deadline = Instant::now() + self.patience;
        let mut totals = Totals::new(&self.metrics);
        // One after the other, so that only one report is at hand at a time.
        for worker in 0..self.workers {
            let report = (self.report)(worker, config.version, live.clone());
            // Half a sum would look like a restart to whoever computes rates from it.
            let Ok(Ok(report)) = timeout_at(deadline, report).await else {
                return AdminAnswer::text(503, "a worker does not answer");
            };
            let add = move || {
                totals.add(report);
                totals
            };
            totals = match spawn_blocking(add).await {
                Ok(totals) => totals,
                Err(_) => return AdminAnswer::text(500, "cannot add up the metrics"),
            };
        }
        let (options, proxy, source) = (self.metrics.clone(), (self.figures)(), self.findings.clone());
        let pages = move || {
            let process = ProcessFigures::read();
            let findings = source.counts();
            Exposition { options, totals, snapshot, config, proxy, process, findings }.pages()
        };
        match spawn_blocking(pages).await {
            Ok(pages) => AdminAnswer::new(200, crate::metrics::CONTENT_TYPE, AdminBody::Pages(Box::new(pages))),
            Err(_) => AdminAnswer::text(500, "cannot write the metrics"),
        }
    }

    async fn findings(&self) -> AdminAnswer {
        let source = self.findings.clone();
        match spawn_blocking(move || source.json()).await {
            Ok(Ok(body)) => AdminAnswer::new(200, JSON, AdminBody::Whole(body)),
            Ok(Err(_)) | Err(_) => AdminAnswer::text(500, "cannot render the findings"),
        }
    }

    async fn snapshot(&self) -> AdminAnswer {
        let (snapshot, _) = (self.running)();
        match spawn_blocking(move || serde_json::to_vec_pretty(&*snapshot)).await {
            Ok(Ok(body)) => AdminAnswer::new(200, JSON, AdminBody::Whole(body)),
            Ok(Err(_)) | Err(_) => AdminAnswer::text(500, "cannot render the configuration"),
        }
    }
}

#[cfg(test)]
mod tests;
