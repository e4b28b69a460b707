//! The CRD of RoutePolicy and the table of its fields, from its types.
//!
//! A type says what the API server has to check; the reader checks the same, because objects come from files too, and from clusters with
//! an older CRD.

use std::fmt::Write as _;
use std::ops::Deref;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::api::RoutePolicySpec;
use super::parameters::GatewayParametersSpec;

/// A type of which the API server knows the bounds.
pub trait Schema {
    /// Whether the field has to be there.
    const REQUIRED: bool = true;

    /// The bounds, in terms of OpenAPI.
    fn schema() -> Value;

    /// The type in a few words, for the docs.
    fn words() -> String;

    /// Its fields, if it is a record.
    fn fields() -> Vec<Field> {
        Vec::new()
    }

    /// The first member below that this version does not know.
    fn newer(&self) -> Option<String> {
        None
    }
}

/// A record, checked within its bounds.
pub trait Record {
    /// Its fields.
    fn record() -> Vec<Field>;
}

/// A field of a record.
pub struct Field {
    name: String,
    doc: String,
    required: bool,
    words: String,
    schema: Value,
    fields: Vec<Self>,
}

impl Field {
    pub(super) fn of<T: Schema>(name: &str, doc: &[&str]) -> Self {
        let doc = doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
        let mut schema = T::schema();
        schema["description"] = json!(doc);
        let (required, words, fields) = (T::REQUIRED, T::words(), T::fields());
        Self { name: camel_case(name), doc, required, words, schema, fields }
    }
}

/// `r#type` and `max_body_size` as YAML has them.
fn camel_case(name: &str) -> String {
    let mut words = name.trim_start_matches("r#").split('_');
    let mut text = words.next().unwrap_or_default().to_owned();
    for word in words {
        let mut letters = word.chars();
        text.extend(letters.next().map(|first| first.to_ascii_uppercase()));
        text.push_str(letters.as_str());
    }
    text
}

/// The path of the first member below a field that this version does not know.
pub(super) fn below<T: Schema>(field: &str, value: &T) -> Option<String> {
    let path = value.newer()?;
    let dot = if path.starts_with('[') { "" } else { "." };
    Some(format!("{}{dot}{path}", camel_case(field)))
}

/// The schema of a record.
pub(super) fn object(fields: Vec<Field>, rules: &[(&str, &str)]) -> Value {
    let required: Vec<String> = fields.iter().filter(|field| field.required).map(|field| field.name.clone()).collect();
    let properties: Map<String, Value> = fields.into_iter().map(|field| (field.name, field.schema)).collect();
    let mut schema = json!({"type": "object", "properties": properties});
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    if !rules.is_empty() {
        let rules: Vec<_> = rules.iter().map(|(rule, message)| json!({"rule": rule, "message": message})).collect();
        schema["x-kubernetes-validations"] = json!(rules);
    }
    schema
}

