//! The environment of a container.

use super::*;
use crate::kubelet::objects::Lookup;
use serde_json::json;
use std::sync::Arc;

fn pod(container: serde_json::Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": { "name": "web", "namespace": "shop", "uid": "u-1", "annotations": { "a/b": "c" } },
        "spec": { "containers": [container], "nodeName": "node-a", "serviceAccountName": "clerk" },
    }))
    .expect("a pod")
}

fn environment(container: serde_json::Value, objects: &Objects) -> Result<Vec<(String, String)>, ConfigError> {
    let pod = pod(container);
    let node: Node =
        serde_json::from_value(json!({ "status": { "allocatable": { "memory": "4Gi" } } })).expect("a node");
    let sources = Sources { pod: &pod, pod_ip: "198.18.1.2", host_ip: "198.19.0.11", node: &node };
    let container = &pod.spec.as_ref().expect("a spec").containers[0];
    variables(container, &sources, objects, vec![("KUBERNETES_SERVICE_HOST".to_owned(), "10.96.0.1".to_owned())])
}

fn data(pairs: &[(&str, &str)]) -> Lookup {
    let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()));
    Lookup::Present(Arc::new(pairs.collect()))
}

#[tokio::test]
async fn references_are_followed_and_later_variables_see_earlier_ones() {
    let reference =
        |name: &str, path: &str| json!({ "name": name, "valueFrom": { "fieldRef": { "fieldPath": path } } });
    let container = json!({
        "name": "c",
        "resources": { "limits": { "cpu": "1500m" } },
        "envFrom": [{ "prefix": "P_", "configMapRef": { "name": "cfg" } }, { "secretRef": { "name": "no", "optional": true } }],
        "env": [
            reference("NAME", "metadata.name"), reference("UID", "metadata.uid"), reference("NODE", "spec.nodeName"),
            reference("SA", "spec.serviceAccountName"), reference("IP", "status.podIP"), reference("HOST", "status.hostIP"),
            reference("NOTE", "metadata.annotations['a/b']"), reference("NONE", "metadata.labels['x']"),
            { "name": "CPU", "valueFrom": { "resourceFieldRef": { "resource": "limits.cpu" } } },
            { "name": "MEMORY", "valueFrom": { "resourceFieldRef": { "resource": "limits.memory", "divisor": "1Mi" } } },
            { "name": "KEY", "valueFrom": { "secretKeyRef": { "name": "s", "key": "k" } } },
            { "name": "SKIPPED", "valueFrom": { "secretKeyRef": { "name": "s", "key": "x", "optional": true } } },
            { "name": "URL", "value": "http://$(IP):$$(IP)/$(nothing)$(KUBERNETES_SERVICE_HOST)" },
            { "name": "NAME", "value": "$(NAME)-2" },
        ],
    });
    let objects = Objects::fixed([
        (Key::config_map("shop", "cfg"), data(&[("a", "1")])),
        (Key::secret("shop", "s"), data(&[("k", "v")])),
        (Key::secret("shop", "no"), Lookup::Absent),
    ]);
    let found: BTreeMap<_, _> = environment(container, &objects).expect("an environment").into_iter().collect();
    let expected = [
        ("CPU", "2"),
        ("HOST", "198.19.0.11"),
        ("IP", "198.18.1.2"),
        ("KEY", "v"),
        ("KUBERNETES_SERVICE_HOST", "10.96.0.1"),
        ("MEMORY", "4096"),
        ("NAME", "web-2"),
        ("NODE", "node-a"),
        ("NONE", ""),
        ("NOTE", "c"),
        ("P_a", "1"),
        ("SA", "clerk"),
        ("UID", "u-1"),
        ("URL", "http://198.18.1.2:$(IP)/$(nothing)10.96.0.1"),
    ];
    let expected: BTreeMap<_, _> = expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_missing_reference_is_named() {
    let objects =
        Objects::fixed([(Key::secret("shop", "s"), data(&[])), (Key::config_map("shop", "m"), Lookup::Absent)]);
    let key =
        json!({ "name": "c", "env": [{ "name": "K", "valueFrom": { "secretKeyRef": { "name": "s", "key": "k" } } }] });
    let error = environment(key, &objects).expect_err("missing");
    assert_eq!(error.to_string(), "couldn't find key k in secret \"s\"");
    let map = json!({ "name": "c", "envFrom": [{ "configMapRef": { "name": "m" } }] });
    assert_eq!(environment(map, &objects).expect_err("missing").to_string(), "configmap \"m\" not found");
    let field =
        json!({ "name": "c", "env": [{ "name": "F", "valueFrom": { "fieldRef": { "fieldPath": "spec.x" } } }] });
    assert_eq!(environment(field, &objects).expect_err("unknown").to_string(), "unsupported fieldPath: spec.x");
}

#[test]
fn expansion_leaves_what_it_does_not_know() {
    let known = |name: &str| (name == "A").then(|| "1".to_owned());
    for (text, expected) in [
        ("$(A)", "1"),
        ("$$(A)", "$(A)"),
        ("$(B)", "$(B)"),
        ("$(A", "$(A"),
        ("$", "$"),
        ("a$$b", "a$b"),
        ("$(A)$(A)", "11"),
    ] {
        assert_eq!(expand(text, &known), expected, "{text}");
    }
}
