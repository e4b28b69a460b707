//! The Node for each address.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};

use crate::cluster::ready::is_ready;

/// A Node with this label gets no traffic from load balancers.
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// The input of the choice.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    pub(crate) nodes: &'a [&'a Node],
    pub(crate) slices: &'a [&'a EndpointSlice],
}

/// The Node for `service`, whose current one is `current`. `load` counts the addresses that already lead to each Node.
///
/// With `externalTrafficPolicy: Local` it is one with a ready endpoint or, if no Node has one, with a terminating endpoint that still
/// serves (kube-proxy also uses those). Otherwise any Node that is ready and schedulable. An address stays with its Node while that remains
/// usable; a cordoned Node does, because kube-proxy continues there.
pub(crate) fn node(
    service: &Service,
    current: Option<&str>,
    load: &BTreeMap<String, usize>,
    view: View<'_>,
) -> Option<String> {
    let working = names(view.nodes.iter().filter(|node| is_ready(node) && !is_excluded(node)));
    let (acceptable, preferred) = if is_local(service) {
        let ready = with_endpoints(service, view.slices, |endpoint| condition(endpoint, |it| it.ready, true));
        let serving = with_endpoints(service, view.slices, |endpoint| condition(endpoint, |it| it.serving, false));
        let ready: BTreeSet<&str> = working.intersection(&ready).copied().collect();
        let serving: BTreeSet<&str> = working.intersection(&serving).copied().collect();
        let acceptable = if ready.is_empty() { serving } else { ready };
        (acceptable.clone(), acceptable)
    } else {
        let open = names(view.nodes.iter().filter(|node| !is_cordoned(node)));
        let open: BTreeSet<&str> = working.intersection(&open).copied().collect();
        let preferred = if open.is_empty() { working.clone() } else { open };
        (working, preferred)
    };
    if let Some(current) = current.filter(|current| acceptable.contains(current)) {
        return Some(current.to_owned());
    }
    let least = preferred.into_iter().min_by_key(|name| (load.get(*name).copied().unwrap_or(0), *name));
    least.map(str::to_owned)
}

/// The Node of every address. `services` are those with an address; `routes` are the current Nodes.
pub(crate) fn all(
    services: &[(&Service, Ipv4Addr)],
    routes: &BTreeMap<Ipv4Addr, String>,
    view: View<'_>,
) -> BTreeMap<Ipv4Addr, String> {
    let mut load = BTreeMap::new();
    for name in services.iter().filter_map(|(_, address)| routes.get(address)) {
        *load.entry(name.clone()).or_default() += 1;
    }
    let mut chosen = BTreeMap::new();
    for (service, address) in services {
        let current = routes.get(address).map(String::as_str);
        let Some(name) = node(service, current, &load, view) else { continue };
        if current != Some(name.as_str()) {
            *load.entry(name.clone()).or_default() += 1;
        }
        chosen.insert(*address, name);
    }
    chosen
}

fn is_local(service: &Service) -> bool {
    service.spec.as_ref().is_some_and(|spec| spec.external_traffic_policy.as_deref() == Some("Local"))
}

fn is_cordoned(node: &Node) -> bool {
    node.spec.as_ref().is_some_and(|spec| spec.unschedulable == Some(true))
}

fn is_excluded(node: &Node) -> bool {
    node.metadata.labels.as_ref().is_some_and(|labels| labels.contains_key(EXCLUDED))
}

fn names<'a>(nodes: impl Iterator<Item = &'a &'a Node>) -> BTreeSet<&'a str> {
    nodes.filter_map(|node| node.metadata.name.as_deref()).collect()
}

fn condition(
    endpoint: &Endpoint,
    choose: impl Fn(&k8s_openapi::api::discovery::v1::EndpointConditions) -> Option<bool>,
    unset: bool,
) -> bool {
    endpoint.conditions.as_ref().and_then(choose).unwrap_or(unset)
}

