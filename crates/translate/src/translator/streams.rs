//! The ports of TCP and UDP services, kept up to date.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use fairway_model::{ListenerName, Resource, ResourceName, StreamListener};

use super::backends::BackendState;
use super::{Translator, Work};
use crate::diagnostic::Diagnostic;
use crate::objects::{Kind, Object, ObjectKey};
use crate::options::Options;
use crate::service::{BackendKey, Layer};
use crate::settings;
use crate::stream::{self, StreamService};

/// What the two ConfigMaps say.
#[derive(Debug)]
pub(super) struct Streams([Side; 2]);

/// One of them.
#[derive(Debug)]
struct Side {
    layer: Layer,
    /// The ConfigMap, if a flag names one.
    key: Option<ObjectKey>,
    services: Vec<StreamService>,
    diagnostics: Vec<Diagnostic>,
    listeners: BTreeMap<ListenerName, StreamListener>,
}

impl Streams {
    pub(super) fn new(options: &Options) -> Self {
        let side = |layer, named: &Option<(String, String)>| Side {
            layer,
            key: named.as_ref().map(|(namespace, name)| ObjectKey::new(Kind::ConfigMap, namespace, name)),
            services: Vec::new(),
            diagnostics: Vec::new(),
            listeners: BTreeMap::new(),
        };
        Self([side(Layer::Tcp, &options.tcp_services), side(Layer::Udp, &options.udp_services)])
    }

    /// The ConfigMaps.
    pub(super) fn config_maps(&self) -> impl Iterator<Item = &ObjectKey> {
        self.0.iter().filter_map(|side| side.key.as_ref())
    }

    pub(super) fn wants(&self, key: &ObjectKey) -> bool {
        self.config_maps().any(|wanted| wanted == key)
    }

    /// The ConfigMap that refers to the backends of a layer.
    pub(super) fn config_map(&self, layer: Layer) -> Option<&ObjectKey> {
        self.0.iter().find(|side| side.layer == layer)?.key.as_ref()
    }
}

impl Translator {
    pub(super) fn settle_streams(&mut self, work: &mut Work) {
        if !std::mem::take(&mut work.streams) {
            return;
        }
        for at in 0..self.streams.0.len() {
            self.settle_side(at, work);
        }
    }

    fn settle_side(&mut self, at: usize, work: &mut Work) {
        let side = &mut self.streams.0[at];
        let Some(key) = &side.key else { return };
        let origin = key.origin();
        let mut diagnostics = Vec::new();
        let services = match self.objects.get(key) {
            Some(Object::ConfigMap(map)) => {
                let data = map.data.iter();
                data.flat_map(|data| stream::read(&origin, data, side.layer, &self.options, &mut diagnostics)).collect()
            }
            _ => Vec::new(),
        };
        if diagnostics != side.diagnostics || services != side.services {
            work.reports.insert(key.clone());
        }
        let mut listeners = BTreeMap::new();
        for service in &services {
            let given: Vec<_> =
                self.options.stream_addresses.iter().map(|ip| SocketAddr::new(*ip, service.port)).collect();
            let prefix = if side.layer == Layer::Udp { "udp" } else { "tcp" };
            for (count, address) in (1..).zip(settings::addresses(&given, &self.global.config)) {
                let name = match count {
                    1 => format!("{prefix}-{}", service.port),
                    _ => format!("{prefix}-{}-{count}", service.port),
                };
                let name = ListenerName::from(name);
                let listener = StreamListener {
                    name: name.clone(),
                    origin: origin.section(service.port.to_string()),
                    address,
                    transport: service.transport,
                    backend: service.backend.name(),
                };
                listeners.insert(name, listener);
            }
        }
        for (name, listener) in &listeners {
            if side.listeners.get(name) != Some(listener) {
                work.upserts.push(Resource::from(listener.clone()));
            }
        }
        let gone = side.listeners.keys().filter(|name| !listeners.contains_key(*name)).cloned();
        work.removals.extend(gone.map(ResourceName::StreamListener));
        let backends = |services: &[StreamService]| -> BTreeSet<BackendKey> {
            services.iter().map(|service| service.backend.clone()).collect()
        };
        let (before, after) = (backends(&side.services), backends(&services));
        for backend in before.difference(&after) {
            if let Some(state) = self.backends.get_mut(backend) {
                state.pinned = false;
                work.backends.insert(backend.clone());
            }
        }
        for backend in after.difference(&before) {
            self.backends.insert(backend.clone(), BackendState::pinned());
            work.backends.insert(backend.clone());
        }
        (side.services, side.diagnostics, side.listeners) = (services, diagnostics, listeners);
    }

    /// What there is to tell about a ConfigMap as one of TCP or UDP services.
    pub(super) fn report_streams(&self, key: &ObjectKey) -> Vec<Diagnostic> {
        let origin = key.origin();
        let mut found = Vec::new();
        for side in self.streams.0.iter().filter(|side| side.key.as_ref() == Some(key)) {
            found.extend(side.diagnostics.iter().cloned());
            for service in &side.services {
                if let Some(problem) = self.backends.get(&service.backend).and_then(|state| state.problem.as_ref()) {
                    let field = stream::field(&service.port.to_string());
                    found.push(problem.diagnostic(&origin, &field, &service.backend));
                }
            }
        }
        found
    }
}
