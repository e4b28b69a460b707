//! TLS connections that the server name in the client's hello leads to a backend; what they carry is not parsed.

use serde::{Deserialize, Serialize};

use crate::{Origin, StreamBackends};

/// Passes TLS connections for a host to a backend. Requests over plain HTTP take the routes of the host.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Passthrough {
    /// The object that asks for it.
    pub origin: Origin,
    /// The destination. Without one, or without an endpoint, connections are closed.
    pub backend: Option<StreamBackends>,
    /// Whether endpoints get a PROXY header (version 1) with the client's address.
    pub send_proxy: bool,
    /// Whether TLS ends at the proxy, with the certificate of the host, and endpoints get what it carries. Otherwise they get the
    /// connection as it is and end TLS themselves; the TLS of a share is then ignored.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub terminate: bool,
}
