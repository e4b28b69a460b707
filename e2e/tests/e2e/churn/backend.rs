//! Services whose endpoints only the test manages: each is one of a Deployment's pods, which answer with their names.

use fairway_e2e::scene::Scene;
use serde_json::{Value, json};

/// A pod that answers.
#[derive(Clone, Debug)]
pub(super) struct Pod {
    pub(super) name: String,
    address: String,
}

/// The pods of a Deployment.
pub(super) async fn pods(scene: &Scene, deployment: &str) -> anyhow::Result<Vec<Pod>> {
    let pods = scene.pods(deployment).await?.into_iter();
    Ok(pods.filter_map(|pod| Some(Pod { name: pod.metadata.name?, address: pod.status?.pod_ip? })).collect())
}

/// A Service without a selector.
pub(super) fn service(name: &str) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 3000}]},
    })
}

/// An EndpointSlice of a Service.
pub(super) fn slice(name: &str, service: &str, pod: &Pod) -> Value {
    let mut slice = endpoints(pod);
    slice["addressType"] = json!("IPv4");
    slice["metadata"] = json!({"name": name, "labels": {"kubernetes.io/service-name": service}});
    slice
}

/// The part of an EndpointSlice that depends on the pod.
pub(super) fn endpoints(pod: &Pod) -> Value {
    json!({
        "endpoints": [{"addresses": [pod.address], "conditions": {"ready": true}}],
        "ports": [{"name": "http", "port": 3000}],
    })
}
