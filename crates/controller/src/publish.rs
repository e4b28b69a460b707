//! What goes to the proxy.

use std::collections::BTreeSet;

use fairway_model::{Delta, HostKey, Resource, ResourceName};
use tokio::sync::oneshot;

/// A change for the proxy. The next one comes only after this one is live, so none is overtaken.
#[derive(Debug)]
pub struct Publish {
    /// What changes.
    pub delta: Delta,
    /// To be answered once every worker runs the change.
    pub live: oneshot::Sender<()>,
}

/// Joins two deltas into one that has the effect of both, one after the other.
#[allow(clippy::mutable_key_type, reason = "names with a regular expression are ordered by its text")]
pub(crate) fn join(first: Delta, second: Delta) -> Delta {
    if first.is_empty() {
        return second;
    }
    let later: BTreeSet<ResourceName> =
        second.upserts.iter().filter_map(name).chain(second.removals.iter().cloned()).collect();
    let has_settings = second.upserts.iter().any(|resource| name(resource).is_none());
    let stays = |resource: &Resource| name(resource).map_or(!has_settings, |name| !later.contains(&name));
    // Removals come before upserts in a delta: one that was followed by an upsert stays harmless.
    let removals: BTreeSet<ResourceName> = first.removals.into_iter().chain(second.removals).collect();
    Delta {
        upserts: first.upserts.into_iter().filter(stays).chain(second.upserts).collect(),
        removals: removals.into_iter().collect(),
    }
}

/// `None` for the settings, of which there is one.
fn name(resource: &Resource) -> Option<ResourceName> {
    Some(match resource {
        Resource::Listener(listener) => ResourceName::Listener(listener.name.clone()),
        Resource::Host(host) => {
            ResourceName::Host(HostKey { table: host.table().clone(), pattern: host.pattern().clone() })
        }
        Resource::Backend(backend) => ResourceName::Backend(backend.name.clone()),
        Resource::EndpointSet(set) => ResourceName::EndpointSet(set.backend.clone()),
        Resource::Certificate(certificate) => ResourceName::Certificate(certificate.name.clone()),
        Resource::Settings(_) => return None,
    })
}
