//! What a Gateway wants of its own Service beyond addresses, labels and annotations: the GatewayParameters or ConfigMap that its
//! `infrastructure.parametersRef` names.
//!
//! A Gateway with an unknown key or an invalid value is not accepted, since some of them decide who may connect. Its Service then stays as
//! it is.

use std::collections::BTreeMap;

use ipnet::IpNet;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::{Value, json};

use super::api::Gateway;
use super::policy;
use super::route_policy::parameters::GatewayParametersSpec;
use super::route_policy::schema::Schema;
use super::status::Shortcoming;
use crate::objects::{Kind, Object, ObjectKey, Objects};

/// Fields of the spec of a Service, with their values.
pub(super) type ServiceFields = BTreeMap<&'static str, Value>;

/// A key that a ConfigMap may have; it is also the name of a field of the Service.
struct Parameter {
    name: &'static str,
    expected: &'static str,
    read: fn(&str) -> Option<Value>,
}

const PARAMETERS: &[Parameter] = &[
    Parameter { name: "loadBalancerClass", expected: "the class of a load balancer", read: class },
    Parameter {
        name: "externalTrafficPolicy",
        expected: "Cluster or Local",
        read: |text| one_of(text, &["Cluster", "Local"]),
    },
    Parameter {
        name: "ipFamilyPolicy",
        expected: "SingleStack, PreferDualStack or RequireDualStack",
        read: |text| one_of(text, &["SingleStack", "PreferDualStack", "RequireDualStack"]),
    },
    Parameter {
        name: "allocateLoadBalancerNodePorts",
        expected: "true or false",
        read: |text| text.parse::<bool>().ok().map(Value::from),
    },
    Parameter {
        name: "loadBalancerSourceRanges",
        expected: "one or more networks such as 192.0.2.0/24",
        read: networks,
    },
];

/// The ConfigMap that a Gateway names, if any.
pub(super) fn config_map(gateway: &Gateway) -> Option<ObjectKey> {
    let reference = gateway.spec.infrastructure.as_ref()?.parameters_ref.as_ref()?;
    let namespace = gateway.metadata.namespace.as_deref().unwrap_or_default();
    (reference.group.is_empty() && reference.kind == Kind::ConfigMap.as_str())
        .then(|| ObjectKey::new(Kind::ConfigMap, namespace, &*reference.name))
}

/// What a Gateway wants of its Service, or why that is unknown.
pub(super) fn read(gateway: &Gateway, objects: &Objects) -> Result<ServiceFields, Shortcoming> {
    let reference = gateway.spec.infrastructure.as_ref().and_then(|all| all.parameters_ref.as_ref());
    let Some(reference) = reference else { return Ok(ServiceFields::new()) };
    let invalid =
        |why: String| Shortcoming::new("InvalidParameters", format!("spec.infrastructure.parametersRef: {why}"));
    let namespace = gateway.metadata.namespace.as_deref().unwrap_or_default();
    if reference.group == policy::GROUP && reference.kind == Kind::GatewayParameters.as_str() {
        let key = ObjectKey::new(Kind::GatewayParameters, namespace, &*reference.name);
        return match objects.get(&key) {
            Some(Object::GatewayParameters(found)) => {
                typed(&found.spec).map_err(|why| invalid(format!("{key}: spec.{why}")))
            }
            _ => Err(invalid(format!("there is no {key}"))),
        };
    }
    let Some(key) = config_map(gateway) else {
        let found = format!("{} {}", reference.kind, reference.name);
        return Err(invalid(format!("expected a GatewayParameters of fairway.dev or a ConfigMap, found {found}")));
    };
    match objects.get(&key) {
        Some(Object::ConfigMap(map)) => {
            fields(map).map_err(|why| invalid(format!("ConfigMap {}/{}: {why}", key.namespace, key.name)))
        }
        _ => Err(invalid(format!("there is no ConfigMap {}/{}", key.namespace, key.name))),
    }
}

/// The fields that may be set.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    PARAMETERS.iter().map(|known| known.name)
}

fn fields(map: &ConfigMap) -> Result<ServiceFields, String> {
    let mut fields = ServiceFields::new();
    for (name, text) in map.data.iter().flatten() {
        let Some(known) = PARAMETERS.iter().find(|known| known.name == name) else {
            return Err(format!("{name} is not known; expected {}", names().collect::<Vec<_>>().join(", ")));
        };
        let value = (known.read)(text.trim()).ok_or_else(|| format!("{name}: expected {}", known.expected))?;
        fields.insert(known.name, value);
    }
    Ok(fields)
}

