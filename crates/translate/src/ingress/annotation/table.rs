//! The annotations that work, by feature. A field is `None` if its annotation is absent, empty or unreadable; then the ConfigMap's
//! value or the default applies.

use fairway_model::NetworkSet;

use super::{Meanwhile, OnInvalid, Scope, Spec, annotations};
use crate::configmap::{
    AUTH_CACHE, CONNECT_RETRIED, ERROR_PAGES, REQUEST_BUFFERING, RESPONSE_BUFFERING, RESPONSE_HEAD, REWRITE, TRIES,
};
use crate::snippet::{AuthSnippet, LocationSnippet, ServerSnippet};
use crate::value::{
    AffinityKind, AffinityMode, AnyCiphers, AppRoot, AuthCacheDuration, AuthMethod, AuthRealm, AuthRedirect,
    AuthSecret, AuthSecretType, AuthType, AuthUrl, BackendProtocol, CanaryBehavior, CanaryHeader, CanaryPattern,
    CertificatePage, CommonName, ConnectionHeader, CookieDomain, CookieName, CookiePath, CookieRewrite, CopiedFields,
    CorsExposed, CorsHeaders, CorsMethods, CorsOrigins, ErrorStatuses, ForwardedPrefix, HashKey, HeaderName,
    HealthCount, HealthProbe, HealthSeconds, HealthStatuses, HostAliases, LoadBalance, MirrorTarget, NextUpstream,
    ObjectRef, OperationName, RedirectParam, RedirectPart, RedirectUrl, RewriteTarget, RiskLevel, SameSite, Satisfy,
    Seconds, SecretName, ServerName, ServiceName, SignInUrl, SignedSeconds, Size, Switch, TlsProtocols, Value,
    VerifyClient, Vhost,
};
use crate::verdict::Verdict::{self, Differs};

/// How Fairway's own annotations differ.
const OWN: &str = "an annotation of Fairway's own";

/// How `canary` differs.
const CANARY: &str = "a canary acts on the paths that it has itself, in its own namespace; in ingress-nginx it acts on every path that leads \
     to the same Service; a default backend has no canary";

/// How `mirror-target` differs.
const MIRROR: &str = "the copy has what the backend gets, with another Host; at most 32 are under way from a worker to one Service, with 8 MiB of bodies, \
     and a request whose body exceeds 8 MiB is not copied; copies have the field fairway-copy, and no copy is made of a request with it";

/// How lists of cipher suites differ.
const CIPHERS: &str = "suites with ECDHE and AES-GCM or ChaCha20 only; other names are left out, and a list of only such names is reported and not used";

/// How limits differ.
const LIMITS: &str = "all replicas share the limit, evenly or [by demand](sizing.md#limits-for-clients-over-several-replicas); in ingress-nginx, \
     each replica allows as much by itself";

annotations! {
    /// How paths are matched, and the paths that backends see.
    pub struct Rewriting {
        /// Reads paths of the host as case-insensitive regexes, anchored at the start, longest text first.
        /// On any path of a host, it applies to every path of that host, whichever Ingress it comes from.
        "use-regex" => use_regex: bool [Location, Low, Default]
            = Differs("regexes run in linear time, so look-around and back-references are refused, with a diagnostic");
        /// Replaces the whole path that the backend sees; the query is kept.
        /// A value that differs from the rule path puts the host into regex mode; a URL is answered with 302 to it.
        "rewrite-target" => rewrite_target: RewriteTarget [Ingress, Medium, Drop];
        /// Sends this to the backend as X-Forwarded-Prefix if the path is rewritten.
        "x-forwarded-prefix" => forwarded_prefix: ForwardedPrefix [Location, Medium, Reject];
    }
}

