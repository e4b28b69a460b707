//! When another endpoint is tried, and when none may be.

use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use crate::support;
use crate::support::{HOST, TestProxy, backend_alone, config, endpoints, forward, forwarding, host, route};
use fairway_model::{
    Backend, ForwardPolicy, Origin as Owner, Resource, Retry, RetryConstraint, RetryOn, Settings, StreamListener,
    StreamSettings, Transport, UpstreamTls,
};
use fairway_proxy::ProxyConfig;
use fairway_testkit::{Ca, Client, Fault, Gate, Origin, Reply, eventually};

fn on(retry: Retry) -> ForwardPolicy {
    ForwardPolicy { retry, connect_timeout: Duration::from_millis(100), ..ForwardPolicy::default() }
}

fn only(on: RetryOn) -> Retry {
    Retry { on, ..Retry::default() }
}

#[tokio::test]
async fn an_endpoint_that_cannot_be_reached_is_passed_over() {
    for fault in [Fault::Refuse, Fault::Unreachable] {
        let (down, up) = (Origin::new("down").fault(fault).start(), Origin::start("up"));
        let proxy = TestProxy::with_policy(&[&down, &up], on(Retry::default()));
        let mut client = proxy.connect().await;
        for _ in 0..4 {
            let response = client.request("POST", "/", &[("host", HOST)], b"body").await;
            assert_eq!((response.echo().origin.as_str(), response.echo().body.as_str()), ("up", "body"), "{fault:?}");
        }
    }
}

/// Connecting may take so long here that a test that waits for all of it fails.
const LONG: Duration = Duration::from_secs(60);

fn one_worker() -> ProxyConfig {
    ProxyConfig { workers: NonZeroUsize::new(1), ..config() }
}

#[tokio::test]
async fn an_endpoint_that_is_gone_is_no_longer_waited_for() {
    let gone = Origin::new("gone").fault(Fault::Unreachable).start();
    let new = Origin::start("new");
    let policy = ForwardPolicy { connect_timeout: LONG, ..ForwardPolicy::default() };
    let proxy = TestProxy::start_with(forwarding(&[&gone], policy), one_worker());
    let mut client = proxy.connect().await;
    client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    after_the_others(&proxy).await;
    proxy.publish([endpoints("web", &[new.address()])]).await;
    assert_eq!(client.read_response().await.echo().origin, "new");
}

#[tokio::test]
async fn endpoints_that_are_gone_are_not_tried() {
    let gone = [1, 2, 3].map(|_| Origin::new("gone").fault(Fault::Unreachable).start());
    let new = Origin::start("new");
    let retry = Retry { tries: Some(2), ..Retry::default() };
    let policy = ForwardPolicy { connect_timeout: LONG, retry, ..ForwardPolicy::default() };
    let proxy = TestProxy::start_with(forwarding(&gone.each_ref(), policy), one_worker());
    let mut client = proxy.connect().await;
    client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    after_the_others(&proxy).await;
    proxy.publish([endpoints("web", &[new.address()])]).await;
    assert_eq!(client.read_response().await.echo().origin, "new", "the second try is the last");
}

#[tokio::test]
async fn a_try_at_an_endpoint_that_leaves_meanwhile_does_not_count() {
    let ca = Ca::new("ca");
    let leaving = [1, 2, 3, 4].map(|_| Origin::new("leaving").fault(Fault::Silent).start());
    // The one try that counts before the last.
    let down = Origin::new("down").fault(Fault::Refuse).start();
    let new = Origin::new("new").tls(&ca.leaf(&[HOST])).start();
    let retry = Retry { tries: Some(2), ..Retry::default() };
    let tls = Some(Arc::new(UpstreamTls::default()));
    let policy = ForwardPolicy { connect_timeout: LONG, tls, retry, ..ForwardPolicy::default() };
    let proxy = TestProxy::start_with(forwarding(&[&down], policy), one_worker());
    proxy.publish([endpoints("web", &[down.address(), leaving[0].address()])]).await;
    let mut client = proxy.connect().await;
    client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    for (at, origin) in leaving.iter().enumerate() {
        // The handshake has begun, and is never answered.
        origin.next_connection().await;
        let next = leaving.get(at + 1).unwrap_or(&new);
        proxy.publish([endpoints("web", &[down.address(), next.address()])]).await;
        origin.close_connections();
    }
    assert_eq!(client.read_response().await.echo().origin, "new");
}

