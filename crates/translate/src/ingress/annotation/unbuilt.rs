//! The rest of ingress-nginx's annotations: never to be built, or without effect.
//!
//! Authentication that isn't built denies access. So does a snippet if snippets are allowed, since it may hold a restriction.

use super::{Denial, Meanwhile, OnInvalid, Scope, Spec};
use crate::value::RiskLevel;
use crate::verdict::Verdict::{self, Harmless, Refused};

const SERVE: Meanwhile = Meanwhile::Serve;
const SNIPPET: Meanwhile = Meanwhile::DenySnippet(Denial::Locations);

const AUTH_KEEPALIVE: Verdict =
    Harmless("connections to the authentication service are always kept, as upstream-keepalive-* of the ConfigMap say");
const FAST_CGI: Verdict = Refused {
    reason: "FastCGI is not spoken to backends",
    instead: "a web server in front of them, and backend-protocol: HTTP",
};
const NO_BUFFERS: Verdict =
    Harmless("bodies are streamed with bounded memory, there are no such buffers and no temporary files");
const WAF: Verdict = Refused {
    reason: "there is no ModSecurity here",
    instead: "a web application firewall in front of, or behind, this proxy",
};
const SNIPPETS: Verdict = Refused {
    reason: "there is no nginx here that could run it",
    instead: "the annotation or ConfigMap key for what it does",
};
const GLOBAL_RATE_LIMIT: Verdict = Harmless("ingress-nginx removed it in release 1.12 and ignores it");
const REMOVED: Verdict = Harmless("ingress-nginx removed it and ignores it");

/// A row is `"name" | "alias": "syntax" [Scope, Risk] meanwhile, verdict`, and `, neutral "…"` for values that lose nothing.
macro_rules! unbuilt {
    ($(
        $(#[doc = $doc:literal])+
        $name:literal $(| $alias:literal)*: $syntax:literal [$scope:ident, $risk:ident] $meanwhile:expr, $verdict:expr
            $(, neutral $($neutral:literal)+)?;
    )+) => {
        /// One entry per name.
        pub(super) const SPECS: &[Spec] = &[$(Spec {
            name: $name,
            aliases: &[$($alias),*],
            syntax: $syntax,
            scope: Scope::$scope,
            risk: RiskLevel::$risk,
            on_invalid: OnInvalid::Drop,
            doc: concat!($($doc),+),
            verdict: $verdict,
            meanwhile: $meanwhile,
            neutral: &[$($($neutral),+)?],
        },)+];
    };
}

unbuilt! {
    /// Idle connections to the service.
    "auth-keepalive": "a whole number" [Location, Low] SERVE, AUTH_KEEPALIVE, neutral "0";
    /// Requests on one connection to the service.
    "auth-keepalive-requests": "a whole number" [Location, Low] SERVE, AUTH_KEEPALIVE;
    /// Idle time of connections to the service.
    "auth-keepalive-timeout": "whole seconds" [Location, Low] SERVE, AUTH_KEEPALIVE;
    /// Shares nginx variables with the request to the service.
    "auth-keepalive-share-vars": "`true` or `false`" [Location, Low] SERVE,
        Harmless("nothing here is shared between requests"), neutral "false";

    /// HTTP version to the backend.
    "proxy-http-version": "`1.0` or `1.1`" [Location, Low] SERVE,
        Harmless("requests are HTTP/1.1, which servers of HTTP/1.0 answer as well; connection-proxy-header: close keeps no connection"),
        neutral "1.1";
    /// Size of the buffers that may be in use at a time.
    "proxy-busy-buffers-size": "a size" [Location, Low] SERVE,
        Harmless("all that waits for the client may be on its way to it");
    /// Disk space for a response.
    "proxy-max-temp-file-size": "a size" [Location, Low] SERVE,
        Harmless("there are no temporary files: what exceeds the buffers of proxy-buffering waits with the endpoint"), neutral "0";
    /// Memory for a request body.
    "client-body-buffer-size": "a size" [Location, Low] SERVE, NO_BUFFERS;
    /// The index file of a FastCGI directory.
    "fastcgi-index": "a file name" [Location, Medium] SERVE, FAST_CGI;
    /// Additional FastCGI parameters.
    "fastcgi-params-configmap": "a ConfigMap" [Location, Medium] SERVE, FAST_CGI;

    /// Logs each rewrite.
    "enable-rewrite-log": "`true` or `false`" [Location, Low] SERVE, Harmless("`fairway explain` shows the rewrite of a request");

    /// Runs ModSecurity over requests.
    "enable-modsecurity": "`true` or `false`" [Ingress, Low] SERVE, WAF, neutral "false";
    /// Adds the OWASP rules to it.
    "enable-owasp-core-rules": "`true` or `false`" [Ingress, Low] SERVE, WAF, neutral "false";
    /// Adds these rules to it.
    "modsecurity-snippet": "ModSecurity rules" [Ingress, Critical] SNIPPET, WAF;
    /// The id of its transactions.
    "modsecurity-transaction-id": "text with nginx variables" [Ingress, High] SERVE, WAF;
    /// Raw nginx text for TCP and UDP.
    "stream-snippet": "nginx text" [Ingress, Critical] SERVE, SNIPPETS;

    /// Pushes resources that a Link header names.
    "http2-push-preload": "`true` or `false`" [Location, Low] SERVE, Harmless("server push is gone from nginx and from browsers");
    /// Limited requests over all replicas.
    "global-rate-limit": "(removed)" [Location, Low] SERVE, GLOBAL_RATE_LIMIT;
    /// Its time window.
    "global-rate-limit-window": "(removed)" [Location, Low] SERVE, GLOBAL_RATE_LIMIT;
    /// Its key.
    "global-rate-limit-key": "(removed)" [Location, Low] SERVE, GLOBAL_RATE_LIMIT;
    /// Clients to which it did not apply.
    "global-rate-limit-ignored-cidrs": "(removed)" [Location, Low] SERVE, GLOBAL_RATE_LIMIT;
    /// Hash of the affinity cookie.
    "session-cookie-hash": "(removed)" [Ingress, Low] SERVE, REMOVED;
    /// Wrote to InfluxDB.
    "enable-influxdb": "(removed)" [Location, Low] SERVE, REMOVED;
    /// Wrote to InfluxDB.
    "influxdb-measurement": "(removed)" [Location, Low] SERVE, REMOVED;
    /// Wrote to InfluxDB.
    "influxdb-port": "(removed)" [Location, Low] SERVE, REMOVED;
    /// Wrote to InfluxDB.
    "influxdb-host": "(removed)" [Location, Low] SERVE, REMOVED;
    /// Wrote to InfluxDB.
    "influxdb-server-name": "(removed)" [Location, Low] SERVE, REMOVED;
    /// Spoke https to the backend.
    "secure-backends": "(removed)" [Location, Low] SERVE, Harmless("ingress-nginx ignores it; backend-protocol took its place");
    /// Checked the backend's certificate.
    "secure-verify-ca-secret": "(removed)" [Location, Low] SERVE,
        Harmless("ingress-nginx ignores it; proxy-ssl-secret took its place");
    /// Traced requests.
    "enable-opentracing": "(removed)" [Location, Low] SERVE, REMOVED;
    /// Continued the client's trace.
    "opentracing-trust-incoming-span": "(removed)" [Location, Low] SERVE, REMOVED;
    /// Put a base element into pages.
    "add-base-url": "(removed)" [Location, Low] SERVE, REMOVED;
    /// Scheme of that element.
    "base-url-scheme": "(removed)" [Location, Low] SERVE, REMOVED;
}
