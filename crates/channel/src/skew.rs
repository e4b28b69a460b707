//! Resources of other releases: `tests/fixtures/VERSION.json` holds what that release sends. `UPDATE_FIXTURES=1` writes that of this one.

use std::path::PathBuf;
use std::sync::Arc;

use fairway_model::{
    Action, Certificate, Endpoint, EndpointSet, Endpoints, Host, HostPattern, Origin, PathMatch, PrivateKey, Resource,
    Respond, Route, Settings,
};
use serde_json::{Map, Value};

use crate::resource::{Encoded, Version, read};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// What this release sends, as text by name.
fn current() -> Map<String, Value> {
    let route = |path: &str, status| {
        let path = PathMatch::prefix(path).unwrap();
        Route::new(
            Origin::new("Ingress", "shop", "web").section("rules[0]"),
            path,
            Action::Respond(Respond::page(status)),
        )
    };
    let host = HostPattern::parse("*.shop.example").unwrap();
    let endpoints = Endpoints::Addresses(vec![Endpoint::ready(([10, 0, 0, 1], 80).into())]);
    let certificate = Certificate {
        name: "shop/tls".into(),
        origin: Origin::new("Secret", "shop", "tls"),
        fingerprint: "00".into(),
        not_after: 4_000_000_000,
        chain: vec![Arc::from(*b"certificate")],
        key: PrivateKey::new(*b"key"),
    };
    let resources: [Resource; 4] = [
        Settings::default().into(),
        Host::new("ingress".into(), host, vec![route("/order", 200), route("/", 404)]).into(),
        EndpointSet { backend: "shop/cart:80".into(), endpoints }.into(),
        certificate.into(),
    ];
    let encoded = resources.iter().map(|resource| Encoded::new(resource).unwrap());
    encoded.map(|one| (one.name.to_string(), serde_json::from_slice(&one.body).unwrap())).collect()
}

/// The same value with one more field, in each of its objects in turn.
fn with_one_more(value: &Value) -> Vec<Value> {
    let mut all = Vec::new();
    match value {
        Value::Object(object) => {
            let mut more = object.clone();
            more.insert("of_a_newer_release".to_owned(), Value::Bool(true));
            all.push(Value::Object(more));
            for (key, value) in object {
                all.extend(with_one_more(value).into_iter().map(|changed| {
                    let mut object = object.clone();
                    object.insert(key.clone(), changed);
                    Value::Object(object)
                }));
            }
        }
        Value::Array(list) => {
            for (at, value) in list.iter().enumerate() {
                all.extend(with_one_more(value).into_iter().map(|changed| {
                    let mut list = list.clone();
                    list[at] = changed;
                    Value::Array(list)
                }));
            }
        }
        _ => {}
    }
    all
}

fn taken(name: &str, body: &Value) -> Result<Resource, crate::resource::Unreadable> {
    let body = serde_json::to_vec(body).unwrap();
    read(name, Version::of(&body), &body)
}

#[test]
fn the_fixture_of_this_release_is_what_it_sends() {
    let path = folder().join(concat!(env!("CARGO_PKG_VERSION"), ".json"));
    let text = serde_json::to_string_pretty(&current()).unwrap() + "\n";
    if std::env::var_os("UPDATE_FIXTURES").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        kept == text,
        "resources have another form than {}: if that release is not out, UPDATE_FIXTURES=1 rewrites it; if it is, raise the version",
        path.display()
    );
}

#[test]
fn what_any_release_sends_is_understood_and_nothing_of_a_newer_one_is_left_out() {
    let mut changes = 0;
    for entry in std::fs::read_dir(folder()).unwrap() {
        let (path, text) = entry.map(|entry| (entry.path(), std::fs::read(entry.path()).unwrap())).unwrap();
        let fixture: Map<String, Value> = serde_json::from_slice(&text).unwrap();
        assert!(!fixture.is_empty());
        for (name, body) in &fixture {
            taken(name, body).unwrap_or_else(|error| panic!("{name} of {}: {error}", path.display()));
            for newer in with_one_more(body) {
                changes += 1;
                // Either it is refused, or it is a key of a map, and is kept.
                if let Ok(resource) = taken(name, &newer) {
                    let again = Encoded::new(&resource).unwrap().body;
                    assert!(String::from_utf8_lossy(&again).contains("of_a_newer_release"), "{name}: {newer}");
                }
            }
        }
    }
    assert!(changes > 20, "only {changes} changes");
}
