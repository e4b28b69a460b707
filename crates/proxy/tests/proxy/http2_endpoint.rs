//! Endpoints over HTTP/2: what passes, how connections are shared, and endpoints that misbehave.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::support;
use crate::support::h2_origin::{Call, FrameOrigin, H2Origin};
use crate::support::http2::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, Frames, GOAWAY, H2, HEADERS, PADDED, PING, PRIORITY,
    PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, body_of, fields, get, head, post, reason, whole,
};
use crate::support::{HOST, TestProxy, backend, forward, host, route};
use bytes::Bytes;
use fairway_model::{ForwardPolicy, Settings, UpstreamProtocol, UpstreamTls};
use fairway_proxy::ProxyConfig;
use fairway_testkit::{Ca, Client, Fault, Gate, Origin, eventually, within};
use h2::Reason;
use h2::server::Builder;
use http::{HeaderMap, HeaderName, HeaderValue, Response};

fn policy() -> ForwardPolicy {
    ForwardPolicy { protocol: UpstreamProtocol::Http2, ..ForwardPolicy::default() }
}

fn to(addresses: &[std::net::SocketAddr], policy: ForwardPolicy) -> TestProxy {
    let mut resources = backend("web", addresses);
    resources.push(host(HOST, vec![route("/", forward("web", policy))]));
    TestProxy::start(resources)
}

fn ok() -> Response<()> {
    Response::new(())
}

fn trailers() -> HeaderMap {
    HeaderMap::from_iter([
        (HeaderName::from_static("grpc-status"), HeaderValue::from_static("0")),
        (HeaderName::from_static("a_b"), HeaderValue::from_static("c")),
    ])
}

/// Answers with the request: its head in a field, its body and trailers as they are.
async fn echo(mut call: Call) {
    let head = format!("{} {} {:?}", call.request.method(), call.request.uri(), call.request.headers());
    let (body, trailers) = call.body().await;
    let mut response = ok();
    response.headers_mut().insert("seen", HeaderValue::from_str(&head).expect("text"));
    let mut send = call.respond.send_response(response, false).expect("a response");
    send.send_data(body.into(), trailers.is_none()).expect("a body");
    if let Some(trailers) = trailers {
        send.send_trailers(trailers).expect("trailers");
    }
}

#[tokio::test]
async fn requests_of_both_versions_become_streams() {
    let origin = H2Origin::start(echo).await;
    let proxy = to(&[origin.address], policy());
    let mut client = proxy.connect().await;
    for length in [0, 1, 100_000, 900_000] {
        let body = vec![b'x'; length];
        let response = client.request("PUT", "/a?b=|", &[("host", HOST), ("connection", "x"), ("x", "y")], &body).await;
        assert_eq!((response.status, response.body.len()), (200, length));
        let seen = response.header("seen").expect("a field").to_owned();
        assert!(seen.starts_with(&format!("PUT http://{HOST}/a?b=| {{")), "{seen}");
        assert!(seen.contains("\"te\": \"trailers\"") && seen.contains("\"x-forwarded-for\": \"127.0.0.1\""), "{seen}");
        assert!(!seen.contains("\"connection\"") && !seen.contains("\"x\"") && !seen.contains("\"host\""), "{seen}");
        let (length_seen, wanted) = (seen.contains("content-length"), length > 0);
        assert!(length_seen || !wanted, "{seen}");
    }
    let client = H2::connect(proxy.http).await;
    let response = client.post("/", vec![b'y'; 300_000]).await;
    assert_eq!((response.status, response.body.len(), response.trailers), (200, 300_000, None));
    let response = client.get("/").await;
    assert_eq!((response.status, response.body.len()), (200, 0));
    assert!(origin.connections() <= 2, "one for each worker");
}

#[tokio::test]
async fn targets_that_no_uri_may_have_are_encoded() {
    let origin = H2Origin::start(echo).await;
    let proxy = to(&[origin.address], policy());
    let response = proxy.connect().await.get(HOST, "/a?b=<\"c\">^%3c").await;
    assert!(
        response.header("seen").expect("a field").starts_with(&format!("GET http://{HOST}/a?b=%3C%22c%22%3E%5E%3c "))
    );
}

