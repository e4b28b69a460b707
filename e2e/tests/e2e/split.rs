//! Fairway as pods of controllers, with the token, and pods of proxies, without.

use anyhow::{Context, ensure};
use fairway_e2e::procfs::Process;
use fairway_e2e::scene::{self, Release, Scene};
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::rollout::{TWO, restart, scale, serve_as, unharmed};

/// The nodes of the tests have no DNS: proxies find the Service of controllers by its address.
pub(super) const SPLIT: [&str; 3] = [TWO, "controller.mode=split", "controller.control.clusterIP=10.96.0.42"];

fn control(fairway: &Release<'_>) -> String {
    format!("{}-control", fairway.class())
}

/// The pods of controllers.
async fn controllers(scene: &Scene) -> anyhow::Result<Vec<Pod>> {
    let labels = format!("app.kubernetes.io/instance={},app.kubernetes.io/component=control", scene.namespace());
    Ok(scene.api::<Pod>().list(&ListParams::default().labels(&labels)).await?.items)
}

fn name(pod: &Pod) -> anyhow::Result<&str> {
    pod.metadata.name.as_deref().context("a pod without a name")
}

/// The only process of a pod.
fn process(scene: &Scene, pod: &Pod) -> anyhow::Result<Process> {
    scene.processes(name(pod)?)?.first().copied().with_context(|| format!("no process of {:?}", pod.metadata.name))
}

/// Creates a host, and waits until each proxy serves it.
async fn lives(scene: &Scene, fairway: &Release<'_>, host: &str) -> anyhow::Result<()> {
    fairway.ingress(&host.replace('.', "-"), host, "web").await?;
    for pod in fairway.pods().await? {
        let address: std::net::IpAddr = pod.status.and_then(|status| status.pod_ip).context("no address")?.parse()?;
        scene.served((address, 80).into(), host).await?;
    }
    Ok(())
}

#[test]
fn proxies_serve_whichever_controllers_there_are_and_have_no_token_for_the_api_server() -> anyhow::Result<()> {
    scene::run("split", async |scene| {
        let (fairway, address) = serve_as(scene, 2, &SPLIT).await?;
        lives(scene, &fairway, "first.example").await?;
        for pod in fairway.pods().await? {
            let proxy = process(scene, &pod)?;
            let token = |path: &str| proxy.path(&format!("root/var/run/secrets/{path}/token")).exists();
            ensure!(!token("kubernetes.io/serviceaccount") && token("fairway.dev/control"), "other tokens");
            let files = std::fs::read_dir(proxy.path("fd"))?.flatten();
            let files = files.filter_map(|entry| std::fs::read_link(entry.path()).ok());
            let open: Vec<_> = files.filter(|path| path.starts_with("/var/run/secrets")).collect();
            ensure!(open.is_empty(), "{open:?} is open");
            ensure!(proxy.field("Seccomp")? == "2" && proxy.field("CapEff")? == "0000000000000000", "not confined");
        }

        unharmed(scene, "the controllers are killed", address, async || {
            for pod in controllers(scene).await? {
                kill(Pid::from_raw(process(scene, &pod)?.id()), Signal::SIGKILL)?;
            }
            // The new pods must find out the current state.
            scale(scene, 4).await?;
            lives(scene, &fairway, "second.example").await
        })
        .await?;

        // The authority may have been copied: after it is replaced, nothing that the old one signed counts.
        let patch = r#"{"data": {"authorities": ""}}"#;
        let secret = format!("secret/{}", control(&fairway));
        scene.kubectl(&["patch", &secret, "--type=merge", "--patch", patch]).await?;
        unharmed(scene, "a new authority for all", address, async || {
            restart(scene, &control(&fairway)).await?;
            restart(scene, &fairway.controller()).await?;
            fairway.ready(2).await?;
            lives(scene, &fairway, "third.example").await
        })
        .await?;
        unharmed(scene, "an update from pods of their own to one of both", address, async || {
            fairway.upgrade(&[TWO, "controller.mode=pair"]).await?;
            fairway.ready(2).await
        })
        .await
    })
}
