//! Active health checks: asks the endpoints of backends that want them, at their intervals, and tells all workers which endpoints are
//! unhealthy.
//!
//! One task on the control thread asks for the whole process, however many workers and routes there are. Invariants: a worker never
//! waits for a check; a backend that no longer wants checks, or an endpoint that is gone, leaves nothing behind; an endpoint is healthy
//! until enough answers in a row were bad, so that a new pod gets requests as soon as Kubernetes calls it ready.

mod ask;

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fairway_model::{BackendName, Delta, EndpointState, HealthCheck, Resource, ResourceName};
use tokio::sync::mpsc;
use tokio::task::{self, JoinSet};
use tokio::time::{Instant, sleep_until};

use self::ask::{Asking, BadAnswer};
use crate::limit::{HEALTH_CHECKED, HEALTH_CHECKS, HEALTH_CHECKS_OF_ONE, HEALTH_FIRST};
use crate::live::Live;
use crate::random::Rng;
use crate::upstream::{HealthBoard, SharedHealth, endpoints};

/// The publisher's side: knows which backends want checks.
#[derive(Debug)]
pub(crate) struct Prober {
    looks: mpsc::UnboundedSender<BackendName>,
    /// Backends with checks. Usually none, so a change of endpoints costs nothing here.
    checked: Mutex<HashSet<BackendName>>,
    counts: Arc<CheckCounts>,
}

/// The task, before it runs.
#[derive(Debug)]
pub(crate) struct Probing {
    looks: mpsc::UnboundedReceiver<BackendName>,
    board: Arc<HealthBoard>,
    counts: Arc<CheckCounts>,
}

/// Figures for the metrics.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct HealthCounts {
    /// Endpoints whose health is checked.
    pub(crate) checked: u64,
    /// Those that are unhealthy.
    pub(crate) unhealthy: u64,
    /// Checks that have ended.
    pub(crate) checks: u64,
    /// Those without a good answer.
    pub(crate) failures: u64,
}

#[derive(Debug, Default)]
struct CheckCounts {
    checked: AtomicU64,
    unhealthy: AtomicU64,
    checks: AtomicU64,
    failures: AtomicU64,
}

impl Prober {
    /// A prober, and its task.
    pub(crate) fn new(board: Arc<HealthBoard>) -> (Self, Probing) {
        let (looks, received) = mpsc::unbounded_channel();
        let counts = Arc::<CheckCounts>::default();
        (Self { looks, checked: Mutex::default(), counts: counts.clone() }, Probing { looks: received, board, counts })
    }

    /// Whether the endpoints of a backend are checked.
    pub(crate) fn checks(&self, backend: &BackendName) -> bool {
        locked(&self.checked).contains(backend)
    }

    /// The backends of a change that have to be looked at once it is in effect. Call it for every change.
    pub(crate) fn concerned(&self, delta: &Delta) -> Vec<BackendName> {
        let mut checked = locked(&self.checked);
        let mut concerned = Vec::new();
        for removed in &delta.removals {
            match removed {
                ResourceName::Backend(name) if checked.remove(name) => concerned.push(name.clone()),
                ResourceName::EndpointSet(name) if checked.contains(name) => concerned.push(name.clone()),
                _ => {}
            }
        }
        for resource in &delta.upserts {
            match resource {
                Resource::Backend(backend) if backend.health_check.is_some() => {
                    checked.insert(backend.name.clone());
                    concerned.push(backend.name.clone());
                }
                Resource::Backend(backend) if checked.remove(&backend.name) => concerned.push(backend.name.clone()),
                Resource::EndpointSet(set) if checked.contains(&set.backend) => concerned.push(set.backend.clone()),
                _ => {}
            }
        }
        concerned
    }

    /// Makes the task look at these backends in the newest configuration.
    pub(crate) fn look_at(&self, backends: impl IntoIterator<Item = BackendName>) {
        for backend in backends {
            // Without the task, the process is about to end.
            self.looks.send(backend).ok();
        }
    }

    /// The figures.
    pub(crate) fn counts(&self) -> HealthCounts {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        HealthCounts {
            checked: read(&self.counts.checked),
            unhealthy: read(&self.counts.unhealthy),
            checks: read(&self.counts.checks),
            failures: read(&self.counts.failures),
        }
    }
}

