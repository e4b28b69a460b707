//! Carries the configuration from a controller to its proxies, when they are separate processes.
//!
//! What crosses is the [`Delta`](fairway_model::Delta) of the model, cut into named resources, each with a version that is a hash of its
//! content. A proxy says what it holds when it connects, and gets what differs; it acknowledges each round once that is in force, and
//! says which resources it can't understand. The stream is gRPC over a Unix socket, whose ends check each other's user.
//!
//! | module | is |
//! | --- | --- |
//! | `resource` | a resource as it is sent: name, version, body |
//! | `round` | resources cut into messages of bounded size, and put together again |
//! | `message` | the messages |
//! | `hub`, `session` | the controller's side: what is published, and the stream to one proxy |
//! | `replica`, `client` | the proxy's side: what is held, and the connection |
//! | `grpc`, `socket` | the transport |
//!
//! This crate knows neither Kubernetes nor the serving of requests, so that the controller and the proxy know nothing of each other.

mod carry;
mod client;
mod grpc;
mod hub;
mod limit;
mod message;
mod replica;
mod resource;
mod round;
mod session;
mod socket;

pub use carry::carried;
pub use client::{Change, Link, LinkReporter, LinkStatus};
pub use hub::{Hub, HubFigures, ProxyStatus, Report};
pub use resource::Version;
pub use socket::{SocketError, SocketServer};
