//! Text with variables, used in log formats, hash keys and header values (`$request_uri`, `${host}`).
//!
//! Parsed once; the value of a variable is data and is never parsed again.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::GeoVariable;

/// A compiled template. Two are equal if their text is.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(from = "Arc<str>", into = "Arc<str>")]
pub struct Template {
    text: Arc<str>,
    segments: Arc<[Segment]>,
}

/// A segment of a template.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Segment {
    /// Literal text.
    Literal(Box<str>),
    /// A value of the request.
    Variable(Variable),
}

impl Template {
    /// Compiles a text. Every text is valid: a `$` that starts no variable is literal, and an unknown variable
    /// becomes [`Variable::Unknown`], see [`unknown`](Self::unknown).
    pub fn parse(text: &str) -> Self {
        let segments = pieces(text).into_iter().map(|piece| match piece {
            Piece::Literal(text) => Segment::Literal(text.into()),
            Piece::Name(name) => Segment::Variable(Variable::from_name(name)),
        });
        Self { text: text.into(), segments: segments.collect() }
    }

    /// A template that expands to exactly this text, whatever it contains.
    pub fn of_literal(text: &str) -> Self {
        Self::parse(&text.replace('$', "${literal_dollar}"))
    }

    /// The segments in order.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// The source text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The text if it contains no variable and can be copied unchanged.
    pub fn literal(&self) -> Option<&str> {
        match &*self.segments {
            [] => Some(""),
            [Segment::Literal(text)] => Some(text),
            _ => None,
        }
    }

    /// The names of unknown variables, for a diagnostic.
    pub fn unknown(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            Segment::Variable(Variable::Unknown(name)) => Some(&**name),
            _ => None,
        })
    }
}

/// A part of a text with variables.
pub(crate) enum Piece<'a> {
    /// Literal text.
    Literal(String),
    /// The name of a variable.
    Name(&'a str),
}

/// Splits a text at its variables. A `$` that starts no variable is literal.
pub(crate) fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        literal.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let (name, after) = match rest.strip_prefix('{') {
            Some(inner) => match inner.split_once('}') {
                Some((name, after)) => (name, after),
                None => ("", rest),
            },
            None => {
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
                rest.split_at(end)
            }
        };
        // This makes a template of literal text parse as written.
        if name == "literal_dollar" {
            literal.push('$');
            rest = after;
            continue;
        }
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            literal.push('$');
            continue;
        }
        if !literal.is_empty() {
            pieces.push(Piece::Literal(std::mem::take(&mut literal)));
        }
        pieces.push(Piece::Name(name));
        rest = after;
    }
    literal.push_str(rest);
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal));
    }
    pieces
}

