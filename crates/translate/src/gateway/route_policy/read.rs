//! One RoutePolicy by itself: its spec, as the values of the annotations that ask for the same.
//!
//! A value that can't be read is a fault of its section: if the section restricts access, requests get 503, otherwise it is left out.

use fairway_model::{NetworkSet, Template};

use super::api::{
    BasicAuthentication, ClientAccess, ErrorReplacement, Limits, LoadBalancing, Network, RequestHandling,
    ResponseHandling, Retrying, Rewriting, RoutePolicySpec, ServiceAuthentication, Session, UNREADABLE, Waiting,
};
use super::schema::{Listed, Number, Schema as _};
use crate::annotation::{
    Access, Affinity, Balancing, ExternalAuthentication, IngressAnnotations, RequestLimits, UserAuthentication,
};
use crate::config::variable::misspelt;
use crate::gateway::grant;
use crate::gateway::status::Shortcoming;
use crate::objects::{Kind, ObjectKey, Objects};
use crate::options::Options;
use crate::policy::{NOT_CANONICAL, external_auth, is_never_sent};
use crate::resource::backend::{BackendKey, Layer};
use crate::value::{
    AffinityKind, AffinityMode, AuthCacheDuration, AuthMethod, AuthRealm, AuthRedirect, AuthSecretType, AuthType,
    AuthUrl, CookieDomain, CookieName, CookiePath, CopiedFields, ErrorStatus, ErrorStatuses, ForwardedPrefix, HashKey,
    LoadBalance, NextUpstream, RedirectParam, RewriteTarget, SameSite, Satisfy, Seconds, SignInUrl, SignedSeconds,
    Size, Switch, Value,
};

