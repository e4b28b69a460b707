//! The annotations that work, by feature. Fields are `None` where the annotation is absent, empty or unreadable; the ConfigMap's
//! value or the default then holds.

use fairway_model::NetworkSet;

use super::{Meanwhile, OnInvalid, Scope, Spec, annotations};
use crate::configmap::{CONNECT_RETRIED, RESPONSE_HEAD, TRIES};
use crate::value::{
    AffinityKind, AffinityMode, AppRoot, BackendProtocol, CookieDomain, CookieName, CookiePath, ForwardedPrefix,
    HashKey, HostAliases, LoadBalance, NextUpstream, RedirectUrl, RewriteTarget, RiskLevel, SameSite, Seconds,
    SecretName, ServerName, ServiceName, SignedSeconds, Size, Switch, TlsProtocols, Value, Vhost,
};
use crate::verdict::Verdict::{self, Differs};

annotations! {
    /// How paths are matched and what the backend sees of them.
    pub struct Rewriting {
        /// Paths of the host are case-insensitive regexes, anchored at the start, longest text first.
        /// True on any path of a host means every path of that host, whichever Ingress has it.
        "use-regex" => use_regex: bool [Location, Low, Default]
            = Differs("regexes run in linear time, so look-around and back-references are refused, with a diagnostic");
        /// Replaces the whole path that the backend sees; the query is kept.
        /// A value that isn't the rule path itself puts the host into regex mode; one that is a URL answers 302 to it.
        "rewrite-target" => rewrite_target: RewriteTarget [Ingress, Medium, Drop];
        /// Sent to the backend as X-Forwarded-Prefix while a rewrite is in force.
        "x-forwarded-prefix" => forwarded_prefix: ForwardedPrefix [Location, Medium, Reject];
    }
}

annotations! {
    /// Answers that send the client elsewhere.
    pub struct Redirects {
        /// Plain HTTP is redirected to https where the host has a TLS entry.
        "ssl-redirect" => ssl_redirect: bool [Location, Low, Default];
        /// Plain HTTP is redirected to https even where the host has no TLS entry.
        "force-ssl-redirect" => force_ssl_redirect: bool [Location, Medium, Default];
        /// Keeps a final `/` in the Location of the redirect to https, which is otherwise cut.
        "preserve-trailing-slash" => preserve_trailing_slash: bool [Location, Medium, Default];
        /// Every request is answered with a redirect to this, before TLS redirect, access lists and authentication.
        "permanent-redirect" => permanent: RedirectUrl [Location, Medium, Reject];
        /// Status of `permanent-redirect`, 300 to 308; 301 if it lies outside.
        "permanent-redirect-code" => permanent_code: i64 [Location, Low, Reject];
        /// As `permanent-redirect`, which it beats. Must be an http or https URL, else it is ignored.
        "temporal-redirect" => temporal: RedirectUrl [Location, Medium, Reject];
        /// Status of `temporal-redirect`, 300 to 307; 302 if it lies outside.
        "temporal-redirect-code" => temporal_code: i64 [Location, Low, Reject];
    }
}

annotations! {
    /// What holds for whole hosts. The first Ingress of a host that sets one of these decides.
    pub struct HostLevel {
        /// More names under which the host is served. A name that an Ingress defines as host is skipped.
        "server-alias" => aliases: HostAliases [Ingress, High, Reject];
        /// A request for exactly `/` is answered 302 with this path, before the redirect to https.
        "app-root" => app_root: AppRoot [Location, Medium, Drop];
        /// The host with or without `www.`, whichever isn't defined, redirects to the one that is.
        "from-to-www-redirect" => www_redirect: bool [Location, Low, Reject];
    }
}

annotations! {
    /// Who may connect.
    pub struct Access {
        /// Client networks that are let in; everyone else gets 403. Replaces the ConfigMap's list.
        "allowlist-source-range" | "whitelist-source-range" => allow: NetworkSet [Location, Medium, Deny];
        /// Client networks that get 403, asked before the allowlist. Replaces the ConfigMap's list.
        "denylist-source-range" => deny: NetworkSet [Location, Medium, Deny];
        /// False exempts the paths from the ConfigMap's `global-auth-url`.
        "enable-global-auth" => global_auth: bool [Location, Low, Default]
            = Differs("global authentication isn't built: paths that it would guard answer 503, and false exempts from that");
    }
}

annotations! {
    /// How requests are passed on.
    pub struct Proxying {
        /// The protocol spoken to the endpoints.
        "backend-protocol" => protocol: BackendProtocol [Location, Low, Default]
            = Differs("HTTP and HTTPS so far: with any other protocol the paths answer 503, so that no backend gets the wrong one");
        /// A Service that answers when the rule's own has no ready endpoint.
        "default-backend" => default_backend: ServiceName [Location, Low, Reject];
        /// The Host header that the endpoints see.
        "upstream-vhost" => vhost: Vhost [Location, Low, Reject];
        /// How long connecting to an endpoint may take, for each try.
        "proxy-connect-timeout" => connect_timeout: Seconds [Location, Low, Default];
        /// Longest gap between two writes to the endpoint.
        "proxy-send-timeout" => send_timeout: Seconds [Location, Low, Default];
        /// Longest gap between two reads from the endpoint.
        "proxy-read-timeout" => read_timeout: Seconds [Location, Low, Default];
        /// Largest request body; more is answered 413. 0 means no limit.
        "proxy-body-size" => body_size: Size [Location, Medium, Default];
        /// Largest head of a response; more is answered 502.
        "proxy-buffer-size" => buffer_size: Size [Location, Low, Default] = Differs(RESPONSE_HEAD);
        /// Failures after which another endpoint is tried. Replaces the list, doesn't add to it.
        "proxy-next-upstream" => next_upstream: NextUpstream [Location, Medium, Default] = Differs(CONNECT_RETRIED);
        /// How many endpoints are tried at most, the first included. 0 means 32.
        "proxy-next-upstream-tries" => next_upstream_tries: u32 [Location, Low, Default] = Differs(TRIES);
        /// For how long further tries may start. 0 means no limit.
        "proxy-next-upstream-timeout" => next_upstream_timeout: Seconds [Location, Low, Default];
    }
}

