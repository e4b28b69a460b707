//! A gate: one side waits in front of it, the test opens it.

use std::sync::Arc;

use tokio::sync::watch;

use crate::within;

/// Holds back whoever passes it until the test lets them through. Clones are the same gate.
#[derive(Clone, Debug)]
pub struct Gate(Arc<watch::Sender<State>>);

#[derive(Clone, Copy, Debug, Default)]
struct State {
    /// How many have come to the gate so far.
    arrived: u64,
    /// How many may pass.
    allowed: u64,
    /// Tickets handed out; ticket `n` passes once `allowed > n`.
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

    /// Opens the gate for good.
    pub fn release(&self) {
        self.0.send_modify(|state| state.allowed = u64::MAX);
    }

    /// Lets one more through: the one waiting longest, or the next to come.
    pub fn release_one(&self) {
        self.0.send_modify(|state| state.allowed = state.allowed.saturating_add(1));
    }

    /// Waits until `count` have come to the gate in all, whether they passed or not.
    pub async fn reached(&self, count: u64) {
        let mut state = self.0.subscribe();
        within(&format!("{count} arrivals at a gate"), async {
            let _ = state.wait_for(|state| state.arrived >= count).await;
        })
        .await;
    }

    /// Waits to be let through. Has no deadline: the one who opens the gate decides.
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
