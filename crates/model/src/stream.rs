//! TCP and UDP services: ports whose bytes are forwarded to a backend without inspection.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::template::{Piece, pieces};
use crate::{BackendName, ListenerName, LogEscape, Origin, UpstreamTls};

/// An address whose connections or datagrams go to a backend. It shares its namespace with
/// [`Listener`](crate::Listener).
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct StreamListener {
    /// Its name, for example `tcp-9000`.
    pub name: ListenerName,
    /// The entry of the ConfigMap, or the listener of the Gateway.
    pub origin: Origin,
    /// Address that accepts connections or datagrams.
    pub address: SocketAddr,
    /// The transport protocol.
    pub transport: Transport,
    /// The destination. Without endpoints, connections are closed and datagrams dropped.
    pub backend: StreamBackends,
}

/// Where connections or sessions go. Each goes to one backend, and stays there.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum StreamBackends {
    /// One backend gets all of them.
    One(BackendName),
    /// Each backend gets its share; without any, they are closed or dropped.
    Weighted(Arc<[StreamShare]>),
}

/// A backend that gets a share of the connections.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct StreamShare {
    /// The backend; `None` for connections that are closed, because the reference to their backend is invalid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backend: Option<BackendName>,
    /// Its share in proportion to the others; 0 for none.
    pub weight: u32,
    /// TLS to its endpoints, over which they get what the connection carries. Datagrams have none: sessions that need it are not served.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<Arc<UpstreamTls>>,
}

/// Where one connection or session goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct StreamTarget<'a> {
    /// The backend.
    pub backend: &'a BackendName,
    /// TLS to its endpoints.
    pub tls: Option<&'a Arc<UpstreamTls>>,
}

impl StreamBackends {
    /// The destination of connections that lead nowhere.
    pub fn none() -> Self {
        Self::Weighted(Arc::new([]))
    }

    /// The backend of a new connection, by 64 random bits.
    pub fn choose(&self, bits: impl FnOnce() -> u64) -> Option<StreamTarget<'_>> {
        let shares = match self {
            Self::One(backend) => return Some(StreamTarget { backend, tls: None }),
            Self::Weighted(shares) => shares,
        };
        let total: u64 = shares.iter().map(|share| u64::from(share.weight)).sum();
        if total == 0 {
            return None;
        }
        let mut at = ((u128::from(bits()) * u128::from(total)) >> 64) as u64;
        let chosen = shares.iter().find(|share| {
            let weight = u64::from(share.weight);
            let found = at < weight;
            at = at.saturating_sub(weight);
            found
        });
        let StreamShare { backend, tls, .. } = chosen?;
        Some(StreamTarget { backend: backend.as_ref()?, tls: tls.as_ref() })
    }

    /// The backends that may be chosen.
    pub fn names(&self) -> impl Iterator<Item = &BackendName> {
        let (one, shares) = match self {
            Self::One(backend) => (Some(backend), &[][..]),
            Self::Weighted(shares) => (None, &shares[..]),
        };
        let weighted = shares.iter().filter(|share| share.weight > 0).filter_map(|share| share.backend.as_ref());
        one.into_iter().chain(weighted)
    }
}

/// `a/b:80/tcp`, `a/b:443/tcp over TLS`, `a/b:80/tcp (7), nowhere (2)` or `nowhere`.
impl fmt::Display for StreamBackends {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shares = match self {
            Self::One(backend) => return backend.fmt(f),
            Self::Weighted(shares) if shares.is_empty() => return f.write_str("nowhere"),
            Self::Weighted(shares) => shares,
        };
        for (at, share) in shares.iter().enumerate() {
            let between = if at == 0 { "" } else { ", " };
            let name = share.backend.as_ref().map_or("nowhere", BackendName::as_str);
            let tls = if share.tls.is_some() { " over TLS" } else { "" };
            write!(f, "{between}{name}{tls}")?;
            if shares.len() > 1 || share.weight == 0 {
                write!(f, " ({})", share.weight)?;
            }
        }
        Ok(())
    }
}

impl From<BackendName> for StreamBackends {
    fn from(backend: BackendName) -> Self {
        Self::One(backend)
    }
}

impl From<&str> for StreamBackends {
    fn from(backend: &str) -> Self {
        Self::One(backend.into())
    }
}

