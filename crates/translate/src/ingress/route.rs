//! One location of ingress-nginx as a route: its filters in order, and its action.

use std::net::SocketAddr;
use std::sync::Arc;

use fairway_model::{
    Action, AuthProtocol, BackendName, Backends, BasicAuth, Body, Cors, FieldBlock, Filter, Forward, ForwardPolicy,
    HostPattern, HttpsRedirect, Location, Mirror, Origins, PathMatch, Redirect, RedirectBase, Refusal, Replacement,
    Respond, ResponseRewrites, Rewrite, Route, Template, TraceRule, UpstreamProtocol,
};

use super::backend_tls::TlsPolicy;
use super::headers::PartHeaders;
use super::part::Part;
use crate::annotation::{CrossOrigin, Denial, IngressAnnotations};
use crate::configmap::GlobalConfig;
use crate::options::Options;
use crate::policy::check::{Checks, access, limits};
use crate::policy::error_page::error_filter;
use crate::policy::external_auth;
use crate::policy::forward::{Policies, protocol};
use crate::resource::Owner;
use crate::resource::backend::BackendKey;
use crate::snippet::{Effect, GlobalAuthSnippet, HostLevels};
use crate::value::{self, BackendProtocol, GlobalAuthUrl, RedirectUrl, RewriteTarget, Satisfy, Switch};

/// Properties common to all routes of one host.
pub(crate) struct HostScope<'a> {
    pub(crate) config: &'a GlobalConfig,
    /// Whether the host has a certificate entry, so that `ssl-redirect` applies.
    pub(crate) certificate_entry: bool,
    pub(crate) ports: RedirectPorts,
    /// Why all routes of the host are denied.
    pub(crate) denied: Option<Box<str>>,
    /// Whether the routes match by regular expressions.
    pub(crate) regex: bool,
    /// The host.
    pub(crate) pattern: &'a HostPattern,
    /// `--default-backend-service`.
    pub(crate) default_backend: Option<&'a BackendName>,
    /// The service of `global-auth-url`.
    pub(crate) global_auth: Option<&'a BackendKey>,
    /// TLS to backends, from the first Ingress with a Secret for it; `None` if each Ingress decides for itself.
    pub(crate) backend_tls: Option<TlsPolicy>,
    /// The levels of the snippets of the host and of the ConfigMap.
    pub(crate) snippets: Option<HostLevels>,
}

/// The ports that redirects may name.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct RedirectPorts {
    /// Of the listener with TLS: for `use-port-in-redirects`.
    listener: Option<u16>,
    /// In every redirect to https (`fairway dev`).
    always: Option<u16>,
    /// Whether clients reach the listeners directly, so that the port that they name leads to us (`fairway dev`).
    direct: bool,
}

impl RedirectPorts {
    pub(crate) fn new(options: &Options) -> Self {
        let development = options.development.as_ref();
        Self {
            listener: options.https.first().map(SocketAddr::port),
            always: development.and_then(|development| development.https_port),
            direct: development.is_some(),
        }
    }
}

/// The effect of one Ingress on all of its paths of a host, computed only once.
pub(crate) struct Common<'a> {
    part: &'a Part,
    scope: &'a HostScope<'a>,
    policy: Arc<ForwardPolicy>,
    /// The same without TLS.
    clear: Arc<ForwardPolicy>,
    error_pages: Option<Filter>,
    limits: Option<Filter>,
    access: Option<Filter>,
    password: Option<Filter>,
    authentication: Option<Filter>,
    /// Headers of responses.
    headers: Option<Filter>,
    mirror: Option<Filter>,
    /// The effect of snippets on the paths.
    effect: Option<Box<Effect>>,
    tracing: Option<Arc<TraceRule>>,
    /// The authentication of the ConfigMap, or why it can't be applied; `None` if the Ingress has its own or is exempt.
    global: Option<Result<Filter, Box<str>>>,
    denied: Option<Box<str>>,
}

