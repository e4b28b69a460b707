//! gRPC: the proxy's own errors in its terms, the client's deadline, compression, and calls while endpoints come and go.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::support;
use crate::support::h2_origin::{Call, H2Origin};
use crate::support::http2::{END_STREAM, Frames, H2, HEADERS, Whole, body_of, fields, whole};
use crate::support::log::{Lines, logging};
use crate::support::{HOST, TestProxy, backend, endpoints, filtered, forward, host, route};
use bytes::Bytes;
use fairway_model::{
    AccessList, ByteLimit, CodingRules, Compression, Filter, ForwardPolicy, NetworkSet, Resource, Settings,
    UpstreamProtocol,
};
use fairway_testkit::{Gate, eventually, within};
use h2::Reason;
use h2::server::Builder;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};

fn policy() -> ForwardPolicy {
    ForwardPolicy { protocol: UpstreamProtocol::Http2, ..ForwardPolicy::default() }
}

fn call_of(path: &str, kind: &'static str) -> Request<()> {
    let mut request = support::http2::post(path);
    request.headers_mut().insert("content-type", HeaderValue::from_static(kind));
    request.headers_mut().insert("te", HeaderValue::from_static("trailers"));
    request
}

/// A unary call with a message of one byte.
async fn unary(client: &H2, request: Request<()>) -> Whole {
    let (response, mut send) = client.ready().await.send_request(request, false).expect("a request");
    // The answer may arrive first.
    let _ = send.send_data(Bytes::from_static(b"\0\0\0\0\x01x"), true);
    whole(within("an answer", response).await.expect("an answer")).await
}

fn status_of(answer: &Whole) -> (u16, Option<&str>, Option<&str>) {
    (answer.status, answer.field("grpc-status"), answer.field("grpc-message"))
}

/// Answers with the message and status 0.
async fn serve(mut call: Call) {
    let (body, _) = call.body().await;
    let mut response = Response::new(());
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    let Ok(mut send) = call.respond.send_response(response, false) else { return };
    if send.send_data(body.into(), false).is_ok() {
        let status = (HeaderName::from_static("grpc-status"), HeaderValue::from_static("0"));
        let _ = send.send_trailers(HeaderMap::from_iter([status]));
    }
}

#[tokio::test]
async fn errors_of_the_proxy_reach_clients_of_grpc_as_a_status() {
    let silent = H2Origin::start(|call: Call| async move {
        let _held = call;
        std::future::pending::<()>().await;
    })
    .await;
    let reset = H2Origin::start(|mut call: Call| async move { call.respond.send_reset(Reason::INTERNAL_ERROR) }).await;
    let hurried = ForwardPolicy { read_timeout: Duration::from_millis(60), ..policy() };
    let small = ForwardPolicy { max_body: ByteLimit::of(2), ..policy() };
    let nobody = AccessList { deny: NetworkSet::default(), allow: Some(NetworkSet::default()) };
    let mut resources: Vec<Resource> = Vec::new();
    for (name, addresses) in [("silent", vec![silent.address]), ("reset", vec![reset.address]), ("none", Vec::new())] {
        resources.extend(backend(name, &addresses));
    }
    resources.push(host(
        HOST,
        vec![
            route("/none", forward("none", policy())),
            route("/gone", forward("gone", policy())),
            route("/silent", forward("silent", hurried)),
            route("/reset", forward("reset", policy())),
            route("/large", forward("silent", small)),
            filtered(route("/closed", forward("silent", policy())), vec![Filter::AccessList(nobody)]),
        ],
    ));
    let proxy = TestProxy::start(resources);
    let client = H2::connect(proxy.http).await;
    for (path, http, code, message) in [
        ("/none", 503, "14", "no_endpoint"),
        ("/gone", 503, "14", "no_service"),
        ("/silent", 504, "4", "read_timeout"),
        ("/reset", 502, "14", "upstream_reset"),
        ("/large", 413, "8", "body_too_large"),
        ("/closed", 403, "7", "access_denied"),
        ("/nowhere", 404, "12", "no_route"),
    ] {
        let answer = unary(&client, call_of(path, "application/grpc+proto")).await;
        assert_eq!(status_of(&answer), (200, Some(code), Some(message)), "{path}");
        assert_eq!((answer.field("content-type"), answer.text()), (Some("application/grpc"), ""), "{path}");
        for kind in ["application/grpc-web", "application/json"] {
            let answer = unary(&client, call_of(path, kind)).await;
            assert_eq!(status_of(&answer), (http, None, None), "{path} {kind}");
        }
    }
    // One head, and nothing after it.
    let mut client = Frames::connect(proxy.http).await;
    let head = [(":method", "POST"), (":scheme", "http"), (":authority", HOST), (":path", "/none")];
    client.ask(1, fields(&[&head[..], &[("content-type", "application/grpc")]].concat())).await;
    assert_eq!(client.next_of(&[HEADERS]).await.flags & END_STREAM, END_STREAM);
}

