//! One-time reads of a cluster.

use fairway_controller::{events, read};
use fairway_translate::diagnostic::Reason;
use fairway_translate::objects::Kind;
use fairway_translate::options::Options;
use serde_json::json;

use crate::rig::{cluster, ingress};
use crate::sync::{tls_secret, with_tls};

#[tokio::test]
async fn a_read_covers_what_a_controller_reads_and_writes_nothing() {
    let api = cluster(&["a"]);
    api.put(tls_secret("used", "b.example.com"));
    api.put(tls_secret("unused", "c.example.com"));
    api.put(with_tls("b", "used"));
    let mut foreign = ingress("foreign");
    foreign["spec"]["ingressClassName"] = json!("other");
    api.put(foreign);
    let mut malformed = ingress("malformed");
    malformed["spec"]["rules"] = json!("none");
    api.put(malformed);
    let found = read(api.client(Default::default()), &Options::default(), 0).await.unwrap();
    let served: Vec<_> = found.translation.served.iter().map(|key| &*key.name).collect();
    assert_eq!(served, ["a", "b"]);
    assert_eq!(found.unreadable.len(), 1);
    let secrets: Vec<_> = found.objects.of_kind(Kind::Secret).map(|(key, _)| &*key.name).collect();
    assert_eq!(secrets, ["used"]);
    assert!(found.translation.snapshot.certificate(&"shop/used".into()).is_some());
    // Of all others, only the names are requested.
    let contents = api.asked("GET", "/secrets").into_iter().filter(|asked| !asked.metadata);
    assert!(contents.into_iter().all(|asked| asked.target.contains("metadata.name%3Dused")));
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        assert_eq!(api.asked(method, "").len(), 0, "{method}");
    }
}

#[tokio::test]
async fn a_read_reports_missing_rights() {
    let api = cluster(&["a"]);
    api.fail("GET", "/ingressclasses", 403, 1);
    let found = read(api.client(Default::default()), &Options::default(), 0).await.unwrap();
    assert!(found.translation.served.is_empty(), "classes match no controller without the right to read them");
    api.fail("GET", "/services", 403, 1);
    let error = read(api.client(Default::default()), &Options::default(), 0).await.unwrap_err();
    assert_eq!(error.to_string(), "reading services from the cluster");
    // Ingresses can be judged without the Gateway API, but a finding has to report that.
    api.fail("GET", "v1/backendtlspolicies", 403, 2);
    let unreadable = async || read(api.client(Default::default()), &Options::default(), 0).await.unwrap().unreadable;
    assert_eq!(unreadable().await.iter().map(|one| one.reason).collect::<Vec<_>>(), [Reason::MissingRight]);
    api.define("backendtlspolicies", false);
    assert_eq!(unreadable().await, []);
}

#[tokio::test]
async fn events_are_ours_and_in_order() {
    let api = cluster(&[]);
    for (name, component, time) in
        [("x", "fairway", "2026-01-02"), ("y", "kubelet", "2026-01-01"), ("z", "fairway", "2026-01-01")]
    {
        api.put(json!({
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"namespace": "shop", "name": name},
            "involvedObject": {"kind": "Ingress", "namespace": "shop", "name": name},
            "type": "Warning",
            "reason": "Why",
            "message": "text",
            "reportingComponent": component,
            "lastTimestamp": time,
        }));
    }
    let told = events(api.client(Default::default()), Some("shop")).await.unwrap();
    let objects: Vec<_> = told.iter().map(|told| &*told.object).collect();
    assert_eq!(objects, ["Ingress shop/z", "Ingress shop/x"]);
}
