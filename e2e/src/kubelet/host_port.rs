//! Ports of the Node that lead to pods: rules in our own table, like those of the `portmap` plugin. The client's
//! address is kept, except for a pod that calls itself by the Node's port.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::process::Stdio;

use anyhow::Context as _;
use k8s_openapi::api::core::v1::Pod;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::sync::Mutex;

/// One port of the Node.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Mapping {
    /// Only on this address of the Node.
    pub host: Option<IpAddr>,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: &'static str,
    /// Port of the Node.
    pub host_port: u16,
    /// The pod.
    pub address: Ipv4Addr,
    /// Port of the pod.
    pub port: u16,
}

/// The ports that a pod requests of its Node.
pub(crate) fn mappings(pod: &Pod, address: Ipv4Addr) -> Vec<Mapping> {
    let Some(spec) = &pod.spec else { return Vec::new() };
    if spec.host_network == Some(true) {
        return Vec::new();
    }
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    let mapping = ports.filter_map(|port| {
        let number = |port: i32| u16::try_from(port).ok().filter(|port| *port > 0);
        Some(Mapping {
            host: port.host_ip.as_ref().and_then(|ip| ip.parse().ok()).filter(|ip: &IpAddr| !ip.is_unspecified()),
            protocol: match port.protocol.as_deref() {
                Some("UDP") => "udp",
                Some("SCTP") => "sctp",
                _ => "tcp",
            },
            host_port: number(port.host_port?)?,
            address,
            port: number(port.container_port)?,
        })
    });
    mapping.collect()
}

/// All ports of the Node.
#[derive(Debug, Default)]
pub(crate) struct HostPorts(Mutex<BTreeMap<String, Vec<Mapping>>>);

impl HostPorts {
    /// Sets the ports of the pod with this uid; an empty list removes its rules.
    ///
    /// # Errors
    /// If `nft` rejects the rules.
    pub(crate) async fn set(&self, uid: &str, wanted: Vec<Mapping>) -> anyhow::Result<()> {
        let mut all = self.0.lock().await;
        let before = if wanted.is_empty() { all.remove(uid) } else { all.insert(uid.to_owned(), wanted.clone()) };
        if before.unwrap_or_default() == wanted {
            return Ok(());
        }
        apply(&rules(all.values().flatten())).await
    }

    /// Removes the rules of an earlier kubelet.
    ///
    /// # Errors
    /// If `nft` does not run.
    pub(crate) async fn clear(&self) -> anyhow::Result<()> {
        apply(&rules([].iter())).await
    }
}

/// The whole table, replacing the existing one in one step.
fn rules<'a>(mappings: impl Iterator<Item = &'a Mapping>) -> String {
    let (mut ports, mut own) = (String::new(), String::new());
    for Mapping { host, protocol, host_port, address, port } in mappings {
        let host = host.map(|host| format!("ip daddr {host} ")).unwrap_or_default();
        let _ = writeln!(ports, "    {host}{protocol} dport {host_port} dnat to {address}:{port}");
        let _ = writeln!(
            own,
            "    ip saddr {address} ip daddr {address} {protocol} dport {port} ct status dnat masquerade"
        );
    }
    format!(
        "table ip fairway-hostport\ndelete table ip fairway-hostport\ntable ip fairway-hostport {{\n  \
         chain ports {{\n{ports}  }}\n  \
         chain prerouting {{\n    type nat hook prerouting priority dstnat; policy accept;\n    \
         fib daddr type local jump ports\n  }}\n  \
         chain output {{\n    type nat hook output priority -100; policy accept;\n    \
         ip daddr != 127.0.0.0/8 fib daddr type local jump ports\n  }}\n  \
         chain postrouting {{\n    type nat hook postrouting priority srcnat; policy accept;\n{own}  }}\n}}\n"
    )
}

async fn apply(rules: &str) -> anyhow::Result<()> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting nft (package nftables)")?;
    if let Some(mut input) = child.stdin.take() {
        input.write_all(rules.as_bytes()).await.context("writing to nft")?;
    }
    let output = child.wait_with_output().await.context("waiting for nft")?;
    anyhow::ensure!(output.status.success(), "nft: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ports_that_ask_for_the_node_lead_to_the_pod() {
        let pod = |host_network: bool| -> Pod {
            serde_json::from_value(serde_json::json!({ "spec": { "hostNetwork": host_network, "containers": [{
                "name": "c",
                "ports": [
                    { "containerPort": 8080, "hostPort": 80 },
                    { "containerPort": 8443 },
                    { "containerPort": 53, "hostPort": 53, "protocol": "UDP", "hostIP": "198.19.0.11" },
                    { "containerPort": 1, "hostPort": 1, "hostIP": "0.0.0.0" },
                ],
            }] } }))
            .expect("a pod")
        };
        let address = Ipv4Addr::new(198, 18, 1, 2);
        assert_eq!(mappings(&pod(true), address), []);
        let text = rules(mappings(&pod(false), address).iter());
        for line in [
            "    tcp dport 80 dnat to 198.18.1.2:8080\n",
            "    ip daddr 198.19.0.11 udp dport 53 dnat to 198.18.1.2:53\n",
            "    tcp dport 1 dnat to 198.18.1.2:1\n",
        ] {
            assert!(text.contains(line), "{text}");
        }
        assert!(!text.contains("8443"));
    }
}
