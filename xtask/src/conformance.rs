//! `cargo xtask conformance`: runs the official conformance suites of the Kubernetes project against Fairway on its own cluster.

mod both;
mod gateway;
mod ingress;

use std::process::Command;

use anyhow::{Context, bail, ensure};

use crate::lock::Lock;
use crate::outcome::Outcome;
use crate::workspace::Workspace;
use crate::{cluster, e2e, shell, tools};

/// The cluster to run on.
const CLUSTER: &str = "conformance";

/// The folder for the built suites and their output.
const FOLDER: &str = "target/conformance";

/// Held while a suite runs: a second run would stop the first one's cluster.
const LOCK: &str = "target/conformance/lock";

/// Which suite to run, and how.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum ConformanceOptions {
    Ingress(ingress::IngressOptions),
    Gateway(gateway::GatewayOptions),
    /// Both suites at the same time on one installation.
    Both(ingress::IngressOptions),
}

impl ConformanceOptions {
    pub(crate) fn parse(words: &[&str]) -> anyhow::Result<Self> {
        match words {
            ["ingress", words @ ..] => Ok(Self::Ingress(ingress::IngressOptions::parse(words)?)),
            ["gateway", words @ ..] => Ok(Self::Gateway(gateway::GatewayOptions::parse(words)?)),
            ["both", words @ ..] => Ok(Self::Both(ingress::IngressOptions::parse(words)?)),
            _ => bail!("which suite? {}\n{}\n{}", ingress::USAGE, gateway::USAGE, both::USAGE),
        }
    }
}

/// One run of the Gateway API's whole suite, for CI.
pub(crate) fn of_ci(workspace: &Workspace) -> anyhow::Result<Outcome> {
    gateway::run(workspace, &gateway::GatewayOptions::default())
}

/// Builds the suite of the Gateway API.
pub(crate) fn build_gateway(workspace: &Workspace) -> anyhow::Result<Outcome> {
    gateway::build_suite(workspace)
}

/// How to start a suite's cluster, and whether to keep it.
#[derive(Clone, Copy)]
struct Ground {
    /// Builds what Fairway's containers run.
    image: fn(&Workspace) -> anyhow::Result<Outcome>,
    /// Options of the cluster.
    options: &'static [&'static str],
    /// Keep the cluster.
    keep: bool,
}

/// Runs a suite.
pub(crate) fn run(workspace: &Workspace, options: &ConformanceOptions) -> anyhow::Result<Outcome> {
    match options {
        ConformanceOptions::Ingress(options) => ingress::run(workspace, options),
        ConformanceOptions::Gateway(options) => gateway::run(workspace, options),
        ConformanceOptions::Both(options) => both::run(workspace, options),
    }
}

/// Builds missing parts and the suite, starts the cluster, runs the suite, and stops the cluster unless it is kept.
fn on_cluster(
    workspace: &Workspace,
    ground: Ground,
    build_suite: impl FnOnce() -> anyhow::Result<Outcome>,
    suite: impl FnOnce() -> anyhow::Result<Outcome>,
) -> anyhow::Result<Outcome> {
    let _lock = match Lock::take(&workspace.root.join(LOCK))? {
        Ok(lock) => lock,
        Err(holder) => {
            return Ok(failed(format!("a suite runs already in this tree, on the same cluster: {holder}")));
        }
    };
    if let Some(refusal) = e2e::lack_of_namespaces(workspace) {
        return Ok(failed(refusal));
    }
    for build in [tools::build, ground.image, cluster::build] {
        let outcome = build(workspace)?;
        if outcome.failure.is_some() {
            return Ok(outcome);
        }
    }
    let outcome = build_suite()?;
    if outcome.failure.is_some() {
        return Ok(outcome);
    }
    let console = &workspace.console;
    let call = |words: &[&str]| shell::run(console, &mut fairway_cluster(workspace, words)?, |_| false);
    // A killed run may have left a cluster.
    call(&["down", "--name", CLUSTER])?;
    console.line(&format!("starting the cluster {CLUSTER}"));
    let up = call(&[&["up", "--name", CLUSTER], ground.options].concat())?;
    if !up.success {
        return Ok(failed(up.output));
    }
    let outcome = suite();
    if ground.keep {
        console.line(&format!("the cluster goes on: cargo xtask cluster status --name {CLUSTER}"));
        return outcome;
    }
    e2e::both(CLUSTER, outcome, call(&["down", "--name", CLUSTER]))
}

/// Runs a command, given as words, inside the cluster's network. Returns its output if it fails.
fn in_cluster(workspace: &Workspace, words: &[&str]) -> anyhow::Result<Option<String>> {
    let mut command = inside(workspace, words)?;
    let finished = shell::run(&workspace.console, &mut command, |_| false)?;
    Ok((!finished.success).then_some(finished.output))
}

/// Prints a command and runs it inside the cluster's network. Returns its output if it fails.
fn said_in_cluster(workspace: &Workspace, line: &str) -> anyhow::Result<Option<String>> {
    workspace.console.line(line);
    in_cluster(workspace, &line.split_whitespace().collect::<Vec<_>>())
}

/// A command inside the cluster's network.
fn inside(workspace: &Workspace, words: &[&str]) -> anyhow::Result<Command> {
    fairway_cluster(workspace, &[&["exec", "--name", CLUSTER, "--"], words].concat())
}

fn fairway_cluster(workspace: &Workspace, words: &[&str]) -> anyhow::Result<Command> {
    let mut command = workspace.command(cluster::binary(workspace)?);
    command.args(words);
    Ok(command)
}

/// The number after an option, which must not be 0.
fn number(option: &str, word: Option<&&str>, usage: &str) -> anyhow::Result<u32> {
    let number =
        word.and_then(|word| word.parse().ok()).with_context(|| format!("{option} takes a number; {usage}"))?;
    ensure!(number > 0, "{option} takes a number above 0; {usage}");
    Ok(number)
}

fn failed(failure: String) -> Outcome {
    Outcome { failure: Some(failure), ..Outcome::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_names_the_suite() {
        assert!(matches!(ConformanceOptions::parse(&["gateway"]), Ok(ConformanceOptions::Gateway(_))));
        let ingress = ConformanceOptions::parse(&["ingress", "--suite", "suite"]);
        assert!(matches!(ingress, Ok(ConformanceOptions::Ingress(_))));
        assert!(matches!(ConformanceOptions::parse(&["both", "--suite", "suite"]), Ok(ConformanceOptions::Both(_))));
        for words in [&["other"][..], &[]] {
            let error = ConformanceOptions::parse(words).unwrap_err().to_string();
            assert!(error.contains("ingress --suite FOLDER") && error.contains("gateway [TEST...]"), "{error}");
        }
    }
}
