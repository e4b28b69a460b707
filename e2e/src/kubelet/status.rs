//! The status of a pod, computed from the states of its containers. Pure: equal states give equal status.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState as ApiState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
    ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

/// The known state of a pod.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PodState {
    /// When the kubelet first saw it.
    pub start: Timestamp,
    /// Its address, once it has a network.
    pub ip: Option<String>,
    /// Init containers, in order.
    pub init: Vec<ContainerState>,
    /// Containers, in order.
    pub containers: Vec<ContainerState>,
    /// Why the whole pod failed or was refused: reason and message.
    pub failed: Option<(String, String)>,
    /// No container runs, or will run again.
    pub ended: bool,
}

/// The known state of a container.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ContainerState {
    /// Its current state.
    pub current: Current,
    /// Its last end.
    pub last: Option<Terminated>,
    /// The number of restarts.
    pub restarts: i32,
    /// Whether its readiness probe succeeds, or it has none.
    pub ready: bool,
    /// Whether its startup probe has passed, or it has none.
    pub started: bool,
    /// Identifies this run.
    pub id: Option<String>,
    /// The image found by its name.
    pub image_id: String,
}

/// The current state of a container.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Current {
    /// Not running, for this reason and message.
    Waiting(String, Option<String>),
    /// Running since then.
    Running(Timestamp),
    /// It has ended.
    Terminated(Terminated),
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Terminated {
    /// 128 plus the signal, if one ended it.
    pub exit_code: i32,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// `Completed`, `Error` or `StartError`.
    pub reason: String,
    /// Its termination message, or why it did not start.
    pub message: Option<String>,
    /// Start.
    pub started: Timestamp,
    /// End.
    pub finished: Timestamp,
    /// Identifies this run.
    pub id: Option<String>,
}

impl PodState {
    /// The state of a pod before anything runs.
    pub(crate) fn new(pod: &Pod, start: Timestamp) -> Self {
        let spec = pod.spec.as_ref();
        let count = spec.map_or(0, |spec| spec.containers.len());
        let init = spec.and_then(|spec| spec.init_containers.as_ref()).map_or(0, Vec::len);
        let first = if init > 0 { "PodInitializing" } else { "ContainerCreating" };
        Self {
            start,
            ip: None,
            init: vec![ContainerState::waiting("PodInitializing"); init],
            containers: vec![ContainerState::waiting(first); count],
            failed: None,
            ended: false,
        }
    }
}

impl ContainerState {
    fn waiting(reason: &str) -> Self {
        Self {
            current: Current::Waiting(reason.to_owned(), None),
            last: None,
            restarts: 0,
            ready: false,
            started: false,
            id: None,
            image_id: String::new(),
        }
    }

    /// Restores the state known to an earlier kubelet; containers that ran then have ended by now.
    pub(crate) fn recovered(&mut self, status: &ContainerStatus, now: Timestamp) {
        self.restarts = status.restart_count;
        let old = status.state.as_ref();
        let time = |time: Option<&Time>| time.map_or(now, |time| time.0);
        let ended = |ended: &ContainerStateTerminated| Terminated {
            exit_code: ended.exit_code,
            signal: ended.signal,
            reason: ended.reason.clone().unwrap_or_default(),
            message: ended.message.clone(),
            started: time(ended.started_at.as_ref()),
            finished: time(ended.finished_at.as_ref()),
            id: ended.container_id.clone(),
        };
        if let Some(running) = old.and_then(|state| state.running.as_ref()) {
            self.last = Some(Terminated {
                exit_code: 137,
                signal: Some(9),
                reason: "Error".to_owned(),
                message: Some("The container ended together with its kubelet".to_owned()),
                started: time(running.started_at.as_ref()),
                finished: now,
                id: status.container_id.clone(),
            });
        } else if let Some(terminated) = old.and_then(|state| state.terminated.as_ref()) {
            self.last = Some(ended(terminated));
        } else {
            self.last = status.last_state.as_ref().and_then(|state| state.terminated.as_ref()).map(ended);
        }
    }

    fn succeeded(&self) -> bool {
        matches!(&self.current, Current::Terminated(ended) if ended.exit_code == 0)
    }

    fn running(&self) -> bool {
        matches!(self.current, Current::Running(_))
    }
}