macro_rules! records {
    ($(
        $(#[doc = $about:literal])+
        $name:ident { $($(#[doc = $doc:literal])+ $field:ident: $type:ty,)* }
        $(rules { $($rule:literal => $message:literal,)* })?
    )+) => {$(
        $(#[doc = $about])+
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase", default, remote = "Self")]
        pub struct $name {
            $($(#[doc = $doc])+ #[serde(skip_serializing_if = "super::schema::is_empty")] pub $field: $type,)*
            /// What a newer version has.
            #[serde(skip)]
            pub newer: super::newer::Newer,
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let mut newer = super::newer::Newer::default();
                let read = Self::deserialize(super::newer::Noting { deserializer, newer: &mut newer })?;
                Ok(Self { newer, ..read })
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                Self::serialize(self, serializer)
            }
        }

        impl Record for $name {
            fn record() -> Vec<super::schema::Field> {
                vec![$(super::schema::Field::of::<$type>(stringify!($field), &[$($doc),+])),*]
            }
        }

        impl super::schema::Schema for $name {
            fn schema() -> serde_json::Value {
                super::schema::object(Self::record(), &[$($(($rule, $message)),*)?])
            }

            fn words() -> String {
                "object".to_owned()
            }

            fn fields() -> Vec<super::schema::Field> {
                Self::record()
            }

            fn newer(&self) -> Option<String> {
                let own = self.newer.0.as_deref().map(str::to_owned);
                own$(.or_else(|| super::schema::below(stringify!($field), &self.$field)))*
            }
        }
    )+};
}

macro_rules! texts {
    ($(#[doc = $doc:literal] $name:ident($least:literal, $most:literal, $pattern:literal);)+) => {$(
        #[doc = $doc]
        #[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl super::schema::Schema for $name {
            fn schema() -> serde_json::Value {
                serde_json::json!({"type": "string", "minLength": $least, "maxLength": $most, "pattern": $pattern})
            }

            fn words() -> String {
                "text".to_owned()
            }
        }
    )+};
}

macro_rules! choices {
    ($(#[doc = $doc:literal] $name:ident { $($choice:literal)+ })+) => {$(
        #[doc = $doc]
        #[derive(Clone, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub String);

        impl $name {
            /// The values.
            pub const ALL: &'static [&'static str] = &[$($choice),+];
        }

        impl super::schema::Schema for $name {
            fn schema() -> serde_json::Value {
                serde_json::json!({"type": "string", "enum": Self::ALL})
            }

            fn words() -> String {
                Self::ALL.iter().map(|choice| format!("`{choice}`")).collect::<Vec<_>>().join(", ")
            }
        }
    )+};
}

pub(super) use {choices, records, texts};

/// Whether a value is the one of a missing field.
pub(super) fn is_empty<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// A whole number within bounds.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Number<const LEAST: i64, const MOST: i64>(pub i64);

impl<const LEAST: i64, const MOST: i64> Number<LEAST, MOST> {
    /// The number, if it is within the bounds.
    pub fn within(self) -> Option<i64> {
        (LEAST..=MOST).contains(&self.0).then_some(self.0)
    }
}

impl<const LEAST: i64, const MOST: i64> Schema for Number<LEAST, MOST> {
    fn schema() -> Value {
        json!({"type": "integer", "format": "int64", "minimum": LEAST, "maximum": MOST})
    }

    fn words() -> String {
        format!("{LEAST} to {MOST}")
    }
}

/// A list with a number of entries within bounds.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Listed<T, const LEAST: usize, const MOST: usize>(pub Vec<T>);

impl<T, const LEAST: usize, const MOST: usize> Listed<T, LEAST, MOST> {
    /// Whether the number of entries is within the bounds.
    pub fn fits(&self) -> bool {
        (LEAST..=MOST).contains(&self.0.len())
    }
}

impl<T, const LEAST: usize, const MOST: usize> Default for Listed<T, LEAST, MOST> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T, const LEAST: usize, const MOST: usize> Deref for Listed<T, LEAST, MOST> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T: Schema, const LEAST: usize, const MOST: usize> Schema for Listed<T, LEAST, MOST> {
    const REQUIRED: bool = LEAST > 0;

    fn schema() -> Value {
        json!({
            "type": "array", "items": T::schema(), "minItems": LEAST, "maxItems": MOST,
            "x-kubernetes-list-type": "atomic",
        })
    }

    fn words() -> String {
        format!("list of {LEAST} to {MOST}: {}", T::words())
    }

    fn fields() -> Vec<Field> {
        T::fields()
    }

    fn newer(&self) -> Option<String> {
        self.0.iter().enumerate().find_map(|(at, one)| one.newer().map(|path| format!("[{at}].{path}")))
    }
}

impl<T: Schema> Schema for Option<T> {
    const REQUIRED: bool = false;

    fn schema() -> Value {
        T::schema()
    }

    fn words() -> String {
        T::words()
    }

    fn fields() -> Vec<Field> {
        T::fields()
    }

    fn newer(&self) -> Option<String> {
        self.as_ref().and_then(T::newer)
    }
}

impl Schema for bool {
    fn schema() -> Value {
        json!({"type": "boolean"})
    }

    fn words() -> String {
        "`true`, `false`".to_owned()
    }
}

/// The bounds of the spec of a RoutePolicy.
pub fn spec() -> Value {
    RoutePolicySpec::schema()
}

/// The bounds of the spec of a GatewayParameters.
pub fn parameters_spec() -> Value {
    GatewayParametersSpec::schema()
}

/// Whether a text has a pattern of the schema.
pub fn matches(pattern: &str, text: &str) -> bool {
    regex::Regex::new(pattern).is_ok_and(|pattern| pattern.is_match(text))
}

/// The CRD of RoutePolicy, as the API server takes it.
pub fn crd() -> Value {
    let text = |most: u32| json!({"type": "string", "minLength": 1, "maxLength": most});
    let optional = |most: u32| json!({"type": "string", "maxLength": most});
    let condition = json!({
        "type": "object",
        "required": ["type", "status", "reason", "message", "lastTransitionTime"],
        "properties": {
            "type": text(316), "status": {"type": "string", "enum": ["True", "False", "Unknown"]}, "reason": text(1024),
            "message": optional(32_768), "observedGeneration": {"type": "integer", "format": "int64", "minimum": 0},
            "lastTransitionTime": {"type": "string", "format": "date-time"},
        },
    });
    let ancestor = json!({
        "type": "object",
        "required": ["ancestorRef", "controllerName"],
        "properties": {
            "ancestorRef": {
                "type": "object",
                "required": ["name"],
                "properties": {
                    "group": optional(253), "kind": optional(63), "namespace": optional(63), "name": text(253),
                    "sectionName": optional(253), "port": {"type": "integer", "format": "int32"},
                },
            },
            "controllerName": text(253),
            "conditions": {
                "type": "array", "maxItems": 8, "items": condition,
                "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"],
            },
        },
    });
    let status = json!({
        "type": "object",
        "properties": {
            "ancestors": {
                "type": "array", "maxItems": 16, "items": ancestor, "x-kubernetes-list-type": "atomic",
                "description": "What the policy comes to at each Gateway through which its targets are reached.",
            },
        },
    });
    let mut crd = definition("RoutePolicy", "routepolicies", RoutePolicySpec::schema());
    // Policies restrict access: they must not go with a release of the chart.
    crd["metadata"]["annotations"] = json!({"helm.sh/resource-policy": "keep"});
    crd["metadata"]["labels"] = json!({"gateway.networking.k8s.io/policy": "Inherited"});
    let version = &mut crd["spec"]["versions"][0];
    version["subresources"] = json!({"status": {}});
    let targets = json!({"name": "Targets", "type": "string", "jsonPath": ".spec.targetRefs[*].name"});
    if let Some(columns) = version["additionalPrinterColumns"].as_array_mut() {
        columns.insert(0, targets);
    }
    version["schema"]["openAPIV3Schema"]["properties"]["status"] = status;
    crd
}

/// The CRD of GatewayParameters.
pub fn parameters_crd() -> Value {
    let mut crd = definition("GatewayParameters", "gatewayparameters", GatewayParametersSpec::schema());
    // A Gateway whose parameters are gone is not served.
    crd["metadata"]["annotations"] = json!({"helm.sh/resource-policy": "keep"});
    crd
}

/// The CRD of a kind of ours, without a status.
fn definition(kind: &str, plural: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{}", super::api::GROUP)},
        "spec": {
            "group": super::api::GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": kind, "listKind": format!("{kind}List"), "plural": plural, "singular": kind.to_lowercase(),
                "categories": ["gateway-api"],
            },
            "versions": [{
                "name": "v1alpha1",
                "served": true,
                "storage": true,
                "additionalPrinterColumns": [
                    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
                ],
                "schema": {"openAPIV3Schema": {
                    "type": "object",
                    "required": ["spec"],
                    "properties": {
                        "apiVersion": {"type": "string"},
                        "kind": {"type": "string"},
                        "metadata": {"type": "object"},
                        "spec": spec,
                    },
                }},
            }],
        },
    })
}

