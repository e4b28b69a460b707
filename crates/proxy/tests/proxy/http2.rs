//! HTTP/2 from clients, to endpoints that speak HTTP/1.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::http2::{
    ACK, DATA, END_HEADERS, END_STREAM, Frame, Frames, GOAWAY, H2, HEADERS, PING, RST_STREAM, body_of, get, head, post,
    reason, request, whole,
};
use crate::support::log::{Lines, logging};
use crate::support::{HOST, TestProxy, backend, config, forward, forwarding, host, route};
use bytes::Bytes;
use fairway_model::{CodingRules, ForwardPolicy, Http2Settings, Settings};
use fairway_proxy::{ProxyConfig, UnreachableSink};
use fairway_testkit::{Ca, Client, Ended, Fault, Gate, Origin, Reply, TlsClient, When, eventually, within};
use h2::Reason;
use http::{HeaderMap, HeaderValue};

#[tokio::test]
async fn requests_are_forwarded_as_http_1_and_logged() {
    let lines = Lines::default();
    let origin = Origin::start("a");
    let format = "$request|$status|$server_protocol|$http_host|$http_cookie|$connection_requests|$body_bytes_sent";
    let proxy = TestProxy::start_with(forwarding(&[&origin], ForwardPolicy::default()), logging(&lines, format));
    let client = H2::connect(proxy.http).await;
    let mut asked = get("/a?b=c");
    asked.headers_mut().append("cookie", HeaderValue::from_static("a=1"));
    asked.headers_mut().append("cookie", HeaderValue::from_static("b=2"));
    let (response, _) = client.ready().await.send_request(asked, true).expect("a request");
    let response = whole(within("a response", response).await.expect("a response")).await;
    assert_eq!((response.status, response.field("content-type")), (200, Some("application/json")));
    assert!(response.field("date").is_some() && response.field("connection").is_none());
    let seen = origin.next_request().await;
    assert_eq!(seen.head.start, "GET /a?b=c HTTP/1.1");
    assert_eq!((seen.header("host"), seen.header("cookie")), (Some(HOST), Some("a=1; b=2")));
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
    let missing = client.get("/x").await;
    assert_eq!(missing.status, 200);
    let lines = lines.after(2).await;
    assert_eq!(lines[0], format!("GET /a?b=c HTTP/2.0|200|HTTP/2.0|{HOST}|a=1; b=2|1|{}", response.body.len()));
}

#[tokio::test]
async fn bodies_pass_both_ways_with_and_without_a_length() {
    let origin = Origin::start("a");
    let proxy = TestProxy::to(&[&origin]);
    let client = H2::connect(proxy.http).await;
    let body = Bytes::from(vec![b'x'; 1 << 20]);
    for length in [true, false] {
        let mut asked = post("/");
        if length {
            asked.headers_mut().insert("content-length", HeaderValue::from(body.len()));
        }
        let (response, mut send) = client.ready().await.send_request(asked, false).expect("a request");
        send.send_data(body.clone(), true).expect("a body");
        let response = whole(within("a response", response).await.expect("a response")).await;
        assert_eq!(response.status, 200);
        let seen = origin.next_request().await;
        assert_eq!(seen.body.len(), body.len());
        assert_eq!(seen.header("content-length"), Some(&*body.len().to_string()));
    }
    for reply in
        [Reply::ok().body(&body), Reply::ok().chunked([&body[..], b"", b"end"]), Reply::ok().close_delimited(&body)]
    {
        origin.set_reply(reply);
        let response = client.get("/").await;
        assert!(response.body.len() >= body.len() && response.field("transfer-encoding").is_none());
    }
    origin.set_reply(Reply::status(204));
    assert_eq!(client.get("/").await.status, 204);
}

#[tokio::test]
async fn a_head_request_has_the_length_and_no_body() {
    let origin = Origin::new("a").reply(Reply::ok().body("12345")).start();
    let proxy = TestProxy::to(&[&origin]);
    let client = H2::connect(proxy.http).await;
    let (response, _) = client.ready().await.send_request(request("HEAD", "/"), true).expect("a request");
    let response = whole(within("a response", response).await.expect("a response")).await;
    assert_eq!((response.status, response.field("content-length"), response.body.len()), (200, Some("5"), 0));
}

