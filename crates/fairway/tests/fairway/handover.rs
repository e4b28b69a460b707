//! Processes take over the sockets from each other, under load, and connected clients notice nothing.

use std::net::{SocketAddr, TcpListener, UdpSocket as StdUdpSocket};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::support;
use crate::support::run::{ConfigMap, Run, api_server_and, api_server_with};
use bytes::Bytes;
use fairway_testkit::{Client, Origin, Reply, Request, eventually, within};
use h2::client::ResponseFuture;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, Response};
use serde_json::{Value, json};
use tokio::net::{TcpStream, UdpSocket};
use tokio::task::JoinHandle;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A controller, and how to start proxies that succeed each other.
struct Setting {
    folder: tempfile::TempDir,
    /// Where processes find each other.
    place: PathBuf,
    _api: Origin,
    _origin: Origin,
    _controller: Run,
    admin: u16,
    http: SocketAddr,
    /// The addresses of a TCP service and of a UDP service.
    stream: SocketAddr,
    datagrams: SocketAddr,
    endpoints: [JoinHandle<()>; 2],
}

impl Setting {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let origin = Origin::new("web").reply_with(|request: &Request| match request.target.as_str() {
            "/chat" => Reply::upgrade("websocket").header("Sec-WebSocket-Accept", ACCEPT),
            _ => Reply::ok().body("x"),
        });
        let origin = origin.start();
        let [admin, http, https, stream, datagrams] = ports();
        let config = ConfigMap::new([json!({
            (stream.to_string()): "shop/web:80",
            (datagrams.to_string()): "shop/names:53",
        })]);
        let (calls, serving_calls) = serve_calls();
        let (names, serving_names) = serve_names();
        let api = api_server_and(&origin, &config, move |plural| more(plural, calls, names));
        let flags = [
            format!("--http-port={http}"),
            format!("--https-port={https}"),
            "--tcp-services-configmap=edge/config".to_owned(),
            "--udp-services-configmap=edge/config".to_owned(),
        ];
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        let controller = Run::controller(api.address(), &folder.path().join("control.sock"), &flags);
        let [http, stream, datagrams] = [http, stream, datagrams].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let endpoints = [serving_calls, serving_names];
        let place = folder.path().join("handover.sock");
        Self {
            folder,
            place,
            _api: api,
            _origin: origin,
            _controller: controller,
            admin,
            http,
            stream,
            datagrams,
            endpoints,
        }
    }

    /// Returns once the process holds the health port, and so is the only one that serves.
    fn proxy(&self, workers: usize, more: &[&str]) -> Run {
        let flags = [
            format!("--healthz-port={}", self.admin),
            format!("--handover-socket={}", self.place.display()),
            format!("--workers={workers}"),
            "--shutdown-grace-period=1".to_owned(),
        ];
        let flags: Vec<_> = flags.iter().map(String::as_str).chain(more.iter().copied()).collect();
        Run::proxy(&self.folder.path().join("control.sock"), &flags)
    }

    async fn ready(&self) -> u16 {
        let address = SocketAddr::from(([127, 0, 0, 1], self.admin));
        // Boxed: the buffers of a client, inside everything that polls it repeatedly, don't fit on the stack of a test.
        Box::pin(async move {
            match Client::try_connect(address).await {
                Ok(mut client) => client.get("localhost", "/readyz").await.status,
                Err(_) => 0,
            }
        })
        .await
    }

    /// Whether a new connection gets an answer.
    async fn answers(&self) -> bool {
        let address = self.http;
        Box::pin(async move {
            match Client::try_connect(address).await {
                Ok(mut client) => client.get("a.example", "/").await.status == 200,
                Err(_) => false,
            }
        })
        .await
    }
}

impl Drop for Setting {
    fn drop(&mut self) {
        self.endpoints.iter().for_each(JoinHandle::abort);
    }
}

