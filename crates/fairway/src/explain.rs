//! `fairway explain`: which route a request takes and why, by the code that the proxy itself runs.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use clap::ArgMatches;
use fairway_model::path::{Scratch, canonicalize, encode};
use fairway_model::{
    Action, Backend, Balance, EndpointState, Endpoints, Filter, Forward, Host, HostPattern, PathMatch, Route, Scheme,
    Snapshot, canonical_host,
};
use fairway_translate::options::Development;

use crate::cli;
use crate::flags::{Flags, UsageError};
use crate::manifest::Manifests;
use crate::reading::{Missing, Reading, read};
use crate::table::{field, location};
use crate::terminal::{Style, Terminal, printable};

/// The request that is asked about.
#[derive(Debug, PartialEq)]
struct Request {
    method: String,
    scheme: Scheme,
    authority: String,
    path: String,
    query: Option<String>,
    fields: Vec<(String, String)>,
    client: IpAddr,
}

/// Runs the command.
pub(crate) fn main(matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let words = cli::all::<String>(matches, "words");
    let [paths @ .., method, url] = &words[..] else { bail!(UsageError("expected METHOD and URL".into())) };
    let paths: Vec<PathBuf> =
        if paths.is_empty() { vec![".".into()] } else { paths.iter().map(PathBuf::from).collect() };
    answer(matches, method, url, || read(&paths, &Flags::from_matches(matches), Missing::Echo))
}

/// The same for the objects of a cluster: `words` are METHOD and URL only.
pub(crate) fn in_cluster(
    matches: &ArgMatches,
    read: impl FnOnce() -> anyhow::Result<Reading>,
) -> anyhow::Result<ExitCode> {
    let words = cli::all::<String>(matches, "words");
    let [method, url] = &words[..] else { bail!(UsageError("expected METHOD and URL".into())) };
    answer(matches, method, url, read)
}

fn answer(
    matches: &ArgMatches,
    method: &str,
    url: &str,
    read: impl FnOnce() -> anyhow::Result<Reading>,
) -> anyhow::Result<ExitCode> {
    let client = matches.get_one::<IpAddr>("client").copied().unwrap_or(Ipv4Addr::LOCALHOST.into());
    let request = Request::parse(method, url, &cli::all::<String>(matches, "header"), client)?;
    let reading = read()?;
    let terminal = Terminal::new();
    let (text, taken) = Explanation { request: &request, reading: &reading, terminal, out: String::new() }.explain();
    terminal.print(&text);
    Ok(if taken { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

impl Request {
    fn parse(method: &str, url: &str, fields: &[String], client: IpAddr) -> Result<Self, UsageError> {
        let wrong =
            |what: &str| UsageError(format!("{what}: expected METHOD URL, such as GET http://shop.localhost/order/7"));
        if method.is_empty() || !method.bytes().all(|b| b.is_ascii_alphabetic() || b == b'-' || b == b'_') {
            return Err(wrong(&format!("{method:?} is no method")));
        }
        let (scheme, rest) = match url.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (Scheme::Http, rest),
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (Scheme::Https, rest),
            _ => return Err(wrong(&format!("{url:?} is no URL with http:// or https://"))),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, target) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (target, None),
        };
        let mut named = Vec::new();
        for field in fields {
            let (name, value) = field
                .split_once(':')
                .ok_or_else(|| UsageError(format!("-H {field:?}: expected NAME:VALUE, such as 'Cookie: a=b'")))?;
            named.push((name.trim().to_owned(), value.trim().to_owned()));
        }
        // A Host field decides, as it does on the wire.
        let host = named.iter().find(|(name, _)| name.eq_ignore_ascii_case("host")).map(|(_, value)| value.clone());
        Ok(Self {
            method: method.to_ascii_uppercase(),
            scheme,
            authority: host.unwrap_or_else(|| authority.to_owned()),
            path: if path.is_empty() { "/".to_owned() } else { path.to_owned() },
            query,
            fields: named,
            client,
        })
    }
}

/// Puts together what is printed.
struct Explanation<'a> {
    request: &'a Request,
    reading: &'a Reading,
    terminal: Terminal,
    out: String,
}

