//! The canonical form of a request path. It is made once and used for matching and authorisation; the forwarded path
//! means the same.
//!
//! - Percent-encoding is decoded, except where that would change the meaning of the path: `%2F`, `%5C`, `%25` and
//!   control bytes stay encoded (upper case) and are opaque to matching (RFC 3986 section 2.2).
//! - Repeated slashes are merged and dot segments are resolved, encoded ones (`%2e`) too (RFC 3986 section 5.2.4).
//! - Refused: invalid encoding and `%00`, control bytes, climbing above the root, and dot segments next to an encoded
//!   slash or a backslash (`..%2f`), which some backends would resolve after we had matched another path.
//!
//! A path with dot segments is forwarded in canonical form. Any other is forwarded byte for byte, as ingress-nginx
//! does: the two forms then differ only in the spelling of characters or in doubled slashes that backends may need
//! (`/resize/https://…`). A backend that distinguishes `//admin` from `/admin` must guard both itself.

/// Why a request path gets 400.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum InvalidPath {
    /// It does not start with a slash.
    #[error("the path does not start with /")]
    NotAbsolute,
    /// A `%` without two hexadecimal digits, or `%00`.
    #[error("the path has an invalid percent-encoding")]
    Encoding,
    /// A control byte, a space or `#`.
    #[error("the path holds a byte that no path may hold")]
    Byte,
    /// More `..` than segments before it.
    #[error("the path climbs above the root")]
    AboveRoot,
    /// `..` next to an encoded slash or a backslash.
    #[error("the path hides a dot segment behind an encoded slash or a backslash")]
    HiddenDotSegment,
}

/// A path in its two forms. Both are the same bytes unless the client's spelling differs from the canonical one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CanonicalPath<'a> {
    /// The path used for matching.
    pub matched: &'a [u8],
    /// The path sent to the backend if no filter rewrites it.
    pub forwarded: &'a [u8],
}

/// Memory that [`canonicalize`] reuses across requests.
#[derive(Debug, Default)]
pub struct PathScratch {
    decoded: Vec<u8>,
    resolved: Vec<u8>,
    encoded: Vec<u8>,
}

/// Converts the path of a request target (without query) into canonical form. Borrows if nothing changes.
pub fn canonicalize<'a>(raw: &'a [u8], scratch: &'a mut PathScratch) -> Result<CanonicalPath<'a>, InvalidPath> {
    if raw.first() != Some(&b'/') {
        return Err(InvalidPath::NotAbsolute);
    }
    if is_canonical(raw) {
        return Ok(CanonicalPath { matched: raw, forwarded: raw });
    }
    decode(raw, &mut scratch.decoded)?;
    refuse_hidden_dots(&scratch.decoded)?;
    let dots = resolve(&scratch.decoded, &mut scratch.resolved)?;
    let forwarded = if dots {
        scratch.encoded.clear();
        encode(&scratch.resolved, &mut scratch.encoded);
        &scratch.encoded[..]
    } else {
        raw
    };
    Ok(CanonicalPath { matched: &scratch.resolved, forwarded })
}

/// The canonical form of a path that a user configured: like [`canonicalize`], but `?`, `#` and spaces stand for themselves.
pub(crate) fn canonicalize_configured(text: &str) -> Result<String, InvalidPath> {
    if !text.starts_with('/') {
        return Err(InvalidPath::NotAbsolute);
    }
    let (mut encoded, mut decoded, mut resolved) = (Vec::new(), Vec::new(), Vec::new());
    for &byte in text.as_bytes() {
        match byte {
            b' ' | b'#' => encoded.extend(percent(byte)),
            _ => encoded.push(byte),
        }
    }
    decode(&encoded, &mut decoded)?;
    refuse_hidden_dots(&decoded)?;
    resolve(&decoded, &mut resolved)?;
    String::from_utf8(resolved).map_err(|_| InvalidPath::Encoding)
}

/// A matched path as read by a backend that decodes `%2F` and `%5C`, or `None` if it contains neither.
///
/// Such a backend sees other segments than were matched: `/admin%2Fusers` is one segment here and two there.
pub fn separated<'o>(matched: &[u8], out: &'o mut Vec<u8>) -> Option<&'o [u8]> {
    let escaped = |at: &usize| matches!(matched.get(*at..at + 3), Some(b"%2F" | b"%5C"));
    memchr::memchr_iter(b'%', matched).find(escaped)?;
    out.clear();
    let mut at = 0;
    while at < matched.len() {
        let (byte, width) = if escaped(&at) { (b'/', 3) } else { (matched[at], 1) };
        if byte != b'/' || out.last() != Some(&b'/') {
            out.push(byte);
        }
        at += width;
    }
    Some(out)
}

