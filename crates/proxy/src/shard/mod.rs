//! What one worker thread owns and its tasks share: clock, timers, memory, counters, pools, admission, random numbers, and the
//! current snapshot. It doesn't depend on listeners, connections or messages, which build on it.

mod admission;
mod client_count;
pub(crate) mod connect;
mod place;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hint::cold_path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use fairway_model::{Template, TraceContext};
use tokio::sync::Notify;

pub(crate) use self::admission::{Admission, while_admitted};
pub(crate) use self::client_count::ClientCounts;
use self::place::Places;
use crate::access_log::{Format, LogClock, LogHandle, LogWriter, StreamRecord};
use crate::auth_cache::AuthAnswers;
use crate::encode::Encoders;
use crate::http2::{Blocks, Http2Pool};
use crate::ledger::ClientLedger;
use crate::limit::SPAN_NAME;
use crate::live::{InForce, Live};
use crate::metrics::{LiveRoutes, MetricOptions, WorkerMetrics, WorkerReport};
use crate::password::Passwords;
use crate::random::Rng;
use crate::record::RequestRecord;
use crate::remark::Remarks;
use crate::respond::DateClock;
use crate::span::{SpanBuffer, SpanRules, Spans};
use crate::spool::Spools;
use crate::timer::{Beat, Timers};
use crate::unreachable::{Failing, UnreachableSink};
use crate::upstream::{Copies, HealthBoard, Upstreams};
use crate::work::Store;

/// What all workers of the process have in common; nothing in it is written by a request on a route without limits.
#[derive(Debug)]
pub(crate) struct Common {
    /// Maximum number of client connections per worker.
    pub(crate) connections: usize,
    /// Connections of each client, if there is a limit.
    pub(crate) clients: ClientCounts,
    /// What clients have used of the limits of routes.
    pub(crate) ledger: Arc<ClientLedger>,
    /// Maximum number of UDP sessions per worker.
    pub(crate) datagram_sessions: usize,
    /// Numbers the connections; written once per connection.
    pub(crate) numbers: AtomicU64,
    /// The access log, if there is one.
    pub(crate) log: Option<LogHandle>,
    /// Spans that wait to be sent.
    pub(crate) spans: Arc<Spans>,
    /// What is counted, and with which labels.
    pub(crate) metrics: Arc<MetricOptions>,
    /// Files for bodies of requests, if there is a directory for them.
    pub(crate) spools: Option<Arc<Spools>>,
    /// What responses have revealed; written at most once per backend.
    pub(crate) remarks: Remarks,
    /// The health of endpoints; written by failed tries.
    pub(crate) health: Arc<HealthBoard>,
    /// Gets reports of backends that can't be reached.
    pub(crate) unreachable: UnreachableSink,
}

/// How far the shutdown of a worker has come. Each stage includes those before it.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum ShardStage {
    /// Connections are accepted and kept.
    Serving,
    /// Connections end with their next response.
    Leaving,
    /// Connections end as soon as they are idle.
    Draining,
    /// Requests end at once.
    Stopping,
}

/// The state of one worker, shared by its tasks.
#[derive(Debug)]
pub(crate) struct Shard {
    /// What all workers have in common.
    pub(crate) common: Arc<Common>,
    /// The clock and the deadlines.
    pub(crate) timers: Rc<Timers>,
    /// Memory for requests.
    pub(crate) store: Store,
    /// Bytes that it holds of bodies that are read before their requests are sent.
    pub(crate) ahead: Cell<usize>,
    /// Memory that it holds for responses that are read ahead of their clients.
    pub(crate) buffered: Cell<usize>,
    /// Copies of requests under way.
    pub(crate) copies: Cell<Copies>,
    /// Memory for data on its way to clients over HTTP/2.
    pub(crate) blocks: Rc<Blocks>,
    /// Connections to endpoints over HTTP/1, and how endpoints are chosen.
    pub(crate) upstreams: Upstreams,
    /// Connections to endpoints over HTTP/2.
    pub(crate) http2: Rc<Http2Pool>,
    /// Encoders of compressed bodies.
    pub(crate) encoders: Rc<Encoders>,
    /// Answers of authentication services.
    pub(crate) auth_answers: AuthAnswers,
    /// Passwords of basic authentication.
    pub(crate) passwords: Passwords,
    /// The value of Date.
    pub(crate) clock: DateClock,
    /// The access log, if there is one.
    log: Option<LogWriter>,
    /// This worker's spans.
    spans: Arc<SpanBuffer>,
    /// The counters.
    pub(crate) metrics: RefCell<WorkerMetrics>,
    /// Endpoints that can't be connected to.
    failing: RefCell<Failing>,
    /// The time for templates.
    pub(crate) log_clock: RefCell<LogClock>,
    /// Compiled templates of policies that have variables, by their text. Cleared on every change, so that there are no more than
    /// one configuration has.
    formats: RefCell<HashMap<Box<str>, Rc<Format>, foldhash::fast::RandomState>>,
    /// Random numbers.
    pub(crate) rng: RefCell<Rng>,
    running: RefCell<Rc<InForce>>,
    connections: Cell<usize>,
    /// Signalled when a connection or UDP sessions end.
    ended: Notify,
    stage: Cell<ShardStage>,
    /// Decides which connections make room when others wait for their places or files.
    places: RefCell<Places>,
}

