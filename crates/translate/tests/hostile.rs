//! Users may write anything. No text causes a panic, and a fault of one object changes nothing of another.

use std::sync::Arc;

use fairway_model::{Host, HostPattern};
use fairway_translate::objects::{Object, Objects};
use fairway_translate::options::Options;
use fairway_translate::{Translation, translate};
use proptest::prelude::*;
use serde_json::{Value, json};

/// All text fields of an Ingress, by their places in the manifest.
const FIELDS: [&str; 16] = [
    "/metadata/name",
    "/metadata/namespace",
    "/spec/ingressClassName",
    "/spec/rules/0/host",
    "/spec/rules/0/http/paths/0/path",
    "/spec/rules/0/http/paths/0/pathType",
    "/spec/rules/0/http/paths/0/backend/service/name",
    "/spec/rules/0/http/paths/0/backend/service/port/name",
    "/spec/rules/0/http/paths/1/path",
    "/spec/rules/0/http/paths/1/backend/resource/name",
    "/spec/rules/0/http/paths/1/backend/resource/kind",
    "/spec/defaultBackend/service/name",
    "/spec/defaultBackend/service/port/name",
    "/spec/tls/0/hosts/0",
    "/spec/tls/0/secretName",
    "/metadata/labels/app",
];

fn victim() -> Value {
    json!({
        "kind": "Ingress", "apiVersion": "networking.k8s.io/v1",
        "metadata": { "namespace": "victim", "name": "web", "annotations": {}, "labels": { "app": "x" } },
        "spec": {
            "ingressClassName": "nginx",
            "rules": [{ "host": "victim.example", "http": { "paths": [
                { "path": "/a", "pathType": "Prefix", "backend": { "service": { "name": "web", "port": { "name": "http" } } } },
                { "path": "/b", "pathType": "Prefix", "backend": { "resource": { "name": "x", "kind": "Y" } } },
            ] } }],
            "defaultBackend": { "service": { "name": "web", "port": { "name": "http" } } },
            "tls": [{ "hosts": ["victim.example"], "secretName": "tls" }],
        },
    })
}

fn neighbour(host: &str) -> Object {
    ingress(json!({
        "kind": "Ingress", "apiVersion": "networking.k8s.io/v1",
        "metadata": { "namespace": "other", "name": host },
        "spec": { "ingressClassName": "nginx", "rules": [{ "host": host, "http": { "paths": [
            { "path": "/", "pathType": "Prefix", "backend": { "service": { "name": "web", "port": { "number": 80 } } } },
        ] } }] },
    }))
}

fn ingress(value: Value) -> Object {
    serde_json::from_value::<k8s_openapi::api::networking::v1::Ingress>(value).expect("an Ingress").into()
}

fn options() -> Options {
    Options { ingress_class_by_name: true, watch_ingress_without_class: true, ..Options::default() }
}

fn translation(victim: Value) -> Translation {
    let class = json!({
        "kind": "IngressClass", "apiVersion": "networking.k8s.io/v1", "metadata": { "name": "nginx" },
        "spec": { "controller": "k8s.io/ingress-nginx" },
    });
    let class = serde_json::from_value::<k8s_openapi::api::networking::v1::IngressClass>(class).expect("a class");
    let objects: Objects =
        [class.into(), ingress(victim), neighbour("one.example"), neighbour("*.two.example")].into_iter().collect();
    translate(&objects, &options(), 0)
}

/// The hosts of neighbouring Ingresses.
fn neighbours(translation: &Translation) -> Vec<Arc<Host>> {
    let ours = |pattern: &HostPattern| ["one.example", "*.two.example"].contains(&pattern.to_string().as_str());
    translation.snapshot.hosts().into_iter().filter(|host| ours(host.pattern())).cloned().collect()
}

fn garbage() -> impl Strategy<Value = String> {
    let nasty = prop::collection::vec(
        prop::sample::select(vec![
            "\0", "\r", "\n", "\"", "'", "{", "}", "$", "#", ";", "\\", "/", "%", "(", "[", "*", "?", "~", "^", " ",
            "a", "..", "%2f", "${x}", "\u{202e}", "é", "-", ".", ",", "*.", "1", "(?i)", "{9999}", "true",
        ]),
        0..12,
    )
    .prop_map(|parts| parts.concat());
    prop_oneof![4 => nasty, 1 => any::<String>(), 1 => "/[a-z(|)*.]{0,20}"]
}

