//! Writes the model's fields into a head.

use fairway_model::{FieldLine, FieldName, FieldSink, KnownField, KnownSet};

use super::view::FieldsView;
use super::write::{HeadWriter, PreparedField};

/// Received fields that a head can forward.
pub(crate) trait Forwarded {
    /// Writes them as [`FieldSink::forward`] specifies.
    fn forward_to(self, head: &mut HeadWriter<'_>, drop: KnownSet, drop_also: impl FnMut(KnownField, &[u8]) -> bool);
}

impl<F: Forwarded> FieldSink<F> for HeadWriter<'_> {
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

    #[inline]
    fn forward(&mut self, fields: F, drop: KnownSet, drop_also: impl FnMut(KnownField, &[u8]) -> bool) {
        fields.forward_to(self, drop, drop_also);
    }
}

impl Forwarded for FieldsView<'_> {
    fn forward_to(
        self,
        head: &mut HeadWriter<'_>,
        drop: KnownSet,
        mut drop_also: impl FnMut(KnownField, &[u8]) -> bool,
    ) {
        let FieldsView { fields, bytes } = self;
        HeadWriter::forward(head, fields, bytes, drop, |field| drop_also(field.known(), field.name(bytes)));
    }
}

/// Fields of the proxy's own answers.
impl Forwarded for &[FieldLine<'_>] {
    fn forward_to(
        self,
        head: &mut HeadWriter<'_>,
        drop: KnownSet,
        mut drop_also: impl FnMut(KnownField, &[u8]) -> bool,
    ) {
        for line in self {
            if !drop.contains(line.known)
                && !drop_also(line.known, line.name)
                && let Ok(name) = FieldName::try_from(line.name)
            {
                let _ = HeadWriter::field(head, name, line.value);
            }
        }
    }
}
