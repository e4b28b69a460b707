//! What is to happen to a request, decided from its head without I/O: canonical form, client, host, route, filters, action.
//!
//! One canonical path is matched and authorised, and what is forwarded means the same. Nothing here knows how the request
//! came in, so that every version of HTTP goes through the same steps in the same order.

use fairway_model::{
    Action, CaptureTemplate, Filter, Forward, Host, HttpsRedirect, Location, PathMatch, Redirect, Rewrite, Route,
    Scheme, TableName, TooLong, canonical_host, path,
};

use crate::client::Arrival;
use crate::error::Failure;
use crate::http1::{RequestHead, Target};
use crate::live::Live;
use crate::work::Scratch;
use crate::worker::Worker;

/// What is to happen to a request.
#[derive(Debug)]
pub(crate) struct Plan<'l> {
    /// The host that was chosen.
    pub(crate) host: Option<&'l Host>,
    /// The route that was chosen.
    pub(crate) route: Option<&'l Route>,
    /// Whether the answer carries Strict-Transport-Security.
    pub(crate) strict_transport_security: bool,
    /// What answers it.
    pub(crate) step: Step<'l>,
}

/// What answers a request.
#[derive(Debug)]
pub(crate) enum Step<'l> {
    /// A backend; it gets [`Scratch::target`].
    Forward(&'l Forward),
    /// A redirect to [`Scratch::value`].
    Redirect(u16),
    /// The proxy itself: status, and whether there is a page.
    Respond(u16, bool),
    /// The proxy itself, because something is wrong.
    Fail(Failure),
}

/// A request as it came, and what is known about its connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Received<'a> {
    /// The parsed head.
    pub(crate) head: &'a RequestHead,
    /// What it was parsed from.
    pub(crate) bytes: &'a [u8],
    /// Where it came from and where it came in.
    pub(crate) arrival: &'a Arrival,
    /// The hosts that are served there.
    pub(crate) table: &'a TableName,
}

/// Decides what is to happen.
pub(crate) fn decide<'l>(worker: &Worker, live: &'l Live, request: Received<'_>, scratch: &mut Scratch) -> Plan<'l> {
    let settings = live.snapshot.settings();
    let Received { head, bytes, arrival, table } = request;
    scratch.client.decide(arrival, head, bytes, settings, &mut worker.rng.borrow_mut());
    scratch.matched.clear();
    scratch.target.clear();
    scratch.prefix.clear();
    let mut plan = Plan { host: None, route: None, strict_transport_security: false, step: Step::Respond(404, true) };
    if head.target() == Target::Asterisk {
        // RFC 9110 9.3.7: about the server as a whole. It serves nothing by itself.
        plan.step = Step::Respond(204, false);
        return plan;
    }
    let raw = match head.path().of(bytes) {
        [] => b"/",
        raw => raw,
    };
    let Ok(path) = path::canonicalize(raw, &mut scratch.path) else {
        plan.step = Step::Fail(Failure::RequestPath);
        return plan;
    };
    scratch.matched.extend_from_slice(path.matched);
    scratch.target.extend_from_slice(path.forwarded);
    let host = match head.authority() {
        None => Some(&b""[..]),
        Some(authority) if authority.canonical => Some(authority.host.of(bytes)),
        Some(authority) => canonical_host(authority.span.of(bytes), &mut scratch.host),
    };
    let Some(host) = host else {
        plan.step = Step::Fail(Failure::RequestHead(crate::http1::HeadError::InvalidHost));
        return plan;
    };
    let Some(host) = live.snapshot.host(table, host) else {
        return plan;
    };
    plan.host = Some(host);
    let route = match host.unambiguous_route(&scratch.matched) {
        Ok(Some(route)) => route,
        Ok(None) => return plan,
        Err(_) => {
            plan.step = Step::Fail(Failure::RequestPath);
            return plan;
        }
    };
    plan.route = Some(route);
    for filter in &route.filters {
        if let Some(step) = apply(filter, worker, live, route, request, scratch, &mut plan) {
            plan.step = step;
            return plan;
        }
    }
    plan.step = match &route.action {
        Action::Forward(forward) => {
            push_query(&request, &mut scratch.target);
            Step::Forward(forward)
        }
        Action::Redirect(redirect) => locate(redirect, route, live.prepared.request.total, &request, scratch),
        Action::Respond(respond) => Step::Respond(respond.status, respond.page),
    };
    plan
}

/// One filter; a step ends the request.
fn apply<'l>(
    filter: &Filter,
    worker: &Worker,
    live: &'l Live,
    route: &'l Route,
    request: Received<'_>,
    scratch: &mut Scratch,
    plan: &mut Plan<'l>,
) -> Option<Step<'l>> {
    match filter {
        Filter::StrictTransportSecurity => {
            plan.strict_transport_security = request.arrival.scheme == Scheme::Https;
            None
        }
        Filter::HttpsRedirect(redirect) => scratch.client.is_plain().then(|| to_https(redirect, &request, scratch)),
        Filter::RequireEndpoints | Filter::NotFoundWithoutEndpoints => match &route.action {
            Action::Forward(forward) => {
                let service = worker.upstreams.choose(live, forward, &worker.rng);
                let failure = if service.is_some() { Failure::NoEndpoint } else { Failure::NoService };
                let open = service.is_some_and(|service| service.is_open());
                (!open).then_some(match filter {
                    Filter::NotFoundWithoutEndpoints => Step::Respond(404, true),
                    _ => Step::Fail(failure),
                })
            }
            Action::Redirect(_) | Action::Respond(_) => None,
        },
        Filter::Refuse(_) => Some(Step::Respond(503, true)),
        Filter::AccessList(list) => (!list.admits(scratch.client.address())).then_some(Step::Respond(403, true)),
        Filter::Rewrite(rewrite) => {
            rewrite_path(rewrite, route, live.prepared.request.total, scratch).err().map(Step::Fail)
        }
    }
}

