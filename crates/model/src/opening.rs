//! Whether a change can let through anything that is blocked now.
//!
//! Objects that restrict one another may become known in another order than they were written in. A change that opens nothing need not wait
//! for the others.

use crate::{
    Action, Body, Delta, EndpointSet, Endpoints, Filter, Forward, ForwardPolicy, Host, HostKey, Resource, ResourceName,
    Respond, Route, Snapshot,
};

impl Snapshot {
    /// Whether a change may let a request reach something that it can't reach now, or reach it with fewer checks. `false` is certain:
    /// routes take the same requests as before, and lead where they led through the same filters, or to a response of the proxy.
    pub fn may_open(&self, delta: &Delta) -> bool {
        // Requests for a removed host may fall to a wider one.
        !delta.removals.is_empty() || delta.upserts.iter().any(|resource| self.opens(resource))
    }

    fn opens(&self, new: &Resource) -> bool {
        let old = match new {
            Resource::Host(host) => self.resource(&ResourceName::Host(HostKey {
                table: host.table().clone(),
                pattern: host.pattern().clone(),
            })),
            Resource::Settings(_) => Some(Resource::Settings(self.settings().clone())),
            other => other.name().and_then(|name| self.resource(&name)),
        };
        match (old, new) {
            (None, _) => true,
            (Some(Resource::Host(old)), Resource::Host(new)) => host_opens(&old, new),
            (Some(Resource::EndpointSet(old)), Resource::EndpointSet(new)) => leads_elsewhere(&old, new),
            (Some(old), new) => old != *new,
        }
    }
}

/// Addresses that come and go belong to the same Service; where a DNS name leads is up to its owner.
fn leads_elsewhere(old: &EndpointSet, new: &EndpointSet) -> bool {
    let are_addresses = |set: &EndpointSet| matches!(set.endpoints, Endpoints::Addresses(_));
    old != new && !(are_addresses(old) && are_addresses(new))
}

fn host_opens(old: &Host, new: &Host) -> bool {
    let (before, after) = (old.routes(), new.routes());
    !new.is_equal_but_for_routes(old)
        || before.len() != after.len()
        || before.iter().zip(after).any(|(old, new)| route_opens(old, new))
}

fn route_opens(old: &Route, new: &Route) -> bool {
    let takes_the_same = old.path == new.path && old.conditions == new.conditions;
    !takes_the_same || filters_open(old, new) || action_opens(&old.action, &new.action, old.filters == new.filters)
}

/// Whether a filter may send a request to a service that did not get it before: an earlier filter may be gone, or the answer may now be an
/// error that it replaces.
fn filters_open(old: &Route, new: &Route) -> bool {
    let sends = |filter: &Filter| {
        matches!(filter, Filter::ErrorPages(_) | Filter::ExternalAuth(_) | Filter::Mirror(_) | Filter::Snippet(_))
    };
    let leads_on = |route: &Route| matches!(route.action, Action::Forward(_));
    let answers_as_before = old.action == new.action || leads_on(old) && leads_on(new);
    new.filters.iter().any(sends) && !(old.filters == new.filters && answers_as_before)
}

