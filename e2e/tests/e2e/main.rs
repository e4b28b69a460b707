//! End-to-end tests. `cargo xtask e2e` runs them.

mod cluster;
mod docs;
mod ground;
mod install;
mod rotation;
