//! The counters of one worker.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::hint::cold_path;
use std::rc::Rc;
use std::sync::Arc;

use fairway_model::ListenerName;
use hashbrown::HashTable;

use super::MetricOptions;
use super::label::{ANY_HOST, LiveRoutes, RequestLabels, is_named};
use super::recent::RecentHosts;
use super::series::{Failed, Pair, Series};
use crate::limit::{METRIC_PAIRS, METRIC_ROUTES};
use crate::record::RequestRecord;

/// How many hosts are forgotten before their series are added up, which visits all series.
// No limit: a batch.
const FORGOTTEN_AT_ONCE: usize = 1000;

/// The protocol of TLS connections that are passed through.
pub(crate) const PASSED: &str = "TLS";

/// Counts the activity of one worker. Not shared: the worker that owns it makes a report on request.
#[derive(Debug)]
pub struct WorkerMetrics {
    options: Arc<MetricOptions>,
    /// Routes by the addresses of host, route and backend, for the current snapshot.
    known: HashTable<(SeriesPlace, u32)>,
    by_labels: HashMap<Arc<RequestLabels>, u32>,
    series: Series,
    /// The snapshot whose routes all series belong to, as long as their number is unchanged.
    swept: (u64, u32),
    /// Hosts that the configuration does not name.
    hosts: RecentHosts,
    hasher: foldhash::fast::RandomState,
    /// Connections of clients.
    pub connections: ConnectionCounts,
    /// Connections to endpoints.
    pub upstream: UpstreamCounts,
    /// TLS connections that are passed through, by the listener that accepted them.
    passed: BTreeMap<ListenerName, Rc<StreamTally>>,
}

/// Identifies a route by its memory address: nothing else can be there while a request holds its snapshot.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Hash)]
struct SeriesPlace {
    host: usize,
    route: usize,
    backend: usize,
    alternative: usize,
}

/// Connections of clients.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ConnectionCounts {
    /// Accepted so far.
    pub accepted: u64,
    /// Of these, served.
    pub handled: u64,
    /// TLS handshakes of these that failed.
    pub handshakes_failed: u64,
    /// Closed because their PROXY header was missing, invalid, late, or from a peer that may not send one.
    pub proxy_headers_failed: u64,
    /// Closed at once because their client had reached its limit.
    pub refused: u64,
    /// Closed before sending a complete request, to make room.
    pub shed_asking: u64,
    /// Closed while idle, to make room.
    pub shed_idle: u64,
    /// Requests so far, including unreadable ones.
    pub requests: u64,
    /// Connections on which a request head is being read.
    pub reading: u64,
    /// Connections with a request being answered.
    pub writing: u64,
    /// Idle connections.
    pub waiting: u64,
    /// Connections of TCP services, and TLS connections that are passed through.
    pub passing: u64,
}

/// What a client's connection is doing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Phase {
    /// A request head is being read.
    Reading,
    /// A request is being answered.
    Writing,
    /// Nothing.
    Waiting,
    /// Bytes are relayed: a TCP service.
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
    /// Times that an endpoint was ejected for its failures.
    pub ejected: u64,
    /// Tries that the retry budget has denied.
    pub retries_denied: u64,
    /// Copies of requests that were answered.
    pub copied: u64,
    /// Copies that were not.
    pub copies_failed: u64,
    /// Requests that were not copied, because there was no room for it.
    pub copies_dropped: u64,
    /// Idle connections.
    pub idle: u64,
}

/// Traffic that is not interpreted: through the port of a TCP or UDP service, or TLS passed through by a listener.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct StreamCounts {
    /// TCP connections or UDP sessions so far.
    pub opened: u64,
    /// Those that are open.
    pub active: u64,
    /// Those that reached no endpoint or didn't identify themselves.
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

/// The traffic of one port or listener so far, shared by its connections.
#[derive(Debug, Default)]
pub(crate) struct StreamTally(Cell<StreamCounts>);

