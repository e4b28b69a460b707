//! The first process of a cluster: starts everything, monitors it, and takes it along when it exits.
//!
//! It is started in its own network, mount and process namespace. Standard input is the cluster's lock, standard output
//! the socket to `up`, standard error the log. If `up` exits before the cluster is ready, so does the cluster.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};

use crate::cluster::component::{self, Options};
use crate::cluster::control::{self, Progress};
use crate::cluster::credential::{Authority, Subject};
use crate::cluster::layout::Layout;
use crate::cluster::network;
use crate::cluster::process::{Action, Processes};
use crate::cluster::ready;
use crate::load_balancer;

/// How long the cluster may take to start on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Runs the cluster called `name` until it is taken down.
///
/// # Errors
/// If it does not become ready; `up` receives the same error.
pub fn run(name: &str, options: &Options) -> anyhow::Result<()> {
    anyhow::ensure!(std::process::id() == 1, "`supervise` is started by `up`, as the first process of a namespace");
    let layout = Layout::new(name)?;
    // One thread: see `process`.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut launcher = Launcher::connect()?;
        let outcome = supervise(&layout, options, &mut launcher).await;
        if let Err(error) = &outcome {
            tracing::error!("{error:#}");
            let _ = launcher.tell(&Progress::Failed(format!("{error:#}"))).await;
        }
        outcome
    })
}

async fn supervise(layout: &Layout, options: &Options, launcher: &mut Launcher) -> anyhow::Result<()> {
    launcher.step("the network").await?;
    network::set_up()?;
    load_balancer::route::set_up()?;

    let authority = Authority::create(&layout.credentials())?;
    authority.kubeconfig(&layout.kubeconfig(), Subject { user: "admin", group: Some("system:masters") })?;
    let own = layout.credentials().join("supervisor.kubeconfig");
    authority.kubeconfig(&own, Subject { user: "supervisor", group: Some("system:masters") })?;
    let processes = Processes::new(component::all(layout, &authority, options)?);
    let listener =
        UnixListener::bind(layout.control()).with_context(|| format!("listening on {}", layout.control().display()))?;

    let mut terminate = signal(SignalKind::terminate())?;
    let mut children = signal(SignalKind::child())?;
    let mut gone = launcher.gone()?;
    let mut buffer = [0];
    let (end, mut ended) = tokio::sync::mpsc::channel(1);

    let start = async {
        let client = ready::client(&own).await?;
        start(&processes, &client, launcher).await?;
        anyhow::Ok(client)
    };
    let start = tokio::time::timeout(PATIENCE, start);
    tokio::pin!(start);
    let mut started = false;
    loop {
        tokio::select! {
            result = &mut start, if !started => {
                let client = result.with_context(|| format!("not ready after {} s", PATIENCE.as_secs()))??;
                started = true;
                tokio::spawn(load_balancer::run(client));
            }
            _ = gone.read(&mut buffer), if !started => anyhow::bail!("`up` has ended before the cluster was ready"),
            _ = children.recv() => processes.reap(),
            _ = terminate.recv() => return Ok(()),
            _ = ended.recv() => return Ok(()),
            stream = listener.accept() => {
                let (stream, _) = stream.context("accepting a connection on the control socket")?;
                let (processes, end) = (processes.clone(), end.clone());
                tokio::spawn(async move {
                    match control::serve(stream, &processes).await {
                        Ok(true) => drop(end.send(()).await),
                        Ok(false) => {}
                        Err(error) => tracing::warn!("a client of the control socket: {error:#}"),
                    }
                });
            }
        }
    }
}

/// Starts each component as soon as its requirements are met, until the cluster is ready.
async fn start(processes: &Processes, client: &kube::Client, launcher: &mut Launcher) -> anyhow::Result<()> {
    let all: Vec<String> = processes.states().into_iter().map(|(component, _)| component.name).collect();
    let begin = async |prefixes: &[&str]| {
        for name in all.iter().filter(|name| prefixes.iter().any(|prefix| name.starts_with(prefix))) {
            processes.act(name, Action::Start).await?;
        }
        anyhow::Ok(())
    };
    let stages = async {
        launcher.step("etcd and kube-apiserver").await?;
        begin(&["etcd", "kube-apiserver"]).await?;
        ready::api_server(client).await;
        ready::rights(client).await?;
        launcher.step("controllers, scheduler, kubelets").await?;
        begin(&["kube-controller-manager", "kube-scheduler", "kubelet"]).await?;
        ready::nodes(client).await;
        // If its Node didn't exist yet, kube-proxy would retry only once a second.
        launcher.step("kube-proxies").await?;
        begin(&["kube-proxy"]).await?;
        ready::proxies().await;
        ready::accounts(client).await;
        launcher.tell(&Progress::Ready).await
    };
    tokio::select! {
        result = stages => result,
        result = watch_over(processes) => result,
    }
}

/// Returns when a component has exited by itself, with that as an error.
async fn watch_over(processes: &Processes) -> anyhow::Result<()> {
    loop {
        processes.check()?;
        processes.changed().await;
    }
}

/// The connection to `up`.
struct Launcher {
    stream: UnixStream,
}

impl Launcher {
    fn connect() -> anyhow::Result<Self> {
        Ok(Self { stream: stream().context("standard output is not the socket to `up`")? })
    }

    /// Another handle of the socket, which shows when `up` has exited.
    fn gone(&self) -> anyhow::Result<UnixStream> {
        stream().context("a second handle of the socket to `up`")
    }

    async fn step(&mut self, what: &str) -> anyhow::Result<()> {
        tracing::info!("{what}");
        self.tell(&Progress::Step(what.to_owned())).await
    }

    async fn tell(&mut self, progress: &Progress) -> anyhow::Result<()> {
        let mut line = serde_json::to_string(progress)?;
        line.push('\n');
        self.stream.write_all(line.as_bytes()).await.context("telling `up` of the progress")
    }
}

fn stream() -> io::Result<UnixStream> {
    let stream = std::os::unix::net::UnixStream::from(io::stdout().as_fd().try_clone_to_owned()?);
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}
