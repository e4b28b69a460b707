//! Events on users' objects.

use std::time::Duration;

use fairway_controller::{NotUnderstood, Unreachable};
use fairway_model::Origin;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::apiserver::ApiServer;
use crate::rig::{Rig, cluster, config, ingress};
use crate::sync::{tls_secret, with_tls};

fn faulty(name: &str) -> Value {
    let mut ingress = ingress(name);
    ingress["metadata"]["annotations"] = json!({"nginx.ingress.kubernetes.io/proxy-read-timeout": "soon"});
    ingress
}

fn about(api: &ApiServer, reason: &str) -> Vec<Value> {
    api.all("events").into_iter().filter(|event| event["reason"] == reason).collect()
}

const FAULT: &str = "AnnotationParsingFailed";

#[tokio::test(start_paused = true)]
async fn a_diagnostic_becomes_an_event_on_the_object() {
    let api = cluster(&["a"]);
    api.put(faulty("bad"));
    let _rig = Rig::start(&api, config("one"));
    api.until("the Event", |api| about(api, FAULT).len() == 1).await;
    let event = &about(&api, FAULT)[0];
    assert_eq!(event["involvedObject"]["kind"], "Ingress");
    assert_eq!(event["involvedObject"]["name"], "bad");
    assert_eq!(event["involvedObject"]["uid"], api.get("ingresses", "shop", "bad").unwrap()["metadata"]["uid"]);
    assert_eq!((&event["type"], &event["source"]["component"]), (&json!("Warning"), &json!("fairway")));
    let text = event["message"].as_str().unwrap();
    assert!(text.starts_with("Error parsing annotations"), "{text}");
    assert!(text.contains("proxy-read-timeout") && text.contains("soon"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn events_come_once() {
    let api = cluster(&[]);
    api.put(faulty("bad"));
    let one = Rig::start(&api, config("one"));
    api.until("the Event", |api| about(api, FAULT).len() == 1).await;
    let posts =
        |api: &ApiServer| api.asked("POST", "/events").iter().filter(|post| post.body["reason"] == FAULT).count();
    // New lists and unimportant changes don't repeat it.
    for round in 0..5 {
        let mut touched = faulty("bad");
        touched["metadata"]["labels"] = json!({"round": round.to_string()});
        api.put(touched);
        api.compact();
        api.disconnect();
        sleep(Duration::from_secs(600)).await;
    }
    assert_eq!(posts(&api), 1);
    // A new process tries, and learns that it already exists.
    one.stop().await;
    let _two = Rig::start(&api, config("two"));
    api.until("another try", |api| posts(api) == 2).await;
    sleep(Duration::from_secs(600)).await;
    assert_eq!((about(&api, FAULT).len(), posts(&api)), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn another_mistake_is_another_event() {
    let api = cluster(&[]);
    api.put(faulty("bad"));
    let _rig = Rig::start(&api, config("one"));
    api.until("the Event", |api| about(api, FAULT).len() == 1).await;
    let mut changed = faulty("bad");
    changed["metadata"]["annotations"]["nginx.ingress.kubernetes.io/proxy-read-timeout"] = json!("later");
    api.put(changed);
    api.until("the second Event", |api| about(api, FAULT).len() == 2).await;
}

#[tokio::test(start_paused = true)]
async fn a_corrected_mistake_is_reported_as_resolved() {
    let api = cluster(&[]);
    api.put(faulty("bad"));
    let _rig = Rig::start(&api, config("one"));
    api.until("the Event", |api| about(api, FAULT).len() == 1).await;
    api.put(ingress("bad"));
    api.until("the end of it", |api| about(api, "Resolved").len() == 1).await;
    let event = &about(&api, "Resolved")[0];
    assert_eq!((&event["type"], &event["involvedObject"]["name"]), (&json!("Normal"), &json!("bad")));
    let text = event["message"].as_str().unwrap();
    assert!(text.starts_with("resolved: AnnotationParsingFailed: ") && text.contains("proxy-read-timeout"), "{text}");
}

const UNREACHABLE: &str = "EndpointsUnreachable";

/// The only endpoint of an Ingress's backend, with its last byte, can't be reached.
fn report(rig: &Rig, name: &str, last: u8) {
    rig.reporter.unreachable(Unreachable {
        origin: Origin::new("Ingress", "shop", name),
        backend: "shop/web:80".to_owned(),
        endpoints: vec![(([10, 0, 0, last], 80).into(), "connect_refused".into())],
    });
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_backend_is_an_event_at_most_once_a_minute() {
    let api = cluster(&["a", "b"]);
    let mut rig = Rig::start(&api, config("one"));
    rig.serves(&["a.example.com", "b.example.com"]).await;
    for last in 1..100 {
        report(&rig, "a", last);
        report(&rig, "unknown", last);
        sleep(Duration::from_millis(100)).await;
    }
    api.until("the Event", |api| about(api, UNREACHABLE).len() == 1).await;
    let event = &about(&api, UNREACHABLE)[0];
    assert_eq!((&event["type"], &event["involvedObject"]["name"]), (&json!("Warning"), &json!("a")));
    assert_eq!(
        event["message"],
        "connecting to the only endpoint of shop/web:80 failed within the last minute: 10.0.0.1:80 connect_refused"
    );
    report(&rig, "b", 1);
    api.until("one on the other Ingress", |api| about(api, UNREACHABLE).len() == 2).await;
    sleep(Duration::from_secs(61)).await;
    report(&rig, "a", 100);
    api.until("another one after a minute", |api| about(api, UNREACHABLE).len() == 3).await;
    sleep(Duration::from_secs(600)).await;
    assert_eq!(about(&api, UNREACHABLE).len(), 3, "nothing without a report");
}

/// A proxy of another version continues with the last good form; the object's author learns of it, once for each version of the object.
#[tokio::test(start_paused = true)]
async fn what_a_proxy_does_not_understand_is_an_event_on_its_object() {
    const REASON: &str = "NotUnderstoodByProxy";
    let api = cluster(&["a", "b"]);
    let mut rig = Rig::start(&api, config("one"));
    rig.serves(&["a.example.com", "b.example.com"]).await;
    let report = |name: &str| {
        rig.reporter.not_understood(NotUnderstood {
            origin: Origin::new("Ingress", "shop", name).section("rules[0].paths[0]"),
            proxy: "proxy-1".to_owned(),
            reason: ".Host.routes[0].only_on_mondays is not known here".to_owned(),
        });
    };
    report("unknown");
    report("a");
    report("a");
    api.until("the Event", |api| about(api, REASON).len() == 1).await;
    let event = &about(&api, REASON)[0];
    assert_eq!((&event["type"], &event["involvedObject"]["name"]), (&json!("Warning"), &json!("a")));
    let text = event["message"].as_str().unwrap();
    assert!(
        text.contains("proxy-1") && text.contains("last good form stays") && text.contains("only_on_mondays"),
        "{text}"
    );
    // It holds up no other Event, and is sent once.
    report("b");
    api.until("one on the other Ingress", |api| about(api, REASON).len() == 2).await;
    report("a");
    sleep(Duration::from_secs(600)).await;
    let posts = api.asked("POST", "/events").into_iter().filter(|post| post.body["reason"] == REASON);
    let names: Vec<_> = posts.map(|post| post.body["involvedObject"]["name"].clone()).collect();
    // The second report may have come while the first one was being sent.
    assert!(names == ["a", "a", "b"] || names == ["a", "b"], "{names:?}");
}

/// The text stays the same. Names depend on the machine's clock, so only the requests are counted here.
#[tokio::test(start_paused = true)]
async fn an_outage_that_lasts_is_an_event_after_pauses_that_grow() {
    let api = cluster(&["a"]);
    let mut rig = Rig::start(&api, config("one"));
    rig.serves(&["a.example.com"]).await;
    let posts = |api: &ApiServer| {
        let posts = api.asked("POST", "/events").into_iter().map(|post| post.body);
        posts.filter(|body| body["reason"] == UNREACHABLE).collect::<Vec<_>>()
    };
    let mut at = Vec::new();
    for second in (0..3 * 3600).step_by(10) {
        report(&rig, "a", 1);
        sleep(Duration::from_secs(10)).await;
        if posts(&api).len() > at.len() {
            at.push(second / 60);
        }
    }
    assert_eq!(at, [0, 1, 3, 7, 15, 31, 61, 91, 121, 151]);
    let last = &posts(&api)[9];
    assert!(last["count"].as_u64() > Some(900), "{last}");
    assert_eq!(last["message"], posts(&api)[0]["message"]);
    // The outage is over, and another one begins.
    sleep(Duration::from_secs(301)).await;
    report(&rig, "a", 1);
    api.until("the Event about another outage", |api| posts(api).len() == 11).await;
    assert_eq!(posts(&api)[10]["count"], 1);
}

#[tokio::test(start_paused = true)]
async fn foreign_objects_get_no_event() {
    let api = cluster(&["a"]);
    let mut foreign = faulty("foreign");
    foreign["spec"]["ingressClassName"] = json!("other");
    api.put(foreign);
    api.put(json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": "other"},
        "spec": {"controller": "example.com/other"},
    }));
    let _rig = Rig::start(&api, config("one"));
    api.until("an Event", |api| !about(api, "Sync").is_empty()).await;
    sleep(Duration::from_secs(600)).await;
    assert!(api.all("events").iter().all(|event| event["involvedObject"]["name"] != "foreign"));
}

#[tokio::test(start_paused = true)]
async fn a_class_that_does_not_exist_gets_an_event() {
    let api = cluster(&[]);
    let mut lost = ingress("lost");
    lost["spec"]["ingressClassName"] = json!("other");
    api.put(lost);
    let _rig = Rig::start(&api, config("one"));
    api.until("the Event", |api| about(api, "IngressClassNotFound").len() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn each_version_of_an_ingress_of_ours_has_a_sync() {
    let api = cluster(&["a"]);
    let _rig = Rig::start(&api, config("one"));
    api.until("the first Sync", |api| about(api, "Sync").len() == 1).await;
    let event = &about(&api, "Sync")[0];
    assert_eq!((&event["type"], &event["message"]), (&json!("Normal"), &json!("Scheduled for sync")));
    let mut changed = ingress("a");
    changed["metadata"]["annotations"] = json!({"example.com/note": "b"});
    api.put(changed);
    api.until("the second Sync", |api| about(api, "Sync").len() == 2).await;
}

#[tokio::test(start_paused = true)]
async fn an_ingress_that_goes_before_its_sync_is_sent_has_none() {
    let api = cluster(&["a", "b", "c", "d"]);
    api.fail("POST", "/events", 503, usize::MAX);
    let mut rig = Rig::start(&api, config("one"));
    rig.serves(&["a.example.com", "b.example.com", "c.example.com", "d.example.com"]).await;
    // The first one is on its way again and again.
    for gone in ["a", "b", "d"] {
        api.delete("ingresses", "shop", gone);
    }
    rig.serves(&["c.example.com"]).await;
    api.heal();
    api.until("a Sync", |api| !about(api, "Sync").is_empty()).await;
    sleep(Duration::from_secs(600)).await;
    let named: Vec<_> = about(&api, "Sync").iter().map(|event| event["involvedObject"]["name"].clone()).collect();
    assert_eq!(named, ["c"]);
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_is_being_fetched_is_not_reported_missing() {
    let api = cluster(&[]);
    api.put(tls_secret("used", "a.example.com"));
    api.put(with_tls("a", "used"));
    let mut config = config("one");
    config.options.default_ssl_certificate = Some(("shop".into(), "used".into()));
    let mut rig = Rig::start(&api, config);
    rig.serves(&["a.example.com"]).await;
    api.put(tls_secret("other", "b.example.com"));
    api.put(with_tls("b", "other"));
    rig.serves(&["a.example.com", "b.example.com"]).await;
    // A Secret that is really missing is reported.
    api.put(with_tls("c", "missing"));
    api.until("the Event", |api| !about(api, "SecretNotFound").is_empty()).await;
    sleep(Duration::from_secs(600)).await;
    let named: Vec<_> =
        about(&api, "SecretNotFound").iter().map(|event| event["involvedObject"]["name"].clone()).collect();
    assert_eq!(named, ["c"]);
}

#[tokio::test(start_paused = true)]
async fn syncs_can_be_turned_off() {
    let api = cluster(&["a"]);
    api.put(faulty("bad"));
    let mut config = config("one");
    config.disable_sync_events = true;
    let _rig = Rig::start(&api, config);
    api.until("the Event", |api| about(api, FAULT).len() == 1).await;
    sleep(Duration::from_secs(600)).await;
    assert!(about(&api, "Sync").is_empty());
}

#[tokio::test(start_paused = true)]
async fn events_that_cannot_be_written_stop_nothing() {
    let api = cluster(&["a"]);
    api.put(faulty("bad"));
    api.fail("POST", "/events", 403, 3);
    let mut rig = Rig::start(&api, config("one"));
    rig.serves(&["a.example.com", "bad.example.com"]).await;
    api.put(ingress("c"));
    rig.serves(&["a.example.com", "bad.example.com", "c.example.com"]).await;
    api.until("the Event on another object", |api| !api.all("events").is_empty()).await;
}

#[tokio::test(start_paused = true)]
async fn events_wait_for_an_api_server_that_is_away() {
    let api = cluster(&[]);
    api.put(faulty("bad"));
    api.fail("POST", "/events", 503, 5);
    let _rig = Rig::start(&api, config("one"));
    api.until("the Event", |api| about(api, FAULT).len() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_missing_configmap_of_a_flag_is_reported_at_start_and_used_once_it_appears() {
    let api = cluster(&["a"]);
    let mut config = config("one");
    config.options.configmap = Some(("ingress".into(), "config".into()));
    config.options.tcp_services = Some(("ingress".into(), "tcp".into()));
    let mut rig = Rig::start(&api, config);
    rig.serves(&["a.example.com"]).await;
    api.until("two Events", |api| about(api, "InvalidConfiguration").len() == 2).await;
    let told = about(&api, "InvalidConfiguration");
    assert!(told.iter().all(|event| event["type"] == "Warning" && event["involvedObject"]["kind"] == "ConfigMap"));
    let named: Vec<_> = told.iter().map(|event| event["involvedObject"]["name"].clone()).collect();
    assert_eq!(named, ["config", "tcp"]);
    api.put(json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"namespace": "ingress", "name": "config"},
        "data": {"server-tokens": "true"},
    }));
    rig.until("the setting", |snapshot| snapshot.settings().server_tokens).await;
    // A new list is not a new start.
    api.compact();
    api.disconnect();
    sleep(Duration::from_secs(600)).await;
    assert_eq!(about(&api, "InvalidConfiguration").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_read_only_controller_writes_nothing() {
    let api = cluster(&["a"]);
    api.put(faulty("bad"));
    let mut config = config("one");
    config.read_only = true;
    config.options.configmap = Some(("ingress".into(), "config".into()));
    let mut rig = Rig::start(&api, config);
    rig.serves(&["a.example.com", "bad.example.com"]).await;
    api.put(ingress("c"));
    rig.serves(&["a.example.com", "bad.example.com", "c.example.com"]).await;
    sleep(Duration::from_secs(600)).await;
    rig.stop().await;
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        assert_eq!(api.asked(method, "").len(), 0, "{method}");
    }
}
