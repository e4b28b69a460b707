//! The most recently seen hosts, so that clients that invent hosts cost a bounded number of series.

use std::collections::{BTreeMap, HashMap};

/// Names by when they were last seen.
#[derive(Debug)]
pub(super) struct RecentHosts {
    most: usize,
    now: u64,
    by_name: HashMap<Box<str>, u64, foldhash::fast::RandomState>,
    by_time: BTreeMap<u64, Box<str>>,
    forgotten: usize,
}

impl RecentHosts {
    /// Creates an empty set of at most `most` hosts.
    pub(super) fn new(most: usize) -> Self {
        Self { most: most.max(1), now: 0, by_name: HashMap::default(), by_time: BTreeMap::new(), forgotten: 0 }
    }

    /// Notes that a host was seen now, replacing the one not seen for the longest time.
    pub(super) fn see(&mut self, host: &str) {
        self.now += 1;
        if let Some(seen) = self.by_name.get_mut(host) {
            if let Some(name) = self.by_time.remove(seen) {
                self.by_time.insert(self.now, name);
            }
            *seen = self.now;
            return;
        }
        if self.by_name.len() >= self.most
            && let Some((_, oldest)) = self.by_time.pop_first()
        {
            self.by_name.remove(&oldest);
            self.forgotten += 1;
        }
        self.by_name.insert(host.into(), self.now);
        self.by_time.insert(self.now, host.into());
    }

    /// Whether a host is among them.
    pub(super) fn contains(&self, host: &str) -> bool {
        self.by_name.contains_key(host)
    }

    /// Number of hosts forgotten since the last call of [`Self::swept`].
    pub(super) fn forgotten(&self) -> usize {
        self.forgotten
    }

    /// Notes that the series of forgotten hosts are removed.
    pub(super) fn swept(&mut self) {
        self.forgotten = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_not_seen_for_longest_is_forgotten() {
        let mut hosts = RecentHosts::new(2);
        for host in ["a", "b", "a", "c"] {
            hosts.see(host);
        }
        assert!(hosts.contains("a") && hosts.contains("c") && !hosts.contains("b"));
        assert_eq!((hosts.forgotten(), hosts.by_time.len()), (1, 2));
    }
}
