//! A type name means one thing in its crate, so that a name in a message, a search or a review doesn't need a path.
//!
//! Test code is exempt: its names are visible in one file only.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::Context;

pub(super) fn check(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut packages = vec!["e2e".to_owned(), "xtask".to_owned()];
    for entry in fs::read_dir(root.join("crates")).context("reading crates")? {
        packages.push(format!("crates/{}", entry?.file_name().to_string_lossy()));
    }
    packages.sort();
    let mut complaints = Vec::new();
    for package in packages {
        let mut types = BTreeMap::new();
        read(root, &format!("{package}/src"), &mut types)?;
        complaints.extend(judge(&package, &types));
    }
    Ok(complaints)
}

/// Where each type is defined.
type Types = BTreeMap<String, Vec<String>>;

fn judge(package: &str, types: &Types) -> Vec<String> {
    let doubled = types.iter().filter(|(_, places)| places.len() > 1);
    doubled
        .map(|(name, places)| format!("{package} has {} types `{name}`: {}", places.len(), places.join(", ")))
        .collect()
}

fn read(root: &Path, folder: &str, types: &mut Types) -> anyhow::Result<()> {
    for entry in fs::read_dir(root.join(folder)).with_context(|| format!("reading {folder}"))? {
        let entry = entry?;
        let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            read(root, &path, types)?;
        } else if path.ends_with(".rs") && !path.ends_with("/tests.rs") {
            let text = fs::read_to_string(entry.path()).with_context(|| format!("reading {path}"))?;
            for (line, name) in defined(&text) {
                types.entry(name.to_owned()).or_default().push(format!("{path}:{line}"));
            }
        }
    }
    Ok(())
}

/// The types that a file defines outside of its tests, each with its line.
fn defined(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let code = text.lines().zip(1..).take_while(|(line, _)| *line != "mod tests {");
    code.filter_map(|(line, number)| {
        let mut words = line.split_whitespace().skip_while(|word| *word == "pub" || word.starts_with("pub("));
        let kind = words.next()?;
        // An indented `type` belongs to an implementation.
        let is_type = matches!(kind, "struct" | "enum" | "trait" | "union") || kind == "type" && !line.starts_with(' ');
        let rest = words.next().filter(|_| is_type)?;
        let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next().filter(|name| !name.is_empty())?;
        name.starts_with(char::is_uppercase).then_some((number, name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_found_and_nothing_else() {
        let text = "use a::B;\npub(crate) struct One<T>(T);\n\nenum Two {\n    struct_like,\n}\ntype Three = u8;\nimpl Iterator for Two {\n    \
                    type Item = u8;\n}\nfn f() {\n    struct Four;\n    // struct Five\n}\nmacro_rules! m { () => {\n    struct $name;\n} }\n\
                    #[cfg(test)]\nmod tests {\n    struct Six;\n}\n";
        let found: Vec<_> = defined(text).collect();
        assert_eq!(found, [(2, "One"), (4, "Two"), (7, "Three"), (12, "Four")]);
    }

    #[test]
    fn a_name_that_means_two_things_is_a_complaint() {
        let types = |names: &[(&str, usize)]| -> Types {
            names.iter().map(|(name, places)| ((*name).to_owned(), vec!["a.rs:1".to_owned(); *places])).collect()
        };
        let found = judge("crates/model", &types(&[("One", 1), ("Two", 2)]));
        assert_eq!(found, ["crates/model has 2 types `Two`: a.rs:1, a.rs:1"]);
    }
}
