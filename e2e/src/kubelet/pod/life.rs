//! The life of a pod on this Node: network and volumes, containers, end.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::Api;
use kube::api::{DeleteParams, Preconditions};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::volumes::{self, Tokens};
use super::{PodWorker, Update, containers};
use crate::kubelet::network::PodNetwork;
use crate::kubelet::runner::{self, Policy, Which};
use crate::kubelet::status::{self, Current, PodState};
use crate::kubelet::stop::{self, Stop};
use crate::kubelet::{Kubelet, environment, host_port, volume, writer};

/// Runs the worker of a pod from the first time the pod is seen until it is gone.
pub(crate) async fn run(kubelet: Arc<Kubelet>, mut updates: watch::Receiver<Update>) {
    let first = updates.borrow().object.clone();
    let mut keys = volume::references(&first);
    for container in containers(&first) {
        keys.extend(environment::references(container, &first.metadata));
    }
    let mut state = PodState::new(&first, Timestamp::now());
    recover(&first, &mut state);
    let pod = Arc::new(PodWorker {
        objects: kubelet.cache.watch(keys),
        updates: updates.clone(),
        state: watch::channel(state).0,
        network: OnceLock::new(),
        volumes: OnceLock::new(),
        running: Mutex::default(),
        ip: OnceLock::new(),
        uid: first.metadata.uid.clone().unwrap_or_default(),
        kubelet: kubelet.clone(),
    });
    kubelet.register(&pod);
    let phase = first.status.as_ref().and_then(|status| status.phase.as_deref());
    if !matches!(phase, Some("Succeeded" | "Failed")) {
        run_to_end(&pod, &mut updates).await;
    }
    // A finished pod is kept, as in the API, until it is deleted.
    let deleted = |update: &Update| update.gone || update.object.metadata.deletion_timestamp.is_some();
    if updates.wait_for(deleted).await.is_ok() && !updates.borrow().gone {
        pod.delete(&mut updates).await;
    }
    kubelet.forget(&pod);
}

/// Runs the pod and records the outcome in its status.
async fn run_to_end(pod: &Arc<PodWorker>, updates: &mut watch::Receiver<Update>) {
    let (finished, finish) = watch::channel(false);
    let writer = tokio::spawn(writer::write(pod.clone(), pod.state.subscribe(), updates.clone(), finish));
    let (stopper, stop) = stop::channel();
    let begun = pod.state.borrow().start;
    let limit = pod.spec_seconds(|spec| spec.active_deadline_seconds);
    let deadline = async {
        match limit {
            Some(limit) => {
                let passed = Timestamp::now().duration_since(begun).unsigned_abs();
                sleep(limit.saturating_sub(passed)).await;
            }
            None => std::future::pending().await,
        }
    };
    let mut work = tokio::spawn(work(pod.clone(), stop));
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
                pod.state.send_modify(|state| state.failed = Some(("DeadlineExceeded".to_owned(), message)));
                stopper.stop(Instant::now() + pod.grace());
            }
        }
    };
    let stopped = stopper.is_stopped();
    pod.state.send_modify(|state| state.ended |= stopped);
    pod.clear(network).await;
    finished.send_replace(true);
    // The last status is written before the pod is deleted, so that watchers see exit codes.
    let _ = writer.await;
}

/// Network, volumes, init containers, containers. Returns the network to remove afterwards.
async fn work(pod: Arc<PodWorker>, mut stop: Stop) -> Option<PodNetwork> {
    let mut network = None;
    let prepared = tokio::select! {
        prepared = prepare(&pod, &mut network) => prepared,
        () = stop.begun() => false,
    };
    if prepared {
        let (sidecar_stopper, sidecar_stop) = stop::channel();
        let mut sidecars = Vec::new();
        let mut ready = true;
        let object = pod.object();
        let init = object.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
        for (index, container) in init.enumerate() {
            let which = Which::Init(index);
            if status::is_sidecar(container) {
                sidecars.push(tokio::spawn(runner::run(pod.clone(), which, Policy::Always, sidecar_stop.clone())));
                let mut states = pod.state.subscribe();
                let started = states.wait_for(|state| state.init[index].started);
                tokio::select! {
                    _ = started => {}
                    () = stop.begun() => ready = false,
                }
            } else {
                let policy = if pod.policy() == Policy::Never { Policy::Never } else { Policy::OnFailure };
                ready = runner::run(pod.clone(), which, policy, stop.clone()).await;
            }
            if !ready {
                break;
            }
        }
        if ready && !stop.is_set() {
            pod.state.send_modify(|state| {
                for container in &mut state.containers {
                    if matches!(&container.current, Current::Waiting(reason, _) if reason == "PodInitializing") {
                        container.current = Current::Waiting("ContainerCreating".to_owned(), None);
                    }
                }
            });
            let count = pod.state.borrow().containers.len();
            let indices = (0..count).filter(|index| !pod.is_done(*index)).collect::<Vec<_>>();
            let runs = indices.into_iter().map(|index| {
                let (pod, stop) = (pod.clone(), stop.clone());
                tokio::spawn(async move {
                    let policy = pod.policy();
                    runner::run(pod, Which::Main(index), policy, stop).await
                })
            });
            join_all(runs).await;
        }
        let grace = stop.deadline().unwrap_or_else(|| Instant::now() + pod.grace());
        sidecar_stopper.stop(grace);
        join_all(sidecars).await;
    }
    network
}

