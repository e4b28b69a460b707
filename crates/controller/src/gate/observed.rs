//! Ingresses and routes that ask, by an annotation, for a report once a change is in force at all proxies.
//!
//! Only bookkeeping, like [`Gate`](super::Gate). Invariants: a generation is reported once, when all proxies have it, and once before if
//! some still don't after [`PATIENCE`]. Nothing is written about a generation that the object already shows.

use std::collections::{BTreeMap, BTreeSet};

use fairway_translate::annotation::OBSERVED;
use fairway_translate::objects::{Kind, ObjectKey};
use kube::api::{Patch, PatchParams};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::reach::Extent;
use super::{ConditionWrite, PATIENCE, Peers, Reach, WRITES};
use crate::api::{ApiServer, CallError, collection};
use crate::backoff::Backoff;
use crate::watch::{Identity, plural};

/// The state of an object that asks for a report.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Asking {
    pub(crate) generation: i64,
    /// The generation that its report shows as in force at all proxies.
    pub(crate) shown: Option<i64>,
}

/// The objects with a change that isn't known to be in force at all proxies.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    objects: BTreeMap<ObjectKey, Observing>,
}

#[derive(Debug)]
struct Observing {
    uid: Box<str>,
    generation: i64,
    /// Whether we serve it. Other objects are never reported, neither on them nor to other controllers.
    ours: bool,
    since: Instant,
    translated: bool,
    publication: Option<u64>,
    /// Whether it was reported that some proxies lack it.
    told: bool,
    write: ConditionWrite,
    backoff: Backoff,
}

/// An annotation to write.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Telling {
    pub(crate) key: ObjectKey,
    uid: Box<str>,
    generation: i64,
    knowing: usize,
    of: usize,
    milliseconds: u64,
}

/// The value of the annotation.
#[derive(Deserialize)]
struct Count {
    generation: i64,
    proxies: u64,
    of: u64,
}

impl Asking {
    /// Reads the annotation of an object.
    pub(crate) fn new(generation: i64, shown: Option<&str>) -> Self {
        let shown = shown.and_then(|text| serde_json::from_str::<Count>(text).ok());
        let whole = shown.filter(|shown| shown.proxies == shown.of);
        Self { generation, shown: whole.map(|shown| shown.generation) }
    }
}

impl Telling {
    /// Writes the annotation, provided that the object of this name is still the same. On an Ingress it is written with the status, for
    /// which we have the right; an object of a CRD accepts only its status that way. Neither changes the generation.
    pub(crate) async fn run(&self, api: &ApiServer) -> Result<(), CallError> {
        let Self { key, uid, generation, knowing, of, milliseconds } = self;
        let text =
            format!(r#"{{"generation":{generation},"proxies":{knowing},"of":{of},"milliseconds":{milliseconds}}}"#);
        let patch = Patch::Merge(json!({"metadata": {"uid": uid, "annotations": {OBSERVED: text}}}));
        let objects = collection(key.kind.api_version(), plural(key.kind), Some(&key.namespace));
        let params = PatchParams::default();
        let request = match key.kind {
            Kind::Ingress => objects.patch_subresource("status", &key.name, &params, &patch),
            _ => objects.patch(&key.name, &params, &patch),
        };
        api.call::<Value>(request).await.map(drop)
    }
}

impl Observing {
    /// The id of this change among controllers.
    fn id(&self) -> Box<str> {
        format!("{}/{}", self.uid, self.generation).into()
    }
}

impl Observed {
    /// Records an object as it is now. Returns whether a translation has to confirm that nothing of it is left to translate: a user who
    /// removes our annotation changes nothing else.
    pub(crate) fn seen(&mut self, key: &ObjectKey, identity: &Identity, asking: Option<Asking>, now: Instant) -> bool {
        let Some(Asking { generation, .. }) = asking.filter(|asking| asking.shown != Some(asking.generation)) else {
            self.objects.remove(key);
            return false;
        };
        let is_same = |entry: &Observing| entry.uid == identity.uid && entry.generation == generation;
        if self.objects.get(key).is_some_and(is_same) {
            return false;
        }
        let new = Observing {
            uid: identity.uid.clone(),
            generation,
            ours: false,
            since: now,
            translated: false,
            publication: None,
            told: false,
            write: ConditionWrite::From(None),
            backoff: Backoff::of_object(),
        };
        self.objects.insert(key.clone(), new);
        true
    }