#[tokio::test]
async fn own_answers_are_complete() {
    let proxy = TestProxy::to(&[]);
    let client = H2::connect(proxy.http).await;
    let response = client.get("/").await;
    assert_eq!((response.status, response.field("content-type")), (503, Some("text/html")));
    assert_eq!(response.field("content-length"), Some(&*response.body.len().to_string()));
    assert!(response.text().contains("503 Service"));
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let origin = Origin::new("a").reply(Reply::ok().chunked(["body"]).trailer("X-Sum", "1")).start();
    let proxy = TestProxy::to(&[&origin]);
    let client = H2::connect(proxy.http).await;
    let (response, mut send) = client.ready().await.send_request(post("/"), false).expect("a request");
    send.send_data("data".into(), false).expect("data");
    let mut trailers = HeaderMap::new();
    trailers.insert("x-check", HeaderValue::from_static("2"));
    trailers.insert("content-length", HeaderValue::from_static("9"));
    send.send_trailers(trailers).expect("trailers");
    let response = whole(within("a response", response).await.expect("a response")).await;
    assert_eq!(response.trailers.expect("trailers").get("x-sum"), Some(&HeaderValue::from_static("1")));
    let received = String::from_utf8(origin.received().concat()).expect("text");
    assert!(received.ends_with("4\r\ndata\r\n0\r\nx-check: 2\r\n\r\n"), "{received}");
}

#[tokio::test]
async fn interim_responses_reach_the_client() {
    let origin =
        Origin::new("a").reply(Reply::ok().interim(103, &[("Link", "</a.css>; rel=preload")]).body("x")).start();
    let proxy = TestProxy::to(&[&origin]);
    let client = H2::connect(proxy.http).await;
    let (mut response, _) = client.ready().await.send_request(get("/"), true).expect("a request");
    let early = within("an interim response", std::future::poll_fn(|cx| response.poll_informational(cx))).await;
    let early = early.expect("an interim response").expect("an interim response");
    assert_eq!(early.status(), 103);
    assert_eq!(early.headers().get("link"), Some(&HeaderValue::from_static("</a.css>; rel=preload")));
    assert_eq!(whole(within("a response", response).await.expect("a response")).await.text(), "x");
}

#[tokio::test]
async fn a_client_that_waits_for_permission_gets_it() {
    let origin = Origin::start("a");
    let proxy = TestProxy::to(&[&origin]);
    let client = H2::connect(proxy.http).await;
    let mut asked = post("/");
    asked.headers_mut().insert("expect", HeaderValue::from_static("100-continue"));
    let (mut response, mut send) = client.ready().await.send_request(asked, false).expect("a request");
    let early = within("permission", std::future::poll_fn(|cx| response.poll_informational(cx))).await;
    assert_eq!(early.expect("permission").expect("permission").status(), 100);
    send.send_data("data".into(), true).expect("data");
    assert_eq!(whole(within("a response", response).await.expect("a response")).await.status, 200);
    assert_eq!(origin.next_request().await.body, b"data");
}

#[tokio::test]
async fn a_stream_that_waits_delays_no_other() {
    let gate = Gate::new();
    let held = gate.clone();
    let big = vec![b'x'; 1 << 20];
    let origin = Origin::new("a")
        .reply_with(move |request| match &*request.target {
            "/held" => Reply::ok().held_by(&held).body("late"),
            "/big" => Reply::ok().body(&big),
            _ => Reply::ok().body("x"),
        })
        .start();
    let proxy = TestProxy::to(&[&origin]);
    // Unread data takes up the window of its stream, and of the connection.
    let client = H2::connect_with(proxy.http, h2::client::Builder::new().initial_connection_window_size(1 << 20)).await;
    // One whose endpoint waits, one whose response is not read, one whose body does not arrive.
    let (late, _) = client.ready().await.send_request(get("/held"), true).expect("a request");
    let (unread, _) = client.ready().await.send_request(get("/big"), true).expect("a request");
    let unread = within("a head", unread).await.expect("a head");
    let (_endless, _send) = client.ready().await.send_request(post("/"), false).expect("a request");
    gate.reached(1).await;
    for _ in 0..20 {
        assert_eq!(client.get("/").await.text(), "x");
    }
    gate.release();
    assert_eq!(whole(within("a response", late).await.expect("a response")).await.text(), "late");
    assert_eq!(whole(unread).await.body.len(), 1 << 20);
}

