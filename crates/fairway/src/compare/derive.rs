//! Derives requests from Ingresses: each path, with and without a trailing slash, a path below it, other methods, a wrong host, over http
//! and https, and samples of each pattern; also what annotations react to: other names of the host, an `Origin`, the canary's field.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use fairway_model::{Origin, Scheme};
use fairway_translate::objects::{Kind, Object};
use k8s_openapi::api::networking::v1::Ingress;

use super::question::Question;
use super::{Collected, Options};
use crate::pattern;
use crate::reading::Reading;

/// A label, name or path segment that occurs nowhere else.
const MARK: &str = "fairway-compare";
/// The host for rules without one, and a host that no Ingress has: the top-level domain is reserved (RFC 6761).
const NO_HOST: &str = "fairway-compare.invalid";

/// Most requests that [`crossing`] returns.
const CROSSING: usize = 20_000;

/// The requests for all served Ingresses, one Ingress after another.
pub(super) fn requests(reading: &Reading, options: &Options) -> Collected {
    let mut all = Derived { options, collected: Collected::default(), seen: HashSet::new() };
    for (key, object) in reading.objects.of_kind(Kind::Ingress) {
        let (Object::Ingress(ingress), origin) = (object, key.origin()) else { continue };
        if reading.foreign.contains(&origin) {
            all.collected.leave_out("the Ingress has another class");
            continue;
        }
        all.ingress(&ingress.read(), &origin, &reading.options.annotations_prefix);
    }
    if !all.seen.is_empty() {
        all.add(None, "GET", NO_HOST, "/", &[]);
    }
    all.collected
}

/// Requests for the paths of wildcard hosts and of rules without a host, sent to names that other rules have. Each comes with the Ingress
/// that has the path; the question's own origin is the Ingress that has the name. There are at most [`CROSSING`].
pub(super) fn crossing(reading: &Reading) -> Vec<(Question, Origin)> {
    let (mut names, mut wide) = (BTreeMap::<String, Origin>::new(), Vec::new());
    for (key, object) in reading.objects.of_kind(Kind::Ingress) {
        let (Object::Ingress(ingress), origin) = (object, key.origin()) else { continue };
        if reading.foreign.contains(&origin) {
            continue;
        }
        for rule in ingress.read().spec.iter().flat_map(|spec| spec.rules.iter().flatten()) {
            let host = rule.host.as_deref().unwrap_or_default().to_ascii_lowercase();
            if host.is_empty() || host.starts_with("*.") {
                let paths = rule.http.iter().flat_map(|http| &http.paths);
                let targets: BTreeSet<_> = paths.map(|path| target(path.path.as_deref().unwrap_or("/"))).collect();
                wide.push((host.clone(), origin.clone(), targets));
            }
            if !host.is_empty() {
                names.entry(host).or_insert_with(|| origin.clone());
            }
        }
    }
    let (mut found, mut seen) = (Vec::new(), HashSet::new());
    for (wildcard, origin, targets) in &wide {
        let parent = wildcard.strip_prefix('*').unwrap_or_default();
        for (name, owner) in names.iter().filter(|(name, _)| *name != wildcard && name.ends_with(parent)) {
            for target in targets {
                if found.len() >= CROSSING {
                    return found;
                }
                if seen.insert((name, target)) {
                    let questions = [Scheme::Http, Scheme::Https]
                        .map(|scheme| Question::new("GET", scheme, &sample(Some(name)), target));
                    let owned = questions.map(|question| Question { origin: Some(owner.clone()), ..question });
                    found.extend(owned.map(|question| (question, origin.clone())));
                }
            }
        }
    }
    found
}

/// A host that a rule serves.
pub(super) fn sample(host: Option<&str>) -> String {
    match host {
        None | Some("") => NO_HOST.to_owned(),
        Some(host) => host.strip_prefix("*.").map_or_else(|| host.to_owned(), |parent| format!("{MARK}.{parent}")),
    }
}

