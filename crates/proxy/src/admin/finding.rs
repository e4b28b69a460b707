//! Findings about users' objects, reported by the source of the configuration: counted in the metrics and listed on
//! `/debug/findings`.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use fairway_model::Origin;
use serde::Serialize;

/// A finding about an object.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct Finding {
    /// The object.
    #[serde(skip)]
    pub origin: Origin,
    /// `info`, `warning` or `error`.
    pub severity: &'static str,
    /// Its kind, as one word.
    pub reason: &'static str,
    /// The field; empty for the whole object.
    pub field: String,
    /// A sentence for the user.
    pub message: String,
}

/// Lists the current findings.
#[derive(Clone)]
pub struct FindingSource(Arc<dyn Fn() -> Vec<Finding> + Send + Sync>);

impl FindingSource {
    /// Creates a source that is queried on every read.
    pub fn new(list: impl Fn() -> Vec<Finding> + Send + Sync + 'static) -> Self {
        Self(Arc::new(list))
    }

    /// Appends the findings of another source.
    #[must_use]
    pub fn and(self, others: impl Fn() -> Vec<Finding> + Send + Sync + 'static) -> Self {
        Self::new(move || {
            let mut all = self.list();
            all.extend(others());
            all
        })
    }

    /// The current findings.
    pub fn list(&self) -> Vec<Finding> {
        (self.0)()
    }

    /// Number of findings for each severity and reason.
    pub(super) fn counts(&self) -> BTreeMap<(&'static str, &'static str), u64> {
        let mut counts = BTreeMap::new();
        for finding in self.list() {
            *counts.entry((finding.severity, finding.reason)).or_default() += 1;
        }
        counts
    }

    /// The findings as JSON, by object.
    pub(super) fn json(&self) -> serde_json::Result<Vec<u8>> {
        #[derive(Serialize)]
        struct Object<'a> {
            kind: &'a str,
            namespace: &'a str,
            name: &'a str,
            findings: &'a [Finding],
        }
        let mut all = self.list();
        let object = |finding: &Finding| {
            let Origin { kind, namespace, name, .. } = &finding.origin;
            (kind.clone(), namespace.clone(), name.clone())
        };
        // The sort is stable: findings about one object keep their order.
        all.sort_by_key(object);
        let objects: Vec<_> = all
            .chunk_by(|one, other| object(one) == object(other))
            .map(|findings| {
                let Origin { kind, namespace, name, .. } = &findings[0].origin;
                Object { kind, namespace, name, findings }
            })
            .collect();
        serde_json::to_vec_pretty(&objects)
    }
}

impl Default for FindingSource {
    fn default() -> Self {
        Self::new(Vec::new)
    }
}

impl fmt::Debug for FindingSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FindingSource")
    }
}
