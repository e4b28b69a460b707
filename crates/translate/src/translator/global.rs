//! What holds for all: the global ConfigMap, those that it names, and what is made of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use fairway_model::{HostPattern, Listener, ListenerName, Resource, ResourceName, Settings};
use k8s_openapi::api::core::v1::ConfigMap;

use super::{Translator, Work};
use crate::annotation::Rules;
use crate::configmap::GlobalConfig;
use crate::diagnostic::Diagnostic;
use crate::objects::{Kind, Object, ObjectKey};
use crate::options::Options;
use crate::settings::{self, SettingsSources};
use crate::value::ObjectRef;

/// The configuration that holds for all.
#[derive(Debug)]
pub(super) struct Global {
    key: Option<ObjectKey>,
    pub(super) config: GlobalConfig,
    pub(super) rules: Rules,
    add_headers: Option<ObjectKey>,
    proxy_set_headers: Option<ObjectKey>,
    /// The last version of each wanted ConfigMap: one that is deleted goes on holding.
    retained: BTreeMap<ObjectKey, Arc<ConfigMap>>,
    settings: Option<Settings>,
    listeners: BTreeMap<ListenerName, Listener>,
    /// What there is to tell about these ConfigMaps.
    pub(super) diagnostics: BTreeMap<ObjectKey, Vec<Diagnostic>>,
}

impl Global {
    pub(super) fn new(options: &Options) -> Self {
        let key = options.configmap.as_ref().map(|(namespace, name)| ObjectKey::new(Kind::ConfigMap, namespace, name));
        let config = GlobalConfig::default();
        Self {
            key,
            rules: config.annotation_rules(options.ssl_passthrough),
            config,
            add_headers: None,
            proxy_set_headers: None,
            retained: BTreeMap::new(),
            settings: None,
            listeners: BTreeMap::new(),
            diagnostics: BTreeMap::new(),
        }
    }

    pub(super) fn key(&self) -> Option<&ObjectKey> {
        self.key.as_ref()
    }

    pub(super) fn wants(&self, key: &ObjectKey) -> bool {
        [&self.key, &self.add_headers, &self.proxy_set_headers].into_iter().flatten().any(|wanted| wanted == key)
    }

    /// Takes a new version of a ConfigMap, if it is wanted and there is one.
    pub(super) fn update(&mut self, key: &ObjectKey, object: Option<&Object>) -> bool {
        match object {
            Some(Object::ConfigMap(map)) if self.wants(key) => {
                self.retained.insert(key.clone(), map.clone());
                true
            }
            _ => false,
        }
    }

    fn data(&self, key: &Option<ObjectKey>) -> Option<(&ObjectKey, &BTreeMap<String, String>)> {
        static NOTHING: BTreeMap<String, String> = BTreeMap::new();
        let (key, map) = self.retained.get_key_value(key.as_ref()?)?;
        Some((key, map.data.as_ref().unwrap_or(&NOTHING)))
    }
}

impl Translator {
    pub(super) fn settle_config(&mut self, work: &mut Work) {
        if !work.config {
            return;
        }
        let global = &mut self.global;
        let mut found: BTreeMap<ObjectKey, Vec<Diagnostic>> = BTreeMap::new();
        let config = match global.data(&global.key) {
            Some((key, data)) => {
                let mut diagnostics = Vec::new();
                let config = GlobalConfig::read(&key.origin(), data, &mut diagnostics);
                found.insert(key.clone(), diagnostics);
                config
            }
            None => GlobalConfig::default(),
        };
        if config != global.config {
            let rules = config.annotation_rules(self.options.ssl_passthrough);
            work.all_ingresses |= rules != global.rules;
            global.rules = rules;
            work.names
                .extend(self.names.iter().filter(|(_, name)| name.is_primary()).map(|(pattern, _)| pattern.clone()));
            work.names.insert(HostPattern::Any);
            work.backends.extend(self.backends.keys().cloned());
            work.streams = true;
        }
        let refer = |reference: &Option<ObjectRef>| {
            reference.as_ref().map(|object| ObjectKey::new(Kind::ConfigMap, &object.namespace, &object.name))
        };
        let (add_headers, proxy_set_headers) = (refer(&config.add_headers), refer(&config.proxy_set_headers));
        for key in
            [&global.add_headers, &global.proxy_set_headers, &add_headers, &proxy_set_headers].into_iter().flatten()
        {
            work.wants.entry(key.clone()).or_insert(global.wants(key));
        }
        global.config = config;
        (global.add_headers, global.proxy_set_headers) = (add_headers, proxy_set_headers);
        let kept: Vec<ObjectKey> = global.retained.keys().filter(|key| !global.wants(key)).cloned().collect();
        for key in kept {
            global.retained.remove(&key);
        }
        for key in [&global.add_headers, &global.proxy_set_headers].into_iter().flatten() {
            if !global.retained.contains_key(key)
                && let Some(Object::ConfigMap(map)) = self.objects.get(key)
            {
                global.retained.insert(key.clone(), map.clone());
            }
        }
        self.publish_settings(found, work);
        self.publish_listeners(work);
    }

    fn publish_settings(&mut self, mut found: BTreeMap<ObjectKey, Vec<Diagnostic>>, work: &mut Work) {
        let global = &mut self.global;
        let origin =
            global.key.as_ref().map(ObjectKey::origin).unwrap_or_else(|| fairway_model::Origin::built_in("defaults"));
        let sources = SettingsSources {
            config: &global.config,
            origin: &origin,
            add_headers: global.data(&global.add_headers),
            proxy_set_headers: global.data(&global.proxy_set_headers),
        };
        let mut diagnostics = Vec::new();
        let settings = settings::settings(&sources, &self.options, &mut diagnostics);
        for diagnostic in diagnostics {
            let key = ObjectKey::new(Kind::ConfigMap, &*diagnostic.origin.namespace, &*diagnostic.origin.name);
            found.entry(key).or_default().push(diagnostic);
        }
        found.retain(|_, diagnostics| !diagnostics.is_empty());
        work.reports.extend(found.keys().chain(global.diagnostics.keys()).cloned());
        global.diagnostics = found;
        if global.settings.as_ref() != Some(&settings) {
            work.upserts.push(Resource::from(settings.clone()));
            global.settings = Some(settings);
        }
    }

    fn publish_listeners(&mut self, work: &mut Work) {
        let listeners: BTreeMap<ListenerName, Listener> =
            settings::listeners(&self.global.config, &self.options, &self.table)
                .into_iter()
                .map(|listener| (listener.name.clone(), listener))
                .collect();
        let before = &self.global.listeners;
        for (name, listener) in &listeners {
            if before.get(name) != Some(listener) {
                work.upserts.push(Resource::from(listener.clone()));
            }
        }
        let gone = before.keys().filter(|name| !listeners.contains_key(*name)).cloned();
        work.removals.extend(gone.map(ResourceName::Listener));
        self.global.listeners = listeners;
    }
}
