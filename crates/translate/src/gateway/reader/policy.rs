//! BackendTLSPolicies and XBackendTrafficPolicies among the objects of the Gateway API: what is read again when one changes, and where it counts.

use std::collections::BTreeSet;

use super::{GatewayInputs, GatewayOwned, Gateways, plain_owner, turn};
use crate::diagnostic::Diagnostic;
use crate::engine::dirty::{Dirty, Output};
use crate::gateway::status::ObjectStatus;
use crate::objects::{Object, ObjectKey, Objects};
use crate::resource::Backends;

impl Gateways {
    /// Reads a policy. Returns the routes that depend on it.
    pub(super) fn read_policy(
        &mut self,
        key: &ObjectKey,
        inputs: GatewayInputs<'_>,
        owned: &mut GatewayOwned<'_>,
        dirty: &mut Dirty,
        out: &mut Output,
    ) -> BTreeSet<ObjectKey> {
        let objects = inputs.objects;
        let found = match objects.get(key) {
            // Of any namespace: its Services may be reached from namespaces that are served.
            Some(object @ Object::BackendTLSPolicy(policy)) => {
                Some((plain_owner(key, &policy.metadata, objects), turn(key, object, objects), &**policy))
            }
            _ => None,
        };
        let policies = &mut self.policies_of_backends;
        let services = policies.read(key, found, objects, owned.config_maps, dirty, out);
        self.findings.remove(key);
        dirty.reports.insert(key.clone());
        dirty.gateway_statuses.insert(key.clone());
        // Of several policies for the same, another one may count now.
        dirty.gateway_statuses.extend(services.iter().flat_map(|service| policies.for_service(service)).cloned());
        services.iter().filter_map(|service| self.services.get(service)).flatten().cloned().collect()
    }

    /// The status of a policy, and the findings about it.
    pub(super) fn policy_status(&self, key: &ObjectKey, objects: &Objects) -> Option<(ObjectStatus, Vec<Diagnostic>)> {
        let (ancestors, findings) =
            self.policies_of_backends.status(key, objects, |service| self.gateways_before(service))?;
        Some((ObjectStatus::Policy { ancestors }, findings))
    }

    /// The Gateways through which a Service or an XBackend is reached.
    pub(super) fn gateways_before(&self, service: &ObjectKey) -> BTreeSet<ObjectKey> {
        let parents = self.parents_of_routes();
        let routes = self.services.get(service).into_iter().flatten().filter_map(|route| self.routes.get(route));
        let listeners = routes.flat_map(|route| &route.attachments).map(|one| &one.listener.holder);
        listeners.filter_map(|holder| Some(parents.gateway_of(holder)?.key.clone())).collect()
    }

    /// Reads an XBackendTrafficPolicy, and marks the backends that it was or is for.
    pub(super) fn read_traffic_policy(
        &mut self,
        key: &ObjectKey,
        objects: &Objects,
        backends: &Backends,
        dirty: &mut Dirty,
    ) {
        let found = match objects.get(key) {
            Some(object @ Object::XBackendTrafficPolicy(policy)) => Some((turn(key, object, objects), &**policy)),
            _ => None,
        };
        let services = self.policies_of_traffic.read(key, found);
        self.findings.remove(key);
        dirty.reports.insert(key.clone());
        dirty.gateway_statuses.insert(key.clone());
        for service in &services {
            backends.touch_service(service, dirty);
            // Of several policies for the same, another one may count now.
            dirty.gateway_statuses.extend(self.policies_of_traffic.for_service(service).cloned());
        }
    }

    /// The status of an XBackendTrafficPolicy, and the findings about it.
    pub(super) fn traffic_policy_status(
        &self,
        key: &ObjectKey,
        objects: &Objects,
    ) -> Option<(ObjectStatus, Vec<Diagnostic>)> {
        let (ancestors, findings) =
            self.policies_of_traffic.status(key, objects, |service| self.gateways_before(service))?;
        Some((ObjectStatus::Policy { ancestors }, findings))
    }
}
