//! Random objects of tenants, sound and broken. A tenant has a namespace and the host names below `NAMESPACE.example`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use fairway_translate::annotation::full_name;
use fairway_translate::gateway::api::{
    BackendTLSPolicy, GRPCRoute, Gateway, GatewayClass, HTTPRoute, ListenerSet, ReferenceGrant, TCPRoute, TLSRoute,
    XBackend, XBackendTrafficPolicy, XTelemetryPolicy,
};
use fairway_translate::gateway::policy::RoutePolicy;
use fairway_translate::objects::{Change, Object};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

#[path = "../../src/ingress/annotation/examples.rs"]
mod examples;

use self::examples::EXAMPLES;

/// The actions of a tenant, and how far it reaches.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tenant {
    pub(crate) namespace: &'static str,
    /// Namespaces that its objects refer to, its own included.
    pub(crate) reach: &'static [&'static str],
    /// Namespaces whose host names it claims, its own included.
    pub(crate) claims: &'static [&'static str],
    /// Whether it also serves requests for no host in particular.
    pub(crate) any_host: bool,
    /// The range of seconds in which its objects are created.
    pub(crate) born: (u32, u32),
    /// Whether its objects are being deleted sometimes.
    pub(crate) leaves: bool,
}

const PATHS: [&str; 8] = ["/", "/foo", "/foo/", "/foo/bar", "/x(/|$)(.*)", "/y(", "/a%zz", ""];
const PREFIX: &str = "nginx.ingress.kubernetes.io";

/// Data of Secrets: certificates of the tenant, then users, an authority and all kinds of mistakes.
static SECRETS: LazyLock<Vec<BTreeMap<String, ByteString>>> = LazyLock::new(|| {
    let data = |pairs: &[(&str, &str)]| -> BTreeMap<String, ByteString> {
        pairs.iter().map(|(key, text)| ((*key).to_owned(), ByteString(text.as_bytes().to_vec()))).collect()
    };
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let make = |of: Vec<String>| {
        let made = rcgen::generate_simple_self_signed(of).expect("a certificate");
        (made.cert.pem(), made.signing_key.serialize_pem())
    };
    let all = |name: &str| [format!("{name}.example"), format!("*.{name}.example")];
    let all: Vec<String> = ["x", "y", "m"].iter().flat_map(|name| all(name)).collect();
    let (every, other) = (make(all), make(names(&["www.x.example"])));
    let users = "ada:{PLAIN}x\n";
    vec![
        data(&[("tls.crt", &every.0), ("tls.key", &every.1), ("ca.crt", &AUTHORITY), ("auth", users)]),
        data(&[("tls.crt", &other.0), ("tls.key", &other.1)]),
        data(&[("tls.crt", &every.0), ("tls.key", &other.1), ("auth", "ada:")]),
        data(&[("tls.crt", "-----BEGIN CERTIFICATE-----\nnonsense"), ("tls.key", &every.1), ("ca.crt", "nonsense")]),
        data(&[("tls.crt", &every.0), ("tls.key", "nonsense"), ("ca.crt", &AUTHORITY), ("ca.crl", "nonsense")]),
        data(&[]),
    ]
});

/// The certificate of an authority.
static AUTHORITY: LazyLock<String> = LazyLock::new(|| {
    let key = rcgen::KeyPair::generate().expect("a key");
    let mut parameters = rcgen::CertificateParams::default();
    parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    parameters.self_signed(&key).expect("a certificate").pem()
});

fn read<T: serde::de::DeserializeOwned + Into<Object>>(value: Value) -> Object {
    serde_json::from_value::<T>(value.clone()).unwrap_or_else(|error| panic!("{error}: {value:#}")).into()
}

fn secret(namespace: &str, name: &str, kind: usize) -> Object {
    let mut secret = Secret { data: Some(SECRETS[kind].clone()), ..Secret::default() };
    secret.metadata.namespace = Some(namespace.into());
    secret.metadata.name = Some(name.into());
    secret.into()
}

