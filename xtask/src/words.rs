//! No file of the repository holds what is true on one machine only: its paths, and the hosts that it downloads from. Pages for users
//! have none of the phrases that make English read as translated.

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

/// Phrases that stand where a plain subject and verb belong, for pages that users read.
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
        // Gone from the disk and not yet from the index.
        let Ok(bytes) = fs::read(workspace.root.join(path)) else { continue };
        count += 1;
        let text = String::from_utf8_lossy(&bytes);
        complaints.extend(find(path, &text));
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

#[cfg(test)]
mod tests {
    use super::*;

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
