//! Raw bytes in, decisions out. `attack` has a test for each row of the attack table that concerns HTTP/1, `forward` is about
//! what leaves again, `property` about arbitrary input.

mod attack;
mod client;
mod forward;
mod property;

use super::{Framing, HeadError, HeadLimits, Parsed, RequestHead, ResponseHead};

/// Parses a complete request head.
fn request(bytes: impl AsRef<[u8]>) -> Result<RequestHead, HeadError> {
    request_within(bytes, &HeadLimits::default())
}

fn request_within(bytes: impl AsRef<[u8]>, limits: &HeadLimits) -> Result<RequestHead, HeadError> {
    let mut head = RequestHead::default();
    match head.parse(bytes.as_ref(), limits)? {
        Parsed::Complete { .. } => Ok(head),
        Parsed::Partial { .. } => panic!("incomplete: {}", bytes.as_ref().escape_ascii()),
    }
}

/// Parses a complete response head.
fn response(bytes: impl AsRef<[u8]>) -> Result<ResponseHead, HeadError> {
    let mut head = ResponseHead::default();
    match head.parse(bytes.as_ref(), &HeadLimits::default())? {
        Parsed::Complete { .. } => Ok(head),
        Parsed::Partial { .. } => panic!("incomplete: {}", bytes.as_ref().escape_ascii()),
    }
}

/// The status that `POST / HTTP/1.1` with a host and these field lines is answered with, or its framing.
fn with_fields(lines: &str) -> Result<Framing, u16> {
    request(format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n")).map(|head| head.framing()).map_err(HeadError::status)
}

/// The status that a request line is answered with, 200 if it is accepted.
fn with_line(line: &str) -> u16 {
    request(format!("{line}\r\nHost: a\r\n\r\n")).map_or_else(HeadError::status, |_| 200)
}