annotations! {
    /// Redirects.
    pub struct Redirects {
        /// Redirects plain HTTP to https if the host has a TLS entry.
        "ssl-redirect" => ssl_redirect: bool [Location, Low, Default];
        /// Redirects plain HTTP to https even if the host has no TLS entry.
        "force-ssl-redirect" => force_ssl_redirect: bool [Location, Medium, Default];
        /// Keeps a final `/` in the Location of the redirect to https, which is otherwise removed.
        "preserve-trailing-slash" => preserve_trailing_slash: bool [Location, Medium, Default];
        /// Redirects every request to this URL, before TLS redirect, access lists and authentication.
        "permanent-redirect" => permanent: RedirectUrl [Location, Medium, Reject];
        /// Status of `permanent-redirect`, 300 to 308; other values mean 301.
        "permanent-redirect-code" => permanent_code: i64 [Location, Low, Reject];
        /// Like `permanent-redirect`, over which it takes precedence. Anything but an http or https URL is ignored.
        "temporal-redirect" => temporal: RedirectUrl [Location, Medium, Reject];
        /// Status of `temporal-redirect`, 300 to 307; other values mean 302.
        "temporal-redirect-code" => temporal_code: i64 [Location, Low, Reject];
        /// Leaves scheme and host out of redirects to a path of the same host: `permanent-redirect: /new`, and the slash after a path.
        "relative-redirects" => relative: bool [Location, Low, Reject];
        /// Names the listener's port in redirects to https, and, unless it is the usual one, in those to a path of the same host.
        "use-port-in-redirects" => use_port: bool [Location, Low, Default];
    }
}

annotations! {
    /// Settings of whole hosts. The first Ingress of a host that sets one of them decides.
    pub struct HostLevel {
        /// Additional names of the host. A name that an Ingress uses as host is skipped, with or without a wildcard.
        "server-alias" => aliases: HostAliases [Ingress, High, Reject]
            = Differs("a host `*.name` of an Ingress keeps the names that it has; in ingress-nginx, wildcards and regexes of aliases come first");
        /// Redirects requests for exactly `/` to this path with 302, before the redirect to https.
        "app-root" => app_root: AppRoot [Location, Medium, Drop];
        /// Redirects the host with or without `www.`, whichever isn't defined, to the one that is.
        "from-to-www-redirect" => www_redirect: bool [Location, Low, Reject];
        /// Cipher suites of TLS 1.2 for clients of the host, most preferred first.
        "ssl-ciphers" => ciphers: AnyCiphers [Ingress, Low, Drop] = Differs(CIPHERS);
        /// Whether the order of the host's suites counts, or that of the client.
        "ssl-prefer-server-ciphers" => server_order: bool [Ingress, Low, Default];
        /// With `--enable-ssl-passthrough`, passes TLS connections for the host to the Service of its path `/`, undecrypted. For those, all
        /// other annotations and all other paths have no effect. Plain HTTP is served as usual. Any Ingress of the host turns it on.
        "ssl-passthrough" => passthrough: bool [Ingress, Low, Reject]
            = Differs("connections go to the Service's endpoints rather than to its cluster IP, and hosts with a wildcard are passed through too");
        /// Begins each connection that `ssl-passthrough` passes to the Service with a PROXY header (version 1) that names the client.
        "ssl-passthrough-proxy-protocol" => passthrough_proxy: bool [Ingress, Low, Reject]
            = Differs("an annotation of Fairway's own: ingress-nginx never sends such a header");
    }
}

annotations! {
    /// Client access.
    pub struct Access {
        /// Client networks that are allowed; all others get 403. Replaces the ConfigMap's list.
        "allowlist-source-range" | "whitelist-source-range" => allow: NetworkSet [Location, Medium, Deny];
        /// Client networks that get 403. Takes precedence over the allowlist, and replaces the ConfigMap's list.
        "denylist-source-range" => deny: NetworkSet [Location, Medium, Deny];
        /// False exempts the paths from the ConfigMap's `global-auth-url`.
        "enable-global-auth" => global_auth: bool [Location, Low, Default];
        /// With `any`, a client that the address list admits need not authenticate, and one that authenticates may have any address.
        "satisfy" => satisfy: Satisfy [Location, Low, Default];
    }
}

