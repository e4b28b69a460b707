//! gRPC between tonic's client and servers, in the clear and over TLS on both sides.

use std::convert::Infallible;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::support::grpc::{BytesCodec, Server};
use crate::support::{HOST, TestProxy, backend, certificate, config, endpoints, forward, host_with_certificate, route};
use bytes::Bytes;
use fairway_model::{ByteLimit, ForwardPolicy, UpstreamProtocol, UpstreamTls};
use fairway_proxy::ProxyConfig;
use fairway_testkit::{Ca, Gate, Leaf, eventually, within};
use futures::{Stream, StreamExt, stream};
use http::Uri;
use http::uri::PathAndQuery;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};
use tower::service_fn;

type Messages = Pin<Box<dyn Stream<Item = Result<Bytes, Status>> + Send>>;

/// Echoes the message and its metadata, unless it asks for something else.
async fn unary(request: Request<Bytes>) -> Result<Response<Bytes>, Status> {
    match &request.get_ref()[..] {
        b"fail" => Err(Status::failed_precondition("not today: 50 % of \u{e4}")),
        b"sleep" => {
            tokio::time::sleep(Duration::from_secs(60)).await;
            Ok(Response::new(Bytes::new()))
        }
        _ => {
            let given = request.metadata().get("x-given").cloned();
            let mut response = Response::new(request.into_inner());
            if let Some(given) = given {
                response.metadata_mut().insert("x-given", given);
            }
            Ok(response)
        }
    }
}

/// Answers each message as it arrives, and fails at `fail`.
async fn echoes(request: Request<Streaming<Bytes>>) -> Result<Response<Messages>, Status> {
    let answers = request.into_inner().map(|message| match message {
        Ok(message) if &message[..] == b"fail" => Err(Status::data_loss("in the middle")),
        other => other,
    });
    Ok(Response::new(Box::pin(answers)))
}

/// The number of messages, and of bytes in them.
async fn counted(request: Request<Streaming<Bytes>>) -> Result<Response<Bytes>, Status> {
    let mut messages = request.into_inner();
    let (mut count, mut size) = (0, 0);
    while let Some(message) = messages.message().await? {
        count += 1;
        size += message.len();
    }
    Ok(Response::new(format!("{count} {size}").into()))
}

/// As many messages of 1000 bytes as the request says.
async fn many(request: Request<Bytes>) -> Result<Response<Messages>, Status> {
    let count = std::str::from_utf8(request.get_ref()).ok().and_then(|text| text.parse().ok());
    let count: usize = count.ok_or_else(|| Status::invalid_argument("expected a number"))?;
    Ok(Response::new(Box::pin(stream::iter((0..count).map(|at| Ok(Bytes::from(vec![at as u8; 1000])))))))
}

async fn serve(request: http::Request<Incoming>) -> Result<http::Response<tonic::body::Body>, Infallible> {
    let mut grpc = tonic::server::Grpc::new(BytesCodec);
    Ok(match request.uri().path() {
        "/test.Echo/Unary" => grpc.unary(service_fn(unary), request).await,
        "/test.Echo/Echoes" => grpc.streaming(service_fn(echoes), request).await,
        "/test.Echo/Counted" => grpc.client_streaming(service_fn(counted), request).await,
        "/test.Echo/Many" => grpc.server_streaming(service_fn(many), request).await,
        _ => Status::unimplemented("no such method").into_http(),
    })
}

/// A channel through the proxy.
async fn channel(proxy: &TestProxy, tls: Option<&Ca>) -> Channel {
    let address = if tls.is_some() { proxy.https } else { proxy.http };
    let connector = tls.map(|ca| {
        let mut config = rustls::ClientConfig::builder().with_root_certificates(ca.roots()).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec()];
        TlsConnector::from(Arc::new(config))
    });
    let scheme = if tls.is_some() { "https" } else { "http" };
    let endpoint = Endpoint::from_shared(format!("{scheme}://{HOST}")).expect("an address");
    if let Some(connector) = connector {
        let connect = move |_: Uri| {
            let connector = connector.clone();
            async move {
                let stream = TcpStream::connect(address).await?;
                let name = ServerName::try_from(HOST).expect("a name");
                connector.connect(name, stream).await.map(TokioIo::new)
            }
        };
        return endpoint.connect_with_connector(service_fn(connect)).await.expect("a connection");
    }
    let connect = move |_: Uri| async move { TcpStream::connect(address).await.map(TokioIo::new) };
    endpoint.connect_with_connector(service_fn(connect)).await.expect("a connection")
}

fn method(name: &str) -> PathAndQuery {
    format!("/test.Echo/{name}").parse().expect("a path")
}

