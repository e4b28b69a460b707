//! `fairway check`: reports problems in manifests and how each annotation is supported, for people and for CI.

mod formats;
mod gateway;
mod verdicts;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::ArgMatches;
use fairway_translate::diagnostic::Severity;
use fairway_translate::verdict::Verdict;

use crate::cli;
use crate::cluster;
use crate::flags::{Flags, UsageError};
use crate::manifest::Refused;
use crate::reading::{Missing, Reading, Source, read};
use crate::report;
use crate::terminal::{Style, Terminal, count, printable};
use verdicts::{Verdicts, by_ingress, verdicts};

/// Runs the command; it fails if any finding is at least as severe as `--fail-on`.
pub(crate) fn main(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let flags = Flags::from_matches(matches);
    let paths = cli::all::<PathBuf>(matches, "paths");
    let reading = if cluster::is_named(matches, &flags) {
        cluster::read(matches, &flags)?
    } else if paths.is_empty() {
        bail!(UsageError("expected a PATH of manifests, or --context NAME or --kubeconfig FILE for a cluster".into()));
    } else {
        read(&paths, &flags, Missing::Told, Refused::Read)?
    };
    report(matches, &flags, &reading)
}

/// The same for the cluster of the kubeconfig, whether or not a flag selects one.
pub(crate) fn in_cluster(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let flags = Flags::from_matches(matches);
    let reading = cluster::read(matches, &flags)?;
    report(matches, &flags, &reading)
}

