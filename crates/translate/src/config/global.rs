//! Global configuration: the global ConfigMap, those that it names, and what is derived from them.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;
use std::sync::Arc;

use fairway_model::{Listener, ListenerName, Resource, ResourceName, Settings, StreamListener, TableName, Transport};
use k8s_openapi::api::core::v1::ConfigMap;

use crate::annotation::Rules;
use crate::config::settings::{self, SettingsSources};
use crate::configmap::GlobalConfig;
use crate::diagnostic::Diagnostic;
use crate::engine::dirty::{Dirty, Output};
use crate::engine::service_of;
use crate::gateway::{PortInUse, Traffic};
use crate::objects::{Kind, Object, ObjectKey, Objects};
use crate::options::Options;
use crate::policy::external_auth;
use crate::resource::Backends;
use crate::resource::backend::BackendKey;
use crate::value::ObjectRef;

/// The global configuration.
#[derive(Debug)]
pub(crate) struct Global {
    key: Option<ObjectKey>,
    pub(crate) config: GlobalConfig,
    pub(crate) rules: Rules,
    /// The service of `global-auth-url`.
    pub(crate) auth_backend: Option<BackendKey>,
    add_headers: Option<ObjectKey>,
    proxy_set_headers: Option<ObjectKey>,
    /// The last version of each ConfigMap in use: a deleted one stays in effect.
    retained: BTreeMap<ObjectKey, Arc<ConfigMap>>,
    settings: Option<Settings>,
    listeners: BTreeMap<ListenerName, Listener>,
    /// The ports of Gateways whose bytes are passed on.
    streams: BTreeMap<ListenerName, StreamListener>,
    /// Findings about these ConfigMaps.
    pub(crate) diagnostics: BTreeMap<ObjectKey, Vec<Diagnostic>>,
}

/// The inputs of the configuration.
#[derive(Clone, Copy)]
pub(crate) struct GlobalInputs<'a> {
    pub(crate) objects: &'a Objects,
    pub(crate) options: &'a Options,
    /// The hosts that are served on all listeners.
    pub(crate) table: &'a TableName,
}

impl Global {
    pub(crate) fn new(options: &Options) -> Self {
        let key = options.configmap.as_ref().map(|(namespace, name)| ObjectKey::new(Kind::ConfigMap, namespace, name));
        let config = GlobalConfig::default();
        Self {
            key,
            rules: config.annotation_rules(options.ssl_passthrough),
            config,
            auth_backend: None,
            add_headers: None,
            proxy_set_headers: None,
            retained: BTreeMap::new(),
            settings: None,
            listeners: BTreeMap::new(),
            streams: BTreeMap::new(),
            diagnostics: BTreeMap::new(),
        }
    }

    pub(crate) fn key(&self) -> Option<&ObjectKey> {
        self.key.as_ref()
    }

    pub(crate) fn wants(&self, key: &ObjectKey) -> bool {
        [&self.key, &self.add_headers, &self.proxy_set_headers].into_iter().flatten().any(|wanted| wanted == key)
    }

