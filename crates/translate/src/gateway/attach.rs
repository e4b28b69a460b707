//! Which listeners take a route, one parent at a time (Gateway API, "Attaching a route").

use std::cmp::Reverse;
use std::sync::Arc;

use fairway_model::{HostPattern, Origin};

use super::api::{GROUP, ParentReference};
use super::listener::{GatewayPart, ListenerPart, Namespaces, selects};
use super::listener_set::Parents;
use super::place::Place;
use super::status::Shortcoming;
use crate::objects::{Kind, ObjectKey, Objects};

/// A listener, by its name and the Gateway or ListenerSet that has it.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct ListenerId {
    pub(super) holder: ObjectKey,
    pub(super) name: Arc<str>,
}

impl ListenerId {
    pub(super) fn origin(&self) -> Origin {
        self.holder.origin().section(self.name.to_string())
    }
}

/// A host of a listener that serves a route.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Attachment {
    pub(super) listener: ListenerId,
    pub(super) place: Place,
    /// The names that both the listener and the route have.
    pub(super) pattern: HostPattern,
    /// The rank of the route's own name among those of the routes of the host.
    pub(super) rank: NameRank,
}

/// The precedence of a host name, first the most specific.
pub(super) type NameRank = Reverse<(u8, usize, u8)>;

/// A route that attaches.
#[derive(Clone, Copy)]
pub(super) struct Attaching<'a> {
    pub(super) kind: Kind,
    pub(super) namespace: &'a str,
    /// The route's host names that are valid; `None` if it has none at all.
    pub(super) hostnames: Option<&'a [HostPattern]>,
}

/// The Gateway or ListenerSet that a parent names, if it names one at all.
pub(super) fn holder_of(parent: &ParentReference, namespace: &str) -> Option<ObjectKey> {
    let kind = match parent.kind.as_deref() {
        None | Some("Gateway") => Kind::Gateway,
        Some("ListenerSet") => Kind::ListenerSet,
        Some(_) => return None,
    };
    let namespace = parent.namespace.as_deref().unwrap_or(namespace);
    (parent.group.as_deref().unwrap_or(GROUP) == GROUP).then(|| ObjectKey::new(kind, namespace, &*parent.name))
}

/// The listeners of a parent that take the route. `None` if the parent is not ours.
pub(super) fn judge(
    parent: &ParentReference,
    route: Attaching<'_>,
    parents: Parents<'_>,
    objects: &Objects,
) -> Option<Result<Vec<Attachment>, Shortcoming>> {
    let holder = holder_of(parent, route.namespace)?;
    let gateway = parents.gateway_of(&holder)?;
    if let Some(fault) = parents.fault_of(&holder) {
        let message = format!("{holder}: {}", fault.message);
        return Some(Err(Shortcoming::new("NoMatchingParent", message)));
    }
    Some(listeners(parent, route, &holder, gateway, objects))
}

fn listeners(
    parent: &ParentReference,
    route: Attaching<'_>,
    holder: &ObjectKey,
    gateway: &GatewayPart,
    objects: &Objects,
) -> Result<Vec<Attachment>, Shortcoming> {
    let name = parent.section_name.as_deref().filter(|name| !name.is_empty());
    let meant = |listener: &&ListenerPart| {
        name.is_none_or(|name| *listener.name == *name)
            && parent.port.is_none_or(|port| i32::from(listener.port) == port)
    };
    let mut left: Vec<&ListenerPart> = gateway.listeners_of(holder).filter(meant).collect();
    if left.is_empty() {
        let known = gateway.listeners_of(holder).map(|one| format!("{} ({})", one.name, one.port));
        let message = format!("{holder} has the listeners {}", known.collect::<Vec<_>>().join(", "));
        return Err(Shortcoming::new("NoMatchingParent", message));
    }
    left.retain(|listener| listener.kinds.contains(&route.kind));
    if left.is_empty() {
        let message = format!("no listener of {holder} takes a {}", route.kind);
        return Err(Shortcoming::new("NotAllowedByListeners", message));
    }
    left.retain(|listener| match &listener.namespaces {
        Namespaces::Same => *holder.namespace == *route.namespace,
        Namespaces::All => true,
        Namespaces::Selector(selector) => selects(selector, route.namespace, objects),
        Namespaces::None => false,
    });
    if left.is_empty() {
        let message =
            format!("no listener of {holder} takes routes of namespace {} (allowedRoutes.namespaces)", route.namespace);
        return Err(Shortcoming::new("NotAllowedByListeners", message));
    }
    let mut attached = Vec::new();
    for (listener, port) in left.iter().filter_map(|listener| Some((listener, listener.at()?))) {
        let any = [HostPattern::Any];
        for own in route.hostnames.unwrap_or(&any) {
            if let Some(pattern) = intersection(&listener.hostname, own) {
                attached.push(Attachment {
                    listener: ListenerId { holder: holder.clone(), name: listener.name.clone() },
                    place: gateway.place(port),
                    pattern,
                    rank: own.by_precision(),
                });
            }
        }
    }
    if attached.is_empty() {
        let names: Vec<_> = left.iter().map(|one| text(&one.hostname)).collect();
        let message = format!("no hostname of the route is among those of {holder}: {}", names.join(", "));
        return Err(Shortcoming::new("NoMatchingListenerHostname", message));
    }
    Ok(attached)
}

/// A host name, as the Gateway API writes it.
pub(super) fn text(pattern: &HostPattern) -> String {
    match pattern {
        HostPattern::Subdomains(name) => format!("*.{name}"),
        other => other.to_string(),
    }
}

/// The names that both patterns have: the more specific pattern, if it lies within the other.
pub(super) fn intersection(one: &HostPattern, other: &HostPattern) -> Option<HostPattern> {
    if is_within(one, other) {
        Some(one.clone())
    } else if is_within(other, one) {
        Some(other.clone())
    } else {
        None
    }
}

/// Whether all names of a pattern also belong to another one.
pub(super) fn is_within(inner: &HostPattern, outer: &HostPattern) -> bool {
    match (inner, outer) {
        (_, HostPattern::Any) => true,
        (HostPattern::Exact(inner), HostPattern::Exact(outer)) => inner == outer,
        (HostPattern::Exact(inner), HostPattern::Subdomains(outer)) => is_below(inner.as_str(), outer.as_str()),
        (HostPattern::Subdomains(inner), HostPattern::Subdomains(outer)) => {
            inner == outer || is_below(inner.as_str(), outer.as_str())
        }
        _ => false,
    }
}

fn is_below(name: &str, parent: &str) -> bool {
    name.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::listener::pattern;

    #[test]
    fn hostnames_intersect_as_specified() {
        for (listener, route, expected) in [
            ("*.example.com", "a.example.com", Some("a.example.com")),
            ("*.example.com", "a.b.example.com", Some("a.b.example.com")),
            ("*.example.com", "example.com", None),
            ("a.example.com", "*.example.com", Some("a.example.com")),
            ("*.com", "*.example.com", Some("*.example.com")),
            ("*.example.com", "*.com", Some("*.example.com")),
            ("*.example.com", "*.example.org", None),
            ("*.ample.com", "a.example.com", None),
            ("a.com", "a.com", Some("a.com")),
        ] {
            let found = intersection(&pattern(listener).unwrap(), &pattern(route).unwrap());
            assert_eq!(found.as_ref().map(text).as_deref(), expected, "{listener} {route}");
        }
    }
}
