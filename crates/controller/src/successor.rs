//! Whether a replica follows when this one ends: one that runs, one that is starting, or one that its workload will
//! create.
//!
//! Removing an address too early removes DNS records with it, while one that stays too long does no harm: the answer is
//! therefore no only if the API server has confirmed it for all of them. Without the right to read the workload, as with the
//! roles of ingress-nginx, its pods alone decide.

use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::GetParams;
use serde::Deserialize;
use tokio::time::sleep;
use tracing::warn;

use crate::api::{ApiServer, CallError, collection};
use crate::config;
use crate::nodes::replicas;

/// How often to check a workload whose controller has not observed its last change yet.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// The kinds of objects that create pods.
#[derive(Debug, Eq, PartialEq)]
struct Owner {
    plural: &'static str,
    name: String,
}

/// The field with the wanted number of pods, for any kind of workload.
#[derive(Deserialize)]
struct Workload {
    metadata: ObjectMeta,
    #[serde(default)]
    spec: Spec,
    #[serde(default)]
    status: WorkloadStatus,
}

#[derive(Default, Deserialize)]
struct Spec {
    replicas: Option<i32>,
}

/// The status of a DaemonSet.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct WorkloadStatus {
    observed_generation: i64,
    desired_number_scheduled: i32,
}

/// Whether no replica follows.
pub(crate) async fn is_last(api: &ApiServer, pod: &config::Pod) -> Result<bool, CallError> {
    let (own, others) = replicas(api, pod).await?;
    // Only the container ends, and it is restarted.
    if own.metadata.deletion_timestamp.is_none() {
        return Ok(false);
    }
    if let Some(owner) = owner(&own)
        && wants_pods(api, &pod.namespace, &owner).await?
    {
        return Ok(false);
    }
    let follows = |other: &Pod| {
        let phase = other.status.as_ref().and_then(|status| status.phase.as_deref());
        other.metadata.deletion_timestamp.is_none() && matches!(phase, Some("Running" | "Pending"))
    };
    Ok(!others.iter().any(follows))
}

/// The creator of a pod, if it creates replacements.
fn owner(pod: &Pod) -> Option<Owner> {
    let owner = pod.metadata.owner_references.iter().flatten().find(|owner| owner.controller == Some(true))?;
    let (plural, name) = match owner.kind.as_str() {
        "DaemonSet" => ("daemonsets", &*owner.name),
        "StatefulSet" => ("statefulsets", &*owner.name),
        // Its name is that of its Deployment and the hash of the pod template: no right to read it is needed.
        "ReplicaSet" => {
            let hash = pod.metadata.labels.as_ref()?.get("pod-template-hash")?;
            ("deployments", owner.name.strip_suffix(hash.as_str())?.strip_suffix('-')?)
        }
        _ => return None,
    };
    Some(Owner { plural, name: name.to_owned() })
}

/// Whether pods are wanted. Without the right to find out, as with the roles of ingress-nginx, the existing pods
/// decide.
async fn wants_pods(api: &ApiServer, namespace: &str, owner: &Owner) -> Result<bool, CallError> {
    let request = collection("apps/v1", owner.plural, Some(namespace));
    loop {
        let workload: Workload = match api.call(request.get(&owner.name, &GetParams::default())).await {
            Ok(workload) => workload,
            Err(error) if error.code() == Some(404) => return Ok(false),
            Err(error) if error.code() == Some(403) => {
                warn!(error = &error as &dyn std::error::Error, "no right to see whether another replica is to come");
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        let Workload { metadata, spec, status } = workload;
        if metadata.deletion_timestamp.is_some() {
            return Ok(false);
        }
        if owner.plural != "daemonsets" {
            // The API's default is one.
            return Ok(spec.replicas.unwrap_or(1) > 0);
        }
        if status.observed_generation >= metadata.generation.unwrap_or(0) {
            return Ok(status.desired_number_scheduled > 0);
        }
        // The shutdown as a whole has a time limit.
        sleep(LOOK_AGAIN).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn pod(kind: &str, name: &str) -> Pod {
        serde_json::from_value(json!({"metadata": {
            "labels": {"pod-template-hash": "7d9c"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": "u", "controller": true}],
        }}))
        .unwrap()
    }

    #[test]
    fn the_owner_of_a_pod_is_what_makes_others_in_its_place() {
        let name = |kind, name| owner(&pod(kind, name)).map(|owner| format!("{} {}", owner.plural, owner.name));
        assert_eq!(name("ReplicaSet", "front-door-7d9c").unwrap(), "deployments front-door");
        assert_eq!(name("DaemonSet", "front-door").unwrap(), "daemonsets front-door");
        assert_eq!(name("StatefulSet", "front-door").unwrap(), "statefulsets front-door");
        assert_eq!(name("ReplicaSet", "made-by-hand"), None);
        assert_eq!(name("Job", "once"), None);
        assert_eq!(owner(&Pod::default()), None);
    }
}
