//! Tracks the open admin connections, and which of them is closed to make room for another.
//!
//! Anyone who can reach the port may open connections and stay silent. Probes must get through all the same: if they were
//! refused, the kubelet would restart the pod.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::limit::ADMIN_CONNECTIONS;
use tokio::sync::oneshot;

/// The connections that are open.
#[derive(Debug, Default)]
pub(super) struct Connections(Mutex<Open>);

#[derive(Debug, Default)]
struct Open {
    /// The first entry is the first to make room. A connection closes when its sender is dropped.
    order: BTreeMap<Rank, oneshot::Sender<()>>,
    turns: u64,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Rank {
    phase: AdminPhase,
    /// When the phase began, as a count.
    turn: u64,
}

/// What a connection does.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum AdminPhase {
    /// It waits for a request, or for the rest of its head.
    Waiting,
    /// It is being answered.
    Answered,
}

impl Connections {
    /// Returns a place for a new connection, and a receiver that resolves when it must give the place up. If all places are
    /// taken, the connection that has waited longest gives up its own; one that is being answered does so only if none waits.
    pub(super) fn enter(self: &Arc<Self>) -> (AdminPlace, oneshot::Receiver<()>) {
        let (close, closed) = oneshot::channel();
        let mut open = self.open();
        while open.order.len() >= ADMIN_CONNECTIONS {
            open.order.pop_first();
        }
        let rank = open.insert(AdminPhase::Waiting, close);
        drop(open);
        (AdminPlace { connections: self.clone(), rank }, closed)
    }

    /// Closes the connection that has waited longest, if any: its file descriptor is needed.
    pub(super) fn make_room(&self) {
        if let Some(first) = self.open().order.first_entry().filter(|first| first.key().phase == AdminPhase::Waiting) {
            first.remove();
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    fn insert(&mut self, phase: AdminPhase, close: oneshot::Sender<()>) -> Rank {
        self.turns += 1;
        let rank = Rank { phase, turn: self.turns };
        self.order.insert(rank, close);
        rank
    }
}

/// The place of an open connection.
#[derive(Debug)]
pub(super) struct AdminPlace {
    connections: Arc<Connections>,
    rank: Rank,
}

impl AdminPlace {
    /// Changes the phase of the connection.
    pub(super) fn begin(&mut self, phase: AdminPhase) {
        let mut open = self.connections.open();
        // The entry is missing if the place was given away a moment ago.
        if let Some(close) = open.order.remove(&self.rank) {
            self.rank = open.insert(phase, close);
        }
    }
}

impl Drop for AdminPlace {
    fn drop(&mut self) {
        self.connections.open().order.remove(&self.rank);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot::error::TryRecvError;

    use super::*;

    fn is_closed((_, closed): &mut (AdminPlace, oneshot::Receiver<()>)) -> bool {
        closed.try_recv() == Err(TryRecvError::Closed)
    }

    #[test]
    fn the_one_that_waits_for_longest_makes_room() {
        let connections = Arc::new(Connections::default());
        let mut open: Vec<_> = (0..ADMIN_CONNECTIONS).map(|_| connections.enter()).collect();
        // The first one is answered and waits again, so it has not waited long.
        open[0].0.begin(AdminPhase::Answered);
        open[0].0.begin(AdminPhase::Waiting);
        let _new = connections.enter();
        assert_eq!(open.iter_mut().position(is_closed), Some(1));
        // A connection that has ended leaves room.
        open.pop();
        let _new = connections.enter();
        assert_eq!(open.iter_mut().filter_map(|one| is_closed(one).then_some(())).count(), 1);
    }

    #[test]
    fn an_answer_is_cut_only_if_no_connection_waits() {
        let connections = Arc::new(Connections::default());
        let mut open: Vec<_> = (0..ADMIN_CONNECTIONS).map(|_| connections.enter()).collect();
        open[..ADMIN_CONNECTIONS - 1].iter_mut().for_each(|(place, _)| place.begin(AdminPhase::Answered));
        let (mut new, _closed) = connections.enter();
        assert_eq!(open.iter_mut().position(is_closed), Some(ADMIN_CONNECTIONS - 1));
        new.begin(AdminPhase::Answered);
        let _newer = connections.enter();
        assert_eq!(open.iter_mut().position(is_closed), Some(0));
    }

    #[test]
    fn no_answer_is_cut_for_a_file() {
        let connections = Arc::new(Connections::default());
        let mut open: Vec<_> = (0..2).map(|_| connections.enter()).collect();
        open[0].0.begin(AdminPhase::Answered);
        connections.make_room();
        connections.make_room();
        assert_eq!(open.iter_mut().map(is_closed).collect::<Vec<_>>(), [false, true]);
    }

    #[test]
    fn a_place_that_was_given_away_is_not_taken_back() {
        let connections = Arc::new(Connections::default());
        let mut open: Vec<_> = (0..=ADMIN_CONNECTIONS).map(|_| connections.enter()).collect();
        open[0].0.begin(AdminPhase::Answered);
        assert!(is_closed(&mut open[0]));
        drop(open);
        assert!(connections.open().order.is_empty());
    }
}
