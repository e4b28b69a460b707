//! The request of a client, in the form of HTTP/1 whatever the version: its head in the buffer, followed by its body.

use std::io;
use std::task::{Context, Poll, ready};

use super::chunk::{ChunkLimits, Event};
use super::decoder::BodyDecoder;
use super::relay::{BodySource, RelayedBody};
use crate::buffer::Buffer;
use crate::http::{BodyError, BodyForm, Framing, Method, RequestHead, Spanned};
use crate::spool::SpoolFile;
use crate::work::{LARGE, Store};

/// How much has arrived of a body that is read before it is sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Ahead {
    /// More is to come.
    Partial,
    /// All of it has arrived.
    Whole,
}

/// A body that is read before it is sent. It stays in the buffer as it was received.
#[derive(Debug)]
struct Lookahead {
    decoder: BodyDecoder,
    /// Bytes decoded so far.
    seen: usize,
    has_trailers: bool,
}

/// A body whose first part, or all of it, is in a file.
#[derive(Debug)]
struct SpooledBody {
    file: SpoolFile,
    /// What was received after the part in the file: the rest of the body that has arrived, or requests after it.
    rest: Vec<u8>,
    stage: SpoolStage,
}

/// The stages of such a body.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum SpoolStage {
    /// It is being received and written.
    Filling,
    /// It is being read back.
    Reading,
    /// All of the file has been read back, and the rest is in the buffer.
    Through,
    /// More has been received since, which is kept nowhere else.
    Streamed,
}

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
    /// Boxed because most requests have none.
    ahead: Option<Box<Lookahead>>,
    /// Boxed because very few requests have one.
    spooled: Option<Box<SpooledBody>>,
    /// The length of a body for which the client gave none.
    measured: Option<u64>,
}

