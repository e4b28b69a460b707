//! Resources of other releases: `tests/fixtures/VERSION.json` holds what that release sends. `UPDATE_FIXTURES=1` writes this release's.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use fairway_model::{
    AccessList, Action, Affinity, AffinityMode, AuthCache, AuthCacheRule, AuthPart, AuthProtocol, AuthVariable,
    Authority, Backend, Backends, Balance, Certificate, Change, ClientAuth, ClientAuthMode, Conditions, Endpoint,
    EndpointSet, Endpoints, ExternalAuth, FieldEdit, Filter, Forward, ForwardPolicy, GrpcAuth, HashBalance,
    HealthCheck, Host, HostPattern, HttpAuth, HttpsRedirect, Listener, Origin, ParentRule, PathMatch, PrivateKey,
    Probe, Protocol, Resource, Respond, RetryConstraint, Route, SameSite, Sampler, Scheme, SessionCookie, Settings,
    Snapshot, SpanAttribute, SpanReceiver, SpanValue, StandardAttribute, StreamBackends, StreamListener, StreamShare,
    Subrequest, Telemetry, Template, Transport, Trust, UpstreamTls,
};
use serde_json::{Map, Value, json};

mod apart;

use crate::replica::stand_in;
use crate::replica::tests::Proxy;
use crate::resource::{Encoded, HOST, SETTINGS, Version, read};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// What this release sends, as text by name.
fn current() -> Map<String, Value> {
    let route = |path: &str, status| {
        let path = PathMatch::prefix(path).unwrap();
        Route::new(
            Origin::new("Ingress", "shop", "web").section("rules[0]"),
            path,
            Action::Respond(Respond::page(status)),
        )
    };
    let host = HostPattern::parse("*.shop.example").unwrap();
    let endpoints = Endpoints::Addresses(vec![Endpoint::ready(([10, 0, 0, 1], 80).into())]);
    let certificate = Certificate {
        name: "shop/tls".into(),
        origin: Origin::new("Secret", "shop", "tls"),
        fingerprint: "00".into(),
        not_after: 4_000_000_000,
        chain: vec![Arc::from(*b"certificate")],
        key: PrivateKey::new(*b"key"),
    };
    let resources: [Resource; 12] = [
        Settings::default().into(),
        guarded_host().into(),
        plain_backend().into(),
        Backend { name: "shop/web:http".into(), ..backend_with_all() }.into(),
        Listener {
            name: "https".into(),
            address: ([0, 0, 0, 0], 443).into(),
            scheme: Scheme::Https,
            table: "ingress".into(),
            accept_proxy: true,
            told_port: fairway_model::ToldPort::Number(8443),
        }
        .into(),
        stream("tcp-9000", Transport::Tcp { accept_proxy: true, send_proxy: false }, "shop/db:5432/tcp".into()).into(),
        stream("tcp-9001", Transport::Tcp { accept_proxy: false, send_proxy: true }, shares()).into(),
        stream("udp-53", Transport::Udp, StreamBackends::none()).into(),
        Host::new("ingress".into(), host, vec![route("/order", 200), route("/", 404)]).into(),
        EndpointSet { backend: "shop/cart:80".into(), endpoints }.into(),
        certificate.into(),
        telemetry().into(),
    ];
    let encoded = resources.iter().map(|resource| Encoded::new(resource).unwrap());
    encoded.map(|one| (one.name.to_string(), serde_json::from_slice(&one.body).unwrap())).collect()
}