/// A Service for gRPC calls with an Ingress, and one for datagrams.
fn more(plural: &str, calls: u16, names: u16) -> Vec<Value> {
    let metadata = |name: &str| {
        json!({"namespace": "shop", "name": name, "uid": name, "resourceVersion": "1",
            "labels": {"kubernetes.io/service-name": name},
            "annotations": {"nginx.ingress.kubernetes.io/backend-protocol": "GRPC"}})
    };
    let both = [("calls", "TCP", 80, calls), ("names", "UDP", 53, names)];
    match plural {
        "services" => both
            .map(|(name, protocol, port, _)| {
                json!({"metadata": metadata(name),
                    "spec": {"clusterIP": "None", "ports": [{"port": port, "protocol": protocol}]}})
            })
            .into(),
        "endpointslices" => both
            .map(|(name, protocol, _, port)| {
                json!({"metadata": metadata(name), "addressType": "IPv4",
                    "ports": [{"port": port, "protocol": protocol}], "endpoints": [{"addresses": ["127.0.0.1"]}]})
            })
            .into(),
        "ingresses" => {
            let backend = json!({"service": {"name": "calls", "port": {"number": 80}}});
            let path = json!({"path": "/", "pathType": "Prefix", "backend": backend});
            let rule = json!({"host": "calls.example", "http": {"paths": [path]}});
            vec![json!({"metadata": metadata("calls"), "spec": {"ingressClassName": "nginx", "rules": [rule]}})]
        }
        _ => Vec::new(),
    }
}

/// A gRPC endpoint that sends each message back. Returns its port.
fn serve_calls() -> (u16, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("its address").port();
    listener.set_nonblocking(true).expect("a listener");
    let listener = tokio::net::TcpListener::from_std(listener).expect("a listener");
    let accepting = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    tokio::spawn(async move {
                        let mut response = Response::new(());
                        let kind = HeaderValue::from_static("application/grpc");
                        response.headers_mut().insert("content-type", kind);
                        let Ok(mut send) = respond.send_response(response, false) else { return };
                        let mut body = request.into_body();
                        while let Some(Ok(data)) = body.data().await {
                            let _ = body.flow_control().release_capacity(data.len());
                            let _ = send.send_data(data, false);
                        }
                        let status = (HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"));
                        let _ = send.send_trailers(HeaderMap::from_iter([status]));
                    });
                }
            });
        }
    });
    (port, accepting)
}

/// An endpoint that sends each datagram back. Returns its port.
fn serve_names() -> (u16, JoinHandle<()>) {
    let socket = StdUdpSocket::bind("127.0.0.1:0").expect("a port");
    let port = socket.local_addr().expect("its address").port();
    socket.set_nonblocking(true).expect("a socket");
    let socket = UdpSocket::from_std(socket).expect("a socket");
    let serving = tokio::spawn(async move {
        let mut room = [0; 64];
        while let Ok((length, from)) = socket.recv_from(&mut room).await {
            let _ = socket.send_to(&room[..length], from).await;
        }
    });
    (port, serving)
}

/// A call on its own connection, whose messages come back one by one.
struct StreamingCall {
    send: SendStream<Bytes>,
    body: RecvStream,
    connection: JoinHandle<()>,
}

impl StreamingCall {
    async fn start(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("a connection");
        let (client, connection) = h2::client::handshake(stream).await.expect("a connection of HTTP/2");
        let connection = tokio::spawn(async move {
            let _ = connection.await;
        });
        let request = http::Request::post("http://calls.example/shop.Chat/Talk");
        let request = request.header("content-type", "application/grpc").header("te", "trailers").body(());
        let mut client = client.ready().await.expect("room for a stream");
        let sent: (ResponseFuture, SendStream<Bytes>) =
            client.send_request(request.expect("a request"), false).expect("a stream");
        let (response, mut send) = sent;
        // The response may begin only after the first message.
        send.send_data(message(0), false).expect("a message");
        let response = within("an answer", response).await.expect("an answer");
        assert_eq!(response.status(), 200);
        let mut call = Self { send, body: response.into_body(), connection };
        call.hears(0).await;
        call
    }

