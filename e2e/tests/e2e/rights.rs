//! The rights that the chart grants are those that are used. The audit logs of all that ran before prove it, so this comes last.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use fairway_e2e::cluster::Cluster;
use fairway_e2e::cluster::layout::{self, Layout};
use fairway_e2e::scene::{repository, shared_cluster};
use serde::Deserialize;

/// Settings that, together, make the chart grant all that it ever grants.
const SETTINGS: &[&[&str]] = &[
    &[],
    &["controller.scope.enabled=true"],
    &["controller.scope.namespaceSelector=team=a"],
    &["controller.publishService.enabled=false", "controller.hostNetwork=true", "controller.reportNodeInternalIp=true"],
];

/// One thing that may be done: API group, resource with its subresource, verb.
type Right = (String, String, String);

#[test]
fn no_request_was_denied_and_no_right_was_left_unused() -> anyhow::Result<()> {
    let mut granted: BTreeMap<Right, String> = BTreeMap::new();
    for settings in SETTINGS {
        for right in rights(settings)? {
            granted.entry(right).or_insert_with(|| settings.join(","));
        }
    }
    ensure!(granted.len() > 10, "the chart grants next to nothing: {granted:?}");

    let mut seen = Seen::default();
    let logs = audit_logs()?;
    for log in &logs {
        seen.read(log).with_context(|| format!("reading {}", log.display()))?;
    }
    let Seen { requests, used, denied } = seen;
    let (granted_count, used_count) = (granted.len(), used.len());
    println!(
        "{requests} requests of pods in {} audit logs, {granted_count} rights granted, {used_count} used",
        logs.len()
    );
    ensure!(requests > 0, "no request of a pod in {logs:?}");
    ensure!(denied.is_empty(), "denied: {denied:#?}");
    let unused: Vec<_> = granted.iter().filter(|(right, _)| !used.contains(*right)).collect();
    ensure!(unused.is_empty(), "granted and never used (with the settings that grant it): {unused:#?}");
    Ok(())
}

/// What pods have asked for.
#[derive(Default)]
struct Seen {
    requests: usize,
    used: BTreeSet<Right>,
    /// Requests and how often.
    denied: BTreeMap<String, usize>,
}

impl Seen {
    /// Adds the log of one API server. Two denials are no lack of the chart: an API server that has just started refuses for a
    /// moment what it grants as soon as it knows its roles; and who uninstalls, or upgrades to settings that need fewer rights,
    /// takes them away while pods of before still end.
    fn read(&mut self, log: &Path) -> anyhow::Result<()> {
        let mut revoked: BTreeSet<String> = BTreeSet::new();
        let mut allowed: BTreeSet<(String, Option<Right>)> = BTreeSet::new();
        let mut refused: Vec<Event> = Vec::new();
        for line in BufReader::new(File::open(log)?).lines() {
            let line = line?;
            // Cheaper than parsing every request of every component.
            if !line.contains("system:serviceaccount:")
                && !line.contains("\"rolebindings\"")
                && !line.contains("\"roles\"")
            {
                continue;
            }
            // The last line of an API server that was killed may be cut.
            let Ok(event) = serde_json::from_str::<Event>(&line) else { continue };
            if let Some(namespace) = event.namespace_of_rights() {
                if event.verb == "create" {
                    revoked.remove(namespace);
                } else {
                    revoked.insert(namespace.to_owned());
                }
            }
            if !event.is_by_a_pod() {
                continue;
            }
            self.requests += 1;
            if !event.is_denied() {
                self.used.extend(event.right());
                allowed.insert((event.user.username.clone(), event.right()));
            } else if !revoked.iter().any(|namespace| event.is_by_one_in(namespace)) {
                refused.push(event);
            }
        }
        refused.retain(|event| !allowed.contains(&(event.user.username.clone(), event.right())));
        for event in refused {
            let request = format!("{} {} {}", event.user.username, event.verb, event.request_uri);
            *self.denied.entry(request).or_default() += 1;
        }
        Ok(())
    }
}

