//! End-to-end tests. `cargo xtask e2e` runs them.

mod cluster;
mod rotation;
