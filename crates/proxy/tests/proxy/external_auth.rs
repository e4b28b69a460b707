//! External authentication: what the service is asked, what its answers mean, and that everything else denies.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use crate::support;
use crate::support::{HOST, TestProxy, backend, endpoints, filtered, forward, host, route};
use fairway_model::{
    AccessList, Action, AfterChange, AuthCache, AuthCacheRule, AuthPart, AuthProtocol, AuthVariable, Backends,
    BasicAuth, Change, ExternalAuth, FieldEdit, Filter, Forward, ForwardPolicy, HttpAuth, NetworkSet, PathChange,
    ResponseEdit, Snippet, SnippetEdits, SnippetStep, Subrequest, Template, UpstreamTls, WeightedBackend,
};
use fairway_proxy::limit::EJECTION_FAILURES;
use fairway_testkit::{Ca, Fault, Gate, Origin, Reply, Request, Response};

/// Authentication by the backend `auth`.
fn auth() -> ExternalAuth {
    asking(asks())
}

fn asks() -> Subrequest {
    Subrequest {
        host: "auth.example".into(),
        target: Template::parse("/verify?from=$host"),
        method: None,
        request_redirect: None,
        fields: Vec::new(),
        sign_in: None,
        copied: Vec::new(),
        sets: Vec::new(),
        cache: None,
        always_set_cookie: false,
    }
}

fn asking(asks: Subrequest) -> ExternalAuth {
    asked_as(AuthProtocol::Subrequest(Box::new(asks)))
}

fn asked_as(protocol: AuthProtocol) -> ExternalAuth {
    let policy = ForwardPolicy { read_timeout: Duration::from_millis(300), ..ForwardPolicy::default() };
    let Action::Forward(forward) = forward("auth", policy) else { unreachable!("it forwards") };
    ExternalAuth { forward, protocol }
}

fn filter(auth: ExternalAuth) -> Filter {
    Filter::ExternalAuth(Box::new(auth))
}

/// A service with one answer to everything, and a backend behind it.
struct Guarded {
    service: Origin,
    web: Origin,
    proxy: TestProxy,
}

impl Guarded {
    fn by(reply: Reply, auth: ExternalAuth) -> Self {
        Self::by_origin(Origin::new("auth").reply(reply).start(), auth)
    }

    fn by_origin(service: Origin, auth: ExternalAuth) -> Self {
        let web = Origin::start("web");
        let mut resources = backend("web", &[web.address()]);
        resources.extend(backend("auth", &[service.address()]));
        resources
            .push(host(HOST, vec![filtered(route("/", forward("web", ForwardPolicy::default())), vec![filter(auth)])]));
        Self { proxy: TestProxy::start(resources), service, web }
    }

    async fn get(&self, fields: &[(&str, &str)]) -> Response {
        let mut all = vec![("host", HOST)];
        all.extend(fields);
        self.proxy.connect().await.request("GET", "/a%20b?c=d", &all, b"").await
    }

    /// The connection on which the service is being asked.
    async fn asked_on(&self) -> u64 {
        self.service.next_head().await.connection
    }

    fn asked(&self) -> Request {
        self.service.seen().pop().expect("the service was asked")
    }
}

/// The fields of a request, sorted by name.
fn lines(request: &Request) -> Vec<String> {
    let mut lines: Vec<_> = request.headers().iter().map(|(name, value)| format!("{name}: {value}")).collect();
    lines.sort_by_key(|line| line.to_ascii_lowercase());
    lines
}

fn name(name: &str) -> fairway_model::ConfiguredName {
    name.try_into().expect("a name")
}

#[tokio::test]
async fn the_service_judges_the_query_that_the_backend_gets() {
    let change = PathChange {
        pattern: "^/a".parse().expect("a pattern"),
        target: Template::parse("/new?role=user"),
        keeps_query: false,
        then: AfterChange::Stay,
    };
    let snippet = Snippet {
        of_host: false,
        methods: Vec::new(),
        steps: vec![SnippetStep::Rewrite(Box::new(change))],
        edits: SnippetEdits::default(),
    };
    let (service, web) = (Origin::new("auth").reply(Reply::status(202)).start(), Origin::start("web"));
    let mut resources = backend("web", &[web.address()]);
    resources.extend(backend("auth", &[service.address()]));
    let filters = vec![Filter::Snippet(Arc::new(snippet)), filter(auth())];
    resources.push(host(HOST, vec![filtered(route("/", forward("web", ForwardPolicy::default())), filters)]));
    let proxy = TestProxy::start(resources);
    let response = proxy.connect().await.request("GET", "/a?role=admin", &[("host", HOST)], b"").await;
    assert_eq!((response.status, response.echo().target.as_str()), (200, "/new?role=user"));
    let asked = service.seen().pop().expect("the service was asked");
    assert_eq!(asked.header("x-original-url"), Some("http://app.example/new?role=user"));
    assert_eq!(asked.header("x-auth-request-redirect"), Some("/new?role=user"));
}

