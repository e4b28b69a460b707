//! Reports saved files. Editors write in several steps (truncate and write, or write a new file and rename it), so a change is
//! reported once the file has been closed, or has been quiet for a while.

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

use super::scan::is_manifest;

/// How long to wait for more events once every written file is closed: a save by rename causes several events, and `git checkout`
/// writes many files in a row.
const SETTLED: Duration = Duration::from_millis(3);
/// How long to wait for a file that is still being written.
const WRITING: Duration = Duration::from_millis(100);
/// The longest that a change waits, no matter how many events follow.
const LONGEST: Duration = Duration::from_millis(500);
/// Most paths that are remembered; beyond that, the folders are searched instead.
const PATHS: usize = 1024;

/// Watches folders.
pub(crate) struct Watcher {
    watcher: RecommendedWatcher,
    watched: HashSet<PathBuf>,
    shared: Arc<Shared>,
}

/// The events up to a quiet period.
#[derive(Debug)]
pub(crate) struct Saved {
    /// The paths with events; `None` if there are too many.
    pub(crate) paths: Option<HashSet<PathBuf>>,
    /// Time of the last event.
    pub(crate) at: Instant,
}

impl Saved {
    /// Combines both, saved at the earlier time.
    pub(crate) fn and(self, other: Self) -> Self {
        let paths = self.paths.zip(other.paths).map(|(mut paths, others)| {
            paths.extend(others);
            paths
        });
        Self { paths: paths.filter(|paths| paths.len() <= PATHS), at: self.at.min(other.at) }
    }
}

#[derive(Default)]
struct Shared {
    /// Files named on the command line, which may have any extension.
    named: HashSet<PathBuf>,
    /// The watched folders, by the absolute path that events contain.
    folders: Mutex<HashMap<PathBuf, PathBuf>>,
    pending: Mutex<Pending>,
    changed: Notify,
}

#[derive(Default)]
struct Pending {
    paths: HashSet<PathBuf>,
    overflow: bool,
    /// Files that are being written and aren't closed yet.
    open: HashSet<PathBuf>,
    first: Option<Instant>,
    last: Option<Instant>,
}

/// Why the files can't be watched.
#[derive(Debug, thiserror::Error)]
#[error("watching {}", folder.display())]
pub(crate) struct WatchError {
    folder: PathBuf,
    source: notify::Error,
}