#[tokio::test]
async fn a_call_may_last_until_the_time_of_its_client_has_passed() {
    let origin = H2Origin::start(|mut call: Call| async move {
        let mut send = call.respond.send_response(Response::new(()), false).expect("a response");
        // Until the stream is reset.
        let _ = std::future::poll_fn(|cx| send.poll_reset(cx)).await;
    })
    .await;
    let mut resources = backend("web", &[origin.address]);
    resources.push(host(HOST, vec![route("/", forward("web", policy()))]));
    let proxy = TestProxy::start(resources);
    let client = H2::connect(proxy.http).await;
    let mut call = call_of("/", "application/grpc");
    call.headers_mut().insert("grpc-timeout", HeaderValue::from_static("80m"));
    let (response, _send) = client.ready().await.send_request(call, false).expect("a request");
    let mut body = within("a response", response).await.expect("a response").into_body();
    assert_eq!(support::http2::reason(body_of(&mut body).await), Reason::CANCEL);
}

#[tokio::test]
async fn messages_are_not_compressed() {
    let origin = H2Origin::start(serve).await;
    let rules = CodingRules { level: 1, min_length: 0, types: vec!["*".into()], disabled_for: None };
    let settings = Settings { compression: Compression { gzip: Some(rules), brotli: None }, ..Settings::default() };
    let mut resources = backend("web", &[origin.address]);
    resources.push(host(HOST, vec![route("/", forward("web", policy()))]));
    resources.push(settings.into());
    let proxy = TestProxy::start(resources);
    let client = H2::connect(proxy.http).await;
    let mut call = call_of("/", "application/grpc");
    call.headers_mut().insert("accept-encoding", HeaderValue::from_static("gzip"));
    let answer = unary(&client, call).await;
    assert_eq!((answer.field("content-encoding"), answer.text()), (None, "\0\0\0\0\x01x"));
    assert_eq!(answer.trailers.expect("trailers")["grpc-status"], "0");
}

