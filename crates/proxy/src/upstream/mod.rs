//! Endpoints as one worker sees them: which one a request goes to, and the connections that are kept to them.

pub(crate) mod pool;
mod service;
mod target;
mod tls;

use std::cell::RefCell;
use std::rc::Rc;

use fairway_model::BackendName;
use foldhash::fast::RandomState;
use hashbrown::HashMap;

use crate::live::Live;
use crate::random::Rng;
use crate::timer::Millis;

pub(crate) use self::pool::{Pool, UpstreamConnection};
pub(crate) use self::service::Service;
pub(crate) use self::target::{Target, Way, Ways};
pub(crate) use self::tls::InvalidTls;

/// The endpoints of one worker.
#[derive(Debug, Default)]
pub(crate) struct Upstreams {
    /// Idle connections.
    pub(crate) pool: RefCell<Pool>,
    /// How connections are made.
    pub(crate) ways: Ways,
    services: RefCell<HashMap<BackendName, Rc<Service>, RandomState>>,
}

impl Upstreams {
    /// The state of a backend, made when it is first asked for and brought up to date when the snapshot is newer. `None` when
    /// the snapshot does not hold the backend.
    ///
    /// There is one state for all requests, so a request's endpoints may be newer than the snapshot that its route comes from: it is
    /// never sent to a pod of the past because it began in the past.
    pub(crate) fn service(&self, live: &Live, name: &BackendName, rng: &RefCell<Rng>) -> Option<Rc<Service>> {
        let mut services = self.services.borrow_mut();
        if let Some(service) = services.get(name) {
            if service.is_current(live) {
                return Some(service.clone());
            }
            if service.update(live, name) {
                return Some(service.clone());
            }
            services.remove(name);
            return None;
        }
        let service = Rc::new(Service::new(live, name, &mut rng.borrow_mut())?);
        services.insert(name.clone(), service.clone());
        Some(service)
    }

    /// Takes an idle connection to a target. `certain` spends a system call on whether it is still open: for requests that
    /// may not be sent twice.
    pub(crate) fn take(&self, target: &Target, certain: bool) -> Option<UpstreamConnection> {
        let mut pool = self.pool.borrow_mut();
        loop {
            let connection = pool.take(target)?;
            if !certain || connection.is_open() {
                return Some(connection);
            }
        }
    }

    /// Forgets what is no longer used. Called now and then.
    pub(crate) fn keep_house(&self, now: Millis, live: &Live) {
        self.pool.borrow_mut().sweep(now, &live.prepared.pool);
        self.ways.keep_house();
        self.services.borrow_mut().retain(|name, service| {
            service.is_current(live) || live.snapshot.backend(name).is_some() || Rc::strong_count(service) > 1
        });
    }
}
