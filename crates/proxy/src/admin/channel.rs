//! What a process reports about its configuration and its connection to other processes: a proxy about its controller, a controller about
//! its proxies.

use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use super::LazySnapshot;
use crate::metrics::{ChannelFigures, ConfigStatus};

/// A process, as it describes itself.
pub trait ChannelEnd: Send + Sync {
    /// Its status, for `/debug/channel`, given the configuration that it runs.
    fn standing(&self, snapshot: LazySnapshot, config: &ConfigStatus) -> Value;

    /// The version of each resource, for `/debug/resources`.
    fn versions(&self, snapshot: LazySnapshot) -> Value;

    /// For `/metrics`, if there are other processes.
    fn figures(&self) -> Option<ChannelFigures>;
}

/// Describes a process on every read.
#[derive(Clone)]
pub struct ChannelSource(pub(super) Arc<dyn ChannelEnd>);

impl ChannelSource {
    /// Creates a source.
    pub fn new(end: impl ChannelEnd + 'static) -> Self {
        Self(Arc::new(end))
    }
}

impl fmt::Debug for ChannelSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ChannelSource")
    }
}
