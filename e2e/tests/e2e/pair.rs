//! Fairway as two containers in each pod: a controller with the token, and a proxy without.

use std::fs;

use anyhow::{Context, ensure};
use fairway_e2e::procfs::Process;
use fairway_e2e::scene;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::rollout::{HOST, TWO, restart, restarts, scale, serve_as, unharmed};

const PAIR: &str = "controller.mode=pair";

#[test]
fn the_process_that_serves_has_no_credentials() -> anyhow::Result<()> {
    scene::run("pair-credentials", async |scene| {
        let (fairway, address) = serve_as(scene, 1, &[PAIR]).await?;
        scene.served(address, HOST).await?;
        let pod = fairway.pods().await?.pop().and_then(|pod| pod.metadata.name).context("no pod")?;
        let (controller, proxy) = (scene.process_of(&pod, "controller")?, scene.process_of(&pod, "proxy")?);
        let has = |process: Process| -> anyhow::Result<Vec<String>> {
            let files =
                fs::read_dir(process.path("fd"))?.flatten().filter_map(|entry| fs::read_link(entry.path()).ok());
            let files = files.map(|target| target.display().to_string());
            let mounts = fs::read_to_string(process.path("mounts"))?;
            let mounts = mounts.lines().filter_map(|line| line.split(' ').nth(1).map(str::to_owned));
            let words = ["serviceaccount", "token", "kubeconfig", "secrets"];
            let named = |text: &String| words.iter().any(|word| text.contains(word));
            Ok(files.chain(mounts).chain(process.words()?).filter(named).collect())
        };
        ensure!(!has(controller)?.is_empty(), "the controller has a token, or the test looks at the wrong places");
        ensure!(has(proxy)?.is_empty(), "the proxy has {:?}", has(proxy)?);
        let token = "root/var/run/secrets/kubernetes.io/serviceaccount/token";
        ensure!(controller.path(token).exists() && !proxy.path(token).exists(), "whose token is it?");
        for (field, expected) in [("NoNewPrivs", "1"), ("Seccomp", "2"), ("CapEff", "0000000000000000")] {
            ensure!(proxy.field(field)? == expected, "{field}: {}", proxy.field(field)?);
        }
        // The container runtime's filter is the same for both.
        let filters = |process: Process| anyhow::Ok(process.field("Seccomp_filters")?.parse::<u32>()?);
        ensure!(filters(proxy)? == filters(controller)? + 1, "{} filters", filters(proxy)?);
        let log = scene.kubectl(&["logs", &pod, "--container", "proxy"]).await?;
        let without = log.lines().find(|line| line.contains("may use all files"));
        ensure!(without.is_none_or(|line| line.contains("this kernel has no Landlock")), "{without:?}");
        Ok(())
    })
}

#[test]
fn no_request_fails_while_pods_of_two_containers_are_replaced_or_lose_their_controllers() -> anyhow::Result<()> {
    scene::run("pair-rollout", async |scene| {
        let (fairway, address) = serve_as(scene, 2, &[TWO, PAIR]).await?;
        unharmed(scene, "restart of both processes", address, async || {
            restart(scene, &fairway.controller()).await?;
            fairway.ready(2).await
        })
        .await?;
        unharmed(scene, "the controllers are killed", address, async || {
            for pod in fairway.pods().await? {
                let pod = pod.metadata.name.context("a pod without a name")?;
                kill(Pid::from_raw(scene.process_of(&pod, "controller")?.id()), Signal::SIGKILL)?;
            }
            // The new pods must find out the current state.
            scale(scene, 4).await
        })
        .await?;
        let pods = fairway.pods().await?;
        ensure!(
            pods.iter().all(|pod| restarts(pod) == 0),
            "no container has ended: their pods would have been unready"
        );
        for pod in pods {
            let name = pod.metadata.name.context("a pod without a name")?;
            scene
                .until("there is a controller again", async || Ok(scene.process_of(&name, "controller").is_ok()))
                .await?;
        }
        unharmed(scene, "an update from two processes to one", address, async || {
            fairway.upgrade(&[TWO, "controller.mode=single"]).await?;
            fairway.ready(2).await
        })
        .await
    })
}
