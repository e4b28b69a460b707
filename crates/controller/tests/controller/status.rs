//! The status of Ingresses.

use std::sync::Arc;
use std::time::Duration;

use fairway_controller::{AddressSource, Controller, Publish, StatusWriting};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::apiserver::ApiServer;
use crate::rig::{Rig, cluster, config, deployment, ending_pod, ingress, pod};

fn shown(api: &ApiServer, name: &str) -> Value {
    api.get("ingresses", "shop", name).unwrap()["status"]["loadBalancer"]["ingress"].clone()
}

async fn shows(api: &ApiServer, name: &str, expected: Value) {
    api.until(&format!("{name} showing {expected}"), |api| shown(api, name) == expected).await;
}

fn writes(api: &ApiServer) -> usize {
    api.asked("PATCH", "/status").len() + api.asked("PUT", "/status").len()
}

#[tokio::test(start_paused = true)]
async fn ingresses_of_our_class_show_our_address() {
    let api = cluster(&["a"]);
    let mut foreign = ingress("foreign");
    foreign["spec"]["ingressClassName"] = json!("other");
    foreign["status"] = json!({"loadBalancer": {"ingress": [{"ip": "198.51.100.1"}]}});
    api.put(foreign);
    let _rig = Rig::start(&api, config("one"));
    shows(&api, "a", json!([{"ip": "192.0.2.1"}])).await;
    // A new one does not wait for the interval.
    api.put(ingress("b"));
    shows(&api, "b", json!([{"ip": "192.0.2.1"}])).await;
    assert_eq!(shown(&api, "foreign"), json!([{"ip": "198.51.100.1"}]));
    assert_eq!(writes(&api), 2);
}

#[tokio::test(start_paused = true)]
async fn an_address_is_shown_only_once_the_ingress_is_live() {
    let api = cluster(&["a"]);
    let (sink, mut changes) = mpsc::channel::<Publish>(1);
    let controller = Controller::new(api.client(Arc::default()), config("one"), sink).unwrap();
    let running = tokio::spawn(controller.run(std::future::pending(), std::future::pending()));
    let first = changes.recv().await.unwrap();
    first.live.send(()).unwrap();
    shows(&api, "a", json!([{"ip": "192.0.2.1"}])).await;
    api.put(ingress("b"));
    let second = changes.recv().await.unwrap();
    // Slow workers, and a check of all status in the meantime.
    sleep(Duration::from_secs(300)).await;
    assert_eq!(shown(&api, "b"), Value::Null);
    second.live.send(()).unwrap();
    shows(&api, "b", json!([{"ip": "192.0.2.1"}])).await;
    running.abort();
}

