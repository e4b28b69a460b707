//! The life of the process after setup: it becomes ready with the first complete configuration, serves, and completes what is in progress,
//! whatever the reason for stopping.

use std::io::IsTerminal;
use std::sync::Arc;
use std::time::Duration;

use fairway_proxy::Proxy;
use fairway_proxy::admin::Stage;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinHandle};
use tracing::{error, info};

mod publish;

pub(crate) use self::publish::Publication;
use self::publish::publish_all;
use crate::flags::Flags;
use crate::handover::Handover;
use crate::wiring;

/// After a failure of the controller: the longest time to accept connections before draining, and the longest time to drain. Other replicas
/// may accept no new connections meanwhile, so it must not last as long as a WebSocket may.
const FAILURE_DRAIN: Duration = Duration::from_secs(10);

/// Decides what is served: the controller, or the connection to one.
pub(crate) struct Control {
    /// Becomes `true` once the first complete configuration is live.
    ready: watch::Receiver<bool>,
    task: JoinHandle<anyhow::Result<()>>,
    /// Raised when the process is asked to stop.
    leave: watch::Sender<bool>,
    /// Raised when the process has stopped serving.
    stop: watch::Sender<bool>,
}

impl Control {
    /// Starts it within a runtime. `run` gets the flags that are raised when the process is asked to stop, and when it has stopped serving.
    pub(crate) fn start<F, E>(ready: watch::Receiver<bool>, run: impl FnOnce(Flag, Flag) -> F) -> Self
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: std::error::Error + Send + Sync + 'static,
    {
        let (leave, left) = Flag::new();
        let (stop, stopped) = Flag::new();
        let running = run(left, stopped);
        let task = tokio::spawn(async { Ok(running.await?) });
        Self { ready, task, leave, stop }
    }
}

/// An event that happens once.
pub(crate) struct Flag(watch::Receiver<bool>);

impl Flag {
    /// A flag, and the sender that raises it.
    pub(crate) fn new() -> (watch::Sender<bool>, Self) {
        let (raise, raised) = watch::channel(false);
        (raise, Self(raised))
    }

    /// Resolves once the flag is raised.
    pub(crate) async fn raised(mut self) {
        // If the sender is gone it can't raise the flag any more, which also ends the wait.
        let _ = self.0.wait_for(|raised| *raised).await;
    }
}

/// Options from flags.
pub(crate) struct Choices {
    /// The class that is served, for the log.
    pub(crate) class: String,
    /// How long connections are accepted after the request to stop.
    pub(crate) grace: Duration,
    /// How long the process stays after draining.
    pub(crate) after: Duration,
    /// Hands sockets over from the previous process and to the next one, if enabled.
    pub(crate) handover: Option<Arc<Handover>>,
}

impl Choices {
    pub(crate) fn new(flags: &Flags, class: String, handover: Option<Handover>) -> Self {
        let (grace, after) = (flags.time("shutdown-grace-period"), flags.time("post-shutdown-grace-period"));
        Self { class, grace, after, handover: handover.map(Arc::new) }
    }
}

