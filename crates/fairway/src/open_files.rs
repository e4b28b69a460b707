//! The limit on open files: each connection, from a client or to an endpoint, and each UDP session takes one.
//!
//! Container runtimes and login shells set a low soft limit (often 1024) for programs that use `select`, and expect other programs
//! to raise it to the hard limit.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the soft limit to the hard one.
pub(crate) fn raise_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // If this fails, fewer connections are accepted at a time: the proxy uses the soft limit, and logs it.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
