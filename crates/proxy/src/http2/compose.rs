//! The heads that clients and endpoints get over HTTP/2. The model decides which fields they have.
//!
//! `h2` takes ownership of a map of fields, so each head needs a new one; all its values are slices of one copy.

use std::convert::Infallible;
use std::ops::Range;

use ::http::header::{CONTENT_TYPE, TE};
use ::http::uri::{Authority, PathAndQuery, Scheme, Uri};
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use bytes::Bytes;
use fairway_model::decision::Expand;
use fairway_model::{FieldName, FieldSink, Fields, KnownField, KnownSet, decimal};

use super::name::{name_in_head, name_of};
use crate::error::Failure;
use crate::http::{FieldsView, ResponseHead, Spanned, is_field_value};
use crate::message::{ResponseContext, UpstreamRequest};
use crate::respond::{Answer, Page};

/// One field: its name, and the position of its value in the text of all values.
pub(crate) type GatheredField = (HeaderName, Range<usize>);

const DATE: FieldName<'_> = FieldName::from_static("Date");
const CONTENT_LENGTH: FieldName<'_> = FieldName::from_static("Content-Length");

/// Gathers fields in reused memory.
#[derive(Debug)]
pub(super) struct FieldGatherer<'a> {
    text: &'a mut Vec<u8>,
    lines: &'a mut Vec<GatheredField>,
    size: u64,
}

impl<'a> FieldGatherer<'a> {
    pub(super) fn new(text: &'a mut Vec<u8>, lines: &'a mut Vec<GatheredField>) -> Self {
        text.clear();
        lines.clear();
        Self { text, lines, size: 0 }
    }

    /// Adds a field, unless its name or value is invalid, or it is connection-specific (RFC 9113 8.2.2).
    pub(super) fn add(&mut self, name: &[u8], value: &[u8]) {
        let Some(name) = name_in_head(name).filter(|_| is_field_value(value)) else { return };
        let start = self.text.len();
        self.text.extend_from_slice(value);
        self.size += (name.as_str().len() + value.len()) as u64;
        self.lines.push((name, start..self.text.len()));
    }

    fn date(&mut self, context: &ResponseContext<'_>) {
        context.clock.read(|date| self.add(DATE.as_bytes(), date));
    }

    /// The fields, and their size without compression; `None` if there are more than a map can hold. `sensitive` fields stay out of the
    /// table that the messages of a connection share.
    fn finish(self, sensitive: impl Fn(&HeaderName) -> bool) -> Option<(HeaderMap, u64)> {
        let mut map = HeaderMap::try_with_capacity(self.lines.len()).ok()?;
        let text = Bytes::copy_from_slice(self.text);
        for (name, range) in self.lines.drain(..) {
            // Checked when it was added.
            if let Ok(mut value) = HeaderValue::from_maybe_shared(text.slice(range)) {
                value.set_sensitive(sensitive(&name));
                map.try_append(name, value).ok()?;
            }
        }
        Some((map, self.size))
    }

    /// Appends the fields in the form of HTTP/1, for the log.
    fn tell(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"HTTP/2.0\r\n");
        for (name, range) in self.lines.iter() {
            for part in [name.as_str().as_bytes(), b": ", &self.text[range.clone()], b"\r\n"] {
                out.extend_from_slice(part);
            }
        }
    }
}

impl<'f, F: Fields<'f>> FieldSink<F> for FieldGatherer<'_> {
    type Prepared = Infallible;

    fn field(&mut self, name: FieldName<'_>, value: &[u8]) {
        self.add(name.as_bytes(), value);
    }

    fn number(&mut self, name: FieldName<'_>, number: u64) {
        self.add_number(name, number);
    }

    fn prepared(&mut self, lines: &Infallible) {
        match *lines {}
    }

    fn forward(&mut self, fields: F, drop: KnownSet, mut drop_also: impl FnMut(KnownField, &[u8]) -> bool) {
        for line in fields.lines() {
            if !drop.contains(line.known) && !drop_also(line.known, line.name) {
                self.add(line.name, line.value);
            }
        }
    }
}

impl FieldGatherer<'_> {
    fn add_number(&mut self, name: FieldName<'_>, number: u64) {
        let Some(name) = name_of(name.as_bytes()) else { return };
        let start = self.text.len();
        decimal::number(number, self.text);
        self.size += (name.as_str().len() + self.text.len() - start) as u64;
        self.lines.push((name, start..self.text.len()));
    }
}

