//! Each failed request explains itself in its log line and in the metrics: a reason, a side, and the detail.

use std::collections::BTreeSet;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use crate::support;
use crate::support::h2_origin::H2Origin;
use crate::support::http2;
use crate::support::log::{Lines, logging};
use crate::support::{
    CONTROLLER, HOST, TestProxy, backend, backend_alone, endpoints, filtered, forward, forwarding, host, route, table,
};
use fairway_model::{
    AccessList, Action, AuthProtocol, Authority, Backend, ByteLimit, ClientAuth, ClientAuthMode, ClientLimits,
    EndpointSet, Endpoints, ExternalAuth, Filter, ForwardPolicy, Host, HostPattern, NetworkSet, Onward, Refusal,
    RequestRate, Resource, Respond, Retry, RetryConstraint, RetryOn, Settings, Subrequest, Template, UpstreamProtocol,
};
use fairway_proxy::ProxyConfig;
use fairway_proxy::reason::Reason;
use fairway_testkit::{Ca, Client, Fault, Gate, Origin, Reply, TlsClient, eventually};

const SHORT: Duration = Duration::from_millis(60);

const FORMAT: &str = "$status $failure_reason $failure_side ($failure_detail) $upstream_reason";

/// A proxy that logs failures, and tries nothing twice.
struct Logged {
    proxy: TestProxy,
    lines: Lines,
}

impl Logged {
    fn start(resources: impl IntoIterator<Item = Resource>) -> Self {
        let lines = Lines::default();
        Self { proxy: TestProxy::start_with(resources, logging(&lines, FORMAT)), lines }
    }

    fn to(origin: &Origin) -> Self {
        Self::with_policy(origin, ForwardPolicy::default())
    }

    fn with_policy(origin: &Origin, policy: ForwardPolicy) -> Self {
        Self::start(forwarding(&[origin], once(policy)))
    }

    fn with_settings(origin: &Origin, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings::default();
        change(&mut settings);
        let mut resources = forwarding(&[origin], ForwardPolicy::default());
        resources.push(settings.into());
        Self::start(resources)
    }

    /// Waits for the line of the only request.
    async fn line(&self) -> String {
        self.lines.after(1).await.remove(0)
    }

    /// Sends this, reads whatever comes back, and returns the log line.
    async fn send(&self, bytes: impl AsRef<[u8]>) -> String {
        let mut client = self.proxy.connect().await;
        client.send(bytes).await;
        let _ = client.try_read_response().await;
        self.line().await
    }

    async fn get(&self) -> String {
        self.send(get("/")).await
    }
}

fn once(policy: ForwardPolicy) -> ForwardPolicy {
    ForwardPolicy { retry: Retry { on: RetryOn::default(), ..Retry::default() }, ..policy }
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n")
}

fn post(fields: &str, body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: {HOST}\r\n{fields}\r\n{body}")
}

#[tokio::test]
async fn what_the_client_did_wrong() {
    let origin = Origin::start("a");
    let to_origin = |bytes: String| {
        let policy = ForwardPolicy { max_body: ByteLimit::of(10), ..ForwardPolicy::default() };
        let logged = Logged::with_policy(&origin, policy);
        async move { logged.send(bytes).await }
    };
    for (request, expected) in [
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n".to_owned(), "400 bad_request downstream (malformed host) -"),
        (get("/").replace("GET", "TRACE"), "405 bad_request downstream (method not allowed) -"),
        (
            get("/").replace("\r\n\r\n", &"\r\nX: y".repeat(200)) + "\r\n\r\n",
            "431 head_too_large downstream (too many fields) -",
        ),
        (get(&format!("/{}", "x".repeat(9000))), "414 head_too_large downstream (request line too long) -"),
        (get("/../x"), "400 bad_path downstream (-) -"),
        (post("Transfer-Encoding: chunked\r\n", "zz\r\n"), "400 bad_body downstream (malformed chunk size) -"),
        (post("Content-Length: 11\r\n", ""), "413 body_too_large downstream (-) -"),
        (get("/").replace(HOST, "unknown.example"), "404 no_host downstream (-) -"),
    ] {
        assert_eq!(to_origin(request.clone()).await, expected, "{request}");
    }
}

