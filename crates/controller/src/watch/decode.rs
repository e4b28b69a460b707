//! One object as sent by the API server, reduced to the parts that translation reads.
//!
//! Objects are decoded one by one, so one that can't be decoded (written by a newer API server, say) affects no other.
//! Each gets a fingerprint of the parts that translation reads: a change of status, of `managedFields` or of a
//! heartbeat annotation leaves it unchanged and causes no work.

use std::hash::{BuildHasher, DefaultHasher, Hasher, RandomState};
use std::io;

use fairway_translate::annotation::{OBSERVE, OBSERVED};
use fairway_translate::gateway::GatewayParameters;
use fairway_translate::gateway::api;
use fairway_translate::gateway::policy::RoutePolicy;
use fairway_translate::objects::{Kind, Object, ObjectKey};
use fairway_translate::value::Value as _;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::address::{self, Addresses};
use crate::gate::Asking;

/// One object of a watch or of a list.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) key: ObjectKey,
    pub(crate) identity: Identity,
    pub(crate) content: Content,
}

/// The identity of the object, among all with this name, and its version.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Identity {
    pub(crate) uid: Box<str>,
    pub(crate) version: Box<str>,
}

/// The known parts of the object.
#[derive(Clone, Debug)]
pub(crate) enum Content {
    /// The parts that translation reads, the report that it asks for and, for an Ingress, the addresses in its status.
    Object {
        object: Object,
        fingerprint: u64,
        shown: Addresses,
        status: Option<Box<SeenStatus>>,
        asking: Option<Asking>,
    },
    /// Only its existence.
    Metadata,
    /// The addresses of the Service in front of the proxy.
    Addresses(Addresses),
    /// It can't be decoded, for this reason.
    Malformed(String),
}

/// The status of an object of the Gateway API, as text, and the generation of the object.
#[derive(Clone, Debug)]
pub(crate) struct SeenStatus {
    pub(crate) generation: i64,
    pub(crate) status: Box<RawValue>,
}

/// The required parts of each object.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Wanted {
    /// Everything that translation reads.
    Object,
    /// Only its name and version.
    Metadata,
    /// The addresses under which a Service is reached.
    Addresses,
}

/// The parts of an object that can be read even if the rest is malformed.
#[derive(Deserialize)]
struct Envelope {
    metadata: Metadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    name: String,
    #[serde(default)]
    namespace: Option<String>,
    #[serde(default)]
    uid: Option<String>,
    #[serde(default)]
    resource_version: Option<String>,
}

/// Decodes the object in `text`. Fails if it doesn't even have a name.
pub(crate) fn decode(kind: Kind, text: &str, wanted: Wanted, hasher: &RandomState) -> serde_json::Result<Seen> {
    let Metadata { name, namespace, uid, resource_version } = serde_json::from_str::<Envelope>(text)?.metadata;
    let content = match wanted {
        Wanted::Metadata => Content::Metadata,
        Wanted::Addresses => match lenient::<Service>(text) {
            Ok(service) => Content::Addresses(address::of_service(&service)),
            Err(error) => malformed(kind, &error),
        },
        Wanted::Object => match object(kind, text, hasher) {
            Ok((Reduced { object, fingerprint, asking }, shown)) => {
                let status = kind.is_of_gateway_api().then(|| Box::new(status(text)));
                Content::Object { object, fingerprint, shown, status, asking }
            }
            Err(error) => malformed(kind, &error),
        },
    };
    let key = match &content {
        // The same copy of the names.
        Content::Object { object, .. } => object.key(),
        _ => ObjectKey::new(kind, namespace.unwrap_or_default(), name),
    };
    Ok(Seen {
        key,
        identity: Identity {
            uid: uid.unwrap_or_default().into(),
            version: resource_version.unwrap_or_default().into(),
        },
        content,
    })
}

/// The status that an object shows.
fn status(text: &str) -> SeenStatus {
    #[derive(Default, Deserialize)]
    struct Whole {
        #[serde(default)]
        metadata: Generation,
        #[serde(default)]
        status: Option<Box<RawValue>>,
    }
    #[derive(Default, Deserialize)]
    struct Generation {
        #[serde(default)]
        generation: i64,
    }
    let Whole { metadata: Generation { generation }, status } = serde_json::from_str(text).unwrap_or_default();
    SeenStatus { generation, status: status.unwrap_or_else(|| RawValue::NULL.to_owned()) }
}

