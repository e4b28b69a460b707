//! The routes of a host, from all Ingresses that name it.
//!
//! The oldest Ingress wins every conflict, but one that is being deleted yields to all others. The losers get a finding, and their
//! routes stay behind those of the winners. Where ingress-nginx and the Kubernetes documentation disagree, Fairway does what
//! ingress-nginx does, with one exception: `Exact /foo/` matches only `/foo/`, without a redirect from `/foo`, because Exact means
//! exact and the Ingress conformance suite requires it.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet, hash_map};
use std::sync::Arc;

use fairway_model::{
    Action, BackendName, Backends, Canary, Filter, Forward, HostCiphers, HostPattern, InvalidPathMatch,
    Location as RedirectLocation, Origin, Passthrough, PathMatch, PathRegex, Redirect, Refusal, Respond, Route,
};

use super::backend_tls::TlsPolicy;
use super::canary::{self, Main};
use super::client_auth::ClientAuth;
use super::guard::guard;
use super::headers::PartHeaders;
use super::part::{Part, PathKind, PathRule, Target};
use super::route::{Common, HostScope, Leads, RedirectPorts, block, built_in_gate, denial};
use crate::annotation::Denial;
use crate::configmap::GlobalConfig;
use crate::diagnostic::{Diagnostic, Reason, Severity};
use crate::objects::ObjectKey;
use crate::policy::forward::Policies;
use crate::policy::user_auth::UserAuth;
use crate::resource::Age;
use crate::resource::backend::BackendKey;
use crate::snippet::{HostLevels, LocationSnippet};

/// The inputs of a host.
pub(crate) struct HostInput<'a> {
    pub(crate) pattern: &'a HostPattern,
    /// The Ingresses that name the host, oldest first. For the catch-all, also those with a default backend and no rules.
    pub(crate) parts: Vec<&'a Part>,
    /// The canaries on the host, oldest first.
    pub(crate) canaries: Vec<&'a Part>,
    /// TLS to the backends of each of them, if it names a Secret for it.
    pub(crate) backend_tls: Vec<Option<TlsPolicy>>,
    /// What each of them demands of clients, if it names a Secret for it.
    pub(crate) client_auth: Vec<Option<ClientAuth>>,
    /// The users of each of them, if it requires basic authentication.
    pub(crate) user_auth: Vec<Option<UserAuth>>,
    /// The headers that each of them takes from ConfigMaps.
    pub(crate) headers: Vec<PartHeaders>,
    pub(crate) annotations_prefix: &'a str,
    pub(crate) certificate_entry: bool,
    pub(crate) ports: RedirectPorts,
    pub(crate) config: &'a GlobalConfig,
    /// `--default-backend-service`.
    pub(crate) default_backend: Option<&'a BackendName>,
    /// The service of `global-auth-url`.
    pub(crate) global_auth: Option<&'a BackendKey>,
}

/// A host, merged.
pub(crate) struct Merged {
    pub(crate) routes: Vec<Route>,
    pub(crate) client_auth: Option<Arc<fairway_model::ClientAuth>>,
    pub(crate) ciphers: Option<Arc<HostCiphers>>,
    pub(crate) passthrough: Option<Arc<Passthrough>>,
    /// The Ingress that makes the sibling with or without `www.` redirect here.
    pub(crate) www: Option<(Age, ObjectKey)>,
    pub(crate) diagnostics: BTreeMap<ObjectKey, Vec<Diagnostic>>,
}

/// A path that has won its place.
struct Location<'a> {
    part: &'a Part,
    rule: &'a PathRule,
    at: usize,
    canary: Option<Canary>,
}

