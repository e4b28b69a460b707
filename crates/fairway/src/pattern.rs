//! Static analysis of path patterns: sample paths that match, and what all matching paths begin with.

use std::collections::BTreeSet;

use fairway_model::PathRegex;
use regex_syntax::ParserBuilder;
use regex_syntax::ast::Ast;
use regex_syntax::hir::literal::Extractor;
use regex_syntax::hir::{Class, Hir, HirKind};

/// Number of alternatives for which samples are made.
const ALTERNATIVES: usize = 8;
/// Longest sample in bytes.
const LONGEST: usize = 1024;

/// Paths that match a pattern from its beginning, as Ingresses read it: each sample repeats parts as rarely as possible or once, and takes
/// one of the first alternatives.
pub(crate) fn samples(pattern: &str) -> BTreeSet<String> {
    let (Ok(regex), Some(hir)) = (pattern.parse::<PathRegex>(), parsed(pattern)) else { return BTreeSet::new() };
    let mut found = BTreeSet::new();
    for (alternative, least) in (0..ALTERNATIVES).flat_map(|at| [(at, 0), (at, 1)]) {
        let mut sample = Vec::new();
        if !walk(&hir, alternative, least, &mut sample) {
            continue;
        }
        if let Ok(sample) = String::from_utf8(sample)
            && sample.starts_with('/')
            && regex.is_match(sample.as_bytes())
        {
            found.insert(sample);
        }
    }
    found
}

/// What paths begin with, in lower case. An empty text stands for any path; [`END`] marks the end of a path.
pub(crate) type Beginnings = Vec<Vec<u8>>;

/// The end of a path; no path contains it.
const END: u8 = 0;

/// What the paths that fully match a pattern begin with.
pub(crate) fn beginnings(pattern: &str) -> Beginnings {
    // These suffixes end a pattern at a segment boundary.
    let segments = ["(/|$)(.*).*", "(/|$).*", "(/.*)?"].iter().find_map(|suffix| pattern.strip_suffix(suffix));
    let literals = parsed(segments.unwrap_or(pattern)).map(|hir| Extractor::new().extract(&hir));
    let Some(literals) = literals.as_ref().and_then(|literals| literals.literals()) else { return vec![Vec::new()] };
    let all = literals.iter().flat_map(|literal| match (segments, literal.is_exact()) {
        (Some(_), true) => of_segments(literal.as_bytes()),
        _ => vec![literal.as_bytes().to_ascii_lowercase()],
    });
    all.collect()
}

/// What paths below this path begin with, if whole segments are compared.
pub(crate) fn of_segments(path: &[u8]) -> Beginnings {
    let path = path.to_ascii_lowercase();
    if path.ends_with(b"/") {
        return vec![path];
    }
    [b'/', END].map(|last| [&path[..], &[last]].concat()).into()
}

/// Whether a path may begin with one of each.
pub(crate) fn overlap(one: &Beginnings, other: &Beginnings) -> bool {
    one.iter().any(|one| other.iter().any(|other| one.starts_with(other) || other.starts_with(one)))
}

/// The top-level alternatives of a pattern, as text.
pub(crate) fn alternatives(pattern: &str) -> Vec<&str> {
    match regex_syntax::ast::parse::Parser::new().parse(pattern) {
        Ok(Ast::Alternation(ref all)) => {
            let spans = all.asts.iter().map(Ast::span);
            spans.filter_map(|span| pattern.get(span.start.offset..span.end.offset)).collect()
        }
        _ => vec![pattern],
    }
}

fn parsed(pattern: &str) -> Option<Hir> {
    ParserBuilder::new().unicode(false).utf8(false).nest_limit(50).build().parse(pattern).ok()
}

/// Appends a text that an expression matches. Of alternatives, it takes the one with this number, modulo their count.
fn walk(hir: &Hir, alternative: usize, least: u32, out: &mut Vec<u8>) -> bool {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Literal(literal) => out.extend_from_slice(&literal.0),
        HirKind::Class(class) => match member(class) {
            Some(byte) => out.push(byte),
            None => return false,
        },
        HirKind::Repetition(repeated) => {
            let times = repeated.min.max(least.min(repeated.max.unwrap_or(1)));
            for _ in 0..times {
                if out.len() > LONGEST || !walk(&repeated.sub, alternative, least, out) {
                    return false;
                }
            }
        }
        HirKind::Capture(group) => return walk(&group.sub, alternative, least, out),
        HirKind::Concat(parts) => return parts.iter().all(|part| walk(part, alternative, least, out)),
        HirKind::Alternation(all) => return walk(&all[alternative % all.len()], alternative, least, out),
    }
    out.len() <= LONGEST
}

/// A character of a class that is allowed in a path.
fn member(class: &Class) -> Option<u8> {
    let takes = |byte: &u8| match class {
        Class::Unicode(class) => {
            class.ranges().iter().any(|range| (range.start()..=range.end()).contains(&char::from(*byte)))
        }
        Class::Bytes(class) => class.ranges().iter().any(|range| (range.start()..=range.end()).contains(byte)),
    };
    // Prefers a letter or a digit to a slash, which would begin another segment.
    b"a1".iter().copied().chain(b'b'..=b'z').chain(b'0'..=b'9').chain(b'A'..=b'Z').chain(b'!'..=b'~').find(takes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_takes_its_samples() {
        for (pattern, expected) in [
            ("/tenants/[0-9]+/admin", &["/tenants/1/admin"][..]),
            ("/files/[0-9]+/invoice[.]pdf", &["/files/1/invoice.pdf"]),
            ("/app(/|$)(.*)", &["/app", "/app/", "/app/a"]),
            ("/v(one|two)?/x{2,3}", &["/v/xx", "/vone/xx", "/vtwo/xx"]),
            ("/[^/]+/edit", &["/a/edit"]),
            ("/one|/two", &["/one", "/two"]),
            ("/(?!x)y", &[]),
        ] {
            let found = samples(pattern);
            assert!(found.iter().map(String::as_str).eq(expected.iter().copied()), "{pattern}: {found:?}");
        }
        // Terminates for any pattern.
        assert!(samples(&format!("/{}", "(a{1000}){1000}")).is_empty());
    }

    #[test]
    fn only_patterns_with_other_beginnings_are_apart() {
        for (one, other, together) in [
            ("/api(/|$)(.*)", "/web(/|$)(.*)", false),
            ("/api(/|$)(.*)", "/api/v2(/|$)(.*)", true),
            ("/API.*", "/api/x", true),
            ("/.*", "/x", true),
            ("/(a|b)/x", "/b/y", false),
            ("/(a|b)/x", "/b.*", true),
            (".*x", "/b", true),
            ("/api(/|$)(.*).*", "/apidocs", false),
            ("/api(/|$)(.*).*", "/api/(a|b)(/.*)?", true),
            ("/api(/|$)(.*).*", "/API(/.*)?", true),
            ("/a[0-9]+(/|$)(.*).*", "/a/b", false),
            ("/[a-z]+(/|$)(.*).*", "/b", true),
        ] {
            assert_eq!(overlap(&beginnings(one), &beginnings(other)), together, "{one} {other}");
        }
    }
}
