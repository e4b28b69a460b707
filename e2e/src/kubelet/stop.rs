//! "End by then", sent to the containers of a pod; the deadline may become earlier, but never later.

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// Sends the order to end.
#[derive(Debug)]
pub(crate) struct Stopper(watch::Sender<Option<Instant>>);

/// Receives the order to end.
#[derive(Clone, Debug)]
pub(crate) struct Stop {
    deadline: watch::Receiver<Option<Instant>>,
    limit: Option<Instant>,
}

/// Both ends.
pub(crate) fn channel() -> (Stopper, Stop) {
    let (sender, deadline) = watch::channel(None);
    (Stopper(sender), Stop { deadline, limit: None })
}

impl Stopper {
    /// Orders the end by a deadline; the earliest of several applies.
    pub(crate) fn stop(&self, deadline: Instant) {
        self.0.send_if_modified(|known| {
            let earlier = known.is_none_or(|known| deadline < known);
            if earlier {
                *known = Some(deadline);
            }
            earlier
        });
    }

    /// Whether the order was given.
    pub(crate) fn is_stopped(&self) -> bool {
        self.0.borrow().is_some()
    }
}

impl Stop {
    /// The deadline, if ordered to end.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let deadline = *self.deadline.borrow();
        match (deadline, self.limit) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        }
    }

    /// Whether to end.
    pub(crate) fn is_set(&self) -> bool {
        self.deadline().is_some()
    }

    /// The same, but with `limit` as the latest deadline.
    pub(crate) fn limited(&self, limit: Instant) -> Self {
        Self { deadline: self.deadline.clone(), limit: Some(self.limit.map_or(limit, |known| known.min(limit))) }
    }

    /// Waits for the order to end; forever if the sender is gone.
    pub(crate) async fn begun(&mut self) {
        if !self.is_set() && self.deadline.wait_for(Option::is_some).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until the time is up.
    pub(crate) async fn due(&self) {
        let mut changes = self.deadline.clone();
        loop {
            changes.mark_unchanged();
            let deadline = self.deadline();
            let up = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            let changed = async {
                if changes.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            tokio::select! {
                () = up => return,
                () = changed => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn the_time_becomes_shorter_but_not_longer() {
        let (stopper, mut stop) = channel();
        assert!(!stop.is_set());
        let begin = Instant::now();
        stopper.stop(begin + Duration::from_secs(30));
        stop.begun().await;
        stopper.stop(begin + Duration::from_secs(60));
        assert_eq!(stop.deadline(), Some(begin + Duration::from_secs(30)));
        assert_eq!(stop.limited(begin + Duration::from_secs(1)).deadline(), Some(begin + Duration::from_secs(1)));
        let waiting = tokio::spawn({
            let stop = stop.clone();
            async move { stop.due().await }
        });
        tokio::task::yield_now().await;
        stopper.stop(begin);
        tokio::time::timeout(Duration::from_secs(10), waiting)
            .await
            .expect("the wait ends at the new time")
            .expect("the task ends");
    }
}
