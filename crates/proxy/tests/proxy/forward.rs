//! Requests that are forwarded to a backend, and what the backend and the client see.

use crate::support;
use crate::support::{HOST, TestProxy, backend, forward, forwarding, host, route};
use fairway_model::{FieldEdit, ForwardPolicy, Resource, Settings, Template};
use fairway_testkit::{Client, Framing, Gate, Origin, Reply, When};

#[tokio::test]
async fn a_request_goes_through_and_the_connections_are_kept() {
    let origin = Origin::new("a").reply(Reply::ok().body("hello")).start();
    let proxy = TestProxy::to(&[&origin]);
    let mut client = proxy.connect().await;
    for at in 0..3 {
        let response = client.get(HOST, &format!("/x?{at}")).await;
        assert_eq!((response.status, response.text().as_str()), (200, "hello"));
        assert_eq!(origin.next_request().await.target, format!("/x?{at}"));
    }
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn the_head_of_a_response_is_as_large_as_the_route_allows() {
    let origin = Origin::new("a").reply(Reply::ok().padding(200_000).body("hello")).start();
    let policy = |limit| ForwardPolicy { max_response_head: limit, ..ForwardPolicy::default() };
    let mut resources = backend("web", &[origin.address()]);
    let way = |path: &str, limit| route(path, forward("web", policy(limit)));
    resources.push(host(HOST, vec![way("/", None), way("/more", Some(128 << 10)), way("/most", Some(256 << 10))]));
    let proxy = TestProxy::start(resources);
    let mut client = proxy.connect().await;
    for (path, status) in [("/", 502), ("/more", 502), ("/most", 200), ("/", 502)] {
        assert_eq!(client.get(HOST, path).await.status, status, "{path}");
    }
}

#[tokio::test]
async fn an_empty_port_counts_as_none() {
    let origin = Origin::start("a");
    let proxy = TestProxy::to(&[&origin]);
    let response = proxy.connect().await.request("GET", "/", &[("host", &format!("{HOST}:"))], b"").await;
    assert_eq!((response.status, response.echo().headers.all("host")), (200, vec![HOST]));
}

#[tokio::test]
async fn the_backend_sees_who_asked_and_nothing_that_the_client_made_up() {
    let origin = Origin::start("a");
    let proxy = TestProxy::to(&[&origin]);
    let mut client = proxy.connect().await;
    let response = client
        .request(
            "GET",
            "/",
            &[
                ("host", HOST),
                ("X-Forwarded-For", "6.6.6.6"),
                ("X_Forwarded_Proto", "https"),
                ("X-Real-IP", "6.6.6.6"),
                ("Forwarded", "for=6.6.6.6"),
                ("X-Original-URL", "/admin"),
                ("Proxy", "http://evil"),
                ("Keep-Alive", "timeout=5"),
                ("TE", "trailers"),
                ("Connection", "X-Custom, X-Forwarded-For"),
                ("X-Custom", "1"),
                ("Accept", "*/*"),
            ],
            b"",
        )
        .await;
    let echo = response.echo();
    assert_eq!(echo.version, "HTTP/1.1");
    assert_eq!(echo.headers.all("host"), [HOST]);
    assert_eq!(echo.headers.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(echo.headers.all("x-real-ip"), ["127.0.0.1"]);
    assert_eq!(echo.headers.all("x-forwarded-host"), [HOST]);
    assert_eq!(echo.headers.all("x-forwarded-proto"), ["http"]);
    assert_eq!(echo.headers.all("x-forwarded-scheme"), ["http"]);
    assert_eq!(echo.headers.all("x-scheme"), ["http"]);
    assert_eq!(echo.headers.all("x-forwarded-port"), [proxy.http.port().to_string()]);
    assert_eq!(echo.headers.all("x-request-id")[0].len(), 32);
    assert_eq!(echo.header("accept"), Some("*/*"));
    for gone in
        ["forwarded", "x-original-url", "proxy", "keep-alive", "te", "connection", "x-custom", "x_forwarded_proto"]
    {
        assert!(!echo.headers.has(gone), "{gone}: {echo:?}");
    }
}

#[tokio::test]
async fn fields_of_the_settings_are_set_for_backends_and_clients() {
    let origin = Origin::new("a")
        .reply_with(|request| {
            Reply::echo("a", request)
                .header("Server", "secret/1.0")
                .header("X-Powered-By", "php")
                .header("X-Accel-Redirect", "/x")
                .header("Date", "Thu, 01 Jan 1970 00:00:00 GMT")
        })
        .start();
    let field = |name: &str, value: &str| FieldEdit::set(name, value).expect("a name");
    let settings = Settings {
        request_fields: vec![
            field("X-Path", "$request_uri by $remote_addr"),
            field("User-Agent", ""),
            field("Content-Length", "7"),
        ],
        response_fields: vec![field("X-Added", "yes")],
        hidden_response_fields: vec!["x-powered-by".into()],
        original_uri_header: true,
        ..Settings::default()
    };
    let proxy = TestProxy::with_settings(&[&origin], settings);
    let mut client = proxy.connect().await;
    let response = client.request("GET", "/a?b", &[("host", HOST), ("User-Agent", "x")], b"").await;
    let echo = response.echo();
    assert_eq!(echo.headers.all("x-path"), ["/a?b by 127.0.0.1"]);
    assert!(!echo.headers.has("user-agent") && !echo.headers.has("content-length"));
    assert_eq!(echo.header("x-original-uri"), Some("/a?b"));
    assert_eq!(response.header("x-added"), Some("yes"));
    assert_eq!(response.headers().all("date"), ["Thu, 01 Jan 1970 00:00:00 GMT"]);
    for gone in ["server", "x-powered-by", "x-accel-redirect"] {
        assert_eq!(response.header(gone), None, "{gone}");
    }
}

#[tokio::test]
async fn the_host_for_the_backend_can_be_another_one() {
    let origin = Origin::start("a");
    let policy = ForwardPolicy { upstream_host: Some(Template::parse("internal.example")), ..ForwardPolicy::default() };
    let proxy = TestProxy::with_policy(&[&origin], policy);
    let echo = proxy.connect().await.get(HOST, "/").await.echo();
    assert_eq!((echo.header("host"), echo.header("x-forwarded-host")), (Some("internal.example"), Some(HOST)));
}

#[tokio::test]
async fn bodies_go_both_ways_whatever_their_framing() {
    let origin = Origin::start("a");
    let proxy = TestProxy::to(&[&origin]);
    let mut client = proxy.connect().await;
    let body = vec![b'x'; 3 << 20];
    let policy_limit = vec![b'y'; 1 << 20];
    let response = client.request("POST", "/", &[("host", HOST)], &policy_limit).await;
    assert_eq!(response.echo().body_length, 1 << 20);
    origin.set_reply(Reply::ok().body(&body));
    assert_eq!(client.get(HOST, "/").await.body, body);
    origin.set_reply(Reply::ok().chunked([&body[..1], &body[1..70_000], &body[70_000..]]).trailer("X-Sum", "1"));
    let response = client.get(HOST, "/").await;
    assert_eq!((response.body == body, response.framing), (true, Framing::Chunked));
    assert_eq!(response.trailers.get("x-sum"), Some("1"));
    origin.set_reply(Reply::ok().close_delimited(&body));
    let response = client.get(HOST, "/").await;
    assert_eq!((response.body == body, response.framing), (true, Framing::Chunked));
    origin.set_reply(Reply::ok().body("still there"));
    assert_eq!(client.get(HOST, "/").await.text(), "still there");
}

#[tokio::test]
async fn chunked_requests_stay_chunked_and_keep_their_trailers() {
    let origin = Origin::start("a");
    let proxy = TestProxy::to(&[&origin]);
    let mut client = proxy.connect().await;
    client
        .send(format!(
            "POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n\
             5;ext=1\r\nhello\r\n6\r\n world\r\n0\r\nX-Sum: 1\r\nAuthorization: no\r\n\r\n"
        ))
        .await;
    assert_eq!(client.read_response().await.echo().body, "hello world");
    let request = origin.next_request().await;
    assert_eq!((request.framing, request.body.as_slice()), (Framing::Chunked, &b"hello world"[..]));
    assert_eq!(request.trailers.names(), ["X-Sum"]);
    assert_eq!(client.get(HOST, "/").await.status, 200);
}

#[tokio::test]
async fn clients_of_http_1_0_get_what_they_understand() {
    let origin = Origin::new("a").reply(Reply::ok().interim(103, &[("link", "</x>")]).chunked(["ab", "c"])).start();
    let proxy = TestProxy::to(&[&origin]);
    let mut client = proxy.connect().await;
    client.send(format!("GET / HTTP/1.0\r\nHost: {HOST}\r\nConnection: keep-alive\r\n\r\n")).await;
    let text = String::from_utf8(client.read_to_end().await).unwrap();
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\nabc"), "{text}");
    assert!(text.contains("Connection: close"), "{text}");

    origin.set_reply(Reply::ok().body("abc"));
    let mut client = proxy.connect().await;
    for _ in 0..2 {
        client.send(format!("GET / HTTP/1.0\r\nHost: {HOST}\r\nConnection: keep-alive\r\n\r\n")).await;
        let response = client.read_response().await;
        assert_eq!((response.text().as_str(), response.header("connection")), ("abc", Some("keep-alive")));
    }
}

#[tokio::test]
async fn responses_without_body_leave_the_connection_usable() {
    let origin = Origin::new("a").start();
    let proxy = TestProxy::to(&[&origin]);
    let mut client = proxy.connect().await;
    origin.set_reply(Reply::ok().body("abc"));
    let head = client.request("HEAD", "/", &[("host", HOST)], b"").await;
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("3"), 0));
    origin.set_reply(Reply::status(204));
    assert_eq!(client.get(HOST, "/").await.status, 204);
    origin.set_reply(Reply::status(304).header("content-length", "99").unframed(""));
    let response = client.get(HOST, "/").await;
    assert_eq!((response.status, response.header("content-length")), (304, Some("99")));
    origin.set_reply(Reply::ok().body("abc"));
    assert_eq!(client.get(HOST, "/").await.text(), "abc");
    assert_eq!(origin.connections(), 1, "all of them leave the backend connection usable too");
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let origin = Origin::new("a").reply_with(|request| Reply::ok().body(&request.target)).start();
    let proxy = TestProxy::to(&[&origin]);
    let mut client = proxy.connect().await;
    let one = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    let post = format!("POST /2 HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 3\r\n\r\nabc");
    client.send([one("/1"), post, one("/3"), one("/missing"), one("/4")].concat()).await;
    for expected in ["/1", "/2", "/3", "/missing", "/4"] {
        assert_eq!(client.read_response().await.text(), expected);
    }
    assert_eq!(origin.seen()[1].body, b"abc");
}

