//! End-to-end tests. `cargo xtask e2e` runs them.

mod acme;
mod chart;
mod churn;
mod cluster;
mod docs;
mod ground;
mod install;
mod kubelet;
mod outage;
mod rights;
mod rollout;
mod rotation;
mod status;
