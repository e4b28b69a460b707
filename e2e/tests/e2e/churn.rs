//! Two thousand Ingresses, fifty changes per second: how soon each change is live, and how many other requests fail.
//!
//! A measurement, so nothing else runs beside it: it has its own cluster, and `cargo xtask e2e` runs it alone. With
//! `FAIRWAY_CHURN=10000,4` there are as many Ingresses, and as many proxies in pods of their own, and it also shows how long a start takes, and what
//! remains in memory when nearly all Ingresses are gone.
//!
//! Then nobody changes anything any more, and a thousand nodes and the controllers of others go on as they always do: that costs nothing.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use fairway_e2e::cluster::Options;
use fairway_e2e::load::Load;
use fairway_e2e::procfs::{self, Process};
use fairway_e2e::scene::{self, Release, Scene, Session};
use fairway_testkit::Response;
use futures::stream::{self, StreamExt, TryStreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

const CHANGES: usize = 3_000;
/// How many Ingresses remain at the end.
const FEW: usize = 10;
const INTERVAL: Duration = Duration::from_millis(20);
/// The interval between memory samples.
const SAMPLE: Duration = Duration::from_secs(5);
/// When a change counts as lost.
const LOST: Duration = Duration::from_secs(10);
/// The interval between requests while waiting for a change.
const PAUSE: Duration = Duration::from_millis(2);
/// Number of objects created at a time.
const WRITERS: usize = 16;

/// Nodes, each of which renews its Lease once in [`HEARTBEAT`].
const NODES: usize = 1_000;
const HEARTBEAT: Duration = Duration::from_secs(10);
/// One of so many writes is about an object that Fairway watches.
const NOISE: usize = 10;
/// A controller that uses at most a hundredth of this time has nothing left to do.
const QUIET: Duration = Duration::from_secs(2);
/// How often each node renews its Lease.
const HEARTBEATS: usize = 3;

/// How large the cluster is.
#[derive(Clone, Copy)]
struct Size {
    /// The first half redirects, the second half leads to the Services.
    ingresses: usize,
    /// Proxies in pods of their own, with one controller; `None` for one pod of both.
    proxies: Option<usize>,
}

impl Size {
    fn wanted() -> anyhow::Result<Self> {
        let Ok(text) = std::env::var("FAIRWAY_CHURN") else { return Ok(Self { ingresses: 2_000, proxies: None }) };
        let numbers = text
            .split_once(',')
            .and_then(|(ingresses, proxies)| Some((ingresses.parse().ok()?, proxies.parse().ok()?)));
        let (ingresses, proxies) =
            numbers.with_context(|| format!("FAIRWAY_CHURN={text}: expected INGRESSES,PROXIES"))?;
        ensure!(ingresses >= 1_000 && proxies > 0, "FAIRWAY_CHURN={text}: expected 1000,1 at least");
        Ok(Self { ingresses, proxies: Some(proxies) })
    }

    /// The first half of them has its ports changed, the second half its endpoints.
    fn services(self) -> usize {
        self.ingresses / 10
    }

    /// Values of the chart.
    fn values(self) -> Vec<String> {
        match self.proxies {
            None => vec!["controller.replicaCount=1".to_owned()],
            Some(proxies) => vec![
                format!("controller.replicaCount={proxies}"),
                "controller.mode=split".to_owned(),
                "controller.control.replicaCount=1".to_owned(),
                // The nodes of tests have no DNS.
                "controller.control.clusterIP=10.96.0.42".to_owned(),
            ],
        }
    }
}

#[test]
fn every_change_is_soon_live_and_fails_no_request() -> anyhow::Result<()> {
    let size = Size::wanted()?;
    scene::run_alone("churn", &Options::default(), async |scene| {
        let values = size.values();
        let fairway = scene.fairway(&values.iter().map(String::as_str).collect::<Vec<_>>()).await?;
        let address = fairway.address().await?;
        scene.echo("answers", 2).await?;
        fairway.ingress("bystander", "bystander.example", "answers").await?;
        scene.served(address, "bystander.example").await?;

        let ground = Arc::new(Ground::new(scene, &fairway, size).await?);
        let begin = Instant::now();
        ground.create().await?;
        ground.shows(&host(size.ingresses - 1), |response| response.status == 200).await.context("the last Ingress")?;
        println!(
            "{} Ingresses and {} Services created and served in {:.1?}",
            size.ingresses,
            size.services(),
            begin.elapsed()
        );

        let load = Load::to(address).host("bystander.example").connections(4).rate(200).start();
        let changes = tokio::spawn(ground.clone().churn());
        let mut memory = Vec::new();
        while !changes.is_finished() {
            memory.push(resident(scene)?);
            sleep(SAMPLE).await;
        }
        let delays = changes.await??;
        let account = load.stop().await;

        println!("{}", histogram(&delays));
        println!("memory every {SAMPLE:?}, MB: {memory:.1?}; bystander: {account}");
        ensure!(account.failed == 0, "unrelated requests failed: {account}");
        // By the middle of the run, every object has grown by an annotation, and pools and buffers are filled. The
        // maximum of each half counts, because the allocator returns free memory to the kernel at its own pace.
        ensure!(memory.len() > 3, "memory was looked at only {} times", memory.len());
        let (first, second) = memory.split_at(memory.len() / 2);
        for role in memory[0].keys() {
            let most = |half: &[Resident]| half.iter().filter_map(|sizes| sizes.get(role)).copied().fold(0.0, f64::max);
            let (first, second) = (most(first), most(second));
            ensure!(
                second < first * 1.25,
                "the {role} grew from {first:.1} MB at most in the first half to {second:.1} MB"
            );
        }
        // The goal is 100 ms (p99). The clock of a shared machine decides no test, so the limit is far above its noise.
        ensure!(percentile(&delays, 99) < Duration::from_secs(1), "changes are late");
        ensure!(percentile(&delays, 50) < Duration::from_millis(500), "most changes are late");
        rest(scene, &fairway, &ground).await?;
        if size.proxies.is_some() {
            start_and_shrink(scene, &fairway, &ground).await?;
        }
        Ok(())
    })
}

/// Nobody changes what is served, but the objects around it are written all the time.
async fn rest(scene: &Scene, fairway: &Release<'_>, ground: &Ground) -> anyhow::Result<()> {
    let noise = Noise::new(scene, ground).await?;
    let cpu = || {
        let of_controllers = processes(scene)?.into_iter().filter(|(role, _)| role == "controller");
        of_controllers.map(|(_, process)| Ok(process.cpu()?)).sum::<anyhow::Result<Duration>>()
    };
    // What the objects of the noise themselves bring is over when all of them were written once.
    for number in 0..NOISE * Noise::KINDS {
        noise.write(number).await?;
    }
    // What was changed before is still being said in Events.
    scene
        .until("a controller that has caught up", async || {
            let before = cpu()?;
            sleep(QUIET).await;
            Ok(cpu()? - before <= QUIET / 100)
        })
        .await?;
    let rounds = async || fairway.metric("fairway_channel_rounds_total").await;
    let (rounds_before, cpu_before, begin) = (rounds().await?, cpu()?, Instant::now());
    let mut ticks = interval(HEARTBEAT / u32::try_from(NODES)?);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    for number in 0..NODES * HEARTBEATS {
        ticks.tick().await;
        noise.write(number).await?;
    }
    let (took, used) = (begin.elapsed(), cpu()?.saturating_sub(cpu_before));
    let (written, share) = (NODES * HEARTBEATS, 100.0 * used.as_secs_f64() / took.as_secs_f64());
    let published = rounds().await? - rounds_before;
    println!(
        "{written} writes without a meaning in {took:.1?}: {published} changes, controller {share:.2} % of a core"
    );
    ensure!(published == 0.0, "{published} changes for nothing");
    // The goal is 0.5 %; a hundred times as much would be work for each write.
    ensure!(share < 50.0, "the controller works: {share:.1} % of a core");
    Ok(())
}

/// What is written in a large cluster while nobody changes anything.
struct Noise {
    leases: Api<Lease>,
    slices: Api<EndpointSlice>,
    maps: Api<ConfigMap>,
    foreign: Api<Ingress>,
}

impl Noise {
    /// Kinds of writes that the controller sees.
    const KINDS: usize = 3;

    async fn new(scene: &Scene, ground: &Ground) -> anyhow::Result<Self> {
        let noise = Self { leases: scene.api(), slices: scene.api(), maps: scene.api(), foreign: scene.api() };
        let (leases, post) = (&noise.leases, &PostParams::default());
        stream::iter(0..NODES)
            .map(|number| async move {
                let lease = json!({"metadata": {"name": format!("node-{number}")}, "spec": {"holderIdentity": "node"}});
                leases.create(post, &serde_json::from_value(lease)?).await?;
                anyhow::Ok(())
            })
            .buffer_unordered(WRITERS)
            .try_collect::<()>()
            .await?;
        noise.maps.create(post, &serde_json::from_value(json!({"metadata": {"name": "election"}}))?).await?;
        let mut foreign = ground.ingress(0);
        foreign["metadata"]["name"] = json!("foreign");
        foreign["spec"]["ingressClassName"] = json!("other");
        noise.foreign.create(post, &serde_json::from_value(foreign)?).await?;
        Ok(noise)
    }

    /// Mostly the Lease of a node; now and then the time stamp of endpoints, the record of an election or the status of an Ingress of another
    /// class, which reach the controller.
    async fn write(&self, number: usize) -> anyhow::Result<()> {
        let annotations =
            |key: &str| json!({"metadata": {"annotations": {key: format!("2026-01-01T00:00:00.{number:09}Z")}}});
        match (number % NOISE, number / NOISE % Self::KINDS) {
            (0, 0) => {
                patch(&self.slices, "slice-0", annotations("endpoints.kubernetes.io/last-change-trigger-time")).await
            }
            (0, 1) => patch(&self.maps, "election", annotations("control-plane.alpha.kubernetes.io/leader")).await,
            (0, _) => {
                let address = json!({"ip": format!("192.0.2.{}", number % 256)});
                let status = json!({"status": {"loadBalancer": {"ingress": [address]}}});
                self.foreign.patch_status("foreign", &PatchParams::default(), &Patch::Merge(status)).await?;
                Ok(())
            }
            _ => {
                let renewed =
                    json!({"spec": {"renewTime": format!("2026-01-01T00:00:{:02}.000000Z", number / NODES % 60)}});
                patch(&self.leases, &format!("node-{}", number % NODES), renewed).await
            }
        }
    }
}

/// Shows how long starts take, and what remains in memory of Ingresses that are gone.
async fn start_and_shrink(scene: &Scene, fairway: &Release<'_>, ground: &Ground) -> anyhow::Result<()> {
    let restart = async || {
        for deployment in [format!("{}-control", fairway.class()), fairway.controller()] {
            let deployment = format!("deployment/{deployment}");
            scene.kubectl(&["rollout", "restart", &deployment]).await?;
            scene.kubectl(&["rollout", "status", &deployment, "--timeout=300s"]).await?;
        }
        anyhow::Ok(())
    };
    restart().await?;
    for pod in pods(scene).await? {
        let log = scene.kubectl(&["logs", &pod]).await?;
        let time = |part: &str| {
            let line =
                log.lines().find(|line| line.contains(part)).with_context(|| format!("no {part:?} of {pod}: {log}"))?;
            anyhow::Ok(line.split(' ').next().unwrap_or_default().parse::<jiff::Timestamp>()?)
        };
        let ready = if log.contains("publishing") { "publishing" } else { " serving " };
        println!("{pod}: {ready:?} {:#} after its start", time(ready)? - time("starting")?);
    }
    println!("memory after the start, MB: {:.1?}", resident(scene)?);
    stream::iter(FEW..ground.size.ingresses)
        .map(|number| async move {
            ground.ingresses.delete(&format!("ingress-{number}"), &DeleteParams::default()).await?;
            anyhow::Ok(())
        })
        .buffer_unordered(WRITERS)
        .try_collect::<()>()
        .await?;
    let ground = Ground::new(scene, fairway, ground.size).await?;
    ground.shows(&host(ground.size.ingresses - 1), |response| response.status == 404).await.context("no Ingress")?;
    // The allocator returns memory in the background.
    sleep(2 * SAMPLE).await;
    println!("memory with {FEW} Ingresses, MB: {:.1?}", resident(scene)?);
    restart().await?;
    println!("memory of a start with {FEW} Ingresses, MB: {:.1?}", resident(scene)?);
    Ok(())
}

/// Megabytes that the largest process of each role has.
type Resident = BTreeMap<String, f64>;

/// What the processes of Fairway in the namespace have in memory.
fn resident(scene: &Scene) -> anyhow::Result<Resident> {
    let mut all = Resident::new();
    for (role, process) in processes(scene)? {
        let size = process.field("VmRSS")?.trim_end_matches(" kB").parse::<f64>()? * 1024.0 / 1e6;
        let most = all.entry(role).or_default();
        *most = most.max(size);
    }
    Ok(all)
}

/// The processes of Fairway in the namespace, each with its role.
fn processes(scene: &Scene) -> anyhow::Result<Vec<(String, Process)>> {
    let mut all = Vec::new();
    for process in procfs::all()? {
        // It may have ended in the meantime.
        let (Ok(words), Ok(environment)) = (process.words(), process.environment()) else { continue };
        let role = words.get(1).filter(|role| ["controller", "proxy"].contains(&role.as_str()));
        let is_own = environment.get("POD_NAMESPACE").is_some_and(|name| name == scene.namespace());
        if let Some(role) = role.filter(|_| is_own && !words.iter().any(|word| word == "--restart-on-failure")) {
            all.push((role.clone(), process));
        }
    }
    Ok(all)
}

/// The names of the pods of Fairway.
async fn pods(scene: &Scene) -> anyhow::Result<Vec<String>> {
    let labels = format!("app.kubernetes.io/instance={}", scene.namespace());
    let pods = scene.api::<Pod>().list(&ListParams::default().labels(&labels)).await?;
    Ok(pods.items.into_iter().filter_map(|pod| pod.metadata.name).collect())
}

/// The place where the changes are made and observed.
struct Ground {
    ingresses: Api<Ingress>,
    services: Api<Service>,
    slices: Api<EndpointSlice>,
    size: Size,
    class: String,
    /// Each of them has to know a change.
    proxies: Vec<Proxy>,
    /// Names and addresses of the two pods that answer.
    pods: Vec<(String, String)>,
}

struct Proxy {
    address: SocketAddr,
    /// Idle connections for the next requests.
    idle: Mutex<Vec<Session>>,
}

/// The host of an Ingress.
fn host(number: usize) -> String {
    format!("host-{number}.churn.example")
}

impl Ground {
    async fn new(scene: &Scene, fairway: &Release<'_>, size: Size) -> anyhow::Result<Self> {
        let pods = scene.pods("answers").await?.into_iter();
        let pods = pods.filter_map(|pod| Some((pod.metadata.name?, pod.status?.pod_ip?))).collect();
        let addresses = fairway.pods().await?.into_iter().filter_map(|pod| pod.status?.pod_ip?.parse::<IpAddr>().ok());
        let proxies = addresses.map(|ip| Proxy { address: (ip, 80).into(), idle: Mutex::default() }).collect();
        let (ingresses, services, slices, class) = (scene.api(), scene.api(), scene.api(), fairway.class().to_owned());
        Ok(Self { ingresses, services, slices, size, class, proxies, pods })
    }

    /// The host that shows the state of a Service.
    fn host_of_service(&self, number: usize) -> String {
        host(self.size.ingresses / 2 + number)
    }

    async fn create(&self) -> anyhow::Result<()> {
        let post = &PostParams::default();
        let services = stream::iter(0..self.size.services()).map(|number| async move {
            self.services.create(post, &serde_json::from_value(service(number))?).await?;
            self.slices.create(post, &serde_json::from_value(self.slice(number))?).await?;
            anyhow::Ok(())
        });
        services.buffer_unordered(WRITERS).try_collect::<()>().await?;
        let ingresses = stream::iter(0..self.size.ingresses).map(|number| async move {
            self.ingresses.create(post, &serde_json::from_value(self.ingress(number))?).await?;
            anyhow::Ok(())
        });
        ingresses.buffer_unordered(WRITERS).try_collect::<()>().await
    }

    fn ingress(&self, number: usize) -> Value {
        let service = json!({"name": format!("service-{}", number % self.size.services()), "port": {"number": 80}});
        let path = json!({"path": "/", "pathType": "Prefix", "backend": {"service": service}});
        let rule = json!({"host": host(number), "http": {"paths": [path]}});
        json!({
            "metadata": {"name": format!("ingress-{number}")},
            "spec": {"ingressClassName": self.class, "rules": [rule]},
        })
    }

    /// The endpoints of a Service, managed only by this test.
    fn slice(&self, number: usize) -> Value {
        let mut slice = self.endpoints(0);
        slice["addressType"] = json!("IPv4");
        slice["metadata"] = json!({
            "name": format!("slice-{number}"),
            "labels": {"kubernetes.io/service-name": format!("service-{number}")},
        });
        slice
    }

    fn endpoints(&self, pod: usize) -> Value {
        json!({
            "endpoints": [{"addresses": [self.pods[pod].1], "conditions": {"ready": true}}],
            "ports": [{"name": "http", "port": 3000}],
        })
    }

    /// Makes all changes, each at its time, and returns how long each took to become live after the API server's
    /// response.
    async fn churn(self: Arc<Self>) -> anyhow::Result<Vec<Duration>> {
        let mut ticks = interval(INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let begin = Instant::now();
        let mut changes = JoinSet::new();
        for number in 0..CHANGES {
            ticks.tick().await;
            let ground = self.clone();
            changes.spawn(async move { ground.change(number).await });
        }
        println!("{CHANGES} changes in {:.1?}", begin.elapsed());
        let mut delays = Vec::with_capacity(CHANGES);
        while let Some(delay) = changes.join_next().await {
            delays.push(delay??);
        }
        Ok(delays)
    }

    /// Makes one change and waits until a client sees it. An object changes again only long after its last change.
    async fn change(&self, number: usize) -> anyhow::Result<Duration> {
        let (round, half) = (number / 3, self.size.services() / 2);
        match number % 3 {
            0 => {
                let (object, target) = (round % (self.size.ingresses / 2), format!("https://example.com/{number}"));
                let annotations = json!({"nginx.ingress.kubernetes.io/permanent-redirect": target});
                patch(&self.ingresses, &format!("ingress-{object}"), json!({"metadata": {"annotations": annotations}}))
                    .await?;
                self.shows(&host(object), |response| response.header("location") == Some(&target)).await
            }
            1 => {
                let (object, closed) = (round % half, (round / half).is_multiple_of(2));
                let port = if closed { 81 } else { 80 };
                let ports = json!([{"name": "http", "port": port, "targetPort": 3000}]);
                patch(&self.services, &format!("service-{object}"), json!({"spec": {"ports": ports}})).await?;
                let status = if closed { 503 } else { 200 };
                self.shows(&self.host_of_service(object), |response| response.status == status).await
            }
            _ => {
                let (object, pod) = (half + round % half, (1 + round / half) % 2);
                patch(&self.slices, &format!("slice-{object}"), self.endpoints(pod)).await?;
                let name = &self.pods[pod].0;
                self.shows(&self.host_of_service(object), |response| response.json()["pod"] == **name).await
            }
        }
    }

    /// Requests a host of each proxy until the response is right; returns how long that took at the slowest.
    async fn shows(&self, host: &str, right: impl Fn(&Response) -> bool) -> anyhow::Result<Duration> {
        let each = self.proxies.iter().map(|proxy| proxy.shows(host, &right));
        let delays = futures::future::try_join_all(each).await?;
        delays.into_iter().max().context("no proxy")
    }
}

impl Proxy {
    async fn shows(&self, host: &str, right: impl Fn(&Response) -> bool) -> anyhow::Result<Duration> {
        let begin = Instant::now();
        let idle = self.idle.lock().expect("no holder of this lock panics").pop();
        let mut session = match idle {
            Some(session) => session,
            None => Session::connect(self.address).await?,
        };
        loop {
            let response = session.get(host, "/").await.with_context(|| format!("asking for {host}"))?;
            let elapsed = begin.elapsed();
            // After as many requests as `keep-alive-requests` allows.
            if response.header("connection") == Some("close") {
                session = Session::connect(self.address).await?;
            }
            if right(&response) {
                self.idle.lock().expect("no holder of this lock panics").push(session);
                return Ok(elapsed);
            }
            ensure!(begin.elapsed() < LOST, "{host} still answers {} {:?}", response.status, response.text());
            sleep(PAUSE).await;
        }
    }
}

fn service(number: usize) -> Value {
    json!({
        "metadata": {"name": format!("service-{number}")},
        "spec": {"ports": [{"name": "http", "port": 80, "targetPort": 3000}]},
    })
}

async fn patch<K>(api: &Api<K>, name: &str, change: Value) -> anyhow::Result<()>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    api.patch(name, &PatchParams::default(), &Patch::Merge(change))
        .await
        .with_context(|| format!("changing {name}"))?;
    Ok(())
}

/// The delay that this percentage of all delays doesn't exceed.
fn percentile(delays: &[Duration], percent: usize) -> Duration {
    let mut delays = delays.to_vec();
    delays.sort_unstable();
    delays[(delays.len() * percent).div_ceil(100) - 1]
}

/// The distribution of delays, as bars.
fn histogram(delays: &[Duration]) -> String {
    let bounds = [5, 10, 15, 20, 25, 30, 40, 50, 75, 100, 150, 200, 500, 1_000, 10_000].map(Duration::from_millis);
    let mut text = String::from("from the API server's answer to the first right answer of the proxy:\n");
    let mut below = Duration::ZERO;
    for bound in bounds {
        let count = delays.iter().filter(|delay| (below..bound).contains(*delay)).count();
        if count > 0 {
            let bar = "#".repeat((count * 60).div_ceil(delays.len()));
            text += &format!("{:>9} {count:5} {bar}\n", format!("< {} ms", bound.as_millis()));
        }
        below = bound;
    }
    let [p50, p90, p99, p100] = [50, 90, 99, 100].map(|percent| percentile(delays, percent));
    text + &format!("{} changes: p50 {p50:.1?}, p90 {p90:.1?}, p99 {p99:.1?}, longest {p100:.1?}", delays.len())
}
