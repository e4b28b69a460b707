//! The admin listener: health, readiness, metrics and the running configuration, for operators and probes. It runs beside the
//! data path, on the control runtime, and everything about it is bounded, because anyone who can reach the port may use it.
//!
//! | path | answer |
//! | --- | --- |
//! | `/healthz` (or as configured) | 200 while traffic is served: workers answer, the first configuration is live, no shutdown has begun; otherwise 500, as in ingress-nginx |
//! | `/readyz` | 200 while new connections are accepted: as above, and also during the grace period of a shutdown; otherwise 503, also while another process takes the sockets over |
//! | `/livez` | 200 whenever the process answers |
//! | `/metrics` | counters in the text format of Prometheus or in protobuf, written as they are read |
//! | `/debug/findings` | findings about users' objects, as JSON, by object |
//! | `/debug/snapshot` | the running configuration, as JSON, without private keys |
//! | `/debug/channel` | the status of the process: the age of its configuration, its controller or its proxies, as JSON |
//! | `/debug/resources` | the version of each resource of the configuration, as JSON |
//!
//! Only a few clients at a time may read the last five, which bounds the cost of slow readers.

mod channel;
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
    ConfigStatus, Exposition, LiveRoutes, MetricFormat, MetricOptions, Pages, ProcessFigures, ProxyFigures, Totals,
    WorkerReport,
};

pub use self::channel::{ChannelEnd, ChannelSource};
pub use self::finding::{Finding, FindingSource};
pub use self::lifecycle::{Lifecycle, Stage};
pub use self::server::AdminServer;

/// What the admin listener needs from the proxy.
pub struct AdminSource {
    /// The stage in the life of the process.
    pub lifecycle: Lifecycle,
    /// Path of the health endpoint (`--health-check-path`).
    pub health_path: String,
    /// Time for the workers to answer a probe (`--health-check-timeout`) or a scrape.
    pub patience: Duration,
    /// What is counted, and with which labels.
    pub metrics: Arc<MetricOptions>,
    /// Findings about users' objects.
    pub findings: FindingSource,
    /// Asks each worker for a sign of life.
    pub ping: Box<dyn Fn() -> Vec<oneshot::Receiver<()>> + Send + Sync>,
    /// Number of workers.
    pub workers: usize,
    /// Asks a worker, numbered from 0, for its counts; see [`WorkerMetrics::report`](crate::metrics::WorkerMetrics::report).
    pub report: Box<dyn Fn(usize, u64, Arc<LiveRoutes>) -> oneshot::Receiver<WorkerReport> + Send + Sync>,
    /// What is known about the running configuration, and a way to get it.
    pub running: Box<dyn Fn() -> (ConfigStatus, LazySnapshot) + Send + Sync>,
    /// Figures of the proxy that workers don't count.
    pub figures: Box<dyn Fn() -> ProxyFigures + Send + Sync>,
    /// What the process says about itself.
    pub channel: Option<ChannelSource>,
}

/// Provides a snapshot, at most once. A controller has to build it from all resources, so it is called only for a reader, and where nothing
/// else waits.
pub type LazySnapshot = Box<dyn FnOnce() -> Arc<Snapshot> + Send>;

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
    /// Held until the response has been read.
    _place: Option<OwnedSemaphorePermit>,
}

#[derive(Debug)]
enum AdminBody {
    Whole(Vec<u8>),
    Pages(Box<Pages>),
}

/// Limits the responses that keep numbers or text for the whole configuration until they are read.
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