/// Whether an init container continues beside the others.
pub(crate) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// The status of `pod`. `previous` is the last known one: conditions that did not change keep their time.
pub(crate) fn of(
    pod: &Pod,
    state: &PodState,
    host_ip: &str,
    previous: Option<&PodStatus>,
    now: Timestamp,
) -> PodStatus {
    let empty = Vec::new();
    let spec = pod.spec.as_ref();
    let init_specs = spec.and_then(|spec| spec.init_containers.as_ref()).unwrap_or(&empty);
    let specs = spec.map_or(&empty, |spec| &spec.containers);
    let policy = spec.and_then(|spec| spec.restart_policy.as_deref()).unwrap_or("Always");
    let phase = phase(policy, init_specs, state);
    let initialized = is_initialized(init_specs, state);

    let watched = specs.iter().zip(&state.containers);
    let sidecars = init_specs.iter().zip(&state.init).filter(|(spec, _)| is_sidecar(spec));
    let unready: Vec<&str> = sidecars
        .chain(watched)
        .filter(|(_, state)| !(state.ready && state.running()))
        .map(|(spec, _)| spec.name.as_str())
        .collect();
    let containers_ready = if phase == "Succeeded" {
        Err(("PodCompleted", String::new()))
    } else if phase == "Failed" {
        Err(("PodFailed", String::new()))
    } else if !unready.is_empty() || specs.is_empty() {
        Err(("ContainersNotReady", format!("containers with unready status: [{}]", unready.join(" "))))
    } else {
        Ok(())
    };
    let ready = containers_ready.clone().and_then(|()| gates(pod));
    let scheduled = Ok(());
    let network = if state.ip.is_some() && !state.ended { Ok(()) } else { Err(("", String::new())) };
    let init = if initialized || phase == "Succeeded" {
        Ok(())
    } else {
        let names = init_specs.iter().zip(&state.init).filter(|(_, state)| !state.succeeded());
        let names: Vec<&str> = names.map(|(spec, _)| spec.name.as_str()).collect();
        Err(("ContainersNotInitialized", format!("containers with incomplete status: [{}]", names.join(" "))))
    };
    let conditions = [
        ("PodReadyToStartContainers", network),
        ("Initialized", init),
        ("Ready", ready),
        ("ContainersReady", containers_ready),
        ("PodScheduled", scheduled),
    ]
    .map(|(kind, holds)| condition(pod, kind, holds, previous, now));

    let statuses = |specs: &[Container], states: &[ContainerState]| {
        let statuses = specs.iter().zip(states).map(|(spec, state)| container_status(spec, state));
        (!specs.is_empty()).then(|| statuses.collect::<Vec<_>>())
    };
    PodStatus {
        phase: Some(phase.to_owned()),
        reason: state.failed.as_ref().map(|(reason, _)| reason.clone()),
        message: state.failed.as_ref().map(|(_, message)| message.clone()),
        host_ip: Some(host_ip.to_owned()),
        host_ips: Some(vec![HostIP { ip: host_ip.to_owned() }]),
        pod_ip: state.ip.clone(),
        pod_ips: state.ip.clone().map(|ip| vec![PodIP { ip }]),
        start_time: Some(Time(whole_second(state.start))),
        conditions: Some(conditions.to_vec()),
        container_statuses: statuses(specs, &state.containers),
        init_container_statuses: statuses(init_specs, &state.init),
        observed_generation: pod.metadata.generation,
        qos_class: pod.status.as_ref().and_then(|status| status.qos_class.clone()),
        ..PodStatus::default()
    }
}

/// The rules of `getPhase` of the kubelet.
fn phase(policy: &str, init_specs: &[Container], state: &PodState) -> &'static str {
    if state.failed.is_some() {
        return "Failed";
    }
    for (_, init) in init_specs.iter().zip(&state.init).filter(|(spec, _)| !is_sidecar(spec)) {
        match &init.current {
            Current::Terminated(ended) if ended.exit_code == 0 => {}
            Current::Terminated(_) if policy == "Never" || state.ended => return "Failed",
            _ => return if state.ended { "Failed" } else { "Pending" },
        }
    }
    let (mut running, mut waiting, mut failed) = (0, 0, 0);
    for container in &state.containers {
        match (&container.current, &container.last) {
            (Current::Running(_), _) => running += 1,
            (Current::Terminated(ended), _) if ended.exit_code == 0 => {}
            (Current::Terminated(_), _) => failed += 1,
            (Current::Waiting(..), Some(ended)) if ended.exit_code == 0 => {}
            (Current::Waiting(..), Some(_)) => failed += 1,
            (Current::Waiting(..), None) => waiting += 1,
        }
    }
    if state.ended {
        return if failed + waiting + running == 0 { "Succeeded" } else { "Failed" };
    }
    if waiting > 0 {
        return "Pending";
    }
    if running > 0 || policy == "Always" {
        return "Running";
    }
    match (failed, policy) {
        (0, _) => "Succeeded",
        (_, "Never") => "Failed",
        _ => "Running",
    }
}

