//! Routes whose authors ask for it show which generation is in effect at how many proxies; the chart grants one additional right for this.

use anyhow::Context;
use fairway_e2e::scene::{self, Scene};
use kube::Api;
use kube::api::DynamicObject;

use super::{fairway, resource};
use crate::rollout::TWO;

const OBJECTS: &str = "
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  gatewayClassName: '{ns}'
  listeners:
    - {name: http, port: 80, protocol: HTTP}
    - {name: tcp, port: 7000, protocol: TCP}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web, annotations: {fairway.dev/observe: 'true'}}
spec:
  parentRefs: [{name: edge, sectionName: http}]
  hostnames: ['{ns}.example']
  rules: [{backendRefs: [{name: web, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: TCPRoute
metadata: {name: web, annotations: {fairway.dev/observe: 'true'}}
spec:
  parentRefs: [{name: edge, sectionName: tcp}]
  rules: [{backendRefs: [{name: web, port: 80}]}]
";

#[test]
fn routes_that_ask_show_who_has_each_generation() -> anyhow::Result<()> {
    scene::run("observed", async |scene| {
        fairway(scene, &[TWO, "controller.observed.enabled=true"]).await?;
        scene.echo("web", 1).await?;
        scene.apply(OBJECTS).await?;
        for kind in ["HTTPRoute", "TCPRoute"] {
            shows(scene, kind).await?;
        }
        let patch = r#"[{"op": "replace", "path": "/spec/hostnames/0", "value": "again.example"}]"#;
        scene.kubectl(&["patch", "httproute/web", "--type=json", "--patch", patch]).await?;
        shows(scene, "HTTPRoute").await
    })
}

/// Waits until both proxies have the newest generation of a route.
async fn shows(scene: &Scene, kind: &str) -> anyhow::Result<()> {
    let routes: Api<DynamicObject> = Api::namespaced_with(scene.client(), scene.namespace(), &resource(kind).0);
    scene
        .until(&format!("the annotation of the newest generation of the {kind}"), async || {
            let metadata = routes.get("web").await?.metadata;
            let generation = metadata.generation.context("a generation")?;
            let text = metadata.annotations.and_then(|mut all| all.remove("fairway.dev/observed"));
            let start = format!(r#"{{"generation":{generation},"proxies":2,"of":2,"#);
            Ok(text.is_some_and(|text| text.starts_with(&start)))
        })
        .await
}
