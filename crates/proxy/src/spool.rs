//! Files for the bodies of requests that are read before an endpoint is chosen (`--request-body-directory`).
//!
//! The files have no names, so none is left behind however the process ends. Separate threads read and write: no worker waits for a disk.

use std::fs::{self, File, OpenOptions};
use std::future::Future;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::thread;
use std::time::Instant;

use nix::libc::O_TMPFILE;
use tokio::sync::oneshot;

use crate::buffer::Buffer;
use crate::limit::{SPOOL_THREADS, SPOOL_WARNING_INTERVAL};

/// Bytes that are written or read at a time.
// No limit: enough that the round trip to another thread costs little.
pub(crate) const PIECE: usize = 128 << 10;

/// Where bodies may be kept.
#[derive(Clone, Debug)]
pub struct SpoolOptions {
    /// A directory to which the process may write.
    pub directory: PathBuf,
    /// Bytes that all bodies there may take together.
    pub space: u64,
}

/// The files of a process.
#[derive(Debug)]
pub(crate) struct Spools {
    space: u64,
    /// Bytes in files. Written once for each piece of a body that doesn't fit in memory.
    used: AtomicU64,
    // Unbounded: a request waits for each of its jobs.
    jobs: Sender<SpoolJob>,
}

/// A job for a thread.
#[derive(Debug)]
enum SpoolJob {
    /// Writes all of `memory`; the first one makes the file.
    Write { file: Option<Arc<File>>, step: SpoolStep },
    /// Fills `memory`.
    Read { file: Arc<File>, step: SpoolStep },
    /// Closing a large file frees its blocks, which takes time.
    Close(Arc<File>),
}

#[derive(Debug)]
struct SpoolStep {
    memory: Vec<u8>,
    at: u64,
    done: oneshot::Sender<SpoolOutcome>,
}

/// The outcome of a step.
#[derive(Debug)]
struct SpoolOutcome {
    file: Option<Arc<File>>,
    memory: Vec<u8>,
    failed: Option<io::Error>,
}

impl Spools {
    /// Starts the threads.
    ///
    /// # Errors
    /// If no file can be created there, or no thread.
    pub(crate) fn start(options: SpoolOptions) -> io::Result<Arc<Self>> {
        let SpoolOptions { directory, space } = options;
        open(&directory)?;
        let directory = Arc::<Path>::from(directory);
        let (sender, jobs) = channel();
        let (jobs, warned) = (Arc::new(Mutex::new(jobs)), Arc::default());
        for number in 0..SPOOL_THREADS {
            let (directory, jobs, warned) = (directory.clone(), jobs.clone(), Arc::clone(&warned));
            thread::Builder::new().name(format!("spool-{number}")).spawn(move || work(&directory, &jobs, &warned))?;
        }
        Ok(Arc::new(Self { space, used: AtomicU64::new(0), jobs: sender }))
    }

    /// Bytes that all bodies may take together.
    pub(crate) fn space(&self) -> u64 {
        self.space
    }

    /// An empty file, which takes no space yet.
    pub(crate) fn file(self: &Arc<Self>) -> SpoolFile {
        SpoolFile { spools: self.clone(), file: None, written: 0, read: 0, taken: 0, under_way: None }
    }

    fn take(&self, bytes: u64) -> bool {
        let add = |used: u64| used.checked_add(bytes).filter(|used| *used <= self.space);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).is_ok()
    }
}

/// A body, or its first part, on a disk.
#[derive(Debug)]
pub(crate) struct SpoolFile {
    spools: Arc<Spools>,
    file: Option<Arc<File>>,
    written: u64,
    /// How far it has been read.
    read: u64,
    /// Space that it takes.
    taken: u64,
    under_way: Option<oneshot::Receiver<SpoolOutcome>>,
}

