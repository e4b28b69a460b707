//! Directives with their blocks. Depth and number are bounded, and nothing recurses while reading, so no text costs more than its
//! length.

use super::Fault;
use super::instead::without_lua;
use super::lexer::{Lexer, Token};
use crate::limit::{SNIPPET, SNIPPET_DIRECTIVES};

/// Blocks within blocks. `location` in `location` with `if` and `limit_except` has four.
// No limit of its own: the contexts of the directives allow no more.
const DEPTH: usize = 6;

/// A directive.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Directive {
    pub(super) line: u32,
    pub(super) name: String,
    pub(super) arguments: Vec<String>,
    /// Its block, if it has one.
    pub(super) block: Option<Vec<Self>>,
}

/// Reads a text.
///
/// # Errors
/// The first fault.
pub(super) fn parse(text: &str) -> Result<Vec<Directive>, Fault> {
    if text.len() > SNIPPET {
        return Err(Fault::new(1, "", &format!("the text is longer than {} KiB", SNIPPET >> 10)));
    }
    let mut lexer = Lexer::new(text);
    let mut open: Vec<(Directive, Vec<Directive>)> = Vec::new();
    let mut done: Vec<Directive> = Vec::new();
    let mut words: Vec<(u32, String)> = Vec::new();
    let mut count = 0;
    let mut last = 1;
    while let Some((line, token)) = lexer.next()? {
        last = line;
        match token {
            Token::Word(word) => words.push((line, word)),
            Token::End | Token::Open => {
                let mut given = std::mem::take(&mut words).into_iter();
                let Some((line, name)) = given.next() else {
                    let what = if token == Token::End { "`;`" } else { "`{`" };
                    return Err(Fault::new(line, "", &format!("expected a directive before {what}")));
                };
                count += 1;
                if count > SNIPPET_DIRECTIVES {
                    return Err(Fault::new(line, "", &format!("expected at most {SNIPPET_DIRECTIVES} directives")));
                }
                let directive = Directive { line, name, arguments: given.map(|(_, word)| word).collect(), block: None };
                if let Some(message) = unreadable(&directive, &token) {
                    return Err(Fault::new(line, &directive.name, &message));
                }
                match token {
                    Token::Open if open.len() == DEPTH => {
                        return Err(Fault::new(line, &directive.name, "blocks are nested too deeply"));
                    }
                    Token::Open => open.push((directive, std::mem::take(&mut done))),
                    _ => done.push(directive),
                }
            }
            Token::Close => {
                if let Some((line, word)) = words.first() {
                    return Err(Fault::new(*line, word, "expected `;` at the end of the directive"));
                }
                let Some((directive, before)) = open.pop() else {
                    return Err(Fault::new(line, "", "a `}` closes no block of this text"));
                };
                let block = std::mem::replace(&mut done, before);
                done.push(Directive { block: Some(block), ..directive });
            }
        }
    }
    match (words.first(), open.last()) {
        (Some((line, word)), _) => Err(Fault::new(*line, word, "expected `;` at the end of the directive")),
        (None, Some((directive, _))) => Err(Fault::new(last, &directive.name, "expected `}` at the end of the block")),
        (None, None) => Ok(done),
    }
}

/// Why a directive can't be read, whatever it means.
fn unreadable(directive: &Directive, ended_by: &Token) -> Option<String> {
    let Directive { name, arguments, .. } = directive;
    // A block of Lua has another syntax.
    if *ended_by == Token::Open
        && let Some(message) = without_lua(name)
    {
        return Some(message);
    }
    let mut words = arguments.iter().chain([name]).filter(|word| word.chars().any(char::is_control));
    // Only these two have texts that become parts of bodies, and of nothing else.
    let may_have_lines = matches!(&**name, "return" | "sub_filter");
    (!may_have_lines && words.next().is_some()).then(|| LINES_IN_BODIES_ONLY.to_owned())
}

/// The fault of a word with a tab or a line break that would become part of a field, a path or a condition.
pub(super) const LINES_IN_BODIES_ONLY: &str =
    "expected no tab or line break, which only the texts of return and sub_filter may have";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directives_know_their_lines_and_blocks() {
        let read = parse("a b;\nif ($x) {\n  c;\n}\nd;").unwrap();
        let names: Vec<_> = read.iter().map(|one| (one.line, &*one.name, one.arguments.len())).collect();
        assert_eq!(names, [(1, "a", 1), (2, "if", 1), (5, "d", 0)]);
        assert_eq!(read[1].block.as_ref().unwrap()[0].line, 3);
    }

    #[test]
    fn broken_structure_is_a_fault_with_its_line() {
        for (text, line) in [
            ("a", 1),
            ("\na b\n", 2),
            ("a {\n b;", 2),
            ("a;\n}", 2),
            (";", 1),
            ("{", 1),
            ("a { b }", 1),
            ("a;\n\n{}", 3),
        ] {
            assert_eq!(parse(text).unwrap_err().line, line, "{text}");
        }
    }

    #[test]
    fn texts_cost_no_more_than_their_length() {
        for text in [
            "a{".repeat(10_000),
            "a {".repeat(10_000) + &"}".repeat(10_000),
            "\"".repeat(10_001),
            "'".repeat(10_001),
            "\\".repeat(10_000),
            "${".repeat(10_000),
            "a;".repeat(100_000),
            "x".repeat(1 << 20),
            "a \0;".to_owned(),
            "#".repeat(1 << 20),
        ] {
            let fault = parse(&text).unwrap_err();
            assert!(fault.to_string().len() < 600, "{fault}");
        }
    }
}