#[tokio::test]
async fn trailers_and_interim_responses_pass() {
    let serve = async |mut call: Call| {
        let (_, received) = call.body().await;
        let mut early = Response::new(());
        *early.status_mut() = http::StatusCode::EARLY_HINTS;
        early.headers_mut().insert("link", HeaderValue::from_static("</a>"));
        call.respond.send_informational(early).expect("an interim response");
        let mut response = ok();
        response.headers_mut().insert("content-length", HeaderValue::from_static("2"));
        if received.is_some_and(|fields| fields["x-sum"] == "1") {
            response.headers_mut().insert("got", HeaderValue::from_static("x-sum"));
        }
        let mut send = call.respond.send_response(response, false).expect("a response");
        send.send_data(Bytes::from_static(b"ok"), false).expect("a body");
        send.send_trailers(trailers()).expect("trailers");
    };
    let origin = H2Origin::start(serve).await;
    let proxy = to(&[origin.address], policy());
    let client = H2::connect(proxy.http).await;
    let (response, mut send) = client.ready().await.send_request(post("/"), false).unwrap();
    send.send_data(Bytes::from_static(b"x"), false).unwrap();
    send.send_trailers(HeaderMap::from_iter([("x-sum".parse().unwrap(), HeaderValue::from_static("1"))])).unwrap();
    let response = whole(within("a response", response).await.unwrap()).await;
    assert_eq!(
        (response.text(), response.field("content-length"), response.field("got")),
        ("ok", Some("2"), Some("x-sum"))
    );
    assert_eq!(response.trailers, Some(trailers()), "also behind a length, and with any name");

    let mut client = proxy.connect().await;
    client
        .send(format!(
            "POST / HTTP/1.1\r\nHost: {HOST}\r\nSec-Fetch-Mode: navigate\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\
             x-sum: 1\r\n\r\n"
        ))
        .await;
    let response = client.read_response_to("POST").await;
    assert_eq!((response.status, &*response.text(), response.header("got")), (200, "ok", Some("x-sum")));
    assert_eq!(response.interim.len(), 1);
    assert!(String::from_utf8_lossy(&response.interim[0].raw).contains("103 Early Hints\r\nlink: </a>\r\n"));
}

#[tokio::test]
async fn a_head_that_is_all_of_a_response_stays_so() {
    let serve = |call: Call| async move {
        let mut response = ok();
        response.headers_mut().insert("grpc-status", HeaderValue::from_static("5"));
        call.answer(response, "");
    };
    let origin = H2Origin::start(serve).await;
    let proxy = to(&[origin.address], policy());
    let mut client = Frames::connect(proxy.http).await;
    client.ask(1, head(&[])).await;
    let frame = client.next_of(&[HEADERS]).await;
    assert_eq!(frame.flags & END_STREAM, END_STREAM);
    let mut client = proxy.connect().await;
    for _ in 0..2 {
        let response = client.get(HOST, "/").await;
        assert_eq!((response.status, response.header("grpc-status"), &*response.text()), (200, Some("5"), ""));
    }
}

#[tokio::test]
async fn messages_pass_both_ways_at_the_same_time_and_each_side_ends_by_itself() {
    let serve = |mut call: Call| async move {
        let mut send = call.respond.send_response(ok(), false).expect("a response");
        let body = call.request.body_mut();
        while let Some(piece) = body.data().await {
            let piece = piece.expect("data");
            body.flow_control().release_capacity(piece.len()).expect("a window");
            send.send_data(piece, false).expect("room");
        }
        send.send_data(Bytes::from_static(b"after the end"), false).expect("room");
        send.send_trailers(trailers()).expect("trailers");
    };
    let origin = H2Origin::start(serve).await;
    let proxy = to(&[origin.address], policy());
    let client = H2::connect(proxy.http).await;
    let (response, mut send) = client.ready().await.send_request(post("/"), false).unwrap();
    let mut body = within("a response", response).await.unwrap().into_body();
    for message in ["one", "two", "three"] {
        send.send_data(Bytes::from(message), false).unwrap();
        assert_eq!(within("the echo", body.data()).await.unwrap().unwrap(), message);
    }
    send.send_data(Bytes::new(), true).unwrap();
    assert_eq!(body_of(&mut body).await.unwrap(), b"after the end");
    assert_eq!(body.trailers().await.unwrap(), Some(trailers()));
}

