//! The life of one pod on this Node: network and volumes, containers, end.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Container, Pod, ServiceAccount, Volume};
use kube::Api;
use kube::api::{DeleteParams, PostParams, Preconditions};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::environment::{self, Sources};
use super::log::Log;
use super::network::PodNetwork;
use super::objects::Objects;
use super::probe::Target;
use super::process::{self, Output, Program};
use super::runner::{self, Policy, Which};
use super::spawner::Network;
use super::status::{self, ContainerState, Current, PodState};
use super::stop::{self, Stop};
use super::volume::{self, Kind, Ownership, Render, VolumeError};
use super::{Kubelet, host_port, writer};
use crate::container::Place;

/// What the API server says of a pod.
#[derive(Clone, Debug)]
pub(crate) struct Update {
    /// Its newest form.
    pub object: Arc<Pod>,
    /// It is no longer there.
    pub gone: bool,
}

/// A container that runs.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    /// Its first process.
    pub process: i32,
    /// What runs in it.
    pub program: Program,
    /// Where its output goes.
    pub log: Arc<Log>,
}

/// A pod on this Node.
pub(crate) struct Run {
    kubelet: Arc<Kubelet>,
    updates: watch::Receiver<Update>,
    state: watch::Sender<PodState>,
    objects: Objects,
    /// Set once the pod has a network.
    network: OnceLock<(Option<Network>, IpAddr)>,
    volumes: OnceLock<BTreeMap<String, volume::Ready>>,
    live: Mutex<HashMap<String, Live>>,
    uid: String,
    ip: OnceLock<String>,
}

/// Takes care of a pod from the first time it is seen until it is gone.
pub(crate) async fn look_after(kubelet: Arc<Kubelet>, mut updates: watch::Receiver<Update>) {
    let first = updates.borrow().object.clone();
    let mut keys = volume::references(&first);
    for container in containers(&first) {
        keys.extend(environment::references(container, &first.metadata));
    }
    let mut state = PodState::new(&first, Timestamp::now());
    recover(&first, &mut state);
    let run = Arc::new(Run {
        objects: kubelet.cache.watch(keys),
        updates: updates.clone(),
        state: watch::channel(state).0,
        network: OnceLock::new(),
        volumes: OnceLock::new(),
        live: Mutex::default(),
        ip: OnceLock::new(),
        uid: first.metadata.uid.clone().unwrap_or_default(),
        kubelet: kubelet.clone(),
    });
    kubelet.register(&run);
    let phase = first.status.as_ref().and_then(|status| status.phase.as_deref());
    if !matches!(phase, Some("Succeeded" | "Failed")) {
        live(&run, &mut updates).await;
    }
    // What has ended is kept, as the API keeps it, until someone deletes it.
    let deleted = |update: &Update| update.gone || update.object.metadata.deletion_timestamp.is_some();
    if updates.wait_for(deleted).await.is_ok() && !updates.borrow().gone {
        run.delete(&mut updates).await;
    }
    kubelet.forget(&run);
}

/// Runs the pod, and says in its status what became of it.
async fn live(run: &Arc<Run>, updates: &mut watch::Receiver<Update>) {
    let (finished, finish) = watch::channel(false);
    let writer = tokio::spawn(writer::write(run.clone(), run.state.subscribe(), updates.clone(), finish));
    let (stopper, stop) = stop::channel();
    let begun = run.state.borrow().start;
    let limit = run.spec_seconds(|spec| spec.active_deadline_seconds);
    let deadline = async {
        match limit {
            Some(limit) => {
                let passed = Timestamp::now().duration_since(begun).unsigned_abs();
                sleep(limit.saturating_sub(passed)).await;
            }
            None => std::future::pending().await,
        }
    };
    let mut work = tokio::spawn(work(run.clone(), stop));
    tokio::pin!(deadline);
    let mut late = false;
    let network = loop {
        let update = updates.borrow_and_update().clone();
        if update.gone {
            stopper.stop(Instant::now() + Duration::from_secs(1));
        } else if update.object.metadata.deletion_timestamp.is_some() {
            let grace = update.object.metadata.deletion_grace_period_seconds.unwrap_or(30);
            stopper.stop(Instant::now() + Duration::from_secs(u64::try_from(grace).unwrap_or(0)));
        }
        tokio::select! {
            network = &mut work => break network.ok().flatten(),
            changed = updates.changed() => if changed.is_err() {
                stopper.stop(Instant::now());
                break (&mut work).await.ok().flatten();
            },
            () = &mut deadline, if !late => {
                late = true;
                let message = "Pod was active on the node longer than the specified deadline".to_owned();
                run.state.send_modify(|state| state.failed = Some(("DeadlineExceeded".to_owned(), message)));
                stopper.stop(Instant::now() + run.grace());
            }
        }
    };
    let stopped = stopper.is_stopped();
    run.state.send_modify(|state| state.ended |= stopped);
    run.clear(network).await;
    finished.send_replace(true);
    // The last status is written before the pod is deleted: whoever looks at exit codes sees them.
    let _ = writer.await;
}

