//! Pods that become ready only when the proxies know them.

use std::time::Duration;

use fairway_controller::{Controller, ControllerConfig, InvalidConfig};
use fairway_model::{Endpoints, Snapshot};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};

use crate::apiserver::ApiServer;
use crate::gateway;
use crate::rig::{Rig, cluster, config, ingress, pod};

const ROUTED: &str = "fairway.dev/routed";

fn gated(name: &str) -> ControllerConfig {
    ControllerConfig { readiness_gate: true, ..config(name) }
}

/// A cluster with a route to a Service that selects `app: web`, and pods of two replicas.
fn shop() -> ApiServer {
    let api = cluster(&["a"]);
    api.put(json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"namespace": "shop", "name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }));
    api.put(pod("one", "n1"));
    api.put(pod("two", "n2"));
    api
}

/// A pod with the gate whose containers are ready.
fn put_pod(api: &ApiServer, name: &str, app: &str) {
    api.put(json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"namespace": "shop", "name": name, "labels": {"app": app, "fairway.dev/readiness-gate": "enabled"}},
        "spec": {"containers": [], "readinessGates": [{"conditionType": ROUTED}]},
        "status": {"conditions": [{"type": "ContainersReady", "status": "True"}, {"type": "Ready", "status": "False"}]},
    }));
}

/// Its EndpointSlice, in which it isn't ready.
fn put_slice(api: &ApiServer, pod: &str) {
    put_slice_that_says(api, pod, false);
}

fn put_slice_that_says(api: &ApiServer, pod: &str, ready: bool) {
    let uid = api.get("pods", "shop", pod).unwrap()["metadata"]["uid"].clone();
    api.put(json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"namespace": "shop", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"port": 8080, "protocol": "TCP"}],
        "endpoints": [{
            "addresses": ["198.51.100.1"],
            "conditions": {"ready": ready, "serving": ready, "terminating": false},
            "targetRef": {"kind": "Pod", "namespace": "shop", "name": pod, "uid": uid},
        }],
    }));
}

fn condition(api: &ApiServer, pod: &str) -> Option<Value> {
    let pod = api.get("pods", "shop", pod)?;
    pod["status"]["conditions"].as_array()?.iter().find(|condition| condition["type"] == ROUTED).cloned()
}

async fn is_routed(api: &ApiServer, pod: &str, reason: &str, message: &str) {
    api.until("the condition", |api| condition(api, pod).is_some()).await;
    let condition = condition(api, pod).unwrap();
    assert_eq!(
        (&condition["status"], &condition["reason"], &condition["message"]),
        (&json!("True"), &json!(reason), &json!(message))
    );
}

