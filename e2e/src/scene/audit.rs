//! What pods of the scene's namespace asked the API server, and how it answered: from the audit log of the cluster.

use std::sync::PoisonError;

use jiff::Timestamp;

use super::Scene;
use crate::cluster::Cluster;
use crate::cluster::audit::{Event, Log};

/// One request, at its end; for a watch, at its beginning and at its end.
#[derive(Clone, Debug)]
pub struct Request {
    /// The pod that asked.
    pub pod: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`.
    pub verb: String,
    /// What was asked for, as `ingresses` or `ingresses/status`.
    pub resource: String,
    /// The namespace of what was asked for, empty for all.
    pub namespace: String,
    /// The name of what was asked for, empty for a list or a watch.
    pub name: String,
    /// How it was answered; 0 if it was not.
    pub code: u16,
    /// When it arrived.
    pub received: Timestamp,
    /// When it was answered.
    pub answered: Timestamp,
    /// Whether it is over; only of a watch it is told before.
    pub over: bool,
}

/// What was read so far. Tests ask again and again, and the log of a long run has tens of megabytes.
#[derive(Debug)]
pub(super) struct Audit {
    log: Log,
    requests: Vec<Request>,
}

impl Audit {
    /// Begins now: before the scene's namespace is there, nobody in it asks.
    pub(super) fn begin(cluster: &Cluster) -> anyhow::Result<Self> {
        Ok(Self { log: Log::from_now(cluster.layout())?, requests: Vec::new() })
    }
}

impl Scene {
    /// All requests of pods of the scene's namespace so far, in the order in which they were answered.
    ///
    /// # Errors
    /// When the log can't be read.
    pub fn audit(&self) -> anyhow::Result<Vec<Request>> {
        let account = format!("system:serviceaccount:{}:", self.namespace());
        let mut audit = self.audit.lock().unwrap_or_else(PoisonError::into_inner);
        let Audit { log, requests } = &mut *audit;
        log.read(|line| line.contains(&account), |event| requests.extend(request(event, self.namespace())))?;
        Ok(requests.clone())
    }
}

/// The request, if a pod of the namespace made it.
fn request(event: Event, namespace: &str) -> Option<Request> {
    let pod = event.pod()?.to_owned();
    let (own, _) = event.account()?;
    if own != namespace {
        return None;
    }
    let code = event.code().unwrap_or(0);
    let object = event.object_ref;
    Some(Request {
        pod,
        verb: event.verb,
        resource: object.kind(),
        namespace: object.namespace,
        name: object.name,
        code,
        received: event.received,
        answered: event.reached,
        over: event.stage == "ResponseComplete",
    })
}
