use super::*;
use k8s_openapi::api::coordination::v1::Lease;
use serde_json::{Value, json};

/// A pod of Service `web` whose conditions of these types are true.
fn pod(uid: &str, holds: &[&str]) -> GatedPod {
    changed_pod(uid, holds, |_| ())
}

fn changed_pod(uid: &str, holds: &[&str], change: impl FnOnce(&mut Value)) -> GatedPod {
    let conditions: Vec<Value> = holds.iter().map(|kind| json!({"type": kind, "status": "True"})).collect();
    let mut pod = json!({
        "metadata": {"namespace": "shop", "name": uid, "uid": uid, "labels": {"app": "web"}},
        "spec": {"containers": [], "readinessGates": [{"conditionType": "other"}, {"conditionType": CONDITION}]},
        "status": {"conditions": conditions},
    });
    change(&mut pod);
    serde_json::from_value(pod).unwrap()
}

/// A slice of Service `web` with pods, and whether each is ready and whether it ends.
fn slice(pods: &[(&str, bool, bool)]) -> Object {
    let endpoints: Vec<Value> = pods
        .iter()
        .map(|(uid, ready, ends)| {
            json!({
                "addresses": ["192.0.2.1"],
                "conditions": {"ready": ready, "serving": ready, "terminating": ends},
                "targetRef": {"kind": "Pod", "uid": uid},
            })
        })
        .collect();
    let slice: EndpointSlice = serde_json::from_value(json!({
        "metadata": {"namespace": "shop", "name": "web-1", "labels": {SERVICE_LABEL: "web"}},
        "addressType": "IPv4",
        "endpoints": endpoints,
    }))
    .unwrap();
    slice.into()
}

fn service(spec: Value) -> Objects {
    let value = json!({"metadata": {"namespace": "shop", "name": "web"}, "spec": spec});
    let mut objects = Objects::default();
    objects.apply(Change::Upsert(serde_json::from_value::<Service>(value).unwrap().into()));
    objects
}

fn web() -> Objects {
    service(json!({"selector": {"app": "web"}}))
}

/// Whether each endpoint is ready in the changes that translation gets; `None` if it gets no slice.
fn overlaid(gate: &mut Gate, changes: &[Object]) -> Option<Vec<bool>> {
    let mut changes = changes.iter().cloned().map(Change::Upsert).collect();
    gate.overlay(&mut changes);
    let [Change::Upsert(Object::EndpointSlice(slice))] = &changes[..] else { return None };
    let ready = |endpoint: &Endpoint| endpoint.conditions.as_ref().unwrap().ready == Some(true);
    Some(slice.endpoints.iter().flatten().map(ready).collect())
}

const WAITS: [&str; 2] = ["ContainersReady", "other"];

fn peers() -> Peers {
    let mut peers = Peers::new("leader", "own");
    peers.listed(Vec::new(), Instant::now());
    peers
}

fn everywhere(publication: u64) -> Reach {
    Reach::new(vec![publication], 1)
}

fn lease(name: &str, renewal: u32, known: &str) -> Lease {
    serde_json::from_value(json!({
        "metadata": {"name": name, "annotations": {peer::ELECTION: "leader", peer::PROXIES: "2", peer::KNOWN: known}},
        "spec": {"holderIdentity": name, "renewTime": format!("2026-01-01T00:00:{renewal:02}.000000Z")},
    }))
    .unwrap()
}

/// A gate with one pod that waits, in a slice, translated and in force with publication 7.
fn waiting(now: Instant) -> Gate {
    let mut gate = Gate::default();
    gate.seen(&pod("a", &WAITS), now);
    overlaid(&mut gate, &[slice(&[("a", false, false)])]);
    gate.translated(&web());
    gate.published(7);
    gate
}

#[test]
fn an_endpoint_is_ready_as_soon_as_its_pod_lacks_nothing_but_our_condition() {
    let (mut gate, now) = (Gate::default(), Instant::now());
    let unready = [slice(&[("a", false, false), ("b", false, false)])];
    assert_eq!(overlaid(&mut gate, &unready), Some(vec![false, false]));
    for lacking in [&["ContainersReady"], &["other"]] {
        gate.seen(&pod("a", lacking), now);
        assert!(!gate.has_changes(), "{lacking:?}");
    }
    gate.seen(&pod("a", &WAITS), now);
    assert!(gate.has_changes());
    assert_eq!(overlaid(&mut gate, &[]), Some(vec![true, false]), "the slice is translated again for this");
    // Our condition is true, but the kubelet has not noticed it yet.
    gate.seen(&pod("a", &["ContainersReady", "other", CONDITION]), now);
    assert_eq!(overlaid(&mut gate, &unready), Some(vec![true, false]));
}

