//! The status of objects of the Gateway API, as data: what the controller writes, `check` prints and tests compare.
//!
//! It has no generations or times, which belong to the version of the object and to the write.

use std::fmt;

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::api::ParentReference;
use crate::objects::ObjectKey;

/// One condition.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Condition {
    /// Its type.
    pub kind: &'static str,
    /// Whether it holds.
    pub holds: bool,
    /// Why, in one word of the specification.
    pub reason: &'static str,
    /// Why, for people; empty if there is nothing to add.
    pub message: String,
}

/// Why something is not in order: the reason of the condition, and a message.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Shortcoming {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
}

impl Shortcoming {
    pub(crate) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }

    /// That an older policy has the same target.
    pub(crate) fn conflict_with(older: &ObjectKey) -> Self {
        Self::new("Conflicted", format!("{older} is older and has the same target"))
    }
}

/// A fault in a field of an object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct FieldFault {
    pub(crate) field: String,
    pub(crate) why: Shortcoming,
}

impl FieldFault {
    pub(crate) fn new(field: impl Into<String>, reason: &'static str, message: impl Into<String>) -> Self {
        Self { field: field.into(), why: Shortcoming::new(reason, message) }
    }

    /// The fault as a condition has it, with the field in the message.
    pub(crate) fn shortcoming(&self) -> Shortcoming {
        Shortcoming::new(self.why.reason, format!("{}: {}", self.field, self.why.message))
    }
}

impl Condition {
    /// A condition that holds, for the reason of the same name.
    pub(crate) fn good(kind: &'static str) -> Self {
        Self { kind, holds: true, reason: kind, message: String::new() }
    }

    pub(crate) fn new(kind: &'static str, holds: bool, fault: &Shortcoming) -> Self {
        Self { kind, holds, reason: fault.reason, message: fault.message.clone() }
    }

    /// A condition that holds unless there is a fault.
    pub(crate) fn of(kind: &'static str, fault: Option<&Shortcoming>) -> Self {
        fault.map_or_else(|| Self::good(kind), |fault| Self::new(kind, false, fault))
    }
}

impl Serialize for Condition {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("Condition", 4)?;
        out.serialize_field("type", self.kind)?;
        out.serialize_field("status", if self.holds { "True" } else { "False" })?;
        out.serialize_field("reason", self.reason)?;
        out.serialize_field("message", &self.message)?;
        out.end()
    }
}

/// `Accepted=False/NoMatchingParent: …`
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let holds = if self.holds { "True" } else { "False" };
        write!(f, "{}={holds}/{}", self.kind, self.reason)?;
        if self.message.is_empty() { Ok(()) } else { write!(f, ": {}", self.message) }
    }
}

/// The status of one object.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(untagged)]
pub enum ObjectStatus {
    /// Of a GatewayClass.
    #[serde(rename_all = "camelCase")]
    Class {
        /// Its conditions.
        conditions: Vec<Condition>,
        /// What the class can do, by the names of the conformance suite.
        supported_features: Vec<Feature>,
    },
    /// Of a Gateway.
    Gateway {
        /// Its conditions.
        conditions: Vec<Condition>,
        /// Its listeners, in the order of the spec.
        listeners: Vec<ListenerStatus>,
        /// Its own addresses; `None` if it has the shared ones.
        #[serde(skip_serializing_if = "Option::is_none")]
        addresses: Option<Vec<StatusAddress>>,
        /// The number of ListenerSets that add listeners to it.
        attached_listener_sets: usize,
    },
    /// Of a ListenerSet.
    #[serde(rename_all = "camelCase")]
    ListenerSet {
        /// Its conditions.
        conditions: Vec<Condition>,
        /// Its listeners, in the order of the spec.
        listeners: Vec<ListenerStatus>,
    },
    /// Of a policy.
    Policy {
        /// The Gateways at which it applies.
        ancestors: Vec<AncestorStatus>,
    },
    /// Of a route.
    Route {
        /// Its parents that are ours, in the order of the spec.
        parents: Vec<ParentStatus>,
    },
}

/// An address of a Gateway.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub struct StatusAddress {
    /// `IPAddress` or `Hostname`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The address.
    pub value: String,
}

