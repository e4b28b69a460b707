//! What runs in a container, and with which rights.

use super::*;
use crate::image::Root;
use serde_json::{Value, json};

fn image() -> Image {
    Image {
        root: Root::Host,
        entrypoint: vec!["/fairway".to_owned()],
        arguments: vec!["run".to_owned()],
        environment: vec![("FROM".to_owned(), "image".to_owned()), ("BOTH".to_owned(), "image".to_owned())],
        user: (65532, 65533),
        working_directory: "/".to_owned(),
        id: "local/test".to_owned(),
    }
}

fn decide(pod: Value, container: Value) -> Result<Program, String> {
    let pod: Pod =
        serde_json::from_value(json!({ "spec": { "containers": [], "securityContext": pod } })).expect("a pod");
    let container: Container = serde_json::from_value(container).expect("a container");
    let variables = vec![("BOTH".to_owned(), "pod".to_owned()), ("A".to_owned(), "1".to_owned())];
    program(&pod, &container, &image(), variables, "web-0")
}

#[test]
fn command_and_arguments_replace_those_of_the_image() {
    let cases = [
        (json!({ "name": "c" }), vec!["/fairway", "run"]),
        (json!({ "name": "c", "args": ["$(A)", "$(X)"] }), vec!["/fairway", "1", "$(X)"]),
        (json!({ "name": "c", "command": ["sh"] }), vec!["sh"]),
        (json!({ "name": "c", "command": ["sh"], "args": ["-c", "$$(A)"] }), vec!["sh", "-c", "$(A)"]),
    ];
    for (container, expected) in cases {
        assert_eq!(decide(json!({}), container).expect("a program").command, expected);
    }
    let program = decide(json!({}), json!({ "name": "c" })).expect("a program");
    for (name, value) in [("FROM", "image"), ("BOTH", "pod"), ("HOSTNAME", "web-0"), ("HOME", "/"), ("PATH", PATH)] {
        assert!(program.environment.contains(&(name.to_owned(), value.to_owned())), "{name}");
    }
}

#[test]
fn the_user_is_the_containers_then_the_pods_then_the_images() {
    let rights = |pod, own: Value| decide(pod, json!({ "name": "c", "securityContext": own })).map(|p| p.rights);
    let found = rights(json!({}), json!({})).expect("rights");
    assert_eq!((found.user, found.group), (65532, 65533));
    let pod = json!({ "runAsUser": 1, "runAsGroup": 2, "fsGroup": 3, "supplementalGroups": [4] });
    let found = rights(pod, json!({ "runAsUser": 9 })).expect("rights");
    assert_eq!((found.user, found.group, found.groups), (9, 2, vec![2, 4, 3]));
    let found = rights(json!({}), json!({ "runAsUser": 9 })).expect("rights");
    assert_eq!((found.user, found.group), (9, 0), "the image's group belongs to the image's user");
    rights(json!({ "runAsNonRoot": true }), json!({ "runAsUser": 0 })).expect_err("root");
    rights(json!({ "runAsNonRoot": true, "runAsUser": 0 }), json!({ "runAsNonRoot": false })).expect("allowed");
}

#[test]
fn capabilities_are_dropped_before_they_are_added() {
    let rights =
        |own: Value| decide(json!({}), json!({ "name": "c", "securityContext": own })).expect("a program").rights;
    let changes =
        |drop: Value, add: Value| rights(json!({ "capabilities": { "drop": drop, "add": add } })).capabilities;
    let default = rights(json!({}));
    assert_eq!(default.capabilities.map(|all| all.len()), Some(DEFAULT_CAPABILITIES.len()));
    assert!(!default.no_new_privileges && !default.seccomp);
    assert_eq!(changes(json!(["ALL"]), json!(["NET_BIND_SERVICE"])), Some(vec!["NET_BIND_SERVICE".to_owned()]));
    assert_eq!(changes(json!(["ALL"]), json!(["CAP_KILL"])), Some(vec!["KILL".to_owned()]));
    let less = changes(json!(["NET_RAW"]), json!(["SYS_TIME"])).expect("a list");
    assert!(!less.contains(&"NET_RAW".to_owned()) && less.contains(&"SYS_TIME".to_owned()));
    let strict = rights(json!({ "allowPrivilegeEscalation": false, "seccompProfile": { "type": "RuntimeDefault" } }));
    assert!(strict.no_new_privileges && strict.seccomp);
    assert_eq!(rights(json!({ "privileged": true })).capabilities, None);
}

#[test]
fn names_are_looked_up_in_the_cluster_unless_the_pod_says_otherwise() {
    let files = |spec: Value| -> Vec<String> {
        let pod = serde_json::from_value(json!({ "metadata": { "namespace": "shop" }, "spec": spec })).expect("a pod");
        let files = small_files(&pod, "web-0", IpAddr::from([198, 18, 1, 2]), IpAddr::from([10, 96, 0, 10]));
        files.into_iter().map(|(_, content)| content).collect()
    };
    let alias = json!([{ "ip": "198.18.9.9", "hostnames": ["a", "b"] }]);
    let found = files(json!({ "containers": [], "hostAliases": alias }));
    assert!(found[0].contains("198.18.1.2\tweb-0\n") && found[0].contains("198.18.9.9\ta\tb\n"));
    assert_eq!(
        found[1],
        "search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"
    );
    let config = json!({ "nameservers": ["198.18.1.9"], "options": [{ "name": "ndots", "value": "1" }] });
    let found = files(json!({ "containers": [], "dnsPolicy": "None", "dnsConfig": config }));
    assert_eq!(found[1], "nameserver 198.18.1.9\noptions ndots:1\n");
}
