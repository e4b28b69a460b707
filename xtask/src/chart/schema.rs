//! The schema of the values. Helm refuses what isn't in it, by name: a misspelt value would have no effect and nobody would say.

use serde_json::{Map, Value as Json, json};

use super::table::Value;

/// Maps of which we know some keys, and whose others, at any depth, are for the user, for Kubernetes or for something that isn't here.
const OPEN: &[&str] = &[
    "global",
    "controller.admissionWebhooks",
    "controller.containerPort",
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

/// The whole schema.
pub(crate) fn schema(values: &[Value]) -> Json {
    let mut root = node("");
    for value in values {
        let mut at = &mut root;
        let mut path = String::new();
        let keys = value.keys();
        let (last, parents) = keys.split_last().expect("a name has a key");
        for key in parents {
            path = if path.is_empty() { (*key).to_owned() } else { format!("{path}.{key}") };
            at = at["properties"].as_object_mut().expect("a map").entry(*key).or_insert_with(|| node(&path));
        }
        at["properties"][last] = leaf(value);
    }
    root["$schema"] = json!("https://json-schema.org/draft-07/schema#");
    root["title"] = json!("Values of the Fairway chart");
    // Charts that include this one pass it on.
    root["properties"]["enabled"] = json!({"type": ["boolean", "null"]});
    root
}

/// A map of values.
fn node(path: &str) -> Json {
    let mut node = Map::new();
    node.insert("type".into(), json!(["object", "null"]));
    node.insert("properties".into(), json!({}));
    let open = |map: &&str| path.strip_prefix(map).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    if !OPEN.iter().any(open) {
        node.insert("additionalProperties".into(), json!(false));
    }
    Json::Object(node)
}

/// A value. Text, numbers and what looks like both are one in YAML files, so no difference is made between them.
fn leaf(value: &Value) -> Json {
    let types: &[&str] = match value.default.as_ref().unwrap_or(&value.sample) {
        _ if value.name == "controller.hostname" => &["string", "object", "null"],
        Json::Bool(_) => &["boolean", "null"],
        Json::Array(_) => &["array", "null"],
        Json::Object(_) => &["object", "null"],
        Json::String(_) | Json::Number(_) | Json::Null => &["string", "number", "null"],
    };
    let mut leaf = Map::new();
    leaf.insert("type".into(), json!(types));
    let description = match (value.verdict.label(), value.note) {
        ("honoured", note) => note.to_owned(),
        (label, note) => format!("{label}: {note}"),
    };
    if !description.is_empty() {
        leaf.insert("description".into(), json!(description));
    }
    Json::Object(leaf)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chart::table;

    #[test]
    fn fixed_keys_are_closed_and_maps_of_users_are_open() {
        let schema = schema(&table::read().unwrap());
        let controller = &schema["properties"]["controller"];
        assert_eq!(schema["additionalProperties"], json!(false));
        assert_eq!(controller["additionalProperties"], json!(false));
        assert_eq!(controller["properties"]["service"]["additionalProperties"], json!(false));
        assert_eq!(controller["properties"]["config"]["type"], json!(["object", "null"]));
        for open in OPEN.iter().chain(&["controller.admissionWebhooks.patch.image"]) {
            let node = open.split('.').fold(&schema, |node, key| &node["properties"][key]);
            assert!(node.is_object() && node.get("additionalProperties").is_none(), "{open}");
        }
    }
}
