//! The life of a pod: its containers start in order, are probed and restarted, and end.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use fairway_e2e::scene::{self, Scene};
use fairway_testkit::Ca;
use k8s_openapi::api::core::v1::Pod;
use kube::api::ListParams;
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};
use tokio::process::{Child, ChildStdout};
use tokio::time::timeout;

use super::{begin, event, get, phase, running, shell, text, value};

#[test]
fn probes_decide_readiness_and_restarts_and_the_status_tells() -> anyhow::Result<()> {
    scene::run("kubelet-probes", async |scene| {
        let leaf = Ca::new("probes").leaf(&["probes.example"]);
        let tls = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "tls" }, "type": "kubernetes.io/tls",
            "stringData": { "tls.crt": leaf.certificate_pem(), "tls.key": leaf.key_pem() } });
        scene.apply(&tls.to_string()).await?;
        begin(scene, include_str!("probes.yaml")).await?;
        running(scene, "patient").await?;
        let first = "/status/containerStatuses/0";
        let state = async |field: &str| {
            Ok::<_, anyhow::Error>(value(&get(scene, "patient").await?, &format!("{first}/{field}")))
        };
        assert_eq!(state("started").await?, false);
        assert_eq!(state("ready").await?, false);
        shell(scene, "patient", "main", "touch /tmp/started").await?;
        scene.until("it has started", async || Ok(state("started").await? == true)).await?;
        assert_eq!(state("ready").await?, false);
        shell(scene, "patient", "main", "touch /tmp/ready").await?;
        scene.until("it is ready", async || Ok(scene::is_ready(&get(scene, "patient").await?))).await?;
        shell(scene, "patient", "main", "rm /tmp/ready").await?;
        scene.until("it is not ready", async || Ok(!scene::is_ready(&get(scene, "patient").await?))).await?;

        let before = text(&get(scene, "patient").await?, "/status/podIP");
        shell(scene, "patient", "main", "touch /tmp/sick").await?;
        scene.until("it was started again", async || Ok(state("restartCount").await? == 1)).await?;
        assert_eq!(state("lastState/terminated/exitCode").await?, 3);
        assert_eq!(state("lastState/terminated/message").await?, "last words of patient\n");
        event(scene, "patient", "Unhealthy", "Liveness probe failed").await?;
        event(scene, "patient", "Killing", "failed liveness probe, will be restarted").await?;
        running(scene, "patient").await?;
        assert_eq!(text(&get(scene, "patient").await?, "/status/podIP"), before, "the pod keeps its address");
        assert_eq!(shell(scene, "patient", "main", "ls /tmp").await?, "", "the files are those of the image again");

        let expected = [("https", true), ("tcp", true), ("http", true), ("refused", false), ("not-found", false)];
        scene
            .until("the probes over the network find the state", async || {
                let pod = get(scene, "served").await?;
                let statuses = pod.status.and_then(|status| status.container_statuses).unwrap_or_default();
                let mut ready: Vec<_> = statuses.iter().map(|status| (status.name.as_str(), status.ready)).collect();
                let mut expected = expected.to_vec();
                ready.sort_unstable();
                expected.sort_unstable();
                Ok(ready == expected)
            })
            .await?;
        event(scene, "served", "Unhealthy", "refused (os error").await?;
        event(scene, "served", "Unhealthy", "HTTP probe failed with statuscode: 404").await?;
        let conditions = "/status/conditions";
        let pod = get(scene, "served").await?;
        let found = value(&pod, conditions).to_string();
        assert!(found.contains("containers with unready status: [refused not-found]"), "{found}");

        // It restarts from time to time, so one look has to show everything.
        let pod = scene
            .find("the crashing containers are held back", async || {
                let pod = get(scene, "crashing").await?;
                let is_held_back = |index: u8| {
                    let reason = format!("/status/containerStatuses/{index}/state/waiting/reason");
                    text(&pod, &reason) == "CrashLoopBackOff"
                };
                let both = is_held_back(0) && is_held_back(1);
                Ok(both.then_some(pod))
            })
            .await?;
        let restarts = value(&pod, &format!("{first}/restartCount")).as_u64();
        assert!(restarts >= Some(1), "the first time it is started again at once: {restarts:?}");
        let ended = value(&pod, &format!("{first}/lastState/terminated"));
        assert_eq!(
            (&ended["exitCode"], &ended["reason"], &ended["message"]),
            (&json!(7), &json!("Error"), &json!("one\ntwo\n"))
        );
        assert_eq!(value(&pod, "/status/containerStatuses/1/lastState/terminated/reason"), "StartError");
        event(scene, "crashing", "BackOff", "Back-off restarting failed container").await?;
        let logs = async |more: &[&str]| scene.kubectl(&[&["logs", "crashing", "-c", "main"], more].concat()).await;
        let selections = [
            (&[][..], "one\ntwo\n"),
            (&["--previous"], "one\ntwo\n"),
            (&["--tail=1"], "two\n"),
            (&["--limit-bytes=2"], "on"),
        ];
        for (selection, expected) in selections {
            // A run that has just begun has no output yet.
            let is_so = async || Ok(logs(selection).await? == expected);
            scene.until(&format!("the log with {selection:?} is {expected:?}"), is_so).await?;
        }
        let timed = async || {
            let timed = logs(&["--timestamps", "--since=1h"]).await?;
            Ok(timed.starts_with("20") && timed.contains("Z one\n"))
        };
        scene.until("the log with times", timed).await
    })
}

