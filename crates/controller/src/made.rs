//! Objects that are made for Gateways: written and deleted as translation says, by the leader.

use std::collections::HashMap;
use std::sync::Arc;

use fairway_model::ErrorChain;
use fairway_translate::gateway::Make;
use fairway_translate::objects::ObjectKey;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions};
use serde_json::Value;
use tokio::time::Instant;
use tracing::{debug, error, warn};

use crate::api::{ApiServer, CallError, collection};
use crate::backlog::Backlog;
use crate::watch::plural;

/// The field manager of what we apply.
const MANAGER: &str = "fairway";

/// What is left to do.
#[derive(Debug, Default)]
pub(crate) struct Making {
    wanted: HashMap<ObjectKey, Make>,
    backlog: Backlog,
    forbidden: bool,
}

/// One write to do.
#[derive(Debug)]
pub(crate) struct MakeWrite {
    pub(crate) key: ObjectKey,
    make: Make,
    /// For a deletion: exactly this object.
    uid: Box<str>,
}

/// The result of a write.
pub(crate) type Made = Result<(), CallError>;

impl MakeWrite {
    /// Applies or deletes the object.
    pub(crate) async fn run(&self, api: &ApiServer) -> Made {
        let request = collection(self.key.kind.api_version(), plural(self.key.kind), Some(&self.key.namespace));
        let request = match &self.make {
            Make::Apply(object) => {
                let patch: Patch<&Arc<Value>> = Patch::Apply(object);
                request.patch(&self.key.name, &PatchParams::apply(MANAGER).force(), &patch)
            }
            Make::Delete => {
                let uid = Some(self.uid.to_string()).filter(|uid| !uid.is_empty());
                let exactly = Preconditions { uid, resource_version: None };
                request.delete(&self.key.name, &DeleteParams::background().preconditions(exactly))
            }
        };
        let _: Value = api.call(request).await?;
        Ok(())
    }
}

impl Making {
    /// Records what has to be done about an object; `None` if it is as it should be.
    pub(crate) fn want(&mut self, key: ObjectKey, make: Option<Make>) {
        match make {
            Some(make) => {
                self.wanted.insert(key.clone(), make);
                self.backlog.add(key);
            }
            None => {
                self.wanted.remove(&key);
                self.backlog.remove(&key);
            }
        }
    }

    /// Does everything that is left again: what was written may have been changed by others before we saw it.
    pub(crate) fn check(&mut self) {
        self.backlog.extend(self.wanted.keys().cloned());
    }

    /// The next write, if there is one and not too many are in progress. `uid` gives that of an object.
    pub(crate) fn next<'a>(&mut self, uid: impl Fn(&ObjectKey) -> Option<&'a str>) -> Option<MakeWrite> {
        while let Some(key) = self.backlog.next() {
            let Some(make) = self.wanted.get(&key).cloned() else { continue };
            let uid = uid(&key).unwrap_or_default().into();
            self.backlog.begin(key.clone());
            return Some(MakeWrite { key, make, uid });
        }
        None
    }

    /// Records the result of a write.
    pub(crate) fn written(&mut self, write: MakeWrite, result: Made) {
        let MakeWrite { key, make, .. } = write;
        self.backlog.end(&key);
        let (namespace, name, kind) = (&*key.namespace, &*key.name, key.kind);
        match result {
            // The watch shows the result. Something else may have been asked for in the meantime.
            Ok(()) if self.wanted.get(&key).is_some_and(|wanted| *wanted != make) => self.backlog.succeeded(key),
            Ok(()) => {}
            Err(error) => match error.code() {
                Some(404) if make == Make::Delete => {}
                Some(403) if !self.forbidden => {
                    self.forbidden = true;
                    error!(error = %ErrorChain(&error), "no right to write Services and EndpointSlices for Gateways");
                    self.backlog.try_again(key, &error);
                }
                Some(400 | 422) => {
                    warn!(%kind, namespace, name, error = %ErrorChain(&error),
                        "the API server refuses an object that is made for a Gateway; it is tried again from time to time");
                }
                _ => {
                    debug!(%kind, namespace, name, error = %ErrorChain(&error),
                        "cannot write an object that is made for a Gateway; trying again");
                    self.backlog.try_again(key, &error);
                }
            },
        }
    }

    /// Records that a write was aborted.
    pub(crate) fn abandoned(&mut self, key: ObjectKey) {
        self.backlog.abandoned(key);
    }

    /// When [`retry`](Self::retry) is due.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.backlog.retry_at()
    }

    /// Tries failed writes again.
    pub(crate) fn retry(&mut self) {
        self.backlog.retry();
    }
}
