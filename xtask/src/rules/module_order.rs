//! The modules of the proxy have an order, declared in ARCHITECTURE.md: each uses only modules below it, so that there are no cycles, and a
//! module can be understood from those below it. Some may be used only by certain files.
//!
//! Test code is exempt: a test may build everything around the code under test.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::Context;

use super::module_path;

const DOCUMENT: &str = "ARCHITECTURE.md";
const HEADING: &str = "## Modules of the proxy";
const SOURCE: &str = "crates/proxy/src";

/// A line of the table: `    name [files]   what it is`.
#[derive(Debug)]
struct Row<'d> {
    line: usize,
    name: &'d str,
    /// The only files that may use it, besides its own; empty if all above it may.
    only: Vec<&'d str>,
}

/// A source file, by its path in the crate.
#[derive(Debug)]
struct Source {
    path: String,
    text: String,
}

pub(super) fn check(root: &Path) -> anyhow::Result<Vec<String>> {
    let document = fs::read_to_string(root.join(DOCUMENT)).with_context(|| format!("reading {DOCUMENT}"))?;
    let mut sources = Vec::new();
    read(&root.join(SOURCE), "", &mut sources)?;
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(complaints(&document, &sources))
}

fn read(folder: &Path, prefix: &str, sources: &mut Vec<Source>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let entry = entry?;
        let path = format!("{prefix}{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            read(&entry.path(), &format!("{path}/"), sources)?;
        } else if path.ends_with(".rs") {
            let text = fs::read_to_string(entry.path()).with_context(|| format!("reading {path}"))?;
            sources.push(Source { path, text });
        }
    }
    Ok(())
}

fn complaints(document: &str, sources: &[Source]) -> Vec<String> {
    let rows = rows(document);
    if rows.is_empty() {
        return vec![format!("{DOCUMENT} has no table under \"{HEADING}\"")];
    }
    // The root names all modules.
    let files: Vec<_> =
        sources.iter().map(|source| (source, module(&source.path))).filter(|(_, m)| !m.is_empty()).collect();
    let named: Vec<_> = files.iter().map(|(source, module)| module_path::find(&source.text, module.len())).collect();
    let test_modules: BTreeSet<Vec<&str>> = files
        .iter()
        .zip(&named)
        .flat_map(|((_, module), named)| named.test_modules.iter().map(|name| [&module[..], &[name.as_str()]].concat()))
        .collect();
    let is_test = |module: &[&str]| (1..=module.len()).any(|len| test_modules.contains(&module[..len]));

    let mut complaints = Vec::new();
    let modules: BTreeSet<&str> = files.iter().map(|(_, module)| module[0]).collect();
    for row in rows.iter().filter(|row| !modules.contains(row.name)) {
        complaints.push(format!("{DOCUMENT}:{}: there is no module `{}` in {SOURCE}", row.line, row.name));
    }
    for name in modules.iter().filter(|name| !rows.iter().any(|row| row.name == **name)) {
        complaints.push(format!("the module `{name}` of {SOURCE} has no line in {DOCUMENT}, \"{HEADING}\""));
    }
    let place = |name: &str| rows.iter().position(|row| row.name == name);
    for ((source, module), named) in files.iter().zip(&named) {
        let (false, Some(own)) = (is_test(module), place(module[0])) else { continue };
        for (line, name) in named.modules.iter().filter(|(_, name)| name != module[0]) {
            let what = format!("{SOURCE}/{}:{line}: `{}` names `crate::{name}`", source.path, module[0]);
            let Some(other) = place(name) else {
                complaints.push(format!(
                    "{what}, which is no module in the table of {DOCUMENT}; name the item where it is defined"
                ));
                continue;
            };
            let row = &rows[other];
            if other < own {
                complaints.push(format!(
                    "{what}, which stands above it; expected one of the modules below `{}` in {DOCUMENT}, \"{HEADING}\"",
                    module[0]
                ));
            } else if !row.only.is_empty() && !row.only.contains(&source.path.as_str()) {
                complaints.push(format!(
                    "{what}, which only {} may name, see {DOCUMENT}, \"{HEADING}\"",
                    row.only.join(" and ")
                ));
            }
        }
    }
    complaints
}

/// The table, from top to bottom.
fn rows(document: &str) -> Vec<Row<'_>> {
    let mut lines = document.lines().zip(1..).skip_while(|(line, _)| *line != HEADING).skip(1);
    let section = lines.by_ref().take_while(|(line, _)| !line.starts_with("## "));
    section
        .filter_map(|(text, line)| {
            let text = text.strip_prefix("    ").filter(|text| !text.starts_with(' '))?;
            let (name, rest) = text.split_once(' ').unwrap_or((text, ""));
            let only = rest.trim_start().strip_prefix('[').and_then(|rest| rest.split_once(']'));
            let only = only.map_or_else(Vec::new, |(files, _)| files.split(", ").collect());
            Some(Row { line, name, only })
        })
        .collect()
}

