//! Backends and endpoint sets, kept up to date.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use fairway_model::packing::pack;
use fairway_model::{Backend, EndpointSet, Resource, ResourceName};

use crate::config::configmap::GlobalConfig;
use crate::engine::dirty::{Dirty, Output};
use crate::engine::part::{Extent, portion};
use crate::engine::service_of;
use crate::gateway::{TrafficPolicies, XBACKEND, made_for, service_key};
use crate::objects::{Kind, Object, ObjectKey, Objects};
use crate::options::Options;
use crate::resource::backend::{self, BackendKey, BackendPort, Layer, Problem, Sources};
use crate::resource::{Age, ByAge, Owner};

/// All backends with an owner.
#[derive(Debug, Default)]
pub(crate) struct Backends {
    states: BTreeMap<BackendKey, BackendState>,
    /// The EndpointSlices of each Service, sorted.
    slices: HashMap<ObjectKey, Vec<ObjectKey>>,
    /// The backends that have the endpoints of a Service with another name: those of XBackends, by that Service.
    selected: HashMap<ObjectKey, BTreeSet<BackendKey>>,
    waiting: BTreeSet<BackendKey>,
}

/// One backend.
#[derive(Debug, Default)]
struct BackendState {
    owners: ByAge<Owner>,
    /// The object that gets the findings about the backend even without an owner: the Service of the global default backend, the ConfigMap
    /// of a TCP or UDP service.
    pinned: Option<ObjectKey>,
    problem: Option<Problem>,
    backend: Option<Arc<Backend>>,
    endpoints: Option<Arc<EndpointSet>>,
    /// The Service whose endpoints it has, if that is not its own.
    selects: Option<ObjectKey>,
}

/// The inputs of backends.
#[derive(Clone, Copy)]
pub(crate) struct BackendInputs<'a> {
    pub(crate) objects: &'a Objects,
    pub(crate) config: &'a GlobalConfig,
    pub(crate) options: &'a Options,
    /// The limits on retries that policies set.
    pub(crate) traffic: &'a TrafficPolicies,
}

impl Backends {
    /// Adds an owner of a backend.
    pub(crate) fn attach(&mut self, key: &BackendKey, owner: &Arc<Owner>, dirty: &mut Dirty) {
        self.states.entry(key.clone()).or_default().owners.insert(owner);
        dirty.backends.insert(key.clone());
    }

    /// Removes an owner.
    pub(crate) fn detach(&mut self, key: &BackendKey, age: &Age, dirty: &mut Dirty) {
        if let Some(state) = self.states.get_mut(key) {
            state.owners.remove(age);
        }
        dirty.backends.insert(key.clone());
    }

    /// Keeps a backend without an owner and sends its findings to the object `by`; `None` ends that.
    pub(crate) fn pin(&mut self, key: &BackendKey, by: Option<ObjectKey>, dirty: &mut Dirty) {
        if by.is_some() {
            self.states.entry(key.clone()).or_default().pinned = by;
        } else if let Some(state) = self.states.get_mut(key) {
            state.pinned = None;
        }
        dirty.backends.insert(key.clone());
    }

    /// Marks everything that depends on a Service or an XBackend.
    pub(crate) fn touch_service(&self, service: &ObjectKey, dirty: &mut Dirty) {
        let start = BackendKey {
            namespace: service.namespace.clone(),
            target: service.name.clone(),
            layer: Layer::Http,
            port: BackendPort::First,
        };
        let same = |key: &&BackendKey| key.namespace == service.namespace && key.target == service.name;
        dirty.backends.extend(self.states.range(start..).map(|(key, _)| key).take_while(same).cloned());
        dirty.backends.extend(self.selected.get(service).into_iter().flatten().cloned());
    }

