//! The contents of ConfigMaps that routes name, kept up to date.
//!
//! The newest version stays in effect, even when the ConfigMap is gone, as long as something refers to it.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::ConfigMap;

use crate::engine::dirty::{Dirty, Output};
use crate::objects::{Object, ObjectKey, Objects};
use crate::resource::{Age, ByAge, Owner};

/// All ConfigMaps with an owner.
#[derive(Debug, Default)]
pub(crate) struct ConfigMaps(BTreeMap<ObjectKey, ConfigMapState>);

/// One ConfigMap.
#[derive(Debug, Default)]
struct ConfigMapState {
    owners: ByAge<Owner>,
    /// The newest version.
    read: Option<Arc<ConfigMap>>,
}

impl ConfigMaps {
    /// Whether something refers to a ConfigMap.
    pub(crate) fn contains(&self, key: &ObjectKey) -> bool {
        self.0.contains_key(key)
    }

    /// Adds an owner.
    pub(crate) fn attach(&mut self, key: &ObjectKey, owner: &Arc<Owner>, dirty: &mut Dirty, out: &mut Output) {
        out.wants.entry(key.clone()).or_insert_with(|| self.contains(key));
        self.0.entry(key.clone()).or_default().owners.insert(owner);
        dirty.config_maps.insert(key.clone());
    }

    /// Removes an owner.
    pub(crate) fn detach(&mut self, key: &ObjectKey, age: &Age, dirty: &mut Dirty, out: &mut Output) {
        out.wants.entry(key.clone()).or_insert(true);
        if let Some(state) = self.0.get_mut(key) {
            state.owners.remove(age);
        }
        dirty.config_maps.insert(key.clone());
    }

    /// The data of a ConfigMap; `None` if it has never existed while something referred to it.
    pub(crate) fn data(&self, key: &ObjectKey) -> Option<&BTreeMap<String, String>> {
        static NOTHING: BTreeMap<String, String> = BTreeMap::new();
        let map = self.0.get(key)?.read.as_ref()?;
        Some(map.data.as_ref().unwrap_or(&NOTHING))
    }

    /// Reads the ConfigMaps that are due.
    pub(crate) fn settle(&mut self, objects: &Objects, dirty: &mut Dirty) {
        for key in std::mem::take(&mut dirty.config_maps) {
            let Some(state) = self.0.get_mut(&key) else { continue };
            if state.owners.is_empty() {
                self.0.remove(&key);
                continue;
            }
            let Some(Object::ConfigMap(map)) = objects.get(&key) else { continue };
            if state.read.as_ref().is_none_or(|read| read.data != map.data) {
                dirty.config_map_owners.extend(state.owners.values().map(|owner| owner.key.clone()));
            }
            state.read = Some(map.clone());
        }
    }
}
