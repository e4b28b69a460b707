use super::*;
use crate::{Action, Endpoint, Endpoints, Origin, PathMatch, Respond, Route};
use proptest::prelude::*;

fn host(pattern: &str, rule: u8) -> Resource {
    let path = PathMatch::prefix(&format!("/{rule}")).unwrap();
    let route = Route::new(Origin::new("Ingress", "a", "b"), path, Action::Respond(Respond::not_found()));
    Host::new("t".into(), HostPattern::parse(pattern).unwrap(), vec![route]).into()
}

fn endpoints(name: u8, port: u8) -> Resource {
    let endpoint = Endpoint::ready(([10, 0, 0, 1], u16::from(port)).into());
    EndpointSet { backend: format!("b{name}").into(), endpoints: Endpoints::Addresses(vec![endpoint]) }.into()
}

fn listener(name: u8, port: u8) -> Resource {
    let address = ([127, 0, 0, 1], u16::from(port)).into();
    Listener::new(format!("l{name}"), address, crate::Scheme::Http, "t".into()).into()
}

fn stream_listener(name: u8, port: u8) -> Resource {
    StreamListener {
        name: format!("tcp-{name}").into(),
        origin: Origin::new("ConfigMap", "a", "tcp"),
        address: ([127, 0, 0, 1], u16::from(port)).into(),
        transport: crate::Transport::Udp,
        backend: "a/b:c/udp".into(),
    }
    .into()
}

fn telemetry(name: u8, service: u8) -> Resource {
    Telemetry {
        name: format!("a/t{name}").into(),
        origin: Origin::new("XTelemetryPolicy", "a", "t"),
        sampler: None,
        parent: None,
        service: Some(format!("s{service}").into()),
        span: None,
        attributes: Vec::new(),
        receiver: None,
    }
    .into()
}

fn resources() -> impl Strategy<Value = Vec<Resource>> {
    let patterns =
        prop_oneof!["[a-c]\\.[a-c]", "\\*\\.[a-c]", "\\*\\*\\.[a-c]", "[a-c]\\.\\*", "~[a-c]", Just("*".to_owned())];
    let resource = prop_oneof![
        (patterns, 0u8..3).prop_map(|(pattern, rule)| host(&pattern, rule)),
        (0u8..4, 0u8..3).prop_map(|(name, port)| endpoints(name, port)),
        (0u8..3, 0u8..3).prop_map(|(name, port)| listener(name, port)),
        (0u8..3, 0u8..3).prop_map(|(name, port)| stream_listener(name, port)),
        (0u8..3, 0u8..3).prop_map(|(name, service)| telemetry(name, service)),
    ];
    proptest::collection::vec(resource, 0..20)
}

proptest! {
    #[test]
    fn applying_a_difference_gives_the_other(old in resources(), new in resources(), shared in resources()) {
        let base = Snapshot::default().apply(Delta::upsert(shared));
        let old = base.apply(Delta::upsert(old));
        let new = base.apply(Delta::upsert(new));
        let delta = Snapshot::diff(&old, &new);
        prop_assert_eq!(&old.apply(delta.clone()), &new);
        prop_assert!(Snapshot::diff(&new, &new).is_empty());
        let text = serde_json::to_string(&delta).unwrap();
        prop_assert_eq!(serde_json::from_str::<Delta>(&text).unwrap(), delta);
    }
}

#[test]
fn resources_are_found_and_removed_by_their_names() {
    let backend = Backend {
        name: "b0".into(),
        origin: Origin::new("Service", "a", "b"),
        port: "80".into(),
        upstream_name: "a-b-80".into(),
        protocol: crate::Protocol::Http1,
        balance: crate::Balance::RoundRobin,
        affinity: None,
        health_check: None,
        retry: None,
        request_fields: Vec::new(),
    };
    let settings = Settings { default_certificate: Some("c".into()), ..Settings::default() };
    let resources = [
        listener(0, 1),
        stream_listener(0, 1),
        host("a.b", 0),
        backend.into(),
        endpoints(0, 1),
        certificate("c").into(),
        telemetry(0, 1),
        settings.clone().into(),
    ];
    let snapshot = Snapshot::default().apply(Delta::upsert(resources.clone()));
    let (named, others): (Vec<_>, Vec<_>) = resources.into_iter().partition(|resource| resource.name().is_some());
    assert_eq!(others, [settings.clone().into()]);
    assert_eq!(named.len(), 7);
    let removals: Vec<_> = named.iter().filter_map(Resource::name).collect();
    let found: Vec<_> = removals.iter().filter_map(|name| snapshot.resource(name)).collect();
    assert_eq!(found, named);
    let rest = Snapshot::default().apply(Delta::upsert([settings.into()]));
    assert_eq!(snapshot.apply(Delta { removals, ..Delta::default() }), rest);
}

fn certificate(name: &str) -> Certificate {
    Certificate {
        name: name.into(),
        origin: Origin::new("Secret", "a", name),
        fingerprint: "".into(),
        not_after: 0,
        chain: Vec::new(),
        key: crate::PrivateKey::default(),
    }
}

