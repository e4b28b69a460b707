//! What a client may try with frames and must not get away with: the answer to each, and that none of it reached an endpoint.

use std::time::Duration;

use crate::support::http2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, Frames, GOAWAY, H2, HEADERS, PADDED, PING, PRIORITY,
    RST_STREAM, SETTINGS, WINDOW_UPDATE, fields, get, head, whole,
};
use crate::support::log::{Lines, logging};
use crate::support::{HOST, TestProxy, forwarding};
use fairway_model::{ForwardPolicy, Settings};
use fairway_testkit::{Gate, Origin, Reply};
use h2::Reason;

/// The code in a GOAWAY, whatever comes before it.
async fn goaway(client: &mut Frames) -> Reason {
    client.next_of(&[GOAWAY]).await.code()
}

/// Sends frames behind the start of a connection, until it is closed with this code.
async fn closed_for(reason: Reason, frames: impl IntoIterator<Item = Frame>) {
    let origin = Origin::start("a");
    let proxy = TestProxy::to(&[&origin]);
    let mut client = Frames::connect(proxy.http).await;
    client.send_all(frames).await;
    assert_eq!(goaway(&mut client).await, reason);
    assert!(origin.received().is_empty(), "something reached the endpoint");
    // Others are served.
    assert_eq!(H2::connect(proxy.http).await.get("/").await.status, 200);
}

#[tokio::test]
async fn floods_of_frames_end_the_connection() {
    let calm = Reason::ENHANCE_YOUR_CALM;
    closed_for(calm, vec![Frame::new(PING, 0, 0, [0; 8]); 2000]).await;
    closed_for(calm, vec![Frame::new(SETTINGS, 0, 0, []); 200]).await;
    closed_for(calm, vec![Frame::new(PRIORITY, 0, 1, [0, 0, 0, 3, 1]); 2000]).await;
    closed_for(calm, vec![Frame::new(WINDOW_UPDATE, 0, 0, [0, 0, 0, 1]); 2000]).await;
    closed_for(calm, vec![Frame::new(200, 0, 0, vec![0; 16_000]); 200]).await;
    closed_for(Reason::PROTOCOL_ERROR, [Frame::new(WINDOW_UPDATE, 0, 0, [0; 4])]).await;
}

#[tokio::test]
async fn a_flood_of_empty_data_ends_the_connection() {
    // Padding alone is no data either.
    for empty in [Frame::new(DATA, 0, 1, []), Frame::new(DATA, PADDED, 1, [3, 0, 0, 0])] {
        let origin = Origin::start("a");
        let proxy = TestProxy::to(&[&origin]);
        let mut client = Frames::connect(proxy.http).await;
        client.send(Frame::new(HEADERS, END_HEADERS, 1, head(&[]))).await;
        client.send_all(vec![empty; 3000]).await;
        assert_eq!(goaway(&mut client).await, Reason::ENHANCE_YOUR_CALM);
        assert_eq!(origin.requests(), 0);
    }
}

#[tokio::test]
async fn a_flood_of_continuations_ends_the_connection() {
    let head = head(&[]);
    let first = Frame::new(HEADERS, END_STREAM, 1, &head[..5]);
    let empty = std::iter::repeat_n(Frame::new(CONTINUATION, 0, 1, []), 100);
    closed_for(Reason::ENHANCE_YOUR_CALM, std::iter::once(first.clone()).chain(empty)).await;
    let field = fields(&[("x-a", "y".repeat(16_000))]);
    let full = std::iter::repeat_n(Frame::new(CONTINUATION, 0, 1, field), 100);
    let first = Frame::new(HEADERS, END_STREAM, 1, head);
    closed_for(Reason::ENHANCE_YOUR_CALM, std::iter::once(first).chain(full)).await;
}

#[tokio::test]
async fn a_head_that_does_not_end_is_not_waited_for() {
    let origin = Origin::start("a");
    let settings = Settings { header_timeout: Duration::from_millis(60), ..Settings::default() };
    let proxy = TestProxy::with_settings(&[&origin], settings);
    let mut client = Frames::connect(proxy.http).await;
    client.ask(1, head(&[])).await;
    client.next_of(&[HEADERS]).await;
    client.send(Frame::new(HEADERS, END_STREAM, 3, head(&[]))).await;
    assert_eq!(goaway(&mut client).await, Reason::ENHANCE_YOUR_CALM);
    assert_eq!(origin.requests(), 1);
}

