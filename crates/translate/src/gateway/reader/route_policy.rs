//! RoutePolicies among the objects of the Gateway API: what is read or built again when one changes, and where each applies.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fairway_model::{Action, Filter, Route};

use super::{GatewayInputs, GatewayOwned, Gateways, is_in_scope, plain_owner, turn};
use crate::diagnostic::Diagnostic;
use crate::engine::dirty::{Dirty, Output};
use crate::gateway::attach::Attachment;
use crate::gateway::route::{Carried, RouteRules, RuleRoute};
use crate::gateway::route_policy::{AppliedPolicy, PolicyOwned, Site};
use crate::gateway::status::ObjectStatus;
use crate::objects::{Kind, Object, ObjectKey, Objects};
use crate::resource::backend::BackendKey;
use crate::resource::{BackendWishes, Secrets};

impl Gateways {
    /// Reads a policy. Returns the routes that it was for or is for now.
    pub(super) fn read_route_policy(
        &mut self,
        key: &ObjectKey,
        inputs: GatewayInputs<'_>,
        owned: &mut GatewayOwned<'_>,
        dirty: &mut Dirty,
        out: &mut Output,
    ) -> BTreeSet<ObjectKey> {
        let GatewayInputs { objects, options, .. } = inputs;
        let found = match objects.get(key) {
            Some(object @ Object::RoutePolicy(policy)) if is_in_scope(key, objects, options) => {
                Some((plain_owner(key, &policy.metadata, objects), turn(key, object, objects), &**policy))
            }
            _ => None,
        };
        let owned = PolicyOwned { backends: &mut *owned.backends, secrets: &mut *owned.secrets };
        let targets = self.policies_of_routes.read(key, found, (objects, options), owned, dirty, out);
        self.forget(key, dirty);
        let mut routes = BTreeSet::new();
        for target in targets {
            // Another policy for the same target may decide now.
            dirty.gateway_statuses.extend(self.policies_of_routes.for_object(&target.object).cloned());
            routes.extend(self.routes_at(&target.object));
        }
        routes
    }

    /// The routes of a target: itself, or those that a Gateway or ListenerSet has taken.
    fn routes_at(&self, object: &ObjectKey) -> BTreeSet<ObjectKey> {
        if !matches!(object.kind, Kind::Gateway | Kind::ListenerSet) {
            return self.routes.contains_key(object).then(|| object.clone()).into_iter().collect();
        }
        let has = |one: &Attachment| one.listener.holder == *object || self.gateway_at(one) == Some(object);
        self.routes.iter().filter(|(_, part)| part.attachments.iter().any(has)).map(|(key, _)| key.clone()).collect()
    }

    fn gateway_at(&self, one: &Attachment) -> Option<&ObjectKey> {
        let holder = &one.listener.holder;
        match holder.kind {
            Kind::Gateway => self.gateways.get(holder).map(|part| &part.key),
            _ => self.sets.get(holder).map(|set| &set.gateway),
        }
    }

    /// Reads the users of policies that are due, and marks the hosts whose users have changed.
    pub(super) fn settle_users(&mut self, secrets: &Secrets, dirty: &mut Dirty) {
        for key in std::mem::take(&mut dirty.route_policy_users) {
            let targets = self.policies_of_routes.settle_users(&key, secrets);
            let routes: BTreeSet<_> = targets.iter().flat_map(|target| self.routes_at(&target.object)).collect();
            for part in routes.iter().filter_map(|route| self.routes.get(route)) {
                self.hosts.extend(part.attachments.iter().map(|one| (one.place.clone(), one.pattern.clone())));
            }
            dirty.gateway_statuses.insert(key);
        }
    }

    /// The policies that decide about parts of routes, for all routes.
    pub(crate) fn applied_policies(&self) -> Vec<AppliedPolicy> {
        let mut found = Vec::new();
        if self.policies_of_routes.is_empty() {
            return found;
        }
        for (key, part) in &self.routes {
            let Carried::Requests(routes) = &part.carried else { continue };
            for one in &part.attachments {
                let Some(gateway) = self.gateway_at(one) else { continue };
                for RuleRoute { route, rule } in routes.iter() {
                    let site = Site { route: key, rule: rule.as_ref(), listener: &one.listener, gateway };
                    let deciding = self.policies_of_routes.deciding(&site);
                    found.extend(deciding.into_iter().map(|(policy, members)| AppliedPolicy {
                        route: route.origin.clone(),
                        pattern: one.pattern.clone(),
                        table: one.place.table(),
                        policy: policy.clone(),
                        members,
                    }));
                }
            }
        }
        found
    }

