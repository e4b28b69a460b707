//! Fairway's pods as the chart creates them: the running process and its rights.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use anyhow::{Context, ensure};
use fairway_e2e::cluster::network::NODES;
use fairway_e2e::procfs::Process;
use fairway_e2e::scene::{self, Release, Scene};
use k8s_openapi::api::core::v1::{Container, Pod};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointConditions};
use kube::api::DeleteParams;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::Instant;

const HOST: &str = "web.example";
/// The capability to listen on ports below 1024, as a set of capabilities in `/proc/PID/status`.
const NET_BIND_SERVICE: u64 = 1 << 10;
/// The default of `worker-shutdown-timeout`.
const DRAIN: u64 = 240;

#[test]
fn pods_run_on_both_nodes_without_any_right_that_they_can_do_without() -> anyhow::Result<()> {
    scene::run("pod-rights", async |scene| {
        let fairway = scene.fairway(&["controller.replicaCount=2"]).await?;
        let pods = fairway.pods().await?;
        let nodes: BTreeSet<_> = pods.iter().filter_map(|pod| pod.spec.as_ref()?.node_name.as_deref()).collect();
        ensure!(pods.len() == 2 && nodes.len() == 2, "{} pods on {nodes:?}", pods.len());
        for pod in &pods {
            let process = scene.process(name(pod)?)?;
            for field in ["Uid", "Gid"] {
                let expected = if field == "Uid" { "101" } else { "82" };
                let all = process.field(field)?.split_whitespace().all(|id| id == expected);
                ensure!(all, "{field}: {}", process.field(field)?);
            }
            for field in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
                ensure!(set(process, field)? == 0, "{field}: {}", process.field(field)?);
            }
            ensure!(set(process, "CapBnd")? & !NET_BIND_SERVICE == 0, "CapBnd: {}", process.field("CapBnd")?);
            ensure!(process.field("NoNewPrivs")? == "1", "it may gain privileges");
            ensure!(process.field("Seccomp")? == "2", "no system call is refused to it");
            // Not even root can write there.
            let written = fs::write(process.path("root/written"), "");
            let refused = written.as_ref().is_err_and(|error| error.kind() == ErrorKind::ReadOnlyFilesystem);
            ensure!(refused, "writing to its root: {written:?}");
            // The namespace's Services are not in its environment. The API server's are in every pod's.
            let own = ["HOME", "HOSTNAME", "PATH", "POD_NAME", "POD_NAMESPACE"];
            let others: Vec<_> = process.environment()?.into_keys().collect();
            let others: Vec<_> = others
                .iter()
                .filter(|name| !name.starts_with("KUBERNETES_") && !own.contains(&name.as_str()))
                .collect();
            ensure!(others.is_empty(), "variables of no use: {others:?}");
        }
        // Another pod has them.
        scene.echo("web", 1).await?;
        let other = scene.pods("web").await?.pop().context("no pod")?;
        let variable = format!("{}_SERVICE_HOST", fairway.controller().to_uppercase().replace('-', "_"));
        let environment = scene.process(name(&other)?)?.environment()?;
        ensure!(environment.contains_key(&variable), "no {variable} in {environment:?}");
        Ok(())
    })
}

