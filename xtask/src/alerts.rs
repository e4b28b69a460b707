//! `cargo xtask alerts`: checks the chart's rules and dashboard with the programs that use them.

use std::path::PathBuf;
use std::process::Command;

use crate::chart;
use crate::outcome::Outcome;
use crate::shell;
use crate::tools;
use crate::totals::Totals;
use crate::workspace::Workspace;

/// Promtool's commands, each with the file of the chart that it checks.
const QUESTIONS: [(&[&str], &str); 2] = [
    (&["check", "rules", "--lint=all", "--lint-fatal"], "files/alerts.yaml"),
    (&["test", "rules"], "tests/alerts.yaml"),
];

/// Runs promtool's checks and tests of the rules, and lets a Prometheus that scrapes a Fairway answer every query.
pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let built = tools::build_for_alerts(workspace)?;
    if built.failure.is_some() {
        return Ok(built);
    }
    let promtool: PathBuf = workspace.root.join("target/tools/bin/promtool");
    for (words, file) in QUESTIONS {
        let mut command = Command::new(&promtool);
        let finished = shell::run(
            &workspace.console,
            command.args(words).arg(workspace.root.join(chart::FOLDER).join(file)),
            |_| false,
        )?;
        if !finished.success {
            return Ok(Outcome { failure: Some(finished.output), ..Outcome::default() });
        }
    }
    // Built with the whole workspace: dependencies built for one package alone have other features, and would be built twice.
    let mut command = workspace.cargo();
    command.args(["test", "--locked", "--workspace", "--test", "prometheus"]);
    let finished = shell::run(&workspace.console, &mut command, |line| line.starts_with("test "))?;
    let totals = Totals::sum(&finished.output);
    Ok(Outcome { failure: (!finished.success).then_some(finished.output), note: totals.to_string(), totals })
}