    /// Records which objects we serve.
    pub(crate) fn serve(&mut self, is_ours: impl Fn(&ObjectKey) -> bool) {
        self.objects.iter_mut().for_each(|(key, entry)| entry.ours = is_ours(key));
    }

    /// Records that an object is gone.
    pub(crate) fn gone(&mut self, key: &ObjectKey) {
        self.objects.remove(key);
    }

    /// Whether any change is in progress.
    pub(crate) fn waits(&self) -> bool {
        self.objects.values().any(|entry| entry.ours)
    }

    /// Records that everything seen so far is translated.
    pub(crate) fn translated(&mut self) {
        self.objects.values_mut().for_each(|entry| entry.translated = true);
    }

    /// Records that everything translated so far is in force with this publication at the latest.
    pub(crate) fn published(&mut self, number: u64) {
        for entry in self.objects.values_mut().filter(|entry| entry.translated) {
            entry.publication.get_or_insert(number);
        }
    }

    /// The changes that all our proxies have.
    pub(crate) fn known(&self, reach: &Reach) -> BTreeSet<Box<str>> {
        let known =
            |entry: &&Observing| entry.ours && entry.publication.is_some_and(|number| reach.is_everywhere(number));
        self.objects.values().filter(known).map(Observing::id).collect()
    }

    /// The annotations to write now, of objects that are ours. The caller must report [`written`](Self::written).
    pub(crate) fn due(&mut self, reach: &Reach, peers: &Peers, now: Instant) -> Vec<Telling> {
        let mut free = WRITES.saturating_sub(self.under_way());
        let mut due = Vec::new();
        for (key, entry) in &mut self.objects {
            let waits = matches!(entry.write, ConditionWrite::From(from) if from.is_none_or(|from| from <= now));
            if free == 0 {
                break;
            }
            if !waits || !entry.ours {
                continue;
            }
            let id = entry.id();
            let Extent { knowing, of, whole } = reach.count(peers, &id, entry.publication, now);
            let late = now >= entry.since + PATIENCE && !entry.told && knowing < of;
            if !whole && !late {
                continue;
            }
            entry.write = ConditionWrite::UnderWay;
            free -= 1;
            let milliseconds = u64::try_from((now - entry.since).as_millis()).unwrap_or(u64::MAX);
            let (key, uid, generation) = (key.clone(), entry.uid.clone(), entry.generation);
            due.push(Telling { key, uid, generation, knowing, of, milliseconds });
        }
        due
    }

    fn under_way(&self) -> usize {
        self.objects.values().filter(|entry| entry.write == ConditionWrite::UnderWay).count()
    }

    /// Records whether an annotation was written. If not, it is tried again. Returns whether this is the first failure.
    pub(crate) fn written(&mut self, telling: &Telling, result: Result<(), &CallError>, now: Instant) -> bool {
        let is_it = |entry: &&mut Observing| entry.uid == telling.uid && entry.generation == telling.generation;
        let Some(entry) = self.objects.get_mut(&telling.key).filter(is_it) else { return false };
        let whole = telling.knowing == telling.of;
        entry.told |= result.is_ok() && !whole;
        // The watch shows the annotation, which ends this.
        entry.write = match result {
            Ok(()) if whole => ConditionWrite::Done,
            Ok(()) => ConditionWrite::From(None),
            Err(error) => ConditionWrite::From(Some(now + entry.backoff.after(Some(error)))),
        };
        match result {
            Ok(()) => entry.backoff.reset(),
            Err(_) => return entry.backoff.failures() == 1,
        }
        false
    }

