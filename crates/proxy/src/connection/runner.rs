//! Requests of HTTP/1 under way. The state of one takes ten times the room of an idle connection, so a connection doesn't keep it:
//! each worker has runners, futures that serve one request after another, and lends them to its connections. An idle connection holds
//! none, and a busy one allocates none.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::ClientConnection;
use crate::http::After;
use crate::limit::KEPT_SETS;
use crate::work::Work;

/// A connection on its way to a runner with the first bytes of a request, or back with the outcome.
pub(super) struct Handover<T> {
    pub(super) connection: Box<ClientConnection>,
    pub(super) work: Box<Work>,
    pub(super) item: T,
}

/// Whether a request was sent before the response to the one before it.
pub(super) type Pipelined = bool;

/// The runners of a worker that are free.
#[derive(Default)]
pub(crate) struct Runners(RefCell<Vec<Runner>>);

/// Serves requests one after the other, for as long as it exists.
struct Runner {
    slots: Rc<Slots>,
    requests: Pin<Box<dyn Future<Output = Infallible>>>,
}

/// Where a connection is put, and found again.
#[derive(Default)]
struct Slots {
    waiting: Cell<Option<Handover<Pipelined>>>,
    served: Cell<Option<Handover<After>>>,
}

impl fmt::Debug for Runners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Runners({} free)", self.0.borrow().len())
    }
}

impl Runners {
    /// Serves one request. If that panics, or the task ends, the runner and the connection are gone.
    pub(super) async fn serve(&self, request: Handover<Pipelined>) -> Handover<After> {
        let mut runner = self.0.borrow_mut().pop().unwrap_or_else(Runner::new);
        runner.slots.waiting.set(Some(request));
        let served = poll_fn(|cx| runner.poll(cx)).await;
        let mut free = self.0.borrow_mut();
        if free.len() < KEPT_SETS {
            free.push(runner);
        }
        served
    }
}

impl Runner {
    fn new() -> Self {
        let slots = Rc::<Slots>::default();
        Self { requests: Box::pin(serve_requests(slots.clone())), slots }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Handover<After>> {
        match self.requests.as_mut().poll(cx) {
            Poll::Ready(never) => match never {},
            Poll::Pending => self.slots.served.take().map_or(Poll::Pending, Poll::Ready),
        }
    }
}

async fn serve_requests(slots: Rc<Slots>) -> Infallible {
    loop {
        let next = poll_fn(|_| slots.waiting.take().map_or(Poll::Pending, Poll::Ready)).await;
        let Handover { mut connection, mut work, item: pipelined } = next;
        let after = connection.request(&mut work, pipelined).await;
        slots.served.set(Some(Handover { connection, work, item: after }));
    }
}

/// Size of what a runner holds.
#[cfg(test)]
pub(super) fn runner_size() -> usize {
    fn size_of_output<A, F: Future>(_: impl FnOnce(A) -> F) -> usize {
        size_of::<F>()
    }
    size_of_output(serve_requests)
}