#[tokio::test]
async fn an_expectation_is_met_here_and_only_when_the_body_is_wanted() {
    let origin = Origin::new("a").when(When::NoContinue).start();
    let proxy = TestProxy::to(&[&origin]);
    let mut client = proxy.connect().await;
    let head = |host: &str, length: u64| {
        format!("POST / HTTP/1.1\r\nHost: {host}\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n")
    };
    client.send(head(HOST, 5)).await;
    assert_eq!(client.read_until("\r\n\r\n").await, b"HTTP/1.1 100 Continue\r\n\r\n");
    client.send("hello").await;
    let echo = client.read_response().await.echo();
    assert_eq!((echo.body.as_str(), echo.header("expect")), ("hello", None));

    // The body is sent with the head, so there is no need for `100 Continue`.
    client.send(head(HOST, 5) + "hello").await;
    assert_eq!(client.read_response().await.interim.len(), 0);

    for (host, length, status) in [("unknown.example", 5, 404), (HOST, 2 << 20, 413)] {
        let mut client = proxy.connect().await;
        client.send(head(host, length)).await;
        let response = client.read_response().await;
        assert_eq!((response.status, response.interim.len()), (status, 0));
        assert_eq!(response.header("connection"), Some("close"));
        client.half_close().await;
        client.ended().await;
    }
}

