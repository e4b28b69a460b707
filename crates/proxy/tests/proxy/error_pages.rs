//! Error responses that another service replaces: which ones, with what, and what remains when that service fails.

use std::sync::Arc;
use std::time::Duration;

use crate::support;
use crate::support::http2::{H2, get, whole};
use crate::support::{HOST, TestProxy, backend, filtered, forward, host, route};
use fairway_model::{
    AccessList, Action, BasicAuth, ByteLimit, ErrorPages, Filter, Forward, ForwardPolicy, NetworkSet, Resource,
    UpstreamProtocol,
};
use fairway_testkit::{Origin, Reply, Response};

/// Replaces these statuses by what the backend `pages` answers.
fn pages(statuses: &[u16]) -> ErrorPages {
    let policy = ForwardPolicy { read_timeout: Duration::from_millis(300), ..ForwardPolicy::default() };
    let Action::Forward(forward) = forward("pages", policy) else { unreachable!("it forwards") };
    ErrorPages { statuses: statuses.to_vec(), only_own: false, forward }
}

fn filter(pages: ErrorPages) -> Filter {
    Filter::ErrorPages(Arc::new(pages))
}

/// A backend with one answer to everything, and a service for its errors.
struct Replacing {
    web: Origin,
    service: Origin,
    proxy: TestProxy,
}

impl Replacing {
    fn start(web: Reply, service: Origin, filters: Vec<Filter>, policy: ForwardPolicy) -> Self {
        let web = Origin::new("web").reply(web).start();
        let mut resources = backend("web", &[web.address()]);
        resources.extend(backend("pages", &[service.address()]));
        resources.push(host(HOST, vec![filtered(route("/", forward("web", policy)), filters)]));
        Self { proxy: TestProxy::start(resources), web, service }
    }

    fn of(web: Reply, pages: ErrorPages) -> Self {
        Self::start(web, Origin::start("pages"), vec![filter(pages)], ForwardPolicy::default())
    }

    async fn get(&self) -> Response {
        self.proxy.connect().await.get(HOST, "/x").await
    }
}

#[tokio::test]
async fn the_service_is_asked_about_the_error_without_the_body() {
    let replacing = Replacing::of(Reply::status(404).body("of the backend"), pages(&[404, 503]));
    let mut client = replacing.proxy.connect().await;
    let fields = [
        ("host", HOST),
        ("accept", "text/html"),
        ("x-request-id", "id7"),
        ("X_Code", "200"),
        ("x-code", "200"),
        ("x-service-name", "spoofed"),
        ("x-original-uri", "/spoofed"),
        ("x-tenant", "t1"),
    ];
    for number in 1..=2 {
        let response = client.request("POST", "/a%20b?c=d", &fields, b"the body").await;
        let echo = response.echo();
        assert_eq!((response.status, echo.origin.as_str(), echo.method.as_str()), (200, "pages", "GET"));
        assert_eq!((echo.target.as_str(), echo.body.as_str(), echo.header("content-length")), ("/?c=d", "", None));
        for (name, value) in [
            ("x-code", "404"),
            ("x-format", "text/html"),
            ("x-original-uri", "/a%20b?c=d"),
            ("x-namespace", "default"),
            ("x-ingress-name", "app"),
            ("x-service-name", "web"),
            ("x-service-port", "80"),
            ("x-request-id", "id7"),
            ("x-tenant", "t1"),
        ] {
            assert_eq!(echo.headers.all(name), [value], "{name}");
        }
        assert_eq!(replacing.web.seen().pop().expect("a request").body, b"the body");
        assert_eq!(replacing.web.requests(), number);
    }
    // All connections were reused.
    assert_eq!((replacing.web.connections(), replacing.service.connections()), (1, 1));
}

#[tokio::test]
async fn other_statuses_pass() {
    let replacing = Replacing::of(Reply::status(404).body("of the backend"), pages(&[503]));
    let response = replacing.get().await;
    assert_eq!((response.status, response.text().as_str()), (404, "of the backend"));
    let own = ErrorPages { only_own: true, ..pages(&[404]) };
    let replacing = Replacing::of(Reply::status(404).body("of the backend"), own);
    assert_eq!(replacing.get().await.text(), "of the backend");
    assert_eq!(replacing.service.requests(), 0);
}

