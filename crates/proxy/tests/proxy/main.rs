//! The proxy with real sockets, a file for each feature. One program, because each program is linked anew; tests that measure their process
//! or change its limits are programs of their own, beside this folder.

mod answer;
mod attack;
mod basic_auth;
mod buffering;
mod canary;
mod client_certificate;
mod client_limits;
mod compression;
mod error_pages;
mod ext_authz;
mod external_auth;
mod failure;
mod forward;
mod geo;
mod grpc;
mod health_check;
mod http2;
mod http2_attack;
mod http2_endpoint;
mod lifecycle;
mod mirror;
mod observe;
mod ocsp;
mod passthrough;
mod proxy_protocol;
mod refused;
mod response_rewrite;
mod retry;
mod sticky;
#[path = "../support/mod.rs"]
mod support;
mod timeout;
mod tls;
mod tls_attack;
mod tls_settings;
mod tonic;
mod trace;
mod upstream_tls;
mod websocket;
