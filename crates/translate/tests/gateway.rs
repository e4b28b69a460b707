//! The Gateway API, kept up to date, equals a new translation after any sequence of changes.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use fairway_model::Snapshot;
use fairway_translate::gateway::Make;
use fairway_translate::gateway::api::{
    BackendTLSPolicy, Gateway, GatewayClass, HTTPRoute, ListenerSet, ReferenceGrant, TCPRoute, TLSRoute, UDPRoute,
    XBackend, XBackendTrafficPolicy, XTelemetryPolicy,
};
use fairway_translate::gateway::policy::RoutePolicy;
use fairway_translate::objects::{Change, Object, ObjectKey, Objects};
use fairway_translate::options::GatewayAddressing;
use fairway_translate::{Options, Translator, translate};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use proptest::prelude::*;
use serde_json::{Value, json};

const NOW: i64 = 1_767_225_600;
const NAMESPACES: [&str; 2] = ["a", "b"];
const HOSTS: [&str; 6] = ["a.example", "*.example", "b.c.example", "*.c.example", "*.other", "bad host"];
const PROTOCOLS: [&str; 6] = ["HTTP", "HTTPS", "TLS", "TLS", "TCP", "UDP"];
/// The certificate of an authority.
static AUTHORITY: LazyLock<String> = LazyLock::new(|| {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut parameters = rcgen::CertificateParams::default();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    parameters.self_signed(&key).expect("a certificate").pem()
});
const PATHS: [&str; 5] = ["/", "/foo", "/foo/", "/foo/bar", "/a%zz"];

fn read<T: serde::de::DeserializeOwned + Into<Object>>(value: Value) -> Object {
    serde_json::from_value::<T>(value).expect("a manifest").into()
}

fn metadata(namespace: usize, name: String, created: u32) -> Value {
    json!({
        "namespace": NAMESPACES[namespace], "name": name,
        "creationTimestamp": format!("2026-01-01T00:00:0{created}Z"),
    })
}

fn hosts() -> impl Strategy<Value = Vec<&'static str>> {
    prop::collection::vec(prop::sample::select(&HOSTS[..]), 0..3)
}

fn route() -> impl Strategy<Value = Object> {
    let rule = (0..PATHS.len(), 0..3usize, 0..3u32, 0..4u8, (any::<bool>(), 0..4usize)).prop_map(|(path, kind, service, filter, (far, other))| {
        let kind = ["Exact", "PathPrefix", "RegularExpression"][kind];
        let filters = match filter {
            1 => json!([{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "A", "value": "$b"}]}}]),
            2 => json!([{"type": "CORS", "cors": {}}]),
            _ => json!([]),
        };
        let near = json!({"name": format!("s{service}"), "port": 80, "namespace": far.then_some("b")});
        let group = "gateway.networking.x-k8s.io";
        let outside = json!({"group": group, "kind": "XBackend", "name": format!("x{service}"), "namespace": far.then_some("b")});
        let backends = match other {
            0 => json!([outside]),
            1 => json!([near, outside]),
            _ => json!([near, {"name": "s0", "port": 81}]),
        };
        json!({
            "name": format!("n{path}"), "matches": [{"path": {"type": kind, "value": PATHS[path]}}], "filters": filters,
            "backendRefs": backends,
        })
    });
    let kinds = prop::sample::select(&["Gateway", "ListenerSet"][..]);
    let parent =
        (0..2usize, 0..2u32, prop::option::of(0..4u32), kinds).prop_map(|(namespace, name, listener, kind)| {
            json!({
                "kind": kind, "namespace": NAMESPACES[namespace], "name": format!("g{name}"),
                "sectionName": listener.map(|listener| format!("l{listener}")),
            })
        });
    (
        (0..2usize, 0..3u32, 0..4u32, 0..8u32),
        hosts(),
        prop::collection::vec(parent, 1..3),
        prop::option::of(prop::collection::vec(rule, 0..3)),
    )
        .prop_map(|((namespace, name, created, kind), hosts, parents, rules)| {
            let metadata = metadata(namespace, format!("r{name}"), created);
            // The other kinds have rules with backends only.
            let plain: Vec<_> =
                rules.iter().flatten().map(|rule: &Value| json!({"backendRefs": rule["backendRefs"]})).collect();
            let stream = json!({"metadata": metadata, "spec": {"parentRefs": parents, "rules": plain}});
            match kind {
                0 => read::<TCPRoute>(stream),
                1 => read::<UDPRoute>(stream),
                2..4 => read::<TLSRoute>(
                    json!({"metadata": metadata, "spec": {"parentRefs": parents, "hostnames": hosts, "rules": plain}}),
                ),
                _ => read::<HTTPRoute>(
                    json!({"metadata": metadata, "spec": {"parentRefs": parents, "hostnames": hosts, "rules": rules}}),
                ),
            }
        })
}

