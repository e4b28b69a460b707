//! Traces: the context that backends get, and the spans that a collector gets.

#![allow(clippy::unwrap_used, reason = "what fails in a helper fails the test")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::support::h2_origin::{Call, H2Origin};
use crate::support::log::{Lines, logging};
use crate::support::{HOST, TestProxy, backend, backend_alone, endpoints, forward, host, route};
use fairway_model::{
    Authority, Collector, FieldEdit, Filter, ForwardPolicy, Origin as Owner, ParentRule, Resource, Route, Sampler,
    Settings, SpanAttribute, SpanReceiver, SpanValue, StandardAttribute, Telemetry, Template, TraceRule, Tracing,
    Trust, UpstreamTls,
};
use fairway_testkit::{Ca, Origin, Reply, eventually};
use http::Response;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

fn traced(rule: TraceRule) -> Route {
    Route { tracing: Some(Arc::new(rule)), ..route("/", forward("web", ForwardPolicy::default())) }
}

fn trusting() -> TraceRule {
    TraceRule { trusts: true, operation: None, telemetry: None }
}

fn start(origin: &Origin, route: Route, tracing: Tracing) -> TestProxy {
    let mut resources = backend("web", &[origin.address()]);
    resources.push(host(HOST, vec![route]));
    resources.push(with(tracing));
    TestProxy::start(resources)
}

fn with(tracing: Tracing) -> Resource {
    Settings { tracing, ..Settings::default() }.into()
}

fn collector(address: std::net::SocketAddr, http: bool) -> Tracing {
    let port = address.port().try_into().unwrap();
    let collector = Some(Collector { host: "127.0.0.1".into(), port, http, authorities: None });
    Tracing { collector, delay: Duration::from_millis(50), service: "shop".into(), ..Tracing::default() }
}

