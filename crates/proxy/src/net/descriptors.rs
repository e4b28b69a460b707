//! The limit of open files (`RLIMIT_NOFILE`): how it is shared out, and how to detect that it is reached.
//!
//! | for | sixteenths of the limit |
//! | --- | --- |
//! | client connections, each of which needs another one to an endpoint | 10 |
//! | UDP sessions | 4 |
//! | everything else: idle connections to endpoints, listeners, the admin server, the log, the API server | 2 |

use std::io;

use nix::libc::{EMFILE, ENFILE};
use nix::sys::resource::{Resource, getrlimit};

/// The current limit of open files.
fn limit() -> u64 {
    // This can't fail for this process and this resource.
    getrlimit(Resource::RLIMIT_NOFILE).map_or(1024, |(now, _)| now)
}

/// How many client connections each of `workers` may have at most: no more than can also have a connection to an endpoint. `told` is
/// the number that the configuration allows.
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
    most.max(1)
}

/// How many UDP sessions each of `workers` may have, and never more than it may have connections. Datagrams can carry forged
/// sources, so they must not use up the descriptors that HTTP connections need.
pub(crate) fn most_sessions(workers: usize, connections: usize) -> usize {
    for_each(workers, limit() / 4).min(connections).max(1)
}

/// Each worker's share of `files`.
fn for_each(workers: usize, files: u64) -> usize {
    usize::try_from(files).unwrap_or(usize::MAX) / workers.max(1)
}

/// Whether an operation failed because the limit of open files is reached.
pub(crate) fn is_lack(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(EMFILE | ENFILE))
}
