//! XBackendTrafficPolicies (experimental channel): limits on the tries after failures that a Service gets from routes of the Gateway API.
//!
//! An invalid budget leaves no tries, so that a mistake doesn't flood a Service.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fairway_model::RetryConstraint;

use super::api::{RetryConstraintSpec, XBackendTrafficPolicy};
use super::backend_tls::{ANCESTORS, ancestor, note, remove};
use super::host::RouteAge;
use super::rule::duration;
use super::status::{AncestorStatus, Condition, Shortcoming};
use crate::diagnostic::{Diagnostic, Reason, Severity};
use crate::objects::{Kind, ObjectKey, Objects};

/// All policies, by the Services that they are for.
#[derive(Debug, Default)]
pub(crate) struct TrafficPolicies {
    policies: BTreeMap<ObjectKey, TrafficPart>,
    /// The policies of each Service, oldest first.
    targets: BTreeMap<ObjectKey, BTreeSet<RouteAge>>,
}

/// One policy.
#[derive(Debug)]
struct TrafficPart {
    turn: RouteAge,
    /// Each with its place in the list.
    targets: Vec<(usize, ObjectKey)>,
    /// Targets of other kinds.
    others: Vec<(usize, String)>,
    constraint: Option<RetryConstraint>,
    /// The field because of which it is not accepted, judging by the policy alone, and why.
    fault: Option<(String, String)>,
}

impl TrafficPolicies {
    /// The policies for a Service.
    pub(super) fn for_service(&self, service: &ObjectKey) -> impl Iterator<Item = &ObjectKey> {
        self.targets.get(service).into_iter().flatten().map(RouteAge::key)
    }

    /// A policy's limit on tries for a Service, if any: the oldest policy decides.
    pub(crate) fn constraint(&self, service: &ObjectKey) -> Option<RetryConstraint> {
        self.winner(service)?.constraint
    }

    fn winner(&self, service: &ObjectKey) -> Option<&TrafficPart> {
        self.for_service(service).find_map(|key| self.policies.get(key))
    }

    /// Reads a policy again. Returns the Services that it was for or is for now.
    pub(super) fn read(
        &mut self,
        key: &ObjectKey,
        found: Option<(RouteAge, &XBackendTrafficPolicy)>,
    ) -> BTreeSet<ObjectKey> {
        let mut services = BTreeSet::new();
        if let Some(before) = self.policies.remove(key) {
            for (_, service) in before.targets {
                remove(&mut self.targets, &service, &before.turn);
                services.insert(service);
            }
        }
        let Some((turn, policy)) = found else { return services };
        let (mut targets, mut others) = (Vec::new(), Vec::new());
        for (at, one) in policy.spec.target_refs.iter().enumerate() {
            if one.group.is_empty() && one.kind == Kind::Service.as_str() {
                targets.push((at, ObjectKey::new(Kind::Service, &*key.namespace, &*one.name)));
            } else {
                others.push((at, format!("{} {}", one.kind, one.name)));
            }
        }
        for (_, service) in &targets {
            self.targets.entry(service.clone()).or_default().insert(turn.clone());
            services.insert(service.clone());
        }
        let read = policy.spec.retry_constraint.as_ref().map(constraint).transpose();
        let (constraint, fault) = match read {
            Ok(constraint) => (constraint, None),
            Err((part, why)) => {
                let nothing = RetryConstraint { percent: 0, interval: Duration::from_secs(10), least: 0 };
                (Some(nothing), Some((format!("spec.retryConstraint.{part}"), format!("{why}; there are no retries"))))
            }
        };
        let unread = policy.spec.session_persistence.as_ref().map(|_| {
            let why = "expected none: rules of routes have it, for their own sessions; the rest of the policy counts";
            ("spec.sessionPersistence".to_owned(), why.to_owned())
        });
        let fault = fault.or(unread);
        self.policies.insert(key.clone(), TrafficPart { turn, targets, others, constraint, fault });
        services
    }

