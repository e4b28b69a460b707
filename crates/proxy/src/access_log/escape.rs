//! The three escaping modes of nginx's `log_format`.

use fairway_model::LogEscape;

const UPPER_HEX: &[u8; 16] = b"0123456789ABCDEF";

/// Appends an escaped value.
pub(super) fn append(value: &[u8], escape: LogEscape, out: &mut Vec<u8>) {
    match escape {
        LogEscape::Default => append_default(value, out),
        LogEscape::Json => append_json(value, out),
        LogEscape::None => {
            let from = out.len();
            out.extend_from_slice(value);
            if memchr::memchr2(b'\r', b'\n', value).is_some() {
                out[from..].iter_mut().filter(|byte| matches!(byte, b'\r' | b'\n')).for_each(|byte| *byte = b' ');
            }
        }
    }
}

/// Escapes quotes, backslashes, control bytes and everything beyond ASCII as `\xXX`.
fn append_default(value: &[u8], out: &mut Vec<u8>) {
    let plain = |byte: u8| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\';
    for_each_run(value, plain, out, |byte, out| {
        out.extend_from_slice(&[b'\\', b'x', UPPER_HEX[usize::from(byte >> 4)], UPPER_HEX[usize::from(byte & 15)]]);
    });
}

/// Escapes as in RFC 8259 section 7. Bytes that are not valid UTF-8 become U+FFFD: nginx copies them, and readers then reject the
/// line.
fn append_json(value: &[u8], out: &mut Vec<u8>) {
    let plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
    for chunk in value.utf8_chunks() {
        for_each_run(chunk.valid().as_bytes(), plain, out, |byte, out| match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            _ => {
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[UPPER_HEX[usize::from(byte >> 4)], UPPER_HEX[usize::from(byte & 15)]]);
            }
        });
        if !chunk.invalid().is_empty() {
            out.extend_from_slice("\u{fffd}".as_bytes());
        }
    }
}

fn for_each_run(
    mut value: &[u8],
    plain: impl Fn(u8) -> bool,
    out: &mut Vec<u8>,
    mut odd: impl FnMut(u8, &mut Vec<u8>),
) {
    while let Some(at) = value.iter().position(|&byte| !plain(byte)) {
        out.extend_from_slice(&value[..at]);
        odd(value[at], out);
        value = &value[at + 1..];
    }
    out.extend_from_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn escaped(value: &[u8], escape: LogEscape) -> String {
        let mut out = Vec::new();
        append(value, escape, &mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn values_are_escaped_as_nginx_escapes_them() {
        let value = b"a\"b\\c\n\t\x01\x7f\xc3\xa9";
        assert_eq!(escaped(value, LogEscape::Default), r"a\x22b\x5Cc\x0A\x09\x01\x7F\xC3\xA9");
        assert_eq!(escaped(value, LogEscape::Json), "a\\\"b\\\\c\\n\\t\\u0001\x7fé");
        assert_eq!(escaped(value, LogEscape::None), "a\"b\\c \t\x01\x7fé");
    }

    proptest! {
        #[test]
        fn no_value_breaks_a_line_or_a_json_string(value in proptest::collection::vec(any::<u8>(), 0..40)) {
            for escape in [LogEscape::Default, LogEscape::Json, LogEscape::None] {
                let text = escaped(&value, escape);
                prop_assert!(!text.contains(['\n', '\r']));
            }
            let json = format!("\"{}\"", escaped(&value, LogEscape::Json));
            let read: String = serde_json::from_str(&json).unwrap();
            prop_assert_eq!(read, String::from_utf8_lossy(&value));
        }
    }
}
