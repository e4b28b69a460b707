//! Requests continue during rollouts, scaling, upgrades, drains and kills.
//!
//! Clients with kept connections, clients with a connection per request, and clients with slow requests all use the
//! address of the load balancer, all the time. Each step has its own account.

use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Context, ensure};
use fairway_e2e::cluster::network::NODES;
use fairway_e2e::cluster::{Action, Options};
use fairway_e2e::load::{Account, Failure, Kind, Load, Running};
use fairway_e2e::scene::{self, Release, Scene, Session, is_ready};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use nix::sys::signal::Signal;

pub(super) const HOST: &str = "shop.example";
/// Two pods of Fairway, as in an installation that has to survive the loss of one; everything else as in the chart.
pub(super) const TWO: &str = "controller.replicaCount=2";
/// Number of clients of each kind: those that keep their connections, those that don't, those with slow requests.
const CLIENTS: [usize; 3] = [8, 4, 4];

#[test]
fn no_request_fails_while_the_pods_of_a_backend_are_replaced_or_become_fewer_or_more() -> anyhow::Result<()> {
    scene::run("rollout-backend", async |scene| {
        let (_fairway, address) = serve(scene, 20).await?;
        for round in 1..=2 {
            unharmed(scene, &format!("rolling update {round} of a backend"), address, async || {
                restart(scene, "web").await?;
                scene.ready("web", 20).await
            })
            .await?;
        }
        unharmed(scene, "a backend of 20 pods becomes one of 1", address, async || scale(scene, 1).await).await?;
        unharmed(scene, "a backend of 1 pod becomes one of 20", address, async || scale(scene, 20).await).await
    })
}

#[test]
fn no_request_fails_though_the_pods_of_a_backend_stop_listening_before_anybody_knows() -> anyhow::Result<()> {
    scene::run("rollout-hasty", async |scene| {
        let (_fairway, address) = serve(scene, 4).await?;
        hasty_update(scene, "rolling update of a backend that ends at once", address, 4).await
    })
}

#[test]
fn no_request_fails_while_fairway_is_restarted_or_upgraded() -> anyhow::Result<()> {
    scene::run("rollout-fairway", async |scene| {
        let (fairway, address) = serve(scene, 2).await?;
        let restarted = async || {
            restart(scene, &fairway.controller()).await?;
            fairway.ready(2).await
        };
        unharmed(scene, "restart of Fairway", address, restarted).await?;
        unharmed(scene, "upgrade by the chart", address, async || {
            fairway.upgrade(&[TWO, "controller.resources.requests.memory=91Mi"]).await?;
            fairway.ready(2).await
        })
        .await?;
        // The load balancer has to choose a node with a pod, and the last pods of a node serve until it has.
        fairway.upgrade(&[TWO, "controller.service.externalTrafficPolicy=Local"]).await?;
        fairway.ready(2).await?;
        scene.served(address, HOST).await?;
        unharmed(scene, "restart of Fairway with externalTrafficPolicy: Local", address, restarted).await
    })
}

/// With its own ports: other tests use theirs on the nodes' network.
#[test]
fn no_request_fails_at_a_node_while_its_pod_hands_its_sockets_to_the_next_one() -> anyhow::Result<()> {
    scene::run("rollout-handover", async |scene| {
        let fairway = scene
            .fairway(&[
                "controller.mode=split",
                "controller.control.clusterIP=10.96.0.43",
                "controller.kind=DaemonSet",
                "controller.hostNetwork=true",
                "controller.handover.enabled=true",
                "controller.service.type=ClusterIP",
                "controller.containerPort.http=18080",
                "controller.containerPort.https=18443",
                "controller.extraArgs.healthz-port=18254",
            ])
            .await?;
        scene.echo("web", 2).await?;
        fairway.ingress("web", HOST, "web").await?;
        fairway.ready(NODES.len()).await?;
        let address = SocketAddr::from((NODES[0].address, 18080));
        scene.served(address, HOST).await?;
        let daemonset = format!("daemonset/{}", fairway.controller());
        for round in 1..=2 {
            unharmed(scene, &format!("restart {round} of Fairway at a node"), address, async || {
                scene.kubectl(&["rollout", "restart", &daemonset]).await?;
                scene.kubectl(&["rollout", "status", &daemonset, "--timeout=120s"]).await?;
                fairway.ready(NODES.len()).await
            })
            .await?;
            for pod in fairway.pods().await? {
                let name = pod.metadata.name.context("a pod without a name")?;
                let log = scene.kubectl(&["logs", &name]).await?;
                ensure!(log.contains("taking over from another process"), "{name} took nothing over: {log}");
            }
        }
        Ok(())
    })
}

