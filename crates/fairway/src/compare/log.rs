//! Extracts requests from an access log. It recognizes three formats, line by line: JSON as Fairway writes it, `upstreaminfo` as
//! ingress-nginx writes it, and `combined`. It takes only method, host, path and query; [`credential`] decides which of these are not sent.
//!
//! The last two formats don't name the host. `--host` supplies it, or the Ingresses do: `upstreaminfo` names the Service port that a
//! request went to.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;

use anyhow::{Context, bail};
use fairway_model::Scheme;
use fairway_translate::objects::{Kind, Object};
use serde_json::{Map, Value};

use super::question::Question;
use super::{Collected, Options, credential, derive, list};
use crate::flags::UsageError;
use crate::reading::Reading;

/// Most hosts tried for one line if the Ingresses allow several.
const HOSTS: usize = 5;

/// The content of a line.
#[derive(Debug, Default, Eq, PartialEq)]
struct LogLine {
    method: String,
    target: String,
    host: Option<String>,
    scheme: Option<Scheme>,
    status: Option<u16>,
    /// Namespace, Service and port, joined by dashes.
    upstream: Option<String>,
}

/// Reads a whole log. It keeps one of equal requests, and the most frequent ones if there are too many.
pub(super) fn read(path: &Path, options: &Options, reading: Option<&Reading>) -> anyhow::Result<Collected> {
    let hosts = reading.map(Hosts::of).unwrap_or_default();
    let mut input = list::open(path)?;
    let (mut collected, mut line) = (Collected::default(), Vec::new());
    let mut seen: HashMap<Question, (usize, u64)> = HashMap::new();
    let (mut lines, mut unknown) = (0_u64, None);
    while list::next_line(&mut *input, &mut line).with_context(|| format!("reading {}", path.display()))?.is_some() {
        lines += 1;
        let text = String::from_utf8_lossy(&line);
        if text.trim().is_empty() {
            continue;
        }
        let Some(found) = parse(text.trim()) else {
            unknown.get_or_insert(lines);
            collected.leave_out("the line has no request in a known format");
            continue;
        };
        for request in hosts.requests(found, options, &mut collected) {
            let order = seen.len();
            // Ten times as many as are sent: enough to find the most frequent ones, and a bound on memory.
            match seen.get_mut(&request) {
                Some((_, count)) => *count += 1,
                None if order < options.max_requests.saturating_mul(10) => _ = seen.insert(request, (order, 1)),
                None => collected.leave_out("more than --max-requests"),
            }
        }
    }
    if let (Some(line), true) = (unknown, seen.is_empty() && collected.left_out.len() == 1) {
        bail!(UsageError(format!(
            "{}:{line}: expected an access log: lines of JSON as of `fairway run --access-log json`, or in the formats \
             upstreaminfo (the default of ingress-nginx) or combined. For another format, make a list for --requests",
            path.display()
        )));
    }
    let mut requests: Vec<_> = seen.into_iter().collect();
    requests.sort_by_key(|(_, (order, count))| (std::cmp::Reverse(*count), *order));
    collected.requests = requests.into_iter().map(|(request, _)| request).collect();
    Ok(collected)
}

/// What the Ingresses say about log lines.
#[derive(Debug, Default)]
struct Hosts {
    /// Hosts and paths, by namespace, Service and port, joined by dashes.
    by_upstream: HashMap<String, BTreeSet<(String, String)>>,
    /// Hosts with a certificate.
    secure: BTreeSet<String>,
    all: BTreeSet<String>,
}

impl Hosts {
    fn of(reading: &Reading) -> Self {
        let mut hosts = Self::default();
        for (key, object) in reading.objects.of_kind(Kind::Ingress) {
            let Object::Ingress(ingress) = object else { continue };
            let Some(spec) = ingress.read().spec else { continue };
            let named = spec.tls.iter().flatten().flat_map(|tls| tls.hosts.iter().flatten());
            hosts.secure.extend(named.map(|host| derive::sample(Some(host))));
            for rule in spec.rules.iter().flatten() {
                let host = derive::sample(rule.host.as_deref());
                hosts.all.insert(host.clone());
                for path in rule.http.iter().flat_map(|http| &http.paths) {
                    let Some(service) = &path.backend.service else { continue };
                    let port = service.port.as_ref();
                    let number = port.and_then(|port| port.number).map(|number| number.to_string());
                    let port = number.or_else(|| port.and_then(|port| port.name.clone())).unwrap_or_default();
                    let upstream = format!("{}-{}-{port}", key.namespace, service.name);
                    let path = path.path.clone().unwrap_or_else(|| "/".to_owned());
                    hosts.by_upstream.entry(upstream).or_default().insert((host.clone(), path));
                }
            }
        }
        hosts
    }