fn action_opens(old: &Action, new: &Action, same_filters: bool) -> bool {
    match (old, new) {
        (_, Action::Redirect(_) | Action::Respond(Respond { body: Body::Empty | Body::Page, .. })) => false,
        // The text may be meant for a few clients only.
        (_, Action::Respond(_)) => !same_filters || old != new,
        (Action::Forward(old), Action::Forward(new)) => {
            let policy = &*old.policy;
            let (connect_timeout, send_timeout) = (policy.connect_timeout, policy.send_timeout);
            let read_timeout = policy.read_timeout;
            let timed = ForwardPolicy { connect_timeout, send_timeout, read_timeout, ..(*new.policy).clone() };
            !same_filters || *old != Forward { policy: timed.into(), ..new.clone() }
        }
        (_, Action::Forward(_)) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        AccessList, BackendName, Endpoint, ErrorPages, HostPattern, Location, NetworkSet, Origin, PathMatch, Redirect,
        Settings, TableName,
    };
    use std::sync::Arc;
    use std::time::Duration;

    fn forward(backend: &str) -> Action {
        Action::Forward(Forward::to(backend.into(), ForwardPolicy::default().into()))
    }

    fn route(action: Action) -> Route {
        Route::new(Origin::new("Ingress", "shop", "web"), PathMatch::prefix("/").unwrap(), action)
    }

    fn host(routes: impl IntoIterator<Item = Route>) -> Host {
        Host::new(TableName::from("t"), HostPattern::parse("a.example").unwrap(), routes.into_iter().collect())
    }

    fn restricted(action: Action) -> Route {
        let list = AccessList { deny: NetworkSet::default(), allow: Some(NetworkSet::default()) };
        Route { filters: vec![Filter::AccessList(list)], ..route(action) }
    }

    fn may_open(old: Host, new: Host) -> bool {
        Snapshot::default().apply(Delta::upsert([old.into()])).may_open(&Delta::upsert([new.into()]))
    }

    #[test]
    fn an_answer_of_the_proxy_opens_nothing() {
        let redirect = |target: &str| Action::Redirect(Redirect::new(301, Location::Fixed(target.into())));
        assert!(!may_open(host([restricted(forward("n/s:80"))]), host([route(redirect("https://b.example/"))])));
        assert!(!may_open(
            host([route(redirect("https://a.example/"))]),
            host([route(redirect("https://b.example/"))])
        ));
        assert!(!may_open(host([route(forward("n/s:80"))]), host([route(Action::Respond(Respond::page(503)))])));
        assert!(may_open(host([route(redirect("https://a.example/"))]), host([route(forward("n/s:80"))])), "no more");
    }

    #[test]
    fn another_backend_or_filter_of_a_route_that_leads_on_may_open() {
        let old = || host([restricted(forward("n/s:80"))]);
        assert!(!may_open(old(), old()));
        assert!(may_open(old(), host([restricted(forward("n/other:80"))])));
        assert!(may_open(old(), host([route(forward("n/s:80"))])), "without its restriction");
        assert!(may_open(old(), host([restricted(forward("n/s:80")), restricted(forward("n/s:80"))])));
        let elsewhere = Route { path: PathMatch::prefix("/admin").unwrap(), ..restricted(forward("n/s:80")) };
        assert!(may_open(old(), host([elsewhere])), "other requests");
        assert!(may_open(old(), old().with_certificate(Some("n/c".into()))), "the host itself");
        let by =
            |policy: ForwardPolicy| host([restricted(Action::Forward(Forward::to("n/s:80".into(), policy.into())))]);
        let slow = ForwardPolicy { read_timeout: Duration::from_secs(600), ..ForwardPolicy::default() };
        assert!(!may_open(old(), by(slow)));
        let tls = ForwardPolicy { tls: Some(Default::default()), ..ForwardPolicy::default() };
        assert!(may_open(by(tls), old()), "in the clear");
    }

    #[test]
    fn what_a_filter_sends_on_may_open_when_another_no_longer_stands_before_it() {
        let forward = Forward::to("n/pages:80".into(), ForwardPolicy::default().into());
        let pages = Filter::ErrorPages(Arc::new(ErrorPages { statuses: vec![403, 404], only_own: false, forward }));
        let nowhere = || restricted(Action::Respond(Respond::page(404)));
        let with = |route: Route| {
            let mut filters = route.filters.clone();
            filters.push(pages.clone());
            host([Route { filters, ..route }])
        };
        let open = || Route { filters: Vec::new(), ..nowhere() };
        assert!(may_open(with(nowhere()), with(open())), "to the service without the list");
        assert!(!may_open(with(nowhere()), with(nowhere())));
        let on = Action::Forward(Forward::to("n/s:80".into(), ForwardPolicy::default().into()));
        assert!(may_open(with(restricted(on)), with(nowhere())), "other errors");
    }

    #[test]
    fn a_text_may_be_for_few() {
        let text = || {
            let body = Body::Text { content_type: "text/plain".into(), text: "for few".into() };
            Action::Respond(Respond { body, ..Respond::page(200) })
        };
        assert!(may_open(host([restricted(text())]), host([route(text())])));
        assert!(may_open(host([route(forward("n/s:80"))]), host([route(text())])));
        assert!(!may_open(host([restricted(text())]), host([restricted(text())])));
    }

    #[test]
    fn what_is_new_or_gone_may_open() {
        let there = Snapshot::default().apply(Delta::upsert([host([route(forward("n/s:80"))]).into()]));
        let other = Host::new(TableName::from("t"), HostPattern::parse("b.example").unwrap(), Vec::new());
        assert!(there.may_open(&Delta::upsert([other.into()])));
        let name = Resource::from(host([])).name().unwrap();
        assert!(there.may_open(&Delta { removals: vec![name], ..Delta::default() }));
        assert!(!there.may_open(&Delta::upsert([Settings::default().into()])), "as they are");
        let settings = Settings { default_certificate: Some("n/c".into()), ..Settings::default() };
        assert!(there.may_open(&Delta::upsert([settings.into()])));
    }

    #[test]
    fn endpoints_of_a_known_backend_open_nothing() {
        let set = |endpoints| Resource::from(EndpointSet { backend: BackendName::from("n/s:80"), endpoints });
        let at = |address: &str| set(Endpoints::Addresses(vec![Endpoint::ready(address.parse().unwrap())]));
        let named = set(Endpoints::Name { host: "internal.example".into(), port: 80 });
        let there = Snapshot::default().apply(Delta::upsert([at("192.0.2.1:80")]));
        assert!(!there.may_open(&Delta::upsert([at("192.0.2.2:80")])));
        assert!(there.may_open(&Delta::upsert([named])));
        assert!(Snapshot::default().may_open(&Delta::upsert([at("192.0.2.2:80")])));
    }
}
