//! The retry budget: tries after a failure may only be a share of a backend's requests. Without it, a backend that is too slow for its load
//! would get a multiple of that load and could not recover.
//!
//! Each worker keeps the budget of its own requests.

use std::cell::Cell;
use std::hint::cold_path;

use fairway_model::{Backend, RetryConstraint};

use crate::limit::{RETRY_PERIOD, RETRY_RESERVE};
use crate::timer::Millis;

/// Requests and retries of the current period and the one before it.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    /// The backend's own budget; `None` for that of the settings.
    constraint: Cell<Option<RetryConstraint>>,
    /// Length of a period.
    length: Cell<Millis>,
    /// Number of the current period.
    period: Cell<Millis>,
    current: Cell<PeriodCounts>,
    last: Cell<PeriodCounts>,
}

#[derive(Clone, Copy, Debug, Default)]
struct PeriodCounts {
    requests: u32,
    retries: u32,
}

impl RetryBudget {
    /// The budget of a backend.
    pub(super) fn of(backend: &Backend) -> Self {
        Self::constrained(backend.retry)
    }

    fn constrained(constraint: Option<RetryConstraint>) -> Self {
        Self {
            constraint: Cell::new(constraint),
            length: Cell::new(length(constraint)),
            period: Cell::default(),
            current: Cell::default(),
            last: Cell::default(),
        }
    }

    /// Applies a change of the backend. If the length of periods changes, counting starts over.
    pub(super) fn update(&self, backend: &Backend) {
        let before = self.constraint.replace(backend.retry);
        if before != backend.retry {
            cold_path();
            self.length.set(length(backend.retry));
            self.current.take();
            self.last.take();
        }
    }

    /// Whether the backend has a budget of its own.
    pub(crate) fn is_constrained(&self) -> bool {
        self.constraint.get().is_some()
    }

    /// Counts a request.
    pub(crate) fn note_request(&self, now: Millis) {
        self.advance(now);
        let PeriodCounts { requests, retries } = self.current.get();
        self.current.set(PeriodCounts { requests: requests.saturating_add(1), retries });
    }

    /// Takes a retry out of the budget; `false` if it is used up. Unless the backend has its own, the budget is `percent` of the requests
    /// plus a small reserve; without `percent` it is unlimited.
    pub(crate) fn take(&self, now: Millis, percent: Option<u32>) -> bool {
        let constraint = self.constraint.get();
        let (percent, least, reserve) = match (constraint, percent) {
            (Some(own), _) => (own.percent, own.least, 0),
            (None, Some(percent)) => (percent, 0, RETRY_RESERVE),
            (None, None) => return true,
        };
        self.advance(now);
        let (current, last) = (self.current.get(), self.last.get());
        let sum = |of: fn(PeriodCounts) -> u32| u64::from(of(current)) + u64::from(of(last));
        let allowed = (sum(|counts| counts.requests) * u64::from(percent) / 100).max(least) + reserve;
        let left = sum(|counts| counts.retries) < allowed;
        if left {
            self.current.set(PeriodCounts { retries: current.retries.saturating_add(1), ..current });
        }
        left
    }

    fn advance(&self, now: Millis) {
        let period = now / self.length.get();
        let before = self.period.replace(period);
        if period != before {
            let current = self.current.take();
            self.last.set(if period == before + 1 { current } else { PeriodCounts::default() });
        }
    }
}

/// How long a period is. Events before the interval must not count, so two periods are as long as the interval.
fn length(constraint: Option<RetryConstraint>) -> Millis {
    let length = constraint.map_or(RETRY_PERIOD, |own| own.interval / 2);
    Millis::try_from(length.as_millis()).unwrap_or(Millis::MAX).max(1)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const PERIOD: Millis = RETRY_PERIOD.as_millis() as Millis;

    fn taken(budget: &RetryBudget, now: Millis) -> u64 {
        (0..).take_while(|_| budget.take(now, Some(20))).count() as u64
    }

    #[test]
    fn retries_are_a_share_of_the_requests_and_a_reserve() {
        let budget = RetryBudget::constrained(None);
        assert_eq!(taken(&budget, 0), RETRY_RESERVE);
        (0..1000).for_each(|_| budget.note_request(1));
        assert_eq!(taken(&budget, 2), 200);
    }

    #[test]
    fn requests_count_until_the_end_of_the_next_period() {
        let budget = RetryBudget::constrained(None);
        (0..1000).for_each(|_| budget.note_request(PERIOD - 1));
        assert_eq!(taken(&budget, PERIOD), 200 + RETRY_RESERVE);
        assert_eq!(taken(&budget, 2 * PERIOD - 1), 0);
        assert_eq!(taken(&budget, 2 * PERIOD), 0, "the retries count as long");
        assert_eq!(taken(&budget, 3 * PERIOD), RETRY_RESERVE);
        (0..1000).for_each(|_| budget.note_request(4 * PERIOD));
        assert_eq!(taken(&budget, 6 * PERIOD), RETRY_RESERVE, "after a pause nothing is left of what was before");
    }

    #[test]
    fn a_backend_may_have_a_budget_of_its_own() {
        let constraint = RetryConstraint { percent: 50, interval: Duration::from_secs(10), least: 3 };
        let budget = RetryBudget::constrained(Some(constraint));
        assert_eq!(taken(&budget, 0), 3, "whatever the settings say");
        (0..100).for_each(|_| budget.note_request(1));
        assert_eq!(taken(&budget, 4999), 47);
        assert_eq!(taken(&budget, 5000), 0);
        assert_eq!(taken(&budget, 10_000), 3, "the interval is over");
        let none = RetryConstraint { percent: 0, least: 0, ..constraint };
        let budget = RetryBudget::constrained(Some(none));
        (0..100).for_each(|_| budget.note_request(1));
        assert!(!budget.take(1, None));
        assert!(RetryBudget::constrained(None).take(1, None), "no budget at all");
    }
}
