//! Changes of the configuration while requests are served, and shutdown.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::support;
use crate::support::{HOST, TestProxy, config, endpoints, forward, host, listener, route, table};
use fairway_model::{Delta, ForwardPolicy, Listener, ResourceName, Scheme, Settings, Snapshot};
use fairway_proxy::{Drained, Proxy, ProxyConfig, StartError};
use fairway_testkit::{Client, Ended, Gate, Origin, Reply, eventually};
use tokio::runtime::Builder;
use tokio::time::sleep;

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_changes_under_load_cut_nothing() {
    let (a, b) =
        (Origin::new("a").reply(Reply::ok().body("x")).start(), Origin::new("b").reply(Reply::ok().body("x")).start());
    // No limit of requests: on a slow machine a connection carries more of them than the default allows before the last change.
    let settings = Settings { keep_alive_requests: u64::MAX, ..Settings::default() };
    let proxy = Arc::new(TestProxy::with_settings(&[&a, &b], settings));
    let stop = Arc::new(AtomicBool::new(false));
    let served = Arc::new(AtomicU64::new(0));
    let clients: Vec<_> = (0..8)
        .map(|at| {
            let (proxy, stop, served) = (proxy.clone(), stop.clone(), served.clone());
            tokio::spawn(async move {
                let mut client = proxy.connect().await;
                while !stop.load(Ordering::Relaxed) {
                    let response = client.get(HOST, "/").await;
                    assert_eq!((response.status, response.text().as_str()), (200, "x"));
                    served.fetch_add(1, Ordering::Relaxed);
                    if at % 2 == 0 {
                        client = proxy.connect().await;
                    }
                }
            })
        })
        .collect();
    for change in 0..500 {
        let one = if change % 2 == 0 { &a } else { &b };
        let mut delta = Delta::upsert([
            endpoints("web", &[one.address()]),
            host(&format!("h{change}.example"), vec![route("/", forward("web", ForwardPolicy::default()))]),
        ]);
        if change % 3 == 0 {
            let policy = ForwardPolicy { read_timeout: Duration::from_secs(100 + change), ..ForwardPolicy::default() };
            delta.upserts.push(host(HOST, vec![route("/", forward("web", policy))]));
        }
        let published = proxy.publisher.publish(delta).await;
        assert!(published.took < Duration::from_secs(30), "{published:?}");
    }
    assert_eq!(proxy.publisher.version(), 501);
    let before = served.load(Ordering::Relaxed);
    eventually("requests after the last change", || async { served.load(Ordering::Relaxed) > before + 100 }).await;
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
}

#[tokio::test]
async fn a_change_is_in_force_for_the_next_request_when_publish_returns() {
    let (a, b) = (Origin::start("a"), Origin::start("b"));
    let proxy = TestProxy::to(&[&a]);
    let mut clients = Vec::new();
    for _ in 0..8 {
        let mut client = proxy.connect().await;
        assert_eq!(client.get(HOST, "/").await.echo().origin, "a");
        clients.push(client);
    }
    for origin in [&b, &a, &b] {
        proxy.publish([endpoints("web", &[origin.address()])]).await;
        for client in &mut clients {
            assert_eq!(client.get(HOST, "/").await.echo().origin, origin.name());
        }
    }
}

#[tokio::test]
async fn a_request_keeps_the_configuration_that_it_began_with() {
    let gate = Gate::new();
    let origin = Origin::new("a").reply(Reply::ok().body("done").held_by(&gate)).start();
    let proxy = TestProxy::to(&[&origin]);
    let mut client = proxy.connect().await;
    client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    gate.reached(1).await;
    let removal = |name: &str| {
        ResourceName::Host(fairway_model::HostKey {
            table: table(),
            pattern: fairway_model::HostPattern::parse(name).unwrap(),
        })
    };
    let gone = Delta {
        removals: vec![
            removal(HOST),
            ResourceName::Backend("default/web:80".into()),
            ResourceName::EndpointSet("default/web:80".into()),
        ],
        ..Delta::default()
    };
    assert_eq!(proxy.publisher.publish(gone).await.hosts, 0);
    gate.release();
    assert_eq!(client.read_response().await.text(), "done");
    assert_eq!(client.get(HOST, "/").await.status, 404);
}

