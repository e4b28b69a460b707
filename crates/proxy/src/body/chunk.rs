//! The chunked transfer coding (RFC 9112 7.1), both ways, without copying data.
//!
//! A line of the coding is consumed only once it is complete; until then the caller keeps its bytes. [`ChunkDecoder`] is for
//! bodies that are read or re-framed; [`ChunkRelay`] copies a body from one chunked message to another and forwards whole runs of
//! chunks unchanged.

use std::ops::Range;

use crate::http::byte_class::{is_value, trim};
use crate::http::{BodyError, NameRules, parse_line};
use crate::limit::{CHUNK_EXTENSIONS, CHUNK_LINE, TRAILERS};
use fairway_model::{KnownField, KnownSet};

/// Limits on what a chunked body may spend on anything except data. Lengths are in bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ChunkLimits {
    /// One chunk-size line with its extension. Default 256.
    pub size_line: u32,
    /// All extensions of a message together (a limit per line alone led to CVE-2023-39326). Default 4 KiB.
    pub extensions: u32,
    /// The trailer section. Default 8 KiB.
    pub trailers: u32,
    /// Accepted names of trailers; others are dropped. Default [`NameRules::Plain`], as for requests.
    pub names: NameRules,
}

impl Default for ChunkLimits {
    fn default() -> Self {
        Self {
            size_line: CHUNK_LINE as u32,
            extensions: CHUNK_EXTENSIONS as u32,
            trailers: TRAILERS as u32,
            names: NameRules::Plain,
        }
    }
}

/// What a call consumed from its input. Ranges are relative to that input.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DecodedPiece {
    /// Bytes to drop from the front of the input, those of the event included.
    pub consumed: usize,
    /// What those bytes are.
    pub event: Event,
}

/// A part of a body.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// Data, never empty.
    Data(Range<usize>),
    /// A trailer field that may be forwarded. Those that may not (RFC 9110 6.5.1) are dropped.
    Trailer {
        /// Position of its name.
        name: Range<usize>,
        /// Position of its value.
        value: Range<usize>,
    },
    /// Nothing more can be decoded from this input; present the rest again with more bytes after it.
    NeedMore,
    /// The body is complete. What follows belongs to the next message.
    End,
}

/// Removes the chunked coding from a body.
#[derive(Clone, Debug)]
pub struct ChunkDecoder {
    state: State,
    limits: ChunkLimits,
    // Narrow types: each connection has several of these.
    extensions: u32,
    trailers: u32,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// At the start of a chunk-size line.
    Size,
    /// Bytes of the chunk still missing.
    Data(u64),
    /// After the data of a chunk.
    DataEnd,
    /// At the start of a trailer line.
    Trailers,
    Done,
}

/// One element of the coding.
enum Element {
    /// A size line.
    Size(u64),
    Data,
    DataEnd,
    Trailer(Option<(Range<usize>, Range<usize>)>),
    NeedMore,
    End,
}

impl ChunkDecoder {
    /// Creates a decoder at the start of a body.
    pub const fn new(limits: ChunkLimits) -> Self {
        Self { state: State::Size, limits, extensions: 0, trailers: 0 }
    }

    /// Whether the body is complete.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Decodes from the front of `input` up to and including the next event.
    ///
    /// # Errors
    /// The body is malformed; later calls have no meaning and the connection must be closed.
    pub fn decode(&mut self, input: &[u8]) -> Result<DecodedPiece, BodyError> {
        let mut at = 0;
        loop {
            let (taken, element) = self.element(&input[at..])?;
            let from = at;
            at += taken;
            let event = match element {
                Element::Data => Event::Data(from..at),
                Element::Trailer(Some((name, value))) => Event::Trailer {
                    name: from + name.start..from + name.end,
                    value: from + value.start..from + value.end,
                },
                Element::NeedMore => Event::NeedMore,
                Element::End => Event::End,
                Element::Size(_) | Element::DataEnd | Element::Trailer(None) => continue,
            };
            return Ok(DecodedPiece { consumed: at, event });
        }
    }

