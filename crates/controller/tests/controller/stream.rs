//! TCP and UDP services: their ConfigMaps are read by name, from any namespace.

use fairway_model::Snapshot;
use serde_json::{Value, json};

use crate::apiserver::ApiServer;
use crate::rig::{Rig, cluster, config};

fn config_map(name: &str, data: &Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "namespace": "edge", "name": name }, "data": data })
}

fn ports(snapshot: &Snapshot) -> Vec<String> {
    snapshot.stream_listeners().map(|one| format!("{} {}", one.name, one.backend)).collect()
}

/// A cluster with one TCP service, served by a controller that may read only one namespace.
async fn start() -> (ApiServer, Rig) {
    let api = cluster(&["a"]);
    api.put(config_map("tcp", &json!({ "9000": "shop/web:80" })));
    let mut config = config("one");
    config.options.watch_namespace = Some("shop".into());
    config.options.tcp_services = Some(("edge".into(), "tcp".into()));
    config.options.udp_services = Some(("edge".into(), "udp".into()));
    let rig = Rig::start(&api, config);
    (api, rig)
}

#[tokio::test(start_paused = true)]
async fn ports_follow_the_config_maps() {
    let (api, mut rig) = start().await;
    rig.ready().await;
    let first = rig.history.recv().await.unwrap();
    assert_eq!(ports(&first), ["tcp-9000 shop/web:80/tcp"], "nothing goes out without them");
    api.put(config_map("tcp", &json!({ "9001": "shop/web:80", "http": "shop/web:80" })));
    rig.until("another port", |snapshot| ports(snapshot) == ["tcp-9001 shop/web:80/tcp"]).await;
    api.put(config_map("udp", &json!({ "53": "shop/web:80" })));
    rig.until("a UDP port", |snapshot| ports(snapshot).len() == 2).await;
    // Other ConfigMaps are irrelevant.
    api.put(config_map("other", &json!({ "9002": "shop/web:80" })));
    api.delete("configmaps", "edge", "tcp");
    rig.until("no TCP port", |snapshot| ports(snapshot) == ["udp-53 shop/web:80/udp"]).await;
    assert!(rig.snapshot().backend(&"shop/web:80/tcp".into()).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_bad_entry_is_an_event_of_its_config_map() {
    let (api, mut rig) = start().await;
    rig.ready().await;
    api.put(config_map("tcp", &json!({ "9000": "shop/web:80", "9001": "web:80" })));
    let told = |event: &Value| {
        let text = event["message"].as_str().unwrap_or_default();
        event["involvedObject"]["name"] == "tcp" && text.contains("9001") && text.contains("expected namespace/service")
    };
    api.until("an Event", |api| api.all("events").iter().any(told)).await;
    assert_eq!(ports(&rig.snapshot()), ["tcp-9000 shop/web:80/tcp"]);
}
