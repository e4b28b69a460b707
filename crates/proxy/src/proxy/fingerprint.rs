//! A number that is the same wherever the same configuration runs: the sum of a hash of each resource, so that the cost depends
//! on the change and the order does not matter.

use std::collections::BTreeSet;
use std::io;

use fairway_model::{Delta, Resource, ResourceName, Snapshot};

/// The fingerprint of a whole snapshot.
pub(super) fn whole(snapshot: &Snapshot) -> u64 {
    let settings = hash(&Resource::Settings(snapshot.settings().clone()));
    let delta = Snapshot::diff(&Snapshot::default(), snapshot);
    let named = delta.upserts.iter().filter(|resource| resource.name().is_some());
    named.map(hash).fold(settings, u64::wrapping_add)
}

/// The names of the resources that a change touches, each once. Settings are always included.
pub(super) fn touched(delta: &Delta) -> BTreeSet<ResourceName> {
    delta.upserts.iter().filter_map(Resource::name).chain(delta.removals.iter().cloned()).collect()
}

/// The fingerprint of `new`, computed from that of `old`, where only `touched` and the settings may differ.
pub(super) fn next(number: u64, touched: &BTreeSet<ResourceName>, old: &Snapshot, new: &Snapshot) -> u64 {
    let sum = |snapshot: &Snapshot| {
        let settings = hash(&Resource::Settings(snapshot.settings().clone()));
        let named = touched.iter().filter_map(|name| snapshot.resource(name));
        named.map(|resource| hash(&resource)).fold(settings, u64::wrapping_add)
    };
    number.wrapping_sub(sum(old)).wrapping_add(sum(new))
}

fn hash(resource: &Resource) -> u64 {
    let mut fnv = Fnv(0xcbf2_9ce4_8422_2325);
    // Neither serialising nor hashing can fail; the hash of a part would be as good as any other number.
    let _ = serde_json::to_writer(&mut fnv, resource);
    // The upper bits, which are displayed, must depend on the whole text.
    let mixed = (fnv.0 ^ (fnv.0 >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    mixed ^ (mixed >> 33)
}

/// 64-bit FNV-1a: it has no seed, so every process computes the same value.
struct Fnv(u64);

impl io::Write for Fnv {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
