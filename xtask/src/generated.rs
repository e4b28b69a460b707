//! Generated files in the repository. CI fails if one is out of date.

use std::fs;
use std::path::PathBuf;

use anyhow::bail;

use crate::cargo;
use crate::chart;
use crate::outcome::Outcome;
use crate::shell;
use crate::workspace::Workspace;

/// Each file, and the example that prints it.
const FILES: &[(&str, &str)] = &[
    ("deploy/helm/fairway/files/routepolicies.yaml", "routepolicy_crd"),
    ("deploy/helm/fairway/files/gatewayparameters.yaml", "gatewayparameters_crd"),
];

/// Regenerates every file.
pub(crate) fn rewrite(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let (count, differences) = differences(workspace)?;
    let mut changed = Vec::new();
    for difference in differences {
        let path = workspace.root.join(&difference.path);
        fs::create_dir_all(path.parent().unwrap_or(&workspace.root))?;
        fs::write(path, &difference.wanted)?;
        changed.push(difference.path.display().to_string());
    }
    Ok(Outcome::passed(match changed.as_slice() {
        [] => format!("{count} generated files, none changed"),
        changed => format!("rewrote {}", changed.join(", ")),
    }))
}

/// Complains about every file that [`rewrite`] would change.
pub(crate) fn check(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let (count, differences) = differences(workspace)?;
    let complaints: Vec<_> = differences.iter().map(Difference::describe).collect();
    Ok(Outcome::from_complaints(format!("{count} generated files"), &complaints))
}

struct Difference {
    path: PathBuf,
    found: Vec<u8>,
    wanted: Vec<u8>,
}

impl Difference {
    fn describe(&self) -> String {
        let line = first_difference(&self.found, &self.wanted);
        let path = self.path.display();
        format!("{path} is not what its generator prints, from line {line} on: run `cargo xtask gen`")
    }
}

/// The number of files, and those that differ.
fn differences(workspace: &Workspace) -> anyhow::Result<(usize, Vec<Difference>)> {
    let examples: Vec<_> = FILES.iter().flat_map(|&(_, example)| ["--example", example]).collect();
    if let Some(failure) = cargo::build(workspace, &examples)?.failure {
        bail!(failure);
    }
    let programs = workspace.target_folder()?.join("debug/examples");
    let mut files = Vec::new();
    for &(path, example) in FILES {
        files.push((PathBuf::from(path), shell::read(&mut workspace.command(programs.join(example)))?));
    }
    workspace.console.progress("the chart");
    files.extend(chart::files(workspace)?);
    let count = files.len();
    let mut differences = Vec::new();
    for (path, wanted) in files {
        // A missing file differs from any content.
        let found = fs::read(workspace.root.join(&path)).unwrap_or_default();
        if found != wanted {
            differences.push(Difference { path, found, wanted });
        }
    }
    Ok((count, differences))
}

/// The number of the first line that differs between two texts, from 1.
fn first_difference(found: &[u8], wanted: &[u8]) -> usize {
    let same = found.split(|&byte| byte == b'\n').zip(wanted.split(|&byte| byte == b'\n')).take_while(|(a, b)| a == b);
    same.count() + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_differs_is_named() {
        assert_eq!(first_difference(b"", b"a\n"), 1);
        assert_eq!(first_difference(b"a\nb\n", b"a\nc\n"), 2);
        assert_eq!(first_difference(b"a\n", b"a\nb\n"), 2);
    }
}
