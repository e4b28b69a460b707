//! The snapshot in use, with what was compiled from it.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;

use fairway_model::{BackendName, Endpoints, Snapshot};

use crate::geo::GeoDatabases;
use crate::net::resolve::{AddressPolicy, Resolved};
use crate::prepared::{LogFormat, Prepared};

/// One version of the configuration. Shared by all workers and never changed.
#[derive(Debug)]
pub(crate) struct Live {
    /// Number of the version, from 1.
    pub(crate) version: u64,
    /// The snapshot.
    pub(crate) snapshot: Arc<Snapshot>,
    /// Its settings, compiled.
    pub(crate) prepared: Arc<Prepared>,
    /// What the backends that are DNS names resolve to.
    pub(crate) resolved: Arc<HashMap<BackendName, Resolved>>,
    /// The geographic databases, if any are used.
    pub(crate) geo: Option<Arc<GeoDatabases>>,
    /// Which addresses endpoints may have; the same in all versions.
    pub(crate) addresses: Arc<AddressPolicy>,
}

/// The version that a worker serves. Requests count references to this, not to what all workers share.
#[derive(Debug)]
pub(crate) struct InForce(pub(crate) Arc<Live>);

impl Deref for InForce {
    type Target = Live;

    fn deref(&self) -> &Live {
        &self.0
    }
}

impl Live {
    /// The first version.
    pub(crate) fn first(snapshot: Snapshot, log_format: Option<&LogFormat>, addresses: AddressPolicy) -> Arc<Self> {
        let prepared = Arc::new(Prepared::new(snapshot.settings(), log_format));
        Arc::new(Self {
            version: 1,
            geo: GeoDatabases::read(snapshot.settings().geo.as_ref()),
            snapshot: Arc::new(snapshot),
            prepared,
            resolved: Arc::default(),
            addresses: Arc::new(addresses),
        })
    }

    /// The next version. What was compiled is shared unless the settings changed.
    pub(crate) fn next(&self, snapshot: Snapshot, log_format: Option<&LogFormat>) -> Arc<Self> {
        let prepared = if Arc::ptr_eq(self.snapshot.settings(), snapshot.settings()) {
            self.prepared.clone()
        } else {
            Arc::new(Prepared::new(snapshot.settings(), log_format))
        };
        let mut resolved = self.resolved.clone();
        // A backend whose name has changed leads nowhere until the new name is resolved.
        let known = |name: &BackendName, to: &Resolved| snapshot.endpoint_set(name).is_some_and(|set| to.is_of(set));
        if !self.resolved.iter().all(|(name, to)| known(name, to)) {
            Arc::make_mut(&mut resolved).retain(|name, to| known(name, to));
        }
        Arc::new(Self {
            version: self.version + 1,
            geo: GeoDatabases::follow(self.geo.as_ref(), snapshot.settings().geo.as_ref()),
            snapshot: Arc::new(snapshot),
            prepared,
            resolved,
            addresses: self.addresses.clone(),
        })
    }

    /// Whether it takes DNS to find the endpoints of a backend.
    pub(crate) fn is_name(&self, backend: &BackendName) -> bool {
        let set = self.snapshot.endpoint_set(backend);
        set.is_some_and(|set| matches!(set.endpoints, Endpoints::Name { .. }))
    }

    /// The next version, in which one name resolves to something else.
    pub(crate) fn resolved(&self, change: Resolved) -> Arc<Self> {
        let mut resolved = self.resolved.clone();
        Arc::make_mut(&mut resolved).insert(change.backend.clone(), change);
        Arc::new(Self {
            version: self.version + 1,
            geo: self.geo.clone(),
            snapshot: self.snapshot.clone(),
            prepared: self.prepared.clone(),
            resolved,
            addresses: self.addresses.clone(),
        })
    }

    /// The next version, with geographic databases that were reread.
    pub(crate) fn with_geo(&self, geo: Option<Arc<GeoDatabases>>) -> Arc<Self> {
        Arc::new(Self {
            version: self.version + 1,
            geo,
            snapshot: self.snapshot.clone(),
            prepared: self.prepared.clone(),
            resolved: self.resolved.clone(),
            addresses: self.addresses.clone(),
        })
    }
}