#[test]
fn a_killed_pod_of_fairway_takes_no_more_than_its_own_connections_along() -> anyhow::Result<()> {
    // No other test may see a stopped kubelet.
    scene::run_alone("rollout-kill", &Options::default(), async |scene| {
        let (fairway, address) = serve(scene, 2).await?;
        let traffic = Traffic::begin(address).await;
        let victim = fairway.pods().await?.into_iter().find(is_ready).context("no ready pod of Fairway")?;
        let name = victim.metadata.name.clone().context("a pod without a name")?;
        let node = victim.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).context("a pod without a node")?;
        let kubelet = format!("kubelet-{node}");
        // Keeps the cluster from noticing the death before a request is refused.
        scene.cluster().component(&kubelet, Action::Pause).await?;
        let open = connections(&victim).await?;
        let death = Instant::now();
        scene.signal(&name, Signal::SIGKILL)?;
        scene.until("a connection is refused", async || Ok(traffic.failures().iter().any(is_refused))).await?;
        scene.cluster().component(&kubelet, Action::Resume).await?;
        scene
            .until("the container runs again and is ready", async || {
                let pods = fairway.pods().await?;
                let again = |pod: &Pod| restarts(pod) > restarts(&victim) && is_ready(pod);
                Ok(pods.iter().any(|pod| pod.metadata.name.as_ref() == Some(&name) && again(pod)))
            })
            .await?;
        let took = death.elapsed();
        scene
            .until("a second's worth of requests without a failure", async || {
                let before = traffic.failures().len();
                traffic.goes_on().await;
                Ok(traffic.failures().len() == before)
            })
            .await?;
        let accounts = traffic.end().await;
        println!("a pod of Fairway with {open} connections is killed, {took:.1?} until it is ready again");
        show(&accounts);

        let failures = || accounts.iter().flat_map(|account| &account.failures);
        let refused = failures().filter(|failure| is_refused(failure)).count();
        let cut = failures().count() - refused;
        let resent = accounts.iter().map(|account| account.retried).sum::<u64>() as usize;
        let last = failures().map(Failure::ended).max().unwrap_or(death).saturating_duration_since(death);
        println!(
            "its connections: {cut} requests failed, {resent} were sent again; connections that were refused: {refused}; the last \
             failure {last:.2?} after its death"
        );
        for failure in failures() {
            let is_cut = matches!(failure.kind, Kind::Reset | Kind::Closed | Kind::Truncated(_));
            ensure!(is_cut || is_refused(failure), "not because of the death: {failure}");
            ensure!(failure.ended() >= death, "before the death: {failure}");
        }
        // A few start and end between the count and the death.
        let [_, fresh, slow] = CLIENTS;
        ensure!(cut + resent <= open + fresh + slow, "more requests were cut than the dead pod had connections");
        Ok(())
    })
}

#[test]
fn no_request_fails_while_nodes_are_drained() -> anyhow::Result<()> {
    scene::run_alone("rollout-drain", &Options::default(), async |scene| {
        let (fairway, address) = serve(scene, 4).await?;
        let budgets = scene.api::<PodDisruptionBudget>();
        let budget = budgets.get(&fairway.controller()).await.context("the budget that the chart makes")?;
        ensure!(budget.status.is_some_and(|status| status.disruptions_allowed == Some(1)), "one pod may go");
        // Without one, all pods of the backend are asked to end at once, and a slow machine has no other by the time they do.
        scene.kubectl(&["create", "poddisruptionbudget", "web", "--selector=app=web", "--max-unavailable=2"]).await?;
        unharmed(scene, "node-b is drained", address, async || drain(scene, &fairway, "node-b").await).await?;
        // Now all pods are on the other node: without the budget both of Fairway's would end at once.
        unharmed(scene, "node-a is drained", address, async || drain(scene, &fairway, "node-a").await).await
    })
}

/// Fairway, and a backend with this many pods behind it.
async fn serve<'a>(scene: &'a Scene, pods: usize) -> anyhow::Result<(Release<'a>, SocketAddr)> {
    serve_as(scene, pods, &[TWO]).await
}

/// The same for an installation with these values.
pub(super) async fn serve_as<'a>(
    scene: &'a Scene,
    pods: usize,
    values: &[&str],
) -> anyhow::Result<(Release<'a>, SocketAddr)> {
    let fairway = scene.fairway(values).await?;
    scene.echo("web", pods).await?;
    fairway.ingress("web", HOST, "web").await?;
    let address = fairway.address().await?;
    // Each of Fairway's two pods has to know the Ingress.
    for pod in fairway.pods().await? {
        scene.served(SocketAddr::new(ip(&pod)?.parse()?, 80), HOST).await?;
    }
    scene.served(address, HOST).await?;
    Ok((fairway, address))
}

pub(super) async fn restart(scene: &Scene, deployment: &str) -> anyhow::Result<()> {
    let deployment = format!("deployment/{deployment}");
    scene.kubectl(&["rollout", "restart", &deployment]).await?;
    scene.kubectl(&["rollout", "status", &deployment, "--timeout=120s"]).await?;
    Ok(())
}