/// CVE-2023-44487, in one burst: most are never looked at.
#[tokio::test]
async fn rapid_resets_end_the_connection() {
    let origin = Origin::start("a");
    let proxy = TestProxy::to(&[&origin]);
    let mut client = Frames::connect(proxy.http).await;
    client
        .send_all((0..2000u32).flat_map(|at| {
            let stream = 2 * at + 1;
            let ask = Frame::new(HEADERS, END_HEADERS | END_STREAM, stream, head(&[]));
            [ask, Frame::new(RST_STREAM, 0, stream, 8u32.to_be_bytes())]
        }))
        .await;
    assert_eq!(goaway(&mut client).await, Reason::ENHANCE_YOUR_CALM);
    assert!(origin.requests() < 300, "{} requests", origin.requests());
}

/// The same, each once its request is at the endpoint.
#[tokio::test]
async fn resets_of_requests_under_way_end_the_connection() {
    let gate = Gate::new();
    let origin = Origin::new("a").reply(Reply::ok().held_by(&gate)).start();
    let settings = Settings { keep_alive_requests: u64::MAX, ..Settings::default() };
    let proxy = TestProxy::with_settings(&[&origin], settings);
    let mut client = Frames::connect(proxy.http).await;
    for at in 0..400u32 {
        let stream = 2 * at + 1;
        if client.0.try_send(Frame::new(HEADERS, END_HEADERS | END_STREAM, stream, head(&[])).bytes()).await.is_err()
            || client.0.is_closed().await
        {
            break;
        }
        if at < 100 {
            gate.reached(u64::from(at) + 1).await;
        }
        let _ = client.0.try_send(Frame::new(RST_STREAM, 0, stream, 8u32.to_be_bytes()).bytes()).await;
    }
    assert_eq!(goaway(&mut client).await, Reason::ENHANCE_YOUR_CALM);
    origin.idle().await;
}

/// CVE-2025-8671: frames that make the proxy reset its streams.
#[tokio::test]
async fn resets_that_a_client_provokes_end_the_connection() {
    for provoke in [
        |stream| Frame::new(WINDOW_UPDATE, 0, stream, 0x7fff_ffffu32.to_be_bytes()),
        |stream| Frame::new(WINDOW_UPDATE, 0, stream, [0; 4]),
        |stream| Frame::new(DATA, 0, stream, *b"after the end"),
        |stream| Frame::new(HEADERS, END_HEADERS | END_STREAM, stream, head(&[])),
    ] {
        let gate = Gate::new();
        let origin = Origin::new("a").reply(Reply::ok().held_by(&gate)).start();
        let proxy = TestProxy::to(&[&origin]);
        let mut client = Frames::connect(proxy.http).await;
        client
            .send_all((0..1000u32).flat_map(|at| {
                let stream = 2 * at + 1;
                [Frame::new(HEADERS, END_HEADERS | END_STREAM, stream, head(&[])), provoke(stream)]
            }))
            .await;
        let code = goaway(&mut client).await;
        // Some of them are errors of the connection.
        assert!(
            [Reason::ENHANCE_YOUR_CALM, Reason::STREAM_CLOSED, Reason::PROTOCOL_ERROR].contains(&code),
            "{code:?} {:?}",
            provoke(1)
        );
        assert!(origin.requests() < 300, "{} requests", origin.requests());
    }
}

/// Fields in crumbs, and a window that stays closed: nothing is sent to the client, others are served, and the end of the client frees all.
#[tokio::test]
async fn a_client_that_never_opens_its_window_holds_up_nobody() {
    let origin = Origin::new("a").reply(Reply::ok().body(vec![b'x'; 4 << 20])).start();
    let proxy = TestProxy::to(&[&origin]);
    // SETTINGS_INITIAL_WINDOW_SIZE 0.
    let mut client = Frames::connect(proxy.http).await;
    client.send(Frame::new(SETTINGS, 0, 0, [0, 4, 0, 0, 0, 0])).await;
    let crumbs = [("cookie", "a=b"); 60];
    for at in 0..20 {
        client.ask(2 * at + 1, head(&crumbs)).await;
    }
    for _ in 0..20 {
        let answer = client.next_of(&[HEADERS, DATA, RST_STREAM, GOAWAY]).await;
        assert_eq!((answer.kind, answer.flags & END_STREAM), (HEADERS, 0));
    }
    let other = H2::connect(proxy.http).await;
    assert_eq!(other.get("/").await.body.len(), 4 << 20);
    // A byte of window lets a byte through, and no more.
    client.send(Frame::new(WINDOW_UPDATE, 0, 5, [0, 0, 0, 1])).await;
    let data = client.next_of(&[HEADERS, DATA, RST_STREAM, GOAWAY]).await;
    assert_eq!((data.kind, data.stream, data.payload.len()), (DATA, 5, 1));
    client.send(Frame::new(PING, 0, 0, [7; 8])).await;
    assert_eq!(client.next_of(&[PING, DATA, RST_STREAM, GOAWAY]).await.kind, PING);
    client.0.reset();
    origin.ended(20).await;
}

