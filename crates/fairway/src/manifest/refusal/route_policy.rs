//! What RoutePolicies are refused for: the bounds and rules of their CRD.

use std::collections::BTreeSet;

use fairway_translate::gateway::policy::{RoutePolicy, RoutePolicySpec};
use fairway_translate::gateway::schema;
use serde_json::Value;

use super::{Names, Refusals, Validate};

impl Validate for RoutePolicy {
    const NAMES: Names = Names::Subdomain;

    fn validate(&self, found: &mut Refusals) {
        let spec = serde_json::to_value(&self.spec).unwrap_or_default();
        check(&schema::spec(), &spec, "spec", found);
        for (field, message) in broken_rules(&self.spec) {
            found.invalid(format_args!("{field}"), "", message);
        }
    }
}

/// A value against the bounds of its schema.
fn check(schema: &Value, value: &Value, field: &str, found: &mut Refusals) {
    let bound = |name: &str| schema[name].as_u64().and_then(|bound| usize::try_from(bound).ok());
    match value {
        Value::Object(fields) => {
            for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
                if !fields.contains_key(name) {
                    found.required(format_args!("{field}.{name}"), "");
                }
            }
            for (name, value) in fields {
                check(&schema["properties"][name], value, &format!("{field}.{name}"), found);
            }
        }
        Value::Array(items) => {
            if let Some(most) = bound("maxItems").filter(|most| items.len() > *most) {
                found.too_many(format_args!("{field}"), items.len(), most);
            }
            if bound("minItems").is_some_and(|least| items.len() < least) {
                found.required(format_args!("{field}"), "at least one");
            }
            for (at, item) in items.iter().enumerate() {
                check(&schema["items"], item, &format!("{field}[{at}]"), found);
            }
        }
        Value::String(text) => {
            let choices: Vec<_> = schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            if !choices.is_empty() && !choices.contains(&text.as_str()) {
                found.unsupported(format_args!("{field}"), text, &choices);
            }
            if let Some(most) = bound("maxLength").filter(|most| text.chars().count() > *most) {
                found.too_long(format_args!("{field}"), most);
            }
            if let Some(pattern) = schema["pattern"].as_str().filter(|pattern| !schema::matches(pattern, text)) {
                found.invalid(format_args!("{field}"), text, &format!("should match '{pattern}'"));
            }
        }
        Value::Number(number) => {
            let number = number.as_i64().unwrap_or_default();
            let (least, most) = (schema["minimum"].as_i64(), schema["maximum"].as_i64());
            if least.is_some_and(|least| number < least) || most.is_some_and(|most| number > most) {
                let bounds = format!("should be {} to {}", least.unwrap_or_default(), most.unwrap_or(i64::MAX));
                found.invalid(format_args!("{field}"), &number.to_string(), &bounds);
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

/// The rules between fields that are broken, in the words of the CRD.
fn broken_rules(spec: &RoutePolicySpec) -> Vec<(&'static str, &'static str)> {
    let mut broken = Vec::new();
    let mut rule = |holds: bool, field, message| {
        if !holds {
            broken.push((field, message));
        }
    };
    let mut seen = BTreeSet::new();
    let section = |section: Option<&str>| section.unwrap_or_default().to_owned();
    let differ = spec.target_refs.iter().all(|one| {
        let name = one.section_name.as_ref().map(|name| &*name.0);
        seen.insert((one.kind.0.clone(), one.name.0.clone(), section(name)))
    });
    rule(differ, "spec.targetRefs", "targetRefs must differ in kind, name or sectionName");
    if let Some(access) = &spec.access {
        rule(access.allow.is_some() || access.deny.is_some(), "spec.access", "allow or deny must be there");
    }
    if let Some(auth) = &spec.external_auth {
        let holds = auth.cache_duration.is_none() || auth.cache_key.is_some();
        rule(holds, "spec.externalAuth", "cacheDuration needs cacheKey");
    }
    if let Some(limits) = &spec.limits {
        let any = [&limits.requests_per_second, &limits.requests_per_minute, &limits.requests_in_progress];
        rule(any.into_iter().any(Option::is_some), "spec.limits", "a limit must be there");
    }
    if let Some(response) = &spec.response {
        let holds = response.buffer_size.is_none() || response.buffering.is_some();
        rule(holds, "spec.response", "bufferSize needs buffering");
        let holds = response.kilobytes_at_full_speed.is_none() || response.kilobytes_per_second.is_some();
        rule(holds, "spec.response", "kilobytesAtFullSpeed needs kilobytesPerSecond");
    }
    if let Some(balancing) = &spec.load_balancing {
        let one = balancing.algorithm.is_some() != balancing.hash_by.is_some();
        rule(one, "spec.loadBalancing", "either algorithm or hashBy must be there");
        let holds = balancing.subset_size.is_none() || balancing.hash_by.is_some();
        rule(holds, "spec.loadBalancing", "subsetSize needs hashBy");
    }
    broken
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn refusals(spec: Value) -> Vec<(String, String)> {
        let policy: RoutePolicy = serde_json::from_value(json!({
            "metadata": {"name": "a", "namespace": "n"}, "spec": spec,
        }))
        .unwrap();
        super::super::refusals(&policy).into_iter().map(|refusal| (refusal.field, refusal.message)).collect()
    }

    fn target() -> Value {
        json!([{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "web"}])
    }

    /// The messages of all rules in the CRD.
    fn messages(schema: &Value, found: &mut BTreeSet<String>) {
        match schema {
            Value::Object(fields) => {
                for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
                    found.extend(rule["message"].as_str().map(str::to_owned));
                }
                fields.values().for_each(|value| messages(value, found));
            }
            Value::Array(items) => items.iter().for_each(|item| messages(item, found)),
            _ => {}
        }
    }

    #[test]
    fn every_rule_of_the_crd_is_checked_offline() {
        let twice = json!([target()[0], target()[0]]);
        let all = json!({
            "targetRefs": twice, "access": {"satisfy": "Any"}, "limits": {"burstMultiplier": 2},
            "externalAuth": {"url": "http://a/", "cacheDuration": "200 5m"},
            "response": {"bufferSize": "1m", "kilobytesAtFullSpeed": 1}, "loadBalancing": {"subsetSize": 3},
        });
        let found = refusals(all);
        let mut wanted = BTreeSet::new();
        messages(&schema::spec(), &mut wanted);
        assert!(wanted.len() >= 7);
        for message in wanted {
            assert!(found.iter().any(|(_, found)| found.ends_with(&message)), "{message}: {found:?}");
        }
    }

    #[test]
    fn bounds_are_those_of_the_crd() {
        let good = json!({
            "targetRefs": target(), "access": {"allow": ["10.0.0.0/8", "2001:db8::1"]},
            "basicAuth": {"secretRef": {"name": "users"}}, "request": {"maxBodySize": "8m"},
        });
        assert_eq!(refusals(good), []);
        let bad = json!({
            "targetRefs": [{"group": "gateway.networking.k8s.io", "kind": "TCPRoute", "name": "web"}],
            "access": {"allow": ["ten"]}, "basicAuth": {}, "limits": {"requestsPerSecond": -1},
        });
        let fields: Vec<_> = refusals(bad).into_iter().map(|(field, _)| field).collect();
        let wanted = [
            "spec.access.allow[0]",
            "spec.basicAuth.secretRef",
            "spec.limits.requestsPerSecond",
            "spec.targetRefs[0].kind",
        ];
        for field in wanted {
            assert!(fields.contains(&field.to_owned()), "{field}: {fields:?}");
        }
    }
}
