//! Calls the decision about a request with what this worker knows.

use fairway_model::decision::{self, Facts, Plan, Received, Scratch, Start};
use fairway_model::{BackendName, TableName};

use crate::http::RequestHead;
use crate::http::Spanned;
use crate::live::Live;
use crate::shard::Shard;
use fairway_model::client::Arrival;

/// What a worker knows beyond its snapshot.
struct WorkerFacts<'a> {
    shard: &'a Shard,
    live: &'a Live,
}

impl Facts for WorkerFacts<'_> {
    fn is_open(&mut self, backend: &BackendName) -> bool {
        let service = self.shard.upstreams.service(self.live, backend, &self.shard.rng);
        service.is_some_and(|service| service.is_open())
    }

    fn random(&mut self) -> u64 {
        self.shard.rng.borrow_mut().bits()
    }
}

/// Decides about a request to one of the hosts in `table`.
pub(crate) fn decide<'l>(
    shard: &Shard,
    live: &'l Live,
    head: Spanned<'_, RequestHead>,
    arrival: &Arrival,
    table: &TableName,
    scratch: &mut Scratch,
) -> Plan<'l> {
    let received = Received { head: head.parsed.view(head.bytes), arrival, table };
    decision::decide(&live.snapshot, &received, &mut WorkerFacts { shard, live }, Start::Head, scratch)
}
