//! TCP and UDP services: traffic that arrives at a port is forwarded to an endpoint of its backend without being interpreted.
//!
//! The configuration in effect when a connection or session begins decides the backend. A connection keeps its endpoint until it
//! ends, whatever changes; a UDP session keeps it as long as its port leads to that endpoint. Without an endpoint, connections
//! are closed and datagrams dropped.

mod endpoint;
mod port;
mod session;
pub(crate) mod tcp;
pub(crate) mod udp;

pub(crate) use self::port::OpenStream;
