//! The ports of TCP and UDP services, kept up to date.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use fairway_model::{ListenerName, Resource, ResourceName, StreamListener};

use crate::config::configmap::GlobalConfig;
use crate::config::settings;
use crate::config::stream::{self, StreamService};
use crate::diagnostic::Diagnostic;
use crate::engine::dirty::{Dirty, Output};
use crate::gateway::StreamPorts;
use crate::objects::{Kind, Object, ObjectKey, Objects};
use crate::options::Options;
use crate::resource::Backends;
use crate::resource::backend::{BackendKey, Layer};

/// The contents of the two ConfigMaps.
#[derive(Debug)]
pub(crate) struct Streams([Side; 2]);

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
    pub(crate) fn new(options: &Options) -> Self {
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
    pub(crate) fn config_maps(&self) -> impl Iterator<Item = &ObjectKey> {
        self.0.iter().filter_map(|side| side.key.as_ref())
    }

    pub(crate) fn wants(&self, key: &ObjectKey) -> bool {
        self.config_maps().any(|wanted| wanted == key)
    }

    /// Reads the ConfigMaps again if anything about them changed. Their backends are kept even without another owner.
    pub(crate) fn settle(
        &mut self,
        inputs: StreamInputs<'_>,
        backends: &mut Backends,
        dirty: &mut Dirty,
        out: &mut Output,
    ) {
        if std::mem::take(&mut dirty.streams) {
            self.0.iter_mut().for_each(|side| side.settle(inputs, backends, dirty, out));
        }
    }

    /// The ports of TCP and UDP services.
    pub(crate) fn ports(&self) -> StreamPorts {
        let [tcp, udp] = &self.0;
        let of = |side: &Side| side.services.iter().map(|service| service.port).collect();
        StreamPorts { tcp: of(tcp), udp: of(udp) }
    }

    /// The findings about a ConfigMap of TCP or UDP services.
    pub(crate) fn report(&self, key: &ObjectKey, backends: &Backends) -> Vec<Diagnostic> {
        let origin = key.origin();
        let mut found = Vec::new();
        for side in self.0.iter().filter(|side| side.key.as_ref() == Some(key)) {
            found.extend(side.diagnostics.iter().cloned());
            for service in &side.services {
                if let Some(problem) = backends.problem(&service.backend) {
                    let field = stream::field(&service.port.to_string());
                    found.push(problem.diagnostic(&origin, &field, &service.backend));
                }
            }
        }
        found
    }
}

impl Side {
    fn settle(&mut self, inputs: StreamInputs<'_>, pins: &mut Backends, dirty: &mut Dirty, out: &mut Output) {
        let Some(key) = &self.key else { return };
        let origin = key.origin();
        let mut diagnostics = Vec::new();
        let services = match inputs.objects.get(key) {
            Some(Object::ConfigMap(map)) => {
                let data = map.data.iter();
                let read = |data| stream::read(&origin, data, self.layer, inputs.options, &mut diagnostics);
                data.flat_map(read).collect()
            }
            _ => Vec::new(),
        };
        // A Gateway can't use a port that is taken here.
        dirty.gateways |= services != self.services;
        if diagnostics != self.diagnostics || services != self.services {
            dirty.reports.insert(key.clone());
        }
        let mut listeners = BTreeMap::new();
        for service in &services {
            let given: Vec<_> =
                inputs.options.stream_addresses.iter().map(|ip| SocketAddr::new(*ip, service.port)).collect();
            let prefix = if self.layer == Layer::Udp { "udp" } else { "tcp" };
            for (count, address) in (1..).zip(settings::addresses(&given, inputs.config)) {
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
                    backend: service.backend.name().into(),
                };
                listeners.insert(name, listener);
            }
        }
        for (name, listener) in &listeners {
            if self.listeners.get(name) != Some(listener) {
                out.upserts.push(Resource::from(listener.clone()));
            }
        }
        let gone = self.listeners.keys().filter(|name| !listeners.contains_key(*name)).cloned();
        out.removals.extend(gone.map(ResourceName::StreamListener));
        let backends = |services: &[StreamService]| -> BTreeSet<BackendKey> {
            services.iter().map(|service| service.backend.clone()).collect()
        };
        let (before, after) = (backends(&self.services), backends(&services));
        before.difference(&after).for_each(|backend| pins.pin(backend, None, dirty));
        after.difference(&before).for_each(|backend| pins.pin(backend, Some(key.clone()), dirty));
        (self.services, self.diagnostics, self.listeners) = (services, diagnostics, listeners);
    }
}

/// The inputs of the ports.
#[derive(Clone, Copy)]
pub(crate) struct StreamInputs<'a> {
    pub(crate) objects: &'a Objects,
    pub(crate) config: &'a GlobalConfig,
    pub(crate) options: &'a Options,
}
