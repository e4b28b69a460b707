//! The head of a request as every version of HTTP can give it: borrowed, and read without being copied.

use crate::{FieldName, KnownField, KnownSet};

/// One field line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FieldLine<'a> {
    /// What the name means to the proxy.
    pub known: KnownField,
    /// The name as sent.
    pub name: &'a [u8],
    /// The value without white space around it.
    pub value: &'a [u8],
}

impl<'a> FieldLine<'a> {
    /// A line whose name is classified here.
    pub fn new(name: &'a [u8], value: &'a [u8]) -> Self {
        Self { known: KnownField::classify(name), name, value }
    }

    /// Whether it has this name, in any case.
    pub fn is(&self, name: &[u8]) -> bool {
        self.name.eq_ignore_ascii_case(name)
    }
}

/// The fields of a head in the order in which they came, without those that the version's own rules remove.
pub trait Fields<'a>: Copy {
    /// The lines.
    fn lines(self) -> impl DoubleEndedIterator<Item = FieldLine<'a>>;

    /// Which known fields there are. What is not here is not looked for.
    fn present(self) -> KnownSet;

    /// The value of the first line of a field.
    #[inline]
    fn get(self, field: KnownField) -> Option<&'a [u8]> {
        if !self.present().contains(field) {
            return None;
        }
        self.lines().find(|line| line.known == field).map(|line| line.value)
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
    /// The host alone, if it is known to be in canonical form; else it is found out.
    pub canonical: Option<&'a [u8]>,
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Target<'a> {
    /// A path, empty for the root as `http://host` has it, and what follows the first `?`.
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
    /// The target, read.
    pub target: Target<'a>,
    /// The host; `None` when the request names none.
    pub authority: Option<HostAndPort<'a>>,
    /// Length of the body, where the head tells it.
    pub length: Option<u64>,
    /// The fields.
    pub fields: F,
}

impl<'a, F> RequestView<'a, F> {
    /// What follows the first `?`, if there is one.
    pub fn query(&self) -> Option<&'a [u8]> {
        match self.target {
            Target::Path(_, query) => query,
            Target::Server => None,
        }
    }
}

/// Where the fields of an edited head go, in order. Nothing that is written may change the structure of the message: a value that
/// can't stand in a field is left out.
pub trait FieldSink<F> {
    /// Lines that were written before and are the same for many messages.
    type Prepared;

    /// One field.
    fn field(&mut self, name: FieldName<'_>, value: &[u8]);

    /// One field with a decimal number.
    fn number(&mut self, name: FieldName<'_>, number: u64);

    /// Lines that were written before.
    fn prepared(&mut self, lines: &Self::Prepared);

    /// The received fields but those in `drop` and those for whose line `drop_also` holds, which is asked about the rest.
    fn forward(&mut self, fields: F, drop: KnownSet, drop_also: impl FnMut(KnownField, &[u8]) -> bool);
}

/// Edited fields as a list, for whoever wants to show them.
impl<'a, F: Fields<'a>> FieldSink<F> for Vec<(String, String)> {
    type Prepared = Self;

    fn field(&mut self, name: FieldName<'_>, value: &[u8]) {
        if value.iter().all(|&byte| byte == b'\t' || (byte >= b' ' && byte != 0x7f)) {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            self.push((text(name.as_bytes()), text(value)));
        }
    }

    fn number(&mut self, name: FieldName<'_>, number: u64) {
        FieldSink::<F>::field(self, name, number.to_string().as_bytes());
    }

    fn prepared(&mut self, lines: &Self) {
        self.extend_from_slice(lines);
    }

    fn forward(&mut self, fields: F, drop: KnownSet, mut drop_also: impl FnMut(KnownField, &[u8]) -> bool) {
        for line in fields.lines() {
            if !drop.contains(line.known)
                && !drop_also(line.known, line.name)
                && let Ok(name) = FieldName::try_from(line.name)
            {
                FieldSink::<F>::field(self, name, line.value);
            }
        }
    }
}