/// The module path of a file, from the root: empty for the root itself.
fn module(path: &str) -> Vec<&str> {
    let path = path.strip_suffix(".rs").unwrap_or(path);
    let path = path.strip_suffix("/mod").unwrap_or(path);
    if path == "lib" { Vec::new() } else { path.split('/').collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "# Parts\n\n## Modules of the proxy\n\nText.\n\n    \
        top           begins\n                  here\n    middle        is between\n    codec [middle/side.rs]   is hidden\n    \
        bottom        is at the end\n\n## Next\n\n    no row\n";

    fn tree(files: &[(&str, &str)]) -> Vec<Source> {
        let source = |(path, text): &(&str, &str)| Source { path: (*path).to_owned(), text: (*text).to_owned() };
        files.iter().map(source).collect()
    }

    /// A tree without violations.
    fn sound() -> Vec<Source> {
        tree(&[
            ("lib.rs", "mod bottom; mod codec; mod middle; mod top; pub use crate::top::T;"),
            ("top.rs", "use crate::{middle, bottom::B};\n#[cfg(test)]\nmod tests;"),
            ("top/tests.rs", "use crate::codec::C;"),
            ("middle/mod.rs", "mod side;\nuse crate::bottom::B;\nuse crate::middle::side::S;"),
            ("middle/side.rs", "use super::super::codec::C;"),
            ("codec.rs", "use crate::bottom::B;"),
            ("bottom.rs", "#[cfg(test)]\nmod tests { use crate::top::T; }"),
        ])
    }

    /// The violations after a file is changed or added.
    fn with(path: &str, text: &str) -> Vec<String> {
        let mut sources = sound();
        sources.retain(|source| source.path != path);
        sources.extend(tree(&[(path, text)]));
        complaints(TABLE, &sources)
    }

    #[test]
    fn lower_modules_may_be_named_and_tests_may_name_all() {
        assert_eq!(complaints(TABLE, &sound()), [""; 0]);
    }

    #[test]
    fn naming_a_higher_module_is_refused() {
        assert_eq!(
            with("bottom.rs", "fn f() {\n    crate::middle::g();\n}"),
            [
                "crates/proxy/src/bottom.rs:2: `bottom` names `crate::middle`, which stands above it; expected one of the \
              modules below `bottom` in ARCHITECTURE.md, \"## Modules of the proxy\""
            ]
        );
        assert_eq!(with("middle/mod.rs", "use super::{bottom, top::T};").len(), 1);
    }

    #[test]
    fn some_modules_may_be_named_by_certain_files_only() {
        assert_eq!(
            with("top.rs", "use crate::codec::C;\n#[cfg(test)]\nmod tests;"),
            [
                "crates/proxy/src/top.rs:1: `top` names `crate::codec`, which only middle/side.rs may name, see ARCHITECTURE.md, \
              \"## Modules of the proxy\""
            ]
        );
    }

    #[test]
    fn only_the_sides_of_an_exchange_may_name_a_version_of_http() {
        let document = include_str!("../../../ARCHITECTURE.md");
        for version in ["http1", "http2"] {
            let named_by = |path: &str| {
                let modules = rows(document).into_iter().filter(|row| row.name != module(path)[0]);
                let mut sources: Vec<_> =
                    modules.map(|row| Source { path: format!("{}.rs", row.name), text: String::new() }).collect();
                sources.push(Source { path: path.to_owned(), text: format!("use crate::{version}::Thing;") });
                complaints(document, &sources)
            };
            assert_eq!(named_by("exchange/side.rs"), [""; 0]);
            for path in ["exchange/tries.rs", "exchange/mod.rs", "pipeline.rs", "rehearsal.rs", "admin/server.rs"] {
                let what =
                    format!("{path}:1: `{}` names `crate::{version}`, which only exchange/side.rs", module(path)[0]);
                let complaints = named_by(path);
                assert!(complaints.len() == 1 && complaints[0].contains(&what), "{complaints:?}");
            }
        }
    }

    #[test]
    fn table_and_modules_agree() {
        assert_eq!(
            with("new.rs", ""),
            ["the module `new` of crates/proxy/src has no line in ARCHITECTURE.md, \"## Modules of the proxy\""]
        );
        let mut sources = sound();
        sources.retain(|source| source.path != "codec.rs");
        assert_eq!(
            complaints(TABLE, &sources)[0],
            "ARCHITECTURE.md:10: there is no module `codec` in crates/proxy/src"
        );
        assert_eq!(complaints("", &sound()), ["ARCHITECTURE.md has no table under \"## Modules of the proxy\""]);
    }

    #[test]
    fn a_reexport_of_the_root_must_be_named_where_it_is_defined() {
        assert_eq!(
            with("top.rs", "use crate::T;\n#[cfg(test)]\nmod tests;"),
            [
                "crates/proxy/src/top.rs:1: `top` names `crate::T`, which is no module in the table of ARCHITECTURE.md; name the \
              item where it is defined"
            ]
        );
    }
}
