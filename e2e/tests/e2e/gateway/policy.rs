//! RoutePolicies in a cluster: their effects, and their status.

use anyhow::ensure;
use fairway_e2e::scene;

use super::{fairway, says};

/// A Gateway, a ListenerSet that adds a listener to it, and a route at both. Fairway serves the Gateways of all tests in the cluster, so
/// their names must differ.
const OBJECTS: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  gatewayClassName: '{ns}'
  allowedListeners: {namespaces: {from: Same}}
  listeners: [{name: http, port: 80, protocol: HTTP, hostname: own.{ns}.example}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata: {name: more}
spec:
  parentRef: {name: edge}
  listeners: [{name: http, port: 80, protocol: HTTP, hostname: set.{ns}.example}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{name: edge}, {kind: ListenerSet, name: more}]
  rules: [{backendRefs: [{name: web, port: 80}]}]
";

/// Applies only to the listener of the set.
const CLOSED: &str = "
apiVersion: fairway.dev/v1alpha1
kind: RoutePolicy
metadata: {name: closed}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: ListenerSet, name: more, sectionName: http}]
  access: {deny: [0.0.0.0/0, '::/0']}
";

/// Applies to the route, wherever it is served.
const USERS: &str = "
apiVersion: fairway.dev/v1alpha1
kind: RoutePolicy
metadata: {name: users}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: web}]
  basicAuth: {secretRef: {name: missing}}
";

const NO_LIMIT: &str = "
apiVersion: fairway.dev/v1alpha1
kind: RoutePolicy
metadata: {name: refused}
spec:
  targetRefs: [{group: gateway.networking.k8s.io, kind: HTTPRoute, name: web}]
  limits: {burstMultiplier: 2}
";

#[test]
fn policies_hold_for_a_route_and_for_a_listener_of_a_set_and_say_so() -> anyhow::Result<()> {
    scene::run("route-policy", async |scene| {
        let fairway = fairway(scene, &[]).await?;
        let address = fairway.address().await?;
        scene.echo("web", 1).await?;
        scene.apply(OBJECTS).await?;
        let [own, set] = ["own", "set"].map(|name| format!("{name}.{}.example", scene.namespace()));
        for host in [&own, &set] {
            scene.served(address, host).await?;
        }
        let refused = scene.apply(NO_LIMIT).await.expect_err("a policy with limits of nothing");
        ensure!(format!("{refused:#}").contains("a limit must be there"), "{refused:#}");

        let answers = async |expected: [(&String, u16); 2]| {
            for (host, status) in expected {
                let what = format!("{host} answers {status}");
                scene.steady(&what, async || Ok(scene.get(address, host, "/").await?.status == status)).await?;
            }
            anyhow::Ok(())
        };
        scene.apply(CLOSED).await?;
        answers([(&set, 403), (&own, 200)]).await?;
        says(scene, ("RoutePolicy", "closed"), &["Accepted=True/Accepted", "ResolvedRefs=True/ResolvedRefs"]).await?;
        // Without its Secret, the policy denies all access.
        scene.apply(USERS).await?;
        answers([(&set, 503), (&own, 503)]).await?;
        says(scene, ("RoutePolicy", "users"), &["Accepted=True/Accepted", "ResolvedRefs=False/InvalidSecretRef"])
            .await?;

        scene.delete(CLOSED).await?;
        scene.delete(USERS).await?;
        answers([(&set, 200), (&own, 200)]).await?;
        Ok(())
    })
}
