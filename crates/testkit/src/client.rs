//! A client that sends arbitrary bytes and reads responses strictly.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};

use futures_poll::poll_now;
use tokio::net::{TcpSocket, TcpStream};

use crate::message::{Body, Framing, Head, Response, show};
use crate::stream::Stream;
use crate::wire::{Broken, Wire};
use crate::within;

mod tls;

pub use tls::{TlsClient, TlsInfo};

/// One connection to the proxy (or to an origin).
///
/// Every wait panics after [`DEADLINE`](crate::DEADLINE).
pub struct Client {
    wire: Wire,
    peer: SocketAddr,
    tls: Option<TlsInfo>,
}

/// How the peer ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// With a FIN.
    Closed,
    /// With a RST.
    Reset,
}

/// Why no complete response arrived.
#[derive(Clone, Debug)]
pub enum ReadError {
    /// The connection ended before the first byte of a head.
    Ended(Ended),
    /// The connection ended in the middle. The response is present if its head was complete; its body is what arrived.
    Truncated(Option<Box<Response>>, Ended),
    /// Not HTTP/1.
    Malformed(String),
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

impl Client {
    /// Connects without TLS.
    ///
    /// # Panics
    /// If the connection is refused.
    pub async fn connect(address: SocketAddr) -> Self {
        Self::builder().connect(address).await
    }

    /// Connects without TLS and returns any error.
    ///
    /// # Errors
    /// Those of `connect(2)`, such as `ConnectionRefused`.
    pub async fn try_connect(address: SocketAddr) -> io::Result<Self> {
        Self::builder().try_connect(address).await
    }

    /// Builds a connection with options.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    /// The client's own address, as the proxy sees it.
    pub fn address(&self) -> SocketAddr {
        self.wire.stream().tcp().local_addr().expect("a connected socket has an address")
    }

    /// The result of the TLS handshake.
    ///
    /// # Panics
    /// Without TLS.
    pub fn tls(&self) -> &TlsInfo {
        self.tls.as_ref().expect("a connection with TLS")
    }

    /// Sends bytes unchanged.
    ///
    /// # Panics
    /// If the peer has closed; see [`Client::try_send`].
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        if let Err(error) = self.try_send(bytes.as_ref()).await {
            panic!("sending {} to {}: {error}", show(bytes.as_ref()), self.peer);
        }
    }

