//! Waiting with a deadline. No test sleeps: it waits for a signal or retries until the result is right.

use std::fmt::Debug;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

/// The maximum duration of any wait in this crate before it panics.
pub const DEADLINE: Duration = Duration::from_secs(10);

/// Awaits `future`, or panics after [`DEADLINE`] with `what` in the message.
///
/// # Panics
/// If the deadline passes.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    within_limit(DEADLINE, what, future).await
}

async fn within_limit<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> T {
    match timeout(limit, future).await {
        Ok(value) => value,
        Err(_) => panic!("waited {limit:?} for {what}"),
    }
}

/// Calls `check` until it succeeds, and returns its value. [`Outcome`] defines success.
///
/// ```
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
/// # runtime.block_on(async {
/// let mut calls = 0;
/// fairway_testkit::eventually("three calls", || {
///     calls += 1;
///     let enough = calls == 3;
///     async move { enough }
/// })
/// .await;
/// # });
/// ```
///
/// # Panics
/// After [`DEADLINE`], with `what`, the number of attempts and the last failure in the message.
pub async fn eventually<F, Fut, O>(what: &str, check: F) -> O::Value
where
    F: FnMut() -> Fut,
    Fut: Future<Output = O>,
    O: Outcome,
{
    eventually_within(DEADLINE, what, check).await
}

async fn eventually_within<F, Fut, O>(limit: Duration, what: &str, mut check: F) -> O::Value
where
    F: FnMut() -> Fut,
    Fut: Future<Output = O>,
    O: Outcome,
{
    let end = Instant::now() + limit;
    let mut pause = Duration::from_millis(1);
    let mut attempts = 0;
    loop {
        attempts += 1;
        let last = match within(what, check()).await.into_result() {
            Ok(value) => return value,
            Err(reason) => reason,
        };
        assert!(Instant::now() < end, "waited {limit:?} for {what}: {attempts} attempts, the last one gave {last}");
        sleep(pause).await;
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// What a check in [`eventually`] may return: `true`, `Some` and `Ok` end the wait.
pub trait Outcome {
    /// The value that [`eventually`] returns once the check succeeds.
    type Value;

    /// The value, or a description of why there is none yet.
    fn into_result(self) -> Result<Self::Value, String>;
}

impl Outcome for bool {
    type Value = ();

    fn into_result(self) -> Result<(), String> {
        if self { Ok(()) } else { Err("false".to_owned()) }
    }
}

impl<T> Outcome for Option<T> {
    type Value = T;

    fn into_result(self) -> Result<T, String> {
        self.ok_or_else(|| "None".to_owned())
    }
}

impl<T, E: Debug> Outcome for Result<T, E> {
    type Value = T;

    fn into_result(self) -> Result<T, String> {
        self.map_err(|error| format!("{error:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    #[tokio::test]
    #[should_panic(expected = "waited 20ms for the moon: ")]
    async fn a_failure_names_the_awaited_event() {
        eventually_within(SHORT, "the moon", || async { Err::<(), _>("dark") }).await;
    }

    #[tokio::test]
    #[should_panic(expected = "waited 20ms for a signal")]
    async fn a_check_that_hangs_ends_too() {
        within_limit(SHORT, "a signal", std::future::pending::<()>()).await;
    }
}
