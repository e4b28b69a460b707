//! How long a client is waited for while its request body comes: a minute, and a second more for each so many bytes.
//!
//! The longest gap between two reads does not bound this: a client that sends a byte a minute would hold its place, and one of the
//! endpoint, for as long as it likes. Only waiting for the client counts, not the time in which the endpoint takes nothing.

use std::time::Duration;

use crate::limit::BODY_PATIENCE;
use crate::timer::{Millis, NEVER};

/// The time that one client was waited for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Patience {
    waited: Millis,
    since: Millis,
}

impl Default for Patience {
    fn default() -> Self {
        Self { waited: 0, since: NEVER }
    }
}

impl Patience {
    /// The client is waited for, from now on. For how long at most, if it has sent so many bytes and has to send `rate` a second.
    pub(super) fn waits(&mut self, now: Millis, received: u64, rate: u32) -> Duration {
        self.since = self.since.min(now);
        let earned = Duration::from_millis(received.saturating_mul(1000) / u64::from(rate.max(1)));
        (BODY_PATIENCE + earned).saturating_sub(Duration::from_millis(self.waited))
    }

    /// The client has sent something.
    pub(super) fn received(&mut self, now: Millis) {
        if self.since != NEVER {
            self.waited += now.saturating_sub(self.since);
            self.since = NEVER;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_keeps_the_rate_is_waited_for_and_one_that_trickles_is_not() {
        let mut patience = Patience::default();
        let (mut now, mut received) = (0, 0);
        // 100 bytes each second: the minute stays.
        for _ in 0..1000 {
            assert_eq!(patience.waits(now, received, 100), Duration::from_secs(60));
            now += 1000;
            received += 100;
            patience.received(now);
            // The endpoint takes its time.
            now += 5000;
        }
        // A byte each second, of which ten milliseconds are its due.
        let mut seconds = 0;
        while !patience.waits(now, received, 100).is_zero() {
            now += 1000;
            received += 1;
            patience.received(now);
            seconds += 1;
        }
        assert_eq!(seconds, 61);
    }
}