/// Policies, sound and broken ones, for Gateways, listeners, routes and rules.
fn route_policy() -> impl Strategy<Value = Object> {
    let name = (0..2usize, 0..3u32, 0..4u32);
    let target = (any::<bool>(), 0..3u32, prop::option::of(0..3u32));
    let sections = (prop::option::of(0..3u8), prop::option::of(0..2u32), any::<bool>(), any::<bool>(), 0..3u8);
    (name, prop::collection::vec(target, 1..3), sections).prop_map(|((namespace, name, created), targets, sections)| {
        let target = |(gateway, name, section): (bool, u32, Option<u32>)| match gateway {
            true => json!({
                "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": format!("g{name}"),
                "sectionName": section.map(|section| format!("l{section}")),
            }),
            false => json!({
                "group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": format!("r{name}"),
                "sectionName": section.map(|section| format!("n{section}")),
            }),
        };
        let (access, users, limits, session, service) = sections;
        read::<RoutePolicy>(json!({
            "metadata": metadata(namespace, format!("p{name}"), created),
            "spec": {
                "targetRefs": targets.into_iter().map(target).collect::<Vec<_>>(),
                "access": access.map(|at| {
                    let network = ["10.0.0.0/8", "192.0.2.1", "ten"][usize::from(at)];
                    json!({"allow": [network]})
                }),
                "basicAuth": users.map(|name| json!({"secretRef": {"name": format!("u{name}")}})),
                "limits": limits.then(|| json!({"requestsPerSecond": 7})),
                "sessionCookie": session.then(|| json!({"name": "s"})),
                "externalAuth": match service {
                    0 => json!(null),
                    1 => json!({"url": "http://auth.example/"}),
                    _ => json!({"url": "http://s0.b.svc/"}),
                },
            },
        }))
    })
}

/// XBackends, sound and broken ones: for hosts and for pods.
fn xbackend() -> impl Strategy<Value = Object> {
    let spec = (0..6usize, 0..3usize, prop::sample::select(&["TCP", "HTTP2", "H2C", "MCP"][..]), any::<bool>());
    (0..2usize, 0..3u32, 0..4u32, spec).prop_map(|(namespace, name, created, (kind, tls, protocol, speaks))| {
        let mut spec = [
            json!({"externalHostname": {"hostname": "a.example"}}),
            json!({"externalHostname": {"hostname": "localhost"}}),
            json!({"endpointSelector": {"matchLabels": {"app": format!("a{name}")}}}),
            json!({"endpointSelector": {"matchLabels": {"app": "b"}}, "sessionPersistence": {"cookie": {}}}),
            json!({"endpointSelector": {"matchLabels": {}}}),
            json!({}),
        ][kind]
            .clone();
        spec["type"] = json!(if kind < 2 { "ExternalHostname" } else { "EndpointSelector" });
        spec["port"] = json!({"number": 8080 + created});
        spec["protocol"] = json!(speaks.then_some(protocol));
        let authorities = json!([{"group": "", "kind": "ConfigMap", "name": format!("m{}", created % 2)}]);
        let validation = json!({"hostname": "a.example", "caCertificateRefs": authorities});
        spec["tls"] = [
            json!(null),
            json!({"mode": "ServerOnly", "validation": validation}),
            json!({"mode": "ClientAndServer", "validation": validation, "clientCertificateRef": {"name": "u0", "namespace": "b"}}),
        ][tls]
            .clone();
        let mut metadata = metadata(namespace, format!("x{name}"), created);
        metadata["uid"] = json!(format!("uid-{created}"));
        read::<XBackend>(json!({"metadata": metadata, "spec": spec}))
    })
}

