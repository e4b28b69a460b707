//! Log lines for TCP and UDP services.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fairway_model::{LogEscape, StreamLog, StreamSegment, StreamTemplate, StreamVariable, Template};

use super::LogClock;
use fairway_model::decimal;

/// The format for JSON, if requested on the command line.
const JSON: &str = "{\"time\":\"$time_iso8601\",\"remote_addr\":\"$remote_addr\",\"protocol\":\"$protocol\",\
    \"port\":$server_port,\"status\":$status,\"bytes_in\":$bytes_received,\"bytes_out\":$bytes_sent,\
    \"duration\":$session_time,\"backend\":\"$proxy_upstream_name\",\"upstream_addr\":\"$upstream_addr\",\"server_name\":\"$ssl_preread_server_name\"}";

/// What is known about a TCP connection or UDP session.
#[derive(Clone, Debug)]
pub struct StreamRecord {
    /// `TCP`, `UDP`, or `TLS` for a connection that is passed through.
    pub protocol: &'static str,
    /// The client's address.
    pub client: SocketAddr,
    /// The address that it arrived at.
    pub local: SocketAddr,
    /// Its number.
    pub number: u64,
    /// When it began.
    pub begun: Instant,
    /// 200, 400 for an invalid PROXY header, 502 if no endpoint was reached.
    pub status: u16,
    /// Bytes to the client.
    pub sent: u64,
    /// Bytes from the client.
    pub received: u64,
    /// Bytes to the endpoint.
    pub upstream_sent: u64,
    /// Bytes from the endpoint.
    pub upstream_received: u64,
    /// The endpoints that were tried.
    pub tried: Vec<SocketAddr>,
    /// Time to connect to the last of them, if that succeeded.
    pub connect: Option<Duration>,
    /// The backend's name in ingress-nginx; empty if unknown.
    pub upstream_name: Arc<str>,
    /// The host that a TLS client asks for, in canonical form; empty without TLS passthrough.
    pub server_name: Box<str>,
}

/// A compiled line format.
#[derive(Clone, Debug)]
pub struct StreamFormat {
    template: StreamTemplate,
    escape: LogEscape,
}

impl StreamFormat {
    /// The format from the settings. `instead` is a format requested on the command line; JSON applies to streams as well.
    pub fn of(settings: &StreamLog, instead: Option<&(Template, LogEscape)>) -> Option<Self> {
        let format = match instead {
            Some((_, LogEscape::Json)) => Self { template: StreamTemplate::parse(JSON), escape: LogEscape::Json },
            _ => Self { template: settings.format.clone(), escape: settings.escape },
        };
        settings.enabled.then_some(format)
    }

    /// Appends the line. Its values are numbers, addresses, host names and the proxy's own names, so nothing needs escaping.
    pub fn append(&self, record: &StreamRecord, clock: &mut LogClock, out: &mut Vec<u8>) {
        for segment in self.template.segments() {
            let known = match segment {
                StreamSegment::Literal(text) => {
                    out.extend_from_slice(text.as_bytes());
                    true
                }
                StreamSegment::Variable(variable) => value(*variable, record, clock, out),
                StreamSegment::Unknown(_) => false,
            };
            if !known && self.escape == LogEscape::Default {
                out.push(b'-');
            }
        }
    }
}

