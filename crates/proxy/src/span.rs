//! Spans of requests, over OTLP. A worker encodes a sampled span when its request has ended, into a buffer of its own; one thread empties
//! the buffers from time to time and sends the spans to the collector of the settings and to the receivers of Gateways. Requests never
//! wait: what doesn't fit is dropped and counted. Each receiver has a share of the room and one message under way at a time, so one that
//! does not answer costs the others nothing.

mod encode;
mod export;

use std::collections::{HashMap, HashSet};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fairway_model::{Collector, Telemetry, TelemetryName, TraceContext, Tracing};
use tokio::runtime::Builder;
use tokio::sync::Notify;
use tokio::task::{self, JoinSet};
use tokio::time::{Instant, sleep_until};

pub(crate) use self::export::{NoDestination, SpanDestination, SpanPlace, SpanTls};

use self::export::ExportError;
use crate::limit::{SPAN_BATCH, SPAN_BYTES, SPAN_MESSAGE, SPAN_QUEUE, SPAN_RECEIVERS};
use crate::record::RequestRecord;

/// Pause before the thread starts again.
// No limit: a pause.
const AGAIN: Duration = Duration::from_secs(1);

/// The receiver of spans: the one that a policy names, or `None` for the collector of the settings.
type Receiver = Option<TelemetryName>;

/// Finds the receiver of a policy.
type Directory = Box<dyn Fn(&TelemetryName) -> Result<SpanDestination, NoDestination> + Send + Sync>;

/// The spans of all workers, and where they go.
pub(crate) struct Spans {
    tracing: Mutex<Arc<Tracing>>,
    directory: OnceLock<Directory>,
    workers: usize,
    buffers: Mutex<Vec<Arc<SpanBuffer>>>,
    exporter: OnceLock<SpanThread>,
    /// Whether there is something to send, or to stop for.
    called: Notify,
    stopping: AtomicBool,
    sent: AtomicU64,
    dropped: AtomicU64,
}

/// The thread that sends.
#[derive(Debug)]
struct SpanThread {
    /// Closed when the thread ends.
    ended: Mutex<mpsc::Receiver<()>>,
}

/// The spans of one worker that wait to be sent. Only that worker and, from time to time, the sending thread lock it.
#[derive(Debug, Default)]
pub(crate) struct SpanBuffer(Mutex<WaitingSpans>);

#[derive(Debug, Default)]
struct WaitingSpans {
    /// Those of each receiver.
    shares: Vec<(Receiver, EncodedSpans)>,
    dropped: u64,
}

#[derive(Debug, Default)]
struct EncodedSpans {
    /// Encoded spans, one after the other.
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
}

/// The rules by which a span is recorded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SpanRules<'a> {
    pub(crate) tracing: &'a Tracing,
    /// The policy that applies in place of the settings, if there is one.
    pub(crate) telemetry: Option<&'a Telemetry>,
    /// How many receivers share the room.
    pub(crate) receivers: usize,
}

/// What the thread has under way.
#[derive(Debug, Default)]
struct SpanTasks {
    tasks: JoinSet<Result<(), ExportError>>,
    /// Whose spans each sends.
    busy: HashMap<task::Id, Receiver>,
    /// Receivers that did not take the last spans.
    failing: HashSet<Receiver>,
}

impl std::fmt::Debug for Spans {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Spans").field("workers", &self.workers).finish_non_exhaustive()
    }
}

