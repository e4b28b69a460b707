//! Carries the configuration from a controller to its proxies, when they are separate processes.
//!
//! What crosses is the [`Delta`](fairway_model::Delta) of the model, cut into named resources, each with a version that is a hash of its
//! content. A proxy says what it holds when it connects, and gets what differs; it acknowledges each round once that is in force, and
//! says which resources it can't understand. The stream is gRPC over a Unix socket, whose ends check each other's user, or over TLS, whose
//! ends check each other's certificate.
//!
//! | module | is |
//! | --- | --- |
//! | `resource` | a resource as it is sent: name, version, body |
//! | `round` | resources cut into messages of bounded size, and put together again |
//! | `message` | the messages |
//! | `hub`, `session` | the controller's side: what is published, and the stream to one proxy |
//! | `replica`, `client` | the proxy's side: what is held, and the connection |
//! | `dealer` | deals shares of the limits for clients to proxies, by what they report; `share` is the form of these messages |
//! | `grpc`, `socket`, `tcp` | the transport |
//! | `place` | where a proxy finds its controller, and how it proves its identity |
//! | `authority`, `enrol` | the authorities that sign the certificates for TLS, and how a proxy gets its own |
//! | `file` | what a proxy holds, in a file for its next start |
//! | `limit` | all bounds |
//!
//! This crate knows neither Kubernetes nor the serving of requests, so that the controller and the proxy know nothing of each other.

mod authority;
mod carry;
mod client;
mod dealer;
mod enrol;
mod file;
mod grpc;
mod hub;
pub mod limit;
mod message;
mod patch;
mod place;
mod replica;
mod resource;
mod round;
mod session;
mod share;
#[cfg(test)]
mod skew;
mod socket;
mod tcp;

pub use authority::{Authorities, AuthorityError};
pub use carry::{bodies, carried, rewritten};
pub use client::{AsOf, Change, Dealt, Holding, Link, LinkReporter, LinkStatus, ShareEnd, Unproven};
pub use dealer::Dealer;
pub use enrol::{AUDIENCE, Claim, Denied, Token};
pub use file::{SnapshotFile, SnapshotFileError, Written};
pub use hub::{Hub, HubFigures, PROPAGATION_BOUNDS, Propagation, ProxyStatus, Report};
pub use place::{ControlServer, Place};
pub use resource::{Version, versions};
pub use socket::{SocketError, SocketServer};
pub use tcp::{Papers, PapersError, TcpServer};
