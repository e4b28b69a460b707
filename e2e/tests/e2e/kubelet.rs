//! What pods may expect of the Nodes that they run on: the process kubelet does what a kubelet with a container runtime does.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use fairway_e2e::cluster::{Action, Options};
use fairway_e2e::scene::{self, Scene};
use fairway_testkit::Ca;
use k8s_openapi::api::authentication::v1::TokenReview;
use k8s_openapi::api::core::v1::{Event, Node, Pod, ServiceAccount};
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader};

const NODES: [(&str, Ipv4Addr); 2] =
    [("node-a", Ipv4Addr::new(198, 19, 0, 11)), ("node-b", Ipv4Addr::new(198, 19, 0, 12))];

#[test]
fn volumes_and_variables_show_what_objects_say_and_volumes_follow_them() -> anyhow::Result<()> {
    scene::run("kubelet-volumes", async |scene| {
        begin(scene, include_str!("kubelet/volumes.yaml")).await?;
        running(scene, "full").await?;
        let pod = get(scene, "full").await?;
        let sh = async |script: &str| shell(scene, "full", "main", script).await;

        let variables =
            sh("echo $W_greeting; echo $WHO; echo $TEXT; echo ${NONE-unset}; echo $IP $NODE $CPU; pwd").await?;
        let places = format!("{} {} 10", text(&pod, "/status/podIP"), text(&pod, "/spec/nodeName"));
        let lines = ["hello", "alice", "alice is $(NOBODY), $(WHO)", "unset", &places, "/scratch"];
        assert_eq!(variables, lines.join("\n") + "\n");
        assert_eq!(sh("echo $KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT").await?, "10.96.0.1:443\n");

        assert_eq!(
            sh("cat /words/deep/file; od -An -tx1 /words/bytes; ls /words").await?,
            "in a folder 00 01 02\nbytes\ndeep\n"
        );
        assert_eq!(sh("cat /pod/note /pod/memory; ls /maybe | wc -l").await?, "say \"hi\"640\n");
        assert_eq!(sh("cat /pod/labels; echo; cat /all/word /all/who").await?, "color=\"blue\"\nhelloalice");
        // The group of the volumes may read what its owner may.
        assert_eq!(
            sh("id -u; id -g; id -G; stat -Lc '%u:%g %a' /pass/password").await?,
            "1234\n2345\n2345 3456\n0:3456 440\n"
        );
        let writable = "echo mine > /scratch/file && stat -c '%u:%g' /scratch/file && cat /scratch-again/file && touch /of-node/x && ls /scratch/on";
        assert_eq!(sh(writable).await?, format!("1234:3456\nmine\n{}\n", text(&pod, "/spec/nodeName")));
        for closed in ["/words/new", "/pass/password", "/scratch-again/new", "/new"] {
            let refused = sh(&format!("{{ echo x > {closed}; }} 2>/dev/null || echo refused")).await?;
            assert_eq!(refused, "refused\n", "{closed}");
        }
        assert_eq!(sh("head -c 2000000 /dev/zero > /memory/x 2>/dev/null; stat -c %s /memory/x").await?, "1048576\n");

        let review =
            json!({ "metadata": {}, "spec": { "token": sh("cat /all/token").await?, "audiences": ["elsewhere"] } });
        let reviews: Api<TokenReview> = Api::all(scene.client());
        let review = reviews.create(&PostParams::default(), &serde_json::from_value(review)?).await?.status;
        let review = review.context("a review has a status")?;
        let user = review.user.context("the token is good")?;
        assert_eq!(user.username, Some(format!("system:serviceaccount:{}:default", scene.namespace())));
        let bound = user.extra.unwrap_or_default();
        assert_eq!(bound["authentication.kubernetes.io/pod-name"], ["full"]);
        let own = sh("cd /var/run/secrets/kubernetes.io/serviceaccount; cat namespace; head -n1 ca.crt; test -s token")
            .await?;
        assert_eq!(own, format!("{}-----BEGIN CERTIFICATE-----\n", scene.namespace()));

        let secret = r#"{"stringData":{"password":"second","extra":"new"}}"#;
        scene.kubectl(&["patch", "secret", "pass", "-p", secret]).await?;
        scene.kubectl(&["label", "pod", "full", "--overwrite", "color=red"]).await?;
        scene
            .until("the volumes follow", async || {
                Ok(sh("cat /pass/password /pass/extra /pod/labels").await? == "secondnewcolor=\"red\"")
            })
            .await?;
        assert_eq!(sh("cat /single/password").await?, "first", "a path in a volume stays what it was");
        Ok(())
    })
}

