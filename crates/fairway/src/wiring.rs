//! Shared by all serving modes: the proxy's configuration from flags, the access log options, signals.

use std::io::IsTerminal;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use clap::ArgMatches;
use fairway_model::{LogEscape, Segment, Template, Variable};
use fairway_proxy::access_log::LogSink;
use fairway_proxy::resolve::AddressPolicy;
use fairway_proxy::{ProxyConfig, SpoolOptions};
use fairway_translate::options::Options;
use fairway_translate::variable::misspelt;
use fairway_translate::verdict::nearest;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::info;

use crate::flags::{Flags, UsageError};

mod metrics;

/// One JSON object per line, with the names that the process log uses. Numbers are JSON numbers; values for each try of an endpoint are
/// lists.
const JSON: &str = "{\"time\":\"$time_iso8601\",\"remote_addr\":\"$remote_addr\",\"request_id\":\"$req_id\",\
    \"method\":\"$request_method\",\"scheme\":\"$scheme\",\"host\":\"$host\",\"path\":\"$request_uri\",\
    \"protocol\":\"$server_protocol\",\"status\":$status,\"bytes_in\":$request_length,\"bytes_out\":$body_bytes_sent,\
    \"duration\":$request_time,\"route\":\"$namespace/$ingress_name#$location_path\",\"backend\":\"$proxy_upstream_name\",\
    \"upstream_addr\":\"$upstream_addr\",\"upstream_status\":[$upstream_status],\
    \"upstream_response_time\":[$upstream_response_time],\
    \"failure_reason\":\"$failure_reason\",\"failure_side\":\"$failure_side\",\"failure_detail\":\"$failure_detail\",\
    \"upstream_reason\":\"$upstream_reason\",\"referer\":\"$http_referer\",\"user_agent\":\"$http_user_agent\"}";

/// The format of `--access-log json|TEMPLATE`. Values in a template that is a JSON object are escaped for JSON. A text without variables is
/// an error, since all its lines would be the same; so is an unknown variable.
pub(crate) fn log_format(text: &str) -> Result<(Template, LogEscape), UsageError> {
    let text = if text == "json" { JSON } else { text };
    let template = Template::parse(text);
    let known =
        |segment: &Segment| matches!(segment, Segment::Variable(variable) if !matches!(variable, Variable::Unknown(_)));
    if !template.segments().iter().any(known) {
        let hint = match nearest(text, ["off", "json"]) {
            Some(near) => format!("did you mean {near}?"),
            None => "expected off, json, or a template such as '$status $request_uri'".to_owned(),
        };
        let what = match template.unknown().next() {
            Some(unknown) => format!("there is no variable ${unknown}"),
            None => "it names no variable, so all lines would be the same".to_owned(),
        };
        return Err(UsageError(format!("--access-log {text}: {what}; {hint}")));
    }
    if let Some((name, meant)) = misspelt(template.unknown()).next() {
        let hint = meant.map(|meant| format!("; did you mean ${meant}?")).unwrap_or_default();
        return Err(UsageError(format!("--access-log {text}: there is no variable ${name}{hint}")));
    }
    let escape = if text.trim_start().starts_with('{') { LogEscape::Json } else { LogEscape::Default };
    Ok((template, escape))
}

/// The options of the proxy that are not part of the snapshot.
pub(crate) fn proxy_config(
    matches: &ArgMatches,
    flags: &Flags,
    options: &Options,
    admin: Option<SocketAddr>,
    log: (LogSink, Option<(Template, LogEscape)>),
) -> Result<ProxyConfig, UsageError> {
    let defaults = ProxyConfig::default();
    Ok(ProxyConfig {
        workers: matches.get_one("workers").copied(),
        log: log.0,
        log_format: log.1,
        admin,
        health_path: flags.text("health-check-path").unwrap_or_else(|| defaults.health_path.clone()),
        patience: Some(flags.time("health-check-timeout")).filter(|time| !time.is_zero()).unwrap_or(defaults.patience),
        metrics: metrics::options(matches, flags, options)?,
        spool: spool(matches),
        addresses: AddressPolicy {
            allowed: allowed(options),
            own: admin.into_iter().collect(),
            loopback_endpoints: false,
        },
        ..defaults
    })
}