#[tokio::test(start_paused = true)]
async fn nothing_is_written_when_nothing_changes() {
    let api = cluster(&["a", "b"]);
    let mut same = ingress("a");
    same["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}});
    api.put(same);
    let _rig = Rig::start(&api, config("one"));
    shows(&api, "b", json!([{"ip": "192.0.2.1"}])).await;
    // An hour with its sixty checks, and new lists.
    for _ in 0..4 {
        sleep(Duration::from_secs(900)).await;
        api.compact();
        api.disconnect();
    }
    assert_eq!(writes(&api), 1);
}

#[tokio::test(start_paused = true)]
async fn a_conflict_is_retried_with_the_current_version() {
    let api = cluster(&["a"]);
    api.fail("PATCH", "/status", 409, 2);
    let _rig = Rig::start(&api, config("one"));
    shows(&api, "a", json!([{"ip": "192.0.2.1"}])).await;
    assert_eq!(writes(&api), 3);
}

#[tokio::test(start_paused = true)]
async fn writes_name_the_version_they_are_about() {
    let api = cluster(&["a"]);
    let _rig = Rig::start(&api, config("one"));
    shows(&api, "a", json!([{"ip": "192.0.2.1"}])).await;
    for patch in api.asked("PATCH", "/status") {
        assert!(patch.body["metadata"]["uid"].is_string() && patch.body["metadata"]["resourceVersion"].is_string());
    }
}

#[tokio::test(start_paused = true)]
async fn the_roles_of_ingress_nginx_are_enough() {
    let api = cluster(&["a"]);
    api.fail("PATCH", "/status", 403, usize::MAX);
    let _rig = Rig::start(&api, config("one"));
    shows(&api, "a", json!([{"ip": "192.0.2.1"}])).await;
    // Later writes don't repeat the refused request.
    api.put(ingress("b"));
    shows(&api, "b", json!([{"ip": "192.0.2.1"}])).await;
    assert_eq!((api.asked("PATCH", "/status").len(), api.asked("PUT", "/status").len()), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn rights_may_change_at_run_time() {
    let api = cluster(&["a"]);
    api.fail("PATCH", "/status", 403, usize::MAX);
    let _rig = Rig::start(&api, config("one"));
    shows(&api, "a", json!([{"ip": "192.0.2.1"}])).await;
    api.heal();
    api.fail("PUT", "/status", 403, usize::MAX);
    api.put(ingress("b"));
    shows(&api, "b", json!([{"ip": "192.0.2.1"}])).await;
}

#[tokio::test(start_paused = true)]
async fn one_refused_ingress_keeps_no_other_one_waiting() {
    let api = cluster(&["a", "b"]);
    api.fail("PATCH", "/ingresses/a/status", 422, usize::MAX);
    let _rig = Rig::start(&api, config("one"));
    shows(&api, "b", json!([{"ip": "192.0.2.1"}])).await;
    api.heal();
    let mut changed = ingress("a");
    changed["metadata"]["labels"] = json!({"changed": "true"});
    api.put(changed);
    shows(&api, "a", json!([{"ip": "192.0.2.1"}])).await;
}

fn balancer(addresses: Value) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": "edge", "name": "lb"},
        "spec": {"type": "LoadBalancer", "clusterIP": "10.0.0.2", "ports": [{"port": 80}]},
        "status": {"loadBalancer": {"ingress": addresses}},
    })
}

fn behind_service() -> fairway_controller::ControllerConfig {
    let mut config = config("one");
    config.options.watch_namespace = Some("shop".into());
    config.status.addresses = AddressSource::Service { namespace: "edge".into(), name: "lb".into() };
    config
}

#[tokio::test(start_paused = true)]
async fn the_address_of_the_service_in_front_is_followed() {
    let api = cluster(&["a"]);
    api.put(balancer(json!([])));
    let mut rig = Rig::start(&api, behind_service());
    rig.ready().await;
    sleep(Duration::from_secs(300)).await;
    assert_eq!(writes(&api), 0, "an address that isn't known yet is not written");
    api.put(balancer(json!([{"hostname": "lb.example.com"}, {"ip": "192.0.2.8"}])));
    shows(&api, "a", json!([{"ip": "192.0.2.8"}, {"hostname": "lb.example.com"}])).await;
    // The Service is gone for a while: users still see the same.
    api.delete("services", "edge", "lb");
    sleep(Duration::from_secs(300)).await;
    assert_eq!(shown(&api, "a"), json!([{"ip": "192.0.2.8"}, {"hostname": "lb.example.com"}]));
    api.put(balancer(json!([{"ip": "192.0.2.9"}])));
    shows(&api, "a", json!([{"ip": "192.0.2.9"}])).await;
}

#[tokio::test(start_paused = true)]
async fn the_service_in_front_is_no_backend() {
    let api = cluster(&["a"]);
    api.put(balancer(json!([{"ip": "192.0.2.8"}])));
    let mut rig = Rig::start(&api, behind_service());
    rig.ready().await;
    shows(&api, "a", json!([{"ip": "192.0.2.8"}])).await;
    assert!(api.asked("GET", "/namespaces/edge/").iter().all(|asked| asked.target.contains("metadata.name%3Dlb")));
}

