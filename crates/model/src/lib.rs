//! What the proxy should do, as plain data, and everything about a request that can be decided without I/O.
//!
//! The control side builds these values from Kubernetes objects; the data side runs them and knows nothing of
//! Kubernetes. One kind of value crosses between the two: a [`Delta`] of named resources, applied to a [`Snapshot`].
//!
//! ```
//! use fairway_model::{Delta, Host, HostPattern, Resource, Route, Snapshot, TableName};
//! use fairway_model::{Action, Origin, PathMatch, Respond};
//!
//! let table = TableName::from("ingress");
//! let route = Route::new(
//!     Origin::new("Ingress", "shop", "web"),
//!     PathMatch::prefix("/order").unwrap(),
//!     Action::Respond(Respond::not_found()),
//! );
//! let host = Host::new(table.clone(), HostPattern::parse("shop.example").unwrap(), vec![route]);
//! let snapshot = Snapshot::default().apply(Delta::upsert([Resource::from(host)]));
//!
//! let host = snapshot.host(&table, b"shop.example").unwrap();
//! assert!(host.route(b"/order/7").is_some());
//! assert!(host.route(b"/orders").is_none());
//! ```

#[macro_use]
mod pattern;

mod backend;
mod basic_auth;
mod canary;
mod capture;
mod certificate;
mod chain;
pub mod client;
mod client_auth;
mod client_limits;
mod compression;
mod condition;
mod cors;
pub mod decimal;
pub mod decision;
mod edit;
mod endpoint;
mod error_pages;
mod external_auth;
pub mod field;
mod field_block;
mod filter;
mod geo;
mod host;
mod hostname;
mod known;
mod limit;
mod listener;
mod map;
mod mirror;
mod name;
mod network;
mod opening;
mod origin;
pub mod packing;
mod passthrough;
pub mod path;
mod policy;
mod request;
mod response_rewrite;
mod route;
mod secret;
mod session;
mod settings;
mod share;
mod snapshot;
mod snippet;
mod stream;
mod telemetry;
mod template;
mod tls;
mod trace;
mod upstream_tls;

pub use backend::{
    Affinity, AffinityMode, Backend, Balance, HashBalance, HealthCheck, Probe, Protocol, RetryConstraint, SameSite,
    SessionCookie,
};
pub use basic_auth::{BasicAuth, Users};
pub use canary::{Canary, CanaryBy, CanaryChoice, CanaryField, CanaryValue};
pub use capture::{CaptureTemplate, TooLong, append_within};
pub use certificate::{Certificate, PrivateKey};
pub use chain::ErrorChain;
pub use client_auth::{CertificateErrorPage, ClientAuth, ClientAuthMode, ClientIdentity, Inadmissible, Verified};
pub use client_limits::{ClientLimits, Excess, RequestRate, SharedRate};
pub use compression::{Coding, CodingRules, Compressing, Compression, Uncompressed};
pub use condition::{ArgumentMatch, Conditions, FieldMatch, ValueMatch};
pub use cors::{Cors, CorsRules, OriginPattern, Origins};
pub use edit::{Change, FieldEdit, FieldRules, NameSet};
pub use endpoint::{Endpoint, EndpointSet, EndpointState, Endpoints};
pub use error_pages::{ErrorPages, ErrorResponse};
pub use external_auth::{
    AuthAnswer, AuthCache, AuthCacheRule, AuthGiven, AuthPart, AuthProtocol, AuthVariable, CheckAllowed, CheckAnswer,
    CheckChange, CheckDenied, CheckField, CheckVerdict, ExternalAuth, GivenField, GrpcAuth, HttpAuth, Subrequest,
};
pub use field::{ConfiguredName, FieldName, InvalidName};
pub use field_block::{BlockedValue, FieldBlock};
pub use filter::*;
pub use geo::{GeoPlace, GeoSettings, GeoStep, GeoSubject, GeoVariable};
pub use host::{AmbiguousPath, Host, HostKey, Onward};
pub use hostname::{HostPattern, Hostname, InvalidHostname, canonical_host};
pub use known::{KnownField, KnownSet};
pub use limit::{Amount, Limit, LimitSection};
pub use listener::{Listener, Scheme, ToldPort};
pub use mirror::{Fraction, Mirror};
pub use name::{BackendName, CertificateName, ListenerName, TableName, TelemetryName};
pub use network::{NetworkSet, is_special};
pub use origin::Origin;
pub use passthrough::Passthrough;
pub use pattern::{SearchRegex, ValueRegex};
pub use policy::{Bandwidth, ByteLimit, ForwardPolicy, RequestBuffering, Retry, RetryOn, UpstreamProtocol};
pub use request::{FieldLine, FieldSink, Fields, HostAndPort, RequestView, Target};
pub use response_rewrite::{CookieFlags, Cookies, Replacement, ResponseRewrites};
pub use route::{
    Action, Backends, Body, Forward, InvalidPathMatch, Location, PathMatch, PathRegex, Redirect, RedirectBase, Respond,
    Route, UrlParts, WeightedBackend,
};
pub use secret::with_secrets;
pub use session::{Session, SessionCarrier};
pub use settings::{
    AccessLog, ForwardedHeaders, HeadBuffers, Http2Settings, LogEscape, Settings, Syslog, UpstreamKeepalive,
};
pub use share::{CountedClient, Demand, DemandReport, FLOOR, LEASE, LimitKey, LimitKind, LimitPart, ShareDeal, divide};
pub use snapshot::{Delta, Resource, ResourceName, Snapshot};
pub use snippet::{
    AccessRules, AfterChange, MapKey, MethodRules, PathChange, ResponseEdit, Snippet, SnippetEdits, SnippetIf,
    SnippetStep, SnippetTest, Substitution, VariableMap,
};
pub use stream::{
    StreamBackends, StreamListener, StreamLog, StreamRetry, StreamSegment, StreamSettings, StreamShare, StreamTarget,
    StreamTemplate, StreamVariable, Transport,
};
pub use telemetry::{ParentRule, SecretText, SpanAttribute, SpanReceiver, SpanValue, StandardAttribute, Telemetry};
pub use template::{Segment, Template, Variable};
pub use tls::{HostCiphers, KeyGroup, TicketKey, TlsCipher, TlsSettings};
pub use trace::{Collector, Sampler, TraceContext, TraceRule, Tracing, hex, hex_digest};
pub use upstream_tls::{AlternativeName, Authority, TlsVersions, Trust, UpstreamTls};
