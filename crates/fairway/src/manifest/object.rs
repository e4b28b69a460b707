//! Splits a document into objects: kinds that are read, lists of them, kinds that are ignored, and API versions that clusters no longer
//! serve.

use std::collections::BTreeMap;

use fairway_model::Origin;
use fairway_translate::diagnostic::{Diagnostic, Reason, Severity};
use fairway_translate::gateway::GatewayParameters;
use fairway_translate::gateway::api;
use fairway_translate::gateway::policy::{RoutePolicy, UNREADABLE};
use fairway_translate::objects::{Kind, Object, ObjectKey};
use fairway_translate::verdict::nearest;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::api::networking::v1::Ingress;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::advice;
use super::base64;
use super::crd::{self, Judgement};
use super::decode::{Blemish, Note, decode};
use super::node::{Node, Value};
use super::refusal::{Refusal, Validate, refusals};

/// The annotation in which `kubectl apply` keeps a copy of the whole object. It is not used here.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Nesting of lists.
const LIST_DEPTH: u8 = 4;

/// How to treat a readable object that the API server would refuse.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Refused {
    /// It is read anyway, so that all findings about it appear at once.
    Read,
    /// It is absent, as in a cluster; its last good form counts. One that [restricts others](restricts_others) is read if it has none.
    LeftOut,
}

/// Contents of one document.
#[derive(Debug, Default)]
pub(super) struct Contents {
    /// The objects, each with its first line, counted from 1 within the document.
    pub(super) objects: Vec<(u32, Object)>,
    /// Objects that can't be read or are left out.
    pub(super) unreadable: Vec<Unreadable>,
    /// The objects among them that the API server would refuse.
    pub(super) refused: Vec<ObjectKey>,
    /// Findings, each with its line.
    pub(super) findings: Vec<(u32, Diagnostic)>,
    /// Objects of kinds that are not read.
    pub(super) ignored: u32,
}

/// An object that can't be read or is left out. Its last good form counts.
#[derive(Debug)]
pub(super) struct Unreadable {
    pub(super) key: ObjectKey,
    /// The object that counts if there is no good form, with its line.
    pub(super) otherwise: Option<(u32, Object)>,
}

/// Whether a missing object of this kind would lift a restriction.
fn restricts_others(kind: Kind) -> bool {
    matches!(kind, Kind::RoutePolicy | Kind::BackendTLSPolicy)
}

/// Whether a RoutePolicy has a member without a value, which says nothing of the restriction that was meant.
fn is_blank_policy(node: &Node<'_>, kind: Kind) -> bool {
    let spec = node.get("spec").filter(|_| kind == Kind::RoutePolicy);
    let spec = spec.and_then(|spec| decode::<BTreeMap<String, serde_json::Value>>(spec, &mut Vec::new()).ok());
    spec.is_some_and(|spec| spec.values().any(serde_json::Value::is_null))
}

/// The form in which a RoutePolicy that can't be read counts.
fn unreadable_policy<T: DeserializeOwned>(node: &Node<'_>, kind: Kind, key: &ObjectKey) -> Option<T> {
    let targets = node.get("spec").and_then(|spec| spec.get("targetRefs")).filter(|_| kind == Kind::RoutePolicy)?;
    let targets: serde_json::Value = decode(targets, &mut Vec::new()).ok()?;
    let metadata = json!({"namespace": *key.namespace, "name": *key.name});
    serde_json::from_value(json!({"metadata": metadata, "spec": {"targetRefs": targets, UNREADABLE: true}})).ok()
}

/// Reads the objects of a document. `file` is the origin of findings about objects without a name.
pub(super) fn read(root: &Node<'_>, file: &Origin, refused: Refused) -> Contents {
    let mut contents = Contents::default();
    Reader { file, refused, contents: &mut contents }.item(root, None, LIST_DEPTH);
    contents
}

/// The node of an object in its document; the last one if it is repeated.
pub(super) fn find<'n, 'a>(node: &'n Node<'a>, key: &ObjectKey) -> Option<&'n Node<'a>> {
    find_in(node, key, false, LIST_DEPTH)
}

fn find_in<'n, 'a>(node: &'n Node<'a>, key: &ObjectKey, member: bool, depth: u8) -> Option<&'n Node<'a>> {
    if let Some(Node { value: Value::Sequence(items), .. }) = node.get("items") {
        let depth = depth.checked_sub(1)?;
        return items.iter().rev().find_map(|item| find_in(item, key, true, depth));
    }
    let kind = node.get("kind").and_then(Node::text);
    let fits = kind.map_or(member, |kind| kind == key.kind.as_str());
    (fits && key_of(node, key.kind).is_some_and(|found| found == *key)).then_some(node)
}