annotations! {
    /// Limits for each client: an address, or an IPv6 network of 64 bits. Requests count for all paths of the Ingress together, after
    /// redirects, and before access lists and authentication. Over all workers of a process the count is exact; the ready endpoints of
    /// the Service of `--publish-service` share each limit, so that all replicas together let through what one would.
    pub struct RequestLimits {
        /// Requests per second. One and the burst may come at once; more get 503, or `limit-req-status-code` of the ConfigMap.
        "limit-rps" => per_second: i64 [Location, Low, Reject] = Differs(LIMITS);
        /// Requests per minute. Where both rates are set, both apply.
        "limit-rpm" => per_minute: i64 [Location, Low, Reject] = Differs(LIMITS);
        /// The burst of both rates: the rate times this, 5 by default.
        "limit-burst-multiplier" => burst_multiplier: u32 [Location, Low, Default];
        /// Requests in progress; more get 503, or `limit-conn-status-code` of the ConfigMap.
        "limit-connections" => in_progress: i64 [Location, Low, Reject] = Differs(LIMITS);
        /// Clients to which these limits don't apply.
        "limit-allowlist" | "limit-whitelist" => exempt: NetworkSet [Location, Low, Reject];
        /// Kilobytes of each response per second, after the first second's share; 0 for no limit.
        "limit-rate" => rate: u32 [Location, Low, Default];
        /// Kilobytes of a response that are sent at full speed first.
        "limit-rate-after" => rate_after: u32 [Location, Low, Default];
    }
}

annotations! {
    /// The access log.
    pub struct Logging {
        /// Whether requests are written to the access log.
        "enable-access-log" => access_log: bool [Location, Low, Default];
    }
}

annotations! {
    /// Traces (OpenTelemetry).
    pub struct Traces {
        /// Whether requests are traced.
        "enable-opentelemetry" => enabled: bool [Location, Low, Default];
        /// Whether the trace of the client goes on.
        "opentelemetry-trust-incoming-span" => trusts: bool [Location, Low, Default];
        /// The name of spans.
        "opentelemetry-operation-name" => operation: OperationName [Location, Medium, Reject];
    }
}

annotations! {
    /// Basic or digest authentication, after redirects and address lists. Backends don't get the credentials. Without `auth-type` the others have
    /// no effect.
    pub struct UserAuthentication {
        /// Demands a name and a password.
        "auth-type" => kind: AuthType [Location, Low, Reject]
            = Differs("with digest, a nonce is valid for 60 seconds in the replica that made it, and how often it is used is not checked");
        /// The Secret with the users. While it is missing, has no users, or is in another namespace without
        /// `allow-cross-namespace-resources`, all paths answer 503.
        "auth-secret" => secret: AuthSecret [Location, Medium, Deny]
            = Differs("of the hashes of crypt(3), those of DES and yescrypt match no password, and neither do bcrypt above cost 14 and SHA above 500000 rounds");
        /// The layout of the Secret: an htpasswd file (htdigest with `digest`) under the key `auth`, or a key for each user.
        "auth-secret-type" => secret_type: AuthSecretType [Location, Low, Reject];
        /// What browsers show to users.
        "auth-realm" => realm: AuthRealm [Location, Medium, Reject];
    }
}

