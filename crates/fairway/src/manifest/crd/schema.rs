//! The schema of a CRD: what the API server demands of a value, and which defaults it fills in.
//!
//! The bounds of single values are checked first and then, unless a violation makes that impossible, the rules between fields: in the same
//! order and with the same messages as in the API server.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use regex::Regex;
use serde_json::{Map, Value};

use super::super::refusal::Refusals;
use super::cel::Expression;

/// The schema of a value.
#[derive(Debug, Default)]
pub(super) struct Schema {
    kind: Kind,
    required: Vec<String>,
    fields: BTreeMap<String, Arc<Self>>,
    /// Of a list's items.
    items: Option<Arc<Self>>,
    /// Of the values of a map with arbitrary keys.
    values: Option<Arc<Self>>,
    choices: Vec<Value>,
    pattern: Option<Regex>,
    format: Option<Format>,
    /// Of a text, in characters.
    length: Interval,
    number: Interval,
    /// Of the items of a list.
    count: Interval,
    /// Of the entries of a map.
    size: Interval,
    default: Option<Value>,
    unique: Unique,
    rules: Vec<Rule>,
    one_of: Vec<Self>,
    any_of: Vec<Self>,
    not: Option<Box<Self>>,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Kind {
    #[default]
    Any,
    Object,
    Array,
    Text,
    Integer,
    Bool,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Format {
    Ipv4,
    Ipv6,
    Int32,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
struct Interval {
    least: Option<i64>,
    most: Option<i64>,
}

/// What must be unique among the items of a list.
#[derive(Debug, Default)]
enum Unique {
    #[default]
    Nothing,
    Items,
    /// The combination of these fields.
    Keys(Vec<String>),
}

#[derive(Debug)]
struct Rule {
    expression: Expression,
    message: String,
}

/// A schema that isn't supported, which would leave something unchecked.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unknown(pub(super) String);

/// Compiles schemas. A schema that several others refer to is compiled once.
pub(super) struct Compiler<'a> {
    definitions: &'a Map<String, Value>,
    made: BTreeMap<String, Arc<Schema>>,
}

impl<'a> Compiler<'a> {
    pub(super) fn new(definitions: &'a Map<String, Value>) -> Self {
        Self { definitions, made: BTreeMap::new() }
    }

    pub(super) fn schema(&mut self, from: &Value) -> Result<Arc<Schema>, Unknown> {
        let Some(name) = from["$ref"].as_str() else { return Ok(Arc::new(self.make(from)?)) };
        if let Some(made) = self.made.get(name) {
            return Ok(made.clone());
        }
        let from = self.definitions.get(name).ok_or_else(|| Unknown(format!("no definition {name}")))?;
        let made = Arc::new(self.make(from)?);
        self.made.insert(name.to_owned(), made.clone());
        Ok(made)
    }

    fn make(&mut self, from: &Value) -> Result<Schema, Unknown> {
        let mut schema = Schema::default();
        for (key, value) in from.as_object().ok_or_else(|| Unknown("expected a schema".to_owned()))? {
            self.member(key, value, &mut schema)?;
        }
        Ok(schema)
    }

    fn member(&mut self, key: &str, value: &Value, schema: &mut Schema) -> Result<(), Unknown> {
        let text = || value.as_str().ok_or_else(|| Unknown(format!("{key} is no text")));
        let texts = || value.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect();
        match key {
            "type" => {
                schema.kind = match text()? {
                    "object" => Kind::Object,
                    "array" => Kind::Array,
                    "string" => Kind::Text,
                    "integer" => Kind::Integer,
                    "boolean" => Kind::Bool,
                    other => return Err(Unknown(format!("no type {other} is known"))),
                }
            }
            "required" => schema.required = texts(),
            "properties" => {
                for (name, field) in value.as_object().into_iter().flatten() {
                    schema.fields.insert(name.clone(), self.schema(field)?);
                }
            }
            "items" => schema.items = Some(self.schema(value)?),
            "additionalProperties" => schema.values = Some(self.schema(value)?),
            "enum" => schema.choices = value.as_array().cloned().unwrap_or_default(),
            "pattern" => schema.pattern = Some(Regex::new(text()?).map_err(|error| Unknown(error.to_string()))?),
            "format" => {
                schema.format = match text()? {
                    "ipv4" => Some(Format::Ipv4),
                    "ipv6" => Some(Format::Ipv6),
                    "int32" => Some(Format::Int32),
                    "int64" => None,
                    other => return Err(Unknown(format!("no format {other} is known"))),
                }
            }
            "minLength" => schema.length.least = value.as_i64(),
            "maxLength" => schema.length.most = value.as_i64(),
            "minimum" => schema.number.least = value.as_i64(),
            "maximum" => schema.number.most = value.as_i64(),
            "minItems" => schema.count.least = value.as_i64(),
            "maxItems" => schema.count.most = value.as_i64(),
            "minProperties" => schema.size.least = value.as_i64(),
            "maxProperties" => schema.size.most = value.as_i64(),
            "default" => schema.default = Some(value.clone()),
            "x-kubernetes-list-type" => match text()? {
                "atomic" | "map" => {}
                "set" => schema.unique = Unique::Items,
                other => return Err(Unknown(format!("no list of type {other} is known"))),
            },
            "x-kubernetes-list-map-keys" => schema.unique = Unique::Keys(texts()),
            "x-kubernetes-validations" => {
                for rule in value.as_array().into_iter().flatten() {
                    let (Some(text), Some(message)) = (rule["rule"].as_str(), rule["message"].as_str()) else {
                        return Err(Unknown(format!("no rule and message in {rule}")));
                    };
                    let expression: Expression = text.parse().map_err(|error| Unknown(format!("{text}: {error}")))?;
                    // Objects from files are always new.
                    if !expression.is_about_changes() {
                        schema.rules.push(Rule { expression, message: message.to_owned() });
                    }
                }
            }
            "oneOf" | "anyOf" => {
                let of = if key == "oneOf" { &mut schema.one_of } else { &mut schema.any_of };
                for one in value.as_array().into_iter().flatten() {
                    of.push(self.make(one)?);
                }
            }
            "not" => schema.not = Some(Box::new(self.make(value)?)),
            // Documentation, and hints for merging.
            "description" | "x-kubernetes-map-type" => {}
            other => return Err(Unknown(format!("no member {other} of a schema is known"))),
        }
        Ok(())
    }
}

/// The path of a value.
#[derive(Clone, Copy)]
pub(super) enum FieldPath<'p> {
    Root,
    Field(&'p Self, &'p str),
    Item(&'p Self, usize),
}

impl fmt::Display for FieldPath<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Field(FieldPath::Root, name) => f.write_str(name),
            Self::Field(outer, name) if name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') => {
                write!(f, "{outer}.{name}")
            }
            Self::Field(outer, name) => write!(f, "{outer}[\"{name}\"]"),
            Self::Item(outer, at) => write!(f, "{outer}[{at}]"),
        }
    }
}

