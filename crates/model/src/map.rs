//! A map that is cheap to copy: a new snapshot costs as much as the change, not as the whole.

use std::fmt;
use std::hash::{BuildHasher, Hash};
use std::sync::{Arc, LazyLock};

use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// Enough that a shard of 100,000 entries holds a hundred; few enough that copying the list of shards takes
/// microseconds.
const SHARDS: usize = 1024;

/// One seed for all maps of the process: equal keys hash equally in every snapshot, and no client can provoke
/// collisions.
pub(crate) static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::default);

/// A persistent hash map: [`insert`](Self::insert) and [`remove`](Self::remove) copy one shard and share the rest.
#[derive(Clone)]
pub(crate) struct Map<K, V> {
    shards: Arc<[Arc<Shard<K, V>>]>,
    /// Shared by all shards without entries.
    empty: Arc<Shard<K, V>>,
    len: usize,
}

type Shard<K, V> = HashTable<(K, Arc<V>)>;

impl<K: Clone + Eq + Hash, V> Map<K, V> {
    pub(crate) fn get(&self, key: &K) -> Option<&Arc<V>> {
        self.find(HASHER.hash_one(key), |other| other == key)
    }

    /// Looks up by a borrowed form of the key. `hash` must equal the hash of the owned key.
    pub(crate) fn find(&self, hash: u64, eq: impl Fn(&K) -> bool) -> Option<&Arc<V>> {
        self.shards[shard(hash)].find(hash, |(key, _)| eq(key)).map(|(_, value)| value)
    }

    pub(crate) fn insert(&mut self, key: K, value: Arc<V>) {
        let hash = HASHER.hash_one(&key);
        let shard = self.shard_mut(hash);
        match shard.find_mut(hash, |(other, _)| *other == key) {
            Some(entry) => *entry = (key, value),
            None => {
                shard.insert_unique(hash, (key, value), |(key, _)| HASHER.hash_one(key));
                self.len += 1;
            }
        }
    }

    pub(crate) fn remove(&mut self, key: &K) -> bool {
        let hash = HASHER.hash_one(key);
        if self.find(hash, |other| other == key).is_none() {
            return false;
        }
        let rest = self.shard_mut(hash);
        if let Ok(entry) = rest.find_entry(hash, |(other, _)| other == key) {
            entry.remove();
            // A shard that has lost most of its entries gives their memory back.
            if rest.is_empty() {
                Arc::make_mut(&mut self.shards)[shard(hash)] = self.empty.clone();
            } else if rest.len() < rest.capacity() / 4 {
                rest.shrink_to_fit(|(key, _)| HASHER.hash_one(key));
            }
            self.len -= 1;
        }
        true
    }

    fn shard_mut(&mut self, hash: u64) -> &mut Shard<K, V> {
        // The first write after a clone copies the list of shards; later ones of the same delta find it unshared.
        let shards = Arc::make_mut(&mut self.shards);
        Arc::make_mut(&mut shards[shard(hash)])
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The entries in no particular order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, &Arc<V>)> {
        self.shards.iter().flat_map(|shard| shard.iter().map(|(key, value)| (key, value)))
    }

    /// The entries of `self` that are missing in `other` or differ from it.
    pub(crate) fn newer_than<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = (&'a K, &'a Arc<V>)>
    where
        V: PartialEq,
    {
        self.changed(other)
            .filter(|(key, value)| other.get(key).is_none_or(|old| !Arc::ptr_eq(old, value) && old != *value))
    }

    /// The keys of `self` that are missing in `other`.
    pub(crate) fn missing_in<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a K> {
        self.changed(other).map(|(key, _)| key).filter(|key| other.get(key).is_none())
    }

    /// The entries of the shards that are not shared. A key has the same shard in every map.
    fn changed<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = (&'a K, &'a Arc<V>)> {
        self.shards
            .iter()
            .zip(other.shards.iter())
            .filter(|(mine, theirs)| !Arc::ptr_eq(mine, theirs))
            .flat_map(|(mine, _)| mine.iter().map(|(key, value)| (key, value)))
    }

    /// Whether both maps are the same value: true proves that nothing changed, false proves nothing.
    pub(crate) fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shards, &other.shards)
    }
}

// The low bits choose the bucket and the top seven the tag within a shard; these lie between.
fn shard(hash: u64) -> usize {
    (hash >> 40) as usize % SHARDS
}

impl<K, V> Default for Map<K, V> {
    fn default() -> Self {
        let empty = Arc::new(HashTable::new());
        Self { shards: std::iter::repeat_n(empty.clone(), SHARDS).collect(), empty, len: 0 }
    }
}

impl<K: Clone + Eq + Hash, V: PartialEq> PartialEq for Map<K, V> {
    fn eq(&self, other: &Self) -> bool {
        self.same(other)
            || (self.len == other.len && self.iter().all(|(key, value)| other.get(key).is_some_and(|v| v == value)))
    }
}

impl<K: Clone + Eq + Hash, V: Eq> Eq for Map<K, V> {}

impl<K: Clone + Eq + Hash + Ord + fmt::Debug, V: fmt::Debug> fmt::Debug for Map<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut entries: Vec<_> = self.iter().collect();
        entries.sort_by_key(|(key, _)| *key);
        f.debug_map().entries(entries).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn behaves_as_a_map_and_leaves_its_copies_alone(
            steps in proptest::collection::vec((any::<u8>(), any::<Option<u16>>()), 0..40),
        ) {
            let mut map = Map::default();
            let mut model = BTreeMap::new();
            for (key, value) in steps {
                let before = map.clone();
                let model_before: BTreeMap<u8, u16> = model.clone();
                match value {
                    Some(value) => {
                        map.insert(key, Arc::new(value));
                        model.insert(key, value);
                    }
                    None => prop_assert_eq!(map.remove(&key), model.remove(&key).is_some()),
                }
                prop_assert_eq!(map.len(), model.len());
                prop_assert_eq!(contents(&map), model.clone());
                prop_assert_eq!(contents(&before), model_before);
            }
        }
    }

    #[test]
    fn what_is_removed_leaves_no_memory_behind() {
        let mut map = Map::default();
        let many = 0..100 * SHARDS;
        for key in many.clone() {
            map.insert(key, Arc::new(()));
        }
        for key in many.clone().skip(SHARDS) {
            map.remove(&key);
        }
        let room: usize = map.shards.iter().map(|shard| shard.capacity()).sum();
        assert!(room < 10 * SHARDS, "room for {room} entries, of which {SHARDS} are left");
        for key in many.take(SHARDS) {
            map.remove(&key);
        }
        assert!(map.shards.iter().all(|shard| Arc::ptr_eq(shard, &map.empty)));
    }

    fn contents(map: &Map<u8, u16>) -> BTreeMap<u8, u16> {
        map.iter().map(|(key, value)| (*key, **value)).collect()
    }
}