/// The destination of a location.
pub(crate) enum Leads {
    /// To a Service.
    To(Backends),
    /// To the global default backend; if it has no endpoints, the built-in one answers 404.
    ToDefault(BackendName),
    /// Nowhere: the built-in 404.
    Nowhere,
    /// To a Service without a valid name: 503.
    Broken,
}

impl<'a> Common<'a> {
    /// `own` is TLS to backends as the Ingress's own annotations set it.
    pub(crate) fn new(
        part: &'a Part,
        scope: &'a HostScope<'a>,
        own: Option<&TlsPolicy>,
        policies: &mut Policies,
    ) -> Self {
        let encrypts = part.annotations.proxying.protocol.is_some_and(BackendProtocol::may_encrypt);
        let (tls, unverifiable) = match (scope.backend_tls.as_ref().or(own), own) {
            // A Secret that is named but unusable denies access whatever the protocol is, as in ingress-nginx.
            (_, Some(Err(why))) => (None, Some(why)),
            (Some(Err(why)), _) if encrypts => (None, Some(why)),
            // A check that an Ingress requests is made even if the first Ingress of the host, which decides in ingress-nginx, requests
            // none.
            (Some(Ok(tls)), Some(Ok(own)))
                if encrypts
                    && own.trust != fairway_model::Trust::Anyone
                    && tls.trust == fairway_model::Trust::Anyone =>
            {
                (Some(own.clone()), None)
            }
            (Some(Ok(tls)), _) if encrypts => (Some(tls.clone()), None),
            // ingress-nginx sends no name and checks nothing by default.
            (None, _) if encrypts => (Some(Arc::default()), None),
            _ => (None, None),
        };
        let own_denial = (part.annotations.denial != Denial::None).then(|| denial(part));
        let (access, unreadable) = access(&part.annotations, scope.config);
        let external = &part.annotations.external_auth;
        let (authentication, unauthentic) = match &external.url {
            None => (None, None),
            Some(url) => {
                let tls = external_auth::tls(url, scope.pattern);
                let policy = policies.of(&part.annotations, scope.config, UpstreamProtocol::Http1, tls);
                let mut backends = part.auth_backends.iter();
                let backend = backends.find(|(pattern, _)| pattern == scope.pattern).map(|(_, backend)| backend);
                match external_auth::filter(external, url, scope.pattern, backend, policy) {
                    Ok(filter) => (Some(filter), None),
                    Err(why) => (None, Some(why)),
                }
            }
        };
        let clear = policies.of(&part.annotations, scope.config, UpstreamProtocol::Http1, None);
        let policy = match (tls, protocol(&part.annotations)) {
            (None, UpstreamProtocol::Http1) => clear.clone(),
            (tls, protocol) => policies.of(&part.annotations, scope.config, protocol, tls),
        };
        let error_pages = error_pages(part, scope, policies);
        let own = part.annotations.snippets.configuration.as_ref();
        let effect = Effect::new(scope.snippets.as_ref(), own, scope.config);
        let policy = match &effect {
            Some(effect) if effect.level.changes_policy() => policies.0.of(effect.level.changed(&policy)),
            _ => policy,
        };
        let unsnipped = effect.as_ref().and_then(|effect| effect.fault.clone());
        Self {
            part,
            scope,
            error_pages,
            policy,
            clear,
            limits: limits_of(part, scope.config),
            access,
            password: None,
            headers: None,
            mirror: mirror(part, scope.config, policies),
            authentication,
            effect,
            tracing: tracing(&part.annotations, scope.config),
            global: global_authentication(part, scope, policies),
            denied: own_denial
                .or_else(|| scope.denied.clone())
                .or(unreadable)
                .or(unauthentic)
                .or(unsnipped)
                .or_else(|| unverifiable.cloned()),
        }
    }

    /// The same with its paths denied for this reason, if there is a reason.
    pub(crate) fn refusing(self, why: Option<Box<str>>) -> Self {
        Self { denied: self.denied.or(why), ..self }
    }

    /// The same with its paths open to these users only.
    pub(crate) fn demanding(self, users: &BasicAuth) -> Self {
        Self { password: Some(Filter::BasicAuth(Box::new(users.clone()))), ..self }
    }

