//! Limits for each client of a route: how often it may send requests, and how many may be in progress.

use std::num::NonZeroU32;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::{LimitPart, NetworkSet, Respond};

/// What each client may do. The clients of all routes with the same `scope` are counted together.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct ClientLimits {
    /// Where requests are counted.
    pub scope: Box<str>,
    /// Requests per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_second: Option<RequestRate>,
    /// Requests per minute; applies together with the rate per second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub per_minute: Option<RequestRate>,
    /// Requests in progress.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_progress: Option<NonZeroU32>,
    /// Clients without limits.
    #[serde(default, skip_serializing_if = "NetworkSet::is_empty")]
    pub exempt: NetworkSet,
    /// The response to requests over a rate.
    pub over_rate: Respond,
    /// The response to requests over the number in progress.
    pub over_requests: Respond,
}

/// A limit that a client has reached.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Excess {
    /// One of the rates.
    Rate,
    /// The number of requests in progress.
    Requests,
}

/// An even rate that may be exceeded for a moment (nginx `limit_req` with `burst` and `nodelay`).
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub struct RequestRate {
    /// Requests in each period.
    pub requests: NonZeroU32,
    /// The period.
    pub period: Duration,
    /// Requests that may come early.
    pub burst: u32,
}

impl RequestRate {
    /// The part of the rate that one of several replicas lets through, if clients spread their requests evenly.
    pub fn shared(self, replicas: NonZeroU32) -> SharedRate {
        let replicas = u64::from(replicas.get());
        let at_once = (u64::from(self.burst) + 1).div_ceil(replicas);
        let interval = self.interval().saturating_mul(replicas);
        SharedRate { interval, early: interval.saturating_mul(at_once - 1) }
    }

    /// The part of the rate that was dealt to one of several replicas.
    pub fn dealt(self, part: LimitPart) -> SharedRate {
        let interval = u128::from(self.interval()) * u128::from(LimitPart::WHOLE.get()) / u128::from(part.get().max(1));
        let interval = u64::try_from(interval).unwrap_or(u64::MAX);
        let at_once = part.of(self.burst.saturating_add(1));
        SharedRate { interval, early: interval.saturating_mul(u64::from(at_once) - 1) }
    }

    /// Nanoseconds from one request to the next at the whole rate.
    pub fn interval(self) -> u64 {
        self.period.as_nanos() as u64 / u64::from(self.requests.get())
    }
}

/// The share of a rate, in nanoseconds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SharedRate {
    interval: u64,
    early: u64,
}

impl SharedRate {
    /// Takes one request at `now`. `due` is when the next request of the client is due at the even rate, 0 for a new client.
    /// Returns when the one after it is due, or `None` if it comes too early.
    pub fn take(self, due: u64, now: u64) -> Option<u64> {
        let due = due.max(now);
        (due - now <= self.early).then(|| due.saturating_add(self.interval))
    }

    /// Whether less than half of what may come at once is left. Never if that is one request, because nothing is left between any two.
    pub fn is_low(self, due: u64, now: u64) -> bool {
        self.early > 0 && due.saturating_sub(now) > self.span() / 2
    }

    /// When the next request is due, once another share is in force from `at` on: the requests that may come at once stay the same,
    /// as long as the new share allows as many.
    pub fn reshared(self, to: Self, due: u64, at: u64) -> u64 {
        let left = self.span().saturating_sub(due.saturating_sub(at));
        let left = u128::from(left) * u128::from(to.interval) / u128::from(self.interval.max(1));
        at.saturating_add(to.span().saturating_sub(u64::try_from(left).unwrap_or(u64::MAX)))
    }

    /// Nanoseconds until all that may come at once is available again.
    fn span(self) -> u64 {
        self.early.saturating_add(self.interval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(requests: u32, burst: u32) -> RequestRate {
        let requests = NonZeroU32::new(requests).unwrap();
        RequestRate { requests, period: Duration::from_secs(1), burst }
    }

    fn at_once(rate: SharedRate, due: &mut u64, now: u64) -> u32 {
        let mut taken = 0;
        while let Some(next) = rate.take(*due, now) {
            *due = next;
            taken += 1;
        }
        taken
    }

    #[test]
    fn one_and_the_burst_pass_at_once_and_then_the_even_rate() {
        let rate = rate(1, 5).shared(NonZeroU32::MIN);
        let (mut due, second) = (0, 1_000_000_000);
        assert_eq!(at_once(rate, &mut due, 7), 6);
        assert_eq!(at_once(rate, &mut due, 7 + second - 1), 0);
        assert_eq!(at_once(rate, &mut due, 7 + second), 1);
        assert_eq!(at_once(rate, &mut due, 100 * second), 6, "no more is saved than the burst");
    }

    #[test]
    fn replicas_together_let_through_what_one_would() {
        let two = NonZeroU32::new(2).unwrap();
        let (mut first, mut second) = (0, 0);
        let half = rate(10, 5).shared(two);
        assert_eq!(at_once(half, &mut first, 0) + at_once(half, &mut second, 0), 6);
        let (mut passed, tenth) = (0, 100_000_000);
        for step in 1..=100 {
            passed += at_once(half, &mut first, step * tenth) + at_once(half, &mut second, step * tenth);
        }
        assert_eq!(passed, 100, "in ten seconds");
    }

    #[test]
    fn a_share_that_grows_or_shrinks_makes_no_requests_out_of_nothing() {
        let whole = rate(10, 39);
        let [quarter, all, floor] = [250_000, 1_000_000, 10_000].map(|part| whole.dealt(LimitPart::millionths(part)));
        let second = 1_000_000_000;
        assert_eq!(at_once(quarter, &mut 0, second), 10);
        // What is left of a quarter carries over to the whole, and grows at its rate.
        let mut due = quarter.reshared(all, 0, second);
        assert_eq!(at_once(all, &mut due, second), 10);
        assert_eq!(at_once(all, &mut due, 2 * second), 10);
        // A smaller share keeps no more than it allows; the rest is lost.
        let mut due = all.reshared(floor, 0, second);
        assert_eq!(at_once(floor, &mut due.clone(), second), 1);
        due = floor.reshared(all, due, second);
        assert_eq!(at_once(all, &mut due, second), 1);
        // The past of an old share doesn't matter.
        assert_eq!(at_once(all, &mut quarter.reshared(all, 0, 90 * second), 90 * second), 10);
    }

    #[test]
    fn extreme_rates_do_not_overflow() {
        let largest = NonZeroU32::MAX;
        let rate = RequestRate { requests: NonZeroU32::MIN, period: Duration::MAX, burst: u32::MAX };
        assert!(rate.shared(largest).take(0, u64::MAX).is_some());
        let fastest = RequestRate { requests: largest, period: Duration::from_nanos(1), burst: 0 };
        assert_eq!(fastest.shared(largest).take(0, 1), Some(1));
        let least = rate.dealt(LimitPart::default());
        assert!(least.take(0, u64::MAX).is_some() && least.reshared(rate.dealt(LimitPart::WHOLE), u64::MAX, 0) > 0);
        assert!(fastest.dealt(LimitPart::WHOLE).reshared(least, 0, 1) >= 1);
    }
}
