//! The stream as gRPC: one method that streams in both directions, `/fairway.channel.v1.Configuration/Follow`, and over TCP another one,
//! by which a proxy gets its certificate.
//!
//! tonic does what gRPC adds to HTTP/2, hyper does HTTP/2. Both ends use one type of connection, so that neither is compiled twice.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use fairway_model::ErrorChain;
use http::uri::PathAndQuery;
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use prost::Message;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, mpsc};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::body::Body;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Request, Response, Status, Streaming};
use tower_service::Service;

use crate::authority::Authorities;
use crate::enrol::{Desk, Enrol, EnrolRequest, EnrolResponse};
use crate::hub::Hub;
use crate::limit::{ALIVE, ALIVE_ANSWER, GREETING, LARGEST_MESSAGE, TOKEN, WAITING};
use crate::message::{FromController, FromProxy};
use crate::session::serve;

/// The stream.
const FOLLOW: &str = "/fairway.channel.v1.Configuration/Follow";

/// The certificate.
const ENROL: &str = "/fairway.channel.v1.Configuration/Enrol";

/// A connection over any transport.
pub(crate) type Connection = Pin<Box<dyn Duplex>>;

/// Bytes in both directions.
pub(crate) trait Duplex: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Duplex for T {}

/// What is served on a connection.
#[derive(Clone)]
pub(crate) struct Served {
    pub(crate) hub: Hub,
    /// `None` where the client's identity is already known.
    pub(crate) desk: Option<(Desk, Arc<Authorities>)>,
    /// Whether the other end may follow.
    pub(crate) known: bool,
}

/// Serves a proxy on a connection until that ends.
///
/// # Errors If the connection fails, or carries no request.
pub(crate) async fn accept(served: Served, connection: Connection) -> io::Result<()> {
    let mut http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    http.max_concurrent_streams(1).max_header_list_size(16 << 10);
    if served.desk.is_some() {
        http.timer(TokioTimer::new()).keep_alive_interval(ALIVE).keep_alive_timeout(ALIVE_ANSWER);
    }
    let has_asked = Arc::new(Notify::new());
    let asked = has_asked.clone();
    let service = hyper::service::service_fn(move |request: http::Request<Incoming>| {
        asked.notify_one();
        let served = served.clone();
        async move { Ok::<_, Infallible>(served.answer(request).await) }
    });
    let mut connection = pin!(http.serve_connection(TokioIo::new(connection), service));
    let asked = tokio::select! {
        ended = &mut connection => return ended.map_err(io::Error::other),
        asked = timeout(GREETING, has_asked.notified()) => asked,
    };
    asked.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?;
    connection.await.map_err(io::Error::other)
}

impl Served {
    async fn answer(self, request: http::Request<Incoming>) -> http::Response<Body> {
        let Self { hub, desk, known } = self;
        match (request.uri().path(), desk) {
            (FOLLOW, _) if !known => Status::unauthenticated("show a certificate of a proxy").into_http(),
            (FOLLOW, _) => {
                let grpc = tonic::server::Grpc::new(Prost::<FromController, FromProxy>::default());
                let mut grpc = grpc.apply_max_message_size_config(Some(LARGEST_MESSAGE), None);
                grpc.streaming(Follow(hub), request).await
            }
            (ENROL, Some((desk, authorities))) => {
                let grpc = tonic::server::Grpc::new(Prost::<EnrolResponse, EnrolRequest>::default());
                let mut grpc = grpc.apply_max_message_size_config(Some(2 * TOKEN), None);
                grpc.unary(Enrol { desk, authorities, known }, request).await
            }
            _ => Status::unimplemented("no such method").into_http(),
        }
    }
}

/// Asks a controller on a connection for everything, and sends it what `said` yields. The connection ends with the stream.
pub(crate) async fn follow(
    connection: Connection,
    said: mpsc::Receiver<FromProxy>,
) -> Result<Streaming<FromController>, Status> {
    let mut grpc = client(connection).await?.max_decoding_message_size(LARGEST_MESSAGE);
    let codec = Prost::<FromProxy, FromController>::default();
    let request = Request::new(ReceiverStream::new(said));
    let response = grpc.streaming(request, PathAndQuery::from_static(FOLLOW), codec).await?;
    Ok(response.into_inner())
}

/// Asks a controller on a connection for a certificate.
pub(crate) async fn enrol(connection: Connection, request: EnrolRequest) -> Result<EnrolResponse, Status> {
    let codec = Prost::<EnrolRequest, EnrolResponse>::default();
    let mut grpc = client(connection).await?;
    let response = grpc.unary(Request::new(request), PathAndQuery::from_static(ENROL), codec).await?;
    Ok(response.into_inner())
}

/// A client on a connection that ends with the stream or call it is used for.
async fn client(connection: Connection) -> Result<tonic::client::Grpc<Sender>, Status> {
    let failed = |error: hyper::Error| Status::unavailable(format!("HTTP/2: {}", ErrorChain(&error)));
    let mut http = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new()).keep_alive_interval(ALIVE).keep_alive_timeout(ALIVE_ANSWER);
    let (sender, connection) = http.handshake(TokioIo::new(connection)).await.map_err(failed)?;
    // Ends when the stream and all that could start another one are dropped.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "the connection to the controller ended");
        }
    });
    // HTTP/2 requires a name; it is not looked up.
    let origin = http::Uri::from_static("http://controller");
    Ok(tonic::client::Grpc::with_origin(Sender(sender), origin))
}

/// The stream, as a service for tonic.
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

/// A connection to a controller, as a service for tonic.
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

/// A codec for protobuf messages.
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