#[tokio::test]
async fn listeners_come_and_go_and_connections_stay() {
    let origin = Origin::start("a");
    let proxy = TestProxy::to(&[&origin]);
    let mut old = proxy.connect().await;
    assert_eq!(old.get(HOST, "/").await.status, 200);
    let more = |address: &str| {
        fairway_model::Resource::from(Listener::new("more", address.parse().unwrap(), Scheme::Http, table()))
    };
    proxy.publish([more("127.0.0.1:0")]).await;
    let first = proxy.proxy.local_addresses()[&"more".into()];
    let mut client = Client::connect(first).await;
    assert_eq!(client.get(HOST, "/").await.status, 200);
    // Another address is another listener.
    proxy.publish([more("127.0.0.2:0")]).await;
    let second = proxy.proxy.local_addresses()[&"more".into()];
    assert_eq!(second.ip().to_string(), "127.0.0.2");
    assert!(Client::try_connect(first).await.is_err());
    assert_eq!(Client::connect(second).await.get(HOST, "/").await.status, 200);
    assert_eq!(client.get(HOST, "/").await.status, 200);
    // An address that is in use is reported, and everything else continues.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let published = proxy.publisher.publish(Delta::upsert([more(&taken.local_addr().unwrap().to_string())])).await;
    assert_eq!(published.refused.len(), 1);
    assert_eq!(old.get(HOST, "/").await.status, 200);
    drop(taken);
    let removed = Delta { removals: vec![ResourceName::Listener("http".into())], ..Delta::default() };
    proxy.publisher.publish(removed).await;
    assert!(Client::try_connect(proxy.http).await.is_err());
    assert_eq!(old.get(HOST, "/").await.status, 200);
}

#[tokio::test]
async fn a_port_answers_while_its_address_changes() {
    let origin = Origin::start("a");
    let proxy = TestProxy::to(&[&origin]);
    let port = proxy.http.port();
    let at = |address: [u8; 4]| {
        fairway_model::Resource::from(Listener::new("http", (address, port).into(), Scheme::Http, table()))
    };
    let elsewhere = ([127, 0, 0, 9], port).into();
    for address in [[0, 0, 0, 0], [127, 0, 0, 1], [0, 0, 0, 0], [127, 0, 0, 1]] {
        proxy.publish([at(address)]).await;
        assert_eq!(proxy.proxy.local_addresses()[&"http".into()], (address, port).into());
        assert_eq!(proxy.connect().await.get(HOST, "/").await.status, 200);
        assert_eq!(Client::try_connect(elsewhere).await.is_ok(), address == [0, 0, 0, 0]);
    }
    // Another process holds the new address: the old one stays open until the new one is free and something changes.
    let taken = std::net::TcpListener::bind(elsewhere).unwrap();
    assert_eq!(proxy.publisher.publish(Delta::upsert([at([0, 0, 0, 0])])).await.refused.len(), 1);
    assert_eq!(proxy.connect().await.get(HOST, "/").await.status, 200);
    drop(taken);
    proxy.publish([]).await;
    assert_eq!(Client::connect(elsewhere).await.get(HOST, "/").await.status, 200);
    // Two listeners of the proxy do not share an address.
    let mut second = at([127, 0, 0, 1]);
    if let fairway_model::Resource::Listener(listener) = &mut second {
        Arc::make_mut(listener).name = "second".into();
    }
    assert_eq!(proxy.publisher.publish(Delta::upsert([second])).await.refused.len(), 1);
}

#[tokio::test]
async fn a_taken_port_stops_the_start() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let resource = Listener::new("http", address, Scheme::Http, table());
    let start = |address| {
        let resource = Listener { address, ..resource.clone() };
        Proxy::start(Snapshot::default().apply(Delta::upsert([resource.into()])), config())
    };
    assert!(matches!(start(address), Err(StartError::Listen { address: told, .. }) if told == address));
    // A second proxy does not share the port of the first, although the sockets of one proxy share it.
    let first = start(([127, 0, 0, 1], 0).into()).unwrap();
    let address = first.local_addresses()[&"http".into()];
    assert!(matches!(start(address), Err(StartError::Listen { .. })));
    first.stop_now();
    start(address).unwrap();
    let admin = ProxyConfig { admin: Some(taken.local_addr().unwrap()), ..config() };
    assert!(matches!(Proxy::start(Snapshot::default(), admin), Err(StartError::Admin { .. })));
}

#[tokio::test]
async fn draining_lets_requests_finish_and_closes_the_rest() {
    let gate = Gate::new();
    let origin = Origin::new("a").start();
    let mut proxy = TestProxy::to(&[&origin]);
    let mut idle = proxy.connect().await;
    assert_eq!(idle.get(HOST, "/").await.status, 200);
    origin.set_reply(Reply::ok().body("done").held_by(&gate));
    let mut busy = proxy.connect().await;
    busy.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    gate.reached(1).await;
    let http = proxy.http;
    let draining = tokio::spawn(async move { proxy.proxy.drain(Duration::ZERO, Duration::from_secs(60)).await });
    assert_eq!(idle.ended().await, Ended::Closed);
    eventually("no more connections", || async { Client::try_connect(http).await.is_err() }).await;
    gate.release();
    let response = busy.read_response().await;
    assert_eq!((response.text().as_str(), response.header("connection")), ("done", Some("close")));
    busy.ended().await;
    assert_eq!(draining.await.unwrap(), Drained { cut: 0 });
}

