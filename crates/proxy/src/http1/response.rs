//! Parses the head of a response.

use fairway_model::{KnownField, KnownSet};

use super::line::HeadLine;
use super::request::is_version;
use crate::http::byte_class::is_value;
use crate::http::{
    ConnectionOptions, Framing, HeadError, HeadLimits, HeadPart, LineEnd, LineEnds, NameRules, Parsed, ResponseHead,
    Span, Version,
};

impl LineEnds {
    /// Notes the line end of the next line, whose field is `known`.
    fn next(&mut self, line: &HeadLine, known: Option<KnownField>) {
        let delimited = line.ended_by == LineEnd::Lf || self.last == LineEnd::Lf;
        self.around_structure |= delimited && known.is_some_and(|known| KnownSet::STRUCTURAL.contains(known));
        // Nothing comes before the start line.
        self.mixed |= line.start > 0 && line.ended_by != self.last;
        self.last = line.ended_by;
    }

    /// Whether a parser that accepts only CRLF would find the same end of the head but other framing or connection fields in it.
    /// Without such an end, there is only one way to read the head.
    fn are_ambiguous(&self, empty: &HeadLine) -> bool {
        self.around_structure && self.last == LineEnd::Crlf && empty.ended_by == LineEnd::Crlf
    }
}

impl ResponseHead {
    /// Parses the head at the start of `buf`; resumes like [`RequestHead::parse`](crate::http::RequestHead::parse). No empty line is
    /// allowed before the status line, because it would be left over from the previous response.
    ///
    /// # Errors
    /// The reason why the response is refused. The client gets 502 and the upstream connection is closed.
    pub fn parse(&mut self, buf: &[u8], limits: &HeadLimits) -> Result<Parsed, HeadError> {
        if self.progress.part == HeadPart::Over {
            self.clear();
        }
        let parsed = self.advance(buf, limits);
        if !matches!(parsed, Ok(Parsed::Partial { .. })) {
            self.progress.part = HeadPart::Over;
        }
        parsed
    }

    fn advance(&mut self, buf: &[u8], limits: &HeadLimits) -> Result<Parsed, HeadError> {
        if self.progress.part == HeadPart::StartLine {
            let prefix = buf.len().min(5);
            if buf[..prefix] != b"HTTP/"[..prefix] {
                return Err(HeadError::InvalidVersion);
            }
            let Some(line) =
                self.progress.next_line(buf, limits.start_line, HeadError::HeadTooLong, limits, LineEnd::Lf)?
            else {
                return Ok(Parsed::Partial { started: !buf.is_empty() });
            };
            self.status_line(buf, line.end)?;
            self.line_ends.next(&line, None);
            self.progress.part = HeadPart::Fields;
        }
        loop {
            let Some(line) =
                self.progress.next_line(buf, limits.field_line, HeadError::FieldTooLong, limits, LineEnd::Lf)?
            else {
                return Ok(Parsed::Partial { started: true });
            };
            if line.is_empty() {
                if self.line_ends.are_ambiguous(&line) {
                    return Err(HeadError::BareLineFeed);
                }
                self.line_ends.next(&line, None);
                self.conclude(buf)?;
                return Ok(Parsed::Complete { len: self.progress.position() });
            }
            let known = self.fields.push_line(buf, &line, NameRules::Tokens, limits)?;
            self.line_ends.next(&line, known);
        }
    }

    /// Parses `version SP status [SP reason]`; the space before an empty reason phrase is often missing.
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
        self.connection = ConnectionOptions::take(&mut self.fields, self.version, buf, &[])?;
        let announces_body = match self.declared {
            Framing::Length(length) => length > 0 && self.status != 304,
            declared => declared == Framing::Chunked && self.status != 304,
        };
        // Where line ends are mixed, an LF may have been meant as part of a value, so the connection carries no other response.
        if (self.is_bodiless() && announces_body) || self.line_ends.mixed {
            self.connection.keep_alive = false;
        }
        Ok(())
    }
}
