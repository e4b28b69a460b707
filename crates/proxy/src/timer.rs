//! Deadlines without timers: each worker keeps a coarse clock, and a connection's deadline is one number in a table that a single
//! task scans on every tick.
//!
//! A tokio timer per read and per request would cost more than parsing the request. Here, setting or moving a deadline stores a
//! number. Invariant: a deadline never fires early, and fires at most two ticks late.

mod beat;

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::io;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

pub(crate) use self::beat::Beat;
use crate::limit::TICK;

/// Milliseconds since the worker started.
pub(crate) type Millis = u64;

/// Later than every moment.
pub(crate) const NEVER: Millis = Millis::MAX;

/// The clock of a worker and the deadlines of its connections.
#[derive(Debug)]
pub(crate) struct Timers {
    start: Instant,
    now: Cell<Millis>,
    /// What tests have added to the real time.
    #[cfg(test)]
    ahead: Cell<Millis>,
    table: RefCell<Table>,
    /// Wakes the ticking task when there is something to tick for.
    busy: Notify,
}

#[derive(Debug, Default)]
struct Table {
    slots: Vec<TimerSlot>,
    free: Vec<u32>,
    used: usize,
}

#[derive(Debug)]
struct TimerSlot {
    at: Millis,
    waker: Option<Waker>,
}

impl Timers {
    /// A clock that starts now.
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self {
            start: Instant::now(),
            now: Cell::new(0),
            #[cfg(test)]
            ahead: Cell::new(0),
            table: RefCell::default(),
            busy: Notify::new(),
        })
    }

    /// The time at the last tick. The clock stands still while there are no connections.
    pub(crate) fn now(&self) -> Millis {
        self.now.get()
    }

    /// Reads the real clock.
    pub(crate) fn refresh(&self) -> Millis {
        let now = Millis::try_from(self.start.elapsed().as_millis()).unwrap_or(NEVER - 1);
        #[cfg(test)]
        let now = now + self.ahead.get();
        self.now.set(now);
        now
    }

    /// A moment at least `duration` ahead.
    pub(crate) fn after(&self, duration: Duration) -> Millis {
        let millis = Millis::try_from(duration.as_millis()).unwrap_or(NEVER);
        self.now().saturating_add(millis).saturating_add(TICK.as_millis() as Millis)
    }

    /// Ticks forever, except while there is nothing to tick for. Calls `housekeeping` once a second; it returns whether it has more
    /// to do although there are no connections.
    ///
    /// # Errors
    /// If the kernel's timer fails.
    pub(crate) async fn run(&self, beat: Beat, mut housekeeping: impl FnMut() -> bool) -> io::Result<Infallible> {
        beat.start()?;
        let mut ticks = 0u32;
        loop {
            if self.table.borrow().used == 0 && !housekeeping() {
                beat.stop()?;
                self.busy.notified().await;
                beat.start()?;
                self.refresh();
            }
            beat.next().await?;
            self.tick();
            ticks = ticks.wrapping_add(1);
            if ticks.is_multiple_of(1000 / TICK.as_millis() as u32) {
                housekeeping();
            }
        }
    }

    /// Waits for at least `duration`.
    pub(crate) async fn sleep(self: &Rc<Self>, duration: Duration) {
        self.timeout(duration, std::future::pending::<()>()).await;
    }

    /// Awaits something for at least `duration`, and gives up after that.
    pub(crate) async fn timeout<F: Future>(self: &Rc<Self>, duration: Duration, future: F) -> Option<F::Output> {
        let deadline = Deadline::of_task(self.clone()).await;
        deadline.set_after(duration);
        within(&deadline, future).await
    }

    /// Lets time pass at once.
    #[cfg(test)]
    pub(crate) fn pass(&self, time: Duration) {
        self.ahead.set(self.ahead.get() + time.as_millis() as Millis);
        self.tick();
    }

    /// Wakes every task that has a deadline.
    pub(crate) fn wake_all(&self) {
        for waker in self.table.borrow().slots.iter().filter_map(|slot| slot.waker.as_ref()) {
            waker.wake_by_ref();
        }
    }

    /// Wakes the task of one deadline, see [`Deadline::slot`].
    pub(crate) fn wake(&self, slot: u32) {
        if let Some(waker) = &self.table.borrow().slots[slot as usize].waker {
            waker.wake_by_ref();
        }
    }

    fn tick(&self) {
        let now = self.refresh();
        for slot in &self.table.borrow().slots {
            if slot.at <= now
                && let Some(waker) = &slot.waker
            {
                waker.wake_by_ref();
            }
        }
    }
}

