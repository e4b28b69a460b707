//! Splitting a head into lines as it arrives. Each byte is searched once, however small the pieces are.

use super::error::HeadError;
use super::field::NameRules;
use crate::limit::LARGEST_HEAD;

/// Bounds of a head, and which field names are let through. Lengths are in bytes and include the line end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HeadLimits {
    /// The start line. Default 8 KiB.
    pub start_line: usize,
    /// One field line. Default 8 KiB.
    pub field_line: usize,
    /// The head as a whole. Default 32 KiB, nginx's four buffers of 8 KiB.
    pub total: usize,
    /// Number of fields, dropped ones included. Default 256.
    pub fields: usize,
    /// nginx's `ignore_invalid_headers`, default on: request fields whose names have bytes other than letters, digits and
    /// hyphens are dropped silently. If off, every token is let through and other names are refused.
    pub ignore_invalid_headers: bool,
    /// nginx's `underscores_in_headers`, default off: underscores count as valid bytes of a name.
    pub underscores_in_headers: bool,
    /// Names besides those of [`KnownSet::NOT_REMOVABLE`](super::KnownSet::NOT_REMOVABLE) that a `Connection` option can't remove,
    /// in whichever spelling.
    pub guarded: Vec<Box<[u8]>>,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self {
            start_line: 8 << 10, // No limit: the settings say another one.
            field_line: 8 << 10, // No limit: the same.
            total: 32 << 10,     // No limit: the same.
            fields: 256,
            ignore_invalid_headers: true,
            underscores_in_headers: false,
            guarded: Vec::new(),
        }
    }
}

impl HeadLimits {
    pub(super) const fn request_names(&self) -> NameRules {
        if self.ignore_invalid_headers {
            NameRules::Drop { underscores: self.underscores_in_headers }
        } else {
            NameRules::Tokens
        }
    }
}

/// How far a head has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Parsed {
    /// More bytes are needed.
    Partial {
        /// Whether anything but empty lines has arrived: a client that stops here gets an answer (408), an idle one does not.
        started: bool,
    },
    /// The head is complete.
    Complete {
        /// Its length; the body starts here.
        len: usize,
    },
}

/// What ends a line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum LineEnd {
    /// CRLF.
    Crlf,
    /// LF, with or without CR (RFC 9112 2.2).
    Lf,
}

/// A line without what ended it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    pub(super) start: usize,
    pub(super) end: usize,
    pub(super) ended_by: LineEnd,
}

impl Line {
    pub(super) const fn is_empty(&self) -> bool {
        self.start == self.end
    }
}

/// The resumable search for line ends.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lines {
    /// Start of the line that is not complete yet.
    line: usize,
    /// The search for its end has come this far.
    searched: usize,
}

impl Lines {
    /// The next complete line, or `None` if its end has not arrived. `buf` is what it was in the call before, with more bytes at
    /// the end. A line longer than `limit` is the error `too_long`, one that ends in less than `least` is refused.
    pub(super) fn next(
        &mut self,
        buf: &[u8],
        limit: usize,
        too_long: HeadError,
        limits: &HeadLimits,
        least: LineEnd,
    ) -> Result<Option<Line>, HeadError> {
        let total = limits.total.min(LARGEST_HEAD);
        // The bound that is met first decides which error it is, so that it does not depend on how the bytes were split.
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
                LineEnd::Lf => Ok(Some(Line { start, end, ended_by: LineEnd::Lf })),
            };
        }
        Ok(Some(Line { start, end: end - 1, ended_by: LineEnd::Crlf }))
    }

    /// Where the next line starts.
    pub(super) const fn position(self) -> usize {
        self.line
    }
}
