//! Kubernetes ingress controller and proxy.
fn main() {}
