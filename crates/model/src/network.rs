//! Sets of networks, for access lists and trusted peers.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// A set of IPv4 and IPv6 networks. Kept as sorted, merged ranges, so that a lookup among thousands is a binary search.
/// Cloning one copies a pointer: many routes have the same set.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(from = "Vec<IpNet>", into = "Vec<IpNet>")]
pub struct NetworkSet(Arc<Ranges>);

#[derive(Debug, Default, Eq, PartialEq)]
struct Ranges {
    networks: Vec<IpNet>,
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl NetworkSet {
    /// Whether the address lies in one of the networks. An IPv4 address mapped into IPv6 counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        fn within<T: Ord + Copy>(ranges: &[(T, T)], address: T) -> bool {
            let after = ranges.partition_point(|&(first, _)| first <= address);
            after > 0 && address <= ranges[after - 1].1
        }
        match address.to_canonical() {
            IpAddr::V4(v4) => within(&self.0.v4, v4.to_bits()),
            IpAddr::V6(v6) => within(&self.0.v6, v6.to_bits()),
        }
    }

    /// Whether no address is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.networks.is_empty()
    }

    /// The networks as they were given, host bits cleared.
    pub fn networks(&self) -> &[IpNet] {
        &self.0.networks
    }
}

impl From<Vec<IpNet>> for NetworkSet {
    fn from(networks: Vec<IpNet>) -> Self {
        networks.into_iter().collect()
    }
}

impl FromIterator<IpNet> for NetworkSet {
    fn from_iter<I: IntoIterator<Item = IpNet>>(networks: I) -> Self {
        let networks: Vec<_> = networks.into_iter().map(|network| network.trunc()).collect();
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in &networks {
            match network {
                IpNet::V4(net) => v4.push((net.network().to_bits(), net.broadcast().to_bits())),
                IpNet::V6(net) => v6.push((net.network().to_bits(), net.broadcast().to_bits())),
            }
        }
        Self(Arc::new(Ranges { networks, v4: merged(v4), v6: merged(v6) }))
    }
}

impl From<NetworkSet> for Vec<IpNet> {
    fn from(set: NetworkSet) -> Self {
        set.0.networks.clone()
    }
}

fn merged<T: Ord + Copy>(mut ranges: Vec<(T, T)>) -> Vec<(T, T)> {
    ranges.sort_unstable();
    let mut out: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for (first, last) in ranges {
        match out.last_mut() {
            Some(previous) if first <= previous.1 => previous.1 = previous.1.max(last),
            _ => out.push((first, last)),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn agrees_with_asking_each_network(
            nets in proptest::collection::vec((any::<u32>(), 0u8..=32), 0..20),
            address in any::<u32>(),
        ) {
            let nets: Vec<IpNet> = nets.into_iter()
                .map(|(bits, len)| IpNet::new(IpAddr::V4(bits.into()), len).unwrap()).collect();
            let address = IpAddr::V4(address.into());
            let expected = nets.iter().any(|net| net.contains(&address));
            prop_assert_eq!(NetworkSet::from(nets).contains(address), expected);
        }
    }

    #[test]
    fn mapped_addresses_count_as_ipv4() {
        let set: NetworkSet = ["10.0.0.0/8".parse().unwrap()].into_iter().collect();
        assert!(set.contains("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!set.contains("::10.1.2.3".parse().unwrap()));
    }
}
