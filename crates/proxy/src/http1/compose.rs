//! The heads that the proxy sends, in the syntax of HTTP/1: the client's request to an endpoint, an endpoint's response to the
//! client, and the proxy's own answers. The model decides which fields they have.

use fairway_model::decision::Expand;
use fairway_model::{Body as OwnBody, KnownField, KnownSet};

use crate::error::Failure;
use crate::http::{
    FieldName, FieldsView, Framing, HeadWriter, InvalidField, PreparedField, ResponseHead, Version, is_field_value,
};
use crate::message::{ResponseContext, UpstreamRequest};
use crate::respond::{Answer, DateClock, Page};

const CONNECTION: FieldName<'_> = FieldName::from_static("Connection");
const UPGRADE: FieldName<'_> = FieldName::from_static("Upgrade");

/// How the connection continues, as far as the client needs to know.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Persistence {
    /// It stays open, which HTTP/1.1 takes for granted.
    Kept,
    /// It stays open, which HTTP/1.0 needs as an explicit field.
    KeptExplicitly,
    /// It is closed after this response.
    Closed,
}

impl Persistence {
    /// Writes the fields for it, if any.
    pub(super) fn write(self, writer: &mut HeadWriter<'_>) {
        let option: &[u8] = match self {
            Self::Kept => return,
            Self::KeptExplicitly => b"keep-alive",
            Self::Closed => b"close",
        };
        put(writer, CONNECTION, option);
    }
}

/// The recipient of one of the proxy's own answers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct AnswerTo {
    /// Whether the request was a HEAD: the body is announced but not sent.
    pub(crate) head_only: bool,
    /// How the connection continues.
    pub(crate) persistence: Persistence,
}

/// Appends the head of a request. `family` holds the fields about the client, which are the same for every request of its
/// connection.
///
/// # Errors
/// If a configured value makes the head invalid.
pub(crate) fn write_request(
    request: &UpstreamRequest<'_>,
    family: Option<&PreparedField>,
    out: &mut Vec<u8>,
    value: &mut Vec<u8>,
    expand: &mut impl Expand,
) -> Result<(), Failure> {
    let mut writer = HeadWriter::new(out);
    writer.request_line(request.method, request.target).map_err(|_| Failure::Unwritable)?;
    request.edits.write(&mut writer, family, value, expand)?;
    match request.measured {
        Some(length) => writer.framing(Framing::Length(length)),
        None if request.framing == Framing::Chunked => writer.framing(Framing::Chunked),
        None => {}
    }
    if let Some(protocols) = request.upgrade {
        write_upgrade(&mut writer, protocols);
    } else if request.close {
        let _ = writer.field(CONNECTION, b"close");
    }
    writer.finish();
    Ok(())
}

/// A response head for a client.
#[derive(Debug)]
pub(super) struct ClientResponse<'a> {
    /// The endpoint's head.
    pub(super) head: &'a ResponseHead,
    /// The bytes that it was parsed from.
    pub(super) bytes: &'a [u8],
    /// How the body is framed for the client.
    pub(super) framing: Framing,
    /// Whether the endpoint's framing field is forwarded unchanged.
    pub(super) framing_kept: bool,
    /// How the connection continues.
    pub(super) persistence: Persistence,
    /// The protocol that takes over the connection.
    pub(super) switched_to: Option<&'a [u8]>,
}

impl ClientResponse<'_> {
    /// Appends the head.
    pub(super) fn write(&self, context: &ResponseContext<'_>, out: &mut Vec<u8>, value: &mut Vec<u8>) {
        let Self { head, bytes, .. } = *self;
        let edits = context.edits();
        let mut writer = HeadWriter::new(out);
        writer.forward_status_line(head, bytes);
        if !head.fields().present().contains(KnownField::Date) && !edits.replaces(KnownField::Date) {
            write_date(context.clock, &mut writer);
        }
        let dropped = if self.framing_kept { KnownSet::EMPTY } else { KnownSet::EMPTY.with(KnownField::ContentLength) };
        let fields = FieldsView { fields: head.fields(), bytes };
        // The values were created within the limit, so none is too long.
        let _ = edits.write(fields, dropped, &mut writer, value, &mut context.values.reader());
        if self.framing == Framing::Chunked {
            writer.framing(Framing::Chunked);
        }
        match self.switched_to {
            Some(protocol) => write_upgrade(&mut writer, protocol),
            None => self.persistence.write(&mut writer),
        }
        writer.finish();
    }
}

/// Appends one of the proxy's own answers; returns its status and the length of its body. If its location is not a valid field
/// value, a page with status 500 is appended instead.
pub(crate) fn write_answer(
    answer: &Answer<'_>,
    to: AnswerTo,
    context: &ResponseContext<'_>,
    out: &mut Vec<u8>,
    value: &mut Vec<u8>,
) -> (u16, usize) {
    match try_write_answer(answer, to, context, out, value) {
        Ok(body) => (answer.status, body),
        Err(_) => {
            let plain = Answer { status: 500, body: &OwnBody::Page, location: None, ..*answer };
            (500, try_write_answer(&plain, to, context, out, value).unwrap_or_default())
        }
    }
}

