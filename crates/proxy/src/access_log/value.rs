//! The value of each variable.

use std::net::{IpAddr, SocketAddr};
use std::sync::LazyLock;
use std::time::Duration;

use fairway_model::{Action, HostPattern, LogEscape, Scheme, Variable, hex};

use super::{LogClock, escape};
use crate::balance::cookie;
use crate::http::{Fields, FieldsView, KnownField};
use crate::password::credentials;
use crate::reason::CauseDetail;
use crate::record::{RequestRecord, Try};
use fairway_model::decimal::{display, ip, number};

/// A variable, prepared for lookup.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// A variable that is read from the record.
    Plain(Variable),
    /// A request field.
    RequestField(FieldKey),
    /// A field of the endpoint's response.
    UpstreamField(FieldKey),
    /// A field of the response as sent to the client.
    SentField(Box<[u8]>),
    /// A query argument.
    Argument(Box<[u8]>),
    /// A cookie.
    Cookie(Box<[u8]>),
}

#[derive(Clone, Debug)]
pub(super) enum FieldKey {
    Known(KnownField),
    Other(Box<[u8]>),
}

/// Whether there was a value; an empty value counts.
type Found = Option<()>;

/// The value of a variable that never changes, if it is one.
pub(super) fn constant(variable: &Variable) -> Option<&'static str> {
    static HOSTNAME: LazyLock<String> = LazyLock::new(|| {
        std::fs::read_to_string("/proc/sys/kernel/hostname")
            .map(|name| name.trim_end().to_owned())
            .or_else(|_| std::env::var("HOSTNAME"))
            .unwrap_or_default()
    });
    static PID: LazyLock<String> = LazyLock::new(|| std::process::id().to_string());
    match variable {
        Variable::Hostname => Some(&HOSTNAME),
        Variable::Pid => Some(&PID),
        Variable::NginxVersion => Some(env!("CARGO_PKG_VERSION")),
        _ => None,
    }
}

impl Value {
    pub(super) fn new(variable: &Variable) -> Self {
        let bytes = |text: &str| text.as_bytes().into();
        match variable {
            Variable::RequestField(name) => Self::RequestField(FieldKey::new(name)),
            Variable::UpstreamField(name) => Self::UpstreamField(FieldKey::new(name)),
            Variable::ContentLength => Self::RequestField(FieldKey::Known(KnownField::ContentLength)),
            Variable::ContentType => Self::RequestField(FieldKey::Known(KnownField::ContentType)),
            Variable::ResponseField(name) => Self::SentField(bytes(name)),
            Variable::Argument(name) => Self::Argument(bytes(name)),
            Variable::Cookie(name) => Self::Cookie(bytes(name)),
            plain => Self::Plain(plain.clone()),
        }
    }

    pub(super) fn append(
        &self,
        record: &RequestRecord<'_>,
        clock: &mut LogClock,
        escape: LogEscape,
        out: &mut Vec<u8>,
    ) -> Found {
        let mut text = |value: &[u8]| escape::append(value, escape, out);
        match self {
            Self::Plain(variable) => plain(variable, record, clock, escape, out),
            Self::RequestField(name) => {
                let head = record.head?;
                name.append(head.parsed.fields(), head.bytes, text)
            }
            Self::UpstreamField(name) => {
                let fields = record.upstream_fields?;
                name.append(fields.parsed, fields.bytes, text)
            }
            Self::SentField(name) => {
                text(sent_field(record.sent_head, name)?);
                Some(())
            }
            Self::Argument(name) => {
                text(argument(query(record)?, name)?);
                Some(())
            }
            Self::Cookie(name) => {
                let head = record.head?;
                text(cookie::all(head.parsed.fields(), head.bytes, name).next()?);
                Some(())
            }
        }
    }
}

impl FieldKey {
    fn new(name: &str) -> Self {
        let known = KnownField::classify(name.as_bytes());
        // One constant stands for the rest of a field family, whose members are looked up by name.
        if known.name().eq_ignore_ascii_case(name) { Self::Known(known) } else { Self::Other(name.as_bytes().into()) }
    }

    /// Appends all lines of the field, joined as in nginx.
    fn append(&self, fields: &Fields, bytes: &[u8], mut text: impl FnMut(&[u8])) -> Found {
        let mut found = None;
        let mut take = |value: &[u8]| {
            if found.replace(()).is_some() {
                text(b", ");
            }
            text(value);
        };
        match self {
            Self::Known(known) => fields.all(*known, bytes).for_each(take),
            Self::Other(name) => {
                fields.iter().filter(|field| field.is(name, bytes)).for_each(|field| take(field.value(bytes)));
            }
        }
        found
    }
}