/// A slow endpoint lets its client send a window of data and what our buffers and those of the kernel hold, but not megabytes.
#[tokio::test]
async fn an_endpoint_that_reads_nothing_stops_its_client() {
    let origin = Origin::new("a").fault(Fault::Deaf).start();
    let proxy = TestProxy::to(&[&origin]);
    let client = H2::connect(proxy.http).await;
    let (_response, mut send) = client.ready().await.send_request(post("/"), false).expect("a request");
    let mut sent = 0;
    send.reserve_capacity(64 << 20);
    while let Ok(Some(Ok(room))) =
        tokio::time::timeout(Duration::from_millis(200), std::future::poll_fn(|cx| send.poll_capacity(cx))).await
    {
        send.send_data(vec![b'x'; room].into(), false).expect("data");
        send.reserve_capacity(64 << 20);
        sent += room;
        assert!(sent < 32 << 20, "the client was never stopped");
    }
    assert!(sent >= 64 << 10);
}

#[tokio::test]
async fn a_reset_cancels_the_request() {
    let lines = Lines::default();
    let gate = Gate::new();
    let origin = Origin::new("a").replies([Reply::ok().held_by(&gate), Reply::ok().body("next")]).start();
    let resources = forwarding(&[&origin], ForwardPolicy::default());
    let proxy = TestProxy::start_with(resources, logging(&lines, "$status $failure_reason $upstream_status"));
    let client = H2::connect(proxy.http).await;
    let (response, mut send) = client.ready().await.send_request(get("/"), true).expect("a request");
    gate.reached(1).await;
    send.send_reset(Reason::CANCEL);
    assert_eq!(lines.after(1).await, ["499 client_gone 499"]);
    origin.ended(1).await;
    drop(response);
    // What served it serves the next one on the connection, which finds nothing of it.
    let next = client.get("/next").await;
    assert_eq!((next.status, &*next.body), (200, &b"next"[..]));
    assert_eq!(lines.after(2).await[1], "200 - 200");
}

#[tokio::test]
async fn a_response_that_is_cut_is_reset() {
    let origin = Origin::new("a").reply(Reply::ok().claiming_length(10).then_close()).start();
    let proxy = TestProxy::to(&[&origin]);
    let client = H2::connect(proxy.http).await;
    origin.set_reply(Reply::ok().chunked(["abc", "def"]).cut_body_after(6).then_close());
    let (response, _) = client.ready().await.send_request(get("/"), true).expect("a request");
    let response = within("a head", response).await;
    let cut = match response {
        Ok(response) => body_of(&mut response.into_body()).await.map(drop),
        Err(error) => Err(error),
    };
    assert_eq!(reason(cut), Reason::INTERNAL_ERROR);
}

#[tokio::test]
async fn streams_above_the_limit_are_refused() {
    let gate = Gate::new();
    let origin = Origin::new("a").reply(Reply::ok().held_by(&gate)).start();
    let http2 = Http2Settings { streams: 2.try_into().expect("2"), ..Http2Settings::default() };
    let proxy = TestProxy::with_settings(&[&origin], Settings { http2, ..Settings::default() });
    let mut client = Frames::connect(proxy.http).await;
    for stream in [1, 3, 5] {
        client.ask(stream, head(&[])).await;
    }
    let refused = client.next_of(&[RST_STREAM]).await;
    assert_eq!((refused.stream, refused.code()), (5, Reason::REFUSED_STREAM));
    gate.reached(2).await;
    gate.release();
    assert_eq!(client.next_of(&[HEADERS]).await.payload[0], 0x88);
}

#[tokio::test]
async fn it_is_offered_over_tls_unless_it_is_turned_off() {
    let ca = Ca::new("root");
    let origin = Origin::new("a").reply(Reply::ok().body("x")).start();
    let proxy = TestProxy::to(&[&origin]);
    let client = TlsClient::unverified(HOST).alpn(&["h2", "http/1.1"]).connect(proxy.https).await;
    assert_eq!(client.tls().alpn.as_deref(), Some("h2"));
    let mut client = Frames::on(client).await;
    client.ask(1, head(&[])).await;
    assert_eq!(client.next_of(&[HEADERS]).await.payload[0], 0x88);
    assert_eq!(client.next_of(&[DATA]).await.payload, b"x");
    let http2 = Http2Settings { offered: false, ..Http2Settings::default() };
    proxy.publish([Settings { http2, ..Settings::default() }.into()]).await;
    let client = TlsClient::unverified(HOST).alpn(&["h2", "http/1.1"]).connect(proxy.https).await;
    assert_eq!(client.tls().alpn.as_deref(), Some("http/1.1"));
    let mut client = Client::connect(proxy.http).await;
    client.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert_eq!(client.read_response().await.status, 505);
    drop(ca);
}

