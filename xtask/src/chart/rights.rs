//! The complete list of rights that the chart grants the controller at the API server, so that an added right shows up in review.

use serde_json::{Value as Json, json};

use super::Helm;
use super::helm::objects;

/// Rights that each replica needs for itself.
const OWN: [&str; 4] = [
    "ingress-nginx: create leases",
    "ingress-nginx: get deployments ingress-nginx-controller",
    "ingress-nginx: get update leases ingress-nginx-leader",
    "ingress-nginx: get list pods",
];

/// Rights in every served namespace.
const SERVED: [&str; 7] = [
    "create events",
    "list watch configmaps",
    "list watch endpointslices",
    "list watch ingresses",
    "list watch secrets",
    "list watch services",
    "patch ingresses/status",
];

/// Rights on pods that wait for the proxies.
const GATE: [&str; 2] = ["list watch pods", "patch pods/status"];

/// Rights on the Gateway API in every served namespace.
const GATEWAYS: [&str; 25] = [
    "list watch backendtlspolicies",
    "list watch gateways",
    "list watch grpcroutes",
    "list watch httproutes",
    "list watch listenersets",
    "list watch referencegrants",
    "list watch routepolicies",
    "list watch tcproutes",
    "list watch tlsroutes",
    "list watch udproutes",
    "list watch xbackends",
    "list watch xbackendtrafficpolicies",
    "list watch xtelemetrypolicies",
    "patch backendtlspolicies/status",
    "patch gateways/status",
    "patch grpcroutes/status",
    "patch httproutes/status",
    "patch listenersets/status",
    "patch routepolicies/status",
    "patch tcproutes/status",
    "patch tlsroutes/status",
    "patch udproutes/status",
    "patch xbackends/status",
    "patch xbackendtrafficpolicies/status",
    "patch xtelemetrypolicies/status",
];

/// Rights on routes, to show who has observed them.
const OBSERVED: [&str; 5] =
    ["patch grpcroutes", "patch httproutes", "patch tcproutes", "patch tlsroutes", "patch udproutes"];

/// Rights on the Services of Gateways with addresses of their own.
const ADDRESSES: [&str; 3] =
    ["create patch delete endpointslices", "create patch delete services", "list watch gatewayparameters"];

/// Rights on GatewayClasses.
const CLASSES: [&str; 2] = ["list watch gatewayclasses", "patch gatewayclasses/status"];

