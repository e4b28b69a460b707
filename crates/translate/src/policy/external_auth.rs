//! External authentication: where the service of `auth-url` is, and the filter that asks it.

use std::borrow::Cow;
use std::sync::Arc;

use fairway_model::{
    AuthCache, AuthProtocol, ConfiguredName, ExternalAuth, Filter, Forward, ForwardPolicy, HostPattern, Subrequest,
    Template, UpstreamTls,
};

use crate::annotation::ExternalAuthentication;
use crate::configmap::GlobalConfig;
use crate::options::Options;
use crate::resource::backend::{BackendKey, BackendPort, Layer};
use crate::snippet::GlobalAuthSnippet;
use crate::value::{AuthCacheDuration, AuthUrl, CopiedFields, GlobalAuthUrl, Value};

/// The host of the service for requests to a host; `None` if the URL has `$host` and the host has more than one name.
fn host<'a>(url: &'a AuthUrl, pattern: &'a HostPattern) -> Option<Cow<'a, str>> {
    match pattern {
        _ if !url.is_of_request() => Some(Cow::Borrowed(&url.host)),
        HostPattern::Exact(name) => Some(Cow::Borrowed(name.as_str())),
        _ => None,
    }
}

/// The backend to ask about requests to a host. A Service of the cluster is asked at its endpoints, anything else at its addresses in DNS.
/// So is a Service in a namespace that isn't watched, since nothing is known about it.
pub(crate) fn backend(url: &AuthUrl, pattern: &HostPattern, options: &Options) -> Option<BackendKey> {
    let host = host(url, pattern)?;
    let port = BackendPort::Number(i32::from(url.port));
    let service = host.strip_suffix(".svc.cluster.local").or_else(|| host.strip_suffix(".svc"));
    Some(match service.and_then(|service| service.split_once('.')) {
        Some((name, namespace))
            if !name.is_empty()
                && !namespace.is_empty()
                && !namespace.contains('.')
                && options.watch_namespace.as_ref().is_none_or(|watched| watched == namespace) =>
        {
            BackendKey { namespace: namespace.into(), target: name.into(), layer: Layer::Auth, port }
        }
        _ => BackendKey { namespace: "".into(), target: (*host).into(), layer: Layer::Name, port },
    })
}

/// TLS to the service: it sends the service's name, as in ingress-nginx, and doesn't verify its certificate.
pub(crate) fn tls(url: &AuthUrl, pattern: &HostPattern) -> Option<Arc<UpstreamTls>> {
    let host = host(url, pattern).filter(|_| url.https)?;
    let is_name = host.parse::<std::net::IpAddr>().is_err() && !host.starts_with('[');
    Some(Arc::new(UpstreamTls { name: is_name.then(|| (*host).into()), sni: is_name, ..UpstreamTls::default() }))
}

/// The filter for requests to a host.
///
/// # Errors
/// Why it can't be built.
pub(crate) fn filter(
    annotations: &ExternalAuthentication,
    url: &AuthUrl,
    pattern: &HostPattern,
    backend: Option<&BackendKey>,
    policy: Arc<ForwardPolicy>,
) -> Result<Filter, Box<str>> {
    let redirect = annotations.request_redirect.as_ref().map(|to| Template::parse(to.as_str()));
    let cache = cache(annotations);
    let key = cache.as_ref().map(|cache| &cache.key);
    // A key without its variable would give the answer about the first client to all others.
    let texts =
        [("auth-url", Some(&url.target)), ("auth-request-redirect", redirect.as_ref()), ("auth-cache-key", key)];
    for (name, template) in texts {
        if let Some(variable) = template.and_then(|template| template.unknown().next()) {
            return Err(format!("{name} has the variable ${variable}, which has no value").into());
        }
    }
    let Some(host) = host(url, pattern) else {
        return Err(format!("auth-url has $host, and {} is no single name", pattern.as_written()).into());
    };
    let Some(backend) = backend else {
        return Err(format!("the service of auth-url, {host}, is not known for {}", pattern.as_written()).into());
    };
    let param = annotations.redirect_param.as_ref().map_or("rd", |param| param.as_str());
    let copied = annotations.response_headers.iter().flat_map(|names| &names.0);
    let copied = copied.filter_map(|name| ConfiguredName::try_from(name.as_str()).ok());
    let asks = Subrequest {
        host: (*host).into(),
        target: url.target.clone(),
        method: annotations.method.map(|method| method.0.into()),
        request_redirect: redirect,
        fields: annotations.snippet.as_ref().map(|snippet| snippet.0.clone()).unwrap_or_default(),
        sign_in: annotations.sign_in.as_ref().map(|url| url.with_redirect(param)),
        copied: copied.collect(),
        sets: Vec::new(),
        cache,
        always_set_cookie: annotations.always_set_cookie == Some(true),
    };
    let forward = Forward::to(backend.name(), policy);
    Ok(Filter::ExternalAuth(Box::new(ExternalAuth { forward, protocol: AuthProtocol::Subrequest(Box::new(asks)) })))
}

/// Which answers are kept.
fn cache(annotations: &ExternalAuthentication) -> Option<AuthCache> {
    let key = Template::parse(annotations.cache_key.as_ref()?.as_str());
    let duration = annotations.cache_duration.clone().or_else(|| AuthCacheDuration::parse(AuthCacheDuration::DEFAULT));
    Some(AuthCache { key, rules: duration.map(|duration| duration.0).unwrap_or_default() })
}

/// The backend of the service that the ConfigMap names for all paths.
pub(crate) fn global_backend(config: &GlobalConfig, options: &Options) -> Option<BackendKey> {
    match &config.global_auth_url {
        GlobalAuthUrl::Url(url) => backend(url, &HostPattern::Any, options),
        GlobalAuthUrl::Unset | GlobalAuthUrl::Unreadable => None,
    }
}

/// The ConfigMap's settings of the service for all paths, in the form of annotations.
pub(crate) fn global(config: &GlobalConfig) -> ExternalAuthentication {
    let names = &config.global_auth_response_headers.names;
    ExternalAuthentication {
        method: config.global_auth_method,
        sign_in: config.global_auth_signin.clone(),
        redirect_param: config.global_auth_signin_redirect_param.clone(),
        response_headers: (!names.is_empty()).then(|| CopiedFields(names.clone())),
        request_redirect: config.global_auth_request_redirect.clone(),
        snippet: match &config.global_auth_snippet {
            GlobalAuthSnippet::Fields(snippet) => Some(snippet.clone()),
            GlobalAuthSnippet::Unset | GlobalAuthSnippet::Unreadable => None,
        },
        always_set_cookie: Some(config.global_auth_always_set_cookie),
        cache_key: config.global_auth_cache_key.clone(),
        cache_duration: config.global_auth_cache_duration.clone(),
        ..ExternalAuthentication::default()
    }
}