impl Probing {
    /// Checks until the publisher is gone. `newest` is the configuration in effect.
    pub(crate) async fn run(self, newest: impl Fn() -> Option<Arc<Live>>) {
        let mut looks = self.looks;
        let mut task = CheckTask {
            board: self.board,
            counts: self.counts,
            backends: HashMap::new(),
            due: BTreeSet::new(),
            asking: Asking::default(),
            checks: JoinSet::new(),
            under_way: HashMap::new(),
            shares: HashMap::new(),
            rng: Rng::from_os(),
            next_id: 0,
            endpoints: 0,
        };
        loop {
            let next = task.due.first().map(|(due, ..)| *due);
            let may_ask = task.checks.len() < HEALTH_CHECKS;
            tokio::select! {
                look = looks.recv() => match (look, newest()) {
                    (Some(backend), Some(live)) => task.look(&live, &backend),
                    _ => return,
                },
                // One that panicked is lost with its endpoint's turn; the next change of the backend brings it back.
                Some(ended) = task.checks.join_next_with_id() => match ended {
                    Ok((id, ended)) => { task.end(id); task.take(ended); }
                    Err(panicked) => task.end(panicked.id()),
                },
                () = sleep_until(next.unwrap_or_else(Instant::now)), if may_ask && next.is_some() => task.ask(),
            }
        }
    }
}

struct CheckTask {
    board: Arc<HealthBoard>,
    counts: Arc<CheckCounts>,
    backends: HashMap<BackendName, CheckedBackend>,
    /// Which endpoints are asked next. Those being asked are absent.
    due: BTreeSet<(Instant, BackendName, SocketAddr)>,
    asking: Asking,
    checks: JoinSet<EndedCheck>,
    /// The namespaces of these checks.
    under_way: HashMap<task::Id, Box<str>>,
    /// The checks of each namespace, so that none takes up all the room with endpoints that don't answer.
    shares: HashMap<Box<str>, NamespaceChecks>,
    rng: Rng,
    next_id: u64,
    /// Endpoints of all backends.
    endpoints: usize,
}

/// The checks of one namespace.
#[derive(Debug, Default)]
struct NamespaceChecks {
    under_way: usize,
    /// Endpoints that have left the queue, and whose check is about to begin.
    admitted: usize,
    /// Endpoints whose check is due and begins when another ends, with the numbers that they had.
    waiting: VecDeque<(BackendName, SocketAddr, u64)>,
}

struct CheckedBackend {
    check: Arc<HealthCheck>,
    shared: Arc<SharedHealth>,
    endpoints: HashMap<SocketAddr, CheckedEndpoint>,
}

struct CheckedEndpoint {
    /// Distinguishes it from an earlier one at the same address.
    id: u64,
    due: Option<Instant>,
    /// Whether it holds a place among the checks of its namespace, and its check has not begun.
    admitted: bool,
    healthy: bool,
    /// Answers in a row that contradict this.
    against: u32,
}

struct EndedCheck {
    backend: BackendName,
    address: SocketAddr,
    id: u64,
    found: Result<(), BadAnswer>,
}

impl CheckTask {
    /// Follows the newest configuration of a backend.
    fn look(&mut self, live: &Live, name: &BackendName) {
        self.follow(live, name);
        // Endpoints that are gone may have held places.
        self.admit(namespace(name));
    }

    fn follow(&mut self, live: &Live, name: &BackendName) {
        let check = live.snapshot.backend(name).and_then(|backend| backend.health_check.as_deref());
        let Some(check) = check else {
            if let Some(gone) = self.backends.remove(name) {
                gone.shared.set_unhealthy(Vec::new());
                self.endpoints -= gone.endpoints.len();
                for (address, endpoint) in gone.endpoints {
                    self.forget(name, address, &endpoint);
                }
            }
            self.count();
            return;
        };
        let mut backend = match self.backends.remove(name) {
            Some(known) if *known.check == *check => known,
            // The check differs: results of the old one say nothing.
            known => {
                for (address, endpoint) in known.into_iter().flat_map(|known| known.endpoints) {
                    self.endpoints -= 1;
                    self.forget(name, address, &endpoint);
                }
                let check = Arc::new(check.clone());
                CheckedBackend { check, shared: self.board.of(name), endpoints: HashMap::new() }
            }
        };
        let mut gone = std::mem::take(&mut backend.endpoints);
        let first = backend.check.interval.min(HEALTH_FIRST);
        for endpoint in endpoints(live, name) {
            if endpoint.state != EndpointState::Ready {
                continue;
            }
            if let Some(known) = gone.remove(&endpoint.address) {
                backend.endpoints.insert(endpoint.address, known);
            } else if self.endpoints < HEALTH_CHECKED {
                self.endpoints += 1;
                self.next_id += 1;
                let due = Instant::now() + part_of(first, &mut self.rng);
                self.due.insert((due, name.clone(), endpoint.address));
                let new =
                    CheckedEndpoint { id: self.next_id, due: Some(due), admitted: false, healthy: true, against: 0 };
                backend.endpoints.insert(endpoint.address, new);
            }
        }
        self.endpoints -= gone.len();
        for (address, endpoint) in gone {
            self.forget(name, address, &endpoint);
        }
        backend.tell();
        self.backends.insert(name.clone(), backend);
        self.count();
    }

