//! The files that the process may have open (`RLIMIT_NOFILE`): who may take how many of them, and how to tell that all are taken.
//!
//! | for | sixteenths of the limit |
//! | --- | --- |
//! | connections of clients, each of which needs another one to an endpoint | 10 |
//! | sessions of datagrams | 4 |
//! | all else: kept connections to endpoints, listeners, administration, the log, the API server | 2 |

use std::io;

use nix::libc::{EMFILE, ENFILE};
use nix::sys::resource::{Resource, getrlimit};

/// How many files the process may have open now.
fn limit() -> u64 {
    // It cannot fail for this process and this resource.
    getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(now, _)| now)
}

/// How many clients' connections each of so many workers may have: as many as it was told, but never so many that none of them could
/// have one to an endpoint.
pub(crate) fn most_connections(workers: usize, told: usize) -> usize {
    let limit = limit();
    let most = for_each(workers, limit / 16 * 5);
    if most < told {
        tracing::info!(
            limit,
            connections = most.max(1),
            "the limit of open files decides how many connections a worker has"
        );
    }
    most.min(told).max(1)
}

/// How many sessions of datagrams each of so many workers may have. Also no more than it may have connections. Senders of datagrams can
/// be forged: whoever does so must not use up what HTTP connections need.
pub(crate) fn most_sessions(workers: usize, connections: usize) -> usize {
    for_each(workers, limit() / 4).min(connections).max(1)
}

/// What each of so many workers has of so many files.
fn for_each(workers: usize, files: u64) -> usize {
    usize::try_from(files).unwrap_or(usize::MAX) / workers.max(1)
}

/// Whether an operation failed because as many files are open as may be.
pub(crate) fn is_lack(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE))
}
