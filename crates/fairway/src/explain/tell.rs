//! Builds an account: asks the proxy's own code what it would do, and names the objects behind that.

use std::collections::HashSet;
use std::net::SocketAddr;

use fairway_model::client::Arrival;
use fairway_model::decision::{Failure, Plan, Step};
use fairway_model::{
    Action, AuthProtocol, Backend, BackendName, Backends, Balance, CanaryBy, CanaryChoice, ClientAuth, ClientAuthMode,
    ClientLimits, ConfiguredName, Cors, EndpointState, Endpoints, ErrorPages, ExternalAuth, Filter, Forward, Host,
    HostPattern, Hostname, Listener, Origin, Origins, PathMatch, PathReplacement, ResponseRewrites, Route, Scheme,
    SessionCarrier, TableName, canonical_host,
};
use fairway_proxy::balance::cookie;
use fairway_proxy::reason::Cause;
use fairway_proxy::rehearsal::{Effect, Outcome, Rehearsal, Rehearsed};
use fairway_proxy::resolve::AddressPolicy;
use fairway_translate::diagnostic::{Diagnostic, Reason, Severity};
use fairway_translate::gateway::PassedOver;
use fairway_translate::objects::{Kind, Object, ObjectKey};
use fairway_translate::options::ECHO_SERVICE_FIELD;

use super::account::{
    Account, Answer, By, ChosenHost, ChosenRoute, Client, DecidingPolicy, Endpoint, Field, FilterEffect, FilterStep,
    Forwarded, Limits, NotLoaded, ResponseField, RouteName, Sent,
};
use super::lookup::Lookup;
use super::{Request, Told, backend_tls};
use crate::manifest::Place;
use crate::reading::{Reading, Source};
use crate::table::field;
use crate::wiring;

/// Maximum number of endpoints and of other routes listed; there may be thousands.
const LISTED: usize = 100;

/// Explains a request that arrives where the snapshot listens for its scheme.
pub(crate) fn account(request: &Request, reading: &Reading) -> Account {
    account_with(request, reading, &Basis::new(reading))
}

/// The same with a basis for many requests.
pub(super) fn account_with(request: &Request, reading: &Reading, basis: &Basis<'_>) -> Account {
    let snapshot = &reading.snapshot;
    let of_scheme = || snapshot.listeners().filter(|listener| listener.scheme == request.scheme);
    // The port that the URL names may be one of a Gateway; any other stands for the usual one.
    let port = request.authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    let named = of_scheme().find(|listener| Some(listener.address.port()) == port);
    let usual = || of_scheme().find(|listener| listener.name.as_str() == request.scheme.as_str());
    match named.or_else(usual).or_else(|| of_scheme().next()) {
        Some(listener) => account_by(request, reading, basis, listener, listener.address),
        None => nothing(request),
    }
}

/// The same for a request that arrives at an address of a listener.
#[cfg(test)]
pub(super) fn account_at(request: &Request, reading: &Reading, listener: &Listener, local: SocketAddr) -> Account {
    account_by(request, reading, &Basis::new(reading), listener, local)
}

fn account_by(
    request: &Request,
    reading: &Reading,
    basis: &Basis<'_>,
    listener: &Listener,
    local: SocketAddr,
) -> Account {
    let arrival = Arrival::new(SocketAddr::new(request.client, 0), local, request.scheme).telling(listener.told_port);
    let table = &listener.table;
    let rehearsed = basis.rehearsal.of(&request.head(), &arrival, table);
    Teller { request, reading, basis, rehearsed: &rehearsed, table }.account()
}

/// What answers about many requests are made of.
pub(super) struct Basis<'r> {
    rehearsal: Rehearsal,
    lookup: Lookup<'r>,
}

impl<'r> Basis<'r> {
    pub(super) fn new(reading: &'r Reading) -> Self {
        Self { rehearsal: rehearsal(reading), lookup: Lookup::new(reading) }
    }
}

/// A rehearsal of what was read.
fn rehearsal(reading: &Reading) -> Rehearsal {
    let addresses = AddressPolicy {
        allowed: wiring::allowed(&reading.options),
        // The echo is on this machine.
        loopback_endpoints: reading.source == Source::Files,
        ..AddressPolicy::default()
    };
    let rehearsal = Rehearsal::new(reading.snapshot.clone(), addresses);
    if reading.source == Source::Files { rehearsal.supposing(of_unknown_endpoints(reading)) } else { rehearsal }
}

