//! The table that tells `fairway check` what the API server refuses: the schemas and rules of the CRDs of both channels, without
//! descriptions, each repeated part stored once.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde_json::{Map, Value};

use super::build;
use crate::workspace::Workspace;

/// The path of the table.
pub(super) const TABLE: &str = "crates/fairway/src/manifest/crd/gateway-api.json";

/// Shorter parts are written out wherever they occur.
const SHARED: usize = 80;

/// The table, generated from the CRDs of the module.
pub(super) fn table(workspace: &Workspace) -> anyhow::Result<String> {
    let mut channels = Vec::new();
    for channel in ["standard", "experimental"] {
        let mut kinds = BTreeMap::new();
        for path in build::definitions(workspace, channel)? {
            kinds.extend(read(&path)?);
        }
        channels.push((channel, kinds));
    }
    ensure!(channels.iter().all(|(_, kinds)| kinds.contains_key("HTTPRoute")), "the CRDs are incomplete");
    Ok(write(&channels))
}

/// Kind and schema of a CRD; `None` for a file with other content.
fn read(path: &PathBuf) -> anyhow::Result<Option<(String, Value)>> {
    let text = fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let Ok(crd) = serde_norway::from_str::<Value>(&text) else {
        // Several documents: this is the policy that guards the CRDs.
        return Ok(None);
    };
    let kind = crd["spec"]["names"]["kind"].as_str().with_context(|| format!("no kind in {}", path.display()))?;
    let versions = crd["spec"]["versions"].as_array().into_iter().flatten();
    let mut served: Vec<&Value> = versions.filter(|version| version["served"] == true).collect();
    // `v1` before `v1beta1` before `v1alpha1`; the parts that we read are the same.
    served.sort_by_key(|version| version["name"].as_str().unwrap_or_default().len());
    let schema = served.first().with_context(|| format!("{} serves no version", path.display()))?;
    let mut schema = schema["schema"]["openAPIV3Schema"].clone();
    if let Some(fields) = schema["properties"].as_object_mut() {
        // The API server checks metadata itself, and users don't write a status.
        fields.retain(|name, _| name == "spec");
    }
    without_descriptions(&mut schema);
    Ok(Some((kind.to_owned(), schema)))
}

fn without_descriptions(schema: &mut Value) {
    let Some(members) = schema.as_object_mut() else { return };
    members.remove("description");
    for (name, member) in members {
        match &**name {
            "properties" => member.as_object_mut().into_iter().flatten().for_each(|(_, it)| without_descriptions(it)),
            "items" | "additionalProperties" => without_descriptions(member),
            _ => {}
        }
    }
}

fn write(channels: &[(&str, BTreeMap<String, Value>)]) -> String {
    let mut parts = Parts::default();
    for (_, kinds) in channels {
        kinds.values().for_each(|schema| parts.count(schema));
    }
    let mut kinds: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for (channel, schemas) in channels {
        for (kind, schema) in schemas {
            let schema = parts.shared(schema, &format!("{channel}.{kind}"));
            kinds.entry(kind).or_default().insert((*channel).to_owned(), schema);
        }
    }
    let mut out = "{\"definitions\": {\n".to_owned();
    let lines = |out: &mut String, lines: Vec<(String, String)>| {
        let last = lines.len().saturating_sub(1);
        for (at, (name, value)) in lines.into_iter().enumerate() {
            let comma = if at == last { "" } else { "," };
            let _ = writeln!(out, "{}: {value}{comma}", Value::String(name));
        }
    };
    lines(&mut out, parts.definitions.into_iter().map(|(name, value)| (name, value.to_string())).collect());
    out.push_str("}, \"kinds\": {\n");
    let kinds = kinds.into_iter().map(|(kind, schemas)| (kind.to_owned(), Value::Object(schemas).to_string()));
    lines(&mut out, kinds.collect());
    out.push_str("}}\n");
    out
}

/// Parts of schemas, to find repeated ones.
#[derive(Default)]
struct Parts {
    counts: BTreeMap<String, usize>,
    /// The name of each part that is stored once.
    names: BTreeMap<String, String>,
    definitions: BTreeMap<String, Value>,
}

impl Parts {
    fn count(&mut self, schema: &Value) {
        let count = self.counts.entry(schema.to_string()).or_default();
        *count += 1;
        // Parts within a repeated part are counted only once.
        if *count == 1 {
            inner(schema).for_each(|(_, _, part)| self.count(part));
        }
    }