impl Spans {
    /// Room for the spans of these workers. There is no thread until there is a receiver.
    pub(crate) fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self {
            tracing: Mutex::default(),
            directory: OnceLock::new(),
            workers: workers.max(1),
            buffers: Mutex::default(),
            exporter: OnceLock::new(),
            called: Notify::new(),
            stopping: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        })
    }

    /// Sets how the receivers of policies are found. Call it once.
    pub(crate) fn find_receivers(&self, directory: Directory) {
        let _ = self.directory.set(directory);
    }

    /// A buffer for a worker.
    pub(crate) fn buffer(&self) -> Arc<SpanBuffer> {
        let buffer = Arc::default();
        locked(&self.buffers).push(Arc::clone(&buffer));
        buffer
    }

    /// Applies settings. `policies` says whether policies trace requests.
    pub(crate) fn configure(self: &Arc<Self>, tracing: &Tracing, policies: bool) {
        *locked(&self.tracing) = Arc::new(tracing.clone());
        if (policies || tracing.collector.is_some()) && self.exporter.get().is_none() {
            self.start();
        }
        self.called.notify_one();
    }

    fn start(self: &Arc<Self>) {
        let (alive, ended) = mpsc::channel::<()>();
        let this = self.clone();
        let run = move || {
            let _alive = alive;
            // Without this thread all spans would be lost until the process ends.
            loop {
                match catch_unwind(AssertUnwindSafe(|| this.run())) {
                    Ok(Ok(())) => return,
                    Ok(Err(error)) => {
                        tracing::error!(%error, "the thread for spans has no event loop, and starts again");
                    }
                    Err(_) => tracing::error!("the thread for spans failed, and starts again"),
                }
                if this.stopping.load(Ordering::Acquire) {
                    return;
                }
                thread::sleep(AGAIN);
            }
        };
        match thread::Builder::new().name("spans".into()).spawn(run) {
            Ok(_) => {
                // Changes of the configuration are applied one at a time, so there is no other thread.
                let _ = self.exporter.set(SpanThread { ended: Mutex::new(ended) });
            }
            Err(error) => tracing::error!(%error, "no thread for spans can be started"),
        }
    }

    /// Spans sent, and spans that were dropped or could not be sent.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let waiting: u64 = locked(&self.buffers).iter().map(|buffer| locked(&buffer.0).dropped).sum();
        (self.sent.load(Ordering::Relaxed), self.dropped.load(Ordering::Relaxed) + waiting)
    }

    /// Sends what is left, for `limit` at most. Blocks.
    pub(crate) fn stop(&self, limit: Duration) {
        self.stopping.store(true, Ordering::Release);
        self.called.notify_one();
        if let Some(exporter) = self.exporter.get() {
            let _ = locked(&exporter.ended).recv_timeout(limit);
        }
    }

    /// Encodes a span into a worker's buffer, and calls for the thread when there are enough for a batch.
    pub(crate) fn record(
        &self,
        buffer: &SpanBuffer,
        rules: SpanRules<'_>,
        context: &TraceContext,
        record: &RequestRecord<'_>,
        name: &[u8],
    ) {
        let SpanRules { tracing, telemetry, receivers } = rules;
        let most = (tracing.queue as usize).clamp(1, SPAN_QUEUE).div_ceil(self.workers);
        let mut pending = locked(&buffer.0);
        let WaitingSpans { shares, dropped } = &mut *pending;
        let own = shares.iter().position(|(receiver, _)| receiver.as_ref() == telemetry.map(|one| &one.name));
        let at = match own {
            Some(at) => at,
            None if shares.len() >= SPAN_RECEIVERS => {
                *dropped += 1;
                return;
            }
            None => {
                shares.push((telemetry.map(|one| one.name.clone()), EncodedSpans::default()));
                shares.len() - 1
            }
        };
        let (_, share) = &mut shares[at];
        if share.ends.len() >= most {
            *dropped += 1;
            return;
        }
        let (end, start) = (SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(), share.bytes.len());
        encode::span(context, record, encode::Told { name, telemetry }, end, &mut share.bytes);
        let end = share.bytes.len();
        if end > SPAN_BYTES / self.workers / receivers.clamp(1, SPAN_RECEIVERS) {
            share.bytes.truncate(start);
            *dropped += 1;
            return;
        }
        share.ends.push(end);
        let full = share.ends.len() == batch(tracing).div_ceil(self.workers).min(most);
        drop(pending);
        if full {
            self.called.notify_one();
        }
    }

    /// The thread's work, until the process ends.
    ///
    /// # Errors
    /// If no event loop can be created.
    fn run(self: &Arc<Self>) -> io::Result<()> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(self.export());
        // This does not wait for a name that is being resolved.
        runtime.shutdown_background();
        Ok(())
    }

    async fn export(self: &Arc<Self>) {
        let mut sending = SpanTasks::default();
        // Whether it was called for while a receiver was busy.
        let mut missed = false;
        loop {
            let tracing = locked(&self.tracing).clone();
            let stopping = self.stopping.load(Ordering::Acquire);
            self.begin(&tracing, &mut sending);
            missed &= !sending.busy.is_empty();
            if stopping && sending.busy.is_empty() {
                return;
            }
            let due = Instant::now() + tracing.delay;
            loop {
                tokio::select! {
                    Some(ended) = sending.tasks.join_next_with_id() => {
                        self.end(&mut sending, ended);
                        if stopping || missed {
                            break;
                        }
                    }
                    () = self.called.notified(), if !stopping => {
                        missed = !sending.busy.is_empty();
                        break;
                    }
                    () = sleep_until(due), if !stopping => break,
                }
            }
        }
    }

    /// Takes the spans that wait for receivers that are not busy, and begins to send them.
    fn begin(self: &Arc<Self>, tracing: &Arc<Tracing>, sending: &mut SpanTasks) {
        let mut taken: Vec<(Receiver, Vec<EncodedSpans>)> = Vec::new();
        for buffer in locked(&self.buffers).iter() {
            let mut waiting = locked(&buffer.0);
            self.dropped.fetch_add(std::mem::take(&mut waiting.dropped), Ordering::Relaxed);
            let is_busy = |(receiver, _): &mut (Receiver, _)| sending.busy.values().any(|busy| busy == receiver);
            for (receiver, spans) in waiting.shares.extract_if(.., |share| !is_busy(share)) {
                match taken.iter_mut().find(|(known, _)| *known == receiver) {
                    Some((_, all)) => all.push(spans),
                    None => taken.push((receiver, vec![spans])),
                }
            }
        }
        for (receiver, spans) in taken {
            let destination = match &receiver {
                None => SpanDestination::of_collector(tracing),
                Some(name) => match self.directory.get() {
                    Some(find) => find(name).map_err(ExportError::from),
                    None => Err(NoDestination::Nobody.into()),
                },
            };
            let (this, tracing) = (self.clone(), tracing.clone());
            let send = async move { this.send(destination, batch(&tracing), spans).await };
            let id = sending.tasks.spawn(send).id();
            sending.busy.insert(id, receiver);
        }
    }

    /// Notes that spans were sent, or why they were not.
    fn end(&self, sending: &mut SpanTasks, ended: Result<(task::Id, Result<(), ExportError>), task::JoinError>) {
        let (id, result) = match ended {
            Ok((id, result)) => (id, result.map_err(|error| error.to_string())),
            Err(panicked) => (panicked.id(), Err("the task that sends them failed".to_owned())),
        };
        let Some(receiver) = sending.busy.remove(&id) else { return };
        match result {
            Ok(()) => {
                sending.failing.remove(&receiver);
            }
            // Once for all failures in a row.
            Err(error) => {
                if sending.failing.len() >= SPAN_RECEIVERS {
                    // Policies that are gone are in it too.
                    sending.failing.clear();
                }
                if !sending.failing.insert(receiver.clone()) {
                    return;
                }
                match (receiver, &locked(&self.tracing).collector) {
                    (Some(policy), _) => tracing::warn!(error, %policy, "spans cannot be sent"),
                    (None, Some(Collector { host, port, .. })) => {
                        tracing::error!(error, host = &**host, port = port.get(), "spans cannot be sent");
                    }
                    (None, None) => {}
                }
            }
        }
    }

    /// Sends the spans of all workers for one receiver, a batch at a time, and returns the result of the last batch.
    async fn send(
        &self,
        destination: Result<SpanDestination, ExportError>,
        batch: usize,
        spans: Vec<EncodedSpans>,
    ) -> Result<(), ExportError> {
        let mut result = Ok(());
        let destination = match destination {
            Ok(destination) => destination,
            Err(error) => {
                let lost: usize = spans.iter().map(|spans| spans.ends.len()).sum();
                self.dropped.fetch_add(lost as u64, Ordering::Relaxed);
                return match error {
                    // It was there when they were recorded.
                    ExportError::Nowhere(NoDestination::Nobody) => Ok(()),
                    error => Err(error),
                };
            }
        };
        for spans in &spans {
            let (mut start, mut waiting) = (0, spans.ends.as_slice());
            while !waiting.is_empty() {
                // One span is always small enough.
                let fit = waiting.partition_point(|end| end - start <= SPAN_MESSAGE).clamp(1, batch);
                let (ends, rest) = waiting.split_at(fit.min(waiting.len()));
                waiting = rest;
                let end = *ends.last().unwrap_or(&start);
                result =
                    export::send(&destination, encode::request(&destination.service, &spans.bytes[start..end])).await;
                let counter = if result.is_ok() { &self.sent } else { &self.dropped };
                counter.fetch_add(ends.len() as u64, Ordering::Relaxed);
                start = end;
            }
        }
        result
    }
}