impl StreamTally {
    /// Changes the counts.
    pub(crate) fn count(&self, change: impl FnOnce(&mut StreamCounts)) {
        let mut counts = self.0.get();
        change(&mut counts);
        self.0.set(counts);
    }

    /// The counts.
    pub(crate) fn counts(&self) -> StreamCounts {
        self.0.get()
    }
}

/// A worker's counts so far.
#[derive(Clone, Debug)]
pub struct WorkerReport {
    /// By the names of listeners, with the protocol of each.
    pub(crate) streams: Vec<(ListenerName, &'static str, StreamCounts)>,
    pub(super) series: Series,
    pub(super) connections: ConnectionCounts,
    pub(super) upstream: UpstreamCounts,
}

impl WorkerMetrics {
    /// Counters at zero.
    pub fn new(options: Arc<MetricOptions>) -> Self {
        Self {
            series: Series::new(&options),
            swept: (0, 0),
            hosts: RecentHosts::new(options.undefined_host_limit),
            options,
            known: HashTable::new(),
            by_labels: HashMap::new(),
            hasher: foldhash::fast::RandomState::default(),
            connections: ConnectionCounts::default(),
            upstream: UpstreamCounts::default(),
            passed: BTreeMap::new(),
        }
    }

    /// Must be called whenever the worker takes a new snapshot, before counting a request that uses it: other routes may now be
    /// at the same addresses.
    pub fn snapshot_changed(&mut self) {
        self.known.clear();
    }

    /// Counts a finished request.
    pub fn record(&mut self, record: &RequestRecord<'_>) {
        let route = self.route(record);
        if record.cause.is_some() || record.tries.iter().any(|one| one.reason.is_some()) {
            cold_path();
            self.fail(record);
        }
        let Some(route) = route else {
            return;
        };
        let pair = Pair::of(record, self.options.status_classes);
        let series = &mut self.series;
        let slot = series.slot(route, pair, METRIC_PAIRS);
        series.request(slot);
        series.observe(slot, 0, record.duration.as_secs_f64());
        // A request with several tries has no single time; ingress-nginx drops it here too.
        if let [only] = record.tries {
            series.observe(slot, 1, only.response.as_secs_f64());
            if let Some(header) = only.header {
                series.observe(slot, 2, header.as_secs_f64());
            }
            if let Some(connect) = only.connect {
                series.observe(slot, 3, connect.as_secs_f64());
            }
        }
        series.observe(slot, 4, record.received as f64);
        series.observe(slot, 5, record.sent as f64);
        series.observe(slot, 6, record.sent as f64);
    }

    /// The tally of TLS connections that a listener passes through.
    pub(crate) fn passed(&mut self, listener: &ListenerName) -> Rc<StreamTally> {
        if let Some(tally) = self.passed.get(listener) {
            return tally.clone();
        }
        self.passed.entry(listener.clone()).or_default().clone()
    }

    /// The counts so far. Series of removed routes are included for the last time. `version` is that of the snapshot.
    pub fn report(&mut self, version: u64, live: &LiveRoutes) -> WorkerReport {
        if self.hosts.forgotten() > 0 {
            self.sweep(|_| true);
        }
        let report = WorkerReport {
            streams: self.passed.iter().map(|(name, tally)| (name.clone(), PASSED, tally.counts())).collect(),
            series: self.series.clone(),
            connections: self.connections,
            upstream: self.upstream,
        };
        // Requests that began before the change may have ended since the last report.
        if self.swept != (version, self.series.len()) {
            if !self.series.routes().all(|(_, labels)| live.keeps(labels)) {
                self.sweep(|labels| live.keeps(labels));
            }
            self.swept = (version, self.series.len());
        }
        report
    }