/// What the audit log says of a request.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Event {
    verb: String,
    #[serde(rename = "requestURI")]
    request_uri: String,
    user: User,
    object_ref: Option<ObjectRef>,
    response_status: Option<ResponseStatus>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
struct User {
    #[serde(default)]
    username: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ObjectRef {
    #[serde(default)]
    api_group: String,
    #[serde(default)]
    resource: String,
    #[serde(default)]
    namespace: String,
    subresource: Option<String>,
}

#[derive(Deserialize)]
struct ResponseStatus {
    code: Option<u16>,
}

impl Event {
    /// Whether a pod of a test asked. The control plane's own controllers have accounts in kube-system.
    fn is_by_a_pod(&self) -> bool {
        let user = &self.user.username;
        user.starts_with("system:serviceaccount:") && !user.starts_with("system:serviceaccount:kube-system:")
    }

    /// Whether the pod is one of that namespace.
    fn is_by_one_in(&self, namespace: &str) -> bool {
        let account = self.user.username.strip_prefix("system:serviceaccount:").and_then(|user| user.split_once(':'));
        account.is_some_and(|(of, _)| of == namespace)
    }

    /// The namespace whose accounts get or lose rights by this request.
    fn namespace_of_rights(&self) -> Option<&str> {
        let object = self.object_ref.as_ref()?;
        let changes = ["create", "update", "patch", "delete", "deletecollection"].contains(&self.verb.as_str());
        (changes && ["roles", "rolebindings"].contains(&object.resource.as_str())).then_some(&object.namespace)
    }

    fn is_denied(&self) -> bool {
        let decision = self.annotations.get("authorization.k8s.io/decision");
        decision.is_some_and(|decision| decision == "forbid")
            || self.response_status.as_ref().and_then(|status| status.code) == Some(403)
    }

    fn right(&self) -> Option<Right> {
        let object = self.object_ref.as_ref()?;
        let resource = match &object.subresource {
            Some(subresource) => format!("{}/{subresource}", object.resource),
            None => object.resource.clone(),
        };
        Some((object.api_group.clone(), resource, self.verb.clone()))
    }
}

/// The audit logs of this run: of the shared cluster, and of all that began after it.
fn audit_logs() -> anyhow::Result<Vec<PathBuf>> {
    let shared = shared_cluster();
    let begin = fs::metadata(Layout::new(&shared)?.audit_log()).context("the shared cluster's audit log")?.created()?;
    let mut logs = Vec::new();
    for name in layout::names() {
        let log = Layout::new(&name)?.audit_log();
        if fs::metadata(&log).is_ok_and(|metadata| metadata.created().is_ok_and(|created| created >= begin)) {
            logs.push(log);
        }
    }
    Ok(logs)
}

/// What the chart grants with these settings, in all its roles together.
fn rights(settings: &[&str]) -> anyhow::Result<BTreeSet<Right>> {
    let mut helm = Cluster::find(&shared_cluster())?.command("helm");
    helm.args(["template", "rights"]).arg(repository().join("deploy/helm/fairway"));
    for setting in settings {
        helm.args(["--set", setting]);
    }
    let output = helm.output().context("starting helm")?;
    ensure!(output.status.success(), "helm template: {}", String::from_utf8_lossy(&output.stderr));
    let mut rights = BTreeSet::new();
    for document in serde_norway::Deserializer::from_slice(&output.stdout) {
        let Some(role) = Option::<Role>::deserialize(document)? else { continue };
        for rule in role.rules {
            for group in &rule.api_groups {
                for resource in &rule.resources {
                    rights.extend(rule.verbs.iter().map(|verb| (group.clone(), resource.clone(), verb.clone())));
                }
            }
        }
    }
    Ok(rights)
}

/// A Role or ClusterRole; of any other kind, nothing.
#[derive(Deserialize)]
struct Role {
    #[serde(default)]
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    api_groups: Vec<String>,
    resources: Vec<String>,
    verbs: Vec<String>,
}
