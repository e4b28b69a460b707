//! How soon each of many changes is live, how many other requests fail meanwhile, and what the changes cost.
//!
//! These are measurements, so nothing else runs beside them: each has its own cluster, and `cargo xtask e2e` runs them alone, in the small
//! size that the heads of their files give; these also name the environment variable that makes them large.

mod backend;
mod delay;
mod ingresses;
mod process;
mod proxy;
mod rest;
mod routes;

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use fairway_e2e::load::Load;
use fairway_e2e::scene::Scene;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::Value;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

use self::delay::histogram;
use self::process::{Resident, resident};

/// The interval between memory samples.
const SAMPLE: Duration = Duration::from_secs(5);
/// Number of objects created at a time.
const WRITERS: usize = 16;

/// The cost of the changes.
struct Churned {
    /// How long each took to become live after the API server's response.
    delays: Vec<Duration>,
    /// Every [`SAMPLE`].
    memory: Vec<Resident>,
}

/// Makes changes, each at its time, while a bystander requests another host; prints the results.
///
/// # Errors
/// If one of the bystander's requests or a change fails.
async fn churn<F>(
    scene: &Scene,
    bystander: Load,
    (count, pace): (usize, Duration),
    change: impl Fn(usize) -> F + Send + 'static,
) -> anyhow::Result<Churned>
where
    F: Future<Output = anyhow::Result<Duration>> + Send + 'static,
{
    let load = bystander.start();
    let changes = tokio::spawn(all(count, pace, change));
    let mut memory = Vec::new();
    while !changes.is_finished() {
        memory.push(resident(scene)?);
        sleep(SAMPLE).await;
    }
    let delays = changes.await??;
    let account = load.stop().await;
    println!("{}", histogram(&delays));
    println!("memory every {SAMPLE:?}, MB: {memory:.1?}; bystander: {account}");
    ensure!(account.failed == 0, "unrelated requests failed: {account}");
    Ok(Churned { delays, memory })
}

async fn all<F>(count: usize, pace: Duration, change: impl Fn(usize) -> F) -> anyhow::Result<Vec<Duration>>
where
    F: Future<Output = anyhow::Result<Duration>> + Send + 'static,
{
    let mut ticks = interval(pace);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let begin = Instant::now();
    let mut changes = JoinSet::new();
    for number in 0..count {
        ticks.tick().await;
        changes.spawn(change(number));
    }
    println!("{count} changes in {:.1?}", begin.elapsed());
    let mut delays = Vec::with_capacity(count);
    while let Some(delay) = changes.join_next().await {
        delays.push(delay??);
    }
    Ok(delays)
}

async fn patch<K>(api: &Api<K>, name: &str, change: Value) -> anyhow::Result<()>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    api.patch(name, &PatchParams::default(), &Patch::Merge(change))
        .await
        .with_context(|| format!("changing {name}"))?;
    Ok(())
}
