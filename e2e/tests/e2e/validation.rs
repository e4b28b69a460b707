//! Ingresses that the API server refuses: by the webhook, with what the controller knows, and by the policy, without it.

use fairway_e2e::scene::{self, Release, Scene};
use k8s_openapi::api::networking::v1::Ingress;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

/// The API server's verdict on storing an Ingress; nothing is stored.
async fn verdict(
    scene: &Scene,
    fairway: &Release<'_>,
    name: &str,
    path: &str,
    annotations: Value,
) -> anyhow::Result<String> {
    let backend = json!({"service": {"name": "web", "port": {"number": 80}}});
    let path = json!({"path": path, "pathType": "Prefix", "backend": backend});
    let rule = json!({"host": "a.example", "http": {"paths": [path]}});
    let ingress = json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {"ingressClassName": fairway.class(), "rules": [rule]},
    });
    let parameters = PatchParams { dry_run: true, ..PatchParams::apply("validation").force() };
    match scene.api::<Ingress>().patch(name, &parameters, &Patch::Apply(&ingress)).await {
        Ok(_) => Ok("stored".to_owned()),
        Err(kube::Error::Api(status)) => Ok(status.message.clone()),
        Err(error) => Err(error.into()),
    }
}

#[test]
fn the_webhook_refuses_a_path_that_another_ingress_has_and_nothing_once_it_is_gone() -> anyhow::Result<()> {
    scene::run("webhook", async |scene| {
        let fairway = scene.fairway(&["controller.validatingWebhook.enabled=true"]).await?;
        fairway.ingress("first", "a.example", "web").await?;
        let expected = format!(
            "admission webhook \"validate.nginx.ingress.kubernetes.io\" denied the request: host \"a.example\" and path \"/\" is already \
             defined in ingress {}/first",
            scene.namespace()
        );
        let about = async |name: &str, path: &str| verdict(scene, &fairway, name, path, json!({})).await;
        scene.until("the refusal", async || Ok(about("second", "/").await? == expected)).await?;
        anyhow::ensure!(about("second", "/other").await? == "stored");
        anyhow::ensure!(about("first", "/").await? == "stored", "the owner may be edited");
        let snippet = json!({"nginx.ingress.kubernetes.io/configuration-snippet": "return 403;"});
        let refused = verdict(scene, &fairway, "third", "/third", snippet).await?;
        anyhow::ensure!(refused.contains("Snippet directives are disabled by the Ingress administrator"), "{refused}");

        // The webhook's pods are gone, and nothing depends on them.
        let deployment = format!("deployment/{}", fairway.controller());
        scene.kubectl(&["scale", &deployment, "--replicas=0"]).await?;
        scene.until("no refusal", async || Ok(about("second", "/").await? == "stored")).await
    })
}

#[test]
fn the_policy_refuses_without_asking_anybody() -> anyhow::Result<()> {
    scene::run("policy", async |scene| {
        let fairway = scene
            .fairway(&[
                "controller.validatingPolicy.enabled=true",
                "controller.config.annotation-value-word-blocklist=load_module",
            ])
            .await?;
        let about = async |path: &str, annotations: Value| verdict(scene, &fairway, "new", path, annotations).await;
        let snippet = || json!({"nginx.ingress.kubernetes.io/server-snippet": "return 403;"});
        scene
            .until("the policy", async || {
                Ok(about("/", snippet())
                    .await?
                    .contains("Snippet directives are disabled by the Ingress administrator"))
            })
            .await?;
        for (path, annotations, text) in [
            ("/x(.*)", json!({}), "ingress contains invalid paths"),
            ("/etc/passwd", json!({}), "invalid object"),
            ("/", json!({"nginx.ingress.kubernetes.io/app-root": "/load_module"}), "contains invalid word load_module"),
        ] {
            let refused = about(path, annotations).await?;
            anyhow::ensure!(refused.contains(text), "{path}: {refused}");
        }
        anyhow::ensure!(about("/fine", json!({"nginx.ingress.kubernetes.io/app-root": "/x"})).await? == "stored");
        // Ingresses of other classes pass.
        let theirs = json!({
            "apiVersion": "networking.k8s.io/v1",
            "kind": "Ingress",
            "metadata": {"name": "theirs", "annotations": snippet()},
            "spec": {"ingressClassName": "other", "defaultBackend": {"service": {"name": "web", "port": {"number": 80}}}},
        });
        let ingresses: Api<Ingress> = scene.api();
        ingresses.patch("theirs", &PatchParams::apply("validation"), &Patch::Apply(&theirs)).await?;
        Ok(())
    })
}
