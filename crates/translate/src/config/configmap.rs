//! The global ConfigMap (`--configmap`): one table of its keys, with types and defaults, and the struct that they fill.
//!
//! An unreadable value is reported and leaves its key at the default. Where the default would open what the key was meant to close, the key
//! closes it instead: an unreadable access list denies, and unreadable trusted networks trust no peer.

mod doc;
mod unbuilt;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use fairway_model::{AccessLog, NetworkSet, Origin, StreamLog};

pub use doc::configmap_markdown;

use crate::annotation::Rules;
use crate::diagnostic::{Diagnostic, Reason, Severity, bounded};
use crate::limit;
use crate::snippet::{self, GlobalAuthSnippet, HttpSnippet, LocationSnippet, MainSnippet, ServerSnippet};
use crate::value::{
    AccessList, AuthCacheDuration, AuthMethod, AuthRedirect, BlockedValues, BrotliLevel, CollectorHost, CommaList,
    CookieRewrite, ErrorStatus, FieldCount, GlobalAuthUrl, GoDuration, GzipLevel, HashKey, HeaderBuffers, HeaderName,
    HeaderNames, HostOrAddress, HttpRedirectCode, IpList, LoadBalance, LogFormat, MediaTypes, NextUpstream, NginxTime,
    ObjectRef, OtelSampler, PortNumber, RedirectParam, RedirectPart, ReplacedStatuses, RiskLevel, SamplerRatio,
    Seconds, SessionTicketKey, SignInUrl, Size, SpanName, Switch, TlsCiphers, TlsGroups, TlsProtocols, UriPatterns,
    UserAgents, Value, WorkerProcesses,
};
use crate::verdict::Verdict::{self, Differs};
use crate::verdict::{nearest, same_words};

/// How `proxy-request-buffering` differs, as an annotation and as a key.
pub(crate) const REQUEST_BUFFERING: &str = "temporary files only with `--request-body-directory`; without it, a body that exceeds 8 MiB, \
    or comes when a worker holds 16 MiB of others, is streamed from there on. Calls of gRPC are always streamed";

/// How `enable-ocsp` differs.
const OCSP: &str = "a response is stapled only if it is good, current and signed by the issuer or its delegate, and until it expires; the issuer's \
     certificate has to be in the Secret, and the responder at port 80 of a public address, unless `--allow-backend-address` names it";

/// How `proxy-buffering` differs, as an annotation and as a key.
pub(crate) const RESPONSE_BUFFERING: &str = "no temporary files: what exceeds the buffers, 4 MiB, or comes when a worker holds 16 MiB of other \
    responses, is read at the client's speed; what is there is passed on at once, and calls of gRPC are always streamed";

/// How `proxy-next-upstream` differs, as an annotation and as a key.
pub(crate) const CONNECT_RETRIED: &str =
    "where connecting fails nothing was sent, so another endpoint is tried whatever is listed, unless that is `off`";

/// How `proxy-next-upstream-tries` differs, as an annotation and as a key.
pub(crate) const TRIES: &str = "there are 32 tries at most, where ingress-nginx has no limit";

/// How `proxy-buffer-size` differs, as an annotation and as a key.
pub(crate) const RESPONSE_HEAD: &str = "heads of up to 128 KiB pass whatever is set, and none above 1 MiB";

/// How `auth-cache-key` differs, as an annotation and as a key.
pub(crate) const AUTH_CACHE: &str = "each worker keeps answers of its own";

/// How `custom-http-errors` differs, as an annotation and as a key.
pub(crate) const ERROR_PAGES: &str = "the default backend is asked with GET, or HEAD, and without the request's body; where it has no endpoint, or fails, \
     errors stay what they are, and ingress-nginx makes 404 or 502 of them; calls of gRPC keep their own errors";

/// How rewrites of redirects and cookies differ, as annotations and as keys.
pub(crate) const REWRITE: &str = "plain texts only: a value with variables, quotes or a regex is reported and not used";

/// How blocking by headers differs.
const BLOCK: &str = "regexes run in linear time: one with look-around or back-references is reported and left out";

/// Whether all entries can be read.
fn blocks(value: &str) -> bool {
    BlockedValues::parse(value).is_some_and(|blocked| blocked.left_out().is_empty())
}

/// How `use-gzip` and `enable-brotli` differ.
const NO_TRANSFORM: &str = "a response with `Cache-Control: no-transform` stays as it is, which nginx ignores";

/// How snippets differ.
const SNIPPET: &str = "read as data, see [snippets](snippets.md); with a directive outside the set, nothing of the snippet is in effect, and paths answer \
     503 if it may restrict access";

/// The media types that gzip compresses besides `text/html`.
const GZIP_TYPES: &str = "application/atom+xml application/javascript application/x-javascript application/json application/rss+xml \
    application/vnd.ms-fontobject application/x-font-ttf application/x-web-app-manifest+json application/xhtml+xml application/xml \
    font/opentype image/svg+xml image/x-icon text/css text/javascript text/plain text/x-component";

/// The media types that Brotli compresses besides `text/html`.
const BROTLI_TYPES: &str = "application/xml+rss application/atom+xml application/javascript application/x-javascript application/json \
    application/rss+xml application/vnd.ms-fontobject application/x-font-ttf application/x-web-app-manifest+json application/xhtml+xml \
    application/xml font/opentype image/svg+xml image/x-icon text/css text/javascript text/plain text/x-component";

