//! Findings about users' objects, one line each: location, severity, object, field, value, what was expected.

use std::fmt::Write as _;

use fairway_translate::diagnostic::{Diagnostic, Reason, Severity};
use serde_json::{Value, json};

use crate::manifest::Finding;
use crate::terminal::{Style, Terminal, printable};

/// A finding as the admin server shows it.
pub(crate) fn shown(found: Diagnostic) -> fairway_proxy::admin::Finding {
    fairway_proxy::admin::Finding {
        origin: found.origin,
        severity: found.severity.as_str(),
        reason: found.reason.as_str(),
        field: found.field,
        message: found.message,
    }
}

/// Formats a finding as one line.
pub(crate) fn line(finding: &Finding, terminal: Terminal) -> String {
    let mut out = String::new();
    if let Some(place) = &finding.place {
        let _ = write!(out, "{}: ", terminal.style(Style::Bold, printable(&place.to_string())));
    }
    let found = &finding.diagnostic;
    let (style, word) = match found.severity {
        Severity::Error => (Style::Red, "error"),
        Severity::Warning => (Style::Yellow, "warning"),
        Severity::Info => (Style::Cyan, "info"),
    };
    let _ = write!(out, "{}: ", terminal.style(style, word));
    // A file is named by its location; an unnamed object in it is shown by its kind.
    match &*found.origin.kind {
        "File" if found.origin.section.is_empty() => {}
        "File" => _ = write!(out, "{}: ", printable(&found.origin.section)),
        _ => _ = write!(out, "{}: ", printable(&found.origin.to_string())),
    }
    if !found.field.is_empty() {
        let _ = write!(out, "{}: ", printable(&found.field));
    }
    if !found.value.is_empty() {
        let _ = write!(out, "\"{}\": ", found.value);
    }
    let _ = write!(out, "{}", printable(&found.message));
    if found.reason != Reason::InvalidManifest {
        let _ = write!(out, " {}", terminal.style(Style::Dim, format_args!("[{}]", found.reason)));
    }
    out.push('\n');
    out
}

/// Formats a finding as JSON.
pub(crate) fn json(finding: &Finding) -> Value {
    let found = &finding.diagnostic;
    json!({
        "severity": found.severity,
        "reason": found.reason.as_str(),
        "kind": &*found.origin.kind,
        "namespace": &*found.origin.namespace,
        "name": &*found.origin.name,
        "section": &*found.origin.section,
        "field": found.field,
        "value": found.value,
        "message": found.message,
        "file": finding.place.as_ref().map(|place| place.file.to_string_lossy()),
        "line": finding.place.as_ref().and_then(|place| place.line),
    })
}

/// The number of errors and of warnings.
pub(crate) fn totals(findings: &[Finding]) -> (usize, usize) {
    let of = |severity| findings.iter().filter(|finding| finding.diagnostic.severity == severity).count();
    (of(Severity::Error), of(Severity::Warning))
}

/// Sorts by location, the most severe first in each, and removes duplicates.
pub(crate) fn sort(findings: &mut Vec<Finding>) {
    findings.sort_by(|a, b| {
        let key = |finding: &Finding| (finding.place.clone(), std::cmp::Reverse(finding.diagnostic.severity));
        key(a).cmp(&key(b)).then_with(|| a.diagnostic.field.cmp(&b.diagnostic.field))
    });
    findings.dedup();
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairway_model::Origin;
    use fairway_translate::diagnostic::Diagnostic;

    #[test]
    fn a_line_holds_place_object_field_value_and_expectation() {
        let origin = Origin::new("Ingress", "shop", "web");
        let diagnostic = Diagnostic::new(
            Severity::Error,
            Reason::InvalidHost,
            &origin,
            "spec.rules[0].host",
            "a b",
            "expected a name",
        );
        let place = Some(crate::manifest::Place { file: std::path::Path::new("a.yaml").into(), line: Some(3) });
        assert_eq!(
            line(&Finding { place, diagnostic }, Terminal::plain()),
            "a.yaml:3: error: Ingress shop/web: spec.rules[0].host: \"a b\": expected a name [InvalidHost]\n"
        );
    }
}
