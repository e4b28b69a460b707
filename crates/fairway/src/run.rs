//! `fairway run`: controller and proxy in one process, for small installs and for the switch from ingress-nginx.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use clap::ArgMatches;
use fairway_controller::{
    AddressSource, ApiConfig, ConnectError, Controller, ControllerConfig, Election, Findings, NoZone, Pod, Reporter,
    StatusConfig, StatusWriting, Unreachable,
};
use fairway_model::Snapshot;
use fairway_proxy::access_log::LogSink;
use fairway_proxy::admin::{Finding, FindingSource};
use fairway_proxy::{Proxy, UnreachableSink};
use fairway_translate::diagnostic::Diagnostic;
use fairway_translate::options::{GatewayAddressing, Options};
use fairway_translate::verdict::Verdict;
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use crate::flags::Flags;
use crate::telemetry::{self, Form};
use crate::wiring::{self, Signals};

mod publish;
mod serve;
mod webhook;

use serve::{Choices, Control, serve};
use webhook::Webhook;

/// Runs the command until it is asked to end.
pub(crate) fn main(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let flags = Flags::from_matches(matches);
    if flags.bool("version") {
        println!("fairway {}", env!("CARGO_PKG_VERSION"));
        return Ok(ExitCode::SUCCESS);
    }
    let json = matches.get_one::<String>("log-format").is_some_and(|form| form == "json");
    telemetry::start(if json { Form::Json } else { Form::Text }, flags.int("v"), false);
    let mut options = flags.options()?;
    if has_ipv6() {
        add_ipv6(&mut options.http);
        add_ipv6(&mut options.https);
        options.stream_addresses.push(Ipv6Addr::UNSPECIFIED.into());
    }
    options.gateway_address = match matches.get_one::<String>("gateway-address").map(String::as_str) {
        Some("own") => GatewayAddressing::Own,
        Some("asked") => GatewayAddressing::Asked,
        _ => GatewayAddressing::Shared,
    };
    if let Some(ports) = matches.get_one::<RangeInclusive<u16>>("gateway-ports") {
        options.gateway_ports = ports.clone();
    }
    let log = match matches.get_one::<String>("access-log").map(String::as_str) {
        Some("off") => (LogSink::Off, None),
        Some(other) => (LogSink::Stdout, Some(wiring::log_format(other)?)),
        None => (LogSink::Stdout, None),
    };
    let read_only = matches.get_flag("read-only");
    let gateway_api = matches.get_flag("gateway-api");
    let mut config = ControllerConfig { read_only, gateway_api, ..controller_config(&flags, options) };
    info!(version = env!("CARGO_PKG_VERSION"), "starting");
    if read_only {
        info!("read-only: no status, Event or Lease is written");
    }
    for flag in flags.not_honoured() {
        match flag.verdict {
            Verdict::Harmless(note) => info!(flag = flag.name, note, "flag has no effect, and nothing is lost"),
            verdict => {
                warn!(flag = flag.name, verdict = verdict.label(), note = verdict.note(), "flag is not honoured");
            }
        }
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().thread_name("control").build()?;
    let mut signals = Signals::new(&runtime)?;
    check_addresses(&config.options)?;
    let authority = matches.get_one::<PathBuf>("validating-webhook-client-authority");
    let webhook = Webhook::bind(&flags, authority.cloned())?;
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
    let (sink, changes) = mpsc::channel(1);
    let controller = Controller::new(client, config.clone(), sink)?;
    let mut proxy_config = wiring::proxy_config(matches, &flags, &config.options, Some(admin_address(&flags)?), log)?;
    proxy_config.findings = shown(controller.findings());
    proxy_config.unreachable = reported(controller.reporter());
    // No listener yet: requests before the first complete configuration would get a 404.
    let proxy = Proxy::start(Snapshot::default(), proxy_config)
        .context("the proxy cannot start; choose another port for health and metrics with --healthz-port")?;
    if let Some(address) = proxy.admin_address() {
        info!(%address, "health and metrics");
    }
    let choices = Choices {
        class: config.options.ingress_class,
        grace: flags.time("shutdown-grace-period"),
        after: flags.time("post-shutdown-grace-period"),
    };
    if let Some(webhook) = webhook {
        let reviewer = controller.reviewer();
        runtime.spawn(async move {
            if let Err(error) = webhook.run(reviewer).await {
                error!(error = %format_args!("{error:#}"), "the admission webhook ended");
            }
        });
    }
    runtime.block_on(async {
        serve(Control::start(controller), changes, proxy, choices, async || signals.next().await).await
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The findings of the controller, as shown by the proxy.
fn shown(findings: Findings) -> FindingSource {
    FindingSource::new(move || {
        let shown = |found: Diagnostic| Finding {
            origin: found.origin,
            severity: found.severity.as_str(),
            reason: found.reason.as_str(),
            field: found.field,
            message: found.message,
        };
        findings.list().into_iter().map(shown).collect()
    })
}

/// Reports backends that can't be reached from the proxy to the controller.
fn reported(reporter: Reporter) -> UnreachableSink {
    UnreachableSink::new(move |one| {
        let endpoints = one.endpoints.into_iter().map(|(address, reason)| (address, reason.as_str())).collect();
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

/// Makes a port held by another process an error at the start, not in the middle of the first synchronisation.
fn check_addresses(options: &Options) -> anyhow::Result<()> {
    for address in options.http.iter().chain(&options.https) {
        TcpListener::bind(address).with_context(|| {
            format!("cannot listen on {address}; choose other ports with --http-port and --https-port")
        })?;
    }
    Ok(())
}

/// Nodes without IPv6 don't have this address at all.
fn has_ipv6() -> bool {
    TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))).is_ok()
}

/// Listening on all addresses means both families, as in ingress-nginx. IPv4 stays first: it keeps the plain listener name.
fn add_ipv6(addresses: &mut Vec<SocketAddr>) {
    let ports: Vec<u16> = addresses.iter().map(SocketAddr::port).collect();
    addresses.extend(ports.into_iter().map(|port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))));
}

fn admin_address(flags: &Flags) -> anyhow::Result<SocketAddr> {
    let ip: IpAddr = match flags.text("healthz-host") {
        None => Ipv6Addr::UNSPECIFIED.into(),
        Some(text) => text.parse().with_context(|| format!("--healthz-host={text}: expected an IP address"))?,
    };
    let address = SocketAddr::new(ip, flags.port("healthz-port"));
    Ok(if ip == Ipv6Addr::UNSPECIFIED && !has_ipv6() {
        SocketAddr::from(([0, 0, 0, 0], address.port()))
    } else {
        address
    })
}

fn controller_config(flags: &Flags, options: Options) -> ControllerConfig {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let pod = variable("POD_NAME").zip(variable("POD_NAMESPACE")).map(|(name, namespace)| Pod { name, namespace });
    let fixed = flags.list("publish-status-address");
    let addresses = match flags.object("publish-service") {
        Some((namespace, name)) => AddressSource::Service { namespace, name },
        None if !fixed.is_empty() => AddressSource::Fixed(fixed),
        None => AddressSource::Nodes { internal: flags.bool("report-node-internal-ip-address") },
    };
    let path = |name: &str| flags.text(name).map(Into::into);
    let ttl = flags.time("election-ttl");
    ControllerConfig {
        gateway_api: false,
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
