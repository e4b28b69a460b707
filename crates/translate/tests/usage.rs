//! Annotations that people set in public: 837 objects with annotations of ingress-nginx, from 40 repositories, in 236 distinct sets. Each
//! set becomes an Ingress with plausible values, and the share of objects that get everything they ask for must not fall.
//!
//! `usage/sets.tsv` has a set in each line: how many objects have it, and its annotations. Values that name something are given by their
//! kind, in angle brackets. `cargo test --test usage -- --nocapture` prints the missing names, by number of objects.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use fairway_model::Origin;
use fairway_translate::annotation::{Annotations, Rules, spec};
use fairway_translate::diagnostic::Severity;
use fairway_translate::objects::{Object, ObjectKey, Objects};
use fairway_translate::options::Options;
use fairway_translate::value::RiskLevel;
use fairway_translate::verdict::Verdict;
use fairway_translate::{objects, translate};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

const PREFIX: &str = "nginx.ingress.kubernetes.io";

const SETS: &str = include_str!("usage/sets.tsv");

/// The minimum number of these objects that get everything they ask for. It rises as features are added.
const SERVED: u32 = 833;

struct Set {
    objects: u32,
    annotations: BTreeMap<String, String>,
}

fn sets() -> Vec<Set> {
    let set = |line: &str| {
        let (objects, annotations) = line.split_once('\t').expect("a number and a set");
        let annotation =
            |text: &str| text.split_once('=').map(|(name, value)| (name.to_owned(), plausible(name, value)));
        Set {
            objects: objects.parse().expect("a number"),
            annotations: annotations.split("; ").filter_map(annotation).collect(),
        }
    };
    SETS.lines().map(set).collect()
}

/// A value of the kind that a set names.
fn plausible(name: &str, value: &str) -> String {
    let Some(kind) = value.strip_prefix('<').and_then(|value| value.strip_suffix('>')) else { return value.to_owned() };
    let text = match (name, kind) {
        (_, "networks") | ("whitelist-source-range", _) => "10.0.0.0/8,192.168.0.0/16",
        ("auth-url", "template") => "https://auth.example.com/oauth2/auth",
        ("auth-url", _) => "http://auth.shop.svc.cluster.local:4180/oauth2/auth",
        ("auth-signin", "url with variables") => {
            "https://auth.example.com/oauth2/start?rd=$scheme://$host$escaped_request_uri"
        }
        ("auth-signin", "path") => "/oauth2/start",
        ("auth-signin", _) => "https://auth.example.com/oauth2/start",
        ("auth-response-headers", _) => "Remote-User,Remote-Groups,X-Auth-Request-Email",
        ("auth-tls-secret", _) => "shop/ca",
        ("auth-tls-verify-client", _) => "on",
        ("auth-tls-verify-depth", _) => "2",
        ("auth-tls-pass-certificate-to-upstream" | "ssl-redirect" | "cors-allow-credentials", _) => "true",
        ("auth-secret", _) => "users",
        ("auth-realm", _) => "Authentication Required",
        ("backend-protocol", _) => "HTTPS",
        ("rewrite-target", "path") => "/api/$1",
        ("rewrite-target", _) => "https://www.example.com/$1",
        ("server-alias", _) => "www.example.org",
        ("app-root", _) => "/app",
        ("x-forwarded-prefix" | "session-cookie-path" | "permanent-redirect", "path") => "/shop",
        ("permanent-redirect" | "temporal-redirect", _) => "https://www.example.com/new",
        ("session-cookie-name", _) => "route",
        ("proxy-body-size", _) => "100m",
        ("proxy-buffering" | "proxy-request-buffering", _) => "off",
        ("proxy-redirect-from", _) => "http://web.internal/",
        ("proxy-redirect-to", _) => "https://shop.example/",
        ("proxy-cookie-path", _) => "/ /shop/",
        ("cors-allow-origin", _) => "https://shop.example.com",
        ("cors-allow-methods", _) => "GET, PUT, POST, OPTIONS",
        ("cors-allow-headers" | "cors-expose-headers", _) => "Authorization, Content-Type",
        ("cors-max-age", _) => "600",
        ("limit-rps", _) => "20",
        ("limit-connections", _) => "10",
        ("load-balance", _) => "ewma",
        ("custom-headers", _) => "shop/headers",
        (name, directives) if name.ends_with("-snippet") => return snippet(directives),
        _ => "text",
    };
    text.to_owned()
}

