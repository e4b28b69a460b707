//! The policies for a rule, as filters and policy of its routes.

use std::sync::LazyLock;

use fairway_model::{
    Action, CaptureTemplate, Filter, HostPattern, PathMatch, Refusal, Rewrite, Route, UpstreamProtocol,
};

use super::read::Section;
use super::{Decision, Effective, RoutePolicies, RoutePolicyPart, Site};
use crate::annotation::IngressAnnotations;
use crate::policy::check::{Checks, access, limits};
use crate::policy::error_page::error_filter;
use crate::policy::external_auth;
use crate::policy::forward::{PLAIN, Policies, adjusted};
use crate::value::{ErrorStatus, RewriteTarget, Satisfy};

/// Too Many Requests.
const OVER_LIMIT: ErrorStatus = ErrorStatus(429);

/// The annotations for requests of the proxy itself.
static NO_ANNOTATIONS: LazyLock<IngressAnnotations> = LazyLock::new(IngressAnnotations::default);

impl RoutePolicies {
    /// Applies the policies for a rule to its route on a host.
    pub(in crate::gateway) fn apply(&mut self, site: &Site<'_>, pattern: &HostPattern, route: &mut Route) {
        let mut forwarding = std::mem::take(&mut self.forwarding);
        if let Some(effective) = self.effective(site) {
            apply(&effective, pattern, route, &mut forwarding);
        }
        self.forwarding = forwarding;
    }

    /// What of the rewrite of a policy stays empty at a match of a rule.
    pub(in crate::gateway) fn unfilled(&self, site: &Site<'_>, path: &PathMatch) -> Option<String> {
        unfilled(&self.effective(site)?, path)
    }

    /// The `satisfy: Any` of a policy that has no effect at a rule.
    pub(in crate::gateway) fn overruled(&self, site: &Site<'_>) -> Option<String> {
        let effective = self.effective(site)?;
        let part = effective.any()?;
        let other = effective.inherited_authentication()?;
        let (own, other) = (part.turn.key(), other.turn.key());
        Some(format!(
            "access.satisfy: Any of {own} counts as All here: {other} demands authentication for a less specific target"
        ))
    }

    /// Why policies can't be applied to a rule that has the filter ExternalAuth.
    pub(in crate::gateway) fn torn(&self, site: &Site<'_>) -> Option<String> {
        self.effective(site).as_ref().and_then(torn)
    }
}

/// What of a rewrite stays empty at a match, because that has no group for it.
fn unfilled(effective: &Effective<'_>, path: &PathMatch) -> Option<String> {
    let section = Section::Rewrite;
    let part = effective.of(section).filter(|part| part.fault(section).is_none())?;
    let rewriting = &part.asked.annotations.rewriting;
    let target = rewriting.rewrite_target.as_ref().map(RewriteTarget::as_str);
    let texts = [("path", target), ("forwardedPrefix", rewriting.forwarded_prefix.as_ref().map(|it| it.as_str()))];
    let groups = match path {
        PathMatch::Regex(pattern) => pattern.groups(),
        PathMatch::Exact(_) | PathMatch::Prefix(_) | PathMatch::Start(_) => 0,
    };
    let (member, most) = texts.into_iter().find_map(|(member, text)| {
        let most = CaptureTemplate::from(text?).groups();
        (most > groups).then_some((member, most))
    })?;
    let has = match (path, groups) {
        (PathMatch::Regex(_), 0) => "the regular expression has no groups in parentheses".to_owned(),
        (PathMatch::Regex(_), groups) => format!("the regular expression has {groups} groups in parentheses"),
        _ => "only a regular expression has groups".to_owned(),
    };
    Some(format!("${most} in rewrite.{member} of {} is always empty here: {has}", part.turn.key()))
}

impl<'a> Effective<'a> {
    /// The policy whose `access` has `satisfy: Any`.
    fn any(&self) -> Option<&'a RoutePolicyPart> {
        let part = self.of(Section::Access).filter(|part| part.fault(Section::Access).is_none())?;
        (part.asked.annotations.access.satisfy == Some(Satisfy::Any)).then_some(part)
    }
}

/// The part of policies that can't be applied beside the filter ExternalAuth: both would decide which clients are admitted.
fn torn(effective: &Effective<'_>) -> Option<String> {
    let section = Section::ExternalAuth;
    let asking = effective.of(section).filter(|part| part.fault(section).is_none()).map(|part| ("externalAuth", part));
    let any = || effective.any().filter(|_| effective.inherited_authentication().is_none());
    let (what, part) = asking.or_else(|| Some(("access.satisfy: Any", any()?)))?;
    Some(format!("{what} of {} can't be applied beside the filter ExternalAuth", part.turn.key()))
}

