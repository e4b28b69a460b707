//! The output of a case: the model without its usual values, the diagnostics, and the destinations of requests.

use std::collections::BTreeMap;
use std::fmt::Write;

use fairway_model::client::Arrival;
use fairway_model::decision::{Forwarding, Received, Scratch, SnapshotFacts, Start, Step, Wait, decide};
use fairway_model::{
    ForwardPolicy, HostAndPort, HostPattern, RequestView, Scheme, Snapshot, TableName, Target, Transport,
    canonical_host,
};
use fairway_translate::Translation;
use fairway_translate::gateway::Make;
use fairway_translate::gateway::status::{Condition, ListenerStatus, ObjectStatus};
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
    // It is not written directly, because it has enums within enums.
    let telemetries = serde_json::to_value(snapshot.telemetries().collect::<Vec<_>>())?;
    section("tracing", serde_norway::to_value(telemetries)?)?;
    if shows("settings") {
        section("settings", pruned(&changed_settings(snapshot)?)?)?;
    }
    if shows("listeners") {
        let listeners = snapshot.listeners().map(|one| {
            let proxy = if one.accept_proxy { ", reads PROXY" } else { "" };
            let told = one.told_port.number(one.scheme, one.address.port());
            let told = if one.told_port.is_usual() { String::new() } else { format!(", tells port {told}") };
            format!("{} {} {}{proxy}{told}", one.name, one.scheme, one.address).into()
        });
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
    let statuses: Mapping =
        translation.statuses.iter().map(|(key, status)| (key.to_string().into(), lines_of(status).into())).collect();
    section("statuses", statuses.into())?;
    let made: Mapping = translation.made.iter().map(|(key, make)| (key.to_string().into(), made(make))).collect();
    section("made", made.into())?;
    Ok(out)
}

/// An object that is created for a Gateway.
fn made(make: &Make) -> Value {
    match make {
        Make::Apply(object) => serde_norway::to_value(&**object).unwrap_or_default(),
        Make::Delete => "deleted".into(),
    }
}

/// A status, one condition per line.
fn lines_of(status: &ObjectStatus) -> Vec<Value> {
    let mut lines: Vec<String> = Vec::new();
    let mut add = |place: &str, conditions: &[Condition]| {
        lines.extend(conditions.iter().map(|condition| format!("{place}{condition}")));
    };
    match status {
        ObjectStatus::Class { conditions, .. } => add("", conditions),
        ObjectStatus::Gateway { conditions, listeners, addresses, attached_listener_sets } => {
            add("", conditions);
            lines.extend(addresses.iter().flatten().map(|address| format!("address {}", address.value)));
            lines.extend((*attached_listener_sets > 0).then(|| format!("{attached_listener_sets} ListenerSets")));
            lines.extend(listeners.iter().flat_map(lines_of_listener));
        }
        ObjectStatus::ListenerSet { conditions, listeners } => {
            add("", conditions);
            lines.extend(listeners.iter().flat_map(lines_of_listener));
        }
        ObjectStatus::Policy { ancestors } => {
            for one in ancestors {
                add(&format!("{} ", one.ancestor_ref.name), &one.conditions);
            }
        }
        ObjectStatus::Route { parents } => {
            for parent in parents {
                let section = parent.parent_ref.section_name.as_deref().map(|name| format!("#{name}"));
                let port = parent.parent_ref.port.map(|port| format!(":{port}"));
                let (section, port) = (section.unwrap_or_default(), port.unwrap_or_default());
                add(&format!("{}{section}{port} ", parent.parent_ref.name), &parent.conditions);
            }
        }
    }
    lines.into_iter().map(Value::from).collect()
}

fn lines_of_listener(listener: &ListenerStatus) -> Vec<String> {
    let kinds: Vec<_> = listener.supported_kinds.iter().map(|kind| kind.kind).collect();
    let place = format!("{} ({}; {} routes) ", listener.name, kinds.join(", "), listener.attached_routes);
    // Conditions that every good listener has are left out.
    let told = listener.conditions.iter().filter(|one| !matches!(one.reason, "NoConflicts"));
    told.map(|condition| format!("{place}{condition}")).collect()
}

/// The settings that differ from the default.
fn changed_settings(snapshot: &Snapshot) -> Result<Mapping, Failed> {
    let default = serde_norway::to_value(fairway_model::Settings::default())?;
    let Value::Mapping(all) = serde_norway::to_value(snapshot.settings())? else { return Ok(Mapping::new()) };
    Ok(all.into_iter().filter(|(key, value)| default.get(key) != Some(value)).collect())
}

