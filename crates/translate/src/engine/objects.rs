//! The Kubernetes objects that translation reads, wherever they come from: the API server or files.

mod ingress;

use std::borrow::Cow;
use std::collections::{BTreeMap, btree_map};
use std::fmt;
use std::sync::{Arc, LazyLock};

use fairway_model::Origin;
use fairway_model::packing::{MANY, pack};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{Ingress, IngressClass};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use serde::{Deserialize, Serialize};

use crate::gateway::GatewayParameters;
use crate::gateway::api::{
    BackendTLSPolicy, GRPCRoute, Gateway, GatewayClass, HTTPRoute, ListenerSet, ReferenceGrant, TCPRoute, TLSRoute,
    UDPRoute, XBackend, XBackendTrafficPolicy, XTelemetryPolicy,
};
use crate::gateway::policy::RoutePolicy;

pub use ingress::StoredIngress;

macro_rules! kinds {
    ($($kind:ident)*) => {
        /// The kinds of object that translation reads.
        #[derive(Clone, Copy, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
        pub enum Kind {
            $(#[doc = concat!("[`", stringify!($kind), "`], in the version that is read.")] $kind,)*
        }

        impl Kind {
            /// All kinds.
            pub const ALL: &'static [Self] = &[$(Self::$kind),*];

            /// Whether it is a kind of the Gateway API, or one that attaches to those: a cluster may lack the CRDs of all of these.
            pub fn is_of_gateway_api(self) -> bool {
                self.is_route()
                    || matches!(self, Self::GatewayClass | Self::Gateway | Self::ListenerSet | Self::ReferenceGrant | Self::BackendTLSPolicy | Self::RoutePolicy | Self::XBackendTrafficPolicy | Self::XTelemetryPolicy | Self::GatewayParameters | Self::XBackend)
            }

            /// Whether it is a route of the Gateway API.
            pub fn is_route(self) -> bool {
                matches!(
                    self,
                    Self::HTTPRoute | Self::GRPCRoute | Self::TLSRoute | Self::TCPRoute | Self::UDPRoute
                )
            }

            /// Whether its objects belong to no namespace.
            pub fn is_cluster_wide(self) -> bool {
                matches!(self, Self::IngressClass | Self::Namespace | Self::GatewayClass)
            }

            /// The kind as written in a manifest.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$kind => stringify!($kind),)* }
            }

            /// Its API group; empty for the core one.
            pub fn group(self) -> &'static str {
                match self { $(Self::$kind => <$kind as k8s_openapi::Resource>::GROUP,)* }
            }

            /// The supported `apiVersion`.
            pub fn api_version(self) -> &'static str {
                match self { $(Self::$kind => <$kind as k8s_openapi::Resource>::API_VERSION,)* }
            }
        }
    };
}

macro_rules! objects {
    ($($kind:ident)*) => {
        /// One object. Cloning one copies a pointer.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Object {
            /// An Ingress.
            Ingress(StoredIngress),
            $(#[doc = concat!("Of kind ", stringify!($kind), ".")] $kind(Arc<$kind>),)*
        }

        impl Object {
            /// Its kind.
            pub fn kind(&self) -> Kind {
                match self {
                    Self::Ingress(_) => Kind::Ingress,
                    $(Self::$kind(_) => Kind::$kind,)*
                }
            }

            /// Its key.
            pub fn key(&self) -> ObjectKey {
                match self {
                    Self::Ingress(ingress) => ingress.key().clone(),
                    $(Self::$kind(object) => ObjectKey::of(Kind::$kind, &object.metadata),)*
                }
            }

            /// Its creation time, if known.
            pub fn created(&self) -> Option<Timestamp> {
                match self {
                    Self::Ingress(ingress) => ingress.created(),
                    $(Self::$kind(object) => object.metadata.creation_timestamp.as_ref().map(|time| time.0),)*
                }
            }

            /// A copy of all of it.
            pub(crate) fn copied(&self) -> Self {
                match self {
                    Self::Ingress(ingress) => Self::Ingress(ingress.copied()),
                    $(Self::$kind(object) => Self::$kind(Arc::new((**object).clone())),)*
                }
            }

            /// Sets its creation time.
            pub fn set_created(&mut self, created: Timestamp) {
                match self {
                    Self::Ingress(ingress) => ingress.set_created(created),
                    $(Self::$kind(object) => {
                        Arc::make_mut(object).metadata.creation_timestamp = Some(Time(created));
                    })*
                }
            }
        }

        impl From<Ingress> for Object {
            fn from(ingress: Ingress) -> Self {
                Self::Ingress(ingress.into())
            }
        }

        $(impl From<$kind> for Object {
            fn from(object: $kind) -> Self {
                Self::$kind(Arc::new(object))
            }
        })*
    };
}

