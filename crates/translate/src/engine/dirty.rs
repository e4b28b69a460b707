//! What has to be done again, and what came out of it. Stages are told by the first what became due, and put into it what becomes due
//! in later ones; none of them knows another.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fairway_model::{HostPattern, Resource, ResourceName};

use crate::objects::ObjectKey;
use crate::resource::backend::BackendKey;

/// What is due.
#[derive(Debug, Default)]
pub(crate) struct Dirty {
    /// The global ConfigMap, or one that it names.
    pub(crate) config: bool,
    /// The ports of TCP and UDP services.
    pub(crate) streams: bool,
    pub(crate) all_ingresses: bool,
    pub(crate) all_hosts: bool,
    pub(crate) all_backends: bool,
    /// Namespaces whose Ingresses are to be read again.
    pub(crate) namespaces: BTreeSet<Arc<str>>,
    pub(crate) ingresses: BTreeSet<ObjectKey>,
    /// Secrets of which there is another version, or another owner.
    pub(crate) secrets: BTreeSet<ObjectKey>,
    /// Owners of Secrets that changed, each with the Secret.
    pub(crate) secret_owners: BTreeSet<(ObjectKey, ObjectKey)>,
    pub(crate) backends: BTreeSet<BackendKey>,
    /// Hosts whose choice of a certificate has to be looked at.
    pub(crate) certificates: BTreeSet<HostPattern>,
    /// Hosts that have to be merged.
    pub(crate) hosts: BTreeSet<HostPattern>,
    /// Objects about which there may be something else to tell.
    pub(crate) reports: BTreeSet<ObjectKey>,
}

/// What changed.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub(crate) upserts: Vec<Resource>,
    pub(crate) removals: Vec<ResourceName>,
    /// Secrets and ConfigMaps, and whether they were wanted before.
    pub(crate) wants: BTreeMap<ObjectKey, bool>,
    /// Ingresses, and whether they were served before.
    pub(crate) served: BTreeMap<ObjectKey, bool>,
}

/// Fills the nodes of a tree up.
pub(crate) fn compact<K: Ord, V>(tree: &mut BTreeMap<K, V>) {
    *tree = std::mem::take(tree).into_iter().collect();
}