/// The transport protocol of a [`StreamListener`].
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Transport {
    /// TCP connections.
    Tcp {
        /// Whether each must begin with a PROXY header that names the client; a connection without a valid one is
        /// closed.
        accept_proxy: bool,
        /// Whether the endpoint gets a PROXY header (version 1) with the client's address.
        send_proxy: bool,
    },
    /// UDP datagrams.
    Udp,
}

impl Transport {
    /// Whether this is UDP.
    pub fn is_udp(self) -> bool {
        self == Self::Udp
    }

    /// The name used in logs and metrics: `TCP` or `UDP`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp { .. } => "TCP",
            Self::Udp => "UDP",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Settings for all TCP and UDP services. The defaults are those of the ingress-nginx ConfigMap.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct StreamSettings {
    /// Longest time during which neither side sends anything (`proxy-stream-timeout`).
    pub idle: Duration,
    /// Time for one attempt to connect (`proxy-connect-timeout`).
    pub connect_timeout: Duration,
    /// Whether to try another endpoint if connecting fails (`proxy-stream-next-upstream`); `None` for no.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<StreamRetry>,
    /// Datagrams that an endpoint sends for each one from the client; the last of them ends the session
    /// (`proxy-stream-responses`).
    pub responses: u32,
    /// The log.
    pub log: StreamLog,
}

impl Default for StreamSettings {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(600),
            connect_timeout: Duration::from_secs(5),
            retry: Some(StreamRetry::default()),
            responses: 1,
            log: StreamLog::default(),
        }
    }
}

/// How often to try another endpoint. No endpoint is tried twice.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct StreamRetry {
    /// Attempts in total, the first included; `None` for as many as there are endpoints.
    pub tries: Option<u32>,
    /// Time, from the first attempt, within which further ones may start; `None` for no limit.
    pub within: Option<Duration>,
}

impl Default for StreamRetry {
    fn default() -> Self {
        Self { tries: Some(3), within: Some(Duration::from_secs(600)) }
    }
}

/// The log line written when a connection or a datagram session ends.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct StreamLog {
    /// Whether to write it.
    pub enabled: bool,
    /// The line.
    pub format: StreamTemplate,
    /// How to escape values in it.
    pub escape: LogEscape,
}

impl StreamLog {
    /// The ingress-nginx format.
    pub const FORMAT: &str = "[$remote_addr] [$time_local] $protocol $status $bytes_sent $bytes_received $session_time";
}

impl Default for StreamLog {
    fn default() -> Self {
        Self { enabled: true, format: StreamTemplate::parse(Self::FORMAT), escape: LogEscape::Default }
    }
}

/// A compiled log line. Two are equal if their text is.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(from = "Arc<str>", into = "Arc<str>")]
pub struct StreamTemplate {
    text: Arc<str>,
    segments: Arc<[StreamSegment]>,
}

/// A piece of a [`StreamTemplate`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum StreamSegment {
    /// Literal text.
    Literal(Box<str>),
    /// A value of the session.
    Variable(StreamVariable),
    /// An unknown name.
    Unknown(Box<str>),
}

impl StreamTemplate {
    /// Compiles a text by the rules of [`Template`](crate::Template). Unknown names become [`StreamSegment::Unknown`].
    pub fn parse(text: &str) -> Self {
        let segments = pieces(text).into_iter().map(|piece| match piece {
            Piece::Literal(text) => StreamSegment::Literal(text.into()),
            Piece::Name(name) => match StreamVariable::from_name(name) {
                Some(variable) => StreamSegment::Variable(variable),
                None => StreamSegment::Unknown(name.into()),
            },
        });
        Self { text: text.into(), segments: segments.collect() }
    }

    /// The segments in order.
    pub fn segments(&self) -> &[StreamSegment] {
        &self.segments
    }

    /// The source text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The names of unknown variables, for a diagnostic.
    pub fn unknown(&self) -> impl Iterator<Item = &str> {
        self.segments.iter().filter_map(|segment| match segment {
            StreamSegment::Unknown(name) => Some(&**name),
            StreamSegment::Literal(_) | StreamSegment::Variable(_) => None,
        })
    }
}

impl From<Arc<str>> for StreamTemplate {
    fn from(text: Arc<str>) -> Self {
        Self::parse(&text)
    }
}

impl From<StreamTemplate> for Arc<str> {
    fn from(template: StreamTemplate) -> Self {
        template.text
    }
}

macro_rules! variables {
    ($($variant:ident = $name:literal, $doc:literal;)*) => {
        /// A value of a TCP connection or of a datagram session, by its nginx name (the `stream` modules of nginx.org).
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub enum StreamVariable {
            $(#[doc = concat!("`", $name, "`: ", $doc)] $variant,)*
        }

        impl StreamVariable {
            /// The variable with a name, given without `$`.
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($name => Some(Self::$variant),)*
                    _ => None,
                }
            }
        }
    };
}

