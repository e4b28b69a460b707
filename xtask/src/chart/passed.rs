//! Values that the ingress-nginx chart passes to its process (in the ConfigMap, as arguments or in the environment) are also passed by
//! ours: a lost value may have been a restriction.

use std::collections::BTreeMap;

use anyhow::Context;
use serde_json::{Map, Value as Json, json};

use super::Helm;
use super::helm::objects;
use super::names::Name;
use super::table::merge;

/// The destination of a value.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// This key of the ConfigMap.
    Key(&'static str, &'static str),
    /// This flag, without dashes.
    Flag(&'static str, &'static str),
    /// None, for this reason.
    Nowhere,
}

use Place::{Flag, Key, Nowhere};

/// Each value that a template of the ingress-nginx chart 4.15.1 writes to one of the three places, values that set it,
/// and the result. `controller.config`, `controller.extraArgs`, `controller.extraEnvs`, `tcp` and `udp` are maps of
/// users, see below.
const PASSED: &[(&str, &str, Place)] = &[
    ("controller.allowSnippetAnnotations", "true", Key("allow-snippet-annotations", "true")),
    ("controller.addHeaders", r#"{"X-A":"b"}"#, Key("add-headers", "ingress-nginx/ingress-nginx-custom-add-headers")),
    (
        "controller.proxySetHeaders",
        r#"{"X-A":"b"}"#,
        Key("proxy-set-headers", "ingress-nginx/ingress-nginx-custom-proxy-headers"),
    ),
    // Key exchange uses elliptic curves only.
    ("dhParam", r#""text""#, Nowhere),
    (
        "defaultBackend.enabled",
        "true",
        Flag("default-backend-service", "$(POD_NAMESPACE)/ingress-nginx-defaultbackend"),
    ),
    ("controller.publishService.pathOverride", r#""a/b""#, Flag("publish-service", "a/b")),
    ("controller.electionID", r#""elected""#, Flag("election-id", "elected")),
    ("controller.ingressClassResource.controllerValue", r#""a/b""#, Flag("controller-class", "a/b")),
    ("controller.ingressClass", r#""internal""#, Flag("ingress-class", "internal")),
    ("controller.configMapNamespace", r#""other""#, Flag("configmap", "other/ingress-nginx-controller")),
    ("controller.scope.enabled", "true", Flag("watch-namespace", "$(POD_NAMESPACE)")),
    ("controller.scope.namespaceSelector", r#""a=b""#, Flag("watch-namespace-selector", "a=b")),
    // Only for a webhook, which our own values enable.
    ("controller.admissionWebhooks.port", "9443", Nowhere),
    ("controller.admissionWebhooks.certificate", r#""/cert""#, Nowhere),
    ("controller.admissionWebhooks.key", r#""/key""#, Nowhere),
    ("controller.maxmindLicenseKey", r#""word""#, Flag("maxmind-license-key", "word")),
    ("controller.healthCheckHost", r#""192.0.2.1""#, Flag("healthz-host", "192.0.2.1")),
    ("controller.healthCheckPath", r#""/alive""#, Flag("health-check-path", "/alive")),
    ("controller.ingressClassByName", "true", Flag("ingress-class-by-name", "true")),
    ("controller.watchIngressWithoutClass", "true", Flag("watch-ingress-without-class", "true")),
    // Requests are always counted.
    ("controller.metrics.enabled", "false", Nowhere),
    ("controller.enableAnnotationValidations", "false", Flag("enable-annotation-validation", "false")),
    ("controller.enableTopologyAwareRouting", "true", Flag("enable-topology-aware-routing", "true")),
    ("controller.disableLeaderElection", "true", Flag("disable-leader-election", "true")),
    ("controller.electionTTL", r#""15s""#, Flag("election-ttl", "15s")),
    // There is no choice of allocator.
    ("controller.enableMimalloc", "false", Nowhere),
];

/// Complains about each value that is lost or ends up elsewhere.
pub(crate) fn check(helm: &Helm, flags: &[Name], keys: &[Name]) -> anyhow::Result<Vec<String>> {
    let mut complaints = Vec::new();
    for (name, value, place) in PASSED {
        let value: Json = serde_json::from_str(value).context(*name)?;
        let set = name.split('.').rev().fold(value, |inner, key| json!({key: inner}));
        let (found, wanted) = match place {
            Key(key, wanted) => (Rendered::new(helm, &set)?.keys.remove(*key), wanted),
            Flag(flag, wanted) => (Rendered::new(helm, &set)?.flags.remove(*flag), wanted),
            Nowhere => continue,
        };
        if found.as_deref() != Some(*wanted) {
            complaints.push(format!("{set}: {place:?}, and rendered is {found:?}"));
        }
    }
    complaints.extend(maps(helm, flags, keys)?);
    complaints.extend(precedence(helm)?);
    Ok(complaints)
}

/// Maps of users arrive complete, with every key and flag of ingress-nginx.
fn maps(helm: &Helm, flags: &[Name], keys: &[Name]) -> anyhow::Result<Vec<String>> {
    let sample = |name: &Name, is_switch: bool| match name.takes.as_str() {
        _ if is_switch => "true",
        "PORT" | "NUMBER" | "SECONDS" => "31",
        "DURATION" => "31s",
        "NAMESPACE/NAME" => "a/b",
        _ => "some text",
    };
    let pair = |name: &Name, is_switch| (name.name.clone(), sample(name, is_switch).to_owned());
    // These exclude each other and decide what else is rendered.
    let flags = flags.iter().filter(|flag| !flag.name.starts_with("watch-namespace"));
    let flags: BTreeMap<String, String> = flags.map(|flag| pair(flag, flag.takes.is_empty())).collect();
    let keys: BTreeMap<String, String> = keys.iter().map(|key| pair(key, key.is_switch())).collect();
    let set = json!({
        "controller": {"config": keys, "extraArgs": flags, "extraEnvs": [{"name": "A", "value": "b"}]},
        "tcp": {"9000": "a/b:1"}, "udp": {"9001": "a/b:2"},
    });
    let found = Rendered::new(helm, &set)?;
    let mut complaints = Vec::new();
    if found.keys != keys {
        complaints.push(format!("controller.config doesn't arrive as it is: {:?}", found.keys));
    }
    for (flag, value) in flags {
        if found.flags.get(&flag) != Some(&value) {
            complaints
                .push(format!("controller.extraArgs.{flag}: {value}, and rendered is {:?}", found.flags.get(&flag)));
        }
    }
    if !found.environment.contains(&json!({"name": "A", "value": "b"})) {
        complaints.push(format!("controller.extraEnvs gets lost: {:?}", found.environment));
    }
    for (name, data) in [("tcp", json!({"9000": "a/b:1"})), ("udp", json!({"9001": "a/b:2"}))] {
        let map = found.objects.iter().find(|object| object["metadata"]["name"] == format!("ingress-nginx-{name}"));
        if map.map(|map| &map["data"]) != Some(&data) {
            complaints.push(format!("{name} gets lost: {map:?}"));
        }
    }
    Ok(complaints)
}

/// `controller.config` takes precedence, even when it is empty; a value without an equivalent writes no key.
fn precedence(helm: &Helm) -> anyhow::Result<Vec<String>> {
    let snippets = "allow-snippet-annotations";
    let cases = [
        (json!({}), snippets, Some("false")),
        (json!({"allowSnippetAnnotations": null}), snippets, None),
        (json!({"allowSnippetAnnotations": true, "config": {snippets: "false"}}), snippets, Some("false")),
        (json!({"allowSnippetAnnotations": true, "config": {snippets: false}}), snippets, Some("false")),
        (json!({"allowSnippetAnnotations": true, "config": {snippets: ""}}), snippets, Some("")),
        (json!({"allowSnippetAnnotations": false, "config": {snippets: "true"}}), snippets, Some("true")),
        (json!({"addHeaders": {"X-A": "b"}, "config": {"add-headers": "a/b"}}), "add-headers", Some("a/b")),
    ];
    let mut complaints = Vec::new();
    for (mut set, key, wanted) in cases {
        set = json!({"controller": set});
        let found = Rendered::new(helm, &set)?.keys.remove(key);
        if found.as_deref() != wanted {
            complaints.push(format!("{set}: {key} is {found:?}, not {wanted:?}"));
        }
    }
    Ok(complaints)
}

/// The settings that reach the process.
struct Rendered {
    keys: BTreeMap<String, String>,
    flags: BTreeMap<String, String>,
    environment: Vec<Json>,
    objects: Vec<Json>,
}

impl Rendered {
    fn new(helm: &Helm, set: &Json) -> anyhow::Result<Self> {
        let mut values = json!({});
        merge(&mut values, set.clone());
        let objects = objects(&helm.render("passed", &values)?)?;
        let named = |kind: &str| {
            let found =
                |object: &&Json| object["kind"] == kind && object["metadata"]["name"] == "ingress-nginx-controller";
            objects.iter().find(found).with_context(|| format!("{set}: no {kind}"))
        };
        let data = named("ConfigMap")?["data"].as_object().cloned().unwrap_or_else(Map::new);
        let text = |value: &Json| value.as_str().map(str::to_owned).context("data of a ConfigMap is text");
        let keys = data.iter().map(|(key, value)| Ok((key.clone(), text(value)?))).collect::<anyhow::Result<_>>()?;
        let container = named("Deployment")?.pointer("/spec/template/spec/containers/1").context("no container")?;
        let list = |field: &str| container[field].as_array().cloned().unwrap_or_default();
        let flag = |argument: &Json| {
            let argument = argument.as_str()?.strip_prefix("--")?;
            let (flag, value) = argument.split_once('=').unwrap_or((argument, ""));
            Some((flag.to_owned(), value.to_owned()))
        };
        let flags = list("args").iter().filter_map(flag).collect();
        Ok(Self { keys, flags, environment: list("env"), objects })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chart::table;

    #[test]
    fn passed_values_are_in_the_list_of_values() {
        let values = table::read().unwrap();
        for (name, value, place) in PASSED {
            let of_list = values.iter().find(|value| value.name == *name && value.default.is_some());
            let of_list = of_list.unwrap_or_else(|| panic!("{name} isn't in the list"));
            assert!(serde_json::from_str::<Json>(value).is_ok(), "{name}: {value}");
            // A value without destination is either harmless or the opposite of fixed behaviour.
            let fine = !matches!(place, Nowhere) || of_list.verdict != table::Verdict::NotHonoured;
            assert!(fine, "{name} is lost");
        }
    }
}