fn annotation_name() -> impl Strategy<Value = String> {
    let known: Vec<&str> = fairway_translate::annotation::names().collect();
    prop_oneof![
        4 => prop::sample::select(known).prop_map(|name| format!("nginx.ingress.kubernetes.io/{name}")),
        1 => garbage().prop_map(|name| format!("nginx.ingress.kubernetes.io/{name}")),
        1 => garbage(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn garbage_in_a_field_changes_nothing_of_others(field in 0..FIELDS.len(), text in garbage()) {
        let clean = translation(victim());
        let mut dirty = victim();
        *dirty.pointer_mut(FIELDS[field]).expect("the field") = text.into();
        let dirty = translation(dirty);
        prop_assert_eq!(neighbours(&clean), neighbours(&dirty));
        prop_assert_eq!(clean.snapshot.settings(), dirty.snapshot.settings());
        for found in &dirty.diagnostics {
            prop_assert!(!found.to_string().contains(['\0', '\r', '\n']), "{found:?}");
        }
    }

    #[test]
    fn garbage_in_annotations_changes_nothing_of_others(
        annotations in prop::collection::vec((annotation_name(), garbage()), 1..4),
    ) {
        let clean = translation(victim());
        let mut dirty = victim();
        for (name, value) in annotations {
            dirty["metadata"]["annotations"][name] = value.into();
        }
        let dirty = translation(dirty);
        prop_assert_eq!(neighbours(&clean), neighbours(&dirty));
        for found in &dirty.diagnostics {
            prop_assert!(!found.to_string().contains(['\0', '\r', '\n']), "{found:?}");
        }
    }

    #[test]
    fn the_same_objects_give_the_same_result(field in 0..FIELDS.len(), text in garbage()) {
        let mut dirty = victim();
        *dirty.pointer_mut(FIELDS[field]).expect("the field") = text.into();
        let (one, other) = (translation(dirty.clone()), translation(dirty));
        prop_assert_eq!(serde_json::to_value(&one.snapshot).ok(), serde_json::to_value(&other.snapshot).ok());
        prop_assert_eq!(one.diagnostics, other.diagnostics);
    }
}

#[test]
fn a_megabyte_in_any_place_is_borne() {
    let clean = translation(victim());
    let bears = |unit: &str| {
        let text = unit.repeat((1 << 20) / unit.len());
        for field in FIELDS {
            let mut dirty = victim();
            *dirty.pointer_mut(field).expect("the field") = text.clone().into();
            assert_eq!(neighbours(&clean), neighbours(&translation(dirty)), "{field}");
        }
        for name in fairway_translate::annotation::names() {
            let mut dirty = victim();
            dirty["metadata"]["annotations"][format!("nginx.ingress.kubernetes.io/{name}")] = text.clone().into();
            assert_eq!(neighbours(&clean), neighbours(&translation(dirty)), "{name}");
        }
    };
    std::thread::scope(|scope| {
        for unit in ["a", "a,", "~a,", "(", "/a", "*.a,", "a.example,", "é"] {
            scope.spawn(|| bears(unit));
        }
    });
}

#[test]
fn thousands_of_bad_paths_are_told_in_brief() {
    let mut dirty = victim();
    let path = json!({ "path": "/(", "pathType": "ImplementationSpecific", "backend": { "service": { "name": "web", "port": { "number": 80 } } } });
    let paths: Vec<Value> = (0..5000)
        .map(|at| {
            let mut path = path.clone();
            path["path"] = format!("/{at}(").into();
            path
        })
        .collect();
    dirty["spec"]["rules"][0]["http"]["paths"] = paths.into();
    dirty["metadata"]["annotations"]["nginx.ingress.kubernetes.io/use-regex"] = "true".into();
    let translation = translation(dirty);
    assert!(translation.diagnostics.len() < 120, "{}", translation.diagnostics.len());
}
