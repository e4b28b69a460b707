//! How long to wait after a failure.

use std::hash::BuildHasher;
use std::time::Duration;

use crate::api::CallError;

/// First wait. A restarting API server is back within seconds, so the first attempts are close together.
const FIRST: Duration = Duration::from_millis(200);

/// Longest wait while the API server does not respond, and for the first refusals after that: nearly the longest time
/// that a change goes unnoticed once the API server is back. A starting one refuses for some seconds before it is
/// ready.
const LONGEST_AT_FIRST: Duration = Duration::from_secs(1);

/// How many refusals in a row are attributed to a start.
const AT_FIRST: u32 = 15;

/// Longest wait after continued refusals: a missing right, or an overloaded API server.
const LONGEST: Duration = Duration::from_secs(10);

/// The longest wait for one of many objects.
const LONGEST_OF_OBJECT: Duration = Duration::from_secs(60);

/// Doubling waits with jitter, so that the replicas don't all retry at the same instant.
#[derive(Debug)]
pub(crate) struct Backoff {
    longest: Duration,
    failures: u32,
    /// How many of the last failures were of the same kind: no response, or a refusal.
    alike: u32,
    /// Whether the last failure was a missing response.
    away: bool,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { longest: LONGEST, failures: 0, alike: 0, away: false }
    }
}

impl Backoff {
    /// For one of many objects.
    pub(crate) fn of_object() -> Self {
        Self { longest: LONGEST_OF_OBJECT, ..Self::default() }
    }

    /// How long to wait after this failure: at least as long as the API server asks for, at most a minute.
    pub(crate) fn after(&mut self, error: Option<&CallError>) -> Duration {
        let away =
            matches!(error, Some(CallError::ServerUnreachable(_) | CallError::Transport(_) | CallError::TimedOut(_)));
        if away != self.away {
            // However long the outage, its first response means that it is nearly over.
            self.alike = 0;
            self.away = away;
        }
        let longest = if away || self.alike < AT_FIRST { LONGEST_AT_FIRST } else { self.longest };
        let wait = FIRST.saturating_mul(1 << self.alike.min(16)).min(longest);
        self.failures = self.failures.saturating_add(1);
        self.alike = self.alike.saturating_add(1);
        // A randomly seeded hasher is the standard library's source of randomness.
        let jitter = std::hash::RandomState::new().hash_one(self.failures) % 1024;
        let wait = wait.mul_f64(0.75 + jitter as f64 / 4096.0);
        let asked = error.and_then(CallError::retry_after).unwrap_or_default();
        wait.max(asked.min(Duration::from_secs(60)))
    }

    /// The number of failures since the last success.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// Records a success.
    pub(crate) fn reset(&mut self) {
        *self = Self { longest: self.longest, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit_and_start_again() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..20).map(|_| backoff.after(None)).collect();
        assert!(waits[0] <= FIRST && waits[0] >= FIRST.mul_f64(0.75));
        assert!(waits.iter().all(|wait| *wait <= LONGEST));
        assert!(waits[19] >= LONGEST.mul_f64(0.75));
        backoff.reset();
        assert!(backoff.after(None) <= FIRST);
    }

    fn refused(code: u16, seconds: Option<u64>) -> CallError {
        let retry_after = seconds.map(Duration::from_secs);
        CallError::Refused { code, reason: String::new(), message: String::new(), retry_after }
    }

    #[test]
    fn the_first_refusal_after_an_outage_is_not_the_end_of_a_long_row() {
        let mut backoff = Backoff::default();
        let away = CallError::TimedOut(Duration::ZERO);
        let waits: Vec<_> = (0..60).map(|_| backoff.after(Some(&away))).collect();
        assert!(waits.iter().all(|wait| *wait <= LONGEST_AT_FIRST));
        // Like the responses of a starting API server.
        assert!(backoff.after(Some(&refused(403, None))) <= FIRST);
        assert!(backoff.after(Some(&refused(429, Some(1)))) <= LONGEST_AT_FIRST);
        let waits: Vec<_> = (2..AT_FIRST).map(|_| backoff.after(Some(&refused(500, None)))).collect();
        assert!(waits.iter().all(|wait| *wait <= LONGEST_AT_FIRST));
        assert!(backoff.after(Some(&refused(500, None))) > LONGEST_AT_FIRST);
        assert_eq!(backoff.failures(), 60 + AT_FIRST + 1);
    }

    #[test]
    fn the_api_server_may_ask_for_more() {
        assert_eq!(Backoff::default().after(Some(&refused(429, Some(7)))), Duration::from_secs(7));
        assert_eq!(Backoff::default().after(Some(&refused(429, Some(86_400)))), Duration::from_secs(60));
    }
}
