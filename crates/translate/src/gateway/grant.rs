//! Permission for references into another namespace: the ReferenceGrants there.

use crate::engine::objects::{Kind, Object, Objects};

/// Whether an object of a kind and of one namespace may refer to an object of the core group in another one. Any
/// pair of a `from` and a `to` of any grant permits it.
pub(super) fn permits(
    objects: &Objects,
    (from_kind, from_namespace): (Kind, &str),
    (to_kind, to_namespace, to_name): (&str, &str, &str),
) -> bool {
    if from_namespace == to_namespace {
        return true;
    }
    objects.in_namespace(Kind::ReferenceGrant, to_namespace).any(|(_, object)| {
        let Object::ReferenceGrant(grant) = object else { return false };
        let from = grant.spec.from.iter().any(|from| {
            from.group == from_kind.group() && from.kind == from_kind.as_str() && from.namespace == from_namespace
        });
        let to = |to: &super::api::GrantTo| {
            let name = to.name.as_deref().filter(|name| !name.is_empty());
            to.group.is_empty() && to.kind == to_kind && name.is_none_or(|name| name == to_name)
        };
        from && grant.spec.to.iter().any(to)
    })
}
