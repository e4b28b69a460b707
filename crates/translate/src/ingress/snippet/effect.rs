//! The combined effect of all snippets that concern a location: the ConfigMap's, the host's and its own.

use std::sync::Arc;

use fairway_model::{Filter, Snippet};

use super::level::LocationLevel;
use super::{Level, LocationSnippet, ServerSnippet};
use crate::configmap::GlobalConfig;

/// The levels around the locations of a host.
#[derive(Debug)]
pub(crate) struct HostLevels {
    http: Arc<Level>,
    server: Level,
    location: Arc<Level>,
    steps: Option<Arc<Snippet>>,
}

/// The effect of snippets on the paths of one Ingress on a host.
#[derive(Debug)]
pub(crate) struct Effect {
    /// The combined level of the paths.
    pub(crate) level: Level,
    filters: Vec<Filter>,
    /// Why the paths must be denied.
    pub(crate) fault: Option<Box<str>>,
}

impl HostLevels {
    /// The levels of a host, of which `own` is the snippet of its first Ingress with one; `None` if all levels are empty.
    pub(crate) fn new(config: &GlobalConfig, own: Option<&ServerSnippet>) -> Option<Self> {
        let levels = [&config.http_snippet.level, &config.server_snippet.level, &config.location_snippet.level];
        if own.is_none() && levels.iter().all(|level| level.is_empty()) {
            return None;
        }
        let http = config.http_snippet.level.clone();
        let server = match own {
            Some(own) => own.level.joined(&config.server_snippet.level),
            None => (*config.server_snippet.level).clone(),
        };
        let server = server.within(&http);
        let steps = server.snippet(true, http.maps()).map(Arc::new);
        Some(Self { http, server, location: config.location_snippet.level.clone(), steps })
    }

    /// The paths that `location` blocks take: how they are matched, and their filters or why they must be denied.
    pub(crate) fn locations(&self) -> impl Iterator<Item = (&LocationLevel, Result<Vec<Filter>, Box<str>>)> {
        let outer = self.server.for_locations();
        self.server.locations.iter().map(move |location| {
            let level = location.level.within(&outer);
            if let Some(name) = level.undeclared(&[&self.http, &self.server]) {
                let why = format!("location {}: no snippet in effect sets the variable ${name}", location.text);
                return (location, Err(why.into()));
            }
            let mut filters: Vec<Filter> = self.steps.iter().cloned().map(Filter::Snippet).collect();
            filters.extend(level.snippet(false, self.http.maps()).map(|snippet| Filter::Snippet(Arc::new(snippet))));
            filters.extend(level.access(None, false).map(|rules| Filter::AccessRules(Box::new(rules))));
            (location, Ok(filters))
        })
    }
}

impl Effect {
    /// The combined effect of the levels of a host, if it has any, and the snippet of an Ingress on its paths.
    pub(crate) fn new(
        host: Option<&HostLevels>,
        own: Option<&LocationSnippet>,
        config: &GlobalConfig,
    ) -> Option<Box<Self>> {
        if host.is_none() && own.is_none() {
            return None;
        }
        let nothing = Level::default();
        let own = own.map_or(&nothing, LocationSnippet::level);
        let (http, server, global) =
            host.map_or((&nothing, &nothing, &nothing), |host| (&host.http, &host.server, &host.location));
        let level = own.joined(global).within(&server.for_locations());
        let missing = [
            ("a snippet", level.undeclared(&[http, server])),
            ("server-snippet", server.undeclared(&[http])),
            ("http-snippet", http.undeclared(&[])),
        ];
        let missing = missing.into_iter().find_map(|(whose, name)| Some((whose, name?)));
        let fault = missing
            .map(|(whose, name)| format!("{whose} uses the variable ${name}, which no snippet in effect sets").into());
        let twice = own.except.is_some() && global.except.is_some();
        let twice = twice.then(|| {
            "limit_except stands in the snippet and in location-snippet of the ConfigMap; nginx has one".into()
        });
        let unread = level.refused.then(|| {
            "a snippet of the ConfigMap that may restrict access can't be read, see the findings about the ConfigMap".into()
        });
        let trusts = config.use_forwarded_headers || config.enable_real_ip;
        let other_field = level
            .real_ip()
            .filter(|name| trusts && !name.eq_ignore_ascii_case(config.forwarded_for_header.as_str()))
            .map(|name| format!("real_ip_header {name} differs from forwarded-for-header of the ConfigMap").into());
        let mut filters = Vec::new();
        filters.extend(host.and_then(|host| host.steps.clone()).map(Filter::Snippet));
        filters.extend(level.snippet(false, http.maps()).map(|snippet| Filter::Snippet(Arc::new(snippet))));
        Some(Box::new(Self { level, filters, fault: unread.or(fault).or(twice).or(other_field) }))
    }

    /// The filters, before redirects and checks.
    pub(crate) fn filters(&self) -> impl Iterator<Item = Filter> {
        self.filters.iter().cloned()
    }
}
