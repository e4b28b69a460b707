//! The proof of a conversion: requests derived from the Ingresses get the same answers from the routes, or the difference is told.
//!
//! Both sides are explained by the proxy's own decision (`explain`), over the same Services.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use fairway_model::Origin;
use fairway_translate::objects::{Change, Kind, Object, ObjectKey, Objects};
use fairway_translate::options::ECHO_SERVICE_FIELD;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde_json::{Value, json};

use super::assemble::Converted;
use super::gateway::covers;
use crate::compare::{Suggested, suggested};
use crate::explain::{Account, By, ChosenRoute, Explainer};
use crate::reading::{Reading, Source};

/// Who asks: an address within a network of most companies, one on this machine and one of neither, for lists of addresses.
const CLIENTS: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)),
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V4(Ipv4Addr::new(198, 51, 100, 1)),
];

/// A request that is answered in another way.
#[derive(Debug, Serialize)]
pub(super) struct Difference {
    /// The Ingress that the request was derived from.
    pub(super) object: String,
    pub(super) request: String,
    pub(super) what: &'static str,
    pub(super) before: String,
    pub(super) after: String,
    /// How many requests it stands for: other methods and clients, and all paths of a host that is not served over https.
    pub(super) requests: usize,
}

/// The result of the comparison.
#[derive(Debug, Default)]
pub(super) struct Proof {
    /// How many requests were asked.
    pub(super) asked: usize,
    /// How many of them are answered in another way.
    pub(super) different: usize,
    pub(super) differences: Vec<Difference>,
    /// Ingresses that would let through what they keep out now, each with the reason.
    pub(super) wider: BTreeMap<String, String>,
}

/// Filters that keep requests out.
const CHECKS: [&str; 9] = [
    "access_list",
    "access_list_or_auth",
    "access_rules",
    "basic_auth",
    "block",
    "client_limits",
    "external_auth",
    "refuse",
    "snippet",
];

/// What is asked, and how the Ingresses answer: the same for each conversion of them.
pub(super) struct Before<'r> {
    reading: &'r Reading,
    requests: Vec<Suggested>,
    explainer: Explainer<'r>,
}

impl<'r> Before<'r> {
    pub(super) fn new(reading: &'r Reading) -> Self {
        Self { reading, requests: suggested(reading), explainer: Explainer::new(reading) }
    }
}

