//! The reference of ConfigMap keys, from the table.

use std::fmt::Write;

use super::{GlobalConfig, KeySpec, unbuilt};
use crate::verdict::sentence;

/// `docs/configmap.md`.
pub fn configmap_markdown() -> String {
    let mut out = "# The global ConfigMap\n\nGenerated from the table in `crates/translate/src/config/configmap.rs`; `UPDATE_DOCS=1 cargo test -p \
         fairway-translate --test tables` writes it.\n\nYou want to know how Fairway treats the keys of your controller's ConfigMap, which \
         `--configmap NAMESPACE/NAME` names. Without the flag, all keys have their defaults. An invalid value is reported, and its key keeps \
         the default, unless the entry says otherwise. An unknown key is reported, with the most similar name that exists.\n\n## Keys that work\n"
        .to_owned();
    for spec in GlobalConfig::SPECS {
        entry(&mut out, spec);
    }
    out.push_str("\n## Not built, refused, without effect\n");
    for spec in unbuilt::SPECS {
        entry(&mut out, spec);
    }
    out
}

fn entry(out: &mut String, spec: &KeySpec) {
    let _ = write!(out, "\n### `{}`\n\n{}\n\n", spec.name, spec.doc.trim());
    if !spec.syntax.is_empty() {
        let _ = writeln!(out, "- Value: {}", spec.syntax);
    }
    let _ = match spec.default {
        "" => writeln!(out, "- Default: none"),
        default => writeln!(out, "- Default: `{default}`"),
    };
    if !spec.closed.is_empty() {
        let _ = writeln!(out, "- Invalid value: {}", spec.closed);
    }
    let note = spec.verdict.markdown();
    let _ = match note.as_str() {
        "" => writeln!(out, "- Verdict: **{}**", spec.verdict.label()),
        note => writeln!(out, "- Verdict: **{}**. {}", spec.verdict.label(), sentence(note)),
    };
}