macro_rules! sections {
    ($($(#[doc = $doc:literal])+ $section:ident $field:ident $name:literal $restricts:literal;)+) => {
        /// A member of the spec that is settled by itself.
        #[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
        pub(super) enum Section {
            $($(#[doc = $doc])+ $section,)+
            /// Members of a newer version, which may restrict access.
            Newer,
        }

        impl Section {
            pub(super) const ALL: &'static [Self] = &[$(Self::$section,)+ Self::Newer];

            /// Its name in the spec.
            pub(super) fn name(self) -> &'static str {
                match self { $(Self::$section => $name,)+ Self::Newer => "an unreadable member" }
            }

            /// Whether requests must not be served without it.
            pub(super) fn restricts(self) -> bool {
                match self { $(Self::$section => $restricts,)+ Self::Newer => true }
            }

            fn is_in(self, spec: &RoutePolicySpec) -> bool {
                match self { $(Self::$section => spec.$field.is_some(),)+ Self::Newer => spec.newer().is_some() }
            }
        }
    };
}

sections! {
    /// By address.
    Access access "access" true;
    /// By name and password.
    BasicAuth basic_auth "basicAuth" true;
    /// By a service.
    ExternalAuth external_auth "externalAuth" true;
    /// By number.
    Limits limits "limits" true;
    /// Bodies of requests.
    Request request "request" true;
    /// Bodies of responses.
    Response response "response" false;
    /// Time limits.
    Timeouts timeouts "timeouts" false;
    /// Further tries.
    Retry retry "retry" false;
    /// The path for backends, which must not get requests with any other path.
    Rewrite rewrite "rewrite" true;
    /// Session affinity.
    Session session_cookie "sessionCookie" false;
    /// The choice of endpoints.
    LoadBalancing load_balancing "loadBalancing" false;
    /// Errors.
    ErrorPages error_pages "errorPages" false;
}

/// The requests of a policy, read.
#[derive(Debug, Default)]
pub(super) struct Asked {
    pub(super) sections: Vec<Section>,
    /// The values of all sections.
    pub(super) annotations: IngressAnnotations,
    pub(super) faults: Vec<SectionFault>,
    /// Whether this stands for a policy that can't be read.
    pub(super) unreadable: bool,
    /// The Secret with the users.
    pub(super) secret: Option<ObjectKey>,
    /// The service that decides.
    pub(super) service: Option<BackendKey>,
    /// The Service that replaces errors.
    pub(super) errors: Option<BackendKey>,
    /// The status for requests beyond a limit.
    pub(super) over_limit: Option<ErrorStatus>,
}

/// Why a section can't be carried out as written.
#[derive(Clone, Debug)]
pub(super) struct SectionFault {
    pub(super) section: Section,
    pub(super) field: String,
    pub(super) value: String,
    pub(super) why: Shortcoming,
}

/// Reads a spec.
pub(super) fn read(key: &ObjectKey, spec: &RoutePolicySpec, objects: &Objects, options: &Options) -> Asked {
    let sections = Section::ALL.iter().copied().filter(|section| section.is_in(spec)).collect();
    let mut reading = SpecReading { key, objects, options, asked: Asked { sections, ..Asked::default() } };
    if let Some(path) = spec.newer() {
        reading.asked.unreadable = path == UNREADABLE;
        let (field, why) = match reading.asked.unreadable {
            true => ("spec".to_owned(), "it can't be read"),
            false => (format!("spec.{path}"), "this version of Fairway does not know it"),
        };
        let why = Shortcoming::new("Invalid", why);
        reading.asked.faults.push(SectionFault { section: Section::Newer, field, value: String::new(), why });
    }
    if let Some(access) = &spec.access {
        reading.access(access);
    }
    if let Some(auth) = &spec.basic_auth {
        reading.basic_auth(auth);
    }
    if let Some(auth) = &spec.external_auth {
        reading.external_auth(auth);
    }
    if let Some(limits) = &spec.limits {
        reading.limits(limits);
    }
    if let Some(request) = &spec.request {
        reading.request(request);
    }
    if let Some(response) = &spec.response {
        reading.response(response);
    }
    if let Some(timeouts) = &spec.timeouts {
        reading.timeouts(timeouts);
    }
    if let Some(retry) = &spec.retry {
        reading.retry(retry);
    }
    if let Some(rewrite) = &spec.rewrite {
        reading.rewrite(rewrite);
    }
    if let Some(session) = &spec.session_cookie {
        reading.session(session);
    }
    if let Some(balancing) = &spec.load_balancing {
        reading.balancing(balancing);
    }
    if let Some(errors) = &spec.error_pages {
        reading.errors(errors);
    }
    reading.asked
}

struct SpecReading<'a> {
    key: &'a ObjectKey,
    objects: &'a Objects,
    options: &'a Options,
    asked: Asked,
}

impl SpecReading<'_> {
    fn access(&mut self, access: &ClientAccess) {
        let section = Section::Access;
        if access.allow.is_none() && access.deny.is_none() {
            self.fault(section, "", "", "expected allow or deny");
        }
        let satisfy = self.optional(
            section,
            "satisfy",
            access.satisfy.as_ref().map(|it| &it.0),
            word(&[("All", Satisfy::All), ("Any", Satisfy::Any)]),
        );
        self.asked.annotations.access = Access {
            allow: self.networks(section, "allow", access.allow.as_ref()),
            deny: self.networks(section, "deny", access.deny.as_ref()),
            satisfy,
            ..Access::default()
        };
    }

    fn basic_auth(&mut self, auth: &BasicAuthentication) {
        let section = Section::BasicAuth;
        let kinds = [("Basic", AuthType::Basic), ("Digest", AuthType::Digest)];
        let kind = self.optional(section, "type", auth.r#type.as_ref().map(|it| &it.0), word(&kinds));
        let formats = [("File", AuthSecretType::File), ("Map", AuthSecretType::Map)];
        let secret_type = self.optional(section, "format", auth.format.as_ref().map(|it| &it.0), word(&formats));
        let realm = self.optional(section, "realm", auth.realm.as_ref().map(|it| &it.0), parsed::<AuthRealm>());
        if is_name(&auth.secret_ref.name.0) {
            self.asked.secret = Some(ObjectKey::new(Kind::Secret, &*self.key.namespace, &*auth.secret_ref.name.0));
        } else {
            self.fault(section, "secretRef.name", &auth.secret_ref.name.0, "expected the name of a Secret");
        }
        self.asked.annotations.user_auth = UserAuthentication {
            kind: Some(kind.unwrap_or(AuthType::Basic)),
            secret_type,
            realm,
            ..UserAuthentication::default()
        };
    }

    fn external_auth(&mut self, auth: &ServiceAuthentication) {
        let section = Section::ExternalAuth;
        let url = match AuthUrl::read(&auth.url.0) {
            Ok(url) if url.is_of_request() => {
                self.fault(section, "url", &auth.url.0, "expected a host: no variable can stand for it");
                None
            }
            // A dot at the end of a name makes no difference, and must not hide a Service.
            Ok(url) => Some(AuthUrl { host: url.host.trim_end_matches('.').to_owned(), ..url }),
            Err(wrong) => {
                self.fault(section, "url", &auth.url.0, &format!("{wrong}: expected {}", AuthUrl::SYNTAX));
                None
            }
        };
        if let Some(url) = &url {
            self.service(url, &auth.url.0);
        }
        let text = |text: &Option<super::api::Url>| text.as_ref().map(|text| text.0.clone());
        let headers = auth.response_headers.as_ref().map(|names| {
            let names: Vec<_> = names.iter().map(|name| &*name.0).collect();
            names.join(",")
        });
        let method = self.optional(section, "method", auth.method.as_ref().map(|it| &it.0), parsed::<AuthMethod>());
        let sign_in = self.optional(section, "signInUrl", text(&auth.sign_in_url).as_ref(), parsed::<SignInUrl>());
        let parameter = auth.sign_in_parameter.as_ref().map(|it| &it.0);
        let redirect_param = self.optional(section, "signInParameter", parameter, parsed::<RedirectParam>());
        let response_headers = self.optional(section, "responseHeaders", headers.as_ref(), parsed::<CopiedFields>());
        let redirect = text(&auth.request_redirect);
        let request_redirect = self.optional(section, "requestRedirect", redirect.as_ref(), parsed::<AuthRedirect>());
        let cache_key = self.optional(section, "cacheKey", text(&auth.cache_key).as_ref(), parsed::<HashKey>());
        let duration = auth.cache_duration.as_ref().map(|it| &it.0);
        let cache_duration = self.optional(section, "cacheDuration", duration, parsed::<AuthCacheDuration>());
        self.asked.annotations.external_auth = ExternalAuthentication {
            url,
            method,
            sign_in,
            redirect_param,
            response_headers,
            request_redirect,
            cache_key,
            cache_duration,
            always_set_cookie: auth.always_set_cookie,
            ..ExternalAuthentication::default()
        };
    }

    /// The backend of the service. A service of another namespace is called only if that namespace permits it.
    fn service(&mut self, url: &AuthUrl, text: &str) {
        let Some(backend) = external_auth::backend(url, &fairway_model::HostPattern::Any, self.options) else { return };
        let (name, from) = (&*backend.target, &*self.key.namespace);
        let is_permitted =
            backend.layer == Layer::Name || grant::permits(self.objects, (Kind::RoutePolicy, from), &backend.service());
        if is_permitted {
            self.asked.service = Some(backend);
            return;
        }
        let message = format!(
            "no ReferenceGrant in namespace {} lets RoutePolicies of {from} refer to Service {name}",
            backend.namespace
        );
        self.shortcoming(Section::ExternalAuth, "url", text, Shortcoming::new("RefNotPermitted", message));
    }

    fn limits(&mut self, limits: &Limits) {
        let section = Section::Limits;
        let any = [&limits.requests_per_second, &limits.requests_per_minute, &limits.requests_in_progress];
        if any.into_iter().all(Option::is_none) {
            self.fault(section, "", "", "expected requestsPerSecond, requestsPerMinute or requestsInProgress");
        }
        let burst = self.number(section, "burstMultiplier", limits.burst_multiplier);
        let status = self.number(section, "statusCode", limits.status_code);
        self.asked.over_limit = status.and_then(|status| u16::try_from(status).ok()).map(ErrorStatus);
        let own = RequestLimits {
            per_second: self.number(section, "requestsPerSecond", limits.requests_per_second),
            per_minute: self.number(section, "requestsPerMinute", limits.requests_per_minute),
            in_progress: self.number(section, "requestsInProgress", limits.requests_in_progress),
            burst_multiplier: burst.and_then(|burst| burst.try_into().ok()),
            exempt: self.networks(section, "exempt", limits.exempt.as_ref()),
            ..RequestLimits::default()
        };
        self.asked.annotations.limits = own;
    }

    fn request(&mut self, request: &RequestHandling) {
        let size = request.max_body_size.as_ref().map(|it| &it.0);
        self.asked.annotations.proxying.body_size =
            self.optional(Section::Request, "maxBodySize", size, parsed::<Size>());
        self.asked.annotations.proxying.request_buffering = request.buffering.map(switch);
    }

    fn response(&mut self, response: &ResponseHandling) {
        let section = Section::Response;
        let size = response.buffer_size.as_ref().map(|it| &it.0);
        let size = self.optional(section, "bufferSize", size, parsed::<Size>());
        let rate = self.number(section, "kilobytesPerSecond", response.kilobytes_per_second);
        let after = self.number(section, "kilobytesAtFullSpeed", response.kilobytes_at_full_speed);
        let proxying = &mut self.asked.annotations.proxying;
        proxying.buffering = response.buffering.map(switch);
        (proxying.buffer_size, proxying.buffers_number) = (size, size.map(|_| 1));
        let limits = &mut self.asked.annotations.limits;
        limits.rate = rate.and_then(|rate| rate.try_into().ok());
        limits.rate_after = after.and_then(|after| after.try_into().ok());
    }

    fn timeouts(&mut self, timeouts: &Waiting) {
        let section = Section::Timeouts;
        let seconds = |number: Option<i64>| number.and_then(|number| number.try_into().ok()).map(Seconds);
        let connect = self.number(section, "connectSeconds", timeouts.connect_seconds);
        let send = self.number(section, "sendSeconds", timeouts.send_seconds);
        let read = self.number(section, "readSeconds", timeouts.read_seconds);
        let proxying = &mut self.asked.annotations.proxying;
        proxying.connect_timeout = seconds(connect);
        proxying.send_timeout = seconds(send);
        proxying.read_timeout = seconds(read);
    }

    fn retry(&mut self, retry: &Retrying) {
        let section = Section::Retry;
        let words = [
            ("Error", "error"),
            ("Timeout", "timeout"),
            ("InvalidHeader", "invalid_header"),
            ("NonIdempotent", "non_idempotent"),
            ("500", "http_500"),
            ("502", "http_502"),
            ("503", "http_503"),
            ("504", "http_504"),
            ("403", "http_403"),
            ("404", "http_404"),
            ("429", "http_429"),
            ("Off", "off"),
        ];
        let mut on = Vec::new();
        for (at, reason) in retry.on.iter().flat_map(|list| list.iter()).enumerate() {
            on.extend(self.optional(section, &format!("on[{at}]"), Some(&reason.0), word(&words)));
        }
        let tries = self.number(section, "tries", retry.tries);
        let within = self.number(section, "withinSeconds", retry.within_seconds);
        let proxying = &mut self.asked.annotations.proxying;
        proxying.next_upstream = retry.on.as_ref().and_then(|_| NextUpstream::parse(&on.join(" ")));
        proxying.next_upstream_tries = tries.and_then(|tries| tries.try_into().ok());
        proxying.next_upstream_timeout = within.and_then(|within| within.try_into().ok()).map(Seconds);
    }

    fn rewrite(&mut self, rewrite: &Rewriting) {
        let section = Section::Rewrite;
        let prefix = rewrite.forwarded_prefix.as_ref().map(|it| &it.0);
        let path = self.optional(section, "path", Some(&rewrite.path.0), parsed::<RewriteTarget>());
        if matches!(path, Some(RewriteTarget::Url(_))) {
            self.fault(section, "path", &rewrite.path.0, "expected a path");
        }
        if path.as_ref().is_some_and(is_never_sent) {
            self.fault(section, "path", &rewrite.path.0, NOT_CANONICAL);
        }
        self.asked.annotations.rewriting.rewrite_target = path;
        self.asked.annotations.rewriting.forwarded_prefix =
            self.optional(section, "forwardedPrefix", prefix, parsed::<ForwardedPrefix>());
    }

    fn session(&mut self, session: &Session) {
        let section = Section::Session;
        let modes = [("Balanced", AffinityMode::Balanced), ("Persistent", AffinityMode::Persistent)];
        let sites = [("None", SameSite::None), ("Lax", SameSite::Lax), ("Strict", SameSite::Strict)];
        let name = session.name.as_ref().map(|it| &it.0);
        let path = session.path.as_ref().map(|it| &it.0);
        let domain = session.domain.as_ref().map(|it| &it.0);
        let own = Affinity {
            kind: Some(AffinityKind::Cookie),
            mode: self.optional(section, "mode", session.mode.as_ref().map(|it| &it.0), word(&modes)),
            cookie_name: self.optional(section, "name", name, parsed::<CookieName>()),
            cookie_path: self.optional(section, "path", path, parsed::<CookiePath>()),
            cookie_domain: self.optional(section, "domain", domain, parsed::<CookieDomain>()),
            cookie_expires: self.number(section, "expires", session.expires).map(SignedSeconds),
            cookie_max_age: self.number(section, "maxAge", session.max_age).map(SignedSeconds),
            cookie_same_site: {
                let site = session.same_site.as_ref().map(|it| &it.0);
                self.optional(section, "sameSite", site, word(&sites))
            },
            cookie_conditional_same_site_none: session.conditional_same_site_none,
            cookie_secure: session.secure,
            cookie_change_on_failure: session.change_on_failure,
        };
        self.asked.annotations.affinity = own;
    }

    fn balancing(&mut self, balancing: &LoadBalancing) {
        let section = Section::LoadBalancing;
        if balancing.algorithm.is_some() == balancing.hash_by.is_some() {
            self.fault(section, "", "", "expected either algorithm or hashBy");
        }
        let algorithms = [
            ("RoundRobin", LoadBalance::RoundRobin),
            ("Ewma", LoadBalance::Ewma),
            ("LeastRequest", LoadBalance::LeastRequest),
        ];
        let algorithm = balancing.algorithm.as_ref().map(|it| &it.0);
        let hash = balancing.hash_by.as_ref().map(|it| &it.0);
        if let Some(text) = hash {
            let template = Template::parse(text);
            for (variable, meant) in misspelt(template.unknown()).take(1) {
                let hint = meant.map(|meant| format!("; did you mean ${meant}?")).unwrap_or_default();
                self.fault(section, "hashBy", text, &format!("there is no variable ${variable}{hint}"));
            }
        }
        let subset = self.number(section, "subsetSize", balancing.subset_size);
        self.asked.annotations.balancing = Balancing {
            algorithm: self.optional(section, "algorithm", algorithm, word(&algorithms)),
            hash_by: self.optional(section, "hashBy", hash, parsed::<HashKey>()),
            hash_by_subset: subset.map(|_| true),
            hash_by_subset_size: subset.and_then(|size| size.try_into().ok()),
            ..Balancing::default()
        };
    }

    fn errors(&mut self, errors: &ErrorReplacement) {
        let section = Section::ErrorPages;
        if !errors.status_codes.fits() {
            self.fault(section, "statusCodes", "", "expected 1 to 64 statuses");
        }
        let mut statuses = Vec::new();
        for (at, code) in errors.status_codes.iter().enumerate() {
            statuses.extend(self.number(section, &format!("statusCodes[{at}]"), Some(*code)));
        }
        let mut statuses: Vec<u16> = statuses.into_iter().filter_map(|status| status.try_into().ok()).collect();
        statuses.sort_unstable();
        statuses.dedup();
        self.asked.annotations.proxying.http_errors = Some(ErrorStatuses(statuses));
        self.asked.annotations.proxying.pass_errors = errors.only_own;
        let port = self.number(section, "backendRef.port", Some(errors.backend_ref.port));
        let name = &errors.backend_ref.name.0;
        match port.and_then(|port| i32::try_from(port).ok()) {
            Some(port) if is_name(name) => {
                let backend = BackendKey::of_gateway(self.key.namespace.clone(), name, Layer::Gateway, port);
                self.asked.errors = Some(backend);
            }
            Some(_) => self.fault(section, "backendRef.name", name, "expected the name of a Service"),
            None => {}
        }
    }

    fn networks<const LEAST: usize, const MOST: usize>(
        &mut self,
        section: Section,
        field: &str,
        list: Option<&Listed<Network, LEAST, MOST>>,
    ) -> Option<NetworkSet> {
        let list = list?;
        if !list.fits() {
            self.fault(section, field, "", &format!("expected {LEAST} to {MOST} networks"));
        }
        let mut networks = Vec::new();
        for (at, entry) in list.iter().enumerate() {
            match crate::value::network(&entry.0) {
                Some(network) => networks.push(network),
                None => self.fault(section, &format!("{field}[{at}]"), &entry.0, "expected an address or a CIDR"),
            }
        }
        networks.sort_unstable();
        networks.dedup();
        Some(networks.into())
    }

    fn number<const LEAST: i64, const MOST: i64>(
        &mut self,
        section: Section,
        field: &str,
        number: Option<Number<LEAST, MOST>>,
    ) -> Option<i64> {
        let number = number?;
        if number.within().is_none() {
            self.fault(section, field, &number.0.to_string(), &format!("expected {LEAST} to {MOST}"));
        }
        number.within()
    }

    fn optional<T>(
        &mut self,
        section: Section,
        field: &str,
        text: Option<&String>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = text?;
        parse(text).map_err(|wrong| self.fault(section, field, text, &wrong)).ok()
    }

    fn fault(&mut self, section: Section, field: &str, value: &str, message: &str) {
        self.shortcoming(section, field, value, Shortcoming::new("Invalid", message));
    }

    fn shortcoming(&mut self, section: Section, field: &str, value: &str, why: Shortcoming) {
        let field = match field {
            "" => format!("spec.{}", section.name()),
            field => format!("spec.{}.{field}", section.name()),
        };
        self.asked.faults.push(SectionFault { section, field, value: value.to_owned(), why });
    }
}

/// Parses one of these words.
fn word<T: Copy>(words: &[(&'static str, T)]) -> impl Fn(&str) -> Result<T, String> {
    move |text| {
        let names = || words.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
        let found = words.iter().find(|(name, _)| *name == text);
        found.map(|(_, value)| *value).ok_or_else(|| format!("expected one of {}", names()))
    }
}

/// Parses the value of an annotation, which must not be empty.
fn parsed<V: Value>() -> impl Fn(&str) -> Result<V, String> {
    |text| {
        Some(text).filter(|text| !text.is_empty()).and_then(V::parse).ok_or_else(|| format!("expected {}", V::SYNTAX))
    }
}

fn switch(on: bool) -> Switch {
    if on { Switch::On } else { Switch::Off }
}

fn is_name(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
    !text.is_empty() && text.len() <= 253 && text.bytes().all(allowed)
}
