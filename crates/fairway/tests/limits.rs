//! `docs/limits.md` matches the tables of limits; `UPDATE_DOCS=1` rewrites it.

use std::fmt::Write;
use std::path::PathBuf;

use fairway_model::{Amount, Limit};
use fairway_translate::configmap;
use fairway_translate::flag::FLAGS;

/// The default of a setting, and its notation.
fn columns(limit: &Limit) -> (String, String) {
    let Amount::Setting(name) = limit.amount else {
        return (limit.amount.to_string(), "none".to_owned());
    };
    let default = match name.strip_prefix("--") {
        Some(flag) => FLAGS.iter().find(|row| row.name == flag).unwrap_or_else(|| panic!("no flag {name}")).default,
        None => {
            let spec = configmap::spec(name).unwrap_or_else(|| panic!("no key {name}"));
            assert!(spec.verdict.works(), "{name} is a limit that does not work");
            spec.default
        }
    };
    (format!("`{default}`"), format!("`{name}`"))
}

fn page() -> String {
    let mut out = "# Limits and timeouts\n\nGenerated from the tables in `crates/proxy/src/limit.rs`, `crates/translate/src/limit.rs` \
         and `crates/channel/src/limit.rs`; `UPDATE_DOCS=1 cargo test -p fairway --test limits` writes it.\n\nEverything has a bound. A setting is a key of the \
         ConfigMap, some of which have an annotation of the same name, or a flag; where there is none, the limit is fixed. The last column \
         is the reason in `fairway_request_failures_total` and in the log ([failure reasons](failure-reasons.md)), or another \
         metric.\n"
        .to_owned();
    let sections =
        [fairway_proxy::limit::SECTIONS, fairway_translate::limit::SECTIONS, fairway_channel::limit::SECTIONS];
    for section in sections.into_iter().flatten() {
        let _ = write!(
            out,
            "\n## {}\n\n| what | default | setting | when it is reached | seen as |\n| --- | --- | --- | --- | --- |\n",
            section.title
        );
        for limit in section.limits {
            let (default, setting) = columns(limit);
            let _ =
                writeln!(out, "| {} | {default} | {setting} | {} | {} |", limit.what.trim(), limit.answer, limit.shown);
        }
    }
    out
}

#[test]
fn the_page_is_what_the_tables_say() {
    let text = page();
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/limits.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &text).expect("docs can be written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(written == text, "docs/limits.md is out of date: run UPDATE_DOCS=1 cargo test -p fairway --test limits");
}
