//! Stands in for the commands of a cluster in a build that reads files only: each returns an error.

use std::process::ExitCode;

use clap::ArgMatches;

use super::{EventRow, ProcessAnswer};
use crate::flags::Flags;
use crate::reading::Reading;

/// Neither the Kubernetes client nor the channel between controller and proxy is in this build.
#[derive(Debug, thiserror::Error)]
#[error(
    "this build reads files only: it has no Kubernetes client, and no channel to a process that has one. Build fairway \
     with both, in the folder of its sources: cargo build --release"
)]
struct Absent;

/// No log line has this target, since only a controller logs findings.
pub(crate) const FINDINGS: &str = "";

/// Replaces `fairway run`, `fairway controller` and `fairway proxy`.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    Err(Absent.into())
}

/// Replaces reading the objects of a cluster.
pub(crate) fn read(_: &ArgMatches, _: &Flags) -> anyhow::Result<Reading> {
    Err(Absent.into())
}

/// Replaces reading the Events in a cluster.
pub(crate) fn events(_: &ArgMatches, _: &Flags, _: Option<&str>) -> anyhow::Result<Vec<EventRow>> {
    Err(Absent.into())
}

/// Replaces asking the processes in the cluster.
pub(crate) fn ask_all(_: &ArgMatches, _: &Flags, _: &[&str]) -> anyhow::Result<Vec<ProcessAnswer>> {
    Err(Absent.into())
}
