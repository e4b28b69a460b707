//! A translation that is kept up to date equals a full one after any sequence of changes.
//!
//! A full translation can't know the last good version of an object whose newest version is unacceptable. The test keeps these
//! versions itself, by the documented rule, and passes them to the full translation.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use fairway_model::Snapshot;
use fairway_translate::objects::{Change, Kind, Object, ObjectKey, Objects};
use fairway_translate::options::Options;
use fairway_translate::{Translator, translate};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use proptest::prelude::*;
use serde_json::{Value, json};

const NOW: i64 = 1_767_225_600;
const NAMESPACES: [&str; 2] = ["a", "b"];
const HOSTS: [&str; 7] = ["", "a.example", "www.a.example", "b.example", "*.example", "c.x.example", "bad host"];
const PATHS: [&str; 9] =
    ["/", "/foo", "/foo/", "/foo/bar", "/x(/|$)(.*)", "/y(", "/a%zz", "/.well-known/acme-challenge/t", ""];
const ANNOTATIONS: [(&str, &str); 33] = [
    ("canary", "true"),
    ("canary", "true"),
    ("canary-weight", "50"),
    ("use-regex", "true"),
    ("rewrite-target", "/$2"),
    ("ssl-redirect", "false"),
    ("force-ssl-redirect", "true"),
    ("app-root", "/app"),
    ("server-alias", "alias.example, b.example"),
    ("server-alias", "*.alias.example, ~^r[0-9]$, alias.example"),
    ("from-to-www-redirect", "true"),
    ("permanent-redirect", "https://else.example/"),
    // Rejected: the previous version stays.
    ("permanent-redirect", "no such url"),
    ("auth-tls-secret", "a/b"),
    ("auth-url", "http://auth.example"),
    ("auth-url", "http://s0.a.svc.cluster.local"),
    ("auth-url", "https://$host/auth"),
    ("enable-cors", "true"),
    ("allowlist-source-range", "10.0.0.0/8"),
    ("allowlist-source-range", "nonsense"),
    ("proxy-read-timeout", "7"),
    ("upstream-hash-by", "$request_uri"),
    ("affinity", "cookie"),
    ("session-cookie-name", "c"),
    ("service-upstream", "true"),
    ("default-backend", "s0"),
    ("load-balance", "ewma"),
    ("backend-protocol", "HTTPS"),
    ("proxy-ssl-secret", "a/t0"),
    ("proxy-ssl-secret", "b/t1"),
    ("proxy-ssl-secret", "a/t2"),
    ("proxy-ssl-verify", "on"),
    ("unknown-thing", "x"),
];

/// Secrets by number: two good ones for different names, then a broken one.
static SECRETS: LazyLock<Vec<BTreeMap<String, ByteString>>> = LazyLock::new(|| {
    let make = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
        let bytes = |text: String| ByteString(text.into_bytes());
        [
            ("tls.crt".to_owned(), bytes(made.cert.pem())),
            ("tls.key".to_owned(), bytes(made.signing_key.serialize_pem())),
        ]
        .into()
    };
    let mut broken: BTreeMap<String, ByteString> = make(&["a.example"]);
    broken.insert("tls.key".to_owned(), ByteString(b"nonsense".to_vec()));
    vec![make(&["a.example", "www.a.example", "alias.example"]), make(&["*.example"]), broken]
});

fn options() -> Options {
    Options {
        configmap: Some(("a".into(), "global".into())),
        tcp_services: Some(("a".into(), "tcp".into())),
        udp_services: Some(("a".into(), "udp".into())),
        default_ssl_certificate: Some(("a".into(), "t1".into())),
        default_backend_service: Some(("b".into(), "s1".into())),
        ..Options::default()
    }
}

fn object(value: Value) -> Object {
    fn read<T: serde::de::DeserializeOwned + Into<Object>>(value: Value) -> Object {
        serde_json::from_value::<T>(value).expect("a manifest").into()
    }
    match value["kind"].as_str() {
        Some("Ingress") => read::<Ingress>(value),
        Some("IngressClass") => read::<IngressClass>(value),
        Some("Service") => read::<Service>(value),
        Some("EndpointSlice") => read::<EndpointSlice>(value),
        Some("Namespace") => read::<Namespace>(value),
        _ => read::<ConfigMap>(value),
    }
}

