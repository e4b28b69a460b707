//! Parses the head of a request.

use fairway_model::KnownField;

use crate::http::byte_class::is_target;
use crate::http::{
    Authority, ConnectionOptions, Framing, HeadError, HeadLimits, HeadPart, LineEnd, Method, Parsed, RequestHead, Span,
    TargetForm, Version,
};
use crate::limit::LEADING_EMPTY_LINES;

impl RequestHead {
    /// Parses the head at the start of `buf`. After [`Parsed::Partial`], call again with the same bytes and more after them;
    /// searched bytes are not searched again. After completion or an error, the next call starts a new head.
    ///
    /// Everything that follows from the head alone is decided here: framing, host, persistence, expectation, upgrade.
    ///
    /// # Errors
    /// The reason why the request is refused; answer with [`HeadError::status`] and close the connection.
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
        while self.progress.part == HeadPart::StartLine {
            match buf.get(self.progress.position()) {
                None => return Ok(Parsed::Partial { started: false }),
                Some(b'A'..=b'Z' | b'\r') => {}
                Some(b'\n') => return Err(HeadError::BareLineFeed),
                // Refused before the line is complete: a TLS handshake on the wrong port may never send a line end.
                Some(_) => return Err(HeadError::InvalidMethod),
            }
            let Some(line) = self.progress.next_line(
                buf,
                limits.start_line,
                HeadError::RequestLineTooLong,
                limits,
                LineEnd::Crlf,
            )?
            else {
                return Ok(Parsed::Partial { started: buf.get(self.progress.position()) != Some(&b'\r') });
            };
            if line.is_empty() {
                self.empty_lines += 1;
                if self.empty_lines > LEADING_EMPTY_LINES {
                    return Err(HeadError::LeadingEmptyLines);
                }
                continue;
            }
            self.request_line(buf, line.start, line.end)?;
            self.progress.part = HeadPart::Fields;
        }
        let rules = limits.names;
        loop {
            let Some(line) =
                self.progress.next_line(buf, limits.field_line, HeadError::FieldTooLong, limits, LineEnd::Crlf)?
            else {
                return Ok(Parsed::Partial { started: true });
            };
            if line.is_empty() {
                self.conclude(buf, &limits.guarded)?;
                return Ok(Parsed::Complete { len: self.progress.position() });
            }
            self.fields.push_line(buf, &line, rules, limits)?;
        }
    }

    /// `method SP target SP version`, separated by single spaces.
    fn request_line(&mut self, buf: &[u8], start: usize, end: usize) -> Result<(), HeadError> {
        let line = &buf[start..end];
        let method_len = memchr::memchr(b' ', line).ok_or(HeadError::InvalidStartLine)?;
        self.method = Method::parse(&line[..method_len])?;
        self.method_span = Span::new(start, start + method_len);
        let rest = &line[method_len + 1..];
        let target_len = match rest {
            [target @ .., b' ', b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ (b'0' | b'1')] => {
                self.version = if *minor == b'1' { Version::Http11 } else { Version::Http10 };
                target.len()
            }
            _ => return Err(unsupported_version(rest)),
        };
        let from = start + method_len + 1;
        self.read_target(buf, from, from + target_len)
    }

    fn read_target(&mut self, buf: &[u8], start: usize, end: usize) -> Result<(), HeadError> {
        let target = &buf[start..end];
        if !is_target(target) {
            return Err(HeadError::InvalidTarget);
        }
        self.target_span = Span::new(start, end);
        let path_start = match target {
            [b'/', ..] => start,
            b"*" if self.method == Method::Options => {
                self.target = TargetForm::Asterisk;
                start
            }
            _ => {
                let (https, scheme_len) = scheme(target).ok_or(HeadError::InvalidTarget)?;
                let rest = &target[scheme_len..];
                let authority_len = memchr::memchr2(b'/', b'?', rest).unwrap_or(rest.len());
                let host = start + scheme_len;
                self.target = TargetForm::Absolute { https };
                self.authority = Some(Authority::parse(buf, host, host + authority_len)?);
                host + authority_len
            }
        };
        let rest = &buf[path_start..end];
        match memchr::memchr(b'?', rest) {
            Some(mark) => {
                self.path = Span::new(path_start, path_start + mark);
                self.query = Some(Span::new(path_start + mark + 1, end));
            }
            None => self.path = Span::new(path_start, end),
        }
        Ok(())
    }

    /// Decides what depends on all fields together.
    fn conclude(&mut self, buf: &[u8], guarded: &[Box<[u8]>]) -> Result<(), HeadError> {
        self.framing = Framing::from_fields(&self.fields, self.version, buf)?;
        self.host(buf)?;
        if let Some(expectation) = self.fields.get(KnownField::Expect, buf) {
            let known = expectation.eq_ignore_ascii_case(b"100-continue");
            if !known || self.fields.repeated().contains(KnownField::Expect) {
                return Err(HeadError::UnknownExpectation);
            }
            // RFC 9110 10.1.1: ignored in HTTP/1.0, and pointless without a body.
            self.expects_continue = self.version == Version::Http11 && !self.framing.is_empty();
        }
        self.connection = ConnectionOptions::take(&mut self.fields, self.version, buf, guarded)?;
        Ok(())
    }

    fn host(&mut self, buf: &[u8]) -> Result<(), HeadError> {
        if self.fields.repeated().contains(KnownField::Host) {
            return Err(HeadError::DuplicateHost);
        }
        let host = self.fields.iter().find(|field| field.known() == KnownField::Host);
        let Some(span) = host.map(|field| field.value_span().range()) else {
            return if self.version == Version::Http10 { Ok(()) } else { Err(HeadError::MissingHost) };
        };
        let authority = Authority::parse(buf, span.start, span.end)?;
        // RFC 9112 3.2.2: an absolute target wins, but an invalid `Host` is still refused.
        self.authority.get_or_insert(authority);
        Ok(())
    }
}

/// Whether the scheme is `https`, and the length of `scheme://`.
fn scheme(target: &[u8]) -> Option<(bool, usize)> {
    let is = |scheme: &[u8]| target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme));
    if is(b"http://") {
        Some((false, 7))
    } else if is(b"https://") {
        Some((true, 8))
    } else {
        None
    }
}

/// The reason why a request line doesn't end in a supported version.
fn unsupported_version(rest: &[u8]) -> HeadError {
    let Some(space) = memchr::memrchr(b' ', rest) else {
        return HeadError::InvalidStartLine;
    };
    if is_version(&rest[space + 1..]) { HeadError::UnsupportedVersion } else { HeadError::InvalidVersion }
}

/// Matches `HTTP/x.y`; up to three digits each still count as a version number.
pub(super) fn is_version(text: &[u8]) -> bool {
    let Some(numbers) = text.strip_prefix(b"HTTP/") else {
        return false;
    };
    let is_number = |digits: &[u8]| (1..=3).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit);
    match memchr::memchr(b'.', numbers) {
        Some(dot) => is_number(&numbers[..dot]) && is_number(&numbers[dot + 1..]),
        None => false,
    }
}