/// Asks the Ingresses that have been converted, and the objects that they have become. Of the same difference for several methods and
/// clients the first is told; there is none where something is wider, since that is not kept.
pub(super) fn prove(before: &Before<'_>, converted: &Converted) -> anyhow::Result<Proof> {
    let reading = before.reading;
    let is_done = |origin: &Origin| {
        let key = ObjectKey::new(Kind::Ingress, &*origin.namespace, &*origin.name);
        *origin.kind == *"Ingress" && converted.done.contains(&key)
    };
    // Without the Ingresses that became routes: what answers for them now are the routes.
    let kept = reading.objects.in_order().into_iter().filter(|object| {
        let key = object.key();
        !(key.kind == Kind::Ingress && is_done(&key.origin()))
    });
    let mut objects: Objects = kept.cloned().collect();
    let missing = converted.certificates.iter().filter(|key| objects.get(key).is_none()).cloned().collect::<Vec<_>>();
    if !missing.is_empty() {
        let stand_in = rcgen::generate_simple_self_signed(["any.example".to_owned()])?;
        for key in missing {
            objects.apply(Change::Upsert(certificate(&key, &stand_in).into()));
        }
    }
    // The order of objects without a creation time is that of reading: that of these must not matter.
    let turned = has_patterns(converted).then(|| side(reading, objects.clone(), converted.objects.iter().rev()));
    let after = side(reading, objects, converted.objects.iter())?;
    let turned = turned.transpose()?;
    let after: Vec<_> = [Some(&after), turned.as_ref()].into_iter().flatten().map(Explainer::new).collect();
    let (mut proof, mut seen) = (Proof::default(), BTreeMap::new());
    for (request, client) in before.requests.iter().flat_map(|one| CLIENTS.map(|client| (one, client))) {
        let ask = |side: &Explainer<'_>| side.account(&request.method, &request.url, &request.fields, client);
        let Some(before) = ask(&before.explainer) else { continue };
        let Some(after) = after.iter().map(ask).collect::<Option<Vec<_>>>() else { continue };
        let told = format!("{} {}", request.method, request.url);
        for now in &after {
            let Some(why) = wider(&before, now, &request.url) else { continue };
            // Also requests of Ingresses that stay: a route may take them now.
            let by = now.route.as_ref().and_then(|route| {
                let name = route.name.object.split('#').next().unwrap_or_default();
                converted.routes.get(name).cloned()
            });
            let asked_for = || request.origin.as_ref().filter(|origin| is_done(origin)).map(ToString::to_string);
            if let Some(by) = by.or_else(asked_for) {
                proof.wider.entry(by).or_insert_with(|| format!("{told} would be less restricted: {why}"));
            }
        }
        if !proof.wider.is_empty() {
            continue;
        }
        let mut origins = request.origin.iter().chain(&request.beside);
        let Some(origin) = origins.find(|origin| is_done(origin)) else { continue };
        let host = request.url.strip_prefix("https://").and_then(|rest| rest.split(['/', '?', ':']).next());
        let unsecured = host.filter(|host| !converted.secured.iter().any(|known| known == host || covers(known, host)));
        // Any name is answered with a self-signed certificate there, for which nobody asked.
        if unsecured.is_some() && reading.options.default_ssl_certificate.is_none() {
            continue;
        }
        proof.asked += 1;
        let found = after.iter().find_map(|now| differences(&before, now));
        let Some((what, before, after)) = found else { continue };
        let (what, key) = match unsecured {
            Some(host) => ("https", host),
            None => (what, &*request.url),
        };
        proof.different += 1;
        if let Some(at) = seen.get(&(origin.clone(), what, key.to_owned())) {
            let known: &mut Difference = &mut proof.differences[*at];
            known.requests += 1;
            continue;
        }
        seen.insert((origin.clone(), what, key.to_owned()), proof.differences.len());
        let (before, after) = match what {
            "https" => {
                ("served with the default certificate".to_owned(), "not served: there is no certificate".to_owned())
            }
            _ => (before, after),
        };
        let object = origin.to_string();
        proof.differences.push(Difference { object, request: told, what, before, after, requests: 1 });
    }
    Ok(proof)
}

/// Whether the order of routes may count.
fn has_patterns(converted: &Converted) -> bool {
    converted.placed.iter().any(|one| one.matched.is_pattern())
}

/// What is served with these objects in addition, read in this order.
fn side<'o>(
    reading: &Reading,
    mut objects: Objects,
    more: impl Iterator<Item = &'o Object>,
) -> anyhow::Result<Reading> {
    for object in more {
        objects.apply(Change::Upsert(object.clone()));
    }
    let translation = fairway_translate::translate(&objects, &reading.options, jiff::Timestamp::now().as_second());
    let after = Reading::of(objects, translation, reading.options.clone())?;
    Ok(Reading { source: Source::Files, ..after })
}

/// Files rarely have the Secrets with certificates; without them their listeners would be closed.
fn certificate(key: &ObjectKey, stand_in: &rcgen::CertifiedKey<rcgen::KeyPair>) -> Secret {
    let text = |text: String| ByteString(text.into_bytes());
    let data = [
        ("tls.crt".to_owned(), text(stand_in.cert.pem())),
        ("tls.key".to_owned(), text(stand_in.signing_key.serialize_pem())),
    ];
    let metadata = ObjectMeta {
        namespace: Some(key.namespace.to_string()),
        name: Some(key.name.to_string()),
        ..ObjectMeta::default()
    };
    Secret { metadata, data: Some(data.into()), ..Secret::default() }
}

/// Whether a request reaches a backend that is kept from it now, or reaches it in the clear, or past a check.
fn wider(before: &Account, after: &Account, url: &str) -> Option<String> {
    if after.answer.by != By::Backend {
        return None;
    }
    let is_of_ingress = before.route.as_ref().is_some_and(|route| route.name.object.starts_with("Ingress "));
    match (before.answer.status, &before.answer.location) {
        // Nobody had the path.
        (Some(404), _) if !is_of_ingress => {}
        (Some(status @ 400..), _) => return Some(format!("it gets {status} now")),
        (Some(300..=399), Some(location)) if location.starts_with("https:") && url.starts_with("http:") => {
            return Some("it is sent to https now".to_owned());
        }
        _ => {}
    }
    let checks = |account: &Account| -> BTreeSet<&'static str> {
        account.filters.iter().map(|step| step.filter).filter(|filter| CHECKS.contains(filter)).collect()
    };
    let lost: Vec<_> = checks(before).difference(&checks(after)).copied().collect();
    (!lost.is_empty() && before.answer.by == By::Backend).then(|| format!("{} is missing", lost.join(", ")))
}

