//! An API server that is away, hangs, forgets, refuses, is slow, or ends a watch: traffic goes on, and what changed comes through.
//!
//! A second kube-apiserver over the same etcd is the rest of the world: what is written there while Fairway's own API server is
//! away are changes that were made during the outage.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use fairway_e2e::cluster::layout::{self, Layout};
use fairway_e2e::cluster::{Action, Cluster, Options};
use fairway_e2e::load::Load;
use fairway_e2e::scene::{self, Release, Scene, Session, is_ready};
use fairway_testkit::{Ca, Leaf};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, Secret};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::flowcontrol::v1::{FlowSchema, PriorityLevelConfiguration};
use k8s_openapi::api::networking::v1::Ingress;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Config};
use nix::sys::signal::Signal;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::time::sleep;

const API_SERVER: &str = "kube-apiserver";

/// The port of the other API server.
const OTHER_PORT: u16 = 6444;

/// The host that has requests all the time.
const SHOP: &str = "shop.example";

/// The host whose Service has the endpoints that the test writes.
const MANUAL: &str = "manual.example";

/// How soon after the return of the API server everything has to be live.
const LIMIT: Duration = Duration::from_secs(2);

/// The same while the API server refuses or answers slowly, and after that: bounded, and more than the longest wait.
const SLOW_LIMIT: Duration = Duration::from_secs(6);

#[test]
fn traffic_goes_on_and_changes_come_through_whatever_becomes_of_the_api_server() -> anyhow::Result<()> {
    scene::run_alone("outage", &Options::default(), async |scene| {
        let cluster = scene.cluster();
        let fairway = scene.fairway(&["controller.replicaCount=2"]).await?;
        scene.echo("web", 3).await?;
        fairway.ingress("shop", SHOP, "web").await?;
        let mut world = World::new(scene, &fairway).await?;
        world.change(&scene.client()).await?;
        let before = fairway.pods().await?;
        let pods = addresses(&before)?;
        ensure!(pods.len() == 2, "pods of Fairway: {pods:?}");
        world.live(&pods, Instant::now() + scene::PATIENCE).await?;
        let other = Other::start(scene).await?;
        let load = Load::to(fairway.address().await?).host(SHOP).start();
        load.more(200).await;
        let begin = Instant::now();

        // Away for a minute, as after a crash.
        cluster.component(API_SERVER, Action::Kill).await?;
        let away = Instant::now();
        for _ in 0..10 {
            world.change(&other.client).await?;
            sleep(Duration::from_secs(3)).await;
        }
        let victim = world.backends[0].0.clone();
        let killed = begin.elapsed();
        scene.signal(&victim, Signal::SIGKILL)?;
        while away.elapsed() < Duration::from_secs(60) {
            world.change(&other.client).await?;
            sleep(Duration::from_secs(3)).await;
        }
        cluster.component(API_SERVER, Action::Start).await?;
        world.back(scene, &pods, LIMIT).await.context("after an outage of a minute")?;

        // Hanging: connections stay open, and nothing is answered.
        cluster.component(API_SERVER, Action::Pause).await?;
        let away = Instant::now();
        while away.elapsed() < Duration::from_secs(20) {
            world.change(&other.client).await?;
            sleep(Duration::from_secs(2)).await;
        }
        cluster.component(API_SERVER, Action::Resume).await?;
        world.back(scene, &pods, LIMIT).await.context("after 20 seconds of silence")?;

        // Back without a memory: watches can't be resumed (410), and most requests are refused (429) for some seconds.
        cluster.component(API_SERVER, Action::Kill).await?;
        world.change(&other.client).await?;
        other.compact(cluster).await?;
        world.change(&other.client).await?;
        refuse(scene, &other.client, true).await?;
        let restart = Timestamp::now();
        cluster.component(API_SERVER, Action::Start).await?;
        ready(scene).await?;
        world.change(&scene.client()).await?;
        scene
            .until("refusals", async || {
                let refused = scene.audit()?.iter().filter(|request| request.code == 429).count();
                Ok(refused >= 4)
            })
            .await?;
        sleep(Duration::from_secs(3)).await;
        refuse(scene, &scene.client(), false).await?;
        world.change(&scene.client()).await?;
        let took = world.live(&pods, Instant::now() + SLOW_LIMIT).await.context("after refusals")?;
        println!("live {took:?} after the last refusal");
        for pod in &before {
            let name = pod.metadata.name.as_deref().unwrap_or_default();
            let lists = |request: &scene::Request| {
                let anew = request.pod == name && request.received > restart && request.code == 200;
                anew && request.verb == "list" && request.resource == "ingresses"
            };
            ensure!(scene.audit()?.iter().any(lists), "{name} did not list anew");
        }

        // Slow: most of each second it does nothing.
        let mut slowest = Duration::ZERO;
        for _ in 0..8 {
            cluster.component(API_SERVER, Action::Pause).await?;
            world.change(&other.client).await?;
            sleep(Duration::from_millis(800)).await;
            cluster.component(API_SERVER, Action::Resume).await?;
            let took = world.live(&pods, Instant::now() + SLOW_LIMIT).await.context("while it is slow")?;
            slowest = slowest.max(took);
        }
        println!("live {slowest:?} after the end of a pause of 0.8 s, at the latest");

        let account = load.stop().await;
        println!("{account}");
        for failure in &account.failures {
            let of_victim = failure.pod.as_deref() == Some(victim.as_str());
            let then = failure.at + failure.took >= killed && failure.at <= killed + Duration::from_secs(1);
            ensure!(of_victim && then, "a request failed: {failure}");
        }
        ensure!(account.failed <= 4, "{} requests failed with the endpoint that died", account.failed);
        same(&before, &fairway.pods().await?)?;
        drop(other);
        Ok(())
    })
}

