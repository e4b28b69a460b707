//! Spans of requests, by OTLP. A worker encodes a sampled span when its request has ended, into a buffer of its own; one thread takes
//! the buffers from time to time and sends what is in them. Requests never wait: what doesn't fit is dropped and counted.

mod encode;
mod export;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, mpsc};
use std::thread::{self, Thread};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fairway_model::{Collector, TraceContext, Tracing};

use crate::limit::{SPAN_BATCH, SPAN_BYTES, SPAN_MESSAGE, SPAN_QUEUE};
use crate::record::RequestRecord;

/// Pause before the thread starts again.
// No limit: a pause.
const AGAIN: Duration = Duration::from_secs(1);

/// The spans of all workers, and where they go.
#[derive(Debug)]
pub(crate) struct Spans {
    tracing: Mutex<Arc<Tracing>>,
    workers: usize,
    buffers: Mutex<Vec<Arc<SpanBuffer>>>,
    exporter: OnceLock<SpanThread>,
    stopping: AtomicBool,
    sent: AtomicU64,
    dropped: AtomicU64,
}

/// The thread that sends.
#[derive(Debug)]
struct SpanThread {
    thread: Thread,
    /// Closed when the thread ends.
    ended: Mutex<mpsc::Receiver<()>>,
}

/// The spans of one worker that wait to be sent. Only that worker and, from time to time, the sending thread lock it.
#[derive(Debug, Default)]
pub(crate) struct SpanBuffer(Mutex<EncodedSpans>);

#[derive(Debug, Default)]
struct EncodedSpans {
    /// Encoded spans, one after the other.
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
    dropped: u64,
}

impl Spans {
    /// Room for the spans of these workers. There is no thread until a collector is set.
    pub(crate) fn new(workers: usize) -> Arc<Self> {
        Arc::new(Self {
            tracing: Mutex::default(),
            workers: workers.max(1),
            buffers: Mutex::default(),
            exporter: OnceLock::new(),
            stopping: AtomicBool::new(false),
            sent: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        })
    }

    /// A buffer for a worker.
    pub(crate) fn buffer(&self) -> Arc<SpanBuffer> {
        let buffer = Arc::default();
        locked(&self.buffers).push(Arc::clone(&buffer));
        buffer
    }

    /// Applies settings.
    pub(crate) fn configure(self: &Arc<Self>, tracing: &Tracing) {
        *locked(&self.tracing) = Arc::new(tracing.clone());
        if tracing.collector.is_some() && self.exporter.get().is_none() {
            self.start();
        }
        self.wake();
    }

    fn start(self: &Arc<Self>) {
        let (alive, ended) = mpsc::channel::<()>();
        let this = self.clone();
        let run = move || {
            let _alive = alive;
            // Without this thread all spans would be lost until the process ends.
            while catch_unwind(AssertUnwindSafe(|| this.export())).is_err() {
                tracing::error!("the thread for spans failed, and starts again");
                thread::park_timeout(AGAIN);
            }
        };
        match thread::Builder::new().name("spans".into()).spawn(run) {
            Ok(handle) => {
                let exporter = SpanThread { thread: handle.thread().clone(), ended: Mutex::new(ended) };
                // Changes of the configuration come one at a time, so that there is no other thread.
                let _ = self.exporter.set(exporter);
            }
            Err(error) => tracing::error!(%error, "no thread for spans can be started"),
        }
    }

    fn wake(&self) {
        if let Some(exporter) = self.exporter.get() {
            exporter.thread.unpark();
        }
    }

    /// Spans sent, and spans that were dropped or could not be sent.
    pub(crate) fn counts(&self) -> (u64, u64) {
        let waiting: u64 = locked(&self.buffers).iter().map(|buffer| locked(&buffer.0).dropped).sum();
        (self.sent.load(Ordering::Relaxed), self.dropped.load(Ordering::Relaxed) + waiting)
    }

    /// Sends what there is, for `limit` at most. Blocks.
    pub(crate) fn stop(&self, limit: Duration) {
        self.stopping.store(true, Ordering::Release);
        self.wake();
        if let Some(exporter) = self.exporter.get() {
            let _ = locked(&exporter.ended).recv_timeout(limit);
        }
    }