annotations! {
    /// TLS to backends with `backend-protocol: HTTPS`. Without `proxy-ssl-secret` no name is sent, no certificate is checked, and none of
    /// the others has an effect. The first Ingress of a host that has the Secret decides for all paths of the host, unless the ConfigMap
    /// has `proxy-ssl-location-only`.
    pub struct BackendTls {
        /// The Secret with `ca.crt`, or with `tls.crt` and `tls.key` to show to backends that ask for a certificate, or both. While it
        /// is missing, of no use, or in another namespace without `allow-cross-namespace-resources`, all paths of the Ingress answer 503.
        "proxy-ssl-secret" => secret: SecretName [Ingress, Medium, Reject];
        /// Whether the backend must have a certificate that leads to `ca.crt` and has the name; others are answered 502.
        "proxy-ssl-verify" => verify: Switch [Ingress, Low, Drop]
            = Differs("without ca.crt in the Secret, and with a value that can't be read, the paths answer 503; ingress-nginx checks nothing then");
        /// Longest chain of that certificate.
        "proxy-ssl-verify-depth" => verify_depth: u32 [Ingress, Low, Default]
            = Differs("each chain has to lead to ca.crt, but how long it may be is not set by this");
        /// The name that the certificate must have, and the one that `proxy-ssl-server-name` sends.
        "proxy-ssl-name" => name: ServerName [Ingress, High, Drop];
        /// Whether Fairway sends that name to the backend (SNI).
        "proxy-ssl-server-name" => server_name: Switch [Ingress, Low, Default];
        /// Versions that are spoken; TLS 1.2 if nothing is said.
        "proxy-ssl-protocols" => protocols: TlsProtocols [Ingress, Low, Default];
    }
}

annotations! {
    /// How an endpoint is chosen. The first Ingress that refers to a Service port decides.
    pub struct Balancing {
        /// The algorithm. Cookie affinity and `upstream-hash-by` take precedence.
        "load-balance" => algorithm: LoadBalance [Location, Low, Reject]
            = Differs("the names chash, chashsubset, sticky_balanced and sticky_persistent pass and mean round_robin");
        /// A consistent hash of this text with variables chooses the endpoint.
        "upstream-hash-by" => hash_by: HashKey [Location, High, Reject];
        /// The hash chooses a group of endpoints, and chance one of its members.
        "upstream-hash-by-subset" => hash_by_subset: bool [Location, Low, Reject];
        /// Endpoints in such a group, 3 by default.
        "upstream-hash-by-subset-size" => hash_by_subset_size: u32 [Location, Low, Reject];
        /// Sends to the cluster address of the Service instead of to its endpoints.
        "service-upstream" => service_upstream: bool [Ingress, Low, Default];
    }
}

annotations! {
    /// Stickiness by cookie.
    pub struct Affinity {
        /// Turns stickiness on for the Service ports that the Ingress refers to.
        "affinity" => kind: AffinityKind [Ingress, Low, Drop];
        /// How closely a client is tied to its endpoint.
        "affinity-mode" => mode: AffinityMode [Ingress, Medium, Default];
        /// Name of the cookie, INGRESSCOOKIE if there is none.
        "session-cookie-name" => cookie_name: CookieName [Ingress, Medium, Default];
        /// Path of the cookie; the rule path if there is none.
        "session-cookie-path" => cookie_path: CookiePath [Ingress, Medium, Default];
        /// Domain of the cookie.
        "session-cookie-domain" => cookie_domain: CookieDomain [Ingress, Medium, Drop];
        /// Expires of the cookie, counted from the response.
        "session-cookie-expires" => cookie_expires: SignedSeconds [Ingress, Medium, Drop];
        /// Max-Age of the cookie.
        "session-cookie-max-age" => cookie_max_age: SignedSeconds [Ingress, Medium, Drop];
        /// SameSite of the cookie. The letter case counts.
        "session-cookie-samesite" => cookie_same_site: SameSite [Ingress, Low, Drop];
        /// Leaves SameSite=None out for browsers known to mishandle it.
        "session-cookie-conditional-samesite-none" => cookie_conditional_same_site_none: bool [Ingress, Low, Default];
        /// Secure of the cookie also where the connection isn't TLS.
        "session-cookie-secure" => cookie_secure: bool [Ingress, Low, Default];
        /// Whether another endpoint is picked and recorded when the sticky one fails.
        "session-cookie-change-on-failure" => cookie_change_on_failure: bool [Ingress, Low, Default];
    }
}
