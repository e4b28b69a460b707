//! Services and slices that are created for Gateways with an address of their own, and Services for the pods of XBackends: the pending
//! work, and the ports of the process that they lead to.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Service;

use super::{GatewayInputs, Gateways, is_in_scope};
use crate::engine::dirty::{Dirty, Output};
use crate::gateway::place::{self, Place, Port, PortInUse};
use crate::gateway::service::{self, GATEWAY, Make, is_for_gateway, made_for};
use crate::objects::{Kind, ObjectKey};
use crate::options::Options;
use crate::resource::backend::Layer;

impl Gateways {
    /// The pending work on objects that are created for Gateways and XBackends.
    pub(crate) fn made(&self) -> &BTreeMap<ObjectKey, Make> {
        &self.made
    }

    /// Marks what depends on a Service that was created for a Gateway, or has the name of such a Service.
    pub(crate) fn touch_made(&mut self, service: &ObjectKey, is_made: bool, dirty: &mut Dirty) {
        if is_made {
            self.services_made.insert(service.clone());
        }
        dirty.gateway_services |= self.services_made.contains(service) || self.xbackends.has_service(service);
    }

    /// Marks what depends on the endpoints of a Service: the proxy's own Service, and created ones.
    pub(crate) fn touch_slice(&self, service: &ObjectKey, options: &Options, dirty: &mut Dirty) {
        let is_proxy = || {
            let named = options.publish_service.as_ref();
            named.is_some_and(|(namespace, name)| {
                *service.namespace == **namespace && *service.name == **name && !self.own.is_empty()
            })
        };
        dirty.gateway_services |= self.services_made.contains(service) || is_proxy();
    }

    /// Assigns ports of the process to each Gateway with an address of its own, decides which objects to create for it, and opens the ports
    /// that its Service has.
    pub(super) fn settle_services(&mut self, inputs: GatewayInputs<'_>, dirty: &mut Dirty, out: &mut Output) {
        let GatewayInputs { objects, options, streams } = inputs;
        let mut ports: BTreeMap<Place, u16> = BTreeMap::new();
        let mut parts: Vec<_> = self.gateways.values().filter(|part| part.fault.is_none()).collect();
        parts.sort_by(|one, other| one.age.cmp(&other.age));
        let with_own = parts.iter().filter_map(|part| Some((*part, part.own.as_ref()?)));
        let with_own: Vec<_> = with_own.filter(|_| options.development.is_none()).collect();
        let pool = |layer| place::pool(layer, options, streams);
        let mut free: BTreeSet<Port> = pool(Layer::Tcp).chain(pool(Layer::Udp)).collect();
        // A Service keeps its ports, unless an older Gateway has them too.
        for (part, own) in &with_own {
            let service = objects.service(&service::key(&part.key, own.class()));
            let is_own = |service: &&Service| made_for(service, GATEWAY) == Some(&*part.key.name);
            for (port, target) in service::held(service.filter(is_own)) {
                let place = part.place(port);
                if self.places.contains_key(&place) && free.remove(&Port { number: target, ..port }) {
                    ports.insert(place, target);
                }
            }
        }
        // A Service leads to its ports as long as it exists, even if its Gateway is not served now. Another Gateway that got one of them
        // would get its connections, so these come last.
        let of_with_own: BTreeSet<_> =
            with_own.iter().map(|(part, own)| service::key(&part.key, own.class())).collect();
        let others = self.services_made.iter().filter(|key| !of_with_own.contains(*key));
        let others = others.filter_map(|key| objects.service(key)).filter(|found| is_for_gateway(found));
        let others = others.map(|found| service::held(Some(found)));
        let led_to: BTreeSet<Port> = others.flatten().map(|(port, target)| Port { number: target, ..port }).collect();
        let next = |free: &BTreeSet<Port>, layer| {
            let fits = free.iter().filter(|port| port.layer == layer);
            fits.min_by_key(|port| (led_to.contains(port), **port)).copied()
        };
        for place in self.places.keys().filter(|place| place.gateway.is_some()) {
            if !ports.contains_key(place)
                && let Some(port) = next(&free, place.port.layer)
            {
                free.remove(&port);
                ports.insert(place.clone(), port.number);
            }
        }
        let proxy = service::proxy_endpoints(objects, options);
        let (mut made, mut own) = (BTreeMap::new(), BTreeMap::new());
        let mut services = BTreeSet::new();
        for (part, asked) in &with_own {
            let of_part = ports.iter().filter(|(place, _)| place.gateway.as_ref() == Some(&part.key));
            let of_part = of_part.map(|(place, port)| (place.port, *port)).collect();
            let (has, to_make) = service::settle(part, asked, &of_part, proxy.as_ref(), objects);
            services.insert(service::key(&part.key, asked.class()));
            made.extend(to_make);
            own.insert(part.key.clone(), has);
        }
        for key in &self.services_made {
            let Some(name) = objects.service(key).and_then(|found| made_for(found, GATEWAY)) else { continue };
            let gateway = ObjectKey::new(Kind::Gateway, &*key.namespace, name);
            // A deleted Gateway takes its Service along, and Services of others are left alone. An address may be in DNS, so it is given up
            // only if its Gateway has no fault and no longer asks for it: not because of a mistake, nor while its class is missing.
            let says_so = self.gateways.get(&gateway).is_some_and(|part| part.fault.is_none());
            if !services.contains(key) && says_so && is_in_scope(key, objects, options) {
                made.extend(service::leftovers(key, objects));
            }
        }
        self.services_made.retain(|key| objects.service(key).is_some_and(is_for_gateway));
        self.services_made.extend(services);
        made.extend(self.settle_xbackends(inputs, dirty));
        let mut open = BTreeSet::new();
        let in_use = self.places.iter().filter_map(|(place, door)| {
            let port = match &place.gateway {
                _ if place.is_of_ingresses() => None,
                _ if options.development.is_some() => Some(place::local(place.port, options, &mut open)),
                None => Some(place.port.number),
                Some(gateway) => Some(*own.get(gateway)?.ports.get(&place.port)?),
            };
            let addresses = port.map(|port| place::everywhere(port, options)).unwrap_or_default();
            Some(PortInUse { place: place.clone(), traffic: self.traffic(place, *door), addresses })
        });
        let in_use: Vec<_> = in_use.collect();
        if self.ports != in_use {
            self.ports = in_use;
            dirty.listeners = true;
        }
        let changed = own.iter().filter(|(key, has)| self.own.get(*key) != Some(*has)).map(|(key, _)| key);
        let changed: BTreeSet<&ObjectKey> = changed.collect();
        let sets = self.sets.iter().filter(|(_, set)| changed.contains(&set.gateway)).map(|(key, _)| key);
        dirty.gateway_statuses.extend(changed.iter().copied().chain(sets).cloned());
        self.own = own;
        let before = std::mem::replace(&mut self.made, made);
        let changed = |key: &&ObjectKey| before.get(*key) != self.made.get(*key);
        out.made.extend(before.keys().chain(self.made.keys()).filter(changed).cloned());
    }
}