/// The same, but appends nothing if the location is not a valid field value.
fn try_write_answer(
    answer: &Answer<'_>,
    to: AnswerTo,
    context: &ResponseContext<'_>,
    out: &mut Vec<u8>,
    value: &mut Vec<u8>,
) -> Result<usize, InvalidField> {
    let mut page = Page::default();
    let (content_type, body) = answer.body(&mut page);
    let mut writer = HeadWriter::new(out);
    writer.status_line(answer.status)?;
    if !context.edits().replaces(KnownField::Date) {
        write_date(context.clock, &mut writer);
    }
    if answer.location.is_some_and(|location| !is_field_value(location)) {
        return Err(InvalidField::Value);
    }
    let lines = answer.lines(content_type);
    for (name, value) in answer.fields {
        writer.field(name.get(), value.as_bytes())?;
    }
    let _ = context.edits().write(lines.as_slice(), KnownSet::EMPTY, &mut writer, value, &mut context.values.reader());
    if answer.status != 204 {
        writer.framing(Framing::Length(body.len() as u64));
    }
    to.persistence.write(&mut writer);
    writer.finish();
    if to.head_only {
        return Ok(0);
    }
    out.extend_from_slice(body);
    Ok(body.len())
}

fn write_date(clock: &DateClock, writer: &mut HeadWriter<'_>) {
    clock.read(|date| writer.date(date));
}

fn put(writer: &mut HeadWriter<'_>, name: FieldName<'_>, value: &[u8]) {
    let written = writer.field(name, value);
    debug_assert!(written.is_ok(), "{} is a constant without control bytes", KnownField::Other.name());
}

fn write_upgrade(writer: &mut HeadWriter<'_>, protocols: &[u8]) {
    let _ = writer.field(CONNECTION, b"upgrade");
    let _ = writer.field(UPGRADE, protocols);
}

/// Appends an interim response (103 and the like). HTTP/1.0 has none (RFC 9110 15.2), so nothing is appended for its clients.
pub(super) fn write_interim(head: &ResponseHead, bytes: &[u8], to: Version, out: &mut Vec<u8>) -> bool {
    const DROPPED: KnownSet = KnownSet::HOP_BY_HOP.union(KnownSet::X_ACCEL).with(KnownField::ContentLength);
    if to == Version::Http10 {
        return false;
    }
    let mut writer = HeadWriter::new(out);
    writer.forward_status_line(head, bytes);
    writer.forward(head.fields(), bytes, DROPPED, |_| false);
    writer.finish();
    true
}

#[cfg(test)]
mod tests {
    use fairway_model::{Compressing, Settings, Snapshot};

    use super::*;
    use crate::live::Live;
    use crate::message::Evaluated;
    use crate::net::resolve::AddressPolicy;

    fn answer(status: u16) -> Answer<'static> {
        Answer { status, body: &OwnBody::Page, message: "", fields: &[], location: None, grpc: None }
    }

    fn write(answer: &Answer<'_>, head_only: bool, out: &mut Vec<u8>) -> Result<usize, InvalidField> {
        let snapshot = Snapshot::default().apply(fairway_model::Delta::upsert([Settings::default().into()]));
        let live = Live::first(snapshot, None, AddressPolicy::default());
        let (clock, values, mut sent_head) = (DateClock::default(), Evaluated::default(), Vec::new());
        let context = ResponseContext {
            live: &live,
            clock: &clock,
            plan: None,
            cookies: b"",
            compressing: Compressing::Never,
            status: 200,
            substituting: false,
            values: &values,
            added: &[],
            given: &[],
            sent_head: &mut sent_head,
        };
        let to = AnswerTo { head_only, persistence: Persistence::Kept };
        try_write_answer(answer, to, &context, out, &mut Vec::new())
    }

    fn written(answer: &Answer<'_>, head_only: bool) -> String {
        let mut out = Vec::new();
        write(answer, head_only, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn pages_say_how_long_they_are() {
        let text = written(&answer(404), false);
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 404 Not Found\r\nDate: ") && !head.contains("Server"));
        assert!(head.contains(&format!("Content-Length: {}", body.len())) && body.contains("<h1>404 Not Found</h1>"));
        let head_only = written(&answer(404), true);
        assert_eq!(head_only.split_once("\r\n\r\n").unwrap().1, "");
        assert!(head_only.contains(&format!("Content-Length: {}", body.len())));
    }

    #[test]
    fn a_204_has_no_length() {
        assert!(!written(&answer(204), false).contains("Content-"));
    }

    #[test]
    fn a_location_cannot_end_its_field() {
        let mut out = Vec::new();
        let redirect = Answer { location: Some(b"/\r\nX: y"), ..answer(302) };
        assert!(write(&redirect, false, &mut out).is_err());
        assert!(out.is_empty());
    }
}
