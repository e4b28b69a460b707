//! The proxy's options at start. Everything that can change while it runs is in the snapshot.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use fairway_model::{LogEscape, Template};

use crate::access_log::LogSink;
use crate::admin::{ChannelSource, FindingSource};
use crate::limit::ADMIN_PATIENCE;
use crate::metrics::MetricOptions;
use crate::net::resolve::AddressPolicy;
use crate::spool::SpoolOptions;
use crate::unreachable::UnreachableSink;

/// Options of the process, as opposed to settings from users' objects.
#[derive(Debug)]
pub struct ProxyConfig {
    /// Worker threads. `None` for the number in the settings, or, without one, one per core that the process may use (CPU affinity
    /// and cgroup quota are respected).
    pub workers: Option<NonZeroUsize>,
    /// Maximum number of client connections per worker, in addition to the limit in the settings; further ones wait in the kernel's queue.
    ///
    /// All workers together hold at most five sixteenths of the files that the process may open, as of its start: each connection
    /// may need a second file for its endpoint.
    ///
    /// A worker also holds at most as many UDP sessions, and never more than 16,384; all workers together hold at most a quarter of the
    /// files that the process may open, as of its start. The session that has been silent longest makes room for a new one.
    pub connections: usize,
    /// The destination of the access log.
    pub log: LogSink,
    /// A format of the access log that overrides the one in the settings.
    pub log_format: Option<(Template, LogEscape)>,
    /// Address for health, readiness and metrics; `None` to serve none.
    pub admin: Option<SocketAddr>,
    /// Path of the health endpoint (`--health-check-path`).
    pub health_path: String,
    /// Time for the workers to answer a probe (`--health-check-timeout`).
    pub patience: Duration,
    /// What is counted, and with which labels.
    pub metrics: MetricOptions,
    /// Findings about users' objects.
    pub findings: FindingSource,
    /// Receives reports of backends without a reachable endpoint.
    pub unreachable: UnreachableSink,
    /// Where request bodies may be kept that don't fit in memory.
    pub spool: Option<SpoolOptions>,
    /// Which addresses requests may be sent to.
    pub addresses: AddressPolicy,
    /// The connection to a controller, if that is another process.
    pub channel: Option<ChannelSource>,
    /// Whether the listening sockets may be handed over to another process, which takes a second descriptor of each.
    pub handover: bool,
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self {
            workers: None,
            connections: usize::MAX,
            log: LogSink::Off,
            log_format: None,
            admin: None,
            health_path: "/healthz".to_owned(),
            patience: ADMIN_PATIENCE,
            metrics: MetricOptions::default(),
            findings: FindingSource::default(),
            unreachable: UnreachableSink::default(),
            spool: None,
            addresses: AddressPolicy::default(),
            channel: None,
            handover: false,
        }
    }
}
