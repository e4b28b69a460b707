//! `fairway check`: everything there is to say about manifests, for people and for CI.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::ArgMatches;
use fairway_model::Origin;
use fairway_translate::objects::Object;
use fairway_translate::verdict::{Verdict, nearest};
use fairway_translate::{annotation, configmap};
use serde_json::{Value, json};

use crate::cli;
use crate::flags::Flags;
use crate::manifest::Place;
use crate::reading::{Missing, Reading, read};
use crate::report;
use crate::terminal::{Style, Terminal, count, printable};

/// What ingress-nginx does unless this key says otherwise, and Fairway doesn't do: nobody writes it, and everybody misses it.
const MISSED_DEFAULT: &str = "use-http2";

/// Runs the command: success without errors, failure with some.
pub(crate) fn main(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let flags = Flags::from_matches(matches);
    let reading = read(&cli::all::<PathBuf>(matches, "paths"), &flags, Missing::Told)?;
    let verdicts = verdicts(&reading);
    let (errors, _) = report::totals(&reading.findings);
    match matches.get_one::<String>("output").map(String::as_str) {
        Some("json") => {
            let report = as_json(&reading, &verdicts, &flags);
            Terminal::plain().print(&format!("{report:#}\n"));
        }
        _ => {
            let terminal = Terminal::new();
            terminal.print(&as_text(&reading, &verdicts, &flags, terminal));
        }
    }
    Ok(if errors == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// What becomes of a name of ingress-nginx, and where it is used.
struct Met {
    /// `None` for a name that nobody knows.
    verdict: Option<Verdict>,
    /// The name that was probably meant.
    near: Option<&'static str>,
    users: usize,
    /// The first user.
    origin: Origin,
    field: String,
    place: Option<Place>,
}

/// Annotations and keys of the global ConfigMap, by the name that the user writes.
#[derive(Default)]
struct Verdicts {
    annotations: BTreeMap<String, Met>,
    keys: BTreeMap<String, Met>,
}

fn verdicts(reading: &Reading) -> Verdicts {
    let mut found = Verdicts::default();
    let prefix = &reading.options.annotations_prefix;
    let mut objects: Vec<_> = reading.manifests.objects().collect();
    objects.sort_by_key(|object| object.key());
    for object in objects {
        let key = object.key();
        let origin = key.origin();
        match object {
            // What is said of a foreign Ingress would be no use to anyone.
            Object::Ingress(ingress) if !reading.foreign.contains(&origin) => {
                for name in ingress.read().metadata.annotations.iter().flatten().map(|(name, _)| name) {
                    let Some(short) = name.strip_prefix(&**prefix).and_then(|rest| rest.strip_prefix('/')) else {
                        continue;
                    };
                    let spec = annotation::spec(short).map(|spec| spec.verdict);
                    let met = || {
                        Met::new(spec, short, annotation::names(), &origin, format!("metadata.annotations[\"{name}\"]"))
                    };
                    found.annotations.entry(name.clone()).or_insert_with(met).users += 1;
                }
            }
            Object::ConfigMap(configmap)
                if reading
                    .options
                    .configmap
                    .as_ref()
                    .is_some_and(|(namespace, name)| **namespace == *key.namespace && **name == *key.name) =>
            {
                for name in configmap.data.iter().flatten().map(|(name, _)| name) {
                    let spec = configmap::spec(name).map(|spec| spec.verdict);
                    let met = || Met::new(spec, name, configmap::names(), &origin, format!("data[\"{name}\"]"));
                    found.keys.entry(name.clone()).or_insert_with(met).users += 1;
                }
            }
            _ => {}
        }
    }
    for met in found.annotations.values_mut().chain(found.keys.values_mut()) {
        met.place = reading.manifests.place_of(&met.origin, &met.field);
    }
    found
}

impl Met {
    fn new(
        verdict: Option<Verdict>,
        name: &str,
        known: impl Iterator<Item = &'static str>,
        origin: &Origin,
        field: String,
    ) -> Self {
        let near = if verdict.is_none() { nearest(name, known) } else { None };
        Self { verdict, near, users: 0, origin: origin.clone(), field, place: None }
    }

    fn label(&self) -> &'static str {
        self.verdict.map_or("unknown", Verdict::label)
    }

    fn note(&self) -> String {
        match (self.verdict, self.near) {
            (Some(verdict), _) => verdict.note(),
            (None, Some(near)) => format!("ingress-nginx doesn't know it either; is {near} meant?"),
            (None, None) => "ingress-nginx doesn't know it either".to_owned(),
        }
    }
}

fn as_text(reading: &Reading, verdicts: &Verdicts, flags: &Flags, terminal: Terminal) -> String {
    let mut out = String::new();
    for finding in &reading.findings {
        out.push_str(&report::line(finding, terminal));
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
            let place = met.place.as_ref().map(ToString::to_string).unwrap_or_default();
            let more = if met.users > 1 { format!(" and {} more", met.users - 1) } else { String::new() };
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
    if let Some(note) = missed_default(verdicts) {
        let gap = if out.is_empty() { "" } else { "\n" };
        let _ = writeln!(out, "{gap}By default ingress-nginx has {MISSED_DEFAULT} on: {note}");
    }
    if !out.is_empty() {
        out.push('\n');
    }
    let counts = reading.manifests.counts();
    let (errors, warnings) = report::totals(&reading.findings);
    let style = match (errors, warnings) {
        (0, 0) => Style::Green,
        (0, _) => Style::Yellow,
        _ => Style::Red,
    };
    let ignored = match counts.ignored {
        0 => String::new(),
        ignored => format!(" ({} of other kinds left alone)", count(ignored, "object", "objects")),
    };
    let _ = writeln!(
        out,
        "{} in {}{ignored}: {}",
        count(counts.objects, "object", "objects"),
        count(counts.files, "file", "files"),
        terminal
            .style(style, format!("{}, {}", count(errors, "error", "errors"), count(warnings, "warning", "warnings"))),
    );
    out
}

/// What becomes of a default that isn't built, where no file says anything about it.
fn missed_default(verdicts: &Verdicts) -> Option<String> {
    let spec = configmap::spec(MISSED_DEFAULT).filter(|spec| !spec.verdict.works())?;
    (!verdicts.keys.contains_key(MISSED_DEFAULT)).then(|| spec.verdict.note())
}

fn as_json(reading: &Reading, verdicts: &Verdicts, flags: &Flags) -> Value {
    let of = |met: &BTreeMap<String, Met>| -> Vec<Value> {
        let entry = |(name, met): (&String, &Met)| {
            let instead = match met.verdict {
                Some(Verdict::Refused { instead, .. }) => Some(instead),
                _ => None,
            };
            json!({
                "name": name,
                "verdict": met.label(),
                "note": met.note(),
                "instead": instead,
                "objects": met.users,
                "file": met.place.as_ref().map(|place| place.file.to_string_lossy()),
                "line": met.place.as_ref().and_then(|place| place.line),
            })
        };
        met.iter().map(entry).collect()
    };
    let counts = reading.manifests.counts();
    let (errors, warnings) = report::totals(&reading.findings);
    json!({
        "files": counts.files,
        "objects": counts.objects,
        "ignored": counts.ignored,
        "errors": errors,
        "warnings": warnings,
        "diagnostics": reading.findings.iter().map(report::json).collect::<Vec<_>>(),
        "annotations": of(&verdicts.annotations),
        "configmap": of(&verdicts.keys),
        "defaults": missed_default(verdicts)
            .map(|note| json!({ "name": MISSED_DEFAULT, "verdict": "not yet", "note": note }))
            .into_iter()
            .collect::<Vec<_>>(),
        "flags": flags
            .not_honoured()
            .map(|flag| json!({ "name": flag.name, "verdict": flag.verdict.label(), "note": flag.verdict.note() }))
            .collect::<Vec<_>>(),
    })
}
