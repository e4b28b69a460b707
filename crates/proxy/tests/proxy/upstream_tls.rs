//! TLS to endpoints, and that no two routes share a connection that one of them would have made differently.

use std::num::NonZeroUsize;
use std::sync::Arc;

use crate::support::log::{Lines, logging};
use crate::support::{HOST, TestProxy, backend, certificate, config, forward, host, route};
use fairway_model::{
    Action, AlternativeName, Authority, Backends, ForwardPolicy, Resource, Retry, RetryOn, TlsVersions, Trust,
    UpstreamTls, WeightedBackend,
};
use fairway_proxy::ProxyConfig;
use fairway_testkit::{Ca, Fault, Leaf, Origin, Reply, Request, When};

/// A proxy with one worker and one route per way: `/0`, `/1` and so on, all to the same endpoint.
fn proxy(origin: &Origin, ways: &[Option<UpstreamTls>], more: Vec<Resource>) -> TestProxy {
    let mut resources = backend("web", &[origin.address()]);
    resources.push(routes(ways));
    resources.extend(more);
    TestProxy::start_with(resources, ProxyConfig { workers: NonZeroUsize::new(1), ..config() })
}

fn routes(ways: &[Option<UpstreamTls>]) -> Resource {
    let route = |(at, tls): (usize, &Option<UpstreamTls>)| {
        let retry = Retry { on: RetryOn::default(), ..Retry::default() };
        let policy = ForwardPolicy { tls: tls.clone().map(Arc::new), retry, ..ForwardPolicy::default() };
        route(&format!("/{at}"), forward("web", policy))
    };
    host(HOST, ways.iter().enumerate().map(route).collect())
}

fn trust(ca: &Ca) -> Trust {
    Trust::Authorities([Authority::new(ca.der().to_vec())].into())
}

fn named(name: &str) -> UpstreamTls {
    UpstreamTls { name: Some(name.into()), sni: true, ..UpstreamTls::default() }
}

async fn status(proxy: &TestProxy, way: usize) -> u16 {
    proxy.connect().await.get(HOST, &format!("/{way}")).await.status
}

fn leaf(ca: &Ca) -> Leaf {
    ca.leaf(&["backend.example", "other.example", "10.1.2.3"])
}

#[tokio::test]
async fn requests_pass_over_tls_without_a_name_and_without_a_check_by_default() {
    let unknown = Ca::new("nobody knows it");
    let reply = |request: &Request| {
        let mut parts = request.target.rsplit('/');
        let body = vec![b'y'; parts.next().unwrap_or_default().parse().unwrap_or_default()];
        match parts.next() {
            Some("length") => Reply::ok().body(body),
            Some("chunked") => Reply::ok().chunked([body, vec![b'z']]),
            Some("close") => Reply::ok().close_delimited(body),
            _ => Reply::ok().body(request.body.len().to_string()),
        }
    };
    let certificate = unknown.certificate(&["expired.example"]).expired().issue();
    let origin = Origin::new("a").tls(&certificate).reply_with(reply).start();
    let proxy = proxy(&origin, &[Some(UpstreamTls::default())], Vec::new());
    let mut client = proxy.connect().await;
    for length in [1, 10, 100_000, 900_000] {
        let response = client.request("PUT", "/0/echo", &[("host", HOST)], &vec![b'x'; length]).await;
        assert_eq!(response.text(), length.to_string());
        for (kind, more) in [("length", 0), ("chunked", 1), ("close", 0)] {
            let response = client.get(HOST, &format!("/0/{kind}/{length}")).await;
            assert_eq!((response.status, response.body.len()), (200, length + more), "{kind}");
        }
    }
    assert!(origin.seen().iter().all(|request| request.sni.is_none()));
    // Responses without a length end their connections, all others keep them.
    assert_eq!(origin.connections(), 4);
}