fn batch(tracing: &Tracing) -> usize {
    (tracing.batch as usize).clamp(1, SPAN_BATCH)
}

/// Locks even after a panic in another thread: a buffer stays consistent.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::fixture::Fixture;
    use fairway_model::{Origin, TraceRule};

    fn telemetry(name: &str) -> Telemetry {
        Telemetry {
            name: name.into(),
            origin: Origin::new("XTelemetryPolicy", "shop", "a"),
            sampler: None,
            parent: None,
            service: None,
            span: None,
            attributes: Vec::new(),
            receiver: None,
        }
    }

    #[test]
    fn what_does_not_fit_is_dropped_and_counted() {
        let (spans, fixture) = (Spans::new(2), Fixture::new("GET / HTTP/1.1", ""));
        let buffer = spans.buffer();
        let tracing = Tracing { queue: 4, ..Tracing::default() };
        let record = fixture.record();
        let fields =
            record.head.map(|head| crate::http::FieldsView { fields: head.parsed.fields(), bytes: head.bytes });
        let rule = TraceRule { trusts: false, operation: None, telemetry: None };
        let context = TraceContext::begin(&rule, (&tracing, None), fields.unwrap(), || 7);
        let kept = |buffer: &SpanBuffer| -> Vec<usize> {
            locked(&buffer.0).shares.iter().map(|(_, share)| share.ends.len()).collect()
        };
        let rules = SpanRules { tracing: &tracing, telemetry: None, receivers: 1 };
        for _ in 0..5 {
            spans.record(&buffer, rules, &context, &record, b"a");
        }
        assert_eq!(kept(&buffer), [2], "half of the queue is for the other worker");
        assert_eq!(spans.counts(), (0, 3));
        // Another receiver has its own room, up to `SPAN_RECEIVERS` of them.
        for number in 1..=SPAN_RECEIVERS {
            let own = telemetry(&format!("shop/{number}"));
            spans.record(&buffer, SpanRules { telemetry: Some(&own), ..rules }, &context, &record, b"a");
        }
        assert_eq!((kept(&buffer).len(), spans.counts()), (SPAN_RECEIVERS, (0, 4)));
        // Nor are more bytes kept than there is room for.
        let (spans, name) = (Spans::new(1), vec![b'a'; 1000]);
        let (buffer, tracing) = (spans.buffer(), Tracing { queue: u32::MAX, ..Tracing::default() });
        let enough = SPAN_BYTES / 1000;
        let rules = SpanRules { tracing: &tracing, telemetry: None, receivers: 2 };
        (0..enough).for_each(|_| spans.record(&buffer, rules, &context, &record, &name));
        let (own, held) = (kept(&buffer)[0], locked(&buffer.0).shares[0].1.bytes.len());
        assert!(held <= SPAN_BYTES / 2 && own < enough / 2, "a span has more bytes than its name");
        assert_eq!(spans.counts(), (0, (enough - own) as u64));
        let other = telemetry("shop/a");
        spans.record(&buffer, SpanRules { telemetry: Some(&other), ..rules }, &context, &record, &name);
        assert_eq!(kept(&buffer), [own, 1], "the other half is for the other one");
    }
}
