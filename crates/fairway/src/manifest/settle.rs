//! Determines which objects of the files are new, different or gone, in steps of bounded size, so that a large file doesn't delay a small
//! one that is saved meanwhile.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::path::Path;
use std::sync::Arc;

use fairway_translate::objects::{Change, Object, ObjectKey};

use super::file::{DocumentState, FileState};
use super::{Live, Manifests, Parsed, duplicate, order};

/// Objects examined in one step, which takes some milliseconds regardless of their total.
pub(super) const STEP: usize = 2000;

/// Content that was taken over from files and isn't live yet.
#[derive(Debug, Default)]
pub(super) struct Unsettled {
    /// Files whose objects become live, each from a position on.
    coming: VecDeque<(Arc<Path>, Cursor)>,
    /// The previous documents: their objects end unless a file still has them.
    going: Vec<DocumentState>,
}

/// The next object: number of the document, and number within it.
type Cursor = (usize, usize);

/// A step found an object that is defined twice: all files have to be examined together.
struct StandsTwice;

impl Unsettled {
    fn is_empty(&self) -> bool {
        self.coming.is_empty() && self.going.is_empty()
    }
}

impl Manifests {
    /// Takes over parsed files, and returns the objects that changed. If there are many, it returns none: [`proceed`](Self::proceed)
    /// handles a part of them as long as there [is more](Self::has_more), and files taken over meanwhile go first.
    pub(crate) fn take(&mut self, parsed: Parsed) -> Vec<Change> {
        self.takes += 1;
        let mut pending = Unsettled { coming: VecDeque::new(), going: parsed.gone };
        let count =
            |documents: &[DocumentState]| documents.iter().map(|document| document.objects.len()).sum::<usize>();
        let mut objects = count(&pending.going);
        let mut taken = BTreeSet::new();
        for file in parsed.files {
            let path = file.path.clone();
            // The file was deleted in the meantime: its content no longer counts.
            let Some(state) = self.files.get_mut(&path) else { continue };
            let Some(replaced) = state.take(file, self.takes) else { continue };
            objects += count(&state.documents) + count(&replaced);
            pending.going.extend(replaced);
            taken.insert(path.clone());
            pending.coming.push_back((path, (0, 0)));
        }
        if pending.is_empty() {
            return Vec::new();
        }
        if self.date(&taken) || !self.duplicates.is_empty() {
            return self.settle_all();
        }
        if objects > STEP {
            self.pending.coming.extend(pending.coming);
            self.pending.going.extend(pending.going);
            return Vec::new();
        }
        self.settle(pending)
    }