    /// The requests that a line stands for: one, unless its host is ambiguous.
    fn requests(&self, line: LogLine, options: &Options, collected: &mut Collected) -> Vec<Question> {
        let Some((target, redacted)) = credential::without(&line.target) else {
            collected.leave_out("the path has a credential in it");
            return Vec::new();
        };
        if redacted {
            collected.redacted += 1;
        }
        let own = line.host.as_deref().or(options.host.as_deref()).map(|host| BTreeSet::from([host]));
        let hosts = own.unwrap_or_else(|| self.hosts(&line));
        if hosts.is_empty() {
            collected
                .leave_out("the line names no host, and no Ingress tells it: give --host, or the Ingresses by PATH");
        }
        let scheme = |host: &str| match (options.scheme, line.scheme, line.status) {
            (Some(scheme), ..) | (None, Some(scheme), _) => scheme,
            // A redirect from plain HTTP.
            (None, None, Some(308)) => Scheme::Http,
            (None, None, _) if self.secure.contains(host) => Scheme::Https,
            (None, None, _) => Scheme::Http,
        };
        hosts.iter().map(|host| Question::new(&line.method, scheme(host), host, &target)).collect()
    }

    fn hosts(&self, line: &LogLine) -> BTreeSet<&str> {
        let path = line.target.split('?').next().unwrap_or_default();
        let of_upstream = line.upstream.as_ref().and_then(|upstream| self.by_upstream.get(upstream));
        let fits = |rule: &str| {
            let (literal, whole) = derive::literal(rule);
            let below = path.strip_prefix(literal.trim_end_matches('/'));
            if whole { below.is_some_and(|rest| rest.is_empty() || rest.starts_with('/')) } else { below.is_some() }
        };
        match of_upstream {
            Some(rules) => {
                rules.iter().filter(|(_, rule)| fits(rule)).map(|(host, _)| host.as_str()).take(HOSTS).collect()
            }
            None if self.all.len() == 1 => self.all.iter().map(String::as_str).collect(),
            None => BTreeSet::new(),
        }
    }
}

fn parse(line: &str) -> Option<LogLine> {
    if line.starts_with('{') {
        let Ok(Value::Object(fields)) = serde_json::from_str(line) else { return None };
        return of_json(&fields);
    }
    // ADDRESS - USER [TIME] "REQUEST" STATUS BYTES "REFERER" "AGENT", and for upstreaminfo LENGTH TIME [UPSTREAM] [...] ...
    let (_, rest) = line.split_once(" [")?;
    let (_, rest) = rest.split_once("] \"")?;
    let (request, rest) = rest.split_once('"')?;
    let mut words = rest.split_ascii_whitespace();
    let status = words.next()?.parse().ok()?;
    words.next()?.parse::<u64>().ok()?;
    let mut line = of_request(&unescaped(request))?;
    line.status = Some(status);
    // After the referer and agent, in which nginx escapes quotes.
    let tail = rest.splitn(5, '"').nth(4).unwrap_or_default();
    let upstream = tail.split_once('[').and_then(|(_, rest)| rest.split_once(']')).map(|(name, _)| name);
    line.upstream = upstream.filter(|name| !name.is_empty() && *name != "-").map(str::to_owned);
    Some(line)
}

/// A request line.
fn of_request(text: &str) -> Option<LogLine> {
    let (method, rest) = text.split_once(' ')?;
    let (target, version) = rest.rsplit_once(' ')?;
    if !version.starts_with("HTTP/") || method.is_empty() || !method.bytes().all(|b| b.is_ascii_uppercase()) {
        return None;
    }
    let mut line = LogLine { method: method.to_owned(), target: target.to_owned(), ..LogLine::default() };
    if let Ok(absolute) = Question::to_url(method, target) {
        line.target = absolute.target;
        (line.host, line.scheme) = (Some(absolute.host), Some(absolute.scheme));
    }
    Some(line)
}

/// The names that Fairway writes, and those common in ingress-nginx logs.
fn of_json(fields: &Map<String, Value>) -> Option<LogLine> {
    let text = |names: &[&str]| {
        let found = names.iter().find_map(|name| fields.get(*name).and_then(Value::as_str));
        found.filter(|text| !text.is_empty() && *text != "-").map(str::to_owned)
    };
    let mut line = match (text(&["method", "request_method"]), text(&["path", "request_uri", "uri"])) {
        (Some(method), Some(target)) => LogLine { method, target, ..LogLine::default() },
        _ => of_request(&text(&["request"])?)?,
    };
    if let Some(query) = text(&["request_query", "args", "query_string"]).filter(|_| !line.target.contains('?')) {
        line.target = format!("{}?{query}", line.target);
    }
    line.host = text(&["host", "vhost", "http_host", "server_name"]).or(line.host);
    line.scheme = match text(&["scheme"]).as_deref() {
        Some("https") => Some(Scheme::Https),
        Some("http") => Some(Scheme::Http),
        _ => line.scheme,
    };
    let status = fields.get("status");
    line.status = status
        .and_then(|status| status.as_u64().map(|status| status.to_string()).or(text(&["status"])))
        .and_then(|status| status.parse().ok());
    line.upstream = text(&["backend", "proxy_upstream_name"]);
    Some(line)
}

