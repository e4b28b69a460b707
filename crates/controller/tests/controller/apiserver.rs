//! An in-memory API server: lists, watches, versions, conflicts and subresources like the real one's, and a switch for
//! each kind of misbehaviour. Requests don't leave the process, so tests run on a paused clock.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures::channel::mpsc;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::timeout;

type Answer = Response<UnsyncBoxBody<Bytes, io::Error>>;
type Line = Result<Frame<Bytes>, io::Error>;

/// Clones are the same server.
#[derive(Clone)]
pub(crate) struct ApiServer {
    state: Arc<Mutex<State>>,
    /// Counts events, for waiting.
    activity: watch::Sender<u64>,
}

/// One request as received.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) body: Value,
    /// Whether the request was for metadata only.
    pub(crate) metadata: bool,
}

/// Resource in the plural, namespace (or empty) and name.
type Key = (String, String, String);

#[derive(Default)]
struct State {
    version: u64,
    uids: u64,
    objects: BTreeMap<Key, Value>,
    log: Vec<(u64, Key, &'static str, Value)>,
    /// Versions up to this one can no longer be watched from.
    compacted: u64,
    watches: Vec<Watch>,
    asked: Vec<Asked>,
    faults: Vec<Fault>,
    /// Resources of the Gateway API whose CRD doesn't exist, according to discovery.
    undefined: BTreeSet<&'static str>,
    away: bool,
}

struct Watch {
    resource: String,
    namespace: Option<String>,
    name: Option<String>,
    metadata: bool,
    lines: mpsc::UnboundedSender<Line>,
}

struct Fault {
    method: &'static str,
    part: &'static str,
    code: u16,
    times: usize,
}

impl ApiServer {
    pub(crate) fn start() -> Self {
        Self { state: Arc::default(), activity: watch::Sender::new(0) }
    }

