//! `fairway proxy`: serves what a controller in another process publishes. It has no access to the API server: none of its modules knows
//! Kubernetes, and nothing on this path connects to the API server.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::ArgMatches;
use clap::parser::ValueSource;
use fairway_channel::{ControlServer, Holding, Link, LinkReporter, LinkStatus, Place, Unproven};
use fairway_model::Snapshot;
use fairway_proxy::admin::{ChannelEnd, ChannelSource, LazySnapshot};
use fairway_proxy::metrics::{ChannelFigures, ConfigStatus, ProxyEnd};
use fairway_proxy::{Proxy, Unreachable, UnreachableSink};
use serde_json::Value;
use tokio::sync::{mpsc, watch};
use tracing::info;

use crate::confine::confine;
use crate::handover::Handover;
use crate::role;
use crate::serve::{Choices, Control, Flag, serve};
use crate::status::standing::{self, Standing};
use crate::wiring::{self, Signals};

mod keep;
mod share;

use keep::KeptAt;

/// Runs the command until it is asked to stop.
pub(crate) fn main(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let Some(flags) = role::begin(matches, "proxy") else { return Ok(ExitCode::SUCCESS) };
    let of_controller: Vec<_> = flags.of_controller().collect();
    if !of_controller.is_empty() {
        info!(flags = of_controller.join(", "), "no effect in a proxy: the controller's flags decide");
    }
    let (place, token) = place(matches)?;
    // This must happen before there is another thread.
    let scratch = matches.get_one::<PathBuf>("request-body-directory").map(PathBuf::as_path);
    let file = keep::file(matches)?;
    let handover = Handover::begin(matches)?;
    let kept_in = file.as_ref().and_then(|file| file.path().parent());
    confine(token.as_deref(), [scratch, kept_in], handover.as_ref().and_then(Handover::folder));
    let log = role::access_log(matches)?;
    let options = flags.options()?;
    // Only setting up a connection to the controller takes time here.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().thread_name("link").build()?;
    if let Some(handover) = &handover {
        runtime.block_on(handover.greet());
    }
    let mut signals = Signals::new(&runtime)?;
    let (sink, changes) = mpsc::channel(1);
    let (link, reporter) = Link::new(place, name(), sink);
    let mut link = link.with_file(file.clone());
    let shares = link.shares();
    let status = link.status();
    let admin = role::admin_address(&flags, None)?;
    let mut config = wiring::proxy_config(matches, &flags, &options, Some(admin), log)?;
    config.handover = handover.is_some();
    config.unreachable = reported(reporter);
    let (status_seen, holding, kept) = (status.clone(), link.holding(), KeptAt::default());
    config.channel =
        Some(ChannelSource::new(Following { name: name(), status: status_seen, holding, kept: kept.clone() }));
    // There is no listener yet: requests before the first complete configuration would get a 404.
    let proxy = Proxy::start(Snapshot::default(), config)
        .context("the proxy cannot start; choose another port for health and metrics with --healthz-port")?;
    if let Some(address) = proxy.admin_address() {
        info!(%address, "health and metrics");
    }
    let choices = Choices::new(&flags, options.ingress_class, handover);
    runtime.block_on(async {
        let (complete, ready) = watch::channel(false);
        if let Some(file) = file {
            tokio::spawn(keep::keep(file, status.clone(), proxy.publisher(), kept));
        }
        tokio::spawn(completion(status, complete));
        tokio::spawn(share::share(proxy.client_ledger(), shares));
        let control = Control::start(ready, |_, stop| follow(link, stop));
        serve(control, changes, proxy, choices, async || signals.next().await).await
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The controller's address, and the folder with the token for it, which is read only here.
fn place(matches: &ArgMatches) -> anyhow::Result<(Place, Option<PathBuf>)> {
    let path = |name: &str| matches.get_one::<PathBuf>(name).cloned().unwrap_or_default();
    let Some(server) = matches.get_one::<String>("control-server") else {
        return Ok((Place::Socket(path("control-socket")), None));
    };
    if matches.value_source("control-socket") == Some(ValueSource::CommandLine) {
        anyhow::bail!("--control-socket and --control-server exclude each other");
    }
    let token = path("control-token");
    let server = ControlServer::new(server.clone(), path("control-authority"), &token);
    let server =
        server.with_context(|| format!("reading {}; choose another file with --control-token", token.display()))?;
    let folder = token.parent().and_then(|folder| folder.canonicalize().ok());
    Ok((Place::Server(Arc::new(server)), folder))
}

/// Follows the controller until the proxy has stopped serving.
async fn follow(link: Link, stop: Flag) -> Result<(), Unproven> {
    tokio::select! {
        ended = link.run() => ended,
        () = stop.raised() => Ok(()),
    }
}

/// Reports when the first complete configuration is in effect.
async fn completion(mut status: watch::Receiver<LinkStatus>, complete: watch::Sender<bool>) {
    if status.wait_for(|status| status.complete).await.is_ok() {
        complete.send_replace(true);
        // A waiting task must not mistake the end of this task for the end of the proxy.
        complete.closed().await;
    }
}

/// The name by which the controller knows this proxy.
fn name() -> String {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    variable("POD_NAME").or_else(|| variable("HOSTNAME")).unwrap_or_else(|| "proxy".to_owned())
}

/// Reports unreachable backends to the controller.
fn reported(reporter: LinkReporter) -> UnreachableSink {
    UnreachableSink::new(move |Unreachable { origin, backend, endpoints }| {
        let endpoints: Vec<_> = endpoints.iter().map(|(address, reason)| (*address, reason.as_str())).collect();
        reporter.unreachable(&origin, backend.as_str(), &endpoints);
    })
}

/// What the admin server reports about the controller.
struct Following {
    name: String,
    status: watch::Receiver<LinkStatus>,
    holding: Holding,
    kept: KeptAt,
}

impl ChannelEnd for Following {
    fn standing(&self, _: LazySnapshot, config: &ConfigStatus) -> Value {
        let status = self.status.borrow().clone();
        Standing {
            name: self.name.clone(),
            complete: status.complete,
            current: status.current,
            age_seconds: age(&status),
            refused: status.refused.into_iter().collect(),
            connections: Some(status.connections),
            rounds: Some(status.rounds),
            from_file: Some(status.from_file),
            ..Standing::new("proxy", status.held, config)
        }
        .json()
    }

    fn versions(&self, _: LazySnapshot) -> Value {
        standing::versions(self.holding.versions())
    }

    fn figures(&self) -> Option<ChannelFigures> {
        let status = self.status.borrow().clone();
        Some(ChannelFigures::Proxy(ProxyEnd {
            current: status.current,
            age: age(&status),
            resources: status.held as u64,
            refused: status.refused.len() as u64,
            connections: status.connections,
            rounds: status.rounds,
            from_file: status.from_file,
            file: self.kept.seconds(),
        }))
    }
}

fn age(status: &LinkStatus) -> f64 {
    status.age().map_or(0.0, |age| age.as_secs_f64())
}
