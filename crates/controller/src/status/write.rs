//! One write of the status of an Ingress: its requests to the API server.

use std::sync::Arc;

use fairway_translate::objects::ObjectKey;
use kube::api::{GetParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::address::Addresses;
use crate::api::{ApiServer, CallError, collection};
use crate::watch::Identity;

/// How to write a status. Both require that the Ingress is still at the version we examined.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Verb {
    /// One request.
    #[default]
    Patch,
    /// Two requests, for the roles of ingress-nginx, which allow `get` and `update` but not `patch`.
    Update,
}

/// One write to do.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) key: ObjectKey,
    pub(super) identity: Identity,
    pub(super) addresses: Arc<Addresses>,
    pub(super) verb: Verb,
}

/// The result of a write: the version of the Ingress after it, and the verb it took.
pub(crate) type Written = Result<(Box<str>, Verb), CallError>;

impl Write {
    /// Writes the addresses; if we have no right to one verb, it tries the other.
    pub(crate) async fn run(&self, api: &ApiServer) -> Written {
        let other = match self.verb {
            Verb::Patch => Verb::Update,
            Verb::Update => Verb::Patch,
        };
        match self.write(api, self.verb).await {
            Err(error) if error.code() == Some(403) => self.write(api, other).await.map(|version| (version, other)),
            result => result.map(|version| (version, self.verb)),
        }
    }

    async fn write(&self, api: &ApiServer, verb: Verb) -> Result<Box<str>, CallError> {
        let request = collection("networking.k8s.io/v1", "ingresses", Some(&self.key.namespace));
        let Identity { uid, version } = &self.identity;
        let status = json!({"loadBalancer": {"ingress": *self.addresses}});
        if verb == Verb::Patch {
            let patch = Patch::Merge(json!({"metadata": {"uid": uid, "resourceVersion": version}, "status": status}));
            let request = request.patch_subresource("status", &self.key.name, &PatchParams::default(), &patch);
            return api.call::<Value>(request).await.map(version_of);
        }
        let mut ingress: Value = api.call(request.get(&self.key.name, &GetParams::default())).await?;
        if version_of_ref(&ingress) != Some(version) {
            return Err(CallError::Refused {
                code: 409,
                reason: "Conflict".to_owned(),
                message: "the Ingress has changed".to_owned(),
                retry_after: None,
            });
        }
        ingress["status"] = status;
        let body = ingress.to_string().into_bytes();
        let request = request.replace_subresource("status", &self.key.name, &PostParams::default(), body);
        api.call::<Value>(request).await.map(version_of)
    }
}

fn version_of_ref(object: &Value) -> Option<&str> {
    object["metadata"]["resourceVersion"].as_str()
}

fn version_of(object: Value) -> Box<str> {
    version_of_ref(&object).unwrap_or_default().into()
}