    /// A client whose requests fail once `cut` is set.
    pub(crate) fn client(&self, cut: Arc<AtomicBool>) -> kube::Client {
        let server = self.clone();
        let service = tower::service_fn(move |request| {
            let (server, cut) = (server.clone(), cut.load(Ordering::Relaxed));
            async move { if cut { Err(unreachable()) } else { server.serve(request).await } }
        });
        kube::Client::new(service, "default")
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Creates or replaces an object as a user would.
    pub(crate) fn put(&self, object: Value) {
        let key = key_of(&object);
        self.lock().store(key, object);
        self.active();
    }

    /// Deletes an object.
    pub(crate) fn delete(&self, resource: &str, namespace: &str, name: &str) {
        self.lock().remove(&(resource.into(), namespace.into(), name.into()));
        self.active();
    }

    /// The current version of an object.
    pub(crate) fn get(&self, resource: &str, namespace: &str, name: &str) -> Option<Value> {
        self.lock().objects.get(&(resource.into(), namespace.into(), name.into())).cloned()
    }

    /// All objects of a resource.
    pub(crate) fn all(&self, resource: &str) -> Vec<Value> {
        let state = self.lock();
        state.objects.iter().filter(|((of, ..), _)| of == resource).map(|(_, object)| object.clone()).collect()
    }

    /// Ends all watches, as a restart of the API server does.
    pub(crate) fn disconnect(&self) {
        self.lock().watches.clear();
    }

    /// Whether connections fail.
    pub(crate) fn set_away(&self, away: bool) {
        self.lock().away = away;
        if away {
            self.disconnect();
        }
    }

    /// Forgets all versions, so that no watch can be resumed.
    pub(crate) fn compact(&self) {
        let mut state = self.lock();
        state.version += 1;
        state.compacted = state.version;
        state.log.clear();
    }

    /// Answers the next requests with this method, and with this part in path or query, with an error code.
    pub(crate) fn fail(&self, method: &'static str, part: &'static str, code: u16, times: usize) {
        self.lock().faults.push(Fault { method, part, code, times });
    }

    /// Whether the CRD of a resource of the Gateway API exists, according to discovery.
    pub(crate) fn define(&self, resource: &'static str, defined: bool) {
        let undefined = &mut self.lock().undefined;
        if defined {
            undefined.remove(resource)
        } else {
            undefined.insert(resource)
        };
    }

    /// Removes all faults.
    pub(crate) fn heal(&self) {
        self.lock().faults.clear();
    }

    /// The requests so far with this method and this part in path or query.
    pub(crate) fn asked(&self, method: &str, part: &str) -> Vec<Asked> {
        let state = self.lock();
        let matches = |asked: &&Asked| asked.method == method && asked.target.contains(part);
        state.asked.iter().filter(matches).cloned().collect()
    }

    /// Waits until the condition holds; checks again after each request and each change.
    pub(crate) async fn until(&self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let mut activity = self.activity.subscribe();
        let wait = async {
            while !holds(self) {
                // An hour on a paused clock passes at once, but only if nothing else can happen.
                activity.changed().await.unwrap();
            }
        };
        let seen =
            || self.lock().asked.iter().map(|asked| format!("{} {}\n", asked.method, asked.target)).collect::<String>();
        assert!(timeout(Duration::from_secs(3600), wait).await.is_ok(), "waited for {what}; requests were\n{}", seen());
    }

    fn active(&self) {
        self.activity.send_modify(|count| *count += 1);
    }

    async fn serve(&self, request: Request<Body>) -> Result<Answer, io::Error> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let accept = head.headers.get(http::header::ACCEPT).map(|value| value.to_str().unwrap()).unwrap_or_default();
        let asked = Asked {
            method: head.method.to_string(),
            target: head.uri.to_string(),
            body: serde_json::from_slice(&body).unwrap_or_default(),
            metadata: accept.contains("PartialObjectMetadata"),
        };
        let answer = self.lock().answer(asked);
        self.active();
        answer
    }
}

fn unreachable() -> io::Error {
    io::ErrorKind::ConnectionRefused.into()
}

fn key_of(object: &Value) -> Key {
    let resource = match object["kind"].as_str().unwrap() {
        "Ingress" => "ingresses".to_owned(),
        "IngressClass" => "ingressclasses".to_owned(),
        "GatewayClass" => "gatewayclasses".to_owned(),
        kind if kind.ends_with("Policy") => format!("{}ies", kind.to_lowercase().trim_end_matches('y')),
        kind => format!("{}s", kind.to_lowercase()),
    };
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    (resource, text("namespace"), text("name"))
}

/// Merges strategically: each condition replaces the one of its type.
fn merge_conditions(status: &mut Value, patch: &Value) {
    let new = patch["conditions"].as_array().unwrap();
    let conditions = status["conditions"].as_array_mut().unwrap();
    conditions.retain(|old| new.iter().all(|new| new["type"] != old["type"]));
    conditions.extend(new.iter().cloned());
}

fn metadata_only(object: &Value) -> Value {
    json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"]})
}

fn line(kind: &str, object: &Value) -> Line {
    Ok(Frame::data(format!("{}\n", json!({"type": kind, "object": object})).into()))
}

fn json_answer(code: u16, value: &Value) -> Result<Answer, io::Error> {
    let mut answer = Response::new(Full::from(value.to_string()).map_err(|never| match never {}).boxed_unsync());
    *answer.status_mut() = StatusCode::from_u16(code).unwrap();
    Ok(answer)
}

fn refusal(code: u16, reason: &str) -> Result<Answer, io::Error> {
    json_answer(
        code,
        &json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": reason}),
    )
}

fn selects(selector: Option<&str>, object: &Value) -> bool {
    selector.into_iter().flat_map(|selector| selector.split(',')).all(|part| {
        let (key, value) = part.split_once('=').unwrap();
        object["metadata"]["labels"][key] == value
    })
}

impl State {
    fn store(&mut self, key: Key, mut object: Value) -> Value {
        self.version += 1;
        let before = self.objects.get(&key);
        let metadata = &mut object["metadata"];
        metadata["resourceVersion"] = json!(self.version.to_string());
        metadata["uid"] = match before {
            Some(before) => before["metadata"]["uid"].clone(),
            None => {
                self.uids += 1;
                json!(format!("uid-{}", self.uids))
            }
        };
        let kind = if before.is_some() { "MODIFIED" } else { "ADDED" };
        self.objects.insert(key.clone(), object.clone());
        self.happened(key, kind, object.clone());
        object
    }