    /// Decodes one element at the front of `input`.
    fn element(&mut self, input: &[u8]) -> Result<(usize, Element), BodyError> {
        match self.state {
            State::Size => {
                let Some(line) = line(
                    input,
                    self.limits.size_line as usize,
                    BodyError::ChunkLineTooLong,
                    BodyError::InvalidChunkSize,
                )?
                else {
                    return Ok((0, Element::NeedMore));
                };
                let (size, digits) = chunk_size(line)?;
                // A line is within its limit.
                self.extensions += (line.len() - digits) as u32;
                if self.extensions > self.limits.extensions {
                    return Err(BodyError::TooManyExtensions);
                }
                self.state = if size == 0 { State::Trailers } else { State::Data(size) };
                Ok((line.len() + 2, Element::Size(size)))
            }
            State::Data(_) if input.is_empty() => Ok((0, Element::NeedMore)),
            State::Data(missing) => {
                let taken = usize::try_from(missing).map_or(input.len(), |missing| missing.min(input.len()));
                let missing = missing - taken as u64;
                self.state = if missing == 0 { State::DataEnd } else { State::Data(missing) };
                Ok((taken, Element::Data))
            }
            State::DataEnd => match input {
                [b'\r', b'\n', ..] => {
                    self.state = State::Size;
                    Ok((2, Element::DataEnd))
                }
                [] | [b'\r'] => Ok((0, Element::NeedMore)),
                _ => Err(BodyError::MissingChunkEnd),
            },
            State::Trailers => {
                let limit = (self.limits.trailers - self.trailers) as usize;
                let Some(line) = line(input, limit, BodyError::TrailersTooLong, BodyError::InvalidTrailer)? else {
                    return Ok((0, Element::NeedMore));
                };
                self.trailers += line.len() as u32 + 2;
                if line.is_empty() {
                    self.state = State::Done;
                    return Ok((2, Element::End));
                }
                Ok((line.len() + 2, Element::Trailer(trailer(line, self.limits.names)?)))
            }
            State::Done => Ok((0, Element::End)),
        }
    }
}

/// Relays a chunked body to another chunked message. Canonical parts are forwarded unchanged, chunk framing included, so that the
/// common case is one range per read; extensions and forbidden trailers are removed.
#[derive(Clone, Debug)]
pub struct ChunkRelay {
    decoder: ChunkDecoder,
    data: u64,
}

/// What a call of [`ChunkRelay::relay`] consumed and what to send for it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Relayed {
    /// Bytes to drop from the front of the input after acting on `relay`.
    pub consumed: usize,
    /// What to send.
    pub relay: Relay,
}

/// What to send, in order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Relay {
    /// These bytes of the input, unchanged.
    Forward(Range<usize>),
    /// What the call appended to its output.
    Rewritten,
    /// Nothing: more input is needed.
    NeedMore,
    /// What the call appended to its output (possibly nothing); the message is complete.
    End,
}

impl ChunkRelay {
    /// Creates a relay at the start of a body.
    pub const fn new(limits: ChunkLimits) -> Self {
        Self { decoder: ChunkDecoder::new(limits), data: 0 }
    }

    /// Whether the body is complete.
    pub fn is_done(&self) -> bool {
        self.decoder.is_done()
    }

    /// Bytes of data so far, without the coding.
    pub const fn data_len(&self) -> u64 {
        self.data
    }