fn apply(effective: &Effective<'_>, pattern: &HostPattern, route: &mut Route, forwarding: &mut Policies) {
    let annotations = effective.annotations();
    let asks = route.filters.iter().any(|filter| matches!(filter, Filter::ExternalAuth(_)));
    let checks = match (checks(effective, &annotations, pattern, forwarding), torn(effective).filter(|_| asks)) {
        (Ok(_), Some(reason)) => vec![Filter::Refuse(Refusal { reason: reason.into() })],
        (Ok(checks), None) => checks.into_filters().collect(),
        (Err(reason), _) => vec![Filter::Refuse(Refusal { reason })],
    };
    // Filters for all clients come before: browsers send preflights without credentials, and need the fields of a refusal too.
    let is_before = |filter: &&Filter| matches!(filter, Filter::EditResponse(_) | Filter::Cors(_));
    let at = route.filters.iter().take_while(is_before).count();
    route.filters.splice(at..at, checks);
    let errors = effective.of(Section::ErrorPages).and_then(|part| {
        let statuses = annotations.proxying.http_errors.as_ref().map(|list| &*list.0).unwrap_or_default();
        let only_own = annotations.proxying.pass_errors.unwrap_or_default();
        let backend = part.asked.errors.as_ref().map(|backend| backend.name());
        error_filter(statuses, only_own, backend, None, || forwarding.plain(&PLAIN))
    });
    route.filters.splice(0..0, errors);
    route.filters.shrink_to_fit();
    let Action::Forward(forward) = &mut route.action else { return };
    if let Some(RewriteTarget::Path(target)) = &annotations.rewriting.rewrite_target {
        let prefix = annotations.rewriting.forwarded_prefix.as_ref();
        let rewrite =
            Rewrite { target: target.as_str().into(), forwarded_prefix: prefix.map(|prefix| prefix.as_str().into()) };
        route.filters.push(Filter::Rewrite(rewrite.into()));
    }
    let policy = adjusted(&forward.policy, &annotations);
    if policy != *forward.policy {
        forward.policy = forwarding.0.of(policy);
    }
    if annotations.affinity.kind.is_some() {
        let matched = match &route.path {
            PathMatch::Exact(path) | PathMatch::Prefix(path) | PathMatch::Start(path) => path,
            PathMatch::Regex(_) => "/",
        };
        let path = annotations.affinity.cookie_path.as_ref().map_or(matched, |path| path.as_str());
        forward.session_cookie_path = Some(path.into());
    }
}

/// The checks that a request has to pass, or why they can't be built.
fn checks(
    effective: &Effective<'_>,
    annotations: &IngressAnnotations,
    pattern: &HostPattern,
    forwarding: &mut Policies,
) -> Result<Checks, Box<str>> {
    let refused = |section: Section, part: &RoutePolicyPart, why: &str| -> Box<str> {
        format!("{} of {} can't be applied: {why}", section.name(), part.turn.key()).into()
    };
    for Decision { section, part, .. } in effective.0.iter().filter(|decision| decision.section.restricts()) {
        if let Some(fault) = part.fault(*section) {
            return Err(refused(*section, part, &format!("{}: {}", fault.field, fault.why.message)));
        }
    }
    let mut checks = Checks { any: annotations.access.satisfy == Some(Satisfy::Any), ..Checks::default() };
    if let Some(part) = effective.of(Section::Limits) {
        let over = part.asked.over_limit.unwrap_or(OVER_LIMIT);
        checks.limits = limits(part.turn.key().to_string(), &annotations.limits, (over, over));
    }
    if effective.of(Section::Access).is_some() {
        let (filter, unreadable) = access(annotations, &PLAIN);
        if let Some(why) = unreadable {
            return Err(why);
        }
        checks.access = filter;
    }
    if let Some(part) = effective.of(Section::BasicAuth) {
        let section = Section::BasicAuth;
        let users = match &part.users {
            Some(Ok(users)) => users,
            Some(Err(why)) => return Err(refused(section, part, why)),
            None => return Err(refused(section, part, "its Secret has not been read")),
        };
        checks.password = Some(Filter::BasicAuth(Box::new(users.clone())));
    }
    if let Some(part) = effective.of(Section::ExternalAuth) {
        let section = Section::ExternalAuth;
        let Some(url) = &annotations.external_auth.url else { return Err(refused(section, part, "it has no URL")) };
        let tls = external_auth::tls(url, pattern);
        let policy = forwarding.of(&NO_ANNOTATIONS, &PLAIN, UpstreamProtocol::Http1, tls);
        let backend = part.asked.service.as_ref();
        let filter = external_auth::filter(&annotations.external_auth, url, pattern, backend, policy);
        checks.authentication = Some(filter.map_err(|why| refused(section, part, &why))?);
    }
    Ok(checks)
}