    /// The status of a policy at the Gateways through which its Services are reached, and the findings about it. `reached` returns the
    /// Gateways for a Service.
    pub(super) fn status(
        &self,
        key: &ObjectKey,
        objects: &Objects,
        reached: impl Fn(&ObjectKey) -> BTreeSet<ObjectKey>,
    ) -> Option<(Vec<AncestorStatus>, Vec<Diagnostic>)> {
        let part = self.policies.get(key)?;
        let (origin, mut findings) = (key.origin(), Vec::new());
        let mut complain = |field: String, value: &str, message: String| {
            let (severity, reason) = (Severity::Error, Reason::BackendPolicyRefused);
            findings.push(Diagnostic::new(severity, reason, &origin, field, value, message));
        };
        if let Some((field, why)) = &part.fault {
            complain(field.clone(), "", why.clone());
        }
        let own = part.fault.as_ref().map(|(field, why)| Shortcoming::new("Invalid", format!("{field}: {why}")));
        for (at, what) in &part.others {
            complain(
                format!("spec.targetRefs[{at}]"),
                what,
                "expected a Service; the policy is not applied there".into(),
            );
        }
        let mut found: BTreeMap<ObjectKey, Option<Shortcoming>> = BTreeMap::new();
        for (at, service) in &part.targets {
            let fault = self.fault_at(part, service, objects);
            if let Some(fault) = &fault {
                let message = format!("{}; the policy is not applied there", fault.message);
                complain(format!("spec.targetRefs[{at}]"), &service.name, message);
            }
            let fault = own.clone().or(fault);
            note(&mut found, reached(service), fault.as_ref());
        }
        let ancestors = found.into_iter().take(ANCESTORS).map(|(gateway, fault)| AncestorStatus {
            ancestor_ref: ancestor(&gateway),
            conditions: vec![Condition::of("Accepted", fault.as_ref())],
        });
        Some((ancestors.collect(), findings))
    }

    /// Why a policy is not applied to one of its targets.
    fn fault_at(&self, part: &TrafficPart, service: &ObjectKey, objects: &Objects) -> Option<Shortcoming> {
        if objects.service(service).is_none() {
            let message = format!("there is no Service {}/{}", service.namespace, service.name);
            return Some(Shortcoming::new("TargetNotFound", message));
        }
        let winner = self.winner(service).filter(|winner| winner.turn != part.turn)?;
        Some(Shortcoming::conflict_with(winner.turn.key()))
    }
}

fn constraint(spec: &RetryConstraintSpec) -> Result<RetryConstraint, (&'static str, String)> {
    let (budget, rate) = (spec.budget.clone().unwrap_or_default(), spec.min_retry_rate.clone().unwrap_or_default());
    let Ok(percent @ 0..=100) = u32::try_from(budget.percent.unwrap_or(20)) else {
        return Err(("budget.percent", "expected 0 to 100".to_owned()));
    };
    let Ok(count @ 1..=1_000_000) = u32::try_from(rate.count.unwrap_or(10)) else {
        return Err(("minRetryRate.count", "expected 1 to 1000000".to_owned()));
    };
    let time = |part, text: &Option<String>, default: u64, least: Duration| {
        let time = text.as_deref().map_or(Some(Duration::from_secs(default)), duration);
        let is_within = |time: &Duration| (least..=Duration::from_secs(3600)).contains(time);
        time.filter(is_within).ok_or_else(|| (part, format!("expected a time from {least:?} to one hour")))
    };
    let interval = time("budget.interval", &budget.interval, 10, Duration::from_secs(1))?;
    let per = time("minRetryRate.interval", &rate.interval, 1, Duration::from_millis(1))?;
    // A million times per hour fits.
    let least = (u128::from(count) * interval.as_millis()).div_ceil(per.as_millis().max(1));
    Ok(RetryConstraint { percent, interval, least: u64::try_from(least).unwrap_or(u64::MAX) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(spec: serde_json::Value) -> Result<RetryConstraint, &'static str> {
        constraint(&serde_json::from_value(spec).unwrap()).map_err(|(part, _)| part)
    }

    #[test]
    fn budgets_are_read_as_specified() {
        let ten = Duration::from_secs(10);
        assert_eq!(read(json!({})), Ok(RetryConstraint { percent: 20, interval: ten, least: 100 }));
        let own = json!({
            "budget": {"percent": 0, "interval": "1h"}, "minRetryRate": {"count": 1_000_000, "interval": "1ms"},
        });
        let interval = Duration::from_secs(3600);
        assert_eq!(read(own), Ok(RetryConstraint { percent: 0, interval, least: 3_600_000_000_000 }));
        let rare = json!({"minRetryRate": {"count": 1, "interval": "1h"}});
        assert_eq!(read(rare), Ok(RetryConstraint { percent: 20, interval: ten, least: 1 }));
        for (spec, part) in [
            (json!({"budget": {"percent": 101}}), "budget.percent"),
            (json!({"budget": {"percent": -1}}), "budget.percent"),
            (json!({"budget": {"interval": "999ms"}}), "budget.interval"),
            (json!({"budget": {"interval": "61m"}}), "budget.interval"),
            (json!({"budget": {"interval": "soon"}}), "budget.interval"),
            (json!({"minRetryRate": {"count": 0}}), "minRetryRate.count"),
            (json!({"minRetryRate": {"interval": "0s"}}), "minRetryRate.interval"),
        ] {
            assert_eq!(read(spec.clone()), Err(part), "{spec}");
        }
    }
}
