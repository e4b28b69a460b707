//! The beat of a worker's clock, from a timer of the kernel.
//!
//! The event loop has timers too, but with them every turn of the loop looks at the clock and searches for the next deadline, twice
//! for each request. A worker needs only this one, so its event loop has none.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};

use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::limit::TICK;

/// A timer that fires every [`TICK`] while it is started.
#[derive(Debug)]
pub(crate) struct Beat(AsyncFd<KernelTimer>);

#[derive(Debug)]
struct KernelTimer(TimerFd);

impl Beat {
    /// Creates a timer that is stopped, on the event loop of this thread.
    ///
    /// # Errors
    /// If the kernel has no resources for it.
    #[expect(
        deprecated,
        reason = "its replacement is unsafe, as the descriptor must stay the same, which it does here"
    )]
    pub(crate) fn new() -> io::Result<Self> {
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC)?;
        Ok(Self(AsyncFd::with_interest(KernelTimer(timer), Interest::READABLE)?))
    }

    /// Starts it: the first beat is one tick away.
    pub(super) fn start(&self) -> io::Result<()> {
        Ok(self.0.get_ref().0.set(Expiration::Interval(TICK.into()), TimerSetTimeFlags::empty())?)
    }

    /// Stops it.
    pub(super) fn stop(&self) -> io::Result<()> {
        Ok(self.0.get_ref().0.unset()?)
    }

    /// Waits for the next beat. Beats that were missed count as one.
    pub(super) async fn next(&self) -> io::Result<()> {
        loop {
            let mut ready = self.0.readable().await?;
            if let Ok(beat) = ready.try_io(|timer| Ok(timer.get_ref().0.wait()?)) {
                return beat;
            }
        }
    }
}

impl AsRawFd for KernelTimer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}
