//! Which namespaces a release serves: one, or those that a selector chooses. It has rights nowhere else.

use fairway_e2e::scene::{self, Scene};

#[test]
fn a_release_with_a_scope_serves_its_own_namespace_only() -> anyhow::Result<()> {
    scene::run("scope", async |scene| {
        let fairway = scene.fairway(&["controller.scope.enabled=true"]).await?;
        serves(scene, &fairway, false).await
    })
}

#[test]
fn a_selector_chooses_the_namespaces_that_are_served() -> anyhow::Result<()> {
    scene::run("selector", async |scene| {
        let label = "controller.scope.namespaceSelector=fairway\\.dev/test=selector";
        let fairway = scene.fairway(&[label]).await?;
        serves(scene, &fairway, true).await
    })
}

/// Checks that the namespace of the scene is served and another one is not, until it has the label of the selector, if there
/// is one.
async fn serves(scene: &Scene, fairway: &scene::Release<'_>, selects: bool) -> anyhow::Result<()> {
    let address = fairway.address().await?;
    let other = format!("{}-other", scene.namespace());
    let namespace = |labels: &str| {
        format!("{{apiVersion: v1, kind: Namespace, metadata: {{name: {other}, labels: {{{labels}}}}}}}")
    };
    scene.apply(&namespace("")).await?;
    let answers = async |host: &str| anyhow::Ok(scene.get(address, host, "/").await?.status);

    // Its Service doesn't exist: who serves the host answers 503, anybody else 404.
    scene.apply(&ingress(fairway.class(), &other, "theirs")).await?;
    scene.apply(&ingress(fairway.class(), scene.namespace(), "ours")).await?;
    scene.until("our host is served", async || Ok(answers("ours.example").await? == 503)).await?;
    // It was written before ours.
    anyhow::ensure!(answers("theirs.example").await? == 404, "a namespace is served that isn't ours");
    if selects {
        scene.apply(&namespace("fairway.dev/test: selector")).await?;
        scene.until("their host is served", async || Ok(answers("theirs.example").await? == 503)).await?;
        scene.apply(&namespace("")).await?;
        scene.until("their host is served no longer", async || Ok(answers("theirs.example").await? == 404)).await?;
    }
    scene.delete(&namespace("")).await
}

fn ingress(class: &str, namespace: &str, name: &str) -> String {
    format!(
        "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  ingressClassName: {class}
  rules:
    - host: {name}.example
      http:
        paths:
          - {{path: /, pathType: Prefix, backend: {{service: {{name: nothing, port: {{number: 80}}}}}}}}
"
    )
}
