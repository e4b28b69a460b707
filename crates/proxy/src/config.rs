//! What the proxy is told when it starts. Everything that can change while it runs is in the snapshot.

use std::num::NonZeroUsize;

use fairway_model::{LogEscape, Template};

use crate::access_log::LogSink;

/// Choices of the process, as opposed to those of the users' objects.
#[derive(Debug)]
pub struct ProxyConfig {
    /// Worker threads. `None` for what the settings say, and else one per core that the process may use (CPU affinity and
    /// cgroup quota are respected).
    pub workers: Option<NonZeroUsize>,
    /// Client connections that one worker holds at most; further ones wait in the kernel's queue
    /// (ingress-nginx `max-worker-connections`).
    pub connections: usize,
    /// Where the access log goes.
    pub log: LogSink,
    /// A format of the access log in place of that of the settings.
    pub log_format: Option<(Template, LogEscape)>,
}

impl Default for ProxyConfig {
    fn default() -> Self {
        Self { workers: None, connections: 16_384, log: LogSink::Off, log_format: None }
    }
}
