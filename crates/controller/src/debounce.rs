//! When to translate: soon after the last of several changes, and never long after the first.

use std::time::Duration;

use tokio::time::Instant;

/// How long to wait for more after a change. A rollout or `kubectl apply -f` of a folder comes in bursts.
const QUIET: Duration = Duration::from_millis(5);

/// How long a change waits at most while others keep arriving.
const LONGEST: Duration = Duration::from_millis(25);

/// Waits for a burst to end.
#[derive(Debug, Default)]
pub(crate) struct Debounce {
    /// The first and the last change.
    burst: Option<(Instant, Instant)>,
}

impl Debounce {
    /// Records a change.
    pub(crate) fn touch(&mut self, now: Instant) {
        let (_, last) = self.burst.get_or_insert((now, now));
        *last = now;
    }

    /// When to act; `None` if nothing changed.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.burst.map(|(first, last)| (last + QUIET).min(first + LONGEST))
    }

    /// Resets after acting.
    pub(crate) fn reset(&mut self) {
        self.burst = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_awaited_within_a_limit() {
        let start = Instant::now();
        let mut debounce = Debounce::default();
        assert_eq!(debounce.due(), None);
        debounce.touch(start);
        assert_eq!(debounce.due(), Some(start + QUIET));
        for millisecond in 1..100 {
            debounce.touch(start + Duration::from_millis(millisecond));
        }
        assert_eq!(debounce.due(), Some(start + LONGEST));
        debounce.reset();
        assert_eq!(debounce.due(), None);
    }
}
