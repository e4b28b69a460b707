//! Writes a pod's status after each change, with retries.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::sleep;

use super::pod::{PodWorker, Update};
use super::status::{self, PodState};

/// Writes until `finish` is set and the last status is written, or the pod is gone.
pub(crate) async fn write(
    pod: Arc<PodWorker>,
    mut states: watch::Receiver<PodState>,
    mut updates: watch::Receiver<Update>,
    mut finish: watch::Receiver<bool>,
) {
    let mut written: Option<PodStatus> = None;
    loop {
        let finishing = *finish.borrow_and_update();
        let state = states.borrow_and_update().clone();
        let Update { object, gone } = updates.borrow_and_update().clone();
        if gone {
            return;
        }
        let status = status::of(&object, &state, &pod.node().host_ip, written.as_ref(), Timestamp::now());
        if written.as_ref() != Some(&status) {
            let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
            let api = Api::<Pod>::namespaced(pod.node().client.clone(), namespace);
            let name = object.metadata.name.as_deref().unwrap_or_default();
            let patch = Patch::Strategic(patch(pod.uid(), &status));
            match api.patch_status(name, &PatchParams::default(), &patch).await {
                Ok(_) => written = Some(status),
                Err(kube::Error::Api(refused)) if refused.code == 404 || refused.code == 409 => return,
                Err(error) => {
                    tracing::debug!(%error, pod = pod.name(), "writing the status failed");
                    sleep(Duration::from_millis(500)).await;
                }
            }
            continue;
        }
        if finishing {
            return;
        }
        tokio::select! {
            changed = states.changed() => if changed.is_err() { return },
            _ = updates.changed() => {}
            _ = finish.changed() => {}
        }
    }
}

/// A strategic merge patch: keeps the conditions of others and removes outdated ones.
fn patch(uid: &str, status: &PodStatus) -> Value {
    let mut value = serde_json::to_value(status).unwrap_or_default();
    if let Some(fields) = value.as_object_mut() {
        for name in ["reason", "message", "podIP", "podIPs"] {
            fields.entry(name).or_insert(Value::Null);
        }
        if let Some(ips) = fields.get_mut("podIPs").and_then(Value::as_array_mut) {
            ips.insert(0, json!({ "$patch": "replace" }));
        }
        for condition in fields.get_mut("conditions").and_then(Value::as_array_mut).into_iter().flatten() {
            for name in ["reason", "message"] {
                if let Some(condition) = condition.as_object_mut() {
                    condition.entry(name).or_insert(Value::Null);
                }
            }
        }
    }
    json!({ "metadata": { "uid": uid }, "status": value })
}
