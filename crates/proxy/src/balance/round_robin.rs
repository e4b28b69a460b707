//! Takes endpoints in turn, by weight, starting at random.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Node;
use crate::random::Rng;

/// Distance between two turns of an endpoint of weight one, large enough to keep the shares of large weights exact to a thousandth.
// No limit: a part of the algorithm.
const STRIDE: u64 = 1 << 24;

/// The order of turns. With equal weights it is a cursor, otherwise earliest deadline first: an endpoint's next turn comes a stride divided
/// by its weight after its last one, which spreads the turns of a heavy endpoint evenly among the others.
#[derive(Debug, Default)]
pub(super) struct RoundRobin {
    cursor: usize,
    weighted: Option<Weighted>,
}

#[derive(Debug)]
struct Weighted {
    turns: BinaryHeap<Reverse<Turn>>,
    /// Turns skipped within one choice.
    passed: Vec<Reverse<Turn>>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd)]
struct Turn {
    deadline: u64,
    node: u32,
    stride: u64,
}

impl RoundRobin {
    pub(super) fn new(known: Option<Self>, nodes: &[Node], open: &[u32], rng: &mut Rng) -> Self {
        let weight = |node: u32| nodes[node as usize].weight;
        let even = open.windows(2).all(|pair| weight(pair[0]) == weight(pair[1]));
        let count = u32::try_from(open.len()).unwrap_or(u32::MAX);
        let cursor = match known {
            Some(known) if known.weighted.is_none() && !open.is_empty() && known.cursor > 0 => {
                known.cursor % open.len()
            }
            _ => rng.below(count) as usize,
        };
        let weighted = (!even).then(|| {
            let turns = open.iter().map(|&node| {
                let stride = STRIDE / u64::from(weight(node).max(1));
                let start = u64::from(rng.below(u32::try_from(stride).unwrap_or(u32::MAX)));
                Reverse(Turn { deadline: start, node, stride })
            });
            Weighted { turns: turns.collect(), passed: Vec::with_capacity(open.len()) }
        });
        Self { cursor, weighted }
    }

    pub(super) fn next(&mut self, open: &[u32], may: impl Fn(u32) -> bool) -> Option<u32> {
        if let Some(weighted) = &mut self.weighted {
            return weighted.next(may);
        }
        let count = open.len();
        let at = (0..count).map(|step| (self.cursor + step) % count).find(|&at| may(open[at]))?;
        self.cursor = at + 1;
        Some(open[at])
    }
}

impl Weighted {
    fn next(&mut self, may: impl Fn(u32) -> bool) -> Option<u32> {
        let mut found = None;
        while let Some(Reverse(turn)) = self.turns.pop() {
            if may(turn.node) {
                self.turns.push(Reverse(Turn { deadline: turn.deadline + turn.stride, ..turn }));
                found = Some(turn);
                break;
            }
            self.passed.push(Reverse(turn));
        }
        self.turns.extend(self.passed.drain(..));
        let turn = found?;
        if turn.deadline > u64::MAX / 2 {
            self.rebase(turn.deadline);
        }
        Some(turn.node)
    }

    /// Lowers all deadlines before they overflow, which takes years.
    fn rebase(&mut self, by: u64) {
        let mut turns = std::mem::take(&mut self.turns).into_vec();
        for Reverse(turn) in &mut turns {
            turn.deadline = turn.deadline.saturating_sub(by);
        }
        self.turns = turns.into();
    }
}
