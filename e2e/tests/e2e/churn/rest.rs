//! Nobody changes anything any more, and a thousand nodes and the controllers of others go on as they always do: that costs nothing.

use std::time::{Duration, Instant};

use anyhow::ensure;
use fairway_e2e::scene::{Release, Scene};
use futures::stream::{self, StreamExt, TryStreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::process::processes;
use super::{WRITERS, patch};

/// Nodes, each of which renews its Lease once in [`HEARTBEAT`].
const NODES: usize = 1_000;
const HEARTBEAT: Duration = Duration::from_secs(10);
/// One of so many writes is about an object that Fairway watches.
const NOISE: usize = 10;
/// A controller that uses at most a hundredth of this time has nothing left to do.
const QUIET: Duration = Duration::from_secs(2);
/// How often each node renews its Lease.
const HEARTBEATS: usize = 3;

/// Nobody changes what is served, but the objects around it are written all the time. There is an EndpointSlice `slice-0`, and Ingresses
/// like `ingress`.
pub(super) async fn rest(scene: &Scene, fairway: &Release<'_>, ingress: Value) -> anyhow::Result<()> {
    let noise = Noise::new(scene, ingress).await?;
    let cpu = || {
        let of_controllers = processes(scene)?.into_iter().filter(|(role, _)| role == "controller");
        of_controllers.map(|(_, process)| Ok(process.cpu()?)).sum::<anyhow::Result<Duration>>()
    };
    // What the objects of the noise themselves bring is over when all of them were written once.
    for number in 0..NOISE * Noise::KINDS {
        noise.write(number).await?;
    }
    // What was changed before is still being said in Events.
    scene
        .until("a controller that has caught up", async || {
            let before = cpu()?;
            sleep(QUIET).await;
            Ok(cpu()? - before <= QUIET / 100)
        })
        .await?;
    let rounds = async || fairway.metric("fairway_channel_rounds_total").await;
    let (rounds_before, cpu_before, begin) = (rounds().await?, cpu()?, Instant::now());
    let mut ticks = interval(HEARTBEAT / u32::try_from(NODES)?);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for number in 0..NODES * HEARTBEATS {
        ticks.tick().await;
        noise.write(number).await?;
    }
    let (took, used) = (begin.elapsed(), cpu()?.saturating_sub(cpu_before));
    let (written, share) = (NODES * HEARTBEATS, 100.0 * used.as_secs_f64() / took.as_secs_f64());
    let published = rounds().await? - rounds_before;
    println!(
        "{written} writes without a meaning in {took:.1?}: {published} changes, controller {share:.2} % of a core"
    );
    ensure!(published == 0.0, "{published} changes for nothing");
    // The goal is 0.5 %; a hundred times as much would be work for each write.
    ensure!(share < 50.0, "the controller works: {share:.1} % of a core");
    Ok(())
}

/// What is written in a large cluster while nobody changes anything.
struct Noise {
    leases: Api<Lease>,
    slices: Api<EndpointSlice>,
    maps: Api<ConfigMap>,
    foreign: Api<Ingress>,
}

impl Noise {
    /// Kinds of writes that the controller sees.
    const KINDS: usize = 3;

    async fn new(scene: &Scene, ingress: Value) -> anyhow::Result<Self> {
        let noise = Self { leases: scene.api(), slices: scene.api(), maps: scene.api(), foreign: scene.api() };
        let (leases, post) = (&noise.leases, &PostParams::default());
        stream::iter(0..NODES)
            .map(|number| async move {
                let lease = json!({"metadata": {"name": format!("node-{number}")}, "spec": {"holderIdentity": "node"}});
                leases.create(post, &serde_json::from_value(lease)?).await?;
                anyhow::Ok(())
            })
            .buffer_unordered(WRITERS)
            .try_collect::<()>()
            .await?;
        noise.maps.create(post, &serde_json::from_value(json!({"metadata": {"name": "election"}}))?).await?;
        let mut foreign = ingress;
        foreign["metadata"]["name"] = json!("foreign");
        foreign["spec"]["ingressClassName"] = json!("other");
        noise.foreign.create(post, &serde_json::from_value(foreign)?).await?;
        Ok(noise)
    }

    /// Mostly the Lease of a node; now and then the time stamp of endpoints, the record of an election or the status of an Ingress of another
    /// class, which reach the controller.
    async fn write(&self, number: usize) -> anyhow::Result<()> {
        let annotations =
            |key: &str| json!({"metadata": {"annotations": {key: format!("2026-01-01T00:00:00.{number:09}Z")}}});
        match (number % NOISE, number / NOISE % Self::KINDS) {
            (0, 0) => {
                patch(&self.slices, "slice-0", annotations("endpoints.kubernetes.io/last-change-trigger-time")).await
            }
            (0, 1) => patch(&self.maps, "election", annotations("control-plane.alpha.kubernetes.io/leader")).await,
            (0, _) => {
                let address = json!({"ip": format!("192.0.2.{}", number % 256)});
                let status = json!({"status": {"loadBalancer": {"ingress": [address]}}});
                self.foreign.patch_status("foreign", &PatchParams::default(), &Patch::Merge(status)).await?;
                Ok(())
            }
            _ => {
                let renewed =
                    json!({"spec": {"renewTime": format!("2026-01-01T00:00:{:02}.000000Z", number / NODES % 60)}});
                patch(&self.leases, &format!("node-{}", number % NODES), renewed).await
            }
        }
    }
}