fn has_endpoint(snapshot: &Snapshot) -> bool {
    let is_there = |endpoints: &Endpoints| match endpoints {
        Endpoints::Addresses(all) => !all.is_empty(),
        _ => false,
    };
    snapshot.endpoint_sets().iter().any(|set| is_there(&set.endpoints))
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_is_in_force_before_its_pod_is_ready() {
    let api = shop();
    let mut rig = Rig::start(&api, gated("one"));
    rig.ready().await;
    put_pod(&api, "new", "web");
    // Its EndpointSlice is late.
    sleep(Duration::from_secs(5)).await;
    assert_eq!(condition(&api, "new"), None);
    assert!(!has_endpoint(&rig.snapshot()));
    put_slice(&api, "new");
    is_routed(&api, "new", "Known", "1 of 1 proxies know this pod").await;
    assert!(has_endpoint(&rig.snapshot()));
    sleep(Duration::from_secs(300)).await;
    assert_eq!(api.asked("PATCH", "/pods/new/status").len(), 1, "it is written once");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_stays_in_force_while_its_slice_lags_behind_its_pod() {
    let api = shop();
    let mut rig = Rig::start(&api, gated("one"));
    rig.ready().await;
    put_pod(&api, "new", "web");
    put_slice(&api, "new");
    is_routed(&api, "new", "Known", "1 of 1 proxies know this pod").await;
    while rig.history.try_recv().is_ok() {}
    let mut pod = api.get("pods", "shop", "new").unwrap();
    for condition in pod["status"]["conditions"].as_array_mut().unwrap() {
        condition["status"] = json!("True");
    }
    api.put(pod);
    sleep(Duration::from_secs(5)).await;
    put_slice_that_says(&api, "new", true);
    sleep(Duration::from_secs(5)).await;
    put_slice_that_says(&api, "new", false);
    rig.until("the slice decides", |snapshot| !has_endpoint(snapshot)).await;
    let mut lost = 0;
    while let Ok(snapshot) = rig.history.try_recv() {
        lost += usize::from(!has_endpoint(&snapshot));
    }
    assert_eq!(lost, 1, "only once the slice says so after it said that the pod is ready");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_no_service_has_is_ready_at_once() {
    let api = shop();
    let mut rig = Rig::start(&api, gated("one"));
    rig.ready().await;
    let begin = Instant::now();
    put_pod(&api, "job", "batch");
    is_routed(&api, "job", "Known", "1 of 1 proxies know this pod").await;
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_pod_waits_for_the_proxies_of_each_controller() {
    let api = shop();
    let (ours, theirs) = (watch::Sender::new(vec![u64::MAX]), watch::Sender::new(vec![u64::MAX, 0]));
    let mut leader = Rig::start_with_proxies(&api, gated("one"), &ours);
    leader.ready().await;
    api.until("leadership", |api| api.get("leases", "ingress", "ingress-controller-leader").is_some()).await;
    let mut other = Rig::start_with_proxies(&api, gated("two"), &theirs);
    other.ready().await;
    put_pod(&api, "new", "web");
    put_slice(&api, "new");
    sleep(Duration::from_secs(20)).await;
    assert!(has_endpoint(&leader.snapshot()) && has_endpoint(&other.snapshot()));
    assert_eq!(condition(&api, "new"), None, "a proxy of the other controller doesn't know it");
    theirs.send_replace(vec![u64::MAX; 2]);
    is_routed(&api, "new", "Known", "3 of 3 proxies know this pod").await;
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_has_not_connected_yet_is_waited_for() {
    let api = shop();
    let endpoint = |address| json!({"addresses": [address], "conditions": {"ready": true}});
    api.put(json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"namespace": "ingress", "name": "fairway-1", "labels": {"kubernetes.io/service-name": "fairway"}},
        "addressType": "IPv4",
        "ports": [],
        "endpoints": [endpoint("198.51.100.8"), endpoint("198.51.100.9")],
    }));
    let mut config = gated("one");
    config.options.publish_service = Some(("ingress".into(), "fairway".into()));
    let serves = watch::Sender::new(vec![u64::MAX]);
    let mut rig = Rig::start_with_proxies(&api, config, &serves);
    rig.ready().await;
    put_pod(&api, "new", "web");
    put_slice(&api, "new");
    sleep(Duration::from_secs(20)).await;
    assert_eq!(condition(&api, "new"), None, "the Service has another proxy");
    serves.send_replace(vec![u64::MAX; 2]);
    is_routed(&api, "new", "Known", "2 of 2 proxies know this pod").await;
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_died_is_waited_for_no_longer_than_its_lease() {
    let api = shop();
    let mut leader = Rig::start(&api, gated("one"));
    leader.ready().await;
    api.until("leadership", |api| api.get("leases", "ingress", "ingress-controller-leader").is_some()).await;
    let mut other = Rig::start(&api, gated("two"));
    other.ready().await;
    api.until("its Lease", |api| api.get("leases", "ingress", "two-readiness-gate").is_some()).await;
    other.kill();
    let begin = Instant::now();
    put_pod(&api, "new", "web");
    put_slice(&api, "new");
    is_routed(&api, "new", "Known", "1 of 1 proxies know this pod").await;
    assert!(begin.elapsed() <= Duration::from_secs(16), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_proxy_that_never_answers_keeps_a_pod_for_half_a_minute() {
    let api = shop();
    let serves = watch::Sender::new(vec![u64::MAX, 0]);
    let mut rig = Rig::start_with_proxies(&api, gated("one"), &serves);
    rig.ready().await;
    put_pod(&api, "new", "web");
    put_slice(&api, "new");
    let begin = Instant::now();
    let message = "1 of 2 proxies know this pod after 30 seconds, which is long enough";
    is_routed(&api, "new", "Timeout", message).await;
    let waited = begin.elapsed();
    assert!(waited >= Duration::from_secs(30) && waited < Duration::from_secs(31), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn without_the_flag_no_pod_is_read() {
    let api = shop();
    let mut rig = Rig::start(&api, config("one"));
    rig.ready().await;
    put_pod(&api, "new", "web");
    sleep(Duration::from_secs(60)).await;
    assert_eq!(api.asked("GET", "/pods").len(), 0);
    assert_eq!(api.get("leases", "ingress", "one-readiness-gate"), None);
}

#[tokio::test(start_paused = true)]
async fn who_writes_no_status_cannot_keep_pods_waiting() {
    let api = shop();
    let new = |config| Controller::new(api.client(std::sync::Arc::default()), config, mpsc::channel(1).0).err();
    let read_only = ControllerConfig { read_only: true, ..gated("one") };
    let outside = ControllerConfig { pod: None, ..gated("one") };
    assert_eq!(new(read_only), Some(InvalidConfig::NoRouting));
    assert_eq!(new(outside), Some(InvalidConfig::NoRouting));
    assert_eq!(new(gated("one")), None);
}

/// The Ingress of the shop, at a generation, asking for a report.
fn put_asking(api: &ApiServer, generation: u64) {
    let mut ingress = api.get("ingresses", "shop", "a").unwrap_or_else(|| ingress("a"));
    ingress["metadata"]["annotations"]["fairway.dev/observe"] = json!("true");
    ingress["metadata"]["generation"] = json!(generation);
    ingress["spec"]["rules"][0]["host"] = json!(format!("g{generation}.example.com"));
    api.put(ingress);
}

fn observed(api: &ApiServer) -> Option<Value> {
    let ingress = api.get("ingresses", "shop", "a")?;
    serde_json::from_str(ingress["metadata"]["annotations"]["fairway.dev/observed"].as_str()?).ok()
}

#[tokio::test(start_paused = true)]
async fn an_ingress_that_asks_shows_when_all_proxies_of_all_controllers_have_a_generation() {
    let api = shop();
    let asked = |name| ControllerConfig { observed: true, ..config(name) };
    let (ours, theirs) = (watch::Sender::new(vec![u64::MAX]), watch::Sender::new(vec![u64::MAX]));
    let mut leader = Rig::start_with_proxies(&api, asked("one"), &ours);
    leader.ready().await;
    api.until("leadership", |api| api.get("leases", "ingress", "ingress-controller-leader").is_some()).await;
    let mut other = Rig::start_with_proxies(&api, asked("two"), &theirs);
    other.ready().await;
    sleep(Duration::from_secs(10)).await;
    assert_eq!(observed(&api), None, "nothing is said without being asked");

    put_asking(&api, 2);
    api.until("the annotation", |api| observed(api).is_some()).await;
    let found = observed(&api).unwrap();
    assert_eq!((&found["generation"], &found["proxies"], &found["of"]), (&json!(2), &json!(2), &json!(2)));
    assert!(found["milliseconds"].as_u64().unwrap() < 3000, "{found}");

    theirs.send_replace(vec![0]);
    put_asking(&api, 3);
    sleep(Duration::from_secs(29)).await;
    assert_eq!(observed(&api).unwrap()["generation"], 2);
    api.until("the count so far", |api| observed(api).unwrap()["generation"] == 3).await;
    let found = observed(&api).unwrap();
    assert_eq!((&found["proxies"], &found["of"]), (&json!(1), &json!(2)));
    theirs.send_replace(vec![u64::MAX]);
    api.until("the whole count", |api| observed(api).unwrap()["proxies"] == 2).await;

    let writes =
        || api.asked("PATCH", "/ingresses/a/status").iter().filter(|asked| asked.body["status"].is_null()).count();
    sleep(Duration::from_secs(300)).await;
    assert_eq!(writes(), 3, "one for generation 2, two for generation 3");
}

#[tokio::test(start_paused = true)]
async fn a_route_that_asks_shows_who_has_a_generation_beside_its_status() {
    let api = shop();
    api.put(gateway::class());
    api.put(gateway::gateway());
    let put_route = |generation| {
        let mut route = gateway::route(generation, &format!("g{generation}.example.com"));
        route["metadata"]["annotations"] = json!({"fairway.dev/observe": "true"});
        api.put(route);
    };
    let mut foreign = gateway::route(1, "foreign.example.com");
    foreign["metadata"]["name"] = json!("foreign");
    foreign["metadata"]["annotations"] = json!({"fairway.dev/observe": "true"});
    foreign["spec"]["parentRefs"][0]["name"] = json!("theirs");
    api.put(foreign);
    let serves = watch::Sender::new(vec![u64::MAX]);
    let observing = ControllerConfig { observed: true, gateway_api: true, ..config("one") };
    let mut rig = Rig::start_with_proxies(&api, observing, &serves);
    rig.ready().await;
    for generation in [1, 2] {
        put_route(generation);
        let shows = |api: &ApiServer| {
            let route = api.get("httproutes", "shop", "web").unwrap();
            let text = route["metadata"]["annotations"]["fairway.dev/observed"].as_str().unwrap_or_default();
            let is_shown = text.starts_with(&format!(r#"{{"generation":{generation},"proxies":1,"of":1,"#));
            is_shown && route["status"]["parents"][0]["conditions"][0]["observedGeneration"] == generation
        };
        api.until("the annotation and the status", shows).await;
    }
    sleep(Duration::from_secs(300)).await;
    let writes = |path| api.asked("PATCH", path).iter().filter(|asked| asked.body["status"].is_null()).count();
    assert_eq!((writes("/httproutes/web"), writes("/httproutes/foreign")), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn an_annotation_that_a_tool_removes_comes_back_at_once() {
    let api = shop();
    let serves = watch::Sender::new(vec![u64::MAX]);
    let mut rig = Rig::start_with_proxies(&api, ControllerConfig { observed: true, ..config("one") }, &serves);
    rig.ready().await;
    put_asking(&api, 2);
    api.until("the annotation", |api| observed(api).is_some()).await;
    sleep(Duration::from_secs(60)).await;
    let mut ingress = api.get("ingresses", "shop", "a").unwrap();
    ingress["metadata"]["annotations"].as_object_mut().unwrap().remove("fairway.dev/observed");
    let begin = Instant::now();
    api.put(ingress);
    api.until("the annotation", |api| observed(api).is_some()).await;
    let found = observed(&api).unwrap();
    assert_eq!((&found["generation"], &found["proxies"], &found["of"]), (&json!(2), &json!(1), &json!(1)));
    assert!(begin.elapsed() < Duration::from_secs(3), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_condition_that_may_not_be_written_is_not_tried_each_second() {
    let api = shop();
    let mut rig = Rig::start(&api, gated("one"));
    rig.ready().await;
    api.fail("PATCH", "/pods/new/status", 403, usize::MAX);
    put_pod(&api, "new", "web");
    put_slice(&api, "new");
    sleep(Duration::from_secs(1800)).await;
    let tries = api.asked("PATCH", "/pods/new/status").len();
    assert!((20..80).contains(&tries), "{tries}");
    api.heal();
    is_routed(&api, "new", "Known", "1 of 1 proxies know this pod").await;
}
