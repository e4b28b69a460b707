//! The replicas of this controller, as seen by the API server, and the addresses of their nodes.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{GetParams, ListParams};
use serde::Deserialize;

use crate::address::{self, Addresses};
use crate::api::{ApiServer, CallError, collection};
use crate::config;

/// The label of a node that names its zone.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// Labels that differ between two rollouts of the same Deployment, DaemonSet or StatefulSet.
const ROLLOUT_LABELS: [&str; 4] =
    ["controller-revision-hash", "pod-template-generation", "pod-template-hash", "statefulset.kubernetes.io/pod-name"];

#[derive(Deserialize)]
struct Pods {
    #[serde(default)]
    items: Vec<Pod>,
}

/// The addresses of the nodes that run our ready pods, or those with the labels of `serving`.
pub(crate) async fn addresses(
    api: &ApiServer,
    pod: &config::Pod,
    serving: Option<String>,
    internal: bool,
) -> Result<Addresses, CallError> {
    let all = match serving {
        None => {
            let (own, mut all) = replicas(api, pod).await?;
            all.push(own);
            all
        }
        Some(labels) => {
            let params = ListParams { label_selector: Some(labels), ..ListParams::default() };
            api.call::<Pods>(collection("v1", "pods", Some(&pod.namespace)).list(&params)).await?.items
        }
    };
    let ready = all.iter().filter(|pod| address::is_ready(pod));
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

/// The zone of the node that our pod runs on.
///
/// # Errors
/// If the pod is unknown, it or its node can't be read, or the node has no zone.
pub async fn own_zone(client: kube::Client, pod: Option<&config::Pod>) -> Result<String, NoZone> {
    let api = ApiServer::new(client);
    let zone = match pod {
        None => Ok(None),
        Some(pod) => read_zone(&api, pod).await.map_err(|source| NoZone { source: Some(Box::new(source)) }),
    };
    zone?.ok_or(NoZone { source: None })
}

async fn read_zone(api: &ApiServer, pod: &config::Pod) -> Result<Option<String>, CallError> {
    let pods = collection("v1", "pods", Some(&pod.namespace));
    let own: Pod = api.call(pods.get(&pod.name, &GetParams::default())).await?;
    let Some(name) = own.spec.and_then(|spec| spec.node_name) else { return Ok(None) };
    let node: Node = api.call(collection("v1", "nodes", None).get(&name, &GetParams::default())).await?;
    Ok(node.metadata.labels.and_then(|mut labels| labels.remove(ZONE_LABEL)))
}

/// The zone of our own node is not known: its label can't be read, or there is none.
#[derive(Debug, thiserror::Error)]
#[error("finding the label {ZONE_LABEL} of the node that POD_NAME in POD_NAMESPACE runs on")]
pub struct NoZone {
    #[source]
    source: Option<Box<CallError>>,
}

/// Our own pod, and all others with its labels.
pub(crate) async fn replicas(api: &ApiServer, pod: &config::Pod) -> Result<(Pod, Vec<Pod>), CallError> {
    let pods = collection("v1", "pods", Some(&pod.namespace));
    let own: Pod = api.call(pods.get(&pod.name, &GetParams::default())).await?;
    let labels = own.metadata.labels.clone().unwrap_or_default();
    let labels = labels.iter().filter(|(key, _)| !ROLLOUT_LABELS.contains(&key.as_str()));
    let selector: Vec<_> = labels.map(|(key, value)| format!("{key}={value}")).collect();
    if selector.is_empty() {
        // Without labels, a replica can't be distinguished from other pods.
        return Ok((own, Vec::new()));
    }
    let params = ListParams { label_selector: Some(selector.join(",")), ..ListParams::default() };
    let mut others = api.call::<Pods>(pods.list(&params)).await?.items;
    others.retain(|other| other.metadata.name.as_deref() != Some(&pod.name));
    Ok((own, others))
}