/// A host that restricts its clients, and what they may do.
fn guarded_host() -> Host {
    let forward = Forward {
        backends: Backends::One("shop/web:http".into()),
        fallback: None,
        session_cookie_path: Some("/".into()),
        policy: ForwardPolicy::default().into(),
    };
    let path = PathMatch::exact("/pay").unwrap();
    let mut route = Route::new(Origin::new("Ingress", "shop", "pay"), path, Action::Forward(forward));
    let allow = Some(["10.0.0.0/8".parse().unwrap()].into_iter().collect());
    route.filters = vec![
        Filter::HttpsRedirect(HttpsRedirect { status: 308, preserve_trailing_slash: false, port: None }),
        Filter::AccessList(AccessList { deny: Vec::new().into(), allow }),
        Filter::RequireEndpoints,
    ];
    let asks = |protocol| {
        let forward = Forward::to("shop/guard:80/auth".into(), ForwardPolicy::default().into());
        Filter::ExternalAuth(Box::new(ExternalAuth { forward, protocol }))
    };
    route.filters.extend(questions().map(asks));
    route.conditions = Some(Box::new(Conditions { method: Some("POST".into()), ..Conditions::default() }));
    let client_auth = ClientAuth {
        mode: ClientAuthMode::Required,
        authorities: [Authority::new(*b"authority")].into(),
        revocation_lists: [].into(),
        depth: 1,
        subject: None,
        error_page: None,
        passes_certificate: false,
        in_handshake: false,
    };
    let host = Host::new("ingress".into(), HostPattern::parse("pay.shop.example").unwrap(), vec![route]);
    host.with_client_auth(Some(client_auth.into())).with_certificate(Some("shop/tls".into()))
}

/// Each way to ask an authentication service, with everything that it may have.
fn questions() -> [AuthProtocol; 3] {
    let (name, body) = (|text: &str| text.try_into().unwrap(), std::num::NonZeroU32::new(1024));
    let user = AuthVariable {
        name: "user".into(),
        parts: vec![
            AuthPart::Text("is ".into()),
            AuthPart::Field(name("X-User")),
            AuthPart::Cookie("session".into()),
            AuthPart::Status,
        ],
    };
    let rule = AuthCacheRule { statuses: vec![200], lasts: Duration::from_secs(60) };
    [
        AuthProtocol::Grpc(GrpcAuth {
            authority: "guard.shop.svc:80".into(),
            allowed: Some(vec![name("Cookie")]),
            body,
        }),
        AuthProtocol::Http(HttpAuth {
            path: "/check".into(),
            allowed: vec![name("Cookie")],
            copied: vec![name("X-User")],
            body,
        }),
        AuthProtocol::Subrequest(Box::new(Subrequest {
            host: "guard.example".into(),
            target: Template::parse("/check?for=$request_uri"),
            method: Some("POST".into()),
            request_redirect: Some(Template::parse("https://shop.example$request_uri")),
            fields: vec![FieldEdit::new(name("X-Shop"), Change::Set(Template::parse("$host")))],
            sign_in: Some(Template::parse("https://guard.example/start?rd=$request_uri")),
            copied: vec![name("X-User")],
            sets: vec![user],
            cache: Some(AuthCache { key: Template::parse("$http_cookie"), rules: vec![rule] }),
            always_set_cookie: true,
        })),
    ]
}

fn plain_backend() -> Backend {
    Backend {
        name: "shop/cart:80".into(),
        origin: Origin::new("Service", "shop", "cart"),
        port: "80".into(),
        upstream_name: "shop-cart-80".into(),
        protocol: Protocol::Http1,
        balance: Balance::RoundRobin,
        affinity: None,
        health_check: None,
        retry: None,
        request_fields: Vec::new(),
    }
}

fn backend_with_all() -> Backend {
    let cookie = SessionCookie {
        name: "route".into(),
        expires: Some(60),
        max_age: Some(60),
        domain: Some("shop.example".into()),
        secure: true,
        same_site: Some(SameSite::Lax),
        conditional_same_site_none: false,
    };
    let health_check = HealthCheck {
        probe: Probe::Http { path: "/healthz".into(), statuses: vec![(200, 299)] },
        tls: true,
        interval: Duration::from_secs(10),
        timeout: Duration::from_secs(3),
        unhealthy_after: 3,
        healthy_after: 2,
    };
    Backend {
        protocol: Protocol::ClearHttp1,
        balance: Balance::Hash(HashBalance { key: Template::parse("$request_uri"), subset: Some(3) }),
        affinity: Some(Affinity { mode: AffinityMode::Persistent, cookie, change_on_failure: true }),
        health_check: Some(Box::new(health_check)),
        retry: Some(RetryConstraint { percent: 20, interval: Duration::from_secs(10), least: 100 }),
        request_fields: vec![("X-Service".into(), "web".into())],
        ..plain_backend()
    }
}