    /// The wishes of policies for the backends of a route; there are none for backends of other namespaces.
    pub(super) fn wishes(
        &self,
        key: &ObjectKey,
        rules: &RouteRules,
        first: Option<&Attachment>,
    ) -> BTreeMap<BackendKey, Arc<BackendWishes>> {
        let mut all = BTreeMap::new();
        let Some(first) = first.filter(|_| !self.policies_of_routes.is_empty()) else { return all };
        let Some(gateway) = self.gateway_at(first) else { return all };
        for (rule, backends) in &rules.shares {
            let site = Site { route: key, rule: rule.as_ref(), listener: &first.listener, gateway };
            let Some(wishes) = self.policies_of_routes.wishes(&site) else { continue };
            for backend in backends.iter().filter(|backend| backend.namespace == key.namespace) {
                all.entry(backend.clone()).or_insert_with(|| wishes.clone());
            }
        }
        all
    }

    /// The rules of a route that can't be carried out where it is attached, because policies there ask for something that one of the rule's
    /// filters already decides: by field, each with the reason.
    pub(super) fn torn<'a>(
        &self,
        key: &ObjectKey,
        rules: &RouteRules,
        places: impl Iterator<Item = &'a Attachment>,
    ) -> BTreeMap<String, String> {
        let asks = |route: &Route| route.filters.iter().any(|filter| matches!(filter, Filter::ExternalAuth(_)));
        self.faults(key, rules, places, |site, route| {
            let why = asks(route).then(|| self.policies_of_routes.torn(site))??;
            let rule = route.origin.section.split('.').next()?;
            Some((format!("spec.{rule}.filters"), why))
        })
    }

    /// The rules of a route at which `satisfy: Any` of a policy has no effect: by field, each with the reason.
    pub(super) fn overruled<'a>(
        &self,
        key: &ObjectKey,
        rules: &RouteRules,
        places: impl Iterator<Item = &'a Attachment>,
    ) -> BTreeMap<String, String> {
        self.faults(key, rules, places, |site, route| {
            let why = self.policies_of_routes.overruled(site)?;
            let rule = route.origin.section.split('.').next()?;
            Some((format!("spec.{rule}"), why))
        })
    }

    /// The matches of a route at which a policy rewrites paths with groups that they don't have: by field, each with what stays empty.
    pub(super) fn unfilled<'a>(
        &self,
        key: &ObjectKey,
        rules: &RouteRules,
        places: impl Iterator<Item = &'a Attachment>,
    ) -> BTreeMap<String, String> {
        let is_sent = |route: &Route| matches!(route.action, Action::Forward(_));
        self.faults(key, rules, places, |site, route| {
            let why = is_sent(route).then(|| self.policies_of_routes.unfilled(site, &route.path))??;
            Some((format!("spec.{}", route.origin.section), why))
        })
    }

    /// The faults of a route's rules at each place where policies may apply to it: by field, the first of each.
    fn faults<'a>(
        &self,
        key: &ObjectKey,
        rules: &RouteRules,
        places: impl Iterator<Item = &'a Attachment>,
        fault: impl Fn(&Site<'_>, &Route) -> Option<(String, String)>,
    ) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        if self.policies_of_routes.is_empty() {
            return found;
        }
        for one in places {
            let Some(gateway) = self.gateway_at(one) else { continue };
            for RuleRoute { route, rule } in &rules.routes {
                let site = Site { route: key, rule: rule.as_ref(), listener: &one.listener, gateway };
                if let Some((field, why)) = fault(&site, route) {
                    found.entry(field).or_insert(why);
                }
            }
        }
        found
    }

    /// The status of a policy, and the findings about it.
    pub(super) fn route_policy_status(
        &self,
        key: &ObjectKey,
        objects: &Objects,
        secrets: &Secrets,
    ) -> Option<(ObjectStatus, Vec<Diagnostic>)> {
        let reached = |object: &ObjectKey| match object.kind {
            Kind::Gateway => self.gateways.get(object).map(|part| part.key.clone()).into_iter().collect(),
            Kind::ListenerSet => self.sets.get(object).map(|set| set.gateway.clone()).into_iter().collect(),
            _ => {
                let attachments = self.routes.get(object).into_iter().flat_map(|part| &part.attachments);
                attachments.filter_map(|one| self.gateway_at(one).cloned()).collect()
            }
        };
        let (ancestors, findings) = self.policies_of_routes.status(key, objects, secrets, reached)?;
        Some((ObjectStatus::Policy { ancestors }, findings))
    }
}
