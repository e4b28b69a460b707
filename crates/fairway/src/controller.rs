//! `fairway controller`: watches a cluster and tells proxies in other processes what to serve. It parses no bytes from the internet.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use anyhow::Context as _;
use clap::ArgMatches;
use fairway_channel::{Hub, PROPAGATION_BOUNDS, Report};
use fairway_controller::{Controller, NotUnderstood, Publish, Reporter, RunError, Unreachable};
use fairway_proxy::admin::{AdminServer, AdminSource, ChannelEnd, ChannelSource, LazySnapshot, Lifecycle};
use fairway_proxy::metrics::{ChannelFigures, ConfigStatus, ControllerEnd, Distribution, ProxyFigures};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::timeout;
use tracing::{error, info};

use self::door::{Door, OpenDoor};
use crate::flags::Flags;
use crate::role;
use crate::run;
use crate::serve::Flag;
use crate::status::standing::{self, Connected, Slowest, Standing};
use crate::wiring::{self, Signals};

mod door;
mod keep;

/// The port for health and metrics: the port of `fairway run` belongs to the proxy in the same pod.
const ADMIN_PORT: u16 = 10255;

/// How long the controller waits for a proxy beyond the time that it may drain.
const AFTER_DRAIN: Duration = Duration::from_secs(5);