struct Reader<'a> {
    file: &'a Origin,
    refused: Refused,
    contents: &'a mut Contents,
}

impl Reader<'_> {
    /// One object, or a list of them. Members of a typed list may omit the type.
    fn item(&mut self, node: &Node<'_>, list: Option<(&str, &str)>, depth: u8) {
        let text = |key| node.get(key).and_then(Node::text).filter(|text| !text.is_empty());
        let (Some(version), Some(kind)) =
            (text("apiVersion").or(list.map(|list| list.0)), text("kind").or(list.map(|list| list.1)))
        else {
            let (severity, message) = match node.text().and_then(advice::encrypted_text) {
                Some(advice) => (Severity::Error, advice),
                // Helm's values and Kustomize's patches lack these.
                None if text("kind").is_some() && node.get("metadata").is_some() => {
                    (Severity::Error, "expected apiVersion: the API server refuses an object without it; it is ignored")
                }
                None if text("apiVersion").is_some() && node.get("metadata").is_some() => {
                    (Severity::Error, "expected kind: the API server refuses an object without it; it is ignored")
                }
                None => (
                    Severity::Info,
                    "not a Kubernetes object: expected a mapping with apiVersion and kind; it is ignored",
                ),
            };
            return self.find(node.line, severity, Reason::InvalidManifest, self.file, "", "", message);
        };
        if let Some(member) = kind.strip_suffix("List")
            && let Some(Node { value: Value::Sequence(items), .. }) = node.get("items")
        {
            if depth == 0 {
                let message = "lists within lists are read four levels deep; this one is ignored";
                return self.find(
                    node.line,
                    Severity::Warning,
                    Reason::InvalidManifest,
                    self.file,
                    "items",
                    "",
                    message,
                );
            }
            let member = (!member.is_empty()).then_some((version, member));
            return items.iter().for_each(|item| self.item(item, member, depth - 1));
        }
        if let Some(advice) = outdated(version, kind) {
            let origin = named_origin(node, kind).unwrap_or_else(|| self.file.clone());
            let line = node.line_of("apiVersion");
            let reason = Reason::UnsupportedApiVersion;
            self.keep(node, kind);
            return self.find(line, Severity::Error, reason, &origin, "apiVersion", version, advice);
        }
        // The API server serves these kinds in both versions, with the same fields.
        let version = match version {
            "gateway.networking.k8s.io/v1beta1"
                if matches!(kind, "GatewayClass" | "Gateway" | "HTTPRoute" | "ReferenceGrant") =>
            {
                "gateway.networking.k8s.io/v1"
            }
            other => other,
        };
        let known = Kind::ALL.iter().find(|known| known.as_str() == kind && known.api_version() == version);
        match known {
            Some(Kind::Ingress) => self.object::<Ingress>(node, Kind::Ingress, |ingress| ingress.status = None),
            Some(Kind::Secret) => self.object(node, Kind::Secret, merge_string_data),
            Some(Kind::IngressClass) => {
                self.object::<k8s_openapi::api::networking::v1::IngressClass>(node, Kind::IngressClass, |_| {});
            }
            Some(Kind::Service) => self.object::<k8s_openapi::api::core::v1::Service>(node, Kind::Service, |_| {}),
            Some(Kind::EndpointSlice) => {
                self.object::<k8s_openapi::api::discovery::v1::EndpointSlice>(node, Kind::EndpointSlice, |_| {});
            }
            Some(Kind::ConfigMap) => {
                self.object::<k8s_openapi::api::core::v1::ConfigMap>(node, Kind::ConfigMap, |_| {});
            }
            Some(Kind::Namespace) => {
                self.object::<k8s_openapi::api::core::v1::Namespace>(node, Kind::Namespace, |_| {});
            }
            Some(Kind::GatewayClass) => self.object::<api::GatewayClass>(node, Kind::GatewayClass, |_| {}),
            Some(Kind::Gateway) => self.object::<api::Gateway>(node, Kind::Gateway, |_| {}),
            Some(Kind::BackendTLSPolicy) => self.object::<api::BackendTLSPolicy>(node, Kind::BackendTLSPolicy, |_| {}),
            Some(Kind::GatewayParameters) => {
                self.object::<GatewayParameters>(node, Kind::GatewayParameters, |_| {});
            }
            Some(Kind::XBackendTrafficPolicy) => {
                self.object::<api::XBackendTrafficPolicy>(node, Kind::XBackendTrafficPolicy, |_| {});
            }
            Some(Kind::XBackend) => self.object::<api::XBackend>(node, Kind::XBackend, |_| {}),
            Some(Kind::XTelemetryPolicy) => {
                self.object::<api::XTelemetryPolicy>(node, Kind::XTelemetryPolicy, |_| {});
            }
            Some(Kind::RoutePolicy) => self.object::<RoutePolicy>(node, Kind::RoutePolicy, |_| {}),
            Some(Kind::ListenerSet) => self.object::<api::ListenerSet>(node, Kind::ListenerSet, |_| {}),
            Some(Kind::HTTPRoute) => self.object::<api::HTTPRoute>(node, Kind::HTTPRoute, |_| {}),
            Some(Kind::GRPCRoute) => self.object::<api::GRPCRoute>(node, Kind::GRPCRoute, |_| {}),
            Some(Kind::TLSRoute) => self.object::<api::TLSRoute>(node, Kind::TLSRoute, |_| {}),
            Some(Kind::TCPRoute) => self.object::<api::TCPRoute>(node, Kind::TCPRoute, |_| {}),
            Some(Kind::UDPRoute) => self.object::<api::UDPRoute>(node, Kind::UDPRoute, |_| {}),
            Some(Kind::ReferenceGrant) => self.object::<api::ReferenceGrant>(node, Kind::ReferenceGrant, |_| {}),
            None => self.other(node, version, kind),
        }
    }

    /// An object of another kind: ignored, unless it is probably a misspelt kind of ours.
    fn other(&mut self, node: &Node<'_>, version: &str, kind: &str) {
        self.contents.ignored += 1;
        let group = version.split_once('/').map_or("", |(group, _)| group);
        if OTHERS.iter().any(|(of, kinds)| *of == group && kinds.contains(&kind)) {
            let origin = named_origin(node, kind).unwrap_or_else(|| self.file.clone());
            let message = format!("a kind of {group}, {NOT_READ}");
            let (line, reason) = (node.line_of("kind"), Reason::InvalidManifest);
            return self.find(line, Severity::Warning, reason, &origin, "kind", kind, &message);
        }
        let Some((field, message)) = misspelt(version, kind) else { return };
        self.keep(node, kind);
        let origin = named_origin(node, kind).unwrap_or_else(|| self.file.clone());
        let value = if field == "kind" { kind } else { version };
        let (line, reason) = (node.line_of(field), Reason::InvalidManifest);
        self.find(line, Severity::Error, reason, &origin, field, value, &message);
    }

    /// Lets the last good form of an object count if its kind or version is misspelt.
    fn keep(&mut self, node: &Node<'_>, kind: &str) {
        let meant = Kind::ALL.iter().find(|known| known.as_str().eq_ignore_ascii_case(kind));
        if let Some(key) = meant.and_then(|meant| key_of(node, *meant)) {
            self.contents.unreadable.push(Unreadable { key, otherwise: None });
        }
    }

    fn object<T>(&mut self, node: &Node<'_>, kind: Kind, prepare: impl FnOnce(&mut T))
    where
        T: DeserializeOwned + Into<Object> + k8s_openapi::Metadata<Ty = ObjectMeta> + Validate,
    {
        let Some(key) = key_of(node, kind) else { return self.nameless(node, kind) };
        let origin = key.origin();
        if let Some((line, field)) = advice::encrypted_by_sops(node) {
            let message = "it looks encrypted by SOPS: decrypt it first, with sops decrypt; the object is not read";
            self.find(line, Severity::Error, Reason::InvalidManifest, &origin, &field, "", message);
            return self.contents.unreadable.push(Unreadable { key, otherwise: None });
        }
        let strict = match kind {
            Kind::Secret => base64::normalize(node, "data"),
            Kind::ConfigMap => base64::normalize(node, "binaryData"),
            _ => None,
        };
        let node = strict.as_ref().unwrap_or(node);
        let mut notes = Vec::new();
        match decode::<T>(node, &mut notes) {
            Ok(mut object) => {
                if is_blank_policy(node, kind) {
                    object = unreadable_policy(node, kind, &key).unwrap_or(object);
                }
                prepare(&mut object);
                let mut refusals = refusals(&object);
                let Judgement { refusals: more, in_standard, in_experimental, experimental, experimental_kind } =
                    T::CRD
                        // This can't fail: the node has just been decoded as a stricter type.
                        .and_then(|kind| Some(crd::judge(kind, &decode(node, &mut Vec::new()).ok()?)))
                        .unwrap_or_default();
                refusals.extend(more);
                tidy(object.metadata_mut(), &key);
                let consequence = match self.refused {
                    Refused::Read => "",
                    Refused::LeftOut if restricts_others(kind) => "; here it counts until there is a good form of it",
                    Refused::LeftOut => ", and it is not read here",
                };
                let is_text = |note: &Note| !matches!(note.blemish, Blemish::NotText { .. });
                if self.refused == Refused::Read && !(refusals.is_empty() && notes.iter().all(is_text)) {
                    self.contents.refused.push(key.clone());
                }
                if refusals.is_empty() || self.refused == Refused::Read {
                    self.contents.objects.push((node.line, object.into()));
                } else {
                    let otherwise = restricts_others(kind).then(|| (node.line, object.into()));
                    self.contents.unreadable.push(Unreadable { key, otherwise });
                }
                if experimental_kind {
                    let (line, reason) = (node.line_of("kind"), Reason::InvalidManifest);
                    self.find(line, Severity::Warning, reason, &origin, "kind", kind.as_str(), EXPERIMENTAL_KIND);
                }
                for Refusal { field, value, message } in refusals {
                    let message = format!("{message}; the API server refuses the object{consequence}");
                    let (line, reason) = (node.line_of(&field), Reason::InvalidManifest);
                    self.find(line, Severity::Error, reason, &origin, &field, &value, &message);
                }
                for Refusal { field, value, message } in in_standard {
                    let message = format!(
                        "{message}; the API server refuses the object unless the CRDs of the Gateway API are those of the experimental channel"
                    );
                    let (line, reason) = (node.line_of(&field), Reason::InvalidManifest);
                    self.find(line, Severity::Warning, reason, &origin, &field, &value, &message);
                }
                for Refusal { field, value, message } in in_experimental {
                    let message = format!(
                        "{message}; the API server refuses the object if the CRDs of the Gateway API are those of the experimental channel"
                    );
                    let (line, reason) = (node.line_of(&field), Reason::InvalidManifest);
                    self.find(line, Severity::Error, reason, &origin, &field, &value, &message);
                }
                notes.retain(|note| !experimental.contains(&note.field));
                let is_read = |field: &String| match kind {
                    Kind::HTTPRoute | Kind::GRPCRoute => field.ends_with("].sessionPersistence"),
                    Kind::Gateway | Kind::ListenerSet => field.ends_with(".filters"),
                    _ => false,
                };
                // A filter type that the CRDs refuse is reported well enough by that refusal.
                for field in experimental.into_iter().filter(|field| !field.ends_with(".externalAuth")) {
                    let message = if is_read(&field) {
                        "a field of the experimental channel of the Gateway API: it has no effect in a cluster without the CRDs of that channel"
                    } else {
                        "a field of the experimental channel of the Gateway API; it has no effect"
                    };
                    let (line, reason) = (node.line_of(&field), Reason::InvalidManifest);
                    self.find(line, Severity::Warning, reason, &origin, &field, "", message);
                }
            }
            Err(error) => {
                // Secret values must not be quoted.
                let value = if kind == Kind::Secret { "" } else { &error.value };
                let what = match advice::template(&error.value) {
                    Some(advice) => format!("{error}; {advice}"),
                    None if error.is_base64() => "expected base64; plain text belongs in stringData".to_owned(),
                    None => error.to_string(),
                };
                let otherwise = unreadable_policy::<T>(node, kind, &key).map(|object| (node.line, object.into()));
                let consequence = match otherwise {
                    Some(_) => {
                        "the object can't be read; unless an earlier version was valid, the requests that it applies to get 503"
                    }
                    None => "the object is not read",
                };
                let message = format!("{what}; {consequence}");
                let reason = Reason::InvalidManifest;
                self.find(error.line, Severity::Error, reason, &origin, &error.field, value, &message);
                self.contents.unreadable.push(Unreadable { key, otherwise });
            }
        }
        for note in notes {
            self.note(&origin, note);
        }
    }

    /// Reports an object without a valid name or namespace.
    fn nameless(&mut self, node: &Node<'_>, kind: Kind) {
        let metadata = node.get("metadata");
        let written = |key| metadata.and_then(|metadata| metadata.get(key)).and_then(Node::text).unwrap_or_default();
        let (field, value) = match written("name") {
            name if is_name(name) => ("metadata.namespace", written("namespace")),
            name => ("metadata.name", name),
        };
        let expected = match advice::template(value).or_else(|| advice::encrypted_text(value)) {
            Some(advice) => advice,
            None if value.is_empty() && !written("generateName").is_empty() => {
                "expected a name: generateName works with kubectl create only"
            }
            None => "expected a name of letters, digits, - and .",
        };
        let message = format!("{expected}; the object is ignored");
        let origin = &self.file.section(kind.as_str());
        self.find(node.line_of(field), Severity::Error, Reason::InvalidManifest, origin, field, value, &message);
    }

    fn note(&mut self, origin: &Origin, note: Note) {
        let severity = match note.blemish {
            Blemish::NotText { .. } => Severity::Error,
            Blemish::UnknownField(_) | Blemish::DuplicateKey => Severity::Warning,
        };
        let (value, message) = match note.blemish {
            Blemish::UnknownField(Some(near)) => {
                (String::new(), format!("unknown field, it has no effect; did you mean {near}?"))
            }
            Blemish::UnknownField(None) if note.field.ends_with("backend.serviceName") => {
                (String::new(), "a field of older versions, it has no effect: write service: {name: NAME}".to_owned())
            }
            Blemish::UnknownField(None) if note.field.ends_with("backend.servicePort") => {
                let message =
                    "a field of older versions, it has no effect: write service: {port: {number: NUMBER}}, or name";
                (String::new(), message.to_owned())
            }
            Blemish::UnknownField(None) => (String::new(), "unknown field, it has no effect".to_owned()),
            Blemish::DuplicateKey => (String::new(), "the key occurs twice; the last one counts".to_owned()),
            Blemish::NotText { written, kind } => {
                let message =
                    format!("expected a text in quotes: the API server takes this for {kind} and refuses the object");
                (written, message)
            }
        };
        self.find(note.line, severity, Reason::InvalidManifest, origin, &note.field, &value, &message);
    }

    #[expect(clippy::too_many_arguments, reason = "they are the fields of a diagnostic and its line")]
    fn find(
        &mut self,
        line: u32,
        severity: Severity,
        reason: Reason,
        origin: &Origin,
        field: &str,
        value: &str,
        message: &str,
    ) {
        let value = if is_hidden(origin, field) { "" } else { value };
        self.contents.findings.push((line, Diagnostic::new(severity, reason, origin, field, value, message)));
    }
}