/// The API server ends each watch after the two minutes that we ask for.
#[test]
fn a_watch_that_runs_out_is_resumed_without_a_gap() -> anyhow::Result<()> {
    scene::run("watch-end", async |scene| {
        let fairway = scene.fairway(&[]).await?;
        scene.echo("web", 1).await?;
        let before = fairway.pods().await?;
        let pods = addresses(&before)?;
        let begin = Instant::now();
        let mut slowest = Duration::ZERO;
        let mut left = None;
        for round in 0.. {
            let host = format!("round-{round}.example");
            fairway.ingress("web", &host, "web").await?;
            let written = Instant::now();
            let served = async || Ok(scene.get(pods[0], &host, "/").await?.status == 200);
            scene.until("a change is live", served).await?;
            slowest = slowest.max(written.elapsed());
            ensure!(slowest <= LIMIT, "round {round}: live only {slowest:?} after the write");
            sleep(Duration::from_millis(500)).await;
            match &mut left {
                // Some more after the end of the watch.
                Some(0) => break,
                Some(left) => *left -= 1,
                None if begin.elapsed() > Duration::from_secs(118) && round % 8 == 0 => {
                    let ended = |request: &&scene::Request| {
                        request.verb == "watch" && request.resource == "ingresses" && request.over
                    };
                    if let Some(ended) = scene.audit()?.iter().find(ended) {
                        ensure!(ended.code == 200, "the watch ended with {}", ended.code);
                        left = Some(5);
                    }
                }
                None => (),
            }
            ensure!(begin.elapsed() < Duration::from_secs(180), "no watch has ended");
        }
        println!("each change was live in {slowest:?} at the latest");
        same(&before, &fairway.pods().await?)
    })
}

/// What the test changes, and what has to be seen then.
struct World {
    namespace: String,
    class: String,
    ca: Ca,
    leaf: Leaf,
    /// How often it has changed.
    count: usize,
    /// Pods that can be behind [`MANUAL`]: names and addresses.
    backends: Vec<(String, String)>,
}

impl World {
    async fn new(scene: &Scene, fairway: &Release<'_>) -> anyhow::Result<Self> {
        scene
            .apply(
                "{apiVersion: v1, kind: Service, metadata: {name: manual}, spec: {ports: [{name: http, port: 80, targetPort: 3000}]}}",
            )
            .await?;
        let ca = Ca::new("outage");
        let leaf = ca.leaf(&[MANUAL]);
        let address = |pod: Pod| Some((pod.metadata.name?, pod.status?.pod_ip?));
        let backends = scene.pods("web").await?.into_iter().filter_map(address).collect();
        let mut world = Self {
            namespace: scene.namespace().to_owned(),
            class: fairway.class().to_owned(),
            ca,
            leaf,
            count: 0,
            backends,
        };
        world.backends.sort();
        fairway.ingress("manual", MANUAL, "manual").await?;
        let tls = json!({"spec": {"tls": [{"hosts": [MANUAL], "secretName": "site"}]}, "metadata": {"annotations": {
            "nginx.ingress.kubernetes.io/ssl-redirect": "false",
        }}});
        let ingresses = scene.api::<Ingress>();
        ingresses.patch("manual", &PatchParams::default(), &Patch::Merge(&tls)).await?;
        Ok(world)
    }

