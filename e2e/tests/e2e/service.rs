//! Session affinity of a Service: kube-proxy's part in it, and how much of it remains behind Fairway.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, ensure};
use fairway_e2e::load::Load;
use fairway_e2e::scene::{self, Scene};
use k8s_openapi::api::core::v1::Service;
use serde_json::Value;

#[test]
fn affinity_of_a_service_holds_for_its_cluster_ip() -> anyhow::Result<()> {
    scene::run("affinity", async |scene| {
        // Each request goes over a new connection, for which kube-proxy chooses again.
        let fresh = "controller.config.upstream-keepalive-connections=0";
        let fairway = scene.fairway(&["controller.replicaCount=1", fresh]).await?;
        scene.echo("any", 3).await?;
        scene.echo("same", 3).await?;
        scene.kubectl(&["patch", "service/same", "--patch", r#"{"spec": {"sessionAffinity": "ClientIP"}}"#]).await?;
        let (any, same) = (cluster_ip(scene, "any").await?, cluster_ip(scene, "same").await?);
        // kube-proxy learns of the change later than the API server.
        let mut all = BTreeSet::new();
        scene
            .until("different pods behind the address without affinity", async || {
                all.insert(pod(scene, SocketAddr::new(any, 80), "any").await?);
                Ok(all.len() == 3)
            })
            .await?;
        let sticks = async |address, host| {
            let mut pods = BTreeSet::new();
            for _ in 0..12 {
                pods.insert(pod(scene, address, host).await?);
            }
            Ok(pods.len() == 1)
        };
        scene.until("one pod for one client", async || sticks(SocketAddr::new(same, 80), "same").await).await?;
        // To kube-proxy, the client of the pods is now Fairway, perhaps on another node, whose kube-proxy may be later.
        scene.apply(&through_the_cluster_ip(fairway.class(), "same.example", "same")).await?;
        let address = fairway.address().await?;
        scene.served(address, "same.example").await?;
        scene.until("one pod for Fairway", async || sticks(address, "same.example").await).await?;
        let load = Load::to(address).host("same.example").connections(4).rate(400).new_connections().start();
        load.more(60).await;
        let account = load.stop().await;
        ensure!(account.failures.is_empty() && account.pods.len() == 1, "{account}: {:?}", account.pods);
        Ok(())
    })
}

async fn cluster_ip(scene: &Scene, name: &str) -> anyhow::Result<IpAddr> {
    let spec = scene.api::<Service>().get(name).await?.spec.context("a Service without spec")?;
    Ok(spec.cluster_ip.context("a Service without address")?.parse()?)
}

/// An Ingress of a class, all of whose paths lead to a Service through its ClusterIP.
fn through_the_cluster_ip(class: &str, host: &str, service: &str) -> String {
    format!(
        "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: {service}
  annotations: {{nginx.ingress.kubernetes.io/service-upstream: 'true'}}
spec:
  ingressClassName: {class}
  rules:
    - host: {host}
      http:
        paths: [{{path: /, pathType: Prefix, backend: {{service: {{name: {service}, port: {{number: 80}}}}}}}}]
"
    )
}

/// The pod that answers a request on a new connection.
async fn pod(scene: &Scene, address: SocketAddr, host: &str) -> anyhow::Result<String> {
    let answer: Value = serde_json::from_slice(&scene.get(address, host, "/").await?.body)?;
    Ok(answer["pod"].as_str().context("the echo names its pod")?.to_owned())
}