/// Calls go on while every endpoint is replaced by another one: the old ones end their connections with GOAWAY and then go.
#[tokio::test]
async fn a_rolling_update_fails_no_call() {
    let mut origins = vec![H2Origin::start(serve).await, H2Origin::start(serve).await];
    let addresses = |origins: &[H2Origin]| origins.iter().map(|origin| origin.address).collect::<Vec<_>>();
    let mut resources = backend("web", &addresses(&origins));
    resources.push(host(HOST, vec![route("/", forward("web", policy()))]));
    let proxy = TestProxy::start(resources);
    let (done, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let (done, calls, address) = (done.clone(), calls.clone(), proxy.http);
            tokio::spawn(async move {
                let client = H2::connect(address).await;
                while !done.load(Ordering::Relaxed) {
                    let answer = unary(&client, call_of("/", "application/grpc")).await;
                    assert_eq!(status_of(&answer), (200, None, None));
                    assert_eq!(answer.trailers.expect("trailers")["grpc-status"], "0");
                    calls.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for _ in 0..4 {
        let before = calls.load(Ordering::Relaxed);
        eventually("more calls", async || calls.load(Ordering::Relaxed) > before + 50).await;
        origins.push(H2Origin::start(serve).await);
        proxy.publish([endpoints("web", &addresses(&origins[1..]))]).await;
        origins.remove(0).leave().await;
    }
    done.store(true, Ordering::Relaxed);
    for caller in callers {
        within("the last call", caller).await.expect("no failed call");
    }
}

/// 10,000 streams at a time, as many on each connection as it may have.
#[tokio::test]
async fn many_calls_at_once_are_served_over_few_connections() {
    const CALLS: usize = 10_000;
    const CONNECTIONS: usize = 100;
    let (gate, waiting) = (Gate::new(), Arc::new(AtomicUsize::new(0)));
    let (opens, count) = (gate.clone(), waiting.clone());
    let held = move |call: Call| {
        let (opens, count) = (opens.clone(), count.clone());
        async move {
            count.fetch_add(1, Ordering::Relaxed);
            opens.pass().await;
            serve(call).await;
        }
    };
    let origin = H2Origin::with(Builder::new().max_concurrent_streams(1000), None, held).await;
    let mut resources = backend("web", &[origin.address]);
    resources.push(host(HOST, vec![route("/", forward("web", policy()))]));
    let proxy = TestProxy::start(resources);
    let mut calls = Vec::new();
    for _ in 0..CONNECTIONS {
        let client = Arc::new(H2::connect(proxy.http).await);
        for _ in 0..CALLS / CONNECTIONS {
            let client = client.clone();
            calls.push(tokio::spawn(async move {
                let asked = client.ready().await.send_request(call_of("/", "application/grpc"), false);
                let (response, mut send) = asked.expect("a request");
                send.send_data(Bytes::from_static(b"\0\0\0\0\x02hi"), true).expect("a message");
                // Without a limit on the time: the first one may end when the last one was begun.
                let mut body = response.await.expect("a response").into_body();
                while let Some(data) = body.data().await {
                    body.flow_control().release_capacity(data.expect("data").len()).expect("an open stream");
                }
                body.trailers().await.expect("trailers")
            }));
        }
        let begun = calls.len();
        eventually("the calls are at the endpoint", async || waiting.load(Ordering::Relaxed) == begun).await;
    }
    assert!(origin.connections() <= CONNECTIONS + 2, "{} connections", origin.connections());
    gate.release();
    for call in calls {
        assert_eq!(call.await.expect("no panic").expect("trailers")["grpc-status"], "0");
    }
}

#[tokio::test]
async fn the_log_tells_the_status_of_calls() {
    let only_trailers = |mut call: Call| async move {
        call.body().await;
        if call.request.uri().path() == "/trailers/only" {
            let mut response = Response::new(());
            response.headers_mut().insert("grpc-status", HeaderValue::from_static("5"));
            return call.answer(response, "");
        }
        let Ok(mut send) = call.respond.send_response(Response::new(()), false) else { return };
        let _ = send.send_data(Bytes::from_static(b"x"), false);
        let status = (HeaderName::from_static("grpc-status"), HeaderValue::from_static("16"));
        let _ = send.send_trailers(HeaderMap::from_iter([status]));
    };
    let origin = H2Origin::start(only_trailers).await;
    let mut resources = backend("web", &[origin.address]);
    resources.extend(backend("none", &[]));
    resources.push(host(
        HOST,
        vec![route("/none", forward("none", policy())), route("/trailers", forward("web", policy()))],
    ));
    let lines = Lines::default();
    let proxy = TestProxy::start_with(resources, logging(&lines, "$status $grpc_status"));
    let client = H2::connect(proxy.http).await;
    for path in ["/trailers", "/trailers/only", "/none"] {
        unary(&client, call_of(path, "application/grpc")).await;
    }
    client.get("/nowhere").await;
    assert_eq!(lines.after(4).await, ["200 16", "200 5", "503 14", "404 -"]);
}
