//! Validation of kinds that come with a CRD, whose schema has the rules.

use fairway_translate::gateway::GatewayParameters;
use fairway_translate::gateway::api::{
    BackendTLSPolicy, GRPCRoute, Gateway, GatewayClass, HTTPRoute, ListenerSet, ReferenceGrant, TCPRoute, TLSRoute,
    UDPRoute, XBackend, XBackendTrafficPolicy, XTelemetryPolicy,
};
use fairway_translate::gateway::policy::RoutePolicy;

use super::{Names, Refusals, Validate};

macro_rules! custom {
    ($($kind:ident)+) => {$(
        impl Validate for $kind {
            const NAMES: Names = Names::Subdomain;
            const CRD: Option<&'static str> = Some(stringify!($kind));

            fn validate(&self, _: &mut Refusals) {}
        }
    )+};
}

custom! {
    BackendTLSPolicy GRPCRoute Gateway GatewayClass HTTPRoute ListenerSet ReferenceGrant RoutePolicy TCPRoute TLSRoute
    UDPRoute XBackend XBackendTrafficPolicy XTelemetryPolicy GatewayParameters
}
