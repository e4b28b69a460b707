//! The rights granted by the roles of the chart.

use std::collections::BTreeSet;
use std::fmt;

use serde::Deserialize;

use super::audit::{Grant, JudgedRequest};

/// The release name to use for rendering: in the name of an object it stands for any release.
pub const RELEASE: &str = "any-release";

/// The scope of a right.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Scope {
    /// The whole cluster: the right is in a ClusterRole.
    Cluster,
    /// One namespace: the right is in a Role.
    Namespace,
}

/// A single right.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Right {
    /// Where.
    pub scope: Scope,
    /// The API group.
    pub group: String,
    /// The resource, with its subresource: `ingresses/status`.
    pub resource: String,
    /// The verb.
    pub verb: String,
    /// The names of the objects it is restricted to; empty for all.
    pub names: Vec<String>,
}

impl Right {
    /// Whether it covers a request of a release's account.
    pub(super) fn allows(&self, request: &JudgedRequest) -> bool {
        let action = &request.action;
        let is_named = |name: &String| name.replace(RELEASE, &request.account.name) == action.name;
        (&self.group, &self.resource, &self.verb) == (&action.group, &action.resource, &action.verb)
            && (self.names.is_empty() || self.names.iter().any(is_named))
    }

    /// The role and binding that would give it to the account of a request.
    pub(super) fn grant(&self, request: &JudgedRequest) -> Grant {
        let namespace = match self.scope {
            Scope::Cluster => String::new(),
            Scope::Namespace => request.action.namespace.clone(),
        };
        Grant { namespace, name: request.account.name.clone() }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { scope, group, resource, verb, names } = self;
        let place = match scope {
            Scope::Cluster => "the whole cluster",
            Scope::Namespace => "a namespace",
        };
        write!(f, "{verb} {resource} of {group:?} in {place}")?;
        if names.is_empty() { Ok(()) } else { write!(f, ", called {}", names.join(" or ")) }
    }
}

/// All rights granted by the roles in rendered manifests.
///
/// # Errors
/// If they are not valid YAML.
pub fn rights(manifests: &[u8]) -> serde_norway::Result<BTreeSet<Right>> {
    let mut rights = BTreeSet::new();
    for document in serde_norway::Deserializer::from_slice(manifests) {
        let Some(object) = Option::<ChartObject>::deserialize(document)? else { continue };
        let scope = match object.kind.as_str() {
            "ClusterRole" => Scope::Cluster,
            "Role" => Scope::Namespace,
            _ => continue,
        };
        for rule in object.rules {
            for group in &rule.api_groups {
                for resource in &rule.resources {
                    rights.extend(rule.verbs.iter().map(|verb| Right {
                        scope,
                        group: group.clone(),
                        resource: resource.clone(),
                        verb: verb.clone(),
                        names: rule.resource_names.clone(),
                    }));
                }
            }
        }
    }
    Ok(rights)
}

/// An object of any kind; a role has rules.
#[derive(Deserialize)]
struct ChartObject {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    api_groups: Vec<String>,
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
    verbs: Vec<String>,
}
