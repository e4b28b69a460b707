//! The steps that run a single cargo command.

use std::process::Command;

use crate::fuzz;
use crate::outcome::Outcome;
use crate::shell;
use crate::totals::Totals;
use crate::workspace::Workspace;

/// A small target that needs dev-dependencies. Cargo gives dependencies the features that these ask for only if such a target is among those
/// to build, and builds all of them twice if one command has such a target and the next has none, or if one names the workspace and the next
/// a package.
const AS_FOR_TESTS: [&str; 2] = ["--example", "routepolicy_crd"];

/// Formats the workspace and the fuzz targets outside it.
pub(crate) fn fmt(workspace: &Workspace) -> anyhow::Result<Outcome> {
    for manifest in ["Cargo.toml", fuzz::MANIFEST] {
        let mut command = workspace.cargo();
        command.args(["fmt", "--check", "--manifest-path", manifest]);
        if manifest == "Cargo.toml" {
            command.arg("--all");
        }
        let outcome = step(workspace, command.args(["--", "--color", "never"]))?;
        if outcome.failure.is_some() {
            return Ok(outcome);
        }
    }
    Ok(Outcome::default())
}

/// `--all-targets` omits the tests that `cargo test` omits, even if they are named beside it.
pub(crate) fn clippy(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let omitted: &[&str] = &["--test", "e2e", "--test", "image", "--test", "prometheus"];
    for targets in [&["--all-targets"], omitted] {
        let mut command = workspace.cargo();
        command.args(["clippy", "--workspace", "--locked"]).args(targets).args(["--", "-D", "warnings"]);
        let outcome = step(workspace, &mut command)?;
        if outcome.failure.is_some() {
            return Ok(outcome);
        }
    }
    Ok(Outcome::default())
}

/// The build from the README's first command: without the feature `cluster` nothing may be unused, and missing commands must say so. The
/// dependencies keep the features that the whole workspace gives them, so that they are built once for this and for all tests.
pub(crate) fn quick_start(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let without_cluster = ["--workspace", "--no-default-features", "--locked"];
    let mut command = workspace.cargo();
    command.arg("clippy").args(without_cluster).args(["--bin", "fairway"]).args(AS_FOR_TESTS);
    let outcome = step(workspace, command.args(["--", "-D", "warnings"]))?;
    if outcome.failure.is_some() {
        return Ok(outcome);
    }
    let mut command = workspace.cargo();
    command.arg("test").args(without_cluster);
    step(workspace, command.args(["--test", "examples", "--test", "without_cluster"]))
}

pub(crate) fn doc(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let mut command = workspace.cargo();
    command.args(["doc", "--workspace", "--no-deps", "--locked", "--lib", "--bins"]).args(AS_FOR_TESTS);
    step(workspace, command.env("RUSTDOCFLAGS", "-D warnings"))
}

/// Builds programs and examples of the workspace into `target/debug`, from the dependencies that the tests have.
pub(crate) fn build(workspace: &Workspace, targets: &[&str]) -> anyhow::Result<Outcome> {
    let mut command = workspace.cargo();
    step(workspace, command.args(["build", "--workspace", "--locked"]).args(targets).args(AS_FOR_TESTS))
}

/// Runs every test binary and every documentation example, even after a failure, so that the totals are complete.
pub(crate) fn test(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let mut command = workspace.cargo();
    command.args(["test", "--workspace", "--no-fail-fast", "--locked"]);
    let finished = shell::run(&workspace.console, &mut command, |line| {
        let line = line.trim_start();
        Totals::parse(line).is_some() || line.starts_with("Running ") || line.starts_with("Doc-tests ")
    })?;
    let mut totals = Totals::sum(&finished.output);
    if !finished.success && totals.failed == 0 {
        // A binary that wasn't built or that crashed prints no counts; the totals must not look clean.
        totals.failed = 1;
    }
    let failure = if !finished.success {
        Some(without_passed(&finished.output))
    } else if totals.passed == 0 {
        Some(format!("no test was run:\n{}", finished.output))
    } else {
        None
    };
    Ok(Outcome { note: totals.to_string(), failure, totals })
}

/// The output without the lines of passed tests, so that failures are easier to find.
fn without_passed(output: &str) -> String {
    let passed = |line: &&str| line.starts_with("test ") && line.trim_end().ends_with(" ... ok");
    output.split_inclusive('\n').filter(|line| !passed(line)).collect()
}

fn step(workspace: &Workspace, command: &mut Command) -> anyhow::Result<Outcome> {
    let finished = shell::run(&workspace.console, command, |_| false)?;
    let failure = (!finished.success).then(|| format!("`{}` failed:\n{}", shell::display(command), finished.output));
    Ok(Outcome { failure, ..Outcome::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_kept() {
        let output = "running 2 tests\ntest a ... ok\ntest b ... FAILED\n\nfailures:\n";
        assert_eq!(without_passed(output), "running 2 tests\ntest b ... FAILED\n\nfailures:\n");
    }
}