async fn call(channel: &Channel, message: impl Into<Bytes>) -> Result<Response<Bytes>, Status> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
    grpc.unary(Request::new(message.into()), method("Unary"), BytesCodec).await
}

/// Servers behind a proxy that both speak TLS, or neither.
struct Setup {
    proxy: TestProxy,
    ca: Ca,
    leaf: Leaf,
    over_tls: bool,
}

impl Setup {
    fn new(servers: &[&Server], over_tls: bool, ca: Ca, leaf: Leaf) -> Self {
        let policy = ForwardPolicy {
            protocol: UpstreamProtocol::Http2,
            tls: over_tls.then(|| Arc::new(UpstreamTls::default())),
            max_body: ByteLimit::NONE,
            ..ForwardPolicy::default()
        };
        let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
        let mut resources = backend("web", &addresses);
        resources.push(certificate("web", &leaf));
        resources.push(host_with_certificate(HOST, vec![route("/", forward("web", policy))], "web"));
        let config = ProxyConfig { workers: NonZeroUsize::new(2), ..config() };
        Self { proxy: TestProxy::start_with(resources, config), ca, leaf, over_tls }
    }

    async fn with_one(over_tls: bool) -> (Self, Server) {
        let ca = Ca::new("ca");
        let leaf = ca.leaf(&[HOST]);
        let server = Server::start(over_tls.then_some(&leaf), serve).await;
        (Self::new(&[&server], over_tls, ca, leaf), server)
    }

    async fn channel(&self) -> Channel {
        channel(&self.proxy, self.over_tls.then_some(&self.ca)).await
    }
}

#[tokio::test]
async fn all_kinds_of_calls_pass() {
    for over_tls in [false, true] {
        let (setup, _server) = Setup::with_one(over_tls).await;
        let channel = setup.channel().await;
        for size in [0, 1, 16_384, 1_000_000] {
            assert_eq!(call(&channel, vec![b'x'; size]).await.expect("an answer").get_ref().len(), size);
        }
        let mut grpc = Grpc::new(channel.clone());
        grpc.ready().await.expect("a channel");
        let messages = stream::iter((0..500).map(|_| Bytes::from(vec![b'm'; 3000])));
        let counted = grpc.client_streaming(Request::new(messages), method("Counted"), BytesCodec).await;
        assert_eq!(&counted.expect("an answer").get_ref()[..], b"500 1500000");

        grpc.ready().await.expect("a channel");
        let many = grpc.server_streaming(Request::new("2000".into()), method("Many"), BytesCodec).await;
        let many: Vec<_> = many.expect("answers").into_inner().collect().await;
        assert_eq!(many.len(), 2000);
        assert!(many.iter().enumerate().all(|(at, one)| one.as_ref().is_ok_and(|one| one[..] == vec![at as u8; 1000])));

        // Each message is sent only after the answer to the one before it.
        grpc.ready().await.expect("a channel");
        let (to, from) = tokio::sync::mpsc::channel::<Bytes>(1);
        let messages = stream::unfold(from, |mut from| async move { from.recv().await.map(|next| (next, from)) });
        let answers = grpc.streaming(Request::new(messages), method("Echoes"), BytesCodec).await;
        let mut answers = answers.expect("answers").into_inner();
        for size in [1, 70_000, 5] {
            to.send(vec![b'e'; size].into()).await.expect("a call under way");
            let answer = within("an answer", answers.message()).await.expect("no failure");
            assert_eq!(answer.expect("an answer").len(), size);
        }
        drop(to);
        assert!(within("the end", answers.message()).await.expect("status 0").is_none());
    }
}

