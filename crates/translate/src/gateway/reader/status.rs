//! The status of Gateways and ListenerSets, and the findings about them.

use fairway_model::Origin;

use super::Gateways;
use crate::diagnostic::{Diagnostic, Reason, Severity};
use crate::gateway::api::GROUP;
use crate::gateway::attach::ListenerId;
use crate::gateway::listener::{GatewayPart, ListenerPart};
use crate::gateway::listener_set::SetPart;
use crate::gateway::status::{Condition, ListenerStatus, ObjectStatus, Shortcoming, SupportedKind};
use crate::objects::ObjectKey;
use crate::resource::Secrets;
use crate::resource::secrets::CertificateProblem;

/// The status of the listeners of a Gateway or ListenerSet.
#[derive(Default)]
struct Listeners {
    statuses: Vec<ListenerStatus>,
    findings: Vec<Diagnostic>,
    /// The numbers of listeners that are not accepted, not in order, and programmed.
    refused: usize,
    bad: usize,
    programmed: usize,
    /// The first reference that can't be followed.
    unresolved: Option<Shortcoming>,
}

impl Listeners {
    fn faults(&self) -> String {
        format!("{} of {} listeners are not in order", self.bad, self.statuses.len())
    }
}

impl Gateways {
    /// The status of a Gateway, and the findings about it.
    pub(super) fn gateway_status(&self, part: &GatewayPart, secrets: &Secrets) -> (ObjectStatus, Vec<Diagnostic>) {
        let mut findings = Vec::new();
        let origin = part.key.origin();
        if let Some(fault) = &part.fault {
            let (severity, reason) = (Severity::Error, Reason::UnsupportedValue);
            let message = format!("{}; the Gateway is not served", fault.message);
            findings.push(Diagnostic::new(severity, reason, &origin, "spec", "", message));
        }
        let of_listeners = self.listeners(part, &part.key, secrets);
        let faults = of_listeners.faults();
        let Listeners { statuses: listeners, findings: found, refused, bad, programmed, unresolved } = of_listeners;
        findings.extend(found);
        let accepted = match &part.fault {
            Some(fault) => Condition::new("Accepted", false, fault),
            None if bad == 0 => Condition::good("Accepted"),
            None => {
                let some = refused < listeners.len();
                Condition::new("Accepted", some, &Shortcoming::new("ListenersNotValid", faults.clone()))
            }
        };
        let invalid = Shortcoming::new("Invalid", faults);
        let own = self.own.get(&part.key);
        let unreachable = own.and_then(|own| own.fault.as_ref());
        // An address that isn't assigned yet is no reason to complain.
        if let Some(fault) = unreachable.filter(|fault| fault.reason != "AddressNotAssigned") {
            let message = format!("{}; the Gateway can't be reached", fault.message);
            findings.push(Diagnostic::new(Severity::Error, Reason::UnsupportedValue, &origin, "spec", "", message));
        }
        let shown = part.client_certificate.as_ref().and_then(|found| match found {
            Ok(secret) => {
                let why = unusable(secret, secrets)?;
                let message = format!("spec.tls.backend.clientCertificateRef: {why}");
                Some(Shortcoming::new("InvalidClientCertificateRef", message))
            }
            Err(fault) => Some(fault.clone()),
        });
        if let Some(fault) = &shown {
            let reason =
                if fault.reason == "RefNotPermitted" { Reason::ForbiddenReference } else { Reason::InvalidSecret };
            let message = format!("{}; backends are not reached over TLS", fault.message);
            findings.push(Diagnostic::new(Severity::Error, reason, &origin, "spec.tls.backend", "", message));
        }
        let of_listeners = unresolved.map(|fault| Shortcoming::new("ListenersNotResolved", fault.message));
        let mut conditions = vec![
            accepted,
            Condition::of("Programmed", (programmed == 0).then_some(&invalid).or(unreachable)),
            Condition::of("ResolvedRefs", shown.as_ref().or(of_listeners.as_ref())),
        ];
        if part.is_insecure {
            let message = "spec.tls.frontend: clients are let in without a good certificate (AllowInsecureFallback)";
            let fault = Shortcoming::new("ConfigurationChanged", message);
            conditions.push(Condition::new("InsecureFrontendValidationMode", true, &fault));
        }
        let addresses = own.map(|own| own.addresses.clone());
        let attached = |(_, set): &(&ObjectKey, &SetPart)| set.gateway == part.key && set.fault.is_none();
        let is_accepted =
            |(key, _): &(&ObjectKey, &SetPart)| part.listeners_of(key).any(|listener| serves(part, listener, secrets));
        let attached_listener_sets = self.sets.iter().filter(attached).filter(is_accepted).count();
        (ObjectStatus::Gateway { conditions, listeners, addresses, attached_listener_sets }, findings)
    }