/// The backends that are Services with pods of their own, none of which is in the files.
fn of_unknown_endpoints(reading: &Reading) -> HashSet<BackendName> {
    let snapshot = &reading.snapshot;
    let is_unknown = |backend: &&std::sync::Arc<Backend>| {
        let set = snapshot.endpoint_set(&backend.name).map(|set| &set.endpoints);
        let key = ObjectKey::new(Kind::Service, &*backend.origin.namespace, &*backend.origin.name);
        let service = match reading.objects.get(&key) {
            Some(Object::Service(service)) if &*backend.origin.kind == "Service" => service.spec.as_ref(),
            _ => return false,
        };
        let has_pods = service.and_then(|spec| spec.type_.as_deref()) != Some("ExternalName");
        has_pods && matches!(set, Some(Endpoints::Addresses(known)) if known.is_empty())
    };
    snapshot.backends().into_iter().filter(is_unknown).map(|backend| backend.name.clone()).collect()
}

/// Only the object behind the answer to a request, the status, and why; `None` if nothing listens for its scheme.
pub(super) fn told(request: &Request, reading: &Reading, basis: &Basis<'_>) -> Option<Told> {
    let listener = reading.snapshot.listeners().find(|listener| listener.scheme == request.scheme)?;
    let (table, local) = (&listener.table, listener.address);
    let arrival = Arrival::new(SocketAddr::new(request.client, 0), local, request.scheme);
    let rehearsed = basis.rehearsal.of(&request.head(), &arrival, table);
    let teller = Teller { request, reading, basis, rehearsed: &rehearsed, table };
    let route = rehearsed.plan.as_ref().and_then(|plan| plan.route);
    let origin = teller.passthrough().map(|passthrough| &passthrough.origin).or(route.map(|route| &route.origin));
    let Answer { status, why, .. } = teller.answer(&teller.left_out());
    let ingress = origin.filter(|origin| &*origin.kind == "Ingress").map(|origin| origin.section(""));
    Some(Told { ingress, status, why })
}

fn nothing(request: &Request) -> Account {
    let why = format!("nothing listens for {}", request.scheme);
    Account {
        request: request.asked(),
        answer: Answer { status: None, location: None, by: By::Nothing, reason: None, why },
        client: Client {
            address: request.client,
            scheme: request.scheme.to_string(),
            host: request.authority.clone(),
            trusted: false,
        },
        certificate: None,
        path: None,
        host: None,
        route: None,
        filters: Vec::new(),
        forward: None,
        passthrough: None,
        response: Vec::new(),
        findings: Vec::new(),
        left_out: Vec::new(),
        elsewhere: Vec::new(),
    }
}

/// Builds the account.
pub(super) struct Teller<'a> {
    pub(super) request: &'a Request,
    pub(super) reading: &'a Reading,
    basis: &'a Basis<'a>,
    rehearsed: &'a Rehearsed<'a>,
    pub(super) table: &'a TableName,
}

impl Teller<'_> {
    fn account(&self) -> Account {
        let Rehearsed { plan, scratch, path, outcome, .. } = self.rehearsed;
        let left_out = self.left_out();
        let route = plan.and_then(|plan| plan.route);
        let passthrough = self.passthrough();
        let account = Account {
            request: self.request.asked(),
            answer: self.answer(&left_out),
            client: Client {
                address: scratch.client.address(),
                scheme: text(scratch.client.told_scheme()),
                host: text(scratch.client.host()),
                trusted: scratch.client.is_trusted(),
            },
            certificate: self.certificate(),
            path: path.as_deref().map(text),
            host: plan.and_then(|plan| plan.host).map(|host| self.host(host)),
            route: route.map(|route| self.route(route)),
            filters: plan.as_ref().map(|plan| self.filters(plan)).unwrap_or_default(),
            forward: plan.as_ref().and_then(|plan| self.forward(plan)),
            passthrough: None,
            response: response_fields(outcome),
            findings: self.findings(passthrough.map(|it| &it.origin).or(route.map(|route| &route.origin))),
            left_out,
            elsewhere: self.elsewhere(),
        };
        match passthrough {
            Some(passthrough) => self.passing(passthrough, account),
            None => account,
        }
    }
}

