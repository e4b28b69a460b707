//! The status of objects of the Gateway API, as `check` prints it: what a cluster would say about them.

use fairway_translate::gateway::status::{Condition, ObjectStatus};

/// One line per Gateway, listener or parent, with whether all is well there. What is as it should be is said in short.
pub(super) fn lines(status: &ObjectStatus) -> Vec<(bool, String)> {
    match status {
        ObjectStatus::Class { conditions, .. } => vec![line("", conditions)],
        ObjectStatus::Gateway { conditions, listeners, .. } | ObjectStatus::ListenerSet { conditions, listeners } => {
            let own = line("", conditions);
            let of_listeners = listeners.iter().map(|listener| {
                let routes = match listener.attached_routes {
                    1 => "1 route".to_owned(),
                    number => format!("{number} routes"),
                };
                line(&format!("listener {}, {routes}: ", listener.name), &listener.conditions)
            });
            [own].into_iter().chain(of_listeners).collect()
        }
        ObjectStatus::Policy { ancestors } => {
            ancestors.iter().map(|one| line(&format!("at {}: ", one.ancestor_ref.name), &one.conditions)).collect()
        }
        ObjectStatus::Route { parents } => parents
            .iter()
            .map(|parent| {
                let reference = &parent.parent_ref;
                let listener = reference.section_name.as_ref().map(|name| format!(", listener {name}"));
                let port = reference.port.map(|port| format!(", port {port}"));
                let (listener, port) = (listener.unwrap_or_default(), port.unwrap_or_default());
                line(&format!("at {}{listener}{port}: ", reference.name), &parent.conditions)
            })
            .collect(),
    }
}

fn line(place: &str, conditions: &[Condition]) -> (bool, String) {
    // These are bad news when they hold.
    let is_good = |one: &&Condition| {
        one.holds != matches!(one.kind, "Conflicted" | "PartiallyInvalid" | "InsecureFrontendValidationMode")
            && one.reason != "ListenersNotValid"
    };
    let bad: Vec<_> = conditions.iter().filter(|one| !is_good(one)).map(ToString::to_string).collect();
    if !bad.is_empty() {
        return (false, format!("{place}{}", bad.join("; ")));
    }
    let held: Vec<_> = conditions.iter().filter(|one| one.holds).map(|one| one.kind).collect();
    (true, format!("{place}{}", held.join(", ")))
}
