//! The stage in the life of the process, as seen by probes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

/// The stage that a process is in; clones share it. It only ever moves forward.
#[derive(Clone, Debug, Default)]
pub struct Lifecycle(Arc<AtomicU8>, Arc<AtomicBool>);

/// A stage.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub enum Stage {
    /// The first complete configuration is not live yet. Serving now would answer 404 to everything.
    Starting,
    /// Traffic is served.
    Serving,
    /// Shutdown has begun; traffic should go elsewhere. Requests that still arrive are served.
    Stopping,
    /// New connections are no longer accepted, or never were; open ones end.
    Draining,
}

impl Lifecycle {
    /// The first complete configuration is live in every worker.
    pub fn serving(&self) {
        self.0.fetch_max(1, Ordering::Relaxed);
    }

    /// Shutdown has begun. A process that has never served drains at once.
    pub fn stopping(&self) {
        let next = |stage: u8| Some(if stage == 0 { 3 } else { stage.max(2) });
        let _ = self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }

    /// New connections are no longer accepted.
    pub fn draining(&self) {
        self.0.fetch_max(3, Ordering::Relaxed);
    }

    /// Sets whether another process is about to serve in place of this one. They share the port for health.
    pub fn succeeded(&self, by_another: bool) {
        self.1.store(by_another, Ordering::Relaxed);
    }

    /// Whether another process is about to serve in place of this one.
    pub fn is_succeeded(&self) -> bool {
        self.1.load(Ordering::Relaxed)
    }

    /// The current stage.
    pub fn stage(&self) -> Stage {
        match self.0.load(Ordering::Relaxed) {
            0 => Stage::Starting,
            1 => Stage::Serving,
            2 => Stage::Stopping,
            _ => Stage::Draining,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_stops_never_serves_again() {
        let lifecycle = Lifecycle::default();
        let seen = lifecycle.clone();
        assert_eq!(lifecycle.stage(), Stage::Starting);
        lifecycle.serving();
        assert_eq!(seen.stage(), Stage::Serving);
        lifecycle.stopping();
        lifecycle.serving();
        assert_eq!(lifecycle.stage(), Stage::Stopping);
        lifecycle.draining();
        lifecycle.stopping();
        assert_eq!(lifecycle.stage(), Stage::Draining);
    }

    #[test]
    fn a_process_that_ends_before_it_serves_never_does() {
        let lifecycle = Lifecycle::default();
        lifecycle.stopping();
        lifecycle.serving();
        assert_eq!(lifecycle.stage(), Stage::Draining);
    }
}
