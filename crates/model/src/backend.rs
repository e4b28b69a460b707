//! How to speak to a Service port.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{BackendName, Origin, Template};

/// A named set of endpoints: how they are spoken to and chosen. Which endpoints there are is another resource,
/// [`EndpointSet`](crate::EndpointSet), because it changes far more often.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Backend {
    /// Its name.
    pub name: BackendName,
    /// The Service.
    pub origin: Origin,
    /// Port of the Service, by number or name, as the user's object has it.
    pub port: Box<str>,
    /// `namespace-service-port`, the name that ingress-nginx gives it in logs and in session cookies.
    pub upstream_name: Arc<str>,
    /// What is spoken.
    pub protocol: Protocol,
    /// How an endpoint is chosen when no affinity decides.
    pub balance: Balance,
    /// Stickiness; it comes before balancing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity: Option<Affinity>,
    /// Fields set on every request to this backend, after all others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub request_fields: Vec<(Box<str>, Box<str>)>,
}

/// What is spoken to endpoints.
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
    /// One after the other, by weight, from a random start in each worker.
    #[default]
    RoundRobin,
    /// Peak EWMA with 10 s decay, the better of two at random.
    Ewma,
    /// A consistent hash of a value of the request.
    Hash(HashBalance),
}

/// Consistent hashing (`upstream-hash-by`).
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct HashBalance {
    /// What is hashed.
    pub key: Template,
    /// Endpoints per group, when the hash chooses a group of which a random member is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subset: Option<u32>,
}

/// Cookie stickiness (`affinity: cookie`).
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Affinity {
    /// What the cookie names.
    pub mode: AffinityMode,
    /// The cookie.
    pub cookie: SessionCookie,
    /// Whether a retry may leave the endpoint and set the cookie anew; else it goes to the same endpoint.
    pub change_on_failure: bool,
}

/// What the session cookie names.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum AffinityMode {
    /// A key on a consistent ring: scaling moves some sessions.
    Balanced,
    /// One endpoint: a session moves only when it is gone.
    Persistent,
}

/// Name and attributes of the session cookie (RFC 6265). Its Path belongs to the route.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
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
    /// Secure also over plain HTTP; over TLS it is always set.
    pub secure: bool,
    /// SameSite attribute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_site: Option<SameSite>,
    /// Whether `SameSite=None` is left out for browsers known to mishandle it.
    pub conditional_same_site_none: bool,
}

/// The SameSite attribute of a cookie.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum SameSite {
    /// Sent with all requests.
    None,
    /// Sent with top-level navigation.
    Lax,
    /// Sent from the same site only.
    Strict,
}