    /// Applies a new or changed slice of a Service, or its removal.
    pub(crate) fn index_slice(&mut self, slice: &ObjectKey, service: ObjectKey, there: bool, dirty: &mut Dirty) {
        self.touch_service(&service, dirty);
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

    /// Names the slices again, by the keys that the objects have now.
    pub(crate) fn renew_index(&mut self, objects: &Objects) {
        self.slices.clear();
        for (key, object) in objects.of_kind(Kind::EndpointSlice) {
            if let Object::EndpointSlice(slice) = object
                && let Some(service) = service_of(key, slice)
            {
                self.slices.entry(service).or_default().push(key.clone());
            }
        }
    }

    /// The fault of a backend.
    pub(crate) fn problem(&self, key: &BackendKey) -> Option<&Problem> {
        self.states.get(key)?.problem.as_ref()
    }

    /// Whether any backends wait for their turn.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Releases unused memory.
    pub(crate) fn compact(&mut self) {
        pack(&mut self.states);
    }

    /// Rebuilds the backends that are due.
    pub(crate) fn settle(&mut self, inputs: BackendInputs<'_>, dirty: &mut Dirty, out: &mut Output, extent: Extent) {
        let mut due = std::mem::take(&mut dirty.backends);
        if std::mem::take(&mut dirty.all_backends) {
            due.extend(self.states.keys().cloned());
        }
        for key in portion(due, &mut self.waiting, extent.results, extent) {
            let Some(state) = self.states.get(&key) else { continue };
            if state.owners.is_empty() && state.pinned.is_none() {
                if state.backend.is_some() {
                    out.removals.push(ResourceName::Backend(key.name()));
                }
                if state.endpoints.is_some() {
                    out.removals.push(ResourceName::EndpointSet(key.name()));
                }
                self.select(&key, None);
                self.states.remove(&key);
                continue;
            }
            let resolved = self.resolve(&key, state, inputs);
            self.select(&key, selected(&key, inputs.objects));
            let Some(state) = self.states.get_mut(&key) else { continue };
            if dirty.renews && resolved.endpoints.is_some() || state.endpoints.as_deref() != resolved.endpoints.as_ref()
            {
                state.endpoints = resolved.endpoints.map(Arc::new);
                match &state.endpoints {
                    Some(endpoints) => out.upserts.push(Resource::EndpointSet(endpoints.clone())),
                    None => out.removals.push(ResourceName::EndpointSet(key.name())),
                }
            }
            if dirty.renews || state.backend.as_deref() != Some(&resolved.backend) {
                let backend = Arc::new(resolved.backend);
                out.upserts.push(Resource::Backend(backend.clone()));
                state.backend = Some(backend);
            }
            if state.problem != resolved.problem {
                dirty.reports.extend(state.owners.values().map(|owner| owner.key.clone()));
                dirty.reports.extend(state.pinned.clone());
                state.problem = resolved.problem;
            }
        }
    }

    /// Records the Service whose endpoints a backend has.
    fn select(&mut self, key: &BackendKey, service: Option<ObjectKey>) {
        let Some(state) = self.states.get_mut(key).filter(|state| state.selects != service) else { return };
        if let Some(before) = std::mem::replace(&mut state.selects, service.clone())
            && let Some(all) = self.selected.get_mut(&before)
        {
            all.remove(key);
            if all.is_empty() {
                self.selected.remove(&before);
            }
        }
        if let Some(service) = service {
            self.selected.entry(service).or_default().insert(key.clone());
        }
    }

    fn resolve(&self, key: &BackendKey, state: &BackendState, inputs: BackendInputs<'_>) -> backend::Resolved {
        let own = key.service();
        let service = inputs.objects.service(&own);
        let xbackend = match key.xbackend().and_then(|key| inputs.objects.get(&key)) {
            Some(Object::XBackend(xbackend)) => Some(&**xbackend),
            _ => None,
        };
        let slices = match key.xbackend() {
            // The slices of a Service that has the name by chance, or by intent, don't hold its pods.
            Some(_) => selected(key, inputs.objects).filter(|service| is_made_for(service, key, inputs.objects)),
            None => Some(own.clone()),
        };
        let slices = slices.and_then(|service| self.slices.get(&service)).into_iter().flatten();
        let sources = Sources {
            service,
            xbackend,
            slices: slices
                .filter_map(|slice| match inputs.objects.get(slice) {
                    Some(Object::EndpointSlice(slice)) => Some(&**slice),
                    _ => None,
                })
                .collect(),
            owners: state.owners.values().map(|owner| &**owner).collect(),
            retry: inputs.traffic.constraint(&own).filter(|_| key.layer == Layer::Gateway),
            is_default: state.pinned.is_some() && key.layer == Layer::Http,
        };
        backend::resolve(key, &sources, inputs.config, inputs.options)
    }
}

/// Whether a Service was created for the XBackend of a backend.
fn is_made_for(service: &ObjectKey, key: &BackendKey, objects: &Objects) -> bool {
    objects.service(service).is_some_and(|found| made_for(found, XBACKEND) == Some(&*key.target))
}

/// The Service that is created for the pods of an XBackend.
fn selected(key: &BackendKey, objects: &Objects) -> Option<ObjectKey> {
    let xbackend = key.xbackend()?;
    let Some(Object::XBackend(found)) = objects.get(&xbackend) else { return None };
    found.spec.endpoint_selector.as_ref()?;
    Some(service_key(&xbackend, found.metadata.uid.as_deref().unwrap_or_default()))
}
