//! The schema of the values: helm rejects values of a wrong type and flags unknown to the program. Other unknown names
//! are accepted, as in the ingress-nginx chart, and reported after the installation.

use serde_json::{Map, Value as Json, json};

use super::names::{Name, OWN_FLAGS};
use super::table::{Value, Verdict};

/// Maps of which we know some keys. Other keys, at any depth, belong to the user, to Kubernetes or to features absent here.
pub(crate) const OPEN: &[&str] = &[
    "global",
    "controller.admissionWebhooks",
    "controller.containerPort",
    "controller.control.nodeSelector",
    "controller.control.resources",
    "controller.hostPort.ports",
    "controller.image.seccompProfile",
    "controller.lifecycle",
    "controller.livenessProbe",
    "controller.nodeSelector",
    "controller.readinessProbe",
    "controller.resources",
    "defaultBackend.image.seccompProfile",
    "defaultBackend.livenessProbe",
    "defaultBackend.nodeSelector",
    "defaultBackend.readinessProbe",
];

/// Values for which Kubernetes or the chart accepts only a few words. A name without a map applies in every map.
const WORDS: &[(&str, &[&str])] = &[
    ("controller.mode", &["single", "pair", "split"]),
    ("controller.kind", &["Deployment", "DaemonSet", "Both"]),
    ("controller.gatewayAPI.address", &["shared", "asked", "own"]),
    ("controller.dnsPolicy", &["ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"]),
    ("controller.service.type", SERVICE_TYPES),
    ("controller.service.internal.type", SERVICE_TYPES),
    ("controller.metrics.service.type", SERVICE_TYPES),
    ("defaultBackend.service.type", SERVICE_TYPES),
    ("externalTrafficPolicy", &["Cluster", "Local"]),
    ("ipFamilyPolicy", &["SingleStack", "PreferDualStack", "RequireDualStack"]),
    ("pullPolicy", &["Always", "IfNotPresent", "Never"]),
    ("sessionAffinity", &["ClientIP", "None"]),
    ("unhealthyPodEvictionPolicy", &["AlwaysAllow", "IfHealthyBudget"]),
];

const SERVICE_TYPES: &[&str] = &["ClusterIP", "LoadBalancer", "NodePort"];

/// Numbers that may also be a percentage or the name of a port.
const NOT_ONLY_NUMBERS: &[&str] = &["minAvailable", "maxUnavailable", "port"];

/// A port as a key, and a whole number as text.
const PORT: &str = "^[1-9][0-9]{0,4}$";
const NUMBER: &str = "^[0-9]+$";

/// Numbers that the ingress-nginx chart omits if they are empty texts.
const UNSET_BY_EMPTY: &[&str] = &["healthCheckNodePort", "progressDeadlineSeconds"];
const NUMBER_OR_NOTHING: &str = "^[0-9]*$";

/// Switches that may be the text `false`, because the ingress-nginx chart prints them. It tests the others with `if`,
/// which takes that text for true, so the schema rejects it. The text `true` means the same in both.
const PRINTED: &[&str] = &["controller.allowSnippetAnnotations"];

/// Lists and maps for which an empty text is a wrong type in the ingress-nginx chart too: its templates print them, or iterate over them,
/// without a test. They test all others with `if` or `with`, so an empty text counts as unset.
const NEVER_EMPTY: &[&str] = &[
    "controller.config",
    "controller.extraArgs",
    "controller.ingressClassResource.aliases",
    "controller.lifecycle.preStop.exec.command",
    "controller.service.annotations",
    "controller.service.internal.ports",
    "controller.service.internal.targetPorts",
    "defaultBackend.extraConfigMaps",
    "tcp",
    "udp",
];

/// Maps of known keys for which an empty text counts as unset, for the same reason. Most others are needed for their keys.
const EMPTY_MAPS: &[&str] = &[
    "controller.admissionWebhooks.certManager.admissionCert",
    "controller.admissionWebhooks.certManager.rootCert",
    "controller.admissionWebhooks.createSecretJob.securityContext",
    "controller.admissionWebhooks.patch.nodeSelector",
    "controller.admissionWebhooks.patchWebhookJob.securityContext",
    "controller.hostPort.ports",
    "controller.image.seccompProfile",
    "controller.lifecycle",
    "controller.livenessProbe",
    "controller.nodeSelector",
    "controller.readinessProbe",
    "controller.resources",
    "controller.tcp",
    "controller.udp",
    "defaultBackend.image.seccompProfile",
    "defaultBackend.nodeSelector",
];

