//! Splits a head into lines as it arrives. Each byte is searched once, however small the pieces.

use fairway_model::KnownField;

use crate::http::{Fields, HeadError, HeadLimits, LineEnd, NameRules, Progress, parse_line};
use crate::limit::LARGEST_HEAD;

/// A line without its line end.
#[derive(Clone, Copy, Debug)]
pub(super) struct HeadLine {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) ended_by: LineEnd,
}

impl HeadLine {
    pub(super) const fn is_empty(&self) -> bool {
        self.start == self.end
    }
}

impl Progress {
    /// The next complete line, or `None` if its end has not arrived. `buf` holds the bytes of the previous call with more at the
    /// end. A line longer than `limit` yields the error `too_long`; one whose line end is less than `least` is refused.
    pub(super) fn next_line(
        &mut self,
        buf: &[u8],
        limit: usize,
        too_long: HeadError,
        limits: &HeadLimits,
        least: LineEnd,
    ) -> Result<Option<HeadLine>, HeadError> {
        let total = limits.total.min(LARGEST_HEAD);
        // The bound that is reached first decides the error, so that it doesn't depend on how the bytes were split.
        let bound = total.min(self.line.saturating_add(limit));
        let searchable = buf.len().min(bound);
        let Some(offset) = memchr::memchr(b'\n', &buf[self.searched.min(searchable)..searchable]) else {
            self.searched = searchable;
            if buf.len() < bound {
                return Ok(None);
            }
            return Err(if bound < total { too_long } else { HeadError::HeadTooLong });
        };
        let start = self.line;
        let end = self.searched + offset;
        self.line = end + 1;
        self.searched = self.line;
        if end == start || buf[end - 1] != b'\r' {
            return match least {
                LineEnd::Crlf => Err(HeadError::BareLineFeed),
                LineEnd::Lf => Ok(Some(HeadLine { start, end, ended_by: LineEnd::Lf })),
            };
        }
        Ok(Some(HeadLine { start, end: end - 1, ended_by: LineEnd::Crlf }))
    }

    /// Where the next line starts.
    pub(super) const fn position(self) -> usize {
        self.line
    }
}

impl Fields {
    /// Adds a line and returns its field; `None` if the rules drop it. Dropped lines count towards the limit too.
    pub(super) fn push_line(
        &mut self,
        buf: &[u8],
        line: &HeadLine,
        rules: NameRules,
        limits: &HeadLimits,
    ) -> Result<Option<KnownField>, HeadError> {
        if !self.count(limits.fields) {
            return Err(HeadError::TooManyFields);
        }
        let Some(mut field) = parse_line(&buf[..line.end], line.start, rules)? else {
            return Ok(None);
        };
        field.verbatim &= line.ended_by == LineEnd::Crlf;
        self.push(field);
        Ok(Some(field.known))
    }
}
