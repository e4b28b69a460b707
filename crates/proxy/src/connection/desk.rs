//! Requests of HTTP/1 under way: what one needs while it is served takes ten times the room of an idle connection. So it is served at
//! a desk: each worker keeps some and lends them to one connection after the other, so that an idle connection holds none of it,
//! and a busy one allocates nothing.

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

/// A connection with the first bytes of a request, or with the outcome of one.
pub(super) struct Visit<T> {
    pub(super) connection: Box<ClientConnection>,
    pub(super) work: Box<Work>,
    pub(super) matter: T,
}

/// Whether a request was sent before the response to the one before it.
pub(super) type Pipelined = bool;

/// The desks of a worker that are free.
#[derive(Default)]
pub(crate) struct Desks(RefCell<Vec<Desk>>);

/// Serves requests one after the other, for as long as it exists.
struct Desk {
    seat: Rc<Seat>,
    clerk: Pin<Box<dyn Future<Output = Infallible>>>,
}

/// Where a connection sits down and is found again.
#[derive(Default)]
struct Seat {
    waiting: Cell<Option<Visit<Pipelined>>>,
    served: Cell<Option<Visit<After>>>,
}

impl fmt::Debug for Desks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Desks({} free)", self.0.borrow().len())
    }
}

impl Desks {
    /// Serves one request. If that panics, or the task ends, the desk and the connection are gone.
    pub(super) async fn serve(&self, visit: Visit<Pipelined>) -> Visit<After> {
        let mut desk = self.0.borrow_mut().pop().unwrap_or_else(Desk::new);
        desk.seat.waiting.set(Some(visit));
        let served = poll_fn(|cx| desk.poll(cx)).await;
        let mut free = self.0.borrow_mut();
        if free.len() < KEPT_SETS {
            free.push(desk);
        }
        served
    }
}

impl Desk {
    fn new() -> Self {
        let seat = Rc::<Seat>::default();
        Self { clerk: Box::pin(attend(seat.clone())), seat }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Visit<After>> {
        match self.clerk.as_mut().poll(cx) {
            Poll::Ready(never) => match never {},
            Poll::Pending => self.seat.served.take().map_or(Poll::Pending, Poll::Ready),
        }
    }
}

async fn attend(seat: Rc<Seat>) -> Infallible {
    loop {
        let next = poll_fn(|_| seat.waiting.take().map_or(Poll::Pending, Poll::Ready)).await;
        let Visit { mut connection, mut work, matter } = next;
        let after = connection.request(&mut work, matter).await;
        seat.served.set(Some(Visit { connection, work, matter: after }));
    }
}

/// Size of what a desk holds.
#[cfg(test)]
pub(super) fn desk_size() -> usize {
    fn size_of_output<A, F: Future>(_: impl FnOnce(A) -> F) -> usize {
        size_of::<F>()
    }
    size_of_output(attend)
}
