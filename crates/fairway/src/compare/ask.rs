//! Sends requests to one of the two addresses over HTTP/1.1, one at a time, and keeps one connection for each scheme.
//!
//! The TLS server name is the host of the request. Certificates are not verified: the user named the address, and a certificate for the
//! host is often missing until DNS points there. Redirects are responses like any other.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use fairway_model::Scheme;
use fairway_proxy::unverified_tls;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::address::Address;
use super::question::Question;
use super::response::{Body, BodyReader, NoAnswer, Response};

/// Default limit on the part of a body that is read.
pub(super) const BODY: u64 = 1 << 20;
/// Largest response head, in bytes and fields.
const HEAD: usize = 128 << 10;
const FIELDS: usize = 500;

/// What limits one exchange.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// From connecting to the end of the body.
    pub(super) time: Duration,
    /// How much of a body is read.
    pub(super) body: u64,
}

/// One of the two addresses.
pub(super) struct Asker {
    address: Address,
    bounds: Bounds,
    /// Added to every request.
    fields: Vec<(String, String)>,
    tls: TlsConnector,
    /// The last connection used for each scheme.
    http: Option<Connection>,
    https: Option<Connection>,
}

/// An idle connection.
struct Connection {
    /// The server name of its handshake; empty without TLS.
    server_name: String,
    sender: SendRequest<Empty<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Asker {
    pub(super) fn new(address: Address, bounds: Bounds, fields: Vec<(String, String)>) -> Self {
        let tls = TlsConnector::from(Arc::new(unverified_tls(&[b"http/1.1"])));
        Self { address, bounds, fields, tls, http: None, https: None }
    }

    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// Checks whether the address accepts connections for a scheme.
    pub(super) async fn probe(&self, scheme: Scheme) -> Result<(), NoAnswer> {
        let connected = tokio::time::timeout(self.bounds.time, self.connect(scheme)).await;
        connected.map_err(|_| NoAnswer::TimedOut)?.map(drop)
    }

    /// The address with the port for a scheme, for messages.
    pub(super) fn place(&self, scheme: Scheme) -> String {
        let Address { name, .. } = &self.address;
        let name = if name.contains(':') { format!("[{name}]") } else { name.clone() };
        format!("{name}:{}", self.address.port(scheme).unwrap_or_default())
    }

    /// Sends a request and reads the response.
    pub(super) async fn ask(&mut self, request: &Question) -> Result<Response, NoAnswer> {
        let time = self.bounds.time;
        tokio::time::timeout(time, self.exchange(request)).await.unwrap_or(Err(NoAnswer::TimedOut))
    }

    async fn exchange(&mut self, request: &Question) -> Result<Response, NoAnswer> {
        let server_name = match request.scheme {
            Scheme::Http => "",
            Scheme::Https => request.server_name(),
        };
        let kept = self.kept(request.scheme).take();
        let usable = |kept: &Connection| kept.server_name == server_name && !kept.sender.is_closed();
        if let Some(kept) = kept.filter(|kept| request.is_safe() && usable(kept)) {
            match self.on(kept, request).await {
                // The server may have closed the connection while it was idle.
                Err(NoAnswer::Broken(_)) => {}
                outcome => return outcome,
            }
        }
        let connection = self.open(request.scheme, server_name).await?;
        self.on(connection, request).await
    }

    fn kept(&mut self, scheme: Scheme) -> &mut Option<Connection> {
        match scheme {
            Scheme::Http => &mut self.http,
            Scheme::Https => &mut self.https,
        }
    }

    async fn connect(&self, scheme: Scheme) -> Result<TcpStream, NoAnswer> {
        let port = self.address.port(scheme).unwrap_or_default();
        let stream = TcpStream::connect((self.address.name.as_str(), port)).await;
        let stream = stream.map_err(|error| NoAnswer::Unreachable(error.to_string()))?;
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    async fn open(&self, scheme: Scheme, server_name: &str) -> Result<Connection, NoAnswer> {
        let stream = self.connect(scheme).await?;
        if scheme == Scheme::Http {
            return handshake(stream, server_name).await;
        }
        let address = stream.peer_addr().map_err(|error| NoAnswer::Unreachable(error.to_string()))?;
        // No server name is sent for a host that can't be one.
        let name = ServerName::try_from(server_name.to_owned());
        let name = name.unwrap_or_else(|_| ServerName::IpAddress(address.ip().into()));
        let stream =
            self.tls.connect(name, stream).await.map_err(|error: io::Error| NoAnswer::Tls(error.to_string()))?;
        handshake(stream, server_name).await
    }

    async fn on(&mut self, mut connection: Connection, request: &Question) -> Result<Response, NoAnswer> {
        let response =
            connection.sender.send_request(message(request, &self.fields)?).await.map_err(|error| broken(&error))?;
        let (head, body) = response.into_parts();
        let fields = head
            .headers
            .iter()
            .map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
        let fields = fields.collect();
        let body = read(body, self.bounds.body).await?;
        if body.whole && connection.sender.ready().await.is_ok() {
            *self.kept(request.scheme) = Some(connection);
        }
        Ok(Response { status: head.status.as_u16(), fields, body })
    }
}

async fn handshake<S>(stream: S, server_name: &str) -> Result<Connection, NoAnswer>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let builder = http1::Builder::new().max_buf_size(HEAD).max_headers(FIELDS).to_owned();
    let (sender, driver) = builder.handshake(TokioIo::new(stream)).await.map_err(|error| broken(&error))?;
    let driver = tokio::spawn(async move {
        // The request on the connection reports how the connection ended.
        let _ = driver.await;
    });
    Ok(Connection { server_name: server_name.to_owned(), sender, driver })
}

fn message(request: &Question, common: &[(String, String)]) -> Result<http::Request<Empty<Bytes>>, NoAnswer> {
    let mut builder = http::Request::builder()
        .method(request.method.as_str())
        .uri(request.target.as_str())
        .header("Host", &request.host);
    let fields = || request.fields.iter().chain(common);
    for (name, value) in fields() {
        builder = builder.header(name, value);
    }
    let set = |name: &str| fields().any(|(own, _)| own.eq_ignore_ascii_case(name));
    if !set("user-agent") {
        builder = builder.header("User-Agent", concat!("fairway-compare/", env!("CARGO_PKG_VERSION")));
    }
    if !set("accept") {
        builder = builder.header("Accept", "*/*");
    }
    builder.body(Empty::new()).map_err(|error| NoAnswer::Broken(error.to_string()))
}

async fn read(mut body: Incoming, limit: u64) -> Result<Body, NoAnswer> {
    let mut reader = BodyReader::new(limit);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| broken(&error))?;
        if frame.data_ref().is_some_and(|piece| !reader.take(piece)) {
            return Ok(reader.finish(false));
        }
    }
    Ok(reader.finish(true))
}

/// The error with its causes.
fn broken(error: &hyper::Error) -> NoAnswer {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    NoAnswer::Broken(text)
}