    /// The same with headers from ConfigMaps.
    pub(crate) fn setting(self, headers: &PartHeaders) -> Self {
        let mut common = self;
        for (name, headers) in headers.by_name() {
            let Some(Err(why)) = headers else { continue };
            let Owner { key, .. } = &*common.part.owner;
            let why = format!("{name} of Ingress {}/{} can't be applied: {why}", key.namespace, key.name);
            common = common.refusing(Some(why.into()));
        }
        common.headers = match &headers.responses {
            Some(Ok(edits)) if !edits.is_empty() => Some(Filter::EditResponse(edits.clone())),
            _ => None,
        };
        if let (Some(Ok(edits)), Some(Filter::ExternalAuth(auth))) =
            (&headers.authentication, &mut common.authentication)
            && let AuthProtocol::Subrequest(asks) = &mut auth.protocol
        {
            // The fields of a snippet come after these.
            asks.fields.splice(0..0, edits.iter().cloned());
        }
        common
    }

    /// The route of a location with path `rule`.
    pub(crate) fn route(&self, section: &str, rule: &str, path: PathMatch, leads: Leads) -> Route {
        let annotations = &self.part.annotations;
        let mut filters = self.gate(rule);
        let redirect = self.redirect(rule);
        let action = match (redirect, leads) {
            (Some(redirect), _) => redirect,
            (None, leads) => {
                // TLS comes before denials and missing backends: a client must not repeat in the clear what was to be encrypted.
                let gates = filters.iter().take_while(|filter| !matches!(filter, Filter::Refuse(_))).count();
                filters.splice(gates..gates, self.https_redirect(rule));
                self.answer(rule, leads, &mut filters)
            }
        };
        if let (Some(RewriteTarget::Path(target)), Action::Forward(_)) =
            (annotations.rewriting.rewrite_target.as_ref().filter(|target| target.as_str() != rule), &action)
        {
            let forwarded_prefix = annotations.rewriting.forwarded_prefix.as_ref();
            let rewrite = Rewrite {
                target: target.as_str().into(),
                forwarded_prefix: forwarded_prefix.map(|prefix| prefix.as_str().into()),
            };
            filters.push(Filter::Rewrite(rewrite.into()));
        }
        if matches!(action, Action::Forward(_)) {
            filters.extend(self.mirror.clone());
            filters.extend(self.response_rewrites());
        }
        filters.shrink_to_fit();
        let access_log = self.is_logged();
        Route {
            rule: rule.into(),
            filters,
            access_log,
            tracing: self.tracing.clone(),
            ..Route::new(self.part.origin.section(section), path, action)
        }
    }

    /// The route of the catch-all's default backend, to which redirects, rewrites and TLS redirects don't apply.
    pub(crate) fn catch_all(&self, path: PathMatch, leads: Leads) -> Route {
        let mut filters = self.gate("/");
        let action = self.answer("/", leads, &mut filters);
        let origin = self.part.origin.section("defaultBackend");
        Route {
            rule: "/".into(),
            filters,
            access_log: self.is_logged(),
            tracing: self.tracing.clone(),
            ..Route::new(origin, path, action)
        }
    }

    fn response_rewrites(&self) -> Option<Filter> {
        let (own, config) = (&self.part.annotations.proxying, self.scope.config);
        let from = own.redirect_from.as_ref().unwrap_or(&config.proxy_redirect_from).text();
        let to = own.redirect_to.as_ref().unwrap_or(&config.proxy_redirect_to).text();
        let rewrites = ResponseRewrites {
            redirect: from.zip(to).map(|(from, to)| Replacement { from: from.into(), to: to.into() }),
            cookie_domain: own.cookie_domain.as_ref().unwrap_or(&config.proxy_cookie_domain).replacement(),
            cookie_path: own.cookie_path.as_ref().unwrap_or(&config.proxy_cookie_path).replacement(),
            cookie_flags: self.effect.iter().flat_map(|effect| effect.level.cookie_flags()).cloned().collect(),
        };
        (!rewrites.is_empty()).then(|| Filter::RewriteResponse(rewrites.into()))
    }

