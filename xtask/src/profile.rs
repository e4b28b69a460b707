//! `cargo xtask profile`: records what the image's binary executes under the loads of `bench --peers`, for the compiler of the image
//! (profile-guided optimisation, <https://doc.rust-lang.org/rustc/profile-guided-optimization.html>).
//!
//! The result is checked in. It needs no update when code changes: the compiler ignores what it says about functions that have changed since,
//! and these are optimised as they would be without it. CONTRIBUTING.md says when to update it.

use std::fs;

use anyhow::Context;

use crate::bench::peers;
use crate::image;
use crate::outcome::Outcome;
use crate::shell;
use crate::workspace::Workspace;

/// Debian's package has the version in the name. It must read what the compiler's own runtime writes, so it can't be much older.
const MERGE: &str = "llvm-profdata-19";

/// Builds a binary that counts, loads it, and writes the counts where the image's build reads them.
pub(crate) fn record(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let folder = workspace.target_folder()?.join("profile");
    let counts = folder.join("counts");
    let _ = fs::remove_dir_all(&counts);
    let option = format!("profile-generate={}", counts.display());
    let binary = match image::compile(workspace, &folder, &option)? {
        Ok(binary) => binary,
        Err(failed) => return Ok(failed),
    };
    peers::exercise(workspace, binary)?;
    let into = workspace.root.join(image::PROFILE);
    // Sparse: without functions that were never called. The compiler would take them for cold, and most of them are only not part of the loads.
    shell::read(workspace.command(MERGE).args(["merge", "--sparse", "--output"]).arg(&into).arg(&counts))?;
    let size = fs::metadata(&into).with_context(|| format!("reading {}", into.display()))?.len();
    Ok(Outcome::passed(format!("{} KB in {}", size / 1000, image::PROFILE)))
}
