//! Upgrades: a tunnel only after a valid 101 for a protocol that the client asked for.

use std::time::Duration;

use crate::support;
use crate::support::{HOST, TestProxy};
use fairway_model::{
    Action, Affinity, AffinityMode, Backend, Filter, ForwardPolicy, HeadBuffers, SessionCookie, Settings,
};
use fairway_testkit::{Client, Ended, Origin, Reply, TlsClient, When};

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

fn request(fields: &str) -> String {
    format!(
        "GET /chat HTTP/1.1\r\nHost: {HOST}\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{fields}\r\n"
    )
}

fn agreeing() -> Reply {
    Reply::upgrade("websocket").header("Sec-WebSocket-Accept", ACCEPT).header("Sec-WebSocket-Protocol", "chat")
}

async fn opened(proxy: &TestProxy) -> Client {
    let mut client = proxy.connect().await;
    client.send(request("Sec-WebSocket-Protocol: chat\r\n")).await;
    let head = client.read_head().await;
    assert_eq!(head.start, "HTTP/1.1 101 Switching Protocols");
    for (name, value) in [
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-accept", ACCEPT),
        ("sec-websocket-protocol", "chat"),
    ] {
        assert_eq!(head.headers.get(name), Some(value), "{head:?}");
    }
    client
}

#[tokio::test]
async fn bytes_pass_both_ways_after_a_valid_101() {
    let origin = Origin::new("a").reply(agreeing()).start();
    let proxy = TestProxy::to(&[&origin]);
    let mut client = opened(&proxy).await;
    let request = origin.next_head().await;
    assert_eq!((request.header("connection"), request.header("upgrade")), (Some("upgrade"), Some("websocket")));
    assert_eq!(request.header("sec-websocket-key"), Some(KEY));
    for text in ["hello", "again", &"x".repeat(200_000)] {
        client.send(text).await;
        assert_eq!(client.read_exact(text.len()).await, text.as_bytes());
    }
    client.half_close().await;
    assert_eq!(client.ended().await, Ended::Closed);
}

#[tokio::test]
async fn bytes_sent_too_early_wait_for_the_101() {
    let origin = Origin::new("a").reply(agreeing()).start();
    let proxy = TestProxy::to(&[&origin]);
    let mut client = proxy.connect().await;
    client.send(request("") + "early").await;
    assert_eq!(client.read_head().await.status_text(), "101");
    assert_eq!(client.read_exact(5).await, b"early");
}

/// Sizes of heads around those of buffers, up to the largest that are accepted.
#[tokio::test]
async fn a_tunnel_opens_whatever_the_size_of_the_heads() {
    const SMALL: usize = 500;
    let head_buffers = HeadBuffers { line: 1 << 20, total: 1 << 20, ..HeadBuffers::default() };
    let origin = Origin::new("a").start();
    let proxy = TestProxy::with_settings(&[&origin], Settings { head_buffers, ..Settings::default() });
    let around = |edges: &[usize]| edges.iter().flat_map(|&edge| edge - 1..=edge + 1).collect::<Vec<_>>();
    let of_request = around(&[24 << 10, 32 << 10, 64 << 10, 256 << 10, (1 << 20) - 2]);
    let of_response = around(&[24 << 10, 32 << 10, 40 << 10, (64 << 10) - 2]);
    let tls = TlsClient::unverified(HOST);
    for (request_size, response_size) in of_request
        .into_iter()
        .map(|size| (size, SMALL))
        .chain(of_response.into_iter().map(|size| (SMALL, size)))
        .chain([(32 << 10, 40 << 10)])
    {
        let padding = "x".repeat(request_size - request("p: \r\n").len());
        let request = request(&format!("p: {padding}\r\n"));
        let switch = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: {ACCEPT}\r\np: "
        );
        let padding = "x".repeat(response_size - switch.len() - 4);
        origin.set_reply(Reply::raw(switch + &padding + "\r\n\r\n").then_echo_bytes());
        for mut client in [proxy.connect().await, tls.connect(proxy.https).await] {
            client.send(request.clone() + "early").await;
            assert_eq!(client.read_head().await.status_text(), "101", "{request_size}, {response_size}");
            assert_eq!(client.read_exact(5).await, b"early");
            let text = "y".repeat(100_000);
            client.send(&text).await;
            assert!(client.read_exact(text.len()).await == text.as_bytes(), "{request_size}, {response_size}");
            client.half_close().await;
            assert_eq!(client.ended().await, Ended::Closed);
        }
    }
}

