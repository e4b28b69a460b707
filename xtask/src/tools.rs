//! The Go programs that clusters are made of: built once per version, and found under one path.
//!
//! The modules in `e2e/tools/` pin them. A program is built into `target/tools/<module>-<version>/`, and `target/tools/bin/`
//! holds a link to the version in use.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;

use crate::console::duration;
use crate::outcome::Outcome;
use crate::shell;
use crate::workspace::Workspace;

/// A Go module of ours, and the programs that come from it.
struct Module {
    /// Its folder in `e2e/tools/`, and the first part of the folder of its programs.
    name: &'static str,
    /// The required module that gives the version.
    pinned: &'static str,
    /// The programs and their packages.
    programs: &'static [(&'static str, &'static str)],
}

const MODULES: &[Module] = &[
    Module { name: "etcd", pinned: "go.etcd.io/etcd/server/v3", programs: &[("etcd", "go.etcd.io/etcd/server/v3")] },
    Module {
        name: "kubernetes",
        pinned: "k8s.io/kubernetes",
        programs: &[
            ("kube-apiserver", "k8s.io/kubernetes/cmd/kube-apiserver"),
            ("kube-controller-manager", "k8s.io/kubernetes/cmd/kube-controller-manager"),
            ("kube-scheduler", "k8s.io/kubernetes/cmd/kube-scheduler"),
            ("kube-proxy", "k8s.io/kubernetes/cmd/kube-proxy"),
            ("kubectl", "k8s.io/kubernetes/cmd/kubectl"),
        ],
    },
    Module { name: "helm", pinned: "helm.sh/helm/v4", programs: &[("helm", "helm.sh/helm/v4/cmd/helm")] },
];

/// Builds the programs that are missing and says how long each took; about ten minutes on two cores when all are.
pub(crate) fn build(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let tools = workspace.root.join("target").join("tools");
    let links = tools.join("bin");
    fs::create_dir_all(&links).with_context(|| format!("creating {}", links.display()))?;
    let lock = File::create(tools.join("lock")).context("the lock of target/tools")?;
    lock.lock().context("waiting for another build of the same programs")?;

    let mut built = 0;
    let mut kept = 0;
    for module in MODULES {
        let sources = workspace.root.join("e2e/tools").join(module.name);
        let path = sources.join("go.mod");
        let text = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
        let version =
            required(&text, module.pinned).with_context(|| format!("{} in {}", module.pinned, path.display()))?;
        let folder = format!("{}-{version}", module.name);
        for &(program, package) in module.programs {
            let file = tools.join(&folder).join(program);
            if file.exists() {
                kept += 1;
            } else {
                if let Some(failure) = build_one(workspace, &sources, package, version, &file)? {
                    return Ok(Outcome { failure: Some(failure), ..Outcome::default() });
                }
                built += 1;
            }
            link(&links.join(program), &Path::new("..").join(&folder).join(program))?;
        }
    }
    Ok(Outcome::passed(format!("{kept} programs were there, {built} built, in {}", links.display())))
}

/// Builds one program; what is wrong if it does not build.
fn build_one(
    workspace: &Workspace,
    sources: &Path,
    package: &str,
    version: &str,
    file: &Path,
) -> anyhow::Result<Option<String>> {
    let console = &workspace.console;
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    if !shell::succeeds(workspace.command("go").arg("version")) {
        return Ok(Some(format!("building {name} takes Go 1.26 or newer: install it from https://go.dev/dl")));
    }
    let start = Instant::now();
    console.line(&format!("building {name} {version}; once, it is kept in target/tools"));
    // A build that is interrupted leaves nothing that looks finished.
    let partial = partial(file);
    let mut command = workspace.command("go");
    command.current_dir(sources).args(["build", "-v", "-trimpath", "-ldflags", &flags(package, version), "-o"]);
    let finished = shell::run(console, command.arg(&partial).arg(package), |_| false)?;
    if !finished.success {
        return Ok(Some(format!("`{}` failed:\n{}", shell::display(&command), finished.output)));
    }
    fs::rename(&partial, file).with_context(|| format!("moving {} to its place", file.display()))?;
    console.line(&format!("built {name} {version} in {}", duration(start.elapsed())));
    Ok(None)
}

fn partial(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".partial");
    name.into()
}

/// What the linker is told. A Kubernetes program that is not told its version calls itself v0.0.0, and helm believes it.
fn flags(package: &str, version: &str) -> String {
    let mut flags = "-s -w".to_owned();
    if package.starts_with("k8s.io/kubernetes/") {
        let mut parts = version.split('.');
        let (major, minor) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        for (name, value) in
            [("gitVersion", format!("v{version}")), ("gitMajor", major.into()), ("gitMinor", minor.into())]
        {
            flags += &format!(" -X k8s.io/component-base/version.{name}={value}");
        }
    }
    flags
}

/// The version of `module` in the text of a go.mod, without its `v`.
fn required<'a>(text: &'a str, module: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let line = line.trim();
        let mut words = line.strip_prefix("require ").unwrap_or(line).split_whitespace();
        (words.next() == Some(module)).then(|| words.next()?.strip_prefix('v')).flatten()
    })
}

/// Makes `path` a link to `target`, unless it is.
fn link(path: &Path, target: &Path) -> anyhow::Result<()> {
    if fs::read_link(path).is_ok_and(|current| current == target) {
        return Ok(());
    }
    let partial = partial(path);
    let _ = fs::remove_file(&partial);
    std::os::unix::fs::symlink(target, &partial).with_context(|| format!("linking {}", partial.display()))?;
    fs::rename(&partial, path).with_context(|| format!("linking {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_that_of_the_module_file() {
        let text = "module x\n\nrequire k8s.io/kubernetes v1.36.3\n\nrequire (\n\thelm.sh/helm/v4 v4.3.1 // indirect\n)\n\
                    replace k8s.io/api => k8s.io/api v0.36.3\n";
        assert_eq!(required(text, "k8s.io/kubernetes"), Some("1.36.3"));
        assert_eq!(required(text, "helm.sh/helm/v4"), Some("4.3.1"));
        assert_eq!(required(text, "k8s.io/api"), None);
    }

    #[test]
    fn kubernetes_is_told_its_version() {
        let flags = flags("k8s.io/kubernetes/cmd/kubectl", "1.36.3");
        assert!(flags.contains("version.gitVersion=v1.36.3 ") && flags.ends_with("gitMinor=36"), "{flags}");
    }
}