#[tokio::test]
async fn a_request_whose_kept_connection_ends_goes_elsewhere_if_the_endpoint_has_left() {
    let gate = Gate::new();
    let old = Origin::new("old").replies([Reply::ok(), Reply::ok().held_by(&gate)]).start();
    let new = Origin::start("new");
    let policy = on(only(RetryOn::default()));
    let proxy = TestProxy::start_with(forwarding(&[&old], policy), one_worker());
    let mut client = proxy.connect().await;
    assert_eq!(client.get(HOST, "/").await.status, 200);
    client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    gate.reached(1).await;
    proxy.publish([endpoints("web", &[new.address()])]).await;
    old.reset_connections();
    assert_eq!(
        client.read_response().await.echo().origin,
        "new",
        "with retries off: the old endpoint closed an idle connection"
    );
}

#[tokio::test]
async fn a_tcp_service_does_not_wait_for_an_endpoint_that_is_gone() {
    let gone = Origin::new("gone").fault(Fault::Unreachable).start();
    let new = Origin::start("new");
    let mut resources = forwarding(&[&gone], ForwardPolicy::default());
    let streams = StreamSettings { connect_timeout: LONG, ..StreamSettings::default() };
    resources.push(Settings { streams, ..Settings::default() }.into());
    resources.push(
        StreamListener {
            name: "service".into(),
            origin: Owner::built_in("test"),
            address: ([127, 0, 0, 1], 0).into(),
            transport: Transport::Tcp { accept_proxy: false, send_proxy: false },
            backend: "default/web:80".into(),
        }
        .into(),
    );
    let proxy = TestProxy::start_with(resources, one_worker());
    let mut client = Client::connect(proxy.proxy.local_addresses()[&"service".into()]).await;
    client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    after_the_others(&proxy).await;
    proxy.publish([endpoints("web", &[new.address()])]).await;
    assert_eq!(client.read_response().await.echo().origin, "new");
}

/// There is one worker, so this request gets its turn after those sent before.
async fn after_the_others(proxy: &TestProxy) {
    assert_eq!(proxy.connect().await.get("unknown.example", "/").await.status, 404);
}

#[tokio::test]
async fn no_endpoint_is_reached_within_the_tries() {
    let refused = Origin::new("down").fault(Fault::Refuse).start();
    let silent = Origin::new("far").fault(Fault::Unreachable).start();
    let proxy = TestProxy::with_policy(&[&refused], on(Retry::default()));
    assert_eq!(proxy.connect().await.get(HOST, "/").await.status, 502);
    let proxy = TestProxy::with_policy(&[&silent], on(Retry { tries: Some(1), ..Retry::default() }));
    assert_eq!(proxy.connect().await.get(HOST, "/").await.status, 504);
    // Unlimited tries still end.
    let proxy = TestProxy::with_policy(&[&refused], on(Retry { tries: None, ..Retry::default() }));
    assert_eq!(proxy.connect().await.get(HOST, "/").await.status, 502);
}

#[tokio::test]
async fn off_means_one_try() {
    let (down, up) = (Origin::new("down").fault(Fault::Refuse).start(), Origin::start("up"));
    let proxy = TestProxy::with_policy(&[&down, &up], on(only(RetryOn::default())));
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(proxy.connect().await.get(HOST, "/").await.status);
    }
    assert!(statuses.contains(&502) && statuses.contains(&200), "{statuses:?}");
}