fn ingress() -> impl Strategy<Value = Object> {
    let path = (0..PATHS.len(), 0..3usize, 0..3usize, any::<bool>()).prop_map(|(path, kind, service, named)| {
        let kind = ["Exact", "Prefix", "ImplementationSpecific"][kind];
        let port = if named { json!({ "name": "http" }) } else { json!({ "number": 80 }) };
        json!({
            "path": PATHS[path],
            "pathType": kind,
            "backend": { "service": { "name": format!("s{service}"), "port": port } },
        })
    });
    let rule = (0..HOSTS.len(), prop::collection::vec(path, 0..4))
        .prop_map(|(host, paths)| json!({ "host": HOSTS[host], "http": { "paths": paths } }));
    let tls = (prop::option::of(0..3usize), prop::collection::vec(1..HOSTS.len(), 0..3)).prop_map(|(secret, hosts)| {
        let hosts: Vec<_> = hosts.into_iter().map(|host| HOSTS[host]).collect();
        json!({ "secretName": secret.map(|secret| format!("t{secret}")), "hosts": hosts })
    });
    (
        (0..2usize, 0..4u32, 0..3usize, prop::option::of(0..4u32), prop::bool::weighted(0.15)),
        prop::collection::vec(rule, 0..3),
        prop::collection::vec(tls, 0..2),
        prop::collection::vec(0..ANNOTATIONS.len(), 0..3),
        prop::option::of(0..3usize),
    )
        .prop_map(|((namespace, name, class, created, leaving), rules, tls, annotations, default)| {
            let class = ["nginx", "nginx", "other"][class];
            let annotations: BTreeMap<String, &str> = annotations
                .into_iter()
                .map(|at| (format!("nginx.ingress.kubernetes.io/{}", ANNOTATIONS[at].0), ANNOTATIONS[at].1))
                .collect();
            object(json!({
                "kind": "Ingress", "apiVersion": "networking.k8s.io/v1",
                "metadata": {
                    "namespace": NAMESPACES[namespace], "name": format!("i{name}"), "annotations": annotations,
                    "creationTimestamp": created.map(|second| format!("2026-01-01T00:00:0{second}Z")),
                    "deletionTimestamp": leaving.then_some("2026-01-02T00:00:00Z"),
                },
                "spec": {
                    "ingressClassName": class,
                    "rules": rules, "tls": tls,
                    "defaultBackend": default.map(|service| json!({
                        "service": { "name": format!("s{service}"), "port": { "number": 80 } }
                    })),
                },
            }))
        })
}

