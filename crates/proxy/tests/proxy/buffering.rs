//! Request bodies that are read before an endpoint is chosen, and responses that are read ahead of their clients.

use std::time::Duration;

use std::num::{NonZeroU64, NonZeroUsize};

use crate::support;
use crate::support::h2_origin::{Call, H2Origin};
use crate::support::http2::{H2, get, post, whole};
use crate::support::{HOST, TestProxy, backend, forward, forwarding, host, route};
use bytes::Bytes;
use fairway_model::{Bandwidth, ByteLimit, ForwardPolicy, RequestBuffering, UpstreamProtocol};
use fairway_proxy::ProxyConfig;
use fairway_testkit::{Client, Ended, Origin, Reply, eventually, within};
use http::{HeaderMap, HeaderValue, Response};

/// Long enough for a proxy that streams to show it.
const A_WHILE: Duration = Duration::from_millis(100);

fn policy(request_buffering: RequestBuffering) -> ForwardPolicy {
    ForwardPolicy { request_buffering, max_body: ByteLimit::NONE, ..ForwardPolicy::default() }
}

fn head(more: &str) -> String {
    format!("PUT / HTTP/1.1\r\nHost: {HOST}\r\n{more}\r\n")
}

/// A body in the chunked coding, without its last chunk.
fn chunks(length: usize) -> Vec<u8> {
    let mut body = Vec::new();
    for at in (0..length).step_by(50_000) {
        let size = 50_000.min(length - at);
        body.extend_from_slice(format!("{size:x};ext=1\r\n").as_bytes());
        body.resize(body.len() + size, b'a' + (at / 50_000 % 26) as u8);
        body.extend_from_slice(b"\r\n");
    }
    body
}

fn plain(length: usize) -> Vec<u8> {
    (0..length).map(|at| b'a' + (at / 50_000 % 26) as u8).collect()
}

async fn nothing_arrives(origin: &Origin) {
    tokio::time::sleep(A_WHILE).await;
    assert_eq!(origin.connections(), 0);
}

#[tokio::test]
async fn a_body_of_unknown_length_gets_one() {
    let origin = Origin::start("a");
    let proxy = TestProxy::with_policy(&[&origin], policy(RequestBuffering::Unmeasured));
    for length in [0, 1, 40_000, 300_000, 3_000_000] {
        let before = origin.connections();
        let mut client = proxy.connect().await;
        client.send(head("Transfer-Encoding: chunked\r\n")).await;
        client.send(chunks(length)).await;
        tokio::time::sleep(A_WHILE / 10).await;
        assert_eq!(origin.connections(), before, "the endpoint waits for all of it");
        // The next request follows at once.
        client.send(format!("0\r\n\r\nGET /next HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n")).await;
        let seen = origin.next_request().await;
        assert_eq!(seen.header("content-length"), Some(&*length.to_string()));
        assert_eq!(seen.header("transfer-encoding"), None);
        assert!(seen.body == plain(length), "{} of {length} bytes", seen.body.len());
        assert_eq!(client.read_response().await.status, 200);
        assert_eq!(client.read_response().await.status, 200);
        assert_eq!(origin.next_request().await.head.start, "GET /next HTTP/1.1");
        origin.close_connections();
    }
}

#[tokio::test]
async fn the_same_over_http_2() {
    let origin = Origin::start("a");
    let proxy = TestProxy::with_policy(&[&origin], policy(RequestBuffering::Unmeasured));
    let client = H2::connect(proxy.http).await;
    let (response, mut send) = client.ready().await.send_request(post("/"), false).expect("a request");
    send.send_data(Bytes::from(plain(1_000_000)), false).expect("data");
    nothing_arrives(&origin).await;
    send.send_data(Bytes::new(), true).expect("the end");
    assert_eq!(whole(within("a response", response).await.expect("a response")).await.status, 200);
    let seen = origin.next_request().await;
    assert_eq!((seen.header("content-length"), seen.header("transfer-encoding")), (Some("1000000"), None));
    assert!(seen.body == plain(1_000_000));
}

