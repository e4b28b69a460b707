//! No file of the repository contains text that is valid on one machine only: its paths, and the hosts that it downloads from. User pages
//! contain none of the phrases that make English read as translated. No log line shows a value as Rust's `Debug` does, which is meant for
//! developers.

use std::fs;

use anyhow::Context;

use crate::outcome::Outcome;
use crate::shell;
use crate::workspace::Workspace;

/// Written in two halves, so that this file passes its own check.
const BANNED: &[(&str, &str)] = &[
    (concat!("/wo", "rk/"), "a path of one machine"),
    (concat!("/ro", "ot/"), "a path of one machine"),
    (concat!("/home", "/"), "a path of one machine"),
    (concat!("index.", "crates.io"), "a registry; Cargo.lock names the default one by its repository"),
    (concat!("static.", "crates.io"), "a registry"),
    (concat!("registry.", "npmjs.org"), "a registry"),
    (concat!("proxy.", "golang.org"), "a registry"),
    (concat!("files.", "pythonhosted.org"), "a registry"),
    (concat!("deb.", "debian.org"), "a registry"),
];

/// Phrases that replace a plain subject and verb, for pages that users read.
const STIFF: &[&str] = &["nobody", " anew", "is told", "are told", "was told", "parted by", "left alone"];

/// The only place that a package in a lock file may come from.
const SOURCE: &str = "registry+https://github.com/rust-lang/crates.io-index";

pub(crate) fn check(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let list =
        shell::read(workspace.command("git").args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]))?;
    let list = String::from_utf8(list).context("a file name that is not UTF-8")?;
    let mut complaints = Vec::new();
    let mut count = 0;
    for path in list.split('\0').filter(|path| !path.is_empty()) {
        // Deleted from the disk, but still in the index.
        let Ok(bytes) = fs::read(workspace.root.join(path)) else { continue };
        count += 1;
        let text = String::from_utf8_lossy(&bytes);
        complaints.extend(find(path, &text));
        if path.starts_with("crates/") && path.contains("/src/") && path.ends_with(".rs") {
            complaints.extend(debug_text(path, &text));
        }
    }
    Ok(Outcome::from_complaints(format!("{count} files"), &complaints))
}

fn find(path: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let place = format!("{path}:{}", number + 1);
        for (word, what) in BANNED {
            if line.contains(word) {
                complaints.push(format!("{place}: holds {word} ({what})"));
            }
        }
        if is_for_users(path) {
            let phrases = STIFF.iter().filter(|phrase| line.to_lowercase().contains(**phrase));
            complaints.extend(phrases.map(|phrase| format!("{place}: says \"{}\": name the subject", phrase.trim())));
        }
        if path.ends_with("Cargo.lock")
            && line.strip_prefix("source = ").is_some_and(|source| source.trim_matches('"') != SOURCE)
        {
            complaints.push(format!("{place}: a package from elsewhere than crates.io: {line}"));
        }
    }
    complaints
}

fn is_for_users(path: &str) -> bool {
    path.ends_with(".md") && (path.starts_with("docs/") || ["README.md", "CHANGELOG.md"].contains(&path))
}

/// Calls that write a log line.
const LOG: [&str; 5] = ["trace!(", "debug!(", "info!(", "warn!(", "error!("];

/// Values that are logged with `Debug`: `?value`, `name = ?value`, `{value:?}`.
fn debug_text(path: &str, text: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    for (at, name) in LOG.iter().flat_map(|name| text.match_indices(name)) {
        if text[..at].ends_with(|char: char| char.is_alphanumeric() || char == '_') {
            continue;
        }
        let (mut depth, mut quoted, mut before) = (1, false, '(');
        let mut chars = text[at + name.len()..].chars().peekable();
        let mut found = false;
        while let Some(char) = chars.next().filter(|_| depth > 0) {
            match char {
                '\\' if quoted => drop(chars.next()),
                '"' => quoted = !quoted,
                '?' if quoted => found |= before == ':' && chars.peek() == Some(&'}'),
                '?' => found |= "(,=".contains(before),
                '(' if !quoted => depth += 1,
                ')' if !quoted => depth -= 1,
                _ => (),
            }
            if !char.is_whitespace() {
                before = char;
            }
        }
        if found {
            let line = text[..at].matches('\n').count() + 1;
            complaints
                .push(format!("{path}:{line}: a line of the log shows Rust's debug text; print the value by Display"));
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_text_in_log_lines_is_found() {
        for call in [
            "warn!(?error, \"x\")",
            "info!(a, error = ?b,\n \"x\")",
            "debug!(\"{a:?} (b\")",
            "error!(c = f(1), ? d, \"x\")",
        ] {
            let text = format!("fn f() {{\n    tracing::{call};\n}}\n");
            let found = debug_text("a.rs", &text);
            assert!(found.len() == 1 && found[0].starts_with("a.rs:2: "), "{call}: {found:?}");
        }
        for call in ["warn!(%error, \"why?\")", "info!(a = b()?, \"x\")", "eprintdebug!(?a)", "warn!(\"x\"); g(?)"] {
            assert_eq!(debug_text("a.rs", call), Vec::<String>::new(), "{call}");
        }
    }

    #[test]
    fn a_banned_word_is_found_with_its_line() {
        let text = format!("fine\nsee {}x\n", BANNED[0].0);
        assert_eq!(find("a/b.rs", &text), [format!("a/b.rs:2: holds {} (a path of one machine)", BANNED[0].0)]);
        assert!(find("a/b.rs", "workers, root, a/work").is_empty());
    }

    #[test]
    fn pages_for_users_name_the_subject() {
        let text = "The client is told so.\nFairway tells the client.\n";
        assert_eq!(find("docs/a/b.md", text), ["docs/a/b.md:1: says \"is told\": name the subject"]);
        assert!(find("ARCHITECTURE.md", text).is_empty());
    }

    #[test]
    fn lock_files_name_one_source() {
        assert!(find("Cargo.lock", &format!("source = \"{SOURCE}\"")).is_empty());
        assert_eq!(find("fuzz/Cargo.lock", "source = \"git+https://example.com/x\"").len(), 1);
    }
}