/// Appends a value; `false` if there is none.
fn value(variable: StreamVariable, record: &StreamRecord, clock: &mut LogClock, out: &mut Vec<u8>) -> bool {
    match variable {
        StreamVariable::RemoteAddr => decimal::ip(record.client.ip(), out),
        StreamVariable::RemotePort => decimal::number(record.client.port().into(), out),
        StreamVariable::ServerAddr => decimal::ip(record.local.ip(), out),
        StreamVariable::ServerPort => decimal::number(record.local.port().into(), out),
        StreamVariable::TimeLocal => out.extend_from_slice(clock.local(clock.now().0)),
        StreamVariable::TimeIso8601 => out.extend_from_slice(clock.iso8601(clock.now().0)),
        StreamVariable::Msec => {
            let (second, millis) = clock.now();
            seconds(Duration::new(second.unsigned_abs(), millis * 1_000_000), out);
        }
        StreamVariable::Protocol => out.extend_from_slice(record.protocol.as_bytes()),
        StreamVariable::Status => decimal::number(record.status.into(), out),
        StreamVariable::BytesSent => decimal::number(record.sent, out),
        StreamVariable::BytesReceived => decimal::number(record.received, out),
        StreamVariable::SessionTime => seconds(record.begun.elapsed(), out),
        StreamVariable::Connection => decimal::number(record.number, out),
        StreamVariable::UpstreamBytesSent => decimal::number(record.upstream_sent, out),
        StreamVariable::UpstreamBytesReceived => decimal::number(record.upstream_received, out),
        StreamVariable::UpstreamAddr => {
            for (at, endpoint) in record.tried.iter().enumerate() {
                if at > 0 {
                    out.extend_from_slice(b", ");
                }
                decimal::display(endpoint, out);
            }
            return !record.tried.is_empty();
        }
        StreamVariable::UpstreamConnectTime => match record.connect {
            Some(connect) => seconds(connect, out),
            None => return false,
        },
        StreamVariable::ServerName => {
            out.extend_from_slice(record.server_name.as_bytes());
            return !record.server_name.is_empty();
        }
        StreamVariable::UpstreamName => {
            out.extend_from_slice(record.upstream_name.as_bytes());
            return !record.upstream_name.is_empty();
        }
    }
    true
}

/// Seconds with three decimals.
fn seconds(duration: Duration, out: &mut Vec<u8>) {
    decimal::number(duration.as_secs(), out);
    decimal::display(&format_args!(".{:03}", duration.subsec_millis()), out);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(format: &StreamFormat, record: &StreamRecord) -> String {
        let mut out = Vec::new();
        format.append(record, &mut LogClock::new(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_those_of_the_format() {
        let mut record = StreamRecord {
            protocol: "TCP",
            client: "192.0.2.1:5".parse().unwrap(),
            local: "192.0.2.2:9000".parse().unwrap(),
            number: 7,
            begun: Instant::now(),
            status: 200,
            sent: 11,
            received: 22,
            upstream_sent: 33,
            upstream_received: 44,
            tried: Vec::new(),
            connect: None,
            upstream_name: "tcp-a-b-1".into(),
            server_name: Box::default(),
        };
        let settings = |text: &str| StreamLog { format: StreamTemplate::parse(text), ..StreamLog::default() };
        let format = |text: &str| StreamFormat::of(&settings(text), None).unwrap();
        assert_eq!(
            line(&format("$remote_addr:$remote_port $protocol $status $bytes_sent $bytes_received"), &record),
            "192.0.2.1:5 TCP 200 11 22"
        );
        let upstream = "$upstream_addr|$upstream_connect_time|$proxy_upstream_name|$ssl_preread_server_name|$nobody";
        assert_eq!(line(&format(upstream), &record), "-|-|tcp-a-b-1|-|-");
        record.tried = vec!["10.0.0.1:1".parse().unwrap(), "[::1]:2".parse().unwrap()];
        record.connect = Some(Duration::from_millis(12));
        record.server_name = "a.example".into();
        assert_eq!(line(&format(upstream), &record), "10.0.0.1:1, [::1]:2|0.012|tcp-a-b-1|a.example|-");
        let json = StreamFormat::of(&StreamLog::default(), Some(&(Template::parse("{}"), LogEscape::Json))).unwrap();
        let parsed: serde_json::Value = serde_json::from_str(&line(&json, &record)).unwrap();
        assert_eq!(parsed["bytes_in"], 22);
        let off = StreamLog { enabled: false, ..StreamLog::default() };
        assert!(StreamFormat::of(&off, None).is_none());
    }
}
