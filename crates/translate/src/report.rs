//! Reports to users about their objects: findings, verdicts on names of ingress-nginx, and the standing of an object.

pub mod diagnostic;
pub(crate) mod external_dns;
pub(crate) mod reports;
pub mod standing;
pub mod verdict;

pub(crate) use reports::Reports;
