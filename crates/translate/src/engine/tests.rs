use super::*;
use crate::diagnostic::{Reason, Severity};
use fairway_model::{Filter, Resource};
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use k8s_openapi::api::networking::v1::Ingress;
use serde_json::{Value, json};

fn read<T: serde::de::DeserializeOwned + Into<Object>>(value: Value) -> Change {
    Change::Upsert(serde_json::from_value::<T>(value).unwrap().into())
}

fn ingress(name: &str, host: &str, annotations: Value) -> Change {
    ingress_with(name, annotations, json!({ "rules": [rule(host)] }))
}

fn rule(host: &str) -> Value {
    let backend = json!({ "service": { "name": "web", "port": { "number": 80 } } });
    json!({ "host": host, "http": { "paths": [{ "path": "/", "pathType": "Prefix", "backend": backend }] } })
}

fn ingress_with(name: &str, annotations: Value, spec: Value) -> Change {
    read::<Ingress>(json!({
        "kind": "Ingress", "apiVersion": "networking.k8s.io/v1",
        "metadata": { "namespace": "a", "name": name, "annotations": annotations, "creationTimestamp": "2026-01-01T00:00:00Z" },
        "spec": spec,
    }))
}

fn service() -> Change {
    read::<Service>(json!({
        "kind": "Service", "apiVersion": "v1", "metadata": { "namespace": "a", "name": "web" },
        "spec": { "ports": [{ "port": 80, "targetPort": 8080 }] },
    }))
}

#[test]
fn the_old_prefix_of_external_dns_is_reported_as_long_as_it_stands_alone() {
    let service = |annotations: Value| {
        read::<Service>(json!({
            "kind": "Service", "apiVersion": "v1",
            "metadata": { "namespace": "a", "name": "web", "annotations": annotations }, "spec": {},
        }))
    };
    let (old, new) = ("external-dns.alpha.kubernetes.io/hostname", "external-dns.kubernetes.io/hostname");
    let mut translator = started([service(json!({ (old): "a.example" }))]);
    let found = &translator.diagnostics()[&key(Kind::Service, "web")];
    assert_eq!(found.iter().map(|found| found.reason).collect::<Vec<_>>(), [Reason::OutdatedAnnotation]);
    let update = translator.apply([service(json!({ (old): "a.example", (new): "a.example" }))], 0);
    assert_eq!(update.diagnostics, [(key(Kind::Service, "web"), Vec::new())]);
    let update = translator.apply([service(json!({ (old): "a.example" }))], 0);
    assert_eq!(update.diagnostics.len(), 1);
    let update = translator.apply([Change::Remove(key(Kind::Service, "web"))], 0);
    assert_eq!(update.diagnostics, [(key(Kind::Service, "web"), Vec::new())]);
}

fn slice(addresses: &[&str]) -> Change {
    let endpoints: Vec<_> = addresses.iter().map(|address| json!({ "addresses": [address] })).collect();
    read::<EndpointSlice>(json!({
        "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "addressType": "IPv4",
        "metadata": { "namespace": "a", "name": "web-1", "labels": { "kubernetes.io/service-name": "web" } },
        "endpoints": endpoints, "ports": [{ "port": 8080 }],
    }))
}

fn key(kind: Kind, name: &str) -> ObjectKey {
    ObjectKey::new(kind, "a", name)
}

fn options() -> Options {
    Options { watch_ingress_without_class: true, ..Options::default() }
}

fn started(changes: impl IntoIterator<Item = Change>) -> Translator {
    let mut translator = Translator::new(options());
    translator.apply(changes, 0);
    translator
}

fn names(update: &Update) -> Vec<String> {
    update
        .delta
        .upserts
        .iter()
        .map(|resource| match resource {
            Resource::Listener(one) => format!("Listener {}", one.name),
            Resource::StreamListener(one) => format!("StreamListener {}", one.name),
            Resource::Host(one) => format!("Host {}", one.pattern()),
            Resource::Backend(one) => format!("Backend {}", one.name),
            Resource::EndpointSet(one) => format!("EndpointSet {}", one.backend),
            Resource::Certificate(one) => format!("Certificate {}", one.name),
            Resource::Telemetry(one) => format!("Telemetry {}", one.name),
            Resource::Settings(_) => "Settings".to_owned(),
        })
        .collect()
}