/// Whether a value outside a Secret may be confidential: header fields sent to a trace collector.
fn is_hidden(origin: &Origin, field: &str) -> bool {
    *origin.kind == *Kind::XTelemetryPolicy.as_str() && field.starts_with("spec.tracing.provider.headers")
}

/// Kinds in Kubernetes' own groups, besides those that we read: these names are not misspelt ones of ours.
const THEIRS: [&str; 25] = [
    "BackendTLSPolicy",
    "ListenerSet",
    "TCPRoute",
    "TLSRoute",
    "UDPRoute",
    "Binding",
    "ComponentStatus",
    "Endpoints",
    "Event",
    "IPAddress",
    "LimitRange",
    "List",
    "NetworkPolicy",
    "Node",
    "ParentReference",
    "PersistentVolume",
    "PersistentVolumeClaim",
    "Pod",
    "PodTemplate",
    "ReplicationController",
    "ResourceQuota",
    "ServiceAccount",
    "ServiceCIDR",
    "Status",
    "Eviction",
];

/// Kinds by which other controllers restrict or change routes, by API group.
const OTHERS: &[(&str, &[&str])] = &[
    ("configuration.konghq.com", &["KongClusterPlugin", "KongPlugin"]),
    (
        "gateway.envoyproxy.io",
        &["BackendTrafficPolicy", "ClientTrafficPolicy", "EnvoyExtensionPolicy", "EnvoyPatchPolicy", "SecurityPolicy"],
    ),
    ("kuadrant.io", &["AuthPolicy", "RateLimitPolicy"]),
    ("security.istio.io", &["AuthorizationPolicy", "RequestAuthentication"]),
    ("traefik.containo.us", &["Middleware"]),
    ("traefik.io", &["Middleware"]),
];
/// The finding about a kind that only the experimental channel has, which is reported once per kind.
pub(super) const EXPERIMENTAL_KIND: &str = "a kind of the experimental channel of the Gateway API: a cluster without the CRDs of that channel takes no object of it";
/// The end of a finding about such an object, which is reported once per kind.
pub(super) const NOT_READ: &str = "with which another controller restricts or changes routes; Fairway does not read it: use a RoutePolicy instead (docs/route-policy.md)";