variables! {
    RemoteAddr = "remote_addr", "address of the client.";
    RemotePort = "remote_port", "port of the client.";
    ServerAddr = "server_addr", "address that it came in on.";
    ServerPort = "server_port", "port that it came in on.";
    TimeLocal = "time_local", "time in the common log format.";
    TimeIso8601 = "time_iso8601", "time as `2026-11-21T07:00:00+00:00`.";
    Msec = "msec", "seconds since 1970 with milliseconds.";
    Protocol = "protocol", "`TCP` or `UDP`; `TLS` for a connection that its server name leads to a backend.";
    Status = "status", "200, 400 for a bad PROXY header, 502 when no endpoint was reached.";
    BytesSent = "bytes_sent", "bytes sent to the client.";
    BytesReceived = "bytes_received", "bytes received from the client.";
    SessionTime = "session_time", "seconds from beginning to end, with milliseconds.";
    Connection = "connection", "number of the connection.";
    UpstreamAddr = "upstream_addr", "endpoints tried, separated by commas.";
    UpstreamBytesSent = "upstream_bytes_sent", "bytes sent to the endpoint.";
    UpstreamBytesReceived = "upstream_bytes_received", "bytes received from the endpoint.";
    UpstreamConnectTime = "upstream_connect_time", "seconds until an endpoint was connected.";
    UpstreamName = "proxy_upstream_name", "`tcp-namespace-service-port`.";
    ServerName = "ssl_preread_server_name", "host that a TLS client asks for, if its connection is passed through.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_backend_gets_its_share_and_nothing_without_weight_is_chosen() {
        let share = |backend: Option<&str>, weight| StreamShare { backend: backend.map(Into::into), weight, tls: None };
        let all = [share(Some("a"), 7), share(Some("b"), 0), share(None, 2), share(Some("c"), 1)];
        let shares = StreamBackends::Weighted(Arc::new(all));
        let chosen: Vec<_> =
            (0..10).map(|at| shares.choose(|| at * (u64::MAX / 10) + 10).map(|it| it.backend.to_string())).collect();
        let expected = [[Some("a"); 7].as_slice(), &[None, None, Some("c")]].concat();
        assert_eq!(chosen.iter().map(Option::as_deref).collect::<Vec<_>>(), expected);
        assert_eq!(shares.names().map(ToString::to_string).collect::<Vec<_>>(), ["a", "c"]);
        assert_eq!(StreamBackends::none().choose(|| 0), None);
        assert_eq!(StreamBackends::Weighted(Arc::new([share(Some("a"), 0)])).choose(|| 0), None);
        let text = serde_json::to_string(&shares).unwrap();
        assert_eq!(serde_json::from_str::<StreamBackends>(&text).unwrap(), shares);
    }

    #[test]
    fn tls_belongs_to_one_share() {
        let share = |backend: &str, tls: Option<UpstreamTls>| StreamShare {
            backend: Some(backend.into()),
            weight: 1,
            tls: tls.map(Arc::new),
        };
        let shares = StreamBackends::Weighted(Arc::new([share("a", Some(UpstreamTls::default())), share("b", None)]));
        let chosen = |bits| shares.choose(|| bits).map(|it| (it.backend.to_string(), it.tls.is_some()));
        assert_eq!(chosen(0), Some(("a".to_owned(), true)));
        assert_eq!(chosen(u64::MAX), Some(("b".to_owned(), false)));
        assert_eq!(shares.to_string(), "a over TLS (1), b (1)");
        let text = serde_json::to_string(&shares).unwrap();
        assert_eq!(serde_json::from_str::<StreamBackends>(&text).unwrap(), shares);
        let one = StreamBackends::Weighted(Arc::new([share("a", Some(UpstreamTls::default()))]));
        assert_eq!(one.to_string(), "a over TLS");
    }

    #[test]
    fn the_default_format_has_no_unknown_names() {
        let template = StreamTemplate::parse(StreamLog::FORMAT);
        assert_eq!(template.unknown().count(), 0);
        assert_eq!(template.segments()[1], StreamSegment::Variable(StreamVariable::RemoteAddr));
        assert_eq!(StreamTemplate::parse("$host-${protocol}").unknown().collect::<Vec<_>>(), ["host"]);
    }
}