fn host_names(translator: &Translator) -> Vec<String> {
    translator.snapshot().hosts().iter().map(|host| host.pattern().to_string()).collect()
}

#[test]
fn without_objects_there_are_settings_listeners_and_the_catch_all() {
    let mut translator = Translator::new(options());
    let update = translator.apply([], 0);
    assert_eq!(names(&update), ["Settings", "Host *", "Listener http", "Listener https"]);
    assert!(translator.apply([], 0).is_empty());
}

#[test]
fn a_change_of_endpoints_touches_one_endpoint_set() {
    let mut translator = started([ingress("i", "a.example", json!({})), service(), slice(&["10.0.0.1"])]);
    let update = translator.apply([slice(&["10.0.0.1", "10.0.0.2"])], 0);
    assert_eq!(names(&update), ["EndpointSet a/web:80"]);
    assert!(update.delta.removals.is_empty() && update.diagnostics.is_empty());
}

#[test]
fn a_service_without_any_endpoint_is_told_of() {
    let mut translator = started([ingress("i", "a.example", json!({})), service(), slice(&["10.0.0.1"])]);
    let update = translator.apply([slice(&[])], 0);
    assert_eq!(update.diagnostics[0].1[0].reason, Reason::NoEndpoints);
    let update = translator.apply([slice(&["10.0.0.2"])], 0);
    assert_eq!(update.diagnostics, [(key(Kind::Ingress, "i"), Vec::new())]);
}

#[test]
fn what_means_the_same_touches_nothing() {
    let mut translator = started([ingress("i", "a.example", json!({})), service(), slice(&["10.0.0.1"])]);
    let Change::Upsert(Object::Ingress(same)) = ingress("i", "a.example", json!({})) else { unreachable!() };
    let mut same = same.read();
    same.metadata.resource_version = Some("2".into());
    same.metadata.managed_fields = Some(Vec::new());
    same.status = Some(Default::default());
    assert!(translator.apply([Change::Upsert(same.into()), service(), slice(&["10.0.0.1"])], 0).is_empty());
    assert!(translator.apply([Change::Remove(key(Kind::Service, "unknown"))], 0).is_empty());
}

#[test]
fn one_ingress_touches_its_own_host() {
    let mut translator =
        started([ingress("i", "a.example", json!({})), ingress("j", "b.example", json!({})), service()]);
    let changed = ingress("i", "a.example", json!({ "nginx.ingress.kubernetes.io/proxy-read-timeout": "9" }));
    assert_eq!(names(&translator.apply([changed], 0)), ["Host a.example"]);
    let update = translator.apply([Change::Remove(key(Kind::Ingress, "i"))], 0);
    assert!(names(&update).is_empty());
    assert_eq!(update.unserved, [key(Kind::Ingress, "i")]);
    assert_eq!(host_names(&translator), ["b.example", "*"]);
}

#[test]
fn a_version_that_cannot_be_loaded_leaves_the_last_good_one() {
    let good = json!({ "nginx.ingress.kubernetes.io/permanent-redirect": "https://good.example/" });
    let bad = json!({ "nginx.ingress.kubernetes.io/permanent-redirect": "no url" });
    let mut translator = started([ingress("i", "a.example", good), service(), slice(&["10.0.0.1"])]);
    let before = translator.snapshot().clone();
    let update = translator.apply([ingress("i", "other.example", bad.clone())], 0);
    assert!(update.delta.is_empty() && update.unserved.is_empty());
    assert_eq!(*translator.snapshot(), before);
    let reasons: Vec<_> = update.diagnostics[0].1.iter().map(|found| found.reason).collect();
    assert_eq!(reasons, [Reason::AnnotationParsingFailed, Reason::LastGoodVersion]);
    // An Ingress that is deleted and created again is a new object.
    translator.apply([Change::Remove(key(Kind::Ingress, "i"))], 0);
    let update = translator.apply([ingress("i", "other.example", bad)], 0);
    assert!(update.served.is_empty());
    assert_eq!(host_names(&translator), ["*"]);
}