/// What the backend gets in the fields of a trace.
async fn carried(proxy: &TestProxy, fields: &[(&str, &str)]) -> HashMap<String, String> {
    let mut all = vec![("host", HOST)];
    all.extend(fields);
    let echo = proxy.connect().await.request("GET", "/", &all, b"").await.echo();
    let names = ["traceparent", "tracestate", "b3", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled"];
    let values = names.iter().flat_map(|name| echo.headers.all(name).into_iter().map(|value| (*name, value)));
    let mut carried = HashMap::new();
    for (name, value) in values {
        assert_eq!(carried.insert(name.to_owned(), value.to_owned()), None, "{name} twice");
    }
    carried
}

#[tokio::test]
async fn a_trace_goes_on_in_the_form_that_it_came_in() {
    let origin = Origin::start("a");
    let proxy = start(&origin, traced(trusting()), Tracing::default());
    let new = carried(&proxy, &[]).await;
    let parts: Vec<&str> = new["traceparent"].split('-').collect();
    assert_eq!((new.len(), parts[0], parts[1].len(), parts[2].len(), parts[3]), (1, "00", 32, 16, "01"), "{new:?}");
    assert_ne!(carried(&proxy, &[]).await["traceparent"], new["traceparent"]);

    let parent = format!("00-{TRACE}-{PARENT}-00");
    let w3c = carried(&proxy, &[("traceparent", &parent), ("tracestate", "a=b")]).await;
    let value = &w3c["traceparent"];
    assert!(value.starts_with(&format!("00-{TRACE}-")) && value.ends_with("-00") && !value.contains(PARENT), "{value}");
    assert_eq!(w3c["tracestate"], "a=b");

    let single = carried(&proxy, &[("b3", &format!("{TRACE}-{PARENT}-1")), ("tracestate", "a=b")]).await;
    let span = single["traceparent"].split('-').nth(2).unwrap().to_owned();
    assert_eq!(single["b3"], format!("{TRACE}-{span}-1-{PARENT}"));
    assert_eq!((single["traceparent"].clone(), single.get("tracestate")), (format!("00-{TRACE}-{span}-01"), None));

    let ids = [("X-B3-TraceId", TRACE), ("X-B3-SpanId", PARENT), ("X-B3-Sampled", "0")];
    let multiple = carried(&proxy, &ids).await;
    let span = multiple["traceparent"].split('-').nth(2).unwrap();
    assert_eq!((&*multiple["x-b3-traceid"], &*multiple["x-b3-spanid"]), (TRACE, span));
    assert_eq!((&*multiple["x-b3-parentspanid"], &*multiple["x-b3-sampled"]), (PARENT, "0"));
    let broken = carried(&proxy, &[("traceparent", "00-x"), ("tracestate", "a=b")]).await;
    assert_eq!(broken.len(), 1, "{broken:?}");
}

#[tokio::test]
async fn an_untrusted_trace_does_not_go_on_and_what_the_route_sets_takes_its_place() {
    let origin = Origin::start("a");
    let proxy =
        start(&origin, traced(TraceRule { trusts: false, operation: None, telemetry: None }), Tracing::default());
    let parent = format!("00-{TRACE}-{PARENT}-01");
    let all = [("traceparent", &*parent), ("tracestate", "a=b"), ("b3", "0"), ("X-B3-TraceId", TRACE)];
    let new = carried(&proxy, &all).await;
    assert!(new.len() == 1 && !new["traceparent"].contains(TRACE), "{new:?}");
    let edits = vec![FieldEdit::set("Traceparent", "mine").unwrap()];
    let set = Route { filters: vec![Filter::EditRequest(edits)], ..traced(trusting()) };
    proxy.publish([host(HOST, vec![set])]).await;
    assert_eq!(carried(&proxy, &all).await["traceparent"], "mine");
    proxy.publish([host(HOST, vec![route("/", forward("web", ForwardPolicy::default()))])]).await;
    let untraced = carried(&proxy, &all).await;
    assert_eq!((&*untraced["traceparent"], untraced.len()), (&*parent, 4), "fields are just fields there");
}

#[tokio::test]
async fn sampled_spans_go_to_the_collector_over_grpc() {
    let messages: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let received = messages.clone();
    let server = H2Origin::start(move |mut call: Call| {
        let received = received.clone();
        async move {
            assert_eq!(call.request.uri().path(), "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
            assert_eq!(
                (&call.request.headers()["content-type"], &call.request.headers()["te"]),
                (&"application/grpc".parse().unwrap(), &"trailers".parse().unwrap())
            );
            let (body, _) = call.body().await;
            assert_eq!((body[0], u32::from_be_bytes(body[1..5].try_into().unwrap()) as usize), (0, body.len() - 5));
            received.lock().unwrap().push(body[5..].to_vec());
            call.answer(Response::builder().header("grpc-status", "0").body(()).unwrap(), "");
        }
    })
    .await;
    let (origin, lines) = (Origin::new("a").reply(Reply::status(503)).start(), Lines::default());
    let mut resources = backend("web", &[origin.address()]);
    resources.push(host(
        HOST,
        vec![traced(TraceRule {
            trusts: true,
            operation: Some(Template::parse("op $request_method")),
            telemetry: None,
        })],
    ));
    resources.push(with(collector(server.address, false)));
    let proxy =
        TestProxy::start_with(resources, logging(&lines, "$opentelemetry_trace_id $opentelemetry_span_id $req_id"));
    let unsampled = format!("00-{}-{PARENT}-00", "1".repeat(32));
    let sampled = format!("00-{TRACE}-{PARENT}-01");
    for parent in [&unsampled, &sampled] {
        proxy.connect().await.request("GET", "/a?b", &[("host", HOST), ("traceparent", parent)], b"").await;
    }
    eventually("a message", || async { !messages.lock().unwrap().is_empty() }).await;
    let messages = messages.lock().unwrap().clone();
    let spans = spans(&messages[0]);
    assert_eq!((messages.len(), spans.len()), (1, 1), "the other one is not sampled");
    let (span, attributes) = &spans[0];
    let logged = lines.after(2).await;
    let ids: Vec<&str> = logged[1].split(' ').collect();
    assert_eq!(
        (hex(&span[&1]), hex(&span[&2]), hex(&span[&4])),
        (TRACE.to_owned(), ids[1].to_owned(), PARENT.to_owned())
    );
    assert_eq!((ids[0], span[&5].as_slice(), span[&6].as_slice()), (TRACE, &b"op GET"[..], &[2][..]));
    let (begun, ended) = (time(&span[&7]), time(&span[&8]));
    assert!(begun <= ended && begun > 1_700_000_000_000_000_000, "{begun} {ended}");
    assert_eq!(fields(&span[&15])[&3], [2], "503 is an error");
    for (key, value) in [
        ("service.name", "shop"),
        ("http.method", "GET"),
        ("http.target", "/a?b"),
        ("http.host", HOST),
        ("http.scheme", "http"),
        ("ingress.namespace", "default"),
        ("ingress.name", "app"),
        ("request_id", ids[2]),
    ] {
        assert_eq!(attributes.get(key).map(String::as_str), Some(value), "{key}: {attributes:?}");
    }
}

#[tokio::test]
async fn spans_go_over_http_too_and_the_last_ones_before_the_end() {
    let server = Origin::new("collector").reply(Reply::ok()).start();
    let origin = Origin::start("a");
    let tracing =
        Tracing { delay: Duration::from_secs(600), sampler: Sampler::share(1.0), ..collector(server.address(), true) };
    let proxy = start(&origin, traced(trusting()), tracing);
    proxy.connect().await.get(HOST, "/").await;
    assert_eq!(server.requests(), 0, "they wait");
    // The collector lives on the thread of the test.
    tokio::task::spawn_blocking(move || proxy.proxy.stop_now()).await.unwrap();
    let seen = server.seen();
    assert_eq!((seen.len(), &*seen[0].method, &*seen[0].target), (1, "POST", "/v1/traces"));
    assert_eq!(seen[0].header("content-type"), Some("application/x-protobuf"));
    assert_eq!(spans(&seen[0].body).len(), 1);
}

#[tokio::test]
async fn a_collector_with_tls_gets_spans_if_an_authority_of_the_file_says_who_it_is() {
    let (ca, other) = (Ca::new("collector"), Ca::new("other"));
    for (trusted, expected) in [(&ca, 1), (&other, 0)] {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), trusted.pem()).unwrap();
        let server = Origin::new("collector").tls(&ca.leaf(&["127.0.0.1"])).reply(Reply::ok()).start();
        let origin = Origin::start("a");
        let port = server.port().try_into().unwrap();
        let authorities = Some(file.path().to_str().unwrap().into());
        let collector = Some(Collector { host: "127.0.0.1".into(), port, http: true, authorities });
        let tracing = Tracing { collector, delay: Duration::from_secs(600), ..Tracing::default() };
        let proxy = start(&origin, traced(trusting()), tracing);
        proxy.connect().await.get(HOST, "/").await;
        tokio::task::spawn_blocking(move || proxy.proxy.stop_now()).await.unwrap();
        assert_eq!(server.requests(), expected);
    }
}

