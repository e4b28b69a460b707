//! Carries lines from the workers to the output: buffers go to one thread that writes them, and come back empty.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, Write};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use fairway_model::Syslog;
use tokio::sync::Notify;

use super::syslog::SyslogSender;
use super::{Format, LogClock};
use crate::limit::{LOG_BUFFERS, LOG_FULL, LOG_LARGEST, LOG_OLD, LOG_QUEUE};
use crate::record::RequestRecord;
use crate::timer::Timers;

/// The destination of lines.
pub enum LogSink {
    /// Nowhere.
    Off,
    /// To standard output.
    Stdout,
    /// To anything else.
    Writer(Box<dyn Write + Send>),
}

impl fmt::Debug for LogSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "Off",
            Self::Stdout => "Stdout",
            Self::Writer(_) => "Writer",
        })
    }
}

/// The writing thread.
#[derive(Debug)]
pub struct LogThread {
    handle: LogHandle,
    syslog: Arc<Mutex<Option<Syslog>>>,
}

/// The handle from which a worker creates its [`LogWriter`].
#[derive(Clone, Debug)]
pub struct LogHandle {
    queue: Option<SyncSender<LogMessage>>,
    dropped: Arc<AtomicU64>,
}

/// One worker's log. Clones share one buffer.
#[derive(Clone, Debug)]
pub struct LogWriter(Option<Rc<LogShared>>);

enum LogMessage {
    Lines { buffer: Vec<u8>, home: SyncSender<Vec<u8>> },
    Synchronize(SyncSender<()>),
}

#[derive(Debug)]
struct LogShared {
    pending: RefCell<Pending>,
    started: Notify,
}

#[derive(Debug)]
struct Pending {
    buffer: Vec<u8>,
    clock: LogClock,
    away: usize,
    home: SyncSender<Vec<u8>>,
    returned: Receiver<Vec<u8>>,
    queue: SyncSender<LogMessage>,
    dropped: Arc<AtomicU64>,
}

impl LogThread {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the system can't create a thread.
    pub fn start(sink: LogSink) -> io::Result<Self> {
        let dropped = Arc::default();
        let output: Box<dyn Write + Send> = match sink {
            LogSink::Off => return Ok(Self { handle: LogHandle { queue: None, dropped }, syslog: Arc::default() }),
            LogSink::Stdout => Box::new(io::stdout()),
            LogSink::Writer(output) => output,
        };
        let (queue, messages) = sync_channel(LOG_QUEUE);
        let syslog: Arc<Mutex<Option<Syslog>>> = Arc::default();
        let mut writing =
            Writing { output, failing: false, wanted: syslog.clone(), syslog: None, dropped: dropped.clone() };
        thread::Builder::new().name("access-log".into()).spawn(move || writing.all(&messages))?;
        Ok(Self { handle: LogHandle { queue: Some(queue), dropped }, syslog })
    }

    /// Sends lines to a syslog server from now on, or with `None` to the sink.
    pub fn set_syslog(&self, server: Option<&Syslog>) {
        *self.syslog.lock().unwrap_or_else(PoisonError::into_inner) = server.cloned();
    }

    /// Creates a handle for a worker.
    pub fn handle(&self) -> LogHandle {
        self.handle.clone()
    }

    /// Lines dropped so far because the output was too slow.
    pub fn dropped(&self) -> u64 {
        self.handle.dropped.load(Ordering::Relaxed)
    }

    /// Waits, for `limit` at most, until everything handed over before is written; returns whether it is. Blocks.
    pub fn synchronize(&self, limit: Duration) -> bool {
        let Some(queue) = &self.handle.queue else {
            return true;
        };
        let (done, written) = sync_channel(1);
        queue.try_send(LogMessage::Synchronize(done)).is_ok()
            && written.recv_timeout(limit) != Err(RecvTimeoutError::Timeout)
    }
}

impl LogHandle {
    /// Creates the log of the calling worker.
    pub fn writer(&self) -> LogWriter {
        let Some(queue) = self.queue.clone() else {
            return LogWriter(None);
        };
        let (home, returned) = sync_channel(LOG_BUFFERS);
        let pending = Pending {
            buffer: Vec::with_capacity(LOG_FULL + LOG_FULL / 2),
            clock: LogClock::new(),
            away: 0,
            home,
            returned,
            queue,
            dropped: self.dropped.clone(),
        };
        LogWriter(Some(Rc::new(LogShared { pending: RefCell::new(pending), started: Notify::new() })))
    }
}