#[test]
fn a_version_that_cannot_be_loaded_denies_only_while_there_is_no_good_one() {
    let with = |rate: &str| {
        let list = "nginx.ingress.kubernetes.io/whitelist-source-range";
        ingress("i", "a.example", json!({ list: "10.0.0.0/8", "nginx.ingress.kubernetes.io/limit-rps": rate }))
    };
    let denies = |translator: &Translator| {
        let hosts = translator.snapshot().hosts();
        let mut filters = hosts[0].routes().iter().flat_map(|route| &route.filters);
        filters.any(|filter| matches!(filter, Filter::Refuse(_)))
    };
    let mut translator = started([with("ten"), service(), slice(&["10.0.0.1"])]);
    assert_eq!(host_names(&translator), ["a.example", "*"]);
    assert!(denies(&translator) && translator.served().is_empty());
    let standing = translator.standing(&key(Kind::Ingress, "i")).unwrap();
    assert!(standing.to_string().starts_with("it is not loaded, and its paths answer 503: "), "{standing}");
    let update = translator.apply([with("10")], 0);
    assert_eq!(update.served, [key(Kind::Ingress, "i")]);
    assert!(!denies(&translator));
    assert!(translator.apply([with("ten")], 0).unserved.is_empty());
    assert!(!denies(&translator), "the last good version stays");
    translator.apply([Change::Remove(key(Kind::Ingress, "i"))], 0);
    assert_eq!(host_names(&translator), ["*"]);
}

#[test]
fn an_empty_snippet_has_no_effect_whatever_its_risk() {
    let translator =
        started([ingress("i", "a.example", json!({ "nginx.ingress.kubernetes.io/configuration-snippet": "" }))]);
    assert_eq!(translator.served().iter().collect::<Vec<_>>(), [&key(Kind::Ingress, "i")]);
}

#[test]
fn an_ingress_comes_and_goes_with_its_class() {
    let class = |controller: &str| {
        read::<k8s_openapi::api::networking::v1::IngressClass>(json!({
            "kind": "IngressClass", "apiVersion": "networking.k8s.io/v1", "metadata": { "name": "public" },
            "spec": { "controller": controller },
        }))
    };
    let spec = json!({ "ingressClassName": "public", "rules": [rule("a.example")] });
    let mut translator = started([ingress_with("i", json!({}), spec)]);
    assert_eq!(host_names(&translator), ["*"]);
    assert_eq!(translator.apply([class("k8s.io/ingress-nginx")], 0).served, [key(Kind::Ingress, "i")]);
    assert_eq!(host_names(&translator), ["a.example", "*"]);
    assert_eq!(translator.apply([class("example.com/other")], 0).unserved, [key(Kind::Ingress, "i")]);
    assert_eq!(host_names(&translator), ["*"]);
}

#[test]
fn a_lower_risk_level_takes_out_what_is_above_it() {
    let config = |level: &str| {
        read::<ConfigMap>(json!({
            "kind": "ConfigMap", "apiVersion": "v1", "metadata": { "namespace": "a", "name": "global" },
            "data": { "annotations-risk-level": level },
        }))
    };
    let risky = json!({ "nginx.ingress.kubernetes.io/server-alias": "alias.example" });
    let options = Options { configmap: Some(("a".into(), "global".into())), ..options() };
    let mut translator = Translator::new(options);
    translator.apply([ingress("i", "a.example", risky), ingress("j", "b.example", json!({}))], 0);
    assert_eq!(host_names(&translator), ["a.example", "alias.example", "b.example", "*"]);
    translator.apply([config("Low")], 0);
    assert_eq!(host_names(&translator), ["b.example", "*"]);
    // A deleted ConfigMap stays in effect.
    translator.apply([Change::Remove(key(Kind::ConfigMap, "global"))], 0);
    assert_eq!(host_names(&translator), ["b.example", "*"]);
    translator.apply([config("High")], 0);
    assert_eq!(host_names(&translator), ["a.example", "alias.example", "b.example", "*"]);
}

#[test]
fn secrets_are_wanted_as_long_as_something_refers_to_them() {
    let spec = json!({ "rules": [rule("a.example")], "tls": [{ "hosts": ["a.example"], "secretName": "tls" }] });
    let mut translator = started([]);
    let tls = key(Kind::Secret, "tls");
    assert!(!translator.wants(&tls));
    assert_eq!(translator.apply([ingress_with("i", json!({}), spec.clone())], 0).wanted, std::slice::from_ref(&tls));
    assert!(translator.wants(&tls));
    assert!(translator.apply([ingress_with("j", json!({}), spec)], 0).wanted.is_empty());
    assert!(translator.apply([Change::Remove(key(Kind::Ingress, "i"))], 0).unwanted.is_empty());
    assert_eq!(translator.apply([Change::Remove(key(Kind::Ingress, "j"))], 0).unwanted, [tls]);
}