    /// One more Ingress, one less, another endpoint, another certificate.
    async fn change(&mut self, client: &Client) -> anyhow::Result<()> {
        self.count += 1;
        self.leaf = self.ca.leaf(&[MANUAL]);
        let count = self.count;
        let backend = |service: &str| json!({"service": {"name": service, "port": {"number": 80}}});
        let ingress = json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": {"name": format!("new-{count}")},
            "spec": {"ingressClassName": self.class, "rules": [{
                "host": format!("new-{count}.example"),
                "http": {"paths": [{"path": "/", "pathType": "Prefix", "backend": backend("web")}]},
            }]},
        });
        self.put::<Ingress>(client, &ingress).await?;
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": "manual", "labels": {"kubernetes.io/service-name": "manual"}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 3000, "protocol": "TCP"}],
            "endpoints": [{"addresses": [self.backend().1], "conditions": {"ready": true}}],
        });
        self.put::<EndpointSlice>(client, &slice).await?;
        let secret = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "type": "kubernetes.io/tls",
            "metadata": {"name": "site"},
            "stringData": {"tls.crt": self.leaf.certificate_pem(), "tls.key": self.leaf.key_pem()},
        });
        self.put::<Secret>(client, &secret).await?;
        if count > 3 {
            let ingresses: Api<Ingress> = Api::namespaced(client.clone(), &self.namespace);
            ingresses.delete(&format!("new-{}", count - 3), &DeleteParams::default()).await?;
        }
        Ok(())
    }

    async fn put<K>(&self, client: &Client, object: &serde_json::Value) -> anyhow::Result<()>
    where
        K: kube::Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Serialize + DeserializeOwned,
        K: std::fmt::Debug,
    {
        let api: Api<K> = Api::namespaced(client.clone(), &self.namespace);
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let parameters = PatchParams::apply("outage").force();
        api.patch(name, &parameters, &Patch::Apply(object)).await.with_context(|| format!("writing {name}"))?;
        Ok(())
    }

    /// The pod that is behind [`MANUAL`]. Not the first one, which is killed.
    fn backend(&self) -> &(String, String) {
        &self.backends[1 + self.count % (self.backends.len() - 1)]
    }

    /// Waits until all is as it was written last, in each of the pods; how long that took.
    async fn live(&self, pods: &[SocketAddr], deadline: Instant) -> anyhow::Result<Duration> {
        let begin = Instant::now();
        for pod in pods {
            while let Some(missing) = self.missing(*pod).await? {
                ensure!(Instant::now() < deadline, "{pod}, {:?} later: {missing}", begin.elapsed());
                sleep(Duration::from_millis(5)).await;
            }
        }
        Ok(begin.elapsed())
    }

    /// What is not yet as it was written.
    async fn missing(&self, pod: SocketAddr) -> anyhow::Result<Option<String>> {
        let mut session = Session::connect(pod).await?;
        for count in 1..=self.count {
            let expected = if count + 3 > self.count { 200 } else { 404 };
            let status = session.get(&format!("new-{count}.example"), "/").await?.status;
            if status != expected {
                return Ok(Some(format!("change {count} of {}: {status}, not {expected}", self.count)));
            }
        }
        let answer = session.get(MANUAL, "/").await?;
        let (name, _) = self.backend();
        if !answer.text().contains(&format!("\"pod\": \"{name}\"")) {
            return Ok(Some(format!("the endpoint is not {name}: {}", answer.status)));
        }
        let tls = Session::connect_tls(SocketAddr::new(pod.ip(), 443), MANUAL).await?;
        Ok((tls.certificate() != **self.leaf.der()).then(|| "the certificate is an older one".to_owned()))
    }

    /// Waits for the return of the API server, and from then on for all that was changed; then for one change more.
    async fn back(&mut self, scene: &Scene, pods: &[SocketAddr], limit: Duration) -> anyhow::Result<()> {
        let start = Instant::now();
        ready(scene).await?;
        let back = Instant::now();
        let took = self.live(pods, back + limit).await?;
        println!("{} changes live {took:?} after the return, which took {:?}", self.count, back - start);
        self.change(&scene.client()).await?;
        let took = self.live(pods, Instant::now() + limit).await.context("a change after the return")?;
        println!("a change after the return: live in {took:?}");
        Ok(())
    }
}

/// Another API server over the same etcd.
struct Other {
    process: Child,
    client: Client,
}

impl Other {
    async fn start(scene: &Scene) -> anyhow::Result<Self> {
        let layout = scene.cluster().layout();
        let own = format!("--secure-port={OTHER_PORT}");
        let arguments = arguments(layout)?.into_iter().filter(|argument| !argument.starts_with("--audit-"));
        let arguments =
            arguments.map(|argument| if argument.starts_with("--secure-port=") { own.clone() } else { argument });
        let log = std::fs::File::create(layout.log("kube-apiserver-other"))?;
        let mut command = scene.cluster().command(&layout::tools().join(API_SERVER).to_string_lossy());
        // The addresses of the Service `kubernetes` are the first one's.
        command.args(arguments).arg("--endpoint-reconciler-type=none").stdout(log.try_clone()?).stderr(log);
        let process = command.stdin(Stdio::null()).spawn().context("starting another API server")?;

        let kubeconfig = Kubeconfig::read_from(layout.kubeconfig())?;
        let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        let host = config.cluster_url.host().context("the address of the API server")?.to_owned();
        config.cluster_url = format!("https://{host}:{OTHER_PORT}").parse()?;
        let other = Self { process, client: Client::try_from(config)? };
        let namespaces: Api<Ingress> = Api::namespaced(other.client.clone(), scene.namespace());
        scene
            .until("another API server", async || {
                namespaces.list(&ListParams::default()).await?;
                Ok(true)
            })
            .await?;
        Ok(other)
    }

