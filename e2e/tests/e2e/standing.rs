//! Whatever happens to the replicas, an Ingress with an address keeps it: external-dns deletes the records of a host as
//! soon as its status is empty. Only the end of the last replica, with none to follow, removes the address.

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, ensure};
use fairway_e2e::cluster::Options;
use fairway_e2e::scene::{self, Release, Scene};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::Ingress;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, WatchEvent, WatchParams};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use tokio::task::JoinHandle;

use crate::status::holder;

/// Settings of each of these releases, independent of its replicas: pods end soon, and a missing leader is soon replaced.
const SETTINGS: [&str; 3] = [
    "controller.electionTTL=15s",
    "controller.terminationGracePeriodSeconds=60",
    "controller.extraArgs.post-shutdown-grace-period=1",
];

#[test]
fn one_replica_never_leaves_a_status_empty_while_it_is_to_come_back() -> anyhow::Result<()> {
    scene::run_alone("standing-one", &Options::default(), async |scene| {
        let fairway = release(scene, &["controller.replicaCount=1"]).await?;
        stands(scene, &fairway, 1).await?;
        // The next pod is created only when this one is gone.
        let recreate = ["controller.replicaCount=1", "controller.updateStrategy.type=Recreate"];
        unchanged(scene, "upgrade to Recreate", upgrade(&fairway, &recreate)).await?;
        unchanged(scene, "one goes before the next one comes", restart(scene, &fairway, "deployment")).await?;
        cleared(scene, &fairway, async || scale(scene, &fairway, 0).await).await?;
        // And it comes back.
        scale(scene, &fairway, 1).await?;
        scene.until("the address is back", async || Ok(!addresses(scene).await?.is_empty())).await
    })
}

#[test]
fn two_replicas_never_leave_a_status_empty_while_one_is_to_come_back() -> anyhow::Result<()> {
    scene::run_alone("standing-two", &Options::default(), async |scene| {
        let fairway = release(scene, &["controller.replicaCount=2"]).await?;
        stands(scene, &fairway, 2).await?;
        let all_at_once = async {
            scene.kubectl(&["delete", "pod", "--selector", &selector(&fairway), "--wait=false"]).await?;
            fairway.ready(2).await
        };
        unchanged(scene, "both pods are deleted together", all_at_once).await?;
        unchanged(scene, "one of two is given up", scale(scene, &fairway, 1)).await?;
        cleared(scene, &fairway, async || scale(scene, &fairway, 0).await).await
    })
}

#[test]
fn a_daemon_set_never_leaves_a_status_empty_while_it_stands() -> anyhow::Result<()> {
    scene::run("standing-daemon", async |scene| {
        // Each pod ends before the next one starts, and there is only one node here.
        let nodes = "controller.nodeSelector.kubernetes\\.io/hostname=node-a";
        let fairway = release(scene, &["controller.kind=DaemonSet", nodes]).await?;
        let updates = ["controller.kind=DaemonSet", nodes, "controller.updateStrategy.rollingUpdate.maxUnavailable=1"];
        unchanged(scene, "upgrade by the chart", upgrade(&fairway, &updates)).await?;
        unchanged(scene, "restart of the DaemonSet", restart(scene, &fairway, "daemonset")).await?;
        cleared(scene, &fairway, async || {
            let daemon_set = format!("daemonset/{}", fairway.controller());
            scene.kubectl(&["delete", &daemon_set, "--cascade=foreground", "--timeout=120s"]).await?;
            Ok(())
        })
        .await
    })
}

/// Events in the life of every installation, with `count` replicas.
async fn stands(scene: &Scene, fairway: &Release<'_>, count: usize) -> anyhow::Result<()> {
    unchanged(scene, "rollout", restart(scene, fairway, "deployment")).await?;
    let replicas = format!("controller.replicaCount={count}");
    unchanged(
        scene,
        "upgrade by the chart",
        upgrade(fairway, &[&replicas, "controller.resources.requests.memory=91Mi"]),
    )
    .await?;
    for node in ["node-a", "node-b"] {
        unchanged(scene, &format!("{node} is drained"), async {
            scene.kubectl(&["drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=120s"]).await?;
            fairway.ready(count).await?;
            scene.kubectl(&["uncordon", node]).await.map(drop)
        })
        .await?;
    }
    unchanged(scene, "the leader's pod is deleted", async {
        let leader = holder(scene).await?;
        scene.api::<Pod>().delete(&leader, &DeleteParams::default()).await?;
        fairway.ready(count).await?;
        scene.until("another one leads", async || Ok(holder(scene).await? != leader)).await
    })
    .await?;
    // A process ends but not its pod: as after a failed liveness probe, or when memory runs out.
    for (role, signal) in [("proxy", Signal::SIGTERM), ("proxy", Signal::SIGKILL), ("controller", Signal::SIGKILL)] {
        unchanged(scene, &format!("{signal} to the {role} of the leader's pod"), async {
            let leader = holder(scene).await?;
            let before = scene.process_of(&leader, role)?;
            kill(Pid::from_raw(before.id()), signal)?;
            scene.until("it runs again", async || Ok(scene.process_of(&leader, role)? != before)).await?;
            fairway.ready(count).await
        })
        .await?;
    }
    Ok(())
}

/// Fairway, and an Ingress that shows its address.
async fn release<'a>(scene: &'a Scene, values: &[&str]) -> anyhow::Result<Release<'a>> {
    let fairway = scene.fairway(&[&SETTINGS, values].concat()).await?;
    fairway.ingress("web", "web.example", "none").await?;
    scene.until("the address is shown", async || Ok(!addresses(scene).await?.is_empty())).await?;
    Ok(fairway)
}

