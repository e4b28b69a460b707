//! One worker's HTTP/2 connections to endpoints, by [`Target`]. Many requests share one.
//!
//! A connection is used as long as the endpoint admits more streams on it; only then is another one opened. Requests that arrive while a
//! connection is being opened wait for it, as many as it will most likely carry. Invariant: a connection is handed out only after its
//! endpoint has shown that it speaks HTTP/2 and how many streams it admits, at least one.
//!
//! As many connections may be idle as over HTTP/1; beyond that, the one that has been idle longest ends.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use foldhash::fast::RandomState;
use h2::client::SendRequest;
use hashbrown::HashMap;

use super::block::Block;
use super::link::Link;
use crate::error::Failure;
use crate::limit::HTTP2_ENDPOINT_STREAMS;
use crate::prepared::PoolLimits;
use crate::timer::{Millis, NEVER};
use crate::upstream::Target;

/// A connection to an endpoint. The task that drives it is in `http2/driver.rs`.
#[derive(Debug)]
pub(crate) struct EndpointConnection {
    pub(super) target: Target,
    /// Whether it is over TLS.
    pub(super) secure: bool,
    pub(super) requests: SendRequest<Block>,
    pub(super) link: Rc<Link>,
    pub(super) opened: Millis,
    pub(super) limits: PoolLimits,
    served: Cell<u64>,
    /// When it last became idle; [`NEVER`] while it has requests, and before its first.
    idle_since: Cell<Millis>,
    /// Whether it takes no more requests.
    retired: Cell<bool>,
}

impl EndpointConnection {
    pub(super) fn new(
        target: Target,
        secure: bool,
        requests: SendRequest<Block>,
        link: Rc<Link>,
        opened: Millis,
        limits: PoolLimits,
    ) -> Self {
        Self {
            target,
            secure,
            requests,
            link,
            opened,
            limits,
            served: Cell::new(0),
            idle_since: Cell::new(NEVER),
            retired: Cell::new(false),
        }
    }

    /// Stops it from taking more requests. It ends after its present ones.
    pub(super) fn retire(&self) {
        if !self.retired.replace(true) {
            self.link.wake();
        }
    }

    /// Whether it is kept open without requests.
    fn is_idle(&self) -> bool {
        !self.link.is_busy() && !self.is_retired()
    }

    /// Whether it takes no more requests.
    pub(super) fn is_retired(&self) -> bool {
        self.retired.get()
    }

    /// How many streams it may have.
    pub(super) fn admitted(&self) -> u32 {
        u32::try_from(self.requests.current_max_send_streams()).unwrap_or(u32::MAX).min(HTTP2_ENDPOINT_STREAMS)
    }

    /// A stream, if there is room for one.
    fn take(self: &Rc<Self>, now: Millis) -> Option<StreamPlace> {
        let worn = self.limits.connections == 0 && self.served.get() > 0
            || self.served.get() >= self.limits.requests
            || now.saturating_sub(self.opened) >= self.limits.age;
        // It has refused new streams, or is gone.
        let refuses = || {
            let ready = self.requests.clone().poll_ready(&mut Context::from_waker(Waker::noop()));
            matches!(ready, Poll::Ready(Err(_)))
        };
        if self.is_retired() || worn || refuses() {
            self.retire();
            return None;
        }
        (self.link.streams() < self.admitted()).then(|| {
            self.served.set(self.served.get() + 1);
            self.link.begin_stream();
            StreamPlace { connection: self.clone() }
        })
    }
}

/// The place of one request on a connection, until it is dropped.
#[derive(Debug)]
pub(crate) struct StreamPlace {
    pub(super) connection: Rc<EndpointConnection>,
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        self.connection.link.end_stream();
    }
}

/// A connection that is being opened, and the requests that wait for it.
#[derive(Debug, Default)]
pub(crate) struct Opening {
    waiting: Cell<u32>,
    /// Each with the number of its request.
    wakers: RefCell<Vec<(u32, Waker)>>,
    last: Cell<u32>,
    outcome: RefCell<Option<Opened>>,
}

/// The outcome: a connection, or why there is none. No reason means that the request that was opening it has gone.
type Opened = Result<Rc<EndpointConnection>, Option<Failure>>;

