//! Values about the headers of requests and responses: which ones block requests, and how they are rewritten.

use std::sync::Arc;

use fairway_model::{BlockedValue, Replacement};

use super::list::sift;
use super::text::all;
use super::{Value, is_multi_line};

/// Values of a header that block a request. Invalid entries are left out without affecting the others.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct BlockedValues {
    /// The values.
    pub values: Arc<[BlockedValue]>,
    left_out: Vec<String>,
}

impl Value for BlockedValues {
    const SYNTAX: &'static str = "values, or regexes after `~` or `~*` that run in linear time, separated by commas";

    fn parse(text: &str) -> Option<Self> {
        let (values, left_out) = sift(text, |entry| match (entry.strip_prefix("~*"), entry.strip_prefix('~')) {
            (Some(pattern), _) => format!("(?i){pattern}").parse().ok().map(BlockedValue::Search),
            (None, Some(pattern)) => pattern.parse().ok().map(BlockedValue::Search),
            (None, None) => Some(BlockedValue::Equal(entry.into())),
        });
        Some(Self { values: values.into(), left_out })
    }

    fn left_out(&self) -> &[String] {
        &self.left_out
    }
}

/// A rewrite of an attribute of cookies.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum CookieRewrite {
    /// None.
    Off,
    /// The first text becomes the second.
    Replace(String, String),
}

impl CookieRewrite {
    /// The rewrite, if there is one.
    pub fn replacement(&self) -> Option<Replacement> {
        match self {
            Self::Off => None,
            Self::Replace(from, to) => Some(Replacement { from: from.as_str().into(), to: to.as_str().into() }),
        }
    }
}

impl Value for CookieRewrite {
    const SYNTAX: &'static str =
        "`off`, or two texts of letters, digits and `- . _ ~ : / , ? & =`; no variables and no regex";

    fn parse(text: &str) -> Option<Self> {
        let mut words = text.trim().split_ascii_whitespace();
        match (words.next(), words.next(), words.next()) {
            (Some("off"), None, None) => Some(Self::Off),
            (Some(from), Some(to), None) if !is_multi_line(text) && !from.starts_with('~') => {
                Some(Self::Replace(all(from, is_plain)?, all(to, is_plain)?))
            }
            _ => None,
        }
    }
}

/// One side of a rewrite of redirects.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum RedirectPart {
    /// Nothing is rewritten: `off`, and also `default`, which has no effect in ingress-nginx.
    Off,
    /// This text.
    Text(String),
}

impl RedirectPart {
    /// The text, if there is one.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Off => None,
            Self::Text(text) => Some(text),
        }
    }
}

impl Value for RedirectPart {
    const SYNTAX: &'static str = "`off`, `default`, or the start of a URL, of letters, digits and `- . _ ~ : / , ? & =`; no variables and no regex";

    fn parse(text: &str) -> Option<Self> {
        match text.trim() {
            "off" | "default" => Some(Self::Off),
            text if text.starts_with('~') => None,
            text => all(text, is_plain).map(Self::Text),
        }
    }
}

/// The Connection header for endpoints.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum ConnectionHeader {
    /// The connection is reused.
    KeepAlive,
    /// It is not.
    Close,
}

impl Value for ConnectionHeader {
    const SYNTAX: &'static str = "`close` or `keep-alive`";

    fn parse(text: &str) -> Option<Self> {
        match text.trim() {
            "close" => Some(Self::Close),
            "keep-alive" => Some(Self::KeepAlive),
            _ => None,
        }
    }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~:/,?&=".contains(&byte)
}
