//! Hostile requests through the real proxy: the response, and that no part of the request reaches a backend.

use crate::support::{HOST, TestProxy};
use fairway_model::{ForwardPolicy, Settings};
use fairway_testkit::{Client, Ended, Origin, Reply};

/// Sends bytes on a new connection, and reads all that comes back.
async fn answer(proxy: &TestProxy, bytes: impl AsRef<[u8]>) -> (u16, String) {
    let mut client = proxy.connect().await;
    // The proxy may close before it has read everything.
    let _ = client.try_send(bytes).await;
    client.half_close().await;
    let (received, _) = client.drain().await;
    let text = String::from_utf8_lossy(&received).into_owned();
    let status = text.get(9..12).and_then(|digits| digits.parse().ok()).unwrap_or(0);
    assert_eq!(text.matches("HTTP/1.1 ").count(), usize::from(status != 0), "one answer: {text}");
    (status, text)
}

fn get(fields: &str) -> String {
    format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n")
}

fn post(fields: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n{body}")
}

#[tokio::test]
async fn ambiguous_framing_is_refused_and_reaches_no_backend() {
    let origin = Origin::start("a");
    let proxy = TestProxy::to(&[&origin]);
    let smuggled = "GET /admin HTTP/1.1\r\nHost: a\r\n\r\n";
    let chunked = format!("0\r\n\r\n{smuggled}");
    for (expected, fields) in [
        (400, "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        (400, "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
        (400, "Transfer-Encoding: chunked, identity\r\n"),
        (400, "Transfer-Encoding: xchunked\r\n"),
        (400, "Transfer-Encoding : chunked\r\n"),
        (400, "Transfer-Encoding:\x0bchunked\r\n"),
        (400, "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        (400, "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n"),
        (400, "X: y\r\n Transfer-Encoding: chunked\r\n"),
        (501, "Transfer-Encoding: gzip\r\n"),
        (400, "Content-Length: 5\r\nContent-Length: 5\r\n"),
        (400, "Content-Length: 5\r\nContent-Length: 6\r\n"),
        (400, "Content-Length: +5\r\n"),
        (400, "Content-Length: 0x5\r\n"),
        (400, "Content-Length: 5,5\r\n"),
        (400, "Content-Length: \r\n"),
        (400, "Content-Length: 9223372036854775808\r\n"),
        (417, "Expect: 200-ok\r\nContent-Length: 5\r\n"),
    ] {
        let (status, text) = answer(&proxy, post(fields, &chunked)).await;
        assert_eq!(status, expected, "{fields:?}: {text}");
        assert!(text.contains("Connection: close"), "{text}");
    }
    assert_eq!(origin.connections(), 0, "{origin:?}");
}

#[tokio::test]
async fn malformed_chunks_end_the_connection_and_nothing_behind_them_is_a_request() {
    let origin = Origin::start("a");
    let proxy = TestProxy::to(&[&origin]);
    let smuggled = "GET /admin HTTP/1.1\r\nHost: app.example\r\n\r\n";
    for body in [
        "5\nhello\r\n0\r\n\r\n".to_owned(),
        "5\r\nhelloX0\r\n\r\n".to_owned(),
        "ffffffffffffffff1\r\nhello\r\n0\r\n\r\n".to_owned(),
        "8000000000000000\r\nhello\r\n0\r\n\r\n".to_owned(),
        "-5\r\nhello\r\n0\r\n\r\n".to_owned(),
        "0x5\r\nhello\r\n0\r\n\r\n".to_owned(),
        format!("5;{}\r\nhello\r\n0\r\n\r\n", "e".repeat(300)),
        "1;a\r\nx\r\n".repeat(10_000),
        "0\r\nX: y\n\r\n".to_owned(),
        "0\r\n X: y\r\n\r\n".to_owned(),
        format!("0\r\nX: {}\r\n\r\n", "y".repeat(9000)),
    ] {
        let (status, text) = answer(&proxy, post("Transfer-Encoding: chunked\r\n", &format!("{body}{smuggled}"))).await;
        assert_eq!(status, 400, "{:?}: {text}", &body[..body.len().min(40)]);
    }
    for request in origin.seen() {
        assert_ne!(request.target, "/admin", "{request:?}");
    }
    assert_eq!(origin.requests(), 0, "no request came to its end: {origin:?}");
}

#[tokio::test]
async fn unread_bodies_are_never_read_as_requests() {
    let origin = Origin::start("a");
    let proxy = TestProxy::to(&[&origin]);
    let smuggled = format!("GET /admin HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    // Every method may have a body, whose length is given by the message.
    for method in ["GET", "HEAD", "DELETE", "OPTIONS", "PROPFIND"] {
        let request = format!(
            "{method} /x HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{smuggled}",
            smuggled.len()
        );
        answer(&proxy, request).await;
        let seen = origin.next_request().await;
        assert_eq!((seen.target.as_str(), seen.body.len()), ("/x", smuggled.len()), "{method}");
    }
    // A response of the proxy itself while the body is arriving, complete or not.
    for length in [smuggled.len(), smuggled.len() + 10] {
        let request = format!("GET /x HTTP/1.1\r\nHost: unknown\r\nContent-Length: {length}\r\n\r\n{smuggled}");
        assert_eq!(answer(&proxy, request).await.0, 404);
    }
    assert!(origin.seen().iter().all(|request| request.target == "/x"), "{origin:?}");
}

#[tokio::test]
async fn hosts_that_are_in_doubt_are_refused() {
    let origin = Origin::start("a");
    let proxy = TestProxy::to(&[&origin]);
    for (head, expected) in [
        ("GET / HTTP/1.1\r\n\r\n".to_owned(), 400),
        (format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nHost: {HOST}\r\n\r\n"), 400),
        ("GET / HTTP/1.1\r\nHost: user@app.example\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: app.example:80x\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: app.example, b\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nHost: app..example\r\n\r\n".to_owned(), 400),
        (format!("GET http://user@{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\n\r\n"), 400),
        (format!("GET ftp://{HOST}/ HTTP/1.1\r\nHost: {HOST}\r\n\r\n"), 400),
        ("GET / HTTP/1.0\r\n\r\n".to_owned(), 404),
    ] {
        assert_eq!(answer(&proxy, &head).await.0, expected, "{head}");
    }
    assert_eq!(origin.connections(), 0);
    // An absolute target takes precedence, and the backend sees one host.
    let mut client = proxy.connect().await;
    client.send(format!("GET http://{HOST}/x HTTP/1.1\r\nHost: other.example\r\n\r\n")).await;
    let echo = client.read_response().await.echo();
    assert_eq!((echo.target.as_str(), echo.headers.all("host")), ("/x", vec![HOST]));
}

#[tokio::test]
async fn request_lines_are_refused_as_documented() {
    let origin = Origin::start("a");
    let proxy = TestProxy::to(&[&origin]);
    let host = format!("Host: {HOST}\r\n\r\n");
    for (line, expected) in [
        ("TRACE / HTTP/1.1", 405),
        ("CONNECT app.example:443 HTTP/1.1", 405),
        ("get / HTTP/1.1", 400),
        ("GET  / HTTP/1.1", 400),
        ("GET / HTTP/1.1 ", 400),
        ("GET / HTTP/2.5", 505),
        ("GET / HTTP/2.0", 505),
        ("GET / XTTP/1.1", 400),
        ("GET /%00 HTTP/1.1", 400),
        ("GET /%zz HTTP/1.1", 400),
        ("GET /../x HTTP/1.1", 400),
        ("GET /public/..%2fadmin HTTP/1.1", 400),
        ("GET /public/..\\admin HTTP/1.1", 400),
        ("GET /a#b HTTP/1.1", 400),
        ("GET /a\tb HTTP/1.1", 400),
        ("GET x HTTP/1.1", 400),
    ] {
        let (status, text) = answer(&proxy, format!("{line}\r\n{host}")).await;
        assert_eq!(status, expected, "{line}: {text}");
    }
    assert_eq!(answer(&proxy, format!("OPTIONS * HTTP/1.1\r\n{host}")).await.0, 204);
    assert_eq!(answer(&proxy, "\x16\x03\x01\x02\x00\x01").await.0, 400);
    assert_eq!(origin.connections(), 0);
}

#[tokio::test]
async fn what_is_too_large_is_refused_as_documented() {
    let origin = Origin::start("a");
    let policy = ForwardPolicy { max_body: fairway_model::ByteLimit::of(1000), ..ForwardPolicy::default() };
    let proxy = TestProxy::with_policy(&[&origin], policy);
    let long = "x".repeat(9000);
    assert_eq!(answer(&proxy, format!("GET /{long} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await.0, 414);
    assert_eq!(answer(&proxy, get(&format!("X: {long}\r\n"))).await.0, 431);
    assert_eq!(answer(&proxy, get(&format!("X: {}\r\n", "y".repeat(7000)).repeat(6))).await.0, 431);
    assert_eq!(answer(&proxy, get(&"X: y\r\n".repeat(200))).await.0, 431);
    assert_eq!(answer(&proxy, post("Content-Length: 1001\r\n", "")).await.0, 413);
    assert_eq!(origin.connections(), 0);
    let chunked = format!("3e8\r\n{}\r\n1\r\ny\r\n0\r\n\r\n", "x".repeat(1000));
    assert_eq!(answer(&proxy, post("Transfer-Encoding: chunked\r\n", &chunked)).await.0, 413);
    assert_eq!(origin.requests(), 0);
    let exact = format!("3e8\r\n{}\r\n0\r\n\r\n", "x".repeat(1000));
    let mut client = proxy.connect().await;
    client.send(post("Transfer-Encoding: chunked\r\n", &exact)).await;
    assert_eq!(client.read_response().await.status, 200);
}

#[tokio::test]
async fn a_refused_upload_is_not_reset_before_the_answer_is_read() {
    let origin = Origin::start("a");
    let proxy = TestProxy::to(&[&origin]);
    let mut client = proxy.connect().await;
    client.send(post("Content-Length: 8388608\r\n", "")).await;
    let response = client.read_response().await;
    assert_eq!((response.status, response.header("connection")), (413, Some("close")));
    client.send(vec![b'x'; 8 << 20]).await;
    client.half_close().await;
    assert_eq!(client.ended().await, Ended::Closed);
}

#[tokio::test]
async fn fields_named_by_connection_go_and_ours_stay() {
    let origin = Origin::start("a");
    let proxy = TestProxy::to(&[&origin]);
    let mut client = proxy.connect().await;
    client
        .send(get("Connection: close, X-Real-IP, X-Forwarded-For, Host, Content-Length, X-Mine\r\nX-Mine: 1\r\n"))
        .await;
    let echo = client.read_response().await.echo();
    assert_eq!(echo.headers.all("x-real-ip"), ["127.0.0.1"]);
    assert_eq!(echo.headers.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(echo.headers.all("host"), [HOST]);
    assert!(!echo.headers.has("x-mine"));
}

#[tokio::test]
async fn field_names_with_odd_bytes_go_silently() {
    let origin = Origin::start("a");
    let proxy = TestProxy::to(&[&origin]);
    let mut client = proxy.connect().await;
    client.send(get("X_Under: 1\r\nX.Dot: 2\r\nX-Good: 3\r\n")).await;
    let echo = client.read_response().await.echo();
    assert_eq!((echo.header("x_under"), echo.header("x.dot"), echo.header("x-good")), (None, None, Some("3")));
    proxy.publish([Settings { underscores_in_headers: true, ..Settings::default() }.into()]).await;
    client.send(get("X_Under: 1\r\nX.Dot: 2\r\n")).await;
    let echo = client.read_response().await.echo();
    assert_eq!((echo.header("x_under"), echo.header("x.dot")), (Some("1"), None));
    for bad in ["X Y: 1\r\n", "X\0: 1\r\n", ": 1\r\n", "X: a\0b\r\n", "X: a\rb\r\n"] {
        assert_eq!(answer(&proxy, get(bad)).await.0, 400, "{bad:?}");
    }
}

#[tokio::test]
async fn backends_that_lie_about_length_never_meet_another_client() {
    let origin = Origin::new("a").start();
    let proxy = TestProxy::to(&[&origin]);
    for (reply, status) in [
        (Reply::ok().header("content-length", "3").chunked(["abc"]), 502),
        (Reply::ok().header("content-length", "3").header("content-length", "4").unframed("abc").then_close(), 502),
        (Reply::ok().header("transfer-encoding", "chunked, gzip").unframed("abc").then_close(), 502),
        (Reply::garbage(), 502),
        (Reply::raw("HTTP/1.1 200 OK\nContent-Length: 0\n\n"), 200),
        (Reply::raw("HTTP/1.1 200 OK\r\nX: a\nContent-Length: 0\r\n\r\n"), 502),
        (Reply::raw("HTTP/1.1 200 OK\nContent-Length: 0\nX: a\n b\n\n"), 502),
        (Reply::raw("HTTP/1.1 200 OK\nContent-Length: 0\nX: a\0b\n\n"), 502),
        (Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: a\rb\r\n\r\n"), 502),
        (Reply::raw("HTTP/1.1 200 OK\r\nX: ").then_close(), 502),
        (Reply::ok().padding(140 << 10), 502),
        (Reply::upgrade("websocket"), 502),
        (Reply::ok().body("abc").stray("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong"), 200),
    ] {
        origin.set_reply(reply.clone());
        let response = proxy.connect().await.get(HOST, "/").await;
        assert_eq!(response.status, status, "{reply:?}");
        origin.set_reply(Reply::ok().body("right"));
        assert_eq!(proxy.connect().await.get(HOST, "/").await.text(), "right", "{reply:?}");
    }
}

#[tokio::test]
async fn a_response_that_is_cut_is_seen_to_be_cut() {
    let origin = Origin::new("a").start();
    let proxy = TestProxy::to(&[&origin]);
    let long = "x".repeat(100_000);
    for reply in [
        Reply::ok().body(&long).cut_body_after(70_000).then_close(),
        Reply::ok().chunked(["abc", "def"]).cut_body_after(5).then_close(),
        Reply::ok().chunked(["abc", "def"]).cut_body_after(5).then_reset(),
    ] {
        origin.set_reply(reply.clone());
        let mut client = proxy.connect().await;
        client.send(get("")).await;
        let read = client.try_read_response().await;
        assert!(matches!(read, Err(fairway_testkit::ReadError::Truncated(..))), "{reply:?}: {read:?}");
    }
    // A response that fits one buffer is refused before any of it is passed on.
    origin.set_reply(Reply::ok().body("abcdef").cut_body_after(3).then_close());
    assert_eq!(proxy.connect().await.get(HOST, "/").await.status, 502);
    // An invalid chunk: the response is cut there, or replaced if none of it was passed on yet.
    origin.set_reply(Reply::ok().header("transfer-encoding", "chunked").unframed("3\r\nabc\r\nzz\r\n").then_close());
    let mut client = proxy.connect().await;
    client.send(get("")).await;
    match client.try_read_response().await {
        Ok(response) => assert_eq!(response.status, 502),
        Err(error) => assert!(matches!(error, fairway_testkit::ReadError::Truncated(..)), "{error}"),
    }
    // An HTTP/1.0 client recognises the end of a body only by the end of the connection.
    origin.set_reply(Reply::ok().chunked(["abc", "def"]).cut_body_after(5).then_close());
    let mut client = proxy.connect().await;
    client.send(format!("GET / HTTP/1.0\r\nHost: {HOST}\r\n\r\n")).await;
    assert_eq!(client.drain().await.1, Ended::Reset);
}

#[tokio::test]
async fn one_bad_connection_harms_no_other() {
    let origin = Origin::new("a").reply(Reply::ok().body("x")).start();
    let proxy = TestProxy::to(&[&origin]);
    let mut good = proxy.connect().await;
    for bytes in
        [&b"\0\0\0"[..], b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: z\r\n\r\n", b"\r\n\r\n\r\n\r\n\r\n\r\n"]
    {
        answer(&proxy, bytes).await;
        assert_eq!(good.get(HOST, "/").await.text(), "x");
    }
    let mut gone = Client::connect(proxy.http).await;
    gone.send(post("Content-Length: 100\r\n", "x")).await;
    gone.reset();
    assert_eq!(good.get(HOST, "/").await.text(), "x");
}
