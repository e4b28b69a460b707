//! The objects reported by the watches, and the changes that translation hasn't seen yet.
//!
//! Invariant: nothing is passed on before the first list of every source is complete. Changes are kept per object, so
//! however long translation is busy, there are never more of them than objects.

use std::collections::{BTreeMap, BTreeSet};

use fairway_model::packing::{MANY, pack};
use fairway_translate::objects::{Change, Kind, ObjectKey};

use crate::watch::{Content, Identity, Seen, Wanted};

/// Everything known about the watched objects. Only the translator keeps their contents.
#[derive(Debug)]
pub(crate) struct Store {
    sources: Vec<Progress>,
    /// The objects that translation has or could have. A Service watched for its addresses has a source of its own.
    known: BTreeMap<ObjectKey, Known>,
    pending: BTreeMap<ObjectKey, Change>,
}

#[derive(Debug)]
struct Progress {
    wanted: Wanted,
    /// Whether a first list is complete.
    listed: bool,
    /// The objects delivered so far by the list in progress.
    relisting: Option<BTreeSet<ObjectKey>>,
    /// Existing Services, if only their addresses are watched; translation ignores them.
    aside: BTreeMap<ObjectKey, Identity>,
}

#[derive(Debug)]
struct Known {
    source: usize,
    identity: Identity,
    /// Fingerprint of the content that translation has, or will have with the pending change.
    fingerprint: Option<u64>,
}

/// The effect of a watch message beyond the pending changes.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum News {
    /// The object exists, perhaps unchanged.
    There(ObjectKey),
    /// The object exists but can't be decoded; translation keeps the previous version.
    Malformed(ObjectKey, String),
    /// The object is gone.
    Gone(ObjectKey),
}

impl Store {
    /// Creates a store for sources with these requirements.
    pub(crate) fn new(sources: impl IntoIterator<Item = Wanted>) -> Self {
        let progress = |wanted| Progress { wanted, listed: false, relisting: None, aside: BTreeMap::new() };
        Self { sources: sources.into_iter().map(progress).collect(), known: BTreeMap::new(), pending: BTreeMap::new() }
    }

    /// Records the start of a source's list.
    pub(crate) fn relist(&mut self, source: usize) {
        self.sources[source].relisting = Some(BTreeSet::new());
    }

    /// Records the end of a source's list: objects it lacks are gone. Returns those.
    pub(crate) fn listed(&mut self, source: usize) -> Vec<News> {
        let progress = &mut self.sources[source];
        progress.listed = true;
        let Some(there) = progress.relisting.take() else { return Vec::new() };
        if there.len() >= MANY {
            pack(&mut self.known);
        }
        let of_source = self.known.iter().filter(|(_, known)| known.source == source);
        let keys = of_source.map(|(key, _)| key).chain(progress.aside.keys());
        let gone: Vec<_> = keys.filter(|key| !there.contains(key)).cloned().collect();
        gone.into_iter().filter_map(|key| self.gone(source, &key)).collect()
    }

    /// Records an object that exists.
    pub(crate) fn seen(&mut self, source: usize, seen: Seen) -> News {
        let Seen { key, identity, content } = seen;
        let progress = &mut self.sources[source];
        if let Some(there) = &mut progress.relisting {
            there.insert(key.clone());
        }
        if progress.wanted == Wanted::Addresses {
            progress.aside.insert(key.clone(), identity);
            return match content {
                Content::Malformed(why) => News::Malformed(key, why),
                _ => News::There(key),
            };
        }
        let known = self.known.entry(key.clone()).or_insert_with(|| Known {
            source,
            identity: Identity::default(),
            fingerprint: None,
        });
        known.identity = identity;
        known.source = source;
        match content {
            Content::Object { object, fingerprint, .. } => {
                if known.fingerprint != Some(fingerprint) {
                    known.fingerprint = Some(fingerprint);
                    self.pending.insert(key.clone(), Change::Upsert(object));
                }
            }
            Content::Malformed(why) => return News::Malformed(key, why),
            Content::Metadata | Content::Addresses(_) => (),
        }
        News::There(key)
    }

