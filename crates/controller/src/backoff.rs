//! How long to wait after a failure.

use std::hash::BuildHasher;
use std::time::Duration;

use crate::api::CallError;

/// First wait. An API server that restarts is back within seconds, so the first tries are close together.
const FIRST: Duration = Duration::from_millis(200);

/// Longest wait after an answer that is a refusal.
const LONGEST: Duration = Duration::from_secs(10);

/// Longest wait while there is no answer at all: nearly the longest time that a change stays unseen once the API server is back.
const LONGEST_AWAY: Duration = Duration::from_secs(3);

/// Doubling waits with jitter, so that the replicas don't all come back in the same instant.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// How long to wait after this failure; at least as long as the API server asks for, at most a minute.
    pub(crate) fn after(&mut self, error: Option<&CallError>) -> Duration {
        let longest = if matches!(error, Some(CallError::Transport(_))) { LONGEST_AWAY } else { LONGEST };
        let wait = FIRST.saturating_mul(1 << self.failures.min(16)).min(longest);
        self.failures = self.failures.saturating_add(1);
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
        self.failures = 0;
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

    #[test]
    fn the_api_server_may_ask_for_more() {
        let asks = |seconds| CallError::Refused {
            code: 429,
            reason: String::new(),
            message: String::new(),
            retry_after: Some(Duration::from_secs(seconds)),
        };
        assert_eq!(Backoff::default().after(Some(&asks(7))), Duration::from_secs(7));
        assert_eq!(Backoff::default().after(Some(&asks(86_400))), Duration::from_secs(60));
    }
}
