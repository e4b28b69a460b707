//! How long a container that ends repeatedly waits before its restart.

use std::time::Duration;

/// The wait after each end: none after the first, then 10 s, doubling up to 5 minutes; it starts over after the
/// container ran for 10 minutes.
#[derive(Debug, Default)]
pub(super) struct BackOff {
    next: Option<Duration>,
}

impl BackOff {
    const FIRST: Duration = Duration::from_secs(10);
    const LAST: Duration = Duration::from_secs(300);
    const FORGET: Duration = Duration::from_secs(600);

    /// The wait after a run of this length.
    pub(super) fn after(&mut self, ran: Duration) -> Duration {
        if ran >= Self::FORGET {
            self.next = None;
        }
        let wait = self.next.unwrap_or_default();
        self.next = Some(self.next.map_or(Self::FIRST, |next| (next * 2).min(Self::LAST)));
        wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn back_off_begins_with_nothing_doubles_and_is_forgotten() {
        let mut back_off = BackOff::default();
        let short = Duration::from_secs(1);
        let waits: Vec<u64> = (0..8).map(|_| back_off.after(short).as_secs()).collect();
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(back_off.after(Duration::from_secs(600)).as_secs(), 0);
    }
}
