//! An exchange doesn't know which version of HTTP its sides use: outside of the two sides, no name in `exchange` mentions one. Where the
//! version matters, the exchange asks the side, for example whether it shows where a body ends.

use std::fs;
use std::path::Path;

use anyhow::Context;

use super::module_path::words;

const FOLDER: &str = "crates/proxy/src/exchange";
/// The two sides: a file, and the folder with the rest of its module.
const SIDES: [&str; 2] = ["side.rs", "side"];

pub(super) fn check(root: &Path) -> anyhow::Result<Vec<String>> {
    let mut complaints = Vec::new();
    read(root, FOLDER, &mut complaints)?;
    complaints.sort();
    Ok(complaints)
}

fn read(root: &Path, folder: &str, complaints: &mut Vec<String>) -> anyhow::Result<()> {
    for entry in fs::read_dir(root.join(folder)).with_context(|| format!("reading {folder}"))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{folder}/{name}");
        if folder == FOLDER && SIDES.contains(&&*name) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            read(root, &path, complaints)?;
        } else if name.ends_with(".rs") {
            let text = fs::read_to_string(entry.path()).with_context(|| format!("reading {path}"))?;
            complaints.extend(judge(&path, &text));
        }
    }
    Ok(())
}

fn judge(path: &str, text: &str) -> Vec<String> {
    let found = words(text).into_iter().filter(|(_, word)| says_version(word));
    found
        .map(|(line, word)| {
            format!("{path}:{line}: `{word}` says a version of HTTP, which only the two sides of an exchange know")
        })
        .collect()
}

/// Whether a name contains `http1`, `http2` or `version`, or is `h1` or `h2`, in any case of letters.
fn says_version(word: &str) -> bool {
    let lower = word.to_ascii_lowercase();
    ["http1", "http2", "http_1", "http_2", "version"].iter().any(|part| lower.contains(part))
        || lower.split('_').any(|part| part == "h1" || part == "h2")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_says_a_version_is_a_complaint() {
        let text = "//! Speaks HTTP/2, or http1.\nuse crate::http::Framing;\nfn f() {\n    if way.version() == Upstream::Http2 {}\n    self.is_http2();\n    h2::start();\n}\n";
        let found: Vec<_> = judge("a.rs", text).iter().map(|complaint| complaint[..20].to_owned()).collect();
        assert_eq!(
            found,
            ["a.rs:4: `version` sa", "a.rs:4: `Http2` says", "a.rs:5: `is_http2` s", "a.rs:6: `h2` says a "]
        );
    }

    #[test]
    fn other_names_are_none() {
        assert_eq!(judge("a.rs", "use crate::http::{Head, reason}; let graph2 = \"http2\"; // Version\n"), [""; 0]);
    }
}