#[tokio::test]
async fn heads_that_are_too_large_are_refused_and_logged() {
    let lines = Lines::default();
    let origin = Origin::start("a");
    let resources = forwarding(&[&origin], ForwardPolicy::default());
    let proxy = TestProxy::start_with(resources, logging(&lines, "$status $failure_reason $failure_detail|$request"));
    let client = H2::connect(proxy.http).await;
    let mut crumbs = get("/");
    for _ in 0..300 {
        crumbs.headers_mut().append("cookie", "a=b".parse().expect("a value"));
    }
    let mut long = get("/");
    long.headers_mut().insert("x-a", "y".repeat(9000).parse().expect("a value"));
    let mut large = get("/");
    for at in 0..9 {
        large.headers_mut().insert(
            http::HeaderName::try_from(format!("x-{at}")).expect("a name"),
            "y".repeat(4000).parse().expect("a value"),
        );
    }
    for asked in [crumbs, long, large, get(&format!("/{}", "z".repeat(9000)))] {
        let (response, _) = client.ready().await.send_request(asked, true).expect("a request");
        let response = whole(response.await.expect("a response")).await;
        assert!(matches!(response.status, 431 | 414), "{}", response.status);
    }
    let lines = lines.after(4).await;
    assert_eq!(lines[0], "431 head_too_large too many fields|GET / HTTP/2.0");
    assert_eq!(lines[1], "431 head_too_large field line too long|GET / HTTP/2.0");
    assert_eq!(lines[2], "431 head_too_large head too long|GET / HTTP/2.0");
    assert_eq!(lines[3], "414 head_too_large request line too long|");
    assert!(origin.received().is_empty());
}

/// A value in the HPACK table, and thousands of one-byte references to it; then more names than a map can hold.
#[tokio::test]
async fn bombs_of_compressed_fields_are_refused() {
    let mut bomb = head(&[]);
    bomb.push(0x40);
    bomb.extend(&fields(&[("x-a", "y".repeat(3900))])[1..]);
    bomb.extend(vec![0xbe; 10_000]);
    closed_for(Reason::ENHANCE_YOUR_CALM, [Frame::new(HEADERS, END_HEADERS | END_STREAM, 1, bomb)]).await;
    let names: Vec<_> = (0..25_000).map(|at| (format!("x{at}"), String::new())).collect();
    let mut all = head(&[]);
    all.extend(fields(&names));
    let mut pieces = all.chunks(16_000);
    let first = Frame::new(HEADERS, END_STREAM, 1, pieces.next().expect("a piece"));
    let rest: Vec<_> = pieces.map(|piece| Frame::new(CONTINUATION, 0, 1, piece)).collect();
    closed_for(Reason::ENHANCE_YOUR_CALM, std::iter::once(first).chain(rest)).await;
}

/// How a request is refused: with a status of 400, a reset, or the end of the connection.
async fn refusal(frames: Vec<Frame>) -> &'static str {
    let origin = Origin::start("a");
    let proxy = TestProxy::to(&[&origin]);
    let mut client = Frames::connect(proxy.http).await;
    client.send_all(frames).await;
    let answer = client.next_of(&[HEADERS, RST_STREAM, GOAWAY]).await;
    assert_eq!(origin.requests(), 0, "a request reached the endpoint");
    match answer.kind {
        // `:status: 400` of the static table.
        HEADERS if answer.payload[0] == 0x8c => "400",
        HEADERS => "another answer",
        RST_STREAM if answer.code() == Reason::PROTOCOL_ERROR => "reset",
        GOAWAY if answer.code() == Reason::PROTOCOL_ERROR => "closed",
        _ => "another code",
    }
}

