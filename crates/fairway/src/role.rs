//! The common start of `run`, `controller` and `proxy`: the log, and the addresses and formats from flags.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener};

use anyhow::Context as _;
use clap::ArgMatches;
use fairway_model::{LogEscape, Template};
use fairway_proxy::access_log::LogSink;
use fairway_translate::verdict::Verdict;
use tracing::{info, warn};

use crate::flags::{Flags, UsageError};
use crate::telemetry::{self, Form};
use crate::wiring::log_format;

/// Starts the log. Returns `None` if only the version was requested.
pub(crate) fn begin(matches: &ArgMatches, role: &'static str) -> Option<Flags> {
    let flags = Flags::from_matches(matches);
    if flags.bool("version") {
        println!("fairway {}", env!("CARGO_PKG_VERSION"));
        return None;
    }
    let json = matches.get_one::<String>("log-format").is_some_and(|form| form == "json");
    telemetry::start(if json { Form::Json } else { Form::Text }, flags.int("v"), false);
    info!(version = env!("CARGO_PKG_VERSION"), role, "starting");
    for flag in flags.not_honoured() {
        match flag.verdict {
            Verdict::Harmless(note) => info!(flag = flag.name, note, "flag has no effect, and nothing is lost"),
            verdict => {
                warn!(flag = flag.name, verdict = verdict.label(), note = verdict.note(), "flag is not honoured");
            }
        }
    }
    Some(flags)
}

/// The target and format of the access log, from the command line.
pub(crate) fn access_log(matches: &ArgMatches) -> Result<(LogSink, Option<(Template, LogEscape)>), UsageError> {
    Ok(match matches.get_one::<String>("access-log").map(String::as_str) {
        Some("off") => (LogSink::Off, None),
        Some(other) => (LogSink::Stdout, Some(log_format(other)?)),
        None => (LogSink::Stdout, None),
    })
}

/// The address of the admin server. `port` is the default without a flag.
pub(crate) fn admin_address(flags: &Flags, port: Option<u16>) -> anyhow::Result<SocketAddr> {
    let ip: IpAddr = match flags.text("healthz-host") {
        None => Ipv6Addr::UNSPECIFIED.into(),
        Some(text) => text.parse().with_context(|| format!("--healthz-host={text}: expected an IP address"))?,
    };
    let port = port.filter(|_| !flags.is_set("healthz-port")).unwrap_or_else(|| flags.port("healthz-port"));
    let ip = if ip == Ipv6Addr::UNSPECIFIED && !has_ipv6() { IpAddr::from([0, 0, 0, 0]) } else { ip };
    Ok(SocketAddr::new(ip, port))
}

/// Nodes without IPv6 don't have this address at all.
pub(crate) fn has_ipv6() -> bool {
    TcpListener::bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))).is_ok()
}
