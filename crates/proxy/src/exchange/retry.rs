//! When a request may be tried again.

use fairway_model::{Retry, RetryOn};

use super::Exchange;
use super::tries::{Attempt, Serves};
use crate::error::{Failure, Side};
use crate::http::Method;
use crate::limit::TRIES;

impl Exchange<'_> {
    /// Whether a failed try used a connection that existed before and nothing came back, or the endpoint takes no more streams on it:
    /// most likely the endpoint was closing it, and gets the request again on a new one.
    pub(super) fn was_stale(&self, serves: Serves<'_>, retry: &Retry, attempt: &Attempt, failure: Failure) -> bool {
        let unprocessed = failure == Failure::Unprocessed;
        let silent = failure.is_closed() && self.endpoint.received() == 0;
        attempt.kept && (silent || unprocessed) && self.may_send_again(serves, retry, unprocessed)
    }

    /// Whether a failure leads to another try.
    pub(super) fn retries_failure(&self, serves: Serves<'_>, retry: &Retry, tries: u32, failure: Failure) -> bool {
        failure.side() == Side::Upstream
            && covers(&retry.on, failure)
            && self.may_retry(serves, retry, tries, failure.is_connect())
            // A try that could not connect was no load for anyone.
            && (failure.is_connect() || self.is_in_budget())
    }

    /// Whether the status of a response leads to another try.
    pub(super) fn retries_status(&self, serves: Serves<'_>, retry: &Retry, tries: u32, status: u16) -> bool {
        retry.on.statuses.contains(&status) && self.may_retry(serves, retry, tries, false) && self.is_in_budget()
    }

    /// Takes a retry out of the backend's budget; `false` if it is used up.
    fn is_in_budget(&self) -> bool {
        let (shard, percent) = (&self.facts.shard, self.live.snapshot.settings().retry_budget);
        let (Some(percent), Some(service)) = (percent, &self.service) else { return true };
        let allowed = service.budget.take(shard.timers.now(), percent.get());
        shard.metrics.borrow_mut().upstream.retries_denied += u64::from(!allowed);
        allowed
    }

    /// Whether the policy allows another try. `unprocessed` says that the last one did nothing at its endpoint.
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

    /// Whether the method may be sent twice without explicit permission (nginx `ngx_http_upstream_test_next`).
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
