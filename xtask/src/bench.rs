//! Benchmarks that count instructions, so that they say the same on a busy machine, and fail by themselves when a cost grows.

use crate::outcome::Outcome;
use crate::shell;
use crate::workspace::Workspace;

/// Package and benchmark.
const COUNTED: &[(&str, &str)] = &[("fairway-model", "lookup")];

pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<Outcome> {
    for (package, bench) in COUNTED {
        let mut command = workspace.cargo();
        // Quiet: what is left is the table that the benchmark prints.
        command.args(["bench", "--quiet", "--locked", "--package", package, "--bench", bench]);
        let finished = shell::run(&workspace.console, &mut command, |_| true)?;
        if !finished.success {
            let failure = format!("`{}` failed:\n{}", shell::display(&command), finished.output);
            return Ok(Outcome { failure: Some(failure), ..Outcome::default() });
        }
    }
    Ok(Outcome::passed(format!("{} benchmarks", COUNTED.len())))
}
