//! Memory of trees that hold something of each object of a cluster.

use std::collections::BTreeMap;

/// After this many new entries at once it is worthwhile to pack a tree.
pub const MANY: usize = 1000;

/// Packs the nodes of a tree: one that was filled in order is half empty.
pub fn pack<K: Ord, V>(tree: &mut BTreeMap<K, V>) {
    *tree = std::mem::take(tree).into_iter().collect();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packed_tree_takes_what_its_entries_take() {
        let mut tree: BTreeMap<usize, [usize; 5]> = (0..0).map(|key| (key, [0; 5])).collect();
        let filled = allocation_counter::measure(|| {
            for key in 0..100 * MANY {
                tree.insert(key, [key; 5]);
            }
        });
        let entries = (100 * MANY * 6 * size_of::<usize>()) as i64;
        assert!(filled.bytes_current > entries * 3 / 2, "{} bytes in order", filled.bytes_current);
        let packed = allocation_counter::measure(|| pack(&mut tree));
        let takes = filled.bytes_current + packed.bytes_current;
        assert!(takes < entries * 5 / 4, "{takes} bytes for {entries}");
        assert!(tree.iter().all(|(key, value)| *value == [*key; 5]) && tree.len() == 100 * MANY);
    }
}
