//! `fairway status` and `kubectl fairway status`: the state of an installation's processes, as each reports it at `/debug/channel`; for a
//! cluster, also which Ingresses are served. It writes nothing.

pub(crate) mod ask;
mod ingress;
pub(crate) mod standing;
mod text;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::ArgMatches;
use fairway_model::ErrorChain;
use serde::Serialize;

use crate::flags::Flags;
use crate::terminal::Terminal;
use crate::{cli, cluster};
use ingress::ServedIngresses;
use standing::Standing;

/// The ports where a pod's processes answer.
const PORTS: [u16; 2] = [10254, 10255];

/// The report, as described by `docs/schema/status.json`.
#[derive(Debug, Serialize)]
struct Status {
    processes: Vec<Process>,
    /// For a cluster only.
    #[serde(skip_serializing_if = "Option::is_none")]
    ingresses: Option<ServedIngresses>,
}

/// A process, and its answer.
#[derive(Debug, Default, Serialize)]
struct Process {
    /// Its address, or its namespace, pod and container.
    process: String,
    /// Why there is no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    #[serde(flatten)]
    standing: Option<Standing>,
    /// Only on request.
    #[serde(skip_serializing_if = "Option::is_none")]
    versions: Option<BTreeMap<String, Option<String>>>,
}

/// Runs `fairway status`.
pub(crate) fn main(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let flags = Flags::from_matches(matches);
    if cluster::is_named(matches, &flags) {
        return in_cluster(matches);
    }
    let addresses = cli::all::<SocketAddr>(matches, "admin");
    let processes: Vec<_> = if addresses.is_empty() {
        // A process in a pod may have only one of these ports.
        let local = PORTS.map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
        let found = local.iter().map(|address| asked(*address, matches));
        let found: Vec<_> = found.filter(|process| process.error.is_none()).collect();
        anyhow::ensure!(
            !found.is_empty(),
            "no process of Fairway answers on the ports {} and {} of this machine: name one with --admin, or a cluster with --context",
            PORTS[0],
            PORTS[1]
        );
        found
    } else {
        addresses.iter().map(|address| asked(*address, matches)).collect()
    };
    print(&Status { processes, ingresses: None }, matches)
}

/// Runs the command for all processes in the cluster.
pub(crate) fn in_cluster(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let flags = Flags::from_matches(matches);
    let reading = cluster::read(matches, &flags)?;
    let answers = cluster::ask_all(matches, &flags, paths(matches)).context("the processes of Fairway are unknown")?;
    let processes = answers.into_iter().map(|(process, answers)| Process::new(process, answers)).collect();
    print(&Status { processes, ingresses: Some(ServedIngresses::of(&reading)) }, matches)
}

/// The paths to request from a process.
fn paths(matches: &ArgMatches) -> &'static [&'static str] {
    if matches.get_flag("resources") { &["/debug/channel", "/debug/resources"] } else { &["/debug/channel"] }
}

fn asked(address: SocketAddr, matches: &ArgMatches) -> Process {
    let answers = paths(matches).iter().map(|path| ask::get(address, path)).collect::<Result<Vec<_>, _>>();
    Process::new(address.to_string(), answers.map_err(|error| ErrorChain(&error).to_string()))
}

impl Process {
    fn new(process: String, answers: Result<Vec<Vec<u8>>, String>) -> Self {
        let read = |answers: Vec<Vec<u8>>| {
            let mut answers = answers.iter();
            let standing = serde_json::from_slice(answers.next().map_or(&[], |answer| answer))?;
            Ok((standing, answers.next().map(|answer| serde_json::from_slice(answer)).transpose()?))
        };
        let read = answers.and_then(|answers| {
            read(answers).map_err(|error: serde_json::Error| format!("the response is not from Fairway: {error}"))
        });
        match read {
            Ok((standing, versions)) => Self { process, error: None, standing: Some(standing), versions },
            Err(error) => Self { process, error: Some(error), ..Self::default() },
        }
    }

    /// Whether the process serves or publishes the newest configuration in full.
    fn is_good(&self) -> bool {
        self.standing.as_ref().is_some_and(|standing| {
            let proxies = standing.proxies.iter().flatten();
            standing.current && standing.refused.is_empty() && proxies.into_iter().all(|proxy| proxy.refused.is_empty())
        })
    }
}

fn print(status: &Status, matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    match matches.get_one::<String>("output").map(String::as_str) {
        Some("json") => Terminal::plain().print(&format!("{}\n", serde_json::to_string_pretty(status)?)),
        _ => {
            let terminal = Terminal::new();
            terminal.print(&text::render(status, terminal));
        }
    }
    Ok(if status.processes.iter().all(Process::is_good) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
