//! A dedicated cluster, for a test that disturbs the control plane, or measures, or is about the cluster as a whole.
//!
//! Each is a whole control plane, and two of them are a lot for a small machine: a process has one at a time, or those
//! started in the same [`Turn`].

use std::ops::Deref;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::cluster::{Cluster, Options, down};

/// Whether the turn is taken.
static TAKEN: Mutex<bool> = Mutex::new(false);
static FREE: Condvar = Condvar::new();

/// The right to have dedicated clusters. It lasts as long as the value, its copies, and each cluster started with it.
#[derive(Clone, Debug)]
pub struct Turn {
    _held: Arc<Held>,
}

#[derive(Debug)]
struct Held;

impl Turn {
    /// Waits for a turn, however long. Taking a second one while holding the first deadlocks.
    pub fn take() -> Self {
        let taken = FREE.wait_while(taken(), |taken| *taken);
        *taken.unwrap_or_else(PoisonError::into_inner) = true;
        Self { _held: Arc::new(Held) }
    }

    /// Stops the remains of a killed run under this name, and starts a cluster.
    ///
    /// # Errors
    /// If either fails. Then no part of the cluster runs.
    pub fn start(&self, name: &str, options: &Options) -> anyhow::Result<OwnCluster> {
        down(name)?;
        let cluster = Cluster::start(name, options, |_| {})?;
        Ok(OwnCluster { cluster, ended: false, _turn: self.clone() })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        *taken() = false;
        FREE.notify_one();
    }
}

fn taken() -> MutexGuard<'static, bool> {
    TAKEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A cluster that stops when the value is dropped, even by a panic. Its logs stay in `target/cluster/NAME/logs` until
/// the next one with that name starts.
///
/// # Panics
/// If the cluster doesn't stop on drop; during another panic this is only printed. [`OwnCluster::end`] returns it as an
/// error instead.
#[derive(Debug)]
pub struct OwnCluster {
    cluster: Cluster,
    ended: bool,
    _turn: Turn,
}

impl OwnCluster {
    /// Waits for a [`Turn`], and starts a cluster in it.
    ///
    /// # Errors
    /// If it does not start, or if the remains of an earlier run can't be stopped.
    pub fn start(name: &str, options: &Options) -> anyhow::Result<Self> {
        Turn::take().start(name, options)
    }

    /// Stops it.
    ///
    /// # Errors
    /// Those of [`Cluster::down`].
    pub fn end(mut self) -> anyhow::Result<()> {
        self.ended = true;
        self.cluster.down()
    }
}

impl Deref for OwnCluster {
    type Target = Cluster;

    fn deref(&self) -> &Cluster {
        &self.cluster
    }
}

impl Drop for OwnCluster {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        if let Err(error) = self.cluster.down() {
            let failure = format!("the cluster {} doesn't end: {error:#}", self.layout().name());
            if thread::panicking() {
                eprintln!("{failure}");
            } else {
                panic!("{failure}");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[test]
    fn a_turn_is_exclusive_until_its_last_copy_is_dropped() {
        let at_once = AtomicU32::new(0);
        thread::scope(|scope| {
            for panics in [false, true, false, true] {
                let at_once = &at_once;
                scope.spawn(move || {
                    let turn = Turn::take();
                    let copy = turn.clone();
                    drop(turn);
                    assert_eq!(at_once.fetch_add(1, Ordering::SeqCst), 0);
                    thread::yield_now();
                    at_once.fetch_sub(1, Ordering::SeqCst);
                    let result = std::panic::catch_unwind(|| {
                        let _copy = copy;
                        assert!(!panics, "on purpose");
                    });
                    assert_eq!(result.is_err(), panics);
                });
            }
        });
        drop(Turn::take());
    }
}