#[tokio::test]
async fn a_name_is_sent_only_if_it_is_to_be() {
    let origin = Origin::new("a").tls(&leaf(&Ca::new("root"))).start();
    let silent = UpstreamTls { sni: false, ..named("backend.example") };
    let proxy = proxy(&origin, &[Some(named("backend.example")), Some(silent), Some(named("10.1.2.3"))], Vec::new());
    for (way, sni) in [(0, Some("backend.example")), (1, None), (2, None)] {
        assert_eq!(status(&proxy, way).await, 200);
        assert_eq!(origin.next_request().await.sni.as_deref(), sni, "an address is no server name");
    }
}

#[tokio::test]
async fn a_certificate_that_is_to_be_verified_has_to_be_right() {
    let ca = Ca::new("root");
    let origin = Origin::new("a").tls(&leaf(&ca)).start();
    let checked = |name: Option<&str>, ca: &Ca| {
        Some(UpstreamTls { name: name.map(Into::into), trust: trust(ca), ..UpstreamTls::default() })
    };
    let ways = [
        checked(Some("backend.example"), &ca),
        checked(Some("10.1.2.3"), &ca),
        checked(Some("evil.example"), &ca),
        checked(Some("backend.example"), &Ca::new("another root")),
        checked(None, &ca),
        Some(UpstreamTls { trust: Trust::Authorities(Arc::default()), ..named("backend.example") }),
        Some(UpstreamTls { trust: trust(&ca), ..named("not a name") }),
    ];
    let proxy = proxy(&origin, &ways, Vec::new());
    for (way, expected) in [200, 200, 502, 502, 502, 503, 503].into_iter().enumerate() {
        assert_eq!(status(&proxy, way).await, expected, "{way}");
    }
    assert_eq!(origin.requests(), 2, "nothing is sent to who is not trusted");
}

#[tokio::test]
async fn the_log_says_what_is_wrong_with_a_certificate() {
    let ca = Ca::new("root");
    let lines = Lines::default();
    let origin = Origin::new("a").tls(&leaf(&ca)).start();
    let of = |name: &str, ca: &Ca| UpstreamTls { trust: trust(ca), ..named(name) };
    let ways = [of("evil.example", &ca), of("backend.example", &Ca::new("another root"))].map(Some);
    let mut resources = backend("web", &[origin.address()]);
    resources.push(routes(&ways));
    let proxy = TestProxy::start_with(resources, logging(&lines, "$failure_reason: $failure_detail"));
    for way in [0, 1] {
        assert_eq!(status(&proxy, way).await, 502);
    }
    assert_eq!(
        lines.after(2).await,
        [
            "tls_handshake: the certificate of the endpoint is not valid for the name that is expected",
            "tls_handshake: the issuer of the certificate of the endpoint is unknown",
        ]
    );
}

#[tokio::test]
async fn a_client_certificate_is_shown_and_a_missing_one_denies() {
    let (ca, clients) = (Ca::new("root"), Ca::new("clients"));
    let origin = Origin::new("a").mutual_tls(&leaf(&ca), &clients).start();
    let with = |name: &str| Some(UpstreamTls { client_certificate: Some(name.into()), ..UpstreamTls::default() });
    let more = vec![
        certificate("ours", &clients.leaf(&["proxy"])),
        certificate("wrong", &Ca::new("others").leaf(&["proxy"])),
        certificate("broken", &clients.certificate(&["proxy"]).mismatched_key().issue()),
    ];
    let ways = [with("ours"), None, with("missing"), with("wrong"), Some(UpstreamTls::default()), with("broken")];
    let proxy = proxy(&origin, &ways, more);
    for (way, expected) in [200, 502, 503, 502, 502, 503].into_iter().enumerate() {
        assert_eq!(status(&proxy, way).await, expected, "{way}");
    }
    assert_eq!(origin.requests(), 1);
}

