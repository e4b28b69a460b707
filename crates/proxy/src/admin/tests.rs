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
    let lifecycle = Lifecycle::default();
    let silent = Arc::new(Mutex::new(None::<Vec<_>>));
    let metrics = Arc::new(MetricOptions::default());
    let snapshot = Arc::new(Snapshot::default().apply(Delta::upsert([Resource::from(host("a.b", "web"))])));
    let (held, options) = (silent.clone(), metrics.clone());
    let source = AdminSource {
        lifecycle: lifecycle.clone(),
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
    };
    tokio::spawn(server.run(Arc::new(source)));
    Setting { address, lifecycle, silent }
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
