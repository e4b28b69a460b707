//! ListenerSets: listeners that other objects add to a Gateway, as far as it admits them.
//!
//! The Gateway's own listeners come first, then those of the sets by age: of two that conflict, the first gets its place, and only the
//! other is refused.

use std::collections::BTreeMap;

use super::api::{Gateway, ListenerSet};
use super::host::RouteAge;
use super::listener::{self, GatewayPart, Namespaces, selects};
use super::status::Shortcoming;
use crate::objects::{Kind, Object, ObjectKey, Objects};

/// A ListenerSet that names a Gateway of ours.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SetPart {
    pub(super) gateway: ObjectKey,
    /// Why none of its listeners is added.
    pub(super) fault: Option<Shortcoming>,
}

/// The objects that routes can attach to.
#[derive(Clone, Copy)]
pub(super) struct Parents<'a> {
    pub(super) gateways: &'a BTreeMap<ObjectKey, GatewayPart>,
    pub(super) sets: &'a BTreeMap<ObjectKey, SetPart>,
}

impl<'a> Parents<'a> {
    /// The Gateway that has the listeners of a holder.
    pub(super) fn gateway_of(self, holder: &ObjectKey) -> Option<&'a GatewayPart> {
        match self.sets.get(holder) {
            Some(set) => self.gateways.get(&set.gateway),
            None => self.gateways.get(holder),
        }
    }

    /// Why a holder has no listeners at all.
    pub(super) fn fault_of(self, holder: &ObjectKey) -> Option<&'a Shortcoming> {
        self.sets.get(holder)?.fault.as_ref()
    }
}

/// Reads all sets of these Gateways, and adds their listeners. `age` returns an object's age, or `None` if it is not to be read.
pub(super) fn join(
    gateways: &mut [GatewayPart],
    objects: &Objects,
    age: impl Fn(&ObjectKey, &Object) -> Option<RouteAge>,
) -> BTreeMap<ObjectKey, SetPart> {
    let mut sets = BTreeMap::new();
    let mut joining = Vec::new();
    for (key, object) in objects.of_kind(Kind::ListenerSet) {
        let Object::ListenerSet(set) = object else { continue };
        let Some(gateway) = gateway_of(key, set) else { continue };
        let Some(at) = gateways.iter().position(|part| part.key == gateway) else { continue };
        let Some(Object::Gateway(text)) = objects.get(&gateway) else { continue };
        let Some(age) = age(key, object) else { continue };
        let fault = refusal(key, text, &gateways[at], objects);
        if fault.is_none() {
            joining.push((age, at, set, text));
        }
        sets.insert(key.clone(), SetPart { gateway, fault });
    }
    joining.sort_by(|(one, ..), (other, ..)| one.cmp(other));
    for (age, at, set, text) in joining {
        let key = age.key();
        let gateway = &mut gateways[at];
        let turn = (gateway.turn.clone().max(age.clone()), Some(age.clone()));
        let added = set.spec.listeners.iter().map(|one| listener::read_listener(key, &turn, text, one, objects));
        gateway.listeners.extend(added);
    }
    sets
}

/// The Gateway that a set names.
fn gateway_of(key: &ObjectKey, set: &ListenerSet) -> Option<ObjectKey> {
    let parent = &set.spec.parent_ref;
    let is_gateway = parent.group.as_deref().is_none_or(|group| group == super::api::GROUP)
        && parent.kind.as_deref().is_none_or(|kind| kind == Kind::Gateway.as_str());
    let namespace = parent.namespace.as_deref().unwrap_or(&key.namespace);
    is_gateway.then(|| ObjectKey::new(Kind::Gateway, namespace, &*parent.name))
}

fn refusal(key: &ObjectKey, text: &Gateway, gateway: &GatewayPart, objects: &Objects) -> Option<Shortcoming> {
    let rule = text.spec.allowed_listeners.as_ref().and_then(|allowed| allowed.namespaces.as_ref());
    let admits = match Namespaces::of(rule, "None") {
        Namespaces::Same => gateway.key.namespace == key.namespace,
        Namespaces::All => true,
        Namespaces::Selector(selector) => selects(&selector, &key.namespace, objects),
        Namespaces::None => false,
    };
    (!admits).then(|| {
        let message = format!(
            "{} takes no ListenerSet of namespace {} (spec.allowedListeners.namespaces)",
            gateway.key, key.namespace
        );
        Shortcoming::new("NotAllowed", message)
    })
}
