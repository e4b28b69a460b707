//! Additional parts for the end-to-end tests with other projects' controllers: cert-manager's CRDs, and the image of the pod that answers
//! its challenges.

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};

use crate::outcome::Outcome;
use crate::workspace::Workspace;
use crate::{shell, tools};

/// The folder of the CRDs, where the tests look for them.
const DEFINITIONS: &str = "target/tools/cert-manager-crds";

/// The root of the image, where the cluster looks for it.
const IMAGE: &str = "target/image/acmesolver";

/// Builds the programs if they are missing, and puts the other parts in place.
pub(crate) fn build(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let outcome = tools::build_ecosystem(workspace)?;
    if outcome.failure.is_some() {
        return Ok(outcome);
    }
    let image = workspace.root.join(IMAGE);
    fs::create_dir_all(&image).with_context(|| format!("creating {}", image.display()))?;
    let program = workspace.root.join("target/tools/bin/acmesolver");
    fs::copy(&program, image.join("acmesolver")).with_context(|| format!("copying {}", program.display()))?;

    let mut go = workspace.command("go");
    go.current_dir(workspace.root.join("e2e/tools").join(tools::CERT_MANAGER));
    go.args(["list", "-m", "-f", "{{.Dir}}", "github.com/cert-manager/cert-manager"]);
    let module = String::from_utf8(shell::read(&mut go)?).context("the folder of cert-manager's module")?;
    copy_definitions(&Path::new(module.trim()).join("deploy/crds"), &workspace.root.join(DEFINITIONS))?;
    Ok(outcome)
}

fn copy_definitions(from: &Path, to: &Path) -> anyhow::Result<()> {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).with_context(|| format!("creating {}", to.display()))?;
    let mut copied = 0;
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let name = path.file_name().unwrap_or_default();
            // The files of a module are read-only, and so would be their copies.
            let text = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            fs::write(to.join(name), text).with_context(|| format!("writing {}", to.join(name).display()))?;
            copied += 1;
        }
    }
    ensure!(copied > 0, "no CRDs in {}", from.display());
    Ok(())
}
