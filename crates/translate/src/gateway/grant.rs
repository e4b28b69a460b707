//! Permission for references into another namespace: the ReferenceGrants there.

use crate::engine::objects::{Kind, Object, ObjectKey, Objects};

/// Whether an object of this kind and namespace may refer to an object of another namespace. Any pair of a `from` and a `to` in any grant
/// there permits it.
pub(super) fn permits(objects: &Objects, (from_kind, from_namespace): (Kind, &str), to: &ObjectKey) -> bool {
    if *from_namespace == *to.namespace {
        return true;
    }
    objects.in_namespace(Kind::ReferenceGrant, &to.namespace).any(|(_, object)| {
        let Object::ReferenceGrant(grant) = object else { return false };
        let from = grant.spec.from.iter().any(|from| {
            from.group == from_kind.group() && from.kind == from_kind.as_str() && from.namespace == from_namespace
        });
        let is_to = |one: &super::api::GrantTo| {
            let name = one.name.as_deref().filter(|name| !name.is_empty());
            one.group == to.kind.group() && one.kind == to.kind.as_str() && name.is_none_or(|name| *name == *to.name)
        };
        from && grant.spec.to.iter().any(is_to)
    })
}
