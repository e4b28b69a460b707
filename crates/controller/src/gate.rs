//! Pods that become ready only when the proxies know them: those with the readiness gate [`CONDITION`].
//!
//! Kubernetes considers such a pod, and with it its endpoint, not ready until the condition is true, and we set the condition when the
//! endpoint is in force. So the endpoint of a pod that lacks nothing else counts as ready here before its EndpointSlice says so. Only
//! bookkeeping; the actions are in `controller/running/route.rs`. Invariants: an endpoint is never ready here while its containers aren't;
//! once an EndpointSlice of Kubernetes has shown the pod as ready, only EndpointSlices decide; no leader lets a pod wait for longer than
//! [`PATIENCE`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use fairway_translate::objects::{Change, Kind, Object, ObjectKey, Objects};
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointHints, EndpointSlice, ForZone};
use tokio::time::Instant;

use crate::api::CallError;
use crate::backoff::Backoff;

mod feed;
mod observed;
mod peer;
mod pod;
mod reach;
mod record;
mod write;

pub(crate) use feed::{Fed, FeedNews, leases, pods};
pub(crate) use observed::{Asking, Observed, Telling};
pub(crate) use peer::Peers;
pub(crate) use pod::GatedPod;
pub(crate) use reach::Reach;
pub(crate) use record::{Record, keep};
pub(crate) use write::{Routed, Verdict};

use reach::Extent;

/// The type of the condition.
pub(crate) const CONDITION: &str = "fairway.dev/routed";

/// The label of pods with the gate, by which they are watched. On a namespace, it adds the gate to the pods that are created there.
pub(crate) const LABEL: &str = "fairway.dev/readiness-gate=enabled";

/// How long a pod waits for the proxies. An unresponsive proxy must not stop rollouts.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// How many conditions are written at the same time.
const WRITES: usize = 16;

/// The label of an EndpointSlice that names its Service.
const SERVICE_LABEL: &str = "kubernetes.io/service-name";

type Uid = Box<str>;

/// The pods with the gate, and the EndpointSlices that they concern.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    pods: HashMap<Uid, PodStage>,
    waiting: BTreeMap<Uid, Waiting>,
    /// The pods that have waited and are ready, with the EndpointSlices that don't show it yet: they stay ready there. Kubernetes writes
    /// those only after the pod, so without this all proxies would lose a new pod in the meantime.
    arriving: HashMap<Uid, BTreeSet<ObjectKey>>,
    /// The EndpointSlices with endpoints that aren't ready, as the API server has them.
    slices: HashMap<ObjectKey, Arc<EndpointSlice>>,
    /// The EndpointSlices in which a pod isn't ready.
    places: HashMap<Uid, BTreeSet<ObjectKey>>,
    /// The EndpointSlices to translate again, because a pod has begun or ceased to wait.
    stale: BTreeSet<ObjectKey>,
    /// Whether a pod has begun to wait since the last translation.
    fresh: bool,
}

/// The stage of a pod.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum PodStage {
    /// It lacks other conditions besides ours.
    Starting,
    /// It lacks only our condition, or the kubelet has yet to notice it.
    Waiting,
    /// It has been ready, or it is ending.
    Settled,
}

/// A pod that waits for the proxies.
#[derive(Debug)]
struct Waiting {
    namespace: String,
    name: String,
    labels: BTreeMap<String, String>,
    since: Instant,
    /// Whether all EndpointSlices in which it belongs have been translated.
    complete: bool,
    /// The publication with which its endpoints are in force; 0 if it has none.
    publication: Option<u64>,
    write: ConditionWrite,
    backoff: Backoff,
}

/// Whether our condition is true.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum ConditionWrite {
    /// No; it may be written from then on.
    From(Option<Instant>),
    /// It is being written.
    UnderWay,
    /// Yes.
    Done,
}

impl PodStage {
    fn of(pod: &GatedPod, before: Option<Self>) -> Self {
        let has_gate = pod.gates().any(|gate| gate == CONDITION);
        // A pod that had our condition before we saw it may have been ready, and may be unready for another reason, such as a lost node.
        let was_routed = before.is_none() && pod.holds(CONDITION);
        if before == Some(Self::Settled) || pod.ends() || !has_gate || pod.holds("Ready") || was_routed {
            Self::Settled
        } else if pod.holds("ContainersReady") && pod.gates().all(|gate| gate == CONDITION || pod.holds(gate)) {
            Self::Waiting
        } else {
            Self::Starting
        }
    }
}