    /// Applies a new version of a ConfigMap, if it is in use and exists.
    pub(crate) fn update(&mut self, key: &ObjectKey, object: Option<&Object>) -> bool {
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

    /// Reads the ConfigMaps again, if one of them changed.
    pub(crate) fn settle(&mut self, inputs: GlobalInputs<'_>, dirty: &mut Dirty, out: &mut Output) {
        if !std::mem::take(&mut dirty.config) {
            return;
        }
        let mut found: BTreeMap<ObjectKey, Vec<Diagnostic>> = BTreeMap::new();
        let config = match self.data(&self.key) {
            Some((key, data)) => {
                let mut diagnostics = Vec::new();
                let config = GlobalConfig::read(&key.origin(), data, &mut diagnostics);
                found.insert(key.clone(), diagnostics);
                config
            }
            None => GlobalConfig::default(),
        };
        if config != self.config {
            let rules = config.annotation_rules(inputs.options.ssl_passthrough);
            dirty.all_ingresses |= rules != self.rules;
            self.rules = rules;
            dirty.all_hosts = true;
            dirty.all_backends = true;
            dirty.streams = true;
        }
        let refer = |reference: &Option<ObjectRef>| {
            reference.as_ref().map(|object| ObjectKey::new(Kind::ConfigMap, &object.namespace, &object.name))
        };
        let (add_headers, proxy_set_headers) = (refer(&config.add_headers), refer(&config.proxy_set_headers));
        for key in [&self.add_headers, &self.proxy_set_headers, &add_headers, &proxy_set_headers].into_iter().flatten()
        {
            out.wants.entry(key.clone()).or_insert(self.wants(key));
        }
        self.config = config;
        (self.add_headers, self.proxy_set_headers) = (add_headers, proxy_set_headers);
        let kept: Vec<ObjectKey> = self.retained.keys().filter(|key| !self.wants(key)).cloned().collect();
        for key in kept {
            self.retained.remove(&key);
        }
        for key in [&self.add_headers, &self.proxy_set_headers].into_iter().flatten() {
            if !self.retained.contains_key(key)
                && let Some(Object::ConfigMap(map)) = inputs.objects.get(key)
            {
                self.retained.insert(key.clone(), map.clone());
            }
        }
        self.publish_settings(found, inputs, dirty, out);
        dirty.listeners = true;
    }

    /// Keeps the backend of `global-auth-url`, whose findings are about the ConfigMap.
    pub(crate) fn settle_auth(&mut self, options: &Options, pins: &mut Backends, dirty: &mut Dirty) {
        let backend = external_auth::global_backend(&self.config, options);
        if backend == self.auth_backend {
            return;
        }
        if let Some(before) = &self.auth_backend {
            pins.pin(before, None, dirty);
        }
        if let (Some(backend), Some(key)) = (&backend, &self.key) {
            pins.pin(backend, Some(key.clone()), dirty);
        }
        dirty.reports.extend(self.key.clone());
        self.auth_backend = backend;
    }

    /// The finding about the service of `global-auth-url`.
    pub(crate) fn report_auth(&self, key: &ObjectKey, backends: &Backends) -> Option<Diagnostic> {
        let backend = self.auth_backend.as_ref().filter(|_| self.key.as_ref() == Some(key))?;
        let problem = backends.problem(backend)?;
        Some(problem.diagnostic(&key.origin(), "data[\"global-auth-url\"]", backend))
    }

    fn publish_settings(
        &mut self,
        mut found: BTreeMap<ObjectKey, Vec<Diagnostic>>,
        inputs: GlobalInputs<'_>,
        dirty: &mut Dirty,
        out: &mut Output,
    ) {
        let origin =
            self.key.as_ref().map(ObjectKey::origin).unwrap_or_else(|| fairway_model::Origin::built_in("defaults"));
        let sources = SettingsSources {
            config: &self.config,
            origin: &origin,
            add_headers: self.data(&self.add_headers),
            proxy_set_headers: self.data(&self.proxy_set_headers),
        };
        let mut diagnostics = Vec::new();
        let replicas = replicas(inputs);
        let settings = Settings { replicas, ..settings::settings(&sources, inputs.options, &mut diagnostics) };
        for diagnostic in diagnostics {
            let key = ObjectKey::new(Kind::ConfigMap, &*diagnostic.origin.namespace, &*diagnostic.origin.name);
            found.entry(key).or_default().push(diagnostic);
        }
        found.retain(|_, diagnostics| !diagnostics.is_empty());
        dirty.reports.extend(found.keys().chain(self.diagnostics.keys()).cloned());
        self.diagnostics = found;
        if self.settings.as_ref() != Some(&settings) {
            out.upserts.push(Resource::from(settings.clone()));
            self.settings = Some(settings);
        }
    }

    /// Opens the ports of Ingresses and Gateways, if any of them has changed.
    pub(crate) fn settle_listeners(
        &mut self,
        inputs: GlobalInputs<'_>,
        gateways: &[PortInUse],
        dirty: &mut Dirty,
        out: &mut Output,
    ) {
        if !std::mem::take(&mut dirty.listeners) {
            return;
        }
        let mut all = settings::listeners(&self.config, inputs.options, inputs.table);
        let mut streams = BTreeMap::new();
        for port in gateways {
            match &port.traffic {
                Traffic::Named(scheme) if port.is_shared() => {
                    let same = all.iter_mut().filter(|listener| listener.scheme == *scheme);
                    same.filter(|listener| listener.table == *inputs.table).for_each(|it| it.table = port.table());
                }
                Traffic::Named(scheme) => {
                    all.extend(settings::listeners_of(port, *scheme, &self.config, inputs.options));
                }
                Traffic::Stream { origin, backends } => {
                    for (count, address) in (1..).zip(settings::addresses(&port.addresses, &self.config)) {
                        let transport = match port.is_udp() {
                            true => Transport::Udp,
                            false => Transport::Tcp { accept_proxy: self.config.use_proxy_protocol, send_proxy: false },
                        };
                        let (name, backend) = (port.listener(count), backends.clone());
                        let listener =
                            StreamListener { name: name.clone(), origin: origin.clone(), address, transport, backend };
                        streams.insert(name, listener);
                    }
                }
            }
        }
        for (name, listener) in &streams {
            if self.streams.get(name) != Some(listener) {
                out.upserts.push(Resource::from(listener.clone()));
            }
        }
        let gone = self.streams.keys().filter(|name| !streams.contains_key(*name)).cloned();
        out.removals.extend(gone.map(ResourceName::StreamListener));
        self.streams = streams;
        let listeners: BTreeMap<ListenerName, Listener> =
            all.into_iter().map(|listener| (listener.name.clone(), listener)).collect();
        for (name, listener) in &listeners {
            if self.listeners.get(name) != Some(listener) {
                out.upserts.push(Resource::from(listener.clone()));
            }
        }
        let gone = self.listeners.keys().filter(|name| !listeners.contains_key(*name)).cloned();
        out.removals.extend(gone.map(ResourceName::Listener));
        self.listeners = listeners;
    }
}

/// The number of proxy replicas: the ready endpoints of the Service in front of them, and at least 1, this one.
fn replicas(inputs: GlobalInputs<'_>) -> NonZeroU32 {
    let Some((namespace, name)) = &inputs.options.publish_service else { return NonZeroU32::MIN };
    let service = ObjectKey::new(Kind::Service, namespace, name);
    let mut addresses = BTreeSet::new();
    for (key, object) in inputs.objects.of_kind(Kind::EndpointSlice) {
        let Object::EndpointSlice(slice) = object else { continue };
        if service_of(key, slice).as_ref() != Some(&service) {
            continue;
        }
        for endpoint in slice.endpoints.iter().flatten() {
            let ready = endpoint.conditions.as_ref().and_then(|conditions| conditions.ready).unwrap_or(true);
            if let (true, Some(address)) = (ready, endpoint.addresses.first()) {
                addresses.insert((slice.address_type.as_str(), address.as_str()));
            }
        }
    }
    // With two families each replica has an address in both.
    let of_family = |family| addresses.iter().filter(|(of, _)| *of == family).count();
    let most = of_family("IPv4").max(of_family("IPv6"));
    u32::try_from(most).ok().and_then(NonZeroU32::new).unwrap_or(NonZeroU32::MIN)
}