/// Network, volumes, init containers, containers. Returns what is to be removed afterwards.
async fn work(run: Arc<Run>, mut stop: Stop) -> Option<PodNetwork> {
    let mut network = None;
    let prepared = tokio::select! {
        prepared = prepare(&run, &mut network) => prepared,
        () = stop.begun() => false,
    };
    if prepared {
        let (sidecar_stopper, sidecar_stop) = stop::channel();
        let mut sidecars = Vec::new();
        let mut ready = true;
        let object = run.object();
        let init = object.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
        for (index, container) in init.enumerate() {
            let which = Which::Init(index);
            if status::is_sidecar(container) {
                sidecars.push(tokio::spawn(runner::run(run.clone(), which, Policy::Always, sidecar_stop.clone())));
                let mut states = run.state.subscribe();
                let started = states.wait_for(|state| state.init[index].started);
                tokio::select! {
                    _ = started => {}
                    () = stop.begun() => ready = false,
                }
            } else {
                let policy = if run.policy() == Policy::Never { Policy::Never } else { Policy::OnFailure };
                ready = runner::run(run.clone(), which, policy, stop.clone()).await;
            }
            if !ready {
                break;
            }
        }
        if ready && !stop.is_set() {
            run.state.send_modify(|state| {
                for container in &mut state.containers {
                    if matches!(&container.current, Current::Waiting(reason, _) if reason == "PodInitializing") {
                        container.current = Current::Waiting("ContainerCreating".to_owned(), None);
                    }
                }
            });
            let count = run.state.borrow().containers.len();
            let indices = (0..count).filter(|index| !run.is_done(*index)).collect::<Vec<_>>();
            let runs = indices.into_iter().map(|index| {
                let (run, stop) = (run.clone(), stop.clone());
                tokio::spawn(async move {
                    let policy = run.policy();
                    runner::run(run, Which::Main(index), policy, stop).await
                })
            });
            join_all(runs).await;
        }
        let grace = stop.deadline().unwrap_or_else(|| Instant::now() + run.grace());
        sidecar_stopper.stop(grace);
        join_all(sidecars).await;
    }
    network
}

/// Everything that comes before the first container. False: the pod is refused.
async fn prepare(run: &Arc<Run>, network: &mut Option<PodNetwork>) -> bool {
    let object = run.object();
    let sysctls = match sysctls(&object) {
        Ok(sysctls) => sysctls,
        Err(message) => {
            run.event("Warning", "SysctlForbidden", message.clone());
            run.state.send_modify(|state| state.failed = Some(("SysctlForbidden".to_owned(), message)));
            return false;
        }
    };
    let kubelet = &run.kubelet;
    if run.host_network() {
        let _ = run.network.set((None, kubelet.options.address.into()));
    } else {
        let made = loop {
            match PodNetwork::new(&kubelet.spawner, &kubelet.addresses, &run.uid, sysctls.clone()).await {
                Ok(made) => break made,
                Err(error) => {
                    run.event("Warning", "FailedCreatePodSandBox", format!("{error:#}"));
                    sleep(Duration::from_secs(5)).await;
                }
            }
        };
        let ip = made.address.ip;
        let _ = run.network.set((Some(made.namespace.clone()), ip.into()));
        *network = Some(made);
        if let Err(error) = kubelet.host_ports.set(&run.uid, host_port::mappings(&object, ip)).await {
            run.event("Warning", "HostPortFailed", format!("{error:#}"));
        }
    }
    let ip = run.target().address.to_string();
    run.state.send_modify(|state| state.ip = Some(ip));

    run.objects.known().await;
    let mut told = String::new();
    let mut tokens = Tokens::default();
    loop {
        let mut changes = run.objects.changes();
        let result = match tokens.fetch(run).await {
            Ok(()) => run.set_up_volumes(&tokens),
            Err(error) => Err(error),
        };
        match result {
            Ok(shown) => {
                tokio::spawn(refresh(Arc::downgrade(run), tokens, shown, run.objects.clone(), run.updates.clone()));
                return true;
            }
            Err(error) if error != told => {
                run.event("Warning", "FailedMount", error.clone());
                told = error;
            }
            Err(_) => {}
        }
        tokio::select! {
            () = changes.next() => {}
            () = sleep(Duration::from_secs(2)) => {}
        }
    }
}