/// Keys that close paths if their values can't be read.
const DENYING: [&str; 4] = ["global-auth-url", "whitelist-source-range", "denylist-source-range", "block-cidrs"];

/// The specification of one key.
#[derive(Debug)]
pub struct KeySpec {
    /// The key.
    pub name: &'static str,
    /// The expected value, which completes the sentence "expected …". Empty for keys that aren't read.
    pub syntax: &'static str,
    /// Its value if it is absent, as a user would write it.
    pub default: &'static str,
    /// What it does, in a sentence.
    pub doc: &'static str,
    /// How far it works.
    pub verdict: Verdict,
    /// Whether it keeps requests out, so that lacking it is an error rather than an inconvenience.
    pub restricts: bool,
    /// Whether a value works in the same way although the verdict is that the key differs.
    pub is_same: fn(&Self, &str) -> bool,
    /// The effect of an unreadable value if that isn't the default; otherwise empty.
    pub closed: &'static str,
    /// Values besides the default that ask for what happens anyway, so that nothing is lost while the key isn't built.
    pub neutral: &'static [&'static str],
}

impl KeySpec {
    /// Whether a value asks for what happens anyway.
    pub fn is_neutral(&self, value: &str) -> bool {
        value.is_empty()
            || same_words(value, self.default)
            || self.neutral.iter().any(|neutral| same_words(value, neutral))
    }

    /// For keys that differ with each value.
    const fn never(&self, _: &str) -> bool {
        false
    }

    /// How far a value works.
    pub fn verdict_of(&self, value: &str) -> Verdict {
        match self.verdict {
            Verdict::NotYet(_) | Verdict::Refused { .. } if self.is_neutral(value) => Verdict::Same,
            Differs(_) if (self.is_same)(self, value) => Verdict::Same,
            verdict => verdict,
        }
    }
}

/// The key whose value is never shown.
const SECRET: &str = "ssl-session-ticket-key";

/// Whether Fairway speaks all versions of TLS in a list.
fn is_spoken(value: &str) -> bool {
    value.split_ascii_whitespace().all(|version| matches!(version, "TLSv1.2" | "TLSv1.3"))
}

/// Whether a snippet is read in full.
fn is_read(spec: &KeySpec, value: &str) -> bool {
    snippet::fault(spec.name, value).is_none()
}

/// Whether an authentication service can be called with a method that ingress-nginx knows.
fn is_asked(_: &KeySpec, value: &str) -> bool {
    !matches!(value, "CONNECT" | "TRACE")
}

fn has_no_variables(_: &KeySpec, value: &str) -> bool {
    !value.contains('$')
}

/// Whether response heads can be limited to this size.
fn fits(value: &str) -> bool {
    Size::parse(value).is_some_and(|size| (1..=limit::RESPONSE_HEAD).contains(&size.0))
}

/// Declares the struct, its defaults, the table, and the step from text to field.
///
/// A row is `"key" => field: Type = "default"`, then `, [verdict]` where it isn't `Same`, then `, same if predicate` where some values
/// don't differ, then `, else value, "why"` where a bad value doesn't mean the default.
macro_rules! configmap {
    ($(#[doc = $about:literal])+ pub struct $table:ident {$(
        $(#[doc = $doc:literal])+
        $name:literal => $field:ident: $type:ty = $default:expr $(, [$verdict:expr])? $(, same if $is_same:expr)?
            $(, else $closed:expr, $why:literal)?;
    )+}) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug, Eq, PartialEq)]
        pub struct $table {$(
            $(#[doc = $doc])+
            pub $field: $type,
        )+}

        impl Default for $table {
            fn default() -> Self {
                Self {$($field: <$type as Value>::parse($default).expect("the table's defaults can be read"),)+}
            }
        }

        impl $table {
            /// The specification of each field's key.
            pub const SPECS: &'static [KeySpec] = &[$(KeySpec {
                name: $name,
                syntax: <$type as Value>::SYNTAX,
                default: $default,
                doc: concat!($($doc),+),
                verdict: [$($verdict,)? Verdict::Same][0],
                restricts: false,
                neutral: &[],
                is_same: [$({ let is_same: fn(&KeySpec, &str) -> bool = $is_same; is_same },)? KeySpec::never][0],
                closed: [$($why,)? ""][0],
            },)+];

            /// Reads the text into the key's field and returns the entries that were left out of a list; `None` if the text can't be read.
            fn set(&mut self, name: &str, text: &str) -> Option<&[String]> {
                match name {
                    $($name => match <$type as Value>::parse(if text.is_empty() { <$type as Value>::ZERO } else { text }) {
                        Some(value) => {
                            self.$field = value;
                            Some(Value::left_out(&self.$field))
                        }
                        None => {
                            $(self.$field = $closed;)?
                            None
                        }
                    },)+
                    _ => None,
                }
            }
        }
    };
}

