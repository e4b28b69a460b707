//! One backend in one worker: its resource, its endpoints and the balancer over them.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use fairway_model::{Affinity, Backend, BackendName, Balance, Endpoint, EndpointSet, Endpoints};

use super::budget::RetryBudget;
use super::health::{Health, HealthBoard};
use crate::access_log::Format;
use crate::balance::{self, Ask, Balancer, InProgress, Pick, TryOutcome, rule};
use crate::live::Live;
use crate::random::Rng;

/// Copies of requests in flight.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Copies {
    count: usize,
    /// The bytes of their bodies.
    held: usize,
}

impl Copies {
    /// Whether another copy of this many bytes is within bounds.
    pub(crate) fn admits(self, bytes: usize, most: usize, most_bytes: usize) -> bool {
        self.count < most && self.held + bytes <= most_bytes
    }

    /// With one more copy.
    pub(crate) fn with(self, bytes: usize) -> Self {
        Self { count: self.count + 1, held: self.held + bytes }
    }

    /// With one copy less.
    pub(crate) fn without(self, bytes: usize) -> Self {
        Self { count: self.count - 1, held: self.held - bytes }
    }
}

/// A backend, as of the newest snapshot that any request has used.
#[derive(Debug)]
pub(crate) struct Service {
    version: Cell<u64>,
    backend: RefCell<Arc<Backend>>,
    endpoints: RefCell<EndpointSource>,
    /// The second part of the backend's session cookies.
    key: [u8; 32],
    /// The hash key, if the endpoint is chosen by a hash.
    hash_key: RefCell<Option<Rc<Format>>>,
    balancer: RefCell<Balancer>,
    health: RefCell<Health>,
    /// Bounds the tries after failures.
    pub(crate) budget: RetryBudget,
    /// Whether one of its responses had X-Accel-Redirect.
    accel_redirect: Cell<bool>,
    /// Copies of requests in flight to it.
    pub(crate) copies: Cell<Copies>,
}

impl Service {
    /// Creates the state of a backend in the snapshot.
    pub(super) fn new(live: &Live, name: &BackendName, board: &HealthBoard, rng: &mut Rng) -> Option<Self> {
        let backend = live.snapshot.backend(name)?.clone();
        let endpoints = EndpointSource::of(live, name);
        let balancer = Balancer::new(&backend, &endpoints.list(live), rng, Instant::now());
        Some(Self {
            version: Cell::new(live.version),
            key: balance::backend_key(&backend.upstream_name),
            hash_key: RefCell::new(hash_key(&backend)),
            budget: RetryBudget::of(&backend),
            backend: RefCell::new(backend),
            endpoints: RefCell::new(endpoints),
            balancer: RefCell::new(balancer),
            health: RefCell::new(Health::of(board, name)),
            accel_redirect: Cell::new(false),
            copies: Cell::default(),
        })
    }

    /// Whether it is as new as the snapshot.
    pub(crate) fn is_current(&self, live: &Live) -> bool {
        // A request that began before a change may get here after one that began later.
        self.version.get() >= live.version
    }

    /// Applies changes; `false` if the snapshot no longer contains the backend.
    pub(crate) fn update(&self, live: &Live, name: &BackendName) -> bool {
        let Some(backend) = live.snapshot.backend(name) else {
            return false;
        };
        let mut own_backend = self.backend.borrow_mut();
        let mut own_endpoints = self.endpoints.borrow_mut();
        let endpoints = EndpointSource::of(live, name);
        if !own_endpoints.same(&endpoints) || !Arc::ptr_eq(&own_backend, backend) {
            *self.hash_key.borrow_mut() = hash_key(backend);
            self.budget.update(backend);
            *own_backend = backend.clone();
            *own_endpoints = endpoints;
            let list = own_endpoints.list(live);
            self.balancer.borrow_mut().update(&own_backend, &list, Instant::now());
            self.health.borrow_mut().keep(|address| list.iter().any(|endpoint| endpoint.address == address));
        }
        self.version.set(live.version);
        true
    }

    /// Applies what has changed since the calling exchange began.
    pub(crate) fn refresh(&self, newest: &Live) {
        if !self.is_current(newest) {
            let name = self.backend.borrow().name.clone();
            self.update(newest, &name);
        }
    }

    /// Takes over another backend's affinity, unless this one has its own: for the alternative of that backend. Holds until the next change
    /// of the configuration.
    pub(crate) fn adopt(&self, affinity: &Affinity, live: &Live) {
        let mut backend = self.backend.borrow_mut();
        if backend.affinity.is_none() {
            *backend = Arc::new(Backend { affinity: Some(affinity.clone()), ..(**backend).clone() });
            self.balancer.borrow_mut().update(&backend, &self.endpoints.borrow().list(live), Instant::now());
        }
    }

    /// Applies the newest snapshot and returns whether an endpoint is gone from it.
    pub(crate) fn has_lost(&self, newest: &Live, address: SocketAddr) -> bool {
        self.refresh(newest);
        !self.knows(newest, address)
    }

    /// Whether an endpoint exists, draining or not.
    pub(crate) fn knows(&self, newest: &Live, address: SocketAddr) -> bool {
        self.endpoints.borrow().list(newest).iter().any(|endpoint| endpoint.address == address)
    }