#[tokio::test]
async fn interim_responses_pass_and_a_hundred_does_not() {
    let reply = Reply::ok().interim(100, &[]).interim(102, &[("link", "</style.css>")]).body("x");
    let origin = Origin::new("a").reply(reply).start();
    let proxy = TestProxy::to(&[&origin]);
    let response = proxy.connect().await.get(HOST, "/").await;
    assert_eq!(response.interim.len(), 1);
    assert_eq!(response.interim[0].headers.get("link"), Some("</style.css>"));
    assert_eq!(response.text(), "x");
}

#[tokio::test]
async fn early_hints_reach_browsers_and_no_program_that_may_take_them_for_the_response() {
    let origin = Origin::new("a").reply(Reply::ok().interim(103, &[("link", "</style.css>")]).body("x")).start();
    let proxy = TestProxy::to(&[&origin]);
    for (mode, hints) in [(None, 0), (Some("cors"), 0), (Some("navigate"), 1)] {
        let fields: Vec<_> = [("host", HOST)].into_iter().chain(mode.map(|mode| ("Sec-Fetch-Mode", mode))).collect();
        let response = proxy.connect().await.request("GET", "/", &fields, b"").await;
        assert_eq!((response.status, response.interim.len(), &*response.text()), (200, hints, "x"), "{mode:?}");
    }
}

