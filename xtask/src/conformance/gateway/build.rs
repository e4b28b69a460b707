//! Builds the suite and its echo server from their Go modules.
//!
//! `e2e/tools/gateway-conformance` pins them. The suite requires a newer Go than Debian has, which comes as a PyPI package. Its module of
//! echo servers isn't on the public module proxy, so the same packages from the suite's previous version replace it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::console::duration;
use crate::lock::Lock;
use crate::outcome::Outcome;
use crate::workspace::Workspace;
use crate::{go, shell};

/// The version of the suite and of the CRDs.
pub(super) const VERSION: &str = "v1.7.0";

/// The note that every report must contain.
pub(super) const STAND_IN: &str = "The module sigs.k8s.io/gateway-api-conformance-images v0.2.0, which the public module proxy refuses, \
                                   was replaced by the folder echo-basic of sigs.k8s.io/gateway-api/conformance v1.6.3: the echo \
                                   server, and three packages of the suite.";

/// The module with the echo server's packages, and its checksum.
const ECHO: (&str, &str) =
    ("sigs.k8s.io/gateway-api/conformance@v1.6.3", "h1:UxhSb1GrDsyl+PdKe3g8a/BFWgP6hzy2PPFmZRgqeMQ=");
/// The path of those packages in that module, and in the one that they replace.
const PACKAGES: [&str; 2] =
    ["sigs.k8s.io/gateway-api/conformance/echo-basic", "sigs.k8s.io/gateway-api-conformance-images/echo-basic"];

/// The folder for everything that is built.
const FOLDER: &str = "target/conformance/gateway";
/// The root of the echo server's image, where the cluster looks for it.
const IMAGE: &str = "target/image/echo-basic";
/// The pinned versions.
const SOURCES: &str = "e2e/tools/gateway-conformance";

/// The built suite.
pub(super) fn program(workspace: &Workspace) -> PathBuf {
    workspace.root.join(FOLDER).join("suite")
}

/// Assembles the module of the suite, which also has the CRDs. Returns the failure, if any.
pub(super) fn module(workspace: &Workspace) -> anyhow::Result<Option<String>> {
    let failure = go::install(workspace)?;
    if failure.is_none() {
        assemble(workspace, &workspace.root.join(FOLDER).join("module"))?;
    }
    Ok(failure)
}

/// Builds the suite and the echo server; two minutes on two cores, seconds when nothing has changed.
pub(super) fn suite(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let _lock = Lock::wait(&workspace.root.join(FOLDER).join("lock"), &workspace.console)?;
    if let Some(failure) = module(workspace)? {
        return Ok(super::failed(failure));
    }
    let module = workspace.root.join(FOLDER).join("module");
    let begin = Instant::now();
    let console = &workspace.console;
    console.line(&format!("building the conformance suite {VERSION} and its echo server"));
    let image = workspace.root.join(IMAGE);
    fs::create_dir_all(&image).with_context(|| format!("creating {}", image.display()))?;
    let mut suite = go::command(workspace, &module);
    suite
        .args(["test", "-c", "-vet=off", "-trimpath", "-ldflags", "-s -w", "-o"])
        .arg(program(workspace))
        .arg("sigs.k8s.io/gateway-api/conformance");
    let mut echo = go::command(workspace, &module);
    echo.env("CGO_ENABLED", "0");
    echo.args(["build", "-trimpath", "-ldflags", "-s -w", "-o"]).arg(image.join("echo-basic")).arg(PACKAGES[1]);
    for mut command in [suite, echo] {
        let finished = shell::run(console, &mut command, |_| false)?;
        if !finished.success {
            return Ok(super::failed(format!("`{}` failed:\n{}", shell::display(&command), finished.output)));
        }
    }
    console.line(&format!("built both in {}", duration(begin.elapsed())));
    Ok(Outcome::default())
}

/// The CRD files of a channel, and the file of the policy that guards them.
pub(super) fn definitions(workspace: &Workspace, channel: &str) -> anyhow::Result<Vec<PathBuf>> {
    let module = workspace.root.join(FOLDER).join("module");
    let mut command = go::command(workspace, &module);
    command.args(["list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/gateway-api"]);
    let folder = String::from_utf8(shell::read(&mut command)?).context("the folder of the API's module")?;
    let folder = Path::new(folder.trim()).join("config/crd").join(channel);
    let mut files = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("gateway.networking.")) {
            files.push(path);
        }
    }
    files.sort();
    ensure!(!files.is_empty(), "no CRDs in {}", folder.display());
    Ok(files)
}

/// Assembles the module: the pinned versions, and the replacement packages.
fn assemble(workspace: &Workspace, module: &Path) -> anyhow::Result<()> {
    let _ = fs::remove_dir_all(module);
    let sources = workspace.root.join(SOURCES);
    let images = module.join("images");
    fs::create_dir_all(&images).with_context(|| format!("creating {}", images.display()))?;
    for name in ["go.mod", "go.sum", "images/go.mod"] {
        fs::copy(sources.join(name), module.join(name)).with_context(|| format!("copying {name}"))?;
    }
    let mut command = go::command(workspace, module);
    command.args(["mod", "download", "-json", ECHO.0]);
    let answer: Value = serde_json::from_slice(&shell::read(&mut command)?).context("reading the answer of go")?;
    ensure!(answer["Sum"] == ECHO.1, "{} has the checksum {}, expected {}", ECHO.0, answer["Sum"], ECHO.1);
    let folder = answer["Dir"].as_str().with_context(|| format!("{} was not downloaded", ECHO.0))?;
    copy_packages(&Path::new(folder).join("echo-basic"), &images.join("echo-basic"))
}

/// Copies the Go files of a folder and its subfolders, without tests, and adjusts the import paths of the packages.
fn copy_packages(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to).with_context(|| format!("creating {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default();
        let text = name.to_string_lossy();
        if path.is_dir() {
            copy_packages(&path, &to.join(name))?;
        } else if text.ends_with(".go") && !text.ends_with("_test.go") {
            let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
            // Elsewhere, as in a protocol descriptor, the same path has a length before it and must not change.
            let text = text.replace(&format!("\"{}", PACKAGES[0]), &format!("\"{}", PACKAGES[1]));
            fs::write(to.join(name), text).with_context(|| format!("writing {}", to.join(name).display()))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_copied_without_tests_and_import_each_other() {
        let folder = std::env::temp_dir().join(format!("fairway-echo-{}", std::process::id()));
        let (from, to) = (folder.join("from"), folder.join("to"));
        fs::create_dir_all(from.join("grpc")).unwrap();
        fs::write(from.join("main.go"), "import g \"sigs.k8s.io/gateway-api/conformance/echo-basic/grpc\"\n").unwrap();
        fs::write(from.join("main_test.go"), "").unwrap();
        fs::write(from.join("grpc/grpc.go"), "package grpc\n").unwrap();
        copy_packages(&from, &to).unwrap();
        let main = fs::read_to_string(to.join("main.go")).unwrap();
        assert_eq!(main, "import g \"sigs.k8s.io/gateway-api-conformance-images/echo-basic/grpc\"\n");
        assert!(to.join("grpc/grpc.go").exists() && !to.join("main_test.go").exists());
        fs::remove_dir_all(folder).unwrap();
    }
}
