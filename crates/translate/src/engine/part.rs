//! Large changes in parts: the waiting changes, and the size of a part.
//!
//! Counts bound a part, never time, so that the same calls have the same results. The rest waits by name: however often an object changes
//! meanwhile, it waits once, and its current version is looked up when its turn comes.

use std::collections::{BTreeMap, BTreeSet, HashMap, btree_map};
use std::ops::Bound;
use std::sync::Arc;

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
    /// Only new changes, no waiting work.
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

/// Waiting changes, one per object. Namespaces take turns, so that a small change doesn't wait for a large one in another namespace. Within
/// a namespace, referenced objects come before those that refer to them, and objects in effect before new ones. Objects that any namespace
/// can refer to come first and removals last, so that an application that moves between namespaces is created before it is removed.
#[derive(Debug)]
pub(crate) struct WaitingChanges {
    /// By namespace; the empty name has the objects that any namespace can refer to.
    upserts: BTreeMap<Arc<str>, BTreeMap<Turn, Waits>>,
    /// The namespace that had the last turn.
    last: Arc<str>,
    removals: BTreeMap<Turn, Waits>,
    turns: HashMap<ObjectKey, Turn>,
    next: u64,
}

impl Default for WaitingChanges {
    fn default() -> Self {
        Self { upserts: BTreeMap::new(), last: "".into(), removals: BTreeMap::new(), turns: HashMap::new(), next: 0 }
    }
}

/// By rank, then by arrival.
type Turn = (Rank, u64);

/// The order of changes within a namespace, and of removals.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Rank {
    Referenced,
    /// An Ingress or route that is in effect in another version.
    Known,
    New,
    /// An Ingress or route that is gone; the objects that it refers to are removed after it.
    Leaving,
    Unreferenced,
}

#[derive(Debug)]
struct Waits {
    change: Change,
    /// Whether the object was removed in between, so that this is a new object of the same name.
    anew: bool,
}

impl WaitingChanges {
    /// Adds a change. `known` is whether a version of the object is in effect.
    pub(crate) fn push(&mut self, change: Change, known: bool) {
        let key = key(&change);
        let before = self.forget(&key);
        let anew = match (&before, &change) {
            (Some(Waits { change: Change::Remove(_), .. }), Change::Upsert(_)) => true,
            (Some(Waits { anew, .. }), _) => *anew,
            (None, _) => false,
        };
        let rank = match (&change, refers(key.kind)) {
            (Change::Upsert(_), false) => Rank::Referenced,
            (Change::Upsert(_), true) if known => Rank::Known,
            (Change::Upsert(_), true) => Rank::New,
            (Change::Remove(_), true) => Rank::Leaving,
            (Change::Remove(_), false) => Rank::Unreferenced,
        };
        let turn = (rank, self.next);
        self.next += 1;
        let waits = Waits { change, anew };
        if rank >= Rank::Leaving {
            self.removals.insert(turn, waits);
        } else {
            self.upserts.entry(queue(&key)).or_default().insert(turn, waits);
        }
        self.turns.insert(key, turn);
    }

    /// Removes the waiting change of an object, in favour of a newer one. Returns whether the object was removed in between.
    pub(crate) fn supersede(&mut self, newer: &Change) -> bool {
        let before = self.forget(&key(newer));
        before.is_some_and(|waits| waits.anew || matches!(waits.change, Change::Remove(_)))
    }

    /// The next change, and whether its object was removed in between.
    pub(crate) fn pop(&mut self) -> Option<(Change, bool)> {
        let Waits { change, anew } = self.pop_upsert().or_else(|| Some(self.removals.pop_first()?.1))?;
        self.turns.remove(&key(&change));
        Some((change, anew))
    }