#[tokio::test]
async fn a_request_that_may_have_been_processed_is_sent_again_only_if_it_may() {
    let failing = || Origin::new("bad").reply(Reply::nothing().then_reset()).start();
    for (method, retry, expected) in [
        ("GET", Retry::default(), 200),
        ("PUT", Retry::default(), 200),
        ("POST", Retry::default(), 502),
        ("PATCH", Retry::default(), 502),
        ("LOCK", Retry::default(), 502),
        ("POST", only(RetryOn { error: true, non_idempotent: true, ..RetryOn::default() }), 200),
        ("GET", only(RetryOn { timeout: true, ..RetryOn::default() }), 502),
    ] {
        let (bad, good) = (failing(), Origin::start("good"));
        let proxy = TestProxy::with_policy(&[&bad, &good], on(retry));
        // Each worker begins with another endpoint, so repeat until the bad one was tried.
        let response = loop {
            let response = proxy.connect().await.request(method, "/", &[("host", HOST)], b"body").await;
            if bad.requests() > 0 {
                break response;
            }
        };
        assert_eq!(response.status, expected, "{method}");
        if expected == 200 {
            assert_eq!((response.echo().origin.as_str(), response.echo().body.as_str()), ("good", "body"), "{method}");
        }
    }
}

#[tokio::test]
async fn statuses_lead_to_another_try_and_the_last_one_passes() {
    let busy = || Origin::new("busy").reply(Reply::status(503).body("busy")).start();
    let (a, b) = (busy(), busy());
    let policy = || on(only(RetryOn { statuses: vec![503], ..RetryOn::default() }));
    let proxy = TestProxy::with_policy(&[&a, &b], policy());
    let response = proxy.connect().await.get(HOST, "/").await;
    assert_eq!((response.status, response.text().as_str()), (503, "busy"));
    assert_eq!(a.requests() + b.requests(), 3);
    let response = proxy.connect().await.request("POST", "/", &[("host", HOST)], b"x").await;
    assert_eq!((response.status, a.requests() + b.requests()), (503, 4));
    let good = Origin::start("good");
    let proxy = TestProxy::with_policy(&[&a, &good], policy());
    for _ in 0..4 {
        assert_eq!(proxy.connect().await.get(HOST, "/").await.echo().origin, "good");
    }
}

#[tokio::test]
async fn an_invalid_answer_leads_to_another_try_only_when_asked() {
    let (bad, good) = (Origin::new("bad").reply(Reply::garbage()).start(), Origin::start("good"));
    let policy = on(only(RetryOn { invalid_header: true, ..RetryOn::default() }));
    let proxy = TestProxy::with_policy(&[&bad, &good], policy);
    for _ in 0..4 {
        assert_eq!(proxy.connect().await.get(HOST, "/").await.status, 200);
    }
    let proxy = TestProxy::with_policy(&[&bad], on(Retry::default()));
    let before = bad.requests();
    assert_eq!(proxy.connect().await.get(HOST, "/").await.status, 502);
    assert_eq!(bad.requests() - before, 1);
}

#[tokio::test]
async fn a_slow_endpoint_is_left_and_the_time_for_tries_is_kept() {
    let slow = || Origin::new("slow").fault(Fault::Silent).start();
    let (a, good) = (slow(), Origin::start("good"));
    let policy = |retry| ForwardPolicy { read_timeout: Duration::from_millis(50), ..on(retry) };
    let proxy = TestProxy::with_policy(&[&a, &good], policy(Retry::default()));
    for _ in 0..4 {
        assert_eq!(proxy.connect().await.get(HOST, "/").await.status, 200);
    }
    let b = slow();
    let retry = Retry { within: Some(Duration::from_millis(10)), ..Retry::default() };
    let proxy = TestProxy::with_policy(&[&a, &b], policy(retry));
    let before = a.connections() + b.connections();
    assert_eq!(proxy.connect().await.get(HOST, "/").await.status, 504);
    assert_eq!(a.connections() + b.connections() - before, 1, "no try may start after the time");
}

