//! `fairway run`: controller and proxy in one process, for small installations and for switching from ingress-nginx.

use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::ArgMatches;
use fairway_controller::{
    AddressSource, ApiConfig, Client, ConnectError, Controller, ControllerConfig, Election, Findings, NoZone, Pod,
    Reporter, StatusConfig, StatusWriting, Unreachable,
};
use fairway_model::Snapshot;
use fairway_proxy::admin::{ChannelSource, FindingSource};
use fairway_proxy::{Proxy, UnreachableSink};
use fairway_translate::options::Options;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use crate::flags::Flags;
use crate::handover::Handover;
use crate::report;
use crate::role;
use crate::serve::{Choices, Control, serve};
use crate::status::standing::Alone;
use crate::wiring::{self, Signals};

pub(crate) mod webhook;

use webhook::Webhook;

/// Runs the command until it is asked to stop.
pub(crate) fn main(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let Some(flags) = role::begin(matches, "run") else { return Ok(ExitCode::SUCCESS) };
    let log = role::access_log(matches)?;
    let mut config = config(matches, &flags)?;
    let runtime = runtime()?;
    let mut signals = Signals::new(&runtime)?;
    let handover = Handover::begin(matches)?;
    match handover.as_ref().filter(|handover| handover.follows()) {
        Some(handover) => runtime.block_on(handover.greet()),
        None => check_addresses(&config.options)?,
    }
    let webhook = webhook(matches, &flags)?;
    let client = connect(&runtime, &flags, &mut config)?;
    let (sink, changes) = mpsc::channel(1);
    let controller = Controller::new(client, config.clone(), sink)?;
    let admin = role::admin_address(&flags, None)?;
    let mut proxy_config = wiring::proxy_config(matches, &flags, &config.options, Some(admin), log)?;
    proxy_config.handover = handover.is_some();
    proxy_config.findings = shown(controller.findings());
    proxy_config.channel = Some(ChannelSource::new(Alone("run")));
    proxy_config.unreachable = reported(controller.reporter());
    // There is no listener yet: requests before the first complete configuration would get a 404.
    let proxy = Proxy::start(Snapshot::default(), proxy_config).context(NO_PORT)?;
    if let Some(address) = proxy.admin_address() {
        info!(%address, "health and metrics");
    }
    let choices = Choices::new(&flags, config.options.ingress_class, handover);
    answer_reviews(&runtime, webhook, &controller);
    runtime.block_on(async {
        let control =
            Control::start(controller.readiness(), |leave, stop| controller.run(leave.raised(), stop.raised()));
        serve(control, changes, proxy, choices, async || signals.next().await).await
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Why a process with an admin server can't start.
pub(crate) const NO_PORT: &str =
    "the proxy cannot start; choose another port for health and metrics with --healthz-port";

/// The controller's configuration from the command line.
pub(super) fn config(matches: &ArgMatches, flags: &Flags) -> anyhow::Result<ControllerConfig> {
    let mut options = flags.options()?;
    if role::has_ipv6() {
        add_ipv6(&mut options.http);
        add_ipv6(&mut options.https);
        options.stream_addresses.push(Ipv6Addr::UNSPECIFIED.into());
    }
    if let Some(ports) = matches.get_one::<RangeInclusive<u16>>("gateway-ports") {
        options.gateway_ports = ports.clone();
    }
    let read_only = matches.get_flag("read-only");
    let gateway_api = matches.get_flag("gateway-api");
    let readiness_gate = matches.get_flag("readiness-gate");
    let observed = matches.get_flag("observed");
    if read_only {
        info!("read-only: no status, Event or Lease is written");
    }
    let mut config =
        ControllerConfig { read_only, gateway_api, readiness_gate, observed, ..controller_config(flags, options) };
    if let AddressSource::Nodes { pods, .. } = &mut config.status.addresses {
        *pods = matches.try_get_one::<String>("control-pods").ok().flatten().cloned();
    }
    Ok(config)
}

/// The runtime for everything except the workers. One thread, so that what the objects of the cluster become is allocated and freed in the
/// same heap: an idle thread keeps the memory that another one frees for it. Health checks wait while it translates the first configuration,
/// which takes some three seconds with 100,000 Ingresses; later ones are translated in parts.
pub(super) fn runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().thread_name("control").build()
}

/// The admission webhook, if it is enabled.
pub(super) fn webhook(matches: &ArgMatches, flags: &Flags) -> anyhow::Result<Option<Webhook>> {
    let authority = matches.get_one::<PathBuf>("validating-webhook-client-authority");
    Webhook::bind(flags, authority.cloned())
}

/// Answers admission reviews in the background.
pub(super) fn answer_reviews(runtime: &Runtime, webhook: Option<Webhook>, controller: &Controller) {
    if let Some(webhook) = webhook {
        let reviewer = controller.reviewer();
        runtime.spawn(async move {
            if let Err(error) = webhook.run(reviewer).await {
                error!(error = %format_args!("{error:#}"), "the admission webhook ended");
            }
        });
    }
}

/// Connects to the API server, and looks up what translation needs to know about our own pod.
pub(super) fn connect(runtime: &Runtime, flags: &Flags, config: &mut ControllerConfig) -> anyhow::Result<Client> {
    let client = runtime.block_on(fairway_controller::connect(&config.api)).map_err(|error| match error {
        ConnectError::InCluster(_) => {
            anyhow::Error::from(error).context("there is no API server; without any cluster use `fairway dev`")
        }
        _ => error.into(),
    })?;
    if flags.bool("enable-topology-aware-routing") {
        config.options.zone =
            known(runtime.block_on(fairway_controller::own_zone(client.clone(), config.pod.as_ref())));
    }
    Ok(client)
}

/// The findings of the controller, as shown by the proxy.
pub(super) fn shown(findings: Findings) -> FindingSource {
    FindingSource::new(move || findings.list().into_iter().map(report::shown).collect())
}

/// Reports unreachable backends from the proxy to the controller.
fn reported(reporter: Reporter) -> UnreachableSink {
    UnreachableSink::new(move |one| {
        let endpoints = one.endpoints.into_iter().map(|(address, reason)| (address, reason.as_str().into())).collect();
        reporter.unreachable(Unreachable { origin: one.origin, backend: one.backend.to_string(), endpoints });
    })
}

/// The zone of our own node. Without it, endpoints of all zones are used.
fn known(zone: Result<String, NoZone>) -> Option<String> {
    match zone {
        Ok(zone) => {
            info!(zone, "routing by zone");
            Some(zone)
        }
        Err(error) => {
            let error = format!("{:#}", anyhow::Error::from(error));
            warn!(error, "--enable-topology-aware-routing has no effect: endpoints of all zones are used");
            None
        }
    }
}

/// Reports a port held by another process at startup, not in the middle of the first synchronisation.
fn check_addresses(options: &Options) -> anyhow::Result<()> {
    for address in options.http.iter().chain(&options.https) {
        TcpListener::bind(address).with_context(|| {
            format!("cannot listen on {address}; choose other ports with --http-port and --https-port")
        })?;
    }
    Ok(())
}

/// Listening on all addresses means both families, as in ingress-nginx. IPv4 stays first: it keeps the plain listener name.
fn add_ipv6(addresses: &mut Vec<SocketAddr>) {
    let ports: Vec<u16> = addresses.iter().map(SocketAddr::port).collect();
    addresses.extend(ports.into_iter().map(|port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))));
}