configmap! {
    /// Defaults for all Ingresses.
    pub struct GlobalConfig {
        /// Redirects plain HTTP to https on hosts with a TLS entry.
        "ssl-redirect" => ssl_redirect: bool = "true";
        /// Redirects plain HTTP to https on all hosts.
        "force-ssl-redirect" => force_ssl_redirect: bool = "false";
        /// Status of the redirects to https and between `www.` and the bare name.
        "http-redirect-code" => http_redirect_code: HttpRedirectCode = "308";
        /// Keeps a final `/` in the Location of the redirect to https.
        "preserve-trailing-slash" => preserve_trailing_slash: bool = "false";
        /// Leaves scheme and host out of redirects to a path of the same host.
        "relative-redirects" => relative_redirects: bool = "false";
        /// Names the listener's port in redirects.
        "use-port-in-redirects" => use_port_in_redirects: bool = "false";
        /// Rule paths that begin with one of these are never redirected to https.
        "no-tls-redirect-locations" => no_tls_redirect_locations: CommaList = "/.well-known/acme-challenge";
        /// Rule paths that begin with one of these need no authentication.
        "no-auth-locations" => no_auth_locations: CommaList = "/.well-known/acme-challenge";
        /// External authentication for all paths.
        /// For all paths without `auth-url`, except those with `enable-global-auth: "false"`.
        "global-auth-url" => global_auth_url: GlobalAuthUrl = "",
            [Differs("$host doesn't work in its host, and a value that can't be read guards as well: the paths answer 503")], same if KeySpec::is_neutral,
            else GlobalAuthUrl::Unreadable, "paths that it would guard answer 503";
        /// See the annotation auth-method.
        "global-auth-method" => global_auth_method: Option<AuthMethod> = "",
            [Differs("the methods CONNECT and TRACE are ignored: the service is asked with GET")], same if is_asked;
        /// See the annotation auth-signin.
        "global-auth-signin" => global_auth_signin: Option<SignInUrl> = "";
        /// See the annotation auth-signin-redirect-param.
        "global-auth-signin-redirect-param" => global_auth_signin_redirect_param: Option<RedirectParam> = "rd";
        /// See the annotation auth-response-headers.
        "global-auth-response-headers" => global_auth_response_headers: HeaderNames = "";
        /// See the annotation auth-request-redirect.
        "global-auth-request-redirect" => global_auth_request_redirect: Option<AuthRedirect> = "",
            [Differs("variables are replaced; ingress-nginx leaves out the whole authentication for a value that has any")],
            same if has_no_variables;
        /// See the annotation auth-always-set-cookie.
        "global-auth-always-set-cookie" => global_auth_always_set_cookie: bool = "false";
        /// Logs the questions to authentication services.
        "enable-auth-access-log" => enable_auth_access_log: bool = "false",
            [Differs("questions to an authentication service have no lines of their own: the line of the client's request has the outcome, and the log of the service has the same X-Request-ID")], same if KeySpec::is_neutral;
        /// See the annotation auth-snippet.
        "global-auth-snippet" => global_auth_snippet: GlobalAuthSnippet = "", [Differs(SNIPPET)], same if is_read,
            else GlobalAuthSnippet::Unreadable, "paths that global-auth-url would guard answer 503";
        /// See the annotation auth-cache-key.
        "global-auth-cache-key" => global_auth_cache_key: Option<HashKey> = "", [Differs(AUTH_CACHE)], same if KeySpec::is_neutral;
        /// See the annotation auth-cache-duration.
        "global-auth-cache-duration" => global_auth_cache_duration: Option<AuthCacheDuration> = AuthCacheDuration::DEFAULT;

        /// Adds Strict-Transport-Security to https responses.
        "hsts" => hsts: bool = "true";
        /// Adds includeSubDomains to it.
        "hsts-include-subdomains" => hsts_include_subdomains: bool = "true";
        /// Its max-age.
        "hsts-max-age" => hsts_max_age: Seconds = "31536000";
        /// Adds preload to it.
        "hsts-preload" => hsts_preload: bool = "false";

        /// Trusts client, scheme, host and port as forwarded by trusted peers.
        "use-forwarded-headers" => use_forwarded_headers: bool = "false",
            [Differs("believed only from peers in proxy-real-ip-cidr, not from anyone")];
        /// Trusts only the client's address as forwarded by trusted peers.
        "enable-real-ip" => enable_real_ip: bool = "false";
        /// Appends the peer to X-Forwarded-For instead of replacing it.
        "compute-full-forwarded-for" => compute_full_forwarded_for: bool = "false";
        /// The header with the client's address.
        "forwarded-for-header" => forwarded_for_header: HeaderName = "X-Forwarded-For";
        /// The header with the original host.
        "forwarded-host-header" => forwarded_host_header: HeaderName = "X-Forwarded-Host";
        /// Trusted peers.
        "proxy-real-ip-cidr" => proxy_real_ip_cidr: NetworkSet = "0.0.0.0/0,::/0",
            [Differs("the default holds for IPv6 peers as well")], else NetworkSet::default(), "no peer is trusted";
        /// Expects a PROXY header (version 1 or 2) at the start of each connection to the HTTP and HTTPS ports, and takes the client's
        /// address from it.
        "use-proxy-protocol" => use_proxy_protocol: bool = "false",
            [Differs("a connection from outside of proxy-real-ip-cidr is closed, where ingress-nginx reads its header and ignores the address")];
        /// Time for the PROXY header.
        "proxy-protocol-header-timeout" => proxy_protocol_header_timeout: GoDuration = "5s",
            [Differs("holds on all HTTP and HTTPS ports, in ingress-nginx only with --enable-ssl-passthrough")];

        /// Time to connect to an endpoint.
        "proxy-connect-timeout" => proxy_connect_timeout: Seconds = "5";
        /// Longest gap between two writes to an endpoint.
        "proxy-send-timeout" => proxy_send_timeout: Seconds = "60";
        /// Longest gap between two reads from an endpoint.
        "proxy-read-timeout" => proxy_read_timeout: Seconds = "60";
        /// Largest request body; 0 means no limit.
        "proxy-body-size" => proxy_body_size: Size = "1m";
        /// With `on`, the body of a request that has no Content-Length is read before an endpoint is chosen, and sent with one. Other
        /// bodies are streamed, unless the annotation of the same name asks for more. With `off`, all bodies are streamed.
        "proxy-request-buffering" => proxy_request_buffering: Switch = "on", [Differs(REQUEST_BUFFERING)],
            same if |_, value| value.trim() == "off";
        /// Largest head of a response; larger ones become 502.
        "proxy-buffer-size" => proxy_buffer_size: Size = "4k", [Differs(RESPONSE_HEAD)], same if |_, value| fits(value);
        /// Reads a response as fast as the endpoint sends it while the client takes its time, up to `proxy-buffers-number` times
        /// `proxy-buffer-size`.
        "proxy-buffering" => proxy_buffering: Switch = "off", [Differs(RESPONSE_BUFFERING)], same if |_, value| value.trim() == "off";
        /// How many times `proxy-buffer-size` of a response may wait for its client with `proxy-buffering`.
        "proxy-buffers-number" => proxy_buffers_number: u32 = "4";
        /// Restricts the annotations `proxy-ssl-*` to the paths of their own Ingress; otherwise they apply to the host.
        "proxy-ssl-location-only" => proxy_ssl_location_only: bool = "false";
        /// The start of URLs in Location and Refresh of backends' responses that `proxy-redirect-to` replaces.
        "proxy-redirect-from" => proxy_redirect_from: RedirectPart = "off",
            [Differs(REWRITE)], same if |_, value| RedirectPart::parse(value).is_some();
        /// What takes its place.
        "proxy-redirect-to" => proxy_redirect_to: RedirectPart = "off",
            [Differs(REWRITE)], same if |_, value| RedirectPart::parse(value).is_some();
        /// The Domain of backends' cookies to replace, and what takes its place.
        "proxy-cookie-domain" => proxy_cookie_domain: CookieRewrite = "off",
            [Differs(REWRITE)], same if |_, value| CookieRewrite::parse(value).is_some();
        /// The start of the Path of backends' cookies to replace, and what takes its place.
        "proxy-cookie-path" => proxy_cookie_path: CookieRewrite = "off",
            [Differs(REWRITE)], same if |_, value| CookieRewrite::parse(value).is_some();
        /// Failures after which another endpoint is tried.
        "proxy-next-upstream" => proxy_next_upstream: NextUpstream = "error timeout",
            [Differs(CONNECT_RETRIED)];
        /// Time in which further tries may start; 0 means no limit.
        "proxy-next-upstream-timeout" => proxy_next_upstream_timeout: Seconds = "0";
        /// Maximum number of tries; 0 means 32.
        "proxy-next-upstream-tries" => proxy_next_upstream_tries: u32 = "3", [Differs(TRIES)];
        /// Retries POST, LOCK and PATCH as well.
        "retry-non-idempotent" => retry_non_idempotent: bool = "false";
        /// Retries in percent of the requests to a Service port, besides a few that are always allowed; 0 for no limit. A try that
        /// could not connect isn't counted.
        "retry-budget" => retry_budget: u32 = "20",
            [Differs("a key of Fairway's own: ingress-nginx has no such limit")];
        /// Responses of backends and errors of Fairway that `--default-backend-service` replaces, for Ingresses without a list of
        /// their own.
        "custom-http-errors" => custom_http_errors: ReplacedStatuses = "", [Differs(ERROR_PAGES)], same if KeySpec::is_neutral;
        /// Passes errors of backends on unchanged.
        "disable-proxy-intercept-errors" => disable_proxy_intercept_errors: bool = "false";
        /// How endpoints are chosen.
        "load-balance" => load_balance: LoadBalance = "round_robin",
            [Differs("the value least_request is new: of two endpoints at random, the one with fewer requests in progress, and those that join others start slowly")];
        /// Sends to cluster addresses of Services instead of to their endpoints.
        "service-upstream" => service_upstream: bool = "false";

        /// Idle time of client connections; 0 turns keep-alive off.
        "keep-alive" => keep_alive: Seconds = "75";
        /// Offers HTTP/2: by ALPN where there is TLS, and to clients that begin with it where there is none.
        "use-http2" => use_http2: bool = "true";
        /// Streams of one HTTP/2 connection at a time.
        "http2-max-concurrent-streams" => http2_max_concurrent_streams: u32 = "128";
        /// Requests on one client connection.
        "keep-alive-requests" => keep_alive_requests: u32 = "1000";
        /// Idle connections to endpoints that each worker keeps; 0 turns keep-alive off.
        "upstream-keepalive-connections" => upstream_keepalive_connections: u32 = "320";
        /// Requests on one connection to an endpoint.
        "upstream-keepalive-requests" => upstream_keepalive_requests: u32 = "10000";
        /// Longest life of a connection to an endpoint.
        "upstream-keepalive-time" => upstream_keepalive_time: NginxTime = "1h";
        /// Idle time of connections to endpoints.
        "upstream-keepalive-timeout" => upstream_keepalive_timeout: Seconds = "60";
        /// Time for the head of a request.
        "client-header-timeout" => client_header_timeout: Seconds = "60";
        /// Longest gap between two reads of a request body.
        "client-body-timeout" => client_body_timeout: Seconds = "60";
        /// Bytes of a request body that a client has to send for each second of waiting, beyond a first minute; 0 for no limit.
        /// Slower clients get 408.
        "client-body-min-rate" => client_body_min_rate: u32 = "100",
            [Differs("a key of Fairway's own: ingress-nginx waits for a slow body as long as some of it comes")];
        /// Concurrent connections of clients in each worker; 0 for as many as the limit of open files allows, which holds in any case.
        "max-worker-connections" => max_worker_connections: u32 = "16384",
            [Differs("counts connections of clients, where nginx counts those to endpoints as well")], same if KeySpec::is_neutral;
        /// Concurrent connections of one client, an address or an IPv6 network of 64 bits; further ones are closed at once; 0 for no
        /// limit. Peers that are trusted to name the client are not limited.
        "max-connections-per-client" => max_connections_per_client: u32 = "0",
            [Differs("a key of Fairway's own: ingress-nginx has no such limit")];
        /// Wrong passwords of one client, an address or an IPv6 network of 64 bits, in a minute, with `auth-type`; after them its
        /// requests with a password get 429 until time has passed, unless a worker knows the password to be right; 0 for no limit.
        "auth-failures-per-minute" => auth_failures_per_minute: u32 = "60",
            [Differs("a key of Fairway's own: ingress-nginx has no such limit")];
        /// The buffer for request heads of usual size.
        "client-header-buffer-size" => client_header_buffer_size: Size = "1k",
            [Differs("buffers grow as needed within large-client-header-buffers, so this sets no limit")];
        /// Largest lines and head of a request.
        "large-client-header-buffers" => large_client_header_buffers: HeaderBuffers = "4 8k",
            [Differs("too large a header answers 431, not 400")];
        /// Fields of a request; a request with more gets 431.
        "max-request-headers" => max_request_headers: FieldCount = "128",
            [Differs("a key of Fairway's own: ingress-nginx has no such limit")];

        /// Client networks that are allowed, for Ingresses without a list of their own.
        "whitelist-source-range" => allow: AccessList = "",
            else AccessList::Unreadable, "paths without a list of their own answer 503";
        /// Client networks that are denied, for Ingresses without a list of their own.
        "denylist-source-range" => deny: AccessList = "",
            else AccessList::Unreadable, "paths without a list of their own answer 503";
        /// Client networks that are denied on paths to which no other list applies.
        "block-cidrs" => block: AccessList = "",
            else AccessList::Unreadable, "paths without a list of their own answer 503";

        /// Values of User-Agent that get 403.
        "block-user-agents" => block_user_agents: BlockedValues = "", [Differs(BLOCK)], same if |_, value| blocks(value);
        /// Values of Referer that get 403.
        "block-referers" => block_referers: BlockedValues = "", [Differs(BLOCK)], same if |_, value| blocks(value);

        /// Status of requests over `limit-rps` or `limit-rpm`.
        "limit-req-status-code" => limit_req_status: ErrorStatus = "503";
        /// Status of requests over `limit-connections`.
        "limit-conn-status-code" => limit_conn_status: ErrorStatus = "503";
        /// Kilobytes of a response per second; 0 for no limit.
        "limit-rate" => limit_rate: u32 = "0";
        /// Kilobytes of a response that are sent at full speed first.
        "limit-rate-after" => limit_rate_after: u32 = "0";

        /// Versions of TLS for clients.
        "ssl-protocols" => ssl_protocols: TlsProtocols = "TLSv1.2 TLSv1.3",
            [Differs("TLS 1.2 and 1.3 only; older versions in the list are left out")],
            same if |spec, value| is_spoken(value) || spec.is_neutral(value);
        /// Cipher suites of TLS 1.2, most preferred first. Without it, AES-128 comes before AES-256 and ChaCha20, for TLS 1.3 as well, and
        /// ChaCha20 comes first for clients that prefer it.
        "ssl-ciphers" => ssl_ciphers: TlsCiphers = "",
            [Differs("suites with ECDHE and AES-GCM or ChaCha20 only; any other name is reported and left out")], same if KeySpec::is_neutral;
        /// Groups for the key exchange, most preferred first.
        "ssl-ecdh-curve" => ssl_ecdh_curve: TlsGroups = "auto",
            [Differs("X25519MLKEM768, X25519, prime256v1 and secp384r1 only; any other name is reported and left out")], same if KeySpec::is_neutral;
        /// Refuses handshakes that name no host of an Ingress, or none at all; they get the default certificate otherwise.
        "ssl-reject-handshake" => ssl_reject_handshake: bool = "false";
        /// Fetches OCSP responses for the certificates in use and staples them.
        "enable-ocsp" => enable_ocsp: bool = "false", [Differs(OCSP)], same if |_, value| bool::parse(value) == Some(false);
        /// Remembers sessions, so that clients can resume them. All workers do so together.
        "ssl-session-cache" => ssl_session_cache: bool = "true";
        /// How long a session is remembered.
        "ssl-session-timeout" => ssl_session_timeout: NginxTime = "10m", [Differs("tickets of ssl-session-tickets are accepted for 12 hours")];
        /// Keeps sessions with the clients, in tickets whose key is the same for all workers and changes every six hours, unless it is set.
        "ssl-session-tickets" => ssl_session_tickets: bool = "false",
            [Differs("without ssl-session-ticket-key a ticket works with the replica that issued it, and its key changes by itself")], same if KeySpec::is_neutral;
        /// A secret that the key of session tickets is made from. Replicas with the same one resume each other's sessions, and a restart
        /// ends none. Whoever has it can decrypt recorded connections of TLS 1.2, so change it often.
        "ssl-session-ticket-key" => ssl_session_ticket_key: SessionTicketKey = "",
            [Differs("tickets are encrypted with AES-256-GCM and valid for 12 hours; those of nginx are not accepted")], same if KeySpec::is_neutral;

        /// Sends the Server header.
        "server-tokens" => server_tokens: bool = "false", [Differs("the name is fairway")];
        /// Passes on the Server header of backends; needs `server-tokens`.
        "allow-backend-server-header" => allow_backend_server_header: bool = "false";
        /// Headers that the ConfigMaps of the annotation `custom-headers` may set.
        "global-allowed-response-headers" => global_allowed_response_headers: HeaderNames = "";
        /// Headers to remove from backends' responses.
        "hide-headers" => hide_headers: HeaderNames = "";
        /// A ConfigMap of headers for all responses.
        "add-headers" => add_headers: Option<ObjectRef> = "";
        /// A ConfigMap of headers for all requests to backends.
        "proxy-set-headers" => proxy_set_headers: Option<ObjectRef> = "";
        /// Sends backends the original target as X-Original-URI.
        "proxy-add-original-uri-header" => proxy_add_original_uri_header: bool = "false";
        /// Adds X-Request-ID to requests without one.
        "generate-request-id" => generate_request_id: bool = "true";
        /// Drops headers whose names have characters other than letters, digits and `-`.
        "ignore-invalid-headers" => ignore_invalid_headers: bool = "true";
        /// Accepts names with `_`.
        "enable-underscores-in-headers" => enable_underscores_in_headers: bool = "false";
        /// Reports paths of type Exact and Prefix with characters other than letters, digits and `/ - . _`.
        "strict-validate-path-type" => strict_validate_path_type: bool = "true";

        /// Compresses responses with gzip.
        "use-gzip" => use_gzip: bool = "false", [Differs(NO_TRANSFORM)];
        /// How much effort gzip makes.
        "gzip-level" => gzip_level: GzipLevel = "1";
        /// Shortest body that gzip is used for, in bytes.
        "gzip-min-length" => gzip_min_length: Size = "256";
        /// Media types that gzip is used for besides `text/html`.
        "gzip-types" => gzip_types: MediaTypes = GZIP_TYPES;
        /// Clients that don't get gzip.
        "gzip-disable" => gzip_disable: Option<UserAgents> = "";
        /// Compresses responses with Brotli, where the client accepts it; it is preferred to gzip.
        "enable-brotli" => enable_brotli: bool = "false", [Differs(NO_TRANSFORM)];
        /// How much effort Brotli makes.
        "brotli-level" => brotli_level: BrotliLevel = "4";
        /// Shortest body that Brotli is used for, in bytes.
        "brotli-min-length" => brotli_min_length: Size = "20";
        /// Media types that Brotli is used for besides `text/html`.
        "brotli-types" => brotli_types: MediaTypes = BROTLI_TYPES;

        /// The format of the access log.
        "log-format-upstream" => log_format_upstream: LogFormat = AccessLog::UPSTREAMINFO;
        /// Escapes its values as in JSON.
        "log-format-escape-json" => log_format_escape_json: bool = "false";
        /// Doesn't escape its values at all.
        "log-format-escape-none" => log_format_escape_none: bool = "false",
            [Differs("line breaks are escaped all the same")];
        /// Writes no access log.
        "disable-access-log" => disable_access_log: bool = "false";
        /// Writes no access log for HTTP.
        "disable-http-access-log" => disable_http_access_log: bool = "false";
        /// Sends the access log, also that of TCP and UDP services, to `syslog-host` instead of to standard output: one UDP datagram for
        /// each line (RFC 3164), with facility local7, severity info and the tag nginx.
        "enable-syslog" => enable_syslog: bool = "false",
            [Differs("messages of Fairway itself stay on standard error")], same if |_, value| bool::parse(value) == Some(false);
        /// The name or address of the syslog server.
        "syslog-host" => syslog_host: Option<HostOrAddress> = "";
        /// Its port.
        "syslog-port" => syslog_port: PortNumber = "514";
        /// Requests that are not logged.
        "skip-access-log-urls" => skip_access_log_urls: UriPatterns = "";

        /// Looks addresses of clients up in the databases of `--maxmind-edition-ids` for the variables `$geoip2_*`. Their files have to be in
        /// `/etc/ingress-controller/geoip`: nothing is downloaded.
        "use-geoip2" => use_geoip2: bool = "false",
            [Differs("the files have to be there, on a volume for example; without them the variables are empty, where ingress-nginx ends")],
            same if |_, value| bool::parse(value) == Some(false);
        /// How often to look for new files of these databases; 0 for never.
        "geoip2-autoreload-in-minutes" => geoip2_autoreload: u32 = "0";

        /// Traces all paths, except those with `enable-opentelemetry: "false"`: the context goes on in `traceparent`, and in the fields of B3
        /// for a client that sends those.
        "enable-opentelemetry" => enable_opentelemetry: bool = "false";
        /// Continues the trace of the client, if it has one; otherwise its fields are removed.
        "opentelemetry-trust-incoming-span" => opentelemetry_trust_incoming_span: bool = "true";
        /// The name of spans, with variables; the path of the rule if it is empty.
        "opentelemetry-operation-name" => opentelemetry_operation_name: Option<SpanName> = "";
        /// The host that receives spans by OTLP, every few seconds; without it none are sent, and the context goes on all the same. After
        /// `https://` or `grpcs://` TLS is spoken, with a certificate by an authority in `/etc/ssl/certs/ca-certificates.crt`, which the image does
        /// not have: mount it.
        "otlp-collector-host" => otlp_collector_host: Option<CollectorHost> = "";
        /// Its port. Spans are sent over gRPC, to port 4318 over HTTP.
        "otlp-collector-port" => otlp_collector_port: PortNumber = "4317",
            [Differs("port 4318 is used with OTLP over HTTP")], same if |_, value| value.trim() != "4318";
        /// `service.name` of spans.
        "otel-service-name" => otel_service_name: SpanName = "nginx";
        /// Which traces are recorded.
        "otel-sampler" => otel_sampler: OtelSampler = "AlwaysOn";
        /// The share of traces that `TraceIdRatioBased` records, from 0 to 1.
        "otel-sampler-ratio" => otel_sampler_ratio: SamplerRatio = "0.01";
        /// Follows the decision of the client, if it has made one.
        "otel-sampler-parent-based" => otel_sampler_parent_based: bool = "true";
        /// Spans that wait to be sent; more are dropped.
        "otel-max-queuesize" => otel_max_queuesize: u32 = "2048";
        /// Spans that are sent at a time.
        "otel-max-export-batch-size" => otel_max_export_batch_size: u32 = "512";
        /// Milliseconds after which spans are sent at the latest.
        "otel-schedule-delay-millis" => otel_schedule_delay_millis: u32 = "5000";

        /// Longest silence of both sides of a TCP connection or UDP session.
        "proxy-stream-timeout" => proxy_stream_timeout: NginxTime = "600s";
        /// Tries another endpoint if connecting to one fails.
        "proxy-stream-next-upstream" => proxy_stream_next_upstream: bool = "true",
            [Differs("proxy-connect-timeout limits the time to connect; ingress-nginx waits 60 seconds")];
        /// Time in which further tries may start; 0 means no limit.
        "proxy-stream-next-upstream-timeout" => proxy_stream_next_upstream_timeout: NginxTime = "600s";
        /// Maximum number of endpoints tried; 0 means all of them.
        "proxy-stream-next-upstream-tries" => proxy_stream_next_upstream_tries: u32 = "3",
            [Differs("no endpoint is tried twice")];
        /// Datagrams expected in response to one from the client, after which a UDP session ends.
        "proxy-stream-responses" => proxy_stream_responses: u32 = "1";
        /// The log format of TCP and UDP services.
        "log-format-stream" => log_format_stream: LogFormat = StreamLog::FORMAT;
        /// Writes no access log for TCP and UDP services.
        "disable-stream-access-log" => disable_stream_access_log: bool = "false";

        /// Addresses to listen on; all if none are listed.
        "bind-address" => bind_address: IpList = "";
        /// Listens on no IPv6 address.
        "disable-ipv6" => disable_ipv6: bool = "false";
        /// Threads that serve traffic.
        "worker-processes" => worker_processes: WorkerProcesses = "auto",
            [Differs("threads of one process; auto respects the CPU quota of the container")];
        /// How long connections may continue after the signal to stop.
        "worker-shutdown-timeout" => worker_shutdown_timeout: NginxTime = "240s";

        /// The highest accepted risk of annotations.
        "annotations-risk-level" => annotations_risk_level: RiskLevel = "High", else RiskLevel::Low, "Low holds";
        /// Words that no annotation may contain.
        "annotation-value-word-blocklist" => annotation_value_word_blocklist: CommaList = "",
            [Differs("an empty word, as after a comma at the end, matches nothing instead of everything")];
        /// Whether annotations may name Secrets of other namespaces, as `proxy-ssl-secret` does.
        "allow-cross-namespace-resources" => allow_cross_namespace_resources: bool = "false";
        /// Whether snippet annotations are accepted.
        "allow-snippet-annotations" => allow_snippet_annotations: bool = "false",
            [Differs("snippets are read as data and never run, see [snippets](snippets.md): with true, an Ingress whose snippet can't be read answers 503")];
        /// Directives of the `http` block, read as data.
        "http-snippet" => http_snippet: HttpSnippet = "", [Differs(SNIPPET)], same if is_read;
        /// Directives of each `server` block, after those of the annotation.
        "server-snippet" => server_snippet: ServerSnippet = "", [Differs(SNIPPET)], same if is_read;
        /// Directives of each `location` block of an Ingress, after those of the annotation.
        "location-snippet" => location_snippet: LocationSnippet = "", [Differs(SNIPPET)], same if is_read;
        /// Directives of the top level.
        "main-snippet" => main_snippet: MainSnippet = "", [Differs(SNIPPET)], same if is_read;
    }
}