#[test]
fn a_pod_that_has_been_ready_is_as_ready_as_its_slice_says() {
    let (mut gate, now) = (Gate::default(), Instant::now());
    let unready = [slice(&[("a", false, false)])];
    overlaid(&mut gate, &unready);
    gate.seen(&pod("a", &WAITS), now);
    gate.seen(&pod("a", &["ContainersReady", "other", CONDITION, "Ready"]), now);
    let ready = [slice(&[("a", true, false)])];
    assert_eq!(overlaid(&mut gate, &ready), Some(vec![true]));
    // Its node is lost: only the readiness of the pod changes.
    gate.seen(&pod("a", &["ContainersReady", "other", CONDITION]), now);
    assert_eq!(overlaid(&mut gate, &unready), Some(vec![false]));
    // Another controller doesn't know that it has been ready.
    let mut next = Gate::default();
    next.seen(&pod("a", &["ContainersReady", "other", CONDITION]), now);
    assert_eq!(overlaid(&mut next, &unready), Some(vec![false]));
}

#[test]
fn a_pod_that_is_ready_stays_in_force_until_its_slice_says_so() {
    let now = Instant::now();
    let (unready, ready) = ([slice(&[("a", false, false)])], [slice(&[("a", true, false)])]);
    let arrived = || {
        let mut gate = waiting(now);
        gate.seen(&pod("a", &["ContainersReady", "other", CONDITION, "Ready"]), now);
        assert!(!gate.has_changes(), "no proxy loses the endpoint");
        // Another pod of the Service changes first.
        assert_eq!(overlaid(&mut gate, &unready), Some(vec![true]));
        gate
    };
    let mut gate = arrived();
    overlaid(&mut gate, &ready);
    assert_eq!(overlaid(&mut gate, &unready), Some(vec![false]), "the slice has decided since");

    let mut gate = arrived();
    gate.seen(&pod("a", &["ContainersReady", "other", CONDITION]), now);
    assert_eq!(overlaid(&mut gate, &[]), Some(vec![false]), "it is no longer ready");
    let mut gate = arrived();
    gate.gone("a");
    assert_eq!(overlaid(&mut gate, &[]), Some(vec![false]), "it is gone");
    let mut gate = arrived();
    assert_eq!(overlaid(&mut gate, &[slice(&[("a", false, true)])]), Some(vec![false]), "it ends");
    assert!(gate.arriving.is_empty());

    // It restarts before it has been ready.
    let mut gate = waiting(now);
    gate.seen(&pod("a", &["other"]), now);
    assert_eq!(overlaid(&mut gate, &[]), Some(vec![false]));
}

#[test]
fn a_slice_of_another_namespace_or_about_something_else_is_no_slice_of_the_pod() {
    let now = Instant::now();
    let foreign = |change: fn(&mut EndpointSlice)| {
        let Object::EndpointSlice(mut slice) = slice(&[("a", false, false)]) else { panic!() };
        change(Arc::make_mut(&mut slice));
        Object::EndpointSlice(slice)
    };
    let elsewhere = foreign(|slice| slice.metadata.namespace = Some("other".to_owned()));
    let node = foreign(|slice| {
        let first = slice.endpoints.iter_mut().flatten().next().unwrap();
        first.target_ref.as_mut().unwrap().kind = Some("Node".to_owned());
    });
    for other in [elsewhere, node] {
        let mut gate = Gate::default();
        gate.seen(&pod("a", &WAITS), now);
        assert_eq!(overlaid(&mut gate, &[other]), Some(vec![false]));
        gate.translated(&web());
        gate.published(3);
        assert!(gate.known(&everywhere(9)).is_empty(), "its own slice has not come yet");
    }
}

#[test]
fn nothing_is_made_ready_that_ends_or_has_no_gate() {
    let (mut gate, now) = (Gate::default(), Instant::now());
    let ends = |pod: &mut Value| pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    gate.seen(&changed_pod("a", &WAITS, ends), now);
    gate.seen(&changed_pod("b", &WAITS, |pod| pod["spec"] = json!({"containers": []})), now);
    gate.seen(&pod("c", &WAITS), now);
    let endpoints = slice(&[("a", false, false), ("b", false, false), ("c", false, true)]);
    assert_eq!(overlaid(&mut gate, &[endpoints]), Some(vec![false; 3]));
}

