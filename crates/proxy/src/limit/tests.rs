//! No limit stands outside the table.

use std::fs;
use std::path::{Path, PathBuf};

use super::SECTIONS;

/// Exempts a constant that is defined where it is used. The reason follows on the same line.
const EXEMPT: &str = "// No limit: ";

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("sources can be read") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if path.is_dir() {
            if name != "tests" {
                sources(&path, found);
            }
        } else if name.ends_with(".rs") && !matches!(&*name, "tests.rs" | "fixture.rs" | "limit.rs") {
            found.push(path);
        }
    }
}

/// Whether a line declares a number or a time that may bound something, or has one in the middle of the code.
fn looks_like_a_limit(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default().trim();
    let visible = ["pub(crate) ", "pub(super) ", "pub "].iter().find_map(|prefix| code.strip_prefix(prefix));
    if let Some(declared) = visible.unwrap_or(code).strip_prefix("const ")
        && let Some((name, rest)) = declared.split_once(": ")
        && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
        && let Some((kind, value)) = rest.split_once(" = ")
    {
        let number = ["Duration", "Millis", "usize", "u32", "u64", "i32", "i64", "f64", "ByteLimit"].contains(&kind);
        // A sentinel bounds nothing, and a name of the table is in it.
        return number && !value.ends_with("::MAX;") && !value.contains("limit::");
    }
    let literal_after = |mark: &str| {
        code.match_indices(mark).any(|(at, _)| code[at + mark.len()..].starts_with(|next: char| next.is_ascii_digit()))
    };
    literal_after("Duration::from_secs(")
        || literal_after("Duration::from_millis(")
        || literal_after("Duration::from_micros(")
        || code.contains(" << 10")
        || code.contains(" << 20")
}

/// Lines of a file that look like limits and have no reason beside or above them.
fn strays(text: &str) -> Vec<(usize, &str)> {
    let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines: Vec<_> = code.lines().collect();
    let exempt = |at: usize| {
        let above = lines[..at].iter().rev().take_while(|line| line.trim_start().starts_with("//"));
        lines[at].contains(EXEMPT) || above.into_iter().any(|line| line.trim_start().starts_with(EXEMPT))
    };
    lines
        .iter()
        .enumerate()
        .filter(|&(at, line)| looks_like_a_limit(line) && !exempt(at))
        .map(|(at, line)| (at + 1, *line))
        .collect()
}

#[test]
fn every_limit_is_in_the_table() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    files.sort();
    assert!(files.len() > 50, "{files:?}");
    let mut found = Vec::new();
    for path in files {
        let text = fs::read_to_string(&path).expect("a source");
        let name = path.strip_prefix(&root).unwrap_or(&path).display().to_string();
        found.extend(strays(&text).into_iter().map(|(line, code)| format!("src/{name}:{line}: {}", code.trim())));
    }
    assert!(
        found.is_empty(),
        "declare these in crates/proxy/src/limit.rs, or say above each why it is none (`{EXEMPT}...`):\n{}",
        found.join("\n")
    );
}

#[test]
fn strays_are_seen() {
    for (code, stray) in [
        ("const A: Duration = Duration::from_secs(1);", true),
        ("    pub(crate) const A: usize = 7;", true),
        ("pub const A: u64 = 1 << 20;", true),
        ("const NEVER: u64 = u64::MAX;", false),
        ("const A: usize = limit::A;", false),
        ("const A: &str = \"x\";", false),
        ("    sleep(Duration::from_millis(20)).await;", true),
        ("    sleep(Duration::from_millis(each)).await;", false),
        ("    vec![0; 4 << 10]", true),
        ("/// Doc.\n// No limit: a batch.\nconst A: usize = 7;", false),
        ("const A: usize = 7; // No limit: a batch.", false),
        ("// No limit: a batch.\nfn f() {}\nconst A: usize = 7;", true),
    ] {
        assert_eq!(!strays(code).is_empty(), stray, "{code}");
    }
}

#[test]
fn every_limit_has_a_sentence() {
    for limit in SECTIONS.iter().flat_map(|section| section.limits) {
        let what = limit.what.trim();
        assert!(what.ends_with('.') && what.len() > 10, "{what}");
        assert!(limit.answer.is_empty() || limit.answer.ends_with('.'), "{what}: {}", limit.answer);
    }
}
