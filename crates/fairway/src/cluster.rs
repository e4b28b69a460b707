//! The cluster that a command reads, selected by a kubeconfig that is found as kubectl finds it. A build without the feature `cluster` has
//! no Kubernetes client; commands that need one report how to build it.

use clap::ArgMatches;

use crate::flags::Flags;

#[cfg(feature = "cluster")]
mod client;

#[cfg(feature = "cluster")]
pub(crate) use client::{FINDINGS, ask_all, events, read};

#[cfg(not(feature = "cluster"))]
mod absent;

#[cfg(not(feature = "cluster"))]
pub(crate) use absent::{FINDINGS, ask_all, events, read, run};

/// An Event that Fairway has written: its time, type, reason, object and message.
pub(crate) type EventRow = [String; 5];

/// A process in the cluster, identified by its pod and container, and its answer to each question.
pub(crate) type ProcessAnswer = (String, Result<Vec<Vec<u8>>, String>);

/// Whether the command line names a cluster.
pub(crate) fn is_named(matches: &ArgMatches, flags: &Flags) -> bool {
    matches.contains_id("context") || flags.is_set("kubeconfig") || flags.is_set("apiserver-host")
}
