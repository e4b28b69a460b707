//! The human-readable routing table: one line per route, with a clickable URL.

use std::fmt::Write as _;
use std::net::SocketAddr;

use fairway_model::{
    Action, Endpoints, Filter, Host, HostPattern, Location, Origin, PathMatch, PathReplacement, Route, Scheme,
    Snapshot, UrlParts,
};
use fairway_translate::options::Development;

use crate::manifest::Manifests;
use crate::terminal::{Style, Terminal, count, printable};

/// The table that holds the hosts of Ingresses.
const INGRESSES: &str = "ingress";
/// Lines that fit a few screens; longer lists aren't read line by line.
const LINES: usize = 60;

/// The addresses that the proxy actually listens on.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Doors {
    pub(crate) http: Option<SocketAddr>,
    pub(crate) https: Option<SocketAddr>,
}

/// All routes that users configured, each with its object and file.
pub(crate) fn routing_table(
    snapshot: &Snapshot,
    doors: &Doors,
    development: Option<&Development>,
    manifests: &Manifests,
    terminal: Terminal,
) -> String {
    let mut rows = Vec::new();
    let mut shown = Vec::new();
    let mut total = 0;
    for host in snapshot.hosts() {
        // If a port serves both, the routes of Ingresses are also in their own table.
        let again = |route: &&Route| host.table().as_str() != INGRESSES && &*route.origin.kind == "Ingress";
        let routes = host.tiers().flat_map(Host::reachable_routes).filter(|route| !is_implied(route) && !again(route));
        for route in routes {
            total += 1;
            if rows.len() < LINES {
                rows.push(Row {
                    url: url(host, route, doors, snapshot),
                    is_link: is_address(host, route),
                    kind: path_kind(&route.path),
                    target: target(route, snapshot, development),
                    origin: format!("{}/{}", route.origin.namespace, route.origin.name),
                });
                shown.push((&route.origin, field(&route.origin)));
            }
        }
    }
    let fields: Vec<_> = shown.iter().map(|(origin, field)| (*origin, field.as_str())).collect();
    let places = manifests.places(&fields);
    let width = |cell: fn(&Row) -> &str| rows.iter().map(|row| cell(row).chars().count()).max().unwrap_or(0).min(60);
    let (urls, targets) = (width(|row| &row.url), width(|row| &row.target));
    let mut out = String::new();
    for (row, place) in rows.iter().zip(places) {
        let gap = |text: &str, width: usize| " ".repeat(width.saturating_sub(text.chars().count()));
        let place = place.map(|place| format!(" {place}")).unwrap_or_default();
        let _ = writeln!(
            out,
            "  {}{}  {} {}{}  {}",
            if row.is_link { terminal.link(&row.url) } else { printable(&row.url) },
            gap(&row.url, urls),
            terminal.style(Style::Dim, "→"),
            printable(&row.target),
            gap(&row.target, targets),
            terminal.style(Style::Dim, printable(&format!("{}{place}{}", row.origin, row.kind))),
        );
    }
    if total > rows.len() {
        let _ = writeln!(out, "  … and {}", count(total - rows.len(), "more route", "more routes"));
    }
    out
}

/// How a path is compared, unless that is the default.
pub(crate) fn path_kind(path: &PathMatch) -> &'static str {
    match path {
        PathMatch::Exact(_) => " Exact",
        PathMatch::Prefix(_) | PathMatch::Start(_) => "",
        PathMatch::Regex(_) => " Regex",
    }
}

struct Row {
    url: String,
    /// Whether the URL is a real one, not a pattern.
    is_link: bool,
    kind: &'static str,
    target: String,
    origin: String,
}

/// The field to which the section of a route's origin refers; the section omits what all Ingresses have in common.
pub(crate) fn field(origin: &Origin) -> String {
    match origin.section.split_once(".paths") {
        Some((rule, path)) => format!("spec.{rule}.http.paths{path}"),
        None if origin.section.is_empty() => String::new(),
        None => format!("spec.{}", origin.section),
    }
}

/// Whether the route was added implicitly: the `/` of a host, or the redirect for a missing slash.
pub(crate) fn is_implied(route: &Route) -> bool {
    let built_in = &*route.origin.kind == "Fairway";
    let slash = matches!(&route.action, Action::Redirect(redirect) if redirect.location == Location::AppendSlash);
    let twin = matches!(&route.path, PathMatch::Exact(path) if *route.rule == format!("{path}/"));
    built_in || slash || twin
}

