//! A gate: one side waits at it, the test opens it.

use std::sync::Arc;

use tokio::sync::watch;

use crate::within;

/// Blocks every task that passes until the test releases it. Clones are the same gate.
#[derive(Clone, Debug)]
pub struct Gate(Arc<watch::Sender<State>>);

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// Number of arrivals so far.
    arrived: u64,
    /// Number that may pass.
    allowed: u64,
    /// Tickets issued; ticket `n` passes once `allowed > n`.
    tickets: u64,
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl Gate {
    /// A closed gate.
    pub fn new() -> Self {
        Self(Arc::new(watch::Sender::new(State::default())))
    }

    /// Opens the gate permanently.
    pub fn release(&self) {
        self.0.send_modify(|state| state.allowed = u64::MAX);
    }

    /// Lets one more through: the one that has waited longest, or the next to arrive.
    pub fn release_one(&self) {
        self.0.send_modify(|state| state.allowed = state.allowed.saturating_add(1));
    }

    /// Waits for `count` arrivals in total, whether they have passed or not.
    pub async fn reached(&self, count: u64) {
        let mut state = self.0.subscribe();
        within(&format!("{count} arrivals at a gate"), async {
            let _ = state.wait_for(|state| state.arrived >= count).await;
        })
        .await;
    }

    /// Waits to pass. Has no deadline: the test that opens the gate decides.
    pub async fn pass(&self) {
        let mut ticket = 0;
        self.0.send_modify(|state| {
            ticket = state.tickets;
            state.tickets += 1;
            state.arrived += 1;
        });
        let mut state = self.0.subscribe();
        let _ = state.wait_for(|state| state.allowed > ticket).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_release_lets_one_through() {
        let gate = Gate::new();
        let passed = Gate::new();
        for _ in 0..2 {
            let (gate, passed) = (gate.clone(), passed.clone());
            tokio::spawn(async move {
                gate.pass().await;
                passed.pass().await;
            });
        }
        gate.reached(2).await;
        gate.release_one();
        passed.reached(1).await;
        assert_eq!(passed.0.borrow().arrived, 1);
        gate.release();
        passed.reached(2).await;
    }
}
