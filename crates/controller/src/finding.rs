//! The current findings about objects, for the metrics and the admin port of the proxy.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use fairway_translate::diagnostic::Diagnostic;
use fairway_translate::objects::ObjectKey;

/// The current findings; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Findings(Arc<Mutex<BTreeMap<ObjectKey, Vec<Diagnostic>>>>);

impl Findings {
    /// All findings, by object.
    pub fn list(&self) -> Vec<Diagnostic> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().flatten().cloned().collect()
    }

    /// Replaces the findings about an object and returns the previous ones.
    pub(crate) fn set(&self, key: &ObjectKey, diagnostics: &[Diagnostic]) -> Vec<Diagnostic> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if diagnostics.is_empty() { all.remove(key) } else { all.insert(key.clone(), diagnostics.to_vec()) }
            .unwrap_or_default()
    }
}
