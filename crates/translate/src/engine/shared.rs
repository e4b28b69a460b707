//! Values that many objects have in common, stored once.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

/// The values in use: equal ones share an allocation. Unused ones are dropped whenever their number has doubled.
#[derive(Debug)]
pub(crate) struct Shared<T> {
    known: HashSet<Arc<T>>,
    /// Number of values at which unused ones are dropped.
    limit: usize,
}

impl<T> Default for Shared<T> {
    fn default() -> Self {
        Self { known: HashSet::new(), limit: 64 }
    }
}

impl<T: Eq + Hash> Shared<T> {
    /// The shared copy of a value.
    pub(crate) fn of(&mut self, value: impl Borrow<T> + Into<Arc<T>>) -> Arc<T> {
        if let Some(known) = self.known.get(value.borrow()) {
            return known.clone();
        }
        if self.known.len() >= self.limit {
            self.known.retain(|known| Arc::strong_count(known) > 1);
            self.limit = (self.known.len() * 2).max(64);
        }
        let value = value.into();
        self.known.insert(value.clone());
        value
    }

    /// Forgets all values. For use when all their users are rebuilt: equal values then share a new allocation.
    pub(crate) fn renew(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_are_one_and_unused_ones_go() {
        let mut shared = Shared::default();
        let kept: Arc<u32> = shared.of(7);
        assert!(Arc::ptr_eq(&kept, &shared.of(Arc::new(7))));
        for other in 100..10_000 {
            shared.of(other);
        }
        assert!(shared.known.len() <= 64);
        assert!(Arc::ptr_eq(&kept, &shared.of(7)));
        shared.renew();
        let renewed = shared.of(7);
        assert!(!Arc::ptr_eq(&kept, &renewed) && Arc::ptr_eq(&renewed, &shared.of(7)));
    }
}