fn controller_config(flags: &Flags, options: Options) -> ControllerConfig {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let pod = variable("POD_NAME").zip(variable("POD_NAMESPACE")).map(|(name, namespace)| Pod { name, namespace });
    let fixed = flags.list("publish-status-address");
    let addresses = match flags.object("publish-service") {
        Some((namespace, name)) => AddressSource::Service { namespace, name },
        None if !fixed.is_empty() => AddressSource::Fixed(fixed),
        None => AddressSource::Nodes { pods: None, internal: flags.bool("report-node-internal-ip-address") },
    };
    let path = |name: &str| flags.text(name).map(Into::into);
    let ttl = flags.time("election-ttl");
    ControllerConfig {
        gateway_api: false,
        readiness_gate: false,
        observed: false,
        options,
        api: ApiConfig {
            kubeconfig: path("kubeconfig"),
            host: flags.text("apiserver-host"),
            certificate_authority: path("certificate-authority"),
            ..ApiConfig::default()
        },
        pod,
        election: Election {
            id: flags.text("election-id").unwrap_or_else(|| Election::default().id),
            ttl: if ttl.is_zero() { Election::default().ttl } else { ttl },
            disabled: flags.bool("disable-leader-election"),
        },
        status: StatusConfig {
            writing: match (flags.bool("update-status"), flags.bool("update-status-on-shutdown")) {
                (false, _) => StatusWriting::Never,
                (true, false) => StatusWriting::Keep,
                (true, true) => StatusWriting::RemoveAtEnd,
            },
            addresses,
            interval: flags.time("status-update-interval").max(Duration::from_secs(5)),
        },
        disable_sync_events: flags.bool("disable-sync-events"),
        read_only: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_port_is_listened_on_in_both_families() {
        let mut addresses = vec![SocketAddr::from(([0, 0, 0, 0], 80))];
        add_ipv6(&mut addresses);
        assert_eq!(addresses, ["0.0.0.0:80".parse().unwrap(), "[::]:80".parse().unwrap()]);
    }
}
