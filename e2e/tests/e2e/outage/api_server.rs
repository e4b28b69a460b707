//! The API servers of the test: the cluster's own, which comes and goes, and a second one that stays.

use std::process::{Child, Stdio};

use anyhow::{Context, ensure};
use fairway_e2e::cluster::Cluster;
use fairway_e2e::cluster::layout::{self, Layout};
use fairway_e2e::procfs;
use fairway_e2e::scene::Scene;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use serde_json::json;

/// The cluster's own.
pub(super) const API_SERVER: &str = "kube-apiserver";

/// The port of the other API server.
const OTHER_PORT: u16 = 6444;

/// Another API server over the same etcd.
pub(super) struct Other {
    process: Child,
    pub(super) client: Client,
}

impl Other {
    pub(super) async fn start(scene: &Scene) -> anyhow::Result<Self> {
        let layout = scene.cluster().layout();
        let own = format!("--secure-port={OTHER_PORT}");
        let arguments = arguments(layout)?.into_iter().filter(|argument| !argument.starts_with("--audit-"));
        let arguments =
            arguments.map(|argument| if argument.starts_with("--secure-port=") { own.clone() } else { argument });
        let log = std::fs::File::create(layout.log("kube-apiserver-other"))?;
        let mut command = scene.cluster().command(&layout::tools().join(API_SERVER).to_string_lossy());
        // The addresses of the Service `kubernetes` are the first one's.
        command.args(arguments).arg("--endpoint-reconciler-type=none").stdout(log.try_clone()?).stderr(log);
        let process = command.stdin(Stdio::null()).spawn().context("starting another API server")?;

        let kubeconfig = Kubeconfig::read_from(layout.kubeconfig())?;
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        let host = config.cluster_url.host().context("the address of the API server")?.to_owned();
        config.cluster_url = format!("https://{host}:{OTHER_PORT}").parse()?;
        let other = Self { process, client: Client::try_from(config)? };
        let namespaces: Api<Ingress> = Api::namespaced(other.client.clone(), scene.namespace());
        scene
            .until("another API server", async || {
                namespaces.list(&ListParams::default()).await?;
                Ok(true)
            })
            .await?;
        Ok(other)
    }

    /// Makes etcd forget everything before now.
    pub(super) async fn compact(&self, cluster: &Cluster) -> anyhow::Result<()> {
        let pods: Api<Pod> = Api::default_namespaced(self.client.clone());
        let revision = pods.list(&ListParams::default()).await?.metadata.resource_version.context("no version")?;
        let mut curl = cluster.command("curl");
        let body = format!("{{\"revision\": \"{revision}\", \"physical\": true}}");
        curl.args(["--silent", "--show-error", "--fail", "--data", &body]);
        let output = curl.arg("http://127.0.0.1:2379/v3/kv/compaction").output().context("starting curl")?;
        ensure!(output.status.success(), "compaction: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // It may have ended by itself; no part of it may be left when the cluster ends.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The command line of the cluster's API server.
fn arguments(layout: &Layout) -> anyhow::Result<Vec<String>> {
    let log = format!("--audit-log-path={}", layout.audit_log().display());
    let mut processes = procfs::all()?.filter_map(|process| process.words().ok());
    let own = processes.find(|words| words.contains(&log) && words[0].ends_with(API_SERVER));
    Ok(own.with_context(|| format!("no kube-apiserver with {log}"))?.split_off(1))
}

/// Makes the API server refuse Fairway's requests, or accept them again.
pub(super) async fn refuse(scene: &Scene, client: &Client, on: bool) -> anyhow::Result<()> {
    let schemas: Api<FlowSchema> = Api::all(client.clone());
    if !on {
        schemas.delete("refuse", &DeleteParams::default()).await?;
        return Ok(());
    }
    let level = json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
        "kind": "PriorityLevelConfiguration",
        "metadata": {"name": "refuse"},
        "spec": {"type": "Limited", "limited": {
            "nominalConcurrencyShares": 0, "lendablePercent": 0, "borrowingLimitPercent": 0, "limitResponse": {"type": "Reject"},
        }},
    });
    let schema = json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
        "kind": "FlowSchema",
        "metadata": {"name": "refuse"},
        "spec": {"priorityLevelConfiguration": {"name": "refuse"}, "matchingPrecedence": 2, "rules": [{
            "subjects": [{"kind": "Group", "group": {"name": format!("system:serviceaccounts:{}", scene.namespace())}}],
            "resourceRules": [{
                "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true,
            }],
        }]},
    });
    let parameters = PatchParams::apply("outage").force();
    let levels: Api<PriorityLevelConfiguration> = Api::all(client.clone());
    levels.patch("refuse", &parameters, &Patch::Apply(&level)).await?;
    schemas.patch("refuse", &parameters, &Patch::Apply(&schema)).await?;
    Ok(())
}

/// Waits until the API server reports that it is ready.
pub(super) async fn ready(scene: &Scene) -> anyhow::Result<()> {
    scene
        .until("the API server is ready", async || {
            let request = hyper::http::Request::get("/readyz").body(Vec::new())?;
            Ok(scene.client().request_text(request).await? == "ok")
        })
        .await
}
