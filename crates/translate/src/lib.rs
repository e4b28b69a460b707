//! Kubernetes objects in, model out, plus status and diagnostics: pure functions, without I/O, clock or randomness.

pub mod annotation;
pub mod diagnostic;
pub mod value;
pub mod verdict;