/// The answer to probes before anything is served.
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
    /// `accept` is the client's Accept field.
    async fn answer(&self, path: &[u8], accept: &str, places: &AdminPlaces) -> AdminAnswer {
        match path {
            // Matched first, so that any path can be configured.
            path if path == self.health_path.as_bytes() => self.health().await,
            b"/readyz" => self.readiness().await,
            b"/livez" => AdminAnswer::text(200, "ok"),
            b"/metrics" => self.placed(&places.metrics, self.metrics(self.format(accept))).await,
            b"/debug/findings" => self.placed(&places.snapshot, self.findings()).await,
            b"/debug/snapshot" => self.placed(&places.snapshot, self.snapshot()).await,
            b"/debug/channel" => {
                let standing = self.described(|end, snapshot, config| end.standing(snapshot, config));
                self.placed(&places.snapshot, standing).await
            }
            b"/debug/resources" => {
                let versions = self.described(|end, snapshot, _| end.versions(snapshot));
                self.placed(&places.snapshot, versions).await
            }
            _ => AdminAnswer::text(404, "not found"),
        }
    }

    /// Makes a response from the whole configuration: only a few at a time, and others wait as long as workers may take.
    async fn placed(&self, places: &Arc<Semaphore>, answer: impl Future<Output = AdminAnswer>) -> AdminAnswer {
        match timeout(self.patience, places.clone().acquire_owned()).await {
            Ok(Ok(place)) => AdminAnswer { _place: Some(place), ..answer.await },
            Ok(Err(_)) | Err(_) => AdminAnswer::text(503, "others are asking"),
        }
    }

    /// Load balancers that probe this path send traffic elsewhere as soon as a shutdown begins.
    async fn health(&self) -> AdminAnswer {
        match self.lifecycle.stage() {
            Stage::Starting => AdminAnswer::text(500, STARTING),
            Stage::Serving => self.pinged(500).await,
            Stage::Stopping | Stage::Draining => AdminAnswer::text(500, "stopping"),
        }
    }

    /// The kubelet keeps probing this path while a pod terminates. If there is no other pod (on the node, with
    /// `externalTrafficPolicy: Local`), kube-proxy sends traffic to a terminating one only as long as it is ready. Kubernetes
    /// knows without this probe that the pod terminates.
    async fn readiness(&self) -> AdminAnswer {
        match self.lifecycle.stage() {
            Stage::Starting => AdminAnswer::text(503, STARTING),
            _ if self.lifecycle.is_succeeded() => AdminAnswer::text(503, "another process takes over"),
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

    /// The format of metrics for a client. Without native histograms the text says everything, and people can read it.
    fn format(&self, accept: &str) -> MetricFormat {
        let protobuf = self.metrics.native.is_some() && crate::metrics::is_preferred(accept);
        if protobuf { MetricFormat::Protobuf } else { MetricFormat::Text }
    }

    async fn metrics(&self, format: MetricFormat) -> AdminAnswer {
        let (config, snapshot) = (self.running)();
        // A controller has no workers and serves nothing: its proxies report on routes and certificates.
        let snapshot = if self.workers == 0 { Arc::default() } else { snapshot() };
        // This, the sums and the sorting go through the whole configuration, which may be large.
        let (known, per_host) = (snapshot.clone(), self.metrics.per_host);
        let Ok(live) = spawn_blocking(move || Arc::new(LiveRoutes::of(&known, per_host))).await else {
            return AdminAnswer::text(500, "cannot read the configuration");
        };
        let deadline = Instant::now() + self.patience;
        let mut totals = Totals::new(&self.metrics);
        // One after another, so that only one report is in memory at a time.
        for worker in 0..self.workers {
            let report = (self.report)(worker, config.version, live.clone());
            // A partial sum would look like a restart to anything that computes rates.
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
        let (options, mut proxy, source) = (self.metrics.clone(), (self.figures)(), self.findings.clone());
        proxy.channel = self.channel.as_ref().and_then(|channel| channel.0.figures());
        let pages = move || {
            let process = ProcessFigures::read();
            let findings = source.counts();
            Exposition { options, totals, snapshot, config, proxy, process, findings }.pages(format)
        };
        match spawn_blocking(pages).await {
            Ok(pages) => AdminAnswer::new(200, format.content_type(), AdminBody::Pages(Box::new(pages))),
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

    /// What the process says about itself.
    async fn described(
        &self,
        what: impl Fn(&dyn ChannelEnd, LazySnapshot, &ConfigStatus) -> serde_json::Value + Send + 'static,
    ) -> AdminAnswer {
        let Some(channel) = self.channel.clone() else {
            return AdminAnswer::text(404, "nothing is known about the process");
        };
        let (config, snapshot) = (self.running)();
        match spawn_blocking(move || serde_json::to_vec_pretty(&what(&*channel.0, snapshot, &config))).await {
            Ok(Ok(body)) => AdminAnswer::new(200, JSON, AdminBody::Whole(body)),
            Ok(Err(_)) | Err(_) => AdminAnswer::text(500, "cannot render what is known about the process"),
        }
    }

    async fn snapshot(&self) -> AdminAnswer {
        let (_, snapshot) = (self.running)();
        match spawn_blocking(move || serde_json::to_vec_pretty(&*snapshot())).await {
            Ok(Ok(body)) => AdminAnswer::new(200, JSON, AdminBody::Whole(body)),
            Ok(Err(_)) | Err(_) => AdminAnswer::text(500, "cannot render the configuration"),
        }
    }
}

#[cfg(test)]
mod tests;