/// The fields of an object that has them with their types. Members from a newer version may decide who may connect.
fn typed(spec: &GatewayParametersSpec) -> Result<ServiceFields, String> {
    if let Some(newer) = spec.newer() {
        return Err(format!("{newer} is not known"));
    }
    let Some(service) = &spec.service else { return Ok(ServiceFields::new()) };
    let ranges = service.load_balancer_source_ranges.as_ref();
    let texts = [
        ("loadBalancerClass", service.load_balancer_class.as_ref().map(|class| class.0.clone())),
        ("externalTrafficPolicy", service.external_traffic_policy.as_ref().map(|policy| policy.0.clone())),
        ("ipFamilyPolicy", service.ip_family_policy.as_ref().map(|policy| policy.0.clone())),
        ("allocateLoadBalancerNodePorts", service.allocate_load_balancer_node_ports.map(|ports| ports.to_string())),
        ("loadBalancerSourceRanges", ranges.map(|all| all.iter().map(|one| &*one.0).collect::<Vec<_>>().join(","))),
    ];
    let mut fields = ServiceFields::new();
    for (name, text) in texts {
        let Some(text) = text else { continue };
        let known = PARAMETERS.iter().find(|known| known.name == name).ok_or("service: a field without a meaning")?;
        let value = (known.read)(&text).ok_or_else(|| format!("service.{name}: expected {}", known.expected))?;
        fields.insert(known.name, value);
    }
    Ok(fields)
}

fn one_of(text: &str, values: &[&str]) -> Option<Value> {
    values.contains(&text).then(|| text.into())
}

/// A name, optionally with a domain before it.
fn class(text: &str) -> Option<Value> {
    let is_valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    (!text.is_empty() && text.len() <= 317 && text.chars().all(is_valid)).then(|| text.into())
}

/// At least one network, since an empty list would admit all clients.
fn networks(text: &str) -> Option<Value> {
    let parts = text.split(|c: char| c == ',' || c.is_whitespace()).filter(|part| !part.is_empty());
    let networks: Option<Vec<String>> =
        parts.map(|part| part.parse::<IpNet>().ok().map(|net| net.trunc().to_string())).collect();
    networks.filter(|networks| !networks.is_empty()).map(|networks| json!(networks))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(entries: &[(&str, &str)]) -> Result<ServiceFields, String> {
        let data = entries.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        fields(&ConfigMap { data: Some(data), ..ConfigMap::default() })
    }

    #[test]
    fn each_key_is_a_field_of_the_service() {
        let found = read(&[
            ("loadBalancerClass", "example.com/inner"),
            ("externalTrafficPolicy", "Local\n"),
            ("ipFamilyPolicy", "PreferDualStack"),
            ("allocateLoadBalancerNodePorts", "false"),
            ("loadBalancerSourceRanges", "192.0.2.0/24, 2001:db8::/32\n10.0.0.0/8"),
        ]);
        let expected = json!({
            "loadBalancerClass": "example.com/inner",
            "externalTrafficPolicy": "Local",
            "ipFamilyPolicy": "PreferDualStack",
            "allocateLoadBalancerNodePorts": false,
            "loadBalancerSourceRanges": ["192.0.2.0/24", "2001:db8::/32", "10.0.0.0/8"],
        });
        assert_eq!(json!(found.unwrap()), expected);
    }

    #[test]
    fn an_object_says_the_same_as_the_keys_of_a_config_map() {
        let read = |spec: Value| typed(&serde_json::from_value(spec).unwrap());
        let service = json!({
            "loadBalancerClass": "example.com/inner", "externalTrafficPolicy": "Local", "ipFamilyPolicy": "PreferDualStack",
            "allocateLoadBalancerNodePorts": false, "loadBalancerSourceRanges": ["192.0.2.0/24", "2001:db8::/32"],
        });
        assert_eq!(json!(read(json!({"service": service.clone()})).unwrap()), service);
        assert_eq!(names().count(), service.as_object().unwrap().len(), "every one");
        assert_eq!(read(json!({})), Ok(ServiceFields::new()));
        for (spec, field) in [
            (json!({"service": {"externalTrafficPolicy": "local"}}), "service.externalTrafficPolicy"),
            (json!({"service": {"loadBalancerSourceRanges": []}}), "service.loadBalancerSourceRanges"),
            (json!({"service": {"loadBalancerSourceRanges": ["10.0.0.0/40"]}}), "service.loadBalancerSourceRanges"),
            (json!({"service": {"loadBalancerClass": ""}}), "service.loadBalancerClass"),
            (json!({"service": {"onlyFrom": ["10.0.0.0/8"]}}), "service.onlyFrom"),
            (json!({"access": {}}), "access"),
        ] {
            let why = read(spec).unwrap_err();
            assert!(why.starts_with(field), "{why}");
        }
    }

    #[test]
    fn what_means_nothing_is_refused() {
        for (name, text) in [
            ("loadBalancerClass", ""),
            ("externalTrafficPolicy", "local"),
            ("allocateLoadBalancerNodePorts", "no"),
            ("loadBalancerSourceRanges", ""),
            ("loadBalancerSourceRanges", "192.0.2.0/24, all"),
            ("loadBalancerSourceRange", "192.0.2.0/24"),
        ] {
            let why = read(&[(name, text)]).unwrap_err();
            assert!(why.starts_with(name) && why.contains("expected"), "{why}");
        }
    }
}