/// Gathers the fields of a request, in which the host is a pseudo-header, not a field.
struct RequestGatherer<'a> {
    fields: FieldGatherer<'a>,
    /// The position of the host in the text.
    host: Range<usize>,
}

impl<'f, F: Fields<'f>> FieldSink<F> for RequestGatherer<'_> {
    type Prepared = Infallible;

    fn field(&mut self, name: FieldName<'_>, value: &[u8]) {
        if name.as_bytes().eq_ignore_ascii_case(b"host") {
            let start = self.fields.text.len();
            self.fields.text.extend_from_slice(value);
            self.host = start..self.fields.text.len();
        } else {
            self.fields.add(name.as_bytes(), value);
        }
    }

    fn number(&mut self, name: FieldName<'_>, number: u64) {
        self.fields.add_number(name, number);
    }

    fn prepared(&mut self, lines: &Infallible) {
        match *lines {}
    }

    fn forward(&mut self, fields: F, drop: KnownSet, drop_also: impl FnMut(KnownField, &[u8]) -> bool) {
        self.fields.forward(fields, drop, drop_also);
    }
}

/// A request that waits to be sent, and its uncompressed size.
pub(crate) type RequestTo = (Request<()>, u64);

/// The head of a request for an endpoint.
///
/// # Errors
/// If a configured value makes the head invalid.
pub(super) fn request(
    request: &UpstreamRequest<'_>,
    secure: bool,
    text: &mut Vec<u8>,
    lines: &mut Vec<GatheredField>,
    value: &mut Vec<u8>,
    expand: &mut impl Expand,
) -> Result<RequestTo, Failure> {
    let mut gathered = RequestGatherer { fields: FieldGatherer::new(text, lines), host: 0..0 };
    request.edits.write(&mut gathered, None, value, expand)?;
    let RequestGatherer { fields, host } = gathered;
    let unwritable = Failure::Unwritable;
    let mut uri = ::http::uri::Parts::default();
    let target = request.target;
    let path = path_and_query(target).ok_or(unwritable)?;
    let size = request.method.len() + target.len() + host.len();
    uri.path_and_query = Some(path);
    let authority = &fields.text[host];
    // HTTP/1.0 has requests without a host.
    let version = if authority.is_empty() { Version::HTTP_11 } else { Version::HTTP_2 };
    if version == Version::HTTP_2 {
        uri.authority = Some(Authority::try_from(authority).map_err(|_| unwritable)?);
        uri.scheme = Some(if secure { Scheme::HTTPS } else { Scheme::HTTP });
    }
    let mut head = Request::new(());
    *head.method_mut() = Method::from_bytes(request.method).map_err(|_| unwritable)?;
    *head.uri_mut() = Uri::from_parts(uri).map_err(|_| unwritable)?;
    *head.version_mut() = version;
    let (mut fields, fields_size) = fields.finish(is_poison).ok_or(unwritable)?;
    // Trailers always reach the client, or its side of the exchange. Some gRPC servers insist on this field.
    fields.try_append(TE, HeaderValue::from_static("trailers")).map_err(|_| unwritable)?;
    *head.headers_mut() = fields;
    // Adds the size of the pseudo-headers.
    Ok((head, size as u64 + fields_size + 40))
}

/// The head of a gRPC call that the proxy itself makes.
///
/// # Errors
/// If the host is invalid.
pub(super) fn call(authority: &str, path: &'static str, secure: bool) -> Result<RequestTo, Failure> {
    let scheme = if secure { Scheme::HTTPS } else { Scheme::HTTP };
    let uri = Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build();
    let mut head = Request::new(());
    *head.method_mut() = Method::POST;
    *head.uri_mut() = uri.map_err(|_| Failure::Unwritable)?;
    *head.version_mut() = Version::HTTP_2;
    head.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    head.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
    // Adds the size of the fields and pseudo-headers.
    Ok((head, (authority.len() + path.len() + 100) as u64))
}

/// Whether one client's value of this request field can harm others on the same connection: gRPC's C core caches a failure to parse it in
/// the connection's field table and then fails other calls.
fn is_poison(name: &HeaderName) -> bool {
    name == "grpc-timeout" || name.as_str().ends_with("-bin")
}

