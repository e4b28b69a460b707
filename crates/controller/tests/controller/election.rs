//! Which of several replicas writes.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::apiserver::ApiServer;
use crate::rig::{Rig, cluster, config, ingress, pod};

fn holder(api: &ApiServer) -> Option<String> {
    let lease = api.get("leases", "ingress", "ingress-controller-leader")?;
    Some(lease["spec"]["holderIdentity"].as_str()?.to_owned())
}

async fn held_by(api: &ApiServer, name: &str) {
    api.until(&format!("{name} holding the Lease"), |api| holder(api).as_deref() == Some(name)).await;
}

fn shown(api: &ApiServer, name: &str) -> Value {
    api.get("ingresses", "shop", name).unwrap()["status"]["loadBalancer"]["ingress"].clone()
}

fn replica(name: &str, address: &str) -> fairway_controller::ControllerConfig {
    let mut config = config(name);
    config.status.addresses = fairway_controller::AddressSource::Fixed(vec![address.into()]);
    config
}

#[tokio::test(start_paused = true)]
async fn of_two_replicas_one_writes() {
    let api = cluster(&["a"]);
    let mut one = Rig::start(&api, replica("one", "192.0.2.1"));
    one.ready().await;
    held_by(&api, "one").await;
    let mut two = Rig::start(&api, replica("two", "192.0.2.2"));
    two.ready().await;
    sleep(Duration::from_secs(300)).await;
    assert_eq!(shown(&api, "a"), json!([{"ip": "192.0.2.1"}]));
    assert_eq!(api.asked("PATCH", "/status").len(), 1);
    let spec = &api.get("leases", "ingress", "ingress-controller-leader").unwrap()["spec"];
    assert_eq!((&spec["leaseDurationSeconds"], &spec["leaseTransitions"]), (&json!(30), &json!(0)));
}

#[tokio::test(start_paused = true)]
async fn the_other_one_takes_over_within_the_leases_time() {
    let api = cluster(&["a"]);
    let one = Rig::start(&api, replica("one", "192.0.2.1"));
    held_by(&api, "one").await;
    let mut two = Rig::start(&api, replica("two", "192.0.2.2"));
    two.ready().await;
    sleep(Duration::from_secs(60)).await;
    let killed = Instant::now();
    one.kill();
    held_by(&api, "two").await;
    assert!(killed.elapsed() >= Duration::from_secs(30 - 8 - 2), "not before: {:?}", killed.elapsed());
    assert!(killed.elapsed() <= Duration::from_secs(30), "not later: {:?}", killed.elapsed());
    api.until("the new address", |api| shown(api, "a") == json!([{"ip": "192.0.2.2"}])).await;
}

#[tokio::test(start_paused = true)]
async fn a_stopping_replica_releases_the_lease() {
    let api = cluster(&["a"]);
    api.put(pod("one", "n1"));
    api.put(pod("two", "n2"));
    let one = Rig::start(&api, replica("one", "192.0.2.1"));
    held_by(&api, "one").await;
    let mut two = Rig::start(&api, replica("two", "192.0.2.2"));
    two.ready().await;
    one.stop().await;
    let ended = Instant::now();
    held_by(&api, "two").await;
    assert!(ended.elapsed() <= Duration::from_secs(8), "{:?}", ended.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_renew_stops_writing_before_another_begins() {
    let api = cluster(&["a"]);
    let mut one = Rig::start(&api, replica("one", "192.0.2.1"));
    one.ready().await;
    api.until("the first write", |api| shown(api, "a") == json!([{"ip": "192.0.2.1"}])).await;
    api.fail("*", "/leases", 503, usize::MAX);
    sleep(Duration::from_secs(16)).await;
    api.put(ingress("b"));
    one.serves(&["a.example.com", "b.example.com"]).await;
    sleep(Duration::from_secs(300)).await;
    assert_eq!(shown(&api, "b"), Value::Null);
    // It takes over again when it can.
    api.heal();
    api.until("the second write", |api| shown(api, "b") == json!([{"ip": "192.0.2.1"}])).await;
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_lost_the_lease_stops_writing() {
    let api = cluster(&["a"]);
    let mut one = Rig::start(&api, replica("one", "192.0.2.1"));
    one.ready().await;
    api.until("the first write", |api| shown(api, "a") == json!([{"ip": "192.0.2.1"}])).await;
    let mut lease = api.get("leases", "ingress", "ingress-controller-leader").unwrap();
    lease["kind"] = json!("Lease");
    lease["spec"]["holderIdentity"] = json!("stranger");
    lease["spec"]["leaseDurationSeconds"] = json!(86_400);
    api.put(lease);
    sleep(Duration::from_secs(16)).await;
    api.put(ingress("b"));
    one.serves(&["a.example.com", "b.example.com"]).await;
    sleep(Duration::from_secs(300)).await;
    assert_eq!(shown(&api, "b"), Value::Null);
    assert_eq!(holder(&api).as_deref(), Some("stranger"));
}

#[tokio::test(start_paused = true)]
async fn losing_a_race_is_no_reason_to_stop() {
    let api = cluster(&["a"]);
    api.fail("POST", "/leases", 409, 1);
    let _one = Rig::start(&api, replica("one", "192.0.2.1"));
    held_by(&api, "one").await;
    api.fail("PUT", "/leases", 409, 1);
    sleep(Duration::from_secs(20)).await;
    api.put(ingress("b"));
    api.until("a write", |api| shown(api, "b") == json!([{"ip": "192.0.2.1"}])).await;
}

#[tokio::test(start_paused = true)]
async fn readiness_does_not_depend_on_leading() {
    let api = cluster(&["a"]);
    api.fail("*", "/leases", 403, usize::MAX);
    let mut one = Rig::start(&api, config("one"));
    one.ready().await;
    assert!(api.asked("PATCH", "/status").is_empty());
}

#[tokio::test(start_paused = true)]
async fn without_election_every_replica_writes() {
    let api = cluster(&["a"]);
    let mut config = config("one");
    config.election.disabled = true;
    let _one = Rig::start(&api, config);
    api.until("a write", |api| shown(api, "a") == json!([{"ip": "192.0.2.1"}])).await;
    assert!(api.asked("GET", "/leases").is_empty());
}
