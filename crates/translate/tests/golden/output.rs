//! The output of a case: the model without what is the same everywhere, the diagnostics, and where requests go.

use std::collections::BTreeMap;
use std::fmt::Write;

use fairway_model::path::{Scratch, canonicalize};
use fairway_model::{
    Action, Filter, ForwardPolicy, HostPattern, Location, PathMatch, Route, Snapshot, TableName, Transport,
    canonical_host,
};
use fairway_translate::Translation;
use libtest_mimic::Failed;
use serde::Serialize;
use serde_norway::{Mapping, Value};

use super::input::Ready;

pub(crate) fn render(case: &Ready, translation: &Translation) -> Result<String, Failed> {
    let snapshot = &translation.snapshot;
    let mut out = format!("# {}\n", case.about.trim().replace('\n', "\n# "));
    let mut section = |name: &str, value: Value| -> Result<(), Failed> {
        let empty = value.as_sequence().is_some_and(Vec::is_empty) || value.as_mapping().is_some_and(Mapping::is_empty);
        if !empty {
            let mut all = Mapping::new();
            all.insert(name.into(), value);
            out.push_str(&serde_norway::to_string(&all)?);
        }
        Ok(())
    };
    let shows = |name: &str| case.show.iter().any(|shown| shown == name);
    let requests: Vec<Value> = case.requests.iter().map(|request| answer(snapshot, request).into()).collect();
    section("requests", requests.into())?;
    let hosts = snapshot.hosts();
    let shown = hosts.iter().filter(|host| shows("catch-all") || *host.pattern() != HostPattern::Any);
    section("hosts", pruned(&shown.collect::<Vec<_>>())?)?;
    section("backends", pruned(&snapshot.backends())?)?;
    let endpoints: BTreeMap<&str, _> =
        snapshot.endpoint_sets().into_iter().map(|set| (set.backend.as_str(), &set.endpoints)).collect();
    section("endpoints", pruned(&endpoints)?)?;
    let certificates: Vec<&str> = snapshot.certificates().into_iter().map(|one| one.name.as_str()).collect();
    section("certificates", serde_norway::to_value(certificates)?)?;
    if shows("settings") {
        section("settings", pruned(&changed_settings(snapshot)?)?)?;
    }
    if shows("listeners") {
        let listeners = snapshot.listeners().map(|one| format!("{} {} {}", one.name, one.scheme, one.address).into());
        section("listeners", listeners.collect::<Vec<Value>>().into())?;
    }
    let streams = snapshot.stream_listeners().map(|one| {
        let mut line = format!("{} {} {} -> {}", one.name, one.transport, one.address, one.backend);
        if let Transport::Tcp { accept_proxy, send_proxy } = one.transport {
            line.push_str(if accept_proxy { ", reads PROXY" } else { "" });
            line.push_str(if send_proxy { ", sends PROXY" } else { "" });
        }
        Value::from(format!("{line} ({})", one.origin))
    });
    section("streams", streams.collect::<Vec<_>>().into())?;
    let diagnostics: Vec<Value> = translation
        .diagnostics
        .iter()
        .map(|found| format!("{:?} {}: {found}", found.severity, found.reason).into())
        .collect();
    section("diagnostics", diagnostics.into())?;
    let served: Vec<Value> =
        translation.served.iter().map(|key| format!("{}/{}", key.namespace, key.name).into()).collect();
    section("served", served.into())?;
    Ok(out)
}

/// The settings that are not the default.
fn changed_settings(snapshot: &Snapshot) -> Result<Mapping, Failed> {
    let default = serde_norway::to_value(fairway_model::Settings::default())?;
    let Value::Mapping(all) = serde_norway::to_value(snapshot.settings())? else { return Ok(Mapping::new()) };
    Ok(all.into_iter().filter(|(key, value)| default.get(key) != Some(value)).collect())
}

/// As a value, without what every route says, and with origins as one text.
fn pruned(value: &impl Serialize) -> Result<Value, Failed> {
    let default_policy = serde_norway::to_value(ForwardPolicy::default())?;
    let mut value = serde_norway::to_value(value)?;
    prune(&mut value, &default_policy);
    Ok(value)
}

