//! Spans in protobuf, as `opentelemetry/proto/trace/v1/trace.proto` defines them. The few messages that are needed are written here: the
//! generated types would cost a megabyte of the binary.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::time::Duration;

use fairway_model::{Action, Fields, SpanValue, StandardAttribute, Target, Telemetry, TraceContext};

use crate::access_log::without_port;
use crate::http::{FieldsView, Version};
use crate::record::RequestRecord;

/// `SPAN_KIND_SERVER`.
// No limit: a number of the format, as is the next one.
const SERVER: u64 = 2;

/// `STATUS_CODE_ERROR`.
// No limit: see above.
const ERROR: u64 = 2;

/// Longest text in a span.
// No limit: the heads of requests are limited, and the rest of a text is left out.
const TEXT: usize = 1024;

/// Lines of a field that are read, of which there may be many.
// No limit: the rest is left out.
const LINES: usize = 16;

/// What a span tells about a request beyond its record.
pub(super) struct Told<'a> {
    /// The name of the span.
    pub(super) name: &'a [u8],
    /// What a policy asks for.
    pub(super) telemetry: Option<&'a Telemetry>,
}

/// Appends a span as an element of `ScopeSpans.spans`. `end` is the time since 1970.
pub(super) fn span(
    context: &TraceContext,
    record: &RequestRecord<'_>,
    Told { name, telemetry }: Told<'_>,
    end: Duration,
    out: &mut Vec<u8>,
) {
    let mut span = Vec::with_capacity(512);
    bytes(1, &context.trace, &mut span);
    bytes(2, &context.span, &mut span);
    if let Some(parent) = &context.parent {
        bytes(4, parent, &mut span);
    }
    text(5, name, &mut span);
    number(6, SERVER, &mut span);
    time(7, end.saturating_sub(record.duration), &mut span);
    time(8, end, &mut span);
    attributes(record, &mut span);
    for one in telemetry.into_iter().flat_map(|telemetry| &telemetry.attributes) {
        if let Some(value) = value(&one.value, record) {
            put(&one.name, &value, &mut span);
        }
    }
    if record.status >= 500 {
        let mut status = Vec::new();
        if let Some(cause) = record.cause {
            text(2, cause.reason.as_str().as_bytes(), &mut status);
        }
        number(3, ERROR, &mut status);
        bytes(15, &status, &mut span);
    }
    bytes(2, &span, out);
}

/// The attributes, under the names of nginx's module, and those that ingress-nginx adds.
fn attributes(record: &RequestRecord<'_>, out: &mut Vec<u8>) {
    let mut add = |key: &str, value: &[u8]| {
        if !value.is_empty() {
            attribute(9, key, value, out);
        }
    };
    let client = record.client;
    if let Some(head) = record.head {
        add("http.method", head.parsed.method_bytes(head.bytes));
        add("http.target", head.parsed.request_uri().of(head.bytes));
        let fields = FieldsView { fields: head.parsed.fields(), bytes: head.bytes };
        if let Some(agent) = fields.lines().find(|line| line.is(b"user-agent")) {
            add("http.user_agent", agent.value);
        }
    }
    add("http.scheme", client.scheme().as_str().as_bytes());
    add("http.host", client.host());
    add("net.peer.ip", &client.address_text());
    add("request_id", client.request_id());
    if let Some(host) = record.host {
        let mut name = String::new();
        let _ = write!(name, "{}", host.pattern());
        add("http.server_name", name.as_bytes());
    }
    if let Some(route) = record.route {
        add("ingress.namespace", route.origin.namespace.as_bytes());
        add("ingress.name", route.origin.name.as_bytes());
        add("http.route", route.rule.as_bytes());
        if let Some(backend) = record.backend.filter(|_| matches!(route.action, Action::Forward(_))) {
            add("ingress.service_name", backend.origin.name.as_bytes());
            add("ingress.upstream", backend.upstream_name.as_bytes());
        }
    }
    if let Some(cause) = record.cause {
        add("fairway.failure_reason", cause.reason.as_str().as_bytes());
    }
    for (key, value) in [
        ("net.host.port", u64::from(record.local.port())),
        ("http.status_code", record.status.into()),
        ("fairway.tries", record.tries.len() as u64),
    ] {
        put(key, &AttributeValue::Number(value), out);
    }
}

