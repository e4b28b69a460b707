//! Pods that become ready only when all proxies know them.
//!
//! It has its own cluster: the policy that adds the gate to pods applies to all namespaces with the label, whichever release it belongs to.

use std::time::Instant;

use anyhow::{Context, ensure};
use fairway_e2e::cluster::Options;
use fairway_e2e::scene::{self, Release, Scene, is_ready};
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use k8s_openapi::api::networking::v1::Ingress;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::rollout::{TWO, hasty_update, restart, serve_as, unharmed};
use crate::split::SPLIT;

const GATE: &str = "controller.readinessGate.enabled=true";
const OBSERVED: &str = "controller.observed.enabled=true";
const LABEL: &str = "fairway.dev/readiness-gate=enabled";
const ROUTED: &str = "fairway.dev/routed";

fn condition<'a>(pod: &'a Pod, kind: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.iter().flatten().find(|condition| condition.type_ == kind)
}

fn is_true(pod: &Pod, kind: &str) -> bool {
    condition(pod, kind).is_some_and(|condition| condition.status == "True")
}

fn has_gate(pod: &Pod) -> bool {
    let gates = pod.spec.iter().flat_map(|spec| spec.readiness_gates.iter().flatten());
    gates.filter(|gate| gate.condition_type == ROUTED).count() == 1
}

fn name(pod: &Pod) -> anyhow::Result<&str> {
    pod.metadata.name.as_deref().context("a pod without a name")
}

/// The pod as the API server would store it; it is not created.
async fn admitted(scene: &Scene, namespace: &str, pod: serde_json::Value) -> anyhow::Result<Pod> {
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    Ok(Api::<Pod>::namespaced(scene.client(), namespace).create(&dry, &serde_json::from_value(pod)?).await?)
}

/// Labels a namespace, and waits until the API server adds the gate to new pods there.
async fn label(scene: &Scene, namespace: &str) -> anyhow::Result<()> {
    scene.kubectl(&["label", "namespace", namespace, LABEL]).await?;
    let pod = || json!({"metadata": {"name": "probe"}, "spec": {"containers": [{"name": "a", "image": "busybox"}]}});
    scene
        .until(&format!("pods of {namespace} get the gate"), async || {
            Ok(has_gate(&admitted(scene, namespace, pod()).await?))
        })
        .await
}

/// The ready pods of the backend, and the reason of their condition.
async fn reasons(scene: &Scene) -> anyhow::Result<Vec<(String, String)>> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    let pods = scene.pods("web").await?;
    let conditions = pods.iter().map(|pod| {
        ensure!(has_gate(pod) && is_ready(pod), "{pod:?}");
        condition(pod, ROUTED).map(|found| (text(&found.reason), text(&found.message))).context("no condition")
    });
    conditions.collect()
}

fn known() -> (String, String) {
    ("Known".to_owned(), "2 of 2 proxies know this pod".to_owned())
}

#[test]
fn a_rolling_update_never_outruns_a_proxy() -> anyhow::Result<()> {
    scene::run_alone("gate", &Options::default(), async |scene| {
        let (fairway, address) = serve_as(scene, 2, &[TWO, GATE, OBSERVED]).await?;
        shows_who_has_observed_it(scene).await?;
        gives_the_gate_once(scene).await?;
        hasty_update(scene, "rolling update of a backend whose pods wait for the proxies", address, 2).await?;
        ensure!(reasons(scene).await? == [known(), known()], "{:?}", reasons(scene).await?);
        unrouted_pods_are_ready(scene).await?;
        one_at_a_time(scene).await?;
        slow(scene, &fairway).await?;
        stuck(scene, &fairway).await
    })
}

#[test]
fn a_pod_waits_for_proxies_in_pods_of_their_own() -> anyhow::Result<()> {
    scene::run_alone("gate-split", &Options::default(), async |scene| {
        let (_fairway, address) = serve_as(scene, 2, &[GATE, SPLIT[0], SPLIT[1], SPLIT[2]]).await?;
        label(scene, scene.namespace()).await?;
        unharmed(
            scene,
            "rolling update of a backend whose pods wait for two proxies of two controllers",
            address,
            async || {
                restart(scene, "web").await?;
                scene.ready("web", 2).await
            },
        )
        .await?;
        ensure!(reasons(scene).await? == [known(), known()], "{:?}", reasons(scene).await?);
        Ok(())
    })
}