impl Opening {
    fn finish(&self, outcome: Opened) {
        *self.outcome.borrow_mut() = Some(outcome);
        self.wakers.borrow_mut().drain(..).for_each(|(_, waker)| waker.wake());
    }

    fn wait(self: &Rc<Self>) -> OpeningWait {
        self.waiting.set(self.waiting.get() + 1);
        self.last.set(self.last.get().wrapping_add(1));
        OpeningWait { opening: self.clone(), number: self.last.get() }
    }

    /// Waits for the outcome. An error without a reason means that the connection is no longer being opened.
    fn poll(&self, cx: &Context<'_>, number: u32) -> Poll<Opened> {
        if let Some(outcome) = &*self.outcome.borrow() {
            return Poll::Ready(outcome.clone());
        }
        let mut wakers = self.wakers.borrow_mut();
        if !wakers.iter().any(|(known, _)| *known == number) {
            wakers.push((number, cx.waker().clone()));
        }
        Poll::Pending
    }
}

/// A request's wait for a connection, counted until it is dropped.
#[derive(Debug)]
pub(crate) struct OpeningWait {
    opening: Rc<Opening>,
    number: u32,
}

impl OpeningWait {
    /// Waits for the outcome, see [`Opening::poll`].
    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<Opened> {
        self.opening.poll(cx, self.number)
    }
}

impl Drop for OpeningWait {
    fn drop(&mut self) {
        self.opening.waiting.set(self.opening.waiting.get() - 1);
        self.opening.wakers.borrow_mut().retain(|(number, _)| *number != self.number);
    }
}

/// The duty to open a connection. If it is dropped unfulfilled, the waiting requests look for another connection.
#[derive(Debug)]
pub(crate) struct OpeningDuty {
    pool: Rc<Http2Pool>,
    target: Target,
    opening: Rc<Opening>,
}

impl OpeningDuty {
    /// A place among the requests that wait for the outcome.
    pub(crate) fn wait(&self) -> OpeningWait {
        self.opening.wait()
    }

    /// Reports why there is no connection.
    pub(crate) fn fail(self, failure: Failure) {
        self.opening.finish(Err(Some(failure)));
    }

    /// Reports that there is a connection.
    pub(super) fn fulfil(self, connection: Rc<EndpointConnection>) {
        if let Some(known) = self.pool.targets.borrow_mut().get_mut(&self.target) {
            known.admitted = connection.admitted();
            known.open.push(connection.clone());
        }
        self.opening.finish(Ok(connection));
    }

    /// The pool that the connection is for.
    pub(super) fn pool(&self) -> Rc<Http2Pool> {
        self.pool.clone()
    }
}

impl Drop for OpeningDuty {
    fn drop(&mut self) {
        self.pool.forget(&self.target, |known| known.opening.retain(|other| !Rc::ptr_eq(other, &self.opening)));
        if self.opening.outcome.borrow().is_none() {
            self.opening.finish(Err(None));
        }
    }
}

/// Where a request goes.
#[derive(Debug)]
pub(crate) enum StreamChoice {
    /// On a connection.
    Stream(StreamPlace),
    /// On a connection that is being opened.
    Wait(OpeningWait),
    /// On a connection that the caller has to open.
    Open(OpeningDuty),
}

#[derive(Debug)]
struct EndpointConnections {
    open: Vec<Rc<EndpointConnection>>,
    opening: Vec<Rc<Opening>>,
    /// How many streams the last connection admitted.
    admitted: u32,
}

impl Default for EndpointConnections {
    fn default() -> Self {
        Self { open: Vec::new(), opening: Vec::new(), admitted: HTTP2_ENDPOINT_STREAMS }
    }
}

/// The connections of one worker.
#[derive(Debug, Default)]
pub(crate) struct Http2Pool {
    targets: RefCell<HashMap<Target, EndpointConnections, RandomState>>,
    /// Connections without requests.
    idle: Cell<usize>,
}