impl<'a> ReceivedRequest<'a> {
    /// Starts with what was received so far. The head is valid once [`begin`](Self::begin) reports that it was accepted.
    pub(crate) fn new(received: &'a mut Buffer, head: &'a RequestHead) -> Self {
        Self {
            head,
            source: BodySource::new(received),
            parsed: false,
            head_len: 0,
            expects_continue: false,
            form: BodyForm::Chunks,
            ahead: None,
            spooled: None,
            measured: None,
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

    /// What was received of the first line of a refused head.
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

    /// Bytes received and consumed, counting the head uncompressed.
    pub(crate) fn received(&self) -> u64 {
        self.head_len + self.source.body.data_len().max(self.data_ahead())
    }

    /// Bytes of the body that have been read before it is sent.
    pub(crate) fn data_ahead(&self) -> u64 {
        self.ahead.as_ref().map_or(0, |ahead| ahead.decoder.data_len())
    }

    /// Bytes held besides the head.
    pub(crate) fn held_ahead(&self) -> usize {
        self.source.buffer.filled().len()
    }

    /// How the end of the body is found in the buffer; no body before the head is accepted.
    pub(crate) fn framing(&self) -> Framing {
        match self.measured {
            Some(length) => Framing::Length(length),
            None if self.parsed => self.head.framing(),
            None => Framing::None,
        }
    }

    /// The length of a body for which the client gave none.
    pub(crate) fn measured(&self) -> Option<u64> {
        self.measured
    }

    /// Decodes what has arrived of the body without consuming it.
    ///
    /// # Errors
    /// The body is malformed.
    pub(crate) fn look_ahead(&mut self) -> Result<Ahead, BodyError> {
        let framing = self.head.framing();
        let ahead = self.ahead.get_or_insert_with(|| {
            let decoder = BodyDecoder::new(framing, ChunkLimits::default());
            Box::new(Lookahead { decoder, seen: 0, has_trailers: false })
        });
        while !ahead.decoder.is_done() {
            let piece = ahead.decoder.decode(&self.source.buffer.filled()[ahead.seen..])?;
            if piece.event == Event::NeedMore && piece.consumed == 0 {
                return Ok(Ahead::Partial);
            }
            ahead.has_trailers |= matches!(piece.event, Event::Trailer { .. });
            ahead.seen += piece.consumed;
        }
        Ok(Ahead::Whole)
    }

    /// Removes the chunked coding of a body that has arrived completely, so that it has a length. A body with trailers keeps the coding,
    /// which they need.
    pub(crate) fn measure(&mut self) {
        let whole = self.ahead.as_ref().filter(|ahead| ahead.decoder.is_done() && !ahead.has_trailers);
        let Some(length) = whole.map(|ahead| ahead.decoder.data_len()) else { return };
        if self.head.framing() != Framing::Chunked {
            return;
        }
        self.measured = Some(length);
        if self.spooled.is_some() {
            // The coding is removed when the body is read back.
            return;
        }
        let mut decoder = BodyDecoder::new(Framing::Chunked, ChunkLimits::default());
        self.source.buffer.squeeze(|rest| {
            // It has already been decoded once without an error.
            let piece = if decoder.is_done() { None } else { decoder.decode(rest).ok() }?;
            let data = if let Event::Data(data) = piece.event { data } else { 0..0 };
            Some((piece.consumed, data))
        });
        self.source.body = self.whole_body();
    }

    /// Decoded bytes that are still in the buffer.
    pub(crate) fn seen_ahead(&self) -> usize {
        self.ahead.as_ref().map_or(0, |ahead| ahead.seen)
    }

    /// Whether some of the body is in a file or being written to one.
    pub(crate) fn is_spooled(&self) -> bool {
        self.spooled.is_some()
    }

    /// Starts to write the body to a file.
    pub(crate) fn begin_spooling(&mut self, file: SpoolFile) {
        self.spooled = Some(Box::new(SpooledBody { file, rest: Vec::new(), stage: SpoolStage::Filling }));
    }

    /// Begins to write the decoded bytes; `false` if there is no space.
    pub(crate) fn spool(&mut self) -> bool {
        let seen = self.seen_ahead();
        self.spooled.as_mut().is_some_and(|spooled| spooled.file.write(&self.source.buffer.filled()[..seen]))
    }

    /// Waits until they are written.
    ///
    /// # Errors
    /// They can't be written, and are still in the buffer.
    pub(crate) fn poll_spooled(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let (Some(spooled), Some(ahead)) = (&mut self.spooled, &mut self.ahead) {
            let written = ready!(spooled.file.poll_written(cx))?;
            self.source.buffer.consume(written);
            ahead.seen -= written;
        }
        Poll::Ready(Ok(()))
    }

    /// Ends writing. From now on the body is read back, starting with the file.
    pub(crate) fn end_spooling(&mut self) {
        if self.spooled.as_ref().is_some_and(|spooled| spooled.file.written() == 0) {
            self.spooled = None;
        }
        if let Some(spooled) = &mut self.spooled {
            spooled.rest = self.source.buffer.filled().to_vec();
            spooled.stage = SpoolStage::Reading;
            self.source.buffer.drop_filled();
            self.source.body = self.whole_body();
        }
    }

    /// Reads more of the body from its file; `None` if there is no file or nothing more in it.
    pub(crate) fn poll_read_again(&mut self, cx: &mut Context<'_>, store: &Store) -> Option<Poll<io::Result<()>>> {
        let spooled = self.spooled.as_mut()?;
        match spooled.stage {
            SpoolStage::Reading => {}
            SpoolStage::Filling => return None,
            SpoolStage::Through | SpoolStage::Streamed => {
                spooled.stage = SpoolStage::Streamed;
                return None;
            }
        }
        store.make_room(self.source.buffer, Some(spooled.file.left()), LARGE);
        let read = spooled.file.poll_read(cx, self.source.buffer);
        if spooled.file.left() == 0 {
            spooled.stage = SpoolStage::Through;
            store.fit(self.source.buffer, spooled.rest.len());
            self.source.buffer.append(&spooled.rest);
        }
        Some(read)
    }

    /// The data of the body, if all of it has arrived.
    pub(crate) fn whole_data(&self) -> Option<Vec<u8>> {
        let mut decoder = BodyDecoder::new(self.framing(), ChunkLimits::default());
        let mut rest = self.source.buffer.filled();
        let mut data = Vec::with_capacity(rest.len());
        while !decoder.is_done() {
            let piece = decoder.decode(rest).ok()?;
            match piece.event {
                Event::NeedMore if piece.consumed == 0 => return None,
                Event::Data(range) => data.extend_from_slice(&rest[range]),
                Event::NeedMore | Event::Trailer { .. } | Event::End => {}
            }
            rest = &rest[piece.consumed..];
        }
        Some(data)
    }

    /// Sets how the endpoint learns where the body ends, for the next tries.
    pub(crate) fn set_form(&mut self, form: BodyForm) {
        self.form = form;
    }

    /// Whether the body can be read again from its beginning.
    pub(crate) fn can_rewind(&self) -> bool {
        self.spooled
            .as_ref()
            .map_or_else(|| self.source.buffer.can_rewind(), |spooled| spooled.stage != SpoolStage::Streamed)
    }

    /// Goes back to the beginning of the body.
    pub(crate) fn rewind(&mut self) {
        let rewound = self.can_rewind();
        if let Some(spooled) = &mut self.spooled {
            spooled.file.rewind();
            spooled.stage = SpoolStage::Reading;
            self.source.buffer.drop_filled();
        } else {
            self.source.buffer.rewind();
        }
        debug_assert!(rewound, "a try begins with the whole request");
        self.source.body = self.whole_body();
    }

    /// Whether the client waits for `100 Continue` and nothing of its body has arrived. True only once.
    pub(crate) fn takes_permission(&mut self) -> bool {
        std::mem::take(&mut self.expects_continue) && self.source.buffer.is_empty()
    }

    fn whole_body(&self) -> RelayedBody {
        match (&self.spooled, self.form) {
            // A measured body still has its coding in the file.
            (Some(_), BodyForm::Chunks) if self.measured.is_some() => {
                RelayedBody::new(Framing::Chunked, BodyForm::Close)
            }
            (Some(_), form) if self.measured.is_some() => RelayedBody::new(Framing::Chunked, form),
            (_, form) => RelayedBody::new(self.framing(), form),
        }
    }
}
