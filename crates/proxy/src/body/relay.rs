//! Bodies in transit from one side to the other: what to write next, and how the framing changes.
//!
//! Data is written from the buffer that received it. Small pieces are copied after the head, because one `write` of a contiguous block is
//! cheapest.

use std::ops::Range;

use super::chunk::{ChunkDecoder, ChunkEncoder, ChunkLimits, ChunkRelay, DecodedPiece, Event, Relay};
use super::decoder::BodyDecoder;
use crate::buffer::Buffer;
use crate::http::{BodyError, BodyForm, Framing, NameRules};
use crate::outgoing::Outgoing;

/// Pieces up to this size are copied after the head instead of being written from where they are. Two pages: copying them costs
/// about as much as the kernel spends on a second element of `writev`.
// No limit: it chooses between two ways to write.
const COPIED: usize = 8 << 10;

impl Outgoing {
    /// Takes as much of the body from `source` as can be written along with the pending bytes. Returns `true` if there is
    /// something to write.
    ///
    /// # Errors
    /// The body is malformed.
    pub(crate) fn fill(&mut self, body: &mut RelayedBody, source: &mut Buffer) -> Result<bool, BodyError> {
        if self.is_closed() {
            return Ok(true);
        }
        self.drop_written();
        while !body.ended && self.lead.len() < 2 * COPIED {
            let Some(piece) = body.next(source.filled(), &mut self.lead)? else {
                break;
            };
            if piece.send.len() > COPIED {
                self.put(piece.send, piece.taken, piece.tail);
                break;
            }
            self.lead.extend_from_slice(&source.filled()[piece.send]);
            if piece.tail {
                self.lead.extend_from_slice(ChunkEncoder::CHUNK_END);
            }
            source.consume(piece.taken);
        }
        Ok(!self.is_empty())
    }
}

/// The source of a body: its receive buffer, and its framing there.
#[derive(Debug)]
pub(crate) struct BodySource<'a> {
    pub(crate) buffer: &'a mut Buffer,
    pub(crate) body: RelayedBody,
}

impl<'a> BodySource<'a> {
    /// Creates a source with a buffer and no body yet.
    pub(crate) fn new(buffer: &'a mut Buffer) -> Self {
        Self { buffer, body: RelayedBody::new(Framing::None, BodyForm::Chunks) }
    }

    /// Bytes of the body not received yet, if known.
    pub(crate) fn to_come(&self) -> Option<u64> {
        let there = self.buffer.filled().len() as u64;
        self.body.remaining().map(|left| left.saturating_sub(there))
    }
}

impl BodySource<'_> {
    /// Takes the next data of a body that is sent in frames, at most `most` bytes; `false` if there is none yet.
    ///
    /// # Errors
    /// The body is malformed.
    pub(crate) fn take_data(&mut self, most: usize, take: impl FnOnce(&[u8])) -> Result<bool, BodyError> {
        while !self.body.ended {
            let filled = self.buffer.filled();
            let input = &filled[..filled.len().min(most)];
            let piece = self.body.decode(input)?;
            if let Event::Data(range) = piece.event {
                take(&input[range]);
                self.buffer.consume(piece.consumed);
                return Ok(true);
            }
            if piece.event == Event::NeedMore && piece.consumed == 0 {
                break;
            }
            self.buffer.consume(piece.consumed);
        }
        Ok(false)
    }
}

/// A body in transit, with its framing on both sides.
#[derive(Debug)]
pub(crate) struct RelayedBody {
    kind: RelayKind,
    ended: bool,
}

#[derive(Debug)]
enum RelayKind {
    /// Data that is sent without coding.
    Plain(BodyDecoder),
    /// Chunked on both sides.
    Chunked(ChunkRelay),
    /// Data that is put into chunks.
    Chunking(BodyDecoder),
    /// Chunks that are removed, for recipients that speak HTTP/1.0. Trailers are lost.
    Unchunking(ChunkDecoder, u64),
}

/// The next piece.
struct Piece {
    /// Bytes to consume from the source.
    taken: usize,
    /// The part of them to send.
    send: Range<usize>,
    /// Whether the end of a chunk follows.
    tail: bool,
}

impl RelayedBody {
    /// Creates a body for a recipient.
    pub(crate) fn new(framing: Framing, form: BodyForm) -> Self {
        Self::within(framing, form, ChunkLimits::default())
    }

    /// Creates the body of a response, whose trailers may have any name.
    pub(crate) fn of_response(framing: Framing, form: BodyForm) -> Self {
        Self::within(framing, form, ChunkLimits { names: NameRules::Tokens, ..ChunkLimits::default() })
    }

