//! The status of objects of the Gateway API, as `check` reports it: what a cluster would say about them.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use fairway_translate::diagnostic::{Reason, Severity};
use fairway_translate::gateway::status::{Condition, ObjectStatus};
use fairway_translate::objects::{Kind, Object, ObjectKey, Objects};
use serde_json::{Value, json};

use crate::reading::Reading;

/// What is said about an object.
#[derive(Debug, Default)]
pub(super) struct ObjectReport {
    /// Whether the API server would refuse it, so that it has no status.
    refused: bool,
    status: Option<Arc<ObjectStatus>>,
    /// Parents that a route names and that do not exist, each with a sentence about that.
    absent: Vec<(String, String)>,
}

/// What is said about each object. What the API server would refuse counts for no other object here.
pub(super) fn told(reading: &Reading) -> BTreeMap<ObjectKey, ObjectReport> {
    let refused = reading.manifests.refused();
    let mut all: BTreeMap<_, ObjectReport> = match reading.statuses.keys().any(|key| refused.contains(key)) {
        false => with_statuses(&reading.statuses),
        true => with_statuses(&without(&refused, reading)),
    };
    for key in reading.statuses.keys().filter(|key| refused.contains(*key)) {
        all.insert(key.clone(), ObjectReport { refused: true, ..ObjectReport::default() });
    }
    for found in reading.findings.iter().map(|found| &found.diagnostic) {
        // Of parents that exist the status speaks.
        let is_absent = found.reason == Reason::RouteNotAttached && found.severity == Severity::Warning;
        let kind = Kind::ALL.iter().copied().find(|kind| kind.as_str() == &*found.origin.kind);
        let Some(kind) = kind.filter(|_| is_absent && found.field.starts_with("spec.parentRefs[")) else { continue };
        let key = ObjectKey::new(kind, &*found.origin.namespace, &*found.origin.name);
        if !refused.contains(&key) {
            all.entry(key).or_default().absent.push((found.value.clone(), found.message.clone()));
        }
    }
    all
}

fn with_statuses(statuses: &BTreeMap<ObjectKey, Arc<ObjectStatus>>) -> BTreeMap<ObjectKey, ObjectReport> {
    let told = |status: &Arc<ObjectStatus>| ObjectReport { status: Some(status.clone()), ..ObjectReport::default() };
    statuses.iter().map(|(key, status)| (key.clone(), told(status))).collect()
}

/// The statuses without some objects.
fn without(refused: &HashSet<&ObjectKey>, reading: &Reading) -> BTreeMap<ObjectKey, Arc<ObjectStatus>> {
    let taken = |object: &&Object| !refused.contains(&object.key());
    let objects: Objects = reading.objects.in_order().into_iter().filter(taken).cloned().collect();
    fairway_translate::translate(&objects, &reading.options, jiff::Timestamp::now().as_second()).statuses
}

/// Conditions and what they are of: the object itself (empty), a listener, or where it attaches.
type Part<'a> = (String, &'a [Condition]);

fn parts(status: &ObjectStatus) -> Vec<Part<'_>> {
    match status {
        ObjectStatus::Class { conditions, .. } => vec![(String::new(), conditions)],
        ObjectStatus::Gateway { conditions, listeners, .. } | ObjectStatus::ListenerSet { conditions, listeners } => {
            let own: Part<'_> = (String::new(), conditions);
            let of_listeners = listeners.iter().map(|listener| {
                let routes = match listener.attached_routes {
                    1 => "1 route".to_owned(),
                    number => format!("{number} routes"),
                };
                (format!("listener {}, {routes}", listener.name), &*listener.conditions)
            });
            [own].into_iter().chain(of_listeners).collect()
        }
        ObjectStatus::Policy { ancestors } => {
            ancestors.iter().map(|one| (format!("at {}", one.ancestor_ref.name), &*one.conditions)).collect()
        }
        ObjectStatus::Route { parents } => parents
            .iter()
            .map(|parent| {
                let reference = &parent.parent_ref;
                let listener = reference.section_name.as_ref().map(|name| format!(", listener {name}"));
                let port = reference.port.map(|port| format!(", port {port}"));
                let (listener, port) = (listener.unwrap_or_default(), port.unwrap_or_default());
                (format!("at {}{listener}{port}", reference.name), &*parent.conditions)
            })
            .collect(),
    }
}

/// One line per Gateway, listener or parent, with whether all is well there. What is as it should be is said in short.
pub(super) fn lines(told: &ObjectReport) -> Vec<(bool, String)> {
    if told.refused {
        return vec![(false, "refused by the API server, as said above: it has no status".to_owned())];
    }
    let absent = told.absent.iter().map(|(name, why)| (false, format!("at {name}: {why}")));
    told.status.iter().flat_map(|status| lines_of(status)).chain(absent).collect()
}

fn lines_of(status: &ObjectStatus) -> Vec<(bool, String)> {
    let line = |(place, conditions): Part<'_>| {
        let place = if place.is_empty() { place } else { place + ": " };
        let bad: Vec<_> = conditions.iter().filter(|one| !is_good(one)).map(ToString::to_string).collect();
        if !bad.is_empty() {
            return (false, format!("{place}{}", bad.join("; ")));
        }
        let held: Vec<_> = conditions.iter().filter(|one| one.holds).map(|one| one.kind).collect();
        (true, format!("{place}{}", held.join(", ")))
    };
    parts(status).into_iter().map(line).collect()
}

/// The same with every condition, for programs.
pub(super) fn json(key: &ObjectKey, told: &ObjectReport) -> Value {
    json!({
        "kind": key.kind.as_str(),
        "namespace": &*key.namespace,
        "name": &*key.name,
        "refused": told.refused,
        "status": told.status.iter().flat_map(|status| json_of(status)).collect::<Vec<_>>(),
        "absentParents": told.absent.iter().map(|(name, _)| name).collect::<Vec<_>>(),
    })
}

fn json_of(status: &ObjectStatus) -> Vec<Value> {
    let condition = |one: &Condition| {
        json!({
            "type": one.kind,
            "status": if one.holds { "True" } else { "False" },
            "reason": one.reason,
            "message": one.message,
            "good": is_good(one),
        })
    };
    let part = |(place, conditions): Part<'_>| json!({ "place": place, "conditions": conditions.iter().map(condition).collect::<Vec<_>>() });
    parts(status).into_iter().map(part).collect()
}

fn is_good(condition: &Condition) -> bool {
    // These are bad news when they hold.
    condition.holds != matches!(condition.kind, "Conflicted" | "PartiallyInvalid" | "InsecureFrontendValidationMode")
        && condition.reason != "ListenersNotValid"
}
