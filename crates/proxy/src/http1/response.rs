//! Response heads.

use super::byte_class::is_value;
use super::connection::Connection;
use super::error::HeadError;
use super::field::{Fields, NameRules, Span};
use super::framing::Framing;
use super::line::{HeadLimits, Line, LineEnd, Lines, Parsed};
use super::request::{Method, Version, is_version};
use fairway_model::{KnownField, KnownSet};

/// A response head as ranges of the buffer it was parsed from. Reused from response to response.
///
/// It is as strict as [`super::RequestHead`]: a backend that sends ambiguous framing is a 502, because whatever comes next
/// on its connection could be taken for the answer to someone else's request. Field names may be any token, and lines may end
/// in LF alone (RFC 9112 2.2) where that leaves no doubt, see [`HeadError::BareLineFeed`].
#[derive(Clone, Debug, Default)]
pub struct ResponseHead {
    lines: Lines,
    started: bool,
    over: bool,
    version: Version,
    status: u16,
    reason: Span,
    declared: Framing,
    connection: Connection,
    fields: Fields,
    line_ends: LineEnds,
}

/// Which line ends there were so far.
#[derive(Clone, Copy, Debug, Default)]
struct LineEnds {
    crlf: bool,
    lf: bool,
    /// The last line ended in LF alone.
    last_is_lf: bool,
    /// LF alone delimits a field that says where messages end.
    around_structure: bool,
}

impl LineEnds {
    /// Takes the next line, whose field is `known`.
    fn next(&mut self, line: &Line, known: Option<KnownField>) {
        let is_lf = line.ended_by == LineEnd::Lf;
        let delimited = is_lf || self.last_is_lf;
        self.around_structure |= delimited && known.is_some_and(|known| KnownSet::STRUCTURAL.contains(known));
        self.lf |= is_lf;
        self.crlf |= !is_lf;
        self.last_is_lf = is_lf;
    }

    /// Whether a reader who knows CRLF only would find the same end of the head and other fields of structure in it. Without
    /// such an end there is one way only to read the head.
    fn are_ambiguous(&self, empty: &Line) -> bool {
        self.around_structure && !self.last_is_lf && empty.ended_by == LineEnd::Crlf
    }
}

impl ResponseHead {
    /// Parses the head at the start of `buf`; resumable as [`super::RequestHead::parse`] is. No empty line is tolerated before
    /// the status line: it would be left over from the response before.
    ///
    /// # Errors
    /// Why the response is refused. The client gets 502 and the upstream connection is closed.
    pub fn parse(&mut self, buf: &[u8], limits: &HeadLimits) -> Result<Parsed, HeadError> {
        if self.over {
            self.clear();
        }
        let parsed = self.advance(buf, limits);
        self.over = !matches!(parsed, Ok(Parsed::Partial { .. }));
        parsed
    }

    /// Forgets what was parsed and keeps the memory.
    pub fn clear(&mut self) {
        let mut fields = std::mem::take(&mut self.fields);
        fields.clear();
        *self = Self { fields, ..Self::default() };
    }

    /// The protocol version.
    pub const fn version(&self) -> Version {
        self.version
    }

    /// The status code, 100 to 999.
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// The reason phrase as sent, possibly empty.
    pub const fn reason(&self) -> Span {
        self.reason
    }

