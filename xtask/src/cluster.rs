//! `cargo xtask cluster`: builds the parts of a cluster and calls the program that runs it.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;

use crate::outcome::Outcome;
use crate::workspace::Workspace;
use crate::{cargo, image, tools};

/// Becomes `fairway-cluster` with `words`, which documents them itself (`--help`); its exit status is ours. Returns
/// only if a build fails.
pub(crate) fn run(workspace: &Workspace, words: &[&str]) -> anyhow::Result<bool> {
    let asks = words.iter().take_while(|word| **word != "--").any(|word| ["-h", "--help"].contains(word));
    let binary = binary(workspace)?;
    let steps: &[fn(&Workspace) -> anyhow::Result<Outcome>] = match words.first() {
        Some(&"up") if !asks => &[tools::build, image_if_missing, build],
        // Commands to a running cluster don't wait for a build.
        _ if binary.exists() => &[],
        _ => &[build],
    };
    for step in steps {
        match step(workspace) {
            Ok(Outcome { failure: None, .. }) => {}
            failed => return Ok(workspace.console.finish(failed)),
        }
    }
    workspace.console.clear();
    // In the caller's folder, where `exec` runs its command.
    let error = Command::new(&binary).args(words).exec();
    Err(error).with_context(|| format!("starting {}", binary.display()))
}

/// Builds `fairway-cluster`.
pub(crate) fn build(workspace: &Workspace) -> anyhow::Result<Outcome> {
    cargo::build(workspace, &["--bin", "fairway-cluster"])
}

/// Keeps an existing image: it takes minutes to build, and pods of a running cluster start from it.
fn image_if_missing(workspace: &Workspace) -> anyhow::Result<Outcome> {
    if workspace.root.join(image::ROOT).join("fairway").exists() {
        return Ok(Outcome::default());
    }
    workspace.console.line("building the image (minutes, once); `cargo xtask image` renews it");
    image::build(workspace)
}

/// The path of `fairway-cluster` after its build.
pub(crate) fn binary(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    Ok(workspace.target_folder()?.join("debug").join("fairway-cluster"))
}
