//! Starts, shows and stops a cluster.

fn main() {}
