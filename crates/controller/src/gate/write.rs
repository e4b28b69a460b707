//! Writes the condition of a pod.

use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::{CONDITION, PATIENCE};
use crate::api::{ApiServer, CallError, collection};

/// Why the condition is true.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// All proxies know the pod.
    Known,
    /// Not all do, but it has waited long enough.
    TimedOut,
}

/// A condition to write.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Routed {
    pub(crate) uid: Box<str>,
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) verdict: Verdict,
    /// The number of proxies that know it.
    pub(crate) knowing: usize,
    /// The number of all proxies.
    pub(crate) of: usize,
}

impl Routed {
    /// Writes it, provided that the pod of this name is still the same.
    pub(crate) async fn run(&self, api: &ApiServer) -> Result<(), CallError> {
        let Self { uid, namespace, name, verdict, knowing, of } = self;
        let (reason, message) = match verdict {
            Verdict::Known => ("Known", format!("{knowing} of {of} proxies know this pod")),
            Verdict::TimedOut => {
                let seconds = PATIENCE.as_secs();
                (
                    "Timeout",
                    format!("{knowing} of {of} proxies know this pod after {seconds} seconds, which is long enough"),
                )
            }
        };
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let condition = json!({
            "type": CONDITION, "status": "True", "reason": reason, "message": message, "lastTransitionTime": now,
        });
        // Conditions are merged by their type.
        let patch = Patch::Strategic(json!({"metadata": {"uid": uid}, "status": {"conditions": [condition]}}));
        let pods = collection("v1", "pods", Some(namespace));
        api.call::<Value>(pods.patch_subresource("status", name, &PatchParams::default(), &patch)).await.map(drop)
    }
}
