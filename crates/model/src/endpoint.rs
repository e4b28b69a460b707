//! The endpoints of a backend and nothing else: the part that changes with every rollout.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::BackendName;

/// All endpoints of one backend.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct EndpointSet {
    /// The backend they belong to.
    pub backend: BackendName,
    /// Their addresses.
    pub endpoints: Endpoints,
}

/// How to find the endpoints of a backend.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Endpoints {
    /// At these addresses, in a stable order without duplicates.
    Addresses(Vec<Endpoint>),
    /// At the addresses of a DNS name (a Service of type ExternalName). The proxy resolves it, and again when its TTL
    /// expires.
    Name {
        /// The name to resolve.
        host: Box<str>,
        /// Port of every address.
        port: u16,
    },
}

impl Endpoints {
    /// Whether any endpoint accepts new requests. A DNS name counts as one: its addresses are not known here.
    pub fn is_open(&self) -> bool {
        match self {
            Self::Addresses(list) => list.iter().any(|endpoint| endpoint.state == EndpointState::Ready),
            Self::Name { .. } => true,
        }
    }
}

/// One address that accepts requests.
#[derive(Clone, Debug, Eq, PartialEq, Hash, Serialize, Deserialize)]
pub struct Endpoint {
    /// Address and port.
    pub address: SocketAddr,
    /// Share of requests relative to the others.
    pub weight: u16,
    /// Which requests it still accepts.
    pub state: EndpointState,
}

impl Endpoint {
    /// An endpoint that accepts all requests, with weight one.
    pub fn ready(address: SocketAddr) -> Self {
        Self { address, weight: 1, state: EndpointState::Ready }
    }
}

/// Which requests an endpoint still accepts (EndpointSlice conditions `ready`, `serving`, `terminating`).
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash, Serialize, Deserialize)]
pub enum EndpointState {
    /// New requests.
    Ready,
    /// It is terminating but still serving while others are ready: accepts only its existing sticky sessions and
    /// streams.
    Draining,
}
