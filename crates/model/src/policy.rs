//! Limits, timeouts and retries of forwarding.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{Template, UpstreamTls};

/// How a request is forwarded. The defaults are those of ingress-nginx.
#[derive(Clone, Debug, Eq, PartialEq, Hash, Serialize, Deserialize)]
pub struct ForwardPolicy {
    /// Time for one attempt to connect, TLS included.
    pub connect_timeout: Duration,
    /// Longest gap between two writes to the endpoint.
    pub send_timeout: Duration,
    /// Longest gap between two reads from the endpoint.
    pub read_timeout: Duration,
    /// Largest request body; larger ones answer 413.
    pub max_body: ByteLimit,
    /// Largest head of a response in bytes, where that is more than the proxy's default; larger ones answer 502.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_response_head: Option<u32>,
    /// When another endpoint is tried.
    pub retry: Retry,
    /// Host field for the endpoint in place of the client's (`upstream-vhost`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_host: Option<Template>,
    /// TLS to the endpoints of the route's own backend; a fallback is spoken to in the clear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Arc<UpstreamTls>>,
}

impl Default for ForwardPolicy {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            send_timeout: Duration::from_secs(60),
            read_timeout: Duration::from_secs(60),
            max_body: ByteLimit::of(1 << 20),
            max_response_head: None,
            retry: Retry::default(),
            upstream_host: None,
            tls: None,
        }
    }
}

/// A limit in bytes, or none.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub struct ByteLimit(u64);

impl ByteLimit {
    /// No limit at all.
    pub const NONE: Self = Self(u64::MAX);

    /// At most so many bytes.
    pub fn of(bytes: u64) -> Self {
        Self(bytes)
    }

    /// Whether a length is within the limit.
    pub fn admits(self, length: u64) -> bool {
        length <= self.0
    }

    /// The limit in bytes; [`u64::MAX`] for none.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

/// When and how often another endpoint is tried (`proxy-next-upstream`). A failure to connect is always tried elsewhere
/// within these limits, unless retries are off.
#[derive(Clone, Debug, Eq, PartialEq, Hash, Serialize, Deserialize)]
pub struct Retry {
    /// Failures that lead to another try.
    pub on: RetryOn,
    /// Tries in all, the first one included; `None` for no limit.
    pub tries: Option<u32>,
    /// Time within which further tries may start, from the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<Duration>,
}

impl Default for Retry {
    fn default() -> Self {
        Self { on: RetryOn { error: true, timeout: true, ..RetryOn::default() }, tries: Some(3), within: None }
    }
}

/// The conditions of nginx's `proxy_next_upstream`. None of them set means `off`.
#[derive(Clone, Debug, Default, Eq, PartialEq, Hash, Serialize, Deserialize)]
pub struct RetryOn {
    /// Connecting, sending or reading failed.
    pub error: bool,
    /// One of these took too long.
    pub timeout: bool,
    /// The response was empty or no HTTP.
    pub invalid_header: bool,
    /// Requests with POST, LOCK and PATCH are retried also after they were sent.
    pub non_idempotent: bool,
    /// Statuses that lead to another try.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub statuses: Vec<u16>,
}