fn other_object() -> impl Strategy<Value = Object> {
    let class = any::<bool>().prop_map(|ours| {
        object(json!({
            "kind": "IngressClass", "apiVersion": "networking.k8s.io/v1", "metadata": { "name": "nginx" },
            "spec": { "controller": if ours { "k8s.io/ingress-nginx" } else { "example.com/other" } },
        }))
    });
    let service = (0..2usize, 0..3u32, 0..4usize).prop_map(|(namespace, name, kind)| {
        let spec = [
            json!({ "clusterIP": "10.1.1.1", "ports": [{ "name": "http", "port": 80, "targetPort": 8080 }] }),
            json!({ "clusterIP": "None", "ports": [{ "name": "http", "port": 80 }, { "name": "udp", "port": 53, "protocol": "UDP" }] }),
            json!({ "type": "ExternalName", "externalName": "outside.example", "ports": [] }),
            json!({ "ports": [{ "port": 81 }] }),
        ];
        object(json!({
            "kind": "Service", "apiVersion": "v1",
            "metadata": { "namespace": NAMESPACES[namespace], "name": format!("s{name}") }, "spec": spec[kind],
        }))
    });
    let slice = (0..2usize, 0..3u32, 0..3u32, prop::collection::vec((1..5u8, 0..3usize), 0..3)).prop_map(
        |(namespace, name, service, endpoints)| {
            let endpoints: Vec<_> = endpoints
                .into_iter()
                .map(|(last, state)| {
                    let conditions = [
                        json!({}),
                        json!({ "ready": false }),
                        json!({ "ready": false, "serving": true, "terminating": true }),
                    ];
                    json!({ "addresses": [format!("10.0.0.{last}")], "conditions": conditions[state] })
                })
                .collect();
            object(json!({
                "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "addressType": "IPv4",
                "metadata": {
                    "namespace": NAMESPACES[namespace], "name": format!("e{name}"),
                    "labels": { "kubernetes.io/service-name": format!("s{service}") },
                },
                "endpoints": endpoints, "ports": [{ "name": "http", "port": 8080 }],
            }))
        },
    );
    let secret = (0..2usize, 0..3u32, 0..3usize).prop_map(|(namespace, name, kind)| {
        let mut secret = Secret { data: Some(SECRETS[kind].clone()), ..Secret::default() };
        secret.metadata.namespace = Some(NAMESPACES[namespace].into());
        secret.metadata.name = Some(format!("t{name}"));
        Object::from(secret)
    });
    let data = [
        json!({}),
        json!({ "ssl-redirect": "false", "proxy-read-timeout": "9" }),
        json!({ "annotations-risk-level": "Low" }),
        json!({ "annotation-value-word-blocklist": "alias" }),
        json!({ "add-headers": "a/headers", "http-redirect-code": "301" }),
        json!({ "whitelist-source-range": "nonsense", "no-tls-redirect-locations": "/foo" }),
        json!({ "proxy-set-headers": "b/headers", "service-upstream": "true", "bind-address": "127.0.0.1" }),
    ];
    let global = (0..data.len()).prop_map(move |at| {
        object(json!({ "kind": "ConfigMap", "apiVersion": "v1", "metadata": { "namespace": "a", "name": "global" }, "data": data[at] }))
    });
    let headers = (0..2usize, 0..3u32).prop_map(|(namespace, value)| {
        object(json!({
            "kind": "ConfigMap", "apiVersion": "v1", "metadata": { "namespace": NAMESPACES[namespace], "name": "headers" },
            "data": { "X-Value": value.to_string(), "Host": "x" },
        }))
    });
    let ports = [
        json!({}),
        json!({ "9000": "a/s0:80", "53": "a/s1:udp" }),
        json!({ "9000": "a/s0:80:PROXY", "9001": "b/s1:http::PROXY", "80": "a/s0:80" }),
        json!({ "9001": "a/s0:80", "53": "b/s1:53", "x": "y" }),
        json!({ "9002": "a/s2:80", "9003": "a/s2:80" }),
    ];
    let streams = (any::<bool>(), 0..ports.len()).prop_map(move |(udp, at)| {
        let name = if udp { "udp" } else { "tcp" };
        object(json!({ "kind": "ConfigMap", "apiVersion": "v1", "metadata": { "namespace": "a", "name": name }, "data": ports[at] }))
    });
    let namespace = (0..2usize, 0..3usize).prop_map(|(namespace, state)| {
        object(json!({
            "kind": "Namespace", "apiVersion": "v1",
            "metadata": {
                "name": NAMESPACES[namespace],
                "deletionTimestamp": (state == 1).then_some("2026-01-02T00:00:00Z"),
            },
            "status": { "phase": if state == 2 { "Terminating" } else { "Active" } },
        }))
    });
    prop_oneof![class, service, slice, secret, global, headers, streams, namespace]
}

fn change() -> impl Strategy<Value = Change> {
    let object = prop_oneof![3 => ingress(), 2 => other_object()];
    (object, prop::bool::weighted(0.25))
        .prop_map(|(object, remove)| if remove { Change::Remove(object.key()) } else { Change::Upsert(object) })
}

/// A change whose result doesn't depend on the previous state: no refused version, no removal of an object that stays in effect, no age by
/// order of arrival.
fn sound_change() -> impl Strategy<Value = Change> {
    let sound = |change: &Change| match change {
        Change::Upsert(Object::Ingress(ingress)) => {
            let bad = |all: BTreeMap<String, String>| all.values().any(|value| value == "no such url");
            ingress.created().is_some() && !ingress.read().metadata.annotations.is_some_and(bad)
        }
        Change::Upsert(Object::Secret(secret)) => secret.data.as_ref() != Some(&SECRETS[2]),
        Change::Upsert(Object::ConfigMap(map)) => {
            // It sets neither a risk level nor a list of words, which could refuse a version.
            !map.data.as_ref().is_some_and(|data| data.keys().any(|key| key.starts_with("annotation")))
        }
        Change::Upsert(_) => true,
        Change::Remove(key) => !matches!(key.kind, Kind::Secret | Kind::ConfigMap),
    };
    change().prop_filter("sound", sound)
}

/// The current objects, and the last good versions of those that are not good now.
#[derive(Default)]
struct Record {
    objects: Objects,
    good: BTreeMap<ObjectKey, Object>,
}