/// Whether the host and path of a route are literal.
fn is_address(host: &Host, route: &Route) -> bool {
    let of_host = matches!(host.pattern(), HostPattern::Exact(_) | HostPattern::Any);
    of_host && !matches!(route.path, PathMatch::Regex(_))
}

/// A URL that matches the route, with https if the host has its own certificate.
fn url(host: &Host, route: &Route, doors: &Doors, snapshot: &Snapshot) -> String {
    let own = host.certificate().is_some_and(|name| snapshot.certificate(name).is_some());
    let of_gateway = || {
        let mut listeners = snapshot.listeners().filter(|_| host.table().as_str() != INGRESSES);
        listeners.find(|listener| listener.table == *host.table())
    };
    let (scheme, door) = match (of_gateway(), own, doors.http, doors.https) {
        (Some(listener), ..) => {
            let usual = if listener.scheme == Scheme::Http { doors.http } else { doors.https };
            let shared = listener.name.as_str() == listener.scheme.as_str();
            (listener.scheme, usual.filter(|_| shared).or(Some(listener.address)))
        }
        (_, true, _, Some(door)) | (_, false, None, Some(door)) => (Scheme::Https, Some(door)),
        (_, _, door, _) => (Scheme::Http, door),
    };
    let standard = if scheme == Scheme::Https { 443 } else { 80 };
    let port = door.filter(|door| door.port() != standard).map(|door| format!(":{}", door.port())).unwrap_or_default();
    let name = match host.pattern() {
        HostPattern::Exact(name) => name.to_string(),
        HostPattern::Any => door.map_or("localhost".to_owned(), |door| match door {
            SocketAddr::V4(v4) => v4.ip().to_string(),
            SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
        }),
        pattern => pattern.as_written(),
    };
    let mut path = Vec::new();
    match &route.path {
        // The pattern as written: the paths that match it can't be listed.
        PathMatch::Regex(regex) => path.extend_from_slice(regex.text().as_bytes()),
        PathMatch::Exact(text) | PathMatch::Prefix(text) | PathMatch::Start(text) => {
            fairway_model::path::encode(text.as_bytes(), &mut path);
        }
    }
    format!("{scheme}://{name}{port}{}", String::from_utf8_lossy(&path))
}

/// The destination of a route, in a few words.
pub(crate) fn target(route: &Route, snapshot: &Snapshot, development: Option<&Development>) -> String {
    if route.filters.iter().any(|filter| matches!(filter, Filter::Refuse(_))) {
        return "denied: 503".to_owned();
    }
    match &route.action {
        Action::Forward(forward) => {
            let first = forward.backends.names().next();
            let endpoints = match first.and_then(|name| snapshot.endpoint_set(name)).map(|set| &set.endpoints) {
                Some(Endpoints::Addresses(list)) => match &list[..] {
                    [] => "no endpoints: 503".to_owned(),
                    [one] if development.is_some_and(|dev| dev.echo == Some(one.address)) => "echo".to_owned(),
                    [one] => one.address.to_string(),
                    many => count(many.len(), "endpoint", "endpoints"),
                },
                Some(Endpoints::Name { host, port }) => format!("{host}:{port}"),
                None => "no endpoints: 503".to_owned(),
            };
            format!("{} ({endpoints})", forward.backends)
        }
        Action::Redirect(redirect) => format!("{} {}", redirect.status, location(&redirect.location)),
        Action::Respond(respond) => format!("{}", respond.status),
    }
}

/// The destination of a redirect, described in words if it depends on the request.
pub(crate) fn location(location: &Location) -> String {
    match location {
        Location::Fixed(text) => text.to_string(),
        Location::Captures(template) => template.text().to_owned(),
        Location::AppRoot(path) => format!("{path} of the same host"),
        Location::AppendSlash => "the same URL with a slash at its end".to_owned(),
        Location::OtherHost(name) => format!("the same URL on {name}, with the port of the listener"),
        Location::Parts(parts) => url_parts(parts),
    }
}

/// What a redirect by parts changes in the URL.
fn url_parts(parts: &UrlParts) -> String {
    let scheme = parts.scheme.map(|scheme| format!("scheme {scheme}"));
    let host = parts.host.as_ref().map(|host| format!("host {host}"));
    let port = parts.port.map(|port| format!("port {port}"));
    let path = parts.path.as_ref().map(|path| match path {
        PathReplacement::Full(path) => format!("path {path}"),
        PathReplacement::Prefix(text) => format!("{text:?} in place of the prefix"),
    });
    let changed: Vec<_> = [scheme, host, port, path].into_iter().flatten().collect();
    format!("the same URL with {}", changed.join(", "))
}