#[tokio::test]
async fn errors_of_the_proxy_are_replaced_too() {
    let nobody = AccessList { deny: NetworkSet::default(), allow: Some(NetworkSet::default()) };
    let policy = || ForwardPolicy { max_body: ByteLimit::of(4), ..ForwardPolicy::default() };
    let all = || filter(ErrorPages { only_own: true, ..pages(&[403, 413, 502, 503]) });
    for (filters, stop, status) in [
        (vec![all(), Filter::AccessList(nobody)], false, "403"),
        (vec![all()], false, "413"),
        (vec![all()], true, "502"),
    ] {
        let replacing = Replacing::start(Reply::ok(), Origin::start("pages"), filters, policy());
        if stop {
            replacing.web.stop_listening();
        }
        let body: &[u8] = if status == "413" { b"too long" } else { b"" };
        for chunked in [false, true] {
            let mut client = replacing.proxy.connect().await;
            let response = if chunked {
                let body = if body.is_empty() { "" } else { "8\r\ntoo long\r\n" };
                let head =
                    format!("POST /x HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n{body}0\r\n\r\n");
                client.send(head).await;
                client.read_response().await
            } else {
                client.request("POST", "/x", &[("host", HOST)], body).await
            };
            let echo = response.echo();
            assert_eq!((response.status, echo.origin.as_str(), echo.header("x-code")), (200, "pages", Some(status)));
        }
    }
    let service = Origin::start("pages");
    let mut resources = backend("web", &[]);
    resources.extend(backend("pages", &[service.address()]));
    let to = forward("web", ForwardPolicy::default());
    resources.push(host(HOST, vec![filtered(route("/", to), vec![all(), Filter::RequireEndpoints])]));
    let proxy = TestProxy::start(resources);
    assert_eq!(proxy.connect().await.get(HOST, "/").await.echo().header("x-code"), Some("503"));
}

#[tokio::test]
async fn the_service_gets_no_password_that_the_proxy_checks() {
    let nobody = || Filter::AccessList(AccessList { deny: NetworkSet::default(), allow: Some(NetworkSet::default()) });
    let auth = BasicAuth { realm: "who".into(), users: [].into_iter().collect(), digest: false, or_service: false };
    let password = Filter::BasicAuth(Box::new(auth));
    // As in ingress-nginx, other credentials reach it.
    for (further, seen) in [(vec![nobody(), password], None), (vec![nobody()], Some("Basic YTpi"))] {
        let filters = std::iter::once(filter(pages(&[403]))).chain(further).collect();
        let replacing = Replacing::start(Reply::ok(), Origin::start("pages"), filters, ForwardPolicy::default());
        let fields = [("host", HOST), ("authorization", "Basic YTpi")];
        let response = replacing.proxy.connect().await.request("GET", "/x", &fields, b"").await;
        assert_eq!((response.status, response.echo().header("authorization")), (200, seen));
    }
}

#[tokio::test]
async fn a_service_that_fails_leaves_the_error_as_it_was() {
    let broken = [
        Origin::new("pages").reply(Reply::garbage()).start(),
        Origin::new("pages").reply(Reply::nothing().then_stall()).start(),
        Origin::new("pages").reply(Reply::nothing().then_close()).start(),
    ];
    for service in broken {
        let web = Reply::status(503).body("of the backend");
        let replacing = Replacing::start(web, service, vec![filter(pages(&[502, 503, 504]))], ForwardPolicy::default());
        let response = replacing.get().await;
        assert_eq!(response.status, 503);
        assert!(response.text().contains("503 Service"), "{}", response.text());
    }
}

#[tokio::test]
async fn without_an_endpoint_for_it_an_error_passes_whole() {
    let web = Origin::new("web").reply(Reply::status(404).body("of the backend")).start();
    let other = Origin::start("other");
    let mut resources = backend("web", &[web.address()]);
    resources.extend(backend("other", &[other.address()]));
    let with = |fallback: Option<&str>| {
        let pages = pages(&[404]);
        let forward = Forward { fallback: fallback.map(Into::into), ..pages.forward };
        let to = support::forward("web", ForwardPolicy::default());
        host(HOST, vec![filtered(route("/", to), vec![filter(ErrorPages { forward, ..pages })])])
    };
    resources.push(with(None));
    let proxy = TestProxy::start(resources);
    let mut client = proxy.connect().await;
    assert_eq!(client.get(HOST, "/").await.text(), "of the backend");
    proxy.publish([with(Some("default/other:80"))]).await;
    assert_eq!(client.get(HOST, "/").await.echo().origin, "other");
}