#[tokio::test]
async fn what_took_the_client_too_long() {
    let origin = Origin::start("a");
    let logged = Logged::with_settings(&origin, |settings| settings.header_timeout = SHORT);
    assert_eq!(logged.send("GET / HTTP/1.1\r\n").await, "408 head_timeout downstream (-) -");
    let logged = Logged::with_settings(&origin, |settings| settings.body_timeout = SHORT);
    let line = logged.send(post("Content-Length: 10\r\n", "hello")).await;
    assert_eq!(line, "408 body_timeout downstream (-) body_timeout");
}

#[tokio::test]
async fn a_client_that_goes() {
    let gate = Gate::new();
    let origin = Origin::new("a").reply(Reply::ok().held_by(&gate)).start();
    let logged = Logged::to(&origin);
    let mut client = logged.proxy.connect().await;
    client.send(get("/")).await;
    gate.reached(1).await;
    client.reset();
    assert_eq!(logged.line().await, "499 client_gone downstream (-) client_gone");
}

#[tokio::test]
async fn plain_http_on_a_tls_port() {
    let logged = Logged::start([]);
    let mut client = Client::connect(logged.proxy.https).await;
    client.send(get("/")).await;
    assert_eq!(client.read_response().await.status, 400);
    assert_eq!(logged.line().await, "400 plain_http_on_tls downstream (-) -");
}

#[tokio::test]
async fn what_the_configuration_says() {
    let route_with = |filter| {
        let policy = ForwardPolicy::default();
        let mut resources = backend("web", &[]);
        resources.push(host(HOST, vec![filtered(route("/", forward("web", policy)), vec![filter])]));
        Logged::start(resources)
    };
    let nobody = NetworkSet::from_iter(["192.0.2.0/24".parse().unwrap()]);
    let list = Filter::AccessList(AccessList { deny: NetworkSet::default(), allow: Some(nobody) });
    assert_eq!(route_with(list).get().await, "403 access_denied downstream (-) -");
    let refuse = Filter::Refuse(Refusal { reason: "x".into() });
    assert_eq!(route_with(refuse).get().await, "503 misconfigured internal (-) -");
    assert_eq!(route_with(Filter::RequireEndpoints).get().await, "503 no_endpoint internal (-) -");
    let unready = Logged::start(forwarding(&[], ForwardPolicy::default()));
    assert_eq!(unready.get().await, "503 no_endpoint internal (-) -");
    let missing = Logged::start([host(HOST, vec![route("/a", forward("web", ForwardPolicy::default()))])]);
    assert_eq!(missing.send(get("/a")).await, "503 no_service internal (-) -");
    let web = backend("web", &[]).into_iter().filter(|resource| !matches!(resource, Resource::EndpointSet(_)));
    let lost = Logged::start(web.chain([host(HOST, vec![route("/", forward("web", ForwardPolicy::default()))])]));
    assert_eq!(lost.get().await, "503 no_service internal (-) -");
    let other = Logged::start([host(HOST, vec![route("/a", forward("web", ForwardPolicy::default()))])]);
    assert_eq!(other.get().await, "404 no_route downstream (-) -");
    let not_carried_out = Logged::start([host(HOST, vec![route("/", Action::Respond(Respond::page(500)))])]);
    assert_eq!(not_carried_out.get().await, "500 misconfigured internal (-) -");
}

