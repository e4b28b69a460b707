//! One health check: a connection of its own, one question, and whether the answer is good. Everything about it is bounded, and it
//! ends within its time.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use fairway_model::{HealthCheck, Probe};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::limit::{HEALTH_HEAD, HEALTH_TIMEOUT};
use crate::upstream::unverified_tls;

/// The `User-Agent` of a check.
const AGENT: &str = concat!("fairway-health-check/", env!("CARGO_PKG_VERSION"));

/// The flag and length of a message of gRPC.
// No limit: part of the protocol.
const PREFIX: usize = 5;

/// `SERVING` in field 1 of a `HealthCheckResponse`.
const SERVING: [u8; 2] = [0x08, 1];

/// How endpoints are asked over TLS.
#[derive(Clone)]
pub(super) struct Asking {
    http1: Arc<ClientConfig>,
    http2: Arc<ClientConfig>,
}

/// Any certificate will do, as for the probes of Kubernetes.
impl Default for Asking {
    fn default() -> Self {
        let to = |protocol: &[u8]| {
            let mut config = unverified_tls(&[protocol]);
            config.enable_sni = false;
            Arc::new(config)
        };
        Self { http1: to(b"http/1.1"), http2: to(b"h2") }
    }
}

/// Why an answer is not good.
#[derive(Debug, thiserror::Error)]
pub(super) enum BadAnswer {
    /// None came in time.
    #[error("no answer in time")]
    Late,
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Its status.
    #[error("status {0}")]
    Status(u16),
    /// It is not HTTP, or its head is too large.
    #[error("the answer is malformed")]
    Malformed,
    /// HTTP/2 failed.
    #[error(transparent)]
    Http2(#[from] h2::Error),
    /// gRPC's own status.
    #[error("grpc-status {0}")]
    Grpc(String),
    /// The service is not `SERVING`.
    #[error("the service is not serving")]
    NotServing,
}

impl Asking {
    /// Asks an endpoint.
    pub(super) async fn ask(&self, check: &HealthCheck, address: SocketAddr) -> Result<(), BadAnswer> {
        let answer = async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            if !check.tls {
                return question(&check.probe, stream, address, "http").await;
            }
            let config = if matches!(check.probe, Probe::Grpc { .. }) { &self.http2 } else { &self.http1 };
            let name = ServerName::IpAddress(address.ip().into());
            let stream = TlsConnector::from(config.clone()).connect(name, stream).await?;
            question(&check.probe, stream, address, "https").await
        };
        tokio::time::timeout(check.timeout.min(HEALTH_TIMEOUT), answer).await.unwrap_or(Err(BadAnswer::Late))
    }
}

async fn question<S>(probe: &Probe, stream: S, address: SocketAddr, scheme: &str) -> Result<(), BadAnswer>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match probe {
        Probe::Http { path, statuses } => {
            let status = http(stream, path, address).await?;
            let good = statuses.iter().any(|(from, to)| (*from..=*to).contains(&status));
            if good { Ok(()) } else { Err(BadAnswer::Status(status)) }
        }
        Probe::Grpc { service } => grpc(stream, service, address, scheme).await,
    }
}

/// The status of the answer to a `GET`. Its body is not awaited.
async fn http(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    path: &str,
    address: SocketAddr,
) -> Result<u16, BadAnswer> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {address}\r\nUser-Agent: {AGENT}\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    stream.flush().await?;
    let mut head = Vec::new();
    loop {
        let begun = head.len();
        if (&mut stream).take((HEALTH_HEAD - begun) as u64).read_buf(&mut head).await? == 0 {
            return Err(BadAnswer::Malformed);
        }
        while let Some((status, length)) = status(&head)? {
            if status >= 200 {
                return Ok(status);
            }
            // Another one follows. 101 was not asked for.
            head.drain(..length);
        }
    }
}

/// The status of a head and the length of the head, if it is complete.
fn status(bytes: &[u8]) -> Result<Option<(u16, usize)>, BadAnswer> {
    let mut fields = [httparse::EMPTY_HEADER; 128];
    let mut response = httparse::Response::new(&mut fields);
    match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => Ok(response.code.map(|code| (code, length))),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(_) => Err(BadAnswer::Malformed),
    }
}