/// A snippet of these directives.
fn snippet(directives: &str) -> String {
    let mut text = String::new();
    for directive in directives.split(", ") {
        let line = match directive {
            "access_log" | "log_not_found" | "server_tokens" | "chunked_transfer_encoding" => "off",
            "add_header" => "X-Frame-Options DENY",
            "allow" => "10.0.0.0/8",
            "auth_request_set" => "$user $upstream_http_x_user",
            "deny" => "all",
            "if" => "($request_method = OPTIONS) { return 204; }",
            "limit_except" => "GET { deny all; }",
            "location" => "= /internal { return 404; }",
            "more_set_headers" => "\"X-Robots-Tag: none\"",
            "proxy_hide_header" => "X-Powered-By",
            "proxy_set_header" => "X-Forwarded-Method $request_method",
            "proxy_ssl_name" => "web.internal",
            "proxy_ssl_server_name" | "sub_filter_once" => "on",
            "real_ip_header" => "X-Forwarded-For",
            "return" => "403",
            "rewrite" => "^/old/(.*)$ /new/$1 permanent",
            "set" => "$origin \"\"",
            "sub_filter" => "'</head>' '<link rel=\"stylesheet\" href=\"/theme.css\"></head>'",
            "try_files" => "$uri /index.html",
            _ => {
                text.push_str("more_set_headers \"X-Content-Type-Options: nosniff\";\n");
                continue;
            }
        };
        let end = if line.ends_with('}') { "" } else { ";" };
        writeln!(text, "{directive} {line}{end}").expect("a String takes everything");
    }
    text
}

fn object(value: Value) -> Object {
    fn read<T: serde::de::DeserializeOwned + Into<Object>>(value: Value) -> Object {
        serde_json::from_value::<T>(value).expect("an object").into()
    }
    match value["kind"].as_str() {
        Some("Ingress") => read::<k8s_openapi::api::networking::v1::Ingress>(value),
        Some("IngressClass") => read::<k8s_openapi::api::networking::v1::IngressClass>(value),
        Some("Service") => read::<k8s_openapi::api::core::v1::Service>(value),
        Some("ConfigMap") => read::<k8s_openapi::api::core::v1::ConfigMap>(value),
        _ => read::<k8s_openapi::api::discovery::v1::EndpointSlice>(value),
    }
}

/// A Secret with a CA and a password file, which is all that the sets refer to.
fn secret(name: &str, key: &str, text: &str) -> Object {
    let mut secret = Secret::default();
    secret.metadata.namespace = Some("shop".into());
    secret.metadata.name = Some(name.into());
    secret.data = Some([(key.to_owned(), ByteString(text.as_bytes().to_vec()))].into());
    secret.into()
}

fn authority() -> String {
    let mut parameters = rcgen::CertificateParams::default();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let key = rcgen::KeyPair::generate().expect("a key");
    parameters.self_signed(&key).expect("a certificate").pem()
}

fn ingress(number: usize, set: &Set) -> Value {
    let annotations: BTreeMap<String, &String> =
        set.annotations.iter().map(|(name, value)| (format!("{PREFIX}/{name}"), value)).collect();
    let path = if set.annotations.get("rewrite-target").is_some_and(|target| target.contains("$2")) {
        "/api(/|$)(.*)"
    } else if set.annotations.contains_key("rewrite-target") {
        "/api/(.*)"
    } else {
        "/"
    };
    let host = format!("h{number}.example");
    // A canary needs the Ingress to which it is the alternative.
    let host = if set.annotations.contains_key("canary") { "canary.example".to_owned() } else { host };
    json!({
        "kind": "Ingress", "apiVersion": "networking.k8s.io/v1",
        "metadata": { "namespace": "shop", "name": format!("i{number}"), "annotations": annotations },
        "spec": { "ingressClassName": "nginx", "tls": [{ "hosts": [host] }], "rules": [{ "host": host, "http": { "paths": [
            { "path": path, "pathType": "ImplementationSpecific", "backend": { "service": { "name": "web", "port": { "number": 80 } } } },
        ] } }] },
    })
}