/// Merges all Ingresses of a host.
pub(crate) fn merge(input: &HostInput<'_>, policies: &mut Policies) -> Merged {
    let mut merging = Merging { input, diagnostics: BTreeMap::new(), routes: Vec::new() };
    let (mut locations, beaten) = merging.locations();
    merging.canaries(&mut locations);
    let denied = input.parts.iter().find(|part| part.annotations.denial == Denial::Hosts).map(|part| denial(part));
    let (client_auth, uncertified) = merging.client_auth();
    let denied =
        denied.or_else(|| client_auth.is_none().then(|| uncertified.iter().flatten().next().cloned()).flatten());
    let regex = locations.iter().any(|location| location.part.is_regex(&location.rule.text));
    let told = |(part, tls): (&&Part, &Option<TlsPolicy>)| {
        let key = part.key();
        let told =
            |why| format!("proxy-ssl-secret of Ingress {}/{} can't be applied: {why}", key.namespace, key.name).into();
        tls.clone().map(|tls| tls.map_err(told))
    };
    let backend_tls: Vec<Option<TlsPolicy>> = input.parts.iter().zip(&input.backend_tls).map(told).collect();
    let of_host = || backend_tls.iter().flatten().next().cloned();
    let HostInput { config, certificate_entry, ports, .. } = *input;
    let scope = HostScope {
        config,
        certificate_entry,
        ports,
        denied,
        regex,
        pattern: input.pattern,
        default_backend: input.default_backend,
        global_auth: input.global_auth,
        backend_tls: if config.proxy_ssl_location_only { None } else { of_host() },
        snippets: HostLevels::new(
            config,
            input.parts.iter().find_map(|part| part.annotations.snippets.server.as_ref()),
        ),
    };
    let parts = input.parts.iter().zip(&backend_tls).zip(uncertified).zip(&input.user_auth).zip(&input.headers);
    let commons: Vec<Common<'_>> = parts
        .map(|((((part, own), uncertified), users), headers)| {
            let common = Common::new(part, &scope, own.as_ref(), policies).refusing(uncertified).setting(headers);
            match users {
                None => common,
                Some(Ok(users)) => common.demanding(users),
                Some(Err(why)) => common.refusing(Some(why.clone())),
            }
        })
        .collect();
    merging.faults(&commons);
    merging.header_faults();
    merging.app_root(&locations, &commons);
    // They come before all patterns of Ingresses, as in ingress-nginx's configuration.
    merging.snippet_locations(&scope);
    if regex {
        merging.regex_mode(&locations);
        merging.patterns(&locations, &commons);
    } else {
        merging.plain(&locations, &commons);
    }
    merging.beaten(&beaten, &commons, regex);
    let has_root = locations.iter().any(|location| is_root(location.rule));
    if !has_root {
        merging.implicit_root(&commons, policies);
    }
    if *input.pattern == HostPattern::Any {
        merging.health(&locations);
    }
    let passthrough = merging.passthrough(&locations);
    let www = locations.iter().filter(|location| location.part.annotations.hosts.www_redirect == Some(true));
    Merged {
        www: www.map(|location| (location.part.owner.age.clone(), location.part.owner.key.clone())).min(),
        routes: merging.routes,
        client_auth,
        ciphers: ciphers(&input.parts),
        passthrough,
        diagnostics: merging.diagnostics,
    }
}

/// The cipher suites of a host: the first Ingress with an annotation decides about it.
fn ciphers(parts: &[&Part]) -> Option<Arc<HostCiphers>> {
    let hosts = || parts.iter().map(|part| &part.annotations.hosts);
    let named = hosts().find_map(|hosts| hosts.ciphers.as_ref());
    let server_order = hosts().find_map(|hosts| hosts.server_order);
    let ciphers = named.map(|named| named.ciphers.clone()).unwrap_or_default();
    let own = HostCiphers { ciphers, client_order: server_order == Some(false) };
    (own.client_order || !own.ciphers.is_empty()).then(|| Arc::new(own))
}

struct Merging<'a> {
    input: &'a HostInput<'a>,
    diagnostics: BTreeMap<ObjectKey, Vec<Diagnostic>>,
    routes: Vec<Route>,
}

impl<'a> Merging<'a> {
    /// What the host demands of clients: the first Ingress whose demand can be met decides. The list has the reason to deny the paths of
    /// each Ingress whose demand can't.
    fn client_auth(&mut self) -> (Option<Arc<fairway_model::ClientAuth>>, Vec<Option<Box<str>>>) {
        let HostInput { parts, client_auth, pattern, .. } = self.input;
        let wishes = || parts.iter().zip(client_auth);
        let decided = wishes().find_map(|(part, wish)| Some((part, wish.as_ref()?.as_ref().ok()?)));
        if let Some((first, decided)) = decided {
            for (part, _) in wishes().filter(|(_, wish)| wish.as_ref().is_some_and(|wish| wish.as_ref() != Ok(decided)))
            {
                let message = format!(
                    "host {pattern} asks for client certificates as Ingress {}/{} says, which comes first; this has no effect there",
                    first.owner.key.namespace, first.owner.key.name
                );
                let (severity, reason) = (Severity::Warning, Reason::HostConflict);
                let found = Diagnostic::new(severity, reason, &part.origin, "metadata.annotations", "", message);
                self.diagnostics.entry(part.owner.key.clone()).or_default().push(found);
            }
        }
        let refused = wishes().map(|(part, wish)| {
            let why = wish.as_ref()?.as_ref().err()?;
            let key = part.key();
            Some(format!("auth-tls-secret of Ingress {}/{} can't be applied: {why}", key.namespace, key.name).into())
        });
        let refused = refused.collect();
        (decided.map(|(_, decided)| decided.clone()), refused)
    }

