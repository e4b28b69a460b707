//! Heads that the proxy sends. The model decides which fields they have; each version of HTTP serialises them in its own way.

use fairway_model::decision::{Expand, Forwarding, Plan, RequestEdits, ResponseEdits, Scratch};
use fairway_model::{AuthProtocol, Backend, Compressing, ConfiguredName, ExternalAuth, GivenField, Template, TooLong};

use crate::http::{FieldsView, Framing, Method, RequestHead, Spanned};
use crate::live::Live;
use crate::respond::DateClock;

/// A request head for an endpoint.
#[derive(Debug)]
pub(crate) struct UpstreamRequest<'a> {
    /// Its method.
    pub(crate) method: &'a [u8],
    /// Its target.
    pub(crate) target: &'a [u8],
    /// How the end of its body is marked.
    pub(crate) framing: Framing,
    /// The length of a body for which the client gave none.
    pub(crate) measured: Option<u64>,
    /// The edits of its fields.
    pub(crate) edits: RequestEdits<'a, 'a, FieldsView<'a>>,
    /// The protocols that the client asks to switch to.
    pub(crate) upgrade: Option<&'a [u8]>,
    /// Whether the connection to the endpoint is closed afterwards.
    pub(crate) close: bool,
}

impl<'a> UpstreamRequest<'a> {
    /// The request `head` for `backend`, edited as decided.
    pub(crate) fn new(
        live: &'a Live,
        head: Spanned<'a, RequestHead>,
        plan: &'a Plan<'a>,
        forwarding: &Forwarding<'a>,
        backend: &'a Backend,
        scratch: &'a Scratch,
    ) -> Self {
        let in_place_of = forwarding.in_place_of.and_then(|name| live.snapshot.backend(name));
        let method = head.parsed.method_bytes(head.bytes);
        // A service that replaces an error response gets a request without the client's body.
        let (method, framing, upgrade) = match plan.replaces_error() {
            None => (method, head.parsed.framing(), head.parsed.asked_protocols(head.bytes)),
            Some(_) if head.parsed.method() == Method::Head => (method, Framing::None, None),
            Some(_) => (&b"GET"[..], Framing::None, None),
        };
        Self {
            method,
            target: &scratch.target,
            framing,
            measured: None,
            edits: RequestEdits {
                head: head.parsed.view(head.bytes),
                plan,
                forwarding: *forwarding,
                backend,
                in_place_of: in_place_of.map(|backend| &**backend),
                scratch,
                rules: &live.prepared.fields,
                auth: None,
                reframed: false,
            },
            upgrade,
            close: live.prepared.pool.connections == 0 || forwarding.rule.policy.close,
        }
    }

    /// Turns it into a copy for another destination, with a body of this length or without one.
    pub(crate) fn turn_into_copy(&mut self, target: Option<&'a [u8]>, length: Option<u64>) {
        self.target = target.unwrap_or(self.target);
        self.framing = Framing::None;
        self.measured = length;
        self.edits.reframed = true;
        self.upgrade = None;
        self.close = true;
    }

    /// Turns it into the request that asks an authentication service about it: with the part of the body that the service gets, and without
    /// a protocol upgrade.
    pub(crate) fn turn_to(&mut self, auth: &'a ExternalAuth, target: &'a [u8], body: u64) {
        self.target = target;
        self.framing = Framing::None;
        match &auth.protocol {
            AuthProtocol::Subrequest(asks) => {
                self.method = asks.method.as_ref().map_or(&b"GET"[..], |method| method.as_bytes());
                self.measured = None;
            }
            // The Gateway API requires a length even without a body.
            AuthProtocol::Http(_) | AuthProtocol::Grpc(_) => self.measured = Some(body),
        }
        self.edits.auth = Some(auth);
        self.upgrade = None;
    }
}

/// Values of templates, in the order in which the edits of a response use them. They are evaluated before the response is written, while
/// everything about the request is still available.
#[derive(Debug, Default)]
pub(crate) struct Evaluated {
    text: Vec<u8>,
    ends: Vec<usize>,
}

impl Evaluated {
    /// Evaluates the values of all edits that have variables. A value that is too long becomes empty.
    pub(crate) fn fill(
        &mut self,
        edits: &ResponseEdits<'_, '_>,
        mut append: impl FnMut(&Template, &mut Vec<u8>) -> Result<(), TooLong>,
    ) {
        self.clear();
        let templates = edits.edits().filter_map(|edit| edit.value()).filter(|value| value.literal().is_none());
        templates.for_each(|template| {
            let before = self.text.len();
            if append(template, &mut self.text).is_err() {
                self.text.truncate(before);
            }
            self.ends.push(self.text.len());
        });
    }

    /// Drops the values of the last response.
    pub(crate) fn clear(&mut self) {
        self.text.clear();
        self.ends.clear();
    }

    /// Reads the values in that order.
    pub(crate) fn reader(&self) -> EvaluatedReader<'_> {
        EvaluatedReader { values: self, next: 0 }
    }
}

/// Yields the values one by one.
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

/// What edits a response for the client, and a place to record the result.
#[derive(Debug)]
pub(crate) struct ResponseContext<'a> {
    /// The snapshot.
    pub(crate) live: &'a Live,
    /// The clock for the Date field.
    pub(crate) clock: &'a DateClock,
    /// The plan of the request, if there is one.
    pub(crate) plan: Option<&'a Plan<'a>>,
    /// The cookies to set, separated by line feeds; empty if there are none.
    pub(crate) cookies: &'a [u8],
    /// What compression does to the response.
    pub(crate) compressing: Compressing,
    /// Its status.
    pub(crate) status: u16,
    /// Whether text in its body is replaced.
    pub(crate) substituting: bool,
    /// Values for the edits.
    pub(crate) values: &'a Evaluated,
    /// Fields to add.
    pub(crate) added: &'a [(ConfiguredName, Box<str>)],
    /// Fields from the service that has allowed the request.
    pub(crate) given: &'a [GivenField],
    /// Receives the head as sent, if the log shows fields of it.
    pub(crate) sent_head: &'a mut Vec<u8>,
}

impl<'a> ResponseContext<'a> {
    /// The edits.
    pub(crate) fn edits(&self) -> ResponseEdits<'a, 'a> {
        ResponseEdits {
            plan: self.plan,
            rules: &self.live.prepared.fields,
            cookies: self.cookies,
            compressing: self.compressing,
            added: self.added,
            given: self.given,
            status: self.status,
            substituting: self.substituting,
        }
    }
}
