//! What all heads have in common: limits, the bytes that they refer to, and the progress of parsing.

use fairway_model::{KnownField, KnownSet};

use super::byte_class::{NOT_TOKEN, ODD_TOKEN, UNDERSCORE};
use super::error::HeadError;

/// Limits of a head, and which field names are accepted. Lengths are in bytes and include the line end.
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
    /// Names of request fields. Those of a response may be any token.
    pub names: NameRules,
    /// Names, compared without case, that a `Connection` option can't remove, besides
    /// [`KnownSet::NOT_REMOVABLE`](super::KnownSet::NOT_REMOVABLE).
    pub guarded: Vec<Box<[u8]>>,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self {
            start_line: 8 << 10, // No limit: the settings say another one.
            field_line: 8 << 10, // No limit: the same.
            total: 32 << 10,     // No limit: the same.
            fields: 256,
            names: NameRules::default(),
            guarded: Vec::new(),
        }
    }
}

/// Which names fields may have.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum NameRules {
    /// Letters, digits and hyphens. Fields with other names are dropped silently, as nginx does by default.
    #[default]
    Plain,
    /// Underscores as well (nginx's `underscores_in_headers on`).
    Underscores,
    /// Any token; other names are refused (nginx's `ignore_invalid_headers off`).
    Tokens,
}

impl NameRules {
    /// The meaning of a received name, whose bytes are of the classes `seen`; `None` if its field is dropped.
    #[inline]
    pub(crate) fn admit(self, name: &[u8], seen: u8) -> Result<Option<KnownField>, HeadError> {
        let known = KnownField::classify(name);
        if seen == 0 {
            return Ok(Some(known));
        }
        let keep = match self {
            Self::Plain => false,
            Self::Underscores => seen == UNDERSCORE,
            Self::Tokens if seen & NOT_TOKEN != 0 => return Err(HeadError::InvalidFieldName),
            Self::Tokens => true,
        };
        debug_assert!(seen & !(UNDERSCORE | ODD_TOKEN | NOT_TOKEN) == 0);
        if !keep || KnownSet::STRUCTURAL.contains(known) {
            return Ok(None);
        }
        Ok(Some(if KnownSet::FOLDED.contains(known) { known } else { KnownField::Other }))
    }
}

/// A parsed value with the bytes that its ranges refer to.
#[derive(Debug)]
pub struct Spanned<'a, T> {
    /// The parsed value.
    pub parsed: &'a T,
    /// The bytes that it was parsed from.
    pub bytes: &'a [u8],
}

impl<T> Clone for Spanned<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Spanned<'_, T> {}

/// Progress of parsing a head.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Parsed {
    /// More bytes are needed.
    Partial {
        /// Whether anything except empty lines has arrived: a client that stops here gets a 408, an idle one gets no answer.
        started: bool,
    },
    /// The head is complete.
    Complete {
        /// Its length; the body starts here.
        len: usize,
    },
}

/// Where a parser that waits for more bytes resumes. Only the parser uses it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// Start of the first incomplete line.
    pub(crate) line: usize,
    /// Where the search for its end resumes.
    pub(crate) searched: usize,
    /// The part of the head that is being parsed.
    pub(crate) part: HeadPart,
}

/// A part of a head.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum HeadPart {
    /// The start line, or empty lines before it.
    #[default]
    StartLine,
    /// The fields.
    Fields,
    /// None: the head was parsed completely, or refused.
    Over,
}

/// What ends a line.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum LineEnd {
    /// CRLF.
    #[default]
    Crlf,
    /// LF, with or without CR (RFC 9112 2.2).
    Lf,
}