    fn shared(&mut self, schema: &Value, place: &str) -> Value {
        let text = schema.to_string();
        let again = text.len() >= SHARED && self.counts.get(&text).is_some_and(|count| *count > 1);
        if let Some(name) = self.names.get(&text).filter(|_| again) {
            return reference(name);
        }
        let mut whole = schema.clone();
        for (of, name, part) in inner(schema) {
            let part = self.shared(part, &format!("{place}.{name}"));
            let owner = if matches!(of, Of::Field) { &mut whole["properties"] } else { &mut whole };
            owner[&name] = part;
        }
        if !again {
            return whole;
        }
        self.names.insert(text, place.to_owned());
        self.definitions.insert(place.to_owned(), whole);
        reference(place)
    }
}

fn reference(name: &str) -> Value {
    serde_json::json!({ "$ref": name })
}

/// The role of a schema within a schema: a field may be called `items`.
#[derive(Clone, Copy)]
enum Of {
    Field,
    Entries,
}

/// The schemas in a schema, each with its name.
fn inner(schema: &Value) -> impl Iterator<Item = (Of, String, &Value)> {
    let fields = schema["properties"].as_object().into_iter().flatten();
    let entries = ["items", "additionalProperties"].into_iter().filter_map(|name| Some((name, schema.get(name)?)));
    let entries = entries.filter(|(_, entry)| entry.is_object());
    fields
        .map(|(name, field)| (Of::Field, name.clone(), field))
        .chain(entries.map(|(name, entry)| (Of::Entries, name.to_owned(), entry)))
}

/// What to report if the table differs from these CRDs; `None` if it is up to date.
pub(super) fn difference(workspace: &Workspace) -> anyhow::Result<Option<String>> {
    let path = workspace.root.join(TABLE);
    let found = fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let wanted = table(workspace)?;
    let same = found.lines().zip(wanted.lines()).take_while(|(found, wanted)| found == wanted).count();
    Ok((found != wanted).then(|| {
        format!(
            "{TABLE} is not what the CRDs of {} say, from line {} on: run `cargo xtask conformance gateway --schema`",
            build::VERSION,
            same + 1
        )
    }))
}

/// Writes the table.
pub(super) fn rewrite(workspace: &Workspace) -> anyhow::Result<()> {
    let path: &Path = TABLE.as_ref();
    fs::write(workspace.root.join(path), table(workspace)?).with_context(|| format!("writing {TABLE}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The schema of a table with all references resolved.
    fn followed(schema: &Value, definitions: &Value) -> Value {
        match schema {
            Value::Object(members) => match members.get("$ref").and_then(Value::as_str) {
                Some(name) => followed(&definitions[name], definitions),
                None => members.iter().map(|(name, it)| (name.clone(), followed(it, definitions))).collect(),
            },
            Value::Array(items) => items.iter().map(|item| followed(item, definitions)).collect(),
            other => other.clone(),
        }
    }

    #[test]
    fn a_part_that_occurs_again_is_written_once_and_nothing_is_lost() {
        let name =
            json!({"type": "string", "maxLength": 253, "minLength": 1, "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"});
        let list = json!({"type": "array", "items": {"type": "object", "properties": {"name": name}}});
        let one = json!({"type": "object", "properties": {"list": list, "name": name, "items": {"type": "string"}}});
        let other = json!({"type": "object", "additionalProperties": name, "x": "y"});
        let kinds = BTreeMap::from([("One".to_owned(), one.clone()), ("Other".to_owned(), other.clone())]);
        let text = write(&[("standard", kinds)]);
        assert_eq!(text.matches("pattern").count(), 1, "{text}");
        let table: Value = serde_json::from_str(&text).unwrap();
        let found = |kind: &str| followed(&table["kinds"][kind]["standard"], &table["definitions"]);
        assert_eq!((found("One"), found("Other")), (one, other));
    }

    #[test]
    fn descriptions_go_and_a_field_of_that_name_stays() {
        let mut schema =
            json!({"description": "x", "properties": {"description": {"description": "y", "type": "string"}}});
        without_descriptions(&mut schema);
        assert_eq!(schema, json!({"properties": {"description": {"type": "string"}}}));
    }
}
