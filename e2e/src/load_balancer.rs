//! Gives Services of type LoadBalancer an address from a pool, as MetalLB would.
//!
//! A Service without a class gets an address in its status, and traffic from the outside to that address arrives at a
//! Node, whose kube-proxy does the rest. [`pool`] assigns addresses, `choice` chooses the Node, `route` sets the route
//! there.

mod choice;
pub mod pool;
pub(crate) mod route;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{Patch, PatchParams};
use kube::runtime::reflector::{self, Store};
use kube::runtime::utils::Backoff;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::watch;

use crate::load_balancer::choice::View;
use crate::load_balancer::pool::Uid;

/// Changes that arrive together are handled together.
const PAUSE: Duration = Duration::from_millis(5);
/// A paused API server does not respond.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long to wait after a failure: 0.1 s at first and 1 s at most, so that everything recovers quickly after an
/// outage.
#[derive(Clone, Debug, Default)]
struct Retry {
    failures: u32,
}

impl Iterator for Retry {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let delay = Duration::from_millis(100 << self.failures.min(4)).min(Duration::from_secs(1));
        self.failures = self.failures.saturating_add(1);
        Some(delay)
    }
}

impl Backoff for Retry {
    fn reset(&mut self) {
        self.failures = 0;
    }
}

/// The decisions so far.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
struct Assignments {
    addresses: BTreeMap<Uid, Ipv4Addr>,
    routes: BTreeMap<Ipv4Addr, String>,
}

/// The desired status of a Service.
#[derive(Clone, Debug, Eq, PartialEq)]
struct StatusWrite {
    namespace: String,
    name: String,
    address: Option<Ipv4Addr>,
}

/// Serves the cluster of `client` for as long as it lives; the API server may come and go.
pub async fn run(client: Client) {
    let changes = watch::Sender::new(());
    let services: Store<Service> = mirror(Api::all(client.clone()), &changes);
    let nodes: Store<Node> = mirror(Api::all(client.clone()), &changes);
    let slices: Store<EndpointSlice> = mirror(Api::all(client.clone()), &changes);
    let mut changed = changes.subscribe();
    // The tasks that fill the stores live as long as the runtime.
    let _ = tokio::join!(services.wait_until_ready(), nodes.wait_until_ready(), slices.wait_until_ready());

    let mut assignments = Assignments::default();
    let mut retry = Retry::default();
    loop {
        changed.mark_unchanged();
        let (next, writes) = plan(&services.state(), &nodes.state(), &slices.state(), &assignments);
        match apply(&client, &assignments, &next, &writes).await {
            Ok(()) => {
                retry.reset();
                assignments = next;
                // `changes` lives until we end.
                let _ = changed.changed().await;
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => {
                tracing::warn!("load balancer: {error:#}");
                // Assigned addresses remain assigned, even if the write failed.
                assignments.addresses = next.addresses;
                tokio::time::sleep(retry.next().unwrap_or_default()).await;
            }
        }
    }
}

/// A store that follows `api` and signals `changes`.
fn mirror<K>(api: Api<K>, changes: &watch::Sender<()>) -> Store<K>
where
    K: kube::Resource<DynamicType = ()> + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let changes = changes.clone();
    tokio::spawn(async move {
        let events = watcher(api, watcher::Config::default()).backoff(Retry::default());
        let mut events = pin!(events.reflect(writer));
        while let Some(event) = events.next().await {
            match event {
                Ok(_) => changes.send_replace(()),
                Err(error) => tracing::debug!(%error, kind = %K::kind(&()), "watch, tried again"),
            };
        }
    });
    store
}