impl Record {
    /// The objects for a full translation after a batch of changes.
    fn effective(&mut self) -> Objects {
        self.keep_config_maps();
        let rules: Vec<Object> = self.global().into_iter().cloned().collect();
        let mut out = Vec::new();
        let classes: Vec<Object> = self.objects.of_kind(Kind::IngressClass).map(|(_, class)| class.clone()).collect();
        let accepts = |object: &Object| {
            let alone: Objects = rules.iter().chain(&classes).chain([object]).cloned().collect();
            translate(&alone, &options(), NOW).served.contains(&object.key())
        };
        let ours = |object: &Object| {
            let Object::Ingress(ingress) = object else { return false };
            let class = ObjectKey::new(Kind::IngressClass, "", "nginx");
            let named = ingress.read().spec.is_some_and(|spec| spec.ingress_class_name.as_deref() == Some("nginx"));
            named
                && matches!(self.objects.get(&class), Some(Object::IngressClass(class))
                    if class.spec.as_ref().is_some_and(|spec| spec.controller.as_deref() == Some("k8s.io/ingress-nginx")))
        };
        let mut good = std::mem::take(&mut self.good);
        good.retain(|key, _| key.kind != Kind::Ingress || self.objects.get(key).is_some_and(ours));
        for object in self.objects.in_order() {
            match object {
                Object::Ingress(_) if accepts(object) => {
                    good.insert(object.key(), object.clone());
                    out.push(object.clone());
                }
                Object::Ingress(newest) => match good.get(&object.key()).filter(|good| accepts(good)) {
                    // The newest version says whether the object is being deleted.
                    Some(Object::Ingress(last)) => {
                        let mut last = last.read();
                        last.metadata.deletion_timestamp = newest.read().metadata.deletion_timestamp;
                        out.push(last.into());
                    }
                    _ => out.push(object.clone()),
                },
                // The ConfigMaps of TCP and UDP services are in effect only while they exist.
                Object::ConfigMap(_) if ["tcp", "udp"].contains(&&*object.key().name) => out.push(object.clone()),
                Object::Secret(_) | Object::ConfigMap(_) => {}
                _ => out.push(object.clone()),
            }
        }
        let mut wanted: BTreeSet<ObjectKey> = [ObjectKey::new(Kind::Secret, "a", "t1")].into();
        for object in out.iter().filter(|object| accepts(object)) {
            let Object::Ingress(ingress) = object else { continue };
            let read = ingress.read();
            let backend = read.metadata.annotations.as_ref().and_then(|all| {
                let (namespace, name) = all.get("nginx.ingress.kubernetes.io/proxy-ssl-secret")?.split_once('/')?;
                (*namespace == *object.key().namespace).then(|| ObjectKey::new(Kind::Secret, namespace, name))
            });
            wanted.extend(backend);
            let spec = read.spec;
            let tls = spec.iter().flat_map(|spec| spec.tls.iter().flatten());
            wanted.extend(tls.filter_map(|tls| {
                Some(ObjectKey::new(Kind::Secret, &*object.key().namespace, tls.secret_name.as_deref()?))
            }));
        }
        good.retain(|key, _| key.kind != Kind::Secret || wanted.contains(key));
        for key in &wanted {
            let usable = self
                .objects
                .get(key)
                .filter(|secret| matches!(secret, Object::Secret(secret) if secret.data.as_ref() != Some(&SECRETS[2])));
            if let Some(secret) = usable {
                good.insert(key.clone(), secret.clone());
            }
            out.extend(good.get(key).or_else(|| self.objects.get(key)).cloned());
        }
        out.extend(good.values().filter(|object| object.key().kind == Kind::ConfigMap).cloned());
        self.good = good;
        out.into_iter().collect()
    }

    fn global(&self) -> Option<&Object> {
        self.good.get(&ObjectKey::new(Kind::ConfigMap, "a", "global"))
    }

