//! Copies of requests for a second destination.

use std::num::NonZeroUsize;

use crate::support;
use crate::support::http2::H2;
use crate::support::{HOST, TestProxy, backend, filtered, forward, host, route};
use fairway_model::{Filter, Forward, ForwardPolicy, Fraction, Mirror, PathReplacement, Resource, Template};
use fairway_proxy::ProxyConfig;
use fairway_testkit::{Client, Fault, Origin, Reply, eventually};

fn mirror(backend: &str, body: bool) -> Filter {
    let upstream_host = Some(Template::parse("copies.example"));
    Filter::Mirror(Box::new(Mirror {
        forward: Forward {
            backends: backend.into(),
            fallback: None,
            session_cookie_path: None,
            policy: ForwardPolicy { upstream_host, ..ForwardPolicy::default() }.into(),
        },
        target: Some(Template::parse("/copy$request_uri")),
        body,
        fraction: None,
    }))
}

fn mirrored(web: &Origin, copies: &Origin, body: bool) -> Vec<Resource> {
    let filters = vec![mirror("default/copies:80", body)];
    let mut resources = backend("web", &[web.address()]);
    resources.extend(backend("copies", &[copies.address()]));
    resources.push(host(HOST, vec![filtered(route("/", forward("web", ForwardPolicy::default())), filters)]));
    resources
}

/// One worker, and a page with its counters.
fn start(resources: Vec<Resource>) -> TestProxy {
    let admin = Some(([127, 0, 0, 1], 0).into());
    TestProxy::start_with(resources, ProxyConfig { workers: NonZeroUsize::new(1), admin, ..support::config() })
}

/// Waits until a counter has a value.
async fn counts(proxy: &TestProxy, name: &str, value: usize) {
    let admin = proxy.proxy.admin_address().expect("an admin listener");
    let (start, end) = (format!("fairway_mirror_{name}_total"), format!(" {value}"));
    Box::pin(eventually("the counter", || {
        Box::pin(async {
            let text = Client::connect(admin).await.get("a", "/metrics").await.text();
            let found: Vec<String> = text.lines().filter(|line| line.starts_with(&start)).map(str::to_owned).collect();
            if found.iter().any(|line| line.ends_with(&end)) { Ok(()) } else { Err(found.join(" ")) }
        })
    }))
    .await;
}

#[tokio::test]
async fn a_copy_that_comes_back_is_not_copied_again() {
    let (web, copies) = (Origin::start("web"), Origin::start("copies"));
    let proxy = start(mirrored(&web, &copies, false));
    let mut client = proxy.connect().await;
    assert_eq!(client.get(HOST, "/first").await.status, 200);
    let copy = copies.next_request().await;
    let mark = copy.header("fairway-copy").expect("a mark").to_owned();
    assert_eq!(client.request("GET", "/back", &[("Host", HOST), ("fairway-copy", &mark)], b"").await.status, 200);
    assert_eq!(client.get(HOST, "/last").await.status, 200);
    assert_eq!(copies.next_request().await.head.start, "GET /copy/last HTTP/1.1");
    counts(&proxy, "dropped", 0).await;
}