async fn upgrade(fairway: &Release<'_>, values: &[&str]) -> anyhow::Result<()> {
    fairway.upgrade(&[&SETTINGS, values].concat()).await
}

async fn restart(scene: &Scene, fairway: &Release<'_>, kind: &str) -> anyhow::Result<()> {
    let workload = format!("{kind}/{}", fairway.controller());
    scene.kubectl(&["rollout", "restart", &workload]).await?;
    scene.kubectl(&["rollout", "status", &workload, "--timeout=120s"]).await?;
    // Earlier pods may still be ending.
    let wanted = if kind == "daemonset" { 1 } else { wanted(scene, fairway).await? };
    fairway.ready(wanted).await
}

async fn wanted(scene: &Scene, fairway: &Release<'_>) -> anyhow::Result<usize> {
    let deployment = format!("deployment/{}", fairway.controller());
    let text = scene.kubectl(&["get", &deployment, "--output", "jsonpath={.spec.replicas}"]).await?;
    text.trim().parse().with_context(|| format!("replicas: {text}"))
}

async fn scale(scene: &Scene, fairway: &Release<'_>, pods: usize) -> anyhow::Result<()> {
    let deployment = format!("deployment/{}", fairway.controller());
    scene.kubectl(&["scale", &deployment, &format!("--replicas={pods}")]).await?;
    fairway.ready(pods).await
}

/// Something happens, and all the time a watch sees an address in the status of the Ingress.
async fn unchanged(scene: &Scene, what: &str, change: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let watch = Watch::begin(scene).await?;
    let changed = change.await;
    let seen = watch.end(scene).await?;
    println!("{what}: {seen:?}");
    changed.context(what.to_owned())?;
    ensure!(seen.iter().all(|addresses| !addresses.is_empty()), "{what}: the status was empty: {seen:?}");
    Ok(())
}

/// The last pod ends, and the address is removed.
async fn cleared(
    scene: &Scene,
    fairway: &Release<'_>,
    end: impl AsyncFnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    ensure!(!fairway.pods().await?.is_empty() && !addresses(scene).await?.is_empty(), "nothing to be taken back");
    end().await?;
    scene.until("the address is taken back", async || Ok(addresses(scene).await?.is_empty())).await
}

/// The version of an Ingress and its addresses.
type Shown = (String, Vec<String>);

/// Everything that a watch shows of the Ingress's status.
struct Watch {
    seen: Arc<Mutex<Vec<Shown>>>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Watch {
    /// Starts from the current state.
    async fn begin(scene: &Scene) -> anyhow::Result<Self> {
        let ingresses: Api<Ingress> = scene.api();
        let list = ingresses.list(&ListParams::default()).await?;
        let version = list.metadata.resource_version.context("a list without a version")?;
        let seen: Arc<Mutex<Vec<_>>> = Arc::default();
        let task = tokio::spawn(Self::follow(ingresses, version, seen.clone()));
        Ok(Self { seen, task })
    }

    async fn follow(ingresses: Api<Ingress>, mut version: String, seen: Arc<Mutex<Vec<Shown>>>) -> anyhow::Result<()> {
        // Until it is stopped; the API server ends each watch after some minutes.
        loop {
            let mut events = ingresses.watch(&WatchParams::default(), &version).await?.boxed();
            while let Some(event) = events.next().await {
                match event? {
                    WatchEvent::Added(ingress) | WatchEvent::Modified(ingress) | WatchEvent::Deleted(ingress) => {
                        version = ingress.metadata.resource_version.clone().context("no version")?;
                        let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                        seen.push((version.clone(), shown(&ingress)));
                    }
                    WatchEvent::Bookmark(mark) => version = mark.metadata.resource_version,
                    WatchEvent::Error(status) => anyhow::bail!("the watch failed: {status:?}"),
                }
            }
        }
    }

    /// The statuses so far, up to a mark that is set now, so that none is still on its way.
    async fn end(self, scene: &Scene) -> anyhow::Result<Vec<Vec<String>>> {
        let mark = json!({"metadata": {"annotations": {"mark": Timestamp::now().to_string()}}});
        let ingresses = scene.api::<Ingress>();
        let marked = ingresses.patch("web", &PatchParams::default(), &Patch::Merge(&mark)).await?;
        let mark = marked.metadata.resource_version.context("no version")?;
        let reached = async || {
            ensure!(!self.task.is_finished(), "the watch has ended");
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            Ok(seen.iter().any(|(version, _)| *version == mark))
        };
        scene.until("the watch comes to the mark", reached).await?;
        self.task.abort();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(std::mem::take(&mut *seen).into_iter().map(|(_, addresses)| addresses).collect())
    }
}

async fn addresses(scene: &Scene) -> anyhow::Result<Vec<String>> {
    Ok(shown(&scene.api::<Ingress>().get("web").await?))
}

fn shown(ingress: &Ingress) -> Vec<String> {
    let balancer = ingress.status.as_ref().and_then(|status| status.load_balancer.as_ref());
    let entries = balancer.and_then(|balancer| balancer.ingress.as_ref()).into_iter().flatten();
    entries.filter_map(|entry| entry.ip.clone().or(entry.hostname.clone())).collect()
}

fn selector(fairway: &Release<'_>) -> String {
    format!("app.kubernetes.io/instance={},app.kubernetes.io/component=controller", fairway.class())
}