/// nginx writes quotes, backslashes and control characters as `\xHH`.
fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("\\x") {
        out.push_str(before);
        let byte = after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()).filter(u8::is_ascii);
        match byte {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &after[2..];
            }
            None => {
                out.push_str("\\x");
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPSTREAMINFO: &str = "192.0.2.9 - alice [10/Oct/2026:13:55:36 +0000] \"GET /order/7?a=b HTTP/2.0\" 200 12 \
        \"https://a.example/[x]\" \"Mozilla/5.0 (X11) [y]\" 411 0.003 [shop-order-80] [] 10.0.0.7:8080 12 0.002 200 f00d";

    #[test]
    fn the_known_formats_are_recognized() {
        let line = parse(UPSTREAMINFO).unwrap();
        assert_eq!((line.method.as_str(), line.target.as_str(), line.status), ("GET", "/order/7?a=b", Some(200)));
        assert_eq!((line.upstream.as_deref(), line.host), (Some("shop-order-80"), None));
        let combined = "::1 - - [10/Oct/2026:13:55:36 +0000] \"POST /a\\x22b HTTP/1.1\" 308 164 \"-\" \"curl/8\"";
        let line = parse(combined).unwrap();
        assert_eq!((line.target.as_str(), line.upstream, line.status), ("/a\"b", None, Some(308)));
        let json = r#"{"time":"t","method":"GET","scheme":"https","host":"a.example","path":"/x?y","status":200,"backend":"s-w-80"}"#;
        let line = parse(json).unwrap();
        assert_eq!(
            (line.host.as_deref(), line.scheme, line.target.as_str()),
            (Some("a.example"), Some(Scheme::Https), "/x?y")
        );
        let theirs = r#"{"vhost":"b","request":"HEAD /z HTTP/1.1","status":"404","request_query":"q=1"}"#;
        let line = parse(theirs).unwrap();
        assert_eq!((line.method.as_str(), line.target.as_str(), line.status), ("HEAD", "/z?q=1", Some(404)));
        let proxied = "::1 - - [x] \"GET http://c.example/d HTTP/1.1\" 200 1 \"-\" \"-\"";
        assert_eq!(parse(proxied).unwrap().host.as_deref(), Some("c.example"));
    }

    #[test]
    fn other_lines_are_not_taken_for_requests() {
        for line in [
            "2026/10/10 [error] 7#7: *1 connect() failed",
            "::1 - - [x] \"\\x16\\x03\\x01\" 400 150 \"-\" \"-\"",
            "::1 - - [x] \"\" 400 0 \"-\" \"-\"",
            "{\"level\":\"info\"}",
            "{",
            "\" [",
            "",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }

    #[test]
    fn hosts_and_schemes_follow_from_options_and_ingresses() {
        let mut hosts = Hosts::default();
        let rules = [("a.example", "/order"), ("b.example", "/order"), ("c.example", "/cart")];
        let rules = rules.map(|(host, path)| (host.to_owned(), path.to_owned()));
        hosts.by_upstream.insert("shop-order-80".to_owned(), rules.into());
        hosts.secure.insert("b.example".to_owned());
        let options = |host: Option<&str>| Options {
            methods: Vec::new(),
            host: host.map(str::to_owned),
            scheme: None,
            fields: Vec::new(),
            max_requests: 10,
        };
        let urls = |text: &str, host| {
            let mut collected = Collected::default();
            let requests = hosts.requests(parse(text).unwrap(), &options(host), &mut collected);
            (requests.iter().map(Question::url).collect::<Vec<_>>(), collected.left_out.len())
        };
        let both = vec!["http://a.example/order/7?a=b".to_owned(), "https://b.example/order/7?a=b".to_owned()];
        assert_eq!(urls(UPSTREAMINFO, None), (both, 0));
        assert_eq!(urls(UPSTREAMINFO, Some("x")), (vec!["http://x/order/7?a=b".to_owned()], 0));
        let redirected = UPSTREAMINFO.replace(" 200 12 ", " 308 12 ");
        assert!(urls(&redirected, None).0.iter().all(|url| url.starts_with("http://")));
        assert_eq!(urls(&UPSTREAMINFO.replace("shop-order", "-x"), None), (vec![], 1), "an unknown upstream");
        assert_eq!(urls(&UPSTREAMINFO.replace("a=b", "token=b"), None).0[0], "http://a.example/order/7?token=redacted");
    }
}
