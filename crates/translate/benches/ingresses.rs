//! The cost of 10,000 Ingresses of one host each: the first translation, and then one change of each kind.
//!
//! `cargo bench -p fairway-translate`. Times are wall clock and noisy; look at their order of magnitude.

use std::hint::black_box;
use std::time::Instant;

use fairway_translate::Translator;
use fairway_translate::objects::{Change, Object};
use fairway_translate::options::Options;
use serde_json::{Value, json};

const CHANGES: u32 = 200;

fn main() {
    for count in [1_000, 10_000, 100_000] {
        let objects = objects(count);
        let options = Options { watch_ingress_without_class: true, ..Options::default() };
        let mut translator = Translator::new(options);
        let changes: Vec<Change> = objects.into_iter().map(Change::Upsert).collect();
        let start = Instant::now();
        let update = translator.apply(changes, 0);
        let first = start.elapsed();
        assert_eq!(translator.snapshot().host_count(), count + 1);
        drop(update);
        let path = one_change(&mut translator, |at| ingress(at as usize * 7 % count, "/changed"));
        let back = one_change(&mut translator, |at| ingress(at as usize * 7 % count, "/order"));
        let endpoints = one_change(&mut translator, |at| slice(at as usize * 7 % count, 9));
        let nothing = one_change(&mut translator, |at| slice(at as usize * 7 % count, 9));
        println!(
            "{count:>7} Ingresses: first {first:.1?}, resident {} MB; one change of an Ingress {path:.1?}, back {back:.1?}, of endpoints {endpoints:.1?}, \
             of nothing {nothing:.1?}",
            resident() / 1024
        );
    }
}

/// Resident memory in KiB, of objects and translation together; 0 if it can't be read.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default()
}

fn one_change(translator: &mut Translator, object: impl Fn(u32) -> Object) -> std::time::Duration {
    let changes: Vec<Object> = (0..CHANGES).map(object).collect();
    let start = Instant::now();
    for change in changes {
        black_box(translator.apply([Change::Upsert(change)], 0));
    }
    start.elapsed() / CHANGES
}

fn objects(count: usize) -> Vec<Object> {
    (0..count).flat_map(|at| [ingress(at, "/order"), service(at), slice(at, 1)]).collect()
}

fn read<T: serde::de::DeserializeOwned + Into<Object>>(value: Value) -> Object {
    serde_json::from_value::<T>(value).expect("a manifest").into()
}

fn ingress(at: usize, path: &str) -> Object {
    read::<k8s_openapi::api::networking::v1::Ingress>(json!({
        "kind": "Ingress", "apiVersion": "networking.k8s.io/v1",
        "metadata": {
            "namespace": "shop", "name": format!("web-{at}"), "creationTimestamp": "2026-01-01T00:00:00Z",
            "annotations": { "nginx.ingress.kubernetes.io/proxy-read-timeout": "120" },
        },
        "spec": { "rules": [{ "host": format!("host-{at}.example.com"), "http": { "paths": [
            { "path": "/", "pathType": "Prefix", "backend": { "service": { "name": format!("web-{at}"), "port": { "number": 80 } } } },
            { "path": path, "pathType": "Prefix", "backend": { "service": { "name": format!("web-{at}"), "port": { "number": 80 } } } },
        ] } }] },
    }))
}

fn service(at: usize) -> Object {
    read::<k8s_openapi::api::core::v1::Service>(json!({
        "kind": "Service", "apiVersion": "v1", "metadata": { "namespace": "shop", "name": format!("web-{at}") },
        "spec": { "clusterIP": "10.1.1.1", "ports": [{ "port": 80, "targetPort": 8080 }] },
    }))
}

fn slice(at: usize, last: u8) -> Object {
    read::<k8s_openapi::api::discovery::v1::EndpointSlice>(json!({
        "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "addressType": "IPv4",
        "metadata": {
            "namespace": "shop", "name": format!("web-{at}"), "labels": { "kubernetes.io/service-name": format!("web-{at}") },
        },
        "endpoints": [{ "addresses": [format!("10.0.0.{last}")] }], "ports": [{ "port": 8080 }],
    }))
}