    fn is_logged(&self) -> bool {
        let of_snippet = self.effect.as_ref().and_then(|effect| effect.level.access_log());
        self.part.annotations.logging.access_log != Some(false) && of_snippet != Some(false)
    }

    /// The answer to requests for a path that can't be matched, which must not fall through to a wider route.
    pub(crate) fn refused(&self, section: &str, rule: &str, path: PathMatch, reason: String) -> Route {
        let mut filters: Vec<Filter> = self.error_pages.clone().into_iter().collect();
        filters.push(Filter::StrictTransportSecurity);
        filters.extend(block(self.scope.config));
        filters.push(Filter::Refuse(Refusal { reason: reason.into() }));
        let action = Action::Respond(Respond::page(503));
        Route { rule: rule.into(), filters, ..Route::new(self.part.origin.section(section), path, action) }
    }

    /// Why the snippets of the paths can't be in effect together.
    pub(crate) fn snippet_fault(&self) -> Option<&str> {
        self.effect.as_ref()?.fault.as_deref()
    }

    fn gate(&self, rule: &str) -> Vec<Filter> {
        let mut filters = Vec::with_capacity(3);
        filters.extend(self.error_pages.clone());
        filters.push(Filter::StrictTransportSecurity);
        filters.extend(block(self.scope.config));
        match self.denied.clone().or_else(|| self.unguarded(rule)) {
            Some(reason) => filters.push(Filter::Refuse(Refusal { reason })),
            // This comes before redirects and all checks: browsers send preflights without credentials, and follow no redirect.
            None => {
                filters.extend(self.headers.clone());
                filters.extend(cors(&self.part.annotations.cross_origin));
                filters.extend(self.effect.iter().flat_map(|effect| effect.filters()));
            }
        }
        filters
    }

    /// Why paths that the ConfigMap's service would guard are denied.
    fn unguarded(&self, rule: &str) -> Option<Box<str>> {
        let why = self.global.as_ref()?.as_ref().err()?;
        (!starts_with_any(rule, &self.scope.config.no_auth_locations.0)).then(|| why.clone())
    }

    fn https_redirect(&self, rule: &str) -> Option<Filter> {
        let (config, redirects) = (self.scope.config, &self.part.annotations.redirects);
        let forced = redirects.force_ssl_redirect.unwrap_or(config.force_ssl_redirect);
        let asked = redirects.ssl_redirect.unwrap_or(config.ssl_redirect) && self.scope.certificate_entry;
        if !(forced || asked) || starts_with_any(rule, &config.no_tls_redirect_locations.0) {
            return None;
        }
        Some(Filter::HttpsRedirect(HttpsRedirect {
            status: config.http_redirect_code.status(),
            preserve_trailing_slash: redirects.preserve_trailing_slash.unwrap_or(config.preserve_trailing_slash),
            port: self.scope.ports.always.or(self.scope.ports.listener.filter(|_| self.names_port())),
        }))
    }

    /// The part before the path in redirects to a path of the same host.
    pub(crate) fn redirect_base(&self) -> RedirectBase {
        let relative = self.part.annotations.redirects.relative;
        if relative.unwrap_or(self.scope.config.relative_redirects) {
            RedirectBase::Nothing
        } else if self.scope.ports.direct {
            RedirectBase::HostAndPort
        } else if self.names_port() {
            RedirectBase::Listener
        } else {
            RedirectBase::Host
        }
    }

    fn names_port(&self) -> bool {
        self.part.annotations.redirects.use_port.unwrap_or(self.scope.config.use_port_in_redirects)
    }

