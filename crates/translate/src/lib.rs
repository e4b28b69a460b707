//! Kubernetes objects in, model out, plus status and diagnostics: pure functions, without I/O, clock or randomness.

pub mod annotation;
mod class;
pub mod configmap;
pub mod diagnostic;
mod external_dns;
pub mod flag;
mod ingress;
pub mod limit;
pub mod objects;
pub mod options;
mod secret;
mod service;
mod settings;
pub mod standing;
mod stream;
pub mod translator;
pub mod value;
mod variable;
pub mod verdict;

pub use diagnostic::Diagnostic;
pub use objects::{Change, Kind, Object, ObjectKey, Objects};
pub use options::Options;
pub use standing::{LeftOut, NotOurs, Standing};
pub use translator::{Translation, Translator, Update, translate};
