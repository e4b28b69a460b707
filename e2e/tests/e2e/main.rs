//! End-to-end tests. `cargo xtask e2e` runs them.

// Helpers of tests may panic like tests.
#![allow(clippy::unwrap_used)]

mod acme;
mod chart;
mod churn;
mod cluster;
mod conformance;
mod docs;
mod ecosystem;
mod gate;
mod gateway;
mod ground;
mod install;
mod kube_proxy;
mod kubelet;
mod moving;
mod outage;
mod pair;
mod pod;
mod rights;
mod rollout;
mod rotation;
mod scaling;
mod scope;
mod service;
mod split;
mod standing;
mod status;
mod validation;