impl Gate {
    /// Records a pod as it is now.
    pub(crate) fn seen(&mut self, pod: &GatedPod, now: Instant) {
        let uid = pod.uid();
        let stage = PodStage::of(pod, self.pods.get(uid).copied());
        self.pods.insert(uid.into(), stage);
        if stage != PodStage::Waiting {
            if pod.holds("Ready") && !pod.ends() {
                self.arrive(uid);
            } else {
                self.end(uid);
            }
            return;
        }
        let routed = pod.holds(CONDITION);
        if !self.waiting.contains_key(uid) {
            let entry = Waiting {
                namespace: pod.metadata.namespace.to_string(),
                name: pod.metadata.name.to_string(),
                labels: pod.metadata.labels.clone(),
                since: now,
                complete: false,
                publication: None,
                write: ConditionWrite::From(None),
                backoff: Backoff::of_object(),
            };
            self.waiting.insert(uid.into(), entry);
            self.fresh = true;
            self.touch(uid);
        }
        if let Some(entry) = self.waiting.get_mut(uid).filter(|_| routed) {
            entry.write = ConditionWrite::Done;
        }
    }

    /// Records that a pod is gone.
    pub(crate) fn gone(&mut self, uid: &str) {
        self.pods.remove(uid);
        self.end(uid);
    }

    /// Records that these are all the pods.
    pub(crate) fn listed(&mut self, pods: &[GatedPod], now: Instant) {
        let there: BTreeSet<&str> = pods.iter().map(|pod| pod.uid()).collect();
        let gone: Vec<Uid> = self.pods.keys().filter(|uid| !there.contains(&***uid)).cloned().collect();
        gone.iter().for_each(|uid| self.gone(uid));
        pods.iter().for_each(|pod| self.seen(pod, now));
    }

    /// Ends the waiting of a pod that is ready: from now on its EndpointSlices decide, as soon as they show it as ready.
    fn arrive(&mut self, uid: &str) {
        let Some(pod) = self.waiting.remove(uid) else { return };
        let places = self.places.get(uid).into_iter().flatten().filter(|key| *key.namespace == *pod.namespace);
        let places: BTreeSet<_> = places.cloned().collect();
        if !places.is_empty() {
            self.arriving.insert(uid.into(), places);
        }
    }

    fn end(&mut self, uid: &str) {
        let (waited, arrived) = (self.waiting.remove(uid).is_some(), self.arriving.remove(uid).is_some());
        if waited || arrived {
            self.touch(uid);
        }
    }

    /// Has the EndpointSlices of a pod translated again.
    fn touch(&mut self, uid: &str) {
        self.stale.extend(self.places.get(uid).into_iter().flatten().cloned());
    }

    /// Whether there is something to translate.
    pub(crate) fn has_changes(&self) -> bool {
        self.fresh || !self.stale.is_empty()
    }

    /// Whether any pod waits.
    pub(crate) fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Makes the endpoints of waiting pods ready in the changes to be translated, and adds the EndpointSlices that change only because of
    /// that.
    pub(crate) fn overlay(&mut self, changes: &mut Vec<Change>) {
        self.fresh = false;
        for change in changes.iter_mut() {
            match change {
                Change::Upsert(object) => {
                    let key = object.key();
                    if let Object::EndpointSlice(slice) = object {
                        self.stale.remove(&key);
                        self.keep(key.clone(), slice);
                        *slice = self.ready(&key, slice);
                    }
                }
                Change::Remove(key) if key.kind == Kind::EndpointSlice => {
                    self.stale.remove(key);
                    self.forget(key);
                }
                Change::Remove(_) => (),
            }
        }
        for key in std::mem::take(&mut self.stale) {
            // If the EndpointSlice has no unready endpoint, translation already has it as it is.
            if let Some(slice) = self.slices.get(&key) {
                changes.push(Change::Upsert(Object::EndpointSlice(self.ready(&key, slice))));
            }
        }
    }

