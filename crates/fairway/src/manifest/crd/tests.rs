use super::*;
use crate::manifest::decode::decode;
use crate::manifest::node::Node;

/// The cases of `cases.yaml`, whether they are accepted, and the objects.
fn cases() -> Vec<(bool, String, Value)> {
    let node = Node::parse(include_str!("cases.yaml")).unwrap().unwrap();
    let cases: Value = decode(&node, &mut Vec::new()).unwrap();
    let mut found = Vec::new();
    for (list, taken) in [("valid", true), ("invalid", false)] {
        for case in cases[list].as_array().unwrap() {
            let kind = case[0].as_str().unwrap().to_owned();
            let mut object = cases["bases"][&kind].clone();
            let (parent, name) = case[1].as_str().unwrap().rsplit_once('/').unwrap();
            let parent = object.pointer_mut(parent).unwrap();
            match (parent, &case[2]) {
                (Value::Object(fields), Value::Null) => drop(fields.remove(name)),
                (Value::Object(fields), value) => drop(fields.insert(name.to_owned(), value.clone())),
                (parent, value) => parent[name.parse::<usize>().unwrap()] = value.clone(),
            }
            found.push((taken, kind, object));
        }
    }
    found
}

/// The messages of all rules in a schema.
fn messages(schema: &Schema, found: &mut std::collections::BTreeSet<String>) {
    schema.each_message(&mut |message| _ = found.insert(message.to_owned()));
}

#[test]
fn every_schema_is_understood() {
    let kinds = kinds().unwrap();
    for kind in ["Gateway", "HTTPRoute", "XBackend", "RoutePolicy"] {
        assert!(kinds.contains_key(kind), "{kind}");
    }
}

#[test]
fn what_is_valid_is_taken_and_what_is_not_is_refused() {
    for (taken, kind, object) in cases() {
        // Names are checked with the metadata.
        if object["metadata"]["name"] != "a" {
            continue;
        }
        let Judgement { refusals, in_standard, experimental, .. } = judge(&kind, &object);
        assert_eq!(refusals.is_empty() && in_standard.is_empty(), taken, "{object}: {refusals:?} {in_standard:?}");
        assert!(experimental.is_empty(), "{object}");
    }
}

#[test]
fn every_rule_of_the_standard_channel_refuses_one_of_the_cases() {
    let said: Vec<String> = cases()
        .into_iter()
        .map(|(_, kind, object)| judge(&kind, &object))
        .flat_map(|judged| judged.refusals.into_iter().chain(judged.in_standard))
        .map(|refusal| refusal.message)
        .collect();
    let mut wanted = std::collections::BTreeSet::new();
    for channels in KINDS.values() {
        channels.standard.iter().for_each(|schema| messages(schema, &mut wanted));
    }
    // An unknown type is refused before any rule is evaluated.
    wanted.remove("type must be one of ['Exact', 'PathPrefix', 'RegularExpression']");
    assert!(wanted.len() > 80, "{}", wanted.len());
    let missing: Vec<_> =
        wanted.iter().filter(|wanted| !said.iter().any(|said| said.ends_with(&format!(": {wanted}")))).collect();
    assert!(missing.is_empty(), "no case for {missing:#?}");
}

