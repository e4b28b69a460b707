//! How long to wait after a failure.

use std::hash::BuildHasher;
use std::time::Duration;

use crate::api::CallError;

/// First wait. An API server that restarts is back within seconds, so the first tries are close together.
const FIRST: Duration = Duration::from_millis(200);

/// Longest wait while there is no answer at all, and for the first refusals after that: nearly the longest time that a change
/// stays unseen once the API server is back. One that starts refuses for some seconds before it is ready.
const LONGEST_AT_FIRST: Duration = Duration::from_secs(1);

/// How many refusals in a row are taken for those of a start.
const AT_FIRST: u32 = 15;

/// Longest wait after refusals that go on: a right that is missing, or an API server that has too much to do.
const LONGEST: Duration = Duration::from_secs(10);

/// Doubling waits with jitter, so that the replicas don't all come back in the same instant.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
    /// How many of the last failures were of the same sort: no answer, or a refusal.
    alike: u32,
    /// Whether the last failure was that there was no answer.
    away: bool,
}

impl Backoff {
    /// How long to wait after this failure; at least as long as the API server asks for, at most a minute.
    pub(crate) fn after(&mut self, error: Option<&CallError>) -> Duration {
        let away = matches!(error, Some(CallError::Transport(_) | CallError::TimedOut(_)));
        if away != self.away {
            // However long there was no answer, the first one says that it won't be long any more.
            self.alike = 0;
            self.away = away;
        }
        let longest = if away || self.alike < AT_FIRST { LONGEST_AT_FIRST } else { LONGEST };
        let wait = FIRST.saturating_mul(1 << self.alike.min(16)).min(longest);
        self.failures = self.failures.saturating_add(1);
        self.alike = self.alike.saturating_add(1);
        // A hasher with a random seed is the standard library's source of randomness.
        let jitter = std::hash::RandomState::new().hash_one(self.failures) % 1024;
        let wait = wait.mul_f64(0.75 + jitter as f64 / 4096.0);
        let asked = error.and_then(CallError::retry_after).unwrap_or_default();
        wait.max(asked.min(Duration::from_secs(60)))
    }

    /// How many failures there were since the last success.
    pub(crate) fn failures(&self) -> u32 {
        self.failures
    }

    /// It works again.
    pub(crate) fn reset(&mut self) {
        *self = Self::default();
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
        // As an API server that starts answers.
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