#[test]
fn a_config_map_of_headers_is_followed_as_long_as_an_ingress_names_it() {
    let map = |name: &str, data: Value| {
        read::<ConfigMap>(json!({ "metadata": { "namespace": "a", "name": name }, "data": data }))
    };
    let allowed = |names: &str| map("global", json!({ "global-allowed-response-headers": names }));
    let annotations = json!({ "nginx.ingress.kubernetes.io/custom-headers": "a/headers" });
    let spec = json!({ "rules": [rule("a.example")] });
    let headers = key(Kind::ConfigMap, "headers");
    let mut translator = Translator::new(Options { configmap: Some(("a".into(), "global".into())), ..options() });
    translator.apply([service(), slice(&["10.0.0.1"]), allowed("X-A")], 0);
    assert!(!translator.wants(&headers));
    let update = translator.apply([ingress_with("i", annotations, spec)], 0);
    assert_eq!(update.wanted, std::slice::from_ref(&headers));
    let found = |update: &Update| {
        update.diagnostics.iter().flat_map(|(_, all)| all).map(|it| it.message.clone()).collect::<String>()
    };
    assert!(found(&update).contains("there is no ConfigMap a/headers; all paths of this Ingress answer 503"));
    // The ConfigMap is created, changes, becomes forbidden and allowed again, and is deleted.
    let text = |update: &Update| serde_json::to_string(&update.delta.upserts).unwrap();
    let update = translator.apply([map("headers", json!({ "X-A": "one" }))], 0);
    assert_eq!(names(&update), ["Host a.example"]);
    assert!(text(&update).contains("one") && update.diagnostics.iter().all(|(_, all)| all.is_empty()), "{update:?}");
    assert!(text(&translator.apply([map("headers", json!({ "X-A": "two" }))], 0)).contains("two"));
    let update = translator.apply([allowed("X-B")], 0);
    assert!(
        text(&update).contains("data[\\\"X-A\\\"]: expected a name that global-allowed-response-headers"),
        "{}",
        text(&update)
    );
    assert!(found(&update).contains("global-allowed-response-headers"));
    assert!(text(&translator.apply([allowed("x-a")], 0)).contains("two"));
    assert!(
        translator.apply([Change::Remove(headers.clone())], 0).delta.is_empty(),
        "the last version stays in effect"
    );
    assert_eq!(translator.apply([Change::Remove(key(Kind::Ingress, "i"))], 0).unwanted, [headers]);
}

fn secret(names: &[&str]) -> Change {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = rcgen::CertificateParams::new(names).unwrap();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2030, 1, 1);
    let pair = rcgen::KeyPair::generate().unwrap();
    let certificate = params.self_signed(&pair).unwrap();
    let bytes = |text: String| k8s_openapi::ByteString(text.into_bytes());
    let mut secret = Secret::default();
    secret.metadata.namespace = Some("a".into());
    secret.metadata.name = Some("tls".into());
    let data = [("tls.crt".to_owned(), bytes(certificate.pem())), ("tls.key".to_owned(), bytes(pair.serialize_pem()))];
    secret.data = Some(data.into());
    Change::Upsert(secret.into())
}

#[test]
fn a_new_certificate_touches_no_host() {
    let spec = json!({ "rules": [rule("a.example")], "tls": [{ "hosts": ["a.example"], "secretName": "tls" }] });
    let mut translator =
        started([ingress_with("i", json!({}), spec), service(), slice(&["10.0.0.1"]), secret(&["a.example"])]);
    assert_eq!(names(&translator.apply([secret(&["a.example"])], 0)), ["Certificate a/tls"]);
    // If the Secret is deleted or broken, its last version stays in effect.
    let update = translator.apply([Change::Remove(key(Kind::Secret, "tls"))], 0);
    assert!(update.delta.is_empty());
    let (told, found) = &update.diagnostics[0];
    assert_eq!((told, found[0].reason), (&key(Kind::Ingress, "i"), Reason::SecretNotFound));
    let message = &found[0].message;
    assert!(
        message.contains("the last usable version is served, where ingress-nginx would serve the default"),
        "{message}"
    );
}

