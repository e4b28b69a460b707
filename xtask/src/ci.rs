//! Runs the CI steps in order, quick ones first.

use std::time::{Duration, Instant};

use crate::console::{Mark, duration};
use crate::outcome::Outcome;
use crate::totals::Totals;
use crate::workspace::Workspace;
use crate::{
    alerts, bench, cargo, chart, conformance, e2e, framing, fuzz, generated, grpc, h2spec, image, needs, oauth, rules,
    words,
};

type Step = (&'static str, fn(&Workspace) -> anyhow::Result<Outcome>);

const STEPS: &[Step] = &[
    ("needs", needs::check),
    ("words", words::check),
    ("rules", rules::check),
    ("fmt", cargo::fmt),
    ("clippy", cargo::clippy),
    ("quick-start", cargo::quick_start),
    ("doc", cargo::doc),
    ("test", cargo::test),
    ("gen", generated::check),
    ("chart", chart::check::run),
    ("alerts", alerts::run),
    ("h2spec", h2spec::run),
    ("grpc", grpc::run),
    ("oauth", oauth::run),
    ("framing", framing::smoke),
    ("fuzz", fuzz::smoke),
    ("image", image::run),
    ("bench", bench::run),
    ("e2e", e2e::all),
    ("conformance", conformance::of_ci),
];

/// Runs the steps until one fails, then prints a line per step and the test totals. Returns `true` if all passed.
pub(crate) fn run(workspace: &Workspace) -> bool {
    let console = &workspace.console;
    let begin = Instant::now();
    let mut summary: Vec<(Mark, &str, Duration, String)> = Vec::new();
    let mut totals = Totals::default();
    let mut failed = false;
    for &(name, step) in STEPS {
        if failed {
            summary.push((Mark::NotRun, name, Duration::ZERO, String::new()));
            continue;
        }
        console.progress(name);
        let start = Instant::now();
        let outcome = step(workspace)
            .unwrap_or_else(|error| Outcome { failure: Some(format!("{error:#}")), ..Outcome::default() });
        totals += outcome.totals;
        if let Some(failure) = &outcome.failure {
            failed = true;
            console.line(failure.trim_end());
        }
        let mark = if failed { Mark::Failed } else { Mark::Passed };
        console.step(mark, name, start.elapsed(), &outcome.note);
        summary.push((mark, name, start.elapsed(), outcome.note));
    }
    console.line(&format!("\nCI {} in {}", if failed { "failed" } else { "passed" }, duration(begin.elapsed())));
    for (mark, name, took, note) in summary {
        console.step(mark, name, took, &note);
    }
    console.line(&totals.to_string());
    !failed
}