    /// Whether some content that was taken over isn't live yet.
    pub(crate) fn has_more(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Handles the next part of what was taken over, and returns the objects that changed.
    pub(crate) fn proceed(&mut self) -> Vec<Change> {
        let mut pending = std::mem::take(&mut self.pending);
        let (mut changes, mut ended) = (Vec::new(), Vec::new());
        match self.step(&mut pending, STEP, &mut changes, &mut ended) {
            Ok(()) => self.pending = pending,
            Err(StandsTwice) => self.see_together(&mut changes),
        }
        changes.extend(ended);
        changes
    }

    /// Handles all of it. Objects that ended come first, sorted by name.
    fn settle(&mut self, mut pending: Unsettled) -> Vec<Change> {
        let (mut changes, mut ended) = (Vec::new(), Vec::new());
        while !pending.is_empty() {
            if let Err(StandsTwice) = self.step(&mut pending, usize::MAX, &mut changes, &mut ended) {
                self.see_together(&mut changes);
                break;
            }
        }
        ended.sort_by(|a, b| removed(a).cmp(&removed(b)));
        ended.extend(changes);
        ended
    }

    /// Examines at most `limit` objects: the current ones, then the previous ones.
    fn step(
        &mut self,
        pending: &mut Unsettled,
        limit: usize,
        changes: &mut Vec<Change>,
        ended: &mut Vec<Change>,
    ) -> Result<(), StandsTwice> {
        let Self { files, live, .. } = self;
        // Whether the object comes from the current content of a file that still exists.
        let is_current = |live: &Live| files.get(&live.file).is_some_and(|file| file.taken == live.taken);
        let mut room = limit;
        while let Some((path, (at, within))) = pending.coming.front_mut() {
            let Some(file) = files.get(path) else {
                pending.coming.pop_front();
                continue;
            };
            let Some(document) = file.documents.get(*at) else {
                pending.coming.pop_front();
                continue;
            };
            for held in document.objects.iter().skip(*within).take(room) {
                let lines = (document.line, held.line);
                let now = Live { object: held.object.clone(), file: path.clone(), lines, taken: file.taken };
                let before = live.insert(held.key.clone(), now);
                let same = before.as_ref().is_some_and(|before| same(&before.object, &held.object));
                if let Some(before) = before.filter(is_current) {
                    live.insert(held.key.clone(), before);
                    return Err(StandsTwice);
                }
                if !same {
                    changes.push(Change::Upsert(held.object.clone()));
                }
                *within += 1;
                room -= 1;
            }
            if *within >= document.objects.len() {
                (*at, *within) = (*at + 1, 0);
                // A document without objects costs work too.
                room = room.saturating_sub(1);
            }
            if room == 0 {
                return Ok(());
            }
        }
        while let Some(document) = pending.going.last_mut() {
            while let Some(held) = document.objects.pop() {
                if live.get(&held.key).is_some_and(|live| !is_current(live)) {
                    live.remove(&held.key);
                    ended.push(Change::Remove(held.key));
                }
                room = room.saturating_sub(1);
                if room == 0 {
                    return Ok(());
                }
            }
            pending.going.pop();
        }
        Ok(())
    }

    /// Gives dates to the undated objects of these files, between those of the neighbouring files, so that a small file costs little beside
    /// large ones; if there is no room, redates all files. Returns whether any object's date changed.
    fn date(&mut self, taken: &BTreeSet<Arc<Path>>) -> bool {
        let mut moved = false;
        for path in taken {
            let before = self.files.range::<Path, _>((Bound::Unbounded, Bound::Excluded(&**path))).rev();
            let after = self.files.range::<Path, _>((Bound::Excluded(&**path), Bound::Unbounded));
            let neighbours = (
                before.flat_map(|(_, file)| undated(file).rev()).find_map(order::time),
                after.flat_map(|(_, file)| undated(file)).find_map(order::time),
            );
            let Some(file) = self.files.get_mut(path) else { continue };
            match order::date_between(&mut undated_mut(file).collect::<Vec<_>>(), neighbours) {
                Some(some) => moved |= some,
                None => {
                    let all = self.files.values_mut().flat_map(undated_mut);
                    return order::date(&mut all.collect::<Vec<_>>()) | moved;
                }
            }
        }
        moved
    }

    /// Replaces the rest of a step: drops the changes that it found and that are outdated now.
    fn see_together(&mut self, changes: &mut Vec<Change>) {
        let all = self.settle_all();
        let newer: std::collections::HashSet<_> = all.iter().map(key).collect();
        changes.retain(|change| !newer.contains(&key(change)));
        drop(newer);
        changes.extend(all);
    }

    /// Examines all files together, and finds the objects that are defined twice.
    fn settle_all(&mut self) -> Vec<Change> {
        self.pending = Unsettled::default();
        let mut live = HashMap::with_capacity_and_hasher(self.live.len(), self.hasher.clone());
        let mut order = Vec::new();
        self.duplicates.clear();
        for (path, file) in &self.files {
            for document in &file.documents {
                for held in &document.objects {
                    let lines = (document.line, held.line);
                    let now = Live { object: held.object.clone(), file: path.clone(), lines, taken: file.taken };
                    match live.insert(held.key.clone(), now) {
                        None => order.push(&held.key),
                        Some(before) => self.duplicates.push(duplicate(&held.key, &before, path, lines)),
                    }
                }
            }
        }
        let mut changes: Vec<_> =
            self.live.keys().filter(|key| !live.contains_key(*key)).cloned().map(Change::Remove).collect();
        changes.sort_by(|a, b| removed(a).cmp(&removed(b)));
        for key in order {
            let Some(now) = live.get(key) else { continue };
            if self.live.get(key).is_none_or(|before| !same(&before.object, &now.object)) {
                changes.push(Change::Upsert(now.object.clone()));
            }
        }
        self.live = live;
        changes
    }
}

/// The objects of a file that have no creation time of their own.
fn undated(file: &FileState) -> impl DoubleEndedIterator<Item = &Object> {
    let held = file.documents.iter().flat_map(|document| &document.objects);
    held.filter(|held| !held.dated).map(|held| &held.object)
}

fn undated_mut(file: &mut FileState) -> impl Iterator<Item = &mut Object> {
    let held = file.documents.iter_mut().flat_map(|document| &mut document.objects);
    held.filter(|held| !held.dated).map(|held| &mut held.object)
}

fn key(change: &Change) -> ObjectKey {
    match change {
        Change::Upsert(object) => object.key(),
        Change::Remove(key) => key.clone(),
    }
}

fn removed(change: &Change) -> Option<&ObjectKey> {
    match change {
        Change::Remove(key) => Some(key),
        Change::Upsert(_) => None,
    }
}

/// Whether two objects are identical or equal.
fn same(a: &Object, b: &Object) -> bool {
    let pointers = match (a, b) {
        (Object::Service(a), Object::Service(b)) => Arc::ptr_eq(a, b),
        (Object::EndpointSlice(a), Object::EndpointSlice(b)) => Arc::ptr_eq(a, b),
        (Object::Secret(a), Object::Secret(b)) => Arc::ptr_eq(a, b),
        _ => false,
    };
    pointers || a == b
}
