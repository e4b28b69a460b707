//! The addresses under which users reach the proxy, as shown in the status of an Ingress.

use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Node, Pod, Service};
use k8s_openapi::api::networking::v1::{IngressLoadBalancerIngress, IngressStatus};
use serde::Serialize;

/// One entry of `status.loadBalancer.ingress`: an IP address or a name, never both. Ordered as in ingress-nginx: by
/// name, then by the text of the address, so addresses come first.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize)]
pub(crate) struct Address {
    #[serde(skip_serializing_if = "String::is_empty")]
    hostname: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    ip: String,
}

/// Sorted, without duplicates.
pub(crate) type Addresses = BTreeSet<Address>;

impl Address {
    /// Parses an IP address, or else a name. `None` if it is empty.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        let text = text.trim();
        match text.parse::<IpAddr>() {
            Ok(ip) => Some(Self { hostname: String::new(), ip: ip.to_string() }),
            Err(_) if text.is_empty() => None,
            Err(_) => Some(Self { hostname: text.to_owned(), ip: String::new() }),
        }
    }

    /// Whether it is an IP address.
    pub(crate) fn is_ip(&self) -> bool {
        !self.ip.is_empty()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.ip.is_empty() { &self.hostname } else { &self.ip })
    }
}

/// The addresses as a log shows them.
pub(crate) fn listed(addresses: &Addresses) -> String {
    addresses.iter().map(Address::to_string).collect::<Vec<_>>().join(", ")
}

/// The addresses that an Ingress shows now. Ports are ignored, as they are never compared.
pub(crate) fn of_ingress(status: Option<&IngressStatus>) -> Addresses {
    let entries = status.and_then(|status| status.load_balancer.as_ref()?.ingress.as_ref());
    let entry = |entry: &IngressLoadBalancerIngress| Address {
        hostname: entry.hostname.clone().unwrap_or_default(),
        ip: entry.ip.clone().unwrap_or_default(),
    };
    entries.into_iter().flatten().map(entry).collect()
}

/// The addresses of the Service in front of the proxy. Empty until the load balancer has one.
pub(crate) fn of_service(service: &Service) -> Addresses {
    let Some(spec) = &service.spec else { return Addresses::new() };
    let external = || spec.external_ips.iter().flatten().map(String::as_str);
    let cluster = || spec.cluster_ip.as_deref().filter(|ip| *ip != "None").into_iter();
    let texts: Vec<&str> = match spec.type_.as_deref().unwrap_or("ClusterIP") {
        "LoadBalancer" => {
            let balancer = service.status.as_ref().and_then(|status| status.load_balancer.as_ref());
            let entries = balancer.and_then(|balancer| balancer.ingress.as_ref()).into_iter().flatten();
            entries
                .flat_map(|entry| {
                    let ip = entry.ip.as_deref().filter(|ip| !ip.is_empty());
                    ip.or(entry.hostname.as_deref())
                })
                .chain(external())
                .collect()
        }
        "NodePort" if external().next().is_some() => external().collect(),
        "NodePort" | "ClusterIP" => cluster().collect(),
        "ExternalName" => spec.external_name.as_deref().into_iter().collect(),
        _ => Vec::new(),
    };
    texts.into_iter().filter_map(Address::from_text).collect()
}

/// The address of a node: an external one, else the first internal one; `internal` selects the internal one only.
pub(crate) fn of_node(node: &Node, internal: bool) -> Option<Address> {
    let addresses = || node.status.iter().flat_map(|status| status.addresses.iter().flatten());
    let of_type = |kind| addresses().find(|address| address.type_ == kind && !address.address.is_empty());
    let external = if internal { None } else { of_type("ExternalIP") };
    Address::from_text(&external.or_else(|| of_type("InternalIP"))?.address)
}

/// Whether a pod receives traffic, so that its node counts.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    let ready = |(kind, state): (&str, &str)| kind == "Ready" && state == "True";
    status.phase.as_deref() == Some("Running")
        && status.conditions.iter().flatten().any(|condition| ready((&condition.type_, &condition.status)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn texts(addresses: &Addresses) -> Vec<&str> {
        addresses.iter().map(|a| if a.ip.is_empty() { a.hostname.as_str() } else { a.ip.as_str() }).collect()
    }

    fn service(value: serde_json::Value) -> Service {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn service_types_give_the_addresses_of_ingress_nginx() {
        let external = json!(["192.0.2.9", "192.0.2.9"]);
        let balanced = service(json!({
            "spec": {"type": "LoadBalancer", "externalIPs": external, "clusterIP": "10.0.0.1"},
            "status": {"loadBalancer": {"ingress": [{"hostname": "lb.example.com"}, {"ip": "192.0.2.1"}]}},
        }));
        assert_eq!(texts(&of_service(&balanced)), ["192.0.2.1", "192.0.2.9", "lb.example.com"]);
        for (spec, expected) in [
            (json!({"type": "LoadBalancer", "clusterIP": "10.0.0.1"}), vec![]),
            (json!({"type": "NodePort", "externalIPs": external, "clusterIP": "10.0.0.1"}), vec!["192.0.2.9"]),
            (json!({"type": "NodePort", "clusterIP": "10.0.0.1"}), vec!["10.0.0.1"]),
            (json!({"clusterIP": "10.0.0.1", "externalIPs": external}), vec!["10.0.0.1"]),
            (json!({"clusterIP": "None"}), vec![]),
            (json!({"type": "ExternalName", "externalName": "a.example.com"}), vec!["a.example.com"]),
        ] {
            assert_eq!(texts(&of_service(&service(json!({"spec": spec})))), expected, "{spec}");
        }
    }

    #[test]
    fn nodes_prefer_their_external_address() {
        let node: Node = serde_json::from_value(json!({"status": {"addresses": [
            {"type": "Hostname", "address": "n1"},
            {"type": "InternalIP", "address": "10.1.0.1"},
            {"type": "ExternalIP", "address": "192.0.2.4"},
        ]}}))
        .unwrap();
        assert_eq!(of_node(&node, false), Address::from_text("192.0.2.4"));
        assert_eq!(of_node(&node, true), Address::from_text("10.1.0.1"));
        assert_eq!(of_node(&Node::default(), false), None);
    }

    #[test]
    fn addresses_go_to_ip_and_names_to_hostname() {
        let addresses: Addresses =
            ["b.example.com", "2001:DB8::1", " 192.0.2.1", ""].into_iter().filter_map(Address::from_text).collect();
        assert_eq!(
            serde_json::to_value(&addresses).unwrap(),
            json!([{"ip": "192.0.2.1"}, {"ip": "2001:db8::1"}, {"hostname": "b.example.com"}])
        );
    }
}
