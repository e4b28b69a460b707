//! The request of a client, in the form of HTTP/1 whatever the version: its head in the buffer, and its body behind it.

use std::io;
use std::task::{Context, Poll, ready};

use super::chunk::{ChunkLimits, Event};
use super::decoder::BodyDecoder;
use super::relay::{BodySource, RelayedBody};
use crate::buffer::Buffer;
use crate::http::{BodyError, BodyForm, Framing, Method, RequestHead, Spanned};
use crate::spool::SpoolFile;
use crate::work::{LARGE, Store};

/// How far a body has arrived that is read before it is sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Ahead {
    /// More of it is to come.
    Partial,
    /// All of it is there.
    Whole,
}

/// A body that is read before it is sent. It stays in the buffer as it was received.
#[derive(Debug)]
struct Lookahead {
    decoder: BodyDecoder,
    /// Bytes that were decoded.
    seen: usize,
    has_trailers: bool,
}

/// A body of which a file has the first part, or all.
#[derive(Debug)]
struct SpooledBody {
    file: SpoolFile,
    /// What was received after what the file has: the rest of the body, as far as it has come, or requests after it.
    rest: Vec<u8>,
    stage: SpoolStage,
}

/// What happens with such a body.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum SpoolStage {
    /// It is received and written.
    Filling,
    /// It is read again.
    Reading,
    /// All of it was read again, and the rest is in the buffer.
    Through,
    /// More was received since, which is nowhere else.
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
    /// Boxed because hardly any request has one.
    spooled: Option<Box<SpooledBody>>,
    /// The length of a body for which the client gave none.
    measured: Option<u64>,
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
        self.head_len + self.source.body.data_len().max(self.data_ahead())
    }

    /// Bytes of the body that were read before it is sent.
    pub(crate) fn data_ahead(&self) -> u64 {
        self.ahead.as_ref().map_or(0, |ahead| ahead.decoder.data_len())
    }

    /// Bytes that are held besides the head.
    pub(crate) fn held_ahead(&self) -> usize {
        self.source.buffer.filled().len()
    }

    /// How the end of the body is found in the buffer; no body before the head was accepted.
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

    /// Looks at what has arrived of the body, without taking it.
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

    /// Removes the chunked coding of a body of which all has arrived, so that it has a length. One with trailers keeps it: they need it.
    pub(crate) fn measure(&mut self) {
        let whole = self.ahead.as_ref().filter(|ahead| ahead.decoder.is_done() && !ahead.has_trailers);
        let Some(length) = whole.map(|ahead| ahead.decoder.data_len()) else { return };
        if self.head.framing() != Framing::Chunked {
            return;
        }
        self.measured = Some(length);
        if self.spooled.is_some() {
            // The coding is removed when it is read again.
            return;
        }
        let mut decoder = BodyDecoder::new(Framing::Chunked, ChunkLimits::default());
        self.source.buffer.squeeze(|rest| {
            // It was decoded once without an error.
            let piece = if decoder.is_done() { None } else { decoder.decode(rest).ok() }?;
            let data = if let Event::Data(data) = piece.event { data } else { 0..0 };
            Some((piece.consumed, data))
        });
        self.source.body = self.whole_body();
    }

    /// Bytes that were looked at and are still in the buffer.
    pub(crate) fn seen_ahead(&self) -> usize {
        self.ahead.as_ref().map_or(0, |ahead| ahead.seen)
    }

    /// Whether some of the body is in a file, or on its way there.
    pub(crate) fn is_spooled(&self) -> bool {
        self.spooled.is_some()
    }

    /// Lets a file take the body.
    pub(crate) fn begin_spooling(&mut self, file: SpoolFile) {
        self.spooled = Some(Box::new(SpooledBody { file, rest: Vec::new(), stage: SpoolStage::Filling }));
    }

    /// Begins to write what was looked at; `false` if there is no space.
    pub(crate) fn spool(&mut self) -> bool {
        let seen = self.seen_ahead();
        self.spooled.as_mut().is_some_and(|spooled| spooled.file.write(&self.source.buffer.filled()[..seen]))
    }

    /// Waits until it is written.
    ///
    /// # Errors
    /// It can't be written, and is still in the buffer.
    pub(crate) fn poll_spooled(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let (Some(spooled), Some(ahead)) = (&mut self.spooled, &mut self.ahead) {
            let written = ready!(spooled.file.poll_written(cx))?;
            self.source.buffer.consume(written);
            ahead.seen -= written;
        }
        Poll::Ready(Ok(()))
    }

    /// Ends that: from now on the body is read again, first what the file has.
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

    /// Reads more of the body from its file; `None` if there is none, or nothing more in it.
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

    /// The data of the body, if all of it is there.
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

    /// Sets how the endpoint learns where the body ends, for the tries to come.
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

    /// Whether the client waits for permission to send its body, of which nothing has arrived. It waits only once.
    pub(crate) fn takes_permission(&mut self) -> bool {
        std::mem::take(&mut self.expects_continue) && self.source.buffer.is_empty()
    }

    fn whole_body(&self) -> RelayedBody {
        match (&self.spooled, self.form) {
            // What was measured still has its coding in the file.
            (Some(_), BodyForm::Chunks) if self.measured.is_some() => {
                RelayedBody::new(Framing::Chunked, BodyForm::Close)
            }
            (Some(_), form) if self.measured.is_some() => RelayedBody::new(Framing::Chunked, form),
            (_, form) => RelayedBody::new(self.framing(), form),
        }
    }
}