impl SpoolFile {
    /// Begins to write more at the end; `false` if there is no space.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> bool {
        debug_assert!(self.under_way.is_none(), "one step follows the other");
        if !self.spools.take(bytes.len() as u64) {
            return false;
        }
        self.taken += bytes.len() as u64;
        let file = self.file.clone();
        // A copy that lasts as long as the step: a request whose client or disk is slow keeps no memory for the next one.
        self.begin(self.written, bytes.to_vec(), |step| SpoolJob::Write { file, step });
        true
    }

    /// Waits for the write under way, and returns its number of bytes; 0 if there is none.
    ///
    /// # Errors
    /// If the disk is full or broken. What was written before is still good.
    pub(crate) fn poll_written(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.under_way.is_none() {
            return Poll::Ready(Ok(0));
        }
        let written = ready!(self.poll_step(cx))?;
        self.written += written.len() as u64;
        Poll::Ready(Ok(written.len()))
    }

    /// Bytes in it.
    pub(crate) fn written(&self) -> u64 {
        self.written
    }

    /// Bytes that have not been read back yet.
    pub(crate) fn left(&self) -> u64 {
        self.written - self.read
    }

    /// Goes back to its beginning.
    pub(crate) fn rewind(&mut self) {
        self.under_way = None;
        self.read = 0;
    }

    /// Reads more of it into a buffer with room.
    ///
    /// # Errors
    /// If the disk is broken.
    pub(crate) fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut Buffer) -> Poll<io::Result<()>> {
        if self.under_way.is_none() {
            let most = buffer.room().min(PIECE);
            let memory = vec![0; usize::try_from(self.left()).unwrap_or(usize::MAX).min(most)];
            let Some(file) = self.file.clone() else { return Poll::Ready(Err(io::ErrorKind::NotFound.into())) };
            self.begin(self.read, memory, |step| SpoolJob::Read { file, step });
        }
        let read = ready!(self.poll_step(cx))?;
        buffer.append(&read);
        self.read += read.len() as u64;
        Poll::Ready(Ok(()))
    }

    fn begin(&mut self, at: u64, memory: Vec<u8>, job: impl FnOnce(SpoolStep) -> SpoolJob) {
        let (done, outcome) = oneshot::channel();
        // Without threads there is no outcome.
        let _ = self.spools.jobs.send(job(SpoolStep { memory, at, done }));
        self.under_way = Some(outcome);
    }

    /// The memory of the step that is under way.
    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Vec<u8>>> {
        let Some(under_way) = &mut self.under_way else { return Poll::Ready(Ok(Vec::new())) };
        let outcome = ready!(Pin::new(under_way).poll(cx));
        self.under_way = None;
        let Ok(SpoolOutcome { file, memory, failed }) = outcome else {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        };
        self.file = file;
        Poll::Ready(failed.map_or(Ok(memory), Err))
    }
}

impl Drop for SpoolFile {
    fn drop(&mut self) {
        self.spools.used.fetch_sub(self.taken, Ordering::Relaxed);
        if let Some(file) = self.file.take() {
            // Without threads it is closed here.
            let _ = self.spools.jobs.send(SpoolJob::Close(file));
        }
    }
}

/// When the last warning was logged.
type Warned = Mutex<Option<Instant>>;

fn work(directory: &Path, jobs: &Mutex<Receiver<SpoolJob>>, warned: &Warned) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let (step, file, result) = match job {
            Ok(SpoolJob::Write { file, step }) => match file.map_or_else(|| open(directory).map(Arc::new), Ok) {
                Ok(file) => {
                    let result = file.write_all_at(&step.memory, step.at);
                    (step, Some(file), result)
                }
                Err(error) => (step, None, Err(error)),
            },
            Ok(SpoolJob::Read { file, mut step }) => {
                let result = file.read_exact_at(&mut step.memory, step.at);
                (step, Some(file), result)
            }
            Ok(SpoolJob::Close(file)) => {
                drop(file);
                continue;
            }
            Err(_) => return,
        };
        if let Err(error) = &result {
            warn(error, directory, warned);
        }
        let SpoolStep { memory, done, .. } = step;
        // A request that is gone needs no outcome; its file is closed here.
        let _ = done.send(SpoolOutcome { file, memory, failed: result.err() });
    }
}

fn warn(error: &io::Error, directory: &Path, warned: &Warned) {
    let mut warned = warned.lock().unwrap_or_else(PoisonError::into_inner);
    if warned.is_none_or(|last| last.elapsed() >= SPOOL_WARNING_INTERVAL) {
        *warned = Some(Instant::now());
        tracing::warn!(%error, directory = %directory.display(), "bodies of requests are streamed: they cannot be kept in files");
    }
}

/// Creates a file without a name.
fn open(directory: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    let unnamed = options.clone().custom_flags(O_TMPFILE).open(directory);
    if unnamed.is_ok() {
        return unnamed;
    }
    // Not every file system supports such files.
    let mut random = [0; 8];
    aws_lc_rs::rand::fill(&mut random).map_err(|_| io::ErrorKind::Other)?;
    let path = directory.join(format!(".fairway-{:016x}", u64::from_ne_bytes(random)));
    let named = options.create_new(true).open(&path)?;
    fs::remove_file(&path)?;
    Ok(named)
}