kinds! {
    Ingress IngressClass Service EndpointSlice Secret ConfigMap Namespace
    GatewayClass Gateway ListenerSet HTTPRoute GRPCRoute TLSRoute TCPRoute UDPRoute ReferenceGrant BackendTLSPolicy RoutePolicy
    XBackendTrafficPolicy GatewayParameters XBackend XTelemetryPolicy
}

objects! {
    IngressClass Service EndpointSlice Secret ConfigMap Namespace
    GatewayClass Gateway ListenerSet HTTPRoute GRPCRoute TLSRoute TCPRoute UDPRoute ReferenceGrant BackendTLSPolicy RoutePolicy
    XBackendTrafficPolicy GatewayParameters XBackend XTelemetryPolicy
}

impl Kind {
    /// The plural, for messages.
    pub(crate) fn plural(self) -> String {
        match self.as_str() {
            "Ingress" => "Ingresses".to_owned(),
            "IngressClass" | "GatewayClass" => format!("{self}es"),
            name => name.strip_suffix("Policy").map_or_else(|| format!("{name}s"), |stem| format!("{stem}Policies")),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The names of the kinds, shared by origins.
static KINDS: LazyLock<Vec<Arc<str>>> = LazyLock::new(|| Kind::ALL.iter().map(|kind| kind.as_str().into()).collect());

/// Kind, namespace and name of an object; the namespace is empty for cluster-wide objects.
#[derive(Clone, Debug, Eq, PartialEq, Ord, PartialOrd, Hash, Serialize, Deserialize)]
pub struct ObjectKey {
    /// The kind.
    pub kind: Kind,
    /// The namespace.
    pub namespace: Arc<str>,
    /// The name.
    pub name: Arc<str>,
}

impl ObjectKey {
    /// A key from its parts.
    pub fn new<'a>(kind: Kind, namespace: impl Into<Cow<'a, str>>, name: impl Into<Cow<'a, str>>) -> Self {
        Self { kind, namespace: (&*namespace.into()).into(), name: (&*name.into()).into() }
    }

    pub(crate) fn of(kind: Kind, metadata: &ObjectMeta) -> Self {
        let text = |text: &Option<String>| text.as_deref().unwrap_or_default().into();
        Self { kind, namespace: text(&metadata.namespace), name: text(&metadata.name) }
    }

    /// A copy with texts of its own.
    #[must_use]
    pub fn copied(&self) -> Self {
        Self::new(self.kind, &*self.namespace, &*self.name)
    }

    /// The object, as the origin of model values.
    pub fn origin(&self) -> Origin {
        Origin::new(KINDS[self.kind as usize].clone(), self.namespace.clone(), self.name.clone())
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.origin().fmt(f)
    }
}

/// An event of a watch or of a changed file.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The object exists, new or changed.
    Upsert(Object),
    /// The object is gone.
    Remove(ObjectKey),
}

/// All existing objects, and the order in which they arrived. The order decides which is older if the objects have no creation time, as in
/// manifests that were never in a cluster.
#[derive(Clone, Debug, Default)]
pub struct Objects {
    objects: BTreeMap<ObjectKey, Entry>,
    next: u64,
    /// How many there were at most since they were copied.
    most: usize,
}

#[derive(Clone, Debug)]
struct Entry {
    sequence: u64,
    object: Object,
}

impl Objects {
    /// Applies one change, and returns the previous version of the object. A replaced object keeps its place in the order.
    pub fn apply(&mut self, change: Change) -> Option<Object> {
        match change {
            Change::Upsert(object) => match self.objects.entry(object.key()) {
                btree_map::Entry::Occupied(mut entry) => Some(std::mem::replace(&mut entry.get_mut().object, object)),
                btree_map::Entry::Vacant(entry) => {
                    entry.insert(Entry { sequence: self.next, object });
                    self.next += 1;
                    self.most = self.most.max(self.objects.len());
                    None
                }
            },
            Change::Remove(key) => self.objects.remove(&key).map(|entry| entry.object),
        }
    }