    /// Records that an object of this source is gone. `None` if it was unknown.
    pub(crate) fn gone(&mut self, source: usize, key: &ObjectKey) -> Option<News> {
        let progress = &mut self.sources[source];
        if progress.wanted == Wanted::Addresses {
            return progress.aside.remove(key).map(|_| News::Gone(key.clone()));
        }
        self.known.remove(key)?;
        self.pending.insert(key.clone(), Change::Remove(key.clone()));
        Some(News::Gone(key.clone()))
    }

    /// Sets the content of an object watched only by metadata; `None` removes it.
    pub(crate) fn content(&mut self, key: &ObjectKey, content: Option<(Change, u64)>) {
        let fingerprint = content.as_ref().map(|(_, fingerprint)| *fingerprint);
        match self.known.get_mut(key) {
            Some(known) if known.fingerprint == fingerprint => return,
            Some(known) => known.fingerprint = fingerprint,
            // It was deleted during the fetch: its removal is pending.
            None => return,
        }
        let change = content.map_or_else(|| Change::Remove(key.clone()), |(change, _)| change);
        self.pending.insert(key.clone(), change);
    }

    /// The object that has this name now.
    pub(crate) fn identity(&self, key: &ObjectKey) -> Option<&Identity> {
        let aside = || self.sources.iter().find_map(|progress| progress.aside.get(key));
        self.known.get(key).map(|known| &known.identity).or_else(aside)
    }

    /// Whether a watch reports a change of a known object, rather than a list all objects.
    pub(crate) fn is_change(&self, source: usize, key: &ObjectKey) -> bool {
        self.sources[source].relisting.is_none() && self.known.contains_key(key)
    }

    /// Whether a source has delivered its first list.
    pub(crate) fn is_listed(&self, source: usize) -> bool {
        self.sources[source].listed
    }

    /// Whether every source has delivered its first list.
    pub(crate) fn synced(&self) -> bool {
        self.sources.iter().all(|progress| progress.listed)
    }

    /// Copies what is known of each object, so that it lies together when a few are left of many.
    pub(crate) fn renew(&mut self) {
        let copied = |(key, known): (&ObjectKey, &Known)| {
            let Known { source, identity, fingerprint } = known;
            (key.copied(), Known { source: *source, identity: identity.clone(), fingerprint: *fingerprint })
        };
        self.known = self.known.iter().map(copied).collect();
    }

    /// Whether there is something to translate.
    pub(crate) fn has_changes(&self) -> bool {
        !self.pending.is_empty()
    }

    /// The changes that translation hasn't seen yet, sorted by kind, namespace and name.
    pub(crate) fn take_changes(&mut self) -> Vec<Change> {
        std::mem::take(&mut self.pending).into_values().collect()
    }