fn stream(name: &str, transport: Transport, backend: StreamBackends) -> StreamListener {
    let origin = Origin::new("ConfigMap", "edge", "ports");
    StreamListener { name: name.into(), origin, address: ([0, 0, 0, 0], 9000).into(), transport, backend }
}

/// A share over TLS whose endpoints must prove their identity, and one that leads nowhere.
fn shares() -> StreamBackends {
    let trust = Trust::Authorities([Authority::new(*b"authority")].into());
    let tls = UpstreamTls { name: Some("db.shop.example".into()), sni: true, trust, ..UpstreamTls::default() };
    let secure = StreamShare { backend: Some("shop/db:5432/tcp".into()), weight: 3, tls: Some(tls.into()) };
    let nowhere = StreamShare { backend: None, weight: 1, tls: None };
    StreamBackends::Weighted([secure, nowhere].into())
}

/// How requests are traced, with everything that a policy may say.
fn telemetry() -> Telemetry {
    let name = |text: &str| text.try_into().unwrap();
    let attribute = |name: &str, value| SpanAttribute { name: name.into(), value };
    let trust = Trust::Authorities([Authority::new(*b"authority")].into());
    let tls = UpstreamTls { name: Some("traces.shop.example".into()), sni: true, trust, ..UpstreamTls::default() };
    Telemetry {
        name: "shop/traces".into(),
        origin: Origin::new("XTelemetryPolicy", "shop", "traces"),
        sampler: Some(Sampler::Share(1 << 60)),
        parent: Some(ParentRule::Followed(Sampler::Always)),
        service: Some("shop".into()),
        span: Some("request".into()),
        attributes: vec![
            attribute("env", SpanValue::Literal("test".into())),
            attribute("user", SpanValue::Field(name("X-User"))),
            attribute("method", SpanValue::Standard(StandardAttribute::Method)),
            attribute("agent", SpanValue::Standard(StandardAttribute::RequestField(name("user-agent")))),
        ],
        receiver: Some(SpanReceiver {
            backend: "shop/traces:4317/auth".into(),
            authority: "traces.shop:4317".into(),
            http: false,
            tls: Some(tls.into()),
            fields: vec![(name("Authorization"), "Bearer secret".into())],
        }),
    }
}

/// What a place in a value may become.
type Become = dyn Fn(&Value) -> Vec<Value>;

/// The same value with one of its places changed, in all ways.
fn changed(value: &Value, into: &Become) -> Vec<Value> {
    let mut all = into(value);
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                all.extend(changed(value, into).into_iter().map(|changed| {
                    let mut object = object.clone();
                    object.insert(key.clone(), changed);
                    Value::Object(object)
                }));
            }
        }
        Value::Array(list) => {
            for (at, value) in list.iter().enumerate() {
                all.extend(changed(value, into).into_iter().map(|changed| {
                    let mut list = list.clone();
                    list[at] = changed;
                    Value::Array(list)
                }));
            }
        }
        _ => {}
    }
    all
}

/// What only a newer release has.
const NEWER: &str = "of_a_newer_release";