    /// Keeps an EndpointSlice as it is if some of its endpoints may be made ready.
    fn keep(&mut self, key: ObjectKey, slice: &Arc<EndpointSlice>) {
        let unready: BTreeSet<Uid> = slice.endpoints.iter().flatten().filter_map(unready).map(Into::into).collect();
        let arriving: Vec<Uid> = unready.iter().filter(|uid| self.arrives(uid, &key)).cloned().collect();
        self.forget(&key);
        for uid in arriving {
            self.arriving.entry(uid).or_default().insert(key.clone());
        }
        if !unready.is_empty() {
            self.slices.insert(key.clone(), slice.clone());
        }
        for uid in unready {
            self.places.entry(uid).or_default().insert(key.clone());
        }
    }

    fn forget(&mut self, key: &ObjectKey) {
        let Some(slice) = self.slices.remove(key) else { return };
        for uid in slice.endpoints.iter().flatten().filter_map(unready) {
            for of in [&mut self.places, &mut self.arriving] {
                if let Some(keys) = of.get_mut(uid) {
                    keys.remove(key);
                    if keys.is_empty() {
                        of.remove(uid);
                    }
                }
            }
        }
    }

    /// Whether a pod is ready but an EndpointSlice doesn't show it yet.
    fn arrives(&self, uid: &str, key: &ObjectKey) -> bool {
        self.arriving.get(uid).is_some_and(|keys| keys.contains(key))
    }

    /// An EndpointSlice with the endpoints of waiting pods made ready. An author of EndpointSlices can name any pod in them, so only pods
    /// of the same namespace count.
    fn ready(&self, key: &ObjectKey, slice: &Arc<EndpointSlice>) -> Arc<EndpointSlice> {
        let waits = |endpoint: &Endpoint| {
            let is_here = |pod: &Waiting| *pod.namespace == *key.namespace;
            unready(endpoint).is_some_and(|uid| self.waiting.get(uid).is_some_and(is_here) || self.arrives(uid, key))
        };
        if !slice.endpoints.iter().flatten().any(waits) {
            return slice.clone();
        }
        let has_hints = slice.endpoints.iter().flatten().any(|endpoint| endpoint.hints.is_some());
        let mut slice = slice.clone();
        for endpoint in Arc::make_mut(&mut slice).endpoints.iter_mut().flatten().filter(|endpoint| waits(endpoint)) {
            if let Some(conditions) = &mut endpoint.conditions {
                (conditions.ready, conditions.serving) = (Some(true), Some(true));
            }
            // Endpoints that aren't ready have no hints, and an endpoint without hints would turn off those of all others.
            if let (true, None, Some(zone)) = (has_hints, &endpoint.hints, &endpoint.zone) {
                let for_zones = Some(vec![ForZone { name: zone.clone() }]);
                endpoint.hints = Some(EndpointHints { for_zones, ..EndpointHints::default() });
            }
        }
        slice
    }

    /// Records that everything seen so far is translated. A pod is complete once each Service that selects it has an EndpointSlice with it.
    pub(crate) fn translated(&mut self, objects: &Objects) {
        let Self { waiting, slices, places, .. } = self;
        for (uid, pod) in waiting.iter_mut().filter(|(_, pod)| !pod.complete) {
            let mut places = places.get(uid).into_iter().flatten().filter(|key| *key.namespace == *pod.namespace);
            let is_in = |service: &str| {
                let mut of_pod = places.clone().filter_map(|key| slices.get(key));
                of_pod.any(|slice| {
                    let labels = slice.metadata.labels.as_ref();
                    labels.and_then(|labels| labels.get(SERVICE_LABEL)).is_some_and(|name| name == service)
                })
            };
            let mut services = objects.in_namespace(Kind::Service, &pod.namespace);
            pod.complete = services.all(|(key, object)| {
                let Object::Service(service) = object else { return true };
                !selects(service, &pod.labels) || is_in(&key.name)
            });
            if pod.complete && places.next().is_none() {
                pod.publication = Some(0);
            }
        }
    }

    /// Records that everything translated so far is in force with this publication at the latest.
    pub(crate) fn published(&mut self, number: u64) {
        for pod in self.waiting.values_mut().filter(|pod| pod.complete) {
            pod.publication.get_or_insert(number);
        }
    }

