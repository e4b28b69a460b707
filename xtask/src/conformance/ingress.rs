//! `cargo xtask conformance ingress`: runs the official Ingress conformance suite against Fairway on its own cluster.
//!
//! The suite is a Go program of the Kubernetes project, which has no releases and isn't on every module proxy, so it is built from a
//! checkout that the user names; `e2e/tools/ingress-conformance` pins its libraries. It prints its scenarios as it runs them, with features
//! in random order, and sends requests to the address in the Ingresses' status.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail, ensure};

use super::{FOLDER, Ground, failed, inside, number, on_cluster, said_in_cluster};
use crate::console::duration;
use crate::outcome::Outcome;
use crate::totals::Totals;
use crate::workspace::Workspace;
use crate::{image, shell};

/// The usage text.
pub(super) const USAGE: &str = "usage: cargo xtask conformance ingress --suite FOLDER [--times N] [--keep]; FOLDER is a checkout of \
                                https://github.com/kubernetes-sigs/ingress-controller-conformance";

/// The suite's expectation for `helm install`: a Server header is sent only if a value asks for it.
const INSTALL: &str = "helm install ingress-nginx deploy/helm/fairway --namespace ingress-nginx --create-namespace \
                       --set-string controller.config.server-tokens=true --wait --timeout 300s";

/// The arguments of the suite. The scenario about a foreign class waits this long to see that no address appears.
const SUITE: &[&str] = &["-no-colors", "-ingress-class", "nginx", "-wait-time-for-ingress-status", "60s"];

/// The number of scenarios.
const SCENARIOS: u64 = 30;

/// The module of the suite.
const MODULE: &str = "sigs.k8s.io/ingress-controller-conformance";

/// The options of a run.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct IngressOptions {
    /// How often to run the suite.
    pub(super) times: u32,
    /// Keep the cluster.
    pub(super) keep: bool,
    /// A checkout of the suite.
    pub(super) suite: PathBuf,
}

impl IngressOptions {
    pub(super) fn parse(words: &[&str]) -> anyhow::Result<Self> {
        let mut options = Self { times: 1, keep: false, suite: PathBuf::new() };
        let mut words = words.iter();
        while let Some(word) = words.next() {
            match *word {
                "--keep" => options.keep = true,
                "--suite" => options.suite = words.next().map(PathBuf::from).unwrap_or_default(),
                "--times" => options.times = number("--times", words.next(), USAGE)?,
                other => bail!("unknown option {other}; {USAGE}"),
            }
        }
        ensure!(!options.suite.as_os_str().is_empty(), "where is the suite? {USAGE}");
        Ok(options)
    }
}

/// Installs Fairway and runs the suite on a cluster of its own.
pub(super) fn run(workspace: &Workspace, options: &IngressOptions) -> anyhow::Result<Outcome> {
    let build = || build_suite(workspace, &options.suite);
    let ground = Ground { image: image::build, options: &[], keep: options.keep };
    on_cluster(workspace, ground, build, || {
        if let Some(failure) = said_in_cluster(workspace, INSTALL)? {
            return Ok(failed(failure));
        }
        test(workspace, options)
    })
}

/// Runs the suite the requested number of times on a cluster with Fairway.
pub(super) fn test(workspace: &Workspace, options: &IngressOptions) -> anyhow::Result<Outcome> {
    let mut totals = Totals::default();
    let mut failures = Vec::new();
    for run in 1..=options.times {
        let played = play(workspace, run, options.times)?;
        totals += played.totals;
        failures.extend(played.failure);
    }
    let note = format!("Ingress conformance, runs: {}; scenarios: {totals}", options.times);
    let failure = (!failures.is_empty()).then(|| format!("{}\n{note}", failures.join("\n")));
    Ok(Outcome { note, failure, totals })
}

/// The file for the complete output of a run.
fn log_of_run(workspace: &Workspace, run: u32) -> PathBuf {
    workspace.root.join(format!("{FOLDER}/ingress-{run}.log"))
}

/// Builds the suite with the pinned libraries, and copies its features, so that changes in the checkout don't affect a run.
pub(super) fn build_suite(workspace: &Workspace, suite: &Path) -> anyhow::Result<Outcome> {
    let suite = suite.canonicalize().with_context(|| format!("opening {}", suite.display()))?;
    let folder = workspace.root.join(FOLDER);
    for (from, to) in [
        (workspace.root.join("e2e/tools/ingress-conformance"), folder.join("module")),
        (suite.join("features"), folder.join("features")),
    ] {
        fs::create_dir_all(&to).with_context(|| format!("creating {}", to.display()))?;
        for entry in fs::read_dir(&from).with_context(|| format!("reading {}", from.display()))? {
            let path = entry?.path();
            fs::copy(&path, to.join(path.file_name().unwrap_or_default()))
                .with_context(|| format!("copying {}", path.display()))?;
        }
    }
    let module = folder.join("module");
    let mut requirements =
        File::options().append(true).open(module.join("go.mod")).context("opening the copy of go.mod")?;
    writeln!(requirements, "\nreplace {MODULE} => {}", suite.display()).context("writing the copy of go.mod")?;
    let mut command = workspace.command("go");
    command.current_dir(&module).args(["test", "-c", "-trimpath", "-o"]).arg(program(workspace)).arg(MODULE);
    let finished = shell::run(&workspace.console, &mut command, |_| false)?;
    Ok(Outcome { failure: (!finished.success).then_some(finished.output), ..Outcome::default() })
}

/// The built suite.
fn program(workspace: &Workspace) -> PathBuf {
    workspace.root.join(FOLDER).join("ingress-conformance")
}