#[tokio::test]
async fn a_preface_in_pieces_is_one() {
    let origin = Origin::new("a").reply(Reply::ok().body("x")).start();
    let proxy = TestProxy::to(&[&origin]);
    let mut client = proxy.connect().await;
    for piece in ["P", "RI * HTTP/2.0\r\n", "\r\nSM\r\n"] {
        client.send(piece).await;
        tokio::task::yield_now().await;
    }
    client.send("\r\n").await;
    client.send(Frame::new(4, 0, 0, []).bytes()).await;
    let mut client = Frames(client);
    client.ask(1, head(&[])).await;
    assert_eq!(client.next_of(&[HEADERS]).await.payload[0], 0x88);
}

#[tokio::test]
async fn the_last_request_of_a_connection_is_announced() {
    let origin = Origin::new("a").reply(Reply::ok().body("x")).start();
    let proxy = TestProxy::with_settings(&[&origin], Settings { keep_alive_requests: 2, ..Settings::default() });
    let mut client = Frames::connect(proxy.http).await;
    client.ask(1, head(&[])).await;
    client.next_of(&[DATA]).await;
    client.ask(3, head(&[])).await;
    // Some clients take the announcement for a failure of their requests: it follows the last response.
    assert_eq!(client.next_of(&[DATA, GOAWAY]).await.kind, DATA);
    let first = client.next_of(&[GOAWAY]).await;
    assert_eq!((first.last_stream(), first.code()), (0x7fff_ffff, Reason::NO_ERROR));
    // A request that crossed the announcement is served.
    client.ask(5, head(&[])).await;
    let ping = client.next_of(&[PING]).await;
    client.send(Frame::new(PING, ACK, 0, ping.payload)).await;
    let last = client.next_of(&[GOAWAY]).await;
    assert_eq!((last.last_stream(), last.code()), (5, Reason::NO_ERROR));
    assert_eq!(client.0.drain().await.1, Ended::Closed);
}

/// Some clients take the announcement for a failure of their download, and the others need it only if they ask for more.
#[tokio::test]
async fn a_download_delays_the_announcement_longer_than_streams_that_follow_each_other() {
    let gate = Gate::new();
    let origin = Origin::new("a").reply(Reply::ok().body("x").held_by(&gate)).start();
    let shutdown_timeout = Duration::from_secs(4);
    let settings = Settings { keep_alive_requests: 1, shutdown_timeout, ..Settings::default() };
    let proxy = TestProxy::with_settings(&[&origin], settings);
    let begun = Instant::now();
    let (mut one, mut two) = (Frames::connect(proxy.http).await, Frames::connect(proxy.http).await);
    one.ask(1, head(&[])).await;
    two.ask(1, head(&[])).await;
    gate.reached(2).await;
    two.ask(3, head(&[])).await;
    let told = async |mut client: Frames| {
        assert_eq!(client.next_of(&[HEADERS, GOAWAY]).await.kind, GOAWAY);
        begun.elapsed()
    };
    let (of_one, of_two) = tokio::join!(told(one), told(two));
    assert!(of_one >= shutdown_timeout / 2, "{of_one:?}");
    assert!(of_two + shutdown_timeout / 8 < of_one, "{of_two:?} and {of_one:?}");
}

#[tokio::test]
async fn responses_are_compressed() {
    let origin =
        Origin::new("a").reply(Reply::ok().header("Content-Type", "text/html").body("x".repeat(100_000))).start();
    let mut settings = Settings::default();
    settings.compression.gzip = Some(CodingRules { level: 1, min_length: 20, types: Vec::new(), disabled_for: None });
    let proxy = TestProxy::with_settings(&[&origin], settings);
    let client = H2::connect(proxy.http).await;
    let mut asked = get("/");
    asked.headers_mut().insert("accept-encoding", HeaderValue::from_static("gzip"));
    let (response, _) = client.ready().await.send_request(asked, true).expect("a request");
    let response = whole(within("a response", response).await.expect("a response")).await;
    assert_eq!((response.field("content-encoding"), response.field("content-length")), (Some("gzip"), None));
    assert!(response.body.starts_with(b"\x1f\x8b") && response.body.len() < 10_000);
}

