//! BackendTLSPolicies, XBackendTrafficPolicies and XTelemetryPolicies among the objects of the Gateway API: what is read again when one
//! changes, and where each applies.

use std::collections::BTreeSet;

use super::{GatewayInputs, GatewayOwned, Gateways, plain_owner, turn};
use crate::diagnostic::Diagnostic;
use crate::engine::dirty::{Dirty, Output};
use crate::gateway::status::ObjectStatus;
use crate::gateway::telemetry_policy::TelemetryReader;
use crate::objects::{Kind, Object, ObjectKey, Objects};
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
            // Policies of any namespace count: their Services may be reached from namespaces that are served.
            Some(object @ Object::BackendTLSPolicy(policy)) => {
                Some((plain_owner(key, &policy.metadata, objects), turn(key, object, objects), &**policy))
            }
            _ => None,
        };
        let services = self.policies_of_backends.read(key, found, objects, owned.config_maps, dirty, out);
        self.forget(key, dirty);
        // Another policy for the same Service may apply now.
        dirty
            .gateway_statuses
            .extend(services.iter().flat_map(|service| self.policies_of_backends.for_service(service)).cloned());
        // The status of an XBackend says whether it is refused because of a policy.
        dirty.gateway_statuses.extend(services.iter().filter(|target| target.kind == Kind::XBackend).cloned());
        let telemetry = services.iter().flat_map(|service| self.policies_of_telemetry.for_service(service));
        dirty.telemetry_policies.extend(telemetry.cloned());
        services.iter().filter_map(|service| self.services.get(service)).flatten().cloned().collect()
    }

    /// The status of a policy, and the findings about it.
    pub(super) fn policy_status(&self, key: &ObjectKey, objects: &Objects) -> Option<(ObjectStatus, Vec<Diagnostic>)> {
        let (ancestors, findings) =
            self.policies_of_backends.status(key, objects, |service| self.gateways_with_tls(service))?;
        Some((ObjectStatus::Policy { ancestors }, findings))
    }

    /// The Gateways that reach a Service over the TLS of a policy, for their routes or to send spans.
    fn gateways_with_tls(&self, service: &ObjectKey) -> BTreeSet<ObjectKey> {
        let mut gateways = self.gateways_before(service);
        gateways.extend(self.policies_of_telemetry.gateways_of(service).cloned());
        gateways
    }

    /// The Gateways through which a Service or an XBackend is reached.
    pub(super) fn gateways_before(&self, service: &ObjectKey) -> BTreeSet<ObjectKey> {
        let parents = self.parents_of_routes();
        let routes = self.services.get(service).into_iter().flatten().filter_map(|route| self.routes.get(route));
        let listeners = routes.flat_map(|route| &route.attachments).map(|one| &one.listener.holder);
        listeners.filter_map(|holder| Some(parents.gateway_of(holder)?.key.clone())).collect()
    }

    /// Reads an XBackendTrafficPolicy, and marks the backends that it was for or is for now.
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
        self.forget(key, dirty);
        for service in &services {
            backends.touch_service(service, dirty);
            // Another policy for the same Service may apply now.
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

    /// Reads an XTelemetryPolicy.
    pub(super) fn read_telemetry_policy(&mut self, key: &ObjectKey, inputs: GatewayInputs<'_>, dirty: &mut Dirty) {
        let GatewayInputs { objects, options, .. } = inputs;
        let found = match objects.get(key) {
            Some(object @ Object::XTelemetryPolicy(policy)) => {
                Some((plain_owner(key, &policy.metadata, objects), turn(key, object, objects), &**policy))
            }
            _ => None,
        };
        let (tls, xbackends, policies) = (&self.policies_of_backends, &self.xbackends, &mut self.policies);
        let reader = TelemetryReader { objects, options, tls, xbackends, policies };
        self.policies_of_telemetry.read(key, found, reader, dirty);
        self.findings.remove(key);
    }

    /// Decides which XTelemetryPolicy applies to each Gateway, and marks the hosts whose routes are traced differently.
    pub(super) fn settle_telemetry(&mut self, backends: &mut Backends, dirty: &mut Dirty, out: &mut Output) {
        let gateways = &self.gateways;
        let is_ours = |gateway: &ObjectKey| gateways.contains_key(gateway);
        let changed = self.policies_of_telemetry.settle(is_ours, backends, dirty, out);
        for service in self.policies_of_telemetry.services() {
            dirty.gateway_statuses.extend(self.policies_of_backends.for_service(service).cloned());
        }
        for (place, table) in self.tables.iter().filter(|_| !changed.is_empty()) {
            if table.listeners.iter().any(|listener| changed.contains(&listener.gateway)) {
                self.hosts.extend(table.names().into_iter().map(|name| (place.clone(), name)));
            }
        }
    }

    /// The status of an XTelemetryPolicy, and the findings about it.
    pub(super) fn telemetry_policy_status(
        &self,
        key: &ObjectKey,
        objects: &Objects,
    ) -> Option<(ObjectStatus, Vec<Diagnostic>)> {
        let is_ours = |gateway: &ObjectKey| self.gateways.contains_key(gateway);
        let (ancestors, findings) = self.policies_of_telemetry.status(key, objects, is_ours)?;
        Some((ObjectStatus::Policy { ancestors }, findings))
    }
}
