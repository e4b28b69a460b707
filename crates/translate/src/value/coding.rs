//! Which responses are compressed, and how hard.

use fairway_model::SearchRegex;

use super::{Value, digits};

/// Media types, in lower case; `*` for all.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct MediaTypes(pub Vec<Box<str>>);

/// The most types that a list may have: each response is compared with all of them.
const TYPES: usize = 256;

impl Value for MediaTypes {
    const SYNTAX: &'static str =
        "up to 256 media types with blanks between them, such as `text/css application/json`, or `*`";

    fn parse(text: &str) -> Option<Self> {
        let is_token = |part: &str| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$&^_.+-".contains(&byte))
        };
        let is_type =
            |word: &&str| *word == "*" || word.split_once('/').is_some_and(|(kind, of)| is_token(kind) && is_token(of));
        let words: Vec<&str> = text.split_ascii_whitespace().collect();
        let valid = words.len() <= TYPES && words.iter().all(is_type);
        valid.then(|| Self(words.into_iter().map(|word| word.to_ascii_lowercase().into()).collect()))
    }
}

/// Effort of gzip.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct GzipLevel(pub u8);

impl Value for GzipLevel {
    const SYNTAX: &'static str = "a whole number from 1 to 9";

    fn parse(text: &str) -> Option<Self> {
        digits(text).filter(|level| (1..=9).contains(level)).map(|level| Self(level as u8))
    }
}

/// Effort of Brotli.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BrotliLevel(pub u8);

impl Value for BrotliLevel {
    const SYNTAX: &'static str = "a whole number from 0 to 11";

    fn parse(text: &str) -> Option<Self> {
        digits(text).filter(|level| *level <= 11).map(|level| Self(level as u8))
    }
}

/// Clients whose User-Agent a regex matches anywhere, ignoring case.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UserAgents(pub SearchRegex);

impl Value for UserAgents {
    const SYNTAX: &'static str = "a regex that runs in linear time, or `msie6`";

    fn parse(text: &str) -> Option<Self> {
        let text = match text.trim() {
            // nginx's own name for these browsers.
            "msie6" => "MSIE [4-6]\\.",
            other => other,
        };
        format!("(?i){text}").parse().ok().map(Self)
    }
}