    /// The pods that all our proxies know and that still lack the condition.
    pub(crate) fn known(&self, reach: &Reach) -> BTreeSet<Uid> {
        let known = |(_, pod): &(&Uid, &Waiting)| {
            pod.write != ConditionWrite::Done && pod.publication.is_some_and(|number| reach.is_everywhere(number))
        };
        self.waiting.iter().filter(known).map(|(uid, _)| uid.clone()).collect()
    }

    /// The conditions to write now: of pods that all proxies know, or that have waited long enough. The caller must report
    /// [`written`](Self::written).
    pub(crate) fn due(&mut self, reach: &Reach, peers: &Peers, now: Instant) -> Vec<Routed> {
        let mut free = WRITES.saturating_sub(self.under_way());
        let mut due = Vec::new();
        for (uid, pod) in &mut self.waiting {
            if free == 0 {
                break;
            }
            let ConditionWrite::From(from) = pod.write else { continue };
            if from.is_some_and(|from| now < from) {
                continue;
            }
            let Extent { knowing, of, whole } = reach.count(peers, uid, pod.publication, now);
            let verdict = if whole {
                Verdict::Known
            } else if now >= pod.since + PATIENCE {
                Verdict::TimedOut
            } else {
                continue;
            };
            pod.write = ConditionWrite::UnderWay;
            free -= 1;
            let (namespace, name) = (pod.namespace.clone(), pod.name.clone());
            due.push(Routed { uid: uid.clone(), namespace, name, verdict, knowing, of });
        }
        due
    }

    fn under_way(&self) -> usize {
        self.waiting.values().filter(|pod| pod.write == ConditionWrite::UnderWay).count()
    }

    /// Records whether a condition was written. If not, it is tried again: a pod that was replaced soon disappears from the watch. Returns
    /// whether this is the first failure.
    pub(crate) fn written(&mut self, uid: &str, result: Result<(), &CallError>, now: Instant) -> bool {
        let Some(pod) = self.waiting.get_mut(uid).filter(|pod| pod.write == ConditionWrite::UnderWay) else {
            return false;
        };
        match result {
            Ok(()) => pod.write = ConditionWrite::Done,
            Err(error) => pod.write = ConditionWrite::From(Some(now + pod.backoff.after(Some(error)))),
        }
        result.is_err() && pod.backoff.failures() == 1
    }

    /// When [`due`](Self::due) returns more even if nothing else happens, if it has room.
    pub(crate) fn next_at(&self, peers: &Peers, now: Instant) -> Option<Instant> {
        if self.under_way() >= WRITES {
            return None;
        }
        let left = self.waiting.values().filter_map(|pod| match pod.write {
            ConditionWrite::From(from) => Some((pod.since + PATIENCE).max(from.unwrap_or(pod.since))),
            _ => None,
        });
        let again = self.waiting.values().filter_map(|pod| match pod.write {
            ConditionWrite::From(from) => from.filter(|from| *from > now),
            _ => None,
        });
        let end = left.clone().next().and_then(|_| peers.next_end(now));
        left.chain(again).chain(end).min()
    }
}

/// The pod of an endpoint that is neither ready nor ending.
fn unready(endpoint: &Endpoint) -> Option<&str> {
    let conditions = endpoint.conditions.as_ref()?;
    if conditions.ready != Some(false) || conditions.terminating == Some(true) {
        return None;
    }
    endpoint.target_ref.as_ref().filter(|target| target.kind.as_deref() == Some("Pod"))?.uid.as_deref()
}

/// Whether Kubernetes puts a pod with these labels into EndpointSlices of a Service, and considers whether it is ready.
fn selects(service: &Service, labels: &BTreeMap<String, String>) -> bool {
    let Some(spec) = &service.spec else { return false };
    let selector = spec.selector.iter().flatten();
    let is_external = spec.type_.as_deref() == Some("ExternalName");
    let ignores_readiness = spec.publish_not_ready_addresses == Some(true);
    let is_selected =
        selector.clone().count() > 0 && selector.clone().all(|(key, value)| labels.get(key) == Some(value));
    is_selected && !is_external && !ignores_readiness
}

#[cfg(test)]
mod tests;