fn malformed(kind: Kind, error: &serde_json::Error) -> Content {
    Content::Malformed(if kind == Kind::Secret {
        // The message of serde would repeat the offending value.
        format!("can't be decoded at column {}", error.column())
    } else {
        format!("can't be decoded: {}", fairway_translate::diagnostic::bounded(&error.to_string()))
    })
}

/// The object without the parts that are never read, its fingerprint, and the report that it asks for.
struct Reduced {
    object: Object,
    fingerprint: u64,
    asking: Option<Asking>,
}

/// The object and, for an Ingress, the addresses that it shows.
fn object(kind: Kind, text: &str, hasher: &RandomState) -> serde_json::Result<(Reduced, Addresses)> {
    let mut shown = Addresses::new();
    let reduced = match kind {
        Kind::Ingress => {
            let mut ingress: Ingress = lenient(text)?;
            shown = address::of_ingress(ingress.status.take().as_ref());
            slim(ingress, hasher)
        }
        Kind::Service => {
            let mut service: Service = lenient(text)?;
            // Addresses matter only for Services that were created for Gateways.
            if !fairway_translate::gateway::is_for_gateway(&service) {
                service.status = None;
            } else if let Some(status) = &mut service.status {
                status.conditions = None;
            }
            slim(service, hasher)
        }
        Kind::EndpointSlice => {
            let mut slice: EndpointSlice = lenient(text)?;
            // Heartbeats: the time of the last change that led to this slice, and election records of mirrored
            // Endpoints.
            slice.metadata.annotations = None;
            slim(slice, hasher)
        }
        Kind::Namespace => {
            let mut namespace: Namespace = lenient(text)?;
            namespace.metadata.annotations = None;
            namespace.spec = None;
            // Whether it is being deleted, not how far that has progressed.
            if let Some(status) = &mut namespace.status {
                status.conditions = None;
            }
            slim(namespace, hasher)
        }
        Kind::IngressClass => slim(lenient::<IngressClass>(text)?, hasher),
        Kind::Secret => slim(lenient::<Secret>(text)?, hasher),
        Kind::ConfigMap => slim(lenient::<ConfigMap>(text)?, hasher),
        Kind::GatewayClass => slim(lenient::<api::GatewayClass>(text)?, hasher),
        Kind::Gateway => slim(lenient::<api::Gateway>(text)?, hasher),
        Kind::BackendTLSPolicy => slim(lenient::<api::BackendTLSPolicy>(text)?, hasher),
        Kind::GatewayParameters => slim(lenient::<GatewayParameters>(text)?, hasher),
        Kind::XBackendTrafficPolicy => slim(lenient::<api::XBackendTrafficPolicy>(text)?, hasher),
        Kind::XBackend => slim(lenient::<api::XBackend>(text)?, hasher),
        Kind::XTelemetryPolicy => slim(lenient::<api::XTelemetryPolicy>(text)?, hasher),
        Kind::RoutePolicy => slim(lenient::<RoutePolicy>(text)?, hasher),
        Kind::ListenerSet => slim(lenient::<api::ListenerSet>(text)?, hasher),
        Kind::HTTPRoute => slim(lenient::<api::HTTPRoute>(text)?, hasher),
        Kind::GRPCRoute => slim(lenient::<api::GRPCRoute>(text)?, hasher),
        Kind::TLSRoute => slim(lenient::<api::TLSRoute>(text)?, hasher),
        Kind::TCPRoute => slim(lenient::<api::TCPRoute>(text)?, hasher),
        Kind::UDPRoute => slim(lenient::<api::UDPRoute>(text)?, hasher),
        Kind::ReferenceGrant => slim(lenient::<api::ReferenceGrant>(text)?, hasher),
    };
    Ok((reduced, shown))
}

/// The report that an object asks for.
fn asks(metadata: &ObjectMeta) -> Option<Asking> {
    let annotations = metadata.annotations.as_ref()?;
    let asks = annotations.get(OBSERVE).and_then(|text| bool::parse(text)) == Some(true);
    asks.then(|| Asking::new(metadata.generation.unwrap_or_default(), annotations.get(OBSERVED).map(String::as_str)))
}

/// Decodes an object; on failure retries without `managedFields`, which are irrelevant here.
fn lenient<T: DeserializeOwned>(text: &str) -> serde_json::Result<T> {
    serde_json::from_str(text).or_else(|error| {
        let mut value: Value = serde_json::from_str(text)?;
        let metadata = value.get_mut("metadata").and_then(|metadata| metadata.as_object_mut());
        match metadata.and_then(|metadata| metadata.remove("managedFields")) {
            Some(_) => serde_json::from_value(value).map_err(|_| error),
            None => Err(error),
        }
    })
}

