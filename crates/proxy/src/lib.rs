//! Sockets, TLS, HTTP, pools, balancing, retries, drain. Has never heard of Kubernetes.

pub mod access_log;
pub mod admin;
mod auth_cache;
pub mod balance;
pub mod geo;
pub mod http;
pub mod http1;
pub mod limit;
pub mod metrics;
pub mod random;
pub mod reason;
pub mod record;
pub mod rehearsal;

mod body;
mod buffer;
mod config;
mod connection;
mod digest;
mod direction;
mod encode;
mod error;
mod exchange;
mod ext_authz;
mod health_check;
mod http2;
mod l4;
mod ledger;
mod live;
mod message;
mod net;
mod outgoing;
mod password;
mod pipeline;
mod prepared;
mod proxy;
mod remark;
mod respond;
mod shard;
mod span;
mod spool;
mod stream;
mod substitute;
mod timer;
mod unreachable;
mod upstream;
mod work;
mod worker;

pub use config::ProxyConfig;
pub use ledger::{ClientLedger, OpenRequest};
pub use net::{client_hello, proxy_protocol, resolve};
pub use proxy::{
    Drained, HandoverError, HandoverPlace, Predecessor, Proxy, Published, Publisher, RefusedListener, StartError,
    Taking,
};
pub use spool::SpoolOptions;
pub use unreachable::{Unreachable, UnreachableSink};
pub use upstream::unverified_tls;