/// The Nodes with an endpoint of `service` that satisfies `fits`.
fn with_endpoints<'a>(
    service: &Service,
    slices: &[&'a EndpointSlice],
    fits: impl Fn(&Endpoint) -> bool,
) -> BTreeSet<&'a str> {
    let belongs = |slice: &&&EndpointSlice| {
        let label = slice.metadata.labels.as_ref().and_then(|labels| labels.get("kubernetes.io/service-name"));
        slice.metadata.namespace == service.metadata.namespace && label == service.metadata.name.as_ref()
    };
    let endpoints = slices.iter().filter(belongs).flat_map(|slice| slice.endpoints.iter().flatten());
    endpoints.filter(|endpoint| fits(endpoint)).filter_map(|endpoint| endpoint.node_name.as_deref()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    fn member(name: &str, ready: bool, cordoned: bool) -> Node {
        let status = if ready { "True" } else { "False" };
        object(json!({
            "metadata": {"name": name},
            "spec": {"unschedulable": cordoned},
            "status": {"conditions": [{"type": "Ready", "status": status}]},
        }))
    }

    fn service(policy: &str) -> Service {
        let spec = json!({"type": "LoadBalancer", "externalTrafficPolicy": policy});
        object(json!({"metadata": {"namespace": "default", "name": "web"}, "spec": spec}))
    }

    /// One endpoint per Node: its name, ready, serving.
    fn slice(endpoints: &[(&str, bool, bool)]) -> EndpointSlice {
        let endpoint = |(node, ready, serving): &(&str, bool, bool)| json!({"addresses": ["198.18.1.2"], "nodeName": node, "conditions": {"ready": ready, "serving": serving}});
        let endpoints: Vec<Value> = endpoints.iter().map(endpoint).collect();
        let labels = json!({"kubernetes.io/service-name": "web"});
        let metadata = json!({"namespace": "default", "name": "web-1", "labels": labels});
        object(json!({"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints}))
    }

    fn choose(service: &Service, current: Option<&str>, nodes: &[Node], slices: &[EndpointSlice]) -> Option<String> {
        let (nodes, slices): (Vec<_>, Vec<_>) = (nodes.iter().collect(), slices.iter().collect());
        node(service, current, &BTreeMap::new(), View { nodes: &nodes, slices: &slices })
    }

    fn both() -> [Node; 2] {
        [member("node-a", true, false), member("node-b", true, false)]
    }

    #[test]
    fn a_new_address_avoids_nodes_that_are_cordoned_or_not_ready() {
        let cluster = service("Cluster");
        assert_eq!(choose(&cluster, None, &both(), &[]).as_deref(), Some("node-a"));
        for first in [member("node-a", false, false), member("node-a", true, true)] {
            let nodes = [first, member("node-b", true, false)];
            assert_eq!(choose(&cluster, None, &nodes, &[]).as_deref(), Some("node-b"));
        }
        let cordoned = [member("node-a", true, true)];
        assert_eq!(choose(&cluster, None, &cordoned, &[]).as_deref(), Some("node-a"));
        assert_eq!(choose(&cluster, None, &[], &[]), None);
    }

    #[test]
    fn a_cordoned_node_keeps_its_addresses_one_that_is_not_ready_loses_them() {
        let cluster = service("Cluster");
        let nodes = [member("node-a", true, true), member("node-b", true, false)];
        assert_eq!(choose(&cluster, Some("node-a"), &nodes, &[]).as_deref(), Some("node-a"));
        let nodes = [member("node-a", false, false), member("node-b", true, false)];
        assert_eq!(choose(&cluster, Some("node-a"), &nodes, &[]).as_deref(), Some("node-b"));
    }

    #[test]
    fn an_excluded_node_loses_its_addresses() {
        let mut nodes = both();
        nodes[0].metadata.labels = Some([(EXCLUDED.to_owned(), String::new())].into());
        assert_eq!(choose(&service("Cluster"), Some("node-a"), &nodes, &[]).as_deref(), Some("node-b"));
    }

    #[test]
    fn local_follows_the_ready_endpoints() {
        let local = service("Local");
        let slices = [slice(&[("node-a", false, false), ("node-b", true, true)])];
        assert_eq!(choose(&local, Some("node-a"), &both(), &slices).as_deref(), Some("node-b"));
        let slices = [slice(&[("node-a", true, true), ("node-b", true, true)])];
        assert_eq!(choose(&local, Some("node-b"), &both(), &slices).as_deref(), Some("node-b"));
        assert_eq!(choose(&local, Some("node-a"), &both(), &[]), None);
    }

    #[test]
    fn local_takes_an_ending_endpoint_only_when_none_is_ready() {
        let local = service("Local");
        let slices = [slice(&[("node-a", false, true), ("node-b", true, true)])];
        assert_eq!(choose(&local, Some("node-a"), &both(), &slices).as_deref(), Some("node-b"));
        let slices = [slice(&[("node-a", false, false), ("node-b", false, true)])];
        assert_eq!(choose(&local, None, &both(), &slices).as_deref(), Some("node-b"));
    }

    #[test]
    fn endpoints_of_others_do_not_count() {
        let mut other = slice(&[("node-b", true, true)]);
        other.metadata.namespace = Some("other".to_owned());
        assert_eq!(choose(&service("Local"), None, &both(), &[other]), None);
    }

    #[test]
    fn addresses_are_spread() {
        let cluster = service("Cluster");
        let address = |last| Ipv4Addr::new(198, 19, 0, last);
        let nodes = both();
        let nodes: Vec<&Node> = nodes.iter().collect();
        let view = View { nodes: &nodes, slices: &[] };
        let services = [(&cluster, address(200)), (&cluster, address(201)), (&cluster, address(202))];
        let routes = BTreeMap::from([(address(200), "node-a".to_owned())]);
        let chosen: Vec<String> = all(&services, &routes, view).into_values().collect();
        assert_eq!(chosen, ["node-a", "node-b", "node-a"]);
    }
}
