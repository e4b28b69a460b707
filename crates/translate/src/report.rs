//! What there is to tell users about their objects: findings, verdicts on what ingress-nginx knows, and how an object stands with us.

pub mod diagnostic;
pub(crate) mod external_dns;
pub(crate) mod reports;
pub mod standing;
pub mod verdict;

pub(crate) use reports::Reports;
