//! Which of several replicas may write: the one that holds a Lease.
//!
//! The algorithm and the fields are those of client-go, so a replica of ingress-nginx and one of ours with the same
//! election id exclude each other. Time is measured with the monotonic clock of this process, starting when a record is
//! first seen, so the clocks of nodes need not agree. Invariant: the leader has renewed within half of the Lease's
//! duration, and all others wait for nearly the whole of it: shorter by the time that a renewal may have gone
//! unnoticed, so that a dead leader is replaced within the Lease's duration.

use std::time::Duration;

use fairway_model::ErrorChain;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{GetParams, PostParams};
use kube::core::Request;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{info, warn};

use crate::api::{ApiServer, CallError, collection};

/// How often a waiting replica reads the Lease within its duration. With the default of 30 s that is every 2 s, as in
/// client-go.
const LOOKS: u32 = 16;

/// The end of our leadership; `None` if we don't lead.
pub(crate) type Term = Option<Instant>;

/// Competes for one Lease.
pub(crate) struct Candidate {
    api: ApiServer,
    request: Request,
    namespace: String,
    name: String,
    identity: String,
    ttl: Duration,
    /// The record of the holder, and when we first saw it.
    observed: Option<(LeaseSpec, Instant)>,
    /// The start of the current request for the Lease.
    attempt: Instant,
}

/// The result of an attempt.
enum Attempt {
    /// We hold the Lease.
    Held,
    /// Another replica holds it.
    HeldBy(String),
    /// Another replica wrote it between our read and our write. All we know is that we did not renew.
    Contested,
}

impl Candidate {
    /// `identity` must differ between replicas.
    pub(crate) fn new(api: ApiServer, namespace: &str, name: &str, identity: &str, ttl: Duration) -> Self {
        Self {
            api,
            request: collection("coordination.k8s.io/v1", "leases", Some(namespace)),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity: identity.to_owned(),
            ttl,
            observed: None,
            attempt: Instant::now(),
        }
    }

    /// Competes and renews until `stop` resolves, then releases the Lease.
    pub(crate) async fn run(mut self, term: watch::Sender<Term>, stop: impl Future<Output = ()>) {
        tokio::select! {
            () = self.compete(&term) => (),
            () = stop => (),
        }
        let until = term.send_replace(None);
        if let Some(until) = until.filter(|until| Instant::now() < *until) {
            match timeout_at(until, self.release()).await {
                Ok(Ok(())) => info!(lease = self.name, "gave the Lease back"),
                Ok(Err(error)) => {
                    warn!(lease = self.name, error = %ErrorChain(&error), "cannot give the Lease back");
                }
                Err(_) => (),
            }
        }
    }

    async fn compete(&mut self, term: &watch::Sender<Term>) {
        let mut failing = false;
        loop {
            let begin = Instant::now();
            self.attempt = begin;
            // The renewal interval counts from before the request: the API server may have stored it at any moment
            // since.
            let lead_until = begin + self.ttl / 2;
            let deadline = term.borrow().unwrap_or(lead_until).max(begin);
            let result = timeout_at(deadline, self.attempt()).await;
            let leading = term.borrow().is_some();
            let mut next = begin + self.ttl / LOOKS;
            match result {
                Ok(Ok(Attempt::Held)) => {
                    failing = false;
                    next = begin + self.ttl / 4;
                    if !leading {
                        info!(lease = self.name, namespace = self.namespace, "leading: this replica writes status");
                    }
                    term.send_replace(Some(lead_until));
                }
                Ok(Ok(Attempt::HeldBy(holder))) => {
                    failing = false;
                    // The holder may be dead: then our turn comes as soon as its record expires.
                    let retry = begin + self.ttl / LOOKS;
                    next = self.end_of_record().map_or(retry, |end| end.min(retry));
                    if leading {
                        warn!(lease = self.name, holder, "lost the Lease");
                        term.send_replace(None);
                    }
                }
                Ok(Err(error)) if !failing => {
                    failing = true;
                    let error = ErrorChain(&error);
                    warn!(lease = self.name, namespace = self.namespace, %error, "cannot ask for the Lease; trying again");
                }
                Ok(Ok(Attempt::Contested)) | Ok(Err(_)) | Err(_) => (),
            }
            let next = next.max(Instant::now() + self.ttl / 64);
            // Without renewal the term ends on its own, even between two attempts.
            let end = *term.borrow();
            if let Some(end) = end.filter(|end| *end <= next) {
                sleep_until(end).await;
                warn!(lease = self.name, "could not renew the Lease in time: this replica stops writing");
                term.send_replace(None);
            }
            sleep_until(next).await;
        }
    }

