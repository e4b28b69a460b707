//! A hyper server for `cargo xtask matrix`, for HTTP/1.1 and for HTTP/2 with prior knowledge. It prints its address.

use std::error::Error;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use hyper::body::{Body, Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::time::sleep;

/// What is sent before something happens, and after it.
const HALF: Bytes = Bytes::from_static(&[b'x'; 500_000]);

/// A body, piece by piece, or its failure.
struct Pieces(mpsc::Receiver<io::Result<Bytes>>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

/// Answers one request. `leave` announces the end of its connection.
async fn answer(request: Request<Incoming>, leave: Arc<Notify>) -> Result<Response<Pieces>, hyper::Error> {
    let path = request.uri().path().to_owned();
    let what = path.rsplit('/').next().unwrap_or_default();
    let (pieces, body) = mpsc::channel(2);
    let mut response = Response::new(Pieces(body));
    let send = async move |piece| drop(pieces.send(piece).await);
    match what {
        "up" => {
            let mut body = request.into_body();
            let mut length = 0;
            while let Some(frame) = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                length += frame?.data_ref().map_or(0, Bytes::len);
            }
            send(Ok(length.to_string().into())).await;
        }
        "reset" => {
            response.headers_mut().insert("content-length", (2 * HALF.len()).into());
            drop(tokio::spawn(async move {
                send(Ok(HALF)).await;
                sleep(Duration::from_millis(50)).await;
                send(Err(io::Error::other("a failure"))).await;
            }));
        }
        "goaway" => drop(tokio::spawn(async move {
            send(Ok(HALF)).await;
            sleep(Duration::from_millis(50)).await;
            leave.notify_one();
            sleep(Duration::from_millis(50)).await;
            send(Ok(HALF)).await;
        })),
        _ => drop(tokio::spawn(async move {
            send(Ok(HALF)).await;
            send(Ok(HALF)).await;
        })),
    }
    Ok(response)
}

/// Serves one connection. A failure concerns only its client.
async fn serve(stream: TcpStream) {
    let leave = Arc::new(Notify::new());
    let left = leave.clone();
    let builder = Builder::new(TokioExecutor::new());
    let service = service_fn(move |request| answer(request, leave.clone()));
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    tokio::select! {
        _ = connection.as_mut() => return,
        () = left.notified() => connection.as_mut().graceful_shutdown(),
    }
    let _ = connection.await;
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    loop {
        let (stream, _) = listener.accept().await?;
        drop(tokio::spawn(serve(stream)));
    }
}
