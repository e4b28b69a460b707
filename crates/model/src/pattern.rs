//! Compiled patterns for texts that clients send.

use std::str::FromStr;

use regex::bytes::{Regex, RegexBuilder};
use serde::{Deserialize, Serialize};

/// Conversions and comparisons of a compiled pattern: it is written as its text, and two are equal if their texts are.
macro_rules! known_by_text {
    ($name:ident, $error:ty) => {
        impl TryFrom<Box<str>> for $name {
            type Error = $error;

            fn try_from(text: Box<str>) -> Result<Self, $error> {
                text.parse()
            }
        }

        impl From<$name> for Box<str> {
            fn from(pattern: $name) -> Self {
                pattern.text
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Debug::fmt(&self.text, f)
            }
        }

        impl PartialEq for $name {
            fn eq(&self, other: &Self) -> bool {
                self.text == other.text
            }
        }

        impl Eq for $name {}
    };
}

/// A pattern that a whole value matches.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "Box<str>", into = "Box<str>")]
pub struct ValueRegex {
    text: Box<str>,
    regex: Regex,
}

/// A pattern that some part of a value matches.
#[derive(Clone, Serialize, Deserialize)]
#[serde(try_from = "Box<str>", into = "Box<str>")]
pub struct SearchRegex {
    text: Box<str>,
    regex: Regex,
}

impl ValueRegex {
    /// Whether the whole value matches.
    pub fn is_match(&self, value: &[u8]) -> bool {
        self.regex.is_match(value)
    }
}

impl SearchRegex {
    /// The pattern as the user wrote it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether some part of the value matches.
    pub fn is_match(&self, value: &[u8]) -> bool {
        self.regex.is_match(value)
    }

    /// Like [`is_match`](Self::is_match); also calls `found` with the number and the text of each group of the match.
    pub fn groups(&self, value: &[u8], mut found: impl FnMut(usize, Option<&[u8]>)) -> bool {
        crate::capture::with_groups(&self.text, &self.regex, value, |groups| {
            for group in 0..groups.len() {
                found(group, groups.get(group).map(|(start, end)| &value[start..end]));
            }
        })
        .is_some()
    }

    /// The number of its groups, the whole match not counted.
    pub fn group_count(&self) -> usize {
        self.regex.captures_len() - 1
    }
}

impl FromStr for ValueRegex {
    type Err = regex::Error;

    fn from_str(text: &str) -> Result<Self, regex::Error> {
        // Compile it alone first: a pattern that closes the group around it would not apply to the whole value.
        build(text)?;
        Ok(Self { text: text.into(), regex: build(&format!("^(?:{text})$"))? })
    }
}

impl FromStr for SearchRegex {
    type Err = regex::Error;

    fn from_str(text: &str) -> Result<Self, regex::Error> {
        Ok(Self { text: text.into(), regex: build(text)? })
    }
}

/// Compiles within the limits that hold for all patterns of users.
fn build(text: &str) -> Result<Regex, regex::Error> {
    const SIZE: usize = crate::PathRegex::SIZE_LIMIT;
    RegexBuilder::new(text).unicode(false).size_limit(SIZE).dfa_size_limit(SIZE).nest_limit(50).build()
}

known_by_text!(ValueRegex, regex::Error);
known_by_text!(SearchRegex, regex::Error);

impl Ord for ValueRegex {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.text.cmp(&other.text)
    }
}

impl PartialOrd for ValueRegex {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
