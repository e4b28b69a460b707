//! The effect of a saved change in a few lines: routes by host and path, endpoints, certificates, findings.

use std::fmt::Write as _;
use std::net::SocketAddr;

use fairway_model::{
    Action, Delta, EndpointSet, Endpoints, Host, HostKey, Origin, Resource, ResourceName, Route, Snapshot,
    StreamListener,
};
use fairway_translate::options::Development;

use crate::manifest::Finding;
use crate::report;
use crate::table::{is_implied, path_kind, target};
use crate::terminal::{Style, Terminal, count, printable};

/// Longer lists are counted instead of shown.
const LINES: usize = 20;

/// One difference.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Line {
    sign: char,
    text: String,
}

/// Compares a delta with the state before it.
pub(super) fn lines(
    before: &Snapshot,
    after: &Snapshot,
    delta: &Delta,
    development: Option<&Development>,
) -> Vec<Line> {
    let mut lines = Vec::new();
    let mut add = |sign: char, text: String| lines.push(Line { sign, text });
    let host_before = |key: HostKey| match before.resource(&ResourceName::Host(key)) {
        Some(Resource::Host(host)) => Some(host),
        _ => None,
    };
    for name in &delta.removals {
        match name {
            ResourceName::Host(key) => {
                let old = host_before(key.clone());
                for route in old.iter().flat_map(|host| shown(host)) {
                    add('-', route_line(&old.as_ref(), route, before, development));
                }
            }
            ResourceName::Listener(name) | ResourceName::StreamListener(name) => add('-', format!("listener {name}")),
            ResourceName::Certificate(name) => add('-', format!("certificate {name}")),
            ResourceName::Telemetry(name) => add('-', format!("tracing by {name}")),
            ResourceName::Backend(_) | ResourceName::EndpointSet(_) => {}
        }
    }
    for resource in &delta.upserts {
        match resource {
            Resource::Host(host) => {
                let old = host_before(host.key());
                compare_host(old.as_ref(), host, before, after, development, &mut add);
            }
            Resource::EndpointSet(set) => {
                compare_endpoints(before.endpoint_set(&set.backend), set, development, &mut add);
            }
            Resource::Certificate(certificate) => {
                let sign = if before.certificate(&certificate.name).is_some() { '~' } else { '+' };
                add(sign, format!("certificate {}", certificate.name));
            }
            Resource::Backend(backend) => {
                if before.backend(&backend.name).is_some() {
                    add('~', format!("settings of the backend {}", backend.name));
                }
            }
            Resource::Telemetry(telemetry) => {
                let sign = if before.telemetry(&telemetry.name).is_some() { '~' } else { '+' };
                add(sign, format!("tracing by {}", telemetry.name));
            }
            Resource::Settings(_) => add('~', "settings of the whole proxy".to_owned()),
            Resource::Listener(listener) => add('~', format!("listener {} {}", listener.name, listener.address)),
            Resource::StreamListener(listener) => {
                let known = before.stream_listeners().any(|other| other.name == listener.name);
                add(if known { '~' } else { '+' }, stream_line(listener, listener.address));
            }
        }
    }
    lines
}

/// The address of a TCP or UDP service and its backend.
pub(super) fn stream_line(listener: &StreamListener, address: SocketAddr) -> String {
    format!("{:<5} on {address} → {}", listener.transport.as_str().to_ascii_lowercase(), listener.backend)
}

fn shown(host: &Host) -> impl Iterator<Item = &Route> {
    host.tiers().flat_map(Host::reachable_routes).filter(|route| !is_implied(route))
}

fn route_line(
    host: &Option<&std::sync::Arc<Host>>,
    route: &Route,
    snapshot: &Snapshot,
    development: Option<&Development>,
) -> String {
    let name = host.map(|host| host.pattern().as_written()).unwrap_or_default();
    format!("{name}{}{} → {}", route.path.text(), path_kind(&route.path), target(route, snapshot, development))
}

