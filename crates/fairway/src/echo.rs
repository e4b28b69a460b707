//! The built-in echo of `fairway dev`: it stands in for every Service without known endpoints, and responds with the Service's name and the
//! request as a backend would see it. It answers TLS passthrough connections in TLS, with a self-made certificate.
//!
//! It listens on loopback only, and everything is bounded: connections, heads, the echoed part of a body, and a connection's idle time.

use std::fmt::Write as _;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use fairway_proxy::http1::{
    BodyDecoder, CONTINUE, ChunkLimits, Event, FieldName, Framing, HeadLimits, HeadWriter, KnownField, Method,
    NameRules, Parsed, RequestHead, Version,
};
use fairway_translate::options::ECHO_SERVICE_FIELD;
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;

/// Most connections at a time; others wait. The proxy keeps a few hundred to one endpoint.
const CONNECTIONS: usize = 1024;
/// Most bytes of a body that are echoed.
const BODY: usize = 64 << 10;
/// Idle time of a connection. Longer than the proxy's, so that the proxy is the one that closes.
const IDLE: Duration = Duration::from_secs(120);
/// The first byte of a TLS connection; no HTTP request begins with it.
const HANDSHAKE: u8 = 22;
/// Heads as large as any proxy in front may send. Fields with unusual names are shown too.
const LIMITS: HeadLimits = HeadLimits {
    start_line: 64 << 10,
    field_line: 64 << 10,
    total: 256 << 10,
    fields: 1024,
    names: NameRules::Tokens,
    guarded: Vec::new(),
};

const CONTENT_TYPE: FieldName<'static> = FieldName::from_static("Content-Type");
const CONTENT_LENGTH: FieldName<'static> = FieldName::from_static("Content-Length");
const CONNECTION: FieldName<'static> = FieldName::from_static("Connection");

/// Starts the echo on its own thread, on a port that the kernel chooses. It runs as long as the process.
pub(crate) fn start() -> io::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().name("echo".into()).spawn(move || runtime.block_on(serve(listener)))?;
    Ok(address)
}