fn secret() -> impl Strategy<Value = Object> {
    (0..2usize, 0..2u32, any::<bool>()).prop_map(|(namespace, name, sound)| {
        // `ada:{PLAIN}x`, or a hash that is not checked.
        let text = if sound { "YWRhOntQTEFJTn14" } else { "YWRhOng=" };
        read::<Secret>(json!({
            "metadata": {"namespace": NAMESPACES[namespace], "name": format!("u{name}")}, "data": {"auth": text},
        }))
    })
}

fn other() -> impl Strategy<Value = Object> {
    let listener = (0..3usize, prop::option::of(prop::sample::select(&HOSTS[..])), 0..3usize, 0..PROTOCOLS.len());
    let listeners = prop::collection::vec(listener, 0..4).prop_map(|listeners| {
        let one = |(at, (port, hostname, from, protocol)): (usize, (usize, Option<&str>, usize, usize))| {
            let from = ["Same", "All", "Selector"][from];
            json!({
                "name": format!("l{at}"), "port": ([80, 8080, 443][port]), "hostname": hostname,
                "protocol": PROTOCOLS[protocol], "tls": {"mode": if protocol == 2 { "Passthrough" } else { "Terminate" }},
                "allowedRoutes": {"namespaces": {"from": from, "selector": {"matchLabels": {"in": "yes"}}}},
            })
        };
        listeners.into_iter().enumerate().map(one).collect::<Vec<_>>()
    });
    let set = (0..2usize, 0..2u32, 0..4u32, (0..2usize, 0..2u32), listeners.clone()).prop_map(
        |(namespace, name, created, (parent_namespace, parent), listeners)| {
            read::<ListenerSet>(json!({
                "metadata": metadata(namespace, format!("g{name}"), created),
                "spec": {
                    "parentRef": {"namespace": NAMESPACES[parent_namespace], "name": format!("g{parent}")},
                    "listeners": listeners,
                },
            }))
        },
    );
    let gateway = (0..2usize, 0..2u32, 0..4u32, listeners, any::<bool>(), (any::<bool>(), 0..4usize)).prop_map(
        |(namespace, name, created, listeners, ours, (own, admits))| {
            let admits = [None, Some("Same"), Some("All"), Some("Selector")][admits];
            let class = if ours { "fairway" } else { "other" };
            read::<Gateway>(json!({
                "metadata": metadata(namespace, format!("g{name}"), created),
                "spec": {
                    "gatewayClassName": class, "listeners": listeners,
                    "allowedListeners": {"namespaces": {"from": admits, "selector": {"matchLabels": {"in": "yes"}}}},
                    "infrastructure": {"labels": if own { json!({"a": "b"}) } else { json!({}) }},
                },
            }))
        },
    );
    let class = any::<bool>().prop_map(|ours| {
        let controller = if ours { "fairway.dev/gateway" } else { "example.com/other" };
        read::<GatewayClass>(json!({"metadata": {"name": "fairway"}, "spec": {"controllerName": controller}}))
    });
    let grant = (any::<bool>(), any::<bool>()).prop_map(|(right, named)| {
        let from = json!([{
            "group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "namespace": if right { "a" } else { "c" },
        }]);
        let to = json!([
            {"group": "", "kind": "Service", "name": named.then_some("s1")},
            {"group": "gateway.networking.x-k8s.io", "kind": "XBackend", "name": named.then_some("x1")},
        ]);
        read::<ReferenceGrant>(json!({"metadata": {"namespace": "b", "name": "g"}, "spec": {"from": from, "to": to}}))
    });
    let namespace = (0..2usize, any::<bool>()).prop_map(|(namespace, labelled)| {
        let labels = if labelled { json!({"in": "yes"}) } else { json!({}) };
        read::<Namespace>(json!({"metadata": {"name": NAMESPACES[namespace], "labels": labels}}))
    });
    let service = (0..2usize, 0..3u32, any::<bool>()).prop_map(|(namespace, name, h2c)| {
        let protocol = h2c.then_some("kubernetes.io/h2c");
        read::<Service>(json!({
            "metadata": {"namespace": NAMESPACES[namespace], "name": format!("s{name}")},
            "spec": {"clusterIP": "10.1.1.1", "ports": [{"port": 80, "appProtocol": protocol}, {"name": "b", "port": 81}]},
        }))
    });
    let ingress =
        (0..2usize, 0..3u32, 0..4u32, 0..3usize, 0..3usize).prop_map(|(namespace, name, created, host, path)| {
            let backend = json!({"service": {"name": "s0", "port": {"number": 80}}});
            let paths = json!([{"path": PATHS[path], "pathType": "Prefix", "backend": backend}]);
            read::<Ingress>(json!({
                "metadata": metadata(namespace, format!("r{name}"), created),
                "spec": {"ingressClassName": "nginx", "rules": [{"host": HOSTS[host], "http": {"paths": paths}}]},
            }))
        });
    // Services that were created for a Gateway, or look so.
    let made = (0..2usize, 0..2u32, 20000..20003u32, any::<bool>()).prop_map(|(namespace, name, port, address)| {
        let ingress = if address { json!([{"ip": "192.0.2.1"}]) } else { json!([]) };
        read::<Service>(json!({
            "metadata": {
                "namespace": NAMESPACES[namespace], "name": format!("g{name}-fairway"),
                "labels": {"app.kubernetes.io/managed-by": "fairway", "gateway.networking.k8s.io/gateway-name": "g"},
                "annotations": {"fairway.dev/gateway": format!("g{name}")},
            },
            "spec": {"type": "LoadBalancer", "ports": [
                {"port": 80, "targetPort": port}, {"port": 443, "targetPort": 20000},
                {"port": 80, "targetPort": 20001, "protocol": "UDP"},
            ]},
            "status": {"loadBalancer": {"ingress": ingress}},
        }))
    });
    let slice = (any::<bool>(), 1..4u8).prop_map(|(ours, last)| {
        let (namespace, service) = if ours { ("a", "s0") } else { ("b", "g0-fairway") };
        read::<EndpointSlice>(json!({
            "metadata": {"namespace": namespace, "name": "slice", "labels": {"kubernetes.io/service-name": service}},
            "addressType": "IPv4", "endpoints": [{"addresses": [format!("10.2.0.{last}")]}], "ports": [{"port": 80}],
        }))
    });
    let policy = (0..2usize, 0..2u32, 0..4u32, (0..5u32, any::<bool>()), 0..2usize).prop_map(
        |(namespace, name, created, (target, section), map)| {
            let section = section.then_some("b");
            let (group, kind, of) = match target {
                0..3 => ("", "Service", format!("s{target}")),
                _ => ("gateway.networking.x-k8s.io", "XBackend", format!("x{}", target - 3)),
            };
            read::<BackendTLSPolicy>(json!({
                "metadata": metadata(namespace, format!("p{name}"), created),
                "spec": {
                    "targetRefs": [{"group": group, "kind": kind, "name": of, "sectionName": section}],
                    "validation": {
                        "hostname": format!("p{name}.example"),
                        "caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": format!("m{map}")}],
                    },
                },
            }))
        },
    );
    let map = (0..2usize, 0..2u32, any::<bool>()).prop_map(|(namespace, name, sound)| {
        let text = if sound { AUTHORITY.as_str() } else { "no certificate" };
        read::<ConfigMap>(json!({
            "metadata": {"namespace": NAMESPACES[namespace], "name": format!("m{name}")}, "data": {"ca.crt": text},
        }))
    });
    let traffic =
        (0..2usize, 0..2u32, 0..4u32, 0..3u32, 0..120u8).prop_map(|(namespace, name, created, service, percent)| {
            read::<XBackendTrafficPolicy>(json!({
                "metadata": metadata(namespace, format!("b{name}"), created),
                "spec": {
                    "targetRefs": [{"group": "", "kind": "Service", "name": format!("s{service}")}],
                    "retryConstraint": {"budget": {"percent": percent}},
                },
            }))
        });
    let telemetry = (0..2usize, 0..3u32, 0..4u32, (0..2u32, 0..3u32, any::<bool>()), 0..5u8).prop_map(
        |(namespace, name, created, (gateway, service, far), what)| {
            let target = json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": format!("g{gateway}")});
            let mut tracing = json!({
                "mode": "Enabled", "serviceName": format!("t{name}"),
                "provider": {"backendRef": {"name": format!("s{service}"), "port": 80, "namespace": far.then_some("b")}},
            });
            match what {
                0 => tracing = json!({"mode": "Disabled"}),
                1 => tracing["attributes"] = json!([{"name": "a", "sourceType": "Attribute", "attributeKey": "none"}]),
                2 => tracing["samplingRate"] = json!({"numerator": 5}),
                _ => {}
            }
            read::<XTelemetryPolicy>(json!({
                "metadata": metadata(namespace, format!("o{name}"), created),
                "spec": {"targetRefs": [target], "tracing": tracing},
            }))
        },
    );
    prop_oneof![2 => xbackend(), 2 => policy, 1 => traffic, 2 => telemetry, 2 => route_policy(), 1 => secret(), 1 => map, 2 => made, 1 => slice, 3 => gateway, 2 => set, 1 => class, 1 => grant, 1 => namespace, 2 => service, 2 => ingress]
}

