//! Reports of other controllers of the same release in their Leases: which pods all of their proxies know.
//!
//! Time is measured as in the election, from when a record was first seen, so the clocks of nodes need not agree. Invariant: a controller
//! that no longer renews its Lease is waited for no longer than [`EXPIRY`].

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use tokio::time::Instant;

/// The annotation with the pods.
pub(super) const KNOWN: &str = "fairway.dev/known-pods";

/// The annotation with the number of proxies.
pub(super) const PROXIES: &str = "fairway.dev/proxies";

/// The annotation with the name of the Lease by which the controllers of a release elect their leader.
pub(super) const ELECTION: &str = "fairway.dev/election";

/// How long a controller counts without renewing its Lease.
pub(super) const EXPIRY: Duration = Duration::from_secs(15);

/// The other controllers.
#[derive(Debug)]
pub(crate) struct Peers {
    election: String,
    own: String,
    /// Whether the set of controllers is known.
    is_listed: bool,
    peers: HashMap<String, Peer>,
}

#[derive(Debug)]
struct Peer {
    renewed: Option<MicroTime>,
    until: Instant,
    known: HashSet<Box<str>>,
    proxies: usize,
}

impl Peers {
    /// The controllers of a release, except that of the pod `own`.
    pub(crate) fn new(election: &str, own: &str) -> Self {
        Self { election: election.to_owned(), own: own.to_owned(), is_listed: false, peers: HashMap::new() }
    }

    /// Records a Lease as it is now.
    pub(crate) fn seen(&mut self, lease: Lease, now: Instant) {
        let annotations = lease.metadata.annotations.unwrap_or_default();
        let (Some(name), Some(spec)) = (lease.metadata.name, lease.spec) else { return };
        let is_peer = annotations.get(ELECTION) == Some(&self.election);
        if !is_peer || spec.holder_identity.as_deref() == Some(&self.own) {
            return;
        }
        let before = self.peers.get(&name).filter(|before| before.renewed == spec.renew_time);
        let until = before.map_or(now + EXPIRY, |before| before.until);
        let known = annotations.get(KNOWN).map(|text| text.split(' ').map(Into::into).collect()).unwrap_or_default();
        let proxies = annotations.get(PROXIES).and_then(|text| text.parse().ok()).unwrap_or(0);
        self.peers.insert(name, Peer { renewed: spec.renew_time, until, known, proxies });
    }

    /// Records that a Lease is gone.
    pub(crate) fn gone(&mut self, lease: &Lease) {
        if let Some(name) = &lease.metadata.name {
            self.peers.remove(name);
        }
    }

    /// Records that these are all the Leases.
    pub(crate) fn listed(&mut self, leases: Vec<Lease>, now: Instant) {
        self.is_listed = true;
        let there: HashSet<_> = leases.iter().filter_map(|lease| lease.metadata.name.clone()).collect();
        self.peers.retain(|name, _| there.contains(name));
        leases.into_iter().for_each(|lease| self.seen(lease, now));
    }

    fn live(&self, now: Instant) -> impl Iterator<Item = &Peer> {
        self.peers.values().filter(move |peer| now < peer.until)
    }

    /// Whether all of them report that their proxies know a pod. Before their first list this is unknown.
    pub(super) fn all_know(&self, uid: &str, now: Instant) -> bool {
        self.is_listed && self.live(now).all(|peer| peer.known.contains(uid))
    }

    /// The number of their proxies.
    pub(super) fn proxies(&self, now: Instant) -> usize {
        self.live(now).map(|peer| peer.proxies).sum()
    }

    /// The minimum number of these that know a pod: a controller reports a pod when all of its own proxies know it.
    pub(super) fn knowing(&self, uid: &str, now: Instant) -> usize {
        self.live(now).filter(|peer| peer.known.contains(uid)).map(|peer| peer.proxies).sum()
    }

    /// When the next of them ceases to count.
    pub(super) fn next_end(&self, now: Instant) -> Option<Instant> {
        self.live(now).map(|peer| peer.until).min()
    }
}
