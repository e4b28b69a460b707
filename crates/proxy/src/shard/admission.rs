//! Admits connections: each has a place among those that the worker admits, and makes room for others when its turn comes (see
//! [`place`](super::place)).

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::Shard;
use super::client_count::ClientCount;
use super::place::{Room, Standing};
use crate::metrics::Phase;
use crate::timer::Deadline;

impl Shard {
    /// Counts a connection for as long as the result lives. `None` if its client has reached its limit.
    pub(crate) fn admit(self: &Rc<Self>, peer: SocketAddr) -> Option<Admission> {
        let running = self.running();
        let Some(count) = self.common.clients.enter(peer.ip(), running.snapshot.settings()) else {
            self.metrics.borrow_mut().connections.refused += 1;
            return None;
        };
        Some(self.admitted(count))
    }

    /// Counts a connection that acts for many clients, such as a load balancer's.
    pub(crate) fn admit_proxy(self: &Rc<Self>) -> Admission {
        self.admitted(ClientCount::default())
    }

    fn admitted(self: &Rc<Self>, count: ClientCount) -> Admission {
        self.connections.set(self.connections.get() + 1);
        self.metrics.borrow_mut().connections.opened();
        let place = self.places.borrow_mut().take(self.timers.now());
        Admission { shard: self.clone(), phase: Phase::Reading, place, count }
    }

    /// Waits until there is room for another connection.
    pub(crate) async fn room(&self) {
        while self.connections.get() >= self.most_connections() {
            match self.make_room() {
                Room::After(millis) => {
                    self.timers.timeout(Duration::from_millis(millis), self.ended.notified()).await;
                }
                Room::Called | Room::None => self.ended.notified().await,
            }
        }
    }

    /// How many connections the open files and the settings allow.
    fn most_connections(&self) -> usize {
        let configured = self.running().snapshot.settings().worker_connections;
        configured.map_or(usize::MAX, |most| most.get() as usize).min(self.common.connections)
    }

    /// Makes room for a file when the limit of open files is reached. Returns `true` if there is room now; if nothing can be
    /// closed at once, clients are asked to leave, which takes until one has [`ended`](Self::ended).
    pub(crate) fn free_file(&self) -> bool {
        let closed = self.upstreams.pool.borrow_mut().close_oldest();
        // A connection of HTTP/2 is closed by its own task, so its file is not free yet.
        if !closed && !self.http2.close_idle() {
            self.make_room();
        }
        closed
    }

    fn make_room(&self) -> Room {
        let counts = &mut self.metrics.borrow_mut().connections;
        self.places.borrow_mut().make_room(self.timers.refresh(), |standing, deadline| {
            *(if standing == Standing::Idle { &mut counts.shed_idle } else { &mut counts.shed_asking }) += 1;
            if let Some(deadline) = deadline {
                self.timers.wake(deadline);
            }
        })
    }

    /// Waits until a connection ends.
    pub(crate) async fn ended(&self) {
        self.ended.notified().await;
    }

    /// Signals that a connection or UDP sessions have ended, to tasks that wait for room or for the end of all.
    pub(crate) fn has_ended(&self) {
        self.ended.notify_waiters();
        self.ended.notify_one();
    }
}

/// One connection's place among those that the worker admits, and how it is counted.
#[derive(Debug)]
pub(crate) struct Admission {
    shard: Rc<Shard>,
    phase: Phase,
    place: u32,
    /// Held as long as the connection.
    count: ClientCount,
}

impl Admission {
    /// Sets the deadline of the connection's task, which is woken when the connection has to make room.
    pub(crate) fn set_deadline(&self, deadline: &Deadline) {
        self.shard.places.borrow_mut().set_deadline(self.place, deadline.slot());
    }

    /// Counts the connection against the client that its peer speaks for. `false` if that client has reached its limit.
    pub(crate) fn count_against(&mut self, client: SocketAddr) -> bool {
        let running = self.shard.running();
        match self.shard.common.clients.enter(client.ip(), running.snapshot.settings()) {
            Some(count) => {
                self.count = count;
                true
            }
            None => {
                self.shard.metrics.borrow_mut().connections.refused += 1;
                false
            }
        }
    }

    /// Changes the phase of the connection.
    pub(crate) fn enter(&mut self, phase: Phase) {
        if phase == self.phase {
            // A connection that has not sent a request yet doesn't become younger.
            if phase != Phase::Reading {
                self.set(phase);
            }
            return;
        }
        self.shard.metrics.borrow_mut().connections.changed(self.phase, phase);
        self.phase = phase;
        self.set(phase);
    }

    /// The response is sent and further input is discarded: nothing is lost if the connection closes.
    pub(crate) fn give_way(&self) {
        self.shard.places.borrow_mut().set(self.place, Standing::Idle, self.shard.timers.now());
    }

    /// Whether the connection has to make room for another one.
    pub(crate) fn is_called(&self) -> bool {
        self.shard.places.borrow().is_called(self.place)
    }

    fn set(&self, phase: Phase) {
        let standing = match phase {
            Phase::Reading => Standing::Asking,
            Phase::Waiting => Standing::Idle,
            Phase::Writing | Phase::Passing => Standing::Busy,
        };
        if self.shard.places.borrow_mut().set(self.place, standing, self.shard.timers.now()) {
            // Tasks that wait for room check again.
            self.shard.has_ended();
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let shard = &self.shard;
        shard.connections.set(shard.connections.get() - 1);
        shard.metrics.borrow_mut().connections.closed(self.phase);
        shard.places.borrow_mut().give_up(self.place);
        shard.has_ended();
    }
}

/// Awaits a step that precedes a request: until the deadline passes, or the connection has to make room for another one.
pub(crate) async fn while_admitted<F: Future>(
    admission: &Admission,
    deadline: &Deadline,
    future: F,
) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if deadline.expired() || admission.is_called() => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await
}