/// The deadline of one task. The task is woken when it has passed, and again on every tick until it is moved.
#[derive(Debug)]
pub(crate) struct Deadline {
    timers: Rc<Timers>,
    slot: u32,
}

impl Deadline {
    /// A deadline of the task that polls with this context, not set yet.
    pub(crate) fn new(timers: Rc<Timers>, cx: &Context<'_>) -> Self {
        let slot = TimerSlot { at: NEVER, waker: Some(cx.waker().clone()) };
        let mut table = timers.table.borrow_mut();
        let slot = if let Some(free) = table.free.pop() {
            table.slots[free as usize] = slot;
            free
        } else {
            table.slots.push(slot);
            (table.slots.len() - 1) as u32
        };
        table.used += 1;
        if table.used == 1 {
            timers.busy.notify_one();
            // The clock may have stood still for a long time.
            timers.refresh();
        }
        drop(table);
        Self { timers, slot }
    }

    /// The deadline of the current task.
    pub(crate) async fn of_task(timers: Rc<Timers>) -> Self {
        let mut timers = Some(timers);
        poll_fn(move |cx| match timers.take() {
            Some(timers) => Poll::Ready(Self::new(timers, cx)),
            None => Poll::Pending,
        })
        .await
    }

    /// Its number, for [`Timers::wake`]. It is reused once this deadline is dropped.
    pub(crate) fn slot(&self) -> u32 {
        self.slot
    }

    /// Moves it; [`NEVER`] turns it off.
    pub(crate) fn set(&self, at: Millis) {
        self.timers.table.borrow_mut().slots[self.slot as usize].at = at;
    }

    /// Moves it to `duration` from now.
    pub(crate) fn set_after(&self, duration: Duration) {
        self.set(self.timers.after(duration));
    }

    /// Moves it to `duration` from now, unless it is earlier already.
    pub(crate) fn bring_forward(&self, duration: Duration) {
        let at = self.timers.after(duration);
        let slot = &mut self.timers.table.borrow_mut().slots[self.slot as usize];
        slot.at = slot.at.min(at);
    }

    /// Whether the deadline has passed.
    pub(crate) fn expired(&self) -> bool {
        self.timers.table.borrow().slots[self.slot as usize].at <= self.timers.now()
    }
}

impl Drop for Deadline {
    fn drop(&mut self) {
        let mut table = self.timers.table.borrow_mut();
        table.slots[self.slot as usize] = TimerSlot { at: NEVER, waker: None };
        table.free.push(self.slot);
        table.used -= 1;
    }
}

/// Awaits a future until the deadline passes.
pub(crate) async fn within<F: Future>(deadline: &Deadline, future: F) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    poll_fn(|cx| match future.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending if deadline.expired() => Poll::Ready(None),
        Poll::Pending => Poll::Pending,
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn a_deadline_wakes_its_task_and_never_early() {
        let timers = Timers::new();
        let deadline = Deadline::of_task(timers.clone()).await;
        let begin = Instant::now();
        deadline.set_after(Duration::from_millis(60));
        let wait = poll_fn(|_| if deadline.expired() { Poll::Ready(()) } else { Poll::Pending });
        tokio::select! {
            () = wait => {}
            Err(error) = timers.run(Beat::new().unwrap(), || false) => panic!("{error}"),
        }
        assert!(begin.elapsed() >= Duration::from_millis(60));
        deadline.set(NEVER);
        assert!(!deadline.expired());
    }

    #[tokio::test(flavor = "current_thread")]
    async fn slots_are_used_again() {
        let timers = Timers::new();
        for _ in 0..100 {
            drop(Deadline::of_task(timers.clone()).await);
        }
        assert_eq!(timers.table.borrow().slots.len(), 1);
    }
}
