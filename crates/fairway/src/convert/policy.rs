//! The annotations of one Ingress as the spec of a RoutePolicy: what the Gateway API has no field for.
//!
//! What restricts access and can't be said there is an [`Obstacle`]: the Ingress is left as it is.

use fairway_translate::annotation::IngressAnnotations;
use fairway_translate::gateway::policy::{
    Algorithm, BasicAuthentication, ByteSize, ClientAccess, CookieSite, ErrorReplacement, HeaderName, Limits, Line,
    LoadBalancing, LocalName, LocalService, Method, Network, ObjectName, PasswordType, Realm, RequestHandling,
    ResponseHandling, RetryReason, Retrying, Rewriting, RoutePolicySpec, Satisfaction, SecretFormat,
    ServiceAuthentication, Session, SessionMode, Url, Waiting, Word,
};
use fairway_translate::gateway::schema::{Listed, Number};
use fairway_translate::value::{AuthSecretType, AuthType, LoadBalance, Satisfy, Switch};
use k8s_openapi::api::core::v1::Service;

/// Why an Ingress can't be converted.
pub(super) struct Obstacle {
    /// Without the prefix.
    pub(super) annotation: &'static str,
    pub(super) why: String,
}

/// The annotations of an Ingress, parsed and as written.
pub(super) struct Annotated<'a> {
    pub(super) namespace: &'a str,
    pub(super) values: &'a IngressAnnotations,
    /// By name without the prefix.
    pub(super) text: &'a dyn Fn(&str) -> Option<&'a str>,
    /// The only host of the Ingress, if there is one.
    pub(super) host: Option<&'a str>,
    /// A Service of its namespace.
    pub(super) service: &'a dyn Fn(&str) -> Option<&'a Service>,
}

/// Settings of the ConfigMap that hold for Ingresses, and would not for routes.
pub(super) struct Defaults {
    pub(super) body_size: String,
    pub(super) over_rate: u16,
    /// Time limits that are set there, in seconds.
    pub(super) connect: Option<i64>,
    pub(super) send: Option<i64>,
    pub(super) read: Option<i64>,
}

/// What the annotations ask for. What is lost is added to `lost`: the annotation and the loss.
pub(super) fn spec(
    all: &Annotated<'_>,
    defaults: &Defaults,
    lost: &mut Vec<(String, String)>,
) -> Result<RoutePolicySpec, Obstacle> {
    Ok(RoutePolicySpec {
        access: access(all)?,
        basic_auth: basic_auth(all)?,
        external_auth: external_auth(all)?,
        limits: limits(all, defaults),
        request: request(all, defaults),
        response: response(all),
        timeouts: timeouts(all, defaults),
        retry: retry(all),
        session_cookie: session(all),
        load_balancing: balancing(all),
        error_pages: errors(all, lost),
        ..RoutePolicySpec::default()
    })
}

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|entry| !entry.is_empty())
}

fn networks<const LEAST: usize, const MOST: usize>(text: &str) -> Listed<Network, LEAST, MOST> {
    Listed(list(text).map(|entry| Network(entry.to_owned())).collect())
}

fn access(all: &Annotated<'_>) -> Result<Option<ClientAccess>, Obstacle> {
    let access = &all.values.access;
    let allow =
        access.allow.as_ref().and((all.text)("allowlist-source-range").or((all.text)("whitelist-source-range")));
    let deny = access.deny.as_ref().and((all.text)("denylist-source-range"));
    let is_any = access.satisfy == Some(Satisfy::Any);
    if allow.is_none() && deny.is_none() {
        // Of a password and an authentication service one is enough.
        if is_any && all.values.user_auth.kind.is_some() && all.values.external_auth.url.is_some() {
            let why = "a RoutePolicy says Any only beside allow or deny".to_owned();
            return Err(Obstacle { annotation: "satisfy", why });
        }
        return Ok(None);
    }
    Ok(Some(ClientAccess {
        allow: allow.map(networks),
        deny: deny.map(networks),
        satisfy: is_any.then(|| Satisfaction("Any".to_owned())),
        ..ClientAccess::default()
    }))
}

