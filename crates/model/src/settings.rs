//! Settings for the whole proxy. The defaults are those of the ingress-nginx ConfigMap.

use std::net::IpAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{
    CertificateName, Compression, FieldEdit, GeoSettings, NetworkSet, StreamSettings, Template, TlsSettings, Tracing,
};

/// Settings for the whole proxy; a single resource that always exists.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Certificate for names without their own; `None` for a self-signed one made by the proxy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_certificate: Option<CertificateName>,
    /// Peers to trust about the client's address, scheme and host.
    pub forwarded: ForwardedHeaders,
    /// Value of Strict-Transport-Security where a route asks for it; `None` for no such field.
    pub strict_transport_security: Option<Box<str>>,
    /// Edits of every response, after all others (`add-headers`).
    pub response_fields: Vec<FieldEdit>,
    /// Fields of the endpoint's response that are removed, lower case (`hide-headers`).
    pub hidden_response_fields: Vec<Box<str>>,
    /// Edits of every request to an endpoint, after the built-in fields (`proxy-set-headers`).
    pub request_fields: Vec<FieldEdit>,
    /// Whether responses name the server (`server-tokens`).
    pub server_tokens: bool,
    /// Whether the endpoint's Server field is forwarded, if `server_tokens` is set.
    pub allow_backend_server_header: bool,
    /// Whether to generate an id for a request without X-Request-ID.
    pub generate_request_id: bool,
    /// Whether X-Original-URI carries the target as received (`proxy-add-original-uri-header`).
    pub original_uri_header: bool,
    /// Whether to drop fields whose name has bytes other than letters, digits and `-`; otherwise they are forwarded.
    pub ignore_invalid_headers: bool,
    /// Whether field names may contain `_`.
    pub underscores_in_headers: bool,
    /// Idle time of client connections; `None` turns keep-alive off.
    pub keep_alive: Option<Duration>,
    /// HTTP/2 from clients.
    #[serde(default, skip_serializing_if = "Http2Settings::is_default")]
    pub http2: Http2Settings,
    /// Requests on one client connection before it is closed.
    pub keep_alive_requests: u64,
    /// Maximum age of a client connection.
    pub keep_alive_time: Duration,
    /// Connections kept open to endpoints.
    pub upstream_keepalive: UpstreamKeepalive,
    /// Retries after a failure that reached an endpoint, in percent of a backend's requests; `None` for no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_budget: Option<NonZeroU32>,
    /// Time for the whole head of a request, excluding the TLS handshake.
    pub header_timeout: Duration,
    /// Time for the PROXY header of a connection, where one is expected.
    pub proxy_header_timeout: Duration,
    /// Longest gap between two reads of a request body.
    pub body_timeout: Duration,
    /// Bytes of a request body that a client must send per second of waiting, beyond a first minute; 0 for no minimum.
    pub body_rate: u32,
    /// Simultaneous connections per worker (`max-worker-connections`); `None` for as many as the open files allow.
    #[serde(default = "usual_connections", skip_serializing_if = "are_usual_connections")]
    pub worker_connections: Option<NonZeroU32>,
    /// Simultaneous connections per client in the whole process; `None` for no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connections_per_client: Option<NonZeroU32>,
    /// Wrong passwords of one client in a minute, after which further ones are refused; `None` for no limit.
    #[serde(default = "usual_wrong_passwords", skip_serializing_if = "are_usual_wrong_passwords")]
    pub wrong_passwords: Option<NonZeroU32>,
    /// Compression of responses.
    #[serde(default, skip_serializing_if = "Compression::is_off")]
    pub compression: Compression,
    /// Sizes of request heads.
    pub head_buffers: HeadBuffers,
    /// TLS on connections of clients.
    #[serde(default)]
    pub tls: TlsSettings,
    /// The access log.
    pub access_log: AccessLog,
    /// How requests are traced on routes that ask for it.
    #[serde(default, skip_serializing_if = "is_usual_tracing")]
    pub tracing: Tracing,
    /// Geographic databases (`use-geoip2`); `None` for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub geo: Option<GeoSettings>,
    /// TCP and UDP services.
    pub streams: StreamSettings,
    /// How long connections may continue after the proxy receives the signal to stop (`worker-shutdown-timeout`).
    pub shutdown_timeout: Duration,
    /// Replicas of this proxy that serve the same traffic and share the limits for clients.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub replicas: NonZeroU32,
    /// Worker threads; `None` for one per core available to the process.
    pub workers: Option<u16>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            default_certificate: None,
            forwarded: ForwardedHeaders::default(),
            strict_transport_security: Some("max-age=31536000; includeSubDomains".into()),
            response_fields: Vec::new(),
            hidden_response_fields: Vec::new(),
            request_fields: Vec::new(),
            server_tokens: false,
            allow_backend_server_header: false,
            generate_request_id: true,
            original_uri_header: false,
            ignore_invalid_headers: true,
            underscores_in_headers: false,
            keep_alive: Some(Duration::from_secs(75)),
            http2: Http2Settings::default(),
            keep_alive_requests: 1000,
            keep_alive_time: Duration::from_secs(3600),
            upstream_keepalive: UpstreamKeepalive::default(),
            retry_budget: NonZeroU32::new(20),
            header_timeout: Duration::from_secs(60),
            proxy_header_timeout: Duration::from_secs(5),
            body_timeout: Duration::from_secs(60),
            body_rate: 100,
            worker_connections: usual_connections(),
            connections_per_client: None,
            wrong_passwords: usual_wrong_passwords(),
            compression: Compression::default(),
            head_buffers: HeadBuffers::default(),
            tls: TlsSettings::default(),
            access_log: AccessLog::default(),
            tracing: Tracing::default(),
            geo: None,
            streams: StreamSettings::default(),
            shutdown_timeout: Duration::from_secs(240),
            replicas: NonZeroU32::MIN,
            workers: None,
        }
    }
}

