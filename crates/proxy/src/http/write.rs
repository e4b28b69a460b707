//! Serialises heads. Written values can't change the structure of a message: names, values and start lines are checked here, whatever their
//! source.

use fairway_model::{FieldName, KnownSet};

use super::byte_class::{is_target, is_token, is_value};
use super::error::InvalidField;
use super::field::{Field, Fields};
use super::framing::Framing;
use super::response::ResponseHead;
use super::status::reason;
use fairway_model::decimal;

/// The interim response to `Expect: 100-continue`.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A field line that was checked when it was configured and is written with one copy.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PreparedField(Box<[u8]>);

impl PreparedField {
    /// Prepares the lines that `write` writes.
    pub fn written_by(write: impl FnOnce(&mut HeadWriter<'_>)) -> Self {
        let mut out = Vec::new();
        let mut writer = HeadWriter::new(&mut out);
        write(&mut writer);
        writer.finished = true;
        drop(writer);
        Self(out.into())
    }

    /// Prepares the line `name: value`.
    ///
    /// # Errors
    /// If the name is not a token or the value contains control bytes.
    pub fn new(name: &[u8], value: &[u8]) -> Result<Self, InvalidField> {
        let name = FieldName::try_from(name)?;
        if !is_value(value) {
            return Err(InvalidField::Value);
        }
        Ok(Self([name.as_bytes(), b": ", value, b"\r\n"].concat().into()))
    }
}

/// Appends one head to a buffer: a start line, fields, [`HeadWriter::finish`]. If dropped before that, it removes what it wrote, so that a
/// partial head is never sent.
#[derive(Debug)]
pub struct HeadWriter<'o> {
    out: &'o mut Vec<u8>,
    start: usize,
    finished: bool,
}

impl<'o> HeadWriter<'o> {
    /// Starts a head at the end of `out`.
    pub const fn new(out: &'o mut Vec<u8>) -> Self {
        let start = out.len();
        Self { out, start, finished: false }
    }

    /// Writes `METHOD target HTTP/1.1`.
    ///
    /// # Errors
    /// If `method` is not a token, or `target` is empty or contains a space, a control byte or `#`.
    pub fn request_line(&mut self, method: &[u8], target: &[u8]) -> Result<(), InvalidField> {
        if !is_token(method) || target.is_empty() || !is_target(target) {
            return Err(InvalidField::RequestLine);
        }
        self.parts(&[method, b" ", target, b" HTTP/1.1\r\n"]);
        Ok(())
    }

    /// Writes `HTTP/1.1 status reason`, with the registered reason phrase.
    ///
    /// # Errors
    /// If `status` does not have three digits.
    pub fn status_line(&mut self, status: u16) -> Result<(), InvalidField> {
        self.status_line_with_reason(status, reason(status).as_bytes())
    }

    /// Writes `HTTP/1.1 status reason`.
    ///
    /// # Errors
    /// If `status` does not have three digits or `reason` contains control bytes.
    pub fn status_line_with_reason(&mut self, status: u16, reason: &[u8]) -> Result<(), InvalidField> {
        if !(100..=999).contains(&status) {
            return Err(InvalidField::Status);
        }
        if !is_value(reason) {
            return Err(InvalidField::Value);
        }
        let digit = |value: u16| b'0' + (value % 10) as u8;
        self.parts(&[b"HTTP/1.1 ", &[digit(status / 100), digit(status / 10), digit(status), b' '], reason, b"\r\n"]);
        Ok(())
    }

    /// Writes the status line of a response from upstream, with its reason phrase, as HTTP/1.1.
    pub fn forward_status_line(&mut self, head: &ResponseHead, buf: &[u8]) {
        const VERSION: &[u8] = b"HTTP/1.1";
        // The line comes first in the head and was checked when the head was parsed; only the version may differ.
        let rest = &buf[VERSION.len()..head.reason().range().end];
        // The space before an empty reason may be missing.
        let end: &[u8] = if rest.len() == " 200".len() { b" \r\n" } else { b"\r\n" };
        self.parts(&[VERSION, rest, end]);
    }

    /// Writes the received `fields` in their order and with their names unchanged, except those in `drop` and those for which
    /// `drop_also` returns true (which is only called for the rest). Adjacent fields are copied together.
    ///
    /// `buf` is the buffer that they were parsed from. Keep `Content-Length` only if the body is forwarded unchanged; otherwise
    /// write the framing with [`HeadWriter::framing`].
    pub fn forward(&mut self, fields: &Fields, buf: &[u8], drop: KnownSet, mut drop_also: impl FnMut(&Field) -> bool) {
        let mut run = 0..0;
        for field in fields {
            if drop.contains(field.known()) || drop_also(field) {
                continue;
            }
            match field.verbatim_line() {
                Some(line) if line.start == run.end => run.end = line.end,
                Some(line) => {
                    self.out.extend_from_slice(&buf[run]);
                    run = line;
                }
                None => {
                    self.out.extend_from_slice(&buf[run]);
                    run = 0..0;
                    self.parts(&[field.name(buf), b": ", field.value(buf), b"\r\n"]);
                }
            }
        }
        self.out.extend_from_slice(&buf[run]);
    }