/// What a newer release may make of a place: one more field, a field or variant of another name, a variant with or without a value.
fn newer(value: &Value) -> Vec<Value> {
    match value {
        Value::Object(object) => {
            let with = |without: Option<&String>, value: Value| {
                let mut object = object.clone();
                object.retain(|key, _| Some(key) != without);
                object.insert(NEWER.to_owned(), value);
                Value::Object(object)
            };
            let more = [json!(true), json!({"a": [1]})].map(|value| with(None, value));
            // A null may have any name.
            let named = object.iter().filter(|(_, value)| !value.is_null());
            more.into_iter().chain(named.map(|(key, value)| with(Some(key), value.clone()))).collect()
        }
        Value::Array(list) => {
            vec![
                list.iter().cloned().chain([json!(NEWER)]).collect(),
                list.iter().cloned().chain([json!({NEWER: 1})]).collect(),
            ]
        }
        value => vec![json!(NEWER), json!({NEWER: value})],
    }
}

fn taken(name: &str, body: &Value) -> Result<Resource, crate::resource::Unreadable> {
    let body = serde_json::to_vec(body).unwrap();
    read(name, Version::of(&body), &body)
}

#[test]
fn the_fixture_of_this_release_is_what_it_sends() {
    let path = folder().join(concat!(env!("CARGO_PKG_VERSION"), ".json"));
    let text = serde_json::to_string_pretty(&current()).unwrap() + "\n";
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == text,
        "resources have another form than {}: if that release is not out, UPDATE_FIXTURES=1 rewrites it; if it is, raise the version",
        path.display()
    );
}

#[test]
fn what_any_release_sends_is_understood_and_nothing_of_a_newer_one_is_left_out() {
    let mut refused = 0;
    for entry in std::fs::read_dir(folder()).unwrap() {
        let (path, text) = entry.map(|entry| (entry.path(), std::fs::read(entry.path()).unwrap())).unwrap();
        let fixture: Map<String, Value> = serde_json::from_slice(&text).unwrap();
        assert!(!fixture.is_empty());
        for (name, body) in &fixture {
            taken(name, body).unwrap_or_else(|error| panic!("{name} of {}: {error}", path.display()));
            for newer in changed(body, &newer) {
                // Either it is refused, or it is a text or a key of a map, and is kept.
                match taken(name, &newer) {
                    Err(_) => refused += 1,
                    Ok(resource) => {
                        let again = Encoded::new(&resource).unwrap().body;
                        assert!(String::from_utf8_lossy(&again).contains(NEWER), "{name}: {newer}");
                    }
                }
            }
        }
    }
    assert!(refused > 500, "only {refused} are refused");
}

/// The parts of this release that a newer one may send in another form: without the settings there is no connection.
fn parts() -> impl Iterator<Item = (String, Value)> {
    current().into_iter().filter(|(name, _)| name != SETTINGS)
}

fn encoded(name: &str, body: &Value) -> Encoded {
    let body = serde_json::to_vec(body).unwrap();
    Encoded { name: name.into(), version: Version::of(&body), body, base: None }
}

#[test]
fn what_is_not_understood_stays_as_it_was_and_is_not_served_if_there_was_nothing() {
    let mut proxy = Proxy::default();
    let good = current().iter().map(|(name, body)| encoded(name, body)).collect();
    assert!(proxy.round(1, good, &[]).refused.is_empty());
    let before = proxy.snapshot.clone();
    for (name, body) in parts() {
        let unknown = changed(&body, &newer).into_iter().filter(|newer| taken(&name, newer).is_err());
        for (number, newer) in unknown.enumerate() {
            let refused = proxy.round(2, vec![encoded(&name, &newer)], &[]).refused;
            assert!(refused.iter().map(|one| &*one.name).eq([&*name]), "{name}: {newer}");
            assert!(proxy.snapshot == before, "{name}: {newer}");
            if number > 0 {
                continue;
            }
            let mut fresh = Proxy::default();
            fresh.round(1, vec![encoded(&name, &newer)], &[]);
            let served = Snapshot::diff(&Snapshot::default(), &fresh.snapshot).upserts;
            // No other host may answer for a refused one.
            let expected: Vec<_> = stand_in(&name).into_iter().collect();
            assert_eq!((served, name.starts_with(HOST)), (expected.clone(), !expected.is_empty()), "{name}");
        }
    }
}
