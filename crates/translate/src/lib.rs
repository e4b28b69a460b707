//! Kubernetes objects in, model out, plus status and diagnostics: pure functions, without I/O, clock or randomness.

pub mod annotation;
pub mod configmap;
pub mod diagnostic;
pub mod flag;
pub mod value;
pub mod verdict;
