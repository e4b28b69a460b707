//! Test-only: the other ends of the proxy. Origins that behave and misbehave, a client that sends raw bytes, a certificate
//! authority, and waiting without sleeping.
//!
//! Invariants: nothing here depends on the code under test (the HTTP/1 reader is its own, deliberately plain one);
//! everything listens on loopback on a port chosen by the kernel; every wait ends after [`DEADLINE`] with a panic that
//! says what it waited for and what it had seen.
//!
//! ```
//! use fairway_testkit::{Client, Origin, Reply};
//!
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
//! # runtime.block_on(async {
//! let origin = Origin::new("a").reply(Reply::ok().body("hello")).start();
//! let mut client = Client::connect(origin.address()).await;
//! client.send("GET /x HTTP/1.1\r\nhost: example.com\r\n\r\n").await;
//! assert_eq!(client.read_response().await.text(), "hello");
//! assert_eq!(origin.next_request().await.target, "/x");
//! # });
//! ```
//!
//! An origin without a [`Reply`] answers with what it received, see [`Echo`].

mod ca;
mod client;
mod gate;
mod message;
mod origin;
mod stream;
mod wait;
mod wire;

pub use ca::{Ca, Leaf, LeafBuilder};
pub use client::{Client, ClientBuilder, Ended, ReadError, TlsClient, TlsInfo};
pub use gate::Gate;
pub use message::{Framing, Head, Headers, Request, Response};
pub use origin::{Echo, Fault, Origin, OriginBuilder, Reply, When};
pub use wait::{DEADLINE, Outcome, eventually, within};