impl std::hash::Hash for Template {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl From<Arc<str>> for Template {
    fn from(text: Arc<str>) -> Self {
        Self::parse(&text)
    }
}

impl From<Template> for Arc<str> {
    fn from(template: Template) -> Self {
        template.text
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

macro_rules! variables {
    ($($variant:ident = $($name:literal)|+, $doc:literal;)*) => {
        /// A value of the request, the response or the route, by its nginx name
        /// (nginx.org "Alphabetical index of variables", and those that ingress-nginx adds).
        #[derive(Clone, Debug, Eq, PartialEq)]
        pub enum Variable {
            $(#[doc = $doc] $variant,)*
            /// `http_NAME`: a request field; the name in lower case with hyphens.
            RequestField(Box<str>),
            /// `sent_http_NAME`: a field of the response to the client.
            ResponseField(Box<str>),
            /// `upstream_http_NAME`: a field of the endpoint's response.
            UpstreamField(Box<str>),
            /// `arg_NAME`: a query argument.
            Argument(Box<str>),
            /// `cookie_NAME`: a cookie of the request.
            Cookie(Box<str>),
            /// `geoip2_NAME`: what a database says about the client's address.
            Geo(GeoVariable),
            /// An unknown name; it expands to nothing, or to `-` in a log.
            Unknown(Box<str>),
        }

        impl Variable {
            /// The names of all variables except the families whose members carry a name of their own.
            pub const NAMES: &[&str] = &[$($($name),+),*];

            /// The variable with a name, given without `$`.
            pub fn from_name(name: &str) -> Self {
                match name {
                    $($($name)|+ => return Self::$variant,)*
                    _ => {}
                }
                let field = |name: &str| name.to_ascii_lowercase().replace('_', "-").into_boxed_str();
                if let Some(name) = name.strip_prefix("http_") {
                    Self::RequestField(field(name))
                } else if let Some(name) = name.strip_prefix("sent_http_") {
                    Self::ResponseField(field(name))
                } else if let Some(name) = name.strip_prefix("upstream_http_") {
                    Self::UpstreamField(field(name))
                } else if let Some(name) = name.strip_prefix("arg_") {
                    Self::Argument(name.into())
                } else if let Some(name) = name.strip_prefix("cookie_") {
                    Self::Cookie(name.into())
                } else if let Some(geo) = GeoVariable::named(name) {
                    Self::Geo(geo)
                } else {
                    Self::Unknown(name.into())
                }
            }
        }
    };
}

variables! {
    RemoteAddr = "remote_addr" | "the_real_ip" | "binary_remote_addr", "Address of the client, after trusted proxies are looked through.";
    RemotePort = "remote_port", "Port of the peer.";
    RemoteUser = "remote_user", "User of basic authentication.";
    PeerAddr = "realip_remote_addr", "Address of the peer itself.";
    ProxyProtocolAddr = "proxy_protocol_addr", "Address of the client in the PROXY header.";
    ProxyProtocolPort = "proxy_protocol_port", "Port of the client in the PROXY header.";
    ProxyProtocolServerAddr = "proxy_protocol_server_addr", "Address that the client connected to, from the PROXY header.";
    ProxyProtocolServerPort = "proxy_protocol_server_port", "Port that the client connected to, from the PROXY header.";
    TimeLocal = "time_local", "Time in the common log format, `21/Nov/2026:07:00:00 +0000`.";
    TimeIso8601 = "time_iso8601", "Time as `2026-11-21T07:00:00+00:00`.";
    Msec = "msec", "Seconds since 1970 with milliseconds.";
    Request = "request", "The request line as it came.";
    RequestMethod = "request_method", "The method.";
    RequestUri = "request_uri", "The request target as it came.";
    EscapedRequestUri = "escaped_request_uri", "The same, percent-encoded as a part of a URL.";
    Uri = "uri" | "document_uri", "The canonical path, after a rewrite the rewritten one.";
    Args = "args" | "query_string", "The query without `?`.";
    IsArgs = "is_args", "`?` when there is a query.";
    Scheme = "scheme" | "pass_access_scheme", "`http` or `https`.";
    Https = "https", "`on` over TLS.";
    Host = "host" | "best_http_host", "The host of the request, lower case without port.";
    ServerName = "server_name", "The host pattern that was chosen.";
    ServerAddr = "server_addr", "Address that the connection came in on.";
    ServerPort = "server_port" | "pass_server_port", "Port that the connection came in on.";
    ServerProtocol = "server_protocol", "`HTTP/1.1`.";
    Status = "status", "Status of the response.";
    BodyBytesSent = "body_bytes_sent", "Bytes of the response body.";
    BytesSent = "bytes_sent", "Bytes of the whole response.";
    RequestLength = "request_length", "Bytes of the whole request.";
    RequestTime = "request_time", "Seconds from the first byte of the request, with milliseconds.";
    RequestId = "req_id" | "request_id", "Id of the request.";
    Connection = "connection", "Number of the connection.";
    ConnectionRequests = "connection_requests", "Number of the request on its connection.";
    ContentLength = "content_length", "The Content-Length field.";
    ContentType = "content_type", "The Content-Type field.";
    UpstreamAddr = "upstream_addr", "Addresses of the endpoints tried, separated by commas.";
    UpstreamStatus = "upstream_status", "Statuses of the tries.";
    UpstreamResponseTime = "upstream_response_time", "Seconds of each try until its last byte.";
    UpstreamResponseLength = "upstream_response_length", "Body bytes of each try.";
    UpstreamConnectTime = "upstream_connect_time", "Seconds to connect, for each try.";
    UpstreamHeaderTime = "upstream_header_time", "Seconds to the response head, for each try.";
    UpstreamBytesReceived = "upstream_bytes_received", "Bytes received in each try.";
    UpstreamBytesSent = "upstream_bytes_sent", "Bytes sent in each try.";
    SslProtocol = "ssl_protocol", "`TLSv1.3`.";
    SslCipher = "ssl_cipher", "The cipher suite.";
    SslServerName = "ssl_server_name", "Name asked for by SNI.";
    SslSessionReused = "ssl_session_reused", "`r` for a resumed session, else `.`.";
    SslClientVerify = "ssl_client_verify", "`SUCCESS`, `NONE`, or `FAILED:` and a reason, of the client's certificate.";
    SslClientSubject = "ssl_client_s_dn", "Subject of the client's certificate as in RFC 2253.";
    SslClientIssuer = "ssl_client_i_dn", "Issuer of the client's certificate as in RFC 2253.";
    SslClientSerial = "ssl_client_serial", "Serial number of the client's certificate.";
    SslClientFrom = "ssl_client_v_start", "Start of validity of the client's certificate, as `Nov 28 16:00:00 2026 GMT`.";
    SslClientUntil = "ssl_client_v_end", "End of validity of the client's certificate.";
    SslClientDaysLeft = "ssl_client_v_remain", "Days until the client's certificate expires, counted when its connection was made.";
    SslClientFingerprint = "ssl_client_fingerprint", "SHA-1 fingerprint of the client's certificate.";
    SslClientEscapedCert = "ssl_client_escaped_cert", "The client's certificate in PEM, percent-encoded.";
    Hostname = "hostname", "Name of the machine.";
    Pid = "pid", "Process id.";
    NginxVersion = "nginx_version", "Version of the proxy.";
    Pipe = "pipe", "`p` for a pipelined request, else `.`.";
    Namespace = "namespace", "Namespace of the route's object.";
    IngressName = "ingress_name", "Name of the route's object.";
    ServiceName = "service_name", "Name of the route's Service.";
    ServicePort = "service_port", "Port of the route's Service.";
    LocationPath = "location_path", "Path of the rule.";
    UpstreamName = "proxy_upstream_name", "`namespace-service-port`.";
    AlternativeUpstreamName = "proxy_alternative_upstream_name", "The canary's upstream name.";
    ProxyHost = "proxy_host", "Name of the upstream.";
    ProxyAddXForwardedFor = "proxy_add_x_forwarded_for", "X-Forwarded-For with the client address appended.";
    ForwardedPort = "pass_port", "Port told to the backend.";
    TraceId = "opentelemetry_trace_id", "Id of the trace, in hexadecimal digits.";
    SpanId = "opentelemetry_span_id", "Id of the span of the request.";
    TraceSampled = "opentelemetry_sampled", "`1` if the span is recorded, else `0`.";
    TraceParent = "opentelemetry_context_traceparent", "The trace as the backend gets it, in `traceparent`.";
    GrpcStatus = "grpc_status", "Status of a call of gRPC, from the trailers or the head of the response to a client of HTTP/2.";
    FailureReason = "failure_reason", "Why the request failed, one word such as `connect_refused`; see docs/failure-reasons.md.";
    FailureSide = "failure_side", "Who is at fault: `downstream`, `upstream` or `internal`.";
    FailureDetail = "failure_detail", "What else is known about the failure, such as `Connection refused`.";
    UpstreamReason = "upstream_reason", "Why each try failed, separated by commas; `-` for one that did not.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_found_with_and_without_braces() {
        let template = Template::parse("a$host-${request_uri}b $http_X_Foo $ $1 ${oops");
        assert_eq!(
            template.segments(),
            [
                Segment::Literal("a".into()),
                Segment::Variable(Variable::Host),
                Segment::Literal("-".into()),
                Segment::Variable(Variable::RequestUri),
                Segment::Literal("b ".into()),
                Segment::Variable(Variable::RequestField("x-foo".into())),
                Segment::Literal(" $ ".into()),
                Segment::Variable(Variable::Unknown("1".into())),
                Segment::Literal(" ${oops".into()),
            ]
        );
        assert_eq!(template.unknown().collect::<Vec<_>>(), ["1"]);
    }

    #[test]
    fn text_without_variables_is_literal() {
        assert_eq!(Template::parse("plain").literal(), Some("plain"));
        assert_eq!(Template::parse("").literal(), Some(""));
        assert_eq!(Template::parse("$host").literal(), None);
    }
}
