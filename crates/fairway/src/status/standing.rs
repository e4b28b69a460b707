//! The state of a process: what `/debug/channel` reports, and how it is read.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

#[cfg(feature = "cluster")]
use fairway_channel::Version;
use fairway_model::Snapshot;
use fairway_proxy::admin::{ChannelEnd, LazySnapshot};
use fairway_proxy::metrics::{ChannelFigures, ConfigStatus};
use serde::{Deserialize, Serialize};
use serde_json::Value;
#[cfg(feature = "cluster")]
use serde_json::json;

/// A process, as described by `docs/schema/status.json`. A process of another version may lack some fields.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub(crate) struct Standing {
    /// `controller`, `proxy`, `run` or `dev`.
    pub(crate) role: String,
    /// The name that a proxy gives to its controller; empty for other roles.
    pub(crate) name: String,
    /// Its version.
    pub(crate) fairway: String,
    /// Whether a complete configuration is in effect.
    pub(crate) complete: bool,
    /// Whether that is the newest known one: for a proxy, whether a controller confirms it now; for a controller, whether all of its
    /// proxies have it.
    pub(crate) current: bool,
    /// Seconds since that was last true.
    pub(crate) age_seconds: f64,
    /// Seconds since the configuration changed.
    pub(crate) changed_seconds: Option<f64>,
    /// Changes so far.
    pub(crate) changes: u64,
    /// Resources of the configuration.
    pub(crate) resources: usize,
    /// Resources that could not be understood, and why.
    pub(crate) refused: BTreeMap<String, String>,
    /// For a proxy: connections to controllers, and rounds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) connections: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rounds: Option<u64>,
    /// For a controller: the connected proxies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) proxies: Option<Vec<Connected>>,
    /// For a controller: the last proxy to receive the last change that all have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) slowest: Option<Slowest>,
    /// For a proxy: whether the configuration comes from a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) from_file: Option<bool>,
}

/// A proxy, and how long it took to receive a change.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub(crate) struct Slowest {
    pub(crate) name: String,
    pub(crate) seconds: f64,
}

/// A proxy, as its controller sees it.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(default)]
pub(crate) struct Connected {
    pub(crate) name: String,
    pub(crate) version: String,
    /// Whether it serves the newest change.
    pub(crate) current: bool,
    /// Seconds since it last received a change.
    pub(crate) seconds: u64,
    pub(crate) resources: usize,
    pub(crate) refused: BTreeMap<String, String>,
}

impl Standing {
    /// The part that is common to all roles.
    pub(crate) fn new(role: &str, resources: usize, config: &ConfigStatus) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64();
        Self {
            role: role.to_owned(),
            fairway: env!("CARGO_PKG_VERSION").to_owned(),
            complete: true,
            current: true,
            changed_seconds: (config.last_success > 0.0).then(|| (now - config.last_success).max(0.0)),
            changes: config.version,
            resources,
            ..Self::default()
        }
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// Resource names with their versions, as JSON.
#[cfg(feature = "cluster")]
pub(crate) fn versions(versions: BTreeMap<String, Option<Version>>) -> Value {
    versions.into_iter().map(|(name, version)| (name, json!(version.map(|version| version.to_string())))).collect()
}

/// A process that isn't connected to another one.
pub(crate) struct Alone(pub(crate) &'static str);

impl ChannelEnd for Alone {
    fn standing(&self, snapshot: LazySnapshot, config: &ConfigStatus) -> Value {
        let snapshot = snapshot();
        // There is no listener before the first configuration.
        let complete = snapshot.listeners().len() > 0;
        Standing { complete, current: complete && config.whole, ..Standing::new(self.0, count(&snapshot), config) }
            .json()
    }

    #[cfg(feature = "cluster")]
    fn versions(&self, snapshot: LazySnapshot) -> Value {
        versions(fairway_channel::versions(&snapshot()))
    }

    /// Versions are those of the channel, which this build lacks.
    #[cfg(not(feature = "cluster"))]
    fn versions(&self, _: LazySnapshot) -> Value {
        Value::Null
    }

    fn figures(&self) -> Option<ChannelFigures> {
        None
    }
}

/// The number of resources, including the settings.
fn count(snapshot: &Snapshot) -> usize {
    let listeners = snapshot.listeners().len() + snapshot.stream_listeners().len();
    let backends = snapshot.backends().len() + snapshot.endpoint_sets().len();
    1 + listeners + snapshot.host_count() + backends + snapshot.certificates().len()
}
