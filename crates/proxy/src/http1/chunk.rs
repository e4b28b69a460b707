//! The chunked transfer coding (RFC 9112 7.1), both ways, without copying data.
//!
//! A line of the coding is only taken when it is complete: until then nothing of it is consumed, and the caller keeps the
//! bytes. [`ChunkDecoder`] is for bodies that are read or re-framed; [`ChunkRelay`] is for bodies that go from one chunked
//! message to another and passes whole runs of chunks through as they are.

use std::ops::Range;

use super::field::{NameRules, parse_line};
use crate::http::BodyError;
use crate::http::byte_class::{is_value, trim};
use crate::limit::{CHUNK_EXTENSIONS, CHUNK_LINE, TRAILERS};
use fairway_model::{KnownField, KnownSet};

/// Bounds of what a chunked body may spend on anything but data. Lengths are in bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ChunkLimits {
    /// One chunk-size line with its extension. Default 256.
    pub size_line: usize,
    /// All extensions of a message together (CVE-2023-39326 is what a limit per line only leads to). Default 4 KiB.
    pub extensions: usize,
    /// The trailer section. Default 8 KiB.
    pub trailers: usize,
}

impl Default for ChunkLimits {
    fn default() -> Self {
        Self { size_line: CHUNK_LINE, extensions: CHUNK_EXTENSIONS, trailers: TRAILERS }
    }
}

/// What a call took from its input. Ranges are relative to that input.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Decoded {
    /// Bytes to drop from the front of the input, those of the event included.
    pub consumed: usize,
    /// What they were.
    pub event: Event,
}

/// A part of a body.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// Data, never empty.
    Data(Range<usize>),
    /// A trailer field that may be passed on. Those that may not (RFC 9110 6.5.1) are dropped.
    Trailer {
        /// Where its name is.
        name: Range<usize>,
        /// Where its value is.
        value: Range<usize>,
    },
    /// Nothing more to be had from this input; the rest of it must be presented again with more bytes behind it.
    NeedMore,
    /// The body is complete. What follows belongs to the next message.
    End,
}

/// Takes the chunked coding off a body.
#[derive(Clone, Debug)]
pub struct ChunkDecoder {
    state: State,
    limits: ChunkLimits,
    extensions: usize,
    trailers: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// At the start of a chunk-size line.
    Size,
    /// So many bytes of the chunk are missing.
    Data(u64),
    /// Behind the data of a chunk.
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
    /// A decoder at the start of a body.
    pub const fn new(limits: ChunkLimits) -> Self {
        Self { state: State::Size, limits, extensions: 0, trailers: 0 }
    }

    /// Whether the body is complete.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Reads from the front of `input` up to and including the next event.
    ///
    /// # Errors
    /// The body is malformed; every later call has no meaning and the connection is to be closed.
    pub fn decode(&mut self, input: &[u8]) -> Result<Decoded, BodyError> {
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
            return Ok(Decoded { consumed: at, event });
        }
    }

    /// Takes one element from the front of `input`.
    fn element(&mut self, input: &[u8]) -> Result<(usize, Element), BodyError> {
        match self.state {
            State::Size => {
                let Some(line) =
                    line(input, self.limits.size_line, BodyError::ChunkLineTooLong, BodyError::InvalidChunkSize)?
                else {
                    return Ok((0, Element::NeedMore));
                };
                let (size, digits) = chunk_size(line)?;
                self.extensions += line.len() - digits;
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
                let limit = self.limits.trailers - self.trailers;
                let Some(line) = line(input, limit, BodyError::TrailersTooLong, BodyError::InvalidTrailer)? else {
                    return Ok((0, Element::NeedMore));
                };
                self.trailers += line.len() + 2;
                if line.is_empty() {
                    self.state = State::Done;
                    return Ok((2, Element::End));
                }
                Ok((line.len() + 2, Element::Trailer(trailer(line)?)))
            }
            State::Done => Ok((0, Element::End)),
        }
    }
}

/// Passes a chunked body on to another chunked message. What is canonical goes through as it is, chunk framing included, so
/// that the common case is one range per read; extensions and forbidden trailers are taken out.
#[derive(Clone, Debug)]
pub struct ChunkRelay {
    decoder: ChunkDecoder,
    data: u64,
}

/// What a call of [`ChunkRelay::relay`] took and what is to be sent for it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Relayed {
    /// Bytes to drop from the front of the input once `relay` is acted on.
    pub consumed: usize,
    /// What is to be sent.
    pub relay: Relay,
}

/// What is to be sent, in order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Relay {
    /// These bytes of the input, as they are.
    Forward(Range<usize>),
    /// What the call appended to its output.
    Rewritten,
    /// Nothing: more input is needed.
    NeedMore,
    /// What the call appended to its output (possibly nothing), and the message is complete.
    End,
}

impl ChunkRelay {
    /// A relay at the start of a body.
    pub const fn new(limits: ChunkLimits) -> Self {
        Self { decoder: ChunkDecoder::new(limits), data: 0 }
    }

    /// Whether the body is complete.
    pub fn is_done(&self) -> bool {
        self.decoder.is_done()
    }

    /// Bytes of data (coding excluded) so far.
    pub const fn data_len(&self) -> u64 {
        self.data
    }

    /// Takes as much as possible from the front of `input`. Bytes that can't be sent as they are get appended to `out`.
    ///
    /// # Errors
    /// The body is malformed. Nothing of the malformed element was passed on, and the message sent so far must be aborted.
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
                // What came before the fault is sent first; the next call meets it again.
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

    /// Takes one element that is not sent as it is.
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

    /// Whether the element at the front of `rest` is not sent as it is, or not complete enough to tell.
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

/// Puts the chunked coding on a body.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChunkEncoder;

impl ChunkEncoder {
    /// What ends a chunk.
    pub const CHUNK_END: &'static [u8] = b"\r\n";
    /// What ends a body without trailers.
    pub const END: &'static [u8] = b"0\r\n\r\n";

    /// Appends the size line of a chunk of `len` bytes, which must not be 0. The data and [`Self::CHUNK_END`] follow it, as
    /// parts of a vectored write if they are large.
    pub fn begin(len: usize, out: &mut Vec<u8>) {
        debug_assert!(len > 0, "a chunk of no bytes ends the body");
        write_size(len as u64, out);
    }

    /// Appends `data` as one chunk; nothing if it is empty.
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

/// The line at the front of `input` without its CRLF, `None` if its end has not come. `limit` counts the CRLF.
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

/// The size and how many bytes of the line are its digits. What follows must be an extension, or blanks, which some old
/// servers pad the line with; either is dropped.
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

/// Fields that must not come behind the body: those that delimit, route, authorise or reinterpret the message
/// (RFC 9110 6.5.1), and whatever the proxy itself gives a meaning to.
const KEPT_TRAILERS: KnownSet = KnownSet::of(&[KnownField::Etag, KnownField::Traceparent, KnownField::Tracestate]);

/// Name and value of a trailer line, `None` if it is dropped.
#[allow(clippy::type_complexity)]
fn trailer(line: &[u8]) -> Result<Option<(Range<usize>, Range<usize>)>, BodyError> {
    let field = parse_line(line, 0, NameRules::Drop { underscores: false }).map_err(|_| BodyError::InvalidTrailer)?;
    Ok(field
        .filter(|field| field.known() == KnownField::Other || KEPT_TRAILERS.contains(field.known()))
        .map(|field| (field.name_span().range(), field.value_span().range())))
}
