//! The output of containers, stored line by line with the time, in the format of container runtimes:
//! `2026-01-02T03:04:05.000000006Z stdout F text`.
//!
//! A log is at most two files of [`LIMIT`] bytes: the older half is discarded when the newer one is full.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::watch;

/// The size in bytes at which a new file is started.
pub(crate) const LIMIT: u64 = 32 << 20;

/// A longer line is split into parts.
const LINE: usize = 16 << 10;

/// The log of one run of a container.
#[derive(Debug)]
pub(crate) struct ContainerLog {
    path: PathBuf,
    file: Mutex<(File, u64)>,
    /// How many files were started and how many bytes are in the last one.
    progress: watch::Sender<(u32, u64)>,
}

impl ContainerLog {
    /// Begins a log.
    ///
    /// # Errors
    /// If the file can't be created.
    pub(crate) fn new(path: &Path) -> io::Result<Arc<Self>> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let file = File::create(path)?;
        Ok(Arc::new(Self { path: path.to_owned(), file: Mutex::new((file, 0)), progress: watch::channel((0, 0)).0 }))
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reports new output; ends with the log.
    pub(crate) fn progress(&self) -> watch::Receiver<(u32, u64)> {
        self.progress.subscribe()
    }

    /// Copies everything from `pipe` until its end.
    pub(crate) async fn copy(self: Arc<Self>, mut pipe: Receiver, stream: &'static str) {
        let mut buffer = Vec::with_capacity(8 << 10);
        loop {
            match pipe.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
            let whole = match buffer.iter().rposition(|byte| *byte == b'\n') {
                Some(last) => last + 1,
                None if buffer.len() >= LINE => LINE,
                None => continue,
            };
            self.append(&buffer[..whole], stream);
            buffer.drain(..whole);
        }
        if !buffer.is_empty() {
            self.append(&buffer, stream);
        }
    }

    fn append(&self, bytes: &[u8], stream: &str) {
        let time = format!("{:.9}", Timestamp::now());
        let mut text = Vec::with_capacity(bytes.len() + 64);
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (line, tag) = match line.strip_suffix(b"\n") {
                Some(line) => (line, "F"),
                None => (line, "P"),
            };
            let _ = write!(text, "{time} {stream} {tag} ");
            text.extend_from_slice(line);
            text.push(b'\n');
        }
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        if file.1 > LIMIT {
            // If the rename fails, the new file replaces the old one, which also keeps the log bounded.
            let _ = fs::rename(&self.path, older(&self.path));
            if let Ok(fresh) = File::create(&self.path) {
                *file = (fresh, 0);
                self.progress.send_modify(|progress| *progress = (progress.0 + 1, 0));
            }
        }
        // A full disk loses lines, not containers.
        if file.0.write_all(&text).is_ok() {
            file.1 += text.len() as u64;
            self.progress.send_modify(|progress| progress.1 = file.1);
        }
    }
}

fn older(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

/// The requested part of a log, as in the parameters of `containerLogs`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Selection {
    /// Only this many lines from the end.
    pub tail: Option<usize>,
    /// Only lines from this time on.
    pub since: Option<Timestamp>,
    /// Whether each line starts with its time.
    pub timestamps: bool,
    /// At most this many bytes.
    pub limit: Option<usize>,
}

/// The requested part of the log in the current file, and how much of the file was read.
///
/// # Errors
/// If the file can't be read.
pub(crate) fn read(path: &Path, selection: &Selection) -> io::Result<(Vec<u8>, u64)> {
    let mut content = fs::read(older(path)).unwrap_or_default();
    let current = fs::read(path)?;
    let length = current.len() as u64;
    content.extend_from_slice(&current);
    Ok((select(&content, selection), length))
}

/// The requested part of some lines of a log.
pub(crate) fn select(content: &[u8], selection: &Selection) -> Vec<u8> {
    let lines = content.split_inclusive(|byte| *byte == b'\n').filter_map(|line| {
        let mut parts = line.splitn(4, |byte| *byte == b' ');
        let (time, _, tag, text) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let text = if tag == b"P" { text.strip_suffix(b"\n").unwrap_or(text) } else { text };
        Some((time, text))
    });
    let wanted = |time: &[u8]| {
        let since = selection.since;
        since.is_none_or(|since| std::str::from_utf8(time).ok().and_then(|time| time.parse().ok()) >= Some(since))
    };
    let lines: Vec<_> = lines.filter(|(time, _)| wanted(time)).collect();
    let skip = selection.tail.map_or(0, |tail| lines.len().saturating_sub(tail));
    let mut out = Vec::new();
    for (time, text) in &lines[skip..] {
        if selection.timestamps {
            out.extend_from_slice(time);
            out.push(b' ');
        }
        out.extend_from_slice(text);
    }
    out.truncate(selection.limit.unwrap_or(usize::MAX));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINES: &[u8] = b"2026-01-02T03:04:05.000000000Z stdout F one\n\
        2026-01-02T03:04:06.000000000Z stderr P tw\n\
        2026-01-02T03:04:06.000000000Z stderr F o\n\
        2026-01-02T03:04:07.000000000Z stdout F three  spaced\n";

    #[test]
    fn lines_are_selected_and_parts_joined() {
        assert_eq!(select(LINES, &Selection::default()), b"one\ntwo\nthree  spaced\n");
        assert_eq!(select(LINES, &Selection { tail: Some(1), ..Selection::default() }), b"three  spaced\n");
        let since = "2026-01-02T03:04:07Z".parse().ok();
        let dated = select(LINES, &Selection { since, timestamps: true, ..Selection::default() });
        assert_eq!(dated, b"2026-01-02T03:04:07.000000000Z three  spaced\n");
        assert_eq!(select(LINES, &Selection { limit: Some(2), ..Selection::default() }), b"on");
    }

    #[tokio::test]
    async fn written_lines_are_read_back() {
        let directory = tempfile::tempdir().expect("a directory");
        let log = ContainerLog::new(&directory.path().join("c/0.log")).expect("a log");
        let (reader, mut writer) = io::pipe().expect("a pipe");
        let copy = tokio::spawn(log.clone().copy(Receiver::from_owned_fd(reader.into()).expect("a pipe"), "stdout"));
        let long = vec![b'x'; LINE * 2 + 1];
        std::thread::spawn(move || {
            writer.write_all(b"a\nb\n").expect("written");
            writer.write_all(&long).expect("written");
        });
        copy.await.expect("copied");
        let (text, length) = read(log.path(), &Selection::default()).expect("a log");
        assert_eq!(text.len(), 4 + LINE * 2 + 1);
        assert_eq!(*log.progress().borrow(), (0, length));
    }
}