    /// Whether another response to the same request follows: 1xx except 101.
    pub const fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }

    /// How the body ends, in answer to a request with `method` (RFC 9112 6.3). A 101 has none: what follows it belongs to the
    /// protocol that was agreed on. (There is no rule for `CONNECT`, as no such request is ever sent.)
    pub const fn framing(&self, method: Method) -> Framing {
        if matches!(method, Method::Head) || self.is_bodiless() {
            return Framing::None;
        }
        match self.declared {
            Framing::None => Framing::UntilClose,
            declared => declared,
        }
    }

    /// The framing that the fields speak of, whether or not there is a body: of use for `HEAD` and 304, whose
    /// `Content-Length` is that of another response. [`Framing::None`] if there is no such field.
    pub const fn declared_framing(&self) -> Framing {
        self.declared
    }

    /// Persistence and upgrade. `keep_alive` is false if the response has no body by rule but announces one nevertheless
    /// (RFC 9112 6.1, RFC 9110 8.6), for then it is not certain where it ends.
    pub const fn connection(&self) -> Connection {
        self.connection
    }

    /// The fields, without those listed in `Connection`.
    pub const fn fields(&self) -> &Fields {
        &self.fields
    }

    /// Whether a connection can carry another request after this response to a request with `method`, if the body is read to
    /// its end and nothing is left over behind it.
    pub fn allows_reuse(&self, method: Method) -> bool {
        self.connection.keep_alive && self.framing(method) != Framing::UntilClose && self.status != 101
    }

    const fn is_bodiless(&self) -> bool {
        matches!(self.status, 100..=199 | 204 | 304)
    }

    fn advance(&mut self, buf: &[u8], limits: &HeadLimits) -> Result<Parsed, HeadError> {
        if !self.started {
            let prefix = buf.len().min(5);
            if buf[..prefix] != b"HTTP/"[..prefix] {
                return Err(HeadError::InvalidVersion);
            }
            let Some(line) = self.lines.next(buf, limits.start_line, HeadError::HeadTooLong, limits, LineEnd::Lf)?
            else {
                return Ok(Parsed::Partial { started: !buf.is_empty() });
            };
            self.status_line(buf, line.end)?;
            self.line_ends.next(&line, None);
            self.started = true;
        }
        loop {
            let Some(line) = self.lines.next(buf, limits.field_line, HeadError::FieldTooLong, limits, LineEnd::Lf)?
            else {
                return Ok(Parsed::Partial { started: true });
            };
            if line.is_empty() {
                if self.line_ends.are_ambiguous(&line) {
                    return Err(HeadError::BareLineFeed);
                }
                self.line_ends.next(&line, None);
                self.conclude(buf)?;
                return Ok(Parsed::Complete { len: self.lines.position() });
            }
            let known = self.fields.push(buf, &line, NameRules::Tokens, limits)?;
            self.line_ends.next(&line, known);
        }
    }

    /// `version SP status [SP reason]`; the space before an empty reason phrase is often left out.
    fn status_line(&mut self, buf: &[u8], end: usize) -> Result<(), HeadError> {
        let line = &buf[..end];
        let (minor, rest) = match line {
            [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ (b'0' | b'1'), b' ', rest @ ..] => (*minor, rest),
            _ => {
                let version = memchr::memchr(b' ', line).map_or(line, |space| &line[..space]);
                return Err(if is_version(version) {
                    HeadError::UnsupportedVersion
                } else {
                    HeadError::InvalidVersion
                });
            }
        };
        self.version = if minor == b'1' { Version::Http11 } else { Version::Http10 };
        let (digits, reason) = match rest {
            [a, b, c] => ([*a, *b, *c], &rest[3..]),
            [a, b, c, b' ', reason @ ..] => ([*a, *b, *c], reason),
            _ => return Err(HeadError::InvalidStatus),
        };
        if !digits.iter().all(u8::is_ascii_digit) || digits[0] == b'0' || !is_value(reason) {
            return Err(HeadError::InvalidStatus);
        }
        self.status = digits.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'));
        self.reason = Span::new(end - reason.len(), end);
        Ok(())
    }

    fn conclude(&mut self, buf: &[u8]) -> Result<(), HeadError> {
        self.declared = Framing::from_fields(&self.fields, self.version, buf)?;
        self.connection = Connection::take(&mut self.fields, self.version, buf, &[])?;
        let announces_body = match self.declared {
            Framing::Length(length) => length > 0 && self.status != 304,
            declared => declared == Framing::Chunked && self.status != 304,
        };
        // Where line ends are mixed, a value may hold an LF that was meant as part of it: what it says is one response only.
        let mixed = self.line_ends.lf && self.line_ends.crlf;
        if (self.is_bodiless() && announces_body) || mixed {
            self.connection.keep_alive = false;
        }
        Ok(())
    }
}