/// Runs the command until it is asked to stop.
pub(crate) fn main(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    if matches.get_flag(keep::SWITCH) {
        return keep::main(matches);
    }
    let Some(flags) = role::begin(matches, "controller") else { return Ok(ExitCode::SUCCESS) };
    let mut config = run::config(matches, &flags)?;
    let runtime = run::runtime()?;
    let mut signals = Signals::new(&runtime)?;
    let webhook = run::webhook(matches, &flags)?;
    let (hub, reports) = Hub::new();
    let door = Door::bind(matches, &config, &runtime)?;
    let client = run::connect(&runtime, &flags, &mut config)?;
    let (sink, changes) = mpsc::channel(1);
    let served = hub.clone();
    // Without `--control-listen`, a proxy runs in the controller's pod.
    let least = usize::from(matches.get_one::<String>("control-listen").is_none());
    let controller = Controller::new(client.clone(), config.clone(), sink)?.with_proxies(
        hub.progress(),
        move || served.serves(),
        least,
    );
    run::answer_reviews(&runtime, webhook, &controller);
    let lifecycle = Lifecycle::default();
    let admin = runtime.block_on(AdminServer::bind(role::admin_address(&flags, Some(ADMIN_PORT))?));
    let admin =
        admin.context("the controller cannot start; choose another port for health and metrics with --healthz-port")?;
    info!(address = %admin.local_address()?, "health and metrics");
    let source = admin_source(matches, &flags, &config.options, &controller, &hub, &lifecycle)?;
    runtime.spawn(admin.run(Arc::new(source)));
    let open = door.serve(&runtime, &client, &hub);
    runtime.spawn(pass_on(reports, controller.reporter()));
    runtime.spawn(publish(changes, hub.clone()));
    let grace = flags.time("shutdown-grace-period");
    runtime.block_on(async {
        let (leave, left) = Flag::new();
        let (stop, stopped) = Flag::new();
        let ready = controller.readiness();
        let task = tokio::spawn(controller.run(left.raised(), stopped.raised()));
        let class = config.options.ingress_class.clone();
        let life = Life { ready, task, leave, stop, hub, open, lifecycle, grace, class };
        life.live(async || signals.next().await).await
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The parts of the running process.
struct Life {
    ready: watch::Receiver<bool>,
    task: JoinHandle<Result<(), RunError>>,
    leave: watch::Sender<bool>,
    stop: watch::Sender<bool>,
    hub: Hub,
    open: OpenDoor,
    lifecycle: Lifecycle,
    grace: Duration,
    class: String,
}

impl Life {
    /// Runs until a signal arrives, and then until the draining proxies are gone, since they still need to know the current endpoints. A
    /// second signal ends the process at once.
    ///
    /// # Errors
    /// The controller ended by itself, so the process must be restarted. The proxies keep serving meanwhile.
    async fn live(self, mut signal: impl AsyncFnMut()) -> anyhow::Result<()> {
        let Self {
            mut ready,
            mut task,
            leave,
            stop,
            hub,
            open: OpenDoor { ready: mut enters, close },
            lifecycle,
            grace,
            class,
        } = self;
        let becoming = async {
            if ready.wait_for(|ready| *ready).await.is_ok() && enters.wait_for(|ready| *ready).await.is_ok() {
                lifecycle.serving();
                let resources = hub.figures().resources;
                info!(resources, class, "publishing");
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = signal() => {}
            () = becoming => {}
            ended = &mut task => return Err(match end_of(ended) {
                Ok(()) => anyhow::anyhow!("the controller stopped unexpectedly"),
                Err(error) => error.context("the controller ended"),
            }),
        }
        info!("asked to end; waiting for the proxies that drain");
        lifecycle.stopping();
        let _ = leave.send(true);
        if let Some(close) = close {
            // Proxies in other pods connect to another controller.
            close.abort();
        }
        let ending = async {
            let most = grace + hub.shutdown_timeout() + AFTER_DRAIN;
            // Each proxy in this pod ends once it has drained, which closes its connection.
            let _ = timeout(most, hub.deserted()).await;
            let _ = stop.send(true);
            if let Err(error) = end_of(task.await) {
                error!(error = %format_args!("{error:#}"), "the controller failed while it ended");
            }
        };
        tokio::select! {
            () = ending => {}
            () = signal() => wiring::end_at_once(),
        }
        info!("ended");
        Ok(())
    }
}

/// Publishes the controller's changes to the proxies, one at a time.
async fn publish(mut changes: mpsc::Receiver<Publish>, hub: Hub) {
    while let Some(Publish { delta, live }) = changes.recv().await {
        hub.publish(delta).await;
        // The controller may have ended already.
        let _ = live.send(());
    }
}

/// Passes the proxies' reports to the controller, which reports them to users.
async fn pass_on(mut reports: mpsc::Receiver<Report>, reporter: Reporter) {
    while let Some(report) = reports.recv().await {
        match report {
            Report::Unreachable { origin, backend, endpoints } => {
                let endpoints = endpoints.into_iter().map(|(address, reason)| (address, reason.into())).collect();
                reporter.unreachable(Unreachable { origin, backend, endpoints });
            }
            Report::Refused { proxy, name, origins, reason } => {
                error!(
                    proxy,
                    resource = name,
                    reason,
                    "a proxy does not understand a resource: its last good form stays there"
                );
                for origin in origins {
                    let (proxy, reason) = (proxy.clone(), reason.clone());
                    reporter.not_understood(NotUnderstood { origin, proxy, reason });
                }
            }
        }
    }
}

/// The admin server of a process without workers.
fn admin_source(
    matches: &ArgMatches,
    flags: &Flags,
    options: &fairway_translate::options::Options,
    controller: &Controller,
    hub: &Hub,
    lifecycle: &Lifecycle,
) -> anyhow::Result<AdminSource> {
    let proxy = wiring::proxy_config(matches, flags, options, None, (fairway_proxy::access_log::LogSink::Off, None))?;
    let published = hub.clone();
    Ok(AdminSource {
        lifecycle: lifecycle.clone(),
        health_path: proxy.health_path,
        patience: proxy.patience,
        metrics: Arc::new(proxy.metrics),
        findings: run::shown(controller.findings()),
        ping: Box::new(Vec::new),
        workers: 0,
        // There is no worker to ask.
        report: Box::new(|_, _, _| oneshot::channel().1),
        running: Box::new(move || {
            let figures = published.figures();
            let since = figures.published.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            // No listener is refused here: alerts on a configuration that is not in effect concern proxies.
            let status = ConfigStatus {
                successes: figures.generation,
                whole: true,
                last_success: since.map_or(0.0, |since| since.as_secs_f64()),
                version: figures.generation,
                ..ConfigStatus::default()
            };
            let published = published.clone();
            (status, Box::new(move || Arc::new(published.snapshot())))
        }),
        figures: Box::new(ProxyFigures::default),
        channel: Some(ChannelSource::new(Proxies(hub.clone()))),
    })
}

/// What the admin server says about the proxies.
struct Proxies(Hub);

impl ChannelEnd for Proxies {
    fn standing(&self, _: LazySnapshot, config: &ConfigStatus) -> Value {
        let connected = |proxy: fairway_channel::ProxyStatus| Connected {
            name: proxy.name,
            version: proxy.fairway,
            current: proxy.current,
            seconds: proxy.seconds,
            resources: proxy.held,
            refused: proxy.refused.into_iter().map(|(name, reason)| (name.into_string(), reason)).collect(),
        };
        let proxies: Vec<_> = self.0.proxies().into_iter().map(connected).collect();
        let complete = config.version > 0;
        let current = complete && proxies.iter().all(|proxy| proxy.current);
        let slowest = self.0.slowest().map(|(name, time)| Slowest { name, seconds: time.as_secs_f64() });
        let rest = Standing::new("controller", self.0.figures().resources, config);
        Standing { complete, current, proxies: Some(proxies), slowest, ..rest }.json()
    }

    fn versions(&self, _: LazySnapshot) -> Value {
        standing::versions(self.0.versions())
    }

    fn figures(&self) -> Option<ChannelFigures> {
        let figures = self.0.figures();
        Some(ChannelFigures::Controller(ControllerEnd {
            proxies: figures.proxies as u64,
            current: figures.current as u64,
            resources: figures.resources as u64,
            refused: figures.refused as u64,
            changes: figures.generation,
            rounds: figures.rounds,
            sent: figures.sent,
            shared: figures.shared as u64,
            propagation: Distribution {
                buckets: PROPAGATION_BOUNDS.into_iter().zip(figures.propagation.counts).collect(),
                above: figures.propagation.counts.last().copied().unwrap_or_default(),
                sum: figures.propagation.sum,
            },
            slowest: self.0.slowest().map(|(proxy, time)| (proxy, time.as_secs_f64())),
        }))
    }
}

fn end_of(ended: Result<Result<(), RunError>, JoinError>) -> anyhow::Result<()> {
    Ok(ended??)
}
