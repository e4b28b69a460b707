//! Events that fail, among others that succeed.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::apiserver::ApiServer;
use crate::rig::{Rig, cluster, config, ingress};

fn faulty(namespace: &str, name: &str) -> Value {
    let mut ingress = ingress(name);
    ingress["metadata"]["namespace"] = json!(namespace);
    ingress["metadata"]["annotations"] = json!({"nginx.ingress.kubernetes.io/proxy-read-timeout": "soon"});
    ingress
}

fn has_event(api: &ApiServer, ingress: &str, reason: &str) -> bool {
    let is_it = |event: &Value| event["involvedObject"]["name"] == ingress && event["reason"] == reason;
    api.all("events").iter().any(is_it)
}

const FAULT: &str = "AnnotationParsingFailed";

/// The namespace where no Event can be written. It sorts before the others.
const BROKEN: &str = "/namespaces/broken/events";

#[tokio::test(start_paused = true)]
async fn a_failing_event_delays_no_other() {
    let api = cluster(&["a"]);
    api.put(faulty("broken", "bad"));
    api.put(faulty("shop", "other"));
    api.fail("POST", BROKEN, 500, usize::MAX);
    let _rig = Rig::start(&api, config("one"));
    api.until("the Event on another object", |api| has_event(api, "other", FAULT)).await;
    api.until("the sync of another object", |api| has_event(api, "a", "Sync")).await;
    api.heal();
    api.until("the Event that failed", |api| has_event(api, "bad", FAULT)).await;
}

#[tokio::test(start_paused = true)]
async fn an_event_that_fails_alone_is_dropped() {
    let api = cluster(&[]);
    api.put(faulty("broken", "bad"));
    api.fail("POST", BROKEN, 500, usize::MAX);
    let mut config = config("one");
    config.disable_sync_events = true;
    let _rig = Rig::start(&api, config);
    api.until("a failure", |api| !api.asked("POST", BROKEN).is_empty()).await;
    for round in 0..6 {
        let name = format!("other{round}");
        api.put(faulty("shop", &name));
        api.until("the Event on another object", |api| has_event(api, &name, FAULT)).await;
        sleep(Duration::from_secs(60)).await;
    }
    let tries = api.asked("POST", BROKEN).len();
    sleep(Duration::from_secs(3600)).await;
    assert_eq!(api.asked("POST", BROKEN).len(), tries);
}

#[tokio::test(start_paused = true)]
async fn many_events_leave_room_for_others_who_ask_the_api_server() {
    const MANY: usize = 300;
    let api = cluster(&[]);
    for number in 0..MANY {
        api.put(faulty("shop", &format!("bad{number}")));
    }
    let mut config = config("one");
    config.disable_sync_events = true;
    let mut rig = Rig::start(&api, config);
    rig.ready().await;
    sleep(Duration::from_secs(10)).await;
    let sent = api.all("events").len();
    assert!((80..=110).contains(&sent), "{sent} in ten seconds");
    sleep(Duration::from_secs(3600)).await;
    assert!(api.all("events").len() >= MANY, "each has its turn");
    // Only a few are sent soon.
    let begin = Instant::now();
    api.put(faulty("shop", "last"));
    api.until("the Event on another object", |api| has_event(api, "last", FAULT)).await;
    assert!(begin.elapsed() < Duration::from_millis(50), "{:?}", begin.elapsed());
}