/// Runs the suite once.
fn play(workspace: &Workspace, run: u32, times: u32) -> anyhow::Result<Outcome> {
    let (begin, log) = (Instant::now(), log_of_run(workspace, run));
    let program = program(workspace);
    let mut command = inside(workspace, &[&*program.to_string_lossy()])?;
    command.args(SUITE).current_dir(workspace.root.join(FOLDER));
    let console = &workspace.console;
    let feature = RefCell::new(String::new());
    let finished = shell::run(console, &mut command, |line| {
        if let Some(name) = line.strip_prefix("Feature: ") {
            name.clone_into(&mut feature.borrow_mut());
        } else if let Some(totals) = scenarios(line) {
            console.line(&format!("run {run} of {times}: {}: {totals}", feature.borrow()));
        }
        false
    })?;
    fs::write(&log, &finished.output).with_context(|| format!("writing {}", log.display()))?;
    let outcome = judge(&finished.output, finished.success);
    let took = duration(begin.elapsed());
    let passed = outcome.totals.passed;
    console.line(&format!("run {run} of {times}: {passed} of {SCENARIOS} scenarios passed in {took}"));
    let failure =
        outcome.failure.map(|failure| format!("run {run} of {times}: {failure}\nall of it: {}", log.display()));
    Ok(Outcome { failure, ..outcome })
}

/// Derives the outcome from the suite's output.
fn judge(output: &str, success: bool) -> Outcome {
    let mut totals = Totals::default();
    output.lines().filter_map(scenarios).for_each(|scenarios| totals += scenarios);
    let all = totals.passed + totals.failed + totals.skipped;
    let failure = if totals.passed == SCENARIOS && all == SCENARIOS && success {
        None
    } else if all == 0 {
        Some(format!("the suite has not begun:\n{output}"))
    } else {
        Some(format!("{} of {SCENARIOS} scenarios passed\n{}", totals.passed, complaints(output)))
    };
    Outcome { note: String::new(), failure, totals }
}

/// The counts of a feature, as in `16 scenarios (15 passed, 1 failed)`.
fn scenarios(line: &str) -> Option<Totals> {
    let (number, rest) = line.split_once(" scenarios (")?;
    let _: u64 = number.parse().ok()?;
    let mut totals = Totals::default();
    for part in rest.trim_end().strip_suffix(')')?.split(", ") {
        let (count, word) = part.split_once(' ')?;
        let count: u64 = count.parse().ok()?;
        match word {
            "passed" => totals.passed += count,
            "failed" => totals.failed += count,
            // Undefined or pending.
            _ => totals.skipped += count,
        }
    }
    Some(totals)
}

/// The number of last lines to show if the suite fails without naming a step.
const LAST: usize = 10;

/// The suite's messages about failed steps, at the end of each feature, or else its last lines.
fn complaints(output: &str) -> String {
    let mut lines = Vec::new();
    let mut within = false;
    for line in output.lines() {
        within |= line.contains("Failed steps:");
        within &= scenarios(line).is_none();
        if within && !line.trim().is_empty() {
            lines.push(line);
        }
    }
    if lines.is_empty() {
        lines = output.lines().filter(|line| !line.contains("Warning: ")).collect();
        lines.drain(..lines.len().saturating_sub(LAST));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
Feature: Path rules
  Scenario: An Ingress with exact path rules # features/path_rules.feature:70

--- Failed steps:

  Scenario: An Ingress with exact path rules # features/path_rules.feature:70
    Then the response status-code must be 200 # features/path_rules.feature:72
      Error: expected status code 200 but 503 was returned

16 scenarios (15 passed, 1 failed)
90 steps (88 passed, 1 failed, 1 skipped)
10m2s
Feature: Default backend
6 scenarios (6 passed)
";

    #[test]
    fn scenarios_of_all_features_count_and_steps_do_not() {
        let outcome = judge(OUTPUT, false);
        assert_eq!(outcome.totals, Totals { passed: 21, failed: 1, skipped: 0 });
        let failure = outcome.failure.unwrap();
        assert!(failure.starts_with("21 of 30 scenarios passed\n"), "{failure}");
        assert!(failure.ends_with("Error: expected status code 200 but 503 was returned"), "{failure}");
    }

    #[test]
    fn all_scenarios_are_required() {
        let all = "24 scenarios (24 passed)\n6 scenarios (6 passed)\n";
        assert!(judge(all, true).failure.is_none());
        assert!(judge(all, false).failure.is_some(), "the suite itself failed");
        let few = judge("24 scenarios (24 passed)\n", true).failure.unwrap();
        assert!(few.starts_with("24 of 30 scenarios passed"), "{few}");
        let gone = "24 scenarios (24 passed)\nfeature path \"features/a.feature\" is not available\nFAIL\n";
        let gone = judge(gone, false).failure.unwrap();
        assert!(gone.contains("is not available"), "it says why: {gone}");
        let none = judge("error loading client", false).failure.unwrap();
        assert!(none.contains("error loading client"), "{none}");
        assert!(judge("24 scenarios (24 passed)\n6 scenarios (6 undefined)\n", true).failure.is_some());
    }

    #[test]
    fn the_suite_is_named_and_runs_once_by_default() {
        let parse = IngressOptions::parse;
        let suite = PathBuf::from("suite");
        assert_eq!(parse(&["--suite", "suite"]).unwrap(), IngressOptions { times: 1, keep: false, suite });
        assert_eq!(parse(&["--suite", "suite", "--times", "3"]).unwrap().times, 3);
        for words in [&[][..], &["--suite"], &["--suite", "suite", "--times", "0"], &["--suite", "suite", "--fast"]] {
            assert!(parse(words).unwrap_err().to_string().contains("usage: "), "{words:?}");
        }
    }
}
