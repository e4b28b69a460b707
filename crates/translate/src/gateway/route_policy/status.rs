//! The status and findings of a RoutePolicy: one status at each Gateway through which its targets are reached.

use std::collections::{BTreeMap, BTreeSet};

use super::read::Section;
use super::{RoutePolicies, RoutePolicyPart, Subject};
use crate::diagnostic::{Diagnostic, Reason, Severity};
use crate::gateway::api::{GROUP, ParentReference};
use crate::gateway::status::{AncestorStatus, Condition, FieldFault, Shortcoming};
use crate::objects::{Kind, Object, ObjectKey, Objects};
use crate::resource::Secrets;
use crate::resource::backend::{BackendKey, Layer, find_port, is_external};

/// The most entries that the status of a policy may have.
const ANCESTORS: usize = 16;

/// The status at one Gateway: why the policy is not accepted there, and which part of it can't be applied.
#[derive(Default)]
struct Said {
    fault: Option<Shortcoming>,
}

impl RoutePolicies {
    /// The status of a policy, and the findings about it. `reached` returns the Gateways of ours for a target.
    pub(in crate::gateway) fn status(
        &self,
        key: &ObjectKey,
        objects: &Objects,
        secrets: &Secrets,
        reached: impl Fn(&ObjectKey) -> BTreeSet<ObjectKey>,
    ) -> Option<(Vec<AncestorStatus>, Vec<Diagnostic>)> {
        let part = self.parts.get(key)?;
        let origin = key.origin();
        let (mut findings, mut said) = (Vec::new(), BTreeMap::<(ObjectKey, Option<&str>), Said>::new());
        let finding = |severity, reason, field: String, value: &str, message: String| {
            Diagnostic::new(severity, reason, &origin, field, value, message)
        };
        let mut invalid = None;
        for fault in part.bad_target.iter().chain(&part.asked.faults) {
            let is_target = part.bad_target.as_ref().is_some_and(|bad| bad.field == fault.field);
            let denies = !is_target && fault.section.restricts();
            let then = match (is_target, denies) {
                (true, _) => "it is ignored".to_owned(),
                (false, true) => "requests that it is for answer 503".to_owned(),
                (false, false) => format!("{} is left out", fault.section.name()),
            };
            let reason = match fault.why.reason {
                "RefNotPermitted" => Reason::ForbiddenReference,
                _ => Reason::RoutePolicyRefused,
            };
            let message = format!("{}; {then}", fault.why.message);
            let found = finding(Severity::Error, reason, fault.field.clone(), &fault.value, message);
            // Why a policy can't be read was reported when it was read.
            if !(part.asked.unreadable && fault.section == Section::Newer) {
                findings.push(Diagnostic { unserved: denies, ..found });
            }
            if fault.why.reason != "RefNotPermitted" {
                let message = format!("{}: {message}", fault.field, message = fault.why.message);
                invalid.get_or_insert_with(|| Shortcoming::new("Invalid", message));
            }
        }
        let unresolved = self.unresolved(part, objects, secrets);
        // The other references are reported with their backends.
        if let Some((reason @ (Reason::SecretNotFound | Reason::InvalidSecret), fault)) = &unresolved {
            let message = format!("{}; requests that it is for answer 503", fault.why.message);
            let name = part.asked.secret.as_ref().map_or("", |secret| &secret.name);
            findings.push(finding(Severity::Error, *reason, fault.field.clone(), name, message).unserved());
        } else if part.users_left_out > 0 {
            let message =
                format!("{} users have a hash that can't be checked, so they aren't admitted", part.users_left_out);
            let name = part.asked.secret.as_ref().map_or("", |secret| &secret.name);
            let field = "spec.basicAuth.secretRef".to_owned();
            findings.push(finding(Severity::Warning, Reason::InvalidSecret, field, name, message));
        }
        for (target, at) in part.targets.iter().zip(&part.places) {
            let fault = self.fault_at(part, target, objects);
            if let Some(fault) = &fault {
                let message = match fault.reason {
                    "Conflicted" => format!(
                        "{}; it takes precedence, and only the settings that it lacks are applied from this policy",
                        fault.message
                    ),
                    _ => format!("{}; the policy has no effect there", fault.message),
                };
                let field = format!("spec.targetRefs[{at}]");
                // If a policy that restricts has no effect, something is left open.
                let is_grave =
                    fault.reason == "Conflicted" || part.asked.sections.iter().any(|section| section.restricts());
                let severity = if is_grave { Severity::Error } else { Severity::Warning };
                findings.push(finding(severity, Reason::RoutePolicyRefused, field, &target.object.name, message));
            }
            let is_missing = objects.get(&target.object).is_none();
            let ancestors: Vec<_> = match target.object.kind {
                // Some status has to report the missing target.
                _ if is_missing => vec![(target.object.clone(), target.section.as_deref())],
                Kind::Gateway => {
                    reached(&target.object).into_iter().map(|gateway| (gateway, target.section.as_deref())).collect()
                }
                _ => reached(&target.object).into_iter().map(|gateway| (gateway, None)).collect(),
            };
            for ancestor in ancestors {
                let known = said.entry(ancestor).or_default();
                known.fault = known.fault.take().or_else(|| invalid.clone()).or_else(|| fault.clone());
            }
        }
        let unresolved = unresolved.map(|(_, fault)| fault.shortcoming());
        let ancestors = said.into_iter().take(ANCESTORS).map(|((object, section), said)| AncestorStatus {
            ancestor_ref: ParentReference {
                group: Some(GROUP.to_owned()),
                kind: Some(object.kind.as_str().to_owned()),
                namespace: Some(object.namespace.to_string()),
                name: object.name.to_string(),
                section_name: section.map(str::to_owned),
                ..ParentReference::default()
            },
            conditions: vec![
                Condition::of("Accepted", said.fault.as_ref()),
                Condition::of("ResolvedRefs", unresolved.as_ref()),
            ],
        });
        Some((ancestors.collect(), findings))
    }

