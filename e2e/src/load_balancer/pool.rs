//! The address of each Service. An address belongs to at most one Service and stays with it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use k8s_openapi::api::core::v1::Service;

/// The first address of the pool, in the LAN of every cluster.
pub const FIRST: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 200);
/// The last one.
pub const LAST: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 250);

/// A Service by its uid: a new one with the same name is a different one.
pub(crate) type Uid = String;

/// Whether `service` asks for our load balancer.
pub(crate) fn is_ours(service: &Service) -> bool {
    let Some(spec) = &service.spec else { return false };
    spec.type_.as_deref() == Some("LoadBalancer") && spec.load_balancer_class.is_none()
}

/// Whether the address is in our pool.
pub(crate) fn contains(address: Ipv4Addr) -> bool {
    (FIRST..=LAST).contains(&address)
}

/// The address in the Service's status, if it is one of ours.
pub(crate) fn in_status(service: &Service) -> Option<Ipv4Addr> {
    let ingress = service.status.as_ref()?.load_balancer.as_ref()?.ingress.as_ref()?;
    ingress.iter().find_map(|ingress| ingress.ip.as_deref()?.parse().ok()).filter(|address| contains(*address))
}

/// The address of each Service. `held` are the previous assignments.
///
/// A Service keeps its address. One that names an address (`spec.loadBalancerIP`) gets that one or, if it is taken or
/// not in the pool, none, as with MetalLB. Among rivals the oldest wins.
pub(crate) fn assign<'a>(
    services: impl IntoIterator<Item = &'a Service>,
    held: &BTreeMap<Uid, Ipv4Addr>,
) -> BTreeMap<Uid, Ipv4Addr> {
    let mut services: Vec<&Service> = services.into_iter().filter(|service| is_ours(service)).collect();
    services.sort_by_key(|service| {
        let metadata = &service.metadata;
        (metadata.creation_timestamp.clone(), metadata.namespace.clone(), metadata.name.clone())
    });
    let mut given = BTreeMap::new();
    let mut taken = BTreeSet::new();
    let mut give = |uid: Uid, address: Option<Ipv4Addr>| {
        let Some(address) = address.filter(|address| contains(*address) && !taken.contains(address)) else {
            return false;
        };
        taken.insert(address);
        given.insert(uid, address);
        true
    };
    // Existing assignments go first: no newcomer takes an address from a Service that has it.
    services.retain(|service| {
        let Some(uid) = service.metadata.uid.clone() else { return false };
        let current = held.get(&uid).copied().or_else(|| in_status(service));
        let fits = wanted(service).is_none_or(|wanted| wanted.is_some() && wanted == current);
        !(fits && give(uid, current))
    });
    services.retain(|service| {
        let (Some(uid), Some(wanted)) = (service.metadata.uid.clone(), wanted(service)) else { return true };
        give(uid, wanted);
        false
    });
    let mut free = (u32::from(FIRST)..=u32::from(LAST)).map(Ipv4Addr::from);
    for uid in services.into_iter().filter_map(|service| service.metadata.uid.clone()) {
        // Addresses found to be taken are not checked again.
        free.by_ref().find(|address| give(uid.clone(), Some(*address)));
    }
    given
}

/// The address that the Service names; `Some(None)` if it is not a valid address.
fn wanted(service: &Service) -> Option<Option<Ipv4Addr>> {
    let text = service.spec.as_ref()?.load_balancer_ip.as_deref().filter(|text| !text.is_empty())?;
    Some(text.parse().ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// `age` in seconds: the greater, the older.
    fn service(name: &str, age: i64, spec: serde_json::Value) -> Service {
        let created = format!("2026-01-01T00:{:02}:{:02}Z", (3600 - age) / 60 % 60, (3600 - age) % 60);
        let metadata = json!({"namespace": "default", "name": name, "uid": name, "creationTimestamp": created});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    fn plain(name: &str, age: i64) -> Service {
        service(name, age, json!({"type": "LoadBalancer"}))
    }

    fn wanting(name: &str, age: i64, address: &str) -> Service {
        service(name, age, json!({"type": "LoadBalancer", "loadBalancerIP": address}))
    }

    fn held(pairs: &[(&str, u8)]) -> BTreeMap<Uid, Ipv4Addr> {
        pairs.iter().map(|(uid, last)| ((*uid).to_owned(), Ipv4Addr::new(198, 19, 0, *last))).collect()
    }

    #[test]
    fn the_oldest_is_served_first() {
        assert_eq!(assign(&[plain("young", 1), plain("old", 2)], &held(&[])), held(&[("old", 200), ("young", 201)]));
    }

    #[test]
    fn an_address_stays_with_its_service() {
        let services = [plain("old", 2), plain("young", 1)];
        assert_eq!(assign(&services, &held(&[("young", 200)])), held(&[("old", 201), ("young", 200)]));
    }

    #[test]
    fn an_address_is_free_again_when_its_service_is_gone() {
        assert_eq!(assign(&[plain("young", 1)], &held(&[("old", 200)])), held(&[("young", 200)]));
    }

    #[test]
    fn an_address_that_is_asked_for_is_given_unless_it_is_taken_or_foreign() {
        let services = [wanting("first", 4, "198.19.0.200"), wanting("second", 3, "198.19.0.200"), plain("third", 2)];
        assert_eq!(assign(&services, &held(&[])), held(&[("first", 200), ("third", 201)]));
        assert_eq!(assign(&[wanting("a", 1, "203.0.113.1"), wanting("b", 1, "none")], &held(&[])), held(&[]));
        let services = [plain("has", 1), wanting("wants", 2, "198.19.0.205")];
        assert_eq!(assign(&services, &held(&[("has", 205)])), held(&[("has", 205)]));
    }

    #[test]
    fn another_requested_address_moves_the_service() {
        assert_eq!(assign(&[wanting("a", 1, "198.19.0.220")], &held(&[("a", 200)])), held(&[("a", 220)]));
    }

    #[test]
    fn an_address_in_two_statuses_stays_with_the_oldest() {
        let mut services = [plain("young", 1), plain("old", 2)];
        for service in &mut services {
            let status = json!({"loadBalancer": {"ingress": [{"ip": "198.19.0.210"}]}});
            service.status = Some(serde_json::from_value(status).unwrap());
        }
        assert_eq!(assign(&services, &held(&[])), held(&[("old", 210), ("young", 200)]));
    }

    #[test]
    fn other_types_and_classes_are_ignored() {
        let services = [
            service("a", 1, json!({"type": "ClusterIP"})),
            service("b", 1, json!({"type": "LoadBalancer", "loadBalancerClass": "example.com/lb"})),
        ];
        assert_eq!(assign(&services, &held(&[("a", 200)])), held(&[]));
    }

    #[test]
    fn an_empty_pool_gives_nothing_twice() {
        let services: Vec<Service> = (0..60).map(|number| plain(&format!("s{number}"), number)).collect();
        let given = assign(&services, &held(&[]));
        let distinct: BTreeSet<_> = given.values().collect();
        assert_eq!((given.len(), distinct.len()), (51, 51));
    }
}