impl Shard {
    /// Creates a shard that serves a snapshot.
    pub(crate) fn new(common: Arc<Common>, live: Arc<Live>) -> Rc<Self> {
        let timers = Timers::new();
        Rc::new(Self {
            log: common.log.as_ref().map(LogHandle::writer),
            spans: common.spans.buffer(),
            metrics: RefCell::new(WorkerMetrics::new(common.metrics.clone())),
            failing: RefCell::new(Failing::new(common.unreachable.clone())),
            log_clock: RefCell::new(LogClock::new()),
            upstreams: Upstreams::new(common.health.clone()),
            common,
            store: Store::default(),
            ahead: Cell::new(0),
            buffered: Cell::new(0),
            copies: Cell::default(),
            encoders: Rc::default(),
            blocks: Rc::default(),
            http2: Rc::default(),
            auth_answers: AuthAnswers::default(),
            passwords: Passwords::default(),
            clock: DateClock::new(timers.clone()),
            timers,
            formats: RefCell::default(),
            rng: RefCell::new(Rng::from_os()),
            running: RefCell::new(Rc::new(InForce(live))),
            connections: Cell::new(0),
            ended: Notify::new(),
            stage: Cell::new(ShardStage::Serving),
            places: RefCell::default(),
        })
    }

    /// The current snapshot. A request keeps the one it got until it ends, except for the endpoints, see [`Upstreams::service`].
    pub(crate) fn running(&self) -> Rc<InForce> {
        self.running.borrow().clone()
    }

    /// Makes new requests use this snapshot.
    pub(crate) fn publish(&self, live: Arc<Live>) {
        *self.running.borrow_mut() = Rc::new(InForce(live));
        self.metrics.borrow_mut().snapshot_changed();
        self.formats.borrow_mut().clear();
    }

    /// Number of client connections.
    pub(crate) fn connections(&self) -> usize {
        self.connections.get()
    }

    /// Number of requests in progress.
    pub(crate) fn under_way(&self) -> u64 {
        self.metrics.borrow().connections.writing
    }

    /// Makes connections end with their next response.
    pub(crate) fn leave(&self) {
        self.reach(ShardStage::Leaving);
    }

    /// Makes connections end as soon as they are idle.
    pub(crate) fn drain(&self) {
        self.reach(ShardStage::Draining);
        self.upstreams.pool.borrow_mut().clear();
        self.http2.clear();
        self.timers.wake_all();
    }

    /// Ends requests at once.
    pub(crate) fn stop(&self) {
        self.reach(ShardStage::Stopping);
        self.timers.wake_all();
    }

    fn reach(&self, stage: ShardStage) {
        self.stage.set(self.stage.get().max(stage));
    }

    /// Whether connections must end with their next response.
    pub(crate) fn is_leaving(&self) -> bool {
        self.stage.get() >= ShardStage::Leaving
    }

    /// Whether connections must end as soon as they are idle.
    pub(crate) fn is_draining(&self) -> bool {
        self.stage.get() >= ShardStage::Draining
    }