    /// The number of objects of a kind.
    pub(crate) fn count(&self, kind: Kind) -> usize {
        self.known.keys().filter(|key| key.kind == kind).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairway_translate::objects::Object;
    use k8s_openapi::api::networking::v1::Ingress;
    use kube::core::ObjectMeta;

    fn seen(name: &str, fingerprint: u64) -> Seen {
        let metadata = ObjectMeta { namespace: Some("n".into()), name: Some(name.into()), ..ObjectMeta::default() };
        let object = Object::from(Ingress { metadata, ..Ingress::default() });
        Seen {
            key: object.key(),
            identity: Identity::default(),
            content: Content::Object { object, fingerprint, shown: Default::default(), status: None, asking: None },
        }
    }

    fn names(changes: Vec<Change>) -> Vec<String> {
        let name = |change: Change| match change {
            Change::Upsert(object) => format!("+{}", object.key().name),
            Change::Remove(key) => format!("-{}", key.name),
        };
        changes.into_iter().map(name).collect()
    }

    #[test]
    fn objects_missing_in_a_new_list_are_gone() {
        let mut store = Store::new([Wanted::Object; 2]);
        store.relist(0);
        for name in ["a", "b", "c"] {
            store.seen(0, seen(name, 1));
        }
        assert!(!store.synced());
        assert_eq!(store.listed(0), []);
        store.relist(1);
        store.listed(1);
        assert!(store.synced());
        assert_eq!(names(store.take_changes()), ["+a", "+b", "+c"]);

        store.relist(0);
        store.seen(0, seen("a", 1));
        // The list broke off and started over.
        store.relist(0);
        store.seen(0, seen("b", 2));
        store.seen(0, seen("c", 1));
        assert_eq!(store.listed(0).len(), 1);
        assert_eq!(names(store.take_changes()), ["-a", "+b"]);
    }

    #[test]
    fn a_service_in_front_may_be_a_backend_too() {
        let mut store = Store::new([Wanted::Object, Wanted::Addresses]);
        let looked_at = |name| Seen { content: Content::Addresses(Default::default()), ..seen(name, 0) };
        let key = seen("lb", 0).key;
        store.seen(0, seen("lb", 1));
        store.seen(1, looked_at("lb"));
        // Both watches report the deletion, in either order.
        assert_eq!(store.gone(0, &key), Some(News::Gone(key.clone())));
        assert_eq!(names(store.take_changes()), ["-lb"]);
        assert_eq!(store.gone(1, &key), Some(News::Gone(key.clone())));
        assert!(!store.has_changes());
        // Created again before the slower watch reports the deletion.
        store.seen(1, looked_at("lb"));
        store.seen(0, seen("lb", 2));
        assert_eq!(store.gone(1, &key), Some(News::Gone(key.clone())));
        store.relist(1);
        assert_eq!(store.listed(1), []);
        assert_eq!(names(store.take_changes()), ["+lb"]);
    }

    #[test]
    fn what_is_known_is_the_same_after_it_has_moved() {
        let mut store = Store::new([Wanted::Object]);
        let key = seen("a", 1).key;
        store.relist(0);
        store.seen(0, Seen { identity: Identity { uid: "u".into(), version: "7".into() }, ..seen("a", 1) });
        store.listed(0);
        store.take_changes();
        store.renew();
        let identity = store.identity(&key).unwrap();
        assert_eq!((&*identity.uid, &*identity.version), ("u", "7"));
        assert!(store.known.keys().all(|moved| *moved == key && !std::ptr::eq(&*moved.name, &*key.name)));
        store.seen(0, seen("a", 1));
        assert!(!store.has_changes());
    }

    #[test]
    fn unchanged_content_causes_no_work() {
        let mut store = Store::new([Wanted::Object]);
        store.seen(0, seen("a", 1));
        store.take_changes();
        store.seen(0, seen("a", 1));
        assert!(!store.has_changes());
    }

    #[test]
    fn a_malformed_version_keeps_the_last_good_one() {
        let mut store = Store::new([Wanted::Object]);
        store.seen(0, seen("a", 1));
        store.take_changes();
        let bad = Seen { content: Content::Malformed("why".into()), ..seen("a", 0) };
        let key = bad.key.clone();
        assert_eq!(store.seen(0, bad), News::Malformed(key, "why".into()));
        assert!(!store.has_changes());
    }

    #[test]
    fn content_of_a_deleted_object_is_dropped() {
        let mut store = Store::new([Wanted::Object]);
        let Seen { key, identity, content: Content::Object { object, .. } } = seen("a", 0) else { unreachable!() };
        store.seen(0, Seen { key: key.clone(), identity, content: Content::Metadata });
        assert!(!store.has_changes());
        store.content(&key, Some((Change::Upsert(object.clone()), 1)));
        assert_eq!(names(store.take_changes()), ["+a"]);
        store.gone(0, &key);
        store.content(&key, Some((Change::Upsert(object), 2)));
        assert_eq!(names(store.take_changes()), ["-a"]);
    }
}