    fn forget(&mut self, name: &BackendName, address: SocketAddr, endpoint: &CheckedEndpoint) {
        if let Some(due) = endpoint.due {
            self.due.remove(&(due, name.clone(), address));
        }
        if let Some(share) = self.shares.get_mut(namespace(name)).filter(|_| endpoint.admitted) {
            share.admitted -= 1;
        }
    }

    /// Begins the check that is due.
    fn ask(&mut self) {
        let Some((_, backend, address)) = self.due.pop_first() else { return };
        let Some(checked) = self.backends.get_mut(&backend) else { return };
        let Some(endpoint) = checked.endpoints.get_mut(&address) else { return };
        endpoint.due = None;
        let (asking, check, id) = (self.asking.clone(), checked.check.clone(), endpoint.id);
        let namespace = namespace(&backend);
        let share = self.shares.entry(namespace.into()).or_default();
        share.admitted -= usize::from(std::mem::take(&mut endpoint.admitted));
        if share.under_way + share.admitted >= HEALTH_CHECKS_OF_ONE {
            share.waiting.push_back((backend, address, id));
            return;
        }
        share.under_way += 1;
        let namespace = namespace.into();
        let check = async move { EndedCheck { found: asking.ask(&check, address).await, backend, address, id } };
        self.under_way.insert(self.checks.spawn(check).id(), namespace);
    }

    /// Lets the next check of the same namespace begin.
    fn end(&mut self, ended: task::Id) {
        let Some(namespace) = self.under_way.remove(&ended) else { return };
        if let Some(share) = self.shares.get_mut(&namespace) {
            share.under_way -= 1;
        }
        self.admit(&namespace);
    }

    /// Gives the free places of a namespace to the endpoints that wait longest.
    fn admit(&mut self, namespace: &str) {
        let Some(share) = self.shares.get_mut(namespace) else { return };
        while share.under_way + share.admitted < HEALTH_CHECKS_OF_ONE
            && let Some((name, address, id)) = share.waiting.pop_front()
        {
            let Some(backend) = self.backends.get_mut(&name) else { continue };
            // Otherwise it was removed meanwhile.
            if let Some(endpoint) = backend.endpoints.get_mut(&address).filter(|endpoint| endpoint.id == id) {
                let due = Instant::now();
                (endpoint.due, endpoint.admitted) = (Some(due), true);
                share.admitted += 1;
                self.due.insert((due, name, address));
            }
        }
        if share.under_way + share.admitted == 0 {
            self.shares.remove(namespace);
        }
    }

    /// Takes the answer of an endpoint.
    fn take(&mut self, ended: EndedCheck) {
        let EndedCheck { backend: name, address, id, found } = ended;
        self.counts.checks.fetch_add(1, Ordering::Relaxed);
        self.counts.failures.fetch_add(u64::from(found.is_err()), Ordering::Relaxed);
        let Some(backend) = self.backends.get_mut(&name) else { return };
        let Some(endpoint) = backend.endpoints.get_mut(&address).filter(|endpoint| endpoint.id == id) else { return };
        // Replicas that started together, and endpoints of one rollout, drift apart.
        let interval = backend.check.interval;
        let due = Instant::now() + interval * 9 / 10 + part_of(interval / 5, &mut self.rng);
        endpoint.due = Some(due);
        self.due.insert((due, name.clone(), address));
        if !endpoint.turns(&backend.check, found.is_ok()) {
            return;
        }
        match &found {
            Ok(()) => tracing::info!(backend = %name, upstream.addr = %address, "an endpoint is healthy again"),
            Err(why) => {
                tracing::warn!(backend = %name, upstream.addr = %address, error = %why, "an endpoint is unhealthy");
            }
        }
        backend.tell();
        self.count();
    }

