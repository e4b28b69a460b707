//! Objects that must be checked and perhaps written: what waits, what is in progress, and what failed.

use std::collections::{BTreeSet, HashSet};

use fairway_model::ErrorChain;
use fairway_translate::objects::ObjectKey;
use tokio::time::Instant;
use tracing::{debug, error, warn};

use crate::api::CallError;
use crate::backoff::Backoff;

/// Maximum number of simultaneous writes. After a change of address, many thousands of writes must not use up our whole
/// share of the API server.
const CONCURRENT: usize = 8;

/// The writes of a backlog, as its log names them.
#[derive(Debug)]
pub(crate) struct Writes {
    /// All of it: `the status of Ingresses`.
    pub(crate) all: &'static str,
    /// The part of one object: `the status of an Ingress`.
    pub(crate) one: &'static str,
    /// When a write that the API server refused is tried again: `when the Ingress changes`.
    pub(crate) again: &'static str,
}

/// The objects to check. An object has at most one write in progress.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    queue: BTreeSet<ObjectKey>,
    writing: HashSet<ObjectKey>,
    /// Objects to check again, and when.
    failed: BTreeSet<ObjectKey>,
    retry_at: Option<Instant>,
    backoff: Backoff,
    /// Whether a missing right to write has been reported.
    forbidden: bool,
}

impl Backlog {
    /// Adds an object.
    pub(crate) fn add(&mut self, key: ObjectKey) {
        self.queue.insert(key);
    }

    /// Adds objects.
    pub(crate) fn extend(&mut self, keys: impl IntoIterator<Item = ObjectKey>) {
        self.queue.extend(keys);
    }

    /// Drops an object that is gone.
    pub(crate) fn remove(&mut self, key: &ObjectKey) {
        self.queue.remove(key);
        self.failed.remove(key);
    }

    /// Takes the next object without a write in progress; `None` while too many writes are.
    pub(crate) fn next(&mut self) -> Option<ObjectKey> {
        while self.writing.len() < CONCURRENT
            && let Some(key) = self.queue.pop_first()
        {
            if !self.writing.contains(&key) {
                return Some(key);
            }
        }
        None
    }

    /// Records that a write begins.
    pub(crate) fn begin(&mut self, key: ObjectKey) {
        self.writing.insert(key);
    }

    /// Records that a write has ended, in whatever way.
    pub(crate) fn end(&mut self, key: &ObjectKey) {
        self.writing.remove(key);
    }

    /// Records that a write was successful; the object is checked once more.
    pub(crate) fn succeeded(&mut self, key: ObjectKey) {
        self.backoff.reset();
        self.queue.insert(key);
    }

    /// Records that a write failed: reports what an operator must know, and has the object checked again after a while if that can help.
    pub(crate) fn failed(&mut self, key: ObjectKey, error: &CallError, writes: &Writes) {
        let Writes { all, one, again } = writes;
        let (namespace, name, kind) = (&*key.namespace, &*key.name, key.kind);
        let cause = ErrorChain(error);
        match error.code() {
            // The object is gone.
            Some(404) => return,
            Some(400 | 422) => {
                warn!(%kind, namespace, name, error = %cause, "the API server refuses {one}; it is tried again {again}");
                return;
            }
            Some(403) if !self.forbidden => {
                self.forbidden = true;
                error!(error = %cause, "no right to write {all}");
            }
            // Conflicts and the like: the version that the watch delivers decides.
            _ => debug!(%kind, namespace, name, error = %cause, "cannot write {one}; trying again"),
        }
        self.try_again(key, error);
    }

    /// Has an object checked again after a while.
    fn try_again(&mut self, key: ObjectKey, error: &CallError) {
        self.failed.insert(key);
        if self.retry_at.is_none() {
            self.retry_at = Some(Instant::now() + self.backoff.after(Some(error)));
        }
    }

    /// Records that a write was aborted.
    pub(crate) fn abandoned(&mut self, key: ObjectKey) {
        self.end(&key);
        self.add(key);
    }

    /// When [`retry`](Self::retry) is due.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.retry_at
    }

    /// Checks failed objects again.
    pub(crate) fn retry(&mut self) {
        self.retry_at = None;
        self.queue.append(&mut self.failed);
    }

    /// Whether nothing is in progress or left to do.
    pub(crate) fn is_idle(&self) -> bool {
        self.writing.is_empty() && self.queue.is_empty() && self.failed.is_empty()
    }
}
