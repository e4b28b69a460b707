//! The results of requests.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, Instant};

use fairway_testkit::Ended;

/// How many failures are kept individually; all are counted.
const KEPT: usize = 1000;
/// How many of them are printed.
const SHOWN: usize = 20;

/// The results of all requests.
#[derive(Clone, Debug)]
pub struct Account {
    /// The number of completed requests.
    pub requests: u64,
    /// How many of them failed.
    pub failed: u64,
    /// How many were sent a second time, because a reused connection ended without one byte of a response.
    pub retried: u64,
    /// The failures, the first thousand.
    pub failures: Vec<Failure>,
    /// How many requests each pod has answered, by the name in the echo server's response.
    pub pods: BTreeMap<String, u64>,
    /// The response times, including the time to connect.
    pub latency: Histogram,
}

/// A request without a good response.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Failure {
    /// When it was sent.
    pub sent: Instant,
    /// The same, relative to the start of the load.
    pub at: Duration,
    /// The time from then to the failure.
    pub took: Duration,
    /// The kind of failure.
    pub kind: Kind,
    /// The pod that answered the same client's previous request.
    pub pod: Option<String>,
}

/// The kind of failure.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Kind {
    /// The connection could not be made.
    Connect(String),
    /// The connection was reset before the first byte of a response.
    Reset,
    /// The connection was closed before the first byte of a response.
    Closed,
    /// The connection ended in the middle of a response.
    Truncated(Ended),
    /// The response was not HTTP.
    Malformed(String),
    /// The response had a status other than 200 to 299; with the first line of its body.
    Status(u16, String),
    /// No response arrived in time.
    Timeout,
}

impl Failure {
    /// The time of the failure.
    pub fn ended(&self) -> Instant {
        self.sent + self.took
    }
}

impl Account {
    pub(super) fn new() -> Self {
        Self {
            requests: 0,
            failed: 0,
            retried: 0,
            failures: Vec::new(),
            pods: BTreeMap::new(),
            latency: Histogram::default(),
        }
    }

    pub(super) fn succeeded(&mut self, took: Duration, pod: Option<&str>) {
        self.requests += 1;
        self.latency.record(took);
        if let Some(pod) = pod {
            match self.pods.get_mut(pod) {
                Some(count) => *count += 1,
                None => drop(self.pods.insert(pod.to_owned(), 1)),
            }
        }
    }

    pub(super) fn failed(&mut self, failure: Failure) {
        self.requests += 1;
        self.failed += 1;
        if self.failures.len() < KEPT {
            self.failures.push(failure);
        }
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = |quantile| self.latency.quantile(quantile).as_secs_f64() * 1e3;
        write!(
            f,
            "{} requests, {} failed, {} sent again, {} pods; p50 {:.1} ms, p99 {:.1} ms, longest {:.1} ms",
            self.requests,
            self.failed,
            self.retried,
            self.pods.len(),
            milliseconds(0.5),
            milliseconds(0.99),
            milliseconds(1.0),
        )?;
        for failure in self.failures.iter().take(SHOWN) {
            write!(f, "\n  {failure}")?;
        }
        match self.failed.saturating_sub(SHOWN as u64) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>8.3} s: {}", self.at.as_secs_f64(), self.kind)?;
        if let Some(pod) = &self.pod {
            write!(f, ", after {pod}")?;
        }
        write!(f, ", {:.3} s later", self.took.as_secs_f64())
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "not connected: {error}"),
            Self::Reset => f.write_str("reset before an answer"),
            Self::Closed => f.write_str("closed before an answer"),
            Self::Truncated(ended) => write!(f, "{ended:?} in the middle of an answer"),
            Self::Malformed(what) => write!(f, "no HTTP: {what}"),
            Self::Status(status, line) => write!(f, "{status} {line}"),
            Self::Timeout => f.write_str("no answer in time"),
        }
    }
}

/// The distribution of times, in steps of about 6 percent.
#[derive(Clone, Debug, Default)]
pub struct Histogram {
    /// Counts by [`Histogram::step`] of the time in microseconds.
    steps: BTreeMap<u32, u64>,
    count: u64,
    longest: Duration,
}

impl Histogram {
    /// Counts one time.
    pub fn record(&mut self, took: Duration) {
        *self.steps.entry(Self::step(took.as_micros())).or_default() += 1;
        self.count += 1;
        self.longest = self.longest.max(took);
    }

    /// The time within which a share (from 0 to 1) of all requests completed.
    pub fn quantile(&self, share: f64) -> Duration {
        let rank = (share * self.count as f64).ceil() as u64;
        let mut sum = 0;
        for (&step, &count) in &self.steps {
            sum += count;
            if sum >= rank {
                return Duration::from_micros(Self::end(step)).min(self.longest);
            }
        }
        self.longest
    }

    /// Sixteen steps for each power of two.
    fn step(micros: u128) -> u32 {
        let power = (u128::BITS - (micros | 16).leading_zeros()) - 5;
        power * 16 + (micros >> power) as u32
    }

    /// The largest time of a step, in microseconds.
    fn end(step: u32) -> u64 {
        let power = (step / 16).saturating_sub(1);
        (u64::from(step - power * 16 + 1) << power) - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_near_the_truth() {
        let mut histogram = Histogram::default();
        for micros in 1..=100_000 {
            histogram.record(Duration::from_micros(micros));
        }
        for (share, micros) in [(0.5, 50_000.0), (0.99, 99_000.0), (0.001, 100.0)] {
            let found = histogram.quantile(share).as_secs_f64() * 1e6;
            assert!((found / micros - 1.0).abs() < 0.07, "{share}: {found}");
        }
        assert_eq!(histogram.quantile(1.0), Duration::from_millis(100));
        assert_eq!(Histogram::default().quantile(0.5), Duration::ZERO);
    }

    #[test]
    fn steps_are_in_order_and_end_before_the_next_begins() {
        for micros in (0..5_000_u128).chain([1 << 40]) {
            let step = Histogram::step(micros);
            assert!(u128::from(Histogram::end(step)) >= micros, "{micros}");
            assert!(step == 0 || u128::from(Histogram::end(step - 1)) < micros, "{micros}");
        }
    }
}