/// The value of an attribute, in the type that the conventions of OpenTelemetry give it.
enum AttributeValue<'a> {
    Text(Cow<'a, [u8]>),
    Number(u64),
    List(Vec<&'a [u8]>),
}

impl<'a> From<&'a [u8]> for AttributeValue<'a> {
    fn from(text: &'a [u8]) -> Self {
        Self::Text(text.into())
    }
}

/// The value that a policy asks for, if the request has it.
fn value<'a>(asked: &'a SpanValue, record: &RequestRecord<'a>) -> Option<AttributeValue<'a>> {
    match asked {
        SpanValue::Literal(text) => Some(text.as_bytes().into()),
        SpanValue::Field(name) => {
            let name = name.as_str().as_bytes();
            let found = request_fields(record, name).or_else(|| response_fields(record, name))?;
            let [only] = found[..] else { return Some(AttributeValue::Text(found.join(&b", "[..]).into())) };
            Some(only.into())
        }
        SpanValue::Standard(attribute) => standard(attribute, record),
    }
}

/// An attribute of the conventions of OpenTelemetry.
fn standard<'a>(attribute: &'a StandardAttribute, record: &RequestRecord<'a>) -> Option<AttributeValue<'a>> {
    let client = record.client;
    let owned = |text: String| Some(AttributeValue::Text(text.into_bytes().into()));
    let view = || record.head.map(|head| head.parsed.view(head.bytes));
    let target = || match view()?.target {
        Target::Path(path, query) => Some((path, query)),
        Target::Server => None,
    };
    match attribute {
        StandardAttribute::Method => {
            const KNOWN: [&[u8]; 10] =
                [b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH", b"QUERY"];
            let method = view()?.method;
            Some(if KNOWN.contains(&method) { method } else { &b"_OTHER"[..] }.into())
        }
        StandardAttribute::MethodOriginal => Some(view()?.method.into()),
        StandardAttribute::Status => (record.status > 0).then(|| AttributeValue::Number(record.status.into())),
        StandardAttribute::Route => Some(record.route?.rule.as_bytes().into()),
        StandardAttribute::UserAgent => request_fields(record, b"user-agent")?.first().map(|value| (*value).into()),
        StandardAttribute::ErrorType => match record.cause {
            Some(cause) => Some(cause.reason.as_str().as_bytes().into()),
            None if record.status >= 500 => owned(record.status.to_string()),
            None => None,
        },
        StandardAttribute::Scheme => Some(client.scheme().as_str().as_bytes().into()),
        StandardAttribute::Path => Some(target()?.0.into()),
        StandardAttribute::Query => Some(target()?.1?.into()),
        StandardAttribute::Url => {
            let (path, query) = target()?;
            let (mark, query) = query.map_or((&b""[..], &b""[..]), |query| (&b"?"[..], query));
            let parts = [client.scheme().as_str().as_bytes(), b"://", client.host(), path, mark, query];
            Some(AttributeValue::Text(parts.concat().into()))
        }
        StandardAttribute::ClientAddress => owned(client.address().to_string()),
        StandardAttribute::ClientPort => {
            (client.address() == record.peer.ip()).then(|| AttributeValue::Number(record.peer.port().into()))
        }
        StandardAttribute::ServerAddress => Some(without_port(client.host()).into()),
        StandardAttribute::ServerPort => Some(AttributeValue::Number(record.local.port().into())),
        StandardAttribute::PeerAddress => owned(record.peer.ip().to_string()),
        StandardAttribute::PeerPort => Some(AttributeValue::Number(record.peer.port().into())),
        StandardAttribute::Protocol => Some(b"http"[..].into()),
        StandardAttribute::ProtocolVersion => Some(
            match record.head?.parsed.version() {
                Version::Http10 => &b"1.0"[..],
                Version::Http11 => b"1.1",
                Version::Http2 => b"2",
            }
            .into(),
        ),
        StandardAttribute::Transport => Some(b"tcp"[..].into()),
        StandardAttribute::NetworkType => {
            Some(if record.peer.ip().to_canonical().is_ipv4() { &b"ipv4"[..] } else { b"ipv6" }.into())
        }
        StandardAttribute::RequestField(name) => {
            request_fields(record, name.as_str().as_bytes()).map(AttributeValue::List)
        }
        StandardAttribute::ResponseField(name) => {
            response_fields(record, name.as_str().as_bytes()).map(AttributeValue::List)
        }
    }
}

fn request_fields<'a>(record: &RequestRecord<'a>, name: &[u8]) -> Option<Vec<&'a [u8]>> {
    let head = record.head?;
    lines(FieldsView { fields: head.parsed.fields(), bytes: head.bytes }, name)
}

