//! Heads in the form that the model reads.

use fairway_model::{FieldLine, HostAndPort, KnownField, KnownSet, RequestView, Target};

use super::field::Fields;
use super::framing::Framing;
use super::request::{RequestHead, TargetForm};

/// The fields of a head, with the bytes that their ranges refer to.
#[derive(Clone, Copy, Debug)]
pub struct FieldsView<'a> {
    /// The fields.
    pub fields: &'a Fields,
    /// The bytes that they were parsed from.
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
    /// The head in the form that the model reads. `bytes` is the buffer that it was parsed from.
    pub fn view<'a>(&'a self, bytes: &'a [u8]) -> RequestView<'a, FieldsView<'a>> {
        RequestView {
            method: self.method_bytes(bytes),
            raw_target: self.request_uri().of(bytes),
            target: match self.target() {
                TargetForm::Asterisk => Target::Server,
                TargetForm::Origin | TargetForm::Absolute { .. } => {
                    Target::Path(self.path().of(bytes), self.query().map(|query| query.of(bytes)))
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