#[tokio::test]
async fn an_endpoint_that_speaks_no_tls_is_502_and_another_is_tried() {
    let plain = Origin::new("plain").fault(Fault::EchoBytes).start();
    let secure = Origin::new("secure").tls(&leaf(&Ca::new("root"))).start();
    let tls = Some(Arc::new(UpstreamTls::default()));
    let one = Retry { on: RetryOn::default(), ..Retry::default() };
    let mut resources = backend("plain", &[plain.address()]);
    resources.extend(backend("both", &[plain.address(), secure.address()]));
    let policy = |retry| ForwardPolicy { tls: tls.clone(), retry, ..ForwardPolicy::default() };
    resources.push(host(
        HOST,
        vec![route("/plain", forward("plain", policy(one))), route("/both", forward("both", policy(Retry::default())))],
    ));
    let proxy = TestProxy::start(resources);
    assert_eq!(proxy.connect().await.get(HOST, "/plain").await.status, 502);
    for _ in 0..4 {
        let response = proxy.connect().await.request("POST", "/both", &[("host", HOST)], b"x").await;
        assert_eq!(response.echo().origin, "secure", "nothing of the request was sent: a POST may go elsewhere");
    }
}

/// Pairs of ways that differ in one thing.
#[tokio::test]
async fn ways_that_differ_in_anything_never_share_a_connection() {
    let (ca, clients) = (Ca::new("root"), Ca::new("clients"));
    let origin = Origin::new("a").tls(&leaf(&ca)).start();
    let base = || UpstreamTls { trust: trust(&ca), ..named("backend.example") };
    let ways = [
        base(),
        UpstreamTls { name: Some("other.example".into()), ..base() },
        UpstreamTls { sni: false, ..base() },
        UpstreamTls { trust: Trust::Anyone, ..base() },
        UpstreamTls {
            trust: Trust::Authorities(
                [&ca, &Ca::new("more")].map(|ca| Authority::new(ca.der().to_vec())).into_iter().collect(),
            ),
            ..base()
        },
        UpstreamTls { client_certificate: Some("one".into()), ..base() },
        UpstreamTls { client_certificate: Some("two".into()), ..base() },
        UpstreamTls { versions: TlsVersions::Tls12, ..base() },
        UpstreamTls { versions: TlsVersions::Tls13, ..base() },
    ]
    .map(Some);
    let one = certificate("one", &clients.leaf(&["one"]));
    let proxy = proxy(&origin, &ways, vec![one, certificate("two", &clients.leaf(&["two"]))]);
    for turn in 0..3 {
        for way in 0..ways.len() {
            assert_eq!(status(&proxy, way).await, 200, "{way}");
            let request = origin.next_request().await;
            assert_eq!(request.connection, way as u64 + 1, "turn {turn}: each has its own");
        }
    }
    // The same ways in new values, as after an unrelated change of their objects.
    proxy.publish([routes(&ways)]).await;
    assert_eq!(status(&proxy, 0).await, 200);
    assert_eq!(origin.next_request().await.connection, 1, "what did not change keeps its connections");
    // The certificate of one of them has changed.
    proxy.publish([certificate("one", &clients.leaf(&["one"]))]).await;
    assert_eq!(status(&proxy, 5).await, 200);
    assert_eq!(origin.next_request().await.connection, ways.len() as u64 + 1);
}

#[tokio::test]
async fn a_connection_over_tls_is_never_used_in_the_clear() {
    let origin = Origin::new("a").tls(&leaf(&Ca::new("root"))).start();
    let proxy = proxy(&origin, &[Some(UpstreamTls::default()), None], Vec::new());
    assert_eq!(status(&proxy, 0).await, 200);
    assert_eq!(status(&proxy, 1).await, 502, "the endpoint speaks TLS only");
    assert_eq!(status(&proxy, 0).await, 200);
    assert_eq!(origin.requests(), 2);
}

#[tokio::test]
async fn a_fallback_is_spoken_to_in_the_clear() {
    let fallback = Origin::start("fallback");
    let mut resources = backend("web", &[]);
    resources.extend(backend("fallback", &[fallback.address()]));
    let policy = ForwardPolicy { tls: Some(Arc::new(UpstreamTls::default())), ..ForwardPolicy::default() };
    let mut action = forward("web", policy);
    if let Action::Forward(forward) = &mut action {
        forward.fallback = Some("default/fallback:80".into());
    }
    resources.push(host(HOST, vec![route("/", action)]));
    let proxy = TestProxy::start(resources);
    assert_eq!(proxy.connect().await.get(HOST, "/").await.echo().origin, "fallback");
}

