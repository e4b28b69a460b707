//! `kubectl fairway`: the binary under the name `kubectl-fairway`, with the commands that inspect a cluster. It writes nothing.

use std::process::ExitCode;

use clap::ArgMatches;

use crate::flags::Flags;
use crate::terminal::{Terminal, table};
use crate::{check, cli, cluster, explain, status};

/// The file name under which kubectl finds the plugin.
const NAME: &str = "kubectl-fairway";

/// Whether kubectl called the binary.
pub(crate) fn is_called() -> bool {
    let called = std::env::args_os().next().map(std::path::PathBuf::from);
    called.and_then(|path| Some(path.file_name()? == NAME)).unwrap_or(false)
}

/// Runs the plugin.
pub(crate) fn main() -> anyhow::Result<ExitCode> {
    match cli::plugin().get_matches().subcommand() {
        Some(("status", matches)) => status::in_cluster(matches),
        Some(("explain", matches)) => {
            let flags = Flags::from_matches(matches);
            explain::in_cluster(matches, || cluster::read(matches, &flags))
        }
        Some(("check", matches)) => check::in_cluster(matches),
        Some(("events", matches)) => events(matches),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Prints the Events that Fairway has written, oldest first.
fn events(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let flags = Flags::from_matches(matches);
    let namespace = matches.get_one::<String>("namespace").map(String::as_str);
    let told = cluster::events(matches, &flags, namespace)?;
    let terminal = Terminal::new();
    if told.is_empty() {
        terminal
            .print("The cluster keeps no Events from Fairway; kubectl fairway check reports all current findings\n");
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = vec![["TIME", "TYPE", "REASON", "OBJECT", "MESSAGE"].map(str::to_owned)];
    rows.extend(told);
    terminal.print(&table(&rows, terminal));
    Ok(ExitCode::SUCCESS)
}
