//! The requests of the scene's pods to the API server and its responses, from the audit log of the cluster.

use std::sync::PoisonError;

use jiff::Timestamp;

use super::Scene;
use crate::cluster::Cluster;
use crate::cluster::audit::{Event, Log};

/// One request, at its end; for a watch, at its start and at its end.
#[derive(Clone, Debug)]
pub struct Request {
    /// The requesting pod.
    pub pod: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`.
    pub verb: String,
    /// The requested resource, for example `ingresses` or `ingresses/status`.
    pub resource: String,
    /// The requested namespace, empty for all.
    pub namespace: String,
    /// The requested name, empty for a list or a watch.
    pub name: String,
    /// The status of the response; 0 if there was none.
    pub code: u16,
    /// When it arrived.
    pub received: Timestamp,
    /// When the response was sent.
    pub answered: Timestamp,
    /// Whether it is over; only watches are reported earlier.
    pub over: bool,
}

/// The part read so far. Tests ask repeatedly, and the log of a long run has tens of megabytes.
#[derive(Debug)]
pub(super) struct Audit {
    log: Log,
    requests: Vec<Request>,
}

impl Audit {
    /// Starts now: before the scene's namespace exists, it contains no pods.
    pub(super) fn begin(cluster: &Cluster) -> anyhow::Result<Self> {
        Ok(Self { log: Log::from_now(cluster.layout())?, requests: Vec::new() })
    }
}

impl Scene {
    /// All requests of the scene's pods so far, in the order of the responses.
    ///
    /// # Errors
    /// If the log can't be read.
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
