//! The kinds of the Gateway API that are read (`gateway.networking.k8s.io/v1`, version 1.7, and the built part of its experimental
//! channel), as plain data.
//!
//! They have every field of the standard channel, including those of parts that are not built yet, so that `check` recognises a misspelt
//! one. A status is not read here. The defaults are those of the CRDs.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{ClusterResourceScope, Metadata, NamespaceResourceScope, Resource};
use serde::{Deserialize, Serialize};

/// The API group.
pub const GROUP: &str = "gateway.networking.k8s.io";

macro_rules! kind {
    ($kind:ident, $plural:literal, $scope:ident, $spec:ident) => {
        kind!($kind, $plural, $scope, $spec, "gateway.networking.k8s.io", "v1");
    };
    ($kind:ident, $plural:literal, $scope:ident, $spec:ident, $group:literal, $version:literal) => {
        #[doc = concat!("A ", stringify!($kind), ".")]
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase")]
        pub struct $kind {
            /// Its name and the like.
            #[serde(default)]
            pub metadata: ObjectMeta,
            /// What it asks for.
            #[serde(default)]
            pub spec: $spec,
            /// `apiVersion` and `kind` of the text, which add no information.
            #[serde(default, rename = "apiVersion", skip_serializing)]
            pub api_version: Option<String>,
            /// See [`api_version`](Self::api_version).
            #[serde(default, skip_serializing)]
            pub kind: Option<String>,
            /// The status that controllers write; neither compared nor kept.
            #[serde(default, skip_serializing)]
            pub status: Option<Anything>,
        }

        impl Resource for $kind {
            const API_VERSION: &'static str = concat!($group, "/", $version);
            const GROUP: &'static str = $group;
            const KIND: &'static str = stringify!($kind);
            const URL_PATH_SEGMENT: &'static str = $plural;
            const VERSION: &'static str = $version;
            type Scope = $scope;
        }

        impl Metadata for $kind {
            type Ty = ObjectMeta;

            fn metadata(&self) -> &ObjectMeta {
                &self.metadata
            }

            fn metadata_mut(&mut self) -> &mut ObjectMeta {
                &mut self.metadata
            }
        }
    };
}

pub(super) use kind;

kind!(GatewayClass, "gatewayclasses", ClusterResourceScope, GatewayClassSpec);
kind!(Gateway, "gateways", NamespaceResourceScope, GatewaySpec);
kind!(HTTPRoute, "httproutes", NamespaceResourceScope, HTTPRouteSpec);
kind!(GRPCRoute, "grpcroutes", NamespaceResourceScope, GRPCRouteSpec);
kind!(TLSRoute, "tlsroutes", NamespaceResourceScope, TLSRouteSpec);
kind!(TCPRoute, "tcproutes", NamespaceResourceScope, StreamRouteSpec);
kind!(UDPRoute, "udproutes", NamespaceResourceScope, StreamRouteSpec);
kind!(ReferenceGrant, "referencegrants", NamespaceResourceScope, ReferenceGrantSpec);
kind!(BackendTLSPolicy, "backendtlspolicies", NamespaceResourceScope, BackendTLSPolicySpec);
kind!(ListenerSet, "listenersets", NamespaceResourceScope, ListenerSetSpec);

kind!(
    XBackendTrafficPolicy,
    "xbackendtrafficpolicies",
    NamespaceResourceScope,
    XBackendTrafficPolicySpec,
    "gateway.networking.x-k8s.io",
    "v1alpha1"
);
kind!(XBackend, "xbackends", NamespaceResourceScope, XBackendSpec, "gateway.networking.x-k8s.io", "v1alpha1");

kind!(
    XTelemetryPolicy,
    "xtelemetrypolicies",
    NamespaceResourceScope,
    XTelemetryPolicySpec,
    "gateway.networking.x-k8s.io",
    "v1alpha1"
);

macro_rules! record {
    ($(#[doc = $about:literal] $name:ident { $($(#[doc = $doc:literal])+ $field:ident: $type:ty,)* })+) => {$(
        #[doc = $about]
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        pub struct $name {
            $($(#[doc = $doc])+ #[serde(skip_serializing_if = "super::is_empty")] pub $field: $type,)*
        }
    )+};
}

// They come after the macro, which they use.
mod backend;
mod gateway;
mod reference;
mod route;
mod telemetry;

pub use self::backend::*;
pub use self::gateway::*;
pub use self::reference::*;
pub use self::route::*;
pub use self::telemetry::*;

/// A value that is not read. All of them are equal.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Anything;

impl<'de> Deserialize<'de> for Anything {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // This doesn't use `IgnoredAny`: a strict reader would report the value as an unknown field.
        serde_json::Value::deserialize(deserializer).map(|_| Self)
    }
}

/// Whether a value is that of a missing field.
fn is_empty<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_written_again_without_what_is_not_kept() {
        let text = r#"{"apiVersion":"gateway.networking.k8s.io/v1","kind":"HTTPRoute","metadata":{"name":"a"},
            "spec":{"parentRefs":[{"name":"gw"}],"rules":[{"matches":[{"path":{"type":"Exact","value":"/a"}}]}]},
            "status":{"parents":[{"controllerName":"x"}]}}"#;
        let route: HTTPRoute = serde_json::from_str(text).unwrap();
        let written = serde_json::to_string(&route).unwrap();
        let expected = r#"{"metadata":{"name":"a"},"spec":{"parentRefs":[{"name":"gw"}],"rules":[{"matches":[{"path":{"type":"Exact","value":"/a"}}]}]}}"#;
        assert_eq!(written, expected);
    }
}