#[tokio::test]
async fn an_idle_connection_is_told_and_closed() {
    let origin = Origin::new("a").reply(Reply::ok().body("x")).start();
    let settings = Settings { keep_alive: Some(Duration::from_millis(60)), ..Settings::default() };
    let proxy = TestProxy::with_settings(&[&origin], settings);
    let client = H2::connect(proxy.http).await;
    assert_eq!(client.get("/").await.text(), "x");
    assert!(client.ended().await.is_ok());
}

#[tokio::test]
async fn a_proxy_that_drains_lets_streams_end() {
    let gate = Gate::new();
    let origin = Origin::new("a").reply(Reply::ok().held_by(&gate).body("late")).start();
    let mut proxy = TestProxy::to(&[&origin]);
    let client = H2::connect(proxy.http).await;
    let idle = H2::connect(proxy.http).await;
    let (late, _) = client.ready().await.send_request(get("/"), true).expect("a request");
    gate.reached(1).await;
    let drained = tokio::spawn(async move { proxy.proxy.drain(Duration::ZERO, Duration::from_secs(30)).await });
    assert!(idle.ended().await.is_ok());
    gate.release();
    assert_eq!(whole(within("a response", late).await.expect("a response")).await.text(), "late");
    assert!(client.ended().await.is_ok());
    within("the end of the drain", drained).await.expect("no panic");
}

#[tokio::test]
async fn a_websocket_opens_over_a_stream() {
    let lines = Lines::default();
    let origin = Origin::new("a")
        .reply_with(|request| {
            let key = request.header("sec-websocket-key").expect("a key");
            Reply::upgrade("websocket").header("Sec-WebSocket-Accept", accept(key)).then_echo_bytes()
        })
        .start();
    let resources = forwarding(&[&origin], ForwardPolicy::default());
    let proxy = TestProxy::start_with(resources, logging(&lines, "$status $upstream_status $server_protocol"));
    let client = H2::connect(proxy.http).await;
    let mut requests = client.ready().await;
    eventually("the setting", || async { requests.is_extended_connect_protocol_enabled() }).await;
    let mut asked = request("CONNECT", "/chat");
    asked.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
    asked.headers_mut().insert("sec-websocket-version", HeaderValue::from_static("13"));
    let (response, mut send) = requests.send_request(asked, false).expect("a request");
    let response = within("a response", response).await.expect("a response");
    assert_eq!(response.status(), 200);
    assert!(response.headers().get("sec-websocket-accept").is_none());
    let seen = origin.next_head().await;
    assert_eq!(seen.head.start, "GET /chat HTTP/1.1");
    assert_eq!((seen.header("upgrade"), seen.header("connection")), (Some("websocket"), Some("upgrade")));
    let mut body = response.into_body();
    for text in ["hello", "again"] {
        send.send_data(text.into(), false).expect("data");
        assert_eq!(within("an echo", body.data()).await.expect("data").expect("data"), text.as_bytes());
    }
    send.send_data("".into(), true).expect("the end");
    assert!(body_of(&mut body).await.expect("the end").is_empty());
    assert_eq!(lines.after(1).await, ["200 101 HTTP/2.0"]);
}

/// A client that asked for a protocol takes any 2xx as agreement.
#[tokio::test]
async fn a_websocket_opens_only_after_a_101() {
    let origin = Origin::new("a").reply(Reply::ok().body("hello")).start();
    let proxy = TestProxy::to(&[&origin]);
    let client = H2::connect(proxy.http).await;
    let mut requests = client.ready().await;
    eventually("the setting", || async { requests.is_extended_connect_protocol_enabled() }).await;
    let asked = || {
        let mut asked = request("CONNECT", "/chat");
        asked.extensions_mut().insert(h2::ext::Protocol::from_static("websocket"));
        asked
    };
    let (response, _send) = requests.send_request(asked(), false).expect("a request");
    assert_eq!(within("a response", response).await.expect("a response").status(), 502);
    origin.set_reply(Reply::status(404).body("no"));
    let mut requests = client.ready().await;
    let (response, _send) = requests.send_request(asked(), false).expect("a request");
    assert_eq!(within("a response", response).await.expect("a response").status(), 404);
}

