//! Pods that an XBackend selects by their labels: the headless Service that is created for it, as data.
//!
//! Kubernetes keeps its EndpointSlices up to date, so no pod has to be watched. Its name can't be predicted (the specification wants no
//! name that users could rely on in DNS), and it is deleted with the XBackend.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Service, ServicePort};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::{Value, json};

use super::api::EndpointSelector;
use super::service::{APPLIED, MANAGED_BY, Make, NAME, XBACKEND, label_value, made_for, sum};
use super::status::Shortcoming;
use crate::objects::{Kind, ObjectKey, Objects};
use crate::options::Options;

/// The name of the Service's port, which its slices have too.
pub(crate) const PORT: &str = "backend";

/// The pods of an XBackend.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Selection {
    labels: BTreeMap<String, String>,
    port: i32,
    /// The Service to create for them.
    wanted: Arc<Value>,
}

impl Selection {
    /// The pods that an XBackend with this UID selects.
    ///
    /// # Errors
    /// The rest of the field's name, and why the selection is impossible.
    pub(super) fn of(
        selector: &EndpointSelector,
        (key, uid): (&ObjectKey, &str),
        port: i32,
        options: &Options,
    ) -> Result<Self, (&'static str, &'static str)> {
        let labels = &selector.match_labels;
        if labels.is_empty() {
            return Err((".matchLabels", "expected at least one label"));
        }
        if options.lacks_own_services() {
            let why = "pods are found through a Service that is made for them, and the right to make Services comes with \
                       --gateway-address=asked or own";
            return Err(("", why));
        }
        Ok(Self { labels: labels.clone(), port, wanted: Arc::new(service((key, uid), labels, port)) })
    }

    /// The Service to create for the XBackend, if any, or why it can't be created.
    pub(super) fn settle(
        &self,
        key: &ObjectKey,
        service: &ObjectKey,
        objects: &Objects,
    ) -> Result<Option<Make>, Shortcoming> {
        let current = objects.service(service);
        if current.is_some_and(|found| made_for(found, XBACKEND) != Some(&*key.name)) {
            let message = format!("Service {}/{} exists, and was not made for it", service.namespace, service.name);
            return Err(Shortcoming::new("Invalid", message));
        }
        let is_there = current.is_some_and(|found| self.is_satisfied(found));
        Ok((!is_there).then(|| Make::Apply(self.wanted.clone())))
    }

    /// Whether a Service has the wanted state.
    fn is_satisfied(&self, current: &Service) -> bool {
        let applied = current.metadata.annotations.as_ref().and_then(|annotations| annotations.get(APPLIED));
        let Some(spec) = &current.spec else { return false };
        let same_port = |found: &ServicePort| {
            let ServicePort { name, target_port, .. } = service_port(self.port);
            found.port == self.port && found.name == name && found.target_port == target_port
        };
        applied.map(String::as_str) == self.wanted["metadata"]["annotations"][APPLIED].as_str()
            && spec.selector.as_ref() == Some(&self.labels)
            && spec.cluster_ip.as_deref() == Some("None")
            && matches!(spec.ports.as_deref(), Some([only]) if same_port(only))
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

/// The pending work on the Service of an XBackend that no longer selects pods.
pub(super) fn leftover(key: &ObjectKey, service: &ObjectKey, objects: &Objects) -> Option<Make> {
    let is_ours = objects.service(service).is_some_and(|found| made_for(found, XBACKEND) == Some(&*key.name));
    is_ours.then_some(Make::Delete)
}

/// The wanted state of the Service for the pods of an XBackend.
fn service((key, uid): (&ObjectKey, &str), labels: &BTreeMap<String, String>, port: i32) -> Value {
    let ObjectKey { namespace, name, .. } = service_key(key, uid);
    let owner = json!({
        "apiVersion": key.kind.api_version(), "kind": key.kind.as_str(), "name": &*key.name, "uid": uid,
        "controller": true,
    });
    let mut service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": &*name, "namespace": &*namespace,
            "labels": {MANAGED_BY.0: MANAGED_BY.1, XBACKEND.label: label_value(&key.name)},
            "annotations": {XBACKEND.annotation: &*key.name}, "ownerReferences": [owner],
        },
        "spec": {
            "type": "ClusterIP", "clusterIP": "None", "selector": labels,
            "ports": [{"name": PORT, "port": port, "protocol": "TCP", "targetPort": port}],
        },
    });
    service["metadata"]["annotations"][APPLIED] = json!(format!("{:016x}", sum(service.to_string())));
    service
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
