//! The values of the ingress-nginx chart and how each is handled.

use anyhow::{Context, ensure};
use serde_json::Value as Json;

/// The reference list that users' values files were written for.
const REFERENCE: &str = include_str!("reference.tsv");

/// Our verdict on each value in the list, on those missing from it because they have no default, and on our own values.
const VERDICTS: &str = include_str!("verdicts.tsv");

/// Maps at the start of a name whose keys are the user's, dots included.
const KEYED: &[&str] = &["nodeSelector"];

/// One value.
#[derive(Debug)]
pub(crate) struct Value {
    pub(crate) name: &'static str,
    /// The default in the ingress-nginx chart; `None` if there is none.
    pub(crate) default: Option<Json>,
    pub(crate) verdict: Verdict,
    /// The difference, the reason why it doesn't matter, or what to use instead. May be empty.
    pub(crate) note: &'static str,
    /// A value other than the default, of the same kind.
    pub(crate) sample: Json,
}

/// How a value is handled.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// It means the same as in the ingress-nginx chart.
    Honoured,
    /// Without effect, and nothing is lost.
    Harmless,
    /// Without effect, and the user must know.
    NotHonoured,
}

impl Verdict {
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Honoured => "honoured",
            Self::Harmless => "harmless",
            Self::NotHonoured => "not honoured",
        }
    }
}

impl Value {
    /// The path of keys to the value.
    pub(crate) fn keys(&self) -> Vec<&'static str> {
        keys(self.name)
    }

    /// A values file that sets this one to something other than its default.
    pub(crate) fn changed(&self) -> Json {
        self.set_to(self.sample.clone())
    }

    /// A values file with this value.
    pub(crate) fn set_to(&self, value: Json) -> Json {
        self.keys()
            .iter()
            .rev()
            .fold(value, |inner, key| Json::Object([((*key).to_owned(), inner)].into_iter().collect()))
    }
}

/// All values, those of the list in its order.
pub(crate) fn read() -> anyhow::Result<Vec<Value>> {
    let defaults: Vec<(&str, Json)> = rows(REFERENCE)
        .map(|row| {
            let (name, default) = row.split_once('\t').with_context(|| format!("{row}: no default"))?;
            Ok((name, serde_json::from_str(default).with_context(|| row.to_owned())?))
        })
        .collect::<anyhow::Result<_>>()?;
    let mut values = Vec::new();
    for row in rows(VERDICTS) {
        let mut columns = row.split('\t');
        let name = columns.next().unwrap_or_default();
        let verdict = [Verdict::Honoured, Verdict::Harmless, Verdict::NotHonoured];
        let word = columns.next().unwrap_or_default();
        let verdict =
            verdict.into_iter().find(|verdict| verdict.label() == word).with_context(|| format!("{name}: {word}?"))?;
        let note = columns.next().unwrap_or_default();
        ensure!(verdict == Verdict::Honoured || !note.is_empty(), "{name}: has no effect, and the note is missing");
        let default = defaults.iter().find(|(known, _)| *known == name).map(|(_, default)| default.clone());
        let sample = match columns.next() {
            Some(text) => serde_json::from_str(text).with_context(|| format!("{name}: sample"))?,
            None => made_up(default.as_ref()),
        };
        values.push(Value { name, default, verdict, note, sample });
    }
    Ok(values)
}

fn rows(text: &'static str) -> impl Iterator<Item = &'static str> {
    text.lines().filter(|line| !line.starts_with('#'))
}

/// A value other than the default.
fn made_up(default: Option<&Json>) -> Json {
    match default {
        Some(Json::Bool(on)) => Json::Bool(!on),
        Some(Json::Number(number)) => Json::from(number.as_i64().unwrap_or_default() + 1),
        Some(Json::Array(_)) => serde_json::json!(["sample"]),
        Some(Json::Object(_)) => serde_json::json!({"sample": "sample"}),
        _ => Json::from("sample"),
    }
}

fn keys(name: &'static str) -> Vec<&'static str> {
    for map in KEYED {
        if let Some((before, key)) = name.split_once(&format!(".{map}.")) {
            return before.split('.').chain([*map, key]).collect();
        }
    }
    name.split('.').collect()
}

/// Merges the map `over` into the map `under`, as helm does with values files.
pub(crate) fn merge(under: &mut Json, over: Json) {
    match (under, over) {
        (Json::Object(under), Json::Object(over)) => {
            for (key, value) in over {
                merge(under.entry(key).or_insert(Json::Null), value);
            }
        }
        (under, over) => *under = over,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_value_of_the_list_has_one_verdict() {
        let values = read().unwrap();
        let names: BTreeSet<_> = values.iter().map(|value| value.name).collect();
        assert_eq!(names.len(), values.len(), "a value has two verdicts");
        let list: BTreeSet<_> = rows(REFERENCE).filter_map(|row| Some(row.split_once('\t')?.0)).collect();
        assert_eq!(list.len(), 345);
        assert_eq!(list.difference(&names).collect::<Vec<_>>(), Vec::<&&str>::new());
        let honoured = values.iter().filter(|value| value.default.is_some() && value.verdict == Verdict::Honoured);
        assert!(honoured.count() > 260, "most of them keep their meaning");
    }

    #[test]
    fn samples_differ_from_defaults() {
        for value in read().unwrap() {
            assert_ne!(Some(&value.sample), value.default.as_ref(), "{}", value.name);
        }
    }

    /// Implementing a flag also requires updating its value in this table.
    #[test]
    fn values_that_are_flags_have_the_verdict_of_the_flag() {
        let flags = include_str!("../../../docs/flags.md");
        let values = read().unwrap();
        for (name, flag) in [
            ("controller.enableAnnotationValidations", "--enable-annotation-validation"),
            ("controller.enableTopologyAwareRouting", "--enable-topology-aware-routing"),
            ("controller.maxmindLicenseKey", "--maxmind-license-key VALUE"),
            ("controller.electionTTL", "--election-ttl DURATION"),
            ("tcp", "--tcp-services-configmap NAMESPACE/NAME"),
            ("udp", "--udp-services-configmap NAMESPACE/NAME"),
        ] {
            let line = flags.lines().find(|line| line.starts_with(&format!("| `{flag}` |"))).expect(flag);
            let works = line.contains("**same**") || line.contains("**differs**");
            let value = values.iter().find(|value| value.name == name).expect(name);
            assert_eq!(value.verdict == Verdict::Honoured, works, "{name}: {line}");
        }
    }

    #[test]
    fn keys_of_users_may_have_dots() {
        assert_eq!(
            keys("controller.nodeSelector.kubernetes.io/os"),
            ["controller", "nodeSelector", "kubernetes.io/os"]
        );
        assert_eq!(keys("a.b"), ["a", "b"]);
    }

    #[test]
    fn maps_are_merged_and_all_else_is_replaced() {
        let mut under = serde_json::json!({"a": {"b": 1, "c": [1]}});
        merge(&mut under, serde_json::json!({"a": {"c": [2], "d": null}}));
        assert_eq!(under, serde_json::json!({"a": {"b": 1, "c": [2], "d": null}}));
    }
}