impl Teller<'_> {
    /// The response to the client, and why.
    fn answer(&self, left_out: &[NotLoaded]) -> Answer {
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
            return format!("the answer of {route} would be {status}, in place of which {place} answers");
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
            [] => self.unread(),
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
        format!("no path of host {} takes the request{}", host.pattern().as_written(), self.unread())
    }

    /// What might have taken the request and is not loaded, because it can't be read or the API server would refuse it.
    fn unread(&self) -> String {
        let reading = self.reading;
        let is_unread = |found: &&Diagnostic| {
            let of_files = found.reason == Reason::InvalidManifest && found.severity == Severity::Error;
            let routes = ["Ingress", "Gateway", "ListenerSet", "HTTPRoute", "GRPCRoute"].contains(&&*found.origin.kind);
            of_files && routes && reading.manifests.place(&found.origin).is_none()
        };
        let found = reading.findings.iter().map(|found| &found.diagnostic).find(is_unread);
        found.map(|found| format!("; {found}")).unwrap_or_default()
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

    fn backend(&self, name: &BackendName) -> Option<&Backend> {
        self.reading.snapshot.backend(name).map(|backend| &**backend)
    }

    fn certificate(&self) -> Option<String> {
        let mut scratch = Vec::new();
        let name = canonical_host(self.request.authority.as_bytes(), &mut scratch)?;
        let certificate = self.reading.snapshot.certificate_for(self.table, Some(name))?;
        (self.request.scheme == Scheme::Https).then(|| certificate.name.to_string())
    }

    fn host(&self, host: &Host) -> ChosenHost {
        let kind = match host.pattern() {
            HostPattern::Exact(_) => "exactly",
            HostPattern::Subdomains(_) => "any number of labels in front; no host is exactly that",
            HostPattern::AnySuffix(_) => "anything behind; no host is exactly that",
            HostPattern::Label(_) => "one label in front; no host is exactly that",
            HostPattern::Regex(_) => "a regular expression; no host is exactly that",
            HostPattern::Any => "every name that no other host takes",
        };
        let asks = host.client_auth().map(|auth| asks(auth)).unwrap_or_default();
        ChosenHost { pattern: host.pattern().as_written(), why: format!("{kind}{asks}") }
    }

    fn name(&self, route: &Route) -> RouteName {
        let (file, line) = place(self.reading.manifests.place_of(&route.origin, &field(&route.origin)));
        RouteName { path: route.path.to_string(), object: route.origin.to_string(), file, line }
    }

    fn route(&self, route: &Route) -> ChosenRoute {
        let beaten = &self.rehearsed.beaten;
        let why = match &route.path {
            _ if beaten.is_empty() => "no other route of the host takes the request",
            // Two kinds of object may meet on a host.
            path if beaten.iter().any(|other| other.path == *path && other.origin.kind != route.origin.kind) => {
                "it is the most specific, and of equal ones the older object's"
            }
            PathMatch::Exact(_) => "an exact path comes before all others",
            PathMatch::Regex(_) if &*route.origin.kind == "Ingress" => {
                "it is the first pattern that matches; longer ones are tried first"
            }
            PathMatch::Regex(_) => {
                "it is the first pattern that matches; those of older routes are tried first, those of one route in its order"
            }
            PathMatch::Prefix(_) | PathMatch::Start(_) => "it is the longest prefix",
        };
        let beaten = beaten.iter().take(LISTED).map(|other| self.name(other)).collect();
        ChosenRoute { name: self.name(route), why: why.to_owned(), beaten, policies: self.policies(route) }
    }

    /// The RoutePolicies that decide about something of a route on this host, and the XTelemetryPolicy that traces it.
    fn policies(&self, route: &Route) -> Vec<DecidingPolicy> {
        let host = self.rehearsed.plan.as_ref().and_then(|plan| plan.host).map(|host| host.pattern());
        let mut found = Vec::new();
        for one in self.basis.lookup.policies(&route.origin) {
            if one.table == *self.table && Some(&one.pattern) == host {
                let (file, line) = place(self.reading.manifests.place_of(&one.policy.origin(), ""));
                let (object, members) = (one.policy.to_string(), one.members.clone());
                let policy = DecidingPolicy { object, file, line, members };
                if !found.contains(&policy) {
                    found.push(policy);
                }
            }
        }
        let traced_by = route.tracing.as_ref().and_then(|rule| rule.telemetry.as_ref());
        if let Some(telemetry) = traced_by.and_then(|name| self.reading.snapshot.telemetry(name)) {
            let (file, line) = place(self.reading.manifests.place_of(&telemetry.origin, ""));
            found.push(DecidingPolicy { object: telemetry.origin.to_string(), file, line, members: vec!["tracing"] });
        }
        found
    }

    fn filters(&self, plan: &Plan<'_>) -> Vec<FilterStep> {
        let filters = plan.route.map(|route| &route.filters[..]).unwrap_or_default();
        let steps = filters.iter().enumerate().map(|(at, filter)| {
            let effect = match at.cmp(&plan.passed) {
                std::cmp::Ordering::Less => FilterEffect::Passed,
                std::cmp::Ordering::Equal => FilterEffect::Answered,
                std::cmp::Ordering::Greater => FilterEffect::NotReached,
            };
            let (name, mut text) = self.filter(filter);
            if matches!(filter, Filter::ExternalAuth(_)) && at < plan.passed && plan.allowed_by().is_none() {
                text = format!("not asked, because the address is admitted: {text}");
            }
            FilterStep { filter: name, effect, text }
        });
        steps.collect()
    }

    /// The name of a filter, and its purpose.
    fn filter(&self, filter: &Filter) -> (&'static str, String) {
        match filter {
            Filter::ErrorPages(pages) => ("error_pages", error_pages(pages)),
            Filter::StrictTransportSecurity => {
                let value = self.reading.snapshot.settings().strict_transport_security.as_deref();
                let value = value.map_or("off".to_owned(), |value| format!("Strict-Transport-Security: {value}"));
                ("strict_transport_security", format!("HSTS, over TLS only: {value}"))
            }
            Filter::Block(block) => {
                let (agents, referers) = (block.user_agents.len(), block.referers.len());
                ("block", format!("answer 403 to {agents} kinds of User-Agent and {referers} of Referer"))
            }
            Filter::Cors(cors) => ("cors", format!("answer preflights and edit response fields for {}", origins(cors))),
            Filter::HttpsRedirect(redirect) => {
                let port = redirect.port.map(|port| format!(" on port {port}")).unwrap_or_default();
                ("https_redirect", format!("redirect plain HTTP to https{port} with {}", redirect.status))
            }
            Filter::RequireEndpoints => {
                ("require_endpoints", "answer 503 without endpoints, before access is checked".to_owned())
            }
            Filter::NotFoundWithoutEndpoints => {
                ("not_found_without_endpoints", "answer 404 without endpoints".to_owned())
            }
            Filter::Refuse(refusal) => ("refuse", format!("answer 503: {}", refusal.reason)),
            Filter::ClientLimits(limits) => ("client_limits", client_limits(limits)),
            Filter::AccessList(list) => ("access_list", format!("admit clients {}, answer 403 to others", rule(list))),
            Filter::AccessListOrAuth(list) => {
                ("access_list_or_auth", format!("admit clients {} without authentication", rule(list)))
            }
            Filter::AccessRules(rules) => {
                let others = if rules.or_auth { "authentication for others" } else { "answer 403 to others" };
                ("access_rules", format!("admit clients by {} rules in order, {others}", rules.rules.len()))
            }
            Filter::Snippet(snippet) => {
                let (steps, edits) = (snippet.steps.len(), &snippet.edits);
                let edits = edits.request.len() + edits.response.len();
                ("snippet", format!("run {steps} steps of a snippet, with {edits} edits of fields"))
            }
            Filter::BasicAuth(auth) => (
                "basic_auth",
                format!(
                    "demand the name and {} of one of {} users, answer 401 to others",
                    if auth.digest { "a digest of the password" } else { "password" },
                    auth.users.len()
                ),
            ),
            Filter::ExternalAuth(auth) => ("external_auth", self.authentication(auth)),
            Filter::Rewrite(rewrite) => {
                let prefix = rewrite.forwarded_prefix.as_ref();
                let prefix = prefix.map(|prefix| format!(", set X-Forwarded-Prefix to {}", prefix.text()));
                ("rewrite", format!("rewrite the path to {}{}", rewrite.target.text(), prefix.unwrap_or_default()))
            }
            Filter::ReplacePath { with: PathReplacement::Full(path) } => {
                ("replace_path", format!("replace the path with {path}"))
            }
            Filter::ReplacePath { with: PathReplacement::Prefix(text) } => {
                ("replace_path", format!("replace the matched prefix of the path with {text:?}"))
            }
            Filter::Mirror(mirror) => {
                let body = if mirror.body { "" } else { " without its body" };
                let part =
                    mirror.fraction.map(|part| format!(" of {} in {} requests", part.numerator, part.denominator));
                let part = part.unwrap_or_default();
                ("mirror", format!("send a copy{body}{part} to {}, whose answer is dropped", mirror.forward.backends))
            }
            Filter::RewriteResponse(rewrites) => ("rewrite_response", response_rewrites(rewrites)),
            Filter::EditRequest(edits) => ("edit_request", format!("edit request fields: {}", names(edits))),
            Filter::EditResponse(edits) => ("edit_response", format!("edit response fields: {}", names(edits))),
        }
    }

    /// Whom a route asks about a request, and what follows from the answer.
    fn authentication(&self, auth: &ExternalAuth) -> String {
        let backend = auth.forward.backends.to_string();
        // The name of one outside the cluster begins with two slashes.
        let backend = backend.trim_start_matches('/');
        let names = |names: &[ConfiguredName]| names.iter().map(ConfiguredName::as_str).collect::<Vec<_>>().join(", ");
        let copied = match (auth.copies_all(), auth.copied()) {
            (true, _) => ", and copy all fields of the answer".to_owned(),
            (false, []) => String::new(),
            (false, copied) => format!(", and copy {}", names(copied)),
        };
        let (question, denied, allows) = match &auth.protocol {
            AuthProtocol::Subrequest(asks) => {
                let denied = match &asks.sign_in {
                    Some(sign_in) => format!("401 redirects to {sign_in}"),
                    None => "401".to_owned(),
                };
                let question = format!("{} {}", asks.method.as_deref().unwrap_or("GET"), asks.target);
                (question, format!("{denied}, 403 denies"), "2xx")
            }
            AuthProtocol::Http(asks) => (
                format!("the client's method and {}PATH", asks.path),
                "a redirect or 4xx is what the client gets".to_owned(),
                "200",
            ),
            AuthProtocol::Grpc(asks) => {
                let fields = match &asks.allowed {
                    None => "all fields".to_owned(),
                    Some(allowed) => format!("the fields {}", names(allowed)),
                };
                let denied = "a denial is answered as it says".to_owned();
                (format!("a call of ext_authz about the request with {fields}"), denied, "OK")
            }
        };
        let body = match auth.body() {
            Some(most) => format!(" and a body of up to {most} bytes"),
            None => String::new(),
        };
        format!(
            "ask {backend} with {question}{body}{copied}; {denied}, anything but {allows} answers 500. Explained as if it allowed the request",
        )
    }

    fn forward(&self, plan: &Plan<'_>) -> Option<Forwarded> {
        let (rule, backend, in_place_of) = match (plan.step, plan.route.map(|route| &route.action)) {
            (Step::Forward(forwarding), _) => (forwarding.rule, forwarding.backend, forwarding.in_place_of),
            (_, Some(Action::Forward(rule))) => (rule, rule.backends.names().next()?, None),
            _ => return None,
        };
        let resource = self.backend(backend);
        let (file, line) = place(resource.and_then(|backend| self.reading.manifests.place(&backend.origin)));
        let tls = match plan.step {
            Step::Forward(forwarding) => forwarding.tls_as_written(),
            _ => None,
        };
        let request = match &self.rehearsed.outcome {
            Outcome::Forward { request, .. } => sent(request),
            Outcome::Answer { .. } => None,
        };
        Some(Forwarded {
            backend: backend.to_string(),
            in_place_of: in_place_of.map(ToString::to_string),
            service: resource.map(|backend| backend.origin.to_string()).unwrap_or_default(),
            port: resource.map(|backend| backend.port.to_string()).unwrap_or_default(),
            file,
            line,
            choice: resource.map(|backend| self.choice(backend, rule)).unwrap_or_default(),
            tls: tls.map(|tls| backend_tls::of(tls)),
            endpoints: self.endpoints(backend),
            limits: limits(rule),
            request: request.map(|request| self.without_chance(request)),
        })
    }

    /// Leaves out the field for the echo, and replaces what is random: the request id, and the fields of a trace.
    fn without_chance(&self, mut sent: Sent) -> Sent {
        sent.fields.retain(|field| field.name != ECHO_SERVICE_FIELD);
        let own = |field: &&(String, String)| field.0.eq_ignore_ascii_case("x-request-id");
        if !self.request.fields.iter().any(|field| own(&field)) {
            let ids = sent.fields.iter_mut().filter(|field| field.name.eq_ignore_ascii_case("x-request-id"));
            ids.for_each(|field| "(random)".clone_into(&mut field.value));
        }
        let traces = sent.fields.iter_mut().filter(|field| is_of_trace(&field.name));
        traces.for_each(|field| "(random)".clone_into(&mut field.value));
        sent
    }

    pub(super) fn endpoints(&self, backend: &BackendName) -> Vec<Endpoint> {
        match self.reading.snapshot.endpoint_set(backend).map(|set| &set.endpoints) {
            Some(Endpoints::Addresses(list)) => list
                .iter()
                .take(LISTED)
                .map(|endpoint| match endpoint.state {
                    _ if self.is_echo(endpoint.address) => Endpoint { address: String::new(), state: "not_in_files" },
                    EndpointState::Ready => Endpoint { address: endpoint.address.to_string(), state: "ready" },
                    EndpointState::Draining => Endpoint { address: endpoint.address.to_string(), state: "terminating" },
                })
                .collect(),
            Some(Endpoints::Name { host, port }) => {
                vec![Endpoint { address: format!("{host}:{port}"), state: "name" }]
            }
            None => Vec::new(),
        }
    }

    fn is_echo(&self, address: SocketAddr) -> bool {
        self.reading.development().is_some_and(|development| development.echo == Some(address))
    }

    /// How the endpoint is chosen.
    fn choice(&self, backend: &Backend, forward: &Forward) -> String {
        let adopted = match &forward.backends {
            Backends::Canary(canary) if canary.sticky && canary.alternative == backend.name => {
                self.backend(&canary.main)
            }
            _ => None,
        };
        if let Some(session) = &forward.policy.session {
            let (what, field) = match &session.carrier {
                SessionCarrier::Cookie { cookie, .. } => (format!("cookie {}", cookie.name), "cookie"),
                SessionCarrier::Header(name) => (format!("header {}", name.as_str()), name.as_str()),
            };
            let mut values = self.request.fields.iter().filter(|(name, _)| name.eq_ignore_ascii_case(field));
            let is_sent = values.any(|(_, value)| match &session.carrier {
                SessionCarrier::Cookie { cookie, .. } => {
                    cookie::all_in(value.as_bytes(), cookie.name.as_bytes()).next().is_some()
                }
                SessionCarrier::Header(_) => true,
            });
            let sent = if is_sent { "has it" } else { "does not have it, and the response sets it" };
            return format!("by the session {what}: the request {sent}");
        }
        if let Some(affinity) = backend.affinity.as_ref().or_else(|| adopted?.affinity.as_ref()) {
            let name = &*affinity.cookie.name;
            let cookies = self.request.fields.iter().filter(|(field, _)| field.eq_ignore_ascii_case("cookie"));
            let sent =
                cookies.flat_map(|(_, value)| cookie::all_in(value.as_bytes(), name.as_bytes())).next().is_some();
            let sent = match (sent, &forward.session_cookie_path) {
                (true, _) => "the request has it",
                (false, Some(_)) => "the request does not have it, and the response sets it",
                (false, None) => "the request does not have it, and the route does not set it",
            };
            return format!("by the session cookie {name}: {sent}");
        }
        match &backend.balance {
            Balance::RoundRobin => "round robin".to_owned(),
            Balance::Ewma => "the faster of two at random (EWMA)".to_owned(),
            Balance::LeastRequest => "the one with fewer requests in progress, of two at random".to_owned(),
            Balance::Hash(hash) => format!("by a consistent hash of {}", hash.key),
        }
    }

    /// Findings about the object that decides, and about what could not be read: the request may have been meant for that.
    fn findings(&self, origin: Option<&Origin>) -> Vec<String> {
        let about = self.basis.lookup.findings(origin);
        about.take(LISTED).map(|found| format!("{}: {found}", found.severity.as_str())).collect()
    }

    /// Routes that name the host at another listener than the one that it belongs to.
    fn elsewhere(&self) -> Vec<NotLoaded> {
        let mut scratch = Vec::new();
        let name = canonical_host(self.request.authority.as_bytes(), &mut scratch);
        let Some(name) = name.and_then(|name| text(name).parse::<Hostname>().ok()) else { return Vec::new() };
        let found = self.reading.claims.passed_over(self.table, &name);
        let told = found.into_iter().take(LISTED).map(|PassedOver { route, listener, is_open, owner }| {
            let (file, line) = place(self.reading.manifests.place(&route));
            let why = match (owner, is_open) {
                (Some((owner, host)), true) => {
                    format!("at {listener}; the host belongs to {owner}, whose host name {host} is more specific")
                }
                (Some((owner, host)), false) => {
                    format!("at {listener}, which is closed; the host belongs to {owner}, with the host name {host}")
                }
                (None, _) => format!("at {listener}, which is closed"),
            };
            NotLoaded { object: route.to_string(), file, line, why }
        });
        told.collect()
    }

    fn left_out(&self) -> Vec<NotLoaded> {
        let mut scratch = Vec::new();
        let Some(host) = canonical_host(self.request.authority.as_bytes(), &mut scratch) else { return Vec::new() };
        let host = text(host);
        let named = self.reading.left_out.iter().filter(|left| left.names(&host));
        named
            .map(|left| {
                let origin = left.ingress.origin();
                let (file, line) = place(self.reading.manifests.place(&origin));
                NotLoaded { object: origin.to_string(), file, line, why: left.standing.to_string() }
            })
            .collect()
    }
}