    /// Writes one field.
    ///
    /// # Errors
    /// If `value` contains control bytes; nothing is written then.
    pub fn field(&mut self, name: FieldName<'_>, value: &[u8]) -> Result<(), InvalidField> {
        if !is_value(value) {
            return Err(InvalidField::Value);
        }
        let out = &mut *self.out;
        out.reserve(name.as_bytes().len() + value.len() + 4);
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// Writes one field whose value is the concatenation of `parts`.
    ///
    /// # Errors
    /// If a part contains control bytes; nothing is written then.
    pub fn field_of(&mut self, name: FieldName<'_>, parts: &[&[u8]]) -> Result<(), InvalidField> {
        if !parts.iter().all(|part| is_value(part)) {
            return Err(InvalidField::Value);
        }
        self.parts(&[name.as_bytes(), b": "]);
        self.parts(parts);
        self.out.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// Writes one field with a decimal number.
    pub fn field_number(&mut self, name: FieldName<'_>, number: u64) {
        self.parts(&[name.as_bytes(), b": "]);
        decimal::number(number, self.out);
        self.out.extend_from_slice(b"\r\n");
    }

    /// Writes the field Date, with a value from [`DateClock`](crate::respond::DateClock).
    pub(crate) fn date(&mut self, value: &[u8; 29]) {
        self.parts(&[b"Date: ", value, b"\r\n"]);
    }

    /// Writes a prepared field, which was checked earlier.
    pub fn prepared(&mut self, field: &PreparedField) {
        self.out.extend_from_slice(&field.0);
    }

    /// Writes the field that frames the body: `Content-Length`, `Transfer-Encoding: chunked`, or none. Forwarding must then drop
    /// `Content-Length` and `Transfer-Encoding`.
    pub fn framing(&mut self, framing: Framing) {
        match framing {
            Framing::None | Framing::UntilClose => {}
            Framing::Length(length) => {
                const NAME: FieldName<'_> = FieldName::from_static("Content-Length");
                self.field_number(NAME, length);
            }
            Framing::Chunked => self.out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
        }
    }

    /// Ends the head with an empty line.
    pub fn finish(mut self) {
        self.out.extend_from_slice(b"\r\n");
        self.finished = true;
    }

    fn parts(&mut self, parts: &[&[u8]]) {
        self.out.reserve(parts.iter().map(|part| part.len()).sum());
        for part in parts {
            self.out.extend_from_slice(part);
        }
    }
}

impl Drop for HeadWriter<'_> {
    fn drop(&mut self) {
        if !self.finished {
            self.out.truncate(self.start);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: FieldName<'_> = FieldName::from_static("X-Name");

    #[test]
    fn control_bytes_are_refused_everywhere() {
        for evil in [&b"a\r\nb"[..], b"a\nb", b"a\rb", b"a\0b", b"\x7f"] {
            let mut out = b"before".to_vec();
            let mut writer = HeadWriter::new(&mut out);
            assert_eq!(writer.field(NAME, evil), Err(InvalidField::Value));
            assert_eq!(writer.field_of(NAME, &[b"ok", evil]), Err(InvalidField::Value));
            assert_eq!(writer.request_line(b"GET", evil), Err(InvalidField::RequestLine));
            assert_eq!(writer.request_line(evil, b"/"), Err(InvalidField::RequestLine));
            assert_eq!(writer.status_line_with_reason(200, evil), Err(InvalidField::Value));
            writer.finish();
            assert_eq!(out, b"before\r\n");
            assert_eq!(PreparedField::new(b"a", evil), Err(InvalidField::Value));
            assert_eq!(PreparedField::new(evil, b"a"), Err(InvalidField::Name));
            assert!(FieldName::try_from(evil).is_err());
        }
        assert_eq!(PreparedField::new(b"", b"a"), Err(InvalidField::Name));
        assert_eq!(PreparedField::new(b"a:b", b"a"), Err(InvalidField::Name));
    }

    #[test]
    fn a_head_that_is_not_finished_is_taken_back() {
        let mut out = b"before".to_vec();
        let mut writer = HeadWriter::new(&mut out);
        writer.status_line(200).unwrap();
        drop(writer);
        assert_eq!(out, b"before");
    }

    #[test]
    fn lines_are_written_as_expected() {
        let mut out = Vec::new();
        let mut writer = HeadWriter::new(&mut out);
        writer.status_line(404).unwrap();
        assert_eq!(writer.status_line(99), Err(InvalidField::Status));
        writer.field_of(NAME, &[b"a", b", ", b"b"]).unwrap();
        writer.prepared(&PreparedField::new(b"a", b"b").unwrap());
        writer.framing(Framing::Length(u64::MAX));
        writer.framing(Framing::Length(0));
        writer.framing(Framing::Chunked);
        writer.finish();
        let expected: &[u8] =
            b"HTTP/1.1 404 Not Found\r\nX-Name: a, b\r\na: b\r\nContent-Length: 18446744073709551615\r\n\
            Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert_eq!(out, expected);
    }
}
