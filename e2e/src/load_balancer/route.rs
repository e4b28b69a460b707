//! Routes connections for a load balancer address to the Node chosen for it.
//!
//! Each connection stays with its first Node, as with cloud load balancers: choosing another Node for an address
//! affects only new connections. The first packet gets its Node's mark from a map, the connection keeps it, and the
//! mark selects the routing table.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::process::Command;

use crate::cluster::network::{NODES, feed, namespace, within};
use crate::load_balancer::pool;

/// Creates the table without any address, and its counterpart on each Node. Called once, in the cluster's own network.
pub(crate) fn set_up() -> anyhow::Result<()> {
    for node in NODES {
        within(&namespace(node.name), set_up_node)?;
    }
    let (first, last) = (pool::FIRST, pool::LAST);
    nft(&format!(
        "table ip load-balancer {{
            map nodes {{ type ipv4_addr : mark; }}
            chain output {{
                type route hook output priority mangle;
                ip daddr {first}-{last} ct state new ct mark set ip daddr map @nodes
                ip daddr {first}-{last} meta mark set ct mark
            }}
        }}\n"
    ))
}

/// Drops packets to an address that kube-proxy does not know yet. If one passed, the kernel would remember the
/// connection as untranslated, and the client's next attempts would be lost like the first.
fn set_up_node() -> anyhow::Result<()> {
    let (first, last) = (pool::FIRST, pool::LAST);
    nft(&format!(
        "table ip load-balancer {{
            chain forward {{
                type filter hook forward priority filter;
                ip daddr {first}-{last} drop
            }}
        }}\n"
    ))
}

/// From now on new connections to each address go to its Node; those to another address of the pool are dropped.
pub(crate) fn replace(routes: &BTreeMap<Ipv4Addr, String>) -> anyhow::Result<()> {
    nft(&script(routes))
}

fn script(routes: &BTreeMap<Ipv4Addr, String>) -> String {
    let mut script = "flush map ip load-balancer nodes\n".to_owned();
    for (address, name) in routes {
        if let Some(node) = NODES.iter().find(|node| node.name == name) {
            script += &format!("add element ip load-balancer nodes {{ {address} : {} }}\n", node.mark);
        }
    }
    script
}

/// One transaction.
fn nft(script: &str) -> anyhow::Result<()> {
    feed(Command::new("nft").args(["-f", "-"]), script)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_addresses_are_replaced_at_once() {
        let address = Ipv4Addr::new(198, 19, 0, 200);
        let routes =
            BTreeMap::from([(address, "node-b".to_owned()), (Ipv4Addr::new(198, 19, 0, 201), "gone".to_owned())]);
        let expected = "flush map ip load-balancer nodes\n\
                        add element ip load-balancer nodes { 198.19.0.200 : 102 }\n";
        assert_eq!(script(&routes), expected);
    }
}
