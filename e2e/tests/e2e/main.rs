//! End-to-end tests. `cargo xtask e2e` runs them.

mod acme;
mod cluster;
mod docs;
mod ground;
mod install;
mod rotation;
mod status;