    /// Where TLS connections pass to if any Ingress of the host asks for passthrough: the Service of path `/`, whichever Ingress has it.
    fn passthrough(&mut self, locations: &[Location<'a>]) -> Option<Arc<Passthrough>> {
        let part = self.input.parts.iter().find(|part| part.annotations.hosts.passthrough == Some(true))?;
        let mut report = |message: String| {
            let (severity, reason) = (Severity::Warning, Reason::IneffectiveAnnotation);
            let found = Diagnostic::new(severity, reason, &part.origin, "metadata.annotations", "", message);
            self.diagnostics.entry(part.owner.key.clone()).or_default().push(found);
        };
        if *self.input.pattern == HostPattern::Any {
            report("ssl-passthrough: TLS is passed through by the name of a host, so a rule without one is served as usual".to_owned());
            return None;
        }
        let roots = locations.iter().filter(|location| &*location.rule.text == "/");
        // The oldest Ingress with that path: a younger one can't take connections away.
        let root = roots.min_by_key(|location| (location.at, location.rule.kind == PathKind::Exact));
        let backend = match root.map(|location| &location.rule.target) {
            Some(Target::Service(backend)) => Some(backend),
            Some(Target::Invalid) => None,
            None => self.input.parts.first().and_then(|first| first.default_backend.as_deref()),
        };
        if backend.is_none() {
            report(format!(
                "ssl-passthrough: expected a path / with a Service on host {}, to which TLS is passed whatever the path; until there is one, TLS connections are closed",
                self.input.pattern
            ));
        }
        // An Ingress that asks for passthrough already has a finding that its restrictions don't apply to what passes; the others don't.
        let others = self.input.parts.iter().filter(|other| other.annotations.hosts.passthrough != Some(true));
        for other in others.filter(|other| other.annotations.restricts_access()) {
            let message = format!(
                "ssl-passthrough of Ingress {}/{} passes TLS connections for host {} on without the restrictions of this one, as in \
                 ingress-nginx; they apply to plain HTTP only",
                part.owner.key.namespace, part.owner.key.name, self.input.pattern
            );
            let (severity, reason) = (Severity::Warning, Reason::HostConflict);
            let found = Diagnostic::new(severity, reason, &other.origin, "metadata.annotations", "", message);
            self.diagnostics.entry(other.owner.key.clone()).or_default().push(found);
        }
        let send_proxy = part.annotations.hosts.passthrough_proxy == Some(true);
        let backend = backend.map(|backend| backend.name().into());
        let passthrough = Passthrough { origin: part.origin.clone(), backend, send_proxy, terminate: false };
        Some(passthrough.into())
    }

    /// The paths of all Ingresses, and the paths that lost. The oldest Ingress wins each pair of path and type.
    fn locations(&mut self) -> (Vec<Location<'a>>, Vec<Location<'a>>) {
        let mut winners: HashMap<(bool, Cow<'a, str>), (&'a Part, &'a PathRule)> = HashMap::new();
        let (mut locations, mut beaten) = (Vec::new(), Vec::new());
        for (at, part) in self.input.parts.iter().copied().enumerate() {
            let rules = part.hosts.iter().filter(|rules| rules.pattern == *self.input.pattern);
            for rule in rules.flat_map(|rules| &rules.paths) {
                match winners.entry((rule.kind == PathKind::Exact, canonical(part, rule))) {
                    hash_map::Entry::Vacant(entry) => {
                        entry.insert((part, rule));
                        self.check_characters(part, rule);
                        locations.push(Location { part, rule, at, canary: None });
                    }
                    hash_map::Entry::Occupied(entry) => {
                        let (winner, won) = entry.get();
                        let (severity, why) = if part.owner.age.leaving && !winner.owner.age.leaving {
                            (Severity::Info, "; this Ingress is being deleted, so it yields")
                        } else {
                            (Severity::Warning, ", already; the oldest wins, so this one is ignored")
                        };
                        let message = format!(
                            "host {} has this path from Ingress {}/{}, {}{why}",
                            self.input.pattern,
                            winner.owner.key.namespace,
                            winner.owner.key.name,
                            won.section()
                        );
                        self.report(part, rule, severity, Reason::PathConflict, message);
                        beaten.push(Location { part, rule, at, canary: None });
                    }
                }
            }
        }
        (locations, beaten)
    }

    /// Assigns the canaries to their paths.
    fn canaries(&mut self, locations: &mut [Location<'a>]) {
        let HostInput { pattern, canaries, config, .. } = self.input;
        if canaries.is_empty() {
            return;
        }
        let mains: Vec<_> =
            locations.iter().map(|location| Main { part: location.part, rule: location.rule }).collect();
        let other_namespaces = config.allow_cross_namespace_resources;
        let found = canary::canaries(pattern, &mains, canaries, other_namespaces, &mut self.diagnostics);
        for (at, canary) in found {
            locations[at].canary = Some(canary);
        }
    }

    /// The routes of paths that lost. They stay behind those with the same match, where no request reaches them but `explain` finds them;
    /// they affect nothing else.
    fn beaten(&mut self, beaten: &[Location<'a>], commons: &[Common<'_>], regex: bool) {
        if beaten.is_empty() {
            return;
        }
        let winners: HashSet<String> = self.routes.iter().map(|route| route.path.to_string()).collect();
        for location in beaten {
            let rule = location.rule;
            let path = match rule.kind {
                _ if regex => PathMatch::regex(&rule.text),
                PathKind::Exact => PathMatch::exact(&rule.text),
                PathKind::Prefix | PathKind::Any => PathMatch::prefix(&rule.text),
            };
            if let Some(path) = path.ok().filter(|path| winners.contains(&path.to_string())) {
                self.routes.push(commons[location.at].route(&rule.section(), &rule.text, path, leads(location)));
            }
        }
    }

    /// Prefix and Exact, as Kubernetes documents them.
    fn plain(&mut self, locations: &[Location<'a>], commons: &[Common<'_>]) {
        let mut taken: HashSet<String> = HashSet::new();
        let mut below: Vec<(&Location<'a>, String)> = Vec::new();
        for location in locations {
            let (part, rule) = (location.part, location.rule);
            let path = match rule.kind {
                PathKind::Exact => PathMatch::exact(&rule.text),
                PathKind::Prefix | PathKind::Any => PathMatch::prefix(&rule.text),
            };
            match path {
                Ok(path) => {
                    let text = path.text();
                    match text.strip_suffix('/').filter(|bare| !bare.is_empty()) {
                        Some(bare) if rule.kind != PathKind::Exact => below.push((location, bare.to_owned())),
                        bare => {
                            taken.insert(text.to_owned());
                            if let Some(bare) = bare {
                                let message = format!(
                                    "Exact takes this path only; ingress-nginx would answer {bare} with a redirect to it"
                                );
                                self.report(part, rule, Severity::Info, Reason::DiffersFromIngressNginx, message);
                            }
                        }
                    }
                    let route = commons[location.at].route(&rule.section(), &rule.text, path, leads(location));
                    self.routes.push(route);
                }
                Err(error) => {
                    // No request has such a path, so none can fall through to a wider route.
                    let message = format!("{error}; no request can have this path, so it is ignored");
                    self.report(part, rule, Severity::Error, Reason::InvalidPath, message);
                }
            }
        }
        for (location, bare) in below {
            if taken.contains(&bare) {
                continue;
            }
            let Ok(path) = PathMatch::exact(&bare) else { continue };
            let action = Action::Redirect(Redirect {
                base: commons[location.at].redirect_base(),
                ..Redirect::new(301, RedirectLocation::AppendSlash)
            });
            let origin = location.part.origin.section(location.rule.section());
            let mut filters = vec![Filter::StrictTransportSecurity];
            filters.extend(block(self.input.config));
            self.routes.push(Route { rule: location.rule.text.clone(), filters, ..Route::new(origin, path, action) });
        }
    }

    /// Regular expressions in the order in which nginx tries them: longest text first, then by text, descending.
    fn patterns(&mut self, locations: &[Location<'a>], commons: &[Common<'_>]) {
        let exact: HashSet<&str> = locations
            .iter()
            .filter(|location| location.rule.kind == PathKind::Exact)
            .map(|location| &*location.rule.text)
            .collect();
        let mut ordered: Vec<(Cow<'_, str>, Route)> = Vec::new();
        for location in locations {
            let (part, rule) = (location.part, location.rule);
            let common = &commons[location.at];
            let access = &part.annotations.access;
            let restricts = access.allow.is_some()
                || access.deny.is_some()
                || part.annotations.external_auth.url.is_some()
                || part.annotations.user_auth.kind.is_some()
                || part.annotations.snippets.configuration.as_ref().is_some_and(LocationSnippet::restricts)
                || common.is_guarded();
            let strict = restricts || part.annotations.denial != Denial::None;
            let mut add = |text: Cow<'a, str>, path: Result<PathRegex, String>| match path {
                Ok(regex) => {
                    let path = PathMatch::Regex(regex.into());
                    ordered.push((text, common.route(&rule.section(), &rule.text, path, leads(location))));
                    None
                }
                Err(error) => {
                    // It keeps its place in the order: the patterns before it would have been tried first.
                    if let Some(Ok::<PathRegex, _>(regex)) = guard(&rule.text, strict).map(|guard| guard.parse()) {
                        let reason =
                            format!("the path {} can't be matched on: {error}", crate::diagnostic::bounded(&rule.text));
                        let path = PathMatch::Regex(regex.into());
                        ordered.push((text, common.refused(&rule.section(), &rule.text, path, reason)));
                    }
                    Some(error)
                }
            };
            let whole = || rule.regex().clone().map_err(|error| reason(&error));
            let as_is = part.is_regex(&rule.text) || rule.kind == PathKind::Exact || &*rule.text == "/";
            let error = if as_is || rule.text.ends_with('/') {
                add(Cow::Borrowed(&rule.text), whole())
            } else {
                // A Prefix without trailing slash is two locations in nginx, `/foo/` and `/foo`.
                let below = format!("{}/", rule.text);
                let path = below.parse().map_err(|error| reason(&error));
                let error = add(Cow::Owned(below), path);
                if !exact.contains(&*rule.text) && error.is_none() {
                    add(Cow::Borrowed(&rule.text), whole());
                }
                error
            };
            if let Some(error) = error {
                let guard = guard(&rule.text, strict);
                let then = match guard.as_deref() {
                    Some("/") => "since it may restrict access, requests that match no longer path get 503",
                    Some(_) => "what it begins with answers 503",
                    None => "it is ignored",
                };
                let message =
                    format!("expected a regex that runs in linear time and is not too large: {error}; {then}");
                let found = self.report(part, rule, Severity::Error, Reason::InvalidPath, message);
                found.unserved = guard.is_some();
            }
        }
        ordered.sort_by(|(a, _), (b, _)| (Reverse(a.len()), Reverse(a)).cmp(&(Reverse(b.len()), Reverse(b))));
        self.routes.extend(ordered.into_iter().map(|(_, route)| route));
    }

    /// Reports paths whose meaning another Ingress's annotation has changed.
    fn regex_mode(&mut self, locations: &[Location<'a>]) {
        let Some(cause) = locations.iter().find(|location| location.part.is_regex(&location.rule.text)) else { return };
        // Another path may take a request now, with other restrictions, and this is up to someone else.
        let restricted = locations.iter().any(|location| location.part.annotations.restricts_access());
        let namespace = &cause.part.owner.key.namespace;
        let is_foreign = |location: &&Location<'_>| {
            location.part.owner.key.namespace != *namespace && !location.part.is_regex(&location.rule.text)
        };
        if let Some(other) = locations.iter().find(is_foreign).filter(|_| restricted) {
            let message = format!(
                "it puts host {} into regex mode, which changes what the paths of Ingress {}/{} match, and with it which restrictions apply",
                self.input.pattern, other.part.owner.key.namespace, other.part.owner.key.name
            );
            self.report(cause.part, cause.rule, Severity::Warning, Reason::HostConflict, message);
        }
        for location in locations {
            let (part, rule) = (location.part, location.rule);
            let annotations = &part.annotations;
            if annotations.affinity.kind.is_some()
                && annotations.affinity.cookie_path.is_none()
                && part.is_regex(&rule.text)
            {
                let message =
                    "the path is a regex, which makes a useless Path of the session cookie; set session-cookie-path";
                self.report(part, rule, Severity::Warning, Reason::IneffectiveAnnotation, message.to_owned());
            }
            if part.owner.key != cause.part.owner.key && !part.is_regex(&rule.text) {
                let message = format!(
                    "Ingress {}/{} puts host {} into regex mode: this path is a case-insensitive regex, anchored at the start only",
                    cause.part.owner.key.namespace, cause.part.owner.key.name, self.input.pattern
                );
                let severity = if restricted && is_foreign(&location) { Severity::Warning } else { Severity::Info };
                self.report(part, rule, severity, Reason::HostConflict, message);
            }
        }
    }

    /// The location `/` that ingress-nginx gives every host: the first Ingress's default backend, or the global one, with all path
    /// annotations of the first Ingress. On the catch-all it belongs to the first Ingress with nothing but a default backend, whose
    /// redirects and rewrites have no effect there.
    fn implicit_root(&mut self, commons: &[Common<'_>], policies: &mut Policies) {
        let regex = commons.first().is_some_and(Common::is_regex_host);
        let path = if regex { PathMatch::regex("/") } else { PathMatch::prefix("/") };
        let Ok(path) = path else { return };
        let global = || match self.input.default_backend {
            Some(backend) => Leads::ToDefault(backend.clone()),
            None => Leads::Nowhere,
        };
        let own =
            |part: &Part| part.default_backend.as_ref().map_or_else(global, |backend| Leads::To(backend.name().into()));
        let parts = self.input.parts.iter().zip(commons);
        if *self.input.pattern != HostPattern::Any {
            if let Some((part, common)) = parts.into_iter().next() {
                let section = if part.default_backend.is_some() { "defaultBackend" } else { "" };
                self.routes.push(common.route(section, "/", path, own(part)));
            }
            return;
        }
        let catch_all = parts.into_iter().find(|(part, _)| part.catch_all && part.default_backend.is_some());
        if let Some((part, common)) = catch_all {
            self.routes.push(common.catch_all(path, own(part)));
            return;
        }
        let mut filters =
            built_in_gate(self.input.config, self.input.default_backend, self.input.global_auth, policies);
        let action = match self.input.default_backend {
            Some(backend) => {
                filters.push(Filter::NotFoundWithoutEndpoints);
                Action::Forward(Forward {
                    backends: backend.clone().into(),
                    fallback: None,
                    session_cookie_path: None,
                    policy: policies.plain(self.input.config),
                })
            }
            None => Action::Respond(Respond::not_found()),
        };
        self.routes.push(Route { filters, ..Route::new(Origin::built_in("default backend"), path, action) });
    }

    /// `app-root` applies to the whole host; the longest path with it decides. It comes before everything else.
    fn app_root(&mut self, locations: &[Location<'a>], commons: &[Common<'_>]) {
        let implicit = match *self.input.pattern {
            HostPattern::Any => None,
            _ => self.input.parts.first().map(|part| ("/", *part, "")),
        };
        let root_taken = locations.iter().any(|location| is_root(location.rule));
        let implicit = implicit.filter(|_| !root_taken && !commons.is_empty());
        let explicit = locations.iter().map(|location| (&*location.rule.text, location.part, location.rule));
        let longest = explicit
            .map(|(text, part, rule)| (text, part, rule.section()))
            .chain(implicit.map(|(text, part, section)| (text, part, section.to_owned())))
            .filter_map(|(text, part, section)| Some((text, part, section, part.annotations.hosts.app_root.as_ref()?)))
            .max_by_key(|(text, part, ..)| (text.len(), *text, Reverse(&part.owner.age)));
        let Some((_, part, section, target)) = longest else { return };
        let Ok(path) = PathMatch::exact("/") else { return };
        let location = RedirectLocation::AppRoot(target.as_str().into());
        let action = Action::Redirect(Redirect::new(302, location));
        let filters = block(self.input.config).into_iter().collect();
        self.routes.push(Route { filters, ..Route::new(part.origin.section(section), path, action) });
    }

    /// The `location` blocks of snippets. Requests that their directives don't answer get 404.
    fn snippet_locations(&mut self, scope: &HostScope<'_>) {
        let Some(levels) = &scope.snippets else { return };
        let own = self.input.parts.iter().find(|part| part.annotations.snippets.server.is_some());
        let origin =
            own.map_or_else(|| Origin::built_in("server-snippet"), |part| part.origin.section("server-snippet"));
        for (location, filters) in levels.locations() {
            let mut gate = vec![Filter::StrictTransportSecurity];
            gate.extend(block(self.input.config));
            match scope.denied.clone().map_or(filters, Err) {
                Ok(filters) => gate.extend(filters),
                Err(reason) => gate.push(Filter::Refuse(Refusal { reason })),
            }
            let action = Action::Respond(Respond::not_found());
            let route = Route::new(origin.clone(), location.path.clone(), action);
            self.routes.push(Route { rule: location.text.clone(), filters: gate, ..route });
        }
    }

    /// The health check of cloud load balancers, unless a user has defined the path.
    fn health(&mut self, locations: &[Location<'a>]) {
        if locations.iter().any(|location| location.rule.text.trim_end_matches('/') == "/healthz") {
            return;
        }
        let Ok(path) = PathMatch::exact("/healthz") else { return };
        let action = Action::Respond(Respond::empty(200));
        let route = Route::new(Origin::built_in("health"), path, action);
        self.routes.push(Route { access_log: false, ..route });
    }

    /// Faults that ingress-nginx's admission webhook would refuse; here the Ingress is served all the same.
    fn check_characters(&mut self, part: &Part, rule: &PathRule) {
        if self.input.config.strict_validate_path_type && !is_ordinary(rule) {
            let message =
                "expected letters, digits and / - . _ only for this path type; ImplementationSpecific takes others";
            self.report(part, rule, Severity::Warning, Reason::InvalidPath, message.to_owned());
        }
    }

    /// Reports snippets that can be read, but not combined with the others of the host.
    fn faults(&mut self, commons: &[Common<'_>]) {
        for (part, common) in self.input.parts.iter().zip(commons) {
            let Some(fault) = common.snippet_fault() else { continue };
            let message = format!("{fault}; all paths of this Ingress answer 503");
            let (severity, reason) = (Severity::Error, Reason::RefusedAnnotation);
            let found = Diagnostic::new(severity, reason, &part.origin, "metadata.annotations", "", message).unserved();
            self.diagnostics.entry(part.owner.key.clone()).or_default().push(found);
        }
    }

    /// Headers that can't be set, reported once for an Ingress with several hosts.
    fn header_faults(&mut self) {
        let HostInput { parts, headers, pattern, annotations_prefix, .. } = self.input;
        for (part, headers) in parts.iter().zip(headers) {
            let found = part.header_faults(headers, annotations_prefix);
            if !found.is_empty() && part.patterns().next().as_ref() == Some(*pattern) {
                self.diagnostics.entry(part.owner.key.clone()).or_default().extend(found);
            }
        }
    }

    fn report(
        &mut self,
        part: &Part,
        rule: &PathRule,
        severity: Severity,
        reason: Reason,
        message: String,
    ) -> &mut Diagnostic {
        let found = Diagnostic::new(severity, reason, &part.origin, rule.field("path"), &rule.text, message);
        self.diagnostics.entry(part.owner.key.clone()).or_default().push_mut(found)
    }
}

/// Whether a path has only characters that ingress-nginx's admission webhook accepts for its type.
pub(crate) fn is_ordinary(rule: &PathRule) -> bool {
    let ordinary = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._".contains(&byte);
    rule.kind == PathKind::Any || rule.text.bytes().all(ordinary)
}

/// The form by which equal paths are recognised as the same location.
pub(crate) fn canonical<'a>(part: &Part, rule: &'a PathRule) -> Cow<'a, str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_".contains(&byte);
    if part.is_regex(&rule.text) || (rule.text.bytes().all(plain) && !rule.text.contains("//")) {
        return Cow::Borrowed(&rule.text);
    }
    match PathMatch::exact(&rule.text) {
        Ok(path) => Cow::Owned(path.text().to_owned()),
        Err(_) => Cow::Borrowed(&rule.text),
    }
}

fn reason(error: &InvalidPathMatch) -> String {
    error.to_string().trim_end_matches('.').to_owned()
}

fn is_root(rule: &PathRule) -> bool {
    rule.kind != PathKind::Exact && &*rule.text == "/"
}

fn leads(location: &Location<'_>) -> Leads {
    match &location.rule.target {
        Target::Service(backend) => Leads::To(match &location.canary {
            None => backend.name().into(),
            Some(canary) => Backends::Canary(Box::new(canary.clone())),
        }),
        Target::Invalid => Leads::Broken,
    }
}