fn report(matches: &ArgMatches, flags: &Flags, reading: &Reading) -> anyhow::Result<ExitCode> {
    let verdicts = verdicts(reading);
    let format = matches.get_one::<String>("output").map(String::as_str);
    match format {
        Some("json") => Terminal::plain().print(&format!("{:#}\n", formats::json(reading, &verdicts, flags))),
        Some("sarif") => Terminal::plain().print(&format!("{:#}\n", formats::sarif(&reading.findings))),
        Some("github") => Terminal::plain().print(&formats::github(&reading.findings)),
        _ => {
            let terminal = Terminal::new();
            terminal.print(&as_text(reading, &verdicts, flags, terminal));
        }
    }
    let least = match matches.get_one::<String>("fail-on").map(String::as_str) {
        Some("info") => Severity::Info,
        Some("warning") => Severity::Warning,
        _ => Severity::Error,
    };
    let failed = reading.findings.iter().any(|finding| finding.diagnostic.severity >= least);
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn as_text(reading: &Reading, verdicts: &Verdicts, flags: &Flags, terminal: Terminal) -> String {
    let mut out = String::new();
    for finding in &reading.findings {
        out.push_str(&report::line(finding, terminal));
    }
    if reading.source == Source::Cluster {
        out.push_str(&ingresses_as_text(reading, terminal));
    }
    let objects = gateway::told(reading);
    if !objects.is_empty() {
        let gap = if out.is_empty() { "" } else { "\n" };
        let _ = writeln!(out, "{gap}{}", terminal.style(Style::Bold, "Gateway API"));
        for (key, told) in &objects {
            let _ = writeln!(out, "  {}", printable(&key.to_string()));
            for (good, line) in gateway::lines(told) {
                let style = if good { Style::Green } else { Style::Red };
                let _ = writeln!(out, "    {}", terminal.style(style, printable(&line)));
            }
        }
    }
    for (title, met) in [("Annotations", &verdicts.annotations), ("ConfigMap keys", &verdicts.keys)] {
        if met.is_empty() {
            continue;
        }
        let gap = if out.is_empty() { "" } else { "\n" };
        let _ = writeln!(out, "{gap}{}", terminal.style(Style::Bold, title));
        let width = met.keys().map(|name| name.chars().count()).max().unwrap_or(0).min(80);
        for (name, met) in met {
            let style = match met.verdict {
                Some(Verdict::Same | Verdict::Harmless(_)) => Style::Green,
                Some(Verdict::Differs(_)) => Style::Cyan,
                Some(Verdict::NotYet(_)) => Style::Yellow,
                Some(Verdict::Refused { .. }) | None => Style::Red,
            };
            let user = || met.origin.to_string();
            let place = met.place.as_ref().map_or_else(user, ToString::to_string);
            let mut more = if met.users > 1 { format!(" and {} more", met.users - 1) } else { String::new() };
            match met.foreign {
                0 => {}
                all if all == met.users => more.push_str(" (not served)"),
                some => _ = write!(more, " ({some} of them not served)"),
            }
            let note = met.note();
            let note = if note.is_empty() { note } else { format!(": {note}") };
            let _ = writeln!(
                out,
                "  {:<width$}  {}{}  {}",
                printable(name),
                terminal.style(style, met.label()),
                printable(&note),
                terminal.style(Style::Dim, printable(&format!("{place}{more}"))),
            );
        }
    }
    let unheard: Vec<_> = flags.not_honoured().collect();
    if !unheard.is_empty() {
        let _ = writeln!(out, "\n{}", terminal.style(Style::Bold, "Flags"));
        for flag in unheard {
            let _ = writeln!(out, "  --{}  {}: {}", flag.name, flag.verdict.label(), flag.verdict.note());
        }
    }
    if !out.is_empty() {
        out.push('\n');
    }
    let counts = reading.counts();
    let (errors, warnings) = report::totals(&reading.findings);
    let style = match (errors, warnings) {
        (0, 0) => Style::Green,
        (0, _) => Style::Yellow,
        _ => Style::Red,
    };
    let ignored = match counts.ignored {
        0 => String::new(),
        ignored => format!(" ({} of other kinds ignored)", count(ignored, "object", "objects")),
    };
    let refused = match reading.manifests.refused().len() {
        0 => String::new(),
        refused => format!(", {refused} of them refused by the API server"),
    };
    let _ = writeln!(
        out,
        "{} in {}{refused}{ignored}: {}",
        count(counts.objects, "object", "objects"),
        match reading.source {
            Source::Files => count(counts.files, "file", "files"),
            Source::Cluster => "the cluster".to_owned(),
        },
        terminal
            .style(style, format!("{}, {}", count(errors, "error", "errors"), count(warnings, "warning", "warnings"))),
    );
    out
}

/// One line per Ingress: how many of its annotations work, and which don't work unchanged.
fn ingresses_as_text(reading: &Reading, terminal: Terminal) -> String {
    let ingresses = by_ingress(reading);
    let mut out = String::new();
    if ingresses.is_empty() {
        return out;
    }
    let gap = if reading.findings.is_empty() { "" } else { "\n" };
    let _ = writeln!(out, "{gap}{}", terminal.style(Style::Bold, "Ingresses"));
    let name = |ingress: &verdicts::Ingress<'_>| format!("{}/{}", ingress.key.namespace, ingress.key.name);
    let width = ingresses.iter().map(|ingress| name(ingress).chars().count()).max().unwrap_or(0).min(60);
    for ingress in &ingresses {
        let works = |label: &str| matches!(label, "same" | "harmless");
        let same = ingress.annotations.iter().filter(|(_, label)| works(label)).count();
        let mut parts = Vec::new();
        if !ingress.served {
            parts.push("not served".to_owned());
        }
        if same > 0 {
            parts.push(format!("{} as with ingress-nginx", count(same, "annotation", "annotations")));
        }
        let others = ingress.annotations.iter().filter(|(_, label)| !works(label));
        parts.extend(others.map(|(name, label)| format!("{name} {label}")));
        if parts.is_empty() {
            parts.push("no annotations of ingress-nginx".to_owned());
        }
        let _ = writeln!(out, "  {:<width$}  {}", printable(&name(ingress)), printable(&parts.join(", ")));
    }
    out
}
