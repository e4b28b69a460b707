//! Writes the head of a request in the form of HTTP/1 into the buffer of the request, and parses it there.
//!
//! `h2` has already refused connection-specific fields, pseudo-headers that are missing, duplicate, unknown or late, names that aren't
//! lower case, and a `Content-Length` that doesn't fit the frames. Everything else is checked here, as strictly as in HTTP/1.

use ::http::header::{COOKIE, HOST};
use ::http::request::Parts;
use ::http::{HeaderMap, HeaderValue};
use fairway_model::{KnownField, KnownSet};
use h2::ext::Protocol;

use crate::buffer::Buffer;
use crate::http::byte_class::{NAME_CLASS, is_target, is_value, trim};
use crate::http::{
    Authority, ConnectionOptions, Field, Framing, HeadError, HeadLimits, HeadPart, Method, RequestHead, Span, Upgrade,
    Version, websocket,
};
use crate::work::Store;

const VERSION: &[u8] = b" HTTP/2.0\r\n";
const SEPARATOR: &[u8] = b": ";
const LINE_END: &[u8] = b"\r\n";
const WEBSOCKET: &[u8] = b"websocket";

/// Writes the head of a request at the front of `buffer` and parses it into `head`. `ended` says that no body follows; `random` is for the
/// key of a WebSocket, which HTTP/2 doesn't have and HTTP/1 needs.
///
/// Returns the length of the head.
///
/// # Errors
/// The reason why the request is refused. The buffer begins with the request line, unless that itself is refused.
pub(crate) fn receive_head(
    request: &Parts,
    ended: bool,
    buffer: &mut Buffer,
    head: &mut RequestHead,
    store: &Store,
    limits: &HeadLimits,
    random: impl FnOnce() -> [u64; 2],
) -> Result<usize, HeadError> {
    head.clear();
    let received = ReceivedHead { buffer, head, limits }.write(request, ended, store, random);
    head.progress.part = HeadPart::Over;
    received
}

/// What follows a head.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Follows {
    Nothing,
    Body,
    /// The bytes of another protocol.
    Tunnel,
}

struct ReceivedHead<'a> {
    buffer: &'a mut Buffer,
    head: &'a mut RequestHead,
    limits: &'a HeadLimits,
}

