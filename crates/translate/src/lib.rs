//! Kubernetes objects in, model out, plus status and diagnostics: pure functions, without I/O, clock or randomness.

mod config;
mod engine;
pub mod gateway;
mod ingress;
pub mod limit;
mod policy;
mod report;
mod resource;
pub mod value;

pub use config::{configmap, flag, options, variable};
pub use engine::{Translation, Translator, Update, objects, translate};
pub use ingress::{annotation, review, snippet};
pub use report::{diagnostic, standing, verdict};

pub use diagnostic::Diagnostic;
pub use objects::{Change, Kind, Object, ObjectKey, Objects};
pub use options::Options;
pub use standing::{LeftOut, NotOurs, Standing};
