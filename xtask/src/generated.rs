//! Files in the repository that a program writes. CI fails when one differs from what it would be now.

use std::fs;

use crate::outcome::Outcome;
use crate::shell;
use crate::workspace::Workspace;

/// Each file, and the arguments of the cargo command that prints it.
const FILES: &[(&str, &[&str])] = &[];

/// Writes every file anew.
pub(crate) fn rewrite(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let mut changed = Vec::new();
    for difference in differences(workspace)? {
        fs::write(workspace.root.join(difference.path), &difference.wanted)?;
        changed.push(difference.path);
    }
    Ok(Outcome::passed(match changed.as_slice() {
        [] => format!("{} generated files, none changed", FILES.len()),
        changed => format!("rewrote {}", changed.join(", ")),
    }))
}

/// Complains of every file that [`rewrite`] would change.
pub(crate) fn check(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let complaints: Vec<_> = differences(workspace)?.iter().map(Difference::describe).collect();
    Ok(Outcome::from_complaints(format!("{} generated files", FILES.len()), &complaints))
}

struct Difference {
    path: &'static str,
    found: Vec<u8>,
    wanted: Vec<u8>,
}

impl Difference {
    fn describe(&self) -> String {
        let line = first_difference(&self.found, &self.wanted);
        format!("{} is not what its generator prints, from line {line} on: run `cargo xtask gen`", self.path)
    }
}

fn differences(workspace: &Workspace) -> anyhow::Result<Vec<Difference>> {
    let mut differences = Vec::new();
    for &(path, arguments) in FILES {
        workspace.console.progress(path);
        let wanted = shell::read(workspace.cargo().args(arguments))?;
        // A file that is missing differs from any other.
        let found = fs::read(workspace.root.join(path)).unwrap_or_default();
        if found != wanted {
            differences.push(Difference { path, found, wanted });
        }
    }
    Ok(differences)
}

/// The number of the first line in which two texts differ, from 1.
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
