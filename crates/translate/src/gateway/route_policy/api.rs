//! RoutePolicy (`fairway.dev/v1alpha1`) as plain data: each field once, with its bounds and its documentation, from which the CRD and the
//! table in the docs are generated (`schema`).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::{Metadata, NamespaceResourceScope, Resource};
use serde::{Deserialize, Serialize};

use super::schema::{Listed, Number, Record, choices, records, texts};
use crate::gateway::api::{Anything, kind};

/// The API group.
pub const GROUP: &str = "fairway.dev";
/// The member of a policy that can't be read, in place of all others: no version knows it, so it denies what the policy is for. Whoever
/// writes it says why.
pub const UNREADABLE: &str = "(unreadable)";

kind!(RoutePolicy, "routepolicies", NamespaceResourceScope, RoutePolicySpec, "fairway.dev", "v1alpha1");

records! {
    /// What a RoutePolicy is for, and what it asks for. Each member beside `targetRefs` is settled by itself: the policy for the most specific
    /// target that has it decides.
    RoutePolicySpec {
        /// What the policy is for.
        target_refs: Listed<Target, 1, 16>,
        /// Which client addresses may send requests. Others get 403.
        access: Option<ClientAccess>,
        /// Demands a name and a password. Backends don't get them.
        basic_auth: Option<BasicAuthentication>,
        /// Lets a service decide about each request, which it gets without the body: 2xx lets the request continue, 401 and 403 reach the
        /// client, anything else means 500.
        external_auth: Option<ServiceAuthentication>,
        /// Limits for each client, an address or an IPv6 network of 64 bits. Requests count for all targets of the policy together.
        limits: Option<Limits>,
        /// What requests may be like, and how they are passed on.
        request: Option<RequestHandling>,
        /// How responses are passed on.
        response: Option<ResponseHandling>,
        /// How long endpoints may take. What is set here counts before `timeouts` of a rule.
        timeouts: Option<Waiting>,
        /// When another endpoint is tried. What is set here counts before `retry` of a rule.
        retry: Option<Retrying>,
        /// The path that backends see, with captures of the regular expression that the rule matches.
        rewrite: Option<Rewriting>,
        /// Ties clients to the endpoint that answered first, by a cookie.
        session_cookie: Option<Session>,
        /// How an endpoint is chosen.
        load_balancing: Option<LoadBalancing>,
        /// Errors that another Service replaces. It gets a request for `/` and the query, with X-Code, X-Format, X-Original-URI and others.
        error_pages: Option<ErrorReplacement>,
    }
    rules {
        "self.targetRefs.all(a, self.targetRefs.exists_one(b, a.kind == b.kind && a.name == b.name && (has(a.sectionName) ? a.sectionName : '') == (has(b.sectionName) ? b.sectionName : '')))"
            => "targetRefs must differ in kind, name or sectionName",
    }

    /// A Gateway, a ListenerSet or a route of the policy's own namespace, or a part of it.
    Target {
        /// API group.
        group: TargetGroup,
        /// Kind.
        kind: TargetKind,
        /// Name.
        name: ObjectName,
        /// Only this listener of the Gateway or ListenerSet, or this rule of the route; all without it.
        section_name: Option<SectionName>,
    }

    /// Which client addresses may send requests.
    ClientAccess {
        /// Networks whose clients are let in; all others get 403.
        allow: Option<Listed<Network, 1, 1000>>,
        /// Networks whose clients get 403, also if `allow` has them.
        deny: Option<Listed<Network, 1, 1000>>,
        /// With `Any`, a client that `allow` has need not authenticate, and one that does may have any address. It counts as `All` where a policy for a less specific target demands authentication.
        satisfy: Option<Satisfaction>,
    }
    rules {
        "has(self.allow) || has(self.deny)" => "allow or deny must be there",
    }

    /// Who may send requests, by name and password.
    BasicAuthentication {
        /// The Secret with the users, in the policy's own namespace. While it is missing or has no user that can be checked, requests get 503.
        secret_ref: LocalName,
        /// How the password is sent; `Basic` by default.
        r#type: Option<PasswordType>,
        /// Whether the Secret has an htpasswd file (htdigest with `Digest`) under the key `auth`, or a key for each user; `File` by default.
        format: Option<SecretFormat>,
        /// What browsers show to users.
        realm: Option<Realm>,
    }

    /// The service that decides about requests.
    ServiceAuthentication {
        /// Its URL: `http://NAME.NAMESPACE.svc.cluster.local:PORT/PATH` for a Service, which is asked at its endpoints, or any other. A Service
        /// of another namespace needs a ReferenceGrant there. The path may hold variables such as `$request_uri`.
        url: Url,
        /// Method of the request to it; GET by default.
        method: Option<Method>,
        /// The URL to which 401 redirects.
        sign_in_url: Option<Url>,
        /// The parameter of that URL with the URL of the request; `rd` by default.
        sign_in_parameter: Option<Word>,
        /// Headers of the service's answer that the backend gets, in place of the client's.
        response_headers: Option<Listed<HeaderName, 1, 64>>,
        /// Value of X-Auth-Request-Redirect for the service; the target of the request by default.
        request_redirect: Option<Url>,
        /// Keeps answers for requests with the same value of this text, for the same host and path. May hold variables.
        cache_key: Option<Url>,
        /// How long answers are kept, by status; `200 202 401 5m` by default.
        cache_duration: Option<Line>,
        /// Sets the service's cookies on every response, not just on those of success and redirects.
        always_set_cookie: Option<bool>,
    }
    rules {
        "!has(self.cacheDuration) || has(self.cacheKey)" => "cacheDuration needs cacheKey",
    }

    /// Limits for each client.
    Limits {
        /// Requests per second. One and the burst may come at once.
        requests_per_second: Option<Number<1, 1_000_000>>,
        /// Requests per minute. Where both rates are set, both apply.
        requests_per_minute: Option<Number<1, 1_000_000>>,
        /// The burst of both rates: the rate times this, 5 by default.
        burst_multiplier: Option<Number<1, 1000>>,
        /// Requests in progress.
        requests_in_progress: Option<Number<1, 1_000_000>>,
        /// Networks of clients to which the limits don't apply.
        exempt: Option<Listed<Network, 1, 1000>>,
        /// Status for requests beyond a limit; 429 by default.
        status_code: Option<Number<400, 599>>,
    }
    rules {
        "has(self.requestsPerSecond) || has(self.requestsPerMinute) || has(self.requestsInProgress)" => "a limit must be there",
    }

    /// How requests are passed on.
    RequestHandling {
        /// Largest body; larger ones get 413. `0` means no limit.
        max_body_size: Option<ByteSize>,
        /// Whether the whole body is read before an endpoint is chosen, so that it can be sent to another one after a failure.
        buffering: Option<bool>,
    }

    /// How responses are passed on.
    ResponseHandling {
        /// Whether a response is read as fast as the endpoint sends it while the client takes its time, up to `bufferSize`.
        buffering: Option<bool>,
        /// How much of a response may wait for its client; `16k` by default.
        buffer_size: Option<ByteSize>,
        /// Kilobytes of each response per second.
        kilobytes_per_second: Option<Number<1, 4_000_000>>,
        /// Kilobytes of a response that are sent at full speed first.
        kilobytes_at_full_speed: Option<Number<0, 4_000_000>>,
    }
    rules {
        "!has(self.bufferSize) || has(self.buffering)" => "bufferSize needs buffering",
        "!has(self.kilobytesAtFullSpeed) || has(self.kilobytesPerSecond)" => "kilobytesAtFullSpeed needs kilobytesPerSecond",
    }

    /// How long endpoints may take.
    Waiting {
        /// Seconds to connect, for each try; 5 by default.
        connect_seconds: Option<Number<1, 86_400>>,
        /// Most seconds between two writes to the endpoint; 60 by default.
        send_seconds: Option<Number<1, 86_400>>,
        /// Most seconds between two reads from the endpoint; 60 by default.
        read_seconds: Option<Number<1, 86_400>>,
    }

    /// When another endpoint is tried.
    Retrying {
        /// After which failures; `Error` and `Timeout` by default. `NonIdempotent` repeats POST, LOCK and PATCH too, `Off` nothing.
        on: Option<Listed<RetryReason, 1, 12>>,
        /// Tries at most, the first included; 3 by default.
        tries: Option<Number<1, 32>>,
        /// Seconds within which further tries may start.
        within_seconds: Option<Number<1, 86_400>>,
    }

    /// Another path for backends. The query stays.
    Rewriting {
        /// The path; `$1` to `$9` are captures.
        path: Url,
        /// Value of X-Forwarded-Prefix for backends, which may have captures too.
        forwarded_prefix: Option<Url>,
    }

    /// A cookie that ties clients to endpoints. It counts for the Services of the policy's own namespace to which the targets lead; of several
    /// policies for one Service the oldest route's decides.
    Session {
        /// Its name; `INGRESSCOOKIE` by default.
        name: Option<Word>,
        /// Its Path; the path that the route matches by default, `/` if that is a regular expression.
        path: Option<Url>,
        /// Its Domain.
        domain: Option<Word>,
        /// Its Max-Age, in seconds.
        max_age: Option<Number<0, 4_000_000_000>>,
        /// Its Expires, in seconds from the response on.
        expires: Option<Number<0, 4_000_000_000>>,
        /// Its SameSite.
        same_site: Option<CookieSite>,
        /// Leaves SameSite=None out for browsers known to mishandle it.
        conditional_same_site_none: Option<bool>,
        /// Sets Secure even if the connection isn't TLS.
        secure: Option<bool>,
        /// With `Persistent`, a client stays with its endpoint when others are added; `Balanced` by default.
        mode: Option<SessionMode>,
        /// Whether the session moves to another endpoint when its own fails.
        change_on_failure: Option<bool>,
    }

    /// How an endpoint is chosen, for the Services of the policy's own namespace to which the targets lead.
    LoadBalancing {
        /// The algorithm.
        algorithm: Option<Algorithm>,
        /// Chooses the endpoint by a consistent hash of this text, which may hold variables such as `$request_uri`.
        hash_by: Option<Url>,
        /// Lets the hash choose a group of so many endpoints, of which a random one gets the request.
        subset_size: Option<Number<1, 1000>>,
    }
    rules {
        "has(self.algorithm) != has(self.hashBy)" => "either algorithm or hashBy must be there",
        "!has(self.subsetSize) || has(self.hashBy)" => "subsetSize needs hashBy",
    }

    /// Errors that another Service replaces.
    ErrorReplacement {
        /// Their statuses.
        status_codes: Listed<Number<400, 599>, 1, 64>,
        /// The Service that answers, in the policy's own namespace.
        backend_ref: LocalService,
        /// Whether only Fairway's own errors are replaced, and those of backends pass.
        only_own: Option<bool>,
    }

    /// An object of the policy's own namespace.
    LocalName {
        /// Its name.
        name: ObjectName,
    }

    /// A Service of the policy's own namespace.
    LocalService {
        /// Its name.
        name: ObjectName,
        /// Its port.
        port: Number<1, 65_535>,
    }
}

