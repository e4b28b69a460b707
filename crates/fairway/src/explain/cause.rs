//! Why a request is answered as it is: the object, the field and the fault behind it.

use fairway_model::decision::{Failure, Plan, Step};
use fairway_model::{Action, CanaryBy, CanaryChoice, Filter, Host, HostPattern, Origin, Route};
use fairway_proxy::reason::Cause;
use fairway_proxy::rehearsal::{Outcome, Rehearsed};
use fairway_translate::diagnostic::{Diagnostic, Reason, Severity};

use super::account::{Answer, By, NotLoaded};
use super::tell::{Teller, location, owner, text};
use super::words::{client_limits, rule};

impl Teller<'_> {
    /// The response to the client, and why.
    pub(super) fn answer(&self, left_out: &[NotLoaded]) -> Answer {
        let Rehearsed { plan, outcome, .. } = self.rehearsed;
        let Outcome::Answer { status, response, cause } = outcome else {
            let why = plan.as_ref().map(|plan| self.forwarded_why(plan)).unwrap_or_default();
            return Answer { status: None, location: None, by: By::Backend, reason: None, why };
        };
        if let Some(Plan {
            step: Step::Fail(failure @ (Failure::NoCertificate | Failure::Certificate)),
            host: Some(host),
            ..
        }) = plan
            && host.client_auth().is_some_and(|auth| auth.in_handshake)
        {
            let why = format!("the TLS handshake fails: {failure}");
            return Answer { status: None, location: None, by: By::Nothing, reason: None, why };
        }
        let why = match plan {
            None => format!("the head of the request is refused: {}", detail(*cause)),
            Some(plan) => self.answered_why(plan, *cause, left_out),
        };
        Answer {
            status: Some(*status),
            location: location(response),
            by: By::Fairway,
            reason: cause.map(|cause| cause.reason.as_str()),
            why,
        }
    }

    fn forwarded_why(&self, plan: &Plan<'_>) -> String {
        let route = plan.route.map(|route| format!("{} of {}", route.path, owner(&route.origin))).unwrap_or_default();
        let Step::Forward(forwarding) = plan.step else { return route };
        let snapshot = &self.reading.snapshot;
        let place = match snapshot.backend(forwarding.backend) {
            Some(backend) => format!("{}, port {}", backend.origin, backend.port),
            None => forwarding.backend.to_string(),
        };
        if let Some(status) = plan.replaces_error() {
            return format!("{route} would answer {status}; {place} answers instead");
        }
        let stands_in = forwarding.in_place_of.map(|other| format!(", in place of {other}, which has no endpoint"));
        let canary = plan.canary().map(|choice| canary(&choice)).unwrap_or_default();
        format!("{route} leads to {place}{}{canary}", stands_in.unwrap_or_default())
    }

    fn answered_why(&self, plan: &Plan<'_>, cause: Option<Cause>, left_out: &[NotLoaded]) -> String {
        let Rehearsed { scratch, .. } = self.rehearsed;
        match plan.step {
            Step::Fail(Failure::NoService | Failure::NoEndpoint) | Step::Forward(_) => self.unavailable(plan, cause),
            Step::Fail(failure) => failure.to_string(),
            Step::Deny => "an authentication service has denied the request".to_owned(),
            Step::Redirect(_) | Step::Respond(_) if let Some(why) = self.by_snippet(plan) => why,
            Step::Redirect(_) => match plan.ended_by() {
                Some(_) => "plain HTTP is redirected to https".to_owned(),
                None => plan.route.map(|route| format!("{} redirects", owner(&route.origin))).unwrap_or_default(),
            },
            Step::Respond(_) => match (plan.ended_by(), plan.host, plan.route) {
                (Some(Filter::Refuse(refusal)), ..) => refusal.reason.to_string(),
                (Some(Filter::AccessList(list)), ..) => {
                    format!("the client {} is not allowed: {}", scratch.client.address(), rule(list))
                }
                (Some(Filter::Block(_)), ..) => "its User-Agent or Referer is blocked".to_owned(),
                (Some(Filter::ClientLimits(limits)), ..) => client_limits(limits),
                (Some(Filter::BasicAuth(_)), ..) => "the request has no name and password of a user".to_owned(),
                (Some(Filter::Cors(_)), ..) if plan.admits_origin() => {
                    "it is a preflight of an admitted origin".to_owned()
                }
                (Some(Filter::Cors(_)), ..) => "it is a preflight of an origin that is not admitted".to_owned(),
                (Some(_), ..) => self.unavailable(plan, cause),
                (None, None, _) if plan.route.is_none() && self.rehearsed.path.is_none() => {
                    "the request is about the server as a whole".to_owned()
                }
                (None, None, _) => self.no_host(left_out),
                (None, Some(_), _) if let Some(host) = plan.unmatched_host() => self.no_path(host),
                (None, Some(host), route)
                    if *host.pattern() == HostPattern::Any && route.is_none_or(|route| route.origin.is_built_in()) =>
                {
                    self.no_host(left_out)
                }
                (None, Some(host), route) => {
                    route.and_then(|route| self.not_carried_out(route)).unwrap_or_else(|| self.no_path(host))
                }
            },
            Step::Wait(_) => String::new(),
        }
    }

    fn no_host(&self, left_out: &[NotLoaded]) -> String {
        let host = text(self.rehearsed.scratch.client.host());
        let wanted = match left_out {
            [] => self.unread(&["Ingress", "HTTPRoute", "GRPCRoute", "Gateway", "ListenerSet"]),
            [first, ..] => format!("; {} names it, but {}", first.object, first.why),
        };
        let is_of_gateway = |route: &&Route| !route.origin.is_built_in() && &*route.origin.kind != "Ingress";
        let hosts = self.reading.snapshot.hosts().into_iter().flat_map(|host| host.tiers());
        let what = match hosts.flat_map(Host::routes).find(is_of_gateway) {
            Some(_) => "no Ingress and no route serves",
            None => "no Ingress serves",
        };
        format!("{what} the host {host}, and there is no default backend{wanted}")
    }

    fn no_path(&self, host: &Host) -> String {
        format!(
            "no path of host {} takes the request{}",
            host.pattern().as_written(),
            // The host is served, so no Gateway is missing.
            self.unread(&["Ingress", "HTTPRoute", "GRPCRoute"])
        )
    }

    /// What might have taken the request and is not loaded, because it can't be read or the API server would refuse it.
    fn unread(&self, kinds: &[&str]) -> String {
        let reading = self.reading;
        let rank = |found: &&Diagnostic| kinds.iter().position(|kind| **kind == *found.origin.kind);
        let is_unread = |found: &&Diagnostic| {
            let of_files = found.reason == Reason::InvalidManifest && found.severity == Severity::Error;
            of_files && rank(found).is_some() && reading.manifests.place(&found.origin).is_none()
        };
        let found = reading.findings.iter().map(|found| &found.diagnostic).filter(is_unread).min_by_key(rank);
        found.map(|found| format!("; perhaps what can't be read was meant to: {found}")).unwrap_or_default()
    }

    /// Why nothing can accept a request.
    fn unavailable(&self, plan: &Plan<'_>, cause: Option<Cause>) -> String {
        let Some((route, Action::Forward(forward))) = plan.route.map(|route| (route, &route.action)) else {
            return detail(cause);
        };
        let Some(backend) = forward.backends.names().next().and_then(|name| self.backend(name)) else {
            return detail(cause);
        };
        if let Some(cause) = cause.filter(|cause| cause.reason.as_str() == "misconfigured") {
            let detail = detail(Some(cause));
            let of_backend = self.basis.lookup.findings(Some(&backend.origin));
            let is_fault = |found: &Diagnostic| found.severity == Severity::Error || found.unserved;
            let mut faults = of_backend.filter(|found| is_about(&found.origin, &backend.origin) && is_fault(found));
            return faults.next().map_or_else(|| format!("{}: {detail}", backend.origin), |found| self.told(found));
        }
        let about = [Reason::ServiceNotFound, Reason::PortNotFound, Reason::NoEndpoints, Reason::ForbiddenAddress];
        let service = format!("{}/{}", backend.origin.namespace, backend.origin.name);
        let mut findings = self.basis.lookup.findings(Some(&route.origin));
        let found = findings.find(|found| {
            about.contains(&found.reason) && is_about(&found.origin, &route.origin) && found.message.contains(&service)
        });
        found.map_or_else(|| format!("{} has no ready endpoint", backend.origin), |found| self.told(found))
    }

    /// Why a rule of the Gateway API is answered in place of its backends.
    fn not_carried_out(&self, route: &Route) -> Option<String> {
        let rule = route.origin.section.split('.').next().filter(|rule| rule.starts_with("rules["))?;
        let rule = format!("spec.{rule}");
        let is_about = |found: &&Diagnostic| {
            let below = found.field.strip_prefix(&*rule).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
            below && is_about(&found.origin, &route.origin)
        };
        let found = || self.basis.lookup.findings(Some(&route.origin)).filter(is_about);
        let mut ranks: Vec<_> = found().collect();
        // That the API server of another cluster might refuse it is no cause here.
        ranks.sort_by_key(|found| {
            (std::cmp::Reverse(found.severity), !found.unserved, found.reason == Reason::InvalidManifest)
        });
        ranks.first().map(|found| self.told(found))
    }

    /// A finding as the reason of an answer. Of Services that the files lack, `fairway dev` says something else than a cluster.
    fn told(&self, found: &Diagnostic) -> String {
        let stands_in = self.reading.development().is_some_and(|development| development.echo.is_some());
        let echo = if stands_in && found.reason == Reason::ServiceNotFound {
            " in a cluster, and fairway dev answers with its echo"
        } else {
            ""
        };
        format!("{found}{echo}")
    }
}

/// What decided between a backend and its canary.
fn canary(choice: &CanaryChoice<'_>) -> String {
    let CanaryChoice { canary, alternative, by } = choice;
    let of = owner(&canary.origin);
    let share = match by {
        CanaryBy::Weight => format!(" (it gets {} of {} requests, by chance)", canary.weight, canary.total),
        _ => String::new(),
    };
    match alternative {
        true => format!(", the canary of {of}, chosen {by}{share}"),
        false => format!(", and not to {}, the canary of {of}: chosen {by}{share}", canary.alternative),
    }
}

/// Whether both name the same object.
fn is_about(one: &Origin, other: &Origin) -> bool {
    (&one.kind, &one.namespace, &one.name) == (&other.kind, &other.namespace, &other.name)
}

fn detail(cause: Option<Cause>) -> String {
    cause.map_or(String::new(), |cause| {
        let detail = cause.detail.to_string();
        if detail.is_empty() { cause.reason.text().trim_end_matches('.').to_owned() } else { detail }
    })
}