impl ReceivedHead<'_> {
    fn write(
        mut self,
        request: &Parts,
        ended: bool,
        store: &Store,
        random: impl FnOnce() -> [u64; 2],
    ) -> Result<usize, HeadError> {
        let connect = request.method == ::http::Method::CONNECT;
        let protocol = request.extensions.get::<Protocol>();
        let websocket = connect && protocol.is_some_and(|protocol| protocol.as_str().as_bytes() == WEBSOCKET);
        // RFC 8441 5: it corresponds to an HTTP/1 GET.
        let method = if websocket { b"GET" } else { request.method.as_str().as_bytes() };
        let target = request.uri.path_and_query().map_or("", |target| target.as_str()).as_bytes();
        let authority = request.uri.authority().map(|authority| authority.as_str().as_bytes());
        let length = method.len() + 1 + target.len() + VERSION.len();
        if length > self.limits.start_line {
            return Err(HeadError::RequestLineTooLong);
        }
        let size = self.size(length, authority, &request.headers, websocket);
        store.fit(self.buffer, size.min(self.limits.total).max(length));
        self.head.version = Version::Http2;
        let line = self.request_line(method, target);
        if connect && !websocket && protocol.is_some() {
            return Err(HeadError::UnknownProtocol);
        }
        line?;
        if size > self.limits.total {
            return Err(HeadError::HeadTooLong);
        }
        if request.headers.len() > self.limits.fields {
            return Err(HeadError::TooManyFields);
        }
        self.host(authority, &request.headers)?;
        self.fields(&request.headers, websocket)?;
        if websocket {
            self.field(KnownField::Upgrade, b"upgrade", WEBSOCKET);
            self.field(KnownField::SecWebSocketKey, b"sec-websocket-key", &websocket::key(random()));
        }
        self.buffer.append(LINE_END);
        self.conclude(match (websocket, ended) {
            (true, _) => Follows::Tunnel,
            (false, true) => Follows::Nothing,
            (false, false) => Follows::Body,
        })?;
        Ok(self.buffer.filled().len())
    }

    /// The size of the head as HTTP/1, or a little more.
    fn size(&self, line: usize, authority: Option<&[u8]>, fields: &HeaderMap, websocket: bool) -> usize {
        let pair = |name: usize, value: usize| name + value + SEPARATOR.len() + LINE_END.len();
        let host = authority.map_or(0, |authority| pair(4, authority.len()));
        let websocket = if websocket { pair(7, WEBSOCKET.len()) + pair(17, 24) } else { 0 };
        let sizes = fields.iter().map(|(name, value)| pair(name.as_str().len(), value.len()));
        sizes.fold(line + host + websocket + LINE_END.len(), usize::saturating_add)
    }

    fn append(&mut self, bytes: &[u8]) -> Span {
        let start = self.buffer.filled().len();
        self.buffer.append(bytes);
        Span::new(start, start + bytes.len())
    }

    fn request_line(&mut self, method: &[u8], target: &[u8]) -> Result<(), HeadError> {
        let written = self.append(method);
        self.append(b" ");
        let span = self.append(target);
        self.append(VERSION);
        self.head.method = Method::parse(method)?;
        self.head.method_span = written;
        self.head.target_span = span;
        if !is_target(target) {
            return Err(HeadError::InvalidTarget);
        }
        let start = span.range().start;
        match target {
            [b'/', ..] => {}
            b"*" if self.head.method == Method::Options => self.head.target = crate::http::TargetForm::Asterisk,
            _ => return Err(HeadError::InvalidTarget),
        }
        match memchr::memchr(b'?', target) {
            Some(mark) => {
                self.head.path = Span::new(start, start + mark);
                self.head.query = Some(Span::new(start + mark + 1, span.range().end));
            }
            None => self.head.path = span,
        }
        Ok(())
    }

    /// The host, from `:authority` or from Host; if both are present, they must be equal (RFC 9113 8.3.1).
    fn host(&mut self, authority: Option<&[u8]>, fields: &HeaderMap) -> Result<(), HeadError> {
        let mut hosts = fields.get_all(HOST).iter();
        let host = hosts.next().map(HeaderValue::as_bytes);
        if hosts.next().is_some() {
            return Err(HeadError::DuplicateHost);
        }
        let value = match (authority, host) {
            (None, None) => return Err(HeadError::MissingHost),
            (Some(authority), Some(host)) if !authority.eq_ignore_ascii_case(host) => {
                return Err(HeadError::HostMismatch);
            }
            (Some(value), _) | (None, Some(value)) => value,
        };
        if value.len() > self.limits.field_line {
            return Err(HeadError::FieldTooLong);
        }
        let span = self.field(KnownField::Host, b"host", value).range();
        self.head.authority = Some(Authority::parse(self.buffer.filled(), span.start, span.end)?);
        Ok(())
    }

    fn fields(&mut self, fields: &HeaderMap, websocket: bool) -> Result<(), HeadError> {
        let mut cookies = false;
        for (name, value) in fields {
            let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
            if name.len() + value.len() + SEPARATOR.len() + LINE_END.len() > self.limits.field_line {
                return Err(HeadError::FieldTooLong);
            }
            // RFC 9113 8.2.1.
            if !is_value(value) || trim(value).len() != value.len() {
                return Err(HeadError::InvalidFieldValue);
            }
            let seen = name.iter().fold(0, |seen, &byte| seen | NAME_CLASS[usize::from(byte)]);
            let Some(known) = self.limits.names.admit(name, seen)? else { continue };
            match known {
                // Already written.
                KnownField::Host => {}
                // The proxy makes the key for the endpoint.
                KnownField::SecWebSocketKey if websocket => {}
                KnownField::Cookie if std::mem::replace(&mut cookies, true) => {}
                KnownField::Cookie => self.cookie(fields)?,
                known => drop(self.field(known, name, value)),
            }
        }
        Ok(())
    }

    /// Joins the cookies, which clients may split for better compression, into the one field that endpoints expect (RFC 9113 8.2.3).
    fn cookie(&mut self, fields: &HeaderMap) -> Result<(), HeadError> {
        let start = self.append(b"cookie").range().start;
        let from = self.append(SEPARATOR).range().end;
        for (at, crumb) in fields.get_all(COOKIE).iter().enumerate() {
            if at > 0 {
                self.append(b"; ");
            }
            self.append(crumb.as_bytes());
        }
        let end = self.append(LINE_END).range().end;
        if end - start > self.limits.field_line {
            return Err(HeadError::FieldTooLong);
        }
        self.push(KnownField::Cookie, start, from, end - LINE_END.len());
        Ok(())
    }

    /// Appends a field and returns the position of its value.
    fn field(&mut self, known: KnownField, name: &[u8], value: &[u8]) -> Span {
        let start = self.append(name).range().start;
        self.append(SEPARATOR);
        let span = self.append(value);
        self.append(LINE_END);
        self.push(known, start, span.range().start, span.range().end);
        span
    }

    fn push(&mut self, known: KnownField, start: usize, value_start: usize, end: usize) {
        self.head.fields.push(Field {
            start: start as u32,
            value_start: value_start as u32,
            value_len: (end - value_start) as u32,
            // `h2` allows no longer names.
            name_len: (value_start - SEPARATOR.len() - start) as u16,
            known,
            verbatim: true,
        });
    }

    /// Decides what depends on all fields together.
    fn conclude(&mut self, follows: Follows) -> Result<(), HeadError> {
        let bytes = self.buffer.filled();
        let fields = &self.head.fields;
        let declared = Framing::from_fields(fields, Version::Http2, bytes)?;
        self.head.framing = match (follows, declared) {
            (Follows::Tunnel, _) => Framing::None,
            (Follows::Body, Framing::None) => Framing::Chunked,
            (Follows::Body | Follows::Nothing, declared) => declared,
        };
        if let Some(expectation) = fields.get(KnownField::Expect, bytes) {
            let known = expectation.eq_ignore_ascii_case(b"100-continue");
            if !known || fields.repeated().contains(KnownField::Expect) {
                return Err(HeadError::UnknownExpectation);
            }
            self.head.expects_continue = !self.head.framing.is_empty();
        }
        self.head.connection = ConnectionOptions {
            keep_alive: true,
            upgrade: if follows == Follows::Tunnel { Upgrade::Protocol } else { Upgrade::None },
            te_trailers: fields.present().contains(KnownField::Te),
        };
        debug_assert!(
            follows == Follows::Tunnel
                || !fields.present().intersects(KnownSet::of(&[KnownField::Connection, KnownField::Upgrade]))
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use ::http::Request;

    use super::*;
    use crate::http::NameRules;

    type Fields<'a> = &'a [(&'a str, &'a str)];

    struct Received {
        text: String,
        head: RequestHead,
    }

    fn receive_with(
        limits: &HeadLimits,
        method: &str,
        uri: &str,
        fields: Fields<'_>,
        ended: bool,
    ) -> Result<Received, HeadError> {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let mut request = request.body(()).unwrap();
        if method == "CONNECT" {
            request.extensions_mut().insert(Protocol::from_static("websocket"));
        }
        let (mut buffer, mut head) = (Buffer::with_size(64), RequestHead::default());
        let parts = request.into_parts().0;
        let store = Store::default();
        let length = receive_head(&parts, ended, &mut buffer, &mut head, &store, limits, || [0; 2])?;
        assert_eq!(length, buffer.filled().len());
        Ok(Received { text: String::from_utf8(buffer.filled().to_vec()).unwrap(), head })
    }

    fn receive(method: &str, uri: &str, fields: Fields<'_>, ended: bool) -> Result<Received, HeadError> {
        receive_with(&HeadLimits::default(), method, uri, fields, ended)
    }

    /// The written text as parsed by HTTP/1.
    fn parsed(text: &str) -> RequestHead {
        let mut head = RequestHead::default();
        head.parse(text.replace("HTTP/2.0", "HTTP/1.1").as_bytes(), &HeadLimits::default()).unwrap();
        head
    }

    #[test]
    fn a_head_is_written_as_http_1_reads_it() {
        let fields: Fields<'_> =
            &[("accept", "*/*"), ("cookie", "a=1"), ("x-a", ""), ("cookie", "b=2"), ("x_b", "dropped")];
        let received = receive("GET", "http://example.com:8080/a/b?c=d", fields, true).unwrap();
        assert_eq!(
            received.text,
            "GET /a/b?c=d HTTP/2.0\r\nhost: example.com:8080\r\naccept: */*\r\ncookie: a=1; b=2\r\nx-a: \r\n\r\n"
        );
        let (head, same) = (&received.head, parsed(&received.text));
        let bytes = received.text.as_bytes();
        assert_eq!(head.fields().iter().collect::<Vec<_>>(), same.fields().iter().collect::<Vec<_>>());
        assert_eq!((head.path(), head.query(), head.target_span()), (same.path(), same.query(), same.target_span()));
        assert_eq!((head.authority(), head.method()), (same.authority(), same.method()));
        assert_eq!(head.method_bytes(bytes), b"GET");
        assert_eq!((head.framing(), head.version()), (Framing::None, Version::Http2));
    }

    #[test]
    fn a_body_has_the_length_that_is_announced_or_chunks() {
        fn framing(fields: Fields<'_>, ended: bool) -> Result<Framing, HeadError> {
            receive("POST", "http://a/", fields, ended).map(|received| received.head.framing())
        }
        assert_eq!(framing(&[], false), Ok(Framing::Chunked));
        assert_eq!(framing(&[], true), Ok(Framing::None));
        assert_eq!(framing(&[("content-length", "5")], false), Ok(Framing::Length(5)));
        assert_eq!(framing(&[("content-length", "0")], true), Ok(Framing::Length(0)));
        assert_eq!(
            framing(&[("content-length", "5"), ("content-length", "5")], false),
            Err(HeadError::DuplicateContentLength)
        );
        for bad in ["+5", "5,5", "0x5", "", "9223372036854775808"] {
            assert_eq!(framing(&[("content-length", bad)], false), Err(HeadError::InvalidContentLength), "{bad}");
        }
    }

    #[test]
    fn hosts_must_agree() {
        let refused = |uri, fields: Fields<'_>| receive("GET", uri, fields, true).err();
        assert_eq!(refused("http://a/", &[("host", "A")]), None);
        assert_eq!(refused("/", &[("host", "a")]), None);
        assert_eq!(refused("/", &[]), Some(HeadError::MissingHost));
        assert_eq!(refused("http://a/", &[("host", "b")]), Some(HeadError::HostMismatch));
        assert_eq!(refused("/", &[("host", "a"), ("host", "a")]), Some(HeadError::DuplicateHost));
        assert_eq!(refused("http://user@a/", &[]), Some(HeadError::InvalidHost));
        assert_eq!(refused("/", &[("host", "")]), Some(HeadError::InvalidHost));
    }

    #[test]
    fn what_http_1_refuses_is_refused() {
        let refused = |method, uri, fields: Fields<'_>| receive(method, uri, fields, true).err();
        assert_eq!(refused("TRACE", "http://a/", &[]), Some(HeadError::MethodNotAllowed));
        assert_eq!(refused("get", "http://a/", &[]), Some(HeadError::InvalidMethod));
        assert_eq!(refused("GET", "*", &[("host", "a")]), Some(HeadError::InvalidTarget));
        assert_eq!(refused("OPTIONS", "*", &[("host", "a")]), None);
        assert_eq!(refused("GET", "http://a/", &[("x-a", " b")]), Some(HeadError::InvalidFieldValue));
        assert_eq!(refused("GET", "http://a/", &[("x-a", "b\t")]), Some(HeadError::InvalidFieldValue));
        assert_eq!(refused("POST", "http://a/", &[("expect", "more")]), Some(HeadError::UnknownExpectation));
        let tokens = HeadLimits { names: NameRules::Tokens, ..HeadLimits::default() };
        let odd = receive_with(&tokens, "GET", "http://a/", &[("x.a", "b"), ("content_length", "9")], true).unwrap();
        assert_eq!(odd.text, "GET / HTTP/2.0\r\nhost: a\r\nx.a: b\r\n\r\n");
    }

    #[test]
    fn limits_are_those_of_http_1() {
        let limits = HeadLimits { start_line: 40, field_line: 50, total: 210, fields: 3, ..HeadLimits::default() };
        let refused = |uri: &str, fields: Fields<'_>| receive_with(&limits, "GET", uri, fields, true).err();
        let long = "x".repeat(41);
        let (x, crumbs) = (&long[..41], ["y".repeat(30), "y".repeat(30)]);
        assert_eq!(refused(&format!("http://a/{x}"), &[]), Some(HeadError::RequestLineTooLong));
        assert_eq!(refused("http://a/", &[("x-aaaaaaa", x)]), Some(HeadError::FieldTooLong));
        assert_eq!(
            refused("http://a/", &[("cookie", &crumbs[0]), ("cookie", &crumbs[1])]),
            Some(HeadError::FieldTooLong)
        );
        let one = ("x-a", "b");
        assert_eq!(refused("http://a/", &[one; 3]), None);
        assert_eq!(refused("http://a/", &[one; 4]), Some(HeadError::TooManyFields));
        assert_eq!(
            refused("http://a/", &[("x-a", x), ("x-b", x), ("x-c", x), ("x-d", x)]),
            Some(HeadError::HeadTooLong)
        );
    }

    #[test]
    fn a_websocket_is_asked_for_as_http_1_asks() {
        let received = receive("CONNECT", "http://a/chat", &[("sec-websocket-version", "13")], false).unwrap();
        assert_eq!(
            received.text,
            "GET /chat HTTP/2.0\r\nhost: a\r\nsec-websocket-version: 13\r\nupgrade: websocket\r\nsec-websocket-key: \
             AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        );
        let bytes = received.text.as_bytes();
        assert_eq!((received.head.method(), received.head.framing()), (Method::Get, Framing::None));
        assert_eq!(received.head.asked_protocols(bytes), Some(WEBSOCKET));
    }
}