/// An unknown path is answered by the host for any name, which comes after the one that has no route for the path.
#[tokio::test]
async fn a_host_that_is_served_is_not_unknown() {
    let onward = || Some(Onward { wider: true, ..Onward::default() });
    let mut own = route("/", Action::Respond(Respond::not_found()));
    own.origin = fairway_model::Origin::built_in("default backend");
    let of_user = |pattern: HostPattern| {
        let routes = vec![route("/a", forward("web", ForwardPolicy::default()))];
        Host::new(table(), pattern, routes).with_onward(onward())
    };
    let any = Host::new(table(), HostPattern::Any, vec![own]);
    let lines = async |hosts: Vec<Host>, name: &str| {
        let logged = Logged::start(hosts.into_iter().map(Resource::from));
        logged.send(get("/b").replace(HOST, name)).await
    };
    let named = || vec![of_user(HostPattern::parse(HOST).unwrap()), any.clone()];
    assert_eq!(lines(named(), HOST).await, "404 no_route downstream (-) -");
    assert_eq!(lines(named(), "unknown.example").await, "404 no_host downstream (-) -");
    let then = Onward { then: Some(Arc::new(any.clone())), ..Onward::default() };
    let without_names = of_user(HostPattern::Any).with_onward(Some(then));
    assert_eq!(lines(vec![without_names], HOST).await, "404 no_route downstream (-) -");
}

/// A name that resolves to this machine, and one that resolves to nothing.
#[tokio::test]
async fn names_without_an_address_that_is_allowed() {
    for (name, expected) in [
        ("127.0.0.1", "the name of the backend leads to 127.0.0.1, which is refused"),
        ("no-such-name.invalid", "the name of the backend is not resolved"),
    ] {
        let mut resources = backend("web", &[]);
        resources.push(host(HOST, vec![route("/", forward("web", once(ForwardPolicy::default())))]));
        let named = Endpoints::Name { host: name.into(), port: 80 };
        resources.push(EndpointSet { backend: "default/web:80".into(), endpoints: named }.into());
        let logged = Logged::start(resources);
        let expected = format!("503 no_endpoint internal ({expected}) -");
        let (lines, http) = (&logged.lines, logged.proxy.http);
        Box::pin(eventually("the name is looked up", || {
            let expected = &expected;
            Box::pin(async move {
                let count = lines.text().lines().count();
                let mut client = Client::connect(http).await;
                client.send(get("/")).await;
                client.read_response().await;
                lines.after(count + 1).await[count] == *expected
            })
        }))
        .await;
    }
}

#[tokio::test]
async fn what_exceeds_the_limits_for_a_client() {
    let start = |per_second, in_progress| {
        let gate = Gate::new();
        let origin = Origin::new("a").reply(Reply::ok().held_by(&gate)).start();
        let limits = ClientLimits {
            scope: "web".into(),
            per_second,
            per_minute: None,
            in_progress,
            exempt: NetworkSet::default(),
            over_rate: Respond::page(503),
            over_requests: Respond::page(503),
        };
        let filters = vec![Filter::ClientLimits(Box::new(limits))];
        let mut resources = backend("web", &[origin.address()]);
        resources.push(host(HOST, vec![filtered(route("/", forward("web", ForwardPolicy::default())), filters)]));
        (Logged::start(resources), gate, origin)
    };
    let hourly = RequestRate { requests: NonZeroU32::MIN, period: Duration::from_secs(3600), burst: 0 };
    for (per_second, in_progress, expected) in [
        (Some(hourly), None, "503 rate_limit downstream (-) -"),
        (None, Some(NonZeroU32::MIN), "503 connection_limit downstream (-) -"),
    ] {
        let (logged, gate, _origin) = start(per_second, in_progress);
        let mut first = logged.proxy.connect().await;
        first.send(get("/")).await;
        gate.reached(1).await;
        assert_eq!(logged.get().await, expected);
    }
}

