//! XBackends among the objects of the Gateway API: what is read again when one changes, the Services created for them, and their status.

use std::collections::{BTreeMap, BTreeSet};

use super::status::unusable;
use super::{GatewayInputs, GatewayOwned, Gateways, is_in_scope, plain_owner, selection};
use crate::diagnostic::{Diagnostic, Reason, Severity};
use crate::engine::dirty::{Dirty, Output};
use crate::gateway::backend_tls::{ANCESTORS, ancestor};
use crate::gateway::service::Make;
use crate::gateway::status::{AncestorStatus, Condition, FieldFault, ObjectStatus, Shortcoming};
use crate::gateway::xbackend::XBackendFault;
use crate::objects::{Kind, Object, ObjectKey};
use crate::resource::Secrets;

impl Gateways {
    /// Reads an XBackend. Returns the routes that depend on it.
    pub(super) fn read_xbackend(
        &mut self,
        key: &ObjectKey,
        inputs: GatewayInputs<'_>,
        owned: &mut GatewayOwned<'_>,
        dirty: &mut Dirty,
        out: &mut Output,
    ) -> BTreeSet<ObjectKey> {
        let GatewayInputs { objects, options, .. } = inputs;
        let found = match objects.get(key) {
            Some(Object::XBackend(found)) => Some((plain_owner(key, &found.metadata, objects), &**found)),
            _ => None,
        };
        let selects = |all: &Self| all.xbackends.get(key).is_some_and(|part| part.selection.is_some());
        dirty.gateway_services |= selects(self);
        let owned_by = (&mut *owned.secrets, &mut *owned.config_maps);
        self.xbackends.read(key, found, (objects, options), owned_by, dirty, out);
        owned.backends.touch_service(key, dirty);
        self.forget(key, dirty);
        // These policies report whether their target exists.
        dirty.gateway_statuses.extend(self.policies_of_backends.for_service(key).cloned());
        dirty.gateway_services |= selects(self);
        self.services.get(key).cloned().unwrap_or_default()
    }

    /// Marks the status of an XBackend that a route has begun or ceased to reach. Other objects are left alone.
    pub(super) fn reached(&self, key: &ObjectKey, dirty: &mut Dirty) {
        if key.kind == Kind::XBackend {
            dirty.gateway_statuses.insert(key.clone());
            dirty.gateway_services |= self.xbackends.get(key).is_some_and(|part| part.selection.is_some());
        }
    }

    /// The pending work on Services for the pods of XBackends. A Service is created if a route of ours refers to the XBackend, and stays as
    /// long as the XBackend selects pods, so that an edit of a route costs nothing.
    pub(super) fn settle_xbackends(
        &mut self,
        inputs: GatewayInputs<'_>,
        dirty: &mut Dirty,
    ) -> BTreeMap<ObjectKey, Make> {
        let (mut made, mut unmade) = (BTreeMap::new(), BTreeMap::new());
        if inputs.options.development.is_none() {
            let GatewayInputs { objects, options, .. } = inputs;
            let accepted = self.xbackends.iter().filter(|(_, part)| part.fault.is_none());
            for (key, part) in accepted {
                let service = part.service();
                if !is_in_scope(key, objects, options) {
                    let fault = || {
                        let message = "its namespace is not served, so no Service is made for it";
                        Shortcoming::new("Invalid", message)
                    };
                    unmade.extend(part.selection.as_ref().map(|_| (key.clone(), fault())));
                    continue;
                }
                let make = match &part.selection {
                    None => Ok(selection::leftover(key, service, objects)),
                    Some(_) if !self.services.contains_key(key) => Ok(None),
                    Some(selection) => selection.settle(key, service, objects),
                };
                match make {
                    Ok(make) => made.extend(make.map(|make| (service.clone(), make))),
                    Err(fault) => _ = unmade.insert(key.clone(), fault),
                }
            }
        }
        let before = std::mem::replace(&mut self.unmade, unmade);
        let changed = before.keys().chain(self.unmade.keys()).filter(|key| before.get(*key) != self.unmade.get(*key));
        dirty.gateway_statuses.extend(changed.cloned());
        made
    }

    /// The status of an XBackend at the Gateways through which it is reached, and the findings about it.
    pub(super) fn xbackend_status(
        &self,
        key: &ObjectKey,
        secrets: &Secrets,
    ) -> Option<(ObjectStatus, Vec<Diagnostic>)> {
        let part = self.xbackends.get(key)?;
        let origin = key.origin();
        let mut findings = Vec::new();
        let mut complain = |severity, reason, field: &str, value: &str, message: String| {
            findings.push(Diagnostic::new(severity, reason, &origin, field, value, message));
        };
        let secret = part.secret.as_ref().and_then(|secret| unusable(secret, secrets));
        let fault = if let Some(fault) = &part.fault {
            let XBackendFault { field, value, reason, message, .. } = fault;
            let message = format!("{message}; requests to it answer 500, connections to it are closed");
            complain(Severity::Error, *reason, field, value, message);
            Some(fault.shortcoming())
        } else if let Some(why) = self.policies_of_backends.refuses(key) {
            let message = format!("{why}; requests to it answer 500, connections to it are closed");
            complain(Severity::Error, Reason::BackendPolicyRefused, "spec", "", message);
            Some(Shortcoming::new("Invalid", why))
        } else if let Some(why) = secret {
            let field = "spec.tls.clientCertificateRef";
            complain(Severity::Error, Reason::InvalidSecret, field, "", format!("{why}; it is not reached"));
            Some(Shortcoming::new("InvalidClientCertificateRef", format!("{field}: {why}")))
        } else if let Some(fault) = self.unmade.get(key) {
            let message = format!("{}; its pods are not found", fault.message);
            complain(Severity::Error, Reason::UnsupportedValue, "spec.endpointSelector", "", message);
            Some(fault.clone())
        } else {
            if let Some(FieldFault { field, why }) = &part.left_out {
                let message = format!("{}; it is left out", why.message);
                complain(Severity::Warning, Reason::UnsupportedValue, field, "", message);
            }
            None
        };
        let ancestors = self.gateways_before(key).into_iter().take(ANCESTORS).map(|gateway| AncestorStatus {
            ancestor_ref: ancestor(&gateway),
            conditions: vec![Condition::of("Accepted", fault.as_ref())],
        });
        Some((ObjectStatus::Policy { ancestors: ancestors.collect() }, findings))
    }
}
