//! The retry budget: tries after a failure may only be a share of a backend's requests. Without it, a backend that is too slow
//! for its load gets a multiple of that load, and can't recover.
//!
//! Each worker keeps the budget of its own requests.

use std::cell::Cell;

use crate::limit::{RETRY_PERIOD, RETRY_RESERVE};
use crate::timer::Millis;

/// Requests and retries of the current period and the one before it.
#[derive(Debug, Default)]
pub(crate) struct RetryBudget {
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
    /// Counts a request.
    pub(crate) fn note_request(&self, now: Millis) {
        self.advance(now);
        let PeriodCounts { requests, retries } = self.current.get();
        self.current.set(PeriodCounts { requests: requests.saturating_add(1), retries });
    }

    /// Takes a retry out of the budget, which is `percent` of the requests and a small reserve; `false` if it is used up.
    pub(crate) fn take(&self, now: Millis, percent: u32) -> bool {
        self.advance(now);
        let (current, last) = (self.current.get(), self.last.get());
        let sum = |of: fn(PeriodCounts) -> u32| u64::from(of(current)) + u64::from(of(last));
        let allowed = sum(|counts| counts.requests) * u64::from(percent) / 100 + RETRY_RESERVE;
        let left = sum(|counts| counts.retries) < allowed;
        if left {
            self.current.set(PeriodCounts { retries: current.retries.saturating_add(1), ..current });
        }
        left
    }

    fn advance(&self, now: Millis) {
        let period = now / RETRY_PERIOD.as_millis() as Millis;
        let before = self.period.replace(period);
        if period != before {
            let current = self.current.take();
            self.last.set(if period == before + 1 { current } else { PeriodCounts::default() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Millis = RETRY_PERIOD.as_millis() as Millis;

    fn taken(budget: &RetryBudget, now: Millis) -> u64 {
        (0..).take_while(|_| budget.take(now, 20)).count() as u64
    }

    #[test]
    fn retries_are_a_share_of_the_requests_and_a_reserve() {
        let budget = RetryBudget::default();
        assert_eq!(taken(&budget, 0), RETRY_RESERVE);
        (0..1000).for_each(|_| budget.note_request(1));
        assert_eq!(taken(&budget, 2), 200);
    }

    #[test]
    fn requests_count_until_the_end_of_the_next_period() {
        let budget = RetryBudget::default();
        (0..1000).for_each(|_| budget.note_request(PERIOD - 1));
        assert_eq!(taken(&budget, PERIOD), 200 + RETRY_RESERVE);
        assert_eq!(taken(&budget, 2 * PERIOD - 1), 0);
        assert_eq!(taken(&budget, 2 * PERIOD), 0, "the retries count as long");
        assert_eq!(taken(&budget, 3 * PERIOD), RETRY_RESERVE);
        (0..1000).for_each(|_| budget.note_request(4 * PERIOD));
        assert_eq!(taken(&budget, 6 * PERIOD), RETRY_RESERVE, "after a pause nothing is left of what was before");
    }
}
