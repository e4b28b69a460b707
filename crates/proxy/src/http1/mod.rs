//! HTTP/1.0 and 1.1: the codec, which does no I/O, and on top of it the two sides of an exchange (`client`, `endpoint`). Nothing else in
//! the proxy names this version.
//!
//! Heads are parsed into ranges of the receive buffer and edited while they are serialised. One framing decision, taken from the
//! message alone, delimits each body.
//!
//! Invariants that the rest of the proxy relies on:
//! - Ambiguous messages are refused, never repaired (RFC 9112 2.2, 5, 6): lines of a request end only in CRLF, and there is no folding, no
//!   space before a colon, no control byte in a value, and at most one `Content-Length` or one `Transfer-Encoding: chunked`.
//! - A field that the rules remove (invalid names, names listed in `Connection`) is no longer in [`Fields`] when parsing
//!   completes, so matching, authorisation and forwarding see the same message.
//! - Nothing is allocated per message once the reusable values ([`RequestHead`], [`ResponseHead`], output buffers) have grown to
//!   their working size, and every size has a limit ([`HeadLimits`], [`ChunkLimits`]).
//!
//! Heads are split by line rather than parsed by `httparse`: that crate accepts a lone LF as a line end, has no limits, can't
//! resume, and says too little about why it refused a head. The tests use it as an oracle: `httparse` reads every accepted head
//! the same way.
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
mod client;
mod compose;
mod connection;
mod endpoint;
mod framing;
mod line;
mod request;
mod response;

#[cfg(test)]
mod tests;

pub(crate) use self::client::Http1Client;
pub(crate) use self::compose::{AnswerTo, Persistence, write_answer, write_request};
pub(crate) use self::endpoint::Http1Endpoint;

pub use crate::body::{
    BodyDecoder, ChunkDecoder, ChunkEncoder, ChunkLimits, ChunkRelay, DecodedPiece, Event, Relay, Relayed,
};
pub use crate::http::*;
