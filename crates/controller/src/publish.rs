//! Changes sent to the proxy.

use std::collections::BTreeSet;

use fairway_model::{Delta, Resource, ResourceName};
use tokio::sync::oneshot;

/// A change for the proxy. The next one is sent only after this one is live, so none is overtaken.
#[derive(Debug)]
pub struct Publish {
    /// The change.
    pub delta: Delta,
    /// Must be answered once every worker runs the change.
    pub live: oneshot::Sender<()>,
}

/// Joins two deltas into one with the effect of both in order.
#[allow(clippy::mutable_key_type, reason = "names with a regular expression are ordered by its text")]
pub(crate) fn join(first: Delta, second: Delta) -> Delta {
    if first.is_empty() {
        return second;
    }
    let later: BTreeSet<ResourceName> =
        second.upserts.iter().filter_map(Resource::name).chain(second.removals.iter().cloned()).collect();
    let has_settings = second.upserts.iter().any(|resource| resource.name().is_none());
    let stays = |resource: &Resource| resource.name().map_or(!has_settings, |name| !later.contains(&name));
    // Removals precede upserts in a delta, so a removal that was followed by an upsert does no harm.
    let removals: BTreeSet<ResourceName> = first.removals.into_iter().chain(second.removals).collect();
    Delta {
        upserts: first.upserts.into_iter().filter(stays).chain(second.upserts).collect(),
        removals: removals.into_iter().collect(),
    }
}

/// Takes everything that hosts of other changes may refer to out of a held change, so that it can be sent before them.
#[allow(clippy::mutable_key_type, reason = "names with a regular expression are ordered by its text")]
pub(crate) fn take_referenced(held: &mut Delta) -> Vec<Resource> {
    let refers = |resource: &Resource| {
        matches!(
            resource,
            Resource::Host(_) | Resource::Listener(_) | Resource::StreamListener(_) | Resource::Settings(_)
        )
    };
    let (stay, referenced): (Vec<_>, Vec<_>) = std::mem::take(&mut held.upserts).into_iter().partition(refers);
    held.upserts = stay;
    // A removal that came before an upsert would now come after it.
    let names: BTreeSet<ResourceName> = referenced.iter().filter_map(Resource::name).collect();
    held.removals.retain(|name| !names.contains(name));
    referenced
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairway_model::{Endpoint, EndpointSet, Endpoints, Host, HostPattern, Settings, Snapshot, TableName};

    const NAMES: [&str; 3] = ["a.example.com", "b.example.com", "~^c"];

    /// A state with the hosts whose digit is not 0. A host with 2 differs from one with 1.
    fn state(digits: [u8; 3]) -> Snapshot {
        let hosts = NAMES.iter().zip(digits).filter(|(_, digit)| *digit > 0).map(|(name, digit)| {
            let pattern = HostPattern::parse(name).unwrap();
            let certificate = (digit > 1).then(|| "n/certificate".into());
            Resource::from(Host::new(TableName::from("t"), pattern, Vec::new()).with_certificate(certificate))
        });
        let settings =
            Settings { default_certificate: (digits[0] > 1).then(|| "n/default".into()), ..Settings::default() };
        Snapshot::default().apply(Delta::upsert(hosts.chain([settings.into()])))
    }

    #[test]
    fn one_after_the_other_or_joined_is_the_same() {
        // Every fifth state is enough: all digits occur in all places, each before and after each other one.
        let numbers = (0..27).step_by(5);
        let states: Vec<_> = numbers.map(|number: u8| state([number % 3, number / 3 % 3, number / 9])).collect();
        for before in &states {
            for between in &states {
                for after in &states {
                    let joined = join(Snapshot::diff(before, between), Snapshot::diff(between, after));
                    assert_eq!(before.apply(joined), *after);
                }
            }
        }
    }

    #[test]
    fn what_goes_before_is_not_removed_behind() {
        let set = |address: &str| {
            let endpoints = Endpoints::Addresses(vec![Endpoint::ready(address.parse().unwrap())]);
            Resource::from(EndpointSet { backend: "n/s:80".into(), endpoints })
        };
        let (old, new) = (set("192.0.2.1:80"), set("192.0.2.2:80"));
        let name = new.name().unwrap();
        let before = Snapshot::default().apply(Delta::upsert([old]));
        let gone = Delta { removals: vec![name], ..Delta::default() };
        let mut held = join(gone, Delta::upsert([new]));
        let whole = before.apply(held.clone());
        let ahead = before.apply(Delta::upsert(take_referenced(&mut held)));
        assert_eq!(ahead, whole);
        assert_eq!(ahead.apply(held), whole);
    }
}
