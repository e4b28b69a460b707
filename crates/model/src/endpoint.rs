//! The endpoints of a backend, and nothing else: what changes with every rollout.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::BackendName;

/// All endpoints of one backend.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct EndpointSet {
    /// The backend that they belong to.
    pub backend: BackendName,
    /// Where they are.
    pub endpoints: Endpoints,
}

/// Where the endpoints of a backend are.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Endpoints {
    /// At these addresses, in a stable order without duplicates.
    Addresses(Vec<Endpoint>),
    /// Wherever a DNS name leads (a Service of type ExternalName). The proxy resolves it, and again when its TTL is over.
    Name {
        /// The name to resolve.
        host: Box<str>,
        /// Port of every address.
        port: u16,
    },
}

impl Endpoints {
    /// Whether there is one that takes new requests. A name counts as one: where it leads is not known here.
    pub fn is_open(&self) -> bool {
        match self {
            Self::Addresses(list) => list.iter().any(|endpoint| endpoint.state == EndpointState::Ready),
            Self::Name { .. } => true,
        }
    }
}

/// One address that takes requests.
#[derive(Clone, Debug, Eq, PartialEq, Hash, Serialize, Deserialize)]
pub struct Endpoint {
    /// Address and port.
    pub address: SocketAddr,
    /// Share of requests relative to the others.
    pub weight: u16,
    /// What it may still take.
    pub state: EndpointState,
}

impl Endpoint {
    /// An endpoint that takes everything, of weight one.
    pub fn ready(address: SocketAddr) -> Self {
        Self { address, weight: 1, state: EndpointState::Ready }
    }
}

/// What an endpoint may still take (EndpointSlice conditions `ready`, `serving`, `terminating`).
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash, Serialize, Deserialize)]
pub enum EndpointState {
    /// New requests.
    Ready,
    /// It is terminating but still serves, and others are ready: only sticky sessions and streams that it already has.
    Draining,
}
