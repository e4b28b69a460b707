//! Tracks the status of objects of the Gateway API: which object shows what, and which must be written.
//!
//! Only bookkeeping, like [`crate::status`]. Invariants: one write per change and object, none while the object shows what it should;
//! what other controllers have written stays byte for byte; a status names the generation that translation has seen, never a newer
//! one.

use std::collections::BTreeMap;
use std::sync::Arc;

use fairway_translate::gateway::status::{ListenerStatus, ObjectStatus};
use fairway_translate::objects::{Kind, ObjectKey};
use kube::api::{Patch, PatchParams};
use serde_json::value::{RawValue, to_raw_value};
use serde_json::{Map, Value, json};

use crate::address::Addresses;
use crate::api::{ApiServer, CallError, collection};
use crate::backlog::{Backlog, Writes};
use crate::watch::{Identity, SeenStatus, plural};

/// The most addresses that a Gateway's status may show.
const ADDRESSES: usize = 16;

/// The writes of this module, for the log.
const WRITES: Writes = Writes {
    all: "the status of objects of the Gateway API",
    one: "the status of this object",
    again: "when the object changes",
};

/// Conditions that exist only while they hold.
const FLEETING: [&str; 2] = ["InsecureFrontendValidationMode", "PartiallyInvalid"];

/// The status of all objects of the Gateway API.
#[derive(Debug)]
pub(crate) struct GatewayStatus {
    /// The controller's name, which marks our entries.
    controller: String,
    objects: BTreeMap<ObjectKey, Shown>,
    /// The status that translation wants for each object of ours.
    wanted: BTreeMap<ObjectKey, Arc<ObjectStatus>>,
    addresses: Vec<Value>,
    /// Objects to check.
    pub(crate) backlog: Backlog,
}

/// An object and what it shows.
#[derive(Debug)]
struct Shown {
    identity: Identity,
    /// The newest generation.
    generation: i64,
    /// The generation that translation has seen.
    translated: Option<i64>,
    /// As text: a parsed tree takes ten times as much memory.
    status: Box<RawValue>,
}

/// One write to do.
#[derive(Debug)]
pub(crate) struct GatewayWrite {
    pub(crate) key: ObjectKey,
    identity: Identity,
    status: Value,
}

/// The result of a write: the version of the object after it.
pub(crate) type GatewayWritten = Result<Box<str>, CallError>;

impl GatewayWrite {
    /// Writes the status, provided that the object is still at the version we examined.
    pub(crate) async fn run(&self, api: &ApiServer) -> GatewayWritten {
        let namespace = Some(&*self.key.namespace).filter(|namespace| !namespace.is_empty());
        let request = collection(self.key.kind.api_version(), plural(self.key.kind), namespace);
        let Identity { uid, version } = &self.identity;
        let patch = Patch::Merge(json!({"metadata": {"uid": uid, "resourceVersion": version}, "status": self.status}));
        let request = request.patch_subresource("status", &self.key.name, &PatchParams::default(), &patch);
        let written: Value = api.call(request).await?;
        Ok(written["metadata"]["resourceVersion"].as_str().unwrap_or_default().into())
    }
}

impl GatewayStatus {
    /// Nothing is known yet. `controller` is the name that marks our entries among those of others.
    pub(crate) fn new(controller: String) -> Self {
        Self {
            controller,
            objects: BTreeMap::new(),
            wanted: BTreeMap::new(),
            addresses: Vec::new(),
            backlog: Backlog::default(),
        }
    }

    /// Records that an object exists and shows this.
    pub(crate) fn seen(&mut self, key: &ObjectKey, identity: &Identity, shown: SeenStatus) {
        let SeenStatus { generation, status } = shown;
        let before = self.objects.get(key).filter(|before| before.identity.uid == identity.uid);
        let translated = before.and_then(|before| before.translated);
        self.objects.insert(key.clone(), Shown { identity: identity.clone(), generation, translated, status });
        self.backlog.add(key.clone());
    }

    /// Records that an object is gone.
    pub(crate) fn gone(&mut self, key: &ObjectKey) {
        self.objects.remove(key);
        self.backlog.remove(key);
    }