#[test]
fn containers_run_in_order_and_jobs_come_to_an_end() -> anyhow::Result<()> {
    scene::run("kubelet-order", async |scene| {
        begin(scene, include_str!("order.yaml")).await?;
        phase(scene, "ordered", "Succeeded").await?;
        assert_eq!(scene.kubectl(&["logs", "ordered", "-c", "main"]).await?, "first\nbeside\nsecond\nmain\n");
        assert_eq!(scene.kubectl(&["logs", "ordered", "-c", "beside"]).await?, "sidecar ended after main\n");
        let pod = get(scene, "ordered").await?;
        for (place, reason) in [("init", "Completed"), ("c", "Completed")] {
            let statuses = if place == "init" { "/status/initContainerStatuses" } else { "/status/containerStatuses" };
            for status in value(&pod, statuses).as_array().into_iter().flatten() {
                assert_eq!(status["state"]["terminated"]["reason"], reason, "{status}");
            }
        }
        phase(scene, "broken-start", "Failed").await?;
        let pod = get(scene, "broken-start").await?;
        assert_eq!(value(&pod, "/status/initContainerStatuses/0/state/terminated/exitCode"), 1);
        assert_eq!(text(&pod, "/status/containerStatuses/0/state/waiting/reason"), "PodInitializing");
        phase(scene, "late", "Failed").await?;
        assert_eq!(text(&get(scene, "late").await?, "/status/reason"), "DeadlineExceeded");

        scene.kubectl(&["wait", "job/works", "--for=condition=complete", "--timeout=120s"]).await?;
        assert_eq!(scene.kubectl(&["logs", "--selector=job-name=works"]).await?, "done\ndone\n");
        let pods = scene.kubectl(&["get", "pods", "--selector=job-name=works", "--no-headers"]).await?;
        assert_eq!(pods.matches("Completed").count(), 2, "{pods}");
        scene.kubectl(&["wait", "job/fails", "--for=condition=failed", "--timeout=120s"]).await?;
        Ok(())
    })
}