/// A feature of the conformance suite.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct Feature {
    /// Its name.
    pub name: &'static str,
}

/// The status of a listener.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerStatus {
    /// Its name.
    pub name: String,
    /// The kinds of route that it takes.
    pub supported_kinds: Vec<SupportedKind>,
    /// The number of routes that it has taken.
    pub attached_routes: usize,
    /// Its conditions.
    pub conditions: Vec<Condition>,
}

/// A kind of route.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct SupportedKind {
    /// API group.
    pub group: &'static str,
    /// Kind.
    pub kind: &'static str,
}

/// The status of a route at one parent.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ParentStatus {
    /// The parent, as the route names it, with the defaults of the API.
    pub parent_ref: ParentReference,
    /// Its conditions.
    pub conditions: Vec<Condition>,
}

impl Eq for ParentStatus {}

/// The status of a policy at one Gateway.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AncestorStatus {
    /// The Gateway.
    pub ancestor_ref: ParentReference,
    /// Its conditions.
    pub conditions: Vec<Condition>,
}

impl Eq for AncestorStatus {}

/// The fully supported features, as the conformance suite names them, sorted.
pub(crate) const FEATURES: &[Feature] = &[
    Feature { name: "BackendTLSPolicy" },
    Feature { name: "BackendTLSPolicySANValidation" },
    Feature { name: "GRPCRoute" },
    Feature { name: "GRPCRouteNamedRouteRule" },
    Feature { name: "GRPCRouteRequestHeaderModifier" },
    Feature { name: "Gateway" },
    Feature { name: "GatewayAddressEmpty" },
    Feature { name: "GatewayBackendClientCertificate" },
    Feature { name: "GatewayFrontendClientCertificateValidation" },
    Feature { name: "GatewayFrontendClientCertificateValidationInsecureFallback" },
    Feature { name: "GatewayHTTPListenerIsolation" },
    Feature { name: "GatewayHTTPSListenerDetectMisdirectedRequests" },
    Feature { name: "GatewayInfrastructure" },
    Feature { name: "GatewayPort8080" },
    Feature { name: "GatewayRouteHostnameIntersectionPrecedence" },
    Feature { name: "GatewayStaticAddresses" },
    Feature { name: "HTTPRoute" },
    Feature { name: "HTTPRoute303RedirectStatusCode" },
    Feature { name: "HTTPRoute307RedirectStatusCode" },
    Feature { name: "HTTPRoute308RedirectStatusCode" },
    Feature { name: "HTTPRouteBackendProtocolH2C" },
    Feature { name: "HTTPRouteBackendProtocolWebSocket" },
    Feature { name: "HTTPRouteBackendRequestHeaderModification" },
    Feature { name: "HTTPRouteBackendTimeout" },
    Feature { name: "HTTPRouteBackendURLRewrite" },
    Feature { name: "HTTPRouteCORS" },
    Feature { name: "HTTPRouteDestinationPortMatching" },
    Feature { name: "HTTPRouteHostRewrite" },
    Feature { name: "HTTPRouteMethodMatching" },
    Feature { name: "HTTPRouteNamedRouteRule" },
    Feature { name: "HTTPRouteParentRefPort" },
    Feature { name: "HTTPRoutePathRedirect" },
    Feature { name: "HTTPRoutePathRewrite" },
    Feature { name: "HTTPRoutePortRedirect" },
    Feature { name: "HTTPRouteQueryParamMatching" },
    Feature { name: "HTTPRouteRequestMirror" },
    Feature { name: "HTTPRouteRequestMultipleMirrors" },
    Feature { name: "HTTPRouteRequestPercentageMirror" },
    Feature { name: "HTTPRouteRequestTimeout" },
    Feature { name: "HTTPRouteResponseHeaderModification" },
    Feature { name: "HTTPRouteRetryCodes" },
    Feature { name: "HTTPRouteRetryConnectionError" },
    Feature { name: "HTTPRouteSchemeRedirect" },
    Feature { name: "ListenerSet" },
    Feature { name: "ReferenceGrant" },
    Feature { name: "TCPRoute" },
    Feature { name: "TLSRoute" },
    Feature { name: "TLSRouteModeMixed" },
    Feature { name: "TLSRouteModeTerminate" },
    Feature { name: "UDPRoute" },
];
