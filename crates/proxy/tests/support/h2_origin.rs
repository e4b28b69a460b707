//! Endpoints that speak HTTP/2: one based on `h2` for regular behaviour, and one that sends single frames for all else.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use fairway_testkit::{Leaf, within};
use h2::RecvStream;
use h2::server::{Builder, SendResponse};
use http::{HeaderMap, Request, Response};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;

use super::http2::{ACK, END_HEADERS, Frame, HEADERS, SETTINGS};

/// A request on a stream.
pub struct Call {
    pub request: Request<RecvStream>,
    pub respond: SendResponse<Bytes>,
    /// The number of its connection, from 1.
    pub connection: usize,
}

impl Call {
    /// Answers with a body, or with the head alone.
    pub fn answer(mut self, response: Response<()>, body: &str) {
        let mut send = self.respond.send_response(response, body.is_empty()).expect("a response");
        if !body.is_empty() {
            send.send_data(Bytes::from(body.to_owned()), true).expect("a body");
        }
    }

    /// Reads the body of the request, and its trailers.
    pub async fn body(&mut self) -> (Vec<u8>, Option<HeaderMap>) {
        let body = self.request.body_mut();
        let data = super::http2::body_of(body).await.expect("a whole body");
        (data, body.trailers().await.expect("trailers"))
    }
}

/// An endpoint on a free port. It ends when it is dropped.
pub struct H2Origin {
    pub address: SocketAddr,
    connections: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
    leaving: watch::Sender<bool>,
}

impl H2Origin {
    /// Serves each request with `serve`.
    pub async fn start<F: Future<Output = ()> + Send + 'static>(
        serve: impl Fn(Call) -> F + Clone + Send + Sync + 'static,
    ) -> Self {
        Self::with(&Builder::new(), None, serve).await
    }

    pub async fn with<F: Future<Output = ()> + Send + 'static>(
        builder: &Builder,
        tls: Option<&Leaf>,
        serve: impl Fn(Call) -> F + Clone + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (connections, builder) = (Arc::new(AtomicUsize::new(0)), builder.clone());
        let acceptor = tls.map(acceptor);
        let count = connections.clone();
        let leaving = watch::Sender::new(false);
        let leave = leaving.clone();
        let accepting = tokio::spawn(async move {
            let mut tasks = JoinSet::new();
            let mut left = leave.subscribe();
            loop {
                let stream = tokio::select! {
                    accepted = listener.accept() => accepted,
                    _ = left.wait_for(|left| *left) => break,
                };
                let Ok((stream, _)) = stream else { return };
                stream.set_nodelay(true).expect("an option");
                let number = count.fetch_add(1, Ordering::Relaxed) + 1;
                let (builder, serve, acceptor, leave) =
                    (builder.clone(), serve.clone(), acceptor.clone(), leave.subscribe());
                tasks.spawn(async move {
                    match acceptor {
                        None => connection(stream, &builder, number, serve, leave).await,
                        Some(acceptor) => {
                            let Ok(stream) = acceptor.accept(stream).await else { return };
                            connection(stream, &builder, number, serve, leave).await;
                        }
                    }
                });
            }
            drop(listener);
            while tasks.join_next().await.is_some() {}
        });
        Self { address, connections, accepting, leaving }
    }

    /// Ends as servers do: accepts nothing more, announces the end of each connection, and serves what is under way.
    pub async fn leave(mut self) {
        self.leaving.send_replace(true);
        within("the end of all connections", &mut self.accepting).await.expect("no panic");
    }

    /// Connections so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for H2Origin {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn connection<S, F>(
    stream: S,
    builder: &Builder,
    number: usize,
    serve: impl Fn(Call) -> F,
    mut leave: watch::Receiver<bool>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Future<Output = ()> + Send + 'static,
{
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
    loop {
        let accepted = tokio::select! {
            accepted = connection.accept() => accepted,
            _ = leave.wait_for(|left| *left) => break,
        };
        let Some(Ok((request, respond))) = accepted else { return };
        tokio::spawn(serve(Call { request, respond, connection: number }));
    }
    connection.graceful_shutdown();
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(serve(Call { request, respond, connection: number }));
    }
}

fn acceptor(leaf: &Leaf) -> TlsAcceptor {
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(leaf.chain().to_vec(), leaf.key());
    let mut config = config.expect("a certificate");
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config).into()
}

/// An endpoint that sends single frames, for one connection at a time.
pub struct FrameOrigin {
    pub address: SocketAddr,
    listener: TcpListener,
}

/// A connection of it.
pub struct FrameConnection(TcpStream);

impl FrameOrigin {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        Self { address: listener.local_addr().expect("an address"), listener }
    }

    /// The next connection, after the preface, for which these settings are sent.
    pub async fn accept(&self, settings: &[u8]) -> FrameConnection {
        let (mut stream, _) = within("a connection", self.listener.accept()).await.expect("a connection");
        let mut preface = [0; 24];
        within("a preface", stream.read_exact(&mut preface)).await.expect("a preface");
        assert_eq!(&preface, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        let mut connection = FrameConnection(stream);
        connection.send(Frame::new(SETTINGS, 0, 0, settings)).await;
        connection
    }
}

impl FrameConnection {
    pub async fn send(&mut self, frame: Frame) {
        within("room", self.0.write_all(&frame.bytes())).await.expect("an open connection");
    }

    /// Sends frames until the proxy has had enough.
    pub async fn try_send(&mut self, bytes: &[u8]) -> bool {
        within("room", self.0.write_all(bytes)).await.is_ok()
    }

    /// The next frame; `None` at the end.
    pub async fn next(&mut self) -> Option<Frame> {
        let mut header = [0; 9];
        within("a frame", self.0.read_exact(&mut header)).await.ok()?;
        let length = usize::from(header[0]) << 16 | usize::from(header[1]) << 8 | usize::from(header[2]);
        let stream = u32::from_be_bytes(header[5..9].try_into().expect("four bytes")) & 0x7fff_ffff;
        let mut payload = vec![0; length];
        self.0.read_exact(&mut payload).await.ok()?;
        Some(Frame { kind: header[3], flags: header[4], stream, payload })
    }

    /// The next frame of a kind. SETTINGS are acknowledged.
    pub async fn next_of(&mut self, kind: u8) -> Frame {
        loop {
            let frame = self.next().await.expect("an open connection");
            if frame.kind == SETTINGS && frame.flags & ACK == 0 {
                self.send(Frame::new(SETTINGS, ACK, 0, [])).await;
            }
            if frame.kind == kind {
                return frame;
            }
        }
    }

    /// The stream of the next request.
    pub async fn request(&mut self) -> u32 {
        self.next_of(HEADERS).await.stream
    }

    /// Sends a head.
    pub async fn head(&mut self, stream: u32, flags: u8, fields: &[(&str, &str)]) {
        self.send(Frame::new(HEADERS, END_HEADERS | flags, stream, super::http2::fields(fields))).await;
    }
}
