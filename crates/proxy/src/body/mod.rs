//! Bodies, in the one form in which both versions of HTTP hold them: data with a length, or the chunked coding, which has an end and
//! trailers. Also the request of a client, whose body follows its head in the same buffer.
//!
//! Invariant: a body is read exactly to its end, and no byte after it is taken for part of it.

mod chunk;
mod decoder;
mod received;
mod relay;

pub(crate) use self::received::{Ahead, ReceivedRequest};
pub(crate) use self::relay::{BodySource, RelayedBody};

pub use self::chunk::{ChunkDecoder, ChunkEncoder, ChunkLimits, ChunkRelay, DecodedPiece, Event, Relay, Relayed};
pub use self::decoder::BodyDecoder;
