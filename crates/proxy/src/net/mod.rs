//! The sockets of the process, below all protocols: binding and listening, TLS, the PROXY protocol, name resolution, open files.

pub mod client_hello;
pub mod proxy_protocol;
pub mod resolve;

pub(crate) mod client_certificate;
pub(crate) mod descriptors;
pub(crate) mod inherited;
pub(crate) mod listener;
mod ocsp;
pub(crate) mod session;
pub(crate) mod stapling;
pub(crate) mod tls;