    /// Whether requests must end at once.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stage.get() >= ShardStage::Stopping
    }

    /// The compiled form of a policy's template.
    pub(crate) fn format(&self, template: &Template) -> Rc<Format> {
        let mut formats = self.formats.borrow_mut();
        if let Some(format) = formats.get(template.text()) {
            return format.clone();
        }
        let format = Rc::new(Format::plain(template));
        formats.insert(template.text().into(), format.clone());
        format
    }

    /// The number of a new connection.
    pub(crate) fn next_number(&self) -> u64 {
        self.common.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Records a request that has ended.
    pub(crate) fn observe(&self, live: &Live, record: &RequestRecord<'_>) {
        let mut metrics = self.metrics.borrow_mut();
        metrics.record(record);
        if live.version < self.running.borrow().version {
            cold_path();
            // What is cached about an outgoing snapshot would be wrong for the one that takes its place in memory.
            metrics.snapshot_changed();
        }
        drop(metrics);
        if Failing::concerns(record) {
            cold_path();
            self.failing.borrow_mut().note(&self.running(), record, Instant::now());
        }
        if let Some(context) = record.trace {
            cold_path();
            self.record_span(live, context, record);
        }
        if let Some(log) = &self.log
            && live.prepared.log.admits(record)
        {
            // Escaping turns one byte into up to four.
            log.log(live.prepared.log.format(), record, 4 * live.prepared.request.total);
        }
    }

    /// Keeps the span of a request, if it is sampled and has a receiver.
    fn record_span(&self, live: &Live, context: &TraceContext, record: &RequestRecord<'_>) {
        let tracing = &live.snapshot.settings().tracing;
        let rule = record.route.and_then(|route| route.tracing.as_ref());
        let policy = rule.and_then(|rule| rule.telemetry.as_ref());
        let telemetry = policy.and_then(|policy| live.snapshot.telemetry(policy));
        let is_received = match (policy, telemetry) {
            (None, _) => tracing.collector.is_some(),
            (Some(_), telemetry) => telemetry.is_some_and(|telemetry| telemetry.receiver.is_some()),
        };
        if !context.sampled || !is_received {
            return;
        }
        let mut name = Vec::new();
        match (telemetry.and_then(|it| it.span.as_deref()), rule.and_then(|rule| rule.operation.as_ref())) {
            (Some(span), _) => name.extend_from_slice(span.as_bytes()),
            (None, Some(operation)) => {
                // What doesn't fit is left out.
                let _ = self.format(operation).append(record, &mut self.log_clock.borrow_mut(), SPAN_NAME, &mut name);
            }
            (None, None) => name.extend_from_slice(record.route.map_or(b"", |route| route.rule.as_bytes())),
        }
        let receivers = live.snapshot.telemetries().len() + 1;
        let rules = SpanRules { tracing, telemetry: telemetry.map(|telemetry| &**telemetry), receivers };
        self.common.spans.record(&self.spans, rules, context, record, &name);
    }

    /// Writes a line about a stream that has ended.
    pub(crate) fn log_stream(&self, record: &StreamRecord) {
        if let Some(log) = &self.log {
            let running = self.running.borrow();
            if let Some(format) = &running.prepared.stream_log {
                log.line(|clock, out| format.append(record, clock, out));
            }
        }
    }

    /// The counts so far.
    pub(crate) fn report(&self, version: u64, live: &LiveRoutes) -> WorkerReport {
        let mut metrics = self.metrics.borrow_mut();
        metrics.upstream.idle = (self.upstreams.pool.borrow().len() + self.http2.idle()) as u64;
        metrics.report(version, live)
    }

    /// Starts the clock and the deadlines, and writes log lines that would otherwise wait for a full buffer.
    pub(crate) fn start(self: &Rc<Self>, beat: Beat) {
        let this = self.clone();
        tokio::task::spawn_local(async move {
            let Err(error) = this.timers.run(beat, || this.keep_house()).await;
            tracing::error!(%error, "the clock of a worker has stopped");
        });
        if let Some(log) = self.log.clone() {
            tokio::task::spawn_local(log.run(self.timers.clone()));
        }
    }

    /// Releases unused state; returns whether more will have to be released later.
    fn keep_house(&self) -> bool {
        let running = self.running();
        self.upstreams.keep_house(self.timers.now(), &running);
        self.upstreams.pool.borrow().len() > 0
    }
}