/// The whole schema. `flags` are those of ingress-nginx.
pub(crate) fn schema(values: &[Value], flags: &[Name]) -> Json {
    let mut root = node();
    for value in values {
        let mut at = &mut root;
        let keys = value.keys();
        let (last, parents) = keys.split_last().expect("a name has a key");
        for key in parents {
            at = at["properties"].as_object_mut().expect("a map").entry(*key).or_insert_with(node);
        }
        at["properties"][last] = leaf(value);
    }
    for map in EMPTY_MAPS {
        let node = map.split('.').fold(&mut root, |node, key| &mut node["properties"][key]);
        unset_by_empty(node.as_object_mut().expect("the table has the map"));
    }
    root["properties"]["controller"]["properties"]["extraArgs"] =
        arguments(&root["properties"]["controller"]["properties"]["extraArgs"], flags);
    for protocol in ["tcp", "udp"] {
        let ports = &mut root["properties"][protocol];
        ports["propertyNames"] = json!({"pattern": PORT});
        ports["additionalProperties"] = json!({"type": ["string", "null"]});
    }
    root["$schema"] = json!("https://json-schema.org/draft-07/schema#");
    root["title"] = json!("Values of the Fairway chart");
    // Passed on by charts that include this one.
    root["properties"]["enabled"] = json!({"type": ["boolean", "null"]});
    root
}

/// A map of values.
fn node() -> Json {
    json!({"type": ["object", "null"], "properties": {}})
}

/// Lets an empty text stand for a list or map that is unset.
fn unset_by_empty(schema: &mut Map<String, Json>) {
    if let Some(types) = schema["type"].as_array_mut() {
        types.push(json!("string"));
    }
    schema.insert("maxLength".into(), json!(0));
}

/// The names of all lists and maps for which an empty text counts as unset.
pub(crate) fn may_be_empty(values: &[Value]) -> Vec<&'static str> {
    let leaves = values.iter().filter(|value| is_collection(value) && !NEVER_EMPTY.contains(&value.name));
    leaves.map(|value| value.name).chain(EMPTY_MAPS.iter().copied()).collect()
}

/// Whether a map of these has known keys of its own.
pub(crate) fn is_map_of_maps(name: &str) -> bool {
    EMPTY_MAPS.contains(&name)
}

fn is_collection(value: &Value) -> bool {
    matches!(value.default.as_ref().unwrap_or(&value.sample), Json::Array(_) | Json::Object(_))
        && value.name != "controller.hostname"
}

/// Whether this map may have unknown keys: it is in [`OPEN`], or within a map there.
pub(crate) fn is_open(path: &str) -> bool {
    OPEN.iter().any(|map| path.strip_prefix(map).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
}

/// A value. YAML doesn't separate text, numbers and text that looks like a number, so neither does the schema.
fn leaf(value: &Value) -> Json {
    let types: &[&str] = match value.default.as_ref().unwrap_or(&value.sample) {
        _ if value.name == "controller.hostname" => &["string", "object", "null"],
        Json::Bool(_) => &["boolean", "string", "null"],
        Json::Array(_) => &["array", "null"],
        Json::Object(_) => &["object", "null"],
        Json::Number(_) if is_number(value) => &["integer", "string", "null"],
        Json::String(_) | Json::Number(_) | Json::Null => &["string", "number", "null"],
    };
    let mut leaf = Map::new();
    leaf.insert("type".into(), json!(types));
    if is_collection(value) && !NEVER_EMPTY.contains(&value.name) {
        unset_by_empty(&mut leaf);
    }
    if let (Json::Bool(_), Verdict::Honoured) = (value.default.as_ref().unwrap_or(&value.sample), value.verdict) {
        let mut allowed = vec![json!(true), json!(false), Json::Null, json!("true")];
        allowed.extend(PRINTED.contains(&value.name).then(|| json!("false")));
        leaf.insert("enum".into(), Json::Array(allowed));
    }
    if is_number(value) {
        let pattern = if UNSET_BY_EMPTY.contains(&value.keys().last().copied().unwrap_or_default()) {
            NUMBER_OR_NOTHING
        } else {
            NUMBER
        };
        leaf.insert("pattern".into(), json!(pattern));
    }
    if let Some(words) = words(value) {
        // Elsewhere the templates omit an empty text, as those of ingress-nginx do.
        let needed = value.name == "controller.kind" || value.name.ends_with(".type");
        let empty = (!needed || value.default.as_ref().is_none_or(|default| *default == json!(""))).then(|| json!(""));
        leaf.insert("enum".into(), words.iter().map(|word| json!(word)).chain(empty).chain([Json::Null]).collect());
    }
    let description = match (value.verdict.label(), value.note) {
        ("honoured", note) => note.to_owned(),
        (label, note) => format!("{label}: {note}"),
    };
    if !description.is_empty() {
        leaf.insert("description".into(), json!(description));
    }
    Json::Object(leaf)
}

/// Whether only a whole number makes sense, which may be written as text.
fn is_number(value: &Value) -> bool {
    let last = value.keys().last().copied().unwrap_or_default();
    value.verdict == Verdict::Honoured
        && matches!(value.default.as_ref().unwrap_or(&value.sample), Json::Number(_))
        && (!NOT_ONLY_NUMBERS.contains(&last) || value.name == "controller.metrics.port")
}

/// The complete list of allowed words.
fn words(value: &Value) -> Option<&'static [&'static str]> {
    let last = value.keys().last().copied().unwrap_or_default();
    let named = |name: &str| name == value.name || name == last;
    let found = WORDS.iter().find(|(name, _)| named(name)).map(|(_, words)| *words);
    found.filter(|_| value.verdict == Verdict::Honoured)
}

