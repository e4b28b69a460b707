//! The endpoints of an XBackend: those of a host outside of the cluster, or its pods.

use fairway_model::Endpoints;

use super::{BackendKey, Problem, Sources, endpoints, external};
use crate::diagnostic::{Reason, Severity};
use crate::gateway::service_port;
use crate::options::Options;

/// The most labels that a message names.
const LABELS: usize = 4;

pub(super) fn find(
    key: &BackendKey,
    number: i32,
    sources: &Sources<'_>,
    options: &Options,
) -> Result<Endpoints, Problem> {
    // A route refers only to XBackends that exist and are accepted.
    let spec = sources.xbackend.map(|xbackend| &xbackend.spec);
    if let Some(host) = spec.and_then(|spec| spec.external_hostname.as_ref()) {
        return external::outside(&host.hostname, number, options);
    }
    let Some(selector) = spec.and_then(|spec| spec.endpoint_selector.as_ref()) else {
        let message = format!("there is no XBackend {}/{}", key.namespace, key.target);
        return Err(Problem::new(Severity::Warning, Reason::ServiceNotFound, message));
    };
    // Only the slices of the pods' Service count: no zones, no cluster address.
    let endpoints = endpoints::from_slices(&sources.slices, &service_port(number), key.layer, None);
    // Manifest files have no endpoints.
    if endpoints.is_empty() && options.development.is_none() {
        let labels = selector.match_labels.iter().map(|(name, value)| format!("{name}={value}"));
        let labels: Vec<_> = labels.take(LABELS).collect();
        let message = format!("no ready pod of namespace {} has the labels {}", key.namespace, labels.join(", "));
        return Err(Problem::new(Severity::Warning, Reason::NoEndpoints, message));
    }
    Ok(Endpoints::Addresses(endpoints))
}