impl Explanation<'_> {
    /// The text, and whether a route takes the request.
    fn explain(mut self) -> (String, bool) {
        let request = self.request;
        let query = request.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
        let (method, scheme, authority, path) = (&request.method, request.scheme, &request.authority, &request.path);
        self.line("Request", &format!("{method} {scheme}://{authority}{path}{query}"));
        let taken = self.route();
        (self.out, taken)
    }

    fn route(&mut self) -> bool {
        let snapshot = &self.reading.snapshot;
        let mut scratch = Vec::new();
        let Some(name) = canonical_host(self.request.authority.as_bytes(), &mut scratch) else {
            self.line("Answer", "400, since the host is no host name");
            return false;
        };
        let Some(listener) = snapshot.listeners().find(|listener| listener.scheme == self.request.scheme) else {
            self.line("Answer", &format!("none, since nothing listens for {}", self.request.scheme));
            return false;
        };
        let mut scratch = Scratch::default();
        let path = match canonicalize(self.request.path.as_bytes(), &mut scratch) {
            Ok(path) => path,
            Err(error) => {
                self.line("Answer", &format!("400, since {error}"));
                return false;
            }
        };
        let matched = String::from_utf8_lossy(path.matched).into_owned();
        if matched != self.request.path {
            self.line(
                "Path",
                &format!("{matched} is what routes are matched on, the canonical form of {}", self.request.path),
            );
        }
        let Some(host) = snapshot.host(&listener.table, name) else {
            self.line("Answer", "404, since no host of the manifests takes the name and there is no default backend");
            return false;
        };
        let name = String::from_utf8_lossy(name).into_owned();
        self.line("Host", &host_reason(host, &name));
        let route = match host.unambiguous_route(path.matched, &mut Vec::new(), |_| true) {
            Ok(Some(route)) => route,
            Ok(None) => {
                self.line("Answer", "404, since no route of the host takes the path");
                return false;
            }
            Err(error) => {
                self.line("Answer", &format!("400, since {error}"));
                return false;
            }
        };
        self.line("Route", &format!("{}, of {}", route.path, origin(route, &self.reading.manifests)));
        let beaten: Vec<_> = host
            .routes()
            .iter()
            .filter(|other| other.path.matches(path.matched) && !std::ptr::eq(*other, route))
            .collect();
        self.line("", &reason(route, &beaten));
        for other in beaten.iter().take(10) {
            self.line("", &format!("it beat {}, of {}", other.path, origin(other, &self.reading.manifests)));
        }
        if beaten.len() > 10 {
            self.line("", &format!("and {} more", beaten.len() - 10));
        }
        let forwarded = self.filters(route, path.matched, path.forwarded);
        self.action(route, &forwarded);
        !matches!(&route.action, Action::Respond(respond) if respond.status == 404)
    }

    /// The filters in order, and the path that the backend gets.
    fn filters(&mut self, route: &Route, matched: &[u8], forwarded: &[u8]) -> Vec<u8> {
        let mut forwarded = forwarded.to_vec();
        let mut ended = false;
        for (at, filter) in route.filters.iter().enumerate() {
            let (sentence, ends) = self.filter(filter, route, matched, &mut forwarded);
            let label = if at == 0 { "Filters" } else { "" };
            let skipped = if ended { " (not reached by this request)" } else { "" };
            self.line(label, &format!("{}. {sentence}{skipped}", at + 1));
            ended |= ends;
        }
        if ended {
            self.line("", "The request ends there; what follows is where others go.");
        }
        forwarded
    }

    /// What a filter does with this request, and whether it answers it.
    fn filter(&self, filter: &Filter, route: &Route, matched: &[u8], forwarded: &mut Vec<u8>) -> (String, bool) {
        let request = self.request;
        match filter {
            Filter::StrictTransportSecurity => {
                let value = self.reading.snapshot.settings().strict_transport_security.as_deref();
                let acts = request.scheme == Scheme::Https && value.is_some();
                let what = value.map_or("nothing, since HSTS is off".to_owned(), |value| {
                    format!("Strict-Transport-Security: {value}")
                });
                (format!("Responses over TLS get {what}{}", if acts { "" } else { "; this one doesn't" }), false)
            }
            Filter::HttpsRedirect(redirect) => {
                let acts = request.scheme == Scheme::Http;
                let effect = if acts { "this one is" } else { "this one is https already" };
                (format!("Plain HTTP is answered {} to the same URL with https: {effect}", redirect.status), acts)
            }
            Filter::RequireEndpoints | Filter::NotFoundWithoutEndpoints => {
                let empty = match &route.action {
                    Action::Forward(forward) => !self.has_endpoints(forward),
                    _ => false,
                };
                let effect = if empty { "so it is here" } else { "there are some" };
                let answer = match filter {
                    Filter::NotFoundWithoutEndpoints => "404",
                    _ => "503, before anybody is let in or kept out",
                };
                (format!("Without endpoints the answer is {answer}: {effect}"), empty)
            }
            Filter::Refuse(refusal) => {
                (format!("Everyone is answered 503, since a restriction can't be built: {}", refusal.reason), true)
            }
            Filter::AccessList(list) => {
                let admitted = list.admits(request.client);
                let effect = if admitted { "is let in" } else { "is answered 403" };
                let nets = |set: &fairway_model::NetworkSet| {
                    set.networks().iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
                };
                let mut rule = Vec::new();
                if !list.deny.is_empty() {
                    rule.push(format!("not from {}", nets(&list.deny)));
                }
                if let Some(allow) = &list.allow {
                    rule.push(format!("only from {}", nets(allow)));
                }
                (format!("Clients are let in {}: {} {effect}", rule.join(" and "), request.client), !admitted)
            }
            Filter::Rewrite(rewrite) => {
                let written = match &route.path {
                    PathMatch::Regex(regex) => {
                        let mut out = Vec::new();
                        matches!(regex.rewrite(matched, &rewrite.target, usize::MAX, &mut out), Ok(true)).then_some(out)
                    }
                    PathMatch::Exact(_) | PathMatch::Prefix(_) => {
                        let mut out = Vec::new();
                        rewrite.target.expand(|_| &[], usize::MAX, &mut out).is_ok().then_some(out)
                    }
                };
                let mut sentence = format!("The path becomes {}", rewrite.target.text());
                if let Some(written) = written {
                    forwarded.clear();
                    encode(&written, forwarded);
                    let _ = write!(sentence, ", here {}", String::from_utf8_lossy(forwarded));
                }
                if let Some(prefix) = &rewrite.forwarded_prefix {
                    let _ = write!(sentence, ", and X-Forwarded-Prefix is {}", prefix.text());
                }
                (sentence, false)
            }
            Filter::EditRequest(_) => ("Fields of the request are edited".to_owned(), false),
            Filter::EditResponse(_) => ("Fields of the response are edited".to_owned(), false),
        }
    }

    fn action(&mut self, route: &Route, forwarded: &[u8]) {
        match &route.action {
            Action::Forward(forward) => {
                let query = self.request.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
                let path = String::from_utf8_lossy(forwarded).into_owned();
                self.line("Forward", &format!("{} {path}{query} to {}", self.request.method, forward.backends));
                self.backend(forward);
            }
            Action::Redirect(redirect) => {
                self.line("Answer", &format!("{} to {}", redirect.status, location(&redirect.location)));
            }
            Action::Respond(respond) => {
                let body =
                    if respond.body == fairway_model::Body::Empty { "with an empty body" } else { "with a page" };
                self.line("Answer", &format!("{} {body}", respond.status));
            }
        }
    }

    fn backend(&mut self, forward: &Forward) {
        let snapshot = &self.reading.snapshot;
        let Some(first) = forward.backends.names().next() else { return };
        if let Some(backend) = snapshot.backend(first) {
            let place = self.reading.manifests.place(&backend.origin);
            let place = place.map_or(", which the files do not hold".to_owned(), |place| format!(", {place}"));
            self.line("Backend", &format!("{}, port {}{place}", backend.origin, backend.port));
            self.line("", &choice(backend, forward, self.request));
        } else {
            self.line("Backend", &format!("{} is not there: the answer is 503", forward.backends));
        }
        let policy = &forward.policy;
        let tries =
            policy.retry.tries.map_or("any number of tries".to_owned(), |tries| format!("{tries} tries at most"));
        let seconds = |time: std::time::Duration| format!("{} s", time.as_secs_f64());
        self.line(
            "Limits",
            &format!(
                "connect {}, send {}, read {}; {tries}; body {}",
                seconds(policy.connect_timeout),
                seconds(policy.send_timeout),
                seconds(policy.read_timeout),
                if policy.max_body == fairway_model::ByteLimit::NONE {
                    "of any size".to_owned()
                } else {
                    format!("of {} bytes at most", policy.max_body.bytes())
                }
            ),
        );
        self.endpoints(snapshot, first);
        if let Some(fallback) = &forward.fallback {
            self.line("", &format!("without any of these the request goes to {fallback}"));
        }
    }

    fn endpoints(&mut self, snapshot: &Snapshot, first: &fairway_model::BackendName) {
        match snapshot.endpoint_set(first).map(|set| &set.endpoints) {
            Some(Endpoints::Addresses(list)) if !list.is_empty() => {
                for (at, endpoint) in list.iter().take(20).enumerate() {
                    let state = match endpoint.state {
                        EndpointState::Ready => "ready",
                        EndpointState::Draining => "terminating: sticky sessions only",
                    };
                    let text = if is_echo(self.reading.development(), endpoint.address) {
                        "none in the files; `fairway dev` answers with its echo".to_owned()
                    } else {
                        format!("{} {state}", endpoint.address)
                    };
                    self.line(if at == 0 { "Endpoints" } else { "" }, &text);
                }
                if list.len() > 20 {
                    self.line("", &format!("and {} more", list.len() - 20));
                }
            }
            Some(Endpoints::Name { host, port }) => {
                self.line("Endpoints", &format!("what {host} resolves to, port {port}"));
            }
            _ => self.line("Endpoints", "none: the answer is 503"),
        }
    }

    fn has_endpoints(&self, forward: &Forward) -> bool {
        let some = |name| match self.reading.snapshot.endpoint_set(name).map(|set| &set.endpoints) {
            Some(Endpoints::Addresses(list)) => !list.is_empty(),
            Some(Endpoints::Name { .. }) => true,
            None => false,
        };
        forward.all_backends().any(some)
    }

    fn line(&mut self, label: &str, text: &str) {
        let padded = format!("{label:<10}");
        let _ = writeln!(self.out, "{}{}", self.terminal.style(Style::Bold, padded), printable(text));
    }
}

