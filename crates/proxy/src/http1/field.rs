//! Field lines as ranges of the receive buffer.

use std::ops::Range;

use super::byte_class::{COLON, FATAL, NAME_CLASS, NOT_TOKEN, ODD_TOKEN, UNDERSCORE, is_value};
use super::error::HeadError;
use super::line::{HeadLimits, Line, LineEnd};
use fairway_model::{KnownField, KnownSet};

/// A range of the buffer that a head was parsed from.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Span {
    start: u32,
    end: u32,
}

impl Span {
    /// The bytes of the range. `buf` is what the head was parsed from; it panics if `buf` is shorter.
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

    /// Offsets are 32 bits wide: [`HeadLimits`] keeps heads far below that.
    pub(super) const fn new(start: usize, end: usize) -> Self {
        Self { start: start as u32, end: end as u32 }
    }
}

/// One field line. Sixteen bytes, so that four share a cache line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Field {
    start: u32,
    value_start: u32,
    value_len: u32,
    name_len: u16,
    known: KnownField,
    verbatim: bool,
}

impl Field {
    /// What the name means to the proxy.
    pub const fn known(&self) -> KnownField {
        self.known
    }

    /// The name as sent.
    pub fn name<'b>(&self, buf: &'b [u8]) -> &'b [u8] {
        self.name_span().of(buf)
    }

    /// The value without the white space around it.
    pub fn value<'b>(&self, buf: &'b [u8]) -> &'b [u8] {
        self.value_span().of(buf)
    }

    /// Where the name is.
    pub const fn name_span(&self) -> Span {
        Span { start: self.start, end: self.start + self.name_len as u32 }
    }

    /// Where the value is.
    pub const fn value_span(&self) -> Span {
        Span { start: self.value_start, end: self.value_start + self.value_len }
    }

    /// The whole line with its CRLF, if it can be sent on as it stands: at most one space after the colon, none at the end.
    pub(super) fn verbatim_line(&self) -> Option<Range<usize>> {
        self.verbatim.then(|| self.start as usize..(self.value_start + self.value_len) as usize + 2)
    }

    /// Whether the field has this name, in any case.
    pub fn is(&self, name: &[u8], buf: &[u8]) -> bool {
        usize::from(self.name_len) == name.len() && self.name(buf).eq_ignore_ascii_case(name)
    }
}

