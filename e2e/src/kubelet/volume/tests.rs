//! The contents of volumes.

use super::*;
use k8s_openapi::api::core::v1::Node;
use std::sync::Arc;

fn pod(volumes: serde_json::Value) -> Pod {
    serde_json::from_value(serde_json::json!({
        "metadata": { "name": "web", "namespace": "shop", "uid": "u", "labels": { "app": "web" } },
        "spec": { "containers": [], "volumes": volumes },
    }))
    .expect("a pod")
}

/// Contents and modes by path.
type Files = BTreeMap<String, (String, u32)>;

fn render(pod: &Pod, objects: &Objects) -> Vec<Result<Files, VolumeError>> {
    let node = Node::default();
    let tokens = BTreeMap::from([(("token".to_owned(), 0), "jwt".to_owned())]);
    let sources = Sources { pod, pod_ip: "198.18.1.2", host_ip: "198.19.0.11", node: &node };
    let render = Render { sources, objects, tokens: &tokens, user: Some(101), group: None };
    let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let text =
        |(path, entry): (String, Entry)| (path, (String::from_utf8_lossy(&entry.content).into_owned(), entry.mode));
    volumes.map(|volume| payload(volume, &render).map(|files| files.into_iter().map(text).collect())).collect()
}

fn data(pairs: &[(&str, &str)]) -> Lookup {
    let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()));
    Lookup::Present(Arc::new(pairs.collect()))
}

#[tokio::test]
async fn sources_become_files_with_their_modes() {
    let pod = pod(serde_json::json!([
        { "name": "tls", "secret": { "secretName": "tls", "defaultMode": 0o400 } },
        { "name": "some", "configMap": { "name": "cfg", "items": [{ "key": "b", "path": "x/y", "mode": 0o444 }] } },
        { "name": "token", "projected": { "defaultMode": 420, "sources": [
            { "serviceAccountToken": { "path": "token" } },
            { "configMap": { "name": "cfg", "items": [{ "key": "a", "path": "ca.crt" }] } },
            { "downwardAPI": { "items": [{ "path": "ns", "fieldRef": { "fieldPath": "metadata.namespace" } }] } },
        ] } },
        { "name": "down", "downwardAPI": { "items": [
            { "path": "labels", "fieldRef": { "fieldPath": "metadata.labels" } },
        ] } },
    ]));
    assert_eq!(references(&pod).len(), 3);
    let objects = Objects::fixed([
        (Key::secret("shop", "tls"), data(&[("tls.key", "k")])),
        (Key::config_map("shop", "cfg"), data(&[("a", "1"), ("b", "2")])),
    ]);
    let file = |path: &str, text: &str, mode| (path.to_owned(), (text.to_owned(), mode));
    let expected = [
        BTreeMap::from([file("tls.key", "k", 0o400)]),
        BTreeMap::from([file("x/y", "2", 0o444)]),
        BTreeMap::from([file("ca.crt", "1", 0o644), file("ns", "shop", 0o644), file("token", "jwt", 0o600)]),
        BTreeMap::from([file("labels", "app=\"web\"", 0o644)]),
    ];
    assert_eq!(render(&pod, &objects).into_iter().collect::<Result<Vec<_>, _>>().expect("files"), expected);
}

#[tokio::test]
async fn what_is_missing_is_named_unless_it_is_optional() {
    let pod = pod(serde_json::json!([
        { "name": "a", "secret": { "secretName": "none" } },
        { "name": "b", "secret": { "secretName": "none", "optional": true } },
        { "name": "c", "configMap": { "name": "cfg", "items": [{ "key": "z", "path": "z" }] } },
        { "name": "d", "configMap": { "name": "later" } },
        { "name": "e", "configMap": { "name": "cfg", "items": [{ "key": "a", "path": "../a" }] } },
    ]));
    let objects = Objects::fixed([
        (Key::secret("shop", "none"), Lookup::Absent),
        (Key::config_map("shop", "cfg"), data(&[("a", "1")])),
        (Key::config_map("shop", "later"), Lookup::Unknown),
    ]);
    let results: Vec<String> = render(&pod, &objects)
        .into_iter()
        .map(|result| result.map_or_else(|error| error.to_string(), |files| format!("{} files", files.len())))
        .collect();
    assert_eq!(
        results,
        [
            "MountVolume.SetUp failed for volume \"a\" : secret \"none\" not found",
            "0 files",
            "MountVolume.SetUp failed for volume \"c\" : references non-existent key of configmap \"cfg\": z",
            "configmap \"later\" is not known yet",
            "MountVolume.SetUp failed for volume \"e\" : invalid path \"../a\"",
        ]
    );
}

#[test]
fn a_sub_path_stays_in_its_volume() {
    let directory = tempfile::tempdir().expect("a directory");
    let volumes = BTreeMap::from([("data".to_owned(), Ready { path: directory.path().to_owned(), read_only: false })]);
    let mount = |path: &str| VolumeMount {
        name: "data".to_owned(),
        mount_path: "/data".to_owned(),
        sub_path_expr: Some(path.to_owned()),
        ..VolumeMount::default()
    };
    let expand = |text: &str| text.replace("$(POD)", "web-0");
    let found = mounts(&[mount("logs/$(POD)")], &volumes, &expand).expect("a mount");
    assert_eq!(found[0].source, directory.path().canonicalize().expect("a path").join("logs/web-0"));
    assert!(found[0].source.is_dir(), "made when missing");
    mounts(&[mount("../x")], &volumes, &expand).expect_err("leads out");
    std::os::unix::fs::symlink("/etc", directory.path().join("link")).expect("a link");
    mounts(&[mount("link")], &volumes, &expand).expect_err("leads out by a link");
}
