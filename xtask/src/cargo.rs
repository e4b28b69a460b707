//! The steps that run a single cargo command.

use std::process::Command;

use crate::fuzz;
use crate::outcome::Outcome;
use crate::shell;
use crate::totals::Totals;
use crate::workspace::Workspace;

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

/// The build from the README's first command: without the feature `cluster` nothing may be unused, and missing commands must say so.
pub(crate) fn quick_start(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let of_fairway = ["--package", "fairway", "--no-default-features", "--locked"];
    let mut command = workspace.cargo();
    command.arg("clippy").args(of_fairway).args(["--bin", "fairway", "--", "-D", "warnings"]);
    let outcome = step(workspace, &mut command)?;
    if outcome.failure.is_some() {
        return Ok(outcome);
    }
    let mut command = workspace.cargo();
    command.arg("test").args(of_fairway);
    step(workspace, command.args(["--test", "examples", "--test", "without_cluster"]))
}

pub(crate) fn doc(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let mut command = workspace.cargo();
    command.args(["doc", "--workspace", "--no-deps", "--locked"]).env("RUSTDOCFLAGS", "-D warnings");
    step(workspace, &mut command)
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