    /// Encodes a span into a worker's buffer, and calls for the thread when there are enough for a batch.
    pub(crate) fn record(
        &self,
        buffer: &SpanBuffer,
        tracing: &Tracing,
        context: &TraceContext,
        record: &RequestRecord<'_>,
        name: &[u8],
    ) {
        let most = (tracing.queue as usize).clamp(1, SPAN_QUEUE).div_ceil(self.workers);
        let mut pending = locked(&buffer.0);
        if pending.ends.len() >= most {
            pending.dropped += 1;
            return;
        }
        let (end, start) = (SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(), pending.bytes.len());
        encode::span(context, record, name, end, &mut pending.bytes);
        let end = pending.bytes.len();
        if end > SPAN_BYTES.div_ceil(self.workers) {
            pending.bytes.truncate(start);
            pending.dropped += 1;
            return;
        }
        pending.ends.push(end);
        let full = pending.ends.len() == batch(tracing).div_ceil(self.workers).min(most);
        drop(pending);
        if full {
            self.wake();
        }
    }

    /// The thread's work.
    fn export(&self) {
        let mut failing = false;
        loop {
            let tracing = locked(&self.tracing).clone();
            let stopping = self.stopping.load(Ordering::Acquire);
            let mut pending = Vec::new();
            for buffer in locked(&self.buffers).iter() {
                let taken = std::mem::take(&mut *locked(&buffer.0));
                self.dropped.fetch_add(taken.dropped, Ordering::Relaxed);
                pending.push(taken);
            }
            for taken in &pending {
                self.send(&tracing, taken, &mut failing);
            }
            if stopping {
                return;
            }
            thread::park_timeout(tracing.delay);
        }
    }

    /// Sends the spans of one worker, a batch at a time.
    fn send(&self, tracing: &Tracing, pending: &EncodedSpans, failing: &mut bool) {
        let (mut start, mut waiting) = (0, pending.ends.as_slice());
        while !waiting.is_empty() {
            // One span is always small enough.
            let fit = waiting.partition_point(|end| end - start <= SPAN_MESSAGE).clamp(1, batch(tracing));
            let (ends, rest) = waiting.split_at(fit.min(waiting.len()));
            waiting = rest;
            let end = *ends.last().unwrap_or(&start);
            let count = ends.len() as u64;
            let sent = match &tracing.collector {
                Some(collector) => self.send_batch(tracing, collector, &pending.bytes[start..end], failing),
                None => false,
            };
            let counter = if sent { &self.sent } else { &self.dropped };
            counter.fetch_add(count, Ordering::Relaxed);
            start = end;
        }
    }

    fn send_batch(&self, tracing: &Tracing, collector: &Collector, spans: &[u8], failing: &mut bool) -> bool {
        match export::send(collector, encode::request(&tracing.service, spans)) {
            Ok(()) => {
                *failing = false;
                true
            }
            Err(error) => {
                // Once for all failures in a row.
                if !std::mem::replace(failing, true) {
                    let host = &*collector.host;
                    tracing::error!(%error, host, port = collector.port.get(), "spans cannot be sent");
                }
                false
            }
        }
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
    use fairway_model::TraceRule;

    #[test]
    fn what_does_not_fit_is_dropped_and_counted() {
        let (spans, fixture) = (Spans::new(2), Fixture::new("GET / HTTP/1.1", ""));
        let buffer = spans.buffer();
        let tracing = Tracing { queue: 4, ..Tracing::default() };
        let record = fixture.record();
        let fields =
            record.head.map(|head| crate::http::FieldsView { fields: head.parsed.fields(), bytes: head.bytes });
        let rule = TraceRule { trusts: false, operation: None };
        let context = TraceContext::begin(&rule, &tracing, fields.unwrap(), || 7);
        for _ in 0..5 {
            spans.record(&buffer, &tracing, &context, &record, b"a");
        }
        assert_eq!(locked(&buffer.0).ends.len(), 2, "half of the queue is for the other worker");
        assert_eq!(spans.counts(), (0, 3));
        // Nor what has too many bytes.
        let (spans, name) = (Spans::new(1), vec![b'a'; 1000]);
        let (buffer, tracing) = (spans.buffer(), Tracing { queue: u32::MAX, ..Tracing::default() });
        let enough = SPAN_BYTES / 1000;
        (0..enough).for_each(|_| spans.record(&buffer, &tracing, &context, &record, &name));
        assert!(locked(&buffer.0).bytes.len() <= SPAN_BYTES);
        let kept = locked(&buffer.0).ends.len();
        assert!(kept < enough, "a span has more bytes than its name");
        assert_eq!(spans.counts(), (0, (enough - kept) as u64));
    }
}