    /// Has etcd forget everything before now.
    async fn compact(&self, cluster: &Cluster) -> anyhow::Result<()> {
        let pods: Api<Pod> = Api::default_namespaced(self.client.clone());
        let revision = pods.list(&ListParams::default()).await?.metadata.resource_version.context("no version")?;
        let mut curl = cluster.command("curl");
        let body = format!("{{\"revision\": \"{revision}\", \"physical\": true}}");
        curl.args(["--silent", "--show-error", "--fail", "--data", &body]);
        let output = curl.arg("http://127.0.0.1:2379/v3/kv/compaction").output().context("starting curl")?;
        ensure!(output.status.success(), "compaction: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // It may have ended by itself; nothing of it may be left when the cluster ends.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// How the cluster's API server was called.
fn arguments(layout: &Layout) -> anyhow::Result<Vec<String>> {
    let own = layout.audit_log();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let path: PathBuf = entry.path().join("cmdline");
        let words = std::fs::read(path).unwrap_or_default();
        let words: Vec<String> =
            words.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        let is_own = words.iter().any(|word| *word == format!("--audit-log-path={}", own.display()));
        if is_own && words[0].ends_with(API_SERVER) {
            return Ok(words.into_iter().skip(1).filter(|word| !word.is_empty()).collect());
        }
    }
    bail!("no kube-apiserver that writes {}", own.display())
}

/// Has the API server refuse what Fairway asks for, or no more.
async fn refuse(scene: &Scene, client: &Client, on: bool) -> anyhow::Result<()> {
    let schemas: Api<FlowSchema> = Api::all(client.clone());
    if !on {
        schemas.delete("refuse", &DeleteParams::default()).await?;
        return Ok(());
    }
    let level = json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
        "kind": "PriorityLevelConfiguration",
        "metadata": {"name": "refuse"},
        "spec": {"type": "Limited", "limited": {
            "nominalConcurrencyShares": 0, "lendablePercent": 0, "borrowingLimitPercent": 0, "limitResponse": {"type": "Reject"},
        }},
    });
    let schema = json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1",
        "kind": "FlowSchema",
        "metadata": {"name": "refuse"},
        "spec": {"priorityLevelConfiguration": {"name": "refuse"}, "matchingPrecedence": 2, "rules": [{
            "subjects": [{"kind": "Group", "group": {"name": format!("system:serviceaccounts:{}", scene.namespace())}}],
            "resourceRules": [{
                "verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true,
            }],
        }]},
    });
    let parameters = PatchParams::apply("outage").force();
    let levels: Api<PriorityLevelConfiguration> = Api::all(client.clone());
    levels.patch("refuse", &parameters, &Patch::Apply(&level)).await?;
    schemas.patch("refuse", &parameters, &Patch::Apply(&schema)).await?;
    Ok(())
}

/// Waits until the API server says that it is ready.
async fn ready(scene: &Scene) -> anyhow::Result<()> {
    scene
        .until("the API server is ready", async || {
            let request = hyper::http::Request::get("/readyz").body(Vec::new())?;
            Ok(scene.client().request_text(request).await? == "ok")
        })
        .await
}

/// Where the pods of Fairway take requests.
fn addresses(pods: &[Pod]) -> anyhow::Result<Vec<SocketAddr>> {
    let address = |pod: &Pod| {
        let ip: IpAddr =
            pod.status.as_ref().and_then(|status| status.pod_ip.as_ref()).context("no address")?.parse()?;
        Ok(SocketAddr::new(ip, 80))
    };
    pods.iter().map(address).collect()
}

/// The pods are those of before, and none was restarted.
fn same(before: &[Pod], after: &[Pod]) -> anyhow::Result<()> {
    let names =
        |pods: &[Pod]| pods.iter().map(|pod| pod.metadata.name.clone()).collect::<std::collections::BTreeSet<_>>();
    ensure!(names(before) == names(after), "{:?} became {:?}", names(before), names(after));
    for pod in after {
        let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        let restarts: i32 = statuses.map(|status| status.restart_count).sum();
        ensure!(restarts == 0 && is_ready(pod), "{:?} was restarted {restarts} times", pod.metadata.name);
    }
    Ok(())
}
