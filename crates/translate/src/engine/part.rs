//! Large changes in parts: the waiting changes, and the size of a part.
//!
//! A part is bounded by numbers, never by time, so that the same calls have the same results. The rest waits by name: however often
//! an object changes meanwhile, it waits once, and its current version is looked up when its turn comes.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::objects::{Change, Kind, ObjectKey};

/// Changes, or Ingresses to read again, per part. A snapshot copies the shards that a change touches, a thousandth of the hosts each: of
/// 100,000 hosts, a part of 1,000 changes copies two thirds and takes 50 to 60 ms, one of 250 changes a fifth.
pub(crate) const CHANGES: usize = 250;

/// Maximum number of hosts, backends or findings that an ordinary change leads to.
const RESULTS: usize = 4;

/// The size of one call's work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    /// Changes, or Ingresses to read again.
    pub(crate) changes: usize,
    /// Results of any kind.
    pub(crate) results: usize,
    /// Whether waiting work may fill the room.
    fills: bool,
}

impl Extent {
    /// Only new changes, nothing that waits.
    pub(crate) fn fresh(changes: usize) -> Self {
        Self { fills: false, ..Self::part(changes) }
    }

    /// One part of the waiting work.
    pub(crate) fn part(changes: usize) -> Self {
        Self { changes, results: changes.saturating_mul(RESULTS), fills: true }
    }

    /// Everything.
    pub(crate) fn whole() -> Self {
        Self::part(usize::MAX)
    }

    pub(crate) fn is_whole(self) -> bool {
        self.changes == usize::MAX
    }
}

/// Chooses the work to do now: at most `room`; the rest waits. Waiting work fills the room unless the turn is for new changes only.
pub(crate) fn portion<T: Ord>(
    mut due: BTreeSet<T>,
    waiting: &mut BTreeSet<T>,
    room: usize,
    extent: Extent,
) -> BTreeSet<T> {
    while due.len() > room {
        waiting.extend(due.pop_last());
    }
    if waiting.is_empty() {
        return due;
    }
    for one in &due {
        waiting.remove(one);
    }
    while extent.fills
        && due.len() < room
        && let Some(one) = waiting.pop_first()
    {
        due.insert(one);
    }
    due
}

/// Waiting changes, one per object: referenced objects before those that refer to them, and removals last.
#[derive(Debug, Default)]
pub(crate) struct WaitingChanges {
    queue: BTreeMap<Turn, Waits>,
    turns: HashMap<ObjectKey, Turn>,
    next: u64,
}

/// By kind, then by arrival.
type Turn = (u8, u64);

#[derive(Debug)]
struct Waits {
    change: Change,
    /// Whether the object was removed in between, so that this is a new object of the same name.
    anew: bool,
}

impl WaitingChanges {
    pub(crate) fn push(&mut self, change: Change) {
        let key = key(&change);
        let before = self.forget(&key);
        let anew = match (&before, &change) {
            (Some(Waits { change: Change::Remove(_), .. }), Change::Upsert(_)) => true,
            (Some(Waits { anew, .. }), _) => *anew,
            (None, _) => false,
        };
        let turn = (rank(&change), self.next);
        self.next += 1;
        self.turns.insert(key, turn);
        self.queue.insert(turn, Waits { change, anew });
    }

    /// Removes the waiting change of an object, in favour of a newer one. Returns whether the object was removed in between.
    pub(crate) fn supersede(&mut self, newer: &Change) -> bool {
        let before = self.forget(&key(newer));
        before.is_some_and(|waits| waits.anew || matches!(waits.change, Change::Remove(_)))
    }

    /// The next change, with whether its object was removed in between.
    pub(crate) fn pop(&mut self) -> Option<(Change, bool)> {
        let (_, Waits { change, anew }) = self.queue.pop_first()?;
        self.turns.remove(&key(&change));
        Some((change, anew))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Change> {
        self.queue.values().map(|waits| &waits.change)
    }

    fn forget(&mut self, key: &ObjectKey) -> Option<Waits> {
        self.queue.remove(&self.turns.remove(key)?)
    }
}

fn key(change: &Change) -> ObjectKey {
    match change {
        Change::Upsert(object) => object.key(),
        Change::Remove(key) => key.clone(),
    }
}

/// Objects arrive before those that refer to them and leave after them, so that no host leads nowhere in between.
fn rank(change: &Change) -> u8 {
    let refers = matches!(key(change).kind, Kind::Ingress | Kind::HTTPRoute | Kind::GRPCRoute);
    match (change, refers) {
        (Change::Upsert(_), false) => 0,
        (Change::Upsert(_), true) => 1,
        (Change::Remove(_), true) => 2,
        (Change::Remove(_), false) => 3,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(range: std::ops::Range<u32>) -> BTreeSet<u32> {
        range.collect()
    }

    #[test]
    fn what_is_due_goes_first_and_what_waited_fills_the_room() {
        let mut waiting = set(10..20);
        assert_eq!(portion(set(0..3), &mut waiting, 5, Extent::part(1)), [0, 1, 2, 10, 11].into());
        assert_eq!(portion(set(0..3), &mut waiting, 5, Extent::fresh(1)), set(0..3));
        assert_eq!(portion(set(0..7), &mut waiting, 5, Extent::fresh(1)), set(0..5));
        assert_eq!(waiting, [5, 6, 12, 13, 14, 15, 16, 17, 18, 19].into());
        assert_eq!(portion(set(12..13), &mut waiting, usize::MAX, Extent::whole()).len(), 10);
        assert!(waiting.is_empty());
    }
}
