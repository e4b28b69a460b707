//! The stream as gRPC: one method that streams in both directions, `/fairway.channel.v1.Configuration/Follow`.
//!
//! tonic does what gRPC adds to HTTP/2, hyper does HTTP/2. Both ends use one type of connection, so that neither is compiled twice.

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll};

use http::uri::PathAndQuery;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Request, Response, Status, Streaming};
use tower_service::Service;

use crate::hub::Hub;
use crate::limit::{LARGEST_MESSAGE, WAITING};
use crate::message::{FromController, FromProxy};
use crate::session::serve;

/// The only method.
const METHOD: &str = "/fairway.channel.v1.Configuration/Follow";

/// A connection, whatever it goes over.
pub(crate) type Connection = Pin<Box<dyn Duplex>>;

/// Bytes in both directions.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Duplex for T {}

/// Serves a proxy on a connection until that ends.
///
/// # Errors
/// If the connection fails.
pub(crate) async fn accept(hub: Hub, connection: Connection) -> Result<(), hyper::Error> {
    let service = hyper::service::service_fn(move |request: http::Request<Incoming>| {
        let hub = hub.clone();
        async move {
            if request.uri().path() != METHOD {
                return Ok(Status::unimplemented("no such method").into_http());
            }
            let grpc = tonic::server::Grpc::new(Prost::<FromController, FromProxy>::default());
            let mut grpc = grpc.apply_max_message_size_config(Some(LARGEST_MESSAGE), None);
            Ok::<_, std::convert::Infallible>(grpc.streaming(Follow(hub), request).await)
        }
    });
    let mut http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    http.max_concurrent_streams(1).max_header_list_size(16 << 10);
    http.serve_connection(TokioIo::new(connection), service).await
}

/// Asks a controller on a connection for everything, and passes `said` on. The connection ends with the stream.
pub(crate) async fn follow(
    connection: Connection,
    said: mpsc::Receiver<FromProxy>,
) -> Result<Streaming<FromController>, Status> {
    let failed = |error: hyper::Error| Status::unavailable(format!("HTTP/2: {error}"));
    let http = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    let (sender, connection) = http.handshake(TokioIo::new(connection)).await.map_err(failed)?;
    // Ends when the stream and all that could start another one are dropped.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "the connection to the controller ended");
        }
    });
    // HTTP/2 wants a name; nobody looks it up.
    let origin = http::Uri::from_static("http://controller");
    let mut grpc = tonic::client::Grpc::with_origin(Sender(sender), origin).max_decoding_message_size(LARGEST_MESSAGE);
    let codec = Prost::<FromProxy, FromController>::default();
    let request = Request::new(ReceiverStream::new(said));
    let response = grpc.streaming(request, PathAndQuery::from_static(METHOD), codec).await?;
    Ok(response.into_inner())
}

/// The method, as tonic calls it.
struct Follow(Hub);

impl Service<Request<Streaming<FromProxy>>> for Follow {
    type Response = Response<ReceiverStream<Result<FromController, Status>>>;
    type Error = Status;
    type Future = std::future::Ready<Result<Self::Response, Status>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Streaming<FromProxy>>) -> Self::Future {
        let (to, messages) = mpsc::channel(WAITING);
        tokio::spawn(serve(self.0.clone(), request.into_inner(), to));
        std::future::ready(Ok(Response::new(ReceiverStream::new(messages))))
    }
}

/// A connection to a controller, as tonic calls it.
struct Sender(SendRequest<Body>);

impl Service<http::Request<Body>> for Sender {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, hyper::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), hyper::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

/// Messages of protobuf.
struct Prost<E, D>(PhantomData<fn(E) -> D>);

impl<E, D> Default for Prost<E, D> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<E: Message + 'static, D: Message + Default + 'static> Codec for Prost<E, D> {
    type Encode = E;
    type Decode = D;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self::default()
    }

    fn decoder(&mut self) -> Self {
        Self::default()
    }
}

impl<E: Message + 'static, D: Message + Default + 'static> Encoder for Prost<E, D> {
    type Item = E;
    type Error = Status;

    fn encode(&mut self, message: E, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        message.encode(to).map_err(|error| Status::internal(error.to_string()))
    }
}

impl<E: Message + 'static, D: Message + Default + 'static> Decoder for Prost<E, D> {
    type Item = D;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<D>, Status> {
        D::decode(from).map(Some).map_err(|error| Status::internal(error.to_string()))
    }
}
