//! The snapshot that is being served, with what was compiled for it.

use std::sync::Arc;

use fairway_model::Snapshot;

use crate::prepared::{LogFormat, Prepared};

/// One version of the configuration. Shared by all workers and never changed.
#[derive(Debug)]
pub(crate) struct Live {
    /// Number of the version, from 1.
    pub(crate) version: u64,
    /// The snapshot.
    pub(crate) snapshot: Arc<Snapshot>,
    /// What follows from its settings.
    pub(crate) prepared: Arc<Prepared>,
}

impl Live {
    /// The first version.
    pub(crate) fn first(snapshot: Snapshot, log_format: Option<&LogFormat>) -> Arc<Self> {
        let prepared = Arc::new(Prepared::new(snapshot.settings(), log_format));
        Arc::new(Self { version: 1, snapshot: Arc::new(snapshot), prepared })
    }

    /// The version after this one. What was compiled is shared unless the settings changed.
    pub(crate) fn next(&self, snapshot: Snapshot, log_format: Option<&LogFormat>) -> Arc<Self> {
        let prepared = if Arc::ptr_eq(self.snapshot.settings(), snapshot.settings()) {
            self.prepared.clone()
        } else {
            Arc::new(Prepared::new(snapshot.settings(), log_format))
        };
        Arc::new(Self { version: self.version + 1, snapshot: Arc::new(snapshot), prepared })
    }
}
