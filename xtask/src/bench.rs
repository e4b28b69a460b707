//! Benchmarks that count instructions, so that results don't depend on how busy the machine is, and that fail when a cost grows.

use std::path::{Path, PathBuf};

use crate::outcome::Outcome;
use crate::workspace::Workspace;
use crate::{image, shell};

mod client;
pub(crate) mod peers;
mod request;

/// Package and benchmark.
const COUNTED: &[(&str, &str)] = &[("fairway-model", "lookup")];

/// Counts everything: pure code with the benchmarks of its crate, a request with the image's binary, which is built if missing.
pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<Outcome> {
    for (package, bench) in COUNTED {
        let mut command = workspace.cargo();
        // Quiet: only the benchmark's table remains.
        command.args(["bench", "--quiet", "--locked", "--package", package, "--bench", bench]);
        let finished = shell::run(&workspace.console, &mut command, |_| true)?;
        if !finished.success {
            let failure = format!("`{}` failed:\n{}", shell::display(&command), finished.output);
            return Ok(Outcome { failure: Some(failure), ..Outcome::default() });
        }
    }
    let binary = workspace.root.join(image::ROOT).join("fairway");
    if !binary.exists() {
        let built = image::build(workspace)?;
        if built.failure.is_some() {
            return Ok(built);
        }
    }
    requests(workspace, &binary)
}

/// Counts the cost of a request in a given binary, to compare two builds.
pub(crate) fn requests(workspace: &Workspace, binary: &Path) -> anyhow::Result<Outcome> {
    let folder: PathBuf = workspace.target_folder()?.join("bench");
    let complaints = request::run(&workspace.console, binary, &folder)?;
    Ok(Outcome::from_complaints(format!("{} benchmarks", COUNTED.len() + 1), &complaints))
}
