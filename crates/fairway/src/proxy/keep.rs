//! Keeps the configuration of a proxy in a file, so that its next start needs no controller.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use clap::ArgMatches;
use fairway_channel::limit::{SNAPSHOT_CONFIRM, SNAPSHOT_PAUSE};
use fairway_channel::{LinkStatus, SnapshotFile, Written};
use fairway_model::ErrorChain;
use fairway_proxy::Publisher;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tokio::time::{sleep, timeout};
use tracing::warn;

/// How many times longer than it takes to write the file nothing is written: this bounds the part of a core that it costs.
const SHARE: u32 = 50;

/// When the file was last the newest, in seconds since 1970; 0 if it never was. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct KeptAt(Arc<AtomicU64>);

impl KeptAt {
    pub(super) fn seconds(&self) -> f64 {
        self.0.load(Ordering::Relaxed) as f64
    }

    fn now(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.0.store(now.as_secs(), Ordering::Relaxed);
    }
}

/// The file of the command line, whose key is read here and never again.
pub(super) fn file(matches: &ArgMatches) -> anyhow::Result<Option<SnapshotFile>> {
    let path = |name: &str| matches.get_one::<PathBuf>(name).cloned();
    let (Some(file), Some(key)) = (path("snapshot-file"), path("snapshot-key-file")) else { return Ok(None) };
    // Landlock knows files by their folder, which must be there.
    let folder = file.parent().filter(|folder| folder.is_dir());
    anyhow::ensure!(folder.is_some(), "the folder of --snapshot-file={} is missing", file.display());
    SnapshotFile::new(file, &key).map(Some).context("no key for --snapshot-file; see --snapshot-key-file")
}

/// Writes what a controller has said, and notes while that is the newest. Never ends before the link.
pub(super) async fn keep(
    file: SnapshotFile,
    mut status: watch::Receiver<LinkStatus>,
    publisher: Publisher,
    at: KeptAt,
) {
    let (mut written, mut fails) = (0, false);
    let mut own: Option<Written> = None;
    loop {
        let fresh = status.wait_for(|status| status.current && status.rounds > written);
        let rounds = match timeout(SNAPSHOT_CONFIRM, fresh).await {
            Ok(Ok(status)) => Some(status.rounds),
            Ok(Err(_)) => return,
            Err(_) => None,
        };
        // What is current now and was written is confirmed.
        if rounds.is_none() && (written == 0 || !status.borrow().current) {
            continue;
        }
        let (begun, file, snapshot) = (Instant::now(), file.clone(), publisher.snapshot());
        let known = own.filter(|_| rounds.is_none());
        let done = spawn_blocking(move || match known {
            // Another proxy may have put an older state in its place, and be gone.
            Some(known) if file.confirm(&known)? => Ok(known),
            _ => file.write(&snapshot),
        });
        match done.await {
            Ok(Ok(done)) => {
                at.now();
                (own, written, fails) = (Some(done), rounds.unwrap_or(written), false);
            }
            Ok(Err(error)) if !fails => {
                warn!(error = %ErrorChain(&error), "the snapshot can't be kept in the file; the last one stays");
                fails = true;
            }
            Ok(Err(_)) => {}
            Err(_) => return,
        }
        // What could not be written is tried again then.
        sleep(SNAPSHOT_PAUSE.max(begun.elapsed() * SHARE)).await;
    }
}
