//! The services that pods may expect of their Nodes: the process kubelet behaves like a kubelet with a container
//! runtime.

mod container;
mod life;
mod node;

use anyhow::Context as _;
use fairway_e2e::scene::Scene;
use k8s_openapi::api::core::v1::{Event, Pod, ServiceAccount};
use kube::api::ListParams;
use serde_json::Value;

/// Applies objects as soon as the namespace can have pods.
async fn begin(scene: &Scene, manifest: &str) -> anyhow::Result<()> {
    let accounts = scene.api::<ServiceAccount>();
    scene.until("the default account", async || Ok(accounts.get_opt("default").await?.is_some())).await?;
    scene.apply(manifest).await
}

async fn get(scene: &Scene, name: &str) -> anyhow::Result<Pod> {
    Ok(scene.api().get(name).await?)
}

/// A field of a pod, by its JSON pointer; null where there is none.
fn value(pod: &Pod, pointer: &str) -> Value {
    serde_json::to_value(pod).ok().and_then(|pod| pod.pointer(pointer).cloned()).unwrap_or_default()
}

fn text(pod: &Pod, pointer: &str) -> String {
    value(pod, pointer).as_str().unwrap_or_default().to_owned()
}

/// Waits until all containers of a pod run.
async fn running(scene: &Scene, name: &str) -> anyhow::Result<()> {
    scene
        .until(&format!("{name} runs"), async || {
            let statuses = value(&get(scene, name).await?, "/status/containerStatuses");
            let statuses = statuses.as_array().cloned().unwrap_or_default();
            Ok(!statuses.is_empty() && statuses.iter().all(|status| !status["state"]["running"].is_null()))
        })
        .await
}

async fn phase(scene: &Scene, name: &str, phase: &str) -> anyhow::Result<()> {
    let reached = async || Ok(text(&get(scene, name).await?, "/status/phase") == phase);
    scene.until(&format!("{name} is {phase}"), reached).await
}

/// Waits for an Event about a pod.
async fn event(scene: &Scene, pod: &str, reason: &str, message: &str) -> anyhow::Result<()> {
    let events = scene.api::<Event>();
    let about = ListParams::default().fields(&format!("involvedObject.name={pod},reason={reason}"));
    scene
        .until(&format!("an Event {reason} about {pod}: {message}"), async || {
            let found = events.list(&about).await?.items;
            Ok(found.iter().any(|event| event.message.as_deref().unwrap_or_default().contains(message)))
        })
        .await
}

/// Runs a script in a container, and returns its output.
async fn shell(scene: &Scene, pod: &str, container: &str, script: &str) -> anyhow::Result<String> {
    let node = text(&get(scene, pod).await?, "/spec/nodeName");
    let escape = |byte: &u8| format!("%{byte:02x}");
    let script: String = script.as_bytes().iter().map(escape).collect();
    let namespace = scene.namespace();
    let path = format!("/api/v1/nodes/{node}/proxy/run/{namespace}/{pod}/{container}?cmd=sh&cmd=-c&cmd={script}");
    let request = hyper::Request::post(path).body(Vec::new())?;
    scene.client().request_text(request).await.with_context(|| format!("a script in {pod}"))
}