impl LogWriter {
    /// Writes one line of at most `limit` bytes.
    pub fn log(&self, format: &Format, record: &RequestRecord<'_>, limit: usize) {
        self.line(|clock, out| {
            // Values that don't fit are simply left out.
            let _ = format.append(record, clock, limit, out);
        });
    }

    /// Writes one line produced by `append`.
    pub fn line(&self, append: impl FnOnce(&mut LogClock, &mut Vec<u8>)) {
        let Some(shared) = &self.0 else {
            return;
        };
        let pending = &mut *shared.pending.borrow_mut();
        if pending.buffer.len() >= LOG_FULL && !pending.hand_over() && pending.buffer.len() >= LOG_LARGEST {
            pending.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if pending.buffer.is_empty() {
            shared.started.notify_one();
        }
        append(&mut pending.clock, &mut pending.buffer);
        pending.buffer.push(b'\n');
    }

    /// Hands over the buffered lines, as far as the writer accepts them. For the end of a worker.
    pub fn flush(&self) {
        if let Some(shared) = &self.0 {
            shared.pending.borrow_mut().hand_over();
        }
    }

    /// Hands over lines that get old. Must be spawned once on each worker; never ends.
    pub(crate) async fn run(self, timers: Rc<Timers>) {
        let Some(shared) = self.0 else {
            return std::future::pending().await;
        };
        loop {
            shared.started.notified().await;
            timers.sleep(LOG_OLD).await;
            while !shared.pending.borrow_mut().hand_over() {
                timers.sleep(LOG_OLD).await;
            }
        }
    }
}

impl Pending {
    /// Whether the buffer is empty now.
    fn hand_over(&mut self) -> bool {
        if self.buffer.is_empty() {
            return true;
        }
        let empty = match self.returned.try_recv() {
            Ok(mut buffer) => {
                self.away -= 1;
                buffer.clear();
                // Memory for a single burst must not be kept forever.
                buffer.shrink_to(LOG_FULL * 2);
                buffer
            }
            Err(TryRecvError::Empty) if self.away < LOG_BUFFERS => Vec::with_capacity(LOG_FULL + LOG_FULL / 2),
            Err(_) => return false,
        };
        let buffer = std::mem::replace(&mut self.buffer, empty);
        self.away += 1;
        if let Err(refused) = self.queue.try_send(LogMessage::Lines { buffer, home: self.home.clone() }) {
            self.away -= 1;
            let (std::sync::mpsc::TrySendError::Full(message) | std::sync::mpsc::TrySendError::Disconnected(message)) =
                refused;
            if let LogMessage::Lines { buffer, .. } = message {
                self.buffer = buffer;
            }
            return false;
        }
        true
    }
}

/// Sends a worker's last lines even if all its other buffers are still queued.
impl Drop for Pending {
    fn drop(&mut self) {
        let buffer = std::mem::take(&mut self.buffer);
        let lines = memchr::memchr_iter(b'\n', &buffer).count();
        if lines > 0 && self.queue.try_send(LogMessage::Lines { buffer, home: self.home.clone() }).is_err() {
            self.dropped.fetch_add(lines as u64, Ordering::Relaxed);
        }
    }
}

/// The state of the writing thread.
struct Writing {
    output: Box<dyn Write + Send>,
    failing: bool,
    /// The server that the settings name.
    wanted: Arc<Mutex<Option<Syslog>>>,
    syslog: Option<SyslogSender>,
    dropped: Arc<AtomicU64>,
}

impl Writing {
    /// Writes until all senders are gone.
    fn all(&mut self, messages: &Receiver<LogMessage>) {
        while let Ok(message) = messages.recv() {
            match message {
                LogMessage::Lines { buffer, home } => {
                    self.lines(&buffer);
                    // A worker that has ended needs no buffer.
                    home.try_send(buffer).ok();
                }
                LogMessage::Synchronize(done) => {
                    done.try_send(()).ok();
                }
            }
        }
    }

    fn lines(&mut self, lines: &[u8]) {
        let wanted = self.wanted.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if self.syslog.as_ref().map(SyslogSender::server) != wanted.as_ref() {
            self.syslog = wanted.map(SyslogSender::new);
        }
        match &mut self.syslog {
            Some(syslog) => {
                let lost = syslog.send(lines);
                self.dropped.fetch_add(lost, Ordering::Relaxed);
            }
            None => self.write(lines),
        }
    }

    /// A failing output is not given up: it may be a pipe that recovers.
    fn write(&mut self, lines: &[u8]) {
        match self.output.write_all(lines).and_then(|()| self.output.flush()) {
            Err(error) if !self.failing => {
                tracing::error!(%error, "cannot write the access log");
                self.failing = true;
            }
            Err(_) => {}
            Ok(()) => self.failing = false,
        }
    }
}