fn basic_auth(all: &Annotated<'_>) -> Result<Option<BasicAuthentication>, Obstacle> {
    let auth = &all.values.user_auth;
    let Some(kind) = auth.kind else { return Ok(None) };
    let obstacle = |why: String| Obstacle { annotation: "auth-secret", why };
    let Some(secret) = &all.values.user_secret else { return Err(obstacle("it names no Secret".to_owned())) };
    if secret.namespace != all.namespace {
        return Err(obstacle(format!("a RoutePolicy names Secrets of its own namespace only, not {secret}")));
    }
    Ok(Some(BasicAuthentication {
        secret_ref: LocalName { name: ObjectName(secret.name.clone()), ..LocalName::default() },
        r#type: (kind == AuthType::Digest).then(|| PasswordType("Digest".to_owned())),
        format: (auth.secret_type == Some(AuthSecretType::Map)).then(|| SecretFormat("Map".to_owned())),
        realm: auth.realm.as_ref().map(|realm| Realm(realm.as_str().to_owned())),
        ..BasicAuthentication::default()
    }))
}

fn external_auth(all: &Annotated<'_>) -> Result<Option<ServiceAuthentication>, Obstacle> {
    let auth = &all.values.external_auth;
    let (Some(url), Some(text)) = (&auth.url, (all.text)("auth-url")) else { return Ok(None) };
    for (name, there) in
        [("auth-snippet", auth.snippet.is_some()), ("auth-proxy-set-headers", auth.set_headers.is_some())]
    {
        if there {
            return Err(Obstacle {
                annotation: name,
                why: "fields for the service have no place in a RoutePolicy".to_owned(),
            });
        }
    }
    let text = match (url.is_of_request(), all.host) {
        (false, _) => text.to_owned(),
        (true, Some(host)) => text.replacen("${host}", host, 1).replacen("$host", host, 1),
        (true, None) => {
            let why = "its host is that of the request, and the Ingress has more than one".to_owned();
            return Err(Obstacle { annotation: "auth-url", why });
        }
    };
    let names = auth.response_headers.as_ref().map(|names| &names.0);
    let as_url = |name: &str| (all.text)(name).map(|text| Url(text.trim().to_owned()));
    Ok(Some(ServiceAuthentication {
        url: Url(text.trim().to_owned()),
        method: auth.method.filter(|method| method.0 != "GET").map(|method| Method(method.0.to_owned())),
        sign_in_url: auth.sign_in.as_ref().and_then(|_| as_url("auth-signin")),
        sign_in_parameter: auth.redirect_param.as_ref().map(|name| Word(name.as_str().to_owned())),
        response_headers: names
            .filter(|names| !names.is_empty())
            .map(|names| Listed(names.iter().map(|name| HeaderName(name.as_str().to_owned())).collect())),
        request_redirect: auth.request_redirect.as_ref().and_then(|_| as_url("auth-request-redirect")),
        cache_key: auth.cache_key.as_ref().and_then(|_| as_url("auth-cache-key")),
        cache_duration: auth
            .cache_duration
            .as_ref()
            .filter(|_| auth.cache_key.is_some())
            .and((all.text)("auth-cache-duration"))
            .map(|text| Line(text.trim().to_owned())),
        always_set_cookie: auth.always_set_cookie.filter(|always| *always),
        ..ServiceAuthentication::default()
    }))
}

fn limits(all: &Annotated<'_>, defaults: &Defaults) -> Option<Limits> {
    let limits = &all.values.limits;
    let positive = |limit: Option<i64>| limit.filter(|limit| *limit > 0).map(Number);
    let (second, minute) = (positive(limits.per_second), positive(limits.per_minute));
    let in_progress = positive(limits.in_progress);
    if second.is_none() && minute.is_none() && in_progress.is_none() {
        return None;
    }
    let exempt = (all.text)("limit-allowlist").or((all.text)("limit-whitelist"));
    Some(Limits {
        requests_per_second: second,
        requests_per_minute: minute,
        burst_multiplier: limits.burst_multiplier.map(|burst| Number(burst.into())),
        requests_in_progress: in_progress,
        exempt: limits.exempt.as_ref().and(exempt).map(networks),
        status_code: Some(Number(defaults.over_rate.into())),
        ..Limits::default()
    })
}