#[tokio::test]
async fn trailers_keep_the_chunks() {
    let origin = Origin::start("a");
    let proxy = TestProxy::with_policy(&[&origin], policy(RequestBuffering::All));
    let mut client = proxy.connect().await;
    client.send(head("Transfer-Encoding: chunked\r\n")).await;
    client.send("3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n").await;
    assert_eq!(client.read_response().await.status, 200);
    let client = H2::connect(proxy.http).await;
    let (response, mut send) = client.ready().await.send_request(post("/"), false).expect("a request");
    send.send_data("abc".into(), false).expect("data");
    send.send_trailers(HeaderMap::from_iter([("x-sum".parse().unwrap(), HeaderValue::from_static("1"))]))
        .expect("sent");
    assert_eq!(whole(within("a response", response).await.expect("a response")).await.status, 200);
    for _ in 0..2 {
        let seen = origin.next_request().await;
        assert_eq!((&*seen.body, seen.header("transfer-encoding")), (&b"abc"[..], Some("chunked")));
    }
    let received = String::from_utf8(origin.received().concat()).expect("text").to_ascii_lowercase();
    assert_eq!(received.matches("3\r\nabc\r\n0\r\nx-sum: 1\r\n\r\n").count(), 2, "{received}");
}

#[tokio::test]
async fn a_body_that_is_too_long_to_hold_is_streamed() {
    let origin = Origin::start("a");
    let proxy = TestProxy::with_policy(&[&origin], policy(RequestBuffering::All));
    let length = 9 << 20;
    let mut client = proxy.connect().await;
    client.send(head("Transfer-Encoding: chunked\r\n")).await;
    client.send(chunks(length)).await;
    let seen = origin.next_head().await;
    assert_eq!((seen.header("content-length"), seen.header("transfer-encoding")), (None, Some("chunked")));
    client.send("0\r\n\r\n").await;
    assert_eq!(client.read_response().await.status, 200);
    assert!(origin.next_request().await.body == plain(length));
    // A body that announces such a length is not read ahead at all.
    client.send(head(&format!("Content-Length: {length}\r\n"))).await;
    assert_eq!(origin.next_head().await.header("content-length"), Some(&*length.to_string()));
}

#[tokio::test]
async fn with_all_bodies_held_another_endpoint_gets_the_same() {
    let (broken, origin) = (Origin::new("broken").reply(Reply::nothing().then_reset()).start(), Origin::start("a"));
    let proxy = TestProxy::with_policy(&[&broken, &origin], policy(RequestBuffering::All));
    for framing in ["Content-Length: 1000000\r\n", "Transfer-Encoding: chunked\r\n"] {
        // Whichever is first.
        for _ in 0..2 {
            let mut client = proxy.connect().await;
            client.send(head(framing)).await;
            if framing.starts_with('C') {
                client.send(plain(1_000_000)).await;
            } else {
                client.send([chunks(1_000_000), b"0\r\n\r\n".to_vec()].concat()).await;
            }
            assert_eq!(client.read_response().await.status, 200);
            assert!(origin.next_request().await.body == plain(1_000_000));
        }
    }
    assert!(broken.connections() > 0);
}

#[tokio::test]
async fn only_where_it_is_wanted() {
    for (buffering, framing) in [
        (RequestBuffering::Off, "Transfer-Encoding: chunked\r\n"),
        (RequestBuffering::Unmeasured, "Content-Length: 100\r\n"),
    ] {
        let origin = Origin::start("a");
        let proxy = TestProxy::with_policy(&[&origin], policy(buffering));
        let mut client = proxy.connect().await;
        client.send(head(framing)).await;
        client.send("1\r\na\r\n").await;
        let seen = origin.next_head().await;
        assert_eq!(seen.header("transfer-encoding").is_some(), framing.starts_with('T'));
    }
    let origin = Origin::start("a");
    let proxy = TestProxy::with_policy(&[&origin], policy(RequestBuffering::All));
    let mut client = proxy.connect().await;
    client.send(head("Content-Length: 100\r\n")).await;
    client.send(plain(99)).await;
    nothing_arrives(&origin).await;
    client.send("a").await;
    assert_eq!(client.read_response().await.status, 200);
}