#[test]
fn certificates_expire_as_time_goes_by() {
    let spec = json!({ "rules": [rule("a.example")], "tls": [{ "hosts": ["a.example"], "secretName": "tls" }] });
    const IN_2025: i64 = 1_735_689_600;
    const IN_2031: i64 = 1_925_000_000;
    let mut translator = Translator::new(options());
    let objects = [ingress_with("i", json!({}), spec), service(), slice(&["10.0.0.1"]), secret(&["a.example"])];
    let update = translator.apply(objects, IN_2025);
    assert!(update.diagnostics.is_empty(), "{:?}", update.diagnostics);
    let update = translator.apply([], IN_2031);
    let found = &update.diagnostics[0].1[0];
    assert_eq!((found.severity, found.reason), (Severity::Warning, Reason::CertificateExpired));
    assert!(update.delta.is_empty());
    assert!(translator.apply([], IN_2031).is_empty());
}

#[test]
fn verdicts_are_those_of_the_annotations_met() {
    let annotations = json!({
        "nginx.ingress.kubernetes.io/ssl-redirect": "true",
        "nginx.ingress.kubernetes.io/whitelist-source-range": "10.0.0.0/8",
        "nginx.ingress.kubernetes.io/nobody-knows": "x",
        "example.com/other": "x",
    });
    let translator = started([ingress("i", "a.example", annotations)]);
    let names: Vec<_> = translator.verdicts(&key(Kind::Ingress, "i")).into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["ssl-redirect", "allowlist-source-range"]);
}

#[test]
fn an_edit_is_in_force_before_what_is_left_of_a_large_change() {
    let edited = |path: &str| {
        let annotations = json!({"nginx.ingress.kubernetes.io/proxy-body-size": path});
        ingress("other", "other.example", annotations)
    };
    let mut translator = Translator::new(options()).with_part(4);
    translator.apply([edited("1m"), service(), slice(&["10.0.0.1"])], 0);
    let large = (0..40).map(|number| ingress(&format!("i{number:02}"), &format!("{number:02}.example"), json!({})));
    let first = translator.apply_part(large, 0);
    assert_eq!(names(&first).len(), 4, "one part: {:?}", names(&first));
    let mut done = 4;
    for size in ["2m", "3m", "4m"] {
        assert_eq!(names(&translator.apply_part([edited(size)], 0)), ["Host other.example"], "nothing but the edit");
        assert!(translator.has_more());
        done += names(&translator.proceed(0)).len();
    }
    assert_eq!(done, 16, "each turn of what waits is one part");
    while translator.has_more() {
        done += names(&translator.proceed(0)).len();
    }
    assert_eq!(done, 40);
}

#[test]
fn an_edit_among_many_new_objects_is_in_force_first() {
    let edited = |size: &str| {
        let annotations = json!({"nginx.ingress.kubernetes.io/proxy-body-size": size});
        ingress("other", "other.example", annotations)
    };
    let mut translator = Translator::new(options()).with_part(4);
    translator.apply([edited("1m"), service(), slice(&["10.0.0.1"])], 0);
    let new = (0..40).map(|number| ingress(&format!("i{number:02}"), &format!("{number:02}.example"), json!({})));
    let first = translator.apply_part(new.chain([edited("2m")]), 0);
    assert_eq!(names(&first).len(), 4, "one part: {:?}", names(&first));
    assert!(names(&first).contains(&"Host other.example".to_owned()), "{:?}", names(&first));
}

mod review;

