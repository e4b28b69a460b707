use super::*;
use fairway_model::{Delta, Resource};
use fairway_testkit::{Client, Ended};
use std::net::SocketAddr;
use std::sync::Mutex;

use crate::metrics::WorkerMetrics;
use crate::record::RequestRecord;
use crate::record::fixture::{Fixture, host};

struct Setting {
    address: SocketAddr,
    lifecycle: Lifecycle,
    /// Senders of pings that are not answered.
    silent: Arc<Mutex<Option<Vec<oneshot::Sender<()>>>>>,
}

async fn start() -> Setting {
    start_with(1).await
}

async fn start_with(hosts: usize) -> Setting {
    let server = AdminServer::bind(([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = server.local_address().unwrap();
    let silent = Arc::default();
    let source = source_with(&silent, hosts);
    let lifecycle = source.lifecycle.clone();
    tokio::spawn(server.run(Arc::new(source)));
    Setting { address, lifecycle, silent }
}

fn source() -> AdminSource {
    source_with(&Arc::default(), 1)
}

/// Two workers, each of which has counted one request to each host.
fn source_with(silent: &Arc<Mutex<Option<Vec<oneshot::Sender<()>>>>>, hosts: usize) -> AdminSource {
    let metrics = Arc::new(MetricOptions { detail: crate::metrics::Detail::Full, ..MetricOptions::default() });
    let hosts = (0..hosts).map(|number| Resource::from(host(&format!("a{number}.b"), "web")));
    let snapshot = Arc::new(Snapshot::default().apply(Delta::upsert(hosts)));
    let (held, options, known) = (silent.clone(), metrics.clone(), snapshot.clone());
    AdminSource {
        lifecycle: Lifecycle::default(),
        health_path: "/healthz".to_owned(),
        patience: Duration::from_millis(50),
        metrics,
        findings: FindingSource::new(|| ["b", "a"].map(finding).into()),
        ping: Box::new(move || {
            let (sender, receiver) = oneshot::channel();
            match &mut *held.lock().unwrap() {
                Some(held) => held.push(sender),
                None => sender.send(()).unwrap(),
            }
            vec![receiver]
        }),
        workers: 2,
        report: Box::new(move |worker, version, live| {
            let (sender, receiver) = oneshot::channel();
            let mut metrics = WorkerMetrics::new(options.clone());
            let fixture = Fixture::new("GET /a HTTP/1.1", "");
            for host in known.hosts() {
                metrics.record(&RequestRecord { host: Some(host), route: host.routes().first(), ..fixture.record() });
            }
            sender.send(metrics.report(version, &live)).unwrap();
            assert!(worker < 2);
            receiver
        }),
        running: Box::new(move || {
            let snapshot = snapshot.clone();
            (ConfigStatus::default(), Box::new(|| snapshot))
        }),
        figures: Box::new(ProxyFigures::default),
        channel: None,
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
    assert_eq!(get(setting.address, "/readyz").await, (200, "ok\n".to_owned()), "connections are taken");
    setting.lifecycle.draining();
    assert_eq!(get(setting.address, "/healthz").await, (500, "stopping\n".to_owned()));
    assert_eq!(get(setting.address, "/readyz").await, (503, "no more connections\n".to_owned()));
}

#[tokio::test]
async fn a_process_that_ends_before_its_first_configuration_is_not_ready() {
    let setting = start().await;
    setting.lifecycle.stopping();
    setting.lifecycle.serving();
    assert_eq!(get(setting.address, "/readyz").await.0, 503);
    assert_eq!(get(setting.address, "/healthz").await.0, 500);
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
    assert!(json.to_string().contains("a0.b"), "{json}");
    client.send("GET /nothing HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert_eq!(client.read_response().await.status, 404);
}

/// A controller has to build it, so it is built only for pages that show it.
#[tokio::test]
async fn the_snapshot_of_a_process_without_workers_is_built_only_to_be_shown() {
    let built = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = built.clone();
    let running = move || -> (ConfigStatus, LazySnapshot) {
        let built = counted.clone();
        let snapshot = move || {
            built.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            Arc::default()
        };
        (ConfigStatus::default(), Box::new(snapshot))
    };
    let source = AdminSource { workers: 0, running: Box::new(running), ..source() };
    for (path, times) in [("/metrics", 0), ("/debug/snapshot", 1), ("/metrics", 1)] {
        let answer = Box::pin(source.answer(path.as_bytes(), "", &AdminPlaces::default())).await;
        assert_eq!((answer.status, built.load(std::sync::atomic::Ordering::Relaxed)), (200, times), "{path}");
    }
}

#[tokio::test]
async fn only_a_few_ask_for_the_whole_configuration_at_a_time() {
    let mut source = source();
    source.patience = Duration::from_secs(5);
    let (places, asked) = (Arc::new(Semaphore::new(1)), std::sync::atomic::AtomicUsize::new(0));
    let count = || asked.load(std::sync::atomic::Ordering::Relaxed);
    let answer = async || {
        asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        tokio::task::yield_now().await;
        AdminAnswer::text(200, "")
    };
    let read = async || {
        let read = source.placed(&places, answer()).await;
        let now = asked.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
        (read.status, now)
    };
    assert_eq!(tokio::join!(read(), read(), read()), ((200, 1), (200, 1), (200, 1)));
    assert_eq!(count(), 0);
    // Waits are bounded, a client that doesn't read keeps its place, and the two kinds don't wait for each other.
    source.patience = Duration::from_millis(20);
    let places = AdminPlaces::default();
    let held = source.answer(b"/debug/snapshot", "", &places).await;
    assert_eq!(held.status, 200);
    assert_eq!(source.answer(b"/debug/snapshot", "", &places).await.status, 503);
    assert_eq!(source.answer(b"/metrics", "", &places).await.status, 200);
    drop(held);
    assert_eq!(source.answer(b"/debug/snapshot", "", &places).await.status, 200);
}

#[tokio::test]
async fn metrics_come_in_chunks_or_until_the_end_of_the_connection() {
    let setting = start().await;
    let of_requests = |text: &str| text.lines().find(|line| line.contains("_requests{")).unwrap().to_owned();
    let mut client = Client::connect(setting.address).await;
    let chunked = client.get("x", "/metrics").await;
    assert!(of_requests(&chunked.text()).ends_with(" 2"), "one request of each of two workers");
    client.send("HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert_eq!(client.read_response_to("HEAD").await.status, 200);
    client.send("GET /metrics HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n").await;
    let plain = String::from_utf8(client.read_to_end().await).unwrap();
    let (head, body) = plain.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("Connection: close") && !head.contains("Transfer-Encoding"), "{head}");
    assert_eq!(of_requests(body), of_requests(&chunked.text()));
    assert!(body.starts_with("# HELP nginx_ingress_controller_requests ") && body.ends_with('\n'));
}

/// More text than kernels buffer for a connection.
#[tokio::test]
async fn scrapers_that_do_not_read_are_few_and_leave_room_when_they_go() {
    let setting = start_with(600).await;
    let mut silent = Vec::new();
    for _ in 0..SCRAPES {
        let mut client = Box::new(Client::builder().receive_buffer(4096).connect(setting.address).await);
        client.send("GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n").await;
        // The answer has begun.
        client.read_exact(1).await;
        silent.push(client);
    }
    assert_eq!(Box::pin(get(setting.address, "/metrics")).await.0, 503);
    assert_eq!(Box::pin(get(setting.address, "/debug/snapshot")).await.0, 200);
    silent.into_iter().for_each(|client| client.reset());
    fairway_testkit::eventually("room", || Box::pin(async { get(setting.address, "/metrics").await.0 == 200 })).await;
}

#[tokio::test]
async fn probes_get_through_when_silent_connections_take_all_places() {
    let setting = start().await;
    setting.lifecycle.serving();
    let mut silent = Vec::new();
    for at in 0..crate::limit::ADMIN_CONNECTIONS {
        let mut client = Client::connect(setting.address).await;
        if at % 2 == 1 {
            client.send("GET /healthz HTTP/1.1\r\n").await;
        }
        silent.push(client);
    }
    assert_eq!(get(setting.address, "/healthz").await.0, 200);
    assert_eq!(silent[0].ended().await, Ended::Closed, "it made room");
}

#[tokio::test]
async fn probes_get_through_while_silent_connections_come_again_and_again() {
    let setting = start().await;
    setting.lifecycle.serving();
    let address = setting.address;
    let silent = tokio::spawn(async move {
        let mut held = std::collections::VecDeque::new();
        loop {
            held.push_back(tokio::net::TcpStream::connect(address).await.unwrap());
            held.drain(..held.len().saturating_sub(2 * crate::limit::ADMIN_CONNECTIONS));
        }
    });
    for _ in 0..200 {
        assert_eq!(get(address, "/healthz").await.0, 200);
    }
    assert!(!silent.is_finished());
}

#[tokio::test]
async fn a_slow_scrape_goes_on_while_silent_connections_make_room() {
    let setting = start_with(600).await;
    setting.lifecycle.serving();
    let mut scraper = Box::new(Client::builder().receive_buffer(4096).connect(setting.address).await);
    scraper.send("GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    scraper.read_until("\r\n\r\n").await;
    let mut silent = Vec::new();
    for _ in 0..2 * crate::limit::ADMIN_CONNECTIONS {
        silent.push(tokio::net::TcpStream::connect(setting.address).await.unwrap());
    }
    assert_eq!(get(setting.address, "/healthz").await.0, 200);
    assert!(scraper.read_to_end().await.ends_with(b"\r\n0\r\n\r\n"), "to its end");
}

#[tokio::test]
async fn a_silent_connection_is_closed_soon() {
    let setting = start().await;
    let mut silent = Client::connect(setting.address).await;
    assert_eq!(silent.ended().await, Ended::Closed);
}

#[tokio::test]
async fn only_plain_get_and_head_requests_are_answered() {
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

fn finding(name: &str) -> Finding {
    Finding {
        origin: fairway_model::Origin::new("Ingress", "default", name),
        severity: "error",
        reason: "ServiceNotFound",
        field: "spec".to_owned(),
        message: "no such Service".to_owned(),
    }
}

#[tokio::test]
async fn findings_are_counted_and_listed_by_object() {
    let setting = start_with(1).await;
    let (status, text) = Box::pin(get(setting.address, "/debug/findings")).await;
    let objects: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, objects[0]["name"].as_str()), (200, Some("a")));
    assert_eq!(objects[1]["findings"][0]["reason"], "ServiceNotFound");
    let (_, text) = Box::pin(get(setting.address, "/metrics")).await;
    assert!(text.contains(",severity=\"error\",reason=\"ServiceNotFound\"} 2\n"));
}