    /// When [`due`](Self::due) returns more even if nothing else happens, if it has room.
    pub(crate) fn next_at(&self, peers: &Peers, now: Instant) -> Option<Instant> {
        if self.under_way() >= WRITES {
            return None;
        }
        let times = self.objects.values().filter(|entry| entry.ours).flat_map(|entry| {
            let ConditionWrite::From(from) = entry.write else { return [None; 3] };
            // Times that are over were considered already.
            [from, Some(entry.since + PATIENCE), peers.next_end(now)]
        });
        times.flatten().filter(|at| *at > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn key() -> ObjectKey {
        ObjectKey::new(Kind::Ingress, "shop", "web")
    }

    fn peers() -> Peers {
        let mut peers = Peers::new("leader", "own");
        peers.listed(Vec::new(), Instant::now());
        peers
    }

    /// One Ingress at generation 7, translated and in force with publication 3.
    fn changed(shown: Option<i64>, now: Instant) -> Observed {
        let mut observed = Observed::default();
        let identity = Identity { uid: "u".into(), version: "1".into() };
        observed.seen(&key(), &identity, Some(Asking { generation: 7, shown }), now);
        observed.serve(|_| true);
        observed.translated();
        observed.published(3);
        observed
    }

    fn due(observed: &mut Observed, serves: &[u64], now: Instant) -> Vec<(usize, usize, u64)> {
        let (reach, peers) = (Reach::new(serves.to_vec(), 1), peers());
        let due = observed.due(&reach, &peers, now);
        due.iter().for_each(|telling| assert!(!observed.written(telling, Ok(()), now)));
        due.iter().map(|telling| (telling.knowing, telling.of, telling.milliseconds)).collect()
    }

    #[test]
    fn a_generation_is_told_of_once_when_all_proxies_have_it() {
        let now = Instant::now();
        let mut observed = changed(Some(6), now);
        assert_eq!(due(&mut observed, &[3, 2], now), []);
        let later = now + Duration::from_millis(12);
        assert_eq!(due(&mut observed, &[3, 3], later), [(2, 2, 12)]);
        assert_eq!(due(&mut observed, &[3, 3], later), []);
        assert_eq!(changed(Some(7), now).objects.len(), 0, "it shows that already");
    }

    #[test]
    fn what_takes_long_is_told_of_before_all_proxies_have_it() {
        let now = Instant::now();
        let mut observed = changed(None, now);
        let late = now + PATIENCE;
        assert_eq!(observed.next_at(&peers(), now), Some(late));
        assert_eq!(due(&mut observed, &[3, 2], late), [(1, 2, 30_000)]);
        assert_eq!(due(&mut observed, &[3, 2], late + PATIENCE), []);
        assert_eq!(due(&mut observed, &[3, 4], late + PATIENCE), [(2, 2, 60_000)]);
    }

    #[test]
    fn ingresses_of_others_are_left_alone() {
        let now = Instant::now();
        let (reach, peers) = (Reach::new(vec![3], 1), peers());
        let mut observed = changed(None, now);
        assert!(observed.waits() && !observed.known(&reach).is_empty());
        observed.serve(|_| false);
        assert_eq!(observed.due(&reach, &peers, now), []);
        assert!(!observed.waits() && observed.known(&reach).is_empty(), "other controllers don't hear of it");
        assert_eq!(observed.next_at(&peers, now), None);
        // Its class becomes ours.
        observed.serve(|_| true);
        assert_eq!(observed.due(&reach, &peers, now).len(), 1);
    }

    #[test]
    fn what_can_never_be_written_is_tried_ever_more_rarely() {
        let (now, reach, peers) = (Instant::now(), Reach::new(vec![3], 1), peers());
        let mut observed = changed(None, now);
        let refused =
            CallError::Refused { code: 403, reason: String::new(), message: String::new(), retry_after: None };
        let (mut at, mut tries) = (now, 0);
        while at < now + Duration::from_secs(3600) {
            for telling in observed.due(&reach, &peers, at) {
                assert_eq!(observed.written(&telling, Err(&refused), at), tries == 0, "it is said once");
                tries += 1;
            }
            at = observed.next_at(&peers, at).unwrap();
        }
        assert!((50..110).contains(&tries), "{tries}");
    }

    #[test]
    fn only_a_whole_count_of_the_same_generation_counts_as_shown() {
        let shown = |text| Asking::new(7, text).shown;
        assert_eq!(shown(Some(r#"{"generation":7,"proxies":4,"of":4,"milliseconds":1}"#)), Some(7));
        assert_eq!(shown(Some(r#"{"generation":7,"proxies":3,"of":4,"milliseconds":1}"#)), None);
        assert_eq!((shown(Some("nonsense")), shown(None)), (None, None));
    }
}