/// Removes the parts that are never read, and hashes everything that remains except the version. The hasher's seed is
/// random, so no user can make two contents collide.
#[allow(clippy::redundant_clone, reason = "the copy is smaller")]
fn slim<T>(mut object: T, hasher: &RandomState) -> Reduced
where
    T: k8s_openapi::Metadata<Ty = ObjectMeta> + Clone + Serialize + Into<Object>,
{
    let metadata = object.metadata_mut();
    let asking = asks(metadata);
    metadata.managed_fields = None;
    metadata.owner_references = None;
    metadata.generation = None;
    if let Some(annotations) = &mut metadata.annotations {
        // A second copy of the whole object; for a Secret, of its content.
        annotations.remove("kubectl.kubernetes.io/last-applied-configuration");
        // We write this one ourselves.
        annotations.remove(OBSERVED);
    }
    let version = metadata.resource_version.take();
    let mut sink = HashSink(hasher.build_hasher());
    serde_json::to_writer(&mut sink, &object).expect("objects serialize, and the writer takes everything");
    object.metadata_mut().resource_version = version;
    // The list of a rule's filters has spare capacity for four after decoding, and a filter may have a kilobyte; a copy has none to spare.
    let object = object.clone().into();
    Reduced { object, fingerprint: sink.0.finish(), asking }
}

struct HashSink(DefaultHasher);

impl io::Write for HashSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn ingress(change: impl FnOnce(&mut Value)) -> Seen {
        let mut value = json!({
            "metadata": {"name": "web", "namespace": "shop", "uid": "u1", "resourceVersion": "5"},
            "spec": {"rules": [{"host": "a.example.com"}]},
        });
        change(&mut value);
        static HASHER: std::sync::LazyLock<RandomState> = std::sync::LazyLock::new(RandomState::new);
        decode(Kind::Ingress, &value.to_string(), Wanted::Object, &HASHER).unwrap()
    }

    fn print(seen: &Seen) -> u64 {
        match &seen.content {
            Content::Object { fingerprint, .. } => *fingerprint,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn only_what_translation_reads_changes_the_fingerprint() {
        let first = ingress(|_| ());
        let same = ingress(|value| {
            value["metadata"]["resourceVersion"] = json!("6");
            value["metadata"]["generation"] = json!(7);
            value["metadata"]["managedFields"] = json!([{"manager": "kubectl"}]);
            value["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}});
        });
        assert_eq!(print(&first), print(&same));
        assert_ne!(print(&first), print(&ingress(|value| value["spec"] = json!({}))));
        assert_ne!(print(&first), print(&ingress(|value| value["metadata"]["annotations"] = json!({"a": "b"}))));
        assert_ne!(print(&first), print(&ingress(|value| value["metadata"]["uid"] = json!("u2"))));
    }

    #[test]
    fn a_malformed_object_still_has_a_name() {
        let seen = ingress(|value| value["spec"] = json!("nonsense\n"));
        assert_eq!(seen.key, ObjectKey::new(Kind::Ingress, "shop", "web"));
        assert_eq!(&*seen.identity.uid, "u1");
        assert!(matches!(&seen.content, Content::Malformed(why) if why.contains("nonsense")));
    }

    #[test]
    fn managed_fields_never_make_an_object_malformed() {
        let seen = ingress(|value| value["metadata"]["managedFields"] = json!([{"time": "yesterday"}]));
        assert_eq!(print(&seen), print(&ingress(|_| ())));
    }

    #[test]
    fn the_content_of_a_malformed_secret_is_not_repeated() {
        let text = json!({"metadata": {"name": "s", "namespace": "n"}, "data": "hunter2"}).to_string();
        let seen = decode(Kind::Secret, &text, Wanted::Object, &RandomState::new()).unwrap();
        assert!(matches!(&seen.content, Content::Malformed(why) if !why.contains("hunter2")));
    }

    #[test]
    fn heartbeats_of_endpoint_slices_are_not_changes() {
        let hasher = RandomState::new();
        let slice = |time: &str| {
            let text = json!({
                "metadata": {"name": "web-1", "namespace": "shop",
                    "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": time}},
                "addressType": "IPv4", "endpoints": [],
            });
            print(&decode(Kind::EndpointSlice, &text.to_string(), Wanted::Object, &hasher).unwrap())
        };
        assert_eq!(slice("2026-01-01T00:00:00Z"), slice("2026-01-01T00:00:01Z"));
    }
}