#[tokio::test]
async fn what_the_authentication_service_says() {
    let ask = async |service: &Origin| {
        let to = |backend| match forward(backend, once(ForwardPolicy::default())) {
            Action::Forward(forward) => forward,
            _ => unreachable!("it forwards"),
        };
        let asks = Subrequest {
            host: "auth".into(),
            target: Template::parse("/"),
            method: None,
            request_redirect: None,
            fields: Vec::new(),
            sign_in: None,
            copied: Vec::new(),
            sets: Vec::new(),
            cache: None,
            always_set_cookie: false,
        };
        let auth = ExternalAuth { forward: to("auth"), protocol: AuthProtocol::Subrequest(Box::new(asks)) };
        let mut resources = backend("auth", &[service.address()]);
        let guarded = filtered(route("/", Action::Forward(to("web"))), vec![Filter::ExternalAuth(Box::new(auth))]);
        resources.push(host(HOST, vec![guarded]));
        Logged::start(resources).get().await
    };
    let service = Origin::new("a").replies([Reply::status(401), Reply::status(403), Reply::status(404)]).start();
    assert_eq!(ask(&service).await, "401 unauthenticated downstream (-) -");
    assert_eq!(ask(&service).await, "403 unauthenticated downstream (-) -");
    let other = "the service gave no answer that allows or denies";
    assert_eq!(ask(&service).await, format!("500 authentication internal ({other}) -"));
    let refusing = Origin::new("a").fault(Fault::Refuse).start();
    assert_eq!(ask(&refusing).await, "500 authentication internal (connect_refused) -");
}

#[tokio::test]
async fn why_there_is_no_connection() {
    let refusing = Origin::new("a").fault(Fault::Refuse).start();
    let expected = "502 connect_refused upstream (Connection refused) connect_refused";
    assert_eq!(Logged::to(&refusing).get().await, expected);

    let no_tls = Origin::new("a").fault(Fault::EchoBytes).start();
    let policy = ForwardPolicy { tls: Some(Arc::default()), ..once(ForwardPolicy::default()) };
    let logged = Logged::start(forwarding(&[&no_tls], policy));
    let spoken = "the endpoint does not follow the protocol";
    assert_eq!(logged.get().await, format!("502 tls_handshake upstream ({spoken}) tls_handshake"));

    // TCP to a multicast address fails on any network.
    let mut resources = backend("web", &[([224, 0, 0, 1], 80).into()]);
    resources.push(host(HOST, vec![route("/", forward("web", once(ForwardPolicy::default())))]));
    let lines = Lines::default();
    let mut config = logging(&lines, FORMAT);
    config.addresses.allowed = ["224.0.0.0/4".parse().unwrap()].into_iter().collect();
    let line = Logged { proxy: TestProxy::start_with(resources, config), lines }.get().await;
    assert_eq!(line, "502 connect_failed upstream (Network is unreachable) connect_failed");

    let far = Origin::new("a").fault(Fault::Unreachable).start();
    let policy = ForwardPolicy { connect_timeout: SHORT, ..ForwardPolicy::default() };
    let line = Logged::with_policy(&far, policy).get().await;
    assert_eq!(line, "504 connect_timeout upstream (-) connect_timeout");
}

#[tokio::test]
async fn an_endpoint_that_is_removed_while_it_is_connected_to() {
    let far = Origin::new("a").fault(Fault::Unreachable).start();
    let logged = Logged::to(&far);
    let mut client = logged.proxy.connect().await;
    client.send(get("/")).await;
    // Whether it is connecting by now can't be observed from outside. If not, there is no endpoint.
    for _ in 0..20 {
        assert_eq!(logged.proxy.connect().await.get("unknown.example", "/").await.status, 404);
    }
    logged.proxy.publish([endpoints("web", &[])]).await;
    assert_eq!(client.read_response().await.status, 502);
    assert!(logged.lines.after(21).await[20].ends_with("502 endpoint_gone upstream (-) endpoint_gone"));
}

#[tokio::test]
async fn a_backend_that_may_get_no_other_try() {
    let origin = Origin::new("a").reply(Reply::nothing().then_close()).start();
    let constraint = RetryConstraint { percent: 0, interval: Duration::from_secs(10), least: 0 };
    let constrained = Backend { retry: Some(constraint), ..backend_alone("web") };
    let resources = forwarding(&[&origin], ForwardPolicy::default());
    let line = Logged::start(resources.into_iter().chain([constrained.into()])).get().await;
    assert_eq!(line, "503 retry_budget upstream (-) upstream_closed");
}

