//! The counters of one worker.

use std::collections::HashMap;
use std::sync::Arc;

use fairway_model::ListenerName;
use hashbrown::HashTable;

use super::label::{LiveIngresses, RequestLabels};
use super::{Buckets, MetricOptions};
use crate::http1::Method;
use crate::record::RequestRecord;

/// Routes that one worker tells apart; requests of further ones count under empty labels. At a hundred times what large
/// installations have, it only bounds what a flood of short-lived Ingresses can make a worker remember between two scrapes.
const MOST_ROUTES: usize = 200_000;

/// Pairs of method and status of a route; further ones count by status class. Only an endpoint that answers with invented
/// statuses gets there.
const MOST_PAIRS: usize = 64;

/// The histograms of a series, in the order in which they are stored.
pub(super) const TIMES: [&str; 4] =
    ["request_duration_seconds", "response_duration_seconds", "header_duration_seconds", "connect_duration_seconds"];
pub(super) const LENGTHS: [&str; 2] = ["request_size", "response_size"];
pub(super) const SIZES: [&str; 1] = ["bytes_sent"];
const HISTOGRAMS: usize = TIMES.len() + LENGTHS.len() + SIZES.len();

/// Counts what one worker does. Not shared: the worker that owns it reports when it is asked.
#[derive(Debug)]
pub struct WorkerMetrics {
    options: Arc<MetricOptions>,
    shape: Shape,
    /// Series by the addresses of host, route and backend, for the snapshot that is in use.
    known: HashTable<(Place, u32)>,
    by_labels: HashMap<Arc<RequestLabels>, u32>,
    routes: Vec<RouteSeries>,
    hasher: foldhash::fast::RandomState,
    /// Connections of clients.
    pub connections: ConnectionCounts,
    /// Connections to endpoints.
    pub upstream: UpstreamCounts,
}

/// Identifies a route by where it is in memory: nothing else is there while a request holds its snapshot.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
struct Place {
    host: usize,
    route: usize,
    backend: usize,
}

/// All series of a route.
#[derive(Clone, Debug)]
pub(super) struct RouteSeries {
    pub(super) labels: Arc<RequestLabels>,
    pub(super) slots: Vec<Slot>,
}

/// The numbers of one pair of method and status.
#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) pair: Pair,
    pub(super) requests: u64,
    /// Counts by bucket, all histograms one behind the other.
    pub(super) buckets: Box<[u64]>,
    pub(super) sums: [f64; HISTOGRAMS],
}

/// Method and status as labels.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub(super) struct Pair {
    pub(super) method: &'static str,
    pub(super) status: StatusLabel,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd)]
pub(super) enum StatusLabel {
    Code(u16),
    Class(u16),
}

/// Where the histograms lie in [`Slot::buckets`].
#[derive(Clone, Debug)]
pub(super) struct Shape {
    pub(super) histograms: [(Buckets, usize); HISTOGRAMS],
    len: usize,
}

/// Connections of clients.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ConnectionCounts {
    /// Accepted so far.
    pub accepted: u64,
    /// Of these, served. All are: what is over a limit is not accepted.
    pub handled: u64,
    /// Requests so far, also those that could not be read.
    pub requests: u64,
    /// Connections that a request head is read from.
    pub reading: u64,
    /// Connections with a request that is being answered.
    pub writing: u64,
    /// Idle connections.
    pub waiting: u64,
    /// Connections of TCP services.
    pub passing: u64,
}

/// What a client's connection is doing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    /// A request head is read.
    Reading,
    /// A request is answered.
    Writing,
    /// Nothing.
    Waiting,
    /// Bytes pass as they are: a TCP service.
    Passing,
}

/// Connections to endpoints.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct UpstreamCounts {
    /// Connections made so far.
    pub connected: u64,
    /// Requests sent on a kept connection.
    pub reused: u64,
    /// Attempts to connect that failed.
    pub failed: u64,
    /// Connections kept idle now.
    pub idle: u64,
}

/// What passed through the port of a TCP or UDP service.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct StreamCounts {
    /// Connections or sessions of datagrams so far.
    pub opened: u64,
    /// Those that there are now.
    pub active: u64,
    /// Those so far that reached no endpoint, or did not say who they are.
    pub failed: u64,
    /// Bytes from clients.
    pub received: u64,
    /// Bytes to clients.
    pub sent: u64,
}