/// Appends a matched path in a form allowed in a request line or a Location field: bytes not allowed in a URI are
/// percent-encoded (RFC 3986 section 3.3); the escapes kept in the canonical form stay as they are.
pub fn encode(matched: &[u8], out: &mut Vec<u8>) {
    for &byte in matched {
        match byte {
            0..=b' ' | 0x7f.. | b'"' | b'#' | b'<' | b'>' | b'?' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' => {
                out.extend(percent(byte));
            }
            _ => out.push(byte),
        }
    }
}

/// Encodes a path that replaces the one of a request, at the end of `target`, which is empty. Whether that is its canonical form: otherwise
/// a backend could read another path than was matched.
pub(crate) fn encode_replaced(path: &[u8], target: &mut Vec<u8>, scratch: &mut PathScratch) -> bool {
    encode(path, target);
    canonicalize(target, scratch).is_ok_and(|path| path.forwarded == *target)
}

/// Whether a path that replaces the one of a request may be sent.
pub(crate) fn is_sendable(path: &[u8]) -> bool {
    encode_replaced(path, &mut Vec::new(), &mut PathScratch::default())
}

/// Checks in one pass that there is nothing to decode, merge or resolve, and nothing forbidden.
fn is_canonical(raw: &[u8]) -> bool {
    let mut previous = 0;
    for &byte in raw {
        if byte <= b' ' || byte == b'%' || byte == b'#' || byte == b'\\' || byte == 0x7f {
            return false;
        }
        if previous == b'/' && (byte == b'/' || byte == b'.') {
            return false;
        }
        previous = byte;
    }
    true
}

fn decode(raw: &[u8], out: &mut Vec<u8>) -> Result<(), InvalidPath> {
    out.clear();
    let mut rest = raw;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match byte {
            b'%' => {
                let (&[high, low], tail) = rest.split_first_chunk().ok_or(InvalidPath::Encoding)?;
                rest = tail;
                let digit = |byte: u8| (byte as char).to_digit(16).ok_or(InvalidPath::Encoding);
                match (digit(high)? * 16 + digit(low)?) as u8 {
                    0 => return Err(InvalidPath::Encoding),
                    kept @ (1..b' ' | 0x7f | b'/' | b'\\' | b'%') => out.extend(percent(kept)),
                    byte => out.push(byte),
                }
            }
            0..=b' ' | 0x7f | b'#' => return Err(InvalidPath::Byte),
            // A bare backslash is not allowed in a URI; it counts as the encoded one.
            b'\\' => out.extend(percent(byte)),
            _ => out.push(byte),
        }
    }
    Ok(())
}

fn refuse_hidden_dots(decoded: &[u8]) -> Result<(), InvalidPath> {
    for segment in decoded.split(|&byte| byte == b'/') {
        let mut rest = segment;
        let mut hidden = false;
        loop {
            let separator =
                (0..rest.len()).find(|&at| rest[at..].starts_with(b"%2F") || rest[at..].starts_with(b"%5C"));
            let piece = &rest[..separator.unwrap_or(rest.len())];
            hidden |= separator.is_some();
            if hidden && piece == b".." {
                return Err(InvalidPath::HiddenDotSegment);
            }
            match separator {
                Some(at) => rest = &rest[at + 3..],
                None => break,
            }
        }
    }
    Ok(())
}

/// Merges slashes and resolves dot segments; returns whether there were dot segments.
fn resolve(decoded: &[u8], out: &mut Vec<u8>) -> Result<bool, InvalidPath> {
    out.clear();
    let mut dots = false;
    let mut segments = decoded.split(|&byte| byte == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        match segment {
            b"" if !last => continue,
            b"." | b".." => {
                dots = true;
                if segment == b".." {
                    let parent = memchr::memrchr(b'/', out).ok_or(InvalidPath::AboveRoot)?;
                    out.truncate(parent);
                }
                if last {
                    out.push(b'/');
                }
            }
            _ => {
                out.push(b'/');
                out.extend_from_slice(segment);
            }
        }
    }
    Ok(dots)
}

