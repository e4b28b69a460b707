//! The labels of a request that come from configuration.

use std::collections::HashSet;
use std::sync::Arc;

use fairway_model::{Host, HostPattern, Route, Snapshot};

use crate::record::RequestRecord;

/// Kind of the objects whose routes are counted.
const INGRESS: &str = "Ingress";

/// Labels of a route of an Ingress, or of all requests that no Ingress takes (then all are empty but `host`).
#[derive(Clone, Debug, Default, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct RequestLabels {
    /// Namespace of the Ingress.
    pub namespace: Arc<str>,
    /// Its name.
    pub ingress: Arc<str>,
    /// Name of the Service.
    pub service: Arc<str>,
    /// Path of the rule.
    pub path: Box<str>,
    /// The host pattern; empty when hosts are not told apart.
    pub host: Box<str>,
}

impl RequestLabels {
    /// Labels of a request; `None` when it is not counted.
    pub(super) fn of(record: &RequestRecord<'_>, per_host: bool, undefined_hosts: bool) -> Option<Self> {
        let host = |host: Option<&Host>| match host.map(Host::pattern) {
            _ if !per_host => Box::default(),
            Some(HostPattern::Any) | None => "_".into(),
            Some(pattern) => pattern.to_string().into(),
        };
        match record.route {
            Some(route) if is_of_ingress(route) => Some(Self {
                namespace: route.origin.namespace.clone(),
                ingress: route.origin.name.clone(),
                service: record.backend.map(|backend| backend.origin.name.clone()).unwrap_or_default(),
                path: route.rule.clone(),
                host: host(record.host),
            }),
            _ if per_host && !undefined_hosts => None,
            _ => Some(Self { host: host(None), ..Self::default() }),
        }
    }

    /// Whether these are the labels of a route of an Ingress.
    pub(super) fn has_ingress(&self) -> bool {
        !self.ingress.is_empty()
    }
}

/// The Ingresses that a snapshot has routes of. Series of others are forgotten.
#[derive(Clone, Debug, Default)]
pub struct LiveIngresses(HashSet<(Arc<str>, Arc<str>)>);

impl LiveIngresses {
    /// Those of a snapshot.
    pub fn of(snapshot: &Snapshot) -> Self {
        let hosts = snapshot.hosts();
        let routes = hosts.iter().flat_map(|host| host.routes()).filter(|route| is_of_ingress(route));
        Self(routes.map(|route| (route.origin.namespace.clone(), route.origin.name.clone())).collect())
    }

    /// Whether the Ingress of these labels still exists.
    pub(super) fn keeps(&self, labels: &RequestLabels) -> bool {
        !labels.has_ingress() || self.0.contains(&(labels.namespace.clone(), labels.ingress.clone()))
    }
}

/// Whether a route is what a user asked for. What the proxy adds (the answer for unknown paths) has no Ingress.
fn is_of_ingress(route: &Route) -> bool {
    &*route.origin.kind == INGRESS
}