    fn pop_upsert(&mut self) -> Option<Waits> {
        let (first, _) = self.upserts.first_key_value()?;
        let after_last = || self.upserts.range::<str, _>((Bound::Excluded(&*self.last), Bound::Unbounded)).next();
        let namespace = if first.is_empty() { first } else { after_last().map_or(first, |(next, _)| next) }.clone();
        let btree_map::Entry::Occupied(mut waiting) = self.upserts.entry(namespace.clone()) else { return None };
        self.last = namespace;
        let (_, waits) = waiting.get_mut().pop_first()?;
        if waiting.get().is_empty() {
            waiting.remove();
        }
        Some(waits)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Change> {
        self.upserts.values().chain([&self.removals]).flat_map(BTreeMap::values).map(|waits| &waits.change)
    }

    fn forget(&mut self, key: &ObjectKey) -> Option<Waits> {
        let turn = self.turns.remove(key)?;
        if turn.0 >= Rank::Leaving {
            return self.removals.remove(&turn);
        }
        let btree_map::Entry::Occupied(mut of_namespace) = self.upserts.entry(queue(key)) else { return None };
        let waits = of_namespace.get_mut().remove(&turn);
        if of_namespace.get().is_empty() {
            of_namespace.remove();
        }
        waits
    }
}

fn key(change: &Change) -> ObjectKey {
    match change {
        Change::Upsert(object) => object.key(),
        Change::Remove(key) => key.clone(),
    }
}

/// Whether objects of a kind turn what they refer to into hosts.
fn refers(kind: Kind) -> bool {
    kind == Kind::Ingress || kind.is_route()
}

/// The queue in which the upsert of an object waits: its namespace's, or the unnamed one for objects that any namespace can refer to.
fn queue(key: &ObjectKey) -> Arc<str> {
    match key.kind {
        Kind::Service | Kind::EndpointSlice => key.namespace.clone(),
        kind if refers(kind) => key.namespace.clone(),
        _ => "".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::Object;
    use k8s_openapi::api::networking::v1::Ingress;
    use serde_json::{from_value, json};

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

    fn upsert(kind: Kind, namespace: &str, name: &str) -> Change {
        let metadata = json!({"namespace": namespace, "name": name});
        Change::Upsert(match kind {
            Kind::Ingress => Object::from(from_value::<Ingress>(json!({"metadata": metadata})).unwrap()),
            Kind::Secret => Object::Secret(Arc::new(from_value(json!({"metadata": metadata})).unwrap())),
            _ => Object::Service(Arc::new(from_value(json!({"metadata": metadata})).unwrap())),
        })
    }

    fn order(waiting: &mut WaitingChanges) -> String {
        let popped = std::iter::from_fn(|| waiting.pop()).map(|(change, _)| {
            let sign = if matches!(change, Change::Remove(_)) { "-" } else { "" };
            format!("{sign}{}/{}", key(&change).namespace, key(&change).name)
        });
        popped.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_small_change_waits_for_no_large_one_in_another_namespace() {
        let mut waiting = WaitingChanges::default();
        for name in ["1", "2", "3", "4"] {
            waiting.push(upsert(Kind::Ingress, "many", name), false);
        }
        for namespace in ["zero", "few"] {
            waiting.push(upsert(Kind::Ingress, namespace, "edited"), false);
        }
        waiting.supersede(&upsert(Kind::Ingress, "zero", "edited"));
        assert_eq!(order(&mut waiting), "few/edited many/1 many/2 many/3 many/4");
        assert!(waiting.is_empty());
    }

    #[test]
    fn an_edit_goes_before_new_objects_of_its_namespace_and_after_what_it_may_refer_to() {
        let mut waiting = WaitingChanges::default();
        waiting.push(Change::Remove(ObjectKey::new(Kind::Ingress, "m", "moved")), true);
        waiting.push(upsert(Kind::Ingress, "n", "new"), false);
        waiting.push(upsert(Kind::Ingress, "n", "moved"), false);
        waiting.push(upsert(Kind::Ingress, "n", "edited"), true);
        waiting.push(upsert(Kind::Service, "n", "service"), false);
        waiting.push(upsert(Kind::Secret, "z", "secret"), false);
        assert_eq!(order(&mut waiting), "z/secret n/service n/edited n/new n/moved -m/moved");
    }
}