annotations! {
    /// External authentication: after redirects and address lists, a service decides about each request. It gets a request without the
    /// body. 2xx lets the client's request continue; 401 and 403 reach the client without the service's page; anything else, and a service
    /// that can't be reached, means 500. Without `auth-url` the others have no effect.
    pub struct ExternalAuthentication {
        /// The service. Fairway connects to the endpoints of a Service of the cluster (`NAME.NAMESPACE.svc.cluster.local`), and for any
        /// other host to the addresses that DNS has for it; the certificate of an https service isn't checked.
        "auth-url" => url: AuthUrl [Location, High, Deny]
            = Differs("in the host only $host works, for hosts with a single name, of which aliases use the first; a URL without path asks for /");
        /// Method of the request to the service; GET by default.
        "auth-method" => method: AuthMethod [Location, Low, Deny]
            = Differs("the methods CONNECT and TRACE are refused: all paths of the Ingress answer 503");
        /// The URL to which 401 redirects, with the URL of the request in the parameter `rd` unless it is there.
        "auth-signin" => sign_in: SignInUrl [Location, High, Drop];
        /// The name of that parameter.
        "auth-signin-redirect-param" => redirect_param: RedirectParam [Location, Medium, Default];
        /// Headers of the service's answer that the backend gets, in place of the client's.
        "auth-response-headers" => response_headers: CopiedFields [Location, Medium, Deny];
        /// Value of X-Auth-Request-Redirect for the service; the target of the request by default.
        "auth-request-redirect" => request_redirect: AuthRedirect [Location, Medium, Deny]
            = Differs("variables are replaced; ingress-nginx leaves out the whole authentication for a value that has any");
        /// Keeps answers for requests with the same value of this text, for the same host and path. Answers that set a cookie, or that
        /// Cache-Control forbids to keep, are not kept.
        "auth-cache-key" => cache_key: HashKey [Location, Medium, Drop] = Differs(AUTH_CACHE);
        /// How long they are kept, by status; `200 202 401 5m` by default. Only those that allow a request or answer 401 or 403 are kept.
        "auth-cache-duration" => cache_duration: AuthCacheDuration [Location, Medium, Deny];
        /// Sets the service's cookies on every response, not just on those of success and redirects.
        "auth-always-set-cookie" => always_set_cookie: bool [Location, Low, Deny];
        /// A ConfigMap of headers for the service. While it is missing, or has one that can't be set, all paths of the Ingress answer 503.
        "auth-proxy-set-headers" => set_headers: Box<ObjectRef> [Location, Medium, Deny];
        /// Headers for the service, as nginx text.
        "auth-snippet" => snippet: AuthSnippet [Location, Critical, Deny]
            = Differs("only proxy_set_header is read; a snippet with anything else denies, see [snippets](snippets.md)");
    }
}

annotations! {
    /// Cross-origin resource sharing. Every OPTIONS of an admitted origin is answered with 204, before redirects, access lists and
    /// authentication. Without `enable-cors` the others have no effect.
    pub struct CrossOrigin {
        /// Adds the fields below to each response to an admitted origin, in place of the backend's.
        "enable-cors" => enabled: bool [Ingress, Low, Default];
        /// Admitted origins; all by default. `*` as first label of a host stands for one label. Other origins get no such fields, and
        /// their preflights go to the backend. An origin must match as a whole; ingress-nginx also admits it with any text before it. As
        /// there, Vary isn't sent: a cache in front must keep the responses to each origin apart. An invalid value admits no origin.
        "cors-allow-origin" => origins: CorsOrigins [Ingress, Medium, Drop]
            = Differs("a value that can't be read admits no origin; ingress-nginx then admits all");
        /// The methods that an origin may use; GET, PUT, POST, DELETE, PATCH and OPTIONS by default.
        "cors-allow-methods" => methods: CorsMethods [Ingress, Medium, Default];
        /// The headers that an origin may send; those that browsers and most programs need by default.
        "cors-allow-headers" => headers: CorsHeaders [Ingress, Medium, Default];
        /// The headers that an origin may read; none by default.
        "cors-expose-headers" => exposed: CorsExposed [Ingress, Medium, Drop];
        /// Whether an origin may send credentials; true by default.
        "cors-allow-credentials" => credentials: bool [Ingress, Low, Default];
        /// How many seconds a browser may keep the answer to a preflight; 1728000 by default.
        "cors-max-age" => max_age: i64 [Ingress, Low, Default];
    }
}

