//! What routes may ask for beyond a match and backends, built from values that a user wrote: the annotations of an Ingress, or a
//! RoutePolicy, which become the same here. What restricts access and can't be built is an error, and the reader denies.

pub(crate) mod check;
pub(crate) mod error_page;
pub(crate) mod external_auth;
pub(crate) mod forward;
pub(crate) mod user_auth;
pub(crate) mod wishes;