/// Keeps the files of volumes as their objects are, until the pod is gone.
async fn refresh(
    run: std::sync::Weak<Run>,
    mut tokens: Tokens,
    mut shown: BTreeMap<String, volume::Payload>,
    objects: Objects,
    mut updates: watch::Receiver<Update>,
) {
    let mut changes = objects.changes();
    loop {
        let renewal = tokens.renewal();
        let wait = async {
            match renewal {
                Some(renewal) => sleep_until(renewal).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = changes.next() => {}
            changed = updates.changed() => if changed.is_err() { return },
            () = wait => {}
        }
        let Some(run) = run.upgrade() else { return };
        if tokens.fetch(&run).await.is_err() {
            // The old token is good for a while; the API server is asked again soon.
            sleep(Duration::from_secs(1)).await;
        }
        if run.state.borrow().ended {
            return;
        }
        for volume in run.volume_specs() {
            if !matches!(volume::kind(&volume), Ok(Kind::Payload)) {
                continue;
            }
            // An object that was deleted leaves its files, as with the kubelet.
            let Ok(payload) = run.payload(&volume, &tokens) else { continue };
            if shown.get(&volume.name) != Some(&payload) {
                let path = run.volume_path(&volume.name);
                match volume::write(&path, &payload, run.ownership()) {
                    Ok(()) => {
                        shown.insert(volume.name.clone(), payload);
                    }
                    Err(error) => {
                        run.event("Warning", "FailedMount", format!("updating volume {}: {error}", volume.name));
                    }
                }
            }
        }
    }
}

/// The tokens of a pod's volumes.
#[derive(Debug, Default)]
struct Tokens {
    text: BTreeMap<(String, usize), String>,
    due: BTreeMap<(String, usize), Instant>,
}

impl Tokens {
    /// When the next token has to be renewed.
    fn renewal(&self) -> Option<Instant> {
        self.due.values().min().copied()
    }

    /// Asks for the tokens that are missing or due.
    async fn fetch(&mut self, run: &Run) -> Result<(), String> {
        let object = run.object();
        for (key, wanted) in volume::tokens(&object) {
            if self.due.get(&key).is_some_and(|due| *due > Instant::now()) {
                continue;
            }
            let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
            let account =
                object.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref()).unwrap_or("default");
            let request = TokenRequest {
                spec: Some(TokenRequestSpec {
                    audiences: wanted
                        .audience
                        .clone()
                        .filter(|audience| !audience.is_empty())
                        .map(|audience| vec![audience]),
                    expiration_seconds: wanted.expiration_seconds,
                    bound_object_ref: Some(BoundObjectReference {
                        api_version: Some("v1".to_owned()),
                        kind: Some("Pod".to_owned()),
                        name: object.metadata.name.clone(),
                        uid: object.metadata.uid.clone(),
                    }),
                }),
                ..TokenRequest::default()
            };
            let accounts = Api::<ServiceAccount>::namespaced(run.kubelet.client.clone(), namespace);
            let issued = accounts.create_token_request(account, &PostParams::default(), &request).await;
            let issued = issued.map_err(|error| {
                format!("MountVolume.SetUp failed for volume \"{}\" : failed to fetch token: {error}", key.0)
            })?;
            let issued = issued.status.and_then(|status| Some((status.token?, status.expiration_timestamp?)));
            let (token, expiry) = issued.ok_or("the API server answered without a token")?;
            let life = expiry.0.duration_since(Timestamp::now()).unsigned_abs();
            // As the kubelet: renewed when a fifth of its life is left, or after a day.
            let due = (life * 4 / 5).min(Duration::from_secs(24 * 3600)).max(Duration::from_secs(1));
            self.text.insert(key.clone(), token);
            self.due.insert(key, Instant::now() + due);
        }
        Ok(())
    }
}

impl Run {
    /// The kubelet.
    pub(crate) fn node(&self) -> &Kubelet {
        &self.kubelet
    }

    /// The newest form of the object.
    pub(crate) fn object(&self) -> Arc<Pod> {
        self.updates.borrow().object.clone()
    }