annotations! {
    /// Client certificates, over TLS only: plain HTTP is redirected where the host has a TLS entry, and else served. The first Ingress of a
    /// host that has a usable Secret for it decides for all paths of the host. A request whose connection was made for a host that
    /// asks for something else gets 421.
    pub struct ClientCertificates {
        /// The Secret with `ca.crt`, whose authorities clients' certificates must lead to, and `ca.crl` if there are revocation lists.
        /// While it is missing, of no use, or in another namespace without `allow-cross-namespace-resources`, the host answers 503.
        "auth-tls-secret" => secret: SecretName [Location, Medium, Reject]
            = Differs("while the Secret can't be used the answer is 503, not 403; each authority in ca.crt is trusted by itself, also one that another one has signed");
        /// With `on` a client without a good certificate gets 400. With `optional` it may have none, with `optional_no_ca` also one of an
        /// unknown authority. With `off` Fairway requests none.
        "auth-tls-verify-client" => verify: VerifyClient [Location, Medium, Default];
        /// How many intermediate certificates a chain may have; 0 means 1.
        "auth-tls-verify-depth" => depth: u32 [Location, Low, Default];
        /// What clients get in place of 400: a redirect to a URL, or what the host has for a path.
        "auth-tls-error-page" => error_page: CertificatePage [Location, High, Reject]
            = Differs("a URL is sent as it is written, without nginx variables; a path is served to GET and HEAD, other methods get 400; @name and a query in a path are refused");
        /// Which subjects are admitted: a pattern that is searched for in the subject as RFC 2253 writes it. Others get 403, on plain
        /// HTTP as well.
        "auth-tls-match-cn" => subject: CommonName [Location, High, Reject]
            = Differs("regexes run in linear time, so look-around and back-references are refused");
        /// Sends the certificate to backends, in ssl-client-cert.
        "auth-tls-pass-certificate-to-upstream" => pass_certificate: bool [Location, Low, Reject];
    }
}

annotations! {
    /// Text in nginx's language, read as data and never run, see [snippets](snippets.md). With `allow-snippet-annotations` of the
    /// ConfigMap only; without it they are dropped.
    pub struct Snippets {
        /// Directives of a `location`: fields, steps and settings for the paths of the Ingress.
        "configuration-snippet" => configuration: LocationSnippet [Location, Critical, Deny]
            = Differs("a directive, argument or context outside the set refuses the snippet as a whole: all paths of the Ingress answer 503");
        /// Directives of a `server`, for all paths of the hosts. The first Ingress of a host that has one decides.
        "server-snippet" => server: ServerSnippet [Ingress, Critical, Deny]
            = Differs("a directive, argument or context outside the set refuses the snippet as a whole: the hosts of the Ingress answer 503");
    }
}

