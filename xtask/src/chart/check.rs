//! Checks the chart against the table of verdicts, and the values files of users, without a cluster.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;

use anyhow::{Context, ensure};
use serde_json::{Map, Value as Json, json};

use super::FOLDER;
use super::helm::{Helm, objects};
use super::names;
use super::schema;
use super::table::{self, Value, Verdict, merge};
use crate::outcome::Outcome;
use crate::workspace::Workspace;

/// Values files of ingress-nginx chart users; the end-to-end tests install them.
const FILES: &str = "e2e/tests/values";

/// What must be enabled for a value to have an effect. A name that ends in a dot stands for everything below it.
const CONTEXTS: &[(&str, &str)] = &[
    (
        "controller.service.internal.",
        r#"{"controller":{"service":{"internal":{"enabled":true,"annotations":{"a":"b"}}}}}"#,
    ),
    ("controller.service.internal.nodePorts.tcp", r#"{"tcp":{"9000":"a/b:1"}}"#),
    ("controller.service.internal.nodePorts.udp", r#"{"udp":{"9001":"a/b:1"}}"#),
    ("controller.service.nodePorts.tcp", r#"{"tcp":{"9000":"a/b:1"}}"#),
    ("controller.service.nodePorts.udp", r#"{"udp":{"9001":"a/b:1"}}"#),
    ("controller.tcp.", r#"{"tcp":{"9000":"a/b:1"}}"#),
    ("controller.udp.", r#"{"udp":{"9001":"a/b:1"}}"#),
    ("portNamePrefix", r#"{"tcp":{"9000":"a/b:1"},"udp":{"9001":"a/b:1"}}"#),
    ("controller.autoscaling.", r#"{"controller":{"autoscaling":{"enabled":true}}}"#),
    ("controller.autoscalingTemplate", r#"{"controller":{"autoscaling":{"enabled":true}}}"#),
    ("controller.keda.", r#"{"controller":{"keda":{"enabled":true}}}"#),
    ("controller.minAvailable", r#"{"controller":{"replicaCount":2}}"#),
    ("controller.maxUnavailable", r#"{"controller":{"replicaCount":2}}"#),
    ("controller.unhealthyPodEvictionPolicy", r#"{"controller":{"replicaCount":2}}"#),
    ("controller.metrics.", r#"{"controller":{"metrics":{"enabled":true}}}"#),
    ("controller.metrics.service.nodePort", r#"{"controller":{"metrics":{"service":{"type":"NodePort"}}}}"#),
    ("controller.metrics.serviceMonitor.", r#"{"controller":{"metrics":{"serviceMonitor":{"enabled":true}}}}"#),
    ("controller.metrics.prometheusRule.", r#"{"controller":{"metrics":{"prometheusRule":{"enabled":true}}}}"#),
    ("controller.metrics.dashboard.", r#"{"controller":{"metrics":{"dashboard":{"enabled":true}}}}"#),
    ("controller.hostPort.ports.", r#"{"controller":{"hostPort":{"enabled":true}}}"#),
    ("controller.reportNodeInternalIp", r#"{"controller":{"hostNetwork":true}}"#),
    // With a Secret of the user: helm generates a different one each time.
    (
        "controller.validatingWebhook.",
        r#"{"controller":{"validatingWebhook":{"enabled":true,"certificateSecret":"a","caBundle":"b"}}}"#,
    ),
    ("controller.control.", r#"{"controller":{"mode":"split"}}"#),
    ("controller.handover.enabled", r#"{"controller":{"hostNetwork":true,"kind":"DaemonSet","mode":"split"}}"#),
    ("controller.snapshot.", r#"{"controller":{"snapshot":{"keySecret":"a"}}}"#),
    ("controller.gatewayAPI.address", r#"{"controller":{"gatewayAPI":{"enabled":true}}}"#),
    ("controller.gatewayAPI.routePolicyCRD", r#"{"controller":{"gatewayAPI":{"enabled":true}}}"#),
    ("controller.gatewayAPI.parametersCRD", r#"{"controller":{"gatewayAPI":{"enabled":true}}}"#),
    ("controller.gatewayAPI.className", r#"{"controller":{"gatewayAPI":{"enabled":true}}}"#),
    ("controller.gatewayAPI.controllerName", r#"{"controller":{"gatewayAPI":{"enabled":true}}}"#),
    ("controller.scope.namespace", r#"{"controller":{"scope":{"enabled":true}}}"#),
    ("rbac.scope", r#"{"controller":{"scope":{"enabled":true}}}"#),
    ("defaultBackend.", r#"{"defaultBackend":{"enabled":true}}"#),
    ("defaultBackend.autoscaling.", r#"{"defaultBackend":{"autoscaling":{"enabled":true}}}"#),
    ("defaultBackend.minAvailable", r#"{"defaultBackend":{"replicaCount":2}}"#),
    ("defaultBackend.maxUnavailable", r#"{"defaultBackend":{"replicaCount":2}}"#),
    ("defaultBackend.unhealthyPodEvictionPolicy", r#"{"defaultBackend":{"replicaCount":2}}"#),
];

/// Values whose defaults differ from those of the ingress-nginx chart; their notes explain how.
const OTHER_DEFAULTS: &[&str] = &[
    // That chart has a map where Kubernetes expects text.
    "controller.hostname",
    "controller.image.readOnlyRootFilesystem",
    "controller.lifecycle.preStop.exec.command",
    "controller.livenessProbe.timeoutSeconds",
    "controller.readinessProbe.httpGet.path",
    "controller.readinessProbe.initialDelaySeconds",
    "controller.readinessProbe.periodSeconds",
    "controller.readinessProbe.timeoutSeconds",
];

/// Runs all checks. Each complaint names the value or file.
pub(crate) fn run(workspace: &Workspace) -> anyhow::Result<Outcome> {
    let helm = Helm::new(workspace)?;
    let values = table::read()?;
    helm.lint()?;
    let mut complaints = Vec::new();
    complaints.extend(identity(workspace)?);
    complaints.extend(defaults(workspace, &values)?);
    complaints.extend(honoured(workspace, &helm, &values)?);
    complaints.extend(harmless(&helm, &values)?);
    complaints.extend(empty(&helm, &values)?);
    complaints.extend(not_honoured(&helm, &values)?);
    complaints.extend(misspelt(&helm, &values)?);
    complaints.extend(invalid_combinations(&helm)?);
    complaints.extend(super::alerts::check(&helm)?);
    complaints.extend(super::pod::check(&helm)?);
    complaints.extend(super::rights::check(&helm)?);
    let (flags, keys) = (names::flags(workspace)?, names::keys(workspace)?);
    complaints.extend(super::settings::check(&helm, &values, &flags, &keys)?);
    complaints.extend(super::passed::check(&helm, &flags, &keys)?);
    let files = files(workspace)?;
    complaints.extend(users(workspace, &helm, &files)?);
    Ok(Outcome::from_complaints(format!("{} values, {} values files", values.len(), files.len()), &complaints))
}

/// The chart has the same version as the program that it installs.
fn identity(workspace: &Workspace) -> anyhow::Result<Option<String>> {
    let chart: Json = yaml(&workspace.root.join(FOLDER).join("Chart.yaml"))?;
    let version = env!("CARGO_PKG_VERSION");
    let wrong = chart["appVersion"] != json!(version) || chart["version"] != json!(version);
    Ok(wrong.then(|| format!("{FOLDER}/Chart.yaml: version and appVersion are not {version}, that of the workspace")))
}

/// Honoured values are in values.yaml, with the default that users expect.
fn defaults(workspace: &Workspace, values: &[Value]) -> anyhow::Result<Vec<String>> {
    let file: Json = yaml(&workspace.root.join(FOLDER).join("values.yaml"))?;
    let mut complaints = Vec::new();
    for value in values.iter().filter(|value| value.verdict == Verdict::Honoured) {
        let found = value.keys().iter().try_fold(&file, |at, key| at.get(key));
        let differs = OTHER_DEFAULTS.contains(&value.name);
        if let Some(wanted) = &value.default
            && (found == Some(wanted)) == differs
        {
            let found = found.map_or("nothing".to_owned(), Json::to_string);
            complaints.push(format!("{}: the default is {found}, that of ingress-nginx is {wanted}", value.name));
        }
    }
    Ok(complaints)
}

/// A honoured value changes the rendered output.
fn honoured(workspace: &Workspace, helm: &Helm, values: &[Value]) -> anyhow::Result<Vec<String>> {
    let values: Vec<&Value> = values.iter().filter(|value| value.verdict == Verdict::Honoured).collect();
    let rendered: Mutex<BTreeMap<String, String>> = Mutex::default();
    let before = |name: &str, base: &Json| {
        let key = base.to_string();
        if let Some(text) = rendered.lock().expect("no holder of this lock panics").get(&key) {
            return Ok::<_, anyhow::Error>(text.clone());
        }
        let text = helm.render(&format!("{name}.base"), base)?;
        rendered.lock().expect("no holder of this lock panics").insert(key, text.clone());
        Ok(text)
    };
    let check = |value: &Value| -> anyhow::Result<Option<String>> {
        let mut base = context(value.name);
        let mut changed = base.clone();
        let has_other = OTHER_DEFAULTS.contains(&value.name)
            || value.keys().iter().try_fold(&base, |at, key| at.get(key)).is_some();
        if has_other {
            // Values of our own have the default of values.yaml.
            merge(&mut base, value.set_to(value.default.clone().unwrap_or(Json::Null)));
        }
        merge(&mut changed, value.changed());
        let same = before(value.name, &base)? == helm.render(value.name, &changed)?;
        Ok(same.then(|| format!("{}: honoured, but {} changes nothing", value.name, value.sample)))
    };
    let threads = thread::available_parallelism().map_or(1, usize::from).min(values.len());
    let results: Vec<_> = thread::scope(|scope| {
        let share = |part: usize| {
            let (values, check) = (&values, &check);
            scope.spawn(move || {
                values
                    .iter()
                    .skip(part)
                    .step_by(threads)
                    .map(|value| check(value).context(value.name))
                    .collect::<Vec<_>>()
            })
        };
        workspace.console.progress("every value of the chart, rendered");
        let handles: Vec<_> = (0..threads).map(share).collect();
        handles.into_iter().flat_map(|handle| handle.join().expect("no check panics")).collect()
    });
    results.into_iter().filter_map(Result::transpose).collect()
}

/// Harmless values change nothing, even all at once.
fn harmless(helm: &Helm, values: &[Value]) -> anyhow::Result<Option<String>> {
    let same = helm.render("none", &json!({}))? == helm.render("harmless", &all(values, Verdict::Harmless))?;
    Ok((!same).then(|| "a harmless value changes the rendered output".to_owned()))
}

/// An empty text in place of a list or map counts as unset where the ingress-nginx chart does so. Other text is refused.
fn empty(helm: &Helm, values: &[Value]) -> anyhow::Result<Vec<String>> {
    let mut complaints = Vec::new();
    // Maps and the values in them need separate turns.
    let (outer, inner): (Vec<_>, Vec<_>) =
        schema::may_be_empty(values).into_iter().partition(|name| schema::is_map_of_maps(name));
    for (turn, names) in [("outer", outer), ("inner", inner)] {
        let set = |to: &Json| {
            let mut set = json!({});
            for name in &names {
                merge(&mut set, context(name));
            }
            for name in &names {
                merge(&mut set, name.split('.').rev().fold(to.clone(), |value, key| json!({ key: value })));
            }
            set
        };
        let unset = helm.render(&format!("{turn}.unset"), &set(&Json::Null))?;
        let empty = helm.render(&format!("{turn}.empty"), &set(&json!("")))?;
        if let Some((a, b)) = unset.lines().zip(empty.lines()).find(|(a, b)| a != b) {
            complaints.push(format!("an empty text for a list or map: {b:?} is rendered in place of {a:?}"));
        } else if unset.len() != empty.len() {
            complaints.push("an empty text for a list or map renders more or less than none".to_owned());
        }
    }
    for name in ["controller.tolerations", "controller.nodeSelector"] {
        let set = name.split('.').rev().fold(json!("text"), |value, key| json!({ key: value }));
        if helm.render("text", &set).is_ok() {
            complaints.push(format!("{name}: text in place of a list or map is accepted"));
        }
    }
    Ok(complaints)
}

/// Values that are not honoured are listed after the installation if they are set, and only then.
fn not_honoured(helm: &Helm, values: &[Value]) -> anyhow::Result<Vec<String>> {
    let warned = |name: &str, set: &Json| super::settings::warned(helm, name, set);
    let mut complaints = Vec::new();
    let mut expect = |what: &str, found: Vec<String>, mut wanted: Vec<&str>| {
        wanted.sort_unstable();
        if found != wanted {
            complaints.push(format!("{what}: warned of {found:?}, not of {wanted:?}"));
        }
    };
    expect("nothing set", warned("none", &json!({}))?, Vec::new());
    let names = values.iter().filter(|value| value.verdict == Verdict::NotHonoured).map(|value| value.name);
    expect("all set", warned("not-honoured", &all(values, Verdict::NotHonoured))?, names.collect());
    for value in values.iter().filter(|value| value.verdict == Verdict::NotHonoured) {
        expect("one set", warned("one", &value.changed())?, vec![value.name]);
    }
    // Many users keep a copy of all the chart's values and change some.
    let mut copy = json!({});
    for value in values {
        if let Some(default) = &value.default {
            merge(&mut copy, value.set_to(default.clone()));
        }
    }
    expect("a copy of all defaults", warned("copy", &copy)?, vec!["controller.lifecycle.preStop"]);
    Ok(complaints)
}

/// An unknown name has no effect, as in the ingress-nginx chart, and is listed with the name that was probably meant.
fn misspelt(helm: &Helm, values: &[Value]) -> anyhow::Result<Vec<String>> {
    let mut complaints = Vec::new();
    let of =
        ["controller.replicaCount", "controller.service.annotations", "defaultBackend.image.tag", "rbac.create", "tcp"];
    for value in values.iter().filter(|value| of.contains(&value.name)) {
        let wrong = format!("{}x", value.name);
        let set = wrong.split('.').rev().fold(json!({}), |inner, key| json!({key: inner}));
        let found = super::settings::warned(helm, "misspelt", &set)?;
        if found != [wrong.as_str()] {
            complaints.push(format!("{set}: named are {found:?}"));
        }
    }
    // The first ones occurred in users' values files.
    let likely = [
        (json!({"controller": {"stats": {"enabled": true}}}), "controller.stats", Some("controller.metrics")),
        (json!({"replicas": 2}), "replicas", Some("controller.replicaCount")),
        (
            json!({"controller": {"useProxyProtocol": true}}),
            "controller.useProxyProtocol",
            Some("controller.config.use-proxy-protocol"),
        ),
        (json!({"service": {"annotations": {"a": "b"}}}), "service", Some("controller.service")),
        (json!({"controller": {"colour": "red"}}), "controller.colour", None),
        (json!({"nodeselector": {"a": "b"}}), "nodeselector", Some("controller.nodeSelector")),
        (json!({"controller": {"Kind": "DaemonSet"}}), "controller.Kind", Some("controller.kind")),
    ];
    for (set, name, meant) in likely {
        let notes = helm.notes("likely", &[&helm.write("likely", &set)?])?;
        let line = notes.lines().find(|line| line.starts_with(&format!("- {name}: "))).unwrap_or_default();
        let named = meant.is_none_or(|meant| line.ends_with(&format!(" Did you mean {meant}?")));
        if line.is_empty() || !named || meant.is_none() && line.contains("Did you mean") {
            complaints.push(format!("{set}: the line does not name {meant:?}: {line:?}"));
        }
    }
    // Users' maps, and values passed by charts that include this one.
    let others = json!({
        "enabled": true, "global": {"a": {"b": 1}}, "commonLabels": {"a": "b"},
        "controller": {
            "nodeSelector": {"a": "b"}, "resources": {"limits": {"example.com/gpu": 1}}, "admissionWebhooks": {"a": 1},
            "hostPort": {"ports": {"other": 1}}, "service": {"labels": {"a": "b"}}, "nothing": null,
        },
    });
    let found = super::settings::warned(helm, "others", &others)?;
    if !found.is_empty() {
        complaints.push(format!("{others}: named are {found:?}"));
    }
    Ok(complaints)
}

/// Contradictory values are rejected.
fn invalid_combinations(helm: &Helm) -> anyhow::Result<Option<String>> {
    let refused = helm.render("contradiction", &json!({"rbac": {"scope": true}})).is_err();
    Ok((!refused).then(|| "rbac.scope without controller.scope.enabled is accepted".to_owned()))
}

/// Users' values files: those in the folder of the end-to-end tests.
fn files(workspace: &Workspace) -> anyhow::Result<Vec<PathBuf>> {
    let folder = workspace.root.join(FILES);
    let entries = fs::read_dir(&folder).with_context(|| folder.display().to_string())?;
    let mut files = entries.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<Vec<_>>>()?;
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    ensure!(!files.is_empty(), "{}: no values files", folder.display());
    Ok(files)
}

/// They render, and the output is well-formed.
fn users(workspace: &Workspace, helm: &Helm, files: &[PathBuf]) -> anyhow::Result<Vec<String>> {
    let mut complaints = Vec::new();
    for path in files {
        let name = path.strip_prefix(&workspace.root).unwrap_or(path).display();
        match helm.template("ingress-nginx", "ingress-nginx", &[path]).and_then(|text| objects(&text)) {
            Ok(_) => {}
            Err(error) => complaints.push(format!("{name}: {error:#}")),
        }
    }
    Ok(complaints)
}

/// A values file with all values of a verdict.
fn all(values: &[Value], verdict: Verdict) -> Json {
    let mut all = Json::Object(Map::new());
    for value in values.iter().filter(|value| value.verdict == verdict) {
        merge(&mut all, value.changed());
    }
    all
}

/// The settings without which this value has no effect.
fn context(name: &str) -> Json {
    let mut context = Json::Object(Map::new());
    for (pattern, values) in CONTEXTS {
        if *pattern == name || (pattern.ends_with('.') && name.starts_with(pattern)) {
            merge(&mut context, serde_json::from_str(values).expect("the table is JSON"));
        }
    }
    context
}

fn yaml(path: &Path) -> anyhow::Result<Json> {
    let text = fs::read_to_string(path).with_context(|| path.display().to_string())?;
    serde_norway::from_str(&text).with_context(|| path.display().to_string())
}