/// An Ingress that asks for it shows each of its generations once all proxies have it.
async fn shows_who_has_observed_it(scene: &Scene) -> anyhow::Result<()> {
    scene.kubectl(&["annotate", "ingress/web", "fairway.dev/observe=true"]).await?;
    for path in ["/", "/changed"] {
        let patch = format!(r#"[{{"op": "replace", "path": "/spec/rules/0/http/paths/0/path", "value": "{path}"}}]"#);
        scene.kubectl(&["patch", "ingress/web", "--type=json", "--patch", &patch]).await?;
        let text = scene
            .find("the annotation of the newest generation", async || {
                let metadata = scene.api::<Ingress>().get("web").await?.metadata;
                let text = metadata.annotations.and_then(|mut all| all.remove("fairway.dev/observed"));
                let start =
                    format!(r#"{{"generation":{},"proxies":2,"of":2,"#, metadata.generation.unwrap_or_default());
                Ok(text.filter(|text| text.starts_with(&start)))
            })
            .await?;
        println!("{text}");
    }
    let back = r#"[{"op": "replace", "path": "/spec/rules/0/http/paths/0/path", "value": "/"}]"#;
    scene.kubectl(&["patch", "ingress/web", "--type=json", "--patch", back]).await?;
    Ok(())
}

/// The policy adds missing gates to a pod, never twice, and none to a pod that opts out.
async fn gives_the_gate_once(scene: &Scene) -> anyhow::Result<()> {
    label(scene, scene.namespace()).await?;
    let containers = json!([{"name": "a", "image": "busybox"}]);
    for (metadata, gates) in [
        (json!({"name": "a"}), json!([{"conditionType": "other"}])),
        (json!({"name": "a", "labels": {"app": "a"}}), json!([{"conditionType": ROUTED}])),
        (json!({"name": "a", "labels": {"fairway.dev/readiness-gate": "enabled"}}), json!([])),
    ] {
        let spec = json!({"containers": containers, "readinessGates": gates});
        let pod = admitted(scene, scene.namespace(), json!({"metadata": metadata, "spec": spec})).await?;
        let others = gates.as_array().into_iter().flatten().filter(|gate| gate["conditionType"] != ROUTED).count();
        let gates = pod.spec.as_ref().and_then(|spec| spec.readiness_gates.as_ref()).map_or(0, Vec::len);
        ensure!(has_gate(&pod) && gates == others + 1, "{:?}", pod.spec);
        let labels = pod.metadata.labels.unwrap_or_default();
        ensure!(labels.get("fairway.dev/readiness-gate").is_some_and(|value| value == "enabled"), "{labels:?}");
        ensure!(labels.contains_key("app") == metadata["labels"]["app"].is_string(), "{labels:?}");
    }
    let metadata = json!({"name": "a", "labels": {"fairway.dev/readiness-gate": "disabled"}});
    let pod = json!({"metadata": metadata, "spec": {"containers": containers}});
    let pod = admitted(scene, scene.namespace(), pod).await?;
    let value = pod.metadata.labels.as_ref().and_then(|labels| labels.get("fairway.dev/readiness-gate"));
    ensure!(!has_gate(&pod) && value.is_some_and(|value| value == "disabled"), "{:?}", pod.metadata.labels);
    Ok(())
}

/// Pods without a route don't wait, whatever their namespace.
async fn unrouted_pods_are_ready(scene: &Scene) -> anyhow::Result<()> {
    let other = format!("{}-other", scene.namespace());
    scene.apply(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {other}}}}}")).await?;
    label(scene, &other).await?;
    let pods = Api::<Pod>::namespaced(scene.client(), &other);
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "alone", "labels": {"app": "alone"}},
        "spec": {"containers": [{"name": "a", "image": "busybox", "args": ["sleep", "600"]}]},
    });
    let begin = Instant::now();
    pods.patch("alone", &PatchParams::apply("gate"), &Patch::Apply(&pod)).await?;
    scene.until("a pod without a route is ready", async || Ok(is_ready(&pods.get("alone").await?))).await?;
    println!("a pod without a route was ready after {:.1?}", begin.elapsed());
    ensure!(has_gate(&pods.get("alone").await?));
    scene.delete(&format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {other}}}}}")).await
}