/// Computes the desired state from the current one and the previous decisions.
fn plan(
    services: &[Arc<Service>],
    nodes: &[Arc<Node>],
    slices: &[Arc<EndpointSlice>],
    assignments: &Assignments,
) -> (Assignments, Vec<StatusWrite>) {
    let addresses = pool::assign(services.iter().map(Arc::as_ref), &assignments.addresses);
    let address = |service: &Service| addresses.get(service.metadata.uid.as_ref()?).copied();
    let nodes: Vec<&Node> = nodes.iter().map(Arc::as_ref).collect();
    let slices: Vec<&EndpointSlice> = slices.iter().map(Arc::as_ref).collect();
    let mut with_address: Vec<(&Service, Ipv4Addr)> =
        services.iter().filter_map(|service| Some((service.as_ref(), address(service)?))).collect();
    with_address.sort_by_key(|(_, address)| *address);
    let routes = choice::all(&with_address, &assignments.routes, View { nodes: &nodes, slices: &slices });

    let mut writes = Vec::new();
    for service in services {
        let wanted = address(service);
        let current = pool::in_status(service);
        // A Service of another class is not ours, whatever its status says.
        let foreign = !pool::is_ours(service) && current.is_none();
        let (Some(namespace), Some(name)) = (service.metadata.namespace.clone(), service.metadata.name.clone()) else {
            continue;
        };
        if wanted != current && !foreign && service.metadata.deletion_timestamp.is_none() {
            writes.push(StatusWrite { namespace, name, address: wanted });
        }
    }
    (Assignments { addresses, routes }, writes)
}

/// Carries the plan out. The route exists before the address is published.
async fn apply(
    client: &Client,
    assignments: &Assignments,
    next: &Assignments,
    writes: &[StatusWrite],
) -> anyhow::Result<()> {
    if assignments.routes != next.routes {
        route::replace(&next.routes)?;
        tracing::info!(routes = ?next.routes, "load balancer");
    }
    for StatusWrite { namespace, name, address } in writes {
        let ingress = address.map(|address| json!([{"ip": address}]));
        let patch = Patch::Merge(json!({"status": {"loadBalancer": {"ingress": ingress}}}));
        let services: Api<Service> = Api::namespaced(client.clone(), namespace);
        let parameters = PatchParams::default();
        let write = services.patch_status(name, &parameters, &patch);
        match tokio::time::timeout(PATIENCE, write).await.with_context(|| format!("writing {namespace}/{name}"))? {
            // Deleted in the meantime: the watch will report it.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            result => drop(result.with_context(|| format!("writing {namespace}/{name}"))?),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn service(spec: Value, status: Value) -> Arc<Service> {
        let metadata = json!({"namespace": "default", "name": "web", "uid": "1"});
        Arc::new(serde_json::from_value(json!({"metadata": metadata, "spec": spec, "status": status})).unwrap())
    }

    fn with_address() -> Value {
        json!({"loadBalancer": {"ingress": [{"ip": "198.19.0.200", "ipMode": "VIP"}]}})
    }

    fn written(service: Arc<Service>) -> Vec<Option<Ipv4Addr>> {
        let (_, writes) = plan(&[service], &[], &[], &Assignments::default());
        writes.into_iter().map(|write| write.address).collect()
    }

    #[test]
    fn the_status_is_written_once() {
        let spec = json!({"type": "LoadBalancer"});
        assert_eq!(written(service(spec.clone(), json!({}))), [Some(pool::FIRST)]);
        assert!(written(service(spec, with_address())).is_empty());
    }

    #[test]
    fn a_service_of_another_type_loses_its_address() {
        assert_eq!(written(service(json!({"type": "ClusterIP"}), with_address())), [None]);
        assert!(written(service(json!({"type": "ClusterIP"}), json!({}))).is_empty());
    }

    #[test]
    fn a_service_of_another_class_keeps_its_own_address() {
        let status = json!({"loadBalancer": {"ingress": [{"ip": "203.0.113.7"}]}});
        assert!(
            written(service(json!({"type": "LoadBalancer", "loadBalancerClass": "example.com/lb"}), status)).is_empty()
        );
    }
}
