//! Every wait has an end, and each end has its documented response. Settings are short here and tests never sleep: they wait for
//! what must follow.

use std::num::NonZeroUsize;
use std::time::Duration;

use crate::support::{HOST, TestProxy, backend, config, forward, forwarding, host, route};
use fairway_model::{ForwardPolicy, Retry, RetryOn, Settings};
use fairway_proxy::ProxyConfig;
use fairway_testkit::{Client, Ended, Fault, Gate, Origin, Reply, TlsClient, When, eventually};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const SHORT: Duration = Duration::from_millis(60);

fn one_try() -> Retry {
    Retry { on: RetryOn::default(), ..Retry::default() }
}

fn settings(change: impl FnOnce(&mut Settings)) -> Settings {
    let mut settings = Settings::default();
    change(&mut settings);
    settings
}

#[tokio::test]
async fn a_head_that_trickles_is_answered_408_and_silence_is_closed_silently() {
    let proxy = TestProxy::with_settings(&[], settings(|s| s.header_timeout = SHORT));
    let mut slow = proxy.connect().await;
    slow.send("GET / HTTP/1.1\r\nHost: a\r\n").await;
    let response = slow.read_response().await;
    assert_eq!((response.status, response.header("connection")), (408, Some("close")));
    let mut silent = proxy.connect().await;
    assert_eq!(silent.ended().await, Ended::Closed);
    let mut empty = proxy.connect().await;
    empty.send("\r\n").await;
    assert_eq!(empty.ended().await, Ended::Closed);
}

#[tokio::test]
async fn the_time_for_a_head_is_a_total() {
    let proxy = TestProxy::with_settings(&[], settings(|s| s.header_timeout = Duration::from_millis(200)));
    let mut slow = proxy.connect().await;
    slow.send("GET / HTTP/1.1\r\nHost: a\r\n").await;
    let mut sent = 0;
    // One more byte whenever there is time: a byte doesn't move the deadline.
    while slow.unread().is_empty() && !slow.is_closed().await {
        if slow.try_send("x").await.is_err() {
            break;
        }
        sent += 1;
        tokio::task::yield_now().await;
    }
    assert!(sent > 0);
}

#[tokio::test]
async fn an_idle_connection_is_closed() {
    let origin = Origin::start("a");
    let proxy = TestProxy::with_settings(&[&origin], settings(|s| s.keep_alive = Some(SHORT)));
    let mut client = proxy.connect().await;
    assert_eq!(client.get(HOST, "/").await.status, 200);
    assert_eq!(client.ended().await, Ended::Closed);
    eventually("no connection is left", || async { proxy.proxy.connections().await == 0 }).await;
}

#[tokio::test]
async fn an_idle_connection_to_a_backend_is_closed() {
    let origin = Origin::start("a");
    let proxy = TestProxy::with_settings(&[&origin], settings(|s| s.upstream_keepalive.idle = SHORT));
    let mut client = proxy.connect().await;
    assert_eq!(client.get(HOST, "/").await.status, 200);
    assert_eq!(origin.ended(1).await, Ended::Closed);
}