/// `grpc.health.v1.Health/Check` (the health checking protocol of gRPC).
async fn grpc<S>(stream: S, service: &str, address: SocketAddr, scheme: &str) -> Result<(), BadAnswer>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut builder = h2::client::Builder::new();
    builder.max_header_list_size(HEALTH_HEAD as u32).initial_window_size(1 << 16).enable_push(false);
    let (requests, connection) = builder.handshake::<_, Bytes>(stream).await?;
    let call = async {
        let mut requests = requests.ready().await?;
        let request = http::Request::post(format!("{scheme}://{address}/grpc.health.v1.Health/Check"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .header("user-agent", AGENT)
            .body(())
            .map_err(|_| BadAnswer::Malformed)?;
        let (response, mut body) = requests.send_request(request, false)?;
        body.send_data(message(service), true)?;
        let response = response.await?;
        if response.status() != 200 {
            return Err(BadAnswer::Status(response.status().as_u16()));
        }
        let failure = |fields: &http::HeaderMap| match fields.get("grpc-status") {
            Some(status) if status != "0" => {
                Err(BadAnswer::Grpc(String::from_utf8_lossy(status.as_bytes()).into_owned()))
            }
            _ => Ok(()),
        };
        failure(response.headers())?;
        let mut body = response.into_body();
        let mut answer = Vec::new();
        while let Some(data) = body.data().await {
            let data = data?;
            // A good answer has 7 bytes. One that exceeds the window stalls until the check times out, since no window is released.
            answer.extend_from_slice(&data[..data.len().min(HEALTH_HEAD.saturating_sub(answer.len()))]);
        }
        if let Some(trailers) = body.trailers().await? {
            failure(&trailers)?;
        }
        if answer.first() == Some(&0) && answer.get(PREFIX..) == Some(&SERVING[..]) {
            Ok(())
        } else {
            Err(BadAnswer::NotServing)
        }
    };
    tokio::pin!(call, connection);
    poll_fn(|context| {
        if let std::task::Poll::Ready(answer) = call.as_mut().poll(context) {
            return std::task::Poll::Ready(answer);
        }
        match connection.as_mut().poll(context) {
            std::task::Poll::Ready(Err(error)) => std::task::Poll::Ready(Err(error.into())),
            // What has arrived may complete the call.
            std::task::Poll::Ready(Ok(())) => match call.as_mut().poll(context) {
                std::task::Poll::Pending => std::task::Poll::Ready(Err(BadAnswer::Malformed)),
                answer => answer,
            },
            std::task::Poll::Pending => std::task::Poll::Pending,
        }
    })
    .await
}

/// A `HealthCheckRequest` with the service in field 1, as a message of gRPC.
fn message(service: &str) -> Bytes {
    let mut request = Vec::new();
    if !service.is_empty() {
        request.push(0x0a);
        let mut length = service.len();
        while length >= 0x80 {
            request.push(length as u8 | 0x80);
            length >>= 7;
        }
        request.push(length as u8);
        request.extend_from_slice(service.as_bytes());
    }
    let mut message = vec![0];
    message.extend_from_slice(&(request.len() as u32).to_be_bytes());
    message.extend(request);
    message.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_a_field_of_the_message() {
        assert_eq!(message("").as_ref(), [0, 0, 0, 0, 0]);
        assert_eq!(message("a.B").as_ref(), b"\0\0\0\0\x05\x0a\x03a.B");
        let long = message(&"x".repeat(300));
        assert_eq!(&long[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 2]);
    }

    #[test]
    fn heads_are_read_when_they_are_complete() {
        assert_eq!(status(b"HTTP/1.1 200 OK\r\nA: b\r\n").unwrap(), None);
        assert_eq!(status(b"HTTP/1.1 204 \r\n\r\nrest").unwrap(), Some((204, 17)));
        assert!(status(b"SSH-2.0-x\r\n").is_err());
    }
}
