//! The kinds of the Gateway API that are read (`gateway.networking.k8s.io/v1`, version 1.7, and of its experimental channel what is built), as plain data.
//!
//! They have every field of the standard channel, so that `check` knows a misspelt one, and also those of parts that are not built
//! yet. A status is not read here. The defaults are those of the CRDs.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
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
            /// `apiVersion` and `kind` of the text, which say nothing new.
            #[serde(default, rename = "apiVersion", skip_serializing)]
            pub api_version: Option<String>,
            /// See [`api_version`](Self::api_version).
            #[serde(default, skip_serializing)]
            pub kind: Option<String>,
            /// Whatever controllers say about it; not compared or kept.
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
            $($(#[doc = $doc])+ #[serde(skip_serializing_if = "is_empty")] pub $field: $type,)*
        }
    )+};
}

record! {
    /// See the API.
    GatewayClassSpec {
        /// The controller that serves Gateways of the class.
        controller_name: String,
        /// For the controller.
        parameters_ref: Option<ParametersRef>,
        /// For people.
        description: Option<String>,
    }
    /// See the API.
    ParametersRef {
        /// API group.
        group: String,
        /// Kind.
        kind: String,
        /// Name.
        name: String,
        /// Namespace; not for a Gateway.
        namespace: Option<String>,
    }
    /// See the API.
    GatewaySpec {
        /// The class.
        gateway_class_name: String,
        /// What it listens on.
        listeners: Vec<GatewayListener>,
        /// Addresses that it asks for.
        addresses: Vec<GatewayAddress>,
        /// For objects that are made for it.
        infrastructure: Option<Infrastructure>,
        /// Which ListenerSets may join.
        allowed_listeners: Option<AllowedListeners>,
        /// TLS of the whole Gateway.
        tls: Option<GatewayTls>,
    }
    /// See the API.
    GatewayAddress {
        /// Type; `IPAddress` by default.
        r#type: Option<String>,
        /// Value.
        value: Option<String>,
    }
    /// See the API.
    Infrastructure {
        /// Labels.
        labels: BTreeMap<String, String>,
        /// Annotations.
        annotations: BTreeMap<String, String>,
        /// Parameters.
        parameters_ref: Option<ParametersRef>,
    }
    /// See the API.
    AllowedListeners {
        /// By namespace.
        namespaces: Option<RouteNamespaces>,
    }
    /// See the API.
    GatewayTls {
        /// Towards backends.
        backend: Option<GatewayBackendTls>,
        /// Towards clients.
        frontend: Option<FrontendTls>,
    }
    /// See the API.
    GatewayBackendTls {
        /// The certificate shown to backends.
        client_certificate_ref: Option<ObjectReference>,
    }
    /// See the API.
    FrontendTls {
        /// For all ports.
        default: Option<FrontendConfig>,
        /// For some.
        per_port: Vec<FrontendPort>,
    }
    /// See the API.
    FrontendConfig {
        /// How client certificates are verified.
        validation: Option<FrontendValidation>,
    }
    /// See the API.
    FrontendPort {
        /// The port.
        port: i32,
        /// TLS there.
        tls: Option<FrontendConfig>,
    }
    /// See the API.
    FrontendValidation {
        /// Authorities.
        ca_certificate_refs: Vec<ObjectReference>,
        /// Mode.
        mode: Option<String>,
    }
    /// See the API.
    GatewayListener {
        /// Name.
        name: String,
        /// Host name, exact or a wildcard; any by default.
        hostname: Option<String>,
        /// Port.
        port: i32,
        /// Protocol.
        protocol: String,
        /// TLS.
        tls: Option<ListenerTls>,
        /// Which routes may attach.
        allowed_routes: Option<AllowedRoutes>,
        /// What happens before a route is chosen (experimental channel).
        filters: Option<Anything>,
    }
    /// See the API.
    ListenerTls {
        /// `Terminate` by default.
        mode: Option<String>,
        /// Secrets.
        certificate_refs: Vec<ObjectReference>,
        /// For the controller.
        options: BTreeMap<String, String>,
    }
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
    AllowedRoutes {
        /// By namespace.
        namespaces: Option<RouteNamespaces>,
        /// By kind.
        kinds: Vec<RouteGroupKind>,
    }
    /// See the API.
    RouteNamespaces {
        /// `Same` by default.
        from: Option<String>,
        /// For `Selector`.
        selector: Option<LabelSelector>,
    }
    /// See the API.
    RouteGroupKind {
        /// API group; the Gateway API's by default.
        group: Option<String>,
        /// Kind.
        kind: String,
    }
    /// See the API.
    HTTPRouteSpec {
        /// Where it attaches.
        parent_refs: Vec<ParentReference>,
        /// Host names; any by default.
        hostnames: Vec<String>,
        /// Rules; one that takes every request by default.
        rules: Option<Vec<HTTPRouteRule>>,
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
    HTTPRouteRule {
        /// Name.
        name: Option<String>,
        /// Which requests it takes; every one by default.
        matches: Vec<HTTPRouteMatch>,
        /// What it does with them.
        filters: Vec<HTTPRouteFilter>,
        /// Where it sends them.
        backend_refs: Vec<BackendReference>,
        /// Time limits.
        timeouts: Option<Timeouts>,
        /// Repeated tries.
        retry: Option<RouteRetry>,
        /// Sessions (experimental channel).
        session_persistence: Option<SessionPersistence>,
    }
    /// See the API.
    SessionPersistence {
        /// `Cookie` by default, or `Header`.
        r#type: Option<String>,
        /// The cookie.
        cookie: Option<CookieConfig>,
        /// The header.
        header: Option<HeaderConfig>,
        /// The time after which a session ends.
        absolute_timeout: Option<String>,
    }
    /// See the API.
    CookieConfig {
        /// Name; one of the controller's by default.
        name: Option<String>,
        /// Path; `/` by default.
        path: Option<String>,
        /// `Session` by default, or `Permanent`.
        lifetime_type: Option<String>,
    }
    /// See the API.
    HeaderConfig {
        /// Name.
        name: String,
    }
    /// See the API.
    HTTPRouteMatch {
        /// By path; the prefix `/` by default.
        path: Option<PathMatcher>,
        /// By fields.
        headers: Vec<ValueMatcher>,
        /// By query.
        query_params: Vec<ValueMatcher>,
        /// By method.
        method: Option<String>,
    }
    /// See the API.
    PathMatcher {
        /// `PathPrefix` by default.
        r#type: Option<String>,
        /// `/` by default.
        value: Option<String>,
    }
    /// See the API.
    ValueMatcher {
        /// `Exact` by default.
        r#type: Option<String>,
        /// Name.
        name: String,
        /// Value.
        value: String,
    }
    /// See the API.
    HTTPRouteFilter {
        /// Type, which says which of the others is there.
        r#type: String,
        /// Edits of request fields.
        request_header_modifier: Option<HeaderModifier>,
        /// Edits of response fields.
        response_header_modifier: Option<HeaderModifier>,
        /// Copies to another backend.
        request_mirror: Option<RequestMirror>,
        /// Redirects.
        request_redirect: Option<RequestRedirect>,
        /// Rewrites.
        url_rewrite: Option<UrlRewrite>,
        /// Cross-origin resource sharing.
        cors: Option<CorsFilter>,
        /// External authorization (experimental channel).
        external_auth: Option<ExternalAuthFilter>,
        /// Filters of controllers.
        extension_ref: Option<LocalReference>,
    }
    /// See the API.
    HeaderModifier {
        /// Fields to replace.
        set: Vec<HeaderValue>,
        /// Fields to add.
        add: Vec<HeaderValue>,
        /// Fields to remove.
        remove: Vec<String>,
    }
    /// See the API.
    HeaderValue {
        /// Name.
        name: String,
        /// Value.
        value: String,
    }
    /// See the API.
    RequestMirror {
        /// The backend.
        backend_ref: BackendReference,
        /// Percentage of requests.
        percent: Option<i32>,
        /// Part of requests.
        fraction: Option<Fraction>,
    }
    /// See the API.
    ExternalAuthFilter {
        /// HTTP or GRPC.
        protocol: String,
        /// The service.
        backend_ref: BackendReference,
        /// Settings for gRPC.
        grpc: Option<GrpcAuthorization>,
        /// Settings for HTTP.
        http: Option<HttpAuthorization>,
        /// How much of the body the service gets.
        forward_body: Option<ForwardBody>,
    }
    /// See the API.
    GrpcAuthorization {
        /// Fields of the client that the service gets; all if there are none.
        allowed_headers: Vec<String>,
    }
    /// See the API.
    HttpAuthorization {
        /// What stands before the path of the request.
        path: Option<String>,
        /// Fields of the client that the service gets.
        allowed_headers: Vec<String>,
        /// Fields of the answer that the backend gets; all if there are none.
        allowed_response_headers: Vec<String>,
    }
    /// See the API.
    ForwardBody {
        /// Bytes; nothing with 0.
        max_size: Option<i32>,
    }
    /// See the API.
    Fraction {
        /// Numerator.
        numerator: i32,
        /// Denominator; 100 by default.
        denominator: Option<i32>,
    }
    /// See the API.
    RequestRedirect {
        /// Scheme.
        scheme: Option<String>,
        /// Host.
        hostname: Option<String>,
        /// Path.
        path: Option<PathModifier>,
        /// Port.
        port: Option<i32>,
        /// Status; 302 by default.
        status_code: Option<i32>,
    }
    /// See the API.
    UrlRewrite {
        /// Host.
        hostname: Option<String>,
        /// Path.
        path: Option<PathModifier>,
    }
    /// See the API.
    PathModifier {
        /// Type.
        r#type: String,
        /// For `ReplaceFullPath`.
        replace_full_path: Option<String>,
        /// For `ReplacePrefixMatch`.
        replace_prefix_match: Option<String>,
    }
    /// See the API.
    CorsFilter {
        /// Origins.
        allow_origins: Vec<String>,
        /// Whether credentials may be sent.
        allow_credentials: Option<bool>,
        /// Methods.
        allow_methods: Vec<String>,
        /// Request fields.
        allow_headers: Vec<String>,
        /// Response fields.
        expose_headers: Vec<String>,
        /// Seconds.
        max_age: Option<i32>,
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
    Timeouts {
        /// For the whole request.
        request: Option<String>,
        /// For one try.
        backend_request: Option<String>,
    }
    /// See the API.
    RouteRetry {
        /// Statuses.
        codes: Vec<i32>,
        /// Number of repeated tries; 1 by default.
        attempts: Option<i32>,
        /// Time between tries.
        backoff: Option<String>,
    }
    /// See the API.
    GRPCRouteSpec {
        /// Where it attaches.
        parent_refs: Vec<ParentReference>,
        /// Host names; any by default.
        hostnames: Vec<String>,
        /// Rules; one that takes every call by default.
        rules: Option<Vec<GRPCRouteRule>>,
    }
    /// See the API.
    GRPCRouteRule {
        /// Name.
        name: Option<String>,
        /// Which calls it takes; every one by default.
        matches: Vec<GRPCRouteMatch>,
        /// What it does with them.
        filters: Vec<HTTPRouteFilter>,
        /// Where it sends them.
        backend_refs: Vec<BackendReference>,
        /// Sessions (experimental channel).
        session_persistence: Option<SessionPersistence>,
    }
    /// See the API.
    GRPCRouteMatch {
        /// By method.
        method: Option<GRPCMethodMatch>,
        /// By fields.
        headers: Vec<ValueMatcher>,
    }
    /// See the API.
    GRPCMethodMatch {
        /// `Exact` by default.
        r#type: Option<String>,
        /// Service.
        service: Option<String>,
        /// Method.
        method: Option<String>,
    }
    /// See the API.
    BackendTLSPolicySpec {
        /// What it is for.
        target_refs: Vec<PolicyTarget>,
        /// How certificates of endpoints are verified.
        validation: BackendTlsValidation,
        /// For the controller.
        options: BTreeMap<String, String>,
    }
    /// See the API.
    PolicyTarget {
        /// API group.
        group: String,
        /// Kind.
        kind: String,
        /// Name.
        name: String,
        /// The name of a port of a Service; all by default.
        section_name: Option<String>,
    }
    /// See the API.
    SubjectAltName {
        /// Type, which says which of the others is there.
        r#type: String,
        /// DNS name.
        hostname: Option<String>,
        /// URI.
        uri: Option<String>,
    }
    /// See the API.
    ListenerSetSpec {
        /// The Gateway that it adds to.
        parent_ref: ObjectReference,
        /// What it adds.
        listeners: Vec<GatewayListener>,
    }
    /// See the API.
    XBackendTrafficPolicySpec {
        /// What it is for.
        target_refs: Vec<LocalReference>,
        /// How many tries after failures there may be.
        retry_constraint: Option<RetryConstraintSpec>,
        /// Sessions.
        session_persistence: Option<SessionPersistence>,
    }
    /// See the API.
    XBackendSpec {
        /// Type, which says which of the next two is there.
        r#type: String,
        /// A host outside of the cluster.
        external_hostname: Option<ExternalHostname>,
        /// Pods of its namespace.
        endpoint_selector: Option<EndpointSelector>,
        /// The port of the host or of the pods.
        port: XBackendPort,
        /// What is spoken there; what the route says by default.
        protocol: Option<String>,
        /// TLS; none by default.
        tls: Option<XBackendTls>,
        /// Sessions with its endpoints.
        session_persistence: Option<SessionPersistence>,
    }
    /// See the API.
    XBackendPort {
        /// Number.
        number: Option<i32>,
    }
    /// See the API.
    ExternalHostname {
        /// DNS name.
        hostname: String,
    }
    /// See the API.
    EndpointSelector {
        /// Labels that the pods have.
        match_labels: BTreeMap<String, String>,
    }
    /// See the API.
    XBackendTls {
        /// `None`, `ServerOnly` or `ClientAndServer`.
        mode: String,
        /// The certificate that is shown.
        client_certificate_ref: Option<ObjectReference>,
        /// How the certificate of the endpoint is verified.
        validation: Option<BackendTlsValidation>,
    }
    /// See the API.
    RetryConstraintSpec {
        /// A share of the requests; 20 percent in 10 seconds by default.
        budget: Option<BudgetDetails>,
        /// What is allowed in any case; 10 in a second by default.
        min_retry_rate: Option<RequestRateSpec>,
    }
    /// See the API.
    BudgetDetails {
        /// The share; 20 by default.
        percent: Option<i32>,
        /// The time; 10 seconds by default.
        interval: Option<String>,
    }
    /// See the API.
    RequestRateSpec {
        /// How many.
        count: Option<i32>,
        /// In which time.
        interval: Option<String>,
    }
    /// See the API.
    XTelemetryPolicySpec {
        /// What it is for.
        target_refs: Vec<LocalReference>,
        /// How requests are traced.
        tracing: Option<TracingSpec>,
    }
    /// See the API.
    TracingSpec {
        /// `Enabled`, `Disabled` or `ImplementationDefault`, which is the default.
        mode: Option<String>,
        /// Who receives spans.
        provider: Option<TracingProvider>,
        /// Which traces are sampled that begin here.
        sampling_rate: Option<Fraction>,
        /// What the decision of the caller counts.
        parent_based_sampling: Option<ParentBasedSampling>,
        /// `service.name` of the spans.
        service_name: Option<String>,
        /// The name of spans.
        span_name: Option<String>,
        /// What spans say besides.
        attributes: Vec<SpanAttributeSpec>,
    }
    /// See the API.
    TracingProvider {
        /// Where it is.
        backend_ref: BackendReference,
        /// Fields of the requests to it.
        headers: Vec<ProviderHeader>,
    }
    /// See the API.
    ParentBasedSampling {
        /// `Enabled`, `Disabled` or `ImplementationDefault`, which is the default.
        mode: Option<String>,
        /// Of the traces that the caller has sampled.
        sampling_rate: Option<Fraction>,
    }
    /// See the API.
    SpanAttributeSpec {
        /// Its name.
        name: String,
        /// Where its value comes from: `Header`, `Literal` or `Attribute`.
        source_type: String,
        /// A field.
        header_name: Option<String>,
        /// A text.
        literal_value: Option<String>,
        /// A name of the conventions of OpenTelemetry.
        attribute_key: Option<String>,
    }
    /// See the API.
    ProviderHeader {
        /// Name.
        name: String,
        /// Value.
        value: HiddenText,
    }
    /// See the API.
    TLSRouteSpec {
        /// Where it attaches.
        parent_refs: Vec<ParentReference>,
        /// Server names.
        hostnames: Vec<String>,
        /// Rules; there is one.
        rules: Vec<StreamRule>,
    }
    /// Of a TCPRoute or UDPRoute.
    StreamRouteSpec {
        /// Where it attaches.
        parent_refs: Vec<ParentReference>,
        /// Rules; there is one.
        rules: Vec<StreamRule>,
    }
    /// A rule of a TLSRoute, TCPRoute or UDPRoute.
    StreamRule {
        /// Name.
        name: Option<String>,
        /// Where it leads.
        backend_refs: Vec<BackendReference>,
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
    #[serde(skip_serializing_if = "is_empty")]
    pub kind: String,
    /// Name; any by default.
    #[serde(skip_serializing_if = "is_empty")]
    pub name: Option<String>,
}

/// See the API.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct BackendTlsValidation {
    /// Authorities.
    #[serde(skip_serializing_if = "is_empty")]
    pub ca_certificate_refs: Vec<LocalReference>,
    /// Authorities that everybody knows, in place of them.
    #[serde(rename = "wellKnownCACertificates", skip_serializing_if = "is_empty")]
    pub well_known_ca_certificates: Option<String>,
    /// The name that is sent, and that the certificate must have if there are no others.
    #[serde(skip_serializing_if = "is_empty")]
    pub hostname: String,
    /// Names of which the certificate must have one.
    #[serde(skip_serializing_if = "is_empty")]
    pub subject_alt_names: Vec<SubjectAltName>,
}

/// A text of an object that may be a secret: it is written where the object is, and never printed.
#[derive(Clone, Default, Eq, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct HiddenText(String);

impl HiddenText {
    /// The text, for whom it is meant only.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for HiddenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// A value that is not read. All are equal.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub struct Anything;

impl<'de> Deserialize<'de> for Anything {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // Not as something to ignore: a strict reader would report it as an unknown field.
        serde_json::Value::deserialize(deserializer).map(|_| Self)
    }
}

/// Whether a value is the one of a missing field.
fn is_empty<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl GatewayListener {
    /// Whether TLS passes through.
    pub fn passes_through(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.mode.as_deref() == Some("Passthrough"))
    }
}

impl HTTPRouteSpec {
    /// The rules, with the default.
    pub fn all_rules(&self) -> Cow<'_, [HTTPRouteRule]> {
        self.rules.as_deref().map_or_else(|| Cow::Owned(vec![HTTPRouteRule::default()]), Cow::Borrowed)
    }
}

impl GRPCRouteSpec {
    /// The rules, with the default.
    pub fn all_rules(&self) -> Cow<'_, [GRPCRouteRule]> {
        self.rules.as_deref().map_or_else(|| Cow::Owned(vec![GRPCRouteRule::default()]), Cow::Borrowed)
    }
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