texts! {
    /// The name of an object.
    ObjectName(1, 253, "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$");
    /// The name of a listener or a rule.
    SectionName(1, 253, "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$");
    /// An address or a network (CIDR), of IPv4 or IPv6.
    Network(2, 64, "^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$");
    /// A URL, or text of the same letters.
    Url(1, 2048, "^[-a-zA-Z0-9._~/:?&=,%$+@!*(){};\\[\\]]+$");
    /// One line of text.
    Line(1, 256, "^[ -~]+$");
    /// Letters, digits and `- . _ ~ / :`.
    Word(1, 253, "^[-a-zA-Z0-9._~/:]+$");
    /// What browsers show: letters, digits, blanks and `- . _ ~ : /`.
    Realm(1, 253, "^[-a-zA-Z0-9._~:/ ]+$");
    /// The name of a header.
    HeaderName(1, 253, "^[-a-zA-Z0-9_]+$");
    /// A number of bytes: digits and an optional `k`, `m` or `g`.
    ByteSize(1, 20, "^[0-9]+[kKmMgG]?$");
}

choices! {
    /// The group of targets.
    TargetGroup { "gateway.networking.k8s.io" }
    /// The kind of a target.
    TargetKind { "Gateway" "ListenerSet" "HTTPRoute" "GRPCRoute" }
    /// What has to be met.
    Satisfaction { "All" "Any" }
    /// How passwords are sent.
    PasswordType { "Basic" "Digest" }
    /// The layout of a Secret.
    SecretFormat { "File" "Map" }
    /// A method.
    Method { "GET" "HEAD" "POST" "PUT" "PATCH" "DELETE" "OPTIONS" }
    /// A failure after which another endpoint is tried.
    RetryReason {
        "Error" "Timeout" "InvalidHeader" "NonIdempotent" "500" "502" "503" "504" "403" "404" "429" "Off"
    }
    /// SameSite of a cookie.
    CookieSite { "None" "Lax" "Strict" }
    /// How closely a client is tied.
    SessionMode { "Balanced" "Persistent" }
    /// How an endpoint is chosen.
    Algorithm { "RoundRobin" "Ewma" "LeastRequest" }
}