/// The edits of response fields; if the proxy itself responds, all fields but those of the connection.
fn response_fields(outcome: &Outcome) -> Vec<ResponseField> {
    const OF_CONNECTION: [&str; 4] = ["date", "connection", "content-length", "transfer-encoding"];
    let field = |name: &str, change, value| ResponseField { name: name.to_owned(), change, value };
    match outcome {
        Outcome::Answer { response, .. } => fields(response)
            .filter(|(name, _)| !OF_CONNECTION.contains(&&*name.to_ascii_lowercase()))
            .map(|(name, value)| field(&name, "set", Some(value)))
            .collect(),
        Outcome::Forward { response, .. } => response
            .iter()
            .map(|change| match &change.effect {
                Effect::Set(value) => field(&change.name, "set", Some(value.clone())),
                Effect::Add(value) => field(&change.name, "add", Some(value.clone())),
                Effect::Remove => field(&change.name, "remove", None),
            })
            .collect(),
    }
}

fn limits(forward: &Forward) -> Limits {
    let policy = &forward.policy;
    Limits {
        connect_timeout: policy.connect_timeout.as_secs_f64(),
        send_timeout: policy.send_timeout.as_secs_f64(),
        read_timeout: policy.read_timeout.as_secs_f64(),
        tries: policy.retry.tries,
        max_body: (policy.max_body != fairway_model::ByteLimit::NONE).then(|| policy.max_body.bytes()),
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

/// Which errors are replaced, and by whom.
fn error_pages(pages: &ErrorPages) -> String {
    let statuses: Vec<_> = pages.statuses.iter().map(ToString::to_string).collect();
    let whose = if pages.only_own { "of Fairway's own" } else { "of the backend and of Fairway" };
    let ErrorPages { forward, .. } = pages;
    let other = forward.fallback.as_ref().map(|other| format!(", or {other} if it has no endpoint"));
    let (statuses, other) = (statuses.join(", "), other.unwrap_or_default());
    format!("replace errors {whose} by the response of {}{other}: {statuses}", forward.backends)
}

fn names(edits: &[fairway_model::FieldEdit]) -> String {
    edits.iter().map(|edit| edit.name().as_str()).collect::<Vec<_>>().join(", ")
}

/// The origins that are admitted.
fn origins(cors: &Cors) -> String {
    match &cors.origins {
        Origins::Any => "every origin".to_owned(),
        Origins::Listed(list) => {
            let list: Vec<_> = list.iter().map(fairway_model::OriginPattern::text).collect();
            format!("the origins {}", list.join(", "))
        }
    }
}

/// What a route rewrites in responses.
fn response_rewrites(rewrites: &ResponseRewrites) -> String {
    let parts = [
        ("redirects to", &rewrites.redirect),
        ("the Domain of cookies", &rewrites.cookie_domain),
        ("the Path of cookies", &rewrites.cookie_path),
    ];
    let part = |(what, own): (&str, &Option<fairway_model::Replacement>)| {
        own.as_ref().map(|own| format!("{what} {} to {}", own.from, own.to))
    };
    format!("rewrite {}", parts.into_iter().filter_map(part).collect::<Vec<_>>().join(", "))
}

/// What each client may do.
fn client_limits(limits: &ClientLimits) -> String {
    let rate = |rate: Option<fairway_model::RequestRate>, period: &str| {
        rate.map(|rate| format!("{} requests per {period} and {} at once", rate.requests, u64::from(rate.burst) + 1))
    };
    let rates = [rate(limits.per_second, "second"), rate(limits.per_minute, "minute")];
    let parts = rates.into_iter().flatten().map(|text| format!("{text} (else {})", limits.over_rate.status));
    let open = limits.in_progress.map(|most| format!("{most} in progress (else {})", limits.over_requests.status));
    let exempt = if limits.exempt.is_empty() { "" } else { ", except for exempt networks" };
    format!("allow each client {}{exempt}", parts.chain(open).collect::<Vec<_>>().join(", "))
}

/// The addresses that an access list allows.
fn rule(list: &fairway_model::AccessList) -> String {
    let networks =
        |set: &fairway_model::NetworkSet| set.networks().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let denied = (!list.deny.is_empty()).then(|| format!("not from {}", networks(&list.deny)));
    let allowed = list.allow.as_ref().map(|allow| format!("only from {}", networks(allow)));
    denied.into_iter().chain(allowed).collect::<Vec<_>>().join(" and ")
}

/// Object and namespace of an origin, without its section.
pub(super) fn owner(origin: &Origin) -> String {
    Origin::new(&*origin.kind, &*origin.namespace, &*origin.name).to_string()
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

pub(super) fn place(place: Option<Place>) -> (Option<String>, Option<u32>) {
    match place {
        Some(place) => (Some(place.file.to_string_lossy().into_owned()), place.line),
        None => (None, None),
    }
}

/// The head of a request, parsed back.
fn sent(head: &[u8]) -> Option<Sent> {
    let text = text(head);
    let mut words = text.split("\r\n").next()?.splitn(3, ' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    Some(Sent { method, target, fields: fields(head).map(|(name, value)| Field { name, value }).collect() })
}

/// The fields of a message.
fn fields(message: &[u8]) -> impl Iterator<Item = (String, String)> {
    let head = text(message);
    let head = head.split("\r\n\r\n").next().unwrap_or_default().to_owned();
    let lines: Vec<_> = head.split("\r\n").skip(1).map(str::to_owned).collect();
    lines.into_iter().filter_map(|line| line.split_once(": ").map(|(name, value)| (name.to_owned(), value.to_owned())))
}

fn location(response: &[u8]) -> Option<String> {
    fields(response).find(|(name, _)| name == "Location").map(|(_, value)| value)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Whether a field carries the context of a trace, which is new for each request.
pub(super) fn is_of_trace(name: &str) -> bool {
    ["traceparent", "b3"].iter().any(|own| own.eq_ignore_ascii_case(name))
        || name.to_ascii_lowercase().starts_with("x-b3-")
}

/// Which client certificates a host asks for.
fn asks(auth: &ClientAuth) -> String {
    let mode = match auth.mode {
        ClientAuthMode::Required => "requires a client certificate of",
        ClientAuthMode::Optional => "asks for a client certificate of",
        ClientAuthMode::Unverified => "asks for a client certificate, accepts any, and knows",
        ClientAuthMode::AnyAuthority => "asks for a client certificate of any authority, and knows",
    };
    let lists = match auth.revocation_lists.len() {
        0 => String::new(),
        count => format!(", {count} revocation lists"),
    };
    let subject = auth.subject.as_ref().map(|pattern| format!(", subject with {}", pattern.text()));
    let (count, depth) = (auth.authorities.len(), auth.depth);
    let depth = if depth == u32::MAX { String::new() } else { format!(", depth {depth}") };
    format!("; over TLS it {mode} {count} authorities{lists}{depth}{}", subject.unwrap_or_default())
}
