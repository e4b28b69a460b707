//! From the API server to the proxy.

use std::time::Duration;

use fairway_model::Snapshot;
use fairway_testkit::Ca;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::apiserver::ApiServer;
use crate::rig::{Rig, cluster, config, hosts_of, ingress};

#[tokio::test(start_paused = true)]
async fn ready_once_the_first_complete_state_is_live() {
    let api = cluster(&["a", "b"]);
    api.fail("GET", "/services", 500, 3);
    let mut rig = Rig::start(&api, config("one"));
    api.until("a failed list", |api| api.asked("GET", "/services").len() == 3).await;
    assert!(!rig.is_ready());
    rig.ready().await;
    let first = rig.history.recv().await.unwrap();
    assert_eq!(hosts_of(&first).len(), 2, "nothing was published before everything was known");
}

#[tokio::test(start_paused = true)]
async fn an_empty_cluster_is_ready() {
    Rig::start(&ApiServer::start(), config("one")).ready().await;
}

#[tokio::test(start_paused = true)]
async fn changes_are_published() {
    let api = cluster(&["a"]);
    let mut rig = Rig::start(&api, config("one"));
    rig.serves(&["a.example.com"]).await;
    api.put(ingress("b"));
    rig.serves(&["a.example.com", "b.example.com"]).await;
    let mut changed = ingress("b");
    changed["spec"]["rules"][0]["host"] = json!("c.example.com");
    api.put(changed);
    rig.serves(&["a.example.com", "c.example.com"]).await;
    api.delete("ingresses", "shop", "a");
    rig.serves(&["c.example.com"]).await;
}

