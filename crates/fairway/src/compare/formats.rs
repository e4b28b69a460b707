//! The machine-readable report, as described by `docs/schema/compare.json`.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::cause::Report;
use super::difference::{Aspect, Change};
use super::question::Question;

/// The whole report, with all requests.
pub(super) fn json(sides: &[String; 2], report: &Report, left_out: &BTreeMap<String, u64>, redacted: u64) -> Value {
    let requests = |all: &[Question]| all.iter().map(request).collect::<Vec<_>>();
    let groups = report.groups.iter().map(|group| {
        let ingress = group.ingress.as_ref();
        let annotations = group.annotations.iter().map(
            |related| json!({"name": related.name, "verdict": related.verdict, "note": related.note, "known": related.is_known()}),
        );
        json!({
            "ingress": ingress.map(|ingress| json!({"namespace": &*ingress.namespace, "name": &*ingress.name})),
            "file": group.place.as_ref().map(|place| place.file.to_string_lossy()),
            "line": group.place.as_ref().and_then(|place| place.line),
            "changes": group.changes.iter().map(change).collect::<Vec<_>>(),
            "annotations": annotations.collect::<Vec<_>>(),
            "known": group.is_known(),
            "why": group.why,
            "requests": requests(&group.requests),
        })
    });
    let documented = report
        .documented
        .iter()
        .map(|(rule, all)| json!({"name": rule.name, "text": rule.text, "requests": requests(all)}));
    let unsteady = report.unsteady.iter().map(|(of, aspects)| {
        let aspects: Vec<_> = aspects.iter().map(aspect).collect();
        let aspects: Vec<_> = aspects.iter().map(|(kind, name)| json!({"kind": kind, "name": name})).collect();
        json!({"request": request(of), "parts": aspects})
    });
    json!({
        "old": sides[0],
        "new": sides[1],
        "requests": report.asked,
        "same": report.same,
        "different": report.different,
        "differences": groups.collect::<Vec<_>>(),
        "documented": documented.collect::<Vec<_>>(),
        "unsteady": unsteady.collect::<Vec<_>>(),
        "not_sent": left_out.iter().map(|(reason, count)| json!({"reason": reason, "count": count})).collect::<Vec<_>>(),
        "redacted": redacted,
        "stopped": report.stopped,
    })
}

fn request(request: &Question) -> Value {
    let field = |(name, value): &(String, String)| json!({"name": name, "value": value});
    json!({
        "method": request.method,
        "url": request.url(),
        "fields": request.fields.iter().map(field).collect::<Vec<_>>(),
    })
}

fn change(change: &Change) -> Value {
    let (kind, name) = aspect(&change.aspect);
    json!({"kind": kind, "name": name, "old": change.old, "new": change.new})
}

/// The kind of an aspect, and the field's name if it is a field.
fn aspect(aspect: &Aspect) -> (&'static str, Option<&str>) {
    match aspect {
        Aspect::Answer => ("answer", None),
        Aspect::Status => ("status", None),
        Aspect::Location => ("location", None),
        Aspect::Field(name) => ("field", Some(name)),
        Aspect::Body => ("body", None),
    }
}