/// Serves until a signal arrives or the controller fails, and drains. A second signal ends the process at once.
///
/// # Errors
/// The controller ended by itself, so the process must be restarted.
pub(crate) async fn serve(
    control: Control,
    changes: mpsc::Receiver<impl Publication>,
    mut proxy: Proxy,
    choices: Choices,
    mut signal: impl AsyncFnMut(),
) -> anyhow::Result<()> {
    let Choices { class, mut grace, after, handover } = choices;
    let Control { ready, mut task, leave, stop } = control;
    let (open, opened) = watch::channel(false);
    let pump = tokio::spawn(publish_all(changes, proxy.publisher(), open, handover.clone()));
    let failure = tokio::select! {
        () = signal() => None,
        () = become_ready(ready, opened, &proxy, &class, handover.as_deref()) => None,
        ended = &mut task => Some(match end_of(ended) {
            Ok(()) => anyhow::anyhow!("the controller stopped unexpectedly"),
            Err(error) => error.context("the controller ended"),
        }),
    };
    let mut deadline = proxy.publisher().snapshot().settings().shutdown_timeout;
    let lifecycle = proxy.readiness();
    match &failure {
        None => {
            info!("asked to end; draining");
            notice(grace, deadline);
            lifecycle.stopping();
        }
        Some(failure) => {
            error!(error = %format_args!("{failure:#}"), "the controller failed; draining before the restart");
            let most = if lifecycle.stage() == Stage::Starting { Duration::ZERO } else { FAILURE_DRAIN };
            (grace, deadline) = (grace.min(most), deadline.min(FAILURE_DRAIN));
            // Kubernetes doesn't know that the process is stopping: only the probe makes it send traffic elsewhere.
            lifecycle.draining();
        }
    }
    let failed = failure.is_some();
    let ending = async {
        let _ = leave.send(true);
        let drained = proxy.drain(grace, deadline).await;
        info!(cut = drained.cut, "drained");
        let _ = stop.send(true);
        // After a failure there is nothing to wait for, and every moment until a new process serves counts.
        if !failed {
            if let Err(error) = end_of(task.await) {
                error!(error = %format_args!("{error:#}"), "the controller failed while it ended");
            }
            pump.abort();
            tokio::time::sleep(after).await;
        }
    };
    let at_once = async {
        if failed {
            // The first signal requests the shutdown that is already in progress.
            signal().await;
        }
        signal().await;
    };
    tokio::select! {
        () = ending => {}
        () = at_once => wiring::end_at_once(),
    }
    info!("ended");
    failure.map_or(Ok(()), Err)
}

/// On a terminal, explains after Ctrl-C what the process waits for, and how to stop it at once.
fn notice(grace: Duration, deadline: Duration) {
    if std::io::stderr().is_terminal() {
        eprintln!("{}", notice_text(grace, deadline));
    }
}

fn notice_text(grace: Duration, deadline: Duration) -> String {
    let first = match grace.as_secs() {
        0 => String::new(),
        seconds => format!("accepting connections for another {seconds} s (--shutdown-grace-period), then "),
    };
    format!(
        "Ending: {first}waiting for open requests for up to {} s (worker-shutdown-timeout). Press Ctrl-C again to end at once.",
        deadline.as_secs()
    )
}

/// Reports ready once the first complete configuration is live and every listener for HTTP and HTTPS is open. Never ends.
async fn become_ready(
    mut ready: watch::Receiver<bool>,
    mut open: watch::Receiver<bool>,
    proxy: &Proxy,
    class: &str,
    handover: Option<&Handover>,
) {
    if ready.wait_for(|ready| *ready).await.is_ok() {
        if !*open.borrow() {
            error!(
                closed = closed(proxy).join(", "),
                "not ready, because HTTP or HTTPS can't be served: correct bind-address and disable-ipv6 of the ConfigMap, or \
                give this node the addresses and free their ports"
            );
        }
        if open.wait_for(|open| *open).await.is_ok() {
            if let Some(handover) = handover {
                handover.finish(proxy.publisher(), proxy.readiness()).await;
            }
            proxy.readiness().serving();
            let hosts = proxy.publisher().snapshot().host_count();
            info!(hosts, class, addresses = listening(proxy).join(", "), "serving");
        }
    }
    std::future::pending::<()>().await;
}

/// The addresses at which each listener accepts connections or datagrams.
fn listening(proxy: &Proxy) -> Vec<String> {
    proxy.local_addresses().iter().map(|(listener, address)| format!("{listener} {address}")).collect()
}

/// Listeners for HTTP and HTTPS without a socket.
fn closed(proxy: &Proxy) -> Vec<String> {
    let (local, snapshot) = (proxy.local_addresses(), proxy.publisher().snapshot());
    let closed = snapshot.listeners().filter(|listener| !local.contains_key(&listener.name));
    closed.map(|listener| format!("{} {}", listener.scheme, listener.address)).collect()
}

fn end_of(ended: Result<anyhow::Result<()>, JoinError>) -> anyhow::Result<()> {
    ended?
}

#[cfg(test)]
mod tests;
