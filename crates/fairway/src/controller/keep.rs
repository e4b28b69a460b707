//! `fairway controller --restart-on-failure`: runs the controller as a child process, and restarts it when it fails.
//!
//! A container that ends makes its whole pod unready, and Kubernetes waits up to five minutes before it restarts a container that keeps
//! failing. A proxy in the same pod would lose its clients for that time, although it can serve without a controller.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::time::Duration;

use anyhow::Context as _;
use clap::ArgMatches;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, interval_at, sleep, timeout};
use tracing::{error, info};

use super::ADMIN_PORT;
use crate::status::ask;
use crate::wiring::Signals;
use crate::{USAGE, role};

/// The switch. Without it, the command runs the controller itself.
pub(super) const SWITCH: &str = "restart-on-failure";

/// Interval between liveness checks of the child, and how many in a row may fail: the same values as the container's probe when there is no
/// parent process.
const PERIOD: Duration = Duration::from_secs(10);
const FAILURES: u32 = 5;

/// Timeout of a check.
const PATIENCE: Duration = Duration::from_secs(5);

/// Shortest and longest wait before a restart. Each wait is twice the previous one, until a child runs for longer than the longest.
const WAITS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// Runs the command until it is asked to stop, or until the child exits successfully or rejects its command line.
pub(super) fn main(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let Some(flags) = role::begin(matches, "parent of the controller") else { return Ok(ExitCode::SUCCESS) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let signals = Signals::new(&runtime)?;
    let admin = role::admin_address(&flags, Some(ADMIN_PORT))?;
    let mut command = Command::new(std::env::current_exe().context("the path of this program")?);
    let switch = format!("--{SWITCH}");
    command.args(std::env::args_os().skip(1).filter(|word| *word != *switch));
    // A signal from the terminal reaches the child once, through this process.
    command.process_group(0);
    let code = runtime.block_on(keep(command, reachable(admin), signals))?;
    // A check that awaits its answer must not delay the exit.
    runtime.shutdown_background();
    Ok(code)
}

async fn keep(mut command: Command, admin: SocketAddr, mut signals: Signals) -> anyhow::Result<ExitCode> {
    let mut exits = signal(SignalKind::child())?;
    let mut waits = Waits::default();
    loop {
        let started = Instant::now();
        let mut child = command.spawn().context("the controller's process can't be started")?;
        info!(process = child.id(), "the controller runs as a process of its own");
        let status = tokio::select! {
            status = ended(&mut child, &mut exits) => status?,
            () = hung(async || answers(admin).await) => {
                error!(process = child.id(), "killing the controller: it failed {FAILURES} liveness checks in a row");
                child.kill()?;
                ended(&mut child, &mut exits).await?
            }
            () = signals.next() => return end(child, exits, signals).await,
        };
        if status.success() || status.code() == Some(USAGE.into()) {
            return Ok(code(status));
        }
        let wait = waits.after(started.elapsed());
        error!(%status, wait_seconds = wait.as_secs(), "the controller failed and will be restarted; its proxy keeps serving");
        tokio::select! {
            () = sleep(wait) => {}
            () = signals.next() => return Ok(ExitCode::SUCCESS),
        }
    }
}

/// Passes on each termination signal until the child has ended.
async fn end(
    mut child: Child,
    mut exits: tokio::signal::unix::Signal,
    mut signals: Signals,
) -> anyhow::Result<ExitCode> {
    let id = Pid::from_raw(child.id().try_into()?);
    loop {
        // The child may have ended already; until it is waited for, no other process gets its process id.
        let _ = kill(id, Signal::SIGTERM);
        tokio::select! {
            status = ended(&mut child, &mut exits) => return Ok(code(status?)),
            () = signals.next() => {}
        }
    }
}

/// Waits until the child has ended. `exits` must have been made before the child was.
async fn ended(child: &mut Child, exits: &mut tokio::signal::unix::Signal) -> io::Result<ExitStatus> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        exits.recv().await;
    }
}

/// The equivalent exit status for this process; for a signal, the one that a shell would use.
fn code(status: ExitStatus) -> ExitCode {
    let code = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default());
    u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// Waits until a process has failed to answer [`FAILURES`] times in a row.
async fn hung(mut answers: impl AsyncFnMut() -> bool) {
    let mut failures = 0;
    let mut times = interval_at(Instant::now() + PERIOD, PERIOD);
    while failures < FAILURES {
        times.tick().await;
        failures = if timeout(PATIENCE, answers()).await.unwrap_or(false) { 0 } else { failures + 1 };
    }
}

/// Whether the child reports that it is alive.
async fn answers(admin: SocketAddr) -> bool {
    if admin.port() == 0 {
        // The kernel chose the port, and only the child knows it.
        return true;
    }
    tokio::task::spawn_blocking(move || ask::get(admin, "/livez").is_ok()).await.unwrap_or_default()
}

/// The address by which this machine reaches a server that listens on `address`.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) if v4.ip().is_unspecified() => address.set_ip(Ipv4Addr::LOCALHOST.into()),
        SocketAddr::V6(v6) if v6.ip().is_unspecified() => address.set_ip(Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    address
}

/// How long to wait before a restart.
#[derive(Default)]
struct Waits {
    last: Option<Duration>,
}

impl Waits {
    /// The wait after a child that ran for this long.
    fn after(&mut self, ran: Duration) -> Duration {
        let (shortest, longest) = WAITS;
        let before = self.last.filter(|_| ran <= longest);
        let wait = before.map_or(shortest, |before| (before * 2).min(longest));
        self.last = Some(wait);
        wait
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn a_child_that_fails_again_and_again_is_started_less_often() {
        let mut waits = Waits::default();
        let mut after = |seconds| waits.after(Duration::from_secs(seconds)).as_secs();
        assert_eq!([0; 7].map(&mut after), [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!([30, 31, 0].map(&mut after), [30, 1, 2]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_hangs_that_does_not_answer_five_times_in_a_row() {
        let asked = Cell::new(0);
        let begun = Instant::now();
        hung(async || {
            asked.set(asked.get() + 1);
            // One answer in time, the fifth, resets the count.
            asked.get() == 5
        })
        .await;
        assert_eq!((asked.get(), begun.elapsed()), (10, PERIOD * 10));
        // Silence takes no longer to detect than refusals.
        let begun = Instant::now();
        hung(async || std::future::pending().await).await;
        assert_eq!(begun.elapsed(), PERIOD * 5 + PATIENCE);
    }

    #[test]
    fn an_exit_status_is_passed_on() {
        for (wait_status, expected) in [(0, 0), (1 << 8, 1), (2 << 8, 2), (9, 137)] {
            assert_eq!(code(ExitStatus::from_raw(wait_status)), ExitCode::from(expected));
        }
    }

    #[test]
    fn the_child_is_asked_where_it_can_be_reached() {
        for (address, expected) in [("[::]:1", "[::1]:1"), ("0.0.0.0:1", "127.0.0.1:1"), ("10.0.0.1:1", "10.0.0.1:1")] {
            assert_eq!(reachable(address.parse().unwrap()), expected.parse().unwrap());
        }
    }
}