#[test]
fn a_pod_ends_by_its_hooks_then_when_asked_and_then_by_force() -> anyhow::Result<()> {
    scene::run("kubelet-end", async |scene| {
        begin(scene, include_str!("end.yaml")).await?;
        for name in ["polite", "stubborn", "lingering", "forced"] {
            running(scene, name).await?;
        }
        let polite = Followed::after(scene, "polite", "main", "begun").await?;
        let lingering = SocketAddr::new(text(&get(scene, "lingering").await?, "/status/podIP").parse()?, 3000);
        scene.until("it serves", async || Ok(scene.get(lingering, "any", "/begun").await?.status == 200)).await?;
        let lingering = Followed::after(scene, "lingering", "http", "/begun").await?;
        let address = SocketAddr::new(text(&get(scene, "forced").await?, "/status/podIP").parse()?, 3000);
        scene.until("the other one serves", async || Ok(scene.get(address, "any", "/").await?.status == 200)).await?;
        let begin = Instant::now();
        let words = ["delete", "pod", "polite", "stubborn", "lingering", "--wait=false"];
        scene.kubectl(&words).await?;
        scene.kubectl(&["delete", "pod", "forced", "--force", "--grace-period=0"]).await?;

        assert_eq!(polite.rest().await?, "before\nasked to end\nended\n");
        let ended = async |name: &str| -> anyhow::Result<Pod> {
            scene
                .find(&format!("{name} has ended"), async || {
                    let pod = get(scene, name).await?;
                    Ok(matches!(&*text(&pod, "/status/phase"), "Succeeded" | "Failed").then_some(pod))
                })
                .await
        };
        let terminated = "/status/containerStatuses/0/state/terminated";
        let pod = ended("stubborn").await?;
        assert_eq!(text(&pod, "/status/phase"), "Failed");
        assert_eq!(value(&pod, &format!("{terminated}/exitCode")), 137, "by force, after its time");
        let pod = ended("polite").await?;
        assert_eq!(text(&pod, "/status/phase"), "Succeeded");
        assert_eq!(value(&pod, &format!("{terminated}/exitCode")), 0);
        event(scene, "polite", "Killing", "Stopping container main").await?;

        assert!(lingering.rest().await?.contains("made to /prepare-to-end to client (198.1"), "the hook asks");
        event(scene, "lingering", "FailedPreStopHook", "refused (os error").await?;
        ended("lingering").await?;
        let took = begin.elapsed();
        assert!(took >= Duration::from_secs(3), "the hook waits: {took:?}");

        // The object of the killed container is gone at once, its processes soon after.
        assert!(scene.api::<Pod>().get_opt("forced").await?.is_none());
        scene.until("nothing of it answers", async || Ok(scene.get(address, "any", "/").await.is_err())).await?;
        for name in ["polite", "stubborn", "lingering"] {
            scene.kubectl(&["patch", "pod", name, "--type=merge", "-p", r#"{"metadata":{"finalizers":null}}"#]).await?;
        }
        scene
            .until("all are gone", async || Ok(scene.api::<Pod>().list(&ListParams::default()).await?.items.is_empty()))
            .await
    })
}

/// A log that is followed by a process, which ends when this value is dropped.
struct Followed {
    lines: BufReader<ChildStdout>,
    _process: Child,
}

impl Followed {
    /// The text after the first line with `word`.
    async fn after(scene: &Scene, pod: &str, container: &str, word: &str) -> anyhow::Result<Self> {
        let mut command = scene.cluster().command("kubectl");
        command.args(["--namespace", scene.namespace(), "logs", "--follow", pod, "--container", container]);
        let mut process = tokio::process::Command::from(command).stdout(Stdio::piped()).kill_on_drop(true).spawn()?;
        let mut lines = BufReader::new(process.stdout.take().context("a pipe")?);
        let mut line = String::new();
        while !line.contains(word) {
            line.clear();
            let read = timeout(scene::PATIENCE, lines.read_line(&mut line)).await.context("nothing is logged")??;
            ensure!(read > 0, "the log ends before {word:?}");
        }
        Ok(Self { lines, _process: process })
    }

    /// The rest of the log, up to its end.
    async fn rest(mut self) -> anyhow::Result<String> {
        let mut text = String::new();
        timeout(scene::PATIENCE, self.lines.read_to_string(&mut text)).await.context("the log does not end")??;
        Ok(text)
    }
}
