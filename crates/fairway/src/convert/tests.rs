//! What is converted gives the same answers: the proof that `convert` itself makes, over the public examples and random objects.

use std::collections::BTreeMap;
use std::path::PathBuf;

use fairway_translate::objects::{Object, Objects};
use fairway_translate::options::{Development, Options};
use fairway_translate::translate;
use k8s_openapi::api::core::v1::{Secret, Service};
use k8s_openapi::api::networking::v1::Ingress;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::assemble::{Converted, Verdict, Wanted, convert};
use super::prove::{Before, Difference, prove};
use super::{order, whole_and_proven};
use crate::reading::{Reading, Source};

fn reading(objects: Objects) -> Reading {
    let echo = Some(([127, 0, 0, 1], 0).into());
    let development = Development { echo, echo_for_missing: true, ..Development::default() };
    let options = Options { development: Some(development), watch_ingress_without_class: true, ..Options::default() };
    let translation = translate(&objects, &options, 1_767_225_600);
    Reading { source: Source::Files, ..Reading::of(objects, translation, options).unwrap() }
}

fn converted(objects: Objects) -> (Converted, Vec<Difference>) {
    let reading = reading(objects);
    let wanted = Wanted { gateway: None, class: "fairway".to_owned(), wider: BTreeMap::new() };
    let (converted, proof) = whole_and_proven(&reading, wanted).unwrap();
    (converted, proof.differences)
}

fn read<T: serde::de::DeserializeOwned + Into<Object>>(value: Value) -> Object {
    serde_json::from_value::<T>(value).unwrap().into()
}

fn services() -> impl Iterator<Item = Object> {
    ["first", "second"].into_iter().map(|name| {
        read::<Service>(json!({
            "metadata": {"namespace": "ns", "name": name},
            "spec": {"ports": [{"name": "http", "port": 80}]},
        }))
    })
}

fn users() -> Object {
    // `ada:{PLAIN}x`
    read::<Secret>(json!({"metadata": {"namespace": "ns", "name": "users"}, "data": {"auth": "YWRhOntQTEFJTn14"}}))
}

fn ingress(name: &str, host: &str, annotations: &[(&str, &str)], paths: &[(&str, &str)], tls: bool) -> Object {
    let annotations: serde_json::Map<String, Value> =
        annotations.iter().map(|(name, value)| (format!("nginx.ingress.kubernetes.io/{name}"), json!(value))).collect();
    let paths: Vec<_> = paths
        .iter()
        .map(|(path, kind)| {
            let service = if name == "b" { "second" } else { "first" };
            let backend = json!({"service": {"name": service, "port": {"name": "http"}}});
            json!({"path": path, "pathType": kind, "backend": backend})
        })
        .collect();
    let tls = if tls { json!([{"hosts": [host], "secretName": "tls"}]) } else { json!([]) };
    read::<Ingress>(json!({
        "metadata": {"namespace": "ns", "name": name, "annotations": annotations},
        "spec": {"rules": [{"host": host, "http": {"paths": paths}}], "tls": tls},
    }))
}

#[test]
fn the_public_examples_are_converted_and_give_the_same_answers() {
    for example in ["hosts", "rewrite", "shop", "sticky", "tls"] {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(example);
        let mut manifests = crate::manifest::Manifests::open(&[folder], crate::manifest::Refused::Read).unwrap();
        manifests.reload(None);
        let (converted, differences) = converted(manifests.objects().cloned().collect());
        assert!(!converted.done.is_empty(), "{example}");
        let notes: Vec<_> = converted.notes.iter().filter(|note| note.verdict == Verdict::NotConverted).collect();
        assert!(notes.is_empty(), "{example}: {notes:?}");
        // Names without a certificate are not served over https, and what is said to be lost is.
        let told: Vec<_> = converted.notes.iter().map(|note| &note.object).collect();
        let differences: Vec<_> =
            differences.iter().filter(|one| one.what != "https" && !told.contains(&&one.object)).collect();
        assert!(differences.is_empty(), "{example}: {differences:#?}");
    }
}

#[test]
fn what_has_no_counterpart_and_restricts_leaves_the_ingress_as_it_is() {
    for (name, value) in [
        ("auth-tls-secret", "ns/ca"),
        ("auth-secret", "other/users"),
        ("auth-snippet", "proxy_set_header A b;"),
        ("backend-protocol", "HTTPS"),
        ("canary", "true"),
        ("ssl-passthrough", "true"),
        ("whitelist-source-range", "ten"),
    ] {
        let annotations = [(name, value), ("auth-type", "basic"), ("auth-url", "http://auth.example/")];
        let with = ingress("a", "a.example", &annotations, &[("/", "Prefix")], false);
        let (converted, _) = converted(services().chain([users(), with]).collect());
        assert!(converted.done.is_empty(), "{name}");
        assert!(converted.objects.is_empty(), "{name}: {:?}", converted.objects);
        assert!(converted.notes.iter().any(|note| note.verdict == Verdict::NotConverted), "{name}");
    }
}

#[test]
fn an_ingress_where_one_of_two_ways_to_authenticate_is_enough_stays_as_it_is() {
    let annotations = [
        ("satisfy", "any"),
        ("auth-type", "basic"),
        ("auth-secret", "users"),
        ("auth-url", "http://auth.example/check"),
    ];
    let object = |annotations: &[(&str, &str)]| ingress("a", "a.example", annotations, &[("/", "Prefix")], false);
    let (both, _) = converted(services().chain([users(), object(&annotations)]).collect());
    assert!(both.done.is_empty() && both.notes.iter().any(|note| note.about == "satisfy"), "{:?}", both.notes);
    let (one, differences) = converted(services().chain([users(), object(&annotations[..3])]).collect());
    assert!(one.done.len() == 1 && differences.is_empty(), "{:?} {differences:#?}", one.notes);
}