fn request(all: &Annotated<'_>, defaults: &Defaults) -> Option<RequestHandling> {
    let proxying = &all.values.proxying;
    let own = proxying.body_size.and((all.text)("proxy-body-size")).map(str::trim);
    let size = own.unwrap_or(&defaults.body_size);
    Some(RequestHandling {
        max_body_size: Some(ByteSize(size.to_owned())),
        buffering: proxying.request_buffering.map(|switch| switch == Switch::On),
        ..RequestHandling::default()
    })
}

fn response(all: &Annotated<'_>) -> Option<ResponseHandling> {
    let (proxying, limits) = (&all.values.proxying, &all.values.limits);
    let rate = limits.rate.filter(|rate| *rate > 0);
    let buffers = (proxying.buffering == Some(Switch::On)).then(|| {
        let size = proxying.buffer_size.map_or(4 << 10, |size| size.0);
        size.saturating_mul(proxying.buffers_number.unwrap_or(4).into())
    });
    if rate.is_none() && buffers.is_none() {
        return None;
    }
    Some(ResponseHandling {
        buffering: buffers.map(|_| true),
        buffer_size: buffers.map(|bytes| ByteSize(bytes.to_string())),
        kilobytes_per_second: rate.map(|rate| Number(rate.into())),
        kilobytes_at_full_speed: rate.and(limits.rate_after).map(|after| Number(after.into())),
        ..ResponseHandling::default()
    })
}

fn timeouts(all: &Annotated<'_>, defaults: &Defaults) -> Option<Waiting> {
    let proxying = &all.values.proxying;
    let seconds = |own: Option<fairway_translate::value::Seconds>, usual: Option<i64>| {
        own.map(|own| i64::from(own.0)).or(usual).map(|seconds| Number(seconds.max(1)))
    };
    let waiting = Waiting {
        connect_seconds: seconds(proxying.connect_timeout, defaults.connect),
        send_seconds: seconds(proxying.send_timeout, defaults.send),
        read_seconds: seconds(proxying.read_timeout, defaults.read),
        ..Waiting::default()
    };
    (waiting != Waiting::default()).then_some(waiting)
}

fn retry(all: &Annotated<'_>) -> Option<Retrying> {
    let proxying = &all.values.proxying;
    let names = [
        ("error", "Error"),
        ("timeout", "Timeout"),
        ("invalid_header", "InvalidHeader"),
        ("non_idempotent", "NonIdempotent"),
        ("http_500", "500"),
        ("http_502", "502"),
        ("http_503", "503"),
        ("http_504", "504"),
        ("http_403", "403"),
        ("http_404", "404"),
        ("http_429", "429"),
        ("off", "Off"),
    ];
    let written = proxying.next_upstream.and((all.text)("proxy-next-upstream")).map(|text| {
        let reason = |word: &str| names.iter().find(|(name, _)| *name == word).map(|(_, reason)| *reason);
        let reasons = text.split_ascii_whitespace().filter_map(reason);
        Listed(reasons.map(|reason| RetryReason(reason.to_owned())).collect())
    });
    let retrying = Retrying {
        on: written,
        // No limit is written as 0 there.
        tries: proxying.next_upstream_tries.map(|tries| Number(if tries == 0 { 32 } else { i64::from(tries).min(32) })),
        within_seconds: proxying
            .next_upstream_timeout
            .filter(|within| within.0 > 0)
            .map(|within| Number(i64::from(within.0).min(86_400))),
        ..Retrying::default()
    };
    (retrying != Retrying::default()).then_some(retrying)
}