async fn serve(listener: std::net::TcpListener) {
    let Ok(listener) = TcpListener::from_std(listener) else { return };
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    // If this fails, TLS connections are closed.
    let tls = acceptor().ok();
    while let Ok(place) = places.clone().acquire_owned().await {
        match listener.accept().await {
            Ok((stream, _)) => {
                let tls = tls.clone();
                tokio::spawn(async move {
                    // How the connection ended matters only to its peer.
                    let _ = accepted(stream, tls).await;
                    drop(place);
                });
            }
            // For example, no file descriptors are left: an immediate retry would fail too.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

fn acceptor() -> anyhow::Result<TlsAcceptor> {
    let certified = rcgen::generate_simple_self_signed(vec!["echo.fairway.invalid".to_owned()])?;
    let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der())
        .map_err(anyhow::Error::msg)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Serves one connection, with or without TLS.
async fn accepted(stream: TcpStream, tls: Option<TlsAcceptor>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut first = [0];
    let peeked = tokio::time::timeout(IDLE, stream.peek(&mut first)).await;
    match tls {
        Some(tls) if peeked.is_ok() && first == [HANDSHAKE] => {
            let stream = tokio::time::timeout(IDLE, tls.accept(stream)).await??;
            let name = stream.get_ref().1.server_name().map(|name| format!("behind TLS for {name}"));
            connection(stream, &name.unwrap_or_default()).await
        }
        _ => connection(stream, "").await,
    }
}

/// Serves one connection until it closes, is idle for too long or doesn't carry HTTP. `service` is the Service's name if no request names
/// it: nothing adds a field to a connection that passes through undecrypted.
async fn connection(mut stream: impl AsyncRead + AsyncWrite + Unpin, service: &str) -> io::Result<()> {
    let mut received = Vec::with_capacity(4 << 10);
    let mut head = RequestHead::default();
    loop {
        let length = loop {
            match head.parse(&received, &LIMITS) {
                Ok(Parsed::Complete { len }) => break len,
                Ok(Parsed::Partial { .. }) => {
                    if read(&mut stream, &mut received).await? == 0 {
                        return Ok(());
                    }
                }
                Err(error) => {
                    let answer =
                        EchoAnswer { status: error.status(), json: false, text: format!("{error}\n"), close: true };
                    return stream.write_all(&answer.bytes(false)).await;
                }
            }
        };
        let mut rest = received.split_off(length);
        if head.expects_continue() && rest.is_empty() {
            stream.write_all(CONTINUE).await?;
        }
        let Some((body, total)) = body(&mut stream, head.framing(), &mut rest).await? else { return Ok(()) };
        let close = !head.connection().keep_alive;
        let json = head.fields().get(KnownField::Accept, &received).is_some_and(accepts_json);
        let seen = Seen::new(service, &head, &received, &body, total);
        let text = if json { seen.json() } else { seen.text() };
        let answer = EchoAnswer { status: 200, json, text, close };
        stream.write_all(&answer.bytes(head.method() == Method::Head)).await?;
        if close {
            return stream.shutdown().await;
        }
        received = rest;
    }
}

async fn read(stream: &mut (impl AsyncRead + Unpin), received: &mut Vec<u8>) -> io::Result<usize> {
    received.reserve(4 << 10);
    tokio::time::timeout(IDLE, stream.read_buf(received)).await.unwrap_or(Ok(0))
}

/// Reads the whole body and returns its beginning and its length; `None` if it ended early. Bytes after the body stay in `rest`.
async fn body(
    stream: &mut (impl AsyncRead + Unpin),
    framing: Framing,
    rest: &mut Vec<u8>,
) -> io::Result<Option<(Vec<u8>, u64)>> {
    let mut decoder = BodyDecoder::new(framing, ChunkLimits::default());
    let (mut kept, mut total) = (Vec::new(), 0);
    let mut at = 0;
    loop {
        let Ok(decoded) = decoder.decode(&rest[at..]) else { return Ok(None) };
        match decoded.event {
            Event::Data(range) => {
                let data = &rest[at + range.start..at + range.end];
                total += data.len() as u64;
                kept.extend_from_slice(&data[..data.len().min(BODY - kept.len())]);
                at += decoded.consumed;
            }
            Event::Trailer { .. } => at += decoded.consumed,
            Event::End => {
                rest.drain(..at + decoded.consumed);
                return Ok(Some((kept, total)));
            }
            Event::NeedMore => {
                rest.drain(..at + decoded.consumed);
                at = 0;
                if read(stream, rest).await? == 0 {
                    return Ok(None);
                }
            }
        }
    }
}

/// Whether the client asks for JSON. Browsers list `application/xml` and the like, but never JSON.
fn accepts_json(accept: &[u8]) -> bool {
    accept.to_ascii_lowercase().windows(4).any(|window| window == b"json")
}

/// A request as received here.
#[derive(Serialize)]
struct Seen {
    service: String,
    method: String,
    path: String,
    proto: &'static str,
    host: String,
    headers: std::collections::BTreeMap<String, Vec<String>>,
    #[serde(skip)]
    lines: Vec<(String, String)>,
    body: String,
    body_length: u64,
}

impl Seen {
    fn new(service: &str, head: &RequestHead, received: &[u8], body: &[u8], body_length: u64) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let mut service = service.to_owned();
        let mut lines = Vec::with_capacity(head.fields().len());
        for field in head.fields().iter() {
            let (name, value) = (text(field.name(received)), text(field.value(received)));
            if name.eq_ignore_ascii_case(ECHO_SERVICE_FIELD) {
                service = value;
            } else {
                lines.push((name, value));
            }
        }
        let mut headers = std::collections::BTreeMap::<_, Vec<_>>::new();
        for (name, value) in &lines {
            headers.entry(name.clone()).or_default().push(value.clone());
        }
        Self {
            service,
            method: text(head.method_bytes(received)),
            path: text(head.target_span().of(received)),
            proto: if head.version() == Version::Http10 { "HTTP/1.0" } else { "HTTP/1.1" },
            host: head.fields().get(KnownField::Host, received).map(text).unwrap_or_default(),
            headers,
            lines,
            body: text(body),
            body_length,
        }
    }

    fn json(&self) -> String {
        // It holds only texts and numbers, which always serialise.
        let mut json = serde_json::to_string_pretty(self).unwrap_or_default();
        json.push('\n');
        json
    }

    fn text(&self) -> String {
        let mut out = format!("Service {}\n\n{} {} {}\n", self.service, self.method, self.path, self.proto);
        for (name, value) in &self.lines {
            let _ = writeln!(out, "{name}: {value}");
        }
        if !self.body.is_empty() {
            let _ = write!(out, "\n{}", self.body);
            if self.body_length > BODY as u64 {
                let _ = write!(out, "\n… {} bytes in all", self.body_length);
            }
            if !out.ends_with('\n') {
                out.push('\n');
            }
        }
        out
    }
}

struct EchoAnswer {
    status: u16,
    json: bool,
    text: String,
    close: bool,
}

impl EchoAnswer {
    fn bytes(&self, head_only: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.text.len() + 128);
        let mut writer = HeadWriter::new(&mut out);
        let kind: &[u8] = if self.json { b"application/json" } else { b"text/plain; charset=utf-8" };
        // These are all constants that a head may contain.
        let _ = writer.status_line(self.status);
        let _ = writer.field(CONTENT_TYPE, kind);
        writer.field_number(CONTENT_LENGTH, self.text.len() as u64);
        if self.close {
            let _ = writer.field(CONNECTION, b"close");
        }
        writer.finish();
        if !head_only {
            out.extend_from_slice(self.text.as_bytes());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairway_testkit::Client;

    #[tokio::test]
    async fn requests_come_back_without_the_field_that_names_the_service() {
        let mut client = Client::connect(start().unwrap()).await;
        let fields = [("host", "a.example"), ("X-Fairway-Echo-Service", "shop/order:80"), ("X_y", "1")];
        let response = client.request("POST", "/x?y=1", &fields, b"hello").await;
        assert_eq!(response.status, 200);
        assert_eq!(
            response.text(),
            "Service shop/order:80\n\nPOST /x?y=1 HTTP/1.1\nhost: a.example\nX_y: 1\ncontent-length: 5\n\nhello\n"
        );
    }

    #[tokio::test]
    async fn json_is_given_to_those_who_ask_for_it() {
        let mut client = Client::connect(start().unwrap()).await;
        let fields = [("host", "a"), ("accept", "application/json"), ("x-fairway-echo-service", "n/s:http")];
        let json = client.request("GET", "/", &fields, b"").await.json();
        assert_eq!(json["service"], "n/s:http");
        assert_eq!(json["headers"]["accept"][0], "application/json");
        assert_eq!(client.request("HEAD", "/", &fields, b"").await.text(), "");
        assert_eq!(client.get("a", "/again").await.status, 200);
    }

    #[tokio::test]
    async fn long_bodies_are_read_to_their_end_and_repeated_in_part() {
        let mut client = Client::connect(start().unwrap()).await;
        let response = client.request("POST", "/", &[("host", "a")], &vec![b'x'; 300_000]).await;
        assert!(response.body.len() < 70_000 && response.text().contains("300000 bytes in all"));
        client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n").await;
        assert!(client.read_response().await.text().ends_with("\nabc\n"));
        assert_eq!(client.get("a", "/").await.status, 200);
    }

    #[tokio::test]
    async fn what_is_no_request_is_refused() {
        let mut client = Client::connect(start().unwrap()).await;
        client.send("GET / HTTP/1.1\r\n\r\n").await;
        assert_eq!(client.read_response().await.status, 400);
        client.ended().await;
    }
}