#[test]
fn a_route_policy_says_whether_its_service_is_there_and_follows_it() {
    use gateway::status::ObjectStatus;
    let edge = read::<gateway::api::Gateway>(json!({
        "kind": "Gateway", "apiVersion": "gateway.networking.k8s.io/v1", "metadata": { "namespace": "a", "name": "edge" },
        "spec": { "gatewayClassName": "fairway", "listeners": [{ "name": "http", "port": 80, "protocol": "HTTP" }] },
    }));
    let class = read::<gateway::api::GatewayClass>(json!({
        "kind": "GatewayClass", "apiVersion": "gateway.networking.k8s.io/v1", "metadata": { "name": "fairway" },
        "spec": { "controllerName": "fairway.dev/gateway" },
    }));
    let policy = read::<gateway::policy::RoutePolicy>(json!({
        "kind": "RoutePolicy", "apiVersion": "fairway.dev/v1alpha1", "metadata": { "namespace": "a", "name": "pages" },
        "spec": {
            "targetRefs": [{ "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge" }],
            "errorPages": { "statusCodes": [404], "backendRef": { "name": "web", "port": 80 } },
        },
    }));
    let said = |translator: &Translator| {
        let status = &translator.statuses()[&key(Kind::RoutePolicy, "pages")];
        let ObjectStatus::Policy { ancestors } = &**status else { panic!("{status:?}") };
        let conditions = ancestors.iter().flat_map(|ancestor| &ancestor.conditions);
        conditions.filter(|one| one.kind == "ResolvedRefs").map(|one| one.reason).collect::<Vec<_>>()
    };
    let mut translator = started([class, edge, policy]);
    assert_eq!(said(&translator), ["BackendNotFound"]);
    translator.apply([service()], 0);
    assert_eq!(said(&translator), ["ResolvedRefs"]);
    translator.apply([Change::Remove(key(Kind::Service, "web"))], 0);
    assert_eq!(said(&translator), ["BackendNotFound"]);
}

#[test]
fn what_is_left_of_many_objects_has_moved_when_it_was_made_anew() {
    let redirect =
        |number| json!({ "nginx.ingress.kubernetes.io/permanent-redirect": format!("https://{number}.example") });
    let many =
        || (0..2 * MANY).map(|number| ingress(&format!("i{number}"), &format!("h{number}.example"), redirect(number)));
    let mut translator = started(many().chain([service(), slice(&["10.0.0.1"])]));
    let left = |name: &str| !name.starts_with('i') || name.ends_with("00");
    let gone: Vec<_> = translator.objects().iter().map(|(key, _)| key.clone()).filter(|key| !left(&key.name)).collect();
    let (first, rest) = gone.split_at(MANY);
    translator.apply(first.iter().cloned().map(Change::Remove), 0);
    assert!(!translator.has_remnants(), "half of them");
    translator.apply(rest.iter().cloned().map(Change::Remove), 0);
    assert!(translator.has_remnants());

    let before = translator.snapshot().clone();
    let objects: Vec<_> = translator.objects().iter().map(|(_, object)| object.clone()).collect();
    let annotations = |translator: &Translator| {
        let ingress = key(Kind::Ingress, "i100");
        translator.ingresses.part(&ingress).unwrap().annotations.clone()
    };
    let annotations_before = annotations(&translator);
    let mut delta = translator.renew(0).delta;
    while translator.has_more() {
        delta.upserts.extend(translator.proceed(0).delta.upserts);
    }
    assert!(!translator.has_remnants());
    assert_eq!(translator.snapshot(), &before);
    assert!(delta.removals.is_empty());
    let hosts = delta.upserts.iter().filter(|resource| matches!(resource, Resource::Host(_))).count();
    let ingresses = objects.iter().filter(|object| object.kind() == Kind::Ingress).count();
    assert!(
        ingresses > 10 && hosts == ingresses + 1,
        "{hosts} hosts of {ingresses} Ingresses, and the one for all others"
    );
    for object in &objects {
        let now = translator.objects().get(&object.key()).unwrap();
        assert_eq!(now, object);
        let is_same = match (now, object) {
            (Object::Ingress(now), Object::Ingress(before)) => std::ptr::eq(now.key(), before.key()),
            (Object::Service(now), Object::Service(before)) => Arc::ptr_eq(now, before),
            (Object::EndpointSlice(now), Object::EndpointSlice(before)) => Arc::ptr_eq(now, before),
            _ => panic!("{now:?}"),
        };
        assert!(!is_same, "{}", object.key());
    }
    let annotations = annotations(&translator);
    assert_eq!(annotations, annotations_before);
    assert!(!Arc::ptr_eq(&annotations, &annotations_before));
    // What follows costs what it costs otherwise.
    assert!(translator.apply([service()], 0).is_empty());
}
