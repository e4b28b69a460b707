//! A pod on this Node: the state shared by its tasks. [`life`] describes its course.

mod exec;
pub(crate) mod life;
mod volumes;

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use tokio::sync::watch;

use super::Kubelet;
use super::environment::Sources;
use super::log::ContainerLog;
use super::objects::Objects;
use super::probe::Target;
use super::process::Program;
use super::runner::Which;
use super::spawner::Network;
use super::status::{ContainerState, PodState};
use super::volume;

/// The API server's view of a pod.
#[derive(Clone, Debug)]
pub(crate) struct Update {
    /// Its newest version.
    pub object: Arc<Pod>,
    /// It no longer exists.
    pub gone: bool,
}

/// A running container.
#[derive(Clone, Debug)]
pub(crate) struct RunningContainer {
    /// Its first process.
    pub process: i32,
    /// The program in it.
    pub program: Program,
    /// The log of its output.
    pub log: Arc<ContainerLog>,
}

/// What the tasks of a pod on this Node share: a pod worker, as the kubelet calls it.
pub(crate) struct PodWorker {
    kubelet: Arc<Kubelet>,
    updates: watch::Receiver<Update>,
    state: watch::Sender<PodState>,
    objects: Objects,
    /// Set once the pod has a network.
    network: OnceLock<(Option<Network>, IpAddr)>,
    volumes: OnceLock<BTreeMap<String, volume::Ready>>,
    running: Mutex<HashMap<String, RunningContainer>>,
    uid: String,
    ip: OnceLock<String>,
}

impl PodWorker {
    /// The kubelet.
    pub(crate) fn node(&self) -> &Kubelet {
        &self.kubelet
    }

    /// The newest version of the object.
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

    /// The state of a container.
    pub(crate) fn state(&self, which: Which) -> ContainerState {
        let state = self.state.borrow();
        match which {
            Which::Init(index) => state.init[index].clone(),
            Which::Main(index) => state.containers[index].clone(),
        }
    }

    /// The state of the pod.
    pub(crate) fn pod_state(&self) -> PodState {
        self.state.borrow().clone()
    }

    /// Changes the state of a container, and signals actual changes.
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

    /// Queues an Event about the pod.
    pub(crate) fn event(&self, kind: &'static str, reason: &'static str, message: String) {
        self.kubelet.event(&self.object(), kind, reason, message);
    }

    /// The Secrets and ConfigMaps that it refers to.
    pub(crate) fn objects(&self) -> &Objects {
        &self.objects
    }

    /// Its network namespace; `None` for the Node's.
    pub(crate) fn network(&self) -> Option<Network> {
        self.network.get().and_then(|(network, _)| network.clone())
    }

    /// Destination and source address of its probes.
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

    /// The path of the log of a container's run.
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

    /// The default grace period of its containers.
    pub(crate) fn grace(&self) -> Duration {
        self.spec_seconds(|spec| spec.termination_grace_period_seconds).unwrap_or(Duration::from_secs(30))
    }

    /// Records whether a container runs.
    pub(crate) fn set_running(&self, container: &str, running: Option<RunningContainer>) {
        let mut all = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        match running {
            Some(running) => all.insert(container.to_owned(), running),
            None => all.remove(container),
        };
    }

    /// A running container.
    pub(crate) fn running_container(&self, container: &str) -> Option<RunningContainer> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner).get(container).cloned()
    }

    /// The targets of references of the pod.
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

    fn spec_seconds(&self, field: fn(&PodSpec) -> Option<i64>) -> Option<Duration> {
        let seconds = self.object().spec.as_ref().and_then(field)?;
        Some(Duration::from_secs(u64::try_from(seconds).unwrap_or(0)))
    }
}

fn containers(pod: &Pod) -> impl Iterator<Item = &Container> {
    let spec = pod.spec.as_ref();
    spec.into_iter().flat_map(|spec| spec.init_containers.iter().flatten().chain(&spec.containers))
}