#[tokio::test]
async fn the_time_for_a_response_is_that_of_all_tries_together() {
    let busy = Origin::new("busy").reply(Reply::status(503)).start();
    let silent = Origin::new("silent").fault(Fault::Silent).start();
    let policy = || ForwardPolicy {
        response_within: Some(Duration::from_millis(300)),
        ..on(only(RetryOn { statuses: vec![503], ..RetryOn::default() }))
    };
    let proxy = TestProxy::with_policy(&[&busy, &silent], policy());
    // Each worker begins with an arbitrary endpoint, so several requests may go to the silent one first.
    let mut requests = 0;
    while busy.requests() == 0 {
        requests += 1;
        assert!(requests <= 16, "no request goes to the busy one first");
        assert_eq!(proxy.connect().await.get(HOST, "/").await.status, 504);
    }
}

#[tokio::test]
async fn a_failure_to_connect_alone_can_lead_to_another_try() {
    let (down, up) = (Origin::new("down").fault(Fault::Refuse).start(), Origin::start("up"));
    let policy = on(only(RetryOn { connect: true, ..RetryOn::default() }));
    let proxy = TestProxy::with_policy(&[&down, &up], policy);
    for _ in 0..4 {
        assert_eq!(proxy.connect().await.get(HOST, "/").await.echo().origin, "up");
    }
}

#[tokio::test]
async fn nothing_is_retried_once_the_client_has_seen_a_byte() {
    let cut = || Origin::new("cut").reply(Reply::ok().chunked(["abcdef"]).cut_body_after(6).then_close()).start();
    let (a, b) = (cut(), cut());
    let proxy = TestProxy::with_policy(&[&a, &b], on(Retry::default()));
    let mut client = proxy.connect().await;
    client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    assert!(client.try_read_response().await.is_err());
    assert_eq!(a.requests() + b.requests(), 1);
}

#[tokio::test]
async fn a_body_is_sent_again_beside_a_head_that_fills_the_buffer() {
    let good = Origin::start("good");
    let field = |name: &str, size: usize| format!("{name}: {}\r\n", "x".repeat(size));
    for head_size in [1000, 24 << 10, (32 << 10) - 1, 32 << 10] {
        let bad = Origin::new("bad").reply(Reply::nothing().then_reset()).start();
        let proxy = TestProxy::with_policy(&[&bad, &good], on(Retry::default()));
        let start = format!("PUT / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 32000\r\n");
        let mut head = start;
        while head.len() + 2 < head_size {
            let left = head_size - head.len() - 2;
            // No line is longer than 8 KiB, and none shorter than a field.
            let line = if left > 8000 { left.min(8000).min(left - 100) } else { left };
            head += &field("p", line - 5);
        }
        head += "\r\n";
        assert_eq!(head.len(), head_size);
        loop {
            let mut client = proxy.connect().await;
            client.send(head.clone() + &"b".repeat(32_000)).await;
            let echo = client.read_response().await.echo();
            assert_eq!((echo.origin.as_str(), echo.body_length), ("good", 32_000), "{head_size}");
            if bad.requests() > 0 {
                break;
            }
        }
    }
}

#[tokio::test]
async fn a_body_that_was_partly_sent_and_let_go_is_never_sent_again() {
    let bad = Origin::new("bad").reply(Reply::nothing().then_reset()).start();
    let good = Origin::start("good");
    let retry = only(RetryOn { error: true, non_idempotent: true, ..RetryOn::default() });
    let proxy = TestProxy::with_policy(&[&bad, &good], on(retry));
    let body = vec![b'x'; 900_000];
    loop {
        let response = proxy.connect().await.request("PUT", "/", &[("host", HOST)], &body).await;
        match response.status {
            200 => assert_eq!(response.echo().body_length, 900_000),
            status => {
                assert_eq!(status, 502);
                break;
            }
        }
    }
    assert!(good.seen().iter().all(|request| request.body.len() == 900_000));
}