    /// The redirect by annotation that answers the request by itself. It comes before TLS and access lists.
    fn redirect(&self, rule: &str) -> Option<Action> {
        let annotations = &self.part.annotations;
        let redirects = &annotations.redirects;
        let fixed = |url: &RedirectUrl, code: Option<i64>, default: u16| {
            let status = code.and_then(|code| u16::try_from(code).ok()).unwrap_or(default);
            match status {
                301..=303 | 307 | 308 => {
                    let location = Location::Fixed(url.as_str().into());
                    Action::Redirect(Redirect { base: self.redirect_base(), ..Redirect::new(status, location) })
                }
                304 => Action::Respond(Respond::empty(status)),
                // With any other code nginx's `return` takes the text for a body.
                _ => {
                    let body = Body::Text { content_type: "text/html".into(), text: url.as_str().into() };
                    Action::Respond(Respond { body, ..Respond::empty(status) })
                }
            }
        };
        if let Some(url) = &redirects.temporal {
            return Some(fixed(url, redirects.temporal_code, 302));
        }
        if let Some(url) = &redirects.permanent {
            return Some(fixed(url, redirects.permanent_code, 301));
        }
        match &annotations.rewriting.rewrite_target {
            Some(RewriteTarget::Url(url)) if url != rule && !has_variable(url) => {
                Some(Action::Redirect(Redirect::new(302, Location::Captures(url.as_str().into()))))
            }
            _ => None,
        }
    }

    fn answer(&self, rule: &str, leads: Leads, filters: &mut Vec<Filter>) -> Action {
        let annotations = &self.part.annotations;
        let (backend, is_default) = match leads {
            Leads::To(backend) => (backend, false),
            Leads::ToDefault(backend) => (backend.into(), true),
            Leads::Nowhere => {
                filters.extend(self.checks(rule));
                return Action::Respond(Respond::not_found());
            }
            Leads::Broken => return Action::Respond(Respond::page(503)),
        };
        if matches!(&annotations.rewriting.rewrite_target, Some(RewriteTarget::Url(url)) if has_variable(url)) {
            let reason = "a redirect by rewrite-target with variables can't be built".into();
            filters.push(Filter::Refuse(Refusal { reason }));
        }
        if is_default {
            filters.extend(self.checks(rule));
            filters.push(Filter::NotFoundWithoutEndpoints);
        } else {
            // This comes before denials: without endpoints, the answer is 503 even for clients that would be denied.
            let at = filters.iter().position(|filter| matches!(filter, Filter::Refuse(_))).unwrap_or(filters.len());
            filters.insert(at, Filter::RequireEndpoints);
            filters.extend(self.checks(rule));
        }
        let affinity = &annotations.affinity;
        let cookie_path =
            affinity.kind.map(|_| affinity.cookie_path.as_ref().map_or(rule, |path| path.as_str()).into());
        Action::Forward(Forward {
            backends: backend,
            fallback: self.part.fallback.as_ref().map(|fallback| fallback.name()),
            session_cookie_path: cookie_path,
            // The annotation concerns the Ingress's backends, and the global default backend is not one of them.
            policy: if is_default { &self.clear } else { &self.policy }.clone(),
        })
    }

    /// The checks of who may send requests: by number, by address, by authentication, or by either of the last two.
    fn checks(&self, rule: &str) -> impl Iterator<Item = Filter> {
        let exempt = starts_with_any(rule, &self.scope.config.no_auth_locations.0);
        let global = || self.global.as_ref()?.as_ref().ok();
        let authentication = self.authentication.as_ref().or_else(global).cloned().filter(|_| !exempt);
        let sets = self.effect.as_ref().map_or(&[][..], |effect| effect.level.auth_sets());
        let authentication = authentication.map(|mut filter| {
            if let Filter::ExternalAuth(auth) = &mut filter
                && let AuthProtocol::Subrequest(asks) = &mut auth.protocol
            {
                asks.sets = sets.to_vec();
            }
            filter
        });
        let level = self.effect.as_ref().map(|effect| &effect.level);
        let any = level.and_then(|level| level.satisfies_any());
        let mut checks = Checks {
            limits: self.limits.clone(),
            access: self.access.clone(),
            password: self.password.clone().filter(|_| !exempt),
            authentication,
            any: any.unwrap_or(self.part.annotations.access.satisfy == Some(Satisfy::Any)),
        };
        let list = match &self.access {
            Some(Filter::AccessList(list)) => Some(list),
            _ => None,
        };
        if let Some(rules) = level.and_then(|level| level.access(list, checks.are_alternatives())) {
            checks.access = Some(Filter::AccessRules(Box::new(rules)));
        }
        checks.into_filters()
    }

