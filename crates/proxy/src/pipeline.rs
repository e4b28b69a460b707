//! Calls the decision about a request with what this worker knows.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use fairway_model::decision::{self, Facts, Plan, Received, Scratch, Start};
use fairway_model::{
    BackendName, ClientAuth, ClientIdentity, ClientLimits, ErrorResponse, Excess, GeoVariable, Session, TableName,
};

use crate::http::RequestHead;
use crate::http::Spanned;
use crate::ledger::OpenRequest;
use crate::live::Live;
use crate::net::client_certificate::Asked;
use crate::shard::Shard;
use crate::upstream::Service;
use fairway_model::client::Arrival;

/// What a worker knows beyond its snapshot.
struct WorkerFacts<'a> {
    shard: &'a Shard,
    live: &'a Live,
    head: Spanned<'a, RequestHead>,
    origin: Option<Origin<'a>>,
    /// The service that was looked up last, to which most requests are then sent.
    service: Option<Rc<Service>>,
    /// Where the request counts as in progress.
    open: &'a mut Option<OpenRequest>,
}

/// Where a request came from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin<'a> {
    /// Both ends of its connection.
    pub(crate) arrival: &'a Arrival,
    /// The hosts served there.
    pub(crate) table: &'a TableName,
    /// What the client presented, if it was asked for a certificate.
    pub(crate) asked: Option<&'a Asked>,
    /// The listener that the server name selects; empty if the name belongs to none, `None` if there was no name.
    pub(crate) listener: Option<&'a str>,
}

impl Facts for WorkerFacts<'_> {
    fn is_open(&mut self, backend: &BackendName) -> bool {
        self.service = self.shard.upstreams.service(self.live, backend, &self.shard.rng);
        self.service.as_ref().is_some_and(|service| service.is_open())
    }

    fn random(&mut self) -> u64 {
        self.shard.rng.borrow_mut().bits()
    }

    fn has_session(&mut self, main: &BackendName, backend: &BackendName) -> bool {
        self.shard.upstreams.has_session(self.live, self.head, (main, backend), &self.shard.rng)
    }

    fn keeps(&mut self, session: &Session, backend: &BackendName) -> bool {
        self.shard.upstreams.keeps(self.live, self.head, (session, backend), &self.shard.rng)
    }

    fn client_identity(&mut self, wanted: Option<&Arc<ClientAuth>>) -> Option<Arc<ClientIdentity>> {
        let origin = self.origin?;
        origin.asked?.identity(&self.live.snapshot, origin.table, wanted)
    }

    fn is_for_another(&self, listener: &str) -> bool {
        self.origin.and_then(|origin| origin.listener).is_some_and(|chosen| chosen != listener)
    }

    fn geo(&self, variable: GeoVariable, client: IpAddr, out: &mut Vec<u8>) {
        if let Some(geo) = &self.live.geo {
            geo.append(variable, client, out);
        }
    }

    fn count(&mut self, limits: &ClientLimits, client: IpAddr) -> Option<Excess> {
        let ledger = &self.shard.common.ledger;
        match ledger.enter(limits, client, self.live.snapshot.settings().replicas, ledger.now()) {
            Ok(open) => {
                *self.open = open;
                None
            }
            Err(excess) => Some(excess),
        }
    }
}

/// Decides about a request to one of the hosts in `table`. Also returns the service that was looked up last, if any. `open` gets a
/// value if the request counts as in progress from now on.
pub(crate) fn decide<'l>(
    shard: &Shard,
    live: &'l Live,
    head: Spanned<'_, RequestHead>,
    origin: Origin<'_>,
    from: Start<'l>,
    scratch: &mut Scratch,
    open: &mut Option<OpenRequest>,
) -> (Plan<'l>, Option<Rc<Service>>) {
    let Origin { arrival, table, .. } = origin;
    let received = Received { head: head.parsed.view(head.bytes), arrival, table };
    let mut facts = WorkerFacts { shard, live, head, origin: Some(origin), service: None, open };
    let plan = decision::decide(&live.snapshot, &received, &mut facts, from, scratch);
    (plan, facts.service)
}

/// The plan for an error response that another service replaces; `None` if it is sent as it is.
pub(crate) fn replace_error<'l>(
    shard: &Shard,
    live: &'l Live,
    head: Spanned<'_, RequestHead>,
    plan: &Plan<'l>,
    error: ErrorResponse,
    scratch: &mut Scratch,
) -> Option<Plan<'l>> {
    let mut facts = WorkerFacts { shard, live, head, origin: None, service: None, open: &mut None };
    decision::replace_error(plan, error, &head.parsed.view(head.bytes), &mut facts, scratch)
}