#[allow(clippy::too_many_lines)] // one match, a line or two for each variable
fn plain(
    variable: &Variable,
    record: &RequestRecord<'_>,
    clock: &mut LogClock,
    escape: LogEscape,
    out: &mut Vec<u8>,
) -> Found {
    let client = record.client;
    let text = |value: &[u8], out: &mut Vec<u8>| escape::append(value, escape, out);
    let route = record.route;
    match variable {
        Variable::RemoteAddr => out.extend_from_slice(&client.address_text()),
        Variable::RemotePort => number(client.port().into(), out),
        Variable::RemoteUser if record.user.is_empty() => {
            // As in nginx, the name that the client sends, whether or not it is checked.
            let head = record.head?;
            let (user, _) = credentials(FieldsView { fields: head.parsed.fields(), bytes: head.bytes })?;
            text(user.as_bytes(), out);
        }
        Variable::RemoteUser => text(record.user, out),
        Variable::PeerAddr => ip(record.peer.ip(), out),
        Variable::ProxyProtocolAddr => ip(record.proxied?.source.ip(), out),
        Variable::ProxyProtocolPort => number(record.proxied?.source.port().into(), out),
        Variable::ProxyProtocolServerAddr => ip(record.proxied?.destination.ip(), out),
        Variable::ProxyProtocolServerPort => number(record.proxied?.destination.port().into(), out),
        Variable::TimeLocal => out.extend_from_slice({
            let (second, _) = clock.now();
            clock.local(second)
        }),
        Variable::TimeIso8601 => out.extend_from_slice({
            let (second, _) = clock.now();
            clock.iso8601(second)
        }),
        Variable::Msec => {
            let (second, millis) = clock.now();
            number(second.unsigned_abs(), out);
            fraction(millis, out);
        }
        Variable::Request => match record.head {
            Some(head) => {
                // Target and version follow the method on the same line, and the limit of heads bounds the line.
                let from = head.parsed.target_span().range();
                let method = head.parsed.method_bytes(head.bytes);
                let start = from.start.saturating_sub(method.len() + 1);
                text(&head.bytes[start..(from.end + " HTTP/1.1".len()).min(head.bytes.len())], out);
            }
            None => text(record.broken_line, out),
        },
        Variable::RequestMethod => text(record.head?.parsed.method_bytes(record.head?.bytes), out),
        Variable::RequestUri => request_uri(record)?.iter().for_each(|part| text(part, out)),
        Variable::EscapedRequestUri => {
            const HEX: &[u8; 16] = b"0123456789ABCDEF";
            for &byte in request_uri(record)?.into_iter().flatten() {
                match byte {
                    b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte),
                    _ => out.extend_from_slice(&[b'%', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]),
                }
            }
        }
        Variable::Uri => text(record.path, out),
        Variable::Args => text(query(record)?, out),
        Variable::IsArgs if query(record).is_some_and(|query| !query.is_empty()) => out.push(b'?'),
        Variable::IsArgs => {}
        Variable::Scheme => out.extend_from_slice(client.scheme().as_str().as_bytes()),
        Variable::Https if client.scheme() == Scheme::Https => out.extend_from_slice(b"on"),
        Variable::Https => {}
        Variable::Host => {
            let from = out.len();
            text(without_port(client.host()), out);
            out[from..].make_ascii_lowercase();
        }
        Variable::ServerName => match record.host?.pattern() {
            HostPattern::Any => out.push(b'_'),
            pattern => display(pattern, out),
        },
        Variable::ServerAddr => ip(record.local.ip(), out),
        Variable::ServerPort => number(record.local.port().into(), out),
        Variable::ServerProtocol => out.extend_from_slice(record.head?.parsed.protocol().as_bytes()),
        Variable::Status => status(record.status, out),
        Variable::BodyBytesSent => number(record.body_sent, out),
        Variable::BytesSent => number(record.sent, out),
        Variable::RequestLength => number(record.received, out),
        Variable::RequestTime => seconds(record.duration, out),
        Variable::RequestId if client.request_id().is_empty() => return None,
        Variable::RequestId => text(client.request_id(), out),
        Variable::Connection => number(record.connection, out),
        Variable::ConnectionRequests => number(record.connection_requests, out),
        Variable::UpstreamAddr => return tries(record, out, |each, out| socket(each.endpoint, out)),
        Variable::UpstreamStatus => return tries(record, out, |each, out| status(each.status, out)),
        Variable::UpstreamResponseTime => return tries(record, out, |each, out| seconds(each.response, out)),
        Variable::UpstreamResponseLength => return tries(record, out, |each, out| number(each.body_received, out)),
        Variable::UpstreamConnectTime => return tries(record, out, |each, out| seconds_if(each.connect, out)),
        Variable::UpstreamHeaderTime => return tries(record, out, |each, out| seconds_if(each.header, out)),
        Variable::UpstreamBytesReceived => return tries(record, out, |each, out| number(each.received, out)),
        Variable::UpstreamBytesSent => return tries(record, out, |each, out| number(each.sent, out)),
        Variable::SslProtocol => out.extend_from_slice(record.tls?.protocol.as_bytes()),
        Variable::SslCipher => out.extend_from_slice(record.tls?.cipher.as_bytes()),
        Variable::SslServerName => text(record.tls?.server_name?.as_bytes(), out),
        Variable::SslSessionReused => out.push(if record.tls?.resumed { b'r' } else { b'.' }),
        Variable::SslClientVerify => match record.identity {
            Some(identity) => display(&identity.verified, out),
            None => {
                record.tls?;
                out.extend_from_slice(b"NONE");
            }
        },
        Variable::SslClientSubject => text(shown(&record.identity?.subject)?, out),
        Variable::SslClientIssuer => text(shown(&record.identity?.issuer)?, out),
        Variable::SslClientSerial => text(shown(&record.identity?.serial)?, out),
        Variable::SslClientFrom => text(shown(&record.identity?.valid_from)?, out),
        Variable::SslClientUntil => text(shown(&record.identity?.valid_until)?, out),
        Variable::SslClientDaysLeft => text(shown(&record.identity?.days_left)?, out),
        Variable::SslClientFingerprint => text(shown(&record.identity?.fingerprint)?, out),
        Variable::SslClientEscapedCert => text(shown(&record.identity?.escaped)?, out),
        Variable::Pipe => out.push(if record.pipelined { b'p' } else { b'.' }),
        Variable::Namespace => text(route.map_or(&b""[..], |route| route.origin.namespace.as_bytes()), out),
        Variable::IngressName => text(route.map_or(&b""[..], |route| route.origin.name.as_bytes()), out),
        Variable::ServiceName => text(record.backend.map_or(&b""[..], |backend| backend.origin.name.as_bytes()), out),
        Variable::ServicePort => text(record.backend.map_or(&b""[..], |backend| backend.port.as_bytes()), out),
        Variable::LocationPath => text(route.map_or(&b""[..], |route| route.rule.as_bytes()), out),
        Variable::UpstreamName | Variable::ProxyHost => match (record.backend, route.map(|route| &route.action)) {
            (Some(backend), _) => text(backend.upstream_name.as_bytes(), out),
            // The name of a backend that the snapshot does not contain.
            (None, Some(Action::Forward(forward))) => display(&forward.backends, out),
            (None, _) => out.push(b'-'),
        },
        // Without a canary it is empty, not absent.
        Variable::AlternativeUpstreamName => {
            text(record.alternative.map_or(&b""[..], |backend| backend.upstream_name.as_bytes()), out);
        }
        Variable::ProxyAddXForwardedFor => {
            let received = client.received_forwarded_for();
            if !received.is_empty() {
                text(received, out);
                out.extend_from_slice(b", ");
            }
            out.extend_from_slice(&client.address_text());
        }
        Variable::TraceId => hex(&record.trace?.trace, out),
        Variable::SpanId => hex(&record.trace?.span, out),
        Variable::TraceSampled => out.push(if record.trace?.sampled { b'1' } else { b'0' }),
        Variable::TraceParent => record.trace?.append_traceparent(out),
        Variable::GrpcStatus => match record.grpc_status {
            Some(status) => number(status.into(), out),
            None => text(sent_field(record.sent_head, b"grpc-status")?, out),
        },
        Variable::FailureReason => out.extend_from_slice(record.cause?.reason.as_str().as_bytes()),
        Variable::FailureSide => out.extend_from_slice(record.cause?.reason.side().as_str().as_bytes()),
        Variable::FailureDetail => match record.cause?.detail {
            CauseDetail::None => return None,
            detail => display(&detail, out),
        },
        Variable::UpstreamReason => {
            return tries(record, out, |each, out| match each.reason {
                Some(reason) => out.extend_from_slice(reason.as_str().as_bytes()),
                None => out.push(b'-'),
            });
        }
        Variable::ForwardedPort => number(client.forwarded_port().into(), out),
        Variable::Hostname | Variable::Pid | Variable::NginxVersion => {
            out.extend_from_slice(constant(variable)?.as_bytes());
        }
        Variable::ContentLength
        | Variable::ContentType
        | Variable::RequestField(_)
        | Variable::ResponseField(_)
        | Variable::UpstreamField(_)
        | Variable::Argument(_)
        | Variable::Cookie(_) => return None,
        Variable::Geo(variable) => {
            let mut value = Vec::new();
            record.geo?.append(*variable, client.address(), &mut value)?;
            text(&value, out);
        }
        Variable::Unknown(name) => text(record.variables?.get(name)?, out),
    }
    Some(())
}

