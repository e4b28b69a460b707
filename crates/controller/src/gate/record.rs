//! Our own Lease, in which the other controllers read which pods our proxies know.

use std::collections::BTreeSet;
use std::time::Duration;

use fairway_model::ErrorChain;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{GetParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::warn;

use super::peer::{ELECTION, EXPIRY, KNOWN, PROXIES};
use crate::api::{ApiServer, CallError, collection};
use crate::backoff::Backoff;
use crate::config;

/// The label by which the Leases are watched.
pub(super) const LABEL: (&str, &str) = ("fairway.dev/part", "readiness-gate");

/// The pause between two renewals.
const RENEWAL: Duration = Duration::from_secs(5);

/// The minimum time between two writes: pods that become known within it are reported together.
const PACE: Duration = Duration::from_millis(50);

/// The most pods that the Lease names; an object may have 256 KiB of annotations. Others follow when these have the condition.
const MOST_PODS: usize = 4000;

/// The most changes of Ingresses that it names. They are counted separately, so that no author of Ingresses keeps pods waiting.
const MOST_CHANGES: usize = 1500;

/// The contents of the Lease.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Record {
    /// The pods that all our proxies know, and that still wait.
    pub(crate) pods: BTreeSet<Box<str>>,
    /// The changes of Ingresses that all our proxies have and that are not reported yet.
    pub(crate) changes: BTreeSet<Box<str>>,
    /// The number of our proxies.
    pub(crate) proxies: usize,
}

impl Record {
    /// The names in the Lease.
    fn known(&self) -> String {
        let (pods, changes) = (self.pods.iter().take(MOST_PODS), self.changes.iter().take(MOST_CHANGES));
        pods.chain(changes).map(|name| &**name).collect::<Vec<_>>().join(" ")
    }
}

/// Writes the Lease whenever the record changes, and renews it, until the sender is gone. Kubernetes deletes it with our pod.
pub(crate) async fn keep(api: ApiServer, pod: config::Pod, election: String, mut records: watch::Receiver<Record>) {
    let mut owner = None;
    let mut backoff = Backoff::default();
    loop {
        let record = records.borrow_and_update().clone();
        let begin = Instant::now();
        let result = async {
            if owner.is_none() {
                owner = Some(own(&api, &pod).await?);
            }
            write(&api, &pod, &election, owner.as_ref().unwrap_or(&Value::Null), &record).await
        };
        let next = match result.await {
            Ok(()) => {
                backoff.reset();
                begin + RENEWAL
            }
            Err(error) => {
                if backoff.failures() == 0 {
                    let error = ErrorChain(&error);
                    warn!(%error, "cannot write the Lease that says which pods the proxies know: pods with the readiness gate may wait for half a minute");
                }
                Instant::now() + backoff.after(Some(&error))
            }
        };
        let pace = begin + PACE;
        tokio::select! {
            () = sleep_until(next) => (),
            changed = records.changed(), if backoff.failures() == 0 => {
                if changed.is_err() {
                    return;
                }
                sleep_until(pace).await;
            }
        }
    }
}

/// Our pod as the owner of the Lease.
async fn own(api: &ApiServer, pod: &config::Pod) -> Result<Value, CallError> {
    let own: Pod =
        api.call(collection("v1", "pods", Some(&pod.namespace)).get(&pod.name, &GetParams::default())).await?;
    Ok(json!({"apiVersion": "v1", "kind": "Pod", "name": pod.name, "uid": own.metadata.uid}))
}

async fn write(
    api: &ApiServer,
    pod: &config::Pod,
    election: &str,
    owner: &Value,
    record: &Record,
) -> Result<(), CallError> {
    let name = format!("{}-readiness-gate", pod.name);
    let (label, value) = LABEL;
    let lease = json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": name,
            "namespace": pod.namespace,
            "labels": {label: value},
            "annotations": {ELECTION: election, PROXIES: record.proxies.to_string(), KNOWN: record.known()},
            "ownerReferences": [owner],
        },
        "spec": {
            "holderIdentity": pod.name,
            "leaseDurationSeconds": EXPIRY.as_secs(),
            "renewTime": MicroTime(Timestamp::now()),
        },
    });
    let leases = collection("coordination.k8s.io/v1", "leases", Some(&pod.namespace));
    let apply = PatchParams::apply("fairway-readiness-gate").force();
    api.call::<Value>(leases.patch(&name, &apply, &Patch::Apply(lease))).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ingresses_take_no_places_of_pods_and_all_of_them_fit() {
        let pod = |number: usize| format!("ffffffff-ffff-ffff-ffff-{number:012}").into();
        let change = |number: usize| format!("00000000-0000-0000-0000-{number:012}/{}", i64::MAX).into();
        let record =
            Record { pods: (0..9000).map(pod).collect(), changes: (0..9000).map(change).collect(), proxies: 1 };
        let known = record.known();
        assert_eq!(known.split(' ').filter(|name| name.starts_with('f')).count(), MOST_PODS);
        assert_eq!(known.split(' ').filter(|name| name.starts_with('0')).count(), MOST_CHANGES);
        assert!(known.len() < 255 * 1024, "{}", known.len());
    }
}
