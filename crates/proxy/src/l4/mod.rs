//! TCP and UDP services: what comes in at a port goes to an endpoint of its backend, and nobody looks at the bytes.
//!
//! Which backend is decided by the configuration that holds when a connection or session begins. A connection keeps its endpoint to
//! its end, whatever changes; a session of datagrams for as long as its port leads to that endpoint. Without an endpoint,
//! connections are closed and datagrams dropped.

mod port;
mod session;
pub(crate) mod tcp;
pub(crate) mod udp;

pub(crate) use self::port::OpenStream;
