//! The status of objects of the Gateway API, as `check` reports it: what a cluster would say about them.

use fairway_translate::gateway::status::{Condition, ObjectStatus};
use serde_json::{Value, json};

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
pub(super) fn lines(status: &ObjectStatus) -> Vec<(bool, String)> {
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
pub(super) fn json(status: &ObjectStatus) -> Vec<Value> {
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