#[tokio::test]
async fn what_the_endpoint_did_wrong() {
    let answering = |reply: Reply| {
        let origin = Origin::new("a").reply(reply).start();
        async move { Logged::to(&origin).get().await }
    };
    for (reply, expected) in [
        (Reply::nothing().then_close(), "502 upstream_closed upstream (-) upstream_closed"),
        (Reply::nothing().then_reset(), "502 upstream_reset upstream (Connection reset by peer) upstream_reset"),
        (Reply::garbage(), "502 bad_response upstream (malformed protocol version) bad_response"),
        (Reply::upgrade("websocket"), "502 bad_upgrade upstream (-) bad_upgrade"),
        (
            Reply::ok().chunked(["abcdef"]).cut_body_after(6).then_close(),
            "200 bad_response_body upstream (connection closed inside a message body) bad_response_body",
        ),
        (Reply::status(500), "500 upstream_5xx upstream (-) upstream_5xx"),
        (Reply::status(404), "404 - - (-) -"),
    ] {
        assert_eq!(answering(reply).await, expected);
    }
}

#[tokio::test]
async fn what_took_the_endpoint_too_long() {
    let silent = Origin::new("a").fault(Fault::Silent).start();
    let policy = ForwardPolicy { read_timeout: SHORT, ..ForwardPolicy::default() };
    assert_eq!(Logged::with_policy(&silent, policy).get().await, "504 read_timeout upstream (-) read_timeout");

    let deaf = Origin::new("a").fault(Fault::Deaf).start();
    let policy = ForwardPolicy { send_timeout: SHORT, max_body: ByteLimit::NONE, ..ForwardPolicy::default() };
    let logged = Logged::with_policy(&deaf, policy);
    let mut client = logged.proxy.connect().await;
    client.send(post("Content-Length: 100000000\r\n", "")).await;
    let piece = vec![b'x'; 1 << 16];
    while client.try_send(&piece).await.is_ok() && !client.is_closed().await && client.unread().is_empty() {}
    assert_eq!(logged.line().await, "504 send_timeout upstream (-) send_timeout");
}

/// The log line of a request cut by shutdown names the endpoint that it was waiting for, even while connecting.
#[tokio::test]
async fn a_request_that_the_end_of_the_process_cuts() {
    let gate = Gate::new();
    let waiting = Origin::new("a").reply(Reply::ok().held_by(&gate)).start();
    let stalled = Origin::new("b").reply(Reply::ok().chunked(["one", "two"]).body_held_by(&gate)).start();
    let far = Origin::new("c").fault(Fault::Unreachable).start();
    for (origin, expected) in
        [(&waiting, "499 shutdown internal"), (&stalled, "200 shutdown internal"), (&far, "499 shutdown internal")]
    {
        let lines = Lines::default();
        let config = logging(&lines, "$status $failure_reason $failure_side $upstream_addr $upstream_reason");
        let proxy = TestProxy::start_with(forwarding(&[origin], ForwardPolicy::default()), config);
        let mut client = proxy.connect().await;
        client.send(get("/")).await;
        if std::ptr::eq(origin, &stalled) {
            client.read_head().await;
        } else if std::ptr::eq(origin, &waiting) {
            gate.reached(1).await;
        } else {
            // A connection without a response shows nothing: the worker has handled it once it has answered others.
            for _ in 0..20 {
                let mut other = proxy.connect().await;
                assert_eq!(other.get("unknown.example", "/").await.status, 404);
            }
        }
        proxy.proxy.stop_now();
        let line = lines.text().lines().find(|line| !line.starts_with("404")).map(str::to_owned);
        assert_eq!(line, Some(format!("{expected} {} shutdown", origin.address())));
    }
}