#[tokio::test]
async fn nothing_of_a_bad_body_reaches_an_endpoint() {
    let origin = Origin::start("a");
    let limited = ForwardPolicy { max_body: ByteLimit::of(100), ..policy(RequestBuffering::Unmeasured) };
    let proxy = TestProxy::with_policy(&[&origin], limited);
    for (body, status) in [
        ("3\r\nabcd\r\n0\r\n\r\n".to_owned(), 400),
        ("3\r\nabc\r\n0\r\nX: 1\n\r\n".to_owned(), 400),
        ("3\nabc\r\n0\r\n\r\n".to_owned(), 400),
        (format!("65\r\n{}", "a".repeat(0x65)), 413),
    ] {
        let mut client = proxy.connect().await;
        client.send(head("Transfer-Encoding: chunked\r\n")).await;
        client.send(&body).await;
        assert_eq!(client.read_response().await.status, status, "{body}");
    }
    let mut client = proxy.connect().await;
    client.send(head("Transfer-Encoding: chunked\r\n")).await;
    client.send("3\r\nab").await;
    client.half_close().await;
    client.ended().await;
    assert_eq!(origin.connections(), 0);
}

#[tokio::test]
async fn a_client_that_asks_for_permission_gets_it_at_once() {
    let origin = Origin::start("a");
    let proxy = TestProxy::with_policy(&[&origin], policy(RequestBuffering::All));
    let mut client = Client::connect(proxy.http).await;
    client.send(head("Content-Length: 3\r\nExpect: 100-continue\r\n")).await;
    assert_eq!(client.read_until("\r\n\r\n").await, b"HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(origin.connections(), 0);
    client.send("abc").await;
    assert_eq!(client.read_response().await.status, 200);
    assert_eq!(origin.next_request().await.body, b"abc");
}

/// Less than may wait for a client, and more than a window of HTTP/2 and the buffers of a response that is streamed.
const LONG: usize = 3_000_000;

fn buffered(response_buffer: Option<u32>) -> ForwardPolicy {
    ForwardPolicy { response_buffer, ..ForwardPolicy::default() }
}

/// A response after which the proxy closes the connection, once it has all of it.
fn last() -> Reply {
    Reply::ok().header("Connection", "close")
}

/// A client that reads no more than its window of the response before it is asked to.
async fn ask_and_wait(proxy: &TestProxy) -> (H2, Response<h2::RecvStream>) {
    let client = H2::connect(proxy.http).await;
    let (response, _) = client.ready().await.send_request(get("/"), true).expect("a request");
    let response = within("a response", response).await.expect("a response");
    (client, response)
}

async fn endpoint_is_free(origin: &Origin) {
    eventually("the endpoint is needed no more", || async { origin.requests() > 0 && origin.open_connections() == 0 })
        .await;
}

#[tokio::test]
async fn an_endpoint_is_free_while_its_client_waits() {
    let body = plain(LONG);
    for reply in [
        last().body(&body),
        last().chunked(body.chunks(70_001)),
        last().chunked(body.chunks(70_001)).trailer("X-Sum", "1"),
        last().close_delimited(&body),
    ] {
        let origin = Origin::new("a").reply(reply).start();
        let proxy = TestProxy::with_policy(&[&origin], buffered(Some(4 << 20)));
        let (_client, response) = ask_and_wait(&proxy).await;
        endpoint_is_free(&origin).await;
        assert!(whole(response).await.body == body);

        let mut client = Client::builder().receive_buffer(4096).connect(proxy.http).await;
        client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
        eventually("the second request", || async { origin.requests() == 2 }).await;
        endpoint_is_free(&origin).await;
        assert!(client.read_response().await.body == body);
    }
}

#[tokio::test]
async fn without_buffers_the_endpoint_waits_with_its_client() {
    let refused = last().header("X-Accel-Buffering", "no").body(plain(LONG));
    for (reply, policy) in [
        (last().body(plain(LONG)), buffered(None)),
        (last().body(plain(LONG)), buffered(Some(64 << 10))),
        (refused, buffered(Some(4 << 20))),
    ] {
        let origin = Origin::new("a").reply(reply).start();
        let proxy = TestProxy::with_policy(&[&origin], policy);
        let (_client, response) = ask_and_wait(&proxy).await;
        tokio::time::sleep(A_WHILE).await;
        assert_eq!(origin.open_connections(), 1);
        assert_eq!(response.headers().get("x-accel-buffering"), None);
        assert!(whole(response).await.body == plain(LONG));
        endpoint_is_free(&origin).await;
    }
}

#[tokio::test]
async fn a_connection_is_used_again_before_its_client_has_the_response() {
    let origin = Origin::new("a").reply(Reply::ok().body(plain(LONG))).start();
    let admin = Some(([127, 0, 0, 1], 0).into());
    let config = ProxyConfig { workers: NonZeroUsize::new(1), admin, ..support::config() };
    let proxy = TestProxy::start_with(forwarding(&[&origin], buffered(Some(4 << 20))), config);
    let admin = proxy.proxy.admin_address().expect("an admin listener");
    let (_client, response) = ask_and_wait(&proxy).await;
    Box::pin(eventually("an idle connection", || {
        Box::pin(async {
            let text = Client::connect(admin).await.get("a", "/metrics").await.text();
            text.lines().any(|line| line.starts_with("fairway_upstream_connections_idle") && line.ends_with(" 1"))
        })
    }))
    .await;
    origin.set_reply(Reply::ok().body("second"));
    assert_eq!(proxy.connect().await.get(HOST, "/").await.body, b"second");
    assert_eq!(origin.connections(), 1);
    assert!(whole(response).await.body == plain(LONG));
}

#[tokio::test]
async fn what_was_received_before_a_failure_arrives() {
    let origin = Origin::new("a").reply(last().body(plain(LONG)).cut_body_after(2_500_000).then_close()).start();
    let proxy = TestProxy::with_policy(&[&origin], buffered(Some(4 << 20)));
    let mut client = Client::builder().receive_buffer(4096).connect(proxy.http).await;
    client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    endpoint_is_free(&origin).await;
    client.read_head().await;
    let (body, ended) = client.drain().await;
    assert_eq!((body.len(), ended), (2_500_000, Ended::Closed));
}

#[tokio::test]
async fn a_limited_bandwidth_keeps_no_endpoint() {
    let origin = Origin::new("a").reply(last().body(plain(LONG))).start();
    let bandwidth = Some(Bandwidth { rate: NonZeroU64::new(1000).expect("a rate"), after: 0 });
    let proxy = TestProxy::with_policy(&[&origin], ForwardPolicy { bandwidth, ..buffered(Some(4 << 20)) });
    let mut client = proxy.connect().await;
    client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    endpoint_is_free(&origin).await;
    assert!(client.read_head().await.start.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn all_responses_together_have_a_limit() {
    let body = plain(4_000_000);
    let origin = Origin::new("a").reply(last().body(&body)).start();
    let config = ProxyConfig { workers: NonZeroUsize::new(1), ..support::config() };
    let proxy = TestProxy::start_with(forwarding(&[&origin], buffered(Some(4 << 20))), config);
    let mut waiting = Vec::new();
    for _ in 0..7 {
        waiting.push(ask_and_wait(&proxy).await);
    }
    tokio::time::sleep(A_WHILE).await;
    // 16 MiB hold four of them.
    assert!(origin.open_connections() >= 3, "{}", origin.open_connections());
    for (_, response) in waiting {
        assert!(whole(response).await.body == body);
    }
    endpoint_is_free(&origin).await;
}

#[tokio::test]
async fn responses_over_http_2_are_buffered_too() {
    let origin = H2Origin::start(|call: Call| async move {
        call.answer(Response::new(()), &String::from_utf8(plain(LONG)).expect("text"));
    })
    .await;
    let policy = ForwardPolicy { protocol: UpstreamProtocol::Http2, ..buffered(Some(4 << 20)) };
    let mut resources = backend("web", &[origin.address]);
    resources.push(host(HOST, vec![route("/", forward("web", policy))]));
    let proxy = TestProxy::start(resources);
    let (_client, response) = ask_and_wait(&proxy).await;
    let mut client = Client::builder().receive_buffer(4096).connect(proxy.http).await;
    client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    tokio::time::sleep(A_WHILE).await;
    assert!(whole(response).await.body == plain(LONG));
    assert!(client.read_response().await.body == plain(LONG));
}
