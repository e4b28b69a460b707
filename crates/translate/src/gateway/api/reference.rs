//! References from one object to another, and ReferenceGrants, which allow them.

use serde::{Deserialize, Serialize};

use super::HTTPRouteFilter;

record! {
    /// See the API.
    ObjectReference {
        /// API group; that of the field by default.
        group: Option<String>,
        /// Kind; that of the field by default.
        kind: Option<String>,
        /// Name.
        name: String,
        /// Namespace; that of the object by default.
        namespace: Option<String>,
    }
    /// See the API.
    ParentReference {
        /// API group; the Gateway API's by default.
        group: Option<String>,
        /// Kind; `Gateway` by default.
        kind: Option<String>,
        /// Namespace; that of the route by default.
        namespace: Option<String>,
        /// Name.
        name: String,
        /// Only this listener.
        section_name: Option<String>,
        /// Only listeners on this port.
        port: Option<i32>,
    }
    /// See the API.
    LocalReference {
        /// API group.
        group: String,
        /// Kind.
        kind: String,
        /// Name.
        name: String,
    }
    /// See the API.
    BackendReference {
        /// API group; the core one by default.
        group: Option<String>,
        /// Kind; `Service` by default.
        kind: Option<String>,
        /// Name.
        name: String,
        /// Namespace; that of the route by default.
        namespace: Option<String>,
        /// Port.
        port: Option<i32>,
        /// Weight; 1 by default.
        weight: Option<i32>,
        /// What is done with the requests that go there.
        filters: Vec<HTTPRouteFilter>,
    }
    /// See the API.
    ReferenceGrantSpec {
        /// Who may refer.
        from: Vec<GrantFrom>,
        /// To what.
        to: Vec<GrantTo>,
    }
    /// See the API.
    GrantFrom {
        /// API group.
        group: String,
        /// Kind.
        kind: String,
        /// Namespace.
        namespace: String,
    }
}

/// See the API.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GrantTo {
    /// API group. Required also where it is empty: the core's.
    pub group: String,
    /// Kind.
    #[serde(skip_serializing_if = "super::is_empty")]
    pub kind: String,
    /// Name; any by default.
    #[serde(skip_serializing_if = "super::is_empty")]
    pub name: Option<String>,
}