/// The target of a request. Bytes that HTTP/1 lets pass but no URI may contain are encoded.
fn path_and_query(target: &[u8]) -> Option<PathAndQuery> {
    if let Ok(path) = PathAndQuery::try_from(target) {
        return Some(path);
    }
    let mut encoded = Vec::with_capacity(target.len() + 64);
    for &byte in target {
        if byte.is_ascii_alphanumeric() || b"-._~:/?[]@!$&'()*+,;=%".contains(&byte) {
            encoded.push(byte);
        } else {
            const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
            encoded.extend([b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
        }
    }
    PathAndQuery::try_from(&encoded[..]).ok()
}

/// A head that waits to be sent, and its uncompressed size.
pub(super) type Head = (Response<()>, u64);

fn head(status: u16, gathered: FieldGatherer<'_>) -> Head {
    let mut response = Response::new(());
    *response.version_mut() = Version::HTTP_2;
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    // The limit on the number of fields in a response is far below that of a map.
    let (fields, size) = gathered.finish(|_| false).unwrap_or_default();
    *response.headers_mut() = fields;
    // Adds the size of `:status`.
    (response, size + 10)
}

/// The head of an endpoint's response. `whole` says that the body has the announced length.
pub(super) fn response(
    endpoint: Spanned<'_, ResponseHead>,
    status: u16,
    whole: bool,
    mut gathered: FieldGatherer<'_>,
    context: &mut ResponseContext<'_>,
    value: &mut Vec<u8>,
) -> Head {
    let Spanned { parsed, bytes } = endpoint;
    let edits = context.edits();
    if !parsed.fields().present().contains(KnownField::Date) && !edits.replaces(KnownField::Date) {
        gathered.date(context);
    }
    // Drops an HTTP/1 endpoint's proof that it speaks WebSocket, and the length of a body that is absent or has changed.
    let dropped = match status {
        _ if parsed.status() == 101 => KnownSet::of(&[KnownField::SecWebSocketAccept, KnownField::ContentLength]),
        status if status == 204 || !whole => KnownSet::EMPTY.with(KnownField::ContentLength),
        _ => KnownSet::EMPTY,
    };
    let fields = FieldsView { fields: parsed.fields(), bytes };
    // The values were created within the limit, so none is too long.
    let _ = edits.write(fields, dropped, &mut gathered, value, &mut context.values.reader());
    if context.live.prepared.log_tells_response {
        gathered.tell(context.sent_head);
    }
    head(status, gathered)
}

/// An interim response.
pub(super) fn interim(endpoint: Spanned<'_, ResponseHead>, mut gathered: FieldGatherer<'_>) -> Head {
    const DROPPED: KnownSet = KnownSet::HOP_BY_HOP.union(KnownSet::X_ACCEL).with(KnownField::ContentLength);
    let Spanned { parsed, bytes } = endpoint;
    let fields = FieldsView { fields: parsed.fields(), bytes };
    FieldSink::<FieldsView<'_>>::forward(&mut gathered, fields, DROPPED, |_, _| false);
    head(parsed.status(), gathered)
}

/// One of the proxy's own answers, whose body is appended to `body` unless it answers a HEAD. If its location is not a valid field
/// value, a page with status 500 takes its place.
pub(super) fn answer(
    answer: &Answer<'_>,
    head_only: bool,
    mut gathered: FieldGatherer<'_>,
    context: &mut ResponseContext<'_>,
    value: &mut Vec<u8>,
    body: &mut Vec<u8>,
) -> Head {
    let mut answer = *answer;
    if answer.location.is_some_and(|location| !is_field_value(location)) {
        answer = Answer { status: 500, body: &fairway_model::Body::Page, location: None, ..answer };
    }
    let mut page = Page::default();
    let (content_type, text) = answer.body(&mut page);
    let edits = context.edits();
    if !edits.replaces(KnownField::Date) {
        gathered.date(context);
    }
    for (name, value) in answer.fields {
        gathered.add(name.get().as_bytes(), value.as_bytes());
    }
    let lines = answer.lines(content_type);
    let _ = edits.write(lines.as_slice(), KnownSet::EMPTY, &mut gathered, value, &mut context.values.reader());
    // A gRPC answer consists of a head only.
    if answer.status != 204 && answer.grpc.is_none() {
        gathered.add_number(CONTENT_LENGTH, text.len() as u64);
    }
    if !head_only {
        body.extend_from_slice(text);
    }
    if context.live.prepared.log_tells_response {
        gathered.tell(context.sent_head);
    }
    head(if answer.grpc.is_some() { 200 } else { answer.status }, gathered)
}