/// Which field of an object is misspelt and what was probably meant; `None` for an unrelated kind.
fn misspelt(version: &str, kind: &str) -> Option<(&'static str, String)> {
    let group = version.split_once('/').map_or("", |(group, _)| group);
    // Other projects' groups are domains of their own, and may define their own Ingress or Service.
    let is_ours = !group.contains('.') || group.ends_with(".k8s.io") && !group.ends_with(".x-k8s.io");
    if let Some(known) = Kind::ALL.iter().find(|known| known.as_str() == kind) {
        let meant = known.api_version();
        let near = is_ours
            || meant.split_once('/').is_some_and(|(own, _)| own == group)
            || nearest(version, [meant]).is_some();
        return near.then(|| {
            (
                "apiVersion",
                format!("Fairway does not read this version of {kind} (did you mean {meant}?); it is ignored"),
            )
        });
    }
    let in_our_groups = Kind::ALL.iter().any(|known| known.api_version() == version);
    let near_versions = || nearest(version, Kind::ALL.iter().map(|known| known.api_version()));
    if THEIRS.contains(&kind) || !(in_our_groups || near_versions().is_some() && is_ours) {
        return None;
    }
    let known = || Kind::ALL.iter().map(|known| known.as_str());
    let meant = known().find(|known| known.eq_ignore_ascii_case(kind)).or_else(|| nearest(kind, known()))?;
    Some(("kind", format!("there is no kind of this name: did you mean {meant}?; it is ignored")))
}