/// A text, unless it is empty.
fn shown(text: &str) -> Option<&[u8]> {
    (!text.is_empty()).then_some(text.as_bytes())
}

/// Appends a value for each try, separated by commas.
fn tries(record: &RequestRecord<'_>, out: &mut Vec<u8>, append: impl Fn(&Try, &mut Vec<u8>)) -> Found {
    for (at, each) in record.tries.iter().enumerate() {
        if at > 0 {
            out.extend_from_slice(b", ");
        }
        append(each, out);
    }
    (!record.tries.is_empty()).then_some(())
}

/// The target, in parts: as received, or as it is judged.
fn request_uri<'a>(record: &RequestRecord<'a>) -> Option<[&'a [u8]; 3]> {
    let head = record.head?;
    Some(match (record.judged_path, query(record)) {
        (None, _) => [head.parsed.request_uri().of(head.bytes), b"", b""],
        (Some(path), None) => [path, b"", b""],
        (Some(path), Some(query)) => [path, b"?", query],
    })
}

fn query<'a>(record: &RequestRecord<'a>) -> Option<&'a [u8]> {
    let head = record.head?;
    head.parsed.query().map(|query| query.of(head.bytes))
}

/// The first argument with a name, as sent; like nginx, ignores the case of the name.
fn argument<'a>(query: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    query.split(|&byte| byte == b'&').find_map(|pair| {
        let (key, value) = pair.split_at(memchr::memchr(b'=', pair)?);
        key.eq_ignore_ascii_case(name).then_some(&value[1..])
    })
}