    /// Calls `look` with the backend. Callers that need it for longer clone it.
    pub(crate) fn with_backend<T>(&self, look: impl FnOnce(&Backend) -> T) -> T {
        look(&self.backend.borrow())
    }

    /// Notes that one of its responses had X-Accel-Redirect; returns whether it was the first.
    pub(crate) fn begins_accel_redirect(&self) -> bool {
        !self.accel_redirect.replace(true)
    }

    /// The second part of the backend's session cookies.
    pub(crate) fn key(&self) -> &[u8; 32] {
        &self.key
    }

    /// Whether any endpoint accepts new requests.
    pub(crate) fn is_open(&self) -> bool {
        self.balancer.borrow().is_open()
    }

    /// The hash key, if the endpoint is chosen by a hash.
    pub(crate) fn hash_key(&self) -> Option<Rc<Format>> {
        self.hash_key.borrow().clone()
    }

    /// Chooses an endpoint, if possible one that isn't failing. `ask` gets the name of the session cookie, if there is one.
    pub(crate) fn pick<'a>(&self, ask: impl FnOnce(Option<&str>) -> Ask<'a>) -> Option<Pick> {
        let backend = self.backend.borrow();
        let cookie = backend.affinity.as_ref().map(|affinity| &*affinity.cookie.name);
        let (ask, mut health) = (ask(cookie), self.health.borrow_mut());
        let now = ask.now;
        let (ejected, unhealthy) = health.avoided(now);
        let pick = self.balancer.borrow_mut().pick(&Ask { ejected, unhealthy, ..ask })?;
        health.chosen(pick.endpoint, now);
        Some(pick)
    }

    /// The same for a rule with sessions; `ask` has the session that the request carries.
    pub(crate) fn pick_in_rule(&self, ask: Ask<'_>) -> Option<Pick> {
        let mut health = self.health.borrow_mut();
        let now = ask.now;
        let (ejected, unhealthy) = health.avoided(now);
        let pick = self.balancer.borrow_mut().pick_in_rule(&Ask { ejected, unhealthy, ..ask })?;
        health.chosen(pick.endpoint, now);
        Some(pick)
    }

    /// Whether a session of a rule has an endpoint of this backend.
    pub(crate) fn keeps(&self, session: &[u8]) -> bool {
        rule::backend(session) == Some(&self.key) && self.balancer.borrow_mut().keeps(session)
    }

    /// Chooses an endpoint for a copy of a request. A copy is never the trial of an endpoint that was failing.
    pub(crate) fn pick_for_copy(&self, ask: &Ask<'_>) -> Option<Pick> {
        let mut health = self.health.borrow_mut();
        let now = ask.now;
        let (ejected, unhealthy) = health.avoided(now);
        self.balancer.borrow_mut().pick(&Ask { ejected, unhealthy, ..*ask })
    }

    /// Counts a request to a chosen endpoint for as long as the result lives; `None` if no choice depends on it.
    pub(crate) fn begin(&self, pick: &Pick) -> Option<InProgress> {
        self.balancer.borrow().begin(pick)
    }

    /// Reports how a try ended; returns whether its endpoint is passed over from now on.
    pub(crate) fn done(&self, pick: &Pick, outcome: TryOutcome, now: Instant) -> bool {
        self.balancer.borrow_mut().done(pick, outcome, now);
        self.health.borrow_mut().done(pick.endpoint, outcome, now)
    }
}

/// The endpoints of a backend that may be asked.
pub(crate) fn endpoints(live: &Live, name: &BackendName) -> Vec<Endpoint> {
    EndpointSource::of(live, name).list(live).into_owned()
}

fn hash_key(backend: &Backend) -> Option<Rc<Format>> {
    match &backend.balance {
        Balance::Hash(hash) => Some(Rc::new(Format::plain(&hash.key))),
        Balance::RoundRobin | Balance::Ewma | Balance::LeastRequest => None,
    }
}

/// Where a backend's endpoints come from.
#[derive(Debug)]
enum EndpointSource {
    /// Nowhere.
    None,
    /// The snapshot.
    Set(Arc<EndpointSet>),
    /// DNS.
    Resolved(Arc<[Endpoint]>),
}

impl EndpointSource {
    fn of(live: &Live, name: &BackendName) -> Self {
        match live.snapshot.endpoint_set(name) {
            None => Self::None,
            Some(set) => match (&set.endpoints, live.resolved.get(name)) {
                (Endpoints::Addresses(_), _) => Self::Set(set.clone()),
                (Endpoints::Name { .. }, Some(to)) => Self::Resolved(to.endpoints.clone()),
                (Endpoints::Name { .. }, None) => Self::None,
            },
        }
    }

    /// Whether both are the same list.
    fn same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::None, Self::None) => true,
            (Self::Set(own), Self::Set(other)) => Arc::ptr_eq(own, other),
            (Self::Resolved(own), Self::Resolved(other)) => Arc::ptr_eq(own, other),
            _ => false,
        }
    }

    /// The usable endpoints. Resolved addresses were checked when they were resolved.
    fn list(&self, live: &Live) -> Cow<'_, [Endpoint]> {
        match self {
            Self::None => Cow::Borrowed(&[]),
            Self::Set(set) => match &set.endpoints {
                Endpoints::Addresses(list) => live.addresses.endpoints(list),
                Endpoints::Name { .. } => Cow::Borrowed(&[]),
            },
            Self::Resolved(list) => Cow::Borrowed(list),
        }
    }
}
