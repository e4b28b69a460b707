//! What there is to say about objects now, for whoever shows it: the metrics and the admin port of the proxy.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use fairway_translate::diagnostic::Diagnostic;
use fairway_translate::objects::ObjectKey;

/// The findings that hold now; clones share them.
#[derive(Clone, Debug, Default)]
pub struct Findings(Arc<Mutex<BTreeMap<ObjectKey, Vec<Diagnostic>>>>);

impl Findings {
    /// All of them, by object.
    pub fn list(&self) -> Vec<Diagnostic> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().flatten().cloned().collect()
    }

    /// Takes over what is to be said about an object from now on, and tells what was said before.
    pub(crate) fn set(&self, key: &ObjectKey, diagnostics: &[Diagnostic]) -> Vec<Diagnostic> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if diagnostics.is_empty() { all.remove(key) } else { all.insert(key.clone(), diagnostics.to_vec()) }
            .unwrap_or_default()
    }
}
