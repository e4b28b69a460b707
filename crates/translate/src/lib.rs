//! Kubernetes objects in, model out, plus status and diagnostics: pure functions, without I/O, clock or randomness.
//!
//! | module | has |
//! | --- | --- |
//! | `engine` | objects, the stages' pending work, large changes in parts; it brings the stages up to date |
//! | `config` | flags, the global ConfigMap, settings, TCP and UDP services |
//! | `ingress` | the reader of Ingresses: annotations, snippets, classes, one object (`part`), one host (`merge`, `hosts`) |
//! | `gateway` | the reader of the Gateway API, with RoutePolicies and the status of objects as data |
//! | `policy` | what routes may ask for beyond that, from values: the same for annotations and RoutePolicies |
//! | `resource` | backends with their endpoints, Secrets and ConfigMaps; each knows its owners, but not what kind of objects they are |
//! | `report` | findings, verdicts, the standing of an object |
//! | `value` | small types for the text that users write |

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
