//! The request of a client, in the form of HTTP/1 whatever the version: its head in the buffer, and its body behind it.

use super::relay::{BodySource, RelayedBody};
use crate::buffer::Buffer;
use crate::http::{BodyForm, Method, RequestHead, Spanned};

/// A request, or the beginning of one.
#[derive(Debug)]
pub(crate) struct ReceivedRequest<'a> {
    pub(crate) head: &'a RequestHead,
    /// The head (held), the body, and the requests after it.
    pub(crate) source: BodySource<'a>,
    /// Whether the head was accepted.
    parsed: bool,
    head_len: u64,
    /// Whether the client waits for `100 Continue`.
    expects_continue: bool,
    /// How the endpoint learns where the body ends.
    form: BodyForm,
}

impl<'a> ReceivedRequest<'a> {
    /// Starts with what was received so far. The head counts once [`begin`](Self::begin) reports that it was accepted.
    pub(crate) fn new(received: &'a mut Buffer, head: &'a RequestHead) -> Self {
        Self {
            head,
            source: BodySource::new(received),
            parsed: false,
            head_len: 0,
            expects_continue: false,
            form: BodyForm::Chunks,
        }
    }

    /// Reports that the head was accepted and is held.
    pub(crate) fn begin(&mut self) {
        self.parsed = true;
        self.head_len = self.source.buffer.held().len() as u64;
        self.source.body = self.whole_body();
        self.expects_continue = self.head.expects_continue();
    }

    /// Whether the head was accepted.
    pub(crate) fn is_parsed(&self) -> bool {
        self.parsed
    }

    /// The head, once accepted.
    pub(crate) fn head(&self) -> Option<Spanned<'_, RequestHead>> {
        self.parsed.then(|| Spanned { parsed: self.head, bytes: self.source.buffer.held() })
    }

    /// The first line of a head that was refused, as far as it was received.
    pub(crate) fn broken_line(&self) -> &[u8] {
        if self.parsed {
            return &[];
        }
        let filled = self.source.buffer.filled();
        filled.split(|&byte| byte == b'\r' || byte == b'\n').next().unwrap_or_default()
    }

    /// The method; GET until one is known.
    pub(crate) fn method(&self) -> Method {
        if self.parsed { self.head.method() } else { Method::Get }
    }

    /// The protocols that the client asks to switch to, if that is allowed.
    pub(crate) fn asked_protocols(&self) -> Option<&[u8]> {
        if self.parsed { self.head.asked_protocols(self.source.buffer.held()) } else { None }
    }

    /// The source of the body.
    pub(crate) fn source(&mut self) -> &mut BodySource<'a> {
        &mut self.source
    }

    /// Whether the whole body was consumed.
    pub(crate) fn body_has_ended(&self) -> bool {
        self.source.body.has_ended()
    }

    /// Bytes received and consumed, the head without compression.
    pub(crate) fn received(&self) -> u64 {
        self.head_len + self.source.body.data_len()
    }

    /// Sets how the endpoint learns where the body ends, for the tries to come.
    pub(crate) fn set_form(&mut self, form: BodyForm) {
        self.form = form;
    }

    /// Whether the body can be read again from its beginning.
    pub(crate) fn can_rewind(&self) -> bool {
        self.source.buffer.can_rewind()
    }

    /// Goes back to the beginning of the body.
    pub(crate) fn rewind(&mut self) {
        let rewound = self.source.buffer.rewind();
        debug_assert!(rewound, "a try begins with the whole request");
        self.source.body = self.whole_body();
    }

    /// Whether the client waits for permission to send its body, of which nothing has arrived. It waits only once.
    pub(crate) fn takes_permission(&mut self) -> bool {
        std::mem::take(&mut self.expects_continue) && self.source.buffer.is_empty()
    }

    fn whole_body(&self) -> RelayedBody {
        RelayedBody::new(self.head.framing(), self.form)
    }
}