    /// Relays as much as possible from the front of `input`. Bytes that can't be forwarded unchanged are appended to `out`.
    ///
    /// # Errors
    /// The body is malformed. Nothing of the malformed element was relayed, and the message sent so far must be aborted.
    pub fn relay(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Relayed, BodyError> {
        if self.is_rewritten(input) {
            return self.rewrite(input, out);
        }
        let mut at = 0;
        while at < input.len() && (at == 0 || !self.is_rewritten(&input[at..])) {
            let before = self.decoder.state;
            match self.decoder.element(&input[at..]) {
                Ok((0, _)) => break,
                Ok((taken, element)) => {
                    if matches!(element, Element::Data) {
                        self.data += taken as u64;
                    }
                    at += taken;
                }
                // Everything before the fault is sent first; the next call meets the fault again.
                Err(_) if at > 0 => {
                    self.decoder.state = before;
                    break;
                }
                Err(error) => return Err(error),
            }
        }
        let relay = if at == 0 { Relay::NeedMore } else { Relay::Forward(0..at) };
        Ok(Relayed { consumed: at, relay })
    }

    /// Relays one element that can't be forwarded unchanged.
    fn rewrite(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<Relayed, BodyError> {
        let was_done = self.is_done();
        let (consumed, element) = self.decoder.element(input)?;
        let relay = match element {
            Element::NeedMore => Relay::NeedMore,
            Element::Data | Element::DataEnd => Relay::Forward(0..consumed),
            Element::Size(size) => {
                write_size(size, out);
                Relay::Rewritten
            }
            Element::Trailer(kept) => {
                if let Some((name, value)) = kept {
                    for part in [&input[name], b": ", &input[value], b"\r\n"] {
                        out.extend_from_slice(part);
                    }
                }
                Relay::Rewritten
            }
            Element::End => {
                if !was_done {
                    out.extend_from_slice(b"\r\n");
                }
                Relay::End
            }
        };
        Ok(Relayed { consumed, relay })
    }

    /// Whether the element at the front of `rest` must be rewritten, or is too incomplete to tell.
    fn is_rewritten(&self, rest: &[u8]) -> bool {
        match self.decoder.state {
            State::Data(_) | State::DataEnd => false,
            State::Trailers | State::Done => true,
            State::Size => {
                let digits = rest.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
                let zero = rest[..digits].iter().all(|&byte| byte == b'0');
                zero || !rest[digits..].starts_with(b"\r\n")
            }
        }
    }
}

/// Adds the chunked coding to a body.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChunkEncoder;

impl ChunkEncoder {
    /// The bytes that end a chunk.
    pub const CHUNK_END: &'static [u8] = b"\r\n";
    /// The bytes that end a body without trailers.
    pub const END: &'static [u8] = b"0\r\n\r\n";

    /// Appends the size line of a chunk of `len` bytes, which must not be 0. The data and [`Self::CHUNK_END`] follow, as parts of
    /// a vectored write if they are large.
    pub fn begin(len: usize, out: &mut Vec<u8>) {
        debug_assert!(len > 0, "a chunk of no bytes ends the body");
        write_size(len as u64, out);
    }

    /// Appends `data` as one chunk, or nothing if it is empty.
    pub fn chunk(data: &[u8], out: &mut Vec<u8>) {
        if !data.is_empty() {
            Self::begin(data.len(), out);
            out.extend_from_slice(data);
            out.extend_from_slice(Self::CHUNK_END);
        }
    }

    /// Appends the end of a body with `trailers`, whose names and values must come from [`Event::Trailer`] or have been checked
    /// in the same way.
    pub fn end<'a>(trailers: impl IntoIterator<Item = (&'a [u8], &'a [u8])>, out: &mut Vec<u8>) {
        out.extend_from_slice(b"0\r\n");
        for (name, value) in trailers {
            for part in [name, b": ", value, b"\r\n"] {
                out.extend_from_slice(part);
            }
        }
        out.extend_from_slice(b"\r\n");
    }
}

fn write_size(size: u64, out: &mut Vec<u8>) {
    let digits = (64 - size.leading_zeros()).div_ceil(4).max(1);
    for digit in (0..digits).rev() {
        out.push(b"0123456789abcdef"[(size >> (digit * 4)) as usize & 15]);
    }
    out.extend_from_slice(b"\r\n");
}

/// The line at the front of `input` without its CRLF; `None` if it is incomplete. `limit` includes the CRLF.
fn line(
    input: &[u8],
    limit: usize,
    too_long: BodyError,
    bare_line_feed: BodyError,
) -> Result<Option<&[u8]>, BodyError> {
    let searchable = &input[..input.len().min(limit)];
    match memchr::memchr(b'\n', searchable) {
        Some(end) if end > 0 && input[end - 1] == b'\r' => Ok(Some(&input[..end - 1])),
        Some(_) => Err(bare_line_feed),
        None if input.len() >= limit => Err(too_long),
        None => Ok(None),
    }
}

/// The size, and the number of its digits. The rest of the line must be an extension, or spaces with which some old servers pad the line;
/// both are dropped.
fn chunk_size(line: &[u8]) -> Result<(u64, usize), BodyError> {
    let mut size = 0_u64;
    let mut digits = 0;
    while let Some(digit) = line.get(digits).and_then(|&byte| char::from(byte).to_digit(16)) {
        if digits == 16 {
            return Err(BodyError::ChunkSizeOverflow);
        }
        size = size << 4 | u64::from(digit);
        digits += 1;
    }
    if i64::try_from(size).is_err() {
        return Err(BodyError::ChunkSizeOverflow);
    }
    let rest = trim(&line[digits..]);
    if digits == 0 || !(rest.is_empty() || rest[0] == b';') || !is_value(rest) {
        return Err(BodyError::InvalidChunkSize);
    }
    Ok((size, digits))
}

/// Fields that must not follow the body are those that delimit, route, authorise or reinterpret the message (RFC 9110 6.5.1), and
/// those that the proxy itself interprets.
const KEPT_TRAILERS: KnownSet = KnownSet::of(&[KnownField::Etag, KnownField::Traceparent, KnownField::Tracestate]);

/// Name and value of a trailer line; `None` if it is dropped.
#[allow(clippy::type_complexity)]
fn trailer(line: &[u8], names: NameRules) -> Result<Option<(Range<usize>, Range<usize>)>, BodyError> {
    let field = parse_line(line, 0, names).map_err(|_| BodyError::InvalidTrailer)?;
    Ok(field
        .filter(|field| field.known() == KnownField::Other || KEPT_TRAILERS.contains(field.known()))
        .map(|field| (field.name_span().range(), field.value_span().range())))
}