fn telemetry(name: &str, receiver: SpanReceiver) -> Telemetry {
    Telemetry {
        name: name.into(),
        origin: Owner::new("XTelemetryPolicy", "shop", name),
        sampler: None,
        parent: None,
        service: None,
        span: None,
        attributes: Vec::new(),
        receiver: Some(receiver),
    }
}

fn receiver(service: &str, http: bool) -> SpanReceiver {
    let backend = backend_alone(service).name;
    SpanReceiver { backend, authority: format!("{service}.svc:4317").into(), http, tls: None, fields: Vec::new() }
}

/// A route at a path that a policy traces.
fn by_policy(path: &str, policy: &str) -> Route {
    let rule = TraceRule { telemetry: Some(policy.into()), ..trusting() };
    Route { tracing: Some(Arc::new(rule)), ..route(path, forward("web", ForwardPolicy::default())) }
}

#[tokio::test]
async fn the_spans_of_a_policy_go_to_its_own_receiver_and_say_what_it_asks_for() {
    let messages: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
    let received = messages.clone();
    let server = H2Origin::start(move |mut call: Call| {
        let received = received.clone();
        async move {
            let authority = call.request.uri().authority().map(|it| it.as_str().to_owned());
            assert_eq!(authority.as_deref(), Some("own.svc:4317"));
            assert_eq!(call.request.headers()["authorization"], "Bearer of-the-shop");
            let (body, _) = call.body().await;
            received.lock().unwrap().push(body[5..].to_vec());
            call.answer(Response::builder().header("grpc-status", "0").body(()).unwrap(), "");
        }
    })
    .await;
    let (origin, global) = (Origin::start("a"), Origin::new("collector").reply(Reply::ok()).start());
    let attribute = |name: &str, value| SpanAttribute { name: name.into(), value };
    let standard = |key: &str| SpanValue::Standard(StandardAttribute::of_key(key).unwrap());
    let field = |name: &str| SpanValue::Field(name.try_into().unwrap());
    let own = Telemetry {
        service: Some("own".into()),
        span: Some("own span".into()),
        attributes: vec![
            attribute("env", SpanValue::Literal("test".into())),
            attribute("user", field("x-user")),
            attribute("http.method", standard("http.request.method")),
            attribute("status", standard("http.response.status_code")),
            attribute("url", standard("url.full")),
            attribute("absent", field("x-absent")),
            attribute("type", field("content-type")),
            attribute("version", standard("network.protocol.version")),
        ],
        ..telemetry(
            "shop/own",
            SpanReceiver {
                fields: vec![("Authorization".try_into().unwrap(), "Bearer of-the-shop".into())],
                ..receiver("own", false)
            },
        )
    };
    let mut resources = backend("web", &[origin.address()]);
    resources.extend(backend("own", &[server.address]));
    resources.extend([own.into(), with(collector(global.address(), true))]);
    resources
        .push(host(HOST, vec![by_policy("/own", "shop/own"), by_policy("/none", "shop/none"), traced(trusting())]));
    let proxy = TestProxy::start(resources);
    let long = "u".repeat(3000);
    let fields = [("host", HOST), ("x-user", &*long)];
    for target in ["/own/a?b=c", "/", "/none"] {
        proxy.connect().await.request("GET", target, &fields, b"").await;
    }
    eventually("both messages", || async { !messages.lock().unwrap().is_empty() && global.requests() > 0 }).await;
    let spans_of_own = spans(&messages.lock().unwrap()[0]);
    let [(span, attributes)] = &spans_of_own[..] else { panic!("{} spans", spans_of_own.len()) };
    assert_eq!(span[&5], b"own span");
    let user = attributes["user"].clone();
    assert!(user.len() == 1024 && long.starts_with(&user), "its length is bounded");
    for (key, value) in [
        ("service.name", "own"),
        ("env", "test"),
        ("http.method", "GET"),
        ("status", "200"),
        ("url", &format!("http://{HOST}/own/a?b=c")),
        ("version", "1.1"),
    ] {
        assert_eq!(attributes.get(key).map(String::as_str), Some(value), "{key}: {attributes:?}");
    }
    assert!(attributes.contains_key("type") && !attributes.contains_key("absent"), "{attributes:?}");
    let others = spans(&global.seen()[0].body);
    assert_eq!((others.len(), &*others[0].1["service.name"]), (1, "shop"), "not those of policies");
    // A policy that is not there traces nothing.
    let parent = format!("00-{TRACE}-{PARENT}-01");
    let all = [("host", HOST), ("traceparent", &*parent)];
    let echo = proxy.connect().await.request("GET", "/none", &all, b"").await.echo();
    assert_eq!(echo.headers.all("traceparent"), [&*parent]);
}

