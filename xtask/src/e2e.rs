//! `cargo xtask e2e`: the end-to-end tests on a real control plane, which lives as long as they do.

use std::process::Command;

use crate::outcome::Outcome;
use crate::totals::Totals;
use crate::workspace::Workspace;
use crate::{cluster, image, shell, tools};

/// The cluster that tests share.
const CLUSTER: &str = "e2e";

/// How many tests run at a time: most of them wait most of the time.
const THREADS: &str = "4";

/// What runs alone, in this order, when everything else has ended: what measures, and what judges the traces of all others.
const ALONE: [&str; 2] = ["churn::", "rights::"];

/// What is asked for.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Options {
    /// Parts of the names of tests; none for all.
    names: Vec<String>,
    /// The cluster stays.
    keep: bool,
}

impl Options {
    pub(crate) fn parse(words: &[&str]) -> anyhow::Result<Self> {
        let mut options = Self::default();
        for word in words {
            match *word {
                "--keep" => options.keep = true,
                flag if flag.starts_with('-') => {
                    anyhow::bail!("unknown option {flag}; usage: cargo xtask e2e [NAME...] [--keep]")
                }
                name => options.names.push(name.to_owned()),
            }
        }
        Ok(options)
    }
}

/// All tests.
pub(crate) fn all(workspace: &Workspace) -> anyhow::Result<Outcome> {
    run(workspace, &Options::default())
}

/// Builds what is missing, starts the cluster, runs the tests, ends the cluster.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<Outcome> {
    if !shell::succeeds(workspace.command("unshare").args([
        "--net",
        "--mount",
        "--pid",
        "--fork",
        "--mount-proc",
        "true",
    ])) {
        return Ok(failed(
            "`unshare --net --mount --pid` does not work: end-to-end tests need root (CAP_SYS_ADMIN and CAP_NET_ADMIN) and the \
             Debian package util-linux. Run them as root, in a container with --privileged, or in a virtual machine."
                .to_owned(),
        ));
    }
    for step in [tools::build, image::build, cluster::build, build] {
        let outcome = step(workspace)?;
        if outcome.failure.is_some() {
            return Ok(outcome);
        }
    }
    let program = cluster::binary(workspace)?;
    let fairway_cluster = |words: &[&str]| {
        let mut command = workspace.command(&*program.to_string_lossy());
        command.args(words);
        shell::run(&workspace.console, &mut command, |_| false)
    };
    // Of a run that was ended by force.
    fairway_cluster(&["down", "--name", CLUSTER])?;
    let up = fairway_cluster(&["up", "--name", CLUSTER])?;
    if !up.success {
        return Ok(failed(up.output));
    }
    let outcome = test(workspace, options);
    if options.keep {
        workspace.console.line(&format!("the cluster goes on: cargo xtask cluster status --name {CLUSTER}"));
    } else {
        let down = fairway_cluster(&["down", "--name", CLUSTER])?;
        if !down.success {
            return Ok(failed(down.output));
        }
    }
    outcome
}

/// Compiles the tests, so that none of their time is spent on it. With the whole workspace, because dependencies built for one
/// package alone have other features and would be built twice.
fn build(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let mut command = workspace.cargo();
    command.args(["test", "--locked", "--workspace", "--test", "e2e", "--no-run"]);
    let finished = shell::run(&workspace.console, &mut command, |_| false)?;
    Ok(Outcome { failure: (!finished.success).then_some(finished.output), ..Outcome::default() })
}

fn test(workspace: &Workspace, options: &Options) -> anyhow::Result<Outcome> {
    let mut totals = Totals::default();
    for arguments in passes(&options.names) {
        let mut command: Command = workspace.cargo();
        command.args(["test", "--locked", "--workspace", "--test", "e2e", "--"]).args(&arguments);
        command.env("FAIRWAY_CLUSTER", CLUSTER).env("RUST_BACKTRACE", "0");
        // What measures, or judges, shows its figures.
        let shows = arguments.iter().any(|argument| argument == "--nocapture");
        let finished = shell::run(&workspace.console, &mut command, |line| shows || line.starts_with("test "))?;
        totals += Totals::sum(&finished.output);
        if !finished.success {
            let place = format!("\nlogs of all components: target/cluster/{CLUSTER}/logs; of failed tests: target/e2e");
            return Ok(Outcome { failure: Some(finished.output + &place), totals, ..Outcome::default() });
        }
    }
    let failure = (totals.passed == 0).then(|| format!("no test is called {}", options.names.join(" or ")));
    Ok(Outcome { note: totals.to_string(), failure, totals })
}

/// The arguments of the test binary, for each of its runs.
fn passes(names: &[String]) -> Vec<Vec<String>> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    if !names.is_empty() {
        return vec![[words(&["--test-threads", THREADS, "--nocapture"]), names.to_vec()].concat()];
    }
    let mut together = words(&["--test-threads", THREADS]);
    for name in ALONE {
        together.extend(words(&["--skip", name]));
    }
    let alone = ALONE.iter().map(|name| words(&[name, "--nocapture"]));
    std::iter::once(together).chain(alone).collect()
}

fn failed(failure: String) -> Outcome {
    Outcome { failure: Some(failure), ..Outcome::default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_runs_alone_is_left_out_of_the_run_of_all_others() {
        let passes = passes(&[]);
        assert_eq!(passes[0], ["--test-threads", THREADS, "--skip", "churn::", "--skip", "rights::"]);
        assert_eq!(passes[1..], [["churn::", "--nocapture"], ["rights::", "--nocapture"]]);
    }

    #[test]
    fn names_choose_tests_whatever_they_are() {
        let options = Options::parse(&["rights", "--keep"]).unwrap();
        assert_eq!(options, Options { names: vec!["rights".to_owned()], keep: true });
        assert_eq!(passes(&options.names), [["--test-threads", THREADS, "--nocapture", "rights"]]);
        assert!(Options::parse(&["--fast"]).unwrap_err().to_string().contains("unknown option --fast"));
    }
}
