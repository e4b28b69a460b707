//! Sets of networks, for access lists and trusted peers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

/// A set of IPv4 and IPv6 networks, kept as sorted, merged ranges for binary search among thousands. Cloning copies a
/// pointer: many routes share the same set.
#[derive(Clone, Debug, Default, Eq, Hash, PartialEq, Serialize, Deserialize)]
#[serde(from = "Vec<IpNet>", into = "Vec<IpNet>")]
pub struct NetworkSet(Arc<Ranges>);

#[derive(Debug, Default, Eq, Hash, PartialEq)]
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

    /// Whether the set contains no address.
    pub fn is_empty(&self) -> bool {
        self.0.networks.is_empty()
    }

    /// The networks as given, host bits cleared.
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

/// Whether no backend outside the cluster can have this address: loopback, link-local, unspecified, multicast or
/// broadcast, or the metadata service of a cloud. Requests go to such addresses only if an operator allows it.
pub fn is_special(address: IpAddr) -> bool {
    /// Metadata services of AWS over IPv6 and of Alibaba Cloud; those of other clouds are link-local.
    const METADATA_V6: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
    const METADATA_V4: Ipv4Addr = Ipv4Addr::new(100, 100, 100, 200);
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            // All of 0.0.0.0/8 means this machine (RFC 1122 3.2.1.3).
            let this_network = v4.octets()[0] == 0;
            this_network
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_broadcast()
                || v4 == METADATA_V4
        }
        IpAddr::V6(v6) => {
            // IPv4 addresses embedded by a transition mechanism (NAT64, 6to4) reach the same places.
            let [a, b, c, d, e, f, g, h] = v6.segments();
            let inner = match [a, b, c, d, e, f] {
                [0x64, 0xff9b, 0, 0, 0, 0] | [0, 0, 0, 0, 0, 0] => Some((g, h)),
                [0x2002, high, low, ..] => Some((high, low)),
                _ => None,
            };
            let of_local = [a, b, c] == [0x64, 0xff9b, 1] && embeds_special(v6.octets());
            let inner = inner.map(|(high, low)| Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6.is_unicast_link_local()
                || v6 == METADATA_V6
                || of_local
                || inner.is_some_and(|v4| is_special(v4.into()))
        }
    }
}

/// Whether a NAT64 address under a network's own prefix (RFC 8215) embeds a special one. Only the network knows the length of that prefix,
/// so every place where the address may be (RFC 6052 2.2) counts, whatever follows it: translators ignore that.
fn embeds_special(octets: [u8; 16]) -> bool {
    let places = [[6, 7, 9, 10], [7, 9, 10, 11], [9, 10, 11, 12], [12, 13, 14, 15]];
    places.into_iter().any(|places| {
        let [first, .., last] = places;
        let inner = places.map(|at| octets[at]);
        let are_zero = |octets: &[u8]| octets.iter().all(|octet| *octet == 0);
        // Zeros before the end may belong to the prefix, or to an address before them.
        let is_one = if last == 15 { !are_zero(&inner) || are_zero(&octets[6..]) } else { octets[first] != 0 };
        is_one && is_special(IpAddr::V4(inner.into()))
    })
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
    fn special_addresses_are_recognised_in_every_form() {
        for special in [
            "127.0.0.1",
            "0.0.0.0",
            "0.1.2.3",
            "169.254.169.254",
            "224.0.0.1",
            "255.255.255.255",
            "100.100.100.200",
            "::1",
            "::",
            "fe80::1",
            "ff02::1",
            "fd00:ec2::254",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::7f00:1",
            "64:ff9b:1::169.254.169.254",
            "64:ff9b:1:ffff:ff:ffff:127.0.0.1",
            "64:ff9b:1:7f00:0:100::",
            "64:ff9b:1:a9:fe:a9fe::",
            "64:ff9b:1:5:7f:0:100:0",
            "64:ff9b:1:7f00:0:100:808:808",
            "64:ff9b:1::",
            "64:ff9b:1::1",
            "2002:7f00:1::",
        ] {
            assert!(is_special(special.parse().unwrap()), "{special}");
        }
        for ordinary in [
            "10.0.0.1",
            "192.0.2.1",
            "100.100.100.201",
            "2001:db8::1",
            "fd00::1",
            "64:ff9b::808:808",
            "64:ff9b:1::808:808",
            "64:ff9b:1:808:8:800::",
            "64:ff9b:2::7f00:1",
        ] {
            assert!(!is_special(ordinary.parse().unwrap()), "{ordinary}");
        }
    }

    #[test]
    fn mapped_addresses_count_as_ipv4() {
        let set: NetworkSet = ["10.0.0.0/8".parse().unwrap()].into_iter().collect();
        assert!(set.contains("::ffff:10.1.2.3".parse().unwrap()));
        assert!(!set.contains("::10.1.2.3".parse().unwrap()));
    }
}
