//! Parses raw bytes and checks the decisions. `attack` has a test for each row of the attack table that concerns HTTP/1,
//! `forward` checks forwarded messages, `property` tries arbitrary input.

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

/// The status of the answer to `POST / HTTP/1.1` with a host and these field lines, or its framing if it is accepted.
fn with_fields(lines: &str) -> Result<Framing, u16> {
    request(format!("POST / HTTP/1.1\r\nHost: a\r\n{lines}\r\n")).map(|head| head.framing()).map_err(HeadError::status)
}

/// The status of the answer to a request line, 200 if it is accepted.
fn with_line(line: &str) -> u16 {
    request(format!("{line}\r\nHost: a\r\n\r\n")).map_or_else(HeadError::status, |_| 200)
}