#[tokio::test(start_paused = true)]
async fn lists_of_many_pages_are_complete() {
    let names: Vec<String> = (0..1201).map(|number| format!("h{number}")).collect();
    let api = cluster(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let mut rig = Rig::start(&api, config("one"));
    rig.ready().await;
    assert_eq!(hosts_of(&rig.snapshot()).len(), 1201);
    let pages = api.asked("GET", "/ingresses?");
    assert_eq!(pages.iter().filter(|page| !page.target.contains("watch=")).count(), 3);
}

#[tokio::test(start_paused = true)]
async fn objects_that_vanished_between_watches_are_removed() {
    let api = cluster(&["a", "b"]);
    let mut rig = Rig::start(&api, config("one"));
    rig.serves(&["a.example.com", "b.example.com"]).await;
    api.set_away(true);
    api.delete("ingresses", "shop", "a");
    api.put(ingress("c"));
    api.compact();
    api.set_away(false);
    rig.serves(&["b.example.com", "c.example.com"]).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_left_of_many_ingresses_is_published_once_more_as_it_is() {
    let names: Vec<String> = (0..1_200).map(|number| format!("i{number}")).collect();
    let api = cluster(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let mut rig = Rig::start(&api, config("one"));
    rig.ready().await;
    let (left, gone) = names.split_at(10);
    gone.iter().for_each(|name| api.delete("ingresses", "shop", name));
    let hosts: Vec<_> = left.iter().map(|name| format!("{name}.example.com")).collect();
    rig.serves(&hosts.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let before = rig.snapshot();
    let place = |snapshot: &Snapshot| {
        snapshot
            .hosts()
            .iter()
            .find(|host| host.pattern().to_string() == hosts[0])
            .map(|host| std::ptr::from_ref(&**host))
    };
    rig.until("a copy in another place", |now| place(now) != place(&before)).await;
    let after = rig.snapshot();
    assert_eq!(after, before);
    sleep(Duration::from_secs(900)).await;
    assert_eq!(place(&rig.snapshot()), place(&after), "once");
    rig.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_watch_resumes_where_it_broke_off() {
    let api = cluster(&["a"]);
    let mut rig = Rig::start(&api, config("one"));
    rig.ready().await;
    let lists = |api: &ApiServer| {
        api.asked("GET", "/ingresses?").iter().filter(|asked| !asked.target.contains("watch=")).count()
    };
    assert_eq!(lists(&api), 1);
    api.set_away(true);
    let tries = |api: &ApiServer| api.asked("GET", "/ingresses?").len();
    let before = tries(&api);
    api.until("tries while the API server is away", |api| tries(api) > before + 3).await;
    assert_eq!(hosts_of(&rig.snapshot()).len(), 1, "traffic continues");
    api.put(ingress("b"));
    api.set_away(false);
    rig.serves(&["a.example.com", "b.example.com"]).await;
    assert_eq!(lists(&api), 1, "no new list was needed");
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_refused_as_too_old_lists_again() {
    let api = cluster(&["a"]);
    let mut rig = Rig::start(&api, config("one"));
    rig.ready().await;
    // This time the error is a status code, not an event.
    api.fail("GET", "/ingresses?", 410, 1);
    api.disconnect();
    api.delete("ingresses", "shop", "a");
    rig.serves(&[]).await;
}

#[tokio::test(start_paused = true)]
async fn changes_are_live_soon_after_an_api_server_is_back() {
    let api = cluster(&["a"]);
    let mut rig = Rig::start(&api, config("one"));
    rig.serves(&["a.example.com"]).await;
    api.set_away(true);
    sleep(Duration::from_secs(600)).await;
    // It returns as after a restart: without the earlier versions.
    api.compact();
    api.set_away(false);
    api.put(ingress("b"));
    let begin = Instant::now();
    rig.serves(&["a.example.com", "b.example.com"]).await;
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn garbage_among_good_objects_harms_only_itself() {
    let api = cluster(&["a", "b", "c"]);
    let mut garbage = ingress("b");
    garbage["spec"]["rules"] = json!("all of them");
    api.put(garbage.clone());
    let mut rig = Rig::start(&api, config("one"));
    rig.serves(&["a.example.com", "c.example.com"]).await;
    api.put(ingress("b"));
    rig.serves(&["a.example.com", "b.example.com", "c.example.com"]).await;
    // The previous version stays in effect, and other objects are unaffected.
    api.put(garbage);
    api.put(ingress("d"));
    rig.serves(&["a.example.com", "b.example.com", "c.example.com", "d.example.com"]).await;
}

#[tokio::test(start_paused = true)]
async fn status_and_managed_fields_cause_no_work() {
    let api = cluster(&["a"]);
    let mut rig = Rig::start(&api, config("one"));
    rig.ready().await;
    rig.history.recv().await.unwrap();
    for number in 0..50 {
        let mut touched = ingress("a");
        touched["metadata"]["managedFields"] = json!([{"manager": number.to_string()}]);
        touched["status"] = json!({"loadBalancer": {"ingress": [{"hostname": number.to_string()}]}});
        api.put(touched);
    }
    api.put(ingress("b"));
    let next = rig.history.recv().await.unwrap();
    assert_eq!(hosts_of(&next).len(), 2);
    assert!(rig.history.try_recv().is_err());
}

pub(crate) fn tls_secret(name: &str, host: &str) -> Value {
    let leaf = Ca::new("test").leaf(&[host]);
    json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"namespace": "shop", "name": name},
        "type": "kubernetes.io/tls",
        "data": {"tls.crt": base64(leaf.certificate_pem().as_bytes()), "tls.key": base64(leaf.key_pem().as_bytes())},
    })
}

fn base64(bytes: &[u8]) -> Value {
    serde_json::to_value(k8s_openapi::ByteString(bytes.to_vec())).unwrap()
}

pub(crate) fn with_tls(name: &str, secret: &str) -> Value {
    let mut ingress = ingress(name);
    ingress["spec"]["tls"] = json!([{"hosts": [format!("{name}.example.com")], "secretName": secret}]);
    ingress
}

#[tokio::test(start_paused = true)]
async fn only_secrets_that_are_referred_to_are_read() {
    let api = cluster(&[]);
    api.put(tls_secret("used", "a.example.com"));
    api.put(tls_secret("unused", "b.example.com"));
    api.put(with_tls("a", "used"));
    let mut rig = Rig::start(&api, config("one"));
    rig.ready().await;
    assert_eq!(rig.snapshot().certificates().len(), 1, "the first state has the certificate");

    api.put(with_tls("c", "later"));
    rig.serves(&["a.example.com", "c.example.com"]).await;
    api.put(tls_secret("later", "c.example.com"));
    api.until("the new Secret", |api| !api.asked("GET", "metadata.name%3Dlater").is_empty()).await;

    for asked in api.asked("GET", "/secrets") {
        assert!(asked.metadata || asked.target.contains("fieldSelector=metadata.name"), "{}", asked.target);
    }
    assert!(api.asked("GET", "metadata.name%3Dunused").is_empty());
    assert_eq!(api.asked("GET", "metadata.name%3Dused").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_host_never_appears_without_its_certificate() {
    let api = cluster(&[]);
    api.put(tls_secret("used", "a.example.com"));
    let mut rig = Rig::start(&api, config("one"));
    rig.ready().await;
    api.put(with_tls("a", "used"));
    rig.serves(&["a.example.com"]).await;
    assert_eq!(rig.snapshot().certificates().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_unreadable_secret_delays_no_other_change() {
    let api = cluster(&["b"]);
    api.put(tls_secret("used", "a.example.com"));
    api.put(with_tls("a", "used"));
    api.fail("GET", "metadata.name%3Dused", 500, usize::MAX);
    let mut rig = Rig::start(&api, config("one"));
    rig.serves(&["a.example.com", "b.example.com"]).await;
    api.put(ingress("c"));
    rig.serves(&["a.example.com", "b.example.com", "c.example.com"]).await;
    assert_eq!(rig.snapshot().certificates().len(), 0);
    api.heal();
    api.until("another try", |_| rig.snapshot().certificates().len() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_change_without_secrets_does_not_wait_for_those_of_others() {
    let api = cluster(&["b"]);
    api.put(tls_secret("used", "a.example.com"));
    let mut rig = Rig::start(&api, config("one"));
    rig.serves(&["b.example.com"]).await;
    api.fail("GET", "metadata.name%3Dused", 500, usize::MAX);
    api.put(with_tls("a", "used"));
    api.until("the attempt to read the Secret", |api| !api.asked("GET", "metadata.name%3Dused").is_empty()).await;
    api.put(ingress("c"));
    rig.serves(&["b.example.com", "c.example.com"]).await;
    rig.serves(&["a.example.com", "b.example.com", "c.example.com"]).await;
}

#[tokio::test(start_paused = true)]
async fn without_the_right_to_read_classes_only_the_annotation_counts() {
    let api = cluster(&["a"]);
    let mut old = ingress("b");
    old["spec"].as_object_mut().unwrap().remove("ingressClassName");
    old["metadata"]["annotations"] = json!({"kubernetes.io/ingress.class": "nginx"});
    api.put(old);
    api.fail("GET", "/ingressclasses", 403, usize::MAX);
    let mut rig = Rig::start(&api, config("one"));
    rig.serves(&["b.example.com"]).await;
    // The right is retried now and then.
    api.heal();
    rig.serves(&["a.example.com", "b.example.com"]).await;
}

#[tokio::test(start_paused = true)]
async fn an_api_server_is_awaited_until_it_knows_its_roles() {
    let api = cluster(&["a"]);
    for plural in ["/ingresses", "/ingressclasses", "/services", "/configmaps"] {
        api.fail("GET", plural, 403, 3);
    }
    let mut rig = Rig::start(&api, config("one"));
    rig.ready().await;
    let first = rig.history.recv().await.unwrap();
    assert!(hosts_of(&first).contains("a.example.com"), "the class was unknown at first");
}

#[tokio::test(start_paused = true)]
async fn losing_the_right_to_read_classes_later_removes_no_route() {
    let api = cluster(&["a"]);
    let mut rig = Rig::start(&api, config("one"));
    rig.serves(&["a.example.com"]).await;
    api.fail("GET", "/ingressclasses", 403, 12);
    let begin = Instant::now();
    api.disconnect();
    api.until("refusals and a list", |api| api.asked("GET", "/ingressclasses").len() >= 15).await;
    // A starting API server that is slow to learn its roles behaves the same: that must not take a minute.
    assert!(begin.elapsed() < Duration::from_secs(15), "{:?}", begin.elapsed());
    api.put(ingress("b"));
    rig.serves(&["a.example.com", "b.example.com"]).await;
    while let Ok(snapshot) = rig.history.try_recv() {
        assert!(hosts_of(&snapshot).contains("a.example.com"));
    }
}

#[tokio::test(start_paused = true)]
async fn the_global_configuration_is_there_from_the_start() {
    let api = cluster(&["a"]);
    let map = |seconds: &str| {
        json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"namespace": "ingress", "name": "config"},
            "data": {"keep-alive": seconds},
        })
    };
    api.put(map("11"));
    let mut config = config("one");
    config.options.configmap = Some(("ingress".into(), "config".into()));
    let mut rig = Rig::start(&api, config);
    rig.ready().await;
    let first = rig.snapshot();
    assert_eq!(Some(first.settings()), rig.history.recv().await.as_ref().map(|snapshot| snapshot.settings()));
    api.put(map("12"));
    let second = rig.history.recv().await.unwrap();
    assert_ne!(first.settings(), second.settings());
    let mut plain = Rig::start(&api, crate::rig::config("two"));
    plain.ready().await;
    assert_ne!(plain.snapshot().settings(), first.settings());
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_gets_the_label_is_served_at_once() {
    let api = cluster(&["a"]);
    let namespace = |team: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", "labels": {"team": team}}});
    api.put(namespace("b"));
    let mut config = config("one");
    config.options.namespace_selector = Some("team=a".parse().unwrap());
    let mut rig = Rig::start(&api, config);
    rig.ready().await;
    assert!(hosts_of(&rig.snapshot()).is_empty());
    api.put(namespace("a"));
    rig.serves(&["a.example.com"]).await;
    api.put(namespace("b"));
    rig.serves(&[]).await;
}

#[tokio::test(start_paused = true)]
async fn waits_requested_by_the_api_server_are_honoured() {
    let api = cluster(&["a"]);
    api.fail("GET", "/ingresses", 429, 5);
    let mut rig = Rig::start(&api, config("one"));
    rig.serves(&["a.example.com"]).await;
    assert_eq!(api.asked("GET", "/ingresses?").iter().filter(|asked| !asked.target.contains("watch=")).count(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_namespaced_controller_asks_for_its_namespace_only() {
    let api = cluster(&["a"]);
    let mut config = config("one");
    config.options.watch_namespace = Some("shop".into());
    let mut rig = Rig::start(&api, config);
    rig.serves(&["a.example.com"]).await;
    for asked in api.asked("GET", "") {
        let narrow = asked.target.contains("/namespaces/") || asked.target.contains("/ingressclasses");
        assert!(narrow, "{}", asked.target);
    }
}

/// In real time: with a paused clock, which stands still while there is work, the edit would wait for all of it.
#[tokio::test]
async fn an_edit_is_live_before_the_rest_of_a_large_change() {
    const MANY: usize = 6000;
    let api = cluster(&["other"]);
    for number in 0..MANY {
        let mut ingress = ingress(&format!("h{number}"));
        ingress["spec"]["ingressClassName"] = "late".into();
        api.put(ingress);
    }
    let mut rig = Rig::start(&api, config("one"));
    rig.serves(&["other.example.com"]).await;
    // This one object makes all of these Ingresses ours.
    api.put(json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": "late"},
        "spec": {"controller": "k8s.io/ingress-nginx"},
    }));
    rig.until("a part", |snapshot| snapshot.host_count() > 100).await;
    let mut edited = ingress("other");
    edited["spec"]["rules"][0]["host"] = "edited.example.com".into();
    api.put(edited);
    rig.until("all of them", |snapshot| snapshot.host_count() >= MANY).await;
    let mut at_edit = None;
    while let Ok(snapshot) = rig.history.try_recv() {
        if hosts_of(&snapshot).contains("edited.example.com") {
            at_edit.get_or_insert(snapshot.host_count());
        }
    }
    let at_edit = at_edit.expect("the edit was live");
    assert!(at_edit < MANY, "the edit was live when {at_edit} of {MANY} were");
}