#[tokio::test]
async fn a_kept_connection_that_the_backend_closed_is_no_failure() {
    let origin = Origin::new("a").reply(Reply::ok().body("x").then_close()).start();
    let proxy = TestProxy::with_policy(&[&origin], on(only(RetryOn::default())));
    let mut client = proxy.connect().await;
    for at in 0..20 {
        // A response without `Connection: close`, followed by a close: the proxy keeps a connection that is about to end.
        let method = if at % 2 == 0 { "GET" } else { "PUT" };
        assert_eq!(client.request(method, "/", &[("host", HOST)], b"y").await.status, 200, "{at}");
    }
    let gate = Gate::new();
    let held = Origin::new("b").reply(Reply::ok().held_by(&gate)).start();
    let resources = support::backend("held", &[held.address()]);
    let routes = vec![route("/", forward("held", on(only(RetryOn::default()))))];
    proxy.publish(resources.into_iter().chain([host("held.example", routes)])).await;
    let mut waiting = proxy.connect().await;
    waiting.send("GET / HTTP/1.1\r\nHost: held.example\r\n\r\n").await;
    gate.reached(1).await;
    held.reset_connections();
    assert_eq!(waiting.read_response().await.status, 502, "on a new connection it is one, with retries off");
}

#[tokio::test]
async fn the_first_failure_is_told_when_the_endpoints_are_gone_before_the_next_try() {
    let origin = Origin::new("a").reply(Reply::nothing().then_stall()).start();
    let proxy = TestProxy::start_with(forwarding(&[&origin], on(Retry::default())), one_worker());
    let mut client = proxy.connect().await;
    client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    origin.next_request().await;
    proxy.publish([endpoints("web", &[])]).await;
    assert_eq!(proxy.connect().await.get(HOST, "/").await.status, 503);
    origin.reset_connections();
    assert_eq!(client.read_response().await.status, 502);
}

#[tokio::test]
async fn an_endpoint_that_fails_again_and_again_is_passed_over() {
    let (down, up) = (Origin::new("down").fault(Fault::ResetOnAccept).start(), Origin::start("up"));
    let proxy = TestProxy::start_with(forwarding(&[&down, &up], on(Retry::default())), one_worker());
    let mut client = proxy.connect().await;
    for _ in 0..200 {
        assert_eq!(client.get(HOST, "/").await.echo().origin, "up");
    }
    // Round robin would have asked it a hundred times. Each second that this takes on a busy machine is worth a trial.
    assert!((3..30).contains(&down.connections()), "{}", down.connections());
}

#[tokio::test]
async fn an_endpoint_that_is_back_gets_requests_again() {
    let (flaky, up) = (Origin::new("flaky").reply(Reply::nothing().then_close()).start(), Origin::start("up"));
    let proxy = TestProxy::to(&[&flaky, &up]);
    let mut client = proxy.connect().await;
    for _ in 0..20 {
        assert_eq!(client.get(HOST, "/").await.echo().origin, "up");
    }
    flaky.set_reply(Reply::ok().header("x-origin", "flaky"));
    eventually("a response of the endpoint that is back", || {
        Box::pin(async { proxy.connect().await.get(HOST, "/").await.header("x-origin") == Some("flaky") })
    })
    .await;
}

#[tokio::test]
async fn the_only_endpoint_is_tried_however_often_it_has_failed() {
    let only = Origin::new("only").reply(Reply::nothing().then_close()).start();
    let retry = Retry { tries: Some(1), ..Retry::default() };
    let proxy = TestProxy::start_with(forwarding(&[&only], on(retry)), one_worker());
    let mut client = proxy.connect().await;
    for _ in 0..10 {
        assert_eq!(client.get(HOST, "/").await.status, 502);
    }
    only.set_reply(Reply::ok());
    assert_eq!(client.get(HOST, "/").await.status, 200);
}