#[test]
fn an_endpoint_that_is_made_ready_leaves_routing_by_zone_on() {
    let (mut gate, now) = (Gate::default(), Instant::now());
    gate.seen(&pod("new", &WAITS), now);
    for hinted in [true, false] {
        let Object::EndpointSlice(mut slice) = slice(&[("old", true, false), ("new", false, false)]) else { panic!() };
        for (endpoint, zone) in Arc::make_mut(&mut slice).endpoints.iter_mut().flatten().zip(["z1", "z2"]) {
            endpoint.zone = Some(zone.to_owned());
        }
        let first = Arc::make_mut(&mut slice).endpoints.iter_mut().flatten().next().unwrap();
        first.hints = hinted.then(|| serde_json::from_value(json!({"forZones": [{"name": "z1"}]})).unwrap());
        let ready = gate.ready(&Object::EndpointSlice(slice.clone()).key(), &slice);
        let hints =
            ready.endpoints.iter().flatten().map(|endpoint| endpoint.hints.as_ref()?.for_zones.as_ref()?.first());
        let zones: Vec<_> = hints.map(|zone| zone.map(|zone| &*zone.name)).collect();
        assert_eq!(zones, if hinted { [Some("z1"), Some("z2")] } else { [None, None] });
    }
}

#[test]
fn a_pod_is_known_once_every_service_that_selects_it_has_it_and_that_is_in_force() {
    let (mut gate, now) = (Gate::default(), Instant::now());
    gate.seen(&pod("a", &WAITS), now);
    overlaid(&mut gate, &[]);
    gate.translated(&web());
    gate.published(3);
    assert!(gate.known(&everywhere(9)).is_empty(), "its slice has not come yet");
    overlaid(&mut gate, &[slice(&[("a", false, false)])]);
    gate.translated(&web());
    gate.published(4);
    gate.published(5);
    assert!(gate.known(&everywhere(3)).is_empty());
    assert_eq!(gate.known(&everywhere(4)).len(), 1);
}

#[test]
fn a_pod_that_no_service_selects_waits_for_no_proxy() {
    let not_selecting = [
        json!({"selector": {"app": "other"}}),
        json!({"selector": {"app": "web"}, "type": "ExternalName"}),
        json!({"selector": {"app": "web"}, "publishNotReadyAddresses": true}),
        json!({}),
    ];
    for spec in not_selecting {
        let (mut gate, now) = (Gate::default(), Instant::now());
        gate.seen(&pod("a", &WAITS), now);
        overlaid(&mut gate, &[]);
        gate.translated(&service(spec.clone()));
        // The only proxy is not connected.
        let nobody = Reach::new(Vec::new(), 1);
        assert_eq!(gate.due(&nobody, &peers(), now).len(), 1, "{spec}");
    }
}

#[test]
fn the_condition_is_written_once_when_all_proxies_of_all_controllers_know_the_pod() {
    let now = Instant::now();
    let (mut gate, mut peers) = (waiting(now), peers());
    let all = Reach::new(vec![7, 8], 1);
    peers.seen(lease("other", 1, "x a"), now);
    peers.seen(lease("third", 1, ""), now);
    assert_eq!(gate.due(&all, &peers, now), []);
    peers.seen(lease("third", 2, "a"), now);
    assert_eq!(gate.due(&Reach::new(vec![6, 8], 1), &peers, now), []);
    let due = gate.due(&all, &peers, now);
    let [Routed { verdict: Verdict::Known, knowing: 6, of: 6, .. }] = &due[..] else { panic!("{due:?}") };
    assert_eq!(gate.due(&all, &peers, now), [], "it is under way");
    gate.written("a", Ok(()), now);
    assert_eq!(gate.due(&all, &peers, now), []);
    assert!(gate.known(&all).is_empty(), "nobody has to be told any more");
}

#[test]
fn a_controller_that_is_gone_or_of_another_release_is_not_waited_for() {
    let now = Instant::now();
    let mut peers = peers();
    let mut foreign = lease("foreign", 1, "");
    foreign.metadata.annotations.as_mut().unwrap().insert(peer::ELECTION.to_owned(), "another".to_owned());
    peers.seen(foreign, now);
    peers.seen(lease("own", 1, ""), now);
    assert_eq!(waiting(now).due(&everywhere(7), &peers, now).len(), 1);

    peers.seen(lease("dead", 1, ""), now);
    let mut gate = waiting(now);
    assert_eq!(gate.due(&everywhere(7), &peers, now), []);
    // The same record again is no renewal.
    let later = now + peer::EXPIRY;
    peers.seen(lease("dead", 1, ""), later - Duration::from_secs(1));
    assert_eq!(gate.next_at(&peers, now), Some(later));
    assert_eq!(gate.due(&everywhere(7), &peers, later).len(), 1);

    peers.seen(lease("dead", 2, ""), later);
    peers.listed(Vec::new(), later);
    assert_eq!(waiting(now).due(&everywhere(7), &peers, later).len(), 1);
}

