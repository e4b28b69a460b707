//! The head of a request, independent of the HTTP version: borrowed, and read without copying.

use crate::{FieldName, KnownField, KnownSet};

/// One field line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FieldLine<'a> {
    /// The field, if the proxy knows its name.
    pub known: KnownField,
    /// The name as received.
    pub name: &'a [u8],
    /// The value without surrounding white space.
    pub value: &'a [u8],
}

impl<'a> FieldLine<'a> {
    /// Creates a line and classifies its name.
    pub fn new(name: &'a [u8], value: &'a [u8]) -> Self {
        Self { known: KnownField::classify(name), name, value }
    }

    /// Whether it has this name, in any case.
    pub fn is(&self, name: &[u8]) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
}

/// The fields of a head in the order received, without those that the rules of the HTTP version remove.
pub trait Fields<'a>: Copy {
    /// The lines.
    fn lines(self) -> impl DoubleEndedIterator<Item = FieldLine<'a>>;

    /// The known fields that are present. Only these are looked for.
    fn present(self) -> KnownSet;

    /// The value of the first line of a field.
    #[inline]
    fn get(self, field: KnownField) -> Option<&'a [u8]> {
        if !self.present().contains(field) {
            return None;
        }
        self.lines().find(|line| line.known == field).map(|line| line.value)
    }

    /// The values of all lines of a field.
    #[inline]
    fn all(self, field: KnownField) -> impl Iterator<Item = &'a [u8]> {
        let lines = self.present().contains(field).then(|| self.lines());
        lines.into_iter().flatten().filter(move |line| line.known == field).map(|line| line.value)
    }
}

impl<'a> Fields<'a> for &'a [FieldLine<'a>] {
    fn lines(self) -> impl DoubleEndedIterator<Item = FieldLine<'a>> {
        self.iter().copied()
    }

    fn present(self) -> KnownSet {
        self.iter().fold(KnownSet::EMPTY, |set, line| set.with(line.known))
    }
}

/// The host that a request is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct HostAndPort<'a> {
    /// Host and port as sent.
    pub text: &'a [u8],
    /// The host alone, if known to be in canonical form; otherwise it is computed.
    pub canonical: Option<&'a [u8]>,
}

/// The target of a request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Target<'a> {
    /// A path, empty for the root as in `http://host`, and the text after the first `?`.
    Path(&'a [u8], Option<&'a [u8]>),
    /// `*`: the server as a whole.
    Server,
}

/// A request head.
#[derive(Clone, Copy, Debug)]
pub struct RequestView<'a, F> {
    /// The method as sent.
    pub method: &'a [u8],
    /// The target as sent, from the path on.
    pub raw_target: &'a [u8],
    /// The parsed target.
    pub target: Target<'a>,
    /// The host; `None` if the request names none.
    pub authority: Option<HostAndPort<'a>>,
    /// Length of the body, if the head declares it.
    pub length: Option<u64>,
    /// The fields.
    pub fields: F,
}

impl<'a, F> RequestView<'a, F> {
    /// The text after the first `?`, if any.
    pub fn query(&self) -> Option<&'a [u8]> {
        match self.target {
            Target::Path(_, query) => query,
            Target::Server => None,
        }
    }
}

/// Receives the fields of an edited head, in order. No value may change the structure of the message: one that is not
/// allowed in a field is omitted.
pub trait FieldSink<F> {
    /// Lines that were written in advance and are the same for many messages.
    type Prepared;

    /// Writes one field.
    fn field(&mut self, name: FieldName<'_>, value: &[u8]);

    /// Writes one field with a decimal number.
    fn number(&mut self, name: FieldName<'_>, number: u64);

    /// Writes lines prepared in advance.
    fn prepared(&mut self, lines: &Self::Prepared);

    /// Forwards the received fields, except those in `drop` and those of the rest for which `drop_also` returns true.
    fn forward(&mut self, fields: F, drop: KnownSet, drop_also: impl FnMut(KnownField, &[u8]) -> bool);
}