#[tokio::test]
async fn tunnels_and_early_answers_pass_over_tls() {
    let reply = Reply::upgrade("tcp");
    let origin = Origin::new("a").tls(&leaf(&Ca::new("root"))).reply(reply).when(When::Head).start();
    let proxy = proxy(&origin, &[Some(UpstreamTls::default())], Vec::new());
    let mut client = proxy.connect().await;
    client.send(format!("GET /0 HTTP/1.1\r\nHost: {HOST}\r\nConnection: upgrade\r\nUpgrade: tcp\r\n\r\nearly")).await;
    assert!(client.read_head().await.start.contains(" 101 "));
    assert_eq!(client.read_exact(5).await, b"early");
    let text = "y".repeat(100_000);
    client.send(&text).await;
    assert!(client.read_exact(text.len()).await == text.as_bytes());
    client.half_close().await;
    client.read_to_end().await;
}

#[tokio::test]
async fn one_of_the_alternative_names_is_enough_and_the_name_that_is_sent_does_not_count() {
    let ca = Ca::new("root");
    let origin = Origin::new("a").tls(&ca.certificate(&["backend.example"]).uri("spiffe://cluster/ns/shop").issue());
    let origin = origin.start();
    let dns = |name: &str| AlternativeName::Dns(name.into());
    let uri = |name: &str| AlternativeName::Uri(name.into());
    let with = |sent: &str, names: &[AlternativeName], ca: &Ca| {
        Some(UpstreamTls { trust: trust(ca), alternative_names: names.to_vec(), ..named(sent) })
    };
    let ways = [
        with("sent.example", &[dns("other.example"), dns("backend.example")], &ca),
        with("sent.example", &[uri("spiffe://cluster/ns/shop")], &ca),
        with("backend.example", &[dns("other.example")], &ca),
        with("sent.example", &[uri("spiffe://cluster/ns/shop/x"), uri("backend.example")], &ca),
        with("sent.example", &[dns("backend.example")], &Ca::new("another root")),
    ];
    let proxy = proxy(&origin, &ways, Vec::new());
    for (way, expected) in [200, 200, 502, 502, 502].into_iter().enumerate() {
        assert_eq!(status(&proxy, way).await, expected, "{way}");
    }
    assert!(origin.seen().iter().all(|request| request.sni.as_deref() == Some("sent.example")));
}

#[tokio::test]
async fn backends_of_one_rule_are_each_spoken_to_in_their_own_way() {
    let ca = Ca::new("root");
    let (secure, plain) = (Origin::new("secure").tls(&leaf(&ca)).start(), Origin::start("plain"));
    let mut resources = backend("secure", &[secure.address()]);
    resources.extend(backend("plain", &[plain.address()]));
    let tls = UpstreamTls { trust: trust(&ca), ..named("backend.example") };
    let share = |name: &str, tls: Option<UpstreamTls>| WeightedBackend {
        backend: name.into(),
        weight: 1,
        filters: Vec::new(),
        tls: tls.map(Arc::new),
    };
    let mut action = forward("secure", ForwardPolicy::default());
    if let Action::Forward(forward) = &mut action {
        forward.backends =
            Backends::Weighted(vec![share("default/secure:80", Some(tls)), share("default/plain:80", None)]);
    }
    resources.push(host(HOST, vec![route("/", action)]));
    let proxy = TestProxy::start(resources);
    let mut client = proxy.connect().await;
    while secure.requests() == 0 || plain.requests() == 0 {
        assert_eq!(client.get(HOST, "/").await.status, 200);
    }
    assert_eq!(secure.seen()[0].sni.as_deref(), Some("backend.example"));
}
