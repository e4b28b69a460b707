//! The pending work of stages, and their results. A stage reads its own work here and marks the work of later stages; no stage knows
//! another.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fairway_model::{HostPattern, Resource, ResourceName};

use crate::objects::ObjectKey;
use crate::resource::backend::BackendKey;

/// Pending work.
#[derive(Debug, Default)]
pub(crate) struct Dirty {
    /// The global ConfigMap, or one that it names.
    pub(crate) config: bool,
    /// The ports of TCP and UDP services.
    pub(crate) streams: bool,
    pub(crate) all_ingresses: bool,
    pub(crate) all_hosts: bool,
    pub(crate) all_backends: bool,
    /// Whether what stays the same is replaced by a copy.
    pub(crate) renews: bool,
    /// Namespaces whose Ingresses have to be read again.
    pub(crate) namespaces: BTreeSet<Arc<str>>,
    pub(crate) ingresses: BTreeSet<ObjectKey>,
    /// Secrets whose version or owners have changed.
    pub(crate) secrets: BTreeSet<ObjectKey>,
    /// Owners of changed Secrets, each with the Secret.
    pub(crate) secret_owners: BTreeSet<(ObjectKey, ObjectKey)>,
    /// ConfigMaps whose version or owners have changed.
    pub(crate) config_maps: BTreeSet<ObjectKey>,
    /// Owners of changed ConfigMaps.
    pub(crate) config_map_owners: BTreeSet<ObjectKey>,
    pub(crate) backends: BTreeSet<BackendKey>,
    /// Hosts whose certificate has to be chosen again.
    pub(crate) certificates: BTreeSet<HostPattern>,
    /// Hosts that have to be merged.
    pub(crate) hosts: BTreeSet<HostPattern>,
    /// Classes, Gateways, grants, or what they depend on.
    pub(crate) gateways: bool,
    /// BackendTLSPolicies, or ConfigMaps that they name.
    pub(crate) backend_policies: BTreeSet<ObjectKey>,
    /// XBackendTrafficPolicies.
    pub(crate) traffic_policies: BTreeSet<ObjectKey>,
    /// XBackends, or ConfigMaps that they name.
    pub(crate) xbackends: BTreeSet<ObjectKey>,
    /// XTelemetryPolicies, or Services that they name.
    pub(crate) telemetry_policies: BTreeSet<ObjectKey>,
    /// RoutePolicies.
    pub(crate) route_policies: BTreeSet<ObjectKey>,
    /// RoutePolicies whose users have to be examined again.
    pub(crate) route_policy_users: BTreeSet<ObjectKey>,
    /// Routes of the Gateway API.
    pub(crate) gateway_routes: BTreeSet<ObjectKey>,
    /// Whether a certificate of a Gateway has changed.
    pub(crate) gateway_certificates: bool,
    /// Services that are created for Gateways, or the endpoints that they lead to.
    pub(crate) gateway_services: bool,
    /// Objects of the Gateway API whose status may have changed.
    pub(crate) gateway_statuses: BTreeSet<ObjectKey>,
    /// The open ports for HTTP.
    pub(crate) listeners: bool,
    /// Objects whose findings may have changed.
    pub(crate) reports: BTreeSet<ObjectKey>,
}

/// Results.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub(crate) upserts: Vec<Resource>,
    pub(crate) removals: Vec<ResourceName>,
    /// Secrets and ConfigMaps, each with whether it was needed before.
    pub(crate) wants: BTreeMap<ObjectKey, bool>,
    /// Ingresses, each with whether it was served before.
    pub(crate) served: BTreeMap<ObjectKey, bool>,
    /// Objects of the Gateway API whose status has changed.
    pub(crate) statuses: BTreeSet<ObjectKey>,
    /// Objects that are created for Gateways and XBackends and whose pending work has changed.
    pub(crate) made: BTreeSet<ObjectKey>,
}