fn is_initialized(specs: &[Container], state: &PodState) -> bool {
    specs.iter().zip(&state.init).all(|(spec, init)| if is_sidecar(spec) { init.started } else { init.succeeded() })
}

/// Whether the condition of every readiness gate exists and is true.
fn gates(pod: &Pod) -> Result<(), (&'static str, String)> {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
    let holds = |kind: &str| {
        let mut all = conditions.into_iter().flatten();
        all.any(|condition| condition.type_ == kind && condition.status == "True")
    };
    let gates = pod.spec.as_ref().and_then(|spec| spec.readiness_gates.as_ref()).into_iter().flatten();
    match gates.map(|gate| gate.condition_type.as_str()).find(|kind| !holds(kind)) {
        None => Ok(()),
        Some(kind) => Err((
            "ReadinessGatesNotReady",
            format!("corresponding condition of pod readiness gate \"{kind}\" is not True"),
        )),
    }
}

fn condition(
    pod: &Pod,
    kind: &str,
    holds: Result<(), (&'static str, String)>,
    previous: Option<&PodStatus>,
    now: Timestamp,
) -> PodCondition {
    let status = if holds.is_ok() { "True" } else { "False" };
    let (reason, message) = holds.err().unwrap_or_default();
    let known = previous.or(pod.status.as_ref()).and_then(|status| status.conditions.as_ref());
    let same = known.into_iter().flatten().find(|known| known.type_ == kind && known.status == status);
    let since = same.and_then(|known| known.last_transition_time.clone()).unwrap_or(Time(whole_second(now)));
    PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: (!reason.is_empty()).then(|| reason.to_owned()),
        message: (!message.is_empty()).then_some(message),
        last_transition_time: Some(since),
        observed_generation: pod.metadata.generation,
        ..PodCondition::default()
    }
}

fn container_status(spec: &Container, state: &ContainerState) -> ContainerStatus {
    let terminated = |ended: &Terminated| ContainerStateTerminated {
        exit_code: ended.exit_code,
        signal: ended.signal,
        reason: Some(ended.reason.clone()),
        message: ended.message.clone(),
        started_at: Some(Time(whole_second(ended.started))),
        finished_at: Some(Time(whole_second(ended.finished))),
        container_id: ended.id.clone(),
    };
    let current = match &state.current {
        Current::Waiting(reason, message) => ApiState {
            waiting: Some(ContainerStateWaiting { reason: Some(reason.clone()), message: message.clone() }),
            ..ApiState::default()
        },
        Current::Running(since) => ApiState {
            running: Some(ContainerStateRunning { started_at: Some(Time(whole_second(*since))) }),
            ..ApiState::default()
        },
        Current::Terminated(ended) => ApiState { terminated: Some(terminated(ended)), ..ApiState::default() },
    };
    ContainerStatus {
        name: spec.name.clone(),
        image: spec.image.clone().unwrap_or_default(),
        image_id: state.image_id.clone(),
        container_id: state.id.clone(),
        ready: if is_sidecar(spec) || !matches!(state.current, Current::Terminated(_)) {
            state.ready && state.running()
        } else {
            state.ready && state.succeeded()
        },
        started: Some(state.started && state.running()),
        restart_count: state.restarts,
        state: Some(current),
        last_state: state
            .last
            .as_ref()
            .map(|ended| ApiState { terminated: Some(terminated(ended)), ..ApiState::default() }),
        ..ContainerStatus::default()
    }
}

/// The API keeps times to the second.
fn whole_second(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).unwrap_or(time)
}

#[cfg(test)]
mod tests;
