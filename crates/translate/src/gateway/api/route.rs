//! HTTPRoutes, GRPCRoutes, TLSRoutes, TCPRoutes and UDPRoutes, with their filters.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{BackendReference, LocalReference, ParentReference};

record! {
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
        timeouts: Option<Box<Timeouts>>,
        /// Repeated tries.
        retry: Option<Box<RouteRetry>>,
        /// Sessions (experimental channel).
        session_persistence: Option<Box<SessionPersistence>>,
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
    /// See the API. All but one of its parts are missing, so that each is boxed: thousands of routes are kept.
    HTTPRouteFilter {
        /// Type, which says which of the others is there.
        r#type: String,
        /// Edits of request fields.
        request_header_modifier: Option<Box<HeaderModifier>>,
        /// Edits of response fields.
        response_header_modifier: Option<Box<HeaderModifier>>,
        /// Copies to another backend.
        request_mirror: Option<Box<RequestMirror>>,
        /// Redirects.
        request_redirect: Option<Box<RequestRedirect>>,
        /// Rewrites.
        url_rewrite: Option<Box<UrlRewrite>>,
        /// Cross-origin resource sharing.
        cors: Option<Box<CorsFilter>>,
        /// External authorization (experimental channel).
        external_auth: Option<Box<ExternalAuthFilter>>,
        /// Filters of controllers.
        extension_ref: Option<Box<LocalReference>>,
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
        session_persistence: Option<Box<SessionPersistence>>,
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