    /// Uid.
    pub(crate) fn uid(&self) -> &str {
        &self.uid
    }

    /// `NAME_NAMESPACE(UID)`, as the kubelet writes it.
    pub(crate) fn name(&self) -> String {
        let object = self.object();
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        format!("{}_{}({})", text(&object.metadata.name), text(&object.metadata.namespace), self.uid)
    }

    /// One of its containers.
    pub(crate) fn container(&self, which: Which) -> Container {
        let object = self.object();
        let spec = object.spec.as_ref();
        let found = match which {
            Which::Init(index) => {
                spec.and_then(|spec| spec.init_containers.as_ref()).and_then(|containers| containers.get(index))
            }
            Which::Main(index) => spec.and_then(|spec| spec.containers.get(index)),
        };
        found.cloned().unwrap_or_default()
    }

    /// What is known of a container.
    pub(crate) fn state(&self, which: Which) -> ContainerState {
        let state = self.state.borrow();
        match which {
            Which::Init(index) => state.init[index].clone(),
            Which::Main(index) => state.containers[index].clone(),
        }
    }

    /// What is known of the pod.
    pub(crate) fn pod_state(&self) -> PodState {
        self.state.borrow().clone()
    }

    /// Changes what is known of a container, and says so if that is something new.
    pub(crate) fn update(&self, which: Which, change: impl FnOnce(&mut ContainerState)) {
        self.state.send_if_modified(|state| {
            let container = match which {
                Which::Init(index) => &mut state.init[index],
                Which::Main(index) => &mut state.containers[index],
            };
            let before = container.clone();
            change(container);
            *container != before
        });
    }

    /// Writes an Event about the pod, soon.
    pub(crate) fn event(&self, kind: &'static str, reason: &'static str, message: String) {
        self.kubelet.event(&self.object(), kind, reason, message);
    }

    /// The Secrets and ConfigMaps that it refers to.
    pub(crate) fn objects(&self) -> &Objects {
        &self.objects
    }

    /// Its network namespace; `None`: the Node's.
    pub(crate) fn network(&self) -> Option<Network> {
        self.network.get().and_then(|(network, _)| network.clone())
    }

    /// Whom and whence its probes ask.
    pub(crate) fn target(&self) -> Target {
        let node: IpAddr = self.kubelet.options.address.into();
        Target { address: self.network.get().map_or(node, |(_, address)| *address), source: node }
    }

    /// The host name in its containers.
    pub(crate) fn hostname(&self) -> String {
        let object = self.object();
        if self.host_network() {
            return self.kubelet.options.node.clone();
        }
        let named = object.spec.as_ref().and_then(|spec| spec.hostname.clone());
        let mut name = named.or_else(|| object.metadata.name.clone()).unwrap_or_default();
        name.truncate(63);
        name
    }

    /// Its directory on the host.
    pub(crate) fn directory(&self) -> PathBuf {
        self.kubelet.pod_directory(&self.uid)
    }

    /// Where the log of a run of a container is.
    pub(crate) fn log_path(&self, container: &str, attempt: i32) -> PathBuf {
        let object = self.object();
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let name = format!("{}_{}_{}", text(&object.metadata.namespace), text(&object.metadata.name), self.uid);
        self.kubelet.options.directory.join("logs").join(name).join(container).join(format!("{attempt}.log"))
    }

    /// Its volumes.
    pub(crate) fn volumes(&self) -> BTreeMap<String, volume::Ready> {
        self.volumes.get().cloned().unwrap_or_default()
    }

    /// How long its containers have to end, if nothing else is said.
    pub(crate) fn grace(&self) -> Duration {
        self.spec_seconds(|spec| spec.termination_grace_period_seconds).unwrap_or(Duration::from_secs(30))
    }

    /// Remembers that a container runs, or does not.
    pub(crate) fn live(&self, container: &str, live: Option<Live>) {
        let mut all = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        match live {
            Some(live) => all.insert(container.to_owned(), live),
            None => all.remove(container),
        };
    }

