//! Finds the modules that a Rust source file names by a path from the root of its crate: `crate::x`, `crate::{x, y}`,
//! and `super::x` where that leads to the root. It reads tokens, not a syntax tree, which is enough for paths. Code
//! under `#[cfg(test)]` is omitted.

/// The names in a file.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Named {
    /// Line and name of each module of the crate's root; `*` for all of them.
    pub(super) modules: Vec<(usize, String)>,
    /// The modules that the file declares for tests only, in other files.
    pub(super) test_modules: Vec<String>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Token<'t> {
    Word(&'t str),
    /// `::`
    Separator,
    Mark(u8),
}

/// Reads a file. `depth` is the number of modules it is nested in within its crate: 1 for `a.rs` and `a/mod.rs`, 2 for
/// `a/b.rs`.
pub(super) fn find(text: &str, depth: usize) -> Named {
    let mut named = Named::default();
    let tokens = without_tests(&tokens(text), &mut named.test_modules);
    let at = |index: usize| tokens.get(index).map(|(_, token)| *token);
    // The number of braces open around each inline module.
    let mut inline: Vec<usize> = Vec::new();
    let mut braces = 0;
    let mut index = 0;
    while let Some(token) = at(index) {
        let after_separator = index.checked_sub(1).and_then(at) == Some(Token::Separator);
        match token {
            Token::Mark(b'{') => braces += 1,
            Token::Mark(b'}') => {
                braces -= 1;
                inline.pop_if(|opened| *opened == braces);
            }
            Token::Word("mod") if at(index + 2) == Some(Token::Mark(b'{')) => inline.push(braces),
            Token::Word("crate") if at(index + 1) == Some(Token::Separator) => {
                name(&tokens[index + 2..], &mut named.modules);
            }
            Token::Word("super") if !after_separator => {
                let mut up = 0;
                while at(index) == Some(Token::Word("super")) && at(index + 1) == Some(Token::Separator) {
                    up += 1;
                    index += 2;
                }
                if up > 0 {
                    if up == depth + inline.len() {
                        name(&tokens[index..], &mut named.modules);
                    }
                    // The next token has not been examined yet.
                    continue;
                }
            }
            Token::Word(_) | Token::Separator | Token::Mark(_) => {}
        }
        index += 1;
    }
    named
}

/// All words of a file with their lines, except in comments and strings.
pub(super) fn words(text: &str) -> Vec<(usize, &str)> {
    let word = |(line, token)| if let Token::Word(word) = token { Some((line, word)) } else { None };
    tokens(text).into_iter().filter_map(word).collect()
}

/// Records the name or list of paths after the separator.
fn name(tokens: &[(usize, Token<'_>)], modules: &mut Vec<(usize, String)>) {
    match tokens.first() {
        Some((line, Token::Word(word))) => modules.push((*line, (*word).to_owned())),
        Some((line, Token::Mark(b'*'))) => modules.push((*line, "*".to_owned())),
        Some((_, Token::Mark(b'{'))) => {
            let mut open = 0;
            let mut begins = true;
            for (line, token) in tokens {
                match token {
                    Token::Mark(b'{') => open += 1,
                    Token::Mark(b'}') => open -= 1,
                    Token::Mark(b',') if open == 1 => begins = true,
                    Token::Word(word) if begins => {
                        modules.push((*line, (*word).to_owned()));
                        begins = false;
                    }
                    Token::Word(_) | Token::Separator | Token::Mark(_) => {}
                }
                if open == 0 {
                    return;
                }
            }
        }
        _ => {}
    }
}

/// Removes each item or statement that follows `#[cfg(test)]`.
fn without_tests<'t>(tokens: &[(usize, Token<'t>)], test_modules: &mut Vec<String>) -> Vec<(usize, Token<'t>)> {
    const CFG_TEST: [Token<'_>; 7] = [
        Token::Mark(b'#'),
        Token::Mark(b'['),
        Token::Word("cfg"),
        Token::Mark(b'('),
        Token::Word("test"),
        Token::Mark(b')'),
        Token::Mark(b']'),
    ];
    let mut kept = Vec::with_capacity(tokens.len());
    let mut rest = tokens;
    while let Some((first, others)) = rest.split_first() {
        if !rest.iter().map(|(_, token)| *token).take(CFG_TEST.len()).eq(CFG_TEST) {
            kept.push(*first);
            rest = others;
            continue;
        }
        rest = &rest[CFG_TEST.len()..];
        let end = item_len(rest);
        let declared = rest[..end].windows(3).find_map(|three| match *three {
            [(_, Token::Word("mod")), (_, Token::Word(name)), (_, Token::Mark(b';'))] => Some(name.to_owned()),
            _ => None,
        });
        test_modules.extend(declared);
        rest = &rest[end..];
    }
    kept
}