#[tokio::test]
async fn the_callers_decision_counts_as_the_policy_says() {
    let origin = Origin::start("a");
    let begin = |parent, sampler| Telemetry { parent, sampler, ..telemetry("shop/a", receiver("none", true)) };
    let mut resources = backend("web", &[origin.address()]);
    resources.push(host(HOST, vec![by_policy("/", "shop/a")]));
    let proxy = TestProxy::start(resources);
    let (sampled, not) = (format!("00-{TRACE}-{PARENT}-01"), format!("00-{TRACE}-{PARENT}-00"));
    let all = Sampler::Always;
    for (policy, expected) in [
        // New traces, those that the caller has sampled, and those that it has not.
        (begin(None, None), ["01", "01", "00"]),
        (begin(Some(ParentRule::Followed(all)), Some(Sampler::Never)), ["00", "01", "00"]),
        (begin(Some(ParentRule::Followed(Sampler::Never)), Some(all)), ["01", "00", "00"]),
        (begin(Some(ParentRule::Ignored), Some(all)), ["01", "01", "01"]),
    ] {
        proxy.publish([policy.clone().into()]).await;
        for (parent, expected) in [None, Some(&sampled), Some(&not)].into_iter().zip(expected) {
            let fields: Vec<_> = parent.map(|parent| ("traceparent", &**parent)).into_iter().collect();
            let value = carried(&proxy, &fields).await.remove("traceparent").unwrap();
            assert!(value.ends_with(expected), "{parent:?} became {value} by {policy:?}");
        }
    }
}