    /// Whether the service of the ConfigMap guards the paths.
    pub(crate) fn is_guarded(&self) -> bool {
        self.global.is_some()
    }

    /// Whether the routes of this host match by regular expressions.
    pub(crate) fn is_regex_host(&self) -> bool {
        self.scope.regex
    }
}

/// The filter that mirrors requests.
fn mirror(part: &Part, config: &GlobalConfig, policies: &mut Policies) -> Option<Filter> {
    let (own, backend) = (&part.annotations.proxying, part.mirror.as_deref()?);
    let url = &own.mirror_target.as_deref()?.0;
    let host = own.mirror_host.as_ref().map_or(&*url.host, |host| host.as_str());
    let tls = external_auth::tls(url, &HostPattern::Any);
    let plain = policies.plain(config);
    let policy = policies.0.of(ForwardPolicy { upstream_host: Some(Template::parse(host)), tls, ..(*plain).clone() });
    let forward = Forward::to(backend.name(), policy);
    let body = own.mirror_body != Some(Switch::Off);
    Some(Filter::Mirror(Box::new(Mirror { forward, target: Some(url.target.clone()), body, fraction: None })))
}

/// The filter that replaces errors. A list of the Ingress replaces that of the ConfigMap; the Service of `default-backend` answers only
/// with such a list.
fn error_pages(part: &Part, scope: &HostScope<'_>, policies: &mut Policies) -> Option<Filter> {
    let (config, proxying) = (scope.config, &part.annotations.proxying);
    let own = proxying.http_errors.as_ref().map(|list| &list.0);
    let fallback = own.and(part.fallback.as_ref()).map(|fallback| fallback.name());
    let statuses = own.unwrap_or(&config.custom_http_errors.statuses);
    let pass = proxying.pass_errors.unwrap_or(config.disable_proxy_intercept_errors);
    error_filter(statuses, pass, fallback, scope.default_backend, || policies.plain(config))
}

/// How the paths of an Ingress are traced, if they are.
fn tracing(annotations: &IngressAnnotations, config: &GlobalConfig) -> Option<Arc<TraceRule>> {
    let own = &annotations.traces;
    own.enabled.unwrap_or(config.enable_opentelemetry).then(|| {
        let global = config.opentelemetry_operation_name.as_ref().map(|name| name.as_str());
        let operation = own.operation.as_ref().map(|name| name.as_str()).or(global);
        Arc::new(TraceRule {
            trusts: own.trusts.unwrap_or(config.opentelemetry_trust_incoming_span),
            operation: operation.map(Template::parse),
            telemetry: None,
        })
    })
}

/// Authentication by the service of the ConfigMap, for an Ingress without its own.
fn global_authentication(
    part: &Part,
    scope: &HostScope<'_>,
    policies: &mut Policies,
) -> Option<Result<Filter, Box<str>>> {
    let annotations = &part.annotations;
    if annotations.external_auth.url.is_some() || annotations.access.global_auth == Some(false) {
        return None;
    }
    global_filter(scope.config, scope.pattern, scope.global_auth, policies)
}

/// Authentication by the service of the ConfigMap, or why it can't be applied.
fn global_filter(
    config: &GlobalConfig,
    pattern: &HostPattern,
    backend: Option<&BackendKey>,
    policies: &mut Policies,
) -> Option<Result<Filter, Box<str>>> {
    let told = |why: &str| format!("global-auth-url of the ConfigMap can't be applied: {why}").into();
    match &config.global_auth_url {
        GlobalAuthUrl::Unset => None,
        GlobalAuthUrl::Unreadable => Some(Err(told("it can't be read"))),
        GlobalAuthUrl::Url(_) if config.global_auth_snippet == GlobalAuthSnippet::Unreadable => {
            Some(Err(told("global-auth-snippet can't be read")))
        }
        GlobalAuthUrl::Url(url) => {
            let tls = external_auth::tls(url, pattern);
            let policy = policies.of(&IngressAnnotations::default(), config, UpstreamProtocol::Http1, tls);
            let global = external_auth::global(config);
            Some(external_auth::filter(&global, url, pattern, backend, policy).map_err(|why| told(&why)))
        }
    }
}