#[test]
fn a_pod_that_is_to_end_says_so_at_once_serves_on_and_ends_when_its_last_request_is_done() -> anyhow::Result<()> {
    scene::run("pod-end", async |scene| {
        let (fairway, ()) = tokio::try_join!(scene.fairway(&[]), scene.echo("web", 1))?;
        fairway.ingress("web", HOST, "web").await?;
        let pod = fairway.pods().await?.pop().context("no pod")?;
        let container = fits_the_drain(&pod)?;
        let grace = Duration::from_secs(seconds(&container, "--shutdown-grace-period")?);
        let ip = ip(&pod)?;
        let (http, health) = (SocketAddr::new(ip, 80), SocketAddr::new(ip, 10254));
        scene.served(http, HOST).await?;
        for path in ["/healthz", "/readyz"] {
            ensure!(scene.get(health, "health", path).await?.status == 200, "{path} of a pod that is ready");
        }

        let name = pod.metadata.name.clone().context("a pod without a name")?;
        let pods = scene.api::<Pod>();
        // It is answered once no new connection is accepted, and the process has to wait for it.
        let last = Pending::send(http, HOST, grace + Duration::from_secs(4)).await?;
        let begun = Instant::now();
        pods.delete(&name, &DeleteParams::default()).await?;
        // Load balancers probe this one. The kubelet probes only the readiness of a pod that is ending.
        let unhealthy = async || Ok(scene.get(health, "health", "/healthz").await?.status == 500);
        scene.until("it says so at /healthz", unhealthy).await?;
        ensure!(
            scene.get(health, "health", "/readyz").await?.status == 200,
            "it takes connections and says it doesn't"
        );
        // On the traffic ports this only shows that some pod is serving.
        ensure!(
            scene.get(http, "unknown.example", "/healthz").await?.status == 200,
            "/healthz of a host without an Ingress"
        );
        println!("it says so {:.1?} after its deletion", begun.elapsed());
        let expected = Some(EndpointConditions { ready: Some(false), serving: Some(true), terminating: Some(true) });
        let ends = async || Ok(conditions(scene, &fairway, &name).await? == expected);
        scene.until("its endpoint terminates and serves", ends).await?;
        // They notice later: it has to serve for at least this long. kube-proxy leads to it only while the conditions say so.
        loop {
            let found = conditions(scene, &fairway, &name).await?;
            match scene.get(http, HOST, "/").await {
                Ok(response) => ensure!(response.status == 200 && found == expected, "{found:?}: {response:?}"),
                Err(_) if begun.elapsed() >= grace => break,
                Err(error) => return Err(error.context("it is to serve on")),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        println!("it takes no connection {:.1?} after its deletion", begun.elapsed());
        let answer = last.answer().await?;
        ensure!(answer.starts_with("HTTP/1.1 200 "), "the last request: {answer:?}");
        // It doesn't wait for its whole 300 s, which is far longer than the test waits.
        scene.until("the pod is gone", async || Ok(pods.get_opt(&name).await?.is_none())).await?;
        println!("the pod was gone {:.1?} after its deletion", begun.elapsed());
        Ok(())
    })
}

#[test]
fn on_the_network_of_the_nodes_it_listens_on_port_80_without_being_root() -> anyhow::Result<()> {
    scene::run("pod-host-network", async |scene| {
        let values = ["controller.kind=DaemonSet", "controller.hostNetwork=true", "controller.service.type=ClusterIP"];
        let (fairway, ()) = tokio::try_join!(scene.fairway(&values), scene.echo("web", 1))?;
        fairway.ingress("web", HOST, "web").await?;
        fairway.ready(NODES.len()).await?;
        for pod in fairway.pods().await? {
            let process = scene.process(name(&pod)?)?;
            ensure!(process.field("Uid")?.split_whitespace().all(|id| id == "101"), "Uid: {}", process.field("Uid")?);
            // From the program file: the sysctl that frees the port in a pod's own network can't be set here.
            for field in ["CapPrm", "CapEff", "CapBnd"] {
                ensure!(set(process, field)? == NET_BIND_SERVICE, "{field}: {}", process.field(field)?);
            }
        }
        for node in NODES {
            let address = SocketAddr::from((node.address, 80));
            let what = format!("{HOST} is served at {address}");
            scene.until(&what, async || Ok(scene.get(address, HOST, "/").await?.status == 200)).await?;
        }
        Ok(())
    })
}

/// The state in Kubernetes of the endpoint that is a Fairway pod; `None` once it is none.
async fn conditions(scene: &Scene, fairway: &Release<'_>, pod: &str) -> anyhow::Result<Option<EndpointConditions>> {
    let is_pod = |endpoint: &Endpoint| endpoint.target_ref.as_ref().and_then(|of| of.name.as_deref()) == Some(pod);
    let endpoint = scene.endpoints(&fairway.controller()).await?.into_iter().find(is_pod);
    Ok(endpoint.and_then(|endpoint| endpoint.conditions))
}

/// The container, if its probes exist and its pod has enough time to shut down.
fn fits_the_drain(pod: &Pod) -> anyhow::Result<Container> {
    let spec = pod.spec.as_ref().context("a pod without a spec")?;
    let container =
        spec.containers.iter().find(|one| one.readiness_probe.is_some()).context("none decides when it is ready")?;
    let probes = [&container.startup_probe, &container.liveness_probe, &container.readiness_probe];
    let paths = probes.map(|probe| probe.as_ref()?.http_get.as_ref()?.path.as_deref());
    ensure!(paths == [Some("/healthz"), Some("/healthz"), Some("/readyz")], "{paths:?}");
    // The process waits by itself, so it needs no hook.
    ensure!(container.lifecycle.is_none(), "{:?}", container.lifecycle);
    let given = spec.termination_grace_period_seconds.context("no grace period")?;
    let needed =
        seconds(container, "--shutdown-grace-period")? + DRAIN + seconds(container, "--post-shutdown-grace-period")?;
    ensure!(given > i64::try_from(needed)?, "it has {given} s for what may take {needed} s");
    Ok(container.clone())
}

/// The value of a flag, in seconds.
fn seconds(container: &Container, flag: &str) -> anyhow::Result<u64> {
    let mut arguments = container.args.iter().flatten();
    let value = arguments.find_map(|argument| argument.strip_prefix(flag)?.strip_prefix('='));
    Ok(value.with_context(|| format!("no {flag}"))?.parse()?)
}

/// A request without a response so far.
struct Pending(TcpStream);

impl Pending {
    /// Sends a request that the echo server answers after `delay`, in whole seconds.
    async fn send(address: SocketAddr, host: &str, delay: Duration) -> anyhow::Result<Self> {
        let mut stream = TcpStream::connect(address).await?;
        let target = format!("/?delay={}s", delay.as_secs());
        let request = format!("GET {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        Ok(Self(stream))
    }

    /// The response, as it arrives.
    async fn answer(mut self) -> anyhow::Result<String> {
        let mut answer = Vec::new();
        let read = tokio::time::timeout(scene::PATIENCE, self.0.read_to_end(&mut answer));
        read.await.context("no answer")?.context("reading the answer")?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }
}

fn ip(pod: &Pod) -> anyhow::Result<IpAddr> {
    let address = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref());
    Ok(address.context("a pod without an address")?.parse()?)
}

/// A set of capabilities.
fn set(process: Process, field: &str) -> anyhow::Result<u64> {
    Ok(u64::from_str_radix(&process.field(field)?, 16)?)
}

fn name(pod: &Pod) -> anyhow::Result<&str> {
    pod.metadata.name.as_deref().context("a pod without a name")
}