fn response_fields<'a>(record: &RequestRecord<'a>, name: &[u8]) -> Option<Vec<&'a [u8]>> {
    let fields = record.upstream_fields?;
    lines(FieldsView { fields: fields.parsed, bytes: fields.bytes }, name)
}

/// The first values of a field; `None` if it is absent.
fn lines<'a>(fields: FieldsView<'a>, name: &[u8]) -> Option<Vec<&'a [u8]>> {
    let found: Vec<_> = fields.lines().filter(|line| line.is(name)).map(|line| line.value).take(LINES).collect();
    (!found.is_empty()).then_some(found)
}

/// Adds an attribute to a span.
fn put(key: &str, value: &AttributeValue<'_>, out: &mut Vec<u8>) {
    let mut any = Vec::new();
    match value {
        AttributeValue::Text(value) => text(1, value, &mut any),
        AttributeValue::Number(value) => number(3, *value, &mut any),
        AttributeValue::List(values) => {
            let mut list = Vec::new();
            for value in values {
                let mut one = Vec::new();
                text(1, value, &mut one);
                bytes(1, &one, &mut list);
            }
            bytes(5, &list, &mut any);
        }
    }
    let mut pair = Vec::new();
    text(1, key.as_bytes(), &mut pair);
    bytes(2, &any, &mut pair);
    bytes(9, &pair, out);
}

/// The message that hands over spans: `ExportTraceServiceRequest`.
pub(super) fn request(service: &str, spans: &[u8]) -> Vec<u8> {
    let mut resource = Vec::new();
    attribute(1, "service.name", service.as_bytes(), &mut resource);
    let mut scope = Vec::new();
    text(1, b"fairway", &mut scope);
    text(2, env!("CARGO_PKG_VERSION").as_bytes(), &mut scope);
    let mut of_scope = Vec::with_capacity(spans.len() + 64);
    bytes(1, &scope, &mut of_scope);
    of_scope.extend_from_slice(spans);
    let mut of_resource = Vec::with_capacity(of_scope.len() + 128);
    bytes(1, &resource, &mut of_resource);
    bytes(2, &of_scope, &mut of_resource);
    let mut message = Vec::with_capacity(of_resource.len() + 8);
    bytes(1, &of_resource, &mut message);
    message
}

/// A `KeyValue` with a text.
fn attribute(field: u64, key: &str, value: &[u8], out: &mut Vec<u8>) {
    let mut pair = Vec::with_capacity(key.len() + value.len() + 8);
    text(1, key.as_bytes(), &mut pair);
    let mut any = Vec::with_capacity(value.len() + 4);
    text(1, value, &mut any);
    bytes(2, &any, &mut pair);
    bytes(field, &pair, out);
}

/// A text has to be UTF-8; other bytes become U+FFFD.
fn text(field: u64, value: &[u8], out: &mut Vec<u8>) {
    let value = &value[..value.len().min(TEXT)];
    match std::str::from_utf8(value) {
        Ok(_) => bytes(field, value, out),
        Err(_) => bytes(field, String::from_utf8_lossy(value).as_bytes(), out),
    }
}

fn bytes(field: u64, value: &[u8], out: &mut Vec<u8>) {
    varint(field << 3 | 2, out);
    varint(value.len() as u64, out);
    out.extend_from_slice(value);
}

fn number(field: u64, value: u64, out: &mut Vec<u8>) {
    varint(field << 3, out);
    varint(value, out);
}

fn time(field: u64, value: Duration, out: &mut Vec<u8>) {
    varint(field << 3 | 1, out);
    out.extend_from_slice(&u64::try_from(value.as_nanos()).unwrap_or(u64::MAX).to_le_bytes());
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}