/// Where request bodies may be kept.
fn spool(matches: &ArgMatches) -> Option<SpoolOptions> {
    let directory = matches.try_get_one::<PathBuf>("request-body-directory").ok().flatten()?.clone();
    let space = matches.try_get_one::<u64>("request-body-space").ok().flatten().copied().unwrap_or_default() << 20;
    Some(SpoolOptions { directory, space })
}

/// The special addresses that backends may have.
pub(crate) fn allowed(options: &Options) -> fairway_model::NetworkSet {
    let network = |ip: &IpAddr| format!("{ip}/{}", if ip.is_ipv4() { 32 } else { 128 }).parse().ok();
    options.allowed_backend_addresses.iter().filter_map(network).collect()
}

/// How long the process has been running, counted from the first call.
pub(crate) fn age() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

/// The signals by which an operator, a terminal or the kubelet asks the process to stop, and those that have another meaning for nginx.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user: [Signal; 2],
}

impl Signals {
    /// Takes over the signals from the operating system, which would otherwise kill the process.
    pub(crate) fn new(runtime: &tokio::runtime::Runtime) -> std::io::Result<Self> {
        let _within = runtime.enter();
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user: [signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?],
        })
    }

    /// Waits for the next signal that requests a stop. A hangup does so if the process has a terminal, which is gone then; nginx would
    /// reread its configuration. The signals at which nginx reopens its logs or starts another binary have no effect either.
    pub(crate) async fn next(&mut self) {
        loop {
            let [first, second] = &mut self.user;
            let name = tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => "SIGHUP",
                _ = first.recv() => "SIGUSR1",
                _ = second.recv() => "SIGUSR2",
            };
            if name == "SIGHUP" && std::io::stderr().is_terminal() {
                return;
            }
            info!(signal = name, "no effect: nothing has to be read or opened again");
        }
    }
}

/// Exits immediately, as a second signal requests.
pub(crate) fn end_at_once() -> ! {
    std::process::exit(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_that_is_a_json_object_is_escaped_as_one() {
        assert_eq!(log_format("{\"agent\":\"$http_user_agent\"}").unwrap().1, LogEscape::Json);
        assert_eq!(log_format("$status ${request}").unwrap().1, LogEscape::Default);
        // nginx variables that have no value here are not an error.
        assert!(log_format("$status $gzip_ratio $geoip2_city $arg_x $http_referer").is_ok());
    }

    #[test]
    fn a_format_without_a_variable_is_refused_with_what_was_meant() {
        for (text, hint) in [
            ("jsn", "did you mean json?"),
            ("of", "did you mean off?"),
            ("combined", "a template such as"),
            ("$statsu", "no variable $statsu"),
            ("", "names no variable"),
            ("$status $request_urii", "no variable $request_urii; did you mean $request_uri?"),
            ("$status $nonsense", "no variable $nonsense"),
        ] {
            let error = log_format(text).unwrap_err().to_string();
            assert!(error.starts_with("--access-log ") && error.contains(hint), "{error}");
        }
    }

    #[test]
    fn the_json_format_knows_all_its_variables() {
        let (template, escape) = log_format("json").unwrap();
        assert_eq!(template.unknown().collect::<Vec<_>>(), Vec::<&str>::new());
        assert_eq!(escape, LogEscape::Json);
        let plain: String = template
            .segments()
            .iter()
            .map(|segment| match segment {
                Segment::Literal(text) => text.to_string(),
                Segment::Variable(_) => "1".to_owned(),
            })
            .collect();
        assert!(serde_json::from_str::<serde_json::Value>(&plain).is_ok(), "{plain}");
    }
}