#[tokio::test]
async fn a_service_gets_what_is_listed_and_the_backend_all_that_it_answers() {
    let reply = Reply::status(200)
        .header("X-User", "ann")
        .header("X-Real-IP", "192.0.2.1")
        .header("Content-Type", "text/html")
        .header("Set-Cookie", "s=2")
        .body("not for the backend");
    let asks = HttpAuth {
        path: "/check".into(),
        allowed: ["Cookie", "X-Forwarded-For", "X-Forwarded-Host", "X-Request-ID"].map(name).to_vec(),
        copied: Vec::new(),
        body: None,
    };
    let guarded = Guarded::by(reply, asked_as(AuthProtocol::Http(asks)));
    let mut client = guarded.proxy.connect().await;
    let fields = [
        ("host", "app.example:8080"),
        ("cookie", "s=1"),
        ("authorization", "Bearer x"),
        ("content-type", "text/plain"),
        ("x-forwarded-for", "192.0.2.9"),
        ("x-forwarded-proto", "https"),
        ("x-request-id", "id7"),
        ("x-other", "1"),
        ("x-user", "spoofed"),
        ("X_User", "spoofed"),
    ];
    let response = client.request("PUT", "/a%20b?c=d", &fields, b"the body").await;
    let echo = response.echo();
    assert_eq!((response.status, echo.origin.as_str(), echo.body.as_str()), (200, "web", "the body"));
    let asked = guarded.asked();
    assert_eq!((asked.method.as_str(), asked.target.as_str()), ("PUT", "/check/a%20b?c=d"));
    assert!(asked.body.is_empty());
    assert_eq!(
        lines(&asked),
        [
            "authorization: Bearer x",
            "Content-Length: 0",
            "cookie: s=1",
            "Host: app.example:8080",
            "X-Forwarded-For: 127.0.0.1",
            "X-Forwarded-Host: app.example:8080",
            "X-Request-ID: id7",
        ]
    );
    let got = guarded.web.seen().pop().expect("the backend got the request");
    let of_user: Vec<_> = got.headers().iter().filter(|(name, _)| name.to_ascii_lowercase().contains("user")).collect();
    assert_eq!(of_user.len(), 1, "{of_user:?}");
    assert_eq!((got.header("x-user"), got.header("x-real-ip")), (Some("ann"), Some("127.0.0.1")));
    assert_eq!((got.header("content-length"), got.header("content-type")), (Some("8"), Some("text/plain")));
    assert_eq!((got.header("set-cookie"), response.header("set-cookie")), (None, None));
    // A response to HEAD has no body, whatever its length.
    let response = client.request("HEAD", "/", &[("host", HOST)], b"").await;
    assert_eq!(response.status, 200);
    assert_eq!(guarded.asked().method, "HEAD");
}

/// A service that gets bodies of up to ten bytes.
fn judged() -> Guarded {
    let body = NonZeroU32::new(10);
    let asks = HttpAuth { path: "".into(), allowed: vec![name("Content-Type")], copied: vec![name("X-User")], body };
    Guarded::by(Reply::status(200).header("X-User", "ann"), asked_as(AuthProtocol::Http(asks)))
}