#[test]
fn the_proof_asks_what_patterns_take_whichever_route_is_older() {
    let wide = |name| ingress(name, "a.example", &[("use-regex", "true")], &[("/f", "ImplementationSpecific")], false);
    let list = [("use-regex", "true"), ("whitelist-source-range", "10.0.0.0/8")];
    let guarded = |name| ingress(name, "a.example", &list, &[("/f/[0-9]+/x", "ImplementationSpecific")], false);
    // Routes are read in the order of names.
    for objects in [[wide("a"), guarded("b")], [guarded("a"), wide("b")]] {
        let reading = reading(services().chain(objects).collect());
        let wanted = Wanted { gateway: None, class: "fairway".to_owned(), wider: BTreeMap::new() };
        let converted = convert(&reading, &wanted);
        assert_eq!(converted.done.len(), 2, "{:?}", converted.notes);
        let proof = prove(&Before::new(&reading), &converted).unwrap();
        let why: Vec<_> = proof.wider.values().collect();
        assert!(why.iter().any(|why| why.contains("a.example/f/1/x")), "{why:?}");
        assert_eq!(order::torn(&reading, &converted).len(), 2);
    }
}

/// Annotations that routes and policies say in whole.
const EXACT: &[(&str, &[&str])] = &[
    ("whitelist-source-range", &["10.0.0.0/8", "127.0.0.1", "198.51.100.0/24,10.0.0.1"]),
    ("denylist-source-range", &["10.0.0.0/8", "127.0.0.1"]),
    ("satisfy", &["any", "all"]),
    ("limit-rps", &["10"]),
    ("limit-connections", &["5"]),
    ("proxy-body-size", &["8m", "0", "1k"]),
    ("proxy-read-timeout", &["5", "600"]),
    ("proxy-connect-timeout", &["2"]),
    ("proxy-next-upstream-tries", &["1", "5"]),
    ("proxy-request-buffering", &["on", "off"]),
    ("upstream-vhost", &["inner.example"]),
    ("permanent-redirect", &["https://new.example/there"]),
    ("temporal-redirect", &["http://new.example:8080/x"]),
    ("upstream-hash-by", &["$request_uri"]),
    ("auth-url", &["http://auth.example/check", "http://$host/check"]),
    ("force-ssl-redirect", &["true"]),
    ("ssl-redirect", &["false"]),
    ("use-regex", &["true"]),
    ("affinity", &["cookie"]),
    ("load-balance", &["ewma", "round_robin"]),
    ("proxy-next-upstream", &["error http_502", "off"]),
    ("proxy-buffering", &["on", "off"]),
    ("limit-rate", &["100"]),
    ("auth-signin", &["https://sign.example/in"]),
    ("auth-response-headers", &["X-User"]),
    ("x-forwarded-prefix", &["/was"]),
    ("rewrite-target", &["/$2", "/new/$1"]),
];

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(debug_assertions) { 48 } else { 500 }, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_converted_gives_the_same_answers(
        chosen in prop::collection::vec((0..EXACT.len(), 0..3usize), 0..4),
        password in any::<bool>(),
        tls in any::<bool>(),
        paths in prop::sample::subsequence(vec![
            ("/", "Prefix"), ("/a", "Prefix"), ("/a/b", "Exact"), ("/d(/|$)(.*)", "ImplementationSpecific"),
        ], 1..4),
        other in prop::sample::subsequence(vec![
            ("/", "Prefix"), ("/a/", "Prefix"), ("/a/[bc]+/x", "ImplementationSpecific"), ("/e", "ImplementationSpecific"),
        ], 0..4),
        other_regex in any::<bool>(),
    ) {
        let mut annotations: Vec<(&str, &str)> = Vec::new();
        for (at, value) in chosen {
            let (name, values) = EXACT[at];
            if annotations.iter().all(|(known, _)| *known != name) {
                annotations.push((name, values[value % values.len()]));
            }
        }
        if password {
            annotations.extend([("auth-type", "basic"), ("auth-secret", "users")]);
        }
        let object = ingress("a", "a.example", &annotations, &paths, tls);
        let others: &[_] = if other_regex { &[("use-regex", "true")] } else { &[] };
        let other = (!other.is_empty()).then(|| ingress("b", "a.example", others, &other, false));
        let (converted, differences) = converted(services().chain([users(), object]).chain(other).collect());
        let notes: Vec<_> = converted.notes.iter().collect();
        // Redirects keep the query, and none adds a slash, and both are said.
        let adds_slash = |before: &str| before == "301" || before.ends_with("a.example/a");
        let of_slash = |one: &&Difference| one.request.ends_with("a.example/a") && adds_slash(&one.before);
        let of_query = |one: &&Difference| one.what == "location" && one.request.contains('?');
        let differences: Vec<_> =
            differences.iter().filter(|one| one.what != "https" && !of_query(one) && !of_slash(one)).collect();
        prop_assert!(differences.is_empty(), "{:?} {:?} {:?}\n{:#?}\n{:#?}", annotations, paths, converted.objects, notes, differences);
    }
}
