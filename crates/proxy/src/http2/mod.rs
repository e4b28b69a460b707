//! HTTP/2 (RFC 9113) over the crate `h2`: both sides of an exchange, what a connection and its streams share, and the connections to
//! endpoints ([`Http2Pool`]). The task that drives a client's connection is in `connection/http2.rs`.
//!
//! `h2` handles frames, HPACK, flow control, the state of streams, and the rules for pseudo-headers. What it doesn't bound is bounded here
//! ([`Link`]). A request head is written once, in the form of HTTP/1, into the buffer of the request, so all later code reads one form of
//! heads. A body without a length is held in the chunked coding, the one form that has an end and trailers. Response heads are built from
//! the fields that the model writes, because `h2` takes a map of them.
//!
//! Invariants:
//! - A head passes the same checks and limits as an HTTP/1 head, and no byte of it is forwarded before that.
//! - The window of a stream is reopened only by what its exchange has passed on: a slow endpoint makes the client wait, a slow client makes
//!   the endpoint wait, and no other stream waits.
//! - Data is given to `h2` only as far as the client's window and [`HTTP2_SEND_BUFFER`](crate::limit::HTTP2_SEND_BUFFER) allow.

mod block;
mod body;
mod client;
mod compose;
mod driver;
mod endpoint;
mod head;
mod io;
mod link;
mod meter;
mod name;
mod pool;

pub(crate) use self::block::{Block, Blocks};
pub(crate) use self::client::{Http2Client, Http2Stream};
pub(crate) use self::compose::RequestTo;
pub(crate) use self::driver::{NewConnection, start};
pub(crate) use self::endpoint::Http2Endpoint;
pub(crate) use self::head::receive_head;
pub(crate) use self::io::Http2Io;
pub(crate) use self::link::{Link, TlsFacts};
pub(crate) use self::pool::{Http2Pool, StreamChoice, StreamPlace};

/// What a client that speaks HTTP/2 sends first (RFC 9113 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How the first bytes of a connection compare to the HTTP/2 preface.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Preface {
    /// They are something else.
    None,
    /// They may become the preface.
    Partial,
    /// They are the preface.
    Complete,
}

impl Preface {
    /// Compares the first bytes of a connection.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let common = bytes.len().min(PREFACE.len());
        match bytes[..common] == PREFACE[..common] {
            false => Self::None,
            true if common < PREFACE.len() => Self::Partial,
            true => Self::Complete,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preface_is_told_from_a_request() {
        assert_eq!(Preface::of(b"P"), Preface::Partial);
        assert_eq!(Preface::of(b"POST / HTTP/1.1"), Preface::None);
        assert_eq!(Preface::of(b"PRI * HTTP/2.0\r\n\r\n"), Preface::Partial);
        assert_eq!(Preface::of(b"PRI * HTTP/2.0\r\nHost: a"), Preface::None);
        assert_eq!(Preface::of(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0"), Preface::Complete);
    }
}
