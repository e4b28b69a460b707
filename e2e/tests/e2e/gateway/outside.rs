//! XBackends in a cluster: pods selected by label, and the status.

use anyhow::{Context, ensure};
use fairway_e2e::scene;
use k8s_openapi::api::core::v1::Service;
use kube::api::ListParams;

use super::{fairway, says};

const OBJECTS: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  gatewayClassName: '{ns}'
  listeners: [{name: http, port: 80, protocol: HTTP, hostname: pods.{ns}.example}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{name: edge}]
  rules: [{backendRefs: [{group: gateway.networking.x-k8s.io, kind: XBackend, name: web}]}]
";

const PODS: &str = "
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackend
metadata: {name: web}
spec: {type: EndpointSelector, endpointSelector: {matchLabels: {app: web}}, port: {number: 3000}}
";

/// The same name, for a host that leads back to the proxy.
const BACK: &str = "
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XBackend
metadata: {name: web}
spec: {type: ExternalHostname, externalHostname: {hostname: localhost}, port: {number: 10254}}
";

#[test]
fn pods_are_served_by_their_labels_through_a_service_that_goes_with_the_xbackend() -> anyhow::Result<()> {
    scene::run("xbackend", async |scene| {
        let fairway = fairway(scene, &["controller.gatewayAPI.address=asked"]).await?;
        let address = fairway.address().await?;
        scene.echo("web", 2).await?;
        scene.apply(PODS).await?;
        scene.apply(OBJECTS).await?;
        let host = format!("pods.{}.example", scene.namespace());
        scene.served(address, &host).await?;

        says(scene, ("XBackend", "web"), &["Accepted=True/Accepted"]).await?;
        let made = ListParams::default().labels("fairway.dev/xbackend-name=web");
        let services = async || anyhow::Ok(scene.api::<Service>().list(&made).await?.items);
        let [service] = &services().await?[..] else { anyhow::bail!("not one Service: {:?}", services().await?) };
        let spec = service.spec.clone().context("a spec")?;
        ensure!(spec.cluster_ip.as_deref() == Some("None"), "{spec:?}");

        // An address that leads back to the proxy is refused.
        scene.apply(BACK).await?;
        says(scene, ("XBackend", "web"), &["Accepted=False/UnsupportedValue"]).await?;
        scene.steady("it answers 500", async || Ok(scene.get(address, &host, "/").await?.status == 500)).await?;
        scene.apply(PODS).await?;
        scene.served(address, &host).await?;
        scene.delete(PODS).await?;
        scene.until("no Service is left", async || Ok(services().await?.is_empty())).await
    })
}