/// The literal prefix of a path pattern, and whether that is the whole path.
pub(super) fn literal(path: &str) -> (&str, bool) {
    let Some(end) = path.find(['(', '[', '{', '*', '+', '?', '|', '^', '$', '\\', '.']) else { return (path, true) };
    // A lone dot is part of a file name; `.*` and `.+` belong to a pattern.
    let (before, after) = path.split_at(end);
    if after.starts_with('.') && !after[1..].starts_with(['*', '+', '?', '{']) {
        let (rest, whole) = literal(&after[1..]);
        return (&path[..end + 1 + rest.len()], whole);
    }
    match after.chars().next() {
        // The character before the quantifier is optional.
        Some('*' | '?' | '{') => (before.char_indices().next_back().map_or("", |(at, _)| &before[..at]), false),
        _ => (before, false),
    }
}

struct Derived<'a> {
    options: &'a Options,
    collected: Collected,
    seen: HashSet<Question>,
}

impl Derived<'_> {
    fn ingress(&mut self, ingress: &Ingress, origin: &Origin, prefix: &str) {
        let none = BTreeMap::new();
        let annotations = ingress.metadata.annotations.as_ref().unwrap_or(&none);
        let value = |name: &str| annotations.get(&format!("{prefix}/{name}")).map(|value| value.trim());
        let on = |name: &str| value(name) == Some("true");
        let origin = Some(origin);
        let Some(spec) = &ingress.spec else { return };
        let mut first = None;
        for rule in spec.rules.iter().flatten() {
            let host = sample(rule.host.as_deref());
            for path in rule.http.iter().flat_map(|http| &http.paths) {
                let written = path.path.as_deref().unwrap_or("/");
                if !literal(written).1 {
                    for sample in pattern::samples(written) {
                        let sample = encoded(&sample);
                        self.add(origin, "GET", &host, &sample, &[]);
                        self.add(origin, "GET", &host, &format!("{}/{MARK}", sample.trim_end_matches('/')), &[]);
                    }
                }
                let path = target(written);
                let bare = path.trim_end_matches('/');
                let slash = format!("{bare}/");
                let below = format!("{bare}/{MARK}?a=b");
                for method in self.options.methods.clone() {
                    self.add(origin, &method, &host, &path, &[]);
                }
                for other in [if bare.is_empty() { "/" } else { bare }, &slash, &below] {
                    self.add(origin, "GET", &host, other, &[]);
                }
                if on("enable-cors") {
                    self.cors(origin, &host, &path, value("cors-allow-origin"));
                }
                if let Some(field) = value("canary-by-header") {
                    let sent = value("canary-by-header-value").unwrap_or("always");
                    self.add(origin, "GET", &host, &path, &[(field, sent)]);
                    self.add(origin, "GET", &host, &path, &[(field, "never")]);
                }
                first.get_or_insert_with(|| (host.clone(), path.clone()));
            }
            if let (Some(name), Some((_, path))) = (rule.host.as_deref(), &first) {
                let path = path.clone();
                self.add(origin, "GET", &format!("wrong-host-{MARK}.{}", name.trim_start_matches("*.")), &path, &[]);
            }
        }
        if spec.default_backend.is_some() {
            self.add(origin, "GET", &sample(None), "/", &[]);
            self.add(origin, "GET", &sample(None), &format!("/{MARK}"), &[]);
        }
        if let Some((host, path)) = first {
            let aliases = value("server-alias").unwrap_or_default().split(',').map(str::trim);
            for alias in aliases.filter(|alias| !alias.is_empty() && !alias.starts_with('~')) {
                self.add(origin, "GET", &sample(Some(alias)), &path, &[]);
            }
            if on("from-to-www-redirect") {
                let other = host.strip_prefix("www.").map_or_else(|| format!("www.{host}"), str::to_owned);
                self.add(origin, "GET", &other, &path, &[]);
            }
            if value("app-root").is_some() {
                self.add(origin, "GET", &host, "/", &[]);
            }
        }
    }

    /// A request from a page of an allowed origin, one from another origin, and a preflight.
    fn cors(&mut self, ingress: Option<&Origin>, host: &str, path: &str, admitted: Option<&str>) {
        let first = admitted.and_then(|list| list.split(',').map(str::trim).find(|origin| origin.contains("://")));
        let page = first.unwrap_or("https://fairway-compare.example").replace("://*", &format!("://{MARK}"));
        let other = "https://other.invalid";
        for page in [&page, other] {
            self.add(ingress, "GET", host, path, &[("Origin", page)]);
            let preflight = [("Origin", page), ("Access-Control-Question-Method", "GET")];
            self.add(ingress, "OPTIONS", host, path, &preflight);
        }
    }

    /// Adds a request over http and https, unless it is already there or its method is excluded.
    fn add(&mut self, origin: Option<&Origin>, method: &str, host: &str, target: &str, fields: &[(&str, &str)]) {
        if !self.options.methods.iter().any(|asked| asked == method) {
            return;
        }
        for scheme in [Scheme::Http, Scheme::Https] {
            let request = Question::new(method, scheme, host, target);
            let request = fields.iter().fold(request, |request, (name, value)| request.with(name, value));
            let sendable =
                fields.iter().all(|(name, value)| super::question::field(&format!("{name}:{value}")).is_ok());
            if sendable && self.seen.insert(request.clone()) {
                self.collected.requests.push(Question { origin: origin.cloned(), ..request });
            }
        }
    }
}