/// New pods start before old ones end.
async fn one_at_a_time(scene: &Scene) -> anyhow::Result<()> {
    let strategy = r#"{"spec": {"strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}}}"#;
    scene.kubectl(&["patch", "deployment/web", "--patch", strategy]).await?;
    Ok(())
}

/// Sends a signal to the proxy of a Fairway pod, to stop or resume it.
async fn signal(scene: &Scene, pod: &str, signal: Signal) -> anyhow::Result<()> {
    let process = scene.process_of(pod, "proxy")?.id();
    kill(Pid::from_raw(process), signal).with_context(|| format!("{signal} to {process}"))
}

/// A new pod of the backend whose containers are ready.
async fn starting(scene: &Scene, before: &[Pod]) -> anyhow::Result<Pod> {
    let is_new = |pod: &Pod| before.iter().all(|old| old.metadata.uid != pod.metadata.uid);
    scene
        .find("a new pod with ready containers", async || {
            let pods = scene.pods("web").await?;
            Ok(pods.into_iter().find(|pod| is_new(pod) && is_true(pod, "ContainersReady")))
        })
        .await
}

/// A rollout of the backend that began while a proxy was stopped.
struct Rollout {
    /// The Fairway pod with that proxy.
    victim: Pod,
    /// The pods of the backend until then.
    before: Vec<Pod>,
    /// The first pod that replaces one of them.
    new: Pod,
}

/// Stops a proxy, and waits for the first new pod of a rollout of the backend.
async fn rollout_without_a_proxy(scene: &Scene, fairway: &Release<'_>) -> anyhow::Result<Rollout> {
    let victim = fairway.pods().await?.pop().context("no pod of Fairway")?;
    let before = scene.pods("web").await?;
    signal(scene, name(&victim)?, Signal::SIGSTOP).await?;
    scene.kubectl(&["rollout", "restart", "deployment/web"]).await?;
    let new = starting(scene, &before).await?;
    Ok(Rollout { victim, before, new })
}

/// While a proxy doesn't know a new pod, no old one ends.
async fn slow(scene: &Scene, fairway: &Release<'_>) -> anyhow::Result<()> {
    let Rollout { victim, before, new } = rollout_without_a_proxy(scene, fairway).await?;
    let begin = Instant::now();
    while begin.elapsed().as_secs() < 8 {
        let pods = scene.pods("web").await?;
        let is_there = |old: &Pod| pods.iter().any(|pod| pod.metadata.uid == old.metadata.uid && is_ready(pod));
        ensure!(before.iter().all(is_there), "an old pod ended");
        let now = scene.api::<Pod>().get(name(&new)?).await?;
        ensure!(condition(&now, ROUTED).is_none() && !is_ready(&now), "the proxy that is stopped can't know it");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    signal(scene, name(&victim)?, Signal::SIGCONT).await?;
    let begin = Instant::now();
    let ready = async || Ok(is_ready(&scene.api::<Pod>().get(name(&new)?).await?));
    scene.until("the new pod is ready", ready).await?;
    println!("a pod was ready {:.1?} after the last proxy went on", begin.elapsed());
    scene.kubectl(&["rollout", "status", "deployment/web", "--timeout=120s"]).await?;
    scene.ready("web", 2).await?;
    ensure!(reasons(scene).await? == [known(), known()], "{:?}", reasons(scene).await?);
    fairway.ready(2).await
}

/// A proxy that never resumes doesn't block a rollout.
async fn stuck(scene: &Scene, fairway: &Release<'_>) -> anyhow::Result<()> {
    let Rollout { victim, new, .. } = rollout_without_a_proxy(scene, fairway).await?;
    let begin = Instant::now();
    let now = scene
        .find("the condition", async || {
            let now = scene.api::<Pod>().get(name(&new)?).await?;
            Ok(is_true(&now, ROUTED).then_some(now))
        })
        .await?;
    println!("a pod waited {:.1?} for a proxy that is stuck", begin.elapsed());
    let found = condition(&now, ROUTED).context("no condition")?;
    ensure!(found.reason.as_deref() == Some("Timeout"), "{found:?}");
    ensure!(found.message.as_deref().is_some_and(|text| text.starts_with("1 of 2 proxies")), "{found:?}");
    signal(scene, name(&victim)?, Signal::SIGCONT).await?;
    scene.kubectl(&["rollout", "status", "deployment/web", "--timeout=120s"]).await?;
    Ok(())
}