    /// A running container.
    pub(crate) fn find_live(&self, container: &str) -> Option<Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner).get(container).cloned()
    }

    /// Runs a command in a container: its exit code and the beginning of what it wrote.
    ///
    /// # Errors
    /// When the container does not run or the command can't be started.
    pub(crate) async fn execute(&self, container: &str, command: Vec<String>) -> Result<(i32, Vec<u8>), String> {
        let live = self.find_live(container).ok_or_else(|| format!("container {container} is not running"))?;
        let program = Program { command, ..live.program };
        let (sender, mut output) = mpsc::channel(2);
        let directory = self.directory().join("containers").join(container);
        let place = Place::Inside(live.process);
        let spawner = &self.kubelet.spawner;
        let started =
            process::start(spawner, self.network(), &program, place, &directory, Output::Collected(sender)).await;
        let mut process = Guard(Some(started?));
        let exit = match &mut process.0 {
            Some(process) => process.wait().await,
            None => return Err("the command did not start".to_owned()),
        };
        process.0 = None;
        let mut text = Vec::new();
        // A child of the command may hold the pipes open: its output is not waited for.
        let collect = async {
            while let Some(part) = output.recv().await {
                text.extend(part);
            }
        };
        let _ = tokio::time::timeout(Duration::from_millis(200), collect).await;
        Ok((process::exit_code(exit).0, text))
    }

    /// What references of the pod can point to.
    pub(crate) fn sources<'a>(&'a self, object: &'a Pod) -> Sources<'a> {
        let (ip, host) = self.addresses();
        Sources { pod: object, pod_ip: ip, host_ip: host, node: &self.kubelet.node }
    }

    fn addresses(&self) -> (&str, &str) {
        let host = self.kubelet.host_ip.as_str();
        let ip = self.network.get().and_then(|(network, address)| network.as_ref().map(|_| address));
        match ip {
            Some(_) => (self.ip.get_or_init(|| self.target().address.to_string()), host),
            None => (host, host),
        }
    }

    fn host_network(&self) -> bool {
        self.object().spec.as_ref().and_then(|spec| spec.host_network) == Some(true)
    }

    fn policy(&self) -> Policy {
        match self.object().spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()) {
            Some("Never") => Policy::Never,
            Some("OnFailure") => Policy::OnFailure,
            _ => Policy::Always,
        }
    }

    /// Whether a container has ended for good, before this kubelet.
    fn is_done(&self, index: usize) -> bool {
        matches!(self.state.borrow().containers[index].current, Current::Terminated(_))
    }

    fn spec_seconds(&self, field: fn(&k8s_openapi::api::core::v1::PodSpec) -> Option<i64>) -> Option<Duration> {
        let seconds = self.object().spec.as_ref().and_then(field)?;
        Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
    }

    fn volume_specs(&self) -> Vec<Volume> {
        self.object().spec.as_ref().and_then(|spec| spec.volumes.clone()).unwrap_or_default()
    }

    fn volume_path(&self, name: &str) -> PathBuf {
        self.directory().join("volumes").join(name)
    }

    fn ownership(&self) -> Ownership {
        Ownership { group: self.fs_group().and_then(|group| u32::try_from(group).ok()) }
    }

    fn fs_group(&self) -> Option<i64> {
        self.object().spec.as_ref().and_then(|spec| spec.security_context.as_ref()).and_then(|context| context.fs_group)
    }

    fn payload(&self, volume: &Volume, tokens: &Tokens) -> Result<volume::Payload, VolumeError> {
        let object = self.object();
        let render = Render {
            sources: self.sources(&object),
            objects: &self.objects,
            tokens: &tokens.text,
            user: common_user(&object),
            group: self.fs_group(),
        };
        volume::payload(volume, &render)
    }

    /// Makes all volumes; what is in those that follow objects.
    fn set_up_volumes(&self, tokens: &Tokens) -> Result<BTreeMap<String, volume::Payload>, String> {
        let mut paths = BTreeMap::new();
        let mut shown = BTreeMap::new();
        for volume in self.volume_specs() {
            let failed =
                |error: std::io::Error| format!("MountVolume.SetUp failed for volume \"{}\" : {error}", volume.name);
            let path = self.volume_path(&volume.name);
            let kind = volume::kind(&volume).map_err(|error| error.to_string())?;
            let read_only = kind == Kind::Payload;
            let path = match kind {
                Kind::Payload => {
                    let payload = self.payload(&volume, tokens).map_err(|error| error.to_string())?;
                    volume::write(&path, &payload, self.ownership()).map_err(failed)?;
                    shown.insert(volume.name.clone(), payload);
                    path
                }
                Kind::Empty { memory, limit } => {
                    volume::empty_directory(&path, memory, limit.as_deref(), self.ownership()).map_err(failed)?;
                    path
                }
                Kind::Host { path, create } => {
                    if create {
                        std::fs::create_dir_all(&path).map_err(failed)?;
                    }
                    path
                }
            };
            paths.insert(volume.name.clone(), volume::Ready { path, read_only });
        }
        let _ = self.volumes.set(paths);
        Ok(shown)
    }

    /// Removes network and volumes.
    async fn clear(&self, network: Option<PodNetwork>) {
        if let Err(error) = self.kubelet.host_ports.set(&self.uid, Vec::new()).await {
            tracing::warn!(error = format!("{error:#}"), pod = self.name(), "removing host ports failed");
        }
        if let Some(network) = network {
            network.remove(&self.kubelet.spawner).await;
        }
        let directory = self.directory();
        let removed = tokio::task::spawn_blocking(move || volume::remove_all(&directory)).await;
        if let Ok(Err(error)) = removed {
            tracing::warn!(%error, pod = self.name(), "removing the pod's directory failed");
        }
    }

    /// Deletes the object for good, once nothing of it runs.
    async fn delete(&self, updates: &mut watch::Receiver<Update>) {
        let object = self.object();
        let namespace = object.metadata.namespace.as_deref().unwrap_or_default();
        let api = Api::<Pod>::namespaced(self.kubelet.client.clone(), namespace);
        let parameters = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(Preconditions { uid: Some(self.uid.clone()), resource_version: None }),
            ..DeleteParams::default()
        };
        loop {
            match api.delete(object.metadata.name.as_deref().unwrap_or_default(), &parameters).await {
                Ok(_) => break,
                Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => break,
                Err(error) => tracing::debug!(%error, pod = self.name(), "deleting the pod failed"),
            }
            sleep(Duration::from_millis(500)).await;
        }
        // With a finalizer it stays for a while.
        let _ = updates.wait_for(|update| update.gone).await;
    }
}

