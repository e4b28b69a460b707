//! `kubectl fairway`: the binary under the name `kubectl-fairway`, with the commands that inspect a cluster. Nothing is written.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::process::ExitCode;

use clap::ArgMatches;
use fairway_model::{Host, Origin};
use fairway_translate::diagnostic::Severity;
use fairway_translate::objects::{Kind, Object};

use crate::flags::Flags;
use crate::reading::Reading;
use crate::table::is_implied;
use crate::terminal::{Style, Terminal, count, printable};
use crate::{check, cli, cluster, explain};

/// The file name under which kubectl finds the plugin.
const NAME: &str = "kubectl-fairway";

/// Whether the binary was called by kubectl.
pub(crate) fn is_called() -> bool {
    let called = std::env::args_os().next().map(std::path::PathBuf::from);
    called.and_then(|path| Some(path.file_name()? == NAME)).unwrap_or(false)
}

/// Runs the plugin.
pub(crate) fn main() -> anyhow::Result<ExitCode> {
    match cli::plugin().get_matches().subcommand() {
        Some(("status", matches)) => status(matches),
        Some(("explain", matches)) => {
            let flags = Flags::from_matches(matches);
            explain::in_cluster(matches, || cluster::read(matches, &flags))
        }
        Some(("check", matches)) => check::in_cluster(matches),
        Some(("events", matches)) => events(matches),
        _ => Ok(ExitCode::SUCCESS),
    }
}

/// Prints one line for each Ingress, and the totals.
fn status(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let flags = Flags::from_matches(matches);
    let reading = cluster::read(matches, &flags)?;
    let terminal = Terminal::new();
    terminal.print(&status_text(&reading, terminal));
    Ok(ExitCode::SUCCESS)
}

fn status_text(reading: &Reading, terminal: Terminal) -> String {
    let mut routes: BTreeMap<Origin, usize> = BTreeMap::new();
    for route in reading
        .snapshot
        .hosts()
        .iter()
        .flat_map(|host| host.tiers().flat_map(Host::reachable_routes))
        .filter(|route| !is_implied(route))
    {
        *routes.entry(route.origin.section("")).or_default() += 1;
    }
    let mut problems: BTreeMap<Origin, (usize, usize)> = BTreeMap::new();
    for found in reading.findings.iter().map(|finding| &finding.diagnostic) {
        let (errors, warnings) = problems.entry(found.origin.section("")).or_default();
        match found.severity {
            Severity::Error => *errors += 1,
            Severity::Warning => *warnings += 1,
            Severity::Info => {}
        }
    }
    let mut rows = vec![["INGRESS", "HOSTS", "ADDRESS", "ROUTES", "FINDINGS"].map(str::to_owned)];
    let mut foreign = 0;
    for (key, object) in reading.objects.of_kind(Kind::Ingress) {
        let (Object::Ingress(ingress), origin) = (object, key.origin()) else { continue };
        if reading.foreign.contains(&origin) {
            foreign += 1;
            continue;
        }
        let ingress = ingress.read();
        let rules = ingress.spec.iter().flat_map(|spec| spec.rules.iter().flatten());
        let hosts: Vec<&str> = rules.map(|rule| rule.host.as_deref().unwrap_or("*")).collect();
        let hosts = match &hosts[..] {
            [] => "*".to_owned(),
            [one] => (*one).to_owned(),
            [one, rest @ ..] => format!("{one} +{}", rest.len()),
        };
        let address = reading.addresses.get(key).map(|all| all.join(",")).unwrap_or_else(|| "-".to_owned());
        let (errors, warnings) = problems.get(&origin).copied().unwrap_or_default();
        let findings = match (errors, warnings) {
            (0, 0) => "-".to_owned(),
            (0, warnings) => count(warnings, "warning", "warnings"),
            (errors, 0) => count(errors, "error", "errors"),
            _ => format!("{}, {}", count(errors, "error", "errors"), count(warnings, "warning", "warnings")),
        };
        let routes = routes.get(&origin).copied().unwrap_or_default().to_string();
        rows.push([format!("{}/{}", key.namespace, key.name), hosts, address, routes, findings]);
    }
    let served = rows.len() - 1;
    let mut out = if served == 0 { String::new() } else { table(&rows, terminal) };
    let (errors, warnings) = crate::report::totals(&reading.findings);
    let _ = writeln!(
        out,
        "{} of class {}, {} ignored; {}, {}{}",
        count(served, "Ingress", "Ingresses"),
        reading.options.ingress_class,
        count(foreign, "other", "others"),
        count(errors, "error", "errors"),
        count(warnings, "warning", "warnings"),
        if errors + warnings > 0 { ": kubectl fairway check says which" } else { "" },
    );
    out
}

/// Prints the Events that Fairway has written, oldest first.
fn events(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let flags = Flags::from_matches(matches);
    let namespace = matches.get_one::<String>("namespace").map(String::as_str);
    let told = cluster::events(matches, &flags, namespace)?;
    let terminal = Terminal::new();
    if told.is_empty() {
        terminal.print("Fairway has written no Events that the cluster still keeps; kubectl fairway check reads all findings anew\n");
        return Ok(ExitCode::SUCCESS);
    }
    let mut rows = vec![["TIME", "TYPE", "REASON", "OBJECT", "MESSAGE"].map(str::to_owned)];
    rows.extend(told);
    terminal.print(&table(&rows, terminal));
    Ok(ExitCode::SUCCESS)
}

/// Formats columns as wide as their contents; the first row is the header.
fn table<const N: usize>(rows: &[[String; N]], terminal: Terminal) -> String {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; N] = std::array::from_fn(width);
    let mut out = String::new();
    for (at, row) in rows.iter().enumerate() {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{:<width$}", printable(cell)));
        let line = cells.collect::<Vec<_>>().join("  ");
        let style = if at == 0 { Style::Bold } else { Style::Plain };
        let _ = writeln!(out, "{}", terminal.style(style, line.trim_end()));
    }
    out
}
