//! The rest of ingress-nginx's keys: never to be built, or without effect.

use super::KeySpec;
use crate::verdict::Verdict::{self, Harmless, Refused};

const SNIPPET: Verdict = Refused {
    reason: "there is no nginx here that could run it",
    instead: "the ConfigMap key or annotation for what it does",
};
const WAF: Verdict = Refused {
    reason: "there is no ModSecurity here",
    instead: "a web application firewall in front of, or behind, this proxy",
};
const NGINX_ONLY: Verdict = Harmless("it tunes a part of nginx that Fairway doesn't have");
const BUFFERS: Verdict =
    Harmless("bodies are streamed with bounded memory, there are no such buffers and no temporary files");
const NEVER_USED: Verdict = Harmless("ingress-nginx accepts and never uses it");
const GONE: Verdict = Harmless("ingress-nginx documents it and doesn't know it any more");
const LOG_FILE: Verdict = Harmless("logs go to standard output and standard error");

/// A row is `"key" = "default": verdict`, and `restricts` where the key keeps requests out.
macro_rules! unbuilt {
    ($(
        $(#[doc = $doc:literal])+
        $name:literal = $default:literal: $verdict:expr
            $(, $restricts:ident)? $(; neutral $($neutral:literal)+)?;
    )+) => {
        /// One entry for each key.
        pub(super) const SPECS: &[KeySpec] = &[$(KeySpec {
            name: $name,
            syntax: "",
            default: $default,
            doc: concat!($($doc),+),
            verdict: $verdict,
            restricts: [$(stringify!($restricts),)? ""][0].len() > 0,
            is_same: KeySpec::never,
            closed: "",
            neutral: &[$($($neutral),+)?],
        },)+];
    };
}

unbuilt! {
    /// Parameters of the log directive.
    "access-log-params" = "": LOG_FILE;
    /// Access log file.
    "access-log-path" = "/var/log/nginx/access.log": LOG_FILE;
    /// A path to which requests for `/` are redirected.
    "app-root" = "": NEVER_USED;
    /// Memory for a request body.
    "client-body-buffer-size" = "8k": BUFFERS;
    /// Clients with a debug log.
    "debug-connections" = "": NGINX_ONLY;
    /// Content type of Fairway's own responses.
    "default-type" = "text/html": Harmless("each answer of the proxy itself has the type of its body");
    /// Skips IPv6 addresses in DNS.
    "disable-ipv6-dns" = "": Harmless("IPv6 addresses of a name are used only if it has none of IPv4");
    /// Logs requests that the built-in default backend answers.
    "enable-access-log-for-default-backend" = "false": Harmless("requests that no host takes are always logged");
    /// Writes files asynchronously.
    "enable-aio-write" = "true": NGINX_ONLY;
    /// Runs ModSecurity everywhere.
    "enable-modsecurity" = "false": WAF;
    /// Accepts several connections at a time.
    "enable-multi-accept" = "true": NGINX_ONLY;
    /// Runs the OWASP rules everywhere.
    "enable-owasp-modsecurity-crs" = "false": WAF;
    /// Reloads one at a time.
    "enable-serial-reloads" = "false": Harmless("there are no reloads");
    /// Level of the error log.
    "error-log-level" = "notice": Harmless("the flag --v sets the level");
    /// Error log file.
    "error-log-path" = "/var/log/nginx/error.log": LOG_FILE;
    /// The header that holds the client's address with PROXY protocol.
    "forwarded-for-proxy-protocol-header" = "X-Forwarded-For-Proxy-Protocol": Harmless("ingress-nginx uses it to pass the address from one of its stages to the next; Fairway has no such stages");
    /// Buffer for gRPC responses.
    "grpc-buffer-size-kb" = "0": BUFFERS;
    /// Access log file for HTTP.
    "http-access-log-path" = "": LOG_FILE;
    /// Raw nginx text.
    /// Obsolete.
    "http2-max-field-size" = "": Harmless("obsolete in nginx; large-client-header-buffers took its place");
    /// Obsolete.
    "http2-max-header-size" = "": Harmless("obsolete in nginx; large-client-header-buffers took its place");
    /// Obsolete.
    "http2-max-requests" = "0": Harmless("obsolete in nginx; keep-alive-requests took its place");
    /// The variable by which limits are counted.
    "limit-conn-zone-variable" = "$binary_remote_addr": Harmless("limits are counted by the address of the client; use-forwarded-headers or enable-real-ip find it where another proxy hides it");
    /// Raw nginx text.
    /// Memory of Lua.
    "lua-shared-dicts" = "": Harmless("there is no Lua here");
    /// Raw nginx text.
    /// Hash tuning.
    "map-hash-bucket-size" = "64": NGINX_ONLY;
    /// Open files of one worker.
    "max-worker-open-files" = "0": Harmless("the process raises its limit as far as the system allows");
    /// ModSecurity rules.
    "modsecurity-snippet" = "": WAF;
    /// Clients that may read nginx's status page.
    "nginx-status-ipv4-whitelist" = "127.0.0.1": Harmless("there is no such page; metrics have a listener of their own");
    /// Clients that may read nginx's status page.
    "nginx-status-ipv6-whitelist" = "::1": Harmless("there is no such page; metrics have a listener of their own");
    /// A file of nginx's tracing module.
    "opentelemetry-config" = "/etc/ingress-controller/telemetry/opentelemetry.toml": NGINX_ONLY;
    /// Size of the buffers that may be in use at a time.
    "proxy-busy-buffers-size" = "": Harmless("all that waits for the client may be on its way to it");
    /// Hash tuning.
    "proxy-headers-hash-bucket-size" = "64": NGINX_ONLY;
    /// Hash tuning.
    "proxy-headers-hash-max-size" = "512": NGINX_ONLY;
    /// HTTP version to backends.
    "proxy-http-version" = "1.1": Harmless("requests are HTTP/1.1, which servers of HTTP/1.0 answer as well; connection-proxy-header: close keeps no connection");
    /// Disk space for a response.
    "proxy-max-temp-file-size" = "1024m": Harmless("there are no temporary files: what exceeds the buffers of proxy-buffering waits with the endpoint");
    /// Uses one listening socket per worker.
    "reuse-port" = "true": Harmless("each worker always has its own listening socket");
    /// Hash tuning.
    "server-name-hash-bucket-size" = "": NGINX_ONLY;
    /// Hash tuning.
    "server-name-hash-max-size" = "1024": NGINX_ONLY;
    /// Raw nginx text.
    /// Size of TLS records.
    "ssl-buffer-size" = "4k": NGINX_ONLY;
    /// Diffie-Hellman parameters.
    "ssl-dh-param" = "": Harmless("key exchange is by elliptic curves only");
    /// Early data.
    "ssl-early-data" = "false": Harmless("early data is not accepted, since whoever records it can send it again: clients send the same data after the handshake");
    /// Size of the session cache.
    "ssl-session-cache-size" = "10m": Harmless("20480 sessions are remembered, whatever their size; the client of an older one makes a full handshake");
    /// Access log file for TCP and UDP.
    "stream-access-log-path" = "": LOG_FILE;
    /// Raw nginx text.
    "stream-snippet" = "": SNIPPET;
    /// A default of the annotation.
    "upstream-hash-by" = "": NEVER_USED;
    /// A default of the annotation.
    "upstream-hash-by-subset" = "": NEVER_USED;
    /// A default of the annotation.
    "upstream-hash-by-subset-size" = "": NEVER_USED;
    /// Hash tuning.
    "variables-hash-bucket-size" = "256": NGINX_ONLY;
    /// Hash tuning.
    "variables-hash-max-size" = "2048": NGINX_ONLY;
    /// Binds workers to processors.
    "worker-cpu-affinity" = "": Harmless("the system decides where workers run: which processors a container has may change");
    /// Geographic databases, older.
    "use-geoip" = "": GONE;
    /// OpenTracing.
    "jaeger-collector-host" = "": GONE;
    /// OpenTracing.
    "jaeger-collector-port" = "": GONE;
    /// OpenTracing.
    "jaeger-endpoint" = "": GONE;
    /// OpenTracing.
    "jaeger-service-name" = "": GONE;
    /// OpenTracing.
    "jaeger-propagation-format" = "": GONE;
    /// OpenTracing.
    "jaeger-sampler-type" = "": GONE;
    /// OpenTracing.
    "jaeger-sampler-param" = "": GONE;
    /// OpenTracing.
    "jaeger-sampler-host" = "": GONE;
    /// OpenTracing.
    "jaeger-sampler-port" = "": GONE;
    /// OpenTracing.
    "jaeger-trace-context-header-name" = "": GONE;
    /// OpenTracing.
    "jaeger-debug-header" = "": GONE;
    /// OpenTracing.
    "jaeger-baggage-header" = "": GONE;
    /// OpenTracing.
    "jaeger-trace-baggage-header-prefix" = "": GONE;
    /// OpenTracing.
    "jaeger-tracer-baggage-header-prefix" = "": GONE;
}