#[tokio::test]
async fn what_is_no_valid_101_is_no_tunnel() {
    let origin = Origin::new("a").start();
    let proxy = TestProxy::to(&[&origin]);
    for (reply, status) in [
        (Reply::upgrade("websocket"), 502),
        (Reply::upgrade("websocket").header("Sec-WebSocket-Accept", "AAAAAAAAAAAAAAAAAAAAAAAAAAA="), 502),
        (Reply::upgrade("h2c").header("Sec-WebSocket-Accept", ACCEPT), 502),
        (Reply::status(101).header("Sec-WebSocket-Accept", ACCEPT), 502),
        (Reply::status(426).header("Upgrade", "h2c").body("no"), 426),
        (Reply::ok().body("no"), 200),
    ] {
        origin.set_reply(reply.clone());
        let mut client = proxy.connect().await;
        let smuggled = format!("GET /admin HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
        client.send(request("") + &smuggled).await;
        let response = client.read_response().await;
        assert_eq!(response.status, status, "{reply:?}");
        if status != 502 {
            assert_eq!(response.header("connection"), Some("close"));
            assert_eq!(client.ended().await, Ended::Closed, "{reply:?}");
        }
    }
}

#[tokio::test]
async fn http_and_tls_are_never_asked_for() {
    let origin = Origin::start("a");
    let proxy = TestProxy::to(&[&origin]);
    let mut client = proxy.connect().await;
    for fields in [
        "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n",
        "Connection: Upgrade\r\nUpgrade: HTTP/2.0\r\n",
        "Connection: Upgrade\r\nUpgrade: TLS/1.0\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: spdy/3.1\r\n",
        "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
    ] {
        client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n")).await;
        let echo = client.read_response().await.echo();
        for gone in ["upgrade", "connection", "http2-settings"] {
            assert!(!echo.headers.has(gone), "{fields}: {echo:?}");
        }
    }
}

#[tokio::test]
async fn what_websocket_demands_of_a_request_is_for_the_endpoint_to_judge() {
    let origin = Origin::start("a");
    let proxy = TestProxy::to(&[&origin]);
    for fields in [
        "Sec-WebSocket-Version: 12\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
        "Sec-WebSocket-Version: 13\r\n",
        "",
    ] {
        let mut client = proxy.connect().await;
        let upgrade = "Connection: Upgrade\r\nUpgrade: WebSocket\r\n";
        client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{upgrade}{fields}\r\n")).await;
        let echo = client.read_response().await.echo();
        assert_eq!(echo.header("upgrade"), Some("WebSocket"), "{echo:?}");
        assert_eq!(client.ended().await, Ended::Closed, "the client may have sent more, in another protocol");
    }
}

/// `kubectl exec` by SPDY, `docker exec`, and unknown protocols.
#[tokio::test]
async fn any_other_protocol_becomes_a_tunnel() {
    let origin = Origin::start("a");
    let proxy = TestProxy::to(&[&origin]);
    for (asked, agreed, body) in [
        ("SPDY/3.1", "SPDY/3.1", ""),
        ("tcp", "tcp", "{\"Detach\":false}"),
        ("acme-control-protocol", "Acme-Control-Protocol", ""),
        ("one, two/2", "two/2", ""),
    ] {
        for chunked in [false, true] {
            origin.set_reply(Reply::upgrade(agreed));
            let mut client = proxy.connect().await;
            let framed = if chunked {
                let chunk = if body.is_empty() { String::new() } else { format!("{:x}\r\n{body}\r\n", body.len()) };
                format!("Transfer-Encoding: chunked\r\n\r\n{chunk}0\r\n\r\n")
            } else {
                format!("Content-Length: {}\r\n\r\n{body}", body.len())
            };
            client
                .send(format!(
                    "POST / HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\nUpgrade: {asked}\r\n{framed}early"
                ))
                .await;
            let head = client.read_head().await;
            assert_eq!((head.status_text(), head.headers.get("upgrade")), ("101", Some(agreed)));
            assert_eq!(client.read_exact(5).await, b"early");
            let request = origin.next_request().await;
            assert_eq!((request.head.headers.get("upgrade"), &*request.body), (Some(asked), body.as_bytes()));
        }
    }
}

#[tokio::test]
async fn a_tunnel_is_for_what_was_asked_and_never_begins_inside_a_body() {
    let origin = Origin::new("a").when(When::Head).start();
    let proxy = TestProxy::to(&[&origin]);
    let post = |fields: &str| format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nConnection: Upgrade\r\n{fields}\r\n");
    for (request, agreed) in [
        (post("Upgrade: tcp\r\n"), "udp"),
        (post("Upgrade: tcp\r\n"), "h2c"),
        (post("Upgrade: tcp, udp\r\n"), "tcp, udp"),
        (post("Upgrade: h2c\r\n"), "h2c"),
        (post("Upgrade: tcp\r\nContent-Length: 5\r\n") + "hell", "tcp"),
        (post("Upgrade: tcp\r\nTransfer-Encoding: chunked\r\n") + "5\r\nhello\r\n", "tcp"),
    ] {
        origin.set_reply(Reply::upgrade(agreed));
        let mut client = proxy.connect().await;
        client.send(&request).await;
        assert_eq!(client.read_response().await.status, 502, "{request}");
    }
}

#[tokio::test]
async fn a_101_is_edited_as_any_response() {
    let reply = agreeing().header("Server", "secret").header("X-Hidden", "x").header("Content-Length", "0");
    let origin = Origin::new("a").reply(reply).start();
    let cookie = SessionCookie {
        name: "ROUTE".into(),
        expires: None,
        max_age: None,
        domain: None,
        secure: false,
        same_site: None,
        conditional_same_site_none: false,
    };
    let affinity = Affinity { mode: AffinityMode::Balanced, cookie, change_on_failure: false };
    let backend = Backend { affinity: Some(affinity), ..support::backend_alone("web") };
    let mut action = support::forward("web", ForwardPolicy::default());
    if let Action::Forward(forward) = &mut action {
        forward.session_cookie_path = Some("/".into());
    }
    let route = support::filtered(support::route("/", action), vec![Filter::StrictTransportSecurity]);
    let settings = Settings {
        response_fields: vec![fairway_model::FieldEdit::set("X-Added", "y").expect("a name")],
        hidden_response_fields: vec!["X-Hidden".into()],
        ..Settings::default()
    };
    let proxy = TestProxy::start([
        backend.into(),
        support::endpoints("web", &[origin.address()]),
        support::host(HOST, vec![route]),
        settings.into(),
    ]);
    let mut client = TlsClient::unverified(HOST).connect(proxy.https).await;
    client.send(request("")).await;
    let head = client.read_head().await;
    assert_eq!(head.status_text(), "101");
    assert_eq!(
        (head.headers.get("x-added"), head.headers.get("x-hidden"), head.headers.get("server")),
        (Some("y"), None, None)
    );
    assert!(head.headers.get("set-cookie").is_some_and(|cookie| cookie.starts_with("ROUTE=")), "{head:?}");
    assert!(head.headers.get("strict-transport-security").is_some(), "{head:?}");
    let framing = ["connection", "upgrade", "content-length", "transfer-encoding"].map(|name| head.headers.get(name));
    assert_eq!(framing, [Some("upgrade"), Some("websocket"), None, None]);
    client.send("still a tunnel").await;
    assert_eq!(client.read_exact(14).await, b"still a tunnel");
}

#[tokio::test]
async fn a_silent_tunnel_ends_and_one_that_talks_does_not() {
    let origin = Origin::new("a").reply(agreeing()).start();
    let policy = ForwardPolicy { read_timeout: Duration::from_millis(200), ..ForwardPolicy::default() };
    let proxy = TestProxy::with_policy(&[&origin], policy);
    let mut client = opened(&proxy).await;
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_millis(500) {
        client.send("x").await;
        client.read_exact(1).await;
    }
    client.drain().await;
    origin.ended(1).await;
}

#[tokio::test]
async fn either_end_of_a_tunnel_ends_it() {
    let origin = Origin::new("a").reply(agreeing()).start();
    let proxy = TestProxy::to(&[&origin]);
    let client = opened(&proxy).await;
    client.reset();
    origin.ended(1).await;
    let mut client = opened(&proxy).await;
    origin.reset_connections();
    client.drain().await;
}

#[tokio::test]
async fn a_tunnel_outlives_every_change() {
    let origin = Origin::new("a").reply(agreeing()).start();
    let proxy = TestProxy::to(&[&origin]);
    let mut client = opened(&proxy).await;
    proxy.publish([Settings { keep_alive: None, ..Settings::default() }.into(), support::endpoints("web", &[])]).await;
    client.send("still").await;
    assert_eq!(client.read_exact(5).await, b"still");
}

trait StatusText {
    fn status_text(&self) -> &str;
}

impl StatusText for fairway_testkit::Head {
    fn status_text(&self) -> &str {
        self.start.split(' ').nth(1).unwrap_or_default()
    }
}
