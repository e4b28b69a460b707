//! Compresses the body of a response between the endpoint and the client, in bounded memory.
//!
//! What the endpoint has sent is flushed before the proxy waits for more, so a response that arrives piece by piece reaches the client
//! piece by piece.

use crate::body::{BodySource, RelayedBody};
use crate::buffer::Buffer;
use crate::encode::Encoder;
use crate::http::{BodyError, BodyForm, Framing};
use crate::work::Store;

/// Maximum input that is encoded before the output is sent on.
// No limit: it divides the work into steps.
const STEP: usize = 16 << 10;

/// Output that justifies a write of its own.
// No limit: less is held back until there is more, or until the proxy waits for the endpoint.
const WORTH: usize = 4 << 10;

/// The compressed body of a response.
#[derive(Debug)]
pub(super) struct CompressedBody<'a> {
    encoder: Encoder,
    /// Whether some of the input may not be in the output yet.
    unflushed: bool,
    /// What the client gets.
    source: BodySource<'a>,
}

impl<'a> CompressedBody<'a> {
    /// An empty body in this memory, for a client that delimits bodies in this form.
    pub(super) fn new(encoder: Encoder, buffer: &'a mut Buffer, store: &Store, form: BodyForm) -> Self {
        store.supply(buffer);
        let mut source = BodySource::new(buffer);
        source.buffer.forgo_rewind();
        source.body = RelayedBody::new(Framing::UntilClose, form);
        Self { encoder, unflushed: false, source }
    }

    /// How the body is framed for the client.
    pub(super) fn framing(&self) -> Framing {
        self.source.body.announced(Framing::UntilClose)
    }

    /// The source of the body for the client.
    pub(super) fn source(&mut self) -> &mut BodySource<'a> {
        &mut self.source
    }

    /// Encodes what has arrived of the endpoint's body, as far as there is room. Returns whether all of the body is in the source, which
    /// then ends.
    ///
    /// # Errors
    /// The endpoint's body is malformed.
    pub(super) fn fill(&mut self, from: &mut BodySource<'_>) -> Result<bool, BodyError> {
        let Self { encoder, unflushed, .. } = self;
        loop {
            let is_due = !*unflushed || encoder.is_finished() || encoder.output().len() >= WORTH;
            if is_due && !pour(encoder.output(), self.source.buffer) {
                return Ok(false);
            }
            let step = encoder.step(STEP);
            if from.take_data(step, |data| encoder.write(data))? {
                *unflushed = true;
            } else if !from.body.has_ended() {
                return Ok(false);
            } else if encoder.is_finished() {
                return Ok(true);
            } else {
                encoder.finish();
            }
        }
    }

    /// Flushes what the encoder holds back, before the proxy waits for the endpoint. Returns whether there was anything to flush.
    pub(super) fn flush(&mut self) -> bool {
        let flushes = std::mem::take(&mut self.unflushed) && !self.encoder.is_finished();
        if flushes {
            self.encoder.flush();
        }
        flushes
    }
}

/// Moves output to the buffer; returns whether all of it fitted.
fn pour(output: &mut Vec<u8>, buffer: &mut Buffer) -> bool {
    if buffer.is_empty() {
        buffer.compact();
    }
    let count = output.len().min(buffer.room());
    buffer.append(&output[..count]);
    output.drain(..count);
    output.is_empty()
}
