//! Which listener a host belongs to, and which routes name the host at another one, where its requests don't arrive: for `fairway explain`.

use std::collections::BTreeMap;

use fairway_model::{HostPattern, Hostname, Origin, TableName};

use super::attach::{Attachment, text};
use super::open::OpenListener;
use crate::objects::ObjectKey;

/// The listeners of all ports, and the routes that are attached to them.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    /// The open listeners, by host name.
    owners: BTreeMap<NameOnPort, Origin>,
    /// The routes for each name, with their listeners.
    routes: BTreeMap<NameOnPort, Vec<(Origin, Origin)>>,
}

/// A name on a port.
type NameOnPort = (TableName, HostPattern);

/// A route for a host whose requests arrive at another listener.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PassedOver {
    /// The route.
    pub route: Origin,
    /// Where it is attached.
    pub listener: Origin,
    /// Whether that is open.
    pub is_open: bool,
    /// The listener that the host belongs to, and its own host name. Without one there is no open listener for the host.
    pub owner: Option<(Origin, String)>,
}

impl Claims {
    pub(super) fn add_listener(&mut self, table: TableName, listener: &OpenListener) {
        self.owners.insert((table, listener.hostname.clone()), listener.origin());
    }

    pub(super) fn add_route(&mut self, route: &ObjectKey, at: &Attachment) {
        let claim = (at.place.table(), at.pattern.clone());
        self.routes.entry(claim).or_default().push((route.origin(), at.listener.origin()));
    }

    /// The routes that name a host and don't get its requests, because these belong to another listener of the port.
    pub fn passed_over(&self, table: &TableName, host: &Hostname) -> Vec<PassedOver> {
        let parents = std::iter::successors(host.parent(), |name| Some(name.split_once('.')?.1));
        let wild = parents.filter_map(|parent| parent.parse().ok().map(HostPattern::Subdomains));
        // The most specific first.
        let claims: Vec<NameOnPort> = [HostPattern::Exact(host.clone())]
            .into_iter()
            .chain(wild)
            .chain([HostPattern::Any])
            .map(|pattern| (table.clone(), pattern))
            .collect();
        let owner = claims.iter().find_map(|claim| Some((self.owners.get(claim)?, text(&claim.1))));
        let is_owner = |listener: &Origin| owner.as_ref().is_some_and(|(owner, _)| *owner == listener);
        let named = || claims.iter().filter_map(|claim| self.routes.get(claim)).flatten();
        let mut found = Vec::<PassedOver>::new();
        for (route, listener) in named() {
            let is_served = || named().any(|(other, at)| other == route && is_owner(at));
            let is_known = found.iter().any(|known| known.route == *route && known.listener == *listener);
            if !is_known && !is_owner(listener) && !is_served() {
                found.push(PassedOver {
                    route: route.clone(),
                    listener: listener.clone(),
                    is_open: self.owners.values().any(|open| open == listener),
                    owner: owner.as_ref().map(|(owner, name)| ((*owner).clone(), name.clone())),
                });
            }
        }
        found
    }
}
