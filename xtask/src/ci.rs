//! Runs the CI steps in order, those that need what is built ahead last.

use std::fs::{self, File};
use std::process::{Child, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;

use crate::console::{Mark, duration};
use crate::outcome::Outcome;
use crate::totals::Totals;
use crate::workspace::Workspace;
use crate::{
    alerts, bench, cargo, chart, conformance, e2e, framing, fuzz, generated, grpc, h2spec, image, needs, oauth, rules,
    tools, words,
};

type Step = (&'static str, fn(&Workspace) -> anyhow::Result<Outcome>);

const STEPS: &[Step] = &[
    ("needs", needs::check),
    ("ahead", start_ahead),
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
    ("image", image::run),
    ("e2e", e2e::all),
    ("conformance", conformance::of_ci),
    ("fuzz", fuzz::smoke),
    ("bench", await_ahead),
];

/// Relative to the root: what [`ahead`] prints when it runs as part of CI.
const LOG: &str = "target/ahead.log";

/// The process of [`ahead`], from the step that starts it to the one that waits for it.
static AHEAD: Mutex<Option<Child>> = Mutex::new(None);

/// Starts [`ahead`] in a process that gets only the processor time that nobody else wants: tests wait most of the time, and compilers often
/// have work for one core. A step whose program isn't there yet waits for it, or builds it itself.
fn start_ahead(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let log = workspace.root.join(LOG);
    let file = File::create(&log).with_context(|| format!("creating {}", log.display()))?;
    // The kernel shares processor time out between sessions first, and within a session by policy.
    let quietly = "echo 19 > /proc/self/autogroup; exec \"$0\" ahead";
    let mut command = workspace.command("setpriv");
    command.args(["--pdeathsig", "TERM", "setsid", "chrt", "--idle", "0", "sh", "-c", quietly]);
    command.arg(std::env::current_exe()?);
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    let child = command.spawn().context("starting setpriv")?;
    *AHEAD.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
    Ok(Outcome::passed("Go programs, the image, fuzz targets and the counts of `bench`, while other steps wait"))
}

/// Waits for [`ahead`], which has the machine to itself now, and shows what it found.
fn await_ahead(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let child = AHEAD.lock().unwrap_or_else(PoisonError::into_inner).take();
    let status = child.context("it was not started")?.wait().context("waiting for it")?;
    let log = fs::read_to_string(workspace.root.join(LOG)).with_context(|| format!("reading {LOG}"))?;
    if !status.success() {
        return Ok(Outcome { failure: Some(log), ..Outcome::default() });
    }
    // Progress is indented.
    log.lines().filter(|line| !line.starts_with("  ")).for_each(|line| workspace.console.line(line));
    Ok(Outcome::default())
}

/// Builds what takes longest of what later steps need, in the order in which they need it. Then counts instructions,
/// which gives the same result on a busy machine.
pub(crate) fn ahead(workspace: &Workspace) -> anyhow::Result<Outcome> {
    for step in [
        tools::build_helm,
        tools::build_for_alerts,
        tools::build_h2spec,
        tools::build_grpc,
        tools::build_oauth,
        tools::build,
        image::build,
        conformance::build_gateway,
        fuzz::build,
        bench::run,
    ] {
        let built = step(workspace)?;
        if built.failure.is_some() {
            return Ok(built);
        }
    }
    Ok(Outcome::default())
}

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
