//! The Gateway API: served while its CRDs exist, with a status that leaves others' entries alone.

use std::time::Duration;

use fairway_translate::diagnostic::Reason;
use fairway_translate::options::GatewayAddressing;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::apiserver::ApiServer;
use crate::rig::{Rig, cluster, config};

const API: &str = "gateway.networking.k8s.io/v1";
const CONTROLLER: &str = "fairway.dev/gateway";

pub(crate) fn class() -> Value {
    json!({
        "apiVersion": API, "kind": "GatewayClass", "metadata": {"name": "fairway", "generation": 1},
        "spec": {"controllerName": CONTROLLER},
    })
}

pub(crate) fn gateway() -> Value {
    json!({
        "apiVersion": API, "kind": "Gateway",
        "metadata": {"namespace": "shop", "name": "edge", "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"gatewayClassName": "fairway", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]},
    })
}

pub(crate) fn route(generation: u64, hostname: &str) -> Value {
    json!({
        "apiVersion": API, "kind": "HTTPRoute",
        "metadata": {
            "namespace": "shop", "name": "web", "generation": generation, "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {
            "parentRefs": [{"name": "edge"}], "hostnames": [hostname],
            "rules": [{"backendRefs": [{"name": "web", "port": 80}]}],
        },
    })
}

/// An object of the experimental channel, of this kind and name.
fn experimental((kind, name): (&str, &str), generation: u64, spec: Value) -> Value {
    json!({
        "apiVersion": "gateway.networking.x-k8s.io/v1alpha1", "kind": kind,
        "metadata": {
            "namespace": "shop", "name": name, "generation": generation, "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": spec,
    })
}

/// Waits until such an object shows that it is accepted at the Gateway, and that its next form, `refused`, is not. The entry of another
/// controller stays.
async fn is_told(api: &ApiServer, (plural, name): (&str, &str), mut refused: Value) {
    let ancestors = |api: &ApiServer| api.get(plural, "shop", name).unwrap()["status"]["ancestors"].clone();
    api.until("its status", |api| conditions(&ancestors(api)[0]) == ["Accepted=True@1"]).await;
    let first = ancestors(api)[0].clone();
    assert_eq!((&first["controllerName"], &first["ancestorRef"]["name"]), (&json!(CONTROLLER), &json!("edge")));
    let theirs = json!({"controllerName": "theirs", "ancestorRef": {"name": "edge"}, "conditions": [{"type": "Odd"}]});
    refused["status"] = json!({"ancestors": [theirs, first]});
    api.put(refused);
    api.until("the new generation", |api| {
        let ancestors = ancestors(api);
        ancestors[0] == theirs && conditions(&ancestors[1]) == ["Accepted=False@2"]
    })
    .await;
    assert_eq!(api.asked("PATCH", plural).len(), 2);
}

fn conditions(object: &Value) -> Vec<String> {
    let all = object["conditions"].as_array().into_iter().flatten();
    let text = |one: &Value, field: &str| one[field].as_str().unwrap_or_default().to_owned();
    all.map(|one| format!("{}={}@{}", text(one, "type"), text(one, "status"), one["observedGeneration"])).collect()
}

fn writes(api: &ApiServer) -> usize {
    api.asked("PATCH", "/status").len()
}

fn gateway_config() -> fairway_controller::ControllerConfig {
    fairway_controller::ControllerConfig { gateway_api: true, ..config("one") }
}

#[tokio::test(start_paused = true)]
async fn routes_are_served_and_told_so_with_one_write_each() {
    let api = cluster(&[]);
    api.put(class());
    api.put(gateway());
    api.put(route(1, "a.example.com"));
    let mut rig = Rig::start(&api, gateway_config());
    rig.serves(&["a.example.com"]).await;
    let parent = |api: &ApiServer| api.get("httproutes", "shop", "web").unwrap()["status"]["parents"][0].clone();
    api.until("the status of the route", |api| parent(api)["controllerName"] == CONTROLLER).await;
    assert_eq!(conditions(&parent(&api)), ["Accepted=True@1", "ResolvedRefs=True@1"]);
    let status = |api: &ApiServer| api.get("gateways", "shop", "edge").unwrap()["status"].clone();
    api.until("the status of the Gateway", |api| status(api)["listeners"][0]["attachedRoutes"] == 1).await;
    assert_eq!(status(&api)["addresses"], json!([{"type": "IPAddress", "value": "192.0.2.1"}]));
    assert_eq!(conditions(&status(&api)), ["Accepted=True@1", "Programmed=True@1", "ResolvedRefs=True@1"]);
    api.until("the status of the class", |api| {
        conditions(&api.get("gatewayclasses", "", "fairway").unwrap()["status"]) == ["Accepted=True@1"]
    })
    .await;
    assert_eq!(writes(&api), 3, "one for each object");
    // Checks and new lists cause no writes.
    for _ in 0..4 {
        sleep(Duration::from_secs(900)).await;
        api.compact();
        api.disconnect();
    }
    assert_eq!(writes(&api), 3);

    // Another controller's entry stays, and ours catches up with the new generation.
    let theirs = json!({"controllerName": "theirs", "parentRef": {"name": "edge"}, "conditions": [{"type": "Odd"}]});
    let mut changed = route(2, "b.example.com");
    changed["status"] = json!({"parents": [theirs, parent(&api)]});
    api.put(changed);
    rig.serves(&["b.example.com"]).await;
    api.until("the new generation", |api| {
        let parents = api.get("httproutes", "shop", "web").unwrap()["status"]["parents"].clone();
        parents[0] == theirs && conditions(&parents[1]) == ["Accepted=True@2", "ResolvedRefs=True@2"]
    })
    .await;
    assert_eq!(writes(&api), 4);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn controllers_with_names_of_their_own_share_a_route_but_no_gateway() {
    let api = cluster(&[]);
    let other = "example.com/internal";
    api.put(class());
    api.put(gateway());
    let mut second_class = class();
    second_class["metadata"]["name"] = json!("internal");
    second_class["spec"]["controllerName"] = json!(other);
    api.put(second_class);
    let mut second_gateway = gateway();
    second_gateway["metadata"]["name"] = json!("inside");
    second_gateway["spec"]["gatewayClassName"] = json!("internal");
    api.put(second_gateway);
    let mut route = route(1, "a.example.com");
    route["spec"]["parentRefs"] = json!([{"name": "edge"}, {"name": "inside"}]);
    api.put(route);

    let mut config = gateway_config();
    config.options.gateway_controller = other.to_owned();
    config.election.id = "internal".to_owned();
    let [mut first, mut second] = [Rig::start(&api, gateway_config()), Rig::start(&api, config)];
    for rig in [&mut first, &mut second] {
        rig.serves(&["a.example.com"]).await;
    }
    let parents = |api: &ApiServer| {
        let parents = api.get("httproutes", "shop", "web").unwrap()["status"]["parents"].clone();
        let text = |one: &Value| format!("{} {}", one["controllerName"], one["parentRef"]["name"]);
        let mut parents: Vec<_> = parents.as_array().into_iter().flatten().map(text).collect();
        parents.sort_unstable();
        parents
    };
    let expected = [r#""example.com/internal" "inside""#, r#""fairway.dev/gateway" "edge""#];
    api.until("the entries of both", |api| parents(api) == expected).await;
    // The two Gateways, the two classes, and the route once by each, perhaps again after a conflict of the two.
    let attached = |api: &ApiServer, name| api.get("gateways", "shop", name).unwrap()["status"]["listeners"][0].clone();
    api.until("the status of both Gateways", |api| {
        ["edge", "inside"].iter().all(|name| attached(api, name)["attachedRoutes"] == 1)
    })
    .await;
    sleep(Duration::from_secs(900)).await;
    assert_eq!(parents(&api), expected);
    assert_eq!(api.asked("PATCH", "gateways/").len(), 2, "each is written by its own controller");
    first.stop().await;
    second.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_may_not_be_read_keeps_a_new_pod_unready_until_it_may_be() {
    const POLICIES: &str = "v1/backendtlspolicies";
    let api = cluster(&["a"]);
    api.put(class());
    api.put(gateway());
    api.put(route(1, "b.example.com"));
    api.fail("GET", POLICIES, 403, usize::MAX);
    let mut rig = Rig::start(&api, gateway_config());
    let tries = |api: &ApiServer| api.asked("GET", POLICIES).len();
    api.until("many tries", |api| tries(api) >= 30).await;
    assert!(!rig.is_ready() && rig.history.try_recv().is_err(), "nothing is served without the policies");
    let found: Vec<_> = rig.findings.list().iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("BackendTLSPolicy *: no right to list and watch backendtlspolicies"), "{found:?}");
    api.heal();
    rig.serves(&["a.example.com", "b.example.com"]).await;
    assert!(rig.findings.list().iter().all(|found| found.reason != Reason::MissingRight));

    // The right is lost later: existing state stays, and new objects wait for nothing else.
    api.fail("GET", POLICIES, 403, usize::MAX);
    let before = tries(&api);
    api.disconnect();
    api.put(route(2, "c.example.com"));
    rig.serves(&["a.example.com", "c.example.com"]).await;
    api.until("many tries", |api| tries(api) >= before + 30).await;
    assert!(rig.findings.list().iter().any(|found| found.reason == Reason::MissingRight));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_kind_whose_crd_is_not_there_is_not_waited_for_even_if_it_may_not_be_read() {
    const POLICIES: &str = "v1/backendtlspolicies";
    let api = cluster(&["a"]);
    api.put(class());
    api.put(gateway());
    api.put(route(1, "b.example.com"));
    api.define("backendtlspolicies", false);
    api.fail("GET", POLICIES, 403, usize::MAX);
    let mut rig = Rig::start(&api, gateway_config());
    rig.serves(&["a.example.com", "b.example.com"]).await;
    assert!(rig.findings.list().iter().all(|found| found.reason != Reason::MissingRight));
    // The CRD is installed, but the right is still missing.
    api.define("backendtlspolicies", true);
    let before = api.asked("GET", POLICIES).len();
    api.until("many tries", |api| api.asked("GET", POLICIES).len() >= before + 20).await;
    assert!(rig.findings.list().iter().any(|found| found.reason == Reason::MissingRight));
    api.heal();
    let before = api.asked("GET", POLICIES).len();
    api.until("a list and a watch", |api| api.asked("GET", POLICIES).len() >= before + 2).await;
    assert!(rig.findings.list().iter().all(|found| found.reason != Reason::MissingRight));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn without_the_crds_ingresses_are_served_and_gateways_once_they_are_there() {
    let api = cluster(&["a"]);
    api.put(class());
    api.put(gateway());
    api.put(route(1, "late.example.com"));
    api.fail("GET", API, 404, usize::MAX);
    let mut rig = Rig::start(&api, gateway_config());
    rig.serves(&["a.example.com"]).await;
    sleep(Duration::from_secs(600)).await;
    assert_eq!(api.asked("PATCH", "gateway").len(), 0);
    api.heal();
    rig.serves(&["a.example.com", "late.example.com"]).await;
    // Without the CRDs, their objects are gone.
    api.fail("GET", API, 404, usize::MAX);
    api.disconnect();
    rig.serves(&["a.example.com"]).await;
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_policy_of_the_experimental_channel_is_told_about_at_its_gateway_and_goes_with_its_crd() {
    const POLICIES: &str = "xbackendtrafficpolicies";
    let policy = |generation: u64, percent: u32| {
        let targets = json!([{"group": "", "kind": "Service", "name": "web"}]);
        let spec = json!({"targetRefs": targets, "retryConstraint": {"budget": {"percent": percent}}});
        experimental(("XBackendTrafficPolicy", "retries"), generation, spec)
    };
    let api = cluster(&[]);
    api.put(class());
    api.put(gateway());
    api.put(route(1, "a.example.com"));
    api.put(policy(1, 20));
    let mut rig = Rig::start(&api, gateway_config());
    rig.serves(&["a.example.com"]).await;
    // An API server of another version may have accepted this one.
    is_told(&api, (POLICIES, "retries"), policy(2, 130)).await;
    // Without the CRD, which only that channel has, everything else continues.
    api.fail("GET", "gateway.networking.x-k8s.io", 404, usize::MAX);
    api.disconnect();
    api.put(route(2, "b.example.com"));
    rig.serves(&["b.example.com"]).await;
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn an_xbackend_is_told_at_its_gateway_what_became_of_it_and_its_pods_get_a_service() {
    const XBACKENDS: &str = "xbackends";
    let xbackend = |generation: u64, spec: Value| experimental(("XBackend", "pay"), generation, spec);
    let host = |name: &str| json!({"type": "ExternalHostname", "externalHostname": {"hostname": name}, "port": {"number": 80}});
    let mut to = route(1, "a.example.com");
    to["spec"]["rules"] =
        json!([{"backendRefs": [{"group": "gateway.networking.x-k8s.io", "kind": "XBackend", "name": "pay"}]}]);
    let api = cluster(&[]);
    api.put(class());
    api.put(gateway());
    api.put(to);
    // Without the CRD the kind is unknown.
    api.fail("GET", "gateway.networking.x-k8s.io", 404, usize::MAX);
    let mut config = gateway_config();
    config.options.gateway_address = GatewayAddressing::Asked;
    let mut rig = Rig::start(&api, config);
    rig.serves(&["a.example.com"]).await;
    let resolved = |api: &ApiServer| {
        let parents = api.get("httproutes", "shop", "web").unwrap()["status"]["parents"].clone();
        parents[0]["conditions"][1]["reason"].clone()
    };
    api.until("an unknown kind", |api| resolved(api) == "InvalidKind").await;
    api.heal();
    api.until("a kind that is known", |api| resolved(api) == "BackendNotFound").await;
    api.put(xbackend(1, host("api.example")));
    api.until("a backend", |api| resolved(api) == "ResolvedRefs").await;
    is_told(&api, (XBACKENDS, "pay"), xbackend(2, host("localhost"))).await;

    // Pods are found through a Service, which is created once.
    let mut pods = xbackend(
        3,
        json!({
            "type": "EndpointSelector", "endpointSelector": {"matchLabels": {"app": "pay"}}, "port": {"number": 8080},
        }),
    );
    pods["status"] = api.get(XBACKENDS, "shop", "pay").unwrap()["status"].clone();
    api.put(pods);
    api.until("a Service", |api| !api.asked("POST", "fieldManager=fairway").is_empty()).await;
    sleep(Duration::from_secs(900)).await;
    let made = api.asked("POST", "fieldManager=fairway");
    let [made] = &made[..] else { panic!("{} Services", made.len()) };
    assert_eq!(made.body["spec"]["selector"], json!({"app": "pay"}));
    assert_eq!(
        made.body["metadata"]["ownerReferences"][0]["uid"],
        api.get(XBACKENDS, "shop", "pay").unwrap()["metadata"]["uid"]
    );
    assert_eq!(api.asked("PATCH", "fieldManager=fairway").len(), 0);
    assert_eq!(api.asked("PATCH", XBACKENDS).len(), 3);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn without_the_flag_nothing_of_it_is_read() {
    let api = cluster(&["a"]);
    let mut rig = Rig::start(&api, config("one"));
    rig.serves(&["a.example.com"]).await;
    assert_eq!(api.asked("GET", "gateway").len(), 0);
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_gateway_with_an_address_of_its_own_gets_a_service_with_one_write_for_each_object() {
    let api = cluster(&[]);
    api.put(class());
    let mut own = gateway();
    own["spec"]["infrastructure"] = json!({"labels": {"team": "shop"}});
    api.put(own);
    api.put(route(1, "a.example.com"));
    let endpoints = |address: &str| {
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"namespace": "edge", "name": "lb-1", "labels": {"kubernetes.io/service-name": "lb"}},
            "endpoints": [{"addresses": [address], "conditions": {"ready": true}}], "ports": [{"name": "http", "port": 80}],
        })
    };
    api.put(endpoints("10.0.0.1"));
    let mut config = gateway_config();
    config.options.publish_service = Some(("edge".into(), "lb".into()));
    config.options.gateway_address = GatewayAddressing::Asked;
    let mut rig = Rig::start(&api, config);
    rig.serves(&["a.example.com"]).await;
    let service = |api: &ApiServer| api.get("services", "shop", "edge-fairway");
    let slice = |api: &ApiServer| api.get("endpointslices", "shop", "edge-fairway-ipv4");
    let status = |api: &ApiServer| api.get("gateways", "shop", "edge").unwrap()["status"].clone();
    let programmed = |api: &ApiServer, expected: &str| conditions(&status(api)).contains(&expected.to_owned());
    api.until("the Service", |api| service(api).is_some()).await;
    api.until("the slice", |api| slice(api).is_some()).await;
    let made = service(&api).unwrap();
    assert_eq!(made["metadata"]["labels"]["gateway.networking.k8s.io/gateway-name"], "edge");
    assert_eq!(made["metadata"]["labels"]["team"], "shop");
    assert_eq!(made["metadata"]["ownerReferences"][0]["name"], "edge");
    assert_eq!(made["spec"]["ports"][0]["targetPort"], 20000);
    assert_eq!(slice(&api).unwrap()["endpoints"][0]["addresses"], json!(["10.0.0.1"]));
    assert_eq!(slice(&api).unwrap()["ports"][0]["port"], 20000);
    api.until("a status without an address", |api| programmed(api, "Programmed=False@1")).await;

    // A load balancer assigns an address, and adds annotations of its own.
    let mut given = made.clone();
    given["status"] = json!({"loadBalancer": {"ingress": [{"ip": "198.51.100.9"}]}});
    given["metadata"]["annotations"]["example.com/id"] = json!("lb-7");
    api.put(given.clone());
    api.until("the address", |api| status(api)["addresses"] == json!([{"type": "IPAddress", "value": "198.51.100.9"}]))
        .await;
    api.until("programmed", |api| programmed(api, "Programmed=True@1")).await;
    let asked = |api: &ApiServer, method| api.asked(method, "fieldManager=fairway");
    let applied = |api: &ApiServer| asked(api, "POST").len() + asked(api, "PATCH").len();
    sleep(Duration::from_secs(900)).await;
    assert_eq!(applied(&api), 2, "one for each object");

    // A rollout of the proxy changes only the slice.
    api.put(endpoints("10.0.0.2"));
    api.until("the new endpoint", |api| slice(api).unwrap()["endpoints"][0]["addresses"] == json!(["10.0.0.2"])).await;
    sleep(Duration::from_secs(900)).await;
    assert_eq!(applied(&api), 3);

    // Changes by others are repaired, and an object that is no longer wanted is deleted.
    given["spec"]["ports"][0]["targetPort"] = json!(80);
    api.put(given);
    api.until("a repaired Service", |api| service(api).unwrap()["spec"]["ports"][0]["targetPort"] == 20000).await;
    // An existing object is changed only in the version that was examined.
    for patch in asked(&api, "PATCH") {
        let metadata = &patch.body["metadata"];
        assert!(metadata["uid"].is_string() && metadata["resourceVersion"].is_string(), "{metadata}");
    }
    let mut shared = gateway();
    shared["metadata"]["generation"] = json!(2);
    api.put(shared);
    api.until("no objects of its own", |api| service(api).is_none() && slice(api).is_none()).await;
    api.until("the shared address", |api| {
        status(api)["addresses"] == json!([{"type": "IPAddress", "value": "192.0.2.1"}])
    })
    .await;
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_gateway_counts_thousands_of_routes_with_one_write_for_each_change() {
    const ROUTES: usize = 5000;
    let api = cluster(&[]);
    api.put(class());
    api.put(gateway());
    let named = |at: usize, generation: u64, host: &str| {
        let mut route = route(generation, &format!("{host}-{at}.example.com"));
        route["metadata"]["name"] = json!(format!("web-{at:04}"));
        route
    };
    (0..ROUTES).for_each(|at| api.put(named(at, 1, "a")));
    let rig = Rig::start(&api, gateway_config());
    let counted = |api: &ApiServer| {
        api.get("gateways", "shop", "edge").unwrap()["status"]["listeners"][0]["attachedRoutes"].clone()
    };
    api.until("the count", |api| counted(api) == json!(ROUTES)).await;
    let written = |part: &str| api.asked("PATCH", part).len();
    let first = api.asked("PATCH", "/status").iter().position(|asked| asked.target.contains("/gateways/"));
    assert!(first.is_some_and(|at| at < 8), "the Gateway does not wait for the status of its routes: {first:?}");
    let last = format!("web-{:04}", ROUTES - 1);
    api.until("the last route", |api| !api.get("httproutes", "shop", &last).unwrap()["status"].is_null()).await;
    sleep(Duration::from_secs(900)).await;
    assert_eq!((written("/gateways/"), written("/httproutes/")), (1, ROUTES));

    api.delete("httproutes", "shop", "web-0000");
    api.until("one route less", |api| counted(api) == json!(ROUTES - 1)).await;
    // A change that doesn't change the number costs the Gateway nothing.
    api.put(named(1, 2, "b"));
    let parents = |api: &ApiServer| api.get("httproutes", "shop", "web-0001").unwrap()["status"]["parents"].clone();
    api.until("the new generation", |api| parents(api)[0]["conditions"][0]["observedGeneration"] == 2).await;
    sleep(Duration::from_secs(900)).await;
    assert_eq!((written("/gateways/"), written("/httproutes/")), (2, ROUTES + 1));
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_traces_is_told_about_at_its_gateway_and_goes_with_its_crd() {
    const POLICIES: &str = "xtelemetrypolicies";
    let api = cluster(&[]);
    api.put(class());
    api.put(gateway());
    api.put(route(1, "a.example.com"));
    api.put(json!({
        "apiVersion": "gateway.networking.x-k8s.io/v1alpha1", "kind": "XTelemetryPolicy",
        "metadata": {"namespace": "shop", "name": "traces", "generation": 3, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {
            "targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge"}],
            "tracing": {"mode": "Enabled", "provider": {"backendRef": {"name": "missing", "port": 4317}}},
        },
    }));
    let mut rig = Rig::start(&api, gateway_config());
    rig.serves(&["a.example.com"]).await;
    let ancestors = |api: &ApiServer| api.get(POLICIES, "shop", "traces").unwrap()["status"]["ancestors"].clone();
    let expected = ["Accepted=True@3", "ResolvedRefs=False@3"];
    api.until("its status", |api| conditions(&ancestors(api)[0]) == expected).await;
    assert_eq!(ancestors(&api)[0]["ancestorRef"]["name"], "edge");
    api.fail("GET", "gateway.networking.x-k8s.io", 404, usize::MAX);
    api.disconnect();
    api.put(route(2, "b.example.com"));
    rig.serves(&["b.example.com"]).await;
    rig.stop().await;
}