fn compare_host(
    old: Option<&std::sync::Arc<Host>>,
    new: &std::sync::Arc<Host>,
    before: &Snapshot,
    after: &Snapshot,
    development: Option<&Development>,
    add: &mut impl FnMut(char, String),
) {
    let find = |host: Option<&std::sync::Arc<Host>>, route: &Route| {
        let all = host.into_iter().flat_map(|host| host.tiers().flat_map(Host::routes));
        all.into_iter().find(|other| other.path == route.path && other.conditions == route.conditions).cloned()
    };
    for route in old.iter().flat_map(|host| shown(host)) {
        if find(Some(new), route).is_none() {
            add('-', route_line(&old, route, before, development));
        }
    }
    for route in shown(new) {
        match find(old, route) {
            None => add('+', route_line(&Some(new), route, after, development)),
            Some(other) if other != *route => {
                let line = route_line(&Some(new), route, after, development);
                let what = difference(&other, route);
                add('~', format!("{line}{what}"));
            }
            Some(_) => {}
        }
    }
    if let Some(old) = old
        && old.certificate() != new.certificate()
    {
        let name =
            new.certificate().map_or("the default certificate".to_owned(), |name| format!("the certificate {name}"));
        add('~', format!("{} has {name}", new.pattern().as_written()));
    }
}

/// Differences of a route that its line doesn't show.
fn difference(old: &Route, new: &Route) -> &'static str {
    match (&old.action, &new.action) {
        _ if old.filters != new.filters => " (filters)",
        (Action::Forward(a), Action::Forward(b)) if a.backends != b.backends => "",
        (Action::Forward(a), Action::Forward(b)) if a.policy != b.policy => " (limits and timeouts)",
        _ if old.action != new.action => "",
        _ if old.origin != new.origin => " (of another object)",
        _ => " (logging)",
    }
}

fn compare_endpoints(
    old: Option<&std::sync::Arc<EndpointSet>>,
    new: &EndpointSet,
    development: Option<&Development>,
    add: &mut impl FnMut(char, String),
) {
    // A new backend is reported with its route.
    let Some(old) = old else { return };
    let list = |set: &EndpointSet| match &set.endpoints {
        Endpoints::Addresses(list) => list
            .iter()
            .map(|endpoint| match development {
                Some(development) if development.echo == Some(endpoint.address) => "echo".to_owned(),
                _ => endpoint.address.to_string(),
            })
            .collect::<Vec<_>>(),
        Endpoints::Name { host, port } => vec![format!("{host}:{port}")],
    };
    let (was, is) = (list(old), list(new));
    let gone = was.iter().filter(|address| !is.contains(address)).map(|address| format!(" -{address}"));
    let fresh = is.iter().filter(|address| !was.contains(address)).map(|address| format!(" +{address}"));
    add('~', format!("endpoints of {}{}", new.backend, gone.chain(fresh).take(8).collect::<String>()));
}

/// Formats lines and findings. `took` is the time until all workers served the change.
pub(super) fn render(
    lines: &[Line],
    took: std::time::Duration,
    new: &[Finding],
    cleared: &[Finding],
    terminal: Terminal,
) -> String {
    let mut out = String::new();
    for line in lines.iter().take(LINES) {
        let style = match line.sign {
            '+' => Style::Green,
            '-' => Style::Red,
            _ => Style::Yellow,
        };
        let _ = writeln!(out, "  {} {}", terminal.style(style, line.sign), printable(&line.text));
    }
    if lines.len() > LINES {
        let _ = writeln!(out, "  … and {}", count(lines.len() - LINES, "more change", "more changes"));
    }
    for finding in new.iter().take(LINES) {
        let _ = write!(out, "  {}", report::line(finding, terminal));
    }
    if new.len() > LINES {
        let _ =
            writeln!(out, "  … and {}: see `fairway check`", count(new.len() - LINES, "more finding", "more findings"));
    }
    for finding in cleared.iter().take(LINES) {
        let text = format!("{}: {}", finding.diagnostic.origin, finding.diagnostic.message);
        let _ = writeln!(out, "  {} {}", terminal.style(Style::Green, "cleared"), printable(&text));
    }
    let head = match (lines.len(), new.len() + cleared.len()) {
        (0, 0) => "saved, nothing changed".to_owned(),
        (0, _) => "saved, no route changed".to_owned(),
        (changes, _) => format!("{} live in {:.1} ms", count(changes, "change", "changes"), took.as_secs_f64() * 1e3),
    };
    format!("{}\n{out}", terminal.style(Style::Bold, head))
}

