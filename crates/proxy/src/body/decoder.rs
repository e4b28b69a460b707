//! Reads a body to its exact end, whatever its framing.

use super::chunk::{ChunkDecoder, ChunkLimits, DecodedPiece, Event};
use crate::http::{BodyError, Framing};

/// Decodes one body by its [`Framing`]. A connection may be reused only if [`BodyDecoder::is_done`] was true before it closed.
#[derive(Clone, Debug)]
pub struct BodyDecoder {
    kind: BodyKind,
    data: u64,
}

#[derive(Clone, Debug)]
enum BodyKind {
    /// Bytes still missing.
    Length(u64),
    Chunked(ChunkDecoder),
    UntilClose,
    /// The peer closed, which ends the body.
    Closed,
}

impl BodyDecoder {
    /// Creates a decoder at the start of a body.
    pub const fn new(framing: Framing, limits: ChunkLimits) -> Self {
        let kind = match framing {
            Framing::None => BodyKind::Length(0),
            Framing::Length(length) => BodyKind::Length(length),
            Framing::Chunked => BodyKind::Chunked(ChunkDecoder::new(limits)),
            Framing::UntilClose => BodyKind::UntilClose,
        };
        Self { kind, data: 0 }
    }

    /// Decodes from the front of `input` up to and including the next event. Input after the end of the body is not touched.
    ///
    /// # Errors
    /// The chunked coding is malformed; the connection must be closed.
    pub fn decode(&mut self, input: &[u8]) -> Result<DecodedPiece, BodyError> {
        let decoded = match &mut self.kind {
            BodyKind::Length(0) | BodyKind::Closed => DecodedPiece { consumed: 0, event: Event::End },
            BodyKind::Length(_) | BodyKind::UntilClose if input.is_empty() => {
                DecodedPiece { consumed: 0, event: Event::NeedMore }
            }
            BodyKind::Length(missing) => {
                let taken = usize::try_from(*missing).map_or(input.len(), |missing| missing.min(input.len()));
                *missing -= taken as u64;
                DecodedPiece { consumed: taken, event: Event::Data(0..taken) }
            }
            BodyKind::UntilClose => DecodedPiece { consumed: input.len(), event: Event::Data(0..input.len()) },
            BodyKind::Chunked(decoder) => decoder.decode(input)?,
        };
        if let Event::Data(range) = &decoded.event {
            self.data += range.len() as u64;
        }
        Ok(decoded)
    }

    /// Tells the decoder that the peer closed its side and that all its bytes were decoded.
    ///
    /// # Errors
    /// [`BodyError::Incomplete`] if the body had not ended.
    pub fn close(&mut self) -> Result<(), BodyError> {
        if matches!(self.kind, BodyKind::UntilClose) {
            self.kind = BodyKind::Closed;
        }
        if self.is_done() { Ok(()) } else { Err(BodyError::Incomplete) }
    }

    /// Whether the body is complete.
    pub fn is_done(&self) -> bool {
        match &self.kind {
            BodyKind::Length(missing) => *missing == 0,
            BodyKind::Chunked(decoder) => decoder.is_done(),
            BodyKind::UntilClose => false,
            BodyKind::Closed => true,
        }
    }

    /// Bytes of data so far, without the coding.
    pub const fn data_len(&self) -> u64 {
        self.data
    }

    /// Bytes still to come, if known.
    pub const fn remaining(&self) -> Option<u64> {
        match self.kind {
            BodyKind::Length(missing) => Some(missing),
            BodyKind::Closed => Some(0),
            BodyKind::Chunked(_) | BodyKind::UntilClose => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoder(framing: Framing) -> BodyDecoder {
        BodyDecoder::new(framing, ChunkLimits::default())
    }

    #[test]
    fn length_takes_exactly_its_bytes() {
        let mut body = decoder(Framing::Length(5));
        assert_eq!(body.decode(b"abc"), Ok(DecodedPiece { consumed: 3, event: Event::Data(0..3) }));
        assert_eq!(body.close(), Err(BodyError::Incomplete));
        assert_eq!(body.decode(b"deGET"), Ok(DecodedPiece { consumed: 2, event: Event::Data(0..2) }));
        assert!(body.is_done());
        assert_eq!(body.decode(b"GET"), Ok(DecodedPiece { consumed: 0, event: Event::End }));
        assert_eq!(body.data_len(), 5);
    }

    #[test]
    fn no_body_is_done_at_once() {
        assert!(decoder(Framing::None).is_done());
        assert!(decoder(Framing::Length(0)).is_done());
    }

    #[test]
    fn until_close_ends_with_the_connection_only() {
        let mut body = decoder(Framing::UntilClose);
        assert_eq!(body.decode(b"abc"), Ok(DecodedPiece { consumed: 3, event: Event::Data(0..3) }));
        assert!(!body.is_done());
        assert_eq!(body.close(), Ok(()));
        assert!(body.is_done());
        assert_eq!(body.decode(b""), Ok(DecodedPiece { consumed: 0, event: Event::End }));
    }

    #[test]
    fn chunked_must_reach_its_last_chunk() {
        let mut body = decoder(Framing::Chunked);
        assert_eq!(body.decode(b"3\r\nabc\r\n"), Ok(DecodedPiece { consumed: 6, event: Event::Data(3..6) }));
        assert_eq!(body.close(), Err(BodyError::Incomplete));
    }
}