#[test]
fn a_pod_waits_for_what_is_missing_and_says_so() -> anyhow::Result<()> {
    scene::run("kubelet-waiting", async |scene| {
        begin(scene, include_str!("kubelet/waiting.yaml")).await?;
        let waiting = "/status/containerStatuses/0/state/waiting";
        let cases = [
            ("wants-variable", "CreateContainerConfigError", r#"secret "late" not found"#),
            ("wants-image", "ErrImageNeverPull", r#""example.com/unheard/of:1" is not present"#),
            ("wants-other-user", "CreateContainerConfigError", "runAsNonRoot and image will run as root"),
            ("wants-volume", "ContainerCreating", ""),
        ];
        for (name, reason, message) in cases {
            let says = async || {
                let pod = get(scene, name).await?;
                Ok(text(&pod, &format!("{waiting}/reason")) == reason
                    && text(&pod, &format!("{waiting}/message")).contains(message)
                    && text(&pod, "/status/phase") == "Pending")
            };
            scene.until(&format!("{name} says {reason}"), says).await?;
        }
        event(scene, "wants-volume", "FailedMount", r#"secret "late" not found"#).await?;
        event(scene, "wants-image", "Failed", "is not present with pull policy of Never").await?;
        phase(scene, "wants-kernel", "Failed").await?;
        assert_eq!(text(&get(scene, "wants-kernel").await?, "/status/reason"), "SysctlForbidden");

        scene.kubectl(&["create", "secret", "generic", "late", "--from-literal=word=here"]).await?;
        running(scene, "wants-variable").await?;
        running(scene, "wants-volume").await?;
        assert_eq!(shell(scene, "wants-variable", "main", "echo $LATE").await?, "here\n");
        assert_eq!(shell(scene, "wants-volume", "main", "cat /late/word").await?, "here");
        for name in ["wants-image", "wants-other-user"] {
            assert_eq!(text(&get(scene, name).await?, "/status/phase"), "Pending", "{name}");
        }
        // One that never ran ends as well.
        scene.kubectl(&["delete", "pod", "wants-image", "--timeout=20s"]).await?;
        Ok(())
    })
}

#[test]
fn a_security_context_is_what_a_container_gets() -> anyhow::Result<()> {
    scene::run("kubelet-rights", async |scene| {
        begin(scene, include_str!("kubelet/rights.yaml")).await?;
        running(scene, "plain").await?;
        running(scene, "hardened").await?;
        let show = "grep -E '^(CapEff|CapBnd|NoNewPrivs|Seccomp):' /proc/self/status | tr -s '\\t\\n' '  '";
        let plain = async |script: &str| shell(scene, "plain", "main", script).await;
        let hardened = async |script: &str| shell(scene, "hardened", "main", script).await;

        // The 14 capabilities that container runtimes leave by default; of them, one.
        assert_eq!(plain(show).await?, "CapEff: 00000000a80425fb CapBnd: 00000000a80425fb NoNewPrivs: 0 Seccomp: 0 ");
        let rights = "CapEff: 0000000000000000 CapBnd: 0000000000000400 NoNewPrivs: 1 Seccomp: 2 ";
        assert_eq!(hardened(show).await?, rights, "for a command");
        assert_eq!(hardened(&show.replace("self", "1")).await?, rights, "for the first process");
        assert_eq!(plain("id -u; hostname").await?, "0\nplain\n");
        assert_eq!(hardened("id -u; id -g; id -G; hostname").await?, "101\n82\n82 77\ncastle\n");
        assert_eq!(hardened("grep -c outside.example /etc/hosts").await?, "1\n");
        let kernel = "/proc/sys/net/ipv4/ip_unprivileged_port_start";
        assert_eq!(hardened(&format!("cat {kernel}")).await?, "42\n");
        assert_eq!(plain(&format!("cat {kernel}")).await?, "1024\n", "a setting of one pod");

        for (closed, why) in [
            ("touch /tmp/x", "the root is read-only"),
            ("unshare --net true", "no new namespaces"),
            ("chroot / true", "refused system call"),
            ("kill -0 2", "no process but its own"),
        ] {
            assert_eq!(hardened(&format!("{closed} 2>/dev/null && echo open")).await?, "", "{why}: {closed}");
        }
        for closed in ["mount -t tmpfs tmpfs /tmp", "touch /usr/x", "echo 1 > /proc/sys/kernel/sysrq"] {
            assert_eq!(plain(&format!("{{ {closed}; }} 2>/dev/null && echo open")).await?, "", "{closed}");
        }
        assert_eq!(plain("touch /tmp/x /x && echo open; ls /home /opt /srv 2>/dev/null | wc -l").await?, "open\n0\n");

        phase(scene, "own", "Succeeded").await?;
        let version = scene.kubectl(&["logs", "own"]).await?;
        assert!(version.starts_with("fairway "), "{version}");
        Ok(())
    })
}

#[test]
fn probes_decide_readiness_and_restarts_and_the_status_tells() -> anyhow::Result<()> {
    scene::run("kubelet-probes", async |scene| {
        let leaf = Ca::new("probes").leaf(&["probes.example"]);
        let tls = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "tls" }, "type": "kubernetes.io/tls",
            "stringData": { "tls.crt": leaf.certificate_pem(), "tls.key": leaf.key_pem() } });
        scene.apply(&tls.to_string()).await?;
        begin(scene, include_str!("kubelet/probes.yaml")).await?;
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
            .until("probes over the network say what is so", async || {
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
        let told = value(&pod, conditions).to_string();
        assert!(told.contains("containers with unready status: [refused not-found]"), "{told}");

        scene
            .until("the crashing container is held back", async || {
                let pod = get(scene, "crashing").await?;
                Ok(text(&pod, &format!("{first}/state/waiting/reason")) == "CrashLoopBackOff")
            })
            .await?;
        let pod = get(scene, "crashing").await?;
        assert_eq!(value(&pod, &format!("{first}/restartCount")), 1);
        let ended = value(&pod, &format!("{first}/lastState/terminated"));
        assert_eq!(
            (&ended["exitCode"], &ended["reason"], &ended["message"]),
            (&json!(7), &json!("Error"), &json!("one\ntwo\n"))
        );
        assert_eq!(value(&pod, "/status/containerStatuses/1/lastState/terminated/reason"), "StartError");
        event(scene, "crashing", "BackOff", "Back-off restarting failed container").await?;
        let logs = async |more: &[&str]| scene.kubectl(&[&["logs", "crashing", "-c", "main"], more].concat()).await;
        assert_eq!(logs(&[]).await?, "one\ntwo\n");
        assert_eq!(logs(&["--previous"]).await?, "one\ntwo\n");
        assert_eq!(logs(&["--tail=1"]).await?, "two\n");
        assert_eq!(logs(&["--limit-bytes=2"]).await?, "on");
        let timed = logs(&["--timestamps", "--since=1h"]).await?;
        assert!(timed.starts_with("20") && timed.contains("Z one\n"), "{timed}");
        Ok(())
    })
}

#[test]
fn containers_run_in_order_and_jobs_come_to_an_end() -> anyhow::Result<()> {
    scene::run("kubelet-order", async |scene| {
        begin(scene, include_str!("kubelet/order.yaml")).await?;
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

        scene.kubectl(&["wait", "job/works", "--for=condition=complete", "--timeout=30s"]).await?;
        assert_eq!(scene.kubectl(&["logs", "--selector=job-name=works"]).await?, "done\ndone\n");
        let pods = scene.kubectl(&["get", "pods", "--selector=job-name=works", "--no-headers"]).await?;
        assert_eq!(pods.matches("Completed").count(), 2, "{pods}");
        scene.kubectl(&["wait", "job/fails", "--for=condition=failed", "--timeout=30s"]).await?;
        Ok(())
    })
}

#[test]
fn a_pod_ends_by_its_hooks_then_when_asked_and_then_by_force() -> anyhow::Result<()> {
    scene::run("kubelet-end", async |scene| {
        begin(scene, include_str!("kubelet/end.yaml")).await?;
        for name in ["polite", "stubborn", "lingering", "forced"] {
            running(scene, name).await?;
        }
        let mut polite = follow(scene, "polite", "main", "begun").await?;
        let lingering = SocketAddr::new(text(&get(scene, "lingering").await?, "/status/podIP").parse()?, 3000);
        scene.until("it serves", async || Ok(scene.get(lingering, "any", "/begun").await?.status == 200)).await?;
        let mut lingering = follow(scene, "lingering", "http", "/begun").await?;
        let address = SocketAddr::new(text(&get(scene, "forced").await?, "/status/podIP").parse()?, 3000);
        scene.until("the other one serves", async || Ok(scene.get(address, "any", "/").await?.status == 200)).await?;
        let begin = Instant::now();
        let words = ["delete", "pod", "polite", "stubborn", "lingering", "--wait=false"];
        scene.kubectl(&words).await?;
        scene.kubectl(&["delete", "pod", "forced", "--force", "--grace-period=0"]).await?;

        assert_eq!(rest(&mut polite).await?, "before\nasked to end\nended\n");
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

        assert!(rest(&mut lingering).await?.contains("made to /prepare-to-end to client (198.1"), "the hook asks");
        event(scene, "lingering", "FailedPreStopHook", "refused (os error").await?;
        ended("lingering").await?;
        let took = begin.elapsed();
        assert!(took >= Duration::from_secs(3) && took < Duration::from_secs(20), "the hook waits: {took:?}");

        // The object of the one that was ended by force is gone at once, the rest soon.
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

#[test]
fn ports_of_the_node_lead_to_its_pod_and_are_freed() -> anyhow::Result<()> {
    scene::run("kubelet-network", async |scene| {
        begin(scene, include_str!("kubelet/network.yaml")).await?;
        scene.ready("everywhere", NODES.len()).await?;
        scene
            .until("the pod in the Node's network is ready", async || {
                Ok(scene::is_ready(&get(scene, "in-node").await?))
            })
            .await?;
        let answers = async |address: SocketAddr| anyhow::Ok(scene.get(address, "any", "/who").await?.text());
        for (node, address) in NODES {
            let answer = answers(SocketAddr::from((address, 18080))).await?;
            assert!(answer.contains(&format!("\"pod\": \"{node}\"")), "{answer}");
        }
        for pod in scene.pods("everywhere").await? {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let log = scene.kubectl(&["logs", name]).await?;
            assert!(log.contains("/who to client (198.19.0.1:"), "the client's address is kept: {log}");
            // Its own Service and its own Node, from inside.
            let (_, node) =
                NODES.into_iter().find(|(node, _)| text(&pod, "/spec/nodeName") == *node).context("a Node")?;
            let own = text(&pod, "/status/podIP");
            assert_eq!(text(&pod, "/status/hostIP"), node.to_string());
            assert_ne!(own, node.to_string());
        }
        let pod = get(scene, "in-node").await?;
        let (_, node) = NODES[1];
        assert_eq!(text(&pod, "/status/podIP"), node.to_string());
        let answer = answers(SocketAddr::from((node, 18081))).await?;
        assert!(answer.contains(&format!("\"pod\": \"{node}\"")), "{answer}");
        let service = scene.kubectl(&["get", "service", "everywhere", "-o", "jsonpath={.spec.clusterIP}"]).await?;
        let service = SocketAddr::new(service.parse()?, 80);
        scene.until("the Service leads to one", async || Ok(answers(service).await?.contains("node-"))).await?;

        scene
            .kubectl(&["delete", "daemonset/everywhere", "pod/in-node", "--cascade=foreground", "--timeout=30s"])
            .await?;
        for port in [18080, 18081] {
            let free = SocketAddr::from((node, port));
            scene.until("the port is free", async || Ok(tokio::net::TcpStream::connect(free).await.is_err())).await?;
        }
        Ok(())
    })
}

#[test]
fn nodes_are_drained_and_pods_come_back_with_their_kubelet() -> anyhow::Result<()> {
    scene::run_alone("kubelet-alone", &Options::default(), async |scene| {
        begin(scene, include_str!("kubelet/restart.yaml")).await?;
        scene.echo("web", 4).await?;
        let nodes = async || {
            let pods = scene.pods("web").await?;
            anyhow::Ok(pods.iter().map(|pod| text(pod, "/spec/nodeName")).collect::<Vec<_>>())
        };
        assert!(nodes().await?.contains(&"node-a".to_owned()), "spread over both Nodes");
        scene.kubectl(&["drain", "node-a", "--ignore-daemonsets", "--timeout=40s"]).await?;
        scene.ready("web", 4).await?;
        assert!(nodes().await?.iter().all(|node| node == "node-b"), "{:?}", nodes().await?);
        scene.kubectl(&["uncordon", "node-a"]).await?;
        phase(scene, "finished", "Succeeded").await?;

        let before = get(scene, "stays").await?;
        for (action, restarts) in [(Action::Stop, 1), (Action::Kill, 2)] {
            scene.cluster().component("kubelet-node-b", action).await?;
            let address = SocketAddr::new(text(&get(scene, "stays").await?, "/status/podIP").parse()?, 3000);
            scene
                .until("its containers end with it", async || Ok(scene.get(address, "any", "/").await.is_err()))
                .await?;
            scene.cluster().component("kubelet-node-b", Action::Start).await?;
            scene
                .until("the pod runs again, once more often", async || {
                    let pod = get(scene, "stays").await?;
                    Ok(scene::is_ready(&pod) && value(&pod, "/status/containerStatuses/0/restartCount") == restarts)
                })
                .await?;
            scene.ready("web", 4).await?;
        }
        let after = get(scene, "stays").await?;
        assert_eq!(after.metadata.uid, before.metadata.uid);
        let address = SocketAddr::new(text(&after, "/status/podIP").parse()?, 3000);
        ensure!(scene.get(address, "any", "/").await?.status == 200, "it answers at its new address");
        let pod = get(scene, "finished").await?;
        assert_eq!(text(&pod, "/status/phase"), "Succeeded", "what has ended stays ended");
        assert_eq!(value(&pod, "/status/containerStatuses/0/restartCount"), 0);

        let nodes: Api<Node> = Api::all(scene.client());
        for (name, address) in NODES {
            let node = nodes.get(name).await?;
            let status = serde_json::to_value(&node.status)?;
            assert_eq!(status["daemonEndpoints"]["kubeletEndpoint"]["Port"], 10250);
            assert_eq!(status["addresses"][0], json!({ "type": "InternalIP", "address": address }));
        }
        Ok(())
    })
}

/// Applies objects as soon as the namespace can have pods.
async fn begin(scene: &Scene, manifest: &str) -> anyhow::Result<()> {
    let accounts = scene.api::<ServiceAccount>();
    scene.until("the default account", async || Ok(accounts.get_opt("default").await?.is_some())).await?;
    scene.apply(manifest).await
}

async fn get(scene: &Scene, name: &str) -> anyhow::Result<Pod> {
    Ok(scene.api().get(name).await?)
}

/// A field of a pod, by its JSON pointer; null where there is none.
fn value(pod: &Pod, pointer: &str) -> Value {
    serde_json::to_value(pod).ok().and_then(|pod| pod.pointer(pointer).cloned()).unwrap_or_default()
}

fn text(pod: &Pod, pointer: &str) -> String {
    value(pod, pointer).as_str().unwrap_or_default().to_owned()
}

/// Waits until all containers of a pod run.
async fn running(scene: &Scene, name: &str) -> anyhow::Result<()> {
    scene
        .until(&format!("{name} runs"), async || {
            let statuses = value(&get(scene, name).await?, "/status/containerStatuses");
            let statuses = statuses.as_array().cloned().unwrap_or_default();
            Ok(!statuses.is_empty() && statuses.iter().all(|status| !status["state"]["running"].is_null()))
        })
        .await
}

async fn phase(scene: &Scene, name: &str, phase: &str) -> anyhow::Result<()> {
    let reached = async || Ok(text(&get(scene, name).await?, "/status/phase") == phase);
    scene.until(&format!("{name} is {phase}"), reached).await
}

/// Waits for an Event about a pod.
async fn event(scene: &Scene, pod: &str, reason: &str, message: &str) -> anyhow::Result<()> {
    let events = scene.api::<Event>();
    let about = ListParams::default().fields(&format!("involvedObject.name={pod},reason={reason}"));
    scene
        .until(&format!("an Event {reason} about {pod}: {message}"), async || {
            let found = events.list(&about).await?.items;
            Ok(found.iter().any(|event| event.message.as_deref().unwrap_or_default().contains(message)))
        })
        .await
}

/// Runs a script in a container; what it wrote.
async fn shell(scene: &Scene, pod: &str, container: &str, script: &str) -> anyhow::Result<String> {
    let node = text(&get(scene, pod).await?, "/spec/nodeName");
    let escape = |byte: &u8| format!("%{byte:02x}");
    let script: String = script.as_bytes().iter().map(escape).collect();
    let namespace = scene.namespace();
    let path = format!("/api/v1/nodes/{node}/proxy/run/{namespace}/{pod}/{container}?cmd=sh&cmd=-c&cmd={script}");
    let request = hyper::Request::post(path).body(Vec::new())?;
    scene.client().request_text(request).await.with_context(|| format!("a script in {pod}"))
}

type Lines = BufReader<tokio::process::ChildStdout>;

/// Follows a log that is already beyond a line with `word`; the process ends with the log.
async fn follow(scene: &Scene, pod: &str, container: &str, word: &str) -> anyhow::Result<Lines> {
    let mut command = scene.cluster().command("kubectl");
    command.args(["--namespace", scene.namespace(), "logs", "--follow", pod, "--container", container]);
    let mut child = tokio::process::Command::from(command).stdout(std::process::Stdio::piped()).spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("a pipe")?);
    let mut line = String::new();
    while !line.contains(word) {
        line.clear();
        let read = tokio::time::timeout(scene::PATIENCE, lines.read_line(&mut line)).await;
        ensure!(read.context("nothing is logged")?? > 0, "the log ends before {word:?}");
    }
    // Reaped by the runtime.
    drop(child);
    Ok(lines)
}

/// The rest of a log, up to its end.
async fn rest(lines: &mut Lines) -> anyhow::Result<String> {
    let mut text = String::new();
    tokio::time::timeout(scene::PATIENCE, lines.read_to_string(&mut text)).await.context("the log does not end")??;
    Ok(text)
}
