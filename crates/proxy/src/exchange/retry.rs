//! When a request may be tried again.

use std::num::NonZeroU32;

use fairway_model::{Retry, RetryOn};

use super::Exchange;
use super::tries::{Attempt, Serves};
use crate::error::{Failure, Side};
use crate::http::Method;
use crate::limit::TRIES;

/// What follows a try.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum AfterTry {
    /// Another one.
    Again,
    /// Its result is that of the request.
    Ends,
    /// There would be another one if the backend's budget had one left.
    Refused,
}

impl Exchange<'_> {
    /// Whether a failed try used an existing connection on which nothing came back or the endpoint takes no more streams. Most likely the
    /// endpoint was closing it, so the request goes to it again on a new one.
    pub(super) fn was_stale(&self, serves: Serves<'_>, retry: &Retry, attempt: &Attempt, failure: Failure) -> bool {
        let unprocessed = failure == Failure::Unprocessed;
        let silent = failure.is_closed() && self.endpoint.received() == 0;
        attempt.kept && (silent || unprocessed) && self.may_send_again(serves, retry, unprocessed)
    }

    /// What follows a failure.
    pub(super) fn after_failure(&self, serves: Serves<'_>, retry: &Retry, tries: u32, failure: Failure) -> AfterTry {
        if failure.side() != Side::Upstream
            || !covers(&retry.on, failure)
            || !self.may_retry(serves, retry, tries, failure.is_connect())
        {
            return AfterTry::Ends;
        }
        self.within_budget(failure.is_connect())
    }

    /// What follows a response with this status.
    pub(super) fn after_status(&self, serves: Serves<'_>, retry: &Retry, tries: u32, status: u16) -> AfterTry {
        if !retry.on.statuses.contains(&status) || !self.may_retry(serves, retry, tries, false) {
            return AfterTry::Ends;
        }
        self.within_budget(false)
    }

    /// Takes a retry out of the backend's budget. `unconnected` says that the last try could not connect.
    fn within_budget(&self, unconnected: bool) -> AfterTry {
        let (shard, percent) = (&self.facts.shard, self.live.snapshot.settings().retry_budget);
        let Some(service) = &self.service else { return AfterTry::Again };
        let is_constrained = service.budget.is_constrained();
        // A try that could not connect put no load on the backend. A backend with a budget of its own counts every try.
        if unconnected && !is_constrained {
            return AfterTry::Again;
        }
        let allowed = service.budget.take(shard.timers.now(), percent.map(NonZeroU32::get));
        shard.metrics.borrow_mut().upstream.retries_denied += u64::from(!allowed);
        match (allowed, is_constrained) {
            (true, _) => AfterTry::Again,
            (false, true) => AfterTry::Refused,
            (false, false) => AfterTry::Ends,
        }
    }

    /// Whether the policy allows another try. `unprocessed` says that the endpoint did not process the last one.
    fn may_retry(&self, serves: Serves<'_>, retry: &Retry, tries: u32, unprocessed: bool) -> bool {
        tries < retry.tries.unwrap_or(TRIES).min(TRIES)
            && retry.within.is_none_or(|within| self.dispatched.elapsed() < within)
            && self.may_send_again(serves, retry, unprocessed)
    }

    /// Whether the request itself may be sent again.
    fn may_send_again(&self, serves: Serves<'_>, retry: &Retry, unprocessed: bool) -> bool {
        if serves.is_bodiless() {
            return !self.client.is_answered();
        }
        let safe = unprocessed || self.endpoint.sent() == 0 || self.is_idempotent() || retry.on.non_idempotent;
        safe && !self.client.is_answered() && self.client.can_rewind()
    }

    /// Whether a request with this method may be sent twice without explicit permission (nginx `ngx_http_upstream_test_next`).
    pub(super) fn is_idempotent(&self) -> bool {
        match self.client.method() {
            Method::Post | Method::Patch => false,
            Method::Other => self.client.head().is_none_or(|head| head.parsed.method_bytes(head.bytes) != b"LOCK"),
            _ => true,
        }
    }
}

/// Whether a failure is among the conditions for another try. A failure to connect always is, unless there are no conditions.
fn covers(on: &RetryOn, failure: Failure) -> bool {
    if failure.is_connect() && *on != RetryOn::default() {
        return true;
    }
    match failure {
        Failure::ResponseHead(_) | Failure::InterimResponses | Failure::Upgrade => on.invalid_header,
        failure if failure.is_timeout() => on.timeout,
        _ => on.error,
    }
}