/// Updates a backend with this many pods under load. Its old pods end at once, so no request may still need them.
pub(super) async fn hasty_update(scene: &Scene, what: &str, address: SocketAddr, pods: usize) -> anyhow::Result<()> {
    let path = "/spec/template/spec/containers/0/args";
    let patch = format!(r#"[{{"op": "add", "path": "{path}", "value": ["--linger=0"]}}]"#);
    scene.kubectl(&["patch", "deployment/web", "--type=json", "--patch", &patch]).await?;
    scene.kubectl(&["rollout", "status", "deployment/web", "--timeout=120s"]).await?;
    scene.ready("web", pods).await?;
    unharmed(scene, what, address, async || {
        restart(scene, "web").await?;
        scene.ready("web", pods).await
    })
    .await
}

pub(super) async fn scale(scene: &Scene, pods: usize) -> anyhow::Result<()> {
    scene.kubectl(&["scale", "deployment/web", &format!("--replicas={pods}")]).await?;
    scene.ready("web", pods).await
}

/// Drains a node as its operator would, and uncordons it; none of our pods is on it then.
async fn drain(scene: &Scene, fairway: &Release<'_>, node: &str) -> anyhow::Result<()> {
    let words = ["drain", node, "--ignore-daemonsets", "--delete-emptydir-data", "--timeout=120s"];
    scene.kubectl(&words).await?;
    scene.ready("web", 4).await?;
    fairway.ready(2).await?;
    let pods = [fairway.pods().await?, scene.pods("web").await?].concat();
    let left = pods.iter().filter(|pod| pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()) == Some(node));
    ensure!(left.count() == 0, "pods are left on {node}");
    scene.kubectl(&["uncordon", node]).await?;
    Ok(())
}

/// Makes a change under load, and waits until every pod of the backend has responded. No request may fail or be sent twice.
pub(super) async fn unharmed(
    scene: &Scene,
    what: &str,
    address: SocketAddr,
    change: impl AsyncFnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let traffic = Traffic::begin(address).await;
    let begun = Instant::now();
    let mut changed = change().await;
    let took = begun.elapsed();
    if changed.is_ok() {
        changed = traffic.reaches_all(scene).await;
    }
    let accounts = traffic.end().await;
    println!("{what}, {took:.1?}");
    show(&accounts);
    changed.context(what.to_owned())?;
    ensure!(accounts.iter().all(|account| account.failed == 0), "{what}: requests failed");
    ensure!(accounts.iter().all(|account| account.retried == 0), "{what}: connections were closed under requests");
    Ok(())
}

fn show(accounts: &[Account; 3]) {
    let kinds = ["connections that are kept", "a connection for each request", "requests of 300 ms"];
    for (kind, account) in kinds.iter().zip(accounts) {
        println!("  {kind}: {account}");
    }
}

/// All kinds of load.
struct Traffic {
    loads: [Running; 3],
}

impl Traffic {
    async fn begin(address: SocketAddr) -> Self {
        let [kept, fresh, slow] = CLIENTS;
        let load = || Load::to(address).host(HOST);
        let kept = load().connections(kept).rate(100).start();
        let fresh = load().connections(fresh).rate(60).new_connections().start();
        let slow = load().connections(slow).rate(10).target("/?delay=300ms").new_connections().start();
        let traffic = Self { loads: [kept, fresh, slow] };
        traffic.goes_on().await;
        traffic
    }

    /// Waits for as many responses as arrive in a second.
    async fn goes_on(&self) {
        let [kept, fresh, slow] = &self.loads;
        tokio::join!(kept.more(100), fresh.more(60), slow.more(10));
    }

    /// The failures so far.
    fn failures(&self) -> Vec<Failure> {
        self.loads.iter().flat_map(|load| load.so_far().failures).collect()
    }

    /// Waits until all current pods of the backend have responded.
    async fn reaches_all(&self, scene: &Scene) -> anyhow::Result<()> {
        let pods = scene.pods("web").await?.into_iter().filter_map(|pod| pod.metadata.name).collect::<Vec<_>>();
        let answered = async || {
            let accounts = self.loads.each_ref().map(Running::so_far);
            Ok(pods.iter().all(|pod| accounts.iter().any(|account| account.pods.contains_key(pod))))
        };
        scene.until("every pod of the backend has answered", answered).await
    }

    async fn end(self) -> [Account; 3] {
        self.goes_on().await;
        let [kept, fresh, slow] = self.loads;
        tokio::join!(kept.stop(), fresh.stop(), slow.stop()).into()
    }
}

/// Nothing listens, as at the address of a dead process until the cluster has noticed its death.
fn is_refused(failure: &Failure) -> bool {
    matches!(failure.kind, Kind::Connect(_))
}

fn ip(pod: &Pod) -> anyhow::Result<&str> {
    pod.status.as_ref().and_then(|status| status.pod_ip.as_deref()).context("a pod without an address")
}

pub(super) fn restarts(pod: &Pod) -> i32 {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    statuses.map(|status| status.restart_count).sum()
}

/// Number of client connections of a Fairway pod.
async fn connections(pod: &Pod) -> anyhow::Result<usize> {
    let mut session = Session::connect(SocketAddr::new(ip(pod)?.parse()?, 10254)).await?;
    let text = session.get("metrics", "/metrics").await?.text();
    let lines = text.lines().filter(|line| line.starts_with("nginx_ingress_controller_nginx_process_connections{"));
    let active = lines.filter(|line| line.contains("state=\"active\""));
    let mut counts = active.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    counts.next().map(|count| count as usize).context("no metric of open connections")
}
