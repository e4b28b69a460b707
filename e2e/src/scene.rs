//! The environment of one end-to-end test: its own namespace in a cluster, clients in the cluster's network, and
//! everything that a user would install there.
//!
//! ```no_run
//! use fairway_e2e::scene;
//!
//! #[test]
//! fn a_service_is_reached() -> anyhow::Result<()> {
//!     scene::run("reach", async |scene| {
//!         let fairway = scene.fairway(&[]).await?;
//!         scene.echo("web", 1).await?;
//!         fairway.ingress("web", "web.example", "web").await?;
//!         let address = fairway.address().await?;
//!         scene.served(address, "web.example").await
//!     })
//! }
//! ```
//!
//! A successful scene leaves nothing behind. A failed one saves the contents of the namespace and the logs of its pods
//! in `target/e2e/NAME`, and says so.

mod audit;
mod process;
mod release;
mod report;
mod request;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::process::Output;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, ensure};
use fairway_testkit::Response;
use futures::FutureExt;
use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointSlice};
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::discovery::{self, ApiCapabilities, ApiResource, Scope};
use kube::{Api, Client};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

use crate::cluster::{Cluster, Options, OwnCluster};

use self::audit::Audit;
pub use self::audit::Request;
pub use self::release::Release;
pub use self::request::Session;

/// How long a test waits for an expected event.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The interval between two checks.
const PAUSE: Duration = Duration::from_millis(20);

/// The number of correct responses in a row, each over a new connection, that show that a change has arrived
/// everywhere: each worker of each pod applies it in its own time, and the kernel and kube-proxy choose among them at
/// random.
const STEADY: usize = 20;

/// The field manager of objects applied by tests.
const MANAGER: &str = "fairway-e2e";

/// A namespace in a cluster, for one test.
pub struct Scene {
    cluster: Cluster,
    client: Client,
    name: String,
    namespace: String,
    kinds: Mutex<BTreeMap<(String, String), (ApiResource, ApiCapabilities)>>,
    audit: std::sync::Mutex<Audit>,
}

/// The name of the shared cluster: `FAIRWAY_CLUSTER`, or `e2e`.
pub fn shared_cluster() -> String {
    std::env::var("FAIRWAY_CLUSTER").unwrap_or_else(|_| "e2e".to_owned())
}

/// Runs a test in its own namespace of the shared cluster.
///
/// # Errors
/// The error of the test, or one saying that the shared cluster isn't up.
pub fn run(name: &str, test: impl AsyncFnOnce(&Scene) -> anyhow::Result<()> + Send) -> anyhow::Result<()> {
    let cluster = Cluster::find(&shared_cluster())?;
    play(cluster, name, test)
}

/// Runs a test in a dedicated cluster, [`OwnCluster`]: for tests that disturb the control plane, or measure.
///
/// # Errors
/// The error of the test, or that of starting or stopping the cluster.
pub fn run_alone(
    name: &str,
    options: &Options,
    test: impl AsyncFnOnce(&Scene) -> anyhow::Result<()> + Send,
) -> anyhow::Result<()> {
    let cluster = OwnCluster::start(name, options)?;
    let result = play(Cluster::find(name)?, name, test);
    match (result, cluster.end()) {
        (Err(error), Err(end)) => Err(error.context(format!("it failed, and its cluster doesn't end: {end:#}"))),
        (result, end) => result.and(end),
    }
}

/// Stack size: unoptimised futures are large, and the harness gives its threads little.
const STACK: usize = 16 << 20;

fn play(
    cluster: Cluster,
    name: &str,
    test: impl AsyncFnOnce(&Scene) -> anyhow::Result<()> + Send,
) -> anyhow::Result<()> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(name.to_owned()).stack_size(STACK);
        let playing = thread.spawn_scoped(scope, || act(cluster, name, test))?;
        playing.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

fn act(cluster: Cluster, name: &str, test: impl AsyncFnOnce(&Scene) -> anyhow::Result<()>) -> anyhow::Result<()> {
    let runtime = cluster.runtime()?;
    runtime.block_on(async {
        let scene = Scene::new(cluster, name).await?;
        // A panic is a failure like any other: save the state before it continues.
        let result = AssertUnwindSafe(test(&scene)).catch_unwind().await;
        match result {
            Ok(Ok(())) => scene.end().await,
            Ok(Err(error)) => Err(error.context(scene.keep().await)),
            Err(panic) => {
                eprintln!("{}", scene.keep().await);
                resume_unwind(panic)
            }
        }
    })
}

impl Scene {
    async fn new(cluster: Cluster, name: &str) -> anyhow::Result<Self> {
        let client = cluster.client().await?;
        // Unique among the runs on one cluster.
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() % 100_000_000;
        let namespace = format!("{name}-{now:x}");
        let labels = json!({"fairway.dev/test": name});
        let object = json!({"metadata": {"name": namespace, "labels": labels}});
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let audit = Audit::begin(&cluster)?;
        namespaces.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
        Ok(Self { cluster, client, name: name.to_owned(), namespace, kinds: Mutex::default(), audit: audit.into() })
    }