impl StreamCounts {
    pub(super) fn add(&mut self, other: &Self) {
        self.opened += other.opened;
        self.active += other.active;
        self.failed += other.failed;
        self.received += other.received;
        self.sent += other.sent;
    }
}

/// What a worker has counted so far.
#[derive(Clone, Debug)]
pub struct WorkerReport {
    /// By the names of listeners, with the protocol of each.
    pub(crate) streams: Vec<(ListenerName, &'static str, StreamCounts)>,
    pub(super) routes: Vec<RouteSeries>,
    pub(super) connections: ConnectionCounts,
    pub(super) upstream: UpstreamCounts,
}

impl WorkerMetrics {
    /// Counters at zero.
    pub fn new(options: Arc<MetricOptions>) -> Self {
        Self {
            shape: Shape::new(&options),
            options,
            known: HashTable::new(),
            by_labels: HashMap::new(),
            routes: Vec::new(),
            hasher: foldhash::fast::RandomState::default(),
            connections: ConnectionCounts::default(),
            upstream: UpstreamCounts::default(),
        }
    }

    /// Has to be called whenever the worker takes a new snapshot, before a request is counted that uses it: other routes may
    /// now be where old ones were.
    pub fn snapshot_changed(&mut self) {
        self.known.clear();
    }

    /// Counts a request that is over.
    pub fn record(&mut self, record: &RequestRecord<'_>) {
        let Some(route) = self.route(record) else {
            return;
        };
        let class = self.options.status_classes;
        let slot = self.routes[route as usize].slot(Pair::of(record, class), &self.shape);
        let shape = &self.shape;
        slot.requests += 1;
        slot.observe(shape, 0, record.duration.as_secs_f64());
        // Requests with several tries have no single time; ingress-nginx drops them here too.
        if let [only] = record.tries {
            slot.observe(shape, 1, only.response.as_secs_f64());
            if let Some(header) = only.header {
                slot.observe(shape, 2, header.as_secs_f64());
            }
            if let Some(connect) = only.connect {
                slot.observe(shape, 3, connect.as_secs_f64());
            }
        }
        slot.observe(shape, 4, record.received as f64);
        slot.observe(shape, 5, record.sent as f64);
        slot.observe(shape, 6, record.sent as f64);
    }

    /// What was counted so far. Series of Ingresses that are gone are forgotten.
    pub fn report(&mut self, live: &LiveIngresses) -> WorkerReport {
        if !self.routes.iter().all(|route| live.keeps(&route.labels)) {
            self.routes.retain(|route| live.keeps(&route.labels));
            self.by_labels = (0..).zip(&self.routes).map(|(at, route)| (route.labels.clone(), at)).collect();
            self.known.clear();
        }
        WorkerReport {
            streams: Vec::new(),
            routes: self.routes.clone(),
            connections: self.connections,
            upstream: self.upstream,
        }
    }

    fn route(&mut self, record: &RequestRecord<'_>) -> Option<u32> {
        let place = Place::of(record);
        let hash = std::hash::BuildHasher::hash_one(&self.hasher, place);
        if let Some((_, at)) = self.known.find(hash, |(other, _)| *other == place) {
            return Some(*at);
        }
        let labels = RequestLabels::of(record, self.options.per_host, self.options.undefined_hosts)?;
        let at = self.by_labels(labels);
        let hasher = &self.hasher;
        self.known.insert_unique(hash, (place, at), |(place, _)| std::hash::BuildHasher::hash_one(hasher, place));
        Some(at)
    }

    fn by_labels(&mut self, labels: RequestLabels) -> u32 {
        if let Some(&at) = self.by_labels.get(&labels) {
            return at;
        }
        let labels = if self.routes.len() < MOST_ROUTES { labels } else { RequestLabels::default() };
        let labels = Arc::new(labels);
        *self.by_labels.entry(labels.clone()).or_insert_with(|| {
            self.routes.push(RouteSeries { labels, slots: Vec::new() });
            u32::try_from(self.routes.len() - 1).unwrap_or(u32::MAX)
        })
    }
}

impl Place {
    fn of(record: &RequestRecord<'_>) -> Self {
        fn address<T>(value: Option<&T>) -> usize {
            value.map_or(0, |value| std::ptr::from_ref(value).addr())
        }
        Self { host: address(record.host), route: address(record.route), backend: address(record.backend) }
    }
}

impl RouteSeries {
    fn slot(&mut self, pair: Pair, shape: &Shape) -> &mut Slot {
        let at = match self.slots.iter().position(|slot| slot.pair == pair) {
            Some(at) => at,
            None if self.slots.len() >= MOST_PAIRS => {
                let pair = pair.coarse();
                self.slots.iter().position(|slot| slot.pair == pair).unwrap_or_else(|| self.push(pair, shape))
            }
            None => self.push(pair, shape),
        };
        &mut self.slots[at]
    }

