//! The tables as a whole: they have every name of ingress-nginx exactly once, with documentation, and the reference in `docs/`
//! matches them.

use std::collections::BTreeSet;
use std::path::PathBuf;

use fairway_translate::annotation::{self, CLASS, Scope, annotations_markdown};
use fairway_translate::configmap::{self, configmap_markdown};
use fairway_translate::flag::{FLAGS, flags_markdown};
use fairway_translate::verdict::Verdict;

const ANNOTATIONS: &str = include_str!("../reference/annotations.txt");
const CONFIGMAP: &str = include_str!("../reference/configmap.txt");
const FLAG_LIST: &str = include_str!("../reference/flags.txt");

/// The rows of a checked-in list, by columns.
fn rows(list: &'static str) -> impl Iterator<Item = Vec<&'static str>> {
    list.lines().filter(|line| !line.starts_with('#')).map(|line| line.split('\t').collect())
}

fn assert_unique<'a>(names: impl IntoIterator<Item = &'a str>) {
    let mut seen = BTreeSet::new();
    for name in names {
        assert!(seen.insert(name), "{name} is declared twice");
    }
}

fn assert_documented(name: &str, doc: &str, verdict: Verdict) {
    assert!(doc.trim().ends_with('.') && doc.trim().len() > 5, "{name} has no sentence: {doc:?}");
    if verdict != Verdict::Same {
        assert!(verdict.note().len() > 10, "{name} doesn't say why");
    }
}

#[test]
fn names_and_aliases_are_unique() {
    assert_unique(annotation::names());
    assert_unique(configmap::names());
    assert_unique(FLAGS.iter().map(|flag| flag.name));
}

#[test]
fn every_entry_is_documented() {
    for spec in annotation::GROUPS.iter().flat_map(|group| group.specs) {
        assert_documented(spec.name, spec.doc, spec.verdict);
        assert!(!spec.syntax.is_empty(), "{}", spec.name);
    }
    for spec in configmap::specs() {
        assert_documented(spec.name, spec.doc, spec.verdict);
        assert_eq!(spec.syntax.is_empty(), !spec.verdict.works(), "{}", spec.name);
    }
    for flag in FLAGS {
        assert_documented(flag.name, flag.doc, flag.verdict);
    }
}

#[test]
fn no_annotation_of_ingress_nginx_is_missing() {
    for row in rows(ANNOTATIONS) {
        let [name, scope, risk] = row[..] else { panic!("{row:?}") };
        if name == CLASS {
            continue;
        }
        let spec = annotation::spec(name).unwrap_or_else(|| panic!("{name} is in no table"));
        let removed = scope == "(removed)";
        assert_eq!(removed, matches!(spec.verdict, Verdict::Harmless(_)) && spec.syntax == "(removed)", "{name}");
        if !removed {
            let expected = if scope == "ingress" { Scope::Ingress } else { Scope::Location };
            assert_eq!(spec.scope, expected, "{name}");
            assert_eq!(spec.risk.as_str().to_lowercase(), risk, "{name}");
        }
    }
}

#[test]
fn no_key_of_ingress_nginx_is_missing() {
    for row in rows(CONFIGMAP) {
        let name = row[0];
        let spec = configmap::spec(name).unwrap_or_else(|| panic!("{name} is in no table"));
        // Defaults in parentheses and sentences are descriptions, not quotes.
        let quoted = !row[1].starts_with('(') && !row[1].contains(" types") && !row[1].contains("see ");
        let differs =
            ["worker-processes", "proxy-real-ip-cidr", "ssl-ciphers", "global-auth-cache-duration"].contains(&name);
        if quoted && spec.verdict.works() && !differs {
            assert_eq!(spec.default, row[1], "{name}");
        }
    }
}

#[test]
fn no_flag_of_ingress_nginx_is_missing() {
    for row in rows(FLAG_LIST) {
        let name = row[0].strip_prefix("--").expect("dashes");
        let flag = FLAGS.iter().find(|flag| flag.name == name).unwrap_or_else(|| panic!("{name} is in no table"));
        let quoted = !row[1].starts_with('(') && !row[1].contains([' ']) && !row[1].contains("...");
        if quoted && flag.takes != fairway_translate::flag::Takes::Duration {
            assert_eq!(flag.default, row[1], "{name}");
        }
    }
}

#[test]
fn the_reference_is_what_the_tables_say() {
    for (file, text) in [
        ("annotations.md", annotations_markdown()),
        ("configmap.md", configmap_markdown()),
        ("flags.md", flags_markdown()),
    ] {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(file);
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, &text).expect("docs can be written");
        }
        let written = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(written == text, "docs/{file} is out of date: run with UPDATE_DOCS=1");
    }
}

#[test]
fn the_page_about_route_policies_has_every_field() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/route-policy.md");
    let page = std::fs::read_to_string(&path).expect("the page");
    let (begin, end) = ("<!-- generated: fields -->\n", "<!-- end -->");
    let (before, rest) = page.split_once(begin).expect("where the table begins");
    let (_, after) = rest.split_once(end).expect("where the table ends");
    let text = format!("{before}{begin}{}{end}{after}", fairway_translate::gateway::schema::fields_markdown());
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &text).expect("docs can be written");
    }
    assert!(std::fs::read_to_string(&path).unwrap_or_default() == text, "out of date: run with UPDATE_DOCS=1");
}
