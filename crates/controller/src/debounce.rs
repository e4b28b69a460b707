//! When to translate: changes of endpoints at once, others soon after the last of several, and never long after the first.

use std::time::Duration;

use tokio::time::Instant;

/// How long to wait for more after a change. A rollout or `kubectl apply -f` of a folder comes in bursts, and the watches of an Ingress and of
/// the Service that it names may deliver them in the other order.
const QUIET: Duration = Duration::from_millis(5);

/// How long a change waits at most while others keep arriving.
const LONGEST: Duration = Duration::from_millis(25);

/// Whether a change waits for those that belong to it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Haste {
    /// It is complete in itself, and requests go to the wrong endpoints until it is live.
    AtOnce,
    /// It may refer to what is just arriving.
    Soon,
}

/// Waits for a burst to end.
#[derive(Debug, Default)]
pub(crate) struct Debounce {
    burst: Option<Burst>,
    /// The time of the last reset.
    acted: Option<Instant>,
}

#[derive(Debug)]
struct Burst {
    first: Instant,
    last: Instant,
    haste: Haste,
}

impl Debounce {
    /// Records a change. A burst is acted on at once only if all its changes ask for that.
    pub(crate) fn touch(&mut self, now: Instant, haste: Haste) {
        let burst = self.burst.get_or_insert(Burst { first: now, last: now, haste });
        burst.last = now;
        if haste == Haste::Soon {
            burst.haste = Haste::Soon;
        }
    }

    /// When to act; `None` if nothing changed. What follows shortly after the last act is part of a burst, however urgent it is.
    pub(crate) fn due(&self) -> Option<Instant> {
        let Burst { first, last, haste } = *self.burst.as_ref()?;
        let is_alone = self.acted.is_none_or(|acted| acted + QUIET <= first);
        Some(if haste == Haste::AtOnce && is_alone { first } else { (last + QUIET).min(first + LONGEST) })
    }

    /// Resets when acting.
    pub(crate) fn reset(&mut self, now: Instant) {
        (self.burst, self.acted) = (None, Some(now));
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
        debounce.touch(start, Haste::Soon);
        assert_eq!(debounce.due(), Some(start + QUIET));
        for millisecond in 1..100 {
            debounce.touch(start + Duration::from_millis(millisecond), Haste::Soon);
        }
        assert_eq!(debounce.due(), Some(start + LONGEST));
        debounce.reset(start + LONGEST);
        assert_eq!(debounce.due(), None);
    }

    #[test]
    fn endpoints_wait_only_for_others_and_in_bursts() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut debounce = Debounce::default();
        debounce.touch(at(0), Haste::AtOnce);
        assert_eq!(debounce.due(), Some(at(0)), "a single change");
        debounce.touch(at(1), Haste::Soon);
        assert_eq!(debounce.due(), Some(at(1) + QUIET), "together with one that waits");
        debounce.reset(at(6));
        debounce.touch(at(7), Haste::AtOnce);
        debounce.touch(at(8), Haste::AtOnce);
        assert_eq!(debounce.due(), Some(at(8) + QUIET), "in a burst");
        debounce.reset(at(13));
        debounce.touch(at(13) + QUIET, Haste::AtOnce);
        assert_eq!(debounce.due(), Some(at(13) + QUIET), "after a burst");
    }
}
