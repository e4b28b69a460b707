//! `cargo xtask e2e`: runs the end-to-end tests on a real control plane, which exists only for the run.

use std::process::Command;

use anyhow::Context;

use crate::lock::Lock;
use crate::outcome::Outcome;
use crate::shell::Finished;
use crate::totals::Totals;
use crate::workspace::Workspace;
use crate::{cluster, ecosystem, image, needs, shell, tools};

/// The cluster shared by the tests.
const CLUSTER: &str = "e2e";

/// How many tests run in parallel: most of them wait most of the time.
const THREADS: &str = "4";

/// Tests that run alone, in this order, after all others: those that measure, and the one that judges the traces of all others.
const ALONE: [&str; 2] = ["churn::", JUDGE];

/// The test that judges the audit logs of all others, and therefore runs only with all of them.
const JUDGE: &str = "rights::";

/// The tests with cert-manager and external-dns. They run only on request, because these programs take minutes to build.
const ECOSYSTEM: &str = "ecosystem::";

/// Held while tests run: a second run would stop the first one's cluster.
const LOCK: &str = "target/e2e.lock";

/// The options of a run.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Options {
    /// Substrings of test names; empty for all.
    names: Vec<String>,
    /// Keep the cluster.
    keep: bool,
    /// Run a development build in place of the image.
    development: bool,
}

impl Options {
    /// Whether the tests with other projects' controllers are asked for.
    fn ecosystem(&self) -> bool {
        asks_for_ecosystem(&self.names)
    }

    pub(crate) fn parse(words: &[&str]) -> anyhow::Result<Self> {
        let mut options = Self::default();
        for word in words {
            match *word {
                "--keep" => options.keep = true,
                "--development" => options.development = true,
                flag if flag.starts_with('-') => {
                    anyhow::bail!("unknown option {flag}; usage: cargo xtask e2e [NAME...] [--keep] [--development]")
                }
                name => options.names.push(name.to_owned()),
            }
        }
        Ok(options)
    }

    /// Why these tests can't be run, if they can't.
    fn refusal(&self) -> Option<String> {
        let names_judge = |name: &String| name.starts_with(JUDGE.trim_end_matches(':'));
        self.names.iter().any(names_judge).then(|| {
            format!(
                "{JUDGE} judges what all other tests have asked the API server for: run all with `cargo xtask e2e`. What a run of \
                 all with --keep has left is judged once more by\n  FAIRWAY_CLUSTER={CLUSTER} cargo test --workspace --test e2e {JUDGE}"
            )
        })
    }
}

/// Runs all tests.
pub(crate) fn all(workspace: &Workspace) -> anyhow::Result<Outcome> {
    run(workspace, &Options::default())
}

/// Builds missing parts, starts the cluster, runs the tests, and stops the cluster.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> anyhow::Result<Outcome> {
    if let Some(refusal) = options.refusal() {
        return Ok(failed(refusal));
    }
    let _lock = match Lock::take(&workspace.root.join(LOCK))? {
        Ok(lock) => lock,
        Err(holder) => {
            return Ok(failed(format!("end-to-end tests run already in this tree, on the same cluster: {holder}")));
        }
    };
    if let Some(refusal) = lack_of_namespaces(workspace) {
        return Ok(failed(refusal));
    }
    if options.ecosystem() {
        let lack = needs::check_for(workspace, "e2e ecosystem")?;
        if lack.failure.is_some() {
            return Ok(lack);
        }
    }
    let image = if options.development { image::build_development } else { image::build };
    let others = if options.ecosystem() { ecosystem::build } else { |_: &Workspace| Ok(Outcome::default()) };
    for step in [tools::build, image, others, cluster::build, build] {
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
    // A killed run may have left a cluster.
    fairway_cluster(&["down", "--name", CLUSTER])?;
    let up = fairway_cluster(&["up", "--name", CLUSTER])?;
    if !up.success {
        return Ok(failed(up.output));
    }
    let tests = test(workspace, options);
    if options.keep {
        workspace.console.line(&format!("the cluster goes on: cargo xtask cluster status --name {CLUSTER}"));
        return tests;
    }
    both(CLUSTER, tests, fairway_cluster(&["down", "--name", CLUSTER]))
}

/// Why no cluster can be started here, if none can.
pub(crate) fn lack_of_namespaces(workspace: &Workspace) -> Option<String> {
    let mut command = workspace.command("unshare");
    command.args(["--net", "--mount", "--pid", "--fork", "--mount-proc", "true"]);
    (!shell::succeeds(&mut command)).then(|| {
        "`unshare --net --mount --pid` does not work: a cluster needs root (CAP_SYS_ADMIN and CAP_NET_ADMIN) and the Debian \
         package util-linux. Run this as root, in a container with --privileged, or in a virtual machine."
            .to_owned()
    })
}

