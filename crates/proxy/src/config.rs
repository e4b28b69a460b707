//! What the proxy is told when it starts. Everything that can change while it runs is in the snapshot.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use fairway_model::{LogEscape, Template};

use crate::access_log::LogSink;
use crate::admin::FindingSource;
use crate::limit::{ADMIN_PATIENCE, WORKER_CONNECTIONS};
use crate::metrics::MetricOptions;
use crate::net::resolve::AddressPolicy;
use crate::unreachable::UnreachableSink;

/// Choices of the process, as opposed to those of the users' objects.
#[derive(Debug)]
pub struct ProxyConfig {
    /// Worker threads. `None` for what the settings say, and else one per core that the process may use (CPU affinity and
    /// cgroup quota are respected).
    pub workers: Option<NonZeroUsize>,
    /// Client connections that one worker holds at most; further ones wait in the kernel's queue
    /// (ingress-nginx `max-worker-connections`).
    ///
    /// All workers together hold no more than five sixteenths of the files that the process may have open when it starts: each may
    /// need another one for its endpoint.
    ///
    /// Of sessions of UDP services it holds no more than this either, and all workers together no more than a quarter of the files that
    /// the process may have open when it starts: the one that was silent for longest makes room for a new one.
    pub connections: usize,
    /// Where the access log goes.
    pub log: LogSink,
    /// A format of the access log in place of that of the settings.
    pub log_format: Option<(Template, LogEscape)>,
    /// Where health, readiness and metrics are served; `None` for nowhere.
    pub admin: Option<SocketAddr>,
    /// Path of the health endpoint (`--health-check-path`).
    pub health_path: String,
    /// Time for the workers to answer a probe (`--health-check-timeout`).
    pub patience: Duration,
    /// What is counted and how it is labelled.
    pub metrics: MetricOptions,
    /// What there is to say about users' objects.
    pub findings: FindingSource,
    /// Who is told of backends of which no endpoint can be connected to.
    pub unreachable: UnreachableSink,
    /// Which addresses requests may be sent to.
    pub addresses: AddressPolicy,
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self {
            workers: None,
            connections: WORKER_CONNECTIONS,
            log: LogSink::Off,
            log_format: None,
            admin: None,
            health_path: "/healthz".to_owned(),
            patience: ADMIN_PATIENCE,
            metrics: MetricOptions::default(),
            findings: FindingSource::default(),
            unreachable: UnreachableSink::default(),
            addresses: AddressPolicy::default(),
        }
    }
}
