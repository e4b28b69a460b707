//! The PROXY protocol (haproxy.org, proxy-protocol.txt): versions 1 and 2 are read, version 1 is written. It converts between
//! bytes and addresses; the caller does the I/O.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Longest header that is accepted.
pub use crate::limit::PROXY_HEADER as LONGEST;
use crate::limit::PROXY_HEADER_V1;
use fairway_model::decimal;

const SIGNATURE_V1: &[u8] = b"PROXY ";
const SIGNATURE_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Both ends of a client's connection, as seen where it was accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ends {
    /// The client's address.
    pub source: SocketAddr,
    /// The address that it connected to.
    pub destination: SocketAddr,
}

/// How a connection begins.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Decoded {
    /// An incomplete header.
    Partial,
    /// A complete header.
    Complete {
        /// Its length; the client's own bytes follow.
        len: usize,
        /// The ends given by the header; `None` if the sender speaks for itself or doesn't know them (`LOCAL`, `UNKNOWN`), so
        /// that the ends of the connection itself apply.
        ends: Option<Ends>,
    },
}

/// The bytes are not a header.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("no valid PROXY header")]
pub struct InvalidProxyHeader;

/// Decodes a header at the front of `input`. It asks for no more than [`LONGEST`] bytes.
///
/// # Errors
/// If the connection does not begin with a valid header, or the header is too long.
pub fn decode(input: &[u8]) -> Result<Decoded, InvalidProxyHeader> {
    let begins_as = |signature: &[u8]| {
        let len = signature.len().min(input.len());
        input[..len] == signature[..len]
    };
    if begins_as(SIGNATURE_V2) {
        decode_v2(input)
    } else if begins_as(SIGNATURE_V1) {
        decode_v1(input)
    } else {
        Err(InvalidProxyHeader)
    }
}

/// Appends a version 1 header. Ends of different families can't be expressed and are written as `UNKNOWN`.
pub fn encode(ends: &Ends, out: &mut Vec<u8>) {
    let (source, destination) = (ends.source.ip().to_canonical(), ends.destination.ip().to_canonical());
    let family = match (source, destination) {
        (IpAddr::V4(_), IpAddr::V4(_)) => "TCP4",
        (IpAddr::V6(_), IpAddr::V6(_)) => "TCP6",
        _ => return out.extend_from_slice(b"PROXY UNKNOWN\r\n"),
    };
    out.extend_from_slice(SIGNATURE_V1);
    out.extend_from_slice(family.as_bytes());
    for ip in [source, destination] {
        out.push(b' ');
        decimal::ip(ip, out);
    }
    for port in [ends.source.port(), ends.destination.port()] {
        out.push(b' ');
        decimal::number(port.into(), out);
    }
    out.extend_from_slice(b"\r\n");
}

fn decode_v1(input: &[u8]) -> Result<Decoded, InvalidProxyHeader> {
    let line = &input[..input.len().min(PROXY_HEADER_V1)];
    let Some(end) = line.windows(2).position(|pair| pair == b"\r\n") else {
        return if input.len() < PROXY_HEADER_V1 { Ok(Decoded::Partial) } else { Err(InvalidProxyHeader) };
    };
    let text = str::from_utf8(&line[SIGNATURE_V1.len()..end]).map_err(|_| InvalidProxyHeader)?;
    let mut words = text.split(' ');
    let family = words.next().unwrap_or_default();
    let len = end + 2;
    if family == "UNKNOWN" {
        // The rest of the line is ignored.
        return Ok(Decoded::Complete { len, ends: None });
    }
    let mut word = || words.next().ok_or(InvalidProxyHeader);
    let (source, destination) = (word()?, word()?);
    let (source_port, destination_port) = (port(word()?)?, port(word()?)?);
    let ip = |text: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let (Some(source), Some(destination), None) = (ip(source), ip(destination), words.next()) else {
        return Err(InvalidProxyHeader);
    };
    let ends = Ends {
        source: SocketAddr::new(source, source_port),
        destination: SocketAddr::new(destination, destination_port),
    };
    Ok(Decoded::Complete { len, ends: Some(ends) })
}

/// Parses digits without sign or leading zero.
fn port(text: &str) -> Result<u16, InvalidProxyHeader> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    text.parse().ok().filter(|_| plain).ok_or(InvalidProxyHeader)
}

fn decode_v2(input: &[u8]) -> Result<Decoded, InvalidProxyHeader> {
    let start = SIGNATURE_V2.len() + 4;
    let Some(&[version_and_command, family, high, low]) = input.get(SIGNATURE_V2.len()..start) else {
        return Ok(Decoded::Partial);
    };
    let local = match version_and_command {
        0x20 => true,
        0x21 => false,
        _ => return Err(InvalidProxyHeader),
    };
    let len = start + usize::from(u16::from_be_bytes([high, low]));
    if len > LONGEST {
        return Err(InvalidProxyHeader);
    }
    let Some(body) = input.get(start..len) else { return Ok(Decoded::Partial) };
    let ends = match family {
        _ if local => None,
        // AF_INET and AF_INET6 over a stream.
        0x11 => Some(v2_ends::<4>(body)?),
        0x21 => Some(v2_ends::<16>(body)?),
        // AF_UNSPEC, and ends that can't belong to a TCP client: the receiver must use the connection's own ends.
        0x00 | 0x12 | 0x22 | 0x31 | 0x32 => None,
        _ => return Err(InvalidProxyHeader),
    };
    Ok(Decoded::Complete { len, ends })
}