/// The fields of one head in the order they were received, without those that the rules drop.
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

    /// Whether there is no field.
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Which known fields there are.
    pub const fn present(&self) -> KnownSet {
        self.present
    }

    /// Which known fields there are more than once.
    pub const fn repeated(&self) -> KnownSet {
        self.repeated
    }

    /// The value of the first `field`. Costs one bit test if there is none.
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

    /// The values of all lines with this name, in any case; for names that are not known fields.
    pub fn named<'b>(&self, name: &'b [u8], buf: &'b [u8]) -> impl Iterator<Item = &'b [u8]> + use<'_, 'b> {
        self.list.iter().filter(move |line| line.is(name, buf)).map(|line| line.value(buf))
    }

    pub(super) fn clear(&mut self) {
        self.list.clear();
        self.received = 0;
        self.present = KnownSet::EMPTY;
        self.repeated = KnownSet::EMPTY;
    }

    /// Takes a line, and says what it is; `None` if the rules drop it, which counts towards the limit too.
    pub(super) fn push(
        &mut self,
        buf: &[u8],
        line: &Line,
        rules: NameRules,
        limits: &HeadLimits,
    ) -> Result<Option<KnownField>, HeadError> {
        if self.received >= limits.fields {
            return Err(HeadError::TooManyFields);
        }
        self.received += 1;
        let Some(mut field) = parse_line(&buf[..line.end], line.start, rules)? else {
            return Ok(None);
        };
        field.verbatim &= line.ended_by == LineEnd::Crlf;
        if self.present.contains(field.known) {
            self.repeated = self.repeated.with(field.known);
        }
        self.present = self.present.with(field.known);
        self.list.push(field);
        Ok(Some(field.known))
    }

    /// Removes the fields for which `listed` holds. Used for what `Connection` names.
    pub(super) fn remove(&mut self, mut listed: impl FnMut(&Field) -> bool) {
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

/// What happens to names that are tokens but not made of letters, digits and hyphens only.
#[derive(Clone, Copy, Debug)]
pub(super) enum NameRules {
    /// nginx's `ignore_invalid_headers on`: such fields are dropped; `underscores` spares names that only have underscores.
    Drop {
        /// nginx's `underscores_in_headers`.
        underscores: bool,
    },
    /// Any token is kept, anything else is an error.
    Tokens,
}

/// Parses one line that ends (CRLF excluded) where `buf` ends. `None` if the field is dropped.
pub(super) fn parse_line(buf: &[u8], start: usize, rules: NameRules) -> Result<Option<Field>, HeadError> {
    let line = &buf[start..];
    let mut seen = 0;
    let end = line.iter().position(|&byte| {
        let class = NAME_CLASS[usize::from(byte)];
        seen |= class;
        class & (COLON | FATAL) != 0
    });
    let Some(name_len) = end else {
        return Err(HeadError::InvalidFieldName); // no colon
    };
    seen &= !(COLON | FATAL);
    if line[name_len] != b':' || name_len == 0 {
        let folded = name_len == 0 && matches!(line[0], b' ' | b'\t');
        return Err(if folded { HeadError::ObsoleteFold } else { HeadError::InvalidFieldName });
    }
    let name = &line[..name_len];

    let mut value_from = name_len + 1;
    while matches!(line.get(value_from), Some(b' ' | b'\t')) {
        value_from += 1;
    }
    let mut value_to = line.len();
    while value_to > value_from && matches!(line[value_to - 1], b' ' | b'\t') {
        value_to -= 1;
    }
    if !is_value(&line[value_from..value_to]) {
        return Err(HeadError::InvalidFieldValue);
    }

    let mut known = KnownField::classify(name);
    if seen != 0 {
        let keep = match rules {
            NameRules::Drop { underscores } => underscores && seen == UNDERSCORE,
            NameRules::Tokens if seen & NOT_TOKEN != 0 => return Err(HeadError::InvalidFieldName),
            NameRules::Tokens => true,
        };
        debug_assert!(seen & !(UNDERSCORE | ODD_TOKEN | NOT_TOKEN) == 0);
        if !keep || KnownSet::STRUCTURAL.contains(known) {
            return Ok(None);
        }
        if !KnownSet::FOLDED.contains(known) {
            known = KnownField::Other;
        }
    }
    let Ok(short_name_len) = u16::try_from(name_len) else {
        return Err(HeadError::FieldTooLong);
    };
    let gap = &line[name_len + 1..value_from];
    let verbatim = value_to == line.len() && (gap.is_empty() || gap == b" ");
    Ok(Some(Field {
        start: start as u32,
        value_start: (start + value_from) as u32,
        value_len: (value_to - value_from) as u32,
        name_len: short_name_len,
        known,
        verbatim,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DROP: NameRules = NameRules::Drop { underscores: false };

    #[test]
    fn a_field_is_sixteen_bytes() {
        assert_eq!(size_of::<Field>(), 16);
    }

    #[test]
    fn values_are_trimmed_and_only_plain_lines_are_verbatim() {
        for (line, value, verbatim) in [
            ("A: b", "b", true),
            ("A:b", "b", true),
            ("A:", "", true),
            ("A: ", "", true),
            ("A:  b", "b", false),
            ("A:\tb", "b", false),
            ("A: b ", "b", false),
            ("A: b\tc", "b\tc", true),
            ("A:   ", "", false),
        ] {
            let field = parse_line(line.as_bytes(), 0, DROP).unwrap().unwrap();
            assert_eq!(field.value(line.as_bytes()), value.as_bytes(), "{line:?}");
            assert_eq!(field.verbatim_line().is_some(), verbatim, "{line:?}");
        }
    }

    #[test]
    fn names_with_odd_bytes_follow_the_rules() {
        let keep_underscores = NameRules::Drop { underscores: true };
        let parse = |line: &str, rules| parse_line(line.as_bytes(), 0, rules).map(|field| field.map(|f| f.known()));
        assert_eq!(parse("a_b: 1", DROP), Ok(None));
        assert_eq!(parse("a_b: 1", keep_underscores), Ok(Some(KnownField::Other)));
        assert_eq!(parse("a.b: 1", keep_underscores), Ok(None));
        assert_eq!(parse("a.b: 1", NameRules::Tokens), Ok(Some(KnownField::Other)));
        assert_eq!(parse("a(b: 1", DROP), Ok(None));
        assert_eq!(parse("a(b: 1", NameRules::Tokens), Err(HeadError::InvalidFieldName));
        assert_eq!(parse("X_Forwarded_Proto: https", keep_underscores), Ok(Some(KnownField::XForwardedProto)));
        assert_eq!(parse("X.Forwarded.Proto: https", NameRules::Tokens), Ok(Some(KnownField::XForwardedProto)));
        assert_eq!(parse("Content_Length: 5", keep_underscores), Ok(None));
        assert_eq!(parse("Transfer_Encoding: chunked", NameRules::Tokens), Ok(None));
        assert_eq!(parse("Content_Type: x", keep_underscores), Ok(Some(KnownField::Other)));
    }
}
