//! What gRPC needs beyond HTTP/2: gRPC statuses for the proxy's own errors, and the timeout that a client sets for a call.
//!
//! A gRPC client treats an answer that is not gRPC as a broken server and loses the reason. So the proxy's own errors reach it in gRPC's
//! form: HTTP status 200, and `grpc-status` in a head that ends the stream ("Trailers-Only" of PROTOCOL-HTTP2). The codes follow gRPC's own
//! mapping of HTTP statuses, and are more exact where the proxy knows more.

use std::time::Duration;

use crate::http::{FieldsView, KnownField, RequestHead, Spanned};
use crate::reason::Reason;
use crate::respond::GrpcStatus;
use fairway_model::{Fields, TooLong};

/// Whether the content type of a request is gRPC (not gRPC-Web, whose clients read HTTP statuses).
pub(super) fn is_typed(head: Spanned<'_, RequestHead>) -> bool {
    let fields = FieldsView { fields: head.parsed.fields(), bytes: head.bytes };
    fields.get(KnownField::ContentType).is_some_and(is_type)
}

/// Whether a media type is gRPC's.
pub(super) fn is_type(value: &[u8]) -> bool {
    let (name, rest) = value.split_at(value.len().min(b"application/grpc".len()));
    name.eq_ignore_ascii_case(b"application/grpc") && matches!(rest.first(), None | Some(b'+' | b';' | b' '))
}

/// The gRPC status for one of the proxy's own errors.
pub(super) fn status(http: u16, reason: Option<Reason>) -> GrpcStatus {
    let code = match (reason, http) {
        (Some(Reason::SendTimeout | Reason::ReadTimeout | Reason::CallTimeout | Reason::BodyTimeout), _) => "4",
        // No part of the request has reached the endpoint, or a new connection would help.
        (Some(Reason::ConnectTimeout | Reason::Misdirected), _) => "14",
        (Some(Reason::ClientCertificate), 400) | (_, 401) => "16",
        (_, 413 | 414 | 431) => "8",
        (_, 403) => "7",
        (_, 404 | 405 | 501) => "12",
        (_, 400 | 500) => "13",
        (_, 429 | 502 | 503 | 504) => "14",
        _ => "2",
    };
    GrpcStatus { code, message: reason.map_or_else(|| crate::http::reason(http), Reason::as_str) }
}

/// A message as a call carries it: after a byte that says whether it is compressed, and its length.
///
/// # Errors
/// If its length does not fit in 32 bits.
pub(super) fn framed(message: &[u8]) -> Result<Vec<u8>, TooLong> {
    let length = u32::try_from(message.len()).map_err(|_| TooLong)?;
    Ok([&[0][..], &length.to_be_bytes(), message].concat())
}

/// The single message of an answer; `None` if the answer is anything else, or compressed, which was not negotiated.
pub(super) fn unframed(body: &[u8]) -> Option<&[u8]> {
    let ([0, length @ ..], message) = body.split_first_chunk::<5>()? else { return None };
    (u32::from_be_bytes(*length) as usize == message.len()).then_some(message)
}

/// The timeout that the client sets for the call (`grpc-timeout`): at most eight digits and a unit. The endpoint has to refuse anything
/// else.
pub(super) fn timeout(head: Spanned<'_, RequestHead>) -> Option<Duration> {
    let fields = FieldsView { fields: head.parsed.fields(), bytes: head.bytes };
    let line = fields.lines().find(|line| line.name.eq_ignore_ascii_case(b"grpc-timeout"))?;
    let (unit, digits) = line.value.split_last()?;
    if !(1..=8).contains(&digits.len()) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let count = digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
    Some(match unit {
        b'H' => Duration::from_secs(count * 3600),
        b'M' => Duration::from_secs(count * 60),
        b'S' => Duration::from_secs(count),
        b'm' => Duration::from_millis(count),
        b'u' => Duration::from_micros(count),
        b'n' => Duration::from_nanos(count),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::HeadLimits;

    fn with<T>(field: &str, look: impl FnOnce(Spanned<'_, RequestHead>) -> T) -> T {
        let text = format!("POST / HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n");
        let mut head = RequestHead::default();
        head.parse(text.as_bytes(), &HeadLimits::default()).expect("a head");
        look(Spanned { parsed: &head, bytes: text.as_bytes() })
    }

    #[test]
    fn calls_are_known_by_their_type() {
        let is = |value: &str| with(&format!("Content-Type: {value}"), is_typed);
        for value in
            ["application/grpc", "application/grpc+proto", "Application/gRPC;charset=x", "application/grpc ; x"]
        {
            assert!(is(value), "{value}");
        }
        for value in ["application/grpc-web", "application/grpc-web+proto", "application/json", "application/grp", "x"]
        {
            assert!(!is(value), "{value}");
        }
    }

    #[test]
    fn an_answer_is_one_message_that_is_not_compressed() {
        assert_eq!(unframed(&framed(b"abc").unwrap()), Some(&b"abc"[..]));
        assert_eq!(unframed(&framed(b"").unwrap()), Some(&b""[..]));
        let two = [framed(b"a").unwrap(), framed(b"b").unwrap()].concat();
        for bad in [&b""[..], &[0, 0, 0, 0], &[0, 0, 0, 0, 2, b'a'], &[1, 0, 0, 0, 1, b'a'], &[2, 0, 0, 0, 0], &two] {
            assert_eq!(unframed(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn timeouts_have_digits_and_a_unit() {
        let of = |value: &str| with(&format!("grpc-timeout: {value}"), timeout);
        assert_eq!(of("100m"), Some(Duration::from_millis(100)));
        assert_eq!(of("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        assert_eq!((of("1S"), of("2M")), (Some(Duration::from_secs(1)), Some(Duration::from_secs(120))));
        assert_eq!((of("5u"), of("6n")), (Some(Duration::from_micros(5)), Some(Duration::from_nanos(6))));
        for bad in ["", "m", "100", "123456789m", "-1S", "1.5S", "1 S", "1s"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }

    /// Each error has the code that `docs/grpc.md` says.
    #[test]
    fn the_documented_codes_are_true() {
        let page = include_str!("../../../../docs/grpc.md");
        let rows: Vec<Vec<&str>> = page
            .lines()
            .filter(|line| line.starts_with("| `") || line.starts_with("| other"))
            .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
            .collect();
        let row_of = |code: &str| rows.iter().find(|row| row[1].starts_with(&format!("{code} "))).expect("a row");
        for reason in Reason::ALL {
            for http in
                reason.statuses().split(", ").filter_map(|status| status.parse().ok()).filter(|code| *code != 499)
            {
                let row = row_of(status(http, Some(*reason)).code);
                let named = row[0].contains(&format!("`{reason}`")) || row[0].contains(&format!("`{http}`"));
                assert!(named || row[0].starts_with("other"), "{reason} with {http}: {row:?}");
            }
        }
    }
}