#[tokio::test]
async fn a_copy_has_all_of_the_request() {
    let (web, copies) = (Origin::start("web"), Origin::new("copies").reply(Reply::status(500)).start());
    let proxy = start(mirrored(&web, &copies, true));
    let mut client = proxy.connect().await;
    assert_eq!(
        client
            .request(
                "PUT",
                "/a?b=c",
                &[("Host", HOST), ("X-Own", "1"), ("Connection", "X-Hop"), ("X-Hop", "1")],
                b"body"
            )
            .await
            .status,
        200
    );
    let seen = copies.next_request().await;
    assert_eq!(seen.head.start, "PUT /copy/a?b=c HTTP/1.1");
    assert_eq!(
        (seen.header("host"), seen.header("x-own"), seen.header("x-hop")),
        (Some("copies.example"), Some("1"), None)
    );
    assert_eq!((seen.header("content-length"), seen.header("connection")), (Some("4"), Some("close")));
    assert_eq!(seen.body, b"body");
    assert_eq!(web.next_request().await.body, b"body");

    client
        .send(format!(
            "POST /chunks HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n"
        ))
        .await;
    assert_eq!(client.read_response().await.status, 200);
    let seen = copies.next_request().await;
    assert_eq!(
        (seen.header("content-length"), seen.header("transfer-encoding"), &*seen.body),
        (Some("3"), None, &b"abc"[..])
    );

    assert_eq!(client.get(HOST, "/").await.status, 200);
    assert_eq!(copies.next_request().await.header("content-length"), None);
    assert_eq!(H2::connect(proxy.http).await.post("/frames", "abcd").await.status, 200);
    let seen = copies.next_request().await;
    assert_eq!((&*seen.head.start, &*seen.body), ("POST /copy/frames HTTP/1.1", &b"abcd"[..]));
    counts(&proxy, "requests", 4).await;
}

#[tokio::test]
async fn a_copy_without_a_body_says_so() {
    let (web, copies) = (Origin::start("web"), Origin::start("copies"));
    let proxy = start(mirrored(&web, &copies, false));
    assert_eq!(proxy.connect().await.request("PUT", "/", &[("Host", HOST)], b"body").await.status, 200);
    let seen = copies.next_request().await;
    assert_eq!(
        (&*seen.head.start, seen.header("content-length"), &*seen.body),
        ("PUT /copy/ HTTP/1.1", None, &b""[..])
    );
    assert_eq!(web.next_request().await.body, b"body");
}

#[tokio::test]
async fn nothing_that_becomes_of_a_copy_concerns_the_request() {
    for copies in [
        Origin::new("refuses").fault(Fault::Refuse).start(),
        Origin::new("garbage").reply(Reply::garbage()).start(),
        Origin::new("resets").reply(Reply::nothing().then_reset()).start(),
        Origin::new("long").reply(Reply::ok().body(vec![b'x'; 1 << 20])).start(),
    ] {
        let web = Origin::start("web");
        let proxy = start(mirrored(&web, &copies, true));
        let mut client = proxy.connect().await;
        for _ in 0..3 {
            assert_eq!(client.request("POST", "/", &[("Host", HOST)], b"body").await.status, 200);
        }
        assert_eq!(web.connections(), 1);
    }
}

#[tokio::test]
async fn a_destination_that_stalls_holds_a_bounded_number_of_copies() {
    let (web, copies) = (Origin::start("web"), Origin::new("copies").fault(Fault::Silent).start());
    let other = Origin::start("other");
    let mut resources = mirrored(&web, &copies, true);
    resources.extend(backend("other", &[other.address()]));
    let to_other = vec![mirror("default/other:80", false)];
    let web_again = route("/", forward("web", ForwardPolicy::default()));
    resources.push(host("other.example", vec![filtered(web_again, to_other)]));
    let proxy = start(resources);
    let mut client = proxy.connect().await;
    for _ in 0..200 {
        assert_eq!(client.request("POST", "/", &[("Host", HOST)], b"body").await.status, 200);
    }
    counts(&proxy, "dropped", 200 - 32).await;
    assert_eq!(client.get("other.example", "/b").await.status, 200);
    assert_eq!(other.next_request().await.head.start, "GET /copy/b HTTP/1.1", "others have room");
    // A body that is too long for a copy still passes.
    let long = vec![b'x'; 9 << 20];
    let policy = ForwardPolicy { max_body: fairway_model::ByteLimit::NONE, ..ForwardPolicy::default() };
    let mut resources = mirrored(&web, &copies, true);
    let Some(Resource::Host(last)) = resources.pop() else { panic!("the host is last") };
    let filters = last.routes()[0].filters.clone();
    resources.push(host(HOST, vec![filtered(route("/", forward("web", policy)), filters)]));
    proxy.publish(resources).await;
    assert_eq!(client.request("POST", "/", &[("Host", HOST)], &long).await.status, 200);
    counts(&proxy, "dropped", 200 - 32 + 1).await;
}

