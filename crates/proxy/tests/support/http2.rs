//! Clients that speak HTTP/2: one based on `h2` for regular behaviour, and one that sends single frames for all else.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use fairway_testkit::{Client, within};
use h2::client::SendRequest;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::HOST;

/// A client based on `h2`. Its connection is driven as long as it lives.
pub struct H2 {
    pub requests: SendRequest<Bytes>,
    driver: tokio::task::JoinHandle<Result<(), h2::Error>>,
}

/// A whole response.
#[derive(Debug)]
pub struct Whole {
    pub status: u16,
    pub fields: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
}

impl Whole {
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name).map(|value| value.to_str().expect("text"))
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }
}

impl H2 {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::connect_with(address, &h2::client::Builder::new()).await
    }

    pub async fn connect_with(address: SocketAddr, builder: &h2::client::Builder) -> Self {
        Self::over(TcpStream::connect(address).await.expect("the proxy listens"), builder).await
    }

    /// Over TLS, to a server of this name.
    pub async fn over_tls(address: SocketAddr, name: &'static str, config: rustls::ClientConfig) -> Self {
        let tcp = TcpStream::connect(address).await.expect("the proxy listens");
        let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
        let name = name.try_into().expect("a host name");
        let stream = within("a TLS handshake", connector.connect(name, tcp)).await.expect("TLS");
        Self::over(stream, &h2::client::Builder::new()).await
    }

    async fn over<S>(stream: S, builder: &h2::client::Builder) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (requests, connection) = within("a handshake", builder.handshake(stream)).await.expect("a handshake");
        Self { requests, driver: tokio::spawn(connection) }
    }

    /// Waits until the connection is over.
    pub async fn ended(self) -> Result<(), h2::Error> {
        let Self { requests, driver } = self;
        drop(requests);
        within("the end of a connection", driver).await.expect("no panic")
    }

    pub async fn ready(&self) -> SendRequest<Bytes> {
        within("room for a stream", self.requests.clone().ready()).await.expect("an open connection")
    }

    pub async fn get(&self, path: &str) -> Whole {
        self.ask(get(path)).await
    }

    /// Sends a request without a body.
    pub async fn ask(&self, request: Request<()>) -> Whole {
        let (response, _) = self.ready().await.send_request(request, true).expect("a request");
        whole(within("a response", response).await.expect("a response")).await
    }

    /// Sends a request with a body in one piece.
    pub async fn post(&self, path: &str, body: impl Into<Bytes>) -> Whole {
        let (response, mut send) = self.ready().await.send_request(post(path), false).expect("a request");
        send.send_data(body.into(), true).expect("a body");
        whole(within("a response", response).await.expect("a response")).await
    }
}

pub fn get(path: &str) -> Request<()> {
    request("GET", path)
}

pub fn post(path: &str) -> Request<()> {
    request("POST", path)
}

pub fn request(method: &str, path: &str) -> Request<()> {
    Request::builder().method(method).uri(format!("http://{HOST}{path}")).body(()).expect("a request")
}

/// Reads all of a response.
pub async fn whole(response: Response<RecvStream>) -> Whole {
    let (head, mut body) = response.into_parts();
    let data = body_of(&mut body).await.expect("a whole body");
    let trailers = within("trailers", body.trailers()).await.expect("trailers");
    Whole { status: head.status.as_u16(), fields: head.headers, body: data, trailers }
}

/// Reads a body, and opens the window for it.
pub async fn body_of(body: &mut RecvStream) -> Result<Vec<u8>, h2::Error> {
    let mut data = Vec::new();
    while let Some(piece) = within("data", body.data()).await {
        let piece = piece?;
        body.flow_control().release_capacity(piece.len())?;
        data.extend_from_slice(&piece);
    }
    Ok(data)
}

/// Why a stream was reset.
pub fn reason<T: std::fmt::Debug>(result: Result<T, h2::Error>) -> Reason {
    result.expect_err("a reset").reason().expect("a reason")
}

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;
pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;

/// A frame.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn new(kind: u8, flags: u8, stream: u32, payload: impl Into<Vec<u8>>) -> Self {
        Self { kind, flags, stream, payload: payload.into() }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let length = u32::try_from(self.payload.len()).expect("a length").to_be_bytes();
        let mut bytes = length[1..].to_vec();
        bytes.extend([self.kind, self.flags]);
        bytes.extend(self.stream.to_be_bytes());
        bytes.extend(&self.payload);
        bytes
    }

    /// The code of a RST_STREAM or a GOAWAY.
    pub fn code(&self) -> Reason {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        Reason::from(u32::from_be_bytes(self.payload[at..at + 4].try_into().expect("four bytes")))
    }

    /// The last stream in a GOAWAY.
    pub fn last_stream(&self) -> u32 {
        u32::from_be_bytes(self.payload[..4].try_into().expect("four bytes"))
    }
}

/// A head without compression: each field is a literal that is not indexed (RFC 7541 6.2.2).
pub fn fields<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name.as_ref(), value.as_ref()] {
            integer(text.len(), 7, &mut block);
            block.extend_from_slice(text);
        }
    }
    block
}

fn integer(mut value: usize, bits: u32, out: &mut Vec<u8>) {
    let most = (1 << bits) - 1;
    if value < most {
        out.push(value as u8);
        return;
    }
    out.push(most as u8);
    value -= most;
    while value >= 128 {
        out.push((value % 128) as u8 | 128);
        value /= 128;
    }
    out.push(value as u8);
}

/// The pseudo-headers of a GET, then more fields.
pub fn head(more: &[(&str, &str)]) -> Vec<u8> {
    let mut all = vec![(":method", "GET"), (":scheme", "http"), (":authority", HOST), (":path", "/")];
    all.extend(more);
    fields(&all)
}

/// A client that sends single frames.
pub struct Frames(pub Client);

impl Frames {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::on(Client::connect(address).await).await
    }

    /// Begins HTTP/2 on a connection.
    pub async fn on(mut client: Client) -> Self {
        client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
        let mut this = Self(client);
        this.send(Frame::new(SETTINGS, 0, 0, [])).await;
        this
    }

    pub async fn send(&mut self, frame: Frame) {
        self.0.send(frame.bytes()).await;
    }

    /// Sends frames until the proxy has had enough.
    pub async fn send_all(&mut self, frames: impl IntoIterator<Item = Frame>) {
        let bytes: Vec<u8> = frames.into_iter().flat_map(|frame| frame.bytes()).collect();
        let _ = self.0.try_send(bytes).await;
    }

    /// A request without a body.
    pub async fn ask(&mut self, stream: u32, head: Vec<u8>) {
        self.send(Frame::new(HEADERS, END_HEADERS | END_STREAM, stream, head)).await;
    }

    pub async fn next(&mut self) -> Frame {
        let header = self.0.read_exact(9).await;
        let length = usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
        let stream = u32::from_be_bytes(header[5..9].try_into().expect("four bytes")) & 0x7fff_ffff;
        let payload = self.0.read_exact(length).await;
        Frame { kind: header[3], flags: header[4], stream, payload }
    }

    /// The next frame of these kinds. SETTINGS are acknowledged.
    pub async fn next_of(&mut self, kinds: &[u8]) -> Frame {
        loop {
            let frame = self.next().await;
            if frame.kind == SETTINGS && frame.flags & ACK == 0 {
                self.0.send(Frame::new(SETTINGS, ACK, 0, []).bytes()).await;
            }
            if kinds.contains(&frame.kind) {
                return frame;
            }
        }
    }
}
