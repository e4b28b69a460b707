use super::*;
use fairway_model::{Delta, Resource};
use fairway_testkit::Client;
use std::net::SocketAddr;
use std::sync::Mutex;

use crate::metrics::WorkerMetrics;
use crate::record::fixture::{Fixture, host};

struct Setting {
    address: SocketAddr,
    lifecycle: Lifecycle,
    /// Senders of pings that are not answered.
    silent: Arc<Mutex<Option<Vec<oneshot::Sender<()>>>>>,
}

async fn start() -> Setting {
    let server = AdminServer::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = server.local_address().unwrap();
    let silent = Arc::default();
    let source = source_with(&silent);
    let lifecycle = source.lifecycle.clone();
    tokio::spawn(server.run(Arc::new(source)));
    Setting { address, lifecycle, silent }
}

fn source() -> AdminSource {
    source_with(&Arc::default())
}

fn source_with(silent: &Arc<Mutex<Option<Vec<oneshot::Sender<()>>>>>) -> AdminSource {
    let metrics = Arc::new(MetricOptions::default());
    let snapshot = Arc::new(Snapshot::default().apply(Delta::upsert([Resource::from(host("a.b", "web"))])));
    let (held, options) = (silent.clone(), metrics.clone());
    AdminSource {
        lifecycle: Lifecycle::default(),
        health_path: "/healthz".to_owned(),
        patience: Duration::from_millis(50),
        metrics,
        ping: Box::new(move || {
            let (sender, receiver) = oneshot::channel();
            match &mut *held.lock().unwrap() {
                Some(held) => held.push(sender),
                None => sender.send(()).unwrap(),
            }
            vec![receiver]
        }),
        reports: Box::new(move |live| {
            let (sender, receiver) = oneshot::channel();
            let mut worker = WorkerMetrics::new(options.clone());
            worker.record(&Fixture::new("GET /a HTTP/1.1", "").record());
            sender.send(worker.report(&live)).unwrap();
            vec![receiver]
        }),
        running: Box::new(move || (snapshot.clone(), ConfigStatus::default())),
        figures: Box::new(ProxyFigures::default),
    }
}

async fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut client = Client::connect(address).await;
    client.send(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await;
    let response = client.read_response().await;
    (response.status, response.text())
}

#[tokio::test]
async fn health_follows_the_life_of_the_process() {
    let setting = start().await;
    assert_eq!(get(setting.address, "/healthz").await.0, 500);
    assert_eq!(get(setting.address, "/readyz").await.0, 503);
    setting.lifecycle.serving();
    assert_eq!(get(setting.address, "/healthz").await, (200, "ok\n".to_owned()));
    assert_eq!(get(setting.address, "/readyz").await.0, 200);
    *setting.silent.lock().unwrap() = Some(Vec::new());
    assert_eq!(get(setting.address, "/healthz").await, (500, "a worker does not answer\n".to_owned()));
    *setting.silent.lock().unwrap() = None;
    setting.lifecycle.stopping();
    assert_eq!(get(setting.address, "/healthz").await, (500, "stopping\n".to_owned()));
}

#[tokio::test]
async fn metrics_and_snapshot_are_served_on_one_connection() {
    let setting = start().await;
    let mut client = Client::connect(setting.address).await;
    client.send("GET /metrics?x=y HTTP/1.1\r\nHost: x\r\n\r\nGET /debug/snapshot HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let metrics = client.read_response().await;
    assert_eq!(metrics.status, 200);
    assert!(metrics.text().contains("\nnginx_ingress_controller_requests{"), "{}", metrics.text());
    let snapshot = client.read_response().await;
    let json: serde_json::Value = serde_json::from_str(&snapshot.text()).unwrap();
    assert!(json.to_string().contains("a.b"), "{json}");
    client.send("GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert_eq!(client.read_response().await.status, 404);
}

#[tokio::test]
async fn one_asks_for_the_whole_configuration_at_a_time() {
    let mut source = source();
    source.patience = Duration::from_secs(5);
    let (places, asked) = (Places::default(), std::sync::atomic::AtomicUsize::new(0));
    let count = || asked.load(std::sync::atomic::Ordering::Relaxed);
    let answer = async || {
        let now = asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1;
        tokio::task::yield_now().await;
        asked.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
        Answer::text(200, &now.to_string())
    };
    let place = &places.metrics;
    let all = tokio::join!(source.alone(place, answer()), source.alone(place, answer()), source.alone(place, answer()));
    for answer in [all.0, all.1, all.2] {
        assert_eq!((answer.status, answer.body.as_slice()), (200, &b"1\n"[..]));
    }
    assert_eq!(count(), 0);
    // Nobody waits for ever, and the two do not wait for each other.
    source.patience = Duration::from_millis(20);
    let held = places.snapshot.acquire().await.unwrap();
    assert_eq!(source.answer(b"/debug/snapshot", &places).await.status, 503);
    assert_eq!(source.answer(b"/metrics", &places).await.status, 200);
    drop(held);
    assert_eq!(source.answer(b"/debug/snapshot", &places).await.status, 200);
}

#[tokio::test]
async fn what_is_no_plain_get_is_refused() {
    let setting = start().await;
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(20_000));
    for (request, status) in [
        ("POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc", 405),
        ("\x16\x03\x01 HTTP/1.1\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\n\r\n", 400),
        (long.as_str(), 414),
    ] {
        let mut client = Client::connect(setting.address).await;
        client.send(request).await;
        assert_eq!(client.read_response().await.status, status, "{}", &request[..20]);
    }
}
