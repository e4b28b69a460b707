//! Spans in protobuf, as `opentelemetry/proto/trace/v1/trace.proto` defines them. The few messages that are needed are written here: the
//! generated types would cost a megabyte of the binary.

use std::fmt::Write as _;
use std::time::Duration;

use fairway_model::{Action, Fields, TraceContext};

use crate::http::FieldsView;
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

/// Appends a span as an element of `ScopeSpans.spans`. `end` is the time since 1970.
pub(super) fn span(context: &TraceContext, record: &RequestRecord<'_>, name: &[u8], end: Duration, out: &mut Vec<u8>) {
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
    let mut put = |key: &str, value: &[u8]| {
        if !value.is_empty() {
            attribute(9, key, value, out);
        }
    };
    let client = record.client;
    if let Some(head) = record.head {
        put("http.method", head.parsed.method_bytes(head.bytes));
        put("http.target", head.parsed.request_uri().of(head.bytes));
        let fields = FieldsView { fields: head.parsed.fields(), bytes: head.bytes };
        if let Some(agent) = fields.lines().find(|line| line.is(b"user-agent")) {
            put("http.user_agent", agent.value);
        }
    }
    put("http.scheme", client.scheme().as_str().as_bytes());
    put("http.host", client.host());
    put("net.peer.ip", &client.address_text());
    put("request_id", client.request_id());
    if let Some(host) = record.host {
        let mut name = String::new();
        let _ = write!(name, "{}", host.pattern());
        put("http.server_name", name.as_bytes());
    }
    if let Some(route) = record.route {
        put("ingress.namespace", route.origin.namespace.as_bytes());
        put("ingress.name", route.origin.name.as_bytes());
        put("http.route", route.rule.as_bytes());
        if let Some(backend) = record.backend.filter(|_| matches!(route.action, Action::Forward(_))) {
            put("ingress.service_name", backend.origin.name.as_bytes());
            put("ingress.upstream", backend.upstream_name.as_bytes());
        }
    }
    if let Some(cause) = record.cause {
        put("fairway.failure_reason", cause.reason.as_str().as_bytes());
    }
    for (key, value) in [
        ("net.host.port", u64::from(record.local.port())),
        ("http.status_code", record.status.into()),
        ("fairway.tries", record.tries.len() as u64),
    ] {
        let mut pair = Vec::new();
        text(1, key.as_bytes(), &mut pair);
        let mut any = Vec::new();
        number(3, value, &mut any);
        bytes(2, &any, &mut pair);
        bytes(9, &pair, out);
    }
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
