//! Errors that another service replaces.

use std::sync::Arc;

use fairway_model::{BackendName, ErrorPages, Filter, Forward, ForwardPolicy};

/// The filter that replaces errors of these statuses.
pub(crate) fn error_filter(
    statuses: &[u16],
    only_own: bool,
    first: Option<BackendName>,
    default_backend: Option<&BackendName>,
    policy: impl FnOnce() -> Arc<ForwardPolicy>,
) -> Option<Filter> {
    if statuses.is_empty() {
        return None;
    }
    let mut backends = first.into_iter().chain(default_backend.cloned());
    let forward = Forward {
        backends: backends.next()?.into(),
        fallback: backends.next(),
        session_cookie_path: None,
        policy: policy(),
    };
    Some(Filter::ErrorPages(Arc::new(ErrorPages { statuses: statuses.to_vec(), only_own, forward })))
}
