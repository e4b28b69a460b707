//! What is live first when objects arrive in a different order than they were written in.

use std::time::Duration;

use fairway_model::{Action, Filter, Route, Snapshot};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::apiserver::ApiServer;
use crate::rig::{Rig, cluster, config, ingress};

const PREFIX: &str = "nginx.ingress.kubernetes.io";

/// How long an object that others may restrict waits for them.
const QUIET: Duration = Duration::from_millis(5);

/// The delay between the write of an object and its arrival.
const LATE: Duration = Duration::from_millis(3);

fn annotated(name: &str, annotations: &[(&str, &str)]) -> Value {
    let mut ingress = ingress(name);
    for (annotation, value) in annotations {
        ingress["metadata"]["annotations"][format!("{PREFIX}/{annotation}")] = json!(value);
    }
    ingress
}

fn settings(data: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"namespace": "ingress", "name": "config"}, "data": data})
}

/// The route of the only host.
fn route(snapshot: &Snapshot) -> Route {
    let hosts = snapshot.hosts();
    let host = hosts.into_iter().find(|host| host.pattern().to_string() == "a.example.com");
    host.and_then(|host| host.routes().first()).expect("a route").clone()
}

fn is_restricted(route: &Route) -> bool {
    route.filters.iter().any(|filter| matches!(filter, Filter::AccessList(_)))
}

/// A cluster with an Ingress, settings, and a pause since the last change.
async fn begin(annotations: &[(&str, &str)]) -> (ApiServer, Rig) {
    let api = cluster(&[]);
    api.put(annotated("a", annotations));
    api.put(settings(&json!({})));
    let mut config = config("one");
    config.options.configmap = Some(("ingress".into(), "config".into()));
    let mut rig = Rig::start(&api, config);
    rig.serves(&["a.example.com"]).await;
    sleep(Duration::from_secs(1)).await;
    while rig.history.try_recv().is_ok() {}
    (api, rig)
}

/// Restricts all Ingresses by the settings, some time after the last change. Returns the number of snapshots that are live since that
/// change, each of which has to be restricted.
async fn restricted_late(api: &ApiServer, rig: &mut Rig) -> usize {
    sleep(LATE).await;
    api.put(settings(&json!({"whitelist-source-range": "192.0.2.128/25"})));
    sleep(Duration::from_secs(1)).await;
    let mut live = 0;
    while let Ok(snapshot) = rig.history.try_recv() {
        assert!(is_restricted(&route(&snapshot)), "{:?}", route(&snapshot).filters);
        live += 1;
    }
    live
}

#[tokio::test(start_paused = true)]
async fn a_changed_ingress_that_opens_nothing_is_live_at_once() {
    let (api, mut rig) = begin(&[]).await;
    let begin = Instant::now();
    api.put(annotated("a", &[("permanent-redirect", "https://b.example/")]));
    rig.until("the redirect", |snapshot| matches!(route(snapshot).action, Action::Redirect(_))).await;
    assert!(begin.elapsed() < QUIET, "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_an_ingress_opens_waits_for_what_may_restrict_it() {
    let (api, mut rig) = begin(&[("permanent-redirect", "https://b.example/")]).await;
    let begin = Instant::now();
    api.put(annotated("a", &[]));
    rig.until("the backend", |snapshot| matches!(route(snapshot).action, Action::Forward(_))).await;
    assert!(begin.elapsed() >= QUIET && begin.elapsed() < 2 * QUIET, "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_ingress_that_overtakes_the_restriction_in_the_settings_is_not_served_without() {
    let (api, mut rig) = begin(&[("allowlist-source-range", "192.0.2.0/24")]).await;
    // It is written after the settings and arrives before them.
    api.put(annotated("a", &[]));
    assert_eq!(restricted_late(&api, &mut rig).await, 1, "both at once");
}

#[tokio::test(start_paused = true)]
async fn endpoints_do_not_pull_along_what_waits() {
    let (api, mut rig) = begin(&[("allowlist-source-range", "192.0.2.0/24")]).await;
    let before = route(&rig.snapshot()).filters;
    api.put(annotated("a", &[]));
    sleep(Duration::from_millis(1)).await;
    api.put(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"namespace": "shop", "name": "web-1", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4", "ports": [{"port": 8080}], "endpoints": [{"addresses": ["10.1.0.1"]}],
    }));
    assert!(restricted_late(&api, &mut rig).await >= 1);
    let after = route(&rig.snapshot());
    assert!(is_restricted(&after) && after.filters != before, "by the list of the settings");
}
