//! XTelemetryPolicies in a cluster that has their CRD: a Gateway's requests are traced, and the policies report their status.

use anyhow::ensure;
use fairway_e2e::scene;

use super::{fairway, says};

/// A Gateway and a route at it. Fairway serves the Gateways of all tests in the cluster, so their names must differ.
const OBJECTS: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  gatewayClassName: '{ns}'
  listeners: [{name: http, port: 80, protocol: HTTP, hostname: traced.{ns}.example}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{name: edge}]
  rules: [{backendRefs: [{name: web, port: 80}]}]
";

const FIRST: &str = "
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XTelemetryPolicy
metadata: {name: first}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: edge}]
  tracing: {mode: Enabled, provider: {backendRef: {name: web, port: 80}}}
";

/// Perhaps created in the same second, so that the name decides.
const SECOND: &str = "
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XTelemetryPolicy
metadata: {name: second}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: edge}]
  tracing: {mode: Enabled, provider: {backendRef: {name: missing, port: 4317}}}
";

const NO_PROVIDER: &str = "
apiVersion: gateway.networking.x-k8s.io/v1alpha1
kind: XTelemetryPolicy
metadata: {name: refused}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: edge}]
  tracing: {mode: Enabled}
";

#[test]
fn the_requests_of_a_gateway_are_traced_by_its_oldest_policy_and_each_says_how_it_stands() -> anyhow::Result<()> {
    scene::run("telemetry", async |scene| {
        let fairway = fairway(scene, &[]).await?;
        let address = fairway.address().await?;
        scene.echo("web", 1).await?;
        scene.apply(OBJECTS).await?;
        let host = format!("traced.{}.example", scene.namespace());
        scene.served(address, &host).await?;
        let traced = async |expected: bool| {
            let what = format!("requests are traced: {expected}");
            let is_so = async || {
                let body = scene.get(address, &host, "/").await?.body.to_ascii_lowercase();
                Ok(String::from_utf8_lossy(&body).contains("traceparent") == expected)
            };
            scene.steady(&what, is_so).await
        };
        traced(false).await?;
        let refused = scene.apply(NO_PROVIDER).await.expect_err("a policy without a receiver");
        ensure!(format!("{refused:#}").contains("provider is required"), "{refused:#}");

        let kind = "XTelemetryPolicy";
        scene.apply(FIRST).await?;
        says(scene, (kind, "first"), &["Accepted=True/Accepted", "ResolvedRefs=True/ResolvedRefs"]).await?;
        traced(true).await?;
        scene.apply(SECOND).await?;
        says(scene, (kind, "second"), &["Accepted=False/Conflicted", "ResolvedRefs=False/BackendNotFound"]).await?;
        scene.delete(FIRST).await?;
        // Its collector is missing: the trace context is passed on, and no spans are sent.
        says(scene, (kind, "second"), &["Accepted=True/Accepted", "ResolvedRefs=False/BackendNotFound"]).await?;
        traced(true).await?;
        scene.delete(SECOND).await?;
        traced(false).await
    })
}
