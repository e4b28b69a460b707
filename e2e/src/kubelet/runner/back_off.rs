//! How long a container that ends again and again waits before it is started.

use std::time::Duration;

/// How long a container waits after its ends: not at all after the first, then 10 s, doubling to 5 minutes; from the start
/// again after it ran for 10 minutes.
#[derive(Debug, Default)]
pub(super) struct BackOff {
    next: Option<Duration>,
}

impl BackOff {
    const FIRST: Duration = Duration::from_secs(10);
    const LAST: Duration = Duration::from_secs(300);
    const FORGET: Duration = Duration::from_secs(600);

    /// What to wait after a run of that length.
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
