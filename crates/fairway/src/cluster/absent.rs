//! What a build without a Kubernetes client answers to the commands that need one.

use std::process::ExitCode;

use clap::ArgMatches;

use super::EventRow;
use crate::flags::Flags;
use crate::reading::Reading;

/// The client is not in this build.
#[derive(Debug, thiserror::Error)]
#[error(
    "this build reads files only: it has no Kubernetes client. Build fairway with it, in the folder of its sources: \
     cargo build --release"
)]
struct Absent;

/// No line of the log has this target, since a controller alone logs findings.
pub(crate) const FINDINGS: &str = "";

/// Instead of `fairway run` and `fairway controller`.
pub(crate) fn run() -> anyhow::Result<ExitCode> {
    Err(Absent.into())
}

/// Instead of the objects of a cluster.
pub(crate) fn read(_: &ArgMatches, _: &Flags) -> anyhow::Result<Reading> {
    Err(Absent.into())
}

/// Instead of the Events in a cluster.
pub(crate) fn events(_: &ArgMatches, _: &Flags, _: Option<&str>) -> anyhow::Result<Vec<EventRow>> {
    Err(Absent.into())
}