/// The test decides when the grace period passes: draining has its own event loop, whose clock stands still.
#[test]
fn clients_are_told_to_go_elsewhere_before_their_connections_are_closed() {
    const GRACE: Duration = Duration::from_secs(60);
    const MOMENT: Duration = Duration::from_millis(10);
    let (mut network, mut clock) = (Builder::new_current_thread(), Builder::new_current_thread());
    let network = network.enable_all().build().unwrap();
    let clock = clock.enable_all().start_paused(true).build().unwrap();
    let (_origin, mut proxy, mut client, mut idle) = network.block_on(async {
        let origin = Origin::new("a").reply(Reply::ok().body("x")).start();
        let proxy = TestProxy::to(&[&origin]);
        let (client, mut idle) = (proxy.connect().await, proxy.connect().await);
        assert_eq!(idle.get(HOST, "/").await.status, 200);
        (origin, proxy, client, idle)
    });
    let (http, publisher) = (proxy.http, proxy.publisher.clone());
    let draining = clock.spawn(async move { proxy.proxy.drain(GRACE, GRACE).await });
    let pass = |time| clock.block_on(async move { sleep(time).await });
    pass(GRACE / 2 - MOMENT);
    network.block_on(async {
        let response = client.get(HOST, "/").await;
        assert_eq!((response.text().as_str(), response.header("connection")), ("x", None), "in the first half");
    });
    pass(2 * MOMENT);
    network.block_on(async {
        // When this is in effect, every worker has received the earlier messages.
        publisher.publish(Delta::default()).await;
        // Clients that have not noticed are still served, and so is one that waits.
        let mut late = Client::connect(http).await;
        for client in [&mut client, &mut late, &mut idle] {
            let response = client.get(HOST, "/").await;
            assert_eq!((response.text().as_str(), response.header("connection")), ("x", Some("close")));
            assert_eq!(client.ended().await, Ended::Closed);
        }
    });
    pass(GRACE / 2 - 2 * MOMENT);
    network.block_on(async {
        publisher.publish(Delta::default()).await;
        assert_eq!(Client::connect(http).await.get(HOST, "/").await.status, 200, "at the end of the second half");
    });
    assert!(!draining.is_finished());
    let drained = clock.block_on(async {
        tokio::time::resume();
        draining.await
    });
    assert_eq!(drained.unwrap(), Drained { cut: 0 });
}

