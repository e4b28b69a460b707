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
pub(crate) fn limit() -> u64 {
    // It cannot fail for this process and this resource.
    getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(now, _)| now)
}

/// How many clients' connections each of so many workers may have: as many as it was told, but never so many that none of them could
/// have one to an endpoint.
pub(crate) fn most_connections(workers: usize, told: usize) -> usize {
    let limit = limit();
    let share = limit / 16 * 5;
    let most = usize::try_from(share).unwrap_or(usize::MAX) / workers.max(1);
    if most < told {
        tracing::info!(
            limit,
            connections = most.max(1),
            "the limit of open files decides how many connections a worker has"
        );
    }
    most.min(told).max(1)
}

/// Whether an operation failed because as many files are open as may be.
pub(crate) fn is_lack(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE))
}