/// The first part of an answer that differs.
fn differences(before: &Account, after: &Account) -> Option<(&'static str, String, String)> {
    // A path that leads nowhere is refused on both sides, if for another reason.
    let is_written =
        |route: &ChosenRoute| ["rules[", "defaultBackend"].iter().any(|part| route.name.object.contains(part));
    let is_refused = |account: &Account| account.answer.status.is_some_and(|status| status >= 400);
    if !before.route.as_ref().is_some_and(is_written) && is_refused(before) && after.answer.status == Some(404) {
        return None;
    }
    let (one, other) = (comparable(before), comparable(after));
    let found = one.iter().zip(&other).find(|(one, other)| one != other);
    found.map(|((what, value), (_, other))| (*what, in_words(what, value, other), in_words(what, other, value)))
}

/// One side of a difference, for people; of lists what the other side lacks.
fn in_words(what: &str, value: &Value, other: &Value) -> String {
    match value {
        Value::Null if what == "status" => "passed to the backend".to_owned(),
        Value::Null => "nothing".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => {
            let others = other.as_array().map(Vec::as_slice).unwrap_or_default();
            let own = items.iter().filter(|item| !others.contains(item)).map(|item| in_words("", item, &Value::Null));
            let own: Vec<_> = own.collect();
            if own.is_empty() { "nothing more".to_owned() } else { own.join(", ") }
        }
        Value::Object(fields) => {
            let own = fields.iter().filter(|(name, value)| other.get(name) != Some(value));
            let own = own.map(|(name, value)| format!("{name} {}", in_words("", value, &Value::Null)));
            own.collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

/// What a client and a backend see, by what it is about, the most important first.
fn comparable(account: &Account) -> Vec<(&'static str, Value)> {
    let forward = account.forward.as_ref();
    // What was not reached says nothing: a refusal may come at another place.
    let forward = forward.filter(|_| account.answer.status.is_none());
    let fields = |names: &mut dyn Iterator<Item = (String, String)>| {
        let mut all: Vec<_> = names.map(|(name, value)| format!("{name}: {value}")).collect();
        all.sort();
        json!(all)
    };
    let sent = forward.and_then(|forward| forward.request.as_ref());
    // Each side has an id of its own for the request, and tells the echo its own name of the Service.
    let own = ["x-request-id", ECHO_SERVICE_FIELD];
    let of_message = |name: &str| own.iter().all(|own| !name.eq_ignore_ascii_case(own));
    // Both sides of `https://a` and `https://a/` are the same to a client; other slashes at the end are told once.
    let location = account.answer.location.as_deref().map(|location| location.trim_end_matches('/'));
    vec![
        ("status", json!(account.answer.status)),
        ("location", json!(location)),
        // A port may have a name on one side, and its number on the other.
        ("service", json!(forward.map(|forward| &forward.service))),
        ("endpoints", json!(forward.map(|forward| &forward.endpoints))),
        ("limits", json!(forward.map(|forward| &forward.limits))),
        ("target", json!(sent.map(|sent| format!("{} {}", sent.method, sent.target)))),
        ("request fields", {
            let all = sent.iter().flat_map(|sent| &sent.fields).filter(|field| of_message(&field.name));
            fields(&mut all.map(|field| (field.name.to_ascii_lowercase(), field.value.clone())))
        }),
        ("response fields", {
            let others = account.response.iter().filter(|field| !field.name.eq_ignore_ascii_case("location"));
            let all = others.map(|field| {
                (
                    field.name.to_ascii_lowercase(),
                    format!("{} {}", field.change, field.value.as_deref().unwrap_or_default()),
                )
            });
            fields(&mut all.into_iter())
        }),
    ]
}