/// The replacement for an API version that was removed; `None` if it isn't known to be removed.
fn outdated(version: &str, kind: &str) -> Option<&'static str> {
    Some(match (version, kind) {
        ("extensions/v1beta1" | "networking.k8s.io/v1beta1", "Ingress") => {
            "expected networking.k8s.io/v1, which Kubernetes serves since 1.19; this version is gone since 1.22: write backend.service.name and \
             backend.service.port.number (or .name) for serviceName and servicePort, spec.defaultBackend for spec.backend, and \
             give each path a pathType"
        }
        ("networking.k8s.io/v1beta1", "IngressClass") => {
            "expected networking.k8s.io/v1, which Kubernetes serves since 1.19; this version is gone since 1.22; the fields stay as they are"
        }
        ("discovery.k8s.io/v1beta1", "EndpointSlice") => {
            "expected discovery.k8s.io/v1, which Kubernetes serves since 1.21; this version is gone since 1.25: write nodeName and zone for topology"
        }
        _ => return None,
    })
}

/// Kind, namespace and name as written; `None` without a valid name.
fn key_of(node: &Node<'_>, kind: Kind) -> Option<ObjectKey> {
    let metadata = node.get("metadata")?;
    let name = metadata.get("name").and_then(Node::text).filter(|name| is_name(name))?;
    let namespace = match kind {
        _ if kind.is_cluster_wide() => "",
        _ => match metadata.get("namespace").and_then(Node::text).filter(|namespace| !namespace.is_empty()) {
            Some(namespace) => Some(namespace).filter(|namespace| is_name(namespace))?,
            None => "default",
        },
    };
    Some(ObjectKey::new(kind, namespace, name))
}