/// Everything before the first container. Returns false if the pod is rejected.
async fn prepare(pod: &Arc<PodWorker>, network: &mut Option<PodNetwork>) -> bool {
    let object = pod.object();
    let sysctls = match sysctls(&object) {
        Ok(sysctls) => sysctls,
        Err(message) => {
            pod.event("Warning", "SysctlForbidden", message.clone());
            pod.state.send_modify(|state| state.failed = Some(("SysctlForbidden".to_owned(), message)));
            return false;
        }
    };
    let kubelet = &pod.kubelet;
    if pod.host_network() {
        let _ = pod.network.set((None, kubelet.options.address.into()));
    } else {
        let made = loop {
            match PodNetwork::new(&kubelet.spawner, &kubelet.addresses, &pod.uid, sysctls.clone()).await {
                Ok(made) => break made,
                Err(error) => {
                    pod.event("Warning", "FailedCreatePodSandBox", format!("{error:#}"));
                    sleep(Duration::from_secs(5)).await;
                }
            }
        };
        let ip = made.address.ip;
        let _ = pod.network.set((Some(made.namespace.clone()), ip.into()));
        *network = Some(made);
        if let Err(error) = kubelet.host_ports.set(&pod.uid, host_port::mappings(&object, ip)).await {
            pod.event("Warning", "HostPortFailed", format!("{error:#}"));
        }
    }
    let ip = pod.target().address.to_string();
    pod.state.send_modify(|state| state.ip = Some(ip));

    pod.objects.known().await;
    let mut reported = String::new();
    let mut tokens = Tokens::default();
    loop {
        let mut changes = pod.objects.changes();
        let result = match tokens.fetch(pod).await {
            Ok(()) => pod.set_up_volumes(&tokens),
            Err(error) => Err(error),
        };
        match result {
            Ok(shown) => {
                tokio::spawn(volumes::refresh(
                    Arc::downgrade(pod),
                    tokens,
                    shown,
                    pod.objects.clone(),
                    pod.updates.clone(),
                ));
                return true;
            }
            Err(error) if error != reported => {
                pod.event("Warning", "FailedMount", error.clone());
                reported = error;
            }
            Err(_) => {}
        }
        tokio::select! {
            () = changes.next() => {}
            () = sleep(Duration::from_secs(2)) => {}
        }
    }
}

impl PodWorker {
    fn policy(&self) -> Policy {
        match self.object().spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()) {
            Some("Never") => Policy::Never,
            Some("OnFailure") => Policy::OnFailure,
            _ => Policy::Always,
        }
    }

    /// Whether a container ended under an earlier kubelet and must not restart.
    fn is_done(&self, index: usize) -> bool {
        matches!(self.state.borrow().containers[index].current, Current::Terminated(_))
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

    /// Deletes the object permanently once nothing of it runs.
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
        // With a finalizer it remains for a while.
        let _ = updates.wait_for(|update| update.gone).await;
    }
}

/// The kernel settings of a pod, if allowed.
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

/// Restores the state from the status written by an earlier kubelet.
fn recover(pod: &Pod, state: &mut PodState) {
    let Some(status) = &pod.status else { return };
    let now = Timestamp::now();
    if let Some(start) = &status.start_time {
        state.start = start.0;
    }
    let policy = pod.spec.as_ref().and_then(|spec| spec.restart_policy.as_deref()).unwrap_or("Always");
    let find = |statuses: &Option<Vec<ContainerStatus>>, name: &str| {
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