fn session(all: &Annotated<'_>) -> Option<Session> {
    let affinity = &all.values.affinity;
    affinity.kind?;
    let word = |name: &str| (all.text)(name).map(|text| Word(text.trim().to_owned()));
    let seconds =
        |own: Option<fairway_translate::value::SignedSeconds>| own.filter(|own| own.0 >= 0).map(|own| Number(own.0));
    let mode = |mode| match mode {
        fairway_translate::value::AffinityMode::Persistent => SessionMode("Persistent".to_owned()),
        fairway_translate::value::AffinityMode::Balanced => SessionMode("Balanced".to_owned()),
    };
    Some(Session {
        name: affinity.cookie_name.as_ref().and_then(|_| word("session-cookie-name")),
        path: affinity.cookie_path.as_ref().map(|path| Url(path.as_str().to_owned())),
        domain: affinity.cookie_domain.as_ref().and_then(|_| word("session-cookie-domain")),
        max_age: seconds(affinity.cookie_max_age),
        expires: seconds(affinity.cookie_expires),
        same_site: affinity.cookie_same_site.map(|site| CookieSite(format!("{site:?}"))),
        conditional_same_site_none: affinity.cookie_conditional_same_site_none.filter(|on| *on),
        secure: affinity.cookie_secure.filter(|on| *on),
        mode: affinity.mode.map(mode),
        change_on_failure: affinity.cookie_change_on_failure.filter(|on| *on),
        ..Session::default()
    })
}

fn balancing(all: &Annotated<'_>) -> Option<LoadBalancing> {
    let balancing = &all.values.balancing;
    if let Some(hash) = &balancing.hash_by {
        let subset = balancing.hash_by_subset.unwrap_or_default();
        let size = subset.then(|| Number(balancing.hash_by_subset_size.unwrap_or(3).into()));
        return Some(LoadBalancing {
            algorithm: None,
            hash_by: Some(Url(hash.as_str().to_owned())),
            subset_size: size,
            ..LoadBalancing::default()
        });
    }
    let algorithm = match balancing.algorithm? {
        LoadBalance::RoundRobin => "RoundRobin",
        LoadBalance::Ewma => "Ewma",
        LoadBalance::LeastRequest => "LeastRequest",
    };
    Some(LoadBalancing { algorithm: Some(Algorithm(algorithm.to_owned())), ..LoadBalancing::default() })
}

fn errors(all: &Annotated<'_>, lost: &mut Vec<(String, String)>) -> Option<ErrorReplacement> {
    let proxying = &all.values.proxying;
    let name = proxying.default_backend.as_ref()?;
    let ports =
        (all.service)(name.as_str()).and_then(|service| service.spec.as_ref()).and_then(|spec| spec.ports.as_ref());
    let port = ports.and_then(|ports| ports.first()).map(|port| port.port);
    lost.push((
        "default-backend".to_owned(),
        "no Service answers in place of one without endpoints: requests get 503".to_owned(),
    ));
    let statuses = proxying.http_errors.as_ref()?;
    let Some(port) = port else {
        lost.push((
            "custom-http-errors".to_owned(),
            format!("the port of Service {} is not known, so errors are not replaced", name.as_str()),
        ));
        return None;
    };
    Some(ErrorReplacement {
        status_codes: Listed(statuses.0.iter().map(|status| Number(i64::from(*status))).collect()),
        backend_ref: LocalService {
            name: ObjectName(name.as_str().to_owned()),
            port: Number(port.into()),
            ..LocalService::default()
        },
        only_own: proxying.pass_errors.filter(|pass| *pass),
        ..ErrorReplacement::default()
    })
}

/// Another path for backends, by captures.
pub(super) fn rewrite(path: &str, forwarded_prefix: Option<&str>) -> Rewriting {
    Rewriting {
        path: Url(path.to_owned()),
        forwarded_prefix: forwarded_prefix.map(|prefix| Url(prefix.to_owned())),
        ..Rewriting::default()
    }
}
