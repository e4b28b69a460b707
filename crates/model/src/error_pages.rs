//! Error responses that another service replaces (`custom-http-errors` of ingress-nginx, nginx's `error_page`).

use serde::{Deserialize, Serialize};

use crate::Forward;

/// Which error responses are replaced, and whose response the client gets in their place.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct ErrorPages {
    /// The statuses, ascending.
    pub statuses: Vec<u16>,
    /// Whether only the proxy's own errors are replaced, and those of endpoints pass.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub only_own: bool,
    /// The service to ask: its backend, a fallback if that has no endpoint, and the timeouts.
    pub forward: Forward,
}

/// An error response before it is sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ErrorResponse {
    /// Its status.
    pub status: u16,
    /// Whether an endpoint sent it; if not, it is the proxy's own.
    pub of_endpoint: bool,
}

impl ErrorPages {
    /// Whether an error response is replaced, provided that a service is available.
    pub fn replaces(&self, error: ErrorResponse) -> bool {
        !(self.only_own && error.of_endpoint) && self.statuses.binary_search(&error.status).is_ok()
    }
}
