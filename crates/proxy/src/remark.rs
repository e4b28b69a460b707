//! What responses reveal about users' objects. It is noted once per backend, so ordinary requests never take the lock.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use fairway_model::{Backend, BackendName, Origin, Snapshot};

/// The reason of the finding about a backend that has sent X-Accel-Redirect.
pub(crate) const ACCEL_REDIRECT: &str = "AccelRedirectIgnored";

/// The text of that finding.
pub(crate) const ACCEL_REDIRECT_TEXT: &str = "a response has X-Accel-Redirect, by which nginx would serve another location of its own; \
     the field is removed, and the response is passed on as it is. Let the backend send the content itself, or a redirect";

/// The backends that have sent X-Accel-Redirect, which is not honoured. Shared by all workers; there is at most one entry per
/// backend.
#[derive(Clone, Debug, Default)]
pub(crate) struct Remarks(Arc<Mutex<BTreeMap<BackendName, Origin>>>);

impl Remarks {
    /// Notes that a backend relies on X-Accel-Redirect, and logs it the first time.
    pub(crate) fn accel_redirect(&self, backend: &Backend) {
        if self.noted().insert(backend.name.clone(), backend.origin.clone()).is_none() {
            let Origin { kind, namespace, name, .. } = &backend.origin;
            let (kind, namespace, name) = (&**kind, &**namespace, &**name);
            tracing::warn!(kind, namespace, name, reason = ACCEL_REDIRECT, "{ACCEL_REDIRECT_TEXT}");
        }
    }

    /// The Services of these backends. Backends that the snapshot no longer has are forgotten.
    pub(crate) fn accel_redirects(&self, snapshot: &Snapshot) -> Vec<Origin> {
        let mut noted = self.noted();
        noted.retain(|backend, _| snapshot.backend(backend).is_some());
        noted.values().cloned().collect()
    }

    fn noted(&self) -> MutexGuard<'_, BTreeMap<BackendName, Origin>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
