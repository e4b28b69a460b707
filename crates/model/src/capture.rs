//! Text with placeholders for parts of the path: `$1` to `$9` of `rewrite-target`. Compiled once, expanded within a
//! limit.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;

use regex::bytes::{CaptureLocations, Regex};
use serde::{Deserialize, Serialize};

use crate::map::HASHER;

/// A template would have produced more than its limit.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("a template makes more of this request than a request's head may hold")]
pub struct TooLong;

/// Appends to a text that must not grow beyond a limit.
///
/// # Errors
///
/// If it would; the text is then unchanged.
pub fn append_within(out: &mut Vec<u8>, bytes: &[u8], end: usize) -> Result<(), TooLong> {
    if out.len().saturating_add(bytes.len()) > end {
        return Err(TooLong);
    }
    out.extend_from_slice(bytes);
    Ok(())
}

/// Text with `$1` to `$9` (and `${1}`), as used by `rewrite-target`.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(from = "Box<str>", into = "Box<str>")]
pub struct CaptureTemplate {
    text: Box<str>,
    pieces: Box<[CapturePiece]>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum CapturePiece {
    /// A range of the text.
    Literal(Range<u32>),
    /// The text matched by a group.
    Group(u8),
}

impl CaptureTemplate {
    /// The text as the user wrote it.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The highest number of a group in it; 0 if there is none.
    pub fn groups(&self) -> usize {
        let numbers = self.pieces.iter().map(|piece| match piece {
            CapturePiece::Literal(_) => 0,
            CapturePiece::Group(number) => usize::from(*number),
        });
        numbers.max().unwrap_or_default()
    }

    /// Appends the text with each group replaced, at most `limit` bytes. A group that did not participate is empty.
    ///
    /// # Errors
    ///
    /// If the result is longer than the limit. The content of `out` is then unspecified.
    pub fn expand<'a>(
        &self,
        group: impl Fn(usize) -> &'a [u8],
        limit: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), TooLong> {
        let end = out.len().saturating_add(limit);
        for piece in &self.pieces {
            let bytes = match piece {
                CapturePiece::Literal(range) => &self.text.as_bytes()[range.start as usize..range.end as usize],
                CapturePiece::Group(number) => group(usize::from(*number)),
            };
            append_within(out, bytes, end)?;
        }
        Ok(())
    }
}

fn compile(text: &str) -> Box<[CapturePiece]> {
    let bytes = text.as_bytes();
    let mut pieces = Vec::new();
    let (mut literal, mut at) = (0, 0);
    while at < bytes.len() {
        let (digit, width) = match bytes[at..] {
            [b'$', digit @ b'0'..=b'9', ..] => (digit, 2),
            [b'$', b'{', digit @ b'0'..=b'9', b'}', ..] => (digit, 4),
            _ => {
                at += 1;
                continue;
            }
        };
        if literal < at {
            pieces.push(CapturePiece::Literal(literal as u32..at as u32));
        }
        pieces.push(CapturePiece::Group(digit - b'0'));
        at += width;
        literal = at;
    }
    if literal < at {
        pieces.push(CapturePiece::Literal(literal as u32..at as u32));
    }
    pieces.into()
}

impl From<Box<str>> for CaptureTemplate {
    fn from(text: Box<str>) -> Self {
        Self { pieces: compile(&text), text }
    }
}

impl From<&str> for CaptureTemplate {
    fn from(text: &str) -> Self {
        Box::<str>::from(text).into()
    }
}

impl From<CaptureTemplate> for Box<str> {
    fn from(template: CaptureTemplate) -> Self {
        template.text
    }
}

/// Number of patterns for which a thread keeps capture memory; beyond it, the thread starts over.
const KEPT: usize = 4096;

thread_local! {
    /// Capture memory by pattern: a match that reports its groups needs some, and creating it per request would be an
    /// allocation per request.
    static LOCATIONS: RefCell<HashMap<Box<str>, CaptureLocations, foldhash::fast::RandomState>> =
        RefCell::new(HashMap::with_hasher(HASHER.clone()));
}

/// Calls `found` with the positions of a pattern's groups in `path`; `None` if it doesn't match.
pub(crate) fn with_groups<T>(
    text: &str,
    regex: &Regex,
    path: &[u8],
    found: impl FnOnce(&CaptureLocations) -> T,
) -> Option<T> {
    LOCATIONS.with_borrow_mut(|kept| {
        if !kept.contains_key(text) {
            if kept.len() >= KEPT {
                kept.clear();
            }
            kept.insert(text.into(), regex.capture_locations());
        }
        let locations = kept.get_mut(text)?;
        regex.captures_read(locations, path)?;
        Some(found(locations))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(template: &str, limit: usize) -> Result<String, TooLong> {
        let mut out = b"> ".to_vec();
        CaptureTemplate::from(template).expand(|group| if group == 1 { b"one" } else { b"" }, limit, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn groups_are_filled_in() {
        for (template, text) in [("/a$1/$2b", "> /aone/b"), ("${1}${x}$", "> one${x}$"), ("", "> "), ("$1", "> one")] {
            assert_eq!(expanded(template, 100).as_deref(), Ok(text));
        }
    }

    #[test]
    fn a_template_stops_at_its_limit() {
        assert_eq!(expanded("/$1$1", 7).as_deref(), Ok("> /oneone"));
        assert_eq!(expanded("/$1$1", 6), Err(TooLong));
        let mut out = Vec::new();
        let (template, group) = (CaptureTemplate::from("/$1".repeat(100_000).as_str()), [b'x'; 1000]);
        assert_eq!(template.expand(|_| &group, 32 << 10, &mut out), Err(TooLong));
        assert!(out.len() <= 32 << 10 && out.capacity() <= 64 << 10);
    }
}