#[tokio::test]
async fn many_requests_share_few_connections() {
    let (gate, waiting) = (Gate::new(), Arc::new(AtomicUsize::new(0)));
    let (opens, count) = (gate.clone(), waiting.clone());
    let serve = move |call: Call| {
        let (opens, count) = (opens.clone(), count.clone());
        async move {
            count.fetch_add(1, Ordering::Relaxed);
            opens.pass().await;
            call.answer(ok(), "ok");
        }
    };
    let origin = H2Origin::with(Builder::new().max_concurrent_streams(50), None, serve).await;
    let proxy = to(&[origin.address], policy());
    let mut clients = Vec::new();
    for _ in 0..10 {
        clients.push(H2::connect(proxy.http).await);
    }
    let mut responses = Vec::new();
    for client in &clients {
        for _ in 0..100 {
            responses.push(client.ready().await.send_request(get("/"), true).unwrap().0);
        }
    }
    eventually("all requests wait at the endpoint", async || waiting.load(Ordering::Relaxed) == 1000).await;
    let connections = origin.connections();
    assert!((20..=40).contains(&connections), "{connections} connections for 1,000 requests, 50 on each");
    gate.release();
    for response in responses {
        assert_eq!(whole(within("a response", response).await.unwrap()).await.text(), "ok");
    }
    assert_eq!(clients[0].get("/").await.status, 200);
    assert_eq!(origin.connections(), connections, "the connections are used again");
}

#[tokio::test]
async fn tls_offers_http2_and_an_endpoint_without_it_is_named() {
    let leaf = Ca::new("unknown").leaf(&["backend.example"]);
    let origin = H2Origin::with(&Builder::new(), Some(&leaf), echo).await;
    let over_tls = || ForwardPolicy { tls: Some(Arc::new(UpstreamTls::default())), ..policy() };
    let proxy = to(&[origin.address], over_tls());
    let response = H2::connect(proxy.http).await.post("/", "x").await;
    assert_eq!((response.status, response.text()), (200, "x"));
    assert!(response.field("seen").expect("a field").starts_with("POST https://"));
    for (origin, policy) in [(Origin::start("a"), policy()), (Origin::new("b").tls(&leaf).start(), over_tls())] {
        let proxy = to(&[origin.address()], policy);
        assert_eq!(proxy.connect().await.get(HOST, "/").await.status, 502, "{}", origin.name());
    }
    let silent = Origin::new("c").fault(Fault::Silent).start();
    let hurried = ForwardPolicy { connect_timeout: Duration::from_millis(100), ..policy() };
    assert_eq!(to(&[silent.address()], hurried).connect().await.get(HOST, "/").await.status, 504);
}

