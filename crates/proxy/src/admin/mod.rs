//! The admin listener: health, readiness, metrics and what runs, for operators and probes. It runs beside the data path, on
//! the control runtime, and everything about it is bounded, because whoever reaches the port may speak to it.
//!
//! | path | answer |
//! | --- | --- |
//! | `/healthz` (or as configured) | 200 while traffic is served: workers answer, the first configuration is live, no shutdown has begun; else 500, as ingress-nginx |
//! | `/readyz` | the same, with 503 |
//! | `/metrics` | counters in the text format of Prometheus |
//! | `/debug/snapshot` | the configuration that runs, as JSON; keys never show |

mod lifecycle;
mod server;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use fairway_model::Snapshot;
use tokio::sync::{Semaphore, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, timeout, timeout_at};

use crate::metrics::{
    ConfigStatus, Exposition, LiveIngresses, MetricOptions, ProcessFigures, ProxyFigures, WorkerReport,
};

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
    /// Asks each worker for a sign of life.
    pub ping: Box<dyn Fn() -> Vec<oneshot::Receiver<()>> + Send + Sync>,
    /// Asks each worker for what it counted; see [`WorkerMetrics::report`](crate::metrics::WorkerMetrics::report).
    pub reports: Box<dyn Fn(Arc<LiveIngresses>) -> Vec<oneshot::Receiver<WorkerReport>> + Send + Sync>,
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
struct Answer {
    status: u16,
    content_type: &'static str,
    body: Vec<u8>,
}

/// Answers that only one may ask for at a time.
#[derive(Debug)]
struct Places {
    metrics: Semaphore,
    snapshot: Semaphore,
}

impl Default for Places {
    fn default() -> Self {
        Self { metrics: Semaphore::new(1), snapshot: Semaphore::new(1) }
    }
}

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

impl Answer {
    fn text(status: u16, text: &str) -> Self {
        Self { status, content_type: TEXT, body: format!("{text}\n").into_bytes() }
    }
}

impl AdminSource {
    async fn answer(&self, path: &[u8], places: &Places) -> Answer {
        match path {
            // Asked first, so that a configured path can be any.
            path if path == self.health_path.as_bytes() => self.health(500).await,
            b"/readyz" => self.health(503).await,
            b"/metrics" => self.alone(&places.metrics, self.metrics()).await,
            b"/debug/snapshot" => self.alone(&places.snapshot, self.snapshot()).await,
            _ => Answer::text(404, "not found"),
        }
    }

    /// An answer that goes through the whole configuration: one at a time, the others wait as long as workers may take.
    async fn alone(&self, place: &Semaphore, answer: impl Future<Output = Answer>) -> Answer {
        match timeout(self.patience, place.acquire()).await {
            Ok(Ok(_place)) => answer.await,
            Ok(Err(_)) | Err(_) => Answer::text(503, "others are asking"),
        }
    }

    async fn health(&self, failure: u16) -> Answer {
        match self.lifecycle.stage() {
            Stage::Starting => return Answer::text(failure, "no configuration yet"),
            Stage::Stopping => return Answer::text(failure, "stopping"),
            Stage::Serving => {}
        }
        let deadline = Instant::now() + self.patience;
        for worker in (self.ping)() {
            if !matches!(timeout_at(deadline, worker).await, Ok(Ok(()))) {
                return Answer::text(failure, "a worker does not answer");
            }
        }
        Answer::text(200, "ok")
    }

    async fn metrics(&self) -> Answer {
        let (snapshot, config) = (self.running)();
        // Both steps go through the whole configuration, which may be large.
        let known = snapshot.clone();
        let Ok(live) = spawn_blocking(move || LiveIngresses::of(&known)).await else {
            return Answer::text(500, "cannot read the configuration");
        };
        let deadline = Instant::now() + self.patience;
        let mut reports = Vec::new();
        for worker in (self.reports)(Arc::new(live)) {
            // Half a sum would look like a restart to whoever computes rates from it.
            let Ok(Ok(report)) = timeout_at(deadline, worker).await else {
                return Answer::text(503, "a worker does not answer");
            };
            reports.push(report);
        }
        let (options, proxy) = (self.metrics.clone(), (self.figures)());
        let rendered = spawn_blocking(move || {
            let process = ProcessFigures::read();
            let all = Exposition {
                options: &options,
                reports: &reports,
                snapshot: &snapshot,
                config: &config,
                proxy: &proxy,
                process: &process,
            };
            all.render()
        });
        match rendered.await {
            Ok(body) => Answer { status: 200, content_type: crate::metrics::CONTENT_TYPE, body: body.into_bytes() },
            Err(_) => Answer::text(500, "cannot render the metrics"),
        }
    }

    async fn snapshot(&self) -> Answer {
        let (snapshot, _) = (self.running)();
        match spawn_blocking(move || serde_json::to_vec_pretty(&*snapshot)).await {
            Ok(Ok(body)) => Answer { status: 200, content_type: JSON, body },
            Ok(Err(_)) | Err(_) => Answer::text(500, "cannot render the configuration"),
        }
    }
}

#[cfg(test)]
mod tests;
