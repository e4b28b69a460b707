//! The chart grants exactly the rights that are used. The audit logs of all earlier tests prove it, so this one comes last.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::PathBuf;

use anyhow::{Context, ensure};
use fairway_e2e::cluster::Cluster;
use fairway_e2e::cluster::layout::{self, Layout};
use fairway_e2e::rights::{self, Judge, RELEASE, Right};
use fairway_e2e::scene::{self, Release, Scene, repository, shared_cluster};
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::api::networking::v1::Ingress;
use kube::Api;
use kube::api::ListParams;

/// Settings that together make the chart grant every right that it can grant. Roles in more than one namespace grant the same
/// rights, except those to a single object.
const SETTINGS: &[&[&str]] = &[
    &[],
    &["controller.scope.enabled=true"],
    &["controller.scope.enabled=true", "controller.scope.namespace=other", "tcp.5432=other/db:5432"],
    &[
        "controller.scope.enabled=true",
        "controller.scope.namespace=other",
        "controller.publishService.pathOverride=edge/front",
    ],
    &["controller.scope.enabled=true", "rbac.scope=true"],
    &["controller.scope.namespaceSelector=team=a"],
    &["controller.publishService.enabled=false", "controller.hostNetwork=true", "controller.reportNodeInternalIp=true"],
    &["controller.kind=DaemonSet"],
    &["controller.mode=split"],
    &["controller.readinessGate.enabled=true"],
];

/// With these settings it grants rights for the Gateway API, of which the tests use only some.
const GATEWAYS: &[&str] =
    &["controller.gatewayAPI.enabled=true", "controller.gatewayAPI.address=own", "controller.observed.enabled=true"];

#[test]
fn no_request_was_denied_and_no_right_was_left_unused() -> anyhow::Result<()> {
    // All other tests have their objects in one namespace, where a Role would be enough, and some end before Fairway has reported
    // everything about them.
    scene::run("rights", async |scene| {
        let fairway = scene.fairway(&[]).await?;
        let other = format!("{}-other", scene.namespace());
        let namespace = format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {other}}}}}");
        scene.apply(&namespace).await?;
        reports(scene, &fairway, &[scene.namespace(), &other]).await?;
        scene.delete(&namespace).await
    })?;
    scene::run("rights-scope", async |scene| {
        let fairway = scene.fairway(&["controller.scope.enabled=true"]).await?;
        reports(scene, &fairway, &[scene.namespace()]).await
    })?;

    let granted = SETTINGS.iter().map(|settings| rights_of_the_chart(settings)).collect::<anyhow::Result<Vec<_>>>()?;
    let count = granted.iter().flatten().collect::<BTreeSet<_>>().len();
    ensure!(count > 10, "the chart grants next to nothing: {granted:?}");
    let mut judge = Judge::new(granted).knowing(rights_of_the_chart(GATEWAYS)?);
    let logs = audit_logs()?;
    for log in &logs {
        let lines = BufReader::new(File::open(log)?);
        judge.read(lines).with_context(|| format!("reading {}", log.display()))?;
    }

    let unused: Vec<_> = judge.unused().map(Right::to_string).collect();
    let used = count - unused.len();
    println!("{} requests of pods in {} audit logs, {count} rights granted, {used} used", judge.requests(), logs.len());
    ensure!(judge.requests() > 0, "no request of a pod in {logs:?}");
    ensure!(judge.denied().is_empty(), "denied, and how often: {:#?}", judge.denied());
    ensure!(unused.is_empty(), "granted and never used: {unused:#?}");
    Ok(())
}

/// Makes a release report everything that it can about Ingresses in some namespaces: the address in their status, and an Event.
async fn reports(scene: &Scene, fairway: &Release<'_>, namespaces: &[&str]) -> anyhow::Result<()> {
    for namespace in namespaces {
        scene.apply(&ingress(fairway.class(), namespace)).await?;
    }
    for namespace in namespaces {
        let ingresses: Api<Ingress> = Api::namespaced(scene.client(), namespace);
        let shown = async || {
            let status = ingresses.get("web").await?.status.and_then(|status| status.load_balancer);
            Ok(status.and_then(|status| status.ingress).is_some_and(|addresses| !addresses.is_empty()))
        };
        scene.until(&format!("the Ingress of {namespace} shows the address"), shown).await?;
        let events: Api<Event> = Api::namespaced(scene.client(), namespace);
        let about = ListParams::default().fields("involvedObject.kind=Ingress,reason=SecretNotFound");
        let is_reported = async || Ok(!events.list(&about).await?.items.is_empty());
        scene.until(&format!("an Event says in {namespace} that the Secret is missing"), is_reported).await?;
    }
    Ok(())
}

/// An Ingress whose Secret is missing.
fn ingress(class: &str, namespace: &str) -> String {
    format!(
        "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: web, namespace: {namespace}}}
spec:
  ingressClassName: {class}
  tls: [{{hosts: [{namespace}.example], secretName: missing}}]
  rules:
    - host: {namespace}.example
      http:
        paths:
          - {{path: /, pathType: Prefix, backend: {{service: {{name: nothing, port: {{number: 80}}}}}}}}
"
    )
}

/// The audit logs of this run: that of the shared cluster, and those of all clusters that started after it.
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

/// The rights that the chart grants with these settings, in all its roles together.
fn rights_of_the_chart(settings: &[&str]) -> anyhow::Result<BTreeSet<Right>> {
    let mut helm = Cluster::find(&shared_cluster())?.command("helm");
    helm.args(["template", RELEASE]).arg(repository().join("deploy/helm/fairway"));
    let name = format!("fullnameOverride={RELEASE}");
    for setting in std::iter::once(&*name).chain(settings.iter().copied()) {
        helm.args(["--set", setting]);
    }
    let output = helm.output().context("starting helm")?;
    ensure!(output.status.success(), "helm template: {}", String::from_utf8_lossy(&output.stderr));
    Ok(rights::rights(&output.stdout)?)
}
