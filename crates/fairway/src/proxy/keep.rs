//! Keeps a proxy's configuration in a file, so that its next start needs no controller.

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

/// After a write, nothing is written for this many times its duration, which bounds the CPU share of writing.
const SHARE: u32 = 50;

/// When the file last held the newest configuration, in seconds since 1970; 0 if it never did. Clones share the value.
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

/// The file from the command line. Its key is read only here.
pub(super) fn file(matches: &ArgMatches) -> anyhow::Result<Option<SnapshotFile>> {
    let path = |name: &str| matches.get_one::<PathBuf>(name).cloned();
    let (Some(file), Some(key)) = (path("snapshot-file"), path("snapshot-key-file")) else { return Ok(None) };
    // Landlock rules refer to the folder, which must exist.
    let folder = file.parent().filter(|folder| folder.is_dir());
    anyhow::ensure!(folder.is_some(), "the folder of --snapshot-file={} is missing", file.display());
    SnapshotFile::new(file, &key).map(Some).context("no key for --snapshot-file; see --snapshot-key-file")
}

/// Writes the configurations that a controller publishes, and notes while the file is up to date. Runs until the link ends.
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
        // A configuration that is current and already written is confirmed.
        if rounds.is_none() && (written == 0 || !status.borrow().current) {
            continue;
        }
        let (begun, file, snapshot) = (Instant::now(), file.clone(), publisher.snapshot());
        let known = own.filter(|_| rounds.is_none());
        let done = spawn_blocking(move || match known {
            // Another proxy may have replaced the file by an older state, and ended.
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
        // A failed write is retried after this pause.
        sleep(SNAPSHOT_PAUSE.max(begun.elapsed() * SHARE)).await;
    }
}