fn percent(byte: u8) -> [u8; 3] {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    [b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn both(raw: &str) -> Result<(String, String), InvalidPath> {
        let mut scratch = PathScratch::default();
        let path = canonicalize(raw.as_bytes(), &mut scratch)?;
        Ok((String::from_utf8_lossy(path.matched).into_owned(), String::from_utf8_lossy(path.forwarded).into_owned()))
    }

    #[test]
    fn plain_paths_stay_as_they_are() {
        for raw in ["/", "/a/b.c/", "/a;v=1/b,c@d:e", "/~x/a.b..c", "/ü"] {
            assert_eq!(both(raw).unwrap(), (raw.to_owned(), raw.to_owned()));
        }
    }

    #[test]
    fn escapes_are_decoded_for_matching_and_kept_for_the_backend() {
        for (raw, matched) in [
            ("/a%20b", "/a b"),
            ("/%61", "/a"),
            ("/a%2fb", "/a%2Fb"),
            ("/a%5cb", "/a%5Cb"),
            ("/a%252Fb", "/a%252Fb"),
            ("/a%0d%0ab", "/a%0D%0Ab"),
            ("/a%3fb", "/a?b"),
            ("//a///b", "/a/b"),
            ("/resize/https://x/y", "/resize/https:/x/y"),
        ] {
            assert_eq!(both(raw).unwrap(), (matched.to_owned(), raw.to_owned()), "{raw}");
        }
    }

    #[test]
    fn dot_segments_are_resolved_for_matching_and_for_the_backend() {
        for (raw, canonical) in [
            ("/a/./b", "/a/b"),
            ("/a/../b", "/b"),
            ("/public/%2e%2e/admin", "/admin"),
            ("/a/b/..", "/a/"),
            ("/a/.", "/a/"),
            ("/a//../b", "/b"),
            ("/..a/...", "/..a/..."),
        ] {
            assert_eq!(both(raw).unwrap().0, canonical, "{raw}");
            assert_eq!(both(raw).unwrap().1, canonical, "{raw}");
        }
        assert_eq!(both("/x/../a%20b").unwrap().1, "/a%20b");
    }

    #[test]
    fn some_backends_split_at_encoded_separators() {
        for (matched, read) in [
            ("/admin%2Fusers", Some("/admin/users")),
            ("/a%5Cb%2F", Some("/a/b/")),
            ("/a/%2Fb", Some("/a/b")),
            ("/a%25", None),
            ("/a", None),
        ] {
            assert_eq!(separated(matched.as_bytes(), &mut Vec::new()), read.map(str::as_bytes), "{matched}");
        }
    }

    #[test]
    fn ambiguous_paths_are_refused() {
        for (raw, error) in [
            ("a", InvalidPath::NotAbsolute),
            ("", InvalidPath::NotAbsolute),
            ("*", InvalidPath::NotAbsolute),
            ("/%", InvalidPath::Encoding),
            ("/%4", InvalidPath::Encoding),
            ("/%zz", InvalidPath::Encoding),
            ("/%00", InvalidPath::Encoding),
            ("/a\0", InvalidPath::Byte),
            ("/a#b", InvalidPath::Byte),
            ("/a\tb", InvalidPath::Byte),
            ("/..", InvalidPath::AboveRoot),
            ("/a/../../b", InvalidPath::AboveRoot),
            ("/public/..%2fadmin", InvalidPath::HiddenDotSegment),
            ("/public%2f..%2fadmin", InvalidPath::HiddenDotSegment),
            ("/public/..\\admin", InvalidPath::HiddenDotSegment),
            ("/public/a%5c%2e%2e", InvalidPath::HiddenDotSegment),
        ] {
            assert_eq!(both(raw), Err(error), "{raw:?}");
        }
    }

    proptest! {
        #[test]
        fn canonical_paths_are_their_own_canonical_form(raw in "/([a-c%./\\\\ 2eEfF5?#]{0,3}/?){0,8}") {
            let mut scratch = PathScratch::default();
            if let Ok(path) = canonicalize(raw.as_bytes(), &mut scratch) {
                prop_assert!(!path.matched.windows(2).any(|pair| pair == b"//"));
                prop_assert!(!path.matched.split(|&b| b == b'/').any(|s| s == b"." || s == b".."));
                let mut encoded = Vec::new();
                encode(path.matched, &mut encoded);
                let mut again = PathScratch::default();
                let second = canonicalize(&encoded, &mut again).unwrap();
                prop_assert_eq!(path.matched, second.matched);
                prop_assert_eq!(second.forwarded, &encoded[..]);
            }
        }

        #[test]
        fn no_bytes_panic(raw in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = canonicalize(&raw, &mut PathScratch::default());
        }
    }
}