    /// The status of a ListenerSet, and the findings about it.
    pub(super) fn set_status(
        &self,
        key: &ObjectKey,
        set: &SetPart,
        secrets: &Secrets,
    ) -> (ObjectStatus, Vec<Diagnostic>) {
        let origin: Origin = key.origin();
        let refused = |accepted: &Shortcoming, programmed: &Shortcoming| {
            let conditions =
                vec![Condition::new("Accepted", false, accepted), Condition::new("Programmed", false, programmed)];
            let (severity, reason) = (Severity::Error, Reason::ListenerSetRefused);
            let message = format!("{}; none of its listeners is open", accepted.message);
            let finding = Diagnostic::new(severity, reason, &origin, "spec.parentRef", "", message);
            (ObjectStatus::ListenerSet { conditions, listeners: Vec::new() }, vec![finding])
        };
        if let Some(fault) = &set.fault {
            return refused(fault, fault);
        }
        let Some(part) = self.gateways.get(&set.gateway) else {
            let fault = Shortcoming::new("ParentNotAccepted", format!("there is no {}", set.gateway));
            return refused(&fault, &fault);
        };
        if let Some(fault) = &part.fault {
            let message = format!("{} is not accepted: {}", part.key, fault.message);
            let of = |reason| Shortcoming::new(reason, message.clone());
            return refused(&of("ParentNotAccepted"), &of("ParentNotProgrammed"));
        }
        let all = self.listeners(part, key, secrets);
        let faults = Shortcoming::new("ListenersNotValid", all.faults());
        let none = (all.programmed == 0).then_some(&faults);
        let unreachable = self.own.get(&part.key).and_then(|own| own.fault.as_ref());
        let unreachable = unreachable.map(|fault| Shortcoming::new("ParentNotProgrammed", fault.message.clone()));
        let accepted = if all.bad == 0 {
            Condition::good("Accepted")
        } else {
            Condition::new("Accepted", none.is_none(), &faults)
        };
        let conditions = vec![accepted, Condition::of("Programmed", none.or(unreachable.as_ref()))];
        (ObjectStatus::ListenerSet { conditions, listeners: all.statuses }, all.findings)
    }

    /// The status of the listeners that a Gateway has from this holder.
    fn listeners(&self, part: &GatewayPart, holder: &ObjectKey, secrets: &Secrets) -> Listeners {
        let mut all = Listeners::default();
        let origin = holder.origin();
        for (at, listener) in part.listeners_of(holder).enumerate() {
            let field = format!("spec.listeners[{at}]");
            let fault = listener.fault.as_ref().or(part.fault.as_ref());
            let certificate = certificate_shortcoming(listener, secrets);
            let resolved = listener.unresolved.as_ref().or(certificate.as_ref());
            let serves = serves(part, listener, secrets);
            if let Some(fault) = listener.fault.as_ref() {
                let reason = if listener.conflicted { Reason::ListenerConflict } else { Reason::UnsupportedValue };
                let message = format!("{}; the listener is closed", fault.message);
                all.findings.push(Diagnostic::new(Severity::Error, reason, &origin, &*field, &listener.name, message));
            }
            if let Some(fault) = resolved {
                let reason = match fault.reason {
                    "RefNotPermitted" => Reason::ForbiddenReference,
                    "InvalidCertificateRef" if listener.unresolved.is_none() && is_missing(listener, secrets) => {
                        Reason::SecretNotFound
                    }
                    "InvalidCertificateRef" => Reason::InvalidSecret,
                    _ => Reason::UnsupportedValue,
                };
                let then = if serves { "" } else { "; the listener serves no route" };
                let message = format!("{}{then}", fault.message);
                let severity = if serves { Severity::Warning } else { Severity::Error };
                all.findings.push(Diagnostic::new(severity, reason, &origin, &*field, &listener.name, message));
            }
            all.refused += usize::from(listener.fault.is_some());
            all.bad += usize::from(fault.is_some() || resolved.is_some());
            all.programmed += usize::from(serves);
            all.unresolved = all.unresolved.take().or_else(|| resolved.cloned());
            let conflict = listener.fault.as_ref().filter(|_| listener.conflicted);
            let invalid =
                Shortcoming::new("Invalid", fault.or(resolved).map(|fault| fault.message.clone()).unwrap_or_default());
            let mut conditions = vec![
                Condition::of("Accepted", fault),
                Condition::of("ResolvedRefs", resolved),
                if serves {
                    Condition::good("Programmed")
                } else {
                    Condition::new("Programmed", false, conflict.unwrap_or(&invalid))
                },
            ];
            conditions.push(match conflict {
                Some(fault) => Condition::new("Conflicted", true, fault),
                None => Condition::new("Conflicted", false, &Shortcoming::new("NoConflicts", "")),
            });
            let id = ListenerId { holder: holder.clone(), name: listener.name.clone() };
            all.statuses.push(ListenerStatus {
                name: listener.name.to_string(),
                supported_kinds: listener
                    .kinds
                    .iter()
                    .map(|kind| SupportedKind { group: GROUP, kind: kind.as_str() })
                    .collect(),
                attached_routes: self.attached.get(&id).copied().unwrap_or_default(),
                conditions,
            });
        }
        all
    }
}

/// Whether routes are served on a listener of an accepted Gateway.
fn serves(part: &GatewayPart, listener: &ListenerPart, secrets: &Secrets) -> bool {
    part.fault.is_none()
        && listener.fault.is_none()
        && (listener.protocol.is_some_and(|protocol| !protocol.ends_tls())
            || listener.secrets.iter().any(|it| secrets.good(it).is_some()))
}

/// Why the first unusable certificate of a listener is unusable.
fn certificate_shortcoming(listener: &ListenerPart, secrets: &Secrets) -> Option<Shortcoming> {
    let why = listener.secrets.iter().find_map(|key| unusable(key, secrets))?;
    Some(Shortcoming::new("InvalidCertificateRef", why))
}

/// Whether the first unusable certificate has no Secret.
fn is_missing(listener: &ListenerPart, secrets: &Secrets) -> bool {
    let problems = listener.secrets.iter().filter_map(|key| secrets.standing(key)?.problem);
    matches!(problems.into_iter().next(), Some(CertificateProblem::Missing))
}

/// Why the certificate of a Secret is unusable.
pub(super) fn unusable(key: &ObjectKey, secrets: &Secrets) -> Option<String> {
    Some(match secrets.standing(key)?.problem? {
        CertificateProblem::Missing => format!("there is no Secret {}/{}", key.namespace, key.name),
        CertificateProblem::Unusable(why) => format!("Secret {}/{}: {why}", key.namespace, key.name),
    })
}