    /// A deleted ConfigMap stays in effect while something refers to it.
    fn keep_config_maps(&mut self) {
        let key = ObjectKey::new(Kind::ConfigMap, "a", "global");
        if let Some(object) = self.objects.get(&key) {
            self.good.insert(key.clone(), object.clone());
        }
        let refers = |name: &str| {
            let Some(Object::ConfigMap(global)) = self.global() else { return None };
            let (namespace, name) = global.data.as_ref()?.get(name)?.split_once('/')?;
            Some(ObjectKey::new(Kind::ConfigMap, namespace, name))
        };
        let wanted: Vec<ObjectKey> =
            [refers("add-headers"), refers("proxy-set-headers")].into_iter().flatten().collect();
        self.good.retain(|other, _| other.kind != Kind::ConfigMap || *other == key || wanted.contains(other));
        for key in wanted {
            if let Some(object) = self.objects.get(&key) {
                self.good.insert(key, object.clone());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 96 } else { 2000 }))]

    #[test]
    fn keeping_up_to_date_equals_starting_anew(batches in prop::collection::vec(prop::collection::vec(change(), 1..4), 1..16)) {
        let mut translator = Translator::new(options());
        let mut record = Record::default();
        let mut published = Snapshot::default();
        let (mut served, mut wanted) = (BTreeSet::new(), BTreeSet::new());
        let class = object(json!({
            "kind": "IngressClass", "apiVersion": "networking.k8s.io/v1", "metadata": { "name": "nginx" },
            "spec": { "controller": "k8s.io/ingress-nginx" },
        }));
        for batch in std::iter::once(vec![Change::Upsert(class)]).chain(batches) {
            // Two changes of one object in one batch are one change.
            let batch: BTreeMap<ObjectKey, Change> = batch
                .into_iter()
                .map(|change| {
                    let key = match &change {
                        Change::Upsert(object) => object.key(),
                        Change::Remove(key) => key.clone(),
                    };
                    (key, change)
                })
                .collect();
            for change in batch.values() {
                record.objects.apply(change.clone());
            }
            let update = translator.apply(batch.into_values(), NOW);

            let before = published.clone();
            published = published.apply(update.delta.clone());
            prop_assert_eq!(&published, translator.snapshot());
            let least = Snapshot::diff(&before, &published);
            prop_assert_eq!(update.delta.upserts.len(), least.upserts.len(), "only what differs is published");
            prop_assert_eq!(update.delta.removals, least.removals);

            served.extend(update.served);
            update.unserved.iter().for_each(|key| { served.remove(key); });
            prop_assert_eq!(&served, translator.served());
            wanted.extend(update.wanted);
            update.unwanted.iter().for_each(|key| { wanted.remove(key); });
            prop_assert!(wanted.iter().all(|key| translator.wants(key)));

            // To make everything anew has no effect, whatever is in effect in an older version.
            let mut again = published.apply(translator.renew(NOW).delta);
            while translator.has_more() {
                again = again.apply(translator.proceed(NOW).delta);
            }
            prop_assert_eq!(&again, &published);
            prop_assert_eq!(translator.snapshot(), &published);
            prop_assert_eq!(&served, translator.served());

            let effective = record.effective();
            let anew = translate(&effective, &options(), NOW);
            prop_assert_eq!(&published, &anew.snapshot);
            prop_assert_eq!(fairway_channel::carried(&published), Ok(published.clone()), "in another process");
            prop_assert_eq!(&served, &anew.served);
            // If all objects are good, all findings are the same too.
            let all_good = record.objects.iter().filter(|(key, _)| translator.wants(key)).count() == effective.len()
                && effective.iter().all(|(key, object)| record.objects.get(key) == Some(object));
            if all_good {
                let told: Vec<_> = translator.diagnostics().values().flatten().cloned().collect();
                prop_assert_eq!(told, anew.diagnostics);
            }
        }
    }

    #[test]
    fn a_change_in_parts_equals_the_whole(
        before in prop::collection::vec(sound_change(), 0..12),
        large in prop::collection::vec(sound_change(), 4..40),
        meanwhile in prop::collection::vec(prop::collection::vec(sound_change(), 1..3), 0..6),
        part in 1..4usize,
        renews in any::<bool>(),
    ) {
        let mut whole = Translator::new(options());
        let mut parts = Translator::new(options()).with_part(part);
        let mut published = Snapshot::default();
        let (mut served, mut wanted) = (BTreeSet::new(), BTreeSet::new());
        let mut take = |update: fairway_translate::Update| {
            published = published.apply(update.delta);
            served.extend(update.served);
            update.unserved.iter().for_each(|key| { served.remove(key); });
            wanted.extend(update.wanted);
            update.unwanted.iter().for_each(|key| { wanted.remove(key); });
        };
        whole.apply(before.iter().cloned(), NOW);
        take(parts.apply(before, NOW));
        whole.apply(large.iter().cloned(), NOW);
        take(parts.apply_part(large, NOW));
        for fresh in meanwhile {
            whole.apply(fresh.iter().cloned(), NOW);
            take(parts.apply_part(fresh, NOW));
            take(parts.proceed(NOW));
        }
        if renews {
            take(parts.renew(NOW));
        }
        while parts.has_more() {
            take(parts.proceed(NOW));
        }
        prop_assert_eq!(&published, whole.snapshot());
        prop_assert_eq!(parts.snapshot(), whole.snapshot());
        prop_assert_eq!(parts.diagnostics(), whole.diagnostics());
        prop_assert_eq!(&served, whole.served());
        prop_assert_eq!(parts.served(), whole.served());
        prop_assert!(wanted.iter().all(|key| whole.wants(key)));
        prop_assert!(parts.proceed(NOW).is_empty());
    }
}
