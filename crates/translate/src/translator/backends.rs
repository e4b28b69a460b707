//! Backends and endpoint sets, kept up to date.

use std::sync::Arc;

use fairway_model::{Backend, EndpointSet, Resource, ResourceName};

use super::part::{Extent, portion};
use super::{Translator, Work};
use crate::ingress::Parts;
use crate::objects::{Object, ObjectKey};
use crate::service::{self, BackendKey, BackendPort, Layer, Problem, Sources};

/// One backend that something refers to.
#[derive(Debug, Default)]
pub(super) struct BackendState {
    /// The Ingresses that refer to it, oldest first.
    pub(super) parts: Parts,
    pub(super) problem: Option<Problem>,
    /// Whether it is there without any Ingress: the global default backend, and those of TCP and UDP services.
    pub(super) pinned: bool,
    backend: Option<Arc<Backend>>,
    endpoints: Option<Arc<EndpointSet>>,
}

impl BackendState {
    pub(super) fn pinned() -> Self {
        Self { pinned: true, ..Self::default() }
    }
}

impl Translator {
    /// Notes everything that a Service is the source of.
    pub(super) fn touch_service(&self, service: &ObjectKey, work: &mut Work) {
        let start = BackendKey {
            namespace: service.namespace.clone(),
            service: service.name.clone(),
            layer: Layer::Http,
            port: BackendPort::First,
        };
        let same = |key: &&BackendKey| key.namespace == service.namespace && key.service == service.name;
        work.backends.extend(self.backends.range(start..).map(|(key, _)| key).take_while(same).cloned());
    }

    pub(super) fn index_slice(&mut self, slice: &ObjectKey, service: ObjectKey, there: bool, work: &mut Work) {
        self.touch_service(&service, work);
        if there {
            let slices = self.slices.entry(service).or_default();
            if let Err(at) = slices.binary_search(slice) {
                slices.insert(at, slice.clone());
            }
        } else if let Some(slices) = self.slices.get_mut(&service) {
            slices.retain(|other| other != slice);
            if slices.is_empty() {
                self.slices.remove(&service);
            }
        }
    }

    pub(super) fn settle_backends(&mut self, work: &mut Work, extent: Extent) {
        let due = std::mem::take(&mut work.backends);
        for key in portion(due, &mut self.waiting.backends, extent.results, extent) {
            let Some(state) = self.backends.get(&key) else { continue };
            if state.parts.is_empty() && !state.pinned {
                if state.backend.is_some() {
                    work.removals.push(ResourceName::Backend(key.name()));
                }
                if state.endpoints.is_some() {
                    work.removals.push(ResourceName::EndpointSet(key.name()));
                }
                self.backends.remove(&key);
                continue;
            }
            let service_key = key.service();
            let service = match self.objects.get(&service_key) {
                Some(Object::Service(service)) => Some(&**service),
                _ => None,
            };
            let slices = self.slices.get(&service_key).into_iter().flatten();
            let sources = Sources {
                service,
                slices: slices
                    .filter_map(|slice| match self.objects.get(slice) {
                        Some(Object::EndpointSlice(slice)) => Some(&**slice),
                        _ => None,
                    })
                    .collect(),
                parts: state.parts.values().map(|part| &**part).collect(),
                is_default: state.pinned && key.layer == Layer::Http,
            };
            let resolved = service::resolve(&key, &sources, &self.global.config, &self.options);
            let Some(state) = self.backends.get_mut(&key) else { continue };
            if state.endpoints.as_deref() != resolved.endpoints.as_ref() {
                state.endpoints = resolved.endpoints.map(Arc::new);
                match &state.endpoints {
                    Some(endpoints) => work.upserts.push(Resource::EndpointSet(endpoints.clone())),
                    None => work.removals.push(ResourceName::EndpointSet(key.name())),
                }
            }
            if state.backend.as_deref() != Some(&resolved.backend) {
                let backend = Arc::new(resolved.backend);
                work.upserts.push(Resource::Backend(backend.clone()));
                state.backend = Some(backend);
            }
            if state.problem != resolved.problem {
                work.reports.extend(state.parts.values().map(|part| part.key.clone()));
                if state.pinned {
                    work.reports.insert(self.streams.config_map(key.layer).cloned().unwrap_or(service_key));
                }
                state.problem = resolved.problem;
            }
        }
    }
}