/// Combines the outcomes of the tests and of stopping their cluster: neither failure hides the other.
pub(crate) fn both(
    cluster: &str,
    tests: anyhow::Result<Outcome>,
    down: anyhow::Result<Finished>,
) -> anyhow::Result<Outcome> {
    let trouble = match down {
        Ok(Finished { success: true, .. }) => return tests,
        Ok(Finished { output, .. }) => output,
        Err(error) => format!("{error:#}"),
    };
    let trouble = format!("the cluster {cluster} doesn't end: {trouble}");
    let mut outcome = tests.with_context(|| trouble.clone())?;
    outcome.failure = Some(outcome.failure.map(|failure| failure + "\n").unwrap_or_default() + &trouble);
    Ok(outcome)
}

/// Compiles the tests in advance, so that they don't lose time to it. With the whole workspace, because dependencies built for one package
/// alone have other features and would be built twice.
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
        // Tests that measure or judge show their figures.
        let shows = arguments.iter().any(|argument| argument == "--nocapture");
        let finished = shell::run(&workspace.console, &mut command, |line| shows || line.starts_with("test "))?;
        totals += Totals::sum(&finished.output);
        if !finished.success {
            let place = format!("\nlogs of all components: target/cluster/{CLUSTER}/logs; of failed tests: target/e2e");
            return Ok(Outcome { failure: Some(finished.output + &place), totals, ..Outcome::default() });
        }
    }
    let none =
        || format!("no test is called {}, but for {JUDGE}, which runs only with all", options.names.join(" or "));
    let failure = (totals.passed == 0).then(none);
    Ok(Outcome { note: totals.to_string(), failure, totals })
}

/// Whether one of these names belongs to a test with other projects' controllers, or to all of them.
fn asks_for_ecosystem(names: &[String]) -> bool {
    names.iter().any(|name| name.starts_with(ECOSYSTEM.trim_end_matches(':')))
}

/// The arguments of the test binary for each of its runs.
fn passes(names: &[String]) -> Vec<Vec<String>> {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    let apart = if asks_for_ecosystem(names) { words(&[]) } else { words(&["--skip", ECOSYSTEM]) };
    if !names.is_empty() {
        let options = words(&["--test-threads", THREADS, "--nocapture", "--skip", JUDGE]);
        return vec![[options, apart, names.to_vec()].concat()];
    }
    let mut together = [words(&["--test-threads", THREADS]), apart].concat();
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
    fn tests_that_run_alone_are_skipped_in_the_main_run() {
        let passes = passes(&[]);
        let skipped = ["--skip", "ecosystem::", "--skip", "churn::", "--skip", "rights::"];
        assert_eq!(passes[0], [&["--test-threads", THREADS][..], &skipped].concat());
        assert_eq!(passes[1..], [["churn::", "--nocapture"], ["rights::", "--nocapture"]]);
    }

    #[test]
    fn names_choose_tests_but_the_one_that_judges_all() {
        let options = Options::parse(&["churn", "--keep"]).unwrap();
        assert_eq!(options, Options { names: vec!["churn".to_owned()], keep: true, development: false });
        assert_eq!(options.refusal(), None);
        let skipped = ["--nocapture", "--skip", "rights::", "--skip", "ecosystem::"];
        assert_eq!(passes(&options.names), [[&["--test-threads", THREADS][..], &skipped, &["churn"]].concat()]);
        for name in ["rights", "rights::no_request"] {
            let refusal = Options::parse(&["pod", name]).unwrap().refusal().unwrap();
            assert!(refusal.contains("run all with `cargo xtask e2e`"), "{refusal}");
        }
        assert!(Options::parse(&["--fast"]).unwrap_err().to_string().contains("unknown option --fast"));
    }

    #[test]
    fn tests_with_other_controllers_run_only_by_their_name() {
        let passes = |name: &str| passes(&[name.to_owned()]).remove(0);
        let is_skipped = |name: &str| passes(name).windows(2).any(|words| words == ["--skip", "ecosystem::"]);
        // This is also part of such a test's name.
        assert!(is_skipped("certificate"));
        assert!(!is_skipped("ecosystem") && !is_skipped("ecosystem::a_certificate"));
    }

    #[test]
    fn a_cluster_that_does_not_end_hides_no_failure() {
        let down = || Ok(Finished { success: false, output: "it hangs".to_owned() });
        let tests = |failure: Option<&str>| Outcome { failure: failure.map(str::to_owned), ..Outcome::default() };
        let failure = |tests| both(CLUSTER, tests, down()).unwrap().failure.unwrap();
        assert_eq!(failure(Ok(tests(Some("a test failed")))), "a test failed\nthe cluster e2e doesn't end: it hangs");
        assert_eq!(failure(Ok(tests(None))), "the cluster e2e doesn't end: it hangs");
        let error = both(CLUSTER, Err(anyhow::anyhow!("no cargo")), down()).unwrap_err();
        assert_eq!(format!("{error:#}"), "the cluster e2e doesn't end: it hangs: no cargo");
        let fine = Finished { success: true, output: String::new() };
        assert_eq!(
            both(CLUSTER, Ok(tests(Some("a test failed"))), Ok(fine)).unwrap().failure.unwrap(),
            "a test failed"
        );
    }
}