fn cluster(sets: &[Set]) -> Objects {
    let service = |name: &str, port: u16| {
        json!({
            "kind": "Service", "apiVersion": "v1", "metadata": { "namespace": "shop", "name": name },
            "spec": { "clusterIP": "10.96.0.1", "ports": [{ "port": port }] },
        })
    };
    let slice = |name: &str, port: u16| {
        json!({
            "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "addressType": "IPv4", "ports": [{ "port": port }],
            "metadata": { "namespace": "shop", "name": name, "labels": { "kubernetes.io/service-name": name } },
            "endpoints": [{ "addresses": ["10.0.0.1"] }],
        })
    };
    let stable = Set { objects: 0, annotations: BTreeMap::new() };
    let mut stable = ingress(9999, &stable);
    stable["spec"]["rules"][0]["host"] = "canary.example".into();
    let values = vec![
        service("web", 80),
        slice("web", 80),
        service("auth", 4180),
        slice("auth", 4180),
        stable,
        json!({ "kind": "IngressClass", "apiVersion": "networking.k8s.io/v1", "metadata": { "name": "nginx" },
                "spec": { "controller": "k8s.io/ingress-nginx" } }),
        json!({ "kind": "ConfigMap", "apiVersion": "v1", "metadata": { "namespace": "shop", "name": "settings" },
                "data": { "allow-snippet-annotations": "true", "annotations-risk-level": "Critical",
                          "global-allowed-response-headers": "X-Frame-Options" } }),
        json!({ "kind": "ConfigMap", "apiVersion": "v1", "metadata": { "namespace": "shop", "name": "headers" },
                "data": { "X-Frame-Options": "DENY" } }),
    ];
    let ingresses = sets.iter().enumerate().map(|(number, set)| ingress(number, set));
    let secrets = [
        secret("users", "auth", "alice:$apr1$8sDzNeDm$2cGaJ2i2ZxgFB1LbGIaES0\n"),
        secret("ca", "ca.crt", &authority()),
    ];
    values.into_iter().chain(ingresses).map(object).chain(secrets).collect()
}

#[test]
fn what_people_set_is_served() {
    let sets = sets();
    let configmap = Some(("shop".to_owned(), "settings".to_owned()));
    let options = Options { configmap, ssl_passthrough: true, ..Options::default() };
    let translation = translate(&cluster(&sets), &options, 1_790_000_000);
    let rules = Rules { risk_level: RiskLevel::Critical, snippets: true, ssl_passthrough: true, ..Rules::default() };
    let (mut served, mut all) = (0, 0);
    let mut missing: BTreeMap<String, u32> = BTreeMap::new();
    for (number, set) in sets.iter().enumerate() {
        let key = ObjectKey::new(objects::Kind::Ingress, "shop", format!("i{number}"));
        let (origin, prefixed): (Origin, BTreeMap<String, String>) = (
            key.origin(),
            set.annotations.iter().map(|(name, value)| (format!("{PREFIX}/{name}"), value.clone())).collect(),
        );
        let annotations = Annotations::new(&origin, PREFIX, &prefixed);
        // Names that ingress-nginx doesn't know ask for nothing either.
        let lost = set.annotations.iter().filter(|(name, value)| {
            let verdict = spec(name).map(|spec| spec.verdict_of(value, &annotations, &rules));
            matches!(verdict, Some(Verdict::NotYet(_) | Verdict::Refused { .. }))
        });
        let mut lost: BTreeSet<String> = lost.map(|(name, value)| format!("{name}={}", value.trim())).collect();
        let mut findings = translation.diagnostics.iter().filter(|found| found.origin.name == origin.name);
        if lost.is_empty()
            && let Some(found) = findings.find(|found| found.unserved || found.severity == Severity::Error)
        {
            lost.insert(format!("({}) {}", found.field, found.message));
        }
        if lost.is_empty() && !translation.served.contains(&key) {
            lost.insert("not loaded".to_owned());
        }
        all += set.objects;
        served += if lost.is_empty() { set.objects } else { 0 };
        for lost in lost {
            *missing.entry(lost).or_default() += set.objects;
        }
    }
    let mut missing: Vec<_> = missing.into_iter().collect();
    missing.sort_by_key(|(what, objects)| (std::cmp::Reverse(*objects), what.clone()));
    println!("{served} of {all} objects get all they ask for; the others lack:");
    for (what, objects) in &missing {
        println!("{objects:5}  {}", what.replace('\n', " "));
    }
    assert_eq!(all, 837);
    assert!(served >= SERVED, "{served} of {all}, which were {SERVED}: {missing:#?}");
}