/// Complains about rights that differ from this list.
pub(crate) fn check(helm: &Helm) -> anyhow::Result<Vec<String>> {
    let of = |namespace: &'static str, rights: &[&str]| {
        rights.iter().map(move |right| format!("{namespace}: {right}")).collect::<Vec<_>>()
    };
    let own = OWN.map(str::to_owned).to_vec();
    // Ingresses of a namespace under deletion yield to others, wherever there are several namespaces.
    let cluster = || [of("*", &SERVED), of("*", &["list watch ingressclasses", "list watch namespaces"])].concat();
    let elsewhere = json!({"controller": {"publishService": {"enabled": false}}});
    let cases = [
        ("the default", json!({}), [cluster(), own.clone()].concat()),
        ("node addresses", elsewhere, [cluster(), of("*", &["get nodes"]), own.clone()].concat()),
        (
            "routing by zone",
            json!({"controller": {"enableTopologyAwareRouting": true}}),
            [cluster(), of("*", &["get nodes"]), own.clone()].concat(),
        ),
        (
            "namespaces by label",
            json!({"controller": {"scope": {"namespaceSelector": "team=a"}}}),
            [cluster(), own.clone()].concat(),
        ),
        (
            "the readiness gate of pods",
            json!({"controller": {"readinessGate": {"enabled": true}}}),
            [cluster(), of("*", &GATE), own.clone(), of("ingress-nginx", &["list watch patch leases"])].concat(),
        ),
        (
            "Ingresses that show who has observed them",
            json!({"controller": {"observed": {"enabled": true}}}),
            [cluster(), own.clone(), of("ingress-nginx", &["list watch patch leases"])].concat(),
        ),
        (
            "routes that show who has observed them",
            json!({"controller": {"observed": {"enabled": true}, "gatewayAPI": {"enabled": true}}}),
            [
                cluster(),
                of("*", &GATEWAYS),
                of("*", &OBSERVED),
                of("*", &CLASSES),
                own.clone(),
                of("ingress-nginx", &["list watch patch leases"]),
            ]
            .concat(),
        ),
        (
            "the readiness gate of pods, without an election",
            json!({"controller": {
                "readinessGate": {"enabled": true},
                "disableLeaderElection": true,
                "extraArgs": {"update-status-on-shutdown": false},
            }}),
            [cluster(), of("*", &GATE), of("ingress-nginx", &["create leases", "get pods", "list watch patch leases"])]
                .concat(),
        ),
        (
            "the Gateway API",
            json!({"controller": {"gatewayAPI": {"enabled": true}}}),
            [cluster(), of("*", &GATEWAYS), of("*", &CLASSES), own.clone()].concat(),
        ),
        (
            "Gateways with addresses of their own",
            json!({"controller": {"gatewayAPI": {"enabled": true, "address": "asked"}}}),
            [cluster(), of("*", &GATEWAYS), of("*", &ADDRESSES), of("*", &CLASSES), own.clone()].concat(),
        ),
        (
            "the Gateway API in one namespace, by a flag",
            json!({"controller": {"scope": {"enabled": true}, "extraArgs": {"gateway-api": ""}}}),
            [
                of("*", &["list watch ingressclasses"]),
                of("*", &CLASSES),
                of("ingress-nginx", &SERVED),
                of("ingress-nginx", &GATEWAYS),
                own.clone(),
            ]
            .concat(),
        ),
        (
            "no status",
            json!({"controller": {"extraArgs": {"update-status": "false"}}}),
            cluster().into_iter().filter(|right| !right.contains("status")).collect(),
        ),
        (
            "no election, and addresses stay",
            json!({"controller": {"disableLeaderElection": true, "extraArgs": {"update-status-on-shutdown": false}}}),
            cluster(),
        ),
        (
            "a DaemonSet beside the Deployment",
            json!({"controller": {"kind": "Both"}}),
            [cluster(), own.clone(), vec!["ingress-nginx: get daemonsets ingress-nginx-controller".to_owned()]]
                .concat(),
        ),
        (
            "controllers in pods of their own",
            json!({"controller": {"mode": "split", "kind": "DaemonSet"}}),
            [
                cluster(),
                of("*", &["create tokenreviews"]),
                OWN.map(|right| right.replace("ingress-nginx-controller", "ingress-nginx-control")).to_vec(),
                of(
                    "ingress-nginx",
                    &[
                        "create configmaps",
                        "create secrets",
                        "get update configmaps ingress-nginx-control",
                        "get update secrets ingress-nginx-control",
                    ],
                ),
            ]
            .concat(),
        ),
        (
            "its own namespace",
            json!({"controller": {"scope": {"enabled": true}}}),
            [of("*", &["list watch ingressclasses"]), of("ingress-nginx", &SERVED), own.clone()].concat(),
        ),
        (
            "another namespace",
            json!({
                "controller": {
                    "scope": {"enabled": true, "namespace": "shop"},
                    "publishService": {"pathOverride": "edge/lb"},
                    "extraArgs": {"default-ssl-certificate": "certificates/wildcard"},
                },
                "defaultBackend": {"enabled": true},
                "rbac": {"scope": true},
            }),
            [
                of("shop", &SERVED),
                of("edge", &["list watch services lb"]),
                of("certificates", &["create events", "list watch secrets"]),
                of(
                    "ingress-nginx",
                    &["create events", "list watch configmaps", "list watch endpointslices", "list watch services"],
                ),
                own.clone(),
            ]
            .concat(),
        ),
        (
            "objects in many namespaces",
            json!({
                "controller": {
                    "scope": {"enabled": true, "namespace": "shop"},
                    "configMapNamespace": "settings",
                    "tcp": {"configMapNamespace": "databases"},
                    "udp": {"configMapNamespace": "names"},
                    "extraArgs": {"default-backend-service": "errors/pages"},
                },
                "tcp": {"5432": "shop/postgres:5432"},
                "udp": {"53": "shop/dns:53"},
            }),
            [
                of("*", &["list watch ingressclasses"]),
                of("shop", &SERVED),
                of("settings", &["create events", "list watch configmaps"]),
                of("databases", &["create events", "list watch configmaps"]),
                of("names", &["create events", "list watch configmaps"]),
                of("errors", &["create events", "list watch endpointslices", "list watch services"]),
                of("ingress-nginx", &["list watch services ingress-nginx-controller"]),
                own,
            ]
            .concat(),
        ),
    ];
    let mut complaints = Vec::new();
    for (name, values, mut wanted) in cases {
        let mut found = rights(&objects(&helm.render("rights", &values)?)?);
        found.sort_unstable();
        wanted.sort_unstable();
        if found != wanted {
            complaints.push(format!("rights, {name}:\n  found  {}\n  wanted {}", found.join(", "), wanted.join(", ")));
        }
    }
    Ok(complaints)
}

/// One line for each resource of a rule: where, the verbs, the resource and its names.
fn rights(objects: &[Json]) -> Vec<String> {
    let words =
        |value: &Json| value.as_array().into_iter().flatten().filter_map(Json::as_str).collect::<Vec<_>>().join(" ");
    let mut rights = Vec::new();
    for object in objects {
        let namespace = match object["kind"].as_str() {
            Some("ClusterRole") => "*",
            Some("Role") => object["metadata"]["namespace"].as_str().unwrap_or_default(),
            _ => continue,
        };
        for rule in object["rules"].as_array().into_iter().flatten() {
            for resource in rule["resources"].as_array().into_iter().flatten().filter_map(Json::as_str) {
                let right =
                    format!("{namespace}: {} {resource} {}", words(&rule["verbs"]), words(&rule["resourceNames"]));
                rights.push(right.trim_end().to_owned());
            }
        }
    }
    rights
}
