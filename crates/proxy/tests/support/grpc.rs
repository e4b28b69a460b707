//! A tonic server, for messages of bytes.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf, BufMut, Bytes};
use fairway_testkit::{Leaf, within};
use http::{Request, Response};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tonic::Status;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tower::service_fn;

/// Messages are bytes: their meaning does not matter to the proxy.
#[derive(Clone, Copy, Default)]
pub struct BytesCodec;

impl Codec for BytesCodec {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for BytesCodec {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// Serves a connection to its end, which is announced when `left` is ready.
macro_rules! drive {
    ($connection:expr, $left:expr) => {{
        let mut connection = std::pin::pin!($connection);
        tokio::select! {
            _ = connection.as_mut() => return,
            () = $left => connection.as_mut().graceful_shutdown(),
        }
        let _ = connection.await;
    }};
}

/// A server on a free port. It ends its connections in an orderly way on request.
pub struct Server {
    pub address: SocketAddr,
    leave: Arc<tokio::sync::Notify>,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Serves each request with `serve`.
    pub async fn start<F>(tls: Option<&Leaf>, serve: impl Fn(Request<Incoming>) -> F + Clone + Send + 'static) -> Self
    where
        F: Future<Output = Result<Response<Body>, Infallible>> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let acceptor = tls.map(|leaf| {
            let mut config = rustls::ServerConfig::builder()
                .with_no_client_auth()
                .with_single_cert(leaf.chain().to_vec(), leaf.key().clone_key())
                .expect("a certificate with its key");
            config.alpn_protocols = vec![b"h2".to_vec()];
            TlsAcceptor::from(Arc::new(config))
        });
        let leave = Arc::new(tokio::sync::Notify::new());
        let leaving = leave.clone();
        let accepting = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            let told = tokio::sync::watch::Sender::new(false);
            loop {
                let stream = tokio::select! {
                    accepted = listener.accept() => accepted.expect("a connection").0,
                    () = leaving.notified() => break,
                };
                let (acceptor, serve, mut told) = (acceptor.clone(), serve.clone(), told.subscribe());
                connections.spawn(async move {
                    let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new()).http2_only();
                    builder.http2().max_concurrent_streams(1000);
                    let service = TowerToHyperService::new(service_fn(serve));
                    let left = async move { drop(told.wait_for(|told| *told).await) };
                    match acceptor {
                        None => {
                            drive!(builder.serve_connection(TokioIo::new(stream), service), left);
                        }
                        Some(acceptor) => {
                            let Ok(stream) = acceptor.accept(stream).await else { return };
                            drive!(builder.serve_connection(TokioIo::new(stream), service), left);
                        }
                    }
                });
            }
            drop(listener);
            told.send_replace(true);
            while connections.join_next().await.is_some() {}
        });
        Self { address, leave, accepting }
    }

    /// Announces the end of all connections (GOAWAY), and ends when their calls have ended.
    pub async fn end(self) {
        self.leave.notify_one();
        within("the end of the server", self.accepting).await.expect("no panic");
    }
}