    /// Sends a number, and waits for the echo.
    async fn says(&mut self, number: u32) {
        self.send.send_data(message(number), false).expect("the stream is open");
        self.hears(number).await;
    }

    async fn hears(&mut self, number: u32) {
        let wanted = message(number);
        let mut heard = Vec::new();
        while heard.len() < wanted.len() {
            let data = within("a message", self.body.data()).await.expect("the stream is open").expect("a message");
            self.body.flow_control().release_capacity(data.len()).expect("a window");
            heard.extend_from_slice(&data);
        }
        assert_eq!(heard, wanted);
    }

    async fn end(mut self) {
        self.send.send_data(Bytes::new(), true).expect("the stream is open");
        assert!(within("the end", self.body.data()).await.is_none());
        let trailers = within("the status", self.body.trailers()).await.expect("trailers").expect("trailers");
        assert_eq!(trailers["grpc-status"], "0");
        self.connection.abort();
    }
}

/// A gRPC message.
fn message(number: u32) -> Bytes {
    [&[0, 0, 0, 0, 4][..], &number.to_be_bytes()].concat().into()
}

/// A process that ends with the test.
struct Spawned(std::process::Child);

impl Drop for Spawned {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Ports that are free at the moment.
fn ports<const N: usize>() -> [u16; N] {
    let sockets = [(); N].map(|()| TcpListener::bind("0.0.0.0:0").expect("a port"));
    sockets.map(|socket| socket.local_addr().expect("its address").port())
}

/// Sends requests without a pause until stopped.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU32>,
    clients: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(setting: &Setting) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let clients =
            [(setting.http, 1), (setting.http, 1), (setting.http, 1000), (setting.stream, 1)].map(|(address, most)| {
                let (stop, answered) = (stop.clone(), answered.clone());
                tokio::spawn(Box::pin(async move {
                    while !stop.load(Ordering::Relaxed) {
                        let mut client = Client::connect(address).await;
                        for _ in 0..most {
                            let response = client.get("a.example", "/").await;
                            assert_eq!((response.status, response.text().as_str()), (200, "x"));
                            answered.fetch_add(1, Ordering::Relaxed);
                            let last = response.headers().get("connection").is_some_and(|value| value == "close");
                            if last || stop.load(Ordering::Relaxed) {
                                break;
                            }
                        }
                    }
                }))
            });
        let calling = tokio::spawn(calls(setting.http, stop.clone()));
        // One client that keeps its port, and one that uses another port for each datagram.
        let asking = [false, true].map(|anew| tokio::spawn(datagrams(setting.datagrams, anew, stop.clone())));
        Self { stop, answered, clients: clients.into_iter().chain([calling]).chain(asking).collect() }
    }

    async fn goes_on(&self) {
        let before = self.answered.load(Ordering::Relaxed);
        let ended = || self.clients.iter().any(JoinHandle::is_finished);
        let more = || self.answered.load(Ordering::Relaxed) > before + 100;
        eventually("more answers", || async { more() || ended() }).await;
    }

    async fn end(self) {
        self.goes_on().await;
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.await.expect("no request fails");
        }
    }
}

/// Makes calls, each on a new connection, until stopped.
async fn calls(address: SocketAddr, stop: Arc<AtomicBool>) {
    while !stop.load(Ordering::Relaxed) {
        StreamingCall::start(address).await.end().await;
    }
}