#[tokio::test]
async fn malformed_heads_reach_no_endpoint() {
    let plain: &[(&str, &str)] = &[(":method", "GET"), (":scheme", "http"), (":authority", HOST), (":path", "/")];
    let with = |more: &[(&str, &str)]| fields(&[plain, more].concat());
    let without = |name: &str| fields(&plain.iter().copied().filter(|(own, _)| *own != name).collect::<Vec<_>>());
    let instead = |name: &str, value: &str| {
        let change = |&(own, old): &(&str, &str)| (own.to_owned(), if own == name { value } else { old }.to_owned());
        fields(&plain.iter().map(change).collect::<Vec<_>>())
    };
    for (what, head, expected) in [
        ("transfer-encoding", with(&[("transfer-encoding", "chunked")]), &["reset"][..]),
        ("connection", with(&[("connection", "close")]), &["reset"]),
        ("keep-alive", with(&[("keep-alive", "1")]), &["reset"]),
        ("upgrade", with(&[("upgrade", "h2c")]), &["reset"]),
        ("proxy-connection", with(&[("proxy-connection", "close")]), &["reset"]),
        ("te", with(&[("te", "gzip")]), &["reset"]),
        ("upper case", with(&[("X-A", "b")]), &["reset", "closed"]),
        ("a line end in a value", with(&[("x-a", "b\r\nx: y")]), &["reset", "closed"]),
        ("NUL in a value", with(&[("x-a", "b\0")]), &["reset", "closed"]),
        ("a space in a name", with(&[("x a", "b")]), &["reset", "closed"]),
        ("a line end in a name", with(&[("x\r\na", "b")]), &["reset", "closed"]),
        ("white space before a value", with(&[("x-a", " b")]), &["400"]),
        ("a line end in a path", instead(":path", "/\r\nx: y"), &["reset", "closed"]),
        ("a space in a path", instead(":path", "/ HTTP/1.1"), &["reset", "closed", "400"]),
        ("a path without slash", instead(":path", "a"), &["reset", "400"]),
        ("an empty path", instead(":path", ""), &["reset"]),
        ("a space in a method", instead(":method", "GET /x"), &["reset", "closed"]),
        ("a method in lower case", instead(":method", "get"), &["400"]),
        ("user information", instead(":authority", "a@b"), &["400", "reset"]),
        ("an empty authority", instead(":authority", ""), &["400", "reset"]),
        ("no method", without(":method"), &["reset"]),
        ("no scheme", without(":scheme"), &["reset"]),
        ("no path", without(":path"), &["reset", "400"]),
        ("no authority", without(":authority"), &["400"]),
        ("a second path", with(&[(":path", "/a")]), &["reset"]),
        ("an unknown pseudo-header", with(&[(":x", "y")]), &["reset", "closed"]),
        ("a status", with(&[(":status", "200")]), &["reset"]),
        ("a late pseudo-header", fields(&[&[("x-a", "b")], plain].concat()), &["reset"]),
        ("two hosts", with(&[("host", HOST), ("host", HOST)]), &["400"]),
        ("another host", with(&[("host", "other.example")]), &["400"]),
        ("a length without a body", with(&[("content-length", "5")]), &["reset"]),
        ("two lengths", with(&[("content-length", "0"), ("content-length", "0")]), &["400"]),
        ("a length with a sign", with(&[("content-length", "+0")]), &["reset", "400"]),
    ] {
        let refusal = refusal(vec![Frame::new(HEADERS, END_HEADERS | END_STREAM, 1, head)]).await;
        assert!(expected.contains(&refusal), "{what}: {refusal}");
    }
}

/// H2.CL: an endpoint would read what is missing from the next request, or take the excess for the next request.
#[tokio::test]
async fn bodies_that_differ_from_their_length_reach_no_endpoint_whole() {
    for (length, data) in [("5", "abc"), ("3", "abcde"), ("5", "")] {
        let ask = Frame::new(HEADERS, END_HEADERS, 1, head(&[("content-length", length)]));
        let refused = refusal(vec![ask, Frame::new(DATA, END_STREAM, 1, data)]).await;
        assert_eq!(refused, "reset", "{length} and {data}");
    }
}