fn prune(value: &mut Value, policy: &Value) {
    if let Some(line) = endpoint(value) {
        *value = line.into();
        return;
    }
    match value {
        Value::Sequence(all) => all.iter_mut().for_each(|one| prune(one, policy)),
        Value::Tagged(tagged) => prune(&mut tagged.value, policy),
        Value::Mapping(map) => {
            if map.get("policy") == Some(policy) {
                map.remove("policy");
            }
            if map.get("access_log") == Some(&Value::Bool(true)) {
                map.remove("access_log");
            }
            if map.get("table").and_then(Value::as_str) == Some("ingress") {
                map.remove("table");
            }
            if map.get("protocol").and_then(Value::as_str) == Some("Http1") {
                map.remove("protocol");
            }
            if map.get("balance").and_then(Value::as_str) == Some("RoundRobin") {
                map.remove("balance");
            }
            if let Some(origin) = map.get_mut("origin") {
                let text = |key: &str| origin.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
                let (kind, namespace, name, section) = (text("kind"), text("namespace"), text("name"), text("section"));
                let mut line = format!("{kind} {namespace}/{name}");
                if !section.is_empty() {
                    let _ = write!(line, "#{section}");
                }
                *origin = line.into();
            }
            map.iter_mut().for_each(|(_, one)| prune(one, policy));
        }
        _ => {}
    }
}

/// An endpoint as one text: its address, and what is not as usual.
fn endpoint(value: &Value) -> Option<String> {
    let (address, state) = (value.get("address")?.as_str()?, value.get("state")?.as_str()?);
    Some(if state == "Ready" { address.to_owned() } else { format!("{address} {state}") })
}

/// Where a request goes, found by the model's own matching.
fn answer(snapshot: &Snapshot, url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let at = rest.find('/').unwrap_or(rest.len());
    let (authority, target) = rest.split_at(at);
    let raw = target.split('?').next().filter(|path| !path.is_empty()).unwrap_or("/");
    let (mut host_scratch, mut scratch) = (Vec::new(), Scratch::default());
    let Some(name) = canonical_host(authority.as_bytes(), &mut host_scratch) else {
        return format!("{url}: 400, bad host");
    };
    let path = match canonicalize(raw.as_bytes(), &mut scratch) {
        Ok(path) => path,
        Err(error) => return format!("{url}: 400, {error}"),
    };
    let table = TableName::from("ingress");
    let Some(host) = snapshot.host(&table, name) else { return format!("{url}: no host") };
    let tls = if scheme == "https" {
        match snapshot.certificate_for(&table, Some(name)) {
            Some(certificate) => format!(" [{}]", certificate.name),
            None => " [self-signed]".to_owned(),
        }
    } else {
        String::new()
    };
    match host.route(path.matched) {
        Some(route) => format!(
            "{url}{tls} -> {} {} -> {}",
            host.pattern(),
            route.path,
            told(snapshot, route, scheme, path.matched)
        ),
        None => format!("{url}{tls} -> {} no route", host.pattern()),
    }
}

fn told(snapshot: &Snapshot, route: &Route, scheme: &str, path: &[u8]) -> String {
    let mut seen = String::from_utf8_lossy(path).into_owned();
    for filter in &route.filters {
        match filter {
            Filter::HttpsRedirect(redirect) if scheme == "http" => return format!("{} to https", redirect.status),
            Filter::RequireEndpoints if !has_endpoints(snapshot, route) => return "503, no endpoints".to_owned(),
            Filter::NotFoundWithoutEndpoints if !has_endpoints(snapshot, route) => {
                return "404, no endpoints".to_owned();
            }
            Filter::Refuse(refusal) => return format!("503, {}", refusal.reason),
            Filter::Rewrite(rewrite) => {
                if let PathMatch::Regex(regex) = &route.path {
                    let mut new = Vec::new();
                    let _ = regex.rewrite(path, &rewrite.target, usize::MAX, &mut new);
                    seen = String::from_utf8_lossy(&new).into_owned();
                }
            }
            _ => {}
        }
    }
    match &route.action {
        Action::Forward(forward) => format!("{} {seen}", forward.backend),
        Action::Respond(respond) => respond.status.to_string(),
        Action::Redirect(redirect) => {
            let location = match &redirect.location {
                Location::Fixed(text) => text.to_string(),
                Location::Captures(template) => match &route.path {
                    PathMatch::Regex(regex) => {
                        let mut new = Vec::new();
                        let _ = regex.rewrite(path, template, usize::MAX, &mut new);
                        String::from_utf8_lossy(&new).into_owned()
                    }
                    _ => template.text().to_owned(),
                },
                Location::AppRoot(path) => format!("app root {path}"),
                Location::AppendSlash => format!("{seen}/"),
                Location::OtherHost(host) => format!("host {host}"),
            };
            format!("{} to {location}", redirect.status)
        }
    }
}

fn has_endpoints(snapshot: &Snapshot, route: &Route) -> bool {
    let Action::Forward(forward) = &route.action else { return true };
    [Some(&forward.backend), forward.fallback.as_ref()].into_iter().flatten().any(|backend| {
        snapshot.endpoint_set(backend).is_some_and(|set| match &set.endpoints {
            fairway_model::Endpoints::Addresses(all) => !all.is_empty(),
            fairway_model::Endpoints::Name { .. } => true,
        })
    })
}