annotations! {
    /// Forwarding.
    pub struct Proxying {
        /// The protocol for connections to endpoints: HTTP/1.1 in the clear, over TLS, or as the client does (`AUTO_HTTP`); HTTP/2 in the
        /// clear or over TLS (`GRPC`, `GRPCS`), see [gRPC](grpc.md).
        "backend-protocol" => protocol: BackendProtocol [Location, Low, Default]
            = Differs("gRPC clients get the proxy's own errors as grpc-status; proxy-ssl-* applies to GRPCS as it does to HTTPS; with FCGI the paths answer 503");
        /// A Service that answers if the rule's own has no ready endpoint.
        "default-backend" => default_backend: ServiceName [Location, Low, Reject];
        /// Errors of the backend and of Fairway that the default backend replaces: the Service of `default-backend`, or that of
        /// `--default-backend-service`. It gets a request for `/` and the query, with X-Code, X-Format, X-Original-URI, X-Namespace,
        /// X-Ingress-Name, X-Service-Name, X-Service-Port and X-Request-ID, and the client gets its status. Replaces the ConfigMap's list.
        "custom-http-errors" => http_errors: ErrorStatuses [Location, Low, Reject] = Differs(ERROR_PAGES);
        /// Passes errors of the backend on unchanged; those of Fairway are replaced all the same.
        "disable-proxy-intercept-errors" => pass_errors: bool [Location, Low, Default];
        /// A ConfigMap of headers for all responses, each of which `global-allowed-response-headers` of the ConfigMap must list, whatever the
        /// case of its letters. While it is missing, or has one that can't be set, all paths of the Ingress answer 503.
        "custom-headers" => response_headers: Box<ObjectRef> [Location, Medium, Drop];
        /// Sends a copy of each request to this URL, with the same method, once it is admitted. The answer is dropped, and nothing that
        /// happens to a copy delays or changes the response of the backend.
        "mirror-target" => mirror_target: Box<MirrorTarget> [Ingress, High, Drop] = Differs(MIRROR);
        /// The Host header of the copies; the host of the URL by default.
        "mirror-host" => mirror_host: Vhost [Ingress, High, Default];
        /// Whether the copies have the body. Then it is read before the request is sent to the backend.
        "mirror-request-body" => mirror_body: Switch [Ingress, Low, Default];
        /// The Host header that the endpoints see.
        "upstream-vhost" => vhost: Vhost [Location, Low, Reject];
        /// Time to connect to an endpoint, for each try.
        "proxy-connect-timeout" => connect_timeout: Seconds [Location, Low, Default];
        /// Longest gap between two writes to the endpoint.
        "proxy-send-timeout" => send_timeout: Seconds [Location, Low, Default];
        /// Longest gap between two reads from the endpoint.
        "proxy-read-timeout" => read_timeout: Seconds [Location, Low, Default];
        /// Largest request body; larger ones get 413. 0 means no limit.
        "proxy-body-size" => body_size: Size [Location, Medium, Default];
        /// Reads the whole body of a request before an endpoint is chosen, so that it can be sent to another one after a failure, and so
        /// that the endpoint always gets a Content-Length. Without the annotation, the ConfigMap's `on` does so for bodies that have no
        /// Content-Length themselves; others are streamed. Calls of gRPC are always streamed.
        "proxy-request-buffering" => request_buffering: Switch [Location, Low, Default] = Differs(REQUEST_BUFFERING);
        /// Largest head of a response; larger ones become 502.
        "proxy-buffer-size" => buffer_size: Size [Location, Low, Default] = Differs(RESPONSE_HEAD);
        /// Reads a response as fast as the endpoint sends it while the client takes its time, up to `proxy-buffers-number` times
        /// `proxy-buffer-size`. A response that is there whole needs its connection to the endpoint no more.
        "proxy-buffering" => buffering: Switch [Location, Low, Default] = Differs(RESPONSE_BUFFERING);
        /// How many times `proxy-buffer-size` of a response may wait for its client with `proxy-buffering`.
        "proxy-buffers-number" => buffers_number: u32 [Location, Low, Default];
        /// With `close`, a connection to an endpoint ends with its request.
        "connection-proxy-header" => connection: ConnectionHeader [Location, Low, Reject]
            = Differs("with close, upgrades such as WebSocket pass all the same");
        /// The start of URLs in Location and Refresh of the backend's responses that `proxy-redirect-to` replaces.
        "proxy-redirect-from" => redirect_from: RedirectPart [Location, Medium, Default] = Differs(REWRITE);
        /// What takes its place.
        "proxy-redirect-to" => redirect_to: RedirectPart [Location, Medium, Default] = Differs(REWRITE);
        /// The Domain of the backend's cookies to replace, and what takes its place.
        "proxy-cookie-domain" => cookie_domain: CookieRewrite [Location, Medium, Default] = Differs(REWRITE);
        /// The start of the Path of the backend's cookies to replace, and what takes its place.
        "proxy-cookie-path" => cookie_path: CookieRewrite [Location, Medium, Default] = Differs(REWRITE);
        /// Failures after which another endpoint is tried. Replaces the ConfigMap's list.
        "proxy-next-upstream" => next_upstream: NextUpstream [Location, Medium, Default] = Differs(CONNECT_RETRIED);
        /// Maximum number of tries, including the first. 0 means 32.
        "proxy-next-upstream-tries" => next_upstream_tries: u32 [Location, Low, Default] = Differs(TRIES);
        /// Time in which further tries may start. 0 means no limit.
        "proxy-next-upstream-timeout" => next_upstream_timeout: Seconds [Location, Low, Default];
    }
}

