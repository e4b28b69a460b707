//! The packages of the workspace and their dependencies, as reported by `cargo tree`.
//!
//! `cargo metadata` would be easier to read, but it treats an optional dependency as used if one of our features names
//! it weakly (`ring?/std`), and so reports packages that are never built.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;

use crate::shell;
use crate::workspace::Workspace;

/// The packages built on Linux, with the features enabled by the workspace.
#[derive(Debug, Default)]
pub(crate) struct Graph {
    packages: BTreeMap<Key, Package>,
}

/// `name vVersion`, which is unique as long as all packages come from one registry.
type Key = String;

#[derive(Debug, Default)]
pub(crate) struct Package {
    pub(crate) name: String,
    pub(crate) version: String,
    /// The SPDX expression in its manifest, empty if there is none.
    pub(crate) licence: String,
    /// Whether it is ours.
    pub(crate) member: bool,
    /// Dependencies of the library or the program.
    normal: BTreeSet<Key>,
    /// All dependencies, including those of tests and build scripts.
    all: BTreeSet<Key>,
}

impl Graph {
    pub(crate) fn load(workspace: &Workspace) -> anyhow::Result<Self> {
        let tree = |edges| {
            let mut command = workspace.cargo();
            command.args(["tree", "--workspace", "--locked", "--target", "x86_64-unknown-linux-gnu"]);
            command.args(["--prefix", "depth", "--format", "|{p}|{l}|", "--edges", edges]);
            String::from_utf8(shell::read(&mut command)?).context("cargo tree printed no UTF-8")
        };
        Self::parse(&tree("normal")?, &tree("normal,build,dev")?)
    }

    /// Reads two trees in the format that [`Graph::load`] asks for.
    pub(crate) fn parse(normal: &str, all: &str) -> anyhow::Result<Self> {
        let mut graph = Self::default();
        graph.read(normal, |package| &mut package.normal)?;
        graph.read(all, |package| &mut package.all)?;
        Ok(graph)
    }

    fn read(&mut self, tree: &str, edges: impl Fn(&mut Package) -> &mut BTreeSet<Key>) -> anyhow::Result<()> {
        let mut parents: Vec<Key> = Vec::new();
        // A heading such as `[dev-dependencies]` has no fields; the depth continues below it.
        for line in tree.lines().filter(|line| line.contains('|')) {
            let (depth, key, package) = entry(line).with_context(|| format!("a line of cargo tree: {line}"))?;
            anyhow::ensure!(depth <= parents.len(), "a line of cargo tree has no parent: {line}");
            parents.truncate(depth);
            self.packages.entry(key.clone()).or_insert(package).member |= depth == 0;
            if let Some(parent) = parents.last().and_then(|parent| self.packages.get_mut(parent)) {
                edges(parent).insert(key.clone());
            }
            parents.push(key);
        }
        Ok(())
    }

    /// Everything that is built, for any purpose.
    pub(crate) fn packages(&self) -> impl ExactSizeIterator<Item = &Package> {
        self.packages.values()
    }

    /// Our own packages.
    pub(crate) fn members(&self) -> impl Iterator<Item = &Package> {
        self.packages().filter(|package| package.member)
    }

    /// The direct dependencies of `package` for its library or program.
    pub(crate) fn normal<'a>(&'a self, package: &'a Package) -> impl Iterator<Item = &'a Package> {
        package.normal.iter().map(|key| &self.packages[key])
    }

    /// The direct dependencies of `package`, including those of tests and build scripts.
    pub(crate) fn all<'a>(&'a self, package: &'a Package) -> impl Iterator<Item = &'a Package> {
        package.all.iter().map(|key| &self.packages[key])
    }

    /// The names on a chain of normal dependencies from `package` to one whose name `target` accepts.
    pub(crate) fn path<'a>(&'a self, package: &'a Package, target: impl Fn(&str) -> bool) -> Option<Vec<&'a str>> {
        let mut open = vec![vec![package]];
        let mut seen = BTreeSet::new();
        while let Some(path) = open.pop() {
            for next in self.normal(path[path.len() - 1]) {
                if !seen.insert((&next.name, &next.version)) {
                    continue;
                }
                let longer = [path.as_slice(), &[next]].concat();
                if target(&next.name) {
                    return Some(longer.iter().map(|package| package.name.as_str()).collect());
                }
                open.push(longer);
            }
        }
        None
    }
}

/// Parses depth, key and package from a line such as `2|syn v2.0.1 (proc-macro)|MIT|` or, if repeated, `2|syn
/// v2.0.1|MIT| (*)`.
fn entry(line: &str) -> Option<(usize, Key, Package)> {
    let mut fields = line.split('|');
    let depth = fields.next()?.parse().ok()?;
    let mut words = fields.next()?.split(' ');
    let (name, version) = (words.next()?, words.next()?.strip_prefix('v')?);
    let licence = fields.next()?;
    let package = Package {
        name: name.to_owned(),
        version: version.to_owned(),
        licence: licence.to_owned(),
        ..Package::default()
    };
    Some((depth, format!("{name} v{version}"), package))
}

/// A graph for tests: ours are `a` and `b`; `a` needs `x`, which needs `y`; `b` needs `y` for its tests. `rename`
/// renames them.
#[cfg(test)]
pub(crate) fn example(rename: &[(&str, &str)]) -> Graph {
    let mut normal =
        "0|a v1.0.0 (/a)|MIT|\n1|x v1.0.0|MIT|\n2|y v1.0.0 (proc-macro)|GPL-3.0|\n\n0|b v1.0.0 (/b)|MIT|\n".to_owned();
    for (from, to) in rename {
        normal = normal.replace(&format!("|{from}"), &format!("|{to}"));
    }
    let y = rename.iter().find(|(from, _)| *from == "y").map_or("y", |(_, to)| to);
    let all = format!("{normal}[dev-dependencies]\n1|{y} v1.0.0 (proc-macro)|GPL-3.0| (*)\n");
    Graph::parse(&normal, &all).expect("an example in the right form")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names<'a>(packages: impl Iterator<Item = &'a Package>) -> Vec<&'a str> {
        packages.map(|package| package.name.as_str()).collect()
    }

    #[test]
    fn a_tree_becomes_a_graph() {
        let graph = example(&[]);
        assert_eq!(names(graph.packages()), ["a", "b", "x", "y"]);
        assert_eq!(names(graph.members()), ["a", "b"]);
        let b = graph.members().last().unwrap();
        assert_eq!((names(graph.normal(b)), names(graph.all(b))), (vec![], vec!["y"]));
    }

    #[test]
    fn a_path_follows_normal_dependencies() {
        let graph = example(&[]);
        let path = |from: &str| graph.path(graph.packages().find(|package| package.name == from)?, |name| name == "y");
        assert_eq!(path("a"), Some(vec!["a", "x", "y"]));
        assert_eq!(path("b"), None);
        assert_eq!(path("y"), None);
    }

    #[test]
    fn a_malformed_line_is_an_error() {
        assert!(Graph::parse("one|a v1|MIT|", "").is_err());
        assert!(Graph::parse("1|a v1|MIT|", "").is_err());
    }
}
