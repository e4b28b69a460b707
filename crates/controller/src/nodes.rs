//! The replicas of this controller, as the API server sees them: their nodes' addresses, and whether there are others.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{GetParams, ListParams};
use serde::Deserialize;

use crate::address::{self, Addresses};
use crate::api::{ApiServer, CallError, collection};
use crate::config;

/// Labels that differ between two rollouts of the same Deployment, DaemonSet or StatefulSet.
const ROLLOUT_LABELS: [&str; 4] =
    ["controller-revision-hash", "pod-template-generation", "pod-template-hash", "statefulset.kubernetes.io/pod-name"];

#[derive(Deserialize)]
struct Pods {
    #[serde(default)]
    items: Vec<Pod>,
}

/// The addresses of the nodes on which ready pods of ours run.
pub(crate) async fn addresses(api: &ApiServer, pod: &config::Pod, internal: bool) -> Result<Addresses, CallError> {
    let pods = replicas(api, pod).await?;
    let ready = pods.iter().filter(|pod| address::is_ready(pod));
    let nodes: BTreeSet<&str> = ready.filter_map(|pod| pod.spec.as_ref()?.node_name.as_deref()).collect();
    let mut addresses = Addresses::new();
    for name in nodes {
        match api.call::<Node>(collection("v1", "nodes", None).get(name, &GetParams::default())).await {
            Ok(node) => addresses.extend(address::of_node(&node, internal)),
            Err(error) if error.code() == Some(404) => (),
            Err(error) => return Err(error),
        }
    }
    Ok(addresses)
}

/// Whether no other replica runs that could go on.
pub(crate) async fn is_last(api: &ApiServer, pod: &config::Pod) -> Result<bool, CallError> {
    let goes_on = |other: &Pod| {
        let phase = other.status.as_ref().and_then(|status| status.phase.as_deref());
        other.metadata.name.as_deref() != Some(&pod.name)
            && other.metadata.deletion_timestamp.is_none()
            && phase == Some("Running")
    };
    Ok(!replicas(api, pod).await?.iter().any(goes_on))
}

/// All pods with the labels of ours.
async fn replicas(api: &ApiServer, pod: &config::Pod) -> Result<Vec<Pod>, CallError> {
    let pods = collection("v1", "pods", Some(&pod.namespace));
    let own: Pod = api.call(pods.get(&pod.name, &GetParams::default())).await?;
    let labels = own.metadata.labels.clone().unwrap_or_default();
    let labels = labels.iter().filter(|(key, _)| !ROLLOUT_LABELS.contains(&key.as_str()));
    let selector: Vec<_> = labels.map(|(key, value)| format!("{key}={value}")).collect();
    if selector.is_empty() {
        // Without labels nothing tells a replica from any other pod.
        return Ok(vec![own]);
    }
    let params = ListParams { label_selector: Some(selector.join(",")), ..ListParams::default() };
    Ok(api.call::<Pods>(pods.list(&params)).await?.items)
}
