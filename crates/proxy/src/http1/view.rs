//! Heads as the model sees them, and heads as it has them written.

use fairway_model::{FieldLine, FieldName, FieldSink, HostAndPort, KnownField, KnownSet, RequestView, Target as Asked};

use super::field::Fields;
use super::framing::Framing;
use super::request::{RequestHead, Target};
use super::write::{HeadWriter, PreparedField};

/// The fields of a head, with the bytes that they are ranges of.
#[derive(Clone, Copy, Debug)]
pub struct FieldsView<'a> {
    /// The fields.
    pub fields: &'a Fields,
    /// What they were parsed from.
    pub bytes: &'a [u8],
}

impl<'a> fairway_model::Fields<'a> for FieldsView<'a> {
    #[inline]
    fn lines(self) -> impl DoubleEndedIterator<Item = FieldLine<'a>> {
        let Self { fields, bytes } = self;
        fields.iter().map(move |field| FieldLine {
            known: field.known(),
            name: field.name(bytes),
            value: field.value(bytes),
        })
    }

    #[inline]
    fn present(self) -> KnownSet {
        self.fields.present()
    }

    #[inline]
    fn get(self, field: KnownField) -> Option<&'a [u8]> {
        self.fields.get(field, self.bytes)
    }
}

impl RequestHead {
    /// The head as the model sees it. `bytes` is what it was parsed from.
    pub fn view<'a>(&'a self, bytes: &'a [u8]) -> RequestView<'a, FieldsView<'a>> {
        RequestView {
            method: self.method_bytes(bytes),
            raw_target: self.target_span().of(bytes),
            target: match self.target() {
                Target::Asterisk => Asked::Server,
                Target::Origin | Target::Absolute { .. } => {
                    Asked::Path(self.path().of(bytes), self.query().map(|query| query.of(bytes)))
                }
            },
            authority: self.authority().map(|authority| HostAndPort {
                text: authority.span.of(bytes),
                canonical: authority.canonical.then(|| authority.host.of(bytes)),
            }),
            length: match self.framing() {
                Framing::Length(length) => Some(length),
                Framing::None | Framing::Chunked | Framing::UntilClose => None,
            },
            fields: FieldsView { fields: self.fields(), bytes },
        }
    }
}

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

/// Heads of answers that are made here.
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