    /// The first reference that can't be followed.
    fn unresolved(&self, part: &RoutePolicyPart, objects: &Objects, secrets: &Secrets) -> Option<(Reason, FieldFault)> {
        if let Some(fault) = part.asked.faults.iter().find(|fault| fault.why.reason == "RefNotPermitted") {
            let fault = FieldFault { field: fault.field.clone(), why: fault.why.clone() };
            return Some((Reason::ForbiddenReference, fault));
        }
        if let (Some(Err(why)), Some(secret)) = (&part.users, &part.asked.secret) {
            let reason = if secrets.newest(secret).is_none() { Reason::SecretNotFound } else { Reason::InvalidSecret };
            return Some((reason, FieldFault::new("spec.basicAuth.secretRef", "InvalidSecretRef", &**why)));
        }
        self.backends(part.turn.key()).into_iter().find_map(|(backend, field)| {
            let (reason, why) = missing(&backend, objects)?;
            Some((reason, FieldFault::new(field, "BackendNotFound", why)))
        })
    }

    /// Why a policy is not applied to one of its targets, or not in whole.
    fn fault_at(&self, part: &RoutePolicyPart, target: &Subject, objects: &Objects) -> Option<Shortcoming> {
        let missing = |what: String| Some(Shortcoming::new("TargetNotFound", what));
        let Some(object) = objects.get(&target.object) else {
            return missing(format!("there is no {}", target.object));
        };
        if let Some(section) = target.section.as_deref()
            && !has_section(object, section)
        {
            let is_route = !matches!(target.object.kind, Kind::Gateway | Kind::ListenerSet);
            let what = if is_route { "rule" } else { "listener" };
            return missing(format!("{} has no {what} {section}", target.object));
        }
        let beaten = |section: &&Section| self.winner(target, **section).is_some_and(|winner| winner.turn != part.turn);
        let lost: Vec<_> = part.asked.sections.iter().filter(beaten).collect();
        let winner = lost.first().and_then(|section| self.winner(target, **section))?;
        let names: Vec<_> = lost.iter().map(|section| section.name()).collect();
        let message = format!("{}, which is older, has {} for the same", winner.turn.key(), names.join(", "));
        Some(Shortcoming::new("Conflicted", message))
    }
}

/// Why there is no backend of this name.
fn missing(backend: &BackendKey, objects: &Objects) -> Option<(Reason, String)> {
    if backend.layer == Layer::Name {
        return None;
    }
    let service = backend.service();
    match objects.get(&service) {
        Some(Object::Service(found)) if is_external(found) || find_port(found, backend).is_some() => None,
        Some(_) => Some((Reason::PortNotFound, format!("{service} has no port {}", backend.port))),
        None => Some((Reason::ServiceNotFound, format!("there is no {service}"))),
    }
}

/// Whether a Gateway or a ListenerSet has a listener, or a route a rule, of this name.
fn has_section(object: &Object, name: &str) -> bool {
    let is_named = |own: &Option<String>| own.as_deref() == Some(name);
    match object {
        Object::Gateway(gateway) => gateway.spec.listeners.iter().any(|listener| listener.name == name),
        Object::ListenerSet(set) => set.spec.listeners.iter().any(|listener| listener.name == name),
        Object::HTTPRoute(route) => route.spec.rules.iter().flatten().any(|rule| is_named(&rule.name)),
        Object::GRPCRoute(route) => route.spec.rules.iter().flatten().any(|rule| is_named(&rule.name)),
        _ => false,
    }
}