#[test]
fn xbackends_are_judged_by_the_rules_of_their_crd() {
    let host =
        json!({"type": "ExternalHostname", "externalHostname": {"hostname": "api.example"}, "port": {"number": 443}});
    let pods = json!({"type": "EndpointSelector", "endpointSelector": {"matchLabels": {"a.example/b": "c"}}, "port": {"number": 80}});
    let with = |base: &Value, name: &str, value: Value| {
        let mut spec = base.as_object().unwrap().clone();
        match value {
            Value::Null => drop(spec.remove(name)),
            value => drop(spec.insert(name.to_owned(), value)),
        }
        judge("XBackend", &json!({"metadata": {"name": "a"}, "spec": spec}))
    };
    let validation = json!({"hostname": "api.example", "wellKnownCACertificates": "System"});
    let secure = json!({"mode": "ServerOnly", "validation": validation});
    let good = [
        (&host, "tls", secure.clone()),
        (
            &host,
            "tls",
            json!({"mode": "ClientAndServer", "validation": validation, "clientCertificateRef": {"name": "a"}}),
        ),
        (&host, "protocol", json!("H2C")),
        (&pods, "sessionPersistence", json!({"cookie": {}})),
    ];
    for (base, name, value) in good {
        let judged = with(base, name, value.clone());
        assert!(judged.refusals.is_empty() && judged.experimental_kind, "{name} {value}: {judged:?}");
    }
    let of = |address: &str| json!({"hostname": address});
    let mut missing = Vec::new();
    for (base, name, value, message) in [
        (&host, "externalHostname", Value::Null, "externalHostname must be set when type is ExternalHostname"),
        (&host, "endpointSelector", pods["endpointSelector"].clone(), "must be unset otherwise"),
        (&host, "externalHostname", of("web.shop.svc.cluster.local"), "end with .cluster.local"),
        (&host, "protocol", json!("HTTP2"), "tls must be enabled when protocol is HTTP2"),
        (&host, "protocol", json!("WSS"), "tls must be enabled when protocol is WSS"),
        (&host, "protocol", json!("HTTP3"), "Unsupported value"),
        (&host, "sessionPersistence", json!({"cookie": {}}), "only be set when type is EndpointSelector"),
        (&host, "port", json!({}), "at least 1"),
        (&host, "port", json!({"number": 70_000}), "65535"),
        (&host, "tls", json!({"mode": "ServerOnly"}), "validation must be set"),
        (&host, "tls", json!({"mode": "None", "validation": validation}), "validation must be set"),
        (
            &host,
            "tls",
            json!({"mode": "ClientAndServer", "validation": validation}),
            "clientCertificateRef must be set",
        ),
        (&pods, "endpointSelector", json!({"matchLabels": {}}), "at least 1"),
        (&pods, "endpointSelector", json!({"matchLabels": {"a b": "c"}}), "Label keys must be"),
        (&pods, "sessionPersistence", json!({"type": "Header"}), "header must be specified"),
    ] {
        let judged = with(base, name, value.clone());
        let said: Vec<_> = judged.refusals.iter().map(|refusal| &*refusal.message).collect();
        if !said.iter().any(|said| said.contains(message)) {
            missing.push(format!("{name} {value}: {said:?}"));
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    let mut both = host.clone();
    (both["protocol"], both["tls"]) = (json!("H2C"), secure);
    let judged = judge("XBackend", &json!({"metadata": {"name": "a"}, "spec": both}));
    assert!(judged.refusals.iter().any(|one| one.message.contains("tls must be disabled")), "{judged:?}");
}

#[test]
fn what_only_the_experimental_channel_has_is_told_apart() {
    let with = |rule: Value| {
        let backends = json!([{"name": "web", "port": 80}]);
        let mut rule = rule;
        rule["backendRefs"] = backends;
        json!({"metadata": {"name": "a"}, "spec": {"rules": [rule]}})
    };
    let auth = json!({"protocol": "HTTP", "http": {}, "backendRef": {"name": "auth", "port": 80}});
    let filter = json!({"type": "ExternalAuth", "externalAuth": auth});
    let judged = judge("HTTPRoute", &with(json!({"filters": [filter]})));
    assert!(judged.refusals.is_empty() && !judged.in_standard.is_empty(), "{judged:?}");
    assert_eq!(judged.experimental, ["spec.rules[0].filters[0].externalAuth"]);
    // Another fault doesn't change this finding.
    let elsewhere = judge("HTTPRoute", &with(json!({"name": "no name", "filters": [filter]})));
    assert_eq!(elsewhere.in_standard, judged.in_standard);
    assert_eq!(elsewhere.refusals.iter().map(|it| &*it.field).collect::<Vec<_>>(), ["spec.rules[0].name"]);
    let wrong =
        json!({"type": "ExternalAuth", "externalAuth": {"protocol": "HTTP", "backendRef": {"name": "a", "port": 80}}});
    assert!(!judge("HTTPRoute", &with(json!({"filters": [wrong]}))).refusals.is_empty());
    let judged = judge("HTTPRoute", &with(json!({"sessionPersistence": {"type": "Header", "header": {"name": "A"}}})));
    assert!(judged.refusals.is_empty() && judged.in_standard.is_empty(), "{judged:?}");
    assert!(judged.in_experimental.is_empty(), "{judged:?}");
    assert_eq!(judged.experimental, ["spec.rules[0].sessionPersistence"]);
    // The standard channel's CRDs drop the field, and with it the mistake.
    let judged = judge("HTTPRoute", &with(json!({"sessionPersistence": {"type": "Header", "cookie": {}}})));
    assert!(judged.refusals.is_empty() && judged.in_standard.is_empty(), "{judged:?}");
    let said: Vec<_> = judged.in_experimental.iter().map(|refusal| &*refusal.message).collect();
    assert!(said.iter().any(|said| said.ends_with("header must be specified for Header type")), "{said:?}");
    assert!(judge("ConfigMap", &json!({})).refusals.is_empty());
    for kind in ["XBackendTrafficPolicy", "XTelemetryPolicy"] {
        assert!(judge(kind, &json!({})).experimental_kind, "{kind}");
    }
    assert!(!judge("HTTPRoute", &json!({})).experimental_kind && !judge("RoutePolicy", &json!({})).experimental_kind);
}
