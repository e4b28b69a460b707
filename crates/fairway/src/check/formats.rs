//! Reports for programs: JSON, SARIF, and the annotations of a GitHub workflow.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use fairway_translate::diagnostic::Severity;
use fairway_translate::verdict::Verdict;
use serde_json::{Value, json};

use super::gateway;
use super::verdicts::{Met, Verdicts, by_ingress};
use crate::flags::Flags;
use crate::manifest::Finding;
use crate::reading::Reading;
use crate::report;

/// The whole report, as described by `docs/schema/check.json`.
pub(super) fn json(reading: &Reading, verdicts: &Verdicts, flags: &Flags) -> Value {
    let of = |met: &BTreeMap<String, Met>| -> Vec<Value> {
        let entry = |(name, met): (&String, &Met)| {
            let instead = match met.verdict {
                Some(Verdict::Refused { instead, .. }) => Some(instead),
                _ => None,
            };
            json!({
                "name": name,
                "verdict": met.label(),
                "note": met.note(),
                "instead": instead,
                "objects": met.users,
                "notServed": met.foreign,
                "file": met.place.as_ref().map(|place| place.file.to_string_lossy()),
                "line": met.place.as_ref().and_then(|place| place.line),
            })
        };
        met.iter().map(entry).collect()
    };
    let counts = reading.counts();
    let (errors, warnings) = report::totals(&reading.findings);
    json!({
        "files": counts.files,
        "objects": counts.objects,
        "ignored": counts.ignored,
        "refused": reading.manifests.refused().len(),
        "errors": errors,
        "warnings": warnings,
        "diagnostics": reading.findings.iter().map(report::json).collect::<Vec<_>>(),
        "ingresses": by_ingress(reading)
            .into_iter()
            .map(|ingress| {
                let verdict = |(name, verdict)| json!({ "name": name, "verdict": verdict });
                json!({
                    "namespace": &*ingress.key.namespace,
                    "name": &*ingress.key.name,
                    "served": ingress.served,
                    "annotations": ingress.annotations.into_iter().map(verdict).collect::<Vec<_>>(),
                })
            })
            .collect::<Vec<_>>(),
        "gateway": gateway::told(reading).iter().map(|(key, told)| gateway::json(key, told)).collect::<Vec<_>>(),
        "annotations": of(&verdicts.annotations),
        "configmap": of(&verdicts.keys),
        // Part of the format; no default of ingress-nginx is missing at present.
        "defaults": [],
        "flags": flags
            .not_honoured()
            .map(|flag| json!({ "name": flag.name, "verdict": flag.verdict.label(), "note": flag.verdict.note() }))
            .collect::<Vec<_>>(),
    })
}

/// SARIF 2.1.0, read by code scanning of GitHub and GitLab and by most editors. Only findings in a file have a location.
pub(super) fn sarif(findings: &[Finding]) -> Value {
    let results: Vec<Value> = findings
        .iter()
        .map(|finding| {
            let found = &finding.diagnostic;
            let location = finding.place.as_ref().map(|place| {
                let mut physical = json!({ "artifactLocation": { "uri": uri(&place.file.to_string_lossy()) } });
                if let Some(line) = place.line {
                    physical["region"] = json!({ "startLine": line });
                }
                json!({ "physicalLocation": physical })
            });
            json!({
                "ruleId": found.reason.as_str(),
                "level": match found.severity {
                    Severity::Error => "error",
                    Severity::Warning => "warning",
                    Severity::Info => "note",
                },
                "message": { "text": message(finding) },
                "locations": location.into_iter().collect::<Vec<_>>(),
            })
        })
        .collect();
    let mut rules: Vec<&str> = findings.iter().map(|finding| finding.diagnostic.reason.as_str()).collect();
    rules.sort_unstable();
    rules.dedup();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": {
                "name": "fairway",
                "version": env!("CARGO_PKG_VERSION"),
                "rules": rules.iter().map(|id| json!({ "id": id })).collect::<Vec<_>>(),
            }},
            "results": results,
        }],
    })
}

/// Workflow commands of GitHub Actions: each finding appears beside its line in a pull request.
pub(super) fn github(findings: &[Finding]) -> String {
    let line = |finding: &Finding| {
        let found = &finding.diagnostic;
        let command = match found.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
            Severity::Info => "notice",
        };
        let place = finding.place.as_ref().map(|place| {
            let line = place.line.map(|line| format!("line={line},")).unwrap_or_default();
            format!("file={},{line}", escaped(&place.file.to_string_lossy(), true))
        });
        let text = escaped(&message(finding), false);
        format!("::{command} {}title={}::{text}\n", place.unwrap_or_default(), found.reason)
    };
    findings.iter().map(line).collect()
}

/// Object, field, value and what was expected, without location and severity.
fn message(finding: &Finding) -> String {
    let found = &finding.diagnostic;
    if &*found.origin.kind == "File" { found.message.clone() } else { found.to_string() }
}

/// A path as a URI. Relative paths stay relative, so that code scanning finds the file in the repository.
fn uri(path: &str) -> String {
    let mut out = if path.starts_with('/') { "file://".to_owned() } else { String::new() };
    for byte in path.trim_start_matches("./").bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' => out.push(byte.into()),
            _ => _ = write!(out, "%{byte:02X}"),
        }
    }
    out
}

/// The characters that `@actions/core` escapes in data, and in properties too.
fn escaped(text: &str, property: bool) -> String {
    let text = text.replace('%', "%25").replace('\r', "%0D").replace('\n', "%0A");
    if property { text.replace(':', "%3A").replace(',', "%2C") } else { text }
}