/// A CRD as YAML.
pub fn crd_yaml(crd: &Value) -> String {
    let mut out = "# Generated by `cargo xtask gen`.\n".to_owned();
    out.push_str(&yaml(crd));
    out
}

/// A value as YAML: block style, with every text in quotes, as JSON has them.
pub fn yaml(value: &Value) -> String {
    let mut out = String::new();
    write_yaml(value, 0, &mut out);
    out
}

fn write_yaml(value: &Value, indent: usize, out: &mut String) {
    let pad = "  ".repeat(indent);
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let _ = write!(out, "{pad}{name}:");
                nested(value, indent + 1, out);
            }
        }
        Value::Array(items) => {
            for item in items {
                let mut text = String::new();
                match item {
                    Value::Object(_) | Value::Array(_) => write_yaml(item, indent + 1, &mut text),
                    scalar => {
                        let _ = writeln!(text, "{pad}  {scalar}");
                    }
                }
                // The first line begins with the dash.
                let _ = write!(out, "{pad}- {}", text.get(pad.len() + 2..).unwrap_or_default());
            }
        }
        scalar => {
            let _ = writeln!(out, "{pad}{scalar}");
        }
    }
}

fn nested(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(fields) if fields.is_empty() => out.push_str(" {}\n"),
        Value::Array(items) if items.is_empty() => out.push_str(" []\n"),
        Value::Object(_) | Value::Array(_) => {
            out.push('\n');
            write_yaml(value, indent, out);
        }
        scalar => {
            let _ = writeln!(out, " {scalar}");
        }
    }
}

/// The table of all fields, for the docs.
pub fn fields_markdown() -> String {
    let mut out = "| field | value | meaning |\n| --- | --- | --- |\n".to_owned();
    rows(&RoutePolicySpec::record(), "", &mut out);
    out
}

fn rows(fields: &[Field], path: &str, out: &mut String) {
    for field in fields {
        let name = format!("{path}{}", field.name);
        let required = if field.required { ", required" } else { "" };
        let _ = writeln!(out, "| `{name}` | {}{required} | {} |", field.words, field.doc.replace('|', "\\|"));
        let is_list = field.schema["type"] == "array";
        rows(&field.fields, &format!("{name}{}.", if is_list { "[]" } else { "" }), out);
    }
}