    /// Records the status that translation wants for an object; `None` if it is not ours.
    pub(crate) fn want(&mut self, key: ObjectKey, status: Option<Arc<ObjectStatus>>) {
        match status {
            Some(status) => self.wanted.insert(key.clone(), status),
            None => self.wanted.remove(&key),
        };
        self.backlog.add(key);
    }

    /// Records that translation has seen the newest version of every object.
    pub(crate) fn translated(&mut self) {
        for (key, shown) in &mut self.objects {
            if shown.translated != Some(shown.generation) {
                shown.translated = Some(shown.generation);
                self.backlog.add(key.clone());
            }
        }
    }

    /// Sets the addresses of Gateways.
    pub(crate) fn publish(&mut self, addresses: &Addresses) {
        let entry = |address: &crate::address::Address| {
            let kind = if address.is_ip() { "IPAddress" } else { "Hostname" };
            json!({"type": kind, "value": address.to_string()})
        };
        let addresses: Vec<Value> = addresses.iter().take(ADDRESSES).map(entry).collect();
        if addresses != self.addresses {
            self.addresses = addresses;
            self.backlog.extend(self.wanted.keys().filter(|key| key.kind == Kind::Gateway).cloned());
        }
    }

    /// Checks every object again.
    pub(crate) fn check(&mut self) {
        self.backlog.extend(self.objects.keys().cloned());
    }

    /// The next write, if there is one and not too many are in progress. `now` is the time of conditions that change.
    pub(crate) fn next(&mut self, now: &str) -> Option<GatewayWrite> {
        while let Some(key) = self.backlog.next() {
            let Some(shown) = self.objects.get(&key) else { continue };
            let Some(generation) = shown.translated.filter(|generation| *generation == shown.generation) else {
                continue;
            };
            let context = Writing { controller: &self.controller, generation, now, addresses: &self.addresses };
            let shows: Value = serde_json::from_str(shown.status.get()).unwrap_or_default();
            let status = context.status(&key, &shows, self.wanted.get(&key).map(|status| &**status));
            if status == shows || (shows.is_null() && status == json!({})) {
                continue;
            }
            self.backlog.begin(key.clone());
            return Some(GatewayWrite { key, identity: shown.identity.clone(), status });
        }
        None
    }

    /// Records the result of a write.
    pub(crate) fn written(&mut self, write: GatewayWrite, result: GatewayWritten) {
        let GatewayWrite { key, identity, status } = write;
        self.backlog.end(&key);
        match result {
            Ok(version) => {
                // Unless the watch has delivered a newer version in the meantime, this is the current one.
                if let Some(shown) = self.objects.get_mut(&key)
                    && shown.identity == identity
                {
                    shown.status = to_raw_value(&status).expect("a value can be written as text");
                    shown.identity.version = version;
                }
                self.backlog.succeeded(key);
            }
            Err(error) => self.backlog.failed(key, &error, &WRITES),
        }
    }
}

/// The inputs of a status.
struct Writing<'a> {
    controller: &'a str,
    generation: i64,
    now: &'a str,
    addresses: &'a [Value],
}

