//! Names and certificates as text, as nginx gives them to backends.

use x509_parser::prelude::X509Name;

/// A name as RFC 2253 writes it and OpenSSL prints it (`XN_FLAG_RFC2253`): the last part first.
pub(super) fn rfc2253(name: &X509Name<'_>) -> String {
    let mut out = String::new();
    let mut parts: Vec<_> = name.iter().collect();
    parts.reverse();
    for (at, part) in parts.into_iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        for (at, attribute) in part.iter().enumerate() {
            if at > 0 {
                out.push('+');
            }
            let oid = attribute.attr_type().to_id_string();
            match (short_name(&oid), attribute.as_str()) {
                (Some(short), Ok(value)) => {
                    out.push_str(short);
                    out.push('=');
                    escape(value, &mut out);
                }
                (short, _) => {
                    // Of an unknown kind, or not text: its bytes.
                    out.push_str(short.unwrap_or(&oid));
                    out.push_str("=#");
                    let value = attribute.attr_value();
                    let mut der = vec![value.header.tag().0 as u8];
                    length(value.data.len(), &mut der);
                    der.extend_from_slice(value.data);
                    der.iter().for_each(|byte| push_hex(*byte, &mut out));
                }
            }
        }
    }
    out
}

/// DER's form of a length.
fn length(len: usize, out: &mut Vec<u8>) {
    if len < 128 {
        out.push(len as u8);
        return;
    }
    let bytes = len.to_be_bytes();
    let skipped = bytes.iter().take_while(|byte| **byte == 0).count();
    out.push(0x80 | (bytes.len() - skipped) as u8);
    out.extend_from_slice(&bytes[skipped..]);
}

fn short_name(oid: &str) -> Option<&'static str> {
    Some(match oid {
        "2.5.4.3" => "CN",
        "2.5.4.4" => "SN",
        "2.5.4.5" => "serialNumber",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "street",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "2.5.4.12" => "title",
        "2.5.4.13" => "description",
        "2.5.4.15" => "businessCategory",
        "2.5.4.17" => "postalCode",
        "2.5.4.41" => "name",
        "2.5.4.42" => "GN",
        "2.5.4.43" => "initials",
        "2.5.4.46" => "dnQualifier",
        "2.5.4.97" => "organizationIdentifier",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        "1.2.840.113549.1.9.1" => "emailAddress",
        _ => return None,
    })
}

/// Escapes as OpenSSL does: special characters by a backslash, control characters and non-ASCII ones by their bytes.
fn escape(value: &str, out: &mut String) {
    let last = value.len().saturating_sub(1);
    for (at, byte) in value.bytes().enumerate() {
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => out.extend(['\\', char::from(byte)]),
            b'#' if at == 0 => out.push_str("\\#"),
            b' ' if at == 0 || at == last => out.push_str("\\ "),
            b' '..=b'~' => out.push(char::from(byte)),
            _ => {
                out.push('\\');
                push_hex(byte, out);
            }
        }
    }
}

fn push_hex(byte: u8, out: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.extend([byte >> 4, byte & 15].map(|digit| char::from(HEX[usize::from(digit)])));
}

/// A certificate in PEM, percent-encoded as nginx's `$ssl_client_escaped_cert`.
pub(super) fn escaped_pem(der: &[u8]) -> String {
    const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    // 48 bytes make a line of 64 characters.
    for line in der.chunks(48) {
        for group in line.chunks(3) {
            let bytes = [group[0], *group.get(1).unwrap_or(&0), *group.get(2).unwrap_or(&0)];
            let bits = u32::from_be_bytes([0, bytes[0], bytes[1], bytes[2]]);
            for at in 0..4 {
                let digit = BASE64[(bits >> (18 - 6 * at)) as usize & 63];
                pem.push(if at <= group.len() { char::from(digit) } else { '=' });
            }
        }
        pem.push('\n');
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    let mut out = String::with_capacity(pem.len() * 9 / 8);
    for byte in pem.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push('%');
            push_hex(byte, &mut out);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_escaped_as_openssl_does() {
        for (value, expected) in [
            ("a b", "a b"),
            (" a ", "\\ a\\ "),
            ("#a#", "\\#a#"),
            ("a,b+c", "a\\,b\\+c"),
            ("<\"\\;>", "\\<\\\"\\\\\\;\\>"),
            ("é\n", "\\C3\\A9\\0A"),
            ("", ""),
        ] {
            let mut out = String::new();
            escape(value, &mut out);
            assert_eq!(out, expected, "{value}");
        }
    }

    #[test]
    fn pem_is_encoded_for_a_field() {
        let text = escaped_pem(b"any carnal pleasure");
        assert_eq!(
            text,
            "-----BEGIN%20CERTIFICATE-----%0AYW55IGNhcm5hbCBwbGVhc3VyZQ%3D%3D%0A-----END%20CERTIFICATE-----%0A"
        );
    }
}