#[test]
fn a_proxy_that_is_connected_nowhere_is_waited_for() {
    let (now, peers) = (Instant::now(), peers());
    let reach = |serves: &[u64], overall| Reach::new(serves.to_vec(), 0).among(overall);
    let mut gate = waiting(now);
    // The only controller has just started.
    assert_eq!(gate.due(&Reach::new(Vec::new(), 0), &peers, now), []);
    assert_eq!(gate.due(&reach(&[], 2), &peers, now), []);
    assert_eq!(gate.due(&reach(&[7], 2), &peers, now), []);
    let due = gate.due(&reach(&[7, 7], 2), &peers, now);
    let [Routed { verdict: Verdict::Known, knowing: 2, of: 2, .. }] = &due[..] else { panic!("{due:?}") };
    let due = waiting(now).due(&reach(&[7], 2), &peers, now + PATIENCE);
    let [Routed { verdict: Verdict::TimedOut, knowing: 1, of: 2, .. }] = &due[..] else { panic!("{due:?}") };
}

#[test]
fn nothing_is_known_before_it_is_known_which_other_controllers_there_are() {
    let now = Instant::now();
    let (mut gate, mut peers) = (waiting(now), Peers::new("leader", "own"));
    assert_eq!(gate.due(&everywhere(7), &peers, now), []);
    assert_eq!(waiting(now).due(&everywhere(7), &peers, now + PATIENCE).len(), 1);
    peers.listed(vec![lease("other", 1, "")], now);
    assert_eq!(gate.due(&everywhere(7), &peers, now), []);
    peers.listed(Vec::new(), now);
    assert_eq!(gate.due(&everywhere(7), &peers, now).len(), 1);
}

#[test]
fn a_stuck_proxy_keeps_no_pod_waiting_for_ever() {
    let now = Instant::now();
    let (mut gate, peers) = (waiting(now), peers());
    let stuck = Reach::new(vec![7, 6, 7], 1);
    let end = now + PATIENCE;
    assert_eq!(gate.next_at(&peers, now), Some(end));
    assert_eq!(gate.due(&stuck, &peers, end - Duration::from_millis(1)), []);
    let due = gate.due(&stuck, &peers, end);
    let [Routed { verdict: Verdict::TimedOut, knowing: 2, of: 3, .. }] = &due[..] else { panic!("{due:?}") };
}

#[test]
fn a_failed_write_is_tried_again_ever_more_rarely() {
    let now = Instant::now();
    let (mut gate, peers) = (waiting(now), peers());
    let refused = CallError::Refused { code: 403, reason: String::new(), message: String::new(), retry_after: None };
    let (mut at, mut tries) = (now, 0);
    while at < now + Duration::from_secs(3600) {
        assert_eq!(gate.due(&everywhere(7), &peers, at).len(), 1);
        assert_eq!(gate.written("a", Err(&refused), at), tries == 0, "it is said once");
        assert_eq!(gate.due(&everywhere(7), &peers, at), []);
        tries += 1;
        at = gate.next_at(&peers, at).unwrap();
        assert!(tries > 1 || at <= now + Duration::from_secs(1));
    }
    assert!((50..110).contains(&tries), "{tries}");
}

#[test]
fn what_is_written_at_a_time_is_bounded() {
    let (mut gate, now) = (Gate::default(), Instant::now());
    (0..WRITES * 2).for_each(|number| gate.seen(&pod(&format!("p{number}"), &WAITS), now));
    overlaid(&mut gate, &[]);
    gate.translated(&Objects::default());
    let due = gate.due(&everywhere(0), &peers(), now);
    assert_eq!(due.len(), WRITES);
    assert_eq!(gate.next_at(&peers(), now), None, "the end of a write is waited for");
    gate.written(&due[0].uid, Ok(()), now);
    assert_eq!(gate.due(&everywhere(0), &peers(), now).len(), 1);
}

#[test]
fn nothing_is_kept_about_what_is_gone() {
    let now = Instant::now();
    let mut gate = waiting(now);
    gate.listed(&[], now);
    gate.overlay(&mut vec![Change::Remove(slice(&[]).key())]);
    let Gate { pods, waiting, arriving, slices, places, stale, .. } = gate;
    assert!(arriving.is_empty());
    assert!(pods.is_empty() && waiting.is_empty() && slices.is_empty() && places.is_empty() && stale.is_empty());
}
