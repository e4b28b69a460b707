//! Chooses, of two endpoints drawn at random by weight, the one with fewer requests in progress: with many workers and replicas, always
//! taking the best would send all requests to the same endpoint.
//!
//! Each worker counts its own requests. An endpoint that joins others starts slowly: for a while it is drawn less often, so that a process
//! with cold caches does not get its full share at once.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::Node;
use crate::random::Rng;

/// Time in which an endpoint that joins others reaches its full share.
// No limit: a part of the algorithm.
pub(super) const SLOW_START: Duration = Duration::from_secs(30);

/// The share that it begins with, in percent.
// No limit: a part of the algorithm.
const FIRST_SHARE: u32 = 10;

/// Draws for one endpoint before the first allowed one in order is taken instead.
// No limit: a part of the algorithm.
const DRAWS: u32 = 16;

/// One request in progress at an endpoint, for as long as it lives.
#[derive(Debug)]
pub struct InProgress(Rc<Cell<u32>>);

impl InProgress {
    fn new(count: &Rc<Cell<u32>>) -> Self {
        count.set(count.get() + 1);
        Self(count.clone())
    }
}

impl Drop for InProgress {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// The endpoints by node.
#[derive(Debug)]
pub(super) struct LeastRequest {
    loads: Vec<Load>,
    heaviest: u16,
}

#[derive(Debug)]
struct Load {
    address: SocketAddr,
    weight: u16,
    /// Requests in progress. An endpoint that stays keeps its count.
    count: Rc<Cell<u32>>,
    /// When it joined others; `None` if it has its full share.
    joined: Option<Instant>,
}

impl LeastRequest {
    /// The first endpoints have their full share, because no others could take it meanwhile.
    pub(super) fn new(known: Option<Self>, nodes: &[Node], now: Instant) -> Self {
        let known = known.map_or_else(Vec::new, |known| known.loads);
        let joined = (!known.is_empty()).then_some(now);
        let mut known: std::collections::HashMap<_, _> = known.into_iter().map(|load| (load.address, load)).collect();
        let fresh = |address| Load { address, weight: 0, count: Rc::default(), joined };
        let of_node = |node: &Node| {
            let load = known.remove(&node.address).unwrap_or_else(|| fresh(node.address));
            Load { weight: node.weight, ..load }
        };
        let loads: Vec<_> = nodes.iter().map(of_node).collect();
        let heaviest = loads.iter().map(|load| load.weight).max().unwrap_or_default();
        Self { loads, heaviest }
    }

    pub(super) fn best(&mut self, open: &[u32], may: impl Fn(u32) -> bool, rng: &mut Rng, now: Instant) -> Option<u32> {
        let first = self.draw(open, &may, rng, now)?;
        match self.draw(open, |node| node != first && may(node), rng, now) {
            Some(second) if self.is_lighter(second, first) => Some(second),
            _ => Some(first),
        }
    }

    /// Counts a request to a node.
    pub(super) fn begin(&self, node: u32) -> Option<InProgress> {
        self.loads.get(node as usize).map(|load| InProgress::new(&load.count))
    }

    /// Whether one node has fewer requests for its weight than another.
    fn is_lighter(&self, one: u32, other: u32) -> bool {
        let (one, other) = (&self.loads[one as usize], &self.loads[other as usize]);
        u64::from(one.count.get()) * u64::from(other.weight) < u64::from(other.count.get()) * u64::from(one.weight)
    }

    /// Draws a random node that may be used, in proportion to its share.
    fn draw(&mut self, open: &[u32], may: impl Fn(u32) -> bool, rng: &mut Rng, now: Instant) -> Option<u32> {
        let count = u32::try_from(open.len()).unwrap_or(u32::MAX);
        let whole = 100 * u32::from(self.heaviest);
        for _ in 0..DRAWS {
            let Some(&node) = open.get(rng.below(count) as usize) else { break };
            if may(node) {
                let share = self.loads[node as usize].share(now);
                if share == whole || rng.below(whole) < share {
                    return Some(node);
                }
            }
        }
        let (after, before) = open.split_at(rng.below(count) as usize);
        before.iter().chain(after).copied().find(|&node| may(node))
    }
}

impl Load {
    /// Its weight in percent, reduced while it has not reached its full share.
    fn share(&mut self, now: Instant) -> u32 {
        let weight = u32::from(self.weight);
        let Some(joined) = self.joined else { return 100 * weight };
        let age = now.saturating_duration_since(joined);
        if age >= SLOW_START {
            self.joined = None;
            return 100 * weight;
        }
        // At most 100, because `age` is below `SLOW_START`.
        let reached = (100 * age.as_millis() / SLOW_START.as_millis()) as u32;
        reached.max(FIRST_SHARE) * weight
    }
}
