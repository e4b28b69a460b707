//! Base64 as Kubernetes reads it: Go's decoder skips line breaks and ignores unused bits in the last character.

use std::borrow::Cow;

use super::node::{Entry, Node, Value};

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The object, with the values under `key` rewritten for a strict decoder; `None` if they need no rewriting.
pub(super) fn normalize<'a>(node: &Node<'a>, key: &str) -> Option<Node<'a>> {
    let is_loose = |node: &Node<'_>| node.text().is_some_and(|text| strict(text).is_some());
    let Value::Mapping(values) = &node.get(key)?.value else { return None };
    if !values.iter().any(|entry| is_loose(&entry.value)) {
        return None;
    }
    let mut node = node.clone();
    let Value::Mapping(entries) = &mut node.value else { return None };
    let data = entries.iter_mut().filter(|entry| entry.key == key).map(|entry| &mut entry.value.value);
    for Entry { value, .. } in
        data.filter_map(|value| if let Value::Mapping(all) = value { Some(all) } else { None }).flatten()
    {
        if let Value::Scalar { text, .. } = &mut value.value
            && let Some(strict) = strict(text)
        {
            *text = Cow::Owned(strict);
        }
    }
    Some(node)
}

/// The text without line breaks and unused bits; `None` if it contains neither.
fn strict(text: &str) -> Option<String> {
    let mut out: String = text.chars().filter(|char| !matches!(char, '\r' | '\n')).collect();
    let kept_bits = if out.ends_with("==") { 0b11_0000 } else { 0b11_1100 };
    let digits = out.trim_end_matches('=').len();
    let last = out.as_bytes()[..digits].last().and_then(|last| ALPHABET.iter().position(|char| char == last));
    if let Some(last) = last.filter(|last| out.len() > digits && last & kept_bits != *last) {
        let tidy = char::from(ALPHABET[last & kept_bits]);
        out.replace_range(digits - 1..digits, tidy.encode_utf8(&mut [0; 4]));
    }
    (out != text).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_breaks_and_leftover_bits_go() {
        for (text, expected) in [
            ("aGVs\nbG8=\n", Some("aGVsbG8=")),
            ("aGVs\r\nbG8=", Some("aGVsbG8=")),
            ("eB==", Some("eA==")),
            ("aGVsbG9=", Some("aGVsbG8=")),
            ("aGVsbG8=", None),
            ("eA==", None),
            ("", None),
            ("==", None),
            ("é=", None),
        ] {
            assert_eq!(strict(text).as_deref(), expected, "{text:?}");
        }
    }
}
