//! How long changes take to be in force at all proxies that were connected when they were published.
//!
//! Cost: a change that all proxies have is forgotten, so an acknowledgement looks only at the few that are under way.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::limit::LOG;

/// Upper bounds of the histogram, in seconds.
pub const PROPAGATION_BOUNDS: [f64; 12] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// Times from the publication of changes to the acknowledgement of the last proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Propagation {
    /// The number of times up to each bound of [`PROPAGATION_BOUNDS`] and above the previous one, and finally of those above all.
    pub counts: [u64; PROPAGATION_BOUNDS.len() + 1],
    /// Their sum in seconds.
    pub sum: f64,
}

#[derive(Debug, Default)]
pub(super) struct Pace {
    under_way: VecDeque<UnderWay>,
    pub(super) propagation: Propagation,
    /// Of the last change that all proxies have: the last proxy to get it, and the time that took.
    pub(super) slowest: Option<(String, Duration)>,
}

/// A change that not all proxies have.
#[derive(Debug)]
struct UnderWay {
    generation: u64,
    published: Instant,
    /// Proxies from this number on came later; they get it with everything else.
    after: u64,
    waiting: usize,
    last: Option<(String, Duration)>,
}

impl Pace {
    /// Notes a publication. `next` is the number of the next proxy to come, and `proxies` how many are connected.
    pub(super) fn publish(&mut self, generation: u64, next: u64, proxies: usize) {
        if proxies == 0 {
            return;
        }
        let change = UnderWay { generation, published: Instant::now(), after: next, waiting: proxies, last: None };
        self.under_way.push_back(change);
        // A proxy this slow is far behind, which its other changes show as well.
        if self.under_way.len() > LOG {
            self.under_way.pop_front();
        }
    }

    /// Notes that a proxy serves what it did not serve before: the generations above `from`, up to `to`.
    pub(super) fn serves(&mut self, id: u64, name: &str, from: u64, to: u64) {
        let newly = |change: &UnderWay| change.generation > from && change.generation <= to && id < change.after;
        for change in self.under_way.iter_mut().filter(|change| newly(change)) {
            change.waiting -= 1;
            change.last = Some((name.to_owned(), change.published.elapsed()));
        }
        self.settle();
    }

    /// Notes that a proxy, which served up to a generation, is gone.
    pub(super) fn leaves(&mut self, id: u64, served: u64) {
        let lacking = |change: &UnderWay| change.generation > served && id < change.after;
        self.under_way.iter_mut().filter(|change| lacking(change)).for_each(|change| change.waiting -= 1);
        self.settle();
    }

    fn settle(&mut self) {
        let Self { under_way, propagation, slowest } = self;
        under_way.retain_mut(|change| {
            if change.waiting > 0 {
                return true;
            }
            // Every proxy may have left before it had the change.
            if let Some(last) = change.last.take() {
                let seconds = last.1.as_secs_f64();
                propagation.counts[PROPAGATION_BOUNDS.partition_point(|bound| *bound < seconds)] += 1;
                propagation.sum += seconds;
                *slowest = Some(last);
            }
            false
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(pace: &Pace) -> u64 {
        pace.propagation.counts.iter().sum()
    }

    #[test]
    fn a_change_is_measured_once_when_the_last_proxy_has_it() {
        let mut pace = Pace::default();
        pace.publish(1, 0, 0);
        pace.publish(2, 2, 2);
        pace.serves(0, "a", 0, 2);
        assert_eq!((measured(&pace), pace.under_way.len()), (0, 1));
        // A third proxy came later.
        pace.serves(2, "c", 0, 2);
        assert_eq!(measured(&pace), 0);
        pace.serves(1, "b", 0, 2);
        assert_eq!((measured(&pace), pace.under_way.len()), (1, 0));
        assert_eq!(pace.slowest.as_ref().map(|(name, _)| &**name), Some("b"));
        // Several changes at once.
        pace.publish(3, 3, 3);
        pace.publish(4, 3, 3);
        (0..3).for_each(|id| pace.serves(id, "x", 2, 4));
        assert_eq!(measured(&pace), 3);
    }

    #[test]
    fn a_proxy_that_goes_is_not_waited_for() {
        let mut pace = Pace::default();
        pace.publish(1, 2, 2);
        pace.serves(0, "a", 0, 1);
        // It had the change.
        pace.leaves(0, 1);
        assert_eq!(pace.under_way.len(), 1);
        pace.leaves(1, 0);
        assert_eq!((measured(&pace), pace.under_way.len()), (1, 0));
        // All leave before any has it.
        pace.publish(2, 3, 1);
        pace.leaves(2, 1);
        assert_eq!((measured(&pace), pace.under_way.len()), (1, 0));
    }

    #[test]
    fn what_is_under_way_is_bounded() {
        let mut pace = Pace::default();
        (1..=LOG as u64 + 10).for_each(|generation| pace.publish(generation, 1, 1));
        assert_eq!(pace.under_way.len(), LOG);
    }
}
