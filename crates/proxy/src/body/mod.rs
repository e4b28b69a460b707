//! Bodies, in the one form in which both versions of HTTP hold them: data with a length, or the chunked coding, which has an end and
//! trailers. And the request of a client, whose body lies behind its head in the same buffer.
//!
//! Invariant: a body is read to its exact end, and no byte after it belongs to it.

mod chunk;
mod decoder;
mod received;
mod relay;

pub(crate) use self::received::{Ahead, ReceivedRequest};
pub(crate) use self::relay::{BodySource, RelayedBody};

pub use self::chunk::{ChunkDecoder, ChunkEncoder, ChunkLimits, ChunkRelay, DecodedPiece, Event, Relay, Relayed};
pub use self::decoder::BodyDecoder;
