//! The port of a TCP or UDP service in one worker, and what connections and UDP sessions have in common.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use fairway_model::{BackendName, ListenerName, StreamBackends, StreamListener, StreamRetry, StreamTarget, Transport};

use crate::access_log::StreamRecord;
use crate::balance::{Ask, Pick, TryOutcome};
use crate::metrics::{StreamCounts, StreamTally};
use crate::net::listener::{self, Gate};
use crate::shard::{Admission, Shard};
use crate::upstream::Service;

/// The port of a TCP or UDP service in one worker.
#[derive(Debug)]
pub(crate) struct OpenStream {
    resource: RefCell<Arc<StreamListener>>,
    gate: Gate,
    tally: Rc<StreamTally>,
    /// When a dropped datagram was last logged.
    dropped: Cell<Option<Instant>>,
}

impl OpenStream {
    /// Creates the port of a bound socket.
    pub(crate) fn new(resource: Arc<StreamListener>, local: SocketAddr) -> Self {
        Self {
            resource: RefCell::new(resource),
            gate: Gate::new(local),
            tally: Rc::default(),
            dropped: Cell::new(None),
        }
    }

    /// The resource.
    pub(crate) fn resource(&self) -> Arc<StreamListener> {
        self.resource.borrow().clone()
    }

    /// Replaces the resource: connections and sessions that begin from now on use the new one.
    pub(crate) fn change(&self, resource: Arc<StreamListener>) {
        *self.resource.borrow_mut() = resource;
    }

    /// Whether it receives datagrams.
    pub(crate) fn is_udp(&self) -> bool {
        self.resource.borrow().transport.is_udp()
    }

    /// Counts a connection for as long as the result lives. `None` if its client has reached its limit. Peers that name the
    /// client in a PROXY header are proxies, which act for many clients.
    pub(crate) fn admit(&self, shard: &Rc<Shard>, peer: SocketAddr) -> Option<Admission> {
        match self.resource.borrow().transport {
            Transport::Tcp { accept_proxy: true, .. } => Some(shard.admit_proxy()),
            Transport::Tcp { .. } | Transport::Udp => shard.admit(peer),
        }
    }

    /// The gate that closes it.
    pub(crate) fn gate(&self) -> &Gate {
        &self.gate
    }

    /// Its counters so far.
    pub(crate) fn report(&self) -> (ListenerName, &'static str, StreamCounts) {
        let resource = self.resource.borrow();
        (resource.name.clone(), resource.transport.as_str(), self.tally.counts())
    }

    /// Begins a connection or session of a client.
    pub(super) fn begin(&self, shard: &Rc<Shard>, client: SocketAddr, local: SocketAddr) -> StreamSession {
        StreamSession::begin(shard, &self.tally, self.resource.borrow().transport.as_str(), client, local)
    }

    /// Whether a dropped datagram is to be logged. Each is counted, but since anyone can send any number of them, only one a minute
    /// is logged.
    pub(super) fn logs_drop(&self) -> bool {
        listener::is_due(&self.dropped, Instant::now())
    }
}

/// A connection or UDP session: counted and logged exactly once, when it is dropped.
#[derive(Debug)]
pub(super) struct StreamSession {
    pub(super) shard: Rc<Shard>,
    pub(super) tally: Rc<StreamTally>,
    pub(super) record: StreamRecord,
    pub(super) logged: bool,
}

impl StreamSession {
    pub(super) fn begin(
        shard: &Rc<Shard>,
        tally: &Rc<StreamTally>,
        protocol: &'static str,
        client: SocketAddr,
        local: SocketAddr,
    ) -> Self {
        tally.count(|counts| {
            counts.opened += 1;
            counts.active += 1;
        });
        let record = StreamRecord {
            protocol,
            server_name: Box::default(),
            client,
            local,
            number: shard.next_number(),
            begun: Instant::now(),
            status: 502,
            sent: 0,
            received: 0,
            upstream_sent: 0,
            upstream_received: 0,
            tried: Vec::new(),
            connect: None,
            upstream_name: Arc::default(),
        };
        Self { shard: shard.clone(), tally: tally.clone(), record, logged: true }
    }

    /// Its target, chosen by the weight of each backend.
    pub(super) fn target<'a>(&self, backends: &'a StreamBackends) -> Option<StreamTarget<'a>> {
        backends.choose(|| self.shard.rng.borrow_mut().bits())
    }

    /// The next endpoint to try; `None` if there is none or the policy allows no more. No endpoint is tried twice.
    ///
    /// The backend is the one that the configuration named at the beginning. Its endpoints are the current ones, possibly of a newer
    /// snapshot: if the first try fails, most likely because its pod has just gone, the next one finds the replacement.
    pub(super) fn choose(&mut self, backend: &BackendName, retry: Option<&StreamRetry>) -> Option<(Rc<Service>, Pick)> {
        let tries = self.record.tried.len();
        if tries > 0 {
            let retry = retry?;
            let late = retry.within.is_some_and(|within| self.record.begun.elapsed() >= within);
            if late || retry.tries.is_some_and(|most| tries >= most as usize) {
                return None;
            }
        }
        let running = self.shard.running();
        let service = self.shard.upstreams.service(&running, backend, &self.shard.rng)?;
        if tries == 0 {
            self.record.upstream_name = service.with_backend(|backend| backend.upstream_name.clone());
        }
        // A Service's hash is meant for requests; the client's address comes closest.
        let client = match self.record.client.ip().to_canonical() {
            IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
            IpAddr::V6(v6) => v6.octets(),
        };
        let tried = &self.record.tried;
        let pick = service.pick(|_| Ask {
            session: None,
            hash_key: &client,
            tried,
            ejected: &[],
            unhealthy: &[],
            now: Instant::now(),
        })?;
        if tried.contains(&pick.endpoint) {
            return None;
        }
        self.record.tried.push(pick.endpoint);
        Some((service, pick))
    }

    /// Reports that an endpoint was reached.
    pub(super) fn reached(&mut self, service: &Service, pick: &Pick, since: Instant) {
        let took = since.elapsed();
        self.record.connect = Some(took);
        self.record.status = 200;
        service.done(pick, TryOutcome::Answered(took), Instant::now());
        self.shard.metrics.borrow_mut().upstream.connected += 1;
    }

    /// Reports that an endpoint was not reached.
    pub(super) fn failed(&self, service: &Service, pick: &Pick) {
        let ejected = service.done(pick, TryOutcome::Failed, Instant::now());
        let counts = &mut self.shard.metrics.borrow_mut().upstream;
        counts.failed += 1;
        counts.ejected += u64::from(ejected);
    }
}

impl Drop for StreamSession {
    fn drop(&mut self) {
        self.tally.count(|counts| {
            counts.active -= 1;
            counts.failed += u64::from(self.record.status != 200);
        });
        if self.logged {
            self.shard.log_stream(&self.record);
        }
    }
}
