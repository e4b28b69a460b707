//! Peak EWMA as computed by ingress-nginx (`balancer/ewma.lua`): the mean of response times, weighted by exponential decay over time. Of
//! two endpoints drawn at random, the better one is chosen.

use std::time::{Duration, Instant};

use super::Node;
use crate::random::Rng;

/// Time after which a measurement keeps only 1/e of its weight.
// No limit: a part of the algorithm.
const DECAY: Duration = Duration::from_secs(10);

/// The response time that a failure counts as. ingress-nginx counts the time that the failure took, so an endpoint that refuses connections
/// looks fastest of all; here it counts as a slow response.
// No limit: a part of the algorithm.
pub(super) const FAILURE: Duration = Duration::from_secs(10);

/// Draws for a second endpoint before the first untried one in order is taken instead.
// No limit: a part of the algorithm.
const DRAWS: u32 = 8;

/// Measurements by node.
#[derive(Debug)]
pub(super) struct Ewma {
    scores: Vec<Score>,
}

#[derive(Clone, Copy, Debug)]
struct Score {
    seconds: f64,
    touched: Instant,
}

impl Ewma {
    pub(super) fn new(known: Option<Self>, previous: &[Node], nodes: &[Node], now: Instant) -> Self {
        let scores = known.map_or_else(Vec::new, |known| known.scores);
        let sum: f64 = scores.iter().map(|score| score.seconds).sum();
        let average = if scores.is_empty() { 0.0 } else { sum / scores.len() as f64 };
        let old: std::collections::HashMap<_, _> =
            previous.iter().zip(scores).map(|(node, score)| (node.address, score)).collect();
        let fresh = Score { seconds: average, touched: now };
        Self { scores: nodes.iter().map(|node| old.get(&node.address).copied().unwrap_or(fresh)).collect() }
    }

    pub(super) fn observe(&mut self, node: usize, took: Duration, now: Instant) {
        let score = &mut self.scores[node];
        let weight = score.weight(now);
        *score = Score { seconds: score.seconds * weight + took.as_secs_f64() * (1.0 - weight), touched: now };
    }

    pub(super) fn best(&self, open: &[u32], may: impl Fn(u32) -> bool, rng: &mut Rng, now: Instant) -> Option<u32> {
        let first = draw(open, &may, rng)?;
        let second = draw(open, |node| node != first && may(node), rng);
        match second {
            Some(second) if self.score(second, now) < self.score(first, now) => Some(second),
            _ => Some(first),
        }
    }

    fn score(&self, node: u32, now: Instant) -> f64 {
        let score = &self.scores[node as usize];
        score.seconds * score.weight(now)
    }
}

impl Score {
    /// The remaining weight of the known mean.
    fn weight(&self, now: Instant) -> f64 {
        let idle = now.saturating_duration_since(self.touched);
        (-idle.as_secs_f64() / DECAY.as_secs_f64()).exp()
    }
}

/// Draws a random node that may be used.
fn draw(open: &[u32], may: impl Fn(u32) -> bool, rng: &mut Rng) -> Option<u32> {
    let count = u32::try_from(open.len()).unwrap_or(u32::MAX);
    for _ in 0..DRAWS {
        match open.get(rng.below(count) as usize) {
            Some(&node) if may(node) => return Some(node),
            _ => {}
        }
    }
    let (after, before) = open.split_at(rng.below(count) as usize);
    before.iter().chain(after).copied().find(|&node| may(node))
}
