//! Sockets, TLS, HTTP, pools, balancing, retries, drain. Has never heard of Kubernetes.

pub mod http1;