#[tokio::test(start_paused = true)]
async fn without_a_service_the_nodes_of_ready_pods_count() {
    let api = cluster(&["a"]);
    for (node, internal, external) in
        [("n1", "10.1.0.1", Some("192.0.2.11")), ("n2", "10.1.0.2", None), ("n3", "10.1.0.3", None)]
    {
        let external = external.map(|address| json!({"type": "ExternalIP", "address": address}));
        let addresses: Vec<_> =
            [json!({"type": "InternalIP", "address": internal})].into_iter().chain(external).collect();
        api.put(
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}, "status": {"addresses": addresses}}),
        );
    }
    let mut unready = pod("one", "n1");
    unready["status"]["conditions"] = json!([]);
    api.put(unready);
    let mut config = config("one");
    config.status.addresses = AddressSource::Nodes { pods: None, internal: false };
    let mut rig = Rig::start(&api, config);
    rig.ready().await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(writes(&api), 0);
    api.put(pod("one", "n1"));
    shows(&api, "a", json!([{"ip": "192.0.2.11"}])).await;
    api.put(pod("two", "n2"));
    let mut stranger = pod("stranger", "n3");
    stranger["metadata"]["labels"] = json!({"app": "other"});
    api.put(stranger);
    shows(&api, "a", json!([{"ip": "10.1.0.2"}, {"ip": "192.0.2.11"}])).await;
}

#[tokio::test(start_paused = true)]
async fn the_last_replica_takes_its_addresses_back() {
    let api = cluster(&["a", "b"]);
    api.put(ending_pod("one"));
    let rig = Rig::start(&api, config("one"));
    shows(&api, "a", json!([{"ip": "192.0.2.1"}])).await;
    shows(&api, "b", json!([{"ip": "192.0.2.1"}])).await;
    let mut foreign = ingress("b");
    foreign["status"] = json!({"loadBalancer": {"ingress": [{"ip": "198.51.100.1"}]}});
    let before = writes(&api);
    // Another writer updates `b`, and no write of ours gets through before we end.
    api.fail("PATCH", "/ingresses/b/status", 409, usize::MAX);
    api.put(foreign);
    api.until("an attempt to write", |api| writes(api) > before).await;
    rig.stop().await;
    assert_eq!(shown(&api, "a"), json!([]));
    assert_eq!(shown(&api, "b"), json!([{"ip": "198.51.100.1"}]), "only what is ours is taken back");
}

#[tokio::test(start_paused = true)]
async fn addresses_stay_while_another_replica_follows() {
    let starting = |name: &str| {
        let mut pod = pod(name, "n2");
        pod["status"] = json!({"phase": "Pending"});
        pod
    };
    for (what, objects) in [
        ("another one runs", vec![ending_pod("one"), pod("two", "n2")]),
        ("another one starts", vec![ending_pod("one"), starting("two")]),
        ("only the container ends", vec![pod("one", "n1")]),
        ("the Deployment makes another one", vec![ending_pod("one"), deployment(1)]),
        ("of two that end together", vec![ending_pod("one"), ending_pod("two"), deployment(2)]),
        ("a DaemonSet makes another one", vec![daemon_pod("one"), daemon_set(1)]),
    ] {
        assert!(shows_at_the_end(objects, |_| ()).await, "{what}");
    }
    let fails = |api: &ApiServer| api.fail("GET", "/deployments/fairway", 500, usize::MAX);
    assert!(shows_at_the_end(vec![ending_pod("one"), deployment(0)], fails).await, "nothing is known");
}