/// The number of tokens of an item: up to its semicolon, or to the end of its braces.
fn item_len(tokens: &[(usize, Token<'_>)]) -> usize {
    let mut open = 0;
    for (index, (_, token)) in tokens.iter().enumerate() {
        match token {
            Token::Mark(b'{' | b'(' | b'[') => open += 1,
            Token::Mark(b')' | b']') => open -= 1,
            Token::Mark(b'}') => {
                open -= 1;
                if open == 0 {
                    return index + 1;
                }
            }
            Token::Mark(b';') if open == 0 => return index + 1,
            Token::Word(_) | Token::Separator | Token::Mark(_) => {}
        }
    }
    tokens.len()
}

/// Words and punctuation with their lines, without comments, strings and characters.
fn tokens(text: &str) -> Vec<(usize, Token<'_>)> {
    let bytes = text.as_bytes();
    let (mut at, mut line) = (0, 1);
    let mut found = Vec::new();
    while at < bytes.len() {
        let begin = at;
        let rest = &bytes[at..];
        at += match rest {
            [b'/', b'/', ..] => rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len()),
            [b'/', b'*', ..] => comment_len(rest),
            [b'"', ..] => string_len(rest),
            [b'r', b'"', ..] => 1 + raw_len(&rest[1..]),
            [b'b', b'r', b'"' | b'#', ..] => 2 + raw_len(&rest[2..]),
            [b'r', b'#', b'"' | b'#', ..] => 1 + raw_len(&rest[1..]),
            [b'\'', ..] => quote_len(&text[at..]),
            [b':', b':', ..] => {
                found.push((line, Token::Separator));
                2
            }
            [byte, ..] if is_word(*byte) => {
                let len = rest.iter().position(|&byte| !is_word(byte)).unwrap_or(rest.len());
                found.push((line, Token::Word(&text[at..at + len])));
                len
            }
            [byte, ..] => {
                if byte.is_ascii_punctuation() {
                    found.push((line, Token::Mark(*byte)));
                }
                1
            }
            [] => 0,
        };
        line += bytes[begin..at].iter().filter(|&&byte| byte == b'\n').count();
    }
    found
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

/// Comments nest.
fn comment_len(bytes: &[u8]) -> usize {
    let (mut at, mut open) = (0, 0);
    while at < bytes.len() {
        match &bytes[at..] {
            [b'/', b'*', ..] => (at, open) = (at + 2, open + 1),
            [b'*', b'/', ..] => (at, open) = (at + 2, open - 1),
            _ => at += 1,
        }
        if open == 0 {
            break;
        }
    }
    at
}

fn string_len(bytes: &[u8]) -> usize {
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// Counts from the hashes before the quote.
fn raw_len(bytes: &[u8]) -> usize {
    let hashes = bytes.iter().take_while(|&&byte| byte == b'#').count();
    let end = [&b"\""[..], &bytes[..hashes]].concat();
    let body = bytes.get(hashes + 1..).unwrap_or_default();
    match body.windows(end.len()).position(|window| window == end) {
        Some(len) => hashes + 1 + len + end.len(),
        None => bytes.len(),
    }
}

/// A character, or the quote of a lifetime.
fn quote_len(text: &str) -> usize {
    let mut characters = text.char_indices().skip(1);
    match characters.next() {
        Some((_, '\\')) => {
            // The character after the backslash may be a quote.
            characters.next();
            characters.find(|(_, character)| *character == '\'').map_or(text.len(), |(at, _)| at + 1)
        }
        _ => characters.next().filter(|(_, character)| *character == '\'').map_or(1, |(at, _)| at + 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn modules(text: &str, depth: usize) -> Vec<(usize, String)> {
        find(text, depth).modules
    }

    fn names(text: &str, depth: usize) -> Vec<String> {
        modules(text, depth).into_iter().map(|(_, name)| name).collect()
    }

    #[test]
    fn paths_from_the_root_are_found_with_their_lines() {
        let text = "use crate::a::X;\nuse crate::{\n    b,\n    c::{D, E},\n};\nfn f() { crate::d::g(); }\npub(crate) use x::crate_;";
        let expected = [(1, "a"), (3, "b"), (4, "c"), (6, "d")].map(|(line, name)| (line, name.to_owned()));
        assert_eq!(modules(text, 1), expected);
        assert_eq!(names("use crate::*;", 1), ["*"]);
    }

    #[test]
    fn super_counts_where_it_leads_to_the_root() {
        assert_eq!(names("use super::x::Y; use super::super::z;", 1), ["x"]);
        assert_eq!(names("use super::x::Y; use super::super::z; pub(super) fn f() {}", 2), ["z"]);
        assert_eq!(names("mod inner { use super::x; use super::super::y; } use super::z;", 1), ["y", "z"]);
    }

    #[test]
    fn comments_strings_and_characters_hold_no_paths() {
        let text = r##"
            // crate::a
            /* crate::b /* crate::c */ crate::d */
            const S: &str = "crate::e \" crate::f";
            const R: &str = r#"crate::g " crate::h"#;
            const B: &[u8] = br"crate::i";
            const Q: [char; 3] = ['"', '\'', 'ö'];
            fn f<'a>(text: &'a str) -> &'a str { crate::z::f(text) }
        "##;
        assert_eq!(modules(text, 1), [(8, "z".to_owned())]);
    }

    #[test]
    fn test_code_is_left_out() {
        let text = "
            #[cfg(test)]
            use crate::{a, b};
            #[cfg(test)]
            pub(crate) mod fixture;
            #[cfg(test)]
            fn f(x: [u8; 2]) { crate::c::f(); }
            fn g() {
                #[cfg(test)]
                crate::d::COUNT.set(1);
                crate::e::h();
            }
            #[cfg(test)]
            mod tests { use crate::f; mod inner { use crate::g; } }
            use crate::h;
        ";
        let named = find(text, 1);
        assert_eq!(named.modules, [(11, "e".to_owned()), (15, "h".to_owned())]);
        assert_eq!(named.test_modules, ["fixture"]);
    }
}