    fn within(framing: Framing, form: BodyForm, limits: ChunkLimits) -> Self {
        let kind = match (framing, form) {
            (Framing::Chunked, BodyForm::Chunks) => RelayKind::Chunked(ChunkRelay::new(limits)),
            (Framing::Chunked, BodyForm::Close) => RelayKind::Unchunking(ChunkDecoder::new(limits), 0),
            (Framing::UntilClose, BodyForm::Chunks) => RelayKind::Chunking(BodyDecoder::new(framing, limits)),
            _ => RelayKind::Plain(BodyDecoder::new(framing, limits)),
        };
        Self { kind, ended: framing.is_empty() }
    }

    /// The framing announced to the recipient.
    pub(crate) fn announced(&self, declared: Framing) -> Framing {
        match self.kind {
            RelayKind::Chunked(_) | RelayKind::Chunking(_) => Framing::Chunked,
            RelayKind::Unchunking(..) => Framing::UntilClose,
            RelayKind::Plain(_) => declared,
        }
    }

    /// Whether the whole body was taken from the source.
    pub(crate) fn has_ended(&self) -> bool {
        self.ended
    }

    /// Bytes of data so far.
    pub(crate) fn data_len(&self) -> u64 {
        match &self.kind {
            RelayKind::Plain(decoder) | RelayKind::Chunking(decoder) => decoder.data_len(),
            RelayKind::Chunked(relay) => relay.data_len(),
            RelayKind::Unchunking(_, len) => *len,
        }
    }

    /// Bytes of data still to come, if known.
    pub(crate) fn remaining(&self) -> Option<u64> {
        match &self.kind {
            RelayKind::Plain(decoder) => decoder.remaining(),
            _ => None,
        }
    }

    /// Reports that the sender closed its side and that all its bytes were taken. Bytes that end the message are appended to
    /// `out`.
    ///
    /// # Errors
    /// [`BodyError::Incomplete`] if the body had not ended.
    pub(crate) fn close(&mut self, out: &mut Outgoing) -> Result<(), BodyError> {
        match &mut self.kind {
            RelayKind::Plain(decoder) => decoder.close()?,
            RelayKind::Chunking(decoder) => {
                decoder.close()?;
                out.lead.extend_from_slice(ChunkEncoder::END);
            }
            RelayKind::Chunked(_) | RelayKind::Unchunking(..) if !self.ended => return Err(BodyError::Incomplete),
            RelayKind::Chunked(_) | RelayKind::Unchunking(..) => {}
        }
        self.ended = true;
        Ok(())
    }

    /// Decodes from the front of `input`, for a recipient whose protocol has frames ([`BodyForm::Frames`]).
    ///
    /// # Errors
    /// The body is malformed.
    pub(crate) fn decode(&mut self, input: &[u8]) -> Result<DecodedPiece, BodyError> {
        let RelayKind::Plain(decoder) = &mut self.kind else {
            debug_assert!(false, "a body for frames has no coding");
            return Err(BodyError::Incomplete);
        };
        let decoded = decoder.decode(input)?;
        self.ended = decoder.is_done();
        Ok(decoded)
    }

    /// The next piece of `input`; rewritten parts are appended to `lead`. `None` if more input is needed.
    fn next(&mut self, input: &[u8], lead: &mut Vec<u8>) -> Result<Option<Piece>, BodyError> {
        match &mut self.kind {
            RelayKind::Plain(decoder) => {
                let decoded = decoder.decode(input)?;
                self.ended = decoder.is_done();
                Ok(match decoded.event {
                    Event::Data(send) => Some(Piece { taken: decoded.consumed, send, tail: false }),
                    _ => None,
                })
            }
            RelayKind::Chunking(decoder) => Ok(match decoder.decode(input)?.event {
                Event::Data(send) => {
                    ChunkEncoder::begin(send.len(), lead);
                    Some(Piece { taken: send.end, send, tail: true })
                }
                _ => None,
            }),
            RelayKind::Chunked(relay) => {
                let relayed = relay.relay(input, lead)?;
                self.ended = relay.is_done();
                let send = match relayed.relay {
                    Relay::Forward(range) => range,
                    Relay::Rewritten | Relay::End => 0..0,
                    Relay::NeedMore => return Ok(None),
                };
                Ok(Some(Piece { taken: relayed.consumed, send, tail: false }))
            }
            RelayKind::Unchunking(decoder, len) => {
                let decoded = decoder.decode(input)?;
                self.ended = decoder.is_done();
                let send = match decoded.event {
                    Event::Data(range) => range,
                    Event::Trailer { .. } | Event::End => 0..0,
                    Event::NeedMore if decoded.consumed == 0 => return Ok(None),
                    Event::NeedMore => 0..0,
                };
                *len += send.len() as u64;
                Ok(Some(Piece { taken: decoded.consumed, send, tail: false }))
            }
        }
    }
}