impl Watcher {
    /// A watcher that doesn't watch anything yet. `paths` are the files and folders of the manifests.
    pub(crate) fn new(paths: &[PathBuf]) -> Result<Self, WatchError> {
        let real = paths.iter().filter_map(|path| path.canonicalize().ok());
        let named = paths.iter().cloned().chain(real).collect();
        let shared = Arc::new(Shared { named, ..Shared::default() });
        let events = shared.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| events.take(event))
            .map_err(|source| WatchError { folder: PathBuf::from("."), source })?;
        Ok(Self { watcher, watched: HashSet::new(), shared })
    }

    /// Watches exactly these folders. A folder that has been deleted in the meantime is left out: its parent reports when it is back.
    pub(crate) fn watch(&mut self, folders: HashSet<PathBuf>) -> Result<(), WatchError> {
        for gone in self.watched.extract_if(|folder| !folders.contains(folder)) {
            // The kernel has already forgotten the folder if it was deleted.
            let _ = self.watcher.unwatch(&gone);
            self.shared.folders().retain(|_, folder| *folder != gone);
        }
        for folder in folders {
            if self.watched.contains(&folder) {
                continue;
            }
            // Must precede the folder's first event.
            if let Ok(absolute) = std::path::absolute(&folder) {
                self.shared.folders().insert(absolute, folder.clone());
            }
            match self.watcher.watch(&folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.watched.insert(folder);
                }
                // A search reports what can't be read; the folder above it tells when that changes.
                Err(notify::Error { kind: notify::ErrorKind::Io(error), .. })
                    if error.kind() == std::io::ErrorKind::PermissionDenied => {}
                Err(source) if folder.exists() => return Err(WatchError { folder, source }),
                Err(_) => {}
            }
        }
        Ok(())
    }

    /// Waits until something is saved. Safe to cancel and call again: nothing is lost.
    pub(crate) async fn saved(&self) -> Saved {
        loop {
            let wait = self.shared.lock().quiet_in();
            match wait {
                None => self.shared.changed.notified().await,
                Some(Duration::ZERO) => return self.shared.lock().take(),
                Some(wait) => {
                    // Whatever happens meanwhile is evaluated afresh.
                    let _ = tokio::time::timeout(wait, self.shared.changed.notified()).await;
                }
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Pending> {
        // Nothing that runs under this lock can panic half-way.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn folders(&self) -> std::sync::MutexGuard<'_, HashMap<PathBuf, PathBuf>> {
        self.folders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Converts an event's absolute path to a path below the folder as the user wrote it.
    fn as_given(&self, path: PathBuf) -> PathBuf {
        let folders = self.folders();
        let folder = path.parent().and_then(|folder| folders.get(folder));
        let Some(given) = folder.zip(path.file_name()).map(|(folder, name)| folder.join(name)) else { return path };
        // The folder of a file that was given without a folder.
        match given.strip_prefix(".") {
            Ok(bare) if self.named.contains(bare) => bare.to_owned(),
            _ => given,
        }
    }

    fn take(&self, event: notify::Result<Event>) {
        let event = event.map(|mut event| {
            event.paths = event.paths.into_iter().map(|path| self.as_given(path)).collect();
            event
        });
        let mut pending = self.lock();
        match event {
            Ok(event) => pending.note(event, &self.named),
            // The kernel's queue overflowed, or something similar happened: search everything.
            Err(_) => pending.overflow(),
        }
        drop(pending);
        self.changed.notify_one();
    }
}

impl Pending {
    fn note(&mut self, event: Event, named: &HashSet<PathBuf>) {
        if event.need_rescan() {
            return self.overflow();
        }
        let closed = match event.kind {
            EventKind::Access(AccessKind::Close(AccessMode::Write)) => true,
            EventKind::Access(_) => return,
            EventKind::Modify(ModifyKind::Data(_)) => false,
            // Changed permissions don't tell whether a file is being written.
            EventKind::Modify(ModifyKind::Metadata(_)) => event.paths.iter().all(|path| !self.open.contains(path)),
            // Renames, removals and new names are complete when reported.
            _ => true,
        };
        // Writes to other files are ignored: otherwise a log file beside the manifests would keep the folder from ever being quiet.
        let content = matches!(event.kind, EventKind::Access(_) | EventKind::Modify(ModifyKind::Data(_)));
        let matters = |path: &PathBuf| !content || is_manifest(path) || named.contains(path);
        let paths: Vec<_> = event.paths.into_iter().filter(matters).collect();
        if paths.is_empty() {
            return;
        }
        for path in paths {
            if closed {
                self.open.remove(&path);
            } else if self.open.len() < PATHS {
                self.open.insert(path.clone());
            }
            if self.paths.len() < PATHS {
                self.paths.insert(path);
            } else {
                self.overflow = true;
            }
        }
        self.happened();
    }

    fn overflow(&mut self) {
        self.overflow = true;
        self.happened();
    }

    fn happened(&mut self) {
        let now = Instant::now();
        self.first.get_or_insert(now);
        self.last = Some(now);
    }

    /// How long until the events so far count as complete; `None` if there are none.
    fn quiet_in(&mut self) -> Option<Duration> {
        let pause = if self.open.is_empty() { SETTLED } else { WRITING };
        let longest = LONGEST.saturating_sub(self.first?.elapsed());
        let wait = |pause: Duration, last: Instant| pause.saturating_sub(last.elapsed()).min(longest);
        let left = wait(pause, self.last?);
        if !left.is_zero() {
            return Some(left);
        }
        // A file that was truncated is about to be written: if it were read now, its objects would disappear for a moment.
        let empty: Vec<_> = self.paths.iter().filter(|path| is_empty(path)).cloned().collect();
        let left = if empty.is_empty() { left } else { wait(WRITING, self.last?) };
        if !left.is_zero() {
            return Some(left);
        }
        // The write causes another event, at the latest when the file is closed.
        self.paths.retain(|path| !(self.open.contains(path) && empty.contains(path)));
        if self.paths.is_empty() && !self.overflow {
            *self = Self::default();
            return None;
        }
        Some(Duration::ZERO)
    }

    fn take(&mut self) -> Saved {
        let pending = std::mem::take(self);
        let paths = (!pending.overflow).then_some(pending.paths);
        Saved { paths, at: pending.last.unwrap_or_else(Instant::now) }
    }
}

/// Whether a file has no content.
pub(super) fn is_empty(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|metadata| metadata.is_file() && metadata.len() == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    async fn one_save(folder: &Path, save: impl FnOnce()) -> HashSet<PathBuf> {
        let mut watcher = Watcher::new(&[folder.to_owned()]).unwrap();
        watcher.watch(HashSet::from([folder.to_owned()])).unwrap();
        save();
        let saved = tokio::time::timeout(Duration::from_secs(10), watcher.saved()).await.expect("the save is told");
        saved.paths.expect("few paths")
    }

    #[test]
    fn paths_are_told_as_they_were_given() {
        let here = std::env::current_dir().unwrap();
        let shared = Shared { named: HashSet::from(["a.txt".into()]), ..Shared::default() };
        for folder in ["m", "../n", "."] {
            shared.folders().insert(std::path::absolute(folder).unwrap(), folder.into());
        }
        for (event, given) in [
            (here.join("m/a.yaml"), Path::new("m/a.yaml")),
            (here.join("../n/a.yaml"), Path::new("../n/a.yaml")),
            // As for the folder of files that are given without one.
            (here.join("./a.txt"), Path::new("a.txt")),
            (here.join("./a.yaml"), Path::new("./a.yaml")),
            (here.join("other/a.yaml"), &here.join("other/a.yaml")),
        ] {
            assert_eq!(shared.as_given(event), given);
        }
    }

    #[tokio::test]
    async fn a_file_that_is_written_in_place_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a.yaml");
        let paths = one_save(folder.path(), || fs::write(&file, "a: 1").unwrap()).await;
        assert_eq!(paths, HashSet::from([file]));
    }

    #[tokio::test]
    async fn a_file_that_is_renamed_into_place_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let (new, file) = (folder.path().join(".a.swp"), folder.path().join("a.yaml"));
        fs::write(&new, "a: 1").unwrap();
        let paths = one_save(folder.path(), || fs::rename(&new, &file).unwrap()).await;
        assert!(paths.contains(&file), "{paths:?}");
    }

    #[tokio::test]
    async fn a_file_that_is_truncated_is_told_once_it_is_written_or_closed() {
        let folder = tempfile::tempdir().unwrap();
        let (slow, other) = (folder.path().join("a.yaml"), folder.path().join("b.yaml"));
        fs::write(&slow, "a: 1").unwrap();
        let mut watcher = Watcher::new(&[folder.path().to_owned()]).unwrap();
        watcher.watch(HashSet::from([folder.path().to_owned()])).unwrap();
        let mut file = fs::File::create(&slow).unwrap();
        fs::write(&other, "b: 1").unwrap();
        let told =
            async || tokio::time::timeout(Duration::from_secs(10), watcher.saved()).await.expect("a save is told");
        assert_eq!(told().await.paths, Some(HashSet::from([other])));
        std::io::Write::write_all(&mut file, b"a: 2").unwrap();
        drop(file);
        assert_eq!(told().await.paths, Some(HashSet::from([slow.clone()])));
        // The file is meant to be empty.
        drop(fs::File::create(&slow).unwrap());
        assert_eq!(told().await.paths, Some(HashSet::from([slow])));
    }

    #[tokio::test]
    async fn a_log_that_is_written_beside_is_no_change() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = fs::File::create(folder.path().join("requests.log")).unwrap();
        let file = folder.path().join("a.yaml");
        let paths = one_save(folder.path(), || {
            std::io::Write::write_all(&mut log, b"a line").unwrap();
            fs::write(&file, "a: 1").unwrap();
        })
        .await;
        assert_eq!(paths, HashSet::from([file]));
    }

    #[test]
    fn a_change_waits_no_longer_than_the_longest_wait() {
        let last = Some(Instant::now() + LONGEST);
        let mut pending = Pending {
            first: Instant::now().checked_sub(LONGEST),
            last,
            paths: HashSet::from(["a.yaml".into()]),
            open: HashSet::from(["a.yaml".into()]),
            ..Pending::default()
        };
        assert_eq!(pending.quiet_in(), Some(Duration::ZERO));
    }

    #[tokio::test]
    async fn reading_is_no_change() {
        let folder = tempfile::tempdir().unwrap();
        let (read, written) = (folder.path().join("a.yaml"), folder.path().join("b.yaml"));
        fs::write(&read, "a: 1").unwrap();
        let paths = one_save(folder.path(), || {
            fs::read(&read).unwrap();
            fs::write(&written, "b: 1").unwrap();
        })
        .await;
        assert_eq!(paths, HashSet::from([written]));
    }
}
