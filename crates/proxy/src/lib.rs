//! Sockets, TLS, HTTP, pools, balancing, retries, drain. Has never heard of Kubernetes.

pub mod access_log;
pub mod admin;
pub mod balance;
pub mod client;
pub mod http1;
pub mod metrics;
pub mod random;
pub mod record;
pub mod resolve;
