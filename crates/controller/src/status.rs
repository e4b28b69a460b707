//! Tracks which Ingress shows which addresses and which must be updated.
//!
//! Only bookkeeping: [`Status::next`] returns the write to do, and the controller does it. Invariants: an Ingress is
//! written only while it is ours, we lead, and the addresses are known and differ from those it shows; an empty list is
//! written only to remove our own addresses during shutdown.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use fairway_model::packing::pack;
use fairway_translate::objects::ObjectKey;
use tracing::{debug, warn};

use crate::address::{Addresses, listed};
use crate::backlog::{Backlog, Writes};
use crate::watch::Identity;

mod write;

use write::Verb;
pub(crate) use write::{Write, Written};

/// How often an Ingress is rewritten at once after another writer has replaced our addresses, between two checks of all
/// Ingresses. Two controllers that claim the same Ingress would otherwise overwrite each other for ever.
const REWRITES: u8 = 2;

/// The writes of this module, for the log.
const WRITES: Writes =
    Writes { all: "the status of Ingresses", one: "the status of this Ingress", again: "when the Ingress changes" };

/// The status of all Ingresses.
#[derive(Debug, Default)]
pub(crate) struct Status {
    ingresses: BTreeMap<ObjectKey, Entry>,
    served: BTreeSet<ObjectKey>,
    /// The addresses to show. `None` while unknown.
    addresses: Option<Arc<Addresses>>,
    /// Ingresses to check.
    pub(crate) backlog: Backlog,
    leaving: bool,
    /// Whether another writer has been reported since the last check of all Ingresses.
    contested: bool,
    /// The verb that the last write needed; the next ones start with it.
    verb: Verb,
}

#[derive(Debug)]
struct Entry {
    identity: Identity,
    shown: Arc<Addresses>,
    /// How often another writer has replaced our addresses since the last check of all Ingresses.
    replaced: u8,
}

impl Status {
    /// Records that an Ingress exists and shows these addresses.
    pub(crate) fn seen(&mut self, key: &ObjectKey, identity: &Identity, shown: Addresses) {
        // Nearly all show the same: one copy is enough.
        let same = self.addresses.as_ref().filter(|addresses| ***addresses == shown);
        let shown = same.cloned().unwrap_or_else(|| Arc::new(shown));
        let before = self.ingresses.get(key).filter(|before| before.identity.uid == identity.uid);
        let was_ours = before.is_some_and(|before| self.addresses.as_ref() == Some(&before.shown));
        let is_replaced = was_ours && self.addresses.as_ref() != Some(&shown);
        let replaced = before.map_or(0, |before| before.replaced).saturating_add(is_replaced.into());
        self.ingresses.insert(key.clone(), Entry { identity: identity.clone(), shown, replaced });
        self.backlog.add(key.clone());
    }

    /// Records that an Ingress is gone.
    pub(crate) fn gone(&mut self, key: &ObjectKey) {
        self.ingresses.remove(key);
        self.served.remove(key);
        self.backlog.remove(key);
    }

    /// Records whether an Ingress is ours.
    pub(crate) fn serve(&mut self, key: &ObjectKey, served: bool) {
        if served {
            self.served.insert(key.clone());
            self.backlog.add(key.clone());
        } else {
            self.served.remove(key);
        }
    }

    /// Packs what is kept of each Ingress, after many have come.
    pub(crate) fn pack(&mut self) {
        pack(&mut self.ingresses);
        self.served = std::mem::take(&mut self.served).into_iter().collect();
    }

    /// Copies what is kept of each Ingress, so that it lies together when a few are left of many.
    pub(crate) fn renew(&mut self) {
        let copied = |(key, entry): (&ObjectKey, &Entry)| {
            let Entry { identity, shown, replaced } = entry;
            (key.copied(), Entry { identity: identity.clone(), shown: shown.clone(), replaced: *replaced })
        };
        self.ingresses = self.ingresses.iter().map(copied).collect();
        self.served = self.served.iter().map(ObjectKey::copied).collect();
    }

    /// Sets the addresses under which we are reached. An empty list means that they are unknown (for now or no longer):
    /// the status of Ingresses then remains unchanged.
    pub(crate) fn publish(&mut self, addresses: Addresses) {
        let addresses = (!addresses.is_empty()).then_some(addresses);
        if !self.leaving && self.addresses.as_deref() != addresses.as_ref() {
            debug!(addresses = %addresses.as_ref().map(listed).unwrap_or_default(), "addresses for the status of Ingresses");
            self.addresses = addresses.map(Arc::new);
            self.check();
        }
    }

    /// Checks every Ingress again.
    pub(crate) fn check(&mut self) {
        self.contested = false;
        for entry in self.ingresses.values_mut() {
            entry.replaced = 0;
        }
        self.backlog.extend(self.served.iter().cloned());
    }

    /// From now on removes our addresses.
    pub(crate) fn leave(&mut self) {
        self.leaving = true;
        self.check();
    }

    /// The next write, if there is one and not too many are in progress. The caller must report
    /// [`written`](Self::written) or [`Backlog::abandoned`].
    pub(crate) fn next(&mut self) -> Option<Write> {
        while let Some(addresses) = &self.addresses
            && let Some(key) = self.backlog.next()
        {
            if !self.served.contains(&key) {
                continue;
            }
            let Some(entry) = self.ingresses.get(&key) else { continue };
            let addresses = if !self.leaving {
                addresses.clone()
            } else if entry.shown == *addresses {
                Arc::default()
            } else {
                continue;
            };
            if entry.shown == addresses {
                continue;
            }
            if entry.replaced > REWRITES && !self.leaving {
                if !std::mem::replace(&mut self.contested, true) {
                    warn!(namespace = %key.namespace, name = %key.name, theirs = %listed(&entry.shown),
                        "another controller writes the status of Ingresses that this one serves, of this Ingress first: does it have the same --controller-class? The next write is after --status-update-interval");
                }
                continue;
            }
            self.backlog.begin(key.clone());
            return Some(Write { key, identity: entry.identity.clone(), addresses, verb: self.verb });
        }
        None
    }

