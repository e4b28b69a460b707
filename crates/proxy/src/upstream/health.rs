//! Health of endpoints. Passive: an endpoint that fails several times in a row is passed over for a while, so that requests do not pay for
//! a try that is bound to fail. Active: an endpoint is passed over as long as health checks (`health_check/`) find it unhealthy.
//!
//! It is kept per Service port and shared by all routes to it and all workers. A worker reads one number per choice; only a failed try, or
//! the first success after one, takes a lock. Invariant: health never leaves a request without an endpoint. It orders endpoints, and the
//! balancer ignores it where every endpoint is failing.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use fairway_model::BackendName;

use crate::balance::TryOutcome;
use crate::limit::{EJECTION_FAILURES, EJECTION_FIRST, EJECTION_LONGEST};

/// The health of the endpoints of all backends.
#[derive(Debug, Default)]
pub(crate) struct HealthBoard(Mutex<HashMap<BackendName, Weak<SharedHealth>>>);

impl HealthBoard {
    /// The health of one backend's endpoints, dropped once no worker uses it.
    pub(crate) fn of(&self, name: &BackendName) -> Arc<SharedHealth> {
        let mut board = locked(&self.0);
        if let Some(shared) = board.get(name).and_then(Weak::upgrade) {
            return shared;
        }
        if board.len() == board.capacity() {
            board.retain(|_, shared| shared.strong_count() > 0);
        }
        let shared = Arc::<SharedHealth>::default();
        board.insert(name.clone(), Arc::downgrade(&shared));
        shared
    }
}

/// What all workers know of the endpoints of one backend.
#[derive(Debug, Default)]
pub(crate) struct SharedHealth {
    /// Incremented with each change of the lists.
    version: AtomicU64,
    lists: Mutex<HealthLists>,
}

#[derive(Clone, Debug, Default)]
struct HealthLists {
    /// Endpoints whose last try failed.
    failing: Vec<Suspect>,
    /// Endpoints that health checks have found unhealthy, sorted.
    unhealthy: Vec<SocketAddr>,
}

impl SharedHealth {
    /// Sets which endpoints health checks have found unhealthy.
    pub(crate) fn set_unhealthy(&self, mut unhealthy: Vec<SocketAddr>) {
        unhealthy.sort_unstable();
        let mut lists = locked(&self.lists);
        if lists.unhealthy != unhealthy {
            lists.unhealthy = unhealthy;
            self.version.fetch_add(1, Ordering::AcqRel);
        }
    }
}

/// An endpoint whose last try failed.
#[derive(Clone, Copy, Debug)]
struct Suspect {
    address: SocketAddr,
    /// Failures in a row.
    failures: u32,
    /// How long it was passed over last.
    pause: Duration,
    /// The end of that time; `None` below the limit of failures.
    until: Option<Instant>,
}

impl Suspect {
    fn new(address: SocketAddr) -> Self {
        Self { address, failures: 0, pause: Duration::ZERO, until: None }
    }

    /// Counts a failure; returns whether the endpoint is passed over from now on.
    fn count(&mut self, now: Instant) -> bool {
        self.failures = self.failures.saturating_add(1);
        // Requests that were in progress when it was ejected say nothing new.
        if self.failures < EJECTION_FAILURES || self.until.is_some_and(|until| now < until) {
            return false;
        }
        self.pause = (2 * self.pause).clamp(EJECTION_FIRST, EJECTION_LONGEST);
        self.until = Some(now + self.pause);
        true
    }
}

/// One worker's view of a backend's health.
#[derive(Debug)]
pub(crate) struct Health {
    shared: Arc<SharedHealth>,
    version: u64,
    lists: HealthLists,
    /// Addresses to pass over, sorted: many may fail, and every choice looks them up.
    ejected: Vec<SocketAddr>,
    /// How long `ejected` stays valid if nothing changes; `None` if it is not valid.
    lasts: Option<Instant>,
}

impl Health {
    /// The view of one backend.
    pub(crate) fn of(board: &HealthBoard, name: &BackendName) -> Self {
        Self { shared: board.of(name), version: 0, lists: HealthLists::default(), ejected: Vec::new(), lasts: None }
    }