#[tokio::test]
async fn failed_copies_do_not_count_against_the_endpoints_of_their_service() {
    let (web, sound) = (Origin::start("web"), Origin::start("sound"));
    let failing = Origin::new("failing").reply(Reply::nothing().then_reset()).start();
    let mut resources = backend("web", &[web.address()]);
    resources.extend(backend("copies", &[failing.address(), sound.address()]));
    let both = filtered(route("/", forward("web", ForwardPolicy::default())), vec![mirror("default/copies:80", false)]);
    resources.push(host(HOST, vec![both, route("/direct", forward("copies", ForwardPolicy::default()))]));
    let proxy = start(resources);
    let mut client = proxy.connect().await;
    for _ in 0..20 {
        assert_eq!(client.get(HOST, "/").await.status, 200);
    }
    // They take turns.
    counts(&proxy, "failures", 10).await;
    for _ in 0..4 {
        assert_eq!(client.get(HOST, "/direct").await.status, 200);
    }
    let direct = |request: &fairway_testkit::Request| request.head.start == "GET /direct HTTP/1.1";
    assert!(failing.seen().iter().any(direct), "the endpoint was not passed over");
}

#[tokio::test]
async fn each_mirror_gets_its_part_of_the_requests() {
    let (web, copies, others) = (Origin::start("web"), Origin::start("copies"), Origin::start("others"));
    let mirror = |backend: &str, numerator| {
        Filter::Mirror(Box::new(Mirror {
            forward: Forward {
                backends: backend.into(),
                fallback: None,
                session_cookie_path: None,
                policy: ForwardPolicy::default().into(),
            },
            target: Some(Template::parse("$request_uri")),
            body: true,
            fraction: Some(Fraction { numerator, denominator: 100 }),
        }))
    };
    let filters =
        vec![mirror("default/copies:80", 100), mirror("default/copies:80", 0), mirror("default/others:80", 50)];
    let mut resources = backend("web", &[web.address()]);
    resources.extend(backend("copies", &[copies.address()]));
    resources.extend(backend("others", &[others.address()]));
    resources.push(host(HOST, vec![filtered(route("/", forward("web", ForwardPolicy::default())), filters)]));
    let proxy = start(resources);
    let mut client = proxy.connect().await;
    // By chance, all or none of so many go to the second mirror once in 2^63 runs.
    for _ in 0..64 {
        assert_eq!(client.request("POST", "/a", &[("Host", HOST)], b"body").await.status, 200);
        assert_eq!(copies.next_request().await.body, b"body");
    }
    assert_eq!(copies.requests(), 64);
    let some = others.next_request().await;
    assert_eq!((&*some.head.start, &*some.body), ("POST /a HTTP/1.1", &b"body"[..]));
    assert!(others.requests() < 64);
}

#[tokio::test]
async fn a_copy_without_a_target_of_its_own_has_the_one_that_the_backend_gets() {
    let (web, copies) = (Origin::start("web"), Origin::start("copies"));
    let Filter::Mirror(mut copy) = mirror("default/copies:80", false) else { panic!("a mirror") };
    copy.target = None;
    let filters = vec![Filter::Mirror(copy), Filter::ReplacePath { with: PathReplacement::Full("/new".into()) }];
    let mut resources = backend("web", &[web.address()]);
    resources.extend(backend("copies", &[copies.address()]));
    resources.push(host(HOST, vec![filtered(route("/", forward("web", ForwardPolicy::default())), filters)]));
    let proxy = start(resources);
    assert_eq!(proxy.connect().await.get(HOST, "/old?a=b").await.status, 200);
    assert_eq!(web.next_request().await.head.start, "GET /new?a=b HTTP/1.1");
    assert_eq!(copies.next_request().await.head.start, "GET /new?a=b HTTP/1.1");
}
