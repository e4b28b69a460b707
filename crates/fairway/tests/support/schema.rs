//! The part of JSON Schema that our schemas use; an unknown keyword fails, so none is ignored.

use serde_json::{Map, Value};

/// Checks a value; the error names the location and the expectation.
pub(crate) fn validate(schema: &Value, value: &Value) -> Result<(), String> {
    Validator { root: schema }.check(schema, value, "$")
}

struct Validator<'a> {
    root: &'a Value,
}

impl Validator<'_> {
    fn check(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        let keywords = schema.as_object().ok_or_else(|| format!("{at}: its schema is no object"))?;
        for (keyword, expected) in keywords {
            self.keyword(keyword, expected, keywords, value, at)?;
        }
        Ok(())
    }

    fn keyword(
        &self,
        keyword: &str,
        expected: &Value,
        schema: &Map<String, Value>,
        value: &Value,
        at: &str,
    ) -> Result<(), String> {
        match keyword {
            "$schema" | "$id" | "$defs" | "title" | "description" => Ok(()),
            "$ref" => {
                let pointer = expected.as_str().and_then(|text| text.strip_prefix('#')).unwrap_or_default();
                let target = self.root.pointer(pointer).ok_or_else(|| format!("{at}: {expected} leads nowhere"))?;
                self.check(target, value, at)
            }
            "type" => {
                let types = expected.as_array().map_or(std::slice::from_ref(expected), Vec::as_slice);
                let fits = types.iter().any(|expected| is(value, expected.as_str().unwrap_or_default()));
                if fits { Ok(()) } else { Err(format!("{at}: expected {expected}, found {value}")) }
            }
            "enum" => match expected.as_array() {
                Some(choices) if choices.contains(value) => Ok(()),
                _ => Err(format!("{at}: expected one of {expected}, found {value}")),
            },
            "minimum" if value.as_f64().is_some_and(|value| Some(value) < expected.as_f64()) => {
                Err(format!("{at}: {value} is below {expected}"))
            }
            "minimum" => Ok(()),
            "items" => value
                .as_array()
                .into_iter()
                .flatten()
                .enumerate()
                .try_for_each(|(index, item)| self.check(expected, item, &format!("{at}[{index}]"))),
            "properties" => value.as_object().into_iter().flatten().try_for_each(|(name, value)| {
                let schema = expected.get(name);
                schema.map_or(Ok(()), |schema| self.check(schema, value, &format!("{at}.{name}")))
            }),
            "required" => expected.as_array().into_iter().flatten().filter_map(Value::as_str).try_for_each(|name| {
                let there = value.as_object().is_none_or(|object| object.contains_key(name));
                if there { Ok(()) } else { Err(format!("{at}: {name} is missing")) }
            }),
            "additionalProperties" if expected == &Value::Bool(false) => {
                let known = schema.get("properties");
                value.as_object().into_iter().flatten().try_for_each(|(name, _)| {
                    let fits = known.is_some_and(|known| known.get(name).is_some());
                    if fits { Ok(()) } else { Err(format!("{at}: {name} is not described")) }
                })
            }
            other => Err(format!("{at}: the keyword {other} is not understood")),
        }
    }
}

fn is(value: &Value, kind: &str) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        _ => false,
    }
}