/// 16,384, as in ingress-nginx.
const fn usual_connections() -> Option<NonZeroU32> {
    NonZeroU32::new(16_384)
}

fn are_usual_connections(count: &Option<NonZeroU32>) -> bool {
    *count == usual_connections()
}

const fn usual_wrong_passwords() -> Option<NonZeroU32> {
    NonZeroU32::new(60)
}

fn are_usual_wrong_passwords(count: &Option<NonZeroU32>) -> bool {
    *count == usual_wrong_passwords()
}

fn is_usual_tracing(tracing: &Tracing) -> bool {
    *tracing == Tracing::default()
}

const fn one() -> NonZeroU32 {
    NonZeroU32::MIN
}

fn is_one(count: &NonZeroU32) -> bool {
    *count == NonZeroU32::MIN
}

/// HTTP/2 from clients.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Http2Settings {
    /// Whether it is offered (`use-http2`).
    pub offered: bool,
    /// Streams of one connection at a time (`http2-max-concurrent-streams`).
    pub streams: NonZeroU32,
}

impl Http2Settings {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Default for Http2Settings {
    fn default() -> Self {
        Self { offered: true, streams: NonZeroU32::new(128).expect("128 is not 0") }
    }
}

/// Which peers to trust about the client.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct ForwardedHeaders {
    /// `use-forwarded-headers`: trusts X-Forwarded-For, -Host, -Proto and -Port of trusted peers.
    pub trust: bool,
    /// `enable-real-ip`: trusts only the address.
    pub real_ip: bool,
    /// `compute-full-forwarded-for`: appends the peer to X-Forwarded-For instead of replacing it.
    pub append: bool,
    /// Field that holds the client address, lower case.
    pub address_field: Box<str>,
    /// Field that holds the original host, lower case.
    pub host_field: Box<str>,
    /// Peers to trust, and hops to skip.
    pub trusted: NetworkSet,
}

impl ForwardedHeaders {
    /// Whether a peer is trusted about the client it speaks for.
    pub fn trusts(&self, peer: IpAddr) -> bool {
        (self.trust || self.real_ip) && self.trusted.contains(peer)
    }
}

impl Default for ForwardedHeaders {
    fn default() -> Self {
        Self {
            trust: false,
            real_ip: false,
            append: false,
            address_field: "x-forwarded-for".into(),
            host_field: "x-forwarded-host".into(),
            trusted: ["0.0.0.0/0", "::/0"].iter().filter_map(|net| net.parse().ok()).collect(),
        }
    }
}

/// Connections kept open to endpoints, per worker.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct UpstreamKeepalive {
    /// Idle connections to keep; 0 turns keep-alive to endpoints off.
    pub connections: u32,
    /// Requests on one connection.
    pub requests: u64,
    /// Longest idle time.
    pub idle: Duration,
    /// Maximum age.
    pub age: Duration,
}

impl Default for UpstreamKeepalive {
    fn default() -> Self {
        Self { connections: 320, requests: 10_000, idle: Duration::from_secs(60), age: Duration::from_secs(3600) }
    }
}

/// Sizes of request heads in bytes (`large-client-header-buffers`).
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct HeadBuffers {
    /// Largest request line (414) and largest field line (431).
    pub line: u32,
    /// Largest head (431).
    pub total: u32,
    /// Largest number of fields (431).
    pub fields: u16,
}

impl Default for HeadBuffers {
    fn default() -> Self {
        Self { line: 8 << 10, total: 32 << 10, fields: 128 }
    }
}

/// The access log line of each request.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct AccessLog {
    /// Whether to write it.
    pub enabled: bool,
    /// The line.
    pub format: Template,
    /// How to escape values in it.
    pub escape: LogEscape,
    /// Request targets to omit: exact, or `~pattern`.
    pub skip: Vec<Arc<str>>,
    /// The server that all access logs go to, those of TCP and UDP services too; `None` for the process's own output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub syslog: Option<Syslog>,
}

/// A syslog server over UDP (`syslog-host`, `syslog-port`).
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct Syslog {
    /// Its name or address.
    pub host: Box<str>,
    /// Its port.
    pub port: NonZeroU16,
}

/// How to escape values in the access log.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
pub enum LogEscape {
    /// `\xXX` for quotes, backslashes and control bytes.
    #[default]
    Default,
    /// As in JSON strings.
    Json,
    /// No escaping, except that line breaks are never written.
    None,
}

impl AccessLog {
    /// The ingress-nginx format `upstreaminfo`.
    pub const UPSTREAMINFO: &str = "$remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent \
        \"$http_referer\" \"$http_user_agent\" $request_length $request_time [$proxy_upstream_name] \
        [$proxy_alternative_upstream_name] $upstream_addr $upstream_response_length $upstream_response_time \
        $upstream_status $req_id";
}

impl Default for AccessLog {
    fn default() -> Self {
        Self {
            enabled: true,
            format: Template::parse(Self::UPSTREAMINFO),
            escape: LogEscape::Default,
            skip: Vec::new(),
            syslog: None,
        }
    }
}
