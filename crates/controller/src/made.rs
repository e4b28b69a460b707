//! Objects that the leader creates for Gateways and XBackends: written and deleted as translation wants.

use std::collections::BTreeMap;

use fairway_translate::gateway::Make;
use fairway_translate::objects::ObjectKey;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::{Value, json};

use crate::api::{ApiServer, CallError, collection};
use crate::backlog::{Backlog, Writes};
use crate::watch::{Identity, plural};

/// The field manager of the objects that we apply.
const MANAGER: &str = "fairway";

/// The writes of this module, for the log.
const WRITES: Writes = Writes {
    all: "Services and EndpointSlices for Gateways and XBackends",
    one: "an object that is made for a Gateway or an XBackend",
    again: "from time to time",
};

/// The work that is left.
#[derive(Debug, Default)]
pub(crate) struct Making {
    wanted: BTreeMap<ObjectKey, Make>,
    /// Objects to write or delete.
    pub(crate) backlog: Backlog,
}

/// One write to do.
#[derive(Debug)]
pub(crate) struct MakeWrite {
    pub(crate) key: ObjectKey,
    make: Make,
    /// The object that was examined; `None` if there was none.
    found: Option<Identity>,
}

/// The result of a write.
pub(crate) type Made = Result<(), CallError>;

impl MakeWrite {
    /// Creates, applies or deletes the object, provided that it is still as it was examined: an object of the same name that another writer
    /// has created meanwhile is left alone.
    pub(crate) async fn run(&self, api: &ApiServer) -> Made {
        let request = collection(self.key.kind.api_version(), plural(self.key.kind), Some(&self.key.namespace));
        let name = &self.key.name;
        let request = match (&self.make, &self.found) {
            (Make::Apply(object), None) => {
                let by = PostParams { field_manager: Some(MANAGER.to_owned()), ..PostParams::default() };
                request.create(&by, object.to_string().into_bytes())
            }
            (Make::Apply(object), Some(Identity { uid, version })) => {
                let mut object = Value::clone(object);
                object["metadata"]["uid"] = json!(uid);
                object["metadata"]["resourceVersion"] = json!(version);
                request.patch(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(object))
            }
            (Make::Delete, None) => return Ok(()),
            (Make::Delete, Some(Identity { uid, version })) => {
                let exactly = Preconditions { uid: Some(uid.to_string()), resource_version: Some(version.to_string()) };
                request.delete(name, &DeleteParams::background().preconditions(exactly))
            }
        };
        let _: Value = api.call(request).await?;
        Ok(())
    }
}

impl Making {
    /// Records the pending work on an object; `None` if nothing is left to do.
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

    /// Does everything that is left again: others may have changed what was written before we saw it.
    pub(crate) fn check(&mut self) {
        self.backlog.extend(self.wanted.keys().cloned());
    }

    /// The next write, if there is one and not too many are in progress. `found` returns an object as the watch last showed it.
    pub(crate) fn next(&mut self, found: impl Fn(&ObjectKey) -> Option<Identity>) -> Option<MakeWrite> {
        while let Some(key) = self.backlog.next() {
            let Some(make) = self.wanted.get(&key).cloned() else { continue };
            let found = found(&key);
            self.backlog.begin(key.clone());
            return Some(MakeWrite { key, make, found });
        }
        None
    }

    /// Records the result of a write.
    pub(crate) fn written(&mut self, write: MakeWrite, result: Made) {
        let MakeWrite { key, make, .. } = write;
        self.backlog.end(&key);
        match result {
            // The watch shows the result. The wanted state may have changed meanwhile.
            Ok(()) if self.wanted.get(&key).is_some_and(|wanted| *wanted != make) => self.backlog.succeeded(key),
            Ok(()) => {}
            Err(error) => self.backlog.failed(key, &error, &WRITES),
        }
    }
}