fn named_origin(node: &Node<'_>, kind: &str) -> Option<Origin> {
    let metadata = node.get("metadata")?;
    let text = |key| metadata.get(key).and_then(Node::text).filter(|text| is_name(text));
    Some(Origin::new(kind, text("namespace").unwrap_or("default"), text("name")?))
}

/// Names of objects are DNS subdomains (Kubernetes documentation, "Object Names and IDs"); some kinds allow more characters.
fn is_name(text: &str) -> bool {
    (1..=253).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:".contains(&b))
}

/// Stores the object's key in its metadata, and drops unused fields.
fn tidy(metadata: &mut ObjectMeta, key: &ObjectKey) {
    metadata.namespace = (!key.namespace.is_empty()).then(|| key.namespace.to_string());
    metadata.managed_fields = None;
    metadata.owner_references = None;
    if let Some(annotations) = &mut metadata.annotations {
        annotations.remove(LAST_APPLIED);
    }
}

/// As the API server does when a Secret is written.
fn merge_string_data(secret: &mut Secret) {
    if let Some(texts) = secret.string_data.take() {
        let data = secret.data.get_or_insert_with(BTreeMap::new);
        data.extend(texts.into_iter().map(|(key, text)| (key, k8s_openapi::ByteString(text.into_bytes()))));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents(text: &str) -> Contents {
        read(&Node::parse(text).unwrap().unwrap(), &Origin::new("File", "", "a.yaml"), Refused::LeftOut)
    }

    fn keys(contents: &Contents) -> Vec<String> {
        contents.objects.iter().map(|(line, object)| format!("{line} {}", object.key())).collect()
    }

    #[test]
    fn lists_are_opened() {
        let found = contents(
            "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: n}}\n\
             - apiVersion: networking.k8s.io/v1\n  kind: IngressList\n  items:\n  - metadata: {name: b}\n    spec: {rules: [{}]}\n",
        );
        assert_eq!(keys(&found), ["4 ConfigMap n/a", "8 Ingress default/b"]);
    }

    #[test]
    fn an_object_without_its_version_or_kind_is_an_error_and_other_documents_are_not() {
        for (text, severity, expected) in [
            ("kind: Ingress\nmetadata: {name: a}\n", Severity::Error, "expected apiVersion"),
            ("apiVersion: v1\nmetadata: {name: a}\n", Severity::Error, "expected kind"),
            ("replicas: 2\nkind: x\n", Severity::Info, "not a Kubernetes object"),
            ("image: {tag: a}\n", Severity::Info, "not a Kubernetes object"),
        ] {
            let found = &contents(text).findings[0].1;
            assert_eq!(found.severity, severity, "{text}");
            assert!(found.message.starts_with(expected), "{text}");
        }
    }

    #[test]
    fn other_kinds_are_counted_and_left_alone() {
        let found = contents("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n");
        assert_eq!((found.ignored, found.findings.len()), (1, 0));
        assert_eq!(contents("just: values\n").findings[0].1.severity, Severity::Info);
    }

    #[test]
    fn a_misspelt_kind_or_version_is_named_with_what_was_meant() {
        for (version, kind, field, meant) in [
            ("networking.k8s.io/v1", "Ingres", "kind", "Ingress?"),
            ("networking.k8s.io/v1", "ingress", "kind", "Ingress?"),
            ("networking.k8s.io/v1", "IngresClass", "kind", "IngressClass?"),
            ("networking.k8s.io/v11", "Ingerss", "kind", "Ingress?"),
            ("v1", "Sevice", "kind", "Service?"),
            ("v1", "Configmap", "kind", "ConfigMap?"),
            ("v1", "Secrets", "kind", "Secret?"),
            ("discovery.k8s.io/v1", "EndpointSlices", "kind", "EndpointSlice?"),
            ("networking.k8s.io/v2", "Ingress", "apiVersion", "networking.k8s.io/v1?"),
            ("networking.k8.io/v1", "Ingress", "apiVersion", "networking.k8s.io/v1?"),
            ("networking/v1", "Ingress", "apiVersion", "networking.k8s.io/v1?"),
            ("v1", "Ingress", "apiVersion", "networking.k8s.io/v1?"),
            ("apps/v1", "Service", "apiVersion", "did you mean v1?"),
            ("V1", "Secret", "apiVersion", "did you mean v1?"),
            ("fairway.dev/v1", "RoutePolicy", "apiVersion", "fairway.dev/v1alpha1?"),
            ("fairway.dev/v1", "GatewayParameters", "apiVersion", "fairway.dev/v1alpha1?"),
        ] {
            let found = contents(&format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\n"));
            assert_eq!((found.ignored, found.findings.len()), (1, 1), "{version} {kind}");
            let (line, finding) = &found.findings[0];
            assert_eq!((&*finding.field, finding.severity), (field, Severity::Error), "{version} {kind}");
            assert_eq!(*line, if field == "kind" { 2 } else { 1 });
            assert!(finding.message.contains(meant), "{finding}");
        }
    }

    #[test]
    fn kinds_of_others_are_not_taken_for_misspelt_ones() {
        for (version, kind) in [
            ("v1", "ServiceAccount"),
            ("v1", "Endpoints"),
            ("v1", "Node"),
            ("networking.k8s.io/v1", "NetworkPolicy"),
            ("serving.knative.dev/v1", "Service"),
            ("networking.internal.knative.dev/v1alpha1", "Ingress"),
            ("config.openshift.io/v1", "Ingress"),
            ("bitnami.com/v1alpha1", "SealedSecret"),
            ("external-secrets.io/v1", "ExternalSecret"),
            ("gateway.networking.x-k8s.io/v1alpha1", "XMesh"),
            ("kustomize.config.k8s.io/v1beta1", "Kustomization"),
            ("apps/v1", "Deployment"),
            ("example.com/v1", "Ingres"),
        ] {
            let found = contents(&format!("apiVersion: {version}\nkind: {kind}\nmetadata: {{name: a}}\n"));
            assert!(found.findings.is_empty() && found.ignored == 1, "{version} {kind}: {:?}", found.findings);
        }
    }

    #[test]
    fn older_versions_are_told_what_to_write() {
        for version in ["extensions/v1beta1", "networking.k8s.io/v1beta1"] {
            let found = contents(&format!("kind: Ingress\napiVersion: {version}\nmetadata: {{name: a}}\n"));
            let (line, finding) = &found.findings[0];
            assert_eq!((*line, finding.reason, finding.severity), (2, Reason::UnsupportedApiVersion, Severity::Error));
            assert!(finding.message.contains("backend.service.name"), "{finding}");
        }
    }

    #[test]
    fn texts_of_a_secret_become_data() {
        let found =
            contents("apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata: {a: eA==}\nstringData: {b: y}\n");
        let Object::Secret(secret) = &found.objects[0].1 else { panic!("{found:?}") };
        assert_eq!(secret.data.as_ref().unwrap()["b"].0, b"y");
        assert_eq!(secret.data.as_ref().unwrap()["a"].0, b"x");
    }

    #[test]
    fn base64_is_read_as_kubernetes_reads_it() {
        let found = contents(
            "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata:\n  a: |\n    aGVs\n    bG8=\n  b: eB==\n  c: \"eA==\"\n",
        );
        let Object::Secret(secret) = &found.objects[0].1 else { panic!("{found:?}") };
        let data = secret.data.as_ref().unwrap();
        assert_eq!([&data["a"].0[..], &data["b"].0[..], &data["c"].0[..]], [&b"hello"[..], b"x", b"x"]);
        let found = contents("apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata: {password: hunter2!}\n");
        let finding = &found.findings[0].1;
        assert_eq!(finding.message, "expected base64; plain text belongs in stringData; the object is not read");
        assert_eq!((finding.field.as_str(), finding.value.as_str()), ("data.password", ""));
    }

    #[test]
    fn what_is_encrypted_or_not_filled_in_is_named() {
        let ingress = "apiVersion: networking.k8s.io/v1\nkind: Ingress\n";
        let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\n";
        for (text, field, value, expected) in [
            (
                format!("{secret}data: {{tls.key: \"ENC[AES256_GCM,data:x]\"}}\nsops: {{mac: x}}\n"),
                "data[\"tls.key\"]",
                "",
                "encrypted by SOPS",
            ),
            ("$ANSIBLE_VAULT;1.1;AES256\n6162\n".into(), "", "", "ansible-vault decrypt"),
            (format!("{ingress}metadata: {{name: \"${{X}}\"}}\n"), "metadata.name", "${X}", "a template"),
            (
                format!("{ingress}metadata: {{name: a, namespace: \"${{NS}}\"}}\n"),
                "metadata.namespace",
                "${NS}",
                "a template",
            ),
            (
                format!("{ingress}metadata: {{name: a}}\nspec: {{rules: \"${{RULES}}\"}}\n"),
                "spec.rules",
                "${RULES}",
                "a template",
            ),
            (format!("{ingress}metadata: {{name: a b}}\n"), "metadata.name", "a b", "letters, digits"),
            (format!("{ingress}metadata: {{generateName: a-}}\n"), "metadata.name", "", "kubectl create"),
        ] {
            let found = contents(&text);
            let finding = &found.findings[0].1;
            assert_eq!((finding.field.as_str(), finding.value.as_str()), (field, value), "{text}");
            assert!(finding.message.contains(expected) && finding.severity == Severity::Error, "{finding}");
            assert!(found.objects.is_empty(), "{text}");
        }
    }

    #[test]
    fn an_object_that_cannot_be_read_is_named() {
        let found =
            contents("apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: a}\nspec: {rules: 5}\n");
        assert_eq!(found.unreadable.len(), 1);
        assert_eq!((found.findings[0].0, found.findings[0].1.field.as_str()), (4, "spec.rules"));
        let found = contents("apiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {generateName: a-}\n");
        assert!(found.objects.is_empty() && found.findings[0].1.severity == Severity::Error);
    }
}
