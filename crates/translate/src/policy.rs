//! What routes may ask for beyond a match and backends, built from values that a user wrote: the annotations of an Ingress, or a
//! RoutePolicy, which become the same here. A restriction that can't be built is an error, and the reader denies access.

pub(crate) mod check;
pub(crate) mod error_page;
pub(crate) mod external_auth;
pub(crate) mod forward;
pub(crate) mod user_auth;
pub(crate) mod wishes;

use fairway_model::Rewrite;

use crate::value::RewriteTarget;

/// Why a path that replaces the one of a request is refused.
pub(crate) const NOT_CANONICAL: &str = "expected a path in canonical form, without dot segments and wrong percent escapes: a backend could read \
                                        another one than was matched, so no request can be sent";

/// Whether a rewrite makes no path that can be sent, for [`NOT_CANONICAL`].
pub(crate) fn is_never_sent(target: &RewriteTarget) -> bool {
    let RewriteTarget::Path(path) = target else { return false };
    Rewrite { target: path.as_str().into(), forwarded_prefix: None }.refuses_all()
}
