//! One process after the other takes the sockets over, under load, and whoever is connected notices nothing.

mod support;

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use fairway_testkit::{Client, Origin, Reply, Request, eventually};
use serde_json::json;
use support::run::{ConfigMap, Run, api_server_with};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A controller, and how proxies that follow each other are started.
struct Setting {
    folder: tempfile::TempDir,
    _api: Origin,
    _origin: Origin,
    _controller: Run,
    admin: u16,
    http: SocketAddr,
    /// Of a TCP and a UDP service.
    stream: u16,
}

impl Setting {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let origin = Origin::new("web").reply_with(|request: &Request| match request.target.as_str() {
            "/chat" => Reply::upgrade("websocket").header("Sec-WebSocket-Accept", ACCEPT),
            _ => Reply::ok().body("x"),
        });
        let origin = origin.start();
        let [admin, http, https, stream] = ports();
        let config = ConfigMap::new([json!({ (stream.to_string()): "shop/web:80" })]);
        let api = api_server_with(&origin, &config);
        let flags = [
            format!("--http-port={http}"),
            format!("--https-port={https}"),
            "--tcp-services-configmap=edge/config".to_owned(),
            "--udp-services-configmap=edge/config".to_owned(),
        ];
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        let controller = Run::controller(api.address(), &folder.path().join("control.sock"), &flags);
        let http = SocketAddr::from(([127, 0, 0, 1], http));
        Self { folder, _api: api, _origin: origin, _controller: controller, admin, http, stream }
    }

    fn handover(&self) -> PathBuf {
        self.folder.path().join("handover.sock")
    }

    /// Returns when it has the port of health, and so is the only one that serves.
    fn proxy(&self, workers: usize, more: &[&str]) -> Run {
        let flags = [
            format!("--healthz-port={}", self.admin),
            format!("--handover-socket={}", self.handover().display()),
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

/// A process that ends with the test.
struct Spawned(std::process::Child);

impl Drop for Spawned {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Ports that nobody else has now.
fn ports<const N: usize>() -> [u16; N] {
    let sockets = [(); N].map(|()| TcpListener::bind("0.0.0.0:0").expect("a port"));
    sockets.map(|socket| socket.local_addr().expect("its address").port())
}

/// Requests without a pause until it is told to stop.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU32>,
    clients: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    fn start(setting: &Setting) -> Self {
        let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let stream = SocketAddr::from(([127, 0, 0, 1], setting.stream));
        let clients =
            [(setting.http, 1), (setting.http, 1), (setting.http, 1000), (stream, 1)].map(|(address, most)| {
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
        Self { stop, answered, clients: clients.into() }
    }

    async fn goes_on(&self) {
        let before = self.answered.load(Ordering::Relaxed);
        let ended = || self.clients.iter().any(tokio::task::JoinHandle::is_finished);
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

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn twenty_upgrades_under_load_lose_nothing() {
    let setting = Setting::new();
    let mut process = setting.proxy(2, &[]);
    process.serving();
    let mut socket = Client::connect(setting.http).await;
    let fields =
        format!("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}");
    socket.send(format!("GET /chat HTTP/1.1\r\nHost: a.example\r\n{fields}\r\n\r\n")).await;
    assert!(socket.read_head().await.start.contains("101"));
    let load = Load::start(&setting);
    let mut before = Vec::new();
    for upgrade in 0..20 {
        // Fewer workers, as many, and more.
        let next = setting.proxy(1 + (upgrade * 3) % 4, &[]);
        assert_eq!(setting.ready().await, 200);
        process.signal("-TERM");
        before.push(std::mem::replace(&mut process, next));
        load.goes_on().await;
    }
    load.end().await;
    let mut first = before.remove(0);
    for mut ended in before {
        assert_eq!(ended.ended().code(), Some(0));
    }
    // Its stream has the time that is set for it.
    socket.send("still here").await;
    assert_eq!(socket.read_exact(10).await, b"still here");
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
        command.arg("--handover-socket").arg(setting.handover());
        let next = Spawned(command.stderr(std::process::Stdio::null()).spawn().expect("the binary runs"));
        // Health is asked for at one port: nobody may take this one's for that of the next.
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
    // And hands over once more.
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
