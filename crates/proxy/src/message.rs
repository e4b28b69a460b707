//! The heads that the proxy sends: the client's request as an endpoint gets it, an endpoint's response as the client gets it. Which
//! fields they have is decided in the model.

use fairway_model::decision::{Expand, Plan, RequestEdits, ResponseEdits};
use fairway_model::{KnownField, KnownSet, Template, TooLong};

use crate::error::Failure;
use crate::http1::{FieldName, FieldsView, Framing, HeadWriter, PreparedField, RequestHead, ResponseHead, Version};
use crate::live::Live;
use crate::respond::{Clock, Persistence};

const CONNECTION: FieldName<'_> = FieldName::from_static("Connection");
const UPGRADE: FieldName<'_> = FieldName::from_static("Upgrade");

/// A request head for an endpoint.
#[derive(Debug)]
pub(crate) struct UpstreamRequest<'a> {
    /// The client's head.
    pub(crate) head: &'a RequestHead,
    /// What becomes of its fields.
    pub(crate) edits: RequestEdits<'a, 'a, FieldsView<'a>>,
    /// The fields about the client that are the same for every request of the connection.
    pub(crate) family: Option<&'a PreparedField>,
    /// The protocols that are asked for, one of which is to take over the connection.
    pub(crate) upgrade: Option<&'a [u8]>,
    /// Whether the endpoint connection is not kept.
    pub(crate) close: bool,
}

impl UpstreamRequest<'_> {
    /// Appends the head.
    ///
    /// # Errors
    /// If a configured value makes it unwritable.
    pub(crate) fn write(
        &self,
        out: &mut Vec<u8>,
        value: &mut Vec<u8>,
        expand: &mut impl Expand,
    ) -> Result<(), Failure> {
        let edits = &self.edits;
        let mut writer = HeadWriter::new(out);
        writer.request_line(edits.head.method, &edits.scratch.target).map_err(|_| Failure::Unwritable)?;
        edits.write(&mut writer, self.family, value, expand)?;
        if self.head.framing() == Framing::Chunked {
            writer.framing(Framing::Chunked);
        }
        if let Some(protocols) = self.upgrade {
            write_upgrade(&mut writer, protocols);
        } else if self.close {
            let _ = writer.field(CONNECTION, b"close");
        }
        writer.finish();
        Ok(())
    }
}

/// Values of templates in the order in which the edits of a response ask for them: they are made before the response is written, while
/// all that is known about the request can be looked at.
#[derive(Debug, Default)]
pub(crate) struct Evaluated {
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl Evaluated {
    /// Makes the values of all edits that have variables. What would be too long is empty.
    pub(crate) fn fill(
        &mut self,
        edits: &ResponseEdits<'_, '_>,
        mut append: impl FnMut(&Template, &mut Vec<u8>) -> Result<(), TooLong>,
    ) {
        self.text.clear();
        self.ends.clear();
        for template in edits.edits().filter_map(|edit| edit.value()).filter(|value| value.literal().is_none()) {
            let before = self.text.len();
            if append(template, &mut self.text).is_err() {
                self.text.truncate(before);
            }
            self.ends.push(self.text.len());
        }
    }

    fn reader(&self) -> Reader<'_> {
        Reader { values: self, next: 0 }
    }
}

/// Gives the values one after the other.
struct Reader<'a> {
    values: &'a Evaluated,
    next: usize,
}

impl Expand for Reader<'_> {
    fn expand(&mut self, _: &Template, out: &mut Vec<u8>) -> Result<(), TooLong> {
        let ends = &self.values.ends;
        let start = self.next.checked_sub(1).map_or(0, |last| ends[last]);
        if let Some(&end) = ends.get(self.next) {
            out.extend_from_slice(&self.values.text[start..end]);
            self.next += 1;
        }
        Ok(())
    }
}

/// What is changed in a response on its way to the client, and where that is noted.
#[derive(Debug)]
pub(crate) struct ResponseContext<'a> {
    /// The snapshot.
    pub(crate) live: &'a Live,
    /// The value of Date.
    pub(crate) clock: &'a Clock,
    /// What was decided.
    pub(crate) plan: Option<&'a Plan<'a>>,
    /// The cookie that starts a session; empty for none.
    pub(crate) session_cookie: &'a [u8],
    /// Values of edits.
    pub(crate) values: &'a Evaluated,
    /// Gets the head as it is sent, if the log tells something of it.
    pub(crate) sent_head: &'a mut Vec<u8>,
}

impl<'a> ResponseContext<'a> {
    /// The edits.
    pub(crate) fn edits(&self) -> ResponseEdits<'a, 'a> {
        ResponseEdits { plan: self.plan, rules: &self.live.prepared.fields, session_cookie: self.session_cookie }
    }
}

/// A response head for a client.
#[derive(Debug)]
pub(crate) struct ClientResponse<'a> {
    /// The endpoint's head.
    pub(crate) head: &'a ResponseHead,
    /// What it was parsed from.
    pub(crate) bytes: &'a [u8],
    /// How the body is framed for the client.
    pub(crate) framing: Framing,
    /// Whether the endpoint's framing field goes on as it is.
    pub(crate) framing_kept: bool,
    /// What becomes of the connection.
    pub(crate) persistence: Persistence,
    /// The protocol that takes over the connection.
    pub(crate) switched_to: Option<&'a [u8]>,
}

impl ClientResponse<'_> {
    /// Appends the head.
    pub(crate) fn write(&self, context: &ResponseContext<'_>, out: &mut Vec<u8>, value: &mut Vec<u8>) {
        let Self { head, bytes, .. } = *self;
        let edits = context.edits();
        let mut writer = HeadWriter::new(out);
        writer.forward_status_line(head, bytes);
        if !head.fields().present().contains(KnownField::Date) && !edits.replaces(KnownField::Date) {
            context.clock.write(&mut writer);
        }
        let dropped = if self.framing_kept { KnownSet::EMPTY } else { KnownSet::EMPTY.with(KnownField::ContentLength) };
        let fields = FieldsView { fields: head.fields(), bytes };
        // The values were made within the limit, so none is too long here.
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

/// Writes the fields of an answer that is made here.
pub(crate) fn write_own_fields(
    context: &ResponseContext<'_>,
    fields: &[fairway_model::FieldLine<'_>],
    writer: &mut HeadWriter<'_>,
    value: &mut Vec<u8>,
) {
    let _ = context.edits().write(fields, KnownSet::EMPTY, writer, value, &mut context.values.reader());
}

fn write_upgrade(writer: &mut HeadWriter<'_>, protocols: &[u8]) {
    let _ = writer.field(CONNECTION, b"upgrade");
    let _ = writer.field(UPGRADE, protocols);
}

/// Appends an interim response (103 and the like). Clients of HTTP/1.0 know none (RFC 9110 15.2): for them nothing is appended.
pub(crate) fn write_interim(head: &ResponseHead, bytes: &[u8], to: Version, out: &mut Vec<u8>) -> bool {
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