/// Sends datagrams, each once, and expects an answer to each, until stopped.
async fn datagrams(address: SocketAddr, anew: bool, stop: Arc<AtomicBool>) {
    let bind = || UdpSocket::bind("127.0.0.1:0");
    let mut socket = bind().await.expect("a port");
    for number in 0_u32.. {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        if anew {
            socket = bind().await.expect("a port");
        }
        socket.send_to(&number.to_be_bytes(), address).await.expect("a datagram");
        let mut room = [0; 64];
        let what = format!("the answer to datagram {number}");
        let (length, from) = within(&what, socket.recv_from(&mut room)).await.expect("a datagram");
        assert_eq!((&room[..length], from), (&number.to_be_bytes()[..], address));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn twenty_upgrades_under_load_lose_nothing() {
    let mut setting = Setting::new();
    // As in the chart: an abstract name needs no folder that two pods share.
    setting.place = format!("@fairway-test-{}", setting.admin).into();
    let mut process = setting.proxy(2, &[]);
    process.serving();
    let mut socket = Client::connect(setting.http).await;
    let fields =
        format!("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}");
    socket.send(format!("GET /chat HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n\r\n")).await;
    assert!(socket.read_head().await.start.contains("101"));
    let mut call = StreamingCall::start(setting.http).await;
    let load = Load::start(&setting);
    let mut before = Vec::new();
    for upgrade in 0..20_u32 {
        // Fewer workers, the same number, and more.
        let next = setting.proxy(1 + (upgrade as usize * 3) % 4, &[]);
        assert_eq!(setting.ready().await, 200);
        process.signal("-TERM");
        before.push(std::mem::replace(&mut process, next));
        load.goes_on().await;
        call.says(upgrade).await;
    }
    load.end().await;
    let mut first = before.remove(0);
    for mut ended in before {
        assert_eq!(ended.ended().code(), Some(0));
    }
    // Its streams keep the time that is configured for them.
    socket.send("still here").await;
    assert_eq!(socket.read_exact(10).await, b"still here");
    call.says(20).await;
    call.end().await;
    assert!(first.child.try_wait().expect("a child of ours").is_none());
    socket.half_close().await;
    assert_eq!(first.ended().code(), Some(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_process_that_dies_before_it_serves_leaves_the_one_before_serving() {
    let setting = Setting::new();
    let mut process = setting.proxy(2, &[]);
    process.serving();
    let load = Load::start(&setting);
    for _ in 0..3 {
        let mut command = support::fairway();
        command.arg("proxy").arg("--control-socket").arg(setting.folder.path().join("nobody.sock"));
        command.arg(format!("--healthz-port={}", setting.admin));
        command.arg("--handover-socket").arg(&setting.place);
        let next = Spawned(command.stderr(std::process::Stdio::null()).spawn().expect("the binary runs"));
        // Both processes share the health port: the readiness of one must not be taken for that of the next.
        eventually("the next process", || async { setting.ready().await == 503 }).await;
        load.goes_on().await;
        drop(next);
        eventually("the one before", || async { setting.ready().await == 200 }).await;
    }
    load.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_process_serves_again_when_the_next_one_is_gone() {
    let setting = Setting::new();
    let mut process = setting.proxy(1, &[]);
    process.serving();
    let mut kept = Box::new(Client::connect(setting.http).await);
    assert_eq!(kept.get("a.example", "/").await.status, 200);
    let mut next = setting.proxy(2, &[]);
    process.line_with("another process serves");
    next.signal("-KILL");
    next.ended();
    process.line_with("listening again");
    eventually("it listens", || setting.answers()).await;
    assert_eq!(kept.get("a.example", "/").await.status, 200);
    eventually("its health", || async { setting.ready().await == 200 }).await;
    // It hands over once more.
    let _third = setting.proxy(2, &[]);
    assert!(setting.answers().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_process_does_everything_and_hands_over_all_the_same() {
    let origin = Origin::new("web").reply(Reply::ok().body("x")).start();
    let api = api_server_with(&origin, &ConfigMap::new([json!({})]));
    let [admin, http, https] = ports();
    // A name in the network namespace, which needs no folder.
    let flags = [
        format!("--handover-socket=@fairway-test-{http}"),
        format!("--healthz-port={admin}"),
        format!("--http-port={http}"),
        format!("--https-port={https}"),
    ];
    let flags: Vec<_> = flags.iter().map(String::as_str).collect();
    let mut process = Run::start(api.address(), &flags);
    let http = process.serving();
    for _ in 0..3 {
        let next = Run::start(api.address(), &flags);
        process.signal("-TERM");
        assert_eq!(process.ended().code(), Some(0));
        assert_eq!(Client::connect(http).await.get("a.example", "/").await.status, 200);
        process = next;
    }
}