/// The filter for cross-origin requests. A list that has no valid origin left admits none, and preflights aren't answered either.
fn cors(annotations: &CrossOrigin) -> Option<Filter> {
    if annotations.enabled != Some(true) {
        return None;
    }
    let origins = annotations.origins.as_ref().map_or(Origins::Any, |value| value.origins.clone());
    if origins == Origins::Listed(Vec::new()) {
        return None;
    }
    let methods = annotations.methods.as_ref().map_or("GET, PUT, POST, DELETE, PATCH, OPTIONS", |value| value.as_str());
    let headers = annotations.headers.as_ref().map_or(
        "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Range,Authorization",
        |value| value.as_str(),
    );
    let exposed = annotations.exposed.as_ref().map_or("", |value| value.as_str());
    let (credentials, max_age) = (annotations.credentials.unwrap_or(true), annotations.max_age.unwrap_or(1_728_000));
    Some(Filter::Cors(Cors::new(origins, credentials, methods, headers, exposed, max_age).into()))
}

/// Why the paths of an Ingress are denied, in words.
pub(super) fn denial(part: &Part) -> Box<str> {
    let by = part.annotations.denied_by.as_deref().unwrap_or("an annotation");
    format!("{by} of Ingress {}/{} can't be applied", part.owner.key.namespace, part.owner.key.name).into()
}

/// The limits for the clients of an Ingress.
fn limits_of(part: &Part, config: &GlobalConfig) -> Option<Filter> {
    let scope = format!("{}/{}", part.owner.key.namespace, part.owner.key.name);
    limits(scope, &part.annotations.limits, (config.limit_req_status, config.limit_conn_status))
}

/// The filter of User-Agent and Referer, which comes before everything else.
pub(crate) fn block(config: &GlobalConfig) -> Option<Filter> {
    let (user_agents, referers) = (&config.block_user_agents.values, &config.block_referers.values);
    if user_agents.is_empty() && referers.is_empty() {
        return None;
    }
    let block = FieldBlock { user_agents: user_agents.clone(), referers: referers.clone() };
    Some(Filter::Block(block.into()))
}

/// The filters of the built-in catch-all, which belongs to no Ingress.
pub(crate) fn built_in_gate(
    config: &GlobalConfig,
    default_backend: Option<&BackendName>,
    global_auth: Option<&BackendKey>,
    policies: &mut Policies,
) -> Vec<Filter> {
    let (statuses, pass) = (&config.custom_http_errors.statuses, config.disable_proxy_intercept_errors);
    let errors = error_filter(statuses, pass, None, default_backend, || policies.plain(config));
    let mut filters: Vec<Filter> = errors.into_iter().collect();
    filters.push(Filter::StrictTransportSecurity);
    filters.extend(block(config));
    match &config.block {
        value::AccessList::Unset => {}
        value::AccessList::Networks(deny) => {
            filters.push(Filter::AccessList(fairway_model::AccessList { deny: deny.clone(), allow: None }));
        }
        value::AccessList::Unreadable => {
            let reason = "an address list of the ConfigMap can't be read".into();
            filters.push(Filter::Refuse(Refusal { reason }));
        }
    }
    // Without a default backend there is nothing to guard: the built-in answer is 404.
    let guarded = default_backend.and_then(|_| global_filter(config, &HostPattern::Any, global_auth, policies));
    filters.extend(guarded.map(|guarded| guarded.unwrap_or_else(|reason| Filter::Refuse(Refusal { reason }))));
    filters
}

fn starts_with_any(rule: &str, starts: &[String]) -> bool {
    starts.iter().map(|start| start.trim()).any(|start| !start.is_empty() && rule.starts_with(start))
}

fn has_variable(text: &str) -> bool {
    text.split('$').skip(1).any(|rest| rest.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_' || c == '{'))
}