    /// The endpoints to pass over, and those among them that health checks call unhealthy; both sorted.
    pub(crate) fn avoided(&mut self, now: Instant) -> (&[SocketAddr], &[SocketAddr]) {
        self.refresh();
        let HealthLists { failing, unhealthy } = &self.lists;
        if failing.is_empty() {
            return (unhealthy, unhealthy);
        }
        if self.lasts.is_none_or(|lasts| lasts <= now) {
            let passed_over =
                || failing.iter().filter_map(|one| Some((one.address, one.until?))).filter(|one| now < one.1);
            self.ejected.clear();
            self.ejected.extend(passed_over().map(|(address, _)| address));
            self.ejected.extend_from_slice(unhealthy);
            self.ejected.sort_unstable();
            // If there are none, this holds until one is added, which is a change.
            self.lasts = Some(passed_over().map(|(_, until)| until).min().unwrap_or(now + EJECTION_LONGEST));
        }
        (&self.ejected, unhealthy)
    }

    #[cfg(test)]
    fn ejected(&mut self, now: Instant) -> &[SocketAddr] {
        self.avoided(now).0
    }

    /// Notes which endpoint was chosen. If its time of being passed over has ended, this request is a trial: until it ends, this worker
    /// sends no other request there.
    pub(crate) fn chosen(&mut self, address: SocketAddr, now: Instant) {
        if let Some(one) = self.find(address)
            && one.until.is_some_and(|until| until <= now)
        {
            one.until = Some(now + EJECTION_LONGEST);
            self.lasts = None;
        }
    }

    /// Notes how a try ended; returns whether its endpoint is passed over from now on.
    pub(crate) fn done(&mut self, address: SocketAddr, outcome: TryOutcome, now: Instant) -> bool {
        match outcome {
            TryOutcome::Answered(_) => {
                if self.find(address).is_some() {
                    self.change(|failing| failing.retain(|one| one.address != address));
                }
                false
            }
            TryOutcome::Abandoned => {
                // A trial that ended early decides nothing: the next request is the trial.
                if let Some(one) = self.find(address)
                    && one.until.is_some()
                {
                    self.version = 0;
                }
                false
            }
            TryOutcome::Failed => self.change(|failing| {
                let at = failing.iter().position(|one| one.address == address).unwrap_or(failing.len());
                if at == failing.len() {
                    failing.push(Suspect::new(address));
                }
                failing[at].count(now)
            }),
        }
    }

    /// Forgets endpoints that are gone.
    pub(crate) fn keep(&mut self, exists: impl Fn(SocketAddr) -> bool) {
        self.refresh();
        if !self.lists.failing.iter().all(|one| exists(one.address)) {
            self.change(|failing| failing.retain(|one| exists(one.address)));
        }
    }

    fn find(&mut self, address: SocketAddr) -> Option<&mut Suspect> {
        self.lists.failing.iter_mut().find(|one| one.address == address)
    }

    /// Takes over what other workers have changed.
    fn refresh(&mut self) {
        if self.shared.version.load(Ordering::Acquire) != self.version {
            let lists = locked(&self.shared.lists);
            self.version = self.shared.version.load(Ordering::Acquire);
            self.lists.clone_from(&lists);
            self.lasts = None;
        }
    }