    /// The cluster.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// A client with all rights.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The namespace of the test.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Objects of a kind in the namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Applies YAML documents like `kubectl apply --server-side`. Objects without a namespace go into that of the test;
    /// `{ns}` stands for its name.
    pub async fn apply(&self, text: &str) -> anyhow::Result<()> {
        for object in self.objects(text)? {
            let api = self.dynamic(&object).await?;
            let name = object.metadata.name.clone().context("an object without a name")?;
            let parameters = PatchParams::apply(MANAGER).force();
            api.patch(&name, &parameters, &Patch::Apply(&object)).await.with_context(|| format!("applying {name}"))?;
        }
        Ok(())
    }

    /// Deletes the objects named in a YAML text without waiting for their end. A missing object is not an error.
    pub async fn delete(&self, text: &str) -> anyhow::Result<()> {
        for object in self.objects(text)? {
            let api = self.dynamic(&object).await?;
            let name = object.metadata.name.clone().context("an object without a name")?;
            match api.delete(&name, &DeleteParams::background()).await {
                Err(kube::Error::Api(status)) if status.code == 404 => (),
                result => drop(result.with_context(|| format!("deleting {name}"))?),
            }
        }
        Ok(())
    }

    fn objects(&self, text: &str) -> anyhow::Result<Vec<DynamicObject>> {
        let text = text.replace("{ns}", &self.namespace);
        let documents = serde_norway::Deserializer::from_str(&text);
        let values = documents.map(Value::deserialize).collect::<Result<Vec<_>, _>>().context("YAML of a test")?;
        let objects = values.into_iter().filter(|value| !value.is_null()).map(serde_json::from_value);
        Ok(objects.collect::<Result<_, _>>()?)
    }

    /// The API of an object. Each kind is looked up once.
    async fn dynamic(&self, object: &DynamicObject) -> anyhow::Result<Api<DynamicObject>> {
        let types = object.types.as_ref().context("an object without apiVersion and kind")?;
        let key = (types.api_version.clone(), types.kind.clone());
        let mut kinds = self.kinds.lock().await;
        if !kinds.contains_key(&key) {
            let (group, version) = types.api_version.split_once('/').unwrap_or(("", &types.api_version));
            let kind = GroupVersionKind::gvk(group, version, &types.kind);
            kinds.insert(key.clone(), discovery::pinned_kind(&self.client, &kind).await?);
        }
        let (resource, capabilities) = &kinds[&key];
        Ok(match capabilities.scope {
            Scope::Cluster => Api::all_with(self.client.clone(), resource),
            Scope::Namespaced => {
                let namespace = object.metadata.namespace.as_deref().unwrap_or(&self.namespace);
                Api::namespaced_with(self.client.clone(), namespace, resource)
            }
        })
    }

    /// Repeats `check` until it returns true, for at most [`PATIENCE`].
    ///
    /// # Errors
    /// If it never does, with `what` and its last error, if any.
    pub async fn until(&self, what: &str, mut check: impl AsyncFnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
        self.find(what, async || Ok(check().await?.then_some(()))).await
    }

    /// Repeats `check` until it has returned true 20 times in a row, for at most [`PATIENCE`]: for a condition that
    /// must hold from then on. `check` opens a connection each time.
    ///
    /// # Errors
    /// Those of [`Scene::until`].
    pub async fn steady(&self, what: &str, mut check: impl AsyncFnMut() -> anyhow::Result<bool>) -> anyhow::Result<()> {
        self.until(&format!("{what}, {STEADY} times in a row"), async || {
            for _ in 0..STEADY {
                if !check().await? {
                    return Ok(false);
                }
            }
            Ok(true)
        })
        .await
    }

    /// Waits until all workers behind an address serve a host.
    pub async fn served(&self, address: SocketAddr, host: &str) -> anyhow::Result<()> {
        let what = format!("{host} is served at {address}");
        self.steady(&what, async || Ok(self.get(address, host, "/").await?.status == 200)).await
    }

    /// Repeats `look` until it finds something, for at most [`PATIENCE`].
    ///
    /// # Errors
    /// If it never does, with `what` and its last error, if any.
    pub async fn find<T>(
        &self,
        what: &str,
        mut look: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
    ) -> anyhow::Result<T> {
        let deadline = Instant::now() + PATIENCE;
        let mut last = None;
        loop {
            match tokio::time::timeout_at(deadline, look()).await {
                Ok(Ok(Some(value))) => return Ok(value),
                Ok(Ok(None)) => last = None,
                Ok(Err(error)) => last = Some(error),
                Err(_) => {
                    let late = format!("not within {PATIENCE:?}: {what}");
                    return Err(last.map_or_else(|| anyhow::anyhow!(late.clone()), |error| error.context(late.clone())));
                }
            }
            sleep(PAUSE).await;
        }
    }

