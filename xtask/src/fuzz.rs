//! Runs the fuzz targets for a short time: enough to see that they work and to find shallow bugs.
//!
//! The targets are built as cargo-fuzz builds them, but without cargo-fuzz and without AddressSanitizer: our crates
//! forbid unsafe code, so it would find nothing that a panic doesn't show, and it halves the speed.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::Context;
use serde_json::Value;

use crate::outcome::Outcome;
use crate::shell;
use crate::workspace::Workspace;

/// Outside the workspace, because only nightly can build it.
pub(crate) const MANIFEST: &str = "fuzz/Cargo.toml";
const TRIPLE: &str = "x86_64-unknown-linux-gnu";

/// The flags of cargo-fuzz 0.13: coverage for libFuzzer, and the checks of a debug build in optimised code.
const FLAGS: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "--cfg=fuzzing",
    "-Cdebug-assertions",
    "-Ccodegen-units=1",
];

/// The options of a run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FuzzOptions {
    /// One target; `None` for all.
    target: Option<String>,
    /// How long each target runs.
    seconds: u64,
    /// Where libFuzzer's random numbers begin; `None` for another start each time.
    seed: Option<u32>,
}

impl Default for FuzzOptions {
    fn default() -> Self {
        Self { target: None, seconds: 10, seed: None }
    }
}

impl FuzzOptions {
    pub(crate) fn parse(words: &[&str]) -> anyhow::Result<Self> {
        let mut options = Self::default();
        let mut words = words.iter();
        while let Some(&word) = words.next() {
            if word == "--seconds" {
                let value = words.next().context("--seconds needs a number")?;
                options.seconds = value.parse().with_context(|| format!("--seconds {value}"))?;
            } else if word.starts_with('-') || options.target.is_some() {
                anyhow::bail!("unknown option of fuzz: {word}");
            } else {
                options.target = Some(word.to_owned());
            }
        }
        Ok(options)
    }
}

/// Runs every target for five seconds, always with the same random numbers, so that a failure is due to the change at hand.
pub(crate) fn smoke(workspace: &Workspace) -> anyhow::Result<Outcome> {
    run(workspace, &FuzzOptions { seed: Some(1), seconds: 5, ..FuzzOptions::default() })
}

pub(crate) fn run(workspace: &Workspace, options: &FuzzOptions) -> anyhow::Result<Outcome> {
    let mut targets = targets(workspace)?;
    if let Some(wanted) = &options.target {
        anyhow::ensure!(targets.contains(wanted), "no fuzz target {wanted}; there are {}", targets.join(", "));
        targets.retain(|target| target == wanted);
    }
    anyhow::ensure!(!targets.is_empty(), "{MANIFEST} declares no target");

    let built = build(workspace)?;
    if built.failure.is_some() {
        return Ok(built);
    }
    let folder = folder(workspace)?;
    if let Some(failure) = run_all(workspace, &folder, &targets, options)? {
        return Ok(Outcome { failure: Some(failure), ..Outcome::default() });
    }
    Ok(Outcome::passed(format!("{} targets, {} s each", targets.len(), options.seconds)))
}

/// Runs as many targets side by side as there are cores: each is one thread. Returns the first failure, if any.
fn run_all(
    workspace: &Workspace,
    folder: &Path,
    targets: &[String],
    options: &FuzzOptions,
) -> anyhow::Result<Option<String>> {
    let waiting = Mutex::new(targets.iter());
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || -> anyhow::Result<Option<String>> {
        while let Some(target) = next() {
            let failure = run_one(workspace, folder, target, options)?;
            if failure.is_some() {
                return Ok(failure);
            }
        }
        Ok(None)
    };
    thread::scope(|scope| {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        let mut failures = workers.into_iter().map(|worker| worker.join().expect("no worker panics"));
        failures.find(|failure| !matches!(failure, Ok(None))).unwrap_or(Ok(None))
    })
}

/// The names of the programs in the fuzz package.
fn targets(workspace: &Workspace) -> anyhow::Result<Vec<String>> {
    let mut command = workspace.cargo();
    command.args(["metadata", "--format-version", "1", "--no-deps", "--manifest-path", MANIFEST]);
    let json = serde_json::from_slice(&shell::read(&mut command)?).context("cargo metadata printed no JSON")?;
    programs(&json).context("cargo metadata printed unexpected data")
}

