//! What a route changes in the redirects and cookies of its backend, and which requests it refuses by a field.

use crate::support::{HOST, TestProxy, backend, filtered, forward, host, route};
use fairway_model::{BlockedValue, FieldBlock, Filter, ForwardPolicy, Replacement, ResponseRewrites, Settings};
use fairway_testkit::{Origin, Reply};

#[tokio::test]
async fn redirects_and_cookies_of_the_backend_are_rewritten() {
    let reply = Reply::status(302)
        .header("Location", "http://web.internal/login?to=http://web.internal/")
        .header("Refresh", "3; url=http://web.internal/")
        .header("Set-Cookie", "a=1; Path=/app/x; Domain=web.internal")
        .header("Set-Cookie", "b=2; Path=/other")
        .header("X-Other", "http://web.internal/");
    let origin = Origin::new("a").reply(reply).start();
    let pair = |from: &str, to: &str| Some(Replacement { from: from.into(), to: to.into() });
    let rewrites = ResponseRewrites {
        redirect: pair("http://web.internal/", "https://shop.example/"),
        cookie_domain: pair("web.internal", "shop.example"),
        cookie_path: pair("/app/", "/"),
        cookie_flags: Vec::new(),
    };
    let to_web = || route("/", forward("web", ForwardPolicy::default()));
    let mut resources = backend("web", &[origin.address()]);
    resources.push(host(HOST, vec![filtered(to_web(), vec![Filter::RewriteResponse(rewrites.into())])]));
    // A hidden field stays hidden.
    let settings = Settings { hidden_response_fields: vec!["refresh".into()], ..Settings::default() };
    resources.push(settings.into());
    let proxy = TestProxy::start(resources);
    let response = proxy.connect().await.get(HOST, "/").await;
    let fields = response.headers();
    assert_eq!(fields.all("location"), ["https://shop.example/login?to=http://web.internal/"]);
    assert_eq!(fields.all("refresh"), [""; 0]);
    assert_eq!(fields.all("set-cookie"), ["a=1; Path=/x; Domain=shop.example", "b=2; Path=/other"]);
    assert_eq!(fields.all("x-other"), ["http://web.internal/"]);
}

#[tokio::test]
async fn a_connection_that_is_to_be_closed_is_not_used_again() {
    let origin = Origin::start("a");
    let policy = ForwardPolicy { close: true, ..ForwardPolicy::default() };
    let proxy = TestProxy::with_policy(&[&origin], policy);
    let mut client = proxy.connect().await;
    for _ in 0..2 {
        assert_eq!(client.get(HOST, "/").await.status, 200);
        assert_eq!(origin.next_request().await.headers().get("connection"), Some("close"));
    }
    assert_eq!(origin.connections(), 2);
}

#[tokio::test]
async fn a_blocked_program_or_page_gets_403() {
    let origin = Origin::start("a");
    let block = FieldBlock {
        user_agents: [BlockedValue::Equal("Bad/1".into()), BlockedValue::Search("(?i)crawl".parse().unwrap())].into(),
        referers: [BlockedValue::Equal("http://spam.example/".into())].into(),
    };
    let mut resources = backend("web", &[origin.address()]);
    let blocking = filtered(route("/", forward("web", ForwardPolicy::default())), vec![Filter::Block(block.into())]);
    resources.push(host(HOST, vec![blocking]));
    let proxy = TestProxy::start(resources);
    let mut client = proxy.connect().await;
    for (name, value, status) in [
        ("User-Agent", "bad/1", 403),
        ("User-Agent", "Bad/12", 200),
        ("User-Agent", "A Crawler", 403),
        ("Referer", "http://spam.example/", 403),
        ("Referer", "http://spam.example/x", 200),
        ("X-Other", "Bad/1", 200),
    ] {
        let response = client.request("GET", "/", &[("host", HOST), (name, value)], b"").await;
        assert_eq!(response.status, status, "{name}: {value}");
    }
    assert_eq!(origin.requests(), 3);
}