fn change() -> impl Strategy<Value = Change> {
    let object = prop_oneof![2 => route(), 3 => other()];
    (object, prop::bool::weighted(0.25))
        .prop_map(|(object, remove)| if remove { Change::Remove(object.key()) } else { Change::Upsert(object) })
}

fn begin() -> Vec<Change> {
    let classes = [
        read::<IngressClass>(json!({"metadata": {"name": "nginx"}, "spec": {"controller": "k8s.io/ingress-nginx"}})),
        read::<GatewayClass>(
            json!({"metadata": {"name": "fairway"}, "spec": {"controllerName": "fairway.dev/gateway"}}),
        ),
    ];
    classes.map(Change::Upsert).into()
}

/// The pods of an XBackend follow the slices of the Service created for it, whichever comes first, and however often it is recreated.
#[test]
fn the_pods_of_an_xbackend_are_those_of_the_service_that_is_made_for_it() {
    let options = Options { gateway_address: GatewayAddressing::Asked, ..Options::default() };
    let mut translator = Translator::new(options.clone());
    let mut objects = Objects::default();
    let mut apply = |changes: Vec<Change>| {
        changes.iter().for_each(|change| _ = objects.apply(change.clone()));
        translator.apply(changes, NOW);
        let anew = translate(&objects, &options, NOW);
        assert_eq!((translator.snapshot(), translator.made()), (&anew.snapshot, &anew.made));
        let made: Vec<_> = anew.made.iter().map(|(key, make)| (key.clone(), make.clone())).collect();
        let backend = "a/x0:8080/xbackend".into();
        let pods = anew.snapshot.endpoint_set(&backend).map(|set| format!("{:?}", set.endpoints)).unwrap_or_default();
        (made, pods)
    };
    let gateway = read::<Gateway>(json!({
        "metadata": metadata(0, "g0".into(), 0),
        "spec": {"gatewayClassName": "fairway", "listeners": [{"name": "l0", "port": 80, "protocol": "HTTP"}]},
    }));
    let backend = json!({"group": "gateway.networking.x-k8s.io", "kind": "XBackend", "name": "x0"});
    let route = read::<HTTPRoute>(json!({
        "metadata": metadata(0, "r0".into(), 0),
        "spec": {"parentRefs": [{"name": "g0"}], "rules": [{"backendRefs": [backend]}]},
    }));
    let xbackend = |uid: &str, spec: Value| {
        let mut metadata = metadata(0, "x0".into(), 0);
        metadata["uid"] = json!(uid);
        Change::Upsert(read::<XBackend>(json!({"metadata": metadata, "spec": spec})))
    };
    let pods = || json!({"type": "EndpointSelector", "endpointSelector": {"matchLabels": {"app": "x"}}, "port": {"number": 8080}});
    let slice = |service: &ObjectKey, address: &str| {
        Change::Upsert(read::<EndpointSlice>(json!({
            "metadata": {"namespace": "a", "name": format!("{}-1", service.name), "labels": {"kubernetes.io/service-name": &*service.name}},
            "addressType": "IPv4", "endpoints": [{"addresses": [address]}], "ports": [{"name": "backend", "port": 8080}],
        })))
    };
    let mut changes = begin();
    changes.extend([Change::Upsert(gateway), xbackend("1", pods())]);
    assert_eq!(apply(changes).0, [], "no route refers to it");
    let (made, found) = apply(vec![Change::Upsert(route.clone())]);
    let [(first, Make::Apply(service))] = &made[..] else { panic!("{made:?}") };
    assert_eq!(found, "Addresses([])");
    let there = Change::Upsert(read::<Service>(Value::clone(service)));
    assert_eq!(apply(vec![there]).0, [], "it is as it should be");
    assert!(apply(vec![slice(first, "10.2.0.1")]).1.contains("10.2.0.1:8080"));
    assert!(apply(vec![slice(first, "10.2.0.2")]).1.contains("10.2.0.2:8080"));
    // Another XBackend of the same name has other pods.
    let (made, found) = apply(vec![xbackend("2", pods())]);
    let [(second, Make::Apply(service))] = &made[..] else { panic!("{made:?}") };
    assert_ne!(first, second);
    assert_eq!(found, "Addresses([])");
    assert_eq!(apply(vec![slice(first, "10.2.0.3")]).1, "Addresses([])");
    assert_eq!(apply(vec![slice(second, "10.2.0.4")]).1, "Addresses([])", "its Service is not there");
    let there = Change::Upsert(read::<Service>(Value::clone(service)));
    assert!(apply(vec![there]).1.contains("10.2.0.4:8080"));
    // An XBackend for a host has none.
    let host =
        json!({"type": "ExternalHostname", "externalHostname": {"hostname": "api.example"}, "port": {"number": 8080}});
    let back = xbackend("1", host);
    let (made, found) = apply(vec![back]);
    assert_eq!(made, [(first.clone(), Make::Delete)]);
    assert!(found.contains("api.example."), "{found}");
    assert_eq!(apply(vec![Change::Remove(first.clone())]).0, []);
    assert_eq!(apply(vec![Change::Remove(route.key())]).1, "");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 64 } else { 1000 }))]

    #[test]
    fn keeping_up_to_date_equals_starting_anew(batches in prop::collection::vec(prop::collection::vec(change(), 1..4), 1..16)) {
        let publish_service = Some(("a".to_owned(), "s0".to_owned()));
        let gateway_address = GatewayAddressing::Asked;
        let options = Options { publish_service, gateway_address, gateway_ports: 20000..=20003, ..Options::default() };
        let mut translator = Translator::new(options.clone());
        let mut objects: Objects = Objects::default();
        begin().into_iter().for_each(|change| { objects.apply(change); });
        let first = translator.apply(begin(), NOW);
        let mut published = Snapshot::default().apply(first.delta);
        let mut told: BTreeMap<ObjectKey, Arc<_>> =
            first.statuses.into_iter().filter_map(|(key, status)| Some((key, status?))).collect();
        let mut made: BTreeMap<_, _> = first.made.into_iter().filter_map(|(key, make)| Some((key, make?))).collect();
        for batch in batches {
            for change in &batch {
                objects.apply(change.clone());
            }
            let update = translator.apply(batch, NOW);
            let before = published.clone();
            published = published.apply(update.delta.clone());
            prop_assert_eq!(&published, translator.snapshot());
            let least = Snapshot::diff(&before, &published);
            prop_assert_eq!(update.delta.upserts.len(), least.upserts.len(), "only what differs is published");
            prop_assert_eq!(update.delta.removals, least.removals);
            for (key, status) in update.statuses {
                match status {
                    Some(status) => prop_assert_ne!(told.insert(key, status.clone()), Some(status), "told twice"),
                    None => prop_assert!(told.remove(&key).is_some(), "never told"),
                }
            }
            for (key, make) in update.made {
                match make {
                    Some(make) => prop_assert_ne!(made.insert(key, make.clone()), Some(make), "told twice"),
                    None => prop_assert!(made.remove(&key).is_some(), "never told"),
                }
            }
            let anew = translate(&objects, &options, NOW);
            prop_assert_eq!(&made, &anew.made);
            prop_assert_eq!(&published, &anew.snapshot);
            prop_assert_eq!(fairway_channel::carried(&published), Ok(published.clone()), "in another process");
            prop_assert_eq!(&told, &anew.statuses);
            let found: Vec<_> = translator.diagnostics().values().flatten().cloned().collect();
            prop_assert_eq!(found, anew.diagnostics);
        }
    }

    /// A policy, whatever is wrong with it, changes only its target routes.
    #[test]
    fn a_policy_changes_only_its_own_targets(
        before in prop::collection::vec(change(), 1..24),
        policy in route_policy(),
    ) {
        let options = Options::default();
        let mut objects: Objects = Objects::default();
        begin().into_iter().chain(before).for_each(|change| { objects.apply(change); });
        objects.apply(Change::Remove(policy.key()));
        let without = translate(&objects, &options, NOW).snapshot;
        objects.apply(Change::Upsert(policy.clone()));
        let with = translate(&objects, &options, NOW).snapshot;
        let Object::RoutePolicy(policy) = &policy else { unreachable!("a policy") };
        let namespace = policy.metadata.namespace.as_deref().unwrap_or_default();
        let named = |kind: &str, name: &str| {
            policy.spec.target_refs.iter().any(|target| target.kind.0 == kind && target.name.0 == name)
        };
        // The Gateway of a table is not named in origins, so a policy for one may change any route of its port.
        let may_change = |origin: &fairway_model::Origin| {
            &*origin.kind != "Ingress"
                && (policy.spec.target_refs.iter().any(|target| target.kind.0 == "Gateway")
                    || (&*origin.namespace == namespace && named(&origin.kind, &origin.name)))
        };
        let routes = |snapshot: &Snapshot| -> BTreeMap<String, fairway_model::Route> {
            let of_host = |host: &fairway_model::Host| {
                let key = format!("{} {}", host.table(), host.pattern());
                host.routes().iter().enumerate().map(move |(at, route)| (format!("{key} {at}"), route.clone())).collect::<Vec<_>>()
            };
            snapshot.hosts().into_iter().flat_map(|host| of_host(host)).collect()
        };
        let (without, with) = (routes(&without), routes(&with));
        prop_assert_eq!(without.keys().collect::<Vec<_>>(), with.keys().collect::<Vec<_>>());
        for (place, before) in &without {
            if &with[place] != before {
                prop_assert!(may_change(&before.origin), "{}: {:?}", place, before.origin);
            }
        }
    }
}