#[tokio::test(start_paused = true)]
async fn addresses_are_removed_when_no_replica_follows() {
    let deleted = |mut workload: Value| {
        workload["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        workload
    };
    for (what, objects) in [
        ("scaled to 0", vec![ending_pod("one"), ending_pod("two"), deployment(0)]),
        ("the Deployment is gone", vec![ending_pod("one")]),
        ("the Deployment is going, its pods first", vec![ending_pod("one"), deleted(deployment(2))]),
        ("no node is chosen any more", vec![daemon_pod("one"), daemon_set(0)]),
    ] {
        assert!(!shows_at_the_end(objects, |_| ()).await, "{what}");
    }
    // With the roles of ingress-nginx, the existing pods decide.
    let refused = |api: &ApiServer| api.fail("GET", "/deployments/fairway", 403, usize::MAX);
    assert!(!shows_at_the_end(vec![ending_pod("one"), deployment(1)], refused).await);
    assert!(shows_at_the_end(vec![ending_pod("one"), pod("two", "n2"), deployment(2)], refused).await);
}

#[tokio::test(start_paused = true)]
async fn a_daemon_set_counts_by_its_status_once_observed() {
    let api = cluster(&["a"]);
    let mut outdated = daemon_set(1);
    outdated["metadata"]["generation"] = json!(2);
    api.put(daemon_pod("one"));
    api.put(outdated.clone());
    let mut rig = Rig::start(&api, config("one"));
    shows(&api, "a", json!([{"ip": "192.0.2.1"}])).await;
    rig.leave();
    api.until("a second look", |api| api.asked("GET", "/daemonsets/fairway").len() > 1).await;
    assert_eq!(shown(&api, "a"), json!([{"ip": "192.0.2.1"}]));
    outdated["status"] = json!({"observedGeneration": 2, "desiredNumberScheduled": 0});
    api.put(outdated);
    shows(&api, "a", json!([])).await;
    rig.stop().await;
}

/// Whether an Ingress still shows the address of a replica that has ended with these objects in the cluster.
async fn shows_at_the_end(objects: Vec<Value>, before: impl FnOnce(&ApiServer)) -> bool {
    let api = cluster(&["a"]);
    for object in objects {
        api.put(object);
    }
    let rig = Rig::start(&api, config("one"));
    shows(&api, "a", json!([{"ip": "192.0.2.1"}])).await;
    before(&api);
    rig.stop().await;
    shown(&api, "a") == json!([{"ip": "192.0.2.1"}])
}

fn daemon_pod(name: &str) -> Value {
    let mut pod = ending_pod(name);
    let owner = &mut pod["metadata"]["ownerReferences"][0];
    (owner["kind"], owner["name"]) = (json!("DaemonSet"), json!("fairway"));
    pod
}

fn daemon_set(desired: u32) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"namespace": "ingress", "name": "fairway", "generation": 1},
        "status": {"observedGeneration": 1, "desiredNumberScheduled": desired},
    })
}

#[tokio::test(start_paused = true)]
async fn the_flag_keeps_addresses() {
    let api = cluster(&["a"]);
    api.put(ending_pod("one"));
    let mut config = config("one");
    config.status.writing = StatusWriting::Keep;
    let rig = Rig::start(&api, config);
    shows(&api, "a", json!([{"ip": "192.0.2.1"}])).await;
    rig.stop().await;
    assert_eq!(shown(&api, "a"), json!([{"ip": "192.0.2.1"}]));
}

#[tokio::test(start_paused = true)]
async fn changes_are_served_while_the_process_drains() {
    let api = cluster(&["a"]);
    api.put(ending_pod("one"));
    let mut rig = Rig::start(&api, config("one"));
    shows(&api, "a", json!([{"ip": "192.0.2.1"}])).await;
    rig.leave();
    shows(&api, "a", json!([])).await;
    let before = writes(&api);
    api.put(ingress("b"));
    rig.serves(&["a.example.com", "b.example.com"]).await;
    sleep(Duration::from_secs(300)).await;
    assert_eq!(writes(&api), before, "a leaving replica writes no address");
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_unavailable_api_server_does_not_block_shutdown() {
    let api = cluster(&["a"]);
    api.put(ending_pod("one"));
    let rig = Rig::start(&api, config("one"));
    shows(&api, "a", json!([{"ip": "192.0.2.1"}])).await;
    api.set_away(true);
    rig.stop().await;
}
