//! Canaries: which one is the alternative of which path, and by what rules.

use std::collections::{BTreeMap, HashMap};

use fairway_model::{Canary, CanaryField, CanaryValue, ConfiguredName, HostPattern};

use super::part::{Part, PathKind, PathRule, Target};
use crate::annotation::CanaryRelease;
use crate::diagnostic::{Diagnostic, Reason, Severity};
use crate::objects::ObjectKey;
use crate::resource::backend::BackendKey;
use crate::value::CanaryBehavior;

/// Findings about canaries.
pub(super) type Findings = BTreeMap<ObjectKey, Vec<Diagnostic>>;

/// A path that may have a canary.
pub(super) struct Main<'a> {
    pub(super) part: &'a Part,
    pub(super) rule: &'a PathRule,
}

/// The canaries of the paths of a host, by the position of the path. The oldest canary of a path counts.
pub(super) fn canaries(
    pattern: &HostPattern,
    mains: &[Main<'_>],
    canaries: &[&Part],
    other_namespaces: bool,
    findings: &mut Findings,
) -> HashMap<usize, Canary> {
    let mut found: HashMap<usize, Canary> = HashMap::new();
    if canaries.is_empty() {
        return found;
    }
    let place = |rule: &PathRule| (rule.kind == PathKind::Exact, rule.text.clone());
    let places: HashMap<_, usize> = mains.iter().enumerate().map(|(at, main)| (place(main.rule), at)).collect();
    for (part, rule) in rules(pattern, canaries) {
        let mut report = |message: String| tell(part, rule, message, findings);
        let Some(&at) = places.get(&place(rule)) else {
            report(nobody(pattern));
            continue;
        };
        let Main { part: owner, rule: main } = &mains[at];
        let of = format!("Ingress {}/{}", owner.owner.key.namespace, owner.owner.key.name);
        let (Target::Service(main), Target::Service(alternative)) = (&main.target, &rule.target) else {
            report(format!("expected a Service on both sides, and {of} or this canary has none"));
            continue;
        };
        if owner.owner.key.namespace != part.owner.key.namespace && !other_namespaces {
            report(format!(
                "{of} has this path and is in another namespace: its requests are not the canary's to take, unless the ConfigMap has \
                 allow-cross-namespace-resources"
            ));
        } else if main == alternative {
            report(format!("{of} has this path and leads to the same Service, so the canary has no effect"));
        } else if let Some(other) = found.get(&at) {
            report(format!("{of} has a canary for this path, {}, which is older; this one is ignored", other.origin));
        } else {
            found.insert(at, rules_of(part, main, alternative));
        }
    }
    found
}

/// The findings about canaries on a host that no other Ingress names.
pub(super) fn alone<'a>(pattern: &HostPattern, canaries: impl Iterator<Item = &'a Part>) -> Findings {
    let mut findings = Findings::new();
    let canaries: Vec<_> = canaries.collect();
    for (part, rule) in rules(pattern, &canaries) {
        tell(part, rule, nobody(pattern), &mut findings);
    }
    findings
}

fn nobody(pattern: &HostPattern) -> String {
    format!("no Ingress that isn't a canary has this path and path type on host {pattern}, so the canary has no effect")
}

fn rules<'a>(pattern: &HostPattern, canaries: &[&'a Part]) -> impl Iterator<Item = (&'a Part, &'a PathRule)> {
    canaries.iter().flat_map(move |part| {
        let rules = part.hosts.iter().filter(move |rules| rules.pattern == *pattern);
        rules.flat_map(|rules| &rules.paths).map(move |rule| (*part, rule))
    })
}

fn tell(part: &Part, rule: &PathRule, message: String, findings: &mut Findings) {
    let (severity, reason) = (Severity::Warning, Reason::IneffectiveAnnotation);
    let found = Diagnostic::new(severity, reason, &part.origin, rule.field("path"), &rule.text, message);
    findings.entry(part.owner.key.clone()).or_default().push(found);
}

fn rules_of(part: &Part, main: &BackendKey, alternative: &BackendKey) -> Canary {
    let CanaryRelease { header, header_value, header_pattern, cookie, weight, weight_total, behavior, .. } =
        &part.annotations.canary;
    let name = header.as_ref().and_then(|name| ConfiguredName::try_from(name.as_str()).ok());
    let pattern = || header_pattern.as_ref().and_then(|pattern| pattern.as_str().parse().ok());
    let value = match header_value {
        Some(text) => CanaryValue::Exact(text.as_str().into()),
        None => pattern().map_or(CanaryValue::Switch, CanaryValue::Pattern),
    };
    let number = |number: &Option<i64>| u32::try_from(number.unwrap_or(0).max(0)).unwrap_or(u32::MAX);
    Canary {
        main: main.name(),
        alternative: alternative.name(),
        origin: part.origin.clone(),
        field: name.map(|name| CanaryField { name, value }),
        cookie: cookie.as_ref().map(|name| name.as_str().into()),
        weight: number(weight),
        total: number(weight_total).max(100),
        sticky: *behavior != Some(CanaryBehavior::Legacy),
    }
}