#[tokio::test]
async fn an_endpoint_may_answer_before_it_has_the_whole_request() {
    let origin = Origin::new("a").when(When::Head).reply(Reply::status(403).body("no").then_close()).start();
    let proxy = TestProxy::to(&[&origin]);
    let mut client = Frames::connect(proxy.http).await;
    client.send(Frame::new(HEADERS, END_HEADERS, 1, head(&[("content-length", "60000")]))).await;
    client.send(Frame::new(DATA, 0, 1, vec![b'x'; 1000])).await;
    let answer = client.next_of(&[HEADERS]).await;
    assert_eq!(answer.flags & END_STREAM, 0);
    // It has the whole answer, and what it still sends is read.
    while client.next_of(&[DATA]).await.flags & END_STREAM == 0 {}
    for _ in 0..3 {
        client.send(Frame::new(DATA, 0, 1, vec![b'x'; 15_000])).await;
    }
    client.send(Frame::new(DATA, END_STREAM, 1, vec![b'x'; 14_000])).await;
    client.ask(3, head(&[])).await;
    let next = client.next_of(&[HEADERS, RST_STREAM, GOAWAY]).await;
    assert_eq!((next.kind, next.stream), (HEADERS, 3));
}

/// The value with which an endpoint proves that it speaks WebSocket (RFC 6455 4.2.2).
fn accept(key: &str) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let input = format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY, input.as_bytes());
    let mut text = String::new();
    for group in hash.as_ref().chunks(3) {
        let bits = group.iter().fold(0u32, |bits, &byte| bits << 8 | u32::from(byte)) << (8 * (3 - group.len()));
        for at in 0..=group.len() {
            text.push(char::from(DIGITS[(bits >> (18 - 6 * at)) as usize & 63]));
        }
    }
    text + "="
}

/// The sink for unreachable backends is called while a request ends, so a test can make that request panic.
#[tokio::test]
async fn a_panic_in_a_request_ends_that_request_and_no_other() {
    for over_http2 in [true, false] {
        let (gate, panics) = (Gate::new(), Arc::new(AtomicUsize::new(0)));
        let (up, down) = (Origin::start("up"), Origin::new("down").fault(Fault::Refuse).start());
        let mut resources = forwarding(&[&up], ForwardPolicy::default());
        resources.extend(backend("down", &[down.address()]));
        resources.push(host("down.example", vec![route("/", forward("down", ForwardPolicy::default()))]));
        let count = panics.clone();
        let unreachable = UnreachableSink::new(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
            panic!("wanted by a test");
        });
        let config = ProxyConfig { unreachable, workers: NonZeroUsize::new(1), ..config() };
        let proxy = TestProxy::start_with(resources, config);
        let (streams, mut kept) = (H2::connect(proxy.http).await, proxy.connect().await);
        assert_eq!(kept.get(HOST, "/").await.status, 200);
        up.set_reply(Reply::ok().held_by(&gate));
        let (held, _) = streams.ready().await.send_request(get("/"), true).expect("a request");
        gate.reached(1).await;
        if over_http2 {
            let asked = http::Request::get("http://down.example/").body(()).expect("a request");
            let (lost, _) = streams.ready().await.send_request(asked, true).expect("a request");
            // The response may be on its way already.
            drop(within("the end of the stream", lost).await);
        } else {
            let mut lost = proxy.connect().await;
            lost.send("GET / HTTP/1.1\r\nHost: down.example\r\n\r\n").await;
            drop(lost.try_read_response().await);
            within("the end of the connection", lost.ended()).await;
        }
        eventually("the panic", async || panics.load(Ordering::SeqCst) == 1).await;
        gate.release();
        assert_eq!(within("the other stream", held).await.expect("a response").status(), 200);
        assert_eq!(streams.get("/").await.status, 200, "the connection goes on");
        assert_eq!(kept.get(HOST, "/").await.status, 200, "and so does the worker");
        eventually("two connections", async || proxy.proxy.connections().await == 2).await;
    }
}