impl Schema {
    /// Fills in the defaults, also for fields that are null.
    pub(super) fn fill(&self, value: &mut Value) {
        match value {
            Value::Object(fields) => {
                for (name, schema) in &self.fields {
                    if let Some(default) = &schema.default
                        && fields.get(name).is_none_or(Value::is_null)
                    {
                        fields.insert(name.clone(), default.clone());
                    }
                }
                for (name, value) in fields {
                    if let Some(schema) = self.fields.get(name).or(self.values.as_ref()) {
                        schema.fill(value);
                    }
                }
            }
            Value::Array(items) => {
                if let Some(schema) = &self.items {
                    items.iter_mut().for_each(|item| schema.fill(item));
                }
            }
            _ => {}
        }
    }

    /// Collects the reasons to refuse a value, which has its defaults already.
    pub(super) fn check(&self, value: &Value, found: &mut Refusals) {
        let mut blocked = false;
        self.bounds(value, FieldPath::Root, &mut blocked, found);
        if !blocked {
            self.rules(value, FieldPath::Root, found);
        }
    }

    /// The fields of a value that the other schema has and this one lacks: the API server drops them.
    pub(super) fn strangers(&self, other: &Self, value: &Value, at: FieldPath<'_>, found: &mut Vec<String>) {
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    let at = FieldPath::Field(&at, name);
                    match (self.fields.get(name), other.fields.get(name)) {
                        (None, Some(_)) if self.values.is_none() => found.push(at.to_string()),
                        (Some(own), Some(theirs)) => own.strangers(theirs, value, at, found),
                        _ => {}
                    }
                }
            }
            Value::Array(items) => {
                if let (Some(own), Some(theirs)) = (&self.items, &other.items) {
                    for (index, item) in items.iter().enumerate() {
                        own.strangers(theirs, item, FieldPath::Item(&at, index), found);
                    }
                }
            }
            _ => {}
        }
    }

    /// Checks the bounds of single values. Sets `blocked` if a violation prevents the evaluation of rules.
    fn bounds(&self, value: &Value, at: FieldPath<'_>, blocked: &mut bool, found: &mut Refusals) {
        if let Some(expected) = self.kind.misses(value) {
            *blocked = true;
            let message = format!("{at} in body must be of type {expected}");
            return found.invalid(format_args!("{at}"), &shown(value), &message);
        }
        if !self.choices.is_empty() && !self.choices.contains(value) {
            *blocked = true;
            let known: Vec<String> = self.choices.iter().map(shown).collect();
            let known: Vec<&str> = known.iter().map(String::as_str).collect();
            found.unsupported(format_args!("{at}"), &shown(value), &known);
        }
        match value {
            Value::String(text) => self.text(text, at, blocked, found),
            Value::Number(number) => {
                let number = number.as_i64().unwrap_or(i64::MAX);
                let mut wrong = |message: &str| {
                    let message = format!("{at} in body {message}");
                    found.invalid(format_args!("{at}"), &number.to_string(), &message);
                };
                if let Some(least) = self.number.least.filter(|least| number < *least) {
                    wrong(&format!("should be greater than or equal to {least}"));
                }
                if let Some(most) = self.number.most.filter(|most| number > *most) {
                    wrong(&format!("should be less than or equal to {most}"));
                }
                if self.format == Some(Format::Int32) && i32::try_from(number).is_err() {
                    wrong("must be a number of 32 bits");
                }
            }
            Value::Array(items) => self.list(items, at, blocked, found),
            Value::Object(fields) => self.object(fields, at, blocked, found),
            Value::Null | Value::Bool(_) => {}
        }
        self.combined(value, at, found);
    }

    /// Reports a text's first violation, and its format.
    fn text(&self, text: &str, at: FieldPath<'_>, blocked: &mut bool, found: &mut Refusals) {
        let length = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
        if let Some(most) = self.length.most.filter(|most| length > *most) {
            *blocked = true;
            found.add(format_args!("{at}"), text, format!("Too long: may not be more than {most} bytes"));
        } else if let Some(least) = self.length.least.filter(|least| length < *least) {
            found.invalid(format_args!("{at}"), text, &format!("{at} in body should be at least {least} chars long"));
        } else if let Some(pattern) = self.pattern.as_ref().filter(|pattern| !pattern.is_match(text)) {
            let lower = text.to_ascii_lowercase();
            let hint = if pattern.is_match(&lower) { format!(": write {lower}") } else { String::new() };
            let message = format!("{at} in body should match '{}'{hint}", pattern.as_str());
            found.invalid(format_args!("{at}"), text, &message);
        }
        let wrong = match self.format {
            Some(Format::Ipv4) => text.parse::<Ipv4Addr>().is_err().then_some("ipv4"),
            Some(Format::Ipv6) => text.parse::<Ipv6Addr>().is_err().then_some("ipv6"),
            Some(Format::Int32) | None => None,
        };
        if let Some(kind) = wrong {
            found.invalid(format_args!("{at}"), text, &format!("{at} in body must be of type {kind}: \"{text}\""));
        }
    }

    fn list(&self, items: &[Value], at: FieldPath<'_>, blocked: &mut bool, found: &mut Refusals) {
        let count = i64::try_from(items.len()).unwrap_or(i64::MAX);
        if let Some(most) = self.count.most.filter(|most| count > *most) {
            *blocked = true;
            found.too_many(format_args!("{at}"), items.len(), usize::try_from(most).unwrap_or_default());
        }
        if let Some(least) = self.count.least.filter(|least| count < *least) {
            let message = format!("{at} in body should have at least {least} items");
            found.invalid(format_args!("{at}"), &count.to_string(), &message);
        }
        if let Some(schema) = &self.items {
            for (index, item) in items.iter().enumerate() {
                schema.bounds(item, FieldPath::Item(&at, index), blocked, found);
            }
        }
        let key = |item: &Value| match &self.unique {
            Unique::Nothing => None,
            Unique::Items => Some(vec![item.clone()]),
            Unique::Keys(keys) => Some(keys.iter().map(|key| item[key].clone()).collect()),
        };
        let mut seen: Vec<Vec<Value>> = Vec::new();
        // Beyond this number of items, no further ones are compared.
        for (index, item) in items.iter().enumerate().take(1024) {
            let Some(key) = key(item) else { break };
            if seen.contains(&key) {
                let mut text = String::new();
                for part in &key {
                    let comma = if text.is_empty() { "" } else { ", " };
                    let _ = write!(text, "{comma}{}", shown(part));
                }
                found.duplicate(format_args!("{at}[{index}]"), &text);
            }
            seen.push(key);
        }
    }

    fn object(&self, fields: &Map<String, Value>, at: FieldPath<'_>, blocked: &mut bool, found: &mut Refusals) {
        for name in self.required.iter().filter(|name| !fields.contains_key(*name)) {
            *blocked = true;
            found.required(format_args!("{}", FieldPath::Field(&at, name)), "");
        }
        let size = i64::try_from(fields.len()).unwrap_or(i64::MAX);
        if let Some(most) = self.size.most.filter(|most| size > *most) {
            *blocked = true;
            found.too_many(format_args!("{at}"), fields.len(), usize::try_from(most).unwrap_or_default());
        }
        if let Some(least) = self.size.least.filter(|least| size < *least) {
            let message = format!("{at} in body should have at least {least} properties");
            found.invalid(format_args!("{at}"), "", &message);
        }
        for (name, value) in fields {
            if let Some(schema) = self.fields.get(name).or(self.values.as_ref()) {
                schema.bounds(value, FieldPath::Field(&at, name), blocked, found);
            }
        }
    }

    fn combined(&self, value: &Value, at: FieldPath<'_>, found: &mut Refusals) {
        let takes = |schema: &Self| schema.takes(value);
        for alternatives in [&self.one_of, &self.any_of] {
            if let Some(first) = alternatives.first()
                && !alternatives.iter().any(takes)
            {
                // The API server also reports that no alternative matches.
                first.bounds(value, at, &mut false, found);
            }
        }
        if self.one_of.iter().filter(|schema| takes(schema)).count() > 1 {
            let message = format!("\"{at}\" must validate one and only one schema (oneOf). Found 2 valid alternatives");
            found.invalid(format_args!("{at}"), &shown(value), &message);
        }
        if self.not.as_ref().is_some_and(|schema| takes(schema)) {
            let message = format!("\"{at}\" must not validate the schema (not)");
            found.invalid(format_args!("{at}"), &shown(value), &message);
        }
    }

    fn takes(&self, value: &Value) -> bool {
        let mut found = Refusals::default();
        self.bounds(value, FieldPath::Root, &mut false, &mut found);
        found.is_empty()
    }

    /// Checks the rules between fields, from the outside to the inside.
    fn rules(&self, value: &Value, at: FieldPath<'_>, found: &mut Refusals) {
        for Rule { expression, message } in &self.rules {
            let message = match expression.holds(value) {
                Ok(true) => continue,
                Ok(false) => message.clone(),
                Err(failure) => format!("{failure} evaluating rule: {message}"),
            };
            found.invalid(format_args!("{at}"), &shown(value), &message);
        }
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    if let Some(schema) = self.fields.get(name).or(self.values.as_ref()) {
                        schema.rules(value, FieldPath::Field(&at, name), found);
                    }
                }
            }
            Value::Array(items) => {
                if let Some(schema) = &self.items {
                    for (index, item) in items.iter().enumerate() {
                        schema.rules(item, FieldPath::Item(&at, index), found);
                    }
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
impl Schema {
    /// Calls a function with the message of each rule.
    pub(super) fn each_message(&self, found: &mut impl FnMut(&str)) {
        self.rules.iter().for_each(|rule| found(&rule.message));
        for schema in self.fields.values().chain(&self.items).chain(&self.values) {
            schema.each_message(found);
        }
    }
}

impl Kind {
    /// The name of the type, if the value has another type.
    fn misses(self, value: &Value) -> Option<&'static str> {
        let (fits, name) = match self {
            Self::Any => return None,
            Self::Object => (value.is_object(), "object"),
            Self::Array => (value.is_array(), "array"),
            Self::Text => (value.is_string(), "string"),
            Self::Integer => (value.is_i64(), "integer"),
            Self::Bool => (value.is_boolean(), "boolean"),
        };
        (!fits).then_some(name)
    }
}

/// A value as messages show it: a scalar is shown itself.
fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => "null".to_owned(),
        Value::Number(_) | Value::Bool(_) => value.to_string(),
        Value::Array(_) | Value::Object(_) => String::new(),
    }
}
