//! Requests in progress. The state of a request is ten times the size of an idle connection, so a connection doesn't keep it: each worker
//! has runners, futures that serve one request after another, and lends them to HTTP/1 connections and HTTP/2 streams. An idle connection
//! holds none, and a busy one allocates none. A runner is lent by pointer, so no request moves its state.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::ClientConnection;
use super::http2::{NewStream, serve_stream};
use crate::http::After;
use crate::limit::KEPT_SETS;
use crate::work::Work;

/// A connection passed to a runner with the first bytes of a request, or back with the outcome.
pub(super) struct Handover<T> {
    pub(super) connection: Box<ClientConnection>,
    pub(super) work: Box<Work>,
    pub(super) item: T,
}

/// Whether a request was sent before the response to the previous one.
pub(super) type Pipelined = bool;

/// The free runners of a worker.
#[derive(Default)]
pub(crate) struct Runners {
    requests: Free<Handover<Pipelined>, Handover<After>>,
    streams: Free<NewStream, ()>,
}

/// Free runners that turn an `I` into an `O`.
struct Free<I, O>(RefCell<Vec<Runner<I, O>>>);

/// Serves one request after another, for as long as it exists.
struct Runner<I, O> {
    slots: Rc<Slots<I, O>>,
    requests: Pin<Box<dyn Future<Output = Infallible>>>,
}

/// Where a request is put and its outcome is found.
struct Slots<I, O> {
    waiting: Cell<Option<I>>,
    served: Cell<Option<O>>,
}

impl fmt::Debug for Runners {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (requests, streams) = (self.requests.0.borrow().len(), self.streams.0.borrow().len());
        write!(f, "Runners({requests} and {streams} free)")
    }
}

impl Runners {
    /// Serves one request. If that panics or the task ends, the runner and the connection are lost.
    pub(super) async fn serve(&self, request: Handover<Pipelined>) -> Handover<After> {
        let mut runner = self.requests.lend(request, |slots| Box::pin(serve_requests(slots)));
        let served = poll_fn(|cx| runner.poll(cx)).await;
        self.requests.take_back(runner);
        served
    }

    /// Serves one stream. A panic or the end of the task loses the runner here too.
    pub(super) fn serve_stream(self: Rc<Self>, stream: NewStream) -> impl Future<Output = ()> {
        let mut runner = self.streams.lend(stream, |slots| Box::pin(serve_streams(slots)));
        async move {
            poll_fn(|cx| runner.poll(cx)).await;
            self.streams.take_back(runner);
        }
    }
}

impl<I, O> Free<I, O> {
    /// A runner that begins with `item`.
    fn lend(
        &self,
        item: I,
        new: impl FnOnce(Rc<Slots<I, O>>) -> Pin<Box<dyn Future<Output = Infallible>>>,
    ) -> Runner<I, O> {
        let runner = self.0.borrow_mut().pop().unwrap_or_else(|| {
            let slots = Rc::new(Slots { waiting: Cell::new(None), served: Cell::new(None) });
            Runner { requests: new(slots.clone()), slots }
        });
        runner.slots.waiting.set(Some(item));
        runner
    }

    fn take_back(&self, runner: Runner<I, O>) {
        let mut free = self.0.borrow_mut();
        if free.len() < KEPT_SETS {
            free.push(runner);
        }
    }
}

impl<I, O> Default for Free<I, O> {
    fn default() -> Self {
        Self(RefCell::default())
    }
}

impl<I, O> Runner<I, O> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<O> {
        match self.requests.as_mut().poll(cx) {
            Poll::Ready(never) => match never {},
            Poll::Pending => self.slots.served.take().map_or(Poll::Pending, Poll::Ready),
        }
    }
}

impl<I, O> Slots<I, O> {
    async fn next(&self) -> I {
        poll_fn(|_| self.waiting.take().map_or(Poll::Pending, Poll::Ready)).await
    }
}

async fn serve_requests(slots: Rc<Slots<Handover<Pipelined>, Handover<After>>>) -> Infallible {
    loop {
        let Handover { mut connection, mut work, item: pipelined } = slots.next().await;
        let after = connection.request(&mut work, pipelined).await;
        slots.served.set(Some(Handover { connection, work, item: after }));
    }
}

async fn serve_streams(slots: Rc<Slots<NewStream, ()>>) -> Infallible {
    loop {
        serve_stream(slots.next().await).await;
        slots.served.set(Some(()));
    }
}

/// Size of the state that a runner holds.
#[cfg(test)]
pub(super) fn runner_size() -> usize {
    fn size_of_output<A, F: Future>(_: impl FnOnce(A) -> F) -> usize {
        size_of::<F>()
    }
    size_of_output(serve_requests)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn double(slots: Rc<Slots<u32, u32>>) -> Infallible {
        loop {
            let number = slots.next().await;
            assert!(number > 0, "a request that panics");
            slots.served.set(Some(2 * number));
        }
    }

    async fn hold(slots: Rc<Slots<Rc<()>, ()>>) -> Infallible {
        loop {
            let _held = slots.next().await;
            std::future::pending::<()>().await;
        }
    }

    #[test]
    fn a_runner_that_is_dropped_takes_its_request_along_and_is_lent_no_more() {
        let (free, request) = (Free::<Rc<()>, ()>::default(), Rc::new(()));
        let mut context = Context::from_waker(std::task::Waker::noop());
        for begun in [false, true] {
            let mut runner = free.lend(request.clone(), |slots| Box::pin(hold(slots)));
            if begun {
                assert!(runner.poll(&mut context).is_pending());
            }
            assert_eq!(Rc::strong_count(&request), 2);
            drop(runner);
            assert_eq!((Rc::strong_count(&request), free.0.borrow().len()), (1, 0));
        }
    }

    #[test]
    fn a_runner_serves_one_after_the_other_and_is_gone_with_one_that_panics() {
        let free = Free::<u32, u32>::default();
        let made = Cell::new(0);
        let lend = |number| {
            free.lend(number, |slots| {
                made.set(made.get() + 1);
                Box::pin(double(slots))
            })
        };
        let mut context = Context::from_waker(std::task::Waker::noop());
        for number in [1, 2, 3] {
            let mut runner = lend(number);
            assert_eq!(runner.poll(&mut context), Poll::Ready(2 * number));
            free.take_back(runner);
        }
        assert_eq!(made.get(), 1);
        let mut panics = lend(0);
        let polled = std::panic::AssertUnwindSafe(|| panics.poll(&mut context));
        assert!(std::panic::catch_unwind(polled).is_err());
        drop(panics);
        let mut next = lend(4);
        assert_eq!((next.poll(&mut context), made.get()), (Poll::Ready(8), 2));
    }
}