/// Ends a command that nobody waits for any more.
struct Guard(Option<process::Process>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(process) = &self.0 {
            let _ = kill(Pid::from_raw(process.id), Signal::SIGKILL);
        }
    }
}

fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    let spec = pod.spec.as_ref();
    spec.into_iter().flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers))
}

/// The user that all containers ask for, if they ask for one.
fn common_user(pod: &Pod) -> Option<u32> {
    let shared =
        pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref()).and_then(|context| context.run_as_user);
    let users = containers(pod)
        .map(|container| container.security_context.as_ref().and_then(|context| context.run_as_user).or(shared));
    let mut users: Vec<_> = users.collect();
    users.dedup();
    match users[..] {
        [Some(user)] => u32::try_from(user).ok(),
        _ => None,
    }
}

/// The kernel settings of a pod, if they may be set.
fn sysctls(pod: &Pod) -> Result<Vec<(String, String)>, String> {
    let context = pod.spec.as_ref().and_then(|spec| spec.security_context.as_ref());
    let mut wanted = Vec::new();
    let host = pod.spec.as_ref().and_then(|spec| spec.host_network) == Some(true);
    for sysctl in context.iter().flat_map(|context| context.sysctls.iter().flatten()) {
        let name = sysctl.name.replace('/', ".");
        if !name.starts_with("net.") || name.contains("..") || host {
            return Err(format!("forbidden sysctl: {:?} not allowlisted", sysctl.name));
        }
        wanted.push((sysctl.name.clone(), sysctl.value.clone()));
    }
    Ok(wanted)
}

/// Takes over what an earlier kubelet wrote into the status.
fn recover(pod: &Pod, state: &mut PodState) {
    let Some(status) = &pod.status else { return };
    let now = Timestamp::now();
    if let Some(start) = &status.start_time {
        state.start = start.0;
    }
    let policy = pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()).unwrap_or("Always");
    let find = |statuses: &Option<Vec<k8s_openapi::api::core::v1::ContainerStatus>>, name: &str| {
        statuses.iter().flatten().find(|status| status.name == name).cloned()
    };
    let spec = pod.spec.as_ref();
    let init = spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    for (container, state) in init.zip(&mut state.init) {
        if let Some(status) = find(&status.init_container_statuses, &container.name) {
            state.recovered(&status, now);
        }
    }
    for (container, state) in spec.iter().flat_map(|spec| &spec.containers).zip(&mut state.containers) {
        let Some(status) = find(&status.container_statuses, &container.name) else { continue };
        state.recovered(&status, now);
        let last = state.last.clone();
        if let Some(last) = last.filter(|last| policy == "Never" || (policy == "OnFailure" && last.exit_code == 0)) {
            state.id.clone_from(&last.id);
            state.last = None;
            state.current = Current::Terminated(last);
        }
    }
}