#[tokio::test]
async fn failures_are_in_the_metrics() {
    let refusing = Origin::new("a").fault(Fault::Refuse).start();
    let config = ProxyConfig { admin: Some(([127, 0, 0, 1], 0).into()), ..support::config() };
    let proxy = TestProxy::start_with(forwarding(&[&refusing], once(ForwardPolicy::default())), config);
    let mut client = proxy.connect().await;
    assert_eq!(client.get(HOST, "/").await.status, 502);
    assert_eq!(client.get("unknown.example", "/").await.status, 404);
    let admin = proxy.proxy.admin_address().unwrap();
    let labels = "ingress=\"app\",namespace=\"default\",service=\"web\",reason=\"connect_refused\",side=\"upstream\"";
    let expected = [
        format!("fairway_request_failures_total{{{CONTROLLER},{labels}}} 1\n"),
        format!("fairway_upstream_failures_total{{{CONTROLLER},{labels}}} 1\n"),
        "service=\"\",reason=\"no_host\",side=\"downstream\"} 1\n".to_owned(),
    ];
    eventually("the failures in the metrics", || {
        Box::pin(async {
            let text = Client::connect(admin).await.get("a", "/metrics").await.text();
            if expected.iter().all(|line| text.contains(line)) { Ok(()) } else { Err(text) }
        })
    })
    .await;
}

#[tokio::test]
async fn a_client_without_the_certificate_that_its_host_demands() {
    let auth = ClientAuth {
        mode: ClientAuthMode::Required,
        authorities: [Authority::new(Ca::new("root").der().to_vec())].into(),
        revocation_lists: [].into(),
        depth: 1,
        subject: None,
        error_page: None,
        passes_certificate: false,
        in_handshake: false,
    };
    let pattern = HostPattern::parse(HOST).expect("a host pattern");
    let guarded = Host::new(table(), pattern, vec![route("/", forward("web", ForwardPolicy::default()))]);
    let guarded = Resource::from(guarded.with_client_auth(Some(Arc::new(auth))));
    for (server_name, status, line) in [
        (HOST, 400, "400 client_certificate downstream (no certificate was sent) -"),
        ("other.example", 421, "421 misdirected downstream (-) -"),
    ] {
        let logged = Logged::start([guarded.clone()]);
        let response = TlsClient::unverified(server_name).connect(logged.proxy.https).await.get(HOST, "/").await;
        assert_eq!(response.status, status);
        assert_eq!(logged.line().await, line);
    }
}

#[tokio::test]
async fn a_call_of_grpc_whose_time_has_passed() {
    let origin = H2Origin::start(|call| async move {
        let _held = call;
        std::future::pending::<()>().await;
    })
    .await;
    let policy = ForwardPolicy { protocol: UpstreamProtocol::Http2, ..ForwardPolicy::default() };
    let mut resources = backend("web", &[origin.address]);
    resources.push(host(HOST, vec![route("/", forward("web", policy))]));
    let logged = Logged::start(resources);
    let mut call = http2::post("/");
    for (name, value) in [("content-type", "application/grpc"), ("grpc-timeout", "60m")] {
        call.headers_mut().insert(name, value.parse().expect("a value"));
    }
    let client = http2::H2::connect(logged.proxy.http).await;
    let (response, _send) = client.ready().await.send_request(call, false).expect("a request");
    let answer = http2::whole(response.await.expect("an answer")).await;
    assert_eq!((answer.status, answer.field("grpc-status")), (200, Some("4")));
    assert_eq!(logged.line().await, "504 call_timeout downstream (-) call_timeout");
}

/// Reasons that no test above provokes, and why.
const ELSEWHERE: [(Reason, &str); 3] = [
    (Reason::ClientStalled, "takes a minute, which has no setting"),
    (Reason::NoFile, "needs a limit of open files of its own: tests/descriptors.rs"),
    (Reason::Unwritable, "no request is known that can be read and not be written"),
];

#[test]
fn every_reason_is_provoked() {
    let text = include_str!("failure.rs");
    let named: BTreeSet<&str> = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
    for reason in Reason::ALL {
        let elsewhere = ELSEWHERE.iter().any(|(other, _)| other == reason);
        assert_ne!(named.contains(reason.as_str()), elsewhere, "{reason}");
    }
}