impl GlobalConfig {
    /// Makes an unreadable snippet deny requests; returns whether the key holds a snippet that concerns requests.
    fn close(&mut self, key: &str, text: &str) -> bool {
        match key {
            "http-snippet" => self.http_snippet = HttpSnippet::refused(text),
            "server-snippet" => self.server_snippet = ServerSnippet::refused(text),
            "location-snippet" => self.location_snippet = LocationSnippet::refused(text),
            _ => return false,
        }
        true
    }

    /// Reads the data of a ConfigMap over the defaults. Everything that is wrong, unknown or not built is reported against
    /// `origin`.
    pub fn read(origin: &Origin, data: &BTreeMap<String, String>, diagnostics: &mut Vec<Diagnostic>) -> Self {
        let mut config = Self::default();
        let mut report = |severity, reason, key: &str, value: &str, message: String| {
            let field = format!("data[\"{}\"]", bounded(key));
            let found = Diagnostic::new(severity, reason, origin, field, value, message);
            diagnostics.push(if DENYING.contains(&key) { found.unserved() } else { found });
        };
        let mut unknown = 0;
        for (key, value) in data {
            let Some(spec) = spec(key) else {
                unknown += 1;
                if unknown <= limit::UNKNOWN_NAMES {
                    let message = match nearest(key, names()) {
                        Some(near) => format!("no key of this name exists; did you mean {near}?"),
                        None => "no key of this name exists".to_owned(),
                    };
                    report(Severity::Warning, Reason::UnknownConfiguration, key, "", message);
                }
                continue;
            };
            match spec.verdict {
                Verdict::Same | Differs(_) => {
                    if let Some(left_out) = config.set(key, value) {
                        for entry in left_out.iter().take(limit::UNKNOWN_NAMES) {
                            let message = format!("expected {}; this entry is left out", spec.syntax);
                            report(Severity::Error, Reason::InvalidConfiguration, key, entry, message);
                        }
                        let words = if value.is_empty() { Vec::new() } else { snippet::words(key, value) };
                        if !words.is_empty() {
                            let message = format!("read as: {}", words.join("; "));
                            report(Severity::Info, Reason::SnippetRead, key, "", message);
                        }
                        continue;
                    }
                    if let Some(fault) = snippet::fault(key, value) {
                        let closes = snippet::may_restrict(value) && config.close(key, value);
                        let then = match closes {
                            _ if !spec.closed.is_empty() => spec.closed,
                            true => "it may restrict access, so all paths of Ingresses answer 503",
                            false => "nothing of it is in effect",
                        };
                        let message = format!("refused as a whole: {fault}; {then}");
                        report(Severity::Error, Reason::RefusedConfiguration, key, "", message);
                        continue;
                    }
                    let then = match spec.closed {
                        "" => format!("the default \"{}\" holds", spec.default),
                        closed => closed.to_owned(),
                    };
                    let message = format!("expected {}; {then}", spec.syntax);
                    let shown = if key == SECRET { "" } else { value };
                    report(Severity::Error, Reason::InvalidConfiguration, key, shown, message);
                }
                Verdict::Harmless(text) => {
                    let message = format!("has no effect: {text}");
                    report(Severity::Info, Reason::IneffectiveConfiguration, key, value, message);
                }
                // A default that is written out asks for what Fairway does anyway.
                Verdict::NotYet(_) | Verdict::Refused { .. } if spec.is_neutral(value) => {}
                Verdict::NotYet(_) => {
                    let severity = if spec.restricts { Severity::Error } else { Severity::Warning };
                    let message = format!("not supported yet: {}", spec.verdict.note());
                    report(severity, Reason::UnsupportedConfiguration, key, value, message);
                }
                Verdict::Refused { .. } => {
                    let message = format!("refused: {}", spec.verdict.note());
                    report(Severity::Error, Reason::RefusedConfiguration, key, value, message);
                }
            }
        }
        if unknown > limit::UNKNOWN_NAMES {
            let message = format!("{} more keys of unknown names", unknown - limit::UNKNOWN_NAMES);
            diagnostics.push(Diagnostic::new(
                Severity::Warning,
                Reason::UnknownConfiguration,
                origin,
                "data",
                "",
                message,
            ));
        }
        config
    }

