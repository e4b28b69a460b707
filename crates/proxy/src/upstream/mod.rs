//! Endpoints as seen by one worker: the choice of an endpoint for a request, and the idle HTTP/1 connections to endpoints.

mod budget;
mod health;
pub(crate) mod pool;
mod service;
mod target;
mod tls;

use std::cell::RefCell;
use std::hint::cold_path;
use std::rc::Rc;
use std::sync::Arc;

use fairway_model::{BackendName, Session};
use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::balance::{cookie, rule};
use crate::http::{RequestHead, Spanned};
use crate::live::Live;
use crate::random::Rng;
use crate::timer::Millis;

pub(crate) use self::health::{HealthBoard, SharedHealth};
pub(crate) use self::pool::{Pool, UpstreamConnection};
pub(crate) use self::service::{Copies, Service, endpoints};
pub(crate) use self::target::{Target, Way, Ways};
pub use self::tls::unverified_tls;
pub(crate) use self::tls::{InvalidTls, TlsWay, UpstreamVersion, apart, fault};

/// The endpoints of one worker.
#[derive(Debug, Default)]
pub(crate) struct Upstreams {
    /// Idle connections.
    pub(crate) pool: RefCell<Pool>,
    /// The ways in which connections are opened.
    pub(crate) ways: Ways,
    /// The health of endpoints, shared by all workers.
    health: Arc<HealthBoard>,
    services: RefCell<HashMap<BackendName, Rc<Service>, RandomState>>,
}

impl Upstreams {
    /// The endpoints of a worker, which shares their health with the others.
    pub(crate) fn new(health: Arc<HealthBoard>) -> Self {
        Self { health, ..Self::default() }
    }

    /// The state of a backend, created on first use and updated when the snapshot is newer. `None` if the snapshot does not
    /// contain the backend.
    ///
    /// All requests share one state, so a request's endpoints may be newer than the snapshot of its route: a request that began before a
    /// change is not sent to a pod that is already gone.
    pub(crate) fn service(&self, live: &Live, name: &BackendName, rng: &RefCell<Rng>) -> Option<Rc<Service>> {
        let mut services = self.services.borrow_mut();
        if let Some(service) = services.get(name) {
            if service.is_current(live) {
                return Some(service.clone());
            }
            cold_path();
            if service.update(live, name) {
                return Some(service.clone());
            }
            services.remove(name);
            return None;
        }
        cold_path();
        let service = Rc::new(Service::new(live, name, &self.health, &mut rng.borrow_mut())?);
        services.insert(name.clone(), service.clone());
        Some(service)
    }

    /// Whether a request belongs to a session with an endpoint of `backend`, by the session cookie of the backend `main`.
    pub(crate) fn has_session(
        &self,
        live: &Live,
        head: Spanned<'_, RequestHead>,
        (main, backend): (&BackendName, &BackendName),
        rng: &RefCell<Rng>,
    ) -> bool {
        let Some(affinity) = live.snapshot.backend(main).and_then(|main| main.affinity.as_ref()) else { return false };
        let value = cookie::find(head.parsed.fields(), head.bytes, affinity.cookie.name.as_bytes());
        let key = value.and_then(|value| value.split(|&byte| byte == b'|').nth(1));
        key.is_some_and(|key| self.service(live, backend, rng).is_some_and(|service| key == service.key()))
    }

    /// Whether a request belongs to a session of its rule with an endpoint of `backend`.
    pub(crate) fn keeps(
        &self,
        live: &Live,
        head: Spanned<'_, RequestHead>,
        (session, backend): (&Session, &BackendName),
        rng: &RefCell<Rng>,
    ) -> bool {
        rule::carried(session, head.parsed.fields(), head.bytes)
            .is_some_and(|value| self.service(live, backend, rng).is_some_and(|service| service.keeps(value)))
    }

    /// Takes an idle connection to a target. With `certain`, a system call checks that it is still open: for requests that may
    /// not be sent twice.
    pub(crate) fn take(&self, target: &Target, certain: bool) -> Option<Box<UpstreamConnection>> {
        let mut pool = self.pool.borrow_mut();
        loop {
            let connection = pool.take(target)?;
            if !certain || connection.is_open() {
                return Some(connection);
            }
        }
    }

    /// Removes unused state. Called periodically.
    pub(crate) fn keep_house(&self, now: Millis, live: &Live) {
        self.pool.borrow_mut().sweep(now, &live.prepared.pool);
        self.ways.keep_house();
        self.services.borrow_mut().retain(|name, service| {
            service.is_current(live) || live.snapshot.backend(name).is_some() || Rc::strong_count(service) > 1
        });
    }
}