    /// Runs kubectl in the namespace; returns its output.
    pub async fn kubectl(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut words = vec!["--namespace", &self.namespace];
        words.extend(arguments);
        self.read("kubectl", &words).await
    }

    /// Runs helm in the namespace; returns its output.
    pub async fn helm(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut words = vec!["--namespace", &self.namespace];
        words.extend(arguments);
        self.read("helm", &words).await
    }

    /// Runs a program in the cluster's network, from the repository root.
    pub async fn output(&self, program: &str, arguments: &[&str]) -> anyhow::Result<Output> {
        let mut command = self.cluster.command(program);
        command.args(arguments).current_dir(repository());
        let output = tokio::process::Command::from(command).kill_on_drop(true).output();
        output.await.with_context(|| format!("starting {program}"))
    }

    async fn read(&self, program: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let output = self.output(program, arguments).await?;
        let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "`{program} {}`: {}\n{text}{errors}", arguments.join(" "), output.status);
        Ok(text.into_owned())
    }

    /// Creates a Deployment of the echo image and a Service with the same name, port 80, called `http`; waits until all
    /// pods are ready.
    pub async fn echo(&self, name: &str, replicas: usize) -> anyhow::Result<()> {
        self.apply(&format!(include_str!("scene/echo.yaml"), name = name, replicas = replicas)).await?;
        self.ready(name, replicas).await
    }

    /// Waits until exactly `count` pods with the label `app: NAME` exist and are ready, and are the endpoints of the
    /// Service `NAME`, if there is one.
    pub async fn ready(&self, name: &str, count: usize) -> anyhow::Result<()> {
        self.until(&format!("{count} ready pods of {name}"), async || {
            let pods = self.pods(name).await?;
            let addresses = pods.iter().filter_map(|pod| pod.status.as_ref()?.pod_ip.clone()).collect::<BTreeSet<_>>();
            ensure!(pods.len() == count && pods.iter().all(is_ready), "there are {}", standing(&pods));
            if self.api::<Service>().get_opt(name).await?.is_some() {
                let endpoints = self.ready_endpoints(name).await?;
                ensure!(endpoints == addresses, "the Service has {endpoints:?}, and the pods have {addresses:?}");
            }
            Ok(true)
        })
        .await
    }

    /// The addresses of the ready endpoints of a Service.
    pub async fn ready_endpoints(&self, service: &str) -> anyhow::Result<BTreeSet<String>> {
        let is_ready = |endpoint: &Endpoint| endpoint.conditions.as_ref().is_some_and(|is| is.ready == Some(true));
        let endpoints = self.endpoints(service).await?.into_iter().filter(is_ready);
        Ok(endpoints.flat_map(|endpoint| endpoint.addresses).collect())
    }

    /// The endpoints of a Service, ready or not.
    pub async fn endpoints(&self, service: &str) -> anyhow::Result<Vec<Endpoint>> {
        let of_service = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
        let slices = self.api::<EndpointSlice>().list(&of_service).await?;
        Ok(slices.items.into_iter().filter_map(|slice| slice.endpoints).flatten().collect())
    }

    /// The pods with the label `app: NAME`.
    pub async fn pods(&self, name: &str) -> anyhow::Result<Vec<Pod>> {
        Ok(self.api::<Pod>().list(&ListParams::default().labels(&format!("app={name}"))).await?.items)
    }

    /// Sends one request over a new connection.
    pub async fn get(&self, address: SocketAddr, host: &str, target: &str) -> anyhow::Result<Response> {
        Session::connect(address).await?.get(host, target).await
    }

    async fn end(self) -> anyhow::Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        release::uninstall_all(&self).await?;
        namespaces.delete(&self.namespace, &DeleteParams::background()).await?;
        Ok(())
    }
}

/// Whether a pod is ready and not terminating.
pub fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    pod.metadata.deletion_timestamp.is_none()
        && conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Describes pods that are not in the expected state.
fn standing(pods: &[Pod]) -> String {
    let of_pod = |pod: &Pod| {
        let name = pod.metadata.name.as_deref().unwrap_or_default();
        let leaving = if pod.metadata.deletion_timestamp.is_some() { ", being deleted" } else { "" };
        let status = pod.status.clone().unwrap_or_default();
        let ready = if is_ready(pod) { "ready" } else { "not ready" };
        let containers = status.container_statuses.unwrap_or_default();
        let containers = containers.into_iter().map(|container| {
            let state = container.state.and_then(|state| serde_json::to_string(&state).ok()).unwrap_or_default();
            format!(", {} restarted {} times: {state}", container.name, container.restart_count)
        });
        format!("{name}: {}, {ready}{leaving}{}", status.phase.unwrap_or_default(), containers.collect::<String>())
    };
    format!("{} pods; {}", pods.len(), pods.iter().map(of_pod).collect::<Vec<_>>().join("; "))
}

/// The repository root.
pub fn repository() -> &'static std::path::Path {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the repository")
}