/// The findings that are new, and those that are gone; their locations don't matter.
pub(super) fn compare_findings(before: &[Finding], after: &[Finding]) -> (Vec<Finding>, Vec<Finding>) {
    fn key(finding: &Finding) -> (&Origin, &str, &str, &str) {
        let found = &finding.diagnostic;
        (&found.origin, &found.field, &found.value, &found.message)
    }
    let (old, new): (std::collections::HashSet<_>, std::collections::HashSet<_>) =
        (before.iter().map(key).collect(), after.iter().map(key).collect());
    let fresh = after.iter().filter(|finding| !old.contains(&key(finding))).cloned().collect();
    let cleared = before.iter().filter(|finding| !new.contains(&key(finding))).cloned().collect();
    (fresh, cleared)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairway_model::{HostPattern, PathMatch, Redirect, Respond};

    fn snapshot(paths: &[(&str, u16)]) -> Snapshot {
        let origin = Origin::new("Ingress", "n", "i");
        let route = |(path, status): &(&str, u16)| {
            Route::new(origin.clone(), PathMatch::prefix(path).unwrap(), Action::Respond(Respond::empty(*status)))
        };
        let host =
            Host::new("ingress".into(), HostPattern::parse("a.example").unwrap(), paths.iter().map(route).collect());
        let empty = paths.is_empty();
        Snapshot::default().apply(if empty { Delta::default() } else { Delta::upsert([Resource::from(host)]) })
    }

    fn told(before: &Snapshot, after: &Snapshot) -> Vec<String> {
        let lines = lines(before, after, &Snapshot::diff(before, after), None);
        lines.into_iter().map(|line| format!("{}{}", line.sign, line.text)).collect()
    }

    #[test]
    fn routes_are_told_by_host_and_path() {
        let (none, one) = (snapshot(&[]), snapshot(&[("/", 200)]));
        assert_eq!(told(&none, &one), ["+a.example/ → 200"]);
        assert_eq!(told(&one, &none), ["-a.example/ → 200"]);
        let two = snapshot(&[("/", 404), ("/b", 200)]);
        let mut changes = told(&one, &two);
        changes.sort();
        assert_eq!(changes, ["+a.example/b → 200", "~a.example/ → 404"]);
        assert_eq!(told(&two, &two), Vec::<String>::new());
    }

    #[test]
    fn a_path_of_another_type_is_another_route() {
        let of = |path: PathMatch| {
            let action = Action::Respond(Respond::empty(200));
            let route = Route::new(Origin::new("Ingress", "n", "i"), path, action);
            let host = Host::new("ingress".into(), HostPattern::parse("a.example").unwrap(), vec![route]);
            Snapshot::default().apply(Delta::upsert([Resource::from(host)]))
        };
        let (prefix, exact) = (of(PathMatch::prefix("/x").unwrap()), of(PathMatch::exact("/x").unwrap()));
        assert_eq!(told(&prefix, &exact), ["-a.example/x → 200", "+a.example/x Exact → 200"]);
    }

    #[test]
    fn implied_routes_are_not_told() {
        let mut route = Route::new(
            Origin::new("Ingress", "n", "i"),
            PathMatch::exact("/x").unwrap(),
            Action::Redirect(Redirect::new(301, fairway_model::Location::AppendSlash)),
        );
        assert!(is_implied(&route));
        route.action = Action::Respond(Respond::not_found());
        assert!(!is_implied(&route));
    }

    #[test]
    fn a_change_says_how_long_it_took() {
        let text = render(
            &[Line { sign: '+', text: "x".into() }],
            std::time::Duration::from_micros(4200),
            &[],
            &[],
            Terminal::plain(),
        );
        assert_eq!(text, "1 change live in 4.2 ms\n  + x\n");
    }
}