impl Writing<'_> {
    /// The status that an object should show, given what it shows.
    fn status(&self, key: &ObjectKey, shown: &Value, wanted: Option<&ObjectStatus>) -> Value {
        let mut status = match shown {
            Value::Object(fields) => fields.clone(),
            _ => Map::new(),
        };
        match wanted {
            Some(ObjectStatus::Class { conditions, supported_features }) => {
                status.insert("conditions".into(), self.conditions(&shown["conditions"], &json!(conditions)));
                status.insert("supportedFeatures".into(), json!(supported_features));
            }
            Some(ObjectStatus::Gateway { conditions, listeners, addresses, attached_listener_sets }) => {
                let mut conditions = json!(conditions);
                if addresses.is_none() && self.addresses.is_empty() {
                    unassigned(&mut conditions);
                }
                status.insert("conditions".into(), self.conditions(&shown["conditions"], &conditions));
                let shared = || json!(self.addresses);
                status.insert("addresses".into(), addresses.as_ref().map_or_else(shared, |own| json!(own)));
                // Older CRDs lack it, and the API server would drop it again and again.
                if *attached_listener_sets > 0 || !shown["attachedListenerSets"].is_null() {
                    status.insert("attachedListenerSets".into(), json!(attached_listener_sets));
                }
                status.insert("listeners".into(), self.listeners(shown, listeners));
            }
            Some(ObjectStatus::ListenerSet { conditions, listeners }) => {
                status.insert("conditions".into(), self.conditions(&shown["conditions"], &json!(conditions)));
                status.insert("listeners".into(), self.listeners(shown, listeners));
            }
            // Routes, policies and XBackends have our entries among those of others.
            wanted
                if matches!(
                    key.kind,
                    Kind::BackendTLSPolicy
                        | Kind::RoutePolicy
                        | Kind::XBackendTrafficPolicy
                        | Kind::XBackend
                        | Kind::XTelemetryPolicy
                ) =>
            {
                let ours: Vec<_> = match wanted {
                    Some(ObjectStatus::Policy { ancestors }) => {
                        ancestors.iter().map(|one| (json!(one.ancestor_ref), json!(one.conditions))).collect()
                    }
                    _ => Vec::new(),
                };
                self.merge(&mut status, shown, ("ancestors", "ancestorRef"), &ours);
            }
            wanted if key.kind.is_route() => {
                let ours: Vec<_> = match wanted {
                    Some(ObjectStatus::Route { parents }) => {
                        parents.iter().map(|one| (json!(one.parent_ref), json!(one.conditions))).collect()
                    }
                    _ => Vec::new(),
                };
                self.merge(&mut status, shown, ("parents", "parentRef"), &ours);
            }
            _ => {}
        }
        Value::Object(status)
    }

    /// Puts our entries among those of others. Each names its subject in a field. All entries stay in their places: another controller that
    /// puts its own last would otherwise take turns with us for ever.
    fn merge(&self, status: &mut Map<String, Value>, shown: &Value, names: (&str, &str), ours: &[(Value, Value)]) {
        let (list, field) = names;
        let is_ours = |entry: &Value| entry["controllerName"] == self.controller;
        let mut new: Vec<&(Value, Value)> = ours.iter().collect();
        let complete = |(reference, conditions): &(Value, Value), before: &Value| {
            let conditions = self.conditions(&before["conditions"], conditions);
            json!({field: reference, "controllerName": self.controller, "conditions": conditions})
        };
        let mut merged = Vec::new();
        for before in entries(&shown[list]) {
            if !is_ours(before) {
                merged.push(before.clone());
            } else if let Some(at) = new.iter().position(|(reference, _)| before[field] == *reference) {
                merged.push(complete(new.remove(at), before));
            }
        }
        merged.extend(new.into_iter().map(|one| complete(one, &Value::Null)));
        if !ours.is_empty() || entries(&shown[list]).any(is_ours) {
            status.insert(list.into(), merged.into());
        }
    }

    /// The status of listeners, with the conditions that others have written.
    fn listeners(&self, shown: &Value, ours: &[ListenerStatus]) -> Value {
        let complete = |listener: &ListenerStatus| {
            let mut one = json!(listener);
            let before = entries(&shown["listeners"]).find(|before| before["name"] == one["name"]);
            let before = before.map_or(&Value::Null, |before| &before["conditions"]);
            one["conditions"] = self.conditions(before, &one["conditions"]);
            one
        };
        ours.iter().map(complete).collect()
    }

    /// Conditions after a change: ours replace those of the same type in their places, and all others stay.
    fn conditions(&self, shown: &Value, ours: &Value) -> Value {
        let complete = |one: &Value| {
            let before = entries(shown).find(|before| before["type"] == one["type"]);
            let since = before.filter(|before| before["status"] == one["status"]);
            let since = since.map_or(json!(self.now), |before| before["lastTransitionTime"].clone());
            let mut one = one.clone();
            one["observedGeneration"] = json!(self.generation);
            one["lastTransitionTime"] = since;
            one
        };
        let is_ours = |kind: &Value| entries(ours).find(|one| one["type"] == *kind);
        // A fleeting condition disappears when it no longer holds.
        let lasts = |one: &Value| FLEETING.iter().all(|kind| one["type"] != *kind);
        let fleeting = |one: &&Value| lasts(one) || is_ours(&one["type"]).is_some();
        let mut merged: Vec<Value> = entries(shown)
            .filter(fleeting)
            .map(|before| is_ours(&before["type"]).map_or_else(|| before.clone(), complete))
            .collect();
        let is_new = |one: &&Value| entries(shown).all(|before| before["type"] != one["type"]);
        merged.extend(entries(ours).filter(is_new).map(complete));
        merged.into()
    }
}

