//! Consistent hashing as in lua-resty-balancer (`chash`), so that keys keep their endpoints when ingress-nginx is replaced: 160
//! points for each endpoint and unit of weight, each the CRC-32 of the name's CRC-32 and the previous point.

use std::collections::HashMap;
use std::net::SocketAddr;

use super::Node;
use crate::limit::RING_POINTS;
use crate::random::Rng;

/// Points of an endpoint for each unit of weight.
// No limit: a part of the algorithm.
const POINTS: u32 = 160;

/// Points on a circle, each owned by a node.
#[derive(Debug, Default)]
pub(super) struct Ring {
    /// Hash in the upper half, node in the lower; sorted.
    points: Vec<u64>,
    /// The nodes at the time the ring was built: weight by address, 0 for nodes without points.
    weights: HashMap<SocketAddr, u16>,
}

impl Ring {
    /// Builds the ring of the nodes for which `member` returns true. Points of a previous ring are copied instead of computed.
    pub(super) fn new(known: Option<Self>, previous: &[Node], nodes: &[Node], member: impl Fn(&Node) -> bool) -> Self {
        let weights: HashMap<_, _> = nodes
            .iter()
            .filter(|node| member(node) && node.weight > 0)
            .map(|node| (node.address, node.weight))
            .collect();
        let known = known.unwrap_or_default();
        let at: HashMap<_, _> = (0u64..).zip(nodes).map(|(at, node)| (node.address, at)).collect();
        let stays = |address| known.weights.contains_key(address) && known.weights.get(address) == weights.get(address);
        let moved: Vec<_> = previous
            .iter()
            .map(|node| if stays(&node.address) { at.get(&node.address).copied() } else { None })
            .collect();
        let mut points: Vec<_> = known
            .points
            .iter()
            .filter_map(|point| {
                let node = moved.get((point & u64::from(u32::MAX)) as usize).copied().flatten()?;
                Some(point >> 32 << 32 | node)
            })
            .collect();
        for (at, node) in (0u64..).zip(nodes) {
            if let Some(&weight) = weights.get(&node.address)
                && !stays(&node.address)
            {
                push_points(&mut points, node.address.to_string().as_bytes(), u32::from(weight), at);
            }
        }
        // The stable sort finds the run that is already sorted and merges the rest into it.
        points.sort();
        Self { points, weights }
    }

    /// The node of a key.
    pub(super) fn find(&self, key: &[u8]) -> Option<u32> {
        self.find_where(key, |_| true)
    }

    /// The node of a key, or the next usable one along the ring.
    pub(super) fn find_where(&self, key: &[u8], may: impl Fn(u32) -> bool) -> Option<u32> {
        // The owner is the last point at or before the hash. A hash before all points belongs to the first point, not the last,
        // as in the original.
        let hash = u64::from(crc32(!0, key) ^ u32::MAX);
        let after = self.points.partition_point(|point| point >> 32 <= hash).max(1).min(self.points.len());
        let (before, after) = self.points.split_at(after);
        before.iter().rev().chain(after.iter().rev()).map(|point| *point as u32).find(|&node| may(node))
    }
}

/// Groups of endpoints on a ring; a key maps to a group, and any member may be chosen (`upstream-hash-by-subset`).
#[derive(Debug)]
pub(super) struct Subsets {
    ring: Ring,
    size: usize,
}

impl Subsets {
    /// Divides `count` endpoints into groups of `size`, in order. The last group is filled up with the first endpoints.
    pub(super) fn new(count: usize, size: u32) -> Self {
        let size = (size as usize).clamp(1, count.max(1));
        let mut ring = Ring::default();
        for group in 0..count.div_ceil(size) {
            push_points(&mut ring.points, format!("set{}", group + 1).as_bytes(), 1, group as u64);
        }
        ring.points.sort_unstable();
        Self { ring, size }
    }

    pub(super) fn find(&self, key: &[u8], open: &[u32], may: impl Fn(u32) -> bool, rng: &mut Rng) -> Option<u32> {
        let group = self.ring.find(key)? as usize;
        let start = rng.below(u32::try_from(self.size).unwrap_or(u32::MAX)) as usize;
        let members = (0..self.size).map(|step| open[(group * self.size + (start + step) % self.size) % open.len()]);
        members.chain(open.iter().copied()).find(|&node| may(node))
    }
}

fn push_points(points: &mut Vec<u64>, name: &[u8], weight: u32, node: u64) {
    let base = crc32(!0, name) ^ u32::MAX;
    let count = weight.saturating_mul(POINTS).min(RING_POINTS);
    points.reserve(count as usize);
    let first = points.len();
    let mut hash = 0u32;
    for _ in 0..count {
        hash = crc32(base, &hash.to_le_bytes()) ^ u32::MAX;
        points.push(u64::from(hash) << 32 | node);
    }
    points[first..].sort_unstable();
}

/// CRC-32 (IEEE 802.3) without the final complement.
fn crc32(start: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(start, |crc, &byte| TABLE[usize::from(crc as u8 ^ byte)] ^ crc >> 8)
}

static TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut at = 0;
    while at < 256 {
        let mut crc = at as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
            bit += 1;
        }
        table[at] = crc;
        at += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nodes(list: &[(u8, u16)]) -> Vec<Node> {
        let node =
            |&(last, weight): &(u8, u16)| Node { address: ([10, 0, 0, last], 80).into(), weight, draining: false };
        list.iter().map(node).collect()
    }

    #[test]
    fn the_checksum_is_the_usual_one() {
        assert_eq!(crc32(!0, b"123456789") ^ u32::MAX, 0xcbf4_3926);
    }

    proptest! {
        #[test]
        fn a_ring_made_step_by_step_is_the_ring_made_at_once(
            steps in proptest::collection::vec(proptest::collection::btree_map(0u8..12, 0u16..3, 0..8), 1..6),
        ) {
            let mut ring = None;
            let mut before = Vec::new();
            for step in steps {
                let now = nodes(&step.into_iter().collect::<Vec<_>>());
                let next = Ring::new(ring.take(), &before, &now, Node::is_open);
                let whole = Ring::new(None, &[], &now, Node::is_open);
                prop_assert_eq!(&next.points, &whole.points);
                let expected: usize = now.iter().map(|node| usize::from(node.weight) * 160).sum();
                prop_assert_eq!(next.points.len(), expected);
                ring = Some(next);
                before = now;
            }
        }

        #[test]
        fn a_new_endpoint_takes_keys_only_for_itself(count in 2u8..20, new in 20u8..40) {
            let before = nodes(&(0..count).map(|last| (last, 1)).collect::<Vec<_>>());
            let mut after = before.clone();
            after.extend(nodes(&[(new, 1)]));
            let old = Ring::new(None, &[], &before, Node::is_open);
            let ring = Ring::new(None, &[], &after, Node::is_open);
            let moved = (0..2000u32).filter(|key| {
                let key = key.to_string();
                let (was, is) = (old.find(key.as_bytes()).unwrap(), ring.find(key.as_bytes()).unwrap());
                assert!(was == is || is == u32::from(count));
                was != is
            }).count();
            prop_assert!(moved < 2000 * 2 / usize::from(count + 1) + 50, "{} moved", moved);
        }
    }
}
