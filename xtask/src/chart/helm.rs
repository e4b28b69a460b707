//! Runs helm.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail, ensure};
use serde_json::Value as Json;

use super::FOLDER;
use crate::tools;
use crate::workspace::Workspace;

/// Helm and the chart. No method needs a cluster.
#[derive(Debug)]
pub(crate) struct Helm {
    program: PathBuf,
    chart: PathBuf,
    /// The folder for values files.
    scratch: PathBuf,
}

impl Helm {
    /// Builds helm if it is missing.
    pub(crate) fn new(workspace: &Workspace) -> anyhow::Result<Self> {
        let built = tools::build_helm(workspace)?;
        ensure!(built.failure.is_none(), "{}", built.failure.unwrap_or_default());
        let scratch = workspace.root.join("target/chart");
        fs::create_dir_all(&scratch).with_context(|| scratch.display().to_string())?;
        let program = workspace.root.join("target/tools/bin/helm");
        Ok(Self { program, chart: workspace.root.join(FOLDER), scratch })
    }

    /// The manifests of release `release` in namespace `namespace`, or an error.
    pub(crate) fn template(&self, release: &str, namespace: &str, files: &[&Path]) -> anyhow::Result<String> {
        let mut command = self.command(&["template", release]);
        // The output is the same for every Kubernetes version that helm may be built for.
        command.args(["--namespace", namespace, "--kube-version", KUBERNETES]).args(values(files));
        run(&mut command)
    }

    /// The same for values that aren't in a file.
    pub(crate) fn render(&self, name: &str, values: &Json) -> anyhow::Result<String> {
        self.template("ingress-nginx", "ingress-nginx", &[&self.write(name, values)?])
    }

    /// The notes that users see after an installation with these values.
    pub(crate) fn notes(&self, name: &str, files: &[&Path]) -> anyhow::Result<String> {
        let mut command = self.command(&["install", "ingress-nginx"]);
        command.args(["--dry-run=client", "--namespace", "ingress-nginx"]).args(values(files));
        let output = run(&mut command)?;
        let notes = output.split_once("\nNOTES:\n").with_context(|| format!("{name}: no NOTES"))?;
        Ok(notes.1.to_owned())
    }

    /// Helm's complaints about the chart itself.
    pub(crate) fn lint(&self) -> anyhow::Result<String> {
        let mut command = Command::new(&self.program);
        run(command.args(["lint", "--strict"]).arg(&self.chart))
    }

    /// Writes values to a file for helm. YAML is a superset of JSON.
    pub(crate) fn write(&self, name: &str, values: &Json) -> anyhow::Result<PathBuf> {
        let path = self.scratch.join(format!("{}.json", name.replace('/', "_")));
        fs::write(&path, serde_json::to_vec(values)?).with_context(|| path.display().to_string())?;
        Ok(path)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(words).arg(&self.chart);
        command
    }
}

/// The oldest version with all fields that the chart uses without a check, and those in the values' samples.
const KUBERNETES: &str = "1.33.0";

fn values<'a>(files: &[&'a Path]) -> impl Iterator<Item = &'a std::ffi::OsStr> {
    files.iter().flat_map(|path| ["--values".as_ref(), path.as_os_str()]).collect::<Vec<_>>().into_iter()
}

fn run(command: &mut Command) -> anyhow::Result<String> {
    let program = command.get_program().to_owned();
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("starting {}", Path::new(&program).display()))?;
    if !output.status.success() {
        bail!("helm: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    String::from_utf8(output.stdout).context("helm printed something that isn't UTF-8")
}

/// The objects of a manifest.
pub(crate) fn objects(manifest: &str) -> anyhow::Result<Vec<Json>> {
    use serde::Deserialize as _;
    let mut objects = Vec::new();
    for document in serde_norway::Deserializer::from_str(manifest) {
        let object = Json::deserialize(document)?;
        if object.is_null() {
            continue;
        }
        for field in ["/apiVersion", "/kind", "/metadata/name"] {
            ensure!(object.pointer(field).is_some_and(Json::is_string), "an object without {field}: {object}");
        }
        let strings = |field: &str| match object.pointer(field) {
            Some(Json::Object(map)) => map.values().all(Json::is_string),
            _ => true,
        };
        for field in ["/metadata/labels", "/metadata/annotations", "/spec/template/metadata/labels"] {
            ensure!(strings(field), "{field} of {} has a value that isn't text", object["metadata"]["name"]);
        }
        objects.push(object);
    }
    Ok(objects)
}