    /// Sends bytes unchanged; the peer may close in the meantime.
    ///
    /// # Errors
    /// If the peer has closed or reset the connection.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        let bytes = bytes.as_ref();
        within(&format!("{} to take {} bytes", self.peer, bytes.len()), self.wire.send(bytes)).await
    }

    /// Sends a GET without a body and reads the response.
    pub async fn get(&mut self, host: &str, target: &str) -> Response {
        self.request("GET", target, &[("host", host)], b"").await
    }

    /// Sends a request and reads the response. A body, or a method that usually has one, adds a `content-length`.
    pub async fn request(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        let mut bytes = format!("{method} {target} HTTP/1.1\r\n").into_bytes();
        for (name, value) in headers {
            bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        if !body.is_empty() || matches!(method, "POST" | "PUT" | "PATCH") {
            bytes.extend_from_slice(format!("content-length: {}\r\n", body.len()).as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        bytes.extend_from_slice(body);
        self.send(bytes).await;
        self.read_response_to(method).await
    }

    /// Reads the response to any request except HEAD, with the interim responses before it.
    ///
    /// # Panics
    /// If it is incomplete or not HTTP/1; see [`Client::try_read_response`].
    pub async fn read_response(&mut self) -> Response {
        self.read_response_to("GET").await
    }

    /// Reads the response to a request with `method`: a response to HEAD has no body.
    ///
    /// # Panics
    /// If it is incomplete or not HTTP/1.
    pub async fn read_response_to(&mut self, method: &str) -> Response {
        match self.try_read_response_to(method).await {
            Ok(response) => response,
            Err(error) => panic!("no response from {}: {error}; unread: {}", self.peer, show(self.wire.buffered())),
        }
    }

    /// Reads the response to any request except HEAD, as far as it arrives.
    ///
    /// # Errors
    /// If the connection ends early or the bytes are not HTTP/1.
    pub async fn try_read_response(&mut self) -> Result<Response, ReadError> {
        self.try_read_response_to("GET").await
    }

    /// Reads the response to a request with `method`, as far as it arrives.
    ///
    /// # Errors
    /// If the connection ends early or the bytes are not HTTP/1.
    pub async fn try_read_response_to(&mut self, method: &str) -> Result<Response, ReadError> {
        let mut interim = Vec::new();
        let (status, head) = loop {
            let head = self.try_read_head().await?;
            let status = head.status().map_err(ReadError::Malformed)?;
            // 101 is final: what follows is no longer HTTP/1.
            if (100..200).contains(&status) && status != 101 {
                interim.push(head);
            } else {
                break (status, head);
            }
        };
        let framing = Framing::of_response(status, method, &head.headers).map_err(ReadError::Malformed)?;
        let mut body = Body::default();
        let what = format!("the body of {head:?} from {}", self.peer);
        let read = within(&what, self.wire.read_body(framing, &mut body)).await;
        let Body { data, chunks, trailers } = body;
        let response = Response { status, head, interim, framing, body: data, chunks, trailers };
        match read {
            Ok(()) => Ok(response),
            Err(Broken::Malformed(reason)) => Err(ReadError::Malformed(format!("{reason} after {response:?}"))),
            Err(Broken::Closed) => Err(ReadError::Truncated(Some(Box::new(response)), Ended::Closed)),
            Err(Broken::Reset(_)) => Err(ReadError::Truncated(Some(Box::new(response)), Ended::Reset)),
        }
    }

    /// Reads one head, interim or final, without its body.
    ///
    /// # Panics
    /// If none arrives.
    pub async fn read_head(&mut self) -> Head {
        match self.try_read_head().await {
            Ok(head) => head,
            Err(error) => panic!("no head from {}: {error}; unread: {}", self.peer, show(self.wire.buffered())),
        }
    }

    /// Reads exactly `count` bytes.
    ///
    /// # Panics
    /// If the connection ends first.
    pub async fn read_exact(&mut self, count: usize) -> Vec<u8> {
        let what = format!("{count} bytes from {}", self.peer);
        match within(&what, self.wire.read_exact(count)).await {
            Ok(bytes) => bytes,
            Err(error) => panic!("waited for {what}: {error:?} after {}", show(self.wire.buffered())),
        }
    }

    /// Reads up to and including `mark`.
    ///
    /// # Panics
    /// If the connection ends first.
    pub async fn read_until(&mut self, mark: impl AsRef<[u8]>) -> Vec<u8> {
        let what = format!("{} from {}", show(mark.as_ref()), self.peer);
        match within(&what, self.wire.read_until(mark.as_ref())).await {
            Ok(bytes) => bytes,
            Err(error) => panic!("waited for {what}: {error:?} after {}", show(self.wire.buffered())),
        }
    }

    /// Reads everything until the peer closes.
    ///
    /// # Panics
    /// If it resets the connection instead.
    pub async fn read_to_end(&mut self) -> Vec<u8> {
        let (bytes, ended) = self.drain().await;
        assert_eq!(ended, Ended::Closed, "{} ended the connection after {}", self.peer, show(&bytes));
        bytes
    }

    /// Reads everything until the connection ends, and returns how it ended.
    pub async fn drain(&mut self) -> (Vec<u8>, Ended) {
        let what = format!("{} to close", self.peer);
        let ended = within(&what, async {
            loop {
                match self.wire.fill().await.map_err(Broken::from) {
                    Ok(true) => {}
                    Ok(false) | Err(Broken::Closed) => return Ended::Closed,
                    Err(_) => return Ended::Reset,
                }
            }
        })
        .await;
        (self.wire.take_buffered(), ended)
    }

    /// Waits until the peer ends the connection without sending another byte.
    ///
    /// # Panics
    /// If bytes arrive.
    pub async fn ended(&mut self) -> Ended {
        let (bytes, ended) = self.drain().await;
        assert!(bytes.is_empty(), "{} sent {} before it ended the connection", self.peer, show(&bytes));
        ended
    }

    /// Whether the peer has ended the connection. Does not wait: call it within [`eventually`](crate::eventually), or
    /// after a signal that must come later than the end.
    pub async fn is_closed(&mut self) -> bool {
        loop {
            match poll_now(self.wire.fill()) {
                None => return false,
                Some(Ok(true)) => {}
                Some(Ok(false) | Err(_)) => return true,
            }
        }
    }

    /// Bytes received but not yet read.
    pub fn unread(&self) -> &[u8] {
        self.wire.buffered()
    }

    /// Closes the sending side and continues to receive.
    pub async fn half_close(&mut self) {
        let _ = within("a half close", self.wire.half_close()).await;
    }

    /// Ends the connection with a RST.
    pub fn reset(self) {
        self.wire.into_stream().reset();
    }

    async fn try_read_head(&mut self) -> Result<Head, ReadError> {
        let what = format!("a response head from {}", self.peer);
        let read = within(&what, self.wire.read_head()).await;
        let ended = match read {
            Ok(head) => return Ok(head),
            Err(Broken::Malformed(reason)) => return Err(ReadError::Malformed(reason)),
            Err(Broken::Closed) => Ended::Closed,
            Err(Broken::Reset(_)) => Ended::Reset,
        };
        Err(if self.wire.buffered().is_empty() { ReadError::Ended(ended) } else { ReadError::Truncated(None, ended) })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("peer", &self.peer)
            .field("unread", &show(self.wire.buffered()))
            .finish_non_exhaustive()
    }
}

/// Options for a connection.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct ClientBuilder {
    source: Option<IpAddr>,
    receive_buffer: Option<u32>,
    send_first: Vec<u8>,
}

impl ClientBuilder {
    /// Connects from this address: anything in 127.0.0.0/8 works.
    pub fn source(mut self, address: impl Into<IpAddr>) -> Self {
        self.source = Some(address.into());
        self
    }

    /// Bounds the kernel's receive buffer (`SO_RCVBUF`, bytes), so that a client that does not read blocks the sender
    /// quickly.
    pub fn receive_buffer(mut self, bytes: u32) -> Self {
        self.receive_buffer = Some(bytes);
        self
    }

    /// Sends these bytes first, in the clear even if TLS follows: a PROXY protocol header.
    pub fn send_first(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.send_first = bytes.as_ref().to_vec();
        self
    }

    /// Connects without TLS.
    ///
    /// # Panics
    /// If the connection is refused.
    pub async fn connect(&self, address: SocketAddr) -> Client {
        match self.try_connect(address).await {
            Ok(client) => client,
            Err(error) => panic!("connecting to {address}: {error}"),
        }
    }

    /// Connects without TLS and returns any error.
    ///
    /// # Errors
    /// Those of `connect(2)`.
    pub async fn try_connect(&self, address: SocketAddr) -> io::Result<Client> {
        let stream = self.dial(address).await?;
        Ok(Client { wire: Wire::new(Stream::Plain(stream)), peer: address, tls: None })
    }

    async fn dial(&self, address: SocketAddr) -> io::Result<TcpStream> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        if let Some(bytes) = self.receive_buffer {
            socket.set_recv_buffer_size(bytes)?;
        }
        if let Some(source) = self.source {
            socket.bind(SocketAddr::new(source, 0))?;
        }
        let mut stream = within(&format!("a connection to {address}"), socket.connect(address)).await?;
        stream.set_nodelay(true)?;
        tokio::io::AsyncWriteExt::write_all(&mut stream, &self.send_first).await?;
        Ok(stream)
    }
}

/// Polls a future once, without waiting.
mod futures_poll {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    pub(super) fn poll_now<T>(future: impl Future<Output = T>) -> Option<T> {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(value) => Some(value),
            Poll::Pending => None,
        }
    }
}
