//! Where in its life the process is, as probes see it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

/// The stage that a process is in; clones share it. It only ever moves forward.
#[derive(Clone, Debug, Default)]
pub struct Lifecycle(Arc<AtomicU8>);

/// A stage.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub enum Stage {
    /// The first complete configuration is not live yet. Serving now would answer 404 to everything.
    Starting,
    /// Traffic is served.
    Serving,
    /// Shutdown has begun; traffic should go elsewhere.
    Stopping,
}

impl Lifecycle {
    /// The first complete configuration is live in every worker.
    pub fn serving(&self) {
        self.0.fetch_max(1, Ordering::Relaxed);
    }

    /// Shutdown has begun.
    pub fn stopping(&self) {
        self.0.fetch_max(2, Ordering::Relaxed);
    }

    /// The stage of now.
    pub fn stage(&self) -> Stage {
        match self.0.load(Ordering::Relaxed) {
            0 => Stage::Starting,
            1 => Stage::Serving,
            _ => Stage::Stopping,
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
    }
}