    fn push(&mut self, pair: Pair, shape: &Shape) -> usize {
        self.slots.push(Slot::new(pair, shape));
        self.slots.len() - 1
    }
}

impl Slot {
    pub(super) fn new(pair: Pair, shape: &Shape) -> Self {
        Self { pair, requests: 0, buckets: vec![0; shape.len].into(), sums: [0.0; HISTOGRAMS] }
    }

    fn observe(&mut self, shape: &Shape, histogram: usize, value: f64) {
        let (buckets, start) = &shape.histograms[histogram];
        self.buckets[start + buckets.of(value)] += 1;
        self.sums[histogram] += value;
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.buckets.iter_mut().zip(&other.buckets).for_each(|(mine, theirs)| *mine += theirs);
        self.sums.iter_mut().zip(&other.sums).for_each(|(mine, theirs)| *mine += theirs);
    }
}

impl Pair {
    fn of(record: &RequestRecord<'_>, class: bool) -> Self {
        let method = record.head.map_or("OTHER", |head| match head.parsed.method() {
            Method::Get => "GET",
            Method::Head => "HEAD",
            Method::Post => "POST",
            Method::Put => "PUT",
            Method::Delete => "DELETE",
            Method::Options => "OPTIONS",
            Method::Patch => "PATCH",
            Method::Other => "OTHER",
        });
        let pair = Self { method, status: StatusLabel::Code(record.status) };
        if class { Self { status: pair.status.class(), ..pair } } else { pair }
    }

    fn coarse(self) -> Self {
        Self { method: "OTHER", status: self.status.class() }
    }
}

impl StatusLabel {
    fn class(self) -> Self {
        match self {
            Self::Code(status) => Self::Class(status / 100),
            Self::Class(class) => Self::Class(class),
        }
    }
}

impl std::fmt::Display for StatusLabel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(status) => write!(f, "{status}"),
            Self::Class(class) => write!(f, "{class}xx"),
        }
    }
}

impl Shape {
    pub(super) fn new(options: &MetricOptions) -> Self {
        let mut len = 0;
        let mut place = |buckets: &Buckets| {
            let start = len;
            len += buckets.count();
            (buckets.clone(), start)
        };
        let (times, lengths, sizes) = (&options.time_buckets, &options.length_buckets, &options.size_buckets);
        let histograms = [times, times, times, times, lengths, lengths, sizes].map(&mut place);
        Self { histograms, len }
    }
}

impl ConnectionCounts {
    /// A connection was accepted and is served.
    pub fn opened(&mut self) {
        self.accepted += 1;
        self.handled += 1;
        self.reading += 1;
    }

    /// A connection does something else now.
    pub fn changed(&mut self, from: Phase, to: Phase) {
        *self.of(from) = self.of(from).saturating_sub(1);
        *self.of(to) += 1;
        if to == Phase::Writing {
            self.requests += 1;
        }
    }

    /// A connection is over.
    pub fn closed(&mut self, from: Phase) {
        *self.of(from) = self.of(from).saturating_sub(1);
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.handled += other.handled;
        self.requests += other.requests;
        self.reading += other.reading;
        self.writing += other.writing;
        self.waiting += other.waiting;
        self.passing += other.passing;
    }

    fn of(&mut self, phase: Phase) -> &mut u64 {
        match phase {
            Phase::Reading => &mut self.reading,
            Phase::Writing => &mut self.writing,
            Phase::Waiting => &mut self.waiting,
            Phase::Passing => &mut self.passing,
        }
    }
}

impl UpstreamCounts {
    pub(super) fn add(&mut self, other: &Self) {
        self.connected += other.connected;
        self.reused += other.reused;
        self.failed += other.failed;
        self.idle += other.idle;
    }
}