    async fn attempt(&mut self) -> Result<Attempt, CallError> {
        let now = MicroTime(Timestamp::now());
        let found: Result<Lease, _> = self.api.call(self.request.get(&self.name, &GetParams::default())).await;
        let mut lease = match found {
            Ok(lease) => lease,
            Err(error) if error.code() == Some(404) => {
                let metadata = ObjectMeta {
                    name: Some(self.name.clone()),
                    namespace: Some(self.namespace.clone()),
                    ..ObjectMeta::default()
                };
                let lease = Lease { metadata, spec: Some(self.record(None, now)) };
                let body = serde_json::to_vec(&lease).map_err(CallError::Decode)?;
                return self.settle(self.api.call(self.request.create(&PostParams::default(), body)).await);
            }
            Err(error) => return Err(error),
        };
        let spec = lease.spec.take().unwrap_or_default();
        self.observe(&spec);
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        if !holder.is_empty() && holder != self.identity && self.is_current() {
            return Ok(Attempt::HeldBy(holder.to_owned()));
        }
        lease.spec = Some(self.record(Some(&spec), now));
        let body = serde_json::to_vec(&lease).map_err(CallError::Decode)?;
        // With the version in the body, the API server rejects the write if another one came first.
        let request = self.request.replace(&self.name, &PostParams::default(), body);
        self.settle(self.api.call(request).await)
    }

    /// Interprets the result of a write. The loser of a race gets a conflict.
    fn settle(&mut self, result: Result<Lease, CallError>) -> Result<Attempt, CallError> {
        match result {
            Ok(lease) => {
                self.observe(&lease.spec.unwrap_or_default());
                Ok(Attempt::Held)
            }
            Err(error) if error.code() == Some(409) => Ok(Attempt::Contested),
            Err(error) => Err(error),
        }
    }

    fn observe(&mut self, spec: &LeaseSpec) {
        if self.observed.as_ref().is_none_or(|(observed, _)| observed != spec) {
            self.observed = Some((spec.clone(), Instant::now()));
        }
    }

    /// Whether the last record seen may still be in effect.
    fn is_current(&self) -> bool {
        self.observed.is_some() && self.end_of_record().is_none_or(|end| Instant::now() < end)
    }

    /// When the last record seen expires; `None` if it never does, or if there is none. It was written up to one
    /// interval before we saw it.
    fn end_of_record(&self) -> Option<Instant> {
        let (spec, since) = self.observed.as_ref()?;
        let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        let duration = seconds.map_or(self.ttl, Duration::from_secs);
        since.checked_add(duration - duration / LOOKS)
    }

    fn record(&self, before: Option<&LeaseSpec>, now: MicroTime) -> LeaseSpec {
        let ours = before.filter(|spec| spec.holder_identity.as_deref() == Some(&self.identity));
        let transitions = before.and_then(|spec| spec.lease_transitions).unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: Some(i32::try_from(self.ttl.as_secs().max(1)).unwrap_or(i32::MAX)),
            acquire_time: ours.and_then(|spec| spec.acquire_time.clone()).or_else(|| Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(if ours.is_some() || before.is_none() {
                transitions
            } else {
                transitions.saturating_add(1)
            }),
            ..before.cloned().unwrap_or_default()
        }
    }

    /// Clears the holder of the Lease, so that the next replica need not wait.
    async fn release(&self) -> Result<(), CallError> {
        let mut lease: Lease = self.api.call(self.request.get(&self.name, &GetParams::default())).await?;
        let Some(spec) = lease.spec.as_mut().filter(|spec| spec.holder_identity.as_deref() == Some(&self.identity))
        else {
            return Ok(());
        };
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        let body = serde_json::to_vec(&lease).map_err(CallError::Decode)?;
        self.api.call::<Lease>(self.request.replace(&self.name, &PostParams::default(), body)).await.map(drop)
    }
}
