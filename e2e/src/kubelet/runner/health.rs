//! Tasks beside a running container: its postStart hook and its probes.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Container;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::{Kill, Which};
use crate::kubelet::pod::PodWorker;
use crate::kubelet::probe::{self, ProbeAction, ProbeCounter};

/// Runs the hook first, then the probes; returns if a startup probe or the hook fails, or nothing is left to do.
pub(super) async fn hook_and_probes(
    pod: Arc<PodWorker>,
    which: Which,
    container: Container,
    kills: mpsc::Sender<Kill>,
    ending: watch::Receiver<bool>,
) {
    let post_start = container.lifecycle.as_ref().and_then(|lifecycle| lifecycle.post_start.as_ref());
    if let Some(hook) = post_start {
        let result = match ProbeAction::of_hook(hook, &container) {
            Ok(action) => act(&pod, &container.name, &action, None).await,
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            pod.event("Warning", "FailedPostStartHook", format!("PostStartHook failed: {error}"));
            let reason = format!("Container {} failed its postStart hook and will be restarted", container.name);
            let _ = kills.send(Kill { reason, grace: None }).await;
            return;
        }
    }
    let start = Instant::now();
    if container.startup_probe.is_some() {
        let mut ending = ending.clone();
        tokio::select! {
            passed = probe(&pod, which, &container, ProbeKind::Startup, start, &kills) => if !passed { return },
            _ = ending.wait_for(|ending| *ending) => return,
        }
    }
    let start = if container.startup_probe.is_some() { Instant::now() } else { start };
    let liveness = async {
        let mut ending = ending.clone();
        tokio::select! {
            _ = probe(&pod, which, &container, ProbeKind::Liveness, start, &kills) => {}
            _ = ending.wait_for(|ending| *ending) => {}
        }
    };
    let readiness = probe(&pod, which, &container, ProbeKind::Readiness, start, &kills);
    tokio::join!(liveness, readiness);
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum ProbeKind {
    Startup,
    Liveness,
    Readiness,
}

/// Probes until the container ends or, for a startup probe, has started. Returns false if the container must be ended.
async fn probe(
    pod: &Arc<PodWorker>,
    which: Which,
    container: &Container,
    kind: ProbeKind,
    start: Instant,
    kills: &mpsc::Sender<Kill>,
) -> bool {
    let (spec, word) = match kind {
        ProbeKind::Startup => (&container.startup_probe, "Startup"),
        ProbeKind::Liveness => (&container.liveness_probe, "Liveness"),
        ProbeKind::Readiness => (&container.readiness_probe, "Readiness"),
    };
    let Some(spec) = spec else { return true };
    let seconds = |value: Option<i32>, default: u64| {
        Duration::from_secs(value.and_then(|value| u64::try_from(value).ok()).unwrap_or(default))
    };
    let delay = seconds(spec.initial_delay_seconds, 0);
    let period = seconds(spec.period_seconds, 10).max(Duration::from_secs(1));
    let limit = seconds(spec.timeout_seconds, 1).max(Duration::from_secs(1));
    let action = ProbeAction::of_probe(spec, container);
    let mut tally = ProbeCounter::new(spec, kind == ProbeKind::Liveness);
    let mut reported = false;
    // The kubelet's first probe comes about a second after the start, when it has noticed it. Earlier successes count;
    // earlier failures don't.
    let early = [50, 100, 200, 400, 700].map(Duration::from_millis);
    let mut early = early.into_iter().filter(|_| delay.is_zero() && kind != ProbeKind::Liveness);
    let mut due = start + delay;
    loop {
        let uncounted = early.next();
        match uncounted {
            Some(offset) => sleep_until(start + offset).await,
            None => {
                if delay.is_zero() && due == start {
                    due = start + Duration::from_secs(1);
                }
                sleep_until(due).await;
                due += period;
                // A probe that takes longer than its period is not caught up on.
                due = due.max(Instant::now());
            }
        }
        let result = match &action {
            Ok(action) => act(pod, &container.name, action, Some(limit)).await,
            Err(error) => Err(error.clone()),
        };
        let good = result.is_ok();
        if !good && uncounted.is_some() {
            continue;
        }
        if uncounted.is_some() {
            early.by_ref().for_each(drop);
            due = Instant::now() + period;
        }
        if let Err(error) = result
            && !reported
        {
            pod.event("Warning", "Unhealthy", format!("{word} probe failed: {error}"));
        }
        reported = !good;
        if !tally.record(good) {
            continue;
        }
        match kind {
            ProbeKind::Readiness => pod.update(which, |state| state.ready = good),
            ProbeKind::Startup if good => {
                let ready = container.readiness_probe.is_none();
                pod.update(which, |state| {
                    state.started = true;
                    state.ready = ready;
                });
                return true;
            }
            ProbeKind::Liveness if good => {}
            ProbeKind::Startup | ProbeKind::Liveness => {
                let failed =
                    format!("Container {} failed {} probe, will be restarted", container.name, word.to_lowercase());
                let grace = spec.termination_grace_period_seconds.and_then(|grace| u64::try_from(grace).ok());
                let _ = kills.send(Kill { reason: failed, grace: grace.map(Duration::from_secs) }).await;
                return false;
            }
        }
    }
}

/// Performs the action of a probe or hook.
pub(super) async fn act(
    pod: &Arc<PodWorker>,
    container: &str,
    action: &ProbeAction,
    limit: Option<Duration>,
) -> Result<(), String> {
    let target = pod.target();
    let work = async {
        match action {
            ProbeAction::Http { .. } => probe::http(action, target).await,
            ProbeAction::Tcp { host, port } => probe::tcp(host.as_deref(), *port, target).await,
            ProbeAction::Sleep(duration) => {
                sleep(*duration).await;
                Ok(())
            }
            ProbeAction::Exec(command) => match pod.execute(container, command.clone()).await? {
                (0, _) => Ok(()),
                (code, output) => Err(format!("exit code {code}: {}", String::from_utf8_lossy(&output).trim_end())),
            },
        }
    };
    match limit {
        None => work.await,
        Some(limit) => match timeout(limit, work).await {
            Ok(result) => result,
            Err(_) => Err(format!("timeout: no answer within {limit:?}")),
        },
    }
}