    /// Releases unused memory: worthwhile after thousands of changes.
    pub(crate) fn compact(&mut self) {
        pack(&mut self.objects);
    }

    /// Whether a few are left of many: they lie scattered over the memory of the others.
    pub(crate) fn are_remnants(&self) -> bool {
        self.most >= MANY && self.objects.len() < self.most / 4
    }

    /// Copies all objects, so that they lie together.
    pub(crate) fn renew(&mut self) {
        let copied = std::mem::take(&mut self.objects).into_values().map(|Entry { sequence, object }| {
            let object = object.copied();
            (object.key(), Entry { sequence, object })
        });
        self.objects = copied.collect();
        self.most = self.objects.len();
    }

    /// One object.
    pub fn get(&self, key: &ObjectKey) -> Option<&Object> {
        self.objects.get(key).map(|entry| &entry.object)
    }

    /// One Service.
    pub(crate) fn service(&self, key: &ObjectKey) -> Option<&Service> {
        match self.get(key) {
            Some(Object::Service(service)) => Some(service),
            _ => None,
        }
    }

    /// The object's place in the order of arrival.
    pub fn sequence(&self, key: &ObjectKey) -> Option<u64> {
        self.objects.get(key).map(|entry| entry.sequence)
    }

    /// All objects by kind, namespace and name.
    pub fn iter(&self) -> impl Iterator<Item = (&ObjectKey, &Object)> {
        self.objects.iter().map(|(key, entry)| (key, &entry.object))
    }

    /// The objects of one kind, by namespace and name.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (&ObjectKey, &Object)> {
        self.objects
            .range(ObjectKey::new(kind, "", "")..)
            .take_while(move |(key, _)| key.kind == kind)
            .map(|(key, entry)| (key, &entry.object))
    }

    /// The objects of one kind and namespace, by name.
    pub fn in_namespace<'a>(
        &'a self,
        kind: Kind,
        namespace: &'a str,
    ) -> impl Iterator<Item = (&'a ObjectKey, &'a Object)> {
        self.objects
            .range(ObjectKey::new(kind, namespace, "")..)
            .take_while(move |(key, _)| key.kind == kind && *key.namespace == *namespace)
            .map(|(key, entry)| (key, &entry.object))
    }

    /// All objects in the order of arrival.
    pub fn in_order(&self) -> Vec<&Object> {
        let mut entries: Vec<_> = self.objects.values().collect();
        entries.sort_unstable_by_key(|entry| entry.sequence);
        entries.into_iter().map(|entry| &entry.object).collect()
    }

    /// The number of objects.
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there are no objects.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }
}

/// In the order of the iterator.
impl FromIterator<Object> for Objects {
    fn from_iter<I: IntoIterator<Item = Object>>(objects: I) -> Self {
        let mut all = Self::default();
        for object in objects {
            all.apply(Change::Upsert(object));
        }
        all
    }
}