#[tokio::test]
async fn failures_and_metadata_arrive_as_they_were_sent() {
    for over_tls in [false, true] {
        let (setup, _server) = Setup::with_one(over_tls).await;
        let channel = setup.channel().await;
        let mut grpc = Grpc::new(channel.clone());
        // A head that is also the end of the stream.
        let failed = call(&channel, "fail").await.expect_err("a failure");
        assert_eq!((failed.code(), failed.message()), (Code::FailedPrecondition, "not today: 50 % of \u{e4}"));
        grpc.ready().await.expect("a channel");
        let unknown = grpc.unary(Request::new(Bytes::new()), method("None"), BytesCodec).await;
        assert_eq!(unknown.map(|_: Response<Bytes>| ()).expect_err("a failure").code(), Code::Unimplemented);
        // After messages.
        grpc.ready().await.expect("a channel");
        let messages = stream::iter(["a", "b", "fail"].map(Bytes::from));
        let answers = grpc.streaming(Request::new(messages), method("Echoes"), BytesCodec).await;
        let answers: Vec<_> = answers.expect("answers").into_inner().collect::<Vec<Result<Bytes, Status>>>().await;
        assert!(matches!(&answers[..], [Ok(_), Ok(_), Err(status)] if status.code() == Code::DataLoss), "{answers:?}");

        let mut request = Request::new(Bytes::from("m"));
        request.metadata_mut().insert("x-given", "text".parse().expect("a value"));
        grpc.ready().await.expect("a channel");
        let given = grpc.unary(request, method("Unary"), BytesCodec).await.expect("an answer");
        let _: &Bytes = given.get_ref();
        assert_eq!(given.metadata().get("x-given").and_then(|value| value.to_str().ok()), Some("text"));

        let mut request = Request::new(Bytes::from("sleep"));
        request.set_timeout(Duration::from_millis(200));
        grpc.ready().await.expect("a channel");
        let late = within("the deadline", grpc.unary(request, method("Unary"), BytesCodec)).await;
        let late = late.map(|_: Response<Bytes>| ()).expect_err("a failure");
        assert!(matches!(late.code(), Code::DeadlineExceeded | Code::Cancelled), "{late:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_streams_are_open_at_once() {
    const CHANNELS: usize = 100;
    const EACH: usize = 100;
    let (setup, _server) = Setup::with_one(false).await;
    let (gate, answered) = (Gate::new(), Arc::new(AtomicUsize::new(0)));
    let mut calls = JoinSet::new();
    for _ in 0..CHANNELS {
        let channel = setup.channel().await;
        for _ in 0..EACH {
            let (channel, gate, answered) = (channel.clone(), gate.clone(), answered.clone());
            calls.spawn(async move {
                let mut grpc = Grpc::new(channel);
                grpc.ready().await.expect("a channel");
                let messages = stream::unfold(0, move |turn| {
                    let gate = gate.clone();
                    async move {
                        if turn == 1 {
                            gate.pass().await;
                        }
                        (turn < 2).then_some((Bytes::from("hi"), turn + 1))
                    }
                });
                let answers = grpc.streaming(Request::new(messages), method("Echoes"), BytesCodec).await;
                let mut answers = answers.expect("answers").into_inner();
                let first: Bytes = answers.message().await.expect("no failure").expect("an answer");
                answered.fetch_add(1, Ordering::Relaxed);
                let second: Bytes = answers.message().await.expect("no failure").expect("an answer");
                assert!(answers.message().await.expect("status 0").is_none());
                assert_eq!((first, second), ("hi".into(), "hi".into()));
            });
        }
        let begun = calls.len();
        eventually("the streams are open", async || answered.load(Ordering::Relaxed) == begun).await;
    }
    assert_eq!(answered.load(Ordering::Relaxed), CHANNELS * EACH);
    gate.release();
    while let Some(ended) = calls.join_next().await {
        ended.expect("no panic");
    }
}

#[tokio::test]
async fn a_rolling_update_of_servers_fails_no_call() {
    for over_tls in [false, true] {
        let (setup, mut server) = Setup::with_one(over_tls).await;
        let (done, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut clients = JoinSet::new();
        for number in 0..8 {
            let (channel, done, calls) = (setup.channel().await, done.clone(), calls.clone());
            clients.spawn(async move {
                while !done.load(Ordering::Relaxed) {
                    if number % 2 == 0 {
                        call(&channel, "x").await.expect("a call that does not fail");
                    } else {
                        let mut grpc = Grpc::new(channel.clone());
                        grpc.ready().await.expect("a channel");
                        let messages = stream::iter((0..5).map(|_| Bytes::from_static(b"y")));
                        let answers = grpc.streaming(Request::new(messages), method("Echoes"), BytesCodec).await;
                        let answers = answers.expect("a call that does not fail").into_inner();
                        let answers: Vec<Result<Bytes, Status>> = answers.collect().await;
                        assert!(answers.len() == 5 && answers.iter().all(Result::is_ok), "{answers:?}");
                    }
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for _ in 0..5 {
            let before = calls.load(Ordering::Relaxed);
            eventually("more calls", async || calls.load(Ordering::Relaxed) > before + 50).await;
            let next = Server::start(over_tls.then_some(&setup.leaf), serve).await;
            // Both, then only the new one; the old one leaves as a pod does: once its calls are over and the workers know.
            setup.proxy.publish([endpoints("web", &[server.address, next.address])]).await;
            setup.proxy.publish([endpoints("web", &[next.address])]).await;
            let published = calls.load(Ordering::Relaxed);
            eventually("calls after the change", async || calls.load(Ordering::Relaxed) > published + 50).await;
            std::mem::replace(&mut server, next).end().await;
        }
        done.store(true, Ordering::Relaxed);
        while let Some(ended) = clients.join_next().await {
            ended.expect("no panic");
        }
        assert!(calls.load(Ordering::Relaxed) > 250);
    }
}
