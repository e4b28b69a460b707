//! No one changes the served objects any more, while a thousand nodes and other controllers keep writing as usual: that costs nothing.

use std::time::{Duration, Instant};

use anyhow::ensure;
use fairway_e2e::scene::{Release, Scene};
use futures::stream::{self, StreamExt, TryStreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Event};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::process::processes;
use super::{WRITERS, patch};

/// Nodes, each of which renews its Lease once per [`HEARTBEAT`].
const NODES: usize = 1_000;
const HEARTBEAT: Duration = Duration::from_secs(10);
/// One in this many writes concerns an object that Fairway watches.
const NOISE: usize = 10;
/// A controller that uses at most a hundredth of this time, and writes no Event meanwhile, has nothing left to do.
const QUIET: Duration = Duration::from_secs(2);
/// How long it may be busy after the last change: a thousand Events about changes can wait, of which it writes ten a second.
const CATCHING_UP: Duration = Duration::from_secs(180);
/// How often each node renews its Lease.
const HEARTBEATS: usize = 3;

/// What is served doesn't change, but the objects around it are written all the time. There is an EndpointSlice `slice-0`, and Ingresses
/// like `ingress`.
pub(super) async fn rest(scene: &Scene, fairway: &Release<'_>, ingress: Value) -> anyhow::Result<()> {
    let noise = Noise::new(scene, ingress).await?;
    let cpu = || {
        let of_controllers = processes(scene)?.into_iter().filter(|(role, _)| role == "controller");
        of_controllers.map(|(_, process)| Ok(process.cpu()?)).sum::<anyhow::Result<Duration>>()
    };
    // The first write to each noise object costs something; after that, the noise causes no work.
    for number in 0..NOISE * Noise::KINDS {
        noise.write(number).await?;
    }
    let events = scene.api::<Event>();
    let written = async || {
        let page = events.list(&ListParams::default().limit(1)).await?;
        anyhow::Ok(page.items.len() as i64 + page.metadata.remaining_item_count.unwrap_or_default())
    };
    let begin = Instant::now();
    loop {
        let (events_before, cpu_before) = (written().await?, cpu()?);
        sleep(QUIET).await;
        if written().await? == events_before && cpu()? - cpu_before <= QUIET / 100 {
            break;
        }
        ensure!(begin.elapsed() < CATCHING_UP, "the controller is still busy {CATCHING_UP:?} after the last change");
    }
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
    // The goal is 0.5 %; work for each write would cost a hundred times as much.
    ensure!(share < 50.0, "the controller works: {share:.1} % of a core");
    Ok(())
}

/// The writes in a large cluster in which no one changes anything.
struct Noise {
    leases: Api<Lease>,
    slices: Api<EndpointSlice>,
    maps: Api<ConfigMap>,
    foreign: Api<Ingress>,
}

impl Noise {
    /// Kinds of writes that reach the controller.
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

    /// Writes mostly a node's Lease; now and then endpoints' time stamp, an election record or the status of an Ingress of another class,
    /// which reach the controller.
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
