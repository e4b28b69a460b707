//! The labels of a request, and which of them still belong to a configured route.

use std::collections::HashSet;
use std::sync::Arc;

use fairway_model::{Action, Backends, Host, HostPattern, Route, Snapshot};

use super::MetricOptions;
use crate::record::RequestRecord;

/// The label `host` of requests whose own host is not distinguished.
pub(super) const ANY_HOST: &str = "_";

/// Labels of a route of an Ingress or of the Gateway API, or of all requests that match none (then all are empty except `host`).
#[derive(Clone, Debug, Default, Eq, PartialEq, Ord, PartialOrd, Hash)]
pub struct RequestLabels {
    /// Namespace of the object that the route comes from.
    pub namespace: Arc<str>,
    /// Its name.
    pub ingress: Arc<str>,
    /// Name of the backend.
    pub service: Arc<str>,
    /// ingress-nginx's name for the alternative, if a canary was chosen.
    pub canary: Arc<str>,
    /// Path of the rule.
    pub path: Box<str>,
    /// The host; empty if hosts are not distinguished.
    pub host: Box<str>,
    /// Whether the host comes from the request rather than from the configuration.
    pub own_host: bool,
}

impl RequestLabels {
    /// Labels of a request; `None` when it is not counted. As in ingress-nginx, a request for a host that the configuration
    /// matches only by a pattern, or not at all, counts under its own host with `--metrics-per-undefined-host`, and otherwise not
    /// at all.
    pub(super) fn of(record: &RequestRecord<'_>, options: &MetricOptions) -> Option<Self> {
        let mut labels = Self::of_object(record);
        if let Some(route) = record.route.filter(|route| is_of_object(route)) {
            labels.path = route.rule.clone();
        }
        if options.per_host {
            match record.host.map(Host::pattern) {
                Some(HostPattern::Exact(name)) => labels.host = name.as_str().into(),
                _ if options.undefined_hosts => {
                    labels.host = own_host(record);
                    labels.own_host = true;
                }
                _ => return None,
            }
        }
        Some(labels)
    }

    /// The labels of a request without path and host.
    pub(super) fn of_object(record: &RequestRecord<'_>) -> Self {
        let Some(route) = record.route.filter(|route| is_of_object(route)) else {
            return Self::default();
        };
        Self {
            namespace: route.origin.namespace.clone(),
            ingress: route.origin.name.clone(),
            service: record.backend.map(|backend| backend.origin.name.clone()).unwrap_or_default(),
            canary: record.alternative.map(|backend| backend.upstream_name.clone()).unwrap_or_default(),
            ..Self::default()
        }
    }

    /// The same labels for one of many hosts that are not distinguished.
    pub(super) fn of_any_host(&self) -> Self {
        Self { host: ANY_HOST.into(), ..self.clone() }
    }

    /// Whether these are the labels of a route of an object.
    pub(super) fn has_object(&self) -> bool {
        !self.ingress.is_empty()
    }
}

/// Whether the configuration itself names the request's host.
pub(super) fn is_named(record: &RequestRecord<'_>) -> bool {
    matches!(record.host.map(Host::pattern), Some(HostPattern::Exact(_)))
}

/// The requested host, in lower case without its port.
fn own_host(record: &RequestRecord<'_>) -> Box<str> {
    let host = record.client.host();
    let name = match memchr::memrchr(b':', host) {
        Some(colon) if !host[colon..].contains(&b']') => &host[..colon],
        _ => host,
    };
    if name.is_empty() {
        return ANY_HOST.into();
    }
    String::from_utf8_lossy(name).to_ascii_lowercase().into()
}

/// The labels for which a snapshot has routes. Series with other labels are removed.
#[derive(Clone, Debug, Default)]
pub struct LiveRoutes(HashSet<RequestLabels, foldhash::fast::RandomState>);

impl LiveRoutes {
    /// The labels of a snapshot.
    pub fn of(snapshot: &Snapshot, per_host: bool) -> Self {
        let mut live = Self::default();
        for host in snapshot.hosts() {
            let (name, own_host): (Box<str>, bool) = match host.pattern() {
                _ if !per_host => Default::default(),
                HostPattern::Exact(name) => (name.as_str().into(), false),
                _ => (Box::default(), true),
            };
            let routes = host.tiers().flat_map(Host::reachable_routes);
            for route in routes.filter(|route| is_of_object(route)) {
                let mut add = |service: Arc<str>, canary: Arc<str>| {
                    let (namespace, ingress) = (route.origin.namespace.clone(), route.origin.name.clone());
                    let of_object = RequestLabels { namespace, ingress, service, canary, ..RequestLabels::default() };
                    live.0.insert(RequestLabels {
                        path: route.rule.clone(),
                        host: name.clone(),
                        own_host,
                        ..of_object.clone()
                    });
                    live.0.insert(of_object);
                };
                add(Arc::default(), Arc::default());
                if let Action::Forward(forward) = &route.action {
                    let backends = forward.all_backends();
                    backends
                        .filter_map(|name| snapshot.backend(name))
                        .for_each(|known| add(known.origin.name.clone(), Arc::default()));
                    if let Backends::Canary(canary) = &forward.backends
                        && let (Some(main), Some(other)) =
                            (snapshot.backend(&canary.main), snapshot.backend(&canary.alternative))
                    {
                        add(main.origin.name.clone(), other.upstream_name.clone());
                    }
                }
            }
        }
        live
    }

    /// Whether such a route still exists.
    pub(super) fn keeps(&self, labels: &RequestLabels) -> bool {
        !labels.has_object()
            || if labels.own_host {
                self.0.contains(&RequestLabels { host: Box::default(), ..labels.clone() })
            } else {
                self.0.contains(labels)
            }
    }
}

/// Whether a route comes from a user's object, unlike those that the proxy adds (the answer for unknown paths).
fn is_of_object(route: &Route) -> bool {
    !route.origin.is_built_in()
}