annotations! {
    /// TLS to backends with `backend-protocol: HTTPS`. Without `proxy-ssl-secret` no name is sent, no certificate is checked, and the
    /// others have no effect. The first Ingress of a host that has the Secret decides for all paths of the host, unless the ConfigMap
    /// has `proxy-ssl-location-only`.
    pub struct BackendTls {
        /// The Secret with `ca.crt`, or with `tls.crt` and `tls.key` for backends that ask for a certificate, or both. While it is
        /// missing, unusable, or in another namespace without `allow-cross-namespace-resources`, all paths of the Ingress answer 503.
        "proxy-ssl-secret" => secret: SecretName [Ingress, Medium, Reject];
        /// Whether the backend's certificate must lead to `ca.crt` and have the name; otherwise the answer is 502.
        "proxy-ssl-verify" => verify: Switch [Ingress, Low, Drop]
            = Differs("without ca.crt in the Secret, and with a value that can't be read, the paths answer 503; ingress-nginx checks nothing then");
        /// Longest chain of that certificate.
        "proxy-ssl-verify-depth" => verify_depth: u32 [Ingress, Low, Default]
            = Differs("each chain has to lead to ca.crt, but how long it may be is not set by this");
        /// The name that the certificate must have, and the one that `proxy-ssl-server-name` sends.
        "proxy-ssl-name" => name: ServerName [Ingress, High, Drop];
        /// Whether that name is sent to the backend (SNI).
        "proxy-ssl-server-name" => server_name: Switch [Ingress, Low, Default];
        /// TLS versions; 1.2 if none are given.
        "proxy-ssl-protocols" => protocols: TlsProtocols [Ingress, Low, Default];
        /// Cipher suites of TLS 1.2.
        "proxy-ssl-ciphers" => ciphers: AnyCiphers [Ingress, Medium, Drop] = Differs(CIPHERS);
    }
}

annotations! {
    /// How an endpoint is chosen. The first Ingress that refers to a Service port decides.
    pub struct Balancing {
        /// The algorithm. Cookie affinity and `upstream-hash-by` take precedence.
        "load-balance" => algorithm: LoadBalance [Location, Low, Reject]
            = Differs("the names chash, chashsubset, sticky_balanced and sticky_persistent pass and mean round_robin; the value least_request is new: of two endpoints at random, the one with fewer requests in progress, and those that join others start slowly");
        /// Chooses the endpoint by a consistent hash of this text, which may have variables.
        "upstream-hash-by" => hash_by: HashKey [Location, High, Reject];
        /// Lets the hash choose a group of endpoints, of which a random one gets the request.
        "upstream-hash-by-subset" => hash_by_subset: bool [Location, Low, Reject];
        /// Endpoints in such a group, 3 by default.
        "upstream-hash-by-subset-size" => hash_by_subset_size: u32 [Location, Low, Reject];
        /// Sends to the cluster address of the Service instead of to its endpoints.
        "service-upstream" => service_upstream: bool [Ingress, Low, Default];
    }
}

annotations! {
    /// Canaries: an Ingress whose Service gets some of the requests for paths of another. First the session cookie of the other decides, then
    /// the header, then the cookie, then chance. A canary's other annotations have no effect, except those that choose endpoints.
    /// Without `canary` the others have no effect.
    pub struct CanaryRelease {
        /// Makes the Ingress an alternative to those of its namespace that have the same hosts, paths and path types. Without such an
        /// Ingress it serves nothing, and of several canaries the oldest counts.
        "canary" => enabled: bool [Ingress, Low, Default] = Differs(CANARY);
        /// The header that chooses the canary with `always`, and the other Ingress with `never`.
        "canary-by-header" => header: HeaderName [Ingress, Medium, Drop];
        /// The value that chooses the canary in place of these.
        "canary-by-header-value" => header_value: CanaryHeader [Ingress, Medium, Drop];
        /// A regex for values that choose the canary, anywhere in the value, if there is no `canary-by-header-value`.
        "canary-by-header-pattern" => header_pattern: CanaryPattern [Ingress, Medium, Drop]
            = Differs("regexes run in linear time, so look-around and back-references are refused, with a diagnostic");
        /// The cookie that chooses the canary with `always`, and the other Ingress with `never`.
        "canary-by-cookie" => cookie: CookieName [Ingress, Medium, Drop];
        /// How many of `canary-weight-total` requests the canary gets if nothing else decides; 0 by default.
        "canary-weight" => weight: i64 [Ingress, Low, Default];
        /// The number of which the weight is a part: 100, unless it is more.
        "canary-weight-total" => weight_total: i64 [Ingress, Low, Default];
        /// With `sticky`, the session cookie of the other Ingress ties clients to the canary as well; with `legacy` the canary sets none.
        "affinity-canary-behavior" => behavior: CanaryBehavior [Ingress, Low, Default];
    }
}