/// The value without properties that all routes share, and with origins as one text.
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
        // Certificates are created in each run.
        Value::Tagged(tagged) if tagged.tag == "Authorities" => {
            let count = tagged.value.as_sequence().map_or(0, Vec::len);
            tagged.value = format!("{count} certificates").into();
        }
        Value::Tagged(tagged) => prune(&mut tagged.value, policy),
        Value::Mapping(map) => {
            for name in ["authorities", "revocation_lists"] {
                if let Some(Value::Sequence(all)) = map.get(name) {
                    let count = format!("{} in DER", all.len());
                    map.insert(name.into(), count.into());
                }
            }
            if map.get("policy").is_some_and(|found| found == policy || is_usual(found, policy)) {
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

/// Whether a policy is the usual one of the Gateway API, which has no limit for bodies.
fn is_usual(found: &Value, policy: &Value) -> bool {
    let without = |policy: &Value| {
        let mut policy = policy.clone();
        policy.as_mapping_mut().and_then(|map| map.remove("max_body"));
        policy
    };
    found.get("max_body").and_then(Value::as_u64) == Some(u64::MAX) && without(found) == without(policy)
}

/// An endpoint as one text: its address, and its unusual properties.
fn endpoint(value: &Value) -> Option<String> {
    let (address, state) = (value.get("address")?.as_str()?, value.get("state")?.as_str()?);
    Some(if state == "Ready" { address.to_owned() } else { format!("{address} {state}") })
}

/// The decision about a request, made as in the proxy. It comes from 192.0.2.1.
fn answer(snapshot: &Snapshot, url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let (authority, target) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let head = RequestView {
        method: b"GET",
        raw_target: target.as_bytes(),
        target: Target::Path(path.as_bytes(), query.map(str::as_bytes)),
        authority: Some(HostAndPort { text: authority.as_bytes(), canonical: None }),
        length: None,
        fields: &[][..],
    };
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    // The port that the URL names, or that of the scheme.
    let port = authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
    let door = snapshot.listeners().find(|one| one.scheme == scheme && Some(one.address.port()) == port);
    let usual = || snapshot.listeners().find(|one| one.name.as_str() == scheme.as_str());
    let table = door.or_else(usual).map_or_else(|| TableName::from("ingress"), |listener| listener.table.clone());
    let local = ([192, 0, 2, 2], port.unwrap_or(scheme.default_port())).into();
    let arrival = Arrival::new(([192, 0, 2, 1], 50_000).into(), local, scheme);
    let received = Received { head, arrival: &arrival, table: &table };
    let mut scratch = Scratch::default();
    let plan = decide(snapshot, &received, &mut SnapshotFacts(snapshot), Start::Head, &mut scratch);
    let mut line = url.to_owned();
    let mut name = Vec::new();
    if scheme == Scheme::Https
        && let Some(name) = canonical_host(authority.as_bytes(), &mut name)
    {
        if let Some(passthrough) = snapshot.passthrough(&table, name) {
            let backend = passthrough.backend.as_ref().map_or("closed".to_owned(), ToString::to_string);
            if passthrough.terminate {
                let certificate = snapshot.certificate_for(&table, Some(name)).map(|one| one.name.as_str());
                let certificate = certificate.unwrap_or("self-signed");
                return format!("{line} [{certificate}] -> passed on by {} -> {backend}", passthrough.origin);
            }
            return format!("{line} -> passed through by {} -> {backend}", passthrough.origin);
        }
        let certificate = snapshot.certificate_for(&table, Some(name)).map(|certificate| certificate.name.as_str());
        let alternative = snapshot.alternative_certificate_for(&table, name);
        let alternative = alternative.map(|certificate| format!(" or {}", certificate.name)).unwrap_or_default();
        let _ = write!(line, " [{}{alternative}]", certificate.unwrap_or("self-signed"));
    }
    if let Some(host) = plan.host {
        let route = plan.route.map_or("no route".to_owned(), |route| route.path.to_string());
        let _ = write!(line, " -> {} {route}", host.pattern());
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let outcome = match plan.step {
        Step::Forward(Forwarding { open: false, backend, .. }) => format!("{backend}, no endpoints"),
        Step::Forward(forwarding) => format!("{} {}", forwarding.backend, text(&scratch.target)),
        Step::Redirect(status) => format!("{status} to {}", text(&scratch.location)),
        Step::Respond(respond) => match plan.refusal() {
            Some(refusal) => format!("{}, {}", respond.status, refusal.reason),
            None => respond.status.to_string(),
        },
        Step::Deny => "denied".to_owned(),
        Step::Fail(failure) => format!("{}, {failure}", failure.status()),
        Step::Wait(Wait::Password(_)) => "name and password".to_owned(),
        Step::Wait(Wait::ExternalAuth(auth)) => format!("ask {}", auth.forward.backends),
    };
    format!("{line} -> {outcome}")
}