#[tokio::test]
async fn a_receiver_that_does_not_answer_delays_no_other_and_the_endpoints_of_now_get_spans() {
    let stalled = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let [first, second] = ["first", "second"].map(|name| Origin::new(name).reply(Reply::ok()).start());
    let origin = Origin::start("a");
    let mut resources = backend("web", &[origin.address()]);
    resources.extend(backend("stalled", &[stalled.local_addr().unwrap()]));
    resources.extend(backend("good", &[first.address()]));
    resources.push(telemetry("shop/stalled", receiver("stalled", true)).into());
    resources.push(telemetry("shop/good", receiver("good", true)).into());
    resources.push(with(Tracing { delay: Duration::from_millis(20), ..Tracing::default() }));
    resources.push(host(HOST, vec![by_policy("/stalled", "shop/stalled"), by_policy("/good", "shop/good")]));
    let proxy = TestProxy::start(resources);
    let begun = Instant::now();
    proxy.connect().await.get(HOST, "/stalled").await;
    let (held, _) = stalled.accept().await.unwrap();
    proxy.connect().await.get(HOST, "/good").await;
    eventually("spans at the good one", || async { first.requests() > 0 }).await;
    proxy.publish([endpoints("good", &[second.address()])]).await;
    let before = first.requests();
    proxy.connect().await.get(HOST, "/good").await;
    eventually("spans at the other endpoint", || async { second.requests() > 0 }).await;
    assert_eq!(first.requests(), before);
    assert!(begun.elapsed() < Duration::from_secs(10), "the first one still waits for its answer");
    drop(held);
}

#[tokio::test]
async fn a_receiver_with_tls_gets_spans_if_its_certificate_is_as_demanded() {
    let (ca, other) = (Ca::new("collector"), Ca::new("other"));
    for (trusted, expected) in [(&ca, 1), (&other, 0)] {
        let server = Origin::new("collector").tls(&ca.leaf(&["otel.example"])).reply(Reply::ok()).start();
        let origin = Origin::start("a");
        let trust = Trust::Authorities([Authority::new(trusted.der().to_vec())].into());
        let tls = UpstreamTls { name: Some("otel.example".into()), sni: true, trust, ..UpstreamTls::default() };
        let own = SpanReceiver { tls: Some(Arc::new(tls)), ..receiver("own", true) };
        let mut resources = backend("web", &[origin.address()]);
        resources.extend(backend("own", &[server.address()]));
        resources.extend([telemetry("shop/own", own).into(), host(HOST, vec![by_policy("/", "shop/own")])]);
        let proxy = TestProxy::start(resources);
        proxy.connect().await.get(HOST, "/").await;
        // The collector lives on the thread of the test.
        tokio::task::spawn_blocking(move || proxy.proxy.stop_now()).await.unwrap();
        assert_eq!(server.requests(), expected);
    }
}

type Fields = HashMap<u64, Vec<u8>>;

/// The spans of a message, each with its attributes and those of its resource.
fn spans(message: &[u8]) -> Vec<(Fields, HashMap<String, String>)> {
    let of_resource = fields(message).remove(&1).unwrap();
    let of_resource = all(&of_resource);
    let part = |number| of_resource.iter().find(|(own, _)| *own == number).unwrap().1.clone();
    let (resource, scope) = (part(1), part(2));
    let spans = all(&scope).into_iter().filter(|(number, _)| *number == 2);
    spans
        .map(|(_, span)| {
            let own = all(&span).into_iter().filter(|(number, _)| *number == 9);
            let shared = all(&resource).into_iter().filter(|(number, _)| *number == 1);
            let texts = own.chain(shared).map(|(_, pair)| {
                let pair = fields(&pair);
                let value = fields(&pair[&2]);
                let number = || value.get(&3).map(|number| number[0].to_string().into_bytes());
                let text = value.get(&1).cloned().or_else(number).unwrap_or_default();
                (String::from_utf8(pair[&1].clone()).unwrap(), String::from_utf8(text).unwrap())
            });
            (fields(&span), texts.collect())
        })
        .collect()
}

fn fields(message: &[u8]) -> Fields {
    all(message).into_iter().collect()
}

/// The fields of a message of protobuf: numbers, and values without their lengths.
fn all(mut message: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let varint = |message: &mut &[u8]| {
        let mut value = 0;
        for shift in (0..).step_by(7) {
            let (first, rest) = message.split_first().unwrap();
            *message = rest;
            value |= u64::from(first & 0x7f) << shift;
            if first & 0x80 == 0 {
                break;
            }
        }
        value
    };
    let mut found = Vec::new();
    while !message.is_empty() {
        let tag = varint(&mut message);
        let value = match tag & 7 {
            0 => {
                let value = varint(&mut message);
                vec![u8::try_from(value).unwrap_or(u8::MAX)]
            }
            1 => {
                let (value, rest) = message.split_at(8);
                message = rest;
                value.to_vec()
            }
            2 => {
                let length = varint(&mut message) as usize;
                let (value, rest) = message.split_at(length);
                message = rest;
                value.to_vec()
            }
            other => panic!("wire type {other}"),
        };
        found.push((tag >> 3, value));
    }
    found
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn time(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().unwrap())
}