    /// The rules for annotations. `ssl_passthrough` is `--enable-ssl-passthrough`.
    pub fn annotation_rules(&self, ssl_passthrough: bool) -> Rules {
        Rules {
            risk_level: self.annotations_risk_level,
            word_blocklist: self.annotation_value_word_blocklist.0.clone(),
            ssl_passthrough,
            snippets: self.allow_snippet_annotations,
            other_namespaces: self.allow_cross_namespace_resources,
        }
    }

    /// The value of Strict-Transport-Security (RFC 6797, 6.1); `None` if it is off.
    pub fn strict_transport_security(&self) -> Option<String> {
        self.hsts.then(|| {
            let subdomains = if self.hsts_include_subdomains { "; includeSubDomains" } else { "" };
            let preload = if self.hsts_preload { "; preload" } else { "" };
            format!("max-age={}{subdomains}{preload}", self.hsts_max_age.0)
        })
    }
}

/// All keys: those that work, then the others.
pub fn specs() -> impl Iterator<Item = &'static KeySpec> {
    GlobalConfig::SPECS.iter().chain(unbuilt::SPECS)
}

/// The specification of a key; `None` if the key is unknown.
pub fn spec(name: &str) -> Option<&'static KeySpec> {
    specs().find(|spec| spec.name == name)
}

/// The names of all keys.
pub fn names() -> impl Iterator<Item = &'static str> {
    specs().map(|spec| spec.name)
}
