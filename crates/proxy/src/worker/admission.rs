//! Who is let in: each connection has a place among those that the worker admits, and idle ones make room for new ones.

use std::rc::Rc;

use super::Worker;
use crate::metrics::Phase;

/// Idle connections that close at a time where files are lacking.
// No limit: a batch.
const SHED_FOR_FILES: usize = 16;

impl Worker {
    /// Counts a connection for as long as the result lives.
    pub(crate) fn admit(self: &Rc<Self>) -> Admission {
        self.connections.set(self.connections.get() + 1);
        self.metrics.borrow_mut().connections.opened();
        Admission { worker: self.clone(), phase: Phase::Reading }
    }

    /// Waits until there is room for another connection. Idle ones make room, some at a time, as in nginx; if there are none, the
    /// next that becomes idle does.
    pub(crate) async fn room(&self) {
        while self.connections.get() >= self.common.connections {
            if self.shed.get() == 0 {
                self.shed.set((self.common.connections / 16).max(1));
                self.timers.wake_all();
            }
            self.ended.notified().await;
        }
    }

    /// Makes room for a file where as many are open as may be. `true` if there is room now; if there is nothing that can be closed at
    /// once, idle clients are asked to go, which takes until one has [`ended`](Self::ended).
    pub(crate) fn free_file(&self) -> bool {
        if self.upstreams.pool.borrow_mut().close_oldest() {
            return true;
        }
        if self.shed_for_files.get() == 0 {
            self.shed_for_files.set(SHED_FOR_FILES);
            self.timers.wake_all();
        }
        false
    }

    /// A file was got: nobody has to go for one any more.
    pub(crate) fn has_file(&self) {
        self.shed_for_files.set(0);
    }

    /// Waits until a connection ends.
    pub(crate) async fn ended(&self) {
        self.ended.notified().await;
    }

    /// Whether an idle connection that asks is to close, to make room for another one.
    pub(crate) fn sheds(&self) -> bool {
        if self.connections.get() < self.common.connections {
            self.shed.set(0);
        }
        for due in [&self.shed_for_files, &self.shed] {
            if due.get() > 0 {
                due.set(due.get() - 1);
                return true;
            }
        }
        false
    }

    /// Says that sessions of datagrams have ended, for which draining waits as it does for connections.
    pub(crate) fn sessions_ended(&self) {
        self.ended.notify_waiters();
        self.ended.notify_one();
    }
}

/// One connection's place among those that the worker admits, and what it is counted as.
#[derive(Debug)]
pub(crate) struct Admission {
    worker: Rc<Worker>,
    phase: Phase,
}

impl Admission {
    /// The connection does something else now.
    pub(crate) fn enter(&mut self, phase: Phase) {
        if phase != self.phase {
            self.worker.metrics.borrow_mut().connections.changed(self.phase, phase);
            self.phase = phase;
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let worker = &self.worker;
        worker.connections.set(worker.connections.get() - 1);
        worker.metrics.borrow_mut().connections.closed(self.phase);
        worker.ended.notify_waiters();
        worker.ended.notify_one();
    }
}