#[tokio::test]
async fn tunnels_live_until_the_deadline_of_draining() {
    let reply = Reply::upgrade("websocket").header("Sec-WebSocket-Accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    let origin = Origin::new("a").reply(reply).start();
    let mut proxy = TestProxy::to(&[&origin]);
    let mut client = proxy.connect().await;
    client
        .send(format!(
            "GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n{KEY}\r\n\r\n"
        ))
        .await;
    client.read_head().await;
    let http = proxy.http;
    let draining = tokio::spawn(async move { proxy.proxy.drain(Duration::ZERO, Duration::from_secs(5)).await });
    eventually("no more connections", || async { Client::try_connect(http).await.is_err() }).await;
    client.send("alive").await;
    assert_eq!(client.read_exact(5).await, b"alive");
    client.drain().await;
    assert_eq!(draining.await.unwrap(), Drained { cut: 1 });
}

/// More than the event loop lets a task accept at a time.
const QUEUED: usize = 300;

#[tokio::test]
async fn connections_in_the_queue_of_a_draining_listener_are_served() {
    let gate = Gate::new();
    let origin = Origin::new("a").reply(Reply::ok().body("x").held_by(&gate)).start();
    let mut resources = support::forwarding(&[&origin], ForwardPolicy::default());
    // The only connection that the worker may have is busy: all others wait.
    resources.push(Settings { worker_connections: NonZeroU32::new(1), ..Settings::default() }.into());
    let config = ProxyConfig { workers: std::num::NonZeroUsize::new(1), ..config() };
    let mut proxy = TestProxy::start_with(resources, config);
    let mut busy = proxy.connect().await;
    busy.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    gate.reached(1).await;
    let mut queued = Vec::new();
    for _ in 0..QUEUED {
        let mut client = proxy.connect().await;
        client.send("GET / HTTP/1.1\r\nHost: unknown.example\r\n\r\n").await;
        queued.push(client);
    }
    assert_eq!(proxy.proxy.connections().await, 1);
    let draining = tokio::spawn(async move { proxy.proxy.drain(Duration::ZERO, Duration::from_secs(60)).await });
    for client in &mut queued {
        assert_eq!(client.read_response().await.status, 404);
    }
    gate.release();
    assert_eq!(busy.read_response().await.text(), "x");
    assert_eq!(draining.await.unwrap(), Drained { cut: 0 });
}

#[tokio::test]
async fn stopping_at_once_is_at_once() {
    let gate = Gate::new();
    let origin = Origin::new("a").reply(Reply::ok().held_by(&gate)).start();
    let proxy = TestProxy::to(&[&origin]);
    let mut client = proxy.connect().await;
    client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    gate.reached(1).await;
    let begun = Instant::now();
    proxy.proxy.stop_now();
    assert!(begun.elapsed() < Duration::from_secs(10));
    client.drain().await;
}

#[tokio::test]
async fn a_worker_takes_no_more_connections_than_it_may_and_idle_ones_make_room() {
    let gate = Gate::new();
    let origin = Origin::new("a").reply(Reply::ok().body("x").held_by(&gate)).start();
    let config = ProxyConfig { connections: 2, workers: std::num::NonZeroUsize::new(1), ..config() };
    let resources = support::forwarding(&[&origin], ForwardPolicy::default());
    let proxy = TestProxy::start_with(resources, config);
    let request = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let mut clients = Vec::new();
    for _ in 0..3 {
        let mut client = proxy.connect().await;
        client.send(&request).await;
        clients.push(client);
    }
    gate.reached(2).await;
    assert_eq!(proxy.proxy.connections().await, 2);
    assert_eq!(origin.connections(), 2, "the third waits in the queue of the kernel");
    gate.release();
    let mut third = clients.pop().unwrap();
    for client in &mut clients {
        assert_eq!(client.read_response().await.text(), "x");
    }
    // One of the two is idle now and makes room.
    assert_eq!(third.read_response().await.text(), "x");
    let [first, second] = &mut clients[..] else { unreachable!("two are left") };
    tokio::select! {
        _ = first.ended() => {}
        _ = second.ended() => {}
    }
}

#[tokio::test]
async fn every_worker_is_used_and_ipv6_is_served() {
    let origin = Origin::start("a");
    let mut resources = support::forwarding(&[&origin], ForwardPolicy::default());
    resources.push(Listener::new("six", "[::1]:0".parse().unwrap(), Scheme::Http, table()).into());
    resources.push(listener("another", Scheme::Http));
    let proxy = TestProxy::start(resources);
    assert_eq!(proxy.proxy.workers(), 2);
    let six = proxy.proxy.local_addresses()[&"six".into()];
    let echo = Client::connect(six).await.get(HOST, "/").await.echo();
    assert_eq!(echo.header("x-real-ip"), Some("::1"));
}

#[tokio::test]
async fn a_silent_tls_connection_does_not_hold_up_draining() {
    let origin = Origin::start("a");
    let mut proxy = TestProxy::to(&[&origin]);
    let mut client = Client::connect(proxy.https).await;
    assert_eq!(proxy.proxy.drain(Duration::ZERO, Duration::from_secs(60)).await, Drained { cut: 0 });
    assert_eq!(client.ended().await, Ended::Closed);
}

#[tokio::test]
async fn nothing_is_opened_while_draining() {
    let gate = Gate::new();
    let origin = Origin::new("a").reply(Reply::ok().body("done").held_by(&gate)).start();
    let mut proxy = TestProxy::to(&[&origin]);
    let mut busy = proxy.connect().await;
    busy.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    gate.reached(1).await;
    let (http, publisher) = (proxy.http, proxy.publisher.clone());
    let draining = tokio::spawn(async move { proxy.proxy.drain(Duration::ZERO, Duration::from_secs(60)).await });
    eventually("no more connections", || async { Client::try_connect(http).await.is_err() }).await;
    // An address of its own: no other test takes the port meanwhile.
    let free = std::net::TcpListener::bind("127.0.0.13:0").unwrap().local_addr().unwrap();
    let late = Listener::new("late", free, Scheme::Http, table());
    publisher.publish(Delta::upsert([fairway_model::Resource::from(late)])).await;
    assert!(Client::try_connect(free).await.is_err());
    gate.release();
    assert_eq!(busy.read_response().await.text(), "done");
    assert_eq!(draining.await.unwrap(), Drained { cut: 0 });
}

#[tokio::test]
async fn the_last_response_survives_a_pipeline_that_goes_on() {
    let origin = Origin::new("a").reply(Reply::ok().body("x")).start();
    let settings = Settings { keep_alive_requests: 2, ..Settings::default() };
    let proxy = TestProxy::with_settings(&[&origin], settings);
    let mut client = proxy.connect().await;
    // More than the proxy reads at once: unread data in the kernel would make it reset the connection.
    let requests = format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n").repeat(5000);
    client.send(requests).await;
    let (received, ended) = client.drain().await;
    let text = String::from_utf8_lossy(&received);
    assert_eq!((text.matches("HTTP/1.1 200").count(), ended), (2, Ended::Closed), "{text}");
}