    fn remove(&mut self, key: &Key) {
        if let Some(mut object) = self.objects.remove(key) {
            self.version += 1;
            object["metadata"]["resourceVersion"] = json!(self.version.to_string());
            self.happened(key.clone(), "DELETED", object);
        }
    }

    fn happened(&mut self, key: Key, kind: &'static str, object: Value) {
        self.watches.retain(|watch| !watch.covers(&key) || watch.send(kind, &object));
        self.log.push((self.version, key, kind, object));
    }

    fn answer(&mut self, asked: Asked) -> Result<Answer, io::Error> {
        self.asked.push(asked.clone());
        if self.away {
            return Err(unreachable());
        }
        let Asked { method, target, body, metadata } = asked;
        let fault = self.faults.iter_mut().find(|fault| {
            fault.times > 0 && (fault.method == method || fault.method == "*") && target.contains(fault.part)
        });
        if let Some(fault) = fault {
            fault.times -= 1;
            return refusal(fault.code, "scripted");
        }
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let query: BTreeMap<String, String> = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.replace("%3D", "=").replace("%2C", ",").replace("%2F", "/")))
            .collect();
        let mut segments: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        segments.drain(..if segments[0] == "api" { 2 } else { 3 });
        if segments.is_empty() {
            let all = ["gatewayclasses", "gateways", "listenersets", "backendtlspolicies", "referencegrants"];
            let routes = ["httproutes", "grpcroutes", "tlsroutes", "tcproutes", "udproutes"];
            let defined = all.into_iter().chain(routes).filter(|name| !self.undefined.contains(name));
            let resources: Vec<_> = defined.map(|name| json!({"name": name})).collect();
            return json_answer(
                200,
                &json!({"kind": "APIResourceList", "groupVersion": "any", "resources": resources}),
            );
        }
        let namespace = (segments[0] == "namespaces" && segments.len() > 2).then(|| {
            segments.remove(0);
            segments.remove(0).to_owned()
        });
        let resource = segments[0].to_owned();
        let key = |name: &str| (resource.clone(), namespace.clone().unwrap_or_default(), name.to_owned());
        match (method.as_str(), &segments[1..]) {
            ("GET", []) => {
                // Other selectors select everything, so that no caller relies on them alone.
                let field = query.get("fieldSelector");
                let name = field.and_then(|field| field.strip_prefix("metadata.name=")).map(str::to_owned);
                let (lines, stream) = mpsc::unbounded();
                let watch = Watch { resource, namespace, name, metadata, lines };
                if query.contains_key("watch") {
                    let from: u64 = query["resourceVersion"].parse().unwrap();
                    return Ok(self.watch(watch, from, stream));
                }
                self.list(&watch, &query)
            }
            ("GET", [name]) => match self.objects.get(&key(name)) {
                Some(object) => json_answer(200, object),
                None => refusal(404, "NotFound"),
            },
            ("POST", []) => {
                let name = body["metadata"]["name"].as_str().unwrap();
                if self.objects.contains_key(&key(name)) {
                    return refusal(409, "AlreadyExists");
                }
                json_answer(201, &self.store(key(name), body))
            }
            ("PUT" | "PATCH", [name, subresource @ ..]) => {
                let key = key(name);
                // Only server-side apply, whose sender names itself, creates a missing object.
                let creates = query.contains_key("fieldManager") && subresource.is_empty();
                let Some(before) = self.objects.get(&key).cloned() else {
                    return if creates { json_answer(201, &self.store(key, body)) } else { refusal(404, "NotFound") };
                };
                for field in ["uid", "resourceVersion"] {
                    let asked = &body["metadata"][field];
                    if !asked.is_null() && *asked != before["metadata"][field] {
                        return refusal(409, "Conflict");
                    }
                }
                let mut after = before.clone();
                match subresource {
                    ["status"] if key.0 == "pods" => merge_conditions(&mut after["status"], &body["status"]),
                    ["status"] => {
                        if !body["status"].is_null() {
                            after["status"] = body["status"].clone();
                        }
                        // An object of a CRD accepts only its status this way.
                        let annotations = body["metadata"]["annotations"].as_object().filter(|_| key.0 == "ingresses");
                        for (name, value) in annotations.into_iter().flatten() {
                            after["metadata"]["annotations"][name] = value.clone();
                        }
                    }
                    // A merge patch, of annotations only.
                    _ if body["kind"].is_null() => {
                        for (name, value) in body["metadata"]["annotations"].as_object().into_iter().flatten() {
                            after["metadata"]["annotations"][name] = value.clone();
                        }
                    }
                    // An apply leaves the fields of others unchanged.
                    _ if creates => {
                        for field in body.as_object().into_iter().flatten().map(|(field, _)| field) {
                            if field != "metadata" {
                                after[field] = body[field].clone();
                            }
                        }
                        after["metadata"]["labels"] = body["metadata"]["labels"].clone();
                        after["metadata"]["annotations"] = body["metadata"]["annotations"].clone();
                    }
                    _ => after = body,
                }
                if after == before {
                    return json_answer(200, &before);
                }
                json_answer(200, &self.store(key, after))
            }
            ("DELETE", [name]) => {
                let key = key(name);
                let Some(before) = self.objects.get(&key).cloned() else { return refusal(404, "NotFound") };
                let asked = &body["preconditions"]["uid"];
                if !asked.is_null() && *asked != before["metadata"]["uid"] {
                    return refusal(409, "Conflict");
                }
                self.remove(&key);
                json_answer(200, &before)
            }
            other => panic!("{other:?} is not served here"),
        }
    }

    fn list(&self, watch: &Watch, query: &BTreeMap<String, String>) -> Result<Answer, io::Error> {
        let selector = query.get("labelSelector").map(String::as_str);
        let all = self.objects.iter().filter(|(key, object)| watch.covers(key) && selects(selector, object));
        let begin: usize = query.get("continue").map_or(0, |token| token.parse().unwrap());
        let limit: usize = query.get("limit").map_or(usize::MAX, |limit| limit.parse().unwrap());
        let total = all.clone().count();
        let page = all.skip(begin).take(limit).map(|(_, object)| {
            // As in a real list, the items don't state their kind.
            let mut object = if watch.metadata { metadata_only(object) } else { object.clone() };
            object.as_object_mut().unwrap().retain(|field, _| field != "kind" && field != "apiVersion");
            object
        });
        let items: Vec<_> = page.collect();
        let end = begin + items.len();
        let token = if end < total { end.to_string() } else { String::new() };
        let metadata = json!({"resourceVersion": self.version.to_string(), "continue": token});
        json_answer(200, &json!({"kind": "List", "apiVersion": "v1", "metadata": metadata, "items": items}))
    }

    fn watch(&mut self, watch: Watch, from: u64, stream: mpsc::UnboundedReceiver<Line>) -> Answer {
        if from < self.compacted {
            let gone =
                json!({"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"});
            watch.lines.unbounded_send(line("ERROR", &gone)).unwrap();
        } else {
            for (_, _, kind, object) in
                self.log.iter().filter(|(version, key, ..)| *version > from && watch.covers(key))
            {
                watch.send(kind, object);
            }
            self.watches.push(watch);
        }
        Response::new(StreamBody::new(stream).boxed_unsync())
    }
}

impl Watch {
    fn covers(&self, (resource, namespace, name): &Key) -> bool {
        self.resource == *resource
            && self.namespace.as_ref().is_none_or(|only| only == namespace)
            && self.name.as_ref().is_none_or(|only| only == name)
    }

    /// Whether a listener is left.
    fn send(&self, kind: &str, object: &Value) -> bool {
        let object = if self.metadata { &metadata_only(object) } else { object };
        self.lines.unbounded_send(line(kind, object)).is_ok()
    }
}