fn programs(metadata: &Value) -> Option<Vec<String>> {
    let mut names = Vec::new();
    for package in metadata["packages"].as_array()? {
        for target in package["targets"].as_array()? {
            if target["kind"].as_array()?.iter().any(|kind| kind == "bin") {
                names.push(target["name"].as_str()?.to_owned());
            }
        }
    }
    names.sort();
    Some(names)
}

/// Not shared with other builds, which have other flags.
fn folder(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    Ok(workspace.target_folder()?.join("fuzz"))
}

/// Builds all targets.
pub(crate) fn build(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let mut command = workspace.command("rustup");
    command.args(["run", "nightly", "cargo", "build", "--release", "--bins", "--manifest-path", MANIFEST]);
    // If a target is named, the flags do not reach build scripts and procedural macros.
    command.args(["--target", TRIPLE, "--target-dir"]).arg(folder(workspace)?);
    command.env("RUSTFLAGS", FLAGS.join(" ")).env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN");
    let finished = shell::run(&workspace.console, &mut command, |_| false)?;
    Ok(Outcome { failure: (!finished.success).then_some(finished.output), ..Outcome::default() })
}

fn run_one(
    workspace: &Workspace,
    folder: &Path,
    target: &str,
    options: &FuzzOptions,
) -> anyhow::Result<Option<String>> {
    let corpus = format!("fuzz/corpus/{target}");
    let artifacts = format!("fuzz/artifacts/{target}/");
    for folder in [&corpus, &artifacts] {
        std::fs::create_dir_all(workspace.root.join(folder)).with_context(|| folder.clone())?;
    }
    let mut command = workspace.command(folder.join(TRIPLE).join("release").join(target));
    command.arg(format!("-max_total_time={}", options.seconds)).arg(format!("-artifact_prefix={artifacts}"));
    // An input that takes five seconds or 2 GiB is a finding.
    command.args(["-timeout=5", "-rss_limit_mb=2048", "-print_final_stats=1"]).arg(&corpus);
    if let Some(seed) = options.seed {
        command.arg(format!("-seed={seed}"));
    }
    // Initial inputs, if the target has any: read, never written.
    let seeds = format!("fuzz/seeds/{target}");
    if workspace.root.join(&seeds).is_dir() {
        command.arg(seeds);
    }
    let finished = shell::run(&workspace.console, &mut command, |_| false)?;
    if !finished.success {
        return Ok(Some(format!("fuzz target {target} failed; the input is in {artifacts}\n{}", finished.output)));
    }
    let runs = executions(&finished.output).context("libFuzzer did not say how many inputs it ran")?;
    workspace.console.line(&format!("  {target}: {runs} inputs"));
    Ok(None)
}

/// How many inputs were run, from the final statistics.
fn executions(output: &str) -> Option<u64> {
    output.lines().find_map(|line| line.strip_prefix("stat::number_of_executed_units:")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read_in_any_order() {
        let parsed = FuzzOptions { target: Some("head".to_owned()), seconds: 60, seed: None };
        assert_eq!(FuzzOptions::parse(&["head", "--seconds", "60"]).unwrap(), parsed);
        assert_eq!(FuzzOptions::parse(&["--seconds", "60", "head"]).unwrap(), parsed);
        assert_eq!(FuzzOptions::parse(&[]).unwrap(), FuzzOptions::default());
        for wrong in [&["--seconds"][..], &["--seconds", "soon"], &["a", "b"], &["--jobs"]] {
            assert!(FuzzOptions::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn programs_are_the_targets() {
        let target = |name: &str, kind: &str| serde_json::json!({ "name": name, "kind": [kind] });
        let json = serde_json::json!({ "packages": [{ "targets": [target("b", "bin"), target("x", "lib"), target("a", "bin")] }] });
        assert_eq!(programs(&json), Some(vec!["a".to_owned(), "b".to_owned()]));
    }

    #[test]
    fn final_statistics_are_read() {
        assert_eq!(executions("Done\nstat::number_of_executed_units: 123\nstat::x: 1"), Some(123));
        assert_eq!(executions("Done"), None);
    }
}