/// The map of flags: a misspelt one would stop the process at its start.
fn arguments(leaf: &Json, flags: &[Name]) -> Json {
    let mut properties = Map::new();
    let own = OWN_FLAGS.iter().map(|(name, takes)| (*name, *takes));
    for (name, takes) in flags.iter().map(|flag| (flag.name.as_str(), flag.takes.as_str())).chain(own) {
        let schema = match takes {
            "" => json!({
                "type": ["boolean", "integer", "string", "null"],
                "enum": [true, false, 0, 1, null, "", "true", "false", "1", "0", "t", "f", "T", "F", "TRUE", "FALSE", "True", "False"],
            }),
            "PORT" => json!({"type": ["integer", "string"], "minimum": 0, "maximum": 65535, "pattern": NUMBER}),
            "NUMBER" | "SECONDS" => json!({"type": ["number", "string"], "pattern": "^-?[0-9]+([.][0-9]+)?$"}),
            "DURATION" => json!({"type": "string", "pattern": "^-?(0|([0-9]*[.]?[0-9]+(ns|us|µs|ms|s|m|h))+)$"}),
            "NAMESPACE/NAME" => json!({"type": "string", "pattern": "^[^/]+/[^/]+$"}),
            _ => json!({"type": ["string", "number", "boolean", "array"]}),
        };
        properties.insert(name.to_owned(), schema);
    }
    let mut map = leaf.clone();
    map["properties"] = Json::Object(properties);
    map["additionalProperties"] = json!(false);
    map
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chart::table;

    #[test]
    fn only_flags_are_closed() {
        let schema = schema(&table::read().unwrap(), &[]);
        let controller = &schema["properties"]["controller"];
        assert_eq!(controller["properties"]["extraArgs"]["additionalProperties"], json!(false));
        assert_eq!(controller["properties"]["config"]["type"], json!(["object", "null"]));
        for map in [&schema, controller, &controller["properties"]["service"]] {
            assert!(map["properties"].is_object() && map.get("additionalProperties").is_none());
        }
    }

    #[test]
    fn empty_text_unsets_what_the_other_chart_tests_before_use() {
        let values = table::read().unwrap();
        let schema = schema(&values, &[]);
        let leaf = |name: &str| name.split('.').fold(&schema, |node, key| &node["properties"][key]);
        for name in may_be_empty(&values) {
            assert_eq!(leaf(name)["maxLength"], json!(0), "{name}");
            assert!(leaf(name)["type"].as_array().unwrap().contains(&json!("string")), "{name}");
        }
        for name in NEVER_EMPTY {
            assert!(!leaf(name)["type"].as_array().unwrap().contains(&json!("string")), "{name}");
        }
        assert_eq!(leaf("controller.tolerations")["type"], json!(["array", "null", "string"]));
        assert_eq!(leaf("controller.service")["type"], json!(["object", "null"]));
    }

    #[test]
    fn maps_of_users_are_open() {
        let values = table::read().unwrap();
        for open in OPEN {
            let is_in =
                |name: &str| name.strip_prefix(open).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
            assert!(values.iter().any(|value| is_in(value.name)), "{open}");
        }
        assert!(is_open("controller.admissionWebhooks.patch.image") && !is_open("controller.service"));
    }

    #[test]
    fn words_and_numbers_are_named_and_samples_are_among_them() {
        let values = table::read().unwrap();
        let schema = schema(&values, &[]);
        let leaf = |name: &str| name.split('.').fold(&schema, |node, key| &node["properties"][key]);
        assert_eq!(leaf("controller.replicaCount")["pattern"], json!(NUMBER));
        assert_eq!(leaf("controller.minAvailable").get("pattern"), None);
        assert_eq!(leaf("controller.service.enabled")["enum"], json!([true, false, null, "true"]));
        assert_eq!(leaf("controller.allowSnippetAnnotations")["enum"], json!([true, false, null, "true", "false"]));
        assert_eq!(leaf("controller.admissionWebhooks.enabled").get("enum"), None, "nothing reads it");
        assert_eq!(leaf("tcp")["propertyNames"]["pattern"], json!(PORT));
        for (name, _) in WORDS {
            assert!(
                values.iter().any(|value| words(value).is_some() && value.name.ends_with(name)),
                "{name}: no value"
            );
        }
        for value in &values {
            let Some(words) = words(value) else { continue };
            assert!(value.sample.as_str().is_some_and(|sample| words.contains(&sample)), "{}: the sample", value.name);
            if let Some(Json::String(default)) = &value.default {
                assert!(default.is_empty() || words.contains(&default.as_str()), "{}: the default", value.name);
            }
        }
    }
}