fn is_echo(development: Option<&Development>, address: std::net::SocketAddr) -> bool {
    development.is_some_and(|development| development.echo == Some(address))
}

fn host_reason(host: &Host, name: &str) -> String {
    let kind = match host.pattern() {
        HostPattern::Exact(_) => return format!("{name}, exactly"),
        HostPattern::Subdomains(_) => "any number of labels in front",
        HostPattern::AnySuffix(_) => "anything behind",
        HostPattern::Label(_) => "one label in front",
        HostPattern::Regex(_) => "a regular expression",
        HostPattern::Any => "whatever no other host takes",
    };
    format!("{}, {kind}: no host is exactly {}", host.pattern(), if name.is_empty() { "the empty name" } else { name })
}

/// Why a route comes before the others that would take the path.
fn reason(route: &Route, beaten: &[&Route]) -> String {
    if beaten.is_empty() {
        return "chosen since no other route of the host takes the path".to_owned();
    }
    match &route.path {
        PathMatch::Exact(_) => "chosen since an exact path comes before all others",
        PathMatch::Regex(_) => "chosen since it is the first pattern that matches; longer ones are tried first",
        PathMatch::Prefix(_) => "chosen since it is the longest prefix",
    }
    .to_owned()
}

fn origin(route: &Route, manifests: &Manifests) -> String {
    let field = field(&route.origin);
    let place = manifests.place_of(&route.origin, &field).map(|place| format!(" ({place})")).unwrap_or_default();
    format!("{}{place}", route.origin)
}

