//! When to translate: changes that can be complete in themselves at once, the others soon after the last, and never long after the first.
//!
//! Objects that were written one after the other come by different watches, in whatever order, and the first must not be served without
//! what a later one demands for it: a Service in the clear, whose BackendTLSPolicy is on its way; a route without its RoutePolicy; a path
//! that has lost its own restriction before the ConfigMap's arrives. Three rules ensure that:
//!
//! 1. A kind that others may restrict, or may name before it exists, waits for [`QUIET`] ([`Haste::Soon`]). So do new and removed objects.
//! 2. Endpoints never wait: no object of another kind restricts them ([`Haste::AtOnce`]).
//! 3. An Ingress that changes is translated at once, and the result is judged ([`Haste::Judged`]): a change that lets nothing through that
//!    is kept back now (`Snapshot::may_open`) is published, whatever else may be on its way. Any other waits until its age is that of rule
//!    1, together with what arrives meanwhile.
//!
//! A change shortly after an act is part of a burst and waits for its end: the first change of a burst is live soon, and the others don't
//! come one by one.

use std::time::Duration;

use tokio::time::Instant;

/// How long to wait for more after a change. A rollout or `kubectl apply -f` of a folder comes in bursts, and the watches of an Ingress and
/// of the Service that it names may deliver them in the other order.
const QUIET: Duration = Duration::from_millis(5);

/// How long a change waits at most while others keep arriving.
const LONGEST: Duration = Duration::from_millis(25);

/// Whether a change waits for others that belong to it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Haste {
    /// It is complete in itself, and requests go to the wrong endpoints until it is live.
    AtOnce,
    /// It may be complete in itself, as its translation shows.
    Judged,
    /// It may refer to an object that is just arriving.
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
    /// Records a change. A burst has the haste of its slowest change.
    pub(crate) fn touch(&mut self, now: Instant, haste: Haste) {
        let burst = self.burst.get_or_insert(Burst { first: now, last: now, haste });
        burst.last = now;
        burst.haste = burst.haste.max(haste);
    }

    /// When to act; `None` if nothing changed. A change shortly after the last act is part of a burst, however urgent it is.
    pub(crate) fn due(&self) -> Option<Instant> {
        let Burst { first, last, haste } = *self.burst.as_ref()?;
        let is_alone = self.acted.is_none_or(|acted| acted + QUIET <= first);
        Some(if haste < Haste::Soon && is_alone { first } else { Burst::end(first, last) })
    }

    /// Resets when acting. Returns the time until which a change that opens something has to wait, if that is still to come.
    pub(crate) fn reset(&mut self, now: Instant) -> Option<Instant> {
        let burst = self.burst.take();
        self.acted = Some(now);
        burst
            .filter(|burst| burst.haste == Haste::Judged)
            .map(|Burst { first, last, .. }| Burst::end(first, last))
            .filter(|settled| *settled > now)
    }
}

impl Burst {
    /// When a burst with these first and last changes is over.
    fn end(first: Instant, last: Instant) -> Instant {
        (last + QUIET).min(first + LONGEST)
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

    #[test]
    fn what_is_to_be_judged_is_translated_at_once_and_has_still_to_wait() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut debounce = Debounce::default();
        debounce.touch(at(0), Haste::Judged);
        assert_eq!(debounce.due(), Some(at(0)));
        assert_eq!(debounce.reset(at(1)), Some(at(0) + QUIET));
        debounce.touch(at(2), Haste::Judged);
        assert_eq!(debounce.due(), Some(at(2) + QUIET), "in a burst");
        assert_eq!(debounce.reset(at(2) + QUIET), None, "it has waited");
        for millisecond in 10..100 {
            debounce.touch(at(millisecond), Haste::Judged);
        }
        assert_eq!(debounce.due(), Some(at(10) + LONGEST));
        assert_eq!(debounce.reset(at(10) + LONGEST), None, "however long the burst goes on");
        debounce.touch(at(120), Haste::AtOnce);
        assert_eq!(debounce.reset(at(120)), None, "endpoints open nothing");
        debounce.touch(at(140), Haste::Judged);
        debounce.touch(at(141), Haste::AtOnce);
        assert_eq!(debounce.due(), Some(at(140)));
        debounce.touch(at(142), Haste::Soon);
        assert_eq!(debounce.due(), Some(at(142) + QUIET), "with one that others may restrict");
    }
}
