//! Limits, timeouts and retries for forwarding.

use std::cell::RefCell;
use std::num::NonZeroU64;
use std::sync::{Arc, Weak};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize};

use crate::{Session, Template, UpstreamTls};

/// How to forward a request. The defaults are those of ingress-nginx.
#[derive(Clone, Debug, Eq, PartialEq, Hash, Serialize, Deserialize)]
pub struct ForwardPolicy {
    /// Time for one attempt to connect, TLS included.
    pub connect_timeout: Duration,
    /// Longest gap between two writes to the endpoint.
    pub send_timeout: Duration,
    /// Longest gap between two reads from the endpoint.
    pub read_timeout: Duration,
    /// Largest request body; a larger one gets 413.
    pub max_body: ByteLimit,
    /// Which request bodies are read whole before an endpoint is chosen.
    #[serde(default, skip_serializing_if = "RequestBuffering::is_default")]
    pub request_buffering: RequestBuffering,
    /// Largest response head in bytes, if above the proxy's default; a larger one gets 502.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_response_head: Option<u32>,
    /// Bytes of a response that may wait for the client, so that the endpoint can send at its own speed; `None` if the response is read at
    /// the client's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_buffer: Option<u32>,
    /// How fast a response is sent to the client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Bandwidth>,
    /// Whether a connection to an endpoint ends with its request.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub close: bool,
    /// When to try another endpoint.
    pub retry: Retry,
    /// Time from the request within which a response must begin, whatever the number of attempts; `None` if only the attempts have limits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_within: Option<Duration>,
    /// Whether the whole head of a response must arrive within [`read_timeout`](Self::read_timeout). Otherwise that bounds only silence, as
    /// in nginx.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub whole_head: bool,
    /// Host field to send to the endpoint in place of the client's (`upstream-vhost`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_host: Option<Template>,
    /// TLS to the endpoints of the route's own backend; connections to a fallback are in the clear.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Arc<UpstreamTls>>,
    /// The protocol of connections to the route's own backend; a fallback is spoken to in HTTP/1.1.
    #[serde(default, skip_serializing_if = "UpstreamProtocol::is_default")]
    pub protocol: UpstreamProtocol,
    /// Sessions of the rule, which tie clients to endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<Arc<Session>>,
}

/// Reads a policy. If it equals the last one that this thread read, the two share memory: a proxy reads one for each route, and most are
/// the same.
pub(crate) fn read_shared<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<ForwardPolicy>, D::Error> {
    thread_local! {
        static LAST: RefCell<Weak<ForwardPolicy>> = const { RefCell::new(Weak::new()) };
    }
    let policy = ForwardPolicy::deserialize(deserializer)?;
    Ok(LAST.with_borrow_mut(|last| match last.upgrade() {
        Some(last) if *last == policy => last,
        _ => {
            let policy = Arc::new(policy);
            *last = Arc::downgrade(&policy);
            policy
        }
    }))
}

/// The protocol of connections to endpoints, over TLS if the policy has [`tls`](ForwardPolicy::tls).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Hash, Serialize, Deserialize)]
pub enum UpstreamProtocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/1.1, over TLS only for clients that use TLS themselves.
    LikeClient,
    /// HTTP/2, by prior knowledge where there is no TLS.
    Http2,
}

impl UpstreamProtocol {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Which request bodies are read whole before an endpoint is chosen, as far as there is memory for them. gRPC calls and requests for
/// another protocol are never buffered.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Hash, Serialize, Deserialize)]
pub enum RequestBuffering {
    /// Those of undeclared length: endpoints over HTTP/1.1 get them with a Content-Length, because many servers take a body without one for
    /// empty.
    #[default]
    Unmeasured,
    /// All.
    All,
    /// None.
    Off,
}

impl RequestBuffering {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for ForwardPolicy {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            send_timeout: Duration::from_secs(60),
            read_timeout: Duration::from_secs(60),
            max_body: ByteLimit::of(1 << 20),
            request_buffering: RequestBuffering::default(),
            max_response_head: None,
            response_buffer: None,
            bandwidth: None,
            close: false,
            retry: Retry::default(),
            response_within: None,
            whole_head: false,
            upstream_host: None,
            tls: None,
            protocol: UpstreamProtocol::default(),
            session: None,
        }
    }
}

/// How fast the body of one response is sent (nginx `limit_rate`).
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash, Serialize, Deserialize)]
pub struct Bandwidth {
    /// Bytes per second.
    pub rate: NonZeroU64,
    /// Bytes that are sent at full speed first.
    pub after: u64,
}

impl Bandwidth {
    /// Milliseconds after the start of a body from which on more than `sent` bytes may be sent. As in nginx, the share of the first
    /// second may be sent at once.
    pub fn due(self, sent: u64) -> u64 {
        let over = u128::from(sent.saturating_sub(self.after));
        let due = (over * 1000 / u128::from(self.rate.get())).saturating_sub(1000);
        u64::try_from(due).unwrap_or(u64::MAX)
    }
}

/// A limit in bytes, or no limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub struct ByteLimit(u64);

impl ByteLimit {
    /// No limit.
    pub const NONE: Self = Self(u64::MAX);

    /// At most this many bytes.
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

/// When and how often to try another endpoint (`proxy-next-upstream`). A failure to connect always leads to another
/// endpoint within these limits, unless retries are off.
#[derive(Clone, Debug, Eq, PartialEq, Hash, Serialize, Deserialize)]
pub struct Retry {
    /// Failures that lead to a retry.
    pub on: RetryOn,
    /// Attempts in total, the first included; `None` for no limit.
    pub tries: Option<u32>,
    /// Time, from the first attempt, within which further ones may start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<Duration>,
}

impl Default for Retry {
    fn default() -> Self {
        Self { on: RetryOn { error: true, timeout: true, ..RetryOn::default() }, tries: Some(3), within: None }
    }
}

/// The conditions of nginx's `proxy_next_upstream`. No condition means `off`.
#[derive(Clone, Debug, Default, Eq, PartialEq, Hash, Serialize, Deserialize)]
pub struct RetryOn {
    /// Connecting, sending or reading failed.
    pub error: bool,
    /// One of these took too long.
    pub timeout: bool,
    /// The response was empty or not HTTP.
    pub invalid_header: bool,
    /// Also retry POST, LOCK and PATCH after the request was sent.
    pub non_idempotent: bool,
    /// Connecting failed, which every other condition includes.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub connect: bool,
    /// Statuses that lead to a retry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub statuses: Vec<u16>,
}