#[tokio::test]
async fn a_body_that_stops_is_answered_408() {
    let origin = Origin::start("a");
    let proxy = TestProxy::with_settings(&[&origin], settings(|s| s.body_timeout = SHORT));
    let mut client = proxy.connect().await;
    client.send(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 10\r\n\r\nhello")).await;
    let response = client.read_response().await;
    assert_eq!((response.status, response.header("connection")), (408, Some("close")));
    origin.idle().await;
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn a_backend_that_does_not_answer_is_504() {
    let silent = Origin::new("a").fault(Fault::Silent).start();
    let policy = ForwardPolicy { read_timeout: SHORT, retry: one_try(), ..ForwardPolicy::default() };
    let proxy = TestProxy::with_policy(&[&silent], policy);
    let mut client = proxy.connect().await;
    assert_eq!(client.get(HOST, "/").await.status, 504);
    assert_eq!(silent.ended(1).await, Ended::Closed, "the connection is not kept");
    assert_eq!(client.get(HOST, "/").await.status, 504, "the client's connection is");
}

#[tokio::test]
async fn a_backend_that_cannot_be_connected_to_in_time_is_504() {
    let far = Origin::new("a").fault(Fault::Unreachable).start();
    let policy = ForwardPolicy { connect_timeout: SHORT, retry: one_try(), ..ForwardPolicy::default() };
    let proxy = TestProxy::with_policy(&[&far], policy);
    assert_eq!(proxy.connect().await.get(HOST, "/").await.status, 504);
}

/// The worker's clock decides which of two waits ends first, however slow the machine is.
#[tokio::test]
async fn a_connect_timeout_is_no_longer_than_it_says() {
    let far = Origin::new("far").fault(Fault::Unreachable).start();
    let silent = Origin::new("silent").fault(Fault::Silent).start();
    let policy = |connect, read| ForwardPolicy {
        connect_timeout: Duration::from_millis(connect),
        read_timeout: Duration::from_millis(read),
        retry: one_try(),
        ..ForwardPolicy::default()
    };
    let mut resources = backend("far", &[far.address()]);
    resources.extend(backend("silent", &[silent.address()]));
    resources.push(host("far.example", vec![route("/", forward("far", policy(2000, 60_000)))]));
    resources.push(host("silent.example", vec![route("/", forward("silent", policy(60_000, 2300)))]));
    let proxy = TestProxy::start_with(resources, ProxyConfig { workers: NonZeroUsize::new(1), ..config() });
    let mut connecting = proxy.connect().await;
    assert_eq!(connecting.get("unknown.example", "/").await.status, 404);
    let mut reading = proxy.connect().await;
    connecting.send("GET / HTTP/1.1\r\nHost: far.example\r\n\r\n").await;
    // There is one worker, so this request gets its turn after the first.
    assert_eq!(proxy.connect().await.get("unknown.example", "/").await.status, 404);
    reading.send("GET / HTTP/1.1\r\nHost: silent.example\r\n\r\n").await;
    let first = tokio::select! {
        biased;
        response = connecting.read_response() => response,
        _ = reading.read_response() => panic!("15 % more time was over first"),
    };
    assert_eq!(first.status, 504);
    assert_eq!(reading.read_response().await.status, 504);
}

#[tokio::test]
async fn a_backend_that_takes_nothing_is_504() {
    let deaf = Origin::new("a").fault(Fault::Deaf).start();
    let policy = ForwardPolicy {
        send_timeout: SHORT,
        retry: one_try(),
        max_body: fairway_model::ByteLimit::NONE,
        ..ForwardPolicy::default()
    };
    let proxy = TestProxy::with_policy(&[&deaf], policy);
    let mut client = proxy.connect().await;
    client.send(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 100000000\r\n\r\n")).await;
    let piece = vec![b'x'; 1 << 16];
    while client.try_send(&piece).await.is_ok() && !client.is_closed().await && client.unread().is_empty() {}
    assert!(client.drain().await.0.starts_with(b"HTTP/1.1 504 "));
}

#[tokio::test]
async fn a_response_that_stops_is_cut() {
    let gate = Gate::new();
    let origin = Origin::new("a").reply(Reply::ok().chunked(["one", "two"]).body_held_by(&gate)).start();
    let policy = ForwardPolicy { read_timeout: SHORT, ..ForwardPolicy::default() };
    let proxy = TestProxy::with_policy(&[&origin], policy);
    let mut client = proxy.connect().await;
    client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    gate.release_one();
    assert!(client.try_read_response().await.is_err());
    origin.idle().await;
}

#[tokio::test]
async fn a_gap_is_no_total() {
    let gate = Gate::new();
    let origin = Origin::new("a").reply(Reply::ok().chunked(["a"; 8]).body_held_by(&gate)).start();
    let policy = ForwardPolicy { read_timeout: Duration::from_millis(300), ..ForwardPolicy::default() };
    let proxy = TestProxy::with_policy(&[&origin], policy);
    let mut client = proxy.connect().await;
    client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    client.read_head().await;
    let begun = std::time::Instant::now();
    let opener = tokio::spawn(async move {
        let mut pause = tokio::time::interval(Duration::from_millis(100));
        for _ in 0..9 {
            pause.tick().await;
            gate.release_one();
        }
    });
    client.read_until("0\r\n\r\n").await;
    assert!(begun.elapsed() > Duration::from_millis(600));
    opener.await.unwrap();
}

#[tokio::test]
async fn a_client_that_goes_away_frees_the_backend() {
    let gate = Gate::new();
    let origin = Origin::new("a").reply(Reply::ok().held_by(&gate)).start();
    let proxy = TestProxy::to(&[&origin]);
    let tls = TlsClient::unverified(HOST);
    for half_closed in [false, true] {
        for mut client in [proxy.connect().await, tls.connect(proxy.https).await] {
            client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
            let number = origin.next_connection().await;
            origin.next_head().await;
            if half_closed {
                client.half_close().await;
            }
            client.reset();
            origin.ended(number).await;
        }
    }
    eventually("no connection is left", || async { proxy.proxy.connections().await == 0 }).await;
}

#[tokio::test]
async fn a_client_that_is_gone_is_noticed_by_what_it_does_not_take() {
    let gate = Gate::new();
    let origin = Origin::new("a").reply(Reply::ok().chunked(["one", "two", "three"]).body_held_by(&gate)).start();
    let proxy = TestProxy::to(&[&origin]);
    let mut client = proxy.connect().await;
    client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    client.read_head().await;
    drop(client);
    gate.release_one();
    assert_eq!(origin.ended(1).await, Ended::Closed, "with two chunks to come");
}

#[tokio::test]
async fn a_client_that_ends_its_side_is_answered() {
    let gate = Gate::new();
    let origin = Origin::new("a").reply_with({
        let gate = gate.clone();
        move |request| Reply::ok().body(request.target.clone()).held_by(&gate)
    });
    let origin = origin.start();
    let proxy = TestProxy::to(&[&origin]);
    let tls = TlsClient::unverified(HOST);
    let request = |target: &str| format!("PUT {target} HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 4\r\n\r\nbody");
    for at_once in [true, false] {
        for mut client in [proxy.connect().await, tls.connect(proxy.https).await] {
            client.send(request("/first") + &request("/second")).await;
            if !at_once {
                origin.next_head().await;
            }
            client.half_close().await;
            if at_once {
                origin.next_head().await;
            }
            for (target, connection) in [("/first", None), ("/second", Some("close"))] {
                gate.release_one();
                let response = client.read_response().await;
                assert_eq!((response.status, response.text().as_str()), (200, target));
                assert!(connection.is_none() || response.header("connection") == connection, "{response:?}");
            }
            origin.next_head().await;
            assert_eq!(client.ended().await, Ended::Closed);
        }
    }
}

#[tokio::test]
async fn a_client_that_stops_in_the_middle_of_its_body_frees_the_backend() {
    let origin = Origin::new("a").when(When::Complete).start();
    let proxy = TestProxy::to(&[&origin]);
    let mut client = proxy.connect().await;
    client.send(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 10\r\n\r\nhello")).await;
    origin.has_received(1, "hello").await;
    drop(client);
    origin.ended(1).await;
    assert_eq!(origin.requests(), 0);
}

#[tokio::test]
async fn a_handshake_that_does_not_come_is_closed() {
    let mut resources = forwarding(&[], ForwardPolicy::default());
    resources.push(settings(|s| s.header_timeout = SHORT).into());
    let proxy = TestProxy::start(resources);
    let mut silent = Client::connect(proxy.https).await;
    assert_eq!(silent.ended().await, Ended::Closed);
    let mut partial = Client::connect(proxy.https).await;
    partial.send(b"\x16\x03\x01\x02\x00\x01\x00").await;
    partial.ended().await;
}

/// An endpoint that sends the head of its response byte by byte, without ever being silent for long.
async fn dripping() -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: 0\r\nx: {}\r\n\r\n", "x".repeat(60));
                for byte in head.bytes() {
                    if stream.write_all(&[byte]).await.is_err() {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                let _ = stream.read(&mut [0; 1]).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn a_response_head_that_drips_is_late_where_the_limit_is_for_all_of_it() {
    let address = dripping().await;
    for (whole_head, response_within, expected) in
        [(false, None, 200), (true, None, 504), (true, Some(Duration::from_millis(400)), 504)]
    {
        let policy = ForwardPolicy {
            read_timeout: Duration::from_millis(400),
            whole_head,
            response_within,
            retry: one_try(),
            ..ForwardPolicy::default()
        };
        let mut resources = backend("web", &[address]);
        resources.push(host(HOST, vec![route("/", forward("web", policy))]));
        let proxy = TestProxy::start(resources);
        let begin = std::time::Instant::now();
        let response = proxy.connect().await.get(HOST, "/").await;
        assert_eq!(response.status, expected, "{whole_head} {response_within:?}");
        assert!(expected == 200 || begin.elapsed() >= Duration::from_millis(400));
    }
}