/// The objects of the cluster's operator: classes, a Gateway that takes the routes and ListenerSets of all namespaces, and a ConfigMap that
/// allows tenants as much as possible.
pub(crate) fn of_operator() -> Vec<Change> {
    let from_all = json!({"namespaces": {"from": "All"}});
    let listener = |name: &str, port: u16, protocol: &str, tls: Value| json!({"name": name, "port": port, "protocol": protocol, "tls": tls, "allowedRoutes": from_all});
    let certificate = json!({"certificateRefs": [{"name": "edge"}]});
    let objects = [
        read::<IngressClass>(json!({"metadata": {"name": "nginx"}, "spec": {"controller": "k8s.io/ingress-nginx"}})),
        read::<GatewayClass>(
            json!({"metadata": {"name": "fairway"}, "spec": {"controllerName": "fairway.dev/gateway"}}),
        ),
        read::<Gateway>(json!({
            "metadata": {"namespace": "infra", "name": "edge", "creationTimestamp": "2025-01-01T00:00:00Z"},
            "spec": {
                "gatewayClassName": "fairway", "allowedListeners": from_all,
                "listeners": [
                    listener("http", 80, "HTTP", json!(null)),
                    listener("https", 443, "HTTPS", certificate),
                    listener("tls", 8443, "TLS", json!({"mode": "Passthrough"})),
                ],
            },
        })),
        secret("infra", "edge", 0),
        read::<ConfigMap>(json!({
            "metadata": {"namespace": "infra", "name": "global"},
            "data": {"allow-snippet-annotations": "true", "annotations-risk-level": "Critical"},
        })),
    ];
    objects.map(Change::Upsert).into()
}

/// A change, as a manifest.
pub(crate) fn text_of(change: &Change) -> String {
    macro_rules! manifest {
        ($object:ident: $($kind:ident)*) => {
            match $object {
                Object::Ingress(it) => json!(it.read()),
                $(Object::$kind(it) => json!(&**it),)*
                other => json!(format!("{other:?}")),
            }
        };
    }
    match change {
        Change::Remove(key) => format!("no {key}"),
        // Its data is long, so its number is printed.
        Change::Upsert(Object::Secret(secret)) => {
            let kind = SECRETS.iter().position(|data| secret.data.as_ref() == Some(data));
            format!("{} with data {kind:?}", Object::Secret(secret.clone()).key())
        }
        Change::Upsert(object) => {
            let manifest = manifest!(object: Service EndpointSlice ConfigMap ListenerSet HTTPRoute GRPCRoute TLSRoute TCPRoute
                ReferenceGrant BackendTLSPolicy RoutePolicy XBackendTrafficPolicy XBackend XTelemetryPolicy);
            format!("{} {manifest}", object.key())
        }
    }
}

impl Tenant {
    /// What it begins with: Services with endpoints, and a certificate for all of its names.
    pub(crate) fn beginning(self) -> Vec<Change> {
        let metadata = |name: String| json!({"namespace": self.namespace, "name": name});
        let of_number = |number: u8| {
            let mut slice = metadata(format!("e{number}"));
            slice["labels"] = json!({"kubernetes.io/service-name": format!("s{number}")});
            let ports = json!([{"name": "http", "port": 80, "targetPort": 8080}]);
            [
                read::<Service>(
                    json!({"metadata": metadata(format!("s{number}")), "spec": {"clusterIP": "10.1.1.1", "ports": ports}}),
                ),
                read::<EndpointSlice>(json!({
                    "metadata": slice, "addressType": "IPv4", "ports": [{"name": "http", "port": 8080}],
                    "endpoints": [{"addresses": [format!("10.2.0.{number}")]}],
                })),
            ]
        };
        let secrets = (0..2).map(|number| secret(self.namespace, &format!("t{number}"), 0));
        (0..3).flat_map(of_number).chain(secrets).map(Change::Upsert).collect()
    }

    /// A change of one of its objects.
    pub(crate) fn change(self) -> impl Strategy<Value = Change> {
        let object = prop_oneof![
            6 => self.ingress(), 2 => self.service(), 2 => self.slice(), 2 => self.secret(), 1 => self.config_map(),
            5 => self.http_route(), 2 => self.other_route(), 2 => self.listener_set(), 1 => self.grant(),
            1 => self.backend_policy(), 1 => self.traffic_policy(), 1 => self.telemetry_policy(), 4 => self.route_policy(),
            2 => self.xbackend(),
        ];
        (object, prop::bool::weighted(0.2))
            .prop_map(|(object, gone)| if gone { Change::Remove(object.key()) } else { Change::Upsert(object) })
    }

