//! The conditions for a cluster to be ready, and waiting for them.
//!
//! Each wait lasts until its condition holds: the supervisor enforces the time limit, and ends the wait if a component
//! dies.

use std::io;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use hyper::http::Request;
use k8s_openapi::api::core::v1::{Node, ServiceAccount};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::{ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::cluster::network::NODES;

/// The interval between two checks. A check costs the API server next to nothing.
const INTERVAL: Duration = Duration::from_millis(50);

/// A client for the kubeconfig at `path`. It connects from the network of the thread that uses it.
pub(crate) async fn client(path: &Path) -> anyhow::Result<Client> {
    let kubeconfig = Kubeconfig::read_from(path).with_context(|| format!("reading {}", path.display()))?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .with_context(|| format!("using {}", path.display()))?;
    Client::try_from(config).context("making a Kubernetes client")
}

/// Waits until kube-apiserver is ready, which requires the standard roles to exist.
pub(crate) async fn api_server(client: &Client) {
    let request = || Request::get("/readyz").body(Vec::new());
    eventually(async || match request() {
        Ok(request) => client.request_text(request).await.is_ok(),
        Err(_) => false,
    })
    .await;
}

/// Grants our kubelets what the Node authorizer does not: the real one reads less, and watches single objects.
pub(crate) async fn rights(client: &Client) -> anyhow::Result<()> {
    let name = "fairway-cluster:kubelet";
    let rule = |group: &str, resources: &[&str], verbs: &[&str]| json!({"apiGroups": [group], "resources": resources, "verbs": verbs});
    let role: ClusterRole = serde_json::from_value(json!({
        "metadata": {"name": name},
        "rules": [
            rule("", &["pods", "nodes", "services", "secrets", "configmaps", "serviceaccounts", "namespaces"], &["get", "list", "watch"]),
            rule("", &["pods"], &["delete"]),
            rule("", &["nodes"], &["create", "update", "patch"]),
            rule("", &["pods/status", "nodes/status"], &["get", "update", "patch"]),
            rule("", &["serviceaccounts/token"], &["create"]),
            rule("", &["events"], &["create", "update", "patch"]),
            rule("events.k8s.io", &["events"], &["create", "update", "patch"]),
            rule("coordination.k8s.io", &["leases"], &["get", "create", "update", "patch"]),
        ],
    }))?;
    let binding: ClusterRoleBinding = serde_json::from_value(json!({
        "metadata": {"name": name},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "system:nodes"}],
    }))?;
    let parameters = PatchParams::apply("fairway-cluster").force();
    Api::<ClusterRole>::all(client.clone()).patch(name, &parameters, &Patch::Apply(role)).await?;
    Api::<ClusterRoleBinding>::all(client.clone()).patch(name, &parameters, &Patch::Apply(binding)).await?;
    Ok(())
}

/// Waits until every Node is ready.
pub(crate) async fn nodes(client: &Client) {
    let nodes: Api<Node> = Api::all(client.clone());
    eventually(async || {
        let list = nodes.list(&ListParams::default()).await;
        list.is_ok_and(|list| NODES.iter().all(|node| list.iter().any(|it| named(it, node.name) && is_ready(it))))
    })
    .await;
}

/// Waits until every kube-proxy has programmed its Node once.
pub(crate) async fn proxies() {
    for node in NODES {
        eventually(async || healthy(node.address.into()).await.unwrap_or(false)).await;
    }
}

/// Waits for the account of pods in the default namespace, without which none is admitted.
pub(crate) async fn accounts(client: &Client) {
    let accounts: Api<ServiceAccount> = Api::default_namespaced(client.clone());
    eventually(async || accounts.get("default").await.is_ok()).await;
}

/// Whether the Node's condition Ready is true.
pub(crate) fn is_ready(node: &Node) -> bool {
    let conditions = node.status.iter().flat_map(|status| status.conditions.iter().flatten());
    conditions.into_iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

fn named(node: &Node, name: &str) -> bool {
    node.metadata.name.as_deref() == Some(name)
}

/// Whether the kube-proxy of the Node at `address` reports that it is up to date.
async fn healthy(address: std::net::IpAddr) -> io::Result<bool> {
    let mut stream = TcpStream::connect((address, 10256)).await?;
    stream.write_all(b"GET /healthz HTTP/1.0\r\n\r\n").await?;
    let mut answer = Vec::new();
    stream.take(1024).read_to_end(&mut answer).await?;
    Ok(answer.starts_with(b"HTTP/1.0 200"))
}

async fn eventually(holds: impl AsyncFn() -> bool) {
    while !holds().await {
        tokio::time::sleep(INTERVAL).await;
    }
}
