//! The paths that are refused in place of a pattern that doesn't compile.

/// A pattern for all paths that a broken pattern could have been meant for: the beginnings of its alternatives. If one has no beginning but
/// `/`, the result covers any path if the pattern restricts access (`strict`); otherwise that alternative is left out, since a broken
/// pattern that guards nothing must not close the host for all clients.
pub(crate) fn guard(pattern: &str, strict: bool) -> Option<String> {
    let literals: Vec<&str> = alternatives(pattern).into_iter().map(literal_prefix).collect();
    if strict && literals.iter().any(|literal| literal.len() < 2) {
        return Some("/".to_owned());
    }
    let literals: Vec<String> = literals.into_iter().filter(|literal| literal.len() > 1).map(regex::escape).collect();
    (!literals.is_empty()).then(|| literals.join("|"))
}

/// The alternatives of a pattern outside of groups. If they can't be found without parsing the whole pattern, the result is one alternative
/// with an empty beginning.
fn alternatives(pattern: &str) -> Vec<&str> {
    if pattern.contains("\\Q") || pattern.contains("(?#") {
        return vec![""];
    }
    let (mut found, mut start, mut depth) = (Vec::new(), 0, 0u32);
    let mut bytes = pattern.bytes().enumerate().peekable();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\\' => {
                bytes.next();
            }
            b'[' => {
                // A bracket at the start of a class is one of its members.
                bytes.next_if(|(_, byte)| *byte == b'^');
                bytes.next_if(|(_, byte)| *byte == b']');
                while let Some((_, byte)) = bytes.next().filter(|(_, byte)| *byte != b']') {
                    if byte == b'\\' {
                        bytes.next();
                    }
                }
            }
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b'|' if depth == 0 => {
                found.push(&pattern[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    found.push(&pattern[start..]);
    found
}

/// The common beginning of all paths that a pattern without alternatives could have been meant for, at most 1024 bytes of it.
fn literal_prefix(pattern: &str) -> &str {
    let end = pattern.find(|c: char| "\\.+*?()|[]{}^$".contains(c)).unwrap_or(pattern.len());
    let mut literal = &pattern[..end];
    // A repetition makes the character before it optional.
    if pattern[end..].starts_with(['*', '?', '{']) {
        literal = &literal[..literal.char_indices().next_back().map_or(0, |(at, _)| at)];
    }
    &literal[..literal.floor_char_boundary(1024)]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broken_pattern_guards_all_that_it_could_have_matched() {
        for (pattern, strict, open) in [
            ("/foo/(?!x)", Some("/foo/"), Some("/foo/")),
            ("/foo?(?!x)", Some("/fo"), Some("/fo")),
            ("/a|/b(?!x)", Some("/a|/b"), Some("/a|/b")),
            ("/a|/(?!x)", Some("/"), Some("/a")),
            ("/(?!public).*", Some("/"), None),
            ("/a(x|y)(?!z)", Some("/a"), Some("/a")),
            ("/a[(]|/b(?!x)", Some("/a|/b"), Some("/a|/b")),
            ("/a[](]|/b(?!x)", Some("/a|/b"), Some("/a|/b")),
            ("/a\\(|/b(?!x)", Some("/a|/b"), Some("/a|/b")),
            ("/a\\Q(\\E|/b(?!x)", Some("/"), None),
            ("/a(?#()|/b(?!x)", Some("/"), None),
            ("(", Some("/"), None),
        ] {
            assert_eq!(guard(pattern, true).as_deref(), strict, "{pattern}");
            assert_eq!(guard(pattern, false).as_deref(), open, "{pattern}");
        }
    }
}