fn encoded(path: &str) -> String {
    let mut encoded = Vec::new();
    fairway_model::path::encode(path.as_bytes(), &mut encoded);
    String::from_utf8_lossy(&encoded).into_owned()
}

/// A path that a rule matches, as it stands in a request.
fn target(path: &str) -> String {
    let (literal, whole) = literal(path);
    let text = encoded(if whole { path } else { literal });
    if text.starts_with('/') { text } else { format!("/{text}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_come_out_of_patterns() {
        for (path, expected) in [
            ("/", "/"),
            ("/order", "/order"),
            ("/a.js", "/a.js"),
            ("/a b", "/a%20b"),
            ("/api(/|$)(.*)", "/api"),
            ("/api/?(.*)", "/api"),
            ("/v[0-9]+/x", "/v"),
            ("/x.*", "/x"),
            ("/x/.+", "/x/"),
            ("", "/"),
        ] {
            assert_eq!(target(path), expected, "{path}");
        }
    }

    #[test]
    fn hosts_come_out_of_wildcards() {
        assert_eq!(sample(Some("*.a.example")), "fairway-compare.a.example");
        assert_eq!(sample(Some("a.example")), "a.example");
        assert_eq!(sample(None), NO_HOST);
    }

    #[test]
    fn each_path_is_asked_in_all_its_ways() {
        let ingress: Ingress = serde_json::from_value(serde_json::json!({
            "metadata": {"annotations": {
                "nginx.ingress.kubernetes.io/enable-cors": "true",
                "nginx.ingress.kubernetes.io/canary-by-header": "X-Canary",
                "nginx.ingress.kubernetes.io/server-alias": "b.example, *.c.example",
                "nginx.ingress.kubernetes.io/from-to-www-redirect": "true",
            }},
            "spec": {"rules": [{"host": "a.example", "http": {"paths": [{"path": "/x", "pathType": "Prefix", "backend": {}}]}}]},
        }))
        .unwrap();
        let options = Options {
            methods: ["GET", "HEAD", "OPTIONS"].map(str::to_owned).to_vec(),
            host: None,
            scheme: None,
            fields: Vec::new(),
            max_requests: 1000,
        };
        let mut all = Derived { options: &options, collected: Collected::default(), seen: HashSet::new() };
        all.ingress(&ingress, &Origin::new("Ingress", "n", "a"), "nginx.ingress.kubernetes.io");
        let found: Vec<_> =
            all.collected.requests.iter().map(|request| format!("{} {}", request.method, request.url())).collect();
        for expected in [
            "GET http://a.example/x",
            "GET https://a.example/x",
            "HEAD http://a.example/x",
            "OPTIONS https://a.example/x",
            "GET http://a.example/x/",
            "GET http://a.example/x/fairway-compare?a=b",
            "GET http://wrong-host-fairway-compare.a.example/x",
            "GET http://b.example/x",
            "GET http://fairway-compare.c.example/x",
            "GET http://www.a.example/x",
        ] {
            assert!(found.iter().any(|found| found == expected), "{expected} in {found:#?}");
        }
        let with =
            |name: &str| all.collected.requests.iter().filter(|it| it.fields.iter().any(|(n, _)| n == name)).count();
        assert_eq!((with("Origin"), with("X-Canary")), (8, 4));
        assert_eq!(all.collected.requests.len(), all.seen.len());
    }
}
