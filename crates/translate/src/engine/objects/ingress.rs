//! An Ingress in compact form: a fifth of the size of the Kubernetes type, since there are tens of thousands of them, and each is
//! read again only when it or the global configuration changes.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::networking::v1::{Ingress, IngressSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::{Deserialize, Serialize};

use super::{Kind, ObjectKey};

/// An Ingress, reduced to what matters: its name, its creation time, whether it is being deleted, its annotations and its spec. Two
/// with the same meaning are equal. Cloning one copies a pointer.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StoredIngress(Arc<Stored>);

#[derive(Clone, Debug, Eq, PartialEq)]
struct Stored {
    key: ObjectKey,
    created: Option<Timestamp>,
    /// Whether it is being deleted; the time of that doesn't matter.
    leaving: bool,
    /// [`Content`] as JSON.
    content: Box<str>,
}

#[derive(Serialize, Deserialize)]
struct Content<A, S> {
    #[serde(rename = "a")]
    annotations: Option<A>,
    #[serde(rename = "s")]
    spec: Option<S>,
}

impl StoredIngress {
    /// Its key.
    pub fn key(&self) -> &ObjectKey {
        &self.0.key
    }

    /// Its creation time, if known.
    pub fn created(&self) -> Option<Timestamp> {
        self.0.created
    }

    /// Whether it is being deleted.
    pub fn is_leaving(&self) -> bool {
        self.0.leaving
    }

    /// A copy of all of it.
    pub(super) fn copied(&self) -> Self {
        Self(Arc::new(Stored { key: self.0.key.copied(), ..(*self.0).clone() }))
    }

    /// Sets its creation time.
    pub fn set_created(&mut self, created: Timestamp) {
        Arc::make_mut(&mut self.0).created = Some(created);
    }

    /// The Ingress, without irrelevant parts such as status, labels and managed fields.
    pub fn read(&self) -> Ingress {
        let content: Content<BTreeMap<String, String>, IngressSpec> =
            serde_json::from_str(&self.0.content).expect("the JSON was written from the same types");
        let ObjectKey { namespace, name, .. } = &self.0.key;
        let metadata = ObjectMeta {
            namespace: Some(namespace.to_string()).filter(|namespace| !namespace.is_empty()),
            name: Some(name.to_string()).filter(|name| !name.is_empty()),
            creation_timestamp: self.0.created.map(Time),
            deletion_timestamp: self.0.leaving.then_some(Time(Timestamp::UNIX_EPOCH)),
            annotations: content.annotations,
            ..ObjectMeta::default()
        };
        Ingress { metadata, spec: content.spec, status: None }
    }
}

impl From<Ingress> for StoredIngress {
    fn from(ingress: Ingress) -> Self {
        let content = Content { annotations: ingress.metadata.annotations.as_ref(), spec: ingress.spec.as_ref() };
        let content = serde_json::to_string(&content).expect("texts, numbers and maps by text have a JSON form").into();
        let key = ObjectKey::of(Kind::Ingress, &ingress.metadata);
        let created = ingress.metadata.creation_timestamp.map(|time| time.0);
        Self(Arc::new(Stored { key, created, leaving: ingress.metadata.deletion_timestamp.is_some(), content }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nothing_that_has_a_meaning_is_lost() {
        let ingress: Ingress = serde_json::from_value(json!({
            "metadata": {
                "name": "web", "namespace": "shop", "creationTimestamp": "2026-01-01T00:00:00Z",
                "annotations": {"a": "\"\\\n\u{202e}", "": ""},
            },
            "spec": {
                "ingressClassName": "nginx",
                "defaultBackend": {"resource": {"apiGroup": "g", "kind": "K", "name": "n"}},
                "tls": [{"hosts": ["a.example"], "secretName": "s"}, {}],
                "rules": [
                    {},
                    {"host": "", "http": {"paths": []}},
                    {"host": "a.example", "http": {"paths": [
                        {"path": "/a", "pathType": "Exact", "backend": {"service": {"name": "s", "port": {"name": "p"}}}},
                        {"pathType": "", "backend": {"service": {"name": "s", "port": {"number": -1}}}},
                        {"pathType": "Prefix", "backend": {}},
                    ]}},
                ],
            },
        }))
        .unwrap();
        assert_eq!(StoredIngress::from(ingress.clone()).read(), ingress);
        for empty in [json!({}), json!({"spec": {}}), json!({"spec": {"rules": [], "tls": []}})] {
            let empty: Ingress = serde_json::from_value(empty).unwrap();
            assert_eq!(StoredIngress::from(empty.clone()).read(), empty);
        }
    }

    #[test]
    fn what_has_no_meaning_makes_no_difference() {
        let read = |value| StoredIngress::from(serde_json::from_value::<Ingress>(value).unwrap());
        let status = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}});
        let labels = json!({"name": "a", "labels": {"a": "b"}, "resourceVersion": "7"});
        assert_eq!(read(json!({"metadata": {"name": "a"}})), read(json!({"metadata": labels, "status": status})));
        assert_ne!(read(json!({"metadata": {"name": "a"}})), read(json!({"metadata": {"name": "a"}, "spec": {}})));
        let leaving = |time| read(json!({"metadata": {"name": "a", "deletionTimestamp": time}}));
        assert_ne!(read(json!({"metadata": {"name": "a"}})), leaving("2026-01-01T00:00:00Z"));
        assert_eq!(leaving("2026-01-01T00:00:00Z"), leaving("2026-01-01T00:00:01Z"));
    }
}
