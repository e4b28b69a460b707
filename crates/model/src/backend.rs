//! How to speak to a Service port.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{BackendName, Origin, Template};

/// A named set of endpoints: how to speak to them and how to choose one. The endpoints themselves are a separate
/// resource, [`EndpointSet`](crate::EndpointSet), because they change far more often.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Backend {
    /// Its name.
    pub name: BackendName,
    /// The Service.
    pub origin: Origin,
    /// Port of the Service, by number or name, as written in the user's object.
    pub port: Box<str>,
    /// `namespace-service-port`, the name ingress-nginx uses for it in logs and session cookies.
    pub upstream_name: Arc<str>,
    /// The protocol endpoints speak.
    pub protocol: Protocol,
    /// How an endpoint is chosen when no affinity decides.
    pub balance: Balance,
    /// Session affinity; takes precedence over balancing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// How the health of endpoints is checked; `None` if it isn't.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub health_check: Option<Box<HealthCheck>>,
    /// Its retry budget, in place of that of the settings.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryConstraint>,
    /// Fields set on every request to this backend, after all others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub request_fields: Vec<(Box<str>, Box<str>)>,
}

/// The protocol endpoints speak.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub enum Protocol {
    /// HTTP/1.1 over TCP, and over TLS where the route says so.
    #[default]
    Http1,
    /// HTTP/1.1 over TCP, whatever the route says.
    ClearHttp1,
}

/// How an endpoint is chosen.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub enum Balance {
    /// Round robin by weight, from a random start in each worker.
    #[default]
    RoundRobin,
    /// Peak EWMA with 10 s decay, the better of two at random.
    Ewma,
    /// The one with fewer requests in progress, of two at random; endpoints that join others start slowly.
    LeastRequest,
    /// A consistent hash of a value from the request.
    Hash(HashBalance),
}

/// Consistent hashing (`upstream-hash-by`).
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct HashBalance {
    /// The value to hash.
    pub key: Template,
    /// Endpoints per subset, if the hash selects a subset and the endpoint is picked from it at random.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subset: Option<u32>,
}

/// Session affinity by cookie (`affinity: cookie`).
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Affinity {
    /// What the cookie names.
    pub mode: AffinityMode,
    /// The cookie.
    pub cookie: SessionCookie,
    /// Whether a retry may pick another endpoint and replace the cookie; otherwise it goes to the same endpoint.
    pub change_on_failure: bool,
}

/// What the session cookie names.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum AffinityMode {
    /// A key on a consistent hash ring: scaling moves some sessions.
    Balanced,
    /// One endpoint: a session moves only when that endpoint is gone.
    Persistent,
}

/// Name and attributes of the session cookie (RFC 6265). Its Path belongs to the route.
#[derive(Clone, Debug, Eq, PartialEq, Hash, Serialize, Deserialize)]
pub struct SessionCookie {
    /// Cookie name.
    pub name: Box<str>,
    /// Seconds from now for Expires; may be negative.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<i64>,
    /// Max-Age in seconds; may be negative.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_age: Option<i64>,
    /// Domain attribute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub domain: Option<Box<str>>,
    /// Whether Secure is set over plain HTTP too; over TLS it always is.
    pub secure: bool,
    /// SameSite attribute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_site: Option<SameSite>,
    /// Whether to omit `SameSite=None` for browsers known to mishandle it.
    pub conditional_same_site_none: bool,
}

/// The SameSite attribute of a cookie.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash, Serialize, Deserialize)]
pub enum SameSite {
    /// Sent with all requests.
    None,
    /// Sent with top-level navigation.
    Lax,
    /// Sent from the same site only.
    Strict,
}

/// The retry budget of a backend (`retryConstraint` of the Gateway API): a share of its requests, or a rate, whichever is more. A request
/// that needs a retry beyond it gets 503.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct RetryConstraint {
    /// The share in percent.
    pub percent: u32,
    /// How long requests and retries count.
    pub interval: Duration,
    /// Retries allowed in that time, however few the requests.
    pub least: u64,
}

/// How the health of a backend's endpoints is checked.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// The request that is sent.
    pub probe: Probe,
    /// Whether it is sent over TLS, without verification of the certificate.
    pub tls: bool,
    /// Time from one probe to the next.
    pub interval: Duration,
    /// Timeout for the whole response.
    pub timeout: Duration,
    /// Consecutive failures after which an endpoint is unhealthy.
    pub unhealthy_after: u32,
    /// Consecutive successes after which it is healthy again.
    pub healthy_after: u32,
}

/// A request that checks an endpoint.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Probe {
    /// `GET` of this path over HTTP/1.1.
    Http {
        /// The path, with a query if there is one.
        path: Box<str>,
        /// The successful statuses, as ranges that include both ends.
        statuses: Vec<(u16, u16)>,
    },
    /// `grpc.health.v1.Health/Check` over HTTP/2.
    Grpc {
        /// The service; empty for the server as a whole.
        service: Box<str>,
    },
}
