//! The heads that the proxy sends, as the exchange has them sent: each version of HTTP writes them in its own way. Which fields they
//! have is decided in the model.

use fairway_model::decision::{Expand, Forwarding, Plan, RequestEdits, ResponseEdits, Scratch};
use fairway_model::{Backend, Template, TooLong};

use crate::http::{FieldsView, Framing, RequestHead, Spanned};
use crate::live::Live;
use crate::respond::DateClock;

/// A request head for an endpoint.
#[derive(Debug)]
pub(crate) struct UpstreamRequest<'a> {
    /// How the end of its body is known.
    pub(crate) framing: Framing,
    /// What becomes of its fields.
    pub(crate) edits: RequestEdits<'a, 'a, FieldsView<'a>>,
    /// The protocols that are asked for, one of which is to take over the connection.
    pub(crate) upgrade: Option<&'a [u8]>,
    /// Whether the endpoint connection is not kept.
    pub(crate) close: bool,
}

impl<'a> UpstreamRequest<'a> {
    /// The request `head` for `backend`, as it was decided.
    pub(crate) fn new(
        live: &'a Live,
        head: Spanned<'a, RequestHead>,
        plan: &'a Plan<'a>,
        forwarding: &Forwarding<'a>,
        backend: &'a Backend,
        scratch: &'a Scratch,
    ) -> Self {
        let in_place_of = forwarding.in_place_of.and_then(|name| live.snapshot.backend(name));
        Self {
            framing: head.parsed.framing(),
            edits: RequestEdits {
                head: head.parsed.view(head.bytes),
                plan,
                forwarding: *forwarding,
                backend,
                in_place_of: in_place_of.map(|backend| &**backend),
                scratch,
                rules: &live.prepared.fields,
            },
            upgrade: head.parsed.asked_protocols(head.bytes),
            close: live.prepared.pool.connections == 0,
        }
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

    /// Gives them in that order.
    pub(crate) fn reader(&self) -> EvaluatedReader<'_> {
        EvaluatedReader { values: self, next: 0 }
    }
}

/// Gives the values one after the other.
#[derive(Debug)]
pub(crate) struct EvaluatedReader<'a> {
    values: &'a Evaluated,
    next: usize,
}

impl Expand for EvaluatedReader<'_> {
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
    pub(crate) clock: &'a DateClock,
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
