//! Bounds the wait for a client's request body: one minute, plus one second for each `rate` bytes received.
//!
//! The longest gap between two reads is not enough: a client that sends a byte a minute could hold its place, and one at the endpoint, for
//! as long as it likes. Only the time spent waiting for the client counts, not the time in which the endpoint reads nothing.

use std::time::Duration;

use crate::limit::BODY_PATIENCE;
use crate::timer::{Millis, NEVER};

/// The time spent waiting for one client.
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
    /// Starts waiting for the client. Returns the time left, given the bytes received so far and the required `rate` per second.
    pub(super) fn waits(&mut self, now: Millis, received: u64, rate: u32) -> Duration {
        self.since = self.since.min(now);
        let earned = Duration::from_millis(received.saturating_mul(1000) / u64::from(rate.max(1)));
        (BODY_PATIENCE + earned).saturating_sub(Duration::from_millis(self.waited))
    }

    /// Notes that the client has sent something.
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
    fn only_a_client_that_keeps_the_rate_may_take_longer() {
        let mut patience = Patience::default();
        let (mut now, mut received) = (0, 0);
        // 100 bytes each second: the full minute remains.
        for _ in 0..1000 {
            assert_eq!(patience.waits(now, received, 100), Duration::from_secs(60));
            now += 1000;
            received += 100;
            patience.received(now);
            // The endpoint is slow.
            now += 5000;
        }
        // One byte each second, which earns ten milliseconds.
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