fn found(snapshot: &Snapshot, name: &str) -> Option<String> {
    snapshot.host(&"t".into(), name.as_bytes()).map(|host| host.pattern().to_string())
}

#[test]
fn hosts_are_found_in_order_of_precedence() {
    let all = ["a.b.c", "**.b.c", "**.c", "x.y.*", "x.*", "*.q.r", "~^[0-9]+\\.q\\.r$", "~z", "*"];
    let snapshot = Snapshot::default().apply(Delta::upsert(all.iter().map(|pattern| host(pattern, 0))));
    for (name, expected) in [
        ("a.b.c", "a.b.c"),
        ("z.z.b.c", "**.b.c"),
        ("b.c", "**.c"),
        ("c", "*"),
        ("x.y.z", "x.y.*"),
        ("x.z", "x.*"),
        ("1.q.r", "*.q.r"),
        ("1.2.q.r", "*"),
        ("zz", "~z"),
        ("", "*"),
    ] {
        assert_eq!(found(&snapshot, name).as_deref(), Some(expected), "{name}");
    }
    assert_eq!(snapshot.host(&"other".into(), b"a.b.c"), None);
}

#[test]
fn no_alias_takes_names_from_the_wildcard_of_an_ingress() {
    for alias in ["**.b.c", "**.c", "x.*", "~^x", "*"] {
        let snapshot = Snapshot::default().apply(Delta::upsert([host("*.b.c", 0), host(alias, 1)]));
        assert_eq!(found(&snapshot, "x.b.c").as_deref(), Some("*.b.c"), "{alias}");
    }
}

#[test]
fn a_removed_host_is_no_longer_found() {
    let snapshot = Snapshot::default().apply(Delta::upsert([host("a.b", 0), host("*.b", 1)]));
    let gone = Delta { removals: vec![host_name(&"t".into(), HostPattern::parse("a.b").unwrap())], ..Delta::default() };
    assert_eq!(found(&snapshot.apply(gone), "a.b").as_deref(), Some("*.b"));
    assert_eq!(found(&snapshot, "a.b").as_deref(), Some("a.b"), "the old snapshot is unchanged");
}

#[test]
fn a_host_without_certificate_uses_that_of_the_wildcard_around_it() {
    let with = |pattern: &str, certificate: Option<&str>| {
        Host::new("t".into(), HostPattern::parse(pattern).unwrap(), Vec::new())
            .with_certificate(certificate.map(Into::into))
            .into()
    };
    let settings = Settings { default_certificate: Some("fallback".into()), ..Settings::default() };
    let snapshot = Snapshot::default().apply(Delta::upsert([
        with("a.x", None),
        with("b.x", Some("own")),
        with("c.x", Some("unknown")),
        with("*.x", Some("wild")),
        certificate("own").into(),
        certificate("wild").into(),
        certificate("fallback").into(),
        settings.into(),
    ]));
    let chosen = |name: Option<&str>| {
        snapshot.certificate_for(&"t".into(), name.map(str::as_bytes)).map(|found| found.name.to_string())
    };
    assert_eq!(chosen(Some("b.x")).as_deref(), Some("own"));
    assert_eq!(chosen(Some("a.x")).as_deref(), Some("wild"));
    assert_eq!(chosen(Some("c.x")).as_deref(), Some("wild"));
    assert_eq!(chosen(Some("y")).as_deref(), Some("fallback"));
    assert_eq!(chosen(None).as_deref(), Some("fallback"));
}

#[test]
fn passthrough_follows_the_most_specific_host() {
    let passing = |pattern: &str, backend: &str| -> Resource {
        let passthrough = Passthrough {
            origin: Origin::new("Ingress", "a", "b"),
            backend: Some(backend.into()),
            send_proxy: false,
            terminate: false,
        };
        let host = Host::new("t".into(), HostPattern::parse(pattern).unwrap(), Vec::new());
        host.with_passthrough(Some(passthrough.into())).into()
    };
    let resources =
        [passing("a.example", "a"), passing("*.example", "wild"), host("b.example", 1), passing("*", "any")];
    let snapshot = Snapshot::default().apply(Delta::upsert(resources));
    let backend = |name: &str| {
        let found = snapshot.passthrough(&"t".into(), name.as_bytes());
        found.and_then(|passthrough| passthrough.backend.as_ref()).map(ToString::to_string)
    };
    assert_eq!(backend("a.example").as_deref(), Some("a"));
    assert_eq!(backend("c.example").as_deref(), Some("wild"));
    assert_eq!(backend("b.example"), None, "the exact host ends TLS at the proxy");
    assert_eq!(backend("c.d.example").as_deref(), Some("any"), "a wildcard stands for one label");
    assert_eq!(backend("other.test").as_deref(), Some("any"));
    assert_eq!(backend("").as_deref(), Some("any"), "no name");
    let Some(Resource::Host(first)) = snapshot.resource(&Resource::name(&passing("a.example", "a")).unwrap()) else {
        panic!("no host")
    };
    assert!(first.alias(HostPattern::parse("x.example").unwrap()).passthrough().is_none());
}
