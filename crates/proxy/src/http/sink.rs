//! Writes the model's fields into a head.

use fairway_model::{FieldLine, FieldName, FieldSink, KnownField, KnownSet};

use super::view::FieldsView;
use super::write::{HeadWriter, PreparedField};

impl<'a> FieldSink<FieldsView<'a>> for HeadWriter<'_> {
    type Prepared = PreparedField;

    #[inline]
    fn field(&mut self, name: FieldName<'_>, value: &[u8]) {
        let _ = HeadWriter::field(self, name, value);
    }

    fn number(&mut self, name: FieldName<'_>, number: u64) {
        self.field_number(name, number);
    }

    fn prepared(&mut self, lines: &PreparedField) {
        HeadWriter::prepared(self, lines);
    }

    fn forward(
        &mut self,
        fields: FieldsView<'a>,
        drop: KnownSet,
        mut drop_also: impl FnMut(KnownField, &[u8]) -> bool,
    ) {
        let FieldsView { fields, bytes } = fields;
        HeadWriter::forward(self, fields, bytes, drop, |field| drop_also(field.known(), field.name(bytes)));
    }
}

/// Heads of the proxy's own answers.
impl<'a> FieldSink<&'a [FieldLine<'a>]> for HeadWriter<'_> {
    type Prepared = PreparedField;

    fn field(&mut self, name: FieldName<'_>, value: &[u8]) {
        let _ = HeadWriter::field(self, name, value);
    }

    fn number(&mut self, name: FieldName<'_>, number: u64) {
        self.field_number(name, number);
    }

    fn prepared(&mut self, lines: &PreparedField) {
        HeadWriter::prepared(self, lines);
    }

    fn forward(
        &mut self,
        fields: &'a [FieldLine<'a>],
        drop: KnownSet,
        mut drop_also: impl FnMut(KnownField, &[u8]) -> bool,
    ) {
        for line in fields {
            if !drop.contains(line.known)
                && !drop_also(line.known, line.name)
                && let Ok(name) = FieldName::try_from(line.name)
            {
                let _ = HeadWriter::field(self, name, line.value);
            }
        }
    }
}