/// The first line of a field in a serialised head.
fn sent_field<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    head.split(|&byte| byte == b'\n').skip(1).find_map(|line| {
        let (key, value) = line.split_at(memchr::memchr(b':', line)?);
        key.eq_ignore_ascii_case(name).then(|| value[1..].trim_ascii())
    })
}

pub(crate) fn without_port(host: &[u8]) -> &[u8] {
    match memchr::memrchr(b':', host) {
        Some(colon) if !host[colon..].contains(&b']') => &host[..colon],
        _ => host,
    }
}

fn status(value: u16, out: &mut Vec<u8>) {
    let digit = |value: u16| b'0' + (value % 10) as u8;
    out.extend_from_slice(&[digit(value / 100), digit(value / 10), digit(value)]);
}

/// Appends seconds with milliseconds, rounded down as in nginx.
fn seconds(value: Duration, out: &mut Vec<u8>) {
    number(value.as_secs(), out);
    fraction(value.subsec_millis(), out);
}

/// Appends seconds, or `-` for a step that was not reached.
fn seconds_if(value: Option<Duration>, out: &mut Vec<u8>) {
    match value {
        Some(value) => seconds(value, out),
        None => out.push(b'-'),
    }
}

fn fraction(millis: u32, out: &mut Vec<u8>) {
    let digit = |value: u32| b'0' + (value % 10) as u8;
    out.extend_from_slice(&[b'.', digit(millis / 100), digit(millis / 10), digit(millis)]);
}

fn socket(address: SocketAddr, out: &mut Vec<u8>) {
    match address.ip() {
        IpAddr::V4(_) => ip(address.ip(), out),
        IpAddr::V6(v6) => display(&format_args!("[{v6}]"), out),
    }
    out.push(b':');
    number(address.port().into(), out);
}
