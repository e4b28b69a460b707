//! The parts of a pod that the gate reads. The rest is dropped during decoding: a namespace may have thousands of pods.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

/// A pod with the gate, or with the label of such pods.
#[derive(Debug, Deserialize)]
pub(crate) struct GatedPod {
    pub(super) metadata: GatedMetadata,
    #[serde(default)]
    spec: GatedSpec,
    #[serde(default)]
    status: GatedStatus,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GatedMetadata {
    uid: Box<str>,
    pub(super) namespace: Box<str>,
    pub(super) name: Box<str>,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(default)]
    deletion_timestamp: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct GatedSpec {
    #[serde(default)]
    readiness_gates: Vec<ReadinessGate>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReadinessGate {
    condition_type: Box<str>,
}

#[derive(Debug, Default, Deserialize)]
struct GatedStatus {
    #[serde(default)]
    conditions: Vec<Condition>,
}

#[derive(Debug, Deserialize)]
struct Condition {
    r#type: Box<str>,
    status: Box<str>,
}

impl GatedPod {
    pub(crate) fn uid(&self) -> &str {
        &self.metadata.uid
    }

    /// The conditions that it needs besides those of its containers.
    pub(super) fn gates(&self) -> impl Iterator<Item = &str> {
        self.spec.readiness_gates.iter().map(|gate| &*gate.condition_type)
    }

    /// Whether a condition is true.
    pub(super) fn holds(&self, kind: &str) -> bool {
        self.status.conditions.iter().any(|condition| *condition.r#type == *kind && *condition.status == *"True")
    }

    /// Whether it is being deleted.
    pub(super) fn ends(&self) -> bool {
        self.metadata.deletion_timestamp.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_reduced_to_what_the_gate_reads() {
        let text = r#"{
            "metadata": {"uid": "u", "namespace": "shop", "name": "a", "annotations": {"a": "b"},
                "deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"containers": [{"name": "c"}], "readinessGates": [{"conditionType": "x"}]},
            "status": {"phase": "Running", "conditions": [{"type": "x", "status": "True", "reason": "y"},
                {"type": "z", "status": "False"}]}
        }"#;
        let pod: GatedPod = serde_json::from_str(text).unwrap();
        assert!(pod.ends() && pod.holds("x") && !pod.holds("z"));
        assert_eq!(pod.gates().collect::<Vec<_>>(), ["x"]);
        // The full type has more than a thousand bytes, and each container adds more.
        assert!(size_of::<GatedPod>() <= 160, "{}", size_of::<GatedPod>());
    }
}
