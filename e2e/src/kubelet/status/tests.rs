//! Status from state.

use super::*;
use serde_json::json;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).expect("a time")
}

fn pod(policy: &str) -> Pod {
    serde_json::from_value(json!({
        "metadata": { "name": "web", "generation": 3 },
        "spec": {
            "restartPolicy": policy,
            "initContainers": [{ "name": "i", "image": "x" }],
            "containers": [{ "name": "a", "image": "x" }, { "name": "b", "image": "x" }],
        },
    }))
    .expect("a pod")
}

fn ended(exit_code: i32) -> Terminated {
    Terminated {
        exit_code,
        signal: None,
        reason: "r".to_owned(),
        message: None,
        started: at(0),
        finished: at(1),
        id: None,
    }
}

/// A state whose init container is done and whose containers are as given.
fn state(pod: &Pod, containers: [Current; 2]) -> PodState {
    let mut state = PodState::new(pod, at(0));
    state.ip = Some("198.18.1.2".to_owned());
    state.init[0].current = Current::Terminated(ended(0));
    for (container, current) in state.containers.iter_mut().zip(containers) {
        container.ready = matches!(current, Current::Running(_));
        container.started = container.ready;
        container.current = current;
    }
    state
}

fn phase_of(policy: &str, containers: [Current; 2]) -> String {
    let pod = pod(policy);
    let status = of(&pod, &state(&pod, containers), "198.19.0.11", None, at(9));
    status.phase.expect("a phase")
}

fn conditions(status: &PodStatus) -> Vec<(&str, &str, i64)> {
    let conditions = status.conditions.iter().flatten();
    let since = |condition: &PodCondition| condition.last_transition_time.as_ref().map_or(0, |time| time.0.as_second());
    conditions.map(|it| (it.type_.as_str(), it.status.as_str(), since(it) - 1_800_000_000)).collect()
}

#[test]
fn the_phase_follows_the_restart_policy() {
    let (running, good, bad) =
        (|| Current::Running(at(1)), || Current::Terminated(ended(0)), || Current::Terminated(ended(1)));
    let waiting = || Current::Waiting("ContainerCreating".to_owned(), None);
    for (policy, containers, expected) in [
        ("Always", [running(), running()], "Running"),
        ("Always", [running(), waiting()], "Pending"),
        ("Always", [good(), bad()], "Running"),
        ("OnFailure", [good(), bad()], "Running"),
        ("OnFailure", [good(), good()], "Succeeded"),
        ("Never", [good(), bad()], "Failed"),
        ("Never", [good(), good()], "Succeeded"),
        ("Never", [bad(), running()], "Running"),
    ] {
        assert_eq!(phase_of(policy, containers.clone()), expected, "{policy} {containers:?}");
    }
}

#[test]
fn a_pod_that_was_ended_is_succeeded_or_failed() {
    let pod = pod("Always");
    for (code, expected) in [(0, "Succeeded"), (137, "Failed")] {
        let both = [Current::Terminated(ended(0)), Current::Terminated(ended(code))];
        let mut state = state(&pod, both);
        state.ended = true;
        let status = of(&pod, &state, "198.19.0.11", None, at(9));
        assert_eq!(status.phase.as_deref(), Some(expected));
        assert!(status.container_statuses.iter().flatten().all(|status| !status.ready));
    }
}

#[test]
fn nothing_is_initialized_before_its_init_containers() {
    let pod = pod("Always");
    let status = of(&pod, &PodState::new(&pod, at(0)), "198.19.0.11", None, at(1));
    assert_eq!(status.phase.as_deref(), Some("Pending"));
    let expected = [
        ("PodReadyToStartContainers", "False", 1),
        ("Initialized", "False", 1),
        ("Ready", "False", 1),
        ("ContainersReady", "False", 1),
        ("PodScheduled", "True", 1),
    ];
    assert_eq!(conditions(&status), expected);
}

#[test]
fn a_condition_keeps_its_time_until_it_changes() {
    let mut pod = pod("Always");
    let both = state(&pod, [Current::Running(at(1)), Current::Running(at(1))]);
    let first = of(&pod, &both, "198.19.0.11", None, at(5));
    let mut one = both.clone();
    one.containers[1].ready = false;
    let second = of(&pod, &one, "198.19.0.11", Some(&first), at(7));
    let ready = |status: &PodStatus| {
        conditions(status).into_iter().map(|(_, ready, at)| format!("{ready} {at}")).collect::<Vec<_>>()
    };
    assert_eq!(ready(&second), ["True 5", "True 5", "False 7", "False 7", "True 5"]);
    let message = second.conditions.iter().flatten().find_map(|condition| condition.message.clone());
    assert_eq!(message.as_deref(), Some("containers with unready status: [b]"));
    assert_eq!(of(&pod, &one, "198.19.0.11", Some(&second), at(8)), second, "nothing changed");

    pod.spec.as_mut().expect("a spec").readiness_gates =
        serde_json::from_value(json!([{ "conditionType": "example/gate" }])).expect("gates");
    let third = of(&pod, &both, "198.19.0.11", Some(&second), at(9));
    assert_eq!(ready(&third), ["True 5", "True 5", "False 7", "True 9", "True 5"], "the gate is closed");
    pod.status = Some(PodStatus {
        conditions: serde_json::from_value(json!([{ "type": "example/gate", "status": "True" }])).expect("conditions"),
        ..PodStatus::default()
    });
    assert_eq!(ready(&of(&pod, &both, "198.19.0.11", Some(&third), at(11)))[2], "True 11");
}

#[test]
fn a_new_kubelet_counts_what_ran_before_as_ended() {
    let pod = pod("Always");
    let running = state(&pod, [Current::Running(at(1)), Current::Terminated(ended(2))]);
    let status = of(&pod, &running, "198.19.0.11", None, at(5));
    let statuses = status.container_statuses.expect("statuses");
    let mut fresh = PodState::new(&pod, at(6));
    for (container, status) in fresh.containers.iter_mut().zip(&statuses) {
        container.recovered(status, at(6));
    }
    let codes: Vec<_> = fresh.containers.iter().map(|it| it.last.as_ref().map(|last| last.exit_code)).collect();
    assert_eq!(codes, [Some(137), Some(2)]);
}
