//! The fields of a head, as ranges of the buffer that received it.

use std::ops::Range;

use fairway_model::{KnownField, KnownSet};

/// A range of the buffer that a head was parsed from.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// The bytes of the range. `buf` is the buffer that the head was parsed from; panics if it is shorter.
    pub fn of(self, buf: &[u8]) -> &[u8] {
        &buf[self.range()]
    }

    /// The range itself.
    pub fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    /// Length in bytes.
    pub const fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    /// Whether the range is empty.
    pub const fn is_empty(self) -> bool {
        self.start == self.end
    }

    /// Offsets are 32 bits wide: [`HeadLimits`](super::HeadLimits) keeps heads far below that.
    pub(crate) const fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }
}

/// One field line. Sixteen bytes, so that four share a cache line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Field {
    pub(crate) start: u32,
    pub(crate) value_start: u32,
    pub(crate) value_len: u32,
    pub(crate) name_len: u16,
    pub(crate) known: KnownField,
    /// Whether the whole line can be forwarded unchanged.
    pub(crate) verbatim: bool,
}

impl Field {
    /// What the name means to the proxy.
    pub const fn known(&self) -> KnownField {
        self.known
    }

    /// The name as received.
    pub fn name<'b>(&self, buf: &'b [u8]) -> &'b [u8] {
        self.name_span().of(buf)
    }

    /// The value without surrounding white space.
    pub fn value<'b>(&self, buf: &'b [u8]) -> &'b [u8] {
        self.value_span().of(buf)
    }

    /// Position of the name.
    pub const fn name_span(&self) -> Span {
        Span { start: self.start, end: self.start + self.name_len as u32 }
    }

    /// Position of the value.
    pub const fn value_span(&self) -> Span {
        Span { start: self.value_start, end: self.value_start + self.value_len }
    }

    /// The whole line with its CRLF, if it can be forwarded unchanged: at most one space after the colon, none at the end.
    pub(crate) fn verbatim_line(&self) -> Option<Range<usize>> {
        self.verbatim.then(|| self.start as usize..(self.value_start + self.value_len) as usize + 2)
    }

    /// Whether the field has this name, compared without case.
    pub fn is(&self, name: &[u8], buf: &[u8]) -> bool {
        usize::from(self.name_len) == name.len() && self.name(buf).eq_ignore_ascii_case(name)
    }
}

/// The fields of one head in the order received, without those that the rules drop.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    list: Vec<Field>,
    received: usize,
    present: KnownSet,
    repeated: KnownSet,
}

impl Fields {
    /// The fields in the order received.
    pub fn iter(&self) -> std::slice::Iter<'_, Field> {
        self.list.iter()
    }

    /// Number of fields.
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// Whether there are no fields.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The known fields that are present.
    pub const fn present(&self) -> KnownSet {
        self.present
    }

    /// The known fields that occur more than once.
    pub const fn repeated(&self) -> KnownSet {
        self.repeated
    }

    /// The value of the first `field`. Costs one bit test if it is absent.
    pub fn get<'b>(&self, field: KnownField, buf: &'b [u8]) -> Option<&'b [u8]> {
        if !self.present.contains(field) {
            return None;
        }
        self.list.iter().find(|line| line.known == field).map(|line| line.value(buf))
    }

    /// The values of all lines of `field`.
    pub fn all<'b>(&self, field: KnownField, buf: &'b [u8]) -> impl Iterator<Item = &'b [u8]> + use<'_, 'b> {
        let list = if self.present.contains(field) { self.list.as_slice() } else { &[] };
        list.iter().filter(move |line| line.known == field).map(|line| line.value(buf))
    }

    /// The values of all lines with this name, compared without case; for names that are not known fields.
    pub fn named<'b>(&self, name: &'b [u8], buf: &'b [u8]) -> impl Iterator<Item = &'b [u8]> + use<'_, 'b> {
        self.list.iter().filter(move |line| line.is(name, buf)).map(|line| line.value(buf))
    }

    pub(crate) fn clear(&mut self) {
        self.list.clear();
        self.received = 0;
        self.present = KnownSet::EMPTY;
        self.repeated = KnownSet::EMPTY;
    }

    /// Adds a received field.
    #[inline]
    pub(crate) fn push(&mut self, field: Field) {
        if self.present.contains(field.known) {
            self.repeated = self.repeated.with(field.known);
        }
        self.present = self.present.with(field.known);
        self.list.push(field);
    }

    /// Counts a received line, whether or not it is kept. Returns `false` once there are more than `limit`.
    #[inline]
    pub(crate) const fn count(&mut self, limit: usize) -> bool {
        if self.received >= limit {
            return false;
        }
        self.received += 1;
        true
    }

    /// Removes the fields for which `listed` returns true: those that `Connection` names.
    pub(crate) fn remove(&mut self, mut listed: impl FnMut(&Field) -> bool) {
        let mut gone = KnownSet::EMPTY;
        self.list.retain(|field| {
            let remove = listed(field);
            if remove {
                gone = gone.with(field.known);
            }
            !remove
        });
        self.present = self.present - gone;
        self.repeated = self.repeated - gone;
    }
}

impl<'a> IntoIterator for &'a Fields {
    type Item = &'a Field;
    type IntoIter = std::slice::Iter<'a, Field>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_sixteen_bytes() {
        assert_eq!(size_of::<Field>(), 16);
    }
}