    /// Changes the list for all workers.
    fn change<T>(&mut self, change: impl FnOnce(&mut Vec<Suspect>) -> T) -> T {
        let mut lists = locked(&self.shared.lists);
        let result = change(&mut lists.failing);
        self.version = self.shared.version.fetch_add(1, Ordering::AcqRel) + 1;
        self.lists.clone_from(&lists);
        self.lasts = None;
        result
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWERED: TryOutcome = TryOutcome::Answered(Duration::from_millis(1));

    fn address(last: u8) -> SocketAddr {
        ([10, 0, 0, last], 80).into()
    }

    fn views(count: usize) -> Vec<Health> {
        let board = HealthBoard::default();
        (0..count).map(|_| Health::of(&board, &"default/web:80".into())).collect()
    }

    fn fail(view: &mut Health, times: u32, now: Instant) {
        for _ in 0..times {
            view.done(address(1), TryOutcome::Failed, now);
        }
    }

    #[test]
    fn failures_in_a_row_eject_an_endpoint_in_all_workers() {
        let now = Instant::now();
        let [mut one, mut other] = <[Health; 2]>::try_from(views(2)).unwrap();
        fail(&mut one, EJECTION_FAILURES - 1, now);
        assert!(one.ejected(now).is_empty());
        assert!(other.done(address(1), TryOutcome::Failed, now), "the last failure may be of another worker");
        for view in [&mut one, &mut other] {
            assert_eq!(view.ejected(now), [address(1)]);
        }
    }

    #[test]
    fn those_to_avoid_are_in_order_and_each_comes_back_at_its_time() {
        let now = Instant::now();
        let [mut view] = <[Health; 1]>::try_from(views(1)).unwrap();
        let fail = |view: &mut Health, last: u8, now| {
            for _ in 0..EJECTION_FAILURES {
                view.done(address(last), TryOutcome::Failed, now);
            }
        };
        let later = now + EJECTION_FIRST / 2;
        fail(&mut view, 9, now);
        fail(&mut view, 3, later);
        view.shared.set_unhealthy(vec![address(7), address(1)]);
        assert_eq!(view.avoided(later).0, [1, 3, 7, 9].map(address));
        assert_eq!(view.avoided(now + EJECTION_FIRST).0, [1, 3, 7].map(address));
        let (ejected, unhealthy) = view.avoided(later + EJECTION_FIRST);
        assert_eq!((ejected, unhealthy), (&[1, 7].map(address)[..], &[1, 7].map(address)[..]));
    }

    #[test]
    fn a_success_in_between_starts_the_count_again() {
        let now = Instant::now();
        let [mut one, mut other] = <[Health; 2]>::try_from(views(2)).unwrap();
        fail(&mut one, EJECTION_FAILURES - 1, now);
        assert!(other.ejected(now).is_empty());
        other.done(address(1), ANSWERED, now);
        fail(&mut one, EJECTION_FAILURES - 1, now);
        assert!(one.ejected(now).is_empty());
    }

    #[test]
    fn one_request_at_a_time_tries_whether_the_endpoint_is_back() {
        let now = Instant::now();
        let [mut view] = <[Health; 1]>::try_from(views(1)).unwrap();
        fail(&mut view, EJECTION_FAILURES, now);
        let over = now + EJECTION_FIRST;
        assert!(view.ejected(over).is_empty());
        view.chosen(address(1), over);
        assert_eq!(view.ejected(over), [address(1)], "the trial is under way");
        view.done(address(1), TryOutcome::Abandoned, over);
        assert!(view.ejected(over).is_empty(), "it decided nothing");
        view.chosen(address(1), over);
        assert!(view.done(address(1), TryOutcome::Failed, over), "one failure is enough");
        assert_eq!(view.ejected(over + EJECTION_FIRST), [address(1)], "the second pause is longer");
        let back = over + 2 * EJECTION_FIRST;
        view.chosen(address(1), back);
        view.done(address(1), ANSWERED, back);
        fail(&mut view, EJECTION_FAILURES - 1, back);
        assert!(view.ejected(back).is_empty(), "it has a clean slate");
    }

    #[test]
    fn pauses_have_a_longest() {
        let mut now = Instant::now();
        let [mut view] = <[Health; 1]>::try_from(views(1)).unwrap();
        fail(&mut view, EJECTION_FAILURES, now);
        for _ in 0..20 {
            now += EJECTION_LONGEST;
            assert!(view.ejected(now).is_empty());
            fail(&mut view, 1, now);
            assert_eq!(view.ejected(now), [address(1)]);
        }
    }

    #[test]
    fn requests_under_way_at_the_ejection_do_not_prolong_it() {
        let now = Instant::now();
        let [mut view] = <[Health; 1]>::try_from(views(1)).unwrap();
        fail(&mut view, 100, now);
        assert!(view.ejected(now + EJECTION_FIRST).is_empty());
    }

    #[test]
    fn what_health_checks_find_holds_in_all_workers_whatever_requests_show() {
        let now = Instant::now();
        let board = HealthBoard::default();
        let name = "default/web:80".into();
        let [mut one, mut other] = [(); 2].map(|()| Health::of(&board, &name));
        let checks = board.of(&name);
        checks.set_unhealthy(vec![address(2)]);
        assert_eq!(one.ejected(now), [address(2)]);
        fail(&mut one, EJECTION_FAILURES, now);
        other.done(address(2), ANSWERED, now);
        assert_eq!(other.ejected(now), [address(1), address(2)]);
        checks.set_unhealthy(Vec::new());
        for view in [&mut one, &mut other] {
            assert_eq!(view.ejected(now), [address(1)]);
        }
    }

    #[test]
    fn endpoints_that_are_gone_are_forgotten() {
        let now = Instant::now();
        let board = HealthBoard::default();
        let mut view = Health::of(&board, &"default/web:80".into());
        fail(&mut view, EJECTION_FAILURES, now);
        view.keep(|_| true);
        assert_eq!(view.ejected(now), [address(1)]);
        view.keep(|_| false);
        assert!(view.ejected(now).is_empty());
        assert!(Health::of(&board, &"default/other:80".into()).ejected(now).is_empty());
        drop(view);
        (0..100).for_each(|number| drop(board.of(&format!("default/{number}:80").as_str().into())));
        assert!(locked(&board.0).len() < 50, "names of backends that no worker serves make room");
    }
}