    /// Removes series, and adds up those of hosts not seen for long.
    fn sweep(&mut self, keeps: impl Fn(&RequestLabels) -> bool) {
        let hosts = &self.hosts;
        self.series.regroup(|labels| {
            keeps(labels).then(|| {
                let forgotten = labels.own_host && &*labels.host != ANY_HOST && !hosts.contains(&labels.host);
                if forgotten { Arc::new(labels.of_any_host()) } else { labels.clone() }
            })
        });
        self.by_labels = self.series.routes().map(|(route, labels)| (labels.clone(), route)).collect();
        self.known.clear();
        self.hosts.swept();
    }

    /// Counts why a request or its tries failed.
    fn fail(&mut self, record: &RequestRecord<'_>) {
        let labels = RequestLabels::of_object(record);
        let route = labels.has_object().then(|| self.by_labels(labels));
        if let Some(cause) = record.cause {
            self.series.fail(route, Failed::Request, cause.reason, 1);
        }
        for reason in record.tries.iter().filter_map(|one| one.reason) {
            self.series.fail(route, Failed::Try, reason, 1);
        }
    }

    fn route(&mut self, record: &RequestRecord<'_>) -> Option<u32> {
        if self.options.per_host && !is_named(record) {
            // Not cached by its address: other hosts may use the same route.
            let labels = RequestLabels::of(record, &self.options)?;
            self.hosts.see(&labels.host);
            if self.hosts.forgotten() >= FORGOTTEN_AT_ONCE {
                self.sweep(|_| true);
            }
            return Some(self.by_labels(labels));
        }
        let place = SeriesPlace::of(record);
        let hash = std::hash::BuildHasher::hash_one(&self.hasher, place);
        if let Some((_, at)) = self.known.find(hash, |(other, _)| *other == place) {
            return Some(*at);
        }
        cold_path();
        let labels = RequestLabels::of(record, &self.options)?;
        let at = self.by_labels(labels);
        let hasher = &self.hasher;
        self.known.insert_unique(hash, (place, at), |(place, _)| std::hash::BuildHasher::hash_one(hasher, place));
        Some(at)
    }

    fn by_labels(&mut self, labels: RequestLabels) -> u32 {
        if let Some(&at) = self.by_labels.get(&labels) {
            return at;
        }
        let labels = if self.series.len() < METRIC_ROUTES { labels } else { RequestLabels::default() };
        let labels = Arc::new(labels);
        *self.by_labels.entry(labels.clone()).or_insert_with(|| self.series.push(labels))
    }
}

impl SeriesPlace {
    fn of(record: &RequestRecord<'_>) -> Self {
        fn address<T>(value: Option<&T>) -> usize {
            value.map_or(0, |value| std::ptr::from_ref(value).addr())
        }
        Self {
            host: address(record.host),
            route: address(record.route),
            backend: address(record.backend),
            alternative: address(record.alternative),
        }
    }
}

impl ConnectionCounts {
    /// Counts an accepted connection.
    pub fn opened(&mut self) {
        self.accepted += 1;
        self.handled += 1;
        self.reading += 1;
    }

    /// Moves a connection to another phase.
    pub fn changed(&mut self, from: Phase, to: Phase) {
        *self.of(from) = self.of(from).saturating_sub(1);
        *self.of(to) += 1;
        if to == Phase::Writing {
            self.requests += 1;
        }
    }

    /// Counts the end of a connection.
    pub fn closed(&mut self, from: Phase) {
        *self.of(from) = self.of(from).saturating_sub(1);
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.handled += other.handled;
        self.refused += other.refused;
        self.handshakes_failed += other.handshakes_failed;
        self.proxy_headers_failed += other.proxy_headers_failed;
        self.shed_asking += other.shed_asking;
        self.shed_idle += other.shed_idle;
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
        self.ejected += other.ejected;
        self.retries_denied += other.retries_denied;
        self.copied += other.copied;
        self.copies_failed += other.copies_failed;
        self.copies_dropped += other.copies_dropped;
        self.idle += other.idle;
    }
}
