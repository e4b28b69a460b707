//! Builds an account: asks the proxy's own code what it would do, and names the objects behind that.

use std::collections::HashSet;
use std::net::SocketAddr;

use fairway_model::client::Arrival;
use fairway_model::decision::{Plan, Step};
use fairway_model::{
    Action, Backend, BackendName, Backends, Balance, EndpointState, Endpoints, Filter, Forward, Host, HostPattern,
    Hostname, Listener, Origin, PathMatch, Route, Scheme, SessionCarrier, TableName, WeightedBackend, canonical_host,
};
use fairway_proxy::balance::cookie;
use fairway_proxy::rehearsal::{Effect, Outcome, Rehearsal, Rehearsed};
use fairway_proxy::resolve::AddressPolicy;
use fairway_translate::gateway::PassedOver;
use fairway_translate::objects::{Kind, Object, ObjectKey};
use fairway_translate::options::ECHO_SERVICE_FIELD;

use super::account::{
    Account, Answer, By, ChosenHost, ChosenRoute, Client, DecidingPolicy, Endpoint, Field, FilterEffect, FilterStep,
    Forwarded, Limits, NotLoaded, ResponseField, RouteName, Sent, Share,
};
use super::lookup::Lookup;
use super::words::asks;
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
    pub(super) lookup: Lookup<'r>,
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
    pub(super) basis: &'a Basis<'a>,
    pub(super) rehearsed: &'a Rehearsed<'a>,
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
    pub(super) fn backend(&self, name: &BackendName) -> Option<&Backend> {
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
            shares: self.shares(&rule.backends),
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

    /// The shares of a rule that divides its requests by weights.
    fn shares(&self, backends: &Backends) -> Vec<Share> {
        let (list, invalid) = match backends {
            Backends::One(_) | Backends::Canary(_) => return Vec::new(),
            Backends::Weighted(list) => (list, None),
            Backends::Partial { valid, invalid } => (valid, Some(Share { backend: None, weight: *invalid })),
        };
        let share = |it: &WeightedBackend| Share {
            backend: self.backend(&it.backend).map(|backend| backend.name.to_string()),
            weight: it.weight,
        };
        let shares: Vec<_> = list.iter().map(share).chain(invalid).collect();
        if shares.len() > 1 { shares } else { Vec::new() }
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
        response_within: policy.response_within.map(|time| time.as_secs_f64()),
        tries: policy.retry.tries,
        retried_statuses: policy.retry.on.statuses.clone(),
        max_body: (policy.max_body != fairway_model::ByteLimit::NONE).then(|| policy.max_body.bytes()),
    }
}

/// Object and namespace of an origin, without its section.
pub(super) fn owner(origin: &Origin) -> String {
    Origin::new(&*origin.kind, &*origin.namespace, &*origin.name).to_string()
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

pub(super) fn location(response: &[u8]) -> Option<String> {
    fields(response).find(|(name, _)| name == "Location").map(|(_, value)| value)
}

pub(super) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Whether a field carries the context of a trace, which is new for each request.
pub(super) fn is_of_trace(name: &str) -> bool {
    ["traceparent", "b3"].iter().any(|own| own.eq_ignore_ascii_case(name))
        || name.to_ascii_lowercase().starts_with("x-b3-")
}