#[tokio::test]
async fn retries_are_a_share_of_the_requests() {
    for (retry_budget, tried) in [(NonZeroU32::new(20), 100..=140), (None, 300..=300)] {
        let origin = Origin::new("closes").reply(Reply::nothing().then_close()).start();
        let mut resources = forwarding(&[&origin], on(Retry { tries: Some(3), ..Retry::default() }));
        resources.push(Settings { retry_budget, ..Settings::default() }.into());
        let proxy = TestProxy::start_with(resources, one_worker());
        let mut client = proxy.connect().await;
        for _ in 0..100 {
            assert_eq!(client.get(HOST, "/").await.status, 502);
        }
        assert!(tried.contains(&origin.requests()), "{retry_budget:?}: {}", origin.requests());
    }
}

/// A backend with its own retry budget.
fn constrained(origins: &[&Origin], retry: Retry, percent: u32, least: u64) -> Vec<Resource> {
    let retry_of_backend = Some(RetryConstraint { percent, interval: Duration::from_secs(3600), least });
    let is_backend = |resource: &Resource| matches!(resource, Resource::Backend(_));
    let others = forwarding(origins, on(retry)).into_iter().filter(|resource| !is_backend(resource));
    others.chain([Backend { retry: retry_of_backend, ..backend_alone("web") }.into()]).collect()
}

#[tokio::test]
async fn a_request_beyond_the_budget_of_its_backend_answers_503() {
    let retries = || Retry { tries: Some(3), ..Retry::default() };
    // The budget of the settings, which would allow 20, does not count here.
    for (percent, least, tried) in [(0, 0, 100), (0, 5, 105), (20, 0, 120), (100, 0, 200)] {
        let origin = Origin::new("closes").reply(Reply::nothing().then_close()).start();
        let proxy = TestProxy::start_with(constrained(&[&origin], retries(), percent, least), one_worker());
        let mut client = proxy.connect().await;
        for _ in 0..100 {
            let status = client.get(HOST, "/").await.status;
            assert!(matches!(status, 502 | 503), "{status}");
        }
        assert_eq!(origin.requests(), tried, "{percent} {least}");
        assert_eq!(client.get(HOST, "/").await.status, 503, "{percent} {least}");
    }
    // A status that would have led to another try is not passed on either, nor a failure to connect.
    let failing = Origin::new("fails").reply(Reply::status(500)).start();
    let statuses = RetryOn { statuses: vec![500], ..RetryOn::default() };
    let policy = Retry { on: statuses, tries: Some(3), ..Retry::default() };
    let proxy = TestProxy::start_with(constrained(&[&failing], policy, 0, 1), one_worker());
    let mut client = proxy.connect().await;
    assert_eq!(client.get(HOST, "/").await.status, 503);
    assert_eq!(failing.requests(), 2);
    failing.set_reply(Reply::status(501));
    assert_eq!(client.get(HOST, "/").await.status, 501, "no status to be retried");
    failing.set_reply(Reply::ok());
    assert_eq!(client.get(HOST, "/").await.status, 200);
    let down = Origin::new("down").fault(Fault::Refuse).start();
    let proxy = TestProxy::start_with(constrained(&[&down], retries(), 0, 0), one_worker());
    assert_eq!(proxy.connect().await.get(HOST, "/").await.status, 503);
}

#[tokio::test]
async fn a_try_that_could_not_connect_costs_no_budget() {
    let (down, up) = (Origin::new("down").fault(Fault::Refuse).start(), Origin::start("up"));
    let mut resources = forwarding(&[&down, &up], on(Retry::default()));
    resources.push(Settings { retry_budget: NonZeroU32::new(1), ..Settings::default() }.into());
    let proxy = TestProxy::start_with(resources, one_worker());
    let mut client = proxy.connect().await;
    for _ in 0..100 {
        assert_eq!(client.get(HOST, "/").await.echo().origin, "up");
    }
}