annotations! {
    /// Active health checks: an endpoint that gives bad answers gets no new requests while the Service has another. The first Ingress that
    /// refers to a Service port decides. Each replica asks every endpoint once per interval, however many routes and workers there are.
    pub struct HealthChecks {
        /// Turns health checks on, and says what endpoints are asked: a path for `GET` over HTTP/1.1, or `grpc` for the health service of gRPC.
        /// Both are asked over TLS if `backend-protocol` is HTTPS or GRPCS; no certificate is verified.
        "fairway.dev/health-check" => probe: Box<HealthProbe> [Ingress, Low, Drop] = Differs(OWN);
        /// Time from one question to the next, 10 s by default. A tenth of it is left to chance.
        "fairway.dev/health-check-interval" => interval: HealthSeconds [Ingress, Low, Default] = Differs(OWN);
        /// Time for the whole answer, 3 s by default.
        "fairway.dev/health-check-timeout" => timeout: HealthSeconds [Ingress, Low, Default] = Differs(OWN);
        /// The statuses of a good answer to `GET`, `200-399` by default.
        "fairway.dev/health-check-statuses" => statuses: Box<HealthStatuses> [Ingress, Low, Default] = Differs(OWN);
        /// Bad answers in a row after which an endpoint is unhealthy, 3 by default. A new endpoint is healthy.
        "fairway.dev/health-check-unhealthy-after" => unhealthy_after: HealthCount [Ingress, Low, Default] = Differs(OWN);
        /// Good answers in a row after which it is healthy again, 2 by default.
        "fairway.dev/health-check-healthy-after" => healthy_after: HealthCount [Ingress, Low, Default] = Differs(OWN);
    }
}

annotations! {
    /// What is said about changes of the Ingress, or of a route of the Gateway API.
    pub struct Observation {
        /// Has Fairway say in the annotation `fairway.dev/observed` which generation of the Ingress, or of a route of the Gateway API, is in
        /// force at how many proxies, and how long that took, if `--observed` is set: `{"generation":7,"proxies":4,"of":4,"milliseconds":12}`.
        "fairway.dev/observe" => observe: bool [Ingress, Low, Default] = Differs(OWN);
    }
}

annotations! {
    /// Session affinity by cookie.
    pub struct Affinity {
        /// Turns session affinity on for the Service ports that the Ingress refers to.
        "affinity" => kind: AffinityKind [Ingress, Low, Drop];
        /// How closely a client is tied to its endpoint.
        "affinity-mode" => mode: AffinityMode [Ingress, Medium, Default];
        /// Name of the cookie; INGRESSCOOKIE by default.
        "session-cookie-name" => cookie_name: CookieName [Ingress, Medium, Default];
        /// Path of the cookie; the rule path by default.
        "session-cookie-path" => cookie_path: CookiePath [Ingress, Medium, Default];
        /// Domain of the cookie.
        "session-cookie-domain" => cookie_domain: CookieDomain [Ingress, Medium, Drop];
        /// Expires of the cookie, counted from the response.
        "session-cookie-expires" => cookie_expires: SignedSeconds [Ingress, Medium, Drop];
        /// Max-Age of the cookie.
        "session-cookie-max-age" => cookie_max_age: SignedSeconds [Ingress, Medium, Drop];
        /// SameSite of the cookie. Case matters.
        "session-cookie-samesite" => cookie_same_site: SameSite [Ingress, Low, Drop];
        /// Leaves SameSite=None out for browsers known to mishandle it.
        "session-cookie-conditional-samesite-none" => cookie_conditional_same_site_none: bool [Ingress, Low, Default];
        /// Sets Secure on the cookie even if the connection isn't TLS.
        "session-cookie-secure" => cookie_secure: bool [Ingress, Low, Default];
        /// Whether the session moves to another endpoint when its own fails.
        "session-cookie-change-on-failure" => cookie_change_on_failure: bool [Ingress, Low, Default];
    }
}