    /// Records the result of a write.
    pub(crate) fn written(&mut self, write: Write, result: Written) {
        let Write { key, identity, addresses, .. } = write;
        self.backlog.end(&key);
        match result {
            Ok((version, verb)) => {
                self.verb = verb;
                // Unless the watch has delivered a newer version in the meantime, this is the current one.
                if let Some(entry) = self.ingresses.get_mut(&key)
                    && entry.identity == identity
                {
                    entry.shown = addresses;
                    entry.identity.version = version;
                }
                self.backlog.succeeded(key);
            }
            Err(error) => self.backlog.failed(key, &error, &WRITES),
        }
    }

    /// Whether nothing is in progress or left to do.
    pub(crate) fn is_idle(&self) -> bool {
        self.backlog.is_idle()
    }
}

/// The interval between checks of the addresses and all Ingresses.
pub(crate) fn check_interval(configured: Duration) -> Duration {
    // ingress-nginx has a minimum of five seconds.
    configured.max(Duration::from_secs(5))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Address;
    use crate::api::CallError;
    use fairway_translate::objects::Kind;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new(Kind::Ingress, "n", name)
    }

    fn identity(version: &str) -> Identity {
        Identity { uid: "u".into(), version: version.into() }
    }

    fn addresses(texts: &[&str]) -> Addresses {
        texts.iter().filter_map(|text| Address::from_text(text)).collect()
    }

    fn refused(code: u16) -> CallError {
        CallError::Refused { code, reason: String::new(), message: String::new(), retry_after: None }
    }

    fn status(shown: &[&str]) -> Status {
        let mut status = Status::default();
        status.seen(&key("a"), &identity("1"), addresses(shown));
        status.serve(&key("a"), true);
        status
    }

    #[test]
    fn equal_addresses_are_not_written() {
        let mut status = status(&["192.0.2.2", "192.0.2.1"]);
        status.publish(addresses(&["192.0.2.1", "192.0.2.2"]));
        assert!(status.next().is_none());
    }

    #[test]
    fn unknown_addresses_are_not_written() {
        let mut status = status(&["192.0.2.1"]);
        assert!(status.next().is_none());
        status.publish(addresses(&[]));
        assert!(status.next().is_none());
        status.publish(addresses(&["192.0.2.2"]));
        assert!(status.next().is_some());
    }

    #[test]
    fn foreign_ingresses_are_never_written() {
        let mut status = status(&[]);
        status.publish(addresses(&["192.0.2.1"]));
        status.serve(&key("a"), false);
        assert!(status.next().is_none());
        status.serve(&key("a"), true);
        assert!(status.next().is_some());
    }

    #[test]
    fn after_a_write_the_watch_has_nothing_new_to_say() {
        let mut status = status(&[]);
        status.publish(addresses(&["192.0.2.1"]));
        let write = status.next().unwrap();
        assert!(status.next().is_none(), "one write at a time for an Ingress");
        status.written(write, Ok(("2".into(), Verb::Patch)));
        status.seen(&key("a"), &identity("2"), addresses(&["192.0.2.1"]));
        assert!(status.next().is_none());
        assert!(status.is_idle());
    }

    #[tokio::test]
    async fn a_conflict_is_resolved_by_the_new_version() {
        let mut status = status(&[]);
        status.publish(addresses(&["192.0.2.1"]));
        let write = status.next().unwrap();
        status.seen(&key("a"), &identity("2"), addresses(&["192.0.2.1"]));
        status.written(write, Err(refused(409)));
        assert!(status.backlog.retry_at().is_some());
        status.backlog.retry();
        assert!(status.next().is_none(), "another writer wrote what we wanted");
    }

    #[test]
    fn another_writer_is_not_fought_for_ever() {
        let (ours, theirs) = (addresses(&["192.0.2.1"]), addresses(&["198.51.100.1"]));
        let mut status = status(&[]);
        status.publish(ours.clone());
        let mut version = 1;
        let mut fight = |status: &mut Status| {
            let mut writes = 0;
            while let Some(write) = status.next() {
                writes += 1;
                assert!(writes < 100);
                version += 2;
                status.written(write, Ok((version.to_string().into(), Verb::Patch)));
                status.seen(&key("a"), &identity(&version.to_string()), ours.clone());
                status.seen(&key("a"), &identity(&(version + 1).to_string()), theirs.clone());
            }
            writes
        };
        assert_eq!(fight(&mut status), 3);
        assert!(status.is_idle());
        status.check();
        assert_eq!(fight(&mut status), 3, "each check of all is a new try");

        // A deleted and recreated Ingress counts as no replacement.
        status.seen(&key("a"), &Identity { uid: "v".into(), version: "1".into() }, Addresses::new());
        assert!(status.next().is_some());
    }

    #[test]
    fn leaving_takes_back_only_what_is_ours() {
        let mut status = status(&["192.0.2.1"]);
        status.seen(&key("b"), &identity("1"), addresses(&["198.51.100.1"]));
        status.publish(addresses(&["192.0.2.1"]));
        status.leave();
        status.serve(&key("b"), true);
        let write = status.next().unwrap();
        assert_eq!((write.key.clone(), write.addresses.len()), (key("a"), 0));
        status.written(write, Ok(("2".into(), Verb::Patch)));
        assert!(status.next().is_none());
        assert!(status.is_idle());
    }
}
