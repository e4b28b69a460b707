//! The user object that a model value came from, for log lines, errors and explanations.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The kind of values that no user object asked for.
const BUILT_IN: &str = "Fairway";

/// The Kubernetes object (and the part of it) that a value was translated from.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// Kind of the object, for example `Ingress` or `Service`.
    pub kind: Arc<str>,
    /// Namespace of the object; empty if it is cluster-scoped or built in.
    pub namespace: Arc<str>,
    /// Name of the object.
    pub name: Arc<str>,
    /// The part of the object, for example `rules[0].paths[2]`; empty for the whole object.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub section: Box<str>,
}

impl Origin {
    /// An origin that refers to a whole object.
    pub fn new(kind: impl Into<Arc<str>>, namespace: impl Into<Arc<str>>, name: impl Into<Arc<str>>) -> Self {
        Self { kind: kind.into(), namespace: namespace.into(), name: name.into(), section: "".into() }
    }

    /// The origin of a value that no user object asked for, such as the answer for unknown hosts.
    pub fn built_in(name: &str) -> Self {
        Self::new(BUILT_IN, "", name)
    }

    /// Whether no user object asked for the value.
    pub fn is_built_in(&self) -> bool {
        &*self.kind == BUILT_IN
    }

    /// The same object, narrowed to one part of it.
    #[must_use]
    pub fn section(&self, section: impl Into<Box<str>>) -> Self {
        Self { section: section.into(), ..self.clone() }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.kind)?;
        if !self.namespace.is_empty() {
            write!(f, "{}/", self.namespace)?;
        }
        f.write_str(&self.name)?;
        if !self.section.is_empty() {
            write!(f, "#{}", self.section)?;
        }
        Ok(())
    }
}
