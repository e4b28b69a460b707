//! Generates the texts that users read about the chart's values.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use serde_json::{Map, Value as Json, json};

use super::names::Name;
use super::schema::is_open;
use super::table::{Value, Verdict};

const HEAD: &str = "\
# Values of the chart

Generated from the table `xtask/src/chart/verdicts.tsv` by `cargo xtask gen`.

A values file that was written for the ingress-nginx chart (4.15.1) is a values file for `deploy/helm/fairway`. Each value has a
verdict: **honoured** means the same as there, **harmless** has no effect and loses nothing, **not honoured** has no effect and is
named after an installation that sets it. So is a name that is not in the table, with the name that it may be meant for; it has no
effect, as in that chart. A flag in `controller.extraArgs` that doesn't exist is refused, and so is a value of a wrong type.

";

/// `docs/chart-values.md`.
pub(crate) fn page(values: &[Value]) -> String {
    let mut page = HEAD.to_owned();
    for verdict in [Verdict::Honoured, Verdict::Harmless, Verdict::NotHonoured] {
        let listed = values.iter().filter(|value| value.default.is_some() && value.verdict == verdict).count();
        _ = writeln!(page, "- {}: {listed} of the chart's 345 values", verdict.label());
    }
    page.push_str("\n| value | default there | verdict |\n| --- | --- | --- |\n");
    for value in values {
        let default = match &value.default {
            Some(Json::String(text)) if text.is_empty() => "\"\"".to_owned(),
            Some(Json::String(text)) => format!("`{text}`"),
            Some(other) => format!("`{other}`"),
            None => "none".to_owned(),
        };
        let note = if value.note.is_empty() { String::new() } else { format!(". {}", sentence(value.note)) };
        _ = writeln!(page, "| `{}` | {default} | **{}**{note} |", value.name, value.verdict.label());
    }
    page
}

/// Data that the chart reads to warn about settings without effect: values, flags in `extraArgs`, keys in `config`.
///
/// Flags and keys are text and compared as text; an empty key sets nothing.
pub(crate) fn not_honoured(values: &[Value], flags: &[Name], keys: &[Name]) -> Json {
    let of_value = |value: &Value| {
        let entry = json!({"keys": value.keys(), "default": value.default, "note": sentence(value.note)});
        (value.name.to_owned(), entry)
    };
    let of_name = |map: &str, name: &Name| {
        // Asking for a default that isn't implemented has no effect.
        let default = if name.name == "use-http2" { "false" } else { &name.default };
        let note = format!("{}.", name.note.trim_end_matches('.'));
        let entry =
            json!({"keys": ["controller", map, name.name], "text": default, "switch": name.is_switch(), "note": note});
        (format!("controller.{map}.{}", name.name), entry)
    };
    let mut entries: Map<_, _> =
        values.iter().filter(|value| value.verdict == Verdict::NotHonoured).map(of_value).collect();
    entries.extend(flags.iter().filter(|name| name.is_in_vain()).map(|name| of_name("extraArgs", name)));
    entries.extend(keys.iter().filter(|name| name.is_in_vain()).map(|name| of_name("config", name)));
    Json::Object(entries)
}

/// Data that the chart reads to report unknown names: all names as a tree, in which `{}` marks a subtree that isn't
/// checked, and for each word the name it probably stands for.
pub(crate) fn names(values: &[Value], keys: &[Name]) -> Json {
    let mut known = json!({"enabled": {}});
    let mut named: BTreeMap<String, BTreeSet<(usize, String)>> = BTreeMap::new();
    for value in values {
        let path = value.keys();
        let closed = path.iter().scan(String::new(), |map, key| {
            let inside = !map.is_empty() && is_open(map);
            *map = if map.is_empty() { (*key).to_owned() } else { format!("{map}.{key}") };
            Some((!inside).then_some(*key))
        });
        let mut at = &mut known;
        for key in closed.flatten() {
            at = at.as_object_mut().expect("a tree").entry(key).or_insert_with(|| json!({}));
        }
        for depth in 1..=path.len() {
            named.entry(word(path[depth - 1])).or_default().insert((depth, path[..depth].join(".")));
        }
    }
    // Of several names, the one nearest to the root; of those, the controller's.
    let nearest = |names: &BTreeSet<(usize, String)>| -> Option<String> {
        let depth = names.first()?.0;
        let names: Vec<&String> = names.iter().filter(|(other, _)| *other == depth).map(|(_, name)| name).collect();
        let of_controller = names.iter().find(|name| name.starts_with("controller."));
        of_controller.or_else(|| names.first().filter(|_| names.len() == 1)).map(|name| (*name).clone())
    };
    let mut likely: Map<String, Json> =
        named.iter().filter_map(|(word, names)| Some((word.clone(), json!(nearest(names)?)))).collect();
    for key in keys {
        likely.entry(word(&key.name)).or_insert_with(|| json!(format!("controller.config.{}", key.name)));
    }
    likely.extend(OTHER_WORDS.iter().map(|(other, name)| ((*other).to_owned(), json!(name))));
    json!({"known": known, "likely": likely})
}

/// Words that users write in published values files, and their meaning.
const OTHER_WORDS: &[(&str, &str)] = &[
    ("replicas", "controller.replicaCount"),
    ("replica", "controller.replicaCount"),
    ("stats", "controller.metrics"),
    ("env", "controller.extraEnvs"),
    ("args", "controller.extraArgs"),
    ("whitelistsourcerange", "controller.config.whitelist-source-range"),
];

/// A name without the parts that users omit or add.
fn word(name: &str) -> String {
    name.to_lowercase().replace(['-', '_'], "")
}

fn sentence(text: &str) -> String {
    // Names start with a lower-case letter, whatever precedes them.
    let name = text.split(' ').next().is_some_and(|word| word.starts_with('`'));
    let mut chars = text.chars();
    let first = chars.next().map(|first| if name { first.to_string() } else { first.to_uppercase().to_string() });
    format!("{}{}{}", first.unwrap_or_default(), chars.as_str(), if text.ends_with('.') { "" } else { "." })
}