/// How an endpoint is chosen.
fn choice(backend: &Backend, forward: &Forward, request: &Request) -> String {
    if let Some(affinity) = &backend.affinity {
        let name = &*affinity.cookie.name;
        let sent = request.fields.iter().filter(|(field, _)| field.eq_ignore_ascii_case("cookie")).any(|(_, value)| {
            value.split(';').any(|pair| pair.trim().split_once('=').is_some_and(|(key, _)| key == name))
        });
        let sent = match (sent, &forward.session_cookie_path) {
            (true, _) => "this request has it",
            (false, Some(_)) => "this request hasn't, and gets one",
            (false, None) => "this request hasn't, and its route gives none",
        };
        return format!("endpoint by the cookie {name}: {sent}");
    }
    match &backend.balance {
        Balance::RoundRobin => "endpoints one after the other".to_owned(),
        Balance::Ewma => "the faster of two endpoints at random".to_owned(),
        Balance::Hash(hash) => format!("endpoint by a consistent hash of {}", hash.key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: &str, url: &str, fields: &[&str]) -> Result<Request, UsageError> {
        let fields: Vec<_> = fields.iter().map(ToString::to_string).collect();
        Request::parse(method, url, &fields, Ipv4Addr::LOCALHOST.into())
    }

    #[test]
    fn requests_are_read_as_a_client_would_send_them() {
        let request = parse("get", "HTTPS://a.example:8443?x=1#frag", &["host: b", "a:b:c"]).unwrap();
        assert_eq!((request.method.as_str(), request.scheme, request.authority.as_str()), ("GET", Scheme::Https, "b"));
        assert_eq!((request.path.as_str(), request.query.as_deref()), ("/", Some("x=1")));
        assert_eq!(request.fields[1], ("a".into(), "b:c".into()));
    }

    #[test]
    fn what_is_no_request_is_told() {
        for (method, url, field) in [("G T", "http://a", "a:b"), ("GET", "a/b", "a:b"), ("GET", "http://a", "ab")] {
            assert!(
                parse(method, url, &[field]).unwrap_err().to_string().contains("expected"),
                "{method} {url} {field}"
            );
        }
    }
}
