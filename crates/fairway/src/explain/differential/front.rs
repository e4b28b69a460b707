//! A server that speaks whatever the proxy speaks to it (TLS or none, HTTP/1 or HTTP/2), in front of an origin that speaks HTTP/1 only.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use fairway_testkit::{Ca, Client};
use tokio::io::{AsyncRead, AsyncWrite, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// The field by which the origin learns that a request came over HTTP/2.
pub(super) const OVER_HTTP2: &str = "x-over-http2";

/// What a TLS connection begins with, and one of HTTP/2 without TLS.
const HANDSHAKE: &[u8] = &[22];
const PREFACE: &[u8] = b"PRI * HTTP/2.0";

/// Runs until the runtime ends.
pub(super) struct Front {
    address: SocketAddr,
    connections: Arc<AtomicU64>,
}

impl Front {
    /// Starts on the current runtime.
    pub(super) fn start(origin: SocketAddr) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("an address");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("an address");
        let listener = TcpListener::from_std(listener).expect("a runtime");
        let leaf = Ca::new("front").leaf(&["front.example"]);
        let mut config =
            rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
                .with_safe_default_protocol_versions()
                .expect("versions")
                .with_no_client_auth()
                .with_single_cert(leaf.chain().to_vec(), leaf.key())
                .expect("a certificate");
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let connections = Arc::new(AtomicU64::new(0));
        let accepted = Arc::clone(&connections);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.expect("a connection");
                accepted.fetch_add(1, Ordering::SeqCst);
                // How the connection ended matters only to its peer.
                let acceptor = acceptor.clone();
                tokio::spawn(async move { serve(stream, acceptor, origin).await });
            }
        });
        Self { address, connections }
    }

    /// The number of connections that it has accepted. It has counted a connection before it sends anything on it.
    pub(super) fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }

    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, origin: SocketAddr) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut start = [0; PREFACE.len()];
    let mut length = stream.peek(&mut start).await?;
    while start[..length] == PREFACE[..length] && length > 0 && length < PREFACE.len() {
        length = stream.peek(&mut start).await?;
    }
    if start.starts_with(HANDSHAKE) {
        let stream = acceptor.accept(stream).await?;
        if stream.get_ref().1.alpn_protocol() == Some(b"h2") {
            return http2(stream, origin).await;
        }
        relay(stream, origin).await
    } else if start == PREFACE {
        http2(stream, origin).await
    } else {
        relay(stream, origin).await
    }
}

async fn relay(mut stream: impl AsyncRead + AsyncWrite + Unpin, origin: SocketAddr) -> io::Result<()> {
    let mut behind = TcpStream::connect(origin).await?;
    behind.set_nodelay(true)?;
    copy_bidirectional(&mut stream, &mut behind).await?;
    Ok(())
}

/// Passes requests on in HTTP/1, one after the other.
async fn http2(stream: impl AsyncRead + AsyncWrite + Unpin, origin: SocketAddr) -> io::Result<()> {
    let mut connection = h2::server::handshake(stream).await.map_err(io::Error::other)?;
    while let Some(accepted) = connection.accept().await {
        let (request, respond) = accepted.map_err(io::Error::other)?;
        tokio::spawn(pass_on(request, respond, origin));
    }
    Ok(())
}

async fn pass_on(
    request: http::Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    origin: SocketAddr,
) -> Result<(), h2::Error> {
    let (head, mut stream) = request.into_parts();
    let mut body = Vec::new();
    while let Some(data) = stream.data().await {
        body.extend_from_slice(&data?);
    }
    let target = head.uri.path_and_query().map_or("/", |target| target.as_str());
    let authority = head.uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
    let mut bytes =
        format!("{} {target} HTTP/1.1\r\nhost: {authority}\r\n{OVER_HTTP2}: yes\r\n", head.method).into_bytes();
    for (name, value) in head.headers.iter().filter(|(name, _)| *name != http::header::HOST) {
        bytes.extend_from_slice(name.as_str().as_bytes());
        bytes.extend_from_slice(b": ");
        bytes.extend_from_slice(value.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&body);
    let mut client = Client::connect(origin).await;
    client.send(bytes).await;
    let response = client.read_response_to(head.method.as_str()).await;
    let mut answer = http::Response::builder().status(response.status);
    for (name, value) in response.headers().iter() {
        if !["connection", "transfer-encoding", "content-length"].contains(&&*name.to_ascii_lowercase()) {
            answer = answer.header(name, value);
        }
    }
    let answer = answer.body(()).expect("a head that HTTP/1 had");
    let is_empty = response.body.is_empty();
    let mut stream = respond.send_response(answer, is_empty)?;
    if !is_empty {
        stream.send_data(Bytes::from(response.body), true)?;
    }
    Ok(())
}