fn push_query(request: &Received<'_>, target: &mut Vec<u8>) {
    if let Some(query) = request.head.query() {
        target.push(b'?');
        target.extend_from_slice(query.of(request.bytes));
    }
}

/// Replaces the path. What comes out has to be canonical too: otherwise the backend could read a path that nobody matched.
fn rewrite_path(rewrite: &Rewrite, route: &Route, limit: usize, scratch: &mut Scratch) -> Result<(), Failure> {
    let Scratch { path, matched, target, prefix, value: rewritten, .. } = scratch;
    rewritten.clear();
    rewritten.push(b'/');
    if !expand(&rewrite.target, route, matched, limit, rewritten)? {
        return Ok(());
    }
    if let Some(template) = &rewrite.forwarded_prefix {
        expand(template, route, matched, limit, prefix)?;
    }
    if rewritten.get(1) == Some(&b'/') {
        rewritten.remove(0);
    }
    target.clear();
    path::encode(rewritten, target);
    if target.len() > limit {
        return Err(Failure::TooLong);
    }
    match path::canonicalize(target, path) {
        Ok(path) if path.forwarded == *target => {
            std::mem::swap(matched, rewritten);
            Ok(())
        }
        _ => Err(Failure::RequestPath),
    }
}

/// Appends what a template makes of a path, by the groups of the route's pattern if it has one. `false` when that doesn't match.
fn expand(
    template: &CaptureTemplate,
    route: &Route,
    path: &[u8],
    limit: usize,
    out: &mut Vec<u8>,
) -> Result<bool, TooLong> {
    match &route.path {
        PathMatch::Regex(regex) => regex.rewrite(path, template, limit, out),
        PathMatch::Exact(_) | PathMatch::Prefix(_) => template.expand(|_| &[], limit, out).map(|()| true),
    }
}

/// `https://` + host without port + the target as it came, without one slash at the end.
fn to_https<'l>(redirect: &HttpsRedirect, request: &Received<'_>, scratch: &mut Scratch) -> Step<'l> {
    let location = &mut scratch.value;
    location.clear();
    location.extend_from_slice(b"https://");
    location.extend_from_slice(without_port(scratch.client.host()));
    push_target(request, redirect.preserve_trailing_slash, location);
    Step::Redirect(redirect.status)
}

fn locate<'l>(
    redirect: &Redirect,
    route: &Route,
    limit: usize,
    request: &Received<'_>,
    scratch: &mut Scratch,
) -> Step<'l> {
    let location = &mut scratch.value;
    let client = &scratch.client;
    location.clear();
    let origin = |location: &mut Vec<u8>, scheme: Scheme| {
        for part in [scheme.as_str().as_bytes(), b"://", client.host()] {
            location.extend_from_slice(part);
        }
    };
    match &redirect.location {
        Location::Fixed(text) => {
            if text.starts_with('/') {
                origin(location, client.scheme());
            }
            location.extend_from_slice(text.as_bytes());
        }
        Location::Captures(template) => {
            let Scratch { target, matched, .. } = scratch;
            target.clear();
            if expand(template, route, matched, limit, target).is_err() {
                return Step::Fail(Failure::TooLong);
            }
            // Groups are parts of the canonical path: what a URI may not hold is encoded, so that no value can end the field.
            path::encode(target, location);
            push_query(request, location);
        }
        Location::AppRoot(path) => {
            origin(location, request.arrival.scheme);
            location.extend_from_slice(path.as_bytes());
        }
        Location::AppendSlash => {
            origin(location, client.scheme());
            location.extend_from_slice(&scratch.target);
            location.push(b'/');
            push_query(request, location);
        }
        Location::OtherHost(name) => {
            for part in [client.scheme().as_str(), "://", name.as_str(), ":"] {
                location.extend_from_slice(part.as_bytes());
            }
            crate::decimal::number(client.forwarded_port().into(), location);
            push_target(request, false, location);
        }
    }
    Step::Redirect(redirect.status)
}

/// The target as the client sent it, reduced to path and query, without one slash at the end unless that is to stay.
fn push_target(request: &Received<'_>, keep_slash: bool, out: &mut Vec<u8>) {
    out.extend_from_slice(request.head.path().of(request.bytes));
    push_query(request, out);
    if !keep_slash && out.last() == Some(&b'/') {
        out.pop();
    }
}

fn without_port(host: &[u8]) -> &[u8] {
    let from = memchr::memrchr(b']', host).unwrap_or(0);
    match memchr::memrchr(b':', &host[from..]) {
        Some(colon) => &host[..from + colon],
        None => host,
    }
}