    fn metadata(self, name: &'static str, numbers: u32) -> impl Strategy<Value = Value> {
        let Self { namespace, born: (first, last), leaves, .. } = self;
        (0..numbers, prop::bool::weighted(0.1)).prop_map(move |(number, leaving)| {
            // An object keeps its creation time as long as it exists, so each name has one time.
            let letters: u32 = name.bytes().map(u32::from).sum();
            let born = first + (letters + 5 * number) % (last - first + 1);
            json!({
                "namespace": namespace, "name": format!("{name}{number}"),
                "creationTimestamp": format!("2026-01-01T00:00:0{born}Z"),
                "deletionTimestamp": (leaving && leaves).then_some("2026-01-02T00:00:00Z"),
            })
        })
    }

    /// A namespace that its objects refer to, most often its own.
    fn place(self) -> impl Strategy<Value = &'static str> {
        prop_oneof![Just(self.namespace), select(self.reach)]
    }

    /// A host name of an Ingress or a route; empty for any.
    fn host(self, claims: &'static [&'static str]) -> impl Strategy<Value = String> {
        let any = u32::from(self.any_host);
        prop_oneof![
            12 => (select(claims), 0..5usize).prop_map(move |(of, at)| {
                // The wildcard around the names of others says whether they have TLS, as in ingress-nginx.
                let below = ["", "www.", "api.", if of == self.namespace { "*." } else { "" }, "a.b."];
                format!("{}{of}.example", below[at])
            }),
            any => Just(String::new()),
            any => Just("bad host".to_owned()),
        ]
    }

    fn annotation(self) -> impl Strategy<Value = (String, String)> {
        let example = (0..EXAMPLES.len(), 0..3u8, self.place()).prop_map(|(at, sound, place)| {
            let (name, valid, invalid) = EXAMPLES[at];
            (name, if sound == 0 { invalid } else { valid }.replace("shop/", &format!("{place}/")))
        });
        let Self { any_host, .. } = self;
        let names = (select(self.claims), 0..6usize).prop_map(move |(of, at)| {
            let aliases = match at {
                // An Ingress that names a host comes before an alias, so the aliases are never hosts of others.
                _ if at < 2 && !any_host => format!("alias.{of}.example,*.more.{of}.example"),
                0 => format!("alias.{of}.example, api.{of}.example"),
                1 => format!("alias.{of}.example,*.more.{of}.example, www.{of}.example"),
                2 => format!("~^re[0-9]\\.{of}\\.example$"),
                3 => format!("~^.*{of}\\.example("),
                4 => format!("*.a.{of}.example"),
                _ => "bad host".to_owned(),
            };
            ("server-alias", aliases)
        });
        let services = (self.place(), 0..3u8, 0..3u8).prop_map(|(place, which, number)| match which {
            0 => ("auth-url", format!("http://s{number}.{place}.svc.cluster.local/verify")),
            1 => ("mirror-target", format!("http://s{number}.{place}.svc:80$request_uri")),
            _ => ("default-backend", format!("s{number}")),
        });
        let objects = (self.place(), 0..4u8, 0..2u8).prop_map(|(place, which, number)| match which {
            0 => ("auth-secret", format!("{place}/t{number}")),
            1 => ("auth-tls-secret", format!("{place}/t{number}")),
            2 => ("proxy-ssl-secret", format!("{place}/t{number}")),
            _ => ("custom-headers", format!("{place}/m{number}")),
        });
        let few = select(
            &[
                ("auth-type", "basic"),
                ("backend-protocol", "HTTPS"),
                ("canary", "true"),
                ("canary-weight", "50"),
                ("affinity", "cookie"),
                ("ssl-passthrough", "true"),
                ("from-to-www-redirect", "true"),
                ("use-regex", "true"),
            ][..],
        )
        .prop_map(|(name, value)| (name, value.to_owned()));
        // Host names come from the tenant's own strategy.
        let example = example.prop_filter("names", |(name, _)| *name != "server-alias");
        let text = prop_oneof![3 => example, 2 => names, 2 => services, 2 => objects, 2 => few];
        text.prop_map(|(name, value)| (full_name(PREFIX, name), value))
    }

    fn ingress(self) -> impl Strategy<Value = Object> {
        let path = (0..PATHS.len(), 0..3usize, 0..4u8, any::<bool>()).prop_map(|(path, kind, service, named)| {
            let kind = ["Exact", "Prefix", "ImplementationSpecific"][kind];
            let port = if named { json!({"name": "http"}) } else { json!({"number": 80}) };
            json!({
                "path": PATHS[path], "pathType": kind,
                "backend": {"service": {"name": format!("s{service}"), "port": port}},
            })
        });
        let rule = (self.host(self.claims), prop::collection::vec(path, 0..4))
            .prop_map(|(host, paths)| json!({"host": host, "http": {"paths": paths}}));
        let tls = (prop::option::of(0..3u8), prop::collection::vec(self.host(self.claims), 0..3)).prop_map(
            |(secret, hosts)| json!({"secretName": secret.map(|secret| format!("t{secret}")), "hosts": hosts}),
        );
        let default = self.any_host;
        (
            self.metadata("i", 3),
            prop::collection::vec(rule, 0..3),
            prop::collection::vec(tls, 0..2),
            prop::collection::vec(self.annotation(), 0..4),
            (prop::bool::weighted(0.2), prop::bool::weighted(0.1)),
        )
            .prop_map(move |(mut metadata, rules, tls, annotations, (to_default, foreign))| {
                metadata["annotations"] = json!(annotations.into_iter().collect::<BTreeMap<_, _>>());
                let backend = json!({"service": {"name": "s0", "port": {"number": 80}}});
                read::<Ingress>(json!({
                    "metadata": metadata,
                    "spec": {
                        "ingressClassName": if foreign { "other" } else { "nginx" }, "rules": rules, "tls": tls,
                        "defaultBackend": (default && to_default).then_some(backend),
                    },
                }))
            })
    }

    fn service(self) -> impl Strategy<Value = Object> {
        (self.metadata("s", 4), 0..7usize).prop_map(|(mut metadata, kind)| {
            let specs = [
                json!({"clusterIP": "10.1.1.1", "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}),
                json!({"clusterIP": "None", "ports": [{"name": "http", "port": 80}, {"name": "b", "port": 81}]}),
                json!({"type": "ExternalName", "externalName": "outside.example", "ports": []}),
                json!({"type": "ExternalName", "externalName": "127.0.0.1", "ports": [{"port": 80}]}),
                json!({"ports": [{"port": 80, "appProtocol": "kubernetes.io/h2c"}]}),
                json!({"ports": [{"port": -1, "targetPort": "http"}, {"port": 80, "targetPort": 700_000}]}),
                json!({"type": "LoadBalancer", "ports": [{"port": 80, "targetPort": 80}]}),
            ];
            if kind == 6 {
                // The Service looks as if it had been created for a Gateway.
                metadata["labels"] = json!({"app.kubernetes.io/managed-by": "fairway", "gateway.networking.k8s.io/gateway-name": "edge"});
                metadata["annotations"] = json!({"fairway.dev/gateway": "edge"});
            }
            read::<Service>(json!({"metadata": metadata, "spec": specs[kind]}))
        })
    }

    fn slice(self) -> impl Strategy<Value = Object> {
        let endpoint = (0..6usize, 0..3usize).prop_map(|(address, state)| {
            let address = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "nonsense", "127.0.0.1", ""][address];
            let conditions =
                [json!({}), json!({"ready": false}), json!({"ready": false, "serving": true, "terminating": true})];
            json!({"addresses": [address], "conditions": conditions[state]})
        });
        (self.metadata("e", 4), 0..4u8, prop::collection::vec(endpoint, 0..3), any::<bool>()).prop_map(
            |(mut metadata, service, endpoints, sound)| {
                metadata["labels"] = json!({"kubernetes.io/service-name": format!("s{service}")});
                let port = if sound { json!({"name": "http", "port": 8080}) } else { json!({"port": 0}) };
                read::<EndpointSlice>(json!({
                    "metadata": metadata, "addressType": "IPv4", "endpoints": endpoints, "ports": [port],
                }))
            },
        )
    }

    fn secret(self) -> impl Strategy<Value = Object> {
        let namespace = self.namespace;
        (0..3u8, 0..SECRETS.len()).prop_map(move |(number, kind)| secret(namespace, &format!("t{number}"), kind))
    }

    fn config_map(self) -> impl Strategy<Value = Object> {
        (self.metadata("m", 2), 0..4usize).prop_map(|(metadata, kind)| {
            let data = [
                json!({"X-Value": "a", "ca.crt": *AUTHORITY}),
                json!({"X-Value": "b", "Host": "x", "ca.crt": "nonsense"}),
                json!({"A\nb": "\n"}),
                json!({}),
            ];
            read::<ConfigMap>(json!({"metadata": metadata, "data": data[kind]}))
        })
    }

    fn parents(self) -> impl Strategy<Value = Vec<Value>> {
        let edge = prop::option::of(select(&["http", "https", "tls", "none"][..]))
            .prop_map(|section| json!({"namespace": "infra", "name": "edge", "sectionName": section}));
        let set = (self.place(), prop::option::of(0..4u8)).prop_map(|(place, section)| {
            let section = section.map(|section| format!("l{section}"));
            json!({"kind": "ListenerSet", "namespace": place, "name": "set0", "sectionName": section})
        });
        prop::collection::vec(prop_oneof![2 => edge, 1 => set], 1..3)
    }

    fn backends(self) -> impl Strategy<Value = Vec<Value>> {
        let backend =
            (0..4u8, self.place(), prop::option::of(0..3i32), 0..6u8).prop_map(|(service, place, weight, kind)| {
                let mut backend = json!({"name": format!("s{service}"), "namespace": place, "weight": weight});
                match kind {
                    0..2 => {
                        backend["group"] = json!("gateway.networking.x-k8s.io");
                        backend["kind"] = json!("XBackend");
                    }
                    2..4 => backend["port"] = json!(80),
                    _ => backend["port"] = json!(81),
                }
                backend
            });
        prop::collection::vec(backend, 0..3)
    }

    fn route_hosts(self) -> impl Strategy<Value = Vec<String>> {
        let least = usize::from(!self.any_host);
        prop::collection::vec(self.host(self.claims), least..3)
            .prop_map(|hosts| hosts.into_iter().filter(|host| !host.is_empty()).collect())
    }

    fn http_route(self) -> impl Strategy<Value = Object> {
        let rule = (0..PATHS.len(), 0..3usize, 0..6usize, self.backends(), self.place()).prop_map(
            |(path, kind, filter, backends, place)| {
                let kind = ["Exact", "PathPrefix", "RegularExpression"][kind];
                let filters = [
                    json!([]),
                    json!([]),
                    json!([{"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "A", "value": "$b\n"}]}}]),
                    json!([{"type": "CORS", "cors": {}}]),
                    json!([{"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "s0", "namespace": place, "port": 80}}}]),
                    json!([{"type": "ExtensionRef", "extensionRef": {"group": "a", "kind": "B", "name": "c"}}]),
                ];
                json!({
                    "name": format!("n{path}"), "matches": [{"path": {"type": kind, "value": PATHS[path]}}],
                    "filters": filters[filter], "backendRefs": backends,
                })
            },
        );
        let rules = prop::collection::vec(rule, 0..3);
        (self.metadata("r", 3), self.route_hosts(), self.parents(), rules).prop_map(
            |(metadata, hosts, parents, rules)| {
                read::<HTTPRoute>(
                    json!({"metadata": metadata, "spec": {"parentRefs": parents, "hostnames": hosts, "rules": rules}}),
                )
            },
        )
    }

    fn other_route(self) -> impl Strategy<Value = Object> {
        (self.metadata("r", 2), self.route_hosts(), self.parents(), self.backends(), 0..4u8).prop_map(
            |(metadata, hosts, parents, backends, kind)| {
                let rules = json!([{"backendRefs": backends}]);
                let named =
                    json!({"metadata": metadata, "spec": {"parentRefs": parents, "hostnames": hosts, "rules": rules}});
                match kind {
                    0 => {
                        read::<TCPRoute>(json!({"metadata": metadata, "spec": {"parentRefs": parents, "rules": rules}}))
                    }
                    1 | 2 => read::<TLSRoute>(named),
                    _ => read::<GRPCRoute>(named),
                }
            },
        )
    }

    fn listener_set(self) -> impl Strategy<Value = Object> {
        let Self { namespace, .. } = self;
        // An author who may add listeners is trusted with their names, so these are the tenant's own. So are the ports for TCP.
        let own: &'static [&'static str] = match namespace {
            "x" => &["x"],
            "y" => &["y"],
            _ => &["m"],
        };
        let port = match namespace {
            "x" => 9001,
            "y" => 9002,
            _ => 9003,
        };
        let Self { any_host: open, .. } = self;
        let listener = (self.host(own), 0..6usize, self.place(), 0..3u8, any::<bool>()).prop_map(
            move |(host, kind, place, secret, all)| {
                let (port, protocol, mode) = [
                    (80, "HTTP", "Terminate"),
                    (443, "HTTPS", "Terminate"),
                    (443, "TLS", "Passthrough"),
                    (8443, "TLS", "Terminate"),
                    (port, "TCP", "Terminate"),
                    (port, "HTTP", "Terminate"),
                ][kind];
                let host = (protocol != "TCP" && !host.is_empty()).then_some(host);
                json!({
                    "port": port, "protocol": protocol, "hostname": host,
                    "tls": {"mode": mode, "certificateRefs": [{"name": format!("t{secret}"), "namespace": place}]},
                    "allowedRoutes": {"namespaces": {"from": if all && open { "All" } else { "Same" }}},
                })
            },
        );
        (self.metadata("set", 1), prop::collection::vec(listener, 0..4)).prop_map(|(metadata, mut listeners)| {
            for (at, listener) in listeners.iter_mut().enumerate() {
                listener["name"] = json!(format!("l{at}"));
            }
            let parent = json!({"namespace": "infra", "name": "edge"});
            read::<ListenerSet>(json!({"metadata": metadata, "spec": {"parentRef": parent, "listeners": listeners}}))
        })
    }

    fn grant(self) -> impl Strategy<Value = Object> {
        (self.metadata("g", 2), select(&["x", "y", "m"][..]), 0..5usize, any::<bool>()).prop_map(
            |(metadata, namespace, kind, secret)| {
                let kind = ["HTTPRoute", "GRPCRoute", "ListenerSet", "RoutePolicy", "XBackend"][kind];
                let group = match kind {
                    "RoutePolicy" => "fairway.dev",
                    "XBackend" => "gateway.networking.x-k8s.io",
                    _ => "gateway.networking.k8s.io",
                };
                read::<ReferenceGrant>(json!({
                    "metadata": metadata,
                    "spec": {
                        "from": [{"group": group, "kind": kind, "namespace": namespace}],
                        "to": [
                            {"group": "", "kind": if secret { "Secret" } else { "Service" }},
                            {"group": "gateway.networking.x-k8s.io", "kind": "XBackend"},
                        ],
                    },
                }))
            },
        )
    }

    fn backend_policy(self) -> impl Strategy<Value = Object> {
        (self.metadata("p", 2), 0..4u8, 0..3u8, any::<bool>()).prop_map(|(metadata, service, map, named)| {
            read::<BackendTLSPolicy>(json!({
                "metadata": metadata,
                "spec": {
                    "targetRefs": [{
                        "group": "", "kind": "Service", "name": format!("s{service}"),
                        "sectionName": named.then_some("http"),
                    }],
                    "validation": {
                        "hostname": "backend.example",
                        "caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": format!("m{map}")}],
                    },
                },
            }))
        })
    }

    fn traffic_policy(self) -> impl Strategy<Value = Object> {
        (self.metadata("b", 2), 0..4u8, 0..120u8).prop_map(|(metadata, service, percent)| {
            read::<XBackendTrafficPolicy>(json!({
                "metadata": metadata,
                "spec": {
                    "targetRefs": [{"group": "", "kind": "Service", "name": format!("s{service}")}],
                    "retryConstraint": {"budget": {"percent": percent}},
                },
            }))
        })
    }

    fn xbackend(self) -> impl Strategy<Value = Object> {
        let tls = (0..4usize, self.place(), 0..3u8).prop_map(|(tls, place, number)| {
            let authorities = json!([{"group": "", "kind": "ConfigMap", "name": format!("m{number}")}]);
            let validation = json!({"hostname": "backend.example", "caCertificateRefs": authorities});
            let shown = json!({"name": format!("t{number}"), "namespace": place});
            [
                json!(null),
                json!({"mode": "ServerOnly", "validation": validation}),
                json!({"mode": "ClientAndServer", "validation": validation, "clientCertificateRef": shown}),
                json!({"mode": "Most"}),
            ][tls]
                .clone()
        });
        let kinds = [
            json!({"type": "ExternalHostname", "externalHostname": {"hostname": "outside.example"}}),
            json!({"type": "ExternalHostname", "externalHostname": {"hostname": "localhost"}}),
            json!({"type": "ExternalHostname", "externalHostname": {"hostname": "s0.x.svc.cluster.local"}}),
            json!({"type": "ExternalHostname"}),
            json!({"type": "EndpointSelector", "endpointSelector": {"matchLabels": {"a": "b"}}}),
            json!({
                "type": "EndpointSelector", "endpointSelector": {"matchLabels": {"a": "b"}},
                "sessionPersistence": {"type": "Header", "header": {"name": "x-session"}},
            }),
        ];
        let protocol = select(&[None, None, Some("TCP"), Some("H2C"), Some("WSS"), Some("MCP")][..]);
        (self.metadata("s", 4), select(kinds.to_vec()), tls, protocol, 0..3u16).prop_map(
            |(mut metadata, mut spec, tls, protocol, port)| {
                metadata["uid"] = json!("some");
                spec["port"] = json!({"number": 8080 * port});
                (spec["tls"], spec["protocol"]) = (tls, json!(protocol));
                read::<XBackend>(json!({"metadata": metadata, "spec": spec}))
            },
        )
    }

    fn telemetry_policy(self) -> impl Strategy<Value = Object> {
        (self.metadata("o", 2), 0..4u8, self.place(), any::<bool>()).prop_map(|(metadata, service, place, sound)| {
            let name = format!("s{service}");
            read::<XTelemetryPolicy>(json!({
                "metadata": metadata,
                "spec": {
                    "targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge"}],
                    "tracing": {
                        "mode": if sound { "Enabled" } else { "Perhaps" },
                        "provider": {"backendRef": {"name": name, "port": 80, "namespace": place}},
                    },
                },
            }))
        })
    }

    fn route_policy(self) -> impl Strategy<Value = Object> {
        let target = (0..5usize, 0..3u8, prop::option::of(0..3u8)).prop_map(|(kind, number, section)| {
            let (kind, name, part) = match kind {
                0..3 => ("HTTPRoute", format!("r{number}"), "n"),
                3 => ("ListenerSet", "set0".to_owned(), "l"),
                _ => ("Gateway", "edge".to_owned(), "http"),
            };
            json!({
                "group": "gateway.networking.k8s.io", "kind": kind, "name": name,
                "sectionName": section.map(|section| format!("{part}{section}")),
            })
        });
        let member =
            (0..11u8, prop::bool::weighted(0.8), self.place(), 0..3u8).prop_map(|(member, sound, place, number)| {
                let of = |good: Value, bad: Value| if sound { good } else { bad };
                match member {
                    0 => ("access", of(json!({"allow": ["10.0.0.0/8"]}), json!({"deny": ["ten"]}))),
                    1 => (
                        "basicAuth",
                        of(
                            json!({"secretRef": {"name": format!("t{number}")}}),
                            json!({"secretRef": {"name": "none"}}),
                        ),
                    ),
                    2 => (
                        "externalAuth",
                        of(json!({"url": format!("http://s{number}.{place}.svc/")}), json!({"url": "nonsense"})),
                    ),
                    3 => ("limits", of(json!({"requestsPerSecond": 7}), json!({}))),
                    4 => ("sessionCookie", json!({"name": "s"})),
                    5 => ("loadBalancing", of(json!({"algorithm": "Ewma"}), json!({"hashBy": "$$"}))),
                    6 => (
                        "errorPages",
                        json!({"statusCodes": [503], "backendRef": {"name": format!("s{number}"), "port": 80}}),
                    ),
                    7 => ("rewrite", of(json!({"path": "/a"}), json!({"path": "/$9"}))),
                    8 => ("request", of(json!({"maxBodySize": "8m"}), json!({"maxBodySize": "8 apples"}))),
                    9 => ("timeouts", json!({"readSeconds": 9})),
                    _ if sound => ("response", json!({"kilobytesPerSecond": 9})),
                    _ => ("newer", json!({"a": 1})),
                }
            });
        let members = prop::collection::vec(member, 0..3);
        (self.metadata("q", 3), prop::collection::vec(target, 1..3), members).prop_map(
            |(metadata, targets, members)| {
                let mut spec = json!({"targetRefs": targets});
                for (name, value) in members {
                    spec[name] = value;
                }
                read::<RoutePolicy>(json!({"metadata": metadata, "spec": spec}))
            },
        )
    }
}