    fn count(&self) {
        let unhealthy: usize = self.backends.values().map(|backend| backend.unhealthy().count()).sum();
        self.counts.checked.store(self.endpoints as u64, Ordering::Relaxed);
        self.counts.unhealthy.store(unhealthy as u64, Ordering::Relaxed);
    }
}

impl CheckedBackend {
    fn unhealthy(&self) -> impl Iterator<Item = SocketAddr> {
        self.endpoints.iter().filter(|(_, endpoint)| !endpoint.healthy).map(|(address, _)| *address)
    }

    /// Tells the workers.
    fn tell(&self) {
        let mut unhealthy: Vec<_> = self.unhealthy().collect();
        unhealthy.sort_unstable();
        self.shared.set_unhealthy(unhealthy);
    }
}

impl CheckedEndpoint {
    /// Counts an answer; returns whether the endpoint's health changes with it.
    fn turns(&mut self, check: &HealthCheck, good: bool) -> bool {
        if good == self.healthy {
            self.against = 0;
            return false;
        }
        self.against += 1;
        let enough = if self.healthy { check.unhealthy_after } else { check.healthy_after };
        let turns = self.against >= enough;
        if turns {
            self.healthy = good;
            self.against = 0;
        }
        turns
    }
}

/// The namespace that a backend belongs to.
fn namespace(name: &BackendName) -> &str {
    name.as_str().split_once('/').map_or("", |(namespace, _)| namespace)
}

/// A random part of a time.
fn part_of(time: Duration, rng: &mut Rng) -> Duration {
    Duration::from_millis(rng.below(u32::try_from(time.as_millis()).unwrap_or(u32::MAX)).into())
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairway_model::Probe;

    fn check() -> HealthCheck {
        HealthCheck {
            probe: Probe::Grpc { service: "".into() },
            tls: false,
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(3),
            unhealthy_after: 3,
            healthy_after: 2,
        }
    }

    #[test]
    fn answers_in_a_row_decide() {
        let check = check();
        let mut endpoint = CheckedEndpoint { id: 1, due: None, admitted: false, healthy: true, against: 0 };
        let mut after = |answers: &str| {
            answers.bytes().for_each(|answer| {
                endpoint.turns(&check, answer == b'+');
            });
            endpoint.healthy
        };
        assert!(after("--+--"), "never three in a row");
        assert!(!after("-"));
        assert!(!after("+-+"), "never two in a row");
        assert!(after("+"));
        assert!(after("--"));
    }

    #[test]
    fn a_place_whose_endpoint_goes_before_its_check_begins_is_for_the_next_one() {
        let board = Arc::<HealthBoard>::default();
        let address = SocketAddr::from(([10, 0, 0, 1], 80));
        let (first, second): (BackendName, BackendName) = ("shop/a:80".into(), "shop/b:80".into());
        let endpoint = |id| CheckedEndpoint { id, due: None, admitted: false, healthy: true, against: 0 };
        let backend = |name: &BackendName, id| CheckedBackend {
            check: Arc::new(check()),
            shared: board.of(name),
            endpoints: HashMap::from([(address, endpoint(id))]),
        };
        let waiting = VecDeque::from([(first.clone(), address, 1), (second.clone(), address, 2)]);
        let share = NamespaceChecks { under_way: HEALTH_CHECKS_OF_ONE - 1, admitted: 0, waiting };
        let mut task = CheckTask {
            backends: HashMap::from([(first.clone(), backend(&first, 1)), (second.clone(), backend(&second, 2))]),
            board: board.clone(),
            counts: Arc::default(),
            due: BTreeSet::new(),
            asking: Asking::default(),
            checks: JoinSet::new(),
            under_way: HashMap::new(),
            shares: HashMap::from([("shop".into(), share)]),
            rng: Rng::from_os(),
            next_id: 2,
            endpoints: 2,
        };
        let due = |task: &CheckTask| task.due.iter().map(|(_, name, _)| name.to_string()).collect::<Vec<_>>();
        task.admit("shop");
        assert_eq!(due(&task), ["shop/a:80"]);
        let live = Live::first(fairway_model::Snapshot::default(), None, Default::default());
        task.look(&live, &first);
        assert_eq!(due(&task), ["shop/b:80"]);
        assert_eq!(task.shares["shop"].admitted, 1);
    }
}