impl Http2Pool {
    /// Finds the place for a request. With `fresh`, existing connections are not used.
    pub(crate) fn place(
        self: &Rc<Self>,
        target: &Target,
        now: Millis,
        fresh: bool,
        limits: &PoolLimits,
    ) -> StreamChoice {
        let mut targets = self.targets.borrow_mut();
        let known = targets.entry(*target).or_default();
        if !fresh {
            // The first that has room, so that the last ones become idle and end when there are fewer requests.
            if let Some(place) = known.open.iter().find_map(|connection| connection.take(now)) {
                return StreamChoice::Stream(place);
            }
        }
        // Without keep-alive, each request has its own connection.
        let admitted = if limits.connections == 0 { 1 } else { known.admitted };
        if let Some(opening) = known.opening.iter().find(|opening| opening.waiting.get() < admitted) {
            return StreamChoice::Wait(opening.wait());
        }
        let opening = Rc::<Opening>::default();
        known.opening.push(opening.clone());
        StreamChoice::Open(OpeningDuty { pool: self.clone(), target: *target, opening })
    }

    /// A stream on a connection that has just been opened, if there is still room.
    pub(crate) fn take(&self, connection: &Rc<EndpointConnection>, now: Millis) -> Option<StreamPlace> {
        connection.take(now)
    }

    /// Lets all connections end after their present requests.
    pub(crate) fn clear(&self) {
        self.targets.borrow().values().flat_map(|known| &known.open).for_each(|connection| connection.retire());
    }

    /// Ends a connection without requests; `false` if there is none.
    pub(crate) fn close_idle(&self) -> bool {
        let targets = self.targets.borrow();
        let mut all = targets.values().flat_map(|known| &known.open);
        let idle = all.find(|connection| connection.is_idle());
        idle.is_some_and(|connection| {
            connection.retire();
            true
        })
    }

    /// Number of connections without requests.
    pub(crate) fn idle(&self) -> usize {
        self.idle.get()
    }

    /// Notes that a connection has become idle. If there are too many, ends the one that has been idle longest.
    pub(super) fn note_idle(&self, connection: &EndpointConnection, now: Millis) {
        if connection.is_retired() {
            return;
        }
        connection.idle_since.set(now);
        self.idle.set(self.idle.get() + 1);
        if self.idle.get() > connection.limits.connections {
            let targets = self.targets.borrow();
            let all = targets.values().flat_map(|known| &known.open).filter(|connection| connection.is_idle());
            if let Some(oldest) = all.min_by_key(|connection| connection.idle_since.get()) {
                oldest.retire();
            }
        }
    }

    /// Notes that a connection has requests or is over.
    pub(super) fn note_busy(&self, connection: &EndpointConnection) {
        if connection.idle_since.replace(NEVER) != NEVER {
            self.idle.set(self.idle.get() - 1);
        }
    }

    /// Removes a connection.
    pub(super) fn remove(&self, gone: &Rc<EndpointConnection>) {
        self.note_busy(gone);
        self.forget(&gone.target, |known| known.open.retain(|connection| !Rc::ptr_eq(connection, gone)));
    }

    fn forget(&self, target: &Target, forget: impl FnOnce(&mut EndpointConnections)) {
        let mut targets = self.targets.borrow_mut();
        if let Some(known) = targets.get_mut(target) {
            forget(known);
            if known.open.is_empty() && known.opening.is_empty() {
                targets.remove(target);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::{UpstreamVersion, Way};

    #[test]
    fn who_leaves_makes_room_for_another_who_waits() {
        let pool = Rc::new(Http2Pool::default());
        let target = Target { address: ([127, 0, 0, 1], 1).into(), way: Way::Plain(UpstreamVersion::Http2).number() };
        let limits = PoolLimits { connections: 1, requests: 1, idle: 1, age: 1 };
        let choose = || pool.place(&target, 0, false, &limits);
        let StreamChoice::Open(duty) = choose() else { panic!("there is no connection yet") };
        let _leader = duty.wait();
        let mut waiting: Vec<_> = (1..HTTP2_ENDPOINT_STREAMS).map(|_| choose()).collect();
        assert!(waiting.iter().all(|choice| matches!(choice, StreamChoice::Wait(_))));
        assert!(matches!(choose(), StreamChoice::Open(_)), "the first connection has no room for more");
        waiting.pop();
        assert!(matches!(choose(), StreamChoice::Wait(_)));
        drop(duty);
        let context = Context::from_waker(Waker::noop());
        let StreamChoice::Wait(other) = &waiting[0] else { panic!("it waits") };
        assert!(matches!(other.poll(&context), Poll::Ready(Err(None))), "it is no longer being made");
        assert!(matches!(choose(), StreamChoice::Open(_)));
    }
}
