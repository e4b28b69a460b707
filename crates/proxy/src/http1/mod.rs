//! HTTP/1.0 and 1.1: the codec, which does no I/O, and on top of it the two sides of an exchange (`client`, `endpoint`). Nothing else in
//! the proxy knows it, but for the sides of an exchange and the small server for operators.
//!
//! Heads are parsed into ranges of the receive buffer, edited while they are serialised,
//! and bodies are delimited by one framing decision taken from the message alone.
//!
//! Invariants the rest of the proxy relies on:
//! - What is ambiguous is refused, never repaired (RFC 9112 2.2, 5, 6): lines of a request end in CRLF only, there is no folding, no
//!   space before a colon, no control byte in a value, one `Content-Length` or one `Transfer-Encoding: chunked`.
//! - A field that the rules remove (invalid names, names listed in `Connection`) is gone from [`Fields`] when
//!   parsing completes, so matching, authorisation and forwarding see the same message.
//! - Nothing is allocated per message once the reusable values ([`RequestHead`], [`ResponseHead`], output buffers) have
//!   reached their working size, and every size has a limit ([`HeadLimits`], [`ChunkLimits`]).
//!
//! The heads are split by line and not with `httparse`: that crate accepts a lone LF as line end, knows no limits, can't be
//! resumed, and tells too little about why a head was refused. The tests use it as an oracle: what this module accepts,
//! `httparse` reads the same way.
//!
//! ```
//! use fairway_proxy::http1::{Framing, HeadLimits, HeadWriter, KnownSet, Method, Parsed, RequestHead};
//!
//! let received = b"GET /a?b HTTP/1.1\r\nHost: example.com\r\nConnection: keep-alive\r\nAccept: */*\r\n\r\n";
//! let mut head = RequestHead::default();
//! let parsed = head.parse(received, &HeadLimits::default())?;
//! assert_eq!(parsed, Parsed::Complete { len: received.len() });
//! assert_eq!(head.method(), Method::Get);
//! assert_eq!(head.framing(), Framing::None);
//! assert!(head.connection().keep_alive);
//!
//! let mut out = Vec::new();
//! let mut writer = HeadWriter::new(&mut out);
//! writer.request_line(head.method_bytes(received), b"/x")?;
//! writer.forward(head.fields(), received, KnownSet::HOP_BY_HOP, |_| false);
//! writer.finish();
//! assert_eq!(out, b"GET /x HTTP/1.1\r\nHost: example.com\r\nAccept: */*\r\n\r\n");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod attention;
mod body;
mod chunk;
mod client;
pub(crate) mod compose;
mod connection;
mod endpoint;
mod field;
mod framing;
mod line;
mod relay;
mod request;
mod response;
mod sink;
mod websocket;
mod write;

#[cfg(test)]
mod tests;

pub(crate) use self::client::{After, Http1Client};
pub(crate) use self::endpoint::{Http1Endpoint, ResponsePart};
pub(crate) use self::relay::Source;

pub use self::body::BodyDecoder;
pub use self::chunk::{ChunkDecoder, ChunkEncoder, ChunkLimits, ChunkRelay, Decoded, Event, Relay, Relayed};
pub use self::write::{CONTINUE, HeadWriter, PreparedField};
pub use crate::http::*;