#[tokio::test]
async fn a_client_that_leaves_cancels_its_stream() {
    let (cancelled, seen) = tokio::sync::mpsc::unbounded_channel();
    let serve = move |mut call: Call| {
        let cancelled = cancelled.clone();
        async move {
            let mut send = call.respond.send_response(ok(), false).expect("a response");
            let code = std::future::poll_fn(|cx| send.poll_reset(cx)).await;
            cancelled.send(code.expect("a reset")).expect("a test");
        }
    };
    let origin = H2Origin::start(serve).await;
    let proxy = to(&[origin.address], policy());
    let mut seen = seen;
    let client = H2::connect(proxy.http).await;
    let (response, send) = client.ready().await.send_request(post("/"), false).unwrap();
    let response = within("a response", response).await.unwrap();
    drop((response, send));
    assert_eq!(within("the reset of a stream", seen.recv()).await, Some(Reason::CANCEL));
    let mut client = proxy.connect().await;
    client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    client.read_until("\r\n\r\n").await;
    client.reset();
    assert_eq!(within("a reset", seen.recv()).await, Some(Reason::CANCEL));
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_no_more_than_its_window() {
    let (sent, stop) = (Arc::new(AtomicUsize::new(0)), Gate::new());
    let (count, stopped) = (sent.clone(), stop.clone());
    let serve = move |mut call: Call| {
        let (count, stopped) = (count.clone(), stopped.clone());
        async move {
            if call.request.uri().path() == "/small" {
                return call.answer(ok(), "small");
            }
            let mut send = call.respond.send_response(ok(), false).expect("a response");
            loop {
                send.reserve_capacity(16_384);
                let room = tokio::select! {
                    room = std::future::poll_fn(|cx| send.poll_capacity(cx)) => room,
                    () = stopped.pass() => return,
                };
                let Some(Ok(room)) = room else { return };
                count.fetch_add(room, Ordering::Relaxed);
                send.send_data(Bytes::from(vec![0; room]), false).expect("room");
            }
        }
    };
    let origin = H2Origin::start(serve).await;
    let mut resources = backend("web", &[origin.address]);
    resources.push(host(HOST, vec![route("/", forward("web", policy()))]));
    let proxy = TestProxy::start(resources);
    let client = H2::connect(proxy.http).await;
    let (response, _) = client.ready().await.send_request(get("/"), true).unwrap();
    let response = within("a response", response).await.unwrap();
    // Its window is 64 KiB, and so are those of the proxy and the buffer between.
    eventually("the window is used up", async || sent.load(Ordering::Relaxed) >= 65_535).await;
    let others = H2::connect(proxy.http).await;
    for _ in 0..4 {
        assert_eq!(others.get("/small").await.text(), "small", "another stream of the same connections");
    }
    let held = sent.load(Ordering::Relaxed);
    assert!(held <= 4 * 65_536, "{held} bytes for a client that took none");
    stop.release();
    drop(response);
}

#[tokio::test]
async fn what_an_endpoint_has_not_looked_at_is_sent_to_another() {
    let refuse = |mut call: Call| async move { call.respond.send_reset(Reason::REFUSED_STREAM) };
    let (busy, free) = (H2Origin::start(refuse).await, H2Origin::start(echo).await);
    let proxy = to(&[busy.address, free.address], policy());
    let client = H2::connect(proxy.http).await;
    for _ in 0..4 {
        let response = client.post("/", "x").await;
        assert_eq!((response.status, response.text()), (200, "x"));
    }
    let reset = |mut call: Call| async move { call.respond.send_reset(Reason::INTERNAL_ERROR) };
    let broken = H2Origin::start(reset).await;
    let proxy = to(&[broken.address], policy());
    assert_eq!(H2::connect(proxy.http).await.post("/", "x").await.status, 502);
}

#[tokio::test]
async fn a_connection_that_its_endpoint_ends_fails_no_request() {
    let origin = FrameOrigin::start().await;
    let proxy = to(&[origin.address], policy());
    let client = H2::connect(proxy.http).await;
    let serve = async {
        let mut first = origin.accept(&[]).await;
        let stream = first.request().await;
        first.head(stream, END_STREAM, &[(":status", "201")]).await;
        // The second request is above the last stream.
        let stream = first.request().await;
        first.send(Frame::new(GOAWAY, 0, 0, [0, 0, 0, 1, 0, 0, 0, 0])).await;
        let mut second = origin.accept(&[]).await;
        let again = second.request().await;
        second.head(again, END_STREAM, &[(":status", "202")]).await;
        (stream, first, second)
    };
    let ask = async { (client.post("/", "x").await.status, client.post("/", "x").await.status) };
    let ((stream, ..), statuses) = tokio::join!(serve, ask);
    assert_eq!((stream, statuses), (3, (201, 202)));
}

/// What the client gets from an endpoint that does this after the first request.
async fn answered(
    policy: ForwardPolicy,
    misbehave: impl AsyncFnOnce(&mut support::h2_origin::FrameConnection, u32),
) -> Result<(u16, Vec<u8>), h2::Error> {
    let origin = FrameOrigin::start().await;
    let proxy = to(&[origin.address], policy);
    let client = H2::connect(proxy.http).await;
    let serve = async {
        let mut connection = origin.accept(&[]).await;
        let stream = connection.request().await;
        misbehave(&mut connection, stream).await;
        connection
    };
    let ask = async {
        let (response, _) = client.ready().await.send_request(get("/"), true).expect("a request");
        let response = within("an answer", response).await?;
        let (status, mut body) = (response.status().as_u16(), response.into_body());
        body_of(&mut body).await.map(|body| (status, body))
    };
    tokio::join!(serve, ask).1
}

fn once() -> ForwardPolicy {
    ForwardPolicy { retry: fairway_model::Retry { tries: Some(1), ..Default::default() }, ..policy() }
}

#[tokio::test]
async fn an_endpoint_that_lies_about_the_length_is_found_out() {
    let short = answered(once(), async |connection, stream| {
        connection.head(stream, 0, &[(":status", "200"), ("content-length", "5")]).await;
        connection.send(Frame::new(DATA, END_STREAM, stream, *b"abc")).await;
    });
    assert_eq!(reason(short.await), Reason::INTERNAL_ERROR);
    let long = answered(once(), async |connection, stream| {
        connection.head(stream, 0, &[(":status", "200"), ("content-length", "2")]).await;
        connection.send(Frame::new(DATA, END_STREAM, stream, *b"abc")).await;
    });
    assert_eq!(reason(long.await), Reason::INTERNAL_ERROR);
    let none = answered(once(), async |connection, stream| {
        connection.head(stream, END_STREAM, &[(":status", "200"), ("content-length", "5")]).await;
    });
    assert_eq!(none.await.unwrap().0, 502);
}

#[tokio::test]
async fn malformed_heads_are_refused() {
    for fields in [
        &[("content-type", "a")][..],
        &[(":status", "200"), ("connection", "close")],
        &[(":status", "200"), ("transfer-encoding", "chunked")],
        &[(":status", "200"), ("X", "y")],
        &[(":status", "101"), ("upgrade", "websocket")],
        &[(":status", "200"), ("content-length", "1"), ("content-length", "2")],
    ] {
        let status = answered(once(), async |connection, stream| connection.head(stream, END_STREAM, fields).await);
        assert_eq!(status.await.unwrap().0, 502, "{fields:?}");
    }
    let large = "x".repeat(140_000);
    let status = answered(once(), async |connection, stream| {
        for chunk in 0..10 {
            let (kind, flags) = if chunk == 0 { (HEADERS, END_STREAM) } else { (CONTINUATION, 0) };
            let block = fields(&[(":status", "200"), ("x", &large)]);
            let flags = if chunk == 9 { flags | END_HEADERS } else { flags };
            let piece: Vec<u8> = block.chunks(block.len() / 10 + 1).nth(chunk).expect("a piece").to_vec();
            connection.send(Frame::new(kind, flags, stream, piece)).await;
        }
    });
    assert_eq!(status.await.unwrap().0, 502);
}

#[tokio::test]
async fn no_change_of_protocols_comes_over_http2() {
    let origin = FrameOrigin::start().await;
    let proxy = to(&[origin.address], once());
    let mut client = proxy.connect().await;
    client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")).await;
    let mut connection = origin.accept(&[]).await;
    let stream = connection.request().await;
    connection.head(stream, 0, &[(":status", "101")]).await;
    assert_eq!(client.read_response().await.status, 502);
}

#[tokio::test]
async fn what_a_call_says_of_itself_is_not_kept_for_other_calls() {
    let origin = FrameOrigin::start().await;
    let proxy = to(&[origin.address], policy());
    let client = H2::connect(proxy.http).await;
    let serve = async {
        let (mut connection, mut sizes) = (origin.accept(&[]).await, Vec::new());
        for _ in 0..4 {
            let request = connection.next_of(HEADERS).await;
            sizes.push(request.payload.len());
            connection.head(request.stream, END_STREAM, &[(":status", "200")]).await;
        }
        sizes
    };
    let ask = async {
        let own = [("grpc-timeout", "300x"), ("x-b-bin", "!!!!")];
        for fields in [&[][..], &[], &own, &own] {
            let mut request = get("/");
            request.headers_mut().insert("x-request-id", HeaderValue::from_static("0123456789abcdef0123456789abcdef"));
            for (name, value) in fields {
                request.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
            }
            assert_eq!(client.ask(request).await.status, 200);
        }
    };
    let (sizes, ()) = tokio::join!(serve, ask);
    assert!(sizes[1] < sizes[0], "other fields are kept: {sizes:?}");
    assert_eq!(sizes[3], sizes[2]);
}

#[tokio::test]
async fn an_endpoint_that_admits_no_streams_is_left_in_peace() {
    let origin = H2Origin::with(Builder::new().max_concurrent_streams(0), None, |_: Call| async {}).await;
    let proxy = to(&[origin.address], once());
    assert_eq!(proxy.connect().await.get(HOST, "/").await.status, 502);
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn what_comes_after_the_end_reaches_nobody() {
    let twice = answered(once(), async |connection, stream| {
        connection.head(stream, 0, &[(":status", "200")]).await;
        connection.send(Frame::new(DATA, END_STREAM, stream, *b"abc")).await;
        connection.head(stream, END_STREAM, &[(":status", "500")]).await;
        connection.send(Frame::new(DATA, END_STREAM, stream, *b"more")).await;
    });
    // The end of the connection may overtake the rest of the response.
    if let Ok((status, body)) = twice.await {
        assert_eq!((status, body), (200, b"abc".to_vec()));
    }
    let unasked = answered(once(), async |connection, stream| {
        connection.head(stream + 2, END_STREAM, &[(":status", "200")]).await;
        connection.next_of(GOAWAY).await;
    });
    assert_eq!(unasked.await.unwrap().0, 502);
}

#[tokio::test]
async fn floods_end_the_connection() {
    for frame in [
        Frame::new(PING, 0, 0, [0; 8]),
        Frame::new(SETTINGS, 0, 0, []),
        Frame::new(PRIORITY, 0, 1, [0, 0, 0, 3, 1]),
        Frame::new(WINDOW_UPDATE, 0, 0, [0, 0, 0, 1]),
        Frame::new(200, 0, 0, [0]),
    ] {
        let status = answered(once(), async |connection, _| {
            let bytes = frame.bytes().repeat(100);
            for _ in 0..1000 {
                if !connection.try_send(&bytes).await {
                    return;
                }
            }
            while connection.next().await.is_some() {}
        });
        assert_eq!(status.await.unwrap().0, 502, "{frame:?}");
    }
    let interim = answered(once(), async |connection, stream| {
        for _ in 0..100 {
            let block = fields(&[(":status", "103")]);
            if !connection.try_send(&Frame::new(HEADERS, END_HEADERS, stream, block).bytes()).await {
                return;
            }
        }
    });
    // The client may have had enough of them as well.
    assert!(interim.await.is_ok_and(|(status, _)| status == 502));
}

#[tokio::test]
async fn a_flood_of_empty_data_ends_a_response() {
    for (flags, payload) in [(0, &[][..]), (PADDED, &[3, 0, 0, 0])] {
        let cut = answered(once(), async |connection, stream| {
            connection.head(stream, 0, &[(":status", "200")]).await;
            let bytes = Frame::new(DATA, flags, stream, payload).bytes().repeat(100);
            for _ in 0..1000 {
                if !connection.try_send(&bytes).await {
                    return;
                }
            }
            while connection.next().await.is_some() {}
        });
        // The end of the connection may overtake the head.
        match cut.await {
            Ok((status, body)) => assert_eq!(status, 502, "{} bytes", body.len()),
            Err(error) => assert_eq!(error.reason(), Some(Reason::INTERNAL_ERROR)),
        }
    }
}

/// Heads that never end, and heads that are small only while compressed.
#[tokio::test]
async fn a_flood_within_a_head_ends_the_connection() {
    let mut bomb = fields(&[(":status", "200")]);
    bomb.push(0x40);
    bomb.extend(&fields(&[("x-a", "y".repeat(3900))])[1..]);
    bomb.extend(vec![0xbe; 10_000]);
    let endless = |piece: Vec<u8>| {
        let mut frames = vec![Frame::new(HEADERS, END_STREAM, 1, fields(&[(":status", "200")]))];
        frames.extend(vec![Frame::new(CONTINUATION, 0, 1, piece); 3000]);
        frames
    };
    for frames in [
        vec![Frame::new(HEADERS, END_HEADERS | END_STREAM, 1, bomb)],
        endless(Vec::new()),
        endless(fields(&[("x-a", "y".repeat(16_000))])),
    ] {
        let status = answered(once(), async |connection, _| {
            for frame in &frames {
                if !connection.try_send(&frame.bytes()).await {
                    return;
                }
            }
        });
        assert_eq!(status.await.unwrap().0, 502);
    }
}

#[tokio::test]
async fn frames_that_no_endpoint_may_send_fail_the_request() {
    let pushed = [&[0, 0, 0, 2][..], &head(&[])].concat();
    for frame in [
        Frame::new(PUSH_PROMISE, END_HEADERS, 1, pushed),
        Frame::new(DATA, END_STREAM, 1, *b"before the head"),
        Frame::new(DATA, END_STREAM, 9, *b"of nobody"),
        Frame::new(WINDOW_UPDATE, 0, 0, 0x7fff_ffffu32.to_be_bytes()),
        Frame::new(WINDOW_UPDATE, 0, 0, [0; 4]),
        Frame::new(CONTINUATION, END_HEADERS, 1, fields(&[(":status", "200")])),
        // Invalid values of SETTINGS_INITIAL_WINDOW_SIZE and SETTINGS_MAX_FRAME_SIZE.
        Frame::new(SETTINGS, 0, 0, [0, 4, 0xff, 0xff, 0xff, 0xff]),
        Frame::new(SETTINGS, 0, 0, [0, 5, 0, 0, 0, 1]),
        Frame::new(DATA, 0, 1, vec![0; 16_385]),
    ] {
        let status = answered(once(), async |connection, _| connection.send(frame.clone()).await);
        assert_eq!(status.await.unwrap().0, 502, "{frame:?}");
    }
}

#[tokio::test]
async fn an_endpoint_that_never_opens_its_window_is_given_up() {
    let origin = FrameOrigin::start().await;
    let hurried = ForwardPolicy { send_timeout: Duration::from_millis(100), ..once() };
    let proxy = to(&[origin.address], hurried);
    let client = H2::connect(proxy.http).await;
    let serve = async {
        // SETTINGS_INITIAL_WINDOW_SIZE 0.
        let mut connection = origin.accept(&[0, 4, 0, 0, 0, 0]).await;
        let stream = connection.request().await;
        let reset = connection.next_of(RST_STREAM).await;
        assert_eq!((reset.stream, reset.code()), (stream, Reason::CANCEL));
        connection
    };
    let (_, response) = tokio::join!(serve, client.post("/", "x"));
    assert_eq!(response.status, 504);
}

#[tokio::test]
async fn an_endpoint_that_goes_silent_gets_no_more_requests_on_the_same_connection() {
    let origin = FrameOrigin::start().await;
    let hurried = ForwardPolicy { read_timeout: Duration::from_millis(100), ..once() };
    let proxy = to(&[origin.address], hurried);
    let client = H2::connect(proxy.http).await;
    let serve = async {
        let mut first = origin.accept(&[]).await;
        // After its acknowledgement nothing is in flight.
        while first.next().await.expect("a frame").kind != HEADERS {}
        let mut second = origin.accept(&[]).await;
        let stream = second.request().await;
        second.head(stream, END_STREAM, &[(":status", "200")]).await;
        (first, second)
    };
    let ask = async { (client.get("/").await.status, client.get("/").await.status) };
    assert_eq!(tokio::join!(serve, ask).1, (504, 200));
}

#[tokio::test]
async fn the_endpoint_is_told_what_was_reset_and_why() {
    let origin = FrameOrigin::start().await;
    let proxy = to(&[origin.address], once());
    let client = H2::connect(proxy.http).await;
    let (begun, has_begun) = tokio::sync::oneshot::channel();
    let serve = async {
        let mut connection = origin.accept(&[]).await;
        let stream = connection.request().await;
        connection.head(stream, 0, &[(":status", "200")]).await;
        connection.send(Frame::new(DATA, 0, stream, *b"abc")).await;
        // A reset overtakes data that was not passed on yet.
        within("the client to have the head", has_begun).await.unwrap();
        connection.send(Frame::new(RST_STREAM, 0, stream, 2u32.to_be_bytes())).await;
        connection.send(Frame::new(PING, 0, 0, [1; 8])).await;
        let pong = connection.next_of(PING).await;
        assert_eq!(pong.flags & ACK, ACK, "the connection goes on");
        connection
    };
    let ask = async {
        let (response, _) = client.ready().await.send_request(get("/"), true).unwrap();
        let mut response = within("a response", response).await.unwrap();
        begun.send(()).unwrap();
        body_of(response.body_mut()).await
    };
    assert_eq!(reason(tokio::join!(serve, ask).1), Reason::INTERNAL_ERROR);
}

/// Idle connections to endpoints, according to the metrics.
async fn kept(proxy: &TestProxy) -> String {
    let address = proxy.proxy.admin_address().expect("an address");
    // Boxed: a client is too large for the stack of nested futures in a debug build.
    let metrics = Box::pin(async { Client::connect(address).await.get("a", "/metrics").await.text() }).await;
    let line = metrics.lines().find(|line| line.starts_with("fairway_upstream_connections_idle{")).expect("a metric");
    line.rsplit(' ').next().expect("a value").to_owned()
}

#[tokio::test]
async fn an_idle_connection_ends_when_its_endpoint_says_so() {
    let origin = FrameOrigin::start().await;
    let mut resources = backend("web", &[origin.address]);
    resources.push(host(HOST, vec![route("/", forward("web", policy()))]));
    let config = ProxyConfig { admin: Some(([127, 0, 0, 1], 0).into()), ..support::config() };
    let proxy = TestProxy::start_with(resources, config);
    let client = H2::connect(proxy.http).await;
    let serve = async {
        let mut connection = origin.accept(&[]).await;
        let stream = connection.request().await;
        connection.head(stream, END_STREAM, &[(":status", "201")]).await;
        connection
    };
    let (mut connection, response) = tokio::join!(serve, client.get("/"));
    assert_eq!(response.status, 201);
    eventually("an idle connection", async || kept(&proxy).await == "1").await;
    connection.send(Frame::new(GOAWAY, 0, 0, [0, 0, 0, 1, 0, 0, 0, 0])).await;
    while connection.next().await.is_some() {}
    eventually("no idle connection", async || kept(&proxy).await == "0").await;
}

#[tokio::test]
async fn only_so_many_connections_are_kept_idle() {
    let gate = Gate::new();
    let held = gate.clone();
    let origins: Vec<_> = {
        let mut all = Vec::new();
        for _ in 0..3 {
            let held = held.clone();
            let serve = move |call: Call| {
                let held = held.clone();
                async move {
                    held.pass().await;
                    call.answer(ok(), "x");
                }
            };
            all.push(H2Origin::start(serve).await);
        }
        all
    };
    let addresses: Vec<_> = origins.iter().map(|origin| origin.address).collect();
    let mut resources = backend("web", &addresses);
    resources.push(host(HOST, vec![route("/", forward("web", policy()))]));
    let mut settings = Settings::default();
    settings.upstream_keepalive.connections = 1;
    resources.push(settings.into());
    let config = ProxyConfig {
        admin: Some(([127, 0, 0, 1], 0).into()),
        workers: std::num::NonZeroUsize::new(1),
        ..support::config()
    };
    let proxy = TestProxy::start_with(resources, config);
    let client = H2::connect(proxy.http).await;
    let ask = || async { client.get("/").await.status };
    let asking = async { tokio::join!(ask(), ask(), ask()) };
    let release = async {
        gate.reached(3).await;
        gate.release();
    };
    assert_eq!(tokio::join!(asking, release).0, (200, 200, 200));
    eventually("one idle connection", async || kept(&proxy).await == "1").await;
    assert_eq!(ask().await, 200);
}