/// Reports in the conditions that a Gateway without an address can't be reached.
fn unassigned(conditions: &mut Value) {
    for condition in conditions.as_array_mut().into_iter().flatten() {
        if condition["type"] == "Programmed" && condition["status"] == "True" {
            condition["status"] = json!("False");
            condition["reason"] = json!("AddressNotAssigned");
            condition["message"] = json!("no address of the proxy is known");
        }
    }
}

fn entries(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use fairway_translate::gateway::CONTROLLER;

    use super::*;

    #[test]
    fn entries_of_others_stay_and_times_change_only_with_the_status() {
        let shown = json!({
            "parents": [
                {"controllerName": "fairway.dev/another", "parentRef": {"name": "x"}, "conditions": [{"type": "Accepted", "odd": 1}]},
                {"controllerName": CONTROLLER, "parentRef": {"name": "gone"}, "conditions": []},
            ]
        });
        let key = ObjectKey::new(Kind::HTTPRoute, "n", "a");
        let writing = |generation, now| Writing { controller: CONTROLLER, generation, now, addresses: &[] };
        let wanted = |holds: bool| -> ObjectStatus {
            let objects = format!(
                r#"{{"metadata":{{"name":"a","namespace":"n"}},"spec":{{"parentRefs":[{{"name":"gw"{}}}]}}}}"#,
                if holds { "" } else { r#","sectionName":"none""# }
            );
            route_status(&objects)
        };
        let first = writing(3, "t1").status(&key, &shown, Some(&wanted(true)));
        assert_eq!(first["parents"][0], shown["parents"][0]);
        assert_eq!(first["parents"].as_array().unwrap().len(), 2, "{first}");
        let own = &first["parents"][1]["conditions"][0];
        assert_eq!((&own["lastTransitionTime"], &own["observedGeneration"]), (&json!("t1"), &json!(3)));
        let second = writing(4, "t2").status(&key, &first, Some(&wanted(true)));
        let own = &second["parents"][1]["conditions"][0];
        assert_eq!((&own["lastTransitionTime"], &own["observedGeneration"]), (&json!("t1"), &json!(4)));
        assert_eq!(writing(4, "t3").status(&key, &second, Some(&wanted(true))), second, "nothing has changed");
        // Another controller may have put its entry last.
        let turned = json!({"parents": [first["parents"][1], first["parents"][0]]});
        assert_eq!(writing(3, "t3").status(&key, &turned, Some(&wanted(true))), turned, "entries stay in their places");
        let gone = writing(4, "t4").status(&key, &second, None);
        assert_eq!(gone["parents"], json!([shown["parents"][0]]));
    }

    /// The status of a route to a Gateway.
    fn route_status(route: &str) -> ObjectStatus {
        use fairway_translate::gateway::api::{Gateway, GatewayClass, HTTPRoute};
        let class: GatewayClass = serde_json::from_value(json!({
            "metadata": {"name": "fairway"}, "spec": {"controllerName": CONTROLLER},
        }))
        .unwrap();
        let gateway: Gateway = serde_json::from_value(json!({
            "metadata": {"name": "gw", "namespace": "n"},
            "spec": {"gatewayClassName": "fairway", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]},
        }))
        .unwrap();
        let route: HTTPRoute = serde_json::from_str(route).unwrap();
        let objects = [class.into(), gateway.into(), route.into()].into_iter().collect();
        let translation = fairway_translate::translate(&objects, &fairway_translate::Options::default(), 0);
        let status = &translation.statuses[&ObjectKey::new(Kind::HTTPRoute, "n", "a")];
        ObjectStatus::clone(status)
    }
}
