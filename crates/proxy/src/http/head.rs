//! What all heads have in common: their limits, the bytes that they refer to, and how far a parser has come with them.

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

/// Something parsed, and the bytes that its ranges refer to.
#[derive(Debug)]
pub struct Spanned<'a, T> {
    /// What was parsed.
    pub parsed: &'a T,
    /// What it was parsed from.
    pub bytes: &'a [u8],
}

impl<T> Clone for Spanned<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Spanned<'_, T> {}

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

/// Where a parser that waits for more bytes goes on. Only the parser looks at it.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// Start of the line that is not complete yet.
    pub(crate) line: usize,
    /// The search for its end has come this far.
    pub(crate) searched: usize,
    /// The part of the head that it is in.
    pub(crate) part: Part,
}

/// A part of a head.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Part {
    /// The start line, or empty lines before it.
    #[default]
    StartLine,
    /// The fields.
    Fields,
    /// None: it was parsed to its end, or refused.
    Over,
}
