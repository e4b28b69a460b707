//! TLS passthrough: connections that are passed to a backend as they are, chosen by the server name in the client's hello.

use serde::{Deserialize, Serialize};

use crate::{BackendName, Origin};

/// Passes TLS connections for a host to a backend, which ends TLS itself. Requests over plain HTTP take the routes of the host.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Passthrough {
    /// The object that asks for it.
    pub origin: Origin,
    /// The destination. Without one, or without an endpoint, connections are closed.
    pub backend: Option<BackendName>,
    /// Whether endpoints get a PROXY header (version 1) with the client's address.
    pub send_proxy: bool,
}
