//! State that a controller keeps in its own namespace: one text in a Secret or a ConfigMap.
//!
//! Invariant: no write is lost. An object is created only if it doesn't exist, and replaced only in the version that was read, so several
//! controllers need no coordination: one is first, and the others read what it has written.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{GetParams, PostParams};

use crate::api::{ApiServer, CallError, collection};

/// The object and key that hold a text.
#[derive(Clone)]
pub struct Keep {
    api: ApiServer,
    kind: KeepKind,
    namespace: String,
    name: String,
    key: &'static str,
}

/// The kind of object that holds a text.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeepKind {
    /// For secret texts.
    Secret,
    /// For texts that all may read.
    ConfigMap,
}

/// A text as it was read.
#[derive(Default)]
pub struct KeptText {
    /// Empty if the object exists without it.
    pub text: Vec<u8>,
    metadata: ObjectMeta,
    secret: BTreeMap<String, ByteString>,
    map: BTreeMap<String, String>,
}

/// Why a text can't be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{verb} the {kind} {namespace}/{name}")]
pub struct KeepError {
    verb: &'static str,
    kind: &'static str,
    namespace: String,
    name: String,
    source: CallError,
}

impl KeepError {
    /// Whether another writer came first.
    pub fn is_overtaken(&self) -> bool {
        self.source.code() == Some(409)
    }
}

impl Keep {
    /// The text under `key` of an object.
    pub fn new(client: kube::Client, kind: KeepKind, namespace: &str, name: &str, key: &'static str) -> Self {
        Self { api: ApiServer::new(client), kind, namespace: namespace.to_owned(), name: name.to_owned(), key }
    }

    /// Reads the text. `None` if the object doesn't exist.
    ///
    /// # Errors
    /// If the API server refuses or doesn't answer.
    pub async fn read(&self) -> Result<Option<KeptText>, KeepError> {
        let request = self.request().get(&self.name, &GetParams::default());
        let found = match self.kind {
            KeepKind::Secret => self.api.call::<Secret>(request).await.map(|object| {
                let secret = object.data.unwrap_or_default();
                let text = secret.get(self.key).map(|text| text.0.clone()).unwrap_or_default();
                KeptText { text, metadata: object.metadata, secret, map: BTreeMap::new() }
            }),
            KeepKind::ConfigMap => self.api.call::<ConfigMap>(request).await.map(|object| {
                let map = object.data.unwrap_or_default();
                let text = map.get(self.key).map(|text| text.clone().into_bytes()).unwrap_or_default();
                KeptText { text, metadata: object.metadata, secret: BTreeMap::new(), map }
            }),
        };
        match found {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.code() == Some(404) => Ok(None),
            Err(source) => Err(self.failed("reading", source)),
        }
    }

    /// Writes the text in place of what was read.
    ///
    /// # Errors
    /// If the API server refuses or doesn't answer, or another writer came first.
    pub async fn write(&self, text: &[u8], before: Option<KeptText>) -> Result<(), KeepError> {
        let is_new = before.is_none();
        let KeptText { mut metadata, mut secret, mut map, .. } = before.unwrap_or_default();
        (metadata.name, metadata.namespace) = (Some(self.name.clone()), Some(self.namespace.clone()));
        metadata.managed_fields = None;
        if is_new {
            let label = ("app.kubernetes.io/managed-by".to_owned(), "fairway".to_owned());
            metadata.labels = Some(BTreeMap::from([label]));
        }
        let body = match self.kind {
            KeepKind::Secret => {
                secret.insert(self.key.to_owned(), ByteString(text.to_vec()));
                serde_json::to_vec(&Secret { metadata, data: Some(secret), ..Secret::default() })
            }
            KeepKind::ConfigMap => {
                map.insert(self.key.to_owned(), String::from_utf8_lossy(text).into_owned());
                serde_json::to_vec(&ConfigMap { metadata, data: Some(map), ..ConfigMap::default() })
            }
        };
        let body = body.map_err(|error| self.failed("writing", CallError::Decode(error)))?;
        // With the version in the body, the API server rejects the write if another one came first.
        let written = if is_new {
            self.api.call::<serde_json::Value>(self.request().create(&PostParams::default(), body)).await
        } else {
            self.api.call(self.request().replace(&self.name, &PostParams::default(), body)).await
        };
        written.map(drop).map_err(|source| self.failed("writing", source))
    }

    fn request(&self) -> kube::core::Request {
        let plural = match self.kind {
            KeepKind::Secret => "secrets",
            KeepKind::ConfigMap => "configmaps",
        };
        collection("v1", plural, Some(&self.namespace))
    }

    fn failed(&self, verb: &'static str, source: CallError) -> KeepError {
        let kind = match self.kind {
            KeepKind::Secret => "Secret",
            KeepKind::ConfigMap => "ConfigMap",
        };
        KeepError { verb, kind, namespace: self.namespace.clone(), name: self.name.clone(), source }
    }
}

impl fmt::Debug for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// It leaves out the text.
impl fmt::Debug for KeptText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.text.len())
    }
}
