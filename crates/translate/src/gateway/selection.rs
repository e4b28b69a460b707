//! Pods that an XBackend selects by their labels: the headless Service that is made for it, as data.
//!
//! Kubernetes keeps its EndpointSlices up to date, so that no pod has to be watched. Its name can't be guessed before it is there (the
//! specification wants none that anyone could rely on in DNS), and it goes with the XBackend.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::api::EndpointSelector;
use super::service::{APPLIED, MANAGED_BY, Make, NAME, XBACKEND_NAME, label_value, sum};
use super::status::Shortcoming;
use crate::objects::{Kind, Object, ObjectKey, Objects};
use crate::options::{GatewayAddressing, Options};

/// The annotation with the whole name of the XBackend.
const XBACKEND: &str = "fairway.dev/xbackend";
/// The name of the Service's port, which its slices have too.
pub(crate) const PORT: &str = "backend";

/// The pods of an XBackend.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Selection {
    uid: String,
    labels: BTreeMap<String, String>,
}

impl Selection {
    /// What is selected.
    ///
    /// # Errors
    /// If it can't be: the rest of the field's name, and why.
    pub(super) fn of(
        selector: &EndpointSelector,
        uid: &str,
        options: &Options,
    ) -> Result<Self, (&'static str, &'static str)> {
        if selector.match_labels.is_empty() {
            return Err((".matchLabels", "expected at least one label"));
        }
        if options.gateway_address == GatewayAddressing::Shared && options.development.is_none() {
            let why = "pods are found through a Service that is made for them, and the right to make Services comes with \
                       --gateway-address=asked or own";
            return Err(("", why));
        }
        Ok(Self { uid: uid.to_owned(), labels: selector.match_labels.clone() })
    }
}

/// The key of the Service for the pods of an XBackend with this UID.
pub(crate) fn service_key(xbackend: &ObjectKey, uid: &str) -> ObjectKey {
    let name: String = xbackend.name.chars().map(|c| if c == '.' { '-' } else { c }).collect();
    let begins_well = name.starts_with(|c: char| c.is_ascii_lowercase());
    let name = if begins_well { name } else { format!("backend-{name}") };
    let sum = format!("{:016x}", sum((uid, &xbackend.namespace, &xbackend.name)));
    let kept: String = name.chars().take(NAME - sum.len() - 1).collect();
    ObjectKey::new(Kind::Service, &*xbackend.namespace, format!("{}-{sum}", kept.trim_end_matches('-')))
}

/// The port of that Service.
pub(crate) fn service_port(number: i32) -> ServicePort {
    ServicePort {
        name: Some(PORT.to_owned()),
        port: number,
        target_port: Some(IntOrString::Int(number)),
        ..ServicePort::default()
    }
}

/// What is to be made for an XBackend, if anything, or why nothing can be.
pub(super) fn settle(
    key: &ObjectKey,
    service: &ObjectKey,
    wanted: &Arc<Value>,
    selection: &Selection,
    port: i32,
    objects: &Objects,
) -> Result<Option<Make>, Shortcoming> {
    let current = match objects.get(service) {
        Some(Object::Service(found)) => Some(&**found),
        _ => None,
    };
    if current.is_some_and(|found| made_for(found) != Some(&*key.name)) {
        let message = format!("Service {}/{} is there, and was not made for it", service.namespace, service.name);
        return Err(Shortcoming::new("Invalid", message));
    }
    let is_there = current.is_some_and(|found| is_satisfied(found, wanted, selection, port));
    Ok((!is_there).then(|| Make::Apply(wanted.clone())))
}

/// What to do about a Service that was made for an XBackend that selects no pods any more.
pub(super) fn leftover(key: &ObjectKey, service: &ObjectKey, objects: &Objects) -> Option<Make> {
    let is_ours = matches!(objects.get(service), Some(Object::Service(found)) if made_for(found) == Some(&*key.name));
    is_ours.then_some(Make::Delete)
}

/// The name of the XBackend that a Service was made for.
pub(crate) fn made_for(service: &Service) -> Option<&str> {
    let labels = service.metadata.labels.as_ref()?;
    let is_ours = labels.get(MANAGED_BY.0).map(String::as_str) == Some(MANAGED_BY.1);
    let name = service.metadata.annotations.as_ref()?.get(XBACKEND)?;
    (is_ours && labels.contains_key(XBACKEND_NAME)).then_some(name)
}

/// The Service as it should be.
pub(super) fn wanted(key: &ObjectKey, service: &ObjectKey, selection: &Selection, port: i32) -> Arc<Value> {
    let owner = json!({
        "apiVersion": key.kind.api_version(), "kind": key.kind.as_str(), "name": &*key.name, "uid": selection.uid,
        "controller": true,
    });
    let mut wanted = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": &*service.name, "namespace": &*service.namespace,
            "labels": {MANAGED_BY.0: MANAGED_BY.1, XBACKEND_NAME: label_value(&key.name)},
            "annotations": {XBACKEND: &*key.name}, "ownerReferences": [owner],
        },
        "spec": {
            "type": "ClusterIP", "clusterIP": "None", "selector": selection.labels,
            "ports": [{"name": PORT, "port": port, "protocol": "TCP", "targetPort": port}],
        },
    });
    wanted["metadata"]["annotations"][APPLIED] = json!(format!("{:016x}", sum(wanted.to_string())));
    Arc::new(wanted)
}

/// Whether a Service is as it should be.
fn is_satisfied(current: &Service, wanted: &Value, selection: &Selection, port: i32) -> bool {
    let applied = current.metadata.annotations.as_ref().and_then(|annotations| annotations.get(APPLIED));
    let Some(spec) = &current.spec else { return false };
    let same_port = |found: &ServicePort| {
        let ServicePort { name, target_port, .. } = service_port(port);
        found.port == port && found.name == name && found.target_port == target_port
    };
    applied.map(String::as_str) == wanted["metadata"]["annotations"][APPLIED].as_str()
        && spec.selector.as_ref() == Some(&selection.labels)
        && spec.cluster_ip.as_deref() == Some("None")
        && matches!(spec.ports.as_deref(), Some([only]) if same_port(only))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_services_are_valid_and_differ_with_the_object() {
        let name =
            |xbackend: &str, uid| service_key(&ObjectKey::new(Kind::XBackend, "n", xbackend), uid).name.to_string();
        let long = "a".repeat(253);
        let names = [
            name("pay", "1"),
            name("pay", "2"),
            name("1pay", "1"),
            name("p.ay", "1"),
            name(&long, "1"),
            name(&long[..252], "1"),
        ];
        for (at, one) in names.iter().enumerate() {
            assert!(one.len() <= NAME && one.starts_with(|c: char| c.is_ascii_lowercase()), "{one}");
            assert!(one.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'), "{one}");
            assert!(!names[..at].contains(one), "{one}");
        }
    }
}
