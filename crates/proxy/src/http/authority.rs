//! The host that a request is for.

use std::net::Ipv6Addr;

use super::error::HeadError;
use super::field::Span;

/// A valid `host[:port]`, taken from an absolute request target, else from `Host`. The case of the host and a trailing dot are
/// kept as received; the router canonicalises them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Authority {
    /// Host and port as received, without a colon that no port follows.
    pub span: Span,
    /// Host name, IPv4 address, or IPv6 address in brackets; never empty.
    pub host: Span,
    /// The port, if present.
    pub port: Option<u16>,
    /// Whether the host is lower case without a trailing dot, so that it can be looked up unchanged.
    pub canonical: bool,
}

impl Authority {
    /// Parses `buf[start..end]`. Stricter than RFC 3986: no user information, no percent-encoding, no empty label. An empty port counts
    /// as none (RFC 3986 3.2.3, 6.2.3). Underscores pass, because host names in clusters contain them.
    ///
    /// # Errors
    /// [`HeadError::InvalidHost`] for everything else.
    pub(crate) fn parse(buf: &[u8], start: usize, end: usize) -> Result<Self, HeadError> {
        let text = &buf[start..end];
        let mut canonical = true;
        let host_len = if text.first() == Some(&b'[') {
            let close = memchr::memchr(b']', text).ok_or(HeadError::InvalidHost)?;
            let address = std::str::from_utf8(&text[1..close]).map_err(|_| HeadError::InvalidHost)?;
            let _: Ipv6Addr = address.parse().map_err(|_| HeadError::InvalidHost)?;
            canonical = !text[..close].iter().any(u8::is_ascii_uppercase);
            close + 1
        } else {
            let (len, seen) = name_len(text)?;
            canonical &= seen & UPPER == 0 && text[len - 1] != b'.';
            len
        };
        let port = match &text[host_len..] {
            [] | [b':'] => None,
            [b':', digits @ ..] => Some(port(digits)?),
            _ => return Err(HeadError::InvalidHost),
        };
        let end = if text.ends_with(b":") { end - 1 } else { end };
        Ok(Self { span: Span::new(start, end), host: Span::new(start, start + host_len), port, canonical })
    }
}

const UPPER: u8 = 1;
const DOT: u8 = 2;
/// This class and those above it do not occur in names.
const COLON: u8 = 4;
const OTHER: u8 = 8;

/// The class of each byte in a host name; 0 is a lower-case letter, a digit, `-` or `_`.
static HOST_CLASS: [u8; 256] = {
    let mut table = [OTHER; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = match byte as u8 {
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => 0,
            b'A'..=b'Z' => UPPER,
            b'.' => DOT,
            b':' => COLON,
            _ => OTHER,
        };
        byte += 1;
    }
    table
};

/// Length of the name or IPv4 address at the start of `text`, up to a colon or the end, and the classes of its bytes.
fn name_len(text: &[u8]) -> Result<(usize, u8), HeadError> {
    // The classes that two adjacent bytes have in common: a dot among them ends an empty label.
    let (mut before, mut twice) = (DOT, 0);
    let (mut seen, mut len) = (0, 0);
    for &byte in text {
        let class = HOST_CLASS[usize::from(byte)];
        if class >= COLON {
            break;
        }
        twice |= before & class;
        before = class;
        seen |= class;
        len += 1;
    }
    if text.get(len).is_some_and(|&byte| byte != b':') {
        return Err(HeadError::InvalidHost);
    }
    if twice & DOT != 0 {
        return Err(HeadError::InvalidHost);
    }
    // RFC 1035 3.1: at most 253 characters and a trailing dot.
    if len == 0 || len > 254 { Err(HeadError::InvalidHost) } else { Ok((len, seen)) }
}

fn port(digits: &[u8]) -> Result<u16, HeadError> {
    if digits.len() > 5 || !digits.iter().all(u8::is_ascii_digit) {
        return Err(HeadError::InvalidHost);
    }
    let port = digits.iter().fold(0_u32, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    u16::try_from(port).map_err(|_| HeadError::InvalidHost)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_and_ports() {
        let parse = |text: &'static str| {
            Authority::parse(text.as_bytes(), 0, text.len())
                .map(|a| (std::str::from_utf8(a.host.of(text.as_bytes())).unwrap(), a.port))
        };
        assert_eq!(parse("example.com"), Ok(("example.com", None)));
        assert_eq!(parse("EXAMPLE.com.:8080"), Ok(("EXAMPLE.com.", Some(8080))));
        assert_eq!(parse("[::1]:443"), Ok(("[::1]", Some(443))));
        assert_eq!(parse("127.0.0.1"), Ok(("127.0.0.1", None)));
        assert_eq!(parse("a_b"), Ok(("a_b", None)));
        assert_eq!(parse("a:"), Ok(("a", None)));
        let empty_port = Authority::parse(b"[::1]:", 0, 6).unwrap();
        assert_eq!((empty_port.span.of(b"[::1]:"), empty_port.port), (&b"[::1]"[..], None));
        for bad in [
            "",
            ":80",
            "a::",
            "a:65536",
            "a:+1",
            "a:1:2",
            "user@host",
            "a b",
            "a/b",
            "a,b",
            "a..b",
            ".a",
            ".",
            "[::1",
            "[::1]x",
            "[]",
            "[fe80::1%25eth0]",
            "::1",
            "a%41",
            "a?b",
            "a#b",
            "a\\b",
            "a:123456",
            "bücher.example",
            "*",
        ] {
            assert_eq!(parse(bad), Err(HeadError::InvalidHost), "{bad}");
        }
    }
}