#[tokio::test]
async fn a_response_streams_while_the_request_still_does() {
    let gate = Gate::new();
    let origin =
        Origin::new("a").when(When::Head).reply(Reply::ok().chunked(["first", "second"]).body_held_by(&gate)).start();
    let proxy = TestProxy::to(&[&origin]);
    let mut client = proxy.connect().await;
    client.send(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 10\r\n\r\nhello")).await;
    gate.release_one();
    client.read_until("first\r\n").await;
    client.send("world").await;
    gate.release();
    client.read_until("0\r\n\r\n").await;
    origin.has_received(1, "helloworld").await;
}

#[tokio::test]
async fn an_answer_before_the_end_of_the_request_ends_the_connection_in_good_order() {
    let origin = Origin::new("a").when(When::Head).reply(Reply::status(403).body("no").then_close()).start();
    let proxy = TestProxy::to(&[&origin]);
    let mut client = proxy.connect().await;
    client.send(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 1000000\r\n\r\nhello")).await;
    let response = client.read_response().await;
    assert_eq!((response.status, response.text().as_str()), (403, "no"));
    assert_eq!(response.header("connection"), Some("close"));
    // The proxy reads on for a while, so that the client is not reset while it sends.
    client.send(vec![b'x'; 900_000]).await;
    client.half_close().await;
    assert_eq!(client.ended().await, fairway_testkit::Ended::Closed);
    assert_eq!(proxy.connect().await.get("unknown.example", "/").await.status, 404);
}

#[tokio::test]
async fn a_slow_reader_holds_up_its_own_response_only() {
    let body = vec![b'z'; 8 << 20];
    let origin = Origin::new("a").reply(Reply::ok().body(&body)).start();
    let proxy = TestProxy::to(&[&origin]);
    let mut slow = Client::builder().receive_buffer(4096).connect(proxy.http).await;
    slow.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    assert_eq!(proxy.connect().await.get(HOST, "/").await.body.len(), body.len());
    assert_eq!(slow.read_response().await.body, body);
}

#[tokio::test]
async fn hosts_and_paths_are_chosen_as_the_snapshot_says() {
    let (a, b) = (Origin::start("a"), Origin::start("b"));
    let mut resources = backend("a", &[a.address()]);
    resources.extend(backend("b", &[b.address()]));
    let policy = ForwardPolicy::default;
    let routes = vec![route("/", forward("a", policy())), route("/order", forward("b", policy()))];
    resources.push(host(HOST, routes));
    resources.push(host("*.wild.example", vec![route("/", forward("b", policy()))]));
    let proxy = TestProxy::start(resources);
    let mut client = proxy.connect().await;
    for (name, target, expected) in [
        (HOST, "/", "a"),
        (HOST, "/order/7?x", "b"),
        (HOST, "/orders", "a"),
        ("APP.Example.:8080", "/order", "b"),
        ("x.wild.example", "/", "b"),
        (HOST, "/a/../order", "b"),
        (HOST, "/%6frder", "b"),
        (HOST, "http://x.wild.example/y", "b"),
    ] {
        assert_eq!(client.get(name, target).await.echo().origin, expected, "{name} {target}");
    }
    for (name, target) in [("wild.example", "/"), ("x.y.wild.example", "/"), ("unknown", "/")] {
        assert_eq!(client.get(name, target).await.status, 404, "{name} {target}");
    }
    assert_eq!(client.get(HOST, "/x/../order?q=/../").await.echo().target, "/order?q=/../");
}

#[tokio::test]
async fn a_backend_without_endpoint_is_answered_503() {
    let proxy = TestProxy::start(forwarding(&[], ForwardPolicy::default()));
    let mut client = proxy.connect().await;
    assert_eq!(client.get(HOST, "/").await.status, 503);
    let missing = host("lost.example", vec![route("/", forward("nobody", ForwardPolicy::default()))]);
    proxy.publish([missing]).await;
    assert_eq!(client.get("lost.example", "/").await.status, 503);
    let origin = Origin::start("late");
    proxy.publish([support::endpoints("web", &[origin.address()])]).await;
    assert_eq!(client.get(HOST, "/").await.echo().origin, "late");
}

#[tokio::test]
async fn connections_end_after_so_many_requests() {
    let origin = Origin::start("a");
    let settings = Settings { keep_alive_requests: 2, ..Settings::default() };
    let proxy = TestProxy::with_settings(&[&origin], settings);
    let mut client = proxy.connect().await;
    assert_eq!(client.get(HOST, "/").await.header("connection"), None);
    assert_eq!(client.get(HOST, "/").await.header("connection"), Some("close"));
    client.ended().await;
    let settings = Resource::from(Settings { keep_alive: None, ..Settings::default() });
    proxy.publish([settings]).await;
    let mut client = proxy.connect().await;
    assert_eq!(client.get(HOST, "/").await.header("connection"), Some("close"));
    client.ended().await;
}

#[tokio::test]
async fn an_interim_response_that_was_begun_is_finished_before_the_answer() {
    let hint = format!("HTTP/1.1 103 Early Hints\r\nLink: </{}>\r\n\r\n", "x".repeat(60_000));
    let origin = Origin::new("a").reply(Reply::raw(hint.repeat(31)).then_close()).start();
    let proxy = TestProxy::to(&[&origin]);
    // The kernels of both sides buffer only a part of it.
    let mut client = Client::builder().receive_buffer(4096).connect(proxy.http).await;
    client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n")).await;
    origin.next_request().await;
    origin.idle().await;
    let (received, _) = client.drain().await;
    let text = String::from_utf8_lossy(&received);
    let mut rest = &*text;
    while let Some(after) = rest.strip_prefix(&*hint) {
        rest = after;
    }
    assert!(rest.starts_with("HTTP/1.1 502 "), "{}", &rest[..rest.len().min(100)]);
}