#[tokio::test]
async fn a_service_and_the_backend_get_the_same_body() {
    let guarded = judged();
    let mut client = guarded.proxy.connect().await;
    let fields = [("host", HOST), ("content-type", "text/plain")];
    for body in ["", "a", "ten bytes!"] {
        let response = client.request("POST", "/", &fields, body.as_bytes()).await;
        let echo = response.echo();
        assert_eq!((response.status, echo.body.as_str(), echo.header("x-user")), (200, body, Some("ann")));
        let asked = guarded.asked();
        assert_eq!((&asked.body[..], asked.header("content-type")), (body.as_bytes(), Some("text/plain")));
        assert_eq!(asked.header("content-length"), Some(&*body.len().to_string()));
    }
    // A body without a length, which arrives in chunks, gets one on the way.
    client.send(format!("PUT / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n")).await;
    client.send("3\r\nabc\r\n").await;
    client.send("2\r\nde\r\n0\r\n\r\n").await;
    assert_eq!(client.read_response().await.echo().body, "abcde");
    let asked = guarded.asked();
    assert_eq!(
        (&asked.body[..], asked.header("content-length"), asked.header("transfer-encoding")),
        (&b"abcde"[..], Some("5"), None)
    );
    // A client that asks first is told to send the body.
    client.send(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n")).await;
    client.read_until("HTTP/1.1 100 Continue\r\n\r\n").await;
    client.send("xyz").await;
    assert_eq!(client.read_response().await.echo().body, "xyz");
    assert_eq!(guarded.asked().body, b"xyz");
    // The connections are kept, and a stale one gets the body again.
    guarded.service.close_connections();
    let response = client.request("POST", "/", &fields, b"again").await;
    assert_eq!((response.status, &guarded.asked().body[..]), (200, &b"again"[..]));
    let h2 = support::http2::H2::connect(guarded.proxy.http).await;
    let response = h2.post("/", "over h2").await;
    assert_eq!((response.status, &guarded.asked().body[..]), (200, &b"over h2"[..]));
}

#[tokio::test]
async fn a_body_that_the_service_can_not_get_whole_is_refused() {
    let chunked = |body: &str| format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n{body}");
    let with_length = |length: usize| format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: {length}\r\n\r\n");
    for (request, status) in [
        (with_length(11) + "eleven byte", 413),
        // None of it has to arrive.
        (with_length(1 << 40), 413),
        (chunked("b\r\neleven byte\r\n0\r\n\r\n"), 413),
        (chunked("a\r\nten bytes!\r\n1\r\nx\r\n"), 413),
        (chunked("zz\r\n"), 400),
    ] {
        let guarded = judged();
        let mut client = guarded.proxy.connect().await;
        client.send(&request).await;
        assert_eq!(client.read_response().await.status, status, "{request}");
        assert_eq!((guarded.service.requests(), guarded.web.requests()), (0, 0), "{request}");
    }
    // A service that may get more than fits in memory gets nothing, and no request bypasses it.
    let body = NonZeroU32::new(32 << 20);
    let asks = HttpAuth { path: "".into(), allowed: Vec::new(), copied: vec![name("X-User")], body };
    let guarded = Guarded::by(Reply::ok(), asked_as(AuthProtocol::Http(asks)));
    let mut client = guarded.proxy.connect().await;
    client.send(with_length(9 << 20)).await;
    client.send(vec![b'x'; 8 << 20]).await;
    assert_eq!(client.read_response().await.status, 500);
    assert_eq!((guarded.service.requests(), guarded.web.requests()), (0, 0));
    // An upgrade request does not hide a body.
    let guarded = judged();
    let mut client = guarded.proxy.connect().await;
    let upgrade = [("host", HOST), ("connection", "upgrade"), ("upgrade", "websocket")];
    assert_eq!(client.request("POST", "/", &upgrade, b"abc").await.status, 200);
    assert_eq!(guarded.asked().body, b"abc");
}

#[tokio::test]
async fn a_service_that_gets_what_is_listed_denies_as_others_do() {
    let asks = || HttpAuth { path: "".into(), allowed: Vec::new(), copied: vec![name("X-User")], body: None };
    for answer in [202, 204, 206, 300, 304, 500, 503] {
        let guarded = Guarded::by(Reply::status(answer).body("mine"), asked_as(AuthProtocol::Http(asks())));
        let response = guarded.get(&[]).await;
        assert_eq!((response.status, guarded.web.requests()), (500, 0), "{answer}");
        assert!(!response.text().contains("mine"));
    }
    // A denial is the client's answer, without the fields that concern the connection to the service.
    for answer in [401, 403, 302, 307, 404, 429] {
        let reply = Reply::status(answer)
            .header("Location", "/login")
            .header("WWW-Authenticate", "Bearer")
            .header("Set-Cookie", "a=1")
            .header("Set-Cookie", "b=2")
            .header("Connection", "X-Hop")
            .header("X-Hop", "1")
            .header("X-Accel-Redirect", "/internal")
            .header("Content-Type", "application/json")
            .body("{}");
        let guarded = Guarded::by(reply, asked_as(AuthProtocol::Http(asks())));
        let response = guarded.get(&[]).await;
        assert_eq!((response.status, guarded.web.requests()), (answer, 0));
        assert_eq!(
            (response.header("location"), response.header("www-authenticate")),
            (Some("/login"), Some("Bearer"))
        );
        assert_eq!(response.headers().all("set-cookie"), ["a=1", "b=2"]);
        assert_eq!((response.header("x-hop"), response.header("x-accel-redirect")), (None, None));
        assert_eq!((response.header("content-type"), &*response.text()), (Some("application/json"), "{}"));
    }
    // A body that is not text, or longer than is kept, is left out, however it arrives.
    let most = vec![b'x'; 64 << 10];
    let longer = vec![b'x'; (64 << 10) + 1];
    let chunks = |body: &[u8]| body.chunks(1000).map(<[u8]>::to_vec).collect::<Vec<_>>();
    let denies = || Reply::status(403).header("Content-Type", "text/x").header("X-Why", "no");
    for (reply, kept) in [
        (denies().body([0xff; 10]), 0),
        (denies().body(vec![b'x'; 1 << 20]), 0),
        (denies().body(&most), most.len()),
        (denies().body(&longer), 0),
        (denies().chunked(chunks(&most)), most.len()),
        (denies().chunked(chunks(&longer)), 0),
        (denies().chunked([&longer]), 0),
        (denies().close_delimited(&most), most.len()),
        (denies().close_delimited(&longer), 0),
    ] {
        let guarded = Guarded::by(reply.clone(), asked_as(AuthProtocol::Http(asks())));
        let response = guarded.get(&[]).await;
        assert_eq!((response.status, response.text().len(), response.header("x-why")), (403, kept, Some("no")));
        assert_eq!(response.header("content-type"), (kept > 0).then_some("text/x"));
    }
    // The end of the connection may end the body, unless more was announced.
    for (head, body) in [
        ("HTTP/1.0 403 Forbidden\r\n", "{}"),
        ("HTTP/1.1 403 Forbidden\r\nConnection: close\r\n", "{}"),
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 3\r\n", ""),
        ("HTTP/1.1 403 Forbidden\r\nTransfer-Encoding: chunked\r\n", ""),
    ] {
        let reply = Reply::raw(format!("{head}Content-Type: application/json\r\n\r\n{{}}")).then_close();
        let guarded = Guarded::by(reply, asked_as(AuthProtocol::Http(asks())));
        let response = guarded.get(&[]).await;
        assert_eq!((response.status, &*response.text()), (403, body), "{head}");
        assert_eq!(response.header("content-type"), (!body.is_empty()).then_some("application/json"), "{head}");
    }
}

#[tokio::test]
async fn the_service_is_asked_about_the_request_without_its_body() {
    let guarded = Guarded::by(Reply::status(202).body("who reads this"), auth());
    let mut client = guarded.proxy.connect().await;
    let fields = [
        ("host", "app.example:8080"),
        ("cookie", "s=1"),
        ("authorization", "Bearer x"),
        ("content-type", "text/plain"),
        ("expect", "100-continue"),
        ("x-original-url", "https://spoofed"),
        ("X_Original_Method", "SPOOFED"),
        ("x-auth-request-redirect", "/spoofed"),
        ("x-sent-from", "spoofed"),
        ("x-forwarded-proto", "spoofed"),
        ("x-forwarded-user", "spoofed"),
        ("x-request-id", "id7"),
        ("connection", "x-hop"),
        ("x-hop", "1"),
    ];
    let response = client.request("POST", "/a%20b?c=d", &fields, b"the body").await;
    let echo = response.echo();
    assert_eq!((response.status, echo.origin.as_str(), echo.body.as_str()), (200, "web", "the body"));
    let asked = guarded.asked();
    assert_eq!((asked.method.as_str(), asked.target.as_str()), ("GET", "/verify?from=app.example"));
    assert!(asked.body.is_empty());
    assert_eq!(
        lines(&asked),
        [
            "authorization: Bearer x",
            "content-type: text/plain",
            "cookie: s=1",
            "Host: auth.example",
            "X-Auth-Request-Redirect: /a%20b?c=d",
            "X-Forwarded-For: 127.0.0.1",
            "X-Original-Method: POST",
            "X-Original-URL: http://app.example:8080/a%20b?c=d",
            "X-Real-IP: 127.0.0.1",
            "X-Request-ID: id7",
            "X-Sent-From: nginx-ingress-controller",
        ]
    );
}

#[tokio::test]
async fn the_service_judges_the_path_that_is_forwarded() {
    let target = Template::parse("/verify$request_uri&escaped=$escaped_request_uri");
    let guarded = Guarded::by(Reply::ok(), asking(Subrequest { method: Some("GET".into()), target, ..asks() }));
    for target in ["/public/../admin?q", "/public/%2e%2e/admin?q", "http://app.example/admin?q"] {
        let mut client = guarded.proxy.connect().await;
        client.send(format!("GET {target} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
        assert_eq!(client.read_response().await.echo().target, "/admin?q", "{target}");
        let asked = guarded.asked();
        assert_eq!(asked.target, "/verify/admin?q&escaped=%2Fadmin%3Fq", "{target}");
        assert_eq!(asked.header("x-original-url"), Some("http://app.example/admin?q"), "{target}");
        for name in ["x-original-uri", "x-auth-request-redirect"] {
            assert_eq!(asked.header(name), Some("/admin?q"), "{target}");
        }
    }
    let mut client = guarded.proxy.connect().await;
    client.send(format!("GET http://{HOST}?q HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    assert_eq!(client.read_response().await.status, 200);
    assert_eq!(guarded.asked().header("x-original-url"), Some("http://app.example/?q"));
}

#[tokio::test]
async fn a_malformed_or_slow_body_of_the_answer_costs_only_its_connection() {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let malformed = Reply::raw(format!("{head}x\r\n{}", "y".repeat(1 << 20)));
    for reply in [malformed, Reply::raw(format!("{head}5\r\n")).then_stall()] {
        let mut asks = auth();
        asks.forward.policy = Arc::new(ForwardPolicy::default());
        let guarded = Guarded::by(reply, asks);
        assert_eq!(guarded.get(&[]).await.status, 200);
        assert_eq!(guarded.get(&[]).await.status, 200);
        assert_eq!(guarded.service.connections(), 2);
    }
}

#[tokio::test]
async fn the_route_may_choose_method_and_fields() {
    let edits = [("X-Forwarded-Method", "$request_method"), ("X-Sent-From", "us")];
    let guarded = Guarded::by(
        Reply::ok(),
        asking(Subrequest {
            method: Some("POST".into()),
            request_redirect: Some(Template::parse("$escaped_request_uri")),
            fields: edits.map(|(name, value)| FieldEdit::set(name, value).expect("a name")).into(),
            ..asks()
        }),
    );
    assert_eq!(guarded.get(&[]).await.status, 200);
    let asked = guarded.asked();
    assert_eq!(asked.method, "POST");
    for (name, value) in [
        ("x-forwarded-method", "GET"),
        ("x-sent-from", "us"),
        ("x-auth-request-redirect", "%2Fa%2520b%3Fc%3Dd"),
        ("x-original-uri", "/a%20b?c=d"),
        ("x-scheme", "http"),
    ] {
        assert_eq!(asked.headers().all(name), [value], "{name}");
    }
}

#[tokio::test]
async fn an_answer_means_what_nginx_takes_it_for() {
    for (reply, expected) in [
        (Reply::ok(), 200),
        (Reply::status(299), 200),
        (Reply::status(401).header("www-authenticate", "Bearer realm=\"x\"").body("page"), 401),
        (Reply::status(403), 403),
        (Reply::redirect(302, "https://login.example/"), 500),
        (Reply::status(404), 500),
        (Reply::status(500), 500),
        (Reply::status(503), 500),
        (Reply::upgrade("websocket"), 500),
        (Reply::garbage(), 500),
        (Reply::nothing().then_close(), 500),
        (Reply::nothing().then_reset(), 500),
        (Reply::nothing().then_stall(), 500),
        (Reply::ok().padding(200 << 10), 500),
        (Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"), 500),
    ] {
        let guarded = Guarded::by(reply.clone(), auth());
        let response = guarded.get(&[("x-secret", "1")]).await;
        assert_eq!(response.status, expected, "{reply:?}");
        assert_eq!(guarded.web.requests(), u64::from(expected == 200), "{reply:?}");
        let challenge = (expected == 401).then_some("Bearer realm=\"x\"");
        assert_eq!(response.header("www-authenticate"), challenge, "{reply:?}");
        assert!(!response.text().contains("page") && response.header("location").is_none(), "{reply:?}");
    }
}

#[tokio::test]
async fn a_service_that_cannot_be_asked_denies() {
    for fault in [Fault::Refuse, Fault::EchoBytes] {
        let guarded = Guarded::by_origin(Origin::new("auth").fault(fault).start(), auth());
        assert_eq!((guarded.get(&[]).await.status, guarded.web.requests()), (500, 0), "{fault:?}");
    }
    let guarded = Guarded::by(Reply::ok(), auth());
    guarded.proxy.publish([endpoints("auth", &[])]).await;
    assert_eq!((guarded.get(&[]).await.status, guarded.web.requests()), (500, 0));
    let missing = "default/missing:80".into();
    let unknown = Forward { backends: Backends::One(missing), ..auth().forward };
    let guarded = Guarded::by(Reply::ok(), ExternalAuth { forward: unknown, ..auth() });
    assert_eq!((guarded.get(&[]).await.status, guarded.web.requests()), (500, 0));
    // A target with a space can't be sent.
    let guarded = Guarded::by(Reply::ok(), asking(Subrequest { target: Template::parse("/$http_x y"), ..asks() }));
    assert_eq!((guarded.get(&[]).await.status, guarded.web.requests()), (500, 0));
}

#[tokio::test]
async fn another_endpoint_is_asked_if_one_refuses() {
    let refusing = Origin::new("x").fault(Fault::Refuse).start();
    let guarded = Guarded::by(Reply::ok(), auth());
    guarded.proxy.publish([endpoints("auth", &[refusing.address(), guarded.service.address()])]).await;
    for _ in 0..4 {
        assert_eq!(guarded.get(&[]).await.status, 200);
    }
}

#[tokio::test]
async fn an_endpoint_that_leaves_while_it_is_asked_does_not_count() {
    let ca = Ca::new("ca");
    let leaving = [1, 2, 3, 4].map(|_| Origin::new("leaving").fault(Fault::Silent).start());
    let new = Origin::new("new").tls(&ca.leaf(&["auth.example"])).start();
    let mut asks = auth();
    let within = Duration::from_secs(3600);
    let tls = Some(Arc::new(UpstreamTls::default()));
    asks.forward.policy =
        Arc::new(ForwardPolicy { connect_timeout: within, read_timeout: within, tls, ..ForwardPolicy::default() });
    let guarded = guarded_by_one(new, vec![filter(asks)]);
    guarded.proxy.publish([endpoints("auth", &[leaving[0].address()])]).await;
    let mut client = guarded.proxy.connect().await;
    client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    for (at, origin) in leaving.iter().enumerate() {
        // The handshake has begun, and is never answered.
        origin.next_connection().await;
        let next = leaving.get(at + 1).unwrap_or(&guarded.service);
        guarded.proxy.publish([endpoints("auth", &[next.address()])]).await;
        origin.close_connections();
    }
    assert_eq!(client.read_response().await.status, 200);
    assert_eq!((guarded.service.requests(), guarded.web.requests()), (1, 1));
}

#[tokio::test]
async fn another_endpoint_is_asked_if_a_kept_connection_ends_with_its_endpoint() {
    let gate = Gate::new();
    let old = Origin::new("old").replies([Reply::ok(), Reply::ok().held_by(&gate)]).start();
    let guarded = guarded_by_one(Origin::start("new"), vec![filter(auth())]);
    guarded.proxy.publish([endpoints("auth", &[old.address()])]).await;
    let mut client = guarded.proxy.connect().await;
    assert_eq!(client.get(HOST, "/").await.status, 200);
    client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    gate.reached(1).await;
    guarded.proxy.publish([endpoints("auth", &[guarded.service.address()])]).await;
    old.reset_connections();
    assert_eq!(client.read_response().await.status, 200);
    assert_eq!((guarded.service.requests(), old.connections()), (1, 1), "the old endpoint is not connected to again");
}

#[tokio::test]
async fn fields_of_the_answer_replace_those_of_the_client() {
    let reply = Reply::ok().header("X-Auth-User", "alice").header("x-groups", "a").header("x-groups", "b");
    let copied = ["X-Auth-User", "X-Groups", "Authorization", "X-Real-IP"].map(name).into();
    let guarded = Guarded::by(reply, asking(Subrequest { copied, ..asks() }));
    let response = guarded.get(&[("x-auth-user", "mallory"), ("X_Groups", "root"), ("authorization", "Basic x")]).await;
    let echo = response.echo();
    assert_eq!(echo.headers.all("x-auth-user"), ["alice"]);
    assert_eq!(echo.headers.all("x-groups"), ["a, b"]);
    assert_eq!(echo.header("x_groups"), None);
    assert_eq!(echo.header("authorization"), None, "the answer has none");
    assert_eq!(echo.headers.all("x-real-ip"), ["127.0.0.1"]);
    assert_eq!(guarded.asked().header("authorization"), Some("Basic x"));
}

#[tokio::test]
async fn the_route_has_the_last_word_about_fields_of_the_service() {
    let listed = |copied| HttpAuth { path: "".into(), allowed: Vec::new(), copied, body: None };
    let protocols = [
        AuthProtocol::Subrequest(Box::new(Subrequest { copied: vec![name("X-User")], ..asks() })),
        AuthProtocol::Http(listed(vec![name("X-User")])),
        AuthProtocol::Http(listed(Vec::new())),
    ];
    let value = || Template::of_literal("owner");
    for protocol in protocols {
        for (change, expected) in
            [(Change::Set(value()), &["owner"][..]), (Change::Add(value()), &["ann", "owner"]), (Change::Remove, &[])]
        {
            let edits = Filter::EditRequest(vec![FieldEdit::new(name("x-user"), change)]);
            let answer = || Origin::new("auth").reply(Reply::ok().header("X-User", "ann")).start();
            let auth = filter(asked_as(protocol.clone()));
            let guarded = guarded_by_one(answer(), vec![auth.clone(), edits.clone()]);
            let echo = guarded.get(&[("x-user", "mallory")]).await.echo();
            assert_eq!(echo.headers.all("x-user"), expected, "{protocol:?}");
            // The same for edits of the chosen backend.
            let Action::Forward(to) = forward("web", ForwardPolicy::default()) else { unreachable!("it forwards") };
            let Backends::One(backend) = &to.backends else { unreachable!("to one") };
            let share = WeightedBackend { backend: backend.clone(), weight: 1, filters: vec![edits], tls: None };
            let to = Action::Forward(Forward { backends: Backends::Weighted(vec![share]), ..to });
            guarded.proxy.publish([host(HOST, vec![filtered(route("/", to), vec![auth])])]).await;
            let echo = guarded.get(&[("x-user", "mallory")]).await.echo();
            assert_eq!(echo.headers.all("x-user"), expected, "{protocol:?}");
        }
    }
}

#[tokio::test]
async fn the_service_has_no_more_time_than_the_request() {
    let silent = Origin::new("auth").fault(Fault::Silent).start();
    let web = Origin::start("web");
    let mut resources = backend("web", &[web.address()]);
    resources.extend(backend("auth", &[silent.address()]));
    let within = Some(Duration::from_millis(300));
    let policy = ForwardPolicy { response_within: within, ..ForwardPolicy::default() };
    let listed = HttpAuth { path: "".into(), allowed: Vec::new(), copied: Vec::new(), body: None };
    // Longer than the client in this test waits.
    let mut auth = asked_as(AuthProtocol::Http(listed));
    auth.forward.policy = ForwardPolicy { read_timeout: Duration::from_secs(3600), ..ForwardPolicy::default() }.into();
    resources.push(host(HOST, vec![filtered(route("/", forward("web", policy)), vec![filter(auth)])]));
    let guarded = Guarded { proxy: TestProxy::start(resources), service: silent, web };
    let mut client = guarded.proxy.connect().await;
    for _ in 0..2 {
        let response = client.request("GET", "/", &[("host", HOST)], b"").await;
        assert_eq!((response.status, guarded.web.requests()), (504, 0));
    }
}

/// A route whose requests have this much time, guarded by a service that may get the body.
fn within(time: Duration, (service, web): (Origin, Origin), body: Option<NonZeroU32>) -> Guarded {
    let policy = ForwardPolicy { response_within: Some(time), ..ForwardPolicy::default() };
    let asks = HttpAuth { path: "".into(), allowed: Vec::new(), copied: Vec::new(), body };
    let mut auth = asked_as(AuthProtocol::Http(asks));
    auth.forward.policy = Arc::default();
    let mut resources = backend("web", &[web.address()]);
    resources.extend(backend("auth", &[service.address()]));
    resources.push(host(HOST, vec![filtered(route("/", forward("web", policy)), vec![filter(auth)])]));
    Guarded { proxy: TestProxy::start(resources), service, web }
}

#[tokio::test]
async fn the_time_of_the_request_is_not_used_by_the_upload_of_a_client() {
    let (time, gate) = (Duration::from_millis(600), Gate::new());
    let service = Origin::new("auth").reply(Reply::ok().held_by(&gate)).start();
    let guarded = within(time, (service, Origin::start("web")), NonZeroU32::new(10));
    for (asked, framing) in [(1, "Content-Length: 5"), (2, "Transfer-Encoding: chunked")] {
        let mut client = guarded.proxy.connect().await;
        client.send(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\n{framing}\r\nExpect: 100-continue\r\n\r\n")).await;
        // The head is read by then.
        client.read_until("HTTP/1.1 100 Continue\r\n\r\n").await;
        let pieces = if framing.contains('5') { ["ab", "cde"] } else { ["2\r\nab\r\n", "3\r\ncde\r\n0\r\n\r\n"] };
        for piece in pieces {
            tokio::time::sleep(time).await;
            client.send(piece).await;
        }
        // The service still has some of it.
        gate.reached(asked).await;
        tokio::time::sleep(time / 6).await;
        gate.release_one();
        assert_eq!(client.read_response().await.echo().body, "abcde");
        assert_eq!(guarded.asked().body, b"abcde");
    }
    // Without any time, the service is not asked.
    let guarded = within(Duration::ZERO, (Origin::start("auth"), Origin::start("web")), NonZeroU32::new(10));
    let mut client = guarded.proxy.connect().await;
    assert_eq!(client.request("POST", "/", &[("host", HOST)], b"abc").await.status, 504);
    assert_eq!((guarded.service.connections(), guarded.web.connections()), (0, 0));
}

#[tokio::test]
async fn an_endpoint_that_the_time_of_the_request_cuts_off_counts_as_silent() {
    // This service is never silent for long.
    let drips = Reply::raw(format!("HTTP/1.1 200 OK\r\nX-Long: {}", "x".repeat(4000)));
    let dripping = Origin::new("a").reply(drips.trickle(1, Duration::from_millis(10))).start();
    let (good, web) = (Origin::start("b"), Origin::start("web"));
    let policy = ForwardPolicy { response_within: Some(Duration::from_millis(200)), ..ForwardPolicy::default() };
    let mut auth = auth();
    auth.forward.policy = Arc::default();
    let mut resources = backend("web", &[web.address()]);
    resources.extend(backend("auth", &[dripping.address(), good.address()]));
    resources.push(host(HOST, vec![filtered(route("/", forward("web", policy)), vec![filter(auth)])]));
    let config = fairway_proxy::ProxyConfig { workers: std::num::NonZeroUsize::new(1), ..support::config() };
    let proxy = TestProxy::start_with(resources, config);
    let mut client = proxy.connect().await;
    let mut late = 0;
    for _ in 0..30 {
        late += u32::from(client.get(HOST, "/").await.status == 504);
    }
    // Then it is passed over, but for a trial now and then.
    assert!((EJECTION_FAILURES..10).contains(&late), "{late}");
}

#[tokio::test]
async fn the_time_that_the_service_took_is_gone_for_a_body_without_a_length_too() {
    let (asked, answering) = (Gate::new(), Gate::new());
    let service = Origin::new("auth").reply(Reply::ok().held_by(&asked)).start();
    let web = Origin::new("web").reply(Reply::ok().held_by(&answering)).start();
    let guarded = within(Duration::from_millis(1600), (service, web), None);
    let mut client = guarded.proxy.connect().await;
    client
        .send(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n"))
        .await;
    // Half of the time, and then less than all of it, but more than is left.
    asked.reached(1).await;
    tokio::time::sleep(Duration::from_millis(800)).await;
    asked.release();
    answering.reached(1).await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    answering.release();
    assert_eq!(client.read_response().await.status, 504);
}

#[tokio::test]
async fn variables_of_the_answer_reach_both_sides_also_from_a_kept_answer() {
    let reply = Reply::ok().header("X-User", "ann").header("X-User", "b").header("Max", "1");
    let service = Origin::new("auth").reply(reply).start();
    let variable = |name: &str, parts: Vec<AuthPart>| AuthVariable { name: name.into(), parts };
    let field = |field: &str| AuthPart::Field(name(field));
    let sets = vec![
        variable(
            "user",
            vec![AuthPart::Text("user:".into()), field("X-User"), AuthPart::Text("/".into()), AuthPart::Status],
        ),
        variable("none", vec![field("X-None"), AuthPart::Cookie("sid".into())]),
    ];
    let set = |name: &str, value: &str| FieldEdit::set(name, value).unwrap();
    let response = ResponseEdit { edit: set("X-For-Client", "$user"), statuses: Vec::new(), types: Vec::new() };
    let edits = SnippetEdits {
        request: vec![set("X-User", "$user"), set("X-None", "$none")],
        response: vec![response],
        ..SnippetEdits::default()
    };
    let snippet = Filter::Snippet(Arc::new(Snippet { edits, ..Snippet::default() }));
    let guarded = guarded_by_one(service, vec![snippet, filter(asking(Subrequest { sets, ..cached(&[(&[], 60)]) }))]);
    for _ in 0..2 {
        let response = guarded.get(&[("x-user", "forged"), ("x-none", "forged")]).await;
        assert_eq!((response.status, response.header("x-for-client")), (200, Some("user:ann, b/200")));
        let echo = response.echo();
        assert_eq!(echo.headers.all("x-user"), ["user:ann, b/200"]);
        assert_eq!(echo.header("x-none"), None, "the client's own never passes");
    }
    assert_eq!(guarded.service.requests(), 1);
}

#[tokio::test]
async fn clients_are_sent_to_sign_in_and_come_back_with_a_cookie() {
    let service = Origin::new("auth")
        .reply_with(|request| match request.header("cookie") {
            Some("session=good") => Reply::ok().header("Set-Cookie", "renewed=1; Path=/").header("Set-Cookie", "b=2"),
            _ => Reply::status(401).header("Set-Cookie", "csrf=3").header("www-authenticate", "Basic"),
        })
        .start();
    let sign_in =
        Template::parse("https://login.example/start?rd=$pass_access_scheme://$http_host$escaped_request_uri");
    let guarded = Guarded::by_origin(service, asking(Subrequest { sign_in: Some(sign_in), ..asks() }));
    let response = guarded.get(&[]).await;
    assert_eq!(response.status, 302);
    assert_eq!(
        response.header("location"),
        Some("https://login.example/start?rd=http://app.example%2Fa%2520b%3Fc%3Dd")
    );
    assert_eq!(response.headers().all("set-cookie"), ["csrf=3"]);
    assert_eq!((response.header("www-authenticate"), guarded.web.requests()), (None, 0));
    let response = guarded.get(&[("cookie", "session=good")]).await;
    assert_eq!(response.status, 200);
    assert_eq!(response.headers().all("set-cookie"), ["renewed=1; Path=/", "b=2"]);
}

#[tokio::test]
async fn cookies_of_the_service_depend_on_the_status_unless_always_set() {
    for (always, expected) in [(false, &[][..]), (true, &["a=1"])] {
        let reply = Reply::status(401).header("Set-Cookie", "a=1");
        let guarded = Guarded::by(reply, asking(Subrequest { always_set_cookie: always, ..asks() }));
        assert_eq!(guarded.get(&[]).await.headers().all("set-cookie"), expected);
        guarded.service.set_reply(Reply::ok().header("Set-Cookie", "a=1"));
        guarded.web.set_reply(Reply::status(404));
        assert_eq!(guarded.get(&[]).await.headers().all("set-cookie"), expected);
    }
}

#[tokio::test]
async fn connections_to_the_service_are_kept() {
    let guarded = Guarded::by(Reply::ok().chunked(["a", "b"]), auth());
    let mut client = guarded.proxy.connect().await;
    for _ in 0..5 {
        assert_eq!(client.get(HOST, "/").await.status, 200);
    }
    assert_eq!((guarded.service.requests(), guarded.service.connections()), (5, 1));
    guarded.service.close_connections();
    assert_eq!(client.get(HOST, "/").await.status, 200, "a stale connection is replaced");
    guarded.service.set_reply(Reply::ok().body(vec![b'x'; 1 << 20]));
    for _ in 0..2 {
        assert_eq!(client.get(HOST, "/").await.status, 200, "a long body costs only its connection");
    }
    assert_eq!(guarded.web.requests(), 8);
}

#[tokio::test]
async fn the_service_may_speak_tls() {
    let ca = Ca::new("ca");
    let service = Origin::new("auth").tls(&ca.leaf(&["auth.example"])).start();
    let mut asks = auth();
    let tls = UpstreamTls { name: Some("auth.example".into()), sni: true, ..UpstreamTls::default() };
    asks.forward.policy = Arc::new(ForwardPolicy { tls: Some(Arc::new(tls)), ..ForwardPolicy::default() });
    let guarded = Guarded::by_origin(service, asks);
    assert_eq!((guarded.get(&[]).await.status, guarded.service.requests()), (200, 1));
}

#[tokio::test]
async fn admitted_addresses_need_not_authenticate() {
    let service = Origin::new("auth").reply(Reply::status(401)).start();
    let web = Origin::start("web");
    let mut resources = backend("web", &[web.address()]);
    resources.extend(backend("auth", &[service.address()]));
    let list = |network: &str| {
        let allow = NetworkSet::from_iter([network.parse().expect("a network")]);
        Filter::AccessListOrAuth(AccessList { deny: NetworkSet::default(), allow: Some(allow) })
    };
    let to = || forward("web", ForwardPolicy::default());
    let routes = vec![
        filtered(
            route("/in", to()),
            vec![list("127.0.0.0/8"), filter(asking(Subrequest { copied: [name("X-Auth-User")].into(), ..asks() }))],
        ),
        filtered(route("/out", to()), vec![list("192.0.2.0/24"), filter(auth())]),
    ];
    resources.push(host(HOST, routes));
    let proxy = TestProxy::start(resources);
    let mut client = proxy.connect().await;
    let fields = [("host", HOST), ("x-auth-user", "mallory"), ("X_Auth_User", "mallory")];
    let response = client.request("GET", "/in", &fields, b"").await;
    assert_eq!((response.status, service.requests()), (200, 0));
    let echo = response.echo();
    assert_eq!((echo.header("x-auth-user"), echo.header("x_auth_user")), (None, None), "only the service names users");
    assert_eq!((client.get(HOST, "/out").await.status, service.requests()), (401, 1));
}

#[tokio::test]
async fn a_client_that_goes_while_the_service_thinks_leaves_nothing_behind() {
    let gate = Gate::new();
    let mut asks = auth();
    asks.forward.policy = Arc::new(ForwardPolicy::default());
    let guarded = Guarded::by(Reply::ok().held_by(&gate), asks);
    let mut client = guarded.proxy.connect().await;
    client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    gate.reached(1).await;
    client.reset();
    fairway_testkit::eventually("the connection to the service ends", async || guarded.service.open_connections() == 0)
        .await;
    assert_eq!(guarded.web.requests(), 0);
}

#[tokio::test]
async fn hints_of_the_service_do_not_reach_the_client() {
    let guarded = Guarded::by(Reply::ok().interim(103, &[("link", "</a>")]), auth());
    let mut client = guarded.proxy.connect().await;
    client.send(format!("GET / HTTP/1.1\r\nHost: {HOST}\r\n\r\n")).await;
    let response = client.read_response().await;
    assert_eq!((response.status, response.interim.len()), (200, 0));
}

/// Keeps answers for requests with the same field X-User.
fn cached(rules: &[(&[u16], u64)]) -> Subrequest {
    let rule = |&(statuses, seconds): &(&[u16], u64)| AuthCacheRule {
        statuses: statuses.into(),
        lasts: Duration::from_secs(seconds),
    };
    let cache = AuthCache { key: Template::parse("$http_x_user"), rules: rules.iter().map(rule).collect() };
    Subrequest { cache: Some(cache), copied: vec![name("X-Given")], ..asks() }
}

/// One worker, so that all requests meet the same answers.
fn guarded_by_one(service: Origin, filters: Vec<Filter>) -> Guarded {
    let web = Origin::start("web");
    let mut resources = backend("web", &[web.address()]);
    resources.extend(backend("auth", &[service.address()]));
    let to = || forward("web", ForwardPolicy::default());
    resources
        .push(host(HOST, vec![filtered(route("/", to()), filters.clone()), filtered(route("/other", to()), filters)]));
    let config = fairway_proxy::ProxyConfig { workers: std::num::NonZeroUsize::new(1), ..support::config() };
    Guarded { proxy: TestProxy::start_with(resources, config), service, web }
}

#[tokio::test]
async fn an_answer_is_kept_for_requests_with_the_same_key_on_the_same_path() {
    let service = Origin::new("auth").reply(Reply::ok().header("X-Given", "g")).start();
    let guarded = guarded_by_one(service, vec![filter(asking(cached(&[(&[200, 401], 60)])))]);
    for (user, asked) in [("a", 1), ("a", 1), ("b", 2), ("a", 2), ("b", 2)] {
        let response = guarded.get(&[("x-user", user), ("x-given", "spoofed")]).await;
        assert_eq!((response.status, response.echo().headers.all("x-given")), (200, vec!["g"]));
        assert_eq!(guarded.service.requests(), asked, "{user}");
    }
    let mut client = guarded.proxy.connect().await;
    client.request("GET", "/other", &[("host", HOST), ("x-user", "a")], b"").await;
    assert_eq!(guarded.service.requests(), 3);
    // A denial is kept with its challenge.
    guarded.service.set_reply(Reply::status(401).header("WWW-Authenticate", "Bearer"));
    for _ in 0..2 {
        let response = guarded.get(&[("x-user", "c")]).await;
        assert_eq!((response.status, response.header("www-authenticate")), (401, Some("Bearer")));
        assert_eq!(guarded.service.requests(), 4);
    }
    assert_eq!(guarded.get(&[("x-user", "a")]).await.status, 200);
}

#[tokio::test]
async fn what_must_not_be_kept_is_asked_about_again() {
    for (reply, rules) in [
        (Reply::status(202), &[(&[200][..], 60)][..]),
        (Reply::ok(), &[(&[200], 0)]),
        (Reply::ok().header("Set-Cookie", "a=b"), &[(&[], 60)]),
        (Reply::ok().header("Cache-Control", "max-age=60, private"), &[(&[], 60)]),
        (Reply::ok().header("Cache-Control", "max-age=0"), &[(&[], 60)]),
        (Reply::ok().header("cache-control", "No-Store"), &[(&[], 60)]),
        (Reply::status(500), &[(&[], 60)]),
        (Reply::status(302), &[(&[302], 60)]),
    ] {
        let service = Origin::new("auth").reply(reply).start();
        let guarded = guarded_by_one(service, vec![filter(asking(cached(rules)))]);
        for asked in 1..=2 {
            guarded.get(&[("x-user", "a")]).await;
            assert_eq!(guarded.service.requests(), asked, "{rules:?}");
        }
    }
}

#[tokio::test]
async fn a_password_or_the_service_may_be_enough() {
    let users = [("bob", "{PLAIN}b:c")].into_iter().collect();
    let password =
        Filter::BasicAuth(Box::new(BasicAuth { realm: "who".into(), users, digest: false, or_service: true }));
    let service = Origin::new("auth").reply(Reply::status(403)).start();
    let guarded = guarded_by_one(service, vec![password, filter(auth())]);
    let bob = [("authorization", "Basic Ym9iOmI6Yw==")];
    let response = guarded.get(&bob).await;
    assert_eq!((response.status, response.echo().header("authorization")), (200, None));
    assert_eq!(guarded.service.requests(), 0);
    // The challenge for a password comes before the refusal.
    let response = guarded.get(&[]).await;
    assert_eq!((response.status, response.header("www-authenticate")), (401, Some("Basic realm=\"who\"")));
    guarded.service.set_reply(Reply::ok());
    assert_eq!(guarded.get(&[]).await.status, 200);
    guarded.service.set_reply(Reply::status(500));
    assert_eq!(guarded.get(&[]).await.status, 500);
}

#[tokio::test]
async fn a_client_that_leaves_before_its_body_is_read_ends_the_wait() {
    let gate = Gate::new();
    let service = Origin::new("auth").reply(Reply::ok().held_by(&gate)).start();
    let mut asks = auth();
    asks.forward.policy =
        Arc::new(ForwardPolicy { read_timeout: Duration::from_secs(3600), ..ForwardPolicy::default() });
    let guarded = Guarded::by_origin(service, asks);
    let mut client = guarded.proxy.connect().await;
    client.send(format!("POST / HTTP/1.1\r\nHost: {HOST}\r\nContent-Length: 100\r\n\r\nabc")).await;
    gate.reached(1).await;
    let connection = guarded.asked_on().await;
    client.reset();
    // Nothing waits for the answer any more.
    guarded.service.ended(connection).await;
}