#[tokio::test]
async fn the_page_of_the_service_is_not_replaced_again() {
    let service = Origin::new("pages").reply(Reply::status(404).body("the page")).start();
    let web = Reply::status(404).body("of the backend");
    let replacing = Replacing::start(web, service, vec![filter(pages(&[404]))], ForwardPolicy::default());
    let response = replacing.get().await;
    assert_eq!((response.status, response.text().as_str()), (404, "the page"));
    assert_eq!(replacing.service.requests(), 1);
}

#[tokio::test]
async fn a_head_gets_a_head() {
    let replacing = Replacing::of(Reply::status(404).header("X-Page", "web"), pages(&[404]));
    let mut client = replacing.proxy.connect().await;
    let response = client.request("HEAD", "/x", &[("host", HOST)], b"").await;
    assert_eq!((response.status, response.body.len(), response.header("x-page")), (200, 0, None));
    assert_eq!(replacing.service.seen().pop().expect("a request").method, "HEAD");
    assert_eq!(client.get(HOST, "/").await.echo().origin, "pages");
}

#[tokio::test]
async fn a_challenge_survives_its_page() {
    let service = Origin::new("pages").reply(Reply::status(401).body("the page")).start();
    let web = Reply::status(401).header("WWW-Authenticate", "Basic realm=\"a\"").header("X-Of", "web");
    let replacing = Replacing::start(web, service, vec![filter(pages(&[401]))], ForwardPolicy::default());
    let response = replacing.get().await;
    assert_eq!((response.status, response.text().as_str()), (401, "the page"));
    assert_eq!((response.header("www-authenticate"), response.header("x-of")), (Some("Basic realm=\"a\""), None));
}

#[tokio::test]
async fn a_large_or_slow_error_costs_its_connection_and_not_the_page() {
    let large = Reply::status(500).body(vec![b'x'; 4 << 20]);
    let slow = Reply::raw("HTTP/1.1 500 Slow\r\nContent-Length: 5\r\n\r\nx").then_stall();
    for web in [large, slow] {
        let replacing = Replacing::of(web, pages(&[500]));
        let mut client = replacing.proxy.connect().await;
        for number in 1..=2 {
            assert_eq!(client.get(HOST, "/").await.echo().origin, "pages");
            assert_eq!(replacing.web.connections(), number);
        }
    }
}

#[tokio::test]
async fn clients_of_http2_get_the_page_and_those_of_grpc_their_status() {
    let replacing = Replacing::of(Reply::status(503).body("of the backend"), pages(&[503]));
    let client = H2::connect(replacing.proxy.http).await;
    let answer = client.get("/x").await;
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains("\"pages\""), "{}", answer.text());
    let mut call = get("/x");
    call.headers_mut().insert("content-type", http::HeaderValue::from_static("application/grpc"));
    let (response, _) = client.ready().await.send_request(call, true).expect("a request");
    let answer = whole(response.await.expect("an answer")).await;
    assert_eq!((answer.status, answer.text()), (503, "of the backend"));
}

#[tokio::test]
async fn an_error_of_a_backend_over_http2_passes() {
    let service = Origin::start("pages");
    let refused: Vec<Resource> = backend("web", &[([127, 0, 0, 1], 1).into()]);
    let mut resources = refused;
    resources.extend(backend("pages", &[service.address()]));
    let policy = ForwardPolicy { protocol: UpstreamProtocol::Http2, ..ForwardPolicy::default() };
    resources.push(host(HOST, vec![filtered(route("/", forward("web", policy)), vec![filter(pages(&[502]))])]));
    let proxy = TestProxy::start(resources);
    assert_eq!(proxy.connect().await.get(HOST, "/").await.status, 502);
    assert_eq!(service.requests(), 0);
}