fn v2_ends<const N: usize>(body: &[u8]) -> Result<Ends, InvalidProxyHeader>
where
    IpAddr: From<[u8; N]>,
{
    let ip = |at: usize| -> Option<IpAddr> { Some(IpAddr::from(<[u8; N]>::try_from(body.get(at..at + N)?).ok()?)) };
    let port = |at: usize| -> Option<u16> { Some(u16::from_be_bytes(body.get(at..at + 2)?.try_into().ok()?)) };
    let ends = || {
        let source = SocketAddr::new(ip(0)?, port(2 * N)?);
        let destination = SocketAddr::new(ip(N)?, port(2 * N + 2)?);
        Some(Ends { source, destination })
    };
    ends().ok_or(InvalidProxyHeader)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ends(source: &str, destination: &str) -> Ends {
        Ends { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    #[test]
    fn version_one_is_read() {
        let complete = |text: &str, expected: Option<Ends>| {
            let input = format!("{text}\r\nrest");
            let len = text.len() + 2;
            assert_eq!(decode(input.as_bytes()), Ok(Decoded::Complete { len, ends: expected }), "{text}");
        };
        complete("PROXY TCP4 192.0.2.1 192.0.2.2 5 443", Some(ends("192.0.2.1:5", "192.0.2.2:443")));
        complete("PROXY TCP6 2001:db8::1 ::1 65535 0", Some(ends("[2001:db8::1]:65535", "[::1]:0")));
        complete("PROXY UNKNOWN", None);
        complete("PROXY UNKNOWN ff:: what ever", None);
    }

    #[test]
    fn version_two_is_read() {
        let header = |command: u8, family: u8, body: &[u8]| {
            let mut out = SIGNATURE_V2.to_vec();
            out.extend([command, family]);
            out.extend((body.len() as u16).to_be_bytes());
            out.extend(body);
            out
        };
        let v4 = [192, 0, 2, 1, 192, 0, 2, 2, 0, 5, 1, 187];
        let mut with_extension = v4.to_vec();
        with_extension.extend([4, 0, 1, 0]);
        let expected = Some(ends("192.0.2.1:5", "192.0.2.2:443"));
        for (input, expected) in [
            (header(0x21, 0x11, &v4), expected),
            (header(0x21, 0x11, &with_extension), expected),
            (header(0x20, 0x11, &v4), None),
            (header(0x20, 0x00, &[]), None),
            (header(0x21, 0x00, &[]), None),
            (header(0x21, 0x31, &[0; 216]), None),
        ] {
            let len = input.len();
            assert_eq!(decode(&input), Ok(Decoded::Complete { len, ends: expected }));
            for cut in 0..len {
                assert_eq!(decode(&input[..cut]), Ok(Decoded::Partial), "{cut}");
            }
        }
        let mut v6 = [0; 36];
        (v6[15], v6[31], v6[33], v6[35]) = (1, 2, 3, 4);
        let found = decode(&header(0x21, 0x21, &v6));
        assert_eq!(found, Ok(Decoded::Complete { len: 52, ends: Some(ends("[::1]:3", "[::2]:4")) }));
        for bad in [
            header(0x21, 0x11, &v4[..11]),
            header(0x11, 0x11, &v4),
            header(0x22, 0x11, &v4),
            header(0x21, 0x41, &v4),
            header(0x21, 0x11, &[0; LONGEST]),
        ] {
            assert_eq!(decode(&bad), Err(InvalidProxyHeader));
        }
    }

    #[test]
    fn invalid_headers_are_refused_at_once() {
        for bad in [
            "GET / HTTP/1.1",
            "PROXY TCP4 192.0.2.1 192.0.2.2 5\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 5 443 7\r\n",
            "PROXY TCP4 ::1 ::1 5 443\r\n",
            "PROXY TCP6 192.0.2.1 192.0.2.2 5 443\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 05 443\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 +5 443\r\n",
            "PROXY TCP4 192.0.2.1 192.0.2.2 5 65536\r\n",
            "PROXY TCP4  192.0.2.1 192.0.2.2 5 443\r\n",
            "PROXY UDP4 192.0.2.1 192.0.2.2 5 443\r\n",
            "proxy TCP4 192.0.2.1 192.0.2.2 5 443\r\n",
        ] {
            assert_eq!(decode(bad.as_bytes()), Err(InvalidProxyHeader), "{bad}");
        }
        let endless = [SIGNATURE_V1, &[b'x'; 200]].concat();
        assert_eq!(decode(&endless[..106]), Ok(Decoded::Partial));
        assert_eq!(decode(&endless), Err(InvalidProxyHeader));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(v6 in any::<bool>(), bits in any::<(u128, u128, u16, u16)>()) {
            let ip = |bits: u128| -> IpAddr {
                // Mapped addresses are written as the IPv4 addresses that they stand for.
                if v6 { Ipv6Addr::from_bits(bits | 1 << 127).into() } else { Ipv4Addr::from_bits(bits as u32).into() }
            };
            let ends = Ends {
                source: SocketAddr::new(ip(bits.0), bits.2),
                destination: SocketAddr::new(ip(bits.1), bits.3),
            };
            let mut out = Vec::new();
            encode(&ends, &mut out);
            prop_assert!(out.len() <= PROXY_HEADER_V1);
            prop_assert_eq!(decode(&out), Ok(Decoded::Complete { len: out.len(), ends: Some(ends) }));
            for cut in 0..out.len() {
                prop_assert_eq!(decode(&out[..cut]), Ok(Decoded::Partial));
            }
        }

        #[test]
        fn no_bytes_panic(signature in 0..3usize, rest in prop::collection::vec(any::<u8>(), 0..300)) {
            let input = [[SIGNATURE_V1, SIGNATURE_V2, b""][signature], rest.as_slice()].concat();
            if let Ok(Decoded::Complete { len, .. }) = decode(&input) {
                prop_assert!(len <= input.len().min(LONGEST));
            }
        }
    }
}
