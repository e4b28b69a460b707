//! How many files the process may have open: each connection, be it of a client or to an endpoint, and each UDP session is one.
//!
//! Container runtimes and login shells set the soft limit low (often 1024) for programs that use `select`, and leave the raise up to
//! the hard limit to those that don't.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Raises the soft limit to the hard one.
pub(crate) fn raise_limit() {
    if let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE)
        && soft < hard
    {
        // If it stays, fewer connections are taken at a time: the proxy goes by the soft limit, and its log says so.
        let _ = setrlimit(Resource::RLIMIT_NOFILE, hard, hard);
    }
}
